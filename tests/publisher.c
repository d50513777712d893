/* SPDX-License-Identifier: MIT */
/* For tests/top.sh: publishes what it is told to: without an argument an arena with a name that a terminal would obey; else pages
 * that no library wrote. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <quarry/lanes.h>

/* Lanes whose names no terminal should see, with objects in both of them and in a group. */
static int use_lanes(void)
{
	quarry_lanes_attr attr = { .threshold = 100, .name = "l\033[2Jane\"\n", .flags = QUARRY_LANES_NO_MOVER };
	quarry_lanes *l = quarry_lanes_create(&attr);
	quarry_group *g = quarry_group_create(l, &(quarry_group_attr){ .name = "g\033[2Jroup" });

	for (int i = 0; i < 40000; i++) {
		quarry_handle h = quarry_halloc(l, i % 4 ? 1000 : 60);

		if (h == 0 || (i % 100 == 0 && quarry_group_add(g, h) != 0) || (i % 2 && quarry_hfree(l, h) != 0))
			return 1;
	}
	return 0;
}

static void stats(void)
{
	int fd = open("stats.json", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || quarry_stats_print(fd, 1) != 0)
		abort();
	close(fd);
	puts("told");
	fflush(stdout);
}

static void serve(void)
{
	puts("ready");
	fflush(stdout);
	for (char line[64]; fgets(line, sizeof(line), stdin);) {
		if (strcmp(line, "exec\n") == 0)
			execlp("sleep", "sleep", "600", (char *)NULL);
		if (strcmp(line, "stats\n") == 0)
			stats();
		for (int i = 0; i < 20000; i++)
			free(malloc(50000 + i));
	}
}

/* Whoever reads it waits for ever, from outside too. */
static int fill_never(void *page, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register all = { { (unsigned long)page, size }, UFFDIO_REGISTER_MODE_MISSING, 0 };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	return fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &all) != 0;
}

/* A mapping with what the file has, each above the one before: "FILE", or with "r:" before it one that is not writable,
 * with "u:" one that is never filled, with "p:" one of its parent. */
static int publish(const char *arg)
{
	static char *place;
	char how = arg[1] == ':' ? arg[0] : 0, bytes[1 << 16] = "";
	int fd = memfd_create("quarry-published", 0);
	FILE *file = fopen(how ? arg + 2 : arg, "r");
	quarry_published head;
	size_t n = file ? fread(bytes, 1, sizeof(bytes), file) : 0;

	memcpy(&head, bytes, sizeof(head));
	head.pid = how == 'p' ? getppid() : getpid();
	if (head.magic == QUARRY_PUBLISHED_MAGIC)
		memcpy(bytes, &head, sizeof(head));
	if (!place)
		place = mmap(NULL, 64 * sizeof(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	place += 2 * sizeof(bytes);
	if (n == 0 || ftruncate(fd, sizeof(bytes)) != 0 || (how != 'u' && write(fd, bytes, n) != (ssize_t)n) ||
	    mmap(place, sizeof(bytes), how == 'r' ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 0) == MAP_FAILED)
		return 1;
	return how == 'u' && fill_never(place, sizeof(bytes)) ? 77 : 0;
}

int main(int argc, char **argv)
{
	quarry_arena_attr attr = { .name = "e\033[2Jvil\x9b\"\\\n\377", .hard_limit = 64 << 20 };

	for (int i = 1, status; i < argc; i++)
		if ((status = publish(argv[i])) != 0)
			return status;
	if (argc < 2) {
		quarry_arena *arena = quarry_arena_create(&attr);

		memset(quarry_arena_malloc(arena, 16 << 20), 1, 16 << 20);
		for (int i = 0; i < 100000; i++)
			if (!memset(malloc(2000), 1, 2000))
				return 1;
		if (use_lanes() != 0)
			return 1;
	}
	serve();
	return 0;
}
