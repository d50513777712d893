/* SPDX-License-Identifier: MIT */
/* Checkpoints of a durable heap of 1 GiB of which 1 % of the pages changed since the last one: for how long threads were held up,
 * and how many bytes were written for each that changed. Of nobody else; with threads that go on making sections in which they change one of these pages,
 * one in some 70 us each; with threads that do nothing else (so that each page has changed again whenever it is
 * looked at); with one process more that has the heap open; of pages in a row. Median and worst of rounds. Arguments: where (a directory;
 * the current one), MiB (1024), rounds (21). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quarry/mapped.h"

enum { PAGE = 4096, MOST = 101, THREADS = 4 };

static quarry_mapped *heap;
static char *memory;
static size_t pages, changing;
static size_t *which;
static volatile int ended;
static long pause_ns; /* of theirs, between sections */
static int busy; /* threads that go on: one processor is for who makes the checkpoint */
static double longest[THREADS];

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* What this process has given to write(2) and the like, as the kernel counts it. (Its write_bytes counts all of a folio that a byte of is
 * written.) */
static double written(void)
{
	FILE *f = fopen("/proc/self/io", "r");
	unsigned long long n = 0;
	char line[128];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL && sscanf(line, "wchar: %llu", &n) != 1)
		;
	if (f != NULL)
		fclose(f);
	return f != NULL ? (double)n : -1;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static uint64_t seed = 88172645463325252u;

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
	return *state;
}

static void choose(int in_a_row)
{
	size_t first = next(&seed) % (pages - changing);

	for (size_t i = 0; i < changing; i++)
		which[i] = in_a_row ? first + i : next(&seed) % pages;
}

static void change_all(void)
{
	for (size_t i = 0; i < changing; i++) {
		quarry_mapped_enter(heap);
		*(volatile uint64_t *)(memory + which[i] * PAGE + next(&seed) % 500 * 8) = next(&seed);
		quarry_mapped_leave(heap);
	}
}

static void *sections(void *number)
{
	struct timespec pause_for = { 0, pause_ns };
	uint64_t state = seed + (uintptr_t)number * 977 + 1;
	double before = now(), at;

	while (!ended) {
		quarry_mapped_enter(heap);
		*(volatile uint64_t *)(memory + which[next(&state) % changing] * PAGE + 8 * (uintptr_t)number) = state;
		quarry_mapped_leave(heap);
		at = now();
		if (at - before > longest[(uintptr_t)number])
			longest[(uintptr_t)number] = at - before;
		if (pause_ns != 0)
			nanosleep(&pause_for, NULL);
		before = pause_ns != 0 ? now() : at;
	}
	return NULL;
}

static void series(const char *name, int rounds, int threads, int in_a_row)
{
	double stopped[MOST], bytes[MOST], io[MOST], took[MOST], held[MOST];
	quarry_mapped_checkpoint_info info;

	for (int r = 0; r < rounds; r++) {
		pthread_t thread[THREADS];
		double from;

		choose(in_a_row);
		change_all();
		ended = 0;
		memset(longest, 0, sizeof(longest));
		for (uintptr_t i = 0; i < (uintptr_t)threads; i++)
			pthread_create(&thread[i], NULL, sections, (void *)i);
		from = written();
		if (quarry_mapped_checkpoint(heap, &info, sizeof(info)) != 0) {
			fprintf(stderr, "checkpoint: %s\n", quarry_error_text());
			exit(1);
		}
		io[r] = (written() - from) / (double)(info.pages * PAGE);
		ended = 1;
		for (int i = 0; i < threads; i++)
			pthread_join(thread[i], NULL);
		stopped[r] = (double)info.stopped_ns / 1e6;
		took[r] = (double)info.took_ns / 1e6;
		bytes[r] = (double)info.bytes / (double)(info.pages * PAGE);
		held[r] = 0;
		for (int i = 0; i < threads; i++)
			held[r] = longest[i] > held[r] ? longest[i] : held[r];
	}
	qsort(stopped, (size_t)rounds, sizeof(*stopped), by_size);
	qsort(bytes, (size_t)rounds, sizeof(*bytes), by_size);
	qsort(io, (size_t)rounds, sizeof(*io), by_size);
	qsort(took, (size_t)rounds, sizeof(*took), by_size);
	qsort(held, (size_t)rounds, sizeof(*held), by_size);
	printf("checkpoint.%s.stopped %.2f ms (worst %.2f)\n", name, stopped[rounds / 2], stopped[rounds - 1]);
	if (threads > 0)
		printf("checkpoint.%s.longest_section %.2f ms (worst %.2f; a thread that waits for a processor has it too)\n", name,
		       held[rounds / 2], held[rounds - 1]);
	printf("checkpoint.%s.written %.3f of the bytes that changed (worst %.3f; the kernel counts %.3f)\n", name,
	       bytes[rounds / 2], bytes[rounds - 1], io[rounds / 2]);
	printf("checkpoint.%s.took %.1f ms (worst %.1f; %llu pages)\n", name, took[rounds / 2], took[rounds - 1],
	       (unsigned long long)info.pages);
	fflush(stdout);
}

/* What a file system takes for the same bytes, in a row, with fdatasync(2). */
static void plain_write(const char *directory)
{
	char path[512], *buffer = malloc(changing * PAGE);
	double times[5];
	int fd;

	snprintf(path, sizeof(path), "%s/bench-checkpoint-plain-%d", directory, (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	unlink(path);
	memset(buffer, 1, changing * PAGE);
	for (int i = 0; i < 5; i++) {
		double from = now();

		if (fd < 0 || pwrite(fd, buffer, changing * PAGE, 0) != (ssize_t)(changing * PAGE) || fdatasync(fd) != 0)
			exit(1);
		times[i] = now() - from;
	}
	qsort(times, 5, sizeof(*times), by_size);
	printf("checkpoint.plain %.1f ms for that many bytes by write and fdatasync\n", times[2]);
	close(fd);
	free(buffer);
}

int main(int argc, char **argv)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE };
	const char *directory = argc > 1 ? argv[1] : ".";
	size_t mib = argc > 2 ? strtoul(argv[2], NULL, 0) : 1024;
	int rounds = argc > 3 ? atoi(argv[3]) : 21, ends[2], status;
	char path[512], byte;
	double from;
	pid_t pid;

	if (rounds < 1 || rounds > MOST)
		return 1;
	snprintf(path, sizeof(path), "%s/bench-checkpoint-%d", directory, (int)getpid());
	heap = quarry_mapped_create(path, &attr);
	memory = heap == NULL ? NULL : quarry_mapped_alloc(heap, mib << 20);
	if (memory == NULL) {
		fprintf(stderr, "checkpoint: %s\n", quarry_error_text());
		unlink(path);
		return 1;
	}
	busy = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
	busy = busy < 1 ? 1 : busy > THREADS ? THREADS : busy;
	pages = (mib << 20) / PAGE;
	changing = pages / 100;
	which = malloc(changing * sizeof(*which));
	for (size_t i = 0; i < pages; i++)
		memory[i * PAGE] = 1;
	from = now();
	if (quarry_mapped_root_put(heap, "memory", quarry_mapped_off(heap, memory), 0) != 0 ||
	    quarry_mapped_checkpoint(heap, NULL, 0) != 0) {
		fprintf(stderr, "checkpoint: %s\n", quarry_error_text());
		unlink(path);
		return 1;
	}
	printf("checkpoint.first %.0f ms for all %zu MiB\n", now() - from, mib);
	plain_write(directory);
	series("quiet", rounds, 0, 0);
	pause_ns = 20000;
	series("threads", rounds, busy, 0);
	pause_ns = 0;
	series("threads_hammering", rounds, busy, 0);
	pause_ns = 20000;
	/* A session more, which has looked at all of it. */
	if (pipe(ends) != 0)
		return 1;
	pid = fork();
	if (pid == 0) {
		volatile char sum = 0;

		for (size_t i = 0; i < pages; i++)
			sum = (char)(sum + memory[i * PAGE]);
		if (write(ends[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		return 1;
	quarry_mapped_checkpoint(heap, NULL, 0);
	series("two_processes", rounds, busy, 0);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	from = now();
	quarry_mapped_checkpoint(heap, NULL, 0);
	printf("checkpoint.after_a_death %.0f ms: all pages compared, nobody held up for that\n", now() - from);
	series("in_a_row", rounds, 0, 1);
	quarry_mapped_close(heap);
	from = now();
	heap = quarry_mapped_open(path);
	printf("checkpoint.opened %.0f ms from the file%s\n", now() - from, heap == NULL ? ": FAILED" : "");
	unlink(path);
	return heap == NULL ? 1 : quarry_mapped_close(heap);
}
