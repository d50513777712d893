#!/bin/sh
# SPDX-License-Identifier: MIT
# Make ./configure from configure.ac. Needs autoconf, automake, libtool and pkg-config (tools/install-deps.sh build).
set -eu
cd "$(dirname "$0")"

missing=
for tool in autoreconf automake libtoolize pkg-config; do
	command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then
	echo "autogen.sh: not found:$missing (tools/install-deps.sh build installs them)" >&2
	exit 1
fi

mkdir -p build-aux
exec autoreconf --force --install "$@"
