/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/pressure.h"

#include <errno.h>
#include <string.h>

#include "lib/base/lock.h"
#include "numa/cgroup.h"
#include "numa/os.h"
#include "numa/topology.h"

#define LONGEST_WINDOW_MS 60000 /* what was long ago says nothing of now */

static _Atomic(uint32_t) looking;                        /* who turned it from 0 to 1 reads, and has seen for itself */
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF); /* guards last; never held over a read of a file */
static struct qy_pressure last;

/* What was read the last time, to be subtracted. */
static struct {
	uint64_t some, full; /* microseconds */
	uint64_t psi_ms;     /* when; 0: never */
	bool of_group;
	uint64_t high, max;
	bool events;         /* whether high and max are of this group */
} seen;

/* ---- texts ---- */

static const char *digits(const char *s, uint64_t *number)
{
	uint64_t n = 0;

	for (; *s >= '0' && *s <= '9'; s++)
		n = n * 10 + (uint64_t)(*s - '0');
	*number = n;
	return s;
}

/* The number behind the first `name` that begins a line; false when there is none. */
static bool number_of(const char *text, const char *name, uint64_t *number)
{
	const size_t length = strlen(name);

	for (const char *s = text; s != NULL && *s != 0; s = strchr(s, '\n'), s = s != NULL ? s + 1 : NULL) {
		if (strncmp(s, name, length) != 0)
			continue;
		s += length;
		s += strspn(s, " ");
		if (*s < '0' || *s > '9')
			return false;
		digits(s, number);
		return true;
	}
	return false;
}

/* Of the line "some avg10=0.00 avg60=0.00 avg300=0.00 total=123". */
static bool total_of(const char *text, const char *line, uint64_t *total)
{
	const size_t length = strlen(line);
	const char *s = text, *end, *at;

	while (s != NULL && strncmp(s, line, length) != 0) {
		s = strchr(s, '\n');
		s = s != NULL ? s + 1 : NULL;
	}
	if (s == NULL)
		return false;
	end = strchr(s, '\n');
	at = strstr(s, " total=");
	if (at == NULL || (end != NULL && at > end) || at[7] < '0' || at[7] > '9')
		return false;
	digits(at + 7, total);
	return true;
}

/* ---- the kernel's words ---- */

static uint32_t share(uint64_t before, uint64_t after, uint64_t window_ms)
{
	uint64_t us = after > before ? after - before : 0;

	return (uint32_t)qy_min(us / window_ms, 1000); /* us / ms is 1/1000 */
}

/* Shares of time that tasks waited, since the look before. */
static void look_at_psi(struct qy_pressure *p, uint64_t now)
{
	char text[256];
	uint64_t some = 0, full = 0;
	ssize_t n = qy_cgroup_read_own("/memory.pressure", text, sizeof(text));
	bool of_group = n > 0 && total_of(text, "some ", &some);

	if (!of_group) {
		n = qy_os->read_file("/proc/pressure/memory", text, sizeof(text));
		if (n <= 0 || !total_of(text, "some ", &some)) {
			seen.psi_ms = 0; /* none, or switched off (EOPNOTSUPP) */
			return;
		}
	}
	if (!total_of(text, "full ", &full))
		full = 0;
	p->of_group = of_group;
	if (seen.psi_ms != 0 && seen.of_group == of_group && now > seen.psi_ms &&
	    now - seen.psi_ms <= LONGEST_WINDOW_MS && some >= seen.some) {
		p->window_ms = now - seen.psi_ms;
		p->some = share(seen.some, some, p->window_ms);
		p->full = share(seen.full, full, p->window_ms);
	}
	seen.some = some;
	seen.full = full;
	seen.of_group = of_group;
	seen.psi_ms = now;
}

/* How often the own group came to memory.high, and to memory.max: the kernel reclaimed there. */
static void look_at_events(struct qy_pressure *p)
{
	char text[256];
	uint64_t high = 0, max = 0;
	bool there = qy_cgroup_read_own("/memory.events", text, sizeof(text)) > 0 && number_of(text, "high ", &high) &&
		     number_of(text, "max ", &max);

	if (there && seen.events) {
		p->events_high = high > seen.high ? high - seen.high : 0;
		p->events_max = max > seen.max ? max - seen.max : 0;
	}
	seen.events = there;
	seen.high = high;
	seen.max = max;
}

/* The first number of /proc/self/statm, which is what RLIMIT_AS is compared with. */
bool qy_pressure_address(uint64_t *limit, uint64_t *used)
{
	char text[128];
	uint64_t pages, most = qy_os->address_limit();
	int saved = errno;
	ssize_t n;

	if (most == UINT64_MAX)
		return false;
	n = qy_os->read_file("/proc/self/statm", text, sizeof(text));
	errno = saved;
	if (n <= 0)
		return false;
	digits(text, &pages);
	*limit = most;
	*used = pages * qy_os_page_size();
	return true;
}

/* The nodes that the process may use, when those are not all that have memory. */
static bool look_at_nodes(struct qy_pressure *p)
{
	quarry_nodeset allowed;
	uint64_t total = 0, room = 0;
	bool all = true;

	if (qy_node_count() < 2)
		return false;
	qy_nodes_allowed(&allowed);
	for (int i = 0; i < qy_node_count() && all; i++)
		all = !qy_node_has_memory(i) || quarry_nodeset_has(&allowed, (unsigned)qy_node_kernel_id(i));
	for (int i = 0; i < qy_node_count() && !all; i++) {
		quarry_node_info info = { .struct_size = sizeof(info) };
		uint64_t its;

		if (!qy_node_has_memory(i) || !quarry_nodeset_has(&allowed, (unsigned)qy_node_kernel_id(i)))
			continue;
		its = qy_node_room(i);
		if (its == UINT64_MAX || qy_node_info(i, &info) != 0)
			return false;
		total += info.memory_total;
		room += its;
	}
	if (total == 0)
		return false;
	p->total = total;
	p->available = room;
	return true;
}

static void look_at_machine(struct qy_pressure *p)
{
	char text[256]; /* MemTotal, MemFree and MemAvailable are the first three lines */
	uint64_t total, available;

	if (p->group_limit != UINT64_MAX && p->group_limit < qy_os->total_memory())
		return;
	if (look_at_nodes(p) || qy_os->read_file("/proc/meminfo", text, sizeof(text)) <= 0 ||
	    !number_of(text, "MemTotal:", &total) || !number_of(text, "MemAvailable:", &available))
		return;
	p->total = total << 10;
	p->available = available << 10;
}

static void look(struct qy_pressure *p, uint64_t now)
{
	struct qy_cgroup_bound max, high;

	*p = (struct qy_pressure){ .time_ms = now, .address_limit = UINT64_MAX, .total = UINT64_MAX,
				   .available = UINT64_MAX };
	look_at_psi(p, now);
	qy_cgroup_memory_bounds(&max, &high);
	p->group_limit = max.limit;
	p->group_used = max.used;
	p->high_limit = high.limit;
	p->high_used = high.used;
	look_at_events(p);
	(void)qy_pressure_address(&p->address_limit, &p->address_used);
	look_at_machine(p);
}

struct qy_pressure qy_pressure_look(uint64_t now)
{
	struct qy_pressure p;
	uint32_t nobody = 0;
	int saved = errno;

	qy_lock(&lock);
	p = last;
	qy_unlock(&lock);
	if ((p.time_ms != 0 && now - p.time_ms < QY_PRESSURE_EVERY_MS) ||
	    !atomic_compare_exchange_strong_explicit(&looking, &nobody, 1, memory_order_acquire, memory_order_relaxed)) {
		if (p.time_ms == 0)
			p.group_limit = p.high_limit = p.address_limit = p.total = p.available = UINT64_MAX;
		return p;
	}
	look(&p, now);
	qy_lock(&lock);
	last = p;
	qy_unlock(&lock);
	atomic_store_explicit(&looking, 0, memory_order_release);
	errno = saved;
	return p;
}

void qy_pressure_forget(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
	memset(&last, 0, sizeof(last));
	memset(&seen, 0, sizeof(seen));
	atomic_store_explicit(&looking, 0, memory_order_release);
}
