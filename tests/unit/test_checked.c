/* SPDX-License-Identifier: MIT */
/* The option checked: late uses of blocks are found, by the call, by what was written, or by a fault; at a bounded cost, and
 * with nothing left closed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/stack.h"
#include "lib/base/base.h"
#include "lib/object/apart.h"
#include "lib/object/quarantine.h"
#include "numa/os.h"
#include "tests/unit/blocks.h"

#define GIB ((size_t)1 << 30)

static const size_t sizes[] = { 0, 1, 16, 17, 48, 64, 100, 500, 1000, 3000, 8 * KIB, 20 * KIB, 40 * KIB, 70 * KIB,
				200 * KIB, MIB, 5 * MIB };

static quarry_block_figures figures(void)
{
	quarry_block_figures f;

	cr_assert_eq(quarry_block_figures_get(&f, sizeof f), 0);
	return f;
}

static void check_from_now_on(void)
{
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
}

static uint64_t bad_frees(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats.bad_frees;
}

/* Whether a child that looks at a byte, or writes it, has a SIGSEGV. */
static bool faults(volatile unsigned char *p, bool writes)
{
	static const struct rlimit no_core = { 0, 0 };
	pid_t pid = fork();
	int status;

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		setrlimit(RLIMIT_CORE, &no_core);
		if (writes)
			*p = 1;
		_exit(*p == 77 ? 77 : 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) || WIFEXITED(status), "status %d", status);
	return WIFSIGNALED(status);
}

/* Whether it faults in the same way, asked of the kernel. */
static bool is_closed(const void *p)
{
	char byte;
	int r = qy_os->copy(&byte, p, 1);

	cr_assert(r == 0 || errno == EFAULT, "errno %d", errno);
	return r != 0;
}

/* The block ends; whether its pages are closed then. */
static bool ends_closed(quarry_block *b)
{
	const void *p = b->p;

	cr_assert_eq(quarry_block_unref(b), 1);
	return is_closed(p);
}

/* A sample: the others that it takes to have one end, and nothing is held. */
static quarry_block sample(size_t n)
{
	for (unsigned i = 0; i < 2 * QY_APART_EVERY; i++) {
		quarry_block b = quarry_block_alloc(NULL, n);

		if (qy_apart_has(b.p))
			return b;
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	cr_assert_fail("none is a sample");
	return (quarry_block){ NULL };
}

static void nothing_is_held(void)
{
	quarry_block_figures f = figures();

	cr_assert(f.quarantined == 0 && f.quarantined_bytes == 0 && f.closed == 0 && f.closed_bytes == 0,
		  "%llu blocks, %llu bytes; %llu and %llu closed", (unsigned long long)f.quarantined,
		  (unsigned long long)f.quarantined_bytes, (unsigned long long)f.closed,
		  (unsigned long long)f.closed_bytes);
}

/* ---- what is found ---- */

Test(checked, a_block_that_is_none_is_no_mistake)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	quarry_block b = { .p = NULL };
	uint64_t bad;

	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	quarry_stats_get(NULL, &stats);
	bad = stats.bad_frees;
	for (unsigned i = 0; i < 2; i++) {
		const quarry_block *none = i == 0 ? NULL : &b;

		errno = 0;
		cr_assert(quarry_block_seg(none).p == NULL && errno == EINVAL);
		errno = 0;
		cr_assert(quarry_weak_of(none).p == NULL && errno == EINVAL);
		errno = 0;
		cr_assert(quarry_block_borrow(none, NULL) == -1 && errno == EINVAL);
		errno = 0;
		cr_assert(quarry_block_give_back(none) == -1 && errno == EINVAL);
		errno = 0;
		cr_assert(quarry_block_at_end(none, NULL) == -1 && errno == EINVAL);
	}
	quarry_stats_get(NULL, &stats);
	cr_assert_eq(stats.bad_frees, bad);
	cr_assert_eq(quarry_ctl_set("checked", "0"), 0);
}

/* Who asks as it ends is told so, and has made no mistake; who lets go of it late has. */
Test(checked, to_ask_late_is_no_mistake)
{
	quarry_block b, late;
	uint64_t bad;

	check_from_now_on();
	b = late = quarry_block_alloc(NULL, 100);
	cr_assert_eq(quarry_block_unref(&b), 1);
	bad = bad_frees();
	errno = 0;
	cr_assert(quarry_block_seg(&late).p == NULL && errno == ESTALE);
	errno = 0;
	cr_assert(quarry_weak_of(&late).p == NULL && errno == ESTALE);
	refused(quarry_block_borrow(&late, NULL), ESTALE);
	cr_assert_eq(bad_frees(), bad);
	refused(quarry_block_give_back(&late), ESTALE);
	refused(quarry_block_unref(&late), ESTALE);
	cr_assert_eq(bad_frees(), bad + 2);
}

static quarry_block *own;

static void it_is_none_by_now(void *p)
{
	cr_assert_eq(own, p);
	cr_assert(own->p == NULL && own->count == NULL);
}

/* A handle in the block that it is of: nothing is written there once it is gone. */
Test(checked, a_handle_in_its_own_block)
{
	for (unsigned i = 0; i < 3; i++) {
		quarry_block b;

		cr_assert_eq(quarry_ctl_set("checked", i == 0 ? "0" : "1"), 0);
		b = i == 2 ? sample(100) : quarry_block_alloc(NULL, 100);
		own = memcpy(b.p, &b, sizeof b);
		cr_assert_eq(quarry_block_at_end(own, it_is_none_by_now), 0);
		cr_assert_eq(quarry_block_borrow(own, NULL), 0);
		refused(quarry_block_unref(own), EBUSY);
		cr_assert_eq(memcmp(own, &b, sizeof b), 0, "an error leaves it");
		cr_assert_eq(quarry_block_give_back(own), 0);
		cr_assert_eq(quarry_block_unref(own), 1);
		cr_assert_eq(quarry_block_check(0), 0);
		cr_assert_eq(figures().late_writes, 0);
	}
}

/* Each way to use a block late, at every size, is caught: by the call, by what was written, or by a fault. */
Test(checked, every_late_use_is_caught)
{
	uint64_t planted = 0, caught = 0, written = 0, closed = 0, bad;

	check_from_now_on();
	bad = bad_frees();
	for (unsigned round = 0; round < 40; round++)
		for (unsigned i = 0; i < COUNT(sizes); i++) {
			quarry_block b = quarry_block_alloc(NULL, sizes[i]), copy = b;
			quarry_weak w = quarry_weak_of(&b);
			size_t usable = quarry_usable_size(b.p), at = (round * 97 + i * 31) % usable;

			memset(b.p, 0x11, sizes[i]);
			planted += 5;
			if (ends_closed(&b)) {
				closed++;
				caught += faults((unsigned char *)copy.p + usable - 1, false) &&
					  faults((unsigned char *)copy.p + at, true) && quarry_block_check(0) == 0;
			} else {
				cr_assert_leq(usable, 4 * MIB);
				for (size_t k = 0; k < usable; k += usable / 8 + 1)
					cr_assert_eq(((unsigned char *)copy.p)[k], 0xde, "what is read late is seen to be none");
				((unsigned char *)copy.p)[at] ^= (unsigned char)(1 << round % 8);
				caught += quarry_block_check(0) == 1;
				written++;
			}
			caught += quarry_unref(copy.p) == -1 && errno == ESTALE;
			caught += quarry_block_unref(&copy) == -1 && errno == ESTALE;
			caught += quarry_ref(copy.p) == -1 && errno == ESTALE;
			caught += quarry_weak_lock(w, &b) == -1 && errno == ESTALE;
		}
	cr_assert_eq(caught, planted);
	cr_assert_eq(figures().late_writes, written);
	cr_assert_eq(bad_frees() - bad, planted / 5 * 2 + written, "two late releases of each, and late writes");
	cr_assert_eq(closed, 40 + 40 * (COUNT(sizes) - 1) / QY_APART_EVERY, "the large ones, and samples");
	cr_assert_gt(figures().quarantined, 0);
	cr_assert_leq(figures().quarantined_bytes, 16 * MIB);
	cr_assert_leq(figures().quarantined, 1024 + QY_APART_MOST / 2);
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	nothing_is_held();
}

/* Written to after it ended, and found when others take its place. */
Test(checked, late_writes_are_found_as_blocks_go)
{
	enum { MANY = 500 };
	unsigned written = 0;

	check_from_now_on();
	for (unsigned i = 0; i < MANY; i++) {
		quarry_block b = quarry_block_alloc(NULL, 64);
		unsigned char *p = b.p;

		if (!ends_closed(&b)) {
			p[i % 64]++;
			written++;
		}
	}
	for (unsigned i = 0; i < 2000; i++)
		quarry_unref(quarry_block_alloc(NULL, 64).p);
	cr_assert_eq(figures().late_writes, written);
	cr_assert_leq(figures().quarantined, 1024 + QY_APART_MOST / 2);
}

/* What can end with its manager is not held back: nothing is looked at, filled or freed that is another's by then. */
Test(checked, checked_holds_nothing_that_can_go)
{
	quarry_stack *s = quarry_stack_create(NULL);

	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	for (unsigned i = 0; i < 3; i++) {
		quarry_arena_attr named = { .name = "node 0" };
		quarry_arena *arena = quarry_arena_create(i == 1 ? &named : NULL);
		quarry_block b = quarry_block_alloc(quarry_manager_of_arena(arena), 300 * KIB);
		void *p = b.p;

		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_eq(figures().quarantined, 0);
		if (i == 2) {
			cr_assert_eq(quarry_arena_reset(arena), 0);
			p = quarry_arena_malloc(arena, 300 * KIB);
			memset(p, 'A', 300 * KIB);
		}
		else
			cr_assert_eq(quarry_arena_destroy(arena), 0);
		cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
		if (i == 2)
			cr_assert_eq(((char *)p)[5], 'A');
	}
	quarry_unref(quarry_block_alloc(quarry_stack_manager(s), 1000).p);
	cr_assert_eq(figures().quarantined, 0);
	quarry_stack_destroy(s);
	quarry_unref(quarry_block_alloc(NULL, 1000).p);
	cr_assert_eq(figures().quarantined, 1);
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
}

/* ---- arenas that end meanwhile ---- */

static quarry_arena *ending;
static unsigned char *next_there;

static void destroy_it(void *p)
{
	(void)p;
	cr_assert_eq(quarry_arena_destroy(ending), 0);
}

/* What is there next, at the same address. */
static void reset_it(void *p)
{
	cr_assert_eq(quarry_arena_reset(ending), 0);
	for (unsigned i = 0; i < 20000 && next_there != p; i++)
		next_there = quarry_arena_malloc(ending, 3000);
	cr_assert_eq(next_there, p);
	memset(next_there, 'A', 3000);
}

/* Between a block's end and its memory's its arena goes: nothing is filled that is not there, or is another's, nor freed; with
 * the option and without. */
Test(checked, an_arena_goes_while_a_block_ends)
{
	for (unsigned i = 0; i < 4; i++) {
		quarry_block b;
		uint64_t bad;
		void *p;

		cr_assert_eq(quarry_ctl_set("checked", i / 2 ? "1" : "0"), 0);
		ending = quarry_arena_create(NULL);
		next_there = NULL;
		b = quarry_block_alloc(quarry_manager_of_arena(ending), 3000);
		cr_assert_eq(quarry_block_at_end(&b, i % 2 == 0 ? destroy_it : reset_it), 0);
		bad = bad_frees();
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_eq(bad_frees(), bad, "nor freed");
		if (i % 2 == 0)
			continue;
		for (unsigned k = 0; k < 3000; k++)
			cr_assert_eq(next_there[k], 'A', "byte %u", k);
		for (unsigned k = 0; k < 100; k++) {
			p = quarry_arena_malloc(ending, 3000);
			cr_assert_neq(p, next_there, "it is in use");
		}
		cr_assert_eq(quarry_arena_destroy(ending), 0);
	}
}

static size_t length;

/* Its addresses are a node's arena's next, at the same place. */
static void destroy_and_go_on(void *p)
{
	cr_assert_eq(quarry_arena_destroy(ending), 0);
	for (unsigned i = 0; i < 100000 && next_there != p; i++)
		next_there = quarry_malloc(length);
	cr_assert_eq(next_there, p, "it did not come again: this shows nothing");
	memset(next_there, 'A', length);
}

Test(checked, an_arena_becomes_a_nodes_while_a_block_ends)
{
	static const size_t lengths[] = { 3000, 3 * MIB };

	for (unsigned i = 0; i < 4; i++) {
		quarry_block b;
		uint64_t bad;

		length = lengths[i % 2];
		cr_assert_eq(quarry_ctl_set("checked", i / 2 ? "1" : "0"), 0);
		ending = quarry_arena_create(NULL);
		next_there = NULL;
		b = quarry_block_alloc(quarry_manager_of_arena(ending), length);
		cr_assert_eq(quarry_block_at_end(&b, destroy_and_go_on), 0);
		bad = bad_frees();
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_eq(bad_frees(), bad);
		cr_assert_eq(figures().quarantined, 0);
		for (size_t k = 0; k < length; k++)
			cr_assert_eq(next_there[k], 'A', "byte %zu", k);
		quarry_free(next_there);
		cr_assert_eq(bad_frees(), bad, "it is the owner's to free");
	}
}

static quarry_block given[200];
static _Atomic(unsigned) taken;

static void *end_some(void *arg)
{
	quarry_block b;

	(void)arg;
	for (unsigned i; (i = atomic_fetch_add(&taken, 1)) < COUNT(given);) {
		b = given[i];
		if (quarry_block_unref(&b) != 1)
			cr_assert_eq(errno, ESTALE);
	}
	return NULL;
}

/* The same of threads: what was reset meanwhile is used anew at once, and nobody writes to that, nor frees it. */
static void go_while_threads_end_blocks(void)
{
	enum { SIZE = 512 * 1024 };
	static unsigned char *p[50];

	for (unsigned round = 0; round < 40; round++) {
		quarry_arena *arena = quarry_arena_create(NULL);
		quarry_manager *m = quarry_manager_of_arena(arena);
		pthread_t thread[2];

		for (unsigned i = 0; i < COUNT(given); i++)
			given[i] = quarry_block_alloc(m, SIZE);
		atomic_store(&taken, 0);
		for (unsigned i = 0; i < COUNT(thread); i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, end_some, NULL), 0);
		while (atomic_load(&taken) < 2 * round)
			;
		cr_assert_eq(round % 2 ? quarry_arena_reset(arena) : quarry_arena_destroy(arena), 0);
		for (unsigned i = 0; i < COUNT(p) && round % 2; i++)
			p[i] = memset(quarry_arena_malloc(arena, SIZE), 'A', SIZE);
		for (unsigned i = 0; i < COUNT(thread); i++)
			pthread_join(thread[i], NULL);
		for (unsigned i = 0; i < COUNT(p) && round % 2; i++)
			cr_assert(p[i][0] == 'A' && memcmp(p[i], p[i] + 1, SIZE - 1) == 0, "block %u", i);
		for (unsigned i = 0; i < COUNT(p) && round % 2; i++)
			cr_assert_eq(quarry_arena_free(arena, p[i]), 0, "block %u was freed", i);
		if (round % 2)
			cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

Test(checked, arenas_go_while_threads_end_blocks)
{
	uint64_t bad = bad_frees();

	go_while_threads_end_blocks();
	cr_assert_eq(bad_frees(), bad, "without the option a late release is no mistake");
	check_from_now_on();
	go_while_threads_end_blocks();
}

/* Asking whose memory a block is says nothing of errors. */
Test(checked, no_error_is_told_of_what_goes_well)
{
	quarry_arena_attr named = { .name = "node 77" };
	quarry_arena *arena = quarry_arena_create(&named), *was;
	char text[256];

	check_from_now_on();
	cr_assert_eq(quarry_thread_set_arena(arena, &was), 0);
	refused(quarry_arena_destroy((quarry_arena *)text), EINVAL);
	snprintf(text, sizeof text, "%s", quarry_error_text());
	cr_assert_neq(text[0], 0);
	errno = 77;
	for (unsigned i = 0; i < 3 * QY_APART_EVERY; i++) {
		quarry_block b = quarry_block_alloc(i % 2 ? quarry_manager_of_arena(arena) : NULL, 100);

		cr_assert_eq(quarry_block_resize(&b, 3000, 0), 0);
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	cr_assert_eq(errno, 77);
	cr_assert_str_eq(quarry_error_text(), text);
	cr_assert_eq(quarry_thread_set_arena(was, NULL), 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* ---- samples ---- */

/* Every 64th has pages of its own, however many live with them: of these, 256 are samples still at their end, old ones and new
 * ones; and all can be used again afterwards. */
Test(checked, samples_are_closed_and_few)
{
	enum { MANY = 64 * 1024 };
	static quarry_block b[MANY];
	unsigned samples = 0, most = 0, old_ones = 0, new_ones = 0, still;
	bool closed;

	check_from_now_on();
	for (unsigned i = 0; i < MANY; i++) {
		b[i] = quarry_block_alloc(NULL, 100);
		cr_assert_not_null(b[i].p);
		cr_assert_eq(qy_apart_has(b[i].p), i % QY_APART_EVERY == QY_APART_EVERY - 1, "number %u", i);
		if (qy_apart_has(b[i].p)) {
			cr_assert((uintptr_t)b[i].p % 4096 == 0 && quarry_usable_size(b[i].p) % 4096 == 0);
			samples++;
		}
		memset(b[i].p, (int)i, 100);
	}
	cr_assert_eq(samples, MANY / QY_APART_EVERY);
	for (unsigned i = 0; i < MANY; i++) {
		old_ones += i < MANY / 2 && qy_apart_has(b[i].p);
		new_ones += i >= MANY / 2 && qy_apart_has(b[i].p);
	}
	still = old_ones + new_ones;
	cr_assert(still > QY_APART_MOST * 3 / 4 && still <= QY_APART_MOST, "%u samples still", still);
	cr_assert(old_ones >= 8 && old_ones < new_ones, "%u old ones, %u new ones", old_ones, new_ones);
	for (unsigned i = 0; i < MANY; i++) {
		quarry_block old = b[i];

		cr_assert_eq(((unsigned char *)b[i].p)[99], (unsigned char)i);
		closed = qy_apart_has(old.p);
		cr_assert_eq(ends_closed(&b[i]), closed);
		most = (unsigned)qy_max(most, figures().closed);
		refused(quarry_block_ref(&old), ESTALE);
		if (closed && i < 64 * 20)
			cr_assert(faults(old.p, false) && faults((unsigned char *)old.p + 4095, true));
	}
	cr_assert(most >= 100 && most <= QY_APART_MOST / 2, "%u closed at once", most);
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	nothing_is_held();
	/* All that the arena has can be written to; and there are samples again. */
	cr_assert_eq(quarry_ctl_set("checked", "0"), 0);
	for (unsigned i = 0; i < MANY; i++) {
		b[i] = quarry_block_alloc(NULL, i % 8 == 0 ? 4096 : 100);
		memset(b[i].p, 0x77, b[i].n);
	}
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(quarry_block_unref(&b[i]), 1);
	check_from_now_on();
	b[0] = sample(100);
	cr_assert(ends_closed(&b[0]));
}

/* A sample that ended leaves its place in the table to the next; what is held needs none. */
Test(checked, samples_go_on)
{
	unsigned samples = 0;
	void *last = NULL;

	check_from_now_on();
	for (unsigned i = 0; i < QY_APART_EVERY * 1000; i++) {
		quarry_block b = quarry_block_alloc(NULL, 100);

		if (qy_apart_has(b.p)) {
			samples++;
			last = b.p;
		}
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	cr_assert_eq(samples, 1000);
	cr_assert(!qy_apart_has(last) && is_closed(last));
	quarry_block_check(QUARRY_CHECK_RELEASE);
	nothing_is_held();
	cr_assert(!is_closed(last));
}

Test(checked, samples_are_aligned_and_resized_as_others_are)
{
	static const size_t to[] = { 5000, 1, 4096, 70 * KIB, 5 * MIB, 100, 0 };

	check_from_now_on();
	for (unsigned i = 0; i < 3 * QY_APART_EVERY; i++) {
		quarry_block b = quarry_block_alloc_aligned(NULL, 16 * KIB, 3000);

		cr_assert_eq((uintptr_t)b.p % (16 * KIB), 0);
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	for (unsigned i = 0; i < COUNT(to); i++) {
		quarry_block b = sample(3000), old = b;
		size_t both = to[i] < 3000 ? to[i] : 3000;
		unsigned char *p = memset(b.p, 0x44, 3000);

		cr_assert_eq(quarry_block_resize(&b, to[i], QUARRY_RESIZE_ZERO), 0);
		p = b.p;
		for (size_t k = 0; k < to[i]; k++)
			cr_assert_eq(p[k], k < both ? 0x44 : 0);
		if (old.p != b.p)
			cr_assert(faults(old.p, false) && !quarry_block_live(&old));
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	nothing_is_held();
}

/* Arenas that can end have none, neither by their manager nor as the thread's own. */
Test(checked, no_samples_where_memory_can_go)
{
	enum { MANY = 4 * QY_APART_EVERY };
	static quarry_block b[MANY];

	check_from_now_on();
	for (unsigned how = 0; how < 4; how++) {
		quarry_arena *arena = quarry_arena_create(NULL), *was;
		quarry_manager *m = how % 2 ? quarry_manager_of_arena(arena) : NULL;

		if (m == NULL)
			cr_assert_eq(quarry_thread_set_arena(arena, &was), 0);
		for (unsigned i = 0; i < MANY; i++) {
			b[i] = quarry_block_alloc(m, 200);
			cr_assert(quarry_arena_of(b[i].p) == arena && !qy_apart_has(b[i].p));
			memset(b[i].p, 1, 200);
		}
		for (unsigned i = 0; i < MANY; i += 2)
			cr_assert_eq(quarry_block_unref(&b[i]), 1);
		nothing_is_held();
		if (m == NULL)
			cr_assert_eq(quarry_thread_set_arena(was, NULL), 0);
		if (how < 2) {
			cr_assert_eq(quarry_arena_reset(arena), 0);
			for (unsigned i = 0; i < MANY; i++)
				memset(quarry_arena_malloc(arena, 4096), 2, 4096);
		}
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
	quarry_block_check(QUARRY_CHECK_RELEASE);
	nothing_is_held();
}

/* The child has closed what the parent has, opens its own, and nothing of the parent's. */
Test(checked, a_child_has_it_as_it_was)
{
	quarry_block small, large;
	unsigned char *p, *q;
	int status;
	pid_t pid;

	check_from_now_on();
	small = sample(100);
	large = quarry_block_alloc(NULL, 20 * MIB);
	p = small.p;
	q = large.p;
	cr_assert(ends_closed(&small) && ends_closed(&large));
	pid = fork();
	if (pid == 0) {
		bool ok = faults(p, false) && faults(q, false);

		quarry_block_check(QUARRY_CHECK_RELEASE);
		nothing_is_held();
		for (unsigned i = 0; i < 1000; i++)
			memset(quarry_malloc(4096), 1, 4096);
		memset(quarry_malloc(20 * MIB), 1, 20 * MIB);
		small = sample(100);
		_exit(ok && ends_closed(&small) ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(figures().closed, 2);
	cr_assert(faults(p, true) && faults(q + 20 * MIB - 1, true));
	quarry_block_check(QUARRY_CHECK_RELEASE);
	nothing_is_held();
}

/* Whatever else goes over the heap meanwhile touches none of it. */
Test(checked, all_else_goes_round_closed_pages)
{
	quarry_move_report moved = { .struct_size = sizeof moved };
	quarry_arena *arena;
	quarry_block small, large;
	unsigned char *p, *q;
	char *kept[200];
	int null = open("/dev/null", O_WRONLY), error;

	check_from_now_on();
	for (unsigned i = 0; i < COUNT(kept); i++)
		kept[i] = memset(quarry_malloc(4096), 'k', 4096);
	small = sample(100);
	large = quarry_block_alloc(NULL, 20 * MIB);
	p = small.p;
	q = large.p;
	arena = quarry_arena_of(p);
	cr_assert(ends_closed(&small) && ends_closed(&large));
	for (unsigned i = 0; i < 3; i++) {
		quarry_view *view = quarry_view_open();

		quarry_purge(NULL);
		cr_assert_not_null(view);
		quarry_view_close(view);
		error = quarry_arena_move(arena, NULL, &moved) == 0 ? 0 : errno;
		cr_assert(error == 0 || error == EPERM || error == ENOSYS, "%s", quarry_error_text());
		if (error == 0)
			cr_assert(moved.rounds >= 1 && moved.there > 0 && moved.left == 0, "%u rounds, %llu and %llu bytes",
				  moved.rounds, (unsigned long long)moved.there, (unsigned long long)moved.left);
		error = quarry_leaks_print(null, 0) == 0 ? 0 : errno;
		cr_assert(error == 0 || error == ENOTSUP || error == EPERM, "%s", quarry_error_text());
		quarry_thread_flush();
		(void)quarry_tend();
		cr_assert(is_closed(p) && is_closed(q));
	}
	quarry_block_check(QUARRY_CHECK_RELEASE);
	nothing_is_held();
	for (unsigned i = 0; i < COUNT(kept); i++) {
		cr_assert(kept[i][0] == 'k' && kept[i][4095] == 'k');
		quarry_free(kept[i]);
	}
	close(null);
}

/* ---- large ones ---- */

static size_t in_memory(void)
{
	size_t pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	cr_assert(f != NULL && fscanf(f, "%*s %zu", &pages) == 1);
	fclose(f);
	return pages * qy_os_page_size();
}

/* They have their addresses, up to 1 GiB, and no memory. */
Test(checked, large_ones_keep_their_addresses_alone)
{
	unsigned char *p[20];
	size_t before = in_memory();
	quarry_block b;
	void *small;

	check_from_now_on();
	b = sample(100);
	small = b.p;
	cr_assert(ends_closed(&b));
	quarry_block_check(0);
	for (unsigned i = 0; i < 20; i++) {
		b = quarry_block_alloc(NULL, 100 * MIB);
		p[i] = b.p;
		memset(p[i], 1, 10 * MIB);
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_leq(figures().closed_bytes, GIB);
	}
	cr_assert_geq(figures().closed, 10);
	cr_assert(faults(p[19], false) && faults(p[19] + 100 * MIB - 1, true) && faults(p[12] + 50 * MIB, true));
	cr_assert_lt(in_memory(), before + 40 * MIB);
	b = quarry_block_alloc(NULL, 900 * MIB);
	cr_assert(ends_closed(&b));
	cr_assert_leq(figures().closed_bytes, GIB);
	cr_assert(is_closed(small), "small ones do not make room for them");
	cr_assert_geq(figures().quarantined - figures().closed, 63);
	cr_assert_leq(figures().quarantined_bytes, MIB);
	b = quarry_block_alloc(NULL, 2 * GIB);
	cr_assert(!ends_closed(&b));
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	nothing_is_held();
	b.p = quarry_malloc(900 * MIB);
	memset(b.p, 1, 20 * MIB);
	memset((char *)b.p + 880 * MIB, 1, 20 * MIB);
	quarry_free(b.p);
}

/* A block that there would be no memory for is not refused for the sake of what is held back. */
Test(checked, nobody_is_refused_for_what_is_held)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	char limit[32];
	quarry_block b;

	check_from_now_on();
	for (unsigned i = 0; i < 4; i++)
		quarry_unref(quarry_block_alloc(NULL, 100 * MIB).p);
	quarry_stats_get(NULL, &stats);
	snprintf(limit, sizeof limit, "%llu", (unsigned long long)stats.mapped + 50 * MIB);
	cr_assert_eq(quarry_ctl_set("hard_limit", limit), 0);
	b = quarry_block_alloc(NULL, 300 * MIB);
	cr_assert_not_null(b.p, "%s", quarry_error_text());
	nothing_is_held();
	cr_assert_eq(quarry_block_unref(&b), 1);
	b = quarry_block_alloc(NULL, 2 * GIB);
	cr_assert(b.p == NULL && errno == ENOMEM);
	cr_assert_eq(figures().closed, 1, "that would not have helped");
	/* Nor to move, where there is no memory for both. */
	quarry_block_check(QUARRY_CHECK_RELEASE);
	b = quarry_block_alloc(NULL, 300 * MIB);
	memset(b.p, 0x21, MIB);
	cr_assert_eq(quarry_block_resize(&b, 400 * MIB, 0), 0, "%s", quarry_error_text());
	cr_assert(((unsigned char *)b.p)[MIB - 1] == 0x21 && quarry_refcount(b.p) == 1);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(quarry_ctl_set("hard_limit", "0"), 0);
}

/* ---- what a resize leaves ---- */

Test(checked, the_old_place_is_held_too)
{
	static const size_t from[] = { 50, 3000, 100 * KIB, 3 * MIB }, to[] = { 5000, 300 * KIB, 6 * MIB };

	check_from_now_on();
	for (unsigned i = 0; i < COUNT(from); i++)
		for (unsigned k = 0; k < COUNT(to); k++) {
			quarry_block b = quarry_block_alloc(NULL, from[i]), old = b;
			unsigned char *was = memset(b.p, 0x5c, from[i]);

			cr_assert_eq(quarry_block_resize(&b, to[k], 0), 0);
			if (b.p == old.p)
				continue;
			cr_assert(((unsigned char *)b.p)[0] == 0x5c &&
				  ((unsigned char *)b.p)[(from[i] < to[k] ? from[i] : to[k]) - 1] == 0x5c);
			if (is_closed(was)) {
				cr_assert(faults(was, true));
			} else {
				cr_assert_eq(was[from[i] - 1], 0xde);
				was[from[i] / 2] = 0x5c;
				cr_assert_eq(quarry_block_check(0), 1, "%zu to %zu", from[i], to[k]);
			}
			refused(quarry_block_ref(&old), ESTALE);
			cr_assert_eq(quarry_block_unref(&b), 1);
		}
	cr_assert_geq(figures().late_writes, 6);
}

/* In an arena the block stays there, and where it was is filled, as what ends there is. */
Test(checked, in_an_arena_it_stays_there)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_block b = quarry_block_alloc(quarry_manager_of_arena(arena), 3000);
	unsigned char *was = b.p;

	check_from_now_on();
	memset(was, 0x5c, 3000);
	cr_assert_eq(quarry_block_resize(&b, 9000, 0), 0);
	cr_assert(quarry_arena_of(b.p) == arena && b.p != was && ((unsigned char *)b.p)[2999] == 0x5c);
	cr_assert_eq(was[2000], 0xde);
	cr_assert_eq(quarry_block_unref(&b), 1);
	nothing_is_held();
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* ---- switched off ---- */

Test(checked, what_is_held_goes_when_it_is_switched_off)
{
	quarry_block b, live, large;
	unsigned char *p;
	uint64_t bad;

	check_from_now_on();
	live = sample(100);
	b = quarry_block_alloc(NULL, 100);
	large = quarry_block_alloc(NULL, 10 * MIB);
	p = b.p;
	cr_assert(ends_closed(&large) && !ends_closed(&b));
	p[50] = 0;
	bad = bad_frees();
	cr_assert_eq(quarry_ctl_set("checked", "0"), 0);
	nothing_is_held();
	cr_assert_eq(figures().late_writes, 1, "it is looked at as it goes");
	cr_assert_eq(bad_frees(), bad + 1);
	cr_assert(!qy_apart_has(live.p));
	cr_assert_eq(quarry_block_unref(&live), 1);
	nothing_is_held();
	check_from_now_on();
	b = sample(100);
	cr_assert(ends_closed(&b));
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_CHECKED, 0), 1);
	nothing_is_held();
}

static _Atomic bool over;

static void *make_and_end(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !atomic_load(&over); i++) {
		quarry_block b = quarry_block_alloc(NULL, i % 100 == 0 ? 5 * MIB : 100 + i % 1000);

		memset(b.p, 3, 100);
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	return NULL;
}

/* Whoever comes too late to be let go by who switches it off goes by itself. */
Test(checked, nothing_stays_whoever_switches_it_off)
{
	pthread_t thread[3];

	for (unsigned round = 0; round < 60; round++) {
		atomic_store(&over, false);
		check_from_now_on();
		for (unsigned i = 0; i < COUNT(thread); i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, make_and_end, NULL), 0);
		while (figures().quarantined < 300)
			quarry_block_check(0);
		cr_assert_eq(quarry_ctl_set("checked", "0"), 0);
		atomic_store(&over, true);
		for (unsigned i = 0; i < COUNT(thread); i++)
			pthread_join(thread[i], NULL);
		nothing_is_held();
	}
	cr_assert_eq(figures().late_writes, 0);
}

/* ---- a kernel that refuses ---- */

static struct qy_os os;
static const struct qy_os *kernel;
static int close_error, open_error, advice_error;
static unsigned opened, refusals; /* refusals: so many are refused, and then no more */

static int mprotect_or_not(void *addr, size_t len, int prot)
{
	int error = prot == PROT_NONE ? close_error : open_error;

	opened += prot != PROT_NONE;
	if (prot != PROT_NONE && refusals > 0) {
		refusals--;
		error = ENOMEM;
	}
	if (error == 0)
		return kernel->mprotect(addr, len, prot);
	errno = error;
	return -1;
}

static int madvise_or_not(void *addr, size_t len, int advice)
{
	if (advice_error == 0 || advice != MADV_DONTNEED)
		return kernel->madvise(addr, len, advice);
	errno = advice_error;
	return -1;
}

static void be_the_kernel(void)
{
	kernel = qy_os;
	os = *kernel;
	os.mprotect = mprotect_or_not;
	os.madvise = madvise_or_not;
	qy_os = &os;
}

/* What cannot be closed is filled, and found by what was written. */
Test(checked, what_cannot_be_closed_is_filled)
{
	static const int errors[] = { EPERM, ENOMEM, ENOSYS };

	check_from_now_on();
	be_the_kernel();
	for (unsigned i = 0; i < COUNT(errors); i++) {
		quarry_block b = sample(100), large = quarry_block_alloc(NULL, 10 * MIB);
		unsigned char *p = b.p, *q = large.p;

		close_error = errors[i];
		open_error = errors[i] == ENOMEM ? 0 : errors[i];
		cr_assert(!ends_closed(&b) && !ends_closed(&large));
		cr_assert(p[0] == 0xde && p[4095] == 0xde && q[0] == 0xde && q[4 * MIB - 1] == 0xde);
		cr_assert_geq(figures().quarantined_bytes, 4 * MIB + 4096);
		cr_assert_leq(figures().quarantined_bytes, 9 * MIB);
		p[7]++;
		q[3 * MIB] = 0;
		cr_assert_eq(quarry_block_check(0), 2);
		cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
		nothing_is_held();
		close_error = open_error = 0;
	}
}

/* What cannot be opened stays, and is tried again; and what may be closed in part, as nobody can tell, is treated as closed. */
Test(checked, what_cannot_be_opened_stays_until_it_can)
{
	unsigned char *p[3];
	quarry_block b;

	check_from_now_on();
	be_the_kernel();
	b = sample(100);
	p[0] = b.p;
	cr_assert(ends_closed(&b));
	b = quarry_block_alloc(NULL, 10 * MIB);
	p[1] = b.p;
	cr_assert(ends_closed(&b));
	b = sample(100);
	p[2] = b.p;
	close_error = open_error = ENOMEM;
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(figures().closed, 3);
	for (unsigned i = 0; i < 3000; i++)
		quarry_unref(quarry_block_alloc(NULL, 100).p);
	cr_assert_geq(figures().closed, 3);
	cr_assert(faults(p[0], false) && faults(p[1], false) && !faults(p[2], false));
	for (unsigned i = 0; i < 2; i++) {
		quarry_block_check(QUARRY_CHECK_RELEASE);
		cr_assert_geq(figures().closed, 3);
		cr_assert_eq(figures().quarantined, figures().closed);
	}
	cr_assert_eq(quarry_ctl_set("checked", "0"), 0);
	cr_assert_geq(figures().closed, 3);
	cr_assert(faults(p[0], false), "nobody has it");
	close_error = open_error = 0;
	opened = 0;
	/* Blocks that end, as ever, do it now and then: nobody need ask. */
	for (unsigned i = 0; i < 64; i++)
		cr_assert_eq(quarry_unref(quarry_block_alloc(NULL, 100).p), 1);
	cr_assert_geq(opened, 3);
	nothing_is_held();
	opened = 0;
	for (unsigned i = 0; i < 200; i++)
		cr_assert_eq(quarry_unref(quarry_block_alloc(NULL, 100).p), 1);
	cr_assert_eq(opened, 0, "and it is over");
	cr_assert(!atomic_load(&qy_quarantine_left));
}

/* What opens only when others have been opened goes in the same call. */
Test(checked, what_opens_later_goes_at_once)
{
	quarry_block b[3];

	check_from_now_on();
	be_the_kernel();
	for (unsigned i = 0; i < COUNT(b); i++)
		b[i] = sample(100);
	for (unsigned i = 0; i < COUNT(b); i++)
		cr_assert(ends_closed(&b[i]));
	opened = 0;
	refusals = 2;
	quarry_block_check(QUARRY_CHECK_RELEASE);
	cr_assert_eq(refusals, 0);
	nothing_is_held();
}

/* Memory that does not go back stays in memory, and so it is held only where it is little, and filled in part. */
Test(checked, large_ones_whose_memory_does_not_go_back)
{
	quarry_block b, large;
	unsigned char *p;

	check_from_now_on();
	cr_assert_eq(quarry_ctl_set("return", "0"), 0);
	b = quarry_block_alloc(NULL, 6 * MIB);
	p = memset(b.p, 1, 6 * MIB);
	cr_assert(!ends_closed(&b));
	cr_assert(p[4 * MIB - 1] == 0xde && p[4 * MIB] == 1, "nothing is to go back");
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	cr_assert_eq(quarry_ctl_set("return", "1"), 0);
	be_the_kernel();
	advice_error = EINVAL;
	b = quarry_block_alloc(NULL, 6 * MIB);
	large = quarry_block_alloc(NULL, 30 * MIB);
	p = b.p;
	memset(b.p, 1, 6 * MIB);
	cr_assert(!ends_closed(&b) && !ends_closed(&large));
	cr_assert_eq(figures().quarantined, 1);
	cr_assert(figures().quarantined_bytes >= 6 * MIB && figures().quarantined_bytes <= 16 * MIB);
	cr_assert(p[4 * MIB - 1] == 0xde && p[4 * MIB] == 1);
	p[3 * MIB] = 1;
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 1);
	nothing_is_held();
	advice_error = 0;
}
