#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs one test for automake's parallel harness. What it has over automake's own: a skipped test says why, on the
# line that says SKIP (the last line that the test printed), a failed one shows how its log ends, and a test that
# hangs is ended and failed.
#
# QUARRY_TEST_TIMEOUT: seconds that a test may take (default 600).
set -u

test_name='' log_file='' trs_file='' expect_failure=no hard_errors=yes
while [ $# -gt 0 ]; do
	case $1 in
	--test-name) test_name=$2; shift 2 ;;
	--log-file) log_file=$2; shift 2 ;;
	--trs-file) trs_file=$2; shift 2 ;;
	--color-tests) shift 2 ;;
	--expect-failure) expect_failure=$2; shift 2 ;;
	--enable-hard-errors) hard_errors=$2; shift 2 ;;
	--) shift; break ;;
	*) echo "driver.sh: unknown argument $1" >&2; exit 2 ;;
	esac
done
if [ -z "$test_name" ] || [ -z "$log_file" ] || [ -z "$trs_file" ] || [ $# -eq 0 ]; then
	echo "driver.sh: needs --test-name, --log-file, --trs-file and a command" >&2
	exit 2
fi

limit=${QUARRY_TEST_TIMEOUT:-600}
started=$(date +%s)
if command -v timeout >/dev/null 2>&1; then
	timeout --kill-after=10 "$limit" "$@" >"$log_file" 2>&1 </dev/null
else
	"$@" >"$log_file" 2>&1 </dev/null
fi
status=$?
seconds=$(($(date +%s) - started))

last_line() {
	sed -n '/[^[:space:]]/h; ${g;p;}' "$log_file" | cut -c 1-200
}

case $status:$expect_failure:$hard_errors in
0:yes:*) result=XPASS ;;
0:*) result=PASS ;;
77:*) result=SKIP ;;
99:*:yes) result=ERROR ;;
*:yes:*) result=XFAIL ;;
*) result=FAIL ;;
esac

case $result in
SKIP)
	reason=$(last_line)
	echo "SKIP: $test_name: ${reason:-no reason given}"
	;;
PASS)
	echo "PASS: $test_name (${seconds} s)"
	;;
*)
	if [ $status -eq 124 ] || [ $status -eq 137 ]; then
		echo "$test_name: ended after $limit seconds" >>"$log_file"
	fi
	echo "$result: $test_name (exit status $status, ${seconds} s; ${log_file}):"
	tail -n 12 "$log_file" | sed 's/^/    | /'
	;;
esac
echo "$result $test_name (exit status: $status)" >>"$log_file"

case $result in
PASS | XFAIL | SKIP) recheck=no ;;
*) recheck=yes ;;
esac
case $result in
PASS) copy=no ;;
*) copy=yes ;;
esac
{
	echo ":test-result: $result"
	echo ":global-test-result: $result"
	echo ":recheck: $recheck"
	echo ":copy-in-global-log: $copy"
} >"$trs_file"
