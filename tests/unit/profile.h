/* SPDX-License-Identifier: MIT */
/* A profile whose samples come from where a test says, and live for as long as it says. To be included once. */
#ifndef QUARRY_TESTS_PROFILE_H
#define QUARRY_TESTS_PROFILE_H

#include <criterion/criterion.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/manager/sites.h"
#include "numa/os.h"
#include "tests/unit/stacks.h"

static quarry_profile_report report(void)
{
	quarry_profile_report r = { .struct_size = sizeof(r) };

	cr_assert_eq(quarry_profile_report_get(&r), 0);
	return r;
}

static void at(uintptr_t where)
{
	place[0] = (void *)where;
}

static const struct qy_site *found;

static void find_site(void *where, const struct qy_site *s)
{
	if (s->depth > 0 && s->frames[0] == where)
		found = s;
}

static const struct qy_site *site_at(uintptr_t where)
{
	found = NULL;
	qy_sites_visit(find_site, (void *)where);
	return found;
}

static int sleeps;

static uint64_t later(void)
{
	return (uint64_t)sleeps;
}

#endif
