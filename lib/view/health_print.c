/* SPDX-License-Identifier: MIT */
/* What a report says, in words and as JSON. Nothing is looked at but by quarry_health. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/view/health.h"

static const char *const states[] = { "green", "yellow", "red" };
static const char *const levels[] = { "none", "some", "high", "critical" };
static const char *const breakers[] = { "closed", "open", "half-open" };
static const char *const limits[] = { "none", "process", "cgroup", "address space" };

/* A report may come from anywhere. */
static const char *name_of(const char *const names[], size_t count, int i)
{
	return i >= 0 && (size_t)i < count ? names[i] : "?";
}

#define NAME(names, i) name_of((names), sizeof(names) / sizeof((names)[0]), (i))

/* ---- as text ---- */

static void begin_reason(struct qy_text *out, bool *first)
{
	qy_text_format(out, *first ? ": " : "; ");
	*first = false;
}

static void per_cent(struct qy_text *out, unsigned per_mille)
{
	qy_text_format(out, "%u.%u %%", per_mille / 10, per_mille % 10);
}

static void limit_line(struct qy_text *out, const quarry_health_report *r)
{
	qy_text_format(out, "%s limit of ", NAME(limits, r->limit_kind));
	qy_text_bytes(out, r->limit);
	qy_text_format(out, " filled to ");
	per_cent(out, r->limit_per_mille);
}

static void psi_line(struct qy_text *out, const quarry_health_report *r)
{
	qy_text_format(out, "%s psi some ", r->psi_of_group ? "cgroup" : "machine");
	per_cent(out, r->psi_some);
	qy_text_format(out, ", full ");
	per_cent(out, r->psi_full);
}

static void reasons(struct qy_text *out, const quarry_health_report *r, bool *first)
{
	if (r->reasons & QUARRY_HEALTH_LIMIT_FILL) {
		begin_reason(out, first);
		if (r->limit != 0)
			limit_line(out, r);
		else
			qy_text_format(out, "memory.high is nearly reached");
	}
	if (r->reasons & QUARRY_HEALTH_PSI) {
		begin_reason(out, first);
		psi_line(out, r);
	}
	if (r->reasons & QUARRY_HEALTH_CGROUP_EVENTS) {
		begin_reason(out, first);
		qy_text_format(out, "the kernel reclaims at memory.high or memory.max");
	}
	if (r->reasons & QUARRY_HEALTH_MACHINE) {
		begin_reason(out, first);
		qy_text_format(out, "the machine has ");
		qy_text_bytes(out, r->available);
		qy_text_format(out, " left");
	}
	if (r->reasons & QUARRY_HEALTH_SOFT_LIMIT) {
		begin_reason(out, first);
		if (r->above_soft)
			qy_text_format(out, "the process is above its soft limit");
		if (r->arenas_above_soft)
			qy_text_format(out, "%s%u arena%s above the soft limit", r->above_soft ? ", " : "",
				       r->arenas_above_soft, r->arenas_above_soft == 1 ? "" : "s");
	}
	if (r->reasons & QUARRY_HEALTH_BREAKER) {
		begin_reason(out, first);
		qy_text_format(out, "the breaker is %s", NAME(breakers, r->breaker));
	}
	if (r->reasons & QUARRY_HEALTH_DENIED) {
		begin_reason(out, first);
		qy_text_format(out, "a limit refused requests");
	}
}

static void one_line(struct qy_text *out, const quarry_health_report *r)
{
	bool first = true;

	qy_text_format(out, "%s", NAME(states, r->state));
	reasons(out, r, &first);
	if (first && r->level != QUARRY_PRESSURE_NONE)
		qy_text_format(out, ": pressure %s, falling", NAME(levels, r->level));
}

QUARRY_API int quarry_health_text(const quarry_health_report *report, char *text, size_t size)
{
	quarry_health_report whole = { .struct_size = sizeof(whole) };
	char none[1];
	struct qy_text out;

	if (report == NULL || report->struct_size < sizeof(report->struct_size))
		return qy_fail(EINVAL, "report: NULL, or its struct_size is that of no quarry_health_report");
	if (text == NULL && size != 0)
		return qy_fail(EINVAL, "text: NULL, for %lu bytes", (unsigned long)size);
	qy_text_init(&out, size != 0 ? text : none, size != 0 ? size : sizeof(none), -1);
	/* (What a caller built with an older header does not have is 0.) */
	memcpy(&whole, report, qy_min(report->struct_size, sizeof(whole)));
	one_line(&out, &whole);
	return (int)out.total;
}

/* ---- in the statistics ---- */

void qy_health_print(struct qy_text *out)
{
	quarry_health_report r = { .struct_size = sizeof(r) };

	if (quarry_health(&r) != 0)
		return;
	qy_text_format(out, "\npressure\n  health     %s\n  level      %s\n", NAME(states, r.state),
		       NAME(levels, r.level));
	if (r.limit != 0) {
		qy_text_format(out, "  limit      ");
		limit_line(out, &r);
		qy_text_format(out, "\n");
	}
	if (r.psi_window_ms != 0) {
		qy_text_format(out, "  waiting    ");
		psi_line(out, &r);
		qy_text_format(out, " of %llu ms\n", (unsigned long long)r.psi_window_ms);
	}
	if (r.soft_limit != 0 || r.arenas_above_soft != 0)
		qy_text_format(out, "  soft       %s, and %u arena%s above\n",
			       r.soft_limit == 0 ? "the process has none"
						 : r.above_soft ? "the process is above" : "below",
			       r.arenas_above_soft, r.arenas_above_soft == 1 ? "" : "s");
	if (r.denied_process + r.denied_arenas + r.denied_cgroup != 0)
		qy_text_format(out, "  refused    %llu by the process's limit, %llu arenas', %llu the cgroup's\n",
			       (unsigned long long)r.denied_process, (unsigned long long)r.denied_arenas,
			       (unsigned long long)r.denied_cgroup);
	if (r.breaker_opened != 0)
		qy_text_format(out, "  breaker    %s, opened %llu, refused %llu, redirected %llu\n",
			       NAME(breakers, r.breaker), (unsigned long long)r.breaker_opened,
			       (unsigned long long)r.breaker_refused, (unsigned long long)r.breaker_redirected);
}

void qy_health_json(struct qy_text *out)
{
	quarry_health_report r = { .struct_size = sizeof(r) };

	if (quarry_health(&r) != 0) {
		qy_text_format(out, "null");
		return;
	}
	qy_text_format(out, "{\"health\":\"%s\",\"level\":\"%s\",\"reasons\":%u", NAME(states, r.state),
		       NAME(levels, r.level), r.reasons);
	qy_text_format(out, ",\"limit_kind\":\"%s\",\"limit\":%llu,\"used\":%llu,\"limit_per_mille\":%u",
		       NAME(limits, r.limit_kind), (unsigned long long)r.limit, (unsigned long long)r.used,
		       r.limit_per_mille);
	qy_text_format(out, ",\"psi_some\":%u,\"psi_full\":%u,\"psi_of_group\":%u,\"psi_window_ms\":%llu", r.psi_some,
		       r.psi_full, r.psi_of_group, (unsigned long long)r.psi_window_ms);
	qy_text_format(out, ",\"available\":%llu,\"in_use\":%llu,\"hard_limit\":%llu,\"soft_limit\":%llu",
		       (unsigned long long)r.available, (unsigned long long)r.in_use, (unsigned long long)r.hard_limit,
		       (unsigned long long)r.soft_limit);
	qy_text_format(out, ",\"above_soft\":%u,\"arenas_above_soft\":%u", r.above_soft, r.arenas_above_soft);
	qy_text_format(out, ",\"denied_process\":%llu,\"denied_arenas\":%llu,\"denied_cgroup\":%llu",
		       (unsigned long long)r.denied_process, (unsigned long long)r.denied_arenas,
		       (unsigned long long)r.denied_cgroup);
	qy_text_format(out, ",\"breaker\":\"%s\",\"breaker_opened\":%llu,\"breaker_refused\":%llu",
		       NAME(breakers, r.breaker), (unsigned long long)r.breaker_opened,
		       (unsigned long long)r.breaker_refused);
	qy_text_format(out, ",\"breaker_redirected\":%llu,\"breaker_probes\":%llu,\"events_lost\":%llu}",
		       (unsigned long long)r.breaker_redirected, (unsigned long long)r.breaker_probes,
		       (unsigned long long)r.events_lost);
}
