#!/bin/bash
# SPDX-License-Identifier: MIT
# sort with threads on a file larger than its buffer, and the small programs of every shell script.
. "$(dirname "$0")/lib.sh"
need sort coreutils
need awk mawk

awk -v n="$(quick 100000 600000)" 'BEGIN { x = 7; for (i = 0; i < n; i++) { x = (x * 16807) % 2147483647;
	printf "%x %d %s\n", x, x % 1000, substr("abcdefghijklmnopqrstuvwxyz", x % 20 + 1) } }' >"$work/lines"
export lines=$work/lines

sorting() {
	sort --parallel=2 -S 8M "$lines" | sha256sum
	sort --parallel=2 -S 64M -k2,2n -k3 -s "$lines" | sha256sum
	sort -u -S 1M -k3 "$lines" | sha256sum
}
small() {
	local i
	cut -d ' ' -f 3 "$lines" | uniq -c | head -n 100
	tr a-z A-Z <"$lines" | tac | nl | tail -n 5
	join <(sort "$lines" | head -n 2000) <(sort "$lines" | tail -n +1000 | head -n 2000) | wc
	split -n 7 "$lines" part && cat part* | cmp - "$lines" && ls part* && md5sum part* && rm part*
	grep -cE '(abc|xyz)$' "$lines"
	sed -n 's/^\([0-9a-f]*\) .* \(.*\)$/\2 \1/p' "$lines" | sed -n '1~5000p'
	awk '{ n[$2] += length($3) } END { for (i = 0; i < 1000; i += 50) print i, n[i] }' "$lines"
	find / -maxdepth 1 -type d | sort
	mkdir -p a/b/c && cp "$lines" a/b/c/ && tar -cf - a | tar -tf - && du -a --apparent-size a && rm -r a
	for i in $(seq 50); do expr "$i" \* 3; printf '%s' "$i"; true; done | paste -s - -
}

bound sort --version
both sorting
both small
