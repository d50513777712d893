/* SPDX-License-Identifier: MIT */
#include "lib/view/print.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/view/health.h"
#include "lib/view/lanes.h"
#include "numa/os.h"
#include "numa/topology.h"

#define NAME_WIDTH 26

bool qy_print_arena_stats(quarry_arena *arena, quarry_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	stats->version = QUARRY_STATS_VERSION;
	return quarry_stats_get(arena, stats) == 0;
}

bool qy_arena_list_stats(const struct qy_arena_list *list, size_t i, quarry_stats *stats)
{
	return list->counts != NULL ? qy_arena_counts_stats(list->counts, list->at[i], stats) :
				      qy_print_arena_stats(list->at[i], stats);
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void text_amount(struct qy_text *out, const char *name, uint64_t bytes)
{
	size_t before;

	qy_text_format(out, "  %-9s  ", name);
	before = out->total;
	qy_text_bytes(out, bytes);
	qy_text_format(out, "%*s", (int)(before + 12 - out->total), "");
}

/* Parts of the whole in tenths of a percent, without overflow: both are sums of mappings, far under 2^54. */
static unsigned per_mille(uint64_t part, uint64_t whole)
{
	return whole && part < UINT64_MAX / 1000 ? (unsigned)(part * 1000 / whole) : 0;
}

static void text_totals(struct qy_text *out, const quarry_stats *t)
{
	unsigned share = per_mille(t->metadata, t->mapped);

	qy_text_format(out, "quarry %s: %llu arena%s, %llu region%s, %llu thread%s\n", quarry_version_string(),
		       (unsigned long long)t->arenas, plural(t->arenas), (unsigned long long)t->regions,
		       plural(t->regions), (unsigned long long)t->threads, plural(t->threads));
	text_amount(out, "mapped", t->mapped);
	qy_text_format(out, "at most ");
	qy_text_bytes(out, t->peak_mapped);
	qy_text_format(out, " so far\n");
	text_amount(out, "resident", t->resident);
	qy_text_format(out, "of what is mapped\n");
	text_amount(out, "in use", t->in_use);
	qy_text_bytes(out, t->large);
	qy_text_format(out, " of it in large blocks\n");
	text_amount(out, "cached", t->cached);
	qy_text_format(out, "free, held by threads\n");
	text_amount(out, "free", t->free_dirty + t->free_clean);
	qy_text_bytes(out, t->free_dirty);
	qy_text_format(out, " of it still in memory\n");
	text_amount(out, "metadata", t->metadata);
	qy_text_format(out, "%u.%u %% of what is mapped\n", share / 10, share % 10);
	if (t->unplaced) {
		text_amount(out, "unplaced", t->unplaced);
		qy_text_format(out, "the kernel refused the policy: first touch decides\n");
	}
	if (t->placed_less) {
		text_amount(out, "placed", t->placed_less);
		qy_text_format(out, "by an older policy: this kernel lacks the one asked for\n");
	}
	if (t->strayed) {
		text_amount(out, "strayed", t->strayed);
		qy_text_format(out, "on other nodes than was asked for, at the last look\n");
	}
}

static void text_kinds(struct qy_text *out, const quarry_stats *t)
{
	static const char *const what[QY_PAGE_KINDS] = { "(left to quarry)", "base pages", "transparent huge",
							  "hugetlb, 2 MiB", "hugetlb, 1 GiB" };

	qy_text_format(out, "\npages      wanted  got\n");
	for (int kind = 0; kind < QY_PAGE_KINDS; kind++) {
		if (!t->kind_wanted[kind] && !t->kind_got[kind])
			continue;
		qy_text_format(out, "  %-8s  ", qy_page_kind_name(kind));
		qy_text_bytes_short(out, t->kind_wanted[kind], 5);
		qy_text_put(out, "  ", 2);
		qy_text_bytes_short(out, t->kind_got[kind], 5);
		qy_text_format(out, "  %s\n", what[kind]);
	}
}

static void text_event(struct qy_text *out, const char *name, uint64_t count, const char *what)
{
	qy_text_format(out, "  %-13s %12llu  %s\n", name, (unsigned long long)count, what);
}

static const char *way_of(const quarry_stats *t)
{
	switch (t->reclaimed_by) {
	case QUARRY_RECLAIMER_THREAD: return "of the reclaimer, whose thread is running";
	case QUARRY_RECLAIMER_TIMER: return "of the reclaimer, by a timer's signal";
	case QUARRY_RECLAIMER_TENDED: return "of the reclaimer, by the program's calls";
	case QUARRY_RECLAIMER_SERIES: return "of the reclaimer, by threads in passing";
	default: return "of the reclaimer, which is off";
	}
}

static void text_events(struct qy_text *out, const quarry_stats *t)
{
	qy_text_format(out, "\nsince the start\n");
	text_event(out, "refills", t->refills, "times a thread's cache went to its manager");
	text_event(out, "remote frees", t->remote_frees, "objects that went home to another's slab");
	text_event(out, "node moves", t->node_moves, "times a thread was found on another node");
	text_event(out, "passes", t->passes, way_of(t));
	text_event(out, "purges", t->purges, "times memory was given back");
	qy_text_format(out, "  %-13s ", "purged");
	qy_text_bytes_short(out, t->purged, 12);
	qy_text_format(out, "  bytes given back\n");
	if (t->brought_home || t->moved) {
		qy_text_format(out, "  %-13s ", "brought home");
		qy_text_bytes_short(out, t->brought_home, 12);
		qy_text_format(out, "  bytes that had strayed\n  %-13s ", "moved");
		qy_text_bytes_short(out, t->moved, 12);
		qy_text_format(out, "  bytes, by quarry_arena_move\n");
	}
	text_event(out, "adopted", t->adopted, "slabs taken over from dead threads");
	text_event(out, "idle", t->idle_given_up, "times that what a sleeping thread held went back");
	if (t->idle_refused)
		text_event(out, "left idle", t->idle_refused,
			   "times that could not be: it woke up, or handled a signal");
	text_event(out, "collapsed", t->collapsed, "huge pages made of dense memory");
	if (t->collapse_failed)
		text_event(out, "not collapsed", t->collapse_failed, "times that the kernel would not");
	if (t->mixed) {
		qy_text_format(out, "  %-13s ", "mixed");
		qy_text_bytes_short(out, t->mixed, 12);
		qy_text_format(out, "  of slabs with objects of other sizes in their gaps, now\n");
	}
	text_event(out, "split", t->split, "huge pages of which a part went back");
	text_event(out, "bad frees", t->bad_frees,
		   t->bad_frees ? "of what was not live: on_error=report says where" : "of what was not live");
}

/* A name on one line of a table: what a terminal would take for a command is shown as '?'. */
static void text_name(struct qy_text *out, const char *name, size_t n)
{
	char cell[NAME_WIDTH];
	bool cut = n > sizeof(cell);
	size_t keep = cut ? sizeof(cell) - 1 : n;

	while (cut && keep > 0 && (name[keep] & 0xc0) == 0x80) /* not in the middle of a character */
		keep--;
	for (size_t i = 0; i < keep; i++)
		cell[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
	if (cut)
		cell[keep++] = '~';
	qy_text_format(out, "%-*.*s", NAME_WIDTH, (int)keep, cell);
}

static void text_arena(struct qy_text *out, const quarry_stats *s)
{
	const uint64_t *got = s->kind_got;
	const uint64_t columns[] = { s->mapped, s->resident, s->in_use, s->cached, s->free_dirty + s->free_clean,
				     got[QUARRY_PAGES_THP] + got[QUARRY_PAGES_2M] + got[QUARRY_PAGES_1G] };
	size_t n = strnlen(s->name, sizeof(s->name));

	text_name(out, n ? s->name : "(no name)", n ? n : strlen("(no name)"));
	if (s->node >= 0)
		qy_text_format(out, "%5d", s->node);
	else
		qy_text_format(out, "%5s", "-");
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
		qy_text_bytes_short(out, columns[i], 8);
	qy_text_put(out, "\n", 1);
}

static void text_arenas(struct qy_text *out, const struct qy_arena_list *list)
{
	unsigned long long empty = 0;

	qy_text_format(out, "\n%-*s%5s%8s%8s%8s%8s%8s%8s\n", NAME_WIDTH, "arena", "node", "mapped", "resid.", "in use",
		       "cached", "free", "huge");
	for (size_t i = 0; i < list->count; i++) {
		quarry_stats stats;
		if (!qy_arena_list_stats(list, i, &stats))
			continue;
		if (stats.mapped)
			text_arena(out, &stats);
		else
			empty++;
	}
	if (empty)
		qy_text_format(out, "and %llu empty one%s\n", empty, plural(empty));
	if (list->missing)
		qy_text_format(out, "and %zu for whose list there was no memory\n", list->missing);
}

/* A line per node that has memory of the arena, the name before the first. */
static void text_residencies(struct qy_text *out, quarry_arena *arena, const quarry_stats *stats)
{
	struct qy_residencies list;
	size_t n = strnlen(stats->name, sizeof(stats->name));

	if (!qy_residencies_get(&list, arena))
		return;
	for (size_t i = 0; i < list.count; i++) {
		const quarry_residency *r = &list.at[i];
		const uint64_t columns[] = { r->bytes, r->by_kind[QUARRY_PAGES_BASE], r->by_kind[QUARRY_PAGES_THP],
					     r->by_kind[QUARRY_PAGES_2M] + r->by_kind[QUARRY_PAGES_1G],
					     r->by_kind[QUARRY_PAGES_AUTO], r->strayed };

		if (i > 0)
			text_name(out, "", 0);
		else
			text_name(out, n ? stats->name : "(no name)", n ? n : strlen("(no name)"));
		if (r->node >= 0)
			qy_text_format(out, "%5d", r->node);
		else
			qy_text_format(out, "%5s", "?");
		for (size_t c = 0; c < sizeof(columns) / sizeof(columns[0]); c++)
			qy_text_bytes_short(out, columns[c], 8);
		qy_text_put(out, "\n", 1);
	}
	qy_residencies_put(&list);
}

/* Where the kernel has it; on one node there is nothing to tell. */
static void text_nodes(struct qy_text *out, const struct qy_arena_list *list)
{
	if (qy_node_count() < 2)
		return;
	qy_text_format(out, "\n%-*s%5s%8s%8s%8s%8s%8s%8s\n", NAME_WIDTH, "in memory on nodes", "node", "bytes", "base",
		       "thp", "hugetlb", "untold", "strayed");
	for (size_t i = 0; i < list->count; i++) {
		quarry_stats stats;
		if (qy_arena_list_stats(list, i, &stats) && stats.mapped)
			text_residencies(out, list->at[i], &stats);
	}
}

void qy_print_text(struct qy_text *out, const quarry_stats *total, const struct qy_arena_list *list)
{
	text_totals(out, total);
	text_kinds(out, total);
	text_events(out, total);
	qy_refusals_print(out, total);
	qy_health_print(out);
	text_arenas(out, list);
	text_nodes(out, list);
	qy_lanes_print_text(out);
}

void qy_arena_list_get(struct qy_arena_list *list)
{
	size_t room = sizeof(list->few) / sizeof(list->few[0]);
	size_t there = quarry_arenas(list->few, room);

	list->at = list->few;
	list->mapped = 0;
	if (there > room) {
		/* Some more, for those that are made meanwhile. */
		size_t size = qy_align_up((there + 64) * sizeof(quarry_arena *), qy_os_page_size());
		void *p = qy_os->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED) {
			list->at = p;
			list->mapped = size;
			room = size / sizeof(quarry_arena *);
			there = quarry_arenas(list->at, room);
		}
	}
	list->count = qy_min(there, room);
	list->missing = there - list->count;
	list->counts = list->mapped ? qy_arena_counts_get(list) : NULL;
}

void qy_arena_list_put(struct qy_arena_list *list)
{
	if (list->mapped)
		qy_os->munmap(list->at, list->mapped);
	qy_arena_counts_put(list->counts);
	list->counts = NULL;
	list->at = NULL;
	list->count = list->mapped = 0;
}

int quarry_stats_print(int fd, int json)
{
	char buffer[QY_PRINT_BUFFER];
	struct qy_arena_list list;
	quarry_stats total;
	struct qy_text out;

	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	if (!qy_print_arena_stats(NULL, &total))
		return -1;
	qy_arena_list_get(&list);
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	if (json)
		qy_print_json(&out, &total, &list);
	else
		qy_print_text(&out, &total, &list);
	qy_arena_list_put(&list);
	return qy_text_flush(&out) == 0 ? 0 : qy_fail(errno, "fd: not all could be written to %d", fd);
}
