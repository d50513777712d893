/* SPDX-License-Identifier: MIT */
/* Which stacks hold what few bytes keep from going back, as text and as JSON. */
#include <string.h>

#include "lib/view/holders.h"
#include "lib/view/print.h"

#define WORST 5   /* rows that are told of, */
#define STACKS 3  /* and of each so many stacks */
#define FRAMES 8  /* of a stack, in text */
#define WIDTH 80

static const char *const ages[QY_SITE_LIVES] = { "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s", "1000 s", "" };

static unsigned long long long_of(uint64_t n)
{
	return n;
}

/* What slabs hold that are used to less than a half. */
static uint64_t wasted(const quarry_view_use *use)
{
	return use->kind == QUARRY_VIEW_SLAB ? use->held_by_use[0] + use->held_by_use[1] : 0;
}

static size_t find_worst(const struct qy_uses *uses, const quarry_view_use *worst[WORST])
{
	size_t count = 0;

	for (size_t i = 0; i < uses->count; i++) {
		const quarry_view_use *use = &uses->rows[i];
		size_t at = count;

		if (wasted(use) == 0 || use->object_size == 0)
			continue;
		for (; at > 0 && wasted(worst[at - 1]) < wasted(use); at--)
			if (at < WORST)
				worst[at] = worst[at - 1];
		if (at < WORST)
			worst[at] = use;
		count += count < WORST;
	}
	return count;
}

/* ---- for people ---- */

/* The age that half of them have passed. */
static unsigned median(const struct qy_holder *h)
{
	uint64_t sum = 0, half = 0;
	unsigned i = 0;

	for (unsigned k = 0; k < QY_SITE_LIVES; k++)
		sum += h->ages[k];
	while (i < QY_SITE_LIVES - 1 && (half += h->ages[i]) * 2 < sum)
		i++;
	return i;
}

/* A line for each frame: names may be as long as they like. */
static void text_frames(struct qy_text *out, const struct qy_site *s)
{
	char name[256];
	struct qy_text text;

	if (s->depth == 0)
		qy_text_format(out, "        no stack is known\n");
	for (uint32_t i = 0; i < s->depth && i < FRAMES; i++) {
		qy_text_init(&text, name, sizeof(name), -1);
		qy_put_frame(&text, s->frames[i]);
		qy_text_put(out, "        ", 8);
		qy_text_quoted(out, name, text.used, WIDTH - 8 - 3);
		qy_text_put(out, "\n", 1);
	}
	if (s->depth > FRAMES)
		qy_text_format(out, "        and %u more\n", s->depth - FRAMES);
}

static void text_holder(struct qy_text *out, const struct qy_holder *h)
{
	unsigned age = median(h);

	qy_text_bytes_short(out, h->figures.live_bytes, 8);
	qy_text_format(out, " in %llu objects (%llu samples), half of them ", long_of(h->figures.live_objects),
		       long_of(h->figures.live));
	qy_text_format(out, age + 1 < QY_SITE_LIVES ? "younger than %s\n" : "older than %s\n",
		       ages[age + 1 < QY_SITE_LIVES ? age : age - 1]);
	text_frames(out, h->site);
}

void qy_holders_text(struct qy_text *out, const struct qy_uses *uses)
{
	const quarry_view_use *worst[WORST];
	size_t count = find_worst(uses, worst);
	bool begun = false;

	for (size_t i = 0; i < count; i++) {
		struct qy_holder list[STACKS] = { { .site = NULL } };
		const char *name = worst[i]->arena_name[0] ? worst[i]->arena_name : "(no name)";
		size_t n = qy_holders_get(worst[i], list, STACKS);

		if (n == 0)
			continue;
		if (!begun)
			qy_text_format(out, "\nheld by slabs used to less than 50 %%, and who allocated what lives of that "
					    "size\n");
		begun = true;
		qy_text_bytes_short(out, wasted(worst[i]), 8);
		qy_text_format(out, " by %zu bytes of ", worst[i]->object_size);
		qy_text_quoted(out, name, strlen(name), QUARRY_ARENA_NAME_MAX);
		qy_text_format(out, n > STACKS ? ": %zu stacks, first of them\n" : ": %zu stacks\n", n);
		for (size_t k = 0; k < n && k < STACKS; k++)
			text_holder(out, &list[k]);
	}
}

/* ---- for programs ---- */

static void json_holder(struct qy_text *out, const struct qy_holder *h)
{
	char name[512];
	struct qy_text text;

	qy_text_format(out, "{\"samples\":%llu,\"objects\":%llu,\"bytes\":%llu,\"ages_ms\":{", long_of(h->figures.live),
		       long_of(h->figures.live_objects), long_of(h->figures.live_bytes));
	for (unsigned i = 0, most = 1; i < QY_SITE_LIVES; i++, most *= 10) {
		qy_text_format(out, i + 1 < QY_SITE_LIVES ? "%s\"<%u\":" : "%s\">=%u\":", i > 0 ? "," : "",
			       i + 1 < QY_SITE_LIVES ? most : most / 10);
		qy_text_format(out, "%llu", long_of((h->ages[i] + QY_WEIGHT_ONE / 2) / QY_WEIGHT_ONE));
	}
	qy_text_format(out, "},\"stack\":[");
	for (uint32_t i = 0; i < h->site->depth; i++)
		qy_text_format(out, "%s\"%p\"", i > 0 ? "," : "", h->site->frames[i]);
	qy_text_format(out, "],\"names\":[");
	for (uint32_t i = 0; i < h->site->depth; i++) {
		qy_text_init(&text, name, sizeof(name), -1);
		qy_put_frame(&text, h->site->frames[i]);
		qy_text_format(out, "%s", i > 0 ? "," : "");
		qy_print_json_string(out, name, text.used);
	}
	qy_text_format(out, "]}");
}

void qy_holders_json(struct qy_text *out, const struct qy_uses *uses)
{
	const quarry_view_use *worst[WORST];
	size_t count = find_worst(uses, worst);
	bool begun = false;

	qy_text_format(out, ",\n\"holders\":[");
	for (size_t i = 0; i < count; i++) {
		struct qy_holder list[STACKS] = { { .site = NULL } };
		size_t n = qy_holders_get(worst[i], list, STACKS);

		if (n == 0)
			continue;
		qy_text_format(out, "%s\n{\"arena\":", begun ? "," : "");
		begun = true;
		qy_print_json_string(out, worst[i]->arena_name, strlen(worst[i]->arena_name));
		qy_text_format(out, ",\"object_size\":%zu,\"held\":%llu,\"stacks\":%zu,\"most\":[", worst[i]->object_size,
			       long_of(wasted(worst[i])), n);
		for (size_t k = 0; k < n && k < STACKS; k++) {
			qy_text_format(out, "%s\n", k > 0 ? "," : "");
			json_holder(out, &list[k]);
		}
		qy_text_format(out, "]}");
	}
	qy_text_put(out, "]", 1);
}
