/* SPDX-License-Identifier: MIT */
/* A library without a heap, for the tests of what stands on the statistics: as many arenas as a test likes, with the
 * figures it likes. To be included once, by a test that links the modules under test and not libquarry-internal. */
#ifndef QUARRY_TESTS_FAKE_STATS_H
#define QUARRY_TESTS_FAKE_STATS_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "numa/os.h"

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

const char *quarry_version_string(void)
{
	return "9.8.7";
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

static const struct qy_os fake_os = { .mmap = fake_mmap, .munmap = fake_munmap };
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

#endif
