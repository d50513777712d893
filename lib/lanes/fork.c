/* SPDX-License-Identifier: MIT */
/* What threads that a fork(2) cut off have left half done, in the child.
 *
 * A fork waits for locks, and for nothing else: a thread that holds none may be between any two instructions. What threads
 * do without a lock, to what others go by:
 *	they take from their spans, and sweep them: bits, entries and counts, one after the other. Which of those are written is
 *		not known, so a cut-off thread's span is counted anew, by its entries;
 *	they make tombstones, in anybody's spans, and count them: one that is not counted is a tombstone less until it is
 *		swept (segment.c);
 *	they make objects in their chunks, and count these: no chunk begins anew (fast.c);
 *	they put slots into their caches, counted last (slots.h).
 * All else is a place, or a slot, that nobody has any more: at most one of a thread. */
#include "lib/lanes/figures.h"
#include "lib/lanes/state.h"

/* Whether the word of the slot leads to this object, be it freed and pinned. */
static bool leads_to(const quarry_lanes *l, uint32_t slot, const void *object)
{
	uint64_t word = slot < l->map.slots ? atomic_load(&l->word[slot]) : 0;

	return !(word & (QUARRY_WORD_COLD | QUARRY_WORD_HEAD)) && qy_word_address(word) == object;
}

/* A word's objects: the bits of those whose place is taken. What no word leads to was being made, or moved away: those that are
 * here may look at it still. */
static uint64_t recount_word(const quarry_lanes *l, struct qy_span *s, uint32_t first, uint32_t *tombs)
{
	uint64_t bits = atomic_load(&s->bits[first / 64]), taken = 0;

	for (uint32_t i = first; i < s->count && i < first + 64; i++) {
		uint64_t bit = (uint64_t)1 << (i - first);
		uint32_t whose = atomic_load(&s->entry[i].whose);

		if (whose != 0 && !(bits & bit)) {
			atomic_store(&s->entry[i].whose, 0);
			continue;
		}
		if (whose == 0)
			continue;
		if (!(whose & QY_TOMB) && !leads_to(l, whose - 1, qy_span_base(s) + (size_t)i * s->size)) {
			whose = QY_TOMB | qy_epoch_now();
			atomic_store(&s->entry[i].whose, whose);
		}
		*tombs += (whose & QY_TOMB) != 0;
		taken |= bit;
	}
	return taken;
}

static void recount(const quarry_lanes *l, struct qy_span *s)
{
	uint32_t used = 0, tombs = 0;

	for (uint32_t i = 0; i < s->count; i += 64) {
		uint64_t taken = recount_word(l, s, i, &tombs);

		used += (uint32_t)__builtin_popcountll(taken);
		if (s->count - i < 64)
			taken |= ~(uint64_t)0 << (s->count - i);
		atomic_store(&s->bits[i / 64], taken);
	}
	qy_publish(s->own_tombs, 0);
	atomic_store(&s->tombs, tombs);
	atomic_store(&s->used, used);
}

void qy_takers_recount(quarry_lanes *l, struct qy_lanes_cache *c)
{
	for (unsigned class = 0; class < qy_class_count(); class++) {
		struct qy_taker *t = &c->of[class];
		qy_counter *figure = &l->figures->of[class].taken;

		if (t->span == NULL)
			continue;
		recount(l, t->span);
		if (c != &l->mover)
			qy_uncount(figure, qy_min(qy_read(figure), (uint64_t)__builtin_popcountll(t->taken)));
		t->taken = 0;
		t->word = 0;
	}
}
