#!/bin/bash
# SPDX-License-Identifier: MIT
# Dumps of views: what the library writes is what a decoder written to doc/view-format.md reads (Python), what `quarry diff`
# and `quarry map` make of it, and that files that are cut, changed or none at all are refused in one line.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/dump.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
for program in "$quarry" "$build/tests/dump/dumps" "$build/tests/fuzz/fuzz_dump"; do
	if [[ ! -x $program ]]; then
		echo "dump.sh: $program is not built"
		exit 99
	fi
done
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-dump.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

. "$src/tests/checks.sh"
shows() { grep -qE -e "$2" "$work/$1"; } # shows out|err REGEX

check "two dumps are made" "$build/tests/dump/dumps" "$work"
cd "$work" || exit 99

# ---- what is written ------------------------------------------------------------------------------------------
python=
if command -v python3 >/dev/null; then
	python=python3
	for name in a b c d; do
		check "$name.bin and $name.json are what the visit told" "$python" "$src/tests/dump/check.py" "$work" $name
	done
else
	echo "SKIP: no python3: the formats are not decoded anew"
fi

# ---- diff -----------------------------------------------------------------------------------------------------
same() { quarry diff "$1" "$2" && is $status 0 && shows out '^and [0-9]+ as they were$' && is "$(wc -l <"$work/out")" 3; }
for pair in "a.bin a.bin" "a.json a.json" "a.bin a.json" "b.json b.bin"; do
	# shellcheck disable=SC2086 # words are meant
	check "diff $pair: nothing grew" same $pair
done
for pair in "a.bin b.bin" "a.json b.bin"; do
	# shellcheck disable=SC2086
	quarry diff $pair
	check "diff $pair" is $status 0
	check "diff: 80 columns" is "$(LC_ALL=C.UTF-8 grep -cE '.{81}' out)" 0
	check "diff: large blocks" shows out '^second +large +3 +.* +\+3\.0M +\+3\.0M$'
	check "diff: what grew most is first" is "$(sed -n 2p out | cut -c 1-27)" 'second                large'
	check "diff: 64 bytes" shows out '^second +64 +20000 +0 +1\.2M +\+1\.2M +\+1\.2M$'
	check "diff: a name that is no text" shows out '^cache "one".{1,3} +2048 +7 .* \+14K '
done
quarry diff b.bin a.bin
check "diff the other way round" shows out '^second +64 +-20000 +1\.2M +0 +-1\.2M +-1\.2M$'
quarry diff --all a.bin b.bin
check "diff --all" shows out '^second +48 +0 '
diff_json() {
	[[ $python ]] || return 0
	"$python" - "$work/out" "$work/more.txt" <<'PY'
import json, sys
rows = json.load(open(sys.argv[1]))["rows"]
for line in open(sys.argv[2]):
    arena, size, objects, grown = line.split()
    row = [r for r in rows if r["arena"].startswith(arena) and r["object_size"] == int(size)]
    assert len(row) == 1, (line, row)
    assert row[0]["after"]["live"] - row[0]["before"]["live"] == int(objects), row
    assert row[0]["growth"] == int(grown), row
PY
}
quarry diff --json a.bin b.bin
check "diff --json" diff_json
"$quarry" diff - b.bin <a.bin >out 2>err
check "diff of standard input" shows out '^second +64 '
for arguments in "" a.bin "a.bin b.bin a.bin" "--jsno a.bin b.bin" "- -"; do
	# shellcheck disable=SC2086
	quarry diff $arguments
	check "diff $arguments" one_line_error 2 "diff: "
done
quarry diff a.bin none.bin
check "diff of no file" one_line_error 1 "none.bin: No such file"
quarry diff a.bin a.txt
check "diff of no dump" one_line_error 1 "a.txt: no dump of a view"
quarry diff a.bin .
check "diff of a folder" one_line_error 1 "Is a directory"

# ---- diff by stack --------------------------------------------------------------------------------------------
quarry diff a.bin b.bin
check "diff without a profile says nothing of stacks" is "$(grep -c stack out)" 0
quarry diff b.bin c.json
check "diff of which one has a profile" says out "not by stack: the first dump has no profile"
quarry diff --json b.bin c.json
check "the same as JSON" says out '],"stacks":null}'
by_stack_json() {
	[[ $python ]] || return 0
	"$python" - "$work/out" "$work/stacks.txt" "$1" <<'PY'
import json, sys
stacks = json.load(open(sys.argv[1]))["stacks"]
assert [s["growth"] for s in stacks] == sorted((s["growth"] for s in stacks), reverse=True)
everything = sys.argv[3] == "--all"
for line in open(sys.argv[2]):
    name, *figures = line.split()
    ours = [s for s in stacks if any(f["name"] == name for f in s["stack"])]
    got = [sum(s[when][what] for s in ours) for when in ("before", "after") for what in ("objects", "bytes")]
    if name == "stays_as_it_is" and not everything:
        assert not ours, ours
        continue
    # (Where a function grew by call from another place, what was there before is as it was.)
    wanted = [int(f) for f in figures]
    assert got[3] - got[1] == wanted[3] - wanted[1] and got[2] - got[0] == wanted[2] - wanted[0], (line, got)
    assert not everything or got == wanted, (line, got)
    assert all(s["growth"] == s["after"]["bytes"] - s["before"]["bytes"] for s in ours)
assert all(f["offset"] > 0 and (f["id"] or f["file"]) for s in stacks for f in s["stack"])
PY
}
for pair in "c.bin d.bin" "c.json d.json" "c.json d.bin"; do
	# shellcheck disable=SC2086
	quarry diff $pair
	check "diff $pair" is $status 0
	check "diff by stack: 80 columns" is "$(LC_ALL=C.UTF-8 grep -cE '.{81}' out)" 0
	check "diff by stack: what grew most is first" is "$(sed -n '/^by stack/,$p' out | grep -m 1 -E 'grows|shrinks|stays')" \
		"    grows_most"
	check "diff by stack: its figures" is "$(sed -n '/^by stack/{n;p}' out | tr -s ' ')" " 120 0 11M +11M"
	check "diff by stack: what stays is left out" is "$(grep -c stays_as_it_is out)" 0
	check "diff by stack: what shrank" shows out '^ +-150 +1\.3M +350K +-1\.0M$'
	for all in "" --all; do
		# shellcheck disable=SC2086
		quarry diff --json $all $pair
		check "diff --json $all by stack" by_stack_json "$all"
	done
done
# An offset is that of a call's last byte in the file: what is behind it is where the call returns to.
offsets() {
	[[ $python ]] || return 0
	"$python" - d.json "$(readlink -f "$build/tests/dump/dumps")" <<'PY'
import json, re, subprocess, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
module = [line for line in lines if line.get("file", "").endswith("/dumps")][0]
def run(*command): return subprocess.run(command, check=True, capture_output=True, text=True).stdout
loads = [[int(n, 16) for n in m] for m in
         re.findall(r"LOAD +(0x[0-9a-f]+) (0x[0-9a-f]+) 0x[0-9a-f]+ (0x[0-9a-f]+) .*R E", run("readelf", "-lW", sys.argv[2]))]
code = [line.split(":", 1) for line in run("objdump", "-d", "--no-show-raw-insn", sys.argv[2]).splitlines()
        if re.match(r" *[0-9a-f]+:", line)]
returns = {int(after[0], 16) for before, after in zip(code, code[1:]) if re.search(r"\b(call|blr?)", before[1])}
frames = [line for line in lines if "frame" in line and line.get("module") == module["module"]]
assert len(frames) > 5
for frame in frames:
    at = [frame["offset"] + 1 - offset + address for offset, address, size in loads if offset <= frame["offset"] < offset + size]
    assert at and at[0] in returns, (frame, at)
notes = run("readelf", "-nW", sys.argv[2])
assert "Build ID" not in notes or module["id"] and "Build ID: " + module["id"] in notes
PY
}
check "frames are where calls are" offsets
quarry diff c.bin c.json
check "diff by stack: nothing changed" is "$(sed -n '/^by stack/{n;p}' out)" "and 3 as they were"
# A name that would do something to a terminal, or is long, and a module that is known by its file.
sed -e 's/"function":"grows_most"/"function":"\\u001b[2J\\u202e'"$(printf 'x%.0s' {1..300})"'"/' -e 's/"id":"[0-9a-f]*"/"id":""/' d.json >odd.json
quarry diff c.json odd.json
check "names that are odd: 80 columns" is "$(LC_ALL=C.UTF-8 grep -cE '.{81}' out)" 0
check "names that are odd: nothing that a terminal obeys" is "$(tr -d '\n -~' <out | wc -c)" 0
check "names that are odd: cut" shows out '^    \?\[2J\?x+\.\.\.$'

# Names are those of a flame graph: C++'s as they were written, and of files that are those that ran what nobody exports.
sed -e 's/"function":"grows_most"/"function":"_ZN5store5table4fillEi"/' -e 's/"id":"[0-9a-f]*"/"id":"00ff"/' d.json >mangled.json
quarry diff c.json mangled.json
check "names of C++" is "$(grep -cx '    store::table::fill(int)' out)" 1
quarry diff --json c.json mangled.json
check "names of C++ as JSON" says out '"name":"store::table::fill(int)"'
for name in c d; do
	sed 's/"function":"[^"]*"/"function":""/' $name.json >$name.unnamed.json
done
quarry diff c.unnamed.json d.unnamed.json
check "names of files that are those that ran" is "$(sed -n '/^by stack/,$p' out | grep -m 1 -E 'grows|shrinks|stays')" "    grows_most"

# ---- map ------------------------------------------------------------------------------------------------------
for file in a.bin a.json d.bin d.json; do
	quarry map $file
	check "map $file" is $status 0
	check "map $file: its title" shows out 'what lived at one moment'
	check "map $file: an arena" shows out 'second'
	check "map $file: 80 columns" is "$(LC_ALL=C.UTF-8 grep -cE '.{81}' out)" 0
done
quarry map --svg - a.bin
check "map --svg" shows out '</svg>'
quarry map --json a.bin
check "map --json" shows out '^{"map":"view"'
[[ ! $python ]] || check "map --json is JSON" "$python" -c 'import json,sys; json.load(open("out"))'

# ---- what is wrong --------------------------------------------------------------------------------------------
size=$(stat -c %s a.bin)
for cut in 8 15 16 20 100 1000 $((size / 2)) $((size - 1)) $((size - 16)); do
	head -c $cut a.bin >cut.bin
	quarry diff a.bin cut.bin
	check "cut after $cut bytes" one_line_error 1 "cut.bin: "
done
for cut in 30 1000 $(($(stat -c %s a.json) - 2)); do
	head -c "$cut" a.json >cut.json
	quarry map cut.json
	check "JSON cut after $cut bytes" one_line_error 1 "cut.json: line "
done
{ head -c 8 a.bin; printf '\002\0\0\0'; tail -c +13 a.bin; } >later.bin
quarry diff a.bin later.bin
check "a later version is refused" one_line_error 1 "of a version that this command does not know"
{ head -c 16 a.bin; printf '\143\0\0\0\003\0\0\0abc'; tail -c +17 a.bin; } >more.bin
quarry diff a.bin more.bin
check "another record is counted" one_line_error 1 "not as many records as there were"
sed 's/"live":3,/"live":4,/' a.json >wrong.json
quarry diff a.json wrong.json
check "what does not add up is refused" one_line_error 1 "a slab's objects are not as many as it says"
# An object that is told of where a larger slab would have it.
head -n 3 a.json >behind.json
python3 - a.json behind.json <<'END'
import json, sys
lines = [json.loads(l) for l in open(sys.argv[1])]
region = next(l for l in lines if "region" in l)
head = [json.dumps(l, separators=(",", ":")) for l in lines[:lines.index(region) + 1]]
slab = '{"slab":%d,"size":131072,"object_size":64,"objects":1,"live":1,"cached":0,"items":[[65536,65520,1]],"size":65552}'
open(sys.argv[2], "w").write("\n".join(head + [slab % region["region"], '{"end":%d}' % (len(head))]) + "\n")
END
quarry map behind.json
check "objects behind their slab are refused" grep -qE "a slab's sizes come after its objects|more objects than it has place for" "$work/err"
for change in 's/^{"stack":\[/&999999,/' 's/^{"frame":1,/{"frame":2,/' 's/^{"frame":0,"module":0/{"frame":0,"module":77/' \
	's/"samples":120,/"samples":1200000000000000000,/' 's/"id":"../"id":"no/' 's/"arena":2,"node":0}/"arena":12,"node":0}/' \
	's/^{"profile":1,"lost":0}$/&\n&/' '/^{"profile"/d' '/^{"module":1,/d'; do
	sed "$change" d.json >wrong.json
	check "$change changes something" bash -c '! cmp -s d.json wrong.json'
	quarry diff c.json wrong.json
	check "stacks: $change is refused" one_line_error 1 "wrong.json: line "
done
sed 's/^{"end":.*/&\n{"end":1}/' a.json >behind.json
quarry diff a.json behind.json
check "something behind the end" one_line_error 1 "something is behind the end"
"$build/tests/fuzz/fuzz_dump" 300 a.bin a.json d.bin d.json >out 2>err
check "files that were changed" is $? 0
cat out

echo "dump.sh: $checks checks, $failures failed"
[[ $failures -eq 0 ]]
