/* SPDX-License-Identifier: MIT */
/* Memory that is scarce in truth: control groups of version 2 with limits, a machine that another process fills. The
 * kernel is the judge: memory.current, memory.events, memory.pressure of the group; and it may kill nobody (the harness
 * looks at its count of that, the tests at the group's). */
#include "tests/numa/suite.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define LIMIT (128 * MIB)
#define LIVE (24 * MIB)
#define CACHED (72 * MIB)
#define PATIENCE 40 /* seconds that anything may take before it counts as never; the guest is emulated */

static struct objects kept;

static void set_bytes(const char *file, uint64_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	if (!group_set(file, text))
		fail("%s cannot be set to %s: %s", file, text, strerror(errno));
}

static uint64_t usage(void)
{
	return group_number("memory.current", NULL);
}

static void nobody_was_killed(void)
{
	if (group_number("memory.events", "oom_kill") != 0)
		fail("the group's memory.events: killed %llu", (unsigned long long)group_number("memory.events", "oom_kill"));
}

/* ---- who is told ---- */

static _Atomic(int) highest, level;
static _Atomic(unsigned) reasons;

static void hear(const quarry_event *event, void *ctx)
{
	(void)ctx;
	if (event->kind != QUARRY_EVENT_PRESSURE)
		return;
	level = event->state;
	if (event->state > highest)
		highest = event->state;
}

static quarry_health_report report_now(void)
{
	quarry_health_report report = { .struct_size = sizeof(report) };

	MUST(quarry_health(&report) == 0);
	reasons |= report.reasons;
	return report;
}

/* Without a reclaimer's thread, it is the program's calls that look. */
static void work(void *unused)
{
	(void)unused;
	for (int i = 0; i < 40; i++)
		quarry_free(quarry_malloc(50000));
	report_now();
}

static bool is_calm(void *unused)
{
	(void)unused;
	return report_now().level == QUARRY_PRESSURE_NONE;
}

static void must_calm_down(void)
{
	if (!wait_until(is_calm, NULL, work, PATIENCE))
		fail("pressure %d does not end, reasons %x", report_now().level, report_now().reasons);
	highest = 0;
	reasons = 0;
}

static bool is_below(void *bytes)
{
	return usage() <= *(uint64_t *)bytes;
}

static void must_come_down_to(uint64_t bytes, const char *what)
{
	if (!wait_until(is_below, &bytes, work, PATIENCE))
		fail("%s: %llu MiB are in memory, not %llu; pressure %d at most, reasons %x", what,
		     (unsigned long long)(usage() / MIB), (unsigned long long)(bytes / MIB), highest, (unsigned)reasons);
}

/* (What is given back for it may be gone before it is told.) */
static bool was_told(void *least)
{
	return highest >= *(int *)least;
}

static void must_have_told(int least)
{
	if (!wait_until(was_told, &least, work, PATIENCE))
		fail("pressure %d was told, not %d", highest, least);
}

static bool has_reasons(void *wanted)
{
	return (report_now().reasons | reasons) & *(unsigned *)wanted;
}

/* ---- what the program has ---- */

/* Until no more is to be had, or so many bytes; how many there were. The contents are checked. */
static size_t fill(size_t at_most)
{
	struct objects o = { .state = seed_of(7) };
	static const enum sizes sizes[] = { SMALL, LARGE };
	size_t got = 0;

	for (int i = 0; i < 2; i++) {
		errno = 0;
		if (!objects_make(&o, sizes[i], (i + 1) * at_most / 2 - got, from_malloc, NULL)) {
			if (errno != ENOMEM)
				fail("no memory, and errno is %d (%s)", errno, strerror(errno));
			got = o.bytes;
			break;
		}
		got = o.bytes;
	}
	objects_check(&o);
	count_pages(got / PAGE);
	objects_free(&o);
	return got;
}

static void keep(size_t bytes)
{
	kept.state = seed_of(8);
	if (!objects_make(&kept, LARGE, bytes, from_malloc, NULL))
		fail("%zu MiB are not to be had (errno %d)", bytes / MIB, errno);
}

/* Some that lives, and much that is free and stays in memory, for decay_ms is an hour or never. */
static uint64_t live_and_cached(void)
{
	uint64_t in_memory;

	quarry_on_event(hear, NULL);
	keep(LIVE);
	if (fill(CACHED) < CACHED)
		fail("%zu MiB are not to be had", CACHED / MIB);
	must_calm_down();
	in_memory = usage();
	if (in_memory < LIVE + CACHED / 4 * 3)
		fail("%llu MiB are in memory, without pressure", (unsigned long long)(in_memory / MIB));
	return in_memory;
}

static void end(void)
{
	objects_check(&kept);
	count_pages(kept.bytes / PAGE);
	objects_free(&kept);
	nobody_was_killed();
}

/* ---- the group ---- */

static bool prepare(void)
{
	group_make("memory");
	return group_join();
}

static bool prepare_with_max(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", LIMIT);
	group_make("memory");
	return group_set("memory.max", text) && group_join();
}

/* What is got in a limit: most of it, not all, with an error at its end, which is told as what it is; again and
 * again. */
static void must_hold(uint64_t limit, size_t others)
{
	quarry_health_report report;
	size_t got = 0, room = limit - others;

	for (int round = 0; round < 3; round++) {
		got = fill(2 * limit);
		if (got >= room)
			fail("%zu MiB were got in %zu MiB", got / MIB, room / MIB);
		if (got < room / 2)
			fail("no more than %zu MiB were got in %zu MiB, in round %d", got / MIB, room / MIB, round);
		if (group_number("memory.current", NULL) > limit)
			fail("memory.current is %llu", (unsigned long long)usage());
	}
	note("ENOMEM after %zu of %zu MiB", got / MIB, room / MIB);
	report = report_now();
	if (report.denied_cgroup == 0 || stats_of(NULL).refused[QUARRY_REFUSED_CGROUP] == 0)
		fail("it is not counted: denied %llu", (unsigned long long)report.denied_cgroup);
	if (report.limit_kind != QUARRY_LIMIT_CGROUP || report.limit != limit)
		fail("the report says that a limit of kind %d, %llu bytes, is the tightest", report.limit_kind,
		     (unsigned long long)report.limit);
	nobody_was_killed();
}

static void run_max(void)
{
	must_hold(LIMIT, 0);
}

/* A limit further up counts as one's own; the tighter of two; and what others use under it is not ours. */
static bool prepare_nested(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", LIMIT);
	group_make("memory");
	return group_set("memory.max", text) && group_nest("memory", "beside") && group_nest("memory", "in") &&
	       group_join();
}

static pid_t fill_beside(size_t bytes)
{
	int ready[2];
	char text;
	pid_t pid;

	MUST(pipe(ready) == 0);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		char *p;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!group_set("../beside/cgroup.procs", "0"))
			_exit(1);
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (p == MAP_FAILED || write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &text, 1) != 1)
		fail("the process beside could not take its memory");
	close(ready[0]);
	return pid;
}

static void run_nested(void)
{
	struct helper beside;
	int status;

	must_hold(LIMIT, 0);
	set_bytes("memory.max", 4 * LIMIT);
	must_hold(LIMIT, 0);
	/* (What is in memory beyond a new limit, the kernel would kill for at once.) */
	quarry_purge(NULL);
	set_bytes("memory.max", LIMIT / 2);
	must_hold(LIMIT / 2, 0);
	set_bytes("memory.max", LIMIT - 16 * MIB);
	quarry_purge(NULL);
	beside.pid = fill_beside(LIMIT / 2);
	must_hold(LIMIT, LIMIT / 2);
	if (waitpid(beside.pid, &status, WNOHANG) != 0)
		fail("the process beside was killed");
	if (group_number("../memory.events", "oom_kill") != 0)
		fail("somebody was killed");
	kill(beside.pid, SIGKILL);
	MUST(waitpid(beside.pid, &status, 0) == beside.pid);
	must_hold(LIMIT - 16 * MIB, 0);
}

/* The limit comes down under a running process, twice: to where the heap is nearly all of it, and, when what was free
 * has gone, to little more than what lives. (At once, the kernel would kill: it looks for nobody to tell.) */
static void run_lowered(void)
{
	uint64_t in_memory = live_and_cached();

	set_bytes("memory.max", in_memory + 3 * MIB);
	must_come_down_to(LIVE + 20 * MIB, "memory.max was lowered");
	must_have_told(QUARRY_PRESSURE_HIGH);
	note("%llu MiB, then %llu, %zu of them live, pressure %d", (unsigned long long)(in_memory / MIB),
	     (unsigned long long)(usage() / MIB), LIVE / MIB, highest);
	set_bytes("memory.max", LIVE + 48 * MIB);
	objects_check(&kept);
	must_hold(LIVE + 48 * MIB, LIVE);
	end();
}

/* memory.high: the kernel holds the process up and counts it. What is free goes back, and so does the level. */
static void run_high(void)
{
	uint64_t in_memory = live_and_cached(), events = group_number("memory.events", "high");
	unsigned wanted = QUARRY_HEALTH_LIMIT_FILL | QUARRY_HEALTH_CGROUP_EVENTS;

	set_bytes("memory.high", in_memory - 8 * MIB);
	if (!wait_until(has_reasons, &wanted, work, PATIENCE))
		fail("memory.high was lowered, and not felt");
	must_come_down_to(LIVE + 20 * MIB, "memory.high was lowered");
	must_have_told(QUARRY_PRESSURE_HIGH);
	must_calm_down();
	note("memory.events high %llu, then %llu", (unsigned long long)events,
	     (unsigned long long)group_number("memory.events", "high"));
	/* Calm, and nothing goes any more. */
	set_bytes("memory.high", LIMIT);
	MUST(fill(CACHED / 2) >= CACHED / 2);
	must_calm_down();
	if (usage() < LIVE + CACHED / 4)
		fail("%llu MiB are in memory when all is calm again", (unsigned long long)(usage() / MIB));
	end();
}

/* The kernel's count alone: far from any limit when it is looked at, but memory.high was met in between. */
static void run_events(void)
{
	uint64_t before, in_memory = live_and_cached();
	unsigned wanted = QUARRY_HEALTH_CGROUP_EVENTS;

	before = group_number("memory.events", "high");
	set_bytes("memory.high", in_memory);
	/* What goes over it is unmapped before anybody looks. */
	for (int i = 0; i < 8 && group_number("memory.events", "high") == before; i++) {
		char *p = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		MUST(p != MAP_FAILED);
		memset(p, 1, 8 * MIB);
		MUST(munmap(p, 8 * MIB) == 0);
	}
	MUST(group_number("memory.events", "high") > before);
	(void)group_set("memory.high", "max");
	/* (Nobody else looks: there is no reclaimer.) */
	pause_ms(200);
	report_now();
	if (!has_reasons(&wanted))
		fail("memory.events is not read: reasons %x", (unsigned)reasons);
	must_have_told(QUARRY_PRESSURE_HIGH);
	must_calm_down();
	end();
}

/* ---- PSI ---- */

static uint64_t waited(void)
{
	char text[300], *total;

	if (!group_get("memory.pressure", text, sizeof(text)) || strncmp(text, "some ", 5) != 0)
		skip("the group's memory.pressure cannot be read (psi=1 on the kernel's command line): %s", strerror(errno));
	total = strstr(text, "total=");
	MUST(total != NULL);
	return strtoull(total + 6, NULL, 10);
}

/* More lives than memory.high allows: nothing can go back, and whoever takes a page waits. */
static bool waits_by_psi(void *psi)
{
	quarry_health_report *seen = psi;
	quarry_health_report report = report_now();

	if (report.psi_some > seen->psi_some)
		*seen = report;
	return (seen->reasons & QUARRY_HEALTH_PSI) && seen->psi_of_group;
}

static void take_pages(void *unused)
{
	char *p;

	(void)unused;
	for (int i = 0; i < 32; i++) {
		p = mmap(NULL, MIB / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (p != MAP_FAILED)
			munmap(p, MIB / 2);
	}
}

static void run_psi(void)
{
	quarry_health_report seen = { .struct_size = sizeof(seen) };
	uint64_t before = waited();

	quarry_on_event(hear, NULL);
	keep(LIVE + CACHED);
	must_calm_down();
	if (report_now().psi_of_group != 1)
		fail("the pressure is not the group's");
	/* (Far beyond it, the kernel holds each call up for two seconds.) */
	set_bytes("memory.high", usage() - 2 * MIB);
	if (!wait_until(waits_by_psi, &seen, take_pages, PATIENCE))
		fail("PSI says nothing: some %u/1000, reasons %x; the kernel's total grew by %llu us", seen.psi_some,
		     (unsigned)reasons, (unsigned long long)(waited() - before));
	if (waited() <= before)
		fail("the kernel's own figure did not grow");
	must_have_told(QUARRY_PRESSURE_SOME);
	note("some %u/1000, full %u/1000 of %llu ms, pressure %d", seen.psi_some, seen.psi_full,
	     (unsigned long long)seen.psi_window_ms, highest);
	(void)group_set("memory.high", "max");
	must_calm_down();
	end();
}

/* ---- the machine ---- */

static uint64_t available(void)
{
	char text[512], *line;

	MUST(read_text("/proc/meminfo", text, sizeof(text)));
	line = strstr(text, "MemAvailable:");
	MUST(line != NULL);
	return strtoull(line + 13, NULL, 10) << 10;
}

/* (The one that fills is in the group as well.) */
static bool process_is_below(void *bytes)
{
	return process_rss() * PAGE <= *(uint64_t *)bytes;
}

/* No limit at all, but another process leaves the machine little. */
static void run_machine(void)
{
	uint64_t in_memory = live_and_cached(), most = LIVE + 20 * MIB;
	unsigned wanted = QUARRY_HEALTH_MACHINE;
	uint64_t total = machine.node[machine.memory[0]].total;
	struct helper filler;
	int id = machine.node[machine.memory[0]].id;

	if (machine.memories > 1)
		skip("with more than one node, one that is full is not the machine");
	/* Of what is free, the kernel keeps some for itself, and kills for it. */
	filler = fill_node(id, node_free(id) - available() + total / 32);
	if (!wait_until(has_reasons, &wanted, NULL, PATIENCE))
		fail("%llu MiB are free, and that is nothing: reasons %x", (unsigned long long)(node_free(id) / MIB),
		     (unsigned)reasons);
	if (!wait_until(process_is_below, &most, work, PATIENCE))
		fail("the machine is full, and %llu MiB are in memory; pressure %d at most, reasons %x",
		     (unsigned long long)(process_rss() * PAGE / MIB), highest, (unsigned)reasons);
	note("%llu MiB in memory, then %llu, pressure %d", (unsigned long long)(in_memory / MIB),
	     (unsigned long long)(process_rss() * PAGE / MIB), highest);
	helper_must_live(&filler);
	helper_end(&filler);
	must_calm_down();
	end();
}

#define THREAD "decay_ms=3600000,reclaim=parallel"
#define SERIES "decay_ms=3600000,reclaim=series,reclaim_interval=64"
#define NEVER "decay_ms=-1,reclaim=parallel"

void add_pressure(void)
{
	TEST("pressure", "max", run_max, .prepare = prepare_with_max);
	TEST("pressure", "max-series", run_max, .prepare = prepare_with_max, .options = SERIES);
	TEST("pressure", "nested", run_nested, .prepare = prepare_nested, .seconds = 150);
	TEST("pressure", "lowered", run_lowered, .prepare = prepare, .options = THREAD);
	TEST("pressure", "lowered-series", run_lowered, .prepare = prepare, .options = SERIES);
	TEST("pressure", "lowered-never", run_lowered, .prepare = prepare, .options = NEVER);
	TEST("pressure", "high", run_high, .prepare = prepare, .options = THREAD, .seconds = 150);
	TEST("pressure", "high-series", run_high, .prepare = prepare, .options = SERIES, .seconds = 150);
	TEST("pressure", "events", run_events, .prepare = prepare, .options = "reclaim=off");
	TEST("pressure", "psi", run_psi, .prepare = prepare, .options = THREAD, .seconds = 150);
	TEST("pressure", "machine", run_machine, .prepare = prepare, .options = THREAD, .seconds = 150);
}
