/* SPDX-License-Identifier: MIT */
/* A look as one line of JSON. */
#include "tools/top.h"

#include <inttypes.h>
#include <string.h>

#include "tools/json.h"

static const struct figure {
	const char *name;
	size_t offset;
} figures[] = {
#define FIGURE(field) { #field, offsetof(quarry_stats, field) }
	FIGURE(regions), FIGURE(mapped), FIGURE(peak_mapped), FIGURE(resident), FIGURE(in_use), FIGURE(large),
	FIGURE(cached), FIGURE(free_dirty), FIGURE(free_clean), FIGURE(mixed), FIGURE(in_files), FIGURE(unplaced), FIGURE(placed_less),
	FIGURE(strayed), FIGURE(hard_limit), FIGURE(soft_limit), FIGURE(refills), FIGURE(remote_frees), FIGURE(adopted),
	FIGURE(purges), FIGURE(purged), FIGURE(brought_home), FIGURE(moved), FIGURE(collapsed), FIGURE(collapse_failed),
}, of_process[] = {
	FIGURE(arenas), FIGURE(threads), FIGURE(metadata), FIGURE(node_moves), FIGURE(passes), FIGURE(bad_frees),
	FIGURE(reclaimer), FIGURE(reclaimed_by), FIGURE(idle_given_up), FIGURE(idle_refused), FIGURE(split),
	FIGURE(advised_apart), FIGURE(decay), FIGURE(pass_ns), FIGURE(collapse_ns), FIGURE(purge_ns),
#undef FIGURE
};

static void put_figures(FILE *out, const struct figure *list, size_t n, const quarry_stats *stats, bool first)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t value;

		memcpy(&value, (const char *)stats + list[i].offset, sizeof(value));
		fprintf(out, "%s\"%s\":%" PRIu64, i || !first ? "," : "", list[i].name, value);
	}
}

static void put_kinds(FILE *out, const char *name, const uint64_t by_kind[5])
{
	static const char *const kinds[] = { "auto", "base", "thp", "2m", "1g" };

	fprintf(out, ",\"%s\":{", name);
	for (int i = 0; i < 5; i++)
		fprintf(out, "%s\"%s\":%" PRIu64, i ? "," : "", kinds[i], by_kind[i]);
	fputc('}', out);
}

static void put_stats(FILE *out, const quarry_stats *stats)
{
	put_figures(out, figures, sizeof(figures) / sizeof(figures[0]), stats, true);
	put_kinds(out, "kind_wanted", stats->kind_wanted);
	put_kinds(out, "kind_got", stats->kind_got);
	fprintf(out, ",\"huge_per_mille\":%u,\"fragmentation_per_mille\":%u", top_huge(stats), top_fragmentation(stats));
}

static void put_rate(FILE *out, const char *name, double rate, bool first)
{
	fprintf(out, "%s\"%s\":", first ? "" : ",", name);
	if (rate < 0)
		fputs("null", out);
	else
		fprintf(out, "%.3f", rate);
}

static void put_rates(FILE *out, const struct top_rates *r, bool process)
{
	fputs(",\"a_second\":{", out);
	put_rate(out, "refills", r->refills, true);
	put_rate(out, "remote_frees", r->remote, false);
	put_rate(out, "purged", r->purged, false);
	put_rate(out, "collapsed", r->collapsed, false);
	if (process) {
		put_rate(out, "passes", r->passes, false);
		put_rate(out, "minor_faults", r->minor, false);
		put_rate(out, "major_faults", r->major, false);
	}
	fputc('}', out);
}

static void put_health(FILE *out, const quarry_health_report *h)
{
	fprintf(out, ",\"health\":{\"state\":%d,\"level\":%d,\"reasons\":%u,\"limit_kind\":%d,\"limit_per_mille\":%u",
		h->state, h->level, h->reasons, h->limit_kind, h->limit_per_mille);
	fprintf(out, ",\"limit\":%" PRIu64 ",\"used\":%" PRIu64 ",\"psi_some\":%u,\"psi_full\":%u", h->limit, h->used,
		h->psi_some, h->psi_full);
	fprintf(out, ",\"psi_window_ms\":%" PRIu64 ",\"breaker\":%d,\"in_use\":%" PRIu64, h->psi_window_ms, h->breaker,
		h->in_use);
	fprintf(out, ",\"hard_limit\":%" PRIu64 ",\"soft_limit\":%" PRIu64, h->hard_limit, h->soft_limit);
	fprintf(out, ",\"denied_process\":%" PRIu64 ",\"denied_arenas\":%" PRIu64 ",\"denied_cgroup\":%" PRIu64,
		h->denied_process, h->denied_arenas, h->denied_cgroup);
	fprintf(out, ",\"breaker_opened\":%" PRIu64 ",\"breaker_refused\":%" PRIu64 ",\"breaker_redirected\":%" PRIu64
		     ",\"events_lost\":%" PRIu64 "}",
		h->breaker_opened, h->breaker_refused, h->breaker_redirected, h->events_lost);
}

static void put_row(FILE *out, const struct top_row *row)
{
	char name[QUARRY_ARENA_NAME_MAX + 1] = "";

	memcpy(name, row->stats.name, QUARRY_ARENA_NAME_MAX);
	fprintf(out, "{\"id\":%" PRIu64 ",\"name\":", row->id);
	json_put_string(out, name);
	fprintf(out, ",\"node\":%d,", row->stats.node);
	put_stats(out, &row->stats);
	put_rates(out, &row->rates, false);
	fputc('}', out);
}

static const struct sampled {
	const char *name;
	size_t offset;
	int figure; /* of enum quarry_history_figure; -1: none, it has no slope */
} sampled[] = {
#define SAMPLED(field, figure) { #field, offsetof(quarry_sample, field), figure }
	SAMPLED(mapped, QUARRY_HISTORY_MAPPED), SAMPLED(resident, QUARRY_HISTORY_RESIDENT),
	SAMPLED(in_use, QUARRY_HISTORY_IN_USE), SAMPLED(cached, QUARRY_HISTORY_CACHED),
	SAMPLED(free, QUARRY_HISTORY_FREE), SAMPLED(refills, QUARRY_HISTORY_REFILLS),
	SAMPLED(remote_frees, QUARRY_HISTORY_REMOTE_FREES), SAMPLED(purged, QUARRY_HISTORY_PURGED),
	SAMPLED(minor_faults, QUARRY_HISTORY_MINOR_FAULTS), SAMPLED(major_faults, QUARRY_HISTORY_MAJOR_FAULTS),
	SAMPLED(time_ns, -1), SAMPLED(most_mapped, -1), SAMPLED(most_resident, -1), SAMPLED(most_in_use, -1),
	SAMPLED(most_cached, -1), SAMPLED(most_free, -1),
#undef SAMPLED
};

static void put_trend(FILE *out, const struct top_trend *t)
{
	double a_second;

	fprintf(out, "{\"step_ns\":%" PRIu64 ",\"steps\":%" PRIu64 ",\"samples\":%zu,\"a_second\":{", t->step_ns,
		top_trend_steps(t), t->count);
	for (size_t i = 0; i < sizeof(sampled) / sizeof(sampled[0]) && sampled[i].figure >= 0; i++) {
		fprintf(out, "%s\"%s\":", i ? "," : "", sampled[i].name);
		if (top_trend_slope(t, sampled[i].figure, &a_second))
			fprintf(out, "%.3f", a_second);
		else
			fputs("null", out);
	}
	fputs("}}", out);
}

/* A list for each figure, oldest first. */
static void put_samples(FILE *out, const struct top_trend *t)
{
	uint64_t value;

	for (size_t i = 0; i < sizeof(sampled) / sizeof(sampled[0]); i++) {
		fprintf(out, "%s\"%s\":[", i ? "," : "{", sampled[i].name);
		for (size_t k = 0; k < t->count; k++) {
			memcpy(&value, (const char *)&t->samples[k] + sampled[i].offset, sizeof(value));
			fprintf(out, "%s%" PRIu64, k ? "," : "", value);
		}
		fputc(']', out);
	}
	fputc('}', out);
}

static void put_rings(FILE *out, const struct top *top, const char *name,
		      void (*put)(FILE *out, const struct top_trend *t))
{
	static const char *const rings[TOP_RINGS] = { "seconds", "minutes", "hours" };

	fprintf(out, ",\"%s\":{", name);
	for (int ring = 0; ring < TOP_RINGS; ring++) {
		fprintf(out, "%s\"%s\":", ring ? "," : "", rings[ring]);
		put(out, &top->trends[ring]);
	}
	fputc('}', out);
}

void top_print_json(const struct top *top, bool history, FILE *out)
{
	uint64_t age = top->now_ns > top->head.time_ns ? top->now_ns - top->head.time_ns : 0;
	const char *name;

	fprintf(out, "{\"quarry\":");
	json_put_string(out, top->head.library);
	fprintf(out, ",\"pid\":%d,\"program\":", top->pid);
	json_put_string(out, top->program);
	fprintf(out, ",\"time_ns\":%" PRIu64 ",\"age_ns\":%" PRIu64 ",\"took_ns\":%" PRIu64, top->head.time_ns, age,
		top->head.took_ns);
	fprintf(out, ",\"minor_faults\":%" PRIu64 ",\"major_faults\":%" PRIu64, top->minor, top->major);
	put_health(out, &top->health);
	fputs(",\"total\":{", out);
	put_stats(out, &top->total);
	put_figures(out, of_process, sizeof(of_process) / sizeof(of_process[0]), &top->total, false);
	put_rates(out, &top->rates, true);
	fputs("},\"refused\":{", out);
	for (int i = 0; (name = quarry_refusal_name(i)) != NULL; i++)
		fprintf(out, "%s\"%s\":%" PRIu64, i ? "," : "", name, top->total.refused[i]);
	fprintf(out, "},\"arenas_left_out\":%u,\"arenas\":[", top->head.arenas_left_out);
	for (uint32_t i = 0; i < top->head.arena_count; i++) {
		if (i)
			fputc(',', out);
		put_row(out, &top->rows[i]);
	}
	fputc(']', out);
	top_lanes_json(&top->lanes, out);
	put_rings(out, top, "trend", put_trend);
	if (history)
		put_rings(out, top, "history", put_samples);
	fputs("}\n", out);
	fflush(out);
}
