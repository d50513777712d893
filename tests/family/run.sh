#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds one program of tests/family and runs it in every way that its "variants:" line names:
#   preload  built as any program is, run with libquarry-malloc.so preloaded
#   both     linked with libquarry.so, run with libquarry-malloc.so preloaded: one allocator
#   linked   linked with libquarry-malloc.so
#   twice    linked with libquarry.so and libquarry-malloc.so, in this order: one allocator
#   archive  linked with libquarry-malloc.a, libc shared
#   static   linked with libquarry-malloc.a and everything else static
# A program passes when it exits with 0 and prints nothing; 77 means that the machine does not let it try, and its
# last line says why. Each "flags:" line has it built once more, with these, and run as the first of its variants, where
# the compiler knows them. NAME.plugin.c or NAME.plugin.cc becomes a shared object, whose path is the first argument.
#
# Usage: tests/family/run.sh PROGRAM.c|PROGRAM.cc [VARIANT...]
# Takes QUARRY_SO (the path of libquarry-malloc.so; libquarry.so and the archives stand beside it), CC and CXX.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
: "${QUARRY_SO:?the path of libquarry-malloc.so}"
[ -f "$QUARRY_SO" ] || { echo "QUARRY_SO: $QUARRY_SO is not there"; exit 1; }
export QUARRY_LIBDIR
QUARRY_LIBDIR=$(cd "$(dirname "$QUARRY_SO")" && pwd)
limit=${FAMILY_TIMEOUT:-60}

source=$1
shift
[ -f "$source" ] || source=$here/$(basename "$source")
name=$(basename "$source")
name=${name%.*}
variants=${*:-$(sed -n 's/.*variants: *\([a-z ]*[a-z]\).*/\1/p;T;q' "$source")}
[ -n "$variants" ] || { echo "$source has no line 'variants:'"; exit 1; }

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
echo 'int main(void) { return 0; }' >"$work/empty.${source##*.}"
unset LD_PRELOAD QUARRY_OPTIONS MALLOC_ARENA_MAX

compiler_of() {
	case $1 in
	*.cc) echo "${CXX:-c++} -std=c++17 -fsized-deallocation" ;;
	*) echo "${CC:-cc} -std=gnu11" ;;
	esac
}

# -fno-builtin: the compiler may not leave out a malloc because it sees the free.
compile() { # OUT SOURCE ARGUMENTS...
	local out=$1 from=$2 command
	shift 2
	command=$(compiler_of "$from")
	if ! command -v "${command%% *}" >/dev/null; then
		echo "no compiler: ${command%% *}"
		exit 77
	fi
	$command -D_GNU_SOURCE -O1 -g -Wall -Wextra -fno-builtin -I"$root" -I"$root/include" -pthread \
		-o "$out" "$from" "$@" >"$work/compiler" 2>&1
}

plugin=
for p in "$here/$name.plugin.c" "$here/$name.plugin.cc"; do
	[ -f "$p" ] || continue
	plugin=$work/plugin.so
	compile "$plugin" "$p" -shared -fPIC || { cat "$work/compiler"; exit 1; }
done

mapfile -t builds < <(
	printf '%s\n' $variants
	sed -n "s/.*flags: */${variants%% *} /p" "$source"
)
failed=0 skipped=0 passed=0
for build in "${builds[@]}"; do
	read -r variant flags <<<"$build"
	if [ -n "$flags" ] && ! compile "$work/empty" "$work/empty.${source##*.}" $flags -c; then
		echo "$name $build: skipped, the compiler does not know that"
		skipped=$((skipped + 1))
		continue
	fi
	preload= libs= archive=$QUARRY_LIBDIR/libquarry-malloc.a
	rpath="-L$QUARRY_LIBDIR -Wl,-rpath,$QUARRY_LIBDIR -Wl,--no-as-needed"
	case $variant in
	preload) preload=$QUARRY_SO ;;
	both) preload=$QUARRY_SO libs="$rpath -lquarry" ;;
	linked) libs="$rpath -lquarry-malloc" ;;
	twice) libs="$rpath -lquarry -lquarry-malloc" ;;
	archive) libs="$archive" ;;
	static) libs="-static $archive" ;;
	*) echo "$name: no variant is called $variant"; exit 1 ;;
	esac
	case $variant in
	archive | static)
		if [ ! -f "$archive" ]; then
			echo "$name $build: skipped, libquarry-malloc.a was not built"
			skipped=$((skipped + 1))
			continue
		fi
		;;
	esac
	# The library's own needs, for an archive (libtool keeps them in the .la).
	if ! compile "$work/$variant" "$source" $flags $libs -ldl -lm; then
		echo "$name $build: does not build"
		head -30 "$work/compiler"
		failed=$((failed + 1))
		continue
	fi
	(
		cd "$work" || exit 1
		export FAMILY_VARIANT=$variant
		exec timeout --kill-after=5 "$limit" env ${preload:+LD_PRELOAD="$preload"} \
			"$work/$variant" ${plugin:+"$plugin"} >"$work/out" 2>&1 </dev/null
	)
	status=$?
	case $status in
	77)
		echo "$name $build: skipped, $(tail -n 1 "$work/out")"
		skipped=$((skipped + 1))
		;;
	0)
		if [ -s "$work/out" ]; then
			echo "$name $build: passed but printed:"
			head -20 "$work/out"
			failed=$((failed + 1))
		else
			echo "$name $build: ok"
			passed=$((passed + 1))
		fi
		;;
	124 | 137)
		echo "$name $build: hangs (ended after $limit s)"
		head -20 "$work/out"
		failed=$((failed + 1))
		;;
	*)
		echo "$name $build: FAILED with status $status"
		head -20 "$work/out"
		failed=$((failed + 1))
		;;
	esac
done
echo "$name: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] || exit 1
[ $passed -gt 0 ] || exit 77
exit 0
