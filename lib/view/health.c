/* SPDX-License-Identifier: MIT */
#include "lib/view/health.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/breaker.h"
#include "lib/manager/events.h"
#include "lib/manager/limits.h"
#include "lib/manager/quota.h"
#include "numa/os.h"

static void fill(quarry_health_report *r)
{
	uint64_t now = qy_os->now_ms();
	struct qy_breaker_figures breaker;
	struct qy_limits_state s;

	qy_limits_look(now);
	s = qy_limits_state(now);
	breaker = qy_breaker_figures();
	*r = (quarry_health_report){
		.struct_size = sizeof(*r),
		.level = s.level,
		.reasons = s.reasons | (breaker.state != QUARRY_BREAKER_CLOSED ? QUARRY_HEALTH_BREAKER : 0),
		.limit_kind = s.tightest.kind,
		.limit_per_mille = qy_bound_fill(&s.tightest),
		.limit = s.tightest.limit,
		.used = s.tightest.used,
		.psi_some = s.pressure.some,
		.psi_full = s.pressure.full,
		.psi_of_group = s.pressure.of_group,
		.breaker = breaker.state,
		.psi_window_ms = s.pressure.window_ms,
		.available = s.pressure.available == UINT64_MAX ? 0 : s.pressure.available,
		.total = s.pressure.total == UINT64_MAX ? 0 : s.pressure.total,
		.in_use = qy_quota_used(),
		.hard_limit = (uint64_t)qy_setting(hard_limit),
		.soft_limit = (uint64_t)qy_setting(soft_limit),
		.above_soft = atomic_load(&qy_limits_above_soft),
		.arenas_above_soft = s.arenas_above_soft,
		.denied_process = s.denied_process,
		.denied_arenas = s.denied_arenas,
		.denied_cgroup = qy_read(&qy_refused[QUARRY_REFUSED_CGROUP]),
		.breaker_opened = breaker.opened,
		.breaker_refused = breaker.refused,
		.breaker_redirected = breaker.redirected,
		.breaker_probes = breaker.probes,
		.events_lost = qy_events_lost(),
	};
	if (r->level == QUARRY_PRESSURE_CRITICAL || r->breaker == QUARRY_BREAKER_OPEN)
		r->state = QUARRY_HEALTH_RED;
	else if (r->reasons != 0 || r->level != QUARRY_PRESSURE_NONE)
		r->state = QUARRY_HEALTH_YELLOW;
}

QUARRY_API int quarry_health(quarry_health_report *report)
{
	quarry_health_report ours;
	uint32_t size = report == NULL ? 0 : report->struct_size;

	/* (A larger one is of a program built with a newer header: what this library does not know is 0. A smaller one is of
	 * an older: it gets what it has room for.) */
	if (size < sizeof(report->struct_size) || size > 4096)
		return qy_fail(EINVAL, "report: NULL, or its struct_size is that of no quarry_health_report");
	qy_init_once();
	fill(&ours);
	memset(report, 0, size);
	memcpy(report, &ours, qy_min(size, sizeof(ours)));
	report->struct_size = size;
	return 0;
}
