/* SPDX-License-Identifier: MIT */
/* To another memory node, by the steps of a move (lanes.h), in batches; and what that would cost. Objects go to segments of a
 * home of that node (lanes.h), where what packs them leaves them. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/copies.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/group.h"
#include "numa/os.h"

#define OBJECT_NS 400   /* an object costs so much beside its bytes, before anything was measured */
#define AT_ONCE 64      /* members of a group that are looked at between two holds of its lock */
#define NODES_KNOWN 64  /* segments of which it is remembered where they are */
#define BATCH_BYTES ((size_t)256 << 10) /* of a batch: whoever writes to one of its objects meanwhile keeps it where it is */
#define LOOKED 4096     /* slots between two looks at the clock */

struct migration {
	quarry_lanes *l;
	const struct qy_home *home;
	uint64_t deadline; /* ns; 0: none */
	int64_t went;
	size_t bytes; /* of the batch */
	bool no_memory;
	bool group;   /* to a home of a group's own */
};

/* ---- where an object is ---- */

enum where { THERE, STAYS, GOES };

static bool is_fast(uint64_t word)
{
	return (word & QUARRY_WORD_HEAD) && qy_head_of(qy_word_address(word))->about != 0;
}

/* In a scope: of a live object. */
static enum where where_is(const quarry_lanes *l, const struct qy_home *home, uint64_t word)
{
	void *p = qy_word_address(word);
	bool owned = atomic_load_explicit(&home->owner, memory_order_relaxed) != NULL;
	const struct qy_segment *g;

	if (atomic_load_explicit(&qy_entry_at(p, word)->marks, memory_order_relaxed) & QY_MARK_HELD)
		return STAYS;
	if (is_fast(word))
		return GOES;
	if (word & QUARRY_WORD_HEAD) {
		const struct qy_huge *record = qy_huge_of(p);

		if (owned)
			return THERE; /* it has its memory for itself */
		return record->elsewhere ? STAYS : quarry_arena_of(record->base) == home->arena ? THERE : GOES;
	}
	g = qy_segment_of(p);
	return l->home[g->home] == home || (!owned && quarry_arena_of(g) == home->arena) ? THERE : GOES;
}

static bool is_live(uint64_t word)
{
	return !(word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD)) && (word & QUARRY_WORD_ADDRESS) != 0;
}

/* ---- a batch ---- */

static void give_up(quarry_lanes *l, struct qy_transfer *b)
{
	uint64_t word = b->word;

	atomic_compare_exchange_strong(&l->word[b->slot], &word, b->word & ~QUARRY_WORD_MOVING);
	b->to = NULL;
	qy_count_shared(&l->fast.given_up, 1);
}

/* In a scope: what the object is aligned to, at the least. (Of a class that is what its size is, and it gets the same one; what has
 * pages for itself has no more than a page's anywhere.) */
static size_t alignment_of(uint64_t word)
{
	void *p = qy_word_address(word);

	if (is_fast(word))
		return qy_about_alignment(qy_head_of(p)->about);
	if (word & QUARRY_WORD_HEAD)
		return (size_t)((char *)p - (char *)qy_huge_of(p)->base);
	return 16;
}

static void entomb_old(quarry_lanes *l, struct qy_lanes_cache *c, uint64_t word)
{
	void *from = qy_word_address(word);
	struct qy_span *s;
	uint32_t index;

	if (is_fast(word)) {
		qy_fast_entomb(l, c, qy_head_of(from));
	} else if (word & QUARRY_WORD_HEAD) {
		qy_huge_release(l, qy_huge_of(from));
	} else {
		s = qy_span_of(from, &index);
		qy_entomb(l, c, s, index);
	}
}

static void count_one(const struct migration *m, const struct qy_transfer *b, uint32_t marks, size_t size, bool fast)
{
	quarry_lanes *l = m->l;

	if (fast && !(marks & QY_MARK_SLOW))
		atomic_fetch_add_explicit(&l->fast.stubs, 1, memory_order_relaxed);
	if (marks & QY_MARK_SIDE)
		qy_side_went(l, b->slot, b->word, m->group ? QUARRY_MOVED_PACKED : QUARRY_MOVED_NODE,
			     fast ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW, QUARRY_LANE_SLOW);
	qy_count(&qy_figures_of(l, qy_class_of(size, 16, l->blob))->moved, 1);
	qy_count(m->group ? &l->moved : &l->figures->migrated, 1);
	qy_count(&l->moved_bytes, size);
}

/* In a scope: so what the word leads to stays. */
static void move_one(struct migration *m, struct qy_lanes_cache *c, struct qy_transfer *b)
{
	quarry_lanes *l = m->l;
	uint64_t word = b->word;
	void *from = qy_word_address(word);
	struct qy_entry *entry = NULL;
	bool fast = false;
	uint32_t marks;
	size_t size;

	b->to = NULL;
	if (atomic_load(&l->word[b->slot]) != word) {
		give_up(l, b);
		return;
	}
	marks = atomic_load(&qy_entry_at(from, word)->marks);
	size = qy_size_of(word);
	fast = is_fast(word);
	if (!(marks & QY_MARK_HELD)) {
		qy_urgency = QUARRY_PRIORITY_CRITICAL;
		b->to = qy_take_any(l, &l->mover, size, alignment_of(word), &entry, &b->states);
		qy_urgency = QUARRY_PRIORITY_NORMAL;
		m->no_memory |= b->to == NULL;
	}
	if (b->to == NULL) {
		give_up(l, b);
		return;
	}
	qy_copy_object(b->to, from, size);
	if (!qy_canary_follow(l, b->slot, word, b->to, size, qy_size_of(qy_word_make(0, b->to) | b->states))) {
		qy_untake_any(l, b->to, b->states);
		give_up(l, b);
		return;
	}
	atomic_store_explicit(&entry->marks, marks, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, b->slot + 1, memory_order_relaxed);
	if (!atomic_compare_exchange_strong(&l->word[b->slot], &word, qy_word_make(word >> 48, b->to) | b->states |
								     (word & QUARRY_WORD_UNSEEN))) {
		qy_untake_any(l, b->to, b->states);
		give_up(l, b);
		return;
	}
	entomb_old(l, c, b->word);
	count_one(m, b, marks, size, fast);
	m->went++;
}

/* False: scopes held it up until it was late, and all of it is where it was. */
static bool run_batch(struct migration *m)
{
	quarry_lanes *l = m->l;
	struct qy_lanes_cache *c = qy_lanes_cache(l);
	uint32_t count = l->fast.begun, i = 0;
	bool over;

	if (count == 0)
		return true;
	over = qy_grace_wait(qy_grace_begin(), m->deadline);
	if (over && c != NULL) {
		quarry_enter();
		for (; i < count; i++)
			move_one(m, c, &l->fast.batch[i]);
		quarry_leave();
	}
	for (; i < count; i++)
		give_up(l, &l->fast.batch[i]);
	l->fast.begun = 0;
	m->bytes = 0;
	return over;
}

/* In a scope: the object of a slot is to go, if it may. */
static void add(struct migration *m, uint32_t slot, uint64_t word)
{
	quarry_lanes *l = m->l;

	if (!is_live(word) || (word & QUARRY_WORD_MOVING) || where_is(l, m->home, word) != GOES)
		return;
	if (!atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_MOVING))
		return;
	l->fast.batch[l->fast.begun++] = (struct qy_transfer){ .slot = slot, .word = word | QUARRY_WORD_MOVING };
	m->bytes += qy_size_of(word);
}

static bool is_full(const struct migration *m)
{
	return m->l->fast.begun == QY_BATCH || m->bytes >= BATCH_BYTES;
}

/* ---- begun and ended ---- */

static unsigned find_home(const quarry_lanes *l, int node)
{
	unsigned i = 1;

	while (i < l->homes && l->home[i]->node != node)
		i++;
	return i;
}

static int begin(struct migration *m)
{
	struct qy_mover mover = { .begun = qy_os->now_ns(), .deadline = m->deadline };
	quarry_lanes *l = m->l;

	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, which a move would wait for");
	if (!qy_mover_enter(l, &mover))
		return qy_fail(EBUSY, "another move is under way");
	qy_mover_begin(l);
	qy_transfers_undo(l);
	return 0;
}

/* To this home, which there may be one more of now. */
static int go_to(struct migration *m, unsigned home, quarry_arena *arena, int node)
{
	quarry_lanes *l = m->l;

	if (home == l->homes && !qy_home_make(l, arena, node)) {
		qy_let_go(&l->moving);
		return qy_fail(errno, errno == ENOSPC ? "there are 63 nodes and groups of these lanes already" : "no memory");
	}
	qy_takers_end(l, &l->mover); /* of the first home */
	m->home = l->home[home];
	l->mover_home = home;
	return 0;
}

static int enter(struct migration *m, int node)
{
	quarry_arena *arena = quarry_arena_of_node(node);

	if (arena == NULL)
		return qy_fail(EINVAL, "node: there is no node %d", node);
	return begin(m) != 0 ? -1 : go_to(m, find_home(m->l, node), arena, node);
}

/* The home of a group, one that nobody has any more, or the next there will be. Where objects of a group that ended are still is the last
 * choice: they would stand among this one's. */
static unsigned find_home_of(const quarry_lanes *l, const quarry_group *g)
{
	unsigned left = 0, empty = 0, i;

	for (i = 1; i < l->homes && atomic_load(&l->home[i]->owner) != g; i++)
		if (atomic_load(&l->home[i]->owner) == l) {
			left = i;
			empty = atomic_load(&l->home[i]->segments) == 0 ? i : empty;
		}
	if (i < l->homes || empty != 0)
		return i < l->homes ? i : empty;
	return left != 0 && l->homes == QY_HOMES ? left : l->homes;
}

static int enter_own(struct migration *m, const quarry_group *g)
{
	unsigned home;

	if (begin(m) != 0)
		return -1;
	home = find_home_of(m->l, g);
	if (go_to(m, home, m->l->arena, -1) != 0)
		return -1;
	atomic_store(&m->l->home[home]->owner, g);
	m->group = true;
	return 0;
}

void qy_home_leave(quarry_lanes *l, const quarry_group *g)
{
	qy_hold(&l->lock);
	for (unsigned i = 1; i < l->homes; i++)
		if (atomic_load(&l->home[i]->owner) == g)
			atomic_store(&l->home[i]->owner, l);
	qy_let_go(&l->lock);
}

/* What was tried is over. more: not all of it was. */
static int64_t leave(struct migration *m, bool more)
{
	quarry_lanes *l = m->l;

	qy_takers_end(l, &l->mover);
	l->mover_home = 0;
	qy_let_go(&l->moving);
	qy_events_deliver();
	if (m->went == 0 && m->no_memory)
		return qy_fail(ENOMEM, "there is no memory for any of them");
	if (m->went == 0 && more)
		return qy_fail(EAGAIN, "others held it up until the time was over");
	return m->went;
}

/* ---- calls ---- */

static void run_handles(struct migration *m, const quarry_handle *h, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t word;

		if (!qy_is_ours(m->l, h[i]) || !quarry_handle_valid(m->l, h[i]))
			continue;
		quarry_enter();
		word = atomic_load(&m->l->word[(uint32_t)h[i]]);
		if (!((word ^ h[i] << 16) & QUARRY_WORD_GENERATION))
			add(m, (uint32_t)h[i], word);
		quarry_leave();
		if (is_full(m))
			(void)run_batch(m); /* (without a deadline nothing holds it up) */
	}
	(void)run_batch(m);
}

int64_t quarry_handles_migrate(quarry_lanes *l, const quarry_handle *h, size_t count, int node)
{
	struct migration m = { .l = l };

	if (!qy_lanes_check(l))
		return -1;
	if (h == NULL && count > 0)
		return qy_fail(EINVAL, "handles: NULL, for %lu", (unsigned long)count);
	if (enter(&m, node) != 0)
		return -1;
	run_handles(&m, h, count);
	return leave(&m, false);
}

static int64_t run_group(struct migration *m, quarry_group *g)
{
	quarry_handle h[AT_ONCE];
	uint64_t left;

	for (left = qy_group_count(g); left > 0;) {
		size_t n;

		quarry_enter();
		n = qy_group_some(g, h, AT_ONCE, &left);
		quarry_leave();
		run_handles(m, h, n);
	}
	return leave(m, false);
}

int64_t quarry_group_migrate_node(quarry_group *g, int node)
{
	struct migration m = { 0 };

	if (!qy_group_check(g))
		return -1;
	m.l = g->lanes;
	return enter(&m, node) != 0 ? -1 : run_group(&m, g);
}

int64_t quarry_group_compact(quarry_group *g)
{
	struct migration m = { 0 };

	if (!qy_group_check(g))
		return -1;
	m.l = g->lanes;
	return enter_own(&m, g) != 0 ? -1 : run_group(&m, g);
}

static bool check_lane(int lane)
{
	if (lane == QUARRY_LANE_ANY || lane == QUARRY_LANE_FAST || lane == QUARRY_LANE_SLOW)
		return true;
	(void)qy_fail(EINVAL, "lane: %d is none", lane);
	return false;
}

/* In a scope: whether the live object is of the lane that is meant. */
static bool is_in(int lane, uint64_t word)
{
	return lane == QUARRY_LANE_ANY || is_fast(word) == (lane == QUARRY_LANE_FAST);
}

int64_t quarry_lanes_migrate(quarry_lanes *l, int lane, int node, uint64_t budget_us)
{
	uint64_t budget = qy_min(budget_us, UINT32_MAX) * 1000;
	struct migration m = { .l = l, .deadline = budget == 0 ? 0 : qy_os->now_ns() + budget };
	uint32_t looked = 0, first;
	bool late = false;

	if (!qy_lanes_check(l) || !check_lane(lane) || enter(&m, node) != 0)
		return -1;
	if (l->migration.lane != lane || l->migration.node != node || budget == 0)
		l->migration.next = 0;
	l->migration.lane = lane;
	l->migration.node = node;
	for (uint32_t *next = &l->migration.next; !late && (*next = qy_slot_in_memory_from(l, *next)) < atomic_load(&l->slots.next);
	     (*next)++) {
		uint64_t word = atomic_load_explicit(&l->word[*next], memory_order_acquire);

		if (is_live(word)) {
			quarry_enter();
			word = atomic_load_explicit(&l->word[*next], memory_order_acquire);
			if (is_live(word) && is_in(lane, word))
				add(&m, *next, word);
			quarry_leave();
		}
		if (is_full(&m)) {
			first = l->fast.batch[0].slot;
			if (!run_batch(&m)) { /* the next call goes on from there */
				*next = first;
				return leave(&m, true);
			}
			late = m.deadline != 0 && qy_os->now_ns() >= m.deadline;
		} else if (++looked % LOOKED == 0) {
			late = m.deadline != 0 && m.went > 0 && qy_os->now_ns() >= m.deadline;
		}
	}
	first = l->fast.batch[0].slot;
	if (!run_batch(&m)) {
		l->migration.next = first;
		late = true;
	} else if (!late) {
		l->migration.next = 0;
	}
	return leave(&m, late);
}

/* ---- the cost ---- */

struct costing {
	quarry_lanes *l;
	struct qy_home home; /* the arena and the node alone: it need not be there */
	quarry_migrate_cost cost;
	struct {
		const void *memory;
		int node;
	} known[NODES_KNOWN];
	int how;
};

/* The node of the memory at p, which is asked of the kernel once for 2 MiB. */
static int node_at(struct costing *k, const void *p)
{
	const void *memory = (const void *)((uintptr_t)p & ~(QY_SEGMENT_SIZE - 1));
	unsigned at = (unsigned)((uintptr_t)memory / QY_SEGMENT_SIZE) % NODES_KNOWN;
	quarry_page_info info;

	if (k->known[at].memory != memory) {
		k->known[at].memory = memory;
		k->known[at].node = quarry_where(p, 1, &info, 1) == 1 ? info.node : QUARRY_NODE_UNKNOWN;
	}
	return k->known[at].node;
}

static void cost_of(struct costing *k, uint64_t word)
{
	uint64_t size;

	if (!is_live(word)) {
		k->cost.staying += (word & QUARRY_WORD_COLD) != 0;
		return;
	}
	switch (where_is(k->l, &k->home, word)) {
	case THERE:
		k->cost.there++;
		break;
	case STAYS:
		k->cost.staying++;
		break;
	default:
		size = qy_size_of(word);
		k->cost.objects++;
		k->cost.bytes += size;
		k->cost.ns += qy_copy_ns(node_at(k, qy_word_address(word)), k->home.node, size, &k->how);
	}
}

static int begin_cost(struct costing *k, quarry_lanes *l, int node, const quarry_migrate_cost *cost)
{
	k->l = l;
	if (cost == NULL || (cost->struct_size != 0 && cost->struct_size != sizeof(*cost)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_migrate_cost");
	k->home.node = node;
	k->home.arena = quarry_arena_of_node(node);
	return k->home.arena == NULL ? qy_fail(EINVAL, "node: there is no node %d", node) : 0;
}

/* What moving is, beside the copies. */
static int end_cost(struct costing *k, quarry_migrate_cost *cost)
{
	uint64_t batches = (k->cost.objects + QY_BATCH - 1) / QY_BATCH;

	k->cost.struct_size = sizeof(*cost);
	k->cost.known = (uint32_t)k->how;
	k->cost.ns += k->cost.objects * OBJECT_NS + batches * qy_peek(k->l->pace.grace);
	*cost = k->cost;
	return 0;
}

static void cost_of_handles(struct costing *k, const quarry_handle *h, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		quarry_enter();
		if (qy_is_ours(k->l, h[i]) && quarry_handle_valid(k->l, h[i]))
			cost_of(k, atomic_load(&k->l->word[(uint32_t)h[i]]));
		quarry_leave();
	}
}

int quarry_handles_migrate_cost(quarry_lanes *l, const quarry_handle *h, size_t count, int node, quarry_migrate_cost *cost)
{
	struct costing k = { 0 };

	if (!qy_lanes_check(l) || begin_cost(&k, l, node, cost) != 0)
		return -1;
	if (h == NULL && count > 0)
		return qy_fail(EINVAL, "handles: NULL, for %lu", (unsigned long)count);
	cost_of_handles(&k, h, count);
	return end_cost(&k, cost);
}

int quarry_group_migrate_cost(quarry_group *g, int node, quarry_migrate_cost *cost)
{
	struct costing k = { 0 };
	quarry_handle h[AT_ONCE];
	uint64_t left;

	if (!qy_group_check(g) || begin_cost(&k, g->lanes, node, cost) != 0)
		return -1;
	for (left = qy_group_count(g); left > 0;) {
		size_t n;

		quarry_enter();
		n = qy_group_some(g, h, AT_ONCE, &left);
		quarry_leave();
		cost_of_handles(&k, h, n);
	}
	return end_cost(&k, cost);
}

int quarry_lanes_migrate_cost(quarry_lanes *l, int lane, int node, quarry_migrate_cost *cost)
{
	struct costing k = { 0 };

	if (!qy_lanes_check(l) || !check_lane(lane) || begin_cost(&k, l, node, cost) != 0)
		return -1;
	for (uint32_t slot = 0; (slot = qy_slot_in_memory_from(l, slot)) < atomic_load(&l->slots.next); slot++) {
		uint64_t word;

		quarry_enter();
		word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
		if (!is_live(word) || is_in(lane, word))
			cost_of(&k, word);
		quarry_leave();
	}
	return end_cost(&k, cost);
}
