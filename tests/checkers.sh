#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory checkers see arenas: planted mistakes in an arena's memory and in quarry_malloc's are reported, with the lines
# where they were made, by Valgrind's memcheck, and by AddressSanitizer in a program that was built with it; a program
# without mistakes ends without a word. And under memcheck one that the malloc library is preloaded to.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/checkers.sh
set -euo pipefail
export LC_ALL=C
src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
unset LD_PRELOAD QUARRY_OPTIONS ASAN_OPTIONS LSAN_OPTIONS
cc=${CC:-cc}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 missing=()

fail() {
	echo "FAIL: $*"
	sed -n '1,25s/^/    /p' "$work/said"
	failed=1
}

compile() {
	# shellcheck disable=SC2086 # CC may have options
	$cc -g -O1 -fno-omit-frame-pointer -pthread -I"$src/include" -o "$@" 2>"$work/compiler"
}

# run COMMAND…: its status in $status, what it says in $work/said.
run() {
	status=0
	timeout 120 "$@" >"$work/said" 2>&1 </dev/null || status=$?
}

# expect NAME PATTERN…: each of them on some line, and a status that tells of it.
expect() {
	local name=$1 pattern
	shift
	[[ $status == 99 ]] || fail "$name: status $status"
	for pattern in "$@"; do
		grep -qE "$pattern" "$work/said" || fail "$name: nothing says '$pattern'"
	done
}

expect_clean() {
	[[ $status == 0 && $(<"$work/said") == ended ]] || fail "$1: status $status, or more was said than that it ended"
}

# ---- memcheck -------------------------------------------------------------------------------------------------
memcheck="valgrind -q --leak-check=full --error-exitcode=99 --num-callers=20"
got='planted_get \(planted\.c' given='planted_give \(planted\.c'

memcheck_all() {
	run $memcheck "$work/planted" after-free
	expect "memcheck: after-free" 'Invalid read of size 1' 'after_free \(planted' 'inside a block of size 40 free' "$given" "$got"
	run $memcheck "$work/planted" after-free-large
	expect "memcheck: after-free-large" 'Invalid read' '150,000 bytes inside a block of size 300,000 free' "$given"
	run $memcheck "$work/planted" overrun
	expect "memcheck: overrun" 'Invalid write of size 1' 'overrun \(planted' '0 bytes after a block of size 40 ' "$got"
	run $memcheck "$work/planted" overrun-exact
	expect "memcheck: overrun-exact" 'Invalid write' '0 bytes after a block of size 64 ' "$got"
	run $memcheck "$work/planted" overrun-large
	expect "memcheck: overrun-large" 'Invalid write' '0 bytes after a block of size 1,048,576 ' "$got"
	run $memcheck "$work/planted" double-free
	expect "memcheck: double-free" 'Invalid free' '0 bytes inside a block of size 40 free' "$given"
	run $memcheck "$work/planted" inside
	expect "memcheck: inside" 'Invalid free' '16 bytes inside a block of size 40' "$given"
	run $memcheck "$work/planted" uninitialised
	expect "memcheck: uninitialised" 'depends on uninitialised value' 'uninitialised \(planted'
	run $memcheck "$work/planted" leak
	expect "memcheck: leak" '40 bytes in 1 blocks are definitely lost' "$got" 'leak \(planted'
	run $memcheck "$work/planted" leak plain
	expect "memcheck: leak of quarry_malloc's" '40 bytes in 1 blocks are definitely lost' "$got"
	run $memcheck "$work/planted" clean
	expect_clean "memcheck, clean"
}

if ! command -v valgrind >/dev/null; then
	missing+=("valgrind")
elif ! grep -q 'S\["QUARRY_VALGRIND"\]="1"' "$build/config.status"; then
	missing+=("valgrind/memcheck.h when it was built")
else
	compile "$work/planted" "$src/tests/checkers/planted.c" -L"$build/.libs" -lquarry -Wl,-rpath,"$build/.libs" ||
		{ cat "$work/compiler"; exit 1; }
	memcheck_all
	compile "$work/preloaded" -DBY_MALLOC "$src/tests/checkers/planted.c" || { cat "$work/compiler"; exit 1; }
	export LD_PRELOAD="$build/.libs/libquarry-malloc.so"
	for mistake in after-free overrun; do
		run $memcheck "$work/preloaded" $mistake
		[[ $status == 99 ]] || fail "memcheck, preloaded: $mistake: status $status"
	done
	run $memcheck "$work/preloaded" clean
	expect_clean "memcheck, preloaded, clean"
	# Valgrind is told to leave malloc to the library.
	for mistake in after-free overrun-exact leak; do
		run $memcheck --soname-synonyms=somalloc=nouserintercepts "$work/preloaded" $mistake
		[[ $status == 99 ]] || fail "memcheck, quarry's own malloc: $mistake: status $status"
		grep -q 'quarry-malloc\|checker\.c' "$work/said" || fail "memcheck, quarry's own malloc: $mistake: it is Valgrind's"
	done
	run $memcheck --soname-synonyms=somalloc=nouserintercepts "$work/preloaded" clean
	[[ $status == 0 ]] || fail "memcheck, quarry's own malloc, clean: status $status"
	unset LD_PRELOAD
	echo "checkers: memcheck has seen what was planted"
fi

# ---- AddressSanitizer -----------------------------------------------------------------------------------------
export ASAN_OPTIONS=exitcode=99
fixed=(setarch "$(uname -m)" --addr-no-randomize) # (see configure.ac)
"${fixed[@]}" true 2>/dev/null || fixed=()
if ! compile "$work/asan" -fsanitize=address "$src/tests/checkers/planted.c" -L"$build/.libs" -lquarry \
	-Wl,-rpath,"$build/.libs"; then
	missing+=("a compiler with AddressSanitizer")
else
	for mistake in after-free overrun overrun-exact after-free-large overrun-large; do
		run "${fixed[@]}" "$work/asan" $mistake
		function=overrun
		[[ $mistake != after* ]] || function=after_free
		expect "AddressSanitizer: $mistake" 'use-after-poison' "#0 .* in $function .*planted\.c"
	done
	for mistake in double-free inside; do
		run "${fixed[@]}" "$work/asan" $mistake plain
		expect "AddressSanitizer: $mistake" 'ERROR: AddressSanitizer' 'in planted_give .*planted\.c'
	done
	run "${fixed[@]}" "$work/asan" clean
	expect_clean "AddressSanitizer, clean"
	echo "checkers: AddressSanitizer has seen what was planted"
fi

[[ $failed == 0 ]] || exit 1
if [[ ${#missing[@]} -gt 0 ]]; then
	echo "SKIP: not tested without: ${missing[*]}"
	exit 77
fi
