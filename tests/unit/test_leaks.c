/* SPDX-License-Identifier: MIT */
/* Leaks: what is told of is what a model of pointers says, whatever points to what; where roots are, and what the kernel
 * refuses. (In real programs, with stacks by name: tests/leaks.sh.) Addresses are kept masked where no root is meant. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/view/leaks.h"
#include "numa/os.h"

#define MASK UINT64_C(0xa5a5a5a5a5a5a5a5)
#define THINGS 3000
#define EDGES 3
#define ROOTS 40
#define MIB ((size_t)1 << 20)

struct thing {
	uint64_t masked;
	size_t bytes;
	unsigned edge[EDGES];
	bool live, reachable;
};

static struct thing things[THINGS];
static void *roots[ROOTS];
static uint64_t state;

static uint64_t draw(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void *at(uint64_t masked)
{
	return (void *)(uintptr_t)(masked ^ MASK);
}

static uint64_t mask(const void *p)
{
	return (uintptr_t)p ^ MASK;
}

/* What calls left behind on the stack, and in registers that they used. (Without the room that AddressSanitizer leaves
 * around what is on the stack.) */
static __attribute__((noinline, no_sanitize_address)) void forget(void)
{
	volatile char junk[65536];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (char)i;
}

/* (The reclaimer's thread goes through lists at any time, and what it leaves on its stack counts.) */
static void without_reclaimer(void)
{
	cr_assert_eq(quarry_ctl_set("reclaim", "series"), 0, "%s", quarry_error_text());
}

TestSuite(leaks, .init = without_reclaimer);

static quarry_leaks_report look(unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx)
{
	quarry_leaks_report r = { .struct_size = sizeof(r) };

	forget();
	cr_assert_eq(quarry_leaks_find(flags, fn, ctx, &r), 0, "%s", quarry_error_text());
	cr_assert_eq(r.inexact, 0);
	return r;
}

/* ---- against the model ---- */

static size_t draw_size(void)
{
	switch (draw(40)) {
	case 0:
		return 1 * MIB + draw(8 * MIB);
	case 1:
	case 2:
		return 8192 + draw(100000);
	default:
		return 8 * EDGES + draw(4000);
	}
}

static __attribute__((noinline)) void make_things(quarry_arena *arena)
{
	for (unsigned i = 0; i < THINGS; i++) {
		struct thing *t = &things[i];
		size_t bytes = draw_size();
		void *p = draw(3) == 0 ? quarry_arena_malloc(arena, bytes) : quarry_malloc(bytes);

		cr_assert_not_null(p);
		t->masked = mask(p);
		t->bytes = quarry_usable_size(p);
		t->live = true;
		memset(p, 0, t->bytes);
	}
}

/* Pointers to the beginning, or into the middle; few enough that some things are led to by none. */
static __attribute__((noinline)) void tie_things(void)
{
	for (unsigned i = 0; i < THINGS; i++)
		for (unsigned e = 0; e < EDGES; e++) {
			unsigned to = (unsigned)draw(THINGS);
			uintptr_t *word = (uintptr_t *)at(things[i].masked) + e;

			things[i].edge[e] = to;
			if (draw(5) < 3) {
				things[i].edge[e] = i;
				to = i;
			}
			*word = (uintptr_t)at(things[to].masked) + (draw(4) == 0 ? draw(things[to].bytes) : 0);
		}
	for (unsigned i = 0; i < ROOTS; i++)
		roots[i] = at(things[draw(THINGS)].masked);
}

static __attribute__((noinline)) void free_some(void)
{
	for (unsigned n = 0; n < THINGS / 10; n++) {
		struct thing *t = &things[draw(THINGS)];
		bool is_root = false;

		for (unsigned i = 0; i < ROOTS; i++)
			is_root = is_root || roots[i] == at(t->masked);
		if (t->live && !is_root)
			quarry_free(at(t->masked));
		t->live = t->live && is_root;
	}
}

static void flood(unsigned i, bool seen[THINGS])
{
	if (seen[i] || !things[i].live)
		return;
	seen[i] = true;
	for (unsigned e = 0; e < EDGES; e++)
		flood(things[i].edge[e], seen);
}

/* Of what leaked, those that all others are behind: sources of the graph, one of each ring of them. */
static unsigned count_sources(const bool reachable[THINGS])
{
	static bool seen[THINGS], told[THINGS];
	static unsigned order[THINGS];
	unsigned n = 0, sources = 0;

	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < THINGS; i++)
		if (things[i].live && !reachable[i] && !seen[i]) {
			order[n++] = i;
			flood(i, seen);
		}
	memcpy(told, reachable, sizeof(told));
	while (n-- > 0)
		if (!told[order[n]]) {
			sources++;
			flood(order[n], told);
		}
	return sources;
}

/* (What is written to memory that nobody else knows of, compilers leave out.) */
static void written(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}

static int add_group(const quarry_leak *l, void *ctx)
{
	quarry_leaks_report *sum = ctx;

	cr_assert_eq(l->struct_size, sizeof(*l));
	cr_assert_gt(l->objects, 0);
	cr_assert_eq(l->bytes, l->objects * l->object_size);
	sum->groups++;
	sum->objects += l->objects;
	sum->bytes += l->bytes;
	sum->held_objects += l->held_objects;
	sum->held_bytes += l->held_bytes;
	for (unsigned i = 0; i < 4 && l->example[i] != NULL; i++) {
		unsigned n = 0;

		while (n < THINGS && at(things[n].masked) != l->example[i])
			n++;
		cr_assert_lt(n, THINGS, "%p is none of ours", l->example[i]);
		cr_assert(things[n].live && !things[n].reachable);
	}
	return 0;
}

/* (Samples stand in slabs of mixed sizes.) */
static void check_model(bool sampled)
{
	static bool reachable[THINGS];
	const char *given = getenv("QUARRY_TEST_SEED");

	if (sampled) {
		cr_assert_eq(quarry_profile_start(1), 0);
		quarry_thread_flush();
	}
	for (unsigned round = 0; round < 4; round++) {
		quarry_arena_attr attr = { .name = "other" };
		quarry_arena *arena = quarry_arena_create(&attr);
		quarry_leaks_report told, sum = { 0 };
		uint64_t objects = 0, bytes = 0, seed = given != NULL ? strtoull(given, NULL, 10) : 1000 + round;

		state = seed * 0x9e3779b97f4a7c15u + 1;
		make_things(arena);
		tie_things();
		free_some();
		forget();
		memset(reachable, 0, sizeof(reachable));
		for (unsigned i = 0; i < ROOTS; i++)
			for (unsigned n = 0; n < THINGS; n++)
				if (at(things[n].masked) == roots[i])
					flood(n, reachable);
		for (unsigned i = 0; i < THINGS; i++) {
			things[i].reachable = reachable[i];
			objects += things[i].live && !reachable[i];
			bytes += things[i].live && !reachable[i] ? things[i].bytes : 0;
		}
		cr_assert_gt(objects, THINGS / 20, "seed %lu", (unsigned long)seed);
		told = look(0, add_group, &sum);
		cr_assert_eq(told.objects + told.held_objects, objects, "seed %lu: %lu and %lu, not %lu", (unsigned long)seed,
			     (unsigned long)told.objects, (unsigned long)told.held_objects, (unsigned long)objects);
		cr_assert_eq(told.bytes + told.held_bytes, bytes, "seed %lu", (unsigned long)seed);
		cr_assert_eq(told.objects, count_sources(reachable), "seed %lu: %lu, not %u", (unsigned long)seed,
			     (unsigned long)told.objects, count_sources(reachable));
		cr_assert_eq(told.scans, 1);
		cr_assert_eq(sum.groups, told.groups);
		cr_assert_eq(sum.objects, told.objects);
		cr_assert_eq(sum.bytes, told.bytes);
		cr_assert_eq(sum.held_objects, told.held_objects);
		cr_assert_eq(sum.held_bytes, told.held_bytes);
		for (unsigned i = 0; i < THINGS; i++)
			if (things[i].live)
				quarry_free(at(things[i].masked));
		memset(roots, 0, sizeof(roots));
		cr_assert_eq(quarry_arena_destroy(arena), 0);
		cr_assert_eq(look(0, NULL, NULL).objects, 0);
	}
}

Test(leaks, are_what_a_model_says)
{
	check_model(false);
}

Test(leaks, are_what_a_model_says_of_samples)
{
	check_model(true);
}

static uint64_t ring[2][2];

static __attribute__((noinline)) void make_rings(void)
{
	for (unsigned i = 0; i < 4; i++) {
		void **p = quarry_malloc(5000);

		memset(p, 0, 5000);
		ring[i / 2][i % 2] = mask(p);
	}
	if (ring[0][0] > ring[1][0]) /* in the order of their addresses */
		for (unsigned k = 0; k < 2; k++) {
			uint64_t other = ring[0][k];

			ring[0][k] = ring[1][k];
			ring[1][k] = other;
		}
	for (unsigned i = 0; i < 4; i++)
		*(void **)at(ring[i / 2][i % 2]) = at(ring[i / 2][1 - i % 2]);
}

/* One ring holds another: whichever stands first in memory. */
static __attribute__((noinline)) void tie_rings(unsigned from, unsigned to)
{
	((void **)at(ring[from][0]))[1] = at(ring[to][1]);
}

static __attribute__((noinline)) void untie_rings(void)
{
	((void **)at(ring[0][0]))[1] = ((void **)at(ring[1][0]))[1] = NULL;
}

Test(leaks, of_rings_the_one_that_holds_the_other)
{
	quarry_leaks_report r;

	make_rings();
	forget();
	r = look(0, NULL, NULL);
	cr_assert(r.objects == 2 && r.held_objects == 2);
	for (unsigned from = 0; from < 2; from++) {
		tie_rings(from, 1 - from);
		forget();
		r = look(0, NULL, NULL);
		cr_assert(r.objects == 1 && r.held_objects == 3, "%lu, %lu", (unsigned long)r.objects,
			  (unsigned long)r.held_objects);
		untie_rings();
		forget();
	}
}

/* ---- roots ---- */

static uint64_t masked_one;

static __attribute__((noinline)) void make_one(size_t bytes)
{
	masked_one = mask(quarry_malloc(bytes));
	memset(at(masked_one), 0, bytes);
}

/* (Where the caller's next calls have their frames, too.) */
#define lose_one(bytes) (make_one(bytes), forget())

static uint64_t hidden[4];

static __attribute__((noinline)) void hide_in_page(void)
{
	void **page = quarry_malloc(4096);

	memset(page, 0, 4096);
	page[17] = at(masked_one);
	written(page);
	hidden[0] = mask(page);
}

Test(leaks, are_reached_from_roots_that_are_named)
{
	lose_one(100);
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
	/* (A shared mapping would not be looked at; here its part is played by a page of quarry's own, that nothing leads to.) */
	hide_in_page();
	forget();
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
	cr_assert_eq(look(0, NULL, NULL).held_objects, 1);
	cr_assert_eq(quarry_leaks_root(at(hidden[0]), 4096), 0);
	cr_assert_eq(look(0, NULL, NULL).objects, 0, "what is named is not lost either");
	cr_assert_eq(look(0, NULL, NULL).held_objects, 0);
	cr_assert_eq(quarry_leaks_forget_root(at(hidden[0])), 0);
	cr_assert_eq(look(0, NULL, NULL).held_objects, 1);
	cr_assert_eq(quarry_leaks_forget_root(at(hidden[0])), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert_eq(quarry_leaks_root(NULL, 8), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_root(&hidden, 0), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_root(&hidden, SIZE_MAX), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_root((char *)hidden + 1, 3), 0);
	look(0, NULL, NULL);
	cr_assert_eq(quarry_leaks_forget_root((char *)hidden + 1), 0);
	for (unsigned i = 0; i < 128; i++)
		cr_assert_eq(quarry_leaks_root(&hidden, 8), 0);
	cr_assert_eq(quarry_leaks_root(&hidden, 8), -1);
	cr_assert_eq(errno, ENOMEM);
}

#ifdef __x86_64__
static _Atomic(int) holding, let_go;

/* Nowhere but in a register, of a thread that runs. */
static void *hold_in_register(void *unused)
{
	uint64_t masked = mask(quarry_malloc(5000)), unmask = MASK;

	(void)unused;
	forget();
	__asm__ volatile("mov %[masked], %%rbx\n\t"
			 "xor %[unmask], %%rbx\n\t"
			 "movl $1, %[holding]\n"
			 "1:\tpause\n\t"
			 "cmpl $0, %[let_go]\n\t"
			 "je 1b\n\t"
			 "xor %%rbx, %%rbx"
			 : [holding] "=m"(holding)
			 : [masked] "r"(masked), [unmask] "r"(unmask), [let_go] "m"(let_go)
			 : "rbx", "memory");
	masked_one = masked;
	return NULL;
}

Test(leaks, are_none_when_a_register_holds_them)
{
	quarry_leaks_report r;
	pthread_t t;

	cr_assert_eq(pthread_create(&t, NULL, hold_in_register, NULL), 0);
	while (!holding)
		;
	r = look(0, NULL, NULL);
	cr_assert_eq(r.objects, 0);
	cr_assert_geq(r.threads, 1);
	cr_assert_eq(r.unread, 0);
	cr_assert_eq(r.scans, 1);
	let_go = 1;
	pthread_join(t, NULL);
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
}
#endif

static int line[2], back[2];

static __attribute__((noinline)) void leave_there(void)
{
	void *volatile below[64];

	for (unsigned i = 0; i < 64; i++)
		below[i] = at(masked_one);
	(void)below[5];
}

static __attribute__((noinline)) void leave_behind(void)
{
	volatile char far[4096];

	far[0] = far[4095] = 0;
	leave_there();
	far[1] = far[0];
}

/* Below what is in use of a stack that sleeps, and then in it. */
static void *sleep_with(void *unused)
{
	void *volatile here = NULL;
	char c;

	(void)unused;
	lose_one(300);
	leave_behind();
	cr_assert_eq(write(back[1], "", 1), 1);
	cr_assert_eq(read(line[0], &c, 1), 1);
	here = at(masked_one);
	cr_assert_eq(write(back[1], "", 1), 1);
	cr_assert_eq(read(line[0], &c, 1), 1);
	return here;
}

Test(leaks, what_calls_left_behind_on_a_stack_is_no_root)
{
	pthread_t t;
	char c;

	cr_assert_eq(pipe(line), 0);
	cr_assert_eq(pipe(back), 0);
	cr_assert_eq(pthread_create(&t, NULL, sleep_with, NULL), 0);
	cr_assert_eq(read(back[0], &c, 1), 1);
/* (AddressSanitizer has a word of it in memory of its own.) */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
#endif
	cr_assert_eq(write(line[1], "", 1), 1);
	cr_assert_eq(read(back[0], &c, 1), 1);
	cr_assert_eq(look(0, NULL, NULL).objects, 0);
	cr_assert_eq(write(line[1], "", 1), 1);
	pthread_join(t, NULL);
}

/* ---- by stack ---- */

static struct qy_os os;
static void *place[3] = { (void *)0x1001, (void *)0x2001, (void *)0x3001 };

static unsigned fake_stack(void **frames, unsigned most)
{
	cr_assert_geq(most, 3);
	memcpy(frames, place, sizeof(place));
	return 3;
}

static quarry_leak told[8]; /* the examples masked */
static unsigned told_count;

static int keep(const quarry_leak *l, void *ctx)
{
	(void)ctx;
	cr_assert_lt(told_count, 8);
	told[told_count] = *l;
	for (unsigned i = 0; i < 4; i++)
		told[told_count].example[i] = l->example[i] == NULL ? NULL : at((uintptr_t)l->example[i]);
	told_count++;
	return 0;
}

Test(leaks, are_told_by_where_they_came_from)
{
	static void *kept[10];

	os = *qy_os;
	os.stack = fake_stack;
	qy_os = &os;
	cr_assert_eq(quarry_profile_start(1), 0);
	quarry_thread_flush();
	for (unsigned i = 0; i < 10; i++)
		kept[i] = quarry_malloc(200);
	lose_one(200);
	lose_one(200);
	place[0] = (void *)0x1005;
	lose_one(200);
	place[0] = (void *)0x1007;
	kept[9] = (quarry_free(kept[9]), quarry_malloc(200));
	told_count = 0;
	look(0, keep, NULL);
	cr_assert_eq(told_count, 2);
	cr_assert_eq(told[0].objects, 2);
	cr_assert_eq(told[0].depth, 3);
	cr_assert_eq(told[0].frames[0], (void *)0x1001);
	cr_assert_eq(told[0].frames[2], (void *)0x3001);
	cr_assert_eq(told[0].reachable_objects, 9);
	cr_assert_not_null(told[0].example[1]);
	cr_assert_null(told[0].example[2]);
	cr_assert_eq(told[1].objects, 1);
	cr_assert_eq((uintptr_t)told[1].example[0], masked_one);
	cr_assert_eq(told[1].frames[0], (void *)0x1005);
	cr_assert_eq(told[1].reachable_objects, 0);
	told_count = 0;
	look(QUARRY_LEAKS_REACHABLE, keep, NULL);
	cr_assert_eq(told_count, 3);
	cr_assert_eq(told[2].objects, 0);
	cr_assert_eq(told[2].reachable_objects, 1);
	cr_assert_eq(told[2].frames[0], (void *)0x1007);
}

/* ---- what the kernel refuses ---- */

static void *just_sleep(void *unused)
{
	char c;

	(void)unused;
	quarry_free(quarry_malloc(10));
	cr_assert_eq(write(back[1], "", 1), 1);
	cr_assert_eq(read(line[0], &c, 1), 1);
	return NULL;
}

static int refusal;

static int refuse_to_stop(struct qy_stopped *stopped)
{
	*stopped = (struct qy_stopped){ .count = 0 };
	errno = refusal;
	return -1;
}

static int refuse_to_copy(int (*work)(void *ctx), void *ctx)
{
	(void)work;
	(void)ctx;
	errno = refusal;
	return -1;
}

static int die(void *ctx)
{
	(void)ctx;
	raise(SIGKILL);
	return 0;
}

static int (*copy_process)(int (*work)(void *ctx), void *ctx);

static int copy_that_dies(int (*work)(void *ctx), void *ctx)
{
	(void)work;
	return copy_process(die, ctx);
}

static int tell_no_pages(const void *from, size_t count, uint64_t *entries)
{
	(void)from;
	(void)count;
	(void)entries;
	errno = EPERM;
	return -1;
}

static int refuse_memfd(const char *name, unsigned flags)
{
	(void)name;
	(void)flags;
	errno = ENOSYS;
	return -1;
}

static void begin_refusing(int error)
{
	os = *qy_os;
	copy_process = os.copy_process;
	qy_os = &os;
	refusal = error;
}

static pthread_t sleeper;

static void begin_sleeping(void)
{
	char c;

	cr_assert_eq(pipe(line), 0);
	cr_assert_eq(pipe(back), 0);
	cr_assert_eq(pthread_create(&sleeper, NULL, just_sleep, NULL), 0);
	cr_assert_eq(read(back[0], &c, 1), 1);
}

static void end_sleeping(void)
{
	cr_assert_eq(write(line[1], "", 1), 1);
	pthread_join(sleeper, NULL);
}

Test(leaks, are_found_in_two_scans_where_threads_cannot_be_stopped)
{
	quarry_leaks_report r;

	begin_refusing(EPERM);
	os.stop_threads = refuse_to_stop;
	lose_one(77);
	r = look(0, NULL, NULL);
	cr_assert_eq(r.scans, 1, "there is no other thread");
	cr_assert_eq(r.objects, 1);
	begin_sleeping();
	told_count = 0;
	r = look(0, keep, NULL);
	cr_assert_eq(r.objects, 1);
	cr_assert_eq(r.scans, 2);
	cr_assert_eq(r.unread, 1);
	cr_assert_eq(told_count, 1);
	cr_assert(told[0].objects == 1 && (uintptr_t)told[0].example[0] == masked_one);
	end_sleeping();
}

/* Stands for a thread that has something in a register at times. */
static int copy_and_move_on(int (*work)(void *ctx), void *ctx)
{
	int pid = copy_process(work, ctx);

	roots[0] = roots[0] == NULL ? at(masked_one) : NULL;
	return pid;
}

Test(leaks, are_what_both_scans_found)
{
	begin_refusing(EPERM);
	os.stop_threads = refuse_to_stop;
	begin_sleeping();
	lose_one(77);
	os.copy_process = copy_and_move_on;
	/* Three copies are made: the one that finds out that there are no registers, and two. */
	roots[0] = NULL; /* lost, held, lost */
	cr_assert_eq(look(0, NULL, NULL).objects, 0);
	roots[0] = at(masked_one); /* held, lost, held */
	cr_assert_eq(look(0, NULL, NULL).objects, 0);
	os.copy_process = copy_process;
	roots[0] = NULL;
	told_count = 0;
	cr_assert_eq(look(0, keep, NULL).objects, 1);
	cr_assert_eq(told_count, 1);
	end_sleeping();
}

static void fails(int error)
{
	quarry_leaks_report r = { .struct_size = sizeof(r), .objects = 123 };

	cr_assert_eq(quarry_leaks_find(0, NULL, NULL, &r), -1);
	cr_assert_eq(errno, error, "%d, not %d", errno, error);
	cr_assert_eq(r.objects, 123);
	cr_assert_neq(quarry_error_text()[0], 0);
	/* Nothing is held any more. */
	quarry_free(quarry_malloc(5 * MIB));
	quarry_purge(NULL);
}

Test(leaks, refusals_are_told)
{
	begin_refusing(EAGAIN);
	os.copy_process = refuse_to_copy;
	fails(EAGAIN);
	os.copy_process = copy_that_dies;
	fails(EIO);
	os.copy_process = copy_process;
	os.memfd = refuse_memfd;
	fails(ENOSYS);
	os.memfd = qy_os_linux.memfd;
	os.page_entries = tell_no_pages;
	lose_one(5 * MIB);
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
}

/* The program's children are its own: none comes and goes that it did not make, and no signal of that. */
static volatile sig_atomic_t signals;

static void count_signal(int sig)
{
	(void)sig;
	signals++;
}

static _Atomic(int) looking;
static _Atomic(unsigned) waits, children;

static void *wait_for_any(void *unused)
{
	(void)unused;
	while (looking) {
		children += waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
		waits++;
	}
	return NULL;
}

Test(leaks, no_child_is_seen)
{
	pthread_t t;

	signal(SIGCHLD, count_signal);
	looking = 1;
	cr_assert_eq(pthread_create(&t, NULL, wait_for_any, NULL), 0);
	lose_one(10);
	for (unsigned n = 0, before = waits; n < 200 && (n < 3 || waits < before + 1000); n++)
		cr_assert_eq(look(0, NULL, NULL).objects, 1);
	looking = 0;
	pthread_join(t, NULL);
	cr_assert_gt(waits, 0);
	cr_assert_eq(children, 0, "%u of %u", children, waits);
	cr_assert_eq(signals, 0);
}

/* What cannot be read does no harm, and is told of. */
Test(leaks, pages_that_cannot_be_read_are_passed_over)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *guarded = quarry_aligned_alloc(page, 100 * page), *kept = quarry_aligned_alloc(page, 600 * page);
	quarry_leaks_report r;

	roots[0] = guarded;
	roots[1] = kept;
	memset(guarded, 0, 100 * page);
	memset(kept, 0, 600 * page);
	lose_one(50);
	*(void **)(void *)(guarded + 99 * page) = at(masked_one);
	forget();
	r = look(0, NULL, NULL);
	cr_assert(r.objects == 0 && r.skipped_bytes == 0);
	cr_assert_eq(mprotect(guarded, page, PROT_NONE), 0);
	cr_assert_eq(madvise(kept + page, 300 * page, MADV_DONTFORK), 0);
	r = look(0, NULL, NULL);
	cr_assert_eq(r.objects, 0, "what is behind the guard counts");
	cr_assert_geq(r.skipped_bytes, page);
	cr_assert_leq(r.skipped_bytes, 301 * page);
	mprotect(guarded, page, PROT_READ | PROT_WRITE);
}

/* A star: one that holds a thousand, and a ring that holds it; there is nothing else, and no room to spare. */
static uint64_t star;

static __attribute__((noinline)) void make_star(void)
{
	void **middle = quarry_malloc(1000 * sizeof(void *)), **one = quarry_malloc(64), **other = quarry_malloc(64);

	memset(one, 0, 64);
	memset(other, 0, 64);
	for (unsigned i = 0; i < 1000; i++) {
		middle[i] = quarry_malloc(32);
		memset(middle[i], 0, 32);
	}
	*(void **)middle[500] = middle; /* a ring of its own, too */
	one[0] = other;
	other[0] = one;
	other[1] = middle;
	written(one);
	written(other);
	star = mask(middle);
}

Test(leaks, rings_that_hold_all_there_is)
{
	quarry_leaks_report r;

	make_star();
	forget();
	r = look(0, NULL, NULL);
	cr_assert(r.objects == 1 && r.held_objects == 1002, "%lu, %lu", (unsigned long)r.objects,
		  (unsigned long)r.held_objects);
}

Test(leaks, a_forked_child_has_its_own)
{
	int status;
	pid_t pid;

	lose_one(10);
	pid = fork();
	if (pid == 0) {
		quarry_leaks_report r = { .struct_size = sizeof(r) };

		lose_one(20);
		forget();
		_exit(quarry_leaks_find(0, NULL, NULL, &r) == 0 && r.objects == 2 && r.inexact == 0 ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
}

static int end_at_once(const quarry_leak *l, void *ctx)
{
	(void)l;
	(*(unsigned *)ctx)++;
	return 7;
}

static int inside_error;

static void look_inside(const quarry_region_event *event, void *ctx)
{
	(void)event;
	(void)ctx;
	if (quarry_leaks_find(0, NULL, NULL, NULL) == -1)
		inside_error = errno;
}

Test(leaks, wrong_calls_are_refused)
{
	quarry_leaks_report r = { .struct_size = 0 };
	unsigned calls = 0;

	cr_assert_eq(quarry_leaks_find(2, NULL, NULL, NULL), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_find(0, NULL, NULL, &r), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_print(-1, 0), -1);
	cr_assert_eq(errno, EBADF);
	lose_one(10);
	lose_one(10000);
	forget();
	cr_assert_eq(quarry_leaks_find(0, end_at_once, &calls, NULL), 7);
	cr_assert_eq(calls, 1);
	cr_assert_eq(quarry_on_region(look_inside, NULL, QUARRY_REGION_MAP | QUARRY_REGION_UNMAP), 0);
	quarry_free(quarry_malloc(300 * MIB));
	quarry_purge(NULL);
	cr_assert_eq(inside_error, EDEADLK);
}

/* ---- suppressions ---- */

Test(leaks, suppressions_are_those_of_the_field)
{
	void *frames[] = { (char *)(uintptr_t)getenv + 1 };

	cr_assert_eq(quarry_leaks_suppress("leak:nobody\nleek:wrong\n"), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert(strstr(quarry_error_text(), "line 2") != NULL, "%s", quarry_error_text());
	cr_assert_eq(quarry_leaks_suppress("leak:"), -1);
	cr_assert_eq(quarry_leaks_suppress(NULL), -1);
	cr_assert_eq(quarry_leaks_suppress("# nothing\n\n  \n"), 0);
	cr_assert_null(qy_leak_suppressed(frames, 1));
	cr_assert_eq(quarry_leaks_suppress("leak:^etenv\nleak:geten$\nleak:get*nvv\nleak:^libc.so\n"), 0);
	cr_assert_null(qy_leak_suppressed(frames, 1));
	cr_assert_eq(quarry_leaks_suppress("  leak:^g*te*v$ \r\n"), 0);
	cr_assert_str_eq(qy_leak_suppressed(frames, 1), "^g*te*v$");
	cr_assert_null(qy_leak_suppressed(frames, 0));
	cr_assert_eq(quarry_leaks_suppress("leak:/libc.so"), 0);
	cr_assert_str_eq(qy_leak_suppressed(frames, 1), "/libc.so");
}
