/* SPDX-License-Identifier: MIT */
/* The kernel's own io_uring on a slab, where tests/echo.sh could build this: buffers that are filled bit by bit, several
 * of one receive, and fixed buffers whose tags come back. It says what the kernel has not; exit status 77 where there is
 * no io_uring. */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <quarry/buffers.h>

#define SIZE 4096
#define COUNT 8
#define BUNDLE (1u << 4) /* IORING_RECVSEND_BUNDLE, which older headers have not */
#define MUST(x) ((x) ? (void)0 : fail(#x, __LINE__))

static struct io_uring ring, other;
static int ends[2];

static void fail(const char *what, int line)
{
	fprintf(stderr, "uring: line %d: %s (errno %d, %s)\n", line, what, errno, quarry_error_text());
	exit(1);
}

static unsigned char byte_at(size_t at)
{
	return (unsigned char)(at * 31 >> 2);
}

static struct io_uring_cqe *wait_on(struct io_uring *which, struct io_uring_cqe *copy)
{
	struct io_uring_cqe *cqe;

	MUST(io_uring_submit(which) >= 0);
	MUST(io_uring_wait_cqe(which, &cqe) == 0);
	*copy = *cqe;
	io_uring_cqe_seen(which, cqe);
	return copy;
}

static struct io_uring_cqe *wait_for(struct io_uring_sqe *sqe, struct io_uring_cqe *copy)
{
	(void)sqe;
	return wait_on(&ring, copy);
}

/* So many bytes through the socket, in messages of all sizes; pieces are kept for a while, and looked at as they go. */
static void pieces(quarry_buffers *slab)
{
	enum { KEPT = 40, TOTAL = 3000000 };
	static unsigned char out[1500];
	quarry_buffer kept[KEPT];
	size_t where[KEPT], sent = 0, n = 0, seen = 0, in_pieces = 0;

	while (sent < TOTAL) {
		size_t len = 1 + (sent * 2654435761u >> 7) % sizeof out, got = 0;

		for (size_t i = 0; i < len; i++)
			out[i] = byte_at(sent + i);
		MUST(write(ends[1], out, len) == (ssize_t)len);
		while (got < len) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			struct io_uring_cqe cqe;

			io_uring_prep_recv(sqe, ends[0], NULL, 0, 0);
			sqe->flags |= IOSQE_BUFFER_SELECT;
			sqe->buf_group = 1;
			wait_for(sqe, &cqe);
			if (n == KEPT || cqe.res == -ENOBUFS)
				while (n > 0) {
					n--;
					for (uint32_t i = 0; i < kept[n].len; i++)
						MUST(((unsigned char *)kept[n].p)[i] == byte_at(where[n] + i));
					MUST(quarry_buffer_check(kept[n]) == kept[n].p);
					seen += kept[n].len;
					MUST(quarry_buffer_release(kept[n]) == 0);
				}
			if (cqe.res == -ENOBUFS)
				continue;
			MUST(cqe.res > 0);
			MUST(quarry_ring_try_get(slab, cqe.res, cqe.flags, &kept[n]) == 0);
			in_pieces += (kept[n].flags & QUARRY_BUFFER_PIECE) != 0;
			where[n++] = sent + got;
			got += (size_t)cqe.res;
		}
		sent += len;
	}
	while (n > 0) {
		n--;
		seen += kept[n].len;
		MUST(quarry_buffer_release(kept[n]) == 0);
	}
	MUST(seen == sent && in_pieces > 1000);
	printf("uring: %zu bytes in %zu pieces\n", seen, in_pieces);
}

/* Streams of many buffers' length, received by requests that take as many buffers as there is something for. */
static void bundles(quarry_buffers *slab)
{
	enum { TOTAL = 2000000 };
	static unsigned char out[COUNT * SIZE];
	size_t sent = 0, got = 0, several = 0;

	while (got < TOTAL || got < sent) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
		size_t len = 1 + (sent * 2654435761u >> 7) % sizeof out;
		struct io_uring_cqe cqe;
		unsigned parts = 0;
		int32_t res;
		uint32_t flags;

		if (sent == got) {
			for (size_t i = 0; i < len; i++)
				out[i] = byte_at(sent + i);
			MUST(write(ends[1], out, len) == (ssize_t)len);
			sent += len;
		}
		io_uring_prep_recv(sqe, ends[0], NULL, 0, 0);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->ioprio |= BUNDLE;
		sqe->buf_group = 1;
		wait_for(sqe, &cqe);
		if (cqe.res == -EINVAL) {
			printf("SKIP: the kernel fills one buffer alone for each receive (Linux 6.10): bundles are not tested on it\n");
			while (recv(ends[0], out, sizeof out, MSG_DONTWAIT) > 0)
				;
			return;
		}
		MUST(cqe.res > 0);
		res = cqe.res;
		flags = cqe.flags;
		do {
			quarry_buffer b;

			MUST(quarry_ring_next(slab, &res, &flags, &b) == 0);
			for (uint32_t i = 0; i < b.len; i++)
				MUST(((unsigned char *)b.p)[i] == byte_at(got + i));
			got += b.len;
			parts++;
			MUST(quarry_buffer_release(b) == 0);
		} while (res > 0);
		several += parts > 1;
	}
	MUST(got == sent && several > 10);
	printf("uring: %zu bytes, %zu times several buffers at once\n", got, several);
}

/* Another io_uring with the same registration, from one buffer to another by way of both. */
static void shared(quarry_buffers *slab, quarry_buffer b, quarry_buffer c)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;

	if (quarry_fixed_clone(slab, other.ring_fd, 0) != 0) {
		MUST(errno == EINVAL);
		printf("SKIP: the kernel does not share fixed buffers (Linux 6.13): that is not tested on it\n");
		return;
	}
	memset(b.p, 9, SIZE);
	memset(c.p, 0, SIZE);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_write_fixed(sqe, ends[1], b.p, SIZE, 0, quarry_fixed_index(slab, b.id));
	MUST(wait_on(&ring, &cqe)->res == SIZE);
	sqe = io_uring_get_sqe(&other);
	io_uring_prep_read_fixed(sqe, ends[0], c.p, SIZE, 0, quarry_fixed_index(slab, c.id));
	MUST(wait_on(&other, &cqe)->res == SIZE);
	MUST(memcmp(b.p, c.p, SIZE) == 0);
	MUST(quarry_fixed_unregister(slab) == -1 && errno == EBUSY);
	MUST(quarry_fixed_unclone(slab, other.ring_fd) == 0);
	sqe = io_uring_get_sqe(&other);
	io_uring_prep_read_fixed(sqe, ends[0], c.p, SIZE, 0, quarry_fixed_index(slab, c.id));
	MUST(wait_on(&other, &cqe)->res == -EFAULT);
	printf("uring: fixed buffers of two io_urings\n");
}

static void fixed(quarry_buffers *slab)
{
	quarry_buffer b, c;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;

	MUST(quarry_buffers_get(slab, &b) == 0 && quarry_buffers_get(slab, &c) == 0);
	if (quarry_fixed_register(slab, ring.ring_fd, 4, 2, 1000) != 1) {
		MUST(errno == ENOMEM);
		printf("SKIP: too little memory may be pinned (RLIMIT_MEMLOCK): fixed buffers are not tested on the kernel\n");
		MUST(quarry_buffer_release(b) == 0 && quarry_buffer_release(c) == 0);
		return;
	}
	memset(b.p, 7, SIZE);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_write_fixed(sqe, ends[1], b.p, SIZE, 0, quarry_fixed_index(slab, b.id));
	MUST(wait_for(sqe, &cqe)->res == SIZE);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read_fixed(sqe, ends[0], c.p, SIZE, 0, quarry_fixed_index(slab, c.id));
	MUST(wait_for(sqe, &cqe)->res == SIZE);
	MUST(memcmp(b.p, c.p, SIZE) == 0);
	shared(slab, b, c);
	MUST(quarry_fixed_unregister(slab) == 0);
	MUST(quarry_buffer_release(b) == 0 && quarry_buffer_release(c) == 0);
	MUST(quarry_buffers_destroy(slab) == -1 && errno == EBUSY);
	MUST(wait_for(NULL, &cqe)->user_data == 1000);
	MUST(quarry_fixed_let_go(slab, cqe.user_data) == 0);
}

int main(void)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = COUNT };
	quarry_buffers_stats stats = { .struct_size = sizeof stats };
	quarry_buffers *slab = quarry_buffers_create(&attr);

	if (io_uring_queue_init(8, &ring, 0) < 0 || io_uring_queue_init(8, &other, 0) < 0)
		return 77;
	MUST(slab != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	fixed(slab);
	MUST(quarry_ring_register(slab, ring.ring_fd, 1, COUNT, QUARRY_RING_INCREMENTAL | QUARRY_RING_BUNDLES) == 0);
	MUST(quarry_buffers_stats_get(slab, &stats) == 0);
	if (stats.incremental) {
		pieces(slab);
		bundles(slab);
	} else {
		printf("SKIP: the kernel fills no buffers bit by bit (Linux 6.12): that is not tested on it\n");
	}
	MUST(quarry_buffers_stats_get(slab, &stats) == 0);
	MUST(stats.in_ring == COUNT);
	MUST(quarry_ring_unregister(slab) == 0);
	MUST(quarry_ring_register(slab, ring.ring_fd, 1, COUNT, QUARRY_RING_BUNDLES) == 0);
	bundles(slab);
	MUST(quarry_buffers_stats_get(slab, &stats) == 0);
	MUST(stats.in_ring == COUNT);
	MUST(quarry_ring_unregister(slab) == 0);
	MUST(quarry_buffers_destroy(slab) == 0);
	io_uring_queue_exit(&other);
	io_uring_queue_exit(&ring);
	return 0;
}
