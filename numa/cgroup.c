/* SPDX-License-Identifier: MIT */
/* What the groups that the process is in allow. Which those are is learnt in cgroup_find.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/cgroup.h"

#include <errno.h>
#include <string.h>

#include "numa/cgroup_groups.h"
#include "numa/os.h"

#define STAT_SIZE 4096 /* memory.stat: what is looked for stands within its first 2 KiB */

/* The files that say what is used of memory, and how much may be. */
static const struct memory_names {
	const char *high;     /* NULL: none */
	const char *usage;
	const char *stat;
	const char *inactive; /* lines of stat, with the groups below: file pages that were used once, */
	const char *active;   /* and those used again; the kernel drops both before it kills */
} memory_v2 = {
	.high = "/memory.high",
	.usage = "/memory.current",
	.stat = "/memory.stat",
	.inactive = "inactive_file",
	.active = "active_file",
}, memory_v1 = {
	.usage = "/memory.usage_in_bytes",
	.stat = "/memory.stat",
	.inactive = "total_inactive_file",
	.active = "total_active_file",
};

/* The line "name number" of a text; 0 where there is none, or where the text was cut off within it. */
static uint64_t line_of(const char *text, const char *name)
{
	const size_t length = strlen(name);
	uint64_t n = 0;

	for (const char *s = text, *end; (end = strchr(s, '\n')) != NULL; s = end + 1)
		if (strncmp(s, name, length) == 0 && s[length] == ' ')
			return qy_cgroup_number(s + length + 1, &n) ? n : 0;
	return 0;
}

/* False when the file cannot be read or makes no sense; then errno is ENOENT or ENODEV if its group is gone. */
static bool read_limit(char *path, size_t length, const char *leaf, uint64_t *limit)
{
	char buffer[QY_CGROUP_NUMBER_SIZE];
	size_t got;

	errno = 0;
	return qy_cgroup_read_leaf(path, length, leaf, buffer, sizeof(buffer), &got) == QY_CGROUP_GOT &&
	       qy_cgroup_limit(buffer, limit);
}

static bool read_number(char *path, size_t length, const char *leaf, uint64_t *number)
{
	char buffer[QY_CGROUP_NUMBER_SIZE];
	size_t got;

	return qy_cgroup_read_leaf(path, length, leaf, buffer, sizeof(buffer), &got) == QY_CGROUP_GOT &&
	       qy_cgroup_number(buffer, number);
}

static QY_NOINLINE bool read_usage(const struct memory_names *names, char *path, size_t length, uint64_t *usage)
{
	char buffer[STAT_SIZE];
	uint64_t file = 0;
	size_t got;

	if (!read_number(path, length, names->usage, usage))
		return false;
	if (qy_cgroup_read_leaf(path, length, names->stat, buffer, sizeof(buffer), &got) == QY_CGROUP_GOT)
		file = line_of(buffer, names->inactive) + line_of(buffer, names->active);
	/* The two files are not of one moment, and a counter may lag. */
	*usage = file < *usage ? *usage - file : 0;
	return true;
}

/* ---- memory ---- */

/* Take a level's limit if it leaves less room than what was found before. */
static void take_tighter(struct qy_cgroup_bound *bound, uint64_t limit, uint64_t used)
{
	uint64_t room = used < limit ? limit - used : 0;
	uint64_t least = bound->used < bound->limit ? bound->limit - bound->used : 0;

	if (limit != UINT64_MAX &&
	    (bound->limit == UINT64_MAX || room < least || (room == least && limit < bound->limit)))
		*bound = (struct qy_cgroup_bound){ limit, used };
}

/* Levels are taken from below, so that each finds its own part of the path intact. high may be NULL. *gone: a group
 * that was there is not. */
static void look(struct qy_cgroup_groups *at, struct qy_cgroup_bound *max, struct qy_cgroup_bound *high, bool *gone)
{
	const struct memory_names *names = at->names->v1 ? &memory_v1 : &memory_v2;

	*max = (struct qy_cgroup_bound){ UINT64_MAX, 0 };
	if (high != NULL)
		*high = *max;
	*gone = false;
	for (int i = 0; i < at->count; i++) {
		const size_t length = at->length[i];
		uint64_t its_max, its_high = UINT64_MAX, used;

		if (!read_limit(at->path, length, at->names->limit, &its_max)) {
			if ((at->had_limit >> i & 1) && (errno == ENOENT || errno == ENODEV))
				*gone = true;
			continue;
		}
		if (high != NULL && names->high != NULL && !read_limit(at->path, length, names->high, &its_high))
			its_high = UINT64_MAX;
		if ((its_max == UINT64_MAX && its_high == UINT64_MAX) || !read_usage(names, at->path, length, &used))
			continue;
		take_tighter(max, its_max, used);
		if (high != NULL)
			take_tighter(high, its_high, used);
	}
}

/* A frame of its own, so that a process without a controller does not pay for the copy of the path. */
static QY_NOINLINE bool ask_memory(struct qy_cgroup_bound *max, struct qy_cgroup_bound *high)
{
	struct qy_cgroup_groups at;
	bool gone;

	if (!qy_cgroup_take(QY_CGROUP_MEMORY, &at))
		return false;
	look(&at, max, high, &gone);
	if (gone) {
		qy_cgroup_learn(QY_CGROUP_MEMORY);
		if (!qy_cgroup_take(QY_CGROUP_MEMORY, &at))
			return false;
		look(&at, max, high, &gone);
	}
	return true;
}

static bool ask_quietly(struct qy_cgroup_bound *max, struct qy_cgroup_bound *high)
{
	const int saved = errno;
	bool found;

	if (qy_cgroup_known_absent(QY_CGROUP_MEMORY))
		return false;
	found = ask_memory(max, high);
	errno = saved;
	return found;
}

bool qy_cgroup_memory(uint64_t *limit, uint64_t *usage)
{
	struct qy_cgroup_bound max;

	if (!ask_quietly(&max, NULL) || max.limit == UINT64_MAX)
		return false;
	*limit = max.limit;
	*usage = max.used;
	return true;
}

bool qy_cgroup_memory_bounds(struct qy_cgroup_bound *max, struct qy_cgroup_bound *high)
{
	if (ask_quietly(max, high) && (max->limit != UINT64_MAX || high->limit != UINT64_MAX))
		return true;
	*max = *high = (struct qy_cgroup_bound){ UINT64_MAX, 0 };
	return false;
}

bool qy_cgroup_memory_with_high(uint64_t *limit, uint64_t *usage)
{
	struct qy_cgroup_bound max, high;

	if (!qy_cgroup_memory_bounds(&max, &high))
		return false;
	take_tighter(&max, high.limit, high.used);
	*limit = max.limit;
	*usage = max.used;
	return true;
}

/* ---- hugetlb ---- */

/* What is left under "<size>.<what of limit>": the group may hold so many pages, and, by the rsvd ones, have so many
 * promised by mmap(2) before any is touched. */
static const struct hugetlb_names {
	const char *limit, *usage;
} hugetlb_v2[2][2] = {
	{ { "/hugetlb.2MB.max", "/hugetlb.2MB.current" }, { "/hugetlb.2MB.rsvd.max", "/hugetlb.2MB.rsvd.current" } },
	{ { "/hugetlb.1GB.max", "/hugetlb.1GB.current" }, { "/hugetlb.1GB.rsvd.max", "/hugetlb.1GB.rsvd.current" } },
}, hugetlb_v1[2][2] = {
	{ { "/hugetlb.2MB.limit_in_bytes", "/hugetlb.2MB.usage_in_bytes" },
	  { "/hugetlb.2MB.rsvd.limit_in_bytes", "/hugetlb.2MB.rsvd.usage_in_bytes" } },
	{ { "/hugetlb.1GB.limit_in_bytes", "/hugetlb.1GB.usage_in_bytes" },
	  { "/hugetlb.1GB.rsvd.limit_in_bytes", "/hugetlb.1GB.rsvd.usage_in_bytes" } },
};

static uint64_t hugetlb_room(struct qy_cgroup_groups *at, const struct hugetlb_names names[2])
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < at->count; i++) {
		for (int k = 0; k < 2; k++) {
			uint64_t limit, used;

			if (!read_limit(at->path, at->length[i], names[k].limit, &limit) || limit == UINT64_MAX ||
			    !read_number(at->path, at->length[i], names[k].usage, &used))
				continue;
			least = qy_min(least, used < limit ? limit - used : 0);
		}
	}
	return least;
}

static QY_NOINLINE uint64_t ask_hugetlb(bool gigantic)
{
	struct qy_cgroup_groups at;

	if (!qy_cgroup_take(QY_CGROUP_HUGETLB, &at))
		return UINT64_MAX;
	return hugetlb_room(&at, (at.names->v1 ? hugetlb_v1 : hugetlb_v2)[gigantic]);
}

uint64_t qy_cgroup_hugetlb_room(bool gigantic)
{
	const int saved = errno;
	uint64_t room;

	if (qy_cgroup_known_absent(QY_CGROUP_HUGETLB))
		return UINT64_MAX;
	room = ask_hugetlb(gigantic);
	errno = saved;
	return room;
}

/* ---- the own group ---- */

/* A frame of its own, as above. */
static QY_NOINLINE ssize_t read_own(const char *name, char *buffer, size_t size)
{
	struct qy_cgroup_groups at;
	size_t got;

	if (!qy_cgroup_take(QY_CGROUP_MEMORY, &at) || at.names->v1 || !at.named || at.count == 0 ||
	    qy_cgroup_read_leaf(at.path, at.length[0], name, buffer, size, &got) != QY_CGROUP_GOT)
		return -1;
	return (ssize_t)got;
}

ssize_t qy_cgroup_read_own(const char *name, char *buffer, size_t size)
{
	const int saved = errno;
	ssize_t got;

	if (qy_cgroup_known_absent(QY_CGROUP_MEMORY))
		return -1;
	got = read_own(name, buffer, size);
	errno = saved;
	return got;
}
