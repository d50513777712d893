#!/bin/bash
# SPDX-License-Identifier: MIT
# Tells where the time goes under quarry, for each workload of run.sh that its means are over: what the kernel counts,
# instructions (valgrind's callgrind), shares of the time (perf), system calls (strace), after what the machine allows
# at best (limits.c). A tool that is not there is left out, aloud. See bench/README.md.
# Usage: bench/where.sh [--quick] [--rounds N] [--only WORKLOAD|GROUP|:GROUP,...] [--csv FILE] [--markdown FILE]
# Takes QUARRY_SO (libquarry-malloc.so; else the build tree's), CC. --rounds is of what the kernel counts (3); --quick
# has one, and whole programs do a quarter of their work.
# Exits with 1 when a program failed under quarry.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=bench/lib.sh
. "$here/lib.sh"
# shellcheck source=bench/workloads.sh
. "$here/workloads.sh"
# shellcheck source=bench/programs.sh
. "$here/programs.sh"
rounds=
quick=
only=
csv=
markdown=
files=
# shellcheck disable=SC2034 # workloads.sh looks at it
scaling=
# shellcheck disable=SC2317 # read_options calls it
usage() { sed -n '3,9s/^# \{0,1\}//p' "$0"; }

# shellcheck disable=SC2317 # so it does this
own_option() {
	case $1 in
	--only) only=$2; [ -n "$only" ] || die "--only takes workloads and groups" ;;
	--csv) csv=$2; [ -n "$csv" ] || die "--csv takes a file" ;;
	--markdown) markdown=$2; [ -n "$markdown" ] || die "--markdown takes a file" ;;
	*) return 1 ;;
	esac
}
read_options "$@"
[ "${#named[@]}" = 0 ] || die "${named[0]}: it looks at quarry alone (see --help)"
: "${rounds:=$([ -n "$quick" ] && echo 1 || echo 3)}" "${only:=:${means// /,:}}"
read_workloads
check_output --csv "$csv"
check_output --markdown "$markdown"
find_compiler
find_quarry
library=${paths[0]}

dir=$(mktemp -d) || exit 2
beside=() # what runs in the background
trap '[ "${#beside[@]}" = 0 ] || kill "${beside[@]}" 2>/dev/null; rm -rf "$dir" ${files:+"$files"}' EXIT
trap 'exit 130' INT TERM

# ---- Tools --------------------------------------------------------------------------------------------------------

valgrind='' strace='' perf=''
no_instructions='' no_calls='' no_shares=''
# Sets the tool's variable to its path, if it is there and the command does what it should; why not is left in `why`.
have() { # tool, Debian package, command to try
	local path tool=$1 package=$2
	shift 2
	why=
	if ! path=$(type -P "$tool"); then
		why="$tool is not installed (Debian: apt-get install $package)"
	elif ! "$@" >"$dir/out" 2>&1; then
		why="$tool does not work here ($(head -1 "$dir/out"))"
	else
		printf -v "$tool" %s "$path"
		return
	fi
	say "bench: $tool's part is LEFT OUT: $why"
}
have valgrind valgrind valgrind --tool=callgrind --callgrind-out-file=/dev/null true
no_instructions=$why
have strace strace strace -f -c -o /dev/null true
no_calls=$why
shown="program quarry kernel libc"
have perf linux-perf perf record -q -o "$dir/perf" -- ls /
no_shares=$why
# Without the right to see the kernel perf takes the user's part alone, and says so in the event's name.
if [ -n "$perf" ] && "$perf" evlist -i "$dir/perf" 2>/dev/null | grep -q ':[pP]*u'; then
	shown="program quarry libc"
	no_shares="the kernel's is not in them (perf may not see it: /proc/sys/kernel/perf_event_paranoid)"
	say "bench: of perf's shares $no_shares"
fi

# ---- Getting ready ------------------------------------------------------------------------------------------------

is_ours() { ! declare -F "$1_command" >/dev/null; }

kept=()
for w in "${!workload[@]}"; do
	if declare -F "${program[w]}_needs" >/dev/null && ! "${program[w]}_needs"; then
		say "bench: ${workload[w]} is LEFT OUT: it is not installed (Debian: apt-get install $needs)"
		continue
	fi
	kept+=("$w")
done
[ "${#kept[@]}" -gt 0 ] || die "nothing is left to measure"
say "compiling and making input"
ours=$(for w in "${kept[@]}"; do if is_ours "${program[w]}"; then echo "${program[w]}"; fi; done | sort -u)
# shellcheck disable=SC2086 # a list
compile "$dir" limits $ours
for w in "${kept[@]}"; do
	is_ours "${program[w]}" && continue
	"${program[w]}_prepare"
	settings=()
	"${program[w]}_command"
	serves "$library" || die "quarry is not the malloc of ${workload[w]}"
done

# redis.c starts its server by name, so that what stands in PATH before it can say which process it is, and start it
# under strace, with which it stays the client's child (-D).
redis_server=$(type -P redis-server)
mkdir "$dir/path"
cat >"$dir/path/redis-server" <<EOT
#!/bin/sh
[ "\$1" = --version ] || echo \$\$ >"$dir/server"
if [ "\$1" != --version ] && [ -e "$dir/stracing" ]; then
	library=\$LD_PRELOAD
	unset LD_PRELOAD
	exec $strace -D -f -c -S calls -o "$dir/strace" -E LD_PRELOAD="\$library" "$redis_server" "\$@"
fi
exec "$redis_server" "\$@"
EOT
chmod +x "$dir/path/redis-server"

# Work for callgrind, which takes 50 times as long: this and twice as much.
counted() { # program
	case $1 in
	nbody) echo 1 ;;
	bignum) echo 6 ;;
	logic | lisp | json) echo 30 ;;
	large) echo 300 ;;
	threads) echo 3000 ;;
	many) echo 30000 ;;
	sharing) echo 200000 ;;
	larson | exchange | batch) echo 1000000 ;;
	mixed | prodcons | replace) echo 2000000 ;;
	pairs) echo 3000000 ;;
	esac
}

# ---- Running ------------------------------------------------------------------------------------------------------

raw=$dir/raw.csv
echo "round,workload,allocator,metric,value,unit" >"$raw"
failed=0
start_seconds=$SECONDS

# A workload's command line into line=(), and what it has in its environment into settings=().
set_line() { # library; empty for none
	local p=${program[w]}
	settings=()
	if is_ours "$p"; then
		# shellcheck disable=SC2206 # a list
		line=("$dir/$p" ${options[w]})
		settings=("BENCH_MALLOC_IN=${1:-libc}")
	else
		"${p}_command"
		line=("${command[@]}")
		[ -z "$files" ] || rm -rf "${files:?}"/*
	fi
}

# A run of it with a tool, the words in before=(), in front. What it prints is dropped; of a failure the end is shown.
under() { # options of measure
	env "${settings[@]}" "$dir/measure" "$@" --timeout 300 --output "$dir/result" "${before[@]}" "${line[@]}" \
		</dev/null >"$dir/out" 2>"$dir/err" && return
	say "  ${workload[w]} under ${before[0]##*/} FAILED: $(tail -1 "$dir/err")"
	failed=1
	return 1
}

# As in run.sh: what a virtual machine has not used for a while its host may have taken away (see measure.c).
warm_mib=1280

# Lines "metric value unit", the unit of any words or none, into the raw table; a comma parts its columns.
figures() { # allocator
	awk -v head="1,${workload[w]},$1" 'NF > 1 {
		line = head "," $1 "," $2 ","
		for (i = 3; i <= NF; i++) {
			gsub(/,/, ";", $i)
			line = line (i > 3 ? " " : "") $i
		}
		print line
	}' >>"$raw"
}

# One run that is counted by the kernel alone.
run_once() { # round
	local whole=
	set_line "$library"
	if is_ours "${program[w]}"; then
		launch "$dir" "$library" "${program[w]}" "${line[@]:1}" </dev/null
	else
		env "${settings[@]}" "$dir/measure" --preload "$library" --warm "$warm_mib" --timeout 300 \
			--output "$dir/result" "${line[@]}" </dev/null
	fi >"$dir/out" 2>"$dir/err" || {
		say "  ${workload[w]} FAILED: $(tail -1 "$dir/err")"
		failed=1
	}
	is_ours "${program[w]}" || whole=whole
	collect "${program[w]}" , "$1,${workload[w]},quarry" $whole <"$dir/out" | awk -F, -v OFS=, '
		{ v[$4] = $5; head = $1 "," $2 "," $3 }
		function put(metric, own, all) { print head, metric, own in v ? v[own] : v[all], "" }
		END {
			put("@status", "@status")
			put("time", "time", "@wall")
			put("user", "server.user", "@user")
			put("sys", "server.sys", "@sys")
			put("faults", "server.faults", "@faults")
		}' >>"$raw"
}

count_instructions() {
	local n size
	n=$(counted "${program[w]}")
	if [ -z "$n" ]; then
		[ "${program[w]}" = redis ] || ! is_ours "${program[w]}" ||
			say "  ${workload[w]}: where.sh has no work for callgrind, its instructions are LEFT OUT"
		return 0
	fi
	for size in "$n" $((2 * n)); do
		set_line "$library"
		line+=(--ops "$size")
		before=("$valgrind" -q --tool=callgrind --callgrind-out-file="$dir/callgrind")
		under --preload "$library" || return
		awk -v library="$library" -f "$here/callgrind.awk" "$dir/callgrind"
	done >"$dir/counted"
	awk -v n="$n" -v one="$("${line[0]}" --help | sed -n 's/^  --ops N .*; one is: //p')" '
		{ v[$1] = $2 - v[$1] }
		END {
			print "op.all", v["all"] / n, one
			print "op.quarry", v["allocator"] / n
			print "op.calls", v["calls"] / n
			if (v["calls"] > 0) print "op.pair", 2 * v["allocator"] / v["calls"]
			if (v["all"] > 0) print "op.share", 100 * v["allocator"] / v["all"]
		}' "$dir/counted" | figures quarry
}

# Starts redis.c, which starts the server; $! is then the one, and the number in $dir/server the other.
start_redis() { # library
	rm -f "$dir/server"
	# shellcheck disable=SC2086 # a list
	PATH="$dir/path:$PATH" launch "$dir" "$1" redis ${options[w]} </dev/null >"$dir/out" 2>"$dir/err" &
}

wait_for() { # a command that says when it is time; at most 10 s
	local i
	for ((i = 0; i < 500; i++)); do
		"$@" && return
		sleep 0.02
	done
	return 1
}

# shellcheck disable=SC2317 # wait_for calls it
perf_is_gone() { ! kill -0 "${beside[0]}" 2>/dev/null; }

redis_failed() {
	say "  ${workload[w]} under $1 FAILED: $(tail -1 "$dir/err")"
	failed=1
}

# A thread is sampled when it has run for as long as there is between two samples; what ends sooner is never seen, and
# where that is most of the time the shares would be of the rest. They are left out then.
rate=$(awk '{ print $1 < 10000 ? $1 : 10000 }' /proc/sys/kernel/perf_event_max_sample_rate 2>/dev/null || echo 4000)
sample() {
	local client expected status=0
	"$dir/measure" --warm "$warm_mib" "$(type -P true)" >/dev/null
	if [ "${program[w]}" = redis ]; then
		start_redis "$library"
		client=$!
		wait_for test -s "$dir/server"
		"$perf" record -q -F "$rate" -o "$dir/perf" -p "$(cat "$dir/server")" >/dev/null 2>&1 &
		beside=("$!")
		wait "$client" || status=1
		# It ends with the process that it looks at.
		wait_for perf_is_gone || kill -INT "${beside[0]}"
		wait "${beside[0]}"
		beside=()
		[ "$status" = 0 ] || { redis_failed perf; return 1; }
	else
		set_line "$library"
		before=("$perf" record -q -F "$rate" -o "$dir/perf" -- env "LD_PRELOAD=$library")
		under || return
	fi
	expected=$(awk -F, -v w="${workload[w]}" -v rate="$rate" '
		$2 == w && ($4 == "user" || $4 == "sys") { cpu[$4] = $5 }
		END { print rate * (cpu["user"] + cpu["sys"]) }' "$raw")
	"$perf" report -i "$dir/perf" -q --stdio -g none -n --sort dso 2>/dev/null |
		awk -v library="${library##*/}" -v parts="$shown" -v expected="$expected" '
		function part_of(file) {
			if (file == library)
				return "quarry"
			if (file ~ /^(ld|ld-linux|ld-musl|libc|libm|libpthread|libdl)[-.]/ || file == "[vdso]")
				return "libc"
			return file ~ /^\[/ && file !~ /^\[(unknown|anon|heap|stack)/ ? "kernel" : "program"
		}
		$1 ~ /^[0-9.]+%$/ {
			share[part_of($3)] += $2
			sum += $2
		}
		END {
			print "samples", sum + 0
			n = split(parts, list, " ")
			for (i = 1; i <= n && sum >= 100 && sum > expected / 3; i++)
				print "share." list[i], 100 * share[list[i]] / sum
		}' | figures quarry
}

count_calls() { # library; empty for none
	if [ "${program[w]}" = redis ]; then
		rm -f "$dir/strace"
		: >"$dir/stracing"
		start_redis "$1"
		wait $! || { redis_failed strace; return 1; }
		rm -f "$dir/stracing"
		# strace is not waited for by the server, and writes its table when that has gone.
		wait_for grep -qs ' total$' "$dir/strace" || { redis_failed strace; return 1; }
	else
		set_line "$1"
		before=("$strace" -f -c -S calls -o "$dir/strace" ${1:+-E "LD_PRELOAD=$1"})
		under || return
	fi
	awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { print "call." $NF, $4; all += $4 } END { print "calls", all + 0 }' \
		"$dir/strace" | figures "$([ -n "$1" ] && echo quarry || echo without)"
}

step() { # what is done now
	[ ! -t 2 ] || printf '\r%d/%d %s: %s \e[K' "$nth" "${#kept[@]}" "${workload[w]}" "$1" >&2
}

workload+=(limits)
w=$((${#workload[@]} - 1))
say "what the machine allows"
"$dir/measure" "$dir/limits" >"$dir/out" || die "limits failed"
collect limits " " "" <"$dir/out" | figures quarry

nth=0
for w in "${kept[@]}"; do
	nth=$((nth + 1))
	for ((r = 1; r <= rounds; r++)); do
		step "time, round $r"
		run_once "$r"
	done
	if [ -n "$valgrind" ]; then step instructions; count_instructions; fi
	if [ -n "$perf" ]; then step samples; sample; fi
	if [ -n "$strace" ]; then
		step "system calls"
		count_calls "$library"
		step "system calls without quarry"
		count_calls ""
	fi
	[ ! -t 2 ] || printf '\r\e[K' >&2
	say "$nth/${#kept[@]} ${workload[w]}: $(awk -F, -v w="${workload[w]}" '
		$2 == w { v[$3, $4] = $5 }
		function put(name, metric, format) {
			if ((name, metric) in v)
				printf "%s" format, n++ ? ", " : "", v[name, metric]
		}
		END {
			put("quarry", "time", "%.3f s")
			put("quarry", "faults", "%.0f faults")
			put("quarry", "op.pair", "%.1f instructions for a malloc and a free")
			put("quarry", "share.quarry", "%.1f %% of the samples")
			put("quarry", "calls", "%.0f system calls")
			put("without", "calls", "%.0f without quarry")
		}' "$raw") ($((SECONDS - start_seconds)) s in all)"
done
[ -z "$csv" ] || cp "$raw" "$csv"

# ---- What came out ------------------------------------------------------------------------------------------------

list=
for w in "${kept[@]}"; do list+=" ${workload[w]}"; done
title="where the time goes under quarry (${labels[0]})${quick:+, quick: whole programs do less}, rounds: $rounds"
title+=", $((SECONDS - start_seconds)) s in all, load average $(cut -d' ' -f1-3 /proc/loadavg)"
draw() { # form
	awk -F, -f "$here/figures.awk" -f "$here/where.awk" -v form="$1" -v workloads="$list" \
		-v instructions="$no_instructions" -v shares="$no_shares" -v calls="$no_calls" "$raw"
}
machine
echo "$title"
draw text || failed=1
if [ -n "$markdown" ]; then
	{
		machine | sed 's/$/  /'
		echo "$title"
		draw markdown
	} >"$markdown" || failed=1
fi
exit "$failed"
