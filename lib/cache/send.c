/* SPDX-License-Identifier: MIT */
/* Objects on their way to other threads' heaps: gathered by heap, sent many at a time. */
#include "lib/cache/thread.h"

#include <string.h>

#include "lib/manager/mixed.h"

static void send_ring(struct qy_outgoing *out)
{
	if (out->objects > 0)
		qy_heap_send(out->heap, out->first, out->last);
	out->first = out->last = NULL;
	out->objects = out->bytes = 0;
}

void qy_thread_send(struct qy_thread *t)
{
	for (unsigned i = 0; i < QY_OUT_RINGS; i++)
		send_ring(&t->out[i]);
}

static struct qy_outgoing *ring_of(struct qy_thread *t, const struct qy_heap *h)
{
	_Static_assert(QY_OUT_RINGS == 8, "three bits of the hash");
	return &t->out[((uintptr_t)h >> 6) * 0x9e3779b97f4a7c15u >> 61];
}

/* A child that is forked in between finds the object in the ring, or counted, or neither; then it loses it. */
QY_INLINE void gather(struct qy_outgoing *out, void *p, size_t size)
{
	if (((uintptr_t)p ^ (uintptr_t)out->first) >> QY_UNIT_SHIFT != 0) {
		void **latest = &out->latest[out->runs++ % QY_MAIL_AHEAD];

		/* (Of what was sent before, it leads to what is somebody's by now: no more than a hint.) */
		qy_mail_hint(p, *latest);
		*latest = p;
	}
	qy_link_object(p, out->first);
	if (out->first == NULL)
		out->last = p;
	__atomic_store_n(&out->first, p, __ATOMIC_RELEASE);
	out->objects++;
	out->bytes += (uint32_t)size;
}

static bool is_ready(const struct qy_outgoing *out)
{
	return out->objects >= QY_OUT_OBJECTS || out->bytes >= QY_OUT_BYTES;
}

bool qy_thread_gather_quick(struct qy_thread *t, struct qy_slab *s, void *p)
{
	struct qy_heap *h = atomic_load_explicit(&s->heap, memory_order_acquire);
	struct qy_outgoing *out = ring_of(t, h);

	if (out->heap != h || is_ready(out))
		return false;
	/* (A thread holds it, so that it is not mixed.) */
	gather(out, p, qy_classes[qy_peek(s->cls)].size);
	return true;
}

void qy_thread_gather(struct qy_thread *t, struct qy_slab *s, void *p)
{
	struct qy_heap *h = atomic_load_explicit(&s->heap, memory_order_acquire);
	struct qy_outgoing *out = ring_of(t, h);

	if (out->heap != h) {
		send_ring(out);
		out->heap = h;
		memset(out->latest, 0, sizeof(out->latest));
	}
	gather(out, p, qy_object_size(s, p));
	if (is_ready(out))
		send_ring(out);
}
