/* SPDX-License-Identifier: MIT */
#include "lib/cache/duties.h"

#define SHED_LISTS 6   /* classes whose lists go back, */
#define SHED_LOOKS 256 /* or slabs, in one slow path: about 20 us */
#define LOOKS_ALONE 8  /* looks that find mail, and none filed by mallocs, before frees file some, */
#define MAIL_LEAST 8   /* so many objects at first */

void qy_duties_shed_some(struct qy_thread *t)
{
	uint32_t round = atomic_load_explicit(&qy_reclaim_round, memory_order_relaxed);

	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		if (c->heap.shed_round == round)
			continue;
		if (c->shed_list < QY_CLASSES) {
			for (unsigned n = 0; n < SHED_LISTS && c->shed_list < QY_CLASSES; n++, c->shed_list++)
				qy_cache_put_back(c, c->shed_list, c->freed[c->shed_list].most / 2);
			return;
		}
		if (qy_heap_shed(&c->heap, SHED_LOOKS))
			c->heap.shed_round = round;
		c->shed_list = c->heap.shed_round == round ? 0 : c->shed_list;
		return;
	}
	t->shed_round = round;
}

/* How much a thread files in a look that its mallocs filed nothing before for so many looks. */
static uint32_t part_of_mail(uint32_t looks_alone)
{
	uint32_t over = looks_alone - LOOKS_ALONE;

	return looks_alone < LOOKS_ALONE ? 0 : over < 6 ? MAIL_LEAST << over : QY_MAIL_STEP;
}

_Static_assert(MAIL_LEAST << 5 == QY_MAIL_STEP, "it doubles until it is as much as a step");

void qy_duties_of_freeing(struct qy_thread *t)
{
	if (t->depth != 1)
		return;
	qy_duties_shed(t);
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		bool alone = qy_read(&c->heap.remote_received) == c->received_seen;
		uint32_t part;

		c->looks_alone = alone && qy_heap_has_mail(&c->heap) ? c->looks_alone + 1 : 0;
		part = part_of_mail(c->looks_alone);
		if (part > 0)
			qy_heap_receive_some(&c->heap, part);
		c->received_seen = qy_read(&c->heap.remote_received);
	}
}
