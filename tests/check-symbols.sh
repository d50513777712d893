#!/bin/bash
# SPDX-License-Identifier: MIT
# The built libraries are what they promise to be: they export the API (and, the malloc library, the allocation
# family) whole and nothing else, with versions where they are to have some, need libc alone and no runtime of C++, keep
# their thread-local data small and in the initial-exec model, and have no text relocations.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/check-symbols.sh
set -euo pipefail
export LC_ALL=C

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
tls_limit=512 # bytes; glibc keeps little more static TLS for libraries that are loaded late

family="malloc calloc realloc reallocarray free free_sized free_aligned_sized aligned_alloc posix_memalign memalign
valloc pvalloc cfree malloc_usable_size malloc_trim malloc_stats malloc_info mallinfo mallinfo2 mallopt
_Znwm _ZnwmRKSt9nothrow_t _ZnwmSt11align_val_t _ZnwmSt11align_val_tRKSt9nothrow_t
_Znam _ZnamRKSt9nothrow_t _ZnamSt11align_val_t _ZnamSt11align_val_tRKSt9nothrow_t
_ZdlPv _ZdlPvRKSt9nothrow_t _ZdlPvm _ZdlPvSt11align_val_t _ZdlPvmSt11align_val_t _ZdlPvSt11align_val_tRKSt9nothrow_t
_ZdaPv _ZdaPvRKSt9nothrow_t _ZdaPvm _ZdaPvSt11align_val_t _ZdaPvmSt11align_val_t _ZdaPvSt11align_val_tRKSt9nothrow_t"

errors=0
complain() {
	echo "check-symbols: $*"
	errors=$((errors + 1))
}

# The functions that the public headers declare with QUARRY_API: the name before the first parenthesis, attributes
# aside. Declarations may go over several lines, so the header is read as one.
api_of_header() {
	sed 's@//.*@@' "$src"/include/quarry/*.h | tr '\n\t' '  ' | sed 's@/\*@\n/*@g; s@\*/@*/\n@g' |
		grep -v '^/\*' | tr '\n' ' ' | grep -o 'QUARRY_API [^;{]*;' |
		grep -o 'quarry_[a-z0-9_]* *(' | tr -d ' (' | sort -u
}

# check_exports LIBRARY NAMES: exactly these.
check_exports() {
	local name=${1##*/} wanted got extra missing
	wanted=$(tr -s ' \n' '\n\n' <<<"$2" | sed '/^$/d' | sort -u)
	got=$(nm --dynamic --defined-only --format=posix "$1" | awk '$2 != "A" { sub(/@.*/, "", $1); print $1 }' | sort -u)
	extra=$(comm -13 <(echo "$wanted") <(echo "$got"))
	missing=$(comm -23 <(echo "$wanted") <(echo "$got"))
	[[ -z $extra ]] || complain "$name exports what it should not:" $extra
	[[ -z $missing ]] || complain "$name does not export:" $missing
	echo "check-symbols: $name exports $(wc -l <<<"$got") names"
}

# Who the library needs: libc, and the dynamic linker where libc keeps symbols there (__rseq_offset). Not even
# the other names that libc had before glibc 2.34 are listed where the linker finds libc enough.
check_needed() {
	local name=${1##*/} library
	for library in $(readelf --dynamic --wide "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
		case $library in
		libc.so* | libc.musl-* | ld-linux*.so* | ld64.so*) ;;
		libdl.so* | libpthread.so*) ;; # libc before glibc 2.34
		*) complain "$name needs $library" ;;
		esac
	done
}

# No runtime of C++: nothing with a mangled name has to be there, nor what such code calls. (What operator new throws
# is named weakly: it is there where the program is C++. The header quarry.hpp is compiled into the program.)
check_runtime() {
	local name=${1##*/} wanted
	wanted=$(nm --dynamic --undefined-only --format=posix "$1" | awk '$2 == "U" { print $1 }' |
		grep -E '^(_Z|__cxa_(throw|begin|end|guard|pure)|__gxx_|__cxa_allocate)' || true)
	[[ -z $wanted ]] || complain "$name needs a runtime of C++:" $wanted
}

# check_versions LIBRARY VERSION: all that it exports has that version; none where VERSION is empty. (Why the library of
# malloc has none: lib/api/quarry-malloc.map.)
check_versions() {
	local name=${1##*/} wrong
	wrong=$(nm --dynamic --defined-only --with-symbol-versions --format=posix "$1" |
		awk -v version="${2:+@@$2}" '$2 != "A" { at = index($1, "@"); v = at == 0 ? "" : substr($1, at);
			if (v != version) print $1 }')
	[[ -z $wrong ]] || complain "$name: not of version '$2':" $wrong
	if [[ -n $2 ]]; then
		readelf --version-info --wide "$1" | grep -q "Name: $2\$" || complain "$name defines no version $2"
	fi
}

check_tls() {
	local name=${1##*/} size dynamic
	size=$(readelf --segments --wide "$1" | awk '$1 == "TLS" { print $6 }')
	dynamic=$(readelf --dynamic --wide "$1")
	if [[ -z $size ]]; then
		echo "check-symbols: $name has no thread-local data"
		return
	fi
	size=$((size))
	echo "check-symbols: $name has $size bytes of thread-local data"
	[[ $size -lt $tls_limit ]] || complain "$name: $size bytes of thread-local data, the limit is $tls_limit"
	grep -q 'STATIC_TLS' <<<"$dynamic" || complain "$name: the TLS model is not initial-exec (no STATIC_TLS flag)"
	if nm --dynamic --undefined-only "$1" | grep -q '__tls_get_addr'; then
		complain "$name calls __tls_get_addr: some TLS access is not initial-exec"
	fi
	if readelf --relocs --wide "$1" | grep -qE 'R_[A-Z0-9_]*(DTPMOD|TLSDESC)'; then
		complain "$name has dynamic TLS relocations: some TLS access is not initial-exec"
	fi
}

check_dynamic() {
	local name=${1##*/} dynamic
	dynamic=$(readelf --dynamic --wide "$1")
	if grep -q 'TEXTREL' <<<"$dynamic"; then
		complain "$name has text relocations"
	fi
	grep -q 'BIND_NOW\|FLAGS.* NOW' <<<"$dynamic" || complain "$name binds lazily: the resolver would run inside malloc"
	grep -q 'NODELETE' <<<"$dynamic" || complain "$name can be unloaded under the threads' caches"
	if readelf --segments --wide "$1" | grep -q 'GNU_STACK.*RWE'; then
		complain "$name asks for an executable stack"
	fi
}

api=$(api_of_header)
[[ $(wc -l <<<"$api") -ge 10 ]] || complain "the public header could not be read"

for library in libquarry libquarry-malloc; do
	file=$build/.libs/$library.so
	if [[ ! -e $file ]]; then
		complain "$file is not there: run make first"
		continue
	fi
	if [[ $library == libquarry ]]; then
		check_exports "$file" "$api"
		check_versions "$file" QUARRY_0.1
	else
		check_exports "$file" "$api $family"
		check_versions "$file" ""
	fi
	check_runtime "$file"
	check_needed "$file"
	check_tls "$file"
	check_dynamic "$file"
done

if [[ $errors -gt 0 ]]; then
	echo "check-symbols: $errors complaint(s)"
	exit 1
fi
echo "check-symbols: both libraries are as promised"
