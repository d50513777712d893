/* SPDX-License-Identifier: MIT */
/* Listening on a Unix socket, and serving those who connect (metrics_http.c), several at once: who says nothing holds up
 * nobody. Who may connect is by the rights of the socket and its folder. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/metrics_http.h"

#define CLIENTS_MAX 16
#define SHORT_MS 100  /* until the next try, without descriptors or memory */
#define LOOK_MS 1000  /* between two looks for the process, where the kernel does not tell (before Linux 5.3) */

static volatile sig_atomic_t wants_end;
static sigset_t end_signals;

static void on_signal(int sig)
{
	wants_end = sig;
}

static void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = on_signal };

	sigemptyset(&end_signals);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		sigaddset(&end_signals, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
}

/* ---- the socket ---- */

static bool is_socket(const char *path)
{
	struct stat is;

	return lstat(path, &is) == 0 && S_ISSOCK(is.st_mode);
}

/* (One that does not come to accepting has so many waiting that a connection is told to come again.) */
static bool nobody_listens(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 &&
		       errno == ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return refused;
}

/* -1 with errno. One that nobody listens at was left behind, and is replaced; nothing else is. */
static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, error;

	strcpy(address.sun_path, path);
	if (is_socket(path) && nobody_listens(&address))
		(void)unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0) {
		if (listen(fd, 16) == 0)
			return fd;
		(void)unlink(path);
	}
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* ---- whose it is ---- */

/* A file PATH.lock is locked by who serves at PATH, from before it looks who listens there until it does not any more:
 * of two that start at once, none takes the other's for one that was left behind. (A lock of fcntl's: children do not
 * have it.) */
struct lock {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	int fd;
};

/* Whether what we have open is what others find there: who had it before may have removed it meanwhile. */
static bool is_there(const struct lock *lock)
{
	struct stat ours, theirs;

	return fstat(lock->fd, &ours) == 0 && lstat(lock->path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
	       ours.st_ino == theirs.st_ino;
}

/* 0, or an errno. */
static int take_lock(struct lock *lock, const char *path)
{
	const struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int error;

	snprintf(lock->path, sizeof(lock->path), "%s.lock", path);
	for (;;) {
		lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
		if (lock->fd < 0)
			return errno;
		error = fcntl(lock->fd, F_SETLK, &all) == 0 ? 0 : errno == EACCES || errno == EAGAIN ? EADDRINUSE : errno;
		if (!error && is_there(lock))
			return 0;
		close(lock->fd);
		if (error)
			return error;
	}
}

static void give_lock(struct lock *lock)
{
	(void)unlink(lock->path);
	close(lock->fd);
}

/* -1 with errno. */
static int begin(struct lock *lock, const char *path)
{
	int fd;

	errno = strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path) ? take_lock(lock, path) : ENAMETOOLONG;
	if (errno)
		return -1;
	fd = listen_at(path);
	if (fd < 0) {
		int error = errno;

		give_lock(lock);
		errno = error;
	}
	return fd;
}

/* ---- those who connected ---- */

struct server {
	int listening, process; /* process: readable when it has ended; -1: the kernel does not tell */
	struct published *from;
	unsigned flags;
	bool gone;              /* the process: the answers that have begun are all there is to do */
	uint64_t accepts_from;  /* when (published_now), after there was no descriptor or memory */
	struct http_client clients[CLIENTS_MAX]; /* fd: -1: none */
};

static bool is_short_of(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Where there is no place left, whoever has waited longest without a request gives up his. NULL: all are being answered. */
static struct http_client *place_for_one(struct server *s)
{
	struct http_client *oldest = NULL;

	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct http_client *c = &s->clients[i];

		if (c->fd < 0)
			return c;
		if (!c->answering && (!oldest || c->end < oldest->end))
			oldest = c;
	}
	return oldest;
}

/* False with errno when there will be no other. */
static bool accept_one(struct server *s)
{
	struct http_client *place = place_for_one(s);
	int fd = place ? accept4(s->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;

	if (!place)
		return true;
	if (fd < 0 && is_short_of(errno)) {
		s->accepts_from = published_now() + SHORT_MS * UINT64_C(1000000);
		return true;
	}
	if (fd < 0)
		return errno == EINTR || errno == EAGAIN || errno == ECONNABORTED;
	if (place->fd >= 0)
		http_give_up(place);
	http_begin(place, fd);
	return true;
}

/* fds: of those who are connected, in their order. */
static void go_on(struct server *s, const struct pollfd *fds)
{
	uint64_t now = published_now();

	/* (A look at the process may take a while.) */
	for (size_t i = 0; i < CLIENTS_MAX && !wants_end; i++) {
		struct http_client *c = &s->clients[i];

		if (c->fd < 0)
			continue;
		if ((fds++)->revents)
			http_go_on(c, s->from, s->flags);
		else if (now >= c->end)
			http_give_up(c);
	}
	s->gone = s->gone || s->from->gone;
}

/* ---- waiting ---- */

static bool is_answering(const struct server *s)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		if (s->clients[i].fd >= 0 && s->clients[i].answering)
			return true;
	return false;
}

static void sooner(int *ms, uint64_t now, uint64_t then)
{
	int left = then > now ? (int)((then - now) / 1000000 + 1) : 0;

	if (*ms < 0 || left < *ms)
		*ms = left;
}

enum { LISTENING, PROCESS, CLIENTS, FDS = CLIENTS + CLIENTS_MAX };

/* What to wait for, and for how long. (A negative descriptor is none. But poll(2) takes no more of them than RLIMIT_NOFILE.) */
static nfds_t wait_for_what(struct server *s, struct pollfd fds[FDS], int *ms)
{
	uint64_t now = published_now();
	bool accepts = !s->gone && now >= s->accepts_from && place_for_one(s);
	nfds_t count = CLIENTS;

	*ms = s->process < 0 ? LOOK_MS : -1;
	fds[LISTENING] = (struct pollfd){ .fd = accepts ? s->listening : -1, .events = POLLIN };
	fds[PROCESS] = (struct pollfd){ .fd = s->gone ? -1 : s->process, .events = POLLIN };
	if (!s->gone && now < s->accepts_from)
		sooner(ms, now, s->accepts_from);
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		const struct http_client *c = &s->clients[i];

		if (c->fd < 0)
			continue;
		fds[count++] = (struct pollfd){ .fd = c->fd, .events = c->answering ? POLLOUT : POLLIN };
		sooner(ms, now, c->end);
	}
	return count;
}

/* 0 when a signal wants an end; an errno, ESRCH when the process has ended. */
static int serve(struct server *s)
{
	while (!wants_end) {
		struct pollfd fds[FDS];
		int ms;
		nfds_t count = wait_for_what(s, fds, &ms);

		if (poll_unless(&wants_end, &end_signals, fds, count, ms) < 0 && errno != EINTR)
			return errno;
		go_on(s, fds + CLIENTS);
		if (fds[LISTENING].revents && !accept_one(s))
			return errno;
		s->gone = s->gone || fds[PROCESS].revents || (s->process < 0 && published_ended(s->from));
		if (s->gone && !is_answering(s))
			return ESRCH;
	}
	return 0;
}

/* ---- the whole ---- */

/* (bind(2) says the same of whatever stands there.) */
static const char *words_for(int error, const char *path)
{
	struct stat is;

	if (error != EADDRINUSE || lstat(path, &is) != 0 || S_ISSOCK(is.st_mode))
		return strerror(error);
	return S_ISREG(is.st_mode) ? "a plain file is there, and no socket" :
	       S_ISDIR(is.st_mode) ? "a folder is there, and no socket" :
	       S_ISLNK(is.st_mode) ? "a symbolic link is there, and no socket" : "something else than a socket is there";
}

static int serve_all(struct server *s)
{
	int error;

	for (size_t i = 0; i < CLIENTS_MAX; i++)
		s->clients[i].fd = -1;
	error = published_ended(s->from) ? ESRCH : serve(s);
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		if (s->clients[i].fd >= 0)
			http_end(&s->clients[i]);
	return error;
}

int metrics_serve(struct published *from, const char *path, unsigned flags)
{
	struct server *s = calloc(1, sizeof(*s));
	struct lock lock;
	int error;

	if (!s)
		return fail(STATUS_FAILED, "metrics: no memory");
	catch_signals();
	s->from = from;
	s->flags = flags;
	s->listening = begin(&lock, path);
	if (s->listening < 0) {
		free(s);
		return fail(STATUS_FAILED, "metrics: %s: %s", path, words_for(errno, path));
	}
	s->process = published_process(from);
	error = serve_all(s);
	(void)unlink(path);
	close(s->listening);
	give_lock(&lock);
	if (s->process >= 0)
		close(s->process);
	free(s);
	if (error == ESRCH && from->gone)
		return fail(STATUS_FAILED, "metrics: %d: %s", from->pid, from->error);
	return error ? fail(STATUS_FAILED, "metrics: %d: %s", from->pid, strerror(error)) : STATUS_OK;
}
