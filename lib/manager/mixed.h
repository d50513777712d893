/* SPDX-License-Identifier: MIT */
/* Mixed slabs: slabs that a few survivors keep, and in whose gaps objects of other classes stand.
 *
 * After most objects of a class were freed, those that survive hold all of its slabs, and pages too, since hardly a page of
 * small objects is without one: with one in ten alive, 112-byte objects keep 98 % of their pages. An allocator with size
 * classes then grows by what the next phase of the program allocates in other sizes, where one that coalesces neighbours
 * of any size does not. So here: a slab that nobody holds, of which at most half lives and which did not change for a while,
 * becomes mixed when memory of another class is wanted and none is free. It stays divided into slots of its class; an
 * object of another class takes a run of them that keeps its class's alignment, where an eighth of it is wasted at most, or a
 * third where there is nothing better. It stays mixed until nothing lives in it.
 *
 * Nobody owns a mixed slab: objects come out of it in batches, with the manager's lock held, and go back into it by the
 * remote list of `heap`, as to any slab that nobody holds. A record of which slots are free, and where each object ends, stands
 * outside (slab->local leads to it). Who asks how large an object is reads the ends of its own slots, which do not
 * change while it lives; that is why a slab that became mixed is not made a plain one again before it is empty.
 *
 * Of the slab's record: countdown is the number of live objects (or such as are in a thread's cache), linked of the slots
 * that they take, carved of the slots that are not parked (in pages that were given back, sparse.h). */
#ifndef QUARRY_MANAGER_MIXED_H
#define QUARRY_MANAGER_MIXED_H

#include "lib/manager/manager.h"

#define QY_MIXED_RUN 8                        /* slots that an object takes at most */
#define QY_MIXED_SLOTS 1024                   /* of a slab, at most */
#define QY_MIXED_FIRST 3                      /* the smallest class of which there are so many (64 bytes), */
#define QY_MIXED_CLASSES (56 - QY_MIXED_FIRST) /* and those up to the largest of slabs of one unit (8 KiB) */
#define QY_MIXED_WORDS (QY_MIXED_SLOTS / 64)

enum qy_mixed_ring { QY_MIXED_BY_RUN, QY_MIXED_FREED, QY_MIXED_PARKED, QY_MIXED_RINGS };

/* What is known of one. Type-stable; under the manager's lock, but for what is said. */
struct qy_mixed_slab {
	uint64_t free[QY_MIXED_WORDS]; /* slots that can be taken */
	uint64_t end[QY_MIXED_WORDS];  /* slots that are an object's last; read by anybody who has that object */
	struct qy_slab *slab;
	struct {
		struct qy_mixed_slab *next, *prev; /* NULL: it is not in the ring */
	} ring[QY_MIXED_RINGS];
	uint64_t clean;  /* pages, as bits, in which nothing stood since they were given back, or ever */
	uint32_t seen;   /* the slab's slots in use when pages were looked for */
	uint8_t longest; /* free run, QY_MIXED_RUN at most */
	bool busy;       /* pages are on their way back: it must not end */
};

/* A manager's, made when the first slab becomes mixed. */
struct qy_mixed {
	struct qy_mixed_slab *by_run[QY_MIXED_RUN + 1][QY_MIXED_CLASSES]; /* rings, by longest free run and class */
	uint32_t freed_count;
	struct qy_mixed_slab *freed;  /* a ring of so many: to be looked at for pages to give back, since objects were freed */
	struct qy_mixed_slab *parked; /* a ring: those with parked slots */
	struct qy_mixed_slab *unused; /* a list, by next in the first ring */
	qy_counter slabs;
	struct qy_heap heap; /* has no slabs, only mail */
};

/* Memory for records, before the lock is taken. */
void qy_mixed_provide(struct qy_manager *m);

/* A list of objects for class cls from gaps, linked by their first words; NULL when there are none. They may have been
 * used before. The lock is held. */
void *qy_mixed_take(struct qy_manager *m, unsigned cls);

/* Take in what was freed, so many objects at most. The lock is held. */
void qy_mixed_receive(struct qy_manager *m, uint32_t at_most);

/* Give back pages in which nothing lives any more. As qy_sparse_pass, for slabs that are mixed; m->sparse.mixed_cut tells
 * that until_ns ended it. */
size_t qy_mixed_pass(struct qy_manager *m, uint64_t now, bool at_once, size_t at_most, uint64_t until_ns, bool *again);

/* Forget all: their memory is being taken away. The lock is held. */
void qy_mixed_clear(struct qy_manager *m);

/* The bytes of a live object of a mixed slab. Anybody. */
size_t qy_mixed_size(const struct qy_slab *s, const void *p);

QY_INLINE bool qy_slab_is_mixed(const struct qy_slab *s)
{
	return __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == QY_SLAB_MIXED;
}

/* The same of any slab. */
QY_INLINE size_t qy_object_size(const struct qy_slab *s, const void *p)
{
	return QY_UNLIKELY(qy_slab_is_mixed(s)) ? qy_mixed_size(s, p) : qy_classes[s->cls].size;
}

#endif
