/* SPDX-License-Identifier: MIT */
/* Files of heaps that the fuzz programs (tests/fuzz) found to be too much, made on purpose: all of their checksums are right. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"

#define MIB ((size_t)1 << 20)

static char path[256];
static char *file; /* mapped */
static size_t bytes;

static const char *place(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/quarry-bent-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	return path;
}

static void leave(void)
{
	unlink(path);
}

TestSuite(mapped_bent, .fini = leave, .timeout = 120);

static void map_file(void)
{
	int fd = open(path, O_RDWR);
	struct stat is;

	cr_assert(fd >= 0 && fstat(fd, &is) == 0);
	bytes = (size_t)is.st_size;
	file = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert(file != MAP_FAILED);
	close(fd);
}

static void unmap_file(void)
{
	munmap(file, bytes);
}

/* What a child makes of it, for 30 s at most: 0 where it is refused as damaged; 1 where it is not. */
static int refused(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(30);
		_exit(fn());
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* ---- direct heaps ---- */

static int shrinks(void)
{
	quarry_mapped *h = quarry_mapped_open(path);
	quarry_mapped_report report;

	if (h == NULL)
		return errno == EUCLEAN ? 0 : 1;
	(void)quarry_mapped_shrink(h);
	(void)quarry_mapped_check(h, &report, sizeof(report));
	return 1;
}

/* A segment of units is one, whatever number stands in its entry: else what is cut behind the last one is in use. */
Test(mapped_bent, a_segment_of_units_that_says_it_is_several)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 256 * MIB };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);
	struct qy_mapped_sb sb;
	uint64_t at[6];
	int fd;

	cr_assert_not_null(h);
	cr_assert(quarry_mapped_alloc(h, 31 * MIB) != NULL && quarry_mapped_alloc(h, 31 * MIB) != NULL && quarry_mapped_alloc(h, 31 * MIB) != NULL);
	cr_assert_eq(qy_heap(h)->live->segments, 3);
	quarry_mapped_close(h);
	fd = open(path, O_RDONLY);
	cr_assert(qy_mapped_sb_read(fd, &sb) == 0 && qy_mapped_layout(&sb, at));
	close(fd);
	map_file();
	((uint64_t *)(void *)(file + at[4]))[0] = QY_SEG_UNITS | (uint64_t)3 * QY_MAPPED_SEG_UNITS << 8;
	unmap_file();
	cr_assert_eq(refused(shrinks), 0);
}

static int sees(void *ctx, void *p, size_t usable)
{
	(void)ctx;
	(void)*(volatile char *)p;
	(void)*((volatile char *)p + usable - 1);
	return 0;
}

static int walks(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL)
		return errno == EUCLEAN ? 0 : 1;
	(void)quarry_mapped_walk(h, sees, NULL);
	return 1;
}

/* It would end behind the end of the file. */
Test(mapped_bent, a_block_within_a_block)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 256 * MIB };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);
	uint64_t *segtab;

	cr_assert(h != NULL && quarry_mapped_alloc(h, 40 * MIB) != NULL && quarry_mapped_alloc(h, 40 * MIB) != NULL);
	segtab = qy_heap(h)->segtab;
	cr_assert((segtab[2] & 0xff) == QY_SEG_BLOCK && (segtab[3] & 0xff) == QY_SEG_TAIL);
	segtab[3] = QY_SEG_BLOCK | (uint64_t)QY_MAPPED_SEG_UNITS << 8;
	quarry_mapped_close(h);
	cr_assert_eq(refused(walks), 0);
}

/* ---- durable ones ---- */

static struct qy_durable_sb *sb_at(unsigned i)
{
	return (struct qy_durable_sb *)(void *)(file + i * QY_PAGE);
}

static void seal(void)
{
	for (unsigned i = 0; i < 2; i++) {
		qy_mapped_sb_seal(&sb_at(i)->sb);
		sb_at(i)->crc = 0;
		sb_at(i)->crc = qy_page_crc(sb_at(i));
	}
}

/* With two superblocks, of two versions each; mapped. */
static void new_file(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 * MIB, .versions = 1 };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_not_null(quarry_mapped_alloc_into(h, 10000, (quarry_off *)quarry_mapped_user(h, NULL) + i));
		cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), 0);
	}
	quarry_mapped_close(h);
	map_file();
	cr_assert(sb_at(0)->count == 2 && sb_at(1)->count == 2);
}

static int saves(void)
{
	quarry_mapped *h = quarry_mapped_open(path);
	int rc;

	if (h == NULL)
		return errno == EUCLEAN ? 0 : 1;
	for (unsigned i = 0; i < 3; i++)
		(void)quarry_mapped_alloc(h, 100);
	rc = quarry_mapped_checkpoint(h, NULL, 0);
	quarry_mapped_close(h);
	return rc == 0 ? 1 : 2;
}

/* The list would be copied behind its end. */
Test(mapped_bent, more_versions_than_there_is_room_for)
{
	static const uint32_t keep[] = { UINT32_MAX, 32, 1000000 };

	for (unsigned i = 0; i < 3; i++) {
		new_file();
		sb_at(0)->keep = sb_at(1)->keep = keep[i];
		seal();
		unmap_file();
		cr_assert_eq(refused(saves), 0, "%u versions", keep[i]);
		leave();
	}
}

/* Counted on, they would be 0, and what is newest the oldest. */
Test(mapped_bent, numbers_that_cannot_be_counted_on)
{
	for (unsigned i = 0; i < 3; i++) {
		new_file();
		for (unsigned k = 0; k < 2; k++) {
			if (i == 0)
				sb_at(k)->sequence = sb_at(k)->sb.sequence = UINT64_MAX - k;
			else if (i == 1)
				sb_at(k)->version[0].number = UINT64_MAX - k;
			else
				sb_at(k)->version[1].number = sb_at(k)->version[0].number;
		}
		seal();
		unmap_file();
		cr_assert_eq(refused(saves), 0, "case %u", i);
		leave();
	}
}

/* The one that is looked at first has its place in memory by it; the image comes from the other. */
Test(mapped_bent, superblocks_of_two_heaps)
{
	unsigned newest;
	uint64_t at[6];

	new_file();
	newest = sb_at(1)->sequence > sb_at(0)->sequence;
	sb_at(newest ^ 1)->sb.sequence = sb_at(newest)->sequence + 10;
	sb_at(newest ^ 1)->sb.max_bytes *= 16;
	sb_at(newest ^ 1)->sb.sessions = 4096;
	cr_assert(qy_mapped_layout(&sb_at(newest ^ 1)->sb, at));
	seal();
	unmap_file();
	cr_assert_eq(refused(saves), 0);
}

static size_t peak;

static int looks(void)
{
	quarry_mapped *h = quarry_mapped_open_read(path);
	size_t is = 0;
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");

	if (h == NULL && errno != EUCLEAN)
		return 1;
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "VmHWM: %zu kB", &is) == 1)
			break;
	}
	return is < peak ? 0 : 2;
}

/* Memory for a table of pages is what the file has of them, and not what it says. */
Test(mapped_bent, a_heap_that_says_it_is_large)
{
	unsigned newest;
	uint64_t at[6];

	new_file();
	newest = sb_at(1)->sequence > sb_at(0)->sequence;
	for (unsigned i = 0; i < 2; i++) {
		sb_at(i)->sb.max_bytes = QY_MAPPED_MAX;
		cr_assert(qy_mapped_layout(&sb_at(i)->sb, at));
	}
	sb_at(newest)->version[0].end = at[5] + QY_MAPPED_MAX;
	seal();
	unmap_file();
	peak = 256 * 1024;
	cr_assert_eq(refused(looks), 0);
}

/* The same node 262,144 times. */
Test(mapped_bent, nodes_that_are_one)
{
	unsigned newest, first;
	struct qy_node *node[3];
	struct qy_ref ref;
	uint64_t at[6];

	new_file();
	newest = sb_at(1)->sequence > sb_at(0)->sequence;
	for (unsigned i = 0; i < 2; i++) {
		sb_at(i)->sb.max_bytes = QY_MAPPED_MAX;
		cr_assert(qy_mapped_layout(&sb_at(i)->sb, at));
	}
	ref = sb_at(newest)->version[0].root[0];
	for (unsigned i = 0; i < 3; i++) {
		node[i] = (struct qy_node *)(void *)(file + (uint64_t)ref.slot * QY_PAGE);
		first = 0;
		while (node[i]->of[first].slot == 0)
			first++;
		ref = node[i]->of[first];
	}
	for (int i = 1; i >= 0; i--) {
		for (unsigned k = 0; k < QY_FAN; k++) {
			node[i]->of[k] = node[i]->of[0];
			node[i]->of[k].crc = qy_page_crc(node[i + 1]);
		}
	}
	sb_at(newest)->version[0].root[0].crc = qy_page_crc(node[0]);
	for (unsigned k = 1; k < QY_ROOTS; k++)
		sb_at(newest)->version[0].root[k] = sb_at(newest)->version[0].root[0];
	sb_at(newest)->version[0].end = at[5] + QY_MAPPED_MAX;
	seal();
	unmap_file();
	peak = 256 * 1024;
	cr_assert_eq(refused(looks), 0);
}
