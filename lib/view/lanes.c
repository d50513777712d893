/* SPDX-License-Identifier: MIT */
#include "lib/view/lanes.h"

#include <string.h>
#include <sys/mman.h>

#include "lib/api/sources.h"
#include "lib/view/print.h"
#include "numa/os.h"

#define LANES_MOST 127
#define PARTS_MOST 1024

/* ---- the table ---- */

#define LANES(field, name, unit, counter, help) { name, unit, offsetof(quarry_lanes_figures, field), counter, help }
#define PART(field, name, unit, counter, help) { name, unit, offsetof(quarry_lanes_part, field), counter, help }

static const struct qy_lanes_field of_lanes[] = {
	LANES(objects, "objects", "", false, "Objects in the slow lane."),
	LANES(live, "live_bytes", "bytes", false, "What they may use."),
	LANES(held, "held_bytes", "bytes", false, "All memory of the slow lane."),
	{ "waste_bytes", "bytes", QY_LANES_WASTE, false, "What it holds beside live objects." },
	LANES(waiting, "waiting_bytes", "bytes", false, "Of that: freed, and not to be used again yet."),
	LANES(scratch, "scratch_bytes", "bytes", false, "Kept for moves when there is no other memory."),
	LANES(segments, "segments", "", false, "Segments of 2 MiB."),
	LANES(allocated, "allocated_objects", "", true, "Objects of the slow lane that room was taken for."),
	LANES(fast_objects, "fast_objects", "", false, "Objects in the fast lane."),
	LANES(fast_live, "fast_live_bytes", "bytes", false, "What they may use."),
	LANES(fast_held, "fast_held_bytes", "bytes", false, "All chunks of the fast lane."),
	{ "fast_waste_bytes", "bytes", QY_LANES_FAST_WASTE, false, "What it holds beside live objects." },
	LANES(fast_allocated, "fast_allocated_bytes", "bytes", true, "Chunks of the fast lane that were filled."),
	LANES(fast_ticks, "fast_ticks", "", true, "Ticks."),
	LANES(fast_resets, "fast_resets", "", true, "Chunks of the fast lane that began anew."),
	LANES(fast_stubs, "fast_stubs", "", false, "Objects born in the fast lane that are in the slow one."),
	LANES(fast_spilled, "fast_spilled_objects", "", true, "Objects that the fast lane had no room for."),
	LANES(fast_failed_over, "failed_over_objects", "", true, "Objects that only an arena of failover had room for."),
	LANES(fast_refused, "refused_objects", "", true, "Objects refused for their priority, or as they were not to spill."),
	LANES(handles, "handles", "", false, "Slots of handles that were ever used."),
	LANES(retired, "retired_handles", "", true, "Of those: whose generations are used up."),
	LANES(moved_bytes, "compacted_bytes", "bytes", true, "Bytes moved by compaction and to other nodes."),
	LANES(given_up, "moves_given_up", "", true, "Moves that a writer, a pin, a free or want of memory stopped."),
	LANES(freed_segments, "freed_segments", "", true, "Segments that compaction gave back."),
	LANES(mover_plans, "mover_plans", "", true, "Times that the mover in the background looked at all segments."),
	LANES(recalled, "recalled_caches", "", true, "Times that the spans of a thread were taken back."),
	LANES(cold_objects, "cold_objects", "", false, "Objects that are compressed."),
	LANES(cold_bytes, "cold_bytes", "bytes", false, "As large as they were."),
	LANES(cold_compressed, "cold_compressed_bytes", "bytes", false, "What is in memory instead."),
	LANES(cold_evicted, "cold_evicted_bytes", "bytes", false, "What is in the file instead."),
	LANES(incompressible, "cold_incompressible", "", true, "Times that objects were not worth compressing."),
	LANES(corrupt, "cold_corrupt_pieces", "", true, "Pieces of compressed memory that are lost."),
	LANES(failures, "cold_file_failures", "", true, "Failures of the file."),
	LANES(deepened, "cold_deepened_pieces", "", true, "Pieces that were cold for long, and were compressed anew."),
	LANES(dictionaries, "cold_dictionaries", "", false, "Dictionaries that those are compressed by."),
	LANES(dictionary_bytes, "cold_dictionary_bytes", "bytes", false, "And their bytes."),
}, of_parts[] = {
	PART(objects, "objects", "", false, "Objects."),
	PART(live, "live_bytes", "bytes", false, "What they may use."),
	PART(held, "held_bytes", "bytes", false, "Memory of a class; 0 of a group."),
	{ "waste_bytes", "bytes", QY_PART_WASTE, false, "What a class holds beside live objects." },
	PART(allocated, "allocated_objects", "", true, "Objects of a class that room was taken for, or that came to a group."),
	PART(moved, "moved_objects", "", true, "Objects moved, within memory."),
	PART(cooled, "cooled_objects", "", true, "Objects that were compressed."),
	PART(refaults, "refaulted_objects", "", true, "Objects that came back from there."),
	PART(cold_objects, "cold_objects", "", false, "Objects that are compressed."),
	PART(cold_bytes, "cold_bytes", "bytes", false, "As large as they were."),
	PART(limit, "limit_bytes", "bytes", false, "What a group may have; 0: any."),
	PART(refused, "refused_objects", "", true, "Objects that a group had no room for."),
	PART(lived, "lived_objects", "", true, "Objects that were freed, as samples tell."),
};

const struct qy_lanes_field *qy_lanes_field(int index)
{
	return index >= 0 && (size_t)index < sizeof(of_lanes) / sizeof(of_lanes[0]) ? &of_lanes[index] : NULL;
}

const struct qy_lanes_field *qy_part_field(int index)
{
	return index >= 0 && (size_t)index < sizeof(of_parts) / sizeof(of_parts[0]) ? &of_parts[index] : NULL;
}

static uint64_t beyond(uint64_t held, uint64_t live)
{
	return held > live ? held - live : 0;
}

uint64_t qy_lanes_value(const struct qy_lanes_field *field, const void *record)
{
	const quarry_lanes_figures *g = record;
	const quarry_lanes_part *p = record;
	uint64_t n;

	switch (field->offset) {
	case QY_LANES_WASTE: return beyond(g->held, g->live);
	case QY_LANES_FAST_WASTE: return beyond(g->fast_held, g->fast_live);
	case QY_PART_WASTE: return beyond(p->held, p->live);
	default: break;
	}
	memcpy(&n, (const char *)record + field->offset, sizeof(n));
	return n;
}

/* ---- the list ---- */

void qy_lanes_list_get(struct qy_lanes_list *list)
{
	const struct qy_lanes_source *source = qy_lanes_source();
	size_t lanes = LANES_MOST * sizeof(*list->at);
	void *p;

	*list = (struct qy_lanes_list){ .mapped = 0 };
	if (source == NULL)
		return;
	list->mapped = qy_align_up(lanes + PARTS_MOST * sizeof(*list->parts), qy_os_page_size());
	p = qy_os->mmap(NULL, list->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		list->mapped = 0;
		return;
	}
	list->at = p;
	list->parts = (void *)((char *)p + lanes);
	list->count = qy_min(source->lanes(list->at, LANES_MOST, true), LANES_MOST);
}

size_t qy_lanes_list_parts(struct qy_lanes_list *list, size_t index)
{
	return qy_min(qy_lanes_source()->parts(list->at[index].number, list->parts, PARTS_MOST, true), PARTS_MOST);
}

void qy_lanes_list_put(struct qy_lanes_list *list)
{
	if (list->mapped > 0)
		qy_os->munmap(list->at, list->mapped);
}

/* ---- JSON ---- */

static unsigned long long long_of(uint64_t n)
{
	return n;
}

static void json_name(struct qy_text *out, const char *name, size_t size)
{
	qy_text_format(out, ",\"name\":");
	qy_print_json_string(out, name, strnlen(name, size));
}

static void json_lives(struct qy_text *out, const char *name, uint64_t count, uint64_t us, const uint64_t *in)
{
	int last = QUARRY_LIFETIMES;

	while (last > 0 && in[last - 1] == 0)
		last--;
	qy_text_format(out, ",\"%s\":{\"objects\":%llu,\"us\":%llu,\"log2_us\":[", name, long_of(count), long_of(us));
	for (int i = 0; i < last; i++)
		qy_text_format(out, "%s%llu", i ? "," : "", long_of(in[i]));
	qy_text_format(out, "]}");
}

static void json_part(struct qy_text *out, const quarry_lanes_part *p)
{
	const struct qy_lanes_field *field;

	qy_text_format(out, "{\"size\":%llu", long_of(p->size));
	json_name(out, p->name, sizeof(p->name));
	for (int i = 0; (field = qy_part_field(i)) != NULL; i++)
		qy_text_format(out, ",\"%s\":%llu", field->name, long_of(qy_lanes_value(field, p)));
	json_lives(out, "lifetimes", p->lived, p->lived_us, p->lifetimes);
	qy_text_format(out, "}");
}

static void json_parts(struct qy_text *out, const struct qy_lanes_list *list, size_t count, uint32_t kind, const char *name)
{
	bool first = true;

	qy_text_format(out, ",\"%s\":[", name);
	for (size_t i = 0; i < count; i++) {
		if (list->parts[i].kind != kind)
			continue;
		qy_text_format(out, first ? "\n" : ",\n");
		json_part(out, &list->parts[i]);
		first = false;
	}
	qy_text_format(out, "]");
}

static void json_lanes(struct qy_text *out, struct qy_lanes_list *list, size_t index)
{
	const quarry_lanes_figures *g = &list->at[index];
	size_t parts = qy_lanes_list_parts(list, index);
	const struct qy_lanes_field *field;

	qy_text_format(out, "{\"number\":%u", g->number);
	json_name(out, g->name, sizeof(g->name));
	for (int i = 0; (field = qy_lanes_field(i)) != NULL; i++)
		qy_text_format(out, ",\"%s\":%llu", field->name, long_of(qy_lanes_value(field, g)));
	qy_text_format(out, ",\"mover_ns\":%llu,\"cold_period_ms\":%llu", long_of(g->mover_ns), long_of(g->cold_period_ms));
	qy_text_format(out, ",\"moved\":{");
	for (int why = 0; why < QUARRY_MOVES; why++)
		qy_text_format(out, "%s\"%s\":%llu", why ? "," : "", quarry_move_name(why), long_of(g->moved[why]));
	qy_text_format(out, "}");
	json_lives(out, "lifetimes", g->lived[0], g->lived_us[0], g->lifetimes[0]);
	json_lives(out, "fast_lifetimes", g->lived[1], g->lived_us[1], g->lifetimes[1]);
	json_parts(out, list, parts, QUARRY_PART_CLASS, "classes");
	json_parts(out, list, parts, QUARRY_PART_GROUP, "groups");
	json_parts(out, list, parts, QUARRY_PART_TAG, "tags");
	qy_text_format(out, "}");
}

void qy_lanes_print_json(struct qy_text *out)
{
	struct qy_lanes_list list;

	qy_lanes_list_get(&list);
	qy_text_format(out, "[");
	for (size_t i = 0; i < list.count; i++) {
		qy_text_format(out, i ? ",\n" : "\n");
		json_lanes(out, &list, i);
	}
	qy_text_format(out, "]");
	qy_lanes_list_put(&list);
}

/* ---- text ---- */

static void text_columns(struct qy_text *out, const uint64_t *columns, int n)
{
	for (int i = 0; i < n; i++)
		qy_text_bytes_short(out, columns[i], 8);
}

static void text_lanes(struct qy_text *out, const quarry_lanes_figures *g)
{
	const uint64_t slow[] = { g->live, g->held, g->moved_bytes, g->cold_bytes, g->cold_compressed + g->cold_evicted };
	const uint64_t fast[] = { g->fast_live, g->fast_held };
	char name[sizeof(g->name)];
	size_t n = strnlen(g->name, sizeof(g->name));

	for (size_t i = 0; i < n; i++)
		name[i] = (unsigned char)g->name[i] < 0x20 || g->name[i] == 0x7f ? '?' : g->name[i];
	name[n < sizeof(name) ? n : n - 1] = '\0';
	qy_text_format(out, "%3u %-18.18s%-5s%8llu", g->number, name, "slow", long_of(g->objects));
	text_columns(out, slow, 5);
	qy_text_put(out, "\n", 1);
	if (g->fast_held == 0)
		return;
	qy_text_format(out, "%-22s%-5s%8llu", "", "fast", long_of(g->fast_objects));
	text_columns(out, fast, 2);
	qy_text_put(out, "\n", 1);
}

void qy_lanes_print_text(struct qy_text *out)
{
	struct qy_lanes_list list;

	qy_lanes_list_get(&list);
	if (list.count > 0)
		qy_text_format(out, "\n%-22s%-5s%8s%8s%8s%8s%8s%8s\n", "lanes", "", "objects", "live", "held", "moved", "cold",
			       "packed");
	for (size_t i = 0; i < list.count; i++)
		text_lanes(out, &list.at[i]);
	qy_lanes_list_put(&list);
}
