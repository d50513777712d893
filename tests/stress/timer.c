/* SPDX-License-Identifier: MIT */
/* Stress: reclaim=timer, and quarry_tend, with real signals.
 *
 * First, in the one thread that the process has: what is freed, whole blocks or most of the objects of many slabs, goes
 * back while the process does nothing but wait, in each way that a signal ends; and in a loop that tends.
 *
 * Then a timer that rings as fast as it can (the clock that decay goes by runs 64 times as fast, the timer takes
 * microseconds for milliseconds) strikes threads in the midst of everything: allocation, arenas that are made and
 * destroyed, forks, other threads' tending. Every block is verified; with --enable-debug, the ranks of locks tell of
 * one that a handler takes and its own thread holds. The thread that starts the others blocks the signal, so
 * that it strikes them. (Under ThreadSanitizer, which delivers signals elsewhere than they came, there are none, and
 * the threads tend instead; nor is RSS looked at.) */
#include "tests/stress/stress.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "lib/cache/idle.h"
#include "lib/reclaim/reclaim.h"
#include "numa/os.h"

#define BLOCKS 200
#define OBJECTS (128u << 10)
#define OBJECT 1008
#define KEPT 64 /* of so many objects, one is kept */
#define SLOTS 512
#define MAX_BITS 15
#define FASTER 64
#define LEEWAY (16 * ST_MIB)

/* Before the library's own start. */
static __attribute__((constructor(101))) void set_options(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=timer,decay_ms=400", 1);
}

/* ---- waiting ---- */

static size_t number_in(const char *path, const char *name, unsigned field)
{
	char text[4096], *at = text;
	ssize_t n = qy_os_linux.read_file(path, text, sizeof(text));

	ST_CHECK(n > 0);
	if (name != NULL) {
		at = strstr(text, name);
		ST_CHECK(at != NULL);
		at += strlen(name);
	}
	while (field-- > 0)
		(void)strtoull(at, &at, 10);
	return strtoull(at, &at, 10);
}

static size_t resident(void)
{
	return number_in("/proc/self/statm", NULL, 1) * qy_os_page_size();
}

/* In one of the ways in which a signal ends it; 50 ms at most, since a signal may come just before. */
static void wait_somehow(unsigned how)
{
	static int epoll = -1;
	struct timespec moment = { 0, 50 * 1000 * 1000 };
	struct epoll_event event;
	sigset_t none;

	sigemptyset(&none);
	switch (how % 4) {
	case 0:
		poll(NULL, 0, 50);
		break;
	case 1:
		nanosleep(&moment, NULL);
		break;
	case 2:
		if (epoll < 0)
			epoll = epoll_create1(EPOLL_CLOEXEC);
		epoll_wait(epoll, &event, 1, 50);
		break;
	default:
		sigtimedwait(&none, NULL, &moment);
	}
}

/* Until RSS is down at what it was and a little more: the watchdog is the deadline. */
static void wait_until_down(const char *what, size_t before, size_t may_stay, bool tend)
{
	double began = st_now();
	unsigned waits = 0;

	while (resident() > before + may_stay + LEEWAY) {
		if (st_now() - began > st.watchdog / 3.0)
			st_fail("%s: %.1f MiB still in memory, %.1f before", what, (double)resident() / (double)ST_MIB,
				(double)before / (double)ST_MIB);
		if (tend) {
			int64_t ms = quarry_tend();

			poll(NULL, 0, ms < 0 || ms > 50 ? 50 : (int)ms);
		} else {
			wait_somehow(waits);
		}
		ST_CHECK(number_in("/proc/self/status", "\nThreads:", 0) == 1);
		waits++;
	}
	printf("timer: %s: down after %.2f s and %u waits\n", what, st_now() - began, waits);
}

static void blocks(const char *what, bool tend)
{
	static char *p[BLOCKS];
	size_t before = resident();

	for (unsigned i = 0; i < BLOCKS; i++) {
		p[i] = quarry_malloc(ST_MIB);
		ST_CHECK(p[i] != NULL);
		memset(p[i], 1, ST_MIB);
	}
	ST_CHECK(resident() >= BLOCKS * ST_MIB);
	for (unsigned i = 0; i < BLOCKS; i++)
		quarry_free(p[i]);
	wait_until_down(what, before, 0, tend);
}

static void objects(const char *what, bool tend)
{
	char **p = st_pages(OBJECTS * sizeof(*p));
	size_t before;

	memset(p, 0, OBJECTS * sizeof(*p));
	before = resident();
	for (unsigned i = 0; i < OBJECTS; i++) {
		p[i] = quarry_malloc(OBJECT);
		ST_CHECK(p[i] != NULL);
		memset(p[i], (int)(i & 0xff), OBJECT);
	}
	ST_CHECK(resident() >= (size_t)OBJECTS * OBJECT);
	for (unsigned i = 0; i < OBJECTS; i++)
		if (i % KEPT != 0)
			quarry_free(p[i]);
	/* (Each of those that are left may reach into two pages.) */
	wait_until_down(what, before, OBJECTS / KEPT * 8192, tend);
	for (unsigned i = 0; i < OBJECTS; i += KEPT) {
		for (unsigned k = 0; k < OBJECT; k++)
			ST_CHECK(p[i][k] == (char)(i & 0xff));
		quarry_free(p[i]);
	}
	munmap(p, OBJECTS * sizeof(*p));
}

/* ---- a timer that rings all the time ---- */

static struct qy_os fast;
static _Atomic(uint64_t) rings, forks, arenas, tends;
static uint64_t began_ms;

static uint64_t fast_now_ms(void)
{
	return began_ms + (qy_os_linux.now_ns() / 1000000 - began_ms) * FASTER;
}

/* (Any thread, and in a handler: the seed is mixed, and not drawn from.) */
static int fast_timer_set(int timer, uint64_t ms)
{
	uint64_t n = atomic_fetch_add(&rings, 1);
	struct itimerspec spec = { { 0, 0 }, { 0, 0 } };

	(void)ms;
	spec.it_value.tv_nsec = (long)(5000 + st_mix(st.seed ^ n) % 60000);
	return (int)syscall(SYS_timer_settime, timer, 0, &spec, NULL);
}

static void in_child(struct st_worker *w)
{
	struct st_block b[16];
	int status;
	pid_t pid = fork();

	ST_CHECK(pid >= 0);
	if (pid == 0) {
		st_watchdog_start(st.watchdog);
		for (unsigned round = 0; round < 8; round++) {
			for (unsigned i = 0; i < 16; i++)
				st_make(&b[i], &w->rng, NULL, w->next_id++, st_size(&w->rng, 18));
			for (unsigned i = 0; i < 16; i++)
				st_drop(&b[i], &w->rng);
		}
		_exit(0);
	}
	while (waitpid(pid, &status, 0) != pid)
		ST_CHECK(errno == EINTR);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		st_fail("a forked child ended with %#x", (unsigned)status);
	atomic_fetch_add(&forks, 1);
}

static void in_arena(struct st_worker *w)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .policy = QUARRY_POLICY_LOCAL };
	quarry_arena *arena = quarry_arena_create(&attr);
	struct st_block b[32];

	ST_CHECK(arena != NULL);
	for (unsigned i = 0; i < 32; i++)
		st_make(&b[i], &w->rng, arena, w->next_id++, st_size(&w->rng, 17));
	for (unsigned i = 0; i < 32; i += 2)
		st_drop(&b[i], &w->rng);
	for (unsigned i = 1; i < 32; i += 2)
		st_block_verify(&b[i]);
	ST_CHECK(quarry_arena_destroy(arena) == 0);
	atomic_fetch_add(&arenas, 1);
}

static void now_and_then(struct st_worker *w)
{
	if (!ST_TSAN && st_below(&w->rng, 8192) == 0)
		in_child(w);
	if (st_below(&w->rng, 1024) == 0)
		in_arena(w);
	if (st_below(&w->rng, 512) == 0) {
		quarry_tend();
		atomic_fetch_add(&tends, 1);
	}
	if (st_below(&w->rng, ST_TSAN ? 16384 : 256) == 0)
		wait_somehow(0 /* by poll: no descriptor is shared */);
}

static void work(struct st_worker *w)
{
	static __thread struct st_block slot[SLOTS];
	sigset_t urgent;

	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	ST_CHECK(pthread_sigmask(SIG_UNBLOCK, &urgent, NULL) == 0);
	while (st_more(w)) {
		struct st_block *b = &slot[st_below(&w->rng, SLOTS)];

		errno = EDOM;
		if (b->p == NULL)
			st_make(b, &w->rng, NULL, w->next_id++, st_size(&w->rng, st_below(&w->rng, 64) == 0 ? 20 : MAX_BITS));
		else if (st_below(&w->rng, 4) == 0)
			st_resize(b, &w->rng, st_size(&w->rng, MAX_BITS));
		else
			st_drop(b, &w->rng);
		if (errno != EDOM)
			st_fail("errno is %d", errno);
		now_and_then(w);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (slot[i].p != NULL)
			st_drop(&slot[i], &w->rng);
}

static void strike(void)
{
	uint64_t passes = qy_reclaim_passes();
	sigset_t urgent, before;

	fast = qy_os_linux;
	began_ms = qy_os_linux.now_ms();
	fast.now_ms = fast_now_ms;
	fast.timer_set = fast_timer_set;
	qy_os = &fast;
	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	ST_CHECK(pthread_sigmask(SIG_BLOCK, &urgent, &before) == 0);
	st_threads(work);
	ST_CHECK(quarry_ctl_set("reclaim", "series") == 0);
	ST_CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	printf("timer: armed %llu times, %llu passes, %llu forks, %llu arenas, %llu tended, %llu caches given up\n",
	       (unsigned long long)rings, (unsigned long long)(qy_reclaim_passes() - passes), (unsigned long long)forks,
	       (unsigned long long)arenas, (unsigned long long)tends, (unsigned long long)qy_read(&qy_idle_given_up));
	if ((!ST_TSAN && rings < 100) || qy_reclaim_passes() == passes)
		st_fail("hardly a signal came: nothing was tested");
}

int main(int argc, char **argv)
{
	quarry_stats now;

	st_begin(argc, argv, "timer", 600000, 3);
	if (ST_TSAN) {
		printf("timer: ThreadSanitizer delivers signals elsewhere than they came: without signals\n");
		ST_CHECK(quarry_ctl_set("reclaim", "series") == 0);
		strike();
		return st_end(ST_SLACK, 0);
	}
	blocks("blocks, by the timer", false);
	st_stats(NULL, &now);
	ST_CHECK(now.reclaimed_by == QUARRY_RECLAIMER_TIMER && now.refused[QUARRY_REFUSED_TIMER] == 0);
	objects("objects, by the timer", false);
	blocks("blocks again, by the timer", false);
	ST_CHECK(quarry_ctl_set("reclaim", "series") == 0);
	blocks("blocks, tended", true);
	objects("objects, tended", true);
	st_stats(NULL, &now);
	ST_CHECK(now.reclaimed_by == QUARRY_RECLAIMER_TENDED);
	ST_CHECK(quarry_ctl_set("reclaim", "timer") == 0);
	strike();
	return st_end(ST_SLACK, 0);
}
