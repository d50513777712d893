/* SPDX-License-Identifier: MIT */
/**
 * quarry/block.h: memory managers as an interface, segments, and blocks with counts and weak references.
 *
 * A manager is where memory comes from: the process's own, an arena, a stack (quarry/stack.h), or the program's, by a table
 * of operations. NULL means the default one everywhere. A segment is an address and a length, and owns nothing. A
 * block is memory that is counted: it begins with one reference, and whoever lets the last one go frees it, without
 * having to know where it came from. The counts stand beside the memory (12.5 % of a heap of 64-byte blocks, 0.4 % of one
 * of 2 KiB), never in it; memory that nobody shares, which is all that malloc gives, costs nothing.
 *
 * Every function may be called from any thread unless its comment says otherwise. References and notes come and go without
 * a lock, but for the last one, with which memory is freed. What allocates, resizes or frees takes the locks that
 * quarry_malloc and quarry_free do; the first block, note or function for an end in 64 KiB of address space takes one, for
 * the array that it makes; and with the option checked a fork waits a moment for ends of blocks. After fork(2) the child has
 * all blocks with their counts; references and notes that the parent's other threads held stay held there. */
#ifndef QUARRY_BLOCK_H
#define QUARRY_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include <quarry/quarry.h>

#ifdef __cplusplus
extern "C" {
#ifdef __clang__ /* casts and NULL are C's here; g++ knows that by itself */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wzero-as-null-pointer-constant"
#endif
#endif

/** For a variable whose end of scope ends what it holds; of quarry_block, quarry_frame (quarry/stack.h), and, by
 * QUARRY_AUTO_PTR, of pointers to quarry_arena and quarry_stack. GCC and Clang (attribute cleanup).
 * @code
 *   QUARRY_AUTO(quarry_block) b = quarry_block_alloc(NULL, 4096);
 *   if (b.p == NULL)
 *           return -1;
 *   return use(b.p);        // the reference goes however the function is left
 * @endcode */
#define QUARRY_AUTO(type) __attribute__((cleanup(quarry_auto_##type))) type
#define QUARRY_AUTO_PTR(type) __attribute__((cleanup(quarry_auto_ptr_##type))) type *
/* Memory of quarry_malloc: QUARRY_AUTO_FREE char *p = quarry_malloc(n); */
#define QUARRY_AUTO_FREE __attribute__((cleanup(quarry_auto_free)))

/** What QUARRY_AUTO and its like have called where a scope ends, for nobody else to call. */
static inline void quarry_auto_free(void *p)
{
	quarry_free(*(void **)p);
}

static inline void quarry_auto_ptr_quarry_arena(quarry_arena **arena)
{
	if (*arena != NULL)
		(void)quarry_arena_destroy(*arena);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Managers                                                                                               */

/** What a manager says of itself, in bytes. */
typedef struct quarry_manager_stats {
	uint64_t in_use; /* handed out */
	uint64_t held;   /* had from below, used or not */
	uint64_t limit;  /* 0: none */
} quarry_manager_stats;

/** A manager's operations. Each gets the manager's ctx first. Those that fail return NULL or -1 with errno. alloc, free
 * and usable must be there; what may be NULL says what is done then. None is asked for more than PTRDIFF_MAX bytes, which
 * is ENOMEM before. Memory must be aligned to 16. A block's last
 * reference may go in any thread, and free is called there. */
typedef struct quarry_manager_ops {
	size_t struct_size; /* sizeof(quarry_manager_ops): lets the struct grow. What stands behind it counts as NULL */
	const char *name;
	void *(*alloc)(void *ctx, size_t size);
	void *(*alloc_aligned)(void *ctx, size_t alignment, size_t size); /* NULL: ENOTSUP above 16 */
	void *(*resize)(void *ctx, void *p, size_t size); /* as realloc(3), p not NULL and size not 0; NULL: by copy */
	int (*free)(void *ctx, void *p);                  /* EINVAL and nothing done for what is not its own, if it can tell */
	size_t (*usable)(void *ctx, const void *p);
	int (*owns)(void *ctx, const void *p);            /* 1 or 0; NULL: ENOTSUP */
	int (*clear)(void *ctx);                          /* free all, keep the manager; NULL: ENOTSUP */
	int (*destroy)(void *ctx);                        /* free all, and the manager; NULL: ENOTSUP */
	int (*stats)(void *ctx, quarry_manager_stats *stats); /* NULL: ENOTSUP */
	size_t (*max_alloc)(void *ctx);                   /* NULL: PTRDIFF_MAX */
} quarry_manager_ops;

/** A manager. A program that brings its own fills one in, which must stay while anything of it is in use.
 * @code
 *   static const quarry_manager_ops ops = { .struct_size = sizeof(ops), .name = "mine", .alloc = my_alloc,
 *                                           .free = my_free, .usable = my_usable };
 *   static quarry_manager mine = { &ops, &my_heap };
 *   quarry_block b = quarry_block_alloc(&mine, 100);
 * @endcode */
typedef struct quarry_manager {
	const quarry_manager_ops *ops;
	void *ctx;
} quarry_manager;

/** The process's manager: quarry_malloc and its family, on the calling thread's node. It cannot be cleared or destroyed
 * (EPERM). NULL means it wherever a manager is asked for. */
QUARRY_API quarry_manager *quarry_manager_default(void);

/** The manager that is an arena: the same one for the same arena each time. Its destroy is quarry_arena_destroy, its
 * clear quarry_arena_reset, and both end the blocks there (quarry_manager_clear); what stays of it then is 24 bytes, which
 * the next arena at that address gets.
 * @param arena NULL: the default manager.
 * @return the manager; NULL with EINVAL (no arena) or ENOMEM. */
QUARRY_API quarry_manager *quarry_manager_of_arena(quarry_arena *arena);

/** Allocate size bytes from a manager.
 * @param manager NULL: the default one, here and below. @param size bytes; 0 as in quarry_malloc.
 * @return the memory, aligned to 16; NULL with ENOMEM, or EINVAL where the manager lacks an operation that all must
 *         have. */
QUARRY_API void *quarry_manager_alloc(quarry_manager *manager, size_t size);

/** The same, aligned.
 * @param alignment a power of two, else NULL with EINVAL; ENOTSUP above 16 where the manager has no such operation. */
QUARRY_API void *quarry_manager_alloc_aligned(quarry_manager *manager, size_t alignment, size_t size);

/** Resize what the manager gave, as quarry_realloc: NULL allocates, size 0 frees and returns NULL. A manager without the
 * operation allocates, copies min(old, new) bytes and frees. A failure leaves p as it was.
 * @return the memory; NULL with what alloc says, or as quarry_manager_free for what is not the manager's, or is a block. */
QUARRY_API void *quarry_manager_resize(quarry_manager *manager, void *p, size_t size);

/** Free what the manager gave. NULL is ignored.
 * @return 0; -1 with EINVAL for what is not its own, as far as it can tell: the default manager and arenas know it of all
 *         that is live. Memory that they have freed before is to them what it is to quarry_free: large memory is EINVAL,
 *         a small object is 0 and noticed later, or not at all (quarry_stats.bad_frees).
 *         EBUSY, and nothing done, where what they gave is a counted block with references, or one that was freed behind
 *         them. (Of blocks of stacks and programs' managers that is not seen, nor is it by quarry_free and quarry_arena_free.) */
QUARRY_API int quarry_manager_free(quarry_manager *manager, void *p);

/** How many bytes at p may be used; 0 for NULL and for what is not the manager's, as far as it can tell. */
QUARRY_API size_t quarry_manager_usable(quarry_manager *manager, const void *p);

/** Whether p is the beginning of live memory of the manager. (The default manager owns what any of its arenas has, but
 * for what pools, page allocators and slabs of buffers have, also where that begins.)
 * @return 1 or 0; -1 with ENOTSUP. */
QUARRY_API int quarry_manager_owns(quarry_manager *manager, const void *p);

/** Free all that the manager gave and keep it. Where that is an arena's memory, by quarry_arena_reset or
 * quarry_arena_destroy as well, and in whatever managers' hands it was, the blocks in it end: references to them, weak ones
 * too, are ESTALE from then on, no function for their end is called, and they count in quarry_block_figures.overrun. (All
 * counts that there are for this memory are looked at, 8 bytes for each place of a block, and where there were no blocks
 * nothing is.) Other managers change no count: let blocks go before.
 * @return 0; -1 with EPERM (the default manager, a node's arena), EBUSY (a thread's default arena, or one that a pool, a
 *         page allocator, a stack or a slab of buffers is in), ENOTSUP. */
QUARRY_API int quarry_manager_clear(quarry_manager *manager);

/** End the manager with all that it gave. @return as quarry_manager_clear. */
QUARRY_API int quarry_manager_destroy(quarry_manager *manager);

/** What the manager says of itself.
 * @return 0; -1 with EINVAL or ENOTSUP. */
QUARRY_API int quarry_manager_stats_get(quarry_manager *manager, quarry_manager_stats *stats);

/** The greatest size that can ever be allocated from the manager, in bytes: whether there is memory for it is another
 * question. */
QUARRY_API size_t quarry_manager_max_alloc(quarry_manager *manager);

/* ------------------------------------------------------------------------------------------------------ */
/* Segments                                                                                               */

/** An address and a length, by value: it owns nothing, and is valid as long as the memory that it is of. */
typedef struct quarry_seg {
	void *p;
	size_t n; /* bytes */
} quarry_seg;

/** A segment of n bytes at p. With NULL, or where the end would pass the address space, it is empty: NULL and 0. */
QUARRY_API quarry_seg quarry_seg_make(void *p, size_t n);

/** One past its last byte. */
QUARRY_API void *quarry_seg_end(quarry_seg s);

/** The n bytes from `from` on. @return 0; -1 with ERANGE, *out untouched, where that is not all inside. */
QUARRY_API int quarry_seg_slice(quarry_seg s, size_t from, size_t n, quarry_seg *out);

/** Both parts of s, the first of `at` bytes. Either may be empty; either pointer may be NULL. Neither part is a block.
 * @return 0; -1 with ERANGE where at is more than s has. */
QUARRY_API int quarry_seg_split(quarry_seg s, size_t at, quarry_seg *first, quarry_seg *second);

/** Compare contents, as memcmp(3); where one is the beginning of the other the shorter is less.
 * @return less than, equal to, or greater than 0. */
QUARRY_API int quarry_seg_compare(quarry_seg a, quarry_seg b);

/** Whether the n bytes at p are all inside s. An empty range is inside from the first byte to the end.
 * @return 1 or 0. */
QUARRY_API int quarry_seg_contains(quarry_seg s, const void *p, size_t n);

/** Whether all of s is in one live object or block of quarry's memory: as quarry_inspect tells.
 * @return 1 or 0. */
QUARRY_API int quarry_seg_in_heap(quarry_seg s);

/** s as an array: what QUARRY_SEG_AS is made of.
 * @param size of an element, bytes. @param alignment of one, a power of two.
 * @param count receives how many whole elements there are, when it is not NULL.
 * @return s.p; NULL with EINVAL where it is not aligned so, or size or alignment is none. */
QUARRY_API void *quarry_seg_cast(quarry_seg s, size_t size, size_t alignment, size_t *count);

/** A segment as an array of a type: QUARRY_SEG_AS(uint32_t, s, &n) is a uint32_t *, NULL where it is not aligned. */
#ifdef __cplusplus
#define QUARRY_SEG_AS(type, s, count) (static_cast<type *>(quarry_seg_cast((s), sizeof(type), alignof(type), (count))))
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define QUARRY_SEG_AS(type, s, count) ((type *)quarry_seg_cast((s), sizeof(type), _Alignof(type), (count)))
#else
#define QUARRY_SEG_AS(type, s, count) ((type *)quarry_seg_cast((s), sizeof(type), __alignof__(type), (count)))
#endif

/** Copy n bytes from src into s, from its byte `at` on; they may overlap. All or nothing. To plain memory it is
 * quarry_copy_in(quarry_seg_make(dst, room), 0, src, n).
 * @return 0; -1 with ERANGE, and nothing copied, where they have no room; EINVAL where src is NULL and n is not 0. */
QUARRY_API int quarry_copy_in(quarry_seg s, size_t at, const void *src, size_t n);

/** Copy n bytes of s, from its byte `at` on, to dst. Errors as quarry_copy_in. */
QUARRY_API int quarry_copy_out(quarry_seg s, size_t at, void *dst, size_t n);

/** Copy all of src to the beginning of dst; they may overlap.
 * @return 0; -1 with ERANGE, and nothing copied, where dst is shorter. */
QUARRY_API int quarry_copy_seg(quarry_seg dst, quarry_seg src);

#define QUARRY_COPY_STREAM_MIN 4194304 /* bytes, at first */

/** From how many bytes in one piece on copies go past the caches (x86: non-temporal stores; elsewhere memmove(3) is
 * used whatever the size): those of segments, of buffers (buffers.h) and of chains and cursors (chain.h), all of them.
 * That is faster where the destination is in no cache, and slower where it is, or is read at once: so the first value
 * is above what most caches of one core hold. Where source and destination overlap the copy is memmove(3)'s, whatever its
 * size and this one. For the whole process; any thread may call, any time.
 * @param n bytes; 0: never.
 * @return what it was; SIZE_MAX: never. */
QUARRY_API size_t quarry_copy_set_stream_min(size_t n);

/** What that is. @return bytes; SIZE_MAX: never. Any thread may call. */
QUARRY_API size_t quarry_copy_stream_min(void);

/* ------------------------------------------------------------------------------------------------------ */
/* Blocks with counts                                                                                     */

/** The greatest number of references that a block can have. */
#define QUARRY_REFS_MAX 262143

/** A block's control word, of which a program knows only where it is. It is never unmapped. */
struct quarry_count;

/** A reference to a block, by value: what one copy lets go, no other copy may use. A copy that is kept all the same is told
 * apart by its generation (ESTALE) once the block has ended, also when the memory is another block by then; while others hold
 * the block nothing tells it from a reference, and to let it go takes one of theirs. All zero: none. */
typedef struct quarry_block {
	void *p;                   /* its memory; fixed until it is resized */
	size_t n;                  /* bytes that were asked for, or all that may be used (quarry_share, quarry_block_from_seg) */
	struct quarry_count *count;
	uint32_t generation;       /* of what is at that word: another number for each block */
	uint32_t reserved;
} quarry_block;

/** What is left of a block when no reference is kept: enough to ask for one. All zero: none. */
typedef struct quarry_weak {
	void *p;
	size_t n;
	struct quarry_count *count;
	uint32_t generation;
	uint32_t reserved;
} quarry_weak;

/** Allocate a block of n bytes with one reference. It goes by quarry_unref or quarry_block_unref, and not by quarry_free or
 * quarry_realloc, which would leave its count behind (see quarry_block_figures.overrun).
 * Its count stands in an array beside its 64 KiB of address space, of 8 bytes for each block that has room there (16 where
 * the manager is a stack or the program's; however many of these there are, or were); that array is made with the first block
 * there and stays, so that no late reference touches what is gone.
 * @param manager NULL: the default one. @param n bytes; 0 as in quarry_malloc.
 * @return the block; one whose p is NULL with ENOMEM, or what the manager says. */
QUARRY_API quarry_block quarry_block_alloc(quarry_manager *manager, size_t n);

/** The same, aligned. @param alignment a power of two, else EINVAL. */
QUARRY_API quarry_block quarry_block_alloc_aligned(quarry_manager *manager, size_t alignment, size_t n);

/** Make a block of memory that quarry_malloc, or any function of its family, gave: one reference, the caller's. From then
 * on it goes by quarry_unref, and not by quarry_free.
 * @param p where the memory begins. @param b receives the block when it is not NULL; its n is all that is usable.
 * @return 0; -1 with EINVAL (not quarry's, or freed as far as quarry_inspect tells), EALREADY (it is a block, or a block
 *         there was freed behind its count), ENOMEM. */
QUARRY_API int quarry_share(void *p, quarry_block *b);

/** One reference more to the block that begins at p, if it still lives: safe against whoever lets the last one go at this
 * moment, where that loses the race. (A pointer says nothing of what was there before; a quarry_block and a
 * quarry_weak do.)
 * @return 0; -1 with ESTALE (it was a block, and is gone), EINVAL (it never was), EOVERFLOW (QUARRY_REFS_MAX). */
QUARRY_API int quarry_ref(const void *p);

/** One reference less. With the last one the memory goes back to where it came from, whose word on that is not asked; errno
 * stays as it was but for the errors below, here and in all that succeeds with blocks.
 * @return 1 when it was the last, 0 when not (or when another thread's failing quarry_ref or quarry_weak_lock is just
 *         looking at the block, and ends it in its place, as may a quarry_ref of a block elsewhere that succeeds; or, where there are notes, whoever gives the last one back does);
 *         -1 with ESTALE or EINVAL as quarry_ref, and EBUSY when it is the last one and a part is borrowed
 *         (quarry_block_borrow): it is kept then. */
QUARRY_API int quarry_unref(void *p);

/** How many references the block at p has, for people: it may be another number the moment after.
 * @return the count, from 1; -1 with ESTALE or EINVAL. */
QUARRY_API long quarry_refcount(const void *p);

/** As quarry_ref, of the block that b is of: also with memory that is another block by now it is ESTALE. Faster. */
QUARRY_API int quarry_block_ref(const quarry_block *b);

/** As quarry_unref; *b is all zero before the reference goes, and may so stand in the block itself; an error leaves it as it
 * was. A block that is none (p NULL): 0. */
QUARRY_API int quarry_block_unref(quarry_block *b);

/** Whether b is of a block that lives. @return 1 or 0. */
QUARRY_API int quarry_block_live(const quarry_block *b);

enum quarry_resize_flags {
	QUARRY_RESIZE_ZERO = 1,    /* bytes behind the old length, which is n of the handle, are zero */
	QUARRY_RESIZE_IN_PLACE = 2 /* ENOMEM rather than another address */
};

/** Resize a block of which b is the only reference: in place, by mremap(2), or by a copy of min(old, new) bytes, as its
 * manager does it. Where it grows or moves it is of another generation, wherever it is: copies of b and weak references
 * from before are ESTALE. (When even the memory for its count cannot be had where it moved to, it is lost: ENOMEM, and *b
 * all zero.)
 * @param n bytes. @param flags enum quarry_resize_flags.
 * @return 0; -1, and all as it was, with EBUSY (shared, borrowed, or with a function for its end; or another thread's quarry_ref,
 *         quarry_block_ref or quarry_weak_lock is just looking at the block, in search of another or too late: it may be
 *         tried again), ESTALE (also where its arena is reset or ends meanwhile), EINVAL (flags), ENOMEM. */
QUARRY_API int quarry_block_resize(quarry_block *b, size_t n, unsigned flags);

/** What is called with a block's memory when the last reference went, before the memory goes: by the thread that let it
 * go, or by one whose quarry_ref, quarry_block_ref or quarry_weak_lock failed at that moment, or whose quarry_ref was of
 * another block, whichever, and succeeded (it may have looked here first, where the memory about has been of other sizes),
 * or who then gave back the last note (quarry_block_give_back). No lock that the function takes should be held around these. It is called when nobody can have a reference any more. It may use other blocks. */
typedef void quarry_end_fn(void *p);

/** Have a function called at the end of a block; in place of the one before. The first one in 64 KiB of address space
 * makes an array of 8 bytes for each block there. A block that has one is not resized (EBUSY; where it stays, one that another thread
 * sets at that very moment stays with it). What a function lets go
 * ends within it: a list in which each lets the next block go takes the thread's stack, some 200 bytes for each.
 * @param fn NULL: none. @return 0; -1 with ESTALE, EINVAL (b is none; or fn is no address of 48 bits), ENOMEM. */
QUARRY_API int quarry_block_at_end(const quarry_block *b, quarry_end_fn *fn);

/** The block's memory as a segment; an empty one with ESTALE when the block is gone, EINVAL where b is none. */
QUARRY_API quarry_seg quarry_block_seg(const quarry_block *b);

/** The block that begins where s begins and has room for it, whole: its n is all that may be used, as of quarry_share, and not
 * the length of s, which may be a part, or empty. No reference is added: b is the one that s was made of.
 * @return 0; -1 with EINVAL where s begins within a block, is longer than it, or is of none; ESTALE where it was one. */
QUARRY_API int quarry_block_from_seg(quarry_seg s, quarry_block *b);

/** The block's memory, with a note that somebody uses it: its last reference is refused (EBUSY) while there are notes, and
 * the block does not end (but with its arena, or freed behind its count). Where it ends at this very moment the note is
 * ESTALE, or it is given, and the block stays.
 * For looking for mistakes: a span that outlives its block is caught where it is let go. The first one in 64 KiB of
 * address space makes an array of 8 bytes for each block there.
 * @return 0; -1 with ESTALE, EINVAL (b is none), ENOMEM, EOVERFLOW (4,095 notes). */
QUARRY_API int quarry_block_borrow(const quarry_block *b, quarry_seg *s);

/** One note less; the block ends with the last one where it has no references any more (see quarry_unref).
 * @return 0; -1 with ESTALE, or EINVAL where there is none. */
QUARRY_API int quarry_block_give_back(const quarry_block *b);

/** A weak reference to a block that b holds: it keeps nothing alive, costs nothing, and needs no end.
 * All zero with ESTALE when the block is gone, EINVAL where b is none. */
QUARRY_API quarry_weak quarry_weak_of(const quarry_block *b);

/** A reference again, if the block still lives. While another thread resizes it, it does not.
 * @param b receives it. @return 0; -1 with ESTALE, EINVAL (all zero), EOVERFLOW. */
QUARRY_API int quarry_weak_lock(quarry_weak w, quarry_block *b);

/** What befell blocks, counts since the start. */
typedef struct quarry_block_figures {
	uint64_t retired;      /* addresses that are not used again, and their memory kept, since their generations are
	                        * used up: after 2,147,483,646 blocks at one address */
	uint64_t overrun;      /* blocks that ended behind their count: lost as their arena was reset or ended, or freed by
	                        * other means, which is noticed when a new block comes there, whose count begins anew */
	uint64_t late_writes;  /* blocks that were written to after their end (option checked) */
	uint64_t quarantined;  /* blocks held back now, */
	uint64_t quarantined_bytes; /* and their bytes in memory */
	uint64_t closed;       /* those of them whose pages are inaccessible, */
	uint64_t closed_bytes; /* and the addresses of these pages */
} quarry_block_figures;

/** @param figures receives them. @param size sizeof(*figures): so much of it is filled.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_block_figures_get(quarry_block_figures *figures, size_t size);

enum quarry_check_flags {
	QUARRY_CHECK_RELEASE = 1 /* free what is held back, as well */
};

/** Look for late writes in what is held back. With the option checked=1 the memory of a block is held back after its last
 * reference, and so is the place that a resize moved it from. It is filled with 0xDE: up to 1,024 blocks, of 16 MiB
 * together, which are about the last ones (a place that another thread is just at is passed by, and what makes too many bytes
 * fewer goes out of turn). What is written there late is noticed when it goes, or when this is called; it counts in
 * quarry_stats.bad_frees, and the option on_error says what happens besides. Every 64th block has whole pages of its own
 * while it lives, and these are made inaccessible when it ends (mprotect(2)): whoever reads or writes there late has a
 * SIGSEGV at once. So has who does it in a block of more than 4 MiB, of which the addresses alone are held, up to 1 GiB
 * together, and the memory goes back. Of both kinds together up to 128 are held, about the last ones as well. A system
 * call that is given such an address fails (EFAULT), or does less than was asked, and nothing counts that: look at what it
 * returns. Of the blocks that live with pages of their own 256 are known at a time; where there are more, a new one is known
 * in place of an older one, which is filled at its end as others are.
 *
 * Where memory does not go back in parts (see quarry_discard; return=0) or cannot be made inaccessible, the first 4 MiB are
 * filled instead; nothing of more than 1 GiB, or of more than 16 MiB that does not go back, is held. What mprotect(2) does not
 * make accessible again (ENOMEM) stays until it does: it is asked again when the block's turn comes, by this call, and with
 * the option at 0 again by every 64th end of a block. Addresses that are held count as in use, against limits too: a
 * block for which there would be no memory otherwise has all of it let go. A resize that moves is by a copy, while there is
 * memory for both. Blocks of arenas, stacks and the program's own managers, whose memory may end with these at any moment,
 * are filled (up to 4 MiB), but not held back, and what stacks and such managers resize is neither; an arena's end or reset
 * waits for who is at that. When the option is set to 0, all goes, and is looked at as it goes. The child of a fork
 * holds what its parent does, and nothing with the option at 0; what was closed is not looked at there.
 * @param flags enum quarry_check_flags.
 * @return how many were found to be written to; -1 with EINVAL (flags). */
QUARRY_API long quarry_block_check(unsigned flags);

/** What QUARRY_AUTO and its like have called where a scope ends, for nobody else to call. */
static inline void quarry_auto_quarry_block(quarry_block *b)
{
	(void)quarry_block_unref(b);
}

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif

#endif
