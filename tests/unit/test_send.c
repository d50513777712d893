/* SPDX-License-Identifier: MIT */
/* What a thread frees of many others': that all of it comes home, once, however few of them are gathered for at a time,
 * that little is held back, and that an owner with several heaps gets each object where it belongs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>

#include "lib/cache/thread.h"
#include "lib/manager/mistakes.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define OWNERS 200
#define OBJECTS 40000

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_clock(1000);
}

/* What stands in slabs as their owner is the address of one of these, as of a thread's record. */
static struct {
	_Alignas(QY_CACHE_LINE) char record[3 * QY_CACHE_LINE];
} owners[OWNERS];
static struct qy_heap heaps[OWNERS];
static void *lists[OWNERS][QY_CLASSES], *objects[OBJECTS];
static struct qy_manager *m;
static struct qy_thread *self;
static uint64_t mistakes;

static uintptr_t owner(unsigned i)
{
	return (uintptr_t)&owners[i];
}

static void begin(void)
{
	model_start("send");
	cr_assert(qy_start());
	quarry_free(quarry_malloc(1));
	self = qy_tls.thread;
	cr_assert_not_null(self);
	m = new_manager(0);
	for (unsigned i = 0; i < OWNERS; i++)
		qy_heap_open(&heaps[i], m, owner(i));
	mistakes = qy_mistake_count();
}

static void *take(unsigned i, unsigned cls)
{
	void *p = lists[i][cls];
	bool zero;

	if (p == NULL)
		p = qy_heap_refill(&heaps[i], cls, &zero);
	cr_assert_not_null(p);
	lists[i][cls] = qy_next_object(p);
	return p;
}

/* By weight; each ring in use is one that is noted, and the other way round. */
static size_t held_back(void)
{
	size_t weight = 0;
	unsigned rings = 0;

	for (unsigned i = 0; i < QY_OUT_RINGS; i++) {
		const struct qy_outgoing *out = &self->out[i];

		model_must((out->first != NULL) == (self->sending >> i & 1), "ring %u", i);
		rings += out->first != NULL;
		for (void *p = out->first; p != NULL; p = qy_next_object(p)) {
			weight += QY_WEIGHT(qy_classes[qy_slab_of(p)->cls].size);
			model_must((p == out->last) == (qy_next_object(p) == NULL), "ring %u ends", i);
			model_must(out->owner != QY_OUT_NOBODY || qy_slab_of(p)->heap == out->heap, "ring %u has %p", i, p);
		}
	}
	model_must(rings == self->rings, "%u of %u rings", rings, self->rings);
	return weight;
}

static void send_all(void)
{
	struct qy_thread *t = qy_thread_enter();

	qy_thread_send(t);
	qy_thread_leave(t);
	cr_assert_eq(self->sending, 0);
	cr_assert_eq(held_back(), 0);
}

/* All was freed, and nothing twice: no slab is left with anything in it. (What one gets that is another's comes to that
 * one in the second round.) */
static void end(void)
{
	send_all();
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < OWNERS; i++)
			qy_heap_receive(&heaps[i]);
	for (unsigned i = 0; i < OWNERS; i++) {
		for (unsigned cls = 0; cls < QY_CLASSES; cls++)
			qy_heap_put_back(&heaps[i], lists[i][cls]);
		qy_heap_abandon(&heaps[i]);
	}
	cr_assert_eq(qy_read(&m->used), 0);
	cr_assert_eq(qy_mistake_count(), mistakes);
	quarry_free(quarry_malloc(1));
}

static uint64_t received(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < OWNERS; i++)
		n += qy_read(&heaps[i].remote_received);
	return n;
}

/* So many owners' objects of sizes up to so many classes, freed in disorder. Returns the most that was held back. */
static size_t free_for(unsigned of, unsigned classes)
{
	size_t most = 0;

	for (uint32_t i = 0; i < OBJECTS; i++)
		objects[i] = take(model_below(of), model_below(classes));
	for (uint32_t n = OBJECTS; n > 0; n--) {
		uint32_t i = model_below(n);
		void *p = objects[i];

		objects[i] = objects[n - 1];
		qy_cache_free(p);
		most = qy_max(most, n % 64 == 0 ? held_back() : 0);
	}
	return most;
}

Test(send, for_one)
{
	begin();
	cr_assert_leq(free_for(1, 3), QY_OUT_ROOM);
	send_all();
	qy_heap_receive(&heaps[0]);
	cr_assert_eq(received(), OBJECTS);
	end();
}

Test(send, for_as_many_as_have_rings)
{
	begin();
	cr_assert_leq(free_for(QY_OUT_RINGS, 40), 5 * QY_OUT_ROOM_ALL / 4);
	end();
}

Test(send, for_more_than_have_rings)
{
	begin();
	cr_assert_leq(free_for(OWNERS, 40), 5 * QY_OUT_ROOM_ALL / 4);
	end();
}

/* Objects of several units, too. */
Test(send, of_all_sizes)
{
	begin();
	cr_assert_leq(free_for(5, QY_CLASSES), 5 * QY_OUT_ROOM);
	end();
}

/* Small objects are sent 64 at a time: whoever receives them is written to so often, and no more. */
Test(send, not_one_by_one)
{
	uint32_t times = 0;

	begin();
	for (uint32_t i = 0; i < OBJECTS; i++)
		objects[i] = take(0, 2);
	for (uint32_t i = 0; i < OBJECTS; i++) {
		void *before = atomic_load(&heaps[0].remote);

		qy_cache_free(objects[i]);
		times += atomic_load(&heaps[0].remote) != before;
	}
	cr_assert_leq(times, OBJECTS / 64 + 1);
	end();
}

/* As a thread has that moved to another node. */
Test(send, an_owner_has_two_heaps)
{
	begin();
	qy_heap_open(&heaps[1], m, owner(0));
	(void)free_for(2, 8);
	send_all();
	qy_heap_receive(&heaps[0]);
	cr_assert(qy_heap_has_mail(&heaps[1]), "what is its went by the other one");
	end();
}

/* Slabs that nobody holds, and those of arenas that can be destroyed, are found by their heap only. */
Test(send, no_ring_is_found_by_no_owner)
{
	begin();
	for (unsigned i = 0; i < OWNERS; i++)
		if (i % 4 != 0)
			qy_heap_open(&heaps[i], m, i % 4 == 1 ? 0 : owner(i) | QY_OWNER_SHARED);
	(void)free_for(OWNERS, 8);
	for (unsigned i = 0; i < QY_OUT_RINGS; i++)
		cr_assert(self->out[i].first == NULL || (self->out[i].owner == QY_OUT_NOBODY) ==
								(self->out[i].heap->owner % QY_CACHE_LINE != 0 ||
								 self->out[i].heap->owner == 0));
	end();
}
