/* SPDX-License-Identifier: MIT */
/* Objects: allocated, found, pinned, freed. (lanes.h has the rules.) */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/group.h"
#include "lib/lanes/lanes.h"

#define STATES QY_WORD_STATES
#define FREED QY_WORD_FREED

static uint32_t slot_of(quarry_handle h)
{
	return (uint32_t)h;
}

static uint64_t generation_of(quarry_handle h)
{
	return h >> 32 & 0xffff;
}

/* ---- allocated ---- */

static void huge_end(quarry_lanes *l, struct qy_huge *record)
{
	atomic_fetch_sub(&l->huge, record->size);
	atomic_fetch_sub(&l->huge_count, 1);
	atomic_fetch_sub(&l->fast.elsewhere, record->elsewhere);
	quarry_free(record->base);
}

bool qy_huge_bury(quarry_lanes *l, unsigned most)
{
	struct qy_link over, *k, *next;
	bool more;

	if (atomic_load_explicit(&l->huge_tombs_count, memory_order_relaxed) == 0)
		return false;
	(void)qy_grace_look(qy_grace_begin());
	qy_list_init(&over);
	pthread_mutex_lock(&l->lock);
	for (k = l->huge_tombs.next; k != &l->huge_tombs && most > 0; k = next, most--) {
		next = k->next;
		if (!qy_epoch_over(atomic_load(&qy_container(k, struct qy_huge, link)->head.entry.whose) & ~QY_TOMB))
			break; /* later ones are not over either */
		qy_list_remove(k);
		qy_list_push_back(&over, k);
		atomic_fetch_sub(&l->huge_tombs_count, 1);
	}
	more = most == 0 && k != &l->huge_tombs;
	pthread_mutex_unlock(&l->lock);
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
	pthread_mutex_lock(&l->lock);
	qy_list_push_back(&l->huge_objects, &record->link);
	pthread_mutex_unlock(&l->lock);
	return base + before;
}

/* What is no class's. */
QY_COLD static void *take_large(quarry_lanes *l, size_t size, size_t alignment, unsigned class, struct qy_entry **entry,
				uint64_t *states)
{
	void *p = NULL;
	bool room;

	pthread_mutex_lock(&l->lock);
	room = class == QY_CLASS_WHOLE || qy_slow_has_room(l, size);
	pthread_mutex_unlock(&l->lock);
	if (class == QY_CLASS_WHOLE)
		p = qy_take_whole(l, qy_align_up(size, alignment), false);
	else if (room)
		p = qy_take_huge(l, l->arena, size, alignment);
	*states = class == QY_CLASS_WHOLE ? 0 : QUARRY_WORD_HEAD;
	*entry = p == NULL ? NULL : qy_entry_at(p, *states);
	return p;
}

QY_INLINE void *take_any(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, struct qy_entry **entry,
			 uint64_t *states)
{
	unsigned class = qy_class_of(size, alignment);

	*states = 0;
	return QY_LIKELY(class < QY_CLASSES_MAX) ? qy_take(l, &c->of[class], class, entry) :
						   take_large(l, size, alignment, class, entry, states);
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
	pthread_mutex_lock(&l->lock);
	qy_list_remove(&record->link);
	pthread_mutex_unlock(&l->lock);
	huge_end(l, record);
}

/* The object that the slot has from now on. */
QY_INLINE quarry_handle put_up(quarry_lanes *l, uint32_t slot, void *p, struct qy_entry *entry, uint64_t states, unsigned type)
{
	uint64_t generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48;

	qy_assert(((uintptr_t)p << 1 & ~QUARRY_WORD_ADDRESS) == 0);
	atomic_store_explicit(&entry->marks, QY_MARK_SLOW | (uint32_t)type << QY_MARK_TYPE_SHIFT, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, slot + 1, memory_order_relaxed);
	atomic_store_explicit(&l->word[slot], qy_word_make(generation, p) | states, memory_order_release);
	return (uint64_t)1 << 63 | l->map.number | (uint64_t)type << 48 | generation << 32 | slot;
}

static quarry_handle make(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, unsigned type,
			  bool *refused)
{
	struct qy_entry *entry;
	uint64_t states;
	uint32_t slot;
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
	return put_up(l, slot, p, entry, states, type);
}

quarry_handle quarry_halloc_typed(quarry_lanes *l, size_t size, size_t alignment, unsigned type)
{
	struct qy_lanes_cache *c;
	quarry_handle h = 0;
	bool refused = false;

	if (!qy_lanes_check(l))
		return 0;
	if (size == 0 || type > 255 || alignment > QY_SEGMENT_SIZE || (alignment & (alignment - 1)) != 0) {
		errno = EINVAL;
		return 0;
	}
	if (QY_UNLIKELY(size <= l->fast.threshold)) {
		quarry_halloc_attr attr = { .alignment = alignment, .type = type };

		return qy_make_with(l, size, &attr);
	}
	for (int tries = 0; h == 0 && (tries == 0 || (refused && tries == 1 && qy_pack_for_refused(l))); tries++) {
		c = qy_cache_begin(l);
		if (c == NULL || size > PTRDIFF_MAX)
			errno = ENOMEM;
		else
			h = make(l, c, size, qy_max(alignment, 16), type, &refused);
		qy_cache_end();
	}
	if (h == 0 && refused)
		errno = ENOMEM;
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
	return put_up(l, c->slot[--c->slots], p, entry, 0, 0);
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

/* ---- found ---- */

/* The marks of an object with this handle that nobody has pinned. */
QY_INLINE uint32_t marks_of(quarry_handle h)
{
	return (uint32_t)(h >> 48) << QY_MARK_TYPE_SHIFT | (uint32_t)(h >> 63) * QY_MARK_SLOW;
}

int qy_why_not(const quarry_lanes *l, quarry_handle h)
{
	if (!qy_is_ours(l, h) || generation_of(h) == 0 || atomic_load(&l->word[slot_of(h)]) == 0)
		return EINVAL;
	return ESTALE;
}

enum found { NONE, LIVE, COLD };

/* What a handle is at this moment, all bits of it looked at (but those of a cold one by generation alone: the rest is
 * qy_cold_look's); its word. In a scope. */
QY_INLINE enum found find(const quarry_lanes *l, quarry_handle h, uint64_t *word)
{
	uint32_t marks;

	if (!qy_is_ours(l, h))
		return NONE;
	*word = atomic_load_explicit(&l->word[slot_of(h)], memory_order_acquire);
	if (QY_UNLIKELY(((*word ^ h << 16) & STATES) != 0))
		return ((*word ^ h << 16) & STATES) == QUARRY_WORD_COLD && l->cold != NULL ? COLD : NONE;
	marks = atomic_load_explicit(&qy_entry_at(qy_word_address(*word), *word)->marks, memory_order_relaxed);
	return ((marks ^ marks_of(h)) & (0xffu << QY_MARK_TYPE_SHIFT | QY_MARK_SLOW)) == 0 ? LIVE : NONE;
}

/* The same, and of a cold one what it is. */
static enum found find_any(quarry_lanes *l, quarry_handle h, uint64_t *word, struct qy_cold_object *o)
{
	for (;;) {
		enum found found = find(l, h, word);
		int same = found != COLD ? 1 : qy_cold_look(l, h, *word, o);

		if (same != 0)
			return same < 0 ? NONE : found;
	}
}

uint64_t qy_look(quarry_lanes *l, quarry_handle h)
{
	uint64_t word;

	for (;;) {
		switch (find(l, h, &word)) {
		case LIVE:
			return word;
		case COLD:
			if (qy_warm(l, h, word) != 0)
				return 0;
			break;
		default:
			errno = qy_why_not(l, h);
			return 0;
		}
	}
}

bool qy_is_away(quarry_lanes *l, quarry_handle h)
{
	struct qy_cold_object o;
	uint64_t word;

	return find_any(l, h, &word, &o) == COLD;
}

/* By generation alone, as the inline part: whether it could be got, and its word; not seen before, or cold, it is now. */
void *quarry_get_slow(quarry_lanes *l, quarry_handle h)
{
	if (!qy_lanes_check(l))
		return NULL;
	while (qy_is_ours(l, h)) {
		qy_word *at = &l->word[slot_of(h)];
		uint64_t word = atomic_load_explicit(at, memory_order_acquire), states = (word ^ h << 16) & STATES;

		if (states == 0 && (!(word & QUARRY_WORD_UNSEEN) ||
				    atomic_compare_exchange_strong(at, &word, word & ~QUARRY_WORD_UNSEEN)))
			return qy_word_address(word);
		if (states != 0 && (states != QUARRY_WORD_COLD || l->cold == NULL))
			break;
		if (states != 0 && qy_warm(l, h, word) != 0)
			return NULL;
	}
	errno = qy_why_not(l, h);
	return NULL;
}

int quarry_try_get(quarry_lanes *l, quarry_handle h, const void **p)
{
	struct qy_cold_object o;
	uint64_t word;

	if (!qy_lanes_check(l) || p == NULL) {
		errno = EINVAL;
		return -1;
	}
	switch (find_any(l, h, &word, &o)) {
	case LIVE:
		break;
	case COLD:
		errno = EAGAIN;
		return -1;
	default:
		errno = qy_why_not(l, h);
		return -1;
	}
	*p = qy_word_address(word);
	return 0;
}

uint64_t qy_settle_word(quarry_lanes *l, quarry_handle h)
{
	qy_word *at;
	uint64_t word;

	if (!qy_lanes_check(l))
		return 0;
	if (!qy_is_ours(l, h)) {
		errno = EINVAL;
		return 0;
	}
	at = &l->word[slot_of(h)];
	word = atomic_load(at);
	for (;;) {
		uint64_t states = (word ^ h << 16) & STATES;

		if (QY_UNLIKELY(states != 0)) {
			if (states != QUARRY_WORD_COLD || l->cold == NULL) {
				errno = qy_why_not(l, h);
				return 0;
			}
			if (qy_warm(l, h, word) != 0)
				return 0;
			word = atomic_load(at);
		} else if (QY_LIKELY(!(word & (QUARRY_WORD_MOVING | QUARRY_WORD_UNSEEN))) ||
			   atomic_compare_exchange_weak(at, &word, word & ~(QUARRY_WORD_MOVING | QUARRY_WORD_UNSEEN))) {
			return word;
		}
	}
}

void *quarry_get_mut(quarry_lanes *l, quarry_handle h)
{
	uint64_t word = qy_settle_word(l, h);

	return word == 0 ? NULL : qy_word_address(word);
}

size_t qy_size_of(uint64_t word)
{
	const struct qy_head *head = qy_head_of(qy_word_address(word));
	uint32_t index;

	if (word & QUARRY_WORD_HEAD)
		return head->about != 0 ? qy_about_total(head->about) - sizeof(*head) : qy_huge_of(qy_word_address(word))->size;
	return qy_span_of(qy_word_address(word), &index)->size;
}

const void *quarry_get_range(quarry_lanes *l, quarry_handle h, size_t offset, size_t length)
{
	uint64_t word;
	size_t size;

	if (!qy_lanes_check(l))
		return NULL;
	word = qy_look(l, h);
	if (word == 0)
		return NULL;
	size = qy_size_of(word);
	if (offset > size || length > size - offset) {
		errno = ERANGE;
		return NULL;
	}
	return (char *)qy_word_address(word) + offset;
}

size_t quarry_hsize(quarry_lanes *l, quarry_handle h)
{
	struct qy_cold_object o;
	uint64_t word;
	size_t size = 0;

	if (!qy_lanes_check(l))
		return 0;
	quarry_enter();
	switch (find_any(l, h, &word, &o)) {
	case LIVE:
		size = qy_size_of(word);
		break;
	case COLD:
		size = o.size;
		break;
	default:
		errno = qy_why_not(l, h);
	}
	quarry_leave();
	return size;
}

int quarry_handle_valid(quarry_lanes *l, quarry_handle h)
{
	struct qy_cold_object o;
	uint64_t word;
	int error = errno;
	bool valid = qy_lanes_check(l);

	quarry_enter();
	valid = valid && find_any(l, h, &word, &o) != NONE;
	quarry_leave();
	errno = error;
	return valid;
}

static int state_of(quarry_lanes *l, quarry_handle h)
{
	uint64_t word, generation;
	struct qy_cold_object o;

	switch (find_any(l, h, &word, &o)) {
	case LIVE:
		if (atomic_load_explicit(&qy_entry_at(qy_word_address(word), word)->marks, memory_order_relaxed) & QY_MARK_PINS)
			return QUARRY_HANDLE_PINNED;
		return word & QUARRY_WORD_MOVING ? QUARRY_HANDLE_MOVING : QUARRY_HANDLE_VALID;
	case COLD:
		return o.corrupt ? QUARRY_HANDLE_LOST : o.evicted ? QUARRY_HANDLE_EVICTED : QUARRY_HANDLE_COLD;
	default:
		break;
	}
	word = atomic_load_explicit(&l->word[slot_of(h)], memory_order_acquire);
	generation = word >> 48;
	if (generation_of(h) == 0 || word == 0 || generation_of(h) >= generation)
		return QUARRY_HANDLE_CORRUPT; /* never given out, or not with this type and lane */
	return generation_of(h) + 1 == generation && (word & QUARRY_WORD_FREE) ? QUARRY_HANDLE_FREED : QUARRY_HANDLE_STALE;
}

int quarry_handle_state(quarry_lanes *l, quarry_handle h)
{
	int state;

	if (!qy_lanes_check(l))
		return -1;
	if ((h & QUARRY_HANDLE_NUMBER) != l->map.number)
		return (h & QUARRY_HANDLE_NUMBER) == 0 ? QUARRY_HANDLE_CORRUPT : QUARRY_HANDLE_FOREIGN;
	if (!qy_is_ours(l, h))
		return QUARRY_HANDLE_CORRUPT;
	quarry_enter();
	state = state_of(l, h);
	quarry_leave();
	return state;
}

/* ---- freed ---- */

/* A slot whose object is gone, and whose next generation is this. */
QY_INLINE void slot_back(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot, uint64_t generation)
{
	atomic_store_explicit(&l->word[slot], generation << 48 | QUARRY_WORD_FREE, memory_order_relaxed);
	if (QY_LIKELY(c != NULL && generation <= l->generations && c->slots < QY_SLOTS_CACHED))
		c->slot[c->slots++] = slot;
	else
		qy_slot_give(l, c, slot);
}

static void release_huge(quarry_lanes *l, struct qy_huge *record)
{
	atomic_store(&record->head.entry.whose, QY_TOMB | qy_epoch_now());
	pthread_mutex_lock(&l->lock);
	qy_list_remove(&record->link);
	qy_list_push_back(&l->huge_tombs, &record->link);
	atomic_fetch_add(&l->huge_tombs_count, 1);
	pthread_mutex_unlock(&l->lock);
}

/* Nobody can get it any more, and nobody has it pinned: in a scope. The word is as freeing left it. */
static void release(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	struct qy_lanes_cache *c = qy_lanes_cache(l);
	void *p = qy_word_address(word);
	uint32_t marks = atomic_load(&qy_entry_at(p, word)->marks), index;
	bool fast = (word & QUARRY_WORD_HEAD) && qy_head_of(p)->about != 0;

	if (QY_UNLIKELY(marks & QY_MARK_SIDE))
		qy_side_end(l, slot);
	if (QY_UNLIKELY(!(marks & QY_MARK_SLOW) && !fast))
		atomic_fetch_sub_explicit(&l->fast.stubs, 1, memory_order_relaxed);
	if (fast) {
		qy_fast_entomb(l, c, qy_head_of(p));
	} else if (QY_UNLIKELY(word & QUARRY_WORD_HEAD)) {
		release_huge(l, qy_huge_of(p));
	} else {
		struct qy_span *s = qy_span_of(p, &index);

		qy_entomb(l, c, s, index);
	}
	slot_back(l, c, slot, word >> 48);
}

/* The last pin of what was freed has gone: one of those who see it clears the mark, and frees. */
static void release_zombie(quarry_lanes *l, uint32_t slot, struct qy_entry *entry, uint32_t marks)
{
	if ((marks & (QY_MARK_PINS | QY_MARK_ZOMBIE)) == QY_MARK_ZOMBIE &&
	    atomic_compare_exchange_strong(&entry->marks, &marks, marks & ~QY_MARK_ZOMBIE))
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

/* It is never read. False: it is not cold any more. */
static bool free_cold(quarry_lanes *l, quarry_handle h, uint64_t word)
{
	uint64_t generation = generation_of(h) + 1;

	if (!atomic_compare_exchange_strong(&l->word[slot_of(h)], &word, generation << 48 | QUARRY_WORD_FREE))
		return false;
	qy_cold_forget(l, word);
	if ((int64_t)h > 0)
		atomic_fetch_sub_explicit(&l->fast.stubs, 1, memory_order_relaxed);
	slot_back(l, qy_lanes_cache(l), slot_of(h), generation);
	return true;
}

void qy_freed(quarry_lanes *l, quarry_handle h, uint64_t freed)
{
	if (!leave_to_pins(qy_entry_at(qy_word_address(freed), freed)))
		release(l, slot_of(h), freed);
}

static int free_live(quarry_lanes *l, quarry_handle h)
{
	uint32_t slot = slot_of(h);
	struct qy_cold_object o;
	uint64_t word, freed;
	enum found found;

	while ((found = find_any(l, h, &word, &o)) == COLD)
		if (free_cold(l, h, word))
			return 0;
	do {
		if (found == NONE || ((word ^ h << 16) & STATES) != 0)
			return qy_fail(qy_why_not(l, h), "no object has this handle");
		freed = (generation_of(h) + 1) << 48 | (word & (QUARRY_WORD_ADDRESS | QUARRY_WORD_HEAD)) | FREED;
	} while (!atomic_compare_exchange_weak(&l->word[slot], &word, freed));
	qy_freed(l, h, freed);
	return 0;
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
		(void)qy_huge_bury(l, UINT32_MAX);
	return result;
}

/* In a scope: free what is in a span and plain to see, the first try: pinned by nobody, of this very type and lane.
 * Otherwise nothing is done, but where somebody pins it just as it is freed. */
QY_INLINE bool free_plain(quarry_lanes *l, struct qy_lanes_cache *c, quarry_handle h)
{
	uint32_t slot = slot_of(h), index, marks = marks_of(h);
	uint64_t generation = generation_of(h) + 1, word;
	struct qy_span *s;

	word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
	if (QY_UNLIKELY(((word ^ h << 16) & (STATES | QUARRY_WORD_HEAD)) != 0))
		return false;
	s = qy_span_of(qy_word_address(word), &index);
	if (QY_UNLIKELY(atomic_load_explicit(&s->entry[index].marks, memory_order_relaxed) != marks) ||
	    QY_UNLIKELY(!atomic_compare_exchange_strong(&l->word[slot], &word,
							generation << 48 | (word & QUARRY_WORD_ADDRESS) | FREED)))
		return false;
	if (QY_LIKELY(leave_to_pins(&s->entry[index]) == false)) {
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

/* By the lane that it was born in, where it is most often; all else is the slow one's. */
int quarry_hfree(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_UNLIKELY(l == NULL || l->magic != QY_LANES_MAGIC || r == NULL || !qy_is_ours(l, h) ||
			atomic_load_explicit(&l->huge_tombs_count, memory_order_relaxed) != 0))
		return qy_hfree_slow(l, h);
	return (int64_t)h < 0 ? hfree_of_span(l, r, h) : qy_fast_hfree(l, r, h);
}

/* ---- pinned ---- */

/* One more pin; -1: too many. */
static int add_pin(struct qy_entry *entry)
{
	uint32_t marks = atomic_load_explicit(&entry->marks, memory_order_relaxed);

	do {
		if ((marks & QY_MARK_PINS) == QY_MARK_PINS) {
			errno = EAGAIN;
			return -1;
		}
	} while (!atomic_compare_exchange_weak(&entry->marks, &marks, marks + 1));
	return 0;
}

static void *pin_live(quarry_lanes *l, quarry_handle h)
{
	for (;;) {
		uint64_t word = qy_look(l, h), now;
		struct qy_entry *entry;

		if (word == 0)
			return NULL;
		entry = qy_entry_at(qy_word_address(word), word);
		if (add_pin(entry) != 0)
			return NULL;
		now = qy_settle_word(l, h);
		if (now != 0 && ((now ^ word) & QUARRY_WORD_ADDRESS) == 0)
			return qy_word_address(now);
		/* It has gone from there, or for ever. */
		release_zombie(l, slot_of(h), entry, atomic_fetch_sub(&entry->marks, 1) - 1);
	}
}

QY_NOINLINE static void *pin_slow(quarry_lanes *l, quarry_handle h)
{
	void *p;

	if (!qy_lanes_check(l))
		return NULL;
	quarry_enter();
	p = pin_live(l, h);
	quarry_leave();
	return p;
}

/* In a scope: one more pin of what is in a span, does not move and is plain to see, at the first try; else NULL. */
QY_INLINE void *pin_plain(quarry_lanes *l, quarry_handle h)
{
	const uint64_t same = STATES | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING;
	qy_word *at = &l->word[slot_of(h)];
	uint64_t word = atomic_load_explicit(at, memory_order_acquire);
	struct qy_entry *entry;
	uint32_t marks;

	if (QY_UNLIKELY(((word ^ h << 16) & same) != 0))
		return NULL;
	entry = qy_entry_of(qy_word_address(word));
	marks = atomic_load_explicit(&entry->marks, memory_order_relaxed);
	if (QY_UNLIKELY(((marks ^ marks_of(h)) & ~QY_MARK_PINS) != 0 || (marks & QY_MARK_PINS) == QY_MARK_PINS) ||
	    QY_UNLIKELY(!atomic_compare_exchange_strong(&entry->marks, &marks, marks + 1)))
		return NULL;
	if (QY_LIKELY(((atomic_load(at) ^ word) & (same | QUARRY_WORD_ADDRESS)) == 0))
		return qy_word_address(word);
	release_zombie(l, slot_of(h), entry, atomic_fetch_sub(&entry->marks, 1) - 1);
	return NULL;
}

void *quarry_pin(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC && r != NULL && qy_is_ours(l, h))) {
		void *p;

		qy_scope_enter(r);
		p = pin_plain(l, h);
		qy_scope_leave(r);
		if (QY_LIKELY(p != NULL))
			return p;
	}
	return pin_slow(l, h);
}

static int unpin(quarry_lanes *l, quarry_handle h)
{
	uint64_t word = atomic_load(&l->word[slot_of(h)]), generation = word >> 48;
	struct qy_entry *entry;
	uint32_t marks;

	if (generation != generation_of(h) && (generation != generation_of(h) + 1 || (word & FREED) != FREED))
		return -1;
	if ((word & FREED) == QUARRY_WORD_FREE || (word & QUARRY_WORD_COLD))
		return -1;
	entry = qy_entry_at(qy_word_address(word), word);
	marks = atomic_load(&entry->marks);
	do {
		/* In its own life, or freed with pins. */
		if ((marks & QY_MARK_PINS) == 0 || (generation != generation_of(h) && !(marks & QY_MARK_ZOMBIE)))
			return -1;
	} while (!atomic_compare_exchange_weak(&entry->marks, &marks, marks - 1));
	release_zombie(l, slot_of(h), entry, marks - 1);
	return 0;
}

QY_NOINLINE static int unpin_slow(quarry_lanes *l, quarry_handle h)
{
	int result;

	if (!qy_lanes_check(l))
		return -1;
	if (!qy_is_ours(l, h))
		return qy_fail(EINVAL, "no handle of these lanes");
	quarry_enter();
	result = unpin(l, h);
	quarry_leave();
	return result == 0 ? 0 : qy_fail(EINVAL, "it is not pinned");
}

/* In a scope: one pin less of what is in a span and not freed, at the first try. */
QY_INLINE bool unpin_plain(quarry_lanes *l, quarry_handle h)
{
	uint64_t word = atomic_load_explicit(&l->word[slot_of(h)], memory_order_acquire);
	struct qy_entry *entry;
	uint32_t marks;

	if (QY_UNLIKELY(((word ^ h << 16) & (STATES | QUARRY_WORD_HEAD)) != 0))
		return false;
	entry = qy_entry_of(qy_word_address(word));
	marks = atomic_load_explicit(&entry->marks, memory_order_relaxed);
	return QY_LIKELY((marks & QY_MARK_PINS) != 0 && !(marks & QY_MARK_ZOMBIE)) &&
	       atomic_compare_exchange_strong(&entry->marks, &marks, marks - 1);
}

int quarry_unpin(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC && r != NULL && qy_is_ours(l, h))) {
		bool done;

		qy_scope_enter(r);
		done = unpin_plain(l, h);
		qy_scope_leave(r);
		if (QY_LIKELY(done))
			return 0;
	}
	return unpin_slow(l, h);
}
