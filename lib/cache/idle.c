/* SPDX-License-Identifier: MIT */
/* What a thread holds that sleeps: lists of objects, slabs with room and full ones, spares, what others have sent home
 * to it. Nobody else can touch any of it while it lives, since its hits take no lock; and it may sleep for ever. So
 * the caches of a thread that has been blocked in a system call for a while are given up from outside, as those of a
 * dead one: lists into their slabs, empty slabs to the manager, the others to its orphans. The thread is not asked,
 * not stopped and not signalled, and its hits have no instruction more.
 *
 * The thread may wake up at any moment of this. Step by step:
 *
 * 1. Hold. Its record gets a bit that its next entry into a slow path waits for (thread.c). It is seen not to be in
 *    one after that was set; or else it is let be. From here on what it can do without us is its hits, quick refills,
 *    and gathering of objects, which do not enter; and it cannot end without entering, so its thread-local storage
 *    stays. (One that will not tell when it ends, since there was no key left for it or it has said good-bye before, is
 *    never held. One that said it would and ends by a bare system call was seen alive a moment before, and its storage
 *    is written to by compare-and-swap: it would have to be unmapped in between.)
 * 2. Turn. Its thread-local storage gets the cache in which there is nothing, and the owner that owns nothing. From
 *    then on no hit, quick refill or gathering *begins*: every one starts with one of these two words, finds that they
 *    lead to nothing, and goes on to a slow path that enters. One that has begun has the words of before, and ends as
 *    it would have: nothing of what it needs was changed.
 * 3. See that it is blocked in a system call (numa/os.h, thread_blocked). A hit makes none, nor does anything that
 *    does not enter; so none that began before the turn is under way, whether it was blocked since before or came
 *    there after: this is why the turn comes first, and the look second. It may also be blocked where it waits to
 *    enter; then it may have left something to do for when it is in (an event of a slab): it has a depth, and is let
 *    be. And since whatever it does later it does with the turned words in sight, none begins.
 * 4. Give up. Now nobody but us is at its caches: it can only enter, where it waits. Their heaps are left closed, so
 *    that what comes for them goes where their slabs went, however long the thread sleeps.
 * 5. Let go. When the thread comes to a slow path, it opens its heaps and puts back its own words, itself (entered):
 *    so nobody ever writes to the storage of a thread but to turn it, and what was done to its slabs it has seen
 *    before it sees its words. When step 3 said no, it does the same, with its caches as they were: one slow path is
 *    what it costs.
 *
 * Who gives up is in a slow path like any other, so that fork and an arena's end wait for it; it does not wait for
 * them (the registry's lock is only tried) and never for the thread it holds.
 *
 * A thread is idle when it has not refilled for idle_ms and is blocked when it is looked at; one that wakes up now and
 * then and lives on what its caches have (a server's timer) is. One that was turned is not looked at any more: it tells
 * when it is back (and wakes the reclaimer). One that had to be let be is tried again, ever more rarely, and soon when
 * it has refilled since. So a process that sleeps costs nothing after a while, with however many threads: nobody is
 * waited for that was turned, or was let be often; they are tried when there is a pass anyway.
 *
 * A thread that makes the pass itself (quarry_tend, or a timer's signal while it waits) gives up its own the same way:
 * nothing is under way in it, which it knows without asking. */
#include "lib/cache/idle.h"

#include <stdint.h>

#include "lib/base/settings.h"
#include "lib/cache/watch.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/reclaim.h"
#include "numa/os.h"

#define READS 1024       /* of the kernel's files in one look by the reclaimer's thread, */
#define READS_IN_SERIES 8 /* and by a thread of the program in passing */
#define READS_TO_GIVE_UP 5
#define AT_A_TIME 64     /* threads of one bucket */
#define LOOKS 4          /* in idle_ms */
#define LATER_MAX 6      /* log2 of what multiplies idle_ms after refusals */
#define OWN_LATER_MAX 4  /* and when what was given up was wanted again soon: */
#define OWN_SOON 4       /* in so many times the time that it had been left alone */

qy_counter qy_idle_given_up, qy_idle_refused;

/* One at a time looks for idle threads; the rest here is its own. */
static _Atomic(uint32_t) looking;
static _Atomic(uint64_t) last_look; /* ms */
static _Atomic(bool) some_left;     /* at the last one */
static unsigned next_bucket;

struct candidate {
	struct qy_thread *thread;
	int tid;
	uint64_t refills;
};

struct search {
	uint64_t now, idle_ms, until_ns;
	int reads; /* left; none when the time is over */
	bool more, cut;
	unsigned left; /* others that have, or may have, something */
	unsigned count;
	struct candidate found[AT_A_TIME];
};

/* ---- giving up ---- */

bool qy_thread_give_up(struct qy_thread *t, uint64_t until_ns)
{
	qy_thread_send(t);
	if (atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_EMPTY)
		return true;
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		qy_cache_flush(c);
		if (!qy_heap_lighten(&c->heap, until_ns))
			return false;
	}
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		qy_heap_abandon(&c->heap);
	return true;
}

static void reopen(struct qy_thread *t)
{
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		qy_heap_clear(&c->heap);
		qy_heap_open(&c->heap, c->heap.manager, c->heap.owner);
	}
}

void qy_thread_return(struct qy_thread *t)
{
	uint32_t idle = atomic_load_explicit(&t->idle, memory_order_acquire);

	atomic_fetch_add_explicit(&qy_threads_stirred, 1, memory_order_seq_cst);
	if (idle & QY_EMPTY)
		reopen(t);
	/* (Not that of one that died, whose record this thread is about to take over.) */
	if ((idle & QY_TURNED) && qy_tls.thread == t)
		qy_thread_use(t, t->turned);
	atomic_fetch_and_explicit(&t->idle, ~(uint32_t)(QY_EMPTY | QY_TURNED), memory_order_release);
	qy_idle_note();
}

/* Each time that it enters while a snapshot is made. What its plain allocations come from stands beside, and its
 * storage leads to slow paths; so does what a patched mmap allocates inside of one. */
void qy_thread_be_watched(struct qy_thread *t)
{
	uint32_t idle = atomic_load_explicit(&t->idle, memory_order_acquire);

	qy_publish(t->settled, qy_watch_number());
	if ((idle & (QY_EMPTY | QY_TURNED)) == QY_TURNED)
		return;
	if (idle & QY_EMPTY) {
		atomic_fetch_add_explicit(&qy_threads_stirred, 1, memory_order_seq_cst);
		reopen(t);
		atomic_fetch_and_explicit(&t->idle, ~(uint32_t)QY_EMPTY, memory_order_release);
		qy_idle_note();
	}
	if (idle & QY_TURNED)
		return;
	/* (One that is only just known has nothing yet.) */
	if (qy_tls.thread == t) {
		if (qy_watch_holds(t))
			qy_publish(t->unnoted, qy_watch_number());
		t->turned = qy_tls.cache;
		qy_tls.cache = (struct qy_cache *)&qy_no_cache;
		qy_tls.owner = QY_OWNER_NONE;
	}
	atomic_fetch_or_explicit(&t->idle, QY_TURNED, memory_order_seq_cst);
}

void qy_idle_note(void)
{
	if (qy_setting(idle_threads))
		qy_reclaim_wake();
}

bool qy_thread_turn(struct qy_thread *t)
{
	struct qy_tls *tls = qy_peek(t->tls);
	struct qy_cache *cache = qy_peek(tls->cache);
	uintptr_t owner = qy_peek(tls->owner);

	if (atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_TURNED)
		return true;
	if (qy_peek(tls->thread) != t)
		return false;
	t->turned = cache;
	if (!__atomic_compare_exchange_n(&tls->cache, &cache, (struct qy_cache *)&qy_no_cache, false, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED))
		return false;
	(void)__atomic_compare_exchange_n(&tls->owner, &owner, QY_OWNER_NONE, false, __ATOMIC_RELAXED,
					  __ATOMIC_RELAXED);
	atomic_fetch_or_explicit(&t->idle, QY_TURNED, memory_order_seq_cst);
	return true;
}

/* Turned, and held: whether it is where nothing of ours is under way. (What orders our stores before this look, and the
 * thread's before what we do then, are the kernel's locks: it lets go of them after all that we wrote.) */
static bool is_out(struct qy_thread *t, int tid)
{
	if (!qy_os->thread_blocked(tid))
		return false;
	qy_sanitizer_acquire(qy_peek(t->tls));
	return atomic_load_explicit(&t->busy, memory_order_seq_cst) == 0 && qy_peek(t->depth) == 0;
}

static bool holds_something(struct qy_thread *t)
{
	if (t->sending != 0)
		return true;
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		if (qy_read(&c->heap.slabs) > 0 || qy_heap_has_mail(&c->heap))
			return true;
	return false;
}

/* Held, by the caller. */
static bool give_up_held(struct qy_thread *t, const struct candidate *c, struct search *search)
{
	struct qy_idle_look *look = &t->look;
	bool held;

	if (!qy_thread_turn(t) || !is_out(t, c->tid)) {
		unsigned later = (unsigned)qy_min(look->refusals++, LATER_MAX);

		look->again = search->now + (search->idle_ms << later);
		qy_count_shared(&qy_idle_refused, 1);
		return false;
	}
	look->refusals = 0;
	held = holds_something(t);
	/* (What there was no time for is for the next look.) */
	if (!qy_thread_give_up(t, search->until_ns)) {
		search->more = search->cut = true;
		return false;
	}
	qy_count_shared(&qy_idle_given_up, held);
	atomic_fetch_or_explicit(&t->idle, QY_EMPTY, memory_order_relaxed);
	return true;
}

static void try_to_give_up(const struct candidate *c, struct search *search)
{
	struct qy_thread *self = qy_thread_enter();

	if (self == NULL)
		return;
	if (qy_thread_hold(c->thread, c->tid)) {
		search->left -= give_up_held(c->thread, c, search);
		qy_thread_let_go(c->thread);
	}
	qy_thread_leave(self);
}

/* ---- looking ---- */

/* Refused before, and not to be asked for again yet; but for no longer than a refusal now would put it off, since the
 * wait gets shorter when pressure comes. */
static bool is_put_off(const struct qy_thread *t, const struct search *search)
{
	return search->now < t->look.again && t->look.again - search->now <= search->idle_ms << LATER_MAX;
}

/* Whether it is worth a look at what the kernel says of it. The registry's lock is held. */
static void consider(void *ctx, struct qy_thread *t)
{
	struct search *search = ctx;
	uint32_t idle = atomic_load_explicit(&t->idle, memory_order_relaxed);
	uint64_t refills = 0;

	if (t == qy_tls.thread || t->service || (idle & QY_EMPTY))
		return;
	search->left++;
	if (qy_peek(t->tls) == NULL || (idle & QY_HELD))
		return;
	for (struct qy_cache *c = __atomic_load_n(&t->caches, __ATOMIC_ACQUIRE); c != NULL; c = qy_peek(c->next))
		refills += qy_read(&c->heap.refills);
	if (search->idle_ms > 0 && t->look.tid == t->tid && t->look.refills == refills && is_put_off(t, search)) {
		search->more = search->more || (!(idle & QY_TURNED) && t->look.refusals <= LATER_MAX);
		return;
	}
	/* (One that was turned for a snapshot, and not refused, is to be looked at like any.) */
	search->more = search->more || !(idle & QY_TURNED) || t->look.refusals == 0;
	if (atomic_load_explicit(&t->busy, memory_order_relaxed) != 0 || search->count == AT_A_TIME)
		return;
	search->found[search->count++] = (struct candidate){ t, t->tid, refills };
}

/* Whether it has allocated nothing to speak of for idle_ms and is blocked now. It may have woken up meanwhile, as a
 * server's timer does, and lived on what its caches have. */
static bool seems_idle(const struct candidate *c, struct search *search)
{
	struct qy_idle_look *look = &c->thread->look;

	if (look->tid != c->tid)
		*look = (struct qy_idle_look){ .tid = c->tid, .refills = c->refills, .at = search->now };
	if (search->idle_ms > 0) {
		if (look->refills != c->refills) {
			look->refills = c->refills;
			look->at = search->now;
			look->again = 0;
			look->refusals = 0;
			return false;
		}
		if (search->now - look->at < search->idle_ms)
			return false;
		search->reads--;
		/* Where it cannot be told, it need not be asked so soon. */
		if (qy_os->thread_switches(c->tid) == 0) {
			look->again = search->now + (search->idle_ms << LATER_MAX);
			look->refusals = LATER_MAX + 1;
			return false;
		}
	}
	search->reads -= READS_TO_GIVE_UP;
	if (qy_os->thread_blocked(c->tid))
		return true;
	look->again = search->now + (search->idle_ms << qy_min(look->refusals++, LATER_MAX));
	return false;
}

/* ---- one's own ---- */

static uint64_t refills_of_own(const struct qy_thread *t)
{
	uint64_t refills = 0;

	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		refills += qy_read(&c->heap.refills) + (c->quick_set - c->quick);
	return refills;
}

/* False when there was not enough time. */
static bool give_up_own(struct qy_thread *t, uint64_t until_ns)
{
	bool held, done = true;

	if (qy_thread_enter() == NULL)
		return true;
	if (t->depth == 1 && qy_thread_turn(t)) {
		held = holds_something(t);
		done = qy_thread_give_up(t, until_ns);
		qy_count_shared(&qy_idle_given_up, done && held);
		if (done)
			atomic_fetch_or_explicit(&t->idle, QY_EMPTY, memory_order_relaxed);
	}
	qy_thread_leave(t);
	return done;
}

/* Who was given up, and came back soon, is left alone for longer: each time is a signal. */
static uint64_t look_at_own(struct qy_thread *t, uint64_t now, uint64_t idle_ms, uint64_t until_ns)
{
	struct qy_idle_look *look = &t->look;
	uint64_t refills = refills_of_own(t), wait;

	if (look->tid != t->tid)
		*look = (struct qy_idle_look){ .tid = t->tid, .refills = refills, .at = now };
	if (look->again != 0) {
		bool soon = now - look->again < (idle_ms << look->refusals) * OWN_SOON;

		look->refusals = soon ? (uint32_t)qy_min(look->refusals + 1, OWN_LATER_MAX) : 0;
		look->again = 0;
		look->at = now;
	}
	if (look->refills != refills) {
		look->refills = refills;
		look->at = now;
	}
	wait = idle_ms << qy_min(look->refusals, OWN_LATER_MAX);
	if (now - look->at < wait)
		return look->at + wait;
	if (!give_up_own(t, until_ns))
		return now + QY_PASS_CUT_MS;
	look->again = now;
	return UINT64_MAX;
}

uint64_t qy_idle_own(uint64_t now, uint64_t idle_ms, uint64_t until_ns)
{
	struct qy_thread *t = qy_tls.thread;
	uint64_t next;

	if (t == NULL || t->tls == NULL || (atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_EMPTY))
		return UINT64_MAX;
	if (atomic_exchange_explicit(&looking, 1, memory_order_acquire) != 0)
		return now + idle_ms;
	next = look_at_own(t, now, idle_ms, until_ns);
	atomic_store_explicit(&looking, 0, memory_order_release);
	return next;
}

int64_t qy_thread_tend(void)
{
	return qy_elsewhere != NULL ? -1 : qy_reclaim_tend();
}

void qy_thread_look(void)
{
	if (qy_elsewhere == NULL)
		qy_reclaim_look();
}

static void search_bucket(unsigned bucket, struct search *search)
{
	search->count = 0;
	qy_threads_visit_bucket(bucket, consider, search);
	for (unsigned i = 0; i < search->count && search->reads > 0; i++)
		if (seems_idle(&search->found[i], search)) {
			search->reads -= READS_TO_GIVE_UP;
			try_to_give_up(&search->found[i], search);
			if (!qy_in_time(search->until_ns))
				search->reads = 0;
		}
}

bool qy_threads_idle(uint64_t now, uint64_t idle_ms, uint64_t until_ns)
{
	struct search search = { .now = now == UINT64_MAX ? qy_os->now_ms() : now, .idle_ms = idle_ms,
				 .until_ns = until_ns };

	if (idle_ms > 0 && search.now - atomic_load_explicit(&last_look, memory_order_relaxed) < idle_ms / LOOKS)
		return atomic_load_explicit(&some_left, memory_order_relaxed);
	if (atomic_exchange_explicit(&looking, 1, memory_order_acquire) != 0)
		return true;
	search.reads = idle_ms == 0 ? INT32_MAX : qy_reclaim_is_caller() ? READS : READS_IN_SERIES;
	for (unsigned n = 0; n < QY_THREAD_BUCKETS && search.reads > 0; n++)
		search_bucket(next_bucket++ % QY_THREAD_BUCKETS, &search);
	/* (Of those that were not come to, nothing is known. What the time was too short for goes on at once.) */
	search.more = search.more || search.reads <= 0;
	qy_threads_cut = qy_threads_cut || search.cut;
	atomic_store_explicit(&last_look, search.cut ? 0 : search.now, memory_order_relaxed);
	atomic_store_explicit(&some_left, search.more, memory_order_relaxed);
	atomic_store_explicit(&looking, 0, memory_order_release);
	return idle_ms == 0 ? search.left > 0 : search.more;
}

bool qy_threads_give_up_all(bool again)
{
	struct qy_thread *self = qy_tls.thread;
	uint64_t stirred = atomic_load_explicit(&qy_threads_stirred, memory_order_seq_cst);
	bool more;

	if (again && self != NULL && self->quiet == stirred)
		return false;
	more = qy_threads_tidy(UINT64_MAX, 0, UINT64_MAX);
	more |= qy_setting(idle_threads) ? qy_threads_idle(UINT64_MAX, 0, UINT64_MAX) : qy_threads_live() > 1;
	if (self != NULL)
		self->quiet = more ? 0 : stirred;
	return more;
}

void qy_idle_again(void)
{
	atomic_store_explicit(&some_left, true, memory_order_relaxed);
	atomic_store_explicit(&last_look, 0, memory_order_relaxed);
	qy_idle_note();
}

void qy_idle_after_fork(void)
{
	atomic_store_explicit(&looking, 0, memory_order_relaxed);
}
