/* SPDX-License-Identifier: MIT */
/* For the programs of tests/family: a check that reports without malloc and without stdio, the functions that libc's
 * headers do not have, and a proof that malloc is quarry's. The functions of quarry are weak here: a program that is
 * not linked with quarry finds them when it is preloaded. */
#ifndef QUARRY_TESTS_FAMILY_H
#define QUARRY_TESTS_FAMILY_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma weak quarry_malloc
#pragma weak quarry_free
#pragma weak quarry_realloc
#pragma weak quarry_usable_size
#pragma weak quarry_arena_of
#pragma weak quarry_stats_get
#pragma weak quarry_mallopt
#pragma weak quarry_ctl_get
#pragma weak quarry_option_describe

/* In no header of glibc 2.36. */
extern void free_sized(void *p, size_t n) __attribute__((weak));
extern void free_aligned_sized(void *p, size_t alignment, size_t n) __attribute__((weak));
extern void cfree(void *p) __attribute__((weak));

static int family_report_to = 2;

__attribute__((unused, noinline)) static void family_fail(const char *what, const char *file, int line)
{
	char digits[12];
	int n = sizeof digits;
	int ignored;

	do
		digits[--n] = (char)('0' + line % 10);
	while ((line /= 10) != 0);
	ignored = (int)write(family_report_to, file, strlen(file));
	ignored = (int)write(family_report_to, ":", 1);
	ignored = (int)write(family_report_to, digits + n, sizeof digits - (size_t)n);
	ignored = (int)write(family_report_to, ": failed: ", 10);
	ignored = (int)write(family_report_to, what, strlen(what));
	ignored = (int)write(family_report_to, "\n", 1);
	(void)ignored;
	_exit(1);
}

#define CHECK(x) ((x) ? (void)0 : family_fail(#x, __FILE__, __LINE__))

__attribute__((unused, noinline)) static void family_skip(const char *why)
{
	int ignored = (int)write(family_report_to, why, strlen(why));

	ignored = (int)write(family_report_to, "\n", 1);
	(void)ignored;
	_exit(77);
}

/* malloc is quarry's, and not another allocator's with quarry beside it. */
__attribute__((unused)) static void family_in_use(void)
{
	void *p = malloc(100);

	CHECK(quarry_usable_size != NULL);
	CHECK(p != NULL);
	CHECK(quarry_usable_size(p) >= 100);
	free(p);
}

/* xorshift64*; the seed is fixed, and every run is the same. */
__attribute__((unused)) static uint64_t family_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* Mostly small, now and then up to 2^max_bits. */
__attribute__((unused)) static size_t family_size(uint64_t *state, unsigned max_bits)
{
	unsigned bits = 1 + (unsigned)(family_random(state) % max_bits);

	return 1 + (size_t)(family_random(state) & (((uint64_t)1 << bits) - 1));
}

__attribute__((unused)) static void family_fill(void *p, size_t n, unsigned char with)
{
	memset(p, with, n);
}

__attribute__((unused)) static int family_holds(const void *p, size_t n, unsigned char with)
{
	const unsigned char *c = (const unsigned char *)p;

	for (size_t i = 0; i < n; i++)
		if (c[i] != with)
			return 0;
	return 1;
}

/* How many threads this process has, by the kernel. */
__attribute__((unused)) static int family_threads(void)
{
	char buffer[4096];
	char *found;
	int fd = open("/proc/self/status", O_RDONLY);
	ssize_t n;

	CHECK(fd >= 0);
	n = read(fd, buffer, sizeof buffer - 1);
	close(fd);
	CHECK(n > 0);
	buffer[n] = 0;
	found = strstr(buffer, "\nThreads:");
	CHECK(found != NULL);
	return atoi(found + 9);
}

#ifdef __cplusplus
}
#endif
#endif
