/* SPDX-License-Identifier: MIT */
/* Dumps of heaps, and heaps made of them: what others see of a heap while it is made, and what a dump that is not what it says can
 * have done. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/dump.h"
#include "numa/os.h"

#define MIB ((size_t)1 << 20)

static char path[256], other[264];
static const struct qy_os *real;
static struct qy_os os;

static void begin(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/quarry-dump-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	snprintf(other, sizeof(other), "%s.new", path);
	real = qy_os;
	os = *qy_os;
	qy_os = &os;
}

static void end(void)
{
	qy_os = real;
	unlink(path);
	unlink(other);
}

TestSuite(mapped_dump, .init = begin, .fini = end, .timeout = 60);

/* ---- a dump in memory ---- */

struct dump {
	size_t n, read;
	void (*look)(void); /* before each piece is given */
	char at[4 * MIB];
};

static struct dump dump;

static int take(void *ctx, const void *bytes, size_t n)
{
	struct dump *d = ctx;

	cr_assert_leq(n, sizeof(d->at) - d->n);
	memcpy(d->at + d->n, bytes, n);
	d->n += n;
	return 0;
}

static long give(void *ctx, void *bytes, size_t n)
{
	struct dump *d = ctx;

	if (d->look != NULL)
		d->look();
	n = n < d->n - d->read ? n : d->n - d->read;
	memcpy(bytes, d->at + d->read, n);
	d->read += n;
	return (long)n;
}

static void dump_of(quarry_mapped *heap)
{
	dump.n = dump.read = 0;
	dump.look = NULL;
	cr_assert_eq(quarry_mapped_dump(heap, take, &dump), 0, "%s", quarry_error_text());
}

/* One with a few objects, at `path`; the second block of 4 MiB has a byte at its end. */
static void small_dump(uint32_t flags)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 64 * MIB, .flags = flags };
	quarry_mapped *heap;
	char *block;

	attr.mode = flags != 0 ? QUARRY_MAPPED_VOLATILE : QUARRY_MAPPED_DIRECT;
	heap = quarry_mapped_create(flags != 0 ? NULL : path, &attr);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_eq(quarry_mapped_root_put(heap, "small", 0, 1), 0);
	strcpy(quarry_mapped_alloc_into(heap, 100, quarry_mapped_root_slot(heap, "small")), "small");
	cr_assert_eq(quarry_mapped_root_put(heap, "block", 0, 2), 0);
	block = quarry_mapped_alloc_into(heap, 4 * MIB, quarry_mapped_root_slot(heap, "block"));
	block[4 * MIB - 1] = 7;
	dump_of(heap);
	quarry_mapped_close(heap);
}

/* ---- while it is made ---- */

static unsigned looks, heaps, open_to_others;

/* (By descriptions of our own, which have no locks.) */
static void look(void)
{
	int fd = open(other, O_RDWR | O_CLOEXEC);
	struct qy_mapped_sb sb;

	if (fd < 0)
		return;
	if (dump.read < dump.n) {
		looks++;
		heaps += qy_mapped_sb_read(fd, &sb) == 0;
		open_to_others += lseek(fd, 0, SEEK_END) > 0 && real->range_locked(fd, QY_MAPPED_LOCK_OPEN, 1) != 1;
	}
	close(fd);
}

static int write_at(int fd, const void *from, size_t len, uint64_t at)
{
	int rc = real->write_at(fd, from, len, at);

	look();
	return rc;
}

static int range_lock(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	int rc = real->range_lock(fd, kind, at, len, wait);

	look();
	return rc;
}

/* Until all of the dump is read, whoever is killed leaves no heap, and whoever opens it waits. */
Test(mapped_dump, what_is_being_restored_is_no_heap_and_opens_to_nobody)
{
	quarry_mapped *heap;

	small_dump(0);
	os.write_at = write_at;
	os.range_lock = range_lock;
	dump.look = look;
	heap = quarry_mapped_restore(other, give, &dump);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_gt(looks, 5);
	cr_assert_eq(heaps, 0, "%u of %u looks saw a heap", heaps, looks);
	cr_assert_eq(open_to_others, 0, "%u of %u looks: it could be opened", open_to_others, looks);
	quarry_mapped_close(heap);
	heap = quarry_mapped_open(other);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_str_eq(quarry_mapped_at(heap, quarry_mapped_root_get(heap, "small", NULL)), "small");
	quarry_mapped_close(heap);
}

static long give_and_fail(void *ctx, void *bytes, size_t n)
{
	long got = give(ctx, bytes, n);

	if (got == 0)
		errno = EIO;
	return got == 0 ? -1 : got;
}

/* Nobody is told that it is a heap before it is known that the dump ends where it says so. */
Test(mapped_dump, what_goes_on_behind_its_end_never_becomes_a_heap)
{
	static const struct {
		quarry_mapped_read_fn *read;
		size_t more;
		int error;
		const char *text;
	} ways[] = { { give, 1, EUCLEAN, "there is more behind its end" }, { give_and_fail, 0, EIO, "it cannot be read" } };

	os.write_at = write_at;
	os.range_lock = range_lock;
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		small_dump(0);
		unlink(path);
		dump.n += ways[i].more; /* (while it is looked at, all of it has not been read) */
		dump.look = look;
		looks = heaps = 0;
		cr_assert_null(quarry_mapped_restore(other, ways[i].read, &dump));
		cr_assert_eq(errno, ways[i].error, "%s", strerror(errno));
		cr_assert_not_null(strstr(quarry_error_text(), ways[i].text), "%s", quarry_error_text());
		cr_assert_gt(looks, 5);
		cr_assert_eq(heaps, 0);
		cr_assert_neq(access(other, F_OK), 0);
	}
}

static int no_superblock(int fd, const void *from, size_t len, uint64_t at)
{
	if (len != sizeof(struct qy_mapped_sb) || at >= QY_MAPPED_LIVE_AT || dump.read < dump.n)
		return real->write_at(fd, from, len, at);
	errno = EIO;
	return -1;
}

Test(mapped_dump, where_it_cannot_be_said_to_be_one_nothing_is_left)
{
	small_dump(0);
	os.write_at = no_superblock;
	cr_assert_null(quarry_mapped_restore(other, give, &dump));
	cr_assert_eq(errno, EIO);
	cr_assert_neq(access(other, F_OK), 0);
	cr_assert_null(quarry_mapped_create(other, NULL));
	cr_assert_eq(errno, EIO);
	cr_assert_neq(access(other, F_OK), 0);
}

/* ---- what a dump says ---- */

static struct qy_dump_head head_of(void)
{
	return (struct qy_dump_head){ .version = QY_DUMP_VERSION, .abi = sizeof(pthread_mutex_t) << 8 | sizeof(void *), .run = 1,
				      .max_bytes = (uint64_t)1 << 39, .sessions = 4, .lanes = 4, .roots = 16, .user_bytes = 4096 };
}

static void put_record(uint32_t kind, const void *payload, size_t n)
{
	struct qy_dump_record r = { .kind = kind, .crc = qy_dump_crc(0, payload, n), .length = n };

	take(&dump, &r, sizeof(r));
	take(&dump, payload, n);
}

static void begin_dump(const struct qy_dump_head *head)
{
	dump.n = dump.read = 0;
	dump.look = NULL;
	take(&dump, QY_DUMP_MAGIC, 8);
	put_record(QY_DUMP_HEAD, head, sizeof(*head));
}

static void put_user(const struct qy_dump_head *head)
{
	static const char none[4096];

	put_record(QY_DUMP_USER, none, head->user_bytes);
}

static uint64_t segments_at(const struct qy_dump_head *head)
{
	struct qy_mapped_sb sb = { .max_bytes = head->max_bytes, .sessions = head->sessions, .lanes = head->lanes, .roots = head->roots,
				   .user_bytes = head->user_bytes };
	uint64_t at[6];

	cr_assert(qy_mapped_layout(&sb, at));
	return at[5];
}

static void refused(const char *why)
{
	cr_assert_null(quarry_mapped_restore(other, give, &dump), "it was believed");
	cr_assert_eq(errno, EUCLEAN, "%s: %s", strerror(errno), quarry_error_text());
	cr_assert_not_null(strstr(quarry_error_text(), why), "%s", quarry_error_text());
	cr_assert_neq(access(other, F_OK), 0);
}

Test(mapped_dump, numbers_that_no_heap_can_have)
{
	for (int i = 0; i < 7; i++) {
		struct qy_dump_head head = head_of();

		switch (i) {
		case 0: head.user_bytes = 0; break;
		case 1: head.user_bytes = 4088; break;
		case 2: head.sessions = 0; break;
		case 3: head.lanes = 5000; break;
		case 4: head.roots = 0; break;
		case 5: head.max_bytes = 0; break;
		default: head.max_bytes += 4096; break;
		}
		begin_dump(&head);
		refused("there is no heap of such numbers");
	}
}

static uint64_t asked_for, asked_at_end;

static int allocate(int fd, uint64_t at, uint64_t len)
{
	(void)fd;
	(void)at;
	*(dump.read < dump.n ? &asked_for : &asked_at_end) += len;
	return 0; /* (nobody needs it here) */
}

/* A block that nobody could have room for, of which there is nothing. */
static void huge_block(const struct qy_dump_head *head, bool whole)
{
	struct qy_dump_block block = { segments_at(head), (uint64_t)1 << 38 };
	struct qy_dump_end last = { 1, block.bytes, 3 };

	begin_dump(head);
	put_record(QY_DUMP_BLOCK, &block, sizeof(block));
	if (!whole)
		return;
	put_user(head);
	put_record(QY_DUMP_END, &last, sizeof(last));
}

Test(mapped_dump, a_few_bytes_get_no_memory_for_what_they_only_say)
{
	struct qy_dump_head head = head_of();
	quarry_mapped *heap;

	os.allocate = allocate;
	huge_block(&head, false);
	refused("cut short");
	cr_assert_lt(asked_for + asked_at_end, 64 * MIB, "%llu bytes", (unsigned long long)(asked_for + asked_at_end));

	/* It is as long as it says, in a file that has room; in memory when it is used. */
	huge_block(&head, true);
	heap = quarry_mapped_restore(other, give, &dump);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_lt(asked_for, 64 * MIB);
	cr_assert_geq(asked_at_end, (uint64_t)1 << 38);
	quarry_mapped_close(heap);
	asked_for = asked_at_end = 0;
	huge_block(&head, true);
	heap = quarry_mapped_restore(NULL, give, &dump);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_lt(asked_for + asked_at_end, 64 * MIB);
	quarry_mapped_close(heap);
}

static uint64_t kept_bytes(const char *of)
{
	struct stat is;

	cr_assert_eq(stat(of, &is), 0);
	return (uint64_t)is.st_blocks * 512;
}

/* Zero or not. */
Test(mapped_dump, what_is_restored_in_a_file_has_all_of_its_memory)
{
	quarry_mapped *heap;

	small_dump(0);
	heap = quarry_mapped_restore(other, give, &dump);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	quarry_mapped_close(heap);
	cr_assert_geq(kept_bytes(other), 4 * MIB + 64 * 1024, "%llu bytes", (unsigned long long)kept_bytes(other));
}

/* Whether others have it cannot be known: that is not the same as that they do. */
static int cannot_tell(int fd, uint64_t at, uint64_t len)
{
	(void)fd, (void)at, (void)len;
	errno = ENOLCK;
	return -1;
}

static void marks_nothing(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	(void)ctx, (void)marks, (void)p, (void)usable, (void)tag;
}

Test(mapped_dump, locks_that_cannot_be_asked_for)
{
	quarry_mapped *h = quarry_mapped_create(path, NULL);

	cr_assert_not_null(h);
	os.range_locked = cannot_tell;
	cr_assert(quarry_mapped_shrink(h) == -1 && errno == ENOLCK);
	cr_assert(quarry_mapped_collect(h, marks_nothing, NULL) == -1 && errno == ENOLCK);
	cr_assert(quarry_mapped_dump(h, take, &dump) == -1 && errno == ENOLCK);
	os.range_locked = real->range_locked;
	quarry_mapped_close(h);
}

Test(mapped_dump, a_name_comes_once_also_where_it_means_nothing)
{
	struct {
		struct qy_dump_root root;
		char name[4];
	} root = { { 0, 1, 4 }, "name" };
	struct qy_dump_head head = head_of();
	struct qy_dump_end last = { 0, 0, 4 };

	begin_dump(&head);
	put_user(&head);
	put_record(QY_DUMP_ROOT, &root, sizeof(root.root) + 4);
	put_record(QY_DUMP_ROOT, &root, sizeof(root.root) + 4);
	put_record(QY_DUMP_END, &last, sizeof(last));
	refused("a root that was there already");
}

Test(mapped_dump, what_is_of_memory_alone_comes_back_there)
{
	quarry_mapped *heap;

	small_dump(QUARRY_MAPPED_HUGE);
	heap = quarry_mapped_restore(NULL, give, &dump);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_eq(qy_heap(heap)->sb.flags, (uint32_t)QUARRY_MAPPED_HUGE);
	quarry_mapped_close(heap);
	dump.read = 0;
	heap = quarry_mapped_restore(other, give, &dump);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_eq(qy_heap(heap)->sb.flags, 0u);
	quarry_mapped_close(heap);
}

/* ---- what is damaged ---- */

Test(mapped_dump, what_is_damaged_is_not_made_smaller)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 64 * MIB };
	quarry_mapped *heap = quarry_mapped_create(path, &attr);
	struct qy_file_info before, after;
	char *block[2];
	struct heap *h;

	cr_assert_not_null(heap, "%s", quarry_error_text());
	h = qy_heap(heap);
	for (int i = 0; i < 2; i++)
		block[i] = quarry_mapped_alloc(heap, MIB);
	qy_unit_at(h, (uint64_t)(block[1] - h->segs) >> QY_MAPPED_UNIT_SHIFT)->state = qy_unit_state(9, 0, 0, 16);
	cr_assert_eq(real->file_info(h->fd, &before), 0);
	cr_assert_eq(quarry_mapped_shrink(heap), -1);
	cr_assert_eq(errno, EUCLEAN);
	cr_assert_eq(real->file_info(h->fd, &after), 0);
	cr_assert_eq(before.size, after.size);
	quarry_mapped_close(heap);
}
