# SPDX-License-Identifier: MIT
# For the scripts of tests/refuse, which read it with ".". Each runs the same programs under one limit: `suite PREFIX…`
# starts the preloaded run of each script of tests/programs by that command, and compares with a run that is neither
# limited nor preloaded. The rest is tests/programs/lib.sh.
refuse=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$refuse/../programs/lib.sh"

# Compiles tests/refuse/NAME.c to $work/NAME.
compile() { # NAME ARGUMENTS...
	local program=$1
	shift
	need "${CC%% *}" gcc
	$CC -std=gnu11 -O1 -g -Wall -Wextra -D_GNU_SOURCE -I"$root" -I"$root/include" -o "$work/$program" \
		"$refuse/$program.c" "$@" >"$work/compiler" 2>&1 || {
		cat "$work/compiler"
		fail "$program.c does not build"
	}
}
CC=${CC:-cc}

# The programs that run under every limit, and this project's own stress program where it was built.
suite() { # PREFIX...
	local script status passed=0 why
	for script in ${REFUSE_PROGRAMS:-sqlite python compress git redis}; do
		QUARRY_UNDER="$*" QUARRY_QUICK=1 bash "$programs/$script.sh" >"$work/log" 2>&1
		status=$?
		case $status in
		0) say "$script: the same output"; passed=$((passed + 1)) ;;
		77) why=$(tail -n 1 "$work/log"); say "$script: left out: $why" ;;
		*) cat "$work/log"; fail "$script (status $status) under: $*" ;;
		esac
	done
	stress "$@"
	[ $passed -gt 0 ] || skip "none of the programs is installed"
}

# The stress program checks every byte itself. Where the library preloaded into something that uses it would be two, it
# is linked with it; it is run as it is.
stress() { # PREFIX...
	local mixed=${abs_top_builddir:-$root}/tests/stress/mixed
	if [ ! -x "$mixed" ]; then
		say "tests/stress/mixed was not built: left out"
		return
	fi
	timeout --kill-after=5 "$limit" "$@" "$mixed" --ops 100000 >"$work/log" 2>&1 || {
		tail -n 20 "$work/log"
		fail "tests/stress/mixed under: $*"
	}
	say "tests/stress/mixed: every byte as it was written"
}
