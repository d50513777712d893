/* SPDX-License-Identifier: MIT */
/* What every benchmark program shares; see bench.h. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 1024

static double started, took;
static char text[1 << 18]; /* a small file of /proc, whole */

double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void bench_sleep_until(double when)
{
	struct timespec t = { .tv_sec = (time_t)when, .tv_nsec = (long)((when - (double)(time_t)when) * 1e9) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

void bench_die(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	_exit(1);
}

void bench_wrong(const struct bench_slot *s, const char *where)
{
	bench_die("WRONG CONTENTS: the %s bytes of the block of %" PRIu32 " bytes at %p are not what was written", where,
		  s->size, (void *)s->p);
}

void *bench_no_memory(size_t size)
{
	bench_die("malloc(%zu) gave NULL", size);
}

void *bench_table(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_die("no memory for a table of %zu bytes", bytes);
	return p;
}

void bench_table_trim(void *table, size_t used, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	used = (used + page - 1) & ~(page - 1);
	if (used < bytes)
		madvise((char *)table + used, bytes - used, MADV_DONTNEED);
}

/* Without stdio: its buffers would be blocks of the allocator under test. */
char *bench_read_text(const char *path)
{
	size_t have = 0;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	while (have < sizeof(text) - 1 && (n = read(fd, text + have, sizeof(text) - 1 - have)) > 0)
		have += (size_t)n;
	close(fd);
	text[have] = 0;
	return text;
}

double bench_resident(void)
{
	const char *found = bench_read_text("/proc/self/smaps_rollup");
	unsigned long pages;

	/* Exact, where the kernel has it; statm may lag by what each CPU has not yet added up. */
	found = found ? strstr(found, "Rss:") : NULL;
	if (found)
		return strtod(found + 4, NULL) / 1024;
	found = bench_read_text("/proc/self/statm");
	if (!found || sscanf(found, "%*u %lu", &pages) != 1)
		bench_die("no /proc/self/statm");
	return (double)pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

struct bench_memory bench_memory(int pid)
{
	static const char *const names[] = { "\nRss:", "\nAnonymous:", "\nAnonHugePages:" };
	char path[64] = "/proc/self/smaps_rollup", *at;
	const char *found;
	double kib[3];

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	found = bench_read_text(path);
	for (int i = 0; i < 3; i++) {
		at = found ? strstr(found, names[i]) : NULL;
		if (!at)
			bench_die("%s does not tell \"%s\"", path, names[i] + 1);
		kib[i] = strtod(strchr(at, ':') + 1, NULL);
	}
	return (struct bench_memory){ .rss = kib[0] / 1024, .anonymous = kib[1] / 1024, .huge = kib[2] / 1024 };
}

/* The file whose mapping holds this address, from /proc/self/maps; NULL when none does. */
static const char *file_at(uintptr_t address)
{
	char *line = bench_read_text("/proc/self/maps"), *end;
	unsigned long from, to;

	for (; line && *line; line = end + 1) {
		end = strchr(line, '\n');
		if (!end)
			break;
		*end = 0;
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && address >= from && address < to)
			return strchr(line, '/');
	}
	return NULL;
}

/* That a library is mapped does not yet say that malloc is its: the code behind the pointer must lie in the file. */
static void check_malloc(void)
{
	const char *want = getenv("BENCH_MALLOC_IN"), *got, *base;

	if (!want || !*want)
		return;
	void *(*volatile where)(size_t) = malloc;
	got = file_at((uintptr_t)where);
	base = got ? strrchr(got, '/') + 1 : "";
	if (strcmp(want, "libc") == 0 ? strncmp(base, "libc.", 5) && strncmp(base, "libc-", 5) && strncmp(base, "ld-musl", 7)
				      : !got || strcmp(got, want))
		bench_die("malloc should be that of %s, and is in %s", want, got ? got : "no file");
}

static void usage(const struct bench *b)
{
	printf("usage: %s [--threads N] [--ops N%s] [--seed N]", b->name, b->work_only ? "" : " | --seconds S");
	for (size_t i = 0; i < b->extras; i++)
		printf(" [--%s N]", b->extra[i].name);
	printf("\n  --threads N   %" PRIu64 "\n  --ops N       %" PRIu64 "; one is: %s\n", b->threads, b->ops, b->op);
	if (!b->work_only)
		puts("  --seconds S   run so long and print the rate");
	printf("  --seed N      %" PRIu64 "\n", b->seed);
	for (size_t i = 0; i < b->extras; i++)
		printf("  --%s N\t%" PRIu64 "; %s\n", b->extra[i].name, *b->extra[i].value, b->extra[i].help);
	exit(0);
}

static uint64_t number(const char *option, const char *value, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (errno || end == value || *end || *value == '-' || n < least || n > most)
		bench_die("%s takes a whole number from %" PRIu64 " to %" PRIu64 ", not \"%s\"", option, least, most, value);
	return n;
}

static void set_option(struct bench *b, const char *option, const char *value)
{
	char *end;

	if (strcmp(option, "--threads") == 0) {
		b->threads = number(option, value, 1, MAX_THREADS);
	} else if (strcmp(option, "--ops") == 0) {
		b->ops = number(option, value, 1, UINT64_MAX >> 1);
	} else if (strcmp(option, "--seed") == 0) {
		b->seed = number(option, value, 0, UINT64_MAX >> 1);
	} else if (strcmp(option, "--seconds") == 0 && !b->work_only) {
		b->seconds = strtod(value, &end);
		if (end == value || *end || !(b->seconds > 0 && b->seconds < 1e6))
			bench_die("--seconds takes a time over 0, not \"%s\"", value);
	} else {
		for (size_t i = 0; i < b->extras; i++) {
			if (strncmp(option, "--", 2) == 0 && strcmp(option + 2, b->extra[i].name) == 0) {
				*b->extra[i].value = number(option, value, *b->extra[i].value > 0, 1u << 30);
				return;
			}
		}
		bench_die("unknown option %s (see --help)", option);
	}
}

void bench_begin(struct bench *b, int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2) {
		if (strcmp(argv[i], "--help") == 0)
			usage(b);
		if (i + 1 == argc)
			bench_die("%s: unknown, or its value is missing (see --help)", argv[i]);
		set_option(b, argv[i], argv[i + 1]);
	}
	check_malloc();
}

void bench_start(struct bench *b)
{
	(void)b;
	started = bench_now();
}

struct bench_quota bench_share(const struct bench *b, uint64_t index, uint64_t of)
{
	return (struct bench_quota){
		.left = b->ops / of + (index < b->ops % of),
		.until = b->seconds > 0 ? started + b->seconds : 0,
	};
}

uint64_t bench_take(struct bench_quota *q, uint64_t want)
{
	if (q->until > 0)
		return bench_now() < q->until ? want : 0;
	if (want > q->left)
		want = q->left;
	q->left -= want;
	return want;
}

void bench_stop(struct bench *b)
{
	(void)b;
	took = bench_now() - started;
}

/* One write(2) a line, so that no stdio buffer is allocated. */
static void print_line(const char *name, const char *what, double value, const char *unit)
{
	char line[160];
	int n = snprintf(line, sizeof(line), "%s%s%s %.6f %s\n", name, *what ? "." : "", what, value, unit);

	if (n < 0 || write(STDOUT_FILENO, line, (size_t)n) != n)
		bench_die("cannot write the result");
}

void bench_report(const struct bench *b, uint64_t done)
{
	if (b->seconds > 0)
		print_line(b->name, "", (double)done / took / 1e6, "Mop/s");
	else if (done != b->ops)
		bench_die("did %" PRIu64 " operations of %" PRIu64, done, b->ops);
	else
		print_line(b->name, "", took, "s");
}

void bench_figure(const struct bench *b, const char *what, double value, const char *unit)
{
	print_line(b->name, what, value, unit);
}

void bench_threads(uint64_t count, void *(*body)(void *), void *arguments, size_t stride)
{
	pthread_t thread[MAX_THREADS];
	int error;

	for (uint64_t i = 0; i < count; i++) {
		error = pthread_create(&thread[i], NULL, body, (char *)arguments + i * stride);
		if (error)
			bench_die("pthread_create: %s", strerror(error));
	}
	for (uint64_t i = 0; i < count; i++)
		pthread_join(thread[i], NULL);
}

void bench_run(struct bench *b, void *(*work)(void *))
{
	struct bench_worker *workers = bench_table(b->threads * sizeof(*workers));
	uint64_t done = 0;

	bench_start(b);
	for (uint64_t i = 0; i < b->threads; i++) {
		workers[i].index = i;
		workers[i].random = bench_seed(b, i);
	}
	if (b->threads == 1)
		work(workers);
	else
		bench_threads(b->threads, work, workers, sizeof(*workers));
	for (uint64_t i = 0; i < b->threads; i++)
		done += workers[i].done;
	bench_stop(b);
	bench_report(b, done);
}
