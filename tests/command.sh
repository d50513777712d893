#!/bin/bash
# SPDX-License-Identifier: MIT
# The command `quarry` and the manual: what each command says and answers, that errors are one line and a status,
# that `run` runs what it should on what it should, that `doctor` reports whatever is taken away from it, and that the
# manual has every function and option and no warnings.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/command.sh
# QUARRY: another command than the build's. QUARRY_SO: another library.
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
library=${QUARRY_SO:-$build/.libs/libquarry-malloc.so}
if [[ ! -x $quarry ]]; then
	echo "command.sh: $quarry is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-command.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

failures=0 checks=0
check() { # check WHAT COMMAND...: the command must succeed
	local what=$1
	shift
	checks=$((checks + 1))
	if ! "$@"; then
		failures=$((failures + 1))
		echo "FAILED: $what"
		sed 's/^/    out: /' "$work/out" 2>/dev/null | head -20
		sed 's/^/    err: /' "$work/err" 2>/dev/null | head -20
	fi
}
not_checked() {
	echo "not checked: $*"
}

status=0
quarry() { # into $work/out, $work/err and $status
	"$quarry" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}
run_with() { # run_with VARIABLE=VALUE... -- ARGUMENT...
	local env=()
	while [[ $1 != -- ]]; do
		env+=("$1")
		shift
	done
	shift
	env "${env[@]}" "$quarry" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}
is() { [[ $1 == "$2" ]] || { echo "    is '$1', not '$2'"; return 1; }; }
says() { grep -qF -e "$2" "$work/$1"; } # says out|err TEXT
silent() { [[ ! -s $work/$1 ]]; }
one_line_error() { # one_line_error STATUS TEXT
	is $status "$1" && is "$(wc -l <"$work/err")" 1 && is "$(head -c 8 "$work/err")" "quarry: " && says err "$2" &&
		silent out
}

json_reader=
if command -v python3 >/dev/null; then
	json_reader=python3
elif command -v jq >/dev/null; then
	json_reader=jq
fi
is_json() { # is_json FILE: one JSON value and nothing else
	case $json_reader in
	python3) python3 -c 'import json,sys; json.load(open(sys.argv[1]))' "$1" ;;
	jq) jq -e . "$1" >/dev/null ;;
	*) not_checked "JSON: neither python3 nor jq is here" ;;
	esac
}

# ---- help and errors ------------------------------------------------------------------------------------------
for arguments in --help -h help "help run" "help doctor" "help help" "help version" "run --help" "run -h" \
	"doctor --help" "help --help" "version --help"; do
	# shellcheck disable=SC2086 # words are meant
	quarry $arguments
	check "quarry $arguments" is $status 0
	check "quarry $arguments prints help" says out usage:
	check "quarry $arguments: nothing on standard error" silent err
	check "quarry $arguments: 80 columns" is "$(grep -cE '.{81}' "$work/out")" 0
done
for arguments in version --version; do
	quarry $arguments
	check "quarry $arguments" grep -qE '^quarry [0-9]+\.[0-9]+\.[0-9]+$' "$work/out"
done

quarry
check "no command" one_line_error 2 "no command"
quarry frobnicate
check "wrong command" one_line_error 2 "'frobnicate'"
quarry help frobnicate
check "help of a wrong command" one_line_error 2 "'frobnicate'"
quarry help run doctor
check "help of two things" one_line_error 2 "help"
quarry version now
check "version with an argument" one_line_error 2 "'now'"
quarry doctor --jsno
check "doctor with a wrong argument" one_line_error 2 "'--jsno'"
quarry run
check "run without a program" one_line_error 2 "no program"
quarry run --stats
check "run --stats without a program" one_line_error 2 "no program"
quarry run --fast true
check "run with a wrong option" one_line_error 2 "'--fast'"
quarry run --stats=xml true
check "run --stats with a wrong format" one_line_error 2 "'--stats=xml'"
quarry run --options
check "run --options without a list" one_line_error 2 "--options needs a value"
quarry run --options decay=5 touch "$work/marker"
check "a wrong option name" one_line_error 2 "unknown option 'decay', did you mean 'decay_ms'?"
quarry run --options=decay_ms=soon touch "$work/marker"
check "a wrong option value" one_line_error 2 "option 'decay_ms': 'soon' is not a number from -1 to 3600000"
check "the program was not run" test ! -e "$work/marker"
if [[ -w /dev/full ]]; then
	for arguments in help "help options" version doctor; do
		# shellcheck disable=SC2086
		"$quarry" $arguments >/dev/full 2>"$work/err"
		status=$?
		: >"$work/out"
		check "quarry $arguments to a full disk" one_line_error 1 "standard output"
	done
fi

# ---- run ------------------------------------------------------------------------------------------------------
have_library=no
if [[ -e $library ]]; then
	have_library=yes
else
	# A sanitizer's build has no library to preload. What `run` does around it is the same with any.
	library=$work/libquarry-malloc.so
	echo 'int quarry_command_test;' | "${CC:-cc}" -shared -fPIC -x c - -o "$library" || exit 99
fi
library=$(realpath "$library")

run=(run --library "$library")
# shellcheck disable=SC2016 # the child's variables
show='echo "options=$QUARRY_OPTIONS"; echo "preload=$LD_PRELOAD"'
quarry "${run[@]}" sh -c "$show"
check "run" is $status 0
check "LD_PRELOAD" says out "preload=$library"
check "no options" says out "options="
quarry "${run[@]}" --options junk=1,decay_ms=5 --stats=json sh -c "$show"
check "options" says out "options=junk=1,decay_ms=5,stats_at_exit=json"
run_with QUARRY_OPTIONS=strict=1 LD_PRELOAD="$library" -- "${run[@]}" --options strict=0 sh -c "$show"
check "options after those of the environment" says out "options=strict=1,strict=0"
check "what was preloaded stays" says out "preload=$library:$library"
run_with QUARRY_OPTIONS=srtict=1 -- "${run[@]}" touch "$work/marker"
check "a wrong option in the environment" grep -qF "did you mean 'strict'?" "$work/err"
check "a wrong option in the environment: status" is $status 2
check "the program was not run" test ! -e "$work/marker"
quarry "${run[@]}" sh -c 'exit 42'
check "the program's status" is $status 42
quarry "${run[@]}" printf '<%s>' 'a b' --stats -- ''
check "the program's arguments" is "$(cat "$work/out")" "<a b><--stats><--><>"
quarry "${run[@]}" -- printf '%s' done
check "run --" is "$(cat "$work/out")" "done"
quarry "${run[@]}" "$work/none"
check "no such program" one_line_error 127 "No such file"
quarry "${run[@]}" quarry-no-such-program
check "no such program in PATH" one_line_error 127 "quarry-no-such-program"
: >"$work/plain"
quarry "${run[@]}" "$work/plain"
check "a file that is no program" one_line_error 126 "Permission denied"
quarry run --library "$work/none.so" true
check "no such library" one_line_error 126 "none.so"
mkdir "$work/a b"
cp "$library" "$work/a b/"
quarry run --library "$work/a b/${library##*/}" true
check "a library that cannot be preloaded" one_line_error 126 "space or a colon"

if echo 'int main(void) { return 7; }' | "${CC:-cc}" -static -x c - -o "$work/static" 2>/dev/null; then
	quarry "${run[@]}" "$work/static"
	check "a static program runs" is $status 7
	check "a static program is told of" says err "statically linked"
else
	not_checked "a static program: cannot be linked here"
fi
if [[ $(id -u) == 0 ]] && cp /bin/true "$work/setuid" && chown 65534 "$work/setuid" && chmod 4755 "$work/setuid"; then
	quarry "${run[@]}" "$work/setuid"
	check "a set-user-id program is told of" says err "changes its user"
fi

if [[ $have_library == yes ]]; then
	quarry run cat /proc/self/maps
	check "the build's library is found and preloaded" says out "$library"
	# A program of our own: true(1) allocates nothing, sh(1) leaves by _exit, and sort(1) closes standard error.
	printf '%s\n' '#include <stdlib.h>' 'int main(int c, char **v) { void *volatile p = malloc(c); free(p); return !v; }' \
		>"$work/hello.c"
	"${CC:-cc}" -o "$work/hello" "$work/hello.c" || exit 99
	quarry run --stats "$work/hello"
	check "statistics as text" grep -q '^quarry [0-9.]*: [0-9]* arena' "$work/err"
	quarry run --stats=json "$work/hello"
	check "statistics as JSON" is_json "$work/err"
	check "statistics as JSON: figures" says err '"mapped":'
	QUARRY_OPTIONS=decay=5,junk=1 LD_PRELOAD=$library "$work/hello" 2>"$work/err"
	check "a wrong option in a program's environment is one line" is "$(wc -l <"$work/err")" 1
	check "which names it" says err "quarry: QUARRY_OPTIONS: unknown option 'decay', did you mean 'decay_ms'?"
	QUARRY_OPTIONS=decay_ms=5,junk=1 LD_PRELOAD=$library "$work/hello" 2>"$work/err"
	check "right ones are silent" silent err
else
	not_checked "programs on the library: it is not built here"
fi

# ---- doctor ---------------------------------------------------------------------------------------------------
doctor_is_whole() { # each lack has its cost and its fix; and the summary counts right
	awk '
	/^(ok|LACK|\?) / { if (open) exit_with = 1; open = 0; all++ }
	/^LACK / { open = 2; lacks++ }
	/^        (costs:|fix:  ) [^ ]/ { if (open) open-- }
	/^[0-9]+ of [0-9]+ lacking/ { summary = $1 == lacks + 0 && $3 == all }
	END { exit !(all > 10 && summary && !open && !exit_with) }' "$work/out"
}
lacks() { grep -qE "^LACK +$1( |\$)" "$work/out"; }

quarry doctor
check "doctor" is $status 0
check "doctor says nothing else" silent err
check "doctor: lacks have costs and fixes" doctor_is_whole
sed -nE 's/^(ok|LACK|\?) +([a-z0-9-]+).*/\2/p' "$work/out" >"$work/names"
quarry doctor --json
check "doctor --json" is $status 0
check "doctor --json is JSON" is_json "$work/out"
# shellcheck disable=SC2016
check "the same checks in both" cmp -s "$work/names" <(sed -nE 's/^\{"name":"([a-z0-9-]+)".*/\1/p' "$work/out")

(
	ulimit -v 900000 && "$quarry" doctor >"$work/out" 2>"$work/err"
)
check "doctor under ulimit -v: address-space" lacks address-space
check "doctor under ulimit -v: reserve" lacks reserve
check "doctor under ulimit -v: costs and fixes" doctor_is_whole
(
	ulimit -l 64 && [[ $(id -u) != 0 ]] && "$quarry" doctor >"$work/out" 2>"$work/err" && lacks locked-memory
) || [[ $(id -u) == 0 ]]
check "doctor under ulimit -l" is $? 0

# Without /sys and /proc, and without rights: it still reports, and takes no silence for an answer.
hidden='mount -t tmpfs none /sys && mount -t tmpfs none /proc || exit 77; '
if unshare -m sh -c "$hidden" 2>/dev/null; then
	unshare -m sh -c "$hidden exec \"\$0\" doctor" "$quarry" >"$work/out" 2>"$work/err"
	check "doctor without /sys and /proc" is $? 0
	check "doctor without /sys and /proc says what it cannot tell" grep -q '^?  *nodes ' "$work/out"
	check "doctor without /sys and /proc: overcommit" grep -q '^?  *overcommit ' "$work/out"
	check "doctor without /sys and /proc: costs and fixes" doctor_is_whole
else
	not_checked "doctor without /sys and /proc: no mount namespace here"
fi
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null &&
	setpriv --reuid 65534 --regid 65534 --clear-groups "$quarry" version >/dev/null 2>&1; then
	setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all "$quarry" doctor >"$work/out" 2>"$work/err"
	check "doctor without rights" is $? 0
	check "doctor without rights: costs and fixes" doctor_is_whole
else
	not_checked "doctor without rights: not root, or the build is closed to others"
fi

# ---- the manual -----------------------------------------------------------------------------------------------
quarry help options
check "help options" is $status 0
check "help options: 80 columns" is "$(grep -cE '.{81}' "$work/out")" 0
sed -nE 's/^  ([a-z_]+)=([^ ]+) .*/\1 \2/p' "$work/out" >"$work/options"
check "there are options" test "$(wc -l <"$work/options")" -ge 13
while read -r name default; do
	check "quarry(7) has $name and its default" grep -qxF ".BR $name \" = \" $default" "$src/doc/quarry.7"
done <"$work/options"
check "quarry(7) has no others" is "$(grep -c '^\.BR [a-z_]* " = "' "$src/doc/quarry.7")" "$(wc -l <"$work/options")"

header=$src/include/quarry/quarry.h
mkdir "$work/man"
made() { # made AWK...: the pages by this awk, as one file
	rm -f "$work"/man/*
	"$@" -v outdir="$work/man" -v version=1.2.3 -f "$src/doc/mkman.awk" "$header" && cat "$work"/man/*.3
}
made awk >"$work/all"
awk -v list=1 -f "$src/doc/mkman.awk" "$header" | sort >"$work/listed"
check "mkman lists what it makes" cmp -s "$work/listed" <(cd "$work/man" && printf '%s\n' *.3 | sort)
sed -nE 's/^(QUARRY_API|static inline) .*[ *](quarry_[a-z0-9_]+)\(.*/\2.3/p' "$header" >"$work/functions"
check "there are functions" test "$(wc -l <"$work/functions")" -ge 40
while read -r page; do
	check "manual page $page" test -s "$work/man/$page"
done <"$work/functions"
for awk in mawk gawk original-awk "busybox awk"; do
	command -v ${awk%% *} >/dev/null || continue
	# shellcheck disable=SC2086
	check "mkman by $awk makes the same" cmp -s "$work/all" <(made $awk)
done
made awk >/dev/null
if command -v groff >/dev/null; then
	for page in "$work"/man/*.3 "$src/doc/quarry.1" "$src/doc/quarry.7"; do
		[[ $(head -c 3 "$page") == .so ]] && continue
		groff -man -Tutf8 -ww "$page" >"$work/out" 2>"$work/err"
		check "groff has nothing against ${page##*/}" silent err
		check "${page##*/} has its parts" is "$(grep -cE '^\.SH (NAME|SYNOPSIS|DESCRIPTION|SEE ALSO)$' "$page")" 4
	done
else
	not_checked "the manual's format: groff is not here"
fi

echo "command.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
