/* SPDX-License-Identifier: MIT */
/* A profile of everything, or of as much as a test wants, whose samples come from where the test says. To be included once. */
#ifndef QUARRY_TESTS_STACKS_H
#define QUARRY_TESTS_STACKS_H

#include <criterion/criterion.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "numa/os.h"

static struct qy_os os;

/* Where the next allocations come from, as the profile sees it. */
static void *place[3] = { (void *)0x1001, (void *)0x2001, (void *)0x3001 };

static unsigned fake_stack(void **frames, unsigned most)
{
	cr_assert_geq(most, 3);
	memcpy(frames, place, sizeof(place));
	return 3;
}

static void begin(size_t mean)
{
	os = *qy_os;
	os.stack = fake_stack;
	qy_os = &os;
	cr_assert_eq(quarry_profile_start(mean), 0);
}

#endif
