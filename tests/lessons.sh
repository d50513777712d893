#!/bin/bash
# SPDX-License-Identifier: MIT
# The four lessons (examples/lessons, and their chapter in quarry(7)): each is compiled without a warning as a program's, and says
# what it shows.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/lessons.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
library=$build/.libs/libquarry.so
if [[ ! -e $library ]]; then
	echo "lessons.sh: $library is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-lessons.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
. "$src/tests/checks.sh"

lesson() { # lesson NAME LINE...: it says these, among others
	local name=$1 line status
	shift
	check "$name is compiled" "${CC:-cc}" -std=gnu11 -O1 -Wall -Wextra -Werror -I"$src/include" -o "$work/$name" \
		"$src/examples/lessons/$name.c" -pthread "$library" -Wl,-rpath,"${library%/*}"
	"$work/$name" >"$work/out" 2>&1
	status=$?
	check "$name ends well" is $status 0
	check "$name: nothing is otherwise" is "$(grep -c ': no$' "$work/out")" 0
	for line; do
		check "$name: $line" grep -qxF "$line" "$work/out"
	done
	check "quarry(7) has $name" grep -qF "examples/lessons/$name.c" "$src/doc/quarry.7"
}
lesson manual "since a mark: 5050 bytes, gone at the end of the block" "of an arena: 1000 paragraphs, dropped as one" \
	"by count: shared still, for one who has it"
lesson handles "a tenth is left: the same sum at other addresses: yes" "and less memory for it: yes" \
	"a handle of what was freed is stale"
lesson arenas "an arena of 16 MiB gave up to 16 MiB" "a page is found by its number: root" "a pool made few for 100000 uses"
lesson low_level "asked for, and not touched: little is there: yes" "touched: all is there: yes" \
	"given back: little is there, and it is the program's still: yes"
echo "lessons.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
