#!/bin/bash
# SPDX-License-Identifier: MIT
# The command `quarry` and the manual: what each command says and answers, that errors are one line and a status,
# that `run` runs what it should on what it should, that `doctor` reports whatever is taken away from it, and that the
# manual has every function and option and no warnings, and the README every option.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/command.sh
# QUARRY: another command than the build's. QUARRY_SO: another library.
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
library=${QUARRY_SO:-$build/.libs/libquarry-malloc.so}
if [[ ! -x $quarry ]]; then
	echo "command.sh: $quarry is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-command.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

. "$src/tests/checks.sh"
not_checked() {
	echo "not checked: $*"
}
run_with() { # run_with VARIABLE=VALUE... -- ARGUMENT...
	local env=()
	while [[ $1 != -- ]]; do
		env+=("$1")
		shift
	done
	shift
	env "${env[@]}" "$quarry" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}

json_reader=
if command -v python3 >/dev/null; then
	json_reader=python3
elif command -v jq >/dev/null; then
	json_reader=jq
fi
is_json() { # is_json FILE: one JSON value and nothing else
	case $json_reader in
	python3) python3 -c 'import json,sys; json.load(open(sys.argv[1]))' "$1" ;;
	jq) jq -e . "$1" >/dev/null ;;
	*) not_checked "JSON: neither python3 nor jq is here" ;;
	esac
}

# ---- help and errors ------------------------------------------------------------------------------------------
for arguments in --help -h help "help run" "help doctor" "help map" "help diff" "help flame" "help top" "help metrics" "help help" \
	"help version" "run --help" "run -h" "doctor --help" "map --help" "map -h" "diff --help" "flame --help" "top --help" "metrics --help" \
	"help --help" "version --help"; do
	# shellcheck disable=SC2086 # words are meant
	quarry $arguments
	check "quarry $arguments" is $status 0
	check "quarry $arguments prints help" says out usage:
	check "quarry $arguments: nothing on standard error" silent err
	check "quarry $arguments: 80 columns" is "$(grep -cE '.{81}' "$work/out")" 0
done
for arguments in version --version; do
	quarry $arguments
	check "quarry $arguments" grep -qE '^quarry [0-9]+\.[0-9]+\.[0-9]+$' "$work/out"
done

quarry
check "no command" one_line_error 2 "no command"
quarry frobnicate
check "wrong command" one_line_error 2 "'frobnicate'"
quarry run $'\e[31mno\nsuch'
check "names with control characters" one_line_error 127 "?[31mno?such"
quarry help frobnicate
check "help of a wrong command" one_line_error 2 "'frobnicate'"
quarry help run doctor
check "help of two things" one_line_error 2 "help"
quarry version now
check "version with an argument" one_line_error 2 "'now'"
quarry doctor --jsno
check "doctor with a wrong argument" one_line_error 2 "'--jsno'"
quarry run
check "run without a program" one_line_error 2 "no program"
quarry run --stats
check "run --stats without a program" one_line_error 2 "no program"
quarry run --fast true
check "run with a wrong option" one_line_error 2 "'--fast'"
quarry run --stats=xml true
check "run --stats with a wrong format" one_line_error 2 "'xml' is not text, summary, off or json"
quarry run --leaks=summary true
check "run --leaks with a wrong format" one_line_error 2 "'summary' is not text or json"
quarry run --profile= true
check "run --profile without a file" one_line_error 2 "--profile= needs a value"
quarry run --options
check "run --options without a list" one_line_error 2 "--options needs a value"
quarry run --options decay=5 touch "$work/marker"
check "a wrong option name" one_line_error 2 "unknown option 'decay', did you mean 'decay_ms'?"
quarry run --options=decay_ms=soon touch "$work/marker"
check "a wrong option value" one_line_error 2 "option 'decay_ms': 'soon' is not a number from -1 to 3600000"
check "the program was not run" test ! -e "$work/marker"
if [[ -w /dev/full ]]; then
	for arguments in help "help options" version doctor map "map --json" "map --svg -"; do
		# shellcheck disable=SC2086
		"$quarry" $arguments >/dev/full 2>"$work/err"
		status=$?
		: >"$work/out"
		check "quarry $arguments to a full disk" one_line_error 1 "standard output"
	done
fi

# ---- run ------------------------------------------------------------------------------------------------------
have_library=no
if [[ -e $library ]]; then
	have_library=yes
else
	# A sanitizer's build has no library to preload. What `run` does around it is the same with any.
	library=$work/libquarry-malloc.so
	echo 'int quarry_command_test;' | "${CC:-cc}" -shared -fPIC -x c - -o "$library" || exit 99
fi
library=$(realpath "$library")

run=(run --library "$library")
# shellcheck disable=SC2016 # the child's variables
show='echo "options=$QUARRY_OPTIONS"; echo "preload=$LD_PRELOAD"'
quarry "${run[@]}" sh -c "$show"
check "run" is $status 0
check "LD_PRELOAD" says out "preload=$library"
check "no options but for the summary" says out "options=stats_at_exit=summary"
quarry "${run[@]}" --options junk=1,decay_ms=5 --stats=json sh -c "$show"
check "options" says out "options=junk=1,decay_ms=5,stats_at_exit=json"
run_with QUARRY_OPTIONS=strict=1 LD_PRELOAD="$library" -- "${run[@]}" --options strict=0 sh -c "$show"
check "options after those of the environment" says out "options=strict=1,strict=0"
check "what was preloaded stays" says out "preload=$library:$library"
# Nothing but pages of a pool, which is empty on most machines.
empty="the pool of 2m pages of node "
if [ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null)" = 0 ]; then
	run_with QUARRY_OPTIONS=pages=2m,strict=1 -- "${run[@]}" true
	check "strict, and an empty pool" grep -qF "$empty" "$work/err"
	check "strict, and an empty pool: one line" is "$(grep -c '^quarry: ' "$work/err")" 1
	quarry run --library "$library" --options pages=2m,strict=on true
	check "strict by --options, and an empty pool" grep -qF "$empty" "$work/err"
	run_with QUARRY_OPTIONS=pages=2m,strict=1 -- "${run[@]}" --stats=off --options strict=0 true
	check "not strict after all: nothing is told" is "$(wc -c <"$work/err")" 0
else
	not_checked "strict, and an empty pool: there is none, or it has pages"
fi
run_with QUARRY_OPTIONS=srtict=1 -- "${run[@]}" touch "$work/marker"
check "a wrong option in the environment" grep -qF "did you mean 'strict'?" "$work/err"
check "a wrong option in the environment: status" is $status 2
check "a wrong option in the environment is told once" is "$(wc -l <"$work/err")" 1
check "the program was not run" test ! -e "$work/marker"
quarry "${run[@]}" sh -c 'exit 42'
check "the program's status" is $status 42
quarry "${run[@]}" printf '<%s>' 'a b' --stats -- ''
check "the program's arguments" is "$(cat "$work/out")" "<a b><--stats><--><>"
quarry "${run[@]}" -- printf '%s' done
check "run --" is "$(cat "$work/out")" "done"
quarry "${run[@]}" "$work/none"
check "no such program" one_line_error 127 "No such file"
quarry "${run[@]}" quarry-no-such-program
check "no such program in PATH" one_line_error 127 "quarry-no-such-program"
: >"$work/plain"
quarry "${run[@]}" "$work/plain"
check "a file that is no program" one_line_error 126 "Permission denied"
quarry run --library "$work/none.so" true
check "no such library" one_line_error 126 "none.so"
quarry run --library "$work/plain" true
check "a library that is none" one_line_error 126 "no library"
quarry run --library /proc/self/cmdline true
check "a library that is something else" one_line_error 126 "no library"
mkdir "$work/a b"
cp "$library" "$work/a b/"
quarry run --library "$work/a b/${library##*/}" true
check "a library that cannot be preloaded" one_line_error 126 "space or a colon"

if echo 'int main(void) { return 7; }' | "${CC:-cc}" -static -x c - -o "$work/static" 2>/dev/null; then
	quarry "${run[@]}" "$work/static"
	check "a static program runs" is $status 7
	check "a static program is told of" says err "statically linked"
else
	not_checked "a static program: cannot be linked here"
fi
if [[ $(id -u) == 0 ]] && cp /bin/true "$work/setuid" && chown 65534 "$work/setuid" && chmod 4755 "$work/setuid"; then
	quarry "${run[@]}" "$work/setuid"
	check "a set-user-id program is told of" says err "changes its user"
fi

if [[ $have_library == yes ]]; then
	quarry run cat /proc/self/maps
	check "the build's library is found and preloaded" says out "$library"
	# A program of our own: true(1) allocates nothing, sh(1) leaves by _exit, and sort(1) closes standard error.
	printf '%s\n' '#include <stdlib.h>' 'int main(int c, char **v) { void *volatile p = malloc(c); free(p); return !v; }' \
		>"$work/hello.c"
	"${CC:-cc}" -o "$work/hello" "$work/hello.c" || exit 99
	quarry run "$work/hello"
	check "a summary" grep -Eq '^quarry [0-9.]*: hello \([0-9]+\): .* mapped at most' "$work/err"
	check "which has page kinds" says err "  pages      base 2.0 MiB"
	quarry run bash -c "'$work/hello'; '$work/hello'; true"
	check "a summary is of one process" is "$(grep -c 'mapped at most' "$work/err")" 1
	check "the one that was run" says err ": bash ("
	quarry run --stats=off "$work/hello"
	check "no summary" silent err
	quarry run --options stats_at_exit=off "$work/hello"
	check "no summary by an option" silent err
	QUARRY_OPTIONS=stats_at_exit=json quarry run "$work/hello"
	check "the environment's option instead of a summary" is_json "$work/err"
	(cd "$work" && quarry run --stats=off --profile=%p.%n.heap --view "$work/hello")
	check "a profile in a file" grep -q '^heap profile:' "$work"/*.1.heap
	check "a view in a file" is "$(head -c 8 "$work"/quarry.*.view)" QuarryVw
	check "nothing is left unfinished" is "$(find "$work" -name '*.part' | wc -l)" 0
	# (Not by a rename: what is there is no plain file.)
	ln -s "$work/linked" "$work/link" && : >"$work/linked"
	quarry run --stats=off --view="$work/link" "$work/hello"
	check "a link stays one" test -L "$work/link" -a -s "$work/linked"
	mkfifo "$work/fifo"
	quarry run --stats=off --view="$work/fifo" "$work/hello"
	check "a pipe that nobody reads" is "$status,$(<"$work/err")" "0,quarry: QUARRY_VIEW: $work/fifo: No such device or address"
	mkdir "$work/100%new"
	(cd "$work/100%new" && quarry run --stats=off --view=a.%%.view "$work/hello")
	check "signs of a folder's name mean nothing" test -s "$work/100%new/a.%.view"
	QUARRY_VIEW=$work/kept.view LD_PRELOAD=$library "$work/hello"
	cp "$work/kept.view" "$work/copy"
	QUARRY_VIEW=$work/kept.view quarry map "$work/kept.view"
	check "the command does not write over what it reads" cmp "$work/kept.view" "$work/copy"
	python3 -c 'import os, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
sys.exit(subprocess.call(sys.argv[1:], stderr=writer))' "$quarry" run --library "$library" "$work/hello"
	check "a summary that nobody reads is no end by a signal" is $? 0
	# The process has closed all, and opened something of its own where the copy of standard error was.
	printf '%s\n' '#include <fcntl.h>' '#include <stdlib.h>' '#include <unistd.h>' 'int main(int c, char **v) {' \
		'for (int i = 3; i < 1000; i++) close(i);' 'int fd = open(v[1], O_WRONLY | O_CREAT, 0600);' \
		'return dup2(fd, 200) < 0 || dup2(fd, 2) < 0 || !malloc(c); }' >"$work/closes.c"
	"${CC:-cc}" -w -o "$work/closes" "$work/closes.c" || exit 99
	quarry run --stats "$work/closes" "$work/database"
	check "nothing is written into what a program opened" is "$status,$(stat -c %s "$work/database")" 0,0
	quarry run --stats=off --options report_signal=urg "$work/hello"
	check "one signal for two" is "$(<"$work/err")" "quarry: report_signal: it is reclaim_signal, too: Device or resource busy"
	QUARRY_VIEW=$work/none/view quarry run --stats=off "$work/hello"
	check "a view that cannot be written" is "$(<"$work/err")" "quarry: QUARRY_VIEW: $work/none/view: No such file or directory"
	QUARRY_PROFILE=$work/unasked quarry run --stats=off "$work/hello"
	check "a profile that was not kept" says err "quarry: QUARRY_PROFILE: $work/unasked: no profile was kept: set the option profile"
	quarry run --stats "$work/hello"
	check "statistics as text" grep -q '^quarry [0-9.]*: [0-9]* arena' "$work/err"
	quarry run --stats=json "$work/hello"
	check "statistics as JSON" is_json "$work/err"
	check "statistics as JSON: figures" says err '"mapped":'
	QUARRY_OPTIONS=decay=5,junk=1 LD_PRELOAD=$library "$work/hello" 2>"$work/err"
	check "a wrong option in a program's environment is one line" is "$(wc -l <"$work/err")" 1
	check "which names it" says err "quarry: QUARRY_OPTIONS: unknown option 'decay', did you mean 'decay_ms'?"
	QUARRY_OPTIONS=decay_ms=5,junk=1 LD_PRELOAD=$library "$work/hello" 2>"$work/err"
	check "right ones are silent" silent err
	if "${CC:-cc}" -static -o "$work/hello-static" "$work/hello.c" "${library%/*}/libquarry-malloc.a" -pthread 2>/dev/null; then
		QUARRY_OPTIONS=stats_at_exit=text,profile=1 QUARRY_PROFILE=$work/static.heap "$work/hello-static" 2>"$work/err"
		check "a static program tells of itself at its end" grep -q '^quarry [0-9.]*: [0-9]* arena' "$work/err"
		check "and of its profile" test -s "$work/static.heap"
	else
		not_checked "a static program on the library: cannot be linked here"
	fi
else
	not_checked "programs on the library: it is not built here"
fi

# ---- doctor ---------------------------------------------------------------------------------------------------
doctor_is_whole() { # each lack has its cost and its fix; and the summary counts right
	awk '
	/^(ok|LACK|\?) / { if (open) exit_with = 1; open = 0; all++ }
	/^LACK / { open = 2; lacks++ }
	/^        (costs:|fix:  ) [^ ]/ { if (open) open-- }
	/^[0-9]+ of [0-9]+ lacking/ { summary = $1 == lacks + 0 && $3 == all }
	END { exit !(all > 10 && summary && !open && !exit_with) }' "$work/out"
}
lacks() { grep -qE "^LACK +$1( |\$)" "$work/out"; }

quarry doctor
check "doctor" is $status 0
check "doctor says nothing else" silent err
check "doctor: lacks have costs and fixes" doctor_is_whole
sed -nE 's/^(ok|LACK|\?) +([a-z0-9-]+).*/\2/p' "$work/out" >"$work/names"
quarry doctor --json
check "doctor --json" is $status 0
check "doctor --json is JSON" is_json "$work/out"
# shellcheck disable=SC2016
check "the same checks in both" cmp -s "$work/names" <(sed -nE 's/^\{"name":"([a-z0-9-]+)".*/\1/p' "$work/out")

(
	ulimit -v 900000 && "$quarry" doctor >"$work/out" 2>"$work/err"
)
check "doctor under ulimit -v: address-space" lacks address-space
check "doctor under ulimit -v: reserve" lacks reserve
check "doctor under ulimit -v: costs and fixes" doctor_is_whole
(
	ulimit -l 64 && [[ $(id -u) != 0 ]] && "$quarry" doctor >"$work/out" 2>"$work/err" && lacks locked-memory
) || [[ $(id -u) == 0 ]]
check "doctor under ulimit -l" is $? 0

# Without /sys and /proc, and without rights: it still reports, and takes no silence for an answer.
hidden='mount -t tmpfs none /sys && mount -t tmpfs none /proc || exit 77; '
if unshare -m sh -c "$hidden" 2>/dev/null; then
	unshare -m sh -c "$hidden exec \"\$0\" doctor" "$quarry" >"$work/out" 2>"$work/err"
	check "doctor without /sys and /proc" is $? 0
	check "doctor without /sys and /proc says what it cannot tell" grep -q '^?  *nodes ' "$work/out"
	check "doctor without /sys and /proc: overcommit" grep -q '^?  *overcommit ' "$work/out"
	check "doctor without /sys and /proc: costs and fixes" doctor_is_whole
else
	not_checked "doctor without /sys and /proc: no mount namespace here"
fi
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null &&
	setpriv --reuid 65534 --regid 65534 --clear-groups "$quarry" version >/dev/null 2>&1; then
	setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all "$quarry" doctor >"$work/out" 2>"$work/err"
	check "doctor without rights" is $? 0
	check "doctor without rights: costs and fixes" doctor_is_whole
else
	not_checked "doctor without rights: not root, or the build is closed to others"
fi

# ---- map ------------------------------------------------------------------------------------------------------
is_xml() {
	if command -v xmllint >/dev/null; then
		xmllint --nonet --noout "$1" 2>>"$work/err"
	elif [[ $json_reader == python3 ]]; then
		python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$1" 2>>"$work/err"
	else
		not_checked "XML: neither xmllint nor python3 is here"
	fi
}
# Columns of a terminal: bytes less those that continue a character.
columns_within() { [[ -z $(LC_ALL=C.UTF-8 grep -aE ".{$(($1 + 1))}" "$2") ]]; }
lacks_text() { ! grep -qF -e "$2" "$work/$1"; } # lacks_text out|err TEXT

quarry map
check "map of this machine" is $status 0
check "map: nothing on standard error" silent err
check "map: the first node" says out " node "
check "map: 80 columns" columns_within 80 "$work/out"
check "map: ASCII in the locale C" is "$(LC_ALL=C grep -caP '[^\x00-\x7f]' "$work/out")" 0
check "map: no colours in a file" is "$(grep -c $'\033' "$work/out")" 0
quarry map --utf8
check "map --utf8: 80 columns" columns_within 80 "$work/out"
check "map --utf8 draws boxes" says out "┌─"
quarry map --json
check "map --json is JSON" is_json "$work/out"
quarry map --svg -
check "map --svg is XML" is_xml "$work/out"
quarry map --svg "$work/machine.svg"
check "map --svg FILE" is_xml "$work/machine.svg"
check "map --svg FILE: nothing on standard output" silent out

quarry map --jsno
check "map with a wrong argument" one_line_error 2 "'--jsno'"
quarry map a b
check "map of two things" one_line_error 2 "one FILE or PID"
quarry map --svg
check "map --svg without a file" one_line_error 2 "--svg needs a FILE"
quarry map --json --svg x
check "map --json --svg" one_line_error 2 "not both"
quarry map --ascii --utf8
check "map --ascii --utf8" one_line_error 2 "not both"
quarry map "$work/none"
check "map of no file" one_line_error 1 "No such file"
quarry map "$work"
check "map of a folder" one_line_error 1 "Is a directory"
quarry map 4194305
check "map of no process" one_line_error 1 "No such process"
quarry map 99999999999999999999999
check "map of a number that is no process" one_line_error 1 "No such process"
quarry map --svg "$work/none/x.svg"
check "map into no folder" one_line_error 1 "No such file"

# A dump with all there is to draw. The numbers are made so that each is the only one of its kind.
cat >"$work/dump" <<'END'
{"quarry":"0.1.0","version":2,"process":{"pid":4711,"name":"a<b>&\"c\u001b[31m"},
"nodes":[
{"id":3,"index":-1,"has_cpus":1,"has_memory":1,"allowed":0,"cpus":"4-7","memory_total":2147483648,"memory_free":1073741824,
"huge_free_2m":1,"huge_total_2m":0,"huge_free_1g":0,"huge_total_1g":0,"distance":[10,32,17]},
{"id":0,"index":0,"has_cpus":1,"has_memory":1,"allowed":1,"cpus":"0-3","memory_total":4294967296,"memory_free":3221225472,
"huge_free_2m":11,"huge_total_2m":64,"huge_free_1g":1,"huge_total_1g":2,"distance":[33,10,18]},
{"id":65,"index":1,"has_cpus":0,"has_memory":1,"allowed":1,"cpus":"","memory_total":8589934592,"memory_free":8589930000,
"huge_free_2m":0,"huge_total_2m":0,"huge_free_1g":0,"huge_total_1g":0,"distance":[34,19,10]}],
"total":{"name":"","node":-1,"metadata":1},
"refused":{"mbind-eperm":0,"huge-2m":21},
"arenas_not_listed":5,
"arenas":[
{"name":"node 0","node":0,"mapped":111149056,"resident":40960,"in_use":30015488,"cached":4001792,"free_dirty":5005312,
"free_clean":72126464,"policy":"preferred","kind":"auto","nodes":[0],"on_nodes":[{"node":0,"bytes":35000320,
"by_kind":{"auto":0,"base":2199552,"thp":32800768,"2m":0,"1g":0},"strayed":0},{"node":65,"bytes":7000064,
"by_kind":{"auto":0,"base":7000064,"thp":0,"2m":0,"1g":0},"strayed":6000640}]},
{"name":"<script>&\"\u001b]0;x\u0007\u202e caf\u00e9 \ud83d\ude00","node":-1,"mapped":222298112,"in_use":1,"cached":2,"free_dirty":3,
"free_clean":4,"unplaced":12345344,"placed_less":23455744,"kind_wanted":{"auto":0,"base":0,"thp":0,"2m":222298112,"1g":0},
"kind_got":{"auto":0,"base":0,"thp":222298112,"2m":0,"1g":0},"policy":"weighted-interleave","kind":"2m",
"nodes":[65,0,3],"on_nodes":[{"node":7,"bytes":8192,"by_kind":{"auto":0,"base":8192,"thp":0,"2m":0,"1g":0},"strayed":0},
{"node":-2,"bytes":12288,"by_kind":{"auto":12288,"base":0,"thp":0,"2m":0,"1g":0},"strayed":0}]},
{"name":"","node":-1,"mapped":0,"on_nodes":[]}]}
END
quarry map "$work/dump"
check "map of a dump" is $status 0
check "map of a dump: nothing on standard error" silent err
check "map of a dump: 80 columns" columns_within 80 "$work/out"
check "map of a dump: no control characters" is "$(tr -d '\n' <"$work/out" | LC_ALL=C grep -caP '[\x00-\x1f\x7f]')" 0
for text in "4711" "quarry 0.1.0" "40.1 MiB" "node 0" "node 3" "node 7" "node 65" "no CPUs" "closed by the cpuset" \
	"not told where" "1.0G used of 2.0G" "53 used of 64" "1 used of 2" "33M  thp 31M base 2.0M" "!5.7M" "  106M   40M   28M  3.8M  4.7M   68M" \
	"weighted" "0,3,65" "and 1 empty one" "and 5 that the dump does not list" "huge-2m 21" "5.7M on other nodes" \
	"asked for 2m pages, got thp 212M" "11M the kernel refused to place" "22M by" "untold 12K"; do
	check "map of a dump says '$text'" says out "$text"
done
check "map of a dump: distances in the order of the ids" grep -qE '^ +0 +10 +33 +. +18$' "$work/out"
check "map of a dump: distances in the order of the ids" grep -qE '^ +3 +32 +10 +. +17$' "$work/out"
quarry map --utf8 "$work/dump"
check "map --utf8 of a dump: 80 columns" columns_within 80 "$work/out"
check "map --utf8 of a dump: nothing that turns the line" lacks_text out $'\u202e'
quarry map --svg - "$work/dump"
check "map --svg of a dump" is $status 0
check "map --svg of a dump is XML" is_xml "$work/out"
check "map --svg of a dump: no control characters" is "$(tr -d '\n' <"$work/out" | LC_ALL=C grep -caP '[\x00-\x1f\x7f]')" 0
check "map --svg of a dump: no markup of names" lacks_text out "<script"
check "map --svg of a dump: names" says out "&lt;script&gt;&amp;&quot;"
check "map --svg of a dump: all of a name" says out "café 😀"
for number in 35000320 7000064 6000640 8192 12288 111149056 222298112 30015488 4001792 5005312 72126464 2199552 32800768; do
	check "map --svg of a dump says $number" says out "$number"
done
quarry map --json "$work/dump"
check "map --json of a dump is JSON" is_json "$work/out"
for number in 35000320 7000064 6000640 8192 12288 111149056 222298112 30015488 4001792 5005312 72126464 2199552 32800768 \
	12345344 23455744; do
	check "map --json of a dump says $number" says out ":$number"
done
"$quarry" map --json - <"$work/dump" >"$work/out2" 2>"$work/err"
check "map of standard input" cmp -s "$work/out" "$work/out2"
if script -qec true /dev/null >/dev/null 2>&1; then
	TERM=xterm script -qec "'$quarry' map '$work/dump'" /dev/null </dev/null >"$work/out" 2>"$work/err"
	check "map in colours on a terminal" test "$(grep -c $'\033\\[' "$work/out")" -gt 10
	TERM=xterm NO_COLOR=1 script -qec "'$quarry' map '$work/dump'" /dev/null </dev/null >"$work/out" 2>"$work/err"
	check "map with NO_COLOR" is "$(grep -c $'\033' "$work/out")" 0
else
	not_checked "colours: script(1) is not here"
fi

# Files that are not what they must be: one line that names what is wrong, and where.
refuses() { # refuses TEXT FILE-CONTENTS
	printf '%s' "$2" >"$work/hostile"
	quarry map "$work/hostile"
	check "map of '${2:0:60}'" one_line_error 1 "$1"
}
head='{"quarry":"1","nodes":[{"id":0}],"arenas":['
share='{"name":"a","on_nodes":['
refuses "ends in the middle" ""
refuses "ends in the middle" "{"
refuses "ends in the middle of a string" '{"quarry'
refuses "not an object" "[]"
refuses "no statistics of quarry" "{}"
refuses "no statistics of quarry" '{"quarry":"1"}'
refuses "did not tell of nodes" '{"quarry":"1","version":1,"arenas":[]}'
refuses "several programs" "$head]}{}"
refuses "line 3" '{"quarry":"1",
"x":1,
"nodes":7}'
refuses "no comma" '{"quarry":"1" "x":1}'
refuses "no colon" '{"quarry","1"}'
refuses "control character" $'{"quarry":"\t"}'
refuses "unknown escape" '{"quarry":"\x"}'
refuses "four digits" '{"quarry":"\u12g4"}'
refuses "not UTF-8" $'{"quarry":"\xff"}'
refuses "nested too deep" "$(printf '{"x":%0200d}' 0 | tr 0 '[')"
refuses "whole number" '{"arenas_not_listed":1.5}'
refuses "whole number" '{"arenas_not_listed":18446744073709551616}'
refuses "negative" '{"arenas_not_listed":-1}'
refuses "not a number" '{"arenas_not_listed":"1"}'
refuses "not a number" '{"arenas_not_listed":01}'
refuses "not a value" '{"x":nul}'
refuses "without an id" '{"quarry":"1","nodes":[{}],"arenas":[]}'
refuses "without an id" '{"quarry":"1","nodes":[{"id":1024}],"arenas":[]}'
refuses "two nodes" '{"quarry":"1","nodes":[{"id":1},{"id":1}],"arenas":[]}'
refuses "twice" '{"quarry":"1","nodes":[{"id":1}],"nodes":[{"id":1}],"arenas":[]}'
refuses "as many distances" '{"quarry":"1","nodes":[{"id":1,"distance":[10,20]}],"arenas":[]}'
refuses "without a name" "$head{}]}"
refuses "one node twice" "$head$share"'{"node":0,"bytes":1,"by_kind":{"base":1}},{"node":0,"bytes":1,"by_kind":{"base":1}}]}]}'
refuses "not as many bytes" "$head$share"'{"node":0,"bytes":2,"by_kind":{"base":1}}]}]}'
refuses "more bytes strayed" "$head$share"'{"node":0,"bytes":1,"by_kind":{"base":1},"strayed":2}]}]}'
refuses "cannot be" "$head$share"'{"node":-7,"bytes":1,"by_kind":{"base":1}}]}]}'
refuses "cannot be" "$head"'{"name":"a","nodes":[70000]}]}'
printf '%s' "$head"'{"name":"a","mapped":18446744073709551615,"in_use":18446744073709551615,"cached":18446744073709551615,"on_nodes":[{"node":0,"bytes":18446744073709551615,"by_kind":{"base":18446744073709551615},"strayed":18446744073709551615}]},{"name":"b","on_nodes":[{"node":0,"bytes":18446744073709551615,"by_kind":{"1g":18446744073709551615}}]}]}' >"$work/hostile"
for form in "" --utf8 --json "--svg -"; do
	# shellcheck disable=SC2086
	quarry map $form "$work/hostile"
	check "map $form of the largest numbers" is $status 0
done
check "map --svg of the largest numbers is XML" is_xml "$work/out"

# Dumps that somebody bent: never more than one line and a status, and a picture only where it is whole.
map_seed=${SEED:-$RANDOM}
echo "command.sh: mutated dumps: SEED=$map_seed"
RANDOM=$map_seed
whole=$(wc -c <"$work/dump")
bent=0
mutate() { # a dump in which some bytes are others, are there twice, or are not there
	local at=$((RANDOM * 7 % whole)) n=$((RANDOM % 9)) what=$((RANDOM % 5)) bytes='{}[]",:0-9\eut'
	head -c "$at" "$work/dump"
	case $what in
	0) ;;
	1) printf '%s' "${bytes:RANDOM % ${#bytes}:1}" && tail -c +$((at + 2)) "$work/dump" ;;
	2) tail -c +$((at + 2 + n)) "$work/dump" ;;
	3) tail -c +$((at > n ? at - n : 1)) "$work/dump" ;;
	4) printf "\\x$(printf %x $((RANDOM % 256)))\\x$(printf %x $((RANDOM % 256)))" && tail -c +$((at + 2 + n)) "$work/dump" ;;
	esac
}
for ((i = 0; i < 300; i++)); do
	mutate >"$work/hostile"
	"$quarry" map --svg "$work/bent.svg" "$work/hostile" >"$work/out" 2>"$work/err"
	status=$?
	if [[ $status == 0 && ! -s $work/err ]]; then
		[[ $((i % 10)) != 0 ]] || is_xml "$work/bent.svg" || bent=$((bent + 1))
	elif [[ $status != 1 || $(wc -l <"$work/err") != 1 ]]; then
		bent=$((bent + 1))
		cp "$work/hostile" "$work/bent.$i"
		echo "    mutation $i: status $status"
	fi
done
check "mutated dumps (SEED=$map_seed)" is $bent 0

sleep 60 &
sleeper=$!
if [[ -r /proc/$sleeper/numa_maps ]]; then
	for form in "" --utf8 --json "--svg -"; do
		# shellcheck disable=SC2086
		quarry map $form $sleeper
		check "map $form of a process" is $status 0
	done
	check "map --svg of a process is XML" is_xml "$work/out"
	quarry map $sleeper
	check "map of a process: what it is" says out "sleep ($sleeper)"
	check "map of a process: its files" grep -qE '^\| files .* base ' "$work/out"
	check "map of a process: no window where quarry is not" lacks_text out "quarry's window"
else
	not_checked "map of a process: no /proc/PID/numa_maps here"
fi
kill $sleeper
wait $sleeper 2>/dev/null
if [[ $have_library == yes && -r /proc/self/numa_maps ]]; then
	LD_PRELOAD=$library sleep 60 &
	sleeper=$!
	for ((i = 0; i < 100; i++)); do # until it has started: then its window is there
		grep -q libquarry-malloc "/proc/$sleeper/maps" 2>/dev/null && quarry map $sleeper && says out "quarry's window" && break
		sleep 0.1
	done
	check "map of a process: quarry's window" says out "quarry's window  "
	check "map of a process: of it nothing is anonymous memory" grep -qE "^\| quarry's window .* base " "$work/out"
	kill $sleeper
	wait $sleeper 2>/dev/null
	quarry "${run[@]}" --stats=json "$work/hello"
	cp "$work/err" "$work/real"
	quarry map "$work/real"
	check "map of a real dump" is $status 0
	check "map of a real dump: the program" says out "hello ("
	check "map of a real dump: its arena" grep -qE '^\| node [0-9]+ .* base ' "$work/out"
	quarry map --svg - "$work/real"
	check "map --svg of a real dump is XML" is_xml "$work/out"
else
	not_checked "map of a process on quarry: no library, or no /proc/PID/numa_maps"
fi

# ---- the manual -----------------------------------------------------------------------------------------------
quarry help options
check "help options" is $status 0
check "help options: 80 columns" is "$(grep -cE '.{81}' "$work/out")" 0
# (The C library keeps the first real-time signals for itself: two, or three of musl's.)
check "help options: what a range leaves out" \
	grep -qE '^  reclaim_signal=23   \(23, 28, 3[45] to 64\), at start only$' "$work/out"
check "help options: a range" says out "breaker_at=95   (10 to 100)"
sed -nE 's/^  ([a-z_]+)=([^ ]+) .*/\1 \2/p' "$work/out" >"$work/options"
check "there are options" test "$(wc -l <"$work/options")" -ge 13
while read -r name default; do
	check "quarry(7) has $name and its default" grep -qxF ".BR $name \" = \" $default" "$src/doc/quarry.7"
	check "README.md has $name and its default" grep -q "^| \`$name\` | [^|]* | $default | " "$src/README.md"
done <"$work/options"
headers=("$src"/include/quarry/*.h)
for name in $(sed -nE 's/^QUARRY_API [^(]*[ *](quarry_[a-z0-9_]+)\(.*/\1/p' "${headers[@]}"); do
	check "quarry(7) names $name" grep -qw "$name" "$src/doc/quarry.7"
done
check "quarry(7) has no others" is "$(grep -c '^\.BR [a-z_]* " = "' "$src/doc/quarry.7")" "$(wc -l <"$work/options")"
check "README.md has no others" is "$(sed -n '/^## Options/,/^## The tree/s/^| `[a-z_]*` | .* |$/&/p' "$src/README.md" | wc -l)" \
	"$(wc -l <"$work/options")"

mkdir "$work/man"
made() { # made AWK...: the pages by this awk, as one file
	rm -f "$work"/man/*
	"$@" -v outdir="$work/man" -v version=1.2.3 -f "$src/doc/mkman.awk" "${headers[@]}" && cat "$work"/man/*.3
}
made awk >"$work/all"
awk -v list=1 -f "$src/doc/mkman.awk" "${headers[@]}" | sort >"$work/listed"
check "mkman lists what it makes" cmp -s "$work/listed" <(cd "$work/man" && printf '%s\n' *.3 | sort)
sed -nE 's/^(QUARRY_API|static inline) .*[ *](quarry_[a-z0-9_]+)\(.*/\2.3/p' "${headers[@]}" >"$work/functions"
check "every page is of something of quarry's" is "$(grep -vc '^quarry_' "$work/listed")" 0
check "there are functions" test "$(wc -l <"$work/functions")" -ge 40
while read -r page; do
	check "manual page $page" test -s "$work/man/$page"
done <"$work/functions"
for awk in mawk gawk original-awk "busybox awk"; do
	command -v ${awk%% *} >/dev/null || continue
	# shellcheck disable=SC2086
	check "mkman by $awk makes the same" cmp -s "$work/all" <(made $awk)
done
made awk >/dev/null
# Prototypes stand there as in the header, whatever their parameters are.
flat=$(cat "${headers[@]}" | tr -s '\n\t ' ' ' | sed -E 's/ QUARRY_(MALLOC_LIKE|SIZE[12]\([0-9, ]*\))//g')
while read -r page; do
	prototype=$(sed -nE '/^\.BI "/{ s/^\.BI "//; s/"$//; s/" ([][a-z_0-9]*) "/\1/g; s/\\-/-/g; p }' "$work/man/$page" | tail -1)
	check "manual page $page: the prototype '$prototype'" test -n "$prototype" -a -z "${flat##*"$prototype"*}"
done < <(sed -nE 's/^QUARRY_API .*[ *](quarry_[a-z0-9_]+)\(.*/\1.3/p' "${headers[@]}")
check "manual pages: what leads to an example does not stand without it" is "$(grep -l 'Example:$' "$work"/man/*.3)" ""
if command -v groff >/dev/null; then
	for page in "$work"/man/*.3 "$src/doc/quarry.1" "$src/doc/quarry.7"; do
		[[ $(head -c 3 "$page") == .so ]] && continue
		groff -man -Tutf8 -ww "$page" >"$work/out" 2>"$work/err"
		check "groff has nothing against ${page##*/}" silent err
		check "${page##*/} has its parts" is "$(grep -cE '^\.SH (NAME|SYNOPSIS|DESCRIPTION|SEE ALSO)$' "$page")" 4
	done
else
	not_checked "the manual's format: groff is not here"
fi

echo "command.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
