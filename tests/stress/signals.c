/* SPDX-License-Identifier: MIT */
/* Stress: signals at a high rate interrupt threads anywhere in the library: each thread has a timer of its own, and
 * the process an interval timer. The handlers allocate nothing; they verify blocks of the thread they interrupted,
 * change errno and put it back, and raise a second signal that is handled on another stack. The threads verify that
 * neither their blocks nor errno changed under them. */
#include "tests/stress/stress.h"

#include <sys/syscall.h>
#include <sys/time.h>

#define SLOTS 512
#define MAX_BITS 15
#define PERIOD_NS (ST_ASAN || ST_TSAN ? 2000000 : 100000)

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* A block that the handler may look at while open is set. */
struct slot {
	struct st_block block;
	volatile sig_atomic_t open;
};

struct desk {
	struct slot slot[SLOTS];
	unsigned next; /* the handler's */
	uint64_t signals, nested, seen;
};

static __thread struct desk *volatile desk;
static _Atomic uint64_t signals, nested, seen;

static void on_signal(int sig)
{
	int saved = errno;
	struct desk *d = desk;

	if (d != NULL) {
		d->signals++;
		for (unsigned i = 0; i < 4; i++) {
			struct slot *s = &d->slot[d->next++ % SLOTS];
			if (!s->open)
				continue;
			atomic_signal_fence(memory_order_acquire);
			st_block_verify(&s->block);
			d->seen++;
		}
		if (sig == SIGUSR1 && d->signals % 8 == 0)
			raise(SIGUSR2);
	}
	errno = EXFULL; /* no allocation sets that */
	errno = saved;
}

static void on_other_stack(int sig)
{
	struct desk *d = desk;

	(void)sig;
	if (d != NULL)
		d->nested++;
}

static void close_slot(struct slot *s)
{
	s->open = 0;
	atomic_signal_fence(memory_order_release);
}

static void open_slot(struct slot *s)
{
	atomic_signal_fence(memory_order_release);
	s->open = 1;
}

static timer_t start_timer(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	struct itimerspec spec = { { 0, PERIOD_NS }, { 0, PERIOD_NS } };
	timer_t timer;

	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	ST_CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	ST_CHECK(timer_settime(timer, 0, &spec, NULL) == 0);
	return timer;
}

static void churn(struct st_worker *w, struct desk *d)
{
	while (st_more(w)) {
		struct slot *s = &d->slot[st_below(&w->rng, SLOTS)];
		close_slot(s);
		errno = 0;
		if (s->block.p == NULL) {
			st_make(&s->block, &w->rng, NULL, w->next_id++, st_size(&w->rng, MAX_BITS));
			open_slot(s);
		} else if (st_below(&w->rng, 4) == 0) {
			st_resize(&s->block, &w->rng, st_size(&w->rng, MAX_BITS));
			open_slot(s);
		} else {
			errno = EDOM;
			st_drop(&s->block, &w->rng);
			if (errno != EDOM)
				st_fail("free left errno at %d", errno);
			errno = 0;
		}
		if (errno == EXFULL)
			st_fail("errno of a signal handler is left");
		if (w->done % 16384 == 0)
			quarry_thread_flush();
	}
}

static void work(struct st_worker *w)
{
	struct desk *d = st_pages(sizeof *d);
	size_t stack_size = 256 * ST_KIB;
	stack_t stack = { .ss_sp = st_pages(stack_size), .ss_size = stack_size };
	stack_t none = { .ss_flags = SS_DISABLE };
	timer_t timer;

	ST_CHECK(sigaltstack(&stack, NULL) == 0);
	desk = d;
	timer = start_timer();
	churn(w, d);
	ST_CHECK(timer_delete(timer) == 0);
	desk = NULL;
	for (unsigned i = 0; i < SLOTS; i++) {
		if (d->slot[i].block.p != NULL)
			st_drop(&d->slot[i].block, &w->rng);
	}
	ST_CHECK(sigaltstack(&none, NULL) == 0);
	atomic_fetch_add(&signals, d->signals);
	atomic_fetch_add(&nested, d->nested);
	atomic_fetch_add(&seen, d->seen);
	munmap(stack.ss_sp, stack_size);
	munmap(d, sizeof *d);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction other = { .sa_handler = on_other_stack, .sa_flags = SA_RESTART | SA_ONSTACK };
	struct itimerval interval = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };

	st_begin(argc, argv, "signals", 12000000, 3);
	ST_CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGPROF, &action, NULL) == 0);
	ST_CHECK(sigaction(SIGUSR2, &other, NULL) == 0);
	ST_CHECK(setitimer(ITIMER_PROF, &interval, NULL) == 0);
	st_threads(work);
	ST_CHECK(setitimer(ITIMER_PROF, &off, NULL) == 0);
	printf("signals: %llu signals, %llu nested, %llu blocks verified in handlers\n", (unsigned long long)signals,
	       (unsigned long long)nested, (unsigned long long)seen);
	if (signals == 0 || seen == 0)
		st_fail("no signal came: nothing was tested");
	return st_end(ST_SLACK, 0);
}
