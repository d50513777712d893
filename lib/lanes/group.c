/* SPDX-License-Identifier: MIT */
/* Groups, hints, priorities. (group.h has the rules.) */
#include "lib/lanes/group.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/note.h"
#include "numa/os.h"

#define SAMPLED 16 /* of so many objects that come to a group, one's life is told */
#define AT_ONCE 64 /* members that are visited between two holds of the lock */

/* ---- records ---- */

void qy_groups_start(quarry_lanes *l)
{
	pthread_mutex_init(&l->groups.lock, NULL);
	qy_list_init(&l->groups.all);
	qy_list_init(&l->groups.notes);
}

static size_t side_pages(const quarry_lanes *l)
{
	return (l->map.slots + QY_SIDES - 1) / QY_SIDES;
}

void qy_groups_end(quarry_lanes *l)
{
	while (!qy_list_empty(&l->groups.all)) {
		quarry_group *g = qy_container(l->groups.all.next, quarry_group, link);

		qy_list_remove(&g->link);
		g->magic = 0;
		quarry_free(g);
	}
	qy_notes_end(l);
	for (size_t i = 0; l->groups.side != NULL && i < side_pages(l); i++)
		quarry_free(atomic_load(&l->groups.side[i]));
	quarry_free((void *)l->groups.side);
}

bool qy_side_make(quarry_lanes *l, uint32_t slot)
{
	_Atomic(struct qy_side *) *at;

	if (l->groups.side == NULL)
		__atomic_store_n(&l->groups.side, quarry_calloc(side_pages(l), sizeof(*l->groups.side)), __ATOMIC_RELEASE);
	if (l->groups.side == NULL)
		return false;
	at = &l->groups.side[slot / QY_SIDES];
	if (atomic_load(at) == NULL)
		atomic_store_explicit(at, quarry_calloc(QY_SIDES, sizeof(struct qy_side)), memory_order_release);
	return atomic_load(at) != NULL;
}

/* Under groups.lock: an object leaves the group that it is in. How many pins of that group's it has, which the caller
 * takes back without the lock. */
static unsigned leave(quarry_lanes *l, uint32_t slot)
{
	struct qy_side *side = qy_side_of(l, slot);
	quarry_group *g = side->group;
	unsigned pins = side->pins;

	if (g == NULL)
		return 0;
	g->objects--;
	g->bytes -= (uint64_t)side->units * 16;
	qy_side_of(l, side->next - 1)->prev = side->prev;
	qy_side_of(l, side->prev - 1)->next = side->next;
	if (g->first == slot + 1)
		g->first = side->next;
	if (g->look == slot + 1)
		g->look = side->next;
	if (g->objects == 0)
		g->left = g->first = g->look = 0;
	side->group = NULL;
	side->pins = 0;
	return pins;
}

static void unpin(quarry_lanes *l, quarry_handle h, unsigned pins)
{
	while (pins-- > 0)
		(void)quarry_unpin(l, h);
}

/* Under groups.lock. */
static void join(quarry_group *g, uint32_t slot, size_t size)
{
	quarry_lanes *l = g->lanes;
	struct qy_side *side = qy_side_of(l, slot);

	side->group = g;
	side->pins = 0;
	side->units = (uint32_t)qy_min(size / 16, UINT32_MAX);
	side->came = qy_os->now_ms();
	side->next = side->prev = slot + 1;
	if (g->first != 0) {
		side->next = g->first;
		side->prev = qy_side_of(l, g->first - 1)->prev;
		qy_side_of(l, side->prev - 1)->next = slot + 1;
		qy_side_of(l, side->next - 1)->prev = slot + 1;
	} else {
		g->first = slot + 1;
	}
	g->left += g->left > 0; /* (it may have come before others that are to be looked at) */
	g->objects++;
	g->came++;
	g->bytes += (uint64_t)side->units * 16;
	g->peak = qy_max(g->peak, g->bytes);
}

void qy_side_end(quarry_lanes *l, uint32_t slot, const struct qy_lived *lived)
{
	qy_hold(&l->groups.lock);
	if (lived->group > 0 && qy_side_of(l, slot)->group != NULL)
		qy_lives_add(&qy_side_of(l, slot)->group->lives, lived->us, lived->group);
	(void)leave(l, slot); /* nobody has it pinned */
	qy_note_end(l, slot);
	qy_let_go(&l->groups.lock);
}

/* (Who frees it changes its word before it waits for the lock: as long as the generation is the word's, the record is its.) */
void qy_side_went(quarry_lanes *l, uint32_t slot, uint64_t word, int why, int from, int to)
{
	qy_hold(&l->groups.lock);
	if (atomic_load(&l->word[slot]) >> 48 == word >> 48) {
		if (qy_side_of(l, slot)->group != NULL && why < QUARRY_MOVED_COOLED)
			qy_side_of(l, slot)->group->moved++;
		qy_note_move(l, slot, why, from, to);
	}
	qy_let_go(&l->groups.lock);
}

/* (Whose slot it is nobody can have meanwhile: who frees it waits for the extent.) */
void qy_side_back(quarry_lanes *l, uint32_t slot)
{
	uint32_t tick = (uint32_t)atomic_load_explicit(&l->fast.tick, memory_order_relaxed);

	atomic_store_explicit(&qy_side_of(l, slot)->back, tick | QY_SIDE_BACK, memory_order_relaxed);
}

uint64_t qy_side_mark(quarry_lanes *l, quarry_handle h, uint32_t more)
{
	for (;;) {
		uint64_t word = qy_look(l, h), now;
		struct qy_entry *entry;
		struct qy_side *side;

		if (word == 0)
			return 0;
		if (!qy_side_make(l, (uint32_t)h)) {
			(void)qy_fail(ENOMEM, "no memory to note hints or a group");
			return 0;
		}
		entry = qy_entry_at(qy_word_address(word), word);
		side = qy_side_of(l, (uint32_t)h);
		if (!(atomic_load(&entry->marks) & QY_MARK_SIDE)) {
			atomic_store_explicit(&side->flags, 0, memory_order_relaxed);
			atomic_store_explicit(&side->priority, QUARRY_PRIORITY_NORMAL, memory_order_relaxed);
			atomic_store_explicit(&side->back, 0, memory_order_relaxed);
			side->group = NULL;
			side->note = NULL;
			more |= QY_MARK_SIDE;
		}
		if (more != 0)
			atomic_fetch_or(&entry->marks, more);
		/* A move that had read the marks before is stopped. */
		now = qy_settle_word(l, h);
		if (now == 0 || ((now ^ word) & QUARRY_WORD_ADDRESS) == 0)
			return now;
	}
}

/* ---- hints ---- */

int quarry_hint(quarry_lanes *l, quarry_handle h, uint32_t flags, int priority)
{
	uint64_t word;

	if (!qy_lanes_check(l))
		return -1;
	if ((flags & ~(uint32_t)(QUARRY_HALLOC_FRAME_CRITICAL | QUARRY_HALLOC_EVICTABLE | QUARRY_HALLOC_NOSPILL)) != 0 ||
	    priority < 0 || priority > QUARRY_PRIORITY_CRITICAL)
		return qy_fail(EINVAL, "flags 0x%x or priority %d", (unsigned)flags, priority);
	quarry_enter();
	(void)qy_look(l, h); /* in memory: nobody reads from a disk under the lock */
	qy_hold(&l->groups.lock);
	word = qy_side_mark(l, h, 0);
	if (word != 0) {
		atomic_store_explicit(&qy_side_of(l, (uint32_t)h)->flags, (uint8_t)flags, memory_order_relaxed);
		atomic_store_explicit(&qy_side_of(l, (uint32_t)h)->priority, (uint8_t)priority, memory_order_relaxed);
	}
	qy_let_go(&l->groups.lock);
	quarry_leave();
	return word == 0 ? -1 : 0;
}

int quarry_handle_attr(quarry_lanes *l, quarry_handle h, quarry_halloc_attr *attr)
{
	quarry_halloc_attr a = { .struct_size = sizeof(a), .type = h >> 48 & 0xff };
	uint64_t word;
	uint32_t marks;

	if (!qy_lanes_check(l))
		return -1;
	if (attr == NULL || (attr->struct_size != 0 && attr->struct_size != sizeof(a)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_halloc_attr");
	a.lane = (uint16_t)quarry_handle_lane(l, h);
	quarry_enter();
	(void)qy_look(l, h);
	qy_hold(&l->groups.lock);
	word = qy_look(l, h);
	if (word != 0) {
		marks = atomic_load(&qy_entry_at(qy_word_address(word), word)->marks);
		a.flags = qy_flags_of(l, (uint32_t)h, marks);
		a.priority = (uint16_t)qy_priority_of(l, (uint32_t)h, marks);
		a.group = marks & QY_MARK_SIDE ? qy_side_of(l, (uint32_t)h)->group : NULL;
	}
	qy_let_go(&l->groups.lock);
	quarry_leave();
	if (word == 0)
		return -1;
	*attr = a;
	return 0;
}

/* ---- groups ---- */

bool qy_group_check(const quarry_group *g)
{
	if (QY_LIKELY(g != NULL && g->magic == QY_GROUP_MAGIC))
		return true;
	(void)qy_fail(EINVAL, "this is no group");
	return false;
}

quarry_group *quarry_group_create(quarry_lanes *l, const quarry_group_attr *attr)
{
	static const quarry_group_attr none;
	quarry_group *g;

	if (!qy_lanes_check(l))
		return NULL;
	attr = attr == NULL ? &none : attr;
	if ((attr->struct_size != 0 && attr->struct_size != sizeof(*attr)) || attr->flags != 0) {
		(void)qy_fail(EINVAL, "struct_size or flags of the quarry_group_attr");
		return NULL;
	}
	g = quarry_calloc(1, sizeof(*g));
	if (g == NULL)
		return NULL;
	g->magic = QY_GROUP_MAGIC;
	g->lanes = l;
	g->limit = attr->limit;
	if (attr->name != NULL)
		memcpy(g->name, attr->name, strnlen(attr->name, sizeof(g->name) - 1));
	qy_hold(&l->groups.lock);
	qy_list_push_back(&l->groups.all, &g->link);
	qy_let_go(&l->groups.lock);
	return g;
}

int quarry_group_destroy(quarry_group *g)
{
	if (!qy_group_check(g))
		return -1;
	while (quarry_group_unpin(g) > 0)
		;
	qy_hold(&g->lanes->groups.lock);
	while (g->first != 0)
		(void)leave(g->lanes, g->first - 1);
	qy_list_remove(&g->link);
	if (g->ttl != 0)
		atomic_fetch_sub(&g->lanes->groups.mortal, 1);
	qy_let_go(&g->lanes->groups.lock);
	qy_home_leave(g->lanes, g);
	g->magic = 0;
	quarry_free(g);
	return 0;
}

/* Under groups.lock, in a scope. One that is freed as we mark it is a sample no more. (Who freed it waits for the lock, for
 * what stands beside it, before its slot is another's.) */
static void sample(quarry_lanes *l, quarry_handle h, uint64_t word, size_t size)
{
	bool fast = (word & QUARRY_WORD_HEAD) && qy_head_of(qy_word_address(word))->about != 0;
	uint32_t marks = qy_life_begin(l, (uint32_t)h, qy_class_of(size, 16, l->blob), fast, 0, SAMPLED);

	if (marks != 0 && qy_side_mark(l, h, marks) == 0)
		(void)qy_life_end(l, (uint32_t)h);
}

/* Under groups.lock, in a scope. 0, or the errno, with its text; pins: as leave. (Who frees it after mark has looked at its word finds the
 * mark, and waits for the lock.) */
static int add(quarry_group *g, quarry_handle h, unsigned *pins)
{
	quarry_lanes *l = g->lanes;
	uint64_t word = qy_side_mark(l, h, 0);
	size_t size;

	if (word == 0)
		return errno;
	if (qy_side_of(l, (uint32_t)h)->group == g)
		return 0;
	size = qy_size_of(word);
	if (g->limit != 0 && g->bytes + size > g->limit) {
		g->refused++;
		(void)qy_fail(ENOMEM, "the group has %lu bytes: %lu more are beyond its limit", (unsigned long)g->bytes, (unsigned long)size);
		return ENOMEM;
	}
	*pins = leave(l, (uint32_t)h);
	join(g, (uint32_t)h, size);
	if (g->came % SAMPLED == 1)
		sample(l, h, word, size);
	return 0;
}

int quarry_group_add(quarry_group *g, quarry_handle h)
{
	unsigned pins = 0;
	int error;

	if (!qy_group_check(g))
		return -1;
	quarry_enter();
	(void)qy_look(g->lanes, h);
	qy_hold(&g->lanes->groups.lock);
	error = add(g, h, &pins);
	qy_let_go(&g->lanes->groups.lock);
	unpin(g->lanes, h, pins);
	quarry_leave();
	if (error == 0)
		return 0;
	errno = error;
	return -1;
}

int quarry_group_remove(quarry_group *g, quarry_handle h)
{
	unsigned pins = 0;
	uint64_t word;
	int error = 0;

	if (!qy_group_check(g))
		return -1;
	quarry_enter();
	(void)qy_look(g->lanes, h);
	qy_hold(&g->lanes->groups.lock);
	word = qy_look(g->lanes, h);
	if (word == 0)
		error = errno; /* with its text */
	else if (!(atomic_load(&qy_entry_at(qy_word_address(word), word)->marks) & QY_MARK_SIDE) ||
		 qy_side_of(g->lanes, (uint32_t)h)->group != g)
		error = EINVAL;
	else
		pins = leave(g->lanes, (uint32_t)h);
	qy_let_go(&g->lanes->groups.lock);
	unpin(g->lanes, h, pins);
	quarry_leave();
	if (error != 0 && word != 0)
		return qy_fail(error, "it is not in this group");
	if (error == 0)
		return 0;
	errno = error;
	return -1;
}

/* ---- as one ---- */

quarry_handle qy_handle_of(quarry_lanes *l, uint32_t slot)
{
	for (;;) {
		uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
		uint32_t marks;

		if (word & QUARRY_WORD_FREE)
			return 0;
		if (!(word & QUARRY_WORD_COLD))
			marks = atomic_load(&qy_entry_at(qy_word_address(word), word)->marks);
		else if (!qy_cold_marks(l, slot, word, &marks))
			continue;
		return qy_handle_make(l, slot, word, marks);
	}
}

/* Up to `room` members, the group's first becoming its last: so who calls this until he had as many as there were has
 * had each of them that stayed. In a scope. */
size_t qy_group_some(quarry_group *g, quarry_handle *h, size_t room, uint64_t *left)
{
	size_t n = 0;

	qy_hold(&g->lanes->groups.lock);
	for (; *left > 0 && n < room && g->first != 0; (*left)--) {
		quarry_handle one = qy_handle_of(g->lanes, g->first - 1);

		g->first = qy_side_of(g->lanes, g->first - 1)->next;
		if (one != 0)
			h[n++] = one;
	}
	if (g->first == 0)
		*left = 0;
	qy_let_go(&g->lanes->groups.lock);
	return n;
}

uint64_t qy_group_count(quarry_group *g)
{
	uint64_t n;

	qy_hold(&g->lanes->groups.lock);
	n = g->objects;
	qy_let_go(&g->lanes->groups.lock);
	return n;
}

/* Visit members: `take` says which, by some at a time, and `act` counts what it did to each. In a scope. */
static int64_t visit(quarry_group *g, size_t (*take)(quarry_group *g, quarry_handle *h, size_t room, uint64_t *left),
		     bool (*act)(quarry_group *g, quarry_handle h))
{
	quarry_handle h[AT_ONCE];
	int64_t done = 0;
	uint64_t left;

	if (!qy_group_check(g))
		return -1;
	left = qy_group_count(g);
	while (left > 0) {
		size_t n;

		quarry_enter();
		n = take(g, h, AT_ONCE, &left);
		for (size_t i = 0; i < n; i++)
			done += act(g, h[i]);
		quarry_leave();
	}
	return done;
}

static bool free_member(quarry_group *g, quarry_handle h)
{
	return quarry_hfree(g->lanes, h) == 0;
}

int64_t quarry_group_free_all(quarry_group *g)
{
	return visit(g, qy_group_some, free_member);
}

/* A pin of the group's making is noted, so that quarry_group_unpin knows it. false: it left the group meanwhile. */
static bool note_pin(quarry_group *g, quarry_handle h)
{
	quarry_lanes *l = g->lanes;
	uint64_t word = atomic_load(&l->word[(uint32_t)h]);
	struct qy_side *side;
	bool noted;

	/* It is pinned: the slot is its, even when it is freed. */
	qy_hold(&l->groups.lock);
	side = qy_side_of(l, (uint32_t)h);
	noted = side->group == g && side->pins < UINT16_MAX && word >> 48 == (h >> 32 & 0xffff);
	side->pins += noted;
	qy_let_go(&l->groups.lock);
	return noted;
}

static bool pin_member(quarry_group *g, quarry_handle h)
{
	if (quarry_pin(g->lanes, h) == NULL)
		return false;
	if (note_pin(g, h))
		return true;
	(void)quarry_unpin(g->lanes, h);
	return false;
}

int64_t quarry_group_pin(quarry_group *g)
{
	return visit(g, qy_group_some, pin_member);
}

/* Up to `room` members that the group has pinned: one pin less is noted. What is freed, and pinned still, has the handle
 * that it had. */
static size_t some_pinned(quarry_group *g, quarry_handle *h, size_t room, uint64_t *left)
{
	quarry_lanes *l = g->lanes;
	size_t n = 0;

	qy_hold(&l->groups.lock);
	for (; *left > 0 && n < room && g->first != 0; (*left)--) {
		uint32_t slot = g->first - 1;
		struct qy_side *side = qy_side_of(l, slot);
		uint64_t word = atomic_load(&l->word[slot]), generation = word >> 48;

		g->first = side->next;
		if (side->pins == 0)
			continue;
		side->pins--;
		generation -= (word & QUARRY_WORD_FREE) != 0;
		h[n++] = qy_handle_make(l, slot, generation << 48, atomic_load(&qy_entry_at(qy_word_address(word), word)->marks));
	}
	if (g->first == 0)
		*left = 0;
	qy_let_go(&l->groups.lock);
	return n;
}

static bool unpin_member(quarry_group *g, quarry_handle h)
{
	return quarry_unpin(g->lanes, h) == 0;
}

int64_t quarry_group_unpin(quarry_group *g)
{
	return visit(g, some_pinned, unpin_member);
}

int64_t quarry_group_migrate(quarry_group *g, int lane)
{
	quarry_handle h[AT_ONCE];
	int64_t done = 0, went;
	uint64_t left;
	size_t n;

	if (!qy_group_check(g))
		return -1;
	if (lane != QUARRY_LANE_FAST && lane != QUARRY_LANE_SLOW)
		return qy_fail(EINVAL, "lane: %d is neither the fast nor the slow one", lane);
	for (left = qy_group_count(g); left > 0; done += went) {
		quarry_enter();
		n = qy_group_some(g, h, AT_ONCE, &left);
		quarry_leave();
		went = qy_transfer(g->lanes, h, n, lane);
		if (went < 0)
			return -1;
	}
	return done;
}

/* All of it at once, so that extents are of this group's objects alone, as far as there are enough. */
static quarry_handle *all_of(quarry_group *g, size_t *count)
{
	uint64_t left = qy_group_count(g);
	quarry_handle *h = quarry_malloc(qy_max(left, 1) * sizeof(*h));

	*count = 0;
	while (h != NULL && left > 0) {
		quarry_enter();
		*count += qy_group_some(g, h + *count, qy_min(left, AT_ONCE), &left);
		quarry_leave();
	}
	return h;
}

/* What evicts or fetches them, to all of a group's objects. */
static int64_t with_all(quarry_group *g, int64_t (*fn)(quarry_lanes *l, const quarry_handle *h, size_t count))
{
	quarry_handle *h;
	size_t count;
	int64_t done;

	if (!qy_group_check(g))
		return -1;
	h = all_of(g, &count);
	done = h == NULL ? -1 : fn(g->lanes, h, count);
	quarry_free(h);
	return done;
}

int64_t quarry_group_evict(quarry_group *g)
{
	return with_all(g, quarry_evict);
}

int64_t quarry_group_prefetch(quarry_group *g)
{
	return with_all(g, quarry_prefetch);
}

int quarry_group_limit(quarry_group *g, uint64_t limit)
{
	if (!qy_group_check(g))
		return -1;
	qy_hold(&g->lanes->groups.lock);
	g->limit = limit;
	qy_let_go(&g->lanes->groups.lock);
	return 0;
}

int64_t quarry_group_handles(quarry_group *g, quarry_handle *h, size_t room)
{
	uint64_t left;
	size_t n;

	if (!qy_group_check(g))
		return -1;
	if (h == NULL && room > 0)
		return qy_fail(EINVAL, "h: NULL, with room for %lu handles", (unsigned long)room);
	left = qy_group_count(g);
	quarry_enter();
	n = qy_group_some(g, h, room, &left);
	quarry_leave();
	return (int64_t)(n + left);
}

int quarry_group_stats_get(quarry_group *g, quarry_group_stats *stats)
{
	if (!qy_group_check(g))
		return -1;
	if (stats == NULL || (stats->struct_size != 0 && stats->struct_size != sizeof(*stats)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_group_stats");
	qy_hold(&g->lanes->groups.lock);
	*stats = (quarry_group_stats){ .struct_size = sizeof(*stats), .objects = g->objects, .bytes = g->bytes,
				       .limit = g->limit, .refused = g->refused, .peak = g->peak };
	memcpy(stats->name, g->name, sizeof(g->name));
	qy_let_go(&g->lanes->groups.lock);
	return 0;
}
