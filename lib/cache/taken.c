/* SPDX-License-Identifier: MIT */
/* Taken blocks, by address: lists that only grow, whose places are used again. So nobody needs a lock, and a forked
 * child finds them whole. */
#include "lib/cache/taken.h"

#include <errno.h>

#include "lib/cache/cache.h"
#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "numa/window.h"

#define LISTS 1024

struct place {
	_Atomic(uintptr_t) p; /* 0: free */
	struct place *next;
};

static _Atomic(struct place *) lists[LISTS];

static _Atomic(struct place *) *list_of(const void *p)
{
	return &lists[(uintptr_t)p / QY_TAKEN_ALIGN * 0x9e3779b97f4a7c15u >> 54];
}

/* The place with that word. */
static struct place *find(struct place *place, uintptr_t word)
{
	while (place != NULL && atomic_load_explicit(&place->p, memory_order_relaxed) != word)
		place = place->next;
	return place;
}

bool qy_taken_find(const void *p)
{
	return p != NULL && find(atomic_load_explicit(list_of(p), memory_order_acquire), (uintptr_t)p) != NULL;
}

bool qy_taken_add(const void *p)
{
	_Atomic(struct place *) *list = list_of(p);
	struct place *place = atomic_load_explicit(list, memory_order_acquire);
	uintptr_t none = 0;
	int error = errno;

	qy_assert(((uintptr_t)p & (QY_TAKEN_ALIGN - 1)) == 0);
	for (; (place = find(place, 0)) != NULL; none = 0)
		if (atomic_compare_exchange_strong_explicit(&place->p, &none, (uintptr_t)p, memory_order_relaxed,
							    memory_order_relaxed))
			return true;
	place = qy_meta_alloc(sizeof(*place), 16);
	if (place == NULL) {
		errno = ENOMEM;
		return false;
	}
	atomic_init(&place->p, (uintptr_t)p);
	place->next = atomic_load_explicit(list, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(list, &place->next, place, memory_order_release,
						      memory_order_relaxed))
		;
	errno = error;
	return true;
}

void qy_taken_remove(const void *p)
{
	struct place *place = find(atomic_load_explicit(list_of(p), memory_order_acquire), (uintptr_t)p);

	if (place != NULL)
		atomic_store_explicit(&place->p, 0, memory_order_relaxed);
}

void qy_taken_end(struct qy_manager *head)
{
	for (int i = 0; i < LISTS; i++)
		for (struct place *place = atomic_load_explicit(&lists[i], memory_order_relaxed); place != NULL;
		     place = place->next) {
			const struct qy_manager *m =
				qy_manager_of((void *)atomic_load_explicit(&place->p, memory_order_relaxed));

			if (m != NULL && qy_peek(m->head) == head)
				atomic_store_explicit(&place->p, 0, memory_order_relaxed);
		}
	atomic_store_explicit(&head->holders, 0, memory_order_relaxed);
}

/* ---- arenas ---- */

static struct qy_manager *head_of(const void *p)
{
	struct qy_manager *m = qy_manager_of(p);

	return m == NULL ? NULL : qy_peek(m->head);
}

/* (What was free before that is free for who finds that nobody is left. In a child nobody may be: qy_taken_end.) */
static void let_go(struct qy_manager *head)
{
	uint32_t n = head == NULL ? 0 : atomic_load_explicit(&head->holders, memory_order_relaxed);

	while (n != 0 && !atomic_compare_exchange_weak_explicit(&head->holders, &n, n - 1, memory_order_release,
								memory_order_relaxed))
		;
}

/* Entered: an arena's end waits, and sees it, or came before, and the handle is none. */
bool qy_arena_hold(const quarry_arena *arena)
{
	struct qy_thread *t;
	struct qy_manager *m;

	if (arena == NULL)
		return true;
	t = qy_thread_enter();
	if (t == NULL)
		return false;
	m = qy_manager_of_arena(arena);
	if (m != NULL)
		atomic_fetch_add_explicit(&m->holders, 1, memory_order_relaxed);
	qy_thread_leave(t);
	return m != NULL;
}

/* (It is held, so the handle is good.) */
void qy_arena_let_go(const quarry_arena *arena)
{
	int error = errno;

	let_go(arena == NULL ? NULL : qy_manager_of_arena(arena));
	errno = error;
}

bool qy_arena_is_held(const quarry_arena *arena)
{
	const struct qy_manager *m = qy_manager_of_arena(arena);

	return m != NULL && qy_taken_holders(m) != 0;
}

/* A block that the thread's default arena gave: that one does not end while it is that, so there is time. */
static void hold_of(const void *p)
{
	struct qy_manager *head = head_of(p);

	if (head != NULL)
		atomic_fetch_add_explicit(&head->holders, 1, memory_order_relaxed);
}

void *qy_arena_held(const quarry_arena *arena, void *p)
{
	if (p == NULL)
		qy_arena_let_go(arena);
	else if (arena == NULL)
		hold_of(p);
	return p;
}

bool qy_arena_stays(const quarry_arena *arena)
{
	const struct qy_manager *m = arena == NULL ? NULL : qy_manager_of_arena(arena);
	const struct qy_placement *placement = m == NULL || m->of_node ? NULL : qy_peek(m->placement);

	return placement != NULL && (!placement->any || (qy_peek(placement->flags) & QUARRY_ARENA_STRICT));
}

void qy_arena_free_held(void *p)
{
	struct qy_manager *head = p == NULL ? NULL : head_of(p);

	if (p == NULL)
		return;
	if (((uintptr_t)p & (QY_TAKEN_ALIGN - 1)) == 0)
		qy_taken_remove(p);
	qy_cache_free(p);
	let_go(head);
}

uint32_t qy_taken_holders(const struct qy_manager *head)
{
	return atomic_load_explicit(&head->holders, memory_order_acquire);
}

uint32_t qy_taken_count(const struct qy_manager *head, void *const *blocks, unsigned count, uint32_t *elsewhere)
{
	uint32_t n = 0;

	*elsewhere = 0;
	for (unsigned i = 0; i < count; i++)
		if (blocks[i] != NULL && head_of(blocks[i]) == head)
			n++;
		else
			*elsewhere |= (uint32_t)1 << i;
	return n;
}
