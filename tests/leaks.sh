#!/bin/bash
# SPDX-License-Identifier: MIT
# Leaks of programs that know nothing of quarry: one object among 100,000 is found with its stack, what hangs on it and
# rings are told as such, suppressions are as LeakSanitizer's, and real programs that leak nothing are said to leak nothing.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/leaks.sh
set -uo pipefail
export LC_ALL=C
unset LD_PRELOAD QUARRY_OPTIONS QUARRY_SUPPRESSIONS QUARRY_PROFILE

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=$(readlink -f "${QUARRY:-$build/quarry}")
library=$(readlink -f "${QUARRY_SO:-$build/.libs/libquarry-malloc.so}")
[[ -x $quarry && -f $library && -x $build/tests/fuzz/fuzz_flame ]] ||
	{ echo "leaks.sh: $quarry, $library or fuzz_flame is not built"; exit 99; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$src/tests/checks.sh"
if ! command -v python3 >/dev/null; then
	echo "SKIP: no python3, which reads the reports"
	exit 77
fi

program=$work/leaky
"${CC:-cc}" -O1 -g -fno-omit-frame-pointer -rdynamic -o "$program" "$src/tests/leaky.c" 2>"$work/compiler" ||
	{ cat "$work/compiler"; exit 1; }

leaks() { # leaks FORMAT OPTIONS PROGRAM…: into out, err and status; the report alone into report
	local format=$1 options=$2
	shift 2
	quarry run --library "$library" --leaks="$format" --options "$options" "$@"
	cp "$work/err" "$work/report"
}
sums() { # sums NAME: a figure of the JSON report
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/report" "$1"
}
of_function() { # of_function NAME FIELD: the sum over places whose stack has the function
	python3 -c '
import json, sys
print(sum(l[sys.argv[3]] for l in json.load(open(sys.argv[1]))["leaks"] if sys.argv[2] in l["names"]))' \
		"$work/report" "$1" "$2"
}

leaks json profile=1 "$program" 100000 leak
check "one among many: the status" is $status 0
check "one among many: what cannot be reached" is "$(sums objects) $(sums held_objects) $(sums inexact)" "1 0 0"
check "one among many: what lives" test "$(sums live_objects)" -gt 100000
check "one among many: its stack" is "$(of_function plant_a_leak objects)" 1
check "one among many: the others'" is "$(of_function main reachable_objects)" 100000

leaks json profile=64k "$program" 100000 leak chain ring
check "a sampled profile: what cannot be reached" is "$(sums objects) $(sums held_objects)" "3 4"

leaks json profile=1 "$program" 1000 leak chain ring
check "a chain, by its first" is "$(of_function plant_a_chain objects) $(of_function plant_a_chain held_objects)" "1 2"
check "a ring, by one of it" is "$(of_function plant_a_ring objects) $(of_function plant_a_ring held_objects)" "1 2"
check "files are told of with build ids" python3 -c '
import json, sys
files = json.load(open(sys.argv[1]))["files"]
own = [f for f in files if f["path"].endswith("/leaky")]
assert len(own) == 1 and int(own[0]["from"], 16) < int(own[0]["to"], 16), own
assert any(len(f["build_id"]) == 40 for f in files)' "$work/report"

# The command names what the library cannot: functions that are not exported, and lines.
cp "$work/report" "$work/leaks.json"
printf 'the program said so\n' | cat - "$work/leaks.json" >"$work/mixed.json"
for file in leaks mixed; do
	quarry leaks "$work/$file.json"
	check "quarry leaks $file: status" is $status 0
	check "quarry leaks $file: silent" silent err
	check "quarry leaks $file: how many" says out "3 objects, 96 B, cannot be reached, with 4 behind, 128 B; of "
	check "quarry leaks $file: a function that is not exported" grep -qE '^    #0 make_node' "$work/out"
	check "quarry leaks $file: its caller" grep -qE '^    #[0-9]+ plant_a_ring' "$work/out"
done
if grep -q 'leaky\.c:' "$work/out"; then
	check "quarry leaks: lines" grep -qE '^    #0 make_node .*leaky\.c:[0-9]+$' "$work/out"
else
	echo "SKIP: the command was built without libdw: no lines"
fi
check "quarry leaks: not what can be reached" is "$(grep -c 'nothing that leaked' "$work/out")" 0
quarry leaks --all "$work/leaks.json"
check "quarry leaks --all" says out "nothing that leaked"
check "quarry leaks --all: how many" says out "; 1000 more can be reached"
quarry leaks --json "$work/leaks.json"
check "quarry leaks --json" python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert (r["objects"], r["held_objects"], len(r["leaks"])) == (3, 4, 3), r
assert all(l["stack"][0]["function"] == "make_node" for l in r["leaks"])' "$work/out"
quarry leaks --check "$work/leaks.json"
check "quarry leaks --check: the status" is $status 1
check "quarry leaks --check: a line" is "$(wc -l <"$work/err")" 1
quarry leaks - <"$work/leaks.json"
check "quarry leaks -: nothing on standard input" one_line_error 1 "standard input: no report"
for bad in '' '{}' '{"quarry_leaks":1,' '{"quarry_leaks":1,"leaks":[{"objects":-1}]}' \
	'{"quarry_leaks":1,"leaks":[{"stack":["0xzz"]}],"files":[]}' '{"quarry_leaks":1,"files":[{"from":7}]}' \
	'{"quarry_leaks":2,"leaks":[]}'; do
	printf '%s' "$bad" >"$work/bad"
	quarry leaks "$work/bad"
	check "quarry leaks of '$bad'" one_line_error 1 "$work/bad: "
done
quarry leaks "$work/nowhere"
check "quarry leaks of nothing" one_line_error 1 "nowhere"
# Its own rules go by the names that it tells: make_node is static. What the process had suppressed stays so.
rules() { # rules LINE…: what --check says of leaks.json with them
	printf '%s\n' "$@" >"$work/rules"
	quarry leaks --check --suppressions "$work/rules" "$work/leaks.json"
}
rules '# none' 'leak:no_such_function' 'leak:^ake_node' 'leak:make_nod$'
check "quarry leaks --suppressions: no rule that matches" is $status 1
rules 'leak:^make_node$'
check "quarry leaks --suppressions: a function that is not exported" is "$status $(wc -c <"$work/err")" "0 0"
check "quarry leaks --suppressions: how many" says out "7 of those are suppressed, 224 B"
check "quarry leaks --suppressions: not where" bash -c "! grep -q make_node '$work/out'"
rules 'leak:plant_a_r*g' 'leak:plant_a_chain'
check "quarry leaks --suppressions: what is left" is "$status $(grep -c 'cannot be reached' "$work/out")" "1 2"
check "quarry leaks --suppressions: where that is" grep -qE '^    #[0-9]+ plant_a_leak' "$work/out"
rules 'leak:/leaky$'
check "quarry leaks --suppressions: a loaded file" is $status 0
quarry leaks --all --suppressions="$work/rules" "$work/leaks.json"
check "quarry leaks --suppressions --all: by which rule" says out "; suppressed by /leaky$"
quarry leaks --json --suppressions="$work/rules" "$work/leaks.json"
check "quarry leaks --suppressions --json" python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert (r["objects"], r["suppressed_objects"], r["leaks"]) == (3, 7, []), r' "$work/out"
rules 'leak:fine' 'lake:wrong'
check "quarry leaks --suppressions: a wrong line" one_line_error 2 "$work/rules: line 2 is not leak:PATTERN"
printf 'leak:fine\nleak:a\0b\n' >"$work/rules"
quarry leaks --suppressions "$work/rules" "$work/leaks.json"
check "quarry leaks --suppressions: a line with a byte 0" one_line_error 1 "$work/rules: line 2 is not leak:PATTERN"
printf 'leak:%s\n' "$(printf 'a*%.0s' {1..2000})" >"$work/rules"
timeout 20 "$quarry" leaks --suppressions "$work/rules" "$work/leaks.json" >/dev/null
check "quarry leaks --suppressions: many stars" is $? 0
quarry leaks --suppressions "$work/nowhere" "$work/leaks.json"
check "quarry leaks --suppressions: no file" one_line_error 1 "$work/nowhere: No such file"
quarry leaks "$work/leaks.json" --suppressions
check "quarry leaks --suppressions without one" one_line_error 2 "needs a FILE"
quarry leaks --suppressions a --suppressions b "$work/leaks.json"
check "quarry leaks --suppressions twice" one_line_error 2 "one file of --suppressions"
quarry leaks --suppressions - -
check "quarry leaks --suppressions: standard input twice" one_line_error 2 "may be -"
quarry leaks --what "$work/bad"
check "quarry leaks with an unknown option" one_line_error 2 "'--what'"
quarry leaks
check "quarry leaks without a file" one_line_error 2 "no FILE"
quarry leaks a b
check "quarry leaks of two" one_line_error 2 "one FILE"
leaks json profile=1 "$program" 1000
cp "$work/report" "$work/none.json"
quarry leaks --check "$work/none.json"
check "quarry leaks --check where there are none" is $status 0

# Each process under `quarry run` writes its own report: all of them count, the first that has no leak too.
quarry run --library "$library" --leaks=json --options profile=1 bash -c '"$0" 1000; "$0" 10 leak; echo; "$0" 10 chain >&2' "$program"
(cat "$work/err"; printf 'no end of the line') >"$work/several.json"
(cat "$work/none.json"; printf 'what a program said'; cat "$work/leaks.json") >"$work/two.json"
processes=$(grep -c quarry_leaks "$work/several.json")
check "several processes: they report" test "$processes" -ge 3
quarry leaks --check "$work/several.json"
check "several processes: --check counts all" is $status 1
check "several processes: a line for each, and one for all" is "$(grep -cE '^(process [0-9]+|[0-9]+ processes):$' "$work/out")" $((processes + 1))
check "several processes: those of the second" grep -qE '^    #[0-9]+ plant_a_leak' "$work/out"
check "several processes: those of the last" grep -qE '^    #[0-9]+ plant_a_chain' "$work/out"
check "several processes: all of them" is "$(grep -A 1 "^$processes processes:" "$work/out" | grep -c '^2 objects, .* cannot be reached, with 2 behind')" 1
quarry leaks --json "$work/several.json"
check "several processes: as JSON" python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert (r["objects"], r["held_objects"], len(r["leaks"]), len(r["processes"])) == (2, 2, 2, int(sys.argv[2])), r
assert r["leaks"][0]["pid"] != r["leaks"][1]["pid"], r' "$work/out" "$processes"
quarry leaks --check "$work/two.json"
check "a report that begins where another line has no end counts" is $status 1
head -c -9 "$work/two.json" >"$work/cut.json"
quarry leaks --check "$work/cut.json"
check "a second report that is cut" one_line_error 2 "of report 2: "

# (Without programs to take names from, which take longer than all else.)
sed 's|"path":"[^"]*"|"path":"/none"|' "$work/two.json" >"$work/seed.json"
check "mutations of reports" "$build/tests/fuzz/fuzz_flame" 1500 "$work/seed.json"

# What a report has from a program is nothing that a terminal obeys.
cat >"$work/hostile.json" <<'EOF'
{"quarry_leaks":1,"pid":7,"leaks":[
 {"objects":2,"bytes":9,"suppressed":"\u001b]0;rule\u0007","arena":"\u001b[31mred\u009b2J\u202e\r","examples":["0x1b"],
  "stack":["0x1010","0x5000"]}],
 "files":[{"from":"0x1000","to":"0x2000","offset":0,"path":"/x/\u001b[2Jfile\n","build_id":"\u001b"}]}
EOF
quarry leaks --all "$work/hostile.json"
check "hostile names: the status" is $status 0
check "hostile names: what is told" says out "in arena ?[31mred?2J??: 0x1b"
check "hostile names: a rule" says out "suppressed by ?]0;rule?"
check "hostile names: a file" says out "+0x10 (?[2Jfile?)"
check "hostile names: nothing that a terminal obeys" is "$(LC_ALL=C grep -cP '[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xae' "$work/out")" 0
printf '{"quarry_leaks":1,"\\u001b[2J":1,"pid":-}' >"$work/bad"
quarry leaks "$work/bad"
check "a hostile key: one line" one_line_error 1 "line 1 of report 1: "
printf '{"quarry_leaks":1,"\\u001b[2J":x}' >"$work/bad"
quarry leaks "$work/bad"
check "a hostile key: nothing that a terminal obeys" says err "report 1: ?[2J: not a value"

leaks text profile=1 "$program" 1000 leak chain
check "text says how many" says report "quarry leaks: 2 objects, "
check "text says where" grep -qE '^    #[0-9]+ plant_a_leak$' "$work/report"
check "text says what hangs on it" says report "and 2 objects, "

leaks text profile=0 "$program" 1000 leak
check "without a profile: found" says report "quarry leaks: 1 object, "
check "without a profile: what would tell where" says report "profile=1 knows"

printf '# known\nleak:plant_a_l*k$\n' >"$work/rules"
QUARRY_SUPPRESSIONS=$work/rules leaks text profile=1 "$program" 1000 leak chain
check "suppressed: told of as such" says report "suppressed among those: 1 object"
check "suppressed: not where" bash -c "! grep -q plant_a_leak '$work/report'"
check "not suppressed: where" says report plant_a_chain
QUARRY_SUPPRESSIONS=$work/rules leaks json profile=1 "$program" 1000 leak
check "suppressed: by which rule" python3 -c '
import json, sys
assert [l.get("suppressed") for l in json.load(open(sys.argv[1]))["leaks"] if l["objects"]] == ["plant_a_l*k$"]' "$work/report"
printf 'leak:fine\nno rule\n' >"$work/rules"
QUARRY_SUPPRESSIONS=$work/rules leaks text profile=1 "$program" 10
check "a wrong rule is named, its file and its line" says report \
	"quarry leaks: QUARRY_SUPPRESSIONS: '$work/rules': line 2 is not leak:PATTERN: none of its rules count"
QUARRY_SUPPRESSIONS=$work/nowhere leaks text profile=1 "$program" 10 leak
check "rules that are not there: their file is named" says report \
	"quarry leaks: QUARRY_SUPPRESSIONS: '$work/nowhere': No such file or directory: none of its rules count"
check "rules that are not there: what leaked is told all the same" grep -qE '^    #[0-9]+ plant_a_leak$' "$work/report"
check "rules that are not there: how much, too" says report "quarry leaks: 1 object, "
QUARRY_SUPPRESSIONS=$work/nowhere leaks json profile=1 "$program" 10 leak
check "rules that are not there: as JSON" is "$(sums objects) $(sums suppressions_error)" \
	"1 QUARRY_SUPPRESSIONS: '$work/nowhere': No such file or directory: none of its rules count"
quarry leaks "$work/report"
check "rules that were not there: quarry leaks says so" says out "'$work/nowhere': No such file or directory"
QUARRY_SUPPRESSIONS=$work leaks text profile=1 "$program" 10
check "rules that are a folder" says report "QUARRY_SUPPRESSIONS: '$work': Is a directory"

quarry run --leaks=xml "$program"
check "run --leaks with a wrong format" one_line_error 2 "--leaks: 'xml' is not text or json"

# Programs that free what they had, or keep it in sight.
clean() { # clean PROGRAM ARGUMENT…
	local name
	if ! name=$(command -v "$1"); then
		echo "SKIP: $1 is not there"
		return
	fi
	shift
	leaks json profile=1,reclaim=series "$name" "$@"
	check "$name leaks nothing" is "$(sums objects)" 0
	check "$name: what lives" test "$(sums live_objects)" -gt 5
}
clean ls /
clean bash -c 'declare -A m; m[a]=b'
clean git --version
clean /usr/bin/python3 -c 'import json, re, decimal'

echo "leaks: $checks checks, $failures failed"
[[ $failures -eq 0 ]]
