/* SPDX-License-Identifier: MIT */
#include "lib/api/figures.h"

#include <string.h>

#define FIGURE(field) { #field, offsetof(quarry_stats, field) }

static const struct qy_figure figures[] = {
	FIGURE(arenas),	     FIGURE(regions),	   FIGURE(mapped),	 FIGURE(peak_mapped),
	FIGURE(resident),    FIGURE(in_use),	   FIGURE(large),	 FIGURE(cached),
	FIGURE(free_dirty),  FIGURE(free_clean),   FIGURE(metadata),	 FIGURE(unplaced),
	FIGURE(hard_limit),  FIGURE(soft_limit),   FIGURE(refills),	 FIGURE(remote_frees),
	FIGURE(node_moves),  FIGURE(purges),	   FIGURE(purged),	 FIGURE(passes),
	FIGURE(adopted),     FIGURE(bad_frees),	   FIGURE(threads),	 FIGURE(reclaimer),
	FIGURE(placed_less), FIGURE(strayed),	   FIGURE(brought_home), FIGURE(moved),
	FIGURE(idle_given_up), FIGURE(idle_refused), FIGURE(collapsed),
	FIGURE(collapse_failed), FIGURE(split), FIGURE(advised_apart), FIGURE(mixed), FIGURE(decay),
	FIGURE(reclaimed_by), FIGURE(in_files), FIGURE(pass_ns), FIGURE(collapse_ns), FIGURE(purge_ns),
	FIGURE(minor_faults), FIGURE(major_faults),
};

#define FIGURES ((int)(sizeof(figures) / sizeof(figures[0])))

/* Every uint64_t of the struct is a figure here or in one of the three arrays: a new field must get its line. */
_Static_assert(sizeof(quarry_stats) ==
		       offsetof(quarry_stats, arenas) +
			       (FIGURES + 2 * QY_PAGE_KINDS + QUARRY_REFUSED_COUNT) * sizeof(uint64_t),
	       "a field of quarry_stats has no line in figures[]");

static const char *const kinds[QY_PAGE_KINDS] = { "auto", "base", "thp", "2m", "1g" };

/* By enum quarry_refusal. */
static const char *const refusals[] = {
	[QUARRY_REFUSED_MBIND_EPERM] = "mbind-eperm",
	[QUARRY_REFUSED_MBIND_ENOSYS] = "mbind-enosys",
	[QUARRY_REFUSED_MBIND_EINVAL] = "mbind-einval",
	[QUARRY_REFUSED_MBIND_OTHER] = "mbind-other",
	[QUARRY_REFUSED_HUGE_1G] = "huge-1g",
	[QUARRY_REFUSED_HUGE_2M] = "huge-2m",
	[QUARRY_REFUSED_THP] = "thp",
	[QUARRY_REFUSED_POPULATE] = "populate",
	[QUARRY_REFUSED_MAP] = "map",
	[QUARRY_REFUSED_LIMIT] = "limit",
	[QUARRY_REFUSED_MOVE_PAGES] = "move-pages",
	[QUARRY_REFUSED_RSEQ] = "rseq",
	[QUARRY_REFUSED_LOCK] = "lock",
	[QUARRY_REFUSED_THREAD] = "thread",
	[QUARRY_REFUSED_MEMBARRIER] = "membarrier",
	[QUARRY_REFUSED_PURGE] = "purge",
	[QUARRY_REFUSED_WINDOW] = "window",
	[QUARRY_REFUSED_CGROUP] = "cgroup",
	[QUARRY_REFUSED_NODE_FULL] = "node-full",
	[QUARRY_REFUSED_MOVE] = "move",
	[QUARRY_REFUSED_FORK] = "fork",
	[QUARRY_REFUSED_HUGE_CGROUP] = "huge-cgroup",
	[QUARRY_REFUSED_BREAKER] = "breaker",
	[QUARRY_REFUSED_TIMER] = "timer",
	[QUARRY_REFUSED_FD] = "fd",
	[QUARRY_REFUSED_PUBLISH] = "publish",
};

#define REFUSALS ((int)(sizeof(refusals) / sizeof(refusals[0])))

const char *quarry_refusal_name(int refusal)
{
	return refusal >= 0 && refusal < REFUSALS ? refusals[refusal] : NULL;
}

const struct qy_figure *qy_figure(int index)
{
	return index >= 0 && index < FIGURES ? &figures[index] : NULL;
}

uint64_t qy_figure_value(const struct qy_figure *figure, const quarry_stats *stats)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + figure->offset, sizeof(value));
	return value;
}

/* A program that was built when the struct was shorter, and had so many refusals. */
#define OLDER_REFUSALS 24

void qy_stats_as(quarry_stats *older, const quarry_stats *stats)
{
	const size_t refused = offsetof(quarry_stats, refused) + OLDER_REFUSALS * sizeof(older->refused[0]);
	const size_t behind = offsetof(quarry_stats, idle_given_up) - offsetof(quarry_stats, placed_less);
	uint32_t version = older->version;

	memcpy(older, stats,
	       version >= 4 ? sizeof(*stats) : version == 3 ? offsetof(quarry_stats, pass_ns) : refused);
	if (version == 2)
		memcpy((char *)older + refused, &stats->placed_less, behind);
	older->version = version;
}

const char *qy_page_kind_name(int kind)
{
	return kind >= 0 && kind < QY_PAGE_KINDS ? kinds[kind] : "?";
}

static bool find_kind(const uint64_t by_kind[QY_PAGE_KINDS], const char *name, uint64_t *value)
{
	for (int kind = 0; kind < QY_PAGE_KINDS; kind++) {
		if (strcmp(name, kinds[kind]) == 0) {
			*value = by_kind[kind];
			return true;
		}
	}
	return false;
}

static bool find_refusal(const quarry_stats *stats, const char *name, uint64_t *value)
{
	for (int i = 0; i < REFUSALS; i++) {
		if (strcmp(name, refusals[i]) == 0) {
			*value = stats->refused[i];
			return true;
		}
	}
	return false;
}

bool qy_figure_find(const quarry_stats *stats, const char *name, uint64_t *value)
{
	if (strncmp(name, "kind_wanted.", 12) == 0)
		return find_kind(stats->kind_wanted, name + 12, value);
	if (strncmp(name, "kind_got.", 9) == 0)
		return find_kind(stats->kind_got, name + 9, value);
	if (strncmp(name, "refused.", 8) == 0)
		return find_refusal(stats, name + 8, value);
	for (int i = 0; i < FIGURES; i++) {
		if (strcmp(name, figures[i].name) == 0) {
			*value = qy_figure_value(&figures[i], stats);
			return true;
		}
	}
	return false;
}
