/* SPDX-License-Identifier: MIT */
/* What a reclaimer has to do, for its tests: a clock that the test moves, a manager, and what is dirty in it. To be
 * included once. */
#ifndef QUARRY_TESTS_RECLAIM_MODEL_H
#define QUARRY_TESTS_RECLAIM_MODEL_H

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"
#include "lib/base/refused.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define START 1000000u
#define DECAY 1000

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,decay_ms=1000,return=on", 1);
	fake_os_install();
	fake_os_clock(START);
}

static struct qy_manager *m;
static struct books books;
static uint64_t next_due;

static inline void begin(uint32_t flags)
{
	model_start("reclaim");
	cr_assert(qy_start());
	m = new_manager(flags);
}

static inline void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0, "%s", quarry_error_text());
}

static inline char *get(size_t size)
{
	bool zero;
	char *p = qy_large_alloc(m, size, QY_PAGE, &zero);

	cr_assert_not_null(p);
	content_write(p, qy_large_size(p) / QY_PAGE, 42);
	return p;
}

/* Make so many bytes dirty now. Multiples of 2 MiB, so that they are runs. */
static inline char *make_dirt(size_t size)
{
	char *p = get(size);

	cr_assert(qy_large_free(p));
	return p;
}

static inline size_t purge(long decay_ms)
{
	return qy_manager_purge(m, qy_os->now_ms(), decay_ms, SIZE_MAX, &next_due);
}

static inline uint64_t dirty(void)
{
	books_compare(m, &books);
	return books.dirty_pages * QY_PAGE;
}

#endif
