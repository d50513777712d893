/* SPDX-License-Identifier: MIT */
/* Leaks: where roots are, in memory, on stacks and in registers of other threads; what the kernel refuses, and what cannot
 * be read; and that the program sees nothing of it. (What is told of: test_leaks.c.) */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "numa/os.h"
#include "tests/unit/leaks.h"

static void *roots[2];

TestSuite(leaks, .init = without_reclaimer);

/* ---- roots ---- */

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

/* Two stacks side by side in one mapping: the upper one's pointer does not say what of the lower one is in use. */
static void *sleep_below(void *unused)
{
	char c;

	cr_assert_eq(write(back[1], "", 1), 1);
	cr_assert_eq(read(line[0], &c, 1), 1);
	return unused;
}

Test(leaks, what_another_thread_has_in_the_same_mapping_counts)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), half = 64 * page;
	char *both = mmap(NULL, page + 2 * half, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), c;
	pthread_t low, high;
	pthread_attr_t attr;

	cr_assert_neq(both, MAP_FAILED);
	cr_assert_eq(mprotect(both, page, PROT_NONE), 0);
	cr_assert_eq(pipe(line), 0);
	cr_assert_eq(pipe(back), 0);
	cr_assert_eq(pthread_attr_init(&attr), 0);
	cr_assert_eq(pthread_attr_setstack(&attr, both + page, half), 0);
	cr_assert_eq(pthread_create(&low, &attr, sleep_with, NULL), 0);
	cr_assert_eq(read(back[0], &c, 1), 1);
	cr_assert_eq(write(line[1], "", 1), 1);
	cr_assert_eq(read(back[0], &c, 1), 1);
	cr_assert_eq(pthread_attr_setstack(&attr, both + page + half, half), 0);
	cr_assert_eq(pthread_create(&high, &attr, sleep_below, NULL), 0);
	cr_assert_eq(read(back[0], &c, 1), 1);
	cr_assert_eq(look(0, NULL, NULL).objects, 0);
	cr_assert_eq(write(line[1], "  ", 2), 2);
	pthread_join(low, NULL);
	pthread_join(high, NULL);
	pthread_attr_destroy(&attr);
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

static struct qy_os os;
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

/* (What stands in a file is not of the moment at which the copy was made: others write to it meanwhile.) */
Test(leaks, are_looked_for_twice_where_arenas_are_in_files)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_ARENA_FD };
	quarry_arena *arena = quarry_arena_create(&attr);
	int next;

	cr_assert_not_null(arena, "%s", quarry_error_text());
	roots[0] = quarry_arena_malloc(arena, 100);
	lose_one(77);
	begin_sleeping();
	next = dup(0);
	cr_assert_eq(close(next), 0);
	cr_assert_eq(look(0, NULL, NULL).scans, 2);
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
	cr_assert_eq(dup(0), next, "descriptors were left open");
	roots[0] = NULL;
	cr_assert_eq(look(0, NULL, NULL).objects, 2);
	end_sleeping();
	cr_assert_eq(quarry_arena_destroy(arena), 0);
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
