/* SPDX-License-Identifier: MIT */
/* What is cold comes back, when somebody wants it. (cool.c is how it went.)
 *
 * Coming back is the reader's: under the lock of the extent he takes room, has the bytes decompressed there and publishes
 * the address. So all who wait for one object wait for the one who is bringing it, and no reader of others does. */
#include <errno.h>
#include <stdlib.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/events.h"
#include "lib/lanes/glance.h"
#include "lib/lanes/group.h"
#include "numa/os.h"

#define STALL_MOST 5000000u /* ns: who took longer was stopped, or did not run */
#define EXPECTED 512 /* bytes that are had in the cache before they are written */

/* The first lines of where it comes to: nobody has used that of late. */
static void expect(const char *p, size_t size)
{
	for (size_t at = 0; at < qy_min(size, EXPECTED); at += QY_CACHE_LINE)
		__builtin_prefetch(p + at, 1);
}

/* With the extent's lock: 0, or -1 with errno. states: its word's, from then on. */
static int bring_back(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot, uint64_t word, uint64_t states)
{
	uint32_t extent = qy_cold_extent(word), index = qy_cold_index(word), size;
	uint16_t what;

	size = qy_cold_find(l->cold, extent, index, &what);

	unsigned class = qy_class_of(size, 16, l->blob);
	struct qy_taker *t = c == NULL || class >= QY_CLASSES_MAX ? NULL : &c->of[class];
	struct qy_entry *entry = NULL;
	void *p = t != NULL ? qy_take(l, t, class, &entry) : class == QY_CLASS_WHOLE ? qy_take_whole(l, size, false) : NULL;

	if (p == NULL) {
		errno = ENOMEM;
		return -1;
	}
	if (entry == NULL)
		entry = qy_entry_of(p);
	expect(p, size);
	if (qy_cold_load(l->cold, extent, index, p) != 0 || !qy_canary_is_back(l, p, size)) {
		qy_untake(t, p);
		return -1;
	}
	atomic_store_explicit(&entry->marks, qy_what_to_marks(what) | qy_life_mark(l, slot), memory_order_relaxed);
	atomic_store_explicit(&entry->whose, slot + 1, memory_order_relaxed);
	if (QY_UNLIKELY(what & QY_COLD_SIDE))
		qy_side_back(l, slot);
	if (!atomic_compare_exchange_strong(&l->word[slot], &word, qy_word_make(word >> 48, p) | states)) {
		qy_untake(t, p); /* freed meanwhile */
		return 0;
	}
	qy_cold_drop(l->cold, extent, index);
	qy_count_shared(&qy_figures_of(l, class)->refaults, 1);
	if (class == QY_CLASS_WHOLE)
		qy_count_shared(&qy_figures_of(l, class)->taken, 1);
	return 0;
}

/* Under the extent's lock, the word being the slot's. g: NULL, there is to be no copy. */
static int come(quarry_lanes *l, struct qy_lanes_cache *c, struct qy_glances *g, uint32_t slot, uint64_t word, const void **copy, bool asked)
{
	bool often = false;

	if (g != NULL && (*copy = qy_glance(g, l, slot, word, asked ? &often : NULL)) != NULL)
		return 0;
	if (bring_back(l, c, slot, word, often ? 0 : QUARRY_WORD_UNSEEN) == 0)
		return 0;
	if (g == NULL || errno != ENOMEM)
		return -1;
	*copy = qy_glance_at_least(g, l, slot, word);
	errno = ENOMEM;
	return *copy != NULL ? 0 : -1;
}

/* What is got now and then is copied, where it may be, and stays. What comes back all the same does so unseen, and who wants it now
 * does not change that: what is got only once before the next pass goes with that. (The second chance is for what was got
 * twice, as in 2Q: T. Johnson, D. Shasha, 1994.) */
int qy_warm(quarry_lanes *l, quarry_handle h, uint64_t word, const void **copy, bool asked)
{
	uint32_t slot = (uint32_t)h, extent = qy_cold_extent(word);
	bool refused = qy_glance_was_refused(l, slot);
	struct qy_glances *g = copy != NULL && l->glances && !refused ? qy_glances_of_thread() : NULL;
	struct qy_lanes_cache *c;
	bool told = slot % QY_STALLS_TOLD == 0;
	uint64_t begun = told ? qy_os->now_ns() : 0;
	int result = 0, error;

	if (g != NULL && (*copy = qy_glance_again(g, l, slot, word)) != NULL)
		return 0;
	qy_cold_expect(l->cold, extent, qy_cold_index(word));
	c = qy_lanes_cache(l); /* before the lock, for it may be made now */

	qy_cold_lock(l->cold, extent);
	if (atomic_load(&l->word[slot]) == word)
		result = come(l, c, g, slot, word, copy, asked);
	error = errno;
	qy_cold_unlock(l->cold, extent);
	if (told)
		qy_cold_stalled(l->cold, qy_min(qy_os->now_ns() - begun, STALL_MOST) * QY_STALLS_TOLD);
	if (QY_UNLIKELY(result != 0))
		return qy_fail(error, error == ENOMEM ? "no memory for a cold object to come back to" :
							"a cold object is lost, or cannot be read");
	return 0;
}

int qy_cold_look(quarry_lanes *l, quarry_handle h, uint64_t word, struct qy_cold_object *o)
{
	uint32_t extent = qy_cold_extent(word);
	int same = 0;

	qy_cold_lock(l->cold, extent);
	if (atomic_load(&l->word[(uint32_t)h]) == word) {
		uint16_t what = qy_cold_what(l->cold, extent, qy_cold_index(word));

		*o = (struct qy_cold_object){ .size = qy_cold_size(l->cold, extent),
					      .marks = qy_what_to_marks(what),
					      .evicted = qy_cold_is_evicted(l->cold, extent),
					      .corrupt = qy_cold_is_corrupt(l->cold, extent, qy_cold_index(word)) };
		same = (h >> 48 & 0xff) == (what & 0xff) && (h >> 63 != 0) == ((what & QY_COLD_SLOW) != 0) ? 1 : -1;
	}
	qy_cold_unlock(l->cold, extent);
	return same;
}

bool qy_cold_marks(quarry_lanes *l, uint32_t slot, uint64_t word, uint32_t *marks)
{
	uint32_t extent = qy_cold_extent(word);
	bool same;

	qy_cold_lock(l->cold, extent);
	same = atomic_load(&l->word[slot]) == word;
	if (same)
		*marks = qy_what_to_marks(qy_cold_what(l->cold, extent, qy_cold_index(word)));
	qy_cold_unlock(l->cold, extent);
	return same;
}

uint32_t qy_cold_forget(quarry_lanes *l, uint64_t word, bool freed)
{
	uint32_t extent = qy_cold_extent(word), marks;

	qy_cold_lock(l->cold, extent);
	marks = qy_what_to_marks(qy_cold_what(l->cold, extent, qy_cold_index(word)));
	if (freed)
		qy_count_shared(&qy_figures_of(l, qy_class_of(qy_cold_size(l->cold, extent), 16, l->blob))->cold_freed, 1);
	qy_cold_drop(l->cold, extent, qy_cold_index(word));
	qy_cold_unlock(l->cold, extent);
	return marks;
}

/* ---- many at once ---- */

#define WANTED 256 /* that are sorted at a time */

struct wanted {
	quarry_handle h;
	uint64_t word;
};

/* As they stand in the store. */
static int by_place(const void *a, const void *b)
{
	uint64_t one = ((const struct wanted *)a)->word & QUARRY_WORD_ADDRESS;
	uint64_t other = ((const struct wanted *)b)->word & QUARRY_WORD_ADDRESS;

	return (one > other) - (one < other);
}

/* Those of one extent, in a scope: its bytes are read at once, when there is more than one. How many are back. */
static int64_t bring_some(quarry_lanes *l, const struct wanted *w, size_t count)
{
	struct qy_lanes_cache *c = qy_lanes_cache(l);
	uint32_t extent = qy_cold_extent(w[0].word);
	bool staged = count == 1;
	int64_t back = 0;

	qy_cold_lock(l->cold, extent);
	for (size_t i = 0; i < count; i++) {
		/* (The extent is there while one of them says so, under its lock.) */
		if (atomic_load(&l->word[(uint32_t)w[i].h]) != w[i].word)
			continue;
		if (!staged)
			qy_cold_stage(l->cold, extent);
		staged = true;
		back += bring_back(l, c, (uint32_t)w[i].h, w[i].word, 0) == 0;
	}
	qy_cold_unstage(l->cold, extent);
	qy_cold_unlock(l->cold, extent);
	return back;
}

static int64_t bring_all(quarry_lanes *l, struct wanted *w, size_t count)
{
	int64_t back = 0;

	qsort(w, count, sizeof(*w), by_place);
	for (size_t first = 0, next; first < count; first = next) {
		for (next = first + 1; next < count && qy_cold_extent(w[next].word) == qy_cold_extent(w[first].word); next++)
			;
		quarry_enter();
		back += bring_some(l, &w[first], next - first);
		quarry_leave();
	}
	return back;
}

int64_t quarry_prefetch(quarry_lanes *l, const quarry_handle *h, size_t count)
{
	struct wanted w[WANTED];
	size_t n = 0;
	int64_t back = 0;

	if (!qy_lanes_check(l))
		return -1;
	for (size_t i = 0; i < count && l->cold != NULL; i++) {
		quarry_enter();
		if (qy_is_away(l, h[i], &w[n].word))
			w[n++].h = h[i];
		quarry_leave();
		if (n == WANTED) {
			back += bring_all(l, w, n);
			n = 0;
		}
	}
	back += bring_all(l, w, n);
	qy_events_deliver();
	return back;
}
