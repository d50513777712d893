#!/bin/bash
# SPDX-License-Identifier: MIT
# xz and zstd with two threads, there and back.
. "$(dirname "$0")/lib.sh"
need xz xz-utils
need zstd zstd

awk -v n="$(quick 150000 700000)" 'BEGIN { x = 42; for (i = 0; i < n; i++) { x = (x * 16807) % 2147483647;
	printf "%d the %d of %x\n", i, x % 1000, x } }' >"$work/text"
export text=$work/text

with_xz() {
	xz -T2 -3 --block-size=1MiB -c "$text" >t.xz && xz -dc -T2 t.xz | cmp - "$text" && sha256sum t.xz
}
with_zstd() {
	zstd -q -T2 -6 -c "$text" >t.zst && zstd -q -dc t.zst | cmp - "$text" && sha256sum t.zst || return 1
	zstd -q -T2 --long=24 -12 -c "$text" >l.zst && zstd -q -dc --long=24 l.zst | cmp - "$text" && sha256sum l.zst
}

bound xz --version
bound zstd --version
counted zstd -q -T2 -c "$text"
both with_xz
both with_zstd
