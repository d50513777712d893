/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "lib/view/health.h"
#include "lib/view/lanes.h"
#include "lib/view/print.h"
#include "numa/os.h"
#include "numa/topology.h"

/* (Overlong forms, surrogates and what is past U+10FFFF are not well-formed.) */
size_t qy_utf8_length(const unsigned char *s, size_t n)
{
	size_t length = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 :
			s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	if (length == 0 || length > n)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] >= 0x90))
		return 0;
	return length;
}

/* Names are bytes that a program chose, cut at a length: what is no text becomes U+FFFD. */
void qy_print_json_string(struct qy_text *out, const char *string, size_t n)
{
	const unsigned char *s = (const unsigned char *)string;

	qy_text_put(out, "\"", 1);
	for (size_t i = 0; i < n;) {
		size_t length = qy_utf8_length(s + i, n - i);
		if (length == 0)
			qy_text_format(out, "\\ufffd");
		else if (length == 1 && (s[i] < 0x20 || s[i] == 0x7f))
			qy_text_format(out, "\\u%04x", s[i]);
		else if (s[i] == '"' || s[i] == '\\')
			qy_text_format(out, "\\%c", s[i]);
		else
			qy_text_put(out, string + i, length);
		i += length ? length : 1;
	}
	qy_text_put(out, "\"", 1);
}

static void json_kinds(struct qy_text *out, const char *name, const uint64_t by_kind[QY_PAGE_KINDS])
{
	qy_text_format(out, ",\"%s\":{", name);
	for (int kind = 0; kind < QY_PAGE_KINDS; kind++)
		qy_text_format(out, "%s\"%s\":%llu", kind ? "," : "", qy_page_kind_name(kind),
			       (unsigned long long)by_kind[kind]);
	qy_text_format(out, "}");
}

/* ---- the machine ---- */

static unsigned long long long_of(uint64_t n)
{
	return n;
}

/* A small file's one line; nothing of it when it cannot be read. */
static size_t read_line(const char *path, char *line, size_t size)
{
	ssize_t n = qy_os->read_file(path, line, size);

	if (n < 0)
		line[0] = '\0';
	return strcspn(line, "\n");
}

static void json_cpus(struct qy_text *out, int id)
{
	char path[64], cpus[1024];
	struct qy_text name;

	qy_text_init(&name, path, sizeof(path), -1);
	qy_text_format(&name, "/sys/devices/system/node/node%d/cpulist", id);
	qy_text_format(out, ",\"cpus\":");
	qy_print_json_string(out, cpus, read_line(path, cpus, sizeof(cpus)));
}

static void json_node(struct qy_text *out, int node)
{
	quarry_node_info info = { .struct_size = sizeof(info) };

	if (qy_node_info(node, &info) != 0)
		return;
	qy_text_format(out, "%s\n{\"id\":%d,\"index\":%d,\"has_cpus\":%d,\"has_memory\":%d,\"allowed\":%d",
		       node ? "," : "", info.id, info.index, info.has_cpus, info.has_memory, info.allowed);
	json_cpus(out, info.id);
	qy_text_format(out, ",\"memory_total\":%llu,\"memory_free\":%llu", long_of(info.memory_total),
		       long_of(info.memory_free));
	qy_text_format(out,
		       ",\"huge_free_2m\":%llu,\"huge_total_2m\":%llu,\"huge_free_1g\":%llu,\"huge_total_1g\":%llu",
		       long_of(info.huge_free_2m), long_of(info.huge_total_2m), long_of(info.huge_free_1g),
		       long_of(info.huge_total_1g));
	qy_text_format(out, ",\"distance\":[");
	for (int to = 0; to < qy_node_count(); to++)
		qy_text_format(out, "%s%d", to ? "," : "", qy_node_distance(node, to));
	qy_text_format(out, "]}");
}

/* All nodes of the machine, also those that this process may not use; distances stand in the same order. */
static void json_machine(struct qy_text *out)
{
	char name[64];

	qy_text_format(out, ",\n\"process\":{\"pid\":%d,\"name\":", qy_os->process_id());
	qy_print_json_string(out, name, read_line("/proc/self/comm", name, sizeof(name)));
	qy_text_format(out, "},\n\"nodes\":[");
	for (int node = 0; node < qy_node_count(); node++)
		json_node(out, node);
	qy_text_format(out, "]");
}

/* ---- placement ---- */

static void json_asked(struct qy_text *out, const struct qy_asked *asked)
{
	bool first = true;

	qy_text_format(out, ",\"policy\":\"%s\",\"kind\":\"%s\",\"strict\":%d,\"nodes\":[",
		       qy_policy_name(asked->policy), qy_page_kind_name(asked->kind),
		       (asked->flags & QUARRY_ARENA_STRICT) != 0);
	for (unsigned n = 0; n < QUARRY_NODES_MAX; n++) {
		if (!quarry_nodeset_has(&asked->nodes, n))
			continue;
		qy_text_format(out, "%s%u", first ? "" : ",", n);
		first = false;
	}
	qy_text_format(out, "]");
}

static void json_residencies(struct qy_text *out, const struct qy_residencies *list)
{
	qy_text_format(out, ",\"on_nodes\":[");
	for (size_t i = 0; i < list->count; i++) {
		const quarry_residency *r = &list->at[i];

		qy_text_format(out, "%s{\"node\":%d,\"bytes\":%llu", i ? "," : "", r->node, long_of(r->bytes));
		json_kinds(out, "by_kind", r->by_kind);
		qy_text_format(out, ",\"strayed\":%llu}", long_of(r->strayed));
	}
	qy_text_format(out, "]");
}

static void json_placement(struct qy_text *out, quarry_arena *arena)
{
	struct qy_residencies list;
	struct qy_asked asked;

	if (qy_asked_get(&asked, arena))
		json_asked(out, &asked);
	if (qy_residencies_get(&list, arena)) {
		json_residencies(out, &list);
		qy_residencies_put(&list);
	}
}

static void json_stats(struct qy_text *out, const quarry_stats *stats)
{
	const struct qy_figure *figure;

	qy_text_format(out, "{\"name\":");
	qy_print_json_string(out, stats->name, strnlen(stats->name, sizeof(stats->name)));
	qy_text_format(out, ",\"node\":%d", stats->node);
	for (int i = 0; (figure = qy_figure(i)) != NULL; i++)
		qy_text_format(out, ",\"%s\":%llu", figure->name, long_of(qy_figure_value(figure, stats)));
	json_kinds(out, "kind_wanted", stats->kind_wanted);
	json_kinds(out, "kind_got", stats->kind_got);
}

void qy_print_json(struct qy_text *out, const quarry_stats *total, const struct qy_arena_list *list)
{
	const char *name;
	bool first = true;

	qy_text_format(out, "{\"quarry\":");
	qy_print_json_string(out, quarry_version_string(), strlen(quarry_version_string()));
	qy_text_format(out, ",\"version\":%d", QUARRY_STATS_VERSION);
	json_machine(out);
	qy_text_format(out, ",\n\"total\":");
	json_stats(out, total);
	qy_text_format(out, "},\n\"refused\":{");
	for (int i = 0; (name = quarry_refusal_name(i)) != NULL; i++)
		qy_text_format(out, "%s\"%s\":%llu", i ? "," : "", name, long_of(total->refused[i]));
	qy_text_format(out, "},\n\"pressure\":");
	qy_health_json(out);
	qy_text_format(out, ",\n\"lanes\":");
	qy_lanes_print_json(out);
	qy_text_format(out, ",\n\"arenas_not_listed\":%zu,\n\"arenas\":[", list->missing);
	for (size_t i = 0; i < list->count; i++) {
		quarry_stats stats;
		if (!qy_arena_list_stats(list, i, &stats))
			continue;
		qy_text_format(out, "%s\n", first ? "" : ",");
		json_stats(out, &stats);
		json_placement(out, list->at[i]);
		qy_text_format(out, "}");
		first = false;
	}
	qy_text_format(out, "]}\n");
}
