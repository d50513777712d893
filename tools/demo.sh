#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what is missing, builds quarry, and runs a real redis-server under it with redis-benchmark as the client,
# beside the same server on glibc's malloc and on the jemalloc that Debian links it with.
#
#   tools/demo.sh [--quick] [--json] [--no-deps] [--rounds=N]
#
# --quick    one short round (about 20 seconds) instead of five (2 to 3 minutes)
# --json     the result as one JSON object on standard output instead of a table
# --no-deps  install nothing
# Progress goes to standard error. The build is in build-demo/. Listens on 127.0.0.1 only, on a port that was free.
set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "$0")/.." && pwd)
build=$top/build-demo
rounds=5 keys=200000 operations=200000 single=40000 idle=6 json=no deps=yes

for argument in "$@"; do
	case $argument in
	--quick) rounds=1 keys=50000 operations=60000 single=15000 idle=3 ;;
	--json) json=yes ;;
	--no-deps) deps=no ;;
	--rounds=[1-9]*) rounds=${argument#--rounds=} ;;
	-h | --help) sed -n '3,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) echo "demo: unknown argument '$argument' (--help)" >&2; exit 2 ;;
	esac
done

say() {
	echo "demo: $*" >&2
}

die() {
	say "$*"
	exit 1
}

# ---- Build ----------------------------------------------------------------------------------------------------

prepare() {
	if [[ $deps == yes ]]; then
		bash "$top/tools/install-deps.sh" build demo >&2
	fi
	[[ ! -e $top/config.status ]] || die "the tree itself is configured: run 'make distclean' in $top first"
	mkdir -p "$build"
	local log=$build/demo-build.log
	say "building in $build"
	if ! {
		{ [[ -x $top/configure ]] || (cd "$top" && ./autogen.sh); } &&
			cd "$build" && { [[ -e Makefile ]] || "$top/configure" --disable-static; } &&
			make -j"$(nproc)"
	} >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		die "the build failed; all of it is in $log"
	fi
	quarry_so=$build/.libs/libquarry-malloc.so
	[[ -e $quarry_so ]] || die "$quarry_so was not built"
}

# ---- The server -----------------------------------------------------------------------------------------------

# What to preload for an allocator. Debian's redis-server is linked with libjemalloc.so.2, so that its malloc is
# jemalloc's unless another comes earlier in the search order. For glibc, libc itself is preloaded.
preload_of() {
	case $1 in
	quarry) echo "$quarry_so" ;;
	glibc) echo libc.so.6 ;;
	jemalloc) echo "" ;;
	esac
}

# The library that redis-server's malloc, calloc, realloc, free and malloc_usable_size come from, as the dynamic
# linker tells it; several words when they are not all of one.
malloc_home() {
	LD_BIND_NOW=1 LD_DEBUG=bindings LD_DEBUG_OUTPUT=$tmp/bindings LD_PRELOAD=$(preload_of "$1") \
		"$server_program" --version >/dev/null
	# shellcheck disable=SC2016 # the quotes are the linker's
	sed -n 's/.*binding file [^ ]*redis-server \[0\] to \([^ ]*\) .*symbol `\(malloc\|calloc\|realloc\|free\|malloc_usable_size\)'"'"'.*/\1/p' \
		"$tmp"/bindings.* | sed 's@.*/@@' | sort -u | tr '\n' ' '
	rm -f "$tmp"/bindings.*
}

check_home() {
	local home wanted
	case $1 in
	quarry) wanted='libquarry-malloc.so*' ;;
	glibc) wanted='libc.so.6' ;;
	jemalloc) wanted='libjemalloc.so*' ;;
	esac
	home=$(malloc_home "$1")
	# shellcheck disable=SC2053 # a pattern is meant
	[[ ${home% } == $wanted ]] || return 1
	say "$1: redis-server's malloc is ${home% }"
}

# cli ALLOCATOR ARGUMENTS…: redis-cli to its server.
cli() {
	redis-cli -h 127.0.0.1 -p "${port[$1]}" "${@:2}"
}

port_is_free() {
	! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# start_server ALLOCATOR: sets its pid and port. The choice of a port and its use are not one step: when the
# server that answers is not ours, another port is tried.
start_server() {
	local allocator=$1 attempt i options=()
	# Without jemalloc as its malloc, there is nothing for jemalloc's own thread to tend.
	[[ $allocator == jemalloc ]] || options=(--jemalloc-bg-thread no)
	mkdir -p "$tmp/$allocator"
	for attempt in 1 2 3 4 5; do
		port[$allocator]=$((20000 + SRANDOM % 30000)) # RANDOM has the workload's seed
		port_is_free "${port[$allocator]}" || continue
		env LD_PRELOAD="$(preload_of "$allocator")" QUARRY_OPTIONS=stats_at_exit=json \
			"$server_program" --bind 127.0.0.1 --port "${port[$allocator]}" --protected-mode yes --save '' \
			--appendonly no --daemonize no --dir "$tmp/$allocator" --databases 1 --disable-thp no \
			--loglevel warning "${options[@]}" \
			>"$tmp/$allocator/out" 2>"$tmp/$allocator/err" </dev/null &
		pid[$allocator]=$!
		for ((i = 0; i < 200; i++)); do
			kill -0 "${pid[$allocator]}" 2>/dev/null || break
			if [[ $(cli "$allocator" INFO server 2>/dev/null | tr -d '\r' | sed -n 's/^process_id://p') == \
				"${pid[$allocator]}" ]]; then
				return 0
			fi
			sleep 0.05
		done
		stop_server "$allocator"
		say "the server did not come up on port ${port[$allocator]} (attempt $attempt)"
		tail -n 5 "$tmp/$allocator/out" "$tmp/$allocator/err" >&2
	done
	die "redis-server does not start under $allocator"
}

# End a server that we started, if it is still there, and wait for it.
stop_server() {
	local i id=${pid[$1]:-}
	[[ -n $id ]] || return 0
	kill "$id" 2>/dev/null || true
	for ((i = 0; i < 100; i++)); do
		kill -0 "$id" 2>/dev/null || break
		sleep 0.05
	done
	kill -KILL "$id" 2>/dev/null || true
	wait "$id" 2>/dev/null || true
	unset "pid[$1]"
}

# ---- Measuring ------------------------------------------------------------------------------------------------

declare -A sample # sample[ALLOCATOR,METRIC]: the values of the rounds
refused=         # what the machine refused to quarry in the last round
turn=() turns=0

record() {
	sample[$1,$2]+="${3:-} "
}

# bench ALLOCATOR TEST ARGUMENTS…: the requests per second of one of redis-benchmark's tests.
bench() {
	local rps
	rps=$(redis-benchmark -h 127.0.0.1 -p "${port[$1]}" --csv -t "$2" -r "$keys" -c 50 "${@:3}" 2>/dev/null |
		tr -d '"' | awk -F, -v test="${2^^}" '$1 ~ "^" test && $2 + 0 > 0 { print $2; exit }')
	if [[ -z $rps ]]; then
		say "redis-benchmark gave no figure for $2 under $1; the last that the server said:"
		tail -n 15 "$tmp/$1/out" "$tmp/$1/err" >&2
		return 1
	fi
	echo "$rps"
}

# The processor time that a process has used, in seconds.
cpu_seconds() {
	sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f", ($12 + $13) / hz }'
}

status_mib() {
	awk -v name="$2:" '$1 == name { printf "%.1f", $2 / 1024 }' "/proc/$1/status"
}

# Per cent of the server's anonymous memory that is in huge pages, transparent or hugetlb.
huge_share() {
	awk '$1 == "Anonymous:" { all += $2 }
		$1 == "AnonHugePages:" { huge += $2 }
		$1 == "Private_Hugetlb:" { all += $2; huge += $2 }
		END { if (all) printf "%.1f", 100 * huge / all }' "/proc/$1/smaps" 2>/dev/null || true
}

# Per cent of the server's anonymous pages that are on the node of the CPU that it last ran on.
local_share() {
	local cpu node path
	cpu=$(sed 's/.*) //' "/proc/$1/stat" | awk '{ print $37 }')
	node=
	for path in "/sys/devices/system/cpu/cpu$cpu"/node*; do
		[[ ! -e $path ]] || node=${path##*/node}
	done
	[[ -n $node && -r /proc/$1/numa_maps ]] || return 0
	awk -v node="$node" '/ anon=/ {
		size = 4
		for (i = 3; i <= NF; i++)
			if ($i ~ /^kernelpagesize_kB=/)
				size = substr($i, 19) + 0
		for (i = 3; i <= NF; i++)
			if ($i ~ /^N[0-9]+=/) {
				split($i, part, "=")
				all += part[2] * size
				if (part[1] == "N" node)
					here += part[2] * size
			}
	} END { if (all) printf "%.1f", 100 * here / all }' "/proc/$1/numa_maps" 2>/dev/null || true
}

# The counts in the "refused" object of quarry's statistics that are not zero: "mbind-eperm 3, thp 1".
refused_of() {
	tr -d '\n\t' <"$1" | grep -o '"refused"[[:space:]]*:[[:space:]]*{[^}]*}' | head -n 1 |
		grep -o '"[a-z0-9-]*"[[:space:]]*:[[:space:]]*[1-9][0-9]*' | tr -d '":' | tr -s ' ' |
		awk '{ printf "%s%s %s", (NR > 1 ? ", " : ""), $1, $2 }' || true
}

# Delete nine keys of ten, a batch at a time, as an application's expiry would.
delete_most() {
	local from step=10000
	for ((from = 0; from < keys; from += step)); do
		cli "$1" EVAL "for i = ARGV[1], ARGV[2] do
			if i % 10 ~= 0 then redis.call('DEL', string.format('key:%012d', i)) end
		end" 0 "$from" "$((from + step - 1))" >/dev/null
	done
	cli "$1" LTRIM mylist 0 "$((3 * operations / 10))" >/dev/null
}

# The allocators in an order that begins with another one each time, into the array `turn`.
take_turns() {
	local i
	turn=()
	for ((i = 0; i < ${#allocators[@]}; i++)); do
		turn+=("${allocators[(turns + i) % ${#allocators[@]}]}")
	done
	turns=$((turns + 1))
}

# passes COUNT METRIC TEST ARGUMENTS…: one test against each server, one server after the other, so often. The
# requests per second of the single passes go to the metric's raw samples.
passes() {
	local allocator i rps
	for ((i = 0; i < $1; i++)); do
		take_turns
		for allocator in "${turn[@]}"; do
			rps=$(bench "$allocator" "${@:3}") || exit 1
			record "$allocator" "raw-$2" "$rps"
		done
	done
}

# The round's requests per second of a metric: the requests of its passes, all alike, by the sum of their times.
record_rate() {
	record "$1" "$2" "$(tr ' ' '\n' <<<"${sample[$1,raw-$2]}" |
		awk '$1 > 0 { n++; t += 1 / $1 } END { printf "%.0f", n / t }')"
	sample[$1,raw-$2]=
}

# One round: a fresh server for each allocator, all at the same time, and each pass against one after the other, so
# that what else the machine does meets all of them alike. Fill with values of many sizes, each pass writing over
# random keys of those before; read; push on a list; one request at a time; take most away, and wait.
measure_round() {
	local allocator size metric
	for allocator in "${allocators[@]}"; do
		start_server "$allocator"
	done
	for size in "${sizes[@]}"; do
		passes 1 set set -n "$((operations / 2))" -P 16 -d "$size"
	done
	passes 3 get get -n "$operations" -P 16
	passes 3 lpush lpush -n "$operations" -P 16 -d 128
	passes 3 single set -n "$single" -P 1 -d 256
	for allocator in "${allocators[@]}"; do
		for metric in set get lpush single; do
			record_rate "$allocator" "$metric"
		done
		record "$allocator" cpu "$(cpu_seconds "${pid[$allocator]}")"
		record "$allocator" peak "$(status_mib "${pid[$allocator]}" VmHWM)"
		record "$allocator" huge "$(huge_share "${pid[$allocator]}")"
		record "$allocator" local "$(local_share "${pid[$allocator]}")"
		delete_most "$allocator"
	done
	sleep "$idle" # what the row is about: an idle server
	for allocator in "${allocators[@]}"; do
		record "$allocator" rest "$(status_mib "${pid[$allocator]}" VmRSS)"
		cli "$allocator" SHUTDOWN NOSAVE >/dev/null 2>&1 || true
		wait "${pid[$allocator]}" || die "redis-server ended with an error under $allocator"
		unset "pid[$allocator]"
	done
	grep -q '"refused"' "$tmp/quarry/err" || die "quarry wrote no statistics at the server's exit"
	refused=$(refused_of "$tmp/quarry/err")
}

# ---- The result -----------------------------------------------------------------------------------------------

median() {
	tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -g |
		awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

row() {
	local title=$1 metric=$2 format=$3 with_ratio=$4 allocator value line
	line=$(printf '%-34s' "$title")
	for allocator in "${allocators[@]}"; do
		value=$(median "${sample[$allocator,$metric]}")
		# shellcheck disable=SC2059 # the format is ours
		line+=$(printf '%12s' "$([[ -z $value ]] && echo n/a || printf "$format" "$value")")
	done
	line+=$(printf '%16s' "$(ratio "$metric" "$with_ratio")")
	echo "$line"
}

# The median of the rounds' own ratios: what disturbed one round disturbed both.
ratio() {
	[[ $2 == yes ]] || { echo –; return; }
	median "$(paste <(tr ' ' '\n' <<<"${sample[quarry,$1]}") <(tr ' ' '\n' <<<"${sample[glibc,$1]}") |
		awk '$1 > 0 && $2 > 0 { printf "%.4f ", $1 / $2 }')" | awk '{ printf "%.2f", $1 }'
}

print_table() {
	local allocator line
	echo
	echo "redis-server $redis_version, $keys keys, values of $(IFS=/; echo "${sizes[*]}") bytes, medians of $rounds round(s), interleaved; the ratio is the median of the rounds' ratios"
	echo "$(nproc) CPUs, $(node_count) memory node(s), transparent huge pages: $(thp_mode)"
	echo
	line=$(printf '%-34s' "")
	for allocator in "${allocators[@]}"; do
		line+=$(printf '%12s' "$allocator")
	done
	echo "$line$(printf '%16s' 'quarry / glibc')"
	row "SET/s, 16 at a time" set %.0f yes
	row "GET/s, 16 at a time" get %.0f yes
	row "LPUSH/s, 16 at a time" lpush %.0f yes
	row "SET/s, one at a time" single %.0f yes
	row "server's CPU time, s" cpu %.2f yes
	row "peak RSS, MiB" peak %.1f yes
	row "RSS after deleting 90 %, idle, MiB" rest %.1f yes
	row "in huge pages at the peak, %" huge %.1f no
	row "on the server's node, %" local %.1f no
	echo
	echo "refused by the machine to quarry: ${refused:-nothing}"
	[[ " ${allocators[*]} " == *" jemalloc "* ]] || echo "(this redis-server is not linked with jemalloc: no column for it)"
	echo "The server is one process with its default of threads; --disable-thp no for all, or redis would forbid huge pages."
}

node_count() {
	local nodes=(/sys/devices/system/node/node[0-9]*)
	if [[ -e ${nodes[0]} ]]; then echo "${#nodes[@]}"; else echo 1; fi
}

thp_mode() {
	sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || echo none
}

print_json() {
	local allocator metric first=yes inner
	printf '{"redis":"%s","cpus":%s,"nodes":%s,"thp":"%s","rounds":%s,"keys":%s,"seed":%s,\n' \
		"$redis_version" "$(nproc)" "$(node_count)" "$(thp_mode)" "$rounds" "$keys" "$seed"
	printf ' "units":{"set":"1/s","get":"1/s","lpush":"1/s","single":"1/s","cpu":"s","peak":"MiB","rest":"MiB","huge":"%%","local":"%%"},\n'
	printf ' "samples":{'
	for allocator in "${allocators[@]}"; do
		[[ $first == yes ]] || printf ','
		printf '\n  "%s":{' "$allocator"
		first=no inner=yes
		for metric in set get lpush single cpu peak rest huge local; do
			[[ $inner == yes ]] || printf ','
			printf '"%s":[%s]' "$metric" "$(tr -s ' ' ',' <<<"${sample[$allocator,$metric]}" | sed 's/^,*//; s/,*$//')"
			inner=no
		done
		printf '}'
	done
	printf '},\n "refused":{%s}}\n' \
		"$(sed 's/\([a-z][a-z0-9-]*\) \([0-9][0-9]*\)/"\1":\2/g; s/, /,/g' <<<"$refused")"
}

# ---- All together ---------------------------------------------------------------------------------------------

declare -A pid port # of the servers, by allocator
tmp=$(mktemp -d)
cleanup() {
	local allocator
	for allocator in "${!pid[@]}"; do
		stop_server "$allocator"
	done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

prepare
server_program=$(command -v redis-server) || die "redis-server is not installed (tools/install-deps.sh demo)"
command -v redis-benchmark >/dev/null || die "redis-benchmark is not installed (tools/install-deps.sh demo)"
redis_version=$("$server_program" --version | sed 's/.* v=\([^ ]*\).*/\1/')

seed=20240607
RANDOM=$seed
sizes=()
for ((i = 0; i < 6; i++)); do
	sizes+=($((64 + RANDOM % 121 * 8))) # 64 to 1024
done
say "values of ${sizes[*]} bytes (seed $seed)"

allocators=(quarry glibc)
for allocator in "${allocators[@]}"; do
	check_home "$allocator" || die "$allocator is not what redis-server would allocate from: $(malloc_home "$allocator")"
done
if check_home jemalloc; then
	allocators+=(jemalloc)
fi

for ((round = 1; round <= rounds; round++)); do
	say "round $round of $rounds: ${allocators[*]}"
	measure_round
done

if [[ $json == yes ]]; then
	print_json
else
	print_table
fi
