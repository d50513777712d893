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

struct row {
	long total;
};
typedef struct column {
	double v[8];
} __attribute__((aligned(64))) column;
QUARRY_HANDLE_TYPE(row_ref, struct row);
QUARRY_HANDLE_TYPE_ID(column_ref, column, 7);

long uses_handles(quarry_lanes *l);
long uses_handles(quarry_lanes *l)
{
	row_ref r = row_ref_make(l);
	column_ref c = column_ref_make(l);
	const struct row *seen = row_ref_get(l, r);
	struct row *mine = row_ref_get_mut(l, r), copy;
	column *pinned = column_ref_pin(l, c);

	if (seen == NULL || mine == NULL || pinned == NULL || row_ref_read(l, r, &copy) != 0 || column_ref_unpin(l, c) != 0)
		return -1;
	return row_ref_is(r) && row_ref_valid(l, row_ref_of(r.handle)) && row_ref_free(l, r) == 0 ? copy.total : 0;
}

QUARRY_SEQ_TYPE(path, struct row);
QUARRY_RING_TYPE(jobs, column);

long uses_sequences(quarry_lanes *l);
long uses_sequences(quarry_lanes *l)
{
	path p = path_make(l);
	jobs j = jobs_make(l, 10, QUARRY_RING_OVERWRITE);
	QUARRY_RENTED r = quarry_rent(l, 100);
	struct row row = { 1 };
	column c = { { 0 } };

	if (path_push(&p, row) != 0 || path_insert(&p, 0, row) != 0 || path_remove(&p, 0, &row) != 0 || path_set(&p, 0, row) != 0 ||
	    path_get(&p, 0, &row) != 0 || path_pop(&p, &row) != 0 || jobs_push(&j, c) != 0 || jobs_peek(&j, 0, &c) != 0 ||
	    jobs_pop(&j, &c) != 0 || path_end(&p) != 0 || jobs_end(&j) != 0 || r.at == NULL)
		return -1;
	return path_count(&p) == 0 && jobs_count(&j) == 0 ? row.total : -1;
}

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

# refused WHAT LINE COMPILER OPTION…: with this line in it the program's function is none
refused() {
	local what=$1 line=$2 file
	shift 2
	file=$dir/refused.$([[ $1 == *++ ]] && echo cc || echo c)
	sed "s/^\tif (seen == NULL/\t$line\n&/" "$dir/all.c" >"$file"
	compiled=$((compiled + 1))
	if "$@" -I"$src/include" -fsyntax-only -Werror "$file" >"$dir/out" 2>&1; then
		echo "headers: $* takes $what"
		errors=$((errors + 1))
	elif ! grep -qE 'incompatible|convert|no matching|discards|const' "$dir/out"; then
		echo "headers: $* refuses $what for another reason:"
		head -5 "$dir/out"
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

for compiler in gcc clang g++ clang++; do
	command -v $compiler >"$dir/out" || continue
	refused "one type's handle for another's" 'seen = row_ref_get(l, c);' $compiler
	refused "a plain handle for one of a type" 'seen = row_ref_get(l, c.handle);' $compiler
	refused "one type's object for another's" 'pinned = row_ref_pin(l, r);' $compiler
	refused "to write what was got for reading" 'mine = row_ref_get(l, r);' $compiler
	refused "to free another's" 'if (row_ref_free(l, c) != 0) return 1;' $compiler
done

echo "headers: compiled $compiled times"
[[ $compiled -gt 0 ]] || { echo "headers: no compiler was found"; exit 1; }
if [[ $errors -gt 0 ]]; then
	echo "headers: $errors of them with warnings or errors"
	exit 1
fi
