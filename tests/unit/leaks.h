/* SPDX-License-Identifier: MIT */
/* Looking for leaks from inside, where a test's own pointers must not be found: addresses are kept masked where no root is
 * meant. To be included once. */
#ifndef QUARRY_TESTS_LEAKS_H
#define QUARRY_TESTS_LEAKS_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "include/quarry/quarry.h"

#define MASK UINT64_C(0xa5a5a5a5a5a5a5a5)
#define MIB ((size_t)1 << 20)

static void *at(uint64_t masked)
{
	return (void *)(uintptr_t)(masked ^ MASK);
}

static uint64_t mask(const void *p)
{
	return (uintptr_t)p ^ MASK;
}

/* What calls left behind on the stack, and in registers that they used. (Without the room that AddressSanitizer leaves
 * around what is on the stack.) */
static __attribute__((noinline, no_sanitize_address)) void forget(void)
{
	volatile char junk[65536];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (char)i;
}

/* (The reclaimer's thread goes through lists at any time, and what it leaves on its stack counts.) */
static void without_reclaimer(void)
{
	cr_assert_eq(quarry_ctl_set("reclaim", "series"), 0, "%s", quarry_error_text());
}

static quarry_leaks_report look(unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx)
{
	quarry_leaks_report r = { .struct_size = sizeof(r) };

	forget();
	cr_assert_eq(quarry_leaks_find(flags, fn, ctx, &r), 0, "%s", quarry_error_text());
	cr_assert_eq(r.inexact, 0);
	return r;
}

/* (What is written to memory that nobody else knows of, compilers leave out.) */
static void written(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}

static uint64_t masked_one;

static __attribute__((noinline)) void make_one(size_t bytes)
{
	masked_one = mask(quarry_malloc(bytes));
	memset(at(masked_one), 0, bytes);
}

/* (Where the caller's next calls have their frames, too.) */
#define lose_one(bytes) (make_one(bytes), forget())

static quarry_leak told[8]; /* the examples masked */
static unsigned told_count;

static int keep(const quarry_leak *l, void *ctx)
{
	(void)ctx;
	cr_assert_lt(told_count, 8);
	told[told_count] = *l;
	for (unsigned i = 0; i < 4; i++)
		told[told_count].example[i] = l->example[i] == NULL ? NULL : at((uintptr_t)l->example[i]);
	told_count++;
	return 0;
}

#endif
