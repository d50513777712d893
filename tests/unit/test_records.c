/* SPDX-License-Identifier: MIT */
/* Where the records of chains come from, on a machine that the fake kernel plays: the thread's node's own arena, or
 * nowhere. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>

#include "include/quarry/quarry.h"
#include "lib/object/records.h"
#include "tests/unit/eight_nodes.h"

#define SLAB 16384 /* as records.c takes them */

/* An arena of one node, with memory that is free in it, which the thread chooses. */
static quarry_arena *chosen(void)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .policy = QUARRY_POLICY_PREFERRED };
	quarry_arena *arena;
	void *p;

	quarry_nodeset_add(&attr.nodes, 0);
	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena);
	cr_assert_eq(quarry_thread_set_arena(arena, NULL), 0);
	p = quarry_aligned_alloc(QY_CACHE_LINE, SLAB);
	cr_assert(p != NULL && quarry_arena_of(p) == arena);
	quarry_free(p);
	return arena;
}

/* There is no arena of a node that a thread meets first when memory is out. An arena that the thread chose is none for
 * records: the program may destroy it. */
Test(records, never_come_from_an_arena_that_can_be_destroyed)
{
	quarry_arena *arena;
	struct qy_record *r;
	void *p;

	begin();
	fake_os_this_thread_on_cpu(0);
	arena = chosen();
	fake_os_fail(FAKE_MMAP, ENOMEM);
	while (quarry_arena_create(NULL) != NULL)
		;
	fake_os_this_thread_on_cpu(4 * 3);
	cr_assert(quarry_arena_of_node(3) == NULL && quarry_node_current() == 3);
	p = quarry_aligned_alloc(QY_CACHE_LINE, SLAB);
	cr_assert(p != NULL && quarry_arena_of(p) == arena, "the chosen one has memory");
	quarry_free(p);
	errno = 0;
	cr_assert_null(qy_record_get());
	cr_assert(errno == ENOMEM && qy_records_made() == 0);
	fake_os_fail(FAKE_MMAP, 0);
	r = qy_record_get();
	cr_assert_not_null(r);
	/* (Before it are the one that leads to all of them, and the one with the thread's lists.) */
	cr_assert_eq(quarry_arena_of(r - 2), quarry_arena_of_node(3));
	cr_assert(quarry_thread_set_arena(NULL, NULL) == 0 && quarry_arena_destroy(arena) == 0);
	qy_record_put(r);
	cr_assert_eq(qy_record_get(), (void *)r);
}
