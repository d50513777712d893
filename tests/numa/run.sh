#!/bin/bash
# SPDX-License-Identifier: MIT
# The machine with many nodes: boots Debian's own kernel in QEMU, under software emulation, once for each topology, with
# what the build made, runs the suite in it and brings the results back. `make check-numa` calls this.
#
#   tests/numa/run.sh [--list] [--keep] [--seed=N] [--tests="GROUP…"] [--shell TOPOLOGY] [TOPOLOGY…]
#
# --list      the topologies and what they are
# --seed=N    handed on to the suite, which prints the one that it used
# --tests=…   these groups of the suite instead of those that the topology's file names
# --shell     a shell in the guest instead of tests; its end turns the guest off (Ctrl-a x ends QEMU)
# --keep      keep the guest's files (numa-guest/root); consoles and results always stay, in numa-guest/
#
# Called in a build tree (or abs_top_builddir names it). JOBS: guests at a time, at most (fewer where CPUs and memory do
# not suffice). QUARRY_GUEST_KERNEL: a kernel instead of Debian's. QUARRY_GUEST_ACCEL: instead of tcg,thread=multi.
# Exit status: 0; 1 when a test failed or a guest stopped early; 2 wrong usage; 77 when there is no way to have such a
# machine here, with the reason in the last line.
#
# A topology is a file topologies/NAME.topo. Lines, # begins a comment:
#
#   about TEXT                           one line for people
#   node N cpus=A-B memory=SIZE          A-B from 0 up, in the nodes' order; SIZE like 512M or 1G
#   node N cpus=A-B                      a node with CPUs and no memory
#   node N memory=SIZE initiator=M       a node with memory only; those come last. initiator=, for all nodes, with hmat
#   node N-M absent                      ids that the firmware's table names and nothing is behind: holes
#   distance A B VALUE                   and from B to A, unless that has a line of its own; 20 without one
#   hmat A B latency=NS bandwidth=NG     as the CPUs of A see the memory of B, GiB/s; for all such pairs or for none
#   hugepages 2m|1g NODE=NUMBER…         the pools; all that are not named are empty
#   append WORD…                         for the kernel's command line
#   cpuset v1                            cpusets at /dev/cpuset instead of in /sys/fs/cgroup
#   tests GROUP…                         what the suite runs there (options of the suite may stand there, too)
#   run PROGRAM ARGUMENT…                another program of the guest, whose output is like the suite's
#   limit SECONDS                        until a guest counts as hanging; those with the highest go first
#
# What a program of the guest prints: `ok NAME (N pages verified)`, `not ok NAME: reason`, `skip NAME: reason`, other lines
# at will, and at its end `suite: P passed, F failed, S skipped, N pages verified, …`; exit status 0 when F is 0. Before any
# of it runs, what the guest's kernel says of nodes, CPUs, memory, distances, pools and HMAT must be what the file says.
set -uo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
build=${abs_top_builddir:-$PWD}
work=$build/numa-guest
root=$work/root
accel=${QUARRY_GUEST_ACCEL:-tcg,thread=multi}
keep=no shell=no seed='' groups=''
topologies=()

usage() {
	sed -n '3,18s/^# \{0,1\}//p' "$0"
}

say() {
	echo "numa: $*"
}

die() {
	echo "numa: $1" >&2
	exit "${2:-1}"
}

# There is no way to test this here: the figures of one skipped test, and why.
leave_out() {
	printf '# TOTAL: 1\n# SKIP: 1\n'
	echo "SKIP: check-numa: $1"
	exit 77
}

topology() {
	awk -v what="$1" -f "$here/topology.awk" "$here/topologies/$2.topo"
}

list() {
	local file name memory cpus about
	for file in "$here"/topologies/*.topo; do
		name=$(basename "$file" .topo)
		read -r _ memory cpus _ about < <(topology figures "$name") || return
		printf '%-12s %4s MiB %2s CPUs  %s\n' "$name" "$memory" "$cpus" "$about"
	done
}

while [[ $# -gt 0 ]]; do
	case $1 in
	--list) list; exit ;;
	--keep) keep=yes ;;
	--seed=*) seed=${1#--seed=} ;;
	--tests=*) groups=${1#--tests=} ;;
	--shell) shell=yes ;;
	-h | --help) usage; exit 0 ;;
	-*) die "unknown argument '$1' (--help)" 2 ;;
	*) [[ -r $here/topologies/$1.topo ]] || die "no topology '$1' (--list)" 2
	   topologies+=("$1") ;;
	esac
	shift
done
[[ ${JOBS:-1} =~ ^[1-9][0-9]*$ ]] || die "JOBS is a number, not '$JOBS'" 2
[[ $seed =~ ^[0-9]*$ ]] || die "a seed is a number, not '$seed'" 2
[[ $shell == no || ${#topologies[@]} -eq 1 ]] || die "--shell takes one topology" 2
if [[ ${#topologies[@]} -eq 0 ]]; then
	for file in "$here"/topologies/*.topo; do
		topologies+=("$(basename "$file" .topo)")
	done
fi

# ---- What this needs of the machine ---------------------------------------------------------------------------

look_for_tools() {
	local tool missing=
	[[ $(uname -sm) == "Linux x86_64" ]] || leave_out "the guest is x86-64, and this machine is $(uname -m)"
	for tool in qemu-system-x86_64 busybox cpio numactl; do
		command -v "$tool" >/dev/null || missing+=" $tool"
	done
	[[ -z $missing ]] || leave_out "not installed:$missing (tools/install-deps.sh numa)"
	# A busybox with libraries would need them before the first mount.
	! ldd "$(command -v busybox)" >/dev/null 2>&1 || leave_out "busybox is not static (Debian: busybox-static)"
}

# ---- The kernel -----------------------------------------------------------------------------------------------

# What the guest uses of it, and has no modules for.
kernel_options="NUMA ACPI_NUMA X86_64_ACPI_NUMA ACPI_HMAT DEVTMPFS TMPFS PROC_FS SYSFS HUGETLBFS CGROUPS CPUSETS MEMCG
CGROUP_PIDS BLK_DEV_INITRD SERIAL_8250_CONSOLE TRANSPARENT_HUGEPAGE MIGRATION UNIX98_PTYS"

# newest FILE…: of those that can be read, the one with the highest version in its name.
newest() {
	local file
	for file in "$@"; do
		[[ ! -r $file ]] || printf '%s\n' "$file"
	done | sort --version-sort | tail -n 1
}

apt_get() {
	apt-get -qq -o DPkg::Lock::Timeout=60 -o Acquire::Retries=3 "${apt_options[@]}" "$@" </dev/null
}

kernel_package() {
	apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1
}

download_kernel() {
	package=$(kernel_package)
	[[ -n $package ]] && (cd "$folder" && rm -f ./*.deb && apt_get download "$package") >>"$log" 2>&1
}

# Into numa-guest/kernel, taken out of Debian's package; nothing is installed. Where apt has no lists (a container's
# image), it fetches some for itself, in the same place.
fetch_kernel() {
	local folder=$work/kernel package log=$work/kernel.log
	local apt_options=()
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
		leave_out "no kernel for the guest: no apt-get and dpkg-deb here (QUARRY_GUEST_KERNEL=FILE names one)"
	mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
	: >"$log"
	say "fetching Debian's kernel (not to be installed; it stays in the build tree)"
	if ! download_kernel; then
		apt_options=(-o "Dir::State::Lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt" -o "Debug::NoLocking=1")
		apt_get update >>"$log" 2>&1
		if ! download_kernel; then
			tail -n 3 "$log"
			leave_out "no kernel for the guest: apt cannot download ${package:-linux-image-cloud-amd64}"
		fi
	fi
	dpkg-deb --fsys-tarfile "$folder"/linux-image-*.deb |
		tar -x -C "$folder" --wildcards './boot/vmlinuz-*' './boot/config-*' || die "$package has no kernel in it"
	rm -rf "$folder"/*.deb "$folder/apt"
}

find_kernel() {
	local config option lacking=
	if [[ -n ${QUARRY_GUEST_KERNEL:-} ]]; then
		[[ -r $QUARRY_GUEST_KERNEL ]] || die "QUARRY_GUEST_KERNEL: no file '$QUARRY_GUEST_KERNEL'" 2
		kernel=$QUARRY_GUEST_KERNEL
	else
		kernel=$(newest /boot/vmlinuz-*-cloud-amd64)
		[[ -n $kernel ]] || kernel=$(newest "$work"/kernel/boot/vmlinuz-*)
		if [[ -z $kernel ]]; then
			fetch_kernel
			kernel=$(newest "$work"/kernel/boot/vmlinuz-*)
		fi
	fi
	config=${kernel/vmlinuz-/config-}
	[[ $config != "$kernel" && -r $config ]] || return 0
	for option in $kernel_options; do
		grep -q "^CONFIG_$option=y" "$config" || lacking+=" $option"
	done
	[[ -z $lacking ]] || leave_out "the kernel $kernel lacks, or has as modules:$lacking"
}

# ---- What is in the guest -------------------------------------------------------------------------------------

# The libraries of all programs and libraries in /quarry, under the paths that they have here.
copy_libraries() {
	local list
	list=$(for file in "$root"/quarry/* "$root/usr/bin/numactl"; do
		LD_LIBRARY_PATH=$root/quarry ldd "$file" 2>/dev/null
	done | sed -nE 's@^\s*(\S+ => )?(/\S+) \(0x[0-9a-f]+\)$@\2@p' | grep -v "^$root/" | sort -u)
	(cd / && cp -L --parents $list "$root")
}

# hwloc is loaded when first asked for: no program names it.
add_hwloc() {
	local library
	library=$( (ldconfig -p 2>/dev/null || /sbin/ldconfig -p) | sed -n 's@.*libhwloc\.so\.15 .*x86-64.* => @@p' | head -n 1)
	[[ -n $library ]] || die "no libhwloc.so.15 here"
	cp -L "$library" "$root/quarry/"
}

make_guest() {
	local source name library programs=0
	[[ -r $build/.libs/libquarry-malloc.so ]] ||
		die "no libquarry-malloc in '$build': build it, and call this in the build tree (make check-numa does both)" 2
	rm -rf "$root"
	mkdir -p "$root"/{bin,quarry,etc,usr/bin}
	cp "$here/guest-init.sh" "$root/init"
	cp "$(command -v busybox)" "$root/bin/busybox"
	cp "$(command -v numactl)" "$root/usr/bin/"
	for library in libquarry libquarry-malloc; do
		cp -P "$build/.libs/$library".so* "$root/quarry/"
	done
	cp "$build/.libs/quarry" "$root/quarry/"
	for source in "$here"/*.c; do
		name=$(basename "$source" .c)
		[[ -x $build/tests/numa/$name ]] || continue
		# (A shell script is libtool's: the program is behind it.)
		if [[ -x $build/tests/numa/.libs/$name ]]; then
			cp "$build/tests/numa/.libs/$name" "$root/quarry/"
		else
			cp "$build/tests/numa/$name" "$root/quarry/"
		fi
		programs=$((programs + 1))
	done
	[[ $programs -gt 0 ]] || die "no test programs in '$build/tests/numa' (make check-numa builds them)" 2
	add_hwloc
	copy_libraries || die "the libraries of the guest's programs could not be copied"
	chmod 755 "$root/init"
	(cd "$root" && find . | cpio --quiet -o -H newc) >"$work/guest.cpio" || die "the guest's files could not be packed"
	[[ $keep == yes ]] || rm -rf "$root"
}

# The common files and, behind them, the topology's own: the kernel unpacks one after the other.
make_initrd() {
	local name=$1 own=$work/$1.etc extra=
	[[ -z $seed ]] || extra="--seed $seed"
	mkdir -p "$own/etc"
	grep -v '^[[:space:]]*#' "$here/topologies/$name.topo" >"$own/etc/topology"
	printf "topology='%s' shell='%s' extra='%s' tests='%s'\n" "$name" "$shell" "$extra" "$groups" >"$own/etc/guest"
	{ cat "$work/guest.cpio" && (cd "$own" && find etc -type f | cpio --quiet -o -H newc); } >"$work/$name.initrd" &&
		rm -rf "$own"
}

# ---- Guests ---------------------------------------------------------------------------------------------------

# Words for speed: what they leave out guards a machine against its users, and this one has none.
kernel_words="console=ttyS0 quiet panic=-1 oops=panic mitigations=off audit=0 init_on_alloc=0 no_timer_check
random.trust_cpu=on"

# qemu NAME SERIAL…: never comes back after the topology's limit, except for a shell.
qemu() {
	local name=$1 arguments words
	shift
	mapfile -t arguments < <(topology qemu "$name")
	words="${kernel_words//$'\n'/ } $(topology kernel "$name")"
	"${watchdog[@]}" qemu-system-x86_64 -accel "$accel" -cpu max,la57=off -display none -nodefaults -no-reboot -nic none \
		"${arguments[@]}" -kernel "$kernel" -initrd "$work/$name.initrd" -append "$words" "$@"
}

run_shell() {
	local name=${topologies[0]} watchdog=()
	make_initrd "$name" || die "no initrd"
	qemu "$name" -serial mon:stdio
}

tail_of() {
	echo "    the end of $1:"
	tail -n "$2" "$1" 2>/dev/null | tr -d '\r' | tr -c '\n\t -~' '?' | cut -c 1-200 | sed 's/^/    | /'
}

# Runs one guest and prints all there is to say of it in one piece; its figures go to a file.
run_guest() {
	local name=$1 console=$work/$1.console results=$work/$1.results began=$SECONDS limit status child report differences=
	local passed failed skipped pages boot booted verdict
	rm -f "$console" "$results" "$work/$name.figures"
	: >"$results"
	read -r limit _ < <(topology figures "$name")
	make_initrd "$name" || return
	local watchdog=(exec timeout --kill-after=5 "$limit")
	qemu "$name" -monitor none -serial "file:$console" -serial "file:$results" </dev/null >"$work/$name.qemu" 2>&1 &
	child=$!
	trap 'kill $child 2>/dev/null' TERM
	wait $child
	status=$?
	trap - TERM
	rm -f "$work/$name.initrd"

	report=$(awk -v name="$name" -f "$here/results.awk" "$results")
	read -r _ passed failed skipped pages boot < <(grep '^figures' <<<"$report")
	report=$(grep -v '^figures' <<<"$report")
	if [[ $boot != - ]]; then
		if differences=$(awk -v what=check -f "$here/topology.awk" "$here/topologies/$name.topo" "$results" 2>&1); then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			report+=$'\n'"FAIL: $name/topology: the machine did not come up as its file says"
		fi
	fi
	if [[ $status -ne 0 ]]; then
		[[ $failed -gt 0 ]] || failed=1
		[[ $status -ne 124 && $status -ne 137 ]] || report+=$'\n'"    ended after $limit seconds"
		[[ ! -s $work/$name.qemu ]] || report+=$'\n'"$(tail_of "$work/$name.qemu" 5)"
	fi
	echo "$passed $failed $skipped $pages $boot" >"$work/$name.figures"
	verdict="$passed passed, $failed failed, $skipped skipped, $pages pages verified"
	{
		[[ $boot == - ]] && booted="did not boot" || booted="booted in $boot s"
		say "$name: $booted; $verdict, in $((SECONDS - began)) s"
		grep -v '^$' <<<"$report"
		[[ -z $differences ]] || sed 's/^/    /' <<<"$differences"
		if [[ $failed -gt 0 ]]; then
			tail_of "$results" 25
			grep -aE 'Kernel panic|BUG: |Oops: |Out of memory: |invoked oom-killer' "$console" | head -n 5 |
				tr -d '\r' | cut -c 1-200 | sed 's/^/    console: /'
			tail_of "$console" 25
		fi
	} >"$work/$name.report"
	cat "$work/$name.report"
}

# ---- All of it ------------------------------------------------------------------------------------------------

# How many guests at a time: one for each two CPUs (two on two, where one waits while the other works), as far as there
# is memory for the largest, and no more than JOBS.
guests_at_a_time() {
	local largest=0 memory available name jobs
	for name in "${topologies[@]}"; do
		read -r _ memory _ < <(topology figures "$name")
		((memory <= largest)) || largest=$memory
	done
	available=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
	jobs=$(nproc)
	((jobs < 4)) || jobs=$((jobs / 2))
	((jobs <= (available - 1024) / largest)) || jobs=$(((available - 1024) / largest))
	((${JOBS:-0} <= 0 || jobs <= JOBS)) || jobs=$JOBS
	echo $((jobs > 1 ? jobs : 1))
}

stop_all() {
	trap - INT TERM
	kill $(jobs -p) 2>/dev/null
	wait
	exit 130
}

run_all() {
	local jobs name running=0 p f s n boot
	local booted=0 passed=0 failed=0 skipped=0 pages=0
	jobs=$(guests_at_a_time)
	trap stop_all INT TERM
	# The longest first, so that none is left alone at the end.
	while read -r _ name; do
		if ((running >= jobs)); then
			wait -n
			running=$((running - 1))
		fi
		run_guest "$name" &
		running=$((running + 1))
	done < <(for name in "${topologies[@]}"; do echo "$(topology figures "$name" | cut -d ' ' -f 1) $name"; done | sort -rn)
	wait
	for name in "${topologies[@]}"; do
		if ! read -r p f s n boot <"$work/$name.figures"; then
			echo "FAIL: $name/boot: it was not run"
			failed=$((failed + 1))
			continue
		fi
		[[ $boot == - ]] || booted=$((booted + 1))
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)) pages=$((pages + n))
	done
	printf '# TOTAL: %d\n# PASS: %d\n# FAIL: %d\n# SKIP: %d\n' $((passed + failed + skipped)) $passed $failed $skipped
	say "$booted topologies booted, $passed passed, $failed failed, $skipped skipped, $pages pages verified in $SECONDS s"
	[[ $failed -eq 0 && $booted -eq ${#topologies[@]} ]]
}

for name in "${topologies[@]}"; do
	topology figures "$name" >/dev/null || exit 2
done
look_for_tools
mkdir -p "$work"
find_kernel
make_guest
if [[ $shell == yes ]]; then
	run_shell
else
	say "kernel $(basename "$kernel"), $(qemu-system-x86_64 --version | head -n 1)"
	run_all
fi
