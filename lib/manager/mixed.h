/* SPDX-License-Identifier: MIT */
/* Mixed slabs: slabs that a few survivors keep, and in whose gaps objects of other classes stand.
 *
 * After most objects of a class were freed, those that survive hold all of its slabs, and pages too, since hardly a
 * page of small objects is without one: with one in ten alive, 112-byte objects keep 98 % of their pages. An allocator
 * with size classes then grows by what the next phase of the program allocates in other sizes, where one that coalesces
 * neighbours of any size does not. So here: a slab that nobody holds, of which at most half lives and which did not
 * change for a while, becomes mixed when memory of another class is wanted and none is free. From then on it is divided
 * into grains of 16 bytes: what survives keeps the grains that it stands in, and an object of any other class takes as
 * many as it is long, at a place where its class's alignment holds. It stays mixed until nothing lives in it.
 *
 * Nobody owns a mixed slab: objects come out of it in batches, with the manager's lock held, and go back into it by the
 * remote list of `heap`, as to any slab that nobody holds. A record of which grains are free, and where each object
 * ends, stands outside (slab->local leads to it). Who asks how large an object is reads the ends of its own grains,
 * which do not change while it lives; that is why a slab that became mixed is not made a plain one again before it is
 * empty.
 *
 * Of the slab's record: the class is the one whose objects are grains, so that what is true of any slab (what stands
 * where an object can stand; how much of it is free) is true of it. countdown is the number of live objects (or such as
 * are in a thread's cache), linked of the grains that they take, carved of the grains that are not parked (in pages
 * that were given back, sparse.h).
 *
 * Some are apart: slabs that were made mixed when they were empty, for single objects that are to be told from all
 * others when they are freed. (Since nobody owns them, each such free enters; lib/cache/sample.h.) */
#ifndef QUARRY_MANAGER_MIXED_H
#define QUARRY_MANAGER_MIXED_H

#include "lib/manager/manager.h"

#define QY_MIXED_GRAIN 16 /* bytes */
#define QY_MIXED_CLASS 0  /* whose objects are of that size */
#define QY_MIXED_GRAINS (QY_UNIT / QY_MIXED_GRAIN)
#define QY_MIXED_WORDS (QY_MIXED_GRAINS / 64)
#define QY_MIXED_BINS 50 /* for longest runs of 0 to QY_MIXED_GRAINS */

enum qy_mixed_ring { QY_MIXED_BY_RUN, QY_MIXED_FREED, QY_MIXED_PARKED, QY_MIXED_RINGS };

/* What is known of one. Type-stable; under the manager's lock, but for what is said. */
struct qy_mixed_slab {
	uint64_t free[QY_MIXED_WORDS]; /* grains that can be taken */
	uint64_t end[QY_MIXED_WORDS];  /* grains that are an object's last; read by anybody who has that object */
	struct qy_slab *slab;
	struct {
		struct qy_mixed_slab *next, *prev; /* NULL: it is not in the ring */
	} ring[QY_MIXED_RINGS];
	uint64_t clean;  /* pages, as bits, in which nothing stood since they were given back, or ever */
	uint32_t seen;    /* the slab's grains in use when pages were looked for */
	uint16_t longest; /* free run, or more: it is found out when one is looked for */
	uint8_t bin;      /* its ring by that */
	bool busy;        /* pages are on their way back: it must not end */
	bool apart;       /* only single objects come from it (qy_manager_get_one) */
};

/* A manager's, made when the first slab becomes mixed. */
struct qy_mixed {
	struct qy_mixed_slab *by_run[QY_MIXED_BINS]; /* rings, by longest free run */
	uint64_t bins;                               /* a bit for each in which there is one */
	struct qy_mixed_slab *apart;                 /* a ring of its own, whatever their runs */
	uint32_t freed_count;
	struct qy_mixed_slab *freed;  /* a ring of so many: to be looked at for pages to give back, since objects were
	                               * freed */
	struct qy_mixed_slab *parked; /* a ring: those with parked grains */
	struct qy_mixed_slab *unused; /* a list, by next in the first ring */
	qy_counter slabs;
	struct qy_heap heap; /* has no slabs, only mail */
};

/* Memory for records, before the lock is taken: when there are enough slabs for some to become mixed, or at any rate. */
void qy_mixed_provide(struct qy_manager *m, bool at_any_rate);

/* A list of objects for class cls from gaps, linked by their first words; NULL when there are none. They may have been
 * used before. The lock is held. */
void *qy_mixed_take(struct qy_manager *m, unsigned cls);

/* Whether an empty slab that is apart is kept for the next object. (Made anew for each, it cost 9000 instructions where
 * few live at a time.) */
extern QY_HIDDEN _Atomic(bool) qy_mixed_keeps_apart;

/* One object from a slab that is apart, for qy_manager_get_one; NULL when none has room. The lock is held. */
void *qy_mixed_take_one(struct qy_manager *m, unsigned cls);

/* A slab that was just begun, of QY_MIXED_CLASS and nobody's, becomes one that is apart. False when there is no record
 * for it. The lock is held. */
bool qy_mixed_add_apart(struct qy_manager *m, struct qy_slab *s);

/* Take in what was freed, so many objects at most. The lock is held. */
void qy_mixed_receive(struct qy_manager *m, uint32_t at_most);

/* Give back pages in which nothing lives any more. As qy_sparse_pass, for slabs that are mixed; m->sparse.mixed_cut
 * tells that until_ns ended it. */
size_t qy_mixed_pass(struct qy_manager *m, uint64_t now, bool at_once, size_t at_most, uint64_t until_ns, bool *again);

/* Forget all: their memory is being taken away. The lock is held. */
void qy_mixed_clear(struct qy_manager *m);

/* The bytes of a live object of a mixed slab, from the grain on that p stands in. Anybody. */
size_t qy_mixed_size(const struct qy_slab *s, const void *p);

/* Its pages in which nothing lives. The lock is held. */
uint32_t qy_mixed_empty_pages(const struct qy_slab *s);

QY_INLINE bool qy_slab_is_mixed(const struct qy_slab *s)
{
	return __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == QY_SLAB_MIXED;
}

/* Of a mixed slab: whether it is one that is apart. Anybody. */
QY_INLINE bool qy_mixed_is_apart(const struct qy_slab *s)
{
	const struct qy_mixed_slab *r = qy_peek(s->local);

	return r != NULL && qy_peek(r->apart);
}

/* The same of any slab. */
QY_INLINE size_t qy_object_size(const struct qy_slab *s, const void *p)
{
	unsigned cls = __atomic_load_n(&s->cls, __ATOMIC_ACQUIRE);

	return QY_UNLIKELY(qy_slab_is_mixed(s)) ? qy_mixed_size(s, p) : qy_classes[cls].size;
}

#endif
