/* SPDX-License-Identifier: MIT */
/**
 * Object pools: objects of one size that stay constructed while nobody has them, on the memory of quarry's arenas.
 *
 * A pool has a depot on each node, and each thread magazines in front of it (Bonwick and Adams, "Magazines and Vmem",
 * USENIX 2001), so that getting and putting takes no lock, no atomic read-modify-write and no allocation while the
 * magazines last. An object is constructed once, when the pool grows, reset whenever it is put, and destroyed when its
 * memory goes back. Beside each object stands what is known of it, 64 bytes: as much again for objects of 64 bytes, 6 %
 * for those of 1 KiB.
 *
 * Tokens name one life of an object, from get to put. A late operation by a token fails with ESTALE and touches
 * nothing, also when it races with the put: a place whose count of lives is used up is retired, and never begins anew.
 *
 * AddressSanitizer and Valgrind do not know which of a pool's objects are free: what is used after its put is found by
 * QUARRY_POOL_CHECKED.
 *
 * Any thread may call any function here, and put what another has got; signal handlers none. A forked child has the
 * pool as it was, with all objects that were out; what other threads were just getting or putting, or had entered, at
 * the fork stays out in it. (A pool on an arena of QUARRY_ARENA_FD that is empty in the child, see quarry_fd_of, must
 * be left alone there.) It is for who holds an object, or has entered it, to synchronise what is done with its
 * contents.
 */
#ifndef QUARRY_POOL_H
#define QUARRY_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "quarry.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Pools of objects                                                                                       */

/** Objects of one size, a depot of them on each node, and magazines of each thread. */
typedef struct quarry_pool quarry_pool;

/* The error of a late operation, as network programs call it. (Include <errno.h>.) */
#define QUARRY_CLOSED ESTALE

/** What a pool is asked to do beside. */
enum quarry_pool_flags {
	QUARRY_POOL_CHECKED = 1 /* see mistakes: contents are scrambled while nobody has the object, and looked at when
	                         * it is got, so that what is written after the put is found, and what is read is
	                         * nonsense; two puts at once by address are told. A library built with --enable-debug
	                         * checks all pools */
};

/** How an object is put. */
enum quarry_pool_how {
	QUARRY_POOL_SAFE = 0, /* who waits by quarry_pool_wait is woken, with ECANCELED */
	QUARRY_POOL_FAST = 1  /* nobody waits: nobody is woken. A checked pool tells when somebody does, and wakes */
};

/** Mistakes that a pool tells of; a checked one of all of them. */
enum quarry_pool_mistake {
	QUARRY_POOL_TWICE = 1,   /* an object was put by address that nobody has: EALREADY */
	QUARRY_POOL_WRITTEN = 2, /* an object was written to after it was put. It is never handed out again */
	QUARRY_POOL_WAITED = 3,  /* QUARRY_POOL_FAST, and somebody waited */
	QUARRY_POOL_FOREIGN = 4  /* what was put is no object of the pool: EINVAL */
};

/** What a pool is made of. Zero what is not wanted. */
typedef struct quarry_pool_attr {
	uint32_t struct_size;     /* sizeof(struct quarry_pool_attr) */
	uint32_t flags;           /* enum quarry_pool_flags */
	size_t size;              /* bytes of an object; at most 1 GiB */
	size_t alignment;         /* a power of two, at most 2 MiB; 0: 64, or 16 for objects of less than 64 bytes */
	size_t max;               /* so many objects at most, out or not; 0: as memory lasts */
	uint32_t magazine;        /* objects in a magazine, 1 to 1024, of which a thread has two; 0: by size and max */
	uint32_t generation_bits; /* of tokens, 1 to 32; 0: 32. A place lives 2^bits - 1 lives with tokens */
	quarry_arena *arena;      /* where memory comes from; as long as the pool is there it is neither destroyed nor
	                           * reset (EBUSY). NULL: each node's default arena */
	int (*construct)(void *object, void *context); /* of an object's zeroed memory: 0, or what errno is to be */
	void (*reset)(void *object, void *context);    /* when it is put, by who puts it or leaves it last */
	void (*destroy)(void *object, void *context);  /* before its memory goes back */
	void (*mistake)(void *object, enum quarry_pool_mistake what, void *context); /* of each; NULL: counted */
	void *context;
} quarry_pool_attr;

/** Make a pool. Nothing is allocated for objects before the first is got. No function of attr may call into the same
 * pool, but mistake may ask for its figures. They return: neither longjmp(3), an exception nor the thread's end
 * (pthread_exit(3); or pthread_cancel(3), of which close(2) in a destroy may be a point: pthread_setcancelstate(3)) leads
 * out of them, or what they were called for stays half done. So it is with cleanups (quarry_pool_cleanup_add).
 * @param attr what of; attr->struct_size and attr->size must be set.
 * @return the pool; NULL with EINVAL (quarry_error_text() names the field), ENOMEM, or EAGAIN (there are 65,536).
 *         Example:
 * @code
 *   quarry_pool_attr attr = { .struct_size = sizeof(attr), .size = sizeof(struct connection), .reset = forget };
 *   quarry_pool *pool = quarry_pool_create(&attr);
 *   struct connection *c = quarry_pool_get(pool);
 *   quarry_pool_put(pool, c, QUARRY_POOL_SAFE);
 *   quarry_pool_destroy(pool, 0);
 * @endcode */
QUARRY_API quarry_pool *quarry_pool_create(const quarry_pool_attr *attr);

/** End a pool: all objects are destroyed, their memory goes back to the arena. No other call may be under way, nor
 * come. Nothing else ends one: quarry_free refuses what is in a pool, but cannot know the pool itself.
 * @param pool NULL: nothing is done, so that a pointer that is made NULL may be disposed of twice.
 * @param force not 0: also with objects out; they are destroyed like the others.
 * @return 0; -1 with EBUSY (objects are out, and not forced; nothing is done). */
QUARRY_API int quarry_pool_destroy(quarry_pool *pool, int force);

/** Get an object, constructed and as its last put left it: of the calling thread's magazines, of the depot of its node,
 * by growing there, and only then of another node. The order of magnitude of malloc's own hit.
 * @return the object; NULL with EAGAIN (max objects are there, and none is free but in other threads' magazines),
 *         ENOMEM (the arena has no memory), EINVAL (pool is NULL), or what construct said. */
QUARRY_API void *quarry_pool_get(quarry_pool *pool);

/** Put an object back. Where it has tokens its generation grows and it is closed at one stroke (late operations get
 * ESTALE from here on); then who waits is woken, its cleanups run, the last first, it is reset, and goes into the
 * thread's magazine, or home with others when it is of another node. While somebody has entered it, what follows the
 * closing is done by the last who leaves. Never allocates where it could fail.
 * @param object what quarry_pool_get gave.
 * @param how see quarry_pool_how.
 * @return 0; -1 with EALREADY (nobody has the object: it is put twice), EINVAL (it is no object of this pool). Nothing
 *         is touched then. That somebody else has it by now an address cannot tell: see quarry_pool_put_token. */
QUARRY_API int quarry_pool_put(quarry_pool *pool, void *object, enum quarry_pool_how how);

/** Get up to count objects at once.
 * @param objects receives them.
 * @return how many; when less than count, errno says why. */
QUARRY_API size_t quarry_pool_get_bulk(quarry_pool *pool, void **objects, size_t count);

/** Put many objects at once, each as by quarry_pool_put.
 * @return how many were put; where that is less than count, the others were wrong (errno is of the last of them). */
QUARRY_API size_t quarry_pool_put_bulk(quarry_pool *pool, void *const *objects, size_t count, enum quarry_pool_how how);

/** Put all objects that are out, whoever has them: the end of a group of them. Nobody may get or put meanwhile; late
 * operations by tokens may come.
 * @return how many were out. */
QUARRY_API size_t quarry_pool_put_all(quarry_pool *pool, enum quarry_pool_how how);

/** Have at least so many objects free in the depot of the calling thread's node: constructed, so that getting as many
 * allocates nothing. Where no more may be made, what the calling thread's magazines hold goes there, too.
 * @return 0; -1 as quarry_pool_get (those that were made stay); with ENOMEM at once, and none made, where there can never
 *         be so many: for the machine's memory, RLIMIT_AS, a hard limit, or the 2^32 places of a pool. */
QUARRY_API int quarry_pool_prefill(quarry_pool *pool, size_t count);

/** Give back: the calling thread's magazines go to the depots, and chunks of which all objects are in a depot are
 * destroyed, their memory returned to the arena. While their destructor runs they do not count as objects of the pool
 * any more: others may be made up to max. Tokens of what was there stay stale for ever. One thread at a time; a
 * second one is told that there was nothing to do.
 * @return how many objects were destroyed. */
QUARRY_API size_t quarry_pool_trim(quarry_pool *pool);

/** Hand what the calling thread's magazines hold to the depots, for others, and free what it has kept for cleanups. The
 * end of a thread does so too.
 * @return how many objects that were. */
QUARRY_API size_t quarry_pool_flush(quarry_pool *pool);

/** A pool's figures. */
typedef struct quarry_pool_stats {
	uint32_t struct_size; /* set by the caller to sizeof */
	uint32_t depots;      /* one for each node that there was when the pool was made */
	uint64_t got;         /* objects handed out, since the pool was made */
	uint64_t put;         /* and come back */
	uint64_t grown;       /* constructed */
	uint64_t trimmed;     /* destroyed, or just being so, their memory given back */
	uint64_t retired;     /* places that will never be used again: used up, or damaged */
	uint64_t objects;     /* that there are now */
	uint64_t in_use;      /* of them, out; also those that were put and that somebody has not left yet */
	uint64_t cached;      /* and free: in magazines and depots */
	uint64_t waits;       /* how often a thread slept in quarry_pool_wait */
	uint64_t cancelled;   /* and how often one came back from it with ECANCELED */
	uint64_t mistakes;    /* that were told of */
	uint64_t bytes;       /* of address space that objects have; with the pool's own records */
	uint64_t exchanges;   /* magazines that went to depots or came from them: a lock for each */
	uint64_t homed;       /* objects that went home to another node than that of who put them */
} quarry_pool_stats;

/** Fill *stats. While others use the pool, figures may be of slightly different moments.
 * @return 0; -1 with EINVAL (NULL, or struct_size is not set). */
QUARRY_API int quarry_pool_stats_get(quarry_pool *pool, quarry_pool_stats *stats);

/* ------------------------------------------------------------------------------------------------------ */
/* Tokens                                                                                                 */

/** One life of an object: two words by value, to be kept wherever it is convenient (an epoll event, a request to a
 * disk). A zeroed one is never valid. It does not say of which pool it is; but pools begin with other generations, so that
 * another one's token is ESTALE, but for one in 2^generation_bits. */
typedef struct quarry_token {
	uint32_t index;      /* the object's place in the pool */
	uint32_t generation; /* the place's life */
} quarry_token;

/** The token of an object's present life; the same however often it is asked for. Only lives with tokens count: a life
 * without one leaves the generation, since nobody can have it. To be called by who has the object.
 * @return the token; a zeroed one with EINVAL (no object of the pool), EALREADY (nobody has it). Example:
 * @code
 *   quarry_token t = quarry_pool_token(pool, c);
 *   // later, in any thread, whatever has happened to it:
 *   struct connection *c = quarry_pool_enter(pool, t);
 *   if (c != NULL) {
 *           c->answered++;
 *           quarry_pool_leave(pool, t);
 *   }
 * @endcode */
QUARRY_API quarry_token quarry_pool_token(quarry_pool *pool, void *object);

/** The object, if it still is in that life. It may be put before this returns: to use it safely, enter it.
 * @return the object; NULL with ESTALE (QUARRY_CLOSED), EINVAL (pool is NULL, or was destroyed, as far as that can be seen). */
QUARRY_API void *quarry_pool_resolve(quarry_pool *pool, quarry_token token);

/** Enter an object: until quarry_pool_leave it is not reset, and not anybody else's, though it may be put. Takes no
 * lock; one compare and swap.
 * @return the object; NULL with ESTALE, EINVAL (as above), or EAGAIN (it is entered 16,777,215 times). */
QUARRY_API void *quarry_pool_enter(quarry_pool *pool, quarry_token token);

/** Leave what quarry_pool_enter entered. The last who leaves an object that was put meanwhile cleans it up, resets it,
 * and has it in its own magazine.
 * @return 0; -1 with EINVAL (it is not entered by that token). */
QUARRY_API int quarry_pool_leave(quarry_pool *pool, quarry_token token);

/** quarry_pool_put by token: of any number of calls for one life, also at once, exactly one puts the object.
 * @return 0; -1 with ESTALE, and nothing is touched. */
QUARRY_API int quarry_pool_put_token(quarry_pool *pool, quarry_token token, enum quarry_pool_how how);

/** Sleep while *word is expected, until quarry_pool_wake, a safe put, or the time is over: futex(2) for words in
 * objects, which a put ends. Enters the object for as long.
 * @param word in the object, or anywhere, aligned to 4; read once the object is entered.
 * @param expected what it is to be for the thread to sleep.
 * @param timeout_ms milliseconds; negative: for ever.
 * @return 0 (*word is something else; it may be so at once); -1 with ESTALE (before the thread slept), ECANCELED (the
 *         object was put meanwhile), ETIMEDOUT, EINVAL, EAGAIN (as quarry_pool_enter). Signal handlers run, and are no
 *         reason to return. */
QUARRY_API int quarry_pool_wait(quarry_pool *pool, quarry_token token, const uint32_t *word, uint32_t expected,
				int64_t timeout_ms);

/** Wake all who wait at an object, to look at their words again. To be called after a word was written.
 * @return 0; -1 with ESTALE. */
QUARRY_API int quarry_pool_wake(quarry_pool *pool, quarry_token token);

/* ------------------------------------------------------------------------------------------------------ */
/* Cleanups                                                                                               */

/** Have fn(argument) called when the object is put, before it is reset: the last that was added first, as in APR's
 * pools. (Apache Portable Runtime, apr_pool_cleanup_register.) They are forgotten then. Allocates only where the
 * thread has none left of before. To be called by who has the object, one at a time. A cleanup may put other objects,
 * whose cleanups run within it: of a list in which each puts the next that takes the thread's stack, some 200 bytes for
 * each: a long one is better put from outside.
 * @return 0; -1 with EINVAL (no object of the pool, or fn is NULL), EALREADY (nobody has it), ENOMEM. */
QUARRY_API int quarry_pool_cleanup_add(quarry_pool *pool, void *object, void (*fn)(void *argument), void *argument);

/** Forget the cleanup that was added last with these, without calling it.
 * @return 0; -1 with ENOENT (there is none), or as quarry_pool_cleanup_add. */
QUARRY_API int quarry_pool_cleanup_cancel(quarry_pool *pool, void *object, void (*fn)(void *argument), void *argument);

#ifdef __cplusplus
}
#endif

#endif
