/* SPDX-License-Identifier: MIT */
/* A map from a dump of a view: what slabs and large blocks hold, on the nodes that were asked for, and each cell of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>

#include "tools/dump.h"
#include "tools/map.h"

static bool add_region(struct map *map, const struct dump_region *r)
{
	struct map_arena *arena = &map->arenas[r->arena];
	struct map_share *share;

	if (r->held == 0)
		return true;
	share = map_share_on(arena, r->node < 0 ? MAP_NODE_UNTOLD : r->node);
	if (!share)
		return false;
	share->bytes = map_add(share->bytes, r->held);
	share->by_kind[r->pages] = map_add(share->by_kind[r->pages], r->held);
	return true;
}

static bool fill(struct map *map, const struct dump *d)
{
	for (size_t i = 0; i < d->arena_count; i++) {
		struct map_arena *arena = map_add_arena(map);

		if (!arena || !(arena->name = strdup(d->arenas[i].name)))
			return false;
	}
	for (size_t i = 0; i < d->region_count; i++)
		if (!add_region(map, &d->regions[i]))
			return false;
	return map_finish(map);
}

int map_read_view(struct map *map, const char *name, const char *text, size_t length)
{
	struct dump d = { .cells = &map->cells };
	int status = dump_read(&d, "map", name, text, length);

	map->of = MAP_VIEW;
	if (status == STATUS_OK && !fill(map, &d))
		status = fail(STATUS_FAILED, "map: %s: %s", name, strerror(ENOMEM));
	if (status == STATUS_OK && !d.exact)
		snprintf(map->note, sizeof(map->note), "not exact: what some threads held free counts as live");
	dump_free(&d);
	return status;
}
