/* SPDX-License-Identifier: MIT */
/* Heaps in files: what others do in the one moment in which it matters, and files that are made on purpose to look like a heap. The moment is
 * a call of the system's in which the others have their turn. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"
#include "tests/unit/mapped_children.h"

#define MIB ((size_t)1 << 20)

static char other[256];
static quarry_mapped *shared;
static quarry_off *slots;

static const char *place(char at[256])
{
	const char *dir = getenv("TMPDIR");

	snprintf(at, 256, "%s/quarry-mapped-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(at));
	unlink(at);
	return at;
}

static void leave(void)
{
	unlink(path);
	unlink(other);
}

static quarry_mapped *new_heap(uint64_t max)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = max };
	quarry_mapped *h = quarry_mapped_create(place(path), &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static quarry_mapped *volatile_heap(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = 64 * MIB };
	quarry_mapped *h = quarry_mapped_create(NULL, &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

TestSuite(mapped_moments, .fini = leave, .timeout = 120);

/* ---- the system's table, with calls of ours ---- */

static struct qy_os table;
static const struct qy_os *was;
static void (*in_between)(void); /* once, before somebody has OPEN */

static int lock_in_between(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	if (in_between != NULL && at == QY_MAPPED_LOCK_OPEN && kind != QY_RANGE_NONE) {
		void (*fn)(void) = in_between;

		in_between = NULL;
		fn();
	}
	return was->range_lock(fd, kind, at, len, wait);
}

static void hook(void (*fn)(void))
{
	in_between = fn;
	table = *(was = qy_os);
	table.range_lock = lock_in_between;
	qy_os = &table;
}

/* ---- others die while somebody begins to collect, or to dump ---- */

static int turn[2], done[2];

/* A process that has the heap open dies by `die`, when it is its turn. */
static pid_t who_dies(void (*die)(void))
{
	pid_t pid;
	char c;

	cr_assert(pipe(turn) == 0 && pipe(done) == 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		alarm(20);
		shared = quarry_mapped_open(path);
		slots = quarry_mapped_user(shared, NULL);
		if (write(done[1], "", 1) != 1 || read(turn[0], &c, 1) != 1)
			_exit(1);
		die();
		raise(SIGKILL);
	}
	cr_assert_eq(read(done[0], &c, 1), 1);
	return pid;
}

static pid_t dying;

static void let_it_die(void)
{
	int status;

	cr_assert(write(turn[1], "", 1) == 1 && waitpid(dying, &status, 0) == dying && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* A change of one word is to be done, and is not. */
static void with_a_record(quarry_off *word, uint64_t value)
{
	struct heap *h = qy_heap(shared);
	uint64_t at = (uint64_t)((char *)word - h->pub.base);

	if (qy_mapped_enter(h) != 0)
		_exit(1);
	h->live->redo[0] = (struct qy_mapped_redo_entry){ at, value };
	h->live->redo_check = ((1 ^ at) * 0x9e3779b97f4a7c15u ^ value) * 0xbf58476d1ce4e5b9u;
	qy_put(h->live->redo_count, 1);
	raise(SIGKILL);
}

/* What is published there is by this record alone. */
static void in_a_change(void)
{
	void *p = quarry_mapped_alloc(shared, 100);

	memset(p, 7, 100);
	with_a_record(&slots[0], quarry_mapped_off(shared, p));
}

static void with_a_block_reserved(void)
{
	quarry_mapped_set set;

	if (quarry_mapped_begin(shared, &set) != 0 || quarry_mapped_reserve(&set, 200000) == NULL)
		_exit(1);
}

static void trace(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	(void)ctx, (void)p, (void)usable;
	if (tag == 1)
		quarry_mapped_mark(marks, slots[0], 0);
}

static void one_root(void)
{
	void *p;

	shared = new_heap(64 * MIB);
	slots = quarry_mapped_user(shared, NULL);
	p = quarry_mapped_alloc(shared, 50);
	cr_assert_eq(quarry_mapped_root_put(shared, "root", quarry_mapped_off(shared, p), 1), 0);
}

/* What is to be published by a record is published, and is no garbage. */
Test(mapped_moments, a_change_of_the_dead_is_done_before_what_leads_where_is_asked)
{
	one_root();
	dying = who_dies(in_a_change);
	hook(let_it_die);
	cr_assert_eq(quarry_mapped_collect(shared, trace, NULL), 0, "%s", quarry_error_text());
	qy_os = was;
	cr_assert_neq(slots[0], 0);
	cr_assert_eq(quarry_mapped_usable(shared, quarry_mapped_at(shared, slots[0])), 112);
	cr_assert_eq(((char *)quarry_mapped_at(shared, slots[0]))[99], 7);
	quarry_mapped_close(shared);
}

/* A note of a block that is collected would free whatever stands there later. */
Test(mapped_moments, a_note_of_the_dead_does_not_outlive_its_block)
{
	void *p;

	one_root();
	dying = who_dies(with_a_block_reserved);
	hook(let_it_die);
	cr_assert_geq(quarry_mapped_collect(shared, trace, NULL), 0, "%s", quarry_error_text());
	qy_os = was;
	p = quarry_mapped_alloc(shared, 200000);
	cr_assert_not_null(p);
	cr_assert_geq(quarry_mapped_recover(shared), 0);
	cr_assert_geq(quarry_mapped_usable(shared, p), 200000);
	quarry_mapped_close(shared);
}

Test(mapped_moments, nothing_is_collected_while_a_set_is_not_over)
{
	quarry_mapped_set set;
	void *p;

	one_root();
	cr_assert_eq(quarry_mapped_begin(shared, &set), 0);
	p = quarry_mapped_reserve(&set, 100);
	cr_assert_not_null(p);
	cr_assert(quarry_mapped_collect(shared, trace, NULL) == -1 && errno == EBUSY);
	cr_assert_eq(quarry_mapped_usable(shared, p), 112);
	quarry_mapped_cancel(&set);
	cr_assert_eq(quarry_mapped_collect(shared, trace, NULL), 0);
	quarry_mapped_close(shared);
}

static int drop_it(void *ctx, const void *bytes, size_t n)
{
	(void)ctx, (void)bytes, (void)n;
	return 0;
}

/* A reader cannot finish it, so has no dump of it. */
Test(mapped_moments, no_dump_of_half_a_change)
{
	quarry_mapped *reader;

	one_root();
	quarry_mapped_close(shared);
	dying = who_dies(in_a_change);
	reader = quarry_mapped_open_read(path);
	cr_assert_not_null(reader);
	let_it_die();
	cr_assert(quarry_mapped_dump(reader, drop_it, NULL) == -1 && errno == EAGAIN);
	cr_assert_eq(in_child(open_and_close), 0);
	cr_assert_eq(quarry_mapped_dump(reader, drop_it, NULL), 0, "%s", quarry_error_text());
	quarry_mapped_close(reader);
}

/* What the dead had reserved is theirs for so long as nobody cleans up after them: who can write does. */
Test(mapped_moments, a_dump_after_a_death_in_a_set)
{
	quarry_mapped *reader;

	one_root();
	dying = who_dies(with_a_block_reserved);
	reader = quarry_mapped_open_read(path);
	let_it_die();
	quarry_mapped_close(reader);
	cr_assert_eq(quarry_mapped_dump(shared, drop_it, NULL), 0, "%s", quarry_error_text());
	quarry_mapped_close(shared);
	dying = who_dies(with_a_block_reserved);
	reader = quarry_mapped_open_read(path);
	let_it_die();
	cr_assert(quarry_mapped_dump(reader, drop_it, NULL) == -1 && errno == EAGAIN);
	quarry_mapped_close(reader);
}

/* It is published, and seen, and to be published once more. */
static void in_a_change_that_was_seen(void)
{
	void *p = quarry_mapped_alloc(shared, 100);

	if (quarry_mapped_lock(shared, (quarry_mapped_mutex *)(void *)(slots + 8)) != 0)
		_exit(1);
	quarry_off_store(&slots[0], quarry_mapped_off(shared, p));
	with_a_record(&slots[0], slots[0]);
}

/* Who has the lock that guards a word may change it by other means than the one who died with it. */
Test(mapped_moments, a_change_of_the_dead_is_done_before_their_lock_is_another_ones)
{
	quarry_mapped_mutex *mutex;
	void *p;

	one_root();
	mutex = (quarry_mapped_mutex *)(void *)(slots + 8);
	dying = who_dies(in_a_change_that_was_seen);
	let_it_die();
	p = quarry_mapped_at(shared, quarry_off_load(&slots[0]));
	cr_assert_not_null(p);
	cr_assert_eq(quarry_mapped_lock(shared, mutex), 1);
	quarry_off_store(&slots[0], 0);
	cr_assert_eq(quarry_mapped_free(shared, p), 0);
	cr_assert_eq(quarry_mapped_unlock(shared, mutex), 0);
	cr_assert_geq(quarry_mapped_recover(shared), 0);
	cr_assert_eq(slots[0], 0);
	quarry_mapped_close(shared);
}

/* ---- a file that is another one by then ---- */

static void copy_other(void)
{
	int from = open(other, O_RDONLY), to = open(path, O_WRONLY);
	off_t size = lseek(from, 0, SEEK_END);

	for (off_t at = 0; at < size; at += 4096) {
		char page[4096];
		ssize_t n = pread(from, page, sizeof(page), at);

		if (n <= 0 || pwrite(to, page, (size_t)n, at) != n)
			_exit(3);
	}
	close(from);
	close(to);
}

static void open_what_becomes_durable(void)
{
	quarry_mapped *h;

	hook(copy_other);
	h = quarry_mapped_open(path);
	if (h == NULL || quarry_mapped_root_get(h, "x", NULL) != 5 || told(h).mode != QUARRY_MAPPED_DURABLE)
		_exit(1);
	if (quarry_mapped_root_put(h, "y", 6, 6) != 0 || quarry_mapped_checkpoint(h, NULL, 0) != 0)
		_exit(2);
	quarry_mapped_close(h);
}

static void read_what_becomes_durable(void)
{
	quarry_mapped *h;

	hook(copy_other);
	h = quarry_mapped_open_read(path);
	if (h == NULL || quarry_mapped_root_get(h, "x", NULL) != 5)
		_exit(1);
	quarry_mapped_close(h);
}

/* Its maker is about to say what it is. */
Test(mapped_moments, opened_while_it_becomes_a_durable_heap)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 * MIB };
	void (*const ways[])(void) = { open_what_becomes_durable, read_what_becomes_durable };
	quarry_mapped *h = quarry_mapped_create(place(other), &attr);

	cr_assert(h != NULL && quarry_mapped_root_put(h, "x", 5, 5) == 0 && quarry_mapped_checkpoint(h, NULL, 0) == 0);
	quarry_mapped_close(h);
	place(path);
	for (unsigned i = 0; i < 2; i++) {
		close(open(path, O_CREAT | O_EXCL | O_RDWR, 0600));
		cr_assert_eq(in_child(ways[i]), 0, "%u", i);
		unlink(path);
	}
}

/* A few bytes that say it is a durable heap, which has not to be as long as a heap is. */
static void say_durable(void)
{
	int fd = open(path, O_RDWR);
	struct qy_mapped_sb sb;

	if (qy_mapped_sb_read(fd, &sb) != 0 || ftruncate(fd, 0) != 0)
		_exit(3);
	sb.mode = QUARRY_MAPPED_DURABLE;
	sb.incompat = QY_MAPPED_INCOMPAT_DURABLE;
	if (qy_mapped_sb_write(fd, &sb) != 0 || qy_mapped_sb_write(fd, &sb) != 0)
		_exit(3);
	close(fd);
}

static void open_what_says_so(void)
{
	hook(say_durable);
	if (quarry_mapped_open(path) != NULL || (errno != EUCLEAN && errno != EMEDIUMTYPE))
		_exit(1);
}

static void read_what_says_so(void)
{
	hook(say_durable);
	if (quarry_mapped_open_read(path) != NULL || (errno != EUCLEAN && errno != EMEDIUMTYPE))
		_exit(1);
}

static void fork_from_what_says_so(void)
{
	int status;
	pid_t pid;

	shared = quarry_mapped_open(path);
	say_durable();
	pid = fork();
	if (pid == 0)
		_exit(quarry_mapped_alloc(shared, 100) == NULL && errno == ESTALE ? 0 : 1);
	_exit(waitpid(pid, &status, 0) == pid && status == 0 ? 0 : 1);
}

Test(mapped_moments, a_file_that_says_something_else_when_it_is_looked_at_again)
{
	void (*const ways[])(void) = { open_what_says_so, read_what_says_so, fork_from_what_says_so };

	for (unsigned i = 0; i < 3; i++) {
		quarry_mapped_close(new_heap(64 * MIB));
		cr_assert_eq(in_child(ways[i]), 0, "%u", i);
		leave();
	}
}

/* ---- what stands in a file ---- */

static struct heap raw; /* the file as its process would have it, for one who may change all */

static void raw_open(void)
{
	int fd = open(path, O_RDWR);
	uint64_t at[6];

	cr_assert_eq(qy_mapped_sb_read(fd, &raw.sb), 0);
	cr_assert(qy_mapped_layout(&raw.sb, at));
	raw.map_len = (size_t)lseek(fd, 0, SEEK_END);
	raw.map = mmap(NULL, raw.map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(raw.map, MAP_FAILED);
	close(fd);
	raw.live = (void *)(raw.map + QY_MAPPED_LIVE_AT);
	raw.segtab = (void *)(raw.map + at[4]);
}

static void raw_close(void)
{
	munmap(raw.map, raw.map_len);
}

static void refused(void)
{
	if (quarry_mapped_open(path) != NULL || errno != EUCLEAN || quarry_mapped_open_read(path) != NULL || errno != EUCLEAN)
		_exit(1);
}

Test(mapped_moments, a_block_in_another_one)
{
	static const struct {
		uint64_t first, second;
		bool good;
	} tables[] = {
		{ QY_SEG_FREE | 1024 << 8, QY_SEG_BLOCK | 512 << 8, false },
		{ QY_SEG_FREE | 1024 << 8, QY_SEG_UNITS, false },
		{ QY_SEG_FREE | 1024 << 8, 77, false },
		{ QY_SEG_FREE | 1024 << 8, QY_SEG_FREE | 512 << 8, true },
		{ QY_SEG_FREE | 1024 << 8, QY_SEG_TAIL, true },
		{ QY_SEG_FREE | 1024 << 8, QY_SEG_NONE, true },
	};

	for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		quarry_mapped_close(new_heap(256 * MIB));
		raw_open();
		raw.live->segments = 2;
		raw.segtab[0] = tables[i].first;
		raw.segtab[1] = tables[i].second;
		raw_close();
		cr_assert_eq(in_child(tables[i].good ? open_and_close : refused), 0, "table %u", i);
		leave();
	}
}

Test(mapped_moments, behind_the_first_segment_of_a_block_is_nothing_else)
{
	static const uint64_t seconds[] = { QY_SEG_BLOCK | 512 << 8, QY_SEG_FREE | 512 << 8, QY_SEG_NONE };

	for (unsigned i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
		quarry_mapped *h = new_heap(256 * MIB);

		cr_assert_not_null(quarry_mapped_alloc(h, 40 * MIB));
		quarry_mapped_close(h);
		raw_open();
		raw.segtab[1] = seconds[i];
		raw_close();
		cr_assert_eq(in_child(refused), 0, "entry %u", i);
		leave();
	}
}

static void free_far_behind(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL || quarry_mapped_alloc(h, 100) == NULL)
		_exit(1);
	if (quarry_mapped_free(h, qy_heap(h)->segs + 5 * QY_MAPPED_SEG + 20 * QY_MAPPED_UNIT) != -1 || errno != EINVAL)
		_exit(2);
}

/* (The hit path looks at the table alone.) */
Test(mapped_moments, what_the_table_says_of_segments_that_are_not_there)
{
	quarry_mapped *h = new_heap(256 * MIB);

	cr_assert_not_null(quarry_mapped_alloc(h, 100));
	quarry_mapped_close(h);
	raw_open();
	cr_assert_eq(raw.live->segments, 1);
	raw.segtab[5] = QY_SEG_UNITS;
	raw_close();
	cr_assert_eq(in_child(free_far_behind), 0);
}

/* ---- descriptors ---- */

/* A copy of a heap, in other memory, which says that it is a file. */
static int copied(int to)
{
	quarry_mapped *h = volatile_heap();
	size_t n = (size_t)lseek(quarry_mapped_fd(h), 0, SEEK_END);
	struct qy_mapped_sb sb = qy_heap(h)->sb;

	cr_assert(to >= 0 && pwrite(to, h->base, n, 0) == (ssize_t)n);
	quarry_mapped_close(h);
	sb.mode = QUARRY_MAPPED_DIRECT;
	cr_assert(qy_mapped_sb_write(to, &sb) == 0 && qy_mapped_sb_write(to, &sb) == 0);
	return to;
}

Test(mapped_moments, memory_that_says_it_is_a_file_is_memory)
{
	int sealed = copied(memfd_create("sealed", MFD_ALLOW_SEALING)), never = copied(memfd_create("never", 0));
	quarry_mapped *h = quarry_mapped_attach(never);

	cr_assert(h == NULL && errno == EPERM, "%s", quarry_error_text());
	h = quarry_mapped_attach(sealed);
	cr_assert(h != NULL, "%s", quarry_error_text());
	cr_assert(ftruncate(sealed, 4096) == -1 && errno == EPERM);
	quarry_mapped_close(h);
}

/* Files in memory have seals too, and no use for them. */
Test(mapped_moments, a_file_in_shared_memory_is_a_file)
{
	quarry_mapped *h;

	snprintf(path, sizeof(path), "/dev/shm/quarry-mapped-%d", (int)getpid());
	if (access("/dev/shm", W_OK) != 0)
		return;
	h = quarry_mapped_create(path, NULL);
	cr_assert(h != NULL, "%s", quarry_error_text());
	cr_assert_eq(in_child(open_and_close), 0);
	quarry_mapped_close(h);
	cr_assert_eq(in_child(open_and_close), 0);
}

/* Who has it could stop it from growing, for all. */
Test(mapped_moments, nobody_seals_it_any_further)
{
	quarry_mapped *h = volatile_heap(), *again;
	int fd = quarry_mapped_fd(h), mine = copied(memfd_create("mine", MFD_ALLOW_SEALING));

	cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == -1 && errno == EPERM);
	again = quarry_mapped_attach(fd);
	cr_assert(again != NULL, "%s", quarry_error_text());
	cr_assert_not_null(quarry_mapped_alloc(again, 20 * MIB));
	quarry_mapped_close(again);
	quarry_mapped_close(h);
	h = quarry_mapped_attach(mine);
	cr_assert(h != NULL && fcntl(mine, F_ADD_SEALS, F_SEAL_GROW) == -1 && errno == EPERM);
	cr_assert_not_null(quarry_mapped_alloc(h, 20 * MIB));
	quarry_mapped_close(h);
}

/* The kernel's reason is told. */
Test(mapped_moments, memory_that_cannot_be_written)
{
	int fd = copied(memfd_create("read", MFD_ALLOW_SEALING));
	quarry_mapped *h;

	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	h = quarry_mapped_attach(fd);
	cr_assert(h == NULL && errno == EPERM, "%d: %s", errno, quarry_error_text());
}

/* ---- forks ---- */

static pid_t *forked; /* shared */
static int opens;

static int fork_with_open(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	int rc = was->range_lock(fd, kind, at, len, wait);

	if (at == QY_MAPPED_LOCK_OPEN && kind == QY_RANGE_WRITE && --opens == 0) {
		pid_t pid = fork(); /* (the child begins its session of the other one in here) */

		if (pid == 0)
			pause();
		*forked = pid;
		raise(SIGKILL);
	}
	return rc;
}

/* As A it is open; as B it is being opened, when another thread forks and the process dies. */
static void open_twice_and_fork(void)
{
	if (quarry_mapped_open(path) == NULL)
		_exit(1);
	opens = 1;
	table = *(was = qy_os);
	table.range_lock = fork_with_open;
	qy_os = &table;
	(void)quarry_mapped_open(path);
	_exit(2);
}

/* A child does not wait for a lock that it keeps alive itself. */
Test(mapped_moments, a_fork_while_it_is_opened_a_second_time)
{
	int status;

	forked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(forked, MAP_FAILED);
	quarry_mapped_close(new_heap(64 * MIB));
	cr_assert(WIFSIGNALED(status = in_child(open_twice_and_fork)) && WTERMSIG(status) == SIGKILL);
	status = in_child(open_and_close);
	kill(*forked, SIGKILL);
	cr_assert_eq(status, 0);
}

/* ---- room ---- */

/* Segments between blocks have units that are not memory yet. */
Test(mapped_moments, all_units_of_all_segments_are_used)
{
	quarry_mapped *h = new_heap(256 * MIB);
	unsigned count = 0;

	for (unsigned i = 0; i < 4; i++) {
		cr_assert_not_null(quarry_mapped_alloc(h, MIB * 5 / 8));
		cr_assert_not_null(quarry_mapped_alloc(h, 32 * MIB));
	}
	while (quarry_mapped_alloc(h, MIB * 5 / 8) != NULL)
		count++;
	cr_assert_eq(errno, ENOMEM);
	cr_assert_geq(count, 4u * 49); /* of 50 in a segment, less the one */
	quarry_mapped_close(h);
}
