#!/bin/bash
# SPDX-License-Identifier: MIT
# The programs in README.md, those in C that are whole, are compiled as a user would and run; and so is the line that
# builds the example.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/readme.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
library=$build/.libs/libquarry.so
if [[ ! -e $library ]]; then
	echo "readme.sh: $library is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-readme.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
. "$src/tests/checks.sh"

# (One leaves a file where it runs, and finds it there.)
in_work() {
	(cd "$work" && "$@")
}

# What pkg-config would say of an installed one.
flags="-I$src/include $library -Wl,-rpath,$build/.libs"

awk -v out="$work/" '/^```c$/ { name = out (++n) ".c"; next } /^```/ { close(name); name = ""; next }
	name != "" { print >name }' "$src/README.md"
programs=0
for file in "$work"/*.c; do
	grep -q '^int main(' "$file" || continue
	programs=$((programs + 1))
	of=$(sed -nE 's/^#include <(quarry.*)>/\1/p' "$file" | head -n 1)
	# shellcheck disable=SC2086
	check "the program with $of is compiled" \
		"${CC:-cc}" -std=gnu11 -O1 -Wall -Wextra -Werror -o "$work/program" "$file" $flags
	check "the program with $of runs" in_work ./program
	check "the program with $of runs again" in_work ./program
	rm -f "$work/program"
done
check "there are programs" test $programs -ge 5

line=$(sed -nE 's/^    (cc .*examples\/echo\.c.*)/\1/p' "$src/README.md")
check "there is a line for the example" test -n "$line"
cc=${line/#cc/${CC:-cc}}
cc=${cc/'$(pkg-config --cflags --libs quarry)'/$flags}
cc=${cc/-o echo/-o $work/echo}
cc=${cc/examples/$src/examples}
if [[ ${QUARRY_LIBURING:-1} == 0 ]] || ! echo '#include <liburing.h>' | "${CC:-cc}" -E - >/dev/null 2>&1; then
	echo "SKIP: liburing is not installed (Debian: liburing-dev): the example is built without it"
	cc=${cc/-luring/-DECHO_WITHOUT_URING}
fi
# shellcheck disable=SC2086
check "the example is built by that" $cc
check "the example is a program" test -x "$work/echo"

line=$(sed -nE 's/^    (cc .*examples\/kvstore.*)/\1/p' "$src/README.md")
check "there is a line for the key-value server" test -n "$line"
cc=${line/#cc/${CC:-cc}}
cc=${cc/'$(pkg-config --cflags --libs quarry)'/$flags}
cc=${cc/-o kvstore-server/-o $work/kvstore-server}
cc=${cc/examples/$src/examples}
# shellcheck disable=SC2086
check "the key-value server is built by that" $cc
check "the key-value server is a program" "$work/kvstore-server" --help >/dev/null

echo "readme.sh: $checks checks, $failures failed ($programs programs)"
[[ $failures == 0 ]]
