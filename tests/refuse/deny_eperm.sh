#!/bin/bash
# SPDX-License-Identifier: MIT
# Every memory policy call and rseq answer EPERM, as in a container with a strict seccomp profile.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/deny.sh"
denied EPERM
