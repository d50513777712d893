/* SPDX-License-Identifier: MIT */
/* What every benchmark program shares: options, a seeded generator, stamps that are written into blocks and read back,
 * and the lines of the result. Nothing here allocates with malloc of its own accord: tables come from mmap, so that the
 * allocator under test sees the pattern and only the pattern.
 *
 * A program's work is a number of operations, the same in every run; its time is the result. With --seconds the
 * time is given and the rate is the result. Each line of output is "name value unit": the program's name with unit "s"
 * (or "Mop/s") is the result, "name.what" is one more figure of the run. */
#ifndef QUARRY_BENCH_H
#define QUARRY_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* An option of one program only: --name NUMBER, a whole number of at least 1, or 0 where that is the default. */
struct bench_extra {
	const char *name;
	uint64_t *value;
	const char *help;
};

struct bench {
	const char *name;
	const char *op; /* what counts as one operation, for --help */
	uint64_t ops;   /* in all threads together */
	uint64_t threads;
	double seconds; /* 0: the work is given; otherwise the time is */
	uint64_t seed;
	int work_only;  /* --seconds makes no sense here */
	const struct bench_extra *extra;
	size_t extras;
};

/* A block that a program holds: where, how long, and which stamp it bears. */
struct bench_slot {
	unsigned char *p; /* NULL: empty */
	uint32_t size;
	uint32_t tag;
};

/* A thread's part of the work. */
struct bench_quota {
	uint64_t left;
	double until;
};

/* Reads the options over the defaults in b, and ends the program when malloc is not the one that BENCH_MALLOC_IN
 * names (the real path of the file that must hold its code; "libc" for the C library's). */
void bench_begin(struct bench *b, int argc, char **argv);
/* Starts the clock; the shares count from here. */
void bench_start(struct bench *b);
/* The part of thread index, from 0, of so many. */
struct bench_quota bench_share(const struct bench *b, uint64_t index, uint64_t of);
/* How many operations to do next, at most want; 0 ends. */
uint64_t bench_take(struct bench_quota *q, uint64_t want);
/* Stops the clock. */
void bench_stop(struct bench *b);
/* Prints the result: the time, or with --seconds the rate of done operations. */
void bench_report(const struct bench *b, uint64_t done);
/* Prints one more figure: "name.what value unit". */
void bench_figure(const struct bench *b, const char *what, double value, const char *unit);
/* Says why and ends the program with status 1. */
void bench_die(const char *format, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));
/* Zeroed memory from the kernel, for tables. */
void *bench_table(size_t bytes);

/* Gives what is behind the first used bytes of a table back to the kernel, so that what stays resident is the
 * allocator's doing. */
void bench_table_trim(void *table, size_t used, size_t bytes);
/* This process's resident set in MiB, as the kernel counts it page by page. */
double bench_resident(void);
/* What a process (0: this one) has in memory, in MiB, as the kernel counts it page by page. */
struct bench_memory {
	double rss;
	double anonymous; /* of it not a file's */
	double huge;      /* of that in transparent huge pages */
};
struct bench_memory bench_memory(int pid);
/* A small file of /proc, whole; valid until the next call. NULL when it cannot be read. */
char *bench_read_text(const char *path);
/* Seconds, from some moment on. */
double bench_now(void);
/* Sleeps until bench_now() is this. */
void bench_sleep_until(double when);
/* Runs body(argument + i * stride) in so many threads and waits for all. */
void bench_threads(uint64_t count, void *(*body)(void *), void *arguments, size_t stride);
/* One of the threads of a program whose threads share nothing. */
struct bench_worker {
	uint64_t index;
	uint64_t random; /* its generator */
	uint64_t done;   /* operations */
};

/* What main does after bench_begin in such a program: work in each thread, in this one where it is the only one, so
 * that the process stays single-threaded; work is given a struct bench_worker. */
void bench_run(struct bench *b, void *(*work)(void *));
void bench_wrong(const struct bench_slot *s, const char *where) __attribute__((noreturn, cold));
void *bench_no_memory(size_t size) __attribute__((noreturn, cold));

void *malloc(size_t);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
void free(void *);

/* For the programs whose own data are the pattern: what they allocate, never NULL. */
static inline void *bench_alloc(size_t size)
{
	void *p = malloc(size);

	if (__builtin_expect(!p, 0))
		bench_no_memory(size);
	return p;
}

static inline void *bench_zeroed(size_t size)
{
	void *p = calloc(1, size);

	if (__builtin_expect(!p, 0))
		bench_no_memory(size);
	return p;
}

static inline void *bench_grow(void *old, size_t size)
{
	void *p = realloc(old, size);

	if (__builtin_expect(!p, 0))
		bench_no_memory(size);
	return p;
}

/* Marsaglia's xorshift (2003), 64 bits; the state is never 0. */
static inline uint64_t bench_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* A number below n, for n below 2^32. */
static inline uint32_t bench_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(((bench_random(state) >> 32) * n) >> 32);
}

/* Another order of n numbers. */
static inline void bench_shuffle(uint64_t *state, uint32_t *numbers, uint64_t n)
{
	for (uint64_t i = n - 1; i > 0; i--) {
		uint64_t j = bench_below(state, (uint32_t)(i + 1));
		uint32_t t = numbers[i];

		numbers[i] = numbers[j];
		numbers[j] = t;
	}
}

/* The generator of a thread, far from its neighbours'. */
static inline uint64_t bench_seed(const struct bench *b, uint64_t index)
{
	uint64_t state = (b->seed + 1) * 0x9e3779b97f4a7c15u ^ (index + 1) * 0xbf58476d1ce4e5b9u;

	state |= state == 0;
	for (int i = 0; i < 8; i++)
		bench_random(&state);
	return state;
}

#define BENCH_PAGE 4096u

/* What stands in a block at each multiple of a page but the first, if there is room for it and the last stamp. */
static inline uint64_t bench_page_stamp(const struct bench_slot *s, uint32_t at)
{
	return ((uint64_t)s->size << 32 | s->tag) + at;
}

static inline int bench_has_page(const struct bench_slot *s, uint32_t at)
{
	return at + 2 * sizeof(uint64_t) <= s->size;
}

/* Writes a block's stamp at both ends: what is handed out twice, or overlaps a neighbour, does not bear its own stamp
 * when it is read back. A word of each page between them is written too, as a program fills what it asked for: else the
 * peak is less than what lives, and tells which allocator leaves such pages alone. The block has at least 8 bytes. */
static inline void bench_stamp(struct bench_slot *s, uint32_t size, uint32_t tag)
{
	uint64_t stamp = (uint64_t)size << 32 | tag;

	s->size = size;
	s->tag = tag;
	for (uint32_t at = BENCH_PAGE; bench_has_page(s, at); at += BENCH_PAGE) {
		uint64_t word = bench_page_stamp(s, at);

		memcpy(s->p + at, &word, sizeof(word));
	}
	memcpy(s->p, &stamp, sizeof(stamp));
	memcpy(s->p + size - sizeof(stamp), &stamp, sizeof(stamp));
}

/* Allocates a block of at least 8 bytes and stamps it. */
static inline void bench_fill(struct bench_slot *s, uint32_t size, uint32_t tag)
{
	s->p = malloc(size);
	if (__builtin_expect(!s->p, 0))
		bench_no_memory(size);
	bench_stamp(s, size, tag);
}

static inline void bench_check(const struct bench_slot *s)
{
	uint64_t stamp = (uint64_t)s->size << 32 | s->tag, first, last;

	memcpy(&first, s->p, sizeof(first));
	memcpy(&last, s->p + s->size - sizeof(last), sizeof(last));
	/* A block under 16 bytes: the second write overlaps the first; only the last 8 bytes tell. */
	if (__builtin_expect((s->size >= 16 && first != stamp) || last != stamp, 0))
		bench_wrong(s, first != stamp && s->size >= 16 ? "first" : "last");
}

/* Checks a block, frees it and leaves the slot empty. */
static inline void bench_empty(struct bench_slot *s)
{
	bench_check(s);
	free(s->p);
	s->p = NULL;
}

#endif
