/* SPDX-License-Identifier: MIT */
/* The page allocator against a plain model: who owns each page is an array, and what can be allocated is found by
 * looking at all of it. Beside that what the header promises one by one, errors among them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/object/pages.h"
#include "tests/unit/model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define PAGES_MAX 20000
#define RUNS_MAX 4000
#define STALE_MAX 512

static quarry_pages *make(uint64_t count, uint64_t page_size, uint32_t generation_bits)
{
	quarry_pages_attr attr = { .struct_size = sizeof attr, .count = count, .page_size = page_size,
				   .generation_bits = generation_bits };
	quarry_pages *pages = quarry_pages_create(&attr);

	cr_assert_not_null(pages, "errno %d: %s", errno, quarry_error_text());
	return pages;
}

static quarry_pages_stats stats_of(quarry_pages *pages)
{
	quarry_pages_stats stats = { .struct_size = sizeof stats };

	model_must(quarry_pages_stats_get(pages, &stats) == 0, "errno %d", errno);
	model_must(stats.coherent == 1, "nobody else is here");
	model_must(stats.committed == stats.allocated + stats.free, "%lu of %lu and %lu",
		   (unsigned long)stats.committed, (unsigned long)stats.allocated, (unsigned long)stats.free);
	model_must(stats.lost == 0 && stats.count == stats.committed + stats.retired, "%lu retired",
		   (unsigned long)stats.retired);
	return stats;
}

#define expect_errno(failed, error)                                                                   \
	do {                                                                                          \
		errno = 0;                                                                            \
		cr_expect((failed) && errno == (error), "%s: errno %d: %s", #failed, errno, quarry_error_text()); \
	} while (0)

/* ------------------------------------------------------------------------------------------------------ */
/* The model                                                                                              */

struct run {
	uint64_t index, length, tag;
	quarry_page_id64 id;
};

static struct {
	quarry_pages *pages;
	uint64_t count, page_size;
	struct run run[RUNS_MAX];
	uint32_t runs;
	uint32_t owner[PAGES_MAX];   /* 0: free; else a run's number and 1; -1: retired */
	uint32_t begun[PAGES_MAX];   /* how often a run that began here was freed */
	uint32_t generations;        /* each page has */
	uint64_t retired;
	quarry_page_id64 stale[STALE_MAX];
	uint32_t stales;
} m;

static uint64_t *stamp_of(const struct run *run, uint64_t page)
{
	return (uint64_t *)quarry_pages_at(m.pages, run->index + page);
}

static void own(uint32_t number)
{
	const struct run *run = &m.run[number];

	for (uint64_t i = 0; i < run->length; i++) {
		m.owner[run->index + i] = number + 1;
		*stamp_of(run, i) = run->tag + i;
	}
}

static void check_contents(const struct run *run)
{
	for (uint64_t i = 0; i < run->length; i++)
		model_must(*stamp_of(run, i) == run->tag + i, "page %lu of the run at %lu", (unsigned long)i,
			   (unsigned long)run->index);
}

static void make_stale(quarry_page_id64 id)
{
	m.stale[m.stales++ % STALE_MAX] = id;
}

/* The id that the run must have by now. */
static void renew_id(struct run *run)
{
	quarry_page_id64 id = 0;

	if (run->length >> QUARRY_PAGE_ID_LENGTH_BITS) {
		model_must(quarry_pages_to_id64(m.pages, stamp_of(run, 0), &id) == -1 && errno == EOVERFLOW, "%d",
			   errno);
		run->id = 0;
		return;
	}
	model_must(quarry_pages_to_id64(m.pages, stamp_of(run, 0), &id) == 0, "errno %d", errno);
	model_must(id == quarry_page_id64_make(run->index, run->length, m.begun[run->index] + 1), "%lx",
		   (unsigned long)id);
	run->id = id;
}

static void add(void *p, uint64_t length)
{
	struct run *run = &m.run[m.runs];

	*run = (struct run){ quarry_pages_index(m.pages, p), length, model_random() >> 16, 0 };
	model_must(quarry_pages_at(m.pages, run->index) == p, "%p", p);
	for (uint64_t i = 0; i < length; i++)
		model_must(m.owner[run->index + i] == 0, "page %lu is not free", (unsigned long)(run->index + i));
	own(m.runs++);
	renew_id(run);
}

static void forget(uint32_t number)
{
	struct run run = m.run[number];

	for (uint64_t i = 0; i < run.length; i++)
		m.owner[run.index + i] = 0;
	if (++m.begun[run.index] == m.generations) {
		m.owner[run.index] = UINT32_MAX;
		m.retired++;
	}
	make_stale(run.id);
	m.run[number] = m.run[--m.runs];
	for (uint64_t i = 0; number < m.runs && i < m.run[number].length; i++)
		m.owner[m.run[number].index + i] = number + 1;
}

/* Whether n pages are free from a multiple of align on. */
static bool is_room(uint64_t n, uint64_t align)
{
	uint64_t have = 0;

	if (align == 1) {
		for (uint64_t i = 0; i < m.count; i++)
			if ((have = m.owner[i] == 0 ? have + 1 : 0) >= n)
				return true;
		return false;
	}
	for (uint64_t i = 0; i + n <= m.count; i += align) {
		for (have = 0; have < n && m.owner[i + have] == 0;)
			have++;
		if (have == n)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------------------------------------ */
/* Its operations                                                                                         */

static void step_alloc(void)
{
	uint64_t n = model_size(m.count < 5000 ? (uint32_t)m.count : 5000);
	uint64_t align = model_one_in(3) ? (uint64_t)1 << model_below(10) : 1;
	void *p;

	if (m.runs == RUNS_MAX)
		return;
	if (align * m.page_size > 2 * MIB)
		align = 1;
	errno = 0;
	p = align == 1 ? quarry_pages_alloc(m.pages, n) : quarry_pages_alloc_aligned(m.pages, n, align * m.page_size);
	if (p == NULL) {
		model_must(errno == ENOMEM && !is_room(n, align), "errno %d: %lu pages at %lu", errno, (unsigned long)n,
			   (unsigned long)align);
		return;
	}
	model_must((uintptr_t)p % (align * m.page_size) == 0, "%p by %lu", p, (unsigned long)align);
	add(p, n);
}

static void step_alloc_at(void)
{
	uint64_t index = model_below((uint32_t)m.count), n = model_size(200), i = 0;
	void *at = quarry_pages_at(m.pages, index), *p;

	if (m.runs == RUNS_MAX)
		return;
	errno = 0;
	p = quarry_pages_alloc_at(m.pages, at, n);
	if (index + n > m.count) {
		model_must(p == NULL && errno == EINVAL, "errno %d", errno);
		return;
	}
	while (i < n && m.owner[index + i] == 0)
		i++;
	model_must((p == at) == (i == n) && (p != NULL || errno == EBUSY), "errno %d", errno);
	if (p != NULL)
		add(p, n);
}

static void step_free(uint32_t number)
{
	struct run run = m.run[number];
	void *p = stamp_of(&run, 0);
	quarry_page_id id;
	int way = (int)model_below(3), result = -1;

	check_contents(&run);
	if (way == 1 && run.id != 0)
		result = quarry_pages_free_id64(m.pages, run.id);
	else if (way == 2 && quarry_pages_to_id(m.pages, p, &id) == 0)
		result = quarry_pages_free_id(m.pages, id);
	else
		result = quarry_pages_free(m.pages, p);
	model_must(result == 0, "errno %d: %s", errno, quarry_error_text());
	forget(number);
	model_must(quarry_pages_free(m.pages, p) == -1 && errno == EINVAL, "freed twice: errno %d", errno);
}

static void step_resize(uint32_t number)
{
	struct run *run = &m.run[number];
	uint64_t n = model_size(2 * (uint32_t)run->length + 3), i = run->length;
	int result = quarry_pages_resize(m.pages, stamp_of(run, 0), n);

	while (run->index + i < m.count && i < n && m.owner[run->index + i] == 0)
		i++;
	model_must((result == 0) == (n <= i) && (result == 0 || errno == ENOMEM), "to %lu of %lu: errno %d",
		   (unsigned long)n, (unsigned long)run->length, errno);
	if (result != 0 || n == run->length)
		return;
	check_contents(&(struct run){ run->index, n < run->length ? n : run->length, run->tag, 0 });
	for (i = n; i < run->length; i++)
		m.owner[run->index + i] = 0;
	model_must(run->id == 0 || (quarry_pages_resolve(m.pages, run->id, NULL) == NULL && errno == ESTALE), "%d",
		   errno);
	run->length = n;
	own(number);
	renew_id(run);
}

static void step_split(uint32_t number)
{
	struct run *run = &m.run[number];
	uint64_t n = 1 + model_below((uint32_t)run->length), rest = run->length - n;
	void *p;

	if (m.runs == RUNS_MAX)
		return;
	p = quarry_pages_split(m.pages, stamp_of(run, 0), n);
	if (rest == 0 || p == NULL) {
		model_must(rest == 0 && p == NULL && errno == EINVAL, "errno %d", errno);
		return;
	}
	model_must(p == stamp_of(run, n), "%p", p);
	check_contents(run);
	run->length = n;
	renew_id(run);
	m.run[m.runs] = (struct run){ run->index + n, rest, run->tag + n, 0 };
	own(m.runs++);
	renew_id(&m.run[m.runs - 1]);
}

/* Every way to be wrong that can be known. */
static void step_wrong(void)
{
	uint64_t index = model_below((uint32_t)m.count);
	char *p = quarry_pages_at(m.pages, index);
	bool is_head = m.owner[index] != 0 && m.owner[index] != UINT32_MAX && m.run[m.owner[index] - 1].index == index;

	if (!is_head) {
		model_must(quarry_pages_free(m.pages, p) == -1 && errno == EINVAL, "page %lu", (unsigned long)index);
		model_must(quarry_pages_resize(m.pages, p, 2) == -1 && errno == EINVAL, "page %lu",
			   (unsigned long)index);
		model_must(quarry_pages_length(m.pages, p) == 0, "page %lu", (unsigned long)index);
		model_must(quarry_pages_free_id(m.pages, quarry_page_id_make(index, 1)) == -1 && errno == ESTALE, "%d",
			   errno);
	} else {
		uint64_t length = m.run[m.owner[index] - 1].length;

		model_must(quarry_pages_length(m.pages, p) == length, "page %lu", (unsigned long)index);
		if (index + length < m.count && length + 1 < 4096)
			model_must(!quarry_pages_from_id(m.pages, quarry_page_id_make(index, length + 1), NULL) &&
					   errno == ESTALE, "errno %d", errno);
	}
	model_must(quarry_pages_free(m.pages, p + 1 + model_below((uint32_t)m.page_size - 1)) == -1 && errno == EINVAL,
		   "inside a page");
	if (m.stales > 0) {
		uint32_t most = m.stales < STALE_MAX ? m.stales : STALE_MAX;
		quarry_page_id64 id = m.stale[model_below(most)];

		if (id != 0) {
			model_must(quarry_pages_resolve(m.pages, id, NULL) == NULL && errno == ESTALE, "%lx",
				   (unsigned long)id);
			model_must(quarry_pages_free_id64(m.pages, id) == -1 && errno == ESTALE, "%lx",
				   (unsigned long)id);
		}
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* Looked at whole                                                                                        */

struct walked {
	uint64_t end, runs;
};

static int check_run(const quarry_run *run, void *ctx)
{
	struct walked *walked = ctx;
	uint32_t owner = m.owner[run->index];
	const struct run *known = &m.run[owner - 1];

	model_must(run->index >= walked->end, "in order");
	model_must(owner != 0 && owner != UINT32_MAX && known->index == run->index && known->length == run->length,
		   "the run at %lu", (unsigned long)run->index);
	model_must(run->address == quarry_pages_at(m.pages, run->index) && run->generation == m.begun[run->index] + 1,
		   "generation %lu", (unsigned long)run->generation);
	walked->end = run->index + run->length;
	walked->runs++;
	return 0;
}

static void check_all(void)
{
	quarry_pages_stats stats = stats_of(m.pages);
	struct walked walked = { 0, 0 };
	uint64_t free_pages = 0, longest = 0, have = 0;

	for (uint64_t i = 0; i < m.count; i++) {
		have = m.owner[i] == 0 ? have + 1 : 0;
		free_pages += m.owner[i] == 0;
		longest = have > longest ? have : longest;
	}
	model_must(stats.free == free_pages && stats.largest == longest && stats.runs == m.runs &&
			   stats.retired == m.retired,
		   "free %lu and %lu, longest %lu and %lu, runs %lu and %u, retired %lu and %lu",
		   (unsigned long)stats.free, (unsigned long)free_pages, (unsigned long)stats.largest,
		   (unsigned long)longest, (unsigned long)stats.runs, m.runs, (unsigned long)stats.retired,
		   (unsigned long)m.retired);
	model_must(quarry_pages_walk(m.pages, check_run, &walked) == 0 && walked.runs == m.runs, "%lu runs",
		   (unsigned long)walked.runs);
	for (uint32_t i = 0; i < m.runs; i++) {
		const struct run *run = &m.run[i];
		size_t bytes = 0;

		check_contents(run);
		model_must(run->id == 0 || (quarry_pages_resolve(m.pages, run->id, &bytes) == stamp_of(run, 0) &&
					    bytes == run->length * m.page_size), "run %u", i);
	}
}

/* What went back reads as zero when it comes again, and nothing that is allocated went. */
static void step_purge(void)
{
	uint64_t dirty = stats_of(m.pages).dirty;
	void *p;

	model_must(quarry_pages_purge(m.pages, QUARRY_PAGES_PURGE_PARTS) == dirty * m.page_size, "%lu pages", (unsigned long)dirty);
	model_must(stats_of(m.pages).dirty == 0 && quarry_pages_purge(m.pages, QUARRY_PAGES_PURGE_PARTS) == 0, "all went");
	p = m.runs < RUNS_MAX ? quarry_pages_alloc(m.pages, 1) : NULL;
	if (p != NULL) {
		for (size_t i = 0; i < m.page_size; i++)
			model_must(((char *)p)[i] == 0, "byte %lu", (unsigned long)i);
		add(p, 1);
	}
}

static void begin_model(uint64_t count, uint64_t page_size, uint32_t generation_bits)
{
	memset(&m, 0, sizeof m);
	m.pages = make(count, page_size, generation_bits);
	m.count = count;
	m.page_size = page_size;
	m.generations = generation_bits == 0 ? UINT32_MAX : ((uint32_t)1 << generation_bits) - 1;
}

/* So full that what does not fit is met as often as what does; then empty again, and again. */
static void run_model(uint32_t steps)
{
	uint32_t leave = 2;

	for (uint32_t step = 0; step < steps; step++) {
		uint64_t epoch = quarry_pages_epoch(m.pages);
		uint32_t runs = m.runs, what = model_below(16);

		if (model_one_in(1000))
			leave = 1 + model_below(4);
		if (what < 3 + leave)
			step_alloc();
		else if (what < 4 + leave)
			step_alloc_at();
		else if (what < 10 && m.runs > 0)
			step_free(model_below(m.runs));
		else if (what < 12 && m.runs > 0)
			step_resize(model_below(m.runs));
		else if (what < 13 && m.runs > 0)
			step_split(model_below(m.runs));
		else
			step_wrong();
		model_must(m.runs == runs || quarry_pages_epoch(m.pages) != epoch, "a change unseen");
		if (model_one_in(200))
			check_all();
		if (model_one_in(500))
			step_purge();
	}
	while (m.runs > 0)
		step_free(model_below(m.runs));
	check_all();
	model_must(stats_of(m.pages).allocated == 0, "all is freed");
	model_must(quarry_pages_destroy(m.pages) == 0, "errno %d", errno);
}

Test(pages, all_operations_against_a_model)
{
	static const uint64_t counts[] = { 1, 63, 64, 65, 130, 4095, 4096, 4097, 9000 };

	model_start("pages");
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
		begin_model(counts[i], 4 * KIB, 0);
		run_model(counts[i] < 1000 ? 2000 : 6000);
	}
}

Test(pages, pages_of_other_sizes_against_a_model)
{
	model_start("pages of other sizes");
	begin_model(300, 64 * KIB, 0);
	run_model(3000);
	begin_model(40, 2 * MIB, 0);
	run_model(1500);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Generations                                                                                            */

/* With two bits a page begins three runs, and is gone then; with all of them gone there is no memory, and not one id
 * of any of them is right again. */
Test(pages, generations_are_used_up_and_never_begin_anew)
{
	static quarry_page_id64 seen[70 * 3];
	quarry_pages *pages = make(70, 4 * KIB, 2);
	unsigned n = 0;
	void *p;

	while ((p = quarry_pages_alloc(pages, 1)) != NULL) {
		cr_assert_lt(n, 70 * 3);
		cr_assert_eq(quarry_pages_to_id64(pages, p, &seen[n]), 0);
		for (unsigned i = 0; i < n; i++)
			cr_assert_neq(seen[i], seen[n]);
		n++;
		cr_assert_eq(quarry_pages_free(pages, p), 0);
		cr_assert_eq(quarry_pages_free(pages, p), -1);
	}
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(n, 70 * 3);
	cr_assert_eq(stats_of(pages).retired, 70);
	cr_assert_eq(stats_of(pages).committed, 0);
	for (unsigned i = 0; i < n; i++) {
		expect_errno(quarry_pages_resolve(pages, seen[i], NULL) == NULL, ESTALE);
		expect_errno(quarry_pages_free_id64(pages, seen[i]) == -1, ESTALE);
	}
	expect_errno(quarry_pages_free(pages, quarry_pages_at(pages, 3)) == -1, EINVAL);
	expect_errno(quarry_pages_alloc_at(pages, quarry_pages_at(pages, 3), 1) == NULL, EBUSY);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

Test(pages, a_run_retires_its_first_page_alone)
{
	model_start("retiring");
	begin_model(500, 4 * KIB, 3);
	run_model(4000);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Ids                                                                                                    */

Test(pages, ids_are_packed_both_ways_and_say_when_they_are_too_small)
{
	quarry_pages *pages = make((1u << 20) + 10, 4 * KIB, 0);
	char *last, *longest, *fits;
	quarry_page_id id, made = quarry_page_id_make(0xfffff, 0xfff);
	quarry_page_id64 id64, made64 = quarry_page_id64_make(0xffffff, 0xfff, 0xfffffff);
	size_t bytes;

	cr_assert_eq(made, UINT32_MAX);
	cr_assert_eq(quarry_page_id_index(made), 0xfffff);
	cr_assert_eq(quarry_page_id_length(made), 0xfff);
	cr_assert_eq(made64, UINT64_MAX);
	cr_assert_eq(quarry_page_id64_index(made64), 0xffffff);
	cr_assert_eq(quarry_page_id64_length(made64), 0xfff);
	cr_assert_eq(quarry_page_id64_generation(made64), 0xfffffff);
	cr_assert_eq(quarry_page_id_make(0x100000, 1), 0);
	cr_assert_eq(quarry_page_id_make(1, 0x1000), 0);
	cr_assert_eq(quarry_page_id64_make(0x1000000, 1, 1), 0);
	cr_assert_eq(quarry_page_id64_make(1, 0x1000, 1), 0);
	cr_assert_eq(quarry_page_id64_make(1, 1, 0x10000000), 0);

	last = quarry_pages_alloc_at(pages, quarry_pages_at(pages, 1 << 20), 1);
	longest = quarry_pages_alloc(pages, 4096);
	fits = quarry_pages_alloc(pages, 4095);
	cr_assert(last != NULL && longest != NULL && fits != NULL);
	expect_errno(quarry_pages_to_id(pages, last, &id) == -1, EOVERFLOW);
	cr_expect_eq(quarry_pages_to_id64(pages, last, &id64), 0);
	cr_expect_eq(quarry_pages_resolve(pages, id64, &bytes), last);
	cr_expect_eq(bytes, 4 * KIB);
	expect_errno(quarry_pages_to_id(pages, longest, &id) == -1, EOVERFLOW);
	expect_errno(quarry_pages_to_id64(pages, longest, &id64) == -1, EOVERFLOW);
	cr_expect_eq(quarry_pages_to_id(pages, fits, &id), 0);
	cr_expect_eq(quarry_pages_from_id(pages, id, &bytes), fits);
	cr_expect_eq(bytes, 4095 * 4 * KIB);
	cr_expect_eq(quarry_pages_free_id(pages, id), 0);
	expect_errno(quarry_pages_from_id(pages, id, NULL) == NULL, ESTALE);
	expect_errno(quarry_pages_free_id(pages, id) == -1, ESTALE);
	expect_errno(quarry_pages_from_id(pages, 0, NULL) == NULL, EINVAL);
	expect_errno(quarry_pages_resolve(pages, 0, NULL) == NULL, EINVAL);
	expect_errno(quarry_pages_resolve(pages, quarry_page_id64_make((1 << 20) + 9, 2, 1), NULL) == NULL, EINVAL);
	expect_errno(quarry_pages_resolve(pages, quarry_page_id64_make(1, 1, 0), NULL) == NULL, EINVAL);
	expect_errno(quarry_pages_free_id64(pages, UINT64_MAX) == -1, EINVAL);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Made, refused, ended                                                                                   */

static quarry_pages *make_wrong(quarry_pages_attr attr)
{
	return quarry_pages_create(&attr);
}

Test(pages, what_is_wrong_is_named)
{
	quarry_arena_attr memory = { .name = "wrong" };
	quarry_arena *arena = quarry_arena_create(NULL);

	expect_errno(quarry_pages_create(NULL) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 0 }) == NULL, EINVAL);
	cr_expect_not_null(strstr(quarry_error_text(), "count"));
	expect_errno(make_wrong((quarry_pages_attr){ .count = (uint64_t)1 << 32 }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .page_size = 2048 }) == NULL, EINVAL);
	cr_expect_not_null(strstr(quarry_error_text(), "page_size"));
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .page_size = 12288 }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .page_size = 4 * MIB }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .struct_size = 7 }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .flags = 2 }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .generation_bits = 29 }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .arena = arena, .memory = &memory }) == NULL, EINVAL);
	expect_errno(make_wrong((quarry_pages_attr){ .count = UINT32_MAX, .page_size = 2 * MIB }) == NULL, ENOMEM);
	memory.policy = 99;
	expect_errno(make_wrong((quarry_pages_attr){ .count = 1, .memory = &memory }) == NULL, EINVAL);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(pages, calls_with_wrong_arguments_are_told)
{
	quarry_pages *pages = make(100, 4 * KIB, 0);
	char not_pages[4096] __attribute__((aligned(64))) = "";
	quarry_pages *none = (quarry_pages *)(void *)not_pages;
	char *p = quarry_pages_alloc(pages, 10);
	quarry_pages_stats stats = { .struct_size = 3 };
	quarry_page_id id;

	cr_assert_not_null(p);
	expect_errno(quarry_pages_alloc(NULL, 1) == NULL, EINVAL);
	expect_errno(quarry_pages_alloc(none, 1) == NULL, EINVAL);
	expect_errno(quarry_pages_alloc(pages, 0) == NULL, EINVAL);
	expect_errno(quarry_pages_alloc(pages, 101) == NULL, ENOMEM);
	expect_errno(quarry_pages_alloc(pages, UINT64_MAX) == NULL, ENOMEM);
	expect_errno(quarry_pages_alloc_aligned(pages, 1, 0) == NULL, EINVAL);
	expect_errno(quarry_pages_alloc_aligned(pages, 1, 4 * MIB) == NULL, EINVAL);
	expect_errno(quarry_pages_alloc_at(pages, p + 1, 1) == NULL, EINVAL);
	expect_errno(quarry_pages_alloc_at(pages, p + 10 * 4 * KIB, UINT64_MAX) == NULL, EINVAL);
	cr_expect_eq(quarry_pages_free(pages, NULL), 0);
	expect_errno(quarry_pages_free(pages, &id) == -1, EINVAL);
	expect_errno(quarry_pages_free(pages, p - 4 * KIB) == -1, EINVAL);
	expect_errno(quarry_pages_free(pages, p + 400 * KIB) == -1, EINVAL);
	expect_errno(quarry_pages_free(pages, p + 4 * KIB) == -1, EINVAL);
	cr_expect_not_null(strstr(quarry_error_text(), "inside a run"));
	expect_errno(quarry_pages_free(pages, p + 40 * KIB) == -1, EINVAL);
	cr_expect_not_null(strstr(quarry_error_text(), "is free"));
	expect_errno(quarry_pages_resize(pages, p, 0) == -1, EINVAL);
	expect_errno(quarry_pages_resize(pages, p, UINT64_MAX) == -1, ENOMEM);
	expect_errno(quarry_pages_split(pages, p, 0) == NULL, EINVAL);
	expect_errno(quarry_pages_split(pages, p, 10) == NULL, EINVAL);
	expect_errno(quarry_pages_to_id(pages, p, NULL) == -1, EINVAL);
	expect_errno(quarry_pages_to_id(pages, p + 4 * KIB, &id) == -1, EINVAL);
	expect_errno(quarry_pages_walk(pages, NULL, NULL) == -1, EINVAL);
	expect_errno(quarry_pages_stats_get(pages, &stats) == -1, EINVAL);
	expect_errno(quarry_pages_stats_get(pages, NULL) == -1, EINVAL);
	cr_expect_eq(stats_of(pages).failed, 2);
	cr_expect_eq(quarry_pages_destroy(pages), 0);
	expect_errno(quarry_pages_destroy(none) == -1, EINVAL);
}

static uint64_t in_use(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats.in_use;
}

Test(pages, made_in_an_arena_or_in_one_of_their_own)
{
	quarry_arena_attr memory = { .page_kind = QUARRY_PAGES_BASE, .name = "pages of their own" };
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_pages_attr inside = { .count = 1000, .arena = arena }, own = { .count = 1000, .memory = &memory };
	quarry_pages *pages = quarry_pages_create(&inside);
	size_t arenas = quarry_arenas(NULL, 0);

	cr_assert_not_null(pages);
	cr_expect_eq(quarry_pages_arena(pages), arena);
	cr_expect_eq(quarry_arena_of(quarry_pages_alloc(pages, 1)), arena);
	cr_expect_geq(in_use(arena), 4000 * KIB);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	quarry_thread_flush();
	cr_expect_lt(in_use(arena), 100 * KIB);

	pages = quarry_pages_create(&own);
	cr_assert_not_null(pages);
	cr_expect_str_eq(quarry_arena_name(quarry_pages_arena(pages)), "pages of their own");
	cr_expect_eq(quarry_arenas(NULL, 0), arenas + 1);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	cr_expect_eq(quarry_arenas(NULL, 0), arenas);
	memory.hard_limit = 3 * MIB;
	expect_errno(quarry_pages_create(&own) == NULL, ENOMEM);
	cr_expect_eq(quarry_arenas(NULL, 0), arenas);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

static uint64_t resident_in(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats.resident;
}

static uint64_t resident(quarry_pages *pages)
{
	return resident_in(quarry_pages_arena(pages));
}

/* 512 MiB cost next to nothing until they are used, and what was used goes back; populated ones are there at once. */
Test(pages, memory_comes_when_it_is_touched_and_goes_by_a_purge)
{
	quarry_arena_attr memory = { .page_kind = QUARRY_PAGES_BASE };
	quarry_pages_attr attr = { .count = 131072, .memory = &memory };
	quarry_pages *pages = quarry_pages_create(&attr);
	uint64_t start;
	char *p;

	cr_assert_not_null(pages);
	start = resident(pages);
	cr_assert_lt(start, MIB);
	p = quarry_pages_alloc(pages, 4096);
	cr_assert_not_null(p);
	memset(p, 1, 16 * MIB);
	cr_expect_geq(resident(pages), 16 * MIB);
	cr_expect_eq(quarry_pages_purge(pages, 0), 0);
	cr_assert_eq(quarry_pages_resize(pages, p, 1), 0);
	cr_expect_eq(quarry_pages_purge(pages, 0), 4095 * 4 * KIB);
	cr_expect_eq(stats_of(pages).purged, 4095 * 4 * KIB);
	cr_expect_lt(resident(pages), start + MIB);
	cr_expect_eq(p[100], 1);
	cr_assert_eq(quarry_pages_destroy(pages), 0);

	attr.count = 2048;
	attr.flags = QUARRY_PAGES_POPULATED;
	pages = quarry_pages_create(&attr);
	cr_assert_not_null(pages);
	cr_expect_geq(resident(pages), 8 * MIB);
	cr_expect_eq(stats_of(pages).dirty, 2048);
	cr_expect_eq(quarry_pages_purge(pages, 0), 8 * MIB);
	cr_expect_lt(resident(pages), MIB);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* What was in an arena's memory before is in no page, however many there are: it went back, or, in memory that does not
 * go in parts, was cleared. */
static void make_where_others_were(quarry_arena_attr memory, bool goes)
{
	quarry_arena *arena = quarry_arena_create(&memory);

	cr_assert_not_null(arena);
	for (uint64_t count = 1; count <= 4096; count *= 4) {
		quarry_pages_attr attr = { .count = count, .arena = arena };
		quarry_pages *pages = quarry_pages_create(&attr);
		char *p = quarry_pages_alloc(pages, count);
		uint64_t before;

		cr_assert_not_null(p);
		memset(p, 0xaa, count * 4 * KIB);
		cr_assert_eq(quarry_pages_destroy(pages), 0);
		before = resident_in(arena);
		pages = quarry_pages_create(&attr);
		cr_assert_not_null(pages);
		cr_expect_eq(stats_of(pages).dirty, goes ? 0 : count);
		if (goes && quarry_pages_at(pages, 0) == (void *)p && count >= 1024)
			cr_expect_lt(resident_in(arena), before - count * 3 * KIB, "%lu of %lu",
				     (unsigned long)resident_in(arena), (unsigned long)before);
		p = quarry_pages_alloc(pages, count);
		for (size_t i = 0; i < count * 4 * KIB; i++)
			model_must(p[i] == 0, "byte %lu of %lu pages", (unsigned long)i, (unsigned long)count);
		cr_assert_eq(quarry_pages_destroy(pages), 0);
	}
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(pages, pages_that_nobody_had_are_zero)
{
	make_where_others_were((quarry_arena_attr){ .page_kind = QUARRY_PAGES_BASE }, true);
	make_where_others_were((quarry_arena_attr){ .page_kind = QUARRY_PAGES_THP }, true);
	make_where_others_were((quarry_arena_attr){ .flags = QUARRY_ARENA_FD }, true);
	make_where_others_were((quarry_arena_attr){ .flags = QUARRY_ARENA_LOCKED }, false);
}

/* Memory files go back as holes; what does not go in parts stays, with its contents, and is as dirty as it was. */
static void purge_in(quarry_arena_attr memory, bool goes)
{
	quarry_pages_attr attr = { .count = 600, .memory = &memory };
	quarry_pages *pages = quarry_pages_create(&attr);
	char *p, wanted = goes ? 0 : 'x';

	cr_assert_not_null(pages, "errno %d: %s", errno, quarry_error_text());
	p = quarry_pages_alloc(pages, 600);
	cr_assert_not_null(p);
	memset(p, 'x', 600 * 4 * KIB);
	cr_assert_eq(quarry_pages_free(pages, p), 0);
	cr_expect_eq(quarry_pages_purge(pages, 0), goes ? 600 * 4 * KIB : 0);
	cr_expect_eq(stats_of(pages).dirty, goes ? 0 : 600);
	cr_assert_eq(quarry_pages_alloc(pages, 600), p);
	for (size_t i = 0; i < 600 * 4 * KIB; i++)
		model_must(p[i] == wanted, "byte %lu", (unsigned long)i);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

Test(pages, what_does_not_go_back_stays_as_it_is)
{
	purge_in((quarry_arena_attr){ .page_kind = QUARRY_PAGES_THP }, true);
	purge_in((quarry_arena_attr){ .flags = QUARRY_ARENA_FD }, true);
	purge_in((quarry_arena_attr){ .flags = QUARRY_ARENA_LOCKED }, false);
}

static void *free_in_another_thread(void *pair)
{
	void **of = pair;

	cr_assert_eq(quarry_pages_free(of[0], of[1]), 0);
	return NULL;
}

/* Room for a run of three groups that begins in the first, and grew to that by a free in the third, of which the hint
 * for the first knows nothing; and the thread's search begins behind it. */
Test(pages, room_that_hints_do_not_know_of)
{
	quarry_pages *pages = make(6 * 4096, 4 * KIB, 0);
	pthread_t thread;
	void *part[3];

	for (int i = 0; i < 3; i++)
		cr_assert_not_null(part[i] = quarry_pages_alloc(pages, 4096));
	cr_assert_not_null(quarry_pages_alloc(pages, 3 * 4096));
	for (int i = 0; i < 3; i++) {
		void *of[] = { pages, part[i] };

		cr_assert_null(quarry_pages_alloc(pages, 3 * 4096));
		cr_assert_eq(pthread_create(&thread, NULL, free_in_another_thread, of), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
	}
	cr_expect_eq(quarry_pages_alloc(pages, 3 * 4096), part[0]);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* The same for a single page, in a word of which a summary says that it is full. (So it may be for a moment, and for
 * ever in a child, where a fork cut off who would have cleared it.) */
Test(pages, a_page_that_a_summary_hides)
{
	quarry_pages *pages = make(4096, 4 * KIB, 0);
	pthread_t thread;
	void *of[] = { pages, NULL }, *p = quarry_pages_alloc(pages, 4095);

	cr_assert(p != NULL && quarry_pages_alloc(pages, 1) != NULL);
	cr_assert_not_null(of[1] = quarry_pages_split(pages, p, 700));
	cr_assert_not_null(quarry_pages_split(pages, of[1], 1));
	cr_assert_eq(pthread_create(&thread, NULL, free_in_another_thread, of), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	pages->full[0] |= (uint64_t)1 << 700 / 64;
	cr_expect_eq(quarry_pages_alloc(pages, 1), of[1]);
	cr_expect_eq(pages->looks, 1);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* More threads than have a line of their own for their counts, at once and one after the other. */
static void *use_a_little(void *pages)
{
	for (int i = 0; i < 100; i++)
		model_must(quarry_pages_free(pages, quarry_pages_alloc(pages, 1 + (uint64_t)i % 3)) == 0, "errno %d", errno);
	return NULL;
}

Test(pages, any_number_of_threads)
{
	quarry_pages *pages = make(6400, 4 * KIB, 0);
	uint64_t epoch = quarry_pages_epoch(pages);
	pthread_t thread[100];

	for (int i = 0; i < 100; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, use_a_little, pages), 0);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(pthread_create(&thread[0], NULL, use_a_little, pages), 0);
		cr_assert_eq(pthread_join(thread[0], NULL), 0);
	}
	cr_expect_eq(quarry_pages_epoch(pages), epoch + 200 * 200);
	cr_expect_eq(stats_of(pages).allocated, 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

static int stop_at_second(const quarry_run *run, void *ctx)
{
	int *count = ctx;

	(void)run;
	return ++*count == 2 ? 77 : 0;
}

Test(pages, a_walk_ends_when_it_is_told_to)
{
	quarry_pages *pages = make(10, 4 * KIB, 0);
	int count = 0;

	for (int i = 0; i < 3; i++)
		cr_assert_not_null(quarry_pages_alloc(pages, 2));
	cr_expect_eq(quarry_pages_walk(pages, stop_at_second, &count), 77);
	cr_expect_eq(count, 2);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* The child's pages are a copy: what it does with them the parent does not see. */
Test(pages, a_forked_child_has_a_copy)
{
	quarry_pages *pages = make(100, 4 * KIB, 0);
	char *p = quarry_pages_alloc(pages, 3), *q;
	quarry_pages_stats stats = { .struct_size = sizeof stats };
	pid_t child;
	int status;

	cr_assert_not_null(p);
	memset(p, 'p', 3 * 4 * KIB);
	child = fork();
	if (child == 0) {
		q = quarry_pages_alloc(pages, 5);
		if (q == NULL || p[4 * KIB] != 'p' || quarry_pages_free(pages, p) != 0)
			_exit(1);
		memset(q, 'c', 5 * 4 * KIB);
		/* (No assertion of Criterion's: there it is the parent's.) */
		_exit(quarry_pages_stats_get(pages, &stats) == 0 && stats.allocated == 5 && stats.free == 95 ? 0 : 2);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_expect_eq(status, 0);
	cr_expect_eq(stats_of(pages).allocated, 3);
	cr_expect_eq(quarry_pages_free(pages, p), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* A thread that is in the middle of something, with pages in hand, for as long as it is told to be. */
static struct {
	quarry_pages *pages;
	pthread_barrier_t barrier;
	atomic_bool stop;
} busy;

static void *be_busy(void *unused)
{
	struct qy_pages_stripe *stripe = qy_pages_begin(busy.pages);

	cr_assert(qy_pages_claim(busy.pages, 60, 7));
	pthread_barrier_wait(&busy.barrier);
	pthread_barrier_wait(&busy.barrier);
	qy_pages_release(busy.pages, 60, 7);
	qy_pages_end(busy.pages, stripe);
	return unused;
}

/* In the child, alone, and then with threads of its own: how many pages are lost; -1 where figures are of no moment, or
 * are wrong. (Status of an exit, for there no assertion of Criterion's counts.) */
static int look_in_child(quarry_pages *pages)
{
	quarry_pages_stats stats = { .struct_size = sizeof stats };
	uint64_t allocated = UINT64_MAX;
	pthread_t thread[40];

	for (int round = 0; round < 2; round++) {
		if (quarry_pages_stats_get(pages, &stats) != 0 || stats.coherent != 1 ||
		    (round == 1 && stats.allocated != allocated) || stats.committed != stats.allocated + stats.free ||
		    stats.count != stats.committed + stats.lost)
			return 255;
		allocated = stats.allocated;
		if (quarry_pages_epoch(pages) != quarry_pages_epoch(pages))
			return 254;
		for (int i = 0; i < 40; i++)
			if (pthread_create(&thread[i], NULL, use_a_little, pages) != 0)
				return 253;
		for (int i = 0; i < 40; i++)
			pthread_join(thread[i], NULL);
	}
	return (int)stats.lost;
}

static int lost_in_child(quarry_pages *pages)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(look_in_child(pages));
	model_must(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status), "errno %d", errno);
	return WEXITSTATUS(status);
}

/* What another thread was at when its process forked is over in the child: figures there are of one moment, and tell
 * what is lost. And in the child of a child. */
Test(pages, a_fork_in_the_middle_of_something)
{
	quarry_pages *pages = busy.pages = make(400, 4 * KIB, 0);
	pthread_t thread;
	pid_t child;
	int status;

	pthread_barrier_init(&busy.barrier, NULL, 2);
	cr_assert_eq(quarry_pages_alloc_at(pages, quarry_pages_at(pages, 0), 1), quarry_pages_at(pages, 0));
	cr_assert_eq(pthread_create(&thread, NULL, be_busy, NULL), 0);
	pthread_barrier_wait(&busy.barrier);
	cr_expect_eq(lost_in_child(pages), 7);
	child = fork();
	if (child == 0)
		_exit(lost_in_child(pages));
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	pthread_barrier_wait(&busy.barrier);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(stats_of(pages).allocated, 1);
	cr_expect_eq(lost_in_child(pages), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* Nobody who looks before an operation and in the middle of it, or in the middle and after it, or twice in the middle,
 * has the same number. */
Test(pages, no_change_goes_by_unseen)
{
	quarry_pages *pages = busy.pages = make(400, 4 * KIB, 0);
	uint64_t seen[6] = { quarry_pages_epoch(pages) };
	quarry_pages_stats stats = { .struct_size = sizeof stats };
	pthread_t thread;

	cr_expect_eq(quarry_pages_epoch(pages), seen[0]);
	pthread_barrier_init(&busy.barrier, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, be_busy, NULL), 0);
	pthread_barrier_wait(&busy.barrier);
	seen[1] = quarry_pages_epoch(pages);
	seen[2] = quarry_pages_epoch(pages);
	cr_assert_eq(quarry_pages_stats_get(pages, &stats), 0);
	cr_expect_eq(stats.coherent, 0);
	seen[3] = stats.epoch;
	cr_assert_eq(quarry_pages_stats_get(pages, &stats), 0);
	seen[4] = stats.epoch;
	pthread_barrier_wait(&busy.barrier);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	seen[5] = quarry_pages_epoch(pages);
	cr_expect_eq(quarry_pages_epoch(pages), seen[5]);
	cr_expect_eq(stats_of(pages).epoch, seen[5]);
	for (int i = 0; i < 6; i++)
		for (int k = 0; k < i; k++)
			cr_expect_neq(seen[i], seen[k], "%d and %d", i, k);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* How many looks at everything a failing call takes, which ends with that error. */
static uint64_t looks_in_vain(quarry_pages *pages, uint64_t n, size_t alignment, int error)
{
	uint64_t before = pages->looks;

	expect_errno(quarry_pages_alloc_aligned(pages, n, alignment) == NULL, error);
	return pages->looks - before;
}

/* When all is in use, a call in vain is as cheap as it can be: one look when nobody else is here (also in a child,
 * where the other's operation was cut off), and a few, the fewer the more there is to see, when somebody is in the
 * middle of something and does not go on for as long as the call has patience: then it is not known whether there is
 * room. */
Test(pages, in_vain_is_told_after_few_looks)
{
	static const struct {
		uint64_t count, looks;
	} of[] = { { 1 << 20, 4 }, { 1 << 18, 4 }, { 1 << 17, 8 }, { 4096, 64 } };

	for (int i = 0; i < 4; i++) {
		quarry_pages *pages = busy.pages = make(of[i].count, 4 * KIB, 0);
		pthread_t thread;
		pid_t child;
		int status;

		pages->patience_ms = 20;
		pthread_barrier_init(&busy.barrier, NULL, 2);
		cr_assert_eq(pthread_create(&thread, NULL, be_busy, NULL), 0);
		pthread_barrier_wait(&busy.barrier);
		cr_assert_not_null(quarry_pages_alloc_at(pages, quarry_pages_at(pages, 0), 60));
		cr_assert_not_null(quarry_pages_alloc(pages, of[i].count - 68));
		cr_expect_eq(looks_in_vain(pages, 2, 4 * KIB, EAGAIN), of[i].looks);
		cr_assert_not_null(quarry_pages_alloc(pages, 1));
		cr_expect_eq(looks_in_vain(pages, 1, 4 * KIB, EAGAIN), of[i].looks);
		cr_expect_eq(looks_in_vain(pages, 1, 8 * KIB, EAGAIN), of[i].looks);
		child = fork();
		if (child == 0)
			_exit((int)looks_in_vain(pages, 1, 4 * KIB, ENOMEM));
		cr_assert_eq(waitpid(child, &status, 0), child);
		cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", (unsigned)status);
		pthread_barrier_wait(&busy.barrier);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cr_assert_not_null(quarry_pages_alloc(pages, 7));
		cr_expect_eq(looks_in_vain(pages, 1, 4 * KIB, ENOMEM), 1);
		cr_expect_eq(looks_in_vain(pages, 5, 4 * KIB, ENOMEM), 1);
		cr_assert_eq(quarry_pages_destroy(pages), 0);
	}
}

static void *churn(void *pages)
{
	pthread_barrier_wait(&busy.barrier);
	for (uint64_t n = 1; !busy.stop; n = n % 90 + 1)
		model_must(quarry_pages_free(pages, quarry_pages_alloc(pages, n)) == 0, "errno %d", errno);
	return NULL;
}

/* (No message to Criterion's runner between the forks, and the first one waits until the thread has begun, for it is
 * AddressSanitizer that allocates there: see model.h.) */
Test(pages, forks_while_a_thread_comes_and_goes)
{
	quarry_pages *pages = make(400, 4 * KIB, 0);
	pthread_t thread;

	model_must(quarry_pages_alloc_at(pages, quarry_pages_at(pages, 0), 1) != NULL, "errno %d", errno);
	pthread_barrier_init(&busy.barrier, NULL, 2);
	model_must(pthread_create(&thread, NULL, churn, pages) == 0, "a thread");
	pthread_barrier_wait(&busy.barrier);
	for (int i = 0; i < 50; i++) {
		int lost = lost_in_child(pages);

		model_must(lost <= 90, "%d", lost);
	}
	busy.stop = true;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(stats_of(pages).allocated, 1);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* ------------------------------------------------------------------------------------------------------ */
/* quarry_discard, which a purge rests on                                                                 */

Test(pages, discarding_a_part_of_a_block_clears_it_and_nothing_else)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	char *p = quarry_arena_malloc(arena, 3 * MIB), *small = quarry_malloc(100);
	int on_the_stack = 0;

	cr_assert(p != NULL && small != NULL);
	memset(p, 1, 3 * MIB);
	cr_assert_eq(quarry_discard(p + 5000, 2 * MIB), 0);
	for (size_t i = 0; i < 3 * MIB; i++)
		model_must(p[i] == (i < 5000 || i >= 5000 + 2 * MIB), "byte %lu", (unsigned long)i);
	memset(small, 1, 100);
	cr_assert_eq(quarry_discard(small + 10, 20), 0);
	for (int i = 0; i < 100; i++)
		model_must(small[i] == (i < 10 || i >= 30), "byte %d", i);
	cr_expect_eq(quarry_discard(p, 0), 0);
	expect_errno(quarry_discard(p + MIB, 3 * MIB) == -1, EINVAL);
	expect_errno(quarry_discard(&on_the_stack, 1) == -1, EINVAL);
	expect_errno(quarry_discard(NULL, 1) == -1, EINVAL);
	quarry_free(small);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}
