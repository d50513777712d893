/* SPDX-License-Identifier: MIT */
/* Stress: what threads hold is given up behind their backs whenever they are blocked in a system call, as often as can
 * be (qy_threads_idle with no time to wait, again and again), while they
 *   sleep in every way there is, with full caches, in the midst of allocating, and free each other's blocks;
 *   are stopped at any instruction by signals whose handlers block, as garbage collectors do, in ways that show and in
 *   ways that hide that it is a handler;
 *   make arenas and destroy them, fork, are born and die.
 * Every block is verified. --threads are those that trade; beside them are one that gives up, one that stops the
 * others, one that makes arenas, one that forks, one that lets threads be born and die. (Under ThreadSanitizer there
 * are no signals, which it holds back while a thread sleeps, and no forks.) */
#include "tests/stress/stress.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "lib/cache/idle.h"
#include "numa/os.h"

#define SLOTS 4096
#define MAX_BITS 14
#define OWN 2048
#define STOP SIGUSR1
#define GO SIGUSR2

static _Atomic(struct st_card *) *table;
static _Atomic(unsigned) finished;
static atomic_bool over;
static _Atomic(uint64_t) looks, stops, forks, arenas, births;

/* ---- stopping the others ---- */

enum way { BY_READ, BY_SUSPEND_MOST, BY_SUSPEND_NONE, BY_POLL_NONE, BY_FUTEX, BY_SLEEP, WAYS };

static _Atomic(int) way;
static _Atomic(uint32_t) round_of; /* odd while they are to be stopped */
static _Atomic(unsigned) stopped;
static int lines[2];

static void wait_in_handler(uint32_t round)
{
	struct timespec moment = { 0, 300000 };
	sigset_t mask;
	char byte;

	switch ((enum way)atomic_load(&way)) {
	case BY_READ:
		while (read(lines[0], &byte, 1) != 1)
			continue;
		return;
	case BY_SUSPEND_MOST:
	case BY_SUSPEND_NONE:
		if (atomic_load(&way) == BY_SUSPEND_NONE)
			sigemptyset(&mask);
		else
			sigfillset(&mask);
		sigdelset(&mask, GO);
		while (atomic_load(&round_of) == round)
			sigsuspend(&mask);
		return;
	case BY_POLL_NONE:
		sigemptyset(&mask);
		while (atomic_load(&round_of) == round)
			ppoll(NULL, 0, NULL, &mask);
		return;
	case BY_FUTEX:
		while (atomic_load(&round_of) == round)
			syscall(SYS_futex, &round_of, FUTEX_WAIT_PRIVATE, round, NULL, NULL, 0);
		return;
	default:
		while (atomic_load(&round_of) == round)
			nanosleep(&moment, NULL);
	}
}

static void on_stop(int sig)
{
	int error = errno;
	uint32_t round = atomic_load(&round_of);

	(void)sig;
	if (round % 2 == 1) {
		atomic_fetch_add(&stopped, 1);
		wait_in_handler(round);
		atomic_fetch_sub(&stopped, 1);
	}
	errno = error;
}

static void on_go(int sig)
{
	(void)sig;
}

static void let_go(pthread_t *who, unsigned n, uint32_t round)
{
	struct timespec moment = { 0, 200000 };

	for (unsigned i = 0; i < n && atomic_load(&way) == BY_READ; i++)
		ST_CHECK(write(lines[1], "g", 1) == 1);
	atomic_store(&round_of, round + 1);
	syscall(SYS_futex, &round_of, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
	/* One that was about to suspend itself misses the first. */
	while (atomic_load(&stopped) != 0) {
		for (unsigned i = 0; i < n; i++)
			ST_CHECK(pthread_kill(who[i], GO) == 0);
		nanosleep(&moment, NULL);
	}
}

static pthread_t traders[ST_THREADS_MAX];
static _Atomic(unsigned) traders_there;

/* Nothing of quarry is used here: it may be any thread's that has a lock of it which is stopped. */
static void stop_others(struct st_worker *w)
{
	unsigned n = st.threads;

	while (atomic_load(&traders_there) < n)
		sched_yield();
	while (!atomic_load(&over)) {
		uint32_t round = atomic_load(&round_of) + 1;
		struct timespec moment = { 0, 1000 * (long)(100 + st_below(&w->rng, 2000)) };

		atomic_store(&way, (int)st_below(&w->rng, WAYS));
		atomic_store(&round_of, round);
		for (unsigned i = 0; i < n; i++)
			ST_CHECK(pthread_kill(traders[i], STOP) == 0);
		while (atomic_load(&stopped) < n)
			sched_yield();
		nanosleep(&moment, NULL);
		let_go(traders, n, round);
		atomic_fetch_add(&stops, 1);
		moment.tv_nsec = 1000 * (long)(100 + st_below(&w->rng, 2000));
		nanosleep(&moment, NULL);
	}
}

/* ---- trading ---- */

static void trade(struct st_rng *rng, uint64_t id)
{
	struct st_card *card = st_card_make(rng, id, st_size(rng, MAX_BITS));

	card = atomic_exchange(&table[st_below(rng, SLOTS)], card);
	if (card != NULL)
		st_card_drop(card, rng);
}

static void trade_own(struct st_block *own, struct st_rng *rng, uint64_t id, quarry_arena *arena)
{
	struct st_block *b = &own[st_below(rng, OWN)];

	if (b->p != NULL)
		st_drop(b, rng);
	else
		st_make(b, rng, arena, id, st_size(rng, st_below(rng, 4) ? 9 : MAX_BITS));
}

static void sleep_somehow(struct st_rng *rng)
{
	struct timespec moment = { 0, 1000 * (long)st_below(rng, 300) };
	static _Atomic(uint32_t) word;

	switch (st_below(rng, 4)) {
	case 0:
		nanosleep(&moment, NULL);
		break;
	case 1:
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &moment, NULL, 0);
		break;
	case 2:
		poll(NULL, 0, 1);
		break;
	default:
		ppoll(NULL, 0, &moment, NULL);
	}
}

static void drop_all(struct st_block *own, struct st_rng *rng)
{
	for (unsigned i = 0; i < OWN; i++)
		if (own[i].p != NULL)
			st_drop(&own[i], rng);
}

static void trader(struct st_worker *w)
{
	struct st_block *own = st_pages(OWN * sizeof *own), *in_arena = st_pages(OWN * sizeof *in_arena);
	quarry_arena *arena = quarry_arena_create(NULL);

	ST_CHECK(arena != NULL);
	traders[w->number] = pthread_self();
	atomic_fetch_add(&traders_there, 1);
	while (st_more(w)) {
		unsigned what = (unsigned)st_below(&w->rng, 64);

		if (what < 24)
			trade(&w->rng, w->next_id++);
		else if (what < 52)
			trade_own(own, &w->rng, w->next_id++, NULL);
		else if (what < 62)
			trade_own(in_arena, &w->rng, w->next_id++, arena);
		else if (what == 62 && st_below(&w->rng, 64) == 0)
			drop_all(own, &w->rng);
		else if (what == 63 && st_below(&w->rng, 8) == 0)
			sleep_somehow(&w->rng);
	}
	drop_all(own, &w->rng);
	drop_all(in_arena, &w->rng);
	atomic_fetch_add(&finished, 1);
	while (!atomic_load(&over))
		sleep_somehow(&w->rng);
	ST_CHECK(quarry_arena_destroy(arena) == 0);
}

/* ---- the others ---- */

static void giver(struct st_worker *w)
{
	while (!atomic_load(&over)) {
		qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
		/* What they would hold that were to sleep for ever. */
		if (st_below(&w->rng, 64) == 0)
			quarry_purge(NULL);
		atomic_fetch_add(&looks, 1);
	}
}

static void arena_maker(struct st_worker *w)
{
	struct st_block b[64];

	while (!atomic_load(&over)) {
		quarry_arena *arena = quarry_arena_create(NULL);

		ST_CHECK(arena != NULL);
		for (unsigned i = 0; i < 64; i++)
			st_make(&b[i], &w->rng, arena, w->next_id++, st_size(&w->rng, 10));
		for (unsigned i = 0; i < 64; i += 2)
			st_drop(&b[i], &w->rng);
		sleep_somehow(&w->rng);
		for (unsigned i = 1; i < 64; i += 4)
			st_block_verify(&b[i]);
		ST_CHECK(quarry_arena_destroy(arena) == 0);
		atomic_fetch_add(&arenas, 1);
	}
}

static __attribute__((noreturn)) void child(struct st_rng *rng, uint64_t id)
{
	st_watchdog_start(ST_ASAN || ST_TSAN ? 300 : 60);
	for (unsigned i = 0; i < 100; i++)
		trade(rng, id++);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct st_card *card = atomic_exchange(&table[i], NULL);

		if (card != NULL)
			st_card_drop(card, rng);
	}
	quarry_purge(NULL);
	for (unsigned i = 0; i < 100; i++)
		trade(rng, id++);
	_exit(0);
}

/* The table is shared with no child: st_pages are private. */
static void forker(struct st_worker *w)
{
	struct timespec moment = { 0, 5000000 };

	while (!atomic_load(&over)) {
		pid_t pid = fork();
		int status;

		ST_CHECK(pid >= 0);
		if (pid == 0)
			child(&w->rng, w->next_id);
		while (waitpid(pid, &status, 0) != pid)
			ST_CHECK(errno == EINTR);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			st_fail("a child ended with status %x", status);
		atomic_fetch_add(&forks, 1);
		w->next_id += 1000;
		for (unsigned i = 0; i < 50; i++)
			trade(&w->rng, w->next_id++);
		nanosleep(&moment, NULL);
	}
}

static void *short_life(void *arg)
{
	struct st_rng rng = { (uint64_t)(uintptr_t)arg };
	uint64_t id = ((uint64_t)(uintptr_t)arg << 16) | (uint64_t)1 << 63;

	for (unsigned i = 0; i < 200; i++)
		trade(&rng, id++);
	sleep_somehow(&rng);
	for (unsigned i = 0; i < 20; i++)
		trade(&rng, id++);
	if (st_below(&rng, 2) == 0)
		sleep_somehow(&rng);
	return NULL;
}

static void breeder(struct st_worker *w)
{
	pthread_t thread[4];

	while (!atomic_load(&over)) {
		for (unsigned i = 0; i < 4; i++)
			ST_CHECK(pthread_create(&thread[i], NULL, short_life, (void *)(uintptr_t)(st_next(&w->rng) >> 20)) == 0);
		for (unsigned i = 0; i < 4; i++)
			ST_CHECK(pthread_join(thread[i], NULL) == 0);
		atomic_fetch_add(&births, 4);
	}
}

int main(int argc, char **argv)
{
	static void (*const others[])(struct st_worker *) = { giver, stop_others, arena_maker, forker, breeder };
	enum { OTHERS = sizeof(others) / sizeof(*others) };
	static struct st_worker workers[ST_THREADS_MAX], beside[OTHERS];
	struct sigaction stop = { .sa_handler = on_stop, .sa_flags = SA_RESTART }, go = { .sa_handler = on_go };
	struct st_rng rng;
	quarry_stats stats;

	st_begin(argc, argv, "idle", ST_TSAN ? 300000 : 2000000, 3);
	ST_CHECK(pipe(lines) == 0);
	ST_CHECK(sigaction(STOP, &stop, NULL) == 0 && sigaction(GO, &go, NULL) == 0);
	table = st_pages(SLOTS * sizeof *table);
	st_start(workers, st.threads, trader);
	for (unsigned i = 0; i < OTHERS; i++) {
		/* (ThreadSanitizer holds signals back while a thread sleeps in it, and lets children of threads do
		 * little.) */
		if (ST_TSAN && (others[i] == stop_others || others[i] == forker))
			continue;
		st_worker_init(&beside[i], ST_THREADS_MAX + i);
		beside[i].body = others[i];
		ST_CHECK(pthread_create(&beside[i].thread, NULL, st_worker_main, &beside[i]) == 0);
	}
	while (atomic_load(&finished) < st.threads) {
		struct timespec moment = { 0, 10000000 };

		nanosleep(&moment, NULL);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < OTHERS; i++)
		if (beside[i].body != NULL)
			ST_CHECK(pthread_join(beside[i].thread, NULL) == 0);
	st_join(workers, st.threads);
	rng = st_rng_for(ST_THREADS_MAX);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct st_card *card = atomic_exchange(&table[i], NULL);

		if (card != NULL)
			st_card_drop(card, &rng);
	}
	st_stats(NULL, &stats);
	if (stats.idle_given_up == 0 && qy_os->thread_switches((int)syscall(SYS_gettid)) != 0)
		st_fail("no thread was given up: nothing was tested");
	printf("idle: %llu looks, given up %llu, refused %llu; stopped %llu times, %llu arenas, %llu forks, "
	       "%llu short lives\n", (unsigned long long)atomic_load(&looks), (unsigned long long)stats.idle_given_up,
	       (unsigned long long)stats.idle_refused, (unsigned long long)atomic_load(&stops),
	       (unsigned long long)atomic_load(&arenas), (unsigned long long)atomic_load(&forks),
	       (unsigned long long)atomic_load(&births));
	return st_end(ST_SLACK, 0);
}
