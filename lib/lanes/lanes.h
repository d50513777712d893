/* SPDX-License-Identifier: MIT */
/* Movable memory: what its parts know of each other.
 *
 * A slot has a word (generation, address, state), which alone says whether a handle's object is there and where. All
 * changes of a live word are compare-and-swaps: freeing one, moving one, stopping a move. So whoever wins did it, and
 * whoever loses knows.
 *
 * Objects lie in spans of 64 KiB pages, all of one class in a span; 32 pages are a segment, of 2 MiB, whose first 4 KiB
 * are its record. A span has a bit for each object (1: taken) and an entry that says whose it is: slot + 1, or that it
 * is a tombstone, with the epoch of its end. A tombstone's memory is used again when all scopes of that epoch are over:
 * no list, and no allocation for it. Whose it is is written by who made the object and then by who ended or moved it,
 * which is one; pins are counted by all.
 *
 * Who may take from a span: its owner (a thread, or the mover) takes its bits 64 at a time, without a lock. Bits are
 * cleared by who holds the span: its owner, or under lanes->lock when it has none. Anybody may make tombstones.
 *
 * To move an object (one thread at a time, the mover):
 *	1. MOVING in its word, by CAS. From here on a writer or a pin takes MOVING away before it goes on.
 *	2. A grace period: scopes in which somebody got the object for writing before are over; pins are looked at.
 *	3. The copy. Nobody writes to the old one; readers go on there.
 *	4. The new address by CAS from exactly the word of step 1. Where that fails the copy is dropped.
 *	5. The old one is a tombstone.
 *
 * Locks, from first to last: registry (scope.c) -> lanes->moving -> groups.lock -> a shard of cold.c -> lanes->lock -> slots.lock,
 * and the lock of cold.c. */
#ifndef QUARRY_LANES_LANES_H
#define QUARRY_LANES_LANES_H

#include <pthread.h>

#include "include/quarry/lanes.h"
#include "lib/base/base.h"
#include "lib/lanes/cold.h"

#define QY_LANES_MAX 128 /* numbers; 0 is none */
#define QY_SEGMENT_SIZE ((size_t)2 << 20)
#define QY_SEGMENT_PAGES 32
#define QY_LPAGE_SIZE ((size_t)64 << 10)
#define QY_SEGMENT_RECORD ((size_t)4 << 10)
#define QY_CLASSES_MAX 176
#define QY_FULLNESS 4
#define QY_CLASS_WHOLE 254 /* a span that is one object */
#define QY_CLASS_HUGE 255  /* beyond segments: a block of the arena's */
#define QY_WHOLE_MAX ((size_t)1 << 20)
#define QY_SPAN_WORDS 64 /* of bits: 4096 objects of 16 bytes */
#define QY_TOMB ((uint32_t)1 << 31)
#define QY_BATCH 1024
#define QY_SLOTS_CACHED 64
#define QY_GENERATION_LAST 0xfffeu

#define QY_MARK_PINS 0xffffu
#define QY_MARK_ZOMBIE (1u << 16) /* freed with pins: the last of them frees the memory */
#define QY_MARK_SLOW (1u << 17)   /* born in the slow lane */
#define QY_MARK_SIDE (1u << 18)   /* there is something of it in its slot's side record (group.h) */
#define QY_MARK_TYPE_SHIFT 24
#define QY_MARK_STAYS (QY_MARK_PINS | QY_MARK_SIDE) /* it does not become cold: what is cold has no entry */

typedef _Atomic(uint64_t) qy_word;

/* ---- spans ---- */

struct qy_entry {
	_Atomic(uint32_t) whose; /* slot + 1, or QY_TOMB and the epoch; 0: nobody's */
	_Atomic(uint32_t) marks;
};

/* What stands before an object that is in no span (HEAD in its word). about: of the fast lane (fast.h); 0: beyond
 * segments. */
struct qy_head {
	struct qy_entry entry;
	uint64_t about;
};

/* An object beyond segments: this stands before it. */
struct qy_huge {
	struct qy_link link;
	void *base;
	size_t size;
	uint64_t elsewhere; /* the size again, when it is of an arena of failover */
	uint64_t padding;
	struct qy_head head;
};
_Static_assert(sizeof(struct qy_huge) == 64 && sizeof(struct qy_head) == 16, "the head is next to the object");

enum qy_span_place { QY_SPAN_NONE, QY_SPAN_OWNED, QY_SPAN_LISTED, QY_SPAN_FULL, QY_SPAN_INSIDE, QY_SPAN_DRAINING };

struct qy_span {
	struct qy_link link; /* of its class's list, when LISTED */
	qy_word *bits;
	struct qy_entry *entry;
	_Atomic(uint32_t) tombs, used; /* used: bits that are 1 */
	uint32_t own_tombs;            /* OWNED: of its owner's making, to be added to those */
	struct qy_taker *owner;        /* OWNED */
	uint32_t count;
	uint32_t size; /* bytes of an object */
	uint32_t reciprocal;
	uint8_t class, pages;
	uint8_t back;                  /* INSIDE: so many pages before it the span begins */
	_Atomic(uint8_t) place;
};

struct qy_segment {
	uint64_t magic;
	quarry_lanes *lanes;
	struct qy_link link;
	uint32_t free; /* pages, a bit each */
	bool draining;
	struct qy_link order; /* of the plan's candidates, of drained ones, or, without a span, of the spares */
	uint64_t emptied;     /* drained: the grace period after its last object was moved */
	struct qy_span span[QY_SEGMENT_PAGES];
};

/* What a thread, or the mover, takes objects of a class from. */
struct qy_taker {
	struct qy_span *span;
	uint64_t taken; /* bits of a word that are the taker's, and free */
	uint32_t word;
	uint32_t size;
	char *first;            /* the word's objects, */
	struct qy_entry *entry; /* and their entries */
};

/* What a thread has of some lanes. */
struct qy_lanes_cache {
	struct qy_lanes_cache *next; /* of those that were recalled, */
	struct qy_lanes_record *whose; /* and from whom */
	struct qy_taker of[QY_CLASSES_MAX];
	uint32_t slots, slot[QY_SLOTS_CACHED];
	struct qy_chunk *chunk; /* of the fast lane; NULL: none yet */
	uint32_t passes;        /* so often the fast lane is not asked: it had no room */
};

struct qy_move {
	uint32_t slot;
	uint64_t word; /* with MOVING */
	void *to;      /* NULL: not yet, or dropped */
};

struct qy_cold;
struct qy_cooling;
#define QY_BUCKETS 32
#define QY_SCRATCH_MAX 30

enum qy_plan_state { QY_PLAN_NONE, QY_PLAN_COUNTING, QY_PLAN_MADE };

/* What the mover goes by, over as many calls as its budgets make of it. What there is room for was counted before
 * anything was moved: objects of each class in spans that nobody owns, and pages of no span. Only what has a place to go
 * to is moved, so a compaction that can gain nothing moves nothing. The lists and next are under lanes->lock, all else
 * is the mover's. */
struct qy_plan {
	enum qy_plan_state state;
	uint64_t begun;                    /* ns */
	struct qy_link *next;              /* COUNTING: the segment to be looked at next */
	struct qy_link bucket[QY_BUCKETS]; /* segments that may be emptied, by the bytes that are live in them */
	struct qy_link drained;            /* emptied ones, that scopes may still see */
	uint32_t room[QY_CLASSES_MAX];
	uint32_t pages;
	uint32_t owned;             /* segments that would be there, were it not for spans that threads own; */
	bool recalled;              /* those were taken back */
	uint64_t live, held;        /* bytes */
	uint64_t moved;             /* bytes, by this plan, */
	uint32_t freed;             /* and segments that went back */
	struct qy_segment *victim;  /* is being emptied, and how far that has come: */
	uint32_t page, object;
};

/* What steps take, measured: by it the mover knows what fits into the rest of its time. */
struct qy_pace {
	uint64_t unit;    /* ns / 1024 of moving an object: a unit for it, and one for each 256 bytes */
	uint64_t grace;   /* ns of a grace period's beginning */
	uint64_t discard; /* ns of giving a segment back */
};

/* When the background's mover runs, and for how much of its time. */
struct qy_governor {
	bool on;
	uint32_t start, full, least, most; /* as quarry_lanes_attr */
	uint64_t ignore;
	_Atomic(bool) news;        /* since the last plan was begun */
	_Atomic(uint64_t) due;     /* ns; UINT64_MAX: when there are news, */
	uint64_t not_before;       /* but not before: ns */
	uint64_t pack_due;         /* ns: of due, what is to be packed; UINT64_MAX: when there are news */
	uint64_t interval;         /* ns between plans: longer while they gain little */
	uint64_t recall_at;        /* ns: the earliest that caches are recalled again */
	bool runs;                 /* the plan is worth it */
	_Atomic(bool) inside;      /* it was the last to lock lanes->moving */
	_Atomic(uint32_t) wanted;  /* somebody waits for that */
	qy_counter ns, plans;
};

/* A move from lane to lane (transfer.c). */
struct qy_transfer {
	uint32_t slot;
	uint32_t why;
	uint64_t word;   /* with MOVING */
	void *to;        /* NULL: not yet, or dropped */
	uint64_t states; /* of its new word */
};

/* The fast lane's; under the lock, but for what is atomic. The lines of fast_make first. */
struct qy_fast {
	size_t most;                  /* quarry_halloc begins with so many bytes there; 0: with none */
	_Atomic(uint64_t) tick_bits;  /* of a head */
	_Atomic(uint64_t) tick, due;  /* due: when a tick has something to promote */
	uint64_t size, held, slow_size;
	uint32_t threshold, large, age;
	uint32_t usage, margin, slow_usage, slow_margin; /* per cent */
	uint32_t compact, interval;                      /* per cent (0: never by itself), ms */
	_Atomic(uint64_t) checked;                       /* ns */
	struct qy_link chunks, dead;                     /* all; those without an object, the oldest first */
	uint32_t dead_count;
	uint64_t awaited;                                /* a grace period, for the dead; 0: none */
	quarry_arena *failover[QUARRY_FAILOVERS];
	void (*hook)(void *arg, quarry_handle h, int why);
	void *hook_arg;
	qy_counter resets, promoted[QUARRY_PROMOTIONS], promoted_bytes, demoted, given_up, spilled, failed_over, refused;
	_Atomic(int64_t) stubs;
	_Atomic(uint64_t) elsewhere; /* bytes of arenas of failover */
	uint64_t futile;             /* no promotion for want of room before this tick; under `moving`, as the rest */
	uint64_t pass;
	uint32_t begun;
	struct qy_transfer batch[QY_BATCH];
};

struct qy_groups {
	pthread_mutex_t lock;
	struct qy_link all;
	_Atomic(struct qy_side *) *side; /* by slot / QY_SIDES; made when the first object needs one */
};

struct quarry_lanes {
	quarry_lanes_map map; /* first: the header's inline functions read it */
	uint64_t magic;
	uint32_t id, generations;
	qy_word *word;
	quarry_arena *arena, *own;
	struct {
		pthread_mutex_t lock;
		_Atomic(uint32_t) next; /* never used from here on */
		uint32_t first;         /* free ones, linked by their words' address bits; slot + 1 */
		uint64_t retired;
	} slots;
	pthread_mutex_t lock; /* segments, lists */
	struct qy_link segments;
	struct qy_link partial[QY_CLASSES_MAX][QY_FULLNESS]; /* spans with room, by how full they are */
	struct qy_link dead; /* spans of tombstones */
	struct qy_link spares; /* segments without a span, by order */
	uint32_t spare;                            /* segments without a span */
	_Atomic(uint64_t) segment_count;
	_Atomic(uint64_t) huge; /* bytes beyond segments */
	_Atomic(uint64_t) huge_count;
	struct qy_link huge_objects, huge_tombs; /* live ones; freed ones, of late; under the lock */
	_Atomic(uint32_t) huge_tombs_count;
	pthread_mutex_t moving;
	struct qy_lanes_cache mover;
	struct qy_move batch[QY_BATCH];
	uint32_t batched;
	void *scratch[QY_SCRATCH_MAX]; /* under the lock: segments that were never touched, for movers when there are no others */
	uint32_t scratches, scratch_percent;
	bool confined;       /* the mover has no time for new segments: the kernel would fill one with zeros for it */
	struct qy_plan plan; /* the mover's, as is */
	struct qy_pace pace;
	struct qy_governor governor;
	struct qy_lanes_cache *recalled; /* caches that threads may still use */
	uint64_t recalled_epoch;
	qy_counter recalls;
	qy_counter moved, moved_bytes, given_up, freed_segments;
	struct qy_cold *cold; /* NULL: nothing becomes cold */
	struct qy_cooling *cooling;
	struct qy_fast fast;
	struct qy_groups groups;
};

#define QY_LANES_MAGIC 0x73656e616cu

int qy_lanes_none(void) __attribute__((cold)); /* EINVAL; false */

QY_INLINE bool qy_lanes_check(const quarry_lanes *l)
{
	return QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC) || qy_lanes_none();
}

/* ---- scope.c ---- */

/* A thread's: the epoch in which its outermost scope began, 0 outside, and what it has of lanes. */
struct qy_lanes_record {
	_Alignas(QY_CACHE_LINE) _Atomic(uint64_t) epoch;
	uint32_t depth;
	_Atomic(bool) used;
	struct qy_lanes_record *next;
	_Atomic(uint32_t) taking; /* the thread uses a cache outside of scopes */
	/* Set under the registry's lock. The thread itself uses one in a scope, or between qy_cache_begin and qy_cache_end:
	 * so it can be taken from it. */
	_Atomic(struct qy_lanes_cache *) cache[QY_LANES_MAX];
};

extern QY_HIDDEN __thread struct qy_lanes_record *qy_lanes_record __attribute__((tls_model("initial-exec")));

extern QY_HIDDEN _Atomic(bool) qy_fenceless; /* the kernel fences threads for us */

/* The calling thread's cache of these lanes, in a scope, or after qy_cache_begin; NULL (ENOMEM). */
struct qy_lanes_cache *qy_lanes_cache_make(quarry_lanes *l);
struct qy_lanes_record *qy_lanes_record_make(void);

QY_INLINE struct qy_lanes_cache *qy_lanes_cache(quarry_lanes *l)
{
	struct qy_lanes_record *r = qy_lanes_record;
	struct qy_lanes_cache *c = r == NULL ? NULL : atomic_load_explicit(&r->cache[l->id], memory_order_acquire);

	return QY_LIKELY(c != NULL) ? c : qy_lanes_cache_make(l);
}

void qy_scope_fence(void);

/* Its cache of these lanes is in use until taking is 0 again; NULL: it has none. */
QY_INLINE struct qy_lanes_cache *qy_record_taking(struct qy_lanes_record *r, const quarry_lanes *l)
{
	atomic_store_explicit(&r->taking, 1, memory_order_relaxed);
	if (QY_LIKELY(atomic_load_explicit(&qy_fenceless, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		qy_scope_fence();
	return atomic_load_explicit(&r->cache[l->id], memory_order_acquire);
}

/* It stays the thread's until qy_cache_end. (A scope would do, but that holds up the sweep in which room is found.) */
QY_INLINE struct qy_lanes_cache *qy_cache_begin(quarry_lanes *l)
{
	struct qy_lanes_record *r = qy_lanes_record;
	struct qy_lanes_cache *c;

	if (QY_UNLIKELY(r == NULL) && (r = qy_lanes_record_make()) == NULL)
		return NULL;
	c = qy_record_taking(r, l);
	return QY_LIKELY(c != NULL) ? c : qy_lanes_cache_make(l);
}

QY_INLINE void qy_cache_end(void)
{
	if (QY_LIKELY(qy_lanes_record != NULL))
		atomic_store_explicit(&qy_lanes_record->taking, 0, memory_order_release);
}

/* Take all threads' caches of these lanes from them, under l->moving: how many. They are emptied by qy_recall_end, when
 * nobody uses them any more: false, some are still in use. */
uint32_t qy_recall_begin(quarry_lanes *l);
bool qy_recall_end(quarry_lanes *l);

/* The next lanes from id on (by number) that are due, or have news, with l->moving locked; NULL: none. */
quarry_lanes *qy_lanes_due(uint32_t *id, uint64_t now, uint64_t *next);

/* What the calling thread takes objects from goes back. */
void qy_lanes_flush(quarry_lanes *l);
int qy_lanes_register(quarry_lanes *l);
void qy_lanes_unregister(quarry_lanes *l);
bool qy_in_scope(void);

extern QY_HIDDEN _Atomic(uint64_t) qy_epoch;
extern QY_HIDDEN _Atomic(uint64_t) qy_epoch_safe; /* all scopes that began in epochs below it are over */

/* A scope of a thread that has a record. */
QY_INLINE void qy_scope_enter(struct qy_lanes_record *r)
{
	if (r->depth++ > 0)
		return;
	atomic_store_explicit(&r->epoch, atomic_load_explicit(&qy_epoch, memory_order_relaxed), memory_order_relaxed);
	if (QY_LIKELY(atomic_load_explicit(&qy_fenceless, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		qy_scope_fence();
}

QY_INLINE void qy_scope_leave(struct qy_lanes_record *r)
{
	if (--r->depth == 0)
		atomic_store_explicit(&r->epoch, 0, memory_order_release);
}

/* The epoch that a tombstone of now has. */
QY_INLINE uint32_t qy_epoch_now(void)
{
	return (uint32_t)atomic_load_explicit(&qy_epoch, memory_order_relaxed) & (QY_TOMB - 1);
}

/* Stamps of tombstones have 31 bits: they are compared around the end. */
#define QY_STAMP_MASK (QY_TOMB - 1)

/* Whether all scopes of that epoch and before are known to be over, `safe` being qy_epoch_safe of now or before. */
QY_INLINE bool qy_stamp_over(uint32_t stamp, uint64_t safe)
{
	return (((uint32_t)safe - stamp) & QY_STAMP_MASK) - 1 < QY_STAMP_MASK / 2;
}

QY_INLINE bool qy_epoch_over(uint32_t stamp)
{
	return qy_stamp_over(stamp, atomic_load_explicit(&qy_epoch_safe, memory_order_acquire));
}
/* Begin a grace period: the epoch to be waited for. All threads have had a fence. */
uint64_t qy_grace_begin(void);
/* Look whether it is over; if so qy_epoch_over knows. */
bool qy_grace_look(uint64_t epoch);
/* Wait until it is over, or the clock (ns; 0: never) says no. */
bool qy_grace_wait(uint64_t epoch, uint64_t deadline);

/* ---- slots.c ---- */

/* Have the cache get some: false, and errno is set, when there are none. */
bool qy_slots_more(quarry_lanes *l, struct qy_lanes_cache *c);

/* A slot that nobody has: true, and its number. */
QY_INLINE bool qy_slot_take(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t *slot)
{
	if (QY_UNLIKELY(c->slots == 0) && !qy_slots_more(l, c))
		return false;
	*slot = c->slot[--c->slots];
	return true;
}

/* Its object is freed; its word says so already. */
void qy_slot_give(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot);
void qy_slots_flush(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t keep);

QY_INLINE void *qy_word_address(uint64_t word)
{
	return (void *)(uintptr_t)((word & QUARRY_WORD_ADDRESS) >> 1);
}

QY_INLINE uint64_t qy_word_make(uint64_t generation, const void *p)
{
	return generation << 48 | (uint64_t)(uintptr_t)p << 1;
}

/* ---- segment.c ---- */

QY_INLINE struct qy_segment *qy_segment_of(const void *p)
{
	return (struct qy_segment *)(void *)((uintptr_t)p & ~(QY_SEGMENT_SIZE - 1));
}

QY_INLINE char *qy_span_base(const struct qy_span *s)
{
	struct qy_segment *g = qy_segment_of(s);
	size_t page = (size_t)(s - g->span);

	return (char *)g + (page == 0 ? QY_SEGMENT_RECORD : page * QY_LPAGE_SIZE);
}

/* The span of an object in a segment, and which it is there. */
QY_INLINE struct qy_span *qy_span_of(const void *p, uint32_t *index)
{
	struct qy_segment *g = qy_segment_of(p);
	size_t page = ((uintptr_t)p & (QY_SEGMENT_SIZE - 1)) / QY_LPAGE_SIZE, first = page - g->span[page].back;
	struct qy_span *s = &g->span[first];
	size_t offset = ((uintptr_t)p & (QY_SEGMENT_SIZE - 1)) - (first == 0 ? QY_SEGMENT_RECORD : first * QY_LPAGE_SIZE);

	*index = (uint32_t)((uint64_t)offset * s->reciprocal >> 32);
	return s;
}

/* The entry of an object, by its address. */
QY_INLINE struct qy_entry *qy_entry_of(const void *p)
{
	uint32_t index;
	struct qy_span *s = qy_span_of(p, &index);

	return &s->entry[index];
}


unsigned qy_class_count(void);
/* Pages for spans for so many objects of a class. */
uint32_t qy_pages_for(unsigned class, uint32_t objects);
size_t qy_class_size(unsigned class);
/* The class for so many bytes so aligned; QY_CLASS_WHOLE or QY_CLASS_HUGE. */
unsigned qy_class_find(size_t size, size_t alignment);

#define QY_CLASS_FINE 1024 /* classes every 16 bytes up to this */

QY_INLINE unsigned qy_class_of(size_t size, size_t alignment)
{
	if (QY_LIKELY(size - 1 < QY_CLASS_FINE && alignment <= 16))
		return (unsigned)((size + 15) / 16) - 1;
	return qy_class_find(size, alignment);
}

/* Have the taker take more: false, and errno is set, when there is no memory. */
bool qy_take_more(quarry_lanes *l, struct qy_taker *t, unsigned class);

/* Room for an object, of a taker that has some, and its entry, nobody's still. */
QY_INLINE void *qy_take_one(struct qy_taker *t, struct qy_entry **entry)
{
	unsigned bit = (unsigned)__builtin_ctzll(t->taken);

	t->taken &= t->taken - 1;
	*entry = &t->entry[bit];
	return t->first + (size_t)bit * t->size;
}

/* The same, of one that may have to get it first. NULL: no memory. */
QY_INLINE void *qy_take(quarry_lanes *l, struct qy_taker *t, unsigned class, struct qy_entry **entry)
{
	if (QY_UNLIKELY(t->taken == 0) && !qy_take_more(l, t, class))
		return NULL;
	return qy_take_one(t, entry);
}

void *qy_take_whole(quarry_lanes *l, size_t size, bool mover);
void qy_entomb_shared(quarry_lanes *l, struct qy_span *s);

/* An object of a span is over; its memory is used again when all scopes of now are. The caller is in one, and so the span
 * stays what it is meanwhile. c: the calling thread's, NULL for the mover. */
QY_INLINE void qy_entomb(quarry_lanes *l, struct qy_lanes_cache *c, struct qy_span *s, uint32_t index)
{
	atomic_store_explicit(&s->entry[index].whose, QY_TOMB | qy_epoch_now(), memory_order_release);
	if (QY_LIKELY(c != NULL && s->class < QY_CLASSES_MAX && qy_peek(s->owner) == &c->of[s->class]))
		qy_publish(s->own_tombs, s->own_tombs + 1);
	else
		qy_entomb_shared(l, s);
}

/* A taker's room that nobody ever saw, back at once. */
void qy_untake(struct qy_taker *t, void *p);
/* What a thread, or the mover, takes objects from goes back, with what it had taken and not used. */
void qy_takers_end(quarry_lanes *l, struct qy_lanes_cache *c);
/* What is over of a span is free again: how many objects. The caller holds the span. */
uint32_t qy_sweep(struct qy_span *s);
/* Under l->lock: a span that nobody owns goes where it belongs: into a list, or, empty, back to its segment. */
void qy_span_settle(quarry_lanes *l, struct qy_span *s);
/* The bits and entries of a span that ends, where they do not stand in it. */
void qy_span_untell(struct qy_span *s);
/* Under l->lock: the segment has no span, and is of the lanes no more; the caller frees it. */
void qy_segment_leave(quarry_lanes *l, struct qy_segment *g);
/* Under l->lock: spans of tombstones alone go back to their segments, when their scopes are over. At most so many are
 * looked at; whether there are more. */
bool qy_bury(quarry_lanes *l, unsigned most);
/* Under l->lock: have as much scratch as is due, as far as there is memory; give back what is not due any more, or all. */
void qy_scratch_fill(quarry_lanes *l);
void qy_scratch_trim(quarry_lanes *l, bool all);
/* Under l->lock: a segment's part of the figures. */
void qy_segment_count(const struct qy_segment *g, quarry_lanes_stats *stats);

/* ---- plan.c ---- */

/* Begin to count anew. Under l->moving, as all of these. */
void qy_plan_begin(quarry_lanes *l, uint64_t now);
/* Whether the plan that has come to its end gained so much that another may be worth it. */
bool qy_plan_gained(const quarry_lanes *l);
/* Count some segments; true: the plan is made. */
bool qy_plan_count(quarry_lanes *l);
/* Look at some candidates, those first that cost the fewest bytes to empty; objects of more than `most` bytes are not
 * moved. True: there is a victim, and it is drained; or there is none, and the plan has come to its end (NONE). */
bool qy_plan_choose(quarry_lanes *l, size_t most);
/* Under l->lock: what was not emptied of a drained segment is taken from again. */
void qy_undrain(quarry_lanes *l, struct qy_segment *g);

QY_INLINE bool qy_is_span(const struct qy_span *s)
{
	uint8_t place = atomic_load_explicit(&s->place, memory_order_relaxed);

	return place != QY_SPAN_NONE && place != QY_SPAN_INSIDE;
}

QY_INLINE uint32_t qy_live_of(const struct qy_span *s)
{
	return atomic_load_explicit(&s->used, memory_order_relaxed) - atomic_load_explicit(&s->tombs, memory_order_relaxed);
}

/* ---- background.c ---- */

/* There is something new, that may be worth a look: a thread freed many. No lock held. */
void qy_news_slow(quarry_lanes *l);

QY_INLINE void qy_news(quarry_lanes *l)
{
	if (QY_UNLIKELY(!atomic_load_explicit(&l->governor.news, memory_order_relaxed)) && l->governor.on)
		qy_news_slow(l);
}

/* Percent of a processor for so much waste, in percent of what is live. */
uint64_t qy_governor_share(const struct qy_governor *g, uint64_t waste);
void qy_background_in_child(void);
/* Lanes with cold memory are there from now on. */
void qy_background_cool(quarry_lanes *l);

/* ---- move.c ---- */

/* Whoever is last to change the word did: a move that was begun is not. Its room goes back. */
void qy_move_give_up(quarry_lanes *l, struct qy_move *b);
/* An object's bytes, which a writer who stops the move may change meanwhile. */
void qy_copy_object(void *to, const void *from, size_t size);
/* Under l->moving: a fork cut a batch off: the child has a copy of it, and nobody who goes on. */
void qy_moves_undo(quarry_lanes *l);
/* One go at it. */
struct qy_mover {
	uint64_t begun, deadline; /* ns; no deadline: 0 */
	uint64_t patience;        /* ns that it waits for scopes; 0: until the deadline */
	_Atomic(uint32_t) *stop;  /* somebody else wants to; NULL: nobody may */
	bool held_up;             /* by scopes, for longer */
	uint32_t segments;        /* that went back */
};

/* l->moving for a call of the program's: the mover in the background steps aside. */
bool qy_mover_enter(quarry_lanes *l, const struct qy_mover *m);
/* Have segments go back until there are enough, the time is over, or a plan has come to its end. Under l->moving, not in
 * a scope. */
void qy_pack(quarry_lanes *l, struct qy_mover *m, size_t enough);
/* There was no memory: have a segment be free by moving what can be moved, when that does not take long. Whether one is. */
bool qy_pack_for_refused(quarry_lanes *l);
/* What was left of earlier ones is in order: a fork may have cut one off. */
void qy_mover_begin(quarry_lanes *l);
/* Memory that is free already goes back, as far as there is time. */
void qy_mover_free(quarry_lanes *l, struct qy_mover *m);

/* ---- cool.c ---- */

struct qy_cold_object {
	uint32_t size;
	bool evicted, corrupt;
};

/* In a scope: have the object of the handle, whose word is this, a cold one's, in memory. -1 with EIO (it is lost), ENOMEM.
 * 0 means that its word is to be looked at again. */
int qy_warm(quarry_lanes *l, quarry_handle h, uint64_t word);
/* What a cold object, whose word is this, is: 1; 0: it has another word now; -1: the handle is of another type or lane. */
int qy_cold_look(quarry_lanes *l, quarry_handle h, uint64_t word, struct qy_cold_object *o);
/* The cold object that this was the word of was freed. */
void qy_cold_forget(quarry_lanes *l, uint64_t word);
/* -1 with errno; qy_cooling_end is called in any case. */
int qy_cooling_make(quarry_lanes *l, const quarry_cold_attr *attr);
/* Under l->moving: cool for a while, if it is time, and until somebody wants to move. When (ns) it is time again. */
uint64_t qy_cool_slice(quarry_lanes *l, uint64_t now, _Atomic(uint32_t) *wanted);
void qy_cooling_end(quarry_lanes *l);

/* ---- object.c ---- */

/* In a scope: whether the handle's object is cold. */
bool qy_is_away(quarry_lanes *l, quarry_handle h);

QY_INLINE struct qy_head *qy_head_of(const void *p)
{
	return (struct qy_head *)(void *)((char *)(uintptr_t)p - sizeof(struct qy_head));
}

QY_INLINE struct qy_huge *qy_huge_of(const void *p)
{
	return (struct qy_huge *)(void *)((char *)(uintptr_t)p - sizeof(struct qy_huge));
}

/* The entry of an object with such a word. */
QY_INLINE struct qy_entry *qy_entry_at(const void *p, uint64_t word)
{
	return word & QUARRY_WORD_HEAD ? &qy_head_of(p)->entry : qy_entry_of(p);
}

/* Of a word: what says that a handle's object is there; and of one that is freed, whose memory is still its, until its
 * last pin goes. */
#define QY_WORD_STATES (QUARRY_WORD_GENERATION | QUARRY_WORD_FREE | QUARRY_WORD_COLD)
#define QY_WORD_FREED (QUARRY_WORD_FREE | QUARRY_WORD_MOVING)

/* Whether its slot and number may be a handle's of these lanes. */
QY_INLINE bool qy_is_ours(const quarry_lanes *l, quarry_handle h)
{
	return (uint32_t)h < l->map.slots && (h & QUARRY_HANDLE_NUMBER) == l->map.number;
}

/* The word of a live handle, all bits of which are looked at, which is brought back when it is cold. In a scope. 0, and errno
 * is set. */
uint64_t qy_look(quarry_lanes *l, quarry_handle h);
/* The same, with the errno set; and not moving: who moved it gives up. */
uint64_t qy_settle_word(quarry_lanes *l, quarry_handle h);
/* Why a handle that is not live is none: the errno. */
int qy_why_not(const quarry_lanes *l, quarry_handle h);
size_t qy_size_of(uint64_t word);
/* Under the lock: whether the slow lane may grow by so much, for what the thread is doing (qy_urgency, enum quarry_priority). */
bool qy_slow_has_room(quarry_lanes *l, size_t more);
extern QY_HIDDEN __thread uint8_t qy_urgency __attribute__((tls_model("initial-exec")));
/* The handle of an object of that slot with that word, and these marks. */
quarry_handle qy_handle_make(const quarry_lanes *l, uint32_t slot, uint64_t word, uint32_t marks);
/* Memory for an object in the slow lane, and its entry; states: what its word is to say of it. NULL: none. */
void *qy_take_any(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, struct qy_entry **entry,
		  uint64_t *states);
/* The same of an arena, for itself. */
void *qy_take_huge(quarry_lanes *l, quarry_arena *arena, size_t size, size_t alignment);
/* What was taken by the two is nobody's: no word ever said it. */
void qy_untake_any(quarry_lanes *l, void *p, uint64_t states);
/* The rest of freeing it, when its word says so. In a scope. */
void qy_freed(quarry_lanes *l, quarry_handle h, uint64_t freed);
int qy_hfree_slow(quarry_lanes *l, quarry_handle h);
/* Freed objects beyond segments go back to the arena, when their scopes are over: so many; whether there may be more. */
bool qy_huge_bury(quarry_lanes *l, unsigned most);
/* All of them: the lanes end. */
void qy_huge_end(quarry_lanes *l);

#endif
