# SPDX-License-Identifier: MIT
# For run.sh and memory.sh, which read it with "." after setting `here` to this folder: the allocators that are
# measured, how a program is compiled and started, and where results go. Not for itself.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # what is set here is used there, and the other way round
export LC_ALL=C
names=()        # the allocators, in the order of the tables
paths=()        # their libraries; empty for glibc
environments=() # "VAR=value", a line each
labels=()       # their versions
named=()        # NAME=PATH.so[,VAR=value...] of the command line
cc=${CC:-cc}
libc=
timeout_s=300
seed=
dir=   # the folder of this run, which goes when it ends
links= # see name_for_preload

say() { printf '%s\n' "$*" >&2; }
die() { say "bench: $*"; exit 2; }

# The comment at the head of the script.
usage() { awk 'NR > 2 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# ---- Options ------------------------------------------------------------------------------------------------------

number_of() { # option, its value, how many digits it may have
	[[ $2 =~ ^[1-9][0-9]*$ && ${#2} -le $3 ]] || die "$1 takes a number from 1 to $((10 ** $3 - 1))"
}

value_of() { # option, its value, what it takes
	case $2 in '' | --*) die "$1 takes $3${2:+, not $2}" ;; esac
}

# The options that both scripts have, and allocators by name. What else there is takes own_option, called with it and
# its value; its status is 0, 3 where the option has no value, or another when it does not know it.
read_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--quick) quick=1 ;;
		--rounds) number_of "$1" "${2:-}" 3; rounds=$2; shift ;;
		--seed) number_of "$1" "${2:-}" 9; seed=$2; shift ;;
		--timeout) number_of "$1" "${2:-}" 5; timeout_s=$2; shift ;;
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
	: "${seed:=$((EPOCHSECONDS % 1000000 + 1))}"
	random_state=$seed
}

# Another order of so many numbers from 0, into order. The generator is Park and Miller's (1988): bash's own differs
# from one version to the next, and a seed should not.
shuffle() {
	local i j t
	order=()
	for ((i = 0; i < $1; i++)); do order[i]=$i; done
	for ((i = $1 - 1; i > 0; i--)); do
		random_state=$((random_state * 16807 % 2147483647))
		j=$((random_state / 128 % (i + 1)))
		t=${order[i]}; order[i]=${order[j]}; order[j]=$t
	done
}

# ---- Folders and files --------------------------------------------------------------------------------------------

# What is made on the way lies in one folder, also what the programs make; it goes with the script.
begin_folder() {
	dir=$(mktemp -d) || die "no temporary folder"
	dir=$(cd "$dir" && pwd)
	trap end_folder EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	export TMPDIR=$dir
}

# shellcheck disable=SC2317 # the trap calls it
end_folder() {
	rm -rf "$dir" ${links:+"$links"} ${files:+"$files"}
	[ -z "$beside" ] || rm -f -- "$beside"
}

is_device() { [[ $1 == /dev/* ]] || { [ -e "$1" ] && [ ! -f "$1" ]; }; }

# Whether a result can be written later; what is there stays until then.
declare -A output_of # the option that each file was named by
check_output() { # option, file
	local target
	[ -n "$2" ] || return 0
	[ ! -d "$2" ] || die "$1: $2 is a folder"
	if is_device "$2"; then
		[ -w "$2" ] || die "$1: cannot write $2"
		return
	fi
	target=$(readlink -f -- "$2") || die "$1: cannot write $2: its folder is not there"
	[ -z "${output_of[$target]:-}" ] || die "$1 and ${output_of[$target]} name one file, $2"
	output_of[$target]=$1
	[ ! -e "$target" ] || [ -w "$target" ] || die "$1: cannot write $2"
	{ : >"$target.$$.new"; } 2>/dev/null || die "$1: cannot write $2"
	rm -f -- "$target.$$.new"
}

beside= # a result on its way
# A result to where it was wanted, whole or not at all.
store() { # file of this run, where it goes
	local target
	[ -n "$2" ] || return 0
	if is_device "$2"; then
		{ cat -- "$1" >"$2"; } 2>/dev/null && return
	else
		target=$(readlink -f -- "$2") && beside=$target.$$.new && cp -- "$1" "$beside" 2>/dev/null &&
			mv -f -- "$beside" "$target" 2>/dev/null && beside= && return
	fi
	say "bench: cannot write $2"
	return 1
}

# LD_PRELOAD ends a name at a space or a colon, and a dollar has a meaning in it: a library whose path has such a
# character is preloaded by a link to it.
name_for_preload() { # path; sets preload
	local odd='[^A-Za-z0-9_./+,=@%~-]' folder
	preload=$1
	[[ $1 =~ $odd ]] || return 0
	for folder in "$dir" /tmp /var/tmp /dev/shm; do
		[[ -n $links || $folder =~ $odd ]] || links=$(mktemp -d "$folder/bench-links.XXXXXX" 2>/dev/null)
	done
	[ -n "$links" ] || die "no folder for a link to $1"
	preload=$links/$(cksum <<<"$1" | tr ' ' -).so
	[ -e "$preload" ] || ln -s -- "$1" "$preload" || die "no link to $1"
}

# ---- Allocators ---------------------------------------------------------------------------------------------------

find_compiler() {
	command -v "${cc%% *}" >/dev/null ||
		die "no C compiler: ${cc%% *} is not there (Debian: apt-get install gcc libc6-dev; CC names another)"
	libc=$(readlink -f "$($cc -print-file-name=libc.so.6)")
}

add() { # name, path, version, VAR=value...
	local n
	[[ $1 =~ ^[A-Za-z0-9_.+-]+$ ]] || die "\"$1\" is no name for an allocator"
	for n in "${names[@]}"; do [ "$n" != "$1" ] || die "two allocators are named $1"; done
	names+=("$1"); paths+=("$2"); labels+=("$3"); environments+=("$(printf '%s\n' "${@:4}")")
	# A link is made here, as what is started in a subshell could not remember it.
	[ -z "$2" ] || name_for_preload "$2"
}

# The environment of an allocator, into with.
with=()
read_environment() { # index
	with=()
	[ -z "${environments[$1]}" ] || mapfile -t with <<<"${environments[$1]}"
}

# A part behind a comma that does not begin with a name in capitals is the value's before it, as in
# MALLOC_CONF=thp:always,metadata_thp:auto. NAME=libc,VAR=value is the C library's with an environment.
add_named() { # NAME=PATH.so or NAME=PATH.so,VAR=value,...
	local name=${1%%=*} path=${1#*=} part parts variables=()
	if [[ $path == *,* ]] && [ ! -f "$path" ]; then
		IFS=, read -ra parts <<<"$path"
		path=
		for part in "${parts[@]}"; do
			if [[ $part =~ ^[A-Z_][A-Z0-9_]*= ]]; then
				[[ ! $part =~ ^(LD_|BENCH_) ]] || die "$name: ${part%%=*} is not for an allocator"
				variables+=("$part")
			elif [ "${#variables[@]}" -gt 0 ]; then
				variables[-1]+=,$part
			else
				path+=${path:+,}$part
			fi
		done
	fi
	if [ "$path" = libc ] && [ "${#variables[@]}" -gt 0 ]; then
		add "$name" '' "the C library's, ${variables[*]}" "${variables[@]}"
		return
	fi
	[ -e "$path" ] || die "$name: $path is not there"
	[ -f "$path" ] || die "$name: $path is no file"
	add "$name" "$(readlink -f -- "$path")" "from $path${variables[*]:+, ${variables[*]}}" "${variables[@]}"
}

find_quarry() {
	local p
	for p in ${QUARRY_SO:+"$QUARRY_SO"} .libs/libquarry-malloc.so "$here/../.libs/libquarry-malloc.so"; do
		if [ "$p" = "${QUARRY_SO:-}" ]; then
			[ -e "$p" ] || die "QUARRY_SO: $p is not there"
			[ -f "$p" ] || die "QUARRY_SO: $p is no file"
		fi
		[ -f "$p" ] || continue
		# By the name in its table of symbols: what is shown as quarry should be it.
		grep -aq quarry_version "$p" ||
			die "$p is not quarry: it has no quarry_version (name another allocator as NAME=PATH.so)"
		add quarry "$(readlink -f -- "$p")" "built $(date -r "$(readlink -f -- "$p")" '+%F %T')"
		return
	done
	die "no libquarry-malloc.so, in .libs here or beside bench: call this in the folder that quarry was built in, or set QUARRY_SO"
}

add_packaged() { # name, package, file, VAR=value...
	local file version
	file=/usr/lib/$($cc -print-multiarch 2>/dev/null)/$3
	if [ ! -f "$file" ]; then
		say "bench: $1 is LEFT OUT: it is not installed (Debian: apt-get install $2)"
		return
	fi
	version=$(dpkg-query -W -f '${Package} ${Version}' "$2" 2>/dev/null) || version="$2, version unknown"
	add "$1" "$(readlink -f "$file")" "$version${4:+, $4}" "${@:4}"
}

# quarry, glibc, what Debian packages and is installed, and what is named in BENCH_EXTRA and on the command line.
add_all() {
	local n glibc extra
	find_quarry
	glibc=$(dpkg-query -W -f '${Package} ${Version}' libc6 2>/dev/null || getconf GNU_LIBC_VERSION)
	add glibc '' "$glibc"
	[ -z "${thp_peers:-}" ] ||
		add glibc-thp '' "$glibc, GLIBC_TUNABLES=glibc.malloc.hugetlb=1" GLIBC_TUNABLES=glibc.malloc.hugetlb=1
	add_packaged jemalloc libjemalloc2 libjemalloc.so.2
	[ -z "${thp_peers:-}" ] || add_packaged jemalloc-thp libjemalloc2 libjemalloc.so.2 MALLOC_CONF=thp:always
	add_packaged tcmalloc libtcmalloc-minimal4 libtcmalloc_minimal.so.4
	add_packaged mimalloc libmimalloc2.0 libmimalloc.so.2.0
	read -r -d '' -a extra <<<"${BENCH_EXTRA:-}"
	for n in "${extra[@]}"; do [[ $n == ?*=?* ]] || die "BENCH_EXTRA: $n is not NAME=PATH.so"; done
	named=("${extra[@]}" "${named[@]}")
	for n in "${named[@]}"; do add_named "$n"; done
}

# ---- Programs of ours ---------------------------------------------------------------------------------------------

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

# One run of a program of ours, after compile, in the environment that with has. `redis` drives a server, which alone
# has the library; there glibc is preloaded, too, as Debian's server is linked with jemalloc. (warm_mib: see measure.c;
# run.sh sets it.)
launch() { # folder of the programs, library (empty: the C library's malloc), program, options
	local in=$1 path=$2 p=$3 preload
	shift 3
	name_for_preload "${path:-$libc}"
	if [ "$p" = redis ]; then
		env "${with[@]}" BENCH_MALLOC_IN=libc BENCH_PRELOAD="$preload" "$in/measure" --warm "${warm_mib:-0}" \
			--timeout "$timeout_s" "$in/$p" "$@"
	else
		env "${with[@]}" BENCH_MALLOC_IN="${path:-libc}" "$in/measure" ${path:+--preload "$preload"} \
			--warm "${warm_mib:-0}" --timeout "$timeout_s" "$in/$p" "$@"
	fi
}

# The figures that a run printed, "name value unit" a line, with what the table's lines begin with; the program's
# result is named "time", and its other figures lose its name. A program that ended well without exactly one result has
# failed all the same: an allocator may have ended it. ("whole": no program of ours; then only what the kernel counted.)
collect() { # program, separator, columns that stand before, "whole"; output of the run at standard input
	awk -v p="$1" -v OFS="$2" -v head="$3" -v whole="${4:-}" '
		function wrong(what) { if (why == "") why = what }
		BEGIN { status = "none" }
		/^@/ || (!whole && ($1 == p || index($1, p ".") == 1)) {
			name = $1 == p ? "time" : index($1, p ".") == 1 ? substr($1, length(p) + 2) : $1
			if (NF != 3 || $2 !~ /^-?[0-9]+(\.[0-9]+)?$/ || (name == "time" && ($2 <= 0 || $3 != "s")))
				wrong("its line \"" $0 "\" is of a wrong form")
			else if (name in seen)
				wrong("a second line \"" $1 "\"")
			else if (name == "@status")
				status = $2
			else
				print head, name, $2, $3
			seen[name] = 1
		}
		END {
			if (!whole && !("time" in seen))
				wrong("it ended without its result")
			if (status == "none" || (status == 0 && why != "")) {
				print "bench: " p " FAILED: " (why == "" ? "no status" : why) >"/dev/stderr"
				status = 125
			}
			print head, "@status", status, "code"
		}'
}

# An allocator that did not come to an end with a workload is not tried again with it, and after three of them not at
# all: each such run takes as long as --timeout allows. What was not tried has failed: a table would else not show it.
declare -A hung hangs
is_given_up() { # workload, allocator
	[ -n "${hung[$1,$2]:-}" ] || [ "${hangs[$2]:-0}" -ge 3 ]
}

note_hang() { # workload, allocator
	hung[$1,$2]=1
	hangs[$2]=$((${hangs[$2]:-0} + 1))
	say "bench: $2 has not ended $1 in $timeout_s s: it is NOT TRIED AGAIN with that"
	[ "${hangs[$2]}" -lt 3 ] || say "bench: $2 is NOT TRIED AGAIN at all: three workloads have timed out"
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
