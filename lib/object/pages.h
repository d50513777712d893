/* SPDX-License-Identifier: MIT */
/* The page allocator's state, and its bitmaps. Lock-free, but for the last look of who finds no room.
 *
 * A page is in one of four states, told by two arrays: `used`, a bit each, and `runs`, a word each.
 *
 *	free        used 0, runs (generation, 0)
 *	head        used 1, runs (generation, length): the first of an allocated run
 *	inside      used 1, runs (generation, 0): all others of it
 *	retired     used 1, runs QY_RUN_RETIRED: its generations are exhausted, nobody ever gets it again
 *
 * Who sets a bit of `used` from 0 to 1 owns the page until the bit is 0 again: by it pages are taken and given back,
 * and their contents handed from thread to thread. The word of a run's head is what makes it one: freeing, splitting
 * and resizing are one compare-and-swap of that word from exactly (generation, length), so that of several who free the
 * same run one wins and the others know. Freeing makes the word (generation + 1, 0) first and gives the bits back
 * after, so a page with a free bit never has a live head.
 *
 * In between, for a moment, a page has its bit and is in no run. Each operation counts itself in its stripe when it
 * begins and when it is over; who reads that all that had begun was over, before and after, saw no such moment.
 *
 * Above `used` are two levels of summary, a bit for each 64: "full". A bit that says full wrongly would hide pages, so
 * who fills a word sets it and looks again, and clears it when there is room after all; who makes room in a full word
 * clears it after. A bit that says "room" wrongly costs a look, and who comes upon it mends it. (The multi-level bitmap
 * is the idea of Tomate's page allocator, which has four levels and runs up to 64.)
 *
 * `none` says for each group of 4,096 pages which run is known not to begin there: hints alone. A search that fails by
 * hints looks at all of `used` before it says so, so that a wrong one costs time and never memory.
 *
 * While operations are under way, pages may be in hand that come back at once: others give up a run that they did not get
 * whole, or free one, or purge. A look at all of `used` that finds no room proves that there is none only if it saw no
 * such moment. Who has looked in vain often enough asks for quiet: others who come to begin something wait for the end
 * of one look then, and what is under way ends. That is courtesy alone: nobody waits for longer than 100 ms, and who has
 * takes it from the one who asked, so that nobody else waits for him (he may be stopped, for any time), who asks again.
 * What the look found is held against the counts as ever.
 *
 * Runs that cross words are claimed a word after the other, from low addresses to high, and given back when a later one
 * is taken. Of those who stand in each other's way the one whose obstacle lies highest gets on, so the whole does. */
#ifndef QUARRY_OBJECT_PAGES_H
#define QUARRY_OBJECT_PAGES_H

#include "include/quarry/pages.h"
#include "lib/base/base.h"

#define QY_PAGES_MAGIC 0x73656761u
#define QY_PAGES_STRIPES 64
#define QY_PAGES_OWNED 32 /* stripes of one thread each */
#define QY_PAGES_GROUP_SHIFT 12 /* pages of one word of `full` */
#define QY_RUN_RETIRED ((uint64_t)UINT32_MAX << 32)
#define QY_NO_PAGE UINT64_MAX

typedef _Atomic(uint64_t) qy_bits;

/* What a thread writes beside the bitmaps. Up to 32 threads at a time have one each, which nobody else writes to
 * while they live; all others share the rest. */
struct qy_pages_stripe {
	_Alignas(QY_CACHE_LINE) qy_counter begun; /* operations */
	qy_counter ended;
	_Atomic(uint32_t) forks; /* how many this process had behind it when the stripe was last used. Where that is not
				  * the present number, what began here and did not end was cut off by one: as good
				  * as over */
	uint64_t home; /* the word at which the thread's searches begin at first. From there on round to it again, */
	_Atomic(uint64_t) hint;     /* the first that may have a free page, as far as the thread knows, */
	_Atomic(uint64_t) run_hint; /* and runs of several */
};

struct quarry_pages {
	struct quarry_pages_map map; /* first: the header's inline functions read it */
	uint32_t magic;
	_Atomic(uint32_t) quiet;  /* 0; or somebody looks for the last time: the process's number << 16 | one of `askers`.
				   * Of another process it was the parent's, and means nothing */
	uint32_t patience_ms;     /* for which he waits for what is under way */
	uint32_t last_generation; /* that a word may have; ids have one more, so that none is 0 */
	uint64_t words, groups, tops; /* of used, of full, of full_groups */
	qy_bits *used, *full, *full_groups;
	qy_bits *dirty; /* handed out, populated or cleared since it last went back to the kernel: may be in memory */
	_Atomic(uint64_t) *runs;
	_Atomic(uint32_t) *none; /* by group; 0: nothing is known */
	quarry_arena *arena; /* that the pages are in */
	quarry_arena *own;   /* that was made for them, which the breaker may have sent them past; NULL: none was */
	void *memory; /* what this record lies in, as it was allocated */
	_Alignas(QY_CACHE_LINE) _Atomic(uint64_t) retired; /* pages */
	_Atomic(uint64_t) purged; /* bytes */
	_Atomic(uint64_t) failed; /* allocations */
	_Atomic(uint64_t) looks;  /* at each word, for runs that were not found by hints */
	_Atomic(uint32_t) askers; /* for quiet, ever */
	_Atomic(uint64_t) unsettled; /* epochs that were asked for while something was under way */
	_Atomic(bool) cut;        /* a fork cut operations off: pages may be in no state for ever */
	struct qy_pages_stripe stripe[QY_PAGES_STRIPES];
};

QY_INLINE uint64_t qy_run_word(uint64_t generation, uint64_t length)
{
	return generation << 32 | length;
}

QY_INLINE uint32_t qy_run_length(uint64_t word)
{
	return (uint32_t)word;
}

QY_INLINE uint32_t qy_run_generation(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

QY_INLINE void *qy_pages_address(const quarry_pages *p, uint64_t index)
{
	return (char *)p->map.base + (index << p->map.page_shift);
}

/* Whether it is one; sets the error when not. */
bool qy_pages_check(const quarry_pages *p);

/* The index of the page that begins at the address; QY_NO_PAGE, and the error is set, when none does. */
uint64_t qy_pages_find(const quarry_pages *p, const void *address);

/* ---- pages_count.c ---- */

/* The calling thread's stripe, its operation begun; and over. What an operation changes is written with release after
 * it is counted as begun: who sees any of it sees that count. Who sees it ended sees all of it. */
struct qy_pages_stripe *qy_pages_begin(quarry_pages *p);
QY_INLINE void qy_pages_end(quarry_pages *p, struct qy_pages_stripe *stripe)
{
	if (QY_LIKELY(stripe < &p->stripe[QY_PAGES_OWNED]))
		atomic_store_explicit(&stripe->ended, qy_read(&stripe->ended) + 1, memory_order_release);
	else
		atomic_fetch_add_explicit(&stripe->ended, 1, memory_order_release);
}

/* Have others wait until qy_pages_loud, from their next operation on; the caller's own goes on. Returns what is said to
 * loud, and is in p->quiet until then, or until somebody has waited long enough; 0: one other had it so for all of the
 * patience. */
uint32_t qy_pages_quiet(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t patience_ns);
void qy_pages_loud(quarry_pages *p, uint32_t who);

/* Before anything else: what is to be done once. */
void qy_pages_prepare(void);

/* Whether operations of other threads were cut off by the fork that made this process, or one before: their pages may
 * be used and in no run for ever. */
bool qy_pages_cut(quarry_pages *p);

/* Operations that ended until now, and after that those that have begun. */
uint64_t qy_pages_ended(quarry_pages *p);
uint64_t qy_pages_begun(quarry_pages *p);

/* ---- pages_bits.c ---- */

/* The mask of n bits (1 to 64) from a bit on. */
QY_INLINE uint64_t qy_mask(uint64_t from, uint64_t n)
{
	return (~(uint64_t)0 >> (64 - n)) << from;
}

/* Take n free pages that begin at a multiple of align (a power of two), or return QY_NO_PAGE, with errno: ENOMEM where
 * that is the truth, EAGAIN where something under way did not end for so long that it cannot be known. */
uint64_t qy_pages_take(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t n, uint64_t align);

/* A run of n pages was given back by the thread: its next searches begin there, if that comes first from its home on.
 * So what a thread has stays together, in as few pages as can be, and those of others are elsewhere. */
void qy_pages_hint(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t index, uint64_t n);

/* Take exactly these; all or nothing. */
bool qy_pages_claim(quarry_pages *p, uint64_t first, uint64_t n);

bool qy_pages_claim_word(quarry_pages *p, uint64_t word, uint64_t mask);

/* Give pages back that the caller owns. */
void qy_pages_release(quarry_pages *p, uint64_t first, uint64_t n);
void qy_pages_release_word(quarry_pages *p, uint64_t word, uint64_t mask);

/* Words of these were given to the program: they may be in memory from now on. */
void qy_pages_soil(quarry_pages *p, uint64_t first, uint64_t n);

/* ---- pages.c ---- */

/* Free the run whose head's word is exactly that. False: it is no longer. */
bool qy_pages_free_run(quarry_pages *p, uint64_t index, uint64_t word);

#endif
