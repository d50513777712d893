/* SPDX-License-Identifier: MIT */
/* Slabs in whose gaps objects of other classes stand: when that comes, that nothing overlaps, how large an object is,
 * what is freed meanwhile, which pages go back, and that all of it ends. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/mman.h>

#include "lib/manager/mistakes.h"
#include "tests/unit/objects_model.h"

static uint64_t mixed_slabs(void)
{
	return m->mixed == NULL ? 0 : qy_read(&m->mixed->slabs);
}

/* Slabs of a class of which so many percent survive, which nobody holds, and which were looked at. */
static void desert(unsigned cls, uint32_t slabs, uint32_t percent)
{
	fill(cls, slabs);
	thin_out(percent);
	abandon(0);
	purge();
}

static void add(unsigned heap, unsigned cls)
{
	objects[count] = (struct object){ .p = take(heap, cls), .cls = cls };
	write_object(&objects[count++]);
}

static void drop(unsigned heap, uint32_t i)
{
	check_object(&objects[i]);
	give_back(heap, objects[i].p, false);
	objects[i] = objects[--count];
}

static void drop_all(void)
{
	while (count > 0)
		drop(1, count - 1);
	for (unsigned i = 0; i < HEAPS; i++)
		abandon(i);
	purge();
	check_all();
	cr_assert_eq(mixed_slabs(), 0);
	cr_assert_eq(qy_read(&m->used), 0);
	cr_assert_eq(resident(), 0);
}

Test(mixed, gaps_serve_other_classes)
{
	uint64_t used;
	uint32_t n = 0;

	begin("mixed");
	desert(6, 24, 10);
	used = qy_read(&m->used);
	while (qy_read(&m->used) == used) {
		add(1, 17); /* 320 bytes in gaps of 112 and more */
		n++;
	}
	cr_assert_eq(mixed_slabs(), 24);
	/* Of nine tenths that are free, what is left over of gaps, and gaps that are too narrow: a third at most. */
	cr_assert_gt((uint64_t)n * 320 * 3 / 2, 24 * (uint64_t)QY_UNIT * 9 / 10);
	check_all();
	check_objects();
	drop_all();
}

/* A thread that goes on with other sizes uses what it freed itself, without a moment's rest in between. */
Test(mixed, gaps_of_slabs_that_the_thread_has_itself)
{
	uint64_t used, fresh;

	begin("mixed");
	fill(20, 100);
	thin_out(10);
	used = qy_read(&m->used);
	for (int i = 0; i < 6000; i++)
		add(0, 17); /* thirty slabs' worth */
	fresh = qy_read(&m->used) - used;
	check_all();
	check_objects();
	cr_assert_gt(mixed_slabs(), 20);
	cr_assert_leq(fresh, 8 * QY_UNIT, "%" PRIu64 " fresh slabs", fresh / QY_UNIT);
	drop_all();
}

/* But a class in which little is free keeps what it has. */
Test(mixed, none_of_slabs_that_are_in_use)
{
	begin("mixed");
	fill(20, 100);
	thin_out(70);
	for (int i = 0; i < 6000; i++)
		add(0, 17);
	cr_assert_eq(mixed_slabs(), 0);
	cr_assert_eq(qy_read(&m->orphans.slabs), 0);
	check_all();
	drop_all();
}

Test(mixed, not_where_few_slabs_are_deserted_or_much_lives)
{
	begin("mixed");
	desert(6, 12, 10);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	cr_assert_eq(mixed_slabs(), 0, "a few slabs are not worth it");
	drop_all();
	desert(6, 24, 70);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	cr_assert_eq(mixed_slabs(), 0, "most of each lives");
	drop_all();
}

Test(mixed, not_while_there_is_free_memory_in_memory)
{
	uint64_t mixed;
	uint32_t few;

	begin("mixed");
	desert(6, 24, 10);
	few = count;
	for (unsigned n = 0; n < 200; n++)
		add(1, qy_class_of(8192));
	while (count > few)
		drop(1, count - 1);
	abandon(1);
	cr_assert_gt(qy_read(&m->dirty_pages), 300);
	mixed = mixed_slabs();
	for (int i = 0; i < 300; i++)
		add(1, 17);
	cr_assert_eq(mixed_slabs(), mixed);
	drop_all();
}

/* Memory that slabs would not have anyway: what a buffer leaves that is freed and allocated again and again. */
Test(mixed, beside_free_memory_where_no_slabs_go)
{
	size_t page = (size_t)1 << QY_PAGE_SHIFT;
	uint64_t used, mixed;
	bool zero;
	void *buffer, *stays;

	begin("mixed");
	desert(6, 24, 10);
	buffer = qy_large_alloc(m, 100 * page, page, &zero);
	stays = qy_large_alloc(m, 100 * page, page, &zero);
	memset(buffer, 1, 100 * page);
	qy_large_free(buffer);
	cr_assert_geq(qy_read(&m->dirty_pages), 100);
	used = qy_read(&m->used);
	mixed = mixed_slabs();
	for (int i = 0; i < 300; i++)
		add(1, 17);
	cr_assert_eq(qy_read(&m->used), used);
	cr_assert_gt(mixed_slabs(), mixed);
	cr_assert_geq(qy_read(&m->dirty_pages), 100);
	qy_large_free(stays);
	drop_all();
}

/* All classes into gaps of all others: what check_list_of says of size and alignment, and no object over another. */
Test(mixed, every_class, .timeout = 120)
{
	begin("mixed");
	for (unsigned of = 3; qy_classes[of].units == 1; of += 4) {
		count = 0;
		desert(of, of < 40 ? 17 : 40, 8);
		for (unsigned cls = 0; cls < QY_CLASSES; cls++)
			for (int n = 0; n < 20; n++)
				add(1 + model_below(2), cls);
		check_all();
		check_objects();
		drop_all();
	}
}

Test(mixed, what_is_freed_twice_is_known)
{
	uint64_t mistakes;
	char *p = NULL;

	begin("mixed");
	desert(6, 24, 10);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	for (uint32_t i = 0; i < count && p == NULL; i++)
		if (is_in_gap(objects[i].p) && objects[i].cls == 17) {
			p = objects[i].p;
			drop(2, i);
		}
	cr_assert_not_null(p);
	qy_lock(&m->lock);
	qy_manager_receive(m);
	mistakes = qy_mistake_count();
	qy_heap_send(&m->mixed->heap, p, p);
	qy_manager_receive(m);
	cr_assert_eq(qy_mistake_count(), mistakes + 1, "twice");
	for (uint32_t i = 0; i < count; i++)
		if (is_in_gap(objects[i].p) && objects[i].cls == 17) {
			void *within = objects[i].p + 112;

			qy_heap_send(&m->mixed->heap, within, within);
			qy_manager_receive(m);
			*(uint64_t *)within = objects[i].mark;
			break;
		}
	cr_assert_eq(qy_mistake_count(), mistakes + 2, "a grain in the middle of an object");
	qy_unlock(&m->lock);
	check_all();
	check_objects();
	drop_all();
}

Test(mixed, pages_go_back_and_come_again)
{
	size_t before;

	begin("mixed");
	desert(20, 24, 4);
	for (int i = 0; i < 1500; i++)
		add(1, 28);
	cr_assert_gt(mixed_slabs(), 8);
	before = resident();
	thin_out(10);
	flush(1);
	abandon(1);
	purge();
	check_all();
	check_objects();
	cr_assert_lt(resident(), before);
	cr_assert_leq(resident(), live_pages() + 8, "%zu and %zu", resident(), live_pages());
	/* Parked slots are used again before clean memory. */
	before = qy_read(&m->used);
	while (qy_read(&m->used) == before)
		add(1, 28);
	check_all();
	check_objects();
	drop_all();
}

/* What was never touched does not go back, nor does what has not been touched since it went: what is counted as given
 * back was in memory. */
Test(mixed, what_is_not_in_memory_does_not_go_back)
{
	uint64_t counted;
	uint32_t few;
	size_t before;

	begin("mixed");
	/* Slabs with one page that was ever used; no object of theirs stands in two. */
	for (unsigned i = 0; i < HEAPS; i++)
		for (unsigned cls = 7; cls < 48; cls += 8)
			add(i, cls);
	few = count;
	for (unsigned i = 0; i < HEAPS; i++)
		abandon(i);
	for (int i = 0; i < 20; i++)
		add(1, 22); /* 480 bytes in gaps of 512 and more */
	cr_assert_gt(mixed_slabs(), 0);
	for (int round = 0; round < 3; round++) {
		while (count > few)
			drop(1, count - 1);
		abandon(1);
		receive_all();
		before = resident();
		counted = qy_read(&m->purged);
		purge();
		cr_assert_eq(qy_read(&m->purged) - counted, (before - resident()) << QY_PAGE_SHIFT,
			     "round %d: %" PRIu64 " bytes, and %zu pages", round, qy_read(&m->purged) - counted,
			     before - resident());
		cr_assert_eq(resident(), live_pages());
		check_all();
		for (int i = 0; i < 3; i++)
			add(1, 22);
	}
	check_objects();
	drop_all();
}

/* Behind the last object of a slab there may be pages from before. */
Test(mixed, pages_behind_the_last_object_go_too)
{
	unsigned cls = 3;
	uint32_t kept = 0;

	while (qy_classes[cls].capacity * qy_classes[cls].size > QY_UNIT - QY_PAGE)
		cls++;
	begin("mixed");
	/* Memory that was used to its end, and is there. */
	fill(7, 24);
	thin_out(0);
	abandon(0);
	cr_assert_geq(qy_read(&m->dirty_pages), 24 * (QY_UNIT >> QY_PAGE_SHIFT));
	fill(cls, 24);
	cr_assert_lt(qy_read(&m->dirty_pages), QY_UNIT >> QY_PAGE_SHIFT);
	for (uint32_t i = 0; i < count; i++)
		if (i == 0 || qy_slab_of(objects[i].p) != qy_slab_of(objects[kept - 1].p))
			objects[kept++] = objects[i];
		else
			give_back(0, objects[i].p, false);
	count = kept;
	abandon(0);
	for (int i = 0; i < 200; i++)
		add(1, cls - 3);
	cr_assert_gt(mixed_slabs(), 8);
	while (count > kept)
		drop(1, count - 1);
	abandon(1);
	purge();
	cr_assert_eq(resident(), live_pages(), "%zu and %zu", resident(), live_pages());
	check_all();
	check_objects();
	drop_all();
}

/* What the kernel would not take is asked for again when there is more. */
Test(mixed, what_was_refused_goes_later)
{
	size_t before;

	begin("mixed");
	desert(20, 24, 4);
	for (int i = 0; i < 1500; i++)
		add(1, 28);
	thin_out(10);
	flush(1);
	abandon(1);
	before = resident();
	fake_os_fail_advice(MADV_DONTNEED, EINVAL);
	purge();
	fake_os_heal();
	cr_assert_eq(resident(), before);
	check_all();
	/* One of each slab. */
	for (uint32_t i = count; i-- > 0;) {
		const struct qy_slab *s = qy_slab_of(objects[i].p);
		uint32_t before_it = 0;

		while (before_it < i && qy_slab_of(objects[before_it].p) != s)
			before_it++;
		if (before_it == i)
			drop(2, i);
	}
	purge();
	cr_assert_gt(mixed_slabs(), 16);
	cr_assert_leq(resident(), live_pages() + qy_read(&m->orphans.slabs) * (QY_UNIT >> QY_PAGE_SHIFT), "%zu and %zu",
		      resident(), live_pages());
	check_all();
	check_objects();
	drop_all();
}

/* ---- by chance ---- */

static const struct qy_os *inner;
static struct qy_os wrapped;

static int madvise_and_free(void *addr, size_t len, int advice)
{
	for (int n = 0; advice == MADV_DONTNEED && n < 1 && count > 10; n++)
		drop(3, model_below(count));
	if (advice == MADV_DONTNEED && count > 10 && model_one_in(64)) {
		const struct qy_slab *s = qy_slab_of(objects[model_below(count)].p);

		for (uint32_t i = count; i-- > 0;)
			if (qy_slab_of(objects[i].p) == s)
				drop(3, i);
	}
	receive_all();
	return inner->madvise(addr, len, advice);
}

static unsigned any_class(void)
{
	return model_one_in(8) ? model_below(QY_CLASSES) : model_below(30);
}

Test(mixed, by_chance, .timeout = 300)
{
	uint64_t most = 0, next;

	begin("mixed");
	inner = qy_os;
	wrapped = *qy_os;
	wrapped.madvise = madvise_and_free;
	qy_os = &wrapped;
	for (int round = 0; round < 60; round++) {
		uint32_t to = OBJECTS / 2 + model_below(OBJECTS / 2), keep = 1 + model_below(20);
		unsigned from = model_below(28), classes = 1 + model_below(4);

		while (count < to)
			add(model_below(3), model_one_in(20) ? any_class() : from + model_below(classes));
		for (uint32_t i = count; i-- > 0;)
			if (model_below(100) >= keep)
				drop(model_below(3), i);
		for (unsigned i = 0; i < 3; i++)
			if (!model_one_in(4))
				abandon(i);
		check_all();
		check_objects();
		fake_os_advance(400);
		qy_manager_purge(m, qy_os->now_ms(), model_one_in(4) ? 1000 : 0, SIZE_MAX, &next);
		check_all();
		most = qy_max(most, mixed_slabs());
	}
	check_objects();
	cr_assert_gt(most, 8, "%" PRIu64 " mixed slabs at most", most);
	qy_os = inner;
	drop_all();
}

Test(mixed, a_reset_forgets_all)
{
	begin("mixed");
	desert(6, 24, 10);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	cr_assert_gt(mixed_slabs(), 0);
	count = 0;
	memset(lists, 0, sizeof(lists));
	for (unsigned i = 0; i < HEAPS; i++) {
		memset((void *)&heaps[i], 0, sizeof(heaps[i]));
		qy_heap_open(&heaps[i], m, (uintptr_t)&heaps[i]);
	}
	memset((void *)places, 0, sizeof(places));
	qy_manager_reset(m);
	cr_assert_eq(mixed_slabs(), 0);
	check_all();
	desert(6, 24, 10);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	cr_assert_gt(mixed_slabs(), 0, "and begins anew");
	check_all();
	check_objects();
	drop_all();
}

/* ---- many ---- */

#define MANY_SLABS 1200
#define MANY 400000

static char *many[MANY];

static void make_many(void)
{
	uint32_t total = MANY_SLABS * qy_classes[20].capacity, n = 0;
	uint64_t used;

	for (uint32_t i = 0; i < total; i++)
		many[i] = take(0, 20);
	for (uint32_t i = 0; i < total; i++)
		if (i % 40 != 0)
			give_back(0, many[i], false);
	abandon(0);
	purge();
	used = qy_read(&m->used);
	while (qy_read(&m->used) == used && n < MANY)
		many[n++] = take(1, 28);
	for (uint32_t i = n; i < MANY; i++)
		many[i] = NULL;
	cr_assert_gt(mixed_slabs(), MANY_SLABS * 9 / 10);
}

static uint32_t frame_number(const void *p)
{
	return (uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT);
}

static void pass_until_rest(void)
{
	uint64_t next = qy_os->now_ms();

	for (int passes = 0; next != UINT64_MAX && passes < 400; passes++) {
		fake_os_advance(next > qy_os->now_ms() ? next - qy_os->now_ms() : 0);
		qy_manager_purge(m, qy_os->now_ms(), 1000, SIZE_MAX, &next);
	}
	cr_assert_eq(next, UINT64_MAX);
}

/* More than one look's worth of slabs in huge pages that are too dense to be broken stands before those that can go. */
Test(mixed, dense_huge_pages_do_not_hold_up_others, .timeout = 120)
{
	static struct qy_slab *last;
	uint32_t lowest = UINT32_MAX, highest = 0, middle;
	size_t at_rest;

	begin("mixed");
	make_many();
	for (uint32_t i = 0; i < MANY && many[i] != NULL; i++) {
		uint32_t f = frame_number(many[i]);

		lowest = (uint32_t)qy_min(lowest, f);
		highest = (uint32_t)qy_max(highest, f);
		atomic_store(&qy_pages_of_frame(f)->state, QY_PAGES_HUGE);
	}
	middle = (lowest + highest) / 2;
	for (uint32_t i = 0; i < MANY && many[i] != NULL; i++)
		if (frame_number(many[i]) < middle && qy_slab_of(many[i]) != last) {
			last = qy_slab_of(many[i]);
			give_back(2, many[i], false);
			many[i] = many[0];
		}
	pass_until_rest();
	for (uint32_t i = 0; i < MANY && many[i] != NULL; i++)
		if (frame_number(many[i]) >= middle)
			give_back(2, many[i], false);
	abandon(2);
	pass_until_rest();
	at_rest = resident();
	for (int i = 0; i < 30; i++) {
		fake_os_advance(1000);
		m->decay.sparse_due = 0;
		pass_until_rest();
	}
	cr_assert_leq(at_rest, resident() + 64, "%zu pages at rest, and %zu when asked again and again", at_rest, resident());
}

static uint64_t clock_ns;

/* Each look at it takes a millisecond. */
static uint64_t tick(void)
{
	return clock_ns += 1000000;
}

/* With time for one batch: the rest goes on before long, and in the end all is back. */
Test(mixed, a_pass_without_time_is_cut_and_goes_on, .timeout = 60)
{
	struct qy_os slow = *qy_os;
	unsigned parts = 0, cut = 0;
	uint64_t next;

	begin("mixed");
	desert(qy_class_of(1024), 300, 10);
	for (int i = 0; i < 5000; i++)
		add(1, qy_class_of(2048));
	cr_assert_gt(mixed_slabs(), 100);
	for (uint32_t i = count; i-- > 0;)
		if (objects[i].cls == qy_class_of(2048))
			drop(2, i);
	abandon(2);
	receive_all();
	inner = qy_os;
	slow.now_ns = tick;
	qy_os = &slow;
	for (; parts < 200 && atomic_load(&m->decay.sparse_due) != UINT64_MAX; parts++) {
		unsigned long before = fake_os_advised(MADV_DONTNEED);

		qy_manager_purge_in_time(m, qy_os->now_ms(), 1000, (size_t)64 << 20, clock_ns + 1, &next);
		cut += m->sparse.mixed_cut;
		if (m->sparse.mixed_cut)
			cr_assert(next <= qy_os->now_ms() + 10 && atomic_load(&m->decay.sparse_due) <= qy_os->now_ms() + 10);
		cr_assert_leq(fake_os_advised(MADV_DONTNEED) - before, 2 * 32 * 16, "one batch of each kind");
		fake_os_advance(m->sparse.mixed_cut ? 10 : 1000);
	}
	cr_assert_lt(parts, 200, "it gets nowhere");
	cr_assert_gt(cut, 3, "%u of %u parts", cut, parts);
	qy_os = inner;
	check_all();
}

/* What is gathered on its way home counts as what it is, and not as what its slab's class says: no more than was meant
 * to be is held back. */
Test(mixed, no_more_is_held_back_than_elsewhere)
{
	struct qy_outgoing *out = NULL;
	struct qy_thread *t;
	size_t held = 0, most = 0, size, now;
	uint32_t n = 0;

	begin("mixed");
	desert(6, 24, 10);
	for (int i = 0; i < 300; i++)
		add(1, 21); /* 448 bytes */
	t = qy_thread_enter();
	for (uint32_t i = count; i-- > 0;) {
		char *p = objects[i].p;

		if (!is_in_gap(p) || objects[i].cls != 21)
			continue;
		check_object(&objects[i]);
		atomic_store(place_of(p), PLACE_FREE);
		size = qy_mixed_size(qy_slab_of(p), p);
		qy_thread_gather(t, qy_slab_of(p), p);
		objects[i] = objects[--count];
		n++;
		for (int k = 0; k < QY_OUT_RINGS; k++)
			if (t->out[k].heap == &m->mixed->heap)
				out = &t->out[k];
		cr_assert_not_null(out);
		now = out->first == NULL ? 0 : QY_OUT_ROOM - (size_t)out->room;
		cr_assert(now == held + size || now == size || now == 0, "%zu and %zu are %zu", held, size, now);
		held = now;
		most = qy_max(most, held);
	}
	qy_thread_send(t);
	qy_thread_leave(t);
	cr_assert_gt(n, 100);
	cr_assert_gt(most, QY_OUT_ROOM / 2);
	cr_assert_leq(most, QY_OUT_ROOM, "%zu bytes were held back", most);
	drop_all();
}

static uint64_t remote_frees(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	receive_all();
	cr_assert_eq(quarry_stats_get(&qy_arenas[m->index], &stats), 0);
	return stats.remote_frees;
}

/* All of it goes home to another's slab; a reset undoes nothing of that, and the next arena begins with none. */
Test(mixed, what_goes_home_is_counted)
{
	uint64_t before, n = 0;

	begin("mixed");
	desert(6, 24, 10);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	before = remote_frees();
	for (uint32_t i = count; i-- > 0;)
		if (is_in_gap(objects[i].p)) {
			drop(2, i);
			n++;
		}
	cr_assert_gt(n, 300);
	cr_assert_eq(remote_frees(), before + n, "%" PRIu64 " and %" PRIu64, remote_frees(), before + n);
	for (unsigned i = 0; i < HEAPS; i++) {
		memset((void *)&heaps[i], 0, sizeof(heaps[i]));
		qy_heap_open(&heaps[i], m, 0);
	}
	atomic_store(&m->heaps, 0);
	qy_manager_reset(m);
	cr_assert_eq(remote_frees(), before + n);
	qy_manager_destroy(m);
	m = new_manager(0);
	cr_assert_not_null(m->mixed, "it is the same one");
	cr_assert_eq(remote_frees(), 0);
}

/* One of the largest class, which elsewhere stands in slabs of more than one unit. */
Test(mixed, a_large_object_stays_where_it_is)
{
	uint32_t kept = 0;
	char *p = NULL;

	begin("mixed");
	fill(52, 24);
	/* The last one of each slab survives. */
	for (uint32_t i = 0; i < count; i++) {
		if ((objects[i].p - qy_slab_memory(qy_slab_of(objects[i].p))) / 6656 == qy_classes[52].capacity - 1)
			objects[kept++] = objects[i];
		else
			give_back(0, objects[i].p, false);
	}
	count = kept;
	abandon(0);
	purge();
	for (int i = 0; i < 20 && p == NULL; i++) {
		add(1, 70);
		if (is_in_gap(objects[count - 1].p))
			p = objects[count - 1].p;
	}
	cr_assert_not_null(p, "one of 30720 bytes in a gap");
	cr_assert_eq(quarry_usable_size(p), 30720);
	cr_assert_eq(quarry_realloc(p, 30720), p);
	cr_assert_eq(quarry_realloc(p, 20000), p);
	check_objects();
	drop_all();
}

/* What was freed has no size; its neighbours' ends are not its own. */
Test(mixed, what_was_freed_has_no_size)
{
	void *freed[300];
	uint32_t n = 0;

	begin("mixed");
	desert(6, 24, 10);
	for (int i = 0; i < 300; i++)
		add(1, 17);
	for (uint32_t i = count; i-- > 0;)
		if (is_in_gap(objects[i].p) && objects[i].cls == 17) {
			cr_assert_eq(qy_mixed_size(qy_slab_of(objects[i].p), objects[i].p), size_of_class(17));
			for (size_t at = 0; at < size_of_class(17); at += 5)
				cr_assert_eq(qy_large_left((char *)objects[i].p + at), size_of_class(17) - at);
			freed[n++] = objects[i].p;
			drop(2, i);
		}
	cr_assert_gt(n, 100);
	receive_all();
	for (uint32_t i = 0; i < n; i++)
		if (qy_slab_of(freed[i]) != NULL && is_in_gap(freed[i]))
			cr_assert(qy_mixed_size(qy_slab_of(freed[i]), freed[i]) == 0 && qy_large_left(freed[i]) == 0);
	drop_all();
}
