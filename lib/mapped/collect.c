/* SPDX-License-Identifier: MIT */
/* Collecting: what the roots lead to is marked, one bit for each 16 bytes of the heap's addresses, and all else is freed. Nobody
 * else has the heap. Freeing is by objects, each by a store of one word, so that a death in the midst leaves some of them. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "lib/object/own.h"
#include "numa/os.h"

struct waiting {
	uint64_t off;
	uint32_t tag;
};

struct quarry_mapped_marks {
	struct heap *h;
	uint64_t *bits;
	struct waiting *list;
	size_t count, size;
	bool wrong, full;
};

static bool is_marked(const quarry_mapped_marks *m, uint64_t off)
{
	return (m->bits[off / 1024] >> off / 16 % 64 & 1) != 0;
}

QUARRY_API void quarry_mapped_mark(quarry_mapped_marks *m, quarry_off at, uint32_t tag)
{
	uint64_t segs = (uint64_t)(m->h->segs - m->h->pub.base), off = at - segs;

	if (at == 0 || m->wrong || m->full)
		return;
	if (at < segs || at >= m->h->pub.length || quarry_mapped_usable(&m->h->pub, m->h->segs + off) == 0) {
		m->wrong = true;
		return;
	}
	if (is_marked(m, off))
		return;
	if (m->count == m->size) {
		size_t size = m->size == 0 ? 1024 : 2 * m->size;
		struct waiting *list = quarry_realloc(m->list, size * sizeof(*list));

		if (list == NULL) {
			m->full = true;
			return;
		}
		m->list = list;
		m->size = size;
	}
	m->bits[off / 1024] |= (uint64_t)1 << off / 16 % 64;
	m->list[m->count++] = (struct waiting){ off, tag };
}

static int mark_root(void *marks, const char *name, quarry_off off, uint32_t tag)
{
	(void)name;
	quarry_mapped_mark(marks, off, tag);
	return 0;
}

static void mark_all(quarry_mapped_marks *m, quarry_mapped_trace_fn *trace, void *ctx)
{
	if (quarry_mapped_root_list(&m->h->pub, mark_root, m) != 0)
		m->wrong = true;
	while (m->count > 0 && !m->wrong && !m->full) {
		struct waiting w = m->list[--m->count];
		void *p = m->h->segs + w.off;

		trace(ctx, m, p, quarry_mapped_usable(&m->h->pub, p), w.tag);
	}
}

struct sweeping {
	quarry_mapped_marks *marks;
	int64_t freed;
};

static int sweep(void *sweeping, void *p, size_t usable)
{
	struct sweeping *s = sweeping;
	struct heap *h = s->marks->h;
	uint64_t off = (uint64_t)((char *)p - h->segs);
	struct qy_mapped_object o;

	if (is_marked(s->marks, off))
		return 0;
	if (qy_object_find(h, off, &o)) {
		if (qy_mapped_is_bad(h, o.cls))
			return 0;
		qy_put(*o.word, *o.word | o.bit);
	} else if (qy_run_block_give(h, off) == 0) {
		qy_redo_commit(h);
	}
	s->freed += (int64_t)usable;
	return 0;
}

static int64_t sweep_all(struct heap *h, quarry_mapped_marks *m)
{
	struct sweeping s = { m, 0 };

	if (qy_mapped_enter(h) != 0)
		return -1;
	(void)quarry_mapped_walk(&h->pub, sweep, &s);
	qy_locals_adopt(h);
	qy_mapped_leave(h);
	return s.freed;
}

/* What the dead left is done, or undone, before anything is asked: OPEN is held and nobody else is there, so nobody dies any more. A
 * change that is not finished may be what leads to an object; a note would outlive the object that it is of, and free another one later. */
static int settle(struct heap *h)
{
	bool noted = false;

	if (qy_mapped_enter(h) != 0)
		return -1;
	(void)qy_sessions_reap(h);
	for (uint32_t i = 0; i < h->sb.lanes * QY_MAPPED_RESERVED; i++)
		noted = noted || qy_peek(h->lanes[i / QY_MAPPED_RESERVED].reserved[i % QY_MAPPED_RESERVED]) != 0;
	qy_mapped_leave(h);
	return noted ? qy_fail(EBUSY, "mapped heap: a set of changes is under way") : 0;
}

QUARRY_API int64_t quarry_mapped_collect(quarry_mapped *heap, quarry_mapped_trace_fn *trace, void *ctx)
{
	struct heap *h = qy_heap(heap);
	quarry_mapped_marks m = { .h = h };
	int64_t freed = -1;
	int others;

	if (qy_mapped_refuse(h) != 0)
		return -1;
	if (qy_os->range_lock(h->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true) != 0)
		return qy_fail(errno, "mapped heap: its file cannot be locked");
	others = qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION, h->sb.sessions);
	if (others != 0) {
		qy_fail(others < 0 ? errno : EBUSY, "mapped heap: others have it open");
	} else if (settle(h) == 0) {
		m.bits = quarry_calloc((h->live->segments << QY_MAPPED_SEG_SHIFT) / 1024 + 1, sizeof(uint64_t));
		if (m.bits != NULL)
			mark_all(&m, trace, ctx);
		if (m.bits == NULL || m.full)
			qy_fail(ENOMEM, "mapped heap: no memory for what is in it");
		else if (m.wrong)
			qy_fail(EUCLEAN, "mapped heap: a root, or what was marked, is no object");
		else
			freed = sweep_all(h, &m);
	}
	(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	quarry_free(m.list);
	quarry_free(m.bits);
	return freed;
}
