/* SPDX-License-Identifier: MIT */
/* Metrics: a picture of all figures (gather.h) as OpenMetrics 1.0 text, or as the text format of Prometheus before it
 * (0.0.4), which is what node_exporter's textfile collector reads. One table has the names, units, types and helps of
 * what is a figure of quarry_stats. A picture may come from another process: nothing in it is trusted. */
#include "lib/view/metrics.h"

#include <string.h>

#include "lib/api/figures.h"
#include "lib/view/metrics_page.h"
#include "lib/view/print.h"
#include "numa/os.h"

/* Whose figure it is. */
enum scope { OF_ALL, OF_PROCESS, OF_ARENA };

static const struct family {
	size_t offset;
	const char *name, *unit; /* unit: "" for counts */
	bool counter;
	enum scope scope;
	const char *help;
} families[] = {
#define GAUGE(field, name, unit, scope, help) { offsetof(quarry_stats, field), name, unit, false, scope, help }
#define COUNT(field, name, unit, scope, help) { offsetof(quarry_stats, field), name, unit, true, scope, help }
	GAUGE(arenas, "arenas", "", OF_PROCESS, "Arenas there are, the default ones of nodes among them."),
	GAUGE(threads, "threads", "", OF_PROCESS, "Live threads that hold a cache."),
	GAUGE(reclaimer, "reclaimer_running", "", OF_PROCESS, "1 while the thread of the reclaimer runs."),
	GAUGE(regions, "regions", "", OF_ALL, "Runs of address space from the kernel."),
	GAUGE(mapped, "mapped_bytes", "bytes", OF_ALL, "Address space that can be touched."),
	GAUGE(peak_mapped, "mapped_peak_bytes", "bytes", OF_ALL, "The most that was mapped at a time."),
	GAUGE(resident, "resident_bytes", "bytes", OF_ALL, "What is in memory of what is mapped."),
	GAUGE(in_use, "in_use_bytes", "bytes", OF_ALL, "What the program has, and lists of threads hold ready."),
	GAUGE(large, "large_bytes", "bytes", OF_ALL, "Of what is in use: in large blocks."),
	GAUGE(cached, "cached_bytes", "bytes", OF_ALL, "Free, held by threads in their slabs."),
	GAUGE(free_dirty, "free_resident_bytes", "bytes", OF_ALL, "Free, and still in memory."),
	GAUGE(free_clean, "free_unbacked_bytes", "bytes", OF_ALL, "Free, and not in memory."),
	GAUGE(mixed, "mixed_slabs_bytes", "bytes", OF_ALL, "Slabs in whose gaps objects of other sizes stand."),
	GAUGE(in_files, "in_files_bytes", "bytes", OF_ALL, "Of what is mapped: with descriptors."),
	GAUGE(metadata, "metadata_bytes", "bytes", OF_PROCESS, "Memory for records, in no arena."),
	GAUGE(unplaced, "unplaced_bytes", "bytes", OF_ALL, "Mapped where the kernel refused the memory policy."),
	GAUGE(placed_less, "placed_less_bytes", "bytes", OF_ALL, "Mapped under an older policy than was asked for."),
	GAUGE(strayed, "strayed_bytes", "bytes", OF_ALL, "On another node than was asked for, at the last look."),
	GAUGE(advised_apart, "advised_apart_frames", "", OF_PROCESS,
	      "Frames of 2 MiB that the kernel was told otherwise of than of their regions."),
	GAUGE(hard_limit, "hard_limit_bytes", "bytes", OF_ARENA, "In use, beyond which requests fail; 0: none."),
	GAUGE(soft_limit, "soft_limit_bytes", "bytes", OF_ARENA, "From which nothing free is kept; 0: none."),
	COUNT(refills, "refills", "", OF_ALL, "Times that the cache of a thread went to its manager."),
	COUNT(remote_frees, "remote_frees", "", OF_ALL, "Objects that went home to the slab of another thread."),
	COUNT(adopted, "adopted_slabs", "", OF_ALL, "Slabs taken over from threads that ended or sleep."),
	COUNT(node_moves, "thread_node_moves", "", OF_PROCESS, "Times that a thread was found on another node."),
	COUNT(purges, "purges", "", OF_ALL, "Calls that gave memory back to the kernel."),
	COUNT(purged, "purged_bytes", "bytes", OF_ALL, "Memory so given back."),
	COUNT(brought_home, "brought_home_bytes", "bytes", OF_ALL, "Strayed memory that was moved to its node."),
	COUNT(moved, "moved_bytes", "bytes", OF_ALL, "Memory that quarry_arena_move has moved."),
	COUNT(collapsed, "collapsed_huge_pages", "", OF_ALL, "Huge pages made of dense base pages."),
	COUNT(collapse_failed, "collapse_failures", "", OF_ALL, "Times that the kernel would not make one."),
	COUNT(split, "split_huge_pages", "", OF_PROCESS, "Huge pages taken apart since a part went back."),
	COUNT(passes, "reclaimer_passes", "", OF_PROCESS, "Passes of the reclaimer."),
	COUNT(idle_given_up, "idle_threads_given_up", "", OF_PROCESS,
	      "Times that what a sleeping thread held went back."),
	COUNT(idle_refused, "idle_threads_refused", "", OF_PROCESS, "Times that it had to be left."),
	COUNT(bad_frees, "bad_frees", "", OF_PROCESS, "Mistakes noticed: foreign pointers, blocks freed twice."),
#undef GAUGE
#undef COUNT
};

#define FAMILIES (sizeof(families) / sizeof(families[0]))

static unsigned long long number(uint64_t n)
{
	return n;
}

/* ---- lines ---- */

/* The lines before a family's samples. In the older format a counter's family has its samples' name, and there are no
 * units. */
void qy_metrics_head(const struct qy_metrics_page *page, const char *of, const char *name, const char *unit, bool counter,
		 const char *help)
{
	const char *total = page->classic && counter ? "_total" : "";

	qy_text_format(page->out, "# HELP quarry_%s%s%s %s\n", of, name, total, help);
	qy_text_format(page->out, "# TYPE quarry_%s%s%s %s\n", of, name, total, counter ? "counter" : "gauge");
	if (!page->classic && *unit)
		qy_text_format(page->out, "# UNIT quarry_%s%s %s\n", of, name, unit);
}

static void name_of(const struct qy_metrics_page *page, const char *of, const char *name, bool counter)
{
	qy_text_format(page->out, "quarry_%s%s%s", of, name, counter ? "_total" : "");
}

static void value(const struct qy_metrics_page *page, uint64_t n)
{
	qy_text_format(page->out, " %llu\n", number(n));
}

/* Thousandths of a unit. */
static void value_milli(const struct qy_metrics_page *page, uint64_t n)
{
	qy_text_format(page->out, " %llu.%03llu\n", number(n / 1000), number(n % 1000));
}

/* A label's value is UTF-8, with \, " and line ends escaped. (Names are bytes that a program chose.) What a terminal
 * would take for a command is nothing that a label needs. */
void qy_metrics_label(struct qy_text *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t length = qy_utf8_length((const unsigned char *)text + i, n - i);

		if (text[i] == '\n')
			qy_text_format(out, "\\n");
		else if (length == 0 || (length == 1 && ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)) ||
			 (length == 2 && text[i] == '\xc2' && (unsigned char)text[i + 1] < 0xa0))
			qy_text_format(out, "\xef\xbf\xbd");
		else if (text[i] == '"' || text[i] == '\\')
			qy_text_format(out, "\\%c", text[i]);
		else
			qy_text_put(out, text + i, length);
		i += length ? length : 1;
	}
}

/* kind: NULL, or a page kind, whose label comes first. */
static void labels_of_arena(const struct qy_metrics_page *page, const quarry_published_arena *arena, const char *kind)
{
	const quarry_stats *stats = &arena->stats;

	qy_text_format(page->out, "{");
	if (kind != NULL)
		qy_text_format(page->out, "pages=\"%s\",", kind);
	qy_text_format(page->out, "arena=\"%llu\",name=\"", number(arena->id));
	qy_metrics_label(page->out, stats->name, strnlen(stats->name, sizeof(stats->name)));
	if (stats->node >= 0)
		qy_text_format(page->out, "\",node=\"%d", stats->node);
	qy_text_format(page->out, "\"}");
}

/* ---- families ---- */

static uint64_t figure_of(const struct family *family, const quarry_stats *stats)
{
	uint64_t n;

	memcpy(&n, (const char *)stats + family->offset, sizeof(n));
	return n;
}

static void print_by_arena(const struct qy_metrics_page *page, const struct family *family)
{
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };

	qy_metrics_head(page, "arena_", family->name, family->unit, family->counter, family->help);
	for (size_t i = 0; quarry_published_arena_get(page->picture, page->size, i, &arena) == 0; i++) {
		name_of(page, "arena_", family->name, family->counter);
		labels_of_arena(page, &arena, NULL);
		value(page, figure_of(family, &arena.stats));
	}
}

static void print_family(const struct qy_metrics_page *page, const struct family *family)
{
	if (family->scope != OF_ARENA) {
		qy_metrics_head(page, "", family->name, family->unit, family->counter, family->help);
		name_of(page, "", family->name, family->counter);
		value(page, figure_of(family, &page->total));
	}
	if (family->scope != OF_PROCESS && page->by_arena && page->head.arena_count > 0)
		print_by_arena(page, family);
}

static void print_kinds(const struct qy_metrics_page *page, const char *name, const uint64_t *by_kind, const char *help)
{
	qy_metrics_head(page, "", name, "bytes", false, help);
	for (int kind = 0; kind < QY_PAGE_KINDS; kind++) {
		name_of(page, "", name, false);
		qy_text_format(page->out, "{pages=\"%s\"}", qy_page_kind_name(kind));
		value(page, by_kind[kind]);
	}
}

static void print_kinds_by_arena(const struct qy_metrics_page *page, const char *name, size_t offset, const char *help)
{
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };

	qy_metrics_head(page, "arena_", name, "bytes", false, help);
	for (size_t i = 0; quarry_published_arena_get(page->picture, page->size, i, &arena) == 0; i++) {
		for (int kind = 0; kind < QY_PAGE_KINDS; kind++) {
			uint64_t n;

			memcpy(&n, (const char *)&arena.stats + offset + (size_t)kind * sizeof(n), sizeof(n));
			name_of(page, "arena_", name, false);
			labels_of_arena(page, &arena, qy_page_kind_name(kind));
			value(page, n);
		}
	}
}

static void print_pages(const struct qy_metrics_page *page)
{
	static const char wanted[] = "Mapped, by the page kind asked for.";
	static const char got[] = "Mapped, by the page kind that the kernel granted.";

	print_kinds(page, "pages_wanted_bytes", page->total.kind_wanted, wanted);
	print_kinds(page, "pages_got_bytes", page->total.kind_got, got);
	if (!page->by_arena || page->head.arena_count == 0)
		return;
	print_kinds_by_arena(page, "pages_wanted_bytes", offsetof(quarry_stats, kind_wanted), wanted);
	print_kinds_by_arena(page, "pages_got_bytes", offsetof(quarry_stats, kind_got), got);
}

static void print_refusals(const struct qy_metrics_page *page)
{
	const char *reason;

	qy_metrics_head(page, "", "refusals", "", true, "Times that something asked of the kernel, or of a limit, was not got.");
	for (int i = 0; (reason = quarry_refusal_name(i)) != NULL; i++) {
		qy_text_format(page->out, "quarry_refusals_total{reason=\"%s\"}", reason);
		value(page, page->total.refused[i]);
	}
}

static void print_one(const struct qy_metrics_page *page, const char *name, const char *unit, bool counter, uint64_t n,
		      const char *help)
{
	qy_metrics_head(page, "", name, unit, counter, help);
	name_of(page, "", name, counter);
	value(page, n);
}

static void print_milli(const struct qy_metrics_page *page, const char *name, const char *unit, uint64_t n, const char *help)
{
	qy_metrics_head(page, "", name, unit, false, help);
	name_of(page, "", name, false);
	value_milli(page, n);
}

static void print_time(const struct qy_metrics_page *page, const char *name, uint64_t ns, const char *help)
{
	qy_metrics_head(page, "", name, "seconds", true, help);
	name_of(page, "", name, true);
	qy_text_format(page->out, " %llu.%09llu\n", number(ns / 1000000000), number(ns % 1000000000));
}

static void print_times(const struct qy_metrics_page *page)
{
	print_time(page, "reclaimer_pass_seconds", page->total.pass_ns, "Time that passes of the reclaimer took.");
	print_time(page, "reclaimer_collapse_seconds", page->total.collapse_ns,
		   "Of it: looking for dense memory, and making it huge.");
	print_time(page, "purge_seconds", page->total.purge_ns, "Time in the kernel for memory that went back, pages and whole regions.");
	qy_metrics_head(page, "", "page_faults", "", true, "Page faults of the process.");
	qy_text_format(page->out, "quarry_page_faults_total{kind=\"minor\"} %llu\n", number(page->total.minor_faults));
	qy_text_format(page->out, "quarry_page_faults_total{kind=\"major\"} %llu\n", number(page->total.major_faults));
}

static void print_reclaimer(const struct qy_metrics_page *page)
{
	static const char *const ways[] = { "none", "series", "thread", "timer", "tended" };

	qy_metrics_head(page, "", "reclaimer_way", "", false, "1 for how free memory goes back now, 0 for the other ways.");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		qy_text_format(page->out, "quarry_reclaimer_way{way=\"%s\"} %d\n", ways[i], page->total.reclaimed_by == i);
	qy_metrics_head(page, "", "decay_seconds", "seconds", false, "How long free memory stays without pressure.");
	name_of(page, "", "decay_seconds", false);
	if (page->total.decay == UINT64_MAX)
		qy_text_format(page->out, " +Inf\n");
	else
		value_milli(page, page->total.decay);
}

/* ---- health ---- */

static void print_denied(const struct qy_metrics_page *page)
{
	const quarry_health_report *h = &page->health;

	qy_metrics_head(page, "", "denied_requests", "", true, "Requests refused, by which limit.");
	qy_text_format(page->out, "quarry_denied_requests_total{limit=\"process\"} %llu\n", number(h->denied_process));
	qy_text_format(page->out, "quarry_denied_requests_total{limit=\"arena\"} %llu\n", number(h->denied_arenas));
	qy_text_format(page->out, "quarry_denied_requests_total{limit=\"cgroup\"} %llu\n", number(h->denied_cgroup));
}

/* The limit that is filled most; no samples where there is none. */
static void print_limit(const struct qy_metrics_page *page)
{
	static const char *const kinds[] = { NULL, "process", "cgroup", "address-space" };
	const quarry_health_report *h = &page->health;
	size_t kind = h->limit_kind > 0 ? (size_t)h->limit_kind : 0;

	print_one(page, "hard_limit_bytes", "bytes", false, h->hard_limit,
		  "In use by the process, beyond which requests fail; 0: none.");
	print_one(page, "soft_limit_bytes", "bytes", false, h->soft_limit,
		  "Of the process, from which nothing free is kept; 0: none.");
	if (kind == 0 || kind >= sizeof(kinds) / sizeof(kinds[0]))
		return;
	qy_metrics_head(page, "", "tightest_limit_bytes", "bytes", false, "The limit that is filled most.");
	qy_text_format(page->out, "quarry_tightest_limit_bytes{limit=\"%s\"} %llu\n", kinds[kind], number(h->limit));
	qy_metrics_head(page, "", "tightest_limit_used_bytes", "bytes", false, "How far it is filled.");
	qy_text_format(page->out, "quarry_tightest_limit_used_bytes{limit=\"%s\"} %llu\n", kinds[kind], number(h->used));
}

static void print_health(const struct qy_metrics_page *page)
{
	const quarry_health_report *h = &page->health;

	print_one(page, "health_state", "", false, (uint32_t)h->state, "0 green, 1 yellow, 2 red.");
	print_one(page, "pressure_level", "", false, (uint32_t)h->level, "0 none, 1 some, 2 high, 3 critical.");
	if (h->psi_window_ms > 0) {
		print_milli(page, "psi_some_ratio", "ratio", h->psi_some,
			    "The part of the last window in which some tasks waited for memory.");
		print_milli(page, "psi_full_ratio", "ratio", h->psi_full,
			    "The part of the last window in which all tasks waited for memory.");
		print_milli(page, "psi_window_seconds", "seconds", h->psi_window_ms, "How long that window was.");
	}
	print_limit(page);
	print_denied(page);
	print_one(page, "breaker_state", "", false, (uint32_t)h->breaker, "0 closed, 1 open, 2 half open.");
	print_one(page, "breaker_opened", "", true, h->breaker_opened, "Times that the breaker opened.");
	print_one(page, "breaker_refused_requests", "", true, h->breaker_refused,
		  "Large requests refused while the breaker was open.");
	print_one(page, "breaker_redirected_requests", "", true, h->breaker_redirected,
		  "Large requests that went elsewhere while it was open.");
	print_one(page, "breaker_probes", "", true, h->breaker_probes, "Requests let through to see whether it can close.");
	print_one(page, "events_lost", "", true, h->events_lost, "Events for which there was no room.");
}

/* ---- the profile ---- */

static void print_profile(const struct qy_metrics_page *page)
{
	const quarry_profile_report *p = &page->profile;

	print_one(page, "profile_mean_bytes", "bytes", false, p->mean, "From one sample to the next; 0: no profile is kept.");
	print_one(page, "profile_sites", "", false, p->sites, "Places in the program that samples were taken at.");
	print_one(page, "profile_samples", "", true, p->samples, "Samples taken since the profile was begun or reset.");
	print_one(page, "profile_lost_samples", "", true, p->lost, "Samples for which there was no memory.");
	print_one(page, "profile_live_samples", "", false, p->live, "Samples that live.");
	print_one(page, "profile_allocated_objects", "", true, p->allocated_objects,
		  "Objects allocated, as samples tell, since the profile was begun or reset.");
	print_one(page, "profile_allocated_bytes", "bytes", true, p->allocated_bytes, "And their bytes.");
	print_one(page, "profile_in_use_objects", "", false, p->in_use_objects, "Objects of those that live.");
	print_one(page, "profile_in_use_bytes", "bytes", false, p->in_use_bytes, "And their bytes.");
}

/* ---- the whole ---- */

static void print_build(const struct qy_metrics_page *page)
{
	const char *info = page->classic ? "_info" : "";

	qy_text_format(page->out, "# HELP quarry_build%s The library.\n# TYPE quarry_build%s %s\n", info, info,
		       page->classic ? "gauge" : "info");
	qy_text_format(page->out, "quarry_build_info{version=\"");
	qy_metrics_label(page->out, page->head.library, strlen(page->head.library));
	qy_text_format(page->out, "\"} 1\n");
}

static void print_age(const struct qy_metrics_page *page)
{
	uint64_t now = qy_os->now_ns(), then = page->head.time_ns;

	print_milli(page, "figures_age_seconds", "seconds", now > then ? (now - then) / 1000000 : 0,
		    "How long ago these figures were read.");
	qy_metrics_head(page, "", "figures_read_seconds", "seconds", false, "How long reading them took.");
	qy_text_format(page->out, "quarry_figures_read_seconds %llu.%09llu\n", number(page->head.took_ns / 1000000000),
		       number(page->head.took_ns % 1000000000));
	if (page->by_arena)
		print_one(page, "arenas_left_out", "", false, page->head.arenas_left_out,
			  "Arenas whose figures are not here.");
}

int qy_metrics_write(struct qy_text *out, const void *picture, size_t size, unsigned flags)
{
	struct qy_metrics_page page = { .out = out, .picture = picture, .size = size, .classic = flags & QUARRY_METRICS_CLASSIC,
			     .by_arena = flags & QUARRY_METRICS_ARENAS };

	page.health.struct_size = sizeof(page.health);
	page.total.version = QUARRY_STATS_VERSION;
	page.profile.struct_size = sizeof(page.profile);
	if (quarry_published_look(picture, size, &page.head, sizeof(page.head), &page.health, &page.total) != 0)
		return -1;
	page.has_profile = quarry_published_profile(picture, size, &page.profile) == 0;
	print_build(&page);
	print_age(&page);
	for (size_t i = 0; i < FAMILIES; i++)
		print_family(&page, &families[i]);
	print_pages(&page);
	print_reclaimer(&page);
	print_times(&page);
	print_refusals(&page);
	print_health(&page);
	if (page.has_profile)
		print_profile(&page);
	qy_metrics_lanes(&page);
	if (!page.classic)
		qy_text_format(page.out, "# EOF\n");
	return 0;
}
