/* SPDX-License-Identifier: MIT */
/* The history that a process publishes, as trends and as rows of cells. */
#include "tools/top.h"

#include <string.h>

static const uint64_t steps[TOP_RINGS] = { 1000000000, 60 * UINT64_C(1000000000), 3600 * UINT64_C(1000000000) };
static const unsigned lengths[TOP_RINGS] = { 60, 60, 48 };

void top_trends_take(struct top *top, const struct published *p)
{
	for (int ring = 0; ring < TOP_RINGS; ring++) {
		struct top_trend *t = &top->trends[ring];
		long n = quarry_published_history(p->copy, p->size, ring, t->samples, QUARRY_HISTORY_MOST,
						  sizeof(t->samples[0]));

		t->count = n < 0 ? 0 : n > QUARRY_HISTORY_MOST ? QUARRY_HISTORY_MOST : (size_t)n;
		t->step_ns = steps[ring];
		t->length = lengths[ring];
	}
}

bool top_trend_slope(const struct top_trend *t, int figure, double *a_second)
{
	return quarry_history_slope(t->samples, t->count, sizeof(t->samples[0]), figure, a_second) == 0;
}

uint64_t top_trend_steps(const struct top_trend *t)
{
	return t->count == 0 ? 0 :
	       t->samples[t->count - 1].time_ns / t->step_ns - t->samples[0].time_ns / t->step_ns + 1;
}

/* The most in use from one second, minute or hour to another; where none was published, what was before. NULL: nothing
 * was. */
static const quarry_sample *most_in(const struct top_trend *t, uint64_t first, uint64_t last)
{
	const quarry_sample *found = NULL;

	for (size_t i = 0; i < t->count && t->samples[i].time_ns / t->step_ns <= last; i++)
		if (!found || found->time_ns / t->step_ns < first || t->samples[i].in_use > found->in_use)
			found = &t->samples[i];
	return found;
}

void top_trend_cells(const struct top_trend *t, int *levels, unsigned cells)
{
	unsigned each = (t->length + cells - 1) / cells;
	uint64_t newest, least = UINT64_MAX, most = 0;

	for (size_t i = 0; i < t->count; i++) {
		least = t->samples[i].in_use < least ? t->samples[i].in_use : least;
		most = t->samples[i].in_use > most ? t->samples[i].in_use : most;
	}
	newest = t->count == 0 ? 0 : t->samples[t->count - 1].time_ns / t->step_ns;
	for (unsigned i = 0; i < cells; i++) {
		uint64_t before = (uint64_t)(cells - 1 - i) * each;
		uint64_t last = newest - before, first = last >= each ? last - each + 1 : 0;
		const quarry_sample *s = before > newest ? NULL : most_in(t, first, last);

		levels[i] = !s ? -1 :
			    most == least ? 0 :
			    (int)((double)(s->in_use - least) / (double)(most - least) * (TOP_LEVELS - 1) + 0.5);
	}
}
