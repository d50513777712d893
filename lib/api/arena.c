/* SPDX-License-Identifier: MIT */
/* Arenas as the program sees them: what is asked for is checked here, and what is wrong is named. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/fast.h"
#include "lib/api/huge.h"
#include "lib/api/init.h"
#include "lib/cache/arena.h"
#include "lib/cache/move.h"
#include "lib/cache/resize.h"
#include "lib/cache/taken.h"
#include "lib/cache/thread.h"

#define DECAY_MAX 3600000 /* ms, as of the option */
#define OUTSIDE_DECAY "decay_ms: %ld is not within %d and %d"

static bool is_decay(int64_t decay_ms)
{
	return decay_ms >= QUARRY_DECAY_DEFAULT && decay_ms <= DECAY_MAX;
}

/* A soft limit above the hard one would never be passed. */
static bool are_limits(uint64_t hard, uint64_t soft)
{
	return hard == 0 || soft <= hard;
}

static int fail_limits(uint64_t hard, uint64_t soft)
{
	return qy_fail(EINVAL, "soft_limit: %lu bytes are more than the %lu of hard_limit", (unsigned long)soft,
		       (unsigned long)hard);
}

/* The attributes of a program that may have been built when the struct was shorter. What its flags do not tell of, and
 * its size does not say to be there, is not looked at. */
static bool take(const quarry_arena_attr *given, quarry_arena_attr *attr)
{
	const size_t first = offsetof(quarry_arena_attr, decay_ms);
	bool with_decay = given->flags & QUARRY_ARENA_DECAY;
	size_t size = given->struct_size != 0 ? given->struct_size : with_decay ? sizeof(*given) : first;

	memset(attr, 0, sizeof(*attr));
	if (size != first && size != sizeof(*attr)) {
		qy_fail(EINVAL, "struct_size: %d is not the size of any quarry_arena_attr", (int)given->struct_size);
		return false;
	}
	if (with_decay && size == first) {
		qy_fail(EINVAL, "struct_size: flags tell of decay_ms, which is not in %d bytes", (int)size);
		return false;
	}
	memcpy(attr, given, size);
	return true;
}

static bool check(const quarry_arena_attr *attr)
{
	const uint32_t flags = QUARRY_ARENA_STRICT | QUARRY_ARENA_NODUMP | QUARRY_ARENA_LOCKED | QUARRY_ARENA_POPULATE |
			       QUARRY_ARENA_FD | QUARRY_ARENA_DECAY;

	if (attr->flags & ~flags)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", (unsigned)attr->flags);
	else if (attr->policy < QUARRY_POLICY_LOCAL || attr->policy > QUARRY_POLICY_WEIGHTED_INTERLEAVE)
		qy_fail(EINVAL, "policy: %d is none", (int)attr->policy);
	else if (attr->page_kind < QUARRY_PAGES_AUTO || attr->page_kind > QUARRY_PAGES_1G)
		qy_fail(EINVAL, "page_kind: %d is none", (int)attr->page_kind);
	else if (memchr(attr->name, 0, sizeof(attr->name)) == NULL)
		qy_fail(EINVAL, "name: longer than %d characters", (int)sizeof(attr->name) - 1);
	else if (!(attr->flags & QUARRY_ARENA_DECAY) && attr->decay_ms != 0)
		qy_fail(EINVAL, "decay_ms: %ld is given without QUARRY_ARENA_DECAY", (long)attr->decay_ms);
	else if (!is_decay(attr->decay_ms))
		qy_fail(EINVAL, OUTSIDE_DECAY, (long)attr->decay_ms, QUARRY_DECAY_DEFAULT, DECAY_MAX);
	else if (!are_limits(attr->hard_limit, attr->soft_limit))
		fail_limits(attr->hard_limit, attr->soft_limit);
	else if (qy_arena_unknown_node(&attr->nodes) >= 0)
		qy_fail(EINVAL, "nodes: there is no node %d", qy_arena_unknown_node(&attr->nodes));
	else
		return true;
	return false;
}

/* What a strict arena of huge pages was refused: where the pool is, as far as one node is meant. */
static void fail_strictly(const quarry_arena_attr *attr, int error)
{
	const char *kind = attr->page_kind == QUARRY_PAGES_1G ? "1g" : "2m";
	const char *others = attr->policy == QUARRY_POLICY_LOCAL ? "the thread's node" : "the nodes";
	int node = -1, count = 0;

	for (unsigned i = 0; i < QUARRY_NODES_MAX; i++)
		if (quarry_nodeset_has(&attr->nodes, i) && count++ == 0)
			node = (int)i;
	if (count == 1 || (count > 1 && attr->policy == QUARRY_POLICY_PREFERRED))
		qy_fail(error, "page_kind: %s, strictly, and the pool of node %d has none free that may be used", kind,
			node);
	else
		qy_fail(error, "page_kind: %s, strictly, and the pool of %s has none free that may be used", kind,
			count > 0 ? "its nodes" : others);
}

QUARRY_API quarry_arena *quarry_arena_create(const quarry_arena_attr *given)
{
	static const quarry_arena_attr plain;
	quarry_arena_attr attr;
	quarry_arena *arena;

	qy_init_once();
	if (qy_fail_inside() || !take(given == NULL ? &plain : given, &attr) || !check(&attr))
		return NULL;
	arena = qy_arena_create(&attr);
	if (arena == NULL && errno == ENOMEM && (attr.flags & QUARRY_ARENA_STRICT) &&
	    attr.page_kind >= QUARRY_PAGES_2M)
		fail_strictly(&attr, errno);
	else if (arena == NULL)
		qy_fail(errno, errno == EAGAIN   ? "there are as many arenas as can be"
			       : errno == ENOMEM ? "no memory for an arena as it was asked for"
			       : attr.flags & QUARRY_ARENA_FD ? "the kernel gives no memory file, or no descriptor"
						 : "the kernel refuses what was asked for, strictly");
	return arena;
}

/* (Whoever stood in it may have gone since, and have ended it: what the error was is not asked again.) */
static int end(quarry_arena *arena, bool destroy)
{
	int error;

	qy_init_once();
	if (qy_fail_inside())
		return -1;
	if (qy_arena_end(arena, destroy) == 0)
		return 0;
	error = errno;
	if (error == EINVAL)
		return qy_fail_arena(arena);
	if (error == EBUSY && qy_arena_is_held(arena))
		return qy_fail(EBUSY, "arena: a pool, a page allocator, a stack or a slab of buffers is in it still");
	return qy_fail(error, error == EBUSY ? "arena: it is the default arena of a thread, or was held until now"
				: error == EPERM ? "arena: it is the default arena of a node"
						 : "no memory");
}

QUARRY_API int quarry_arena_destroy(quarry_arena *arena)
{
	return end(arena, true);
}

QUARRY_API int quarry_arena_reset(quarry_arena *arena)
{
	return end(arena, false);
}

/* ---- used ---- */

QUARRY_API void *quarry_arena_malloc(quarry_arena *arena, size_t size)
{
	return arena == NULL ? qy_fast_malloc(size) : qy_cache_alloc(arena, size, 16, false);
}

QUARRY_API void *quarry_arena_calloc(quarry_arena *arena, size_t count, size_t size)
{
	size_t n;

	if (__builtin_mul_overflow(count, size, &n)) {
		errno = ENOMEM;
		return NULL;
	}
	return qy_cache_alloc(arena, n, 16, true);
}

QUARRY_API void *quarry_arena_realloc(quarry_arena *arena, void *p, size_t size)
{
	return p == NULL ? quarry_arena_malloc(arena, size) : qy_resize(p, size);
}

QUARRY_API void *quarry_arena_aligned_alloc(quarry_arena *arena, size_t alignment, size_t size)
{
	if (!qy_is_pow2(alignment)) {
		errno = EINVAL;
		return NULL;
	}
	return qy_cache_alloc(arena, size, alignment, false);
}

QUARRY_API void *quarry_arena_malloc_at_least(quarry_arena *arena, size_t size, size_t *got)
{
	void *p = quarry_arena_malloc(arena, size);

	if (got != NULL && p != NULL)
		*got = qy_cache_usable(p);
	return p;
}

QUARRY_API void *quarry_arena_malloc_dense(quarry_arena *arena, size_t size)
{
	return qy_cache_alloc_dense(arena, size);
}

QUARRY_API int quarry_arena_free(quarry_arena *arena, void *p)
{
	if (p == NULL)
		return 0;
	if (!qy_arena_has(arena, p))
		return qy_fail(errno, "p: %p is not of this arena", p);
	if (qy_taken_has(p))
		return qy_fail(EINVAL, "p: %p is a pool's, a page allocator's or a slab's of buffers", p);
	qy_fast_free(p);
	return 0;
}

/* ---- asked and told ---- */

QUARRY_API quarry_arena *quarry_arena_of(const void *p)
{
	quarry_arena *arena = qy_arena_of(p);

	if (arena == NULL)
		qy_fail(errno, "p: %p is not quarry's", (void *)(uintptr_t)p);
	return arena;
}

/* 0 when len bytes from p on are in one block; -1, and the error is set. */
static int check_within(const void *p, size_t len)
{
	size_t left = qy_arena_left(p);

	if (left == 0)
		return qy_fail(EINVAL, "p: it is in no block of quarry's");
	if (len > left)
		return qy_fail(EINVAL, "len: %lu bytes are more than the %lu that the block has from p on",
			       (unsigned long)len, (unsigned long)left);
	return 0;
}

QUARRY_API int quarry_populate(void *p, size_t len)
{
	qy_init_once();
	if (check_within(p, len) != 0)
		return -1;
	if (len == 0 || qy_arena_populate(p, len) == 0)
		return 0;
	return qy_fail(errno, "len: the kernel has not brought all of %lu bytes in", (unsigned long)len);
}

bool qy_may_be_huge(const void *p)
{
	return qy_arena_may_be_huge(p);
}

QUARRY_API int quarry_discard(void *p, size_t len)
{
	qy_init_once();
	if (qy_fail_inside() || check_within(p, len) != 0)
		return -1;
	if (len == 0 || qy_arena_discard(p, len) == 0)
		return 0;
	return qy_fail(errno, "p: memory of that kind does not go back in parts, or the kernel refuses");
}

QUARRY_API int quarry_fd_of(const void *p, uint64_t *offset)
{
	uint64_t at;
	int fd = qy_arena_fd(p, &at);

	if (fd < 0)
		return qy_fail(errno, errno == EINVAL   ? "p: %p is not quarry's"
				      : errno == EBADF ? "p: the descriptor of what is at %p was closed by the program"
						       : "p: what is at %p is in no file", (void *)(uintptr_t)p);
	if (offset != NULL)
		*offset = at;
	return fd;
}

QUARRY_API quarry_arena *quarry_arena_of_node(int node)
{
	quarry_arena *arena;

	qy_init_once();
	arena = qy_arena_of_node(node);
	if (arena == NULL)
		qy_fail(errno, errno == EINVAL ? "node: there is no node %d" : "no memory for the arena of node %d",
			node);
	return arena;
}

QUARRY_API quarry_arena *quarry_thread_arena(void)
{
	return qy_arena_chosen();
}

QUARRY_API int quarry_thread_set_arena(quarry_arena *arena, quarry_arena **previous)
{
	quarry_arena *was = qy_arena_chosen();

	if (qy_fail_inside())
		return -1;
	if (qy_arena_choose(arena) != 0)
		return errno == EINVAL ? qy_fail_arena(arena) : qy_fail(errno, "no memory");
	if (previous != NULL)
		*previous = was;
	return 0;
}

QUARRY_API const char *quarry_arena_name(const quarry_arena *arena)
{
	const char *name = qy_arena_name(arena);

	return name == NULL ? "" : name;
}

QUARRY_API int quarry_arena_set_limits(quarry_arena *arena, uint64_t hard_limit, uint64_t soft_limit)
{
	if (!are_limits(hard_limit, soft_limit))
		return fail_limits(hard_limit, soft_limit);
	return qy_arena_limit(arena, hard_limit, soft_limit) == 0 ? 0 : qy_fail_arena(arena);
}

QUARRY_API int quarry_arena_set_decay(quarry_arena *arena, long decay_ms)
{
	if (!is_decay(decay_ms))
		return qy_fail(EINVAL, OUTSIDE_DECAY, decay_ms, QUARRY_DECAY_DEFAULT, DECAY_MAX);
	return qy_arena_set_decay(arena, decay_ms) == 0 ? 0 : qy_fail_arena(arena);
}

QUARRY_API int quarry_arena_move(quarry_arena *arena, const quarry_nodeset *nodes, quarry_move_report *report)
{
	static const quarry_nodeset none;

	qy_init_once();
	if (qy_fail_inside())
		return -1;
	if (report != NULL && (report->struct_size < sizeof(*report) || report->struct_size > 4096)) {
		qy_fail(EINVAL, "struct_size: %d is not the size of any quarry_move_report", (int)report->struct_size);
		return -1;
	}
	if (nodes != NULL && memcmp(nodes, &none, sizeof(none)) == 0) {
		qy_fail(EINVAL, "nodes: the set is empty");
		return -1;
	}
	if (nodes != NULL && qy_arena_unusable_node(nodes) >= 0) {
		qy_fail(EINVAL, "nodes: node %d is not there, has no memory or is not allowed",
			qy_arena_unusable_node(nodes));
		return -1;
	}
	if (qy_arena_move(arena, nodes, report) == 0)
		return 0;
	qy_fail(errno, errno == EAGAIN   ? "some of it could not be moved yet"
		       : errno == EINVAL ? "arena: there is no such arena, or it ended meanwhile"
		       : errno == ENOMEM ? "no memory for another placement"
					 : "the kernel refuses to place or to move memory");
	return -1;
}

QUARRY_API int quarry_thread_rebind(int node)
{
	if (qy_fail_inside())
		return -1;
	if (qy_thread_rebind(node) == 0)
		return 0;
	return qy_fail(errno, errno == EINVAL ? "node: %d is none that may be used" : "no memory for node %d", node);
}

QUARRY_API void quarry_thread_flush(void)
{
	if (!qy_fail_inside())
		qy_arena_flush_thread();
}

QUARRY_API size_t quarry_purge(quarry_arena *arena)
{
	qy_init_once();
	return qy_fail_inside() ? 0 : qy_arena_purge(arena);
}

QUARRY_API int64_t quarry_tend(void)
{
	int error = errno;
	int64_t ms;

	qy_init_once();
	ms = qy_thread_tend();
	errno = error;
	return ms;
}

QUARRY_API size_t quarry_arenas(quarry_arena **list, size_t max)
{
	return qy_arena_list(list, max);
}
