/* SPDX-License-Identifier: MIT */
/* What the kernel, or a limit, refused, in words. */
#include "lib/view/print.h"

/* Why the kernel mostly refuses a thing, and what ends it; by enum quarry_refusal. */
static const struct refusal {
	const char *why;
	const char *fix;
} refusals[] = {
	[QUARRY_REFUSED_MBIND_EPERM] = {
		"memory could not be bound to nodes: a container's seccomp profile",
		"add CAP_SYS_NICE (docker: --cap-add SYS_NICE), or --security-opt" },
	[QUARRY_REFUSED_MBIND_ENOSYS] = {
		"memory could not be bound to nodes: the kernel or a sandbox has no mbind",
		"a kernel built with CONFIG_NUMA; in gVisor and the like there is none" },
	[QUARRY_REFUSED_MBIND_EINVAL] = {
		"a node outside the cpuset, or a policy this kernel does not have",
		"widen cpuset.mems, or ask for nodes of `quarry doctor`'s list" },
	[QUARRY_REFUSED_MBIND_OTHER] = {
		"memory could not be bound to nodes: the kernel was out of memory",
		"more memory on the node, or fewer arenas with a policy of their own" },
	[QUARRY_REFUSED_HUGE_1G] = {
		"no free 1 GiB page in the node's pool",
		"boot with hugepagesz=1G hugepages=N; `quarry doctor` shows the pools" },
	[QUARRY_REFUSED_HUGE_2M] = {
		"no free 2 MiB page in the node's pool",
		"sysctl vm.nr_hugepages=N; `quarry doctor` shows the pools" },
	[QUARRY_REFUSED_THP] = {
		"transparent huge pages are switched off, or memory is in small pieces",
		"echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" },
	[QUARRY_REFUSED_CGROUP] = {
		"the control group's memory limit was reached: ENOMEM came first",
		"raise the cgroup's memory.max, or free memory in the group" },
	[QUARRY_REFUSED_POPULATE] = {
		"memory could not be faulted in ahead: a limit, or a kernel before 5.14",
		"raise the cgroup's memory.max, or free memory on the node" },
	[QUARRY_REFUSED_MAP] = {
		"no memory or address space: ulimit -v, overcommit or too many mappings",
		"ulimit -v unlimited; `quarry doctor` tells of overcommit and mappings" },
	[QUARRY_REFUSED_LIMIT] = {
		"an arena, or the process, reached its hard limit",
		"quarry_arena_set_limits, the option hard_limit, or free what it holds" },
	[QUARRY_REFUSED_MOVE_PAGES] = {
		"the kernel would not say where pages are: seccomp, or no CONFIG_NUMA",
		"add CAP_SYS_NICE, or another --security-opt" },
	[QUARRY_REFUSED_RSEQ] = {
		"the C library has not registered rseq: the CPU costs a call at each refill",
		"glibc 2.35 or later, without GLIBC_TUNABLES=glibc.pthread.rseq=0" },
	[QUARRY_REFUSED_LOCK] = {
		"memory could not be locked: RLIMIT_MEMLOCK",
		"ulimit -l unlimited, or CAP_IPC_LOCK" },
	[QUARRY_REFUSED_THREAD] = {
		"the reclaimer's thread could not be started: it works in series instead",
		"raise the cgroup's pids.max or ulimit -u" },
	[QUARRY_REFUSED_TIMER] = {
		"no timer: refused, or the program has a handler for its signal: in series",
		"ulimit -i, another reclaim_signal, or quarry_tend in the program's loop" },
	[QUARRY_REFUSED_MEMBARRIER] = {
		"no membarrier: slow calls pay for a fence instead",
		"Linux 4.14 or later, and a seccomp profile that allows it" },
	[QUARRY_REFUSED_PURGE] = {
		"free memory could not be given back: it is locked, or in hugetlb pages",
		"no mlockall in the program, or pages=thp instead of 2m and 1g" },
	[QUARRY_REFUSED_WINDOW] = {
		"no run of address space to reserve: regions are placed one by one",
		"ulimit -v unlimited, or a smaller window in QUARRY_OPTIONS" },
	[QUARRY_REFUSED_NODE_FULL] = {
		"a strict arena's nodes have no room left: ENOMEM came first",
		"free memory on the nodes, give the arena more of them, or no `strict`" },
	[QUARRY_REFUSED_MOVE] = {
		"pages could not be moved to another node: no room there, or pinned",
		"free memory, or pages in the pool, on the node; `quarry map` shows it" },
	[QUARRY_REFUSED_FORK] = {
		"hugetlb memory, or what has descriptors, was not copied at a fork, or late",
		"a larger fork_copy, a larger pool, or pages=thp instead of 2m and 1g" },
	[QUARRY_REFUSED_HUGE_CGROUP] = {
		"the control group allows no more hugetlb pages: the next kind was taken",
		"raise the cgroup's hugetlb.<size>.max (v1: limit_in_bytes)" },
	[QUARRY_REFUSED_BREAKER] = {
		"large requests came while the breaker was open",
		"raise the limit that is nearly full (see pressure), or breaker_at" },
	[QUARRY_REFUSED_FD] = {
		"no memory file for an arena that wants descriptors: too many are open",
		"raise ulimit -n (and -f); a seccomp profile that allows memfd_create" },
	[QUARRY_REFUSED_PUBLISH] = {
		"no page for the figures: `quarry top` cannot look at this process",
		"raise ulimit -n (and -f), allow memfd_create, or publish=off" },
};

#define REFUSALS ((int)(sizeof(refusals) / sizeof(refusals[0])))

_Static_assert(sizeof(refusals) / sizeof(refusals[0]) == QUARRY_REFUSED_PUBLISH + 1, "a refusal has no line");

const char *qy_refusal_why(int refusal)
{
	return refusal >= 0 && refusal < REFUSALS ? refusals[refusal].why : NULL;
}

void qy_refusals_print(struct qy_text *out, const quarry_stats *t)
{
	bool none = true;

	qy_text_format(out, "\nrefused\n");
	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++) {
		if (!t->refused[i])
			continue;
		none = false;
		if (i >= REFUSALS) {
			qy_text_format(out, "  %-12d  %llu times\n", i, (unsigned long long)t->refused[i]);
			continue;
		}
		qy_text_format(out, "  %-12s  %llu time%s\n", quarry_refusal_name(i), (unsigned long long)t->refused[i],
			       t->refused[i] == 1 ? "" : "s");
		qy_text_format(out, "    %s\n    fix: %s\n", refusals[i].why, refusals[i].fix);
	}
	if (none)
		qy_text_format(out, "  nothing\n");
}
