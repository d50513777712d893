/* SPDX-License-Identifier: MIT */
/**
 * quarry/pages.h: pages of one size, in runs, from an arena, with numbers for them.
 *
 * A page allocator has so many pages of one size, side by side, and hands out runs of them: 1 to thousands. Any thread
 * may call anything at any time, but for quarry_pages_destroy: there is no lock. Who finds no room waits for what is
 * under way, as quarry_pages_alloc says, and has calls that begin then wait, for 0.1 s at most; quarry_pages_purge waits
 * for others who give memory back. None of it is for signal handlers: one that comes in the middle of a call would count
 * on what the call is about to count, and the count that is lost so is lost for good. Memory is zero and comes in as it is touched (what an arena had
 * in use before goes back to the kernel first; where it does not go in parts, hugetlb, locked or strict, all is
 * cleared and so brought in by quarry_pages_create), and 8.3 bytes for each page that has been used are kept
 * elsewhere, zeroed by the kernel and so there only for those that were. Runs have addresses, and ids of 32 or 64
 * bits, which are found from each other by a shift: for tables and files in which a pointer has no room. A 64-bit id
 * has a generation too: when its run has been freed, it is ESTALE for ever, whoever has the pages now. Generations
 * never begin anew: a page that has used up its own is retired (quarry_pages_attr.generation_bits).
 *
 * An id does not say of which allocator it is: to another one, also a later one at the same address, it is an id of its own
 * pages, and may well name a run there.
 *
 * AddressSanitizer and Valgrind do not know which pages are free: to them all are the program's.
 *
 * In a forked child all is as it was in the parent, in the child's copy of the memory, and usable at once. Runs that
 * other threads of the parent were just getting, freeing or purging may be in neither state there: those pages are
 * lost to the child, until it destroys the allocator (quarry_pages_stats.lost). That is known of fork(2), and not of
 * clone(2) or _Fork(3), after which the figures of a child with such runs are never coherent. (Memory with
 * descriptors, QUARRY_ARENA_FD, is in a child as quarry_fd_of says.)
 */
#ifndef QUARRY_PAGES_H
#define QUARRY_PAGES_H

#include "quarry.h"

#ifdef __cplusplus
extern "C" {
#ifdef __clang__ /* casts and NULL are C's here; g++ knows that by itself */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wzero-as-null-pointer-constant"
#endif
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Page allocators                                                                                        */

/** Pages of one size, side by side. */
typedef struct quarry_pages quarry_pages;

enum quarry_pages_flags {
	QUARRY_PAGES_POPULATED = 1 /* bring all pages in at once (quarry_populate), rather than as they are touched */
};

/** What a page allocator is to be. Zero-initialise it. */
typedef struct quarry_pages_attr {
	uint32_t struct_size;     /* sizeof(struct quarry_pages_attr), or 0, which means the same */
	uint32_t flags;           /* enum quarry_pages_flags */
	uint64_t page_size;       /* bytes: a power of two from 4 KiB to 2 MiB; 0: 4 KiB */
	uint64_t count;           /* pages, 1 to 2^32 - 1 */
	quarry_arena *arena;      /* where they are allocated, as one block. NULL: see memory */
	const quarry_arena_attr *memory; /* without an arena: one of its own, made so, which gives them nodes, a
	                                  * page kind and a name. NULL: the calling thread's default arena */
	uint32_t generation_bits; /* 1 to 28, or 0: 28. A page that began runs 2^bits - 1 times is retired when the last
	                           * of them is freed: for tests of what becomes of it */
	uint32_t reserved;        /* 0 */
} quarry_pages_attr;

/** Make a page allocator.
 * @param attr what it is to be.
 * @return the allocator; NULL with EINVAL (a bad field; quarry_error_text() names it), ENOMEM (of memory, or of address
 *         space: as vm.overcommit_memory is by default, more in one piece than the machine's memory and swap), or what
 *         quarry_arena_create says. Example:
 * @code
 *   quarry_arena_attr memory = { .page_kind = QUARRY_PAGES_THP, .name = "b-tree" };
 *   quarry_pages_attr attr = { .page_size = 16384, .count = 100000, .memory = &memory };
 *   quarry_pages *pages = quarry_pages_create(&attr);
 *   void *node = quarry_pages_alloc(pages, 1);
 *   quarry_page_id id;
 *   if (quarry_pages_to_id(pages, node, &id) == 0)
 *           parent->child = id;
 * @endcode */
QUARRY_API quarry_pages *quarry_pages_create(const quarry_pages_attr *attr);

/** Give all pages back, allocated or not, and end the allocator. No other thread may be using it, and no call comes
 * after it. Nothing else ends one: quarry_free refuses the pages, but cannot know the allocator itself. Until then the arena that it was made in is neither destroyed nor reset (EBUSY).
 * @return 0; -1 with EINVAL when it is none; EBUSY when it made its own arena and that is some thread's default. */
QUARRY_API int quarry_pages_destroy(quarry_pages *pages);

/** The arena that the pages are in: for its statistics and limits, or to look where they are. NULL with EINVAL. */
QUARRY_API quarry_arena *quarry_pages_arena(quarry_pages *pages);

/* ------------------------------------------------------------------------------------------------------ */
/* Runs of pages                                                                                          */

/** Allocate n pages that lie side by side. Lock-free where there is room; a thread begins to look at the first page that
 * it knows to be free, threads in different places. Contents are what the last owner left; zero where nobody had the
 * pages yet, or quarry_pages_purge gave them back.
 * @param n pages. @return the first page; NULL with EINVAL (n is 0, or no allocator), ENOMEM: nowhere n together are
 *         free. That is the truth and no accident of timing: it is known by a look at each page's bit while nobody does
 *         anything. Where others come and go, that takes 4 looks for a million pages and up to 64 for fewer, and for
 *         the last one calls of others that are just beginning wait (for at most 0.1 s: one that has waited so long goes
 *         on, and lets all others) and those under way end. Those who look so do it one after the other. EAGAIN where
 *         something does not end for a second, so that it cannot be known: quarry_pages_purge in slow memory, or a thread
 *         that is stopped in the middle of a call. */
QUARRY_API void *quarry_pages_alloc(quarry_pages *pages, uint64_t n);

/** The same, at a multiple of alignment.
 * @param n pages.
 * @param alignment bytes, a power of two up to 2 MiB, else EINVAL. */
QUARRY_API void *quarry_pages_alloc_aligned(quarry_pages *pages, uint64_t n, size_t alignment);

/** Allocate exactly the n pages that begin at address, for instance as a file says that they were.
 * @param address of a page, as quarry_pages_at gives it.
 * @param n pages.
 * @return address; NULL with EINVAL (no page begins there, or n is 0 or goes beyond the last), EBUSY (they are not
 *         all free at this moment: what another call has in hand, and gives back, is not). */
QUARRY_API void *quarry_pages_alloc_at(quarry_pages *pages, void *address, uint64_t n);

/** Free a run, from any thread. Its pages stay in memory until quarry_pages_purge.
 * @param p its first page; NULL is ignored.
 * @return 0; -1 with EINVAL, and nothing is changed, when no run begins there: freed already, inside a run, or none of
 *         these pages (quarry_error_text() says which). Of several who free the same run at once, one gets 0. */
QUARRY_API int quarry_pages_free(quarry_pages *pages, void *p);

/** How many pages the run at p has. @return 0 with EINVAL when none begins there. */
QUARRY_API uint64_t quarry_pages_length(quarry_pages *pages, const void *p);

/** Grow or shrink a run where it is. What is cut off is free; what is added has any contents. An id names a length too:
 * one of before is ESTALE as long as the run has another.
 * @param p its first page.
 * @param n pages, at least 1.
 * @return 0; -1 with EINVAL (no run begins there, or n is 0), ENOMEM (the pages behind it are not free at this moment,
 *         as for quarry_pages_alloc_at, or not there); the run is as it was. */
QUARRY_API int quarry_pages_resize(quarry_pages *pages, void *p, uint64_t n);

/** Make two runs of one: the first keeps n pages, the rest is a run of its own, to be freed by itself. Contents stay;
 * an id of before is ESTALE.
 * @param p its first page.
 * @param n pages of the first part: at least 1, and less than the run has.
 * @return the second run; NULL with EINVAL. */
QUARRY_API void *quarry_pages_split(quarry_pages *pages, void *p, uint64_t n);

/* ------------------------------------------------------------------------------------------------------ */
/* Numbers for runs                                                                                       */

#define QUARRY_PAGE_ID_INDEX_BITS 20   /* of the 32 bits of an id: the first page's index, and the run's length above */
#define QUARRY_PAGE_ID64_INDEX_BITS 24 /* of 64 bits: the index, the length above it, and the generation on top */
#define QUARRY_PAGE_ID_LENGTH_BITS 12  /* of both: 4,095 pages */

/** A run as a number of 32 bits: index and length (the encoding of Tomate's block ids, with other widths). Up to
 * 1,048,576 pages (4 GiB of 4 KiB, 2 TiB of 2 MiB) and runs up to 4,095. 0 is never one. */
typedef uint32_t quarry_page_id;

static inline quarry_page_id quarry_page_id_make(uint64_t index, uint64_t length)
{
	if (index >> QUARRY_PAGE_ID_INDEX_BITS || length >> QUARRY_PAGE_ID_LENGTH_BITS)
		return 0;
	return (quarry_page_id)(length << QUARRY_PAGE_ID_INDEX_BITS | index);
}

static inline uint64_t quarry_page_id_index(quarry_page_id id)
{
	return id & (((quarry_page_id)1 << QUARRY_PAGE_ID_INDEX_BITS) - 1);
}

static inline uint64_t quarry_page_id_length(quarry_page_id id)
{
	return id >> QUARRY_PAGE_ID_INDEX_BITS;
}

/** A run as a number of 64 bits: index, length and generation. Up to 16,777,216 pages (64 GiB of 4 KiB, 32 TiB of
 * 2 MiB) and runs up to 4,095. 0 is never one. */
typedef uint64_t quarry_page_id64;

static inline quarry_page_id64 quarry_page_id64_make(uint64_t index, uint64_t length, uint64_t generation)
{
	const int above = QUARRY_PAGE_ID64_INDEX_BITS + QUARRY_PAGE_ID_LENGTH_BITS;

	if (index >> QUARRY_PAGE_ID64_INDEX_BITS || length >> QUARRY_PAGE_ID_LENGTH_BITS || generation >> (64 - above))
		return 0;
	return generation << above | length << QUARRY_PAGE_ID64_INDEX_BITS | index;
}

static inline uint64_t quarry_page_id64_index(quarry_page_id64 id)
{
	return id & (((quarry_page_id64)1 << QUARRY_PAGE_ID64_INDEX_BITS) - 1);
}

static inline uint64_t quarry_page_id64_length(quarry_page_id64 id)
{
	return id >> QUARRY_PAGE_ID64_INDEX_BITS & ((1u << QUARRY_PAGE_ID_LENGTH_BITS) - 1);
}

static inline uint64_t quarry_page_id64_generation(quarry_page_id64 id)
{
	return id >> (QUARRY_PAGE_ID64_INDEX_BITS + QUARRY_PAGE_ID_LENGTH_BITS);
}

/** What stands at the beginning of every page allocator, for the inline functions here: read it, never write it.
 *
 * quarry_pages_at is the address of the page with an index, quarry_pages_index the index of the page that an address is
 * in (2^32 or more, or what is not below count, for an address that is in none): arithmetic alone, which checks
 * nothing. */
typedef struct quarry_pages_map {
	void *base;
	uint64_t count;      /* pages */
	uint32_t page_shift; /* log2 of a page's bytes */
	uint32_t reserved;
} quarry_pages_map;

static inline void *quarry_pages_at(const quarry_pages *pages, uint64_t index)
{
	const quarry_pages_map *map = (const quarry_pages_map *)(const void *)pages;

	return (char *)map->base + (index << map->page_shift);
}

static inline uint64_t quarry_pages_index(const quarry_pages *pages, const void *p)
{
	const quarry_pages_map *map = (const quarry_pages_map *)(const void *)pages;

	return ((uintptr_t)p - (uintptr_t)map->base) >> map->page_shift;
}

/** The 32-bit id of the run that begins at p.
 * @param id receives it. @return 0; -1 with EINVAL (no run begins there, or id is NULL), EOVERFLOW (its index or length
 *         has no room in 32 bits). */
QUARRY_API int quarry_pages_to_id(quarry_pages *pages, const void *p, quarry_page_id *id);

/** The 64-bit id of the run that begins at p. Errors as quarry_pages_to_id. */
QUARRY_API int quarry_pages_to_id64(quarry_pages *pages, const void *p, quarry_page_id64 *id);

/** The run that an id names: its address and length, looked up in one load.
 * @param bytes receives how long it is, when not NULL.
 * @return its first page; NULL with EINVAL (never an id of these pages), ESTALE (no run of that length begins there
 *         now). An id of 32 bits cannot know whether it is still the same run that does. */
QUARRY_API void *quarry_pages_from_id(quarry_pages *pages, quarry_page_id id, size_t *bytes);

/** The same by a 64-bit id: ESTALE as soon as its run is freed, and for ever; and while the run has another length.
 * @param bytes receives how long the run is, when not NULL.
 * @return its first page; NULL with EINVAL or ESTALE. The run stays there as long as nobody frees it: an answer says
 *         nothing of what other threads do next. */
QUARRY_API void *quarry_pages_resolve(quarry_pages *pages, quarry_page_id64 id, size_t *bytes);

/** Free the run that an id names. @return 0; -1 with EINVAL or ESTALE as for quarry_pages_from_id. */
QUARRY_API int quarry_pages_free_id(quarry_pages *pages, quarry_page_id id);

/** Free the run that a 64-bit id names, and never another that came after it, whatever other threads do meanwhile.
 * @return 0; -1 with EINVAL or ESTALE as for quarry_pages_resolve. */
QUARRY_API int quarry_pages_free_id64(quarry_pages *pages, quarry_page_id64 id);

/* ------------------------------------------------------------------------------------------------------ */
/* What there is of pages                                                                                 */

/** An allocated run, as quarry_pages_walk tells of it. */
typedef struct quarry_run {
	void *address;
	uint64_t index;      /* of its first page */
	uint64_t length;     /* pages */
	uint64_t generation; /* as in a 64-bit id */
} quarry_run;

/** Tell of each allocated run, from low addresses to high. Others may go on meanwhile: a run that is there from before
 * to after is told of once, as it is then; one that comes or goes meanwhile may be.
 * @param fn returns 0 to go on; anything else ends the walk. It may call any function here.
 * @param ctx is handed to fn.
 * @return 0, or what fn returned; -1 with EINVAL. */
QUARRY_API int quarry_pages_walk(quarry_pages *pages, int (*fn)(const quarry_run *run, void *ctx), void *ctx);

/** Have quarry_pages_purge take huge pages apart. */
#define QUARRY_PAGES_PURGE_PARTS 1

/** Give free pages back to the kernel that were used, or populated, since they last went (madvise(2), MADV_DONTNEED;
 * of memory files, MADV_REMOVE): they read as zero when they are allocated again. Of memory that may be in huge pages,
 * whole ones go, and parts of others stay, unless flags has QUARRY_PAGES_PURGE_PARTS, or parts are all that there is: no
 * huge page is free from end to end, and nothing else went. Others may go on; what is in hand for the moment, 4,096 pages
 * at most, cannot be allocated meanwhile. Memory that does not go in parts (hugetlb, locked, strict arenas) stays, and so
 * do the contents.
 * @param flags QUARRY_PAGES_PURGE_PARTS or 0.
 * @return bytes that went. 0 with EINVAL when it is no allocator, or flags has other bits. */
QUARRY_API size_t quarry_pages_purge(quarry_pages *pages, unsigned flags);

/** Figures of a page allocator. Pages unless said otherwise. */
typedef struct quarry_pages_stats {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t coherent;    /* 1: the figures are of one moment, and so committed = allocated + free; 0: others
	                       * changed something at every look of several */
	uint64_t epoch;       /* as quarry_pages_epoch */
	uint64_t page_size;   /* bytes */
	uint64_t count;       /* all there are */
	uint64_t committed;   /* all that can be used: those neither retired nor lost */
	uint64_t retired;     /* their generations are used up */
	uint64_t lost;        /* in a forked child: other threads of its parent were just getting or freeing them */
	uint64_t allocated;   /* in runs: counted by these */
	uint64_t free;        /* counted by the bitmap */
	uint64_t runs;        /* allocated runs, count */
	uint64_t largest;     /* the longest run that could be allocated */
	uint64_t dirty;       /* of free: used or populated since they last went back, and so maybe in memory */
	uint64_t metadata;    /* bytes of address space for the allocator's own; what was never needed of it is in no
	                       * memory */
	uint64_t failed;      /* calls that found no room, count */
	uint64_t purged;      /* bytes that went back to the kernel, all together */
} quarry_pages_stats;

/** Count what there is. It stops nobody and looks at every page's state: some milliseconds for a million.
 * @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_pages_stats_get(quarry_pages *pages, quarry_pages_stats *stats);

/** A number that is another after every change: who reads the same before and after a look at runs knows that nothing
 * was allocated, freed, resized, split or purged between (nor tried in vain), nor was in the midst of it, so that what
 * was learnt of them is of one moment. While a call of another thread is under way, each answer is one that never
 * comes again. 128 loads and more.
 * @return it; 0 with EINVAL when it is no allocator. Example:
 * @code
 *   uint64_t epoch = quarry_pages_epoch(pages);
 *   char *node = quarry_pages_resolve(pages, left, NULL), *other = quarry_pages_resolve(pages, right, NULL);
 *   if (quarry_pages_epoch(pages) == epoch)
 *           ;  // both were there at once, or at once not
 * @endcode */
QUARRY_API uint64_t quarry_pages_epoch(quarry_pages *pages);

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif

#endif
