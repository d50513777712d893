#!/bin/bash
# SPDX-License-Identifier: MIT
# The key-value server (examples/kvstore) on handles beside itself on malloc, as glibc has it and as the peers that are
# installed have it, and beside a real redis-server: `make bench-kvstore`.
#
# What stays in memory: keys are set, overwritten in another order with values of another size, and 90 % are deleted at
# random; three seconds later it is asked what the kernel holds for the process (Rss), and how many bytes the server says
# its keys and values take ("used_memory": of ours what was asked for them, with 28 bytes of record each; of redis what it
# allocated). Then requests a second and the server's own processor time for each (all its threads), handles and malloc in
# turn in each round, by redis-benchmark: medians, and medians of the rounds' ratios.
#
#	bench/kvstore.sh [--quick] [--memory | --speed] [--rounds N]     SO=libquarry.so CC=cc; 15 rounds
set -eu
export LC_ALL=C
unset LD_PRELOAD QUARRY_OPTIONS

src=$(cd "$(dirname "$0")/.." && pwd)
library=${SO:-$PWD/.libs/libquarry.so}
rounds=15 what="memory speed" scale=1
while [[ $# -gt 0 ]]; do
	case $1 in
	--quick) rounds=3 scale=10 ;;
	--memory | --speed) what=${1#--} ;;
	--rounds) rounds=$2; shift ;;
	*) sed -n '3,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done
for tool in redis-cli redis-benchmark; do
	command -v $tool >/dev/null || { echo "kvstore.sh: $tool is not installed (Debian: redis-tools)" >&2; exit 1; }
done
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-bench-kvstore.XXXXXX")
servers=()
end() {
	[[ ${#servers[@]} == 0 ]] || kill "${servers[@]}" 2>/dev/null || true
	wait
	rm -rf "$work"
}
trap end EXIT

"${CC:-cc}" -std=gnu11 -O2 -I"$src/include" -o "$work/kvstore" "$src"/examples/kvstore/*.c -pthread "$library" \
	-Wl,-rpath,"${library%/*}"

start() { # start PRELOAD COMMAND...: into $server and $port
	local preload=$1 n
	shift
	: >"$work/said"
	if [[ $1 == redis-server ]]; then
		# (It takes no port of the kernel's choice.)
		port=$((20000 + RANDOM % 10000))
		set -- "$@" --port $port --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
	else
		port=
		set -- "$@" --port 0
	fi
	LD_PRELOAD=$preload "$@" >"$work/said" 2>&1 &
	server=$!
	servers+=($server)
	for ((n = 0; n < 200; n++)); do
		[[ -n $port ]] || port=$(sed -n 's/^port //p' "$work/said")
		[[ -z $port ]] || [[ $(redis-cli -p "$port" ping 2>/dev/null) != PONG ]] || return 0
		sleep 0.05
	done
	cat "$work/said" >&2
	return 1
}
stop() {
	kill "$server"
	wait "$server" || true
	servers=()
}

# ---- memory ----

resident() { awk '/^Rss/ { print $2 * 1024 }' "/proc/$server/smaps_rollup"; }
used() { redis-cli -p "$port" info memory | tr -d '\r' | sed -n 's/^used_memory://p'; }

requests() { # requests SEED COUNT set SIZE | requests SEED COUNT del PERCENT-KEPT
	awk -v seed="$1" -v n="$2" -v what="$3" -v size="$4" 'BEGIN {
		srand(seed)
		if (what == "del") {
			for (i = 0; i < n; i++)
				if (rand() * 100 >= size)
					printf "*2\r\n$3\r\nDEL\r\n$16\r\nkey:%012d\r\n", i
			exit
		}
		value = sprintf("%" size "s", "")
		gsub(/ /, "x", value)
		for (i = 0; i < n; i++)
			order[i] = i
		for (i = n - 1; i > 0; i--) {
			j = int(rand() * (i + 1)); t = order[i]; order[i] = order[j]; order[j] = t
		}
		for (i = 0; i < n; i++)
			printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%s\r\n", order[i], size, value
	}'
}

stages() { # stages NAME PRELOAD COMMAND...
	local name=$1 peak after live held left
	shift
	start "$@"
	for n in 1 2 3; do
		redis-cli -p "$port" --pipe <"$work/stage.$n" >/dev/null
		[[ $n != 2 ]] || peak=$(resident)
	done
	after=$(resident)
	sleep 3
	held=$(resident)
	live=$(used)
	left=$(redis-cli -p "$port" dbsize)
	stop
	awk -v name="$name" -v peak="$peak" -v after="$after" -v held="$held" -v live="$live" -v data=$((left * (16 + second))) '
	BEGIN {
		m = 1048576
		printf "  %-26s %8.1f %8.1f %8.1f %8.1f %8.2f %8.2f\n", name, peak / m, after / m, held / m, live / m,
			held / live, held / data
	}'
}

# Debian's peers, where they are.
peer() { ldconfig -p | sed -n "s/.*$1 .*=> //p" | head -1; }

memory() { # memory KEYS FIRST SECOND
	local keys=$(($1 / scale)) path
	second=$3
	requests 7 $keys set "$2" >"$work/stage.1"
	requests 8 $keys set "$3" >"$work/stage.2"
	requests 9 $keys del 10 >"$work/stage.3"
	echo
	echo "$keys keys of 16 bytes, values of $2, then of $3 bytes, then 90 % deleted; MiB resident"
	printf "  %-26s %8s %8s %8s %8s %8s %8s\n" "" peak deleted "3 s on" used "/ used" "/ data"
	stages "handles" "" "$work/kvstore"
	stages "malloc: glibc" "" "$work/kvstore" --malloc
	for name in jemalloc.so.2 mimalloc.so.2 tcmalloc_minimal.so.4; do
		path=$(peer "lib$name")
		[[ -z $path ]] || stages "malloc: ${name%%.*}" "$path" "$work/kvstore" --malloc
	done
	[[ ! -e ${library%/*}/libquarry-malloc.so ]] ||
		stages "malloc: quarry" "${library%/*}/libquarry-malloc.so" "$work/kvstore" --malloc
	if command -v redis-server >/dev/null; then
		stages "redis-server (jemalloc)" "" redis-server
	else
		echo "  (redis-server is not installed)"
	fi
}

# ---- speed ----

ran() { cat /proc/"$1"/task/*/schedstat | awk '{ t += $1 } END { printf "%.0f", t }'; } # ns of processor time

ways=(handles malloc)
declare -A pid at
speed() { # speed TEST REQUESTS OPTIONS...
	local name=$1 n=$(($2 / scale)) round i way before rate
	shift 2
	rm -f "$work"/figures.*
	for ((round = -1; round < rounds; round++)); do # one to warm up
		for i in 0 1; do
			way=${ways[(i + round + 1) % 2]}
			before=$(ran "${pid[$way]}")
			rate=$(redis-benchmark -p "${at[$way]}" -t "$name" -n $n -r 1000000 "$@" --csv | tail -1 | cut -d '"' -f 4)
			((round < 0)) || echo "$rate $((($(ran "${pid[$way]}") - before) / n))" >>"$work/figures.$way"
		done
	done
	paste "$work/figures.handles" "$work/figures.malloc" | awk -v name="$name $*" '
	function median(a, n,  i, j, t) {
		for (i = 2; i <= n; i++)
			for (j = i; j > 1 && a[j - 1] > a[j]; j--) {
				t = a[j]; a[j] = a[j - 1]; a[j - 1] = t
			}
		return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
	}
	{ h[NR] = $1; ht[NR] = $2; m[NR] = $3; mt[NR] = $4; r[NR] = $1 / $3; rt[NR] = $2 / $4 }
	END {
		printf "  %-22s %10.0f %10.0f  x %.3f    %7.0f %7.0f  x %.3f\n", name, median(h, NR), median(m, NR),
			median(r, NR), median(ht, NR), median(mt, NR), median(rt, NR)
	}'
}

if [[ $what == *memory* ]]; then
	echo "kvstore: memory"
	memory 1000000 100 180
	memory 500000 400 700
fi
if [[ $what == *speed* ]]; then
	echo
	echo "kvstore: requests a second, and ns of the server's processor time for each; handles, malloc (glibc), handles / malloc;"
	echo "a million keys, values of 100 bytes, 50 connections, medians of $rounds rounds in turn"
	for way in "${ways[@]}"; do
		if [[ $way == malloc ]]; then start "" "$work/kvstore" --malloc; else start "" "$work/kvstore"; fi
		pid[$way]=$server at[$way]=$port
		redis-benchmark -p "$port" -t set -n $((3000000 / scale)) -r 1000000 -d 100 -P 32 -q >/dev/null
	done
	speed set 100000 -d 100
	speed get 100000 -d 100
	speed set 500000 -d 100 -P 16
	speed get 500000 -d 100 -P 16
	speed incr 500000 -P 16
	speed mset 50000 -d 100 -P 16
fi
