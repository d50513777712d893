/* SPDX-License-Identifier: MIT */
/* `quarry doctor PID`: what a process's figures and their history say of how it is set up, by what it publishes of itself.
 * Each finding stands on figures, which it tells; what ends a lack is an option of quarry's, or where to look next. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/doctor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/top.h"

#define LATE_NS UINT64_C(3000000000)  /* without news: it has nothing to do, or nobody who publishes */
#define SMALL (64 * MIB)              /* less is not worth a word */
#define STEPS_LEAST 8                 /* of a trend, to be one */
#define NEARLY_FULL 850               /* per mille of a limit */
#define ROOM 20                       /* per cent over the most that was resident, for a limit */
#define SLACK 300                     /* per mille of what is resident, not in use */
#define CHURN (32 * MIB)              /* bytes a second that go back, and come again */
#define BUSY 50                       /* per mille of the time in passes */

/* (A page may be anybody's, and its figures any.) */
static uint64_t whole(double amount)
{
	return !(amount > 0) ? 0 : amount < 1e18 ? (uint64_t)amount : UINT64_C(1000000000000000000);
}

/* ---- what is looked after ---- */

static void check_monitoring(const struct top *t)
{
	uint64_t age = t->now_ns > t->head.time_ns ? t->now_ns - t->head.time_ns : 0;
	bool thread = t->total.reclaimed_by == QUARRY_RECLAIMER_THREAD, late = age > LATE_NS;
	struct finding *f = find("monitoring", t->head.arenas_left_out ? LACK : late && !thread ? UNKNOWN : OK);

	detail(f, "figures of %" PRIu64 ".%" PRIu64 " s ago%s, %u arena%s", age / 1000000000, age / 100000000 % 10,
	       !late ? "" : thread ? " (nothing happened since)" : ", all below is of then: its threads publish in passing",
	       t->head.arena_count, t->head.arena_count == 1 ? "" : "s");
	if (f->state == LACK) {
		cost(f, "of %u arenas there are figures in the sums alone", t->head.arenas_left_out);
		fix(f, "quarry_metrics_print with QUARRY_METRICS_ARENAS has all of them");
	}
}

static void check_profile(const struct published *p)
{
	quarry_profile_report r = { .struct_size = sizeof(r) };
	bool told = quarry_published_profile(p->copy, p->size, &r) == 0;
	struct finding *f = find("profile", !told ? UNKNOWN : r.mean ? OK : LACK);

	if (!told)
		detail(f, "its library is older than this command");
	else if (r.mean)
		detail(f, "a sample for each %s, of %u places, %" PRIu64 " lost", bytes_text(r.mean), r.sites, r.lost);
	else
		detail(f, "none is kept");
	if (f->state == LACK) {
		cost(f, "nobody can tell who allocated what is in use");
		fix(f, "QUARRY_OPTIONS=profile=512k, with report_signal=usr2 to have it written when asked");
	}
}

static void check_health(const struct top *t)
{
	char text[200];
	struct finding *f = find("health", t->health.state == QUARRY_HEALTH_GREEN ? OK : LACK);

	if (quarry_health_text(&t->health, text, sizeof(text)) < 0)
		snprintf(text, sizeof(text), "state %d", t->health.state);
	detail(f, "%s", text);
	if (f->state == LACK) {
		cost(f, "caches are emptied and memory goes back at once, which takes time; requests may be refused");
		fix(f, "a larger limit, less load, or fewer other programs on the machine");
	}
}

/* ---- limits ---- */

/* A limit of what is in memory, and not of address space. */
static bool is_of_memory(const quarry_health_report *h)
{
	return h->limit != 0 && (h->limit_kind == QUARRY_LIMIT_PROCESS || h->limit_kind == QUARRY_LIMIT_CGROUP);
}

static uint64_t steps_of(const struct top_trend *trend)
{
	return trend->count < 2 ? trend->count : top_trend_steps(trend);
}

static uint64_t most_resident(const struct top *t)
{
	uint64_t most = t->total.resident;

	for (int ring = 0; ring < TOP_RINGS; ring++)
		for (size_t i = 0; i < t->trends[ring].count; i++) {
			uint64_t seen = t->trends[ring].samples[i].most_resident;

			most = seen > most ? seen : most;
		}
	return most;
}

static void check_budget(const struct top *t)
{
	const quarry_health_report *h = &t->health;
	bool is = h->limit_kind != QUARRY_LIMIT_NONE && h->limit != 0, full = is && h->limit_per_mille >= NEARLY_FULL;
	struct finding *f = find("budget", is && !full ? OK : LACK);

	if (!is)
		detail(f, "no limit: neither hard_limit nor a control group's or an address space's");
	else
		detail(f, "a limit of %s, filled to %u.%u %%", bytes_text(h->limit), h->limit_per_mille / 10,
		       h->limit_per_mille % 10);
	if (!is)
		cost(f, "the kernel ends some program when the machine is full");
	else if (full)
		cost(f, "beyond it malloc returns NULL");
	if (f->state == LACK)
		fix(f, is ? "a larger limit, or what is told under growth and slack" : "hard_limit, or the control group's memory.max; see size");
}

static void check_size(const struct top *t)
{
	uint64_t most = most_resident(t), room = most / 100 * (100 + ROOM);
	uint64_t hours = steps_of(&t->trends[QUARRY_HISTORY_HOURS]), minutes = steps_of(&t->trends[QUARRY_HISTORY_MINUTES]);
	bool less = is_of_memory(&t->health) && t->health.limit < room;
	struct finding *f = find("size", less ? LACK : OK);

	detail(f, "%s resident now, %s at most in %" PRIu64 " %s: %s with %d %% of room", bytes_text(t->total.resident),
	       bytes_text(most), hours > 1 ? hours : minutes, hours > 1 ? "hours" : minutes == 1 ? "minute" : "minutes",
	       bytes_text(room), ROOM);
	if (less) {
		cost(f, "its limit of %s is reached by a load a little heavier", bytes_text(t->health.limit));
		fix(f, "a limit of %s%s, beside what the program has outside of the heap", bytes_text(room),
		    t->health.denied_process + t->health.denied_cgroup ? " or more (it was refused some)" : "");
	}
}

/* What comes before a limit, where there is one. */
static void check_thresholds(const struct top *t)
{
	const quarry_health_report *h = &t->health;
	bool soft = h->soft_limit != 0 || h->arenas_above_soft != 0, opened = h->breaker_opened != 0;
	struct finding *f;

	if (!is_of_memory(h))
		return;
	/* (Whether there is a breaker that never had to open is not told.) */
	f = find("thresholds", soft || opened ? OK : h->limit_per_mille >= NEARLY_FULL ? LACK : UNKNOWN);
	if (h->soft_limit != 0)
		detail(f, "a soft limit of %s%s", bytes_text(h->soft_limit), h->above_soft ? ", passed now" : "");
	else if (soft)
		detail(f, "soft limits of arenas, %u of them passed now", h->arenas_above_soft);
	else if (opened)
		detail(f, "the breaker has opened %" PRIu64 " times", h->breaker_opened);
	else
		detail(f, "no soft_limit, and no breaker that ever opened");
	if (f->state == LACK) {
		cost(f, "nothing gives way before the limit: small requests fail there as large ones do");
		fix(f, "soft_limit=%" PRIu64 "m keeps no free memory from there on; breaker=refuse, if not set, ends large requests first",
		    h->limit / MIB * 8 / 10);
	}
}

static void check_refused(const struct top *t)
{
	const quarry_health_report *h = &t->health;
	uint64_t denied = h->denied_process + h->denied_arenas + h->denied_cgroup;
	struct finding *f = find("recovery", denied || h->breaker_refused ? LACK : OK);

	detail(f, "%" PRIu64 " requests refused by limits, %" PRIu64 " by the breaker (opened %" PRIu64 " times)", denied,
	       h->breaker_refused, h->breaker_opened);
	if (f->state == LACK) {
		cost(f, "malloc returned NULL so often: whether the program goes on well is for its log to tell");
		fix(f, "a test with hard_limit set low; quarry_on_event tells the program before");
	}
}

/* ---- where it goes ---- */

/* How fast it grows by a trend, and how far it grew. False: there is too little of it. */
static bool grew_by(const struct top_trend *trend, double *a_second, double *bytes)
{
	if (trend->count < STEPS_LEAST || !top_trend_slope(trend, QUARRY_HISTORY_IN_USE, a_second))
		return false;
	*bytes = *a_second * (double)top_trend_steps(trend) * (double)trend->step_ns / 1e9;
	return true;
}

/* That of hours, or that of minutes where it grows faster by that. (Not of seconds: programs that begin grow.) */
static const struct top_trend *worst_trend(const struct top *t, double *a_second, double *bytes)
{
	const struct top_trend *hours = &t->trends[QUARRY_HISTORY_HOURS], *minutes = &t->trends[QUARRY_HISTORY_MINUTES];
	double second, grew;
	bool is = grew_by(hours, a_second, bytes);

	if (!grew_by(minutes, &second, &grew))
		return is ? hours : NULL;
	if (is && *bytes >= grew)
		return hours;
	*a_second = second;
	*bytes = grew;
	return minutes;
}

static void say_when_full(struct finding *f, const struct top *t, double a_second)
{
	const quarry_health_report *h = &t->health;

	if (is_of_memory(h) && h->limit > h->used)
		detail_more(f, "; at that pace its limit is reached in %.1f h", (double)(h->limit - h->used) / a_second / 3600);
}

/* Growth that is a tenth of what is in use over the whole trend, and has not ended. */
static void check_growth(const struct top *t)
{
	double a_second = 0, grew = 0;
	const struct top_trend *trend = worst_trend(t, &a_second, &grew);
	struct finding *f;

	if (!trend) {
		detail(find("growth", UNKNOWN), "%s in use; figures of less than %d minutes tell no more",
		       bytes_text(t->total.in_use), STEPS_LEAST);
		return;
	}
	f = find("growth", grew > (double)MIB * 16 && grew > (double)t->total.in_use / 10 ? LACK : OK);
	detail(f, "%s in use, %s%s an hour by the last %" PRIu64 " %s", bytes_text(t->total.in_use), a_second < 0 ? "-" : "+",
	       bytes_text(whole((a_second < 0 ? -a_second : a_second) * 3600)), top_trend_steps(trend),
	       trend == &t->trends[QUARRY_HISTORY_HOURS] ? "hours" : "minutes");
	if (f->state == LACK) {
		say_when_full(f, t, a_second);
		cost(f, "a cache without bounds, or a leak, unless its load grows as much");
		fix(f, "two views some time apart (QUARRY_VIEW), and quarry diff; quarry run --leaks tells what cannot be reached");
	}
}

static void check_slack(const struct top *t)
{
	const quarry_stats *s = &t->total;
	unsigned share = top_fragmentation(s);
	uint64_t slack = s->resident > s->in_use ? s->resident - s->in_use : 0;
	struct finding *f = find("slack", share > SLACK && slack > SMALL ? LACK : OK);

	detail(f, "%u.%u %% of what is resident is not in use: %s in threads' caches, %s free", share / 10, share % 10,
	       bytes_text(s->cached), bytes_text(s->free_dirty));
	if (f->state == OK)
		return;
	cost(f, "%s of memory", bytes_text(slack));
	if (s->free_dirty >= slack / 2 && s->decay > 100)
		fix(f, "decay_ms=%s, or quarry_purge at rest", s->decay > 1000 ? "1000" : "100");
	else if (s->free_dirty >= slack / 2)
		fix(f, "return=1 and reclaim=auto, the defaults; what is refused is told below");
	else if (s->cached >= slack / 2)
		fix(f, "fewer threads, or idle_threads=1, which is the default");
	else
		fix(f, "quarry map of a view (QUARRY_VIEW) shows which slabs are nearly empty; quarry_should_move for who can move");
}

/* ---- pages ---- */

static void check_huge(const struct top *t)
{
	const quarry_stats *s = &t->total;
	unsigned share = top_huge(s);
	uint64_t wanted = s->kind_wanted[QUARRY_PAGES_THP] + s->kind_wanted[QUARRY_PAGES_2M] + s->kind_wanted[QUARRY_PAGES_1G];
	uint64_t got = s->kind_got[QUARRY_PAGES_THP] + s->kind_got[QUARRY_PAGES_2M] + s->kind_got[QUARRY_PAGES_1G];
	struct finding *f = find("huge pages of it", wanted > got + got / 10 && wanted > SMALL ? LACK : OK);

	detail(f, "%u.%u %% of what is mapped; asked for %s, got %s", share / 10, share % 10, bytes_text(wanted), bytes_text(got));
	if (f->state == LACK) {
		cost(f, "more misses of the TLB");
		fix(f, "quarry doctor, without a process, says what ends it");
	}
}

/* What goes back and is taken again, by the last minute. */
static void check_faults(const struct top *t)
{
	const struct top_trend *trend = &t->trends[QUARRY_HISTORY_SECONDS];
	double purged, minor, major;
	struct finding *f;

	if (trend->count < STEPS_LEAST || !top_trend_slope(trend, QUARRY_HISTORY_PURGED, &purged) ||
	    !top_trend_slope(trend, QUARRY_HISTORY_MINOR_FAULTS, &minor) ||
	    !top_trend_slope(trend, QUARRY_HISTORY_MAJOR_FAULTS, &major)) {
		detail(find("page faults", UNKNOWN), "its history is too short");
		return;
	}
	f = find("page faults", major > 10 || (purged > (double)CHURN && minor > 1000) ? LACK : OK);
	detail(f, "%.0f a second, %.0f of them from a disk; %s a second go back", minor + major, major,
	       bytes_text(whole(purged)));
	if (f->state == LACK && major > 10) {
		cost(f, "each waits for a disk: the machine has too little memory, or swaps");
		fix(f, "more memory, or less: see size and slack");
	} else if (f->state == LACK) {
		cost(f, "the kernel zeroes again what was given back");
		if (t->total.decay < 10000)
			fix(f, "decay_ms=%s, so that it stays while it is needed again", t->total.decay < 1000 ? "1000" : "10000");
		else
			fix(f, "a larger soft_limit or hard_limit, or less pressure: decay_ms is long, and does not keep it");
	}
}

static void check_collecting(const struct top *t)
{
	uint64_t age = t->head.time_ns > t->head.made_ns ? t->head.time_ns - t->head.made_ns : 0;
	uint64_t took = t->total.pass_ns > t->total.purge_ns ? t->total.pass_ns : t->total.purge_ns;
	unsigned share = age == 0 ? 0 : (unsigned)(whole((double)took * 1000 / (double)age) % 100000);
	struct finding *f = find("collecting", share > BUSY ? LACK : OK);

	detail(f, "%" PRIu64 " passes, %" PRIu64 " ms in all, %u.%u %% of the time", t->total.passes, took / 1000000, share / 10,
	       share % 10);
	if (f->state == LACK) {
		cost(f, "a processor is busy giving back what is taken again");
		fix(f, "a larger decay_ms, or a larger limit");
	}
}

static void check_placement(const struct top *t)
{
	const quarry_stats *s = &t->total;
	struct finding *f = find("placement", s->strayed + s->unplaced > SMALL ? LACK : OK);

	detail(f, "%s on other nodes than asked for, %s where the policy was refused", bytes_text(s->strayed),
	       bytes_text(s->unplaced));
	if (f->state == LACK) {
		cost(f, "accesses to other nodes, which take longer");
		fix(f, "bring_home=1; room on the node; quarry doctor says whether policies are refused here");
	}
}

/* ---- mistakes ---- */

static void check_refusals(const struct top *t)
{
	char list[160] = "";
	struct finding *f;

	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++) {
		const char *name = quarry_refusal_name(i);

		if (t->total.refused[i] && name)
			append_to(list, sizeof(list), "%s%s %" PRIu64, list[0] ? ", " : "", name, t->total.refused[i]);
	}
	f = find("refused", list[0] ? LACK : OK);
	detail(f, "%s", list[0] ? list : "nothing");
	if (f->state == LACK)
		fix(f, "stats_at_exit=text, or quarry_stats_print, has a line for each, with what ends it");
}

static void check_mistakes(const struct top *t)
{
	struct finding *f = find("bad frees", t->total.bad_frees ? LACK : OK);

	detail(f, "%" PRIu64 " of what was not live", t->total.bad_frees);
	if (f->state == LACK) {
		cost(f, "a program that does so has worse in it");
		fix(f, "on_error=report says where, on_error=abort stops there");
	}
}

static void check_all_of(const struct top *top, const struct published *p)
{
	check_monitoring(top);
	check_profile(p);
	check_health(top);
	check_budget(top);
	check_size(top);
	check_thresholds(top);
	check_refused(top);
	check_growth(top);
	check_slack(top);
	check_huge(top);
	check_faults(top);
	check_collecting(top);
	check_placement(top);
	check_refusals(top);
	check_mistakes(top);
}

/* What a terminal would take for a command is shown as '?'. */
static void take_text(char *to, size_t size, const char *text, size_t most)
{
	size_t n = strnlen(text, most), i;

	for (i = 0; i < n && i < size - 1; i++)
		to[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	to[i] = '\0';
}

enum status check_process(int pid, struct patient *patient)
{
	struct published p = { .pid = pid };
	struct top top = { 0 };
	enum status status = published_read(&p);

	if (status != STATUS_OK) {
		fail(status, "doctor: %d: %s", pid, p.error);
	} else if (!top_take(&top, &p, NULL)) {
		status = fail(STATUS_FAILED, "doctor: process %d: %s", pid, quarry_error_text());
	} else {
		patient->pid = pid;
		take_text(patient->program, sizeof(patient->program), p.program, sizeof(p.program));
		take_text(patient->library, sizeof(patient->library), top.head.library, sizeof(top.head.library));
		check_all_of(&top, &p);
	}
	top_free(&top);
	published_end(&p);
	return status;
}
