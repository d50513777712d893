#!/bin/bash
# SPDX-License-Identifier: MIT
# `quarry top` and `quarry metrics`: what they show of a process that publishes (redis-server where there is one, under
# load), as text of 80 columns, as JSON, and as metrics that Prometheus' own parser and promtool read; on a terminal;
# over a socket; and what they say of processes that cannot be looked at, or publish what is not sound.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/top.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
library=${QUARRY_SO:-$build/.libs/libquarry-malloc.so}
if [[ ! -x $quarry || ! -e $library ]]; then
	echo "top.sh: $quarry or $library is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-top.XXXXXX") || exit 99
started=()
end() {
	[[ ${#started[@]} == 0 ]] || kill -9 "${started[@]}" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap end EXIT

quarry_seconds=30
. "$src/tests/checks.sh"
skip() {
	echo "SKIP: $*"
}
is_json_text() { python3 -c 'import json,sys; json.load(open(sys.argv[1]))' "$1" 2>>"$work/err"; }
columns_within() { [[ -z $(grep -aE ".{$(($1 + 1))}" "$2") ]]; }
plain() { ! grep -qaP '[^\x20-\x7e\n]' "$work/$1"; }
until_true() { # until_true COMMAND...: for ten seconds at most
	for ((n = 0; n < 200; n++)); do
		"$@" && return 0
		sleep 0.05
	done
	return 1
}

"${CC:-cc}" -I"$src/include" -o "$work/publisher" "$src/tests/publisher.c" "$library" || exit 99

last=
start() { # start NAME VARIABLES... COMMAND...: its pid in $last, once it is ready; its standard input by $work/NAME
	local name=$1
	shift
	mkfifo "$work/$name"
	(cd "$work" && LD_LIBRARY_PATH=${library%/*} exec "$@") <"$work/$name" >"$work/$name.out" 2>&1 &
	last=$!
	started+=("$last")
	exec {fd}>"$work/$name"
	until_true grep -qs ready "$work/$name.out" || echo "FAILED: $name did not start"
}
publishes() { "$quarry" top "$1" --once >/dev/null 2>&1; }

python=
for candidate in python3 /usr/bin/python3; do
	"$candidate" -c 'import prometheus_client.openmetrics.parser' 2>/dev/null && python=$candidate && break
done
[[ -n $python ]] || skip "Prometheus' parser: no python3-prometheus-client"
# Every family is read, and not one sample lost; then what is asked for is printed.
openmetrics() { # openmetrics FILE [SAMPLE]
	[[ -n $python ]] || return 0
	"$python" - "$@" <<'END' 2>>"$work/err"
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
text = open(sys.argv[1], encoding="utf-8").read()
families = list(parse(text))
samples = [s for f in families for s in f.samples]
assert len(samples) == sum(1 for l in text.split("\n") if l and not l.startswith("#")), "a sample is lost"
assert len(families) > 40 and all(f.documentation for f in families)
assert len(set((s.name, tuple(sorted(s.labels.items()))) for s in samples)) == len(samples), "a series is there twice"
if len(sys.argv) > 2:
	print(next(s.value for s in samples if s.name == sys.argv[2]))
END
}
classic() { # classic FILE
	if [[ -n $python ]]; then
		"$python" -c 'import sys
from prometheus_client.parser import text_string_to_metric_families as parse
assert len(list(parse(open(sys.argv[1], encoding="utf-8").read()))) > 40' "$1" 2>>"$work/err" || return 1
	fi
	! command -v promtool >/dev/null || promtool check metrics <"$1" >>"$work/err" 2>&1
}
command -v promtool >/dev/null || skip "promtool check metrics: no promtool"
is_json() { python3 -c 'import json,sys; [json.loads(l) for l in open(sys.argv[1])]' "$1" 2>>"$work/err"; }
picture() { # picture FILE REGEX...: well-formed, 80 columns, and each is on a line of it
	python3 - "$@" 2>>"$work/err" <<-'END'
		import re, sys, xml.etree.ElementTree
		lines = [t.text or "" for t in xml.etree.ElementTree.parse(sys.argv[1]).getroot().iter("{http://www.w3.org/2000/svg}text")]
		assert lines and all(len(line) <= 80 and line.isprintable() for line in lines), lines
		for regex in sys.argv[2:]:
		    assert any(re.search(regex, line) for line in lines), (regex, lines)
	END
}

# ---- what cannot be looked at -----------------------------------------------------------------------------------
for command in top metrics; do
	quarry $command
	check "$command without a PID" one_line_error 2 "no PID"
	quarry $command x
	check "$command of no number" one_line_error 2 "'x' is not the number of a process"
	quarry $command 1 2
	check "$command of two" one_line_error 2 "one PID"
	quarry $command --frobnicate 1
	check "$command with a wrong option" one_line_error 2 "'--frobnicate'"
	for pid in 4194305 0 99999999999999999999; do
		quarry $command $pid
		check "$command of no process: $pid" one_line_error 1 "No such process"
	done
	sleep 100 &
	started+=($!)
	quarry $command $!
	check "$command of a process without quarry" one_line_error 1 "not on quarry"
	check "which may be on it all the same, linked statically" says err "publish=on"
	if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null &&
		setpriv --reuid 65534 --regid 65534 --clear-groups "$quarry" version >/dev/null 2>&1; then
		setpriv --reuid 65534 --regid 65534 --clear-groups "$quarry" $command $! >"$work/out" 2>"$work/err"
		status=$?
		check "$command of another user's process" one_line_error 1 "not permitted"
	else
		skip "$command of another user's process: not root, or the build is closed to others"
	fi
	kill $!
done
for wrong in "--sort colour" "--interval 0" "--interval x" "--interval 1e9" "--interval nan" "--count 0" "--count x" "--sort"; do
	# shellcheck disable=SC2086
	quarry top 1 $wrong
	check "top $wrong" one_line_error 2 "${wrong%% *}"
done
quarry metrics 1 --socket
check "metrics --socket without a path" one_line_error 2 "--socket"
quarry metrics 1 --socket a --textfile b
check "metrics --socket and --textfile" one_line_error 2 "not both"
start silent env QUARRY_OPTIONS=publish=off "$work/publisher"
quarry top "$last"
check "a process that publishes nothing" one_line_error 1 "published nothing"

# ---- a process that publishes -----------------------------------------------------------------------------------
start loud env QUARRY_OPTIONS=publish=on "$work/publisher"
loud=$last loud_in=$fd
check "it publishes" until_true publishes "$loud"
quarry top "$loud" --once
check "top --once" is $status 0
check "top: nothing on standard error" silent err
check "top: 80 columns" columns_within 80 "$work/out"
check "top: plain text, whatever names are" plain out
check "top: the process" says out "quarry top: publisher ($loud)"
check "top: the arena, its limit and no commands for the terminal" grep -qE '^e\?\[2Jvil\?"\\\? +- .* 25( |$)' "$work/out"
quarry top --json --once "$loud"
check "top --once --json" is_json "$work/out"
check "top --json: one line" is "$(wc -l <"$work/out")" 1
check "top --json: nothing for a terminal" plain out
check "top --json: the arena" says out '"name":"e\u001b[2Jvil\ufffd\"\\\u000a\ufffd"'
check "top --json: its limit" says out '"hard_limit":67108864'
echo >&"$loud_in"
quarry top --json --count 3 --interval=0.6 "$loud"
check "top --count" is "$(wc -l <"$work/out")" 3
check "top --count: JSON" is_json "$work/out"
check "top: rates of what was counted" grep -q '"refills":[0-9]' "$work/out"
check "top: the last line has rates" grep -q '"minor_faults":[0-9]' <(tail -1 "$work/out")
lanes_are_told() {
	echo >&"$loud_in"
	"$quarry" top --once "$loud" >"$work/out" 2>"$work/err"
	grep -q '^g?.*grp' "$work/out"
}
check "top: lanes are told" until_true lanes_are_told
check "top: lanes, and no commands for the terminal" grep -qE '^1 l\?\[2Jane"\? +slow +10k ' "$work/out"
check "top: the fast lane" grep -qE '^ {17}fast +10k ' "$work/out"
check "top: a class" grep -qE '^1008 +cls +[0-9.]+k +' "$work/out"
check "top: a group" grep -qE '^g\?\[2Jroup +grp +400 ' "$work/out"
check "top: 80 columns with lanes" columns_within 80 "$work/out"
quarry top --json --once "$loud"
check "top --json: lanes" says out '"lanes":[{"number":1,"name":"l\u001b[2Jane\"\u000a","objects":'
check "top --json: a group" says out '{"kind":"group","name":"g\u001b[2Jroup"'
echo stats >&"$loud_in"
check "it tells its statistics" until_true grep -qs told "$work/loud.out"
quarry map "$work/stats.json"
check "map of statistics" is $status 0
check "map: lanes, and no commands for the terminal" grep -qE '^1 l.?\[2Jane".?  +slow ' <(tr -cd '\40-\176\n' <"$work/out")
check "map: a class" grep -qE '^  1008 +class .* [0-9]+ ' "$work/out"
check "map: a group" grep -qE 'group .* 400 ' "$work/out"
check "map: 80 columns" columns_within 80 <(LC_ALL=C sed 's/[^ -~]//g' "$work/out")
check "map: nothing for the terminal" is "$(grep -c $'\033' "$work/out")" 0
quarry map --json "$work/stats.json"
check "map --json" is_json_text "$work/out"
check "map --json: lanes" says out '"number":1,"objects":'
quarry map --svg - "$work/stats.json"
check "map --svg" is $status 0
check "map --svg: lanes, and no commands for the terminal" grep -qE '>1 l.*\[2Jane.*</text>' "$work/out"
check "map --svg: a class, and a group" is "$(grep -cE '>(1008|g.?\[2Jroup)</text>' <(tr -cd '\40-\176\n' <"$work/out"))" 2
check "map --svg: nothing for the terminal" is "$(grep -c $'\033' "$work/out")" 0
sed 's/"live_bytes":[0-9]*/"live_bytes":99999999999/g' "$work/stats.json" >"$work/cold.json"
quarry map --svg - "$work/cold.json"
beyond() { # bars that end right of the picture
	sed -n 's/.*<rect class="frame" x="\([0-9.]*\)" y="[0-9.]*" width="\([0-9.]*\)".*/\1 \2/p; s/^<svg [^>]*width="\([0-9.]*\)".*/\1/p' "$1" |
		awk 'NF == 1 { w = $1 } NF == 2 && $1 + $2 > w { n++ } END { print n + 0 }'
}
check "map --svg: what is cold is no bar beyond the picture" is "$(beyond "$work/out")" 0
sed 's/"held_bytes":[0-9]*/"held_bytes":"x"/' "$work/stats.json" >"$work/bad.json"
quarry map "$work/bad.json"
check "map of lanes that are none" one_line_error 1 "held_bytes"
for column in name node mapped resident in_use cached free huge frag limit refills remote purged; do
	quarry top --once --sort $column "$loud"
	check "top --sort $column" is $status 0
	check "top --sort $column: the mark moves no column" grep -q '  MAP\|\*MAP' <(cut -c18-23 "$work/out")
done
quarry top --once --sort name "$loud"
check "top: sorted by name" is "$(sed -n '/ARENA/,$p' "$work/out" | sed -n 2p | cut -c1)" e
if [[ -w /dev/full ]]; then
	"$quarry" top --once "$loud" >/dev/full 2>"$work/err"
	status=$?
	: >"$work/out"
	check "top to a full disk" one_line_error 1 "standard output"
	"$quarry" metrics "$loud" >/dev/full 2>"$work/err"
	status=$?
	check "metrics to a full disk" one_line_error 1 "standard output"
fi

# Where a container forbids the call that reads another's memory, /proc/PID/mem does.
if command -v strace >/dev/null && strace -qq -o /dev/null true 2>/dev/null; then
	strace -f -qq -o "$work/trace" -e trace=process_vm_readv -e inject=process_vm_readv:error=EPERM \
		"$quarry" top --once "$loud" >"$work/out" 2>"$work/err"
	check "top without process_vm_readv" is $? 0
	check "top without process_vm_readv: it was refused" grep -q INJECTED "$work/trace"
	check "top without process_vm_readv: the same" says out "quarry top: publisher ($loud)"
else
	skip "top without process_vm_readv: no strace, or it may not trace"
fi

# ---- metrics ----------------------------------------------------------------------------------------------------
quarry top --once --svg - "$loud"
check "top --svg" is $status 0
check "top --svg: what it would draw on a terminal" picture "$work/out" "quarry top: publisher \($loud\)" "^green: pressure" "^ARENA +NODE"
echo text >"$work/text"
quarry top --once --svg="$work/text" "$loud"
check "top --svg over what is no picture" one_line_error 2 "no picture"
quarry top --json --svg x "$loud"
check "top --json --svg" one_line_error 2 "not both"

quarry metrics "$loud"
check "metrics" is $status 0
cp "$work/out" "$work/metrics"
check "metrics are OpenMetrics" openmetrics "$work/metrics"
check "metrics end" is "$(tail -1 "$work/metrics")" "# EOF"
check "metrics: the arena's name" says out 'name="e�[2Jvil�\"\\\n�"'
check "metrics: its limit" grep -q '^quarry_arena_hard_limit_bytes{.*} 67108864$' "$work/out"
quarry metrics --classic "$loud"
check "metrics --classic" classic "$work/out"
quarry metrics --no-arenas "$loud"
check "metrics --no-arenas" is "$(grep -c '^quarry_arena_' "$work/out")" 0
(umask 022 && quarry metrics --textfile "$work/x.prom" "$loud")
check "metrics --textfile" classic "$work/x.prom"
check "metrics --textfile: for all to read" is "$(stat -c %a "$work/x.prom")" 644
check "metrics --textfile: nothing beside it" is "$(find "$work" -name 'x.prom*' | wc -l)" 1
quarry metrics --textfile "$work/none/x.prom" "$loud"
check "metrics --textfile in no folder" one_line_error 1 "No such file"
quarry metrics --socket "$work/x.prom" "$loud"
check "metrics --socket where a file is" one_line_error 1 "$work/x.prom: a plain file is there, and no socket"
check "metrics --socket where a file is: it stays" classic "$work/x.prom"
quarry metrics --socket "$work" "$loud"
check "metrics --socket where a folder is" one_line_error 1 "$work: a folder is there"
quarry metrics --textfile "$work/x.txt" "$loud"
check "metrics --textfile that nobody reads" one_line_error 2 "$work/x.txt: node_exporter's textfile collector reads nothing whose name does not end in .prom"
check "metrics --textfile that nobody reads: it is not made" test ! -e "$work/x.txt"

"$quarry" metrics --socket "$work/socket" "$loud" 2>"$work/socket.err" &
server=$!
started+=("$server")
cat >"$work/get.py" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode().decode("unicode_escape").encode())
data = b""
while True:
	some = s.recv(65536)
	if not some:
		break
	data += some
head, body = data.split(b"\r\n\r\n", 1)
assert b"Content-Length: %d" % len(body) in head or sys.argv[2].startswith("HEAD") and not body
sys.stderr.write(head.decode() + "\n")
sys.stdout.buffer.write(body)
END
get() { # get REQUEST: head into $work/err, body into $work/out
	python3 "$work/get.py" "$work/socket" "$1" >"$work/out" 2>"$work/err"
}
check "metrics --socket listens" until_true test -S "$work/socket"
get 'GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n'
check "over a socket: 200" says err "HTTP/1.0 200 OK"
check "over a socket: its type" says err "application/openmetrics-text; version=1.0.0; charset=utf-8"
check "over a socket: OpenMetrics" openmetrics "$work/out"
for _ in 1 2 3; do
	get 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
done
check "who does not ask for it gets the older format" says err "text/plain; version=0.0.4"
check "the older format" classic "$work/out"
for path in /metrics /metrics?name=x '/?'; do
	get "GET $path HTTP/1.0\\r\\n\\r\\n"
	check "GET $path" says err "200 OK"
done
for path in /nothing /metrics/ /metric /metricsx //; do
	get "GET $path HTTP/1.0\\r\\n\\r\\n"
	check "GET $path" says err "404 Not Found"
done
# Others that say nothing hold up nobody, however many they are: who has waited longest gives up his place. (Each of them has
# five seconds.)
cat >"$work/idle.py" <<'END'
import socket, sys, time
def one(text=b""):
	s = socket.socket(socket.AF_UNIX)
	s.connect(sys.argv[1]) # (with a time limit it would not wait for its turn)
	s.settimeout(20)
	s.sendall(text)
	return s
def all_of(s):
	data = b""
	while some := s.recv(65536):
		data += some
	return data
def try_it():
	idle = [one(text) for text in (b"", b"G", b"GET /metrics HTTP/1.0\r\n") for _ in range(5)]
	first = all_of(one(b"GET / HTTP/1.0\r\n\r\n"))
	idle += [one() for _ in range(20)]
	second = all_of(one(b"GET / HTTP/1.0\r\n\r\n"))
	gave_up = all_of(idle[0])
	kept = idle[-1]
	kept.sendall(b"GET / HTTP/1.0\r\n\r\n")
	third = all_of(kept)
	return first[9:12], second[9:12], third[9:12], gave_up[9:12]
# (Each has five seconds: where the machine stood still for most of that, it is tried again.)
for attempt in range(5):
	began = time.monotonic()
	answers = ()
	try:
		answers = try_it()
	except OSError:
		pass
	if time.monotonic() - began < 3:
		break
print(*answers)
END
check "connections that say nothing hold up nobody" is "$(python3 "$work/idle.py" "$work/socket" 2>&1)" \
	"b'200' b'200' b'200' b'400'"
get 'POST / HTTP/1.0\r\n\r\n'
check "no other method" says err "405"
check "and which there are" says err "Allow: GET, HEAD"
get 'HEAD /metrics HTTP/1.0\r\n\r\n'
check "HEAD" says err "200 OK"
check "HEAD: how much it would be" grep -qE '^Content-Length: [1-9]' "$work/err"
check "HEAD: and none of it" silent out
get "GET /$(head -c 9000 /dev/zero | tr '\0' x) HTTP/1.0\\r\\n\\r\\n"
check "a request that is too long" grep -qE "400|reset by peer|Broken pipe" "$work/err"
get 'GET / HTTP/1.0\r\n\r\n'
check "and it goes on" says err "200 OK"
# Errors that pass: the process is stopped while it writes; there are no descriptors for reading, or for a connection.
cat >"$work/generation.py" <<'END'
import re, struct, sys
pid, odd = sys.argv[1], int(sys.argv[2])
for line in open("/proc/%s/maps" % pid):
	if "quarry-published" in line:
		at = int(re.match("[0-9a-f]+", line).group(0), 16) + 24
		with open("/proc/%s/mem" % pid, "r+b", 0) as mem:
			mem.seek(at)
			was = struct.unpack("Q", mem.read(8))[0]
			mem.seek(at)
			mem.write(struct.pack("Q", (was | 1) if odd else (was + was % 2)))
END
kill -STOP "$loud"
if python3 "$work/generation.py" "$loud" 1 2>/dev/null; then
	get 'GET / HTTP/1.0\r\n\r\n'
	check "stopped as it writes: 503" says err "503"
	check "stopped as it writes: why" says out "being written"
	python3 "$work/generation.py" "$loud" 0
	get 'GET / HTTP/1.0\r\n\r\n'
	check "stopped as it writes: not for ever" says err "200 OK"
else
	skip "stopped as it writes: its memory may not be written"
fi
kill -CONT "$loud"
if command -v prlimit >/dev/null && prlimit --pid $server --nofile >/dev/null 2>&1; then
	free=0
	while [[ -e /proc/$server/fd/$free ]]; do free=$((free + 1)); done
	soft=$(prlimit --pid $server --nofile --noheadings --output SOFT)
	prlimit --pid $server --nofile=$((free + 1)):
	get 'GET / HTTP/1.0\r\n\r\n'
	check "no descriptor to read with: 503" says err "503"
	check "no descriptor to read with: why" says out "Too many open files"
	prlimit --pid $server --nofile=$free:
	switches() { awk '/^voluntary/ { print $2 }' "/proc/$server/status"; }
	before=$(switches)
	tries_again() { [[ $(switches) -gt $((before + 2)) ]]; }
	get 'GET / HTTP/1.0\r\n\r\n' &
	getter=$!
	until_true tries_again
	prlimit --pid $server --nofile="$soft":
	wait $getter
	check "no descriptor for a connection: it waits" says err "200 OK"
else
	skip "no descriptors: no prlimit, or it may not"
fi
quarry metrics --socket "$work/socket" "$loud"
check "a socket that somebody listens at" one_line_error 1 "in use"
kill $server
wait $server
check "metrics --socket takes its socket away" is "$(find "$work" -name 'socket*' ! -name '*.err')" ""
"$quarry" metrics --socket "$work/socket" "$loud" 2>"$work/socket.err" &
server=$!
started+=("$server")
check "it listens again" until_true test -S "$work/socket"
kill -9 $server
wait $server 2>/dev/null
"$quarry" metrics --socket "$work/socket" "$loud" 2>"$work/socket.err" &
server=$!
started+=("$server")
check "where one was killed" until_true get 'GET / HTTP/1.0\r\n\r\n'

# One that listens and never answers is there all the same.
cat >"$work/stuck.py" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(0)
waiting = []
try:
	while True:
		c = socket.socket(socket.AF_UNIX)
		c.setblocking(False)
		c.connect(sys.argv[1])
		waiting.append(c)
except BlockingIOError:
	print("ready", flush=True)
sys.stdin.read()
END
start stuck python3 "$work/stuck.py" "$work/full"
quarry metrics --socket "$work/full" "$loud"
check "a socket whose owner is stuck" one_line_error 1 "in use"
kill "$last"
wait "$last" 2>/dev/null
check "and what it leaves" test -S "$work/full"

# Two at once at what was left behind: the first is held up as it is about to take it away.
if command -v strace >/dev/null && strace -qq -o /dev/null true 2>/dev/null; then
	strace -f -qq -o "$work/trace" -e trace=connect,unlink,unlinkat -e inject=unlink,unlinkat:delay_enter=2000000 \
		"$quarry" metrics --socket "$work/full" "$loud" 2>"$work/first.err" &
	started+=($!)
	check "the first finds nobody" until_true grep -qs ECONNREFUSED "$work/trace"
	timeout 4 "$quarry" metrics --socket "$work/full" "$loud" 2>"$work/second.err" &
	second=$!
	until_true test -s "$work/second.err"
	check "of two that start at once one serves" says second.err "in use"
	wait $second
	check "the other does not" is $? 1
	first=$(pgrep -P "${started[-1]}")
	started+=("$first")
	full=$work/full
	answered() { python3 "$work/get.py" "$full" 'GET / HTTP/1.0\r\n\r\n' >/dev/null 2>"$work/err"; }
	check "the one does" until_true answered
	kill "$first"
	wait "${started[-2]}"
else
	skip "two that start at once: no strace, or it may not trace"
fi

# ---- a signal just before a wait -----------------------------------------------------------------------------------
cat >"$work/slip.gdb" <<'END'
set pagination off
set confirm off
handle all nostop noprint pass
handle SIGTRAP SIGSTOP stop nopass
break ppoll
ignore 1 BEFORE
shell touch "$SLIP.attached"
continue
shell kill -TERM $SLIP_PID; touch "$SLIP.sent"
delete
continue
END
slip() { # slip PID N COMMAND...: a SIGTERM arrives as the process is about to wait, N waits after what COMMAND brings it
	local pid=$1
	sed -i "s/^ignore 1 .*/ignore 1 $2/" "$work/slip.gdb"
	shift 2
	rm -f "$work"/slip.attached "$work"/slip.sent
	SLIP=$work/slip SLIP_PID=$pid timeout 60 gdb -nx -batch -p "$pid" -x "$work/slip.gdb" >"$work/slip.out" 2>&1 </dev/null &
	started+=($!)
	until_true test -e "$work/slip.attached" && "$@" && until_true test -e "$work/slip.sent"
	timeout 10 tail --pid="$pid" -f /dev/null
}
traces() { command -v gdb >/dev/null && gdb -nx -batch -p $$ -ex detach >/dev/null 2>&1; }
traces=no
if traces; then
	traces=yes
	"$quarry" metrics --socket "$work/slipped" "$loud" 2>"$work/socket.err" &
	server_2=$!
	started+=("$server_2")
	connects() { python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$work/slipped"; }
	check "it listens" until_true test -S "$work/slipped"
	# (One is for the request that does not come.)
	check "metrics: a signal just before it waits" slip "$server_2" 1 connects
	kill -9 "$server_2" 2>/dev/null
	wait "$server_2"
	check "metrics: it ends as by any other" is $? 0
else
	skip "a signal just before a wait: no gdb, or it may not trace"
fi

# ---- on a terminal ----------------------------------------------------------------------------------------------
if command -v script >/dev/null && command -v stty >/dev/null; then
	drew() { grep -qas "FREE HUG%" "$work/typescript"; }
	ended() { grep -qasE "status [0-9]|\[\?1049l" "$work/typescript"; }
	on_terminal() { # on_terminal KEYS ARGUMENT...: what a terminal of 60 columns got, in $work/out
		local keys=$1
		shift
		rm -f "$work/typescript"
		{ until_true drew; printf '%s' "$keys"; until_true ended; } |
			script -qefc "stty cols 60 rows 12; stty -a >$work/before; '$quarry' top $*; echo \"status \$?\"; stty -a >$work/after" \
				"$work/typescript" >/dev/null 2>&1
		tr -d '\r' <"$work/typescript" >"$work/out"
	}
	on_terminal '>iq' "$loud"
	check "on a terminal: a screen of its own" grep -qaF $'\033[?1049h' "$work/out"
	check "on a terminal: given back" grep -qaF $'\033[?1049l' "$work/out"
	check "on a terminal: keys turn and choose" grep -qaF "by in_use, turned" "$work/out"
	check "on a terminal: q ends" grep -qaF "status 0" "$work/out"
	check "on a terminal: it is as before" cmp -s "$work/before" "$work/after"
	check "on a terminal: no name is a command" is "$(grep -caF $'\033[2J' "$work/out")" 0
	on_terminal $'\003' "$loud"
	check "on a terminal: Ctrl-C" grep -qaF $'\033[?1049l' "$work/out"
	check "on a terminal: it is as before Ctrl-C" cmp -s "$work/before" "$work/after"
	if [[ $traces == yes ]]; then
		presses() { printf '>' >&"$keys_in"; }
		rm -f "$work/typescript"
		mkfifo "$work/keys"
		script -qefc "stty cols 60 rows 12; echo \$\$ >$work/top.pid; exec '$quarry' top --interval 3600 $loud" "$work/typescript" \
			<"$work/keys" >/dev/null 2>&1 &
		started+=($!)
		exec {keys_in}>"$work/keys"
		until_true drew
		check "on a terminal: a signal just before it waits" slip "$(cat "$work/top.pid")" 0 presses
		kill -9 "$(cat "$work/top.pid")" 2>/dev/null
		exec {keys_in}>&-
		check "on a terminal: given back after it" until_true grep -qaF $'\033[?1049l' "$work/typescript"
	fi
	on_terminal '' "$loud" --count 1
	check "on a terminal: --count" grep -qaF "status 0" "$work/out"
else
	skip "on a terminal: no script(1)"
fi

# ---- it becomes another program -----------------------------------------------------------------------------------
start changing env QUARRY_OPTIONS=publish=on "$work/publisher"
changing=$last
printf 'more\n' >&"$fd"
check "a process that will run another program" until_true publishes "$changing"
: >"$work/out"
"$quarry" top --interval 0.1 "$changing" >"$work/out" 2>"$work/err" </dev/null &
watcher=$!
"$quarry" metrics --socket "$work/changed" "$changing" 2>"$work/changing.err" &
server_3=$!
started+=("$watcher" "$server_3")
until_true test -s "$work/out"
until_true test -S "$work/changed"
printf 'exec\n' >&"$fd"
wait $watcher
status=$?
: >"$work/out"
check "it runs another program: top says so" one_line_error 1 "$changing: it became another program meanwhile: sleep"
quarry top --once "$changing"
check "that one is another matter" one_line_error 1 "$changing: it is not on quarry"
python3 "$work/get.py" "$work/changed" 'GET / HTTP/1.0\r\n\r\n' >"$work/out" 2>"$work/err"
check "it runs another program: 503" says err "503"
wait $server_3
check "it runs another program: metrics end" is "$?-$(cat "$work/changing.err")" \
	"1-quarry: metrics: $changing: it became another program meanwhile: sleep"
kill -9 "$changing"
wait "$changing" 2>/dev/null

# ---- it ends ----------------------------------------------------------------------------------------------------
: >"$work/out"
"$quarry" top --interval 0.1 "$loud" >"$work/out" 2>"$work/err" </dev/null &
watcher=$!
started+=("$watcher")
until_true test -s "$work/out"
exec {loud_in}>&-
kill -9 "$loud"
wait "$loud" 2>/dev/null
wait $watcher
status=$?
: >"$work/out"
check "the process ends under top" one_line_error 1 "No such process"
timeout 20 tail --pid=$server -f /dev/null
check "metrics --socket ends with it" is $? 0
kill $server 2>/dev/null
wait $server
check "and says so" is $? 1
check "in one line" is "$(cat "$work/socket.err")" "quarry: metrics: $loud: No such process"
check "and takes its socket away" test ! -e "$work/socket"

# ---- pages that no library wrote --------------------------------------------------------------------------------
bytes() { # bytes FORMAT: a file of them
	# shellcheck disable=SC2059
	printf "$1" >"$work/page"
	head -c 3000 /dev/zero >>"$work/page"
}
hostile() { # hostile NAME TEXT [PAGE...]
	local name=$1 text=$2
	shift 2
	[[ $# != 0 ]] || set -- "$work/page"
	start "$name" env QUARRY_OPTIONS=publish=off "$work/publisher" "$@"
	for command in "top --once" metrics doctor; do
		# shellcheck disable=SC2086
		quarry $command "$last"
		check "$command: $name" one_line_error 1 "$text"
	done
}
bytes 'quarry1\0\001\0\0\0\160\0\0\0\0\020\0\0\0\0\0\0\004\0\0\0\0\0\0\0'
mv "$work/page" "$work/parents"
bytes ''
hostile empty "nothing yet"
bytes 'rubbish!rubbish!rubbish!rubbish!'
hostile rubbish "not a page of quarry's"
hostile unwritable "published nothing" "r:$work/page"
LD_LIBRARY_PATH=${library%/*} "$work/publisher" "u:$work/page" </dev/null >/dev/null
if [[ $? != 77 ]]; then
	hostile unfilled "comes to no end" "u:$work/page"
else
	skip "a page that is never filled: no userfaultfd, or none that the kernel waits for"
fi
bytes 'quarry1\0\002\0\0\0'
hostile newer "newer version"
hostile its-parents "published nothing" "p:$work/parents"
hostile its-own-beside-its-parents "newer version" "p:$work/parents" "$work/page"
bytes 'quarry1\0\0\0\0\0'
hostile older "older version"
bytes 'quarry1\0\001\0\0\0\160\0\0\0\0\020\0\0\0\0\0\0\003\0\0\0\0\0\0\0'
hostile half-written "being written"
bytes 'quarry1\0\001\0\0\0\160\0\0\0\0\020\0\0\0\0\0\0\004\0\0\0\0\0\0\0\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377'
hostile counts-without-end "not sound"

# ---- how a process is -------------------------------------------------------------------------------------------
"${CC:-cc}" -I"$src/include" -o "$work/patient" "$src/tests/patient.c" || exit 99
for state in well ill; do
	"$work/patient" "$state" "$work/page"
	start "$state" env QUARRY_OPTIONS=publish=off "$work/publisher" "$work/page"
	quarry doctor "$last"
	check "doctor of who is $state" is $status 0
	check "doctor of who is $state: nothing else is said" silent err
	if [[ $state == well ]]; then
		check "doctor: all is well" says out "0 of 15 lacking"
		check "doctor: how large" says out "1.6 GiB resident now, 1.7 GiB at most in 60 minutes: 2.0 GiB with 20 % of room"
	else
		check "doctor: all is ill" says out "15 of 15 lacking"
		check "doctor: each costs, or is refused" is "$(grep -c '^        costs: ' "$work/out")" 14
		check "doctor: each has a way out" is "$(grep -c '^        fix:   ' "$work/out")" 15
		check "doctor: when it is full" says out "at that pace its limit is reached in 0.8 h"
		check "doctor: which is refused" says out "refused              thp 5"
		check "doctor: what is free" says out "fix:   decay_ms=100, or quarry_purge at rest"
	fi
	quarry doctor --json "$last"
	check "doctor --json of who is $state" python3 -m json.tool "$work/out" "$work/json"
	check "doctor --json of who is $state: whose" says out "\"pid\":$last,"
	kill "$last"
done
quarry doctor 1x
check "doctor of no process" one_line_error 2 "'1x'"
quarry doctor 1 2
check "doctor of two" one_line_error 2 "'2'"

# ---- trends -----------------------------------------------------------------------------------------------------
# A page whose process grew by 3 MiB an hour for two days, and by 51 KiB a minute, with peaks, in the last hour; of its last
# minute two samples are left. What is resident shrank by 1 MiB an hour.
cat >"$work/trend.py" <<'END'
import struct, sys, time
HOUR = 3600 * 10**9
now = max(time.monotonic_ns(), 100 * HOUR)
def ring(step, count, made, peaks):
	slots = [bytes(128)] * count
	for k in range(made):
		t = now - k * step
		in_use = (1 << 30) - k * step * 3 * (1 << 20) // HOUR + (peaks and k % 9 == 4) * (1 << 28)
		resident = (2 << 30) + k * step * (1 << 20) // HOUR
		slots[t // step % count] = struct.pack("<16Q", t, 3 << 30, resident, in_use, *[7] * 12)
	return b"".join(slots)
history = ring(10**9, 60, 2, 0) + ring(60 * 10**9, 60, 60, 1) + ring(HOUR, 48, 48, 0)
at = 640
head = struct.pack("<QIIQQQQQi9I16s6I", 0x0031797272617571, 1, 136, 1 << 16, 4, now, 0, now, 1, 144, 64, 208, 400,
	at + len(history), 912, 0, 0, 0, b"9", int(sys.argv[2]) if len(sys.argv) > 2 else at, 128, 60, 60, 48, 0)
open(sys.argv[1], "wb").write(head.ljust(at, b"\0") + history)
END
if python3 "$work/trend.py" "$work/page" 2>"$work/err"; then
	start grows env QUARRY_OPTIONS=publish=off "$work/publisher" "$work/page"
	quarry top --once "$last"
	check "top: a trend of two days" says out "trend over 48 h: in use +3.0M/h, resident -1.0M/h "
	check "top: of an hour, whatever peaks" says out "trend over 60 min: in use +51K/min, resident -17K/min "
	check "top: none of two samples" is "$(grep -c '^trend' "$work/out")" 2
	check "top: marks, from the least to the most" grep -q '^trend over 48 h.* _[_.:=+*#-]*#$' "$work/out"
	check "top: peaks among them" is "$(grep '^trend over 60 min' "$work/out" | tr -cd '#' | wc -c)" 7
	check "top: trends are plain" plain out
	check "top: trends in 80 columns" columns_within 80 "$work/out"
	LC_ALL=C.UTF-8 quarry top --once "$last"
	check "top: bars where they can be shown" grep -q '^trend over 48 h.* ▁[▁▂▃▄▅▆▇█]*█$' "$work/out"
	check "top: bars in 80 columns" is "$(LC_ALL=C.UTF-8 grep -cE '^.{81}' "$work/out")" 0
	quarry top --once --json "$last"
	check "top --json: the trends, and all samples" python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
hours, minutes = d["trend"]["hours"], d["trend"]["minutes"]
assert abs(hours["a_second"]["in_use"] - 3 * 2**20 / 3600) < 0.01 and hours["steps"] == hours["samples"] == 48, hours
assert abs(minutes["a_second"]["in_use"] - 3 * 2**20 / 3600) < 1 and minutes["a_second"]["purged"] == 0, minutes
assert d["history"]["hours"]["in_use"][-1] == 2**30 and len(d["history"]["minutes"]["time_ns"]) == 60' "$work/out"
	quarry top --json --count 2 --interval 0.1 "$last"
	check "top --json: samples only when asked once" is "$(grep -c '"history"' "$work/out")" 0
	kill "$last"
	python3 "$work/trend.py" "$work/page" 65000
	hostile history-without-end "not sound"
else
	skip "trends: no python3"
fi

# ---- a real program ---------------------------------------------------------------------------------------------
if command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null; then
	"$quarry" run --library "$library" redis-server --port 0 --unixsocket "$work/redis" --save '' --dir "$work" \
		>"$work/redis.out" 2>&1 </dev/null &
	redis=$!
	started+=("$redis")
	check "redis listens" until_true test -S "$work/redis"
	redis-benchmark -s "$work/redis" -n 400000 -r 100000 -d 200 -t set -q >/dev/null 2>&1 &
	load=$!
	started+=("$load")
	check "redis publishes, with no option" until_true publishes $redis
	quarry top --count 2 --interval 1.2 $redis
	check "top of redis under load" is $status 0
	check "top of redis: refills" grep -qE '^a second: refills [0-9]' "$work/out"
	quarry top --svg "$work/top.svg" --interval 1.2 $redis
	check "top of redis under load: a picture" is $status 0
	check "a picture: nothing on standard output" silent out
	check "a picture: text and rates" picture "$work/top.svg" "quarry top: redis-server" "a second: refills [0-9]" "\*RES"
	quarry top --once --json $redis
	check "top of redis under load: JSON" is_json "$work/out"
	quarry metrics $redis
	check "metrics of redis under load" openmetrics "$work/out"
	kill $load 2>/dev/null
	wait $load 2>/dev/null
	kill $redis
	wait $redis
	check "redis ends well" is $? 0
else
	skip "redis: no redis-server and redis-benchmark"
fi

echo "top.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
