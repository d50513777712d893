/* SPDX-License-Identifier: MIT */
/* The counts of blocks, beside the memory that they are of.
 *
 * A word of 64 bits for each block:   generation 31 | live 1 | noted 1 | count 19 | grain, or notes 12
 * The grain is where in its unit (64 KiB of address space) the block begins, in 16 bytes: so an address inside a block,
 * or at another, is told from its beginning. The generation rises with each end of a block at this word.
 *
 * While somebody has noted that he uses the block (quarry_block_borrow), noted is set and the last field is how many notes
 * there are, from 1: so that a compare-and-swap of the word that ends the block is one that knows of no note. Where the
 * block begins then stands beside the leaf, with the generation, which only rises there: written before the first note of a
 * life is, and so whoever sees a noted word and another generation there has seen a life that is over.
 *
 * From an address to its word: a table of zones (1 GiB), one of units in each, and there an array of words, a leaf, whose
 * index is the address shifted. The shift is the logarithm of what is usable in the unit's blocks: two that have at least
 * 2^k bytes each begin at least 2^k apart, and never share a word, wherever the slab begins and whatever its class is.
 * (So nothing needs to be known of slabs; cf. client metadata beside the slab's in snmalloc 0.7.) A unit whose slab
 * becomes one of smaller objects gets one more leaf in front of the old: all leaves stay for good, since late references
 * look into them. At most 64 KiB of leaves come to be per unit.
 *
 * Blocks that quarry_free does not free have leaves of their own, all managers the same ones, in which each word has its
 * block's manager beside it: managers come and go, and leave nothing behind but the words that the next one's blocks use
 * again. That is 128 KiB more per unit, at most, unless such managers stand in each other's blocks: a block of more than half
 * of what another one has, which is within it, would have that one's word, and has one in a leaf more. (So has a block where
 * another manager's was that was never let go; with all beginnings that there can be these are 832 KiB.) A manager is written
 * beside a word that is dead, and read before a compare-and-swap that ends the life in which it was read; so who is late
 * reads one that may be gone, and uses none.
 *
 * No lock, but that of quarry's own memory where an array is made. Counts go up by fetch_add and are looked at afterwards: a load before it would cost as much again. Whoever counted
 * up at the wrong block (dead, or another since) takes that back. Who takes back the last one ends that block; until the
 * end is marked, by a compare-and-swap of a live 0, whoever counts up keeps it, as in the sticky counter of Anderson, Blelloch
 * and Wei ("Turning manual concurrent memory reclamation into automatic reference counting", PLDI 2022). And what is born at
 * a dead word is born by addition, and keeps what others have to take back. Counts go down by compare-and-swap of a word that is
 * known to be of the block. (Where somebody is just looking at the wrong block, its last reference may go as if it was not the
 * last, notes or not. Who takes back what he counted finds that it was; but what is noted then lives until its last note goes.)
 *
 * The child of a fork finds everything in order: there is nothing in two steps but what is to be taken back, by a thread
 * that is not there, which leaks that one block there. */
#ifndef QUARRY_OBJECT_COUNT_H
#define QUARRY_OBJECT_COUNT_H

#include "include/quarry/block.h"
#include "lib/base/base.h"
#include "lib/base/settings.h"
#include "lib/cache/taken.h"

#define QY_COUNT_GRAIN_SHIFT 4
#define QY_COUNT_GRAIN_MASK ((uint64_t)0xfff)
#define QY_COUNT_ONE ((uint64_t)1 << 12)
#define QY_COUNT_MASK ((uint64_t)0x7ffff << 12)
#define QY_COUNT_NOTED ((uint64_t)1 << 31)
#define QY_COUNT_LIVE ((uint64_t)1 << 32)
#define QY_COUNT_GENERATION_SHIFT 33
#define QY_COUNT_GENERATION_LAST (UINT32_MAX >> 1) /* no block has it: there are as many lives at an address, less one */
#define QY_COUNT_NOTES_MAX QY_COUNT_GRAIN_MASK
#define QY_COUNT_UNIT_SHIFT 16
#define QY_COUNT_ZONE_SHIFT 30
/* What user space has: 47 bits on x86-64, 48 on aarch64. More is there only for who asks for such an address (five levels
 * of pages, 52 bits), and is refused. */
#define QY_COUNT_ADDRESS_SHIFT 48
#define QY_COUNT_UNITS (1u << (QY_COUNT_ZONE_SHIFT - QY_COUNT_UNIT_SHIFT))

struct quarry_count {
	_Atomic(uint64_t) word;
};

/* The words of one unit's blocks that have 2^shift bytes, or up to twice as many. Its address is aligned to 16; where it
 * is entered, the low bits are shift - 4. */
struct qy_leaf {
	uintptr_t next;                         /* entered as in the table; constant */
	uintptr_t unit;                         /* address */
	_Atomic(const quarry_manager *) *managers; /* of the blocks, an array as long; NULL: quarry_free frees them all */
	_Atomic(void *) noted;                  /* where noted blocks begin: an array as long of generation 31 | grain 12;
	                                         * NULL until there is one */
	_Atomic(void *) ends;                   /* functions to call at the end (ends.h); the same */
	struct quarry_count at[];
};

typedef _Atomic(uintptr_t) qy_leaves[QY_COUNT_UNITS];
extern QY_HIDDEN _Atomic(uintptr_t) qy_count_zones[(size_t)1 << (QY_COUNT_ADDRESS_SHIFT - QY_COUNT_ZONE_SHIFT)];

QY_INLINE uint64_t qy_count_grain(const void *p)
{
	return (uintptr_t)p >> QY_COUNT_GRAIN_SHIFT & QY_COUNT_GRAIN_MASK;
}

QY_INLINE uint64_t qy_count_refs(uint64_t word)
{
	return (word & QY_COUNT_MASK) / QY_COUNT_ONE;
}

QY_INLINE uint32_t qy_count_generation(uint64_t word)
{
	return (uint32_t)(word >> QY_COUNT_GENERATION_SHIFT);
}

QY_INLINE struct qy_leaf *qy_leaf_at(uintptr_t entry)
{
	return (struct qy_leaf *)(entry & ~(uintptr_t)15);
}

QY_INLINE unsigned qy_leaf_shift(uintptr_t entry)
{
	return 4 + (unsigned)(entry & 15);
}

QY_INLINE struct quarry_count *qy_leaf_word(uintptr_t entry, const void *p)
{
	return &qy_leaf_at(entry)->at[((uintptr_t)p & (((uintptr_t)1 << QY_COUNT_UNIT_SHIFT) - 1)) >> qy_leaf_shift(entry)];
}

/* What is entered for the unit of p; 0 for none. */
QY_INLINE uintptr_t qy_count_entry(const void *p)
{
	uintptr_t address = (uintptr_t)p;
	qy_leaves *units;

	if (QY_UNLIKELY(address >> QY_COUNT_ADDRESS_SHIFT != 0))
		return 0;
	units = (qy_leaves *)atomic_load_explicit(&qy_count_zones[address >> QY_COUNT_ZONE_SHIFT], memory_order_acquire);
	if (QY_UNLIKELY(units == NULL))
		return 0;
	return atomic_load_explicit(&(*units)[address >> QY_COUNT_UNIT_SHIFT & (QY_COUNT_UNITS - 1)],
				    memory_order_acquire);
}

/* The word of the block that begins at p, its leaf, and what the word was, which is of the block at p, alive or gone: a live
 * one before one that is gone; NULL where there never was one. */
struct quarry_count *qy_count_find(const void *p, struct qy_leaf **leaf, uint64_t *word);

/* Whether the word, as it was seen, is of a live block at p. */
bool qy_count_is_at(struct quarry_count *c, const void *p, uint64_t seen);

/* The manager of the block at the word, as it was when the word was read; NULL: quarry_free frees it. */
QY_INLINE const quarry_manager *qy_count_manager(const struct qy_leaf *leaf, const struct quarry_count *c)
{
	return leaf->managers == NULL ? NULL
				      : atomic_load_explicit(&leaf->managers[c - leaf->at], memory_order_relaxed);
}

/* Whether a block that quarry_free frees begins at p and lives, or was freed behind its count. (Not those of programs'
 * managers: whoever has such a manager's memory from below may free it with all that was in it.) */
bool qy_count_is_held(const void *p);

/* A block begins at p, with one reference: the word, and its generation in *generation. NULL with ENOMEM or EINVAL
 * (alignment, address), and with ERANGE where this address is used up. What a word says that was not ended is ended. */
struct quarry_count *qy_count_begin(void *p, size_t usable, const quarry_manager *manager, uint32_t *generation);

/* The same of plain memory that others may begin a block at as well: one of them does, for the others EALREADY. */
struct quarry_count *qy_count_begin_once(void *p, size_t usable, uint32_t *generation);

/* End the block of generation if it has exactly one reference, without freeing it. 0, or -1 with EBUSY, ESTALE. */
int qy_count_take(struct quarry_count *c, const void *p, uint32_t generation);

/* The same, and it goes on as the next generation, which *generation becomes. ERANGE where that would be the last. (A function
 * for the end that another thread just set stays.) */
int qy_count_renew(struct quarry_count *c, const void *p, uint32_t *generation);

/* Whether it has neither notes nor a function for its end. */
bool qy_count_is_free(struct quarry_count *c, const void *p);

/* Take that back: it lives on, as if never ended. False where the word is another's by now. */
bool qy_count_put_back(struct quarry_count *c, uint32_t generation);

/* What the thread saw last of a word that it counted at: the next count less is often of the same. */
extern __thread QY_HIDDEN uint64_t qy_count_hint __attribute__((tls_model("initial-exec")));

#define QY_COUNT_NOT_IT (-2)

/* One reference less, where word & mask is want: the whole of it. As quarry_unref, but QY_COUNT_NOT_IT where the word is of
 * something else. */
int qy_count_drop(struct quarry_count *c, const void *p, uint64_t mask, uint64_t want);

/* What it nearly always is: true, and there are others still. Unlike counts up, it never changes a word that is of something
 * else: who lets go of what has ended harms nobody. (While others hold the block, who lets go twice takes one of theirs.) A
 * compare-and-swap that needs no load first costs little more than an addition, so
 * what the word will be is guessed. */
QY_INLINE bool qy_count_drop_fast(struct quarry_count *c, uint64_t mask, uint64_t want)
{
	uint64_t word = qy_count_hint;

	if ((word & mask) != want)
		word = atomic_load_explicit(&c->word, memory_order_relaxed);
	if (QY_UNLIKELY((word & mask) != want || qy_count_refs(word) <= 1) ||
	    QY_UNLIKELY(!atomic_compare_exchange_strong_explicit(&c->word, &word, word - QY_COUNT_ONE,
								 memory_order_acq_rel, memory_order_relaxed)))
		return false;
	qy_count_hint = word - QY_COUNT_ONE;
	return true;
}

/* The same of the block whose generation and live are these: the upper half of the word. */
QY_INLINE bool qy_count_drop_life(struct quarry_count *c, uint64_t life)
{
	uint64_t word = qy_count_hint;

	if (word >> 32 != life)
		word = atomic_load_explicit(&c->word, memory_order_relaxed);
	if (QY_UNLIKELY(word >> 32 != life || qy_count_refs(word) <= 1) ||
	    QY_UNLIKELY(!atomic_compare_exchange_strong_explicit(&c->word, &word, word - QY_COUNT_ONE,
								 memory_order_acq_rel, memory_order_relaxed)))
		return false;
	qy_count_hint = word - QY_COUNT_ONE;
	return true;
}

/* One more was counted, of something else than was meant, at a word that was `seen` before: less again, and ended if it was the
 * last. Nothing, where an overrun has dropped it since. */
void qy_count_undo(struct quarry_count *c, const void *p, uint64_t seen);

/* A note more, or less, of the block of generation: 0; QY_COUNT_NOT_IT where it is gone; -1 with ENOMEM, EOVERFLOW; EINVAL where
 * there is none. Whoever takes back the last note of a block without references ends it. */
int qy_count_note(struct quarry_count *c, const void *p, uint32_t generation);
int qy_count_unnote(struct quarry_count *c, const void *p, uint32_t generation);

/* Have it called at its end; NULL: nothing. 0; -1 with ENOMEM, EINVAL (an address of more than 48 bits). */
int qy_count_set_end_fn(struct quarry_count *c, const void *p, uint32_t generation, quarry_end_fn *fn);

struct qy_count_figures {
	_Atomic(uint64_t) retired, overrun;
};
extern QY_HIDDEN struct qy_count_figures qy_count_figures;

/* Which life of its arena the memory is of, for qy_block_free: read before the end is marked, as the manager is. */
QY_INLINE uint64_t qy_block_life(const quarry_manager *manager, const void *p)
{
	return manager != NULL ? QY_LIFE_NODES : qy_arena_life(p);
}

/* Memory of a block whose last reference went: free; with the option checked it is held back, or filled. */
void qy_block_free(const quarry_manager *manager, void *p, uint64_t life);

#endif
