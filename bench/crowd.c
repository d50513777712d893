/* SPDX-License-Identifier: MIT */
/* Pattern: a process with a pool of threads of which almost all are idle. Each has allocated and freed a little and
 * then waits for ever, alive: 1 of them, 10, 100, 1000. "crowd.N.rss" is what each of those that came last holds, in
 * KiB, above "crowd.N.bare": what a thread holds that never called malloc, measured before in a forked child, under
 * the same allocator. "crowd.N.ns" is what replacing an object costs the two threads that work on, beside N idle ones.
 * The threads come one after the other: the next is made when the one before it waits.
 * Source: of this project; the memory that idle threads' caches hold is what S. Ghemawat, P. Menage, "TCMalloc:
 * Thread-Caching Malloc", 2005, limits by a budget for all. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIN_SIZE 16
#define MAX_SIZE 1024
#define LITTLE 32        /* blocks that an idle thread had at once */
#define LITTLE_OPS 200
#define STACK (256u << 10)
#define DEPTH (24u << 10) /* of the stack, touched by all: deep calls of an allocator are not its memory */
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct active {
	struct bench_slot *slots;
	uint64_t index;
	uint64_t random;
	double took;
	uint32_t tag;
};

struct idler {
	pthread_t thread;
	uint64_t random; /* 0: it never calls malloc */
};

static uint64_t most = 1000, slots = 2000;
static const struct bench_extra extra[] = {
	{ "most", &most, "idle threads, at most 10000" },
	{ "slots", &slots, "objects that a thread holds which works" },
};
static struct bench bench = {
	.name = "crowd", .op = "one object replaced, beside each number of idle threads", .ops = 2000000, .threads = 2,
	.seed = 1, .work_only = 1, .extra = extra, .extras = COUNT(extra),
};
static const uint64_t steps[] = { 1, 10, 100, 1000, 10000 };
static double bare[COUNT(steps)];
static struct idler *idlers;
static uint64_t alive;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t one_waits = PTHREAD_COND_INITIALIZER, end = PTHREAD_COND_INITIALIZER;
static uint64_t waiting;
static int over; /* of the idle */

static pthread_barrier_t turn;
static int ended; /* of the active; between two barriers */

static uint32_t any_size(uint64_t *random)
{
	return MIN_SIZE + bench_below(random, MAX_SIZE - MIN_SIZE + 1);
}

static void a_little(uint64_t random)
{
	struct bench_slot had[LITTLE] = { { 0 } };

	for (uint32_t i = 0; i < LITTLE_OPS; i++) {
		struct bench_slot *s = &had[bench_below(&random, LITTLE)];

		if (s->p)
			bench_empty(s);
		bench_fill(s, any_size(&random), i);
	}
	for (uint32_t i = 0; i < LITTLE; i++)
		if (had[i].p)
			bench_empty(&had[i]);
}

static void __attribute__((noinline)) touch_stack(void)
{
	unsigned char depth[DEPTH];

	memset(depth, 1, sizeof(depth));
	/* So that the compiler does not leave it out. */
	__asm__ volatile("" : : "r"(depth) : "memory");
}

static void *idle(void *argument)
{
	struct idler *me = argument;

	touch_stack();
	if (me->random)
		a_little(me->random);
	pthread_mutex_lock(&lock);
	waiting++;
	pthread_cond_signal(&one_waits);
	while (!over)
		pthread_cond_wait(&end, &lock);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Without the pages of files: code is resident once, and not because of one more thread. */
static double resident(void)
{
	return bench_memory(0).anonymous * 1024;
}

/* So many idle threads more; gives what they added to the resident set, in KiB each. */
static double add_idle(uint64_t more, int mallocs)
{
	double before = resident();
	uint64_t upto = alive + more;
	pthread_attr_t small;
	int error;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	for (; alive < upto; alive++) {
		idlers[alive].random = mallocs ? bench_seed(&bench, alive + bench.threads) : 0;
		error = pthread_create(&idlers[alive].thread, &small, idle, &idlers[alive]);
		if (error)
			bench_die("pthread_create of idle thread %lu: %s", (unsigned long)alive, strerror(error));
		pthread_mutex_lock(&lock);
		while (waiting <= alive)
			pthread_cond_wait(&one_waits, &lock);
		pthread_mutex_unlock(&lock);
	}
	pthread_attr_destroy(&small);
	return (resident() - before) / (double)more;
}

/* How many the step makes more than the one before it. */
static uint64_t new_at(uint32_t i)
{
	return steps[i] - (i ? steps[i - 1] : 0);
}

static void end_idle(void)
{
	pthread_mutex_lock(&lock);
	over = 1;
	pthread_cond_broadcast(&end);
	pthread_mutex_unlock(&lock);
	for (uint64_t i = 0; i < alive; i++)
		pthread_join(idlers[i].thread, NULL);
}

/* The bare cost, by a child that has nothing yet. */
static void find_bare(void)
{
	/* The last says that the child came to its end. */
	double *told = mmap(NULL, sizeof(bare) + sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t child;

	if (told == MAP_FAILED)
		bench_die("no memory for the child's figures");
	child = fork();
	if (child < 0)
		bench_die("fork failed");
	if (child == 0) {
		/* What the process pays once: its main thread's memory, and what comes with the first other thread. */
		free(malloc(MIN_SIZE));
		add_idle(1, 0);
		for (uint32_t i = 0; i < COUNT(steps) && steps[i] <= most; i++)
			told[i] = add_idle(new_at(i), 0);
		end_idle();
		told[COUNT(steps)] = 1;
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status || told[COUNT(steps)] != 1)
		bench_die("the child with the bare threads failed");
	memcpy(bare, told, sizeof(bare));
	munmap(told, sizeof(bare) + sizeof(*told));
}

static void *work(void *argument)
{
	struct active *a = argument;
	uint64_t n = bench_share(&bench, a->index, bench.threads).left;

	for (uint64_t i = 0; i < slots; i++)
		bench_fill(&a->slots[i], any_size(&a->random), a->tag++);
	for (;;) {
		double from;

		pthread_barrier_wait(&turn);
		if (ended)
			break;
		from = bench_now();
		for (uint64_t i = 0; i < n; i++) {
			struct bench_slot *s = &a->slots[bench_below(&a->random, (uint32_t)slots)];

			bench_empty(s);
			bench_fill(s, any_size(&a->random), a->tag++);
		}
		a->took = bench_now() - from;
		pthread_barrier_wait(&turn);
	}
	for (uint64_t i = 0; i < slots; i++)
		bench_empty(&a->slots[i]);
	return NULL;
}

/* Lets the active threads work once, and prints what an operation cost them. */
static void let_work(const struct active *actives, uint64_t idle_ones)
{
	double took = 0;
	char name[32];

	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	for (uint64_t i = 0; i < bench.threads; i++)
		took += actives[i].took;
	snprintf(name, sizeof(name), "%lu.ns", (unsigned long)idle_ones);
	bench_figure(&bench, name, took * 1e9 / (double)bench.ops, "ns");
}

static void grow(const struct active *actives)
{
	char name[32];
	double held;

	let_work(actives, 0);
	for (uint32_t i = 0; i < COUNT(steps) && steps[i] <= most; i++) {
		held = add_idle(new_at(i), 1);
		snprintf(name, sizeof(name), "%lu.rss", (unsigned long)steps[i]);
		bench_figure(&bench, name, held - bare[i], "KiB");
		snprintf(name, sizeof(name), "%lu.bare", (unsigned long)steps[i]);
		bench_figure(&bench, name, bare[i], "KiB");
		let_work(actives, steps[i]);
	}
}

int main(int argc, char **argv)
{
	struct active *actives;
	pthread_t *threads;

	bench_begin(&bench, argc, argv);
	if (most > steps[COUNT(steps) - 1])
		bench_die("--most: at most %lu idle threads", (unsigned long)steps[COUNT(steps) - 1]);
	/* One more for the child; all of it in memory before anything is counted. */
	idlers = bench_table((most + 1) * sizeof(*idlers));
	memset(idlers, 0, (most + 1) * sizeof(*idlers));
	find_bare();
	actives = bench_table(bench.threads * sizeof(*actives));
	threads = bench_table(bench.threads * sizeof(*threads));
	pthread_barrier_init(&turn, NULL, (unsigned)bench.threads + 1);
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		actives[i].slots = bench_table(slots * sizeof(struct bench_slot));
		actives[i].index = i;
		actives[i].random = bench_seed(&bench, i);
		if (pthread_create(&threads[i], NULL, work, &actives[i]))
			bench_die("pthread_create failed");
	}
	grow(actives);
	ended = 1;
	pthread_barrier_wait(&turn);
	for (uint64_t i = 0; i < bench.threads; i++)
		pthread_join(threads[i], NULL);
	end_idle();
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	return 0;
}
