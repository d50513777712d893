/* SPDX-License-Identifier: MIT */
#include "lib/view/history.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"

#define SECOND UINT64_C(1000000000) /* ns */
#define LEAST_SAMPLE offsetof(quarry_sample, most_mapped)

const uint32_t qy_history_counts[QY_HISTORY_RINGS] = { 60, 60, 48 };
static const uint64_t steps[QY_HISTORY_RINGS] = { SECOND, 60 * SECOND, 3600 * SECOND };

/* ---- writing ---- */

static void sample_now(quarry_sample *s, const quarry_stats *total, uint64_t now_ns)
{
	*s = (quarry_sample){
		.time_ns = now_ns,
		.mapped = total->mapped,
		.resident = total->resident,
		.in_use = total->in_use,
		.cached = total->cached,
		.free = total->free_dirty,
		.refills = total->refills,
		.remote_frees = total->remote_frees,
		.purged = total->purged,
		.minor_faults = total->minor_faults,
		.major_faults = total->major_faults,
	};
	s->most_mapped = s->mapped;
	s->most_resident = s->resident;
	s->most_in_use = s->in_use;
	s->most_cached = s->cached;
	s->most_free = s->free;
}

/* What else was seen in the same second, minute or hour. */
static void keep_most(quarry_sample *now, const quarry_sample *before)
{
	now->most_mapped = qy_max(now->most_mapped, before->most_mapped);
	now->most_resident = qy_max(now->most_resident, before->most_resident);
	now->most_in_use = qy_max(now->most_in_use, before->most_in_use);
	now->most_cached = qy_max(now->most_cached, before->most_cached);
	now->most_free = qy_max(now->most_free, before->most_free);
}

void qy_history_note(quarry_sample *rings, const quarry_stats *total, uint64_t now_ns)
{
	quarry_sample now;

	sample_now(&now, total, now_ns);
	for (int ring = 0; ring < QY_HISTORY_RINGS; rings += qy_history_counts[ring++]) {
		quarry_sample *s = &rings[now_ns / steps[ring] % qy_history_counts[ring]], last = now;

		if (s->time_ns != 0 && s->time_ns / steps[ring] == now_ns / steps[ring])
			keep_most(&last, s);
		*s = last;
	}
}

/* ---- reading ---- */

static uint64_t time_at(const char *ring, size_t stride, uint32_t i)
{
	uint64_t time;

	memcpy(&time, ring + i * stride, sizeof(time));
	return time;
}

/* Whether what stands in the place of that second, minute or hour is of it. */
static bool is_there(const char *ring, size_t stride, uint32_t count, uint64_t number, uint64_t step)
{
	uint64_t time = time_at(ring, stride, (uint32_t)(number % count));

	return time != 0 && time / step == number;
}

long qy_history_list(const struct qy_rings *rings, int ring, quarry_sample *list, size_t max, size_t size)
{
	const char *at = rings->at;
	uint64_t newest = 0, first, step;
	uint32_t count;
	size_t n = 0, skipped;

	if (ring < 0 || ring >= QY_HISTORY_RINGS || size < LEAST_SAMPLE || (list == NULL && max > 0))
		return qy_fail(EINVAL, "history: no ring %d, or no list, or samples of %zu bytes", ring, size);
	for (int i = 0; i < ring; i++)
		at += rings->counts[i] * rings->stride;
	count = rings->counts[ring];
	step = steps[ring];
	for (uint32_t i = 0; i < count; i++)
		newest = qy_max(newest, time_at(at, rings->stride, i) / step);
	first = newest >= count ? newest - count + 1 : 0;
	for (uint64_t number = first; count > 0 && number <= newest; number++)
		n += is_there(at, rings->stride, count, number, step);
	skipped = n > max ? n - max : 0;
	n = 0;
	for (uint64_t number = first; count > 0 && number <= newest; number++) {
		char *to;

		if (!is_there(at, rings->stride, count, number, step) || n++ < skipped)
			continue;
		to = (char *)list + (n - 1 - skipped) * size;
		memset(to, 0, size);
		memcpy(to, at + number % count * rings->stride, qy_min(qy_min(size, sizeof(*list)), rings->stride));
	}
	return (long)n;
}

/* ---- how fast ---- */

#define PAIRS (QUARRY_HISTORY_MOST * (QUARRY_HISTORY_MOST - 1) / 2)

static const size_t figures[] = {
	[QUARRY_HISTORY_MAPPED] = offsetof(quarry_sample, mapped),
	[QUARRY_HISTORY_RESIDENT] = offsetof(quarry_sample, resident),
	[QUARRY_HISTORY_IN_USE] = offsetof(quarry_sample, in_use),
	[QUARRY_HISTORY_CACHED] = offsetof(quarry_sample, cached),
	[QUARRY_HISTORY_FREE] = offsetof(quarry_sample, free),
	[QUARRY_HISTORY_REFILLS] = offsetof(quarry_sample, refills),
	[QUARRY_HISTORY_REMOTE_FREES] = offsetof(quarry_sample, remote_frees),
	[QUARRY_HISTORY_PURGED] = offsetof(quarry_sample, purged),
	[QUARRY_HISTORY_MINOR_FAULTS] = offsetof(quarry_sample, minor_faults),
	[QUARRY_HISTORY_MAJOR_FAULTS] = offsetof(quarry_sample, major_faults),
};

#define FIGURES (sizeof(figures) / sizeof(figures[0]))

/* D. L. Shell's: of some thousand numbers at most, without memory or recursion. */
static void sort(double *at, size_t n)
{
	for (size_t gap = n / 2; gap > 0; gap /= 2) {
		for (size_t i = gap; i < n; i++) {
			double x = at[i];
			size_t k = i;

			for (; k >= gap && at[k - gap] > x; k -= gap)
				at[k] = at[k - gap];
			at[k] = x;
		}
	}
}

/* Of two samples, a second; false where no time is between them. */
static bool slope_of(const char *a, const char *b, size_t figure, double *slope)
{
	uint64_t from = time_at(a, 0, 0), to = time_at(b, 0, 0), before, after;

	memcpy(&before, a + figure, sizeof(before));
	memcpy(&after, b + figure, sizeof(after));
	if (to <= from)
		return false;
	*slope = ((double)after - (double)before) / ((double)(to - from) / (double)SECOND);
	return true;
}

QUARRY_API int quarry_history_slope(const quarry_sample *list, size_t count, size_t size, int figure,
				    double *a_second)
{
	const char *at = (const char *)list;
	double slopes[PAIRS];
	size_t n = 0;

	if (list == NULL || a_second == NULL || size < LEAST_SAMPLE || figure < 0 || (size_t)figure >= FIGURES ||
	    size < figures[figure] + sizeof(uint64_t))
		return qy_fail(EINVAL, "history: no list, no figure %d, or samples of %zu bytes", figure, size);
	if (count > QUARRY_HISTORY_MOST)
		at += (count - QUARRY_HISTORY_MOST) * size;
	count = qy_min(count, (size_t)QUARRY_HISTORY_MOST);
	for (size_t i = 0; i < count; i++)
		for (size_t k = i + 1; k < count; k++)
			n += slope_of(at + i * size, at + k * size, figures[figure], &slopes[n]);
	if (n == 0)
		return qy_fail(ENODATA, "history: a slope takes two samples of different times");
	sort(slopes, n);
	*a_second = (slopes[(n - 1) / 2] + slopes[n / 2]) / 2;
	return 0;
}
