/* SPDX-License-Identifier: MIT */
/* Heaps in files: what other processes, forks in the wrong moment, and files that somebody made on purpose do to them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"
#include "tests/unit/mapped_children.h"

#define MIB ((size_t)1 << 20)

static quarry_mapped *shared;

static const char *place(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/quarry-mapped-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	return path;
}

static void leave(void)
{
	unlink(path);
}

static quarry_mapped *new_heap(uint64_t max)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = max };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static quarry_mapped *open_it(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static quarry_mapped_report checked(quarry_mapped *h)
{
	quarry_mapped_report report;

	cr_assert_eq(quarry_mapped_check(h, &report, sizeof(report)), 0, "%s", report.first);
	return report;
}

TestSuite(mapped_faults, .fini = leave, .timeout = 120);

/* ---- descriptors and forks ---- */

/* Who keeps what it was handed keeps nobody out. */
Test(mapped_faults, a_descriptor_that_was_handed_out_has_no_locks)
{
	quarry_mapped *h = new_heap(64 * MIB);
	int fd = dup(quarry_mapped_fd(h));

	quarry_mapped_close(h);
	cr_assert_eq(in_child(open_and_close), 0);
	h = quarry_mapped_attach(fd);
	cr_assert_not_null(h);
	quarry_mapped_close(h);
	close(fd);
}

static int ends[2];

static void send_and_die(void)
{
	quarry_mapped *h = quarry_mapped_open(path);
	char byte = 1, room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int fd = quarry_mapped_fd(h);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(ends[1], &m, 0) != 1)
		_exit(1);
	raise(SIGKILL);
}

Test(mapped_faults, a_killed_session_is_told_dead_though_its_descriptor_lives)
{
	char byte, room[CMSG_SPACE(sizeof(int))];
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };

	shared = new_heap(64 * MIB);
	quarry_mapped_close(shared);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	cr_assert(WIFSIGNALED(in_child(send_and_die)));
	cr_assert_eq(recvmsg(ends[0], &m, 0), 1);
	shared = open_it();
	cr_assert(told(shared).recovered == 1 && told(shared).sessions == 1);
	quarry_mapped_close(shared);
}

/* The system's table, with calls of ours. */
static struct qy_os table;
static const struct qy_os *was;
static int forks, said[2], through[2];

static int lock_and_fork(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	int rc = was->range_lock(fd, kind, at, len, wait);

	if (forks > 0 && --forks == 0 && fork() == 0) {
		char c;

		close(said[1]);
		_exit(write(through[1], "", 1) != 1 || read(said[0], &c, 1) != 0);
	}
	return rc;
}

/* (Not before the fork is through: until the library's handler has run in it, it has its parent's descriptors.) */
static void die_when_forked(void)
{
	char c;

	table = *(was = qy_os);
	table.range_lock = lock_and_fork;
	qy_os = &table;
	if (quarry_mapped_open(path) == NULL || read(through[0], &c, 1) != 1)
		_exit(1);
	raise(SIGKILL);
}

/* A child that was forked (by another thread) while the heap was being opened does not keep its parent's session alive. */
Test(mapped_faults, a_fork_in_the_midst_of_opening)
{
	for (int at = 1; at <= 3; at++) {
		quarry_mapped_close(new_heap(64 * MIB));
		cr_assert(pipe(said) == 0 && pipe(through) == 0);
		forks = at;
		cr_assert(WIFSIGNALED(in_child(die_when_forked)));
		close(through[0]);
		close(through[1]);
		cr_assert_eq(in_child(open_and_close), 0, "forked at its lock %d", at);
		shared = open_it();
		/* (At the last ones it was open, and the child has a session of its own.) */
		cr_assert(told(shared).recovered == 1 && told(shared).sessions == (at < 3 ? 1 : 2), "forked at its lock %d", at);
		quarry_mapped_close(shared);
		close(said[0]);
		close(said[1]);
		leave();
	}
}

static unsigned order[64], ordered;

static int lock_and_note(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	if (ordered < 64)
		order[ordered++] = (at == QY_MAPPED_LOCK_OPEN ? 1 : at >= QY_MAPPED_LOCK_SESSION ? 2 : 3) * 10 + (unsigned)kind;
	return was->range_lock(fd, kind, at, len, wait);
}

static void look_at_order(void)
{
	unsigned held = 0, began = 0;

	for (unsigned i = 0; i < ordered; i++) {
		if (order[i] / 10 == 1)
			held = order[i] % 10 != QY_RANGE_NONE;
		else if (order[i] == 20 + QY_RANGE_WRITE && !held)
			_exit(1);
		began += order[i] / 10 == 2;
	}
	if (held || began == 0 || quarry_mapped_alloc(shared, 10) == NULL)
		_exit(2);
}

/* Else who opens, closes or collects at that time would take it for not there. */
Test(mapped_faults, a_forked_child_begins_as_who_opens_does)
{
	shared = new_heap(64 * MIB);
	table = *(was = qy_os);
	table.range_lock = lock_and_note;
	qy_os = &table;
	cr_assert_eq(in_child(look_at_order), 0);
	qy_os = was;
	quarry_mapped_close(shared);
}

static void *use_two(void *two)
{
	quarry_mapped **h = two;

	for (unsigned i = 0; i < 4; i++)
		cr_assert_not_null(quarry_mapped_alloc(h[i % 2], 40));
	cr_assert_not_null(quarry_mapped_alloc(h[0], 40));
	return NULL;
}

static void *use_one_after_another(void *two)
{
	quarry_mapped **h = two;

	cr_assert_not_null(quarry_mapped_alloc(h[1], 40));
	quarry_mapped_close(h[1]);
	cr_assert_not_null(quarry_mapped_alloc(h[0], 40));
	h[1] = open_it();
	cr_assert_not_null(quarry_mapped_alloc(h[1], 40));
	quarry_mapped_close(h[1]);
	h[1] = open_it();
	cr_assert_not_null(quarry_mapped_alloc(h[1], 40));
	cr_assert_not_null(quarry_mapped_alloc(h[0], 40));
	return NULL;
}

/* A thread's end lets go of its lanes in all heaps, in whatever order it came to them. */
Test(mapped_faults, a_thread_that_ends_lets_all_its_lanes_go)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE };
	quarry_mapped *h[2] = { quarry_mapped_create(NULL, &attr), new_heap(64 * MIB) };
	void *(*const ways[])(void *) = { use_two, use_one_after_another };

	for (unsigned i = 0; i < 2; i++) {
		pthread_t t;

		cr_assert(pthread_create(&t, NULL, ways[i], h) == 0 && pthread_join(t, NULL) == 0);
		cr_assert(told(h[0]).lanes == 0 && told(h[1]).lanes == 0, "%u: %u %u", i, told(h[0]).lanes, told(h[1]).lanes);
	}
	quarry_mapped_close(h[0]);
	quarry_mapped_close(h[1]);
}

static void from_elsewhere(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	_exit(h == NULL && errno == ENOTSUP && strstr(quarry_error_text(), "namespace") != NULL ? 0 : 1);
}

/* Locks bear threads' numbers, which are others' in another PID namespace. */
Test(mapped_faults, one_pid_namespace_at_a_time)
{
	shared = new_heap(64 * MIB);
	for (uint32_t i = 0; i < qy_heap(shared)->sb.sessions; i++) {
		if (qy_heap(shared)->sessions[i].space != 0)
			qy_heap(shared)->sessions[i].space++;
	}
	cr_assert_eq(in_child(from_elsewhere), 0);
	qy_heap(shared)->sessions[qy_heap(shared)->session].space--;
	cr_assert_eq(in_child(open_and_close), 0);
	qy_heap(shared)->sessions[qy_heap(shared)->session].space++;
	quarry_mapped_close(shared);
	shared = open_it(); /* nobody of the other one is there */
	quarry_mapped_close(shared);
}

static void *put_name(void *heap)
{
	cr_assert_eq(quarry_mapped_root_put(heap, "x", 1, 1), 0);
	return NULL;
}

/* Who was woken may be killed before it has the lock, and another one have it by then without a word of who waits yet. */
Test(mapped_faults, a_wake_up_that_is_lost)
{
	quarry_mapped *h = new_heap(64 * MIB);
	uint32_t *word = (uint32_t *)(void *)&qy_heap(h)->live->lock;
	pthread_t t;

	cr_assert_eq(qy_mapped_enter(qy_heap(h)), 0);
	cr_assert_eq(pthread_create(&t, NULL, put_name, h), 0);
	while ((__atomic_load_n(word, __ATOMIC_ACQUIRE) & 0x80000000) == 0) /* FUTEX_WAITERS */
		sched_yield();
	for (unsigned i = 0; i < 1000; i++) /* (it sleeps soon after it has said so) */
		sched_yield();
	__atomic_fetch_and(word, 0x7fffffff, __ATOMIC_RELEASE);
	qy_mapped_leave(qy_heap(h));
	cr_assert_eq(pthread_join(t, NULL), 0);
	quarry_mapped_close(h);
}

/* ---- what stands in a file ---- */

/* The file as its process would have it, for one who may change all. */
static struct heap *raw(void)
{
	static struct heap h;
	int fd = open(path, O_RDWR);
	uint64_t at[6];

	cr_assert_eq(qy_mapped_sb_read(fd, &h.sb), 0);
	cr_assert(qy_mapped_layout(&h.sb, at));
	h.map_len = (size_t)lseek(fd, 0, SEEK_END);
	h.map = mmap(NULL, h.map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(h.map, MAP_FAILED);
	close(fd);
	h.pub = (quarry_mapped){ h.map, h.sb.head_bytes + h.sb.max_bytes };
	h.live = (void *)(h.map + QY_MAPPED_LIVE_AT);
	h.sessions = (void *)(h.map + at[0]);
	h.lanes = (void *)(h.map + at[1]);
	h.user = h.map + at[3];
	h.segtab = (void *)(h.map + at[4]);
	h.segs = h.map + at[5];
	return &h;
}

static void record(uint64_t at, uint64_t value)
{
	struct heap *h = raw();
	struct qy_mapped_live *live = h->live;

	live->redo[0] = (struct qy_mapped_redo_entry){ at, value };
	live->redo_check = ((1 ^ at) * 0x9e3779b97f4a7c15u ^ value) * 0xbf58476d1ce4e5b9u;
	live->redo_count = 1;
	munmap(h->map, h->map_len);
}

static void refused_damaged(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	_exit(h == NULL && errno == EUCLEAN ? 0 : 1);
}

Test(mapped_faults, records_that_cannot_be)
{
	const uint64_t live = QY_MAPPED_LIVE_AT;
	const struct {
		uint64_t at, value;
		bool good;
	} records[] = {
		{ UINT64_MAX & ~(uint64_t)7, 1, false },
		{ live + offsetof(struct qy_mapped_live, redo_count), 9, false },
		{ live + offsetof(struct qy_mapped_live, redo), 9, false },
		{ live + offsetof(struct qy_mapped_live, lock), 9, false },
		{ live + offsetof(struct qy_mapped_live, broken), 0, false },
		{ live + offsetof(struct qy_mapped_live, segments), 0, true },
		{ live + 4096, 0, false }, /* a session */
		{ 64, 1, false },
		{ 1 << 30, 1, false },
	};

	for (unsigned i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		quarry_mapped *h = new_heap(64 * MIB);

		quarry_mapped_close(h);
		record(records[i].at, records[i].value);
		cr_assert_eq(in_child(records[i].good ? open_and_close : refused_damaged), 0, "record %u", i);
		leave();
	}
}

static void die_with_a_bad_record(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL || qy_mapped_enter(qy_heap(h)) != 0)
		_exit(1);
	qy_heap(h)->live->redo[0].at = 3;
	qy_heap(h)->live->redo_count = 1;
	raise(SIGKILL);
}

/* Who finds it stages nothing over it. */
Test(mapped_faults, nothing_goes_on_over_a_bad_record)
{
	shared = new_heap(64 * MIB);
	cr_assert_eq(quarry_mapped_root_put(shared, "old", 1, 1), 0);
	cr_assert(WIFSIGNALED(in_child(die_with_a_bad_record)));
	cr_assert(quarry_mapped_root_put(shared, "old", 2, 2) == -1 && errno == EROFS);
	cr_assert_eq(quarry_mapped_root_get(shared, "old", NULL), 1);
	cr_assert_eq(qy_heap(shared)->live->redo_count, 1);
	cr_assert(quarry_mapped_alloc(shared, 10) == NULL && errno == EROFS);
	quarry_mapped_close(shared);
	cr_assert_eq(in_child(refused_damaged), 0);
	shared = quarry_mapped_open_read(path); /* what is there can be saved */
	cr_assert(shared != NULL && quarry_mapped_root_get(shared, "old", NULL) == 1, "%s", quarry_error_text());
	quarry_mapped_close(shared);
}

static void die(void)
{
	if (quarry_mapped_open(path) == NULL)
		_exit(1);
	raise(SIGKILL);
}

/* A dead lane's note of an object that is another lane's. */
Test(mapped_faults, a_note_is_of_its_own_lane)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_off off = quarry_mapped_off(h, quarry_mapped_alloc(h, 100));
	struct heap *r;

	cr_assert_eq(quarry_mapped_root_put(h, "x", off, 0), 0);
	quarry_mapped_close(h);
	cr_assert(WIFSIGNALED(in_child(die)));
	r = raw();
	r->lanes[5].state = QY_LANE_OF(0);
	r->lanes[5].reserved[0] = off;
	munmap(r->map, r->map_len);
	h = open_it();
	cr_assert(checked(h).objects == 1 && checked(h).reserved == 0 && quarry_mapped_usable(h, quarry_mapped_at(h, off)) == 112);
	quarry_mapped_close(h);
}

Test(mapped_faults, the_count_of_runs_may_be_anything)
{
	quarry_mapped *h = new_heap(64 * MIB);
	struct heap *r;

	quarry_mapped_close(h);
	r = raw();
	r->live->run = UINT64_MAX;
	munmap(r->map, r->map_len);
	h = open_it();
	cr_assert_eq(told(h).sessions, 1);
	cr_assert_eq(quarry_mapped_lock(h, quarry_mapped_user(h, NULL)), 0);
	cr_assert_eq(quarry_mapped_unlock(h, quarry_mapped_user(h, NULL)), 0);
	quarry_mapped_close(h);
}

/* Memory that somebody may cut short under those who have it. */
Test(mapped_faults, memory_that_is_not_sealed_is_refused)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = 64 * MIB };
	quarry_mapped *h = quarry_mapped_create(NULL, &attr);
	size_t n = (size_t)lseek(quarry_mapped_fd(h), 0, SEEK_END);
	int sealed = memfd_create("sealed", MFD_ALLOW_SEALING), never = memfd_create("never", 0);

	cr_assert(sealed >= 0 && never >= 0);
	cr_assert(pwrite(sealed, h->base, n, 0) == (ssize_t)n && pwrite(never, h->base, n, 0) == (ssize_t)n);
	quarry_mapped_close(h);
	h = quarry_mapped_attach(never);
	cr_assert(h == NULL && errno == EPERM, "%s", quarry_error_text());
	h = quarry_mapped_attach(sealed);
	cr_assert(h != NULL, "%s", quarry_error_text());
	cr_assert(ftruncate(sealed, 4096) == -1 && errno == EPERM);
	quarry_mapped_close(h);
}

/* ---- classes that are read-only ---- */

Test(mapped_faults, a_class_that_is_read_only_is_so_for_all)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_off *slots = quarry_mapped_user(h, NULL);
	quarry_mapped_set set;
	void *p, *q;

	cr_assert(quarry_mapped_alloc_into(h, 64, &slots[0]) != NULL && quarry_mapped_alloc_into(h, 200, &slots[1]) != NULL);
	p = quarry_mapped_alloc(h, 64);
	q = quarry_mapped_alloc(h, 64);
	memset(q, 7, 64);
	qy_mapped_bad_class(qy_heap(h), qy_mapped_class_of(64));
	cr_assert(quarry_mapped_alloc(h, 64) == NULL && errno == EROFS);
	cr_assert(quarry_mapped_free(h, p) == -1 && errno == EROFS);
	cr_assert(quarry_mapped_alloc_into(h, 64, &slots[2]) == NULL && errno == EROFS);
	cr_assert(quarry_mapped_free_from(h, &slots[0]) == -1 && errno == EROFS && slots[0] != 0);
	cr_assert_eq(quarry_mapped_begin(h, &set), 0);
	cr_assert(quarry_mapped_reserve(&set, 64) == NULL && errno == EROFS);
	cr_assert_eq(quarry_mapped_unlink(&set, quarry_mapped_at(h, slots[1])), 0);
	cr_assert_eq(quarry_mapped_unlink(&set, p), 0);
	cr_assert(quarry_mapped_publish(&set) == -1 && errno == EROFS);
	cr_assert(quarry_mapped_alloc(h, 200) != NULL && quarry_mapped_free_from(h, &slots[1]) == 0);
	cr_assert_eq(quarry_mapped_collect(h, NULL, NULL), 224);
	(void)quarry_mapped_trim(h);
	cr_assert_eq(quarry_mapped_usable(h, p), 64);
	cr_assert_eq(((char *)q)[63], 7);
	cr_assert_eq(checked(h).objects, 3);
	qy_mapped_bad_class(qy_heap(h), UINT32_MAX);
	cr_assert(quarry_mapped_alloc(h, 200) == NULL && errno == EROFS);
	cr_assert(quarry_mapped_alloc(h, 200000) == NULL && errno == EROFS);
	quarry_mapped_close(h);
}

/* ---- sets, blocks and segments ---- */

Test(mapped_faults, a_set_of_as_many_blocks_as_there_may_be)
{
	quarry_mapped *h = new_heap(2048 * MIB);
	quarry_off *slots = quarry_mapped_user(h, NULL), old[QUARRY_MAPPED_SET];
	quarry_mapped_set set;

	for (unsigned i = 0; i < QUARRY_MAPPED_SET; i++) {
		old[i] = quarry_mapped_off(h, quarry_mapped_alloc(h, 31 * MIB));
		cr_assert_neq(old[i], 0);
		slots[i] = old[i];
	}
	cr_assert_eq(quarry_mapped_begin(h, &set), 0);
	for (unsigned i = 0; i < QUARRY_MAPPED_SET; i++) {
		void *p = quarry_mapped_reserve(&set, 31 * MIB);

		cr_assert_not_null(p);
		cr_assert_eq(quarry_mapped_link(&set, &slots[i], old[i], quarry_mapped_off(h, p)), 0);
		cr_assert_eq(quarry_mapped_unlink(&set, quarry_mapped_at(h, old[i])), 0);
	}
	cr_assert_eq(quarry_mapped_publish(&set), 0, "%s", quarry_error_text());
	cr_assert(checked(h).blocks == QUARRY_MAPPED_SET && checked(h).reserved == 0);
	quarry_mapped_close(h);
}

/* What was reserved in a slab that is full since is there for the next. */
Test(mapped_faults, what_is_cancelled_is_allocated_again)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_mapped_set set;

	for (unsigned i = 0; i < 7; i++)
		cr_assert_not_null(quarry_mapped_alloc(h, 32768));
	for (unsigned k = 0; k < 20; k++) {
		cr_assert_eq(quarry_mapped_begin(h, &set), 0);
		cr_assert_not_null(quarry_mapped_reserve(&set, 32768)); /* the eighth: the slab is full */
		if (k == 0)
			cr_assert_not_null(quarry_mapped_alloc(h, 32768)); /* of a second one, in its place */
		else
			quarry_mapped_free(h, quarry_mapped_alloc(h, 32768));
		quarry_mapped_cancel(&set);
	}
	for (unsigned i = 0; i < 8; i++)
		cr_assert_not_null(quarry_mapped_alloc(h, 32768));
	cr_assert_eq(checked(h).slabs, 2);
	quarry_mapped_close(h);
}

Test(mapped_faults, all_of_a_block_of_many_segments_goes_back)
{
	quarry_mapped *h = new_heap(1024 * MIB);
	char *p = quarry_mapped_alloc(h, 150 * MIB), *q = quarry_mapped_alloc(h, 40 * MIB);

	memset(q, 3, 40 * MIB);
	cr_assert_eq(quarry_mapped_free(h, p), 0);
	cr_assert_geq(quarry_mapped_trim(h), 150 * MIB);
	for (size_t i = 0; i < 40 * MIB; i += 4096)
		cr_assert_eq(q[i], 3);
	p = quarry_mapped_alloc(h, 60 * MIB); /* and there is memory again */
	memset(p, 1, 60 * MIB);
	cr_assert_eq(quarry_mapped_free(h, q), 0);
	cr_assert_geq(quarry_mapped_trim(h), 40 * MIB);
	for (size_t i = 0; i < 60 * MIB; i += 4096)
		cr_assert_eq(p[i], 1);
	quarry_mapped_close(h);
}

static void die_with_a_block(void)
{
	quarry_mapped_set set;
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL || quarry_mapped_begin(h, &set) != 0 || quarry_mapped_reserve(&set, 20 * MIB) == NULL)
		_exit(1);
	raise(SIGKILL);
}

/* What a dead one had is taken rather than that the file grows. */
Test(mapped_faults, it_does_not_grow_where_the_dead_left_room)
{
	uint64_t bytes;

	shared = new_heap(1024 * MIB);
	cr_assert(WIFSIGNALED(in_child(die_with_a_block)));
	bytes = told(shared).bytes;
	cr_assert_not_null(quarry_mapped_alloc(shared, 20 * MIB));
	cr_assert_eq(told(shared).bytes, bytes);
	quarry_mapped_close(shared);
}

/* Memory that was a block's is notes of a segment now. */
Test(mapped_faults, what_was_written_in_a_block_is_no_note)
{
	quarry_mapped *h = new_heap(256 * MIB);
	char *block = quarry_mapped_alloc(h, 33 * MIB), *p;
	uint64_t *words = (uint64_t *)(void *)block;

	for (size_t i = 0; i < 33 * MIB / 8; i++)
		words[i] = qy_unit_state(QY_UNIT_SLAB, 3, 1, 1);
	cr_assert_eq(quarry_mapped_free(h, block), 0);
	p = quarry_mapped_alloc(h, 100);
	cr_assert(p > block && p < block + 32 * MIB, "%p %p: %s", (void *)block, (void *)p, quarry_error_text());
	for (char *at = p; at < block + 2 * MIB; at += QY_MAPPED_UNIT)
		cr_assert(quarry_mapped_usable(h, at) == 0 || at == p, "%td", at - p);
	checked(h);
	quarry_mapped_close(h);
}

/* ---- while others grow it ---- */

static int info_and_grow(int fd, struct qy_file_info *info)
{
	int rc = was->file_info(fd, info);

	if (forks > 0 && pthread_mutex_trylock(&qy_heap(shared)->live->lock.mutex) == 0) {
		pthread_mutex_unlock(&qy_heap(shared)->live->lock.mutex);
		forks--;
		cr_assert_not_null(quarry_mapped_alloc(shared, 20 * MIB));
	}
	return rc;
}

Test(mapped_faults, opened_while_it_grows)
{
	quarry_mapped *(*const ways[])(const char *) = { quarry_mapped_open, quarry_mapped_open_read };

	shared = new_heap(1024 * MIB);
	table = *(was = qy_os);
	table.file_info = info_and_grow;
	qy_os = &table;
	for (unsigned i = 0; i < 2; i++) {
		quarry_mapped *h;

		forks = 8;
		h = ways[i](path);
		forks = 0;
		cr_assert(h != NULL, "%u: %s", i, quarry_error_text());
		quarry_mapped_close(h);
	}
	qy_os = was;
	quarry_mapped_close(shared);
}
