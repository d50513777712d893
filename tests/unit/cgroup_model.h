/* SPDX-License-Identifier: MIT */
/* Control groups of the fake kernel, of v1 and v2, and what is to be said of them. To be included once, by a test. */
#ifndef QUARRY_TESTS_CGROUP_MODEL_H
#define QUARRY_TESTS_CGROUP_MODEL_H

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>

#include "numa/cgroup.h"
#include "tests/fake_os.h"

#define MIB (UINT64_C(1) << 20)
#define V1_NONE "9223372036854771712\n"
#define V1_MOUNTS \
	"22 27 0:21 / /proc rw,relatime - proc proc rw\n" \
	"31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n" \
	"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"

static const char v2_base[] = "/sys/fs/cgroup";
static const char v1_base[] = "/sys/fs/cgroup/memory";

/* A machine that has no file but those named after this. */
static inline void start(const char *own, const char *mounts)
{
	fake_os_install();
	fake_os_no_sysfs();
	fake_os_file("/proc/self/cgroup", own);
	fake_os_file("/proc/self/mountinfo", mounts);
	qy_cgroup_forget();
}

static inline void file(const char *base, const char *group, const char *name, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), "%s%s/%s", base, group, name);
	fake_os_file(path, text);
}

static inline void number_file(const char *base, const char *group, const char *name, uint64_t n)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64 "\n", n);
	file(base, group, name, text);
}

/* A level of v2; max NULL: the controller is not there (the root has none). */
static inline void v2(const char *base, const char *group, const char *max, uint64_t current, uint64_t inactive)
{
	char stat[256];

	snprintf(stat, sizeof(stat), "anon 4096\ninactive_anon 77777\nactive_file 0\ninactive_file %" PRIu64
		 "\nunevictable 0\n", inactive);
	file(base, group, "cgroup.controllers", "cpuset cpu io memory pids\n");
	file(base, group, "memory.max", max);
	file(base, group, "memory.high", max ? "max\n" : NULL);
	if (max)
		number_file(base, group, "memory.current", current);
	file(base, group, "memory.stat", stat);
}

static inline void v1(const char *base, const char *group, const char *limit, uint64_t used, uint64_t inactive)
{
	char stat[256];

	/* inactive_file alone is of the group without its children. */
	snprintf(stat, sizeof(stat), "cache 9\ninactive_file 11111\ntotal_cache 99\ntotal_inactive_file %" PRIu64
		 "\ntotal_unevictable 0\n", inactive);
	file(base, group, "memory.limit_in_bytes", limit);
	number_file(base, group, "memory.usage_in_bytes", used);
	file(base, group, "memory.stat", stat);
	file(base, group, "memory.use_hierarchy", "1\n");
}

#define expect(limit_wanted, usage_wanted)                                              \
	do {                                                                            \
		uint64_t limit_ = 1, usage_ = 1;                                        \
		cr_assert(qy_cgroup_memory(&limit_, &usage_), "no limit");              \
		cr_assert_eq(limit_, (limit_wanted), "limit %" PRIu64, limit_);         \
		cr_assert_eq(usage_, (usage_wanted), "usage %" PRIu64, usage_);         \
	} while (0)

#define expect_none()                                                                            \
	do {                                                                                     \
		uint64_t limit_ = 1, usage_ = 2;                                                 \
		cr_assert_not(qy_cgroup_memory(&limit_, &usage_), "limit %" PRIu64, limit_);     \
		cr_assert(limit_ == 1 && usage_ == 2, "something was stored");                   \
	} while (0)

/* The fake kernel, with another read_file in front of its own. */
static struct qy_os wrapped;
static const struct qy_os *inner;

static inline void wrap(ssize_t (*read_file)(const char *path, char *buffer, size_t size))
{
	inner = qy_os;
	wrapped = *inner;
	wrapped.read_file = read_file;
	qy_os = &wrapped;
}

#endif
