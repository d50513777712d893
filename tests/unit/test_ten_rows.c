/* SPDX-License-Identifier: MIT */
/* The ten things that a server does for each message (rows Z34 to Z43 of doc/coverage.md): none of them allocates once
 * it is warm, by the allocator's own count (count_allocs.h). Each is done a hundred times, with what went in and came
 * out compared. The ring is io_uring's provided buffers, with a kernel played by the test. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "include/quarry/block.h"
#include "include/quarry/buffers.h"
#include "include/quarry/chain.h"
#include "include/quarry/wslab.h"
#include "tests/fake_os.h"
#include "tests/unit/count_allocs.h"

#define COUNT 64u
#define SIZE 4096u
#define TIMES 100
#define MESSAGE 10000u /* bytes: three buffers */
#define RING_FD 99
#define COMPLETION_HAS_BUFFER 1u /* IORING_CQE_F_BUFFER; the number stands above 16 bits */

static quarry_buffers *slab;
static int peer[2];
static unsigned char message[MESSAGE], answer[MESSAGE];

/* The kernel's side of a provided-buffer ring (io_uring_register_buf_ring(3)): entries of 16 bytes, in the first of
 * which the tail stands. */
static volatile struct { uint64_t addr; uint32_t len; uint16_t id, tail; } *ring;
static uint16_t head;

static int play(int fd, unsigned opcode, void *arg, unsigned count)
{
	uint64_t *words = arg;

	if (fd != RING_FD || count != 1 || (opcode != 22 && opcode != 23)) {
		errno = EINVAL;
		return -1;
	}
	if (opcode == 22)
		ring = (void *)(uintptr_t)words[0];
	return 0;
}

/* It puts a message's first bytes into its next buffer: the completion's flags. */
static uint32_t kernel_receives(uint32_t n)
{
	unsigned at = head++ & (COUNT - 1);

	cr_assert_neq(__atomic_load_n(&ring[0].tail, __ATOMIC_ACQUIRE), (uint16_t)(head - 1), "it has no buffer");
	memcpy((void *)(uintptr_t)ring[at].addr, message, n);
	return (uint32_t)ring[at].id << 16 | COMPLETION_HAS_BUFFER;
}

static void make(void)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = COUNT, .alignment = 4096 };

	for (size_t i = 0; i < MESSAGE; i++)
		message[i] = (unsigned char)(i * 31 + 7);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, peer), 0);
	slab = quarry_buffers_create(&attr);
	cr_assert_not_null(slab, "%s", quarry_error_text());
	count_allocs_start();
}

static void end(void)
{
	count_allocs_stop();
	cr_assert(quarry_buffers_collect(slab) >= 0);
	cr_assert_eq(quarry_buffers_destroy(slab), 0, "%s", quarry_error_text());
	close(peer[0]);
	close(peer[1]);
}

static void make_ring(void)
{
	fake_os_install();
	fake_os_uring(play);
	head = 0;
	make();
	cr_assert_eq(quarry_ring_register(slab, RING_FD, 0, COUNT, 0), 0, "%s", quarry_error_text());
}

static void end_ring(void)
{
	cr_assert_eq(quarry_ring_unregister(slab), 0, "%s", quarry_error_text());
	end();
	fake_os_remove();
}

/* Once for what stays warm; then a hundred times, for nothing. */
static void costs_nothing(void (*operation)(void))
{
	uint64_t n;

	for (int i = 0; i < 3; i++)
		operation();
	n = count_allocs(for (int i = 0; i < TIMES; i++) operation());
	cr_expect_eq(n, 0, "%d times: %lu allocations", TIMES, (unsigned long)n);
}

static void peer_sends(void)
{
	cr_assert_eq(write(peer[1], message, MESSAGE), MESSAGE);
}

/* All of a message, in so many buffers. */
static unsigned receive(quarry_buffer *buffers)
{
	unsigned used = 0;

	for (size_t got = 0; got < MESSAGE;) {
		ssize_t n = quarry_buffers_receive(slab, peer[0], buffers + used, 8 - used, 0);

		cr_assert_gt(n, 0);
		got += (size_t)n;
		used += ((unsigned)n + SIZE - 1) / SIZE;
	}
	return used;
}

static void release(const quarry_buffer *buffers, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(quarry_buffer_release(buffers[i]), 0);
}

/* ---- Z34: what came is received into the slab's buffers ---- */

static void receives(void)
{
	quarry_buffer got[8];
	unsigned n;

	peer_sends();
	n = receive(got);
	cr_assert_eq(quarry_buffer_copy_out(answer, sizeof answer, got, n), MESSAGE);
	cr_assert_arr_eq(answer, message, MESSAGE);
	release(got, n);
}

Test(ten_rows, z34_receiving, .init = make, .fini = end)
{
	costs_nothing(receives);
}

/* ---- Z35: a flush, in as many sends as it takes ---- */

static quarry_wslab out;

static void make_out(void)
{
	make();
	cr_assert_eq(quarry_wslab_init(&out, NULL), 0, "%s", quarry_error_text());
}

static void end_out(void)
{
	cr_assert_eq(quarry_wslab_fini(&out), 0);
	end();
}

static void flush_out(size_t bytes)
{
	struct iovec iov[4];
	size_t got = 0;

	cr_assert_geq(quarry_wslab_flush_begin(&out), 0);
	while (got < bytes) {
		long n = quarry_wslab_iov(&out, iov, 4);
		ssize_t sent, taken = 0;

		cr_assert_gt(n, 0);
		iov[0].iov_len = iov[0].iov_len > 3000 ? 3000 : iov[0].iov_len; /* the kernel takes a part */
		sent = writev(peer[0], iov, 1);
		cr_assert_gt(sent, 0);
		cr_assert_geq(quarry_wslab_sent(&out, (uint64_t)sent), 0);
		while (taken < sent) {
			ssize_t m = read(peer[1], answer + got, (size_t)sent);

			cr_assert_gt(m, 0);
			taken += m;
			got += (size_t)m;
		}
	}
	cr_assert_arr_eq(answer, message, bytes);
}

static void flushes(void)
{
	cr_assert_eq(quarry_wslab_write(&out, message, MESSAGE), 0);
	flush_out(MESSAGE);
}

Test(ten_rows, z35_flushing, .init = make_out, .fini = end_out)
{
	costs_nothing(flushes);
}

/* ---- Z36: writing bytes ---- */

static void writes(void)
{
	for (size_t at = 0; at < MESSAGE; at += 100)
		cr_assert_eq(quarry_wslab_write(&out, message + at, 100), 0);
	flush_out(MESSAGE);
}

Test(ten_rows, z36_writing, .init = make_out, .fini = end_out)
{
	costs_nothing(writes);
}

/* ---- Z37: writing in place ---- */

static void writes_in_place(void)
{
	for (size_t at = 0; at < MESSAGE; at += 1000) {
		void *room = quarry_wslab_reserve(&out, 1500);

		cr_assert_not_null(room);
		memcpy(room, message + at, 1000);
		cr_assert_eq(quarry_wslab_advance(&out, 1000), 0);
	}
	flush_out(MESSAGE);
}

Test(ten_rows, z37_reserving_and_advancing, .init = make_out, .fini = end_out)
{
	costs_nothing(writes_in_place);
}

/* ---- Z38: a buffer of the ring, by value ---- */

static void takes_of_the_ring(void)
{
	quarry_buffer b;

	cr_assert_eq(quarry_ring_try_get(slab, 1000, kernel_receives(1000), &b), 0);
	cr_assert_eq(b.len, 1000);
	cr_assert_arr_eq(quarry_buffer_data(b), message, 1000);
	cr_assert_eq(quarry_buffer_release(b), 0);
	cr_assert_geq(quarry_buffers_collect(slab), 0);
}

Test(ten_rows, z38_taking_of_the_ring, .init = make_ring, .fini = end_ring)
{
	costs_nothing(takes_of_the_ring);
}

/* ---- Z39: returning to the ring, from any thread ---- */

static quarry_buffer passed[16];
static pthread_barrier_t barrier;

static void *returner(void *arg)
{
	for (int i = 0; i < TIMES + 3; i++) {
		pthread_barrier_wait(&barrier);
		for (int k = 0; k < 16; k++)
			if (quarry_buffer_release(passed[k]) != 0)
				return arg;
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void returns_to_the_ring(void)
{
	for (int k = 0; k < 16; k++)
		cr_assert_eq(quarry_ring_try_get(slab, 100, kernel_receives(100), &passed[k]), 0);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	cr_assert_eq(quarry_buffers_collect(slab), 16);
}

Test(ten_rows, z39_returning_to_the_ring, .init = make_ring, .fini = end_ring)
{
	pthread_t thread;
	void *failed;

	pthread_barrier_init(&barrier, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, returner, passed), 0);
	costs_nothing(returns_to_the_ring);
	cr_assert(pthread_join(thread, &failed) == 0 && failed == NULL);
}

/* ---- Z40: a buffer as address and length ---- */

static void looks_at_spans(void)
{
	quarry_buffer b;
	quarry_seg s, part;
	struct iovec iov;

	cr_assert_eq(quarry_buffers_get(slab, &b), 0);
	s = quarry_buffer_seg(b);
	iov = quarry_buffer_iovec(b);
	cr_assert(s.p == b.p && s.n == SIZE && iov.iov_base == s.p && iov.iov_len == s.n);
	cr_assert_eq(quarry_copy_in(s, 96, message, 1000), 0);
	cr_assert_eq(quarry_seg_slice(s, 96, 1000, &part), 0);
	cr_assert_arr_eq(part.p, message, 1000);
	release(&b, 1);
}

Test(ten_rows, z40_spans, .init = make, .fini = end)
{
	costs_nothing(looks_at_spans);
}

/* ---- Z41: all that is there, as an array ---- */

static void takes_all_there_is(void)
{
	uint32_t completions[COUNT];
	quarry_buffer all[COUNT];

	for (unsigned i = 0; i < COUNT; i++)
		completions[i] = kernel_receives(i + 1);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert_eq(quarry_ring_try_get(slab, (int32_t)i + 1, completions[i], &all[i]), 0);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(all[i].len == i + 1 && memcmp(all[i].p, message, i + 1) == 0);
	release(all, COUNT);
	cr_assert_geq(quarry_buffers_collect(slab), 0);
}

Test(ten_rows, z41_an_array_of_all, .init = make_ring, .fini = end_ring)
{
	costs_nothing(takes_all_there_is);
}

/* ---- Z42: one sequence of several buffers ---- */

static void makes_a_sequence(void)
{
	quarry_chain in = { 0 }, copy = { 0 };
	quarry_buffer got[8];
	quarry_cursor cursor;
	uint32_t number;

	peer_sends();
	cr_assert_eq(quarry_chain_from_buffers(&in, got, receive(got)), 0);
	cr_assert(in.len == MESSAGE && in.segs >= 3);
	cr_assert_eq(quarry_chain_compare_bytes(&in, message, MESSAGE), 0);
	cr_assert_eq(quarry_cursor_init(&cursor, &in), 0);
	cr_assert_eq(quarry_cursor_skip(&cursor, SIZE - 2), 0);
	cr_assert_eq(quarry_cursor_u32le(&cursor, &number), 0);
	cr_assert_arr_eq(&number, message + SIZE - 2, 4);
	cr_assert_eq(quarry_chain_clone(&in, 0, QUARRY_CHAIN_ALL, &copy), 0);
	quarry_chain_free(&in);
	cr_assert_eq(quarry_chain_compare_bytes(&copy, message, MESSAGE), 0);
	quarry_chain_free(&copy); /* and the buffers are back */
}

Test(ten_rows, z42_a_sequence, .init = make, .fini = end)
{
	costs_nothing(makes_a_sequence);
}

/* ---- Z43: reading a stream into the program's own memory ---- */

static void reads_a_stream(void)
{
	quarry_chain in = { 0 };
	quarry_buffer got[8];

	peer_sends();
	cr_assert_eq(quarry_chain_from_buffers(&in, got, receive(got)), 0);
	for (size_t at = 0; at < MESSAGE; at += 1250) {
		cr_assert_eq(quarry_chain_copy_out(&in, 0, answer + at, 1250), 0);
		cr_assert_eq(quarry_chain_trim_front(&in, 1250), 0);
	}
	cr_assert_eq(in.len, 0);
	cr_assert_arr_eq(answer, message, MESSAGE);
}

Test(ten_rows, z43_reading_a_stream, .init = make, .fini = end)
{
	costs_nothing(reads_a_stream);
}
