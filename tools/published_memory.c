/* SPDX-License-Identifier: MIT */
/* Copying another process's page: by process_vm_readv(2), or where that is refused through /proc/PID/mem; neither stops
 * the process. Whoever owns a mapping may also let its reader wait for ever (userfaultfd(2), a file of FUSE), and that
 * wait ends for a SIGKILL only: so a child reads, hands what it has read on through a pipe, and is killed when that
 * takes too long. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/published_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRIES 50           /* while it is being written, */
#define BETWEEN_NS 2000000 /* ns after each */
#define STEP_MS 100        /* without a byte from the child, so often until it is killed: 2 s (counted, for who is */
#define STEPS 20           /* stopped himself meanwhile) */
#define KILLED_MS 100      /* until it is left to die by itself */

struct answer {
	int error;
	size_t size;
	struct place place;
};

/* ---- the child ---- */

/* The way through /proc; it was opened before the fork: Yama looks at whose parent the reader is. */
struct way {
	const struct published *p;
	int mem, error;
};

static int read_by_mem(const struct way *way, uint64_t address, void *to, size_t size)
{
	if (way->mem < 0)
		return way->error;
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(way->mem, (char *)to + done, size - done, (off_t)(address + done));

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			return n == 0 ? ESRCH : errno;
	}
	return 0;
}

/* 0, or an errno. */
static int read_memory(const struct way *way, uint64_t address, void *to, size_t size)
{
	struct iovec here = { to, size }, there = { (void *)(uintptr_t)address, size };
	ssize_t n = process_vm_readv(way->p->pid, &here, 1, &there, 1, 0);

	if (n == (ssize_t)size)
		return 0;
	return n < 0 && errno == ESRCH ? ESRCH : read_by_mem(way, address, to, size);
}

/* How much of it there is something in, as its head says: what is behind that has never been written to, and reading it
 * would make the other process larger. (Whoever writes another head may have it all read.) */
static size_t used_size(const struct place *at, const quarry_published *head)
{
	uint64_t end = (uint64_t)head->arenas_offset + (uint64_t)head->arena_count * head->arena_size;
	uint64_t least = sizeof(*head);
	uint64_t total = (uint64_t)head->total_offset + head->total_size;
	uint64_t health = (uint64_t)head->health_offset + head->health_size;

	end = end > total ? end : total;
	end = end > health ? end : health;
	end = end > least ? end : least;
	return end < at->length ? (size_t)end : (size_t)at->length;
}

/* All of it between two looks at its generation that see the same one. 0, an errno, or EAGAIN. */
static int copy_page(const struct way *way, const struct place *at, char *copy, size_t *size)
{
	const struct timespec between = { 0, BETWEEN_NS };
	quarry_published before, after;
	int error = 0;

	for (int i = 0; i < TRIES; i++) {
		if (i > 0)
			nanosleep(&between, NULL);
		error = read_memory(way, at->address, &before, sizeof(before));
		*size = error ? 0 : used_size(at, &before);
		if (!error)
			error = read_memory(way, at->address, copy, *size);
		if (!error)
			error = read_memory(way, at->address, &after, sizeof(after));
		if (error)
			return error;
		memcpy(copy, &before, sizeof(before));
		if (before.generation == after.generation && before.generation % 2 == 0)
			return 0;
	}
	return EAGAIN;
}

/* (Of one that nothing has been written to yet, or not by a library that we know, nothing is known.) */
static bool is_anothers(const struct published *p, const quarry_published *head)
{
	return head->magic == QUARRY_PUBLISHED_MAGIC && head->version == QUARRY_PUBLISHED_VERSION && p->known_as != 0 &&
	       head->pid != 0 && head->pid != p->known_as;
}

/* 0, or an errno; ENODATA: none is its own. */
static int choose(const struct way *way, struct place *at)
{
	const struct published *p = way->p;
	quarry_published head;
	int error;

	for (unsigned i = 0; i < p->place_count; i++) {
		*at = p->places[i];
		error = read_memory(way, at->address, &head, sizeof(head));
		if (error || !is_anothers(p, &head))
			return error;
	}
	return ENODATA;
}

static bool write_all(int fd, const void *from, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, from, size);

		if (n < 0 && errno != EINTR)
			return false;
		from = (const char *)from + (n > 0 ? n : 0);
		size -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

static _Noreturn void be_reader(const struct way *way, int to)
{
	struct answer answer = { 0 };
	char *copy = NULL;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGPIPE, SIG_IGN);
	answer.error = choose(way, &answer.place);
	if (!answer.error)
		copy = malloc(answer.place.length);
	if (!answer.error)
		answer.error = copy ? copy_page(way, &answer.place, copy, &answer.size) : ENOMEM;
	if (answer.error)
		answer.size = 0;
	if (write_all(to, &answer, sizeof(answer)))
		(void)write_all(to, copy, answer.size);
	_exit(0);
}

/* ---- its parent ---- */

/* 0, or an errno. */
static int receive(int from, void *to, size_t size)
{
	struct pollfd in = { .fd = from, .events = POLLIN };
	int quiet = 0;

	for (size_t done = 0; done < size;) {
		int ready = poll(&in, 1, STEP_MS);
		ssize_t n;

		if (ready == 0 && ++quiet == STEPS)
			return ETIMEDOUT;
		if (ready <= 0)
			continue;
		n = read(from, (char *)to + done, size - done);
		if (n == 0)
			return ECANCELED; /* it was killed */
		if (n < 0 && errno != EINTR)
			return errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int receive_copy(struct published *p, int from)
{
	struct answer answer;
	int error = receive(from, &answer, sizeof(answer));
	char *copy;

	if (error || answer.error)
		return error ? error : answer.error;
	copy = malloc(answer.size);
	if (!copy)
		return ENOMEM;
	error = receive(from, copy, answer.size);
	if (error) {
		free(copy);
		return error;
	}
	free(p->copy);
	p->copy = copy;
	p->size = answer.size;
	p->places[0] = answer.place;
	p->place_count = 1;
	return 0;
}

/* (One that waits where not even a signal that kills ends it is not waited for.) */
static void end_reader(struct published *p, pid_t child)
{
	const struct timespec ms = { 0, 1000000 };

	(void)kill(child, SIGKILL);
	for (int i = 0; i < KILLED_MS; i++) {
		if (waitpid(child, NULL, WNOHANG) != 0)
			return;
		nanosleep(&ms, NULL);
	}
	p->left = child;
}

static int read_in_child(struct published *p, const struct way *way)
{
	int ends[2], error;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return errno;
	child = fork();
	error = errno;
	if (child == 0)
		be_reader(way, ends[1]);
	close(ends[1]);
	if (child > 0) {
		error = receive_copy(p, ends[0]);
		end_reader(p, child);
	}
	close(ends[0]);
	return error;
}

int published_copy(struct published *p)
{
	char path[64];
	struct way way = { .p = p };
	int error;

	if (p->left > 0 && waitpid(p->left, NULL, WNOHANG) == 0)
		return ETIMEDOUT;
	p->left = 0;
	snprintf(path, sizeof(path), "/proc/%d/mem", p->pid);
	way.mem = open(path, O_RDONLY | O_CLOEXEC);
	way.error = errno;
	error = read_in_child(p, &way);
	if (way.mem >= 0)
		close(way.mem);
	return error;
}
