/* SPDX-License-Identifier: MIT */
/* Lists of ranges of addresses, by which the fake kernel knows what is where, shared by tests/fake_memory.c (mappings,
 * pools, moves) and tests/fake_policy.c. Everything here is under fake_lock, which is held by the caller. */
#ifndef QUARRY_TESTS_FAKE_RANGES_H
#define QUARRY_TESTS_FAKE_RANGES_H

#include <errno.h>

#include "tests/fake_machine.h"

#define PAGE ((uintptr_t)4096)

/* A run of addresses that share a property. Lists of them are plain arrays in memory of their own. */
struct fake_range {
	uintptr_t start, end;
	uintptr_t origin; /* policy: where the bound range starts, for interleaving */
	int value;        /* policy: its number; hugetlb and taken: the page's shift; moved: the node */
	int extra;        /* hugetlb: 1 when reserved; taken: the node */
};

struct fake_ranges {
	struct fake_range *at;
	size_t count;
};

struct fake_policy {
	int mode;
	struct fake_mask nodes;
};

extern struct fake_ranges fake_policies; /* what mbind left */
extern struct fake_ranges fake_hugetlb;  /* mappings of huge pages */
extern struct fake_ranges fake_taken;    /* huge pages that were populated, one each */
extern struct fake_ranges fake_moved;    /* pages that move_pages moved */

static inline int fail(int err)
{
	errno = err;
	return -1;
}

static inline bool is_full(int node)
{
	return fake.node[node].available == 0;
}

/* tests/fake_memory.c */
void *fake_own_memory(size_t len);
void fake_range_add(struct fake_ranges *list, struct fake_range range);
/* Take [start, end) out of a list; what sticks out of it on either side stays. */
void fake_range_cut(struct fake_ranges *list, uintptr_t start, uintptr_t end);
struct fake_range *fake_range_find(struct fake_ranges *list, uintptr_t at);
/* 0 when the page is in memory; or the error that move_pages would give for it. */
int fake_presence(uintptr_t at);

/* tests/fake_policy.c */
const struct fake_policy *fake_policy_at(uintptr_t at); /* NULL: none of its own */
int fake_node_by_policy(uintptr_t at);
/* Pages in memory stay where they are, whatever the policy says from now on. */
void fake_put_at(uintptr_t at, int node);
/* BIND to nodes that are all full: the real kernel would look for somebody to kill. */
bool fake_bound_to_full(uintptr_t at);
void fake_policy_reset(void);

#endif
