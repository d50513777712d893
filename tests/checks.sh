# SPDX-License-Identifier: MIT
# What the tests of commands share: to be sourced, with the path of the command in $quarry and a folder in $work. What a
# command said stands in $work/out and $work/err, and its status in $status.

# (Where python3 is a script that looks for the right one, as pyenv's, that takes half a second each time.)
python_path=$(python3 -c 'import os, sys; print(os.path.dirname(sys.executable))' 2>/dev/null)
[[ -z $python_path || $(command -v python3) == "$python_path/python3" ]] || PATH=$python_path:$PATH

failures=0 checks=0
check() { # check WHAT COMMAND...: the command must succeed
	local what=$1
	shift
	checks=$((checks + 1))
	if ! "$@"; then
		failures=$((failures + 1))
		echo "FAILED: $what"
		sed 's/^/    out: /' "$work/out" 2>/dev/null | head -40
		sed 's/^/    err: /' "$work/err" 2>/dev/null | head -20
	fi
}

status=0
quarry() { # into $work/out, $work/err and $status
	timeout "${quarry_seconds:-120}" "$quarry" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}
is() { [[ $1 == "$2" ]] || { echo "    is '$1', not '$2'"; return 1; }; }
says() { grep -qF -e "$2" "$work/$1"; } # says out|err TEXT
silent() { [[ ! -s $work/$1 ]]; }
one_line_error() { # one_line_error STATUS TEXT
	is $status "$1" && is "$(wc -l <"$work/err")" 1 && is "$(head -c 8 "$work/err")" "quarry: " && says err "$2" &&
		silent out
}
