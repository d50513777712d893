#!/bin/bash
# SPDX-License-Identifier: MIT
# The layers hold: a folder includes, and its object files call, only what the table below allows. Two proofs, from
# the #include lines of the sources and from the undefined symbols of the objects (nm -u), because a declaration
# copied by hand would deceive the first and an inline function the second.
#
# Beside that: only numa/os.c, os_files.c, os_pages.c, os_signals.c and os_copy.c call the kernel, and only numa/ includes hwloc's and libnuma's headers.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/check-layers.sh
set -euo pipefail
export LC_ALL=C

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}

# ---- The table ------------------------------------------------------------------------------------------------
# layer: what it may include and call beside itself, lib/base and the public header. The layers from the top down;
# each has the one under it.
declare -A may=(
	[lib/base]=""
	[numa]=""
	[lib/block]="numa"
	[lib/manager]="lib/block"
	[lib/reclaim]="lib/manager"
	[lib/cache]="lib/manager lib/reclaim"
	[lib/api]="lib/cache"
	[lib/object]="lib/api"
	[lib/lanes]="lib/api"
	[lib/mapped]="lib/api lib/object"
	[lib/view]="lib/object lib/api lib/cache lib/reclaim lib/manager lib/block numa"
)

# How high each stands, to say of a breach whether it reaches up (a cycle in the making) or past the layer under it.
declare -A height=([lib/base]=0 [numa]=1 [lib/block]=2 [lib/manager]=3 [lib/reclaim]=3 [lib/cache]=4 [lib/api]=5 [lib/object]=6 [lib/lanes]=6 [lib/mapped]=7 [lib/view]=8)

# Exceptions: kind, layer, header or symbol, reason; the layer and the name are shell patterns. Each must be in use: a
# stale line is an error. `include` lines let a header be seen, for the structs and inline functions in it; `call`
# lines let a symbol be used.
exceptions=(
	"call|*|qy_settings|declared in lib/base for all to read; the option table is its only writer"
	"include|lib/api|numa/os.h|the page size, for valloc"
	"include|lib/api|lib/manager/events.h|the program's function is handed down to where events arise"
	"call|lib/api|qy_events_listen|the same"
	"include|lib/api|lib/manager/regions.h|the same of what becomes of regions; and not everything may be called from it"
	"call|lib/api|qy_regions_*|the same"
	"call|lib/api|qy_at_exit|named, so that a static program takes in what is told at exit; nothing is called"
	"call|lib/api|quarry_stats_get|quarry_ctl_get reads figures as any program does"
	"include|lib/cache|numa/window.h|which blocks are taken stands beside the window, like all that is never unmapped"
	"call|lib/cache|qy_meta_alloc|the same"
	"include|lib/object|numa/window.h|words of blocks' counts stand beside the window, like all that is never unmapped"
	"call|lib/object|qy_meta_alloc|the same"
	"include|lib/object|lib/manager/mistakes.h|late uses of blocks are the program's mistakes, and told like the others"
	"call|lib/object|qy_mistake|the same"
	"include|lib/object|lib/cache/taken.h|what is made of arenas' memory is told below, where it would be freed or ended"
	"call|lib/object|qy_arena_*|the same"
	"call|lib/object|qy_life_*|the same"
	"call|lib/object|qy_taken_*|the same"
	"call|lib/object|quarry_inspect|asked what a segment is of, as any program asks"
	"call|lib/object|quarry_should_move|asked which to move, as any program asks; and what that would bring"
	"call|lib/object|quarry_move_gain_get|the same"
	"call|lib/object|quarry_stats_get|a manager's figures are its arena's"
	"call|lib/cache|qy_options_init|declared in lib/base/settings.h: whoever starts quarry has the settings filled first"

	"call|lib/cache|qy_tables_begin|declared in lib/base/tables.h: before anything else is begun"
	"call|lib/cache|qy_find_elsewhere|the same: and told whether another copy of quarry does the work"

	"include|lib/manager|numa/region.h|a manager owns regions (doc/design.md): the block layer only carves them"
	"call|lib/manager|qy_region_*|the same"
	"call|lib/manager|qy_window_*|the same: the manager starts the window that its regions lie in, and holds it around fork"
	"call|lib/manager|qy_meta_alloc|the same: records of managers stand beside the window"
	"include|lib/manager|numa/thp.h|which memory is to be huge is the manager's to say, by what the machine allows"
	"call|lib/manager|qy_thp_get|the same"
	"include|lib/manager|numa/topology.h|there is one default manager per node, and one of them for the caller's"
	"call|lib/manager|qy_topology_init|the same"
	"call|lib/manager|qy_node*|the same"
	"include|lib/manager|numa/cgroup.h|what the control group has left bounds what managers hand out"
	"call|lib/manager|qy_cgroup_*|the same"
	"include|lib/manager|numa/pressure.h|how scarce the kernel says memory is, for the limits"
	"call|lib/manager|qy_pressure_*|the same"
	"include|lib/manager|numa/os.h|the clock, for decay; the process's pages in memory"
	"call|lib/manager|qy_os*|the same"
	"include|lib/object|numa/os.h|io_uring_register(2), receiving, pages moved from a buffer to a block; the clock, for waiting"
	"call|lib/object|qy_os*|the same"
	"include|lib/lanes|numa/os.h|membarrier(2), for scopes without a fence; the clock, for budgets"
	"call|lib/lanes|qy_os*|the same"
	"include|lib/lanes|lib/manager/events.h|what lanes tell is delivered by the way that events of limits go"
	"call|lib/lanes|qy_events_*|the same"
	"call|lib/mapped|quarry_node_*|where the thread runs, for what a heap notes in the process: asked as by any program"
	"include|lib/mapped|numa/os.h|files, their locks and mappings"
	"call|lib/mapped|qy_os*|the same"

	"call|lib/lanes|quarry_node_*|which nodes there are, and how far apart: asked as by any program"
	"call|lib/lanes|quarry_where|where a segment's memory really is: the same"

	"include|lib/reclaim|numa/os.h|the clock"
	"call|lib/reclaim|qy_os|the same"
	"call|lib/object|quarry_node_*|which nodes there are, and where the thread runs: asked as by any program"
	"include|lib/cache|numa/os.h|the clock, and whether a thread still lives, or is blocked"
	"call|lib/cache|qy_os|the same"
)

# Who may use the kernel's calls. Everything else goes by qy_os, so that a test can be the kernel.
kernel_calls="mmap mmap64 munmap mremap mprotect madvise mlock mlock2 munlock mincore brk sbrk syscall open open64 \
openat openat64 ioctl getcpu sched_getcpu mbind set_mempolicy get_mempolicy move_pages getrlimit getrlimit64 \
clock_gettime sysconf sysinfo"
kernel_exceptions=(
	"numa/os.c|*|the one table of calls"
	"numa/os_files.c|*|those of it for memory with descriptors"
	"numa/os_pages.c|*|and for pages that were written"
	"numa/os_signals.c|*|for signals and a timer"
	"numa/os_copy.c|*|and for a copy of the process"
	"lib/base/lock.c|syscall|futex(2): a lock sleeps, and stands below the table"
)

# ---- The proofs -----------------------------------------------------------------------------------------------
errors=0
declare -A used

complain() {
	echo "check-layers: $*"
	errors=$((errors + 1))
}

# (What follows is asked thousands of times: answers stand in a variable, for a subshell takes a millisecond.)

# The layer of a path relative to the top, in $layer_found; nothing for what is none.
layer_of() {
	case $1 in
	numa/*) layer_found=numa ;;
	lib/*/*) layer_found=${1%/*} ;;
	*) layer_found= ;;
	esac
}

# excepted KIND LAYER NAME: is there a line for it?
excepted() {
	local line rest kind layer pattern
	for line in "${exceptions[@]+"${exceptions[@]}"}"; do
		kind=${line%%|*} rest=${line#*|}
		layer=${rest%%|*} rest=${rest#*|}
		pattern=${rest%%|*}
		# shellcheck disable=SC2053 # patterns are meant
		if [[ $kind == "$1" && $2 == $layer && $3 == $pattern ]]; then
			used[$line]=1
			return 0
		fi
	done
	return 1
}

# direction LAYER OTHER: what is wrong with it.
direction() {
	if [[ ${height[$1]} -gt ${height[$2]} ]]; then
		echo "$1 reaches past the layer under it, to $2"
	elif [[ ${height[$1]} -lt ${height[$2]} ]]; then
		echo "$1 reaches UP to $2"
	else
		echo "$1 reaches SIDEWAYS to $2"
	fi
}

# allowed LAYER OTHER: by the table.
allowed() {
	[[ $1 == "$2" || $2 == lib/base ]] && return 0
	[[ " ${may[$1]} " == *" $2 "* ]]
}

check_includes() {
	local file layer header other count=0
	while IFS= read -r file; do
		layer_of "$file"
		layer=$layer_found
		if [[ -z ${may[$layer]+there} ]]; then
			complain "$file: folder $layer has no line in the table"
			continue
		fi
		while IFS= read -r header; do
			count=$((count + 1))
			case $header in
			include/quarry/* | quarry/*) continue ;;
			hwloc.h | hwloc/* | numa.h | numaif.h)
				[[ $layer == numa ]] || complain "$file includes $header: only numa/ talks to hwloc and libnuma"
				continue
				;;
			esac
			layer_of "$header"
			other=$layer_found
			if [[ -z $other ]]; then
				# A path that is none of ours is the system's; one of ours must be written from the root.
				if [[ -e $src/${file%/*}/$header ]] && grep -qF "\"$header\"" "$src/$file"; then
					complain "$file includes \"$header\": write it from the tree's root"
				fi
				continue
			fi
			[[ -e $src/$header ]] || continue
			allowed "$layer" "$other" || excepted include "$layer" "$header" ||
				complain "$file includes $header: $(direction "$layer" "$other")"
		done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1/p' "$src/$file")
	done < <(cd "$src" && find lib numa -name '*.[ch]' | sort)
	echo "check-layers: $count #include lines read"
	[[ $count -gt 0 ]] || complain "no #include line was found under $src"
}

# The source of an object of libquarry-internal, in $source: lib/api/libquarry_internal_la-malloc.o: is lib/api/malloc.c.
source_of() {
	source=${1/.libs\//}
	source=${source%/*}/${source##*/libquarry_internal_la-}
	source=${source%.o:}.c
}

# symbols_of OPTION…: "OBJECT: SYMBOL …", of all objects in the caller's $list.
symbols_of() {
	(cd "$build" && xargs nm --print-file-name --format=posix "$@" <<<"$list")
}

check_calls() {
	local object layer symbol other list count=0
	list=$(cd "$build" && find lib numa -name 'libquarry_internal_la-*.o' -not -path '*/.libs/*' | sort)
	if [[ -z $list ]]; then # built with --disable-static
		list=$(cd "$build" && find lib numa -path '*/.libs/*' -name 'libquarry_internal_la-*.o' | sort)
	fi
	if [[ -z $list ]]; then
		complain "no objects of libquarry-internal under $build: run make first"
		return
	fi
	declare -A home=()
	while read -r object symbol _; do
		source_of "$object"
		[[ ! -e $src/$source ]] || home[$symbol]=$source # (left over from a source that is gone)
	done < <(symbols_of --defined-only --extern-only)

	while read -r object symbol _; do
		source_of "$object"
		[[ -e $src/$source ]] || continue
		symbol=${symbol%%@*}
		layer_of "$source"
		layer=$layer_found
		count=$((count + 1))
		if [[ -n ${home[$symbol]+there} ]]; then
			layer_of "${home[$symbol]}"
			other=$layer_found
			allowed "$layer" "$other" || excepted call "$layer" "$symbol" ||
				complain "$source uses $symbol of ${home[$symbol]}: $(direction "$layer" "$other")"
		elif [[ " $kernel_calls " == *" $symbol "* ]]; then
			kernel_excepted "$source" "$symbol" || complain "$source calls $symbol: the kernel's calls go by qy_os"
		fi
	done < <(symbols_of --undefined-only)
	echo "check-layers: $count undefined symbols of $(wc -l <<<"$list") objects looked at"
}

kernel_excepted() {
	local line file pattern
	for line in "${kernel_exceptions[@]}"; do
		file=${line%%|*} pattern=${line#*|}
		pattern=${pattern%%|*}
		# shellcheck disable=SC2053 # a pattern is meant
		[[ $1 == "$file" && $2 == $pattern ]] && return 0
	done
	return 1
}

check_includes
check_calls
for line in "${exceptions[@]+"${exceptions[@]}"}"; do
	[[ -n ${used[$line]+there} ]] || complain "this exception is not needed any more: $line"
	[[ $line == *'|'*'|'*'|'?* ]] || complain "this exception gives no reason: $line"
done

if [[ $errors -gt 0 ]]; then
	echo "check-layers: $errors breach(es)"
	exit 1
fi
echo "check-layers: the layers hold"
