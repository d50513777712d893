/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "lib/view/print.h"

/* The length of the well-formed UTF-8 character at s (of n bytes); 0 when there is none. Overlong forms, surrogates
 * and what is past U+10FFFF are not well-formed. */
static size_t utf8_length(const unsigned char *s, size_t n)
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
static void json_string(struct qy_text *out, const char *string, size_t n)
{
	const unsigned char *s = (const unsigned char *)string;

	qy_text_put(out, "\"", 1);
	for (size_t i = 0; i < n;) {
		size_t length = utf8_length(s + i, n - i);
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

static void json_stats(struct qy_text *out, const quarry_stats *stats)
{
	const struct qy_figure *figure;

	qy_text_format(out, "{\"name\":");
	json_string(out, stats->name, strnlen(stats->name, sizeof(stats->name)));
	qy_text_format(out, ",\"node\":%d", stats->node);
	for (int i = 0; (figure = qy_figure(i)) != NULL; i++)
		qy_text_format(out, ",\"%s\":%llu", figure->name, (unsigned long long)qy_figure_value(figure, stats));
	json_kinds(out, "kind_wanted", stats->kind_wanted);
	json_kinds(out, "kind_got", stats->kind_got);
	qy_text_format(out, "}");
}

void qy_print_json(struct qy_text *out, const quarry_stats *total, const struct qy_arena_list *list)
{
	const char *name;
	bool first = true;

	qy_text_format(out, "{\"quarry\":");
	json_string(out, quarry_version_string(), strlen(quarry_version_string()));
	qy_text_format(out, ",\"version\":%d,\n\"total\":", QUARRY_STATS_VERSION);
	json_stats(out, total);
	qy_text_format(out, ",\n\"refused\":{");
	for (int i = 0; (name = quarry_refusal_name(i)) != NULL; i++)
		qy_text_format(out, "%s\"%s\":%llu", i ? "," : "", name, (unsigned long long)total->refused[i]);
	qy_text_format(out, "},\n\"arenas_not_listed\":%zu,\n\"arenas\":[", list->missing);
	for (size_t i = 0; i < list->count; i++) {
		quarry_stats stats;
		if (!qy_print_arena_stats(list->at[i], &stats))
			continue;
		qy_text_format(out, "%s\n", first ? "" : ",");
		json_stats(out, &stats);
		first = false;
	}
	qy_text_format(out, "]}\n");
}
