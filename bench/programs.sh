# SPDX-License-Identifier: MIT
# For run.sh, which reads it with ".": the whole programs that are measured, which are not ours. Not for itself.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # what is set here is used there, and the other way round
#
# Each has NAME_needs (what to install; its status tells whether it is there), NAME_prepare (its input, in $dir; the
# same for all; where that cannot be, the reason in why and a status), and NAME_command, which sets command=() (the
# program as the kernel gets it: an ELF file, no script), probe=() (arguments with which it only starts) and, where they
# are wanted, settings=() for its environment. What a run prints is compared with what it prints without any allocator
# preloaded; NAME_result, where there is one, leaves of it what has to be the same.
command=() probe=() settings=()

# A quarter of the work when it is quick.
work() { if [ -n "$quick" ]; then echo $(($1 / 4)); else echo "$1"; fi; }

# ---- redis-server: driven by redis.c, which checks what it is served by -------------------------------------------

redis_needs() { needs=redis-server; command -v redis-server >/dev/null; }

# ---- sqlite3: a database in memory ------------------------------------------------------------------------------

sqlite_needs() { needs=sqlite3; command -v sqlite3 >/dev/null; }
sqlite_prepare() {
	awk -f "$here/sqlite.awk" -v rows="$(work 250000)" >"$dir/input.sql" || { why="no room for its input"; return 1; }
}
sqlite_command() {
	local file=${dir//\\/\\\\}/input.sql
	command=("$(command -v sqlite3)" -batch -init /dev/null :memory: ".read \"${file//\"/\\\"}\"")
	probe=(-version)
}

# ---- RocksDB: its makers' db_bench, files in memory -----------------------------------------------------------------

rocksdb_needs() { needs=rocksdb-tools; command -v db_bench >/dev/null; }
rocksdb_prepare() {
	files=$(mktemp -d /dev/shm/quarry-bench.XXXXXX 2>"$dir/err") && return
	why="no folder in /dev/shm: $(head -1 "$dir/err")"
	return 1
}
rocksdb_command() {
	local n
	n=$(work 200000)
	command=("$(command -v db_bench)" --db="$files" "--benchmarks=fillrandom,overwrite,readrandom,seekrandom"
		--num="$n" --reads="$((n * 2 / 3))" --seed=1 --value_size=120 --compression_type=none --cache_size=8388608
		--write_buffer_size=8388608 --threads=1 --progress_reports=false)
	probe=(--version)
}
# Rates and times differ; how many keys were found does not, as the keys are drawn by the seed.
rocksdb_result() { grep -o '([0-9]* of [0-9]* found)'; }

# ---- A compiler: this library as one unit, optimized across its files ---------------------------------------------

compile_needs() {
	needs=gcc
	lto1=$(gcc -print-prog-name=lto1 2>/dev/null) && [ -x "$lto1" ]
}
# The front end's part is done here, once: each file as the compiler's intermediate code, which the run then reads,
# joins, optimizes and writes as assembly.
compile_prepare() {
	local sources=("$here"/../lib/manager/*.c)
	[ -n "$quick" ] || sources=("$here"/../lib/*/*.c)
	mkdir "$dir/objects"
	printf '%s\0' "${sources[@]}" | (cd "$dir/objects" && xargs -0 -P "$(nproc)" -n 4 gcc -std=gnu11 \
		-D_GNU_SOURCE -O2 -fPIC -flto -w -I"$here/.." -I"$here/../include" -c 2>"$dir/err") || {
		why="the library's sources do not compile with gcc -flto: $(grep -m 1 error: "$dir/err")"
		return 1
	}
}
compile_command() {
	command=("$lto1" -quiet -O2 -fPIC -w -o /dev/stdout "$dir"/objects/*.o)
	probe=(--version)
}

# ---- Python: objects, text, JSON, regular expressions, each object by malloc -----------------------------------------

python_needs() { needs=python3; python=$(readlink -f /usr/bin/python3) && [ -x "$python" ]; }
python_prepare() { :; }
python_command() {
	settings=(PYTHONMALLOC=malloc PYTHONHASHSEED=0)
	command=("$python" -s -S -B "$here/objects.py" "$(work 100000)")
	probe=(--version)
}

# ---- What all of them have ------------------------------------------------------------------------------------------

# Whether the dynamic linker binds what the program and its libraries call malloc, calloc, realloc and free to the
# library and to nothing else: it says so itself, of the program only starting. Where an address is taken in a library,
# a program at a fixed address stands in with a stub of its own, which leads to what its own calls are bound to.
serves() { # library; empty for the C library's; its environment is in with
	local want=${1:-$libc} of preload calls='\(malloc\|calloc\|realloc\|free\)'
	of=$(readlink -f "${command[0]}")
	rm -f "$dir"/bindings.*
	preload=
	[ -z "$1" ] || name_for_preload "$1"
	# In the foreground: an interrupt reaches it.
	timeout --foreground -s KILL "$((timeout_s < 60 ? timeout_s : 60))" env "${with[@]}" "${settings[@]}" \
		LD_DEBUG=bindings LD_BIND_NOW=1 LD_DEBUG_OUTPUT="$dir/bindings" LD_PRELOAD="$preload" \
		"$of" "${probe[@]}" >/dev/null 2>"$dir/err" </dev/null
	cat "$dir"/bindings.* 2>/dev/null |
		sed -n "s/.*binding file \\([^ ]*\\) \\[0\\] to \\([^ ]*\\) \\[0\\]: normal symbol .$calls'.*/\\1 \\2 \\3/p" |
		while read -r from to symbol; do
			from=$(readlink -f "$from")
			to=$(readlink -f "$to")
			# The library's own name may have spaces.
			[ "$from" = "$want" ] || echo "$from ${to/#"$want"/wanted} $symbol"
		done |
		awk -v of="$of" '
			$1 == of && $2 == "wanted" { own[$3] = 1 }
			$2 == of { stub[$3] = 1; next }
			{ to[$2] = 1 }
			END {
				for (f in to) print f
				for (s in stub) if (!(s in own)) print of ":" s
			}' | sort >"$dir/bound"
	[ "$(cat "$dir/bound")" = wanted ] && return 0
	say "bench: under $(basename "$want") ${command[0]} has its malloc from: $(tr '\n' ' ' <"$dir/bound")"
	head -1 "$dir/err" >&2
	return 1
}

# What is to be the same in every run, as one word.
result_of() { # program
	if declare -F "$1_result" >/dev/null; then "$1_result"; else cat; fi <"$dir/result" | cksum | tr ' ' -
}
