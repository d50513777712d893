#!/bin/bash
# SPDX-License-Identifier: MIT
# Heap profiles as the tools that they are for read them: profile.proto by a strict reader of its own (tests/profile.py),
# gperftools' text by google-pprof, collapsed stacks and JSON by what is said of their form; of a program that allocates
# known amounts in known functions, and of python3.
#
# Run by make check; by hand: QUARRY_SO=…/libquarry-malloc.so tests/profile.sh
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[[ -f $QUARRY_SO ]] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
QUARRY_SO=$(readlink -f "$QUARRY_SO")
unset LD_PRELOAD QUARRY_OPTIONS QUARRY_PROFILE

. "$here/complaints.sh"

# profile FILE OPTIONS PROGRAM…
profile() {
	local file=$1 options=$2
	shift 2
	QUARRY_OPTIONS=profile=${mean:-4k},$options QUARRY_PROFILE=$file LD_PRELOAD=$QUARRY_SO "$@"
}

# about WHAT GOT WANTED: within 5 %, which is five standard deviations at least of what is asked for here.
about() {
	awk -v got="$2" -v wanted="$3" 'BEGIN { exit !(got >= wanted * 0.95 && got <= wanted * 1.05) }' ||
		complain "$1: $2, and $3 are wanted"
}

mib=1048576
program=$work/profiled
"${CC:-cc}" -O1 -g -fno-omit-frame-pointer -rdynamic -o "$program" "$here/profiled.c" 2>"$work/compiler" ||
	{ cat "$work/compiler"; exit 1; }
nm "$program" >"$work/symbols"

# function NAME INDEX: of the profile that was read last.
function_sum() {
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["functions"].get(sys.argv[2], [0] * 4)[int(sys.argv[3])])' \
		"$work/told" "$1" "$2"
}

for stacks in tables frames; do
	profile "$work/$stacks.pb.gz" "profile_stacks=$stacks" "$program"
	if ! python3 "$here/profile.py" "$work/$stacks.pb.gz" --symbols "$work/symbols" "$program" >"$work/told"; then
		complain "$stacks: $(<"$work/told")"
		continue
	fi
	about "$stacks, bytes of 64 in use" "$(function_sum keeps_40_mib_of_64 3)" $((40 * mib))
	about "$stacks, objects of 64 in use" "$(function_sum keeps_40_mib_of_64 2)" $((40 * mib / 64))
	about "$stacks, bytes of 4096 in use" "$(function_sum keeps_80_mib_of_4096 3)" $((80 * mib))
	about "$stacks, bytes of 100000 in use" "$(function_sum keeps_20_mib_of_100000 3)" $((210 * 102400))
	about "$stacks, bytes of 1024 allocated" "$(function_sum churns_200_mib 1)" $((200 * mib))
	[[ $(function_sum churns_200_mib 3) -eq 0 ]] || complain "$stacks: what was freed is in use"
	about "$stacks, all of main in use" "$(function_sum main 3)" $((120 * mib + 210 * 102400))
	echo "profile.proto, stacks by $stacks: $(cut -c1-150 "$work/told")"
done

# A process's number in the name; the other forms by the end of it.
QUARRY_OPTIONS=profile=4k QUARRY_PROFILE=$work/%p.heap LD_PRELOAD=$QUARRY_SO "$program" &
wait $!
[[ -s $work/$!.heap ]] || complain "no file $!.heap"
mv "$work/$!.heap" "$work/text.heap"
head -n 1 "$work/text.heap" | grep -Eq '^heap profile: [0-9]+: [0-9]+ \[[0-9]+: [0-9]+\] @ heap_v2/4096$' ||
	complain "the first line of a heap profile: $(head -n 1 "$work/text.heap")"
if command -v google-pprof >/dev/null; then
	google-pprof --text --cum --inuse_space --show_bytes "$program" "$work/text.heap" >"$work/text" 2>"$work/error" ||
		complain "google-pprof: $(<"$work/error")"
	# sums are in the fourth column with --cum
	for name in keeps_40_mib_of_64:40 keeps_80_mib_of_4096:80; do
		got=$(awk -v name="${name%:*}" '$NF == name { print $4 }' "$work/text")
		about "google-pprof, ${name%:*}" "${got:-0}" $((${name#*:} * mib))
	done
	echo "google-pprof:"
	head -n 6 "$work/text"
else
	echo "SKIP: google-pprof is not here (package google-perftools)"
fi

profile "$work/stacks.collapsed" "" "$program"
grep -vEq '^[^ ]+ [0-9]+$' "$work/stacks.collapsed" && complain "a line of collapsed stacks: $(grep -vE '^[^ ]+ [0-9]+$' "$work/stacks.collapsed" | head -n 1)"
about "collapsed stacks" "$(awk '/;main;keeps_80_mib_of_4096 / { n += $2 } END { print n + 0 }' "$work/stacks.collapsed")" $((80 * mib))

profile "$work/stacks.json" "" "$program"
about "JSON" "$(python3 -c '
import json, sys
print(sum(d["live_bytes"] for d in map(json.loads, open(sys.argv[1])) if "keeps_80_mib_of_4096" in d["names"]))' "$work/stacks.json")" \
	$((80 * mib))

# A real program, in which much is allocated and freed, with threads.
mean=64k profile "$work/python.pb.gz" "" python3 -c '
import threading
kept = []
def keep(): kept.extend(bytearray(20000) for _ in range(2000))
threads = [threading.Thread(target=keep) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(len([str(i) * 100 for i in range(100000)]))' >/dev/null
python3 "$here/profile.py" "$work/python.pb.gz" >"$work/told" || complain "python3: $(<"$work/told")"
python3 -c '
import json, sys
told = json.load(open(sys.argv[1]))
sys.exit(not (told["sums"][1] > 180e6 and told["samples"] > 20))' "$work/told" || complain "python3: $(<"$work/told")"

# What cannot be written is said, in one line, and the program's own status stays.
profile "$work/none/file" "" "$program" 2>"$work/error" || complain "the status of a program whose profile cannot be written"
[[ $(wc -l <"$work/error") -eq 1 ]] && grep -q "^quarry: QUARRY_PROFILE: .*none/file.*: No such file or directory$" "$work/error" ||
	complain "what is said of a file that cannot be made: $(<"$work/error")"
# No profile was kept, so there is none to write, and that is said.
QUARRY_PROFILE=$work/nothing LD_PRELOAD=$QUARRY_SO "$program" 2>"$work/error"
[[ ! -e $work/nothing && ! -e $work/nothing.part ]] || complain "a profile of nothing"
grep -q "^quarry: QUARRY_PROFILE: .*nothing: no profile was kept" "$work/error" || complain "of no profile: $(<"$work/error")"

# Asked by a signal: a process that waits, and is in no call of ours; its children, of which one works and one waits.
cat >"$work/asked.py" <<'EOF'
import os, sys, time
folder = sys.argv[1]
kept = [str(i) for i in range(100000)]
child = os.fork()
if child == 0:
    while not os.path.exists(folder + "/end"):
        kept.append([bytearray(n) for n in range(100, 3000, 7)][-1])
    os._exit(0)
idle = os.fork()
if idle == 0:
    while not os.path.exists(folder + "/end"):
        time.sleep(1)
    os._exit(0)
print(child, idle, flush=True)
os.waitpid(child, 0)
os.waitpid(idle, 0)
EOF
QUARRY_OPTIONS=profile=64k,report_signal=sigusr2,stats_at_exit=summary QUARRY_PROFILE=$work/asked.%p.%n.heap \
	QUARRY_VIEW=$work/asked.%p.%n.json LD_PRELOAD=$QUARRY_SO python3 "$work/asked.py" "$work" >"$work/child" 2>"$work/error" &
parent=$!

# wait_for CONDITION…: for some seconds at most
wait_for() {
	local i
	for ((i = 0; i < 300; i++)); do
		"$@" && return
		sleep 0.1
	done
	complain "never: $*"
}
wait_for test -s "$work/child"
read -r child idle <"$work/child"
for process in $parent $child $idle; do
	for number in 1 2; do
		kill -USR2 "$process"
		# (The view comes after the profile, and both when they are whole.)
		wait_for test -e "$work/asked.$process.$number.json"
		head -n 1 "$work/asked.$process.$number.heap" | grep -q '@ heap_v2/65536$' || complain "no profile of $process when asked"
		tail -n 1 "$work/asked.$process.$number.json" | grep -q '^{"end":' || complain "no whole view of $process when asked"
	done
done
said_by_child() { [[ $(grep -c "($child): " "$work/error") -eq 2 ]]; }
wait_for said_by_child
touch "$work/end"
wait $parent || complain "the status of a program that was asked"
[[ -s $work/asked.$parent.3.heap ]] || complain "no profile at the end of a program that was asked"
head -n 1 "$work/asked.$parent.3.json" | grep -q '"exact":1' || complain "a view at the end does not wait for the thread that told before"
[[ $(grep -c "($parent): .*mapped at most" "$work/error"),$(grep -c "($child): " "$work/error") == 3,2 ]] || complain "what is said when asked: $(<"$work/error")"
echo "asked by a signal: 6 times"

echo "profile: $errors failures"
[[ $errors -eq 0 ]]
