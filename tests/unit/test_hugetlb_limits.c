/* SPDX-License-Identifier: MIT */
/* Hugetlb pages under a control group that limits them, on a machine that the test plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "tests/unit/limits.h"

static void hugetlb_group(const char *max, uint64_t used, const char *rsvd)
{
	group(1000, 0);
	fake_os_file(OWN "/cgroup.controllers", "memory hugetlb\n");
	fake_os_file(OWN "/hugetlb.2MB.max", max);
	file(OWN "/hugetlb.2MB.current", "%" PRIu64 "\n", used);
	fake_os_file(OWN "/hugetlb.2MB.rsvd.max", rsvd);
	file(OWN "/hugetlb.2MB.rsvd.current", "%" PRIu64 "\n", used);
}

Test(limits, room_for_hugetlb_pages)
{
	begin();
	cr_assert_eq(qy_cgroup_hugetlb_room(false), UINT64_MAX, "no group");
	hugetlb_group("16777216\n", 4 * MIB, "max\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 12 * MIB);
	cr_assert_eq(qy_cgroup_hugetlb_room(true), UINT64_MAX);
	hugetlb_group("16777216\n", 4 * MIB, "6291456\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 2 * MIB, "promised ones count too");
	hugetlb_group("2097152\n", 4 * MIB, "max\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 0, "lowered under what is used");
	hugetlb_group("max\n", 4 * MIB, NULL);
	cr_assert_eq(qy_cgroup_hugetlb_room(false), UINT64_MAX);
	/* The root shows no limits, a level in between may. */
	hugetlb_group("max\n", 0, "max\n");
	fake_os_file("/sys/fs/cgroup/hugetlb.2MB.max", "8388608\n");
	fake_os_file("/sys/fs/cgroup/hugetlb.2MB.current", "6291456\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 2 * MIB);
}

Test(limits, room_for_hugetlb_pages_v1)
{
	begin();
	fake_os_file("/proc/self/cgroup", "7:memory:/other\n5:hugetlb:/jobs/one\n0::/x\n");
	fake_os_file("/proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n");
	for (int i = 0; i < 2; i++) {
		static const char *const at[] = { "/sys/fs/cgroup/hugetlb/jobs/one", "/sys/fs/cgroup/hugetlb/jobs" };
		char path[100];

		snprintf(path, sizeof(path), "%s/hugetlb.2MB.limit_in_bytes", at[i]);
		fake_os_file(path, i == 0 ? "9223372036852678656\n" : "10485760\n");
		snprintf(path, sizeof(path), "%s/hugetlb.2MB.usage_in_bytes", at[i]);
		fake_os_file(path, "4194304\n");
		snprintf(path, sizeof(path), "%s/hugetlb.1GB.limit_in_bytes", at[i]);
		fake_os_file(path, i == 0 ? "1073741824\n" : "9223372036854771712\n");
		snprintf(path, sizeof(path), "%s/hugetlb.1GB.usage_in_bytes", at[i]);
		fake_os_file(path, "0\n");
	}
	qy_cgroup_forget();
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 6 * MIB);
	cr_assert_eq(qy_cgroup_hugetlb_room(true), GIB);
}

/* What would be beyond it is not tried: the next rung, and it is told why. */
Test(limits, pages_that_the_group_does_not_allow_are_not_tried)
{
	quarry_arena_attr attr = { .page_kind = QUARRY_PAGES_2M };
	uint64_t group_refused, pool_refused;
	quarry_stats s = { .version = QUARRY_STATS_VERSION };
	quarry_arena *a;
	char *p, *q;

	begin();
	fake_os_pool(0, 21, 64);
	hugetlb_group("16777216\n", 0, "max\n");
	group_refused = qy_read(&qy_refused[QUARRY_REFUSED_HUGE_CGROUP]);
	pool_refused = qy_read(&qy_refused[QUARRY_REFUSED_HUGE_2M]);
	a = quarry_arena_create(&attr);
	p = quarry_arena_malloc(a, 8 * MIB);
	cr_assert_not_null(p);
	quarry_stats_get(a, &s);
	cr_assert_eq(s.kind_got[QUARRY_PAGES_2M], s.mapped);
	file(OWN "/hugetlb.2MB.current", "%" PRIu64 "\n", 8 * MIB);
	q = quarry_arena_malloc(a, 10 * MIB);
	cr_assert_not_null(q);
	memset(q, 1, 10 * MIB);
	quarry_stats_get(a, &s);
	cr_assert_geq(s.kind_got[QUARRY_PAGES_THP] + s.kind_got[QUARRY_PAGES_BASE], 10 * MIB);
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_HUGE_CGROUP]), group_refused);
	cr_assert_eq(qy_read(&qy_refused[QUARRY_REFUSED_HUGE_2M]), pool_refused, "the pool has pages");
	/* Strictly, it is an error. */
	attr.flags = QUARRY_ARENA_STRICT;
	hugetlb_group("1048576\n", 0, "max\n");
	cr_assert_null(quarry_arena_create(&attr));
	cr_assert_eq(errno, ENOMEM);
	/* A dry pool is told as that. */
	hugetlb_group("max\n", 0, "max\n");
	fake_os_pool(0, 21, 0);
	fake_os_pool(1, 21, 0);
	cr_assert_null(quarry_arena_create(&attr));
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_HUGE_2M]), pool_refused);
}
