#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs what quarry needs on Debian 12 (and its relatives), and nothing that is there already.
#
#   tools/install-deps.sh [build] [demo] [test] [numa] [bench] [all]
#
# build: to compile the library. demo: tools/demo.sh. test: tools/run-tests.sh. numa: make check-numa; part of test and
# all, where a machine that cannot have it does without (check-numa then says that it is skipped). bench: the programs and
# the other allocators that make bench measures; not part of all. No word means all.
# Needs root or sudo when something is missing. Services of the packages (redis-server) are not started.
set -euo pipefail

build_packages="build-essential automake autoconf libtool pkg-config libhwloc-dev libnuma-dev zlib1g-dev libdw-dev"
demo_packages="redis-server redis-tools"
test_packages="libcriterion-dev liblz4-1 libzstd1 redis-server redis-tools sqlite3 stress-ng xz-utils zstd git clang valgrind
python3 python3-prometheus-client libpython3.11-testsuite strace file procps binutils gawk perl google-perftools
systemtap-sdt-dev gdb libxml2-utils liburing-dev"
bench_packages="valgrind strace linux-perf redis-server redis-tools sqlite3 rocksdb-tools python3 libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0
liburing-dev libpmemobj-dev"
# The guest is x86-64: on another machine check-numa is skipped, and says so.
numa_packages=
[[ $(uname -m) != x86_64 ]] || numa_packages="qemu-system-x86 busybox-static cpio numactl"

say() {
	echo "install-deps: $*"
}

usage() {
	sed -n '3,10s/^# \{0,1\}//p' "$0"
}

wanted=
optional=
[[ $# -gt 0 ]] || set -- all
for word in "$@"; do
	case $word in
	build) wanted+=" $build_packages" ;;
	demo) wanted+=" $build_packages $demo_packages" ;;
	test | all)
		wanted+=" $build_packages $demo_packages $test_packages"
		optional=$numa_packages
		;;
	bench) wanted+=" $build_packages $bench_packages" ;;
	numa)
		wanted+=" $numa_packages"
		[[ -n $numa_packages ]] || { say "the guest of check-numa is x86-64, and this machine is not" >&2; exit 1; }
		;;
	-h | --help) usage; exit 0 ;;
	*) usage >&2; say "unknown word '$word'" >&2; exit 2 ;;
	esac
done

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
	say "this is no Debian: install these yourself, or what they are called here:" $wanted >&2
	exit 1
fi

# Installed, as the package itself or as one that provides it.
installed() {
	[[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# missing_of PACKAGE…: those that are not installed.
missing_of() {
	local package
	for package in $(tr -s ' \n\t' '\n\n\n' <<<"$*" | sed '/^$/d' | sort -u); do
		installed "$package" || echo "$package"
	done
}

mapfile -t missing < <(missing_of $wanted)
mapfile -t missing_optional < <(missing_of $optional)
if [[ ${#missing[@]} -eq 0 && ${#missing_optional[@]} -eq 0 ]]; then
	say "all packages are there"
	exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
	if ! command -v sudo >/dev/null 2>&1; then
		if [[ ${#missing[@]} -eq 0 ]]; then
			say "make check-numa will be skipped: no ${missing_optional[*]}, and neither root nor sudo to install them"
			exit 0
		fi
		say "missing: ${missing[*]}" >&2
		say "run me as root, or install sudo" >&2
		exit 1
	fi
	as_root=(sudo)
fi
say "installing ${missing[*]} ${missing_optional[*]}"

# A package's service would start by itself, and listen: policy-rc.d forbids that as long as we install. One that is
# there already is the administrator's: it stays, and decides.
policy=/usr/sbin/policy-rc.d
made_policy=no
remove_policy() {
	if [[ $made_policy == yes ]]; then
		"${as_root[@]}" rm -f "$policy"
		made_policy=no
	fi
}
trap remove_policy EXIT
trap 'exit 130' INT TERM
if [[ ! -e $policy ]]; then
	made_policy=yes
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 755 "$policy"
fi

apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -qq "$@"
}
log=$(mktemp)
trap 'rm -f "$log"; remove_policy' EXIT
if [[ ${#missing[@]} -gt 0 ]] &&
	! { apt update && apt install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	say "apt-get failed" >&2
	exit 1
fi
for package in "${missing[@]}"; do
	if ! installed "$package"; then
		say "$package is still not there" >&2
		exit 1
	fi
done
if [[ ${#missing_optional[@]} -gt 0 ]] &&
	! { { [[ ${#missing[@]} -gt 0 ]] || apt update; } &&
		apt install -y --no-install-recommends "${missing_optional[@]}"; } >"$log" 2>&1; then
	tail -n 5 "$log" >&2
	say "make check-numa will be skipped: ${missing_optional[*]} cannot be installed here"
fi
if [[ " ${missing[*]} " == *" redis-server "* && -d /run/systemd/system ]]; then
	say "redis-server's service was not started; it would be at the next boot (systemctl disable redis-server)"
fi
say "done"
