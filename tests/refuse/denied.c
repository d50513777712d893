/* SPDX-License-Identifier: MIT */
/* Run under deny: makes an arena that asks for all that was denied, uses it, asks where its memory is, and sees that
 * quarry_stats says what was refused. The statistics go to standard output as JSON.
 *
 *   denied EPERM|ENOSYS|nothing */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define CHECK(x) ((x) ? (void)0 : fail(#x, __LINE__))

static void fail(const char *what, int line)
{
	fprintf(stderr, "denied.c:%d: failed: %s (errno %d, %s)\n", line, what, errno, quarry_error_text());
	exit(1);
}

static quarry_arena *bound_arena(int node, uint32_t flags)
{
	quarry_arena_attr attr = { .struct_size = sizeof attr, .policy = QUARRY_POLICY_BIND, .flags = flags, .name = "bound" };

	quarry_nodeset_add(&attr.nodes, (unsigned)node);
	return quarry_arena_create(&attr);
}

/* The kernel's answer to mbind, without quarry: 0 when it works here. */
static int mbind_answer(void)
{
	errno = 0;
	return syscall(SYS_mbind, NULL, 0UL, 0, NULL, 0UL, 0) == 0 ? 0 : errno;
}

int main(int argc, char **argv)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	quarry_page_info info[64];
	int node = quarry_node_id(0), expected;
	quarry_arena *arena;
	char *p;

	CHECK(argc == 2);
	expected = strcmp(argv[1], "EPERM") == 0 ? EPERM : strcmp(argv[1], "ENOSYS") == 0 ? ENOSYS : 0;
	CHECK(mbind_answer() == expected);
	/* Not strict: it is made, its memory works, and what it is not is told. */
	arena = bound_arena(node, 0);
	CHECK(arena != NULL);
	for (int i = 0; i < 100; i++) {
		size_t n = (size_t)1 << (i % 20);
		p = quarry_arena_malloc(arena, n);
		CHECK(p != NULL);
		memset(p, i, n);
		CHECK(quarry_arena_of(p) == arena);
		if (i % 2)
			free(p);
	}
	p = quarry_arena_malloc(arena, 200000);
	CHECK(p != NULL);
	memset(p, 1, 200000);
	long pages = quarry_where(p, 200000, info, 64);
	CHECK(pages > 0);
	for (long i = 0; i < pages && i < 64; i++) {
		CHECK(info[i].policy == QUARRY_POLICY_BIND && info[i].wanted_node == node);
		CHECK(info[i].policy_applied == (expected == 0));
		CHECK(expected != 0 ? info[i].node == QUARRY_NODE_UNKNOWN : info[i].node == node);
	}
	/* Strict: it fails, at the latest when memory is asked for, and says why. */
	errno = 0;
	quarry_arena *strict = bound_arena(node, QUARRY_ARENA_STRICT);
	if (expected != 0) {
		CHECK(strict == NULL || quarry_arena_malloc(strict, 100000) == NULL);
		CHECK(errno == expected || errno == ENOMEM);
	} else {
		CHECK(strict != NULL);
	}
	CHECK(quarry_stats_get(NULL, &stats) == 0);
	int other = expected == EPERM ? QUARRY_REFUSED_MBIND_ENOSYS : QUARRY_REFUSED_MBIND_EPERM;
	int cause = expected == EPERM ? QUARRY_REFUSED_MBIND_EPERM : QUARRY_REFUSED_MBIND_ENOSYS;
	if (expected != 0) {
		CHECK(stats.refused[cause] > 0);
		CHECK(stats.refused[other] == 0);
		CHECK(stats.refused[QUARRY_REFUSED_MOVE_PAGES] > 0);
		CHECK(stats.refused[QUARRY_REFUSED_RSEQ] > 0);
		CHECK(stats.unplaced > 0);
	} else {
		CHECK(stats.refused[cause] == 0 && stats.refused[other] == 0);
		CHECK(stats.refused[QUARRY_REFUSED_MOVE_PAGES] == 0);
		CHECK(stats.unplaced == 0);
	}
	CHECK(quarry_stats_print(STDOUT_FILENO, 1) == 0);
	return 0;
}
