/* SPDX-License-Identifier: MIT */
/* How it went, in a few lines: how much, on which pages, and what was not as it should be. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/view/print.h"
#include "lib/view/tell.h"
#include "numa/os.h"
#include "numa/topology.h"

#define NAME_MOST 64

/* The most that was in memory of the process, not of ours alone: bytes, or 0. */
static uint64_t peak_resident(void)
{
	char text[4096];
	const char *line;
	uint64_t kib = 0;

	if (qy_os->read_file("/proc/self/status", text, sizeof(text)) <= 0)
		return 0;
	line = strstr(text, "\nVmHWM:");
	if (line == NULL)
		return 0;
	for (line += strcspn(line, "0123456789"); *line >= '0' && *line <= '9'; line++)
		kib = kib * 10 + (uint64_t)(*line - '0');
	return kib << 10;
}

static void amounts(struct qy_text *out, const quarry_stats *t)
{
	uint64_t resident = peak_resident(), minor, major;

	qy_os->page_faults(&minor, &major);
	qy_text_format(out, "quarry %s: ", quarry_version_string());
	qy_text_quoted(out, program_invocation_short_name, strlen(program_invocation_short_name), NAME_MOST);
	qy_text_format(out, " (%d): ", qy_os->process_id());
	qy_text_bytes(out, t->peak_mapped);
	qy_text_format(out, " mapped at most, ");
	qy_text_bytes(out, t->in_use);
	qy_text_format(out, " in use now\n  process    ");
	if (resident != 0) {
		qy_text_bytes(out, resident);
		qy_text_format(out, " resident at most, ");
	}
	qy_text_format(out, "%llu page faults\n", (unsigned long long)(minor + major));
}

/* (AUTO is what was left to us.) */
static void kinds(struct qy_text *out, const quarry_stats *t)
{
	const char *before = "  pages      ";

	for (int kind = QUARRY_PAGES_BASE; kind < QY_PAGE_KINDS; kind++) {
		if (t->kind_got[kind] == 0 && t->kind_wanted[kind] == 0)
			continue;
		qy_text_format(out, "%s%s ", before, qy_page_kind_name(kind));
		qy_text_bytes(out, t->kind_got[kind]);
		if (t->kind_wanted[kind] > t->kind_got[kind]) {
			qy_text_format(out, " of ");
			qy_text_bytes(out, t->kind_wanted[kind]);
			qy_text_format(out, " wanted");
		}
		before = ", ";
	}
	if (*before == ',')
		qy_text_put(out, "\n", 1);
}

static void refusals(struct qy_text *out, const quarry_stats *t)
{
	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++) {
		const char *why = qy_refusal_why(i);

		if (t->refused[i] != 0)
			qy_text_format(out, "  refused    %s, %llu time%s%s%s\n", quarry_refusal_name(i),
				       (unsigned long long)t->refused[i], t->refused[i] == 1 ? "" : "s",
				       why == NULL ? "" : ": ", why == NULL ? "" : why);
	}
	if (t->bad_frees != 0)
		qy_text_format(out, "  bad frees  %llu of what was not live: on_error=report says where\n",
			       (unsigned long long)t->bad_frees);
}

int qy_summary_print(int fd)
{
	char buffer[1024];
	quarry_stats total;
	struct qy_text out;

	if (!qy_print_arena_stats(NULL, &total))
		return -1;
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	amounts(&out, &total);
	kinds(&out, &total);
	refusals(&out, &total);
	return qy_text_flush(&out);
}
