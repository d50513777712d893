/* SPDX-License-Identifier: MIT */
/* Stress: many forks from a process whose threads allocate and free all the time. Each child verifies every block it
 * inherited, frees them, allocates, starts threads of its own, forks again, spawns programs, and leaves by _exit(2);
 * the parents check how. A child that hangs is ended by its own watchdog. --ops counts forks; --threads the
 * threads that churn. Two more threads fork at once. (ThreadSanitizer allows no threads in a child of a threaded
 * process, and AddressSanitizer's own allocator, which glibc uses for attributes of threads, may be locked in one for
 * ever: there the children do without.) */
#include "tests/stress/stress.h"

#include <spawn.h>
#include <sys/wait.h>

#define FORKERS 2
#define SLOTS 768
#define OWN 256
#define MAX_BITS 16
#define CHILD_SECONDS (ST_ASAN || ST_TSAN ? 300 : 60)

extern char **environ;

static _Atomic(struct st_card *) *table;
static atomic_bool stop;
static _Atomic uint64_t churned;

static void trade(struct st_rng *rng, uint64_t id, unsigned bits)
{
	struct st_card *card = st_card_make(rng, id, st_size(rng, bits));

	card = atomic_exchange(&table[st_below(rng, SLOTS)], card);
	if (card != NULL)
		st_card_drop(card, rng);
}

/* A thread of the parent: may be anywhere in the library when the process is copied. */
static void churn(struct st_worker *w)
{
	quarry_arena *arena = NULL;
	struct st_block b;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		unsigned what = (unsigned)st_below(&w->rng, 256);
		if (what < 200) {
			trade(&w->rng, w->next_id++, MAX_BITS);
		} else if (what < 250) {
			st_make(&b, &w->rng, arena, w->next_id++, st_size(&w->rng, MAX_BITS));
			st_resize(&b, &w->rng, st_size(&w->rng, MAX_BITS));
			st_drop(&b, &w->rng);
		} else if (what < 252) {
			quarry_thread_flush();
		} else if (what < 253) {
			quarry_purge(NULL);
		} else if (arena == NULL) {
			arena = quarry_arena_create(NULL);
			ST_CHECK(arena != NULL);
		} else {
			ST_CHECK(quarry_arena_destroy(arena) == 0);
			arena = NULL;
		}
		w->done++;
	}
	if (arena != NULL)
		ST_CHECK(quarry_arena_destroy(arena) == 0);
	atomic_fetch_add(&churned, w->done);
	w->done = 0;
}

static void drop_table(struct st_rng *rng)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct st_card *card = atomic_exchange(&table[i], NULL);
		if (card != NULL)
			st_card_drop(card, rng);
	}
}

static void child_thread(struct st_worker *w)
{
	for (unsigned i = 0; i < 300; i++)
		trade(&w->rng, w->next_id++, 13);
}

static void wait_for(pid_t pid, const char *whose)
{
	int status;

	while (waitpid(pid, &status, 0) != pid)
		ST_CHECK(errno == EINTR);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		st_fail("%s ended with %s %d", whose, WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void spawn_true(void)
{
	char *argv[] = { (char *)"true", NULL };
	pid_t pid;

	if (posix_spawnp(&pid, "true", NULL, NULL, argv, environ) == 0)
		wait_for(pid, "a spawned program");
}

static void drop_own(struct st_block *own, struct st_rng *rng)
{
	for (unsigned i = 0; i < OWN; i++) {
		if (own[i].p != NULL)
			st_drop(&own[i], rng);
	}
}

static void child_churn(struct st_rng *rng, uint64_t id)
{
	struct st_worker two[2];
	quarry_arena *arena;
	struct st_block b;

	for (unsigned i = 0; i < 100; i++)
		trade(rng, id++, MAX_BITS);
	if (!ST_TSAN && !ST_ASAN) {
		st_start(two, 2, child_thread);
		st_join(two, 2);
	}
	arena = quarry_arena_create(NULL);
	ST_CHECK(arena != NULL);
	for (unsigned i = 0; i < 50; i++) {
		st_make(&b, rng, arena, id++, st_size(rng, 12));
		ST_CHECK(quarry_arena_of(b.p) == arena);
	}
	ST_CHECK(quarry_arena_destroy(arena) == 0);
}

static __attribute__((noreturn)) void child(struct st_block *own, struct st_rng *rng, uint64_t id, unsigned depth)
{
	quarry_stats stats;

	st_watchdog_start(CHILD_SECONDS);
	/* Half of them allocate before they free anything. */
	if (st_next(rng) & 1)
		child_churn(rng, id);
	drop_own(own, rng);
	drop_table(rng);
	quarry_purge(NULL);
	child_churn(rng, id + 10000);
	st_stats(NULL, &stats);
	if (depth > 0 && st_below(rng, 4) == 0) {
		pid_t pid = fork();
		ST_CHECK(pid >= 0);
		if (pid == 0)
			child(own, rng, id + 20000, depth - 1);
		wait_for(pid, "a child's child");
	}
	drop_table(rng);
	_exit(0);
}

static void forker(struct st_worker *w)
{
	struct st_block *own = st_pages(OWN * sizeof *own);
	uint64_t forks = st.ops / FORKERS;

	for (w->done = 0; w->done < forks && (st.deadline == 0 || st_now() < st.deadline); w->done++) {
		pid_t pid;
		for (unsigned i = 0; i < OWN / 8; i++) {
			struct st_block *b = &own[st_below(&w->rng, OWN)];
			if (b->p != NULL)
				st_drop(b, &w->rng);
			st_make(b, &w->rng, NULL, w->next_id++, st_size(&w->rng, MAX_BITS));
		}
		pid = fork();
		if (pid < 0)
			st_fail("fork: errno %d", errno);
		if (pid == 0)
			child(own, &w->rng, w->next_id + ((uint64_t)1 << 62), 1);
		if (w->done % 16 == 15)
			spawn_true();
		wait_for(pid, "a child");
	}
	drop_own(own, &w->rng);
	munmap(own, OWN * sizeof *own);
}

int main(int argc, char **argv)
{
	static struct st_worker churners[ST_THREADS_MAX], forkers[FORKERS];
	struct st_rng rng;

	st_begin(argc, argv, "forkstorm", 600, 3);
	table = st_pages(SLOTS * sizeof *table);
	st_start(churners, st.threads, churn);
	for (unsigned i = 0; i < FORKERS; i++) {
		st_worker_init(&forkers[i], 100 + i);
		forkers[i].body = forker;
		ST_CHECK(pthread_create(&forkers[i].thread, NULL, st_worker_main, &forkers[i]) == 0);
	}
	st_join(forkers, FORKERS);
	atomic_store(&stop, true);
	st_join(churners, st.threads);
	rng = st_rng_for(ST_THREADS_MAX);
	drop_table(&rng);
	printf("forkstorm: %llu operations by the threads meanwhile\n", (unsigned long long)atomic_load(&churned));
	return st_end(ST_SLACK, 0);
}
