/* SPDX-License-Identifier: MIT */
#include "lib/cache/freelist.h"

#include "lib/cache/cache.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/snapshot.h"

#define CIRCLE_LOOKS 64

/* (R. Brent, 1980: a list that goes round comes by the mark, which is set anew after ever more steps.) */
bool qy_freelist_is_circle(const struct qy_freelist *l)
{
	const void *p = l->head, *mark = NULL;

	for (unsigned step = 1, next = 1; p != NULL && step <= CIRCLE_LOOKS; step++) {
		if (p == mark)
			return true;
		if (step == next) {
			mark = p;
			next *= 2;
		}
		p = qy_next_object((void *)p);
	}
	return false;
}

void qy_freelist_mend(struct qy_freelist *l)
{
	qy_mistake(QY_MISTAKE_DOUBLE_FREE, l->head);
	qy_link_object(l->head, NULL);
	l->room = l->most - 1u;
}

void qy_cache_put_back(struct qy_cache *c, unsigned cls, unsigned most)
{
	struct qy_freelist *l = &c->freed[cls];
	void *list = c->head[cls], *freed = l->head;

	qy_snap_moved(list);
	qy_snap_moved(freed);
	c->head[cls] = NULL;
	qy_freelist_init(l, cls);
	l->most = (uint16_t)qy_max(l->most, most);
	l->room = l->most;
	qy_heap_put_back(&c->heap, list);
	qy_heap_put_back(&c->heap, freed);
}

void qy_cache_flush(struct qy_cache *c)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		qy_cache_put_back(c, cls, 0);
}
