#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what is missing, builds quarry out of the tree and passes its tests: the whole suite, the suite of the
# machine with many nodes (tests/numa/) in its guests, then the unit and stress tests under three sanitizers (two of them
# in one build, and that beside the third), then the distribution. Can be run again; needs root or sudo only when packages
# are missing.
#
#   tools/run-tests.sh [--no-deps] [--only=STEP,...]
#
# Steps: default, numa, address-undefined, undefined (alone: what is left out beside AddressSanitizer), thread,
# distcheck. Everything goes to build-ci/, logs to build-ci/logs/.
# JOBS: how many make at once (default: the CPUs). The last line is `N passed, N failed, N skipped`.
set -uo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
out=$top/build-ci
logs=$out/logs
jobs=${JOBS:-$(nproc)}
steps=default,numa,address-undefined,undefined,thread,distcheck
deps=yes

for argument in "$@"; do
	case $argument in
	--no-deps) deps=no ;;
	--only=*) steps=${argument#--only=} ;;
	-h | --help) sed -n '3,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) echo "run-tests: unknown argument '$argument' (--help)" >&2; exit 2 ;;
	esac
done
for step in ${steps//,/ }; do
	case $step in
	default | numa | address-undefined | undefined | thread | distcheck) ;;
	*) echo "run-tests: unknown step '$step' (--help)" >&2; exit 2 ;;
	esac
done

passed=0 failed=0 skipped=0
skip_lines=
fail_lines=

say() {
	echo "run-tests: $*"
}

# What runs, to be ended with us: timeout makes a group of its own, and hands a signal on to it.
running= ahead= thread=
end_what_runs() {
	[[ -z $running ]] || kill "$running"
	[[ -z $ahead ]] || kill -- "-$ahead"
	[[ -z $thread ]] || kill "$thread"
} 2>/dev/null
trap end_what_runs EXIT

# attempt NAME SECONDS COMMAND…: run it with its output in a log; on failure say so, with the end of the log. (Waited
# for, not in the foreground: so that a signal ends us at once.)
attempt() {
	local name=$1 limit=$2 log=$logs/$1.log started=$SECONDS status
	shift 2
	say "$name: $*"
	timeout --kill-after=30 "$limit" "$@" >"$log" 2>&1 </dev/null &
	running=$!
	wait "$running"
	status=$?
	running=
	if [[ $status -ne 0 ]]; then
		[[ $status -ne 124 ]] || echo "ended after $limit seconds" >>"$log"
		say "$name: FAILED with status $status after $((SECONDS - started)) s; the end of $log:"
		tail -n 40 "$log" | sed 's/^/    /'
		return 1
	fi
	say "$name: done in $((SECONDS - started)) s"
}

# One failure that is no test's: a build that breaks counts too.
count_failure() {
	failed=$((failed + 1))
	fail_lines+="    $1"$'\n'
}

# figure NAME LOG: the sum of automake's "# NAME: n" lines.
figure() {
	awk -v name="$1:" '$1 == "#" && $2 == name { n += $3 } END { print n + 0 }' "$2"
}

# Add a log's summaries to the sums; 0 when it has none.
count_results() {
	local name=$1 log=$2 total
	total=$(figure TOTAL "$log")
	passed=$((passed + $(figure PASS "$log") + $(figure XFAIL "$log")))
	failed=$((failed + $(figure FAIL "$log") + $(figure XPASS "$log") + $(figure ERROR "$log")))
	skipped=$((skipped + $(figure SKIP "$log")))
	skip_lines+=$(sed -n "s/^SKIP: /    $name: /p" "$log")$'\n'
	# With what the driver shows of its log.
	fail_lines+=$(sed -nE "s/^(FAIL|XPASS|ERROR): /    $name: /p; s/^    \| /        | /p" "$log")$'\n'
	echo "$total"
}

# count_step NAME STATUS: like count_results for a finished make check, and shown as the runner printed it.
count_step() {
	local name=$1 status=$2 log=$logs/$1-check.log before=$failed total
	total=$(figure TOTAL "$log")
	count_results "$name" "$log" >/dev/null
	grep -E '^(Testsuite summary|# [A-Z]+: )' "$log" | sed 's/^/    /'
	if [[ $status -ne 0 && $failed -eq $before ]]; then
		count_failure "$name: make check stopped without a summary"
	elif [[ $status -eq 0 && $total -eq 0 ]]; then
		count_failure "$name: make check ran no test"
	fi
}

# How a step's build is configured, into arguments.
arguments=()
configured_for() { # step
	case $1 in
	default) arguments=(--enable-werror) ;;
	# (Less than -O2 and -g: half of the compilers' time, and what a report names is the same.)
	*) arguments=(--disable-shared "--enable-sanitizer=$1" --enable-debug "CFLAGS=-O1 -g1") ;;
	esac
}

# build STEP [no-programs]: everything, the tests' programs too but for the second form, in build-ci/STEP; stays in that
# folder. What was built ahead is not built again.
build() {
	local name=$1 dir=$out/$1
	configured_for "$name"
	mkdir -p "$dir"
	cd "$dir" || return
	if { [[ ! -e config.status ]] && ! attempt "$name-configure" 300 "$top/configure" "${arguments[@]}"; } ||
		! attempt "$name-make" 900 make -j"$jobs" ||
		{ [[ -z ${2:-} ]] && ! attempt "$name-programs" 600 make -j"$jobs" check TESTS=; }; then
		count_failure "$name: the build"
		return 1
	fi
}

# The sanitizers' builds, of the lowest priority, beside tests that leave processors idle half of the time. Whatever
# fails here is done again in its turn, and fails there.
build_ahead() {
	local step
	renice -n 19 -p "$BASHPID" >/dev/null
	for step in address-undefined undefined thread; do
		[[ ,$steps, == *,$step,* ]] || continue
		mkdir -p "$out/$step" && cd "$out/$step" || return
		configured_for "$step"
		{ [[ -e config.status ]] || "$top/configure" "${arguments[@]}"; } && make &&
			{ [[ $step = undefined ]] || make check TESTS=; }
	done >"$logs/ahead.log" 2>&1 </dev/null
}
await_ahead() {
	[[ -z $ahead ]] || wait "$ahead"
	ahead=
}

# The tests that do less, or nothing, beside AddressSanitizer.
check_undefined() {
	local status=0 tests="tests/stress/forklists tests/stress/forkstorm tests/stress/reallocs"
	tests+=" tests/unit/test_idle_ends tests/unit/test_window tests/unit/test_region"
	build undefined no-programs || return
	attempt undefined-check 300 make -k -j1 check TESTS="$tests" check_PROGRAMS="$tests" || status=1
	count_step undefined $status
}

# check NAME SECONDS TARGET [JOBS]: one test at a time, unless said otherwise: most have threads of their own, and some
# look at the clock.
check() {
	local name=$1 limit=$2 target=$3 status=0
	attempt "$name-check" "$limit" make -k -j"${4:-1}" "$target" || status=1
	count_step "$name" $status
}

build_and_check() { # step, seconds
	if build "$1"; then check "$1" "$2" check; fi
}

# ThreadSanitizer's step runs beside the other sanitizers', each of them one test at a time. It tells by its status what
# is to be counted, and is shown as one when it has ended.
thread_begun=
thread_in_background() {
	running=
	trap '[[ -z $running ]] || kill "$running" 2>/dev/null' EXIT
	build thread || exit 2
	attempt thread-check 900 make -k -j1 check
}
begin_thread() {
	[[ -z $thread_begun && ,$steps, == *,thread,* ]] || return
	thread_begun=yes
	rm -f "$logs/thread-check.log" # of a run before: where this one does not come so far, nothing is to be counted
	QUARRY_STRESS_SCALE=0.1 thread_in_background >"$logs/thread.log" 2>&1 &
	thread=$!
}
finish_thread() {
	local status=0
	wait "$thread" || status=$?
	thread=
	cat "$logs/thread.log"
	if [[ $status -eq 2 ]]; then
		count_failure "thread: the build"
	else
		count_step thread "$status"
	fi
}

# All but real programs, then those, two at a time: some of them mostly wait.
check_default() {
	build default || return
	set -m # a group of its own, to be ended as one
	build_ahead &
	ahead=$!
	set +m
	check default 1200 check-quick
	check programs 900 check-programs 2
	await_ahead
}

# The guests take what the default step built; each test of each guest counts as one.
check_numa() {
	local status=0
	if [[ -e $out/default/config.status ]]; then
		cd "$out/default" || return
	else
		build default || return
	fi
	attempt numa-check 2100 make -j"$jobs" check-numa || status=1
	count_step numa $status
	sed -n 's/^numa: \(.*pages verified\)/    \1/p' "$logs/numa-check.log"
}

# A file that is in git and not in the archive was forgotten in Makefile.am.
distribution_is_whole() {
	local tracked packed lacking
	if ! tracked=$(git -C "$top" ls-files 2>/dev/null); then
		say "no git checkout: whether the distribution has all files was not looked at"
		return 0
	fi
	packed=$(tar --list --file "$(ls "$out"/distcheck/quarry-*.tar.xz)" | sed 's@^[^/]*/@@')
	lacking=$(comm -23 <(grep -v '^\.git' <<<"$tracked" | sort) <(sort <<<"$packed"))
	[[ -z $lacking ]] || { say "in git but not in the distribution:"; sed 's/^/    /' <<<"$lacking"; return 1; }
}

if [[ $deps == yes ]]; then
	bash "$top/tools/install-deps.sh" test || { say "no packages, no tests"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
fi
if [[ -e $top/config.status ]]; then
	say "the tree itself is configured, and an out-of-tree build cannot be: run 'make distclean' in $top first"
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi
mkdir -p "$logs"
cd "$top" || exit 1
if ! attempt autogen 300 ./autogen.sh; then
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi

for step in ${steps//,/ }; do
	case $step in
	default) check_default ;;
	numa) check_numa ;;
	# (A sanitizer makes a step 5 to 15 times longer: the stress tests do a tenth of their steps.)
	address-undefined) begin_thread; QUARRY_STRESS_SCALE=0.1 build_and_check "$step" 900 ;;
	undefined) begin_thread; QUARRY_STRESS_SCALE=0.1 check_undefined ;;
	thread) begin_thread; [[ -z $thread ]] || finish_thread ;;
	distcheck)
		mkdir -p "$out/distcheck" && cd "$out/distcheck" || exit 1
		if ! attempt distcheck-configure 300 "$top/configure" ||
			! attempt distcheck-check 900 make -j"$jobs" distcheck-quick; then
			count_failure "make distcheck"
		elif ! distribution_is_whole; then
			count_failure "the distribution lacks files"
		fi
		[[ ! -e $logs/distcheck-check.log ]] || count_results distcheck "$logs/distcheck-check.log" >/dev/null
		;;
	esac
done

if [[ -n ${skip_lines//[$'\n ']/} ]]; then
	say "skipped:"
	grep -v '^$' <<<"$skip_lines"
fi
if [[ -n ${fail_lines//[$'\n ']/} ]]; then
	say "failed:"
	grep -v '^$' <<<"$fail_lines"
fi
say "$((SECONDS / 60)) min $((SECONDS % 60)) s in all"
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
