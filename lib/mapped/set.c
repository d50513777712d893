/* SPDX-License-Identifier: MIT */
/* Allocating and linking as one: what is to be taken, stored and freed goes into one redo record, under the heap's lock. What is
 * taken before (a set's reservations) is noted in the lane, so that it goes back when its thread dies. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"

#define NOTE_OF_INTO QUARRY_MAPPED_SET /* the reservation that quarry_mapped_alloc_into makes of a block */

_Static_assert(QUARRY_MAPPED_SET < QY_MAPPED_RESERVED, "each reservation has a note, and one more");

/* Words that may be changed: of live memory, of the user area, and of roots. */
static bool is_slot(const struct heap *h, const quarry_off *slot)
{
	uint64_t off = (uint64_t)((const char *)slot - h->pub.base), roots = (uint64_t)((char *)h->roots - h->pub.base);

	if (slot != NULL && off % 8 == 0 && off >= roots && off - roots < h->sb.roots * sizeof(struct qy_mapped_root) &&
	    (off - roots) % sizeof(struct qy_mapped_root) == offsetof(struct qy_mapped_root, value))
		return true;
	if (slot != NULL && off % 8 == 0 && quarry_mapped_ptr(&h->pub, off, sizeof(*slot)) != NULL)
		return true;
	qy_fail(EINVAL, "slot: %p is no word of the heap's memory", (const void *)slot);
	return false;
}

/* What the freeing of an object changes, and what is to be known afterwards. */
struct ending {
	bool small, own, was_full;
	struct qy_mapped_object o;
};

/* The lock is held. -1 with errno where it is none in use. */
static int stage_end(struct heap *h, struct qy_mapped_local *l, quarry_off off, struct ending *e)
{
	uint64_t segs = (uint64_t)(h->segs - h->pub.base);

	e->small = off >= segs && qy_object_find(h, off - segs, &e->o);
	if (off < segs || (e->small && !qy_object_live(&e->o)) ||
	    (!e->small && (qy_redo_room(h) < 12 || qy_run_block_give(h, off - segs) != 0)))
		return qy_fail(EINVAL, "mapped heap: no object in use begins there, or too many blocks at once");
	if (!e->small)
		return 0;
	if (qy_mapped_refuse_class(h, e->o.cls) != 0)
		return -1;
	e->own = l != NULL && l->owner == e->o.owner;
	e->was_full = *e->o.word == 0;
	qy_redo_or(h, e->own ? e->o.word : e->o.word + QY_REMOTE_WORDS, e->o.bit);
	return 0;
}

static void end_done(struct heap *h, struct qy_mapped_local *l, const struct ending *e)
{
	if (!e->small)
		return;
	if (!e->own)
		qy_object_freed_by_other(h, &e->o);
	else if (e->was_full)
		qy_slab_has_room(h, l, e->o.unit, e->o.cls);
}

/* ---- one object ---- */

/* A block is zeroed before the lock is taken, while it is only noted. */
static void *block_into(struct heap *h, struct qy_mapped_local *l, size_t size, quarry_off *slot)
{
	uint64_t *note = &qy_local_lane(l)->reserved[NOTE_OF_INTO];
	char *p = qy_mapped_take(h, l, size, note);
	bool taken;

	if (p == NULL)
		return NULL;
	memset(p, 0, size);
	if (qy_mapped_enter(h) != 0)
		return NULL;
	taken = quarry_off_load(slot) != 0;
	if (!taken) {
		qy_redo_store(h, slot, (uint64_t)(p - h->pub.base));
		qy_redo_store(h, note, 0);
		qy_redo_commit(h);
	} else {
		qy_note_back(h, qy_local_lane(l), note, l);
	}
	qy_mapped_leave(h);
	if (!taken)
		return p;
	qy_fail(EEXIST, "slot: it is not 0");
	return NULL;
}

QUARRY_API void *quarry_mapped_alloc_into(quarry_mapped *heap, size_t size, quarry_off *slot)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l;
	struct qy_mapped_bin *b;
	uint64_t v;
	char *p;

	if (qy_mapped_refuse(h) != 0 || !is_slot(h, slot))
		return NULL;
	l = qy_local_find(h);
	if (l == NULL)
		return NULL;
	if (size > QY_MAPPED_SMALL)
		return block_into(h, l, size, slot);
	b = &l->bin[qy_mapped_class_of(size)];
	if (!qy_small_find(h, l, qy_mapped_class_of(size)))
		return NULL;
	/* It is free yet, and nobody's but this thread's to take. */
	v = *b->word;
	p = b->at + (size_t)__builtin_ctzll(v) * b->size;
	memset(p, 0, b->size);
	if (qy_mapped_enter(h) != 0)
		return NULL;
	if (quarry_off_load(slot) != 0) {
		qy_mapped_leave(h);
		qy_fail(EEXIST, "slot: it is not 0");
		return NULL;
	}
	qy_redo_store(h, b->word, v & (v - 1));
	qy_redo_store(h, slot, (uint64_t)(p - h->pub.base));
	qy_redo_commit(h);
	qy_mapped_leave(h);
	return p;
}

QUARRY_API int quarry_mapped_free_from(quarry_mapped *heap, quarry_off *slot)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l = qy_local_known(h);
	struct ending e;
	quarry_off off;
	int rc = 0;

	if (qy_mapped_refuse(h) != 0 || !is_slot(h, slot) || qy_mapped_enter(h) != 0)
		return -1;
	off = quarry_off_load(slot);
	if (off != 0) {
		rc = stage_end(h, l, off, &e);
		if (rc == 0) {
			qy_redo_store(h, slot, 0);
			qy_redo_commit(h);
			end_done(h, l, &e);
		}
	}
	qy_mapped_leave(h);
	return rc;
}

/* ---- sets ---- */

QUARRY_API int quarry_mapped_begin(quarry_mapped *heap, quarry_mapped_set *set)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l;

	if (qy_mapped_refuse(h) != 0)
		return -1;
	l = qy_local_find(h);
	if (l == NULL)
		return -1;
	if (l->in_set != 0)
		return qy_fail(EBUSY, "mapped heap: this thread has a set already");
	l->in_set = 1;
	set->heap = heap;
	set->reserved = set->linked = set->freed = 0;
	return 0;
}

/* The thread's part, if the set is one of its own. */
static struct qy_mapped_local *of_set(const quarry_mapped_set *set)
{
	struct qy_mapped_local *l = set->heap == NULL ? NULL : qy_local_known(qy_heap(set->heap));

	if (l != NULL && l->in_set != 0)
		return l;
	qy_fail(ESTALE, "set: it is over, or another thread's");
	return NULL;
}

static int too_many(void)
{
	return qy_fail(E2BIG, "set: %d are the most", QUARRY_MAPPED_SET);
}

static int overwritten(void)
{
	return qy_fail(EINVAL, "set: its counts cannot be: it was written over");
}

QUARRY_API void *quarry_mapped_reserve(quarry_mapped_set *set, size_t size)
{
	struct qy_mapped_local *l = of_set(set);
	char *p;

	if (l == NULL)
		return NULL;
	if (set->reserved >= QUARRY_MAPPED_SET) {
		too_many();
		return NULL;
	}
	/* What is taken, and the note of it, are in one version. */
	if (l->heap->durable != NULL && l->inside == 0)
		qy_gate_in(l->heap, l->owner - 1);
	p = qy_mapped_take(l->heap, l, size, &qy_local_lane(l)->reserved[set->reserved]);
	if (l->heap->durable != NULL && l->inside == 0)
		qy_gate_out(l->heap, l->owner - 1);
	if (p != NULL)
		set->object[set->reserved++] = quarry_mapped_off(set->heap, p);
	return p;
}

QUARRY_API int quarry_mapped_link(quarry_mapped_set *set, quarry_off *slot, quarry_off expected, quarry_off value)
{
	struct qy_mapped_local *l = of_set(set);

	if (l == NULL || !is_slot(l->heap, slot))
		return -1;
	if (set->linked >= QUARRY_MAPPED_SET)
		return too_many();
	set->slot[set->linked] = quarry_mapped_off(set->heap, slot);
	set->expected[set->linked] = expected;
	set->value[set->linked++] = value;
	return 0;
}

QUARRY_API int quarry_mapped_unlink(quarry_mapped_set *set, void *p)
{
	struct qy_mapped_local *l = of_set(set);
	quarry_off off;

	if (l == NULL)
		return -1;
	if (set->freed >= QUARRY_MAPPED_SET)
		return too_many();
	off = quarry_mapped_off(set->heap, p);
	for (uint32_t i = 0; i < set->freed; i++) {
		if (set->end[i] == off)
			return qy_fail(EINVAL, "set: it frees this object already");
	}
	if (p == NULL || quarry_mapped_usable(set->heap, p) == 0)
		return qy_fail(EINVAL, "mapped heap: no object in use begins there");
	set->end[set->freed++] = off;
	return 0;
}

/* The lock is held. 0, or -1 with nothing staged. */
static int stage_set(struct heap *h, struct qy_mapped_local *l, const quarry_mapped_set *set, struct ending *e)
{
	if (set->linked > QUARRY_MAPPED_SET || set->reserved > QUARRY_MAPPED_SET || set->freed > QUARRY_MAPPED_SET)
		return overwritten();
	for (uint32_t i = 0; i < set->linked; i++) {
		quarry_off *slot = quarry_mapped_at(set->heap, set->slot[i]);

		if (qy_redo_get(h, slot) != set->expected[i])
			return qy_fail(EAGAIN, "set: a word is not as it was expected");
		qy_redo_store(h, slot, set->value[i]);
	}
	for (uint32_t i = 0; i < set->reserved; i++)
		qy_redo_store(h, &qy_local_lane(l)->reserved[i], 0);
	for (uint32_t i = 0; i < set->freed; i++) {
		if (stage_end(h, l, set->end[i], &e[i]) != 0)
			return -1;
	}
	return 0;
}

/* All that the lane has noted: the set's count of it is in the program's memory. The lock is held. */
static void back(struct heap *h, struct qy_mapped_local *l)
{
	for (uint32_t i = 0; i < QUARRY_MAPPED_SET; i++) {
		uint64_t *note = &qy_local_lane(l)->reserved[i];

		if (*note != 0)
			qy_note_back(h, qy_local_lane(l), note, l);
	}
}

QUARRY_API int quarry_mapped_publish(quarry_mapped_set *set)
{
	struct qy_mapped_local *l = of_set(set);
	struct ending e[QUARRY_MAPPED_SET];
	struct heap *h;
	int rc;

	if (l == NULL)
		return -1;
	h = l->heap;
	l->in_set = 0;
	set->heap = NULL;
	if (qy_mapped_enter(h) != 0)
		return -1;
	set->heap = &h->pub;
	rc = stage_set(h, l, set, e);
	if (rc == 0) {
		qy_redo_commit(h);
		for (uint32_t i = 0; i < set->freed; i++)
			end_done(h, l, &e[i]);
	} else {
		int error = errno;

		qy_redo_drop(h);
		back(h, l);
		errno = error;
	}
	set->heap = NULL;
	qy_mapped_leave(h);
	return rc;
}

QUARRY_API void quarry_mapped_cancel(quarry_mapped_set *set)
{
	struct qy_mapped_local *l = of_set(set);

	if (l == NULL)
		return;
	l->in_set = 0;
	if (qy_mapped_enter(l->heap) == 0) {
		back(l->heap, l);
		qy_mapped_leave(l->heap);
	}
	set->heap = NULL;
}

/* ---- locks of the program's, in the heap ---- */

/* Made when it is first used since the heap was last opened by somebody when nobody had it: what stood there before may bear the
 * number of a thread that is another by now. words[7] is the number of the thread that has it. */
static int make_mutex(struct heap *h, quarry_mapped_mutex *mutex)
{
	pthread_mutexattr_t attr;

	_Static_assert(sizeof(pthread_mutex_t) <= 7 * sizeof(uint64_t), "words has room for it, and one more");
	if (qy_mapped_enter(h) != 0)
		return -1;
	if (mutex->run != h->live->run) {
		(void)pthread_mutexattr_init(&attr);
		(void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
		(void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
		(void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
		memset(mutex->words, 0, 7 * sizeof(mutex->words[0]));
		(void)pthread_mutex_init((pthread_mutex_t *)(void *)mutex->words, &attr);
		(void)pthread_mutexattr_destroy(&attr);
		QY_POINT();
		qy_put(mutex->run, h->live->run);
	}
	qy_mapped_leave(h);
	return 0;
}

/* Whether it is one: of memory of the heap. */
static bool is_mutex(const quarry_mapped *heap, const quarry_mapped_mutex *mutex)
{
	uint64_t off = quarry_mapped_off(heap, mutex);

	if (off % _Alignof(quarry_mapped_mutex) == 0 && quarry_mapped_ptr(heap, off, sizeof(*mutex)) != NULL)
		return true;
	qy_fail(EINVAL, "mutex: %p is not in the heap's memory, or not at a multiple of %zu", (const void *)mutex,
		_Alignof(quarry_mapped_mutex));
	return false;
}

static int take_mutex(quarry_mapped *heap, quarry_mapped_mutex *mutex, bool wait)
{
	struct heap *h = qy_heap(heap);
	pthread_mutex_t *m;
	bool died;
	int rc;

	if (qy_mapped_refuse(h) != 0)
		return -1;
	if (!is_mutex(heap, mutex))
		return -1;
	if (__atomic_load_n(&mutex->run, __ATOMIC_ACQUIRE) != h->live->run && make_mutex(h, mutex) != 0)
		return -1;
	m = (pthread_mutex_t *)(void *)mutex->words;
	rc = wait ? qy_mapped_await(m) : pthread_mutex_trylock(m);
	if (rc == EOWNERDEAD)
		(void)pthread_mutex_consistent(m);
	else if (rc != 0)
		return qy_fail(rc, "mutex: %s", rc == EBUSY ? "somebody has it" : "it cannot be taken");
	died = mutex->words[7] != 0;
	qy_put(mutex->words[7], (uint64_t)qy_os->thread_id());
	/* What the dead had begun by the functions above is done, or undone, before the program looks. */
	if (died)
		(void)quarry_mapped_recover(heap);
	return died;
}

QUARRY_API int quarry_mapped_lock(quarry_mapped *heap, quarry_mapped_mutex *mutex)
{
	return take_mutex(heap, mutex, true);
}

QUARRY_API int quarry_mapped_trylock(quarry_mapped *heap, quarry_mapped_mutex *mutex)
{
	return take_mutex(heap, mutex, false);
}

QUARRY_API int quarry_mapped_unlock(quarry_mapped *heap, quarry_mapped_mutex *mutex)
{
	int rc;

	if (!is_mutex(heap, mutex))
		return -1;
	if (mutex->run != qy_heap(heap)->live->run)
		return qy_fail(EPERM, "mutex: nobody has it");
	if (mutex->words[7] != (uint64_t)qy_os->thread_id())
		return qy_fail(EPERM, "mutex: the caller does not have it");
	qy_put(mutex->words[7], 0);
	rc = pthread_mutex_unlock((pthread_mutex_t *)(void *)mutex->words);
	return rc == 0 ? 0 : qy_fail(rc, "mutex: the caller does not have it");
}
