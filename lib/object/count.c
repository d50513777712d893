/* SPDX-License-Identifier: MIT */
#include "lib/object/count.h"

#include <errno.h>

#include "lib/base/gone.h"
#include "lib/base/tables.h"
#include "lib/object/ends.h"
#include "lib/object/manager.h"
#include "numa/window.h"

#define SHIFT_MIN QY_COUNT_GRAIN_SHIFT
#define SHIFT_MAX QY_COUNT_UNIT_SHIFT

_Atomic(uintptr_t) qy_count_zones[(size_t)1 << (QY_COUNT_ADDRESS_SHIFT - QY_COUNT_ZONE_SHIFT)];
QY_SPARSE_TABLE(qy_count_zones);
struct qy_count_figures qy_count_figures;
__thread uint64_t qy_count_hint __attribute__((tls_model("initial-exec")));

static bool is_live(uint64_t word)
{
	return word & QY_COUNT_LIVE;
}

/* The word is not noted. */
static uint64_t dead_after(uint64_t word)
{
	return (uint64_t)(qy_count_generation(word) + 1) << QY_COUNT_GENERATION_SHIFT | (word & QY_COUNT_GRAIN_MASK);
}

/* ---- where noted blocks begin ---- */

#define NOWHERE UINT64_MAX
#define GRAIN_BITS 12

_Static_assert(QY_COUNT_GRAIN_MASK >> GRAIN_BITS == 0, "beside it stands the generation");

/* The grain of what the word was of; NOWHERE where that life is over. */
static uint64_t grain_of(const struct qy_leaf *leaf, const struct quarry_count *c, uint64_t word)
{
	_Atomic(uint64_t) *noted;
	uint64_t at;

	if (QY_LIKELY(!(word & QY_COUNT_NOTED)))
		return word & QY_COUNT_GRAIN_MASK;
	noted = atomic_load_explicit(&leaf->noted, memory_order_acquire);
	at = atomic_load_explicit(&noted[c - leaf->at], memory_order_relaxed);
	return at >> GRAIN_BITS == qy_count_generation(word) ? at & QY_COUNT_GRAIN_MASK : NOWHERE;
}

/* The word, and the grain of what it is of. (Where the life was over before the second was read, there is another word.) */
static uint64_t look(const struct qy_leaf *leaf, const struct quarry_count *c, uint64_t *grain)
{
	uint64_t word;

	do {
		word = atomic_load_explicit(&c->word, memory_order_acquire);
		*grain = grain_of(leaf, c, word);
	} while (QY_UNLIKELY(*grain == NOWHERE));
	return word;
}

static void keep_grain(_Atomic(uint64_t) *noted, uint64_t word)
{
	uint64_t at = atomic_load_explicit(noted, memory_order_relaxed);
	uint64_t now = (uint64_t)qy_count_generation(word) << GRAIN_BITS | (word & QY_COUNT_GRAIN_MASK);

	while (at >> GRAIN_BITS < qy_count_generation(word) &&
	       !atomic_compare_exchange_weak_explicit(noted, &at, now, memory_order_relaxed, memory_order_relaxed))
		;
}

/* The word without its notes. (Of a life that is over: any, as nobody finds the word so any more.) */
static uint64_t without_notes(const struct qy_leaf *leaf, const struct quarry_count *c, uint64_t word)
{
	return (word & ~(QY_COUNT_NOTED | QY_COUNT_GRAIN_MASK)) | (grain_of(leaf, c, word) & QY_COUNT_GRAIN_MASK);
}

/* ---- the table ---- */

static void end_all(void *p, size_t n);

/* Where the leaf of p's unit is entered. The zone is made where it is not there; what two threads make at once is lost,
 * once. NULL with EINVAL or ENOMEM. */
static _Atomic(uintptr_t) *unit_of(const void *p)
{
	uintptr_t address = (uintptr_t)p, was = 0;
	_Atomic(uintptr_t) *zone;
	qy_leaves *units;

	if (address >> QY_COUNT_ADDRESS_SHIFT != 0) {
		errno = EINVAL;
		return NULL;
	}
	zone = &qy_count_zones[address >> QY_COUNT_ZONE_SHIFT];
	units = (qy_leaves *)atomic_load_explicit(zone, memory_order_acquire);
	if (units == NULL) {
		atomic_store_explicit(&qy_gone, end_all, memory_order_release);
		units = qy_meta_alloc(sizeof(*units), 64);
		if (units == NULL)
			return NULL;
		if (!atomic_compare_exchange_strong_explicit(zone, &was, (uintptr_t)units, memory_order_acq_rel,
							     memory_order_acquire))
			units = (qy_leaves *)was;
	}
	return &(*units)[address >> QY_COUNT_UNIT_SHIFT & (QY_COUNT_UNITS - 1)];
}

static size_t words_of(unsigned shift)
{
	return (size_t)1 << (QY_COUNT_UNIT_SHIFT - shift);
}

/* Where a block begins in p's unit. */
static const void *begins_at(const void *p, uint64_t grain)
{
	return (const void *)(qy_align_down((uintptr_t)p, (uintptr_t)1 << QY_COUNT_UNIT_SHIFT) +
			      (grain << QY_COUNT_GRAIN_SHIFT));
}

/* Whether p's word is of a block that begins elsewhere and is another manager's: one that p is within (count.h). (Where it is
 * the same manager's, that one is no more, and its count was forgotten. All stacks are one manager, and stand in each
 * other's blocks like any two.) */
static bool is_anothers(uintptr_t entry, const void *p, const quarry_manager *manager)
{
	const struct quarry_count *c = qy_leaf_word(entry, p);
	uint64_t word, grain;

	if (manager == NULL)
		return false;
	word = look(qy_leaf_at(entry), c, &grain);
	return is_live(word) && grain != qy_count_grain(p) &&
	       (qy_count_manager(qy_leaf_at(entry), c) != manager ||
		qy_stack_is_outside(manager, p, begins_at(p, grain)));
}

/* The entry in the unit's chain for such a block at p; 0 where there is none. */
static uintptr_t leaf_for(uintptr_t entry, unsigned shift, const void *p, const quarry_manager *manager)
{
	while (entry != 0 &&
	       (qy_leaf_shift(entry) != shift || (qy_leaf_at(entry)->managers == NULL) != (manager == NULL) ||
		is_anothers(entry, p, manager)))
		entry = qy_leaf_at(entry)->next;
	return entry;
}

static uintptr_t add_leaf(_Atomic(uintptr_t) *unit, const void *p, unsigned shift, const quarry_manager *manager)
{
	size_t words = words_of(shift), each = sizeof(struct quarry_count);
	struct qy_leaf *leaf;
	uintptr_t first = atomic_load_explicit(unit, memory_order_acquire), mine;

	if (manager != NULL)
		each += sizeof(leaf->managers[0]);
	leaf = qy_meta_alloc(sizeof(*leaf) + words * each, 16);
	if (leaf == NULL)
		return 0;
	leaf->unit = qy_align_down((uintptr_t)p, (size_t)1 << QY_COUNT_UNIT_SHIFT);
	if (manager != NULL)
		leaf->managers = (void *)&leaf->at[words];
	do {
		mine = leaf_for(first, shift, p, manager);
		if (mine != 0)
			return mine;
		leaf->next = first;
		mine = (uintptr_t)leaf | (shift - SHIFT_MIN);
	} while (!atomic_compare_exchange_weak_explicit(unit, &first, mine, memory_order_acq_rel,
							memory_order_acquire));
	return mine;
}

struct quarry_count *qy_count_find(const void *p, struct qy_leaf **leaf, uint64_t *seen)
{
	struct quarry_count *gone = NULL;

	if ((uintptr_t)p % ((uintptr_t)1 << QY_COUNT_GRAIN_SHIFT) != 0)
		return NULL;
	for (uintptr_t entry = qy_count_entry(p); entry != 0; entry = qy_leaf_at(entry)->next) {
		struct quarry_count *c = qy_leaf_word(entry, p);
		uint64_t grain, word = look(qy_leaf_at(entry), c, &grain);

		if (qy_count_generation(word) == 0 || grain != qy_count_grain(p))
			continue;
		if (!is_live(word) && gone != NULL)
			continue;
		*leaf = qy_leaf_at(entry);
		*seen = word;
		if (is_live(word))
			return c;
		gone = c;
	}
	return gone;
}

bool qy_count_is_held(const void *p)
{
	for (uintptr_t entry = qy_count_entry(p); entry != 0; entry = qy_leaf_at(entry)->next) {
		const struct quarry_count *c = qy_leaf_word(entry, p);
		uint64_t grain, word = look(qy_leaf_at(entry), c, &grain);

		if (qy_leaf_at(entry)->managers == NULL && is_live(word) && grain == qy_count_grain(p))
			return (uintptr_t)p % ((uintptr_t)1 << QY_COUNT_GRAIN_SHIFT) == 0;
	}
	return false;
}

/* The leaf that the word is in, which is of a block at p or was; NULL where it is not. */
static struct qy_leaf *leaf_of(const struct quarry_count *c, const void *p, unsigned *shift)
{
	for (uintptr_t entry = qy_count_entry(p); entry != 0; entry = qy_leaf_at(entry)->next)
		if (qy_leaf_word(entry, p) == c) {
			*shift = qy_leaf_shift(entry);
			return qy_leaf_at(entry);
		}
	return NULL;
}

bool qy_count_is_at(struct quarry_count *c, const void *p, uint64_t seen)
{
	unsigned shift;
	const struct qy_leaf *leaf = leaf_of(c, p, &shift);

	return leaf != NULL && is_live(seen) && grain_of(leaf, c, seen) == qy_count_grain(p);
}

/* ---- beside the words ---- */

/* The array beside a leaf's words; made when create. */
static void *beside(_Atomic(void *) *array, unsigned shift, size_t size, bool create)
{
	void *made = atomic_load_explicit(array, memory_order_acquire), *was = NULL;

	if (made != NULL || !create)
		return made;
	made = qy_meta_alloc(words_of(shift) * size, 16);
	if (made == NULL)
		return NULL;
	return atomic_compare_exchange_strong_explicit(array, &was, made, memory_order_acq_rel, memory_order_acquire) ?
		made : was;
}

int qy_count_set_end_fn(struct quarry_count *c, const void *p, uint32_t generation, quarry_end_fn *fn)
{
	unsigned shift;
	struct qy_leaf *leaf = leaf_of(c, p, &shift);
	_Atomic(uint64_t) *ends = leaf == NULL ? NULL : beside(&leaf->ends, shift, sizeof(*ends), fn != NULL);

	if (!qy_end_fits(fn)) {
		errno = EINVAL;
		return -1;
	}
	if (ends == NULL && fn != NULL) {
		errno = ENOMEM;
		return -1;
	}
	if (ends != NULL && !qy_end_set(&ends[c - leaf->at], generation, fn)) {
		errno = ESTALE;
		return -1;
	}
	return 0;
}

/* NULL while no block there has had a function. */
static _Atomic(uint64_t) *end_of(const struct qy_leaf *leaf, const struct quarry_count *c)
{
	_Atomic(uint64_t) *ends = atomic_load_explicit(&leaf->ends, memory_order_acquire);

	return ends == NULL ? NULL : &ends[c - leaf->at];
}

static bool has_end_fn(const struct qy_leaf *leaf, const struct quarry_count *c, uint32_t generation)
{
	_Atomic(uint64_t) *end = end_of(leaf, c);

	return end != NULL && qy_end_is(atomic_load_explicit(end, memory_order_acquire), generation);
}

/* ---- beginning ---- */

/* A live word of what is no more: it was freed behind its count. Its notes, and what stood beside it, go with it. By two
 * generations: an end that is put back lowers the word by one (qy_count_put_back), and who counted up in between must not find
 * again what he saw. False where the word has changed: to *word. */
static bool end_overrun(struct qy_leaf *leaf, struct quarry_count *c, uint64_t *word)
{
	uint64_t dead = dead_after(without_notes(leaf, c, *word));

	if (qy_count_generation(dead) != QY_COUNT_GENERATION_LAST)
		dead += (uint64_t)1 << QY_COUNT_GENERATION_SHIFT;
	if (!atomic_compare_exchange_strong_explicit(&c->word, word, dead, memory_order_acq_rel, memory_order_acquire))
		return false;
	atomic_fetch_add_explicit(&qy_count_figures.overrun, 1, memory_order_relaxed);
	return true;
}

/* Other leaves may say that a block begins here. */
static void end_others(uintptr_t entry, uintptr_t mine, const void *p)
{
	for (; entry != 0; entry = qy_leaf_at(entry)->next) {
		struct quarry_count *c = qy_leaf_word(entry, p);
		uint64_t grain, word = look(qy_leaf_at(entry), c, &grain);

		/* (Looked at anew where it has changed: it may be of a block elsewhere by then.) */
		while (entry != mine && is_live(word) && grain == qy_count_grain(p) &&
		       !end_overrun(qy_leaf_at(entry), c, &word))
			word = look(qy_leaf_at(entry), c, &grain);
	}
}

static void end_all_in(uintptr_t entry)
{
	for (; entry != 0; entry = qy_leaf_at(entry)->next) {
		struct qy_leaf *leaf = qy_leaf_at(entry);

		for (size_t i = 0; i < words_of(qy_leaf_shift(entry)); i++) {
			uint64_t word = atomic_load_explicit(&leaf->at[i].word, memory_order_acquire);

			while (is_live(word) && !end_overrun(leaf, &leaf->at[i], &word))
				;
		}
	}
}

/* All blocks there are no more (gone.h): no late handle finds one, nor frees what is there next. */
static void end_all(void *p, size_t n)
{
	const uintptr_t unit = (uintptr_t)1 << QY_COUNT_UNIT_SHIFT, zone = (uintptr_t)1 << QY_COUNT_ZONE_SHIFT;
	uintptr_t end = (uintptr_t)p + n;

	for (uintptr_t at = (uintptr_t)p; at < end;) {
		if (atomic_load_explicit(&qy_count_zones[at >> QY_COUNT_ZONE_SHIFT], memory_order_relaxed) == 0) {
			at = qy_align_down(at, zone) + zone;
		} else {
			end_all_in(qy_count_entry((void *)at));
			at += unit;
		}
	}
}

/* What the word becomes, of a dead one: more, by so much. Counts of others, which they are about to take back, stay (count.h). */
static uint64_t birth_of(uint64_t word, const void *p)
{
	uint64_t born = QY_COUNT_LIVE + QY_COUNT_ONE + qy_count_grain(p) - (word & QY_COUNT_GRAIN_MASK);

	return qy_count_generation(word) == 0 ? born + ((uint64_t)1 << QY_COUNT_GENERATION_SHIFT) : born;
}

/* Whether another who begins this same block was first. */
static bool is_there(const struct qy_leaf *leaf, const struct quarry_count *c, const void *p)
{
	uint64_t grain, word = look(leaf, c, &grain);

	return is_live(word) && grain == qy_count_grain(p);
}

/* By addition, where nobody else begins that block; else by a compare-and-swap. */
static struct quarry_count *give_birth(struct qy_leaf *leaf, struct quarry_count *c, const void *p,
				       const quarry_manager *manager, bool once, uint32_t *generation)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire), born;

	do {
		while (is_live(word) && !(once && is_there(leaf, c, p)))
			if (end_overrun(leaf, c, &word))
				word = atomic_load_explicit(&c->word, memory_order_acquire);
		if (is_live(word)) {
			errno = EALREADY;
			return NULL;
		}
		if (qy_count_generation(word) == QY_COUNT_GENERATION_LAST) {
			atomic_fetch_add_explicit(&qy_count_figures.retired, 1, memory_order_relaxed);
			errno = ERANGE;
			return NULL;
		}
		if (manager != NULL)
			atomic_store_explicit(&leaf->managers[c - leaf->at], manager, memory_order_relaxed);
		born = birth_of(word, p);
		*generation = qy_count_generation(word + born);
		if (end_of(leaf, c) != NULL)
			qy_end_drop(end_of(leaf, c), *generation);
	} while (once && !atomic_compare_exchange_weak_explicit(&c->word, &word, word + born, memory_order_acq_rel,
							       memory_order_acquire));
	if (!once) /* (in one order with the arena's life: lib/object/block.c) */
		atomic_fetch_add_explicit(&c->word, born, memory_order_seq_cst);
	return c;
}

static struct quarry_count *begin(const void *p, size_t usable, const quarry_manager *manager, bool once,
				  uint32_t *generation)
{
	unsigned shift = usable < 16 ? SHIFT_MIN : (unsigned)qy_min(qy_log2_floor(usable), SHIFT_MAX);
	_Atomic(uintptr_t) *unit;
	uintptr_t first, mine;

	if ((uintptr_t)p % ((uintptr_t)1 << QY_COUNT_GRAIN_SHIFT) != 0) {
		errno = EINVAL;
		return NULL;
	}
	unit = unit_of(p);
	if (unit == NULL)
		return NULL;
	first = atomic_load_explicit(unit, memory_order_acquire);
	mine = leaf_for(first, shift, p, manager);
	if (QY_UNLIKELY(mine == 0))
		mine = add_leaf(unit, p, shift, manager);
	if (mine == 0)
		return NULL;
	if (QY_UNLIKELY(first != mine || qy_leaf_at(mine)->next != 0))
		end_others(first, mine, p);
	return give_birth(qy_leaf_at(mine), qy_leaf_word(mine, p), p, manager, once, generation);
}

struct quarry_count *qy_count_begin(void *p, size_t usable, const quarry_manager *manager, uint32_t *generation)
{
	return begin(p, usable, manager, false, generation);
}

struct quarry_count *qy_count_begin_once(void *p, size_t usable, uint32_t *generation)
{
	return begin(p, usable, NULL, true, generation);
}

/* ---- ending ---- */

static void *memory_of(const struct qy_leaf *leaf, uint64_t word)
{
	return (void *)(leaf->unit + ((word & QY_COUNT_GRAIN_MASK) << QY_COUNT_GRAIN_SHIFT));
}

/* The block of a word, which has no notes, ends unless the word has changed (from *word to what *word becomes). What ended is
 * freed by the one who marked its end, and read its manager before. It has ended, whatever becomes of its memory: errno
 * stays. */
static bool end_at(struct qy_leaf *leaf, struct quarry_count *c, uint64_t *word, uint64_t plain)
{
	void *p = memory_of(leaf, plain);
	const quarry_manager *manager = qy_count_manager(leaf, c);
	uint64_t life = qy_block_life(manager, p);
	uint32_t generation = qy_count_generation(plain);
	quarry_end_fn *fn;
	int error = errno;

	if (!atomic_compare_exchange_strong_explicit(&c->word, word, dead_after(plain), memory_order_acq_rel,
						     memory_order_acquire))
		return false;
	fn = end_of(leaf, c) == NULL ? NULL : qy_end_take(end_of(leaf, c), generation);
	if (fn != NULL)
		fn(p);
	qy_block_free(manager, p, life);
	errno = error;
	return true;
}

int qy_count_drop(struct quarry_count *c, const void *p, uint64_t mask, uint64_t want)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire);
	unsigned shift;
	struct qy_leaf *leaf = leaf_of(c, p, &shift);

	while (leaf != NULL && (word & mask) == want && qy_count_refs(word) != 0) {
		if (qy_count_refs(word) == 1) {
			if (word & QY_COUNT_NOTED) {
				errno = EBUSY;
				return -1;
			}
			if (end_at(leaf, c, &word, word))
				return 1;
		} else if (atomic_compare_exchange_weak_explicit(&c->word, &word, word - QY_COUNT_ONE, memory_order_acq_rel,
								 memory_order_acquire)) {
			qy_count_hint = word - QY_COUNT_ONE;
			return 0;
		}
	}
	return QY_COUNT_NOT_IT;
}

/* What was taken back was the last. It is ended unless somebody came first: who counted up keeps it; or it is noted: then by
 * whoever takes the last note back. */
static void end(struct qy_leaf *leaf, struct quarry_count *c)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire);

	if (is_live(word) && qy_count_refs(word) == 0 && !(word & QY_COUNT_NOTED))
		(void)end_at(leaf, c, &word, word);
}

/* An end needs a count of 0, so while somebody's addition stands only an overrun raises the generation, by two, and that has
 * dropped the addition. (One less: an end that was put back, the only thing that lowers it. From 0 to 1: the first birth.) */
static bool has_it_still(uint64_t word, uint64_t seen)
{
	uint32_t now = qy_count_generation(word), then = qy_count_generation(seen);

	return qy_count_refs(word) > 0 && (now == then || now + 1 == then || (then == 0 && now == 1));
}

void qy_count_undo(struct quarry_count *c, const void *p, uint64_t seen)
{
	int error = errno;
	uint64_t word = atomic_load_explicit(&c->word, memory_order_relaxed);
	struct qy_leaf *leaf;
	unsigned shift;

	do {
		if (!has_it_still(word, seen))
			return;
	} while (!atomic_compare_exchange_weak_explicit(&c->word, &word, word - QY_COUNT_ONE, memory_order_acq_rel,
							memory_order_relaxed));
	if (is_live(word) && qy_count_refs(word) == 1) {
		leaf = leaf_of(c, p, &shift);
		if (leaf != NULL)
			end(leaf, c);
	}
	errno = error;
}

bool qy_count_is_free(struct quarry_count *c, const void *p)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire);
	unsigned shift;
	struct qy_leaf *leaf = leaf_of(c, p, &shift);

	return leaf != NULL && !(word & QY_COUNT_NOTED) && !has_end_fn(leaf, c, qy_count_generation(word));
}

/* ---- notes ---- */

static bool is_of_life(uint64_t word, uint32_t generation)
{
	return is_live(word) && qy_count_generation(word) == generation;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

/* (What nobody has a reference to is about to end, and as good as gone.) */
int qy_count_note(struct quarry_count *c, const void *p, uint32_t generation)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire), more;
	_Atomic(uint64_t) *noted = NULL;
	unsigned shift;
	struct qy_leaf *leaf = leaf_of(c, p, &shift);

	do {
		if (leaf == NULL || !is_of_life(word, generation) || qy_count_refs(word) == 0)
			return QY_COUNT_NOT_IT;
		if (noted == NULL)
			noted = beside(&leaf->noted, shift, sizeof(*noted), true);
		if (noted == NULL)
			return fail(ENOMEM);
		if (word & QY_COUNT_NOTED) {
			if ((word & QY_COUNT_GRAIN_MASK) == QY_COUNT_NOTES_MAX)
				return fail(EOVERFLOW);
			more = word + 1;
		} else {
			keep_grain(&noted[c - leaf->at], word);
			more = (word & ~QY_COUNT_GRAIN_MASK) | QY_COUNT_NOTED | 1;
		}
	} while (!atomic_compare_exchange_weak_explicit(&c->word, &word, more, memory_order_acq_rel, memory_order_acquire));
	return 0;
}

int qy_count_unnote(struct quarry_count *c, const void *p, uint32_t generation)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire), less;
	unsigned shift;
	struct qy_leaf *leaf = leaf_of(c, p, &shift);

	for (;;) {
		if (leaf == NULL || !is_of_life(word, generation))
			return QY_COUNT_NOT_IT;
		if (!(word & QY_COUNT_NOTED))
			return fail(EINVAL);
		less = (word & QY_COUNT_GRAIN_MASK) > 1 ? word - 1 : without_notes(leaf, c, word);
		if (qy_count_refs(less) == 0 && !(less & QY_COUNT_NOTED)) {
			if (end_at(leaf, c, &word, less))
				return 0;
		} else if (atomic_compare_exchange_weak_explicit(&c->word, &word, less, memory_order_acq_rel,
								 memory_order_acquire)) {
			return 0;
		}
	}
}

/* ---- a life that is over ---- */

/* The life of that generation is over, and the next one begins here and now, or not. */
static int end_life(struct quarry_count *c, const struct qy_leaf *leaf, uint32_t generation, bool goes_on)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire);
	uint64_t next = goes_on ? word + ((uint64_t)1 << QY_COUNT_GENERATION_SHIFT) : dead_after(word);

	if (leaf == NULL || !is_of_life(word, generation)) {
		errno = ESTALE;
		return -1;
	}
	if (goes_on && generation == QY_COUNT_GENERATION_LAST - 1) {
		errno = ERANGE;
		return -1;
	}
	if (qy_count_refs(word) != 1 || (word & QY_COUNT_NOTED) || has_end_fn(leaf, c, generation) ||
	    !atomic_compare_exchange_strong_explicit(&c->word, &word, next, memory_order_acq_rel, memory_order_acquire)) {
		errno = EBUSY;
		return -1;
	}
	return 0;
}

/* (Who had a reference meanwhile may have set a function, and left the word as it was. It is seen now.) */
int qy_count_take(struct quarry_count *c, const void *p, uint32_t generation)
{
	unsigned shift;
	const struct qy_leaf *leaf = leaf_of(c, p, &shift);

	if (end_life(c, leaf, generation, false) != 0)
		return -1;
	if (!has_end_fn(leaf, c, generation))
		return 0;
	return fail(qy_count_put_back(c, generation) ? EBUSY : ESTALE);
}

/* (Here it need not be refused: the function stays with the block.) */
int qy_count_renew(struct quarry_count *c, const void *p, uint32_t *generation)
{
	unsigned shift;
	const struct qy_leaf *leaf = leaf_of(c, p, &shift);

	if (end_life(c, leaf, *generation, true) != 0)
		return -1;
	if (has_end_fn(leaf, c, *generation))
		qy_end_keep(end_of(leaf, c), *generation);
	++*generation;
	return 0;
}

bool qy_count_put_back(struct quarry_count *c, uint32_t generation)
{
	uint64_t word = atomic_load_explicit(&c->word, memory_order_acquire), back;

	do {
		if (is_live(word) || qy_count_generation(word) != generation + 1)
			return false;
		back = word + QY_COUNT_LIVE + QY_COUNT_ONE - ((uint64_t)1 << QY_COUNT_GENERATION_SHIFT);
	} while (!atomic_compare_exchange_weak_explicit(&c->word, &word, back, memory_order_acq_rel, memory_order_acquire));
	return true;
}
