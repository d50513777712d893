#!/bin/bash
# SPDX-License-Identifier: MIT
# Holds the line on the fast path, three ways:
#   1. the disassembly: the hit path of malloc and free has at most so many instructions, no call and no atomic;
#   2. single-stepping: those are the instructions that a hit really executes;
#   3. callgrind: a malloc and a free, 64 objects at a time, 16 to 512 bytes, with the loop.
#
# Run by make check; by hand: QUARRY_SO=…/libquarry-malloc.so tests/fastpath.sh
# QUARRY_COMPARE="name=path.so …" measures 3 for others as well (name= for none: the C library's own); printed only.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)/fastpath
malloc_limit=14
free_limit=18
pair_limit=47
hit_share=90 # percent of the calls stepped through that must take exactly the path counted

: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[[ -f $QUARRY_SO ]] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
QUARRY_SO=$(readlink -f "$QUARRY_SO")
unset LD_PRELOAD QUARRY_OPTIONS

if [[ $(uname -m) != x86_64 ]]; then
	echo "the fast path is counted on x86-64 only; this is $(uname -m)"
	exit 77
fi
for tool in objdump nm awk; do
	command -v $tool >/dev/null || { echo "$tool is not installed (Debian: binutils, mawk)"; exit 77; }
done

. "${here%/*}/complaints.sh"

# ---- 1. The disassembly
# count FUNCTION LIMIT: prints the path, sets $counted.
counted=0
count() {
	local address size end result
	read -r address size < <(nm --dynamic --defined-only --format=posix "$QUARRY_SO" |
		awk -v f="$1" '{ sub(/@.*/, "", $1) } $1 == f { print $3, $4 }') || true
	if [[ -z ${address:-} ]]; then
		complain "$QUARRY_SO does not define $1"
		return
	fi
	end=$((16#$address + 16#${size:-1000}))
	echo "the hit path of $1:"
	result=$(objdump -d --no-show-raw-insn --start-address=$((16#$address)) --stop-address=$end "$QUARRY_SO" |
		awk -f "$here/path.awk")
	sed '$d' <<<"$result"
	case ${result##*$'\n'} in
	COUNT*)
		counted=${result##* }
		echo "$1: $counted instructions, at most $2 allowed"
		((counted <= $2)) || complain "$1: the hit path has $counted instructions, more than $2"
		[[ $1 != malloc || $result == *prefetchw* ]] || complain "malloc does not have the next object's line come" ;;
	*)
		counted=0
		complain "$1: ${result##*BAD }" ;;
	esac
}
count malloc $malloc_limit
malloc_counted=$counted
count free $free_limit
free_counted=$counted

# ---- 2. What is executed
compile() {
	"${CC:-cc}" -O2 -fno-builtin -o "$work/$1" "$here/$1.c" -ldl >"$work/compiler" 2>&1 ||
		{ cat "$work/compiler"; exit 1; }
}
compile step
status=0
timeout 120 "$work/step" "$QUARRY_SO" >"$work/steps" || status=$?
if [[ $status -eq 77 ]]; then
	echo "single-stepping: left out, this machine allows no ptrace(2)"
elif [[ $status -ne 0 ]]; then
	complain "single-stepping ended with status $status"
else
	while read -r name n share; do
		[[ $name == malloc ]] && static=$malloc_counted || static=$free_counted
		echo "$name: $share % of the calls stepped through took $n instructions"
		if ((n != static)); then
			complain "$name: a hit takes $n instructions, and the path counted above has $static: another path is taken"
		elif ((share < hit_share)); then
			complain "$name: only $share % of the calls were hits"
		fi
	done <"$work/steps"
fi

# ---- 3. callgrind
# instructions LIBRARY ORDER ROUNDS
instructions() {
	local log=$work/callgrind
	if ! LD_PRELOAD=$1 timeout 300 valgrind --tool=callgrind --trace-children=no --callgrind-out-file=/dev/null \
		"$work/pairs" "$2" "$3" >"$log" 2>&1; then
		cat "$log" >&2
		return 1
	fi
	sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' "$log"
}

# per_pair LIBRARY ORDER: with two decimals; a round is 2,048 pairs.
per_pair() {
	local few many
	few=$(instructions "$1" "$2" 20) && many=$(instructions "$1" "$2" 120) || return 1
	awk -v few="$few" -v many="$many" 'BEGIN { printf "%.2f\n", (many - few) / (100 * 2048) }'
}

# pairs NAME LIBRARY: prints both orders, sets $worst.
worst=
pairs() {
	local same reverse
	if ! same=$(per_pair "$2" same) || ! reverse=$(per_pair "$2" reverse); then
		worst=
		return
	fi
	echo "malloc+free pair with the loop, 16 to 512 bytes: $1: $same freed in the same order, $reverse in reverse"
	worst=$(printf '%s\n' "$same" "$reverse" | sort -n | tail -n 1)
}

if ! command -v valgrind >/dev/null; then
	echo "callgrind: left out, valgrind is not installed (Debian: apt-get install valgrind)"
else
	compile pairs
	pairs quarry "$QUARRY_SO"
	if [[ -z $worst ]]; then
		complain "the program failed under callgrind"
	elif awk -v w="$worst" -v l=$pair_limit 'BEGIN { exit !(w > l) }'; then
		complain "a pair costs $worst instructions, more than $pair_limit"
	fi
	for other in ${QUARRY_COMPARE:-}; do
		pairs "${other%%=*}" "${other#*=}"
	done
fi

if ((errors > 0)); then
	echo "fastpath: $errors failures"
	exit 1
fi
echo "fastpath: ok"
