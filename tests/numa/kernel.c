/* SPDX-License-Identifier: MIT */
/* What the kernel says: of the machine (in /sys), of this process (move_pages, numa_maps, smaps, kpageflags). */
#include "tests/numa/suite.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#define NODES "/sys/devices/system/node"
#define POOL_2M "hugepages/hugepages-2048kB"
#define BATCH 1024

struct machine machine;
static long saved_pools[128];

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void pause_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

void rest_now_and_then(uint64_t operations)
{
	if (operations % 256 == 0)
		pause_ms(1);
}

/* ---- files ---- */

bool read_text(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t got = 0;
	ssize_t n;

	if (fd < 0)
		return false;
	while (got < size - 1 && (n = read(fd, buffer + got, size - 1 - got)) > 0)
		got += (size_t)n;
	buffer[got] = 0;
	close(fd);
	return true;
}

bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error;
	size_t n = strlen(text);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, n) == (ssize_t)n;
	error = errno;
	close(fd);
	errno = error;
	return done;
}

long read_long(const char *path)
{
	char text[64];

	return read_text(path, text, sizeof(text)) ? strtol(text, NULL, 10) : -1;
}

uint64_t vmstat(const char *name)
{
	char line[256];
	uint64_t value = 0;
	size_t n = strlen(name);
	FILE *f = fopen("/proc/vmstat", "r");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, name, n) == 0 && line[n] == ' ')
			value = strtoull(line + n, NULL, 10);
	if (f != NULL)
		fclose(f);
	return value;
}

/* ---- the machine ---- */

/* "0-3,7" */
static void each_of_list(const char *text, void (*take)(void *ctx, int value), void *ctx)
{
	while (*text >= '0' && *text <= '9') {
		char *end;
		long first = strtol(text, &end, 10), last = first;

		if (*end == '-')
			last = strtol(end + 1, &end, 10);
		for (long i = first; i <= last; i++)
			take(ctx, (int)i);
		text = *end == ',' ? end + 1 : end;
	}
}

static void take_cpu(void *ctx, int cpu)
{
	struct node *n = ctx;

	CPU_SET((size_t)cpu, &n->cpus);
	n->has_cpus = true;
	machine.cpus++;
}

static uint64_t meminfo(int id, const char *field)
{
	char path[128], text[4096];
	const char *at;

	snprintf(path, sizeof(path), NODES "/node%d/meminfo", id);
	if (!read_text(path, text, sizeof(text)) || (at = strstr(text, field)) == NULL)
		return 0;
	return strtoull(at + strlen(field), NULL, 10) << 10;
}

static void take_node(void *ctx, int id)
{
	struct node *n = &machine.node[machine.count++];
	char path[128], text[4096];

	(void)ctx;
	n->id = id;
	n->total = meminfo(id, "MemTotal:");
	n->has_memory = n->total > 0;
	snprintf(path, sizeof(path), NODES "/node%d/cpulist", id);
	if (read_text(path, text, sizeof(text)))
		each_of_list(text, take_cpu, n);
}

static void read_distances(struct node *n)
{
	char path[128], text[4096], *at = text;

	snprintf(path, sizeof(path), NODES "/node%d/distance", n->id);
	if (!read_text(path, text, sizeof(text)))
		return;
	for (int i = 0; i < machine.count; i++)
		n->distance[i] = (int)strtol(at, &at, 10);
}

void machine_read(void)
{
	char text[4096];

	memset(&machine, 0, sizeof(machine));
	if (!read_text(NODES "/online", text, sizeof(text)))
		strcpy(text, "0");
	each_of_list(text, take_node, NULL);
	for (int i = 0; i < machine.count; i++) {
		struct node *n = &machine.node[i];

		read_distances(n);
		if (n->has_memory)
			machine.memory[machine.memories++] = i;
		if (n->has_cpus)
			machine.processor[machine.processors++] = i;
		if (n->has_memory && n->has_cpus)
			machine.home[machine.homes++] = i;
	}
}

int node_index(int id)
{
	for (int i = 0; i < machine.count; i++)
		if (machine.node[i].id == id)
			return i;
	return -1;
}

uint64_t node_free(int id)
{
	return meminfo(id, "MemFree:");
}

/* ---- pools ---- */

long pool(int id, const char *file)
{
	char path[160];

	snprintf(path, sizeof(path), NODES "/node%d/" POOL_2M "/%s_hugepages", id, file);
	return read_long(path);
}

static bool pool_resize(int id, long pages)
{
	char path[160], text[32];

	snprintf(path, sizeof(path), NODES "/node%d/" POOL_2M "/nr_hugepages", id);
	snprintf(text, sizeof(text), "%ld", pages);
	return write_text(path, text);
}

bool pool_set(int id, long pages)
{
	for (int tries = 0; tries < 3; tries++) {
		long total = pool(id, "nr"), unused = pool(id, "free");

		if (total < 0)
			return false;
		if (unused == pages)
			return true;
		if (!pool_resize(id, total - unused + pages))
			return false;
		if (pool(id, "free") == pages)
			return true;
		/* What stands in the way of a run of 2 MiB may be moved out of it. */
		write_text("/proc/sys/vm/compact_memory", "1");
	}
	return false;
}

void pools_save(void)
{
	for (int i = 0; i < machine.count; i++)
		saved_pools[i] = pool(machine.node[i].id, "nr");
}

void pools_restore(void)
{
	for (int i = 0; i < machine.count; i++)
		if (saved_pools[i] >= 0 && pool(machine.node[i].id, "nr") != saved_pools[i])
			pool_resize(machine.node[i].id, saved_pools[i]);
}

void need_pools(long pages)
{
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;

		if (pool(id, "nr") < 0)
			skip("the kernel has no pools of 2 MiB pages");
		if (!pool_set(id, pages))
			skip("node %d cannot have a pool of %ld 2 MiB pages (it has %ld free)", id, pages,
			     pool(id, "free"));
	}
}

void need_thp(void)
{
	char text[128];

	if (!read_text("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text)))
		skip("the kernel has no transparent huge pages");
	if (strstr(text, "[never]") != NULL)
		skip("transparent huge pages are switched off");
}

void need_nodes(int with_memory, int with_both)
{
	if (machine.memories < with_memory)
		skip("needs %d nodes with memory; there are %d", with_memory, machine.memories);
	if (machine.homes < with_both)
		skip("needs %d nodes with CPUs and memory; there are %d", with_both, machine.homes);
}

/* ---- pages ---- */

/* A page on its way to another node, or into a huge one, is nowhere for a moment, and with an emulated kernel and a
 * busy machine below it, for many: so one that is missing is asked about again, for a second in all. One that was never
 * there, or was lost, stays missing. */
static void ask(pid_t pid, void **pages, int *status, unsigned long count)
{
	for (int tries = 0; tries < 100; tries++) {
		bool missing = false;

		if (tries > 0)
			pause_ms(10);
		if (syscall(SYS_move_pages, pid, count, pages, NULL, status, 0) != 0)
			fail("move_pages(2) will not tell: %s", strerror(errno));
		for (unsigned long i = 0; i < count; i++)
			missing = missing || status[i] == -ENOENT;
		if (!missing)
			return;
	}
}

void tally_add_of(pid_t pid, struct tally *t, const void *p, size_t n)
{
	uintptr_t at = (uintptr_t)p & ~(PAGE - 1), end = (uintptr_t)p + n;
	void *pages[BATCH];
	int status[BATCH];

	while (at < end) {
		unsigned long count = 0;

		for (; at < end && count < BATCH; at += PAGE)
			pages[count++] = (void *)at;
		ask(pid, pages, status, count);
		for (unsigned long i = 0; i < count; i++) {
			t->total++;
			if (status[i] >= 0 && status[i] < IDS)
				t->on[status[i]]++;
			else if (status[i] == -ENOENT)
				t->absent++;
			else
				t->odd++;
		}
	}
}

void tally_add(struct tally *t, const void *p, size_t n)
{
	tally_add_of(0, t, p, n);
}

uint64_t tally_foreign(const struct tally *t, const quarry_nodeset *set)
{
	uint64_t foreign = t->absent + t->odd;

	for (unsigned i = 0; i < IDS; i++)
		if (t->on[i] != 0 && !quarry_nodeset_has(set, i))
			foreign += t->on[i];
	return foreign;
}

const char *tally_text(const struct tally *t, char *buffer, size_t size)
{
	size_t n = 0;

	buffer[0] = 0;
	for (int i = 0; i < IDS && n < size; i++)
		if (t->on[i] != 0)
			n += (size_t)snprintf(buffer + n, size - n, "%snode %d: %llu", n ? ", " : "", i,
					      (unsigned long long)t->on[i]);
	if (t->absent != 0 && n < size)
		n += (size_t)snprintf(buffer + n, size - n, ", absent: %llu", (unsigned long long)t->absent);
	if (t->odd != 0 && n < size)
		snprintf(buffer + n, size - n, ", odd: %llu", (unsigned long long)t->odd);
	return buffer;
}

void verify_tally(const struct tally *t, const quarry_nodeset *set, const char *what)
{
	uint64_t foreign = tally_foreign(t, set);
	char where[300], nodes[100];

	if (foreign != 0 || t->total == 0) {
		set_name(set, nodes, sizeof(nodes));
		fail("%s: %llu of %llu pages are not on %s (%s)", what, (unsigned long long)foreign,
		     (unsigned long long)t->total, nodes, tally_text(t, where, sizeof(where)));
	}
	count_pages(t->total);
}

void verify_on(const void *p, size_t n, const quarry_nodeset *set, const char *what)
{
	struct tally t = { 0 };

	tally_add(&t, p, n);
	verify_tally(&t, set, what);
}

void verify_on_node(const void *p, size_t n, int id, const char *what)
{
	quarry_nodeset set = one_node(id);

	verify_on(p, n, &set, what);
}

void nodes_of_pages(void **pages, int *nodes, unsigned long count)
{
	if (syscall(SYS_move_pages, 0, count, pages, NULL, nodes, 0) != 0)
		for (unsigned long i = 0; i < count; i++)
			nodes[i] = -errno;
}

int node_of_page(const void *p)
{
	void *page = (void *)((uintptr_t)p & ~(PAGE - 1));
	int node = -EINVAL;

	nodes_of_pages(&page, &node, 1);
	return node;
}

int policy_of(const void *p, unsigned long mask[IDS / 64])
{
	int mode = -1;

	memset(mask, 0, IDS / 8);
	/* 2: MPOL_F_ADDR. */
	if (syscall(SYS_get_mempolicy, &mode, mask, (unsigned long)IDS, p, 2ul) != 0)
		return -1;
	return mode & 0xff;
}

/* ---- the process ---- */

void process_pages_with(const char *policy, uint64_t on[IDS])
{
	static const char key[] = "kernelpagesize_kB=";
	FILE *f = fopen("/proc/self/numa_maps", "r");
	char *line = NULL;
	size_t room = 0;

	memset(on, 0, sizeof(*on) * IDS);
	MUST(f != NULL);
	while (getline(&line, &room, f) > 0) {
		const char *size = strstr(line, key);
		uint64_t unit = size == NULL ? 1 : strtoull(size + sizeof(key) - 1, NULL, 10) / 4;

		if (strstr(line, policy) == NULL)
			continue;
		for (const char *at = strstr(line, " N"); at != NULL; at = strstr(at + 2, " N")) {
			char *end;
			long id = strtol(at + 2, &end, 10);

			if (end != at + 2 && *end == '=' && id >= 0 && id < IDS)
				on[id] += strtoull(end + 1, NULL, 10) * unit;
		}
	}
	free(line);
	fclose(f);
}

void process_pages(uint64_t on[IDS])
{
	process_pages_with("", on);
}

uint64_t process_pages_on(int id)
{
	uint64_t on[IDS];

	process_pages(on);
	return on[id];
}

void no_huge_pages_from_now_on(void)
{
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
}

uint64_t process_rss(void)
{
	char text[200];
	unsigned long size, resident;

	MUST(read_text("/proc/self/statm", text, sizeof(text)) && sscanf(text, "%lu %lu", &size, &resident) == 2);
	return resident;
}

uint64_t rollup(const char *field)
{
	char text[4096];
	const char *at;

	MUST(read_text("/proc/self/smaps_rollup", text, sizeof(text)));
	at = strstr(text, field);
	return at == NULL ? 0 : strtoull(at + strlen(field) + 1, NULL, 10) << 10;
}

/* By the page's flags, which only root may read: the one place that tells a huge page from 512 others on kernels
 * without PAGEMAP_SCAN. */
int backing(const void *p)
{
	static int maps = -2, flags = -2;
	uint64_t entry = 0, bits = 0;

	if (maps == -2) {
		maps = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	}
	if (maps < 0 || flags < 0 || pread(maps, &entry, 8, (off_t)((uintptr_t)p / PAGE * 8)) != 8)
		return BACKED_UNKNOWN;
	if (!(entry >> 63))
		return BACKED_NOT;
	entry &= ((uint64_t)1 << 55) - 1;
	if (entry == 0 || pread(flags, &bits, 8, (off_t)(entry * 8)) != 8)
		return BACKED_UNKNOWN;
	return bits >> 17 & 1 ? BACKED_HUGETLB : bits >> 22 & 1 ? BACKED_THP : BACKED_BASE;
}
