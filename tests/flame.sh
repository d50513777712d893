#!/bin/bash
# SPDX-License-Identifier: MIT
# `quarry flame`: pictures, tables and JSON of profiles in all forms that quarry writes, of programs whose amounts and
# functions are known, and of python3; names by build id; files that are wrong, or hostile.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/flame.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS QUARRY_PROFILE LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
library=${QUARRY_SO:-$build/.libs/libquarry-malloc.so}
for file in "$quarry" "$library" "$build/tests/fuzz/fuzz_flame"; do
	if [[ ! -e $file ]]; then
		echo "flame.sh: $file is not built"
		exit 99
	fi
done
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-flame.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

. "$src/tests/checks.sh"
if ! command -v python3 >/dev/null; then
	echo "SKIP: no python3, which reads the pictures"
	exit 77
fi
# (The distribution's starts at once, where others are found by a script.)
[[ ! -x /usr/bin/python3 ]] || python3() { /usr/bin/python3 "$@"; }
cd "$work" || exit 99
library=$(realpath "$library")

picture_is_sound() { python3 "$src/tests/flame.py" check "$1" >told; }
# get FILE EXPRESSION: of JSON, as d
get() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }
built() { # built PROGRAM FLAG...
	local program=$1
	shift
	"${CC:-cc}" -O1 -g -fno-omit-frame-pointer -Wl,--build-id "$@" -o "$program" "$src/tests/profiled.c" 2>err
}
of_name() { echo "next((f['$2'] for f in d['functions'] if f['name'] == '$1'), 0)"; }
near() { # near GOT WANTED: within a thousandth, of something
	python3 -c 'import sys; a, b = map(float, sys.argv[1:]); sys.exit(not 0 < b or not abs(a - b) <= b / 1000)' "$1" "$2" ||
		{ echo "    is '$1', not near '$2'"; return 1; }
}

# ---- one profile in four forms ----------------------------------------------------------------------------------
check "the program is built" built ./profiled -rdynamic
QUARRY_OPTIONS=profile=4k LD_PRELOAD=$library ./profiled . >out 2>err
check "it writes its profile" is $? 0
functions="keeps_40_mib_of_64 keeps_80_mib_of_4096 keeps_20_mib_of_100000"
for form in pb.gz heap collapsed json; do
	quarry flame --json all.$form
	check "$form" is $status 0
	check "$form: nothing is said" silent err
	cp out $form.told
	quarry flame all.$form -o $form.svg
	check "$form: a picture" is $status 0
	check "$form: nothing on standard output" silent out
	check "$form: the picture is sound" picture_is_sound $form.svg
	check "$form: the picture has a script" is "$(get told 'd["script"]')" True
	check "$form: the root has all bytes" is "$(get told 'd["functions"]["all"][0]')" "$(get $form.told 'd["bytes"]')"
	check "$form: all is as in the first" near "$(get $form.told 'd["bytes"]')" "$(get pb.gz.told 'd["bytes"]')"
	for name in $functions main _start __libc_start_main; do
		check "$form: $name in the picture" is "$(get told "'$name' in d['functions']")" True
		check "$form: $name" near "$(get $form.told "$(of_name $name bytes)")" "$(get pb.gz.told "$(of_name $name bytes)")"
	done
	check "$form: what was freed is not there" is "$(get told "'churns_200_mib' in d['functions']")" False
	check "$form: in main itself is nothing" is "$(get $form.told "$(of_name main self_bytes)")" 0
done
# (What was sampled is known by another's count.)
sums=$(python3 "$src/tests/profile.py" all.pb.gz)
get_sum() { python3 -c 'import json, sys; print(json.loads(sys.argv[1])["sums"][int(sys.argv[2])])' "$sums" "$1"; }
quarry flame --json all.pb.gz
check "the root's bytes are the profile's" is "$(get out 'd["bytes"]')" "$(get_sum 3)"
check "the root's objects are the profile's" is "$(get out 'd["objects"]')" "$(get_sum 2)"
check "the tree's nodes add up" is "$(get out 'sum(n["self_bytes"] for n in d["tree"])')" "$(get_sum 3)"
check "a node's parent stands before it" is \
	"$(get out 'all(n["parent"] is None if i == 0 else n["parent"] < i for i, n in enumerate(d["tree"]))')" True
check "the program is the one of the profile" is "$(get out 'sorted({f["state"] for f in d["files"]})')" "['same']"
check "heap_v2: nothing proves which files" is "$(get heap.told 'sorted({f["state"] for f in d["files"]})')" "['unproven']"
for form in pb.gz heap json; do
	quarry flame --json --allocated all.$form
	check "$form: allocated" near "$(get out 'd["bytes"]')" "$(get_sum 1)"
	check "$form: allocated, what was freed" is "$(get out "$(of_name churns_200_mib bytes) > 190 << 20")" True
	quarry flame --json --objects all.$form
	check "$form: objects" near "$(get out 'd["objects"]')" "$(get_sum 2)"
	check "$form: by objects, the small ones are first" is "$(get out 'd["functions"][0]["name"]')" keeps_40_mib_of_64
done
quarry flame --allocated --inverted all.pb.gz -o inverted.svg
check "inverted" picture_is_sound inverted.svg
check "inverted: no function of the program is left out" is "$(get told "len(set('$functions churns_200_mib'.split()) & set(d['functions']))")" 4
quarry flame --inverted --json all.pb.gz
cat >roots.py <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
names = {f["id"]: f["name"] for f in d["functions"]}
roots = {names[n["function"]] for n in d["tree"] if n["parent"] == 0}
sys.exit(not (set(sys.argv[2].split()) <= roots and "main" not in roots))
END
check "inverted: what allocates is at the root" python3 roots.py out "$functions"
quarry flame --json --node 0 --arena "node 0" all.json
check "of an arena and a node" is "$(get out 'd["bytes"]')" "$(get json.told 'd["bytes"]')"
quarry flame --arena another all.pb.gz
check "of an arena that is not there" one_line_error 1 "nothing of that arena"
quarry flame --node 0 all.heap
check "of a node, where none is told" one_line_error 1 "without arenas and nodes"
quarry flame --objects all.collapsed
check "objects of collapsed stacks" one_line_error 1 "collapsed stacks without objects"

# ---- as text, and where to ----------------------------------------------------------------------------------------
quarry flame --text all.pb.gz
check "--text" is $status 0
check "--text: 80 columns" is "$(grep -cE '.{81}' out)" 0
check "--text: the largest is first" grep -qE '^ *[0-9.]+ MiB +5[0-9.]+ .* #+ +keeps_80_mib_of_4096$' out
quarry flame - <all.pb.gz
check "standard input is /dev/null here" one_line_error 1 "is empty"
"$quarry" flame - <all.collapsed >out 2>err
check "from standard input to standard output" picture_is_sound out
quarry flame all.pb.gz -o all.heap
check "what is no picture is not overwritten" one_line_error 2 "no picture"
quarry flame all.pb.gz --svg none/x.svg
check "into no folder" one_line_error 1 "No such file"
cp pb.gz.svg kept.svg
ln -s kept.svg link.svg
chmod 640 kept.svg
(trap '' XFSZ; ulimit -f 1; "$quarry" flame all.pb.gz -o link.svg >out 2>err)
status=$?
check "no room for a picture" one_line_error 1 "link.svg: File too large"
check "no room for a picture: the one before is still there" cmp kept.svg pb.gz.svg
quarry flame --objects all.pb.gz -o link.svg
check "a picture in another's place" is "$status $(readlink link.svg) $(stat -c %a kept.svg)" "0 kept.svg 640"
check "a picture in another's place: it is the new one" is "$(cmp -s kept.svg pb.gz.svg; echo $?)" 1
check "nothing is left beside it" is "$(echo ./*.tmp)" "./*.tmp"
quarry flame all.pb.gz -o /dev/null
check "a picture into no file" is $status 0
quarry flame --title 'A <title> & "more"' all.pb.gz --svg=title.svg
check "a title" picture_is_sound title.svg
check "a title stands there" is "$(get told 'd["words"][0]')" 'A <title> & "more"'
[[ ! -w /dev/full ]] || { "$quarry" flame all.pb.gz >/dev/full 2>err; status=$?; : >out; check "to a full disk" one_line_error 1 "standard output"; }
for arguments in "" "--frob all.json" "all.json all.heap" "--node all.json" "--node -3 all.json" "--text --json all.json" "all.json -o" \
	"--arena= all.json"; do
	# shellcheck disable=SC2086 # words are meant
	quarry flame $arguments
	check "flame $arguments" one_line_error 2 "flame: "
done
quarry flame not-there
check "a file that is not there" one_line_error 1 "No such file"
quarry flame .
check "a folder" one_line_error 1 "Is a directory"

# ---- names ----------------------------------------------------------------------------------------------------------
# Without exported names: of symbols, or of a file that has none; and of a file that was replaced.
check "a program without exported names" built ./plain
QUARRY_OPTIONS=profile=4k QUARRY_PROFILE=plain.pb.gz LD_PRELOAD=$library ./plain
quarry flame --json plain.pb.gz
check "functions that nobody exports have names" is "$(get out "$(of_name keeps_80_mib_of_4096 bytes) > 70 << 20")" True
if "$quarry" flame --help | grep -q "built without libdw"; then
	echo "SKIP: source files: built without libdw"
else
	check "where they are written" is "$(get out "$(of_name main source).endswith('profiled.c')")" True
fi
check "a stripped one" strip -o stripped plain
mv plain whole && cp stripped plain
quarry flame --json plain.pb.gz
check "stripped, its build id is the same" is "$(get out '[f["state"] for f in d["files"] if f["path"].endswith("plain")][0]')" same
# (libdw asks servers by itself, where the environment names some.)
cat >asked.py <<'EOF'
import http.server, os, subprocess, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path)
        self.send_error(404)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = "http://127.0.0.1:%d" % server.server_port
subprocess.run(sys.argv[1:], env={**os.environ, "DEBUGINFOD_URLS": url, "DEBUGINFOD_CACHE_PATH": os.getcwd() + "/cache"},
               stdout=subprocess.DEVNULL)
EOF
check "stripped: nobody is asked for what was stripped" is "$(python3 asked.py "$quarry" flame --json plain.pb.gz)" ""
check "stripped: by where it is in the file" is "$(get out 'any(f["name"].startswith("plain+0x") for f in d["functions"])')" True
built ./other -DMIB='((size_t)1 << 19)' 2>/dev/null
"${CC:-cc}" -O0 -Wl,--build-id -o plain "$src/tests/profiled.c"
quarry flame plain.pb.gz -o replaced.svg
check "replaced: a picture" picture_is_sound replaced.svg
check "replaced: the foot says so" is "$(get told 'any(w.startswith("Replaced since, and so not named: plain.") for w in d["words"])')" True
quarry flame --json plain.pb.gz
check "replaced: not named" is "$(get out "$(of_name main bytes)")" 0
check "replaced: JSON says so" is "$(get out '[f["state"] for f in d["files"] if f["path"].endswith("plain")][0]')" replaced
rm plain
quarry flame --json plain.pb.gz
check "gone: JSON says so" is "$(get out '[f["state"] for f in d["files"] if f["path"].endswith("plain")][0]')" missing
# All places of a program, named as addr2line does: functions inlined in one another, in blocks, in parts that the compiler put
# elsewhere (cold), and in functions that are in functions.
if "$quarry" flame --help | grep -q "built without libdw"; then
	echo "SKIP: what was inlined where: built without libdw"
elif ! command -v addr2line >/dev/null || ! command -v nm >/dev/null; then
	echo "SKIP: what was inlined where: no addr2line, or no nm"
else
	cat >nested.c <<'EOF_C'
#include <stdlib.h>
static int total;
static inline __attribute__((always_inline)) int innermost(int n) { total += n * 3; return total ^ n; }
static inline __attribute__((always_inline)) int middle(int n)
{
	int sum = innermost(n);
	{
		int k = sum & 7;
		if (__builtin_expect(k == 5, 0)) {
			total += innermost(k);
			abort();
		}
		sum += innermost(sum + k);
	}
	return sum;
}
static inline __attribute__((always_inline)) int outer(int n) { return middle(n) + middle(n + 1); }
#define MAKE(name) \
	__attribute__((noinline)) int name(int n); \
	int name(int n) { if (__builtin_expect(n < 0, 0)) exit(outer(n) + 3); return outer(n) * innermost(n); }
MAKE(first)
MAKE(second)
MAKE(third)
int main(int argc, char **argv)
{
#ifdef __clang__
#define local(n) outer((n) + argc)
#else
	__attribute__((noinline)) int local(int n) { return outer(n + argc); }
#endif
	(void)argv;
	return first(argc) + second(argc) + third(argc) + local(3) == 7;
}
EOF_C
	cat >places.py <<'EOF_PY'
import collections, json, subprocess, sys
def places(program):
    "Each byte of the program's own functions."
    lines = subprocess.run(["nm", "--defined-only", "-S", program], capture_output=True, text=True).stdout.split("\n")
    parts = [l.split() for l in lines if len(l.split()) == 4 and l.split()[2] in "tT"]
    names = "first", "second", "third", "main", "local"
    return sorted(a for p in parts if p[3].split(".")[0] in names for a in range(int(p[0], 16), int(p[0], 16) + int(p[1], 16)))
def segment(program):
    "Where the file's code is: its offset, address and size."
    for l in subprocess.run(["readelf", "-lW", program], capture_output=True, text=True).stdout.split("\n"):
        p = l.split()
        if p[:1] == ["LOAD"] and "E" in p[6:8]:
            return int(p[1], 16), int(p[2], 16), int(p[4], 16)
program = sys.argv[2]
at = places(program)
if sys.argv[1] == "make": # a sample of so many bytes at each; addresses are those behind the call
    offset, address, size = segment(program)
    print("heap_v2/1")
    for i, a in enumerate(at):
        print("@ 0x%x\n  t*: 1: %d [0: 0]" % (a + 1, i + 1))
    print("\nMAPPED_LIBRARIES:\n%x-%x r-xp %08x 00:00 1 %s" % (address, address + size, offset, program))
else:
    told_all = json.load(open(sys.argv[3]))
    names = {f["id"]: f["name"].split(".")[0] for f in told_all["functions"]}
    stacks, told = [], {}
    for n in told_all["tree"]: # a parent stands before it
        stacks.append([] if n["parent"] is None else stacks[n["parent"]] + [names[n["function"]]])
        told[tuple(stacks[-1])] = told.get(tuple(stacks[-1]), 0) + n["self_bytes"]
    wanted, lines = collections.Counter(), subprocess.run(["addr2line", "-a", "-f", "-i", "-e", program] + [hex(a) for a in at],
                                                          capture_output=True, text=True).stdout.split("\n")
    starts = [i for i, l in enumerate(lines) if l.startswith("0x")] + [len(lines)]
    for i, (start, end) in enumerate(zip(starts, starts[1:])):
        wanted[tuple(n.split(".")[0] for n in lines[start + 1:end:2] if n)[::-1]] += i + 1
    for s in sorted(wanted.keys() | told.keys()):
        if wanted[s] != told.get(s, 0):
            print("   ", ";".join(s), "is", told.get(s, 0), "not", wanted[s])
    print(len(at), max(map(len, wanted)), sum(wanted[s] != told.get(s, 0) for s in wanted.keys() | told.keys()))
EOF_PY
	check "what was inlined where: a program" "${CC:-cc}" -O2 -g -fno-ipa-icf -o nested nested.c
	printf 'heap_v2/9\n@ 0x1\n  t*: 1: 2 [0: 0]\n\nMAPPED_LIBRARIES:\n' >unnamed.heap
	quarry flame --text unnamed.heap
	check "where the kernel does not tell what is loaded" is $status 0
	python3 places.py make "$work/nested" >nested.heap
	quarry flame --json nested.heap
	check "what was inlined where: named" is $status 0
	python3 places.py compare "$work/nested" out >compared
	grep '^ ' compared | head -5
	read -r places deepest wrong < <(tail -1 compared)
	check "what was inlined where: as addr2line has it" is "$wrong" 0
	check "what was inlined where: at many places, four deep" test "$places" -gt 300 -a "$deepest" -ge 4
fi

if [[ -n ${CXX:-} ]] && command -v "$CXX" >/dev/null; then
	cat >inlined.cc <<-'EOF'
		#include <cstdlib>
		#include <cstring>
		namespace store {
		void *volatile sink;
		template <typename T> static inline __attribute__((always_inline)) T *fresh(std::size_t n)
		{
			T *p = static_cast<T *>(std::malloc(n * sizeof(T)));
			std::memset(p, 1, n * sizeof(T));
			return p;
		}
		struct table {
			__attribute__((noinline)) void fill(int n)
			{
				for (int i = 0; i < n; i++)
					sink = fresh<double>(1000);
			}
		};
		}
		int main()
		{
			store::table t;
			t.fill(2000);
			return store::sink == nullptr;
		}
	EOF
	check "a program in C++" "$CXX" -O2 -g -fno-omit-frame-pointer -o inlined inlined.cc
	QUARRY_OPTIONS=profile=4k QUARRY_PROFILE=inlined.pb.gz LD_PRELOAD=$library ./inlined
	quarry flame --json inlined.pb.gz
	check "C++: names as they were written" is \
		"$(get out 'any(f["name"].startswith("store::table::fill(int)") and f["bytes"] > 14 << 20 for f in d["functions"])')" True
	"$quarry" flame --help | grep -q "built without libdw" ||
		check "C++: what was inlined" is "$(get out 'any("fresh" in f["name"] and f["self_bytes"] > 14 << 20 for f in d["functions"])')" True
else
	echo "SKIP: C++: no compiler"
fi

# A name of a hundred bytes that stands for gigabytes; and files that are no programs.
python3 - >mangled.collapsed <<'EOF'
digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
name = "_Z1f1pIiiE" + "".join("S_IS%s_S%s_E" % (digits[i], digits[i]) for i in range(36))
print("main;" + name + " 4096")
print("main;_ZN5store5table4fillEi 100")
EOF
quarry_seconds=20
quarry flame --json mangled.collapsed
check "names without end" is $status 0
check "names without end: as they are" is "$(get out 'sum(f["name"].startswith("_Z1f1pIiiE") for f in d["functions"])')" 1
check "names without end: others are as they were written" is "$(get out "$(of_name 'store::table::fill(int)' bytes)")" 100
# What comes again and again is looked up once: it would take a minute.
python3 - >again.collapsed <<'EOF'
print("main;_ZN5store5tableC1E%s 1\n" % ("S_" * 13) * 60000)
EOF
awk '/@ 0x/ && NR > 1 { for (i = 0; i < 20000; i++) print; next } { print }' all.heap >again.heap
for form in collapsed heap; do
	quarry flame --json again.$form
	check "$form: the same names again and again" is $status 0
done
check "again and again: all is as in the first" is "$(get out "d['bytes'] // $(get heap.told 'd["bytes"]')")" 20000
quarry_seconds=120
mkfifo pipe
for file in "$work/pipe" /dev/zero /dev/tty "$work" /proc/self/mem "$src/README.md" relative; do
	python3 "$src/tests/flame.py" good named "$file"
	quarry flame --json named
	check "a profile of a program that is $file" is $status 0
	check "a profile of a program that is $file: not named" is "$(get out 'd["files"][0]["state"]')" missing
done

# ---- what others collapse --------------------------------------------------------------------------------------------
printf 'main;a b;operator new(unsigned long) 10\nmain;<x>&"y"\x27 \x1b[31m]]>;\xff\xfe\xc3\xa9 20\n\nmain 5\nmain;<\xe2\x80\xae>;%s 99\n' \
	"$(printf 'x;%.0s' {1..700})deep" >odd.collapsed
quarry flame odd.collapsed -o odd.svg
check "odd names" is $status 0
check "odd names: the picture is sound" picture_is_sound odd.svg
check "odd names: all of them" is "$(get told 'd["functions"]["all"][0]')" 134
check "odd names: text stays text" is "$(get told "'operator new(unsigned long)' in d['functions']")" True
check "odd names: nothing that a terminal obeys" is "$(grep -c $'\033' odd.svg)" 0
check "stacks without end are cut" is "$(get told 'any("cut" in w for w in d["words"])')" True
quarry flame --json odd.collapsed
check "stacks without end: 512 functions are left" is \
	"$(get out 'max((n.setdefault("depth", d["tree"][n["parent"]]["depth"] + 1) if i else n.setdefault("depth", 0)) for i, n in enumerate(d["tree"]))')" 512
quarry flame --text odd.collapsed
check "odd names in a table: nothing that a terminal obeys" is "$(grep -cE $'\033|[\x80-\xff]' out)" 0
printf 'main;a;b;a;a 7\nmain;b 2.5\n# said\n' >recursive.collapsed
quarry flame --json recursive.collapsed
check "what calls itself is counted once" is "$(get out "[$(of_name a bytes), $(of_name a self_bytes), $(of_name b bytes)]")" "[7, 7, 9]"
printf 'main;a 99999999999999999999999\nmain;a 99999999999999999999999\n' >large.collapsed
quarry flame --json large.collapsed
check "numbers without end saturate" is "$(get out 'd["bytes"] == 2 ** 64 - 1')" True

# (A mean of 1: nothing is to be weighed.)
printf '%s\n' heap_v2/1 '  t*: 3: 300 [0: 0]' '  t0: 3: 300 [0: 0]' '@ 0x10 0x20' '  t*: 2: 200 [5: 500]' '  t0: 2: 200 [5: 500]' \
	'@ 0x30 0x20' '  t*: 1: 100 [0: 0]' '' 'MAPPED_LIBRARIES:' '7000-8000 rw-p 00000000 00:00 0' >jemalloc.heap
quarry flame --json jemalloc.heap
check "jemalloc's text" is "$(get out "[d['bytes'], d['objects'], $(of_name 0x20 bytes), $(of_name 0x10 self_bytes)]")" "[300, 3, 300, 200]"
quarry flame --json --allocated jemalloc.heap
check "jemalloc's text: allocated" is "$(get out "d['bytes']")" 500
sed 's/\[[^]]*\]/[0: 0]/' jemalloc.heap >no-sums.heap
quarry flame --json no-sums.heap
check "jemalloc's text without sums of what was allocated: in use" is "$(get out "[d['bytes'], d['objects'], $(of_name 0x20 bytes)]")" "[300, 3, 300]"
for what in --allocated "--allocated --objects"; do
	# shellcheck disable=SC2086 # words are meant
	quarry flame $what no-sums.heap
	check "jemalloc's text without sums: $what" one_line_error 1 "(jemalloc keeps that with prof_accum:true alone)"
done
jemalloc=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | awk '$1 == "libjemalloc.so.2" { print $NF; exit }')
if [[ -n $jemalloc ]] && MALLOC_CONF=prof:true,prof_final:true,prof_prefix:je,lg_prof_sample:12 LD_PRELOAD=$jemalloc \
	./profiled >out 2>err && [[ -e $(echo je.*.heap) ]]; then
	quarry flame --json je.*.heap
	check "a profile of jemalloc's own" is "$(get out "75 << 20 < $(of_name keeps_80_mib_of_4096 bytes) < 85 << 20")" True
else
	echo "SKIP: a profile of jemalloc's own: it is not here, or makes none"
fi

# ---- files that are wrong --------------------------------------------------------------------------------------------
mkdir hostile
python3 "$src/tests/flame.py" make hostile
for file in hostile/*.says; do
	name=${file%.says}
	quarry flame "$name"
	says=$(<"$file")
	# (Without zlib these are refused before they are looked at.)
	! "$quarry" flame --help | grep -q "built without zlib" || [[ $(head -c 2 "$name" | od -An -tx1) != " 1f 8b" ]] || says=gzip
	check "$name" one_line_error 1 "$says"
done
check "mutations of all forms" "$build/tests/fuzz/fuzz_flame" 1500 all.pb.gz all.heap all.collapsed all.json jemalloc.heap profiled

# ---- a real program ----------------------------------------------------------------------------------------------------
QUARRY_OPTIONS=profile=16k QUARRY_PROFILE=python.pb.gz LD_PRELOAD=$library python3 -c '
import json
print(len(json.loads(json.dumps([{"n": i, "text": str(i) * 50} for i in range(30000)]))))' >/dev/null
quarry flame --allocated python.pb.gz -o python.svg
check "python3" is $status 0
check "python3: the picture is sound" picture_is_sound python.svg
check "python3: it is large" is "$(get told 'd["functions"]["all"][0] > 10 << 20 and d["frames"] > 50')" True
! command -v xmllint >/dev/null || check "python3: xmllint" xmllint --noout python.svg

echo "flame.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
