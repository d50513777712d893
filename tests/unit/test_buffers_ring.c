/* SPDX-License-Identifier: MIT */
/* Slabs of buffers with io_uring: a kernel played by the test takes buffers out of the ring and registers chunks, and
 * where the real one has io_uring, it is asked too. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/chain.h"
#include "lib/object/copy.h"
#include "tests/unit/buffers.h"

#define RING_FD 99
#define OTHER_FD 98
#define COUNT 64u
#define SIZE (4 * KIB)

/* ------------------------------------------------------------------------------------------------------ */
/* The kernel, as the manual pages have it                                                                */

struct entry {
	uint64_t addr;
	uint32_t len;
	uint16_t id, tail;
};

static struct played {
	bool without_inc; /* older than 6.12 */
	int refuse;       /* the next registration, with this errno */
	volatile struct entry *ring;
	uint32_t entries;
	uint16_t group, head, flags;
	uint32_t filled; /* of the first buffer, where it is filled bit by bit */
	struct iovec table[32];
	uint64_t tag[32], let_go[32];
	unsigned table_size, gone;
	int takes;   /* how many entries it takes before it refuses; -1: all */
	int empties; /* and how many it lets be emptied */
	void (*meanwhile)(void); /* called as it is asked to register */
	bool without_clones;
	struct iovec other[32]; /* the other io_uring's table */
	unsigned other_size;
} kernel;

struct ring_argument {
	uint64_t addr;
	uint32_t entries;
	uint16_t group, flags;
	uint64_t reserved[3];
};

static int answer(int error)
{
	errno = error;
	return -1;
}

static int register_ring(const struct ring_argument *r)
{
	for (int i = 0; i < 3; i++)
		if (r->reserved[i] != 0)
			return answer(EINVAL);
	if (r->flags & ~3u || (kernel.without_inc && r->flags) || r->addr % 4096 || (r->entries & (r->entries - 1)) ||
	    r->entries > 32768)
		return answer(EINVAL);
	if (kernel.ring != NULL)
		return answer(EEXIST);
	kernel.ring = (volatile struct entry *)(uintptr_t)r->addr;
	kernel.entries = r->entries;
	kernel.group = r->group;
	kernel.flags = r->flags;
	kernel.head = 0;
	kernel.filled = 0;
	return 0;
}

static int update_table(const uint32_t *u)
{
	const struct { uint32_t first, reserved; uint64_t data, tags; uint32_t count, reserved2; } *arg = (const void *)u;
	const struct iovec *iov = (const struct iovec *)(uintptr_t)arg->data;
	const uint64_t *tags = (const uint64_t *)(uintptr_t)arg->tags;
	int done = 0;

	if (kernel.meanwhile != NULL)
		kernel.meanwhile();
	if (arg->reserved || arg->reserved2 || arg->first + arg->count > kernel.table_size)
		return answer(EINVAL);
	for (uint32_t i = 0; i < arg->count; i++, done++) {
		unsigned at = arg->first + i;

		if (iov[i].iov_base != NULL && kernel.takes == 0)
			return done > 0 ? done : answer(ENOMEM);
		kernel.takes -= iov[i].iov_base != NULL && kernel.takes > 0;
		if (iov[i].iov_base == NULL && kernel.empties == 0)
			return done > 0 ? done : answer(EAGAIN);
		kernel.empties -= iov[i].iov_base == NULL && kernel.empties > 0;
		if (iov[i].iov_len > GIB || (iov[i].iov_base == NULL && tags[i] != 0))
			return done > 0 ? done : answer(EFAULT);
		if (kernel.table[at].iov_base != NULL && kernel.tag[at] != 0)
			kernel.let_go[kernel.gone++] = kernel.tag[at];
		kernel.table[at] = iov[i];
		kernel.tag[at] = tags[i];
	}
	return done;
}

static int clone_table(const uint32_t *words)
{
	const struct { uint32_t source, flags, from, to, count, reserved[3]; } *arg = (const void *)words;

	if (kernel.without_clones || arg->flags & ~2u || arg->reserved[0] || arg->reserved[1] || arg->reserved[2])
		return answer(EINVAL);
	if (arg->source != RING_FD)
		return answer(EBADF);
	if (kernel.other_size != 0 && !(arg->flags & 2))
		return answer(EBUSY);
	if (arg->count == 0 || arg->from + arg->count > kernel.table_size)
		return answer(EINVAL);
	if (arg->to + arg->count > kernel.other_size)
		kernel.other_size = arg->to + arg->count;
	memcpy(&kernel.other[arg->to], &kernel.table[arg->from], arg->count * sizeof(struct iovec));
	return 0;
}

/* The other one is cloned to, and its entries emptied, from the first on. */
static int play_other(unsigned opcode, uint32_t *words, unsigned count)
{
	const uint32_t first = words[0], n = words[6];

	if (opcode == 30)
		return count == 1 ? clone_table(words) : answer(EINVAL);
	if (opcode != 16 || count != 32 || first + n > kernel.other_size)
		return answer(EINVAL);
	if (kernel.empties >= 0 && (uint32_t)kernel.empties < n)
		return answer(EAGAIN);
	memset(&kernel.other[first], 0, n * sizeof(struct iovec));
	return (int)n;
}

static int play(int fd, unsigned opcode, void *arg, unsigned count)
{
	uint32_t *words = arg;
	int refuse = kernel.refuse;

	if (fd == OTHER_FD)
		return play_other(opcode, words, count);
	if (fd != RING_FD)
		return answer(EBADF);
	kernel.refuse = 0;
	if (refuse != 0)
		return answer(refuse);
	switch (opcode) {
	case 22:
		return count == 1 ? register_ring(arg) : answer(EINVAL);
	case 23:
		if (kernel.ring == NULL || ((struct ring_argument *)arg)->group != kernel.group)
			return answer(ENOENT);
		kernel.ring = NULL;
		return 0;
	case 26:
		if (kernel.ring == NULL || words[0] != kernel.group)
			return answer(ENOENT);
		words[1] = kernel.head;
		return 0;
	case 15:
		if (count != 32 || words[1] != 1 || words[0] > 32)
			return answer(EINVAL);
		if (kernel.table_size != 0)
			return answer(EBUSY);
		kernel.table_size = words[0];
		return 0;
	case 16:
		return count == 32 ? update_table(arg) : answer(EINVAL);
	default:
		return answer(EINVAL);
	}
}

/* It receives bytes: those of `from` on, into the next buffer. False when it has none. The completion's figures. */
static bool kernel_receives(const unsigned char *from, uint32_t len, int32_t *res, uint32_t *flags)
{
	uint16_t tail = __atomic_load_n(&kernel.ring[0].tail, __ATOMIC_ACQUIRE);
	volatile struct entry *e = &kernel.ring[kernel.head & (kernel.entries - 1)];

	if (tail == kernel.head) {
		*res = -ENOBUFS;
		*flags = 0;
		return false;
	}
	if (kernel.flags & 2) {
		uint32_t room = e->len - kernel.filled;

		len = len < room ? len : room;
		memcpy((char *)(uintptr_t)e->addr + kernel.filled, from, len);
		kernel.filled += len;
		*flags = (uint32_t)e->id << 16 | 1u | (kernel.filled < e->len ? 16u : 0);
		if (kernel.filled == e->len) {
			kernel.filled = 0;
			kernel.head++;
		}
	} else {
		len = len < e->len ? len : e->len;
		memcpy((void *)(uintptr_t)e->addr, from, len);
		*flags = (uint32_t)e->id << 16 | 1u;
		kernel.head++;
	}
	*res = (int32_t)len;
	return true;
}

/* The same into as many buffers as it takes, that there are, and up to `most`: a bundle. */
static bool kernel_receives_bundle(const unsigned char *from, uint32_t len, uint32_t most, int32_t *res, uint32_t *flags)
{
	uint32_t done = 0, first = 0, more;
	int32_t n;

	if (!kernel_receives(from, len, &n, &first)) {
		*res = n;
		*flags = first;
		return false;
	}
	more = first;
	for (done = (uint32_t)n; done < len && --most > 0; done += (uint32_t)n)
		if (!kernel_receives(from + done, len - done, &n, &more))
			break;
	*res = (int32_t)done;
	*flags = (first & ~16u) | (done == len ? more & 16u : 0);
	return true;
}

static quarry_buffers *start(uint32_t count, uint64_t size, uint32_t flags)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = size, .count = count, .alignment = 4096,
				     .flags = flags };

	memset(&kernel, 0, sizeof kernel);
	kernel.takes = kernel.empties = -1;
	fake_os_install();
	fake_os_uring(play);
	return make_of(&attr);
}

static void stop(quarry_buffers *slab)
{
	end(slab);
	fake_os_remove();
}

/* ------------------------------------------------------------------------------------------------------ */
/* Whole buffers                                                                                          */

static unsigned char pattern[8 * KIB];

static void make_pattern(unsigned key)
{
	for (size_t i = 0; i < sizeof pattern; i++)
		pattern[i] = (unsigned char)(i * 17 + key * 29);
}

/* Buffers go round, released by the owner and by others in any order; all that the kernel is given is a buffer that
 * nobody has. */
static void go_round(uint32_t count, uint32_t entries, uint32_t flags)
{
	quarry_buffers *slab = start(count, SIZE, flags);
	quarry_buffer held[COUNT], b;
	uint32_t starved = 0, n = 0, in_ring = count < entries ? count : entries;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 7, entries, 0), 0, "%s", quarry_error_text());
	cr_assert_eq(kernel.group, 7);
	cr_assert_eq(figures(slab).in_ring, in_ring);
	cr_assert_eq(figures(slab).free, count - in_ring);
	cr_assert_eq(figures(slab).tails, 1);
	cr_assert_eq(quarry_ring_left(slab), in_ring);
	for (unsigned step = 0; step < 140000; step++) {
		int32_t res;
		uint32_t cqe;

		if (rand() % 2 && n < COUNT) {
			make_pattern(step);
			if (!kernel_receives(pattern, 1 + (uint32_t)rand() % (uint32_t)SIZE, &res, &cqe)) {
				errno = 0;
				cr_assert(quarry_ring_try_get(slab, res, cqe, &b) == -1 && errno == ENOBUFS);
				cr_assert_eq(n + figures(slab).in_ring, in_ring, "all that was returned is published");
				starved++;
				continue;
			}
			cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &held[n]), 0, "errno %d", errno);
			cr_assert_eq(held[n].len, (uint32_t)res);
			cr_assert_eq(held[n].p, quarry_buffers_at(slab, held[n].id));
			cr_assert_eq(memcmp(held[n].p, pattern, held[n].len), 0);
			for (uint32_t i = 0; i < n; i++)
				cr_assert_neq(held[i].id, held[n].id);
			/* The same completion again is none. */
			errno = 0;
			cr_assert(quarry_ring_try_get(slab, res, cqe, &b) == -1 && errno == EINVAL);
			n++;
		} else if (n > 0) {
			uint32_t i = (uint32_t)rand() % n;

			b = held[i];
			if (rand() % 64)
				cr_assert_eq(quarry_buffer_release(b), 0);
			else
				cr_assert_eq(release_elsewhere(b), 0);
			held[i] = held[--n];
			errno = 0;
			cr_assert(quarry_buffer_release(b) == -1 && errno == EALREADY);
			if (rand() % 16 == 0)
				quarry_buffers_collect(slab);
		}
	}
	cr_expect_gt(starved, 0);
	cr_expect_eq(figures(slab).starved, starved);
	cr_expect_gt(figures(slab).published, 65536, "the tail came round");
	while (n > 0)
		cr_assert_eq(quarry_buffer_release(held[--n]), 0);
	quarry_buffers_collect(slab);
	cr_expect_eq(figures(slab).in_ring, in_ring);
	expect_error(quarry_buffers_destroy(slab), EBUSY);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	expect_error(quarry_ring_unregister(slab), ENOENT);
	cr_expect_null((void *)(uintptr_t)kernel.ring);
	cr_expect_eq(figures(slab).free, count);
	stop(slab);
}

Test(buffers_ring, buffers_go_round, .timeout = 60)
{
	srand(7);
	printf("seed 7\n");
	go_round(COUNT, 64, 0);
	go_round(COUNT, 32, QUARRY_BUFFERS_CHECKED);
	go_round(40, 64, 0);
}

static unsigned served;

static void ready(quarry_buffers_waiter *waiter, quarry_buffer b)
{
	served++;
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_not_null(waiter);
}

/* Where the ring has all, who waits is served when it ends. */
Test(buffers_ring, waiting_for_what_a_ring_has)
{
	quarry_buffers *slab = start(4, SIZE, 0);
	quarry_buffers_waiter w = { .ready = ready };

	served = 0;
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 4, 0), 0);
	cr_expect_eq(quarry_buffers_wait(slab, &w), 1);
	cr_expect_eq(quarry_buffers_collect(slab), 0);
	cr_expect_eq(served, 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	cr_expect_eq(served, 1);
	cr_expect_eq(figures(slab).free, 4);
	stop(slab);
}

/* What is beside the ring's is for others, and stays so. */
Test(buffers_ring, the_rings_and_the_rest)
{
	quarry_buffers *slab = start(12, SIZE, 0);
	quarry_buffer rest[4], b, more;
	int32_t res;
	uint32_t cqe;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 8, 0), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(quarry_buffers_get(slab, &rest[i]), 0);
	expect_error(quarry_buffers_get(slab, &more), ENOBUFS);
	cr_assert(kernel_receives((const unsigned char *)"x", 1, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b), 0);
	cr_expect_eq(quarry_buffer_kind(b), QUARRY_BUFFER_RING);
	cr_expect_eq(figures(slab).in_ring, 7);
	cr_expect_eq(quarry_buffer_release(rest[0]), 0);
	cr_expect_eq(figures(slab).in_ring, 7);
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_eq(figures(slab).in_ring, 8);
	/* One that is out when the ring ends is the slab's afterwards. */
	cr_assert(kernel_receives((const unsigned char *)"x", 1, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	expect_error(quarry_ring_try_get(slab, res, cqe, &more), EINVAL);
	cr_expect_eq(quarry_buffer_release(b), 0);
	for (int i = 1; i < 4; i++)
		cr_expect_eq(quarry_buffer_release(rest[i]), 0);
	cr_expect_eq(figures(slab).free, 12);
	/* A smaller one: what was the first ring's is nobody's. */
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 4, 0), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(quarry_buffers_get(slab, &rest[i]), 0);
	for (int i = 0; i < 4; i++)
		cr_expect_eq(quarry_buffer_release(rest[i]), 0);
	cr_expect_eq(figures(slab).in_ring, 4);
	cr_expect_eq(figures(slab).free, 8);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* A forked child has the descriptor too. */
Test(buffers_ring, a_childs_end_is_not_the_parents)
{
	quarry_buffers *slab = start(8, SIZE, 0);
	int status = -1;
	pid_t pid;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 4, 0), 0);
	cr_assert_eq(quarry_fixed_register(slab, RING_FD, 4, 0, 5), 1);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		bool ok = quarry_ring_left(slab) == -1 && errno == ENOENT && quarry_ring_unregister(slab) == 0 && quarry_fixed_unregister(slab) == 0 &&
			  kernel.ring != NULL && kernel.table[0].iov_base != NULL;

		ok = ok && quarry_buffers_destroy(slab) == 0;
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	cr_expect_eq(quarry_fixed_unregister(slab), 0);
	cr_expect_eq(quarry_fixed_let_go(slab, 5), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	cr_expect_null((void *)(uintptr_t)kernel.ring);
	stop(slab);
}

/* And of an owner who is not in the child, who was in the midst of something. */
static struct {
	quarry_buffers *slab;
	unsigned flags;
	quarry_buffer whole[2];
	_Atomic(int) there, leave;
} other;

static void *owns_a_ring(void *arg)
{
	int32_t res;
	uint32_t cqe;

	cr_assert_eq(quarry_buffers_own(other.slab), 0);
	cr_assert_eq(quarry_ring_register(other.slab, RING_FD, 0, 4, other.flags), 0);
	for (int i = 0; i < 2; i++) {
		cr_assert(kernel_receives(pattern, SIZE / 2, &res, &cqe));
		cr_assert_eq(quarry_ring_try_get(other.slab, res, cqe, &other.whole[i]), 0);
	}
	atomic_store(&other.there, 1);
	while (atomic_load(&other.leave) == 0)
		sched_yield();
	for (int i = 0; i < 2; i++)
		cr_assert_eq(quarry_buffer_release(other.whole[i]), 0);
	cr_assert_eq(quarry_ring_unregister(other.slab), 0);
	return arg;
}

static int child_of(unsigned flags, int lost)
{
	struct qy_buffers *s = (struct qy_buffers *)other.slab;
	quarry_buffers *slab = other.slab;
	const uint32_t first = other.whole[0].id;
	uint64_t out = s->ring.pieces != NULL ? atomic_load(&s->ring.pieces[first].out) : 0;
	int status = -1;
	pid_t pid;

	/* The last piece is back, and the buffer not; or the kernel has no more of it, which is not said there yet. */
	if (flags && lost == 1)
		atomic_store(&s->ring.pieces[first].out, out >> 32 << 32);
	if (lost == 2)
		qy_bit_clear(s->ring.has, 3);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		bool ok;

		alarm(20);
		ok = quarry_buffers_own(slab) == 0 && figures(slab).in_ring == 0;
		for (int i = 0; i < 2; i++)
			ok = ok && (quarry_buffer_release(other.whole[i]) == 0 || (lost == 1 && errno == EALREADY));
		ok = ok && figures(slab).free == 8 && quarry_ring_unregister(slab) == 0 &&
		     kernel.ring != NULL && quarry_buffers_destroy(slab) == 0;
		_exit(ok ? 0 : 1);
	}
	if (s->ring.pieces != NULL)
		atomic_store(&s->ring.pieces[first].out, out);
	if (lost == 2)
		qy_bit_set(s->ring.has, 3);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

Test(buffers_ring, the_ring_of_an_owner_who_is_not_there, .timeout = 60)
{
	for (unsigned flags = 0; flags <= QUARRY_RING_INCREMENTAL; flags++) {
		pthread_t thread;

		other.slab = start(8, SIZE, 0);
		other.flags = flags;
		atomic_store(&other.there, 0);
		atomic_store(&other.leave, 0);
		cr_assert_eq(pthread_create(&thread, NULL, owns_a_ring, NULL), 0);
		while (atomic_load(&other.there) == 0)
			sched_yield();
		for (int lost = 0; lost < 3; lost++)
			cr_expect_eq(child_of(flags, lost), 0, "flags %u, lost %d", flags, lost);
		atomic_store(&other.leave, 1);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cr_assert_eq(quarry_buffers_own(other.slab), 0);
		stop(other.slab);
	}
}

Test(buffers_ring, one_tail_for_many)
{
	quarry_buffers *slab = start(COUNT, SIZE, 0);
	quarry_buffer b[COUNT];
	int32_t res;
	uint32_t cqe;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 64, 0), 0);
	for (uint32_t i = 0; i < COUNT; i++) {
		cr_assert(kernel_receives((const unsigned char *)"abc", 3, &res, &cqe));
		cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b[i]), 0);
	}
	for (uint32_t i = 0; i < COUNT; i++)
		cr_assert_eq(release_elsewhere(b[i]), 0);
	cr_expect_eq(figures(slab).in_ring, 0);
	cr_expect_eq(quarry_buffers_collect(slab), COUNT);
	cr_expect_eq(figures(slab).batches, 1);
	cr_expect_eq(figures(slab).tails, 2);
	cr_expect_eq(quarry_ring_left(slab), COUNT);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

Test(buffers_ring, completions_that_are_none)
{
	quarry_buffers *slab = start(8, SIZE, 0);
	quarry_buffer b;

	expect_error(quarry_ring_try_get(slab, 1, 1, &b), EINVAL);
	expect_error(quarry_ring_left(slab), ENOENT);
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 4, 0), 0);
	expect_error(quarry_ring_try_get(slab, 5, 0, &b), EAGAIN);
	expect_error(quarry_ring_try_get(slab, -ECONNRESET, 0, &b), EAGAIN);
	expect_error(quarry_ring_try_get(slab, 1, 8u << 16 | 1, &b), EINVAL);
	expect_error(quarry_ring_try_get(slab, 1, 7u << 16 | 1, &b), EINVAL);
	expect_error(quarry_ring_try_get(slab, 1, 1, NULL), EINVAL);
	expect_error(quarry_ring_try_get(NULL, 1, 1, &b), EINVAL);
	cr_expect_eq(quarry_ring_try_get(slab, -EIO, 2u << 16 | 1, &b), 0);
	cr_expect_eq(b.len, 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

Test(buffers_ring, what_is_refused_leaves_all_as_it_was)
{
	quarry_buffers *slab = start(8, SIZE, 0), *many;
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 65537 };

	expect_error(quarry_ring_register(slab, RING_FD, 0, 3, 0), EINVAL);
	expect_error(quarry_ring_register(slab, RING_FD, 0, 65536, 0), EINVAL);
	expect_error(quarry_ring_register(slab, RING_FD, 65536, 8, 0), EINVAL);
	expect_error(quarry_ring_register(slab, RING_FD, 0, 8, 4), EINVAL);
	expect_error(quarry_ring_register(slab, 3, 0, 8, 0), EBADF);
	kernel.refuse = EPERM;
	expect_error(quarry_ring_register(slab, RING_FD, 0, 8, 0), EPERM);
	fake_os_fail(FAKE_URING_REGISTER, ENOSYS);
	expect_error(quarry_ring_register(slab, RING_FD, 0, 8, 0), ENOSYS);
	expect_error(quarry_fixed_register(slab, RING_FD, 4, 0, 0), ENOSYS);
	fake_os_heal();
	cr_expect_eq(figures(slab).free, 8);
	cr_expect_eq(quarry_ring_register(slab, RING_FD, 0, 8, 0), 0);
	expect_error(quarry_ring_register(slab, RING_FD, 1, 8, 0), EBUSY);
	kernel.refuse = EIO;
	expect_error(quarry_ring_unregister(slab), EIO);
	cr_expect_eq(figures(slab).in_ring, 8);
	kernel.refuse = EBADF;
	cr_expect_eq(quarry_ring_unregister(slab), 0, "the io_uring has ended");
	expect_error(quarry_fixed_register(slab, RING_FD, 0, 65536, 0), EINVAL);
	many = quarry_buffers_create(&attr);
	expect_error(quarry_ring_register(many, RING_FD, 0, 8, 0), EINVAL);
	cr_expect_eq(quarry_buffers_destroy(many), 0);
	stop(slab);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Bit by bit                                                                                             */

static void in_pieces(uint32_t flags)
{
	quarry_buffers *slab = start(8, SIZE, flags);
	static quarry_buffer held[2000];
	static unsigned key[2000];
	uint32_t n = 0;
	quarry_buffer b;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 8, QUARRY_RING_INCREMENTAL), 0);
	cr_assert_eq(figures(slab).incremental, 1);
	for (unsigned step = 0; step < 60000; step++) {
		int32_t res;
		uint32_t cqe;

		if (rand() % 2 && n < 2000) {
			uint32_t len = 1 + (uint32_t)rand() % (step & 8192 ? 2000 : 40);

			make_pattern(step);
			if (!kernel_receives(pattern, len, &res, &cqe)) {
				cr_assert(quarry_ring_try_get(slab, res, cqe, &b) == -1 && errno == ENOBUFS);
				for (int k = 0; k < 8 && n > 0; k++)
					cr_assert_eq(quarry_buffer_release(held[--n]), 0);
				continue;
			}
			cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &held[n]), 0, "errno %d", errno);
			cr_assert_eq(held[n].len, (uint32_t)res);
			key[n++] = step;
		} else if (n > 0) {
			uint32_t i = (uint32_t)rand() % n;

			b = held[i];
			make_pattern(key[i]);
			cr_assert_eq(memcmp(b.p, pattern, b.len), 0, "step %u", step);
			held[i] = held[--n];
			key[i] = key[n];
			cr_assert_not_null(quarry_buffer_check(b));
			if (rand() % 64)
				cr_assert_eq(quarry_buffer_release(b), 0);
			else
				cr_assert_eq(release_elsewhere(b), 0);
			if (b.flags & QUARRY_BUFFER_PIECE) {
				cr_assert_null(quarry_buffer_check(b));
				cr_assert(quarry_buffer_release(b) == -1 && errno == EALREADY);
			}
		}
	}
	if (flags & QUARRY_BUFFERS_CHECKED)
		cr_expect_gt(figures(slab).copied, 0);
	while (n > 0)
		cr_assert_eq(quarry_buffer_release(held[--n]), 0);
	quarry_buffers_collect(slab);
	cr_expect_eq(figures(slab).in_ring, 8);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	cr_expect_eq(figures(slab).free, 8);
	stop(slab);
}

Test(buffers_ring, filled_bit_by_bit, .timeout = 60)
{
	srand(11);
	printf("seed 11\n");
	in_pieces(0);
	in_pieces(QUARRY_BUFFERS_CHECKED);
}

/* A release that looked at the generation in one life, and comes to the bit in the next. */
Test(buffers_ring, a_late_piece_is_not_the_next_lifes)
{
	quarry_buffers *slab = start(1, SIZE, QUARRY_BUFFERS_CHECKED);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffer old, new;
	uint32_t generation;
	int32_t res;
	uint32_t cqe;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 1, QUARRY_RING_INCREMENTAL), 0);
	cr_assert(kernel_receives(pattern, SIZE, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &old), 0);
	cr_assert_eq(quarry_buffer_release(old), 0);
	cr_assert(kernel_receives(pattern, SIZE, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &new), 0);
	cr_assert_eq(new.flags, old.flags);
	cr_assert_neq(new.generation, old.generation);
	generation = atomic_exchange(&s->generation[0], old.generation - s->seed);
	cr_expect_eq(qy_ring_piece_back(s, 0, old.generation - s->seed, qy_buffer_piece(old.flags)), -EALREADY);
	atomic_store(&s->generation[0], generation);
	cr_expect_eq(quarry_buffer_release(new), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Bundles                                                                                                */

/* Completions of several buffers, told of late and not in their order, while buffers go round and places of the ring are
 * used again. */
static void in_bundles(uint32_t count, uint32_t entries, unsigned ring_flags)
{
	enum { HELD = 400, LATE = 3, MOST = 6 };
	quarry_buffers *slab = start(count, SIZE, 0);
	static unsigned char out[MOST * 4 * KIB];
	static quarry_buffer held[HELD];
	static unsigned key[HELD], at[HELD];
	struct { int32_t res; uint32_t flags; unsigned key; } late[LATE];
	uint32_t n = 0, waiting = 0, several = 0, in_ring = count < entries ? count : entries;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 2, entries, ring_flags | QUARRY_RING_BUNDLES), 0);
	for (unsigned step = 0; step < 60000; step++) {
		if (rand() % 2 && waiting < LATE) {
			uint32_t len = 1 + (uint32_t)rand() % (rand() % 4 ? 600 : sizeof out);

			for (uint32_t i = 0; i < len; i++)
				out[i] = (unsigned char)(i * 17 + (i >> 8) + step * 29);
			late[waiting].key = step;
			if (kernel_receives_bundle(out, len, 1 + (uint32_t)rand() % MOST, &late[waiting].res,
						   &late[waiting].flags))
				waiting++;
			else
				quarry_buffers_collect(slab);
		}
		if (waiting > 0 && n + 8 * MOST < HELD && rand() % 2) {
			/* (Of one that is filled bit by bit what comes later was filled later.) */
			uint32_t which = ring_flags ? 0 : (uint32_t)rand() % waiting;
			int32_t res = late[which].res;
			uint32_t flags = late[which].flags, place = 0, parts = 0;

			do {
				int32_t before = res;

				cr_assert_eq(quarry_ring_next(slab, &res, &flags, &held[n]), 0, "errno %d", errno);
				cr_assert_eq((int32_t)held[n].len, before - res);
				for (uint32_t i = 0; i < n; i++)
					cr_assert(held[i].id != held[n].id || (held[n].flags & QUARRY_BUFFER_PIECE));
				key[n] = late[which].key;
				at[n] = place;
				place += held[n++].len;
				parts++;
				if (rand() % 4 == 0) /* while the rest is to come */
					cr_assert_eq(quarry_buffer_release(held[--n]), 0);
			} while (res > 0);
			cr_assert_eq(place, (uint32_t)late[which].res);
			several += parts > 1;
			waiting--;
			memmove(&late[which], &late[which + 1], (waiting - which) * sizeof *late);
		} else if (n > 0) {
			uint32_t i = (uint32_t)rand() % n;

			for (uint32_t k = 0; k < held[i].len; k++) {
				uint32_t from = at[i] + k;

				cr_assert_eq(((unsigned char *)held[i].p)[k],
					     (unsigned char)(from * 17 + (from >> 8) + key[i] * 29), "step %u", step);
			}
			if (rand() % 16)
				cr_assert_eq(quarry_buffer_release(held[i]), 0);
			else
				cr_assert_eq(release_elsewhere(held[i]), 0);
			n--;
			held[i] = held[n];
			key[i] = key[n];
			at[i] = at[n];
		}
	}
	cr_expect_gt(several, 1000);
	for (uint32_t i = 0; i < waiting; i++)
		while (late[i].res > 0) {
			quarry_buffer b;

			cr_assert_eq(quarry_ring_next(slab, &late[i].res, &late[i].flags, &b), 0);
			cr_assert_eq(quarry_buffer_release(b), 0);
		}
	while (n > 0)
		cr_assert_eq(quarry_buffer_release(held[--n]), 0);
	quarry_buffers_collect(slab);
	cr_expect_eq(figures(slab).in_ring, in_ring);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	cr_expect_eq(figures(slab).free, count);
	stop(slab);
}

Test(buffers_ring, in_bundles, .timeout = 60)
{
	srand(13);
	printf("seed 13\n");
	in_bundles(16, 16, 0);
	in_bundles(40, 64, 0);
	in_bundles(16, 16, QUARRY_RING_INCREMENTAL);
}

Test(buffers_ring, bundles_that_are_none)
{
	quarry_buffers *slab = start(8, SIZE, 0);
	int32_t res = 5;
	uint32_t flags = 0;
	quarry_buffer b;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 4, QUARRY_RING_BUNDLES), 0);
	expect_error(quarry_ring_try_get(slab, SIZE + 1, 1, &b), EINVAL);
	expect_error(quarry_ring_next(NULL, &res, &flags, &b), EINVAL);
	expect_error(quarry_ring_next(slab, NULL, &flags, &b), EINVAL);
	expect_error(quarry_ring_next(slab, &res, NULL, &b), EINVAL);
	expect_error(quarry_ring_next(slab, &res, &flags, NULL), EINVAL);
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EAGAIN);
	res = -ENOBUFS;
	expect_error(quarry_ring_next(slab, &res, &flags, &b), ENOBUFS);
	flags = 7u << 16 | 1; /* not the kernel's */
	res = 1;
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	flags = 900u << 16 | 1;
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	/* The last that it was given fills no other, and five of four are none: nothing changes at the one that is. */
	flags = 3u << 16 | 1;
	res = SIZE + 1;
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	cr_expect(flags == (3u << 16 | 1) && res == (int32_t)SIZE + 1);
	cr_expect_eq(figures(slab).in_ring, 4);
	/* Nor does one whose next was told of before. */
	cr_expect_eq(quarry_ring_try_get(slab, 1, 1u << 16 | 1, &b), 0);
	flags = 0u << 16 | 1;
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	cr_expect_eq(figures(slab).in_ring, 3);
	cr_expect_eq(quarry_buffer_release(b), 0);
	/* No bytes, and an error with a buffer. */
	flags = 0u << 16 | 1;
	res = -EIO;
	cr_expect_eq(quarry_ring_next(slab, &res, &flags, &b), 0);
	cr_expect(b.len == 0 && res == 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	stop(slab);
}

/* What MSG_TRUNC tells of a datagram is longer than the buffer, the one that the kernel has used: another would be its
 * own yet, and one that is not taken would be lost. */
Test(buffers_ring, longer_than_its_buffer)
{
	for (unsigned inc = 0; inc <= QUARRY_RING_INCREMENTAL; inc++) {
		quarry_buffers *slab = start(4, SIZE, 0);

		cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 4, inc), 0);
		for (int i = 0; i < 40; i++) {
			quarry_buffer b;
			int32_t res;
			uint32_t cqe;

			cr_assert(kernel_receives(pattern, SIZE, &res, &cqe));
			res += 3 * (int32_t)SIZE;
			cqe |= inc ? 16u : 0; /* as it says when it counts the rest for the next buffer */
			if (i % 2)
				cr_assert_eq(quarry_ring_next(slab, &res, &cqe, &b), 0, "errno %d", errno);
			else
				cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b), 0, "errno %d", errno);
			cr_expect(i % 2 == 0 || res == 0);
			cr_expect_eq(b.len, SIZE);
			cr_expect_eq(figures(slab).in_ring, 3);
			cr_expect_eq(quarry_ring_left(slab), 3);
			cr_expect_eq(quarry_buffer_release(b), 0);
		}
		cr_expect_eq(quarry_ring_unregister(slab), 0);
		stop(slab);
	}
}

/* Of an end of file there is a completion of no bytes. Some kernels do not say that they go on with its buffer. */
Test(buffers_ring, a_piece_of_nothing_is_not_the_last)
{
	quarry_buffers *slab = start(2, SIZE, 0);
	quarry_buffer a, b, c;
	int32_t res;
	uint32_t cqe;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, 2, QUARRY_RING_INCREMENTAL), 0);
	cr_assert_eq(quarry_ring_try_get(slab, 0, 0u << 16 | 1, &c), 0);
	cr_expect_eq(quarry_buffer_release(c), 0);
	cr_assert(kernel_receives((const unsigned char *)"one", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &a), 0);
	cr_assert_eq(quarry_ring_try_get(slab, 0, cqe & ~16u, &b), 0);
	cr_expect_eq(b.len, 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_eq(quarry_buffer_release(a), 0);
	cr_expect_eq(figures(slab).in_ring, 2);
	cr_expect_eq(quarry_ring_left(slab), 2, "it stands there once");
	cr_assert(kernel_receives((const unsigned char *)"two", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &c), 0);
	cr_expect_eq(memcmp(c.p, "two", 3), 0);
	cr_expect_eq(quarry_buffer_release(c), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* Whoever never owned a slab takes one that has ended for its own. */
Test(buffers_ring, completions_of_a_slab_that_has_ended)
{
	quarry_buffers *slab = start(2, SIZE, 0);
	int32_t res = -ENOBUFS;
	uint32_t flags = 0;
	quarry_buffer b;

	stop(slab);
	qy_buffers_thread = 0;
	expect_error(quarry_ring_try_get(slab, res, flags, &b), EINVAL);
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	qy_buffers_thread = 7;
	expect_error(quarry_ring_try_get(slab, res, flags, &b), EINVAL);
	expect_error(quarry_ring_next(slab, &res, &flags, &b), EINVAL);
	qy_buffers_thread = 0;
	cr_expect_eq(qy_read(&((struct qy_buffers *)slab)->starved), 0);
}

static unsigned times_low;

static void on_low(void *ctx, uint32_t left)
{
	(void)ctx;
	cr_expect_eq(left, 1);
	times_low++;
}

/* A piece takes no buffer from the ring but the last. */
Test(buffers_ring, few_are_left_in_the_ring)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = 2, .low_water = 1, .low = on_low };
	quarry_buffers *slab;
	quarry_buffer b[8];
	int32_t res;
	uint32_t cqe;

	stop(start(1, SIZE, 0));
	fake_os_install();
	fake_os_uring(play);
	slab = quarry_buffers_create(&attr);
	times_low = 0;
	expect_error(quarry_ring_register(slab, RING_FD, 1, 1, 0), EINVAL);
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 2, QUARRY_RING_INCREMENTAL), 0);
	for (int i = 0; i < 8; i++) {
		cr_assert(kernel_receives(pattern, SIZE / 4, &res, &cqe));
		cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b[i]), 0);
		cr_expect_eq(times_low, i >= 3, "at %d", i);
	}
	for (int i = 0; i < 8; i++)
		cr_expect_eq(quarry_buffer_release(b[i]), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* It is the program's like the others, which cannot know when one comes. */
Test(buffers_ring, a_copied_piece_of_a_checked_slab_is_released_once)
{
	quarry_buffers *slab = start(2, 4 * KIB, QUARRY_BUFFERS_CHECKED);
	const uint64_t streamed = atomic_load(&qy_copy_streamed);
	quarry_buffer b[32];
	unsigned owned = 0;
	int32_t res;
	uint32_t cqe;

	atomic_store(&qy_copy_stream_min, 1);
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 2, QUARRY_RING_INCREMENTAL), 0);
	for (int i = 0; i < 32; i++) {
		cr_assert(kernel_receives((const unsigned char *)"ten bytes", 10, &res, &cqe));
		cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b[i]), 0);
		owned += b[i].flags & QUARRY_BUFFER_OWNED;
	}
	cr_assert(owned == 1 && (b[31].flags & QUARRY_BUFFER_OWNED), "%u", owned);
	cr_expect_eq(atomic_load(&qy_copy_streamed) - streamed, 1, "like all copies of buffers");
	cr_expect_eq(memcmp(b[31].p, "ten bytes", 10), 0);
	for (int i = 0; i < 32; i++) {
		cr_expect_eq(quarry_buffer_check(b[i]), b[i].p);
		cr_expect_eq(quarry_buffer_release(b[i]), 0);
		expect_error(quarry_buffer_release(b[i]), EALREADY);
		errno = 0;
		cr_expect(quarry_buffer_check(b[i]) == NULL && errno == ESTALE);
	}
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	end(slab);
}

/* Of two pieces of one buffer a chain has one, and releases it; the other is the program's. */
Test(buffers_ring, a_chain_has_a_piece_of_a_checked_slab)
{
	quarry_buffers *slab = start(1, SIZE, QUARRY_BUFFERS_CHECKED);
	quarry_buffer b[2], handle;
	quarry_chain chain = { 0 };
	uint32_t cqe;
	int32_t res;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 1, QUARRY_RING_INCREMENTAL), 0);
	for (int i = 0; i < 2; i++) {
		cr_assert(kernel_receives(pattern, SIZE / 2, &res, &cqe));
		cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b[i]), 0);
		cr_assert(b[i].flags & QUARRY_BUFFER_PIECE);
	}
	cr_assert_eq(quarry_chain_append_buffer(&chain, b[0]), 0);
	handle = b[0];
	expect_error(quarry_buffer_release(b[0]), EBUSY);
	expect_error(quarry_buffer_adopt(&handle, NULL, 0), EBUSY);
	cr_expect_eq(quarry_buffer_release(b[1]), 0);
	expect_error(quarry_buffer_release(b[1]), EALREADY);
	cr_expect_eq(quarry_buffer_check(b[0]), b[0].p);
	quarry_chain_free(&chain);
	expect_error(quarry_buffer_release(b[0]), EALREADY);
	cr_assert_eq(quarry_ring_unregister(slab), 0);
	end(slab);
}

Test(buffers_ring, a_ring_that_ends_with_pieces_out)
{
	quarry_buffers *slab = start(4, SIZE, 0);
	quarry_buffer a, b, all[4];
	int32_t res;
	uint32_t cqe;

	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 4, QUARRY_RING_INCREMENTAL), 0);
	cr_assert(kernel_receives((const unsigned char *)"one", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &a), 0);
	cr_assert(kernel_receives((const unsigned char *)"two", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b), 0);
	cr_expect_eq(b.p, (char *)a.p + 3);
	cr_expect_eq(a.id, b.id);
	/* Adopted is a copy: the rest of the buffer is others'. */
	cr_expect_eq(quarry_buffer_adopt(&b, NULL, 0), 0);
	cr_expect_eq(b.flags, QUARRY_BUFFER_OWNED | QUARRY_BUFFER_COPIED);
	cr_expect_eq(memcmp(b.p, "two", 3), 0);
	quarry_free(b.p);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	cr_expect_eq(figures(slab).free, 3);
	cr_expect_eq(quarry_buffer_release(a), 0);
	cr_expect_eq(figures(slab).free, 4);
	/* And one of which nothing is out, but was. */
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 4, QUARRY_RING_INCREMENTAL), 0);
	cr_assert(kernel_receives((const unsigned char *)"one", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &a), 0);
	cr_expect_eq(quarry_buffer_release(a), 0);
	cr_expect_eq(figures(slab).in_ring, 4);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	cr_expect_eq(figures(slab).free, 4);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(quarry_buffers_get(slab, &all[i]), 0);
	for (int i = 0; i < 4; i++)
		cr_expect_eq(quarry_buffer_release(all[i]), 0);
	/* A kernel that cannot: whole ones. */
	kernel.without_inc = true;
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 4, QUARRY_RING_INCREMENTAL), 0);
	cr_expect_eq(figures(slab).incremental, 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* Out since the first piece; not while the program has none, though the kernel has the rest. Pinned, the last piece
 * stays. */
Test(buffers_ring, pieces_that_are_held_and_pinned)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = 2, .held_ms = 50, .pins_max = 1 };
	quarry_buffers_held held = { .struct_size = sizeof held };
	quarry_buffers *slab;
	quarry_buffer a, b, whole;
	int32_t res;
	uint32_t cqe;

	stop(start(1, SIZE, 0));
	fake_os_install();
	fake_os_uring(play);
	fake_os_clock(1000);
	slab = make_of(&attr);
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 2, QUARRY_RING_INCREMENTAL), 0);
	cr_assert(kernel_receives((const unsigned char *)"one", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &a), 0);
	fake_os_advance(60);
	cr_assert(kernel_receives((const unsigned char *)"two", 3, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &b), 0);
	cr_expect_eq(quarry_buffers_held_get(slab, 0, &held), 0);
	cr_expect(held.out == 1 && held.held == 1 && held.oldest == a.id && held.oldest_ms == 60);
	cr_expect_eq(quarry_buffer_pin(b, 1), (char *)b.p + 1);
	cr_expect_eq(quarry_buffer_release(a), 0);
	expect_error(quarry_buffer_release(b), EBUSY);
	cr_expect_eq(quarry_buffer_unpin(b), 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	cr_expect_eq(quarry_buffers_held_get(slab, 0, &held), 0);
	cr_expect(held.out == 0 && held.held == 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	/* And whole ones. */
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 2, 0), 0);
	cr_assert(kernel_receives(pattern, SIZE, &res, &cqe));
	cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &whole), 0);
	fake_os_advance(20);
	cr_expect_eq(quarry_buffers_held_get(slab, 10, &held), 0);
	cr_expect(held.out == 1 && held.held == 1 && held.oldest_ms == 20);
	cr_expect_eq(quarry_buffer_kind(whole), QUARRY_BUFFER_RING);
	cr_expect_not_null(quarry_buffer_pin(whole, 0));
	expect_error(quarry_buffer_release(whole), EBUSY);
	cr_expect_eq(quarry_buffer_unpin(whole), 0);
	cr_expect_eq(quarry_buffer_release(whole), 0);
	cr_expect_eq(figures(slab).in_ring, 2);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* Pins, and releases by two threads at once, of a buffer in two pieces: of the last piece's release and a pin one
 * succeeds, whether the kernel has more of the buffer or not. */
static struct {
	quarry_buffer b[2];
	pthread_barrier_t barrier;
	int released[2], pinned;
} pieces;

static void *pins_a_piece(void *arg)
{
	for (int round = 0; round < 20000; round++) {
		pthread_barrier_wait(&pieces.barrier);
		pieces.pinned = quarry_buffer_pin(pieces.b[0], 0) != NULL ? 0 : errno;
		pthread_barrier_wait(&pieces.barrier);
		pthread_barrier_wait(&pieces.barrier);
	}
	return arg;
}

static void settle_round(quarry_buffers *slab, int round)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;
	bool pinned = pieces.pinned == 0;

	cr_assert(pinned || pieces.pinned == ESTALE, "round %d: %d", round, pieces.pinned);
	for (int i = 0; i < 2; i++)
		cr_assert(pieces.released[i] == 0 || pieces.released[i] == EBUSY, "%d", pieces.released[i]);
	/* Pinned, one at least is out; not pinned, none. */
	cr_assert_eq(pinned, pieces.released[0] != 0 || pieces.released[1] != 0, "round %d: pinned %d, released %d %d",
		     round, pieces.pinned, pieces.released[0], pieces.released[1]);
	cr_assert_eq(atomic_load(&s->pinned), pinned);
	if (pinned)
		cr_assert_eq(quarry_buffer_unpin(pieces.b[0]), 0);
	for (int i = 0; i < 2; i++)
		if (pieces.released[i] != 0)
			cr_assert_eq(quarry_buffer_release(pieces.b[i]), 0);
	quarry_buffers_collect(slab);
	cr_assert_eq(figures(slab).in_ring, 2);
}

static void *releases_a_piece(void *arg)
{
	for (int round = 0; round < 20000; round++) {
		pthread_barrier_wait(&pieces.barrier);
		pieces.released[1] = quarry_buffer_release(pieces.b[1]) == 0 ? 0 : errno;
		pthread_barrier_wait(&pieces.barrier);
		pthread_barrier_wait(&pieces.barrier);
	}
	return arg;
}

Test(buffers_ring, pieces_pinned_and_released_at_once, .timeout = 60)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = 2, .pins_max = 2 };
	pthread_t threads[2];
	quarry_buffers *slab;
	int32_t res;
	uint32_t cqe;

	stop(start(1, SIZE, 0));
	fake_os_install();
	fake_os_uring(play);
	slab = make_of(&attr);
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 1, 2, QUARRY_RING_INCREMENTAL), 0);
	cr_assert_eq(pthread_barrier_init(&pieces.barrier, NULL, 3), 0);
	cr_assert_eq(pthread_create(&threads[0], NULL, pins_a_piece, NULL), 0);
	cr_assert_eq(pthread_create(&threads[1], NULL, releases_a_piece, NULL), 0);
	for (int round = 0; round < 20000; round++) {
		for (int i = 0; i < 2; i++) {
			uint32_t len = round % 2 == 0 ? SIZE / 2 : SIZE / 4;

			cr_assert(kernel_receives(pattern, len, &res, &cqe));
			cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &pieces.b[i]), 0);
			cr_assert(i == 0 || pieces.b[0].id == pieces.b[1].id, "round %d", round);
		}
		pthread_barrier_wait(&pieces.barrier);
		pieces.released[0] = quarry_buffer_release(pieces.b[0]) == 0 ? 0 : errno;
		pthread_barrier_wait(&pieces.barrier);
		settle_round(slab, round);
		if (round % 2) { /* the rest of it, so that the next round begins with another */
			quarry_buffer rest;

			cr_assert(kernel_receives(pattern, SIZE / 2, &res, &cqe));
			cr_assert_eq(quarry_ring_try_get(slab, res, cqe, &rest), 0);
			cr_assert_eq(quarry_buffer_release(rest), 0);
		}
		pthread_barrier_wait(&pieces.barrier);
	}
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	stop(slab);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Fixed                                                                                                  */

Test(buffers_ring, chunks_of_a_table)
{
	quarry_buffers *slab = start(2500, 1 << 20, 0);
	size_t per = GIB >> 20;
	quarry_buffer b;

	expect_error(quarry_fixed_index(slab, 0), ENOENT);
	expect_error(quarry_fixed_register(slab, RING_FD, 4, 2, 0), EINVAL);
	cr_assert_eq(quarry_fixed_register(slab, RING_FD, 8, 2, 1000), 3);
	expect_error(quarry_fixed_register(slab, RING_FD, 0, 2, 0), EBUSY);
	for (uint32_t id = 0; id < 2500; id += 7) {
		int at = quarry_fixed_index(slab, id);
		char *p = quarry_buffers_at(slab, id), *begin = kernel.table[at].iov_base;

		cr_assert_eq(at, 2 + (int)(id / per));
		cr_assert(p >= begin && p + slab->size <= begin + kernel.table[at].iov_len);
	}
	expect_error(quarry_fixed_index(slab, 2500), EINVAL);
	/* The device knows the page by its place. */
	cr_assert_eq(quarry_buffers_get(slab, &b), 0);
	memset(b.p, 5, b.len);
	cr_expect_eq(quarry_buffer_adopt(&b, NULL, 0), 0);
	cr_expect(b.flags & QUARRY_BUFFER_COPIED);
	quarry_free(b.p);
	expect_error(quarry_buffers_destroy(slab), EBUSY);
	cr_expect_eq(quarry_fixed_unregister(slab), 0);
	expect_error(quarry_fixed_unregister(slab), ENOENT);
	cr_expect_eq(kernel.gone, 3);
	expect_error(quarry_buffers_destroy(slab), EBUSY);
	expect_error(quarry_fixed_let_go(slab, 999), EINVAL);
	expect_error(quarry_fixed_let_go(slab, 1003), EINVAL);
	for (unsigned i = 0; i < 3; i++)
		cr_expect_eq(quarry_fixed_let_go(slab, kernel.let_go[i]), 2 - (int)i);
	expect_error(quarry_fixed_let_go(slab, 1000), EINVAL);
	/* Half of it is refused: none of it is registered. */
	kernel.takes = 1;
	expect_error(quarry_fixed_register(slab, RING_FD, 0, 0, 0), ENOMEM);
	kernel.takes = -1;
	cr_expect_eq(figures(slab).fixed, 0);
	cr_expect_null(kernel.table[0].iov_base);
	cr_assert_eq(quarry_fixed_register(slab, RING_FD, 0, 0, 0), 3);
	cr_expect_eq(quarry_fixed_unregister(slab), 0);
	stop(slab);
}

static unsigned in_table(void)
{
	unsigned n = 0;

	for (int i = 0; i < 32; i++)
		n += kernel.table[i].iov_base != NULL;
	return n;
}

static void let_all_go(quarry_buffers *slab, unsigned tags)
{
	cr_expect_eq(kernel.gone, tags);
	for (unsigned i = 0; i < kernel.gone; i++)
		cr_expect_eq(quarry_fixed_let_go(slab, kernel.let_go[i]), (int)(tags - 1 - i));
	kernel.gone = 0;
}

/* Half of it is registered, and of that half is taken back: the slab is not free as long as the kernel has some. */
Test(buffers_ring, taken_back_in_part)
{
	for (int tags = 0; tags < 2; tags++) {
		quarry_buffers *slab = start(4096, 1 << 20, 0);
		quarry_buffer b;

		kernel.takes = 3;
		kernel.empties = 1;
		expect_error(quarry_fixed_register(slab, RING_FD, 8, 2, tags ? 1000 : 0), ENOMEM);
		cr_assert_eq(in_table(), 2);
		cr_expect_eq(figures(slab).fixed, 1);
		expect_error(quarry_buffers_destroy(slab), EBUSY);
		expect_error(quarry_fixed_register(slab, RING_FD, 0, 2, 0), EBUSY);
		expect_error(quarry_fixed_index(slab, 0), ENOENT);
		/* A page that the kernel has stays where it is. */
		cr_assert_eq(quarry_buffers_get(slab, &b), 0);
		memset(b.p, 5, b.len);
		cr_expect_eq(quarry_buffer_adopt(&b, NULL, 0), 0);
		cr_expect(b.flags & QUARRY_BUFFER_COPIED);
		quarry_free(b.p);
		kernel.empties = 2;
		expect_error(quarry_fixed_unregister(slab), EAGAIN);
		cr_assert_eq(in_table(), 1);
		expect_error(quarry_buffers_destroy(slab), EBUSY);
		kernel.empties = -1;
		cr_expect_eq(quarry_fixed_unregister(slab), 0);
		expect_error(quarry_fixed_unregister(slab), ENOENT);
		cr_assert_eq(in_table(), 0);
		cr_expect_eq(figures(slab).fixed, 0);
		if (tags)
			expect_error(quarry_buffers_destroy(slab), EBUSY);
		let_all_go(slab, tags ? 3 : 0);
		/* And all of it, of which some stays at the end. */
		kernel.takes = -1;
		cr_assert_eq(quarry_fixed_register(slab, RING_FD, 0, 0, tags ? 1000 : 0), 4);
		kernel.empties = 3;
		expect_error(quarry_fixed_unregister(slab), EAGAIN);
		expect_error(quarry_fixed_index(slab, 0), ENOENT);
		expect_error(quarry_buffers_destroy(slab), EBUSY);
		kernel.empties = -1;
		cr_expect_eq(quarry_fixed_unregister(slab), 0);
		let_all_go(slab, tags ? 4 : 0);
		stop(slab);
	}
}

/* Pages are not moved away from what is being registered, nor is it registered while some are on their way. */
static struct {
	quarry_buffers *slab;
	quarry_buffer adopted;
	_Atomic(bool) left;
} while_registered;

static void adopt_meanwhile(void)
{
	kernel.meanwhile = NULL;
	cr_expect_eq(quarry_buffer_adopt(&while_registered.adopted, NULL, 0), 0);
	cr_expect_eq(while_registered.adopted.flags, QUARRY_BUFFER_OWNED | QUARRY_BUFFER_COPIED);
}

static void all_are_there(void)
{
	cr_expect(atomic_load(&while_registered.left), "it does not wait for pages on their way");
}

static void *registers(void *arg)
{
	cr_expect_eq(quarry_buffers_own(while_registered.slab), 0);
	cr_expect_eq(quarry_fixed_register(while_registered.slab, RING_FD, 0, 0, 0), 1);
	cr_expect_eq(quarry_fixed_unregister(while_registered.slab), 0);
	return arg;
}

Test(buffers_ring, moved_or_registered, .timeout = 30)
{
	quarry_buffers *slab = start(8, 1 << 20, 0);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	pthread_t thread;

	while_registered.slab = slab;
	cr_assert_eq(quarry_buffers_get(slab, &while_registered.adopted), 0);
	memset(while_registered.adopted.p, 1, while_registered.adopted.len);
	kernel.meanwhile = adopt_meanwhile;
	cr_assert_eq(quarry_fixed_register(slab, RING_FD, 8, 0, 0), 1);
	cr_expect_null((void *)(uintptr_t)kernel.meanwhile);
	quarry_free(while_registered.adopted.p);
	cr_expect_eq(quarry_fixed_unregister(slab), 0);
	cr_expect_eq(atomic_load(&s->moving), 0);
	kernel.meanwhile = all_are_there;
	atomic_store(&s->moving, 1);
	cr_assert_eq(pthread_create(&thread, NULL, registers, NULL), 0);
	while (__atomic_load_n(&s->fixed.held, __ATOMIC_SEQ_CST) == 0)
		sched_yield();
	for (int i = 0; i < 1000; i++)
		sched_yield();
	atomic_store(&while_registered.left, true);
	atomic_store(&s->moving, 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(quarry_buffers_own(slab), 0);
	stop(slab);
}

Test(buffers_ring, shared_with_another)
{
	quarry_buffers *slab = start(2500, 1 << 20, 0);
	int status = -1;
	pid_t pid;

	expect_error(quarry_fixed_clone(slab, OTHER_FD, 0), ENOENT);
	cr_assert_eq(quarry_fixed_register(slab, RING_FD, 8, 2, 0), 3);
	expect_error(quarry_fixed_clone(slab, RING_FD, 0), EEXIST);
	expect_error(quarry_fixed_clone(slab, OTHER_FD, 2), EINVAL);
	expect_error(quarry_fixed_unclone(slab, OTHER_FD), ENOENT);
	/* What older kernels say. */
	kernel.without_clones = true;
	expect_error(quarry_fixed_clone(slab, OTHER_FD, 0), EINVAL);
	kernel.without_clones = false;
	fake_os_fail(FAKE_URING_REGISTER, ENOSYS);
	expect_error(quarry_fixed_clone(slab, OTHER_FD, 0), ENOSYS);
	fake_os_heal();
	kernel.other_size = 2;
	expect_error(quarry_fixed_clone(slab, OTHER_FD, 0), EBUSY);
	kernel.other[0] = (struct iovec){ slab, 1 };
	cr_assert_eq(quarry_fixed_clone(slab, OTHER_FD, QUARRY_FIXED_REPLACE), 0);
	expect_error(quarry_fixed_clone(slab, OTHER_FD, QUARRY_FIXED_REPLACE), EEXIST);
	for (uint32_t id = 0; id < 2500; id += 499) {
		const struct iovec *e = &kernel.other[quarry_fixed_index(slab, id)];
		char *p = quarry_buffers_at(slab, id);

		cr_assert(p >= (char *)e->iov_base && p + slab->size <= (char *)e->iov_base + e->iov_len);
	}
	/* As long as it is shared it does not end: the other has its pages. */
	expect_error(quarry_fixed_unregister(slab), EBUSY);
	expect_error(quarry_buffers_destroy(slab), EBUSY);
	cr_expect_eq(quarry_fixed_index(slab, 0), 2);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		bool ok = quarry_fixed_clone(slab, OTHER_FD, 0) == -1 && quarry_fixed_unregister(slab) == 0 &&
			  kernel.other[2].iov_base != NULL;

		/* With an io_uring of its own, which nobody else shares. */
		ok = ok && quarry_fixed_register(slab, RING_FD, 0, 2, 0) == 3 && quarry_fixed_unregister(slab) == 0 &&
		     quarry_buffers_destroy(slab) == 0;
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	kernel.empties = 1;
	expect_error(quarry_fixed_unclone(slab, OTHER_FD), EAGAIN);
	expect_error(quarry_fixed_unregister(slab), EBUSY);
	kernel.empties = -1;
	cr_expect_eq(quarry_fixed_unclone(slab, OTHER_FD), 0);
	cr_expect_null(kernel.other[2].iov_base);
	cr_expect_null(kernel.other[4].iov_base);
	cr_expect_not_null(kernel.other[0].iov_base, "what is not the slab's stays");
	cr_expect_eq(in_table(), 3);
	expect_error(quarry_fixed_unclone(slab, OTHER_FD), ENOENT);
	/* One that has ended has let go. */
	cr_assert_eq(quarry_fixed_clone(slab, OTHER_FD, QUARRY_FIXED_REPLACE), 0);
	fake_os_fail(FAKE_URING_REGISTER, EBADF);
	cr_expect_eq(quarry_fixed_unclone(slab, OTHER_FD), 0);
	fake_os_heal();
	cr_expect_eq(quarry_fixed_unregister(slab), 0);
	expect_error(quarry_fixed_clone(slab, OTHER_FD, 0), ENOENT);
	stop(slab);
}

/* ------------------------------------------------------------------------------------------------------ */
/* The real one                                                                                           */

/* What struct io_uring_params is to io_uring_setup(2): 120 bytes, that we need none of. */
static int real_ring(void)
{
	unsigned char params[120] = { 0 };

	return (int)syscall(425, 8, params);
}

Test(buffers_ring, the_kernel_takes_what_it_is_given)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 32 * KIB, .count = 128 };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	int fd = real_ring();

	if (fd < 0) {
		fprintf(stderr, "SKIP: io_uring_setup(2) is refused here (errno %d): the kernel's side is not tested\n", errno);
		cr_skip_test("no io_uring here");
	}
	cr_expect_eq(quarry_ring_register(slab, fd, 3, 64, QUARRY_RING_INCREMENTAL), 0, "errno %d: %s", errno,
		     quarry_error_text());
	expect_error(quarry_ring_register(slab, fd, 3, 64, 0), EBUSY);
	cr_expect_eq(figures(slab).in_ring, 64);
	errno = 0;
	cr_expect(quarry_ring_left(slab) == 64 || errno == EINVAL);
	cr_expect_eq(quarry_ring_unregister(slab), 0);
	/* Pinned memory may be limited. */
	if (quarry_fixed_register(slab, fd, 8, 1, 0) == 1) {
		int second = real_ring();

		cr_expect_eq(quarry_fixed_index(slab, 127), 1);
		cr_assert_geq(second, 0);
		if (quarry_fixed_clone(slab, second, 0) == 0) {
			expect_error(quarry_fixed_unregister(slab), EBUSY);
			cr_expect_eq(quarry_fixed_unclone(slab, second), 0, "errno %d: %s", errno, quarry_error_text());
			cr_expect_eq(quarry_fixed_clone(slab, second, QUARRY_FIXED_REPLACE), 0, "errno %d: %s", errno,
				     quarry_error_text());
			close(second);
			cr_expect_eq(quarry_fixed_unclone(slab, second), 0, "of an io_uring that has ended");
		} else {
			cr_expect_eq(errno, EINVAL, "errno %d: %s", errno, quarry_error_text());
			fprintf(stderr, "SKIP: the kernel does not share fixed buffers (Linux 6.13): that is not tested on it\n");
			close(second);
		}
		cr_expect_eq(quarry_fixed_unregister(slab), 0, "errno %d: %s", errno, quarry_error_text());
	} else {
		cr_expect(errno == ENOMEM || errno == EINVAL || errno == EPERM, "errno %d: %s", errno,
			  quarry_error_text());
	}
	cr_expect_eq(quarry_ring_register(slab, fd, 3, 64, 0), 0);
	close(fd);
	cr_expect_eq(quarry_ring_unregister(slab), 0, "of an io_uring that has ended");
	cr_expect_eq(quarry_buffers_destroy(slab), 0);
}
