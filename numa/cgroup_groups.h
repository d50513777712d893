/* SPDX-License-Identifier: MIT */
/* Inside numa/cgroup*.c: the groups that the process is in, as they were learnt (cgroup_find.c), and the files of a
 * level (cgroup.c reads what they say). Memory and hugetlb pages are limited by controllers of their own, which under
 * v1 are in hierarchies of their own; each is learnt when it is first asked for. */
#ifndef QUARRY_NUMA_CGROUP_GROUPS_H
#define QUARRY_NUMA_CGROUP_GROUPS_H

#include "lib/base/base.h"

#define QY_CGROUP_LEVELS_MAX 16
#define QY_CGROUP_PATH_SIZE 1024 /* the path of a level, with the 0; of deeper groups the levels above are looked at */
#define QY_CGROUP_LEAF_SIZE 48   /* what is put behind it, with the 0: the names of files */
#define QY_CGROUP_NUMBER_SIZE 64 /* a file of one number */

enum qy_cgroup_kind { QY_CGROUP_MEMORY, QY_CGROUP_HUGETLB, QY_CGROUP_KINDS };

/* What a hierarchy calls a controller and its files. */
struct qy_cgroup_names {
	const char *controller;
	bool v1;
	const char *there; /* every group has it */
	const char *limit; /* one that shows by being there that the controller limits this group */
};

struct qy_cgroup_groups {
	const struct qy_cgroup_names *names;
	uint32_t had_limit;         /* bit by level: its file of the limit could be read when this was learnt */
	int count;
	bool named;                  /* from our own group on; else only a group somewhere above it is seen */
	uint16_t length[QY_CGROUP_LEVELS_MAX]; /* of the level's path; falling: the process's own group first */
	char path[QY_CGROUP_PATH_SIZE + QY_CGROUP_LEAF_SIZE];
};

enum qy_cgroup_outcome {
	QY_CGROUP_GOT,
	QY_CGROUP_ABSENT, /* it is not there, or not for us */
	QY_CGROUP_LATER,  /* it could not be told now: no descriptors, no memory */
};

/* ---- cgroup_find.c ---- */

/* Whether it is known, by a look at the clock, that there is no such controller. */
bool qy_cgroup_known_absent(enum qy_cgroup_kind kind);

/* The groups, learnt anew when what was learnt is stale. False when there are none, or another thread is learning. */
bool qy_cgroup_take(enum qy_cgroup_kind kind, struct qy_cgroup_groups *at);

/* Learn anew at once: a group that was there is gone. */
void qy_cgroup_learn(enum qy_cgroup_kind kind);

/* ---- files ---- */

enum qy_cgroup_outcome qy_cgroup_read(const char *path, char *buffer, size_t size, size_t *length);

/* A file of the level whose path is the first length bytes of path; what stood behind them is overwritten. */
enum qy_cgroup_outcome qy_cgroup_read_leaf(char *path, size_t length, const char *leaf, char *buffer, size_t size,
					   size_t *got);

/* Digits and then end; a number too large is UINT64_MAX. */
bool qy_cgroup_number(const char *s, uint64_t *number);

/* UINT64_MAX for what either hierarchy says where nothing was set. */
bool qy_cgroup_limit(const char *s, uint64_t *limit);

#endif
