/* SPDX-License-Identifier: MIT */
/* From lane to lane, by the steps of a move (lanes.h): out of the fast lane by age, size, want of room, compaction or
 * call, and back by call. A handle's word alone changes. One thread at a time does it, which holds lanes->moving; what a
 * fork(2) cut off is undone by whoever comes next in the child. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/group.h"
#include "lib/lanes/note.h"
#include "numa/os.h"

#define PATIENCE ((uint64_t)1000000) /* ns that a tick, or who has no room, waits for others' scopes */
#define SPARES 16                    /* dead chunks that a tick leaves */
#define CHUNKS_TRIED 4               /* for want of room: some hold what stays */
#define CHUNKS_LOOKED 64             /* at once, by who has little time, */
#define BATCH 64                     /* who moves so many at once, */
#define BETWEEN 4096                 /* or so many bytes between two looks at the clock */
#define PIECE ((size_t)16 << 10)     /* of a large one */

struct transfer {
	quarry_lanes *l;
	int lane;
	uint64_t deadline; /* ns; 0: none */
	int64_t went;
	bool no_memory, hurried;
};

/* Whether one who is hurried has no time left. */
static bool is_late(const struct transfer *t)
{
	return t->hurried && qy_os->now_ns() >= t->deadline;
}

/* ---- a batch ---- */

static void give_up(quarry_lanes *l, struct qy_transfer *b)
{
	uint64_t word = b->word;

	atomic_compare_exchange_strong(&l->word[b->slot], &word, b->word & ~QUARRY_WORD_MOVING);
	b->to = NULL;
	qy_count_shared(&l->fast.given_up, 1);
}

static void untake(quarry_lanes *l, struct qy_lanes_cache *c, struct qy_transfer *b, int lane)
{
	if (lane == QUARRY_LANE_FAST)
		qy_fast_entomb(l, c, qy_head_of(b->to));
	else
		qy_untake_any(l, b->to, b->states);
}

/* Room for the object in the other lane, with its alignment; its entry. */
static struct qy_entry *room_for(struct transfer *t, struct qy_lanes_cache *c, struct qy_transfer *b, size_t size)
{
	const struct qy_head *head = qy_head_of(qy_word_address(b->word));
	struct qy_entry *entry = NULL;

	if (t->lane == QUARRY_LANE_SLOW) {
		qy_urgency = QUARRY_PRIORITY_CRITICAL;
		b->to = qy_take_any(t->l, &t->l->mover, size, qy_about_alignment(head->about), &entry, &b->states);
		qy_urgency = QUARRY_PRIORITY_NORMAL;
		return entry;
	}
	/* What its class had to give: no more can have been asked for. */
	head = qy_fast_take(t->l, c, size, qy_min(size & -size, 4096));
	b->to = head == NULL ? NULL : (void *)(uintptr_t)(head + 1);
	b->states = QUARRY_WORD_HEAD;
	return head == NULL ? NULL : &qy_head_of(b->to)->entry;
}

static void entomb_old(struct transfer *t, struct qy_lanes_cache *c, void *from)
{
	struct qy_span *s;
	uint32_t index;

	if (t->lane == QUARRY_LANE_SLOW) {
		qy_fast_entomb(t->l, c, qy_head_of(from));
		return;
	}
	s = qy_span_of(from, &index);
	qy_entomb(t->l, c, s, index);
}

/* False: it got late. */
static bool copy(const struct transfer *t, char *to, const char *from, size_t size)
{
	for (; t->hurried && size > PIECE; size -= PIECE, to += PIECE, from += PIECE) {
		qy_copy_object(to, from, PIECE);
		if (is_late(t))
			return false;
	}
	qy_copy_object(to, from, size);
	return true;
}

static void note_move(const struct transfer *t, const struct qy_transfer *b)
{
	if (t->lane == QUARRY_LANE_SLOW)
		qy_side_went(t->l, b->slot, b->word, QUARRY_MOVED_AGE + (int)b->why, QUARRY_LANE_FAST, QUARRY_LANE_SLOW);
	else
		qy_side_went(t->l, b->slot, b->word, QUARRY_MOVED_DEMOTED, QUARRY_LANE_SLOW, QUARRY_LANE_FAST);
}

/* In a scope: so what the word leads to stays. */
static void move_one(struct transfer *t, struct qy_lanes_cache *c, struct qy_transfer *b)
{
	quarry_lanes *l = t->l;
	void *from = qy_word_address(b->word);
	uint64_t word = b->word;
	struct qy_entry *entry;
	uint32_t marks;
	size_t size;

	b->to = NULL;
	if (atomic_load(&l->word[b->slot]) != word) {
		give_up(l, b);
		return;
	}
	marks = atomic_load(&qy_entry_at(from, word)->marks);
	size = qy_size_of(word);
	if ((marks & QY_MARK_HELD) || (entry = room_for(t, c, b, size)) == NULL) {
		t->no_memory |= !(marks & QY_MARK_HELD);
		give_up(l, b);
		return;
	}
	if (!copy(t, b->to, from, size) ||
	    !qy_canary_follow(l, b->slot, word, b->to, size, qy_size_of(qy_word_make(0, b->to) | b->states))) {
		untake(l, c, b, t->lane);
		give_up(l, b);
		return;
	}
	atomic_store_explicit(&entry->marks, marks, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, b->slot + 1, memory_order_relaxed);
	if (!atomic_compare_exchange_strong(&l->word[b->slot], &word, qy_word_make(word >> 48, b->to) | b->states |
								     (word & QUARRY_WORD_UNSEEN))) {
		untake(l, c, b, t->lane);
		give_up(l, b);
		return;
	}
	if (!(marks & QY_MARK_SLOW))
		atomic_fetch_add_explicit(&l->fast.stubs, t->lane == QUARRY_LANE_SLOW ? 1 : -1, memory_order_relaxed);
	entomb_old(t, c, from);
	if (marks & QY_MARK_SIDE)
		note_move(t, b);
	qy_count(&qy_figures_of(l, qy_class_of(size, 16, l->blob))->moved, 1);
	t->went++;
	if (t->lane == QUARRY_LANE_FAST) {
		qy_count(&l->fast.demoted, 1);
		return;
	}
	qy_count(&l->fast.promoted[b->why], 1);
	qy_count(&l->fast.promoted_bytes, size);
}

/* Tell the program's function of those that went and are there still. */
static void tell(quarry_lanes *l, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct qy_transfer *b = &l->fast.batch[i];
		quarry_handle h = 0;
		uint64_t word;

		if (b->to == NULL)
			continue;
		quarry_enter();
		word = atomic_load_explicit(&l->word[b->slot], memory_order_acquire);
		if (!((word ^ b->word) & QY_WORD_STATES))
			h = qy_handle_make(l, b->slot, word, atomic_load(&qy_entry_at(qy_word_address(word), word)->marks));
		quarry_leave();
		if (h != 0)
			l->fast.hook(l->fast.hook_arg, h, (int)b->why);
	}
}

static void run_batch(struct transfer *t)
{
	quarry_lanes *l = t->l;
	struct qy_lanes_cache *c = qy_lanes_cache(l);
	uint32_t count = l->fast.begun, i = 0;
	size_t since = 0;

	if (count == 0)
		return;
	if (c != NULL && qy_grace_wait(qy_grace_begin(), t->deadline)) {
		quarry_enter();
		for (; i < count; i++) {
			since += t->hurried ? qy_size_of(l->fast.batch[i].word) + BETWEEN / 16 : 0;
			if (since >= BETWEEN) {
				since = 0;
				if (is_late(t))
					break;
			}
			move_one(t, c, &l->fast.batch[i]);
		}
		quarry_leave();
	}
	for (; i < count; i++)
		give_up(l, &l->fast.batch[i]);
	l->fast.begun = 0;
	if (l->fast.hook != NULL && t->lane == QUARRY_LANE_SLOW)
		tell(l, count);
}

/* Its object is to be moved, if nobody stands against it. In a scope, or where its chunk is walked. */
static void add(struct transfer *t, uint32_t slot, uint64_t word, int why)
{
	quarry_lanes *l = t->l;

	if (atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_MOVING))
		l->fast.batch[l->fast.begun++] = (struct qy_transfer){ .slot = slot, .why = (uint32_t)why,
									.word = word | QUARRY_WORD_MOVING };
}

/* The one who moves, or not. */
static bool begin_quietly(quarry_lanes *l)
{
	if (qy_in_scope() || !qy_try_hold(&l->moving)) /* (the mover in the background is not waited for) */
		return false;
	atomic_store(&l->governor.inside, false);
	qy_transfers_undo(l);
	return true;
}

void qy_transfers_undo(quarry_lanes *l)
{
	l->mover_home = 0;
	for (uint32_t i = 0; i < l->fast.begun; i++) { /* cut off by a fork; qy_fast_keep has cared for chunks */
		struct qy_transfer *b = &l->fast.batch[i];

		if (b->to == NULL || qy_word_address(atomic_load(&l->word[b->slot])) != b->to)
			give_up(l, b);
	}
	l->fast.begun = 0;
}

static int begin(quarry_lanes *l)
{
	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, which a move would wait for");
	return begin_quietly(l) ? 0 : qy_fail(EBUSY, "another move is under way");
}

static void end(quarry_lanes *l)
{
	qy_takers_end(l, &l->mover); /* no segment stays behind as somebody's */
	qy_let_go(&l->moving);
	qy_events_deliver();
}

/* ---- chunks ---- */

/* What is to leave a chunk, and why. */
struct pass {
	uint32_t age; /* ticks, at least */
	int why;
	bool large;   /* large ones after one tick */
	bool retired; /* chunks that nobody makes objects in, alone */
	bool forced;  /* by the program's call: whatever the priority */
};

/* So old an object has to be to leave; UINT32_MAX: it stays. */
static uint32_t age_to_leave(quarry_lanes *l, const struct pass *p, uint32_t slot, uint32_t marks, size_t size)
{
	int priority = qy_priority_of(l, slot, marks);

	if (qy_flags_of(l, slot, marks) & QUARRY_HALLOC_NOSPILL)
		return UINT32_MAX;
	if (!p->forced && priority == QUARRY_PRIORITY_CRITICAL && p->why != QUARRY_PROMOTED_AGE)
		return UINT32_MAX;
	if (p->large && size > l->fast.large)
		return 1;
	return priority == QUARRY_PRIORITY_LOW ? p->age / 2 : p->age;
}

/* Have the objects that are to leave moved. The chunk is walked. When the next ones are due; at once, where it got late. */
static uint64_t walk(struct transfer *t, struct qy_chunk *k, const struct pass *p)
{
	quarry_lanes *l = t->l;
	const char *top = __atomic_load_n(&k->top, __ATOMIC_ACQUIRE);
	uint64_t tick = atomic_load(&l->fast.tick), due = UINT64_MAX;
	const uint32_t most = t->hurried ? BATCH : QY_BATCH;
	const char *looked = qy_chunk_first(k);
	struct qy_head *head;
	bool in_use = false;

	for (char *at = qy_chunk_first(k); at < top; at += qy_about_total(head->about)) {
		uint32_t whose, marks, age, needed;
		uint64_t word;

		if (at - looked >= BETWEEN) {
			looked = at;
			if (is_late(t)) {
				run_batch(t);
				return tick;
			}
		}
		head = (void *)at;
		whose = atomic_load_explicit(&head->entry.whose, memory_order_acquire);
		if (whose & QY_TOMB)
			continue;
		in_use = true; /* also while it changes its slot: its word is a free one's then */
		word = atomic_load(&l->word[whose - 1]);
		if ((word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD)) || qy_word_address(word) != head + 1)
			continue;
		marks = atomic_load(&head->entry.marks);
		age = qy_about_age(head->about, tick);
		needed = age_to_leave(l, p, whose - 1, marks, qy_about_total(head->about) - sizeof(*head));
		if (age >= needed && !(marks & QY_MARK_HELD))
			add(t, whose - 1, word, needed == 1 && p->large ? QUARRY_PROMOTED_SIZE : p->why);
		else if (needed != UINT32_MAX && age < needed)
			due = qy_min(due, tick + (needed - age));
		if (l->fast.begun == most)
			run_batch(t);
	}
	run_batch(t);
	/* What was pinned or written to is looked at again, not too soon. */
	return in_use || qy_peek(k->owner) != NULL ? qy_min(due, tick + l->fast.age) : UINT64_MAX;
}

/* Under the lock: the chunk that is looked at next. by_live: the one with the fewest; else the one that is due first. */
static struct qy_chunk *choose(quarry_lanes *l, const struct pass *p, uint64_t until, bool by_live)
{
	struct qy_chunk *best = NULL;

	for (struct qy_link *i = l->fast.chunks.next; i != &l->fast.chunks; i = i->next) {
		struct qy_chunk *k = qy_container(i, struct qy_chunk, link);

		if (k->dead || k->seen == l->fast.pass || k->due > until || (p->retired && qy_peek(k->owner) != NULL))
			continue;
		if (best == NULL || (by_live ? atomic_load(&k->live) < atomic_load(&best->live) : k->due < best->due))
			best = k;
	}
	if (best != NULL) {
		best->walked = true;
		best->seen = l->fast.pass;
	}
	return best;
}

static bool one_chunk(struct transfer *t, const struct pass *p, uint64_t until, bool by_live)
{
	quarry_lanes *l = t->l;
	struct qy_chunk *k;
	uint64_t due;

	qy_hold(&l->lock);
	k = choose(l, p, until, by_live);
	if (k != NULL)
		k->due = UINT64_MAX; /* its owner lowers it for what he makes from here on */
	qy_let_go(&l->lock);
	if (k == NULL)
		return false;
	due = walk(t, k, p);
	qy_hold(&l->lock);
	k->walked = false;
	k->due = k->dead ? UINT64_MAX : qy_min(k->due, due);
	qy_let_go(&l->lock);
	return true;
}

/* Under `moving`. */
static void all_chunks(struct transfer *t, const struct pass *p, uint64_t until)
{
	t->l->fast.pass++;
	while (one_chunk(t, p, until, false))
		;
}

/* Whether more than so many per cent of the fast lane are in use. */
static bool fuller_than(quarry_lanes *l, uint32_t percent)
{
	bool fuller;

	qy_hold(&l->lock);
	fuller = l->fast.size != 0 && l->fast.held - l->fast.dead_bytes > l->fast.size * percent / 100;
	qy_let_go(&l->lock);
	return fuller;
}

/* Under `moving`: when a tick has something to do next. */
static void find_due(quarry_lanes *l)
{
	uint64_t due = UINT64_MAX;

	qy_hold(&l->lock);
	for (struct qy_link *i = l->fast.chunks.next; i != &l->fast.chunks; i = i->next)
		due = qy_min(due, qy_container(i, struct qy_chunk, link)->due);
	atomic_store(&l->fast.due, due);
	qy_let_go(&l->lock);
}

static void promote_due(struct transfer *t)
{
	quarry_lanes *l = t->l;
	struct pass due = { .age = l->fast.age, .why = QUARRY_PROMOTED_AGE, .large = true };
	struct pass full = { .age = 1, .why = QUARRY_PROMOTED_USAGE, .retired = true };

	all_chunks(t, &due, atomic_load(&l->fast.tick));
	if (fuller_than(l, l->fast.usage)) {
		l->fast.pass++;
		while (fuller_than(l, 100 - l->fast.margin) && one_chunk(t, &full, UINT64_MAX - 1, false))
			;
	}
	find_due(l);
}

/* Under the lock: the next one that is not dead, of so many; NULL: none of them. From it the next call goes on. */
static struct qy_chunk *choose_next(quarry_lanes *l)
{
	struct qy_link *i = l->promote_next;
	struct qy_chunk *k = NULL;

	for (int n = 0; k == NULL && n < CHUNKS_LOOKED && i != &l->fast.chunks; n++) {
		k = qy_container(i, struct qy_chunk, link);
		if (k->dead) {
			k = NULL;
			i = i->next;
		}
	}
	l->promote_next = i;
	if (k != NULL) {
		k->walked = true;
		k->due = UINT64_MAX;
	}
	return k;
}

/* Until it is late, or the last of the chunks was looked at. */
static void promote_some(struct transfer *t, const struct pass *p)
{
	quarry_lanes *l = t->l;
	bool more = true;

	qy_hold(&l->lock);
	if (l->promote_next == NULL || l->promote_next == &l->fast.chunks)
		l->promote_next = l->fast.chunks.next;
	while (more) {
		struct qy_chunk *k = choose_next(l);
		uint64_t due;

		more = l->promote_next != &l->fast.chunks;
		qy_let_go(&l->lock);
		due = k == NULL ? UINT64_MAX : walk(t, k, p);
		more = more && !is_late(t);
		qy_hold(&l->lock);
		if (k == NULL)
			continue;
		k->walked = false;
		k->due = k->dead ? UINT64_MAX : qy_min(k->due, due);
		atomic_store(&l->fast.due, qy_min(atomic_load(&l->fast.due), k->due));
		if (more)
			l->promote_next = k->link.next;
	}
	qy_let_go(&l->lock);
}

void qy_promote_for_compaction(quarry_lanes *l, uint64_t deadline)
{
	struct transfer t = { .l = l, .lane = QUARRY_LANE_SLOW, .deadline = deadline, .hurried = deadline != 0 };
	struct pass p = { .age = 1, .why = QUARRY_PROMOTED_COMPACTION };

	if (t.hurried) {
		promote_some(&t, &p);
		l->promoted_out = l->confined && t.no_memory && !l->more_to_find;
	} else {
		all_chunks(&t, &p, UINT64_MAX);
		find_due(l);
	}
	qy_takers_end(l, &l->mover);
}

bool qy_promote_for_room(quarry_lanes *l)
{
	struct transfer t = { .l = l, .lane = QUARRY_LANE_SLOW };
	struct pass p = { .why = QUARRY_PROMOTED_FAILURE, .retired = true };
	uint64_t tick = atomic_load(&l->fast.tick);
	bool died;

	if (tick < qy_peek(l->fast.futile) || !begin_quietly(l))
		return false;
	t.deadline = qy_os->now_ns() + PATIENCE;
	l->fast.pass++;
	for (int i = 0; i < CHUNKS_TRIED && qy_peek(l->fast.dead_count) == 0; i++)
		if (!one_chunk(&t, &p, UINT64_MAX, true))
			break;
	died = qy_peek(l->fast.dead_count) > 0;
	if (!died)
		qy_publish(l->fast.futile, tick + 1);
	end(l);
	return died;
}

/* ---- calls ---- */

int64_t quarry_lanes_tick(quarry_lanes *l)
{
	struct transfer t = { .l = l, .lane = QUARRY_LANE_SLOW };
	uint64_t tick;

	if (!qy_lanes_check(l))
		return -1;
	tick = atomic_fetch_add(&l->fast.tick, 1) + 1;
	atomic_store(&l->fast.tick_bits, (tick & 0xffff) << QY_ABOUT_TICK_SHIFT);
	if (l->fast.compact != 0 && !qy_in_scope() &&
	    qy_os->now_ns() - atomic_load(&l->fast.checked) >= (uint64_t)l->fast.interval * 1000000)
		(void)quarry_maintain(l, 0);
	if (atomic_load_explicit(&l->groups.mortal, memory_order_relaxed) > 0 && !qy_in_scope())
		(void)qy_groups_expire(l);
	if (tick < atomic_load(&l->fast.due) || !begin_quietly(l))
		return 0;
	t.deadline = qy_os->now_ns() + PATIENCE;
	promote_due(&t);
	end(l);
	(void)qy_fast_trim(l, SPARES, 0);
	return t.went;
}

int64_t quarry_oneway_flush(quarry_lanes *l)
{
	struct transfer t = { .l = l, .lane = QUARRY_LANE_SLOW };
	struct pass p = { .why = QUARRY_PROMOTED_CALL, .forced = true };

	if (!qy_lanes_check(l) || begin(l) != 0)
		return -1;
	all_chunks(&t, &p, UINT64_MAX);
	find_due(l);
	end(l);
	(void)qy_fast_trim(l, 0, 0);
	return t.went;
}

/* In a scope: the lane of an object with such a word. */
static int lane_of(uint64_t word)
{
	return (word & QUARRY_WORD_HEAD) && qy_head_of(qy_word_address(word))->about != 0 ? QUARRY_LANE_FAST :
											     QUARRY_LANE_SLOW;
}

int quarry_handle_lane(quarry_lanes *l, quarry_handle h)
{
	uint64_t word;
	int lane = -1;

	if (!qy_lanes_check(l))
		return -1;
	quarry_enter();
	word = qy_look(l, h);
	if (word != 0)
		lane = lane_of(word);
	quarry_leave();
	return lane;
}

/* Whether an object may go: 0; -1 with the errno; 1: it is there already. */
static int may_go(quarry_lanes *l, quarry_handle h, int lane, uint64_t *word)
{
	*word = qy_look(l, h);
	if (*word == 0)
		return -1;
	if (lane_of(*word) == lane)
		return 1;
	if (lane == QUARRY_LANE_FAST && ((*word & QUARRY_WORD_HEAD) || qy_size_of(*word) > QY_FAST_MOST)) {
		return qy_fail(EFBIG, "it is beyond segments, or of more than 1,000,000 bytes");
	}
	return 0;
}

static void run_handles(struct transfer *t, const quarry_handle *h, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t word;

		quarry_enter();
		if (may_go(t->l, h[i], t->lane, &word) == 0)
			add(t, (uint32_t)h[i], word, QUARRY_PROMOTED_CALL);
		quarry_leave();
		if (t->l->fast.begun == QY_BATCH)
			run_batch(t);
	}
	run_batch(t);
}

int64_t qy_transfer(quarry_lanes *l, const quarry_handle *h, size_t count, int lane)
{
	struct transfer t = { .l = l, .lane = lane };

	if (begin(l) != 0)
		return -1;
	run_handles(&t, h, count);
	end(l);
	return t.went;
}

static int transfer_one(quarry_lanes *l, quarry_handle h, int lane)
{
	struct transfer t = { .l = l, .lane = lane };
	uint64_t word;
	int there;

	if (!qy_lanes_check(l))
		return -1;
	quarry_enter();
	there = may_go(l, h, lane, &word);
	quarry_leave();
	if (there != 0)
		return there == 1 ? 0 : -1;
	if (begin(l) != 0)
		return -1;
	run_handles(&t, &h, 1);
	end(l);
	if (t.went == 0 && l->canaries && quarry_handle_state(l, h) == QUARRY_HANDLE_CORRUPT)
		return qy_fail(EBADMSG, "it was written to beyond its end, and stays");
	if (t.went == 0)
		return t.no_memory ? qy_fail(ENOMEM, "no room in the other lane") :
				     qy_fail(EBUSY, "it is pinned, or somebody got it for writing or freed it meanwhile");
	return 0;
}

int quarry_promote(quarry_lanes *l, quarry_handle h)
{
	return transfer_one(l, h, QUARRY_LANE_SLOW);
}

int quarry_demote(quarry_lanes *l, quarry_handle h)
{
	return transfer_one(l, h, QUARRY_LANE_FAST);
}

int64_t quarry_maintain(quarry_lanes *l, uint64_t budget_us)
{
	struct transfer t = { .l = l, .lane = QUARRY_LANE_SLOW };
	quarry_lanes_stats s = { 0 };
	int64_t back = 0, compacted;
	bool due;

	if (!qy_lanes_check(l) || begin(l) != 0)
		return -1;
	atomic_store(&l->fast.checked, qy_os->now_ns());
	t.deadline = atomic_load(&l->fast.checked) + PATIENCE;
	promote_due(&t);
	end(l);
	back = (int64_t)qy_fast_trim(l, SPARES, 0);
	(void)quarry_usage_look(l);
	(void)qy_groups_expire(l);
	if (l->fast.compact == 0 || quarry_lanes_stats_get(l, &s) != 0)
		return back;
	if (l->fast.slow_size != 0)
		due = s.held >= l->fast.slow_size * l->fast.compact / 100;
	else
		due = s.live < s.held * l->fast.compact / 100;
	compacted = due ? quarry_compact(l, QUARRY_COMPACT_FULL, 0, budget_us) : 0;
	return compacted < 0 && errno != EBUSY ? -1 : back + (compacted > 0 ? compacted : 0);
}
