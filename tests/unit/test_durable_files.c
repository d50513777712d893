/* SPDX-License-Identifier: MIT */
/* Durable heaps: files that somebody made on purpose, and memory that is not what a file says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"
#include "numa/os.h"
#include "tests/unit/durable_pages.h"
#include "tests/unit/fds.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static char path[256];
static struct qy_os table;

static void leave(void)
{
	unlink(path);
}

TestSuite(durable_files, .fini = leave, .timeout = 60);

static quarry_mapped *new_heap(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 * MIB,
				    .sessions = 8, .lanes = 8, .roots = 8 };
	const char *dir = getenv("TMPDIR");
	quarry_mapped *h;

	snprintf(path, sizeof(path), "%s/quarry-durable-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	h = quarry_mapped_create(path, &attr);
	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static void checkpoint(quarry_mapped *h)
{
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), 0, "%s", quarry_error_text());
}

static quarry_mapped *opened(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

/* ---- superblocks ---- */

struct both {
	struct qy_durable_sb sb[2];
	unsigned newest;
};

static void seal(struct qy_durable_sb *sb)
{
	sb->crc = 0;
	sb->crc = qy_page_crc(sb);
}

static void put_both(const struct both *both)
{
	int fd = open(path, O_RDWR);

	cr_assert_eq(pwrite(fd, both->sb, sizeof(both->sb), 0), (ssize_t)sizeof(both->sb));
	close(fd);
}

static void make_both(struct both *both)
{
	quarry_mapped *h = new_heap();
	int fd;

	for (uint64_t value = 1; value <= 2; value++) {
		set_all(h, value);
		checkpoint(h);
	}
	quarry_mapped_close(h);
	fd = open(path, O_RDWR);
	cr_assert_eq(pread(fd, both->sb, sizeof(both->sb), 0), (ssize_t)sizeof(both->sb));
	close(fd);
	both->newest = both->sb[1].sequence > both->sb[0].sequence;
}

/* It opens as it was before, or not at all; and a checkpoint is made where it opens. */
static void is_told(const struct both *both)
{
	quarry_mapped *h;
	quarry_mapped_version v;

	put_both(both);
	(void)quarry_mapped_versions(path, &v, 1);
	h = quarry_mapped_open(path);
	if (h == NULL) {
		cr_assert(errno == EUCLEAN || errno == ENOTSUP, "%d %s", errno, quarry_error_text());
		return;
	}
	cr_assert(*word(h, 0) == 1 || *word(h, 0) == 2);
	all_are(h, *word(h, 0));
	set_all(h, 5);
	checkpoint(h);
	set_all(h, 6);
	checkpoint(h);
	quarry_mapped_close(h);
	h = opened();
	all_are(h, 6);
	quarry_mapped_close(h);
}

Test(durable_files, superblocks_whose_numbers_cannot_be)
{
	static struct both good, bad;
	struct qy_durable_sb *sb = NULL;

	make_both(&good);
#define WITH(change)                                                                    \
	do {                                                                            \
		bad = good;                                                             \
		sb = &bad.sb[bad.newest];                                               \
		change;                                                                 \
		seal(sb);                                                               \
		is_told(&bad);                                                          \
	} while (0)
	WITH(sb->keep = UINT32_MAX);
	WITH(sb->keep = QY_VERSIONS);
	WITH(sb->count = 5);
	WITH(sb->sequence = UINT64_MAX);
	WITH(sb->sequence = (uint64_t)1 << 63);
	WITH(sb->version[0].number = UINT64_MAX);
	/* The heap's own superblock in it: of other numbers, with its checksum or without it. */
	WITH(sb->sb.sessions = 4096);
	WITH(sb->sb.max_bytes = 1024 * MIB);
	WITH(sb->sb.max_bytes = 3);
	WITH((sb->sb.max_bytes = 32 * MIB, sb->sb.head_bytes = 2 * MIB));
	WITH(sb->sb.uuid[3] ^= 1);
	WITH((sb->sb.sessions = 4096, qy_mapped_sb_seal(&sb->sb)));
	WITH((sb->sb.lanes = 4096, sb->sb.head_bytes += 2 * MIB, qy_mapped_sb_seal(&sb->sb)));
	WITH((sb->sb.max_bytes = 1024 * MIB, qy_mapped_sb_seal(&sb->sb)));
	WITH((sb->sb.uuid[3] ^= 1, qy_mapped_sb_seal(&sb->sb)));
#undef WITH
}

/* What a session of the file says that its memory is must be it, in all numbers. */
Test(durable_files, memory_with_other_numbers)
{
	static struct both both;
	quarry_mapped *h;

	make_both(&both);
	h = opened();
	for (unsigned i = 0; i < 2; i++) {
		both.sb[i].sb.roots = 16;
		qy_mapped_sb_seal(&both.sb[i].sb);
		seal(&both.sb[i]);
	}
	put_both(&both);
	cr_assert_null(quarry_mapped_open(path));
	cr_assert_eq(errno, EBUSY);
	quarry_mapped_close(h);
	h = opened();
	cr_assert_eq(qy_heap(h)->sb.roots, 16);
	quarry_mapped_close(h);
}

/* ---- holes ---- */

static void put_node(int fd, struct qy_ref *ref, const struct qy_node *node)
{
	ref->crc = qy_page_crc(node);
	cr_assert_eq(pwrite(fd, node, sizeof(*node), ref->slot * (off_t)QY_PAGE), (ssize_t)sizeof(*node));
}

static unsigned first_of(const struct qy_node *node, unsigned from)
{
	while (node->of[from].slot == 0)
		from++;
	return from;
}

/* A leaf of the newest version is changed, and all that leads to it says so. */
static bool bend(bool (*change)(int fd, struct qy_node *leaf))
{
	struct qy_node node[QY_LEVELS];
	struct qy_durable_sb sb[2];
	struct qy_ref *ref[QY_LEVELS];
	int fd = open(path, O_RDWR), newest;
	bool valid[2], can;

	newest = qy_durable_sb_read(fd, sb, valid);
	cr_assert_geq(newest, 0);
	for (unsigned level = 0; level < QY_LEVELS; level++) {
		ref[level] = level == 0 ? &sb[newest].version[0].root[0] : &node[level - 1].of[first_of(&node[level - 1], 0)];
		cr_assert_eq(qy_ref_read(fd, *ref[level], &node[level]), 0);
	}
	can = change(fd, &node[QY_LEVELS - 1]);
	for (unsigned level = QY_LEVELS; can && level-- > 0;)
		put_node(fd, ref[level], &node[level]);
	seal(&sb[newest]);
	cr_assert_eq(pwrite(fd, &sb[newest], QY_PAGE, newest * (off_t)QY_PAGE), (ssize_t)QY_PAGE);
	close(fd);
	return can;
}

static bool move_page(int fd, struct qy_ref *ref, uint32_t slot)
{
	char page[QY_PAGE] __attribute__((aligned(8)));

	cr_assert_eq(qy_ref_read(fd, *ref, page), 0);
	ref->slot = slot;
	return pwrite(fd, page, sizeof(page), slot * (off_t)QY_PAGE) == (ssize_t)sizeof(page);
}

/* So far behind that all between is a hole. */
static bool move_far(int fd, struct qy_node *leaf)
{
	return move_page(fd, &leaf->of[first_of(leaf, 0)], 1u << 30);
}

/* And one between them whose slot ends in the same bits. */
static bool make_twins(int fd, struct qy_node *leaf)
{
	unsigned a = first_of(leaf, 0), b = first_of(leaf, a + 1), c = first_of(leaf, b + 1);

	leaf->of[c] = leaf->of[a];
	return move_page(fd, &leaf->of[b], leaf->of[a].slot + 4096);
}

static void *no_gigabytes(void *at, size_t len, int prot, int flags, int fd, off_t from)
{
	if (len >= GIB && fd < 0 && prot != PROT_NONE) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return qy_os_linux.mmap(at, len, prot, flags, fd, from);
}

/* A file of 4 TiB, of which a megabyte is there: it is read for the price of that. */
Test(durable_files, a_file_that_is_mostly_a_hole)
{
	quarry_mapped *h = new_heap();

	set_all(h, 1);
	checkpoint(h);
	quarry_mapped_close(h);
	if (!bend(move_far))
		cr_skip("no files of 4 TiB here");
	table = qy_os_linux;
	table.mmap = no_gigabytes;
	qy_os = &table;
	h = opened();
	all_are(h, 1);
	set_all(h, 2);
	checkpoint(h);
	quarry_mapped_close(h);
	qy_os = &qy_os_linux;
	h = opened();
	all_are(h, 2);
	quarry_mapped_close(h);
}

Test(durable_files, two_pages_in_one_slot)
{
	quarry_mapped *h = new_heap();

	set_all(h, 1);
	checkpoint(h);
	quarry_mapped_close(h);
	cr_assert(bend(make_twins));
	cr_assert_null(quarry_mapped_open(path));
	cr_assert_eq(errno, EUCLEAN);
	cr_assert_not_null(strstr(quarry_error_text(), "two of its pages"), "%s", quarry_error_text());
}

/* ---- descriptors ---- */

/* What a reader hands on is the heap, and not its own copy. */
static void hands_on(quarry_mapped *reader)
{
	quarry_mapped *h;

	cr_assert(reader != NULL, "%s", quarry_error_text());
	h = quarry_mapped_attach(quarry_mapped_fd(reader));
	cr_assert(h != NULL, "%s", quarry_error_text());
	all_are(h, 2);
	checkpoint(h);
	quarry_mapped_close(h);
	quarry_mapped_close(reader);
}

Test(durable_files, descriptors_of_readers)
{
	quarry_mapped *h = new_heap(), *peer;
	quarry_mapped_version newest;
	int fds;

	set_all(h, 2);
	checkpoint(h);
	fds = count_fds();
	hands_on(quarry_mapped_open_read(path));
	cr_assert_eq(count_fds(), fds);
	peer = quarry_mapped_attach(quarry_mapped_fd(h));
	cr_assert_not_null(peer);
	quarry_mapped_close(peer);
	quarry_mapped_close(h);
	hands_on(quarry_mapped_open_read(path));
	cr_assert_eq(quarry_mapped_versions(path, &newest, 1), 1);
	hands_on(quarry_mapped_open_version(path, newest.number));
}
