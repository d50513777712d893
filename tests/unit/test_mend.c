/* SPDX-License-Identifier: MIT */
/* Pages of a later moment against the model of heaps: after any history, some frames hold what looks like links to live
 * objects wherever nothing lives, as if others had used that memory. What is mended gives out nothing twice, says zero
 * of nothing that is not, and its books are right. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>

#include "lib/manager/late.h"
#include "lib/manager/mistakes.h"
#include "tests/unit/objects_model.h"

/* ---- what is lost ---- */

/* An object that nobody will be given any more: as if somebody had it. */
static void lose(void *p)
{
	model_must(atomic_exchange(place_of(p), PLACE_OUT) == PLACE_FREE, "%p was free", p);
}

/* All heaps that mail is sent to: those of threads first. */
static struct qy_heap *heap(unsigned i)
{
	return i < HEAPS ? &heaps[i] : i == HEAPS ? &m->orphans : i == HEAPS + 1 ? &m->thinning
	       : i == HEAPS + 2 && m->mixed != NULL ? &m->mixed->heap : NULL;
}

#define MAIL 100000

static void *mail[MAIL]; /* what was sent to all of them, one after the other */
static uint32_t mails[2 * (HEAPS + 3)]; /* of each heap what was taken and is not filed, and what was not taken */
static uint32_t lost_mail[HEAPS + 3], kept_mail, taken_mail;

static void *mail_list(unsigned i)
{
	void *list = i % 2 == 0 ? heap(i / 2)->mail : atomic_load(&heap(i / 2)->remote);

	return list == QY_REMOTE_CLOSED ? NULL : list;
}

static void note_mail(void)
{
	uint32_t n = 0;

	for (unsigned i = 0; heap(i / 2) != NULL; i++) {
		mails[i] = 0;
		for (void *p = mail_list(i); p != NULL; p = qy_next_object(p), mails[i]++) {
			model_must(n < MAIL, "longer lists than the test has room for");
			mail[n++] = p;
		}
	}
}

/* What is left is the beginning of what was. */
static void lose_mail(bool any_late)
{
	uint32_t n = 0;

	for (unsigned i = 0; heap(i / 2) != NULL; i++) {
		void *p = mail_list(i);

		for (uint32_t k = 0; k < mails[i]; k++, n++) {
			if (p == mail[n]) {
				p = qy_next_object(p);
				kept_mail++;
			} else {
				model_must(any_late && p == NULL, "%p is where %p was", p, mail[n]);
				lose(mail[n]);
				lost_mail[i / 2]++;
			}
		}
		model_must(p == NULL, "a list became longer");
	}
}

static void lose_lists(const struct qy_frame *frame, uint32_t f)
{
	for (uint32_t u = 0; frame->filler == QY_FILL_SLABS + 1 && u < QY_FRAME_UNITS; u++) {
		struct qy_slab *s = qy_slab_at(((uintptr_t)f << QY_FRAME_SHIFT) + u * QY_UNIT);

		if (s->kind != QY_SLAB_HEAD || s->state == QY_SLAB_MIXED)
			continue;
		for (void *p = s->local; p != NULL; p = qy_next_object(p))
			lose(p);
	}
}

/* ---- others use the memory ---- */

static uint8_t live[PLACES >> 3]; /* by address / 16: a bit where an object of the test's stands */

static void note_live(void)
{
	memset(live, 0, qy_window_claimed() >> 7);
	for (uint32_t i = 0; i < count; i++)
		for (uint32_t at = 0; at < size_of_class(objects[i].cls); at += 16) {
			uintptr_t cell = qy_window_offset(objects[i].p + at) >> 4;

			live[cell / 8] = (uint8_t)(live[cell / 8] | 1 << cell % 8);
		}
}

static void scribble(uint32_t f)
{
	for (uintptr_t at = (uintptr_t)f << QY_FRAME_SHIFT; at < (uintptr_t)(f + 1) << QY_FRAME_SHIFT; at += 16)
		if (!(live[at >> 7] >> (at >> 4) % 8 & 1)) {
			void **words = qy_window_at(at);

			words[0] = count == 0 ? (void *)words : objects[model_below(count)].p;
			words[1] = words;
		}
}

static uint32_t late_frames;

static void become_late(unsigned percent)
{
	bool any_late;

	/* (As if freed while they had been out to be thinned.) */
	for (int n = 0; n < 20; n++) {
		struct object *o = &objects[model_below(count)];

		atomic_store(place_of(o->p), PLACE_FREE);
		qy_heap_send(&m->thinning, o->p, o->p);
		*o = objects[--count];
	}
	for (unsigned i = 0; heap(i) != NULL; i++)
		if (model_one_in(2))
			taken_mail += qy_heap_take_mail(heap(i));
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		for (uint32_t f = (uint32_t)qy_region_frame(r), end = f + r->frames; f < end; f++)
			if (model_below(100) < percent) {
				qy_late_note(frame_address(f), QY_FRAME);
				lose_lists(qy_frame_at(f), f);
				late_frames++;
			}
	any_late = qy_late_any();
	note_live();
	note_mail();
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		for (uint32_t f = (uint32_t)qy_region_frame(r), end = f + r->frames; f < end; f++)
			if (qy_frame_at(f)->late)
				scribble(f);
	for (unsigned i = 0; i < HEAPS; i++) {
		for (unsigned cls = 0; cls < QY_CLASSES; cls++)
			qy_late_cut(&lists[i][cls]);
		qy_late_cut_mail(&heaps[i]);
	}
	qy_late_mend(m);
	qy_late_forget();
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		for (uint32_t f = (uint32_t)qy_region_frame(r), end = f + r->frames; f < end; f++)
			model_must(!qy_frame_at(f)->late && !qy_late_any(), "frame %u is mended", f);
	lose_mail(any_late);
	qy_sparse_forward_mail(m);
}

/* ---- tests ---- */

static void add(unsigned heap_of, unsigned cls)
{
	objects[count] = (struct object){ .p = take(heap_of, cls), .cls = cls };
	write_object(&objects[count++]);
}

static void drop(unsigned by, uint32_t i)
{
	check_object(&objects[i]);
	give_back(by, objects[i].p, model_one_in(2));
	objects[i] = objects[--count];
}

static unsigned any_class(void)
{
	return model_one_in(8) ? model_below(QY_CLASSES) : model_below(30);
}

Test(mend, by_chance, .timeout = 300)
{
	uint64_t next, most = 0, mistakes;

	begin("mend");
	mistakes = qy_mistake_count();
	for (int round = 0; round < 60; round++) {
		uint32_t to = OBJECTS / 2 + model_below(OBJECTS / 2), keep = 1 + model_below(40);
		unsigned from = 3 + model_below(25), classes = 1 + model_below(4);

		fill(from, 4);
		while (count < to)
			add(model_below(3), model_one_in(20) ? any_class() : from + model_below(classes));
		if (round % 3 == 0)
			become_late(30);
		for (uint32_t i = count; i-- > 0;)
			if (model_below(100) >= keep)
				drop(model_below(3), i);
		if (round % 3 == 1)
			become_late(model_one_in(2) ? 100 : 5);
		check_all();
		for (unsigned i = 0; i < 3; i++)
			if (!model_one_in(4))
				abandon(i);
		/* To what nobody holds. */
		for (uint32_t i = count / 2; i-- > 0;)
			drop(model_below(3), i);
		if (round % 3 == 2)
			become_late(50);
		check_all();
		check_objects();
		fake_os_advance(400);
		qy_manager_purge(m, qy_os->now_ms(), model_one_in(4) ? 1000 : 0, SIZE_MAX, &next);
		check_all();
		cr_assert_leq(live_pages(), resident());
		most = qy_max(most, m->mixed == NULL ? 0 : qy_read(&m->mixed->slabs));
	}
	check_objects();
	cr_assert_gt(most, 8, "%" PRIu64 " mixed slabs at most", most);
	cr_assert_gt(late_frames, 100);
	for (unsigned i = 0; i < HEAPS + 3; i++)
		cr_assert(i == HEAPS - 1 || lost_mail[i] > 50, "of heap %u, %u", i, lost_mail[i]);
	cr_assert_gt(kept_mail, 1000);
	cr_assert_gt(taken_mail, 20);
	cr_assert_eq(qy_mistake_count(), mistakes);
	thin_out(0);
	for (unsigned i = 0; i < HEAPS; i++)
		abandon(i);
	purge();
	check_all();
}

/* Nothing late: all lists are as they were; one that leads in a circle ends somewhere, and one that leads out of
 * quarry's memory where it does. */
Test(mend, lists)
{
	void *list = NULL, *p[200], **end;
	int n;

	begin("lists");
	for (n = 0; n < 200; n++) {
		p[n] = take(0, 2);
		qy_link_object(p[n], list);
		list = p[n];
	}
	end = qy_late_cut(&list);
	cr_assert_eq((void *)end, p[0]);
	for (n = 0; list != NULL; list = qy_next_object(list))
		cr_assert_eq(list, p[199 - n++]);
	cr_assert_eq(n, 200);
	list = p[199];
	qy_link_object(p[0], p[150]);
	end = qy_late_cut(&list);
	cr_assert_null(*end);
	for (n = 0; list != NULL && n <= 200; list = qy_next_object(list))
		n++;
	cr_assert(n > 49 && n <= 200, "%d", n);
	list = &n;
	cr_assert_eq(qy_late_cut(&list), &list);
	cr_assert_null(list);
}
