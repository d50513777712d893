/* SPDX-License-Identifier: MIT */
/* The page allocator: made and ended, and runs allocated, freed, resized and split. (pages.h has the rules.) */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"
#include "lib/object/manager.h"
#include "lib/object/own.h"
#include "lib/object/pages.h"

#define PAGE_SIZE_MIN ((size_t)4 << 10)
#define PAGE_SIZE_MAX ((size_t)2 << 20)
#define BASE_ALIGN ((size_t)2 << 20) /* so that a page's index is aligned as its address is */
#define GENERATION_BITS 28
#define PATIENCE_MS 1000

/* ---- made and ended ---- */

static bool check_attr(const quarry_pages_attr *attr)
{
	if (attr->struct_size != 0 && attr->struct_size != sizeof(*attr))
		qy_fail(EINVAL, "struct_size: %d is not the size of any quarry_pages_attr", (int)attr->struct_size);
	else if ((attr->flags & ~(uint32_t)QUARRY_PAGES_POPULATED) || attr->reserved != 0)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x, or reserved is not 0", (unsigned)attr->flags);
	else if (!qy_is_pow2(attr->page_size) || attr->page_size < PAGE_SIZE_MIN || attr->page_size > PAGE_SIZE_MAX)
		qy_fail(EINVAL, "page_size: %lu is no power of two from 4096 to 2097152",
			(unsigned long)attr->page_size);
	else if (attr->count == 0 || attr->count > UINT32_MAX)
		qy_fail(EINVAL, "count: %lu is not within 1 and 4294967295", (unsigned long)attr->count);
	else if (attr->generation_bits > GENERATION_BITS)
		qy_fail(EINVAL, "generation_bits: %d is more than 28", (int)attr->generation_bits);
	else if (attr->arena != NULL && attr->memory != NULL)
		qy_fail(EINVAL, "memory: an arena is given as well");
	else if (attr->arena != NULL && !qy_manager_is_arena(attr->arena))
		qy_fail(EINVAL, "arena: there is none at %p", (const void *)attr->arena);
	else
		return true;
	return false;
}

/* Threads begin far apart: the second in the middle, the third and fourth in the quarters, and so on. */
static void spread_hints(quarry_pages *p)
{
	for (uint64_t i = 0; i < QY_PAGES_STRIPES; i++) {
		uint64_t reversed = 0;

		for (unsigned bit = 0; bit < 6; bit++)
			reversed |= (i >> bit & 1) << (5 - bit);
		p->stripe[i].home = p->words * reversed / QY_PAGES_STRIPES;
		atomic_init(&p->stripe[i].hint, p->stripe[i].home);
		atomic_init(&p->stripe[i].run_hint, p->stripe[i].home);
	}
}

/* What is beyond the last page is taken for ever. */
static void close_end(quarry_pages *p)
{
	uint64_t rest = p->map.count % 64, words = p->words % 64, groups = p->groups % 64;

	if (rest != 0)
		atomic_init(&p->used[p->words - 1], ~(uint64_t)0 << rest);
	if (words != 0)
		atomic_init(&p->full[p->groups - 1], ~(uint64_t)0 << words);
	if (groups != 0)
		atomic_init(&p->full_groups[p->tops - 1], ~(uint64_t)0 << groups);
}

static uint64_t ceil64(uint64_t n)
{
	return (n + 63) / 64;
}

/* How much of the record and its arrays there is; zeroed memory is an allocator with all pages free. */
static size_t metadata_size(uint64_t count)
{
	uint64_t words = ceil64(count), groups = ceil64(words), tops = ceil64(groups);

	return sizeof(quarry_pages) + (size_t)(words * 2 + groups + tops + count) * sizeof(uint64_t) +
	       (size_t)groups * sizeof(uint32_t);
}

static quarry_pages *lay_out(void *memory, const quarry_pages_attr *attr)
{
	quarry_pages *p = memory;
	unsigned bits = attr->generation_bits == 0 ? GENERATION_BITS : attr->generation_bits;

	p->map.count = attr->count;
	p->map.page_shift = qy_log2_floor(attr->page_size);
	p->patience_ms = PATIENCE_MS;
	p->last_generation = ((uint32_t)1 << bits) - 2;
	p->words = ceil64(attr->count);
	p->groups = ceil64(p->words);
	p->tops = ceil64(p->groups);
	p->used = (qy_bits *)(p + 1);
	p->dirty = p->used + p->words;
	p->full = p->dirty + p->words;
	p->full_groups = p->full + p->groups;
	p->runs = p->full_groups + p->tops;
	p->none = (void *)(p->runs + attr->count);
	close_end(p);
	spread_hints(p);
	return p;
}

/* An arena's memory may be what another block left there: it goes back to the kernel, and is zero as new memory is.
 * Where it does not go in parts it is cleared, and in memory from then on. */
static void freshen(quarry_pages *p, size_t bytes)
{
	if (quarry_discard(p->map.base, bytes) == 0)
		return;
	memset(p->map.base, 0, bytes);
	qy_pages_soil(p, 0, p->map.count);
}

static bool populate(quarry_pages *p, size_t bytes)
{
	if (quarry_populate(p->map.base, bytes) != 0)
		return false;
	qy_pages_soil(p, 0, p->map.count);
	return true;
}

/* Why there are no pages. */
static QY_COLD void fail_make(const quarry_pages_attr *attr, const quarry_arena *arena, int error)
{
	if (error == EINVAL)
		qy_fail_arena(arena);
	else
		qy_fail(error, "count: no memory, no address space (ulimit -v, vm.overcommit_memory), or a hard limit, "
			"for %lu pages of %lu bytes",
			(unsigned long)attr->count, (unsigned long)attr->page_size);
}

/* The record and the pages, in the arena (NULL: the default one), or where the breaker sends them, which stays while they
 * are there. The first page has the block's address, and is no block for that. */
static quarry_pages *make(const quarry_pages_attr *attr, quarry_arena *arena)
{
	size_t bytes = attr->count * attr->page_size, size = qy_align_up(metadata_size(attr->count), QY_CACHE_LINE);
	size_t spare = QY_CACHE_LINE; /* what is cleared by allocating it is aligned to 16 */
	char *memory = qy_arena_alloc_held(arena, size + spare, 16, true);
	void *base = memory == NULL ? NULL : qy_arena_alloc_held(arena, bytes, BASE_ALIGN, false);
	quarry_pages *p;
	int error;

	qy_pages_prepare();
	if (base != NULL && qy_taken_add(base)) {
		p = lay_out((void *)qy_align_up((uintptr_t)memory, QY_CACHE_LINE), attr);
		p->map.base = base;
		p->memory = memory;
		p->arena = quarry_arena_of(base);
		freshen(p, bytes);
		if (!(attr->flags & QUARRY_PAGES_POPULATED) || populate(p, bytes)) {
			p->magic = QY_PAGES_MAGIC;
			return p;
		}
	}
	error = errno;
	qy_arena_free_held(base);
	qy_arena_free_held(memory);
	fail_make(attr, arena, error);
	return NULL;
}

QUARRY_API quarry_pages *quarry_pages_create(const quarry_pages_attr *given)
{
	quarry_pages_attr attr;
	quarry_arena *arena;
	quarry_pages *p;
	int error;

	if (given == NULL) {
		qy_fail(EINVAL, "attr: it is NULL");
		return NULL;
	}
	attr = *given;
	if (attr.page_size == 0)
		attr.page_size = PAGE_SIZE_MIN;
	if (!check_attr(&attr))
		return NULL;
	if (attr.memory == NULL)
		return make(&attr, attr.arena);
	arena = quarry_arena_create(attr.memory);
	if (arena == NULL)
		return NULL;
	p = make(&attr, arena);
	if (p == NULL) {
		error = errno;
		(void)qy_arena_end_with(arena, NULL, 0);
		errno = error;
		return NULL;
	}
	p->own = arena;
	return p;
}

bool qy_pages_check(const quarry_pages *p)
{
	if (QY_LIKELY(p != NULL && p->magic == QY_PAGES_MAGIC))
		return true;
	qy_fail(EINVAL, "pages: %p is no page allocator", (void *)(uintptr_t)p);
	return false;
}

/* (The record is not looked at once one of the two is free: its arena may end then.) */
QUARRY_API int quarry_pages_destroy(quarry_pages *p)
{
	void *blocks[2];

	if (!qy_pages_check(p))
		return -1;
	blocks[0] = p->map.base;
	blocks[1] = p->memory;
	p->magic = 0;
	if (p->own == NULL) {
		qy_arena_free_held(blocks[0]);
		qy_arena_free_held(blocks[1]);
	} else if (qy_own_end(p->own, blocks, 2) != 0) {
		p->magic = QY_PAGES_MAGIC;
		return -1;
	}
	return 0;
}

QUARRY_API quarry_arena *quarry_pages_arena(quarry_pages *p)
{
	return qy_pages_check(p) ? p->arena : NULL;
}

/* ---- allocated ---- */

/* The caller's pages become a run. */
static void *begin_run(quarry_pages *p, uint64_t index, uint64_t n)
{
	uint64_t word = atomic_load_explicit(&p->runs[index], memory_order_relaxed);

	qy_check(qy_run_length(word) == 0 && word != QY_RUN_RETIRED);
	qy_pages_soil(p, index, n);
	atomic_store_explicit(&p->runs[index], word | n, memory_order_release);
	return qy_pages_address(p, index);
}

static void *alloc(quarry_pages *p, uint64_t n, uint64_t align)
{
	struct qy_pages_stripe *stripe;
	uint64_t index = QY_NO_PAGE;
	void *run = NULL;

	if (QY_UNLIKELY(n == 0)) {
		qy_fail(EINVAL, "n: no pages are asked for");
		return NULL;
	}
	stripe = qy_pages_begin(p);
	if (QY_LIKELY(n <= p->map.count))
		index = qy_pages_take(p, stripe, n, align);
	else
		errno = ENOMEM;
	if (QY_LIKELY(index != QY_NO_PAGE)) {
		run = begin_run(p, index, n);
	} else {
		atomic_fetch_add_explicit(&p->failed, 1, memory_order_relaxed);
	}
	qy_pages_end(p, stripe);
	return run;
}

QUARRY_API void *quarry_pages_alloc(quarry_pages *p, uint64_t n)
{
	return QY_LIKELY(qy_pages_check(p)) ? alloc(p, n, 1) : NULL;
}

QUARRY_API void *quarry_pages_alloc_aligned(quarry_pages *p, uint64_t n, size_t alignment)
{
	if (!qy_pages_check(p))
		return NULL;
	if (!qy_is_pow2(alignment) || alignment > BASE_ALIGN) {
		qy_fail(EINVAL, "alignment: %lu is no power of two up to 2097152", (unsigned long)alignment);
		return NULL;
	}
	return alloc(p, n, qy_max(alignment >> p->map.page_shift, 1));
}

uint64_t qy_pages_find(const quarry_pages *p, const void *address)
{
	uint64_t offset = (uintptr_t)address - (uintptr_t)p->map.base, index = offset >> p->map.page_shift;

	if (QY_LIKELY(index < p->map.count && index << p->map.page_shift == offset))
		return index;
	qy_fail(EINVAL, "p: no page begins at %p", (void *)(uintptr_t)address);
	return QY_NO_PAGE;
}

QUARRY_API void *quarry_pages_alloc_at(quarry_pages *p, void *address, uint64_t n)
{
	struct qy_pages_stripe *stripe;
	uint64_t index;
	bool got;

	if (!qy_pages_check(p) || (index = qy_pages_find(p, address)) == QY_NO_PAGE)
		return NULL;
	if (n == 0 || n > p->map.count - index) {
		qy_fail(EINVAL, "n: %lu pages are none, or go beyond the last", (unsigned long)n);
		return NULL;
	}
	stripe = qy_pages_begin(p);
	got = qy_pages_claim(p, index, n);
	if (got)
		begin_run(p, index, n);
	qy_pages_end(p, stripe);
	if (got)
		return address;
	qy_fail(EBUSY, "address: not all of %lu pages from %p on are free", (unsigned long)n, address);
	return NULL;
}

/* ---- freed ---- */

bool qy_pages_free_run(quarry_pages *p, uint64_t index, uint64_t word)
{
	uint64_t generation = qy_run_generation(word), n = qy_run_length(word);
	bool last = generation == p->last_generation;
	uint64_t next = last ? QY_RUN_RETIRED : qy_run_word(generation + 1, 0);
	struct qy_pages_stripe *stripe = qy_pages_begin(p);
	bool won = atomic_compare_exchange_strong_explicit(&p->runs[index], &word, next, memory_order_acq_rel,
							   memory_order_relaxed);

	if (QY_LIKELY(won)) {
		if (QY_UNLIKELY(last))
			atomic_fetch_add(&p->retired, 1);
		qy_pages_release(p, index + last, n - last);
		qy_pages_hint(p, stripe, index, n);
	}
	qy_pages_end(p, stripe);
	return won;
}

/* No run begins at a page: why. */
static QY_COLD int fail_run(quarry_pages *p, uint64_t index)
{
	uint64_t used = atomic_load(&p->used[index / 64]);
	void *address = qy_pages_address(p, index);

	if (atomic_load(&p->runs[index]) == QY_RUN_RETIRED)
		return qy_fail(EINVAL, "p: the page at %p is retired", address);
	return qy_fail(EINVAL, used >> index % 64 & 1 ? "p: %p is inside a run" : "p: the page at %p is free", address);
}

/* The word of the run that begins at p, and where that is; 0, and the error is set, where none does. */
static uint64_t find_run(quarry_pages *p, const void *address, uint64_t *index)
{
	uint64_t word;

	if (!qy_pages_check(p) || (*index = qy_pages_find(p, address)) == QY_NO_PAGE)
		return 0;
	word = atomic_load_explicit(&p->runs[*index], memory_order_acquire);
	if (QY_LIKELY(qy_run_length(word) != 0))
		return word;
	fail_run(p, *index);
	return 0;
}

QUARRY_API int quarry_pages_free(quarry_pages *p, void *address)
{
	uint64_t index, word;

	if (address == NULL)
		return 0;
	word = find_run(p, address, &index);
	if (word == 0)
		return -1;
	if (QY_LIKELY(qy_pages_free_run(p, index, word)))
		return 0;
	return qy_fail(EINVAL, "p: the run at %p was freed or changed by another thread meanwhile", address);
}

QUARRY_API uint64_t quarry_pages_length(quarry_pages *p, const void *address)
{
	uint64_t index;

	return qy_run_length(find_run(p, address, &index));
}

/* ---- changed ---- */

/* The run with this word gets another length, if it still is. */
static bool set_length(quarry_pages *p, uint64_t index, uint64_t word, uint64_t n)
{
	return atomic_compare_exchange_strong_explicit(&p->runs[index], &word, qy_run_word(qy_run_generation(word), n),
						       memory_order_acq_rel, memory_order_relaxed);
}

static int grow(quarry_pages *p, uint64_t index, uint64_t word, uint64_t n)
{
	uint64_t length = qy_run_length(word), end = index + length, more = n - length;

	if (n > p->map.count - index || !qy_pages_claim(p, end, more))
		return qy_fail(ENOMEM, "n: the pages behind the run are not free, or not there");
	qy_pages_soil(p, end, more);
	if (set_length(p, index, word, n))
		return 0;
	qy_pages_release(p, end, more);
	return qy_fail(EINVAL, "p: the run was freed or changed by another thread meanwhile");
}

static int shrink(quarry_pages *p, uint64_t index, uint64_t word, uint64_t n)
{
	if (!set_length(p, index, word, n))
		return qy_fail(EINVAL, "p: the run was freed or changed by another thread meanwhile");
	qy_pages_release(p, index + n, qy_run_length(word) - n);
	return 0;
}

QUARRY_API int quarry_pages_resize(quarry_pages *p, void *address, uint64_t n)
{
	uint64_t index, word = find_run(p, address, &index);
	struct qy_pages_stripe *stripe;
	int result;

	if (word == 0)
		return -1;
	if (n == 0)
		return qy_fail(EINVAL, "n: a run has at least one page");
	if (n == qy_run_length(word))
		return 0;
	stripe = qy_pages_begin(p);
	result = n > qy_run_length(word) ? grow(p, index, word, n) : shrink(p, index, word, n);
	qy_pages_end(p, stripe);
	return result;
}

QUARRY_API void *quarry_pages_split(quarry_pages *p, void *address, uint64_t n)
{
	uint64_t index, word = find_run(p, address, &index);
	struct qy_pages_stripe *stripe;
	void *second = NULL;

	if (word == 0)
		return NULL;
	if (n == 0 || n >= qy_run_length(word)) {
		qy_fail(EINVAL, "n: %lu pages of %d leave none for one of the parts", (unsigned long)n,
			(int)qy_run_length(word));
		return NULL;
	}
	stripe = qy_pages_begin(p);
	/* From here to begin_run nobody else can have the second part: its pages are used, and in no run. */
	if (set_length(p, index, word, n))
		second = begin_run(p, index + n, qy_run_length(word) - n);
	qy_pages_end(p, stripe);
	if (second == NULL)
		qy_fail(EINVAL, "p: the run was freed or changed by another thread meanwhile");
	return second;
}
