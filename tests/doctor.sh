#!/bin/bash
# SPDX-License-Identifier: MIT
# `quarry doctor` on a machine of several nodes that only its files know: a tree in the place of /sys, in a mount
# namespace of its own. The kernel behind it is the real one, and knows as many nodes as it has: on a machine of one
# node it lets nothing be had on the others, so that they count as closed. What is tried instead of read is the real
# kernel's, too, and is tests/command.sh's business.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/doctor.sh
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
quarry=${QUARRY:-${abs_top_builddir:-$src}/quarry}
if [[ ! -x $quarry ]]; then
	echo "doctor.sh: $quarry is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-doctor.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

if ! unshare -m true 2>/dev/null; then
	echo "doctor.sh: no mount namespace to be had here (it takes root)"
	exit 77
fi
if [[ $(cat /sys/devices/system/node/online 2>/dev/null) != 0 ]]; then
	echo "doctor.sh: the kernel has other nodes than node 0 alone"
	exit 77
fi

. "$src/tests/checks.sh"
line() { grep -qxF -e "$1" "$work/out"; }
matches() { grep -qE -e "$1" "$work/out"; }
absent() { ! matches "$1"; }
fix_of() { # fix_of CHECK TEXT
	awk -v check="$1" '/^(ok|LACK|\?) / { in_it = $2 == check } in_it && /^        fix: / { print }' "$work/out" | grep -qF -e "$2"
}

# ---- The machine ----------------------------------------------------------------------------------------------
sys=$work/sys
nodes=$sys/devices/system/node
put() { # put TEXT FILE
	mkdir -p "${2%/*}"
	echo "$1" >"$2"
}
node() { # node ID CPUS CPUMAP DISTANCES KIBIBYTES
	put "$2" "$nodes/node$1/cpulist"
	put "$3" "$nodes/node$1/cpumap"
	put "$4" "$nodes/node$1/distance"
	put "Node $1 MemTotal: $5 kB
Node $1 MemFree: $5 kB" "$nodes/node$1/meminfo"
}
pool() { # pool ID KIBIBYTES FREE TOTAL
	put "$3" "$nodes/node$1/hugepages/hugepages-$2kB/free_hugepages"
	put "$4" "$nodes/node$1/hugepages/hugepages-$2kB/nr_hugepages"
}
hmat() { # hmat ID INITIATOR BANDWIDTH LATENCY
	local folder=$nodes/node$1/access0/initiators name
	for name in read_bandwidth write_bandwidth; do put "$3" "$folder/$name"; done
	for name in read_latency write_latency; do put "$4" "$folder/$name"; done
	ln -sf "../../../node$2" "$folder/node$2"
}

all=$(getconf _NPROCESSORS_CONF) # what there is, and
cpus=$(nproc)                    # what this process may run on

mask() { # mask FIRST LAST: words of 32 CPUs, the highest first
	local word cpu value comma=
	for ((word = (all - 1) / 32; word >= 0; word--)); do
		value=0
		for ((cpu = word * 32; cpu < word * 32 + 32; cpu++)); do
			((cpu < $1 || cpu > $2)) || value=$((value | 1 << (cpu % 32)))
		done
		printf '%s%08x' "$comma" $value
		comma=,
	done
}
make_machine() {
	local cpu thp=$sys/kernel/mm/transparent_hugepage
	rm -rf "$sys"
	for cpu in $(seq 0 $((all - 1))); do
		put "$(mask "$cpu" "$cpu")" "$sys/devices/system/cpu/cpu$cpu/topology/thread_siblings"
		put "$(mask 0 $((all - 1)))" "$sys/devices/system/cpu/cpu$cpu/topology/core_siblings"
		put "$cpu" "$sys/devices/system/cpu/cpu$cpu/topology/core_id"
		put 0 "$sys/devices/system/cpu/cpu$cpu/topology/physical_package_id"
	done
	put "0-$((all - 1))" "$sys/devices/system/cpu/online"
	put 0,2,70 "$nodes/online"
	put 0,2 "$nodes/has_memory"
	put 0 "$nodes/has_cpu"
	node 0 "0-$((all - 1))" "$(mask 0 $((all - 1)))" "10 17 40" 4194304
	node 2 "" 0 "17 10 31" 1048576
	node 70 "" 0 "40 31 10" 0
	pool 0 2048 60 100
	pool 2 2048 1 2
	hmat 0 0 20480 80
	hmat 2 0 92160 120
	put "always [madvise] never" "$thp/enabled"
	put "always defer defer+madvise [madvise] never" "$thp/defrag"
	put 2097152 "$thp/hpage_pmd_size"
	put "[always] inherit madvise never" "$thp/hugepages-64kB/enabled"
	put "always inherit madvise [never]" "$thp/hugepages-128kB/enabled"
	put "always [inherit] madvise never" "$thp/hugepages-2048kB/enabled"
	put 1 "$thp/khugepaged/defrag"
	put 4 "$sys/kernel/mm/mempolicy/weighted_interleave/node0"
	put 9 "$sys/kernel/mm/mempolicy/weighted_interleave/node2"
	put 8 "$sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
}
doctor() {
	# shellcheck disable=SC2016 # the inner shell's
	unshare -m sh -c 'mount --bind "$0" /sys && exec "$@"' "$sys" "$quarry" doctor "$@" >"$work/out" 2>"$work/err"
}

# ---- What it says of it ---------------------------------------------------------------------------------------
make_machine
doctor
check "its status" is $? 0
check "nothing else" is "$(cat "$work/err")" ""
list=$(cat "$nodes/node0/cpulist")
check "a node of CPUs and memory" line "node 0: CPUs $list, 4.0 GiB of 4.0 GiB free, 60 of 100 pages of 2 MiB free, 20.0 GiB/s, 80 ns"
check "a node of memory only, closed" line \
	"node 2: memory only, 1.0 GiB of 1.0 GiB free, 1 of 2 pages of 2 MiB free, 90.0 GiB/s, 120 ns, closed by the cpuset"
check "a node of neither" line "node 70: memory only, no memory"
check "distances: the head" line "distance      0    2   70"
check "distances: a row" line "         2   17   10   31"
check "what is open" matches '^LACK  nodes  .* 1 node \(0\) of 3 open to this process, closed by the cpuset: 2$'
check "how to open it" fix_of nodes "cpuset-mems 0,2,70"
check "distances" matches '^ok    distances  .*17 to 40 '
check "CPUs with memory" matches "^ok    cpu-nodes  *$cpus CPUs"
check "HMAT" matches '^ok    hmat '
check "weights" matches '^ok    weights  *node 0: 4, node 2: 9$'
check "sizes of transparent pages" matches '^ok    thp-sizes  *64.0 KiB always, 2.0 MiB inherit; the others never$'
check "khugepaged" matches '^ok    khugepaged '
check "pages beyond the pools" matches '^ok    hugetlb-2m-surplus  *up to 8 pages'
check "pools of what is open" matches '^[^ ]+ +hugetlb-2m  *60 of 100 pages free'
doctor --json
check "JSON: its status" is $? 0
check "JSON: a node" matches '^\{"id":2,"index":-1,"has_cpus":0,"has_memory":1,"allowed":0,"cpus":"",.*"huge_free_2m":1,"huge_total_2m":2,.*"bandwidth":92160,"latency":120,"distances":\[17,10,31\]\}'

# Less of it.
rm -rf "$nodes"/node*/access0
put "always inherit madvise [never]" "$sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
put 0 "$sys/kernel/mm/transparent_hugepage/khugepaged/defrag"
put "[always] defer defer+madvise madvise never" "$sys/kernel/mm/transparent_hugepage/defrag"
rm "$nodes/node2/distance"
doctor
check "no HMAT" matches '^LACK  hmat .* of nodes 0,2$'
check "no HMAT: which" matches 'quarry_node_best knows no node'
check "no distances" matches '^LACK  distances '
check "no distances: the table" line "         2    ?   10    ?"
check "a size that is off" fix_of thp-sizes "echo inherit > /sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
check "khugepaged off" fix_of khugepaged "khugepaged/defrag"
check "defrag" fix_of thp-defrag "defer+madvise"

# Nodes that the kernel behind knows nothing of, at a bandwidth of their own, and weights that know nothing of that.
make_machine
put 4 "$sys/kernel/mm/mempolicy/weighted_interleave/node2"
doctor
check "equal weights" fix_of weights "weighted_interleave/nodeN"
hmat 0 0 92160 80
doctor
check "equal weights, and equal bandwidths" matches '^ok    weights '

# A list of CPUs as on a machine where every other one is the node's.
put "$(seq -s , 0 2 400)" "$nodes/node0/cpulist"
doctor
check "a long list of CPUs" matches '^node 0: CPUs 0,2,4,.*,[.][.][.], 4.0 GiB'

# The CPUs are all of a node without memory.
put 2 "$nodes/has_memory"
doctor
check "CPUs without memory" matches "^LACK  cpu-nodes  *$cpus of $cpus CPUs"

# One node.
make_machine
put 0 "$nodes/online"
put 0 "$nodes/has_memory"
put 10 "$nodes/node0/distance"
rm -rf "$nodes/node2" "$nodes/node70"
doctor
check "one node" matches '^ok    nodes  *1 node, all open'
check "one node: no table" absent '^distance'
check "one node: nothing between" absent '^[^ ]+ +(hmat|distances|weights|cpu-nodes|zone-reclaim|numa-balancing|hugetlb-2m-nodes) '

echo "doctor.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
