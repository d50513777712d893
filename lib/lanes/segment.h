/* SPDX-License-Identifier: MIT */
/* Segments, spans, and who takes objects from them. (segment.c) */
#ifndef QUARRY_LANES_SEGMENT_H
#define QUARRY_LANES_SEGMENT_H

#include "lib/lanes/epoch.h"

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
#define QY_SLOTS_CACHED 64
#define QY_HOMES 64

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
	uint32_t free; /* pages, a bit each; */
	uint32_t gone; /* and those of them whose memory went back to the kernel */
	uint16_t home; /* whose memory it is */
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


/* Where segments are from: the lanes' own memory (0), or a node's that objects were migrated to. What moves takes from
 * segments of one home, and only there is room looked for: so what is on a node stays there when it is packed. Threads take
 * from the first. Made under lanes->moving, for as long as the lanes are there. */
struct qy_home {
	quarry_arena *arena;
	int node;      /* the kernel's id; of the first, and of groups': -1 */
	_Atomic(const void *) owner; /* the group whose objects are packed there; the lanes: one that ended; NULL: nodes' */
	_Atomic(uint32_t) segments;
	struct qy_link partial[QY_CLASSES_MAX][QY_FULLNESS]; /* spans with room, by how full they are */
};

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

/* The entry of an object with such a word. */
QY_INLINE struct qy_entry *qy_entry_at(const void *p, uint64_t word)
{
	return word & QUARRY_WORD_HEAD ? &qy_head_of(p)->entry : qy_entry_of(p);
}

QY_INLINE bool qy_is_span(const struct qy_span *s)
{
	uint8_t place = atomic_load_explicit(&s->place, memory_order_relaxed);

	return place != QY_SPAN_NONE && place != QY_SPAN_INSIDE;
}

QY_INLINE uint32_t qy_live_of(const struct qy_span *s)
{
	return atomic_load_explicit(&s->used, memory_order_relaxed) - atomic_load_explicit(&s->tombs, memory_order_relaxed);
}

/* The same, of an owned span as well: by its entries, which takes a while. */
uint32_t qy_live_objects(const struct qy_span *s);

unsigned qy_class_count(void);
/* Pages for spans for so many objects of a class. */
uint32_t qy_pages_for(unsigned class, uint32_t objects);
size_t qy_class_size(unsigned class);
/* The class for so many bytes so aligned, where what is larger than `blob` is none's; QY_CLASS_WHOLE or QY_CLASS_HUGE. */
unsigned qy_class_find(size_t size, size_t alignment, size_t blob);
/* The size of the class for so many bytes, up to QY_CLASS_LARGEST. */
size_t qy_class_round(size_t size);

#define QY_CLASS_FINE 1024 /* classes every 16 bytes up to this, and no blobs */
#define QY_CLASS_LARGEST ((size_t)128 << 10)

QY_INLINE unsigned qy_class_of(size_t size, size_t alignment, size_t blob)
{
	if (QY_LIKELY(size - 1 < QY_CLASS_FINE && alignment <= 16))
		return (unsigned)((size + 15) / 16) - 1;
	return qy_class_find(size, alignment, blob);
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
/* In a child of fork(2), of a cache that is no thread's: what its takers' spans have is counted anew, and nothing is taken of
 * them. (fork.c) */
void qy_takers_recount(quarry_lanes *l, struct qy_lanes_cache *c);
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
/* The same of those whose scopes are known to be over. Whether it is worth to go on. */
bool qy_bury_known(quarry_lanes *l, unsigned most);
/* Under l->lock: have as much scratch as is due, as far as there is memory; give back what is not due any more, or all. */
void qy_scratch_fill(quarry_lanes *l);
void qy_scratch_trim(quarry_lanes *l, bool all);
/* Memory of free pages of segments in use goes back, where it is a good part of all. Nobody waits for it but who needs the
 * lock: it is for when there is nothing else to gain. */
void qy_pages_trim(quarry_lanes *l);
/* Under l->lock: a segment's part of the figures. sums: by class, as figures.h has them; NULL: none. */
struct qy_class_sum {
	uint64_t objects, live, held;
};
void qy_segment_count(const struct qy_segment *g, quarry_lanes_stats *stats, struct qy_class_sum *sums);

#endif
