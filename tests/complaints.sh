# SPDX-License-Identifier: MIT
# What tests of a preloaded library share: to be sourced. A folder in $work, which goes at the end; complain counts in
# $errors.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
errors=0
complain() {
	echo "FAIL: $*"
	errors=$((errors + 1))
}
