#!/bin/bash
# SPDX-License-Identifier: MIT
# Huge pages that help, and memory that comes back: what quarry promises of both, measured beside glibc and the peers that
# Debian packages, with their settings for it, and any other allocator that is named. Ends in tables (markdown) and in
# the promises, kept or not. See bench/README.md.
#
# Usage: bench/memory.sh [--quick] [--rounds N] [--only ROW,...] [--timeout SECONDS] [--seed N] [--tsv FILE]
#                        [NAME=PATH.so[,VAR=value...] ...]
# Takes QUARRY_SO (libquarry-malloc.so; else the build tree's), BENCH_EXTRA (allocators as in arguments), CC.
# Exits with 1 when a program failed under quarry; a promise that is not kept is only said.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=bench/lib.sh
. "$here/lib.sh"
# A row is a program with its options; at most so many rounds (what rests for seconds varies little from run to run).
#       row       program  rounds  metric that is shown while it runs   options, and those of --quick after the bar
rows="
	update    update   99  each       |
	chase     chase    99  hop        |
	touch     touch    99  page.p999  |
	shrink    shrink   1   rss1s      | --idle 3
	shrink4   shrink   1   rss1s      --threads 4 | --threads 4 --idle 3
	busy      shrink   2   call.p999  --load 1 | --load 1 --idle 3
	control   shrink   2   call.p999  --load 2 | --load 2 --idle 3
	churn     churn    1   peak       | --ops 1000000
	redis     redis    1   peak       | --ops 300000
	redisrand redis    1   peak       --benchmark 1 | skip
"
rounds=
quick=
only=
tsv=
pool=/proc/sys/vm/nr_hugepages
needed=1120      # huge pages: two tables of 1 GiB and what an arena maps beside

# shellcheck disable=SC2317 # read_options calls it
own_option() {
	case $1 in
	--only) value_of "$1" "$2" rows; only=$2 ;;
	--tsv) value_of "$1" "$2" "a file"; tsv=$2 ;;
	*) return 1 ;;
	esac
}
read_options "$@"
: "${rounds:=$([ -n "$quick" ] && echo 1 || echo 5)}"
known=" $(awk 'NF { print $1 }' <<<"$rows" | tr '\n' ' ')"
IFS=, read -ra words <<<"$only"
for word in "${words[@]}"; do [[ $known == *" $word "* ]] || die "--only: there is no row \"$word\""; done

row=() program=() limit=() shown=() options=()
while read -r r p most metric rest; do
	[ -n "$r" ] || continue
	[ -z "$only" ] || [[ ,$only, == *,$r,* ]] || continue
	if [ -n "$quick" ]; then rest=${rest#*|}; else rest=${rest%%|*}; fi
	[[ $rest != *skip* ]] || continue
	if [ "$p" = redis ] && ! command -v redis-server >/dev/null; then
		say "bench: $r is left out: redis-server is not installed (Debian: apt-get install redis-server)"
		continue
	fi
	row+=("$r"); program+=("$p"); limit+=("$most"); shown+=("$metric"); options+=("$rest")
done <<<"$rows"
[ "${#row[@]}" -gt 0 ] || die "no row is left to measure"
find_compiler
begin_folder
add_all
check_output --tsv "$tsv"

# ---- Columns: the allocators, and settings of theirs ------------------------------------------------------------

# As they are, in every row.
column=() of=() environment=() extra_options=() where=()
for i in "${!names[@]}"; do
	column+=("${names[i]}"); of+=("$i"); environment+=(""); extra_options+=(""); where+=("all")
done

variant() { # name, allocator, environment, rows, options; -q before it: in quick runs, too
	local i
	if [ "$1" = -q ]; then shift; elif [ -n "$quick" ]; then return 0; fi
	for i in "${!names[@]}"; do
		[ "${names[i]}" = "$2" ] || continue
		column+=("$1"); of+=("$i"); environment+=("$3"); where+=("$4"); extra_options+=("${5:-}")
	done
}

# From the makers' documents: glibc's tunables; jemalloc's TUNING.md (its advice for memory, and thp:always for speed);
# gperftools' range of release rates, whose upper end gives back soonest; mimalloc's option for large pages.
resting="shrink shrink4 churn redis redisrand"
variant -q quarry-base quarry "QUARRY_OPTIONS=pages=base" "update chase touch shrink $([ -n "$quick" ] || echo shrink4 busy control churn)"
variant quarry-thp quarry "QUARRY_OPTIONS=pages=thp" "chase touch shrink shrink4 busy control churn redis"
variant quarry-prompt quarry "QUARRY_OPTIONS=decay_ms=0" "shrink busy control churn redis redisrand"
variant -q quarry-arena-2m quarry "" "update" "--arena 3"
variant quarry-arena-thp quarry "" "update" "--arena 2"
variant glibc-huge glibc "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" "update chase touch $resting"
variant -q jemalloc-bg jemalloc "MALLOC_CONF=background_thread:true" "shrink $([ -n "$quick" ] || echo "busy control $resting")"
variant jemalloc-lean jemalloc "MALLOC_CONF=background_thread:true,tcache_max:4096,dirty_decay_ms:5000,muzzy_decay_ms:5000" "$resting"
variant jemalloc-prompt jemalloc "MALLOC_CONF=background_thread:true,dirty_decay_ms:0,muzzy_decay_ms:0" "$resting busy control"
variant jemalloc-thp jemalloc "MALLOC_CONF=background_thread:true,thp:always,metadata_thp:auto" "update chase touch churn redis"
variant tcmalloc-release tcmalloc "TCMALLOC_RELEASE_RATE=10" "$resting"
variant mimalloc-large mimalloc "MIMALLOC_LARGE_OS_PAGES=1" "update chase touch churn redis"

runs_in() { # column, row
	if [ -n "$quick" ] && [ "${column[$1]}" != quarry ]; then
		case ${row[$2]} in shrink4 | busy | control) return 1 ;; esac
	fi
	[ "${where[$1]}" = all ] || [[ " ${where[$1]} " == *" ${row[$2]} "* ]]
}

# ---- The pool of huge pages ---------------------------------------------------------------------------------------

pool_before=
# Grows the pool for a row that wants it, by what is missing: pages that others have free are theirs.
grow_pool() {
	local old
	old=$(cat "$pool" 2>/dev/null) || return 1
	[ -w "$pool" ] && [ "$(getconf PAGESIZE)" = 4096 ] || return 1
	pool_before=$old
	echo $((old + needed)) 2>/dev/null >"$pool"
	[ "$(cat "$pool")" -ge $((old + needed)) ] && return 0
	shrink_pool
	return 1
}
shrink_pool() {
	[ -n "$pool_before" ] || return 0
	echo "$pool_before" >"$pool"
	pool_before=
}

# ---- Running ------------------------------------------------------------------------------------------------------

trap 'shrink_pool; end_folder' EXIT
# shellcheck disable=SC2046 # a list
compile "$dir" $(printf '%s\n' "${program[@]}" | sort -u)

hand=2
for r in "${row[@]}"; do
	[ "$r" = update ] || continue
	if grow_pool; then
		hand=1
		shrink_pool
	else
		say "bench: no pool of $needed huge pages can be had here (root and free memory are needed): update is compared with"
		say "bench: MADV_HUGEPAGE by hand instead of hugetlb, and quarry-arena-2m is LEFT OUT"
	fi
done

say "allocators (that malloc is its own is verified in every run):"
list_allocators '  %-10s %s' >&2
for c in "${!column[@]}"; do
	[ -z "${environment[c]}${extra_options[c]}" ] || say "$(printf '  %-16s %s %s' "${column[c]}" "${environment[c]}" "${extra_options[c]}")"
done
say "$rounds rounds, order by --seed $seed, load average $(cut -d' ' -f1-3 /proc/loadavg)"

raw=$dir/raw.tsv
printf 'round\trow\tallocator\tmetric\tvalue\tunit\n' >"$raw"
failed=0
start_seconds=$SECONDS
run_one() { # round, row, column: one run, and its figures into the table
	local r=$1 k=$2 c=$3 arguments=${options[$2]}
	if is_given_up "${row[k]}" "${column[c]}"; then
		printf '%s\t%s\t%s\t@status\t124\tcode\n' "$r" "${row[k]}" "${column[c]}" >>"$raw"
		line+=" ${column[c]} GIVEN UP"
		return
	fi
	arguments+=" ${extra_options[c]}"
	[ "${program[k]}" != update ] || arguments+=" --hand $hand"
	read_environment "${of[c]}"
	[ -z "${environment[c]}" ] || with+=("${environment[c]}")
	# shellcheck disable=SC2086 # a list
	launch "$dir" "${paths[${of[c]}]}" "${program[k]}" $arguments >"$dir/out" 2>"$dir/err"
	collect "${program[k]}" '\t' "$r\t${row[k]}\t${column[c]}" <"$dir/out" >"$dir/figures" 2>>"$dir/err"
	cat "$dir/figures" >>"$raw"
	[ ! -s "$dir/err" ] || sed "s/^/  ${column[c]}: /" "$dir/err" >&2
	grep -q "$(printf '\t@status\t0\t')" "$dir/figures" || [[ ${column[c]} != quarry* ]] || failed=1
	! grep -q "$(printf '\t@status\t124\t')" "$dir/figures" || note_hang "${row[k]}" "${column[c]}"
	line+=" ${column[c]} $(awk -F'\t' -v m="${shown[k]}" '$4 == m { v = $5 } $4 == "@status" { s = $5 }
		END { if (s != 0 || v == "") printf "FAILED(%s)", s; else printf "%.4g", v }' "$dir/figures")"
}
for ((r = 1; r <= rounds; r++)); do
	for k in "${!row[@]}"; do
		[ "$r" -le "${limit[k]}" ] || continue
		line="round $r/$rounds ${row[k]} (${shown[k]}):"
		if [ "${row[k]}" = update ] && [ "$hand" = 1 ] && ! grow_pool; then
			say "bench: round $r: the pool cannot be grown now; update is LEFT OUT of this round"
			continue
		fi
		shuffle "${#column[@]}"
		for c in "${order[@]}"; do
			runs_in "$c" "$k" || continue
			[ "${column[c]}" != quarry-arena-2m ] || [ "$hand" = 1 ] || continue
			run_one "$r" "$k" "$c"
		done
		shrink_pool
		say "$line"
	done
done
store "$raw" "$tsv" || failed=1

echo "# Huge pages, and memory that comes back"
echo
machine | sed 's/$/  /'
echo "medians of up to $rounds rounds, $((SECONDS - start_seconds)) s in all, load average $(cut -d' ' -f1-3 /proc/loadavg)"
list_allocators '- %s: %s'
for c in "${!column[@]}"; do
	[ -z "${environment[c]}${extra_options[c]}" ] || echo "- ${column[c]}: \`${environment[c]:-${extra_options[c]}}\`"
done
extras=
for n in "${named[@]}"; do extras+=" ${n%%=*}"; done
awk -F'\t' -f "$here/figures.awk" -f "$here/memory.awk" -v columns="${column[*]}" -v rows="${row[*]}" -v extras="$extras" \
	-v hand="$([ "$hand" = 1 ] && echo "hugetlb by hand" || echo "MADV_HUGEPAGE by hand")" "$raw" || failed=1
exit "$failed"
