/* SPDX-License-Identifier: MIT */
/* A machine whose scarceness a test plays, for the tests of limits, of events and of the breaker: two nodes, a clock
 * that the test moves, and a group of cgroup v2 at OWN. To be included once. */
#ifndef QUARRY_TESTS_LIMITS_H
#define QUARRY_TESTS_LIMITS_H

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/cache/thread.h"
#include "lib/manager/breaker.h"
#include "lib/manager/events.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/manager/quota.h"
#include "lib/reclaim/reclaim.h"
#include "numa/cgroup.h"
#include "tests/fake_os.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define START 1000000u
#define OWN "/sys/fs/cgroup/app"

#define NONE QUARRY_PRESSURE_NONE
#define SOME QUARRY_PRESSURE_SOME
#define HIGH QUARRY_PRESSURE_HIGH
#define CRITICAL QUARRY_PRESSURE_CRITICAL

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,idle_threads=off", 1);
	fake_os_install();
	fake_os_nodes("0-1");
	fake_os_cpus(0, "0-3");
	fake_os_cpus(1, "4-7");
	fake_os_clock(START);
	fake_os_total_memory(64 * GIB);
	fake_os_address_limit(UINT64_MAX);
	fake_os_file("/proc/self/cgroup", NULL);
	fake_os_file("/proc/pressure/memory", NULL);
	fake_os_file("/proc/meminfo", "MemTotal: 67108864 kB\nMemFree: 67108864 kB\nMemAvailable: 67108864 kB\n");
}

static inline void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0, "%s", quarry_error_text());
}

static inline void set_bytes(const char *name, uint64_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, bytes);
	set(name, text);
}

static inline void file(const char *path, const char *format, uint64_t n)
{
	char text[128];

	snprintf(text, sizeof(text), format, n);
	fake_os_file(path, text);
}

/* The process's group: MiB of memory.max and of what is used. */
static inline void group(uint64_t max, uint64_t used)
{
	fake_os_file("/proc/self/cgroup", "0::/app\n");
	fake_os_file("/proc/self/mountinfo",
		     "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
	fake_os_file(OWN "/cgroup.controllers", "memory\n");
	fake_os_file("/sys/fs/cgroup/cgroup.controllers", "memory\n");
	file(OWN "/memory.max", "%" PRIu64 "\n", max * MIB);
	fake_os_file(OWN "/memory.high", "max\n");
	file(OWN "/memory.current", "%" PRIu64 "\n", used * MIB);
	fake_os_file(OWN "/memory.stat", "anon 0\n");
	fake_os_file(OWN "/memory.pressure", NULL);
	qy_cgroup_forget();
}

static inline void used_in_group(uint64_t used)
{
	file(OWN "/memory.current", "%" PRIu64 "\n", used * MIB);
}

/* Time passes, and the reclaimer looks. */
static inline bool tick_after(uint64_t ms)
{
	fake_os_advance(ms);
	return qy_limits_tick(qy_os->now_ms());
}

/* The sum of what managers have in use, for itself. */
static inline uint64_t sum_used(void)
{
	uint64_t sum = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		sum += qy_read(&m->used);
	return sum;
}

/* ---- events ---- */

#define HEARD_MAX 4096

static quarry_event heard[HEARD_MAX];
static _Atomic(unsigned) heard_count;

static inline void hear(const quarry_event *event, void *ctx)
{
	unsigned n = atomic_fetch_add(&heard_count, 1);

	(void)ctx;
	if (n < HEARD_MAX)
		heard[n] = *event;
}

static inline void begin(void)
{
	cr_assert(qy_start());
	heard_count = 0;
	quarry_on_event(hear, NULL);
}

/* What was heard since the last time: exactly this. */
#define expect_event(kind_, state_, was_)                                                                      \
	do {                                                                                                   \
		qy_events_deliver();                                                                           \
		cr_assert_eq(heard_count, 1, "%u events, the first of kind %d", heard_count, heard[0].kind);   \
		cr_assert_eq(heard[0].kind, (kind_), "kind %d", heard[0].kind);                                \
		cr_assert_eq(heard[0].state, (state_), "state %d", heard[0].state);                            \
		cr_assert_eq(heard[0].was, (was_), "was %d", heard[0].was);                                    \
		cr_assert_eq(heard[0].struct_size, sizeof(quarry_event));                                      \
		heard_count = 0;                                                                               \
	} while (0)

#define expect_no_event()                                                                                      \
	do {                                                                                                   \
		qy_events_deliver();                                                                           \
		cr_assert_eq(heard_count, 0, "%u events, the first of kind %d, state %d", heard_count,         \
			     heard[0].kind, heard[0].state);                                                   \
	} while (0)

#endif
