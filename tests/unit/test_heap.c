/* SPDX-License-Identifier: MIT */
/* Heaps: who has which object, against a table with one entry for every place where an object can be; one thread
 * playing several, threads in earnest, and the program's mistakes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "lib/manager/mistakes.h"
#include "tests/unit/heap_model.h"

#define OBJECTS 12000

/* ---- one thread plays all ---- */

static struct object {
	void *p;
	uint64_t mark;
} objects[OBJECTS];

static void mark_object(struct object *o, unsigned cls)
{
	uint64_t *words = o->p;

	o->mark = model_random();
	for (uint32_t w = 0; w < size_of_class(cls) / 8; w++)
		words[w] = o->mark;
}

static void check_object(const struct object *o)
{
	const uint64_t *words = o->p;
	size_t size = qy_object_size(qy_slab_of(o->p), o->p);

	for (uint32_t w = 0; w < size / 8; w++)
		model_must(words[w] == o->mark, "word %u of %p", w, o->p);
}

static void abandon(unsigned i)
{
	flush(i);
	qy_heap_abandon(&heaps[i]);
	model_must(atomic_load(&heaps[i].remote) == QY_REMOTE_CLOSED, "closed");
	model_must(qy_read(&heaps[i].slabs) == 0 && heaps[i].spares == 0, "nothing is left in it");
	memset((void *)&heaps[i], 0, offsetof(struct qy_heap, remote));
	qy_heap_open(&heaps[i], m, (uintptr_t)&heaps[i]);
}

/* Small classes more often: it takes many of their objects to fill a slab. Few classes, so that they are met again. */
static unsigned random_class(void)
{
	static const uint8_t some[] = { 0, 1, 3, 7, 12, 20, 30, 40, 46, 55, 60, 71 };

	return some[model_below(model_below(3) ? 6 : 12)];
}

static void step_others(unsigned i)
{
	uint64_t next;

	switch (model_below(40)) {
	case 0:
		abandon(i);
		break;
	case 1:
	case 2:
		flush(i);
		qy_heap_tidy(&heaps[i]);
		break;
	case 3:
		qy_heap_trim(&heaps[i]);
		break;
	case 4:
		fake_os_advance(100);
		qy_manager_purge(m, qy_os->now_ms(), model_below(2) ? 0 : 300, SIZE_MAX, &next);
		break;
	default:
		qy_heap_receive(&heaps[i]);
	}
}

Test(heap, random_steps_against_a_model, .timeout = 240)
{
	begin("heap");
	for (uint32_t n = 0; n < 5000000; n++) {
		uint32_t wave = n >> 17 & 1 ? OBJECTS : OBJECTS / 6;
		struct object *o = &objects[model_below(wave)];
		unsigned i = model_below(HEAPS), cls = random_class();

		if (model_one_in(500)) {
			step_others(i);
		} else if (o->p == NULL) {
			o->p = take(i, cls);
			mark_object(o, cls);
		} else {
			check_object(o);
			give_back(model_one_in(3) ? model_below(HEAPS) : (unsigned)(o - objects) % HEAPS, o->p,
				  model_below(2));
			o->p = NULL;
		}
		if (n % 50000 == 0)
			check_all();
	}
	for (uint32_t k = 0; k < OBJECTS; k++)
		if (objects[k].p != NULL)
			give_back(0, objects[k].p, false);
	check_all();
	for (unsigned i = 0; i < HEAPS; i++)
		abandon(i);
	receive_all();
	check_all();
	cr_assert_eq(qy_read(&m->used), 0, "every slab went back");
}

/* Every object of a slab, once each; then the slab is full, and the next one begins. */
Test(heap, a_slab_gives_each_of_its_objects_once)
{
	begin("heap");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		struct qy_slab *s = qy_slab_of(take(0, cls));
		uint32_t n = 1;

		while (qy_slab_of(take(0, cls)) == s)
			n++;
		model_must(n == qy_classes[cls].capacity, "class %u: %u objects", cls, n);
		model_must(s->state == QY_SLAB_FULL && s->countdown == 1, "class %u", cls);
	}
	check_all();
}

/* ---- the order of slabs ---- */

#define CLS 40 /* 2304 bytes: 28 to the slab */

static void *slab_objects[6][64];
static uint32_t per_slab;

/* Fill count slabs of heap 0, and begin one more. */
static void fill_slabs(unsigned count)
{
	per_slab = qy_classes[CLS].capacity;
	for (unsigned s = 0; s < count; s++)
		for (uint32_t i = 0; i < per_slab; i++)
			slab_objects[s][i] = take(0, CLS);
	take(0, CLS);
	for (unsigned s = 0; s < count; s++)
		cr_assert_eq(qy_slab_of(slab_objects[s][0])->state, QY_SLAB_FULL);
}

static struct qy_slab *slab_number(unsigned n)
{
	return qy_slab_of(slab_objects[n][0]);
}

Test(heap, a_slab_that_was_full_goes_to_the_end_of_the_queue)
{
	begin("heap");
	fill_slabs(4);
	give_back(0, slab_objects[2][0], false);
	give_back(0, slab_objects[0][0], false);
	give_back(0, slab_objects[3][0], false);
	give_back(0, slab_objects[2][1], false);
	cr_assert_eq(heaps[0].queue[CLS].first, slab_number(2));
	cr_assert_eq(qy_slab_numbered(slab_number(2)->next), slab_number(0));
	cr_assert_eq(qy_slab_numbered(slab_number(0)->next), slab_number(3));
	cr_assert_eq(heaps[0].queue[CLS].last, slab_number(3));
	cr_assert_eq(slab_number(2)->countdown, per_slab - 2);
	check_all();
	/* And they are used in that order, when the one in use is full. */
	while (heaps[0].active[CLS] != slab_number(2))
		take(0, CLS);
	cr_assert_eq(qy_slab_of(take(0, CLS)), slab_number(2));
	cr_assert_eq(qy_slab_of(take(0, CLS)), slab_number(0));
	cr_assert_eq(qy_slab_of(take(0, CLS)), slab_number(3));
	check_all();
}

Test(heap, a_slab_that_is_emptied_becomes_a_spare_and_is_used_for_any_class)
{
	struct qy_slab *s;

	begin("heap");
	fill_slabs(2);
	s = slab_number(1);
	for (uint32_t i = 0; i < per_slab; i++)
		give_back(0, slab_objects[1][i], false);
	cr_assert_eq(heaps[0].spares, 1);
	cr_assert_null(qy_slab_of(slab_objects[1][0]), "no object is there any more");
	check_all();
	cr_assert_eq(qy_slab_of(take(0, 3)), s);
	cr_assert_eq(heaps[0].spares, 0);
	check_all();
}

Test(heap, more_than_a_few_empty_slabs_go_back)
{
	uint64_t before;

	begin("heap");
	fill_slabs(6);
	before = qy_read(&m->used);
	for (unsigned s = 0; s < 6; s++)
		for (uint32_t i = 0; i < per_slab; i++)
			give_back(0, slab_objects[s][i], false);
	cr_assert_eq(heaps[0].spares, QY_HEAP_SPARES);
	cr_assert_eq(qy_read(&m->used), before - (6 - QY_HEAP_SPARES) * QY_UNIT);
	qy_heap_trim(&heaps[0]);
	cr_assert_eq(qy_read(&m->used), before - 6 * QY_UNIT);
	check_all();
}

Test(heap, carving_touches_no_more_than_is_asked_for)
{
	begin("heap");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		bool zero;
		char *memory = qy_slab_memory(qy_slab_of(qy_heap_refill(&heaps[1], cls, &zero)));
		size_t touched = resident_pages(memory, qy_classes[cls].units * (QY_UNIT / QY_PAGE));

		model_must(touched <= 2, "class %u: %zu pages", cls, touched);
	}
}

/* ---- sending home, giving up, taking over ---- */

Test(heap, what_is_sent_is_received_by_whoever_refills)
{
	begin("heap");
	fill_slabs(2);
	for (uint32_t i = 0; i + 1 < per_slab; i++)
		qy_link_object(slab_objects[0][i], slab_objects[0][i + 1]);
	for (uint32_t i = 0; i < per_slab; i++)
		atomic_store(place_of(slab_objects[0][i]), PLACE_FREE);
	qy_heap_send(&heaps[0], slab_objects[0][0], slab_objects[0][per_slab - 1]);
	cr_assert(qy_heap_has_mail(&heaps[0]));
	check_all();
	cr_assert_eq(slab_number(0)->state, QY_SLAB_FULL, "nothing is done until the owner looks");
	lists[0][CLS] = NULL;
	for (uint32_t i = 0; i < per_slab; i++)
		take(0, CLS);
	cr_assert_not(qy_heap_has_mail(&heaps[0]));
	cr_assert_eq(qy_read(&heaps[0].remote_received), per_slab);
}

Test(heap, what_comes_late_to_a_heap_given_up_is_sent_on)
{
	void *late = NULL;

	begin("heap");
	fill_slabs(3);
	flush(0);
	qy_heap_abandon(&heaps[0]);
	cr_assert_not(qy_heap_has_mail(&heaps[0]));
	cr_assert_eq(atomic_load(&slab_number(0)->heap), &m->orphans);
	/* A sender that looked before: one object of each slab, to the heap that is closed. */
	for (unsigned s = 0; s < 3; s++) {
		qy_link_object(slab_objects[s][0], late);
		late = slab_objects[s][0];
		atomic_store(place_of(late), PLACE_FREE);
	}
	qy_heap_send(&heaps[0], late, slab_objects[0][0]);
	cr_assert_eq(atomic_load(&heaps[0].remote), QY_REMOTE_CLOSED);
	cr_assert(qy_heap_has_mail(&m->orphans));
	check_all();
	/* Whoever needs the class takes the slabs over with what is free in them. */
	for (uint32_t n = 0; n < per_slab - 1 + 3; n++)
		cr_assert_eq(heap_of(take(1, CLS)), &heaps[1]);
	cr_assert_eq(qy_read(&heaps[1].adopted), 4, "with the one that was begun");
	cr_assert_eq(qy_read(&heaps[1].slabs), 4, "and none was asked for beside them");
	cr_assert_eq(heap_of(slab_objects[1][5]), &heaps[1]);
	check_all();
	/* Opened again for somebody else, it sends on what still comes for the slabs that it no longer has. */
	memset((void *)&heaps[0], 0, offsetof(struct qy_heap, remote));
	qy_heap_open(&heaps[0], m, (uintptr_t)&heaps[0]);
	atomic_store(place_of(slab_objects[1][5]), PLACE_FREE);
	qy_heap_send(&heaps[0], slab_objects[1][5], slab_objects[1][5]);
	qy_heap_receive(&heaps[0]);
	cr_assert(qy_heap_has_mail(&heaps[1]));
	check_all();
}

Test(heap, orphans_that_are_emptied_go_back)
{
	begin("heap");
	fill_slabs(3);
	flush(0);
	for (unsigned s = 0; s < 3; s++)
		for (uint32_t i = 0; i < per_slab - s; i++)
			give_back(1, slab_objects[s][i], false);
	abandon(0);
	receive_all();
	check_all();
	for (uint32_t i = per_slab - 2; i < per_slab; i++)
		give_back(1, slab_objects[2][i], false);
	give_back(1, slab_objects[1][per_slab - 1], false);
	cr_assert_gt(qy_read(&m->used), 0);
	receive_all();
	check_all();
	cr_assert_eq(qy_read(&m->orphans.slabs), 1, "the one of which an object was never freed");
}

Test(heap, without_memory_a_refill_is_null_and_the_heap_stays_whole)
{
	static void *got[4000];
	unsigned n = 0;
	bool zero;

	begin("heap");
	atomic_store(&m->hard_limit, 5 * QY_UNIT);
	while ((got[n] = lists[0][CLS]) != NULL || (got[n] = qy_heap_refill(&heaps[0], CLS, &zero)) != NULL) {
		if (lists[0][CLS] == NULL)
			check_list_of(&heaps[0], CLS, got[n], false);
		lists[0][CLS] = qy_next_object(got[n]);
		n++;
	}
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(n, 5 * qy_classes[CLS].capacity);
	check_all();
	give_back(0, got[17], false);
	cr_assert_eq(take(0, CLS), got[17]);
	check_all();
}

/* ---- mistakes ---- */

/* What a mistake says goes nowhere. */
static void report_mistakes(bool report)
{
	static int saved;

	if (report) {
		saved = dup(2);
		close(2);
	} else {
		dup2(saved, 2);
		close(saved);
	}
	atomic_store(&qy_settings.on_error, report ? QY_ERROR_REPORT : QY_ERROR_IGNORE);
}

/* All the objects of one slab, out. */
static struct qy_slab *one_slab(void)
{
	per_slab = qy_classes[CLS].capacity;
	for (uint32_t i = 0; i < per_slab; i++)
		slab_objects[0][i] = take(0, CLS);
	return slab_number(0);
}

static void *take_distinct(uint32_t expected)
{
	void *p = NULL;
	struct qy_slab *s = slab_number(0);

	for (uint32_t n = 0; n < expected; n++) {
		p = take(0, CLS);
		model_must(qy_slab_of(p) == s, "object %u of %u is of the slab", n, expected);
	}
	return p;
}

/* A, B, A: past the check for the same object twice in a row, as the fast path of free has none at all. */
Test(heap, a_list_with_an_object_twice_is_repaired)
{
	uint64_t before = qy_mistake_count();
	struct qy_slab *s;

	begin("heap");
	s = one_slab();
	for (uint32_t i = 0; i < 3; i++)
		atomic_store(place_of(slab_objects[0][i]), PLACE_FREE);
	for (uint32_t i = 0; i < 5; i++) /* 0 1 2 0 1 */
		qy_slab_push(s, slab_objects[0][i % 3]);
	report_mistakes(true);
	take_distinct(3);
	report_mistakes(false);
	cr_assert_eq(qy_mistake_count(), before + 1);
	cr_assert_eq(s->countdown, s->linked, "all are out again");
}

Test(heap, a_countdown_below_zero_is_noticed_whatever_was_asked_for)
{
	uint64_t before = qy_mistake_count();
	struct qy_slab *s;

	begin("heap");
	s = one_slab();
	cr_assert_eq(heaps[0].active[CLS], s);
	for (uint32_t i = 0; i < per_slab; i++) {
		atomic_store(place_of(slab_objects[0][i]), PLACE_FREE);
		if (qy_slab_push(s, slab_objects[0][i]))
			qy_heap_event(s);
	}
	cr_assert_eq(s->countdown, 0);
	qy_slab_push(s, slab_objects[0][4]);
	cr_assert_gt(s->countdown, s->linked);
	/* From the one freed twice on the list is a ring: what is in it comes once, what is behind it is lost. */
	take(0, CLS);
	cr_assert_eq(qy_mistake_count(), before + 1);
	cr_assert_leq(s->countdown, s->linked);
	flush(0);
	while (lists[0][CLS] != NULL || s->local != NULL)
		take(0, CLS);
}

/* In the slower ways, the same object twice in a row, and one more than there are. */
/* Freed twice by another thread: the list that arrives leads in a circle, inside one slab. It must end. */
Test(heap, mail_that_leads_in_a_circle_ends, .timeout = 20)
{
	uint64_t before = qy_mistake_count();
	void *a, *b;

	begin("heap");
	one_slab();
	a = slab_objects[0][3];
	b = slab_objects[0][5];
	qy_link_object(a, b);
	qy_link_object(b, a);
	atomic_store(&heaps[0].remote, a);
	qy_heap_receive(&heaps[0]);
	cr_assert_gt(qy_mistake_count(), before);
}

Test(heap, put_back_twice_is_refused)
{
	uint64_t before = qy_mistake_count();
	struct qy_slab *s;
	void *p;

	begin("heap");
	s = one_slab();
	p = slab_objects[0][3];
	give_back(0, p, true);
	qy_link_object(p, NULL);
	qy_heap_put_back(&heaps[0], p);
	cr_assert_eq(qy_mistake_count(), before + 1);
	cr_assert_eq(s->countdown, per_slab - 1);
	check_all();
	for (uint32_t i = 0; i < per_slab; i++)
		if (i != 3)
			give_back(0, slab_objects[0][i], true);
	p = slab_objects[0][7];
	s = qy_slab_of(p);
	if (s != NULL && s->countdown == 0) {
		void *saved = qy_next_object(p);

		qy_link_object(p, NULL);
		qy_heap_put_back(&heaps[0], p);
		qy_link_object(p, saved);
		cr_assert_eq(qy_mistake_count(), before + 2);
		check_all();
	}
}

Test(heap, what_is_no_object_is_not_put_back)
{
	static void *mine[4];
	uint64_t before = qy_mistake_count();
	char *p;

	begin("heap");
	p = take(0, 20);
	qy_heap_put_back(&heaps[0], mine);
	*(void **)(void *)(p + 16) = NULL;
	qy_heap_put_back(&heaps[0], p + 16);
	cr_assert_eq(qy_mistake_count(), before + 2);
	check_all();
}

/* The last free of all was wrong: there is nothing sound in the list, but there is memory. */
Test(heap, a_list_that_is_all_wrong_is_no_lack_of_memory)
{
	struct qy_slab *s;
	bool zero;
	char *p;
	void *next;

	begin("heap");
	p = take(0, CLS);
	s = qy_slab_of(p);
	lists[0][CLS] = NULL;
	qy_slab_push(s, p + 16);
	report_mistakes(true);
	next = qy_heap_refill(&heaps[0], CLS, &zero);
	report_mistakes(false);
	cr_assert_not_null(next);
	cr_assert_neq(next, p);
}

/* Whoever frees all of a slab and one object twice must not give the slab away while an object of it is live. */
Test(heap, a_double_free_does_not_give_a_slab_away_when_mistakes_are_looked_for)
{
	struct qy_slab *s;

	begin("heap");
	fill_slabs(2);
	s = slab_number(0);
	report_mistakes(true);
	for (uint32_t i = 0; i + 2 < per_slab; i++)
		give_back(0, slab_objects[0][i], false);
	qy_slab_push(s, slab_objects[0][0]);
	if (qy_slab_push(s, slab_objects[0][1]))
		qy_heap_event(s);
	report_mistakes(false);
	cr_assert_eq(s->kind, QY_SLAB_HEAD);
	cr_assert_eq(qy_slab_of(slab_objects[0][per_slab - 1]), s);
	cr_assert_eq(s->countdown, 2);
}

/* ---- threads ---- */

#define THREADS HEAPS
#define SLOTS 512
#define EACH 2000000

static _Atomic(void *) slots[SLOTS];
static _Atomic(unsigned) wrong;

struct sending {
	struct qy_heap *heap;
	void *first, *last;
	unsigned count;
};

static void send_off(struct sending *to)
{
	if (to->count > 0)
		qy_heap_send(to->heap, to->first, to->last);
	memset(to, 0, sizeof(*to));
}

/* As the thread's cache does, with one list of what is to be sent. */
static void free_for(struct qy_heap *mine, struct sending *to, void *p)
{
	struct qy_slab *s = qy_slab_of(p);
	struct qy_heap *h = s == NULL ? NULL : atomic_load_explicit(&s->heap, memory_order_acquire);

	if (s == NULL || ((uint64_t *)p)[1] != (uintptr_t)p || atomic_exchange(place_of(p), PLACE_FREE) != PLACE_OUT) {
		atomic_fetch_add(&wrong, 1);
		return;
	}
	if (h == mine) {
		if (qy_slab_push(s, p))
			qy_heap_event(s);
		return;
	}
	if (to->heap != h) {
		send_off(to);
		to->heap = h;
	}
	qy_link_object(p, to->first);
	to->last = to->first == NULL ? p : to->last;
	to->first = p;
	if (++to->count == 32)
		send_off(to);
}

static void put_list_back(struct qy_heap *h, void **list)
{
	qy_heap_put_back(h, *list);
	*list = NULL;
}

static void *play(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct qy_heap *h = &heaps[i];
	struct sending to = { 0 };
	uint64_t state = model_seed * 31 + i;
	void *list[QY_CLASSES] = { NULL };

	for (unsigned n = 0; n < EACH; n++) {
		uint64_t r = model_mix(&state);
		unsigned cls = (r >> 40) % 5 == 0 ? 46 : (unsigned)(r >> 40) % 4;
		bool zero;
		void *p = list[cls];

		if (p == NULL)
			p = qy_heap_refill(h, cls, &zero);
		if (p == NULL) {
			atomic_fetch_add(&wrong, 1);
			break;
		}
		list[cls] = qy_next_object(p);
		/* (It may stand in a gap of another class's slab.) */
		if (qy_object_size(qy_slab_of(p), p) != size_of_class(cls) ||
		    atomic_exchange(place_of(p), PLACE_OUT) != PLACE_FREE)
			atomic_fetch_add(&wrong, 1);
		((uint64_t *)p)[1] = (uintptr_t)p; /* smallest: 16 bytes */
		p = atomic_exchange(&slots[r % SLOTS], p);
		if (p != NULL)
			free_for(h, &to, p);
		if ((r >> 20) % 4000 == 0) {
			send_off(&to);
			for (unsigned c = 0; c < QY_CLASSES; c++)
				put_list_back(h, &list[c]);
			qy_heap_abandon(h);
			memset((void *)h, 0, offsetof(struct qy_heap, remote));
			qy_heap_open(h, m, (uintptr_t)h);
		}
	}
	send_off(&to);
	for (unsigned c = 0; c < QY_CLASSES; c++)
		put_list_back(h, &list[c]);
	return NULL;
}

Test(heap, threads_hand_objects_to_each_other_and_give_up_their_heaps, .timeout = 240)
{
	pthread_t thread[THREADS];
	struct sending to = { 0 };

	begin("heap");
	for (unsigned i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, play, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	cr_assert_eq(atomic_load(&wrong), 0, "objects given out twice, lost or overwritten");
	check_all();
	for (unsigned i = 0; i < SLOTS; i++)
		if (atomic_load(&slots[i]) != NULL)
			free_for(&heaps[0], &to, atomic_load(&slots[i]));
	send_off(&to);
	check_all();
	for (unsigned i = 0; i < HEAPS; i++)
		abandon(i);
	receive_all();
	check_all();
	cr_assert_eq(atomic_load(&wrong), 0);
	cr_assert_eq(qy_read(&m->used), 0, "every slab went back");
}
