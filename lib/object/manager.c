/* SPDX-License-Identifier: MIT */
/* Managers: quarry's own, as tables of operations, and the calls that go by any table. */
#include "lib/object/manager.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"
#include "lib/object/count.h"
#include "lib/object/own.h"

/* ---- the default one ---- */

static void *default_alloc(void *ctx, size_t size)
{
	(void)ctx;
	return quarry_malloc(size);
}

static void *default_aligned(void *ctx, size_t alignment, size_t size)
{
	(void)ctx;
	return quarry_aligned_alloc(alignment, size);
}

static void *default_resize(void *ctx, void *p, size_t size)
{
	(void)ctx;
	return quarry_realloc(p, size);
}

static int default_free(void *ctx, void *p)
{
	(void)ctx;
	return quarry_arena_free(NULL, p);
}

/* The first of what pools, slabs and page allocators hand out has its block's address. */
static size_t default_usable(void *ctx, const void *p)
{
	(void)ctx;
	return qy_taken_has(p) ? 0 : quarry_usable_size(p);
}

bool qy_manager_is_live(const void *p)
{
	quarry_inspection i;
	int error = errno;
	bool is = quarry_inspect(p, &i, sizeof(i)) == 0 && (i.kind == QUARRY_VIEW_OBJECT || i.kind == QUARRY_VIEW_BLOCK) &&
		  i.state != QUARRY_VIEW_FREE && i.state != QUARRY_VIEW_CACHED && !qy_taken_has(p);

	errno = error;
	return is;
}

static int default_owns(void *ctx, const void *p)
{
	(void)ctx;
	return quarry_usable_size(p) != 0 && qy_manager_is_live(p);
}

static int default_end(void *ctx)
{
	(void)ctx;
	return qy_fail(EPERM, "manager: the default one cannot be cleared or destroyed");
}

static int stats_of(quarry_arena *arena, quarry_manager_stats *stats)
{
	quarry_stats all = { .version = QUARRY_STATS_VERSION };

	if (quarry_stats_get(arena, &all) != 0)
		return -1;
	*stats = (quarry_manager_stats){ all.in_use, all.mapped, all.hard_limit };
	return 0;
}

static int default_stats(void *ctx, quarry_manager_stats *stats)
{
	(void)ctx;
	return stats_of(NULL, stats);
}

static const quarry_manager_ops default_ops = {
	.struct_size = sizeof(default_ops),
	.name = "default",
	.alloc = default_alloc,
	.alloc_aligned = default_aligned,
	.resize = default_resize,
	.free = default_free,
	.usable = default_usable,
	.owns = default_owns,
	.clear = default_end,
	.destroy = default_end,
	.stats = default_stats,
};

static quarry_manager default_manager = { &default_ops, NULL };

QUARRY_API quarry_manager *quarry_manager_default(void)
{
	return &default_manager;
}

/* ---- arenas ---- */

static void *arena_alloc(void *arena, size_t size)
{
	return quarry_arena_malloc(arena, size);
}

static void *arena_aligned(void *arena, size_t alignment, size_t size)
{
	return quarry_arena_aligned_alloc(arena, alignment, size);
}

static int arena_free(void *arena, void *p)
{
	return quarry_arena_free(arena, p);
}

/* (Also what was asked of it, and stands elsewhere: quarry_arena_free.) */
static bool is_in(const quarry_arena *arena, const void *p)
{
	int error = errno;
	bool is = qy_arena_has(arena, p);

	errno = error;
	return is;
}

/* (What is left of it is resized where it is, whoever asks: so who asks is looked at first.) */
static void *arena_resize(void *arena, void *p, size_t size)
{
	if (is_in(arena, p))
		return quarry_arena_realloc(arena, p, size);
	qy_fail(EINVAL, "p: %p is not of this arena", p);
	return NULL;
}

static int arena_owns(void *arena, const void *p)
{
	return is_in(arena, p) && qy_manager_is_live(p);
}

static size_t arena_usable(void *arena, const void *p)
{
	return is_in(arena, p) && !qy_taken_has(p) ? quarry_usable_size(p) : 0;
}

static int arena_clear(void *arena)
{
	return quarry_arena_reset(arena);
}

static int arena_destroy(void *arena)
{
	return quarry_arena_destroy(arena);
}

static int arena_stats(void *arena, quarry_manager_stats *stats)
{
	return stats_of(arena, stats);
}

static const quarry_manager_ops arena_ops = {
	.struct_size = sizeof(arena_ops),
	.name = "arena",
	.alloc = arena_alloc,
	.alloc_aligned = arena_aligned,
	.resize = arena_resize,
	.free = arena_free,
	.usable = arena_usable,
	.owns = arena_owns,
	.clear = arena_clear,
	.destroy = arena_destroy,
	.stats = arena_stats,
};

/* One for each address that an arena had, for good: lists that only grow, so that no lock is held over a fork. */
struct of_arena {
	quarry_manager manager;
	struct of_arena *next;
};

#define LISTS 256

static _Atomic(struct of_arena *) arenas[LISTS];

static _Atomic(struct of_arena *) *list_of(const quarry_arena *arena)
{
	return &arenas[(uint64_t)(uintptr_t)arena * 0x9e3779b97f4a7c15u >> 56];
}

static struct of_arena *find(struct of_arena *from, const struct of_arena *to, const quarry_arena *arena)
{
	while (from != to && from->manager.ctx != arena)
		from = from->next;
	return from == to ? NULL : from;
}

/* What has no name may be none: that is an error below. */
bool qy_manager_is_arena(const quarry_arena *arena)
{
	int error = errno;
	bool is;

	errno = 0;
	is = quarry_arena_name(arena)[0] != 0 || errno == 0;
	errno = error;
	return is;
}

QUARRY_API quarry_manager *quarry_manager_of_arena(quarry_arena *arena)
{
	_Atomic(struct of_arena *) *list = list_of(arena);
	struct of_arena *first, *seen = NULL, *known, *mine;

	if (arena == NULL)
		return &default_manager;
	if (!qy_manager_is_arena(arena)) {
		qy_fail_arena(arena);
		return NULL;
	}
	first = atomic_load_explicit(list, memory_order_acquire);
	known = find(first, NULL, arena);
	if (known != NULL)
		return &known->manager;
	mine = qy_own_calloc(1, sizeof(*mine));
	if (mine == NULL)
		return NULL;
	mine->manager = (quarry_manager){ &arena_ops, arena };
	do {
		known = find(first, seen, arena);
		if (known != NULL) {
			quarry_free(mine);
			return &known->manager;
		}
		seen = mine->next = first;
	} while (!atomic_compare_exchange_weak_explicit(list, &first, mine, memory_order_acq_rel, memory_order_acquire));
	return &mine->manager;
}

/* ---- any ---- */

/* What a program's table must have, whatever it was built with. What stands behind its end, in a program that knew fewer
 * operations, is not there. */
#define OPS_LEAST (offsetof(quarry_manager_ops, usable) + sizeof(((quarry_manager_ops *)0)->usable))
#define OP(m, name)                                                                                              \
	((m)->ops->struct_size >= offsetof(quarry_manager_ops, name) + sizeof((m)->ops->name) ? (m)->ops->name : NULL)

bool qy_manager_check(const quarry_manager *manager)
{
	const quarry_manager_ops *ops = manager == NULL ? &default_ops : manager->ops;

	if (QY_LIKELY(ops != NULL && ops->struct_size >= OPS_LEAST && ops->alloc != NULL && ops->free != NULL &&
		      ops->usable != NULL))
		return true;
	qy_fail(EINVAL, ops == NULL ? "manager: it has no operations"
			: ops->struct_size < OPS_LEAST ? "manager: struct_size is not that of quarry_manager_ops"
						       : "manager: alloc, free or usable is not there");
	return false;
}

bool qy_manager_is_own(const quarry_manager *manager)
{
	return manager == NULL || manager->ops == &default_ops || manager->ops == &arena_ops;
}

quarry_arena *qy_manager_arena(const quarry_manager *manager)
{
	return manager != NULL && manager->ops == &arena_ops ? manager->ctx : NULL;
}

/* The one that is meant; NULL where it cannot be used. */
static const quarry_manager *meant(const quarry_manager *manager)
{
	if (!qy_manager_check(manager))
		return NULL;
	return manager == NULL ? &default_manager : manager;
}

static int lacks(const char *what)
{
	return qy_fail(ENOTSUP, "manager: it has no operation %s", what);
}

/* So that no operation of a program's need mind its sums' overflow. */
static bool is_too_much(size_t size)
{
	if (QY_LIKELY(size <= PTRDIFF_MAX))
		return false;
	qy_fail(ENOMEM, "size: %zu bytes are more than there can be", size);
	return true;
}

QUARRY_API void *quarry_manager_alloc(quarry_manager *manager, size_t size)
{
	const quarry_manager *m = meant(manager);

	return m == NULL || is_too_much(size) ? NULL : m->ops->alloc(m->ctx, size);
}

QUARRY_API void *quarry_manager_alloc_aligned(quarry_manager *manager, size_t alignment, size_t size)
{
	const quarry_manager *m = meant(manager);

	if (m == NULL)
		return NULL;
	if (!qy_is_pow2(alignment)) {
		qy_fail(EINVAL, "alignment: %zu is not a power of two", alignment);
		return NULL;
	}
	if (is_too_much(size))
		return NULL;
	if (m->ops->alloc_aligned != NULL)
		return m->ops->alloc_aligned(m->ctx, alignment, size);
	if (alignment <= 16)
		return m->ops->alloc(m->ctx, size);
	lacks("alloc_aligned");
	return NULL;
}

static void *resize_by_copy(const quarry_manager *m, void *p, size_t size)
{
	size_t usable = m->ops->usable(m->ctx, p);
	int error;
	void *to;

	if (size <= usable && size >= usable / 2)
		return p;
	to = m->ops->alloc(m->ctx, size);
	if (to == NULL)
		return NULL;
	memcpy(to, p, qy_min(usable, size));
	if (m->ops->free(m->ctx, p) == 0)
		return to;
	/* It is not its own. */
	error = errno;
	(void)m->ops->free(m->ctx, to);
	errno = error;
	return NULL;
}

/* What is counted goes by its references, and not from below them. */
static bool is_counted(const quarry_manager *m, const void *p)
{
	if (QY_LIKELY(!qy_manager_is_own(m) || !qy_count_is_held(p)))
		return false;
	qy_fail(EBUSY, "p: what is at %p is a block with references", p);
	return true;
}

QUARRY_API void *quarry_manager_resize(quarry_manager *manager, void *p, size_t size)
{
	const quarry_manager *m = meant(manager);

	if (m == NULL)
		return NULL;
	if ((p != NULL && is_counted(m, p)) || is_too_much(size))
		return NULL;
	if (p == NULL)
		return m->ops->alloc(m->ctx, size);
	if (size == 0) {
		(void)m->ops->free(m->ctx, p);
		return NULL;
	}
	return m->ops->resize != NULL ? m->ops->resize(m->ctx, p, size) : resize_by_copy(m, p, size);
}

QUARRY_API int quarry_manager_free(quarry_manager *manager, void *p)
{
	const quarry_manager *m = meant(manager);

	if (m == NULL || p == NULL)
		return m == NULL ? -1 : 0;
	return is_counted(m, p) ? -1 : m->ops->free(m->ctx, p);
}

QUARRY_API size_t quarry_manager_usable(quarry_manager *manager, const void *p)
{
	const quarry_manager *m = meant(manager);

	return m == NULL || p == NULL ? 0 : m->ops->usable(m->ctx, p);
}

QUARRY_API int quarry_manager_owns(quarry_manager *manager, const void *p)
{
	const quarry_manager *m = meant(manager);

	return m == NULL ? -1 : OP(m, owns) == NULL ? lacks("owns") : p != NULL && m->ops->owns(m->ctx, p);
}

QUARRY_API int quarry_manager_clear(quarry_manager *manager)
{
	const quarry_manager *m = meant(manager);

	return m == NULL ? -1 : OP(m, clear) == NULL ? lacks("clear") : m->ops->clear(m->ctx);
}

QUARRY_API int quarry_manager_destroy(quarry_manager *manager)
{
	const quarry_manager *m = meant(manager);

	return m == NULL ? -1 : OP(m, destroy) == NULL ? lacks("destroy") : m->ops->destroy(m->ctx);
}

QUARRY_API int quarry_manager_stats_get(quarry_manager *manager, quarry_manager_stats *stats)
{
	const quarry_manager *m = meant(manager);

	if (m == NULL)
		return -1;
	if (stats == NULL)
		return qy_fail(EINVAL, "stats: there is none");
	return OP(m, stats) == NULL ? lacks("stats") : m->ops->stats(m->ctx, stats);
}

QUARRY_API size_t quarry_manager_max_alloc(quarry_manager *manager)
{
	const quarry_manager *m = meant(manager);

	return m == NULL ? 0 : OP(m, max_alloc) == NULL ? PTRDIFF_MAX : m->ops->max_alloc(m->ctx);
}
