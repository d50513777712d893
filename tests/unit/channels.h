/* SPDX-License-Identifier: MIT */
/* Heaps with channels, and children that have them, for tests. */
#ifndef QUARRY_TESTS_UNIT_CHANNELS_H
#define QUARRY_TESTS_UNIT_CHANNELS_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/quarry/channel.h"

#define FOREVER 20000 /* ms: a test that would wait longer has failed */

static inline quarry_mapped *heap_new(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = (uint64_t)256 << 20 };
	quarry_mapped *heap = quarry_mapped_create(NULL, &attr);

	cr_assert_not_null(heap, "%s", quarry_error_text());
	cr_assert_eq(quarry_mapped_root_put(heap, "channel", 0, 0), 0);
	return heap;
}

static inline quarry_off make(quarry_mapped *heap, uint64_t bytes, uint32_t producers)
{
	quarry_channel_attr attr = { .struct_size = sizeof(attr), .bytes = bytes, .producers = producers };
	quarry_off off = quarry_channel_make(heap, quarry_mapped_root_slot(heap, "channel"), &attr);

	cr_assert_neq(off, 0, "%s", quarry_error_text());
	return off;
}

static inline quarry_channel *end_of(quarry_mapped *heap, quarry_off off, int role)
{
	quarry_channel *end = quarry_channel_open(heap, off, role);

	cr_assert_not_null(end, "%s", quarry_error_text());
	return end;
}

/* ---- by chance ---- */

static uint64_t state; /* of the generator */

static inline uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static inline void seed(const char *name)
{
	const char *told = getenv("QUARRY_TEST_SEED");

	state = told != NULL ? strtoull(told, NULL, 0) : (uint64_t)getpid() * 0x9e3779b97f4a7c15u | 1;
	printf("%s: QUARRY_TEST_SEED=%llu\n", name, (unsigned long long)state);
}

/* Of messages, for a ring of 64 KiB. */
static inline size_t some_size(void)
{
	switch (next() % 8) {
	case 0: return 0;
	case 1: return 56;
	case 2: return 57;
	case 3: return 8192;
	case 4: return next() % 8193;
	default: return next() % 300;
	}
}

/* ---- children ---- */

/* A child that opens the heap, does its work, and ends as it wants. */
static inline pid_t child(quarry_mapped *heap, void (*work)(quarry_mapped *heap, quarry_off off), quarry_off off)
{
	int fd = quarry_mapped_fd(heap);
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	heap = quarry_mapped_attach(fd);
	if (heap == NULL)
		_exit(99);
	work(heap, off);
	_exit(0);
}

#endif
