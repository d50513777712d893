#!/bin/bash
# SPDX-License-Identifier: MIT
# The public headers compile without a warning as programs include them: each alone, and all of them with their macros in
# use; as C99 and later and as C++11 and later, strictly, with C's casts refused in C++; and alone also as GNU C of 1989,
# and with what programs in C++ ask for beside. By each of gcc, clang, g++ and clang++ that is there; which are not is
# said.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES tests/headers.sh
set -euo pipefail
export LC_ALL=C

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
errors=0 compiled=0

headers=$(cd "$src/include" && echo quarry/*.h)

# What stands in a program's own lines of the headers' macros is compiled as the program's.
for header in $headers; do
	echo "#include <$header>"
done >"$dir/all.c"
cat >>"$dir/all.c" <<'END'

static const size_t mean = QUARRY_PROFILE_MEAN;

int uses_them(void);
int uses_them(void)
{
	QUARRY_AUTO(quarry_block) b = quarry_block_alloc(NULL, QUARRY_REFS_MAX);
	QUARRY_AUTO_FREE char *text = NULL;
	size_t n = 0;
	uint64_t *words = QUARRY_SEG_AS(uint64_t, quarry_block_seg(&b), &n);

	return words != NULL && n != mean && text == NULL;
}
END
cp "$dir/all.c" "$dir/all.cc"
printf '#include <quarry/quarry.hpp>\n' >"$dir/hpp.cc"
for header in $headers; do
	name=${header//\//_}
	printf '#include <%s>\n' "$header" | tee "$dir/${name%.h}.c" >"$dir/${name%.h}.cc"
done

# compile COMPILER OPTION… FILE
compile() {
	compiled=$((compiled + 1))
	if ! "$@" -I"$src/include" -Wall -Wextra -pedantic -Wshadow -Werror -fsyntax-only >"$dir/out" 2>&1; then
		echo "headers: $* says:"
		head -20 "$dir/out"
		errors=$((errors + 1))
	fi
}

declare -A beside=([g++]="-Wuseless-cast -Wzero-as-null-pointer-constant" [clang++]=-Wzero-as-null-pointer-constant)

for compiler in gcc clang; do
	command -v $compiler >"$dir/out" || { echo "headers: there is no $compiler: not tried by it"; continue; }
	for file in "$dir"/quarry_*.c; do # (clang refuses the word inline there)
		[[ $compiler == clang ]] || compile $compiler -std=gnu89 "$file"
	done
	for standard in c99 c11 gnu17; do
		for file in "$dir"/*.c; do
			compile $compiler -std=$standard -Wstrict-prototypes "$file"
		done
		compile $compiler -std=$standard -DQUARRY_CHECKED "$dir/all.c"
	done
done
for compiler in g++ clang++; do
	command -v $compiler >"$dir/out" || { echo "headers: there is no $compiler: not tried by it"; continue; }
	for standard in c++11 c++17 gnu++20; do
		for file in "$dir"/*.cc; do
			[[ $file == */hpp.cc && $standard == c++11 ]] || compile $compiler -std=$standard -Wold-style-cast "$file"
		done
		for file in "$dir"/quarry_*.cc; do
			# shellcheck disable=SC2086 # words
			compile $compiler -std=$standard ${beside[$compiler]} "$file"
		done
		compile $compiler -std=$standard -Wold-style-cast -DQUARRY_CHECKED "$dir/all.cc"
	done
done

echo "headers: compiled $compiled times"
[[ $compiled -gt 0 ]] || { echo "headers: no compiler was found"; exit 1; }
if [[ $errors -gt 0 ]]; then
	echo "headers: $errors of them with warnings or errors"
	exit 1
fi
