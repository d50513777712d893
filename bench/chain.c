/* SPDX-License-Identifier: MIT */
/* What chains, cursors and write slabs cost: all of it in each round, one after the other, and the medians of the
 * rounds, beside a pair of quarry_malloc and quarry_free of 64 bytes in the same rounds (which is what a segment would
 * cost that is allocated), and beside memcpy where bytes are copied. Chains are of 1000 segments of 1460 bytes; "once
 * per segment" means that each packet has a storage of its own, as received ones have.
 *
 *	chain [ROUNDS] (11) */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/quarry/wslab.h"
#include "median.h"

#define SEGS 1000
#define SEG 1460
#define BYTES (SEGS * SEG)
#define REPEAT 200
#define ROUNDS_MAX 101
#define BIG ((size_t)64 << 20)

static unsigned char memory[SEGS][SEG], flat[BYTES];
static quarry_storage *storage[SEGS];
static unsigned char *big_from, *big_to;
static volatile uint64_t sink;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void must(bool fine)
{
	if (fine)
		return;
	perror("bench-chain");
	exit(1);
}

static void build(quarry_chain *c)
{
	for (int i = 0; i < SEGS; i++)
		must(quarry_chain_append(c, storage[i], memory[i], SEG) == 0);
}

/* ---- each returns ns for all REPEAT times ---- */

static uint64_t pair(void)
{
	uint64_t since = now_ns();

	for (int i = 0; i < REPEAT * SEGS; i++) {
		void *p = quarry_malloc(64);

		__asm__ volatile("" : : "r"(p) : "memory");
		quarry_free(p);
	}
	return now_ns() - since;
}

/* 1000 in a row, as a chain's segments are taken and let go of. */
static uint64_t pair_many(void)
{
	static void *p[SEGS];
	uint64_t since = now_ns();

	for (int r = 0; r < REPEAT; r++) {
		for (int i = 0; i < SEGS; i++)
			p[i] = quarry_malloc(64);
		for (int i = 0; i < SEGS; i++)
			quarry_free(p[i]);
	}
	return now_ns() - since;
}

static uint64_t append(void)
{
	uint64_t sum = 0;

	for (int r = 0; r < REPEAT; r++) {
		quarry_chain c = { .len = 0 };
		uint64_t since = now_ns();

		build(&c);
		sum += now_ns() - since;
		quarry_chain_free(&c);
	}
	return sum;
}

static uint64_t clone(void)
{
	quarry_chain c = { .len = 0 }, d = { .len = 0 };
	uint64_t sum = 0;

	build(&c);
	for (int r = 0; r < REPEAT; r++) {
		uint64_t since = now_ns();

		must(quarry_chain_clone(&c, 0, QUARRY_CHAIN_ALL, &d) == 0);
		sum += now_ns() - since;
		quarry_chain_free(&d);
	}
	quarry_chain_free(&c);
	return sum;
}

static uint64_t release(void)
{
	quarry_chain c = { .len = 0 }, d = { .len = 0 };
	uint64_t sum = 0;

	build(&c);
	for (int r = 0; r < REPEAT; r++) {
		uint64_t since;

		must(quarry_chain_clone(&c, 0, QUARRY_CHAIN_ALL, &d) == 0);
		since = now_ns();
		quarry_chain_free(&d);
		sum += now_ns() - since;
	}
	quarry_chain_free(&c);
	return sum;
}

/* Cut in the middle of each segment, from the end on: a cut is what is counted. */
static uint64_t split(void)
{
	static quarry_chain tail[SEGS];
	uint64_t sum = 0;

	for (int r = 0; r < REPEAT; r++) {
		quarry_chain c = { .len = 0 };
		uint64_t since;

		build(&c);
		since = now_ns();
		for (int i = SEGS; i-- > 0;)
			must(quarry_chain_split(&c, (uint64_t)i * SEG + SEG / 2, &tail[i]) == 0);
		sum += now_ns() - since;
		quarry_chain_free(&c);
		for (int i = 0; i < SEGS; i++)
			quarry_chain_free(&tail[i]);
	}
	return sum;
}

/* The same segments put together again, each in front of the others. */
static uint64_t join(void)
{
	static quarry_chain tail[SEGS];
	uint64_t sum = 0;

	for (int r = 0; r < REPEAT; r++) {
		quarry_chain c = { .len = 0 };
		uint64_t since;

		for (int i = 0; i < SEGS; i++)
			must(quarry_chain_append(&tail[i], storage[i], memory[i], SEG) == 0);
		since = now_ns();
		for (int i = SEGS; i-- > 0;)
			must(quarry_chain_prepend_chain(&c, &tail[i]) == 0);
		sum += now_ns() - since;
		quarry_chain_free(&c);
	}
	return sum;
}

static uint64_t over_bytes(int which)
{
	quarry_chain c = { .len = 0 };
	quarry_cursor at;
	uint64_t since, x = 0;

	build(&c);
	since = now_ns();
	for (int r = 0; r < REPEAT / 4; r++) {
		uint32_t v;
		uint64_t w;

		quarry_cursor_init(&at, &c);
		if (which == 0)
			while (quarry_cursor_u32be(&at, &v) == 0)
				x += v;
		else if (which == 1)
			while (quarry_cursor_u64le(&at, &w) == 0)
				x += w;
		else if (which == 2)
			while (quarry_cursor_read(&at, flat, 64) == 0)
				x += flat[0];
		else if (which == 3)
			must(quarry_chain_copy_out(&c, 0, flat, BYTES) == 0);
		else if (which == 4)
			must(quarry_cursor_find(&at, "\r\n", 2) < 0);
		else
			for (int i = 0; i < SEGS; i++)
				memcpy(flat + (size_t)i * SEG, memory[i], SEG);
		__asm__ volatile("" : : "r"(flat) : "memory");
	}
	since = now_ns() - since;
	sink += x;
	quarry_chain_free(&c);
	return since;
}

static uint64_t cursor_u32(void) { return over_bytes(0); }
static uint64_t cursor_u64(void) { return over_bytes(1); }
static uint64_t cursor_64(void) { return over_bytes(2); }
static uint64_t copy_out(void) { return over_bytes(3); }
static uint64_t find(void) { return over_bytes(4); }
static uint64_t by_memcpy(void) { return over_bytes(5); }

static uint64_t slab_write(void)
{
	quarry_wslab w;
	struct iovec iov[2];
	uint64_t since;

	must(quarry_wslab_init(&w, NULL) == 0);
	since = now_ns();
	for (int i = 0; i < REPEAT * SEGS; i++) {
		must(quarry_wslab_write(&w, memory[0], 64) == 0);
		if (i % 64 == 63) {
			must(quarry_wslab_flush_begin(&w) > 0 && quarry_wslab_iov(&w, iov, 2) > 0);
			must(quarry_wslab_sent(&w, 64 * 64) == 0);
		}
	}
	since = now_ns() - since;
	must(quarry_wslab_fini(&w) == 0);
	return since;
}

static uint64_t slab_put(void)
{
	quarry_wslab w;
	uint64_t since;

	must(quarry_wslab_init(&w, NULL) == 0);
	since = now_ns();
	for (int i = 0; i < REPEAT * SEGS; i++) {
		must(quarry_wslab_put_u32be(&w, (uint32_t)i) == 0);
		if (i % 4096 == 4095)
			must(quarry_wslab_reset(&w) == 0);
	}
	since = now_ns() - since;
	must(quarry_wslab_fini(&w) == 0);
	return since;
}

/* ---- is a copy past the caches worth it? ---- */

/* ns for BIG bytes in pieces of n: of all of the memory, so that none was in a cache before, or again and again the
 * same piece. */
static uint64_t big(size_t n, bool stream, bool again)
{
	uint64_t since = now_ns();

	quarry_copy_set_stream_min(stream ? 1 : 0);
	for (size_t i = 0; i < BIG; i += n)
		must(quarry_copy_in(quarry_seg_make(big_to + (again ? 0 : i), n), 0, big_from + (again ? 0 : i), n) == 0);
	quarry_copy_set_stream_min(QUARRY_COPY_STREAM_MIN);
	return now_ns() - since;
}

#define BIG_SIZES 6 /* 16 KiB, and four times as much each */

/* ---- rounds ---- */

static const struct row {
	const char *name;
	uint64_t (*run)(void);
	double per; /* segments or operations; or bytes */
	bool bytes;
} rows[] = {
	{ "malloc + free, 64 bytes, one", pair, REPEAT * SEGS, false },
	{ "malloc + free, 64 bytes, 1000 at a time", pair_many, REPEAT * SEGS, false },
	{ "append, a segment", append, REPEAT * SEGS, false },
	{ "clone, a segment", clone, REPEAT * SEGS, false },
	{ "free, a segment", release, REPEAT * SEGS, false },
	{ "split, a cut in a segment", split, REPEAT * SEGS, false },
	{ "join, a chain of one to a long one", join, REPEAT * SEGS, false },
	{ "write slab: write of 64 bytes, flush of 64", slab_write, REPEAT * SEGS, false },
	{ "write slab: put of 32 bits", slab_put, REPEAT * SEGS, false },
	{ "memcpy, by segments", by_memcpy, (double)(REPEAT / 4) * BYTES, true },
	{ "copy out of a chain", copy_out, (double)(REPEAT / 4) * BYTES, true },
	{ "cursor: 32 bits, high byte first", cursor_u32, (double)(REPEAT / 4) * BYTES, true },
	{ "cursor: 64 bits, low byte first", cursor_u64, (double)(REPEAT / 4) * BYTES, true },
	{ "cursor: 64 bytes", cursor_64, (double)(REPEAT / 4) * BYTES, true },
	{ "cursor: find two bytes that are not there", find, (double)(REPEAT / 4) * BYTES, true },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

int main(int argc, char **argv)
{
	static double took[ROWS][ROUNDS_MAX], copied[BIG_SIZES][4][ROUNDS_MAX];
	int rounds = argc > 1 ? atoi(argv[1]) : 11;
	double unit = 0, copy = 0;

	must(rounds > 0 && rounds <= ROUNDS_MAX);
	big_from = quarry_malloc(BIG);
	big_to = quarry_malloc(BIG);
	must(big_from != NULL && big_to != NULL);
	memset(big_from, 1, BIG);
	memset(big_to, 2, BIG);
	for (int i = 0; i < SEGS; i++) {
		memset(memory[i], 'a' + i % 20, SEG);
		storage[i] = quarry_storage_wrap(memory[i], SEG, NULL, NULL, 0);
	}
	for (int r = -1; r < rounds; r++) { /* the first warms up */
		for (size_t i = 0; i < ROWS; i++)
			took[i][r < 0 ? 0 : r] = (double)rows[i].run();
		for (int k = 0; k < BIG_SIZES; k++)
			for (int how = 0; how < 4; how++)
				copied[k][how][r < 0 ? 0 : r] = (double)big((size_t)16384 << 2 * k, how & 1, how & 2);
	}
	for (size_t i = 0; i < ROWS; i++) {
		double t = median(took[i], rounds) / rows[i].per;

		if (i == 0)
			unit = t;
		if (rows[i].bytes && copy == 0)
			copy = t;
		if (rows[i].bytes)
			printf("%-45s %8.0f MB/s  %5.2f of memcpy\n", rows[i].name, 1e3 / t, copy / t);
		else
			printf("%-45s %8.2f ns    %5.2f of a pair\n", rows[i].name, t, t / unit);
	}
	for (int k = 0; k < BIG_SIZES; k++) {
		double rate[4];

		for (int how = 0; how < 4; how++)
			rate[how] = (double)BIG / median(copied[k][how], rounds);
		printf("copy of %5zu KiB: in no cache: memcpy %6.2f GB/s, past the caches %6.2f; "
		       "again and again: %6.2f, %6.2f\n", (size_t)16 << 2 * k, rate[0], rate[1], rate[2], rate[3]);
	}
	return 0;
}
