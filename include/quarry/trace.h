/* SPDX-License-Identifier: MIT */
/**
 * quarry/trace.h: objects that refer to each other by handles (quarry/lanes.h): what nothing leads to any more is found, cycles and all,
 * and freed.
 *
 * The program says which types (the number that stands in a handle: quarry_halloc_typed) have handles in their objects, and where. Objects of those
 * types that no root leads to are garbage; objects of other types are never freed here, and lead to nothing. A handle does
 * not keep its object: so each handle that is not told of is a weak one, which quarry_handle_valid and quarry_pin ask.
 *
 * @code
 *   struct node {
 *           quarry_handle left, right;
 *           long value;
 *   };
 *   enum { NODE = 1 };
 *   static const size_t links[] = { offsetof(struct node, left), offsetof(struct node, right) };
 *
 *   quarry_tracer *t = quarry_tracer_create(tree);
 *   quarry_tracer_type(t, NODE, links, 2);
 *   quarry_tracer_root(t, &top);                    // a variable that has a handle, or 0
 *   ...
 *   quarry_collect(t, 0);                           // what top does not lead to is freed
 * @endcode
 *
 * While quarry_collect runs, no other thread makes, frees or writes objects of those types, or writes to roots: others may read them, and do
 * all else. That a group's time to live is over (quarry_group_ttl) and quarry_rehandle count as freeing. They may be moved, packed and cooled meanwhile; cold ones are
 * copied to be looked at, or, where there are no copies (quarry_get), brought back. None of them counts as used by that.
 */
#ifndef QUARRY_TRACE_H
#define QUARRY_TRACE_H

#include "lanes.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What is known of types and roots. One thread at a time. */
typedef struct quarry_tracer quarry_tracer;

/** Make one. @return it; NULL with EINVAL, ENOMEM. It ends before the lanes do. */
QUARRY_API quarry_tracer *quarry_tracer_create(quarry_lanes *lanes);

/** End it; objects stay. @return 0; -1 with EINVAL, EBUSY (in a finalizer or another function of the tracer's). */
QUARRY_API int quarry_tracer_destroy(quarry_tracer *tracer);

/** A type whose objects have handles in them, at these places.
 * @param type 0 to 255. @param offsets bytes from an object's beginning, `count` of them, each a multiple of 8; they are copied.
 * A type with none is one whose objects are freed when nothing leads to them. Again: instead of what it was.
 * @return 0; -1 with EINVAL, ENOMEM. */
QUARRY_API int quarry_tracer_type(quarry_tracer *tracer, unsigned type, const size_t *offsets, size_t count);

/** A type whose objects are looked at by a function: it calls quarry_trace for each handle that the object has. It runs in a scope.
 * @param edges the function: `object` has `size` bytes. @param arg for it. @return as quarry_tracer_type. */
QUARRY_API int quarry_tracer_type_by(quarry_tracer *tracer, unsigned type,
				     void (*edges)(quarry_tracer *tracer, const void *object, size_t size, void *arg), void *arg);

/** A function that is called for each object of a type that quarry_collect is about to free, in a scope, the object being there still, as
 * are all others that go with it. It may get and read objects, and allocate; not free, move or collect. An object that is cold and cannot be brought back for it
 * (ENOMEM, EIO) stays, and does not count; what it led to may go. NULL: none.
 * @return 0; -1 with EINVAL (the type is not registered). */
QUARRY_API int quarry_set_finalizer(quarry_tracer *tracer, unsigned type, void (*last)(quarry_handle h, void *object, void *arg), void *arg);

/** From a function of quarry_tracer_type_by: the object has this handle. 0 is none, and stale ones lead nowhere. Elsewhere it does nothing. */
QUARRY_API void quarry_trace(quarry_tracer *tracer, quarry_handle h);

/** A variable that has a handle, or 0: what it leads to when quarry_collect is called stays. @return 0; -1 with EINVAL, ENOMEM. */
QUARRY_API int quarry_tracer_root(quarry_tracer *tracer, const quarry_handle *root);

/** It is a root no more. @return 0; -1 with EINVAL: it was none. */
QUARRY_API int quarry_tracer_unroot(quarry_tracer *tracer, const quarry_handle *root);

#define QUARRY_COLLECT_LOOK 1u   /* free nothing */
#define QUARRY_COLLECT_CYCLES 2u /* count cycles as well */

/** Find the objects of registered types that neither roots nor pinned objects lead to, and free them.
 * A cold one whose bytes are lost (QUARRY_HANDLE_LOST) leads nowhere. Not in a scope.
 * @param flags QUARRY_COLLECT_..., or-ed. @return how many there were; -1 with EINVAL, ENOMEM or EIO (no memory; a file of
 *         cold objects could not be read: nothing was freed), EBUSY (in a finalizer or
 *         another function of the tracer's), EDEADLK (in a scope). */
QUARRY_API int64_t quarry_collect(quarry_tracer *tracer, unsigned flags);

/** What the last quarry_collect found. */
typedef struct quarry_collected {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t reserved;
	uint64_t reached;     /* objects of registered types that stay, count */
	uint64_t garbage;     /* that nothing leads to, count */
	uint64_t bytes;       /* of those */
	uint64_t cycles;      /* with QUARRY_COLLECT_CYCLES, sets of those of which each leads to each and to itself, count, */
	uint64_t in_cycles;   /* and objects in them, count */
} quarry_collected;

/** Figures of it. @param collected struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_collected_get(const quarry_tracer *tracer, quarry_collected *collected);

#ifdef __cplusplus
}
#endif

#endif
