/* SPDX-License-Identifier: MIT */
/* Stress: forks from a process whose one other thread frees thousands of objects in a row, again and again, so that it
 * is in the middle of that at most forks, its lists full. In the child a thread takes over what that one had, frees
 * what it held, and has all of it go back: that a list was about to be looked at when the fork came is no mistake, and
 * nothing of it is lost. --ops counts forks. (Where a sanitizer lets no child of a threaded process start threads,
 * nobody takes over: there the test ends at once, and says so.) */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#define HELD 60000 /* objects of the other thread, */
#define ROUND 4000 /* and how many it makes and frees in turn */
#define SIZE 64
#define CHILD_SECONDS 60

static unsigned char *held[HELD];
static atomic_bool ready, stop;

static void stamp(unsigned char *p, unsigned i)
{
	ST_CHECK(p != NULL);
	memcpy(p, &i, sizeof(i));
	memcpy(p + SIZE - sizeof(i), &i, sizeof(i));
}

static void check(const unsigned char *p, unsigned i)
{
	if (memcmp(p, &i, sizeof(i)) != 0 || memcmp(p + SIZE - sizeof(i), &i, sizeof(i)) != 0)
		st_fail("object %u has changed", i);
}

static void fill_and_churn(struct st_worker *w)
{
	static unsigned char *turn[ROUND];

	(void)w;
	for (unsigned i = 0; i < HELD; i++)
		stamp(held[i] = quarry_malloc(SIZE), i);
	atomic_store(&ready, true);
	while (!atomic_load(&stop)) {
		for (unsigned i = 0; i < ROUND; i++)
			stamp(turn[i] = quarry_malloc(SIZE), i);
		for (unsigned i = 0; i < ROUND; i++) {
			check(turn[i], i);
			quarry_free(turn[i]);
		}
	}
}

static void take_over(struct st_worker *w)
{
	(void)w;
	for (unsigned i = 0; i < HELD; i++) {
		check(held[i], i);
		quarry_free(held[i]);
	}
	quarry_thread_flush();
}

static __attribute__((noreturn)) void child(void)
{
	static struct st_worker heir;
	quarry_stats stats;

	st_watchdog_start(CHILD_SECONDS);
	st_start(&heir, 1, take_over);
	st_join(&heir, 1);
	st_stats(NULL, &stats);
	if (stats.bad_frees != 0)
		st_fail("in a child %llu bad frees are counted", (unsigned long long)stats.bad_frees);
	_exit(0);
}

int main(int argc, char **argv)
{
	static struct st_worker other;
	struct st_rng rng;

	st_begin(argc, argv, "forklists", 120, 1);
	if (ST_TSAN || ST_ASAN) {
		printf("forklists: left out under this sanitizer\n");
		return st_end(ST_SLACK, 0);
	}
	rng = st_rng_for(ST_THREADS_MAX);
	st_start(&other, 1, fill_and_churn);
	while (!atomic_load(&ready))
		sched_yield();
	for (uint64_t i = 0; i < st.ops && (st.deadline == 0 || st_now() < st.deadline); i++) {
		int status;
		pid_t pid;

		/* (At another moment of the other thread's each time.) */
		for (unsigned n = st_below(&rng, 400); n > 0; n--)
			sched_yield();
		pid = fork();
		ST_CHECK(pid >= 0);
		if (pid == 0)
			child();
		while (waitpid(pid, &status, 0) != pid)
			ST_CHECK(errno == EINTR);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			st_fail("a child ended with status %x", (unsigned)status);
	}
	atomic_store(&stop, true);
	st_join(&other, 1);
	for (unsigned i = 0; i < HELD; i++) {
		check(held[i], i);
		quarry_free(held[i]);
	}
	return st_end(ST_SLACK, 0);
}
