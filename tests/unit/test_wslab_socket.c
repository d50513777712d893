/* SPDX-License-Identifier: MIT */
/* Write slabs through sockets: partial sends, the kernel's own second notices, and that nothing is allocated between
 * init and fini. And inflight buffers, against a flat string. */
#include "tests/unit/chain_model.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/errqueue.h> /* wants struct timespec */

#include "include/quarry/wslab.h"

/* ---- a socket, and allocations ---- */

Test(wslab, through_a_socket_in_parts_and_nothing_is_allocated)
{
	struct rng rng = rng_start(78);
	unsigned char bytes[3000], back[4096];
	quarry_wslab w;
	uint64_t before, sent = 0, expected = 0, got = 0;
	int fd[2], partial = 0, full = 0, size = 4096;

	cr_assert_eq(quarry_wslab_init(&w, NULL), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	cr_assert_eq(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	cr_assert_eq(quarry_profile_start(1), 0);
	before = allocations();
	while (got < 2000000) {
		size_t n = rng_below(&rng, sizeof(bytes));
		struct iovec iov[2];
		ssize_t k;

		for (size_t i = 0; i < n; i++)
			bytes[i] = (unsigned char)((sent + i) * 31 >> 3);
		if (sent < 2000000 && quarry_wslab_write(&w, bytes, n) == 0)
			sent += n;
		else
			full++;
		if (quarry_wslab_iov(&w, iov, 2) == 0)
			cr_assert_geq(quarry_wslab_flush_begin(&w), 0);
		k = writev(fd[0], iov, (int)quarry_wslab_iov(&w, iov, 2));
		if (k > 0)
			partial += quarry_wslab_sent(&w, (uint64_t)k) > 0;
		k = read(fd[1], back, 1 + rng_below(&rng, sizeof(back) / 2));
		for (ssize_t i = 0; i < k; i++, expected++)
			cr_assert_eq(back[i], (unsigned char)(expected * 31 >> 3), "byte %llu",
				     (unsigned long long)expected);
		got += k > 0 ? (uint64_t)k : 0;
		if (got == sent && sent >= 2000000)
			break;
	}
	cr_assert_eq(allocations(), before);
	quarry_profile_stop();
	cr_assert(got >= 2000000 && partial > 0 && full > 0, "%d partial sends, %d times full", partial, full);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
	close(fd[0]);
	close(fd[1]);
}

/* ---- without a copy by the kernel ---- */

/* A pair of connected sockets of TCP on the loopback; false when they cannot be had. */
static bool connect_pair(int fd[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	bool fine = listener >= 0 && bind(listener, (void *)&address, size) == 0 && listen(listener, 1) == 0 &&
		    getsockname(listener, (void *)&address, &size) == 0;

	fd[0] = fine ? socket(AF_INET, SOCK_STREAM, 0) : -1;
	fine = fine && connect(fd[0], (void *)&address, size) == 0 && (fd[1] = accept(listener, NULL, NULL)) >= 0;
	close(listener);
	return fine && setsockopt(fd[0], SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) == 0;
}

/* The kernel's notices: of sends so many to so many. Returns how many sends they are about, 0: none came yet. */
static unsigned notices(int fd, unsigned *first)
{
	char control[128];
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	const struct sock_extended_err *e;

	if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return 0;
	e = (const void *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
	cr_assert_eq(e->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
	*first = e->ee_info;
	return e->ee_data - e->ee_info + 1;
}

Test(wslab, sent_without_a_copy_and_held_until_the_kernel_says_so)
{
	enum { ALL = 1000000, SENDS = 4096 };
	struct rng rng = rng_start(79);
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_WSLAB_GROW, .size = 8192 };
	static int hold[SENDS];
	unsigned char bytes[3000], back[8192];
	uint64_t written = 0, got = 0;
	unsigned sends = 0, told = 0, first, n;
	quarry_wslab w;
	int fd[2];

	if (!connect_pair(fd))
		cr_skip("no MSG_ZEROCOPY here");
	cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
	while (got < ALL || told < sends) {
		struct iovec iov[16];
		struct msghdr msg = { .msg_iov = iov };
		size_t len = rng_below(&rng, sizeof(bytes));
		ssize_t k;

		for (size_t i = 0; i < len; i++)
			bytes[i] = (unsigned char)((written + i) * 37 >> 4);
		if (written + len <= ALL && quarry_wslab_pending(&w) < 60000) {
			cr_assert_eq(quarry_wslab_write(&w, bytes, len), 0);
			written += len;
		} else if (written + len > ALL && written < ALL) {
			cr_assert_eq(quarry_wslab_write(&w, bytes, ALL - written), 0);
			written = ALL;
		}
		if (quarry_wslab_iov(&w, iov, 16) == 0)
			cr_assert_geq(quarry_wslab_flush_begin(&w), 0);
		msg.msg_iovlen = (size_t)quarry_wslab_iov(&w, iov, 16);
		if (msg.msg_iovlen > 0 && sends < SENDS) {
			int h = quarry_wslab_hold(&w);

			k = sendmsg(fd[0], &msg, MSG_DONTWAIT | (h > 0 ? MSG_ZEROCOPY : 0));
			if (k > 0 && h > 0)
				hold[sends++] = h;
			else if (h > 0)
				cr_assert_eq(quarry_wslab_drop(&w, h), 0);
			if (k > 0)
				cr_assert_geq(quarry_wslab_sent(&w, (uint64_t)k), 0);
		}
		k = recv(fd[1], back, 1 + rng_below(&rng, sizeof(back)), MSG_DONTWAIT);
		for (ssize_t i = 0; i < k; i++, got++)
			cr_assert_eq(back[i], (unsigned char)(got * 37 >> 4), "byte %llu", (unsigned long long)got);
		while ((n = notices(fd[0], &first)) > 0) {
			for (told += n; n-- > 0; first++)
				cr_assert_eq(quarry_wslab_drop(&w, hold[first]), 0);
		}
	}
	cr_assert(sends > 10 && quarry_wslab_pending(&w) == 0);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
	close(fd[0]);
	close(fd[1]);
}

/* ---- inflight buffers ---- */

Test(wslab, inflight_bytes_against_a_flat_string)
{
	struct rng rng = rng_start(20260805);
	quarry_inflight in = { .p = NULL };
	struct model m; /* its flat string alone */
	uint64_t before;
	unsigned char *p;

	model_init(&m);
	cr_assert_eq(quarry_inflight_get(&in, NULL, 1000), 0);
	cr_assert(in.size == 1024 && (uintptr_t)in.p % 64 == 0);
	p = in.p;
	cr_assert_eq(quarry_profile_start(1), 0);
	before = allocations();
	for (int i = 0; i < 20000; i++) {
		size_t n, room = 1;
		void *to = quarry_inflight_space(&in, &room);
		const void *at;

		cr_assert_geq(2 * room, 1024 - m.len, "room for %zu, and %zu are there", room, m.len);
		cr_assert(to != NULL ? room > 0 && m.len + room <= 1024
				     : room == 0 && errno == ENOBUFS && m.len == 1024);
		expect_error(quarry_inflight_filled(&in, room + 1), ERANGE);
		if (to != NULL) {
			n = rng_below(&rng, room + 1);
			rng_fill(&rng, to, n);
			model_edit(&m, m.len, 0, to, n);
			cr_assert_eq(quarry_inflight_filled(&in, n), 0);
		}
		at = quarry_inflight_data(&in, &n);
		cr_assert(n == m.len && (at != NULL) == (n > 0) && memcmp(at != NULL ? at : m.flat, m.flat, n) == 0);
		expect_error(quarry_inflight_take(&in, n + 1), ERANGE);
		n = rng_below(&rng, 3) == 0 ? n : rng_below(&rng, n + 1);
		cr_assert_eq(quarry_inflight_take(&in, n), 0);
		model_edit(&m, 0, n, NULL, 0);
	}
	cr_assert(allocations() == before && in.p == p);
	quarry_profile_stop();
	model_end(&m);
	quarry_inflight_put(&in);
	quarry_inflight_put(&in);
	quarry_inflight_put(NULL);
	expect_error(quarry_inflight_take(&in, 0), EINVAL);
	expect_error(quarry_inflight_filled(&in, 0), EINVAL);
	expect_error(quarry_inflight_get(&in, NULL, SIZE_MAX), EINVAL);
	expect_error(quarry_inflight_get(NULL, NULL, 5), EINVAL);
	cr_expect(quarry_inflight_data(NULL, NULL) == NULL);
	cr_assert(quarry_inflight_get(&in, NULL, 0) == 0 && in.size == 16384);
	quarry_inflight_put(&in);
}
