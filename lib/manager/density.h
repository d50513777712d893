/* SPDX-License-Identifier: MIT */
/* Which slabs a program that can move its objects had better empty, and which it had better fill: of each class of a
 * manager, so many of its slabs as what lives in them needs are to be filled, the fullest first, and of those that are
 * about as full the ones at lower addresses. All others with room are to be emptied. So no object is moved whose slab
 * is filled anyway, what is left empty stands together, and who asks again while it is at it gets the same answers.
 *
 * That is found out by looks over all slabs' records, in two rounds: how full they are, then which address parts those
 * that are alike. A look goes on by steps, as the program asks; answers go by the last one that was whole. Nobody is
 * held: what changes meanwhile is found by the next look. Only managers that were asked about are looked at.
 *
 * One thread looks at a time (qy_density_step, entered: so neither a fork nor an arena's end comes in between). */
#ifndef QUARRY_MANAGER_DENSITY_H
#define QUARRY_MANAGER_DENSITY_H

#include "lib/manager/manager.h"

#define QY_DENSITY_STEPS 16 /* how full a slab is */

/* Type-stable, made when the manager is first asked about. */
struct qy_density {
	/* Of the last look, for all to read: slabs with a key below that are to be emptied; how many had room, but for
	 * those that threads take from right now, and how many objects lived there. */
	struct {
		_Atomic(uint64_t) limit, live;
		_Atomic(uint32_t) slabs, gain; /* gain: slabs that would be empty */
	} of[QY_CLASSES];
	/* Of the look that goes on. */
	struct {
		uint64_t live;
		uint32_t slabs[QY_DENSITY_STEPS];
		uint32_t left; /* slabs that are as full as the limit, and still to be filled */
		uint8_t step;  /* how full those are */
	} now[QY_CLASSES];
};

QY_INLINE struct qy_density *qy_density_of(const struct qy_manager *m)
{
	return __atomic_load_n(&m->density, __ATOMIC_ACQUIRE);
}

/* How full, and of the same ones the lower address first: so the key is larger. */
QY_INLINE uint64_t qy_density_key(const struct qy_slab *s, uint32_t live, uint32_t capacity)
{
	uint64_t step = (uint64_t)live * QY_DENSITY_STEPS / capacity;

	return step << 32 | (UINT32_MAX - qy_slab_number(s));
}

/* Whether a slab with room, which nobody takes from right now, is to be emptied. Anybody. */
QY_INLINE bool qy_density_is_to_go(const struct qy_manager *m, const struct qy_slab *s)
{
	const struct qy_density *d = qy_density_of(m);
	unsigned cls = qy_peek(s->cls);

	return d != NULL && qy_density_key(s, qy_peek(s->countdown), qy_classes[cls].capacity) <
				    atomic_load_explicit(&d->of[cls].limit, memory_order_relaxed);
}

/* Bytes of slabs that would be empty if all that is to go went, by the last look. */
uint64_t qy_density_gain(const struct qy_manager *m);

/* How many looks there were. */
uint32_t qy_density_round(void);

/* So many more pointers were asked about; whether qy_density_step is to be called. */
bool qy_density_is_due(uint32_t asked);

/* Go on with a look, or begin one: for so many pointers that were asked about. Where m is not NULL it is looked at from
 * now on, and at once if there is little. By a thread that has entered. */
void qy_density_step(struct qy_manager *m, uint32_t asked);

#endif
