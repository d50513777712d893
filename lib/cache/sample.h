/* SPDX-License-Identifier: MIT */
/* Sampling: which allocations are looked at, when a profile is kept (quarry_profile_start).
 *
 * A Poisson process runs over the bytes that are handed out: between two samples lie `mean` bytes on average, so that an
 * object of s bytes is one with the probability 1 - exp(-s / mean), whatever the program does. A hit knows nothing of
 * that: the process runs over lists, when a cache gets them. One that the next sample is not in passes whole. Of one that
 * it is in, the objects before it pass; then the class is `due`: when those are used up, the next malloc enters, its
 * object comes from a slab of its own kind (qy_manager_get_one), and what called it is noted (lib/manager/sites.h). The
 * rest of the list waits where what was freed does. What goes back unused is drawn for again when it comes next; that
 * is as good as any other draw.
 *
 * A sampled object's slab belongs to nobody, so its free enters, and finds it by its address. Frees of all others stay as
 * they are. Large blocks are drawn for one by one.
 *
 * While no profile is kept a refill costs one test more, and a hit nothing at any time. */
#ifndef QUARRY_CACHE_SAMPLE_H
#define QUARRY_CACHE_SAMPLE_H

#include "lib/cache/cache.h"
#include "lib/manager/sites.h"

/* Bytes on average between two samples, from here on; 0: none are taken. Caches see it at their next slow path. */
extern QY_HIDDEN _Atomic(uint64_t) qy_sample_mean;
extern QY_HIDDEN _Atomic(uint64_t) qy_sample_mean_last; /* the last one that was not 0 */

/* A cache is to go by another mean. By its thread. */
void qy_sample_begin(struct qy_cache *c, uint64_t mean) QY_COLD;

QY_INLINE void qy_sample_look(struct qy_cache *c)
{
	uint64_t mean = atomic_load_explicit(&qy_sample_mean, memory_order_relaxed);

	if (QY_UNLIKELY(c->mean != mean))
		qy_sample_begin(c, mean);
}

/* Whether a list of so many objects of a class (0: that is not known) may pass as it is; they count. */
QY_INLINE bool qy_sample_passes(struct qy_cache *c, unsigned cls, uint32_t count)
{
	int64_t bytes;

	if (QY_LIKELY(c->mean == 0))
		return true;
	bytes = (int64_t)count * qy_classes[cls].size;
	if (count == 0 || c->until < bytes || c->due[cls])
		return false;
	c->until -= bytes;
	return true;
}

/* Of the list that a cache has just got, what comes before the next sample stays; the class may be due then, with the
 * list empty. Entered. */
void qy_sample_split(struct qy_cache *c, unsigned cls) QY_COLD;

/* Whether the next object of the class is a sample. Entered. */
bool qy_sample_is_due(const struct qy_cache *c, unsigned cls) QY_COLD;

/* That object; NULL with no memory. Entered. */
void *qy_sample_take(struct qy_cache *c, unsigned cls) QY_COLD;

/* Whether one object, which comes from no list, is a sample. Entered. */
bool qy_sample_wants(struct qy_cache *c, unsigned cls);

/* A large block of so many bytes is allocated. Entered. */
void qy_sample_large(struct qy_cache *c, size_t bytes) QY_COLD;

/* What is to be noted of the last allocation, when the thread has left: a sample of so many bytes one, or 0. Entered; then
 * it is forgotten. (Duties in between may allocate.) */
uint64_t qy_sample_taken(struct qy_thread *t);

/* The thread has left, with a sample in p, of which it asked for so many bytes. Returns p: called last, it has no frames
 * of quarry's below it, each of which would have to be unwound. */
void *qy_sample_note(uint64_t mean, void *p, size_t asked) QY_COLD;

/* p is about to be freed. */
void qy_sample_freed(const void *p) QY_COLD;

/* A block is about to be resized in place or by page tables; what was known of it is taken out. Then it is put back, or
 * the block is one of so many bytes from here on, at `to` (NULL: it was copied, and freed), as if it had been allocated
 * anew. Not entered. */
bool qy_sample_resizes(const void *p, struct qy_sample *was);
void qy_sample_resized(const void *p, const struct qy_sample *was, const void *to, size_t asked) QY_COLD;

QY_INLINE bool qy_samples_any(void)
{
	return QY_UNLIKELY(atomic_load_explicit(&qy_samples_live, memory_order_relaxed) != 0);
}

/* Begin, or go on with another mean, or end (0). For the calling thread at once. */
void qy_sampling_start(uint64_t mean, int unwind);

#endif
