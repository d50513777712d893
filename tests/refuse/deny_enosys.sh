#!/bin/bash
# SPDX-License-Identifier: MIT
# Every memory policy call and rseq answer ENOSYS, as in sandboxes that have a kernel of their own.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/deny.sh"
denied ENOSYS
