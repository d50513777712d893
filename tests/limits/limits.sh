#!/bin/bash
# SPDX-License-Identifier: MIT
# Limits that the kernel enforces, in real control groups made below the one that this runs in, v1 or v2. Memory: a spike
# into the limit is ENOMEM and nobody is killed; what is cached goes back when the limit comes down; by the reclaimer's
# thread and without one; memory with descriptors counts once. Hugetlb pages: what the group does not allow comes in pages of another kind, and no SIGBUS.
# What cannot be tried here is left out, and said.
#
# Run by make check; by hand: QUARRY_SO=…/libquarry-malloc.so tests/limits/limits.sh
set -u
exec 2>&1
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
step_limit=120 # seconds for a step
huge_pages=12

: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[[ -f $QUARRY_SO ]] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
QUARRY_SO=$(readlink -f "$QUARRY_SO")
unset LD_PRELOAD QUARRY_OPTIONS

work=$(mktemp -d) || exit 1
why=$work/why
# shellcheck source=tests/memory-group.sh
. "$here/../memory-group.sh"
lent=
pool=
pool_was=
cleanup() {
	drop_group
	[[ -z $lent ]] || (echo -hugetlb >"$lent/cgroup.subtree_control") 2>/dev/null
	[[ -z $pool_was ]] || echo "$pool_was" >"$pool"
	rm -rf "$work"
}
trap cleanup EXIT
"${CC:-cc}" -std=gnu11 -O2 -Wall -fno-builtin -I"$here/../../include" -o "$work/limits" "$here/limits.c" -ldl \
	>"$work/compiler" 2>&1 || { cat "$work/compiler"; exit 1; }

errors=0 tried=0
run() { # WHAT OPTIONS ARGUMENT...
	local what=$1 options=$2 status
	shift 2
	timeout -k 5 $step_limit env LD_PRELOAD="$QUARRY_SO" QUARRY_OPTIONS="$options" "$work/limits" "$@"
	status=$?
	tried=$((tried + 1))
	case $status in
	0) echo "ok: $what"; return ;;
	124) echo "FAIL: $what: hangs" ;;
	135) echo "FAIL: $what: SIGBUS" ;;
	137) echo "FAIL: $what: was killed" ;;
	*) echo "FAIL: $what: status $status" ;;
	esac
	errors=$((errors + 1))
}

# ---- Memory
if make_memory_group "quarry-limits-$$"; then
	run "memory, $version, with the reclaimer's thread" decay_ms=3600000,reclaim=parallel memory "$group" "$version"
	run "memory, $version, in series" decay_ms=3600000,reclaim=series,reclaim_interval=64 memory "$group" "$version"
	run "memory with descriptors, $version" reclaim=parallel files "$group" "$version"
else
	echo "left out: no memory cgroup can be made here: $(tail -n 1 "$why")"
fi
drop_group

# ---- Hugetlb pages, v2
make_hugetlb_group() {
	local own base
	own=$(own_of '')
	base=$(mount_of cgroup2 '')
	if [[ -z $base ]] || ! grep -qw hugetlb "$base${own%/}/cgroup.controllers" 2>/dev/null; then
		echo "no hugetlb controller of cgroup v2 here" >"$why"
		return 1
	fi
	base=$base${own%/}
	if ! grep -qw hugetlb "$base/cgroup.subtree_control"; then
		(echo +hugetlb >"$base/cgroup.subtree_control") 2>"$why" || return 1
		lent=$base
	fi
	group=$base/quarry-limits-$$
	mkdir "$group" 2>"$why" || { group=; return 1; }
	[[ -w $group/hugetlb.2MB.max ]] || { echo "no hugetlb.2MB.max" >"$why"; return 1; }
}

# A pool that somebody has is left alone; an empty one is ours for a moment. Tests that fill it take turns by a lock
# on its file, which goes with this process.
make_pool() {
	pool=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
	[[ -r $pool ]] && exec {turn}<"$pool" && flock "$turn" &&
		[[ $(<"$pool") == 0 ]] || { echo "the pool of 2 MiB pages is somebody's" >"$why"; return 1; }
	[[ -w $pool ]] || { echo "the pool cannot be written" >"$why"; return 1; }
	pool_was=0
	(echo $huge_pages >"$pool") 2>"$why"
	[[ $(<"$pool") == "$huge_pages" ]] || { echo "no free memory for $huge_pages huge pages" >"$why"; return 1; }
}

if make_hugetlb_group && make_pool; then
	run "hugetlb pages beyond the group's" pages=2m hugetlb "$group"
else
	echo "left out: hugetlb pages in a cgroup: $(tail -n 1 "$why")"
fi

if ((errors > 0)); then
	echo "limits: $errors failures"
	exit 1
fi
if ((tried == 0)); then
	echo "limits: skipped: no control group can be made here"
	exit 77
fi
echo "limits: ok"
