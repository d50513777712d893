#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# shellcheck shell=dash
# The first and only program of a guest that tests/numa/run.sh boots. It makes the machine usable, writes what the
# kernel says of it to the second serial port, runs what /etc/topology names there, and turns the power off.
# Lines of its own begin with "guest: "; all others are the tests'.

/bin/busybox --install -s /bin
export PATH=/quarry:/bin:/usr/bin HOME=/tmp LD_LIBRARY_PATH=/quarry QUARRY_SO=/quarry/libquarry-malloc.so

mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts /dev/hugepages
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
ulimit -c 0
ulimit -l unlimited

# From run.sh: topology=NAME, shell=yes|no, extra="arguments for each program", tests="groups instead of the file's".
topology='' shell=no extra='' tests=''
. /etc/guest

if [ $shell = yes ]; then
	port=/dev/ttyS0
else
	port=/dev/ttyS1
	stty -F $port 115200 raw -echo
fi
# Descriptor 3 alone is the port: what a test leaves running does not hold it by accident.
exec 3>$port

say() {
	echo "guest: $*" >&3
}

# Control groups: v2 with all that tests of a small machine use; or cpusets as they were before (the kernel gives the
# controller to one of both only).
if grep -q '^cpuset v1' /etc/topology; then
	mkdir -p /dev/cpuset
	mount -t cpuset cpuset /dev/cpuset || say "trouble no cpusets of version 1"
fi
mount -t cgroup2 cgroup2 /sys/fs/cgroup || say "trouble no cgroup2"
for controller in cpuset memory pids; do
	[ -d /dev/cpuset ] && [ $controller = cpuset ] && continue
	echo +$controller >/sys/fs/cgroup/cgroup.subtree_control || say "trouble no controller $controller"
done

read -r up rest </proc/uptime
say "booted $up"
say "kernel $(uname -r)"

# What the kernel knows of the machine: run.sh holds it against the topology's file.
nodes=/sys/devices/system/node
say "possible $(cat $nodes/possible)"
for folder in $nodes/node[0-9]*; do
	node=${folder##*/node}
	cpus=$(cat $folder/cpulist)
	memory=$(awk '/MemTotal/ { print $4 }' $folder/meminfo)
	say "node $node cpus ${cpus:-none} memory $memory"
	say "distance $node $(cat $folder/distance)"
	for pool in $folder/hugepages/hugepages-*; do
		[ -d $pool ] || continue
		case $pool in
		*-2048kB) say "pool 2m $node $(cat $pool/nr_hugepages)" ;;
		*-1048576kB) say "pool 1g $node $(cat $pool/nr_hugepages)" ;;
		esac
	done
done
dmesg | awk '
	/acpi\/hmat: Locality: .*Type:Access Latency/ { what = "latency" }
	/acpi\/hmat: Locality: .*Type:Access Bandwidth/ { what = "bandwidth" }
	/acpi\/hmat: +Initiator-Target\[/ {
		split($0, parts, /Initiator-Target\[|-|\]:| nsec| MB\/s/)
		sub(/.*Initiator-Target\[/, "")
		split($0, parts, /-|\]:| /)
		print "guest: hmat " what " " parts[1] " " parts[2] " " parts[3]
	}' >&3

if [ $shell = yes ]; then
	cat /etc/topology
	echo "The programs are in /quarry. The power goes off when this shell ends."
	cd /tmp || exit
	setsid cttyhack sh
	poweroff -f
fi

numactl -H 2>&1 | sed 's/^/# /' >&3

run() {
	say "start $*"
	(cd /tmp && exec "$@") </dev/null >&3 2>&1 3>&-
	say "end $?"
}

while read -r word rest; do
	case $word in
	tests) run suite --topology $topology --times $extra ${tests:-$rest} ;;
	run) [ -n "$tests" ] || run $rest $extra ;;
	esac
done </etc/topology

say "done"
kill -9 -1 2>/dev/null
# Waits until all is out.
exec 3>&-
poweroff -f
