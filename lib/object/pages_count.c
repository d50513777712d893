/* SPDX-License-Identifier: MIT */
/* Who does something with pages: a stripe for each thread, and what was begun and is over in each. (pages.h has the
 * rules.) */
#include <pthread.h>

#include "lib/base/lock.h"
#include "lib/object/pages.h"
#include "numa/os.h"

#define COURTESY_NS 100000000u

/* The calling thread's stripe, of every allocator, and 1; 0: it has none yet. */
static __thread uint32_t thread_stripe;
static _Atomic(uint32_t) owned; /* of the first QY_PAGES_OWNED stripes, those that a thread has */
static _Atomic(uint32_t) sharers;
static _Atomic(uint32_t) forks; /* of which this process is the child of the child ... */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

/* ---- threads ---- */

/* A thread ends: its stripe is for the next. */
static void leave_stripe(void *bit)
{
	thread_stripe = 0;
	atomic_fetch_and_explicit(&owned, ~(uint32_t)(uintptr_t)bit, memory_order_release);
}

/* The parent's other threads are not here. (Allocators are not known by name: each learns of it by the number, stripe
 * by stripe. Their arena may end them without a word.) */
static void in_child(void)
{
	uint32_t number = thread_stripe;

	atomic_store(&owned, number != 0 && number <= QY_PAGES_OWNED ? (uint32_t)1 << (number - 1) : 0);
	atomic_fetch_add(&forks, 1);
}

static void prepare(void)
{
	key_made = pthread_key_create(&key, leave_stripe) == 0;
	(void)pthread_atfork(NULL, NULL, in_child);
}

void qy_pages_prepare(void)
{
	pthread_once(&once, prepare);
}

static QY_COLD uint32_t choose_stripe(void)
{
	uint32_t was = atomic_load_explicit(&owned, memory_order_relaxed), bit = 0;

	while (key_made && was != UINT32_MAX) {
		bit = ~was & (was + 1);
		if (atomic_compare_exchange_weak_explicit(&owned, &was, was | bit, memory_order_acquire,
							  memory_order_relaxed))
			break;
		bit = 0;
	}
	if (bit != 0 && pthread_setspecific(key, (void *)(uintptr_t)bit) != 0) {
		leave_stripe((void *)(uintptr_t)bit);
		bit = 0;
	}
	if (bit != 0)
		return thread_stripe = (uint32_t)__builtin_ctz(bit) + 1;
	return thread_stripe = QY_PAGES_OWNED + 1 +
			       atomic_fetch_add_explicit(&sharers, 1, memory_order_relaxed) % QY_PAGES_OWNED;
}

/* ---- forks ---- */

/* Nothing was begun here since the fork. Looked at after a count of `begun`: then that is all from before it (who
 * begins the first here after a fork settles the stripe before it counts itself). */
static bool is_before_fork(struct qy_pages_stripe *stripe)
{
	return atomic_load(&stripe->forks) != atomic_load_explicit(&forks, memory_order_relaxed);
}

/* What other threads of the parent were at when it forked is over: nobody goes on with it here. Several may settle a
 * stripe that they share; the first who changes `ended` does it for all, for it never is again what it was. */
static QY_COLD void settle(quarry_pages *p, struct qy_pages_stripe *stripe)
{
	uint64_t begun = atomic_load(&stripe->begun), ended = atomic_load(&stripe->ended);

	if (!is_before_fork(stripe))
		return;
	if (ended < begun) {
		atomic_store(&p->cut, true);
		atomic_compare_exchange_strong(&stripe->ended, &ended, begun);
	}
	atomic_store(&stripe->forks, atomic_load_explicit(&forks, memory_order_relaxed));
	atomic_thread_fence(memory_order_release); /* before what the caller counts */
}

bool qy_pages_cut(quarry_pages *p)
{
	for (int i = 0; i < QY_PAGES_STRIPES; i++) {
		struct qy_pages_stripe *stripe = &p->stripe[i];
		uint64_t begun = atomic_load(&stripe->begun), ended = atomic_load(&stripe->ended);

		if (is_before_fork(stripe) && ended < begun)
			return true;
	}
	return atomic_load(&p->cut);
}

/* ---- quiet for a last look ---- */

/* As p->quiet has it, in its upper half: of this process, and never 0. */
static uint32_t process_number(void)
{
	return atomic_load_explicit(&forks, memory_order_relaxed) % UINT16_MAX + 1;
}

static void count_begun(quarry_pages *p, struct qy_pages_stripe *stripe)
{
	if (QY_LIKELY(stripe < &p->stripe[QY_PAGES_OWNED]))
		qy_count(&stripe->begun, 1);
	else
		atomic_fetch_add_explicit(&stripe->begun, 1, memory_order_release);
}

/* Wait while it is to be quiet for this one, until then at most; whether it is no more. The operation is over meanwhile.
 * Nobody waits for a parent's thread. */
static bool wait_for(quarry_pages *p, struct qy_pages_stripe *stripe, uint32_t who, uint64_t until_ns)
{
	uint64_t now;

	while (atomic_load_explicit(&p->quiet, memory_order_relaxed) == who) {
		if (who >> 16 != process_number()) {
			qy_pages_loud(p, who);
			return true;
		}
		now = qy_os->now_ns();
		if (now >= until_ns)
			return false;
		qy_pages_end(p, stripe);
		qy_sleep_on(&p->quiet, who, (until_ns - now) / 1000000 + 1);
		count_begun(p, stripe);
	}
	return true;
}

/* Who has been kept waiting for so long ends it for all: the one who asked may be stopped for any time. */
static QY_COLD struct qy_pages_stripe *begin_later(quarry_pages *p, struct qy_pages_stripe *stripe)
{
	uint64_t until = qy_os->now_ns() + COURTESY_NS;
	uint32_t who;

	while ((who = atomic_load_explicit(&p->quiet, memory_order_relaxed)) != 0)
		if (!wait_for(p, stripe, who, until))
			qy_pages_loud(p, who);
	return stripe;
}

uint32_t qy_pages_quiet(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t patience_ns)
{
	uint32_t mine = process_number() << 16 |
			(atomic_fetch_add_explicit(&p->askers, 1, memory_order_relaxed) & UINT16_MAX), who = 0;

	while (!atomic_compare_exchange_strong(&p->quiet, &who, mine)) {
		if (!wait_for(p, stripe, who, qy_os->now_ns() + patience_ns))
			return 0;
		who = 0;
	}
	return mine;
}

void qy_pages_loud(quarry_pages *p, uint32_t who)
{
	if (atomic_compare_exchange_strong(&p->quiet, &who, 0))
		qy_wake_all(&p->quiet);
}

/* ---- counts ---- */

struct qy_pages_stripe *qy_pages_begin(quarry_pages *p)
{
	uint32_t number = thread_stripe;
	struct qy_pages_stripe *stripe;

	if (QY_UNLIKELY(number == 0))
		number = choose_stripe();
	stripe = &p->stripe[number - 1];
	if (QY_UNLIKELY(atomic_load_explicit(&stripe->forks, memory_order_acquire) !=
			atomic_load_explicit(&forks, memory_order_relaxed)))
		settle(p, stripe);
	count_begun(p, stripe);
	/* (Who does not see it yet is seen by his count.) */
	if (QY_UNLIKELY(atomic_load_explicit(&p->quiet, memory_order_relaxed) != 0))
		return begin_later(p, stripe);
	return stripe;
}

uint64_t qy_pages_ended(quarry_pages *p)
{
	uint64_t sum = 0;

	for (int i = 0; i < QY_PAGES_STRIPES; i++) {
		struct qy_pages_stripe *stripe = &p->stripe[i];
		uint64_t begun = atomic_load(&stripe->begun);

		sum += is_before_fork(stripe) ? begun : atomic_load(&stripe->ended);
	}
	return sum;
}

uint64_t qy_pages_begun(quarry_pages *p)
{
	uint64_t sum = 0;

	for (int i = 0; i < QY_PAGES_STRIPES; i++)
		sum += atomic_load(&p->stripe[i].begun);
	return sum;
}
