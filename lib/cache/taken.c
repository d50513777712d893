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

/* (Entered: an arena's end waits, or came before.) */
static void change(const void *p, uint32_t by)
{
	int error = errno;
	struct qy_thread *t = qy_thread_enter();
	struct qy_manager *m = qy_manager_of(p);

	if (m != NULL)
		atomic_fetch_add_explicit(&qy_peek(m->head)->holders, by, memory_order_relaxed);
	if (t != NULL)
		qy_thread_leave(t);
	errno = error;
}

void qy_arena_hold(const void *p)
{
	change(p, 1);
}

void qy_arena_let_go(const void *p)
{
	change(p, (uint32_t)-1);
}

bool qy_arena_is_held(const quarry_arena *arena)
{
	const struct qy_manager *m = qy_manager_of_arena(arena);

	return m != NULL && atomic_load_explicit(&m->holders, memory_order_relaxed) != 0;
}
