/* SPDX-License-Identifier: MIT */
/* The mover: objects out of sparse segments into full ones, until the sparse ones are empty. (lanes.h has the steps, and
 * why each is there.) */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/fast.h"
#include "numa/os.h"

#define FULL_PERCENT 85 /* of a segment: fuller ones stay as they are */

struct mover {
	uint64_t deadline; /* ns; 0: none */
	uint32_t segments; /* that went back */
};

static bool is_late(const struct mover *m)
{
	return m->deadline != 0 && qy_os->now_ns() >= m->deadline;
}

/* ---- a batch ---- */

void qy_move_give_up(quarry_lanes *l, struct qy_move *b)
{
	uint64_t word = b->word;

	if (b->to != NULL)
		qy_untake(NULL, b->to);
	atomic_compare_exchange_strong(&l->word[b->slot], &word, b->word & ~QUARRY_WORD_MOVING);
	qy_count(&l->given_up, 1);
}

/* A writer that stops the move may write while this reads: what was copied is dropped then, for the word that would
 * publish it is not the same any more. (As with sequence locks; H.-J. Boehm, Can seqlocks get along with programming
 * language memory models?, 2012.) ThreadSanitizer is not told of it. */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread")))
#endif
void qy_copy_object(void *to, const void *from, size_t size)
{
#ifdef __SANITIZE_THREAD__
	for (size_t i = 0; i < size / sizeof(uint64_t); i++)
		((volatile uint64_t *)to)[i] = ((const volatile uint64_t *)from)[i];
#else
	memcpy(to, from, size);
#endif
}

static void move_one(quarry_lanes *l, struct qy_move *b)
{
	uint32_t index;
	void *from = qy_word_address(b->word);
	struct qy_span *s = qy_span_of(from, &index);
	uint32_t marks = atomic_load(&s->entry[index].marks);
	struct qy_entry *entry = NULL;
	uint64_t word = b->word;
	size_t size = s->size;

	if (atomic_load(&l->word[b->slot]) != word || (marks & QY_MARK_PINS)) {
		qy_move_give_up(l, b);
		return;
	}
	if (s->class != QY_CLASS_WHOLE)
		b->to = qy_take(l, &l->mover.of[s->class], s->class, &entry);
	else if ((b->to = qy_take_whole(l, size)) != NULL)
		entry = qy_entry_of(b->to);
	if (b->to == NULL) {
		qy_move_give_up(l, b);
		return;
	}
	qy_copy_object(b->to, from, size);
	atomic_store_explicit(&entry->marks, marks, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, b->slot + 1, memory_order_relaxed);
	if (!atomic_compare_exchange_strong(&l->word[b->slot], &word, qy_word_make(word >> 48, b->to) | (word & QUARRY_WORD_UNSEEN))) {
		qy_move_give_up(l, b);
		return;
	}
	qy_entomb(l, NULL, s, index);
	qy_count(&l->moved, 1);
	qy_count(&l->moved_bytes, size);
}

static void run_batch(quarry_lanes *l, struct mover *m)
{
	uint32_t i = 0;

	if (qy_grace_wait(qy_grace_begin(), m->deadline))
		for (; i < l->batched && !is_late(m); i++)
			move_one(l, &l->batch[i]);
	for (; i < l->batched; i++)
		qy_move_give_up(l, &l->batch[i]);
	l->batched = 0;
}

void qy_moves_undo(quarry_lanes *l)
{
	for (uint32_t i = 0; i < l->batched; i++) {
		struct qy_move *b = &l->batch[i];

		if (b->to != NULL && qy_word_address(atomic_load(&l->word[b->slot])) == b->to)
			b->to = NULL; /* that far it came */
		qy_move_give_up(l, b);
	}
	l->batched = 0;
}

/* The object with this entry of a span is to be moved, if it is one and nobody stands against it. */
static void add_to_batch(quarry_lanes *l, const struct qy_span *s, uint32_t index)
{
	uint32_t whose = atomic_load_explicit(&s->entry[index].whose, memory_order_acquire), slot = whose - 1, at;
	uint64_t word;

	if (whose == 0 || (whose & QY_TOMB))
		return;
	word = atomic_load(&l->word[slot]);
	if ((word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD)) ||
	    qy_segment_of(qy_word_address(word)) != qy_segment_of(s) ||
	    qy_span_of(qy_word_address(word), &at) != s || at != index ||
	    (atomic_load_explicit(&s->entry[index].marks, memory_order_relaxed) & QY_MARK_PINS))
		return;
	if (atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_MOVING))
		l->batch[l->batched++] = (struct qy_move){ .slot = slot, .word = word | QUARRY_WORD_MOVING };
}

/* ---- which segments ---- */

#define BUCKETS 32 /* of segments, by how much in them is live */

/* What there is room for, before anything is moved: objects of each class in spans that have an owner no more, and pages
 * of no span. Only what has a place to go to is moved, so a compaction that can gain nothing moves nothing. */
struct plan {
	uint32_t room[QY_CLASSES_MAX];
	uint32_t pages;
	struct qy_link bucket[BUCKETS];
};

static bool is_span(const struct qy_span *s)
{
	uint8_t place = atomic_load_explicit(&s->place, memory_order_relaxed);

	return place != QY_SPAN_NONE && place != QY_SPAN_INSIDE;
}

static uint32_t live_of(const struct qy_span *s)
{
	return atomic_load_explicit(&s->used, memory_order_relaxed) - atomic_load_explicit(&s->tombs, memory_order_relaxed);
}

/* The bytes of its live objects; SIZE_MAX: somebody takes from it. */
static size_t live_bytes(const struct qy_segment *g)
{
	size_t live = 0;

	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (!is_span(s))
			continue;
		if (atomic_load_explicit(&s->place, memory_order_relaxed) == QY_SPAN_OWNED)
			return SIZE_MAX;
		live += (size_t)live_of(s) * s->size;
	}
	return live;
}

static void count_room(struct plan *plan, const struct qy_segment *g)
{
	plan->pages += (uint32_t)__builtin_popcount(g->free);
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (is_span(s) && s->class < QY_CLASSES_MAX &&
		    atomic_load_explicit(&s->place, memory_order_relaxed) != QY_SPAN_OWNED)
			plan->room[s->class] += s->count - live_of(s);
	}
}

/* Under the lock. */
static void make_plan(quarry_lanes *l, struct plan *plan)
{
	memset(plan, 0, sizeof(*plan));
	for (int i = 0; i < BUCKETS; i++)
		qy_list_init(&plan->bucket[i]);
	for (struct qy_link *k = l->segments.next; k != &l->segments; k = k->next) {
		struct qy_segment *g = qy_container(k, struct qy_segment, link);
		size_t live;

		qy_list_init(&g->order);
		if (g->draining || g->free == UINT32_MAX)
			continue;
		count_room(plan, g);
		live = live_bytes(g);
		if (live < QY_SEGMENT_SIZE / 100 * FULL_PERCENT)
			qy_list_push_back(&plan->bucket[live * BUCKETS / QY_SEGMENT_SIZE], &g->order);
	}
}

/* Whether its objects have room in the others: then that room is theirs. */
static bool reserve(struct plan *plan, const struct qy_segment *g)
{
	struct { uint32_t room, live; } own[QY_CLASSES_MAX] = { { 0, 0 } };
	uint32_t pages = plan->pages - (uint32_t)__builtin_popcount(g->free), needed = 0;

	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (!is_span(s))
			continue;
		if (s->class == QY_CLASS_WHOLE) {
			needed += live_of(s) * s->pages;
			continue;
		}
		own[s->class].live += live_of(s);
		own[s->class].room += s->count - live_of(s);
	}
	for (unsigned class = 0; class < qy_class_count(); class++) {
		uint32_t room = plan->room[class] - (uint32_t)qy_min(own[class].room, plan->room[class]);

		if (own[class].live > room)
			needed += qy_pages_for(class, own[class].live - room);
	}
	if (needed > pages)
		return false;
	plan->pages = pages - needed;
	for (unsigned class = 0; class < qy_class_count(); class++)
		plan->room[class] -= (uint32_t)qy_min(own[class].room + own[class].live, plan->room[class]);
	return true;
}

/* Under the lock: the segment that costs the fewest bytes to empty; NULL: there is none. */
static struct qy_segment *choose(struct plan *plan)
{
	for (int i = 0; i < BUCKETS; i++)
		while (!qy_list_empty(&plan->bucket[i])) {
			struct qy_segment *g = qy_container(plan->bucket[i].next, struct qy_segment, order);

			qy_list_remove(&g->order);
			if (live_bytes(g) != SIZE_MAX && reserve(plan, g))
				return g;
		}
	return NULL;
}

/* ---- a segment ---- */

/* Nothing is taken from it any more. */
static void drain(struct qy_segment *g)
{
	g->draining = true;
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		struct qy_span *s = &g->span[i];
		uint8_t place = atomic_load(&s->place);

		if (place == QY_SPAN_LISTED)
			qy_list_remove(&s->link);
		if (place == QY_SPAN_LISTED || place == QY_SPAN_FULL)
			atomic_store(&s->place, QY_SPAN_DRAINING);
	}
}

static void empty(quarry_lanes *l, struct qy_segment *g, struct mover *m)
{
	for (unsigned i = 0; i < QY_SEGMENT_PAGES && !is_late(m); i++) {
		struct qy_span *s = &g->span[i];

		if (atomic_load(&s->place) != QY_SPAN_DRAINING)
			continue;
		for (uint32_t n = 0; n < s->count; n++) {
			add_to_batch(l, s, n);
			if (l->batched == QY_BATCH)
				run_batch(l, m);
		}
	}
	if (l->batched > 0)
		run_batch(l, m);
}

static void settle_drained(quarry_lanes *l, struct qy_segment *g, bool sweep)
{
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		struct qy_span *s = &g->span[i];

		if (atomic_load(&s->place) != QY_SPAN_DRAINING)
			continue;
		if (sweep)
			(void)qy_sweep(s);
		qy_span_settle(l, s);
	}
}

/* Drained segments whose objects' scopes are over go back; with `all` those that did not become empty are taken from
 * again. */
static void finish(quarry_lanes *l, struct mover *m, bool all)
{
	struct qy_link *k, *next;

	pthread_mutex_lock(&l->lock);
	for (k = l->segments.next; k != &l->segments; k = next) {
		struct qy_segment *g = qy_container(k, struct qy_segment, link);

		next = k->next;
		if (!g->draining)
			continue;
		settle_drained(l, g, true);
		if (all && g->free != UINT32_MAX) {
			g->draining = false;
			settle_drained(l, g, false);
		}
		if (!g->draining || g->free != UINT32_MAX)
			continue;
		(void)quarry_discard((char *)g + QY_SEGMENT_RECORD, QY_SEGMENT_SIZE - QY_SEGMENT_RECORD);
		qy_segment_end(l, g);
		m->segments++;
	}
	pthread_mutex_unlock(&l->lock);
}

static void pack(quarry_lanes *l, struct mover *m, int style, size_t enough)
{
	struct plan plan;

	pthread_mutex_lock(&l->lock);
	make_plan(l, &plan);
	pthread_mutex_unlock(&l->lock);
	while (!is_late(m) && (style == QUARRY_COMPACT_FULL || m->segments * QY_SEGMENT_SIZE < enough)) {
		struct qy_segment *g;

		qy_takers_end(l, &l->mover); /* else no segment that it takes from could be chosen */
		pthread_mutex_lock(&l->lock);
		g = choose(&plan);
		if (g != NULL)
			drain(g);
		pthread_mutex_unlock(&l->lock);
		if (g == NULL)
			break;
		empty(l, g, m);
		if (qy_grace_look(qy_grace_begin()))
			finish(l, m, false);
	}
	qy_takers_end(l, &l->mover);
	(void)qy_grace_wait(qy_grace_begin(), m->deadline);
	finish(l, m, true);
}

int64_t quarry_compact(quarry_lanes *l, int style, size_t enough, uint64_t budget_us)
{
	bool promote = (style & QUARRY_COMPACT_PROMOTE) != 0 && style >= 0;
	struct mover m = { 0 };

	if (!qy_lanes_check(l))
		return -1;
	style -= promote ? QUARRY_COMPACT_PROMOTE : 0;
	if (style < QUARRY_COMPACT_NONE || style > QUARRY_COMPACT_FULL)
		return qy_fail(EINVAL, "style: %d is none", style);
	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, which a compaction would wait for");
	if (pthread_mutex_trylock(&l->moving) != 0)
		return qy_fail(EBUSY, "another compaction is under way");
	m.deadline = budget_us == 0 ? 0 : qy_os->now_ns() + budget_us * 1000;
	qy_moves_undo(l);
	qy_lanes_flush(l); /* what the thread takes from stays where it is */
	if (promote)
		qy_promote_for_compaction(l);
	(void)qy_fast_trim(l, 0);
	qy_huge_bury(l);
	pthread_mutex_lock(&l->lock);
	qy_bury(l);
	pthread_mutex_unlock(&l->lock);
	if (style != QUARRY_COMPACT_NONE)
		pack(l, &m, style, enough);
	pthread_mutex_lock(&l->lock);
	m.segments += qy_spares_end(l);
	pthread_mutex_unlock(&l->lock);
	qy_count(&l->freed_segments, m.segments);
	pthread_mutex_unlock(&l->moving);
	return (int64_t)(m.segments * QY_SEGMENT_SIZE);
}
