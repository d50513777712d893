/* SPDX-License-Identifier: MIT */
/* What is told of lanes: figures by lane, class and group, lifetimes, moves by why; and where they are told: in
 * statistics, metrics and the page that others read. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/api/sources.h"
#include "lib/lanes/figures.h"
#include "numa/os.h"
#include "tests/fake_os.h"

#define START 1000000u
#define N 4096

static quarry_handle h[N];

static struct qy_os mine;
static uint64_t now_ms = START;

static uint64_t clock_of_test(void)
{
	return now_ms * 1000000;
}

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,publish=off", 1);
	fake_os_install();
	mine = *qy_os;
	mine.now_ns = clock_of_test;
	qy_os = &mine;
}

static quarry_lanes_figures of(quarry_lanes *l)
{
	quarry_lanes_figures g = { 0 };

	cr_assert(quarry_lanes_figures_get(l, &g) == 0, "%s", quarry_error_text());
	return g;
}

static quarry_lanes_part part_of(quarry_lanes *l, const char *name)
{
	static quarry_lanes_part parts[512];
	int64_t n = quarry_lanes_parts(l, parts, 512);

	cr_assert(n >= 0 && n <= 512);
	for (int64_t i = 0; i < n; i++)
		if (strcmp(parts[i].name, name) == 0)
			return parts[i];
	return (quarry_lanes_part){ 0 };
}

static quarry_lanes *make(quarry_lanes_attr attr)
{
	quarry_lanes *l;

	attr.flags |= QUARRY_LANES_NO_MOVER;
	l = quarry_lanes_create(&attr);
	cr_assert_not_null(l, "%s", quarry_error_text());
	return l;
}

static void fill(quarry_lanes *l, size_t size)
{
	for (int i = 0; i < N; i++)
		cr_assert((h[i] = quarry_halloc(l, size)) != 0);
}

static void empty(quarry_lanes *l)
{
	for (int i = 0; i < N; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
}

/* ---- counts ---- */

Test(figures, objects_bytes_and_waste_by_class)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .name = "rows" });
	quarry_lanes_figures g;
	quarry_lanes_part p;

	fill(l, 100);
	quarry_handle whole = quarry_halloc(l, 300000), huge = quarry_halloc(l, 3000000);

	g = of(l);
	cr_assert_str_eq(g.name, "rows");
	cr_assert(g.number == l->id && g.objects == N + 2 && g.held >= g.live && g.live >= N * 112 + 3300000);
	p = part_of(l, "112");
	cr_assert(p.kind == QUARRY_PART_CLASS && p.size == 112 && p.objects == N && p.live == N * 112 && p.held >= p.live);
	cr_assert(p.held % 65536 == 0 && p.held - p.live < 65536 * 2);
	cr_assert(p.allocated >= N && p.allocated < N + 64);
	p = part_of(l, "whole");
	cr_assert(p.objects == 1 && p.live >= 300000 && p.held >= p.live && p.allocated == 1);
	p = part_of(l, "huge");
	cr_assert(p.objects == 1 && p.live >= 3000000 && p.allocated == 1);
	empty(l);
	cr_assert(quarry_hfree(l, whole) == 0 && quarry_hfree(l, huge) == 0);
	(void)quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0); /* what the thread had at hand goes back */
	g = of(l);
	cr_assert(g.objects == 0 && g.live == 0 && g.allocated == N + 2, "%lu", g.allocated);
	cr_assert(part_of(l, "112").allocated == N && part_of(l, "112").held == 0);
	quarry_lanes_destroy(l);
}

Test(figures, the_fast_lane)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .threshold = 1000 });
	quarry_lanes_figures g;

	fill(l, 100);
	g = of(l);
	cr_assert(g.fast_objects == N && g.objects == 0 && g.fast_live == N * 112 && g.fast_held >= N * 128);
	cr_assert(g.fast_allocated >= g.fast_held - 2 * 65536 && g.fast_allocated <= g.fast_held);
	for (int i = 0; i < 100; i++)
		cr_assert(quarry_promote(l, h[i]) == 0);
	for (int i = 0; i < 10; i++)
		cr_assert(quarry_demote(l, h[i]) == 0);
	g = of(l);
	cr_assert(g.moved[QUARRY_MOVED_CALL] == 100 && g.moved[QUARRY_MOVED_DEMOTED] == 10 && g.fast_stubs == 90);
	cr_assert(g.fast_objects == N - 90 && g.objects == 90);
	cr_assert(part_of(l, "112").moved == 110);
	empty(l);
	cr_assert_eq(of(l).fast_objects, 0);
	quarry_lanes_destroy(l);
}

Test(figures, moves_of_a_compaction_and_of_a_groups_objects)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_group *group = quarry_group_create(l, &(quarry_group_attr){ .name = "few", .limit = 1 << 20 });
	quarry_lanes_figures g;
	quarry_lanes_part p;
	enum { MANY = 40000 };
	static quarry_handle many[MANY];

	for (int i = 0; i < MANY; i++)
		cr_assert((many[i] = quarry_halloc(l, 200)) != 0);
	for (int i = 0; i < MANY; i++)
		if (i % 16 != 0)
			cr_assert(quarry_hfree(l, many[i]) == 0);
		else if (i % 160 == 0)
			cr_assert(quarry_group_add(group, many[i]) == 0);
	cr_assert_gt(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0), 0);
	g = of(l);
	cr_assert(g.moved[QUARRY_MOVED_PACKED] > 1000 && g.moved_bytes == g.moved[QUARRY_MOVED_PACKED] * 208);
	cr_assert(g.freed_segments > 0 && g.groups == 1);
	cr_assert_eq(part_of(l, "208").moved, g.moved[QUARRY_MOVED_PACKED]);
	p = part_of(l, "few");
	cr_assert(p.kind == QUARRY_PART_GROUP && p.objects == MANY / 160 && p.live == p.objects * 208 && p.limit == 1 << 20);
	cr_assert(p.allocated == MANY / 160 && p.moved > 100 && p.moved <= p.objects, "%lu", p.moved);
	quarry_lanes_destroy(l);
}

Test(figures, what_is_cold_by_class)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &(quarry_cold_attr){ .codec = NULL } };
	quarry_lanes *l = quarry_lanes_create(&attr);
	quarry_lanes_figures g;
	quarry_lanes_part p;

	if (l == NULL && errno == ENOENT) {
		cr_skip_test("no liblz4.so.1");
		return;
	}
	fill(l, 512);
	for (int i = 0; i < N; i++) {
		quarry_enter();
		memset(quarry_get_mut(l, h[i]), 1, 512);
		quarry_leave();
	}
	cr_assert_eq(quarry_evict(l, h, N), N);
	cr_assert_eq(quarry_prefetch(l, h, 100), 100);
	for (int i = 0; i < 150; i++) /* 100 of them came back, with their samples' marks */
		cr_assert(quarry_hfree(l, h[i]) == 0);
	g = of(l);
	p = part_of(l, "512");
	cr_assert(g.moved[QUARRY_MOVED_COOLED] == N && g.moved[QUARRY_MOVED_REFAULTED] == 100 && g.cold_objects == N - 150);
	cr_assert(p.cooled == N && p.refaults == 100 && p.cold_objects == N - 150 && p.cold_bytes == (N - 150) * 512);
	cr_assert(p.objects == 0 && p.allocated >= N && p.allocated < N + 64 && g.cold_bytes == p.cold_bytes);
	cr_assert(g.lived[0] > 100 && g.lived[0] < 250, "%lu", g.lived[0]);
	quarry_lanes_destroy(l);
}

/* ---- lifetimes ---- */

/* All live for a second, or none at all. */
Test(figures, objects_live_as_long_as_they_do)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_lanes_figures g;
	quarry_lanes_part p;

	fill(l, 64);
	now_ms += 1000;
	empty(l);
	g = of(l);
	cr_assert(g.lived[0] > N * 3 / 4 && g.lived[0] < N * 5 / 4, "%lu of %d", g.lived[0], N);
	cr_assert_eq(g.lifetimes[0][20], g.lived[0], "2^19 us to 2^20"); /* 1,000,000 us */
	cr_assert_eq(g.lived_us[0], g.lived[0] * 1000000);
	p = part_of(l, "64");
	cr_assert(p.lived == g.lived[0] && p.lifetimes[20] == p.lived);
	fill(l, 64);
	empty(l);
	g = of(l);
	cr_assert_gt(g.lifetimes[0][0], N / 2);
	cr_assert_eq(g.lifetimes[0][0] + g.lifetimes[0][20], g.lived[0]);
	quarry_lanes_destroy(l);
}

/* So many live that samples are given up: what is told of all of them stays about right, long ones and short ones. */
Test(figures, lifetimes_of_many)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	enum { MANY = 300000 };
	quarry_handle *many = calloc(MANY, sizeof(*many));
	quarry_lanes_figures g;

	for (int i = 0; i < MANY; i++)
		cr_assert((many[i] = quarry_halloc(l, 64)) != 0);
	cr_assert(l->figures->used < QY_LIVES * 3 / 4 && l->figures->used > QY_LIVES / 8);
	fill(l, 64);
	now_ms += 100;
	empty(l);
	now_ms += 9900;
	for (int i = 0; i < MANY; i++)
		cr_assert(quarry_hfree(l, many[i]) == 0);
	g = of(l);
	cr_assert(g.lifetimes[0][17] > N / 4 && g.lifetimes[0][17] < N * 4, "%lu", g.lifetimes[0][17]);
	cr_assert(g.lifetimes[0][24] > MANY * 3 / 4 && g.lifetimes[0][24] < MANY / 4 * 5, "%lu", g.lifetimes[0][24]);
	cr_assert_eq(l->figures->used, 0);
	free(many);
	quarry_lanes_destroy(l);
}

Test(figures, lifetimes_in_the_fast_lane_and_of_groups)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .threshold = 1000 });
	quarry_group *group = quarry_group_create(l, &(quarry_group_attr){ .name = "g" });
	quarry_lanes_part p;
	quarry_lanes_figures g;

	fill(l, 100);
	for (int i = 0; i < 1000; i++)
		cr_assert(quarry_group_add(group, h[i]) == 0);
	now_ms += 1000;
	empty(l);
	g = of(l);
	cr_assert(g.lived[1] > N / 2 && g.lived[1] < N * 2 && g.lived[0] == 0, "%lu", g.lived[1]);
	p = part_of(l, "g");
	cr_assert(p.lived > 700 && p.lived < 1400 && p.lifetimes[20] == p.lived, "%lu, %lu", p.lived, p.lifetimes[20]);
	cr_assert_eq(p.objects, 0);
	quarry_lanes_destroy(l);
}

/* A sample is moved, pinned, and freed while it is pinned. */
Test(figures, a_sample_goes_where_others_go)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_lanes_figures g;
	quarry_handle first = quarry_halloc(l, 64), second = quarry_halloc(l, 64);

	cr_assert_eq(l->figures->used, 1);
	cr_assert(quarry_handle_valid(l, first) && quarry_handle_state(l, first) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_demote(l, first) == 0 && quarry_promote(l, first) == 0);
	cr_assert_not_null(quarry_pin(l, first));
	cr_assert(quarry_hfree(l, first) == 0);
	cr_assert_eq(l->figures->used, 1, "it is there until it is unpinned");
	now_ms += 1000;
	cr_assert(quarry_unpin(l, first) == 0);
	cr_assert_eq(l->figures->used, 0);
	g = of(l);
	cr_assert(g.lived[0] > 0 && g.lived[0] == g.lifetimes[0][20]);
	cr_assert(quarry_hfree(l, second) == 0);
	quarry_lanes_destroy(l);
}

/* ---- told ---- */

static char *text_of(int json)
{
	static char text[1 << 20];
	FILE *file = tmpfile();
	size_t n;

	cr_assert(quarry_stats_print(fileno(file), json) == 0);
	rewind(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
	return text;
}

Test(told, in_statistics)
{
	quarry_lanes *l;

	cr_assert_not_null(strstr(text_of(1), ",\n\"lanes\":[]"));
	cr_assert_null(strstr(text_of(0), "\nlanes"));
	l = make((quarry_lanes_attr){ .name = "a\"\x01row", .threshold = 100 });
	fill(l, 200);
	cr_assert_not_null(quarry_group_create(l, &(quarry_group_attr){ .name = "\xff" }));
	cr_assert_not_null(strstr(text_of(1), "{\"number\":1,\"name\":\"a\\\"\\u0001row\",\"objects\":4096,\"live_bytes\":851968,"));
	cr_assert_not_null(strstr(text_of(1), "\"moved\":{\"packed\":0,\"node\":0,\"age\":0"));
	cr_assert_not_null(strstr(text_of(1), "\"classes\":[\n{\"size\":208,\"name\":\"208\",\"objects\":4096,"));
	cr_assert_not_null(strstr(text_of(1), "\"groups\":[\n{\"size\":0,\"name\":\"\\ufffd\",\"objects\":0,"));
	cr_assert_not_null(strstr(text_of(0), "\n  1 a\"?row            slow     4096"));
	for (const char *s = text_of(0); *s; s += strcspn(s, "\n") + 1)
		cr_assert_leq(strcspn(s, "\n"), 80, "%.90s", s);
	quarry_lanes_destroy(l);
	cr_assert_not_null(strstr(text_of(1), ",\n\"lanes\":[]"));
}

Test(told, in_metrics)
{
	static char text[1 << 20];
	quarry_lanes *l;

	cr_assert_gt(quarry_metrics_text(text, sizeof(text), QUARRY_METRICS_ARENAS), 0);
	cr_assert_null(strstr(text, "quarry_lanes"));
	l = make((quarry_lanes_attr){ .name = "r\"\n" });
	fill(l, 200);
	(void)quarry_group_create(l, NULL);
	cr_assert_gt(quarry_metrics_text(text, sizeof(text), QUARRY_METRICS_ARENAS), 0);
	cr_assert_not_null(strstr(text, "# UNIT quarry_lanes_live_bytes bytes\nquarry_lanes_live_bytes{lanes=\"1\",name=\"r\\\"\\n\"} 851968\n"));
	cr_assert_not_null(strstr(text, "quarry_lanes_moved_objects_total{lanes=\"1\",name=\"r\\\"\\n\",why=\"packed\"} 0\n"));
	cr_assert_not_null(strstr(text, "quarry_lanes_part_objects{lanes=\"1\",class=\"208\"} 4096\n"));
	cr_assert_not_null(strstr(text, "quarry_lanes_part_objects{lanes=\"1\",group=\"\",place=\"1\"} 0\n"));
	empty(l);
	cr_assert_gt(quarry_metrics_text(text, sizeof(text), 0), 0);
	cr_assert_not_null(strstr(text, "# TYPE quarry_lanes_lifetime_seconds histogram\n"));
	cr_assert_null(strstr(text, "quarry_lanes_part_"));
	quarry_lanes_destroy(l);
}

/* Who gathers where a lock is held that he would wait for tells what he told before. */
Test(told, nobody_waits_where_he_must_not)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	const struct qy_lanes_source *source = qy_lanes_source();
	quarry_lanes_figures g;
	quarry_lanes_part p;
	pthread_mutex_t *locks[] = { &l->lock, &l->groups.lock, &l->figures->lock, &l->figures->walk };

	fill(l, 64);
	cr_assert(source->lanes(&g, 1, false) == 1 && g.objects == N);
	empty(l);
	for (size_t i = 0; i < sizeof(locks) / sizeof(locks[0]); i++) {
		pthread_mutex_lock(locks[i]);
		memset(&g, 0, sizeof(g));
		cr_assert_eq(source->lanes(&g, 1, false), locks[i] != &l->figures->walk);
		cr_assert_eq(g.objects, locks[i] != &l->figures->walk ? N : 0);
		(void)source->parts(l->id, &p, 1, false);
		pthread_mutex_unlock(locks[i]);
	}
	cr_assert(source->lanes(&g, 1, false) == 1 && g.objects == 0);
	quarry_lanes_destroy(l);
	cr_assert_eq(source->lanes(&g, 1, false), 0);
}

Test(told, mistakes)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_lanes_figures g = { .struct_size = 1 };

	cr_assert(quarry_lanes_figures_get(NULL, &g) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_figures_get(l, &g) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_parts(l, NULL, 1) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_parts(l, NULL, 0) == 0);
	for (int why = 0; why < QUARRY_MOVES; why++)
		cr_assert_not_null(quarry_move_name(why));
	cr_assert(quarry_move_name(-1) == NULL && quarry_move_name(QUARRY_MOVES) == NULL);
	quarry_lanes_destroy(l);
}
