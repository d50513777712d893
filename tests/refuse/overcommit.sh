#!/bin/bash
# SPDX-License-Identifier: MIT
# vm.overcommit_memory=2: the kernel promises no more memory than there is, and counts what could be written to. The
# setting is the whole machine's. It is put back whatever happens, and is not touched unless there is room to spare.
. "$(dirname "$0")/lib.sh"
proc=/proc/sys/vm

# Asked by writing what is there already.
for file in overcommit_memory overcommit_ratio; do
	{ cat $proc/$file >$proc/$file; } 2>/dev/null ||
		skip "vm.$file cannot be set here: what vm.overcommit_memory=2 does was not tested"
done
figure() {
	awk -v f="$1:" '$1 == f { print $2 }' /proc/meminfo
}
mode=$(cat $proc/overcommit_memory)
ratio=$(cat $proc/overcommit_ratio)
kbytes=$(cat $proc/overcommit_kbytes)
total=$(figure MemTotal) swap=$(figure SwapTotal) committed=$(figure Committed_AS)
[ "$mode" != 2 ] || say "vm.overcommit_memory is 2 here already"

# What is promised so far and 4 GiB, but at least half of the memory.
wanted=$((committed + 4 * 1024 * 1024 - swap))
percent=$(((wanted * 100 + total - 1) / total))
[ $percent -ge 50 ] || percent=50
restore() {
	echo "$mode" >$proc/overcommit_memory
	# Each of the two sets the other to 0.
	if [ "$kbytes" -ne 0 ]; then
		echo "$kbytes" >$proc/overcommit_kbytes
	else
		echo "$ratio" >$proc/overcommit_ratio
	fi
}
trap 'restore; at_exit' EXIT
echo $percent >$proc/overcommit_ratio && echo 2 >$proc/overcommit_memory || fail "the settings were not taken"
say "vm.overcommit_memory=2, vm.overcommit_ratio=$percent: $(figure CommitLimit) KiB in all," \
	"$(figure Committed_AS) promised"
# A reserved window must not count. (Runs without the library live under the same setting here.)
suite env
restore
now="$(cat $proc/overcommit_memory) $(cat $proc/overcommit_ratio) $(cat $proc/overcommit_kbytes)"
[ "$now" = "$mode $ratio $kbytes" ] || fail "the settings were not put back"
