#!/bin/bash
# SPDX-License-Identifier: MIT
# Out of memory: malloc says NULL with ENOMEM, the heap stays whole, and what is freed can be had again. Under a limit
# of the address space (ulimit -v), with small and large blocks and several threads; and in a memory cgroup, where the
# kernel kills rather than refuses: there malloc has to notice first, and memory must go round within the limit.
#
# Run by make check; by hand: QUARRY_SO=…/libquarry-malloc.so tests/oom/oom.sh
set -u
exec 2>&1
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
address_space=1000000 # KiB
group_mib=256         # of the cgroup
churn_mib=170         # what goes round in it, twenty times
step_limit=120        # seconds for a step

: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[[ -f $QUARRY_SO ]] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
QUARRY_SO=$(readlink -f "$QUARRY_SO")
unset LD_PRELOAD QUARRY_OPTIONS

work=$(mktemp -d) || exit 1
why=$work/why
# shellcheck source=tests/memory-group.sh
. "$here/../memory-group.sh"
cleanup() {
	drop_group
	rm -rf "$work"
}
trap cleanup EXIT
"${CC:-cc}" -std=gnu11 -O2 -Wall -fno-builtin -pthread -o "$work/oom" "$here/oom.c" \
	>"$work/compiler" 2>&1 || { cat "$work/compiler"; exit 1; }

errors=0
judge() { # STATUS WHAT
	case $1 in
	0) echo "ok: $2" ;;
	124) echo "FAIL: $2: hangs"; errors=$((errors + 1)) ;;
	137) echo "FAIL: $2: was killed"; errors=$((errors + 1)) ;;
	*) echo "FAIL: $2: status $1"; errors=$((errors + 1)) ;;
	esac
}

# ---- The address space
limited() {
	(ulimit -v $address_space && exec timeout -k 5 $step_limit env LD_PRELOAD="$QUARRY_SO" "$work/oom" "$@")
	judge $? "ulimit -v $address_space: oom $*"
}
limited until 1 48 48
limited until 1 64 100000
limited until 4 64 100000
limited until 1 100000 8000000
limited until 3 500000 3000000
limited until 8 32 3000

# ---- A memory cgroup
grouped() {
	timeout -k 5 $step_limit bash -c 'echo $$ >"$0/cgroup.procs" && export LD_PRELOAD=$1 && shift && exec "$@"' \
		"$group" "$QUARRY_SO" "$work/oom" "$@"
	judge $? "a cgroup of $group_mib MiB: oom $*"
	# The most that was in memory; where the kernel lets it be cleared, of this step.
	for peak in memory.max_usage_in_bytes memory.peak; do
		[[ ! -r $group/$peak ]] || echo "    at most $(($(<"$group/$peak") >> 20)) MiB in memory"
		(echo 0 >"$group/$peak") 2>/dev/null
	done
}

if ! make_memory_group "quarry-oom-$$" || ! limit_memory_group $((group_mib << 20)); then
	echo "left out: no memory cgroup can be made here: $(tail -n 1 "$why")"
else
	grouped until 1 64 100000
	grouped until 1 100000 8000000
	grouped until 4 32 3000000
	grouped churn 1 $churn_mib
	grouped churn 4 $churn_mib
fi

if ((errors > 0)); then
	echo "oom: $errors failures"
	exit 1
fi
echo "oom: ok"
