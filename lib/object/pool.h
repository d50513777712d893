/* SPDX-License-Identifier: MIT */
/* The inside of object pools (include/quarry/pool.h), shared by its files: pool.c (get and put), pool_make.c (made and
 * ended), pool_depot.c, pool_grow.c, pool_trim.c, pool_token.c, pool_cleanup.c, pool_check.c, pool_thread.c.
 *
 * A place has a slot, a line of its own beside the memory of the objects; chunks of memory come and go under it, the
 * slot stays until the pool ends, so that whoever has a token may always look at its word. A magazine is a chain of
 * slots, which needs no memory to be made, so that a put cannot fail.
 *
 * The word of a slot says all of a life. It goes
 *
 *	free -> live (get) -> free, with the next generation (put)
 *	             live  -> closing, the same and somebody has entered it (put) -> free (the last leaves)
 *	             live  -> retired, with the last generation (put), also by way of closing
 *
 * Only a life that a token was made of (SHARED) can be met by others: then all changes are by compare and swap.
 * Otherwise its holder alone changes the word, by plain stores, and late operations of lives before look at it and
 * find another generation. A token's generation is one of a life that was shared, and that life's put changes it
 * before the next.
 *
 * Locks, in this order; mutexes, not lib/base's, since memory comes from arenas under some of them, and since fork(2)
 * holds them while quarry itself asks whether the thread is inside one of its own:
 *	qy_pool_registry   all pools, the tables of threads, and which thread has which magazine
 *	pool->lock         chunks, limits, the list of magazines, what dead threads left
 *	depot->lock        the depot's chains
 * No function of the program's is called under any of them. */
#ifndef QUARRY_OBJECT_POOL_H
#define QUARRY_OBJECT_POOL_H

#include <pthread.h>

#include "include/quarry/pool.h"
#include "lib/base/base.h"

#define QY_POOL_PINS ((uint64_t)0xffffff)   /* how often it is entered */
#define QY_POOL_LIVE ((uint64_t)1 << 24)
#define QY_POOL_SHARED ((uint64_t)1 << 25)  /* a token was made of this life */
#define QY_POOL_CLOSING ((uint64_t)1 << 26) /* put; the last who leaves does the rest */
#define QY_POOL_RETIRED ((uint64_t)1 << 27)
#define QY_POOL_MARK ((uint64_t)1 << 28)    /* found in a dead thread's magazine; free */
#define QY_POOL_RAW ((uint64_t)1 << 29)     /* no object there: construct failed or was not called yet, or a trim has
					     * begun with destroying it */
#define QY_POOL_LIFE ((uint64_t)1 << 32)    /* one generation */
#define QY_POOL_LIVES (~(uint64_t)0 << 32)

#define QY_POOL_HOLLOW ((uintptr_t)1) /* no chunk begins there */
#define QY_POOL_MAX_ID 65536
#define QY_POOL_MAGIC 0x6c6f6f7079727271u
#define QY_POOL_MAGAZINE_MAX 1024
#define QY_POOL_CLEANUPS_KEPT 64 /* unused ones, of a thread */

struct qy_cleanup {
	struct qy_cleanup *next;
	void (*fn)(void *argument);
	void *argument;
};

/* A line: who puts an object writes it, and late users do; neighbours are not to be had with it. */
struct qy_slot {
	_Atomic(uint64_t) word;
	_Atomic(void *) object;
	struct qy_slot *next;     /* in its chain; free */
	union {
		struct qy_cleanup *cleanups; /* live */
		struct qy_slot *chain;       /* the first of a chain in a depot: the next chain */
	};
	struct qy_record *record;
	uint64_t seal;            /* of a checked pool's free object */
	_Atomic(uint32_t) events; /* who waits sleeps on it. Never goes back */
	_Atomic(uint32_t) waiters;
	uint32_t length;          /* the first of a chain in a depot */
	uint32_t index;
};

/* The slots of a chunk. Stays until the pool ends; its chunk may be given back, and another one come. Under pool->lock
 * but for base and made. */
struct qy_record {
	_Atomic(uintptr_t) base; /* QY_POOL_HOLLOW: no chunk */
	struct qy_depot *depot;
	struct qy_record *next;  /* of the depot's */
	struct qy_record *next_hollow;
	_Atomic(uint32_t) made;  /* slots that have been filled in, ever */
	uint32_t number;
	uint32_t carved;         /* of the chunk, objects begun with */
	uint32_t retired, raw;   /* of those: not in use any more; construct failed */
	uint32_t lost;           /* places that are retired, carved or not */
	uint32_t seen;           /* by who trims */
	struct qy_slot slot[] __attribute__((aligned(64)));
};

struct qy_depot {
	pthread_mutex_t lock;
	struct qy_slot *chains;
	uint64_t free;           /* objects in them */
	uint64_t exchanges;
	int node;                /* the kernel's id */
	quarry_arena *arena;     /* NULL: the caller's default */
	/* Under pool->lock: */
	struct qy_record *records;
	struct qy_record *growing;
	struct qy_record *hollow; /* without a chunk, and worth one */
	struct qy_slot *raw;     /* begun with, and not constructed */
} __attribute__((aligned(64)));

/* A thread's magazines of one pool. Its own, but for the counters, and for who has stopped it (fork). */
struct qy_pool_cache {
	struct qy_slot *head;    /* the loaded magazine */
	uint32_t count, limit;
	struct qy_depot *depot;
	qy_counter got, put;
	struct qy_slot *spare;   /* the other: full, or there is none */
	struct qy_slot *away;    /* of other nodes */
	uint32_t spare_count, away_count, cleanup_count;
	struct qy_cleanup *cleanups; /* unused ones */
	struct quarry_pool *pool;
	struct qy_pool_table *table;
	struct qy_link link;     /* pool->caches, under pool->lock */
};

/* A thread's caches, by the pools' numbers. Its own; entries are written under the registry's lock. */
struct qy_pool_table {
	struct qy_link link;
	uint32_t size;
	struct qy_pool_cache *of[];
};

/* Chunks by address and by number, written under pool->lock. Replaced by one twice as great when there are more records
 * than it has numbers for; those of before stay until the pool ends, for who looks into them. By address it is a hash
 * table (linear probing), a quarter full at most, of the records that have chunks, and of no others: one that loses its
 * chunk is taken out, and those behind it move up (Knuth, volume 3, 6.4, algorithm R). Who looks without the lock may
 * miss what is just moving up, but what he finds is right, since the record says which chunk it has; and misses are
 * looked for again under the lock, once. */
struct qy_pool_index {
	struct qy_pool_index *before;
	uint32_t mask;           /* of by_base, four times as many as by_number */
	uint32_t shift;          /* of the hash, which by_base is as long as */
	uint32_t numbers;        /* room of by_number */
	_Atomic(struct qy_record *) *by_number;
	_Atomic(struct qy_record *) by_base[];
};

struct quarry_pool {
	uint64_t magic;
	uint32_t id;
	bool plain;              /* a put without tokens and cleanups goes the short way */
	bool checked;
	uint8_t chunk_shift, index_shift;
	uint32_t stride, reciprocal, per_chunk;
	_Atomic(struct qy_pool_index *) index;
	void (*reset)(void *object, void *context);
	void *context;
	/* ---- what hits need ends here ---- */
	uint32_t magazine, generations; /* the last generation */
	uint32_t seed;           /* what tokens call the first one: another number in each pool */
	size_t max;
	int (*construct)(void *object, void *context);
	void (*destroy)(void *object, void *context);
	void (*mistake)(void *object, enum quarry_pool_mistake what, void *context);
	quarry_arena *arena;     /* of the pool, its index and cleanups; chunks and records are of the depots', and
	                          * threads' caches quarry's own */
	pthread_mutex_t lock;
	struct qy_link caches;
	struct qy_link dead;     /* caches whose threads a fork did not take along */
	struct qy_cleanup *cleanups; /* of ended threads */
	uint32_t depots, chunks; /* chunks: numbers given out */
	size_t objects;
	uint64_t bytes, grown, trimmed, retired;
	qy_counter gone_got, gone_put, waits, cancelled, mistakes, homed;
	_Atomic(void *) trimmer; /* NULL, or who trims: the address of its qy_pool_table */
	_Atomic(bool) any_dead;
	struct qy_depot depot[];
};

extern pthread_mutex_t qy_pool_registry;
extern QY_HIDDEN __thread struct qy_pool_table *qy_pool_table __attribute__((tls_model("initial-exec")));

/* ---- places ---- */

QY_INLINE void *qy_slot_object(struct qy_slot *s)
{
	return atomic_load_explicit(&s->object, memory_order_relaxed);
}

/* Where a chunk is looked for first. By Fibonacci: an arena's chunks come in runs, which would lie on each other. */
QY_INLINE uint32_t qy_pool_hash(const struct qy_pool_index *index, uintptr_t number)
{
	return (uint32_t)(number * 0x9e3779b97f4a7c15u >> index->shift);
}

/* The chunk that p would be in; NULL when it is in none of the pool's, or is just moving. p is not looked at. */
QY_INLINE struct qy_record *qy_pool_record_of(quarry_pool *pool, const void *p)
{
	struct qy_pool_index *index = atomic_load_explicit(&pool->index, memory_order_acquire);
	uintptr_t number = (uintptr_t)p >> pool->chunk_shift, base = number << pool->chunk_shift;

	for (uint32_t i = qy_pool_hash(index, number);; i = (i + 1) & index->mask) {
		struct qy_record *r = atomic_load_explicit(&index->by_base[i], memory_order_acquire);
		if (r == NULL || QY_LIKELY(atomic_load_explicit(&r->base, memory_order_relaxed) == base))
			return r;
	}
}

/* The slot of an object; NULL when there is no such object, or its chunk is just moving in the index. Offsets that are
 * multiples come out exact by the reciprocal, and others are not equal to what they come out as. */
QY_INLINE struct qy_slot *qy_pool_slot_of(quarry_pool *pool, const void *p)
{
	struct qy_record *r = qy_pool_record_of(pool, p);
	uint64_t offset, i;

	if (QY_UNLIKELY(r == NULL))
		return NULL;
	offset = (uintptr_t)p & (((uintptr_t)1 << pool->chunk_shift) - 1);
	i = offset * pool->reciprocal >> 32;
	if (QY_UNLIKELY(i * pool->stride != offset || i >= atomic_load_explicit(&r->made, memory_order_acquire)))
		return NULL;
	return &r->slot[i];
}

/* ---- the layers of it, from the top down ---- */

/* The thread's cache; NULL without memory (qy_pool_cache_make). */
QY_INLINE struct qy_pool_cache *qy_pool_cache_found(const quarry_pool *pool)
{
	struct qy_pool_table *table = qy_pool_table;

	return QY_LIKELY(pool->id < table->size) ? table->of[pool->id] : NULL;
}

bool qy_pool_bad(const quarry_pool *pool); /* and the error is set */
struct qy_pool_cache *qy_pool_cache_make(quarry_pool *pool) QY_COLD;
void qy_pool_cache_give(quarry_pool *pool, struct qy_pool_cache *c); /* all that is in it, to the depots */
int qy_pool_register(quarry_pool *pool);
int qy_pool_unregister(quarry_pool *pool, bool force); /* and all caches are gone; EBUSY */

QY_INLINE struct qy_pool_cache *qy_pool_cache(quarry_pool *pool)
{
	struct qy_pool_cache *c = qy_pool_cache_found(pool);

	return QY_LIKELY(c != NULL) ? c : qy_pool_cache_make(pool);
}

/* What is to be handed out, not live yet, and what is free again, not live any more. */
struct qy_slot *qy_pool_next_free(quarry_pool *pool, struct qy_pool_cache *c);
void qy_pool_push(quarry_pool *pool, struct qy_pool_cache *c, struct qy_slot *s);

void qy_depot_give(struct qy_depot *d, struct qy_slot *head, uint32_t length);
struct qy_slot *qy_depot_take(struct qy_depot *d); /* a chain, its length in the first */
struct qy_depot *qy_depot_here(quarry_pool *pool, struct qy_depot *last);
uint64_t qy_depot_send_home(quarry_pool *pool, struct qy_slot *chain); /* each slot to its depot; how many */
void qy_pool_adopt_dead(quarry_pool *pool); /* pool->lock is held */
uint64_t qy_pool_out(quarry_pool *pool, uint64_t *got, uint64_t *put); /* likewise: objects that are out */

/* So many at most, as a chain, the length in the first; NULL with errno. */
struct qy_slot *qy_pool_grow(quarry_pool *pool, struct qy_depot *d, uint32_t want);
struct qy_pool_index *qy_pool_index_make(quarry_arena *arena, uint32_t numbers);
/* A record that has a chunk, and has it still. pool->lock is held. */
void qy_pool_index_add(const quarry_pool *pool, struct qy_pool_index *index, struct qy_record *r);
void qy_pool_index_remove(quarry_pool *pool, struct qy_record *r);
struct qy_slot *qy_pool_find(quarry_pool *pool, const void *p) QY_COLD; /* qy_pool_slot_of, but it misses nothing */
void qy_pool_retire(quarry_pool *pool, struct qy_slot *s, bool destroy);

/* Closes a live slot: 0, EALREADY or (by_token) ESTALE. */
int qy_pool_close(quarry_pool *pool, struct qy_slot *s, bool by_token, uint32_t generation, enum quarry_pool_how how);
void qy_pool_finish(quarry_pool *pool, struct qy_slot *s); /* what follows the closing, nobody having it entered */

void qy_pool_run_cleanups(quarry_pool *pool, struct qy_slot *s);
void qy_pool_free_cleanups(struct qy_cleanup *list);
void qy_pool_flush_cleanups(struct qy_pool_cache *c); /* the unused ones */

void qy_pool_hide(const quarry_pool *pool, struct qy_slot *s); /* of a checked pool: what is free is scrambled */
bool qy_pool_show(const quarry_pool *pool, struct qy_slot *s); /* false: it was written to */
void qy_pool_tell(quarry_pool *pool, void *object, enum quarry_pool_mistake what) QY_COLD;

#endif
