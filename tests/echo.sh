#!/bin/bash
# SPDX-License-Identifier: MIT
# The example server (examples/echo.c) serves real clients over loopback, in its three ways: every byte comes back as it
# was sent, to many connections, also where there are few buffers and where sends go out in part; once its buffers were
# used it has no page fault; and all buffers are back at the end. Who finds no buffer waits for one, and a kernel that
# receives once for each request serves connections that come at once. Buffers that the kernel fills bit by bit, and fixed ones,
# are tried with the kernel (tests/uring.c). Where io_uring or liburing is missing, that part is
# skipped, aloud.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/echo.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
library=$build/.libs/libquarry.so
if [[ ! -e $library ]]; then
	echo "echo.sh: $library is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-echo.XXXXXX") || exit 99
server=
end() {
	[[ -z $server ]] || kill -9 "$server" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap end EXIT
. "$src/tests/checks.sh"

compile() { # compile NAME SOURCE FLAGS...
	local name=$1 source=$2
	shift 2
	"${CC:-cc}" -std=gnu11 -O1 -Wall -Wextra -Werror -I"$src/include" -o "$work/$name" "$src/$source" "$@"
}
compile client tests/echo_client.c || exit 1
compile stuffed tests/echo_stuffed.c || exit 1
compile plain examples/echo.c -DECHO_WITHOUT_URING "$library" -Wl,-rpath,"${library%/*}" || exit 1
ways=(plain)
if [[ ${QUARRY_LIBURING:-1} == 0 ]] || ! echo '#include <liburing.h>' | "${CC:-cc}" -E - >/dev/null 2>&1; then
	echo "SKIP: liburing is not installed (Debian: liburing-dev): the server without io_uring alone is tested"
elif ! compile uring examples/echo.c "$library" -Wl,-rpath,"${library%/*}" -luring; then
	exit 1
else
	"$work/uring" --buffers 1 >"$work/out" 2>&1 &
	server=$!
	for ((n = 0; n < 100; n++)); do
		grep -qs port "$work/out" && break
		kill -0 "$server" 2>/dev/null || break
		sleep 0.05
	done
	kill "$server" 2>/dev/null
	wait "$server"
	if [[ $? == 77 ]]; then
		echo "SKIP: $(cat "$work/out"): the server without io_uring alone is tested"
	else
		ways+=(slab malloc)
		compile old examples/echo.c -DMULTISHOT_FLAGS=MSG_WAITALL "$library" -Wl,-rpath,"${library%/*}" -luring || exit 1
	fi
	server=
	compile kernel tests/uring.c "$library" -Wl,-rpath,"${library%/*}" -luring || exit 1
	"$work/kernel" >"$work/out" 2>"$work/err"
	status=$?
	if [[ $status == 77 ]]; then
		echo "SKIP: io_uring is refused here: nothing of it is tested on the kernel"
	else
		grep SKIP "$work/out"
		check "pieces, bundles and fixed buffers with the kernel's io_uring" is $status 0
	fi
fi

start() { # start WAY ARGUMENTS...: into $server and $port
	local way=$1
	shift
	case $way in
	plain) set -- "$work/plain" --plain "$@" ;;
	slab) set -- "$work/uring" "$@" ;;
	malloc) set -- "$work/uring" --malloc "$@" ;;
	old) set -- "$work/old" "$@" ;;
	esac
	: >"$work/said"
	"$@" >"$work/said" 2>"$work/err" &
	server=$!
	port=
	for ((n = 0; n < 200; n++)); do
		port=$(sed -n 's/^port //p' "$work/said")
		[[ -z $port ]] || return 0
		sleep 0.05
	done
	return 1
}
few_descriptors() { # few_descriptors COMMAND...: its children have few
	local most status
	most=$(ulimit -Sn)
	ulimit -Sn 24
	"$@"
	status=$?
	ulimit -Sn "$most"
	return $status
}
stop() {
	kill "$server"
	wait "$server"
	local status=$?
	server=
	[[ $status == 0 ]]
}
client() { timeout 120 "$work/client" "$port" "$@" >"$work/out" 2>"$work/err"; }
faults() { awk '{ print $10 + $12 }' "/proc/$server/stat"; }
said() { sed -nE "s/.*$1 ([0-9]+).*/\1/p" "$work/said"; }

for way in "${ways[@]}"; do
	check "$way: starts" start "$way"
	check "$way: 64 connections, everything in parts" client 64 300000 60000 7000 1
	check "$way: messages" client 32 200000 4096 4096 0
	check "$way: large ones" client 8 3000000 1000000 65536 2
	before=$(faults)
	check "$way: the same again" client 64 300000 60000 7000 3
	check "$way: messages again" client 32 400000 4096 4096 0
	check "$way: large ones again" client 8 3000000 1000000 65536 4
	check "$way: no page fault once it is warm" is "$(faults)" "$before"
	check "$way: stops" stop
	check "$way: all buffers are back" says said "buffers all back"
	check "$way: what came in went out" is "$(said received)" "$(said sent)"
	check "$way: it was all of it" is "$(said received)" $((64 * 300000 * 2 + 32 * 600000 + 8 * 6000000))

	check "$way: starts with few buffers" start "$way" --buffers 4 --size 512
	check "$way: few buffers, many connections" client 40 30000 20000 3000 5
	check "$way: stops" stop
	# (Without io_uring a connection has its buffers back before the next is looked at, but for what does not go out.)
	[[ $way == plain ]] || check "$way: there were too few at times" test "$(said starved)" -gt 0
	check "$way: all few buffers are back" says said "buffers all back"
	[[ $way != plain ]] || check "$way: who found none waited for one" is "$(said woken)" "$(said starved)"

	check "$way: starts with large buffers" start "$way" --buffers 16 --size 4194304
	check "$way: large buffers" client 3 30000000 20000000 65536 6
	check "$way: stops" stop
	check "$way: sends went out in part" test "$(said part)" -gt 0
	check "$way: all large buffers are back" says said "buffers all back"
done

# Fewer descriptors than connections: who cannot be accepted is accepted when another has gone, and the server does not ask
# for it all the time until then. (A rest is 100 ms; without it there are some 100000 refusals a second.)
refused() { "$@" >"$work/out" 2>&1; [[ $? == 2 ]]; }
for way in "${ways[@]}"; do
	check "$way: starts with few descriptors" few_descriptors start "$way"
	check "$way: more connections than descriptors" client 40 2000000 50000 7000 7
	check "$way: stops" stop
	check "$way: accepting rested" test "$(said rests)" -gt 0
	check "$way: it did rest" test "$(said rests)" -lt 5000
	check "$way: all buffers are back" says said "buffers all back"
	program=uring
	[[ $way != plain ]] || program=plain
	for arguments in "--size 0" "--size 4294967296" "--size 2147483648" "--buffers 0" "--buffers -1" "--port 65536"; do
		check "$way: $arguments is refused" refused "$work/$program" $arguments
	done
	[[ $way == plain ]] || check "$way: three buffers are no ring" refused "$work/$program" --buffers 3
done

# Many who find no buffer: one is asked again for each buffer there is, and not all of them.
for way in "${ways[@]}"; do
	[[ $way != plain ]] || continue
	check "$way: starts with eight buffers" start "$way" --buffers 8 --size 4096
	check "$way: 500 connections for eight buffers" client 500 40000 4096 4096 0
	check "$way: stops" stop
	# (5000 messages. One of a few may find none; were all asked for each, it would be a hundred times as many.)
	check "$way: few are asked in vain" test "$(said starved)" -lt 50000
	check "$way: all eight are back" says said "buffers all back"
done

# A client who sends and does not read, and stays: the others are served beside it, as it has its share of the buffers and no
# more; and where that is all of them, when the server's patience is at its end.
stuffed_client() { # stuffed_client NAME: stays until its input ends
	mkfifo "$work/$1.in"
	"$work/stuffed" "$port" stay <"$work/$1.in" >"$work/$1" 2>&1 &
	stayer=$!
	exec {stays}>"$work/$1.in"
	for ((n = 0; n < 600; n++)); do
		grep -qs stuffed "$work/$1" && return 0
		sleep 0.05
	done
	return 1
}
leaves() {
	exec {stays}>&-
	wait "$stayer"
}
for way in "${ways[@]}"; do
	check "$way: starts with 64 buffers" start "$way" --buffers 64 --size 1024 --patience 1000000
	check "$way: a client sends and does not read" stuffed_client "$way.stays"
	check "$way: others are served beside it" client 4 300000 60000 7000 1
	check "$way: it leaves" leaves
	check "$way: stops" stop
	[[ $way == plain ]] || check "$way: it was held up" test "$(said "held up")" -gt 0
	check "$way: all 64 are back" says said "buffers all back"

	check "$way: starts with one buffer and little patience" start "$way" --buffers 1 --size 1024 --patience 1000
	check "$way: a client keeps the one buffer" stuffed_client "$way.keeps"
	check "$way: another is served in the end" client 1 20000 1000 1000 1
	check "$way: the first leaves" leaves
	check "$way: stops" stop
	check "$way: the one is back" says said "buffers all back"
done

# One buffer, that a client who does not read keeps from the others: who wants one waits, and does not ask again and again.
check "one buffer: starts" start plain --buffers 1 --size 512
stuffed() { timeout 120 "$work/stuffed" "$port" >"$work/out" 2>"$work/err"; }
check "one buffer: a client that does not read" stuffed
check "one buffer: stops" stop
check "one buffer: there was none at times" test "$(said starved)" -gt 0
check "one buffer: who found none waited for one" is "$(said woken)" "$(said starved)"
check "one buffer: it is back" says said "buffers all back"

# A kernel that receives once for each request: connections that come at the same moment all ask for more, are all refused,
# and all go on. (The server sleeps while they come, so that it sees them at once.)
established() { # established PORT: how many connections to it there are, on the client's side
	awk -v port="$(printf ':%04X' "$1")" '$4 == "01" && substr($3, length($3) - 4) == port' /proc/net/tcp | wc -l
}
come_at_once() {
	kill -STOP "$server"
	timeout 120 "$work/client" "$port" 8 100000 20000 5000 1 >"$work/out" 2>"$work/err" &
	local client=$!
	for ((n = 0; n < 200; n++)); do
		[[ $(established "$port") -lt 8 ]] || break
		sleep 0.05
	done
	kill -CONT "$server"
	wait "$client"
}
if [[ -e $work/old ]]; then
	check "once for each request: starts" start old
	check "once for each request: eight at once" come_at_once
	check "once for each request: stops" stop
	check "once for each request: it was" says said "each received by itself"
	check "once for each request: all buffers are back" says said "buffers all back"
	check "once for each request: it was all of it" is "$(said sent)" 800000
fi

echo "echo.sh: $checks checks, $failures failed (${ways[*]})"
[[ $failures == 0 ]]
