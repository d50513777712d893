# SPDX-License-Identifier: MIT
# What deny_eperm.sh and deny_enosys.sh share; read with ".".
denied() { # ERRNO
	local calls=mbind,set_mempolicy,get_mempolicy,move_pages,rseq status
	local here
	here=$(dirname "$QUARRY_SO")

	compile deny
	"$work/deny" --errno "$1" $calls -- true
	status=$?
	[ $status -ne 77 ] || skip "seccomp filters are not allowed here"
	[ $status -eq 0 ] || fail "deny: status $status"

	# What quarry says of itself, first without a filter, so that what it says with one is the filter's doing.
	compile denied -L"$here" -Wl,-rpath,"$here" -lquarry-malloc
	if "$work/denied" nothing >"$work/json" 2>"$work/err"; then
		say "without a filter nothing is refused"
	else
		cat "$work/err"
		say "this machine refuses memory policies by itself: left out what is told without a filter"
	fi
	"$work/deny" --errno "$1" $calls -- "$work/denied" "$1" >"$work/json" || fail "quarry_stats under $1"
	for refusal in "mbind-${1,,}" move-pages rseq; do
		[ "$(sum_of "$refusal" "$work/json")" -gt 0 ] || {
			cat "$work/json"
			fail "the JSON does not say that $refusal was refused"
		}
	done
	say "quarry_stats says what was refused: $(grep -o '"refused":{[^}]*}' "$work/json" |
		grep -o '"[a-z0-9-]*":[1-9][0-9]*' | tr '\n' ' ')"

	suite "$work/deny" --errno "$1" $calls --
}
