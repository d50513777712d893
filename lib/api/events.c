/* SPDX-License-Identifier: MIT */
/* Being told, and where large requests go. */
#include "lib/manager/events.h"

#include <errno.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/cache/arena.h"
#include "lib/manager/regions.h"

QUARRY_API int quarry_on_event(quarry_event_fn *fn, void *ctx)
{
	qy_init_once();
	qy_events_listen(fn, ctx);
	return 0;
}

QUARRY_API int quarry_on_region(quarry_region_fn *fn, void *ctx, unsigned kinds)
{
	qy_init_once();
	if (qy_regions_listen(fn, ctx, kinds) == 0)
		return 0;
	return qy_fail(errno, errno == EINVAL   ? fn == NULL ? "fn: it is NULL" : "kinds: unknown bits"
			      : errno == ENOENT ? "fn: nothing is told to it with this ctx"
						: "fn: 16 functions are told already");
}

QUARRY_API int quarry_breaker_redirect(quarry_arena *arena)
{
	qy_init_once();
	if (qy_arena_redirect(arena) == 0)
		return 0;
	return qy_fail(errno, errno == EINVAL ? "arena: there is no such arena" : "no memory");
}

/* (Here and not in error.c, which options and figures use with nothing of managers beside them.) */
bool qy_fail_inside(void)
{
	if (QY_LIKELY(!qy_regions_telling()))
		return false;
	(void)qy_fail(EDEADLK, "called from inside a function of quarry_on_region");
	return true;
}
