/* SPDX-License-Identifier: MIT */
/* HTTP/1.0 on a Unix socket, as much of it as a scrape needs: GET, one connection at a time, no more than some seconds and
 * some kilobytes each. Who may connect is by the rights of the socket and its folder. */
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REQUEST_MAX 8192
#define SECONDS 5     /* for a request, and for the answer */
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

/* ---- a request ---- */

/* Until the time (published_now) is over, or a signal wants an end: then false. */
static bool wait_for(int fd, short events, uint64_t end)
{
	struct pollfd one = { .fd = fd, .events = events };
	uint64_t now;

	while (!wants_end && (now = published_now()) < end) {
		int n = poll_unless(&wants_end, &end_signals, &one, 1, (int)((end - now) / 1000000 + 1));

		if (n != 0 && (n > 0 || errno != EINTR))
			return n > 0;
	}
	return false;
}

static uint64_t in_seconds(unsigned seconds)
{
	return published_now() + seconds * UINT64_C(1000000000);
}

static bool is_passing(int error)
{
	return error == EINTR || error == EAGAIN;
}

/* Up to the empty line. False when none came in time, or it was too long. */
static bool read_request(int fd, char *text, size_t size)
{
	uint64_t end = in_seconds(SECONDS);
	size_t used = 0;

	while (used + 1 < size && wait_for(fd, POLLIN, end)) {
		ssize_t n = recv(fd, text + used, size - 1 - used, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && !is_passing(errno)))
			return false;
		used += n > 0 ? (size_t)n : 0;
		text[used] = '\0';
		if (strstr(text, "\r\n\r\n") || strstr(text, "\n\n"))
			return strlen(text) == used;
	}
	return false;
}

static void send_all(int fd, const char *text, size_t size)
{
	uint64_t end = in_seconds(SECONDS);

	while (size > 0 && wait_for(fd, POLLOUT, end)) {
		ssize_t n = send(fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && !is_passing(errno))
			return;
		text += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
}

static void answer(int fd, const char *status, const char *type, const char *body, size_t size)
{
	char head[256];
	int n = snprintf(head, sizeof(head), "HTTP/1.0 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n", status, type, size);

	send_all(fd, head, (size_t)n);
	send_all(fd, body, size);
}

static void answer_line(int fd, const char *status, const char *why)
{
	char line[300];

	snprintf(line, sizeof(line), "%s\n", why);
	answer(fd, status, "text/plain; charset=utf-8", line, strlen(line));
}

/* (In a file without a name, since its length comes first.) */
static void answer_metrics(int fd, const struct published *from, unsigned flags)
{
	int file = memfd_create("quarry-metrics", MFD_CLOEXEC);
	off_t size = 0;
	char *text = MAP_FAILED;

	if (file >= 0 && quarry_published_metrics(from->copy, from->size, file, flags) == 0)
		size = lseek(file, 0, SEEK_END);
	if (size > 0)
		text = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
	if (text != MAP_FAILED) {
		answer(fd, "200 OK", flags & QUARRY_METRICS_CLASSIC ? "text/plain; version=0.0.4; charset=utf-8" :
				     "application/openmetrics-text; version=1.0.0; charset=utf-8", text, (size_t)size);
		munmap(text, (size_t)size);
	} else {
		answer_line(fd, "500 Internal Server Error", strerror(errno));
	}
	if (file >= 0)
		close(file);
}

/* Who does not ask for OpenMetrics gets the format that every scraper knows. What cannot be read now may be the next
 * time. */
static void serve_one(int fd, struct published *from, unsigned flags)
{
	char request[REQUEST_MAX];

	if (!read_request(fd, request, sizeof(request))) {
		answer_line(fd, "400 Bad Request", "no request, or one that is too long");
	} else if (strncmp(request, "GET /", 5) != 0) {
		answer_line(fd, "405 Method Not Allowed", "GET is all there is");
	} else if (published_read(from) != STATUS_OK) {
		answer_line(fd, "503 Service Unavailable", from->error);
	} else {
		if (!strcasestr(request, "application/openmetrics-text"))
			flags |= QUARRY_METRICS_CLASSIC;
		answer_metrics(fd, from, flags);
	}
}

/* ---- one after the other ---- */

static bool is_short_of(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* False with errno when there will be no other. */
static bool accept_one(int listening, struct published *from, unsigned flags)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && is_short_of(errno)) {
		(void)poll_unless(&wants_end, &end_signals, NULL, 0, SHORT_MS);
		return true;
	}
	if (fd < 0)
		return is_passing(errno) || errno == ECONNABORTED;
	serve_one(fd, from, flags);
	close(fd);
	return true;
}

/* 0 when a signal wants an end; an errno, ESRCH when the process has ended. */
static int serve(int listening, int process, struct published *from, unsigned flags)
{
	struct pollfd either[] = { { .fd = listening, .events = POLLIN }, { .fd = process, .events = POLLIN } };

	while (!wants_end) {
		int n = poll_unless(&wants_end, &end_signals, either, 2, process < 0 ? LOOK_MS : -1);

		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0 && either[0].revents && !accept_one(listening, from, flags))
			return errno;
		if (from->gone || (n > 0 && either[1].revents) || (process < 0 && published_ended(from)))
			return ESRCH;
	}
	return 0;
}

int metrics_serve(struct published *from, const char *path, unsigned flags)
{
	struct lock lock;
	int listening, process, error;

	catch_signals();
	listening = begin(&lock, path);
	if (listening < 0)
		return fail(STATUS_FAILED, "metrics: %s: %s", path, strerror(errno));
	process = published_process(from);
	error = published_ended(from) ? ESRCH : serve(listening, process, from, flags);
	(void)unlink(path);
	close(listening);
	give_lock(&lock);
	if (process >= 0)
		close(process);
	return error ? fail(STATUS_FAILED, "metrics: %d: %s", from->pid, strerror(error)) : STATUS_OK;
}
