# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by tests that need a real control group: a child of the one that they run in, for nobody else is ours to limit.
#
#   mount_of TYPE OPTION     prints where a hierarchy is mounted: "cgroup memory", or "cgroup2 ''"
#   own_of CONTROLLER        prints our group in that controller's v1 hierarchy; of '' in v2's
#   make_memory_group NAME   makes a group with the memory controller, and sets `group` to its directory and `version` to v1
#                            or v2. It has no limit yet. False, and group is '', where none can be made
#   limit_memory_group BYTES its limit, swap included where swap is counted
#   drop_group               takes the group away again
#
# What failed stands in the last line of the file $why, which the caller names.

mount_of() {
	awk -v type="$1" -v option="$2" '$3 == type && (option == "" || ("," $4 ",") ~ ("," option ",")) { print $2; exit }' \
		/proc/mounts 2>/dev/null
}

own_of() {
	if [[ -n $1 ]]; then
		sed -n "s/^[0-9]*:\\([^:]*,\\)\\?$1\\(,[^:]*\\)\\?:\\(.*\\)\$/\\3/p" /proc/self/cgroup 2>/dev/null | head -n 1
	else
		sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null
	fi
}

: "${why:?a file for what failed}"
group='' version=''

drop_group() {
	[[ -z $group ]] || rmdir "$group" 2>/dev/null
	group=
}

make_memory_group() {
	local own base
	own=$(own_of memory)
	base=$(mount_of cgroup memory)
	if [[ -n $own && -n $base ]]; then
		version=v1
		# Of a container, the host's path is not there.
		[[ -d $base$own ]] || own=
		group=$base${own%/}/$1
		mkdir "$group" 2>"$why" || { group=; return 1; }
		return 0
	fi
	version=v2
	own=$(own_of '')
	base=$(mount_of cgroup2 '')
	if [[ -z $base ]] || ! grep -qw memory "$base${own%/}/cgroup.controllers" 2>/dev/null; then
		echo "no memory controller here" >"$why"
		return 1
	fi
	group=$base${own%/}/$1
	mkdir "$group" 2>"$why" || { group=; return 1; }
	if [[ ! -f $group/memory.max ]]; then
		(echo +memory >"$base${own%/}/cgroup.subtree_control") 2>"$why"
	fi
	if [[ ! -w $group/memory.max ]]; then
		echo "the memory controller is not for child groups here" >>"$why"
		drop_group
		return 1
	fi
	(echo 0 >"$group/memory.swap.max") 2>/dev/null
	return 0
}

limit_memory_group() {
	if [[ $version == v2 ]]; then
		(echo "$1" >"$group/memory.max") 2>"$why"
		return
	fi
	(echo "$1" >"$group/memory.limit_in_bytes") 2>"$why" || return 1
	(echo "$1" >"$group/memory.memsw.limit_in_bytes") 2>/dev/null
	return 0
}
