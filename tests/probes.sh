#!/bin/bash
# SPDX-License-Identifier: MIT
# The static probes: readelf -n lists in both libraries what the table of doc/probes.md has, with as many arguments, and
# nothing else; each is a nop; and gdb, which stops at some of them in a program, sees the arguments that the program
# itself was told.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/probes.sh
set -euo pipefail
export LC_ALL=C
src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
unset LD_PRELOAD QUARRY_OPTIONS

skip() {
	echo "SKIP: $*"
	exit 77
}

fail() {
	echo "FAIL: $*"
	exit 1
}

grep -q 'S\["QUARRY_USDT"\]="1"' "$build/config.status" || skip "built without probes (sys/sdt.h, Debian: systemtap-sdt-dev)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- The table ----
sed -n 's/^| `\([a-z_]*\)` | \([^|]*\) |.*/\1|\2/p' "$src/doc/probes.md" | awk -F'|' '{ print $1, split($2, a, ",") }' |
	sort >"$work/table"
[[ $(wc -l <"$work/table") -ge 13 ]] || fail "doc/probes.md: its table could not be read"

# probes LIBRARY: name, number of arguments and address of each.
probes() {
	readelf --notes --wide "$1" | awk '/Provider:/ { ours = $NF == "quarry" } /Name:/ { name = $NF }
		/Location:/ { sub(",", "", $2); at = $2 }
		/Arguments:/ && ours { print name, NF - 1, at }'
}

libraries=$(ls "$build"/.libs/libquarry.so "$build"/.libs/libquarry-malloc.so 2>/dev/null || true)
[[ -n $libraries ]] || skip "no shared libraries were built"
for library in $libraries; do
	probes "$library" >"$work/probes"
	cut -d' ' -f1,2 "$work/probes" | sort -u >"$work/listed"
	diff "$work/table" "$work/listed" || fail "${library##*/} (>) and the table of doc/probes.md (<) differ"
	objdump --disassemble --no-show-raw-insn "$library" >"$work/code"
	while read -r name _ at; do
		at=$(printf '%x' "$at")
		grep -qE "^ *$at:[[:space:]]+nop" "$work/code" || fail "${library##*/}: $name at $at is no nop"
	done <"$work/probes"
	echo "probes: ${library##*/}: $(wc -l <"$work/listed") names at $(wc -l <"$work/probes") places, each a nop"
done

# ---- Used ----
command -v gdb >/dev/null || skip "no gdb: the notes are as documented, and nobody stopped at a probe"
"${CC:-cc}" -g -I"$src/include" -o "$work/traced" "$src/tests/probes/traced.c" -L"$build/.libs" -lquarry \
	-Wl,-rpath,"$build/.libs" || fail "tests/probes/traced.c does not compile"
{
	echo 'set pagination off'
	echo 'set breakpoint pending on'
	echo 'set auto-load off'
	echo 'break main'
	echo 'run'
	for name in region_map purge region_unmap limit; do
		printf 'break -probe-stap quarry:%s\ncommands\nsilent\n' "$name"
		# shellcheck disable=SC2016 # gdb's own variables
		printf 'printf "gdb %s %%llu %%llu\\n", (unsigned long long)$_probe_arg0, (unsigned long long)$_probe_arg1\ncontinue\nend\n' \
			"$name"
	done
	echo 'continue'
} >"$work/commands"
timeout 120 gdb -nx -batch -x "$work/commands" "$work/traced" </dev/null >"$work/gdb" 2>&1 || true
if grep -qE 'ptrace|Operation not permitted|Could not trace' "$work/gdb"; then
	skip "no process may be traced here: the notes are as documented, and nobody stopped at a probe"
fi
grep -q 'exited normally' "$work/gdb" || { cat "$work/gdb"; fail "the program did not end well under gdb"; }
# What the program was told of, and no other arena's; in the same order.
grep -E '^(region_map|purge|region_unmap|limit) ' "$work/gdb" >"$work/program"
sed -n 's/^gdb //p' "$work/gdb" >"$work/seen"
for name in region_map purge region_unmap limit; do
	grep -q "^$name " "$work/program" || fail "the program had no $name"
done
sort -u "$work/program" >"$work/a"
grep -Fx -f "$work/a" "$work/seen" | sort -u >"$work/b" || true
diff "$work/a" "$work/b" || { cat "$work/gdb"; fail "gdb (>) saw other arguments than the program was told (<)"; }
echo "probes: gdb stopped $(wc -l <"$work/seen") times, and saw what the program was told"
