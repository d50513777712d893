/* SPDX-License-Identifier: MIT */
#include "tools/top.h"
#include "tools/top_lanes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json.h"

#define NAME_WIDTH 17

/* ---- taken ---- */

static double rate(uint64_t now, uint64_t before, double seconds)
{
	return now < before || seconds <= 0 ? -1 : (double)(now - before) / seconds;
}

static uint64_t moves_of(const quarry_lanes_figures *g)
{
	uint64_t sum = 0;

	for (int why = 0; why < QUARRY_MOVED_COOLED; why++)
		sum += g->moved[why];
	return sum;
}

static struct top_lanes_rates rates_of(const struct top_lanes_row *row, const struct top_lanes *before, double seconds)
{
	for (size_t i = 0; before && i < before->count; i++) {
		const quarry_lanes_figures *now = &row->figures, *was = &before->rows[i].figures;

		if (was->number != now->number)
			continue;
		if (seconds <= 0)
			return before->rows[i].rates;
		return (struct top_lanes_rates){
			.allocated = rate(now->allocated, was->allocated, seconds),
			.moved = rate(moves_of(now), moves_of(was), seconds),
			.refaults = rate(now->moved[QUARRY_MOVED_REFAULTED], was->moved[QUARRY_MOVED_REFAULTED], seconds),
		};
	}
	return (struct top_lanes_rates){ -1, -1, -1 };
}

bool top_lanes_take(struct top_lanes *lanes, const struct published *p, const struct top_lanes *before, double seconds)
{
	quarry_published head;

	*lanes = (struct top_lanes){ 0 };
	if (quarry_published_look(p->copy, p->size, &head, sizeof(head), NULL, NULL) != 0)
		return true;
	lanes->left_out = head.lanes_left_out;
	lanes->parts_left_out = head.parts_left_out;
	lanes->rows = calloc(TOP_LANES_MAX, sizeof(*lanes->rows));
	lanes->parts = calloc(head.parts_count < TOP_PARTS_MAX ? head.parts_count + 1 : TOP_PARTS_MAX, sizeof(*lanes->parts));
	if (!lanes->rows || !lanes->parts)
		return false;
	for (; lanes->count < TOP_LANES_MAX; lanes->count++) {
		struct top_lanes_row *row = &lanes->rows[lanes->count];

		row->figures.struct_size = sizeof(row->figures);
		if (quarry_published_lanes(p->copy, p->size, lanes->count, &row->figures) != 0)
			break;
		row->rates = rates_of(row, before, seconds);
	}
	for (; lanes->part_count < head.parts_count && lanes->part_count < TOP_PARTS_MAX; lanes->part_count++) {
		quarry_lanes_part *part = &lanes->parts[lanes->part_count];

		part->struct_size = sizeof(*part);
		if (quarry_published_lanes_part(p->copy, p->size, lanes->part_count, part) != 0)
			break;
	}
	return true;
}

void top_lanes_free(struct top_lanes *lanes)
{
	free(lanes->rows);
	free(lanes->parts);
	*lanes = (struct top_lanes){ 0 };
}

/* ---- text ---- */

/* Of a hundred; "-" of nothing. */
static struct field part_of(uint64_t part, uint64_t whole)
{
	struct field f = { "-" };

	if (whole > 0)
		snprintf(f.text, sizeof(f.text), "%.0f", part < whole ? 100.0 * (double)part / (double)whole : 100.0);
	return f;
}

/* Half of those that were freed lived under so long. */
static struct field median(const uint64_t *lifetimes)
{
	static const char *const units[] = { "us", "ms", "s" };
	struct field f = { "-" };
	uint64_t sum = 0, below = 0;
	double n = 1;
	int i, unit = 0;

	for (i = 0; i < QUARRY_LIFETIMES; i++)
		sum += lifetimes[i] < UINT64_MAX / QUARRY_LIFETIMES ? lifetimes[i] : 0;
	if (sum == 0)
		return f;
	for (i = 0; i + 1 < QUARRY_LIFETIMES; i++, n *= 2) {
		below += lifetimes[i];
		if (below * 2 >= sum)
			break;
	}
	for (; n >= 1000 && unit < 2; unit++)
		n /= 1000;
	snprintf(f.text, sizeof(f.text), "%.0f%s", n, units[unit]);
	return f;
}

static void put_name(char *to, size_t size, const char *from, size_t n)
{
	size_t i;

	for (i = 0; i < n && from[i] && i + 1 < size; i++)
		to[i] = from[i] >= 0x20 && from[i] < 0x7f ? from[i] : '?';
	to[i] = '\0';
}

struct writer {
	void (*put)(void *ctx, const char *color, const char *text);
	void *ctx;
};

struct columns {
	const char *name, *what;
	struct field objects, live, held, waste, life, allocated, moved, cold, packed, refaults;
};

static void put_columns(const struct writer *w, const struct columns *c)
{
	char text[256];

	snprintf(text, sizeof(text), "%-*.*s%-5s%6s%6s%6s%5s%6s%6s%6s%6s%5s%6s", NAME_WIDTH, NAME_WIDTH - 1, c->name, c->what,
		 c->objects.text, c->live.text, c->held.text, c->waste.text, c->life.text, c->allocated.text, c->moved.text,
		 c->cold.text, c->packed.text, c->refaults.text);
	w->put(w->ctx, "", text);
}

static void put_part(const struct writer *w, const quarry_lanes_part *p)
{
	char name[NAME_WIDTH];

	put_name(name, sizeof(name), p->name, sizeof(p->name));
	put_columns(w, &(struct columns){
		name, p->kind == QUARRY_PART_GROUP ? " grp" : p->kind == QUARRY_PART_TAG ? " tag" : " cls", top_count((double)p->objects), top_bytes(p->live),
		top_bytes(p->held),
		part_of(p->held > p->live ? p->held - p->live : 0, p->held), median(p->lifetimes), { "" }, { "" },
		top_bytes(p->cold_bytes), { "" }, { "" } });
}

/* The largest ones, in their order. */
static void put_parts(const struct writer *w, const struct top_lanes *lanes, uint32_t number)
{
	uint64_t least = 0;
	size_t there = TOP_PARTS_SHOWN + 1;

	/* (The least that is shown: found by going up; there are hundreds at most, and few are shown.) */
	while (there > TOP_PARTS_SHOWN) {
		uint64_t next = UINT64_MAX;

		there = 0;
		for (size_t i = 0; i < lanes->part_count; i++) {
			const quarry_lanes_part *p = &lanes->parts[i];

			if (p->lanes != number || p->live <= least)
				continue;
			there++;
			next = p->live < next ? p->live : next;
		}
		if (there > TOP_PARTS_SHOWN)
			least = next;
	}
	for (size_t i = 0; i < lanes->part_count; i++)
		if (lanes->parts[i].lanes == number && lanes->parts[i].live > least)
			put_part(w, &lanes->parts[i]);
}

static void put_row(const struct writer *w, const struct top_lanes_row *row)
{
	const quarry_lanes_figures *g = &row->figures;
	char name[NAME_WIDTH], text[NAME_WIDTH + 16];

	put_name(name, sizeof(name), g->name, sizeof(g->name));
	snprintf(text, sizeof(text), "%u %s", g->number, name);
	put_columns(w, &(struct columns){
		text, "slow", top_count((double)g->objects), top_bytes(g->live), top_bytes(g->held),
		part_of(g->held > g->live ? g->held - g->live : 0, g->held), median(g->lifetimes[0]), top_count(row->rates.allocated),
		top_count(row->rates.moved), top_bytes(g->cold_bytes), part_of(g->cold_compressed + g->cold_evicted, g->cold_bytes),
		top_count(row->rates.refaults) });
	if (g->fast_held > 0)
		put_columns(w, &(struct columns){
			"", "fast", top_count((double)g->fast_objects), top_bytes(g->fast_live), top_bytes(g->fast_held),
			part_of(g->fast_held > g->fast_live ? g->fast_held - g->fast_live : 0, g->fast_held),
			median(g->lifetimes[1]), { "" }, { "" }, { "" }, { "" }, { "" } });
}

void top_lanes_text(const struct top_lanes *lanes, void (*put)(void *ctx, const char *color, const char *text), void *ctx)
{
	const struct writer w = { put, ctx };
	char text[96];

	if (lanes->count == 0)
		return;
	snprintf(text, sizeof(text), "%-*s%-5s%6s%6s%6s%5s%6s%6s%6s%6s%5s%6s", NAME_WIDTH, "LANES", "", "OBJ", "LIVE", "HELD",
		 "WAS%", "LIFE", "ALC/s", "MOV/s", "COLD", "PCK%", "RFT/s");
	put(ctx, "\033[7m", text);
	for (size_t i = 0; i < lanes->count; i++) {
		put_row(&w, &lanes->rows[i]);
		put_parts(&w, lanes, lanes->rows[i].figures.number);
	}
	if (lanes->left_out == 0 && lanes->parts_left_out == 0)
		return;
	snprintf(text, sizeof(text), "(%u lanes, and %u classes and groups, have no room in the page)", lanes->left_out,
		 lanes->parts_left_out);
	put(ctx, "", text);
}

/* ---- JSON ---- */

static const struct {
	const char *name;
	size_t offset;
} of_lanes[] = {
#define FIGURE(field) { #field, offsetof(quarry_lanes_figures, field) }
	FIGURE(objects), FIGURE(live), FIGURE(held), FIGURE(waiting), FIGURE(allocated), FIGURE(fast_objects), FIGURE(fast_live),
	FIGURE(fast_held), FIGURE(fast_allocated), FIGURE(fast_ticks), FIGURE(fast_resets), FIGURE(fast_stubs),
	FIGURE(fast_spilled), FIGURE(fast_failed_over), FIGURE(fast_refused), FIGURE(handles), FIGURE(retired),
	FIGURE(moved_bytes), FIGURE(given_up), FIGURE(segments), FIGURE(freed_segments), FIGURE(scratch), FIGURE(mover_ns),
	FIGURE(mover_plans), FIGURE(recalled), FIGURE(cold_objects), FIGURE(cold_bytes), FIGURE(cold_compressed),
	FIGURE(cold_evicted), FIGURE(incompressible), FIGURE(corrupt), FIGURE(failures), FIGURE(cold_period_ms),
	FIGURE(deepened), FIGURE(dictionaries), FIGURE(dictionary_bytes), FIGURE(groups),
#undef FIGURE
}, of_parts[] = {
#define FIGURE(field) { #field, offsetof(quarry_lanes_part, field) }
	FIGURE(size), FIGURE(objects), FIGURE(live), FIGURE(held), FIGURE(limit), FIGURE(refused), FIGURE(allocated),
	FIGURE(moved), FIGURE(cooled), FIGURE(refaults), FIGURE(cold_objects), FIGURE(cold_bytes), FIGURE(lived), FIGURE(lived_us),
#undef FIGURE
};

static void put_figure(FILE *out, const char *name, const void *record, size_t offset)
{
	uint64_t n;

	memcpy(&n, (const char *)record + offset, sizeof(n));
	fprintf(out, ",\"%s\":%" PRIu64, name, n);
}

static void put_lifetimes(FILE *out, const char *name, const uint64_t *lifetimes)
{
	fprintf(out, ",\"%s\":[", name);
	for (int i = 0; i < QUARRY_LIFETIMES; i++)
		fprintf(out, "%s%" PRIu64, i ? "," : "", lifetimes[i]);
	fputc(']', out);
}

static void put_rate(FILE *out, const char *name, double n)
{
	fprintf(out, "\"%s\":", name);
	if (n < 0)
		fputs("null", out);
	else
		fprintf(out, "%.3f", n);
}

static void json_row(const struct top_lanes_row *row, FILE *out)
{
	const quarry_lanes_figures *g = &row->figures;

	fprintf(out, "{\"number\":%u,\"name\":", g->number);
	json_put_string(out, g->name);
	for (size_t i = 0; i < sizeof(of_lanes) / sizeof(of_lanes[0]); i++)
		put_figure(out, of_lanes[i].name, g, of_lanes[i].offset);
	fputs(",\"moved\":{", out);
	for (int why = 0; why < QUARRY_MOVES; why++)
		fprintf(out, "%s\"%s\":%" PRIu64, why ? "," : "", quarry_move_name(why), g->moved[why]);
	fputc('}', out);
	put_lifetimes(out, "lifetimes_us", g->lifetimes[0]);
	put_lifetimes(out, "fast_lifetimes_us", g->lifetimes[1]);
	fputs(",\"a_second\":{", out);
	put_rate(out, "allocated", row->rates.allocated);
	fputc(',', out);
	put_rate(out, "moved", row->rates.moved);
	fputc(',', out);
	put_rate(out, "refaults", row->rates.refaults);
	fputs("},\"parts\":[", out);
}

static void json_part(const quarry_lanes_part *p, FILE *out)
{
	fprintf(out, "{\"kind\":\"%s\",\"name\":", p->kind == QUARRY_PART_GROUP ? "group" : p->kind == QUARRY_PART_TAG ? "tag" : "class");
	json_put_string(out, p->name);
	for (size_t i = 0; i < sizeof(of_parts) / sizeof(of_parts[0]); i++)
		put_figure(out, of_parts[i].name, p, of_parts[i].offset);
	put_lifetimes(out, "lifetimes_us", p->lifetimes);
	fputc('}', out);
}

void top_lanes_json(const struct top_lanes *lanes, FILE *out)
{
	fprintf(out, ",\"lanes_left_out\":%u,\"lanes_parts_left_out\":%u,\"lanes\":[", lanes->left_out, lanes->parts_left_out);
	for (size_t i = 0; i < lanes->count; i++) {
		bool first = true;

		if (i > 0)
			fputc(',', out);
		json_row(&lanes->rows[i], out);
		for (size_t k = 0; k < lanes->part_count; k++)
			if (lanes->parts[k].lanes == lanes->rows[i].figures.number) {
				if (!first)
					fputc(',', out);
				json_part(&lanes->parts[k], out);
				first = false;
			}
		fputs("]}", out);
	}
	fputc(']', out);
}
