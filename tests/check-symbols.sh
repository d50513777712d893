#!/bin/bash
# SPDX-License-Identifier: MIT
# The built libraries are what they promise to be: they export the API (and, the malloc library, the allocation
# family) whole and nothing else, need libc alone, keep their thread-local data small and in the initial-exec model,
# and have no text relocations.
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
	else
		check_exports "$file" "$api $family"
	fi
	check_needed "$file"
	check_tls "$file"
	check_dynamic "$file"
done

if [[ $errors -gt 0 ]]; then
	echo "check-symbols: $errors complaint(s)"
	exit 1
fi
echo "check-symbols: both libraries are as promised"
