/* SPDX-License-Identifier: MIT */
/* Lanes of a dump of statistics: read, drawn under the arenas, told as JSON. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json.h"
#include "tools/map_lanes.h"
#include "tools/map_page.h"

#define NAME_WIDTH 20
#define BAR 14
#define PARTS_DRAWN 6 /* of each lanes, without --all */
#define LANES_MOST 127
#define PARTS_MOST 4096

/* ---- reading ---- */

static bool read_figure(struct json *j, const struct map_lanes_number *numbers, size_t count, void *record)
{
	for (size_t i = 0; i < count; i++)
		if (json_key(j, numbers[i].name)) {
			json_unsigned(j, (uint64_t *)(void *)((char *)record + numbers[i].offset));
			return true;
		}
	return false;
}

#define COUNT_OF(list) (sizeof(list) / sizeof((list)[0]))
#define PART(name, field) { name, offsetof(struct map_lanes_part, field) }
#define LANES(name, field) { name, offsetof(struct map_lanes, field) }

static const struct map_lanes_number part_numbers[] = {
	PART("size", size), PART("objects", objects), PART("live_bytes", live), PART("held_bytes", held),
	PART("moved_objects", moved), PART("refaulted_objects", refaults), PART("cold_bytes", cold_bytes),
}, lanes_numbers[] = {
	LANES("number", number), LANES("objects", objects), LANES("live_bytes", live), LANES("held_bytes", held),
	LANES("fast_objects", fast_objects), LANES("fast_live_bytes", fast_live), LANES("fast_held_bytes", fast_held),
	LANES("compacted_bytes", compacted), LANES("cold_bytes", cold_bytes), LANES("cold_compressed_bytes", cold_compressed),
	LANES("cold_evicted_bytes", cold_evicted),
};

static void read_name(struct json *j, char *name, size_t size)
{
	char text[JSON_STRING_MAX];

	if (json_string(j, text, sizeof(text)) && strlen(text) >= size)
		json_fail(j, "a name that is too long");
	else if (!j->error)
		memcpy(name, text, strlen(text) + 1);
}

static void *one_more(struct json *j, void *array, size_t count, size_t most, size_t size)
{
	void *more = count < most ? reallocarray(array, count + 1, size) : NULL;

	if (!more)
		json_fail(j, count < most ? "no memory" : "more than there can be");
	else
		memset((char *)more + count * size, 0, size);
	return more;
}

static void read_part(struct json *j, struct map_lanes *lanes, const char *kind)
{
	struct map_lanes_part *parts = one_more(j, lanes->parts, lanes->part_count, PARTS_MOST, sizeof(*parts));
	bool first = true;

	if (!parts)
		return;
	lanes->parts = parts;
	parts += lanes->part_count++;
	parts->kind = kind;
	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "name"))
			read_name(j, parts->name, sizeof(parts->name));
		else if (!read_figure(j, part_numbers, COUNT_OF(part_numbers), parts))
			json_skip(j);
	}
}

static void read_lanes(struct json *j, struct map *map)
{
	struct map_lanes *lanes = one_more(j, map->lanes, map->lanes_count, LANES_MOST, sizeof(*lanes));
	bool first = true;

	if (!lanes)
		return;
	map->lanes = lanes;
	lanes += map->lanes_count++;
	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		const char *kind = json_key(j, "groups") ? "group" : json_key(j, "classes") ? "class" : json_key(j, "tags") ? "tag" : NULL;
		bool first_part = true;

		if (kind != NULL)
			for (json_enter(j, '['); json_next(j, ']', &first_part);)
				read_part(j, lanes, kind);
		else if (json_key(j, "name"))
			read_name(j, lanes->name, sizeof(lanes->name));
		else if (!read_figure(j, lanes_numbers, COUNT_OF(lanes_numbers), lanes))
			json_skip(j);
	}
}

void map_read_lanes(struct json *j, struct map *map)
{
	bool first = true;

	for (json_enter(j, '['); json_next(j, ']', &first);)
		read_lanes(j, map);
}

void map_free_lanes(struct map *map)
{
	for (size_t i = 0; i < map->lanes_count; i++)
		free(map->lanes[i].parts);
	free(map->lanes);
}

/* ---- drawing ---- */

static void put_waste(struct page *p, uint64_t live, uint64_t held)
{
	uint64_t waste = held > live ? held - live : 0;

	if (held == 0)
		page_put(p, "%6s", "-");
	else
		page_put(p, "%5.0f%%", 100.0 * (double)waste / (double)held);
}

static void draw_line(struct page *p, const char *name, const char *what, uint64_t objects, uint64_t live, uint64_t held,
		      uint64_t largest)
{
	page_name(p, name, NAME_WIDTH, 0);
	page_put(p, " %-5s ", what);
	map_put_use(p, live, held, largest, BAR);
	page_pad(p, NAME_WIDTH + 7 + BAR);
	page_put(p, "%8" PRIu64 "%6s%6s", objects, map_short(live), map_short(held));
	put_waste(p, live, held);
}

static void draw_part(struct page *p, const struct map_lanes_part *part, uint64_t largest)
{
	char name[sizeof(part->name) + 4];

	snprintf(name, sizeof(name), "  %s", part->name[0] ? part->name : "(no name)");
	draw_line(p, name, part->kind, part->objects, part->live, part->held ? part->held : part->live,
		  largest);
	page_put(p, "%6s", map_short(part->cold_bytes));
	page_end_line(p);
}

static int by_live(const void *a, const void *b)
{
	const struct map_lanes_part *x = a, *y = b;

	return (x->live < y->live) - (x->live > y->live);
}

static void draw_lanes(struct page *p, const struct map_lanes *lanes, uint64_t largest)
{
	char name[sizeof(lanes->name) + 32];
	uint64_t packed = map_add(lanes->cold_compressed, lanes->cold_evicted);
	size_t drawn = p->look->all || lanes->part_count <= PARTS_DRAWN ? lanes->part_count : PARTS_DRAWN - 1;

	snprintf(name, sizeof(name), "%" PRIu64 " %s", lanes->number, lanes->name);
	draw_line(p, name, "slow", lanes->objects, lanes->live, lanes->held, largest);
	page_put(p, "%6s%7s", map_short(lanes->cold_bytes), map_short(packed));
	page_end_line(p);
	if (lanes->fast_held) {
		draw_line(p, "", "fast", lanes->fast_objects, lanes->fast_live, lanes->fast_held, largest);
		page_end_line(p);
	}
	if (lanes->part_count > 0)
		qsort(lanes->parts, lanes->part_count, sizeof(*lanes->parts), by_live);
	for (size_t i = 0; i < drawn; i++)
		draw_part(p, &lanes->parts[i], largest);
	if (drawn < lanes->part_count) {
		page_put(p, "  and %zu smaller classes, groups and tags (--all draws them)", lanes->part_count - drawn);
		page_end_line(p);
	}
}

void map_draw_lanes(struct page *p, const struct map *map)
{
	uint64_t largest = 1;

	if (map->lanes_count == 0)
		return;
	for (size_t i = 0; i < map->lanes_count; i++) {
		largest = map->lanes[i].held > largest ? map->lanes[i].held : largest;
		largest = map->lanes[i].fast_held > largest ? map->lanes[i].fast_held : largest;
	}
	page_end_line(p);
	page_put(p, "%-*s%8s%6s%6s%6s%6s%7s", NAME_WIDTH + 7 + BAR, "lanes", "objects", "live", "held", "waste", "cold", "packed");
	page_end_line(p);
	for (size_t i = 0; i < map->lanes_count; i++)
		draw_lanes(p, &map->lanes[i], largest);
}

/* ---- JSON ---- */

static void put_numbers(FILE *out, const struct map_lanes_number *numbers, size_t count, const void *record)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t n;

		memcpy(&n, (const char *)record + numbers[i].offset, sizeof(n));
		fprintf(out, ",\"%s\":%" PRIu64, numbers[i].name, n);
	}
}

void map_print_lanes_json(const struct map *map, FILE *out)
{
	fputs(",\n\"lanes\":[", out);
	for (size_t i = 0; i < map->lanes_count; i++) {
		const struct map_lanes *lanes = &map->lanes[i];

		fputs(i ? ",\n{\"name\":" : "\n{\"name\":", out);
		json_put_string(out, lanes->name);
		put_numbers(out, lanes_numbers, COUNT_OF(lanes_numbers), lanes);
		fputs(",\"parts\":[", out);
		for (size_t k = 0; k < lanes->part_count; k++) {
			fprintf(out, "%s{\"kind\":\"%s\",\"name\":", k ? ",\n" : "\n", lanes->parts[k].kind);
			json_put_string(out, lanes->parts[k].name);
			put_numbers(out, part_numbers, COUNT_OF(part_numbers), &lanes->parts[k]);
			fputc('}', out);
		}
		fputs("]}", out);
	}
	fputc(']', out);
}
