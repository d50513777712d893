/* SPDX-License-Identifier: MIT */
/* `quarry doctor` on huge pages: transparent ones, and hugetlb's pools. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define HUGE "/sys/kernel/mm/hugepages"

/* What prctl(PR_GET_THP_DISABLE) answers; the second since Linux 6.18. */
#define THP_DISABLED 1
#define THP_DISABLED_EXCEPT_ADVISED 3

/* ------------------------------------------------------------------------------------------------------ */
/* Transparent huge pages                                                                                 */

static void check_thp_mode(void)
{
	struct finding *f;
	char mode[64];
	int answer;

	if (!read_choice(THP "enabled", mode, sizeof(mode))) {
		f = find("thp", access(THP, F_OK) == 0 || access("/sys/kernel", F_OK) != 0 ? UNKNOWN : LACK);
		detail(f, THP "enabled cannot be read");
	} else {
		answer = strcmp(mode, "never") ? probe_in_child(probe_thp) : PROBE_NOT_DONE;
		f = find("thp", answer == 0 ? OK : answer == PROBE_NOT_TOLD || answer == PROBE_NO_CHILD ? UNKNOWN : LACK);
		detail(f, "mode %s; a fault in a region asked to be huge: %s", mode,
		       answer == PROBE_NOT_DONE ? "a base page" : answer ? probe_text(answer) : "a huge page");
	}
	if (f->state != OK) {
		cost(f, "large heaps stay in base pages, with more TLB misses");
		fix(f, "echo madvise > " THP "enabled; echo 1 > /proc/sys/vm/compact_memory");
	}
}

/* A parent of this process may have switched them off for all that it starts. */
static void check_thp_process(void)
{
	int answer = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	struct finding *f;

	if (answer != THP_DISABLED && answer != THP_DISABLED_EXCEPT_ADVISED)
		return;
	f = find("thp-process", answer == THP_DISABLED ? LACK : OK);
	if (answer == THP_DISABLED) {
		detail(f, "switched off for this process, by prctl(PR_SET_THP_DISABLE)");
		cost(f, "no transparent huge pages, and none by MADV_COLLAPSE either");
		fix(f, "start the program without it: a parent of it, a container's runtime maybe, set it");
	} else {
		detail(f, "only where they are asked for, by prctl(PR_SET_THP_DISABLE)");
	}
}

static void check_thp_defrag(void)
{
	struct finding *f;
	char defrag[64];

	if (!read_choice(THP "defrag", defrag, sizeof(defrag)))
		return;
	f = find("thp-defrag", strcmp(defrag, "always") ? OK : LACK);
	detail(f, "%s", defrag);
	if (f->state == LACK) {
		cost(f, "any first touch may wait until the kernel has compacted memory");
		fix(f, "echo defer+madvise > " THP "defrag");
	}
}

static int by_number(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;

	return x < y ? -1 : x > y;
}

/* The sizes that can be set one by one, since Linux 6.8: in kB, ascending. */
static size_t thp_sizes(unsigned long *sizes, size_t max)
{
	DIR *dir = opendir(THP);
	struct dirent *entry;
	size_t count = 0;

	while (dir && count < max && (entry = readdir(dir)))
		if (sscanf(entry->d_name, "hugepages-%lukB", &sizes[count]) == 1)
			count++;
	if (dir)
		closedir(dir);
	qsort(sizes, count, sizeof(sizes[0]), by_number);
	return count;
}

static void check_thp_sizes(void)
{
	char path[128], mode[64], top[64] = "?";
	unsigned long sizes[32];
	size_t count = thp_sizes(sizes, 32);
	uint64_t largest = 2 * MIB;
	struct finding *f;

	if (count == 0)
		return;
	read_number(THP "hpage_pmd_size", &largest);
	read_choice(THP "enabled", top, sizeof(top));
	f = find("thp-sizes", OK);
	for (size_t i = 0; i < count; i++) {
		format_into(path, sizeof(path), THP "hugepages-%lukB/enabled", sizes[i]);
		if (!read_choice(path, mode, sizeof(mode)))
			continue;
		if (strcmp(mode, "never")) {
			detail_more(f, "%s%s %s", f->detail[0] ? ", " : "", bytes_text((uint64_t)sizes[i] << 10), mode);
		} else if ((uint64_t)sizes[i] << 10 == largest && strcmp(top, "never")) {
			f->state = LACK;
			cost(f, "pages of %s, which quarry asks for, are off, whatever the mode is", bytes_text(largest));
			fix(f, "echo inherit > %s", path);
		}
	}
	if (f->detail[0])
		detail_more(f, "; the others never");
	else
		detail(f, "each of %zu sizes never", count);
}

static void check_khugepaged(void)
{
	uint64_t on, pages = 0, pause = 0, missing = 0;
	struct finding *f;

	if (!read_number(THP "khugepaged/defrag", &on))
		return;
	f = find("khugepaged", on ? OK : LACK);
	if (!on) {
		detail(f, "the kernel's thread makes no memory huge");
		cost(f, "a heap that grew in base pages stays in them until quarry collapses it");
		fix(f, "echo 1 > " THP "khugepaged/defrag");
		return;
	}
	read_number(THP "khugepaged/pages_to_scan", &pages);
	read_number(THP "khugepaged/scan_sleep_millisecs", &pause);
	read_number(THP "khugepaged/max_ptes_none", &missing);
	detail(f, "%llu pages looked at each %llu ms; up to %llu of a huge one's may be missing", (unsigned long long)pages,
	       (unsigned long long)pause, (unsigned long long)missing);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Pools                                                                                                  */

static const struct pool {
	const char *name, *on_nodes, *beyond;
	probe *try;
	unsigned long kib;
	const char *kind; /* of quarry's option pages */
	const char *more; /* on the kernel's command line, the surest way */
} pools[] = {
	{ "hugetlb-2m", "hugetlb-2m-nodes", "hugetlb-2m-surplus", probe_huge_2m, 2048, "2m", "" },
	{ "hugetlb-1g", "hugetlb-1g-nodes", "hugetlb-1g-surplus", probe_huge_1g, 1048576, "1g",
	  "hugepagesz=1G hugepages=4 on the kernel's command line, or " },
};

static const struct pool *current; /* what the functions below, which list_nodes calls, speak of */

static uint64_t total(const struct node *node)
{
	return current->kib == 2048 ? node->info.huge_total_2m : node->info.huge_total_1g;
}

static uint64_t free_of(const struct node *node)
{
	return current->kib == 2048 ? node->info.huge_free_2m : node->info.huge_free_1g;
}

static bool may_have(const struct node *node)
{
	return node->info.has_memory != 0 && node->info.allowed;
}

static bool is_empty(const struct node *node)
{
	return may_have(node) && total(node) == 0;
}

static bool is_dry(const struct node *node)
{
	return may_have(node) && free_of(node) == 0;
}

static void check_pool(uint64_t all, uint64_t free)
{
	int answer = probe_in_child(current->try);
	struct finding *f = find(current->name, answer == 0 ? OK : answer == PROBE_NO_CHILD ? UNKNOWN : LACK);
	char path[128];

	format_into(path, sizeof(path), HUGE "/hugepages-%lukB", current->kib);
	if (nodes_told())
		detail(f, "%llu of %llu pages free in the pools; one asked for: %s", (unsigned long long)free,
		       (unsigned long long)all, answer ? probe_text(answer) : "got");
	else
		detail(f, "the pools cannot be read; one asked for: %s", answer ? probe_text(answer) : "got");
	if (answer == 0)
		return;
	cost(f, "pages=%s falls to the next smaller kind; strict arenas fail", current->kind);
	if (nodes_told() && access(path, F_OK) != 0)
		fix(f, "a CPU and a kernel (CONFIG_HUGETLBFS=y) that have this size");
	else
		fix(f, "%secho %d > " NODE_HUGE "/hugepages-%lukB/nr_hugepages", current->more,
		    current->kib == 2048 ? 128 : 4, open_node(), current->kib);
}

/* "hugepages=N" is dealt out over the nodes as they have room: one can end with none. */
static void check_pool_by_node(void)
{
	uint64_t least = UINT64_MAX, most = 0;
	const struct node *first = NULL;
	struct finding *f;
	char where[100];
	size_t count;

	for (size_t i = 0; i < node_count; i++) {
		if (!may_have(&nodes[i]))
			continue;
		least = total(&nodes[i]) < least ? total(&nodes[i]) : least;
		most = total(&nodes[i]) > most ? total(&nodes[i]) : most;
	}
	count = list_nodes(where, sizeof(where), least == 0 ? is_empty : is_dry);
	f = find(current->on_nodes, count ? LACK : OK);
	if (count == 0) {
		detail(f, "%llu", (unsigned long long)least);
		if (most > least)
			detail_more(f, " to %llu", (unsigned long long)most);
		detail_more(f, " pages on each node, some free on each");
		return;
	}
	for (size_t i = 0; i < node_count && !first; i++)
		first = least == 0 ? (is_empty(&nodes[i]) ? &nodes[i] : NULL) : (is_dry(&nodes[i]) ? &nodes[i] : NULL);
	if (least == 0)
		detail(f, "no pool on node%s %s, up to %llu pages on others", count == 1 ? "" : "s", where,
		       (unsigned long long)most);
	else
		detail(f, "none free on node%s %s", count == 1 ? "" : "s", where);
	cost(f, "an arena of such pages there falls to a smaller kind, or to other nodes");
	fix(f, "echo %llu > " NODE_HUGE "/hugepages-%lukB/nr_hugepages%s",
	    (unsigned long long)(least == 0 ? most : 2 * total(first)), first->info.id, current->kib,
	    count == 1 ? "" : ", and so for the others");
}

/* Pages beyond the pools, made when they are asked for. */
static void check_surplus(void)
{
	uint64_t pages;
	char path[128];

	format_into(path, sizeof(path), HUGE "/hugepages-%lukB/nr_overcommit_hugepages", current->kib);
	if (read_number(path, &pages) && pages > 0)
		detail(find(current->beyond, OK), "up to %llu pages beyond the pools, on whichever node has room",
		       (unsigned long long)pages);
}

static void check_hugetlb_cgroup(const char *name, const char *v2, const char *v1, const char *costs)
{
	char where[512];
	uint64_t limit;
	struct finding *f;

	if (!cgroup_limit("hugetlb", v2, v1, &limit, where, sizeof(where)))
		return;
	f = find(name, LACK);
	detail(f, "at most %s, by %.150s", bytes_text(limit), where);
	cost(f, "%s", costs);
	fix(f, "echo %s > %.250s", strstr(where, ".max") ? "max" : "-1", where);
}

static void check_hugetlb_cgroups(void)
{
	static const char at_fault[] = "a page beyond it ends the program by SIGBUS where it was not faulted in ahead; "
				       "quarry falls instead";
	static const char at_map[] = "beyond it no such pages can be mapped; quarry falls to smaller ones";

	check_hugetlb_cgroup("cgroup-hugetlb-2m", "hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes", at_fault);
	check_hugetlb_cgroup("cgroup-rsvd-2m", "hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.limit_in_bytes", at_map);
	check_hugetlb_cgroup("cgroup-hugetlb-1g", "hugetlb.1GB.max", "hugetlb.1GB.limit_in_bytes", at_fault);
	check_hugetlb_cgroup("cgroup-rsvd-1g", "hugetlb.1GB.rsvd.max", "hugetlb.1GB.rsvd.limit_in_bytes", at_map);
}

void check_huge_pages(void)
{
	check_thp_mode();
	check_thp_process();
	check_thp_defrag();
	check_thp_sizes();
	check_khugepaged();
	for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++) {
		uint64_t all = 0, free = 0;
		size_t open = 0;
		current = &pools[i];
		for (size_t k = 0; k < node_count; k++) {
			if (!may_have(&nodes[k]))
				continue;
			all += total(&nodes[k]);
			free += free_of(&nodes[k]);
			open++;
		}
		check_pool(all, free);
		if (open > 1 && all > 0)
			check_pool_by_node();
		check_surplus();
	}
	check_hugetlb_cgroups();
}
