/* SPDX-License-Identifier: MIT */
/* How many allocations something makes, by the allocator's own count: a profile is kept with a mean of one byte, so that
 * every allocation is a sample (include/quarry/quarry.h: quarry_profile_start), in any arena, by any function of
 * quarry's. (Nothing else counts them: a hit of malloc touches no counter, and quarry_stats has refills.) All threads are
 * counted together; one that was there before the start is counted only some refills of its own later, so start before.
 *
 *	count_allocs_start();
 *	n = count_allocs(quarry_pages_free(pages, quarry_pages_alloc(pages, 1)));
 *	count_allocs_stop();
 *
 * To be included by tests that call quarry's own names: what libc's malloc gives is not seen. */
#ifndef QUARRY_TESTS_COUNT_ALLOCS_H
#define QUARRY_TESTS_COUNT_ALLOCS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "include/quarry/quarry.h"

/* All that were made since the start. Ends the program where they are not counted, as nothing would be 0 then. */
static inline uint64_t count_allocs_now(void)
{
	quarry_profile_report report = { .struct_size = sizeof report };

	if (quarry_profile_report_get(&report) != 0 || report.mean != 1) {
		fprintf(stderr, "count_allocs: nothing is counted: no profile is kept, or not of everything\n");
		abort();
	}
	return report.samples + report.lost;
}

/* Whether an allocation of so many bytes is seen. */
static inline int count_allocs_sees(size_t size)
{
	uint64_t before = count_allocs_now();
	void *p = quarry_malloc(size);
	int seen = count_allocs_now() == before + 1;

	quarry_free(p);
	return seen;
}

/* Count from here on, in this thread and in those that begin later. */
static inline void count_allocs_start(void)
{
	static const size_t sizes[] = { 1, 100, 1000, 10000, 100000 };

	/* Unwound by tables, each would take microseconds. */
	quarry_ctl_set("profile_stacks", "frames");
	if (quarry_profile_start(1) != 0)
		abort();
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		if (!count_allocs_sees(sizes[i])) {
			fprintf(stderr, "count_allocs: %zu bytes were allocated and not counted\n", sizes[i]);
			abort();
		}
}

static inline void count_allocs_stop(void)
{
	quarry_profile_stop();
}

/* The allocations of all threads while the statement runs. */
#define count_allocs(statement)                                                                       \
	__extension__({                                                                               \
		uint64_t count_allocs_before = count_allocs_now();                                    \
		statement;                                                                            \
		count_allocs_now() - count_allocs_before;                                             \
	})

#endif
