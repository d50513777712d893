/* SPDX-License-Identifier: MIT */
#include "lib/view/gather.h"

#include <string.h>

#include "lib/api/figures.h"
#include "lib/api/sources.h"
#include "lib/view/history.h"
#include "lib/view/print.h"
#include "numa/os.h"

#define HEALTH_OFFSET qy_align_up(sizeof(quarry_published), 16)
#define TOTAL_OFFSET qy_align_up(HEALTH_OFFSET + sizeof(quarry_health_report), 16)
#define HISTORY_OFFSET qy_align_up(TOTAL_OFFSET + sizeof(quarry_stats), 16)
#define PROFILE_OFFSET qy_align_up(HISTORY_OFFSET + QY_HISTORY_SAMPLES * sizeof(quarry_sample), 16)
#define LANES_OFFSET qy_align_up(PROFILE_OFFSET + sizeof(quarry_profile_report), 16)
/* Of lanes only as much as there is, and no room: so arenas stand where that ends, here at the latest. */
#define LANES_ROOM (QUARRY_PUBLISHED_LANES * sizeof(quarry_lanes_figures) + \
		    QUARRY_PUBLISHED_PARTS * sizeof(quarry_lanes_part) + 16)

/* Counts of the process. One that is read while it goes from a thread to its arena, or from an arena to what is past,
 * is missing for a moment; who asked before has seen it. */
static const size_t counts[] = {
	offsetof(quarry_stats, refills),       offsetof(quarry_stats, remote_frees),  offsetof(quarry_stats, node_moves),
	offsetof(quarry_stats, purges),	       offsetof(quarry_stats, purged),	      offsetof(quarry_stats, passes),
	offsetof(quarry_stats, adopted),       offsetof(quarry_stats, bad_frees),     offsetof(quarry_stats, brought_home),
	offsetof(quarry_stats, moved),	       offsetof(quarry_stats, idle_given_up), offsetof(quarry_stats, idle_refused),
	offsetof(quarry_stats, collapsed),     offsetof(quarry_stats, collapse_failed), offsetof(quarry_stats, split),
	offsetof(quarry_stats, pass_ns),       offsetof(quarry_stats, collapse_ns),   offsetof(quarry_stats, purge_ns),
	offsetof(quarry_stats, minor_faults),  offsetof(quarry_stats, major_faults),
};

#define COUNTS (sizeof(counts) / sizeof(counts[0]))

static _Atomic(uint64_t) told[COUNTS];

/* A child is another process, whose page faults begin anew. */
void qy_gather_after_fork(void)
{
	for (size_t i = 0; i < COUNTS; i++)
		atomic_store_explicit(&told[i], 0, memory_order_relaxed);
}

static void never_fall(quarry_stats *total)
{
	for (size_t i = 0; i < COUNTS; i++) {
		uint64_t *n = (void *)((char *)total + counts[i]);
		uint64_t before = atomic_load_explicit(&told[i], memory_order_relaxed);

		while (*n > before &&
		       !atomic_compare_exchange_weak_explicit(&told[i], &before, *n, memory_order_relaxed,
							      memory_order_relaxed))
			;
		*n = qy_max(*n, before);
	}
}

size_t qy_gather_size(size_t room)
{
	return qy_align_up(LANES_OFFSET + LANES_ROOM + room * sizeof(quarry_published_arena), qy_os_page_size());
}

size_t qy_gather_arenas(void)
{
	return quarry_arenas(NULL, 0);
}

static void gather_arenas(quarry_published *picture, size_t room)
{
	quarry_published_arena *at = (void *)((char *)picture + picture->arenas_offset);
	struct qy_arena_list list;
	size_t i;

	qy_arena_list_get(&list);
	for (i = 0; i < list.count && picture->arena_count < room; i++) {
		if (!qy_arena_list_stats(&list, i, &at->stats))
			continue;
		at->id = qy_arena_number(list.at[i]);
		at++;
		picture->arena_count++;
	}
	picture->arenas_left_out = (uint32_t)(list.count - i + list.missing);
	qy_arena_list_put(&list);
}

/* The largest parts of the first lanes, as there is room. */
static void gather_parts(quarry_published *picture, const struct qy_lanes_source *source, bool wait)
{
	const quarry_lanes_figures *lanes = (const void *)((const char *)picture + LANES_OFFSET);
	quarry_lanes_part *parts = (void *)((char *)picture + picture->parts_offset);

	for (uint32_t i = 0; i < picture->lanes_count; i++) {
		size_t room = (QUARRY_PUBLISHED_PARTS - picture->parts_count) / (picture->lanes_count - i);
		size_t there = source->parts(lanes[i].number, parts + picture->parts_count, room, wait);

		picture->parts_count += (uint32_t)qy_min(there, room);
		picture->parts_left_out += (uint32_t)(there - qy_min(there, room));
	}
}

static void gather_lanes(quarry_published *picture, bool wait)
{
	const struct qy_lanes_source *source = qy_lanes_source();
	size_t there = 0;

	if (source != NULL)
		there = source->lanes((void *)((char *)picture + LANES_OFFSET), QUARRY_PUBLISHED_LANES, wait);
	picture->lanes_count = (uint32_t)qy_min(there, QUARRY_PUBLISHED_LANES);
	picture->lanes_left_out = (uint32_t)there - picture->lanes_count;
	picture->lanes_offset = (uint32_t)LANES_OFFSET;
	picture->lanes_size = sizeof(quarry_lanes_figures);
	picture->part_size = sizeof(quarry_lanes_part);
	picture->parts_offset = (uint32_t)(LANES_OFFSET + picture->lanes_count * sizeof(quarry_lanes_figures));
	gather_parts(picture, source, wait);
	picture->arenas_offset = (uint32_t)qy_align_up(picture->parts_offset + picture->parts_count * sizeof(quarry_lanes_part), 16);
}

void *qy_gather_history(quarry_published *picture)
{
	return (char *)picture + HISTORY_OFFSET;
}

const quarry_stats *qy_gather_total(const quarry_published *picture)
{
	return (const void *)((const char *)picture + TOTAL_OFFSET);
}

size_t qy_gather(quarry_published *picture, size_t room, bool wait)
{
	quarry_health_report *health = (void *)((char *)picture + HEALTH_OFFSET);
	quarry_stats *total = (void *)((char *)picture + TOTAL_OFFSET);
	quarry_profile_report *profile = (void *)((char *)picture + PROFILE_OFFSET);

	*picture = (quarry_published){
		.magic = QUARRY_PUBLISHED_MAGIC,
		.version = QUARRY_PUBLISHED_VERSION,
		.head_size = sizeof(*picture),
		.size = qy_gather_size(room),
		.generation = 2,
		.time_ns = qy_os->now_ns(),
		.pid = qy_os->process_id(),
		.health_offset = (uint32_t)HEALTH_OFFSET,
		.health_size = sizeof(*health),
		.total_offset = (uint32_t)TOTAL_OFFSET,
		.total_size = sizeof(*total),
		.arena_size = sizeof(quarry_published_arena),
		.arena_room = (uint32_t)room,
		.history_offset = (uint32_t)HISTORY_OFFSET,
		.sample_size = sizeof(quarry_sample),
		.profile_offset = (uint32_t)PROFILE_OFFSET,
		.profile_size = sizeof(*profile),
	};
	memcpy(picture->sample_count, qy_history_counts, sizeof(picture->sample_count));
	strncpy(picture->library, quarry_version_string(), sizeof(picture->library) - 1);
	health->struct_size = sizeof(*health);
	(void)quarry_health(health);
	profile->struct_size = sizeof(*profile);
	(void)quarry_profile_report_get(profile);
	(void)qy_print_arena_stats(NULL, total);
	never_fall(total);
	gather_lanes(picture, wait);
	if (room > 0)
		gather_arenas(picture, room);
	picture->took_ns = qy_os->now_ns() - picture->time_ns;
	return picture->arenas_offset + picture->arena_count * sizeof(quarry_published_arena);
}
