/* SPDX-License-Identifier: MIT */
/**
 * quarry/stack.h: stacks: memory that is taken by moving a pointer, and given back to a mark, all that came after it
 * at once. For what lives as long as a request, a frame, a call.
 *
 * A stack is one thread's at a time: its functions take no lock, and the program sees to it that no two threads are in
 * one at once. Each thread has one of its own for scratch memory. A stack that is NULL is EINVAL, or nothing is done; so
 * is one that was destroyed, as long as nobody else has its memory. After fork(2) the child has its own copy.
 */
#ifndef QUARRY_STACK_H
#define QUARRY_STACK_H

#include <quarry/block.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A stack; opaque. */
typedef struct quarry_stack quarry_stack;

enum quarry_stack_flags {
	QUARRY_STACK_SPILL = 1 /* more chunks, from the manager, when the first is full; else ENOMEM */
};

/** How a stack is to be. Zero-initialise it. */
typedef struct quarry_stack_attr {
	size_t struct_size;      /* sizeof(quarry_stack_attr); 0: the struct as it first was, up to limit */
	unsigned flags;          /* enum quarry_stack_flags */
	quarry_manager *manager; /* of its memory; NULL: the default one. An arena is neither destroyed nor reset (EBUSY)
	                          * while a stack has memory of it; any other manager, such as another stack, must
	                          * outlive this one */
	size_t chunk;            /* bytes of the first chunk, and at least of each that follows, but for the one that ends
	                          * at the limit; at least 256; 0: 64 KiB */
	size_t limit;            /* bytes of all chunks, at least the first one's; 0: none */
} quarry_stack_attr;

/** A place in a stack, by value. */
typedef struct quarry_mark {
	const quarry_stack *stack;
	size_t used;    /* in its chunk, */
	uint32_t chunk; /* counted from 0 */
	uint32_t depth; /* how many marks were there before it, */
	size_t floor;   /* and where the newest of them stands */
} quarry_mark;

/** What a stack has, in bytes. */
typedef struct quarry_stack_stats {
	size_t used;   /* taken now, with what alignment and the ends of full chunks cost */
	size_t held;   /* in chunks */
	size_t peak;   /* the most that was ever taken */
	size_t chunks; /* count */
	size_t limit;  /* 0: none */
	size_t spills; /* times that a chunk was had from the manager after the first, count */
} quarry_stack_stats;

/** Make a stack. Its first chunk is taken at once.
 * @param attr NULL: 64 KiB, which spill, without a limit.
 * @return the stack; NULL with EINVAL (quarry_error_text() names the field), ENOMEM.
 * @code
 *   quarry_stack *s = quarry_stack_create(NULL);
 *   quarry_mark m = quarry_stack_mark(s);
 *   char *line = quarry_stack_alloc(s, 200);
 *   double *row = quarry_stack_alloc_aligned(s, 64, 512);
 *   quarry_stack_release(s, m);       // both are gone
 *   quarry_stack_destroy(s);
 * @endcode */
QUARRY_API quarry_stack *quarry_stack_create(const quarry_stack_attr *attr);

/** End it with all its memory; NULL is ignored. A thread's scratch stack is reset instead: it ends with its thread. */
QUARRY_API void quarry_stack_destroy(quarry_stack *stack);

/** Take n bytes, aligned to 16. 0 gives a pointer that is not to be read from.
 * @return the memory, uninitialised, until a mark before it is released; NULL with ENOMEM: beyond the limit, a full
 *         stack that does not spill, or no memory. */
QUARRY_API void *quarry_stack_alloc(quarry_stack *stack, size_t n) QUARRY_MALLOC_LIKE QUARRY_SIZE1(2);

/** The same, aligned. @param alignment a power of two, else NULL with EINVAL. */
QUARRY_API void *quarry_stack_alloc_aligned(quarry_stack *stack, size_t alignment, size_t n) QUARRY_MALLOC_LIKE
	QUARRY_SIZE1(3);

/** The place up to which it is taken. */
QUARRY_API quarry_mark quarry_stack_mark(quarry_stack *stack);

/** quarry_stack_release of a mark's fields of these names (`of` is its stack), which are handed over in registers. */
QUARRY_API int quarry_stack_release_parts(quarry_stack *stack, const quarry_stack *of, size_t used, uint32_t chunk,
					  uint32_t depth, size_t floor);

/** Give all back that was taken since the mark, and end all marks since. Chunks stay for what comes.
 * @return 0; -1, and nothing done, with EINVAL for a mark of another stack, or one that was ended by the release of an
 *         earlier one, as far as no other stands in its place. */
static inline int quarry_stack_release(quarry_stack *stack, quarry_mark mark)
{
	return quarry_stack_release_parts(stack, mark.stack, mark.used, mark.chunk, mark.depth, mark.floor);
}

/** Give all back, end all marks, and keep the memory. */
QUARRY_API void quarry_stack_reset(quarry_stack *stack);

/** Give the chunks that nothing stands in back to the manager. @return their bytes; 0 also with EINVAL. */
QUARRY_API size_t quarry_stack_trim(quarry_stack *stack);

/** What it has. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_stack_stats_get(const quarry_stack *stack, quarry_stack_stats *stats);

/** The stack as a manager, as long as it lives. Each allocation has 16 bytes more, of its size. The last one
 * can be resized where it is, and freed; what else is freed, or was taken before the newest mark, stays taken until a mark before it is
 * released. clear is quarry_stack_reset, destroy quarry_stack_destroy (EPERM: of a scratch stack). (Of no stack it is NULL with EINVAL; mind that NULL means the
 * default manager to whoever is given it.) */
QUARRY_API quarry_manager *quarry_stack_manager(quarry_stack *stack);

/** The calling thread's stack for scratch memory: made by its first call, 64 KiB, spills, no limit; ended with the thread.
 * In the default arena of the node that it was made on, whichever arena the thread chose.
 * @return the stack; NULL with ENOMEM. */
QUARRY_API quarry_stack *quarry_scratch(void);

/** A scope on a stack: all that is taken between begin and end goes at the end. */
typedef struct quarry_frame {
	quarry_stack *stack;
	quarry_mark mark;
} quarry_frame;

/** Begin a scope. Scopes nest.
 * @param stack NULL: the thread's scratch stack.
 * @return the scope; its stack is NULL with ENOMEM, or EINVAL (a stack that was destroyed, as far as that can be seen).
 * @code
 *   QUARRY_AUTO(quarry_frame) f = quarry_frame_begin(NULL);
 *   char *path = quarry_stack_alloc(f.stack, n);   // gone at the end of this block of the program
 *   if (path == NULL)
 *           return -1;                             // ENOMEM; EINVAL of a frame that could not be had
 * @endcode */
QUARRY_API quarry_frame quarry_frame_begin(quarry_stack *stack);

/** End it, if it was not ended yet. */
QUARRY_API void quarry_frame_end(quarry_frame *frame);

/** What QUARRY_AUTO and its like have called where a scope ends, for nobody else to call. */
static inline void quarry_auto_quarry_frame(quarry_frame *frame)
{
	quarry_frame_end(frame);
}

static inline void quarry_auto_ptr_quarry_stack(quarry_stack **stack)
{
	quarry_stack_destroy(*stack);
}

#ifdef __cplusplus
}
#endif

#endif
