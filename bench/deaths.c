/* SPDX-License-Identifier: MIT */
/* What a death in a shared heap costs those who live: how long it takes to attach to a heap of 4 GiB in use while another has it open;
 * to open it after all who had it were killed in the midst of changes; and the longest of a survivor's calls when another is killed beside
 * it, apart for those who died with the heap's lock, and for none who died. Wall time: some of it is the kernel's and its scheduler's.
 * /dev/shm; the objects are not written to, so that 1 GiB of memory is enough. deaths [KILLS] */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "median.h"
#include "quarry/mapped.h"

enum { ATTACHES = 51, OPENS = 101, WORKERS = 2, WATCH_NS = 3000000 };

static const size_t object = 32 << 10, used = (size_t)4 << 30;

static char path[64];

/* The worker's changes, so that its killer knows that it is at it. */
static struct {
	_Atomic uint64_t changes[WORKERS];
} *shared;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void fail(const char *what)
{
	fprintf(stderr, "deaths: %s: %s\n", what, quarry_error_text());
	unlink(path);
	exit(1);
}

static quarry_mapped *open_it(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL)
		fail("open");
	return h;
}

/* One object made and linked, and freed with its link: of every size class, and some units, which need the heap's lock. */
static void change(quarry_mapped *h, unsigned slot, uint64_t n)
{
	quarry_off *at = (quarry_off *)quarry_mapped_user(h, NULL) + slot;
	size_t size = n % 4 == 0 ? (size_t)100 << 10 : 16 + n * 8 % 2000;

	if (*at != 0 && quarry_mapped_free_from(h, at) != 0)
		fail("free");
	if (quarry_mapped_alloc_into(h, size, at) == NULL)
		fail("alloc");
}

static pid_t start_worker(unsigned number)
{
	pid_t parent = getpid(), pid;

	shared->changes[number] = 0;
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		quarry_mapped *h;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		h = open_it();
		for (uint64_t n = 0;; n++) {
			change(h, number, n);
			shared->changes[number]++;
		}
	}
	return pid;
}

static void wait_for_work(unsigned number, uint64_t changes)
{
	while (shared->changes[number] < changes)
		usleep(50);
}

static void kill_it(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

static void tell(const char *name, double *t, size_t n)
{
	if (n == 0) {
		printf("%s none\n", name);
		return;
	}
	median_sort(t, n);
	printf("%s %.0f us, 99 of 100 %.0f, most %.0f (%zu)\n", name, t[n / 2] / 1e3, t[n * 99 / 100] / 1e3, t[n - 1] / 1e3, n);
}

/* A process of its own attaches, works once and goes, while this one has the heap open. */
static void attach(void)
{
	static double t[ATTACHES];
	quarry_mapped *h = open_it();

	for (int i = 0; i < ATTACHES; i++) {
		double from = now();
		quarry_mapped *other = quarry_mapped_attach(quarry_mapped_fd(h));

		t[i] = now() - from;
		if (other == NULL)
			fail("attach");
		change(other, WORKERS + 1, (uint64_t)i);
		quarry_mapped_close(other);
	}
	quarry_mapped_close(h);
	tell("deaths.attach", t, ATTACHES);
}

static void open_after_kill(void)
{
	static double t[OPENS];

	for (int i = 0; i < OPENS; i++) {
		pid_t pid[WORKERS];
		quarry_mapped *h;

		for (unsigned k = 0; k < WORKERS; k++)
			pid[k] = start_worker(k);
		for (unsigned k = 0; k < WORKERS; k++)
			wait_for_work(k, 100 + (uint64_t)i);
		for (unsigned k = 0; k < WORKERS; k++)
			kill_it(pid[k]);
		t[i] = now();
		h = open_it();
		change(h, WORKERS, (uint64_t)i);
		t[i] = now() - t[i];
		quarry_mapped_close(h);
	}
	tell("deaths.open_after_kill", t, OPENS);
}

/* The longest of this process's changes in the time after, in ns; the first of them asked for at once. */
static double longest_change(quarry_mapped *h)
{
	double from = now(), last = from, longest = 0;

	for (uint64_t n = 0; last - from < WATCH_NS; n++) {
		double at;

		change(h, WORKERS, n);
		at = now();
		longest = at - last > longest ? at - last : longest;
		last = at;
	}
	return longest;
}

static uint64_t locks_of_the_dead(quarry_mapped *h)
{
	quarry_mapped_info info;

	if (quarry_mapped_info_get(h, &info, sizeof info) != 0)
		fail("info");
	return info.recovered_locks;
}

/* One worker at a time, so that each has a processor; it dies. */
static void survive(unsigned kills)
{
	double *none = calloc(kills, sizeof *none), *plain = calloc(kills, sizeof *plain), *locked = calloc(kills, sizeof *locked);
	size_t nones = 0, plains = 0, lockeds = 0;
	quarry_mapped *h = open_it();

	for (unsigned i = 0; i < kills; i++) {
		pid_t pid = start_worker(0);
		uint64_t before = locks_of_the_dead(h);
		double t;

		wait_for_work(0, 20 + i % 50);
		none[nones++] = longest_change(h);
		kill(pid, SIGKILL);
		t = longest_change(h);
		kill_it(pid);
		quarry_mapped_recover(h);
		if (locks_of_the_dead(h) != before)
			locked[lockeds++] = t;
		else
			plain[plains++] = t;
	}
	quarry_mapped_close(h);
	tell("deaths.longest_call_nobody_died", none, nones);
	tell("deaths.longest_call_one_died", plain, plains);
	tell("deaths.longest_call_one_died_with_the_lock", locked, lockeds);
	free(none);
	free(plain);
	free(locked);
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 1000;
	quarry_mapped *h;

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	snprintf(path, sizeof path, "/dev/shm/bench-deaths-%d", (int)getpid());
	h = quarry_mapped_create(path, NULL);
	if (h == NULL || shared == MAP_FAILED || kills == 0)
		fail("create");
	for (size_t have = 0; have < used; have += object)
		if (quarry_mapped_alloc(h, object) == NULL)
			fail("fill");
	quarry_mapped_close(h);
	attach();
	open_after_kill();
	survive(kills);
	return unlink(path);
}
