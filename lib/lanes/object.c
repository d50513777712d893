/* SPDX-License-Identifier: MIT */
/* Objects: allocated and freed. (lanes.h has the rules.) */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/events.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/figures.h"
#include "lib/lanes/group.h"
#include "lib/lanes/object.h"

#define LOOKS 16

/* ---- allocated ---- */

static void huge_end(quarry_lanes *l, struct qy_huge *record)
{
	atomic_fetch_sub(&l->huge, record->size);
	atomic_fetch_sub(&l->huge_count, 1);
	atomic_fetch_sub(&l->fast.elsewhere, record->elsewhere);
	quarry_free(record->base);
}

/* Under the lock: of a freed one. */
static bool is_over(const struct qy_link *k)
{
	return qy_epoch_over(atomic_load(&qy_container(k, struct qy_huge, link)->head.entry.whose) & ~QY_TOMB);
}

/* Whether scopes are over that were not. The grace period that is awaited stays the same until it is over: each free looks, while
 * somebody stays in a scope, and none of them asks the kernel for a fence. */
static bool huge_grace(quarry_lanes *l)
{
	uint64_t awaited = atomic_load(&l->huge_awaited), none = 0;

	if (awaited == 0) {
		awaited = qy_grace_begin();
		if (!atomic_compare_exchange_strong(&l->huge_awaited, &none, awaited))
			awaited = none;
	}
	if (!qy_grace_look(awaited))
		return false;
	(void)atomic_compare_exchange_strong(&l->huge_awaited, &awaited, 0);
	return true;
}

/* The same for who frees something: where it is worth to try, without the lock. */
static void huge_look(quarry_lanes *l)
{
	uint64_t awaited = atomic_load(&l->huge_awaited);

	if (awaited == 0 || qy_grace_look(awaited))
		(void)qy_huge_bury(l, UINT32_MAX);
}

bool qy_huge_bury(quarry_lanes *l, unsigned most)
{
	struct qy_link over, *k, *next;
	bool more;

	if (atomic_load_explicit(&l->huge_tombs_count, memory_order_relaxed) == 0)
		return false;
	qy_hold(&l->lock);
	for (int i = 0; i < 2 && !qy_list_empty(&l->huge_tombs) && !is_over(l->huge_tombs.next); i++) {
		qy_let_go(&l->lock);
		if (!huge_grace(l)) /* the one that was awaited may have been before its end: twice */
			return false;
		qy_hold(&l->lock);
	}
	qy_list_init(&over);
	for (k = l->huge_tombs.next; k != &l->huge_tombs && most > 0; k = next, most--) {
		next = k->next;
		if (!is_over(k))
			break; /* later ones are not over either */
		qy_list_remove(k);
		qy_list_push_back(&over, k);
		atomic_fetch_sub(&l->huge_tombs_count, 1);
	}
	more = most == 0 && k != &l->huge_tombs;
	qy_let_go(&l->lock);
	for (k = over.next; k != &over; k = next) {
		next = k->next;
		huge_end(l, qy_container(k, struct qy_huge, link));
	}
	return more;
}

void qy_huge_end(quarry_lanes *l)
{
	struct qy_link *lists[] = { &l->huge_objects, &l->huge_tombs };

	for (int i = 0; i < 2; i++)
		while (!qy_list_empty(lists[i])) {
			struct qy_huge *record = qy_container(lists[i]->next, struct qy_huge, link);

			qy_list_remove(&record->link);
			huge_end(l, record);
		}
}

void *qy_take_huge(quarry_lanes *l, quarry_arena *arena, size_t size, size_t alignment)
{
	size_t before = qy_max(alignment, sizeof(struct qy_huge)), total = qy_align_up(size, 16) + before;
	struct qy_huge *record;
	char *base;

	(void)qy_huge_bury(l, UINT32_MAX);
	if (total < size)
		return NULL;
	base = quarry_arena_aligned_alloc(arena, before, total);
	if (base == NULL)
		return NULL;
	record = qy_huge_of(base + before);
	record->base = base;
	record->size = total - before;
	record->elsewhere = record->head.about = 0;
	atomic_fetch_add(&l->huge, record->size);
	atomic_fetch_add(&l->huge_count, 1);
	qy_hold(&l->lock);
	qy_list_push_back(&l->huge_objects, &record->link);
	qy_let_go(&l->lock);
	qy_lanes_grew(l, QUARRY_LANE_SLOW, record->size);
	return base + before;
}

/* What is no class's. */
QY_COLD static void *take_large(quarry_lanes *l, size_t size, size_t alignment, unsigned class, struct qy_entry **entry,
				uint64_t *states, bool mover)
{
	void *p = NULL;
	bool room;

	qy_hold(&l->lock);
	room = class == QY_CLASS_WHOLE || qy_slow_has_room(l, size);
	qy_let_go(&l->lock);
	if (class == QY_CLASS_WHOLE)
		p = qy_take_whole(l, qy_align_up(size, alignment), mover);
	else if (room)
		p = qy_take_huge(l, l->home[mover ? l->mover_home : 0]->arena, size, alignment);
	*states = class == QY_CLASS_WHOLE ? 0 : QUARRY_WORD_HEAD;
	*entry = p == NULL ? NULL : qy_entry_at(p, *states);
	return p;
}

QY_INLINE void *take_any(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, struct qy_entry **entry,
			 uint64_t *states)
{
	unsigned class = qy_class_of(size, alignment, l->blob);

	*states = 0;
	return QY_LIKELY(class < QY_CLASSES_MAX) ? qy_take(l, &c->of[class], class, entry) :
						   take_large(l, size, alignment, class, entry, states, c == &l->mover);
}

void *qy_take_any(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, struct qy_entry **entry,
		  uint64_t *states)
{
	return take_any(l, c, size, alignment, entry, states);
}

void qy_untake_any(quarry_lanes *l, void *p, uint64_t states)
{
	struct qy_huge *record = qy_huge_of(p);

	if (!(states & QUARRY_WORD_HEAD)) {
		qy_untake(NULL, p);
		return;
	}
	qy_hold(&l->lock);
	qy_list_remove(&record->link);
	qy_let_go(&l->lock);
	huge_end(l, record);
}

/* The object that the slot has from now on. */
QY_INLINE quarry_handle put_up(quarry_lanes *l, uint32_t slot, void *p, struct qy_entry *entry, uint64_t states, unsigned type,
			     uint32_t marks)
{
	uint64_t generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48;

	qy_assert(((uintptr_t)p << 1 & ~QUARRY_WORD_ADDRESS) == 0);
	atomic_store_explicit(&entry->marks, QY_MARK_SLOW | marks | (uint32_t)type << QY_MARK_TYPE_SHIFT,
			      memory_order_relaxed);
	atomic_store_explicit(&entry->whose, slot + 1, memory_order_relaxed);
	atomic_store_explicit(&l->word[slot], qy_word_make(generation, p) | states, memory_order_release);
	return (uint64_t)1 << 63 | l->map.number | (uint64_t)type << 48 | generation << 32 | slot;
}

/* How it went: there was no memory; or some more was taken than was at hand, of which somebody may want to be told. */
struct making {
	bool refused, more;
};

/* The thread has no room at hand, or the object is none of a class. Such a one is a sample for those that come after
 * it. */
static quarry_handle make_first(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, unsigned type, bool *refused)
{
	unsigned class = qy_class_of(size, alignment, l->blob);
	uint32_t slot, weight = 1, mark = 0;
	struct qy_entry *entry;
	bool first = class >= QY_CLASSES_MAX || c->of[class].taken == 0;
	uint64_t states;
	void *p;

	if (!qy_slot_take(l, c, &slot))
		return 0;
	p = take_any(l, c, size, alignment, &entry, &states);
	if (QY_UNLIKELY(p == NULL)) {
		qy_slot_give(l, c, slot);
		*refused = true;
		errno = ENOMEM;
		return 0;
	}
	if (class < QY_CLASSES_MAX)
		weight += (uint32_t)__builtin_popcountll(c->of[class].taken);
	else
		qy_count_shared(&qy_figures_of(l, class)->taken, 1);
	if (first)
		mark = qy_life_begin(l, slot, class, false, weight, 0);
	return put_up(l, slot, p, entry, states, type, mark);
}

QY_NOINLINE static quarry_handle make_more(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment,
					   unsigned type, struct making *m)
{
	quarry_handle h;

	qy_quiet++;
	h = make_first(l, c, size, alignment, type, &m->refused);
	qy_quiet--;
	m->more = true;
	return h;
}

QY_INLINE quarry_handle make(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, unsigned type,
			     struct making *m)
{
	unsigned class = qy_class_of(size, alignment, l->blob);
	struct qy_entry *entry;
	void *p;

	if (QY_UNLIKELY(class >= QY_CLASSES_MAX || c->of[class].taken == 0 || c->slots == 0))
		return make_more(l, c, size, alignment, type, m);
	p = qy_take_one(&c->of[class], &entry);
	return put_up(l, c->slot[--c->slots], p, entry, 0, type, 0);
}

int qy_fail_room(size_t size)
{
	return qy_fail(ENOMEM, "no memory for an object of %lu bytes", (unsigned long)size);
}

static bool check_shape(size_t size, uint64_t alignment, unsigned type)
{
	if (QY_LIKELY(size != 0 && type <= 255 && alignment <= QY_SEGMENT_SIZE && (alignment & (alignment - 1)) == 0))
		return true;
	if (size == 0)
		(void)qy_fail(EINVAL, "size: 0 bytes");
	else if (type > 255)
		(void)qy_fail(EINVAL, "type: %u is more than 255", type);
	else
		(void)qy_fail(EINVAL, "alignment: %lu is no power of two up to 2 MiB", (unsigned long)alignment);
	return false;
}

quarry_handle quarry_halloc_typed(quarry_lanes *l, size_t size, size_t alignment, unsigned type)
{
	struct qy_lanes_cache *c;
	quarry_handle h = 0;
	struct making m = { 0 };

	if (!qy_lanes_check(l))
		return 0;
	if (QY_UNLIKELY(!check_shape(size, alignment, type)))
		return 0;
	if (QY_UNLIKELY(size <= l->fast.chain)) {
		quarry_halloc_attr attr = { .alignment = alignment, .type = type };

		return qy_make_with(l, size, &attr);
	}
	for (int tries = 0; h == 0 && (tries == 0 || (m.refused && tries == 1 && qy_pack_for_refused(l, size, 0))); tries++) {
		c = qy_cache_begin(l);
		if (c == NULL || size > PTRDIFF_MAX)
			(void)qy_fail_room(size);
		else
			h = make(l, c, size, qy_max(alignment, 16), type, &m);
		qy_cache_end();
	}
	if (QY_UNLIKELY(m.more))
		qy_events_deliver();
	if (QY_UNLIKELY(h == 0 && m.refused))
		(void)qy_fail_room(size);
	return h;
}

/* Of one who says how: what is wrong is told by its name. */
static bool check_how(const quarry_lanes *l, size_t size, const quarry_halloc_attr *a)
{
	const uint32_t known = QUARRY_HALLOC_FRAME_CRITICAL | QUARRY_HALLOC_EVICTABLE | QUARRY_HALLOC_NOSPILL;

	if (a->struct_size != 0 && a->struct_size != sizeof(*a))
		(void)qy_fail(EINVAL, "struct_size: %u is not the size of any quarry_halloc_attr", (unsigned)a->struct_size);
	else if ((a->flags & ~known) != 0)
		(void)qy_fail(EINVAL, "flags: unknown bits in 0x%x", (unsigned)a->flags);
	else if (a->lane > QUARRY_LANE_SLOW)
		(void)qy_fail(EINVAL, "lane: %u is none", (unsigned)a->lane);
	else if (a->priority > QUARRY_PRIORITY_CRITICAL)
		(void)qy_fail(EINVAL, "priority: %u is none", (unsigned)a->priority);
	else if (a->group != NULL && (a->group->magic != QY_GROUP_MAGIC || a->group->lanes != l))
		(void)qy_fail(EINVAL, "group: it is none of these lanes");
	else
		return check_shape(size, a->alignment, a->type);
	return false;
}

quarry_handle quarry_halloc_with(quarry_lanes *l, size_t size, const quarry_halloc_attr *a)
{
	static const quarry_halloc_attr none;
	quarry_handle h;

	if (!qy_lanes_check(l))
		return 0;
	a = a == NULL ? &none : a;
	if (!check_how(l, size, a))
		return 0;
	h = qy_make_with(l, size, a);
	if (h != 0 && (((a->flags != 0 || a->priority != 0) && quarry_hint(l, h, a->flags, a->priority) != 0) ||
		       (a->group != NULL && quarry_group_add(a->group, h) != 0))) {
		(void)quarry_hfree(l, h);
		errno = ENOMEM; /* the text is of who refused it */
		return 0;
	}
	return h;
}

quarry_handle qy_handle_make(const quarry_lanes *l, uint32_t slot, uint64_t word, uint32_t marks)
{
	return (uint64_t)!!(marks & QY_MARK_SLOW) << 63 | l->map.number | (uint64_t)(marks >> QY_MARK_TYPE_SHIFT) << 48 |
	       word >> 48 << 32 | slot;
}

QY_NOINLINE static quarry_handle halloc_slow(quarry_lanes *l, size_t size)
{
	return quarry_halloc_typed(l, size, 0, 0);
}

/* What the thread has at hand, of the classes every 16 bytes. */
QY_INLINE quarry_handle halloc_plain(quarry_lanes *l, struct qy_lanes_cache *c, size_t size)
{
	struct qy_taker *t = c == NULL ? NULL : &c->of[(size - 1) / 16];
	struct qy_entry *entry;
	void *p;

	if (QY_UNLIKELY(t == NULL || t->taken == 0 || c->slots == 0))
		return 0;
	p = qy_take_one(t, &entry);
	return put_up(l, c->slot[--c->slots], p, entry, 0, 0, 0);
}

/* In the fast lane, or what is at hand; all else is the other's. */
quarry_handle quarry_halloc(quarry_lanes *l, size_t size)
{
	struct qy_lanes_record *r = qy_lanes_record;
	quarry_handle h = 0;

	if (QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC && r != NULL)) {
		if (size - 1 < l->fast.most)
			return qy_fast_halloc(l, r, size);
		if (QY_LIKELY(size - 1 < QY_CLASS_FINE))
			h = halloc_plain(l, qy_record_taking(r, l), size);
		atomic_store_explicit(&r->taking, 0, memory_order_release);
	}
	return QY_LIKELY(h != 0) ? h : halloc_slow(l, size);
}

/* ---- freed ---- */

/* A slot whose object is gone, and whose next generation is this. */
QY_INLINE void slot_back(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot, uint64_t generation)
{
	atomic_store_explicit(&l->word[slot], generation << 48 | QUARRY_WORD_FREE, memory_order_relaxed);
	if (QY_LIKELY(c != NULL && generation <= l->generations && c->slots < QY_SLOTS_CACHED))
		qy_slot_push(c, slot);
	else
		qy_slot_give(l, c, slot);
}

void qy_huge_release(quarry_lanes *l, struct qy_huge *record)
{
	atomic_store(&record->head.entry.whose, QY_TOMB | qy_epoch_now());
	qy_hold(&l->lock);
	qy_list_remove(&record->link);
	qy_list_push_back(&l->huge_tombs, &record->link);
	atomic_fetch_add(&l->huge_tombs_count, 1);
	qy_let_go(&l->lock);
}

/* What was noted of it is over. */
QY_COLD static void ended(quarry_lanes *l, uint32_t slot, uint32_t marks)
{
	struct qy_lived lived = { 0 };

	if (marks & QY_MARK_SAMPLED)
		lived = qy_life_end(l, slot);
	if (marks & QY_MARK_SIDE)
		qy_side_end(l, slot, &lived);
}

/* Nobody can get it any more, and nobody has it pinned: in a scope. The word is as freeing left it. */
static void release(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	struct qy_lanes_cache *c = qy_lanes_cache(l);
	void *p = qy_word_address(word);
	uint32_t marks = atomic_load(&qy_entry_at(p, word)->marks), index;
	bool fast = (word & QUARRY_WORD_HEAD) && qy_head_of(p)->about != 0;

	if (QY_UNLIKELY(marks & (QY_MARK_SIDE | QY_MARK_SAMPLED)))
		ended(l, slot, marks);
	if (QY_UNLIKELY(!(marks & QY_MARK_SLOW) && !fast))
		atomic_fetch_sub_explicit(&l->fast.stubs, 1, memory_order_relaxed);
	if (fast) {
		qy_fast_entomb(l, c, qy_head_of(p));
	} else if (QY_UNLIKELY(word & QUARRY_WORD_HEAD)) {
		qy_huge_release(l, qy_huge_of(p));
	} else {
		struct qy_span *s = qy_span_of(p, &index);

		qy_entomb(l, c, s, index);
	}
	slot_back(l, c, slot, word >> 48);
}

void qy_release_zombie(quarry_lanes *l, struct qy_entry *entry, uint32_t marks)
{
	uint32_t slot;

	if ((marks & (QY_MARK_PINS | QY_MARK_ZOMBIE)) != QY_MARK_ZOMBIE ||
	    !atomic_compare_exchange_strong(&entry->marks, &marks, marks & ~QY_MARK_ZOMBIE))
		return;
	slot = atomic_load(&entry->whose) - 1; /* it may be another than that of the handle by which it was to be pinned */
	release(l, slot, atomic_load(&l->word[slot]));
}

/* It was freed: while it has pins its memory is left to the last of them. */
QY_INLINE bool leave_to_pins(struct qy_entry *entry)
{
	uint32_t marks = atomic_load(&entry->marks);

	while (QY_UNLIKELY(marks & QY_MARK_PINS))
		if (atomic_compare_exchange_weak(&entry->marks, &marks, marks | QY_MARK_ZOMBIE))
			return true;
	return false;
}

QY_COLD static int fail_corrupt(quarry_handle h)
{
	return qy_fail(EBADMSG, "the object of handle %016llx was written to beyond its end; it stays", (unsigned long long)h);
}

/* It is never read. False: it is not cold any more. */
static bool free_cold(quarry_lanes *l, quarry_handle h, uint64_t word)
{
	uint64_t generation = qy_generation_of(h) + 1;
	uint32_t marks;

	if (!atomic_compare_exchange_strong(&l->word[qy_slot_of(h)], &word, generation << 48 | QUARRY_WORD_FREE))
		return false;
	marks = qy_cold_forget(l, word, true) | qy_life_mark(l, qy_slot_of(h));
	if (QY_UNLIKELY(marks & (QY_MARK_SIDE | QY_MARK_SAMPLED)))
		ended(l, qy_slot_of(h), marks);
	if ((int64_t)h > 0)
		atomic_fetch_sub_explicit(&l->fast.stubs, 1, memory_order_relaxed);
	slot_back(l, qy_lanes_cache(l), qy_slot_of(h), generation);
	return true;
}

void qy_freed(quarry_lanes *l, quarry_handle h, uint64_t freed)
{
	if (!leave_to_pins(qy_entry_at(qy_word_address(freed), freed)))
		release(l, qy_slot_of(h), freed);
}

static int free_live(quarry_lanes *l, quarry_handle h)
{
	uint32_t slot = qy_slot_of(h);
	struct qy_cold_object o;
	uint64_t word, freed;

	/* What was live may have become cold meanwhile, and what was cold be back: each time it is looked at anew. */
	for (;;) {
		switch (qy_find_any(l, h, &word, &o)) {
		case QY_FOUND_COLD:
			if (free_cold(l, h, word))
				return 0;
			break;
		case QY_FOUND_LIVE:
			if (!qy_canary_check(l, slot, word))
				return fail_corrupt(h);
			freed = (qy_generation_of(h) + 1) << 48 | (word & (QUARRY_WORD_ADDRESS | QUARRY_WORD_HEAD)) | QY_WORD_FREED;
			if (!atomic_compare_exchange_strong(&l->word[slot], &word, freed))
				break;
			qy_freed(l, h, freed);
			return 0;
		default:
			return qy_fail_handle(l, h);
		}
	}
}

QY_NOINLINE int qy_hfree_slow(quarry_lanes *l, quarry_handle h)
{
	int result, error = errno;

	if (!qy_lanes_check(l))
		return -1;
	quarry_enter();
	result = free_live(l, h);
	quarry_leave();
	if (result == 0)
		errno = error;
	if (QY_UNLIKELY(atomic_load_explicit(&l->huge_tombs_count, memory_order_relaxed) > 0) && !qy_in_scope())
		huge_look(l);
	if (QY_UNLIKELY(result != 0) && !qy_in_scope()) /* somebody may want to be told of why */
		qy_events_deliver();
	return result;
}

/* In a scope: free what is in a span and plain to see, the first try: pinned by nobody, of this very type and lane.
 * Otherwise nothing is done. */
QY_INLINE bool free_plain(quarry_lanes *l, struct qy_lanes_cache *c, quarry_handle h)
{
	uint32_t slot = qy_slot_of(h), index, marks = qy_marks_of(h);
	uint64_t generation = qy_generation_of(h) + 1, word;
	struct qy_span *s;

	word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
	if (QY_UNLIKELY(((word ^ h << 16) & (QY_WORD_STATES | QUARRY_WORD_HEAD)) != 0))
		return false;
	s = qy_span_of(qy_word_address(word), &index);
	if (QY_UNLIKELY(atomic_load_explicit(&s->entry[index].marks, memory_order_relaxed) != marks) ||
	    QY_UNLIKELY(!atomic_compare_exchange_strong(&l->word[slot], &word,
							generation << 48 | (word & QUARRY_WORD_ADDRESS) | QY_WORD_FREED)))
		return false;
	/* Whoever pinned it meanwhile, or put it into a group, has seen it live: both are in its marks by now. */
	if (QY_UNLIKELY(atomic_load(&s->entry[index].marks) != marks)) {
		qy_freed(l, h, generation << 48 | (word & QUARRY_WORD_ADDRESS) | QY_WORD_FREED);
	} else {
		qy_entomb(l, c, s, index);
		slot_back(l, c, slot, generation);
	}
	return true;
}

QY_NOINLINE static int hfree_of_span(quarry_lanes *l, struct qy_lanes_record *r, quarry_handle h)
{
	struct qy_lanes_cache *c;
	bool done;

	qy_scope_enter(r);
	c = atomic_load_explicit(&r->cache[l->id], memory_order_acquire);
	done = c != NULL && free_plain(l, c, h);
	qy_scope_leave(r);
	return QY_LIKELY(done) ? 0 : qy_hfree_slow(l, h);
}

/* While something beyond segments waits for scopes, one free of so many looks whether it is over. */
QY_COLD static int hfree_and_bury(quarry_lanes *l, struct qy_lanes_record *r, quarry_handle h)
{
	int result = (int64_t)h < 0 ? hfree_of_span(l, r, h) : qy_fast_hfree(l, r, h);

	if (++r->frees % LOOKS == 0 && r->depth == 0)
		huge_look(l);
	return result;
}

/* By the lane that it was born in, where it is most often; all else is the slow one's. */
int quarry_hfree(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_UNLIKELY(l == NULL || l->magic != QY_LANES_MAGIC || r == NULL || !qy_is_ours(l, h)))
		return qy_hfree_slow(l, h);
	if (QY_UNLIKELY(atomic_load_explicit(&l->huge_tombs_count, memory_order_relaxed) != 0))
		return hfree_and_bury(l, r, h);
	return (int64_t)h < 0 ? hfree_of_span(l, r, h) : qy_fast_hfree(l, r, h);
}
