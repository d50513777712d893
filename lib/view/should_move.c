/* SPDX-License-Identifier: MIT */
/* What a program that moves its objects had better move (lib/manager/density.h has the rule). */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/cache/thread.h"
#include "lib/manager/density.h"
#include "lib/manager/mixed.h"

/* Have the look go on that answers go by; from now on also at that manager. */
static QY_NOINLINE void go_on(struct qy_manager *m, size_t asked)
{
	struct qy_thread *t = qy_thread_enter();

	if (t == NULL)
		return;
	qy_density_step(m, (uint32_t)qy_min(asked, UINT32_MAX));
	qy_thread_leave(t);
}

/* The object's slab, and whose it is; NULL where it is none. */
static const struct qy_slab *slab_of(const void *p, struct qy_manager **m)
{
	const struct qy_slab *s = qy_slab_of(p);

	*m = s == NULL ? NULL : qy_manager_of(p);
	if (*m == NULL)
		return NULL;
	if (QY_UNLIKELY(qy_density_of(*m) == NULL))
		go_on(*m, 0);
	return s;
}

static bool is_to_go(const struct qy_manager *m, const struct qy_slab *s)
{
	switch (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE)) {
	case QY_SLAB_QUEUED:
		return qy_density_is_to_go(m, s);
	case QY_SLAB_MIXED: /* (What a profile samples would come to stand in such a one again.) */
		return qy_peek(s->linked) < QY_MIXED_GRAINS / 2 && !qy_mixed_is_apart(s);
	default:
		return false;
	}
}

static quarry_move_hint hint_of(const void *p)
{
	struct qy_manager *m;
	const struct qy_slab *s = slab_of(p, &m);
	const struct qy_density *d;
	quarry_move_hint hint = { .known = 1 };
	unsigned cls, state;
	uint32_t live;

	if (s == NULL)
		return (quarry_move_hint){ 0 };
	state = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
	cls = qy_peek(s->cls);
	hint.move = is_to_go(m, s);
	hint.current = state == QY_SLAB_ACTIVE;
	hint.mixed = state == QY_SLAB_MIXED;
	hint.objects = qy_classes[cls].capacity;
	live = qy_peek(*(hint.mixed ? &s->linked : &s->countdown));
	hint.free = state == QY_SLAB_FULL ? 0 : hint.objects - (uint32_t)qy_min(live, hint.objects);
	if (hint.mixed)
		return hint;
	hint.class_index = cls;
	hint.object_size = qy_classes[cls].size;
	d = qy_density_of(m);
	if (d != NULL) {
		hint.slabs = atomic_load_explicit(&d->of[cls].slabs, memory_order_relaxed);
		hint.slabs_live = atomic_load_explicit(&d->of[cls].live, memory_order_relaxed);
	}
	return hint;
}

static void note_asked(size_t n)
{
	if (QY_UNLIKELY(qy_density_is_due((uint32_t)qy_min(n, UINT32_MAX))))
		go_on(NULL, n);
}

QUARRY_API long quarry_should_move(const void *const ptrs[], size_t n, uint8_t move[])
{
	long count = 0;

	if (n > 0 && (ptrs == NULL || move == NULL))
		return qy_fail(EINVAL, "%s: NULL, for %lu pointers", ptrs == NULL ? "ptrs" : "move", (unsigned long)n);
	note_asked(n);
	for (size_t i = 0; i < n; i++) {
		struct qy_manager *m;
		const struct qy_slab *s = slab_of(ptrs[i], &m);

		move[i] = s != NULL && is_to_go(m, s);
		count += move[i];
	}
	return count;
}

static void add_gain(struct qy_manager *m, quarry_move_gain *gain)
{
	gain->gain += qy_density_gain(m);
	gain->in_use += qy_read(&m->used);
}

QUARRY_API int quarry_move_gain_get(quarry_arena *arena, quarry_move_gain *gain)
{
	struct qy_manager *head = NULL;

	if (gain == NULL)
		return qy_fail(EINVAL, "gain: NULL");
	qy_init_once();
	if (arena != NULL && (head = qy_manager_of_arena(arena)) == NULL)
		return qy_fail_arena(arena);
	*gain = (quarry_move_gain){ 0 };
	if (head == NULL)
		for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
			add_gain(m, gain);
	else
		add_gain(head, gain);
	for (struct qy_manager *m = head == NULL ? NULL : qy_family_next(head, NULL); m != NULL; m = qy_family_next(head, m))
		if (m != head)
			add_gain(m, gain);
	return 0;
}

QUARRY_API long quarry_should_move_hints(const void *const ptrs[], size_t n, quarry_move_hint *hints, size_t size)
{
	long count = 0;

	if (n > 0 && (ptrs == NULL || hints == NULL || size == 0))
		return qy_fail(EINVAL, "%s, for %lu pointers",
			       ptrs == NULL ? "ptrs: NULL" : hints == NULL ? "hints: NULL" : "size: 0", (unsigned long)n);
	note_asked(n);
	for (size_t i = 0; i < n; i++) {
		quarry_move_hint hint = hint_of(ptrs[i]);

		memcpy((char *)hints + i * size, &hint, qy_min(size, sizeof(hint)));
		count += hint.move;
	}
	return count;
}
