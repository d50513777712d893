/* SPDX-License-Identifier: MIT */
/* What others send home: that it is filed in steps, each of it once, as fast as memory is taken, and all of it for
 * whoever would be refused; and what the program may have made of its links. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>

#include "lib/manager/limits.h"
#include "lib/manager/mistakes.h"
#include "tests/unit/objects_model.h"

#define SMALL 3   /* 64 bytes: 1024 to the slab */
#define OTHER 50
#define MANY 16384

static void shuffle(void)
{
	for (uint32_t i = count; i > 1; i--) {
		uint32_t j = model_below(i);
		struct object o = objects[i - 1];

		objects[i - 1] = objects[j];
		objects[j] = o;
	}
}

/* So many objects of heap 0 go home one by one, in an order in which hardly two neighbours are of one slab. */
static void send_shuffled(uint32_t n)
{
	shuffle();
	for (; n > 0; n--)
		give_back(1, objects[--count].p, false);
}

/* One step is worth a bound, whatever the order: a run in one unit may come on top. */
static uint32_t most_in(uint32_t steps)
{
	return steps * (QY_MAIL_STEP + 32);
}

static uint64_t filed(void)
{
	return qy_read(&m->orphans.remote_received);
}

static uint64_t tick_ns;

/* Each look at the clock takes a millisecond. */
static uint64_t tick(void)
{
	return tick_ns += 1000000;
}

static struct qy_os wrapped;

static void wrap_os(void)
{
	wrapped = *qy_os;
	qy_os = &wrapped;
}

/* ---- of slabs that nobody holds ---- */

static void begin_orphans(void)
{
	begin("mail");
	fill(SMALL, MANY / 1024);
	abandon(0);
	send_shuffled(MANY);
}

Test(mail, a_step_is_bounded_and_all_is_filed_once)
{
	uint32_t steps = 0;
	bool more = true;

	begin_orphans();
	while (more) {
		uint64_t before = filed();

		qy_lock(&m->lock);
		more = qy_manager_receive(m);
		cr_assert_eq(more, qy_heap_has_mail(&m->orphans));
		qy_unlock(&m->lock);
		cr_assert_leq(filed() - before, most_in(1), "step %u", steps);
		check_all();
		steps++;
	}
	cr_assert_geq(steps, MANY / most_in(1));
	cr_assert_eq(filed(), MANY);
	cr_assert_eq(qy_read(&m->used), 0);
}

/* A run in one unit is filed whole, and with one write. */
Test(mail, a_run_is_not_cut)
{
	char *p[1024];

	begin("mail");
	for (uint32_t i = 0; i < 1024; i++)
		p[i] = take(0, SMALL);
	abandon(0);
	for (uint32_t i = 0; i < 1024; i++)
		give_back(1, p[i], false);
	qy_lock(&m->lock);
	cr_assert_not(qy_manager_receive(m));
	qy_unlock(&m->lock);
	cr_assert_eq(filed(), 1024);
	check_all();
}

/* What comes while a list is being filed waits for its turn; no list is for ever. */
Test(mail, what_comes_meanwhile_is_filed_too)
{
	begin("mail");
	fill(SMALL, MANY / 1024);
	abandon(0);
	send_shuffled(MANY / 2);
	while (count > 0) {
		for (int i = 0; i < 100 && count > 0; i++)
			give_back(1, objects[--count].p, false);
		qy_lock(&m->lock);
		(void)qy_manager_receive(m);
		qy_unlock(&m->lock);
	}
	check_all();
	receive_all();
	check_all();
	cr_assert_eq(filed(), MANY);
	cr_assert_eq(qy_read(&m->used), 0);
}

/* Whoever gives a heap up and has no time: it gets on by a step each time, and is sound in between. */
Test(mail, a_heap_is_lightened_in_steps)
{
	unsigned steps = 0;

	begin("mail");
	fill(SMALL, MANY / 1024);
	fill(71, 200);
	flush(0);
	for (shuffle(); count > MANY / 2; count--)
		give_back(1, objects[count - 1].p, false);
	wrap_os();
	wrapped.now_ns = tick;
	for (bool done = false; !done; steps++) {
		uint64_t before = qy_read(&heaps[0].remote_received), held = qy_read(&heaps[0].slabs);

		done = qy_heap_lighten(&heaps[0], 1);
		check_all();
		cr_assert_leq(qy_read(&heaps[0].remote_received) - before, most_in(1));
		cr_assert_leq(held - qy_read(&heaps[0].slabs), 64);
		cr_assert_lt(steps, 1000);
	}
	cr_assert_geq(steps, 20);
	cr_assert_eq(qy_heap_has_mail(&heaps[0]), 0);
	abandon(0);
	check_all();
	check_objects();
	cr_assert_eq(qy_read(&heaps[0].slabs), 0);
}

/* Another thread that sends without end, as often as the clock is looked at. */
static uint64_t send_more(void)
{
	for (int i = 0; i < 2 * QY_MAIL_STEP && count > 0; i++)
		give_back(1, objects[--count].p, false);
	return ++tick_ns;
}

Test(mail, who_sends_without_end_holds_nobody_up)
{
	begin("mail");
	fill(SMALL, MANY / 1024);
	abandon(0);
	send_shuffled(500);
	wrap_os();
	wrapped.now_ns = send_more;
	cr_assert(qy_manager_receive_until(m, UINT64_MAX - 1));
	cr_assert_gt(count, MANY / 2, "it went on while there was something");
	cr_assert_geq(filed(), 500);
	check_all();
}

Test(mail, a_pass_with_little_time_is_cut_and_goes_on)
{
	uint32_t parts = 0, passes;
	uint64_t next;

	begin("mail");
	fill(SMALL, MANY / 1024);
	abandon(0);
	send_shuffled(MANY - 100);
	wrap_os();
	wrapped.now_ns = tick;
	passes = m->sparse.pass;
	do {
		uint64_t before = filed();

		qy_manager_purge_in_time(m, qy_os->now_ms(), 1000, (size_t)64 << 20, tick_ns + 1, &next);
		/* One step of the pass itself, and one of each look at slabs and at dirt. */
		cr_assert_leq(filed() - before, most_in(3), "part %u", parts);
		cr_assert_lt(++parts, 200, "it gets nowhere");
		if (m->sparse.goes_on != QY_SPARSE_WHOLE)
			cr_assert_leq(next, qy_os->now_ms() + 10, "the rest is due soon");
		check_all();
		fake_os_advance(20);
	} while (atomic_load(&m->decay.sparse_due) != UINT64_MAX);
	cr_assert_geq(parts, MANY / most_in(3));
	cr_assert_eq(filed(), MANY - 100);
	cr_assert_not(qy_heap_has_mail(&m->orphans));
	cr_assert_leq(m->sparse.pass - passes, 4, "passes: %u", m->sparse.pass - passes);
	cr_assert_eq(resident(), live_pages());
	check_objects();
}

Test(mail, a_pass_with_time_files_all)
{
	begin_orphans();
	purge();
	cr_assert_eq(filed(), MANY);
	cr_assert_eq(resident(), 0);
	cr_assert_eq(qy_read(&m->used), 0);
}

Test(mail, collecting_files_all)
{
	begin_orphans();
	qy_manager_collect(m);
	cr_assert_eq(filed(), MANY);
	cr_assert_eq(qy_read(&m->used), 0);
	check_all();
}

/* Who needs a slab files so much first, and takes memory then; and all that comes home serves again before much is. */
Test(mail, who_takes_a_slab_files_some)
{
	uint64_t used;

	begin_orphans();
	used = qy_read(&m->used);
	take(2, OTHER);
	cr_assert_leq(filed(), most_in(QY_MAIL_STEPS));
	cr_assert_geq(filed(), QY_MAIL_STEPS * QY_MAIL_STEP);
	cr_assert_eq(qy_read(&m->used), used + QY_UNIT);
	check_all();
}

Test(mail, it_is_filed_as_fast_as_memory_is_taken)
{
	uint64_t used;

	begin_orphans();
	used = qy_read(&m->used);
	for (uint32_t i = 0; i < MANY; i++)
		take(2, SMALL);
	/* (One slab for so many filed, at most.) */
	cr_assert_leq(qy_read(&m->used), used + MANY / (QY_MAIL_STEPS * QY_MAIL_STEP) * QY_UNIT, "%" PRIu64 " and %" PRIu64,
		      qy_read(&m->used), used);
	check_all();
}

/* Nobody is refused while there is mail: by a limit (which is not said to be hit), or by the kernel. */
Test(mail, at_a_limit_all_is_filed)
{
	begin_orphans();
	atomic_store(&m->hard_limit, qy_read(&m->used));
	take(2, OTHER);
	cr_assert_eq(filed(), MANY);
	cr_assert_eq(qy_limits_denied_by(), QY_DENIED_BY_NONE);
	check_all();
}

Test(mail, where_the_kernel_refuses_all_is_filed)
{
	uint32_t n = 0;
	void *list;
	bool zero;

	begin("mail");
	fill(SMALL, MANY / 1024);
	abandon(0);
	/* All that is mapped is taken. */
	fake_os_fail(FAKE_MMAP, ENOMEM);
	while (qy_heap_refill(&heaps[3], OTHER, &zero) != NULL)
		n++;
	cr_assert_gt(n, 0);
	send_shuffled(MANY);
	list = qy_heap_refill(&heaps[2], OTHER, &zero);
	cr_assert_not_null(list);
	cr_assert_eq(filed(), MANY);
}

Test(mail, a_reset_forgets_it)
{
	begin_orphans();
	qy_lock(&m->lock);
	cr_assert(qy_manager_receive(m));
	qy_unlock(&m->lock);
	memset((void *)places, 0, sizeof(places));
	qy_manager_reset(m);
	cr_assert_not(qy_heap_has_mail(&m->orphans));
	check_all();
	fill(SMALL, 4);
	check_all();
}

/* ---- of a thread's own slabs ---- */

Test(mail, a_refill_files_a_step_and_goes_on_with_what_it_has)
{
	uint64_t before;
	bool zero;

	begin("mail");
	fill(SMALL, MANY / 1024);
	take(0, OTHER);
	send_shuffled(MANY);
	/* There is a slab to be carved: of that class, nothing comes home. */
	before = qy_read(&heaps[0].remote_received);
	while (lists[0][OTHER] != NULL)
		take(0, OTHER);
	qy_heap_refill(&heaps[0], OTHER, &zero);
	cr_assert_leq(qy_read(&heaps[0].remote_received) - before, most_in(1));
	cr_assert(qy_heap_has_mail(&heaps[0]));
}

Test(mail, a_thread_has_its_own_back)
{
	uint64_t used;

	begin("mail");
	fill(SMALL, MANY / 1024);
	send_shuffled(MANY);
	used = qy_read(&m->used);
	for (uint32_t i = 0; i < MANY; i++) {
		uint64_t before = qy_read(&heaps[0].remote_received);

		take(0, SMALL);
		model_must(qy_read(&heaps[0].remote_received) - before <= most_in(QY_MAIL_STEPS), "object %u", i);
		if (i % 1024 == 0)
			check_all();
	}
	cr_assert_leq(qy_read(&m->used), used + MANY / (QY_MAIL_STEPS * QY_MAIL_STEP) * QY_UNIT, "%" PRIu64 " and %" PRIu64,
		      qy_read(&m->used), used);
	check_all();
}

/* Given up with mail that is half filed: none of it is lost. */
Test(mail, a_heap_given_up_files_all)
{
	begin("mail");
	fill(SMALL, MANY / 1024);
	send_shuffled(MANY / 2);
	qy_heap_receive_some(&heaps[0], 1000);
	cr_assert(qy_heap_has_mail(&heaps[0]));
	for (uint32_t i = 0; i < 1000; i++)
		give_back(1, objects[--count].p, false);
	abandon(0);
	check_all();
	while (count > 0)
		give_back(1, objects[--count].p, false);
	receive_all();
	check_all();
	cr_assert_eq(qy_read(&m->used), 0);
}

/* ---- of mixed slabs ---- */

/* Most of the objects stand in gaps. */
static void begin_mixed(void)
{
	uint64_t used;

	begin("mail");
	fill(6, 24);
	thin_out(10);
	abandon(0);
	purge();
	used = qy_read(&m->used);
	while (qy_read(&m->used) == used) {
		objects[count] = (struct object){ .p = take(1, 17), .cls = 17 };
		write_object(&objects[count++]);
	}
}

static uint64_t filed_mixed(void)
{
	return qy_read(&m->mixed->heap.remote_received);
}

Test(mail, mixed_slabs_have_it_in_steps_too)
{
	uint32_t steps = 0;
	uint64_t before;
	bool more = true;

	begin_mixed();
	shuffle();
	while (count > 0)
		give_back(2, objects[--count].p, false);
	check_all();
	for (; more; steps++) {
		before = filed_mixed();
		qy_lock(&m->lock);
		more = qy_manager_receive(m);
		qy_unlock(&m->lock);
		cr_assert_leq(filed_mixed() - before, QY_MAIL_STEP);
		check_all();
	}
	cr_assert_gt(steps, 8);
	abandon(1);
	purge();
	cr_assert_eq(qy_read(&m->used), 0);
}

/* ---- links that the program wrote over ---- */

/* Where no memory is: outside the window, and inside. */
static void *nowhere(unsigned i)
{
	switch (i) {
	case 0:
		return (void *)(uintptr_t)0x4141414141414141;
	case 1:
		return (void *)(uintptr_t)16;
	case 2:
		return qy_window_at(qy_window_size - QY_UNIT);
	default:
		return qy_window_at(qy_window_claimed() - QY_PAGE);
	}
}

static void send_broken(struct qy_heap *h, char *p, unsigned i)
{
	qy_heap_send(h, p, p);
	qy_link_object(p, nowhere(i));
}

Test(mail, a_link_that_was_written_over_is_a_mistake)
{
	begin("mail");
	for (unsigned i = 0; i < 4; i++) {
		uint64_t before = qy_mistake_count();
		char *p = take(0, SMALL);

		send_broken(&heaps[0], p, i);
		qy_heap_receive(&heaps[0]);
		cr_assert_eq(qy_mistake_count(), before + 1, "%u", i);
		cr_assert_not(qy_heap_has_mail(&heaps[0]));
		atomic_store(place_of(p), PLACE_FREE);
	}
	check_all();
}

Test(mail, and_so_it_is_in_mixed_slabs)
{
	begin_mixed();
	for (unsigned i = 0; i < 4; i++) {
		uint64_t before = qy_mistake_count();
		char *p;

		do
			p = objects[--count].p;
		while (!is_in_gap(p));
		atomic_store(place_of(p), PLACE_FREE);
		send_broken(&m->mixed->heap, p, i);
		receive_all();
		cr_assert_eq(qy_mistake_count(), before + 1, "%u", i);
	}
	check_all();
}

/* A heap that was given up sends on what comes late, object by object. */
Test(mail, and_where_it_is_sent_on)
{
	begin("mail");
	for (unsigned i = 0; i < 4; i++) {
		uint64_t before = qy_mistake_count();
		char *p = take(0, SMALL), *lost = take(0, SMALL);

		flush(0);
		qy_heap_abandon(&heaps[0]);
		atomic_store(place_of(p), PLACE_FREE);
		qy_link_object(p, nowhere(i));
		qy_heap_send(&heaps[0], p, lost);
		cr_assert_eq(qy_mistake_count(), before + 1, "%u", i);
		receive_all();
		memset((void *)&heaps[0], 0, offsetof(struct qy_heap, remote));
		qy_heap_open(&heaps[0], m, (uintptr_t)&heaps[0]);
		check_all();
	}
}

/* In memory, and no object: what is behind it is not lost. */
Test(mail, what_is_behind_no_object_is_filed)
{
	uint64_t before = qy_mistake_count();
	char *p, *q, *none;

	begin("mail");
	p = take(0, SMALL);
	q = take(0, SMALL);
	none = (char *)take(0, OTHER) + 64;
	qy_link_object(p, none);
	qy_link_object(none, q);
	qy_link_object(q, NULL);
	atomic_store(&heaps[0].remote, p);
	atomic_store(place_of(p), PLACE_FREE);
	atomic_store(place_of(q), PLACE_FREE);
	qy_heap_receive(&heaps[0]);
	cr_assert_eq(qy_read(&heaps[0].remote_received), 3);
	cr_assert_eq(qy_mistake_count(), before + 1);
	check_all();
}
