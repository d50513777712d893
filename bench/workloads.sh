# SPDX-License-Identifier: MIT
# For run.sh, which reads it with ".": what is measured, in which group, and how each is started. Not for itself.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # what is set here is used there, and the other way round
#
# A line is: name; group; by how many per cent it may be slower than its fastest peer (2 where one thread does the
# work); program and options; behind the bar the options of --quick, where they are not "--ops" and quick_percent of the
# program's own number. Of the group "programs" programs.sh says how they are started; redis is driven by redis.c.
# Means are over single, threads and programs; parts and scaling have tables of their own.
workloads="
	bignum           single    2  bignum
	logic            single    2  logic
	nbody            single    2  nbody
	lisp             single    2  lisp
	json             single    2  json
	replace          single    2  replace
	pairs            single    2  pairs
	larson           threads   5  larson
	mixed            threads   5  mixed
	prodcons         threads   5  prodcons
	sharing          threads   5  sharing
	sharing-passive  threads   5  sharing --passive 1
	exchange         threads   5  exchange
	batch            threads   5  batch
	large            threads   2  large
	threads          threads   5  threads
	many             threads   5  many
	redis            programs  2  redis --mix 1 --ops 800000 | --mix 1 --ops 200000
	sqlite           programs  2  sqlite
	rocksdb          programs  5  rocksdb
	compile          programs  2  compile
	python           programs  2  python
	parts            parts     5  parts
	tail             parts     5  tail
	grow             parts     5  grow | --most 256 --ops 100000
	crowd            parts     5  crowd | --most 100 --ops 500000
	sparse           parts     5  sparse | --ops 1
"
means="single threads programs"
quick_percent=35

# Each pattern of threads at so many threads, with the same work in all; more threads than processors show what waiting
# for one costs each allocator. A producer needs a consumer; servers with threads that block have more of them from the
# start. Then a heap that grows as far as memory allows, and a crowd of idle threads.
add_scaling() {
	local p n first available most=$((2 * $(nproc) > 16 ? 2 * $(nproc) : 16)) heap=8192
	for p in larson mixed exchange sharing batch threads prodcons; do
		first=1
		[ "$p" != prodcons ] || first=2
		for ((n = first; n <= most; n *= 2)); do
			workloads+="	$p@$n scaling 5 $p --threads $n"$'\n'
		done
	done
	for n in 16 64 256; do workloads+="	many@$n scaling 5 many --threads $n"$'\n'; done
	# Twice the heap, for what an allocator may hold beside it.
	available=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
	while [ "$heap" -gt 64 ] && [ "${available:-0}" -lt $((heap * 2)) ]; do heap=$((heap / 2)); done
	workloads+="	grow-${heap}MiB scaling 5 grow --most $heap"$'\n'
	workloads+="	crowd-1000 scaling 5 crowd --most 1000"$'\n'
}

workload=() group=() limit=() program=() options=()
in_means=0 # how many workloads of the table means are over
only_names=" " only_groups=" "
# The words of --only: a workload; a group, where no workload has its name; or, with a colon before it, a group.
read_only() {
	local name in rest word words known_names=" " known_groups=" "
	while read -r name in rest; do
		[ -z "$name" ] || { known_names+="$name "; known_groups+="$in "; }
	done <<<"$workloads"
	IFS=, read -ra words <<<"$only"
	for word in "${words[@]}"; do
		[[ $word =~ ^:?[A-Za-z0-9@_-]+$ ]] || die "--only: there is no workload or group \"$word\""
		if [[ $known_names == *" $word "* ]]; then
			only_names+="$word "
		elif [[ $known_groups == *" ${word#:} "* ]]; then
			only_groups+="${word#:} "
		else
			die "--only: there is no workload or group \"$word\""
		fi
	done
}

# Is it among those that --only names? Without --only all are, but scaling is a measurement of its own.
chosen() { # name, group
	if [ -z "$only" ]; then
		[ "$2" = scaling ] && [ -z "$scaling" ] && return 1
		[ "$2" = scaling ] || [ -z "$scaling" ]
	else
		[[ $only_names == *" $1 "* || $only_groups == *" $2 "* ]]
	fi
}

# The chosen lines of the table into the arrays; the options without --quick's when it is not quick.
read_workloads() {
	local name in most p rest
	read_only
	while read -r name in most p rest; do
		[ -n "$name" ] || continue
		[[ " $means " != *" $in "* ]] || in_means=$((in_means + 1))
		chosen "$name" "$in" || continue
		if [ -n "$quick" ] && [[ $rest == *"|"* ]]; then rest=${rest#*|}; else rest=${rest%%|*}; fi
		workload+=("$name"); group+=("$in"); limit+=("$most"); program+=("$p"); options+=("$rest")
	done <<<"$workloads"
	[ "${#workload[@]}" -gt 0 ] || die "nothing is left to measure"
}
