/* SPDX-License-Identifier: MIT */
/* A client of an echo server: many connections at a time, every byte looked at.
 *
 *	echo_client PORT CONNECTIONS BYTES WINDOW CHUNK SEED
 *
 * Each connection sends BYTES (of its own, by a formula) in writes of random lengths up to CHUNK, and has at most WINDOW
 * under way; it reads what comes, in random lengths as well, and compares. With WINDOW equal to CHUNK, and SEED 0, each
 * message is CHUNK long and waits for the one before. It says how many bytes a second came back. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct peer {
	int fd;
	uint32_t key;
	uint64_t sent, got;
	bool shut;
} *peers;

static uint64_t bytes, window, chunk, seed;
static unsigned char pattern[(1 << 20) + 65536];
static int poller;

static void fail(const char *what)
{
	fprintf(stderr, "echo_client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t random_up_to(uint64_t most)
{
	static uint64_t x;

	x = x * 6364136223846793005u + 1442695040888963407u + seed;
	return 1 + (x >> 33) % most;
}

/* The bytes of a connection from `at` on: a window onto a pattern whose length is no power of two. */
static const unsigned char *content(const struct peer *p, uint64_t at)
{
	return pattern + (p->key + at) % 1000003;
}

static void watch(struct peer *p, bool first)
{
	struct epoll_event e = { .data.ptr = p };

	e.events = EPOLLIN | (p->sent < bytes && p->sent - p->got < window ? EPOLLOUT : 0);
	if (epoll_ctl(poller, first ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, p->fd, &e) != 0)
		fail("epoll_ctl");
}

static void connect_to(struct peer *p, int port, uint32_t number)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int one = 1;

	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&a, sizeof a) != 0)
		fail("connect");
	setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (fcntl(p->fd, F_SETFL, O_NONBLOCK) != 0)
		fail("fcntl");
	p->key = number * 7919;
	watch(p, true);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void send_some(struct peer *p)
{
	while (p->sent < bytes && p->sent - p->got < window) {
		uint64_t n = seed != 0 ? random_up_to(chunk) : chunk;
		ssize_t done;

		n = least(least(n, bytes - p->sent), window - (p->sent - p->got));
		done = send(p->fd, content(p, p->sent), least(n, 65536), MSG_NOSIGNAL);
		if (done < 0 && errno == EAGAIN)
			break;
		if (done < 0)
			fail("send");
		p->sent += (uint64_t)done;
	}
	if (p->sent == bytes && !p->shut) {
		p->shut = true;
		shutdown(p->fd, SHUT_WR);
	}
}

/* False at the end. */
static bool read_some(struct peer *p)
{
	static unsigned char in[65536];
	ssize_t n = recv(p->fd, in, seed != 0 ? random_up_to(sizeof in) : sizeof in, 0);

	if (n < 0 && errno == EAGAIN)
		return true;
	if (n < 0)
		fail("recv");
	if (n == 0 && p->got == bytes)
		return false;
	if (n == 0 || p->got + (uint64_t)n > p->sent) {
		fprintf(stderr, "echo_client: %llu bytes came, and the end, of %llu\n", (unsigned long long)p->got,
			(unsigned long long)p->sent);
		exit(1);
	}
	if (memcmp(in, content(p, p->got), (size_t)n) != 0) {
		fprintf(stderr, "echo_client: something else came than was sent, at byte %llu or behind it\n",
			(unsigned long long)p->got);
		exit(1);
	}
	p->got += (uint64_t)n;
	return true;
}

int main(int argc, char **argv)
{
	struct epoll_event events[64];
	struct timespec start, end;
	unsigned count, left;
	double took;

	if (argc != 7) {
		fprintf(stderr, "usage: echo_client PORT CONNECTIONS BYTES WINDOW CHUNK SEED\n");
		return 2;
	}
	count = left = (unsigned)atoi(argv[2]);
	bytes = strtoull(argv[3], NULL, 0);
	window = strtoull(argv[4], NULL, 0);
	chunk = strtoull(argv[5], NULL, 0);
	seed = strtoull(argv[6], NULL, 0);
	for (size_t i = 0; i < sizeof pattern; i++)
		pattern[i] = (unsigned char)((i % 1000003) * 2654435761u >> 13);
	peers = calloc(count, sizeof *peers);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (peers == NULL || poller < 0)
		fail("start");
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (unsigned i = 0; i < count; i++)
		connect_to(&peers[i], atoi(argv[1]), i);
	while (left > 0) {
		int n = epoll_wait(poller, events, 64, 30000);

		if (n == 0) {
			fprintf(stderr, "echo_client: nothing comes any more; %u connections are open\n", left);
			return 1;
		}
		for (int i = 0; i < n; i++) {
			struct peer *p = events[i].data.ptr;

			if ((events[i].events & ~(uint32_t)EPOLLOUT) && !read_some(p)) {
				close(p->fd);
				left--;
				continue;
			}
			send_some(p);
			watch(p, false);
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	took = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
	printf("%.0f\n", (double)bytes * count / took);
	return 0;
}
