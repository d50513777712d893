/* SPDX-License-Identifier: MIT */
/* The fast lane: objects made and freed, chunks that begin anew. (fast.h has the rules.) */
#include "lib/lanes/fast.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/events.h"
#include "lib/lanes/figures.h"
#include "lib/lanes/group.h"
#include "numa/os.h"

#define ALIGNMENT_MAX 4096
#define SPARES 16 /* dead chunks that are kept */
#define LEAVE_AT_ONCE 4 /* of them, between two looks at the clock */
#define PASSES 32 /* so often the next lane is taken at once when this one had no room */

/* ---- chunks ---- */

static uint64_t tick_of(const quarry_lanes *l)
{
	return atomic_load_explicit(&l->fast.tick, memory_order_relaxed);
}

/* Under the lock: a tick has something to do then. */
static void due_at(quarry_lanes *l, struct qy_chunk *k, uint64_t due)
{
	if (k->due > due)
		k->due = due;
	if (atomic_load_explicit(&l->fast.due, memory_order_relaxed) > due)
		atomic_store_explicit(&l->fast.due, due, memory_order_relaxed);
}

/* Under the lock. */
static struct qy_chunk *chunk_make(quarry_lanes *l, size_t size)
{
	struct qy_chunk *k = NULL;

	if (l->fast.size == 0 || l->fast.held + size <= l->fast.size)
		k = quarry_arena_aligned_alloc(l->arena, 4096, size);
	if (k == NULL)
		return NULL;
	*k = (struct qy_chunk){ .size = size, .end = (char *)k + size };
	qy_list_push_back(&l->fast.chunks, &k->link);
	qy_list_init(&k->order);
	l->fast.held += size;
	qy_lanes_grew(l, QUARRY_LANE_FAST, size);
	return k;
}

/* Under the lock: a dead one whose scopes are over; NULL: there is none. */
static struct qy_chunk *chunk_again(quarry_lanes *l)
{
	for (struct qy_link *i = l->fast.dead.next; i != &l->fast.dead; i = i->next) {
		struct qy_chunk *k = qy_container(i, struct qy_chunk, order);

		if (k->walked || k->size != QY_CHUNK_SIZE)
			continue;
		if (!qy_epoch_over(k->stamp))
			return NULL; /* those behind it died later */
		qy_list_remove(&k->order);
		k->dead = false;
		qy_publish(l->fast.dead_count, l->fast.dead_count - 1);
		l->fast.dead_bytes -= k->size;
		qy_count(&l->fast.resets, 1);
		return k;
	}
	return NULL;
}

/* Nothing in it is alive, and nobody makes objects in it. */
static void chunk_dies(quarry_lanes *l, struct qy_chunk *k)
{
	qy_hold(&l->lock);
	k->dead = true;
	k->due = UINT64_MAX;
	k->stamp = qy_epoch_now();
	qy_list_push_back(&l->fast.dead, &k->order);
	qy_publish(l->fast.dead_count, l->fast.dead_count + 1);
	l->fast.dead_bytes += k->size;
	qy_let_go(&l->lock);
}

/* Under the lock: whether scopes are over that were not. The one that is awaited stays the same until it is over: of many
 * threads that are in scopes often, hardly ever is none in one. */
static bool grace(quarry_lanes *l)
{
	if (qy_list_empty(&l->fast.dead))
		return false;
	if (l->fast.awaited == 0)
		l->fast.awaited = qy_grace_begin();
	if (!qy_grace_look(l->fast.awaited))
		return false;
	l->fast.awaited = 0;
	return true;
}

void qy_fast_end(quarry_lanes *l, struct qy_lanes_cache *c)
{
	struct qy_chunk *k = c->chunk;
	int32_t own;

	if (k == NULL)
		return;
	own = (int32_t)k->own;
	qy_count_shared(&l->figures->fast_allocated, (uint64_t)(k->top - qy_chunk_first(k)));
	c->chunk = NULL;
	qy_publish(k->own, 0);
	qy_publish(k->owner, NULL);
	if (atomic_fetch_add(&k->live, own) + own == 0)
		chunk_dies(l, k);
}

/* The thread makes objects in another chunk from now on. */
static bool next_chunk(quarry_lanes *l, struct qy_lanes_cache *c)
{
	struct qy_chunk *k;

	qy_fast_end(l, c);
	qy_hold(&l->lock);
	k = chunk_again(l);
	if (k == NULL && grace(l))
		k = chunk_again(l);
	if (k == NULL && grace(l)) /* the one that was awaited may have been before its end */
		k = chunk_again(l);
	if (k == NULL)
		k = chunk_make(l, QY_CHUNK_SIZE);
	if (k != NULL) {
		__atomic_store_n(&k->top, qy_chunk_first(k), __ATOMIC_RELEASE);
		atomic_store(&k->live, 0);
		qy_publish(k->owner, c);
		k->due = UINT64_MAX;
		due_at(l, k, tick_of(l) + l->fast.age);
		if (l->fast.size != 0 && l->fast.held > l->fast.size * l->fast.usage / 100)
			due_at(l, k, tick_of(l) + 1);
		c->chunk = k;
	}
	qy_let_go(&l->lock);
	return k != NULL;
}

/* Under the lock: of the dead ones beyond `keep` whose scopes are over some leave, so many at the most: bytes. */
static size_t some_leave(quarry_lanes *l, uint32_t keep, unsigned most, struct qy_link *leaving)
{
	struct qy_link *i, *next;
	size_t bytes = 0;

	for (i = l->fast.dead.next; i != &l->fast.dead && most > 0; i = next) {
		struct qy_chunk *k = qy_container(i, struct qy_chunk, order);

		next = i->next;
		if (k->walked || !qy_epoch_over(k->stamp) || (k->size == QY_CHUNK_SIZE && l->fast.dead_count <= keep))
			continue;
		qy_list_remove(&k->order);
		if (l->figures_chunk == &k->link)
			l->figures_chunk = k->link.next;
		if (l->promote_next == &k->link)
			l->promote_next = k->link.next;
		qy_list_remove(&k->link);
		qy_list_push_back(leaving, &k->link);
		qy_publish(l->fast.dead_count, l->fast.dead_count - 1);
		l->fast.dead_bytes -= k->size;
		l->fast.held -= k->size;
		bytes += k->size;
		most--;
	}
	return bytes;
}

size_t qy_fast_trim(quarry_lanes *l, uint32_t keep, uint64_t deadline)
{
	struct qy_link leaving, *i, *next;
	size_t bytes = 0, more;

	if (qy_peek(l->fast.dead_count) == 0)
		return 0;
	qy_hold(&l->lock);
	if (l->fast.dead_count > keep && grace(l))
		(void)grace(l);
	do {
		qy_list_init(&leaving);
		bytes += more = some_leave(l, keep, deadline == 0 ? UINT32_MAX : LEAVE_AT_ONCE, &leaving);
		qy_let_go(&l->lock);
		for (i = leaving.next; i != &leaving; i = next) {
			next = i->next;
			quarry_free(qy_container(i, struct qy_chunk, link));
		}
		if (more == 0 || deadline == 0 || qy_os->now_ns() >= deadline)
			return bytes;
		qy_hold(&l->lock);
	} while (true);
}

void qy_fast_keep(quarry_lanes *l)
{
	qy_hold(&l->lock);
	for (struct qy_link *i = l->fast.chunks.next; i != &l->fast.chunks; i = i->next) {
		struct qy_chunk *k = qy_container(i, struct qy_chunk, link);

		atomic_store(&k->live, 1 << 30); /* more than there are objects: it never becomes 0 */
		if (k->dead)
			qy_list_remove(&k->order);
		k->dead = k->walked = false;
	}
	qy_publish(l->fast.dead_count, 0);
	l->fast.dead_bytes = 0;
	qy_let_go(&l->lock);
}

void qy_fast_destroy(quarry_lanes *l)
{
	while (!qy_list_empty(&l->fast.chunks)) {
		struct qy_chunk *k = qy_container(l->fast.chunks.next, struct qy_chunk, link);

		qy_list_remove(&k->link);
		quarry_free(k);
	}
}

/* ---- objects ---- */

static uint64_t about_make(const struct qy_chunk *k, const void *head, size_t total)
{
	return total / 16 | (uint64_t)((char *)(uintptr_t)head - (char *)(uintptr_t)k) / 16 << QY_ABOUT_BACK_SHIFT;
}

/* Nobody's, of so many bytes: what aligning left, or an object that has no slot yet. */
static void head_fill(struct qy_head *head, uint64_t about)
{
	head->about = about;
	atomic_store_explicit(&head->entry.whose, QY_TOMB, memory_order_relaxed);
	atomic_store_explicit(&head->entry.marks, 0, memory_order_relaxed);
}

/* In the calling thread's chunk, or one that nobody else knows; NULL: no room. */
static struct qy_head *place(const quarry_lanes *l, struct qy_chunk *k, size_t total, size_t alignment)
{
	char *top = k->top;
	struct qy_head *head = (void *)((char *)qy_align_up((uintptr_t)top + sizeof(*head), alignment) - sizeof(*head));
	size_t gap = (size_t)((char *)head - top);

	if (gap + total > (size_t)(k->end - top))
		return NULL;
	if (gap > 0)
		head_fill((void *)top, about_make(k, top, gap));
	head_fill(head, about_make(k, head, total) | atomic_load_explicit(&l->fast.tick_bits, memory_order_relaxed) |
				(uint64_t)(qy_log2_floor(alignment) - 4) << QY_ABOUT_ALIGNED_SHIFT);
	qy_publish(k->own, k->own + 1);
	__atomic_store_n(&k->top, (char *)head + total, __ATOMIC_RELEASE);
	return head;
}

/* An object that has a chunk for itself. */
static struct qy_head *place_large(quarry_lanes *l, size_t total, size_t alignment)
{
	struct qy_head *head = NULL;
	struct qy_chunk *k;

	(void)qy_fast_trim(l, SPARES, 0);
	qy_hold(&l->lock);
	k = chunk_make(l, qy_align_up(sizeof(*k) + QY_CACHE_LINE + alignment + total, 4096) + 4096);
	if (k != NULL) {
		k->top = qy_chunk_first(k);
		head = place(l, k, total, alignment);
		qy_check(head != NULL);
		k->own = 0;
		atomic_store(&k->live, 1);
		k->due = UINT64_MAX;
		due_at(l, k, tick_of(l) + (total - sizeof(*head) > l->fast.large ? 1 : l->fast.age));
	}
	qy_let_go(&l->lock);
	return head;
}

struct qy_head *qy_fast_take(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment)
{
	size_t total = qy_align_up(size, 16) + sizeof(struct qy_head);
	struct qy_head *head = NULL;

	if (size > QY_FAST_MOST || alignment > ALIGNMENT_MAX)
		return NULL;
	if (total + alignment > QY_CHUNK_SIZE / 4)
		return place_large(l, total, alignment);
	if (c->chunk != NULL)
		head = place(l, c->chunk, total, alignment);
	if (head == NULL && next_chunk(l, c))
		head = place(l, c->chunk, total, alignment);
	if (head != NULL && size > l->fast.large) {
		qy_hold(&l->lock);
		due_at(l, c->chunk, tick_of(l) + 1);
		qy_let_go(&l->lock);
	}
	return head;
}

void qy_fast_entomb(quarry_lanes *l, struct qy_lanes_cache *c, struct qy_head *head)
{
	struct qy_chunk *k = qy_chunk_of(head);

	atomic_store_explicit(&head->entry.whose, QY_TOMB, memory_order_release);
	if (c != NULL && qy_peek(k->owner) == c)
		qy_publish(k->own, k->own - 1);
	else if (atomic_fetch_sub(&k->live, 1) == 1)
		chunk_dies(l, k);
}

/* ---- with attributes ---- */

__thread uint8_t qy_urgency __attribute__((tls_model("initial-exec")));

uint64_t qy_slow_over(quarry_lanes *l, size_t more)
{
	uint32_t percent = 100 - l->fast.slow_margin;
	uint64_t held, most;

	if (l->fast.slow_size == 0)
		return 0;
	held = l->segment_count * QY_SEGMENT_SIZE + atomic_load(&l->huge) - atomic_load(&l->fast.elsewhere);
	if (qy_urgency == QUARRY_PRIORITY_LOW)
		percent = l->fast.slow_usage;
	else if (qy_urgency == QUARRY_PRIORITY_CRITICAL)
		percent = 100;
	most = l->fast.slow_size * percent / 100;
	return held + more <= most ? 0 : held + more - most;
}

bool qy_slow_has_room(quarry_lanes *l, size_t more)
{
	return qy_slow_over(l, more) == 0;
}

static int lane_of(const quarry_lanes *l, size_t size, const quarry_halloc_attr *a)
{
	if (a->lane != QUARRY_LANE_ANY)
		return a->lane;
	if (a->flags & QUARRY_HALLOC_FRAME_CRITICAL)
		return QUARRY_LANE_FAST;
	if (a->flags & QUARRY_HALLOC_EVICTABLE)
		return QUARRY_LANE_SLOW;
	return size <= l->fast.threshold ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW;
}

/* Memory from the first arena of failover that has some. */
static void *take_elsewhere(quarry_lanes *l, size_t size, size_t alignment, struct qy_entry **entry, uint64_t *states)
{
	for (unsigned i = 0; i < QUARRY_FAILOVERS && l->fast.failover[i] != NULL; i++) {
		void *p = qy_take_huge(l, l->fast.failover[i], size, alignment);

		if (p == NULL)
			continue;
		qy_huge_of(p)->elsewhere = qy_huge_of(p)->size;
		atomic_fetch_add(&l->fast.elsewhere, qy_huge_of(p)->size);
		qy_count_shared(&l->fast.failed_over, 1);
		*states = QUARRY_WORD_HEAD;
		*entry = &qy_head_of(p)->entry;
		return p;
	}
	return NULL;
}

/* Memory by the chain: fast, slow, other arenas. marks: what its entry is to say. cache: the thread's, which may be another
 * afterwards. */
static void *take_by_chain(quarry_lanes *l, struct qy_lanes_cache **cache, size_t size, const quarry_halloc_attr *a,
			   struct qy_entry **entry, uint64_t *states, uint32_t *marks)
{
	struct qy_lanes_cache *c = *cache;
	size_t alignment = qy_max(a->alignment, 16);
	int lane = lane_of(l, size - qy_canary_bytes(l), a);
	struct qy_head *head = NULL;
	void *p = NULL;

	if (lane == QUARRY_LANE_FAST) {
		if (c->passes == 0 || (a->flags & QUARRY_HALLOC_NOSPILL))
			head = qy_fast_take(l, c, size, alignment);
		if (head == NULL && c->passes == 0) {
			bool room = qy_promote_for_room(l);

			/* The program's function, which was told of it, may have allocated: then the cache is in use no more. */
			*cache = c = qy_cache_begin(l);
			if (c == NULL)
				return NULL;
			if (room)
				head = qy_fast_take(l, c, size, alignment);
		}
		if (head != NULL) {
			*entry = &head->entry;
			*states = QUARRY_WORD_HEAD;
			return head + 1;
		}
		if (a->flags & QUARRY_HALLOC_NOSPILL)
			return NULL;
		qy_count_shared(&l->fast.spilled, 1);
		c->passes = c->passes == 0 ? PASSES : c->passes - 1;
	}
	*marks |= QY_MARK_SLOW;
	qy_urgency = (uint8_t)a->priority;
	p = qy_take_any(l, c, size, alignment, entry, states);
	qy_urgency = QUARRY_PRIORITY_NORMAL;
	if (p == NULL && !(a->flags & QUARRY_HALLOC_NOSPILL))
		p = take_elsewhere(l, size, alignment, entry, states);
	return p;
}

static bool has_room(const quarry_lanes *l, const struct qy_lanes_cache *c, size_t size, size_t alignment)
{
	unsigned class = qy_class_of(size, alignment, l->blob);

	return class < QY_CLASSES_MAX && c->of[class].taken != 0;
}

/* The first of a chunk, and of a batch in the slow lane, is a sample: its mark, or 0. before: there was room at hand. */
static uint32_t sample(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot, void *p, uint64_t states, bool before,
		       size_t size)
{
	const struct qy_head *head = qy_head_of(p);
	unsigned class = QY_CLASS_HUGE;
	uint32_t weight = 1, index;

	if ((states & QUARRY_WORD_HEAD) && head->about != 0) {
		if ((const char *)head != qy_chunk_first(qy_chunk_of(head)))
			return 0;
		weight = (uint32_t)qy_max(QY_CHUNK_SIZE / qy_about_total(head->about), 1);
		return qy_life_begin(l, slot, qy_class_of(size, 16, l->blob), true, weight, 0);
	}
	if (!(states & QUARRY_WORD_HEAD))
		class = qy_span_of(p, &index)->class;
	if (class >= QY_CLASSES_MAX)
		qy_count_shared(&qy_figures_of(l, class)->taken, 1);
	else if (before)
		return 0;
	else
		weight += (uint32_t)__builtin_popcountll(c->of[class].taken);
	return qy_life_begin(l, slot, class, false, weight, 0);
}

/* With the thread's cache in use. full: the slow lane, and what comes behind it, had no room. */
static quarry_handle make_with(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, const quarry_halloc_attr *a, bool *full)
{
	uint32_t slot, marks = a->type << QY_MARK_TYPE_SHIFT;
	size_t whole = size + qy_canary_bytes(l);
	uint64_t states = 0, word;
	struct qy_entry *entry = NULL;
	bool before;
	void *p;

	if (c == NULL) {
		(void)qy_fail_room(size);
		return 0;
	}
	if (!qy_slot_take(l, c, &slot))
		return 0;
	before = has_room(l, c, whole, qy_max(a->alignment, 16));
	p = take_by_chain(l, &c, whole, a, &entry, &states, &marks);
	if (p == NULL) {
		qy_slot_give(l, qy_lanes_cache(l), slot);
		*full = (marks & QY_MARK_SLOW) != 0;
		if (!*full)
			qy_count_shared(&l->fast.refused, 1);
		if (a->flags & QUARRY_HALLOC_NOSPILL)
			(void)qy_fail(ENOMEM, "no room in its lane for %lu bytes, which are not to be in another", (unsigned long)size);
		else
			(void)qy_fail_room(size);
		return 0;
	}
	word = qy_word_make(atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48, p) | states;
	if (QY_UNLIKELY(l->canaries))
		qy_canary_set(p, qy_size_of(word), size);
	marks |= sample(l, c, slot, p, states, before, whole);
	atomic_store_explicit(&entry->marks, marks, memory_order_relaxed);
	atomic_store_explicit(&entry->whose, slot + 1, memory_order_relaxed);
	atomic_store_explicit(&l->word[slot], word, memory_order_release);
	return qy_handle_make(l, slot, word, marks);
}

quarry_handle qy_make_with(quarry_lanes *l, size_t size, const quarry_halloc_attr *a)
{
	quarry_handle h = 0;
	bool full = false;

	for (int tries = 0; h == 0 && (tries == 0 || (full && tries == 1 && qy_pack_for_refused(l, size, a->priority))); tries++) {
		qy_quiet++;
		h = make_with(l, size > PTRDIFF_MAX ? NULL : qy_cache_begin(l), size, a, &full);
		qy_cache_end();
		qy_quiet--;
	}
	if (h == 0)
		errno = ENOMEM;
	if (h == 0 && full)
		qy_count_shared(&l->fast.refused, 1);
	if (h != 0) /* (else the function's errors might stand where this one's text does) */
		qy_events_deliver();
	return h;
}

/* ---- without: as short as it can be ---- */

/* What quarry_halloc and quarry_hfree begin with in this lane. All that is seldom is in their tails, so that they save no
 * registers. */

QY_COLD static quarry_handle halloc_rest(quarry_lanes *l, size_t size)
{
	qy_cache_end();
	return quarry_halloc_typed(l, size, 0, 0);
}

quarry_handle qy_fast_halloc(quarry_lanes *l, struct qy_lanes_record *r, size_t size)
{
	size_t total = (size + 15 + sizeof(struct qy_head)) & ~(size_t)15;
	struct qy_lanes_cache *c = qy_record_taking(r, l);
	struct qy_chunk *k;
	struct qy_head *head;
	uint64_t generation;
	uint32_t slot;

	if (QY_UNLIKELY(c == NULL || c->slots == 0))
		return halloc_rest(l, size);
	k = c->chunk;
	if (QY_UNLIKELY(k == NULL || (size_t)(k->end - k->top) < total))
		return halloc_rest(l, size);
	head = (void *)k->top;
	slot = c->slot[--c->slots];
	head->about = about_make(k, head, total) | atomic_load_explicit(&l->fast.tick_bits, memory_order_relaxed);
	atomic_store_explicit(&head->entry.marks, 0, memory_order_relaxed);
	atomic_store_explicit(&head->entry.whose, slot + 1, memory_order_relaxed);
	qy_publish(k->own, k->own + 1);
	__atomic_store_n(&k->top, (char *)head + total, __ATOMIC_RELEASE);
	generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48;
	atomic_store_explicit(&l->word[slot], qy_word_make(generation, head + 1) | QUARRY_WORD_HEAD, memory_order_release);
	atomic_store_explicit(&r->taking, 0, memory_order_release);
	return l->map.number | generation << 32 | slot;
}

enum freeing { FREEING_DONE, FREEING_NOT, FREEING_LAST, FREEING_BEGUN };

/* An object of the fast lane, which nobody has pinned, moves or noted something of, is freed. NOT: all else, and nothing
 * is done. LAST: it was its chunk's last. BEGUN: its word says so, and no more. In a scope. */
QY_INLINE enum freeing free_fast(quarry_lanes *l, struct qy_lanes_cache *c, quarry_handle h, uint64_t *freed,
				 struct qy_chunk **chunk)
{
	uint32_t type = (uint32_t)(h >> 24) & 0xff000000u;
	qy_word *at = &l->word[(uint32_t)h];
	uint64_t word = atomic_load_explicit(at, memory_order_acquire);
	struct qy_head *head;
	struct qy_chunk *k;

	if (QY_UNLIKELY(((word ^ h << 16) & (QY_WORD_STATES | QUARRY_WORD_MOVING)) != 0) || !(word & QUARRY_WORD_HEAD))
		return FREEING_NOT;
	head = qy_head_of(qy_word_address(word));
	if (QY_UNLIKELY(head->about == 0 || atomic_load_explicit(&head->entry.marks, memory_order_relaxed) != type ||
			c->slots == QY_SLOTS_CACHED || (h >> 32 & 0xffff) >= l->generations))
		return FREEING_NOT;
	*chunk = k = qy_chunk_of(head);
	*freed = (word + ((uint64_t)1 << 48)) | QY_WORD_FREED;
	if (QY_UNLIKELY(!atomic_compare_exchange_strong(at, &word, *freed)))
		return FREEING_NOT;
	if (QY_UNLIKELY(atomic_load(&head->entry.marks) != type))
		return FREEING_BEGUN;
	atomic_store_explicit(&head->entry.whose, QY_TOMB, memory_order_release);
	atomic_store_explicit(at, (*freed & QUARRY_WORD_GENERATION) | QUARRY_WORD_FREE, memory_order_relaxed);
	qy_slot_push(c, (uint32_t)h);
	if (qy_peek(k->owner) == c)
		qy_publish(k->own, k->own - 1);
	else if (atomic_fetch_sub(&k->live, 1) == 1)
		return FREEING_LAST;
	return FREEING_DONE;
}

/* It is out of its scope, but what it began is its until it is done: the object is counted still, or the chunk is dead
 * and nobody's. */
QY_COLD static int free_rest(quarry_lanes *l, quarry_handle h, enum freeing freeing, uint64_t freed, struct qy_chunk *k)
{
	if (freeing == FREEING_NOT)
		return qy_hfree_slow(l, h);
	if (freeing == FREEING_LAST) {
		chunk_dies(l, k);
		return 0;
	}
	quarry_enter();
	qy_freed(l, h, freed);
	quarry_leave();
	return 0;
}

int qy_fast_hfree(quarry_lanes *l, struct qy_lanes_record *r, quarry_handle h)
{
	struct qy_lanes_cache *c;
	bool outermost = r->depth == 0;
	struct qy_chunk *k = NULL;
	enum freeing freeing;
	uint64_t freed = 0;

	if (QY_UNLIKELY(!atomic_load_explicit(&qy_fenceless, memory_order_relaxed)))
		return qy_hfree_slow(l, h);
	/* A scope, without depth: nothing in it enters another. */
	if (outermost)
		atomic_store_explicit(&r->epoch, qy_epoch_to_enter(), memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	c = atomic_load_explicit(&r->cache[l->id], memory_order_acquire);
	freeing = QY_UNLIKELY(c == NULL) ? FREEING_NOT : free_fast(l, c, h, &freed, &k);
	if (outermost)
		atomic_store_explicit(&r->epoch, 0, memory_order_release);
	return QY_LIKELY(freeing == FREEING_DONE) ? 0 : free_rest(l, h, freeing, freed, k);
}
