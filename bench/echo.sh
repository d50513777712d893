#!/bin/bash
# SPDX-License-Identifier: MIT
# The echo server (examples/echo.c) with its slab in huge pages, with malloc'ed buffers and without io_uring, under the
# same client (tests/echo_client.c) on the same machine, in turn: `make bench-echo`. What is told are medians of the
# rounds: MiB that came back a second, the server's own processor time for each MiB, and how both compare with the
# malloc'ed one in the same round.
#
#	bench/echo.sh [ROUNDS]        SO=libquarry.so CC=cc; 11 rounds
set -eu
export LC_ALL=C

src=$(cd "$(dirname "$0")/.." && pwd)
rounds=${1:-11}
library=${SO:-$PWD/.libs/libquarry.so}
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-bench-echo.XXXXXX")
servers=()
end() {
	[[ ${#servers[@]} == 0 ]] || kill "${servers[@]}" 2>/dev/null || true
	wait
	rm -rf "$work"
}
trap end EXIT

"${CC:-cc}" -std=gnu11 -O2 -o "$work/client" "$src/tests/echo_client.c"
"${CC:-cc}" -std=gnu11 -O2 -I"$src/include" -o "$work/echo" "$src/examples/echo.c" "$library" \
	-Wl,-rpath,"${library%/*}" -luring

ways=(slab malloc plain)
declare -A option=([slab]="" [malloc]=--malloc [plain]=--plain) port
for way in "${ways[@]}"; do
	# shellcheck disable=SC2086 # the slab has none
	"$work/echo" --buffers 4096 --size 16384 ${option[$way]} >"$work/$way" 2>&1 &
	servers+=($!)
	for ((n = 0; n < 100; n++)); do
		: >>"$work/$way"
		port[$way]=$(sed -n 's/^port //p' "$work/$way")
		[[ -z ${port[$way]} ]] || break
		sleep 0.05
	done
	[[ -n ${port[$way]} ]] || { cat "$work/$way" >&2; exit 1; }
done

ran() { cut -d ' ' -f 1 "/proc/${servers[$1]}/schedstat"; } # ns of processor time

measure() { # measure NAME CONNECTIONS BYTES WINDOW CHUNK
	local name=$1 way round i at before
	shift
	rm -f "$work"/figures.*
	for ((round = -1; round < rounds; round++)); do # one to warm up
		for i in 0 1 2; do
			at=$(((i + round + 1) % 3))
			way=${ways[at]}
			before=$(ran $at)
			"$work/client" "${port[$way]}" "$@" 0 >"$work/one"
			((round < 0)) ||
				echo "$(<"$work/one") $(($(ran $at) - before)) $(($1 * $2))" >>"$work/figures.$way"
		done
	done
	paste "$work/figures.slab" "$work/figures.malloc" "$work/figures.plain" | awk -v name="$name" '
	function median(a, n,  i, j, t) {
		for (i = 2; i <= n; i++)
			for (j = i; j > 1 && a[j - 1] > a[j]; j--) {
				t = a[j]; a[j] = a[j - 1]; a[j - 1] = t
			}
		return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
	}
	{
		for (way = 0; way < 3; way++) {
			speed[way, NR] = $(3 * way + 1) / 1048576
			time[way, NR] = $(3 * way + 2) / 1000 / ($(3 * way + 3) / 1048576)
			faster[way, NR] = speed[way, NR] / ($4 / 1048576)
			longer[way, NR] = time[way, NR] / ($5 / 1000 / ($6 / 1048576))
		}
	}
	function column(from, way,  i, a) {
		for (i = 1; i <= NR; i++)
			a[i] = from[way, i]
		return median(a, NR)
	}
	END {
		split("slab malloc plain", names)
		print name
		for (way = 0; way < 3; way++)
			printf "  %-8s %8.1f MiB/s  x %.3f   server: %9.1f us a MiB  x %.3f\n", names[way + 1],
				column(speed, way), column(faster, way), column(time, way), column(longer, way)
	}'
}

echo "echo server, medians of $rounds rounds in turn"
measure "16 connections, messages of 64 bytes" 16 500000 64 64
measure "16 connections, messages of 4 KiB" 16 4000000 4096 4096
measure "64 connections, messages of 16 KiB" 64 4000000 16384 16384
measure "8 connections, streams" 8 60000000 1000000 65536
