/* SPDX-License-Identifier: MIT */
/* Names: a table of open addressing in the head. Who writes has the heap's lock. Who reads has none: an entry's count of changes
 * is odd while it is written, and another one afterwards; all of that is in the record, so that a death leaves none odd for long. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"

#define TRIES 1000

static uint32_t kind_of(uint64_t state)
{
	return state & 0xff;
}

/* 0 at the end as in the table; false where it is none. */
static bool take_name(char name[QUARRY_MAPPED_NAME], const char *from)
{
	size_t n = from == NULL ? 0 : strnlen(from, QUARRY_MAPPED_NAME + 1);

	if (n == 0 || n > QUARRY_MAPPED_NAME) {
		qy_fail(EINVAL, "name: 1 to %d bytes", QUARRY_MAPPED_NAME);
		return false;
	}
	memset(name, 0, QUARRY_MAPPED_NAME);
	memcpy(name, from, n);
	return true;
}

static uint32_t first_place(const struct heap *h, const char *name)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (unsigned i = 0; i < QUARRY_MAPPED_NAME && name[i] != 0; i++)
		hash = (hash ^ (uint8_t)name[i]) * 0x100000001b3u;
	return (uint32_t)((hash ^ hash >> 32) % h->sb.roots);
}

/* Bytes that another may be writing: what is seen half is not used. */
static bool is_name(const struct qy_mapped_root *r, const char *name)
{
	for (unsigned i = 0; i < QUARRY_MAPPED_NAME; i++) {
		if (qy_peek(r->name[i]) != name[i])
			return false;
	}
	return true;
}

/* The entry of a name, or NULL; *place is where a new one may be. */
static struct qy_mapped_root *find(const struct heap *h, const char *name, struct qy_mapped_root **place)
{
	uint32_t at = first_place(h, name);

	*place = NULL;
	for (uint32_t i = 0; i < h->sb.roots; i++) {
		struct qy_mapped_root *r = &h->roots[(at + i) % h->sb.roots];
		uint32_t kind = kind_of(__atomic_load_n(&r->state, __ATOMIC_ACQUIRE));

		if (kind == QY_ROOT_USED && is_name(r, name))
			return r;
		if (kind != QY_ROOT_USED && *place == NULL)
			*place = r;
		if (kind == QY_ROOT_NEVER)
			return NULL;
	}
	return NULL;
}

/* The mark that it is being written is in the record as well: who finishes it takes it away. */
static void stage(struct heap *h, struct qy_mapped_root *r, uint64_t state, quarry_off off)
{
	uint64_t changes = r->changes | 1;

	qy_redo_store(h, &r->changes, changes);
	qy_redo_store(h, &r->value, off);
	qy_redo_store(h, &r->state, state);
	qy_redo_store_after(h, &r->changes, changes + 1);
}

/* only_new: where there is one of that name, it stays, and that is an error. */
static int put(struct heap *h, const char *from, quarry_off off, uint32_t tag, bool only_new)
{
	struct qy_mapped_root *r, *place;
	char name[QUARRY_MAPPED_NAME];
	int rc = 0;

	if (!take_name(name, from) || qy_mapped_enter(h) != 0)
		return -1;
	r = find(h, name, &place);
	if (r != NULL && only_new)
		rc = qy_fail(EEXIST, "mapped heap: there is a root of that name");
	else if (r == NULL && place == NULL)
		rc = qy_fail(ENOSPC, "mapped heap: all %u roots are taken", h->sb.roots);
	if (rc == 0) {
		if (r == NULL) { /* (nobody looks at the name of one that is not used) */
			r = place;
			atomic_thread_fence(memory_order_release);
			memcpy(r->name, name, sizeof(name));
		}
		QY_POINT();
		stage(h, r, QY_ROOT_USED | (uint64_t)tag << 32, off);
		qy_redo_commit(h);
	}
	qy_mapped_leave(h);
	return rc;
}

QUARRY_API int quarry_mapped_root_put(quarry_mapped *heap, const char *name, quarry_off off, uint32_t tag)
{
	return put(qy_heap(heap), name, off, tag, false);
}

QUARRY_API int quarry_mapped_root_add(quarry_mapped *heap, const char *name, quarry_off off, uint32_t tag)
{
	return put(qy_heap(heap), name, off, tag, true);
}

struct seen {
	uint64_t state;
	quarry_off off;
	char name[QUARRY_MAPPED_NAME + 1];
};

/* One look at an entry: false where it is being written. */
static bool see(const struct qy_mapped_root *r, struct seen *seen)
{
	uint64_t before = __atomic_load_n(&r->changes, __ATOMIC_ACQUIRE);

	seen->off = __atomic_load_n(&r->value, __ATOMIC_ACQUIRE);
	seen->state = __atomic_load_n(&r->state, __ATOMIC_ACQUIRE);
	for (unsigned k = 0; k < QUARRY_MAPPED_NAME; k++)
		seen->name[k] = qy_peek(r->name[k]);
	seen->name[QUARRY_MAPPED_NAME] = 0;
	atomic_thread_fence(memory_order_acquire);
	return (before & 1) == 0 && qy_peek(r->changes) == before;
}

/* Until it is seen whole. Who was writing may have died: then it is finished under the lock, or, where that cannot be had, by
 * another process. -1 with EAGAIN; EUCLEAN where nobody is writing it. */
static int see_whole(struct heap *h, const struct qy_mapped_root *r, struct seen *seen)
{
	bool whole = false;

	for (unsigned i = 0; i < TRIES && !whole; i++)
		whole = see(r, seen);
	if (!whole && !h->read_only && !h->stale && qy_mapped_enter(h) == 0) {
		whole = see(r, seen);
		qy_mapped_leave(h);
		if (!whole)
			return qy_fail(EUCLEAN, "mapped heap: what stands of a root cannot be");
	}
	return whole ? 0 : qy_fail(EAGAIN, "mapped heap: a root is being changed, or somebody died in that");
}

QUARRY_API quarry_off quarry_mapped_root_get(const quarry_mapped *heap, const char *from, uint32_t *tag)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_root *r, *place;
	char name[QUARRY_MAPPED_NAME];
	struct seen seen;

	if (!take_name(name, from))
		return 0;
	/* (Where another name has come to its place since, it may have come to another.) */
	for (unsigned i = 0; i < TRIES && (r = find(h, name, &place)) != NULL; i++) {
		if (see_whole(h, r, &seen) != 0)
			return 0;
		if (kind_of(seen.state) != QY_ROOT_USED || memcmp(seen.name, name, sizeof(name)) != 0)
			continue;
		if (tag != NULL)
			*tag = (uint32_t)(seen.state >> 32);
		return seen.off;
	}
	qy_fail(ENOENT, "mapped heap: no root of that name");
	return 0;
}

QUARRY_API int quarry_mapped_root_remove(quarry_mapped *heap, const char *from)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_root *r, *place;
	char name[QUARRY_MAPPED_NAME];

	if (!take_name(name, from) || qy_mapped_enter(h) != 0)
		return -1;
	r = find(h, name, &place);
	if (r != NULL) {
		stage(h, r, QY_ROOT_GONE, r->value);
		qy_redo_commit(h);
	}
	qy_mapped_leave(h);
	return r != NULL ? 0 : qy_fail(ENOENT, "mapped heap: no root of that name");
}

QUARRY_API quarry_off *quarry_mapped_root_slot(quarry_mapped *heap, const char *from)
{
	struct qy_mapped_root *r, *place;
	char name[QUARRY_MAPPED_NAME];

	if (!take_name(name, from))
		return NULL;
	r = find(qy_heap(heap), name, &place);
	if (r != NULL)
		return &r->value;
	qy_fail(ENOENT, "mapped heap: no root of that name");
	return NULL;
}

QUARRY_API int quarry_mapped_root_list(const quarry_mapped *heap, quarry_mapped_root_fn *fn, void *ctx)
{
	struct heap *h = qy_heap(heap);
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < h->sb.roots; i++) {
		struct seen seen;

		if (see_whole(h, &h->roots[i], &seen) != 0)
			return -1;
		if (kind_of(seen.state) == QY_ROOT_USED)
			rc = fn(ctx, seen.name, seen.off, (uint32_t)(seen.state >> 32));
	}
	return rc;
}

QUARRY_API void *quarry_mapped_user(const quarry_mapped *heap, size_t *bytes)
{
	const struct heap *h = qy_heap(heap);

	if (bytes != NULL)
		*bytes = h->sb.user_bytes;
	return h->user;
}
