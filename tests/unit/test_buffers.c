/* SPDX-License-Identifier: MIT */
/* Slabs of buffers: given out and released by the owner and by others, waited for, copied, received into, adopted. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define QUARRY_CHECKED
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/chain.h"
#include "tests/unit/buffers.h"

static void on_low(void *ctx, uint32_t left);

/* ------------------------------------------------------------------------------------------------------ */
/* Where they are                                                                                         */

Test(buffers, their_addresses_are_arithmetic)
{
	static const struct { uint64_t size; uint32_t alignment, want; } cases[] = {
		{ 32 * KIB, 0, 32 * KIB }, { 1000, 0, 1024 }, { 1500, 128, 1536 }, { 100, 4096, 4096 }, { 1, 0, 64 },
		{ 3 * MIB, 2 * MIB, 4 * MIB },
	};

	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		quarry_buffers *slab = make(cases[c].size, 100, cases[c].alignment, 0);
		char seen[100] = { 0 };
		quarry_buffer b[100];

		cr_assert_eq(slab->size, cases[c].want);
		cr_assert_eq(slab->count, 100);
		for (int i = 0; i < 100; i++) {
			b[i] = get(slab);
			cr_assert(b[i].id < 100 && !seen[b[i].id]++);
			cr_assert_eq(b[i].p, slab->base + b[i].id * slab->size);
			cr_assert_eq(b[i].p, quarry_buffers_at(slab, b[i].id));
			cr_assert_eq((uintptr_t)b[i].p % (cases[c].alignment ? cases[c].alignment : 64), 0);
			cr_assert_eq(b[i].len, slab->size);
			cr_assert_eq(quarry_buffer_kind(b[i]), QUARRY_BUFFER_SLAB);
			cr_assert_eq(quarry_buffers_id(slab, b[i].p), b[i].id);
			cr_assert_eq(quarry_buffers_id(slab, (char *)b[i].p + slab->size - 1), b[i].id);
		}
		cr_assert_eq(quarry_buffers_id(slab, slab->base - 1), UINT32_MAX);
		cr_assert_eq(quarry_buffers_id(slab, slab->base + 100 * slab->size), UINT32_MAX);
		expect_error(quarry_buffers_get(slab, b), ENOBUFS);
		expect_error(quarry_buffers_destroy(slab), EBUSY);
		for (int i = 0; i < 100; i++)
			cr_assert_eq(quarry_buffer_release(b[i]), 0);
		end(slab);
	}
}

/* Bytes of [base, base + len) in memory. */
static size_t resident(const void *base, size_t len)
{
	static unsigned char map[131072];
	size_t pages = 0;

	cr_assert(len / 4096 <= sizeof map);
	cr_assert_eq(mincore((void *)(uintptr_t)base, len, map), 0);
	for (size_t i = 0; i < len / 4096; i++)
		pages += map[i] & 1;
	return pages * 4096;
}

static size_t process_resident(void)
{
	unsigned long size = 0, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	cr_assert(f != NULL && fscanf(f, "%lu %lu", &size, &pages) == 2);
	fclose(f);
	return pages * (size_t)getpagesize();
}

Test(buffers, half_a_gigabyte_costs_nothing_until_it_is_used)
{
	quarry_buffers *slab;
	quarry_buffer b;
	size_t before, after;

	/* What the library, and reading that file, need the first time. */
	end(make(64, 10, 0, 0));
	process_resident();
	before = process_resident();
	slab = make(32 * KIB, 16384, 0, 0);
	after = process_resident();
	cr_expect(after - before <= MIB, "%lu bytes", (unsigned long)(after - before));
	cr_expect_eq(resident(slab->base, 512 * MIB), 0);
	b = get(slab);
	memset(b.p, 1, b.len);
	cr_expect(resident(slab->base, 512 * MIB) <= 2 * MIB);
	cr_expect_eq(quarry_buffer_release(b), 0);
	end(slab);
	slab = make(32 * KIB, 64, 0, QUARRY_BUFFERS_POPULATE);
	cr_expect_eq(resident(slab->base, 2 * MIB), 2 * MIB);
	end(slab);
}

Test(buffers, what_is_no_slab_cannot_be_made)
{
	quarry_buffers_attr good = { .struct_size = sizeof good, .size = 4096, .count = 8 }, attr;
	quarry_buffer b;
	const quarry_buffers_attr *none = NULL;

#define refused(change, error) \
	do { \
		attr = good; \
		attr.change; \
		errno = 0; \
		cr_expect_null(quarry_buffers_create(&attr), "%s", #change); \
		cr_expect_eq(errno, error, "%s: errno %d", #change, errno); \
	} while (0)
	refused(struct_size = 8, EINVAL);
	refused(flags = 64, EINVAL);
	refused(size = 0, EINVAL);
	refused(size = ((uint64_t)1 << 30) + 1, EINVAL);
	refused(count = 0, EINVAL);
	refused(low = on_low; attr.low_water = 8, EINVAL);
	refused(low_water = 8, EINVAL);
	refused(low_water = 2000, EINVAL);
	refused(on_node = 2, EINVAL);
	refused(count = UINT32_MAX, EINVAL);
	refused(alignment = 63, EINVAL);
	refused(alignment = 32, EINVAL);
	refused(alignment = 4 << 20, EINVAL);
	refused(page_kind = 9, EINVAL);
	refused(on_node = 1; attr.node = 1023, EINVAL);
	refused(on_node = 1; attr.node = -1, EINVAL);
	attr = good;
	attr.size = (uint64_t)1 << 30;
	attr.count = 1025;
	cr_expect_null(quarry_buffers_create(&attr));
	cr_expect_eq(errno, EINVAL);
	cr_expect_null(quarry_buffers_create(none));
	expect_error(quarry_buffers_get(NULL, &b), EINVAL);
	expect_error(quarry_buffers_collect(NULL), EINVAL);
	expect_error(quarry_buffers_own(NULL), EINVAL);
	expect_error(quarry_buffers_destroy((quarry_buffers *)&attr), EINVAL);
	cr_expect_eq(quarry_buffers_destroy(NULL), 0);
	attr = good;
	attr.on_node = 1;
	attr.node = quarry_node_id(0);
	end(quarry_buffers_create(&attr));
}

Test(buffers, there_are_so_many_slabs_and_no_more)
{
	static quarry_buffers *slab[QUARRY_BUFFERS_MAX];
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 1 };

	for (int i = 0; i < QUARRY_BUFFERS_MAX; i++)
		slab[i] = make(64, 1, 0, 0);
	errno = 0;
	cr_expect_null(quarry_buffers_create(&attr));
	cr_expect_eq(errno, EAGAIN);
	for (int i = 0; i < QUARRY_BUFFERS_MAX; i++)
		end(slab[i]);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Owned, borrowed, and a slab's                                                                          */

Test(buffers, each_kind_is_released_as_what_it_is)
{
	static char text[] = "a constant";
	quarry_buffers *slab = make(4096, 8, 0, 0);
	quarry_buffer own = quarry_buffer_own(quarry_malloc(100), 100), wrapped = quarry_buffer_wrap(text, sizeof text);
	quarry_buffer taken = get(slab), made = quarry_buffer_make(taken.p, 10, taken.id, QUARRY_BUFFER_SLAB);
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = { .version = QUARRY_STATS_VERSION };

	made.flags = taken.flags;
	quarry_thread_flush();
	quarry_stats_get(NULL, &before);
	cr_expect_eq(quarry_buffer_release(own), 0);
	quarry_thread_flush();
	quarry_stats_get(NULL, &after);
	cr_expect_lt(after.in_use, before.in_use, "it was not freed");
	for (int i = 0; i < 3; i++)
		cr_expect_eq(quarry_buffer_release(wrapped), 0);
	cr_expect_str_eq(text, "a constant");
	expect_error(quarry_buffer_release(quarry_buffer_make(text, 1, 0, 0)), EINVAL);
	expect_error(quarry_buffer_release(made), EALREADY);
	cr_expect_eq(figures(slab).out, 1);
	cr_expect_eq(quarry_buffer_release(taken), 0);
	cr_expect_eq(figures(slab).out, 0);
	cr_expect_eq(quarry_buffer_check(wrapped), text);
	cr_expect_eq(quarry_buffer_iovec(wrapped).iov_base, text);
	cr_expect_eq(quarry_buffer_iovec(wrapped).iov_len, sizeof text);
	cr_expect_eq(quarry_buffer_pin(wrapped, 3), text + 3);
	quarry_buffer_unpin(wrapped);
	cr_expect_null(quarry_buffer_pin(wrapped, sizeof text + 1));
	cr_expect_eq(errno, ERANGE);
	end(slab);
	expect_error(quarry_buffer_release(taken), EINVAL);
	cr_expect_null(quarry_buffer_check(taken));
	cr_expect_eq(errno, EINVAL);
}

/* A new slab with the number of one that ended does not take that one's buffers for its own. */
Test(buffers, a_slab_in_anothers_place)
{
	quarry_buffers *slab = make(64, 4, 0, 0);
	quarry_buffer old = get(slab), new;

	quarry_buffer_release(old);
	end(slab);
	slab = make(64, 4, 0, 0);
	new = get(slab);
	cr_assert_eq(new.flags, old.flags);
	cr_assert_eq(new.id, old.id);
	cr_expect_null(quarry_buffer_check(old));
	expect_error(quarry_buffer_release(old), EALREADY);
	cr_expect_eq(quarry_buffer_release(new), 0);
	end(slab);
}

/* All that is planted is caught: released twice, at once or after the number was given out anew, by the owner or by
 * others, collected in between or not; and used after that. Against a plain record of who has what. */
#define MODEL 200

static unsigned planted, caught;

static void plant(quarry_buffer stale)
{
	planted += 4;
	errno = 0;
	caught += quarry_buffer_pin(stale, 5) == NULL && errno == ESTALE;
	caught += quarry_buffer_iovec(stale).iov_base == NULL && quarry_buffer_iovec(stale).iov_len == 0;
	errno = 0;
	caught += quarry_buffer_data(stale) == NULL && errno == ESTALE;
	errno = 0;
	caught += (rand() & 1 ? quarry_buffer_release(stale) : release_elsewhere(stale)) == -1 && errno == EALREADY;
}

static void check_against_model(uint32_t flags)
{
	quarry_buffers *slab = make(256, MODEL, 0, flags);
	quarry_buffer held[MODEL], was[MODEL];
	unsigned n = 0, gone = 0, returned = 0, out = 0;

	planted = caught = 0;
	for (int step = 0; step < 6000; step++) {
		unsigned what = (unsigned)rand() % 16;

		if (what < 8) {
			if (quarry_buffers_get(slab, &held[n]) != 0) {
				cr_assert_eq(errno, ENOBUFS);
				cr_assert_eq(out, MODEL);
				continue;
			}
			if (out + returned == MODEL) /* it was fetched */
				returned = 0;
			*(unsigned *)quarry_buffer_data(held[n]) = held[n].generation;
			n++;
			out++;
		} else if (what < 15 && n > 0) {
			unsigned i = (unsigned)rand() % n;
			quarry_buffer b = held[i];
			bool here = what < 14;

			cr_assert_eq(*(unsigned *)quarry_buffer_data(b), b.generation);
			cr_assert_eq(here ? quarry_buffer_release(b) : release_elsewhere(b), 0);
			returned += !here;
			held[i] = held[--n];
			out--;
			was[gone++ % MODEL] = b;
			if (rand() % 4 == 0)
				plant(b);
		} else if (what == 15) {
			cr_assert_eq(quarry_buffers_collect(slab), (long)returned);
			returned = 0;
			cr_assert_eq(figures(slab).free, MODEL - out);
		}
		if (gone > 0 && rand() % 16 == 0)
			plant(was[(unsigned)rand() % (gone < MODEL ? gone : MODEL)]);
	}
	cr_expect_gt(planted, 500);
	cr_expect_eq(caught, planted, "%u of %u", caught, planted);
	cr_expect_eq(figures(slab).late, planted / 4);
	while (n > 0)
		cr_assert_eq(quarry_buffer_release(held[--n]), 0);
	end(slab);
}

Test(buffers, all_that_is_late_is_caught, .timeout = 60)
{
	srand(20261123);
	printf("seed 20261123\n");
	check_against_model(0);
	check_against_model(QUARRY_BUFFERS_CHECKED);
}

Test(buffers, a_buffer_that_left_its_bounds_is_none)
{
	quarry_buffers *slab = make(4096, 4, 0, 0);
	quarry_buffer b = get(slab), c = b;

	c.len = 4097;
	cr_expect_null(quarry_buffer_check(c));
	c = b;
	c.p = (char *)b.p + 4000;
	c.len = 96;
	cr_expect_eq(quarry_buffer_check(c), c.p);
	c.len = 97;
	cr_expect_null(quarry_buffer_check(c));
	cr_expect_eq(errno, EINVAL);
	c = b;
	c.p = (char *)b.p - 1;
	cr_expect_null(quarry_buffer_check(c));
	c = b;
	c.id = 4;
	expect_error(quarry_buffer_release(c), EINVAL);
	c = b;
	c.flags |= 5000u << 16;
	expect_error(quarry_buffer_release(c), EINVAL);
	cr_expect_eq(quarry_buffer_release(b), 0);
	end(slab);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Threads                                                                                                */

static void *try_all(void *arg)
{
	quarry_buffers *slab = arg;
	quarry_buffers_waiter w = { 0 };
	quarry_buffer b;

	expect_error(quarry_buffers_get(slab, &b), EPERM);
	expect_error(quarry_buffers_collect(slab), EPERM);
	expect_error(quarry_buffers_wait(slab, &w), EPERM);
	expect_error(quarry_buffers_cancel(slab, &w), EPERM);
	expect_error(quarry_buffers_destroy(slab), EPERM);
	expect_error(quarry_buffers_receive(slab, 0, &b, 1, 0), EPERM);
	expect_error(quarry_ring_try_get(slab, 1, 1, &b), EPERM);
	expect_error(quarry_ring_register(slab, 0, 0, 4, 0), EPERM);
	expect_error(quarry_fixed_register(slab, 0, 1, 0, 0), EPERM);
	cr_expect_eq(quarry_buffers_own(slab), 0);
	cr_expect_eq(quarry_buffers_get(slab, &b), 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	return NULL;
}

Test(buffers, what_is_the_owners_is_no_others)
{
	quarry_buffers *slab = make(4096, 4, 0, 0);
	quarry_buffer b;

	elsewhere(try_all, slab);
	expect_error(quarry_buffers_get(slab, &b), EPERM);
	cr_expect_eq(quarry_buffers_own(slab), 0);
	cr_expect_eq(quarry_buffers_get(slab, &b), 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	end(slab);
}

static void *make_one(void *arg)
{
	*(quarry_buffers **)arg = make(64, 4, 0, 0);
	return NULL;
}

static void *is_no_owner(void *arg)
{
	quarry_buffer b;

	end(make(64, 4, 0, 0)); /* it is an owner, but not of that */
	expect_error(quarry_buffers_get(arg, &b), EPERM);
	expect_error(quarry_buffers_collect(arg), EPERM);
	return NULL;
}

/* Nor are a thread's that has the stack of the owner, who has ended, and its place. */
Test(buffers, the_next_thread_is_not_the_owner)
{
	quarry_buffers *slab;

	elsewhere(make_one, &slab);
	elsewhere(is_no_owner, slab);
	cr_expect_eq(quarry_buffers_own(slab), 0);
	end(slab);
}

static void *release_many(void *arg)
{
	quarry_buffer *b = arg;

	for (int i = 0; i < 4200; i++)
		cr_assert_eq(quarry_buffer_release(b[i]), 0);
	return NULL;
}

/* 64 with one exchange; and all of them are found, also beyond the 4096 of a word above. */
Test(buffers, what_others_return_comes_in_batches)
{
	static quarry_buffer b[4200];
	quarry_buffers *slab = make(64, 4200, 0, 0);
	quarry_buffers_stats stats;

	for (int i = 0; i < 4200; i++)
		b[i] = get(slab);
	elsewhere(release_many, b);
	cr_expect_eq(quarry_buffers_collect(slab), 4200);
	cr_expect_eq(quarry_buffers_collect(slab), 0);
	stats = figures(slab);
	cr_expect_eq(stats.returns, 4200);
	cr_expect_eq(stats.batches, (4200 + 63) / 64);
	cr_expect_eq(stats.free, 4200);
	end(slab);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Too few                                                                                                */

static struct heard {
	unsigned low, wakes, ready;
	uint32_t left;
	quarry_buffer got[8];
	void *who[8];
	quarry_buffers *slab;
} heard;

static void on_low(void *ctx, uint32_t left)
{
	((struct heard *)ctx)->low++;
	((struct heard *)ctx)->left = left;
}

static void on_wake(void *ctx)
{
	__atomic_add_fetch(&((struct heard *)ctx)->wakes, 1, __ATOMIC_RELAXED);
}

static void on_ready(quarry_buffers_waiter *w, quarry_buffer b)
{
	heard.who[heard.ready] = w->ctx;
	heard.got[heard.ready++] = b;
}

Test(buffers, few_are_told_of_once)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 10, .low_water = 3, .low = on_low,
				     .ctx = &heard };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_buffer b[10];

	heard = (struct heard){ 0 };
	for (int i = 0; i < 10; i++) {
		b[i] = get(slab);
		cr_expect_eq(heard.low, i >= 6, "at %d", i);
	}
	cr_expect_eq(heard.left, 3);
	for (int i = 0; i < 4; i++)
		quarry_buffer_release(b[i]);
	cr_expect_eq(heard.low, 1);
	b[0] = get(slab); /* 3 left, after there were 4 */
	cr_expect_eq(heard.low, 2);
	quarry_buffer_release(b[0]);
	for (int i = 4; i < 10; i++)
		quarry_buffer_release(b[i]);
	for (int i = 0; i < 10; i++)
		b[i] = get(slab);
	cr_expect_eq(heard.low, 3);
	cr_expect_eq(figures(slab).low, 3);
	for (int i = 0; i < 10; i++)
		quarry_buffer_release(b[i]);
	end(slab);
}

Test(buffers, who_waits_is_served_in_turn)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 2, .wake = on_wake, .ctx = &heard };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_buffers_waiter w[4] = { { 0 } };
	quarry_buffer a = get(slab), b = get(slab);

	heard = (struct heard){ 0 };
	for (int i = 0; i < 4; i++) {
		w[i].ready = on_ready;
		w[i].ctx = &w[i];
	}
	expect_error(quarry_buffers_wait(slab, NULL), EINVAL);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(quarry_buffers_wait(slab, &w[i]), 1);
	expect_error(quarry_buffers_wait(slab, &w[1]), EINVAL);
	expect_error(quarry_buffers_destroy(slab), EBUSY);
	cr_expect_eq(quarry_buffers_cancel(slab, &w[1]), 0);
	expect_error(quarry_buffers_cancel(slab, &w[1]), ENOENT);
	expect_error(quarry_buffers_cancel(slab, NULL), EINVAL);
	cr_expect_eq(quarry_buffers_wait(slab, &w[3]), 1);
	cr_expect_eq(quarry_buffers_cancel(slab, &w[3]), 0, "the last");
	cr_expect_eq(quarry_buffers_wait(slab, &w[3]), 1);
	cr_expect_eq(figures(slab).waiting, 3);
	cr_expect_eq(quarry_buffers_cancel(slab, &w[3]), 0);
	cr_expect_eq(figures(slab).waiting, 2);
	cr_expect_eq(quarry_buffer_release(a), 0);
	cr_expect_eq(heard.ready, 1);
	cr_expect_eq(heard.who[0], &w[0]);
	cr_expect_eq(heard.wakes, 0);
	/* By another thread: that calls for the owner, once. */
	cr_expect_eq(release_elsewhere(b), 0);
	cr_expect_eq(heard.wakes, 1);
	cr_expect_eq(heard.ready, 1);
	cr_expect_eq(release_elsewhere(heard.got[0]), 0);
	cr_expect_eq(heard.wakes, 1);
	cr_expect_eq(quarry_buffers_collect(slab), 2);
	cr_expect_eq(heard.ready, 2);
	cr_expect_eq(heard.who[1], &w[2]);
	/* Nobody waits, and nobody is called. */
	cr_expect_eq(release_elsewhere(heard.got[1]), 0);
	cr_expect_eq(heard.wakes, 1);
	cr_expect_eq(quarry_buffers_wait(slab, &w[3]), 0);
	cr_expect_eq(heard.ready, 3);
	cr_expect_eq(quarry_buffer_release(heard.got[2]), 0);
	quarry_buffers_collect(slab);
	cr_expect_eq(figures(slab).served, 3);
	cr_expect_eq(figures(slab).refused, 0);
	end(slab);
}

/* Who releases the buffer at once serves the next, and needs no more stack for it. */
static unsigned passed_on;
static char *deepest;

static void pass_on(quarry_buffers_waiter *w, quarry_buffer b)
{
	char here;

	(void)w;
	if (deepest == NULL)
		deepest = &here;
	cr_assert(deepest - &here < 1024 && &here - deepest < 1024, "served within another's call");
	passed_on++;
	cr_assert_eq(quarry_buffer_release(b), 0);
}

static void wait_again(quarry_buffers_waiter *w, quarry_buffer b)
{
	quarry_buffers *slab = w->ctx;

	if (++passed_on < 3)
		cr_expect_eq(quarry_buffers_wait(slab, w), 1);
	expect_error(quarry_buffers_destroy(slab), EBUSY);
	cr_assert_eq(quarry_buffer_release(b), 0);
}

Test(buffers, many_wait_and_release_at_once)
{
	static quarry_buffers_waiter w[20000];
	quarry_buffers *slab = make(64, 1, 0, 0);
	quarry_buffer b = get(slab);

	for (int i = 0; i < 20000; i++) {
		w[i].ready = pass_on;
		cr_assert_eq(quarry_buffers_wait(slab, &w[i]), 1);
	}
	passed_on = 0;
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_eq(passed_on, 20000);
	expect_error(quarry_buffers_cancel(slab, &w[0]), ENOENT);
	/* One that waits again while it is called was called. */
	w[0].ready = wait_again;
	w[0].ctx = slab;
	passed_on = 0;
	cr_expect_eq(quarry_buffers_wait(slab, &w[0]), 0);
	cr_expect_eq(passed_on, 3);
	end(slab);
}

/* Who is served takes another one, and where there is none waits for it: as anew, so that the owner is called. */
static quarry_buffers_waiter anew;

static void wants_more(quarry_buffers_waiter *w, quarry_buffer b)
{
	on_ready(w, b);
	expect_error(quarry_buffers_get(heard.slab, &b), ENOBUFS);
	cr_expect_eq(quarry_buffers_wait(heard.slab, &anew), 1);
}

Test(buffers, who_is_served_waits_anew)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 2, .wake = on_wake, .ctx = &heard };
	quarry_buffers *slab = quarry_buffers_create(&attr);

	for (int collected = 0; collected < 2; collected++) {
		quarry_buffers_waiter w = { .ready = wants_more };
		quarry_buffer a = get(slab), b = get(slab);

		heard = (struct heard){ .slab = slab };
		anew = (quarry_buffers_waiter){ .ready = on_ready };
		cr_assert_eq(quarry_buffers_wait(slab, &w), 1);
		if (collected) {
			cr_expect_eq(release_elsewhere(a), 0);
			cr_expect_eq(quarry_buffers_collect(slab), 1);
		} else {
			cr_expect_eq(quarry_buffer_release(a), 0);
		}
		cr_expect_eq(heard.ready, 1);
		heard.wakes = 0;
		cr_expect_eq(release_elsewhere(b), 0);
		cr_expect_eq(heard.wakes, 1, "collected %d", collected);
		cr_expect_eq(quarry_buffers_collect(slab), 1);
		cr_expect_eq(heard.ready, 2);
		for (int i = 0; i < 2; i++)
			cr_expect_eq(quarry_buffer_release(heard.got[i]), 0);
	}
	end(slab);
}

/* The same where the owner was called just before, and looks at what came back in `ready`. */
static quarry_buffers_waiter in_turn[3];

static void waits_in_turn(quarry_buffers_waiter *w, quarry_buffer b)
{
	on_ready(w, b);
	if (w == &in_turn[0])
		cr_expect_eq(quarry_buffers_collect(heard.slab), 1);
	cr_expect_eq(quarry_buffers_wait(heard.slab, w + 1), 1);
}

Test(buffers, who_waits_anew_is_announced)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 3, .wake = on_wake, .ctx = &heard };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_buffer b[3] = { get(slab), get(slab), get(slab) };

	heard = (struct heard){ .slab = slab };
	for (int i = 0; i < 3; i++)
		in_turn[i] = (quarry_buffers_waiter){ .ready = i < 2 ? waits_in_turn : on_ready };
	cr_assert_eq(quarry_buffers_wait(slab, &in_turn[0]), 1);
	cr_expect_eq(release_elsewhere(b[0]), 0);
	cr_expect_eq(heard.wakes, 1);
	cr_expect_eq(quarry_buffer_release(b[1]), 0);
	cr_expect_eq(heard.ready, 2);
	cr_expect_eq(release_elsewhere(b[2]), 0);
	cr_expect_eq(heard.wakes, 2);
	cr_expect_eq(quarry_buffers_collect(slab), 1);
	cr_expect_eq(heard.ready, 3);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(quarry_buffer_release(heard.got[i]), 0);
	end(slab);
}

/* Those who waited take them, too. */
Test(buffers, few_are_told_of_when_waiters_take_them)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 5, .low_water = 3, .low = on_low,
				     .ctx = &heard };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_buffers_waiter w[3] = { { 0 } };
	quarry_buffer b[5];

	heard = (struct heard){ 0 };
	for (int i = 0; i < 5; i++)
		b[i] = get(slab);
	heard.low = 0;
	for (int i = 0; i < 3; i++) {
		w[i].ready = on_ready;
		cr_assert_eq(quarry_buffers_wait(slab, &w[i]), 1);
	}
	for (int i = 0; i < 5; i++)
		cr_assert_eq(release_elsewhere(b[i]), 0);
	cr_expect_eq(quarry_buffers_collect(slab), 5);
	cr_expect(heard.ready == 3 && heard.low == 1 && heard.left == 3, "%u times, %u left", heard.low, heard.left);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(quarry_buffer_release(heard.got[i]), 0);
	end(slab);
}

/* Whoever returned the last buffer may be slow to come away from the slab. */
static _Atomic(int) in_wake, may_leave, left_wake;

static void slow_wake(void *ctx)
{
	(void)ctx;
	atomic_store(&in_wake, 1);
	while (atomic_load(&may_leave) == 0)
		sched_yield();
	for (int i = 0; i < 1000; i++)
		sched_yield();
	atomic_store(&left_wake, 1);
}

Test(buffers, a_slab_ends_beside_a_slow_release)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 1, .wake = slow_wake };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_buffers_waiter w = { .ready = on_ready };
	struct to_release r = { .b = get(slab) };
	pthread_t thread;

	heard = (struct heard){ 0 };
	cr_assert_eq(quarry_buffers_wait(slab, &w), 1);
	cr_assert_eq(pthread_create(&thread, NULL, release_it, &r), 0);
	while (atomic_load(&in_wake) == 0)
		sched_yield();
	cr_expect_eq(quarry_buffers_collect(slab), 1);
	cr_assert_eq(heard.ready, 1);
	cr_expect_eq(quarry_buffer_release(heard.got[0]), 0);
	atomic_store(&may_leave, 1);
	end(slab);
	cr_expect_eq(atomic_load(&left_wake), 1, "the slab ended under its wake");
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(r.rc, 0);
}

/* What it does last, it may do to a slab that has ended, or to the next one. */
Test(buffers, what_comes_late_from_a_slab_that_ended)
{
	static quarry_buffer b[1000];
	quarry_buffers *slab = make(64, 200000, 0, 0), *next;
	struct qy_buffers *inside = (struct qy_buffers *)slab;

	end(slab);
	for (unsigned i = 0; i < QY_ABOVE; i++)
		atomic_store(&inside->above[i], UINT64_MAX);
	cr_expect_eq(atomic_load(&inside->waits), 0);
	next = make(64, 1000, 0, 0);
	cr_assert_eq(next, slab, "of one number there is one struct");
	for (int i = 0; i < 1000; i++)
		b[i] = get(next);
	cr_expect_eq(release_elsewhere(b[999]), 0);
	cr_expect_eq(quarry_buffers_collect(next), 1);
	cr_expect_eq(quarry_buffers_collect(next), 0);
	for (int i = 0; i < 999; i++)
		cr_expect_eq(quarry_buffer_release(b[i]), 0);
	end(next);
}

/* More words than there are bits above. */
Test(buffers, a_bit_above_for_many_words)
{
	quarry_buffers *slab = make(64, 300000, 0, 0);
	quarry_buffer *b = malloc(300000 * sizeof *b);

	for (int i = 0; i < 300000; i++)
		b[i] = get(slab);
	for (int i = 0; i < 300000; i += 29999)
		cr_expect_eq(release_elsewhere(b[i]), 0);
	cr_expect_eq(quarry_buffers_collect(slab), 11);
	for (int i = 0; i < 300000; i++)
		cr_assert_eq(quarry_buffer_release(b[i]), i % 29999 == 0 ? -1 : 0);
	end(slab);
	free(b);
}

/* ------------------------------------------------------------------------------------------------------ */
/* What is in them                                                                                        */

Test(buffers, received_into_as_many_as_it_takes)
{
	quarry_buffers *slab = make(64, 8, 0, 0);
	quarry_buffer b[8];
	char text[200];
	int ends[2], file[2];

	for (int i = 0; i < 200; i++)
		text[i] = (char)(i * 7);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	cr_assert_eq(pipe(file), 0);
	cr_assert_eq(write(ends[1], text, 200), 200);
	cr_expect_eq(quarry_buffers_receive(slab, ends[0], b, 8, 0), 200);
	cr_expect_eq(figures(slab).out, 4);
	for (int i = 0; i < 4; i++) {
		cr_expect_eq(b[i].len, i < 3 ? 64 : 8);
		cr_expect_eq(memcmp(b[i].p, text + i * 64, b[i].len), 0);
		quarry_buffer_release(b[i]);
	}
	expect_error(quarry_buffers_receive(slab, ends[0], b, 2, MSG_DONTWAIT), EAGAIN);
	cr_expect_eq(figures(slab).out, 0);
	cr_assert_eq(write(file[1], text, 100), 100);
	cr_expect_eq(quarry_buffers_receive(slab, file[0], b, 1, 0), 64);
	cr_expect_eq(quarry_buffers_receive(slab, file[0], b + 1, 8, 0), 36);
	cr_expect_eq(memcmp(b[1].p, text + 64, 36), 0);
	quarry_buffer_release(b[0]);
	quarry_buffer_release(b[1]);
	expect_error(quarry_buffers_receive(slab, file[0], b, 1, MSG_DONTWAIT), ENOTSOCK);
	close(ends[1]);
	cr_expect_eq(quarry_buffers_receive(slab, ends[0], b, 8, 0), 0);
	expect_error(quarry_buffers_receive(slab, -1, b, 8, 0), EBADF);
	expect_error(quarry_buffers_receive(slab, ends[0], b, 0, 0), EINVAL);
	expect_error(quarry_buffers_receive(slab, ends[0], b, 65, 0), EINVAL);
	for (int i = 0; i < 8; i++)
		b[i] = get(slab);
	quarry_buffer more;
	expect_error(quarry_buffers_receive(slab, ends[0], &more, 1, 0), ENOBUFS);
	for (int i = 0; i < 8; i++)
		quarry_buffer_release(b[i]);
	close(ends[0]);
	close(file[0]);
	close(file[1]);
	end(slab);
}

/* A thread that is cancelled in it, before it waits or as it waits, leaves the slab whole. */
static struct receiver {
	quarry_buffers *slab;
	int fd;
	_Atomic(int) thread, go;
} receiver;

static void *receive_for_ever(void *arg)
{
	quarry_buffer b[8];

	(void)arg;
	cr_assert_eq(quarry_buffers_own(receiver.slab), 0);
	atomic_store(&receiver.thread, (int)syscall(SYS_gettid));
	while (atomic_load(&receiver.go) == 0)
		sched_yield();
	quarry_buffers_receive(receiver.slab, receiver.fd, b, 8, 0);
	return NULL;
}

static char state_of(int thread)
{
	char path[64], line[256] = "", *at;
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	at = fgets(line, sizeof line, f) != NULL ? strrchr(line, ')') : NULL;
	fclose(f);
	return at != NULL ? at[2] : 0;
}

Test(buffers, a_thread_cancelled_in_receiving_loses_none, .timeout = 30)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 8, .low_water = 2, .low = on_low,
				     .ctx = &heard };
	int ends[2], waits;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	heard = (struct heard){ 0 };
	for (waits = 0; waits < 2; waits++) {
		pthread_t thread;
		void *result;

		receiver = (struct receiver){ .slab = make_of(&attr), .fd = ends[0] };
		cr_assert_eq(pthread_create(&thread, NULL, receive_for_ever, NULL), 0);
		while (atomic_load(&receiver.thread) == 0)
			sched_yield();
		if (!waits)
			cr_assert_eq(pthread_cancel(thread), 0);
		atomic_store(&receiver.go, 1);
		while (waits && state_of(atomic_load(&receiver.thread)) != 'S')
			sched_yield();
		if (waits)
			cr_assert_eq(pthread_cancel(thread), 0);
		cr_assert_eq(pthread_join(thread, &result), 0);
		cr_assert_eq(result, PTHREAD_CANCELED);
		cr_expect_eq(quarry_buffers_own(receiver.slab), 0);
		cr_expect_eq(figures(receiver.slab).out, 0, "waits %d", waits);
		cr_expect_eq(figures(receiver.slab).free, 8);
		/* And its owner hears of few as before. */
		for (int i = 0; i < 8; i++)
			get(receiver.slab);
		cr_expect_eq(heard.low, 1 + waits);
		for (uint32_t id = 0; id < 8; id++) {
			struct qy_buffers *s = (struct qy_buffers *)receiver.slab;

			cr_assert_eq(quarry_buffer_release_parts(NULL, id, s->generation[id] + s->seed,
								 qy_buffer_flags(s, QUARRY_BUFFER_SLAB, 0)), 0);
		}
		end(receiver.slab);
	}
	close(ends[0]);
	close(ends[1]);
}

/* What is told of a datagram that is longer than there is room. */
Test(buffers, what_is_cut_off_is_in_no_buffer)
{
	quarry_buffers *slab = make(64, 8, 0, 0);
	quarry_buffer b[16];
	char text[1000];
	int ends[2];

	memset(text, 'x', sizeof text);
	memset(b, 0, sizeof b);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	cr_assert_eq(write(ends[1], text, sizeof text), sizeof text);
	cr_expect_eq(quarry_buffers_receive(slab, ends[0], b, 2, MSG_TRUNC), 1000);
	cr_expect_eq(figures(slab).out, 2);
	for (int i = 0; i < 16; i++)
		cr_expect_eq(b[i].len, i < 2 ? 64 : 0, "at %d", i);
	quarry_buffer_release(b[0]);
	quarry_buffer_release(b[1]);
	close(ends[0]);
	close(ends[1]);
	end(slab);
}

/* Whether they are few is known when it is known which stay. */
Test(buffers, receiving_tells_of_few_that_stay_so)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 10, .low_water = 3, .low = on_low,
				     .ctx = &heard };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_buffer b[10];
	char text[512] = { 0 };
	int ends[2];

	heard = (struct heard){ 0 };
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	cr_assert_eq(write(ends[1], text, 10), 10);
	cr_expect_eq(quarry_buffers_receive(slab, ends[0], b, 10, 0), 10);
	cr_expect_eq(heard.low, 0);
	cr_assert_eq(write(ends[1], text, 512), 512);
	cr_expect_eq(quarry_buffers_receive(slab, ends[0], b + 1, 9, 0), 512);
	cr_expect_eq(heard.low, 1);
	cr_expect_eq(heard.left, 3);
	for (int i = 0; i < 9; i++)
		quarry_buffer_release(b[i]);
	close(ends[0]);
	close(ends[1]);
	end(slab);
}

Test(buffers, copies_stay_within_bounds)
{
	quarry_buffers *slab = make(100 * KIB, 4, 0, 0);
	quarry_buffer b[3] = { get(slab), get(slab), get(slab) };
	unsigned char *from = malloc(100 * KIB), *to = malloc(300 * KIB);
	size_t streamed = quarry_copy_set_stream_min(1000);

	cr_expect_eq(streamed, 4 * MIB);
	for (size_t i = 0; i < 100 * KIB; i++)
		from[i] = (unsigned char)(i * 31 >> 3);
	for (int i = 0; i < 3; i++)
		b[i].len = 0;
	expect_error(quarry_buffer_copy_in(b[0], 0, from, 1), ERANGE);
	/* Of all lengths and places, streamed or not. */
	for (uint32_t len = 1; len < 5000; len += 37) {
		for (int i = 0; i < 3; i++) {
			b[i].len = len + 5;
			memset(b[i].p, 0xee, 6000);
			cr_assert_eq(quarry_buffer_copy_in(b[i], 5, from + i, len), len);
			expect_error(quarry_buffer_copy_in(b[i], 6, from, len), ERANGE);
			cr_assert_eq(memcmp((char *)b[i].p + 5, from + i, len), 0);
			cr_assert_eq(((unsigned char *)b[i].p)[4], 0xee);
			cr_assert_eq(((unsigned char *)b[i].p)[5 + len], 0xee);
		}
		memset(to, 0xdd, 300 * KIB);
		cr_assert_eq(quarry_buffer_copy_out(to, 3 * (len + 5), b, 3), 3 * (len + 5));
		for (int i = 0; i < 3; i++)
			cr_assert_eq(memcmp(to + (uint32_t)i * (len + 5) + 5, from + i, len), 0);
		cr_assert_eq(to[3 * (len + 5)], 0xdd);
		memset(to, 0xdd, 300 * KIB);
		expect_error(quarry_buffer_copy_out(to, 3 * (len + 5) - 1, b, 3), ERANGE);
		cr_assert_eq(to[0], 0xdd);
	}
	cr_expect_eq(quarry_copy_set_stream_min(streamed), 1000);
	quarry_buffer_release(b[1]);
	expect_error(quarry_buffer_copy_out(to, 300 * KIB, b, 3), ESTALE);
	expect_error(quarry_buffer_copy_in(b[1], 0, from, 1), ESTALE);
	expect_error(quarry_buffer_copy_out(NULL, 5, b, 1), EINVAL);
	/* Nothing, and what says that it is more. */
	cr_expect_eq(quarry_buffer_copy_in(quarry_buffer_wrap(NULL, 0), 0, from, 0), 0);
	expect_error(quarry_buffer_copy_in(quarry_buffer_wrap(NULL, 0), 0, from, 1), ERANGE);
	expect_error(quarry_buffer_copy_in(quarry_buffer_wrap(NULL, 9), 0, from, 1), EINVAL);
	b[1] = quarry_buffer_wrap(NULL, 0);
	cr_expect_eq(quarry_buffer_copy_out(to, 9, b + 1, 1), 0);
	quarry_buffer_release(b[0]);
	quarry_buffer_release(b[2]);
	free(from);
	free(to);
	end(slab);
}

static void fill(quarry_buffer b, unsigned key)
{
	for (uint32_t i = 0; i < b.len; i++)
		((unsigned char *)b.p)[i] = (unsigned char)(i * 13 + key + (i >> 8));
}

static bool is_filled(const void *p, size_t len, unsigned key)
{
	for (size_t i = 0; i < len; i++)
		if (((const unsigned char *)p)[i] != (unsigned char)(i * 13 + key + (i >> 8)))
			return false;
	return true;
}

/* Again and again, of the same number; blocks are freed as others are. */
Test(buffers, what_is_adopted_is_a_block)
{
	enum { SIZE = 64 * KIB, TIMES = 40 };
	static const uint32_t lens[] = { SIZE, SIZE - 1, 5000, 100 };
	quarry_buffers *slab = make(SIZE, 8, 4096, 0);
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_buffer b, kept[TIMES];

	for (unsigned i = 0; i < TIMES; i++) {
		void *place;
		uint32_t id;

		b = get(slab);
		place = b.p;
		id = b.id;
		b.len = lens[i % 4];
		fill(b, i);
		kept[i] = b;
		cr_assert_eq(quarry_buffer_adopt(&kept[i], i & 4 ? arena : NULL, i & 8 ? QUARRY_ADOPT_COPY : 0), 0);
		cr_assert_eq(kept[i].flags & ~(QUARRY_BUFFER_MOVED | QUARRY_BUFFER_COPIED), QUARRY_BUFFER_OWNED);
		cr_assert_eq(!!(kept[i].flags & QUARRY_BUFFER_COPIED), i & 8 || lens[i % 4] <= 4096, "at %u", i);
		cr_assert_eq(kept[i].len, b.len);
		cr_assert(kept[i].p != place && quarry_usable_size(kept[i].p) >= b.len);
		if (i & 4)
			cr_assert_eq(quarry_arena_of(kept[i].p), arena);
		/* The slab has it back, in the same place. */
		cr_assert_null(quarry_buffer_check(b));
		b = get(slab);
		cr_assert(b.id == id && b.p == place);
		memset(b.p, 0xff, SIZE);
		cr_assert_eq(quarry_buffer_release(b), 0);
		cr_assert(is_filled(kept[i].p, kept[i].len, i), "at %u", i);
		if (i % 3 == 0) {
			cr_assert_eq(quarry_buffer_release(kept[i]), 0);
			kept[i].p = NULL;
		}
	}
	cr_expect_gt(figures(slab).moved, 0);
	cr_expect_gt(figures(slab).copied, 0);
	cr_expect_eq(figures(slab).free, 8);
	end(slab);
	for (unsigned i = 0; i < TIMES; i++)
		if (kept[i].p != NULL) {
			cr_expect(is_filled(kept[i].p, kept[i].len, i), "at %u, when the slab has ended", i);
			quarry_free(kept[i].p);
		}
	quarry_purge(NULL);
	cr_expect_eq(quarry_arena_destroy(arena), 0);
}

static void *adopt_it(void *arg)
{
	cr_expect_eq(quarry_buffer_adopt(arg, NULL, 0), 0);
	return NULL;
}

Test(buffers, what_cannot_be_adopted)
{
	quarry_buffers *slab = make(64 * KIB, 4, 4096, 0);
	quarry_buffer a = get(slab), stale = a, wrapped = quarry_buffer_wrap(&a, 8);
	quarry_buffer own = quarry_buffer_own(quarry_malloc(9), 9);
	void *p = own.p;

	expect_error(quarry_buffer_adopt(NULL, NULL, 0), EINVAL);
	expect_error(quarry_buffer_adopt(&a, NULL, 2), EINVAL);
	expect_error(quarry_buffer_adopt(&a, (quarry_arena *)(void *)&a, 0), EINVAL);
	cr_expect_not_null(strstr(quarry_error_text(), "arena: "), "%s", quarry_error_text());
	expect_error(quarry_buffer_adopt(&wrapped, NULL, 0), EINVAL);
	cr_expect_eq(quarry_buffer_adopt(&own, NULL, 0), 0);
	cr_expect_eq(own.p, p);
	quarry_buffer_release(own);
	/* In another thread, with contents. */
	fill(a, 3);
	elsewhere(adopt_it, &a);
	cr_expect(is_filled(a.p, a.len, 3));
	quarry_free(a.p);
	expect_error(quarry_buffer_adopt(&stale, NULL, 0), ESTALE);
	quarry_buffers_collect(slab);
	/* A file that others see is not put something else into. */
	quarry_arena_attr attr = { .struct_size = sizeof attr, .flags = QUARRY_ARENA_FD };
	quarry_arena *files = quarry_arena_create(&attr);
	if (files != NULL) {
		a = get(slab);
		fill(a, 4);
		cr_expect_eq(quarry_buffer_adopt(&a, files, 0), 0);
		cr_expect_eq(a.flags, QUARRY_BUFFER_OWNED | QUARRY_BUFFER_COPIED);
		cr_expect(is_filled(a.p, a.len, 4));
		cr_expect_geq(quarry_fd_of(a.p, NULL), 0);
		quarry_arena_destroy(files);
	}
	end(slab);
}

/* Every way in which the kernel can refuse is a copy, and a whole slab. */
Test(buffers, moves_that_are_refused_are_copies)
{
	quarry_buffers *slab;

	fake_os_install();
	slab = make(64 * KIB, 4, 4096, 0);
	for (unsigned k = 1; k <= 4; k++) {
		quarry_buffer b = get(slab);
		uint32_t id = b.id;

		fill(b, k);
		fake_os_mremap_holes(true);
		if (k == 3) /* the second half, and the way back */
			fake_os_fail_from(FAKE_MREMAP, 2, ENOMEM);
		else
			fake_os_fail_kth(FAKE_MREMAP, k, k == 1 ? EINVAL : ENOMEM);
		cr_expect_eq(quarry_buffer_adopt(&b, NULL, 0), 0);
		fake_os_heal();
		cr_expect_eq(b.flags, QUARRY_BUFFER_OWNED | (k < 4 ? QUARRY_BUFFER_COPIED : QUARRY_BUFFER_MOVED), "k %u", k);
		cr_expect(is_filled(b.p, b.len, k));
		quarry_free(b.p);
		b = get(slab);
		cr_expect_eq(b.id, id);
		memset(b.p, 1, b.len);
		quarry_buffer_release(b);
	}
	end(slab);
	fake_os_remove();
}

Test(buffers, a_slab_as_iovecs)
{
	quarry_buffers *slab = make(3 * MIB / 2, 1000, 0, 0);
	struct iovec list[4];

	cr_expect_eq(quarry_buffers_iovecs(slab, list, 4), 2);
	cr_expect_eq(list[0].iov_base, slab->base);
	cr_expect_leq(list[0].iov_len, (size_t)1 << 30);
	cr_expect_eq(list[0].iov_len % slab->size, 0);
	cr_expect_eq((unsigned char *)list[1].iov_base, slab->base + list[0].iov_len);
	cr_expect_eq(list[0].iov_len + list[1].iov_len, 1000 * slab->size);
	cr_expect_eq(quarry_buffers_iovecs(slab, NULL, 0), 2);
	end(slab);
}

Test(buffers, a_forked_child_has_a_copy)
{
	quarry_buffers *slab = make(4096, 8, 0, 0);
	quarry_buffer b = get(slab), c;
	int status = -1;
	pid_t pid;

	strcpy(b.p, "the parent's");
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		int ok = strcmp(b.p, "the parent's") == 0 && quarry_buffers_get(slab, &c) == 0;
		strcpy(b.p, "the child's");
		ok = ok && quarry_buffer_release(b) == 0 && quarry_buffer_release(c) == 0 && quarry_buffers_destroy(slab) == 0;
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	cr_expect_str_eq(b.p, "the parent's");
	cr_expect_eq(quarry_buffer_release(b), 0);
	end(slab);
}

/* Nothing is allocated once the slab is there: Z34 to Z43. */
Test(buffers, passing_allocates_nothing)
{
	quarry_buffers *slab = make(4096, 256, 0, 0);
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = before;
	quarry_buffer b[256];
	int ends[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	quarry_thread_flush();
	quarry_stats_get(NULL, &before);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 256; i++)
			b[i] = get(slab);
		for (int i = 0; i < 256; i++)
			quarry_buffer_release(b[i]);
		cr_assert_eq(write(ends[1], "hello", 5), 5);
		cr_assert_eq(quarry_buffers_receive(slab, ends[0], b, 4, 0), 5);
		quarry_buffer_release(b[0]);
		quarry_buffers_collect(slab);
	}
	quarry_stats_get(NULL, &after);
	cr_expect_eq(after.refills, before.refills);
	cr_expect_eq(after.in_use, before.in_use);
	close(ends[0]);
	close(ends[1]);
	end(slab);
}

/* ---- one who is cancelled in `wake`, or ends there ---- */

static int wakes_by[2];

static void wake_by_pipe(void *ctx)
{
	if (write(wakes_by[1], "w", 1) != 1 || ctx != NULL)
		abort();
}

static void wake_by_ending(void *ctx)
{
	(void)ctx;
	pthread_exit(PTHREAD_CANCELED);
}

static void *releases_and_ends(void *arg)
{
	quarry_buffer_release(*(quarry_buffer *)arg);
	return NULL;
}

/* (The address sanitizer of gcc 12 does not hear of the frames that a cancelled thread leaves, but of one that ends.) */
static void *frees_a_chain_and_is_cancelled(void *arg)
{
	int was;

	pthread_cancel(pthread_self()); /* at the next point where that can be: write(2) would be one */
	quarry_chain_free(arg);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &was);
	if (was == PTHREAD_CANCEL_ENABLE)
		pthread_exit(PTHREAD_CANCELED);
	return NULL;
}

static void take_and_release(quarry_buffers_waiter *w, quarry_buffer b)
{
	(void)w;
	cr_expect_eq(quarry_buffer_release(b), 0);
}

/* A chain of buffers is let go of whole by a thread that is cancelled meanwhile, which is so afterwards. */
Test(buffers, cancelled_in_wake, .timeout = 30)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 8, .wake = wake_by_pipe };
	quarry_buffers *slab = make_of(&attr);
	quarry_buffers_waiter w = { .ready = take_and_release };
	quarry_chain chain = { 0 };
	pthread_t thread;
	void *how;

	cr_assert_eq(pipe(wakes_by), 0);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(quarry_chain_append_buffer(&chain, get(slab)), 0);
	cr_assert_eq(quarry_buffers_wait(slab, &w), 1);
	cr_assert_eq(pthread_create(&thread, NULL, frees_a_chain_and_is_cancelled, &chain), 0);
	cr_assert_eq(pthread_join(thread, &how), 0);
	cr_expect_eq(how, PTHREAD_CANCELED);
	cr_expect_eq(quarry_buffers_collect(slab), 8);
	end(slab);
}

Test(buffers, ended_in_wake, .timeout = 30)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 1, .wake = wake_by_ending };
	quarry_buffers *slab = make_of(&attr);
	quarry_buffers_waiter w = { .ready = take_and_release };
	quarry_buffer b = get(slab);
	pthread_t thread;
	void *how;

	cr_assert_eq(quarry_buffers_wait(slab, &w), 1);
	cr_assert_eq(pthread_create(&thread, NULL, releases_and_ends, &b), 0);
	cr_assert_eq(pthread_join(thread, &how), 0);
	cr_expect_eq(how, PTHREAD_CANCELED);
	cr_expect_eq(quarry_buffers_collect(slab), 1);
	end(slab);
}
