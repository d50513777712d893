/* SPDX-License-Identifier: MIT */
/* The mover: objects out of sparse segments into full ones, until the sparse ones are empty. (lanes.h has the steps, and
 * why each is there; plan.c which segments.)
 *
 * Time: no step is begun that, by what such steps took of late, does not end before the deadline, and whatever can be
 * long is cut: batches by what is left, large copies each so many bytes. What was begun and could not be ended is gone on
 * with by the next call; a segment stays drained meanwhile. */
#include <string.h>

#include "lib/base/lock.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/group.h"
#include "numa/os.h"

#define COPY_PIECE ((size_t)16 << 10)
#define UNIT_SHIFT 8 /* an object costs as much as so many bytes (log2) to be copied, beside these */
#define LOOKED 64    /* entries between two looks at the clock, */
#define UNITS 16     /* and what is moved between two */
#define UNIT_FIRST 400   /* ns, before anything was measured, */
#define UNIT_LEAST 10240 /* and 1024ths of one, never less */
#define BATCH_SHORT 256  /* objects of a batch of who is hurried: what is left of one is given up when the time is over */

bool qy_mover_late(const struct qy_mover *m)
{
	if (m->stop != NULL && atomic_load_explicit(m->stop, memory_order_relaxed) != 0)
		return true;
	return m->deadline != 0 && qy_os->now_ns() >= m->deadline;
}

/* (What a step took may have been by chance: with half of the time left it is tried.) */
uint64_t qy_mover_left(const struct qy_mover *m, uint64_t step)
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
	qy_publish(*longest, qy_max(ns, *longest - *longest / 16));
}

static uint32_t units_of(size_t size)
{
	return (uint32_t)(size >> UNIT_SHIFT) + 1;
}

/* ---- a batch ---- */

void qy_move_give_up(quarry_lanes *l, struct qy_move *b)
{
	uint64_t word = b->word;
	void *to = b->to;

	b->to = NULL; /* first: a fork in between costs the place, and does not have it given back twice */
	if (to != NULL)
		qy_untake(NULL, to);
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
		if (qy_mover_late(m))
			return false;
	}
	qy_copy_object(to, from, size);
	return true;
}

bool qy_mover_lock(quarry_lanes *l, const struct qy_mover *m)
{
	if (!l->hurried) {
		qy_hold(&l->lock);
		return true;
	}
	while (!qy_try_hold(&l->lock)) {
		if (qy_mover_late(m))
			return false;
		qy_spin();
	}
	return true;
}

/* Whether a call that is hurried has looked for room for such objects in vain. */
static bool is_full(const struct qy_mover *m, unsigned class)
{
	return class < QY_CLASSES_MAX && (m->full[class / 64] >> class % 64 & 1);
}

static void *take_room(quarry_lanes *l, const struct qy_span *s, struct qy_entry **entry)
{
	void *p;

	if (s->class != QY_CLASS_WHOLE)
		return qy_take(l, &l->mover.of[s->class], s->class, entry);
	p = qy_take_whole(l, s->size, true);
	if (p != NULL)
		*entry = qy_entry_of(p);
	return p;
}

/* Room for one as large; its entry. NULL: none; late: or that is not known. */
static void *room_for(quarry_lanes *l, struct qy_mover *m, const struct qy_span *s, struct qy_entry **entry, bool *late)
{
	void *p = NULL;

	*late = false;
	l->more_to_find = !is_full(m, s->class);
	while (p == NULL && l->more_to_find && !*late) {
		l->more_to_find = false;
		p = take_room(l, s, entry);
		*late = p == NULL && l->more_to_find && qy_mover_late(m);
	}
	if (p == NULL && !*late && l->hurried && s->class < QY_CLASSES_MAX)
		m->full[s->class / 64] |= (uint64_t)1 << s->class % 64;
	return p;
}

/* Of a segment that is emptied in part only whole spans are: what has room elsewhere was counted. */
static bool may_have_room(const struct qy_plan *p, const struct qy_span *s, uint32_t objects)
{
	return !p->partly || (s->class < QY_CLASSES_MAX && p->room[s->class] >= objects);
}

static void no_room(quarry_lanes *l, const struct qy_span *s, struct qy_move *b)
{
	if (!l->plan.partly) {
		stopped(l, b);
		return;
	}
	if (s->class < QY_CLASSES_MAX)
		l->plan.room[s->class] = 0;
	qy_move_give_up(l, b); /* as was to be expected */
}

/* The new place is the object's, and no batch's any more. In a scope: who frees the object meanwhile leaves a tombstone
 * there that nobody takes away. So in a child of fork(2) `to` is either NULL or a place that is nobody else's
 * (qy_moves_undo). */
static bool publish(quarry_lanes *l, struct qy_move *b)
{
	uint64_t word = b->word;
	bool moved;

	quarry_enter();
	moved = atomic_compare_exchange_strong(&l->word[b->slot], &word,
					       qy_word_make(word >> 48, b->to) | (word & QUARRY_WORD_UNSEEN));
	if (moved)
		b->to = NULL;
	atomic_signal_fence(memory_order_seq_cst);
	quarry_leave();
	return moved;
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
	bool late = false;

	/* (The word is looked at to save the copy: the exchange below decides. Pins are not in it: who pinned the object before it
	 * was marked has been waited for, and is seen here.) */
	if (atomic_load(&l->word[b->slot]) != word || (marks & QY_MARK_HELD)) {
		stopped(l, b);
		return true;
	}
	if (!may_have_room(&l->plan, s, 1) || (b->to = room_for(l, m, s, &entry, &late)) == NULL) {
		if (late)
			qy_move_give_up(l, b);
		else
			no_room(l, s, b);
		return !late;
	}
	if (!copy_object(b->to, from, size, m)) {
		qy_move_give_up(l, b);
		return false;
	}
	if (!qy_canary_follow(l, b->slot, word, b->to, size, size)) {
		stopped(l, b);
		return true;
	}
	atomic_store_explicit(&entry->marks, marks, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, b->slot + 1, memory_order_relaxed);
	if (!publish(l, b)) {
		stopped(l, b);
		return true;
	}
	qy_entomb(l, NULL, s, index);
	if (QY_UNLIKELY(marks & QY_MARK_SIDE))
		qy_side_moved(l, b->slot, b->word);
	qy_count(&qy_figures_of(l, s->class)->moved, 1);
	qy_count(&l->moved, 1);
	qy_count(&l->moved_bytes, size);
	l->plan.moved += size;
	if (l->plan.partly)
		l->plan.room[s->class]--;
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

/* Whether there is no room at hand for an object of this one. */
static bool takes_long(const quarry_lanes *l, const struct qy_span *s)
{
	return s->class >= QY_CLASSES_MAX || l->mover.of[s->class].taken == 0;
}

/* False: it got late. */
static bool run_batch(quarry_lanes *l, struct qy_mover *m, uint64_t marking_ns, uint32_t units)
{
	bool over = wait_for_scopes(l, m);
	uint64_t t = qy_os->now_ns();
	uint32_t i = 0, since = 0;

	for (; over && i < l->batched; i++) {
		uint32_t index;
		const struct qy_span *s = qy_span_of(qy_word_address(l->batch[i].word), &index);

		since += units_of(s->size);
		if (since >= UNITS || takes_long(l, s)) {
			since = 0;
			if (qy_mover_late(m))
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

		/* That far it came, and then perhaps to its end. */
		if (b->to != NULL && (qy_word_address(atomic_load(&l->word[b->slot])) == b->to ||
				      (atomic_load(&qy_entry_of(b->to)->whose) & QY_TOMB)))
			b->to = NULL;
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
	/* It may have been freed since, and the slot be another object's, of anywhere, or its word gone back (slots.c). */
	word = atomic_load(&l->word[slot]);
	if ((word & QUARRY_WORD_ADDRESS) == 0 || (word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD)) ||
	    qy_span_of(qy_word_address(word), &at) != s || at != index ||
	    (atomic_load_explicit(&s->entry[index].marks, memory_order_relaxed) & QY_MARK_HELD))
		return false;
	/* It is in the batch before its word says so: a fork in between leaves nothing begun that is not undone. */
	l->batch[l->batched] = (struct qy_move){ .slot = slot, .word = word | QUARRY_WORD_MOVING };
	atomic_signal_fence(memory_order_release);
	l->batched++;
	if (atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_MOVING))
		return true;
	l->batched--;
	return false;
}

/* ---- a segment ---- */

/* Mark what fits into the time: units; how far the victim was gone over is in the plan. */
static uint32_t mark(quarry_lanes *l, const struct qy_mover *m, uint64_t most)
{
	struct qy_plan *p = &l->plan;
	const uint32_t objects = l->hurried ? BATCH_SHORT : QY_BATCH;
	uint32_t units = 0, looked = 0;

	for (; p->page < QY_SEGMENT_PAGES; p->page++, p->object = 0) {
		const struct qy_span *s = &p->victim->span[p->page];

		if (atomic_load(&s->place) != QY_SPAN_DRAINING || is_full(m, s->class) || (p->object == 0 && !may_have_room(p, s, qy_live_of(s))))
			continue;
		for (; p->object < s->count; p->object++) {
			if (l->batched == objects || (units > 0 && units + units_of(s->size) > most) ||
			    (++looked % LOOKED == 0 && qy_mover_late(m)))
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
		uint64_t time = qy_mover_left(m, 2 * l->pace.grace), units = time == UINT64_MAX ? time : time * 1024 / l->pace.unit, t;
		uint32_t marked;

		if (units < UNITS && time < (m->deadline - m->begun) / 4)
			return false;
		t = qy_os->now_ns();
		marked = mark(l, m, units);
		if (l->batched > 0 && !run_batch(l, m, qy_os->now_ns() - t, marked))
			return false;
		if (qy_mover_late(m))
			return l->plan.page == QY_SEGMENT_PAGES;
	}
	return true;
}

/* What was in it is elsewhere; when the scopes of now are over, it is empty. False: it is late. */
static bool retire(quarry_lanes *l, const struct qy_mover *m)
{
	struct qy_plan *p = &l->plan;
	uint64_t t = qy_os->now_ns();

	p->victim->emptied = qy_grace_begin();
	note_longest(&l->pace.grace, qy_os->now_ns() - t);
	if (!qy_mover_lock(l, m))
		return false;
	qy_list_push_back(&p->drained, &p->victim->order);
	p->victim = NULL;
	qy_let_go(&l->lock);
	return true;
}

bool qy_mover_short(const struct qy_mover *m, uint64_t time)
{
	return m->deadline != 0 && m->deadline - m->begun < time;
}

/* Outside the lock. By a short call its memory goes back to the kernel in the reclaimer's time: the kernel takes memory back while
 * nobody else gives some back, who may take longer than such a call has. */
void qy_mover_give_back(quarry_lanes *l, struct qy_mover *m, struct qy_segment *g)
{
	uint64_t t = qy_os->now_ns();

	if (!qy_mover_short(m, QY_SHORT_NS))
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
		if (qy_mover_late(m) || !qy_mover_lock(l, m))
			return false;
		(void)qy_sweep(s);
		qy_span_settle(l, s);
		qy_let_go(&l->lock);
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

		if (!qy_grace_look(g->emptied) || qy_mover_left(m, l->pace.discard) == 0 || !sweep_drained(l, g, m))
			return;
		if (!qy_mover_lock(l, m))
			return;
		whole = g->free == UINT32_MAX;
		if (whole)
			qy_segment_leave(l, g);
		else
			qy_undrain(l, g);
		qy_let_go(&l->lock);
		if (whole) {
			qy_mover_give_back(l, m, g);
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

	/* (Who runs in slices and is asked to stop has promised nobody a time.) */
	l->confined = p->partly || (m->stop == NULL && qy_mover_short(m, QY_CONFINED_NS));
	l->mover_home = p->home;
	while (p->state != QY_PLAN_NONE && m->segments * QY_SEGMENT_SIZE < enough && !qy_mover_late(m)) {
		if (p->victim != NULL) {
			if (!empty(l, m) || !retire(l, m))
				break;
			finish(l, m);
		} else if (p->state == QY_PLAN_COUNTING) {
			(void)qy_plan_count(l);
		} else {
			qy_takers_end(l, &l->mover); /* else no segment that it takes from could be chosen */
			/* (Who wants so many bytes is told of those that went back, and is not to have others taken for that.) */
			(void)qy_plan_choose(l, largest(l, m), enough == SIZE_MAX && !l->confined);
		}
	}
	qy_takers_end(l, &l->mover);
	l->mover_home = 0;
	if (!qy_list_empty(&p->drained) && !qy_mover_late(m))
		(void)wait_for(m, qy_container(p->drained.prev, struct qy_segment, order)->emptied);
	finish(l, m);
	l->confined = false; /* for who promotes next, it is no such */
}

void qy_mover_begin(quarry_lanes *l)
{
	qy_moves_undo(l);
	l->confined = false;
	atomic_store(&l->hurried, false);
	l->mover_home = 0; /* (a fork may have cut off who had changed it) */
	if (l->pace.unit == 0)
		l->pace.unit = UNIT_FIRST * 1024;
	if (l->pace.unit > UNIT_FIRST * 1024)
		l->pace.unit -= (l->pace.unit - UNIT_FIRST * 1024) / 16;
}
