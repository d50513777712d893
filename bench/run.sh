#!/bin/bash
# SPDX-License-Identifier: MIT
# Compiles the benchmark programs and runs each under quarry, under glibc, under the peers that Debian packages if they
# are installed, and under any other allocator that is named; ends in two tables. See bench/README.md.
#
# Usage: bench/run.sh [--quick] [--rounds N] [--only PROGRAM,...] [--csv FILE] [NAME=PATH.so ...]
# Takes QUARRY_SO (libquarry-malloc.so; else the build tree's), BENCH_EXTRA ("NAME=PATH.so ..."), CC.
# Exits with 1 when a program failed under quarry; failures of others are only shown.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
programs="larson mixed prodcons replace pairs large threads spike"
rounds=
quick=
csv=
usage() { sed -n '3,9s/^# \{0,1\}//p' "$0"; }

own_option() {
	case $1 in
	--only) programs=$(tr ',' ' ' <<<"$2"); [ -n "$programs" ] || die "--only takes programs" ;;
	--csv) csv=$2; [ -n "$csv" ] || die "--csv takes a file" ;;
	*) return 1 ;;
	esac
}
read_options "$@"
: "${rounds:=$([ -n "$quick" ] && echo 3 || echo 9)}"
for p in $programs; do [ -f "$here/$p.c" ] || die "there is no program $p"; done
[ -z "$csv" ] || : >"$csv" || die "cannot write $csv"

add_all

dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

compile "$dir" $programs

# Each program checks at its start, in its own /proc/self/maps, that malloc's code lies in the library that it should.
launch() { # index of the allocator, program, arguments: one run
	local i=$1 p=$2
	shift 2
	BENCH_MALLOC_IN=${paths[i]:-libc} "$dir/measure" ${paths[i]:+--preload "${paths[i]}"} --timeout 120 "$dir/$p" "$@"
}

first=${programs%% *}
for i in "${!names[@]}"; do
	launch "$i" "$first" --ops 1 >"$dir/out" 2>&1 || {
		cat "$dir/out" >&2
		die "${names[i]} cannot be measured: its malloc is not in effect, or it fails at once"
	}
done

say "allocators (that malloc is its own is verified in every run):"
for i in "${!names[@]}"; do say "$(printf '  %-10s %s' "${names[i]}" "${labels[i]}")"; done
say "$rounds rounds, load average $(cut -d' ' -f1-3 /proc/loadavg)"

raw=$dir/raw.csv
echo "round,program,allocator,metric,value,unit" >"$raw"
failed=0
start_seconds=$SECONDS
for ((r = 1; r <= rounds; r++)); do
	turn=$r
	for p in $programs; do
		# What sleeps seconds and changes little from run to run is run once in a quick measurement.
		[ -n "$quick" ] && [ "$p" = spike ] && [ "$r" -gt 1 ] && continue
		line="round $r/$rounds $p:"
		turn=$((turn + 1))
		for k in "${!names[@]}"; do
			i=$(((k + turn) % ${#names[@]}))
			launch "$i" "$p" >"$dir/out" 2>"$dir/err" || {
				[ "${names[i]}" != quarry ] || failed=1
				[ ! -s "$dir/err" ] || sed "s/^/  ${names[i]}: /" "$dir/err" >&2
			}
			awk -v head="$r,$p,${names[i]}" -v OFS=, 'NF == 3 { print head, $1, $2, $3 }' "$dir/out" >>"$raw"
			line+=" ${names[i]} $(awk -v p="$p" '$1 == p { t = $2 } $1 == "@status" { s = $2 }
				END { if (s != 0 || t == "") printf "FAILED(%s)", s; else printf "%.3f", t }' "$dir/out")"
		done
		say "$line"
	done
done
[ -z "$csv" ] || cp "$raw" "$csv"

machine
echo "medians of $rounds rounds, $((SECONDS - start_seconds)) s in all, load average $(cut -d' ' -f1-3 /proc/loadavg)"
awk -f "$here/tables.awk" -v allocators="${names[*]}" -v programs="$programs" "$raw" || failed=1
exit "$failed"
