/* SPDX-License-Identifier: MIT */
#include "lib/cache/send.h"

#include <string.h>

#include "lib/base/probe.h"
#include "lib/cache/thread.h"
#include "lib/manager/mixed.h"
#include "lib/manager/snapshot.h"

static void send_ring(struct qy_thread *t, struct qy_outgoing *out)
{
	uint64_t bit = (uint64_t)1 << (out - t->out);
	void *first = out->first;

	if ((t->sending & bit) == 0)
		return;
	qy_snap_moved(first);
	qy_publish(t->sending, t->sending & ~bit);
	t->rings--;
	out->room = 0;
	out->first = NULL;
	if (first == NULL)
		return;
	QY_PROBE3(remote_flush, first, out->last, out->heap);
	qy_heap_send(out->heap, first, out->last);
}

void qy_thread_send(struct qy_thread *t)
{
	while (t->sending != 0)
		send_ring(t, &t->out[__builtin_ctzll(t->sending)]);
}

/* Whether slabs with that owner are one thread's, and of no arena that can be destroyed. */
static bool is_found_by(uintptr_t owner)
{
	return owner != 0 && (owner & QY_OWNER_SHARED) == 0;
}

static unsigned index_for(const struct qy_heap *h, uintptr_t owner)
{
	return qy_out_index(is_found_by(owner) ? owner : (uintptr_t)h);
}

static void begin_ring(struct qy_thread *t, struct qy_outgoing *out, struct qy_heap *h, uintptr_t owner)
{
	out->owner = is_found_by(owner) ? owner : QY_OUT_NOBODY;
	if (out->heap != h)
		memset(out->latest, 0, sizeof(out->latest));
	out->heap = h;
	qy_publish(t->sending, t->sending | (uint64_t)1 << (out - t->out));
	out->room = (int32_t)qy_min(QY_OUT_ROOM, QY_OUT_ROOM_ALL / ++t->rings);
}

void qy_thread_gather(struct qy_thread *t, struct qy_slab *s, void *p)
{
	struct qy_heap *h = atomic_load_explicit(&s->heap, memory_order_acquire);
	uintptr_t owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
	struct qy_outgoing *out = &t->out[index_for(h, owner)];
	int32_t weight = (int32_t)QY_WEIGHT(qy_object_size(s, p));

	if (out->heap != h || out->room < weight)
		send_ring(t, out);
	if (out->first == NULL) {
		begin_ring(t, out, h, owner);
		out->last = p;
	}
	out->room -= weight;
	qy_out_push(out, p);
	if (out->room <= 0)
		send_ring(t, out);
}
