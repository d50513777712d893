/* SPDX-License-Identifier: MIT */
/* Snapshots: what lived at one moment, told while the program goes on.
 *
 * At the moment itself all threads are out of slow paths and all locks are held, as for a fork; nothing is looked at or
 * copied then, so that it takes as long as it takes to tell the threads. From then on, until the snapshot is closed,
 * whoever changes what was free or not notes what it was before, if nobody has yet (snapshot at the beginning: T. Yuasa,
 * Real-time garbage collection on general-purpose machines, JSS 1990): who frees an object notes that it lived, who takes
 * one out of a list or carves it notes that it was free, who begins or ends a slab notes what class stood there. The
 * viewer goes through lists and slabs meanwhile, a piece at a time, each held still for as long as that takes, and notes
 * what is free and was not noted. In the end what nobody noted lived, and has not been touched.
 *
 * That works as long as each list or slab is looked at once, and whatever is taken from one that was not to where the
 * viewer has been is noted on its way. Those places are the calls of the functions here: lists out of heaps
 * (lib/cache/cache.c), lists put back, what is sent, mail that is filed, mixed slabs' grains, and large blocks.
 *
 * A mark is two bits for each 16 bytes, the first one made is kept. An object's marks are made one after the other by
 * whoever has it: its thread, or the viewer while that is held. So no mark is lost to another one.
 *
 * No lock, but for who cannot enter (qy_snap_freed). While no snapshot is made it costs slow paths one load. */
#ifndef QUARRY_MANAGER_SNAPSHOT_H
#define QUARRY_MANAGER_SNAPSHOT_H

#include "lib/manager/slab.h"

enum qy_snap_mark {
	QY_SNAP_SAME = 0,   /* nobody noted anything: as it is now, when it was looked at (then it lived) */
	QY_SNAP_FREE = 1,   /* it was free in its slab */
	QY_SNAP_LIVED = 2,  /* it lived, and was freed since */
	QY_SNAP_CACHED = 3  /* it was free in a thread's cache, or on its way home */
};

#define QY_SNAP_GRAIN 16 /* bytes that have a mark */

/* What stood in a unit: a class and one, or a mixed slab; or that no slab began there. */
#define QY_SNAP_NO_SLAB 0x7f
#define QY_SNAP_MIXED 0x7e
#define QY_SNAP_ENDED 0x80 /* added when it ended: what was not marked was free */

struct qy_snap_block {
	uint64_t offset, bytes;
};

struct qy_snapshot {
	size_t bytes;             /* of the window, which were claimed at the moment */
	size_t mapped;            /* bytes of what follows */
	_Atomic(uint64_t) *marks; /* of 32 grains each */
	_Atomic(uint64_t) *ends;  /* of mixed slabs: grains that were an object's last, a bit each */
	_Atomic(uint8_t) *classes; /* by unit; 0: not noted yet */
	struct qy_snap_block *blocks; /* large ones that lived */
	size_t block_room;
	_Atomic(uint64_t) block_count; /* (may exceed the room) */
	_Atomic(uint64_t) unsound;     /* lists that lead nowhere, or round: what is free in them counts as live */
};

extern QY_HIDDEN struct qy_snapshot *qy_snapshot_now; /* NULL: none is being made (atomic) */

QY_INLINE struct qy_snapshot *qy_snapshot_of_now(void)
{
	return __atomic_load_n(&qy_snapshot_now, __ATOMIC_RELAXED);
}

#define QY_SNAPSHOT_BEING_MADE QY_UNLIKELY(qy_snapshot_of_now() != NULL)

void qy_snapshot_mark(const void *p, enum qy_snap_mark mark) QY_COLD;
void qy_snapshot_freed(const void *p, bool entered) QY_COLD;
void qy_snapshot_mark_list(void *list, uint32_t at_most, enum qy_snap_mark mark) QY_COLD;
void qy_snapshot_mark_mail(void *list, uint32_t at_most) QY_COLD;
void qy_snapshot_slab_begins(const struct qy_slab *s) QY_COLD;
void qy_snapshot_slab_ends(const struct qy_slab *s) QY_COLD;
/* How many objects were looked at for it, and one. */
uint32_t qy_snapshot_look_at_slab(const struct qy_slab *s) QY_COLD;
void qy_snapshot_large(const void *p, size_t bytes) QY_COLD;

/* An object that the program frees, before anything is done with it. Where the thread cannot enter, which is what the end
 * of a snapshot waits for, with the lock of the object's manager held, for which it waits, too. */
QY_INLINE void qy_snap_freed(const void *p, bool entered)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_freed(p, entered);
}

/* An object that is taken from a cache's list for the program. */
QY_INLINE void qy_snap_taken(const void *p)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_mark(p, QY_SNAP_CACHED);
}

/* A large block that came about just now. With the manager's lock. */
QY_INLINE void qy_snap_born(const void *p)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_mark(p, QY_SNAP_FREE);
}

/* A list of objects that leaves a heap for a cache. */
QY_INLINE void qy_snap_refill(void *list)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_mark_list(list, UINT32_MAX, QY_SNAP_FREE);
}

/* A cache's list, or what was gathered, that goes to where the viewer may have been. */
QY_INLINE void qy_snap_moved(void *list)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_mark_list(list, UINT32_MAX, QY_SNAP_CACHED);
}

/* So many objects at the front of a heap's mail, and those in one unit with the last of them, are about to be filed. */
QY_INLINE void qy_snap_filed(void *list, uint32_t at_most)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_mark_mail(list, at_most);
}

/* A slab's record is about to be written, where none is; or to become none. */
QY_INLINE void qy_snap_slab_begins(const struct qy_slab *s)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_slab_begins(s);
}

QY_INLINE void qy_snap_slab_ends(const struct qy_slab *s)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_slab_ends(s);
}

/* What is free in a slab is about to be known by other means than its list: it becomes mixed; or it is mixed, and its
 * grains change. By whoever has it to himself. */
QY_INLINE void qy_snap_slab_changes(const struct qy_slab *s)
{
	if (QY_SNAPSHOT_BEING_MADE)
		(void)qy_snapshot_look_at_slab(s);
}

/* A large block is about to be freed, or to change its size. With the manager's lock. */
QY_INLINE void qy_snap_large(const void *p, size_t bytes)
{
	if (QY_SNAPSHOT_BEING_MADE)
		qy_snapshot_large(p, bytes);
}

/* ---- for whoever makes one (lib/cache/watch.c) ---- */

/* Address space for all that may be noted. False with ENOMEM. */
bool qy_snapshot_map(struct qy_snapshot *s);
void qy_snapshot_unmap(struct qy_snapshot *s);

/* Have the memory for the marks of what is there now, before the moment: a mark that waits for a page takes 50 times as
 * long, and others wait meanwhile. (Of frames of large blocks, which have one mark each, that is not worth it; those
 * that blocks of pages stand in are few.) */
void qy_snapshot_touch(struct qy_snapshot *s);

/* The moment, and the end. With all locks held and all threads out of slow paths. */
void qy_snapshot_begin(struct qy_snapshot *s);
void qy_snapshot_end(void);

/* Whether p may be an object in a list: its link can be read. What the program made of links may lead anywhere. */
bool qy_snapshot_may_be_object(const void *p);

/* Goes along a list of any length, and tells where that leads round (R. Brent, 1980: it comes by the mark, which is set
 * anew after ever more steps). */
struct qy_snap_round {
	const void *mark;
	uint64_t steps, next;
};

QY_INLINE bool qy_snap_goes_round(struct qy_snap_round *r, const void *p)
{
	if (p == r->mark)
		return true;
	if (r->steps++ >= r->next) {
		r->mark = p;
		r->next = 2 * r->steps + 1;
	}
	return false;
}

/* Note a slab's class, where it is full: nothing in it is free that nobody noted. By anybody, without a lock. */
void qy_snapshot_note_full(struct qy_snapshot *s, const struct qy_slab *slab, unsigned cls);

/* The mark of an object that began at this offset. */
QY_INLINE enum qy_snap_mark qy_snapshot_mark_of(const struct qy_snapshot *s, uintptr_t offset)
{
	uintptr_t grain = offset / QY_SNAP_GRAIN;

	return (enum qy_snap_mark)(atomic_load_explicit(&s->marks[grain / 32], memory_order_relaxed) >> grain % 32 * 2 & 3);
}

#endif
