#!/bin/bash
# SPDX-License-Identifier: MIT
# Compiles the benchmark programs and runs each under quarry, under glibc, under the peers that Debian packages if they
# are installed, and under any other allocator that is named; ends in two tables. See bench/README.md.
#
# Usage: bench/run.sh [--quick] [--rounds N] [--only PROGRAM,...] [--csv FILE] [NAME=PATH.so ...]
# Takes QUARRY_SO (libquarry-malloc.so; else the build tree's), BENCH_EXTRA ("NAME=PATH.so ..."), CC.
# Exits with 1 when a program failed under quarry; failures of others are only shown.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
programs="larson mixed prodcons replace pairs large threads spike"
rounds=
quick=
csv=
names=()   # the allocators, in the order of the tables
named=()   # from the command line
paths=()   # their libraries; empty for glibc
labels=()  # their versions

say() { printf '%s\n' "$*" >&2; }
die() { say "bench: $*"; exit 2; }
usage() { sed -n '3,9s/^# \{0,1\}//p' "$0"; }

add() { # name, path, version
	local n
	[[ $1 =~ ^[A-Za-z0-9_.+-]+$ ]] || die "\"$1\" is no name for an allocator"
	for n in "${names[@]}"; do [ "$n" != "$1" ] || die "two allocators are named $1"; done
	names+=("$1"); paths+=("$2"); labels+=("$3")
}

add_named() { # name=path
	local path=${1#*=}
	[ -f "$path" ] || die "${1%%=*}: $path is not there"
	add "${1%%=*}" "$(readlink -f "$path")" "from $path"
}

find_quarry() {
	local p
	for p in ${QUARRY_SO:+"$QUARRY_SO"} .libs/libquarry-malloc.so "$here/../.libs/libquarry-malloc.so"; do
		[ -f "$p" ] || { [ "$p" != "${QUARRY_SO:-}" ] || die "QUARRY_SO: $p is not there"; continue; }
		add quarry "$(readlink -f "$p")" "built $(date -r "$(readlink -f "$p")" '+%F %T')"
		return
	done
	die "no libquarry-malloc.so: build first, or set QUARRY_SO"
}

add_packaged() { # name, package, file
	local file version
	file=/usr/lib/$multiarch/$3
	[ -f "$file" ] || return 0
	version=$(dpkg-query -W -f '${Package} ${Version}' "$2" 2>/dev/null) || version="$2, version unknown"
	add "$1" "$(readlink -f "$file")" "$version"
}

while [ $# -gt 0 ]; do
	case $1 in
	--quick) quick=1 ;;
	--rounds) rounds=${2:-}; [[ $rounds =~ ^[1-9][0-9]{0,3}$ ]] || die "--rounds takes a number from 1"; shift ;;
	--only) programs=$(tr ',' ' ' <<<"${2:-}"); [ -n "$programs" ] || die "--only takes programs"; shift ;;
	--csv) csv=${2:-}; [ -n "$csv" ] || die "--csv takes a file"; shift ;;
	--help) usage; exit 0 ;;
	-*) die "unknown option $1 (see --help)" ;;
	?*=?*) named+=("$1") ;;
	*) die "$1: name an allocator as NAME=PATH.so" ;;
	esac
	shift
done
: "${rounds:=$([ -n "$quick" ] && echo 3 || echo 9)}"
for p in $programs; do [ -f "$here/$p.c" ] || die "there is no program $p"; done
[ -z "$csv" ] || : >"$csv" || die "cannot write $csv"

cc=${CC:-cc}
multiarch=$($cc -print-multiarch 2>/dev/null)
find_quarry
add glibc '' "$(dpkg-query -W -f '${Package} ${Version}' libc6 2>/dev/null || getconf GNU_LIBC_VERSION)"
add_packaged jemalloc libjemalloc2 libjemalloc.so.2
add_packaged tcmalloc libtcmalloc-minimal4 libtcmalloc_minimal.so.4
add_packaged mimalloc libmimalloc2.0 libmimalloc.so.2.0
for n in ${BENCH_EXTRA:-} "${named[@]+"${named[@]}"}"; do
	[[ $n == ?*=?* ]] || die "BENCH_EXTRA: $n is not NAME=PATH.so"
	add_named "$n"
done

dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

# -fno-builtin: a compiler that knows malloc may leave calls out. PIE: a function's address is then the function's.
for p in $programs; do
	$cc -std=gnu11 -O2 -Wall -Wextra -fPIE -pie -pthread -fno-builtin-malloc -fno-builtin-free -I"$here" \
		-o "$dir/$p" "$here/$p.c" "$here/bench.c" -lm || die "$p does not compile"
done
# Static if it can be, so that what it holds when it forks is least.
$cc -std=gnu11 -O2 -Wall -Wextra -static -o "$dir/measure" "$here/measure.c" 2>/dev/null ||
	$cc -std=gnu11 -O2 -Wall -Wextra -o "$dir/measure" "$here/measure.c" || die "measure does not compile"

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

sed -n 's/^model name[^:]*: /cpu: /p' /proc/cpuinfo | head -1
echo "kernel: $(uname -sr), $(getconf _NPROCESSORS_ONLN) CPUs, transparent huge pages:" \
	"$(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || echo unknown)," \
	"overcommit $(cat /proc/sys/vm/overcommit_memory 2>/dev/null || echo unknown)"
echo "medians of $rounds rounds, $((SECONDS - start_seconds)) s in all, load average $(cut -d' ' -f1-3 /proc/loadavg)"
awk -f "$here/tables.awk" -v allocators="${names[*]}" -v programs="$programs" "$raw" || failed=1
exit "$failed"
