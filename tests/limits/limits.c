/* SPDX-License-Identifier: MIT */
/* For limits.sh, with the library preloaded: a process in a memory control group whose limit is lowered under it, one
 * that fills its group with memory that has descriptors, and one that asks for more hugetlb pages than its group
 * allows.
 *
 *   limits memory DIRECTORY v1|v2     in the group there, which has the limit that this sets
 *   limits files DIRECTORY v1|v2      the same
 *   limits hugetlb DIRECTORY          in the group there (v2), with pages in the pool
 * Prints what it saw; exits with 0, or 1 with the reason. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "quarry/quarry.h"

#define MIB ((size_t)1 << 20)
#define LIMIT (192 * MIB)
#define LOWERED (80 * MIB)
#define LIVE (24 * MIB)
#define PATIENCE 30 /* seconds that anything may take before it counts as never */

static const char *group;
static int is_v1;

static __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...)
{
	va_list args;

	fputs("limits: FAIL: ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

static int put(const char *name, const char *text)
{
	char path[512];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "%s/%s", group, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

static int put_bytes(const char *name, size_t bytes)
{
	char text[32];

	snprintf(text, sizeof text, "%zu", bytes);
	return put(name, text);
}

static uint64_t get(const char *name)
{
	char path[512], text[64] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "%s/%s", group, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		fail("%s cannot be read: %s", path, strerror(errno));
	return strtoull(text, NULL, 10);
}

static uint64_t usage(void)
{
	return get(is_v1 ? "memory.usage_in_bytes" : "memory.current");
}

static int set_limit(size_t bytes)
{
	return put_bytes(is_v1 ? "memory.limit_in_bytes" : "memory.max", bytes);
}

/* ---- what the program has ---- */

struct block {
	struct block *next;
	size_t size;
	uint64_t seed;
};

static struct block *blocks;
static uint64_t random_state = 20251121;

static uint64_t next_random(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static int take(size_t size)
{
	struct block *b;

	errno = 0;
	b = malloc(size);
	if (b == NULL) {
		if (errno != ENOMEM)
			fail("no memory, but errno is %d", errno);
		return 0;
	}
	*b = (struct block){ blocks, size, next_random() };
	memset(b + 1, (int)(b->seed & 0xff), size - sizeof *b);
	blocks = b;
	return 1;
}

static void check(const struct block *b)
{
	const unsigned char *p = (const unsigned char *)(b + 1);

	for (size_t i = 0; i < b->size - sizeof *b; i++)
		if (p[i] != (b->seed & 0xff))
			fail("block %p of %zu bytes: byte %zu is overwritten", (const void *)b, b->size, i);
}

/* Free blocks, at random, until no more than so many bytes are left; what is left is whole. */
static void drop_to(size_t left)
{
	size_t held = 0;
	struct block **at = &blocks;

	for (struct block *b = blocks; b != NULL; b = b->next)
		held += b->size;
	while (held > left) {
		struct block *b;

		if (*at == NULL)
			at = &blocks;
		b = *at;
		check(b);
		if (next_random() % 3 != 0 && left != 0) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		held -= b->size;
		free(b);
	}
	for (struct block *b = blocks; b != NULL; b = b->next)
		check(b);
}

static size_t fill(size_t at_most)
{
	size_t got = 0, size;

	while (got < at_most && (size = 64 + next_random() % (next_random() % 4 ? 100000 : 3 * MIB), take(size)))
		got += size;
	return got;
}

/* ---- who is told ---- */

static int (*health)(quarry_health_report *report);
static int (*ctl_get)(const char *name, char *value, size_t size);
static unsigned highest;

static void hear(const quarry_event *event, void *ctx)
{
	(void)ctx;
	if (event->kind == QUARRY_EVENT_PRESSURE && (unsigned)event->state > highest)
		highest = (unsigned)event->state;
}

static void find_quarry(void)
{
	int (*on_event)(quarry_event_fn *fn, void *ctx);

	*(void **)&health = dlsym(RTLD_DEFAULT, "quarry_health");
	*(void **)&ctl_get = dlsym(RTLD_DEFAULT, "quarry_ctl_get");
	*(void **)&on_event = dlsym(RTLD_DEFAULT, "quarry_on_event");
	if (health == NULL || ctl_get == NULL || on_event == NULL)
		fail("quarry is not preloaded");
	on_event(hear, NULL);
}

static void pause_a_moment(void)
{
	struct timespec moment = { 0, 20000000 };

	nanosleep(&moment, NULL);
	/* Where there is no thread, it is the program's calls that look. */
	for (int i = 0; i < 20; i++)
		free(malloc(50000));
}

/* Wait until the group uses no more than so many bytes. */
static void wait_for(uint64_t bytes)
{
	time_t until = time(NULL) + PATIENCE;

	while (usage() > bytes) {
		if (time(NULL) > until)
			fail("%llu MiB are still in memory, not %llu; pressure %u", (unsigned long long)(usage() / MIB),
			     (unsigned long long)(bytes / MIB), highest);
		pause_a_moment();
	}
}

static void wait_for_calm(void)
{
	quarry_health_report report = { .struct_size = sizeof report };
	time_t until = time(NULL) + PATIENCE;

	while (health(&report) != 0 || report.level != QUARRY_PRESSURE_NONE) {
		if (time(NULL) > until)
			fail("pressure %d does not end", report.level);
		pause_a_moment();
	}
	highest = 0;
}

static void memory(void)
{
	quarry_health_report report = { .struct_size = sizeof report };
	uint64_t cached;
	size_t got;

	if (set_limit(LIMIT) != 0)
		fail("the limit cannot be set: %s", strerror(errno));
	/* A spike into the limit: an error, and nobody is killed. */
	got = fill(2 * LIMIT);
	if (got >= LIMIT)
		fail("%zu MiB were got under a limit of %zu", got / MIB, LIMIT / MIB);
	if (got < LIMIT / 2)
		fail("no more than %zu MiB were got under a limit of %zu", got / MIB, LIMIT / MIB);
	printf("limits: ENOMEM after %zu of %zu MiB\n", got / MIB, LIMIT / MIB);
	/* What is freed stays, for decay_ms is an hour; so long as there is no pressure. */
	drop_to(LIVE);
	wait_for_calm();
	fill(90 * MIB);
	drop_to(LIVE);
	wait_for_calm();
	cached = usage();
	if (cached < LOWERED + 8 * MIB)
		fail("of 90 MiB that were freed, %llu MiB are in memory, without pressure", (unsigned long long)(cached / MIB));
	printf("limits: %llu MiB in memory, %zu of them live\n", (unsigned long long)(cached / MIB), LIVE / MIB);
	/* The limit comes down. v1 refuses to go below what is used, so it goes as far as it can first; v2's memory.max
	 * would kill, so it is memory.high that comes down first. */
	if (is_v1 ? set_limit(cached + MIB) : put_bytes("memory.high", LOWERED))
		fail("the limit cannot be lowered to what is used: %s", strerror(errno));
	wait_for(LOWERED - 8 * MIB);
	if (set_limit(LOWERED) != 0)
		fail("the limit cannot be lowered: %s", strerror(errno));
	printf("limits: %llu MiB in memory under pressure %u\n", (unsigned long long)(usage() / MIB), highest);
	for (struct block *b = blocks; b != NULL; b = b->next)
		check(b);
	/* And the new limit holds as the old one did. */
	got = fill(2 * LIMIT);
	if (got >= LOWERED)
		fail("%zu MiB were got under a limit of %zu", got / MIB, LOWERED / MIB);
	if (health(&report) != 0 || report.denied_cgroup == 0 || report.limit == 0)
		fail("the report does not tell of it: %llu denied", (unsigned long long)report.denied_cgroup);
	drop_to(0);
	if (highest < QUARRY_PRESSURE_HIGH)
		fail("no event told of pressure: %u", highest);
	printf("limits: ENOMEM after %zu MiB more of %zu\n", got / MIB, LOWERED / MIB);
}

/* ---- memory with descriptors ---- */

static void *find(const char *name)
{
	void *at = dlsym(RTLD_DEFAULT, name);

	if (at == NULL)
		fail("%s is not there", name);
	return at;
}

static size_t fill_files(quarry_arena *arena, size_t at_most)
{
	void *(*arena_malloc)(quarry_arena *arena, size_t size);
	size_t got = 0, size;
	char *p;

	*(void **)&arena_malloc = find("quarry_arena_malloc");
	for (; got < at_most; got += size) {
		size = 64 + next_random() % (next_random() % 4 ? 100000 : 3 * MIB);
		errno = 0;
		p = arena_malloc(arena, size);
		if (p == NULL && errno != ENOMEM)
			fail("no memory in files, but errno is %d", errno);
		if (p == NULL)
			break;
		memset(p, 1, size);
	}
	return got;
}

static void expect_most(size_t got, const char *what)
{
	if (got >= LIMIT || got < LIMIT / 4 * 3)
		fail("%zu MiB were got %s, under a limit of %zu", got / MIB, what, LIMIT / MIB);
	printf("limits: ENOMEM after %zu of %zu MiB %s\n", got / MIB, LIMIT / MIB, what);
}

/* It is the group's once, as other memory is: nobody is killed, and nobody has to do with half. */
static void files(void)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_FD };
	quarry_arena *(*create)(const quarry_arena_attr *attr);
	int (*destroy)(quarry_arena *arena);
	quarry_arena *arena;
	size_t got;

	*(void **)&create = find("quarry_arena_create");
	*(void **)&destroy = find("quarry_arena_destroy");
	if (set_limit(LIMIT) != 0)
		fail("the limit cannot be set: %s", strerror(errno));
	for (int round = 0; round < 2; round++) {
		arena = create(&attr);
		if (arena == NULL)
			fail("no arena: %s", strerror(errno));
		got = fill_files(arena, round == 0 ? 2 * LIMIT : LIMIT / 2);
		if (round == 0)
			expect_most(got, "in files");
		else
			expect_most(got + fill(2 * LIMIT), "half of it in files");
		if (destroy(arena) != 0)
			fail("the arena cannot be destroyed: %s", strerror(errno));
	}
	drop_to(0);
}

static unsigned long long figure(const char *name)
{
	char text[32] = "";

	if (ctl_get(name, text, sizeof text) < 0)
		fail("no figure %s", name);
	return strtoull(text, NULL, 10);
}

/* The program's options say pages=2m. The group allows 8 MiB of them, and the pool has more. */
static void hugetlb(void)
{
	char *p[8];

	if (put_bytes("hugetlb.2MB.max", 8 * MIB) != 0)
		fail("the limit cannot be set: %s", strerror(errno));
	for (int i = 0; i < 8; i++) {
		p[i] = malloc(4 * MIB);
		if (p[i] == NULL)
			fail("no memory, where another kind of pages would do");
		memset(p[i], i + 1, 4 * MIB);
	}
	for (int i = 0; i < 8; i++)
		for (size_t at = 0; at < 4 * MIB; at += 4096)
			if (p[i][at] != i + 1)
				fail("block %d has changed", i);
	if (get("hugetlb.2MB.current") == 0)
		fail("none of it is in hugetlb pages");
	if (figure("stats.refused.huge-cgroup") == 0 || figure("stats.refused.huge-2m") != 0)
		fail("huge-cgroup %llu, huge-2m %llu", figure("stats.refused.huge-cgroup"), figure("stats.refused.huge-2m"));
	if (figure("stats.kind_got.2m") == 0 || figure("stats.kind_got.2m") > 8 * MIB)
		fail("%llu bytes in hugetlb pages", figure("stats.kind_got.2m"));
	printf("limits: %llu MiB in hugetlb pages, %llu in others\n", figure("stats.kind_got.2m") >> 20,
	       (figure("stats.mapped") - figure("stats.kind_got.2m")) >> 20);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	group = argv[2];
	is_v1 = argc > 3 && strcmp(argv[3], "v1") == 0;
	if (put("cgroup.procs", "0") != 0)
		fail("%s cannot be joined: %s", group, strerror(errno));
	find_quarry();
	if (strcmp(argv[1], "memory") == 0)
		memory();
	else if (strcmp(argv[1], "files") == 0)
		files();
	else
		hugetlb();
	return 0;
}
