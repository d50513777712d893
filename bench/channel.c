/* SPDX-License-Identifier: MIT */
/* Two processes: a channel in a heap (quarry/channel.h) beside a pipe and a stream socketpair (AF_UNIX). There and back: a message of 64 bytes, and the
 * answer. One way: messages of 64 and of 4096 bytes, written and read whole; and the same published eight at a time. Median of rounds, taken
 * in turn. What is read is summed up. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quarry/channel.h"

#include "median.h"

enum { ROUNDS = 7, TRIPS = 20000, MESSAGES = 200000, LARGEST = 4096 };
enum way { CHANNEL, CHANNEL_BATCHED, PIPE, SOCKETS, WAYS };

static const char *const names[WAYS] = { "channel", "channel, by eights", "pipe", "socketpair" };

/* Both directions of one way. */
struct line {
	quarry_mapped *heap;
	quarry_off ring[2];
	quarry_channel *in, *out;
	int fd_in, fd_out;
	int fds[2][2];
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void send_one(struct line *l, enum way way, char *bytes, size_t n, unsigned flags)
{
	if (way <= CHANNEL_BATCHED) {
		void *room = quarry_channel_reserve(l->out, n, -1);

		if (!room)
			die("reserve");
		memcpy(room, bytes, n);
		quarry_channel_publish(l->out, room, flags);
		return;
	}
	for (size_t done = 0; done < n;) {
		ssize_t got = write(l->fd_out, bytes + done, n - done);

		if (got <= 0)
			die("write");
		done += (size_t)got;
	}
}

static uint64_t take_one(struct line *l, enum way way, char *bytes, size_t n, int release)
{
	uint64_t first;

	if (way <= CHANNEL_BATCHED) {
		size_t size;
		const void *m = quarry_channel_receive(l->in, &size, -1);

		if (!m)
			die("receive");
		memcpy(bytes, m, n);
		if (release)
			quarry_channel_release(l->in);
	} else {
		for (size_t done = 0; done < n;) {
			ssize_t got = read(l->fd_in, bytes + done, n - done);

			if (got <= 0)
				die("read");
			done += (size_t)got;
		}
	}
	memcpy(&first, bytes, sizeof(first));
	return first;
}

static void ends(struct line *l, enum way way, int child)
{
	if (way <= CHANNEL_BATCHED) {
		l->in = quarry_channel_open(l->heap, l->ring[child], QUARRY_CHANNEL_CONSUMER);
		l->out = quarry_channel_open(l->heap, l->ring[!child], QUARRY_CHANNEL_PRODUCER);
		if (!l->in || !l->out)
			die("open");
	} else {
		l->fd_in = way == PIPE ? l->fds[child][0] : l->fds[0][child];
		l->fd_out = way == PIPE ? l->fds[!child][1] : l->fds[0][child];
	}
}

static void begin(struct line *l, enum way way)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = (uint64_t)64 << 20 };
	quarry_channel_attr ring = { .struct_size = sizeof(ring), .bytes = 1 << 18, .producers = 1 };

	memset(l, 0, sizeof(*l));
	if (way == PIPE && (pipe(l->fds[0]) != 0 || pipe(l->fds[1]) != 0))
		die("pipe");
	if (way == SOCKETS && socketpair(AF_UNIX, SOCK_STREAM, 0, l->fds[0]) != 0)
		die("socketpair");
	if (way > CHANNEL_BATCHED)
		return;
	l->heap = quarry_mapped_create(NULL, &attr);
	for (int i = 0; l->heap && i < 2; i++)
		l->ring[i] = quarry_channel_make(l->heap, (quarry_off *)quarry_mapped_user(l->heap, NULL) + i, &ring);
	if (!l->heap || !l->ring[0] || !l->ring[1])
		die("heap");
}

static void end(struct line *l, enum way way)
{
	quarry_channel_close(l->in);
	quarry_channel_close(l->out);
	quarry_mapped_close(l->heap);
	for (int i = 0; way > CHANNEL_BATCHED && i < 4; i++)
		if (l->fds[i / 2][i % 2] > 2)
			close(l->fds[i / 2][i % 2]);
}

static void echo(struct line *l, enum way way)
{
	char bytes[LARGEST];

	ends(l, way, 1);
	for (int i = 0; i < TRIPS; i++) {
		take_one(l, way, bytes, 64, 1);
		send_one(l, way, bytes, 64, 0);
	}
	_exit(0);
}

static void swallow(struct line *l, enum way way, size_t n)
{
	char bytes[LARGEST];
	uint64_t sum = 0;

	ends(l, way, 1);
	for (uint64_t i = 0; i < MESSAGES; i++)
		sum += take_one(l, way, bytes, n, i % 8 == 7);
	memcpy(bytes, &sum, sizeof(sum));
	send_one(l, way, bytes, 64, 0);
	_exit(sum == (uint64_t)MESSAGES * (MESSAGES - 1) / 2 ? 0 : 1);
}

/* Nanoseconds for one. n 0: there and back. */
static double measure(enum way way, size_t n)
{
	unsigned group = way == CHANNEL_BATCHED ? 8 : 1;
	char bytes[LARGEST] = { 0 };
	struct line l;
	double from;
	int status;
	pid_t pid;

	begin(&l, way);
	pid = fork();
	if (pid == 0 && n == 0)
		echo(&l, way);
	if (pid == 0)
		swallow(&l, way, n);
	ends(&l, way, 0);
	from = now();
	for (uint64_t i = 0; n == 0 && i < TRIPS; i++) {
		send_one(&l, way, bytes, 64, 0);
		take_one(&l, way, bytes, 64, 1);
	}
	for (uint64_t i = 0; n != 0 && i < MESSAGES; i++) {
		memcpy(bytes, &i, sizeof(i));
		send_one(&l, way, bytes, n, i % group + 1 < group ? QUARRY_CHANNEL_MORE : 0);
	}
	if (n != 0)
		take_one(&l, way, bytes, 64, 1);
	from = now() - from;
	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("the other end");
	end(&l, way);
	return from / (n == 0 ? TRIPS : MESSAGES);
}

int main(void)
{
	static const size_t sizes[] = { 0, 64, 4096 };
	double t[WAYS][3][ROUNDS];

	for (int r = 0; r < ROUNDS; r++)
		for (int s = 0; s < 3; s++)
			for (int w = 0; w < WAYS; w++)
				t[w][s][r] = measure((enum way)w, sizes[s]);
	printf("%-20s %14s %18s %18s\n", "ns", "there and back", "one way, 64 bytes", "one way, 4096");
	for (int w = 0; w < WAYS; w++)
		printf("%-20s %14.0f %18.0f %18.0f\n", names[w], median(t[w][0], ROUNDS), median(t[w][1], ROUNDS), median(t[w][2], ROUNDS));
	return 0;
}
