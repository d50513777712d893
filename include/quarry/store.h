/* SPDX-License-Identifier: MIT */
/**
 * quarry/store.h: values behind handles (quarry/lanes.h) in few words: bytes, strings and arrays stored, read and written by their
 * bounds; sequences and queues; what is rented for a block of code.
 *
 * @code
 *   quarry_handle name = quarry_store_string(rows, "a name");
 *   quarry_handle table = quarry_halloc_array(rows, 1000, sizeof(struct cell)); // zeros
 *
 *   quarry_hwrite(rows, table, 10 * sizeof(struct cell), cells, 5 * sizeof(struct cell));
 *   quarry_enter();
 *   puts(quarry_get_string(rows, name));
 *   quarry_leave();
 *
 *   QUARRY_SEQ_TYPE(path, struct step);          // at file scope
 *   path way = path_make(rows);
 *   path_push(&way, step);
 *   while (path_pop(&way, &step) == 0)
 *           walk(step);
 *   path_end(&way);
 * @endcode
 *
 * In lanes with canaries an object that a sequence or a queue has grown out of stays where it was written beyond: an event
 * QUARRY_LANES_CORRUPT has its handle.
 *
 * Values are copied in and out, so nothing of this has to be in a scope but what returns an address. Functions of handles are for any
 * thread, as quarry_get_mut is; a sequence, a queue or what is rented is one thread's at a time.
 */
#ifndef QUARRY_STORE_H
#define QUARRY_STORE_H

#include "lanes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Values                                                                                                 */

/** Allocate an object and fill it. @param bytes `size` of them. @return as quarry_halloc; EINVAL also when bytes is NULL. */
QUARRY_API quarry_handle quarry_store(quarry_lanes *lanes, const void *bytes, size_t size);

/** Allocate an array of zeros. @param count elements, at least 1. @param size of each, bytes, at least 1.
 * @return as quarry_halloc; ENOMEM also when the product is too large. */
QUARRY_API quarry_handle quarry_halloc_array(quarry_lanes *lanes, size_t count, size_t size);

/** Store a string, with its 0. @return as quarry_store. */
QUARRY_API quarry_handle quarry_store_string(quarry_lanes *lanes, const char *text);

/** A string, in a scope. @return it; NULL with EILSEQ (the object has no 0: it is no string), else as quarry_get. */
QUARRY_API const char *quarry_get_string(quarry_lanes *lanes, quarry_handle h);

/** Copy a part of an object out. @param offset, size bytes. @return 0; -1 with ERANGE (it has no such part), else as quarry_get. */
QUARRY_API int quarry_hread(quarry_lanes *lanes, quarry_handle h, size_t offset, void *to, size_t size);

/** Copy bytes into an object, all at once: others who write it, or read it meanwhile, are to be kept off by the program.
 * @return as quarry_hread. */
QUARRY_API int quarry_hwrite(quarry_lanes *lanes, quarry_handle h, size_t offset, const void *from, size_t size);

/** The address of an object for reading, in a scope, and how many bytes it has. @param size receives quarry_hsize.
 * @return as quarry_get. */
QUARRY_API const void *quarry_get_span(quarry_lanes *lanes, quarry_handle h, size_t *size);

/** Free objects. What is no handle, stale, or was written beyond its end (QUARRY_LANES_CANARIES), is passed over. @return how many were freed; -1 with EINVAL. */
QUARRY_API int64_t quarry_hfree_many(quarry_lanes *lanes, const quarry_handle *handles, size_t count);

/* ------------------------------------------------------------------------------------------------------ */
/* Sequences                                                                                              */

/** Elements of one size, one behind the other, in one object that grows: a list, a stack, a buffer. Its fields are read only. */
typedef struct quarry_seq {
	quarry_lanes *lanes;
	quarry_handle data; /* 0: there was none yet */
	size_t size;        /* of an element, bytes */
	size_t count, room; /* elements */
} quarry_seq;

/** Begin one, empty, which has no memory until something is pushed. @param size of an element, bytes, at least 1.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_seq_init(quarry_seq *seq, quarry_lanes *lanes, size_t size);

/** Put an element in. @param index where: from 0 to count. Later ones move on. @return 0; -1 with ERANGE, ENOMEM. */
QUARRY_API int quarry_seq_insert(quarry_seq *seq, size_t index, const void *element);

/** Take one out. @param element receives it; NULL: nobody wants it. Later ones move up. @return 0; -1 with ERANGE. */
QUARRY_API int quarry_seq_remove(quarry_seq *seq, size_t index, void *element);

/** Put one at the end. @return as quarry_seq_insert. */
QUARRY_API int quarry_seq_push(quarry_seq *seq, const void *element);

/** Take the last one out. @return 0; -1 with ERANGE: it is empty. */
QUARRY_API int quarry_seq_pop(quarry_seq *seq, void *element);

/** Copy elements out. @param index, count which. @return 0; -1 with ERANGE, else as quarry_get. */
QUARRY_API int quarry_seq_get(const quarry_seq *seq, size_t index, size_t count, void *elements);

/** Copy elements in, instead of those that are there. @return as quarry_seq_get. */
QUARRY_API int quarry_seq_set(quarry_seq *seq, size_t index, size_t count, const void *elements);

/** Free what it has: it is empty, and may be used on. @return 0; -1 with EINVAL, EBADMSG (QUARRY_LANES_CANARIES: its object was written
 * beyond its end; all stays as it is). */
QUARRY_API int quarry_seq_end(quarry_seq *seq);

/* ------------------------------------------------------------------------------------------------------ */
/* Queues                                                                                                 */

/** Elements of one size, first in, first out, in one object: a ring that grows up to a limit. Its fields are read only. */
typedef struct quarry_ring {
	quarry_lanes *lanes;
	quarry_handle data;
	size_t size;         /* of an element, bytes */
	size_t first, count, room; /* elements */
	size_t most;         /* that it may have; 0: any */
	uint32_t flags;
	uint32_t reserved;
} quarry_ring;

#define QUARRY_RING_OVERWRITE 1u /* when it is full, the oldest goes */

/** Begin one, empty. @param size of an element, bytes. @param most elements; 0: any, which QUARRY_RING_OVERWRITE may not be with.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_ring_init(quarry_ring *ring, quarry_lanes *lanes, size_t size, size_t most, uint32_t flags);

/** Put an element in. @return 0; -1 with EAGAIN (it is full), ENOMEM. */
QUARRY_API int quarry_ring_push(quarry_ring *ring, const void *element);

/** Take the oldest out. @param element receives it; NULL: nobody wants it. @return 0; -1 with ERANGE: it is empty. */
QUARRY_API int quarry_ring_pop(quarry_ring *ring, void *element);

/** Copy one out, which stays. @param index 0: the oldest. @return 0; -1 with ERANGE, else as quarry_get. */
QUARRY_API int quarry_ring_peek(const quarry_ring *ring, size_t index, void *element);

/** Free what it has: it is empty, and may be used on. @return 0; -1 as quarry_seq_end. */
QUARRY_API int quarry_ring_end(quarry_ring *ring);

/* ------------------------------------------------------------------------------------------------------ */
/* Rented                                                                                                 */

/** An object that stays where it is until it is given back. */
typedef struct quarry_rented {
	quarry_lanes *lanes;
	quarry_handle handle;
	void *at; /* NULL: there is none */
} quarry_rented;

/** Allocate an object and pin it. @return it; at is NULL with errno, as quarry_halloc. */
QUARRY_API quarry_rented quarry_rent(quarry_lanes *lanes, size_t size);

/** Give it back: it is freed. Nothing, when there is none. (What was written beyond its end, where QUARRY_LANES_CANARIES says so, is
 * no longer pinned, and stays: `handle` is still its.) */
QUARRY_API void quarry_rent_end(quarry_rented *rented);

/** A variable whose object is given back when its block ends: QUARRY_RENTED buffer = quarry_rent(rows, 4096); */
#define QUARRY_RENTED __attribute__((cleanup(quarry_rent_end))) quarry_rented

/* ------------------------------------------------------------------------------------------------------ */
/* Of a type                                                                                              */

/** Sequences of one type, as a type of their own: QUARRY_SEQ_TYPE(path, struct step); at file scope makes the type path and
 * path_make, path_insert, path_remove, path_push, path_pop, path_get, path_set, path_end, which take and give struct step. */
#define QUARRY_SEQ_TYPE(name, type) \
	typedef struct name { \
		quarry_seq seq; \
	} name; \
	QUARRY_HANDLE_FN_ name name##_make(quarry_lanes *l) \
	{ \
		name n; \
		(void)quarry_seq_init(&n.seq, l, sizeof(type)); \
		return n; \
	} \
	QUARRY_HANDLE_FN_ size_t name##_count(const name *n) \
	{ \
		return n->seq.count; \
	} \
	QUARRY_HANDLE_FN_ int name##_insert(name *n, size_t i, type e) \
	{ \
		return quarry_seq_insert(&n->seq, i, &e); \
	} \
	QUARRY_HANDLE_FN_ int name##_remove(name *n, size_t i, type *e) \
	{ \
		return quarry_seq_remove(&n->seq, i, e); \
	} \
	QUARRY_HANDLE_FN_ int name##_push(name *n, type e) \
	{ \
		return quarry_seq_push(&n->seq, &e); \
	} \
	QUARRY_HANDLE_FN_ int name##_pop(name *n, type *e) \
	{ \
		return quarry_seq_pop(&n->seq, e); \
	} \
	QUARRY_HANDLE_FN_ int name##_get(const name *n, size_t i, type *e) \
	{ \
		return quarry_seq_get(&n->seq, i, 1, e); \
	} \
	QUARRY_HANDLE_FN_ int name##_set(name *n, size_t i, type e) \
	{ \
		return quarry_seq_set(&n->seq, i, 1, &e); \
	} \
	QUARRY_HANDLE_FN_ int name##_end(name *n) \
	{ \
		return quarry_seq_end(&n->seq); \
	} \
	struct name

/** The same of queues: QUARRY_RING_TYPE(jobs, struct job); makes jobs_make(lanes, most, flags), jobs_push, jobs_pop, jobs_peek,
 * jobs_count, jobs_end. */
#define QUARRY_RING_TYPE(name, type) \
	typedef struct name { \
		quarry_ring ring; \
	} name; \
	QUARRY_HANDLE_FN_ name name##_make(quarry_lanes *l, size_t most, uint32_t flags) \
	{ \
		name n; \
		(void)quarry_ring_init(&n.ring, l, sizeof(type), most, flags); \
		return n; \
	} \
	QUARRY_HANDLE_FN_ size_t name##_count(const name *n) \
	{ \
		return n->ring.count; \
	} \
	QUARRY_HANDLE_FN_ int name##_push(name *n, type e) \
	{ \
		return quarry_ring_push(&n->ring, &e); \
	} \
	QUARRY_HANDLE_FN_ int name##_pop(name *n, type *e) \
	{ \
		return quarry_ring_pop(&n->ring, e); \
	} \
	QUARRY_HANDLE_FN_ int name##_peek(const name *n, size_t i, type *e) \
	{ \
		return quarry_ring_peek(&n->ring, i, e); \
	} \
	QUARRY_HANDLE_FN_ int name##_end(name *n) \
	{ \
		return quarry_ring_end(&n->ring); \
	} \
	struct name

#ifdef __cplusplus
}
#endif

#endif
