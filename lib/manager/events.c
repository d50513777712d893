/* SPDX-License-Identifier: MIT */
#include "lib/manager/events.h"

#include <errno.h>
#include <string.h>

#include "lib/base/lock.h"
#include "lib/base/quiet.h"
#include "numa/os.h"

#define CELLS 64

/* A cell is free for the event of number n when its turn is n, holds it when it is n + 1, and is free for n + CELLS
 * afterwards. So those who put and the one who takes agree on each cell by one word, and neither waits. */
static struct cell {
	_Atomic(uint64_t) turn;
	quarry_event event;
} ring[CELLS];

static _Atomic(uint64_t) put_next, take_next;
static _Atomic(uint64_t) lost;
static _Atomic(uint32_t) begun; /* the ring's turns were set */
_Atomic(uint32_t) qy_events_waiting;

static _Atomic(uint32_t) listening;
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF); /* guards these two, and the tellers */
static quarry_event_fn *listener;
static void *listener_ctx;

static _Atomic(uint32_t) busy;                                                  /* a thread delivers */
#define CALL ((uint32_t)1 << 31) /* of qy_events_waiting: a call is waited for */
static void (*call)(void);

#define ASKED ((uint32_t)1 << 30)  /* of qy_events_waiting: there are tellers in ANEW, */
#define INSIDE ((uint32_t)1 << 29) /* or in LATER */
enum { NONE, ANEW, ROUND, LATER, LISTS };
/* Those that were asked, each in the list that its `where` says: ROUND has those whom the one who delivers goes through now, LATER
 * those that were asked from inside a function that is told of something, which are the next deliverer's. */
static struct qy_teller *tellers[LISTS];
static uint32_t forks; /* before this process: what a `where` of before says is not so here */

static __thread bool delivering __attribute__((tls_model("initial-exec"))); /* this one */

static void clear_ring(void)
{
	for (uint64_t i = 0; i < CELLS; i++)
		atomic_store_explicit(&ring[i].turn, i, memory_order_relaxed);
	atomic_store_explicit(&put_next, 0, memory_order_relaxed);
	atomic_store_explicit(&take_next, 0, memory_order_relaxed);
	atomic_fetch_and(&qy_events_waiting, CALL | ASKED | INSIDE);
}

void qy_events_note(const quarry_event *event)
{
	uint64_t n = atomic_load_explicit(&put_next, memory_order_relaxed), turn;
	struct cell *cell;

	if (atomic_load_explicit(&listening, memory_order_acquire) == 0)
		return;
	for (;;) {
		cell = &ring[n % CELLS];
		turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
		if (turn < n) {
			qy_count_shared(&lost, 1);
			return;
		}
		if (turn > n)
			n = atomic_load_explicit(&put_next, memory_order_relaxed);
		else if (atomic_compare_exchange_weak_explicit(&put_next, &n, n + 1, memory_order_relaxed,
							       memory_order_relaxed))
			break;
	}
	cell->event = *event;
	cell->event.struct_size = sizeof(*event);
	cell->event.time_ms = qy_os->now_ms();
	atomic_store_explicit(&cell->turn, n + 1, memory_order_release);
	atomic_fetch_add_explicit(&qy_events_waiting, 1, memory_order_release);
}

/* By the one who delivers. False when there is none, or the next is still being written: its writer counts it then. */
static bool take(quarry_event *event)
{
	uint64_t n = atomic_load_explicit(&take_next, memory_order_relaxed);
	struct cell *cell = &ring[n % CELLS];

	if (atomic_load_explicit(&cell->turn, memory_order_acquire) != n + 1)
		return false;
	*event = cell->event;
	atomic_store_explicit(&take_next, n + 1, memory_order_relaxed);
	atomic_store_explicit(&cell->turn, n + CELLS, memory_order_release);
	return true;
}

/* Asked anew for each event: the function may have been changed by itself. */
static void tell(quarry_event *event)
{
	quarry_event_fn *fn;
	void *ctx;

	qy_lock(&lock);
	fn = listener;
	ctx = listener_ctx;
	qy_unlock(&lock);
	event->lost = qy_events_lost();
	if (fn != NULL)
		fn(event, ctx);
}

void qy_events_call(void (*fn)(void))
{
	call = fn;
	atomic_fetch_or(&qy_events_waiting, CALL);
}

/* Whether there was a call. */
static bool make_call(void)
{
	if ((atomic_load(&qy_events_waiting) & CALL) == 0)
		return false;
	atomic_fetch_and(&qy_events_waiting, ~CALL);
	call();
	return true;
}

static void put_in(struct qy_teller *t, int where)
{
	t->next = tellers[where];
	tellers[where] = t;
	t->where = where;
	t->forks = forks;
}

static int where_is(const struct qy_teller *t)
{
	return t->forks == forks ? t->where : NONE;
}

static void take_out(struct qy_teller *t)
{
	struct qy_teller **at = &tellers[t->where];

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->where = NONE;
}

void qy_events_ask(struct qy_teller *t)
{
	qy_lock(&lock);
	if (where_is(t) == LATER && !delivering)
		take_out(t);
	if (where_is(t) == NONE) {
		put_in(t, delivering ? LATER : ANEW);
		atomic_fetch_or(&qy_events_waiting, delivering ? INSIDE : ASKED);
	}
	qy_unlock(&lock);
}

/* Those who were asked until now are to be told in this round; with `later` those as well who were asked from inside. */
static void begin_round(bool later)
{
	qy_lock(&lock);
	atomic_fetch_and(&qy_events_waiting, later ? ~(ASKED | INSIDE) : ~ASKED);
	for (struct qy_teller *t; later && (t = tellers[LATER]) != NULL;) {
		take_out(t);
		put_in(t, ANEW);
	}
	for (struct qy_teller *t = tellers[ANEW]; t != NULL; t = t->next)
		t->where = ROUND;
	tellers[ROUND] = tellers[ANEW];
	tellers[ANEW] = NULL;
	qy_unlock(&lock);
}

/* The next of the round. Who asks from here on is told of anew. */
static struct qy_teller *next_of_round(void)
{
	struct qy_teller *t;

	qy_lock(&lock);
	t = tellers[ROUND];
	if (t != NULL)
		take_out(t);
	qy_unlock(&lock);
	return t;
}

/* Whether there was one. */
static bool let_tell(bool later)
{
	struct qy_teller *t;
	bool told = false;

	if ((atomic_load(&qy_events_waiting) & (later ? ASKED | INSIDE : ASKED)) == 0)
		return false;
	begin_round(later);
	for (; (t = next_of_round()) != NULL; told = true)
		t->tell(t);
	return told;
}

static void release(void)
{
	delivering = false;
	atomic_store(&busy, 0);
	qy_wake(&busy);
}

void qy_events_deliver_slow(void)
{
	quarry_event event;
	int error = errno;
	uint32_t told, left = 0;

	/* What came between the last look and giving up the turn is nobody else's; but for what the functions themselves had tellers
	 * asked for: that would have no end. */
	while (!delivering && qy_quiet == 0 && (atomic_load(&qy_events_waiting) & ~left) != 0 && atomic_exchange(&busy, 1) == 0) {
		delivering = true;
		told = make_call();
		told += let_tell(left == 0);
		left = INSIDE;
		for (; take(&event); told++) {
			/* (Before: the function may fork, and the child begins with none.) */
			atomic_fetch_sub(&qy_events_waiting, 1);
			tell(&event);
		}
		release();
		if (told == 0)
			break;
	}
	errno = error;
}

/* Whoever delivers now may still be in a function that is to be called no more: when he is done, nobody delivers until
 * release(). */
static void seize(void)
{
	while (atomic_exchange(&busy, 1) != 0)
		qy_sleep_on(&busy, 1, 10);
	delivering = true;
}

void qy_events_forget(struct qy_teller *forgotten)
{
	bool inside = delivering;

	if (!inside)
		seize();
	qy_lock(&lock);
	if (where_is(forgotten) != NONE)
		take_out(forgotten);
	qy_unlock(&lock);
	if (!inside)
		release();
}

void qy_events_listen(quarry_event_fn *fn, void *ctx)
{
	quarry_event event;

	if (atomic_exchange(&begun, 1) == 0)
		clear_ring();
	qy_lock(&lock);
	listener = fn;
	listener_ctx = ctx;
	qy_unlock(&lock);
	atomic_store_explicit(&listening, fn != NULL, memory_order_release);
	if (delivering)
		return;
	seize();
	while (fn == NULL && take(&event))
		atomic_fetch_sub(&qy_events_waiting, 1);
	release();
}

uint64_t qy_events_lost(void)
{
	return qy_read(&lost);
}

/* A thread that was in here stayed behind; unless it is this one, which forked in the program's function. */
void qy_events_after_fork(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
	clear_ring();
	/* (Somebody may have been at the lists: they are not looked at.) */
	memset(tellers, 0, sizeof(tellers));
	forks++;
	atomic_fetch_and(&qy_events_waiting, ~(ASKED | INSIDE));
	atomic_store(&begun, 1);
	atomic_store(&busy, delivering);
}
