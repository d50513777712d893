/* SPDX-License-Identifier: MIT */
/* An echo server on buffers: what comes in goes back out of the buffer that it came into, which then goes back to the
 * kernel. Without a copy, without an allocation, and once all buffers were used without a page fault.
 *
 *	echo [--malloc | --plain] [--buffers N] [--size BYTES] [--port N] [--patience MS]
 *
 * By itself it has a slab of quarry's, in huge pages, as io_uring's ring of provided buffers. With --malloc it is the
 * same server with a ring of malloc'ed buffers; with --plain it does without io_uring: epoll(7), recvmsg(2), sendmsg(2),
 * on a slab. It says its port, serves until SIGTERM, and says then what it did. One thread.
 *
 * A client that sends and does not read keeps the buffers that hold what is to go back to it. So that the others have some,
 * a connection that has its share of them (an eighth) is not received from until it has half of that; and one whose client
 * has read nothing for --patience (10 seconds) while there was something to send is ended.
 *
 *	cc -o echo echo.c -lquarry -luring      (or, without liburing, -DECHO_WITHOUT_URING)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifndef ECHO_WITHOUT_URING
#include <liburing.h>
#endif

#include <quarry/buffers.h>

#define NONE UINT32_MAX
#define FDS 4096
#define GROUP 1
#define AT_ONCE 16
#define ACCEPTS 8
#define SHARE 8     /* a connection is to have a part of so many of the buffers */
#define REST_MS 100 /* before it is tried again to accept, when there was no descriptor or no memory */
#define RING_MAX 32768u
#define SIZE_MAX_OF_ONE (1ul << 30)

/* A kernel before 6.0 refuses to receive many times for one request; so does any, if that is to wait for all: a test asks
 * for MSG_WAITALL here. */
#ifndef MULTISHOT_FLAGS
#define MULTISHOT_FLAGS 0
#endif

/* A connection, by its descriptor. What came in and has not gone out stands in a list of buffers, by their numbers. */
static struct connection {
	bool open, receiving, multishot, sending, ended, starved;
	bool stopping; /* the kernel is asked to receive no more for it */
	uint32_t first, last, held; /* so many buffers in the list */
	quarry_buffers_waiter waiter; /* while it is starved, without io_uring */
} connections[FDS];

static struct link {
	quarry_buffer b;
	uint32_t next;
} *links;

static struct {
	bool malloced, plain;
	uint32_t buffers, size, patience, out; /* so many of the buffers are not with the kernel, */
	uint32_t waiting;            /* and so many connections wait for one that is */
	int port, listener;
	quarry_buffers *slab;
	void **malloced_at;
	uint64_t accepted, received, sent, in_part, starved, woken, held_up, rests;
} server = { .buffers = 1024, .size = 16384, .patience = 10000 };

static bool once_each; /* a kernel that receives once for each request (before 6.0) */
static bool stopped;
static int signals; /* readable when the server is to stop: a handler's flag would be missed right before a sleep */

/* Another one is accepted when there is something left for it: at once it would be refused again. */
static bool is_short(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

static void fail(const char *what)
{
	fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* SIGTERM and SIGINT come by a descriptor, like everything else. */
static void listen_to_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		fail("signalfd");
}

/* ---- what a connection has to send ---- */

static void append(struct connection *c, quarry_buffer b)
{
	links[b.id] = (struct link){ .b = b, .next = NONE };
	if (c->first == NONE)
		c->first = b.id;
	else
		links[c->last].next = b.id;
	c->last = b.id;
	c->held++;
	server.received += b.len;
}

static uint32_t share(void)
{
	return server.buffers < SHARE ? 1 : server.buffers / SHARE;
}

static void give_back(quarry_buffer b);

/* So many bytes of it have gone out. */
static void went_out(struct connection *c, size_t n)
{
	server.sent += n;
	while (c->first != NONE) {
		struct link *l = &links[c->first];

		if (n < l->b.len) {
			server.in_part += n > 0;
			l->b.p = (char *)l->b.p + n;
			l->b.len -= (uint32_t)n;
			return;
		}
		n -= l->b.len;
		c->first = l->next;
		c->held--;
		give_back(l->b);
	}
}

static void drop(struct connection *c)
{
	while (c->first != NONE) {
		uint32_t id = c->first;

		c->first = links[id].next;
		give_back(links[id].b);
	}
	c->held = 0;
}

static void begin(struct connection *c, int fd)
{
	int one = 1;

	*c = (struct connection){ .open = true, .first = NONE };
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	/* The kernel ends it when what was sent is not taken for so long, be it that the client does not read (its window is
	 * closed) or that it is gone: tcp(7). */
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &server.patience, sizeof server.patience);
	server.accepted++;
}

/* ---- with io_uring ---- */

#ifndef ECHO_WITHOUT_URING
#define FEAT_RECVSEND_BUNDLE (1u << 14) /* IORING_FEAT_RECVSEND_BUNDLE, IORING_RECVSEND_BUNDLE of linux/io_uring.h, */
#define RECVSEND_BUNDLE (1u << 4)       /* which older liburing has not; */
#define CANCEL_ALL (1u << 0)            /* IORING_ASYNC_CANCEL_ALL and _ANY, of Linux 5.19 as rings of buffers are */
#define CANCEL_ANY (1u << 2)

enum { ACCEPT, RECEIVE, SEND, REST, CANCEL, STOP };

static struct io_uring ring;
static struct io_uring_buf_ring *provided; /* of malloc'ed buffers */

static uint32_t *provided_after, provided_last; /* of each of those, which one came after it */
static bool bundles; /* the kernel fills several buffers for one completion (Linux 6.10) */

static unsigned requests;        /* that are under way */
static unsigned resting;         /* accepts that are put off */

/* Connections that the kernel had no buffer for, in their order. One that ends stays in it until its turn. */
static struct {
	int fd[FDS];
	unsigned first, n;
	bool in[FDS];
} hungry;

static void provide(uint32_t id)
{
	provided_after[provided_last] = id;
	provided_last = id;
	io_uring_buf_ring_add(provided, server.malloced_at[id], server.size, (unsigned short)id,
			      io_uring_buf_ring_mask(server.buffers), 0);
	io_uring_buf_ring_advance(provided, 1);
}

static struct io_uring_sqe *request(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (sqe == NULL) {
		int rc = io_uring_submit(&ring);

		sqe = io_uring_get_sqe(&ring);
		errno = rc < 0 ? -rc : EAGAIN;
	}
	if (sqe == NULL)
		fail("io_uring_submit");
	return sqe;
}

/* What a completion says is said last: preparing a request clears it. */
static void tell(struct io_uring_sqe *sqe, int what, int fd)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)fd << 8 | (unsigned)what);
	requests++;
}

static void receive(struct connection *c, int fd)
{
	struct io_uring_sqe *sqe = request();

	c->multishot = !once_each && share() > 1;
	if (!c->multishot)
		io_uring_prep_recv(sqe, fd, NULL, server.size, 0);
	else
		io_uring_prep_recv_multishot(sqe, fd, NULL, 0, MULTISHOT_FLAGS);
	if (bundles && c->multishot)
		sqe->ioprio |= RECVSEND_BUNDLE;
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = GROUP;
	tell(sqe, RECEIVE, fd);
	c->receiving = true;
	server.waiting -= c->starved;
	c->starved = false;
}

/* What is under way of a connection: all that has come, up to so many buffers, in one request. */
static struct sending {
	struct msghdr m;
	struct iovec iov[AT_ONCE];
} sendings[FDS];

static void send_next(struct connection *c, int fd)
{
	struct sending *s = &sendings[fd];
	struct io_uring_sqe *sqe;

	if (c->sending || c->first == NONE)
		return;
	sqe = request();
	if (links[c->first].next == NONE) {
		io_uring_prep_send(sqe, fd, links[c->first].b.p, links[c->first].b.len, MSG_NOSIGNAL);
	} else {
		s->m = (struct msghdr){ .msg_iov = s->iov };
		for (uint32_t id = c->first; id != NONE && s->m.msg_iovlen < AT_ONCE; id = links[id].next)
			s->iov[s->m.msg_iovlen++] = quarry_buffer_iovec(links[id].b);
		io_uring_prep_sendmsg(sqe, fd, &s->m, MSG_NOSIGNAL);
	}
	tell(sqe, SEND, fd);
	c->sending = true;
}

static void end_when_done(struct connection *c, int fd)
{
	if (!c->ended || c->sending || c->receiving || c->first != NONE)
		return;
	server.waiting -= c->starved;
	c->starved = false;
	c->open = false;
	close(fd);
}

/* The next buffer of a completion; what is left of it then stands in *res and *flags, and *res is 0 at its end. */
static bool take(int32_t *res, uint32_t *flags, quarry_buffer *b)
{
	uint32_t id = *flags >> IORING_CQE_BUFFER_SHIFT;

	if (!(*flags & IORING_CQE_F_BUFFER))
		return false;
	server.out++;
	if (!server.malloced)
		return quarry_ring_next(server.slab, res, flags, b) == 0;
	*b = quarry_buffer_make(server.malloced_at[id], *res > (int32_t)server.size ? server.size : (uint32_t)*res, id, 0);
	*res -= (int32_t)b->len;
	*flags = provided_after[id] << IORING_CQE_BUFFER_SHIFT | IORING_CQE_F_BUFFER;
	return true;
}

/* A connection has its share: what comes next stays with the kernel, whose window closes at last. What was received before
 * that was heard comes still. */
static void receive_no_more(struct connection *c, int fd)
{
	struct io_uring_sqe *sqe;

	if (!c->receiving || c->stopping)
		return;
	sqe = request();
	io_uring_prep_cancel64(sqe, (uint64_t)fd << 8 | RECEIVE, 0);
	tell(sqe, CANCEL, fd);
	c->stopping = true;
	server.held_up++;
}

static void receive_again(struct connection *c, int fd)
{
	if (!c->receiving && !c->ended && !c->starved && c->held <= share() / 2)
		receive(c, fd);
}

static void starve(struct connection *c, int fd)
{
	server.starved++;
	server.waiting += !c->starved;
	c->starved = true;
	if (hungry.in[fd])
		return;
	hungry.in[fd] = true;
	hungry.fd[(hungry.first + hungry.n++) % FDS] = fd;
}

static void received(struct connection *c, int fd, const struct io_uring_cqe *cqe)
{
	int32_t res = cqe->res;
	uint32_t flags = cqe->flags;
	quarry_buffer b;

	if (!(cqe->flags & IORING_CQE_F_MORE))
		c->receiving = false;
	while (take(&res, &flags, &b)) {
		if (b.len > 0 && !c->ended)
			append(c, b);
		else
			give_back(b);
		if (res <= 0)
			break;
	}
	if (!c->receiving)
		c->stopping = false;
	if (cqe->res == -EINVAL && c->multishot) {
		once_each = true; /* (others may have asked before that was known) */
	} else if (cqe->res == -ENOBUFS) {
		starve(c, fd);
		return;
	} else if (cqe->res <= 0 && cqe->res != -ECANCELED) {
		c->ended = true;
	}
	if (c->ended)
		return;
	if (c->held >= share())
		receive_no_more(c, fd);
	else if (!c->receiving)
		receive(c, fd);
}

static void was_sent(struct connection *c, int fd, const struct io_uring_cqe *cqe)
{
	c->sending = false;
	if (cqe->res >= 0) {
		went_out(c, (size_t)cqe->res);
		receive_again(c, fd);
		return;
	}
	c->ended = true;
	drop(c);
}

static void accept_one(void)
{
	struct io_uring_sqe *sqe = request();

	io_uring_prep_accept(sqe, server.listener, NULL, NULL, 0);
	tell(sqe, ACCEPT, server.listener);
}

static void accept_later(void)
{
	static struct __kernel_timespec rest = { .tv_nsec = REST_MS * 1000000 };
	struct io_uring_sqe *sqe;

	server.rests++;
	if (resting++ > 0)
		return;
	sqe = request();
	io_uring_prep_timeout(sqe, &rest, 0, 0);
	tell(sqe, REST, 0);
}

static void accepted(int res)
{
	if (res >= FDS) {
		close(res);
	} else if (res >= 0) {
		begin(&connections[res], res);
		receive(&connections[res], res);
	} else if (is_short(-res)) {
		accept_later();
		return;
	}
	accept_one();
}

static void handle(const struct io_uring_cqe *cqe)
{
	int fd = (int)(cqe->user_data >> 8);
	struct connection *c = &connections[fd];

	requests -= !(cqe->flags & IORING_CQE_F_MORE);
	if ((cqe->user_data & 0xff) == ACCEPT) {
		accepted(cqe->res);
		return;
	}
	if ((cqe->user_data & 0xff) == REST) {
		for (; resting > 0; resting--)
			accept_one();
		return;
	}
	if ((cqe->user_data & 0xff) == STOP)
		stopped = true;
	if ((cqe->user_data & 0xff) >= CANCEL)
		return; /* (what was cancelled tells of it) */
	if ((cqe->user_data & 0xff) == RECEIVE)
		received(c, fd, cqe);
	else
		was_sent(c, fd, cqe);
	/* One that could not receive stops the connection's sending when the other side has gone. */
	if (c->ended && !c->sending && cqe->res < 0)
		drop(c);
	send_next(c, fd);
	end_when_done(c, fd);
}

/* The kernel had no buffer for them, and has some now: for as many. */
static void feed_the_starved(void)
{
	for (uint32_t left = server.buffers - server.out; left > 0 && hungry.n > 0; hungry.n--) {
		int fd = hungry.fd[hungry.first];

		hungry.first = (hungry.first + 1) % FDS;
		hungry.in[fd] = false;
		if (!connections[fd].starved)
			continue;
		if (connections[fd].held > share() / 2) { /* it goes on when enough of that has gone out */
			connections[fd].starved = false;
			server.waiting--;
			continue;
		}
		receive(&connections[fd], fd);
		left--;
	}
}

/* Submits what was asked for, and waits for one that is through. (liburing returns errors, and does not set errno.) */
static void submit_and_wait(void)
{
	int rc = io_uring_submit_and_wait(&ring, 1);

	if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
		errno = -rc;
		fail("io_uring_submit_and_wait");
	}
}

/* Called for each that is through. */
static void take_completions(void (*fn)(const struct io_uring_cqe *cqe))
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&ring, head, cqe) {
		fn(cqe);
		n++;
	}
	io_uring_cq_advance(&ring, n);
}

static void serve_with_uring(void)
{
	struct io_uring_sqe *stop = request();

	io_uring_prep_poll_add(stop, signals, POLLIN);
	tell(stop, STOP, signals);
	for (int i = 0; i < ACCEPTS; i++)
		accept_one();
	while (!stopped) {
		submit_and_wait();
		take_completions(handle);
		if (server.waiting > 0)
			feed_the_starved();
	}
}

static void make_ring(void)
{
	int error = -EINVAL;

	memset(sendings, 0, sizeof sendings); /* into memory, before it is counted what comes in */
	/* The kernel does its part when this thread asks for completions, and not in the middle of something else. */
#ifdef IORING_SETUP_DEFER_TASKRUN
	error = io_uring_queue_init(1024, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
#endif
	if (error == -EINVAL) /* before Linux 6.1 */
		error = io_uring_queue_init(1024, &ring, 0);
	if (error < 0) {
		fprintf(stderr, "echo: io_uring is refused here (%s): try --plain\n", strerror(-error));
		exit(77);
	}
	bundles = ring.features & FEAT_RECVSEND_BUNDLE;
	if (server.malloced) {
		struct io_uring_buf_reg reg = { .ring_entries = server.buffers, .bgid = GROUP };

		provided_after = calloc(server.buffers, sizeof *provided_after);
		if (provided_after == NULL ||
		    posix_memalign((void **)&provided, 4096, server.buffers * sizeof(struct io_uring_buf)) != 0)
			fail("memory");
		memset(provided_after, 0, server.buffers * sizeof *provided_after);
		io_uring_buf_ring_init(provided);
		reg.ring_addr = (uintptr_t)provided;
		error = io_uring_register_buf_ring(&ring, &reg, 0);
		if (error < 0) {
			fprintf(stderr, "echo: no rings of buffers here (%s): try --plain\n", strerror(-error));
			exit(77);
		}
		for (uint32_t id = 0; id < server.buffers; id++)
			provide(id);
	} else if (quarry_ring_register(server.slab, ring.ring_fd, GROUP, server.buffers, bundles ? QUARRY_RING_BUNDLES : 0) != 0) {
		fprintf(stderr, "echo: no rings of buffers here (%s: %s): try --plain\n", strerror(errno),
			quarry_error_text());
		exit(77);
	}
}

static void give_back(quarry_buffer b)
{
	server.out--;
	if (server.malloced)
		provide(b.id);
	else
		quarry_buffer_release(b);
}

/* What was under way, and is through or cancelled. */
static void handle_at_the_end(const struct io_uring_cqe *cqe)
{
	int32_t res = cqe->res;
	uint32_t flags = cqe->flags;
	quarry_buffer b;

	requests -= !(cqe->flags & IORING_CQE_F_MORE);
	if ((cqe->user_data & 0xff) == ACCEPT && cqe->res >= 0)
		close(cqe->res);
	if ((cqe->user_data & 0xff) == RECEIVE)
		while (take(&res, &flags, &b)) {
			give_back(b);
			if (res <= 0)
				break;
		}
}

/* Nothing uses the buffers any more when the kernel is to let go of them. */
static void end_requests(void)
{
	struct io_uring_sqe *sqe = request();

	io_uring_prep_cancel(sqe, NULL, 0);
	sqe->cancel_flags = CANCEL_ALL | CANCEL_ANY;
	tell(sqe, CANCEL, 0);
	while (requests > 0) {
		submit_and_wait();
		take_completions(handle_at_the_end);
	}
}

static void end_ring(void)
{
	end_requests();
	if (server.slab != NULL)
		quarry_ring_unregister(server.slab); /* while the descriptor is this io_uring's */
	io_uring_queue_exit(&ring);
}
#else
static void make_ring(void)
{
	fprintf(stderr, "echo: built without liburing: try --plain\n");
	exit(77);
}

static void serve_with_uring(void)
{
}

static void end_ring(void)
{
}

static void give_back(quarry_buffer b)
{
	quarry_buffer_release(b);
}
#endif

/* ---- without ---- */

static int poller;

static void watch(int fd, int how, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	if (epoll_ctl(poller, how, fd, &e) != 0)
		fail("epoll_ctl");
}

static void receive_plainly(struct connection *c, int fd)
{
	quarry_buffer b[AT_ONCE];
	ssize_t n = quarry_buffers_receive(server.slab, fd, b, share() < AT_ONCE ? share() : AT_ONCE, MSG_DONTWAIT);

	if (n < 0 && errno == ENOBUFS) {
		server.starved++;
		c->starved = true;
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	c->ended = n <= 0;
	for (int i = 0; n > 0; n -= b[i++].len)
		append(c, b[i]);
}

static void send_plainly(struct connection *c, int fd)
{
	while (c->first != NONE) {
		struct iovec iov[AT_ONCE];
		struct msghdr m = { .msg_iov = iov };
		ssize_t n;

		for (uint32_t id = c->first; id != NONE && m.msg_iovlen < AT_ONCE; id = links[id].next)
			iov[m.msg_iovlen++] = quarry_buffer_iovec(links[id].b);
		n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			c->ended = true;
			drop(c);
			return;
		}
		went_out(c, (size_t)n);
	}
}

/* False at its end. */
static bool send_or_end(struct connection *c, int fd)
{
	send_plainly(c, fd);
	if (!c->ended || c->first != NONE)
		return true;
	c->open = false;
	close(fd);
	return false;
}

/* While there is something to send nothing more is taken in. */
static uint32_t what_next(const struct connection *c)
{
	return c->first != NONE ? EPOLLOUT : EPOLLIN;
}

/* There is a buffer for a connection that waited for one. */
static void on_buffer(quarry_buffers_waiter *waiter, quarry_buffer b)
{
	struct connection *c = waiter->ctx;
	int fd = (int)(c - connections);
	ssize_t n = recv(fd, b.p, b.len, MSG_DONTWAIT);

	server.woken++;
	c->starved = false;
	c->ended = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	b.len = n > 0 ? (uint32_t)n : 0;
	if (n > 0)
		append(c, b);
	else
		give_back(b);
	if (send_or_end(c, fd))
		watch(fd, EPOLL_CTL_ADD, what_next(c));
}

/* There was none. Until there is one the connection is not looked at: what it has to say would be said again and again. */
static void wait_for_buffer(struct connection *c, int fd)
{
	watch(fd, EPOLL_CTL_DEL, 0);
	c->waiter = (quarry_buffers_waiter){ .ready = on_buffer, .ctx = c };
	if (quarry_buffers_wait(server.slab, &c->waiter) < 0)
		fail(quarry_error_text());
}

static uint64_t rests_until; /* in ms: not 0: the listener is not looked at until then */

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void accept_plainly(void)
{
	int fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= FDS) {
		close(fd);
	} else if (fd >= 0) {
		begin(&connections[fd], fd);
		watch(fd, EPOLL_CTL_ADD, EPOLLIN);
	} else if (is_short(errno)) {
		server.rests++;
		rests_until = now_ms() + REST_MS;
		watch(server.listener, EPOLL_CTL_MOD, 0);
	}
}

static void serve_one(struct connection *c, int fd)
{
	if (!c->ended && c->first == NONE)
		receive_plainly(c, fd);
	if (c->starved)
		wait_for_buffer(c, fd);
	else if (send_or_end(c, fd))
		watch(fd, EPOLL_CTL_MOD, what_next(c));
}

static void serve_plainly(void)
{
	struct epoll_event events[64];

	poller = epoll_create1(EPOLL_CLOEXEC);
	watch(server.listener, EPOLL_CTL_ADD, EPOLLIN);
	watch(signals, EPOLL_CTL_ADD, EPOLLIN);
	while (!stopped) {
		int n = epoll_wait(poller, events, 64, rests_until != 0 ? REST_MS : -1);

		if (rests_until != 0 && now_ms() >= rests_until) {
			rests_until = 0;
			watch(server.listener, EPOLL_CTL_MOD, EPOLLIN);
		}
		for (int i = 0; i < n; i++)
			if (events[i].data.fd == signals)
				stopped = true;
			else if (events[i].data.fd == server.listener)
				accept_plainly();
			else
				serve_one(&connections[events[i].data.fd], events[i].data.fd);
	}
}

/* Nobody takes up what is dropped at the end. */
static void wait_no_more(void)
{
	for (int fd = 0; fd < FDS; fd++)
		if (connections[fd].starved)
			quarry_buffers_cancel(server.slab, &connections[fd].waiter);
}

/* ---- begun and ended ---- */

static void make_buffers(void)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = server.size, .count = server.buffers,
				     .flags = QUARRY_BUFFERS_POPULATE };

	links = calloc(server.buffers, sizeof *links);
	if (links == NULL)
		fail("memory");
	memset(links, 0, server.buffers * sizeof *links);
	memset(connections, 0, sizeof connections);
	if (server.malloced) {
		server.malloced_at = calloc(server.buffers, sizeof *server.malloced_at);
		for (uint32_t i = 0; server.malloced_at != NULL && i < server.buffers; i++) {
			server.malloced_at[i] = malloc(server.size);
			if (server.malloced_at[i] == NULL)
				fail("memory");
			memset(server.malloced_at[i], 0, server.size);
		}
		return;
	}
	server.slab = quarry_buffers_create(&attr);
	if (server.slab == NULL)
		fail(quarry_error_text());
}

static void listen_here(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)server.port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int one = 1;

	server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(server.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (server.listener < 0 || bind(server.listener, (struct sockaddr *)&a, len) != 0 ||
	    listen(server.listener, 1024) != 0 || getsockname(server.listener, (struct sockaddr *)&a, &len) != 0)
		fail("listen");
	printf("port %d\n", ntohs(a.sin_port));
	fflush(stdout);
}

static uint32_t number(const char *name, const char *text, unsigned long least, unsigned long most)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 0);
	if (*text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && n >= least && n <= most)
		return (uint32_t)n;
	fprintf(stderr, "echo: %s: %s is no number from %lu to %lu\n", name, text, least, most);
	exit(2);
}

static void arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--malloc") == 0)
			server.malloced = true;
		else if (strcmp(argv[i], "--plain") == 0)
			server.plain = true;
		else if (strcmp(argv[i], "--buffers") == 0 && i + 1 < argc)
			server.buffers = number("--buffers", argv[++i], 1, 1ul << 24);
		else if (strcmp(argv[i], "--size") == 0 && i + 1 < argc)
			server.size = number("--size", argv[++i], 1, SIZE_MAX_OF_ONE);
		else if (strcmp(argv[i], "--patience") == 0 && i + 1 < argc)
			server.patience = number("--patience", argv[++i], 1, INT32_MAX);
		else if (strcmp(argv[i], "--port") == 0 && i + 1 < argc)
			server.port = (int)number("--port", argv[++i], 0, 65535);
		else {
			fprintf(stderr, "usage: echo [--malloc | --plain] [--buffers N] [--size BYTES] [--port N] [--patience MS]\n");
			exit(2);
		}
	}
	if (!server.plain && (server.buffers > RING_MAX || (server.buffers & (server.buffers - 1)) != 0)) {
		fprintf(stderr, "echo: --buffers: io_uring's rings are of a power of two of buffers, up to %u\n", RING_MAX);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	bool whole = true;

	arguments(argc, argv);
	listen_to_signals();
	make_buffers();
	if (!server.plain)
		make_ring();
	listen_here();
	if (server.plain) {
		serve_plainly();
		wait_no_more();
	} else {
		serve_with_uring();
		end_ring();
	}
	for (int fd = 0; fd < FDS; fd++)
		if (connections[fd].open)
			drop(&connections[fd]);
	if (server.slab != NULL)
		whole = quarry_buffers_destroy(server.slab) == 0;
	printf("connections %llu, received %llu, sent %llu, in part %llu, starved %llu, woken %llu, held up %llu, rests %llu, "
	       "%sbuffers %s\n",
	       (unsigned long long)server.accepted, (unsigned long long)server.received, (unsigned long long)server.sent,
	       (unsigned long long)server.in_part, (unsigned long long)server.starved,
	       (unsigned long long)server.woken, (unsigned long long)server.held_up, (unsigned long long)server.rests, once_each ? "each received by itself, " : "",
	       whole ? "all back" : quarry_error_text());
	return whole ? 0 : 1;
}
