/* SPDX-License-Identifier: MIT */
#include "lib/manager/budget.h"

#include <string.h>

#include "lib/base/settings.h"
#include "lib/manager/manager.h"
#include "numa/cgroup.h"
#include "numa/os.h"

#define SMALL_PROCESS ((uint64_t)16 << 20) /* mapped; below it no file is read */
#define WIDE ((uint64_t)1 << 30)
#define STATUS_SIZE 4096
#define MARGIN ((uint64_t)8 << 20) /* left to others, and one part in so many: */
#define MARGIN_SHARE 32

/* A limit may be lowered at any time, and others in the group take memory as well: so what was read is gone by for a
 * moment only, and only for a slice of what was left. */
#define FRESH_MS 100
#define SLICE_MOST ((int64_t)16 << 20)
#define SLICE_LEAST ((int64_t)4 << 20)

_Atomic(int64_t) qy_budget_left = INT64_MAX;
static qy_counter taken; /* bytes, ever */
static qy_counter last_limit, last_left; /* as they were read */
static _Atomic(uint64_t) read_ms;        /* when */

static bool is_fresh(void)
{
	return qy_os->now_ms() - atomic_load_explicit(&read_ms, memory_order_relaxed) < FRESH_MS;
}

bool qy_budget_take_slow(size_t bytes)
{
	int64_t left = atomic_load_explicit(&qy_budget_left, memory_order_relaxed);

	do {
		if (left == INT64_MAX)
			return true;
		if (left < (int64_t)bytes || !is_fresh())
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&qy_budget_left, &left, left - (int64_t)bytes,
							memory_order_relaxed, memory_order_relaxed));
	qy_count_shared(&taken, bytes);
	return true;
}

bool qy_budget_roomy(void)
{
	uint64_t limit = qy_read(&last_limit);

	return atomic_load_explicit(&qy_budget_left, memory_order_relaxed) == INT64_MAX ||
	       (limit >= WIDE && qy_read(&last_left) >= limit / 2);
}

void qy_budget_prepare(size_t bytes)
{
	int64_t left = atomic_load_explicit(&qy_budget_left, memory_order_relaxed);

	if (QY_UNLIKELY(left != INT64_MAX) && (left < (int64_t)bytes || !is_fresh()))
		qy_budget_refresh(bytes);
}

/* A line of /proc/self/status, in bytes; 0 when it is not there. */
static uint64_t status_bytes(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	uint64_t kib = 0;

	if (at == NULL)
		return 0;
	for (at += strlen(name); *at == ' ' || *at == '\t'; at++)
		;
	for (; *at >= '0' && *at <= '9'; at++)
		kib = kib * 10 + (uint64_t)(*at - '0');
	return kib << 10;
}

/* What was handed out, free memory that is in memory with it: all of it, and of that what may stand in files
 * (QUARRY_ARENA_FD) and in huge pages of pools. */
struct handed_out {
	uint64_t mapped, all, in_files, huge;
};

static struct handed_out handed_out(void)
{
	struct handed_out out = { 0, 0, 0, 0 };

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		uint64_t of_it = qy_read(&m->used) + (qy_read(&m->dirty_pages) << QY_PAGE_SHIFT);
		uint64_t huge = qy_read(&m->kind_got[QUARRY_PAGES_2M]) + qy_read(&m->kind_got[QUARRY_PAGES_1G]);
		uint64_t in_files = qy_read(&m->in_files);

		out.mapped += qy_read(&m->mapped);
		out.all += of_it;
		out.huge += qy_min(of_it, huge);
		/* (An arena's regions are all in files, or none is.) */
		out.in_files += in_files > huge ? qy_min(of_it, in_files - huge) : 0;
	}
	return out;
}

/* Of what was handed out, what is in memory and not among the process's own pages of statm: memory in files, which that
 * counts among what is shared, and huge pages of pools, private or in files, which it does not count at all. So much
 * was handed out of each that it bounds what is said of the process, which may have shared memory and huge pages of its
 * own. (RssShmem: Linux 4.5; HugetlbPages: 4.4. Before, and where a list of groups fills the text, none is found, and
 * what was touched counts twice.) */
static uint64_t resident_elsewhere(const struct handed_out *out)
{
	char text[STATUS_SIZE];

	if (out->in_files + out->huge == 0 || qy_os->read_file("/proc/self/status", text, sizeof(text)) <= 0)
		return 0;
	return qy_min(status_bytes(text, "\nRssShmem:"), out->in_files) +
	       qy_min(status_bytes(text, "\nHugetlbPages:"), out->huge);
}

/* The second number of /proc/self/statm less the third: the process's own pages in memory. */
static uint64_t private_resident(void)
{
	char text[128], *at = text;
	uint64_t n[3] = { 0, 0, 0 };

	if (qy_os->read_file("/proc/self/statm", text, sizeof(text)) <= 0)
		return 0;
	for (int i = 0; i < 3; i++) {
		for (; *at >= '0' && *at <= '9'; at++)
			n[i] = n[i] * 10 + (uint64_t)(*at - '0');
		at += *at == ' ';
	}
	return n[1] > n[2] ? (n[1] - n[2]) * qy_os_page_size() : 0;
}

uint64_t qy_budget_reserve(uint64_t limit)
{
	return MARGIN + limit / MARGIN_SHARE;
}

bool qy_budget_refresh(size_t bytes)
{
	uint64_t before = qy_read(&taken), now = qy_os->now_ms(), limit, usage, resident;
	struct handed_out out = handed_out();
	int64_t left = INT64_MAX;

	if (qy_setting(cgroup_limit) && out.mapped + bytes >= SMALL_PROCESS && qy_cgroup_memory(&limit, &usage)) {
		atomic_store_explicit(&last_limit, limit, memory_order_relaxed);
		resident = private_resident() + resident_elsewhere(&out);
		left = (int64_t)limit - (int64_t)usage - (int64_t)qy_budget_reserve(limit);
		/* What was handed out and is not touched yet will be. */
		left -= out.all > resident ? (int64_t)(out.all - resident) : 0;
		/* And what others took while this was read. */
		left -= (int64_t)(qy_read(&taken) - before);
		left = left < 0 ? 0 : left;
	}
	if (left != INT64_MAX) {
		int64_t slice = left / 4 < SLICE_MOST ? left / 4 : SLICE_MOST;

		atomic_store_explicit(&last_left, (uint64_t)left, memory_order_relaxed);
		atomic_store_explicit(&read_ms, now, memory_order_relaxed);
		slice = (int64_t)bytes + (slice > SLICE_LEAST ? slice : SLICE_LEAST);
		left = left < slice ? left : slice;
	}
	atomic_store_explicit(&qy_budget_left, left, memory_order_relaxed);
	return left >= (int64_t)bytes;
}
