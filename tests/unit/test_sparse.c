/* SPDX-License-Identifier: MIT */
/* Pages inside slabs that go back to the kernel while other objects of the slab live: which go, that nothing that lives
 * is touched, that every object is had again once, and what happens to objects that are freed meanwhile. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/unit/objects_model.h"

static void one_class(unsigned cls, uint32_t slabs, uint32_t percent)
{
	count = 0;
	fill(cls, slabs);
	thin_out(percent);
	abandon(0);
	purge();
	cr_assert_eq(resident(), live_pages(), "class %u: %zu pages are in memory, and %zu have something live", cls,
		     resident(), live_pages());
	check_all();
	check_objects();
	/* All of what is free is had again, each object once (take sees to that), before there is a new slab. */
	for (uint64_t slabs_before = qy_read(&m->used), n = 0; qy_read(&m->used) == slabs_before; n++) {
		cr_assert_lt(n, OBJECTS);
		objects[count] = (struct object){ .p = take(1, cls), .cls = cls };
		write_object(&objects[count++]);
	}
	check_all();
	check_objects();
	while (count > 0)
		give_back(1, objects[--count].p, false);
	abandon(1);
	check_all();
}

Test(sparse, of_every_class_exactly_what_lives_stays, .timeout = 120)
{
	begin("sparse");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		one_class(cls, 3, 5);
}

Test(sparse, few_and_many_survivors, .timeout = 120)
{
	static const uint8_t some[] = { 0, 4, 12, 27, 39, 46, 56, 57, 63, 71 };

	begin("sparse");
	for (unsigned i = 0; i < sizeof(some); i++) {
		one_class(some[i], 2, 1);
		one_class(some[i], 2, 50);
		one_class(some[i], 1, 99);
	}
}

/* A slab that was never carved to its end has nothing behind it in memory; what was freed and used before has. */
Test(sparse, what_was_never_carved_stays_away)
{
	begin("sparse");
	objects[count++] = (struct object){ .p = take(0, 5), .cls = 5 };
	write_object(&objects[0]);
	abandon(0);
	cr_assert_eq(purge(), 0, "one page was touched, and something lives there");
	cr_assert_eq(resident(), 1);
	check_all();
	check_objects();
}

/* Twice in a row there is nothing more to do; and once something more was freed, there is. */
Test(sparse, again_only_when_something_changed)
{
	size_t before;

	begin("sparse");
	fill(40, 4);
	thin_out(20);
	abandon(0);
	cr_assert_gt(purge(), 0);
	fake_os_forget_calls();
	cr_assert_eq(purge(), 0);
	cr_assert_eq(fake_os_advised(MADV_DONTNEED), 0);
	before = resident();
	while (count > 3) {
		give_back(2, objects[--count].p, false);
	}
	cr_assert_gt(purge(), 0);
	cr_assert_lt(resident(), before);
	cr_assert_eq(resident(), live_pages());
	check_all();
	check_objects();
}

/* In time, and not at once: only what was the same at two looks. */
Test(sparse, a_slab_that_changes_is_left_alone)
{
	uint64_t next;
	size_t before;

	begin("sparse");
	fill(40, 4);
	thin_out(50);
	abandon(0);
	qy_manager_purge(m, qy_os->now_ms(), 1000, SIZE_MAX, &next);
	before = resident();
	for (int n = 0; n < 10 && count > 1; n++) {
		/* One of each slab: the mail comes in when the look begins. */
		for (uint32_t i = 0, seen = 0; i < count; i++)
			if (i == 0 || qy_slab_of(objects[i].p) != qy_slab_of(objects[seen].p)) {
				give_back(2, objects[i].p, false);
				objects[i] = objects[--count];
				seen = i;
			}
		fake_os_advance(1000);
		qy_manager_purge(m, qy_os->now_ms(), 1000, SIZE_MAX, &next);
	}
	cr_assert_leq(before - resident(), 4 * 16, "hardly anything of what changes all the time");
	for (int n = 0; n < 4; n++) {
		fake_os_advance(10000);
		qy_manager_purge(m, qy_os->now_ms(), 1000, SIZE_MAX, &next);
	}
	check_all();
	check_objects();
}

/* ---- while it is done ---- */

static const struct qy_os *inner;
static struct qy_os wrapped;
static uint32_t sent;

/* While pages go back, others free what lives in the same slabs, all of one at times, and somebody takes the mail
 * in. */
static int madvise_and_free(void *addr, size_t len, int advice)
{
	for (int n = 0; advice == MADV_DONTNEED && n < 3 && count > 10; n++, sent++) {
		uint32_t i = model_below(count);

		give_back(3, objects[i].p, false);
		objects[i] = objects[--count];
	}
	if (advice == MADV_DONTNEED && count > 10 && model_one_in(4)) {
		const struct qy_slab *s = qy_slab_of(objects[model_below(count)].p);

		for (uint32_t i = count; i-- > 0;)
			if (qy_slab_of(objects[i].p) == s) {
				give_back(3, objects[i].p, false);
				objects[i] = objects[--count];
			}
	}
	receive_all();
	return inner->madvise(addr, len, advice);
}

Test(sparse, what_is_freed_meanwhile_goes_home, .timeout = 60)
{
	begin("sparse");
	inner = qy_os;
	wrapped = *qy_os;
	wrapped.madvise = madvise_and_free;
	qy_os = &wrapped;
	for (int n = 0; n < 20; n++) {
		count = 0;
		fill(20 + (unsigned)n, 3);
		thin_out(30);
		abandon(0);
		purge();
		check_all();
		check_objects();
		/* Nothing was lost: what was freed meanwhile is free, and what lives is all that is left. */
		purge();
		check_all();
		while (count > 0)
			give_back(1, objects[--count].p, false);
	}
	cr_assert_gt(sent, 100);
	qy_os = inner;
}

/* ---- with little time ---- */

static uint64_t clock_ns;

/* Each look at it takes a millisecond. */
static uint64_t tick(void)
{
	return clock_ns += 1000000;
}

static void begin_slow(uint32_t slabs, uint32_t percent)
{
	unsigned cls = 0;

	while (qy_classes[cls].capacity > 32)
		cls++;
	begin("sparse");
	fake_os_clock(1000000);
	inner = qy_os;
	wrapped = *qy_os;
	wrapped.now_ns = tick;
	qy_os = &wrapped;
	count = 0;
	fill(cls, slabs);
	thin_out(percent);
	abandon(0);
	cr_assert_geq(qy_read(&m->orphans.slabs), slabs / 2);
}

/* With time for one batch; returns how many slabs were touched. */
static uint32_t short_pass(long decay_ms, uint64_t *next)
{
	unsigned long before = fake_os_advised(MADV_DONTNEED);

	qy_manager_purge_in_time(m, qy_os->now_ms(), decay_ms, (size_t)64 << 20, clock_ns + 1, next);
	return (uint32_t)(fake_os_advised(MADV_DONTNEED) - before);
}

/* What has no time left stops, and the next one goes on there. */
Test(sparse, a_pass_without_time_is_cut_and_goes_on, .timeout = 60)
{
	uint32_t pass, parts = 0, calls;
	uint64_t next, now;

	begin_slow(600, 30);
	pass = m->sparse.pass;
	do {
		now = qy_os->now_ms();
		calls = short_pass(0, &next);
		cr_assert_leq(calls, 32 * 32, "32 slabs, of so many pieces at most: %u", calls);
		cr_assert_lt(++parts, 100, "it gets nowhere");
		cr_assert_leq(next, now + 100);
		cr_assert_eq(m->sparse.pass, pass + 1, "it is one pass");
		fake_os_advance(10);
	} while (m->sparse.goes_on != QY_SPARSE_WHOLE);
	cr_assert_gt(parts, 8, "%u", parts);
	cr_assert_eq(resident(), live_pages());
	check_all();
	check_objects();
	qy_os = inner;
}

/* In time too: a first pass, in parts, that finds them changed; a second, in parts, that gives back; and an end. */
Test(sparse, in_parts_it_comes_to_an_end, .timeout = 60)
{
	uint32_t pass, parts = 0;
	uint64_t next;

	begin_slow(600, 30);
	pass = m->sparse.pass;
	for (; atomic_load(&m->decay.sparse_due) != UINT64_MAX; parts++) {
		cr_assert_lt(parts, 200, "it never ends");
		short_pass(1000, &next);
		if (m->sparse.goes_on != QY_SPARSE_WHOLE)
			cr_assert_leq(atomic_load(&m->decay.sparse_due), qy_os->now_ms() + 10, "the rest is due soon");
		fake_os_advance(20); /* as a loop does that is told "now" */
	}
	cr_assert_gt(parts, 10, "%u", parts);
	cr_assert_leq(m->sparse.pass - pass, 4, "passes: %u", m->sparse.pass - pass);
	cr_assert_eq(resident(), live_pages());
	check_all();
	qy_os = inner;
}

static void thin_by_half(void)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++)
		if (i % 2 != 0)
			objects[kept++] = objects[i];
		else
			give_back(2, objects[i].p, false);
	count = kept;
}

/* Who has the time looks at all, be it that half of it was looked at before, or changed since. */
Test(sparse, at_once_is_all_of_it, .timeout = 60)
{
	uint64_t next;

	begin_slow(600, 90);
	short_pass(1000, &next);
	cr_assert_eq(m->sparse.goes_on, QY_SPARSE_CUT);
	purge();
	cr_assert_eq(m->sparse.goes_on, QY_SPARSE_WHOLE);
	cr_assert_eq(resident(), live_pages());
	thin_by_half();
	short_pass(0, &next);
	cr_assert_eq(m->sparse.goes_on, QY_SPARSE_CUT_AT_ONCE);
	thin_by_half();
	purge();
	cr_assert_eq(resident(), live_pages());
	check_all();
	check_objects();
	qy_os = inner;
}

/* Slabs that take all the time, and give nothing, do not keep what is free in memory. */
Test(sparse, free_memory_goes_back_beside_a_pass_that_is_cut, .timeout = 60)
{
	size_t page = (size_t)1 << QY_PAGE_SHIFT;
	uint64_t next;
	bool zero;
	void *block;

	begin_slow(600, 90);
	purge();
	cr_assert_eq(qy_read(&m->dirty_pages), 0);
	block = qy_large_alloc(m, 1000 * page, page, &zero);
	memset(block, 1, 1000 * page);
	qy_large_free(block);
	cr_assert_geq(qy_read(&m->dirty_pages), 1000);
	thin_by_half();
	atomic_store(&m->decay.sparse_due, 0);
	for (int parts = 0; qy_read(&m->dirty_pages) > 0; parts++) {
		cr_assert_lt(parts, 4, "%zu pages stay", (size_t)qy_read(&m->dirty_pages));
		fake_os_advance(1000);
		short_pass(1000, &next);
	}
	qy_os = inner;
}

/* What is left of a pass that was cut may end with the last slab. */
Test(sparse, a_pass_ends_when_no_slab_is_left, .timeout = 60)
{
	uint64_t next;

	begin_slow(600, 90);
	short_pass(1000, &next);
	cr_assert_eq(m->sparse.goes_on, QY_SPARSE_CUT);
	while (count > 0)
		give_back(2, objects[--count].p, false);
	receive_all();
	cr_assert_eq(qy_read(&m->orphans.slabs), 0);
	atomic_store(&m->decay.sparse_due, 0);
	fake_os_advance(1000);
	short_pass(1000, &next);
	cr_assert_eq(m->sparse.goes_on, QY_SPARSE_WHOLE);
	check_all();
	qy_os = inner;
}

/* Slabs that come while a pass is in parts are not forgotten. */
Test(sparse, who_comes_between_parts_has_his_turn, .timeout = 60)
{
	uint64_t next;

	begin_slow(600, 30);
	short_pass(1000, &next);
	cr_assert_eq(m->sparse.goes_on, QY_SPARSE_CUT);
	/* Of a class that the pass is past. */
	fill(5, 3);
	for (uint32_t i = count; i-- > 0;)
		if (objects[i].cls == 5 && i % 50 != 0) {
			give_back(0, objects[i].p, false);
			objects[i] = objects[--count];
		}
	abandon(0);
	cr_assert_eq(atomic_load(&m->decay.sparse_due), 0);
	for (uint32_t parts = 0; atomic_load(&m->decay.sparse_due) != UINT64_MAX; parts++) {
		cr_assert_lt(parts, 300, "it never ends");
		short_pass(1000, &next);
		fake_os_advance(20); /* as a loop does that is told "now" */
	}
	cr_assert_eq(resident(), live_pages());
	check_all();
	qy_os = inner;
}

/* ---- shedding ---- */

static uint32_t queued(const struct qy_heap *h)
{
	uint32_t n = 0;

	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		for (struct qy_slab *s = h->queue[cls].first; s != NULL; s = qy_slab_numbered(s->next))
			n++;
	return n;
}

static void shed_round(void)
{
	uint32_t steps = 0;

	while (!qy_heap_shed(&heaps[0], 7))
		cr_assert_lt(++steps, 10000);
}

Test(sparse, a_busy_thread_gives_up_what_it_left_alone)
{
	uint32_t had;

	begin("sparse");
	fill(30, 40);
	thin_out(40);
	had = queued(&heaps[0]);
	cr_assert_gt(had, 20);
	shed_round();
	cr_assert_eq(queued(&heaps[0]), had, "seen for the first time");
	/* One slab changes. */
	for (uint32_t i = 0; i < count; i++)
		if (qy_slab_of(objects[i].p)->state == QY_SLAB_QUEUED) {
			give_back(0, objects[i].p, false);
			objects[i] = objects[--count];
			break;
		}
	shed_round();
	shed_round();
	check_all();
	cr_assert_leq(queued(&heaps[0]), 1, "%u", queued(&heaps[0]));
	cr_assert_geq(qy_read(&m->orphans.slabs), had - 1);
	purge();
	cr_assert_leq(resident(), live_pages() + 16 * 4, "but for the slabs that are still held");
	check_all();
	check_objects();
}

static void pass_in_time(void)
{
	uint64_t next;

	fake_os_advance(1000);
	qy_manager_purge(m, qy_os->now_ms(), 1000, SIZE_MAX, &next);
}

/* Threads take a slab of those that nobody holds, and let go of it, again and again: the last one that was, and with
 * its pages. When they do so no more, those go back like all others. */
Test(sparse, what_is_taken_and_let_go_keeps_its_pages)
{
	struct qy_slab *s, *again;
	size_t before;

	begin("sparse");
	fill(30, 40);
	thin_out(20);
	abandon(0);
	s = qy_slab_of(take(1, 30));
	cr_assert_eq(s, qy_slab_of(lists[1][30]));
	abandon(1);
	for (int n = 0; n < 5; n++) {
		pass_in_time();
		cr_assert_eq(qy_slab_gone(s), 0, "it was taken lately");
		again = qy_slab_of(take(1, 30));
		cr_assert_eq(again, s, "the last one");
		abandon(1);
	}
	cr_assert_leq(resident(), live_pages() + 16, "the others' pages went back");
	before = resident();
	for (int n = 0; n < 8; n++)
		pass_in_time();
	cr_assert_lt(resident(), before);
	cr_assert_neq(qy_slab_gone(s), 0);
	check_all();
	check_objects();
}
