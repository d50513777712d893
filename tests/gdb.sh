#!/bin/bash
# SPDX-License-Identifier: MIT
# tools/gdb/quarry-gdb.py in gdb: what it says of a program's pointers is what quarry_inspect told the program, in the live
# process, in a core file that gdb makes, in one that the kernel makes where it is let, and where the library is preloaded;
# what it says where there is no debug info, no quarry, no process, and where the heap was written over is one line.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/gdb.sh
set -u
export LC_ALL=C
unset LD_PRELOAD QUARRY_OPTIONS DEBUGINFOD_URLS

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
script=$src/tools/gdb/quarry-gdb.py
library=$build/.libs/libquarry.so
skip() {
	echo "SKIP: $*"
	exit 77
}
command -v gdb >/dev/null || skip "no gdb (Debian: gdb)"
gdb -nx -batch -ex 'python print(1)' 2>&1 | grep -qx 1 || skip "this gdb has no Python"
[[ -f $library ]] || skip "no shared libraries were built"
readelf --sections --wide "$library" | grep -q '\.debug_info' || skip "the library was built without -g"
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-gdb.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
. "$src/tests/checks.sh"
says_all() { says out "gdb: all is as the program says, of 21 pointers" && ! says out "WRONG"; }

"${CC:-cc}" -g -O1 -I"$src/include" -o "$work/held" "$src/tests/gdb/held.c" -L"$build/.libs" -lquarry \
	-Wl,-rpath,"$build/.libs" -pthread || exit 99
cd "$work" || exit 99

in_gdb() { # in_gdb ARGUMENT...: into $work/out and err
	timeout 120 gdb -nx -batch -ex 'set pagination off' -ex 'set auto-load off' -ex 'set debuginfod enabled off' "$@" \
		</dev/null >out 2>err
}
at_ready() { # at_ready LIST ARGUMENT...: where the program has come to it
	local list=$1
	shift
	in_gdb -ex 'break ready' -ex "run $list" -ex "set \$held = \"$list\"" -ex "source $script" "$@" ./held
}

# ---- a live process, and the core file that gdb makes of it ---------------------------------------------------------
at_ready list -ex "source $src/tests/gdb/check.py" -ex 'generate-core-file made.core' -ex 'kill'
if grep -qE 'ptrace|Operation not permitted|Could not trace' out err; then
	skip "no process may be traced here"
fi
check "a live process" says_all
in_gdb -ex "set \$held = \"list\"" -ex "source $script" -ex "source $src/tests/gdb/check.py" ./held made.core
check "a core file that gdb made" says_all

# ---- one that the kernel makes --------------------------------------------------------------------------------------
bash -c 'ulimit -c unlimited; ./held list abort; true' >/dev/null 2>&1
core=$(ls core core.[0-9]* 2>/dev/null | head -n 1)
if [[ -n $core ]]; then
	in_gdb -ex "set \$held = \"list\"" -ex "source $script" -ex "source $src/tests/gdb/check.py" ./held "$core"
	check "a core file that the kernel made" says_all
else
	echo "SKIP: the kernel makes no core file here ($(cat /proc/sys/kernel/core_pattern)): that of gdb alone was looked at"
fi

# ---- preloaded: two copies of quarry, of which one does the work ------------------------------------------------------
if [[ -f $build/.libs/libquarry-malloc.so ]]; then
	in_gdb -ex "set exec-wrapper env LD_PRELOAD=$build/.libs/libquarry-malloc.so" -ex 'break ready' -ex "run list" \
		-ex "set \$held = \"list\"" -ex "source $script" -ex "source $src/tests/gdb/check.py" -ex 'kill' ./held
	check "a program with the library preloaded" says_all
fi

# ---- what was written over --------------------------------------------------------------------------------------------
# keep[1] is what was freed last (FREED in held.c).
at_ready list -ex 'set {long} keep[1] = 0x123456789' -ex 'quarry inspect keep[0]' -ex 'set {long} keep[1] = (long) keep[1]' \
	-ex 'quarry inspect keep[0]' -ex 'quarry arenas' -ex 'kill'
check "a list that leads nowhere" says out "note: a list of free objects leads to 0x123456789, where none can be: it was"
check "one that leads round" says out "round: it was written over"
check "and what is likely is told nevertheless" is \
	"$(grep -c ' 48 bytes, live: as far as lists of free objects could be followed$' out)" 2
at_ready list -ex 'set var qy_thread_records = (struct qy_thread *) 0x10' -ex 'quarry inspect keep[0]' -ex 'kill'
check "records that cannot be read" says err "quarry: memory at 0x0 cannot be read"
check "in one line" is "$(grep -c quarry: err)" 1
at_ready list -ex 'set var qy_slab_side = qy_slab_side - qy_slab_side - 64' -ex 'quarry inspect keep[0]' -ex 'quarry find keep[0]' \
	-ex 'quarry slabs' -ex 'kill'
check "records beyond the end of all addresses" is "$(grep -c '^quarry: memory at 0x.* cannot be read' err)" 3
cat >large.py <<'EOF'
for i in range(gdb.parse_and_eval("'sites.c'::tables").type.range()[1] + 1):
    table = gdb.parse_and_eval("'sites.c'::tables[%d].entries" % i)
    if int(table):
        gdb.execute("set var ((struct entries *) %d)->mask = 0xfffffff" % int(table))
        print("large", i)
EOF
at_ready list -ex 'source large.py' -ex 'quarry inspect keep[0]' -ex 'kill'
check "a table of more than there can be" says err "bytes at 0x"
check "a table of more than there can be: gdb lives" says out "[Inferior 1 (process"
check "no trace of Python's" is "$(grep -cE 'Traceback|Python Exception' err)" 0

# ---- what is not there ------------------------------------------------------------------------------------------------
in_gdb -ex "source $script" -ex 'quarry arenas' ./held
check "a program that does not run" says err "quarry: no quarry in this program"
in_gdb -ex "source $script" -ex 'quarry inspect 1' "$(command -v true)"
check "another program" says err "quarry: no quarry in this program"
mkdir bare
cp "$(readlink -f "$library")" bare/libquarry.so.0
strip --strip-debug bare/libquarry.so.0
LD_LIBRARY_PATH=$PWD/bare in_gdb -ex 'break ready' -ex 'run list' -ex "source $script" -ex 'quarry arenas' -ex 'kill' ./held
check "a library without debug info" says err "quarry is here, and its debug info is not"
in_gdb -ex 'set breakpoint pending on' -ex 'break qy_window_init' -ex 'run list' -ex "source $script" \
	-ex 'quarry inspect 16' -ex 'kill' ./held
check "a program that has not allocated" says err "has not allocated yet"
in_gdb -ex "source $script" -ex 'help quarry'
check "help" says out "quarry inspect --"
# Installed, linked to from elsewhere, by -x, and twice.
check "installed" make -s -C "$build" install-dist_pkgdataDATA install-dist_gdbDATA DESTDIR="$work/root"
ln -s "$(find "$work/root" -name quarry-gdb.py)" linked.py
in_gdb -x linked.py -ex "source linked.py" -ex 'quarry arenas' ./held
check "what is installed" says err "quarry: no quarry in this program"
check "what is installed: nothing is left there" is "$(find "$work/root" "$src/tools/gdb" -name '*.pyc' | wc -l)" 0

echo "gdb.sh: $checks checks, $failures failed"
[[ $failures -eq 0 ]]
