/* SPDX-License-Identifier: MIT */
/* Reading what a process has published, out of a copy. The bytes may be anybody's: an older or newer library's, cut
 * short, or made to do harm. So every offset and count is looked at before it is used, each record is copied as far
 * as both sides know it, and nothing is taken from the copy twice. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/figures.h"
#include "lib/base/base.h"
#include "lib/view/history.h"

#define LEAST_HEAD offsetof(quarry_published, history_offset) /* what the first version of the struct has */

/* As far as both know it; the rest is 0. */
static void copy_record(void *to, size_t size, const char *from, size_t theirs)
{
	memset(to, 0, size);
	memcpy(to, from, qy_min(size, theirs));
}

static bool lies_in(uint64_t offset, uint64_t bytes, uint64_t least, uint64_t size)
{
	return bytes >= least && offset >= LEAST_HEAD && offset <= size && bytes <= size - offset;
}

/* One that there is none of is sound. */
static bool history_is_sound(const quarry_published *h, size_t size)
{
	uint64_t samples = (uint64_t)h->sample_count[0] + h->sample_count[1] + h->sample_count[2];

	if (h->history_offset == 0)
		return true;
	return h->sample_size >= offsetof(quarry_sample, most_mapped) && samples <= size / h->sample_size &&
	       lies_in(h->history_offset, samples * h->sample_size, 0, size);
}

static bool profile_is_sound(const quarry_published *h, size_t size)
{
	return h->profile_offset == 0 || lies_in(h->profile_offset, h->profile_size, sizeof(uint32_t), size);
}

static bool lanes_are_sound(const quarry_published *h, size_t size)
{
	return h->lanes_offset == 0 ||
	       (h->lanes_size >= offsetof(quarry_lanes_figures, objects) && h->part_size >= offsetof(quarry_lanes_part, size) &&
		lies_in(h->lanes_offset, (uint64_t)h->lanes_count * h->lanes_size, 0, size) &&
		lies_in(h->parts_offset, (uint64_t)h->parts_count * h->part_size, 0, size));
}

/* All products are of two numbers of 32 bits. */
static bool is_sound(const quarry_published *h, size_t size)
{
	return lies_in(h->health_offset, h->health_size, sizeof(uint32_t), size) &&
	       lies_in(h->total_offset, h->total_size, offsetof(quarry_stats, arenas), size) &&
	       h->arena_size >= offsetof(quarry_published_arena, stats) + offsetof(quarry_stats, arenas) &&
	       lies_in(h->arenas_offset, (uint64_t)h->arena_count * h->arena_size, 0, size) && history_is_sound(h, size) &&
	       profile_is_sound(h, size) && lanes_are_sound(h, size);
}

static int head_of(const void *copy, size_t size, quarry_published *h)
{
	if (copy == NULL || size < LEAST_HEAD)
		return qy_fail(EINVAL, "published: cut short: %zu bytes are no head", size);
	copy_record(h, sizeof(*h), copy, LEAST_HEAD);
	if (h->magic == 0 && h->generation == 0)
		return qy_fail(EAGAIN, "published: nothing yet");
	if (h->magic != QUARRY_PUBLISHED_MAGIC)
		return qy_fail(EINVAL, "published: not a page of quarry's");
	if (h->version != QUARRY_PUBLISHED_VERSION)
		return qy_fail(EINVAL, "published: of %s version, %u; this library knows %d",
			       h->version > QUARRY_PUBLISHED_VERSION ? "a newer" : "an older", h->version,
			       QUARRY_PUBLISHED_VERSION);
	if (h->generation == 0 || h->generation % 2 != 0)
		return qy_fail(EAGAIN, "published: %s", h->generation ? "it was being written" : "nothing yet");
	if (h->head_size > LEAST_HEAD)
		memcpy((char *)h + LEAST_HEAD, (const char *)copy + LEAST_HEAD,
		       qy_min(qy_min(sizeof(*h), (size_t)h->head_size), size) - LEAST_HEAD);
	if (h->head_size < LEAST_HEAD || !is_sound(h, size))
		return qy_fail(EINVAL, "published: cut short, or not sound: what it leads to is not in it");
	h->library[sizeof(h->library) - 1] = '\0';
	return 0;
}

/* ---- what the caller knows of it ---- */

static bool knows_version(const quarry_stats *stats)
{
	return stats->version >= 1 && stats->version <= QUARRY_STATS_VERSION;
}

static int no_version(void)
{
	return qy_fail(EINVAL, "stats: its version is not from 1 to %d", QUARRY_STATS_VERSION);
}

/* Our figures first: the writer's, the caller's and our struct may be three. */
static void give_stats(quarry_stats *stats, const char *from, size_t theirs)
{
	quarry_stats ours;

	copy_record(&ours, sizeof(ours), from, theirs);
	qy_stats_as(stats, &ours);
}

/* A report: size is what its struct_size said, which is its first field. */
static void give_report(void *report, uint32_t size, void *ours, size_t ours_size)
{
	const uint32_t both = (uint32_t)qy_min((size_t)size, ours_size);

	memcpy(ours, &both, sizeof(both));
	copy_record(report, size, ours, ours_size);
}

QUARRY_API int quarry_published_look(const void *copy, size_t size, quarry_published *head, size_t head_size,
				     quarry_health_report *health, quarry_stats *total)
{
	quarry_health_report ours;
	quarry_published h;

	if (head != NULL && head_size == 0)
		return qy_fail(EINVAL, "head_size: 0");
	if (health != NULL && health->struct_size < sizeof(health->struct_size))
		return qy_fail(EINVAL, "health: its struct_size is not set");
	if (total != NULL && !knows_version(total))
		return no_version();
	if (head_of(copy, size, &h) != 0)
		return -1;
	if (head != NULL)
		copy_record(head, head_size, (const char *)&h, sizeof(h));
	if (health != NULL) {
		copy_record(&ours, sizeof(ours), (const char *)copy + h.health_offset, h.health_size);
		give_report(health, health->struct_size, &ours, sizeof(ours));
	}
	if (total != NULL)
		give_stats(total, (const char *)copy + h.total_offset, h.total_size);
	return 0;
}

QUARRY_API int quarry_published_arena_get(const void *copy, size_t size, size_t index, quarry_published_arena *arena)
{
	quarry_published h;
	const char *at;

	if (arena == NULL)
		return qy_fail(EINVAL, "arena: NULL");
	if (!knows_version(&arena->stats))
		return no_version();
	if (head_of(copy, size, &h) != 0)
		return -1;
	if (index >= h.arena_count)
		return qy_fail(ERANGE, "index: %zu, of %u arenas", index, h.arena_count);
	at = (const char *)copy + h.arenas_offset + index * h.arena_size;
	memcpy(&arena->id, at, sizeof(arena->id));
	give_stats(&arena->stats, at + offsetof(quarry_published_arena, stats),
		   h.arena_size - offsetof(quarry_published_arena, stats));
	return 0;
}

QUARRY_API int quarry_published_profile(const void *copy, size_t copy_size, quarry_profile_report *report)
{
	quarry_profile_report ours;
	quarry_published h;

	if (report == NULL || report->struct_size < sizeof(report->struct_size))
		return qy_fail(EINVAL, "report: NULL, or its struct_size is not set");
	if (head_of(copy, copy_size, &h) != 0)
		return -1;
	if (h.profile_offset == 0)
		return qy_fail(ENODATA, "published: by a library that tells nothing of its profile");
	copy_record(&ours, sizeof(ours), (const char *)copy + h.profile_offset, h.profile_size);
	give_report(report, report->struct_size, &ours, sizeof(ours));
	return 0;
}

/* A record behind whose size the name is. */
static int no_record(size_t index, uint32_t count)
{
	return qy_fail(ERANGE, "index: %lu, of %u", (unsigned long)index, count);
}

QUARRY_API int quarry_published_lanes(const void *copy, size_t copy_size, size_t index, quarry_lanes_figures *figures)
{
	quarry_lanes_figures ours;
	quarry_published h;

	if (figures == NULL || figures->struct_size < sizeof(figures->struct_size))
		return qy_fail(EINVAL, "figures: NULL, or their struct_size is not set");
	if (head_of(copy, copy_size, &h) != 0)
		return -1;
	if (h.lanes_offset == 0 || index >= h.lanes_count)
		return no_record(index, h.lanes_offset == 0 ? 0 : h.lanes_count);
	copy_record(&ours, sizeof(ours), (const char *)copy + h.lanes_offset + index * h.lanes_size, h.lanes_size);
	ours.name[sizeof(ours.name) - 1] = '\0';
	give_report(figures, figures->struct_size, &ours, sizeof(ours));
	return 0;
}

QUARRY_API int quarry_published_lanes_part(const void *copy, size_t copy_size, size_t index, quarry_lanes_part *part)
{
	quarry_lanes_part ours;
	quarry_published h;

	if (part == NULL || part->struct_size < sizeof(part->struct_size))
		return qy_fail(EINVAL, "part: NULL, or its struct_size is not set");
	if (head_of(copy, copy_size, &h) != 0)
		return -1;
	if (h.lanes_offset == 0 || index >= h.parts_count)
		return no_record(index, h.lanes_offset == 0 ? 0 : h.parts_count);
	copy_record(&ours, sizeof(ours), (const char *)copy + h.parts_offset + index * h.part_size, h.part_size);
	ours.name[sizeof(ours.name) - 1] = '\0';
	give_report(part, part->struct_size, &ours, sizeof(ours));
	return 0;
}

QUARRY_API long quarry_published_history(const void *copy, size_t copy_size, int ring, quarry_sample *list, size_t max,
					 size_t size)
{
	struct qy_rings rings;
	quarry_published h;

	if (head_of(copy, copy_size, &h) != 0)
		return -1;
	if (h.history_offset == 0)
		memset(h.sample_count, 0, sizeof(h.sample_count));
	rings = (struct qy_rings){ (const char *)copy + h.history_offset, h.sample_size, h.sample_count };
	return qy_history_list(&rings, ring, list, max, size);
}
