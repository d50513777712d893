/* SPDX-License-Identifier: MIT */
/* Large ranges filled by several threads: every part once, on the right CPUs, with signals blocked, and with the first
 * error; and quarry_populate, which keeps what is there. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "include/quarry/quarry.h"
#include "lib/base/refused.h"
#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "numa/populate.h"
#include "tests/fake_os.h"

#define MIB ((size_t)1 << 20)
#define PARTS 64

static struct qy_os kernel;
static int cpus = 4; /* that the caller may run on */
static unsigned long ran_on;

static long playing_cpus_allowed(unsigned long *mask, unsigned long bits)
{
	memset(mask, 0, bits / 8);
	mask[0] = (1ul << cpus) - 1;
	return 64;
}

static int playing_run_on(const unsigned long *mask, unsigned long bits)
{
	cr_assert_geq(bits, 64);
	__atomic_fetch_or(&ran_on, mask[0], __ATOMIC_RELAXED);
	return 0;
}

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_nodes("0-1");
	fake_os_cpus(0, "0-2");
	fake_os_cpus(1, "3-5");
	kernel = *qy_os;
	kernel.cpus_allowed = playing_cpus_allowed;
	kernel.run_on = playing_run_on;
	qy_os = &kernel;
}

static void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0);
}

/* ---- in parts ---- */

static _Atomic(unsigned) seen[PARTS], threads, wrong;
static _Atomic(unsigned) fail_at = PARTS;
static char *const base = (char *)(size_t)(1ul << 40); /* nobody touches it */
static pthread_t caller;
static size_t part_size;
static pthread_barrier_t barrier;
static bool meet;
static unsigned run;

static bool look_at_part(const struct qy_placement *placement, char *addr, size_t len, int kind)
{
	size_t i = (size_t)(addr - base) / part_size;
	static __thread unsigned known;
	sigset_t blocked;

	(void)placement;
	wrong += kind != QUARRY_PAGES_THP || len > part_size || (size_t)(addr - base) % part_size != 0 || i >= PARTS;
	seen[i]++;
	if (known != run) {
		known = run;
		threads++;
		pthread_sigmask(SIG_SETMASK, NULL, &blocked);
		wrong += !pthread_equal(pthread_self(), caller) && !sigismember(&blocked, SIGUSR1);
		if (meet) /* all of them are needed here, so that none is late for its share */
			pthread_barrier_wait(&barrier);
	}
	if (i >= fail_at) {
		errno = i % 2 ? EFAULT : ENOMEM;
		return false;
	}
	return true;
}

static bool populate(int node, size_t len, size_t grain)
{
	struct qy_placement placement = { .node = node };

	run++;
	caller = pthread_self();
	part_size = qy_max(32 * MIB, grain);
	memset((void *)seen, 0, sizeof(seen));
	threads = wrong = 0;
	ran_on = 0;
	qy_manager_allow_threads();
	return qy_populate(&placement, base, len, grain, QUARRY_PAGES_THP, look_at_part);
}

static void expect_all(size_t len)
{
	for (size_t i = 0; i < PARTS; i++)
		cr_assert_eq(seen[i], i * part_size < len, "part %zu", i);
	cr_assert_eq(wrong, 0);
}

Test(populate, every_part_once_by_as_many_threads_as_its_node_has_cpus)
{
	cr_assert(qy_start());
	set("reclaim", "auto");
	meet = true;
	pthread_barrier_init(&barrier, NULL, 3);
	cr_assert(populate(0, 1000 * MIB + 4096, 4096));
	expect_all(1000 * MIB + 4096);
	cr_assert_eq(threads, 3);
	cr_assert_eq(ran_on, 7);
	/* Of the other node's three the caller may use one. */
	meet = false;
	cr_assert(populate(1, 1000 * MIB, 4096));
	expect_all(1000 * MIB);
	cr_assert_eq(threads, 1);
	/* Memory for several nodes: all that it may use, wherever. */
	meet = true;
	pthread_barrier_destroy(&barrier);
	pthread_barrier_init(&barrier, NULL, 4);
	cr_assert(populate(-1, 1000 * MIB, 4096));
	expect_all(1000 * MIB);
	cr_assert_eq(threads, 4);
	cr_assert_eq(ran_on, 0, "and need not be told");
}

static unsigned threads_for(size_t len, size_t grain)
{
	struct qy_placement any = { .node = -1 };

	qy_manager_allow_threads();
	return qy_populate_threads(&any, len, grain);
}

Test(populate, how_many_threads)
{
	cr_assert(qy_start());
	cpus = 40;
	cr_assert_eq(threads_for(1024 * MIB, 4096), 1, "reclaim=off");
	set("reclaim", "series");
	cr_assert_eq(threads_for(1024 * MIB, 4096), 1);
	set("reclaim", "parallel");
	cr_assert_eq(threads_for(1024 * MIB, 4096), 16);
	cr_assert_eq(threads_for(100 * MIB, 4096), 4);
	cr_assert_eq(threads_for(64 * MIB - 1, 4096), 1);
	cr_assert_eq(threads_for(4096 * MIB, 1024 * MIB), 4, "a page of 1 GiB is a part");
	set("populate_threads", "3");
	cr_assert_eq(threads_for(1024 * MIB, 4096), 3);
	set("populate_threads", "1");
	cr_assert_eq(threads_for(1024 * MIB, 4096), 1);
	cr_assert_neq(quarry_ctl_set("populate_threads", "17"), 0);
}

Test(populate, the_first_error_ends_it)
{
	unsigned sum = 0;

	cr_assert(qy_start());
	errno = 77;
	cr_assert(populate(0, 1024 * MIB, 4096));
	cr_assert_eq(errno, 77);
	fail_at = 5;
	cr_assert_not(populate(0, 1024 * MIB, 4096));
	cr_assert_eq(errno, EFAULT);
	for (size_t i = 0; i < PARTS; i++)
		sum += seen[i];
	cr_assert_eq(sum, 6);
	set("reclaim", "auto");
	cr_assert_not(populate(-1, 1024 * MIB, 4096));
	cr_assert(errno == EFAULT || errno == ENOMEM);
	fail_at = 0;
	cr_assert_not(populate(-1, 1024 * MIB, 1024 * MIB));
	cr_assert_eq(errno, ENOMEM);
}

/* ---- quarry_populate ---- */

static size_t resident(const char *p, size_t size)
{
	size_t page = qy_os_page_size(), n = 0, count = (size + page - 1) / page;
	unsigned char *in = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_eq(mincore((void *)((uintptr_t)p & ~(page - 1)), size, in), 0);
	for (size_t i = 0; i < count; i++)
		n += in[i] & 1;
	munmap(in, count);
	return n * page;
}

Test(populate, a_block)
{
	char *p = quarry_malloc(100 * MIB), *small;

	set("reclaim", "auto");
	cr_assert_not_null(p);
	cr_assert_lt(resident(p, 100 * MIB), MIB);
	p[0] = 1;
	p[50 * MIB] = 2;
	cr_assert_eq(quarry_populate(p + 10 * MIB, 10 * MIB), 0);
	cr_assert_geq(resident(p + 10 * MIB, 10 * MIB), 10 * MIB);
	cr_assert_lt(resident(p + 30 * MIB, 10 * MIB), MIB);
	cr_assert_eq(quarry_populate(p, 100 * MIB), 0);
	cr_assert_geq(resident(p, 100 * MIB), 100 * MIB);
	cr_assert(p[0] == 1 && p[50 * MIB] == 2 && p[99 * MIB] == 0);
	small = quarry_malloc(100);
	memset(small, 7, 100);
	cr_assert_eq(quarry_populate(small, 100), 0);
	cr_assert_eq(quarry_populate(small, 0), 0);
	cr_assert(small[0] == 7 && small[99] == 7);
}

/* Before Linux 5.14 pages are touched: contents stay all the same. */
Test(populate, an_old_kernel)
{
	char *p = quarry_malloc(70 * MIB);

	set("reclaim", "auto");
	for (size_t i = 0; i < 70 * MIB; i += 8192)
		p[i] = (char)(i >> 13);
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, EINVAL);
	cr_assert_eq(quarry_populate(p, 70 * MIB), 0);
	cr_assert_geq(resident(p, 70 * MIB), 70 * MIB);
	for (size_t i = 0; i < 70 * MIB; i += 8192)
		cr_assert_eq(p[i], (char)(i >> 13));
}

Test(populate, errors)
{
	char *p = quarry_malloc(70 * MIB), other;
	uint64_t before = qy_read(&qy_refused[QUARRY_REFUSED_POPULATE]);

	set("reclaim", "auto");
	errno = 0;
	cr_assert(quarry_populate(&other, 1) == -1 && errno == EINVAL);
	cr_assert(quarry_populate(NULL, 1) == -1 && errno == EINVAL);
	cr_assert(quarry_populate(p, (size_t)1 << 45) == -1 && errno == EINVAL);
	cr_assert(quarry_populate(p, SIZE_MAX) == -1 && errno == EINVAL);
	cr_assert_eq(qy_read(&qy_refused[QUARRY_REFUSED_POPULATE]), before);
	cr_assert(quarry_populate(&other, 0) == -1 && errno == EINVAL);
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, ENOMEM);
	cr_assert(quarry_populate(p, 70 * MIB) == -1 && errno == ENOMEM);
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_POPULATE]), before);
}

static void expect_ends(char *p, size_t size)
{
	char text[128];

	snprintf(text, sizeof(text), "len: %zu bytes are more than the %zu that the block has from p on", size + 1, size);
	errno = 0;
	cr_assert(quarry_populate(p, size + 1) == -1 && errno == EINVAL, "%zu", size);
	cr_assert_str_eq(quarry_error_text(), text);
	cr_assert_eq(quarry_populate(p, size), 0, "%zu: %s", size, quarry_error_text());
	cr_assert_eq(quarry_populate(p, 0), 0);
}

/* To its end and not a byte further, from anywhere in it, whatever else the region has there. */
Test(populate, a_block_has_an_end)
{
	static const size_t sizes[] = { 16, 100, 1000, 20000, 32768, 40000, 300000, 2 * MIB, 5 * MIB + 4096, 70 * MIB };
	char *p[10], *next[10];

	set("reclaim", "auto");
	for (int i = 0; i < 10; i++) {
		cr_assert_not_null(p[i] = quarry_malloc(sizes[i]));
		cr_assert_not_null(next[i] = quarry_malloc(sizes[i]));
	}
	for (int i = 0; i < 10; i++) {
		size_t size = quarry_usable_size(p[i]);

		expect_ends(p[i], size);
		expect_ends(p[i] + 1, size - 1);
		expect_ends(p[i] + size / 2, size - size / 2);
		expect_ends(p[i] + size - 1, 1);
	}
	cr_assert_lt(resident(next[9], 70 * MIB), MIB, "what is behind was not touched");
	for (int i = 5; i < 10; i++) { /* (which objects of a slab live is not known) */
		quarry_free(p[i]);
		errno = 0;
		cr_assert(quarry_populate(p[i], 1) == -1 && errno == EINVAL);
		cr_assert_str_eq(quarry_error_text(), "p: it is in no block of quarry's");
	}
}

/* An arena whose regions are filled when they are mapped. */
Test(populate, an_arena)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_POPULATE, .policy = QUARRY_POLICY_PREFERRED };
	quarry_arena *arena;
	char *p;

	set("reclaim", "auto");
	quarry_nodeset_add(&attr.nodes, 1);
	cpus = 6;
	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena);
	ran_on = 0;
	p = quarry_arena_malloc(arena, 200 * MIB);
	cr_assert_not_null(p);
	cr_assert_geq(resident(p, 200 * MIB), 200 * MIB);
	cr_assert_eq(ran_on, 0x38, "on CPUs of node 1");
}
