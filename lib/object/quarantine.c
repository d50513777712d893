/* SPDX-License-Identifier: MIT */
#include "lib/object/quarantine.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/options.h"
#include "lib/base/lock.h"
#include "lib/cache/taken.h"
#include "lib/manager/mistakes.h"
#include "lib/object/apart.h"
#include "numa/os.h"

#define FILLED 1024 /* places for what is filled, */
#define CLOSED 128  /* and behind them for what is to be closed */
#define PLACES (FILLED + CLOSED)
#define ROUNDS 4       /* over all of them, to let them go */
#define RETRY_EVERY 64 /* ends of blocks */

_Static_assert(FILLED == 1024 && CLOSED == 128, "quarry/block.h says so");

#define BYTES_MAX ((size_t)16 << 20)
#define CLOSED_MAX ((size_t)1 << 30) /* addresses of large blocks */

struct held {
	void *p; /* NULL: nothing */
	size_t n;
	size_t filled; /* bytes from p on that are to be as they were filled */
	size_t kept;   /* bytes that it keeps in memory */
	size_t closed; /* bytes of whole pages that nobody can touch */
	bool closes;
};

/* taken: 0; the number of the thread that has it; or LOST: in a child, of one that is not there. */
#define LOST UINT32_MAX

static struct place {
	_Atomic(uint32_t) taken;
	struct held held;
} places[PLACES];

static _Atomic(uint32_t) next_filled, next_closed, next_out; /* places, ever rising */
static _Atomic(uint64_t) late_writes, blocks, bytes, closed_blocks, closed_bytes;
static _Atomic(uint32_t) retries;
_Atomic(bool) qy_quarantine_left;
static _Atomic(uint32_t) numbers;
static __thread uint32_t number __attribute__((tls_model("initial-exec"))); /* the thread's */
static __thread unsigned taking __attribute__((tls_model("initial-exec"))); /* places that it has taken, or is about to */

static uint32_t one_more(_Atomic(uint32_t) *next)
{
	return atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
}

/* Where the next one goes. What is to be closed has places of its own, closed or not: samples are few, and so stay for
 * long. */
static struct place *next_place(const struct held *in)
{
	return in->closes ? &places[FILLED + one_more(&next_closed) % CLOSED] : &places[one_more(&next_filled) % FILLED];
}

/* (A handler of a signal that comes in between may fork.) */
static bool take(struct place *place)
{
	uint32_t nobody = 0;

	if (QY_UNLIKELY(number == 0))
		number = one_more(&numbers) + 1;
	taking++;
	atomic_signal_fence(memory_order_seq_cst);
	if (atomic_compare_exchange_strong_explicit(&place->taken, &nobody, number, memory_order_acquire, memory_order_relaxed))
		return true;
	atomic_signal_fence(memory_order_seq_cst);
	taking--;
	return false;
}

static void leave(struct place *place)
{
	atomic_store_explicit(&place->taken, 0, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	taking--;
}

static void add(_Atomic(uint64_t) *figure, uint64_t n)
{
	atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

static void count_closed(const struct held *held)
{
	add(&closed_blocks, held->closed != 0);
	add(&closed_bytes, held->closed);
}

/* ---- pages ---- */

static int protect(const struct held *held, size_t len, int prot)
{
	return qy_os->mprotect((void *)qy_align_up((uintptr_t)held->p, qy_os_page_size()), len, prot);
}

/* Of several mappings, as what was told to be huge in part has, some may be closed and the others not when there can be no
 * more mappings (ENOMEM): they are opened again, and what cannot be counts as closed. Other errors are those of all of them,
 * since a region's mappings are of one kind. */
static bool close_pages(struct held *held)
{
	uintptr_t first = qy_align_up((uintptr_t)held->p, qy_os_page_size());
	uintptr_t end = qy_align_down((uintptr_t)held->p + held->n, qy_os_page_size());

	if (first >= end)
		return false;
	if (protect(held, end - first, PROT_NONE) != 0 &&
	    (errno != ENOMEM || protect(held, end - first, PROT_READ | PROT_WRITE) == 0))
		return false;
	held->closed = end - first;
	return true;
}

static bool open_pages(struct held *held)
{
	if (held->closed == 0)
		return true;
	if (protect(held, held->closed, PROT_READ | PROT_WRITE) != 0)
		return false;
	add(&closed_blocks, (uint64_t)-1);
	add(&closed_bytes, -(uint64_t)held->closed);
	held->closed = 0;
	return true;
}

/* ---- what is in a place ---- */

/* Its beginning, where all of it is too much. */
static void fill(struct held *held)
{
	held->filled = qy_min(held->n, QY_QUARANTINE_BLOCK_MAX);
	held->kept = qy_max(held->kept, held->filled);
	memset(held->p, QY_QUARANTINE_FILL, held->filled);
}

/* Filled anew where it was not as it should be, so that it is told once. */
static bool was_written(const struct held *held)
{
	const unsigned char *at = held->p;
	size_t n = held->filled;

	if (n == 0 || held->closed != 0 || (at[0] == QY_QUARANTINE_FILL && memcmp(at, at + 1, n - 1) == 0))
		return false;
	memset(held->p, QY_QUARANTINE_FILL, n);
	add(&late_writes, 1);
	return true;
}

/* The place is taken. */
static void come_in(struct held *held)
{
	if (held->closes && close_pages(held))
		count_closed(held);
	else if (held->closes && held->filled == 0)
		fill(held);
	add(&bytes, held->kept);
	add(&blocks, 1);
}

/* What was in a place, which it has left. Whether it was written to. */
static bool let_go(const struct held *held)
{
	bool written;

	if (held->p == NULL)
		return false;
	written = was_written(held);
	if (written)
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, held->p);
	add(&bytes, -(uint64_t)held->kept);
	add(&blocks, (uint64_t)-1);
	quarry_free(held->p);
	return written;
}

/* What is in the place goes out, and what is given (all zero: nothing) in. False when the place is taken, or what is in it
 * cannot go. */
static bool exchange(struct place *place, const struct held *in, struct held *out)
{
	bool done;

	if (!take(place))
		return false;
	done = open_pages(&place->held);
	if (done) {
		*out = place->held;
		place->held = *in;
		if (in->p != NULL)
			come_in(&place->held);
	}
	leave(place);
	return done;
}

/* ---- in and out ---- */

/* More is held than may be: of what can be taken out, one that makes it less. */
static bool is_too_much(const struct held *held)
{
	return (held->kept != 0 && atomic_load_explicit(&bytes, memory_order_relaxed) > BYTES_MAX) ||
	       (held->closed > QY_QUARANTINE_BLOCK_MAX &&
		atomic_load_explicit(&closed_bytes, memory_order_relaxed) > CLOSED_MAX);
}

/* Not always the oldest of all, but never the same one twice before the others. */
static void make_room(void)
{
	static const struct held nothing;
	static const struct held all = { .kept = 1, .closed = QY_QUARANTINE_BLOCK_MAX + 1 };
	struct held out;

	for (unsigned i = 0; i < PLACES && is_too_much(&all); i++) {
		struct place *place = &places[one_more(&next_out) % PLACES];
		bool helps = false;

		if (take(place)) {
			helps = is_too_much(&place->held);
			leave(place);
		}
		if (helps && exchange(place, &nothing, &out))
			(void)let_go(&out);
	}
}

/* Everything that can go. What cannot may be able to when others have: a mapping that is opened joins what is beside it. */
static long release_all(void)
{
	static const struct held nothing;
	struct held out;
	long written = 0;
	bool some = true, refused = true;

	for (unsigned round = 0; round < ROUNDS && some && refused; round++) {
		some = refused = false;
		for (unsigned i = 0; i < PLACES; i++) {
			if (!exchange(&places[i], &nothing, &out)) {
				refused = true;
			} else if (out.p != NULL) {
				written += let_go(&out);
				some = true;
			}
		}
	}
	return written;
}

static void let_all_go(void)
{
	(void)release_all();
	qy_apart_forget_all();
	atomic_store_explicit(&qy_quarantine_left, atomic_load_explicit(&blocks, memory_order_relaxed) != 0,
			      memory_order_relaxed);
}

void qy_quarantine_retry(void)
{
	if (one_more(&retries) % RETRY_EVERY == 0 && qy_setting(checked) == 0)
		let_all_go();
}

/* ---- fork ---- */

static __thread bool has_all __attribute__((tls_model("initial-exec"))); /* the thread that forks has all places */
static __thread unsigned forks __attribute__((tls_model("initial-exec"))); /* it is in: a signal handler may fork within a fork */

/* As in lib/cache/hold.c: who is to go on may have a lower priority. False: it is of nobody. */
static bool wait_for(struct place *place)
{
	for (unsigned n = 0; !take(place); n++) {
		uint32_t by = atomic_load_explicit(&place->taken, memory_order_relaxed);

		if (by == LOST)
			return false;
		if (n < 100)
			sched_yield();
		else
			qy_sleep_on(&place->taken, by, 1);
	}
	return true;
}

static void before_fork(void)
{
	if (forks++ != 0)
		return;
	has_all = taking == 0 && !qy_arena_is_inside();
	for (unsigned i = 0; i < PLACES && has_all; i++)
		(void)wait_for(&places[i]);
}

static bool is_mine(struct place *place)
{
	return number != 0 && atomic_load_explicit(&place->taken, memory_order_relaxed) == number;
}

/* Whether the fork that ends is not within another. (None: this was registered within it.) */
static bool is_outermost(void)
{
	if (forks > 1) {
		forks--;
		return false;
	}
	return forks == 1;
}

static void leave_all(void)
{
	for (unsigned i = 0; i < PLACES && has_all; i++)
		if (is_mine(&places[i]))
			leave(&places[i]);
	forks = 0;
}

static void in_parent(void)
{
	if (is_outermost())
		leave_all();
}

static void set(_Atomic(uint64_t) *figure, uint64_t n)
{
	atomic_store_explicit(figure, n, memory_order_relaxed);
}

/* What is closed was written to by nobody, but it may be zero here; and where it cannot be closed again it is open, and is
 * not looked at. */
static void in_child(void)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (atomic_load_explicit(&places[i].taken, memory_order_relaxed) != 0 && !is_mine(&places[i]))
			atomic_store_explicit(&places[i].taken, LOST, memory_order_relaxed);
	if (!is_outermost())
		return;
	if (!has_all) {
		forks = 0;
		return;
	}
	set(&blocks, 0);
	set(&bytes, 0);
	set(&closed_blocks, 0);
	set(&closed_bytes, 0);
	for (unsigned i = 0; i < PLACES; i++) {
		struct held *held = &places[i].held;

		if (!is_mine(&places[i]))
			continue;
		if (held->closed != 0) {
			held->filled = 0;
			(void)protect(held, held->closed, PROT_NONE);
			count_closed(held);
		}
		add(&bytes, held->kept);
		add(&blocks, held->p != NULL);
	}
	leave_all();
	if (qy_setting(checked) == 0)
		let_all_go();
}

static void prepare_forks(void)
{
	(void)pthread_atfork(before_fork, in_parent, in_child);
}

/* ---- in and out, again ---- */

/* Whoever sets the option lets go what is in the places then, and whoever has put something there looks at the option
 * afterwards: one of them finds it (options.h). */
void qy_quarantine_recheck(void)
{
	(void)atomic_exchange_explicit(&qy_options_unchecked, let_all_go, memory_order_acq_rel);
	if (QY_UNLIKELY(qy_setting(checked) == 0))
		let_all_go();
}

/* Large ones keep their addresses alone. Memory that does not go back in parts (hugetlb, locked), or is not to (return=0), is
 * kept, where it is not too much, and filled in part. */
static bool prepare(struct held *held, bool is_apart)
{
	if (held->n <= QY_QUARANTINE_BLOCK_MAX) {
		fill(held);
		held->closes = is_apart;
		return true;
	}
	if (held->n > CLOSED_MAX)
		return false;
	held->closes = qy_setting(give_back) != 0 && quarry_discard(held->p, held->n) == 0;
	if (held->closes)
		return true;
	held->kept = held->n;
	if (held->n <= BYTES_MAX)
		fill(held);
	return held->n <= BYTES_MAX;
}

bool qy_quarantine_put(void *p, size_t n, bool is_apart)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct held in = { .p = p, .n = n }, out;
	bool is_in = false;

	(void)pthread_once(&once, prepare_forks);
	if (!prepare(&in, is_apart))
		return false;
	for (unsigned tries = 0; tries < PLACES && !is_in; tries++)
		is_in = exchange(next_place(&in), &in, &out);
	if (!is_in)
		return false;
	(void)let_go(&out);
	make_room();
	qy_quarantine_recheck();
	return true;
}

long qy_quarantine_check(bool release)
{
	long written = release ? release_all() : 0;

	for (unsigned i = 0; i < PLACES && !release; i++) {
		struct place *place = &places[i];
		bool late;
		void *p;

		if (!take(place))
			continue;
		p = place->held.p;
		late = p != NULL && was_written(&place->held);
		leave(place);
		if (late)
			qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
		written += late;
	}
	qy_quarantine_recheck();
	return written;
}

static uint64_t figure(_Atomic(uint64_t) *of)
{
	return atomic_load_explicit(of, memory_order_relaxed);
}

void qy_quarantine_figures(struct qy_quarantine_figures *figures)
{
	*figures = (struct qy_quarantine_figures){ figure(&late_writes), figure(&blocks), figure(&bytes),
						   figure(&closed_blocks), figure(&closed_bytes) };
}
