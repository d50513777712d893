/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store.h"

/* ---- descriptors over sockets ---- */

static int address_of(const char *path, struct sockaddr_un *to)
{
	*to = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) < sizeof(to->sun_path)) {
		strcpy(to->sun_path, path);
		return 0;
	}
	errno = ENAMETOOLONG;
	return -1;
}

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int))];
};

static int send_fd(int to, int fd)
{
	char byte = 'f';
	union control control = { .room = { 0 } };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 ? 0 : -1;
}

static int receive_fd(int from)
{
	char byte;
	union control control;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room) };
	struct cmsghdr *c;
	ssize_t got;
	int fd = -1;

	do
		got = recvmsg(from, &m, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	c = got == 1 ? CMSG_FIRSTHDR(&m) : NULL;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	else if (got >= 0)
		errno = ECONNRESET;
	return fd;
}

int supervisor_ask(const char *path)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1, error;
	struct sockaddr_un to;

	if (s >= 0 && address_of(path, &to) == 0 && connect(s, (struct sockaddr *)&to, sizeof(to)) == 0)
		fd = receive_fd(s);
	error = errno;
	if (s >= 0)
		close(s);
	errno = error;
	return fd;
}

int supervised_fd(void)
{
	const char *text = getenv("CACHE_FD");

	if (!text || !*text || text[strspn(text, "0123456789")]) {
		errno = EBADF;
		return -1;
	}
	return fcntl(atoi(text), F_DUPFD_CLOEXEC, 3);
}

/* ---- the supervisor ---- */

/* The socket's name is this supervisor's for as long as it has the lock beside it: between bind and listen a socket answers nobody, so
 * that it is connected to does not tell whether it is somebody's. */
struct place {
	const char *path;
	char lock_path[PATH_MAX];
	int lock, listener;
	bool locked;
	struct stat socket;
};

static bool same_file(const char *path, const struct stat *is)
{
	struct stat now;

	return lstat(path, &now) == 0 && now.st_dev == is->st_dev && now.st_ino == is->st_ino;
}

/* (Who had it may have removed it just before we got it.) */
static int lock_beside(struct place *p)
{
	struct stat is;

	if (snprintf(p->lock_path, sizeof(p->lock_path), "%s.lock", p->path) >= (int)sizeof(p->lock_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (;;) {
		p->lock = open(p->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (p->lock < 0)
			return -1;
		if (flock(p->lock, LOCK_EX | LOCK_NB) != 0) {
			errno = errno == EWOULDBLOCK ? EADDRINUSE : errno;
			return -1;
		}
		p->locked = fstat(p->lock, &is) == 0 && same_file(p->lock_path, &is);
		if (p->locked)
			return 0;
		close(p->lock);
	}
}

/* The name is taken over where nobody listens any more. (The mask is for bind alone: it would be the program's as well.) */
static int bind_there(struct place *p, const struct sockaddr_un *at)
{
	int try = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;
	mode_t mask;

	if (try >= 0 && connect(try, (const struct sockaddr *)at, sizeof(*at)) != 0 && errno == ECONNREFUSED)
		(void)unlink(p->path);
	if (try >= 0)
		close(try);
	mask = umask(077);
	rc = bind(p->listener, (const struct sockaddr *)at, sizeof(*at));
	(void)umask(mask);
	return rc == 0 ? lstat(p->path, &p->socket) : -1;
}

/* Only what is ours; errno stays. */
static void leave_place(struct place *p)
{
	int error = errno;

	if (p->socket.st_ino != 0 && same_file(p->path, &p->socket))
		(void)unlink(p->path);
	if (p->listener >= 0)
		close(p->listener);
	if (p->locked)
		(void)unlink(p->lock_path);
	if (p->lock >= 0)
		close(p->lock);
	errno = error;
}

static int listen_at(struct place *p)
{
	struct sockaddr_un at;

	if (address_of(p->path, &at) != 0 || lock_beside(p) != 0)
		return -1;
	p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return p->listener >= 0 && bind_there(p, &at) == 0 ? listen(p->listener, 64) : -1;
}

struct supervisor {
	struct place place;
	struct cache *cache;
	char **command;
	int signals;
	sigset_t before;            /* what a program finds: the mask, */
	struct sigaction pipe;      /* and what SIGPIPE does */
	pid_t child;                /* 0: there is none to be told, or to be waited for */
	int status;                 /* to end with, or -1 */
	uint64_t killed_at_ms;      /* it is to end: when it is killed, if it has not ended by then */
	bool full;                  /* who asked could not be let in: nobody is, for a moment */
};

#define GRACE_MS 5000u
#define PAUSE_MS 100

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* (Where there are no descriptors, who waits goes on waiting, and so does poll say: it is not asked at once.) */
static void answer(struct supervisor *v)
{
	int s = accept4(v->place.listener, NULL, NULL, SOCK_CLOEXEC);
	struct ucred who;
	socklen_t n = sizeof(who);

	v->full = s < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR;
	if (s < 0)
		return;
	if (getsockopt(s, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.uid == geteuid())
		(void)send_fd(s, quarry_mapped_fd(cache_heap(v->cache)));
	close(s);
}

/* It ends with the supervisor, whose memory nobody else would find again; and it is itself, with its own open heap, so the one that fork made
 * of ours is closed: else it would count as one that died. */
static void become(struct supervisor *v, pid_t parent)
{
	int own = dup(quarry_mapped_fd(cache_heap(v->cache))); /* it stays open in the program */
	char text[16];

	cache_close(v->cache);
	snprintf(text, sizeof(text), "%d", own);
	setenv("CACHE_FD", text, 1);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(127);
	sigaction(SIGPIPE, &v->pipe, NULL);
	sigprocmask(SIG_SETMASK, &v->before, NULL);
	execvp(v->command[0], v->command);
	_exit(127);
}

/* Where there can be no process it is said why, and it ends. */
static void start(struct supervisor *v)
{
	pid_t self = getpid(), pid = fork();

	if (pid == 0)
		become(v, self);
	if (pid < 0) {
		fprintf(stderr, "cache: %s cannot be started: %s\n", v->command[0], strerror(errno));
		v->status = 1;
	}
	v->child = pid > 0 ? pid : 0;
}

/* Who dies at once, again and again, is not started without end. */
static void child_ended(struct supervisor *v)
{
	static int in_a_row;
	static time_t last;
	int how;

	if (v->child == 0 || waitpid(v->child, &how, WNOHANG) != v->child)
		return;
	v->child = 0; /* (the number may be anybody's from now on) */
	if (v->status >= 0)
		return;
	if (!WIFSIGNALED(how)) {
		v->status = WEXITSTATUS(how);
		return;
	}
	in_a_row = time(NULL) - last < 2 ? in_a_row + 1 : 0;
	last = time(NULL);
	if (in_a_row > 100) {
		fprintf(stderr, "cache: %s is killed again and again\n", v->command[0]);
		v->status = 1;
		return;
	}
	start(v);
	if (v->child == 0)
		return;
	printf("restarted %ld\n", (long)v->child);
	fflush(stdout);
}

/* The program is told to end; when it is told once more, or takes too long, it is killed. */
static void told_to_end(struct supervisor *v)
{
	bool again = v->status >= 0;

	v->status = again ? v->status : 0;
	v->killed_at_ms = now_ms() + (again ? 0 : GRACE_MS);
	if (v->child > 0)
		(void)kill(v->child, again ? SIGKILL : SIGTERM);
}

/* How long to wait for anything: -1 without end. */
static int wait_ms(struct supervisor *v)
{
	uint64_t now = now_ms();

	if (v->status < 0)
		return v->full ? PAUSE_MS : -1;
	if (now >= v->killed_at_ms) {
		(void)kill(v->child, SIGKILL);
		return -1;
	}
	return v->full ? PAUSE_MS : (int)(v->killed_at_ms - now);
}

static int serve(struct supervisor *v)
{
	if (v->command && v->command[0])
		start(v);
	while (v->status < 0 || v->child > 0) {
		struct pollfd wait[] = { { .fd = v->full ? -1 : v->place.listener, .events = POLLIN }, { .fd = v->signals, .events = POLLIN } };
		struct signalfd_siginfo got;

		if (poll(wait, 2, wait_ms(v)) < 0 && errno != EINTR) {
			v->status = 1;
			break;
		}
		v->full = false;
		if (wait[0].revents)
			answer(v);
		if (!wait[1].revents || read(v->signals, &got, sizeof(got)) != sizeof(got))
			continue;
		if (got.ssi_signo == SIGCHLD)
			child_ended(v);
		else
			told_to_end(v);
	}
	return v->status;
}

/* Who reads what is printed may be gone: that is no reason to end, and the memory with it. */
static int take_signals(struct supervisor *v)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	v->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return v->signals < 0 || sigaction(SIGPIPE, &ignore, &v->pipe) != 0 ? -1 : sigprocmask(SIG_BLOCK, &set, &v->before);
}

int supervise(const char *path, uint64_t limit, char **command)
{
	struct supervisor v = { .place = { .path = path, .lock = -1, .listener = -1 }, .command = command, .signals = -1, .status = -1 };

	v.cache = cache_volatile(limit);
	if (!v.cache || listen_at(&v.place) != 0 || take_signals(&v) != 0) {
		fprintf(stderr, "cache: supervise: %s: %s\n", path, strerror(errno));
		v.status = 1;
	} else {
		printf("holding\n");
		fflush(stdout);
		v.status = serve(&v);
	}
	leave_place(&v.place);
	if (v.signals >= 0)
		close(v.signals);
	cache_close(v.cache);
	return v.status;
}
