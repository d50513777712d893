/* SPDX-License-Identifier: MIT */
/* What the tests of lanes share. */
#ifndef QUARRY_TESTS_UNIT_LANES_H
#define QUARRY_TESTS_UNIT_LANES_H

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "lib/lanes/lanes.h"

#define UNUSED __attribute__((unused))

static UNUSED quarry_lanes *lanes_made(const quarry_lanes_attr *attr)
{
	quarry_lanes *l = quarry_lanes_create(attr);

	cr_assert(l != NULL, "errno %d: %s", errno, quarry_error_text());
	return l;
}

/* Where it is, to be written: nothing moves meanwhile. */
static UNUSED void *writable(quarry_lanes *l, quarry_handle h)
{
	void *p;

	quarry_enter();
	p = quarry_get_mut(l, h);
	quarry_leave();
	cr_assert(p != NULL);
	return p;
}

static UNUSED quarry_handle filled(quarry_lanes *l, size_t size, int byte)
{
	quarry_handle h = quarry_halloc(l, size);

	cr_assert(h != 0);
	memset(writable(l, h), byte, size);
	return h;
}

static UNUSED void check(quarry_lanes *l, quarry_handle h, size_t size, int byte)
{
	const char *p;

	quarry_enter();
	p = quarry_get(l, h);
	cr_assert(p != NULL && quarry_get_range(l, h, 0, size) == p);
	for (size_t i = 0; i < size; i++)
		cr_assert(p[i] == (char)byte, "byte %zu of %zu", i, size);
	quarry_leave();
}

static UNUSED quarry_lanes_stats figures_of(quarry_lanes *l)
{
	quarry_lanes_stats s = { 0 };

	cr_assert(quarry_lanes_stats_get(l, &s) == 0);
	return s;
}

/* From here on there is another thread's record, of one that is in no scope: so the kernel is asked to fence it. */
static UNUSED void have_another_thread(void)
{
	cr_assert(qy_lanes_record_make() != NULL);
	qy_lanes_record = NULL;
}

static UNUSED void end_lanes(quarry_lanes *l)
{
	cr_assert(quarry_lanes_destroy(l) == 0);
}

#endif
