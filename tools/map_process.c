/* SPDX-License-Identifier: MIT */
/* A map of a process that runs, from what the kernel says of it: numa_maps has the nodes, smaps the huge pages and what
 * each mapping is. Both are read line by line, and what is met is put under what the memory is for.
 *
 * numa_maps does not say which of a mapping's pages are huge, smaps not where they are. Where a mapping is on one node,
 * or has either no huge page or nothing else, there is no doubt; in any other case the kind is "not told". */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define WINDOW_LEAST (UINT64_C(64) << 30) /* a reserved window is never smaller, but where somebody set it so */
#define MAPPINGS_MAX ((size_t)1 << 20)
#define KIB 1024

enum use { USE_WINDOW, USE_HEAP, USE_ANONYMOUS, USE_STACK, USE_SHARED, USE_FILES, USES };

static const char *const use_names[USES] = { "quarry's window", "heap (brk)", "anonymous memory", "main stack",
					     "shared memory", "files" };

struct mapping {
	uint64_t start, end;
	uint64_t huge;  /* bytes in transparent huge pages */
	uint64_t page;  /* the kernel's page size for it */
	bool none, kept_from_dumps; /* PROT_NONE; MADV_DONTDUMP */
	enum use use;
};

struct process {
	int pid;
	struct mapping *mappings; /* ascending */
	size_t count;
	bool library; /* quarry's is mapped */
	uint64_t window_start, window_end; /* 0, 0: not known */
};

static FILE *open_of(int pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return fopen(path, "re");
}

/* ---- smaps ---- */

static bool is_library(const char *path)
{
	const char *name = strrchr(path, '/');

	return name && (strncmp(name, "/libquarry.so", 13) == 0 || strncmp(name, "/libquarry-malloc.so", 20) == 0);
}

static enum use use_of(const char *path, const char *permissions, unsigned long long inode)
{
	if (strncmp(path, "[heap]", 6) == 0)
		return USE_HEAP;
	if (strncmp(path, "[stack]", 7) == 0)
		return USE_STACK;
	if (strncmp(path, "/dev/shm/", 9) == 0 || strncmp(path, "/memfd:", 7) == 0 || strncmp(path, "/SYSV", 5) == 0 ||
	    strncmp(path, "/dev/zero", 9) == 0)
		return USE_SHARED;
	if (strncmp(path, "/anon_hugepage", 14) == 0)
		return permissions[3] == 's' ? USE_SHARED : USE_ANONYMOUS;
	if (inode == 0 && (path[0] == '\0' || path[0] == '['))
		return permissions[3] == 's' ? USE_SHARED : USE_ANONYMOUS;
	return USE_FILES;
}

/* "7f00-7f10 rw-p 00000000 00:00 0   [heap]": whether the line is the first of a mapping. */
static bool read_head(struct process *process, const char *line)
{
	struct mapping m = { .page = 4 * KIB }, *grown;
	unsigned long long inode;
	char permissions[5];
	int path = -1;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %llu %n", &m.start, &m.end, permissions, &inode,
		   &path) != 4 || path < 0)
		return false;
	m.none = strncmp(permissions, "---", 3) == 0;
	m.use = use_of(line + path, permissions, inode);
	process->library = process->library || is_library(line + path);
	if ((process->count & (process->count - 1)) == 0) {
		grown = reallocarray(process->mappings, process->count ? 2 * process->count : 1, sizeof(m));
		if (!grown)
			return false;
		process->mappings = grown;
	}
	process->mappings[process->count++] = m;
	return true;
}

static void read_detail(struct mapping *m, const char *line)
{
	uint64_t n;

	if (sscanf(line, "AnonHugePages: %" SCNu64, &n) == 1 || sscanf(line, "ShmemPmdMapped: %" SCNu64, &n) == 1 ||
	    sscanf(line, "FilePmdMapped: %" SCNu64, &n) == 1)
		m->huge += n * KIB;
	else if (sscanf(line, "KernelPageSize: %" SCNu64, &n) == 1)
		m->page = n * KIB;
	else if (strncmp(line, "VmFlags:", 8) == 0)
		m->kept_from_dumps = strstr(line, " dd") != NULL;
}

static int read_smaps(struct process *process)
{
	FILE *in = open_of(process->pid, "smaps");
	char *line = NULL;
	size_t size = 0;
	int error;

	if (!in)
		return errno;
	errno = 0;
	while (process->count < MAPPINGS_MAX && getline(&line, &size, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (!read_head(process, line) && process->count > 0)
			read_detail(&process->mappings[process->count - 1], line);
	}
	error = ferror(in) ? errno : 0;
	free(line);
	fclose(in);
	return error;
}

/* ---- quarry's window ---- */

/* The window and what stands beside it are one reservation that is kept from core dumps, of which pieces are mapped:
 * a run of private mappings without gaps, from the first to the last that is PROT_NONE and not dumped. It is recognised
 * when the library is there, and exactly one such run is large enough. */
static void find_window(struct process *process)
{
	const struct mapping *m = process->mappings;
	size_t found = 0;

	for (size_t i = 0; process->library && i < process->count;) {
		uint64_t first = 0, last = 0;
		size_t next = i;

		do {
			if (m[next].none && m[next].kept_from_dumps) {
				first = first ? first : m[next].start;
				last = m[next].end;
			}
			next++;
		} while (next < process->count && m[next].start == m[next - 1].end && m[next].use == USE_ANONYMOUS &&
			 m[i].use == USE_ANONYMOUS);
		if (last - first >= WINDOW_LEAST && m[i].use == USE_ANONYMOUS && ++found == 1) {
			process->window_start = first;
			process->window_end = last;
		}
		i = next;
	}
	if (found != 1)
		process->window_start = process->window_end = 0;
	for (size_t i = 0; i < process->count; i++)
		if (m[i].start >= process->window_start && m[i].end <= process->window_end)
			process->mappings[i].use = USE_WINDOW;
}

/* ---- numa_maps ---- */

static const struct mapping *mapping_at(const struct process *process, uint64_t start)
{
	size_t low = 0, high = process->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (process->mappings[middle].start <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && start < process->mappings[low - 1].end ? &process->mappings[low - 1] : NULL;
}

static int kind_of(const struct mapping *m, uint64_t page, uint64_t all)
{
	if (page >= UINT64_C(1) << 30)
		return QUARRY_PAGES_1G;
	if (page >= UINT64_C(2) << 20)
		return QUARRY_PAGES_2M;
	if (m->huge == 0)
		return QUARRY_PAGES_BASE;
	return m->huge >= all ? QUARRY_PAGES_THP : QUARRY_PAGES_AUTO;
}

static bool add_bytes(struct map_arena *arena, int node, int kind, uint64_t bytes)
{
	struct map_share *share = map_share_on(arena, node);

	if (!share)
		return false;
	share->bytes = map_add(share->bytes, bytes);
	share->by_kind[kind] = map_add(share->by_kind[kind], bytes);
	return true;
}

/* "7f0000000000 bind:1 anon=512 dirty=512 N0=3 N1=509 kernelpagesize_kB=4" */
static bool read_numa_line(const struct process *process, struct map *map, char *line)
{
	uint64_t start = strtoull(line, NULL, 16), page = 4 * KIB, all = 0, pages;
	const struct mapping *m = mapping_at(process, start);
	char *size = strstr(line, " kernelpagesize_kB=");
	struct map_arena *arena;
	int node, on = 0, kind;

	if (!m)
		return true; /* it came after smaps was read */
	if (size)
		page = strtoull(size + 19, NULL, 10) * KIB;
	for (const char *at = line; (at = strstr(at, " N")) != NULL; at++)
		if (sscanf(at, " N%d=%" SCNu64, &node, &pages) == 2) {
			all = map_add(all, pages * page);
			on++;
		}
	kind = kind_of(m, page, all);
	arena = &map->arenas[m->use];
	for (const char *at = line; (at = strstr(at, " N")) != NULL; at++) {
		uint64_t bytes, huge = 0;

		if (sscanf(at, " N%d=%" SCNu64, &node, &pages) != 2 || node < 0 || node >= QUARRY_NODES_MAX)
			continue;
		bytes = pages * page;
		if (kind == QUARRY_PAGES_AUTO && on == 1) {
			huge = m->huge < bytes ? m->huge : bytes;
			if (!add_bytes(arena, node, QUARRY_PAGES_THP, huge))
				return false;
		}
		if (!add_bytes(arena, node, huge ? QUARRY_PAGES_BASE : kind, bytes - huge))
			return false;
	}
	return true;
}

static int read_numa_maps(const struct process *process, struct map *map)
{
	FILE *in = open_of(process->pid, "numa_maps");
	char *line = NULL;
	size_t size = 0;
	int error = 0;

	if (!in)
		return errno;
	errno = 0;
	while (!error && getline(&line, &size, in) > 0)
		error = read_numa_line(process, map, line) ? 0 : ENOMEM;
	if (!error && ferror(in))
		error = errno;
	free(line);
	fclose(in);
	return error;
}

/* ---- the whole ---- */

static int prepare(struct map *map, int pid)
{
	char path[64];

	map->of = MAP_PROCESS;
	map->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (!read_text(path, map->program, sizeof(map->program)))
		return fail(STATUS_FAILED, "map: %d: %s", pid, errno == ENOENT ? strerror(ESRCH) : strerror(errno));
	for (int use = 0; use < USES; use++) {
		struct map_arena *arena = map_add_arena(map);

		if (!arena || !(arena->name = strdup(use_names[use])))
			return fail(STATUS_FAILED, "map: %s", strerror(ENOMEM));
	}
	return STATUS_OK;
}

static void say_what_is_not_told(struct map *map, const struct process *process)
{
	const char *quarry = process->window_end ? "quarry's window: arenas and quarry's records together" :
			     process->library	 ? "quarry is loaded; its memory cannot be told from other anonymous memory" :
						   "quarry is not loaded";

	snprintf(map->note, sizeof(map->note), "%s. Stacks of threads are anonymous memory.", quarry);
}

int map_read_process(struct map *map, int pid)
{
	struct process process = { .pid = pid };
	int status = prepare(map, pid), error;

	if (status == STATUS_OK) {
		error = read_smaps(&process);
		if (!error) {
			find_window(&process);
			error = read_numa_maps(&process, map);
		}
		/* A kernel thread has neither. */
		if (error == ENOENT)
			status = fail(STATUS_FAILED, "map: %d: no /proc/%d/numa_maps: the kernel lacks CONFIG_NUMA", pid, pid);
		else if (error == ESRCH || (!error && process.count == 0))
			status = fail(STATUS_FAILED, "map: %d: it ended, or is the kernel's", pid);
		else if (error)
			status = fail(STATUS_FAILED, "map: %d: %s", pid, strerror(error));
		say_what_is_not_told(map, &process);
	}
	free(process.mappings);
	return status == STATUS_OK ? map_read_machine(map) : status;
}
