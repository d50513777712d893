/* SPDX-License-Identifier: MIT */
/* A client of an echo server with one buffer, who sends and reads nothing until the server cannot go on with him, and
 * keeps its buffer; another message then waits for a buffer, and is answered when the first client has read.
 *
 *	echo_stuffed PORT
 *	echo_stuffed PORT stay		says "stuffed" when nothing goes any more, and stays until its standard input ends
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST ((uint64_t)256 << 20) /* more than all that lies in sockets */

static unsigned char block[65536];

static void fail(const char *what)
{
	fprintf(stderr, "echo_stuffed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int connect_to(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), size = 4096;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
		fail("connect");
	return fd;
}

static bool ready(int fd, short events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, ms) > 0;
}

/* Until nothing goes for a while. */
static uint64_t stuff(int fd, uint64_t sent)
{
	while (sent < MOST && ready(fd, POLLOUT, 200)) {
		ssize_t n = send(fd, block, sizeof block, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			fail("send");
		sent += n > 0 ? (uint64_t)n : 0;
	}
	return sent;
}

static uint64_t read_back(int fd, uint64_t left)
{
	while (left > 0 && ready(fd, POLLIN, 20000)) {
		static unsigned char in[65536];
		ssize_t n = recv(fd, in, sizeof in, 0);

		if (n <= 0 && errno != EAGAIN)
			fail("recv");
		for (ssize_t i = 0; i < n; i++)
			if (in[i] != 's')
				fail("something else came back");
		left -= n > 0 ? (uint64_t)n : 0;
	}
	return left;
}

/* Sends and does not read. */
static int stay(int port)
{
	if (stuff(connect_to(port), 0) >= MOST)
		fail("the server takes all");
	puts("stuffed");
	fflush(stdout);
	return getchar() == EOF ? 0 : 1;
}

int main(int argc, char **argv)
{
	int port = argc >= 2 ? atoi(argv[1]) : 0, first, second;
	uint64_t sent = 0;
	char byte;

	memset(block, 's', sizeof block);
	if (argc == 3)
		return stay(port);
	first = connect_to(port);
	second = connect_to(port);
	/* The second is answered as long as the server has its buffer. */
	do {
		sent = stuff(first, sent);
		if (sent >= MOST || send(second, "?", 1, MSG_NOSIGNAL) != 1)
			fail("the server takes all");
	} while (ready(second, POLLIN, 1000) && recv(second, &byte, 1, 0) == 1);
	if (read_back(first, sent) != 0)
		fail("what was sent did not come back");
	if (!ready(second, POLLIN, 20000) || recv(second, &byte, 1, 0) != 1 || byte != '?')
		fail("who waited for a buffer has no answer");
	printf("%llu\n", (unsigned long long)sent);
	return 0;
}
