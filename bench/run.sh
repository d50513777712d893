#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs patterns and whole programs under quarry, under glibc, under the peers that Debian packages if they are
# installed, and under any other allocator that is named; ends in tables and in what was promised, kept or not. See
# bench/README.md.
# Usage: bench/run.sh [--quick | --scaling] [--rounds N] [--only WORKLOAD|GROUP|:GROUP,...] [--thp-peers]
#                     [--timeout SECONDS] [--seed N] [--csv FILE] [--markdown FILE] [--svg FILE]
#                     [NAME=PATH.so[,VAR=value...] ...]
# Takes QUARRY_SO (libquarry-malloc.so; else the build tree's), BENCH_EXTRA (allocators as in arguments), CC.
# Exits with 1 when a program failed under quarry; failures of others, and promises that are not kept, are only shown.
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
scaling=
only=
csv=
markdown=
svg=
files=
thp_peers=

# shellcheck disable=SC2317 # read_options calls it
own_option() {
	case $1 in
	--scaling) scaling=1; return 3 ;;
	--thp-peers) thp_peers=1; return 3 ;;
	--only) value_of "$1" "$2" "workloads and groups"; only=$2 ;;
	--csv) value_of "$1" "$2" "a file"; csv=$2 ;;
	--markdown) value_of "$1" "$2" "a file"; markdown=$2 ;;
	--svg) value_of "$1" "$2" "a file"; svg=$2 ;;
	*) return 1 ;;
	esac
}
read_options "$@"
[ -z "$quick" ] || [ -z "$scaling" ] || die "--quick or --scaling"
# As much as a workload needs, in MiB; touching it takes a tenth of a second for each GiB.
warm_for() { # workload
	case $1 in
	large | grow*) warm_mib=1280 ;;
	*) warm_mib=$([ -n "$quick" ] && echo 128 || echo 384) ;;
	esac
}
# A quick measurement has few rounds, and one of what takes long; whoever says how many, has so many of all.
few=
[ -n "$rounds" ] || few=$quick
: "${rounds:=$(if [ -n "$quick" ] || [ -n "$scaling" ]; then echo 3; else echo 9; fi)}"
add_scaling
read_workloads
find_compiler
begin_folder
add_all
check_output --csv "$csv"
check_output --markdown "$markdown"
check_output --svg "$svg"

# ---- Getting ready ------------------------------------------------------------------------------------------------

# A whole program has its input made, is run once without any allocator to see what it prints, and has to show under
# each allocator that its malloc is that one's. Where it cannot be run at all here, the reason is in why.
declare -A expected broken
prepare_program() { # program
	local i status
	"$1_prepare" || return
	settings=()
	"$1_command"
	env "${settings[@]}" "$dir/measure" --timeout "$timeout_s" --output "$dir/result" "${command[@]}" >"$dir/out" \
		2>"$dir/err" </dev/null
	status=$?
	if [ "$status" != 0 ]; then
		why=$(tail -1 "$dir/err")
		why="without an allocator ${command[0]} ends with status $status${why:+: $why}"
		return 1
	fi
	expected[$1]=$(result_of "$1")
	for i in "${!names[@]}"; do
		read_environment "$i"
		serves "${paths[i]}" || broken[$1,$i]=1
	done
}

# The server that a program of ours drives: does it work here?
prepare_redis() {
	with=()
	launch "$dir" '' redis --mix 1 --ops 100 >"$dir/out" 2>"$dir/err" </dev/null && return
	why=$(tail -1 "$dir/err")
	why=${why#redis: }
	return 1
}

# In a quick measurement the work is a part of the program's own number.
quick_options() { # program
	local ops
	ops=$("$dir/$1" --help | sed -n 's/^  --ops N *\([0-9]*\);.*/\1/p')
	[ -n "$ops" ] || die "$1 --help does not tell its number of operations"
	echo "--ops $((ops * quick_percent / 100 > 0 ? ops * quick_percent / 100 : 1))"
}

is_ours() { ! declare -F "$1_command" >/dev/null; }

kept=()
for w in "${!workload[@]}"; do
	p=${program[w]}
	needs=
	if declare -F "${p}_needs" >/dev/null; then
		"${p}_needs" && needs=
	elif [ ! -f "$here/$p.c" ]; then
		die "there is no bench/$p.c for ${workload[w]}"
	fi
	if [ -n "$needs" ]; then
		say "bench: ${workload[w]} is LEFT OUT: it is not installed (Debian: apt-get install $needs)"
		continue
	fi
	kept+=("$w")
done
[ "${#kept[@]}" -gt 0 ] || die "nothing is left to measure"

# What is to be drawn has to be measured: asked before the work, and again when it is known what can be measured.
check_svg() {
	local w
	[ -n "$svg" ] || return 0
	for w in "${kept[@]}"; do [[ " $means " != *" ${group[w]} "* ]] || return 0; done
	die "--svg draws the rows of the groups ${means// /, }, and none of them is measured here"
}
check_svg

ours=$(for w in "${kept[@]}"; do if is_ours "${program[w]}"; then echo "${program[w]}"; fi; done | sort -u)
say "compiling and making input"
# shellcheck disable=SC2086 # a list
compile "$dir" $ours pairs
ready=()
for w in "${kept[@]}"; do
	p=${program[w]}
	why=
	is_ours "$p" && [ "$p" != redis ] || say "${workload[w]}: its input, and whether it uses each allocator"
	if [ "$p" = redis ]; then
		prepare_redis
	elif ! is_ours "$p"; then
		prepare_program "$p"
	elif [ -n "$quick" ] && [[ ${options[w]} != *--ops* ]]; then
		options[w]+=" $(quick_options "$p")"
	fi || { say "bench: ${workload[w]} is LEFT OUT: ${why:-it cannot be prepared}"; continue; }
	ready+=("$w")
done
kept=("${ready[@]}")
[ "${#kept[@]}" -gt 0 ] || die "nothing is left to measure"
check_svg

# That an allocator can be measured at all: each program of ours looks in its own /proc/self/maps, in every run, whether
# malloc's code lies in the library that it should.
check_allocator() { # index
	local timeout_s=$((timeout_s < 30 ? timeout_s : 30))
	read_environment "$1"
	launch "$dir" "${paths[$1]}" pairs --ops 1 >"$dir/out" 2>"$dir/err" </dev/null
	collect pairs , "" <"$dir/out" 2>>"$dir/err" | grep -q ',@status,0,' && return
	cat "$dir/err" >&2
	die "${names[$1]} cannot be measured: its malloc is not in effect, or it fails at once"
}
for i in "${!names[@]}"; do check_allocator "$i"; done

say "allocators (that malloc is its own is verified):"
list_allocators '  %-12s %s' >&2
say "$rounds rounds of ${#kept[@]} workloads, order by --seed $seed, load average $(cut -d' ' -f1-3 /proc/loadavg)"

# ---- Running ------------------------------------------------------------------------------------------------------

raw=$dir/raw.csv
echo "round,program,allocator,metric,value,unit" >"$raw"
failed=0
start_seconds=$SECONDS

now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); } # ms

# How long is left, from what each workload has taken so far, and one that has not run yet as the mean of all.
declare -A took ran
spent=0 done_runs=0
left() { # the round; the workloads of it that are over
	local w n total=0 mean=$((done_runs ? spent / done_runs : 1000)) over=" $2 "
	for w in "${kept[@]}"; do
		n=$((${most[$w]} - $1))
		[[ $over == *" $w "* ]] || n=$((n + 1))
		[ "$n" -gt 0 ] || continue
		total=$((total + n * ${#names[@]} * (${ran[$w]:-0} ? ${took[$w]:-0} / ${ran[$w]:-1} : mean)))
	done
	printf '%d:%02d min' $((total / 60000)) $((total / 1000 % 60))
}

launch_workload() { # index of the workload, of the allocator: one run; its figures into $dir/out
	local w=$1 i=$2 p=${program[$1]} status warm_mib preload
	warm_for "${workload[w]}"
	read_environment "$i"
	if is_ours "$p"; then
		# shellcheck disable=SC2086 # a list
		launch "$dir" "${paths[i]}" "$p" ${options[w]} </dev/null
		return
	fi
	[ -z "${broken[$p,$i]:-}" ] || return 126
	settings=()
	"${p}_command"
	[ -z "$files" ] || rm -rf "${files:?}"/*
	[ -z "${paths[i]}" ] || name_for_preload "${paths[i]}"
	env "${with[@]}" "${settings[@]}" "$dir/measure" ${paths[i]:+--preload "$preload"} --warm "$warm_mib" \
		--timeout "$timeout_s" --output "$dir/result" "${command[@]}" </dev/null
	status=$?
	if [ "$status" = 0 ] && [ "$(result_of "$p")" != "${expected[$p]}" ]; then
		echo "bench: what it printed is WRONG" >&2
		return 125
	fi
	return "$status"
}

run_one() { # round, workload, allocator
	local r=$1 w=$2 i=$3 whole='' from status
	if is_given_up "${workload[w]}" "${names[i]}"; then
		echo "$r,${workload[w]},${names[i]},@status,124,code" >>"$raw"
		line+=" ${names[i]} GIVEN UP"
		return
	fi
	is_ours "${program[w]}" || whole=whole
	from=$(now)
	launch_workload "$w" "$i" >"$dir/out" 2>"$dir/err"
	status=$?
	# Of what a whole program printed the run itself says whether it was wrong; of one of ours its lines do.
	[ -z "$whole" ] || { grep -v '^@status ' "$dir/out"; echo "@status $status code"; } >"$dir/told"
	[ -n "$whole" ] || cp "$dir/out" "$dir/told"
	from=$(($(now) - from))
	took[$w]=$((${took[$w]:-0} + from))
	ran[$w]=$((${ran[$w]:-0} + 1))
	spent=$((spent + from))
	done_runs=$((done_runs + 1))
	# What every workload has: time, cpu and rss; of a server that a program drives they are the server's.
	collect "${program[w]}" , "$r,${workload[w]},${names[i]}" $whole <"$dir/told" 2>>"$dir/err" |
		awk -F, -v OFS=, -v whole="$whole" '
		{ v[$4] = $5; print }
		END {
			if (whole && "@wall" in v) print $1, $2, $3, "time", v["@wall"], "s"
			if ("@wall" in v) {
				print $1, $2, $3, "cpu", "server.cpu" in v ? v["server.cpu"] : v["@user"] + v["@sys"], "s"
				print $1, $2, $3, "rss", "server.peak" in v ? v["server.peak"] : v["@peak"], "MiB"
			}
		}' >"$dir/figures"
	cat "$dir/figures" >>"$raw"
	status=$(awk -F, '$4 == "@status" { print $5 }' "$dir/figures")
	if [ "$status" != 0 ]; then
		[ "${names[i]}" != quarry ] || failed=1
		[ ! -s "$dir/err" ] || tail -5 "$dir/err" | sed "s/^/  ${names[i]}: /" >&2
		[ "$status" != 124 ] || note_hang "${workload[w]}" "${names[i]}"
	fi
	line+=" ${names[i]} $(awk -F, -v s="$status" '$4 == "time" { t = $5 }
		END { if (s != 0 || t == "") printf "FAILED(%s)", s; else printf "%.3f", t }' "$dir/figures")"
}

declare -A most
for w in "${kept[@]}"; do
	most[$w]=$rounds
	[ -z "$few" ] || [ "${group[w]}" = single ] || [ "${group[w]}" = threads ] || most[$w]=1
done
for ((r = 1; r <= rounds; r++)); do
	over=
	for w in "${kept[@]}"; do
		[ "$r" -le "${most[$w]}" ] || continue
		line=
		shuffle "${#names[@]}"
		for i in "${order[@]}"; do
			[ ! -t 2 ] || printf '\rround %d/%d %s under %s, about %s left \e[K' "$r" "$rounds" "${workload[w]}" \
				"${names[i]}" "$(left "$r" "$over")" >&2
			run_one "$r" "$w" "$i"
		done
		over+=" $w"
		[ ! -t 2 ] || printf '\r\e[K' >&2
		say "round $r/$rounds ${workload[w]}:$line (about $(left "$r" "$over") left)"
	done
done
store "$raw" "$csv" || failed=1

# ---- What came out ----------------------------------------------------------------------------------------------

list=
for w in "${kept[@]}"; do list+=" ${workload[w]}:${group[w]}:${limit[w]}"; done
title="medians, rounds: $rounds${quick:+ (quick: smaller work${few:+, whole programs and parts once})}"
title+=", order by seed $seed, $((SECONDS - start_seconds)) s in all, load average $(cut -d' ' -f1-3 /proc/loadavg)"
draw() { # awk program, variables
	local f=$1
	shift
	awk -F, -f "$here/figures.awk" -f "$here/means.awk" -f "$here/$f" -v allocators="${names[*]}" -v workloads="$list" \
		-v means="$means" -v in_means="$in_means" -v quick="$quick" "$@" "$raw"
}
machine
echo "$title"
draw tables.awk -f "$here/promises.awk" -v form=text || failed=1
if [ -n "$markdown" ]; then
	{
		machine | sed 's/$/  /'
		echo "$title"
		echo
		list_allocators '- %s: %s'
		draw tables.awk -f "$here/promises.awk" -v form=markdown
	} >"$dir/tables.md" && store "$dir/tables.md" "$markdown" || failed=1
fi
if [ -n "$svg" ]; then
	draw plot.awk -v machine="$(machine | tr '\n' ' ')" -v title="$title" >"$dir/plot.svg" &&
		store "$dir/plot.svg" "$svg" || failed=1
fi
exit "$failed"
