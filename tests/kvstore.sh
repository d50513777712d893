#!/bin/bash
# SPDX-License-Identifier: MIT
# The example key-value server (examples/kvstore) on handles and on malloc, over loopback: what it answers is what a model
# says (in pipelines and in pieces, while objects are packed, too); hostile requests get an error, and it goes on; clients
# that vanish leave nothing; times and the limit hold; and everything is back at its end. The same with both of its ways
# built with AddressSanitizer. redis-cli and redis-benchmark are clients, too, where they are installed; else that is
# skipped, aloud.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/kvstore.sh [SEED]
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
library=$build/.libs/libquarry.so
seed=${1:-$RANDOM}
if [[ ! -e $library ]]; then
	echo "kvstore.sh: $library is not built"
	exit 99
fi
if ! command -v python3 >/dev/null; then
	echo "SKIP: python3 is not installed"
	exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-kvstore.XXXXXX") || exit 99
server=
end() {
	[[ -z $server ]] || kill -9 "$server" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap end EXIT
. "$src/tests/checks.sh"

compile() { # compile NAME FLAGS...
	local name=$1
	shift
	"${CC:-cc}" -std=gnu11 -O1 -g -Wall -Wextra -Werror -I"$src/include" "$@" -o "$work/$name" \
		"$src"/examples/kvstore/*.c -pthread "$library" -Wl,-rpath,"${library%/*}"
}
compile kvstore || exit 1
echo 'int main(void) { return 0; }' >"$work/try.c"
programs=(kvstore)
if "${CC:-cc}" -fsanitize=address,undefined -o "$work/try" "$work/try.c" 2>/dev/null && "$work/try"; then
	compile checked -fsanitize=address,undefined -fno-sanitize-recover=all || exit 1
	programs+=(checked)
else
	echo "SKIP: ${CC:-cc} has no AddressSanitizer here"
fi

start() { # start PROGRAM ARGUMENTS...: into $server and $port
	local program=$1
	shift
	: >"$work/said"
	"$work/$program" --port 0 "$@" >"$work/said" 2>"$work/server" &
	server=$!
	port=
	for ((n = 0; n < 200; n++)); do
		port=$(sed -n 's/^port //p' "$work/said")
		[[ -z $port ]] || return 0
		sleep 0.05
	done
	return 1
}
stop() { # its own checks, of all that goes back, are in its exit status
	kill "$server"
	wait "$server"
	local status=$?
	server=
	[[ $status == 0 && ! -s $work/server ]] || { sed 's/^/    server: /' "$work/server" | head -40; return 1; }
}
client() { timeout 300 python3 "$src/tests/kvstore_client.py" "$port" "$@" >"$work/out" 2>"$work/err"; }
cli() { # cli ANSWER WORDS...
	local expected=$1
	shift
	redis-cli -p "$port" "$@" >"$work/out" 2>"$work/err" && is "$(<"$work/out")" "$expected"
}
benchmark() { redis-benchmark -p "$port" "$@" --csv >"$work/out" 2>"$work/err" && ! grep -qi error "$work/out" "$work/err"; }

refused() { # refused ARGUMENTS...
	"$work/kvstore" "$@" >"$work/out" 2>"$work/err"
	is $? 2 && silent out
}
check "--help" "$work/kvstore" --help >"$work/help"
check "--help tells of --malloc" grep -qe --malloc "$work/help"
check "a port that is none" refused --port 65536
check "a limit that is none" refused --maxmemory 1k
check "a word too many" refused more

redis=yes
for tool in redis-cli redis-benchmark; do
	command -v $tool >/dev/null || { redis=no; echo "SKIP: $tool is not installed (Debian: redis-tools)"; }
done

echo "kvstore.sh: SEED=$seed"
for program in "${programs[@]}"; do
	for way in "" --malloc; do
		name="$program $way"
		most=100 # MiB; AddressSanitizer keeps what is freed
		[[ $program == kvstore ]] || most=1000
		# shellcheck disable=SC2086 # a way is one word or none
		check "$name: starts" start "$program" $way
		for ((i = 0; i < 3; i++)); do
			check "$name: the model, seed $((seed + i))" client model $((seed + i)) 8000
		done
		check "$name: hostile requests" client hostile
		check "$name: clients that vanish" client vanish
		check "$name: replies that nobody reads" client unread $most
		check "$name: times" client times
		[[ $way == --malloc ]] || check "$name: packing" client pack
		if [[ $redis == yes ]]; then
			check "$name: redis-cli SET" cli OK set key 'a value'
			check "$name: redis-cli GET" cli 'a value' get key
			check "$name: redis-cli, an error" cli "ERR value is not an integer or out of range" incr key
			check "$name: redis-benchmark" benchmark -n 5000 -r 1000 -c 20 -t ping,set,get,incr,mset
			check "$name: redis-benchmark in pipelines" benchmark -n 50000 -r 10000 -P 16 -d 200 -t set,get,incr,mset
		fi
		check "$name: ends, and all is back" stop

		# shellcheck disable=SC2086
		check "$name: starts with a limit" start "$program" $way --maxmemory 1000000 --maxclients 8
		check "$name: the limit" client limit 1000000
		check "$name: ends" stop
	done
done

echo "kvstore.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
