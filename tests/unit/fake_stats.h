/* SPDX-License-Identifier: MIT */
/* A library without a heap, for the tests of what stands on the statistics: as many arenas as a test likes, with the
 * figures it likes. To be included once, by a test that links the modules under test and not libquarry-internal. */
#ifndef QUARRY_TESTS_FAKE_STATS_H
#define QUARRY_TESTS_FAKE_STATS_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "lib/cache/sample.h"
#include "lib/cache/thread.h"
#include "lib/view/print.h"
#include "lib/view/residency.h"
#include "numa/os.h"
#include "numa/topology.h"

#define FAKE_ARENAS_MAX 5000

static quarry_stats fake_total;
static quarry_stats fake_arenas[FAKE_ARENAS_MAX];
static size_t fake_arena_count;
static bool fake_gone[FAKE_ARENAS_MAX]; /* destroyed between the list and the look */
static bool fake_mmap_refused;
static long fake_mappings; /* live ones */

static _Atomic int fake_inits;

void qy_init_once(void)
{
	fake_inits++;
}

static unsigned fake_looks;

void qy_thread_look(void)
{
	fake_looks++;
}

const char *quarry_version_string(void)
{
	return "9.8.7";
}

static quarry_health_report fake_health;

int quarry_health(quarry_health_report *report)
{
	*report = fake_health;
	report->struct_size = sizeof(*report);
	return 0;
}

void *quarry_malloc(size_t size)
{
	return malloc(size);
}

void quarry_free(void *p)
{
	free(p);
}

size_t quarry_arenas(quarry_arena **list, size_t max)
{
	for (size_t i = 0; i < fake_arena_count && i < max; i++)
		list[i] = (quarry_arena *)(void *)&fake_arenas[i];
	return fake_arena_count;
}

int quarry_stats_get(quarry_arena *arena, quarry_stats *stats)
{
	const quarry_stats *from = arena ? (const quarry_stats *)(void *)arena : &fake_total;

	if (stats->version != QUARRY_STATS_VERSION || (arena && fake_gone[from - fake_arenas])) {
		errno = EINVAL;
		return -1;
	}
	*stats = *from;
	stats->version = QUARRY_STATS_VERSION;
	return 0;
}

struct qy_arena_counts *qy_arena_counts_get(const struct qy_arena_list *list)
{
	(void)list;
	return NULL;
}

void qy_arena_counts_put(struct qy_arena_counts *counts)
{
	(void)counts;
}

bool qy_arena_counts_stats(const struct qy_arena_counts *counts, quarry_arena *arena, quarry_stats *stats)
{
	(void)counts;
	return quarry_stats_get(arena, stats) == 0;
}

uint64_t qy_arena_number(const quarry_arena *arena)
{
	return (uint64_t)((const quarry_stats *)(const void *)arena - fake_arenas);
}

static void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (fake_mmap_refused) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	fake_mappings++;
	return mmap(addr, len, prot, flags, fd, off);
}

static int fake_munmap(void *addr, size_t len)
{
	fake_mappings--;
	return munmap(addr, len);
}

/* ---- the machine and the placement: as many nodes as a test sets, ids with holes ---- */

#define FAKE_STATS_NODES 5

static int fake_node_count = 1;
static const int fake_node_ids[FAKE_STATS_NODES] = { 0, 1, 2, 65, 1000 };
static quarry_residency fake_residencies[FAKE_ARENAS_MAX][3];
static size_t fake_residency_count[FAKE_ARENAS_MAX];
static struct qy_asked fake_asked[FAKE_ARENAS_MAX];
static long fake_lists; /* that were got and not put */

int qy_node_count(void)
{
	return fake_node_count;
}

int qy_node_distance(int from, int to)
{
	return from == to ? 10 : 20 + from + to;
}

int qy_node_info(int dense, quarry_node_info *info)
{
	info->id = fake_node_ids[dense];
	info->index = dense < 3 ? dense : -1;
	info->has_cpus = dense != 2;
	info->has_memory = dense != 1;
	info->allowed = dense < 3;
	info->memory_total = (uint64_t)(dense + 1) << 30;
	info->memory_free = (uint64_t)(dense + 1) << 20;
	info->huge_free_2m = (uint64_t)dense + 3;
	info->huge_total_2m = (uint64_t)dense + 7;
	info->huge_free_1g = 1;
	info->huge_total_1g = 2;
	return 0;
}

bool qy_residencies_get(struct qy_residencies *list, quarry_arena *arena)
{
	size_t i = (size_t)((const quarry_stats *)(void *)arena - fake_arenas);

	if (fake_gone[i])
		return false;
	fake_lists++;
	list->at = fake_residencies[i];
	list->count = fake_residency_count[i];
	return true;
}

void qy_residencies_put(struct qy_residencies *list)
{
	(void)list;
	fake_lists--;
}

bool qy_asked_get(struct qy_asked *asked, const quarry_arena *arena)
{
	size_t i = (size_t)((const quarry_stats *)(const void *)arena - fake_arenas);

	*asked = fake_asked[i];
	return !fake_gone[i];
}

const char *qy_policy_name(int policy)
{
	return policy == QUARRY_POLICY_BIND ? "bind" : "local";
}

static ssize_t fake_read_file(const char *path, char *buffer, size_t size)
{
	const char *text = strcmp(path, "/proc/self/comm") == 0			       ? "a \"name\"\n" :
			   strcmp(path, "/sys/devices/system/node/node0/cpulist") == 0 ? "0-3,8\n" :
											  NULL;

	if (!text) {
		errno = ENOENT;
		return -1;
	}
	strncpy(buffer, text, size);
	return (ssize_t)strlen(buffer);
}

static int fake_process_id(void)
{
	return 4711;
}

static uint64_t fake_ns = 1000000000;

static uint64_t fake_now_ns(void)
{
	return fake_ns;
}

static int fake_close(int fd)
{
	return close(fd);
}

static int fake_rename_error;

static int fake_rename_file(const char *from, const char *to)
{
	if (fake_rename_error == 0)
		return rename(from, to);
	errno = fake_rename_error;
	return -1;
}

static int fake_create_file(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
}

static const struct qy_os fake_os = { .mmap = fake_mmap, .munmap = fake_munmap, .read_file = fake_read_file,
				      .process_id = fake_process_id, .thread_id = fake_process_id,
				      .now_ns = fake_now_ns, .close = fake_close, .create_file = fake_create_file,
				      .rename_file = fake_rename_file, .remove_file = unlink };
const struct qy_os *qy_os = &fake_os;

size_t qy_os_page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static inline quarry_stats *fake_arena(const char *name, int node)
{
	quarry_stats *s = &fake_arenas[fake_arena_count++];

	memset(s, 0, sizeof(*s));
	s->version = QUARRY_STATS_VERSION;
	s->node = node;
	for (size_t i = 0; i < sizeof(s->name) && name[i]; i++)
		s->name[i] = name[i];
	return s;
}

static quarry_profile_report fake_profile;

int quarry_profile_report_get(quarry_profile_report *report)
{
	*report = fake_profile;
	report->struct_size = sizeof(*report);
	return 0;
}

/* What the option profile leads to. */
static uint64_t fake_mean __attribute__((unused));

void qy_sampling_start(uint64_t mean, int unwind)
{
	(void)unwind;
	fake_mean = mean;
}

#endif
