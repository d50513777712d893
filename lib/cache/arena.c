/* SPDX-License-Identifier: MIT */
#include "lib/cache/arena.h"

#include <errno.h>
#include <string.h>

#include "lib/base/checker.h"
#include "lib/cache/idle.h"
#include "lib/cache/taken.h"
#include "lib/cache/threads.h"
#include "lib/manager/breaker.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/reclaim.h"
#include "numa/os.h"

static quarry_arena *handle_of(const struct qy_manager *m)
{
	return m == NULL ? NULL : &qy_arenas[qy_peek(m->index)];
}

int qy_arena_unknown_node(const quarry_nodeset *nodes)
{
	return qy_manager_unknown_node(nodes);
}

/* What is strict, has to be there at once or has no alternative is asked for now, so that its failure is the
 * arena's. */
static bool ask_for_some(struct qy_manager *m)
{
	struct qy_thread *t = qy_thread_enter();
	struct qy_manager *here = t == NULL ? NULL : qy_manager_serving(m, qy_manager_node());
	bool more = here != NULL && qy_manager_more(here, 1, 1);

	if (more)
		qy_manager_spare_none(here);
	if (t != NULL)
		qy_thread_leave(t);
	return more;
}

static _Atomic(uint64_t) lives; /* nodes' arenas have 0, and one life */

/* Nobody else knows the arena yet, or all threads are held. */
void qy_arena_begin_life(struct qy_manager *m)
{
	qy_publish(m->has_others, false);
	__atomic_store_n(&m->life, atomic_fetch_add_explicit(&lives, 1, memory_order_relaxed) + 1, __ATOMIC_SEQ_CST);
}

/* What lived there is told to be gone between two of them, of which the first is nobody's. So who reads a life and then marks an
 * end in it has read the one that the block was in, or none that comes back, or is too late to mark it (lib/object/count.c);
 * and who begins a block and then finds the life that was there before has begun it in time to be told of
 * (lib/object/block.c). */
static void go_on_in_another_life(struct qy_manager *m)
{
	qy_arena_begin_life(m);
	qy_manager_tell_gone(m);
	qy_arena_begin_life(m);
}

quarry_arena *qy_arena_create(const quarry_arena_attr *attr)
{
	struct qy_manager *m = qy_manager_create_as(attr);
	int error;

	if (m != NULL)
		qy_arena_begin_life(m);
	if (m != NULL && (attr->flags & QUARRY_ARENA_DECAY))
		qy_reclaim_note_decay((long)attr->decay_ms);
	if (m == NULL || !(attr->flags & (QUARRY_ARENA_STRICT | QUARRY_ARENA_POPULATE | QUARRY_ARENA_FD)) ||
	    ask_for_some(m))
		return handle_of(m);
	error = errno;
	qy_purge_hold();
	qy_manager_destroy(m);
	qy_purge_release();
	errno = error;
	return NULL;
}

/* Nothing stands in it any more: what did is its owner's, and goes with it. */
static void drop_holders(struct qy_manager *m, void *const *blocks, unsigned count, uint32_t elsewhere)
{
	for (unsigned i = 0; i < count; i++)
		if (!(elsewhere >> i & 1))
			qy_taken_remove(blocks[i]);
	atomic_store_explicit(&m->holders, 0, memory_order_relaxed);
}

/* With all threads out and held: drop what they hold of it, then end it, with blocks of the caller's in it, or none.
 * Which are elsewhere is said beforehand: where they are cannot be told afterwards. */
static int end(quarry_arena *arena, bool destroy, void *const *blocks, unsigned count, uint32_t *elsewhere)
{
	struct qy_region *regions = NULL;
	struct qy_manager *m;
	int error = 0;

	qy_checker_hush(true);
	qy_purge_hold();
	qy_threads_pause();
	m = qy_manager_of_arena(arena);
	if (m == NULL)
		error = EINVAL;
	else if (m->of_node)
		error = EPERM;
	else if (qy_threads_use(m) || qy_taken_holders(m) != qy_taken_count(m, blocks, count, elsewhere))
		error = EBUSY;
	else
		qy_threads_forget(m);
	if (error == 0)
		go_on_in_another_life(m);
	if (error == 0 && count != 0)
		drop_holders(m, blocks, count, *elsewhere);
	if (error == 0 && qy_checker != QY_CHECKER_NONE)
		qy_manager_end_checked(m);
	if (error == 0 && destroy)
		regions = qy_manager_end(m);
	else if (error == 0)
		qy_manager_reset(m);
	qy_threads_resume();
	qy_purge_release();
	qy_checker_hush(false);
	/* Nobody waits while the kernel takes the memory back. */
	qy_manager_unmap(regions);
	if (error != 0)
		errno = error;
	return error == 0 ? 0 : -1;
}

int qy_arena_end(quarry_arena *arena, bool destroy)
{
	uint32_t elsewhere;

	return end(arena, destroy, NULL, 0, &elsewhere);
}

int qy_arena_end_with(quarry_arena *arena, void *const *blocks, unsigned count)
{
	uint32_t elsewhere;

	if (end(arena, true, blocks, count, &elsewhere) != 0)
		return -1;
	for (unsigned i = 0; i < count; i++)
		if (elsewhere >> i & 1)
			qy_arena_free_held(blocks[i]);
	return 0;
}

quarry_arena *qy_arena_of(const void *p)
{
	struct qy_manager *m = qy_cache_usable(p) == 0 ? NULL : qy_manager_of(p);

	if (m == NULL)
		errno = EINVAL;
	return handle_of(m);
}

bool qy_arena_is_inside(void)
{
	return (qy_tls.thread != NULL && qy_tls.thread->depth > 0) || qy_locks_held != 0;
}

bool qy_arena_is_nodes(const void *p)
{
	struct qy_manager *m = qy_cache_usable(p) == 0 ? NULL : qy_manager_of(p);

	return m != NULL && qy_peek(m->of_node);
}

uint64_t qy_arena_life(const void *p)
{
	struct qy_manager *m = qy_manager_of(p);

	return m == NULL ? QY_LIFE_OVER : __atomic_load_n(&qy_peek(m->head)->life, __ATOMIC_SEQ_CST);
}

uint64_t qy_arena_life_now(const quarry_arena *arena)
{
	struct qy_manager *m = qy_manager_of_arena(arena);

	return m == NULL ? QY_LIFE_OVER : __atomic_load_n(&m->life, __ATOMIC_SEQ_CST);
}

static char not_held; /* what is of a node's arena */

/* (A thread that cannot be known, or has ended, keeps those who would hold threads from it.) */
bool qy_life_hold(const void *p, uint64_t life, void **held)
{
	struct qy_thread *t;

	*held = &not_held;
	if (life == QY_LIFE_NODES || life == QY_LIFE_OVER)
		return life == QY_LIFE_NODES;
	t = qy_thread_gone() && qy_tls.thread == NULL ? NULL : qy_thread_enter();
	*held = t;
	if (t == NULL)
		qy_lock(&qy_threads_pause_lock);
	if (qy_arena_life(p) == life)
		return true;
	qy_life_let_go(t);
	return false;
}

void qy_life_let_go(void *held)
{
	if (held == NULL)
		qy_unlock(&qy_threads_pause_lock);
	else if (held != &not_held)
		qy_thread_leave(held);
}

/* (What is freed in a life is no pool's or slab's of buffers.) */
void qy_arena_free_filled(void *p, uint64_t life, int byte, size_t max)
{
	void *held;

	if (!qy_life_hold(p, life, &held))
		return;
	if (qy_cache_room(p) != 0) {
		memset(p, byte, qy_min(qy_cache_usable(p), max));
		qy_cache_free(p);
	}
	qy_life_let_go(held);
}

quarry_arena *qy_arena_of_node(int node)
{
	return handle_of(qy_manager_of_kernel_node(node));
}

#define SENT_LEAST ((size_t)1 << 16) /* bytes: the least that the option breaker_min can be */

void qy_arena_note_sent(const void *p)
{
	struct qy_manager *m = qy_manager_of(p);

	if (m != NULL)
		qy_publish(qy_peek(m->head)->has_others, true);
}

/* (It is not known which arena it was asked of, but that it may have been. What others have taken is not the program's.) */
static bool may_be_sent(const struct qy_manager *of, const void *p, size_t usable)
{
	return qy_peek(qy_peek(of->head)->has_others) && usable >= SENT_LEAST && qy_slab_of(p) == NULL && !qy_taken_has(p);
}

bool qy_arena_has(const quarry_arena *arena, const void *p)
{
	struct qy_manager *of = qy_manager_of(p), *m = arena == NULL ? of : qy_manager_of_arena(arena);
	size_t usable = m == NULL || of == NULL ? 0 : qy_cache_usable(p);

	if (usable != 0 && (of->head == m->head || may_be_sent(of, p, usable)))
		return true;
	errno = EINVAL;
	return false;
}

quarry_arena *qy_arena_chosen(void)
{
	return qy_tls.thread == NULL ? NULL : handle_of(qy_tls.thread->chosen);
}

int qy_arena_choose(quarry_arena *arena)
{
	struct qy_thread *t = qy_thread_enter();
	struct qy_manager *m = NULL;
	int r = -1;

	if (t == NULL)
		return -1;
	if (arena != NULL)
		m = qy_manager_of_arena(arena);
	if (arena == NULL || m != NULL)
		r = qy_thread_choose(t, m);
	qy_thread_leave(t);
	return r;
}

const char *qy_arena_name(const quarry_arena *arena)
{
	struct qy_manager *m = qy_manager_of_arena(arena);

	return m == NULL ? NULL : m->name;
}

int qy_arena_limit(quarry_arena *arena, uint64_t hard, uint64_t soft)
{
	struct qy_manager *m = qy_manager_of_arena(arena);

	if (m == NULL)
		return -1;
	atomic_store_explicit(&m->hard_limit, hard, memory_order_relaxed);
	atomic_store_explicit(&m->soft_limit, soft, memory_order_relaxed);
	if (soft != 0)
		qy_limits_note_soft();
	qy_reclaim_look();
	return 0;
}

int qy_arena_set_decay(quarry_arena *arena, long decay_ms)
{
	struct qy_manager *m = qy_manager_of_arena(arena);

	if (m == NULL)
		return -1;
	atomic_store_explicit(&m->decay_ms, decay_ms, memory_order_relaxed);
	/* It may be asleep for as long as the time of before allowed. */
	qy_reclaim_look();
	return 0;
}

int qy_arena_redirect(const quarry_arena *arena)
{
	struct qy_thread *t = qy_thread_enter();
	bool there;

	if (t == NULL)
		return -1;
	/* (Entered, so that it cannot end in between, and be named for ever.) */
	there = arena == NULL || qy_manager_of_arena(arena) != NULL;
	if (there)
		qy_breaker_set_redirect(arena);
	qy_thread_leave(t);
	return there ? 0 : -1;
}

size_t qy_arena_left(const void *p)
{
	return qy_large_left(p);
}

int qy_arena_populate(void *p, size_t len)
{
	return qy_large_populate(p, len);
}

bool qy_arena_may_be_huge(const void *p)
{
	return qy_large_may_be_huge(p);
}

int qy_arena_discard(void *p, size_t len)
{
	int result;

	/* What becomes of the huge pages there is told to nobody else meanwhile, nor to a child. */
	qy_purge_hold();
	result = qy_large_discard(p, len);
	qy_purge_release();
	return result;
}

int qy_arena_fd(const void *p, uint64_t *offset)
{
	return qy_large_fd(p, offset);
}

static void flush_thread(void (*rest)(struct qy_heap *))
{
	struct qy_thread *t = qy_tls.thread;

	if (t == NULL || qy_thread_enter() == NULL)
		return;
	qy_thread_send(t);
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		qy_heap_receive(&c->heap);
		qy_cache_flush(c);
		rest(&c->heap);
	}
	qy_thread_leave(t);
}

void qy_arena_flush_thread(void)
{
	flush_thread(qy_heap_tidy);
}

size_t qy_arena_purge(quarry_arena *arena)
{
	struct qy_manager *m, *one;
	size_t bytes = 0;
	uint64_t next;

	/* Pages inside slabs go back where nobody holds the slab. */
	flush_thread(qy_heap_let_go);
	if (arena == NULL)
		return qy_reclaim_now();
	m = qy_manager_of_arena(arena);
	if (m == NULL)
		return 0;
	qy_checker_hush(true);
	(void)qy_threads_give_up_all(false);
	for (one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one))
		bytes += qy_manager_purge(one, qy_os->now_ms(), 0, SIZE_MAX, &next);
	qy_checker_hush(false);
	return bytes;
}

size_t qy_arena_list(quarry_arena **list, size_t max)
{
	size_t n = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		/* (Those of a family are one.) */
		if (qy_peek(m->head) != m)
			continue;
		if (n < max)
			list[n] = handle_of(m);
		n++;
	}
	return n;
}
