# SPDX-License-Identifier: MIT
# For the scripts of tests/programs and tests/refuse, which read it with ".". A script defines a job, a function that
# works in an empty folder and writes what is to be compared to its output; `both job` runs it without the library and
# with it preloaded, and fails unless exit status, standard output and standard error are the same.
#
# Takes from the environment:
#   QUARRY_SO      the path of libquarry-malloc.so
#   QUARRY_UNDER   a command that the preloaded run is started by, for instance one that limits it; words are split
#   QUARRY_QUICK   not empty: do less (for runs under many limits)
#   QUARRY_LIMIT   seconds that one run may take before it counts as hanging (default 300)
#   QUARRY_IN_USE  "bindings": be content when malloc is bound to QUARRY_SO, ask for no statistics (to try these
#                  scripts with another allocator)
# Exit status: 0 passed, 77 skipped (the last line says why), anything else failed.
set -u
export LC_ALL=C
: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[ -f "$QUARRY_SO" ] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
QUARRY_SO=$(readlink -f "$QUARRY_SO")
programs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$programs/../.." && pwd)
limit=${QUARRY_LIMIT:-300}
name=$(basename "$0" .sh)
unset LD_PRELOAD QUARRY_OPTIONS
export root QUARRY_QUICK=${QUARRY_QUICK:-}

work=$(mktemp -d "${TMPDIR:-/tmp}/quarry.$name.XXXXXX") || exit 1
at_exit() {
	rm -rf "$work"
}
trap at_exit EXIT
trap 'exit 1' INT TERM HUP

say() {
	echo "$name: $*"
}

fail() {
	say "FAILED: $*"
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

# need PROGRAM PACKAGE
need() {
	command -v "$1" >/dev/null || skip "$1 is not installed (Debian: apt-get install $2)"
}

# quick A B: A in quick runs, B otherwise.
quick() {
	if [ -n "$QUARRY_QUICK" ]; then echo "$1"; else echo "$2"; fi
}

# The library is in use: the dynamic linker binds the program's (or its libraries') malloc to it.
bound() { # COMMAND...
	mkdir -p "$work/bindings"
	rm -f "$work"/bindings/*
	env LD_PRELOAD="$QUARRY_SO" LD_BIND_NOW=1 LD_DEBUG=bindings LD_DEBUG_OUTPUT="$work/bindings/of" \
		timeout --kill-after=5 "$limit" "$@" >/dev/null 2>&1 </dev/null
	grep -hqF "to $QUARRY_SO [0]: normal symbol \`malloc'" "$work"/bindings/* ||
		fail "the library is not in use: no malloc of '$*' is bound to $QUARRY_SO"
	rm -f "$work"/bindings/*
	say "malloc is bound to $(basename "$QUARRY_SO") in $1"
}

# The library is in use, by its own count: at its end the program's thread caches have been filled.
counted() { # COMMAND...
	local refills
	[ "${QUARRY_IN_USE:-}" = bindings ] && return
	env LD_PRELOAD="$QUARRY_SO" QUARRY_OPTIONS=stats_at_exit=json \
		timeout --kill-after=5 "$limit" "$@" >"$work/counted.out" 2>"$work/counted.err" </dev/null
	refills=$(sum_of refills "$work/counted.err")
	[ "$refills" -gt 0 ] || {
		tail -n 5 "$work/counted.err"
		fail "the library counted no refills in '$*'"
	}
	say "$refills refills in $1"
}

# The largest value of a figure in statistics written as JSON.
sum_of() { # FIGURE FILE
	grep -o "\"$1\": *[0-9]*" "$2" | grep -o '[0-9]*$' | sort -n | tail -n 1 | grep . || echo 0
}

# Run a function in a folder of its own.
run_in() { # FOLDER FUNCTION COMMAND-PREFIX...
	local folder=$1 job=$2
	shift 2
	mkdir -p "$work/$folder" || exit 1
	(
		cd "$work/$folder" || exit 1
		exec timeout --kill-after=5 "$limit" "$@" bash -c "set -u; $job" \
			>"$work/$folder.out" 2>"$work/$folder.err" </dev/null
	)
	echo $? >"$work/$folder.status"
}

# Run a function without the library and with it, and compare.
both() { # FUNCTION [VARIABLE=VALUE...]
	local job=$1 status
	shift
	export -f "${job?}"
	rm -rf "$work/plain" "$work/quarry"
	run_in plain "$job" env "$@"
	status=$(cat "$work/plain.status")
	case $status in
	0) ;;
	77) skip "$(tail -n 1 "$work/plain.out")" ;;
	*)
		tail -n 5 "$work/plain.out" "$work/plain.err"
		fail "$job without the library: status $status"
		;;
	esac
	run_in quarry "$job" ${QUARRY_UNDER:-} env LD_PRELOAD="$QUARRY_SO" "$@"
	status=$(cat "$work/quarry.status")
	case $status in
	124 | 137) tail -n 5 "$work/quarry.out" "$work/quarry.err"; fail "$job hangs: ended after $limit s" ;;
	esac
	[ "$status" = "$(cat "$work/plain.status")" ] || {
		tail -n 20 "$work/quarry.out" "$work/quarry.err"
		fail "$job: status $status with the library, $(cat "$work/plain.status") without"
	}
	for part in out err; do
		cmp -s "$work/plain.$part" "$work/quarry.$part" || {
			diff "$work/plain.$part" "$work/quarry.$part" | head -n 20
			fail "$job: another standard $part with the library (above: < without, > with)"
		}
	done
	[ -s "$work/plain.out" ] || fail "$job wrote nothing, so nothing was compared"
	say "$job${*:+ $*}: the same with and without, $(wc -c <"$work/plain.out") bytes of output"
}

export -f quick
