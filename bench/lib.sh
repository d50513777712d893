# SPDX-License-Identifier: MIT
# For run.sh and memory.sh, which read it with "." after setting `here` to this folder: the allocators that are
# measured, and how a program is compiled and started. Not for itself.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # what is set here is used there, and the other way round
export LC_ALL=C
names=()   # the allocators, in the order of the tables
paths=()   # their libraries; empty for glibc
labels=()  # their versions
named=()   # NAME=PATH.so of the command line
cc=${CC:-cc}
libc=$(readlink -f "$($cc -print-file-name=libc.so.6)")

say() { printf '%s\n' "$*" >&2; }
die() { say "bench: $*"; exit 2; }

# The options that both scripts have, and allocators by name. What else there is takes own_option, called with it and
# its value; its status is 0, 3 where the option has no value, or another when it does not know it.
read_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--quick) quick=1 ;;
		--rounds) rounds=${2:-}; [[ $rounds =~ ^[1-9][0-9]{0,2}$ ]] || die "--rounds takes a number from 1 to 999"; shift ;;
		--help) usage; exit 0 ;;
		-*)
			own_option "$1" "${2:-}"
			case $? in 0) shift ;; 3) ;; *) die "unknown option $1 (see --help)" ;; esac
			;;
		?*=?*) named+=("$1") ;;
		*) die "$1: name an allocator as NAME=PATH.so" ;;
		esac
		shift
	done
}

add() { # name, path, version
	local n
	[[ $1 =~ ^[A-Za-z0-9_.+-]+$ ]] || die "\"$1\" is no name for an allocator"
	for n in "${names[@]}"; do [ "$n" != "$1" ] || die "two allocators are named $1"; done
	names+=("$1"); paths+=("$2"); labels+=("$3")
}

add_named() { # name=path
	local path=${1#*=}
	[ -f "$path" ] || die "${1%%=*}: $path is not there"
	add "${1%%=*}" "$(readlink -f "$path")" "from $path"
}

find_quarry() {
	local p
	for p in ${QUARRY_SO:+"$QUARRY_SO"} .libs/libquarry-malloc.so "$here/../.libs/libquarry-malloc.so"; do
		[ -f "$p" ] || { [ "$p" != "${QUARRY_SO:-}" ] || die "QUARRY_SO: $p is not there"; continue; }
		add quarry "$(readlink -f "$p")" "built $(date -r "$(readlink -f "$p")" '+%F %T')"
		return
	done
	die "no libquarry-malloc.so: build first, or set QUARRY_SO"
}

add_packaged() { # name, package, file
	local file version
	file=/usr/lib/$($cc -print-multiarch 2>/dev/null)/$3
	[ -f "$file" ] || return 0
	version=$(dpkg-query -W -f '${Package} ${Version}' "$2" 2>/dev/null) || version="$2, version unknown"
	add "$1" "$(readlink -f "$file")" "$version"
}

# quarry, glibc, what Debian packages and is installed, and what is named in BENCH_EXTRA and on the command line.
add_all() {
	local n
	find_quarry
	add glibc '' "$(dpkg-query -W -f '${Package} ${Version}' libc6 2>/dev/null || getconf GNU_LIBC_VERSION)"
	add_packaged jemalloc libjemalloc2 libjemalloc.so.2
	add_packaged tcmalloc libtcmalloc-minimal4 libtcmalloc_minimal.so.4
	add_packaged mimalloc libmimalloc2.0 libmimalloc.so.2.0
	for n in ${BENCH_EXTRA:-} "${named[@]+"${named[@]}"}"; do
		[[ $n == ?*=?* ]] || die "BENCH_EXTRA: $n is not NAME=PATH.so"
		add_named "$n"
	done
}

# -fno-builtin: a compiler that knows malloc may leave calls out. PIE: a function's address is then the function's.
compile() { # folder for the programs, their names
	local to=$1 p
	shift
	for p in "$@"; do
		$cc -std=gnu11 -O2 -Wall -Wextra -fPIE -pie -pthread -fno-builtin-malloc -fno-builtin-free -I"$here" \
			-I"$here/.." -o "$to/$p" "$here/$p.c" "$here/bench.c" "$here/latency.c" -lm -ldl ||
			die "$p does not compile"
	done
	# Static if it can be, so that what it holds when it forks is least.
	$cc -std=gnu11 -O2 -Wall -Wextra -static -o "$to/measure" "$here/measure.c" 2>/dev/null ||
		$cc -std=gnu11 -O2 -Wall -Wextra -o "$to/measure" "$here/measure.c" || die "measure does not compile"
}

# One run of a program of ours, after compile. `redis` drives a server, which alone has the library; there glibc is
# preloaded, too, as Debian's server is linked with jemalloc. (warm_mib: see measure.c; run.sh sets it.)
launch() { # folder of the programs, library (empty: the C library's malloc), program, options
	local dir=$1 path=$2 p=$3
	shift 3
	if [ "$p" = redis ]; then
		BENCH_MALLOC_IN=libc BENCH_PRELOAD="${path:-$libc}" "$dir/measure" --warm "${warm_mib:-0}" --timeout 300 "$dir/$p" "$@"
	else
		BENCH_MALLOC_IN="${path:-libc}" "$dir/measure" ${path:+--preload "$path"} --warm "${warm_mib:-0}" --timeout 300 \
			"$dir/$p" "$@"
	fi
}

# The figures that a run printed, "name value unit" a line, with what the table's lines begin with; the program's
# result is named "time", and its other figures lose its name.
collect() { # program, separator, columns that stand before; output of the run at standard input
	awk -v p="$1" -v OFS="$2" -v head="$3" '
		NF == 3 { sub("^" p "\\.", "", $1); print head, ($1 == p ? "time" : $1), $2, $3 }'
}

list_allocators() { # the format of a line: name, version
	local i
	# shellcheck disable=SC2059 # the format is the caller's
	for i in "${!names[@]}"; do printf -- "$1\n" "${names[i]}" "${labels[i]}"; done
}

machine() {
	sed -n 's/^model name[^:]*: /cpu: /p' /proc/cpuinfo | head -1
	echo "kernel: $(uname -sr), $(getconf _NPROCESSORS_ONLN) CPUs, transparent huge pages:" \
		"$(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || echo unknown)," \
		"overcommit $(cat /proc/sys/vm/overcommit_memory 2>/dev/null || echo unknown)"
}
