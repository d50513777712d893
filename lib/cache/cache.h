/* SPDX-License-Identifier: MIT */
/* Thread caches: lists of free objects, one per size class, in front of a heap. A hit takes no lock, no atomic, no
 * system call and no counter.
 *
 * A thread (struct qy_thread) has one cache per manager that it allocates from: its node's, those of arenas. What it
 * holds of a node goes back when it is found on another (follow.c). The one that plain allocations come from is in TLS,
 * beside the token that says "mine" in a slab. Slabs of a node's default arena carry the token itself; slabs of an
 * arena that the program made carry token | 1, so that a free there goes the slower way, which can be held up while the
 * arena is destroyed.
 *
 * Everything that is not a hit happens between qy_thread_enter and qy_thread_leave. Whoever must have all threads out
 * of quarry's slow paths (fork, an arena's end) pauses them: each is waited for, and is held at its next entry. */
#ifndef QUARRY_CACHE_CACHE_H
#define QUARRY_CACHE_CACHE_H

#include "include/quarry/quarry.h"
#include "lib/cache/freelist.h"
#include "lib/manager/heap.h"

struct qy_thread;

struct qy_cache {
	void *head[QY_CLASSES];
	uint8_t class_of[QY_TABLE_MAX / 16 + 1]; /* here, so that the fast path needs no other base address */
	uint8_t zero[QY_CLASSES];                /* 1: the list's objects read as zero but for the link */
	struct qy_freelist freed[QY_CLASSES];
	uint32_t quick;                          /* quick refills left before one that looks after everything, */
	uint32_t quick_set;                      /* and how many there were */
	/* A quick refill is one on the CPU on which the thread last looked where it is. Where that does not matter, or
	 * cannot be told so easily, the pointer leads to the number beside it. */
	const volatile int32_t *cpu_now;
	int32_t cpu;
	uint32_t shed_list; /* the next class whose lists go back in this round (qy_reclaim_round) */
	/* Of the looks that frees take at what others sent (duties.c): the heap's remote_received at the last, and how
	 * many in a row found mail, and it unchanged but for what they filed. */
	uint64_t received_seen;
	uint32_t looks_alone;
	/* Of sampling (sample.h): bytes between two samples, 0 for none; bytes until the next; whether the next object of
	 * a class behind its list is one. */
	uint64_t mean, random;
	int64_t until;
	bool due[QY_CLASSES];
	uint32_t seen, seen_class; /* of the snapshot that was last made (watch.c): its number, and how far that is */
	struct qy_thread *thread;
	struct qy_cache *next_unused; /* of the same manager, or of none */
	/* From here on it is looked at by others, even when it was given up. */
	struct qy_cache *next; /* of the same thread (atomic) */
	struct qy_heap heap;
};

struct qy_tls {
	struct qy_cache *cache;   /* never NULL: an empty one before the thread's first slow call */
	uintptr_t owner;          /* the token, or QY_OWNER_NONE, also where all frees are to be looked at */
	struct qy_thread *thread; /* NULL before the first slow call */
};

#define QY_OWNER_NONE (~(uintptr_t)0)
#define QY_OWNER_SHARED ((uintptr_t)1) /* added to the token in slabs of arenas that can be destroyed */

extern __thread QY_HIDDEN struct qy_tls qy_tls __attribute__((tls_model("initial-exec")));
extern QY_HIDDEN const struct qy_cache qy_no_cache; /* nothing is in it, and nothing comes into it */

/* Both words may be turned to none by another thread at any time (idle.c): what is read is the one or the other, as
 * plain loads have it. And ThreadSanitizer does not see that the kernel has a thread's accesses done when it is
 * blocked: it is told at the end of each way that does not enter. */
#if defined(__SANITIZE_THREAD__)
void __tsan_release(void *address);
void __tsan_acquire(void *address);
#define qy_tls_read(field) qy_peek(qy_tls.field)
#define qy_sanitizer_release() __tsan_release(&qy_tls)
#define qy_sanitizer_acquire(tls) __tsan_acquire(tls)
#else
#define qy_tls_read(field) (qy_tls.field)
#define qy_sanitizer_release() ((void)0)
#define qy_sanitizer_acquire(tls) ((void)(tls))
#endif

/* The ways that are not hits. */
void *qy_malloc_slow(size_t n) QY_NOINLINE;   /* up to QY_TABLE_MAX */
void *qy_malloc_medium(size_t n) QY_NOINLINE; /* above */
void qy_free_slow(void *p) QY_NOINLINE;
void qy_free_event(struct qy_freelist *list) QY_NOINLINE;

/* Take p, the first of a list, from it. The next one comes to this processor while the program works with p: its line
 * is read by the next malloc, and then written to by the program. (It is cold wherever a heap is larger than what is
 * near; doc/design.md has figures. At the end of a list nothing comes, and nothing waits for that.) */
QY_INLINE void qy_cache_pop(void **head, void *p)
{
	void *next = qy_next_object(p);

	*head = next;
	qy_prefetch_write(next);
}

/* The hit of malloc: a golden test holds it to 14 instructions. */
QY_INLINE void *qy_cache_malloc(size_t n)
{
	if (QY_LIKELY(n <= QY_TABLE_MAX)) {
		struct qy_cache *c = qy_tls_read(cache);
		size_t cls = c->class_of[(n + 15) >> 4];
		void *p = c->head[cls];

		if (QY_LIKELY(p != NULL)) {
			qy_cache_pop(&c->head[cls], p);
			qy_sanitizer_release();
			return p;
		}
		return qy_malloc_slow(n);
	}
	return qy_malloc_medium(n);
}

/* The hit of free: 18 instructions, one dependent load before it is known whose object it is. It only reads of the
 * slab, unless that was turned to a list of its own. */
QY_INLINE void qy_cache_free(void *p)
{
	uintptr_t offset = qy_window_offset(p);

	if (QY_LIKELY(offset < qy_window_size)) {
		const struct qy_slab *s = qy_slab_at(offset);

		if (QY_LIKELY(atomic_load_explicit(&s->owner, memory_order_relaxed) == qy_tls_read(owner))) {
			struct qy_freelist *list = s->to;

			if (QY_UNLIKELY(qy_freelist_push(list, p)))
				qy_free_event(list);
			qy_sanitizer_release();
			return;
		}
	}
	qy_free_slow(p);
}

/* In a given arena (NULL: where the thread's plain allocations go), any size, zeroed or not. The handle is looked up
 * by a thread that has entered. NULL with ENOMEM, or EINVAL when the handle is none. */
void *qy_cache_alloc(const quarry_arena *arena, size_t size, size_t align, bool zero);

/* The same past the thread's cache, of what is in slabs, from one of the fullest. */
void *qy_cache_alloc_dense(const quarry_arena *arena, size_t size);

/* Free p past the thread's cache: what is the thread's own goes into its slab at once. NULL is ignored. */
void qy_cache_free_dense(void *p);

/* Take the thread out of its slow path for the given thread's cache in m; used by lib/api inside enter and leave. */
struct qy_cache *qy_cache_for(struct qy_thread *t, struct qy_manager *m);

/* A request failed for good: what refused it is told of, but inside another slow path, which may be served in the end.
 * Returns NULL, and errno is as it was. */
void *qy_cache_refused(void) QY_COLD;

/* A request was refused, by a limit or the kernel: have what is free be so for all. False where it is not worth trying
 * again, and inside another slow path. */
bool qy_cache_make_room(void) QY_COLD;

/* A cache's object of a class, refilling it. By the cache's thread, entered. NULL with ENOMEM. */
void *qy_cache_take(struct qy_cache *c, unsigned cls, bool *zero);

/* Put all lists back into their slabs. By the cache's thread, entered, or for a thread that is gone. */
void qy_cache_flush(struct qy_cache *c);

/* The same for a class; so many freed objects are enough from then on, if not fewer than at first. */
void qy_cache_put_back(struct qy_cache *c, unsigned cls, unsigned most);

/* What TLS has as a thread's token: QY_OWNER_NONE where all frees are to be looked at. */
uintptr_t qy_thread_token(const struct qy_thread *t);

/* Note that p was freed with a size, when mistakes are looked for and it cannot be. */
void qy_cache_check_size(const void *p, size_t size);

/* For a memory checker (lib/base/checker.h): the arena of a block, and its bytes with the margin. */
const void *qy_cache_pool(const void *p);
size_t qy_cache_room(const void *p);

/* Usable bytes at p; 0 when p is no live block (as far as can be told). */
size_t qy_cache_usable(const void *p);

#endif
