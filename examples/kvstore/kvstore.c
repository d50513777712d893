/* SPDX-License-Identifier: MIT */
/* A key-value server with the Redis protocol, whose keys and values are behind handles: the library packs them while they
 * are served, and memory goes back to the kernel that another server would keep after keys were deleted or changed their
 * sizes. With --malloc it is the same server on malloc. --help says the rest.
 *
 *	cc -O2 -o kvstore-server examples/kvstore/[a-z]*.c -pthread -lquarry
 *
 * memory.h is what differs of the two; store.h the table; client.h the protocol; commands.h what requests do. Here are
 * the connections: one thread, epoll(7). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"

#define EVENTS 256
#define TICK_MS 100
#define TEND_US 1000            /* of a tick, */
#define TEND_IDLE_US 20000      /* and of one in which nobody asked for anything */
#define READ_LEAST ((size_t)8 << 10)
#define TO_GO_OUT ((size_t)1 << 20) /* with so much unsent a client's next requests wait */

static const char usage[] =
	"usage: kvstore [OPTION]...\n"
	"A key-value server with the Redis protocol; its keys and values are behind quarry's handles.\n"
	"\n"
	"  --port N          listen there; 0: at any port (6380)\n"
	"  --bind ADDRESS    of IPv4 (127.0.0.1; there are no passwords: anybody who reaches it may do anything)\n"
	"  --malloc          keys and values in malloc's memory instead\n"
	"  --no-compact      pack nothing\n"
	"  --maxmemory BYTES of keys and values with their records; more is refused (0: no limit)\n"
	"  --maxclients N    connections at once (10000)\n"
	"  --help\n"
	"\n"
	"It says its port, and serves until SIGTERM, SIGINT or SHUTDOWN. Nothing is on disk.\n";

static struct {
	int poll, listener;
	bool accepting;
	struct client clients; /* the list's head */
	uint64_t last_id;
} net = { .poll = -1, .listener = -1 };

static volatile sig_atomic_t stopped;

static void on_stop(int sig)
{
	(void)sig;
	stopped = 1;
}

static bool fail(const char *what)
{
	fprintf(stderr, "kvstore: %s: %s\n", what, strerror(errno));
	return false;
}

static int64_t milliseconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- connections ---- */

/* Without a descriptor left there is nothing to accept with: until a client goes nobody is asked for. */
static void accept_again(bool again)
{
	struct epoll_event e = { .events = again ? EPOLLIN : 0, .data.ptr = &net.clients };

	if (net.accepting != again && epoll_ctl(net.poll, EPOLL_CTL_MOD, net.listener, &e) == 0)
		net.accepting = again;
}

static void close_client(struct client *c)
{
	c->previous->next = c->next;
	c->next->previous = c->previous;
	server.clients--;
	close(c->fd);
	buffer_free(&c->in);
	buffer_free(&c->out);
	free(c->argument);
	free(c);
	accept_again(true);
}

static void refuse(int fd)
{
	static const char why[] = "-ERR max number of clients reached\r\n";

	server.refused++;
	(void)send(fd, why, sizeof(why) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void add_client(int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
	int one = 1;

	if (c == NULL || epoll_ctl(net.poll, EPOLL_CTL_ADD, fd, &e) != 0) {
		free(c);
		refuse(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->fd = fd;
	c->events = EPOLLIN;
	c->bulk = -1;
	c->id = ++net.last_id;
	c->next = net.clients.next;
	c->previous = &net.clients;
	c->next->previous = c;
	net.clients.next = c;
	server.clients++;
	server.connections++;
}

static void accept_clients(void)
{
	for (;;) {
		int fd = accept4(net.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
				accept_again(false);
			return;
		}
		if (server.clients >= server.clients_max)
			refuse(fd);
		else
			add_client(fd);
	}
}

static size_t to_go_out(const struct client *c)
{
	return c->out.end - c->out.begin;
}

static void receive(struct client *c)
{
	ssize_t n;

	if (!buffer_reserve(&c->in, READ_LEAST, REQUEST_MAX)) {
		reply_error(c, "ERR Protocol error: too big request");
		c->closing = true;
		return;
	}
	n = recv(c->fd, c->in.p + c->in.end, c->in.room - c->in.end, 0);
	if (n > 0)
		c->in.end += (size_t)n;
	else if (n == 0)
		c->ended = true;
	else if (errno != EAGAIN && errno != EINTR)
		c->broken = true;
}

static void send_out(struct client *c)
{
	while (to_go_out(c) > 0) {
		ssize_t n = send(c->fd, c->out.p + c->out.begin, to_go_out(c), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			c->broken = errno != EAGAIN;
			return;
		}
		c->out.begin += (size_t)n;
	}
	buffer_rest(&c->out);
}

/* All whole requests that are here, as long as their replies can go out. True: others wait for that. */
static bool carry_out(struct client *c)
{
	enum parsed parsed = PARSED_WHOLE;

	while (!c->closing && !c->broken && to_go_out(c) < TO_GO_OUT) {
		if (client_next(c)) {
			if (c->arguments > 0)
				command_run(c);
			continue;
		}
		parsed = client_parse(c);
		if (parsed != PARSED_WHOLE)
			break;
		commands_foresee(c);
	}
	if (parsed == PARSED_WRONG || (parsed == PARSED_PART && c->ended))
		c->closing = true;
	buffer_rest(&c->in);
	return parsed == PARSED_WHOLE;
}

/* What is to be waited for now: while replies do not go out nothing more is read. */
static void look_for(struct client *c)
{
	uint32_t events = to_go_out(c) > 0 ? EPOLLOUT : 0;
	struct epoll_event e = { .data.ptr = c };

	if (!c->closing && !c->ended && to_go_out(c) < TO_GO_OUT)
		events |= EPOLLIN;
	e.events = events;
	if (events != c->events && epoll_ctl(net.poll, EPOLL_CTL_MOD, c->fd, &e) != 0)
		c->broken = true;
	c->events = events;
}

static void serve(struct client *c, uint32_t events)
{
	bool more;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(c);
	if (events & EPOLLOUT)
		send_out(c);
	do {
		more = carry_out(c);
		send_out(c);
	} while (more && !c->broken && !c->closing && to_go_out(c) < TO_GO_OUT);
	look_for(c);
	if (c->broken || (c->closing && to_go_out(c) == 0))
		close_client(c);
}

/* ---- the server ---- */

static void tick(int64_t *last, bool idle)
{
	int64_t now = milliseconds(CLOCK_MONOTONIC);

	if (now - *last < TICK_MS)
		return;
	*last = now;
	accept_again(true);
	store_tend(idle ? TEND_IDLE_US : TEND_US);
}

static bool run(void)
{
	struct epoll_event events[EVENTS];
	int64_t last_tick = 0;

	while (!stopped && !server.stopping) {
		int n = epoll_wait(net.poll, events, EVENTS, TICK_MS);

		if (n < 0 && errno != EINTR)
			return fail("epoll_wait");
		store.now = milliseconds(CLOCK_REALTIME);
		for (int i = 0; i < n; i++)
			if (events[i].data.ptr == &net.clients)
				accept_clients();
			else
				serve(events[i].data.ptr, events[i].events);
		tick(&last_tick, n == 0);
	}
	return true;
}

static bool listen_at(const char *address, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = &net.clients };
	socklen_t length = sizeof(a);
	int one = 1;

	if (inet_pton(AF_INET, address, &a.sin_addr) != 1) {
		errno = EINVAL;
		return fail(address);
	}
	net.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	net.poll = epoll_create1(EPOLL_CLOEXEC);
	if (net.listener < 0 || net.poll < 0)
		return fail("socket");
	setsockopt(net.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(net.listener, (struct sockaddr *)&a, length) != 0 || listen(net.listener, 1024) != 0 ||
	    getsockname(net.listener, (struct sockaddr *)&a, &length) != 0 ||
	    epoll_ctl(net.poll, EPOLL_CTL_ADD, net.listener, &e) != 0)
		return fail("listen");
	net.accepting = true;
	server.port = ntohs(a.sin_port);
	printf("port %d\n", server.port);
	fflush(stdout);
	return true;
}

struct options {
	const char *address;
	int64_t port, limit, clients;
	bool with_malloc, compact;
};

static int64_t number(const char *option, const char *text, int64_t least, int64_t most)
{
	int64_t n;

	if (!text_to_integer((struct text){ text, strlen(text) }, &n) || n < least || n > most) {
		fprintf(stderr, "kvstore: --%s: a number from %lld to %lld is needed, not '%s'\n", option, (long long)least,
			(long long)most, text);
		exit(2);
	}
	return n;
}

static void read_options(int argc, char **argv, struct options *o)
{
	enum { PORT = 1, BIND, MALLOC, NO_COMPACT, LIMIT, CLIENTS, HELP };
	static const struct option known[] = {
		{ "port", required_argument, NULL, PORT },       { "bind", required_argument, NULL, BIND },
		{ "malloc", no_argument, NULL, MALLOC },         { "no-compact", no_argument, NULL, NO_COMPACT },
		{ "maxmemory", required_argument, NULL, LIMIT }, { "maxclients", required_argument, NULL, CLIENTS },
		{ "help", no_argument, NULL, HELP },             { 0 },
	};
	int which;

	while ((which = getopt_long(argc, argv, "", known, NULL)) != -1)
		switch (which) {
		case PORT: o->port = number("port", optarg, 0, 65535); break;
		case BIND: o->address = optarg; break;
		case MALLOC: o->with_malloc = true; break;
		case NO_COMPACT: o->compact = false; break;
		case LIMIT: o->limit = number("maxmemory", optarg, 0, INT64_MAX); break;
		case CLIENTS: o->clients = number("maxclients", optarg, 1, 1000000); break;
		case HELP: fputs(usage, stdout); exit(0);
		default: fputs(usage, stderr); exit(2);
		}
	if (optind < argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

static bool begin(const struct options *o)
{
	struct sigaction stop = { .sa_handler = on_stop };

	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	net.clients.next = net.clients.previous = &net.clients;
	server.clients_max = (size_t)o->clients;
	server.began = store.now = milliseconds(CLOCK_REALTIME);
	memory.limit = (size_t)o->limit;
	if (!memory_begin(o->with_malloc, o->compact))
		return false;
	if (!store_begin())
		return fail("memory");
	return listen_at(o->address, (int)o->port);
}

/* Everything goes back, so that a checker sees what was lost. */
static bool end(void)
{
	while (net.clients.next != &net.clients)
		close_client(net.clients.next);
	close(net.listener);
	close(net.poll);
	store_end();
	memory_end();
	if (memory.asked != 0)
		fprintf(stderr, "kvstore: %zu bytes of keys and values are lost\n", memory.asked);
	return memory.asked == 0;
}

int main(int argc, char **argv)
{
	struct options o = { .address = "127.0.0.1", .port = 6380, .clients = 10000, .compact = true };
	bool good;

	read_options(argc, argv, &o);
	if (!begin(&o))
		return 1;
	good = run();
	printf("connections %llu, commands %llu\n", (unsigned long long)server.connections,
	       (unsigned long long)server.commands);
	return end() && good ? 0 : 1;
}
