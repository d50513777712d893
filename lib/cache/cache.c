/* SPDX-License-Identifier: MIT */
#include "lib/cache/cache.h"

#include <errno.h>
#include <string.h>

#include "lib/base/checker.h"
#include "lib/base/probe.h"
#include "lib/base/settings.h"
#include "lib/cache/arena.h"
#include "lib/cache/duties.h"
#include "lib/cache/sample.h"
#include "lib/cache/taken.h"
#include "lib/cache/thread.h"
#include "lib/manager/breaker.h"
#include "lib/manager/events.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/mixed.h"
#include "lib/manager/snapshot.h"
#include "lib/reclaim/reclaim.h"
#include "numa/os.h"

#define DUTY_EVERY 128 /* quick refills between two that look after everything */
#define SHED_EVERY 16  /* the same while there are slabs to look at: so few calls take long that their 99.9th
                        * percentile stays */
#define ARENA_LOOKS_MS 10       /* between two looks for an arena at its limit, */
#define ARENA_LOOKS_SHARE 20    /* and so many times what the last one took; */
#define ARENA_LOOK_MOST_MS 1000 /* one that has not ended by then is done without */

/* ---- lists ---- */

/* Objects for a class's list, which is empty: what was freed, or from the heap. */
static bool fetch(struct qy_cache *c, unsigned cls)
{
	bool zero = false;
	void *list, *came;

	if (QY_UNLIKELY(qy_freelist_is_circle(&c->freed[cls])))
		qy_freelist_mend(&c->freed[cls]);
	c->heap.got = c->freed[cls].most - c->freed[cls].room;
	list = qy_freelist_take(&c->freed[cls]);
	if (list == NULL) {
		list = qy_heap_refill(&c->heap, cls, &zero);
		if (list == NULL)
			return false;
		QY_PROBE3(refill, qy_classes[cls].size, list, &c->heap);
		qy_snap_refill(list);
		qy_freelist_fetched(&c->freed[cls], cls);
	}
	/* (A patched mmap may have allocated meanwhile, and be the first to refill.) */
	came = c->head[cls];
	c->zero[cls] = zero;
	c->head[cls] = list;
	if (QY_UNLIKELY(!qy_sample_passes(c, cls, c->heap.got)))
		qy_sample_split(c, cls);
	if (QY_UNLIKELY(came != NULL))
		qy_heap_put_back(&c->heap, came);
	return true;
}

void *qy_cache_take(struct qy_cache *c, unsigned cls, bool *zero)
{
	void *p;

	if (c->head[cls] == NULL && !fetch(c, cls))
		return NULL;
	p = c->head[cls];
	if (QY_UNLIKELY(p == NULL))
		return NULL;
	*zero = c->zero[cls];
	qy_snap_taken(p);
	qy_cache_pop(&c->head[cls], p);
	return p;
}

uintptr_t qy_thread_token(const struct qy_thread *t)
{
	return QY_UNLIKELY(qy_setting(junk) || qy_setting(on_error) != QY_ERROR_IGNORE) ? QY_OWNER_NONE : (uintptr_t)t;
}

/* ---- allocating ---- */

/* The class for size with alignment; QY_CLASSES when it is no matter for slabs. */
static unsigned class_for(size_t size, size_t align)
{
	unsigned cls;

	if (align <= 16)
		return size <= QY_CLASS_MAX ? qy_class_of(size) : QY_CLASSES;
	/* Objects stand at multiples of their size from a 64 KiB border. */
	if (align > QY_UNIT / 4 || size > QY_CLASS_MAX)
		return QY_CLASSES;
	size = qy_align_up(size == 0 ? 1 : size, align);
	if (size > QY_CLASS_MAX)
		return QY_CLASSES;
	for (cls = qy_class_of(size); cls < QY_CLASSES && (qy_classes[cls].size & (align - 1)) != 0;)
		cls++;
	return cls;
}

static void clear(void *p, size_t size, bool fresh)
{
	/* Of a fresh object only the link was written. */
	if (fresh)
		*(void **)p = NULL;
	else
		memset(p, 0, size);
}

/* An object of the class, where a profile is kept. Entered. */
static QY_COLD void *take_sampled(struct qy_cache *c, unsigned cls, bool *fresh)
{
	for (;;) {
		void *p = qy_sample_is_due(c, cls) ? NULL : qy_cache_take(c, cls, fresh);

		if (p != NULL || !qy_sample_is_due(c, cls))
			return p;
		*fresh = false;
		c->due[cls] = false;
		p = qy_sample_take(c, cls);
		if (p != NULL)
			return p;
		/* (Where there is no memory for that, what the thread has serves.) */
	}
}

/* How memory is wanted. */
enum { ZERO = 1, DENSE = 2, HELD = 4 };

/* Entered. */
static void *allocate(struct qy_cache *c, size_t size, size_t align, unsigned how)
{
	unsigned cls = class_for(size, align);
	bool fresh = false;
	void *p;

	if (cls < QY_CLASSES) {
		p = how & DENSE && qy_sample_wants(c, cls) ? qy_sample_take(c, cls) : NULL;
		if (how & DENSE)
			p = p != NULL ? p : qy_heap_take_dense(&c->heap, cls);
		else
			p = QY_LIKELY(c->mean == 0) ? qy_cache_take(c, cls, &fresh) : take_sampled(c, cls, &fresh);
		if (p != NULL && how & ZERO)
			clear(p, size, fresh);
		return p;
	}
	p = qy_large_alloc(c->heap.manager, size, qy_max(align, QY_PAGE), &fresh);
	if (QY_UNLIKELY(c->mean != 0) && p != NULL)
		qy_sample_large(c, qy_align_up(size, QY_PAGE));
	if (p != NULL && how & ZERO && !fresh)
		memset(p, 0, size);
	return p;
}

/* The cache that an allocation comes from; NULL with ENOMEM or EINVAL. Entered. */
static struct qy_cache *cache_of(struct qy_thread *t, const quarry_arena *arena)
{
	struct qy_manager *m;

	if (arena == NULL)
		return qy_thread_cache(t);
	m = qy_manager_of_arena(arena);
	if (m != NULL)
		m = qy_manager_serving(m, t->node);
	return m == NULL ? NULL : qy_cache_for(t, m);
}

static QY_COLD void *try_again(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	struct qy_thread *t = qy_thread_enter();
	struct qy_cache *c;
	uint64_t mean = 0;
	void *p = NULL;

	if (t == NULL)
		return NULL;
	c = cache_of(t, arena);
	if (c != NULL)
		p = allocate(c, size, align, how);
	if (t->depth == 1)
		mean = qy_sample_taken(t);
	qy_thread_leave(t);
	return mean != 0 ? qy_sample_note(mean, p, size) : p;
}

void *qy_cache_refused(void)
{
	int error = errno;

	if (qy_tls.thread == NULL || qy_tls.thread->depth == 0) {
		qy_limits_tell_denial();
		qy_events_deliver();
	}
	errno = error;
	return NULL;
}

static void make_room(bool limited)
{
	qy_limits_forget_denial();
	qy_arena_flush_thread();
	qy_reclaim_for_refused(limited);
}

/* An arena may be at its limit all the time, as a cache is that is full: looking at what threads hold is to take little
 * of the time, however many they are. */
static bool make_room_in_arena(void)
{
	static _Atomic(uint64_t) due; /* ms */
	uint64_t now = qy_os->now_ms(), was = atomic_load_explicit(&due, memory_order_relaxed), end;

	/* (Not for good: a child may be forked meanwhile.) */
	if (now < was || !atomic_compare_exchange_strong_explicit(&due, &was, now + ARENA_LOOK_MOST_MS,
								  memory_order_relaxed, memory_order_relaxed))
		return false;
	make_room(true);
	end = qy_os->now_ms();
	atomic_store_explicit(&due, end + ARENA_LOOKS_MS + (end - now) * ARENA_LOOKS_SHARE, memory_order_relaxed);
	return true;
}

bool qy_cache_make_room(void)
{
	enum qy_denied_by by = qy_limits_denied_by();

	if (qy_tls.thread != NULL && qy_tls.thread->depth != 0)
		return false;
	if (by == QY_DENIED_BY_ARENA)
		return make_room_in_arena();
	make_room(by == QY_DENIED_BY_PROCESS);
	return true;
}

/* A limit, or the kernel, allows no more: have all be free that nobody uses, then try once more. */
static QY_COLD void *allocate_again(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	bool limited = qy_limits_denied_by() == QY_DENIED_BY_PROCESS;
	void *p = NULL;

	if (!qy_cache_make_room())
		return qy_cache_refused();
	p = try_again(arena, size, align, how);
	if (p == NULL && limited && qy_limits_denied_by() == QY_DENIED_BY_NONE) {
		/* The limit allows it now, and the kernel does not. */
		qy_reclaim_for_refused(false);
		p = try_again(arena, size, align, how);
	}
	return QY_LIKELY(p != NULL) ? p : qy_cache_refused();
}

/* Allow quick refills again, unless each must see where the thread is, or lists are to be checked. */
static void look_after(struct qy_cache *c)
{
	qy_sample_look(c);
	qy_count(&c->heap.refills, c->quick_set - c->quick - (c->quick == 0));
	if (qy_thread_may_be_quick(c->thread) && qy_setting(on_error) == QY_ERROR_IGNORE)
		c->quick = c->quick_set = qy_duties_shedding(c->thread) ? SHED_EVERY : DUTY_EVERY;
	else
		c->quick = c->quick_set = 1;
}

static QY_NOINLINE void *alloc(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	struct qy_thread *t = qy_thread_enter();
	struct qy_cache *c;
	uint64_t mean = 0;
	void *p = NULL;
	bool again = true;

	if (t == NULL)
		return NULL;
	qy_duties_send(t);
	qy_thread_follow(t);
	qy_duties_shed(t);
	qy_limits_forget_denial();
	c = cache_of(t, arena);
	if (c != NULL) {
		look_after(c);
		p = allocate(c, size, align, how);
	} else if (errno == EINVAL) {
		again = false;
	}
	if (QY_UNLIKELY(t->sampled != 0) && t->depth == 1)
		mean = qy_sample_taken(t);
	qy_thread_leave(t);
	if (QY_UNLIKELY(t->depth != 0))
		return p;
	if (QY_UNLIKELY(p == NULL)) {
		int error;

		p = again && size < qy_window_size ? allocate_again(arena, size, align, how) : qy_cache_refused();
		error = errno;
		qy_duties_after(t);
		errno = error;
	} else {
		qy_duties_after(t);
	}
	return QY_UNLIKELY(mean != 0) ? qy_sample_note(mean, p, size) : p;
}

/* The arena is held before there is anything in it to lose: the one in which it will be. */
static QY_COLD void *alloc_held(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	return qy_arena_hold(arena) ? qy_arena_held(arena, alloc(arena, size, align, how)) : NULL;
}

QY_INLINE void *alloc_there(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	return QY_LIKELY(!(how & HELD)) ? alloc(arena, size, align, how) : alloc_held(arena, size, align, how);
}

/* What is to be moved inside its arena (by a thread that has entered) stays there. */
static bool may_redirect(const quarry_arena *arena, unsigned how)
{
	if (how & HELD && qy_arena_stays(arena))
		return false;
	return arena == NULL || qy_tls.thread == NULL || qy_tls.thread->depth == 0;
}

/* A large request, where there is a breaker. */
static QY_COLD void *alloc_judged(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	enum qy_verdict verdict = qy_breaker_judge(size, size, &arena, may_redirect(arena, how));
	void *p;

	qy_limits_forget_denial();
	if (verdict == QY_BREAKER_REFUSE) {
		errno = ENOMEM;
		return qy_cache_refused();
	}
	p = alloc_there(arena, size, align, how);
	if (verdict == QY_BREAKER_PROBE)
		qy_breaker_probed(p != NULL);
	else if (verdict == QY_BREAKER_REDIRECT && p == NULL)
		errno = ENOMEM; /* the arena that was named may just have ended */
	else if (verdict == QY_BREAKER_REDIRECT && !(how & HELD))
		qy_arena_note_sent(p);
	return p;
}

static void *alloc_unchecked(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	return QY_LIKELY(!qy_breaker_minds(size)) ? alloc_there(arena, size, align, how)
						  : alloc_judged(arena, size, align, how);
}

/* A block with a margin, for a memory checker; cleared when the checker knows that it may be. */
static QY_COLD void *alloc_checked(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	void *p = size <= PTRDIFF_MAX
			  ? alloc_unchecked(arena, qy_max(size, 1) + QY_CHECKER_MARGIN, align, how & ~(unsigned)ZERO)
			  : NULL;

	if (p == NULL) {
		errno = size <= PTRDIFF_MAX ? errno : ENOMEM;
		return NULL;
	}
	qy_checker_handed(qy_cache_pool(p), p, size, qy_cache_room(p));
	return how & ZERO ? memset(p, 0, size) : p;
}

static void *alloc_anywhere(const quarry_arena *arena, size_t size, size_t align, unsigned how)
{
	return QY_LIKELY(qy_checker == QY_CHECKER_NONE) ? alloc_unchecked(arena, size, align, how)
							: alloc_checked(arena, size, align, how);
}

/* Whether a quick refill is one now. (By a thread that has something in its cache, which has all the rest, too.) */
QY_INLINE bool may_be_quick(struct qy_cache *c)
{
	return QY_LIKELY(*c->cpu_now == c->cpu) && !qy_count_down(&c->quick);
}

/* What was freed last; NULL when there is nothing, or it is no time for a quick refill. */
QY_INLINE void *take_list(struct qy_cache *c, unsigned cls, bool sampled)
{
	struct qy_freelist *l = &c->freed[cls];
	void *p = l->head;

	if (p == NULL || !may_be_quick(c) || QY_UNLIKELY(qy_leads_round(p)) ||
	    (sampled && !qy_sample_passes(c, cls, l->most - l->room)))
		return NULL;
	l->head = NULL;
	l->room = l->most;
	c->zero[cls] = 0;
	/* (After it was taken from where it was, also as a child sees it that is forked in between.) */
	__atomic_store_n(&c->head[cls], qy_next_object(p), __ATOMIC_RELEASE);
	qy_sanitizer_release();
	return p;
}

/* (Where a profile is kept, the quickest way leads on to refill.) */
QY_INLINE void *take_freed(struct qy_cache *c, unsigned cls)
{
	return QY_UNLIKELY(c->mean != 0) ? NULL : take_list(c, cls, false);
}

static QY_COLD void *take_freed_sampled(struct qy_cache *c, unsigned cls)
{
	return take_list(c, cls, true);
}

/* Of the active slab: what was freed into it, or, when nobody sent anything home, its next unused objects. Where
 * something was freed, that was asked first. */
static void *take_active(struct qy_cache *c, unsigned cls)
{
	struct qy_slab *s = c->heap.active[cls];
	bool fresh = false;
	void *p;

	if (s == NULL || c->freed[cls].head != NULL || !may_be_quick(c))
		return NULL;
	if (s->local != NULL) {
		p = qy_sample_passes(c, cls, s->linked - s->countdown) ? qy_slab_take(s) : NULL;
		if (p == NULL)
			return NULL;
		if (s->to != &c->freed[cls])
			qy_slab_direct(s, &c->freed[cls]);
	} else {
		uint32_t left = qy_classes[cls].capacity - s->carved;

		if (left == 0 || qy_heap_has_mail(&c->heap) ||
		    !qy_sample_passes(c, cls, (uint32_t)qy_min(left, qy_classes[cls].carve)))
			return NULL;
		p = qy_slab_carve(s);
		fresh = s->zero;
	}
	qy_freelist_fetched(&c->freed[cls], cls);
	c->zero[cls] = fresh;
	qy_cache_pop(&c->head[cls], p);
	qy_sanitizer_release();
	return p;
}

/* Before the first allocation of a copy of quarry that is not the one, and ever after. */
static QY_NOINLINE void *malloc_entered(size_t n)
{
	if (QY_UNLIKELY(qy_tls.thread == NULL) && !qy_start() && qy_elsewhere != NULL)
		return qy_elsewhere->malloc(n);
	return alloc_anywhere(NULL, n, 16, 0);
}

/* What the thread's cache has, or gets by a quick refill; NULL when it has to enter. */
QY_INLINE void *alloc_quick(size_t size, size_t align, bool zero)
{
	struct qy_cache *c = qy_tls_read(cache);
	unsigned cls = class_for(size, align);
	bool fresh;
	void *p;

	if (cls >= QY_CLASSES)
		return NULL;
	p = c->head[cls];
	fresh = c->zero[cls];
	if (p != NULL) {
		qy_cache_pop(&c->head[cls], p);
		qy_sanitizer_release();
	} else {
		p = take_freed(c, cls);
		if (QY_UNLIKELY(p == NULL && c->mean != 0))
			p = take_freed_sampled(c, cls);
		if (p == NULL)
			p = take_active(c, cls);
		fresh = c->zero[cls];
	}
	if (p != NULL && zero)
		clear(p, size, fresh);
	return p;
}

void *qy_cache_alloc(const quarry_arena *arena, size_t size, size_t align, bool zero)
{
	void *p = arena == NULL ? alloc_quick(size, align, zero) : NULL;

	if (p != NULL)
		return p;
	return alloc_anywhere(arena, size, align, zero ? ZERO : 0);
}

void *qy_arena_alloc_held(const quarry_arena *arena, size_t size, size_t align, bool zero)
{
	return alloc_anywhere(arena, size, align, HELD | (zero ? ZERO : 0));
}

void *qy_cache_alloc_dense(const quarry_arena *arena, size_t size)
{
	return alloc_anywhere(arena, size, 16, DENSE);
}

static QY_NOINLINE void *refill(struct qy_cache *c, unsigned cls, size_t n)
{
	void *p = QY_UNLIKELY(c->mean != 0) ? take_freed_sampled(c, cls) : NULL;

	if (QY_LIKELY(p == NULL))
		p = take_active(c, cls);
	return p != NULL ? p : malloc_entered(n);
}

/* Most refills are of what was freed last, or of the active slab. Nothing of that is seen by others, so the thread need
 * not enter; every so often it does, to look after the rest. */
void *qy_malloc_slow(size_t n)
{
	struct qy_cache *c = qy_tls_read(cache);
	unsigned cls = c->class_of[(n + 15) >> 4];
	void *p = take_freed(c, cls);

	return QY_LIKELY(p != NULL) ? p : refill(c, cls, n);
}

void *qy_malloc_medium(size_t n)
{
	struct qy_cache *c = qy_tls_read(cache);
	unsigned cls;
	void *p;

	if (QY_UNLIKELY(n > QY_CLASS_MAX))
		return malloc_entered(n);
	cls = qy_class_of(n);
	p = c->head[cls];
	if (QY_UNLIKELY(p == NULL)) {
		p = take_freed(c, cls);
		return p != NULL ? p : refill(c, cls, n);
	}
	qy_cache_pop(&c->head[cls], p);
	qy_sanitizer_release();
	return p;
}
