#!/bin/bash
# SPDX-License-Identifier: MIT
# gcc, g++ and clang compile this project's C files, and a C++ program; the objects are the same bit by bit.
. "$(dirname "$0")/lib.sh"
need gcc gcc

export sources=$(cd "$root" && find lib numa -name '*.c' | sort | head -n "$(quick 6 100)")
compile() {
	local compiler=$1 source
	for source in $sources; do
		"$compiler" -std=gnu11 -O2 -g -fPIC -D_GNU_SOURCE -DQUARRY_BUILDING -I"$root" -I"$root/include" -w \
			-ffile-prefix-map="$PWD=." -c "$root/$source" -o "$(echo "$source" | tr / _).o" || return 1
	done
	sha256sum ./*.o
}
export -f compile
gcc_c() {
	compile gcc
}
clang_c() {
	compile clang
}
gcc_cxx() {
	g++ -std=c++17 -O2 -g -w -ffile-prefix-map="$PWD=." -I"$root" -I"$root/include" \
		-c "$root/tests/family/operators.cc" -o operators.o &&
		sha256sum operators.o
}

echo 'int main(void) { return 0; }' >"$work/small.c"
bound gcc -c "$work/small.c" -o "$work/small.o"
counted gcc -c "$work/small.c" -o "$work/small.o"
both gcc_c
if command -v g++ >/dev/null && [ -z "$QUARRY_QUICK" ]; then
	both gcc_cxx
fi
if command -v clang >/dev/null; then
	bound clang -c "$work/small.c" -o "$work/small.o"
	both clang_c
else
	say "clang is not installed: left out"
fi
