#!/bin/bash
# SPDX-License-Identifier: MIT
# What the library costs a program that does next to nothing: the time `true` takes to start with it and without (said,
# not judged: machines differ and are busy), and the resident memory of a hello-world, which may grow by 1 MiB at most,
# and by no huge page that the kernel gives unasked.
#
# Run by make check; by hand: QUARRY_SO=…/libquarry-malloc.so tests/startup.sh
# QUARRY_COMPARE="name=path.so …" says the same of others.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
runs=200       # of `true`, with and without by turns
samples=21     # of the hello-world, whose resident memory varies by some pages with the addresses it is given
rss_limit=1024 # KiB

: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[[ -f $QUARRY_SO ]] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
QUARRY_SO=$(readlink -f "$QUARRY_SO")
unset LD_PRELOAD QUARRY_OPTIONS

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${CC:-cc}" -O2 -Wall -o "$work/startup" "$here/startup.c" 2>"$work/compiler" || { cat "$work/compiler"; exit 1; }

# rss LIBRARY: the medians by status, by smaps_rollup (-1 where there is none) and of what may be huge, in KiB.
rss() {
	local i k seen
	seen=$(mktemp -p "$work")
	for ((i = 0; i < samples; i++)); do
		"$work/startup" spawn "$1" "$work/startup" hello 2>>"$seen" >"$seen.said"
		[[ $(<"$seen.said") == "Hello, world" ]] || { echo "hello-world said: $(<"$seen.said")" >&2; return 1; }
	done
	for k in 1 2 3; do
		awk -v k=$k '{ print $k }' "$seen" | sort -n | sed -n $(((samples + 1) / 2))p
	done | xargs
}

# measure NAME LIBRARY: prints, and sets $growth to the larger of the two.
growth=0 may_be_huge=0
measure() {
	local plain loaded more by_status by_rollup with_status with_rollup huge
	read -r plain loaded more < <("$work/startup" time "$2" $runs) || { echo "$1: true does not start"; return 1; }
	echo "$1: true starts in $loaded us, $plain us without it: $more us more (medians of $runs by turns)"
	read -r by_status by_rollup _ < <(rss "")
	read -r with_status with_rollup huge < <(rss "$2") || { echo "$1: the hello-world does not run"; return 1; }
	growth=$((with_status - by_status))
	echo "$1: a hello-world has $with_status KiB resident, $by_status KiB without it: $growth KiB more"
	if ((by_rollup >= 0)); then
		echo "$1: by smaps_rollup, which is exact: $with_rollup KiB, $by_rollup KiB: $((with_rollup - by_rollup)) KiB more"
		growth=$((with_rollup - by_rollup > growth ? with_rollup - by_rollup : growth))
	fi
	echo "$1: at most $huge KiB of its own memory in one piece may be in huge pages"
	may_be_huge=$huge
}

measure quarry "$QUARRY_SO"
grown=$growth mapped=$may_be_huge
for other in ${QUARRY_COMPARE:-}; do
	measure "${other%%=*}" "${other#*=}"
done
if ((grown > rss_limit)); then
	echo "FAIL: the hello-world grew by $grown KiB, more than $rss_limit"
	exit 1
fi
# With THP set to `always`, a whole 2 MiB in there is a huge page from its first touch on.
if [[ ! -e /sys/kernel/mm/transparent_hugepage/enabled ]]; then
	echo "startup: this kernel has no transparent huge pages: which memory may be in them was not judged"
elif ((mapped >= 2048)); then
	echo "FAIL: $mapped KiB of the library's tables may be in huge pages, 2048 or more"
	exit 1
fi
echo "startup: ok"
