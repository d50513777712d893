/* SPDX-License-Identifier: MIT */
/* What the stress programs share: arguments, a seeded generator, blocks whose every byte is known, and the
 * questions asked at the end. Plain C and pthreads, so that every sanitizer can be built in.
 *
 * A block's bytes are a function of its id and size, never of its address: a block that moved, was handed to another
 * thread or was inherited over fork(2) is verified by whoever frees it. The programs' own tables come from mmap(2),
 * so what quarry says is in use is the blocks alone.
 *
 * Arguments: --seed N (0: from the clock), --ops N, --threads N, --seconds S (stop after so long; without --ops then
 * as many operations as fit), --watchdog S. The environment's QUARRY_STRESS_SCALE multiplies the operations, for
 * sanitizers. Each thread's generator depends on the seed and the thread's number alone. Exit status: 0 or 1. */
#ifndef QUARRY_TESTS_STRESS_H
#define QUARRY_TESTS_STRESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "include/quarry/quarry.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#define ST_FEATURE(x) __has_feature(x)
#else
#define ST_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || ST_FEATURE(thread_sanitizer)
#define ST_TSAN 1
#else
#define ST_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || ST_FEATURE(address_sanitizer)
#define ST_ASAN 1
#else
#define ST_ASAN 0
#endif

#define ST_UNUSED __attribute__((unused))
#define ST_THREADS_MAX 256
#define ST_KIB ((size_t)1 << 10)
#define ST_MIB ((size_t)1 << 20)
#define ST_SLACK (64 * ST_KIB) /* what may be in use at the end above the start */

/* One run of one program. Written before threads start, but for done. */
struct st_run {
	const char *name;
	uint64_t seed;
	uint64_t ops;      /* of all threads together */
	unsigned threads;
	double seconds;    /* 0: no limit */
	unsigned watchdog; /* seconds */
	double scale;
	double started, deadline;
	quarry_stats before;
	_Atomic uint64_t done;
};

static struct st_run st;

/* ------------------------------------------------------------------------------------------------------ */
/* Failing, time, memory of our own                                                                       */

static inline __attribute__((noreturn, cold, format(printf, 1, 2))) void st_fail(const char *format, ...)
{
	char line[512];
	int n = snprintf(line, sizeof line, "%s: FAIL (seed %llu): ", st.name, (unsigned long long)st.seed);
	va_list args;

	va_start(args, format);
	n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
	va_end(args);
	if (n > (int)sizeof line - 2)
		n = (int)sizeof line - 2;
	line[n++] = '\n';
	if (write(2, line, (size_t)n) < 0)
		_exit(1);
	_exit(1);
}

#define ST_CHECK(x) ((void)((x) || (st_fail("%s:%d: %s (errno %d)", __FILE__, __LINE__, #x, errno), 0)))

static inline double st_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static inline void *st_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		st_fail("mmap of %zu bytes for the program's own tables: errno %d", size, errno);
	return p;
}

/* ------------------------------------------------------------------------------------------------------ */
/* Random numbers: splitmix64                                                                             */

struct st_rng {
	uint64_t state;
};

static inline uint64_t st_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline uint64_t st_next(struct st_rng *rng)
{
	return st_mix(rng->state += 0x9e3779b97f4a7c15u);
}

/* Uniform in 0 .. n - 1 (n under 2^32: the bias does not matter here). */
static inline uint64_t st_below(struct st_rng *rng, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)st_next(rng) * n) >> 64);
}

static inline struct st_rng st_rng_for(uint64_t stream)
{
	struct st_rng rng = { st_mix(st.seed * 0x2545f4914f6cdd1du + st_mix(stream + 1)) };

	return rng;
}

/* Logarithmic: every power of two up to 2^bits is as likely as the next. At least 1. */
static inline size_t st_log_size(struct st_rng *rng, unsigned bits)
{
	uint64_t high = (uint64_t)1 << st_below(rng, bits + 1);

	return (size_t)(high - st_below(rng, (high + 1) / 2));
}

/* Logarithmic as well, with one in thirty above 16 KiB and up to max_bits: the large ones would else take all the
 * time, in verifying them. */
static inline size_t st_size(struct st_rng *rng, unsigned max_bits)
{
	size_t n;

	if (max_bits <= 14 || st_below(rng, 30) != 0)
		return st_log_size(rng, max_bits < 14 ? max_bits : 14);
	n = st_log_size(rng, max_bits - 14) << 14;
	return n - st_below(rng, 16384);
}

/* ------------------------------------------------------------------------------------------------------ */
/* The pattern                                                                                            */

#define ST_STEP 0x9e3779b97f4a7c15u

static inline uint64_t st_key(uint64_t id, size_t size)
{
	return st_mix(id * 0xd6e8feb86659fd93u + st_mix(size));
}

static inline unsigned char st_pattern_byte(uint64_t key, size_t at)
{
	uint64_t word = key + at / 8 * ST_STEP;
	unsigned char bytes[8];

	memcpy(bytes, &word, 8);
	return bytes[at % 8];
}

/* Fill bytes [from, to) of the block at p, which is aligned to 16. */
static inline void st_fill(unsigned char *p, size_t from, size_t to, uint64_t key)
{
	for (; from < to && from % 8 != 0; from++)
		p[from] = st_pattern_byte(key, from);
	for (; from + 8 <= to; from += 8) {
		uint64_t word = key + from / 8 * ST_STEP;
		memcpy(__builtin_assume_aligned(p + from, 8), &word, 8);
	}
	for (; from < to; from++)
		p[from] = st_pattern_byte(key, from);
}

static inline __attribute__((noreturn, cold)) void st_bad_byte(const unsigned char *p, size_t from, size_t to,
							       uint64_t key, uint64_t id, size_t size)
{
	size_t at = from, bad = 0;

	for (size_t i = from; i < to; i++) {
		if (p[i] == st_pattern_byte(key, i))
			continue;
		if (bad++ == 0)
			at = i;
	}
	st_fail("block %#llx of %zu bytes at %p: byte %zu is %#x, should be %#x; %zu bytes differ", (unsigned long long)id,
		size, (const void *)p, at, p[at], st_pattern_byte(key, at), bad);
}

/* Verify bytes [from, to); id and size are for the message. */
static inline void st_verify(const unsigned char *p, size_t from, size_t to, uint64_t key, uint64_t id, size_t size)
{
	uint64_t wrong = 0;
	size_t i = from;

	for (; i < to && i % 8 != 0; i++)
		wrong |= p[i] ^ st_pattern_byte(key, i);
	for (; i + 8 <= to; i += 8) {
		uint64_t word;
		memcpy(&word, __builtin_assume_aligned(p + i, 8), 8);
		wrong |= word ^ (key + i / 8 * ST_STEP);
	}
	for (; i < to; i++)
		wrong |= p[i] ^ st_pattern_byte(key, i);
	if (wrong != 0)
		st_bad_byte(p, from, to, key, id, size);
}

static inline void st_verify_zero(const unsigned char *p, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (p[i] != 0)
			st_fail("calloc of %zu bytes at %p: byte %zu is %#x", size, (const void *)p, i, p[i]);
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* Blocks                                                                                                 */

struct st_block {
	unsigned char *p; /* NULL: no block */
	size_t asked;     /* as asked for: what free_sized is told */
	size_t size;      /* bytes that carry the pattern; asked, or all that is usable */
	size_t align;     /* 0: not asked for */
	uint64_t id;
};

static inline void st_block_fill(struct st_block *b)
{
	st_fill(b->p, 0, b->size, st_key(b->id, b->size));
}

static inline void st_block_verify(const struct st_block *b)
{
	st_verify(b->p, 0, b->size, st_key(b->id, b->size), b->id, b->size);
}

static inline size_t st_usable(const unsigned char *p, size_t asked)
{
	size_t usable = quarry_usable_size(p);

	if (usable < asked)
		st_fail("usable size of %zu bytes at %p is %zu", asked, (const void *)p, usable);
	return usable;
}

static inline unsigned char *st_aligned(struct st_rng *rng, quarry_arena *arena, struct st_block *b)
{
	/* Mostly small alignments; sometimes beyond a page and beyond a huge page. */
	unsigned shift = 4 + (unsigned)st_below(rng, st_below(rng, 64) == 0 ? 18 : 9);
	void *p = NULL;

	b->align = (size_t)1 << shift;
	if (arena == NULL && (st_next(rng) & 1)) {
		int error = quarry_posix_memalign(&p, b->align, b->asked);
		if (error != 0)
			st_fail("posix_memalign(%zu, %zu): error %d", b->align, b->asked, error);
	} else {
		p = arena != NULL ? quarry_arena_aligned_alloc(arena, b->align, b->asked) :
				    quarry_aligned_alloc(b->align, b->asked);
	}
	if (((uintptr_t)p & (b->align - 1)) != 0)
		st_fail("%p is not aligned to %zu", p, b->align);
	return p;
}

/* Allocate by one of the ways there are, in the arena or (NULL) wherever the thread allocates, and fill.
 * False, with b->p NULL, when there was no memory; the caller says whether that is a failure. */
static inline bool st_try_make(struct st_block *b, struct st_rng *rng, quarry_arena *arena, uint64_t id, size_t size)
{
	unsigned way = (unsigned)st_below(rng, 16);

	*b = (struct st_block){ .asked = size, .size = size, .id = id };
	if (way < 3) {
		size_t n = 1 + st_below(rng, 8);
		if (size % n != 0)
			n = 1;
		b->p = arena != NULL ? quarry_arena_calloc(arena, n, size / n) : quarry_calloc(size / n, n);
		if (b->p != NULL)
			st_verify_zero(b->p, size);
	} else if (way < 5) {
		b->p = st_aligned(rng, arena, b);
	} else if (way == 5) {
		size_t got = 0;
		b->p = arena != NULL ? quarry_arena_malloc_at_least(arena, size, &got) : quarry_malloc_at_least(size, &got);
		if (b->p != NULL && (got < size || got != quarry_usable_size(b->p)))
			st_fail("at_least(%zu) says %zu, usable is %zu", size, got, quarry_usable_size(b->p));
		b->size = got;
	} else if (way == 6) {
		b->p = arena != NULL ? quarry_arena_realloc(arena, NULL, size) : quarry_realloc(NULL, size);
	} else {
		b->p = arena != NULL ? quarry_arena_malloc(arena, size) : quarry_malloc(size);
		if (b->p != NULL && way == 7)
			b->size = st_usable(b->p, size);
	}
	if (b->p == NULL)
		return false;
	if (((uintptr_t)b->p & 15) != 0)
		st_fail("%p for %zu bytes is not aligned to 16", (void *)b->p, size);
	st_block_fill(b);
	return true;
}

static inline void st_make(struct st_block *b, struct st_rng *rng, quarry_arena *arena, uint64_t id, size_t size)
{
	if (!st_try_make(b, rng, arena, id, size))
		st_fail("no memory for %zu bytes (errno %d)", size, errno);
}

/* Free, by one of the ways there are. */
static inline void st_release(struct st_block *b, struct st_rng *rng)
{
	unsigned way = (unsigned)st_below(rng, 8);

	/* The size asked for by at_least is what was asked; free_sized may be told that. */
	if (way == 0 && b->align == 0)
		quarry_free_sized(b->p, b->asked);
	else if (way == 0)
		quarry_free_aligned_sized(b->p, b->align, b->asked);
	else
		quarry_free(b->p);
	b->p = NULL;
}

static inline void st_drop(struct st_block *b, struct st_rng *rng)
{
	st_block_verify(b);
	st_release(b, rng);
}

static inline void st_resize(struct st_block *b, struct st_rng *rng, size_t size)
{
	size_t kept = b->size < size ? b->size : size;
	uint64_t key = st_key(b->id, b->size);
	unsigned char *p = st_below(rng, 8) == 0 && size % 2 == 0 ? quarry_reallocarray(b->p, size / 2, 2) :
								     quarry_realloc(b->p, size);

	if (p == NULL)
		st_fail("realloc from %zu to %zu bytes (errno %d)", b->size, size, errno);
	st_verify(p, 0, kept, key, b->id, b->size);
	b->p = p;
	b->asked = size;
	b->size = size;
	b->align = 0; /* realloc promises 16 only */
	st_block_fill(b);
}

/* A block that one thread leaves and another takes: its record lives in quarry's memory too. */
struct st_card {
	struct st_block block;
	uint64_t seal; /* of the record itself */
};

static inline uint64_t st_card_seal(const struct st_card *card)
{
	return st_mix(card->block.id ^ st_mix(card->block.size ^ (uint64_t)(uintptr_t)card->block.p));
}

static inline struct st_card *st_card_make(struct st_rng *rng, uint64_t id, size_t size)
{
	struct st_card *card = quarry_malloc(sizeof *card);

	ST_CHECK(card != NULL);
	st_make(&card->block, rng, NULL, id, size);
	card->seal = st_card_seal(card);
	return card;
}

static inline void st_card_drop(struct st_card *card, struct st_rng *rng)
{
	if (card->seal != st_card_seal(card))
		st_fail("the record of a block at %p is overwritten", (void *)card);
	st_drop(&card->block, rng);
	card->seal = 0;
	quarry_free(card);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Threads                                                                                                */

struct st_worker {
	unsigned number;
	pthread_t thread;
	struct st_rng rng;
	uint64_t next_id; /* the thread's number in the high bits: ids are unique */
	uint64_t done;
	void (*body)(struct st_worker *w);
};

static inline void st_worker_init(struct st_worker *w, unsigned number)
{
	*w = (struct st_worker){ .number = number, .rng = st_rng_for(number), .next_id = (uint64_t)(number + 1) << 40 };
}

/* True while the worker has operations left and time allows. */
static inline bool st_more(struct st_worker *w)
{
	if (w->done >= st.ops / st.threads)
		return false;
	if (st.deadline > 0 && w->done % 128 == 0 && st_now() > st.deadline)
		return false;
	w->done++;
	return true;
}

static void *st_worker_main(void *arg)
{
	struct st_worker *w = arg;

	w->body(w);
	atomic_fetch_add_explicit(&st.done, w->done, memory_order_relaxed);
	return NULL;
}

/* Start threads 0 .. n - 1 on body. */
static inline void ST_UNUSED st_start(struct st_worker *w, unsigned n, void (*body)(struct st_worker *))
{
	for (unsigned i = 0; i < n; i++) {
		int error;
		st_worker_init(&w[i], i);
		w[i].body = body;
		error = pthread_create(&w[i].thread, NULL, st_worker_main, &w[i]);
		if (error != 0)
			st_fail("pthread_create: error %d", error);
	}
}

static inline void ST_UNUSED st_join(struct st_worker *w, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ST_CHECK(pthread_join(w[i].thread, NULL) == 0);
}

static inline void ST_UNUSED st_threads(void (*body)(struct st_worker *))
{
	static struct st_worker workers[ST_THREADS_MAX];

	st_start(workers, st.threads, body);
	st_join(workers, st.threads);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Start and end                                                                                          */

static void st_watchdog(int sig)
{
	static const char text[] = ": FAIL: the watchdog's time is over: this hangs, or the machine is far too slow\n";

	(void)sig;
	if (write(2, st.name, strlen(st.name)) < 0 || write(2, text, sizeof text - 1) < 0)
		_exit(1);
	_exit(1);
}

/* Also in forked children, which inherit no alarm. */
static inline void st_watchdog_start(unsigned seconds)
{
	struct sigaction action = { .sa_handler = st_watchdog };

	sigaction(SIGALRM, &action, NULL);
	alarm(seconds);
}

static inline void st_stats(quarry_arena *arena, quarry_stats *stats)
{
	memset(stats, 0, sizeof *stats);
	stats->version = QUARRY_STATS_VERSION;
	ST_CHECK(quarry_stats_get(arena, stats) == 0);
}

static inline double st_number(const char *text)
{
	char *end;
	double x = strtod(text, &end);

	if (end == text || *end != 0 || x < 0) {
		fprintf(stderr, "%s: not a number: %s\n", st.name, text);
		exit(1);
	}
	return x;
}

static inline void st_arguments(int argc, char **argv)
{
	bool ops_given = false;

	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (strcmp(argv[i], "--seed") == 0) {
			st.seed = strtoull(value, NULL, 0);
		} else if (strcmp(argv[i], "--ops") == 0) {
			st.ops = (uint64_t)st_number(value);
			ops_given = true;
		} else if (strcmp(argv[i], "--threads") == 0) {
			st.threads = (unsigned)st_number(value);
		} else if (strcmp(argv[i], "--seconds") == 0) {
			st.seconds = st_number(value);
		} else if (strcmp(argv[i], "--watchdog") == 0) {
			st.watchdog = (unsigned)st_number(value);
		} else {
			fprintf(stderr, "usage: %s [--seed N] [--ops N] [--threads N] [--seconds S] [--watchdog S]\n", st.name);
			exit(1);
		}
	}
	if (st.seconds > 0 && !ops_given)
		st.ops = UINT64_MAX / 2;
}

/* Every program's first call: default operations (of all threads together) and threads. */
static inline void st_begin(int argc, char **argv, const char *name, uint64_t ops, unsigned threads)
{
	const char *scale = getenv("QUARRY_STRESS_SCALE");

	st = (struct st_run){ .name = name, .seed = 20260117, .ops = ops, .threads = threads, .scale = 1 };
	st.watchdog = ST_ASAN || ST_TSAN ? 900 : 300;
	st_arguments(argc, argv);
	if (scale != NULL && *scale != 0)
		st.scale = st_number(scale);
	if (st.scale != 1)
		st.ops = (uint64_t)((double)st.ops * st.scale);
	if (st.seed == 0)
		st.seed = st_mix((uint64_t)time(NULL) ^ (uint64_t)getpid() << 32) >> 16;
	if (st.threads == 0 || st.threads > ST_THREADS_MAX) {
		fprintf(stderr, "%s: --threads: 1 to %d\n", name, ST_THREADS_MAX);
		exit(1);
	}
	if (st.ops < st.threads)
		st.ops = st.threads;
	printf("%s: --seed %llu --threads %u", name, (unsigned long long)st.seed, st.threads);
	if (st.ops < UINT64_MAX / 2)
		printf(" --ops %llu", (unsigned long long)st.ops);
	printf("\n");
	fflush(stdout);
	st_watchdog_start(st.watchdog);
	/* The first allocation makes the library's own structures; they are not what is measured. */
	quarry_free(quarry_malloc(1));
	quarry_thread_flush();
	st_stats(NULL, &st.before);
	st.started = st_now();
	if (st.seconds > 0)
		st.deadline = st.started + st.seconds;
}

/* A count that --ops scales: so many for the default, fewer in proportion, at least least. */
static inline uint64_t ST_UNUSED st_scaled(uint64_t n, uint64_t least)
{
	n = (uint64_t)((double)n * st.scale);
	return n < least ? least : n;
}

/* Every program's last call, all blocks freed and all threads joined. What is in use must be back at the start but
 * for slack bytes; the reclaimer's thread, where there is one, gets up to ten seconds to bring home what dead
 * threads left. bad_frees may have risen by at most so many. Returns the exit status. */
static inline int st_end(size_t slack, uint64_t bad_frees)
{
	static const struct timespec tick = { 0, 10 * 1000 * 1000 };
	double took = st_now() - st.started;
	quarry_stats now;

	for (int tries = 0;; tries++) {
		quarry_thread_flush();
		quarry_purge(NULL);
		st_stats(NULL, &now);
		if (now.in_use <= st.before.in_use + slack || tries == 1000)
			break;
		nanosleep(&tick, NULL);
	}
	printf("%s: %llu operations in %.1f s; in use %llu before, %llu after; mapped %.1f MiB (peak %.1f), "
	       "resident %.1f, metadata %.1f\n", st.name, (unsigned long long)atomic_load(&st.done), took,
	       (unsigned long long)st.before.in_use, (unsigned long long)now.in_use, (double)now.mapped / (double)ST_MIB,
	       (double)now.peak_mapped / (double)ST_MIB, (double)now.resident / (double)ST_MIB,
	       (double)now.metadata / (double)ST_MIB);
	printf("%s: refills %llu, remote frees %llu, adopted %llu, purges %llu (%.1f MiB), passes %llu, threads %llu, "
	       "reclaimer %llu, bad frees %llu\n", st.name, (unsigned long long)now.refills,
	       (unsigned long long)now.remote_frees, (unsigned long long)now.adopted, (unsigned long long)now.purges,
	       (double)now.purged / (double)ST_MIB, (unsigned long long)now.passes, (unsigned long long)now.threads,
	       (unsigned long long)now.reclaimer, (unsigned long long)now.bad_frees);
	fflush(stdout);
	if (now.in_use > st.before.in_use + slack)
		st_fail("all is freed, but %llu bytes are in use (%llu at the start, %zu allowed above)",
			(unsigned long long)now.in_use, (unsigned long long)st.before.in_use, slack);
	if (now.bad_frees > st.before.bad_frees + bad_frees)
		st_fail("%llu frees were called bad, at most %llu were", (unsigned long long)(now.bad_frees -
			st.before.bad_frees), (unsigned long long)bad_frees);
	printf("%s: ok\n", st.name);
	return 0;
}

#endif
