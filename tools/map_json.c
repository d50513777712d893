/* SPDX-License-Identifier: MIT */
/* A map as one JSON object, for programs: what the pictures show, with all figures in full. */
#include "tools/map.h"

#include <inttypes.h>
#include <string.h>

#include "tools/json.h"
#include "tools/map_heap.h"
#include "tools/map_lanes.h"

static void put_kinds(FILE *out, const char *name, const uint64_t by_kind[MAP_KINDS])
{
	fprintf(out, ",\"%s\":{", name);
	for (int kind = 0; kind < MAP_KINDS; kind++)
		fprintf(out, "%s\"%s\":%" PRIu64, kind ? "," : "", kind ? map_kind_name(kind) : "auto", by_kind[kind]);
	fputc('}', out);
}

static void put_node(FILE *out, const struct map *map, const struct map_node *node)
{
	fprintf(out, "{\"id\":%d,\"has_cpus\":%d,\"has_memory\":%d,\"allowed\":%d,\"cpus\":", node->id, node->has_cpus,
		node->has_memory, node->allowed);
	json_put_string(out, node->cpus);
	fprintf(out, ",\"memory_total\":%" PRIu64 ",\"memory_free\":%" PRIu64, node->memory_total, node->memory_free);
	fprintf(out, ",\"huge_free_2m\":%" PRIu64 ",\"huge_total_2m\":%" PRIu64 ",\"huge_free_1g\":%" PRIu64
		     ",\"huge_total_1g\":%" PRIu64,
		node->huge_free[0], node->huge_total[0], node->huge_free[1], node->huge_total[1]);
	fprintf(out, ",\"bandwidth\":%" PRIu64 ",\"latency\":%" PRIu64, node->bandwidth, node->latency);
	if (node->distance) {
		fputs(",\"distance\":[", out);
		for (size_t i = 0; i < map->node_count; i++)
			fprintf(out, "%s%d", i ? "," : "", node->distance[i]);
		fputc(']', out);
	}
	if (map->of != MAP_MACHINE) {
		fprintf(out, ",\"held\":%" PRIu64, node->held);
		put_kinds(out, "held_by_kind", node->held_by_kind);
	}
	fputc('}', out);
}

static void put_share(FILE *out, const struct map_share *share)
{
	fprintf(out, "{\"node\":%d,\"bytes\":%" PRIu64, share->node, share->bytes);
	put_kinds(out, "by_kind", share->by_kind);
	fprintf(out, ",\"strayed\":%" PRIu64 "}", share->strayed);
}

static void put_arena(FILE *out, const struct map *map, const struct map_arena *arena)
{
	fputs("{\"name\":", out);
	json_put_string(out, arena->name);
	if (map->of == MAP_DUMP) {
		fputs(",\"policy\":", out);
		json_put_string(out, arena->policy ? arena->policy : "");
		fputs(",\"kind\":", out);
		json_put_string(out, arena->kind ? arena->kind : "");
		fputs(",\"nodes\":", out);
		json_put_string(out, arena->asked ? arena->asked : "");
		fprintf(out, ",\"mapped\":%" PRIu64 ",\"resident\":%" PRIu64 ",\"in_use\":%" PRIu64 ",\"cached\":%" PRIu64,
			arena->mapped, arena->resident, arena->in_use, arena->cached);
		fprintf(out, ",\"free_dirty\":%" PRIu64 ",\"free_clean\":%" PRIu64 ",\"unplaced\":%" PRIu64
			     ",\"placed_less\":%" PRIu64 ",\"hard_limit\":%" PRIu64,
			arena->free_dirty, arena->free_clean, arena->unplaced, arena->placed_less, arena->hard_limit);
		put_kinds(out, "kind_wanted", arena->kind_wanted);
		put_kinds(out, "kind_got", arena->kind_got);
	}
	fputs(",\"on_nodes\":[", out);
	for (size_t i = 0; i < arena->share_count; i++) {
		if (i > 0)
			fputc(',', out);
		put_share(out, &arena->shares[i]);
	}
	fputs("]}", out);
}

void map_print_json(const struct map *map, FILE *out)
{
	static const char *const of[] = { "machine", "dump", "process", "view" };

	fprintf(out, "{\"map\":\"%s\"", of[map->of]);
	if (map->of != MAP_MACHINE) {
		fprintf(out, ",\"process\":{\"pid\":%d,\"name\":", map->pid);
		json_put_string(out, map->program);
		fputc('}', out);
	}
	if (map->note[0]) {
		fputs(",\"note\":", out);
		json_put_string(out, map->note);
	}
	fputs(",\n\"nodes\":[", out);
	for (size_t i = 0; i < map->node_count; i++) {
		fputs(i ? ",\n" : "\n", out);
		put_node(out, map, &map->nodes[i]);
	}
	fputs("],\n\"arenas\":[", out);
	for (size_t i = 0; i < map->arena_count; i++) {
		fputs(i ? ",\n" : "\n", out);
		put_arena(out, map, &map->arenas[i]);
	}
	fputs("],\n\"refused\":{", out);
	for (size_t i = 0; i < map->refused_count; i++) {
		if (i > 0)
			fputc(',', out);
		json_put_string(out, map->refused[i].name);
		fprintf(out, ":%" PRIu64, map->refused[i].count);
	}
	fputs("}", out);
	if (map->lanes_count > 0)
		map_print_lanes_json(map, out);
	if (map->of == MAP_VIEW)
		heap_print_json(map, out);
	fputs("}\n", out);
}
