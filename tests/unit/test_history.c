/* SPDX-License-Identifier: MIT */
/* Figures as they were: rings against all that was noted, slopes that are known, and the history of a process, in it, in
 * its page, in a forked child, and in pages of others. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/reclaim/publish.h"
#include "lib/view/history.h"
#include "lib/view/publish.h"
#include "numa/os.h"
#include "tests/fake_os.h"

#define SECOND UINT64_C(1000000000)
#define SIZE sizeof(quarry_sample)

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,publish=off", 1);
	fake_os_install();
	fake_os_clock(1000000);
}

static uint64_t state = 4711;

static uint64_t next(void) /* splitmix64 */
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* ---- rings ---- */

#define NOTES 3000

static quarry_sample rings[QY_HISTORY_SAMPLES];
static struct note {
	uint64_t time, mapped, in_use, free, refills;
} notes[NOTES];
static size_t noted;

static void note(uint64_t time)
{
	struct note n = { time, next() % 1000, next() % 1000, next() % 1000, next() };
	quarry_stats total = { .mapped = n.mapped, .resident = n.mapped / 2, .in_use = n.in_use, .free_dirty = n.free,
			       .refills = n.refills, .purged = 77, .minor_faults = 5 };

	qy_history_note(rings, &total, time);
	notes[noted++] = n;
}

static long list_of(int ring, quarry_sample *list, size_t max)
{
	const struct qy_rings all = { (const char *)rings, SIZE, qy_history_counts };

	return qy_history_list(&all, ring, list, max, SIZE);
}

/* What all that was noted says of one second, minute or hour; false: nothing. */
static bool expected_of(uint64_t number, uint64_t step, quarry_sample *s)
{
	*s = (quarry_sample){ 0 };
	for (size_t i = 0; i < noted; i++) {
		const struct note *n = &notes[i];

		if (n->time / step != number)
			continue;
		s->time_ns = n->time;
		s->mapped = n->mapped;
		s->in_use = n->in_use;
		s->free = n->free;
		s->refills = n->refills;
		s->most_mapped = n->mapped > s->most_mapped ? n->mapped : s->most_mapped;
		s->most_in_use = n->in_use > s->most_in_use ? n->in_use : s->most_in_use;
		s->most_free = n->free > s->most_free ? n->free : s->most_free;
	}
	return s->time_ns != 0;
}

static void assert_ring(int ring, uint64_t step, uint64_t count)
{
	quarry_sample list[QUARRY_HISTORY_MOST], want;
	long n = list_of(ring, list, QUARRY_HISTORY_MOST), k = 0;
	uint64_t newest = notes[noted - 1].time / step;

	for (uint64_t number = newest >= count ? newest - count + 1 : 0; number <= newest; number++) {
		const quarry_sample *s = &list[k];

		if (!expected_of(number, step, &want))
			continue;
		cr_assert_lt(k++, n, "ring %d: %ld samples", ring, n);
		cr_assert(s->time_ns == want.time_ns && s->mapped == want.mapped && s->in_use == want.in_use &&
				  s->free == want.free && s->refills == want.refills && s->purged == 77,
			  "ring %d, %lu", ring, number);
		cr_assert(s->most_mapped == want.most_mapped && s->most_in_use == want.most_in_use &&
				  s->most_free == want.most_free && s->most_resident == want.most_mapped / 2,
			  "ring %d, %lu: the most", ring, number);
		cr_assert(s->minor_faults == 5 && s->major_faults == 0);
	}
	cr_assert_eq(k, n, "ring %d: %ld samples instead of %ld", ring, n, k);
	/* The last ones, when there is room for less. */
	cr_assert_eq(list_of(ring, &want, 1), n);
	cr_assert(memcmp(&want, &list[n - 1], SIZE) == 0);
	cr_assert_eq(list_of(ring, NULL, 0), n);
}

static void assert_rings(void)
{
	assert_ring(QUARRY_HISTORY_SECONDS, SECOND, 60);
	assert_ring(QUARRY_HISTORY_MINUTES, 60 * SECOND, 60);
	assert_ring(QUARRY_HISTORY_HOURS, 3600 * SECOND, 48);
}

/* Every second, some of them missed, then at rest for minutes, hours, or days. SEED in the environment repeats a run. */
Test(history, each_ring_has_what_was_noted)
{
	uint64_t time = 12345 * SECOND;

	state = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : state;
	for (int i = 0; i < NOTES; i++) {
		uint64_t far = next() % 50;

		time += far == 0 ? next() % (4000 * SECOND) : far == 1 ? next() % (20 * 60 * SECOND) :
			i % 700 == 699 ? 50 * 3600 * SECOND : next() % (2 * SECOND);
		note(time);
		if (i % 37 == 0)
			assert_rings();
	}
	assert_rings();
}

Test(history, nothing_was_noted)
{
	quarry_sample s;

	cr_assert_eq(list_of(QUARRY_HISTORY_SECONDS, &s, 1), 0);
	note(1); /* (right after the machine was started) */
	cr_assert_eq(list_of(QUARRY_HISTORY_HOURS, &s, 1), 1);
	cr_assert_eq(s.time_ns, 1);
	for (int ring = -1; ring <= 3; ring += 4) {
		errno = 0;
		cr_assert(list_of(ring, &s, 1) == -1 && errno == EINVAL);
	}
	errno = 0;
	cr_assert(list_of(0, NULL, 1) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_history_get(0, &s, 1, 8) == -1 && errno == EINVAL);
}

/* ---- slopes ---- */

static quarry_sample line[100];

static double slope(size_t count)
{
	double a_second = -1;

	cr_assert_eq(quarry_history_slope(line, count, SIZE, QUARRY_HISTORY_IN_USE, &a_second), 0, "%s",
		     quarry_error_text());
	return a_second;
}

static void draw(uint64_t from, int64_t a_minute)
{
	for (size_t i = 0; i < 100; i++)
		line[i] = (quarry_sample){ .time_ns = (i + 1) * 60 * SECOND,
					   .in_use = from + (uint64_t)(a_minute * (int64_t)i) };
}

static bool near(double a, double b)
{
	return a - b < 1e-6 && b - a < 1e-6;
}

Test(history, slopes_of_lines)
{
	draw(1000, 600);
	cr_assert(near(slope(60), 10) && near(slope(2), 10) && near(slope(100), 10));
	draw(1 << 20, -60);
	cr_assert(near(slope(60), -1));
	draw(5, 0);
	cr_assert(near(slope(60), 0));
	/* Seconds that are missing are no seconds. */
	draw(1000, 600);
	for (size_t i = 30; i < 60; i++) {
		line[i].time_ns += 7200 * SECOND;
		line[i].in_use += 72000;
	}
	cr_assert(near(slope(60), 10));
	/* Of more, the last ones. */
	draw(1000, 600);
	for (size_t i = 0; i < 40; i++)
		line[i].in_use = 1u << 30;
	cr_assert(near(slope(100), 10));
}

/* 3 MiB an hour, with a quarter of the samples far off; and a step, which is no growth. */
Test(history, slopes_with_peaks_and_steps)
{
	double wanted = 3.0 * (1 << 20) / 3600;

	draw(1 << 30, (3 << 20) / 60);
	for (size_t i = 0; i < 60; i += 4)
		line[i].in_use += (uint64_t)1 << 33;
	cr_assert(slope(60) > wanted * 0.9 && slope(60) < wanted * 1.1, "%f instead of %f", slope(60), wanted);
	draw(1 << 20, 0);
	for (size_t i = 20; i < 60; i++)
		line[i].in_use += 1 << 30;
	cr_assert(near(slope(60), 0), "a step: %f", slope(60));
}

Test(history, slopes_of_nothing)
{
	double a_second;

	draw(1, 1);
	errno = 0;
	cr_assert(quarry_history_slope(line, 1, SIZE, 0, &a_second) == -1 && errno == ENODATA);
	errno = 0;
	cr_assert(quarry_history_slope(line, 0, SIZE, 0, &a_second) == -1 && errno == ENODATA);
	line[1].time_ns = line[0].time_ns;
	errno = 0;
	cr_assert(quarry_history_slope(line, 2, SIZE, 0, &a_second) == -1 && errno == ENODATA);
	for (int figure = -1; figure <= 10; figure += 11) {
		errno = 0;
		cr_assert(quarry_history_slope(line, 9, SIZE, figure, &a_second) == -1 && errno == EINVAL);
	}
	errno = 0;
	cr_assert(quarry_history_slope(NULL, 9, SIZE, 0, &a_second) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_history_slope(line, 9, 8, 0, &a_second) == -1 && errno == EINVAL);
	cr_assert_eq(quarry_history_slope(line, 9, SIZE, QUARRY_HISTORY_MAJOR_FAULTS, &a_second), 0);
}

/* ---- of a process ---- */

static uint64_t (*real_ns)(void);
static uint64_t later_ns;

static uint64_t shifted_ns(void)
{
	return real_ns() + later_ns;
}

static void set_up(void)
{
	static struct qy_os os;

	os = *qy_os;
	real_ns = os.now_ns;
	os.now_ns = shifted_ns;
	qy_os = &os;
	cr_assert_eq(quarry_ctl_set("publish", "on"), 0);
}

static void publish(uint64_t after_s)
{
	later_ns += after_s * SECOND;
	fake_os_advance(1000000);
	(void)qy_publish_if_due(qy_os->now_ms());
}

static quarry_sample list[QUARRY_HISTORY_MOST], same[QUARRY_HISTORY_MOST];

static long get(int ring)
{
	return quarry_history_get(ring, list, QUARRY_HISTORY_MOST, SIZE);
}

/* A copy of the page. */
static _Alignas(16) char copy[1 << 16];

static void take_copy(void)
{
	size_t size;
	const void *page = qy_published_page(&size);

	cr_assert_not_null(page);
	memcpy(copy, page, sizeof(copy));
}

static long get_of_page(int ring)
{
	return quarry_published_history(copy, sizeof(copy), ring, same, QUARRY_HISTORY_MOST, SIZE);
}

Test(history, of_this_process_and_in_its_page)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	char *p;

	cr_assert_eq(get(QUARRY_HISTORY_SECONDS), 0, "with publish=off");
	set_up();
	publish(0);
	p = quarry_malloc(10 << 20);
	memset(p, 1, 10 << 20);
	publish(61);
	quarry_free(p);
	publish(1);
	cr_assert_eq(get(QUARRY_HISTORY_SECONDS), 2, "the first is a minute old");
	quarry_stats_get(NULL, &stats);
	cr_assert(list[0].in_use >= list[1].in_use + (10 << 20) && list[0].resident >= 10 << 20);
	cr_assert(list[1].mapped == stats.mapped && list[1].in_use == stats.in_use && list[1].refills == stats.refills);
	cr_assert(list[1].minor_faults >= list[0].minor_faults && list[0].minor_faults > 0);
	/* Of an hour, the most. */
	cr_assert_geq(get(QUARRY_HISTORY_HOURS), 1);
	cr_assert_geq(list[get(QUARRY_HISTORY_HOURS) - 1].most_in_use, 10 << 20);
	take_copy();
	for (int ring = 0; ring < 3; ring++) {
		long n = get(ring);

		cr_assert_eq(get_of_page(ring), n);
		cr_assert_eq(memcmp(list, same, (size_t)n * SIZE), 0, "ring %d", ring);
	}
}

static int status_of(pid_t child)
{
	int status;

	cr_assert_eq(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

Test(history, a_forked_child_begins_anew)
{
	pid_t child;

	set_up();
	publish(0);
	publish(2);
	cr_assert_eq(get(QUARRY_HISTORY_SECONDS), 2);
	child = fork();
	if (child == 0) {
		bool none = get(QUARRY_HISTORY_SECONDS) == 0;

		publish(2);
		take_copy();
		_exit(!none ? 1 : get(QUARRY_HISTORY_SECONDS) != 1 ? 2 : get_of_page(QUARRY_HISTORY_SECONDS) != 1 ? 3 : 0);
	}
	cr_assert_eq(status_of(child), 0);
	cr_assert_eq(get(QUARRY_HISTORY_SECONDS), 2);
}

/* ---- pages of others ---- */

static quarry_published *const head = (quarry_published *)(void *)copy;

static void expect_unsound(const char *what)
{
	errno = 0;
	cr_assert(get_of_page(0) == -1 && errno == EINVAL, "%s", what);
	take_copy();
}

Test(history, of_an_older_library_and_of_no_sound_one)
{
	set_up();
	publish(0);
	take_copy();
	cr_assert_eq(get_of_page(0), 1);
	/* Its head ended before, and what follows it there is something else. */
	head->head_size = offsetof(quarry_published, history_offset);
	cr_assert_eq(get_of_page(0), 0);
	take_copy();
	head->history_offset = 0;
	head->sample_count[0] = UINT32_MAX;
	cr_assert_eq(get_of_page(0), 0);
	take_copy();
	head->history_offset = sizeof(copy);
	expect_unsound("behind the end");
	head->history_offset = 8;
	expect_unsound("in the head");
	head->sample_count[2] = UINT32_MAX;
	expect_unsound("too many");
	head->sample_count[0] = head->sample_count[1] = head->sample_count[2] = head->sample_size = UINT32_MAX;
	expect_unsound("more than can be counted");
	head->sample_count[0] = head->sample_count[1] = UINT32_MAX;
	head->sample_count[2] = 2;
	head->sample_size = 1u << 31;
	expect_unsound("2^64 bytes");
	head->sample_size = 8;
	expect_unsound("too small");
	/* A newer one's, which are larger, of other counts. */
	head->sample_size = SIZE + 48;
	head->sample_count[0] = 61;
	memset(copy + head->history_offset, 0, 61 * (SIZE + 48));
	*(quarry_sample *)(void *)(copy + head->history_offset + 9 * (SIZE + 48)) =
		(quarry_sample){ .time_ns = (61 * 5 + 9) * SECOND, .most_free = 8 };
	cr_assert_eq(get_of_page(0), 1);
	cr_assert(same[0].most_free == 8 && same[0].time_ns == (61 * 5 + 9) * SECOND);
	/* An older one's, which are smaller. */
	take_copy();
	head->sample_size = offsetof(quarry_sample, most_mapped);
	memset(copy + head->history_offset, 0, 60 * SIZE);
	((quarry_sample *)(void *)(copy + head->history_offset))->time_ns = 600 * SECOND;
	((quarry_sample *)(void *)(copy + head->history_offset))->major_faults = 3;
	cr_assert_eq(get_of_page(0), 1);
	cr_assert(same[0].major_faults == 3 && same[0].most_mapped == 0);
}

/* How the profile is doing stands there, too. */
Test(history, the_profile_in_the_page)
{
	quarry_profile_report now = { .struct_size = sizeof(now) }, seen = now;
	static void *some[1000];

	set_up();
	cr_assert_eq(quarry_profile_start(1), 0);
	for (size_t i = 0; i < 1000; i++)
		cr_assert_not_null(some[i] = quarry_malloc(1000));
	for (size_t i = 0; i < 300; i++)
		quarry_free(some[i]);
	publish(0);
	take_copy();
	cr_assert_eq(quarry_profile_report_get(&now), 0);
	cr_assert_eq(quarry_published_profile(copy, sizeof(copy), &seen), 0);
	cr_assert(seen.samples > 500 && seen.live >= seen.samples - 300 && seen.mean == 1);
	cr_assert_eq(memcmp(&seen, &now, sizeof(now)), 0);
	memset(&seen, 0x5a, sizeof(seen));
	seen.struct_size = offsetof(quarry_profile_report, mean);
	cr_assert_eq(quarry_published_profile(copy, sizeof(copy), &seen), 0);
	cr_assert(seen.sites == now.sites && seen.struct_size == offsetof(quarry_profile_report, mean));
	cr_assert_eq(seen.mean, 0x5a5a5a5a5a5a5a5a);
	seen.struct_size = 0;
	errno = 0;
	cr_assert(quarry_published_profile(copy, sizeof(copy), &seen) == -1 && errno == EINVAL);
	seen.struct_size = sizeof(seen);
	head->profile_offset = 0;
	errno = 0;
	cr_assert(quarry_published_profile(copy, sizeof(copy), &seen) == -1 && errno == ENODATA);
}

/* Samples of any bytes: as many as there may be, in order. */
Test(history, random_rings)
{
	set_up();
	publish(0);
	for (int round = 0; round < 300; round++) {
		take_copy();
		for (size_t i = 0; i < QY_HISTORY_SAMPLES * SIZE; i += 8) {
			uint64_t n = round % 2 ? next() : next() % (400 * SECOND);

			memcpy(copy + head->history_offset + i, &n, 8);
		}
		for (int ring = 0; ring < 3; ring++) {
			long n = get_of_page(ring);

			cr_assert(n >= 0 && n <= QUARRY_HISTORY_MOST);
			for (long i = 1; i < n; i++)
				cr_assert_gt(same[i].time_ns, same[i - 1].time_ns);
		}
	}
}
