/* SPDX-License-Identifier: MIT */
/* What is cold, and looked at now and then. (glance.h has what it is.) */
#include "lib/lanes/glance.h"

#include <errno.h>

#include "lib/lanes/warm.h"

struct qy_glances *qy_glances_of_thread(void)
{
	struct qy_lanes_record *r = qy_lanes_record;
	int error = errno;

	if (r == NULL || r->depth == 0)
		return NULL;
	if (QY_UNLIKELY(r->glances == NULL)) {
		struct qy_glances *g;

		qy_quiet++; /* the program's functions are not called from inside a get */
		g = quarry_aligned_alloc(_Alignof(struct qy_glances), sizeof(*g));
		qy_quiet--;
		if (g != NULL)
			g->count = g->used = 0;
		r->glances = g;
		errno = error;
	}
	return r->glances;
}

bool qy_glance_was_refused(const quarry_lanes *l, uint32_t slot)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (r == NULL || r->refused != slot + 1 || r->refused_by != l->id)
		return false;
	r->refused = 0;
	return true;
}

const void *qy_glance_again(const struct qy_glances *g, const quarry_lanes *l, uint32_t slot, uint64_t word)
{
	for (uint32_t i = g->count; i-- > 0;)
		if (g->of[i].slot == slot && g->of[i].word == word && g->of[i].lanes == l->id)
			return g->of[i].at;
	return NULL;
}

/* Room for an object so large, as it would be aligned in a span; NULL: there is none. */
static void *room_for(struct qy_glances *g, size_t size)
{
	size_t at;

	if (size > QY_GLANCE_MOST || g->count == QY_GLANCES)
		return NULL;
	at = qy_align_up(g->used, size & -size);
	if (at + size > QY_GLANCE_ROOM)
		return NULL;
	g->used = (uint32_t)at;
	return g->bytes + at;
}

/* A copy; NULL: there is no reading it. */
static const void *copy_to(void *to, struct qy_glances *g, quarry_lanes *l, uint32_t slot, uint64_t word, uint32_t size)
{
	if (qy_cold_copy(l->cold, qy_cold_extent(word), qy_cold_index(word), to) != 0)
		return NULL;
	g->of[g->count].at = to;
	g->of[g->count].word = word;
	g->of[g->count].slot = slot;
	g->of[g->count].lanes = l->id;
	g->count++;
	g->used += size;
	qy_lanes_record->depth |= QY_DEPTH_GLANCED;
	return to;
}

const void *qy_glance(struct qy_glances *g, quarry_lanes *l, uint32_t slot, uint64_t word, bool *often)
{
	uint32_t extent = qy_cold_extent(word), index = qy_cold_index(word), size;
	uint16_t what;
	void *to;

	size = qy_cold_find(l->cold, extent, index, &what);
	/* (What has a record is told of when it comes back: moves, use. And a file is read no more often than need be.) */
	if ((what & QY_COLD_SIDE) || qy_cold_is_evicted(l->cold, extent))
		return NULL;
	to = room_for(g, size);
	if (often != NULL)
		*often = qy_cold_glanced(l->cold, extent, index);
	return (often != NULL && *often) || to == NULL ? NULL : copy_to(to, g, l, slot, word, size);
}

const void *qy_glance_at_least(struct qy_glances *g, quarry_lanes *l, uint32_t slot, uint64_t word)
{
	uint16_t what;
	uint32_t size = qy_cold_find(l->cold, qy_cold_extent(word), qy_cold_index(word), &what);
	void *to = room_for(g, size);

	return to == NULL ? NULL : copy_to(to, g, l, slot, word, size);
}

void qy_glances_end(struct qy_lanes_record *r)
{
	r->glances->count = r->glances->used = 0;
	r->depth = 0;
	atomic_store_explicit(&r->epoch, 0, memory_order_release);
}
