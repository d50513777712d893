/* SPDX-License-Identifier: MIT */
/* The mover: objects out of sparse segments into full ones, until the sparse ones are empty. (lanes.h has the steps, and
 * why each is there; plan.c which segments.)
 *
 * Time: no step is begun that, by what such steps took of late, does not end before the deadline, and whatever can be
 * long is cut: batches by what is left, large copies each so many bytes. What was begun and could not be ended is gone on
 * with by the next call; a segment stays drained meanwhile. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/lanes/fast.h"
#include "numa/os.h"

#define COPY_PIECE ((size_t)16 << 10)
#define UNIT_SHIFT 8 /* an object costs as much as so many bytes (log2) to be copied, beside these */
#define LOOKED 64    /* entries between two looks at the clock, */
#define UNITS 16     /* and what is moved between two */
#define UNIT_FIRST 400   /* ns, before anything was measured, */
#define UNIT_LEAST 10240 /* and 1024ths of one, never less */
#define PLAN_OLD_NS 10000000000u
#define REFUSED_NS 500000000 /* somebody's allocation takes at most so much longer, before it fails, */
#define REFUSED_WAIT_NS 20000000 /* and waits so long for scopes */
#define CONFINED_NS 10000000 /* less time than so much is too short for new segments */
#define ENDING 5             /* a part of the time that is kept: for what ends a call, and for what the machine takes */

static bool is_late(const struct qy_mover *m)
{
	if (m->stop != NULL && atomic_load_explicit(m->stop, memory_order_relaxed) != 0)
		return true;
	return m->deadline != 0 && qy_os->now_ns() >= m->deadline;
}

/* What is left of its time, less what a step took of late; but that may have been by chance: with half of the time left it
 * is tried. */
static uint64_t left(const struct qy_mover *m, uint64_t step)
{
	uint64_t now;

	if (m->deadline == 0)
		return UINT64_MAX;
	now = qy_os->now_ns();
	step = qy_min(step, (m->deadline - m->begun) / 2);
	return now + step >= m->deadline ? 0 : m->deadline - now - step;
}

/* The longest of late, forgotten by and by. */
static void note_longest(uint64_t *longest, uint64_t ns)
{
	*longest = qy_max(ns, *longest - *longest / 16);
}

static uint32_t units_of(size_t size)
{
	return (uint32_t)(size >> UNIT_SHIFT) + 1;
}

/* ---- a batch ---- */

void qy_move_give_up(quarry_lanes *l, struct qy_move *b)
{
	uint64_t word = b->word;

	if (b->to != NULL)
		qy_untake(NULL, b->to);
	b->to = NULL;
	atomic_compare_exchange_strong(&l->word[b->slot], &word, b->word & ~QUARRY_WORD_MOVING);
}

static void stopped(quarry_lanes *l, struct qy_move *b)
{
	qy_move_give_up(l, b);
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

static bool copy_object(char *to, const char *from, size_t size, const struct qy_mover *m)
{
	for (; size > COPY_PIECE; size -= COPY_PIECE, to += COPY_PIECE, from += COPY_PIECE) {
		qy_copy_object(to, from, COPY_PIECE);
		if (is_late(m))
			return false;
	}
	qy_copy_object(to, from, size);
	return true;
}

/* Room for one as large; its entry. NULL: none. */
static void *room_for(quarry_lanes *l, const struct qy_span *s, struct qy_entry **entry)
{
	void *p;

	if (s->class != QY_CLASS_WHOLE)
		return qy_take(l, &l->mover.of[s->class], s->class, entry);
	p = qy_take_whole(l, s->size, true);
	if (p != NULL)
		*entry = qy_entry_of(p);
	return p;
}

/* False: it is late, and the object is where it was. */
static bool move_one(quarry_lanes *l, struct qy_mover *m, struct qy_move *b)
{
	uint32_t index;
	void *from = qy_word_address(b->word);
	struct qy_span *s = qy_span_of(from, &index);
	uint32_t marks = atomic_load(&s->entry[index].marks);
	struct qy_entry *entry = NULL;
	uint64_t word = b->word;
	size_t size = s->size;

	if (atomic_load(&l->word[b->slot]) != word || (marks & QY_MARK_PINS) || (b->to = room_for(l, s, &entry)) == NULL) {
		stopped(l, b);
		return true;
	}
	if (!copy_object(b->to, from, size, m)) {
		qy_move_give_up(l, b);
		return false;
	}
	atomic_store_explicit(&entry->marks, marks, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, b->slot + 1, memory_order_relaxed);
	if (!atomic_compare_exchange_strong(&l->word[b->slot], &word, qy_word_make(word >> 48, b->to) | (word & QUARRY_WORD_UNSEEN))) {
		stopped(l, b);
		return true;
	}
	qy_entomb(l, NULL, s, index);
	qy_count(&l->moved, 1);
	qy_count(&l->moved_bytes, size);
	l->plan.moved += size;
	return true;
}

static bool wait_for(struct qy_mover *m, uint64_t epoch)
{
	uint64_t until = m->patience == 0 ? m->deadline : qy_min(m->deadline, qy_os->now_ns() + m->patience);
	bool over = qy_grace_wait(epoch, until);

	m->held_up |= !over;
	return over;
}

/* Has the kernel fence all threads, and waits for those who are in a scope; false: it is late. */
static bool wait_for_scopes(quarry_lanes *l, struct qy_mover *m)
{
	uint64_t t = qy_os->now_ns(), epoch = qy_grace_begin();

	note_longest(&l->pace.grace, qy_os->now_ns() - t);
	return wait_for(m, epoch);
}

/* So far the victim was gone over, and no farther. */
static void back_to(struct qy_plan *p, const struct qy_move *b)
{
	struct qy_span *s = qy_span_of(qy_word_address(b->word), &p->object);

	p->page = (uint32_t)(s - qy_segment_of(s)->span);
}

/* (A thread that lost its processor meanwhile is no measure; and the less fits by what was measured, the fewer measures
 * there are.) */
static void note_pace(struct qy_pace *pace, uint64_t ns, uint32_t units)
{
	uint64_t unit = qy_min(ns * 1024 / qy_max(units, 1), 4 * pace->unit);

	if (units >= UNITS || unit < pace->unit)
		pace->unit = qy_max((3 * pace->unit + unit) / 4, UNIT_LEAST);
}

/* False: it got late. */
static bool run_batch(quarry_lanes *l, struct qy_mover *m, uint64_t marking_ns, uint32_t units)
{
	bool over = wait_for_scopes(l, m);
	uint64_t t = qy_os->now_ns();
	uint32_t i = 0, since = 0;

	for (; over && i < l->batched; i++) {
		uint32_t index;

		since += units_of(qy_span_of(qy_word_address(l->batch[i].word), &index)->size);
		if (since >= UNITS) {
			since = 0;
			if (is_late(m))
				break;
		}
		if (!move_one(l, m, &l->batch[i]))
			break;
	}
	if (i < l->batched)
		back_to(&l->plan, &l->batch[i]);
	else
		note_pace(&l->pace, qy_os->now_ns() - t + marking_ns, units);
	over = i == l->batched;
	for (; i < l->batched; i++)
		qy_move_give_up(l, &l->batch[i]);
	l->batched = 0;
	return over;
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
static bool add_to_batch(quarry_lanes *l, const struct qy_span *s, uint32_t index)
{
	uint32_t whose = atomic_load_explicit(&s->entry[index].whose, memory_order_acquire), slot = whose - 1, at;
	uint64_t word;

	if (whose == 0 || (whose & QY_TOMB))
		return false;
	word = atomic_load(&l->word[slot]);
	if ((word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD)) ||
	    qy_segment_of(qy_word_address(word)) != qy_segment_of(s) ||
	    qy_span_of(qy_word_address(word), &at) != s || at != index ||
	    (atomic_load_explicit(&s->entry[index].marks, memory_order_relaxed) & QY_MARK_PINS))
		return false;
	if (!atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_MOVING))
		return false;
	l->batch[l->batched++] = (struct qy_move){ .slot = slot, .word = word | QUARRY_WORD_MOVING };
	return true;
}

/* ---- a segment ---- */

/* Mark what fits into the time: units; how far the victim was gone over is in the plan. */
static uint32_t mark(quarry_lanes *l, const struct qy_mover *m, uint64_t most)
{
	struct qy_plan *p = &l->plan;
	uint32_t units = 0, looked = 0;

	for (; p->page < QY_SEGMENT_PAGES; p->page++, p->object = 0) {
		const struct qy_span *s = &p->victim->span[p->page];

		if (atomic_load(&s->place) != QY_SPAN_DRAINING)
			continue;
		for (; p->object < s->count; p->object++) {
			if (l->batched == QY_BATCH || (units > 0 && units + units_of(s->size) > most) ||
			    (++looked % LOOKED == 0 && is_late(m)))
				return units;
			if (p->object + 8 < s->count)
				__builtin_prefetch(&l->word[atomic_load_explicit(&s->entry[p->object + 8].whose,
									       memory_order_relaxed) & (QY_TOMB - 1)]);
			if (add_to_batch(l, s, p->object))
				units += units_of(s->size);
		}
	}
	return units;
}

/* False: it got late, and the next call goes on. */
static bool empty(quarry_lanes *l, struct qy_mover *m)
{
	while (l->plan.page < QY_SEGMENT_PAGES) {
		uint64_t time = left(m, 2 * l->pace.grace), units = time == UINT64_MAX ? time : time * 1024 / l->pace.unit, t;
		uint32_t marked;

		if (units < UNITS && time < (m->deadline - m->begun) / 4)
			return false;
		t = qy_os->now_ns();
		marked = mark(l, m, units);
		if (l->batched > 0 && !run_batch(l, m, qy_os->now_ns() - t, marked))
			return false;
		if (is_late(m))
			return l->plan.page == QY_SEGMENT_PAGES;
	}
	return true;
}

/* What was in it is elsewhere; when the scopes of now are over, it is empty. */
static void retire(quarry_lanes *l)
{
	struct qy_plan *p = &l->plan;
	uint64_t t = qy_os->now_ns();

	p->victim->emptied = qy_grace_begin();
	note_longest(&l->pace.grace, qy_os->now_ns() - t);
	pthread_mutex_lock(&l->lock);
	qy_list_push_back(&p->drained, &p->victim->order);
	p->victim = NULL;
	pthread_mutex_unlock(&l->lock);
}

/* A segment that is of the lanes no more. Its memory goes back to the kernel and its place to the arena, outside the
 * lock. */
static void give_back(quarry_lanes *l, struct qy_mover *m, struct qy_segment *g)
{
	uint64_t t = qy_os->now_ns();

	(void)quarry_discard(g, QY_SEGMENT_SIZE);
	quarry_free(g);
	note_longest(&l->pace.discard, qy_os->now_ns() - t);
	qy_count(&l->freed_segments, 1);
	m->segments++;
}

/* Sweep a drained segment, span by span: false when it got late. */
static bool sweep_drained(quarry_lanes *l, struct qy_segment *g, const struct qy_mover *m)
{
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		struct qy_span *s = &g->span[i];

		if (atomic_load(&s->place) != QY_SPAN_DRAINING)
			continue;
		if (is_late(m))
			return false;
		pthread_mutex_lock(&l->lock);
		(void)qy_sweep(s);
		qy_span_settle(l, s);
		pthread_mutex_unlock(&l->lock);
	}
	return true;
}

/* Drained segments whose objects' scopes are over go back; those that did not become empty are taken from again. */
static void finish(quarry_lanes *l, struct qy_mover *m)
{
	struct qy_plan *p = &l->plan;

	while (!qy_list_empty(&p->drained)) {
		struct qy_segment *g = qy_container(p->drained.next, struct qy_segment, order);
		bool whole;

		if (!qy_grace_look(g->emptied) || left(m, l->pace.discard) == 0 || !sweep_drained(l, g, m))
			return;
		pthread_mutex_lock(&l->lock);
		whole = g->free == UINT32_MAX;
		if (whole)
			qy_segment_leave(l, g);
		else
			qy_undrain(l, g);
		pthread_mutex_unlock(&l->lock);
		if (whole) {
			give_back(l, m, g);
			p->freed++;
		}
	}
}

/* The largest object that is moved within the whole of the time. */
static size_t largest(const quarry_lanes *l, const struct qy_mover *m)
{
	return m->deadline == 0 ? SIZE_MAX : ((m->deadline - m->begun) / 2 * 1024 / l->pace.unit) << UNIT_SHIFT;
}

void qy_pack(quarry_lanes *l, struct qy_mover *m, size_t enough)
{
	struct qy_plan *p = &l->plan;

	l->confined = m->deadline != 0 && m->deadline - m->begun < CONFINED_NS;
	while (p->state != QY_PLAN_NONE && m->segments * QY_SEGMENT_SIZE < enough && !is_late(m)) {
		if (p->victim != NULL) {
			if (!empty(l, m))
				break;
			retire(l);
			finish(l, m);
		} else if (p->state == QY_PLAN_COUNTING) {
			(void)qy_plan_count(l);
		} else {
			qy_takers_end(l, &l->mover); /* else no segment that it takes from could be chosen */
			(void)qy_plan_choose(l, largest(l, m));
		}
	}
	qy_takers_end(l, &l->mover);
	if (!qy_list_empty(&p->drained) && !is_late(m))
		(void)wait_for(m, qy_container(p->drained.prev, struct qy_segment, order)->emptied);
	finish(l, m);
}

void qy_mover_begin(quarry_lanes *l)
{
	qy_moves_undo(l);
	if (l->pace.unit == 0)
		l->pace.unit = UNIT_FIRST * 1024;
	if (l->pace.unit > UNIT_FIRST * 1024)
		l->pace.unit -= (l->pace.unit - UNIT_FIRST * 1024) / 16;
}

void qy_mover_free(quarry_lanes *l, struct qy_mover *m)
{
	bool more = true;

	while (more && !is_late(m)) {
		more = qy_huge_bury(l, 1);
		pthread_mutex_lock(&l->lock);
		more |= qy_bury(l, 16);
		pthread_mutex_unlock(&l->lock);
	}
	for (more = true; more && left(m, l->pace.discard) > 0;) {
		struct qy_segment *g = NULL;

		pthread_mutex_lock(&l->lock);
		more = !qy_list_empty(&l->spares);
		if (more) {
			g = qy_container(l->spares.next, struct qy_segment, order);
			qy_segment_leave(l, g);
		}
		pthread_mutex_unlock(&l->lock);
		if (g != NULL)
			give_back(l, m, g);
	}
}

bool qy_mover_enter(quarry_lanes *l, const struct qy_mover *m)
{
	bool in;

	atomic_fetch_add(&l->governor.wanted, 1);
	while (!(in = pthread_mutex_trylock(&l->moving) == 0) && atomic_load(&l->governor.inside) && !is_late(m))
		qy_spin();
	if (in)
		atomic_store(&l->governor.inside, false);
	atomic_fetch_sub(&l->governor.wanted, 1);
	return in;
}

/* Under l->moving: a call that may take its time begins at the beginning. */
static void compact(quarry_lanes *l, struct qy_mover *m, int style, size_t enough, bool promote)
{
	struct qy_plan *p = &l->plan;

	qy_mover_begin(l);
	(void)qy_recall_end(l);
	qy_lanes_flush(l); /* what the thread takes from stays where it is */
	if (promote)
		qy_promote_for_compaction(l);
	(void)qy_fast_trim(l, 0);
	qy_mover_free(l, m);
	if (style == QUARRY_COMPACT_NONE)
		return;
	if (m->deadline == 0) /* what other threads took from and left is no reason to keep a segment */
		for (qy_recall_begin(l); !qy_recall_end(l);)
			sched_yield();
	if (m->deadline == 0 || p->state == QY_PLAN_NONE || m->begun - p->begun > PLAN_OLD_NS)
		qy_plan_begin(l, m->begun);
	qy_pack(l, m, style == QUARRY_COMPACT_FULL ? SIZE_MAX : enough);
	while (m->deadline == 0 && style == QUARRY_COMPACT_FULL && qy_plan_gained(l)) {
		qy_plan_begin(l, m->begun); /* what was counted is not what is there now */
		qy_pack(l, m, SIZE_MAX);
	}
	if (m->deadline == 0) {
		pthread_mutex_lock(&l->lock);
		qy_scratch_trim(l, false);
		qy_scratch_fill(l);
		pthread_mutex_unlock(&l->lock);
	}
	if (m->deadline != 0 && p->state == QY_PLAN_NONE && p->owned > 0 && !is_late(m))
		qy_recall_begin(l);
	qy_mover_free(l, m);
}

bool qy_pack_for_refused(quarry_lanes *l)
{
	struct qy_mover m = { .begun = qy_os->now_ns(), .patience = REFUSED_WAIT_NS };
	uint64_t segments;

	m.deadline = m.begun + REFUSED_NS;
	if (qy_in_scope() || !qy_mover_enter(l, &m))
		return false;
	segments = atomic_load(&l->segment_count);
	l->plan.state = QY_PLAN_NONE;
	compact(l, &m, QUARRY_COMPACT_ENOUGH, QY_SEGMENT_SIZE, false);
	pthread_mutex_unlock(&l->moving);
	return m.segments > 0 && atomic_load(&l->segment_count) < segments;
}

int64_t quarry_compact(quarry_lanes *l, int style, size_t enough, uint64_t budget_us)
{
	bool promote = (style & QUARRY_COMPACT_PROMOTE) != 0 && style >= 0;
	struct qy_mover m = { .begun = qy_os->now_ns() };
	uint64_t budget = qy_min(budget_us, UINT32_MAX) * 1000;

	if (!qy_lanes_check(l))
		return -1;
	style -= promote ? QUARRY_COMPACT_PROMOTE : 0;
	if (style < QUARRY_COMPACT_NONE || style > QUARRY_COMPACT_FULL)
		return qy_fail(EINVAL, "style: %d is none", style);
	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, which a compaction would wait for");
	m.deadline = budget == 0 ? 0 : m.begun + budget - budget / ENDING;
	if (!qy_mover_enter(l, &m)) {
		if (is_late(&m) && atomic_load(&l->governor.inside))
			return 0; /* the thread in the background took as long as this may */
		return qy_fail(EBUSY, "another compaction is under way");
	}
	compact(l, &m, style, enough, promote);
	pthread_mutex_unlock(&l->moving);
	return (int64_t)(m.segments * QY_SEGMENT_SIZE);
}
