/* SPDX-License-Identifier: MIT */
/* `quarry doctor`: what this machine can and cannot give. Each check ends in one finding; a lack has what it costs and
 * the command that would end it. What cannot be told is said to be so, and never taken for a yes or a no. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/tools.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define HUGE "/sys/kernel/mm/hugepages"
#define NODE_HUGE "/sys/devices/system/node/node%d/hugepages"
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define FINDINGS_MAX 64

enum state { OK, LACK, UNKNOWN };

static struct finding {
	const char *name;
	enum state state;
	char detail[200], cost[200], fix[300];
} findings[FINDINGS_MAX];
static size_t finding_count;
static int node_answer; /* of probe_nodes: negative when looking at the nodes ends the process */

static void format_into(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void format_into(char *to, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(to, size, format, args);
	va_end(args);
}

#define detail(f, ...) format_into((f)->detail, sizeof((f)->detail), __VA_ARGS__)
#define cost(f, ...) format_into((f)->cost, sizeof((f)->cost), __VA_ARGS__)
#define fix(f, ...) format_into((f)->fix, sizeof((f)->fix), __VA_ARGS__)

static struct finding *find(const char *name, enum state state)
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

static const char allow_by_seccomp[] =
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
/* Nodes                                                                                                  */

static void check_nodes(void)
{
	struct finding *f;
	int count, closed = 0, id = -1;

	node_answer = probe_in_child(probe_nodes);
	if (node_answer < 0) {
		f = find("nodes", LACK);
		detail(f, "%s", probe_text(node_answer));
		cost(f, "a program on quarry ends when it first needs to know its nodes");
		fix(f, "%s", allow_by_seccomp);
		return;
	}
	count = quarry_node_count();
	if (access("/sys/devices/system/node/online", R_OK) != 0) {
		f = find("nodes", UNKNOWN);
		detail(f, "/sys/devices/system/node: %s", strerror(errno));
		cost(f, "the machine is taken for one node");
		fix(f, "mount -t sysfs sysfs /sys; without it, a kernel built with CONFIG_NUMA=y");
		return;
	}
	for (int i = 0; i < count; i++) {
		quarry_node_info info = { .struct_size = sizeof(info) };
		if (quarry_node_info_get(quarry_node_id(i), &info) == 0 && info.has_memory && !info.allowed) {
			closed++;
			id = info.id;
		}
	}
	f = find("nodes", closed ? LACK : OK);
	if (!closed) {
		detail(f, "%d node%s, all open to this process", count, count == 1 ? "" : "s");
		return;
	}
	detail(f, "%d of %d nodes closed by the cpuset, node %d among them", closed, count, id);
	cost(f, "no memory can be had there");
	fix(f, "widen cpuset.mems of this cgroup, or docker run --cpuset-mems 0-%d", quarry_node_id(count - 1));
}

/* ------------------------------------------------------------------------------------------------------ */
/* Huge pages                                                                                             */

static void check_thp(void)
{
	struct finding *f;
	char mode[64], defrag[64];
	int answer;

	if (!read_choice(THP "enabled", mode, sizeof(mode))) {
		f = find("thp", access(THP, F_OK) == 0 || access("/sys/kernel", F_OK) != 0 ? UNKNOWN : LACK);
		detail(f, "%senabled cannot be read", THP);
	} else {
		answer = strcmp(mode, "never") ? probe_in_child(probe_thp) : PROBE_NOT_DONE;
		f = find("thp", answer == 0 ? OK : answer == PROBE_NOT_TOLD || answer == PROBE_NO_CHILD ? UNKNOWN : LACK);
		detail(f, "mode %s; a fault in a region asked to be huge: %s", mode,
		       answer == PROBE_NOT_DONE ? "a base page" : answer ? probe_text(answer) : "a huge page");
		if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1) {
			f->state = LACK;
			fix(f, "start the program without prctl(PR_SET_THP_DISABLE): a parent of it set it");
		}
	}
	if (f->state != OK)
		cost(f, "large heaps stay in base pages, with more TLB misses");
	if (f->state != OK && !f->fix[0])
		fix(f, "echo madvise > " THP "enabled; echo 1 > /proc/sys/vm/compact_memory");
	if (!read_choice(THP "defrag", defrag, sizeof(defrag)))
		return;
	f = find("thp-defrag", strcmp(defrag, "always") ? OK : LACK);
	detail(f, "%s", defrag);
	if (f->state == LACK) {
		cost(f, "any first touch may wait until the kernel has compacted memory");
		fix(f, "echo defer+madvise > " THP "defrag");
	}
}

/* The pools of one size, node by node. */
static void check_pool(const char *name, probe *try, unsigned long kib)
{
	char path[256];
	struct finding *f;
	uint64_t all = 0, free = 0, n;
	bool told = false, exists;
	int answer;

	for (int i = 0; i < quarry_node_count(); i++) {
		int id = quarry_node_id(i);
		format_into(path, sizeof(path), NODE_HUGE "/hugepages-%lukB/nr_hugepages", id, kib);
		if (read_number(path, &n)) {
			told = true;
			all += n;
		}
		format_into(path, sizeof(path), NODE_HUGE "/hugepages-%lukB/free_hugepages", id, kib);
		if (read_number(path, &n))
			free += n;
	}
	format_into(path, sizeof(path), HUGE "/hugepages-%lukB", kib);
	exists = access(path, F_OK) == 0;
	answer = probe_in_child(try);
	f = find(name, answer == 0 ? OK : answer == PROBE_NO_CHILD ? UNKNOWN : LACK);
	if (told)
		detail(f, "%llu of %llu pages free in the pools; one asked for: %s", (unsigned long long)free,
		       (unsigned long long)all, answer ? probe_text(answer) : "got");
	else
		detail(f, "the pools cannot be read; one asked for: %s", answer ? probe_text(answer) : "got");
	if (answer == 0)
		return;
	cost(f, "pages=%s falls to the next smaller kind; strict arenas fail", kib == 2048 ? "2m" : "1g");
	if (told && !exists)
		fix(f, "a CPU and a kernel (CONFIG_HUGETLBFS=y) that have this size");
	else if (kib == 2048)
		fix(f, "echo 128 > " NODE_HUGE "/hugepages-2048kB/nr_hugepages", quarry_node_id(0));
	else
		fix(f, "hugepagesz=1G hugepages=4 on the kernel's command line, or echo 4 > " NODE_HUGE
		       "/hugepages-1048576kB/nr_hugepages", quarry_node_id(0));
}

static void check_hugetlb_cgroup(const char *name, const char *v2, const char *v1)
{
	char where[512];
	uint64_t limit;
	struct finding *f;

	if (!cgroup_limit("hugetlb", v2, v1, &limit, where, sizeof(where)))
		return;
	f = find(name, LACK);
	detail(f, "at most %s, by %.150s", bytes_text(limit), where);
	cost(f, "a page beyond it ends the program by SIGBUS where it was not faulted in ahead; quarry falls instead");
	fix(f, "echo %s > %.250s", strstr(where, ".max") ? "max" : "-1", where);
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
/* The report                                                                                             */

static void check_all(void)
{
	check_nodes(); /* first: it says whether the library may be asked */
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		check_call(&calls[i]);
	check_thp();
	check_pool("hugetlb-2m", probe_huge_2m, 2048);
	check_pool("hugetlb-1g", probe_huge_1g, 1048576);
	check_hugetlb_cgroup("cgroup-hugetlb-2m", "hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes");
	check_hugetlb_cgroup("cgroup-hugetlb-1g", "hugetlb.1GB.max", "hugetlb.1GB.limit_in_bytes");
	check_reserve();
	check_address_space();
	check_locked_memory();
	check_overcommit();
	check_map_count();
	check_cgroup_memory();
	check_pressure();
}

static int cpus_allowed(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* The index-th node; false when it cannot be told, or not without being ended for it. */
static bool node_info(int index, quarry_node_info *info)
{
	*info = (quarry_node_info){ .struct_size = sizeof(*info) };
	return node_answer >= 0 && quarry_node_info_get(quarry_node_id(index), info) == 0;
}

static void print_nodes_text(void)
{
	quarry_node_info info;

	for (int i = 0; node_info(i, &info); i++) {
		printf("node %d: %s", info.id,
		       info.has_cpus == 0 ? "no CPUs" : info.has_memory == 0 ? "no memory" : "CPUs and memory");
		if (info.memory_free) /* 0 is "not told" */
			printf(", %s of %s free", bytes_text(info.memory_free), bytes_text(info.memory_total));
		if (info.huge_free_2m || info.huge_free_1g)
			printf(", %llu free huge pages of 2 MiB and %llu of 1 GiB",
			       (unsigned long long)info.huge_free_2m, (unsigned long long)info.huge_free_1g);
		printf("%s\n", info.allowed == 0 ? ", closed by the cpuset" : "");
	}
}

static void print_text(const struct utsname *kernel)
{
	static const char *const states[] = { "ok", "LACK", "?" };
	size_t lacks = 0;

	printf("quarry %s on %s %s, %d CPUs, base pages of %ld KiB\n", quarry_version_string(), kernel->sysname,
	       kernel->release, cpus_allowed(), sysconf(_SC_PAGESIZE) / 1024);
	print_nodes_text();
	printf("\n");
	for (size_t i = 0; i < finding_count; i++) {
		const struct finding *f = &findings[i];
		printf("%-4s  %-19s  %s\n", states[f->state], f->name, f->detail);
		if (f->cost[0])
			printf("        costs: %s\n", f->cost);
		if (f->fix[0])
			printf("        fix:   %s\n", f->fix);
		lacks += f->state == LACK;
	}
	printf("\n%zu of %zu lacking%s\n", lacks, finding_count,
	       lacks && geteuid() != 0 ? "; most fixes need root" : "");
}

/* All that is printed here comes from this file, the kernel and strerror: bytes over 0x7f stand as they are. */
static void json_text(const char *name, const char *text)
{
	printf("\"%s\":\"", name);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_json(const struct utsname *kernel)
{
	static const char *const states[] = { "ok", "lack", "unknown" };
	quarry_node_info info;

	printf("{");
	json_text("quarry", quarry_version_string());
	printf(",");
	json_text("kernel", kernel->release);
	printf(",\"cpus\":%d,\"page_size\":%ld,\n\"nodes\":[", cpus_allowed(), sysconf(_SC_PAGESIZE));
	for (int i = 0; node_info(i, &info); i++) {
		printf("%s\n{\"id\":%d,\"has_cpus\":%d,\"has_memory\":%d,\"allowed\":%d,\"memory_total\":%llu,"
		       "\"memory_free\":%llu,\"huge_free_2m\":%llu,\"huge_free_1g\":%llu}", i ? "," : "", info.id,
		       info.has_cpus, info.has_memory, info.allowed, (unsigned long long)info.memory_total,
		       (unsigned long long)info.memory_free, (unsigned long long)info.huge_free_2m,
		       (unsigned long long)info.huge_free_1g);
	}
	printf("],\n\"checks\":[");
	for (size_t i = 0; i < finding_count; i++) {
		const struct finding *f = &findings[i];
		printf("%s\n{", i ? "," : "");
		json_text("name", f->name);
		printf(",\"state\":\"%s\",", states[f->state]);
		json_text("detail", f->detail);
		printf(",");
		json_text("cost", f->cost);
		printf(",");
		json_text("fix", f->fix);
		printf("}");
	}
	printf("]}\n");
}

int command_doctor(int argc, char **argv)
{
	struct utsname kernel = { .release = "?" };
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else
			return fail(STATUS_USAGE, "doctor: unknown argument '%s'; see quarry doctor --help", argv[i]);
	}
	uname(&kernel);
	check_all();
	if (json)
		print_json(&kernel);
	else
		print_text(&kernel);
	return STATUS_OK;
}
