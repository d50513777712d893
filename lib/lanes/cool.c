/* SPDX-License-Identifier: MIT */
/* What nobody looks at becomes cold, and comes back when somebody does.
 *
 * A pass over all slots marks each object's word as unseen. The first who then gets the object takes the mark away, on
 * the slow path of quarry_get, and nobody after him pays for it. What is still unseen in the next pass goes: a clock with
 * one hand, whose period follows how much comes back (F. Corbató, A paging experiment with the Multics system, 1968; the
 * feedback as in A. Lagar-Cavilla et al., Software-defined far memory in warehouse-scale computers, 2019).
 *
 * Becoming cold is a move (lanes.h has its steps), of many objects of a class to an extent of the store. Coming back is
 * the reader's: under the lock of the extent he takes room, has the bytes decompressed there and publishes the address. So
 * all who wait for one object wait for the one who is bringing it, and no reader of others does. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/lanes.h"
#include "numa/os.h"

#define PERIOD_MS 30000
#define PERIOD_MOST 64 /* times as long, where too much comes back */
#define BACK_PERCENT 2 /* of what is cold, in a period, is too much */
#define BACKOFF_MOST 64
#define SLICE_NS 2000000 /* in the background it runs so long at a time, */
#define PATIENCE_NS 500000 /* waits so long for scopes, */
#define SHARE 10         /* for so many percent of a processor */

#define REF_BITS 5 /* where a reference stands in a word: as the address does */

/* What is waiting to become an extent, of each class; and how the pass is getting on. Under lanes->moving. */
struct qy_cooling {
	struct {
		uint32_t *slot;
		uint32_t count, skip, backoff; /* skip: so many extents are not tried; it would not be worth it */
	} of[QY_CLASSES_MAX];
	unsigned char *raw;
	uint16_t what[QY_BATCH];
	uint32_t next;       /* slot that the pass is at */
	bool passing;
	uint64_t period, begin; /* ms; begin: of the next pass */
	uint64_t least;         /* the period that was asked for */
	uint64_t loaded;        /* by the pass before */
	uint64_t due;           /* ns: in the background, not before; */
	uint64_t patience;      /* and so long it waits for scopes; 0: a call, that waits as long as it takes */
};

/* ---- words ---- */

QY_INLINE uint32_t extent_of(uint64_t word)
{
	return (uint32_t)((word & QUARRY_WORD_ADDRESS) >> (REF_BITS + QY_COLD_OBJECTS_BITS));
}

QY_INLINE uint32_t index_of(uint64_t word)
{
	return (uint32_t)((word & QUARRY_WORD_ADDRESS) >> REF_BITS) & (QY_COLD_OBJECTS - 1);
}

QY_INLINE uint64_t cold_word(uint64_t generation, uint32_t extent, uint32_t index)
{
	return generation << 48 | ((uint64_t)extent << QY_COLD_OBJECTS_BITS | index) << REF_BITS | QUARRY_WORD_COLD;
}

/* ---- back ---- */

/* With the extent's lock: 0, or -1 with errno. */
static int bring_back(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot, uint64_t word)
{
	uint32_t extent = extent_of(word), index = index_of(word), size = qy_cold_size(l->cold, extent);
	uint16_t what = qy_cold_what(l->cold, extent, index);
	unsigned class = qy_class_of(size, 16);
	struct qy_taker *t = c == NULL || class >= QY_CLASSES_MAX ? NULL : &c->of[class];
	struct qy_entry *entry = NULL;
	void *p = t != NULL ? qy_take(l, t, class, &entry) : class == QY_CLASS_WHOLE ? qy_take_whole(l, size, false) : NULL;

	if (p == NULL) {
		errno = ENOMEM;
		return -1;
	}
	if (entry == NULL)
		entry = qy_entry_of(p);
	if (qy_cold_load(l->cold, extent, index, p) != 0) {
		qy_untake(t, p);
		return -1;
	}
	atomic_store_explicit(&entry->marks, (uint32_t)(what & 0xff) << QY_MARK_TYPE_SHIFT | (what >> 8) * QY_MARK_SLOW,
			      memory_order_relaxed);
	atomic_store_explicit(&entry->whose, slot + 1, memory_order_relaxed);
	if (!atomic_compare_exchange_strong(&l->word[slot], &word, qy_word_make(word >> 48, p))) {
		qy_untake(t, p); /* freed meanwhile */
		return 0;
	}
	qy_cold_drop(l->cold, extent);
	return 0;
}

int qy_warm(quarry_lanes *l, quarry_handle h, uint64_t word)
{
	struct qy_lanes_cache *c = qy_lanes_cache(l); /* before the lock, for it may be made now */
	uint32_t slot = (uint32_t)h, extent = extent_of(word);
	int result = 0;

	qy_cold_lock(l->cold, extent);
	if (atomic_load(&l->word[slot]) == word)
		result = bring_back(l, c, slot, word);
	qy_cold_unlock(l->cold, extent);
	return result;
}

int qy_cold_look(quarry_lanes *l, quarry_handle h, uint64_t word, struct qy_cold_object *o)
{
	uint32_t extent = extent_of(word);
	int same = 0;

	qy_cold_lock(l->cold, extent);
	if (atomic_load(&l->word[(uint32_t)h]) == word) {
		uint16_t what = qy_cold_what(l->cold, extent, index_of(word));

		*o = (struct qy_cold_object){ .size = qy_cold_size(l->cold, extent),
					      .evicted = qy_cold_is_evicted(l->cold, extent),
					      .corrupt = qy_cold_is_corrupt(l->cold, extent) };
		same = (h >> 48 & 0xff) == (what & 0xff) && h >> 63 == (uint64_t)(what >> 8) ? 1 : -1;
	}
	qy_cold_unlock(l->cold, extent);
	return same;
}

void qy_cold_forget(quarry_lanes *l, uint64_t word)
{
	qy_cold_lock(l->cold, extent_of(word));
	qy_cold_drop(l->cold, extent_of(word));
	qy_cold_unlock(l->cold, extent_of(word));
}

/* ---- away ---- */

/* In a scope: the span of a slot's object, when it may become cold, and which it is there. */
static struct qy_span *may_go(quarry_lanes *l, uint32_t slot, uint64_t *word, uint32_t *index)
{
	struct qy_span *s;

	*word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
	if ((*word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING)) ||
	    (*word & QUARRY_WORD_ADDRESS) == 0)
		return NULL;
	s = qy_span_of(qy_word_address(*word), index);
	return atomic_load_explicit(&s->entry[*index].marks, memory_order_relaxed) & QY_MARK_STAYS ? NULL : s;
}

/* Those of the list that still are to go: MOVING. */
static void begin_batch(quarry_lanes *l, const uint32_t *slot, uint32_t count, unsigned class, size_t size, bool unseen)
{
	quarry_enter();
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word;
		uint32_t index;
		struct qy_span *s = may_go(l, slot[i], &word, &index);

		if (s == NULL || s->class != class || s->size != size || (unseen && !(word & QUARRY_WORD_UNSEEN)))
			continue;
		if (atomic_compare_exchange_strong(&l->word[slot[i]], &word, word | QUARRY_WORD_MOVING))
			l->batch[l->batched++] = (struct qy_move){ .slot = slot[i], .word = word | QUARRY_WORD_MOVING };
	}
	quarry_leave();
}

/* What nobody wrote to since then stands side by side in raw; the others leave the batch. */
static void copy_batch(quarry_lanes *l, unsigned char *raw, uint16_t *what, size_t size)
{
	uint32_t kept = 0;

	quarry_enter();
	for (uint32_t i = 0; i < l->batched; i++) {
		struct qy_move *b = &l->batch[i];
		uint32_t marks, index;
		struct qy_span *s;

		if (atomic_load(&l->word[b->slot]) != b->word)
			continue; /* freed, or stopped: it is as it should be */
		s = qy_span_of(qy_word_address(b->word), &index);
		marks = atomic_load(&s->entry[index].marks);
		if (marks & QY_MARK_STAYS) {
			qy_move_give_up(l, b);
			continue;
		}
		qy_copy_object(raw + kept * size, qy_word_address(b->word), size);
		what[kept] = (uint16_t)(marks >> QY_MARK_TYPE_SHIFT | (marks & QY_MARK_SLOW ? 0x100 : 0));
		l->batch[kept++] = *b;
	}
	quarry_leave();
	l->batched = kept;
}

static uint32_t publish_batch(quarry_lanes *l, uint32_t extent)
{
	uint32_t gone = 0;

	for (uint32_t i = 0; i < l->batched; i++) {
		struct qy_move *b = &l->batch[i];
		uint64_t word = b->word;
		uint32_t index;

		if (!atomic_compare_exchange_strong(&l->word[b->slot], &word, cold_word(word >> 48, extent, i))) {
			qy_cold_forget(l, cold_word(0, extent, i));
			qy_move_give_up(l, b);
			continue;
		}
		struct qy_span *s = qy_span_of(qy_word_address(b->word), &index);

		qy_entomb(l, NULL, s, index);
		gone++;
	}
	l->batched = 0;
	return gone;
}

/* Have objects of a class become an extent. How many did; -1: there is no memory, or it is not worth it (ERANGE). */
static int64_t make_extent(quarry_lanes *l, const uint32_t *slot, uint32_t count, unsigned class, size_t size, bool unseen)
{
	struct qy_cooling *k = l->cooling;
	unsigned char *raw = k->raw, *large = NULL;
	int64_t extent = -1;
	int error;

	if (size > QY_COLD_RAW && (raw = large = quarry_malloc(size)) == NULL)
		return -1;
	begin_batch(l, slot, count, class, size, unseen);
	errno = 0;
	if (l->batched > 0 && qy_grace_wait(qy_grace_begin(), k->patience == 0 ? 0 : qy_os->now_ns() + k->patience)) {
		copy_batch(l, raw, k->what, size);
		if (l->batched > 0)
			extent = qy_cold_store(l->cold, raw, l->batched, (uint32_t)size, k->what);
	}
	error = extent < 0 && l->batched > 0 ? errno : 0;
	quarry_free(large);
	if (extent >= 0)
		return publish_batch(l, (uint32_t)extent);
	for (uint32_t i = 0; i < l->batched; i++)
		qy_move_give_up(l, &l->batch[i]);
	l->batched = 0;
	errno = error;
	return error == 0 ? 0 : -1;
}

static uint32_t extent_objects(size_t size)
{
	return (uint32_t)qy_min(qy_cold_objects_for(size), QY_BATCH);
}

/* What waits of a class goes. Where a whole extent does not become smaller, the next ones are not tried for a while. */
static int64_t flush_class(quarry_lanes *l, unsigned class, bool unseen)
{
	struct qy_cooling *k = l->cooling;
	int64_t gone = 0;

	if (k->of[class].count > 0 && k->of[class].skip == 0) {
		gone = make_extent(l, k->of[class].slot, k->of[class].count, class, qy_class_size(class), unseen);
		if (gone < 0 && errno == ERANGE && k->of[class].count == extent_objects(qy_class_size(class))) {
			k->of[class].backoff = (uint32_t)qy_min(k->of[class].backoff * 2 + 1, BACKOFF_MOST);
			k->of[class].skip = k->of[class].backoff;
		} else if (gone > 0) {
			k->of[class].backoff = 0;
		}
	} else if (k->of[class].skip > 0) {
		k->of[class].skip--;
	}
	k->of[class].count = 0;
	return gone < 0 ? 0 : gone;
}

static int64_t add_to_class(quarry_lanes *l, uint32_t slot, unsigned class, bool unseen)
{
	struct qy_cooling *k = l->cooling;
	uint32_t most = extent_objects(qy_class_size(class));

	if (k->of[class].slot == NULL) {
		k->of[class].slot = quarry_malloc(most * sizeof(uint32_t));
		if (k->of[class].slot == NULL)
			return 0;
	}
	k->of[class].slot[k->of[class].count++] = slot;
	return k->of[class].count == most ? flush_class(l, class, unseen) : 0;
}

/* One object is to go: with others of its class, or alone. How many went. */
static int64_t add_object(quarry_lanes *l, uint32_t slot, bool unseen)
{
	uint64_t word;
	uint32_t index;
	unsigned class = QY_CLASS_HUGE;
	size_t size = 0;
	struct qy_span *s;
	int64_t gone;

	quarry_enter();
	s = may_go(l, slot, &word, &index);
	if (s != NULL) {
		class = s->class;
		size = s->size;
	}
	quarry_leave();
	if (class < QY_CLASSES_MAX)
		return add_to_class(l, slot, class, unseen);
	if (class != QY_CLASS_WHOLE)
		return 0;
	gone = make_extent(l, &slot, 1, QY_CLASS_WHOLE, size, unseen);
	return gone < 0 ? 0 : gone;
}

static int64_t flush_all(quarry_lanes *l, bool unseen)
{
	int64_t gone = 0;

	for (unsigned class = 0; class < qy_class_count(); class++)
		gone += flush_class(l, class, unseen);
	return gone;
}

/* ---- passes ---- */

/* How soon the next pass begins: later, the more comes back. */
static void steer(quarry_lanes *l)
{
	struct qy_cooling *k = l->cooling;
	struct qy_cold_figures f;
	uint64_t back;

	qy_cold_count(l->cold, &f);
	back = f.loaded - k->loaded;
	k->loaded = f.loaded;
	if (back * 100 > f.objects * BACK_PERCENT)
		k->period = qy_min(k->period * 2, k->least * PERIOD_MOST);
	else
		k->period = qy_max(k->period * 3 / 4, k->least);
	k->begin = qy_os->now_ms() + k->period;
}

/* One slot's turn. How many objects went, of whichever. */
static int64_t pass_slot(quarry_lanes *l, uint32_t slot)
{
	uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_relaxed);

	if ((word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING)) ||
	    (word & QUARRY_WORD_ADDRESS) == 0)
		return 0;
	if (word & QUARRY_WORD_UNSEEN)
		return add_object(l, slot, true);
	(void)atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_UNSEEN);
	return 0;
}

static bool is_late(uint64_t deadline, const _Atomic(uint32_t) *wanted)
{
	return (deadline != 0 && qy_os->now_ns() >= deadline) ||
	       (wanted != NULL && atomic_load_explicit(wanted, memory_order_relaxed) != 0);
}

/* The pass goes on until the deadline (ns; 0: to its end), or somebody wants to move. */
static int64_t pass(quarry_lanes *l, uint64_t deadline, const _Atomic(uint32_t) *wanted)
{
	struct qy_cooling *k = l->cooling;
	int64_t gone = 0;

	while (k->next < atomic_load_explicit(&l->slots.next, memory_order_acquire)) {
		int64_t went = pass_slot(l, k->next++);

		gone += went;
		if ((went > 0 || k->next % 256 == 0) && is_late(deadline, wanted))
			return gone;
	}
	gone += flush_all(l, true);
	k->passing = false;
	steer(l);
	return gone;
}

static bool may_cool(quarry_lanes *l)
{
	struct qy_mover m = { 0 };

	if (!qy_lanes_check(l))
		return false;
	if (l->cold == NULL)
		(void)qy_fail(ENOTSUP, "these lanes have no cold memory: see quarry_lanes_attr.cold");
	else if (qy_in_scope())
		(void)qy_fail(EDEADLK, "the thread is in a scope, which a move would wait for");
	else if (!qy_mover_enter(l, &m))
		(void)qy_fail(EBUSY, "objects are being moved by another thread");
	else
		return true;
	return false;
}

/* Under l->moving. */
static int64_t go_on(quarry_lanes *l, uint64_t deadline, const _Atomic(uint32_t) *wanted)
{
	struct qy_cooling *k = l->cooling;
	int64_t gone = 0;

	qy_moves_undo(l);
	if (!k->passing && qy_os->now_ms() >= k->begin) {
		k->passing = true;
		k->next = 0;
	}
	if (k->passing)
		gone = pass(l, deadline, wanted);
	(void)qy_cold_evict(l->cold);
	return gone;
}

uint64_t qy_cool_slice(quarry_lanes *l, uint64_t now, _Atomic(uint32_t) *wanted)
{
	struct qy_cooling *k = l->cooling;
	uint64_t ms = qy_os->now_ms(), ended;

	if (now < k->due)
		return k->due;
	k->patience = PATIENCE_NS;
	(void)go_on(l, now + SLICE_NS, wanted);
	k->patience = 0;
	ended = qy_os->now_ns();
	if (k->passing)
		k->due = ended + (ended - now) * (100 - SHARE) / SHARE;
	else
		k->due = ended + (k->begin > ms ? k->begin - ms : 0) * 1000000;
	return k->due;
}

int64_t quarry_cool(quarry_lanes *l, uint64_t budget_us)
{
	int64_t gone;

	if (!may_cool(l))
		return -1;
	gone = go_on(l, budget_us == 0 ? 0 : qy_os->now_ns() + budget_us * 1000, NULL);
	pthread_mutex_unlock(&l->moving);
	return gone;
}

int64_t quarry_evict(quarry_lanes *l, const quarry_handle *h, size_t count)
{
	int64_t gone = 0;

	if (!may_cool(l))
		return -1;
	qy_moves_undo(l);
	(void)flush_all(l, true); /* what a pass has gathered */
	for (size_t i = 0; i < count; i++)
		if (quarry_handle_valid(l, h[i]))
			gone += add_object(l, (uint32_t)h[i], false);
	gone += flush_all(l, false);
	(void)qy_cold_evict(l->cold);
	pthread_mutex_unlock(&l->moving);
	return gone;
}

int64_t quarry_prefetch(quarry_lanes *l, const quarry_handle *h, size_t count)
{
	int64_t back = 0;

	if (!qy_lanes_check(l))
		return -1;
	for (size_t i = 0; i < count && l->cold != NULL; i++) {
		quarry_enter();
		back += qy_is_away(l, h[i]) && quarry_get(l, h[i]) != NULL;
		quarry_leave();
	}
	return back;
}

/* ---- made and ended ---- */

int qy_cooling_make(quarry_lanes *l, const quarry_cold_attr *a)
{
	const struct qy_codec *codec = qy_codec_find(a->codec == NULL ? "lz4" : a->codec);

	if (codec == NULL)
		return -1;
	l->cooling = quarry_calloc(1, sizeof(*l->cooling));
	if (l->cooling == NULL)
		return -1;
	l->cooling->raw = quarry_malloc(QY_COLD_RAW);
	if (l->cooling->raw == NULL)
		return -1;
	l->cooling->least = l->cooling->period = a->period_ms == 0 ? PERIOD_MS : a->period_ms;
	l->cold = qy_cold_make(codec, l->arena, a->memory_limit, a->directory, a->file_limit);
	return l->cold == NULL ? -1 : 0;
}

void qy_cooling_end(quarry_lanes *l)
{
	qy_cold_end(l->cold);
	if (l->cooling != NULL) {
		for (unsigned class = 0; class < QY_CLASSES_MAX; class++)
			quarry_free(l->cooling->of[class].slot);
		quarry_free(l->cooling->raw);
	}
	quarry_free(l->cooling);
}

int quarry_cold_stats_get(quarry_lanes *l, quarry_cold_stats *stats)
{
	quarry_cold_stats s = { .struct_size = sizeof(s) };
	struct qy_cold_figures f = { 0 };

	if (!qy_lanes_check(l))
		return -1;
	if (stats == NULL || (stats->struct_size != 0 && stats->struct_size != sizeof(s)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_cold_stats");
	if (l->cold != NULL)
		qy_cold_count(l->cold, &f);
	s.objects = f.objects;
	s.bytes = f.bytes;
	s.compressed = f.compressed;
	s.evicted = f.evicted;
	s.loaded = f.loaded;
	s.corrupt = f.corrupt;
	s.failures = f.failures;
	s.incompressible = f.incompressible;
	s.period_ms = l->cooling == NULL ? 0 : qy_peek(l->cooling->period);
	*stats = s;
	return 0;
}
