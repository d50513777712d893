/* SPDX-License-Identifier: MIT */
/* Pages of a durable heap with one word each, to be changed and looked at. */
#ifndef TESTS_UNIT_DURABLE_PAGES_H
#define TESTS_UNIT_DURABLE_PAGES_H

#include <criterion/criterion.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"

#define PAGES 64u

/* Page i's word; all of them are one block, that the user area's first word leads to. */
static uint64_t *word(quarry_mapped *h, unsigned i)
{
	quarry_off *slot = quarry_mapped_user(h, NULL);
	uint64_t *p = *slot != 0 ? quarry_mapped_at(h, *slot) : quarry_mapped_alloc_into(h, PAGES * QY_PAGE, slot);

	cr_assert(p != NULL, "%s", quarry_error_text());
	return &p[i * 512 + i];
}

static void set_all(quarry_mapped *h, uint64_t value)
{
	for (unsigned i = 0; i < PAGES; i++)
		*word(h, i) = value;
}

static void all_are(quarry_mapped *h, uint64_t value)
{
	quarry_mapped_report report;

	for (unsigned i = 0; i < PAGES; i++)
		cr_assert_eq(*word(h, i), value, "page %u: %llu", i, (unsigned long long)*word(h, i));
	cr_assert_eq(quarry_mapped_check(h, &report, sizeof(report)), 0, "%s", report.first);
}

#endif
