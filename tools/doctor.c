/* SPDX-License-Identifier: MIT */
/* `quarry doctor`: what this machine can and cannot give. Each check ends in one finding; a lack has what it costs and
 * the command that would end it. What cannot be told is said to be so, and never taken for a yes or a no. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/doctor.h"
#include "tools/published.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FINDINGS_MAX 96

static struct finding findings[FINDINGS_MAX];
static size_t finding_count;

void format_into(char *to, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(to, size, format, args);
	va_end(args);
}

void append_to(char *to, size_t size, const char *format, ...)
{
	size_t used = strlen(to);
	va_list args;

	va_start(args, format);
	vsnprintf(to + used, size - used, format, args);
	va_end(args);
}

struct finding *find(const char *name, enum state state)
{
	struct finding *f = &findings[finding_count < FINDINGS_MAX ? finding_count++ : FINDINGS_MAX - 1];

	*f = (struct finding){ .name = name, .state = state };
	return f;
}

/* ------------------------------------------------------------------------------------------------------ */
/* Calls that are tried                                                                                   */

static const struct call {
	const char *name;
	probe *probe;
	const char *what, *cost;
	const char *needs;     /* what the kernel needs when it does not know the call */
	const char *forbidden; /* what ends EPERM; NULL: the same seccomp advice as for most */
} calls[] = {
	{ "mbind", probe_mbind, "memory can be bound to nodes",
	  "memory is where it is first touched; strict arenas fail", "a kernel built with CONFIG_NUMA=y", NULL },
	{ "preferred-many", probe_preferred_many, "a set of nodes can be preferred",
	  "the first node of the set is preferred instead", "Linux 5.15 or later", NULL },
	{ "weighted-interleave", probe_weighted_interleave, "pages can be spread by weights",
	  "pages are spread evenly instead", "Linux 6.9 or later", NULL },
	{ "set-mempolicy", probe_set_mempolicy, "a thread's policy can be set",
	  "numactl and the like have no effect in here", "a kernel built with CONFIG_NUMA=y", NULL },
	{ "get-mempolicy", probe_get_mempolicy, "the allowed nodes can be asked for",
	  "all nodes are taken for allowed", "a kernel built with CONFIG_NUMA=y", NULL },
	{ "move-pages", probe_move_pages, "the kernel says where pages are",
	  "quarry_where answers \"unknown\" for the node", "a kernel built with CONFIG_NUMA=y and CONFIG_MIGRATION=y",
	  NULL },
	{ "rseq", probe_rseq, "the current CPU is one load away", "each refill asks for the CPU by a call",
	  "glibc 2.35 or later, Linux 4.18 or later, and no glibc.pthread.rseq=0 in GLIBC_TUNABLES", NULL },
	{ "membarrier", probe_membarrier, "other threads can be made to see a change",
	  "slow calls pay for a fence instead", "Linux 4.14 or later", NULL },
	{ "thread", probe_thread, "the reclaimer can have its thread: idle programs shrink",
	  "free memory goes back in series, while the program allocates; see quarry_tend, and reclaim=timer",
	  "a sandbox that allows clone", "raise the cgroup's pids.max or ulimit -u" },
	{ "timer", probe_timer, "a timer's signal can do without it (reclaim=timer)",
	  "reclaim=timer gives back in series; quarry_tend in a program's loop does not need it",
	  "a kernel built with CONFIG_POSIX_TIMERS=y", "ulimit -i unlimited, or a seccomp profile that allows timer_create" },
	{ "populate-write", probe_populate_write, "memory can be faulted in with an error instead of a signal",
	  "QUARRY_ARENA_POPULATE touches page by page", "Linux 5.14 or later", NULL },
	{ "collapse", probe_collapse, "dense memory can be made huge in place",
	  "a heap becomes huge only as khugepaged finds time",
	  "Linux 6.1 or later built with CONFIG_TRANSPARENT_HUGEPAGE=y, and unfragmented memory "
	  "(echo 1 > /proc/sys/vm/compact_memory)", NULL },
	{ "pagemap-scan", probe_pagemap_scan, "the kernel says which pages are huge",
	  "quarry_where tells page kinds by its own record", "Linux 6.7 or later", NULL },
	{ "mlock", probe_mlock, "memory can be locked", "arenas with QUARRY_ARENA_LOCKED are not locked",
	  "Linux 4.4 or later", "ulimit -l unlimited" },
};

const char allow_by_seccomp[] =
	"docker run --cap-add SYS_NICE ..., or --security-opt seccomp=PROFILE that allows the call";

static void check_call(const struct call *call)
{
	int answer = probe_in_child(call->probe);
	struct finding *f = find(call->name, answer == 0 ? OK : LACK);

	if (answer == 0) {
		detail(f, "%s", call->what);
		return;
	}
	detail(f, "%s", probe_text(answer));
	if (answer == PROBE_NO_CHILD || answer == PROBE_NOT_TOLD) {
		f->state = UNKNOWN;
		return;
	}
	cost(f, "%s", answer < 0 ? "a program on quarry ends where this is needed" : call->cost);
	if (call->forbidden && (answer == EPERM || answer == EAGAIN || answer == ENOMEM))
		fix(f, "%s", call->forbidden);
	else if (answer == EPERM || answer == EACCES || answer < 0)
		fix(f, "%s", allow_by_seccomp);
	else if (answer == ENOMEM)
		fix(f, "ulimit -v unlimited, or free memory");
	else if (answer == ENOENT)
		fix(f, "mount -t proc proc /proc");
	else
		fix(f, "%s", call->needs);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Address space and limits                                                                               */

static void check_reserve(void)
{
	int large = probe_in_child(probe_reserve_1t), small = large ? probe_in_child(probe_reserve_64g) : 0;
	struct finding *f = find("reserve", large == 0 ? OK : large == PROBE_NO_CHILD ? UNKNOWN : LACK);

	if (large == 0) {
		detail(f, "1 TiB of address space can be reserved");
	} else {
		detail(f, "1 TiB: %s; 64 GiB: %s", large == ENOMEM ? "no" : probe_text(large),
		       small == 0 ? "can be reserved" : "no");
		cost(f, "a smaller window, or none: regions are placed one by one");
		fix(f, "ulimit -v unlimited");
	}
}

static struct finding *check_limit(const char *name, int resource, uint64_t enough)
{
	struct rlimit limit;
	struct finding *f;

	if (getrlimit(resource, &limit) != 0) {
		f = find(name, UNKNOWN);
		detail(f, "%s", strerror(errno));
		return f;
	}
	f = find(name, limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= enough ? OK : LACK);
	if (limit.rlim_cur == RLIM_INFINITY)
		detail(f, "no limit");
	else
		detail(f, "at most %s", bytes_text(limit.rlim_cur));
	return f;
}

static void check_address_space(void)
{
	struct finding *f = check_limit("address-space", RLIMIT_AS, UINT64_MAX);

	if (f->state != LACK)
		return;
	cost(f, "allocation fails when it is used up, whatever memory is free");
	fix(f, "ulimit -v unlimited");
}

static void check_locked_memory(void)
{
	struct finding *f = check_limit("locked-memory", RLIMIT_MEMLOCK, 64 * MIB);
	size_t n = strlen(f->detail);

	if (f->state != LACK)
		return;
	if (probe_in_child(probe_mlock_64m) == 0) { /* CAP_IPC_LOCK, which a user namespace may or may not give */
		f->state = OK;
		format_into(f->detail + n, sizeof(f->detail) - n, ", but not for this process");
		return;
	}
	cost(f, "no more than that can be in QUARRY_ARENA_LOCKED arenas");
	fix(f, "ulimit -l unlimited (as root, or LimitMEMLOCK=infinity in the unit)");
}

static void check_overcommit(void)
{
	uint64_t mode;
	struct finding *f;

	if (!read_number("/proc/sys/vm/overcommit_memory", &mode)) {
		detail(find("overcommit", UNKNOWN), "/proc/sys/vm/overcommit_memory cannot be read");
		return;
	}
	f = find("overcommit", mode == 2 ? LACK : OK);
	detail(f, "mode %llu (%s)", (unsigned long long)mode,
	       mode == 0 ? "by rule of thumb" : mode == 1 ? "always" : "never");
	if (mode == 2) {
		cost(f, "writable memory counts before it is touched: allocation fails while memory is free");
		fix(f, "sysctl vm.overcommit_memory=0");
	}
}

static void check_map_count(void)
{
	uint64_t count;
	struct finding *f;

	if (!read_number("/proc/sys/vm/max_map_count", &count)) {
		detail(find("max-map-count", UNKNOWN), "/proc/sys/vm/max_map_count cannot be read");
		return;
	}
	f = find("max-map-count", count < 65530 ? LACK : OK);
	detail(f, "%llu mappings", (unsigned long long)count);
	if (f->state == LACK) {
		cost(f, "many arenas, or much memory given back in pieces, run into it: allocation fails");
		fix(f, "sysctl vm.max_map_count=262144");
	}
}

static void check_cgroup_memory(void)
{
	static const struct {
		const char *name, *v2, *v1, *cost;
	} files[] = {
		{ "cgroup-memory", "memory.max", "memory.limit_in_bytes",
		  "beyond it the kernel ends the program: no ENOMEM comes first" },
		{ "cgroup-high", "memory.high", "memory.soft_limit_in_bytes",
		  "beyond it the kernel slows the program down and takes pages back" },
	};
	uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), limit;
	char where[512];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct finding *f;
		if (!cgroup_limit("memory", files[i].v2, files[i].v1, &limit, where, sizeof(where))) {
			if (i == 0)
				detail(find(files[i].name, OK), "no limit to be seen");
			continue;
		}
		f = find(files[i].name, limit < all ? LACK : OK);
		detail(f, "%s of the machine's %s, by %.120s", bytes_text(limit), bytes_text(all), where);
		if (f->state == LACK) {
			cost(f, "%s", files[i].cost);
			fix(f, "echo %s > %.250s", strstr(where, "in_bytes") ? "-1" : "max", where);
		}
	}
}

static void check_pressure(void)
{
	char text[256];
	struct finding *f;
	bool there = read_text("/proc/pressure/memory", text, sizeof(text));

	f = find("pressure", there ? OK : access("/proc/self", F_OK) == 0 ? LACK : UNKNOWN);
	detail(f, "%s", there ? "the kernel tells of memory pressure" : "/proc/pressure/memory cannot be read");
	if (f->state == LACK) {
		cost(f, "the reclaimer does not see that others need memory");
		fix(f, "psi=1 on the kernel's command line (CONFIG_PSI=y)");
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* All of them                                                                                            */

static void check_all(void)
{
	check_nodes(); /* first: it says whether the library may be asked */
	check_between();
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		check_call(&calls[i]);
	check_huge_pages();
	check_reserve();
	check_address_space();
	check_locked_memory();
	check_overcommit();
	check_map_count();
	check_cgroup_memory();
	check_pressure();
}

int command_doctor(int argc, char **argv)
{
	struct patient patient = { 0 };
	struct utsname kernel = { .release = "?" };
	int status = STATUS_OK, pid = 0;
	bool json = false;

	for (int i = 1; i < argc && status == STATUS_OK; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (argv[i][0] == '-' || pid != 0)
			status = fail(STATUS_USAGE, "doctor: unknown argument '%s'; see quarry doctor --help", argv[i]);
		else
			status = (int)published_pid("doctor", argv[i], &pid);
	}
	if (status != STATUS_OK)
		return status;
	uname(&kernel);
	if (pid == 0)
		check_all();
	else
		status = (int)check_process(pid, &patient);
	if (status != STATUS_OK)
		return status;
	if (json)
		print_json(findings, finding_count, &kernel, &patient);
	else
		print_text(findings, finding_count, &kernel, &patient);
	return STATUS_OK;
}
