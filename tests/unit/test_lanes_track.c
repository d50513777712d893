/* SPDX-License-Identifier: MIT */
/* What is known of objects behind handles: each promise of include/quarry/track.h alone. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/quarry/track.h"
#include "tests/unit/lanes.h"

static int64_t moves_of(quarry_lanes *l, quarry_handle h, quarry_moved *m)
{
	memset(m, 0, QUARRY_MOVES_KEPT * sizeof(*m));
	return quarry_moves_of(l, h, m, QUARRY_MOVES_KEPT);
}

static quarry_lanes_part tag_part(quarry_lanes *l, const char *name)
{
	static quarry_lanes_part parts[512];
	int64_t n = quarry_lanes_parts(l, parts, 512);

	for (int64_t i = 0; i < n; i++)
		if (parts[i].kind == QUARRY_PART_TAG && strcmp(parts[i].name, name) == 0)
			return parts[i];
	return (quarry_lanes_part){ 0 };
}

/* ---- tags ---- */

Test(lanes_track, objects_have_names)
{
	quarry_lanes *l = lanes_made(NULL);
	quarry_handle a = filled(l, 100, 1), b = filled(l, 200, 2), c = filled(l, 300, 3);

	errno = 0;
	cr_assert(quarry_tag_of(l, a) == NULL && errno == ENOENT);
	cr_assert(quarry_tag(l, a, "session") == 0 && quarry_tag(l, b, "session") == 0 && quarry_tag(l, c, "row") == 0);
	cr_assert(!strcmp(quarry_tag_of(l, a), "session") && !strcmp(quarry_tag_of(l, c), "row"));
	cr_assert(quarry_tag_of(l, a) == quarry_tag_of(l, b), "a name is there once");
	cr_assert(tag_part(l, "session").objects == 2);
	cr_assert(tag_part(l, "session").live == quarry_hsize(l, a) + quarry_hsize(l, b));
	cr_assert(quarry_tag(l, b, "row") == 0 && tag_part(l, "session").objects == 1 && tag_part(l, "row").objects == 2);
	cr_assert(quarry_tag(l, c, NULL) == 0 && quarry_tag_of(l, c) == NULL && tag_part(l, "row").objects == 1);
	cr_assert(quarry_hfree(l, b) == 0 && tag_part(l, "row").objects == 0 && tag_part(l, "row").live == 0);
	cr_assert(tag_part(l, "row").allocated == 2, "that came to it");
	errno = 0;
	cr_assert(quarry_tag_of(l, b) == NULL && errno == ESTALE);
	check(l, a, 100, 1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_track, what_is_no_name_and_what_is_no_object)
{
	quarry_lanes *l = lanes_made(NULL);
	quarry_handle h = filled(l, 100, 1);
	char name[32];

	cr_assert(quarry_tag(l, h, "") == -1 && errno == EINVAL);
	cr_assert(quarry_tag(l, h, "12345678901234567890123456789012") == -1 && errno == EINVAL);
	cr_assert(quarry_tag(l, h, "1234567890123456789012345678901") == 0);
	cr_assert(quarry_tag(NULL, h, "x") == -1 && errno == EINVAL);
	cr_assert(quarry_tag(l, h ^ (quarry_handle)1 << 40, "x") == -1);
	for (int i = 0; i < QUARRY_TAGS; i++) {
		snprintf(name, sizeof name, "name %d", i);
		cr_assert((quarry_tag(l, h, name) == 0) == (i < QUARRY_TAGS - 2), "%d", i); /* two are there */
	}
	cr_assert(errno == ENOSPC && quarry_set_thread_tag("one more") == -1 && errno == ENOSPC);
	cr_assert(!strcmp(quarry_tag_of(l, h), "name 252"));
	cr_assert(quarry_lanes_destroy(l) == 0);
}

#define MADE 20000

static void *parser(void *lanes)
{
	static quarry_handle h[MADE];
	quarry_lanes *l = lanes;

	cr_assert(quarry_set_thread_tag("parser") == 0 && !strcmp(quarry_thread_tag(), "parser"));
	for (int i = 0; i < MADE; i++)
		cr_assert((h[i] = quarry_halloc(l, 64)) != 0);
	for (int i = 0; i < MADE / 2; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(quarry_set_thread_tag(NULL) == 0 && quarry_thread_tag() == NULL);
	for (int i = 0; i < MADE / 2; i++)
		cr_assert((h[i] = quarry_halloc(l, 64)) != 0);
	return NULL;
}

Test(lanes_track, what_threads_with_names_allocate_is_told_by_samples)
{
	quarry_lanes *l = lanes_made(NULL);
	quarry_lanes_part p;
	pthread_t t;

	filled(l, 64, 1);
	cr_assert(pthread_create(&t, NULL, parser, l) == 0 && pthread_join(t, NULL) == 0);
	p = tag_part(l, "parser");
	cr_assert(p.objects > MADE / 2 * 3 / 4 && p.objects < MADE / 2 * 5 / 4, "%llu live", (unsigned long long)p.objects);
	cr_assert(p.live == p.objects * 64);
	cr_assert(p.allocated > MADE * 3 / 4 && p.allocated < MADE * 5 / 4, "%llu", (unsigned long long)p.allocated);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- moves ---- */

Test(lanes_track, the_last_moves_of_an_object_are_known)
{
	quarry_lanes_attr attr = { .threshold = 4096 };
	quarry_lanes *l = lanes_made(&attr);
	quarry_handle h = filled(l, 100, 1);
	quarry_moved m[QUARRY_MOVES_KEPT];

	cr_assert(moves_of(l, h, m) == -1 && errno == ENOENT);
	cr_assert(quarry_tag(l, h, "it") == 0 && moves_of(l, h, m) == 0);
	cr_assert(quarry_lanes_tick(l) == 0 && quarry_promote(l, h) == 0);
	cr_assert(moves_of(l, h, m) == 1 && m[0].why == QUARRY_MOVED_CALL && m[0].from == QUARRY_PLACE_FAST &&
		  m[0].to == QUARRY_PLACE_SLOW && m[0].tick == 1);
	cr_assert(quarry_lanes_tick(l) == 0 && quarry_demote(l, h) == 0);
	cr_assert(moves_of(l, h, m) == 2 && m[0].why == QUARRY_MOVED_DEMOTED && m[0].to == QUARRY_PLACE_FAST && m[0].tick == 2 &&
		  m[1].why == QUARRY_MOVED_CALL);
	for (int i = 0; i < 3; i++)
		cr_assert((i % 2 ? quarry_demote(l, h) : quarry_promote(l, h)) == 0 && quarry_lanes_tick(l) == 0);
	cr_assert(moves_of(l, h, m) == 5 && m[0].tick == 4 && m[1].tick == 3 && m[2].tick == 2 && m[3].tick == 2);
	cr_assert(m[0].why == QUARRY_MOVED_CALL && m[1].why == QUARRY_MOVED_DEMOTED && m[2].why == QUARRY_MOVED_CALL &&
		  m[3].why == QUARRY_MOVED_DEMOTED);
	cr_assert(quarry_moves_of(l, h, m, 1) == 5 && quarry_moves_of(l, h, NULL, 0) == 5 && quarry_moves_of(l, h, NULL, 1) == -1);
	check(l, h, 100, 1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_track, cold_and_back_and_packed_are_moves)
{
	quarry_cold_attr cold = { .period_ms = 3600000 };
	quarry_lanes_attr attr = { .cold = &cold, .flags = QUARRY_LANES_NO_MOVER };
	quarry_lanes *l = quarry_lanes_create(&attr);
	static quarry_handle h[16000];
	quarry_moved m[QUARRY_MOVES_KEPT];
	int packed = 0;

	if (l == NULL)
		cr_skip_test("no liblz4 here");
	for (int i = 0; i < 16000; i++)
		h[i] = filled(l, 1000, i % 100);
	cr_assert(quarry_tag(l, h[40], "it") == 0 && quarry_evict(l, h, 100) == 100);
	cr_assert(moves_of(l, h[40], m) == 1 && m[0].why == QUARRY_MOVED_COOLED && m[0].to == QUARRY_PLACE_COLD);
	check(l, h[40], 1000, 40);
	cr_assert(moves_of(l, h[40], m) == 2 && m[0].why == QUARRY_MOVED_REFAULTED && m[0].from == QUARRY_PLACE_COLD);
	cr_assert(tag_part(l, "it").moved == 1, "out and back is one");
	for (int i = 0; i < 16000; i++)
		cr_assert(i % 8 == 0 ? quarry_tag(l, h[i], "it") == 0 : quarry_hfree(l, h[i]) == 0);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	for (int i = 0; i < 16000; i += 8) {
		packed += moves_of(l, h[i], m) > 0 && m[0].why == QUARRY_MOVED_PACKED && m[0].to == QUARRY_PLACE_SLOW;
		check(l, h[i], 1000, i % 100);
	}
	cr_assert(packed > 100 && (uint64_t)packed <= figures_of(l).moved, "%d packed", packed);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- use ---- */

static void get(quarry_lanes *l, quarry_handle h)
{
	quarry_enter();
	cr_assert(quarry_get(l, h) != NULL);
	quarry_leave();
}

Test(lanes_track, how_often_an_object_is_used)
{
	quarry_lanes_attr attr = { .threshold = 100 };
	quarry_lanes *l = lanes_made(&attr);
	quarry_handle often = filled(l, 50, 1), never = filled(l, 500, 2), now_and_then = filled(l, 500, 3);

	cr_assert(quarry_used(l, often) == -1 && errno == ENOENT);
	cr_assert(quarry_tag(l, often, "often") == 0 && quarry_tag(l, never, "never") == 0 && quarry_tag(l, now_and_then, "then") == 0);
	cr_assert(quarry_usage_look(l) >= 3);
	for (int i = 0; i < 10; i++) {
		get(l, often);
		if (i % 2)
			get(l, now_and_then);
		cr_assert(quarry_usage_look(l) >= 3);
	}
	cr_assert(quarry_used(l, often) == 7, "%d", quarry_used(l, often));
	cr_assert(quarry_used(l, never) == 0, "%d", quarry_used(l, never));
	cr_assert(quarry_used(l, now_and_then) == 1, "%d", quarry_used(l, now_and_then));
	cr_assert(quarry_usage_look(l) >= 3 && quarry_used(l, often) == 3, "half of it, unused");
	cr_assert(quarry_promote(l, often) == 0 && quarry_usage_look(l) >= 3 && quarry_used(l, often) == 1, "a move is no use");
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_track, how_often_objects_are_used_by_samples)
{
	quarry_lanes *l = lanes_made(NULL);
	quarry_group *g = quarry_group_create(l, NULL), *other = quarry_group_create(l, NULL);
	quarry_usage u = { 0 };
	uint64_t often = 0, all = 0;
	quarry_handle h[8192];

	for (int i = 0; i < 8192; i++) {
		h[i] = quarry_halloc_with(l, i < 4096 ? 64 : 128, &(quarry_halloc_attr){ .group = i < 4096 ? g : other });
		cr_assert(h[i] != 0);
	}
	for (int n = 0; n < 8; n++) {
		for (int i = 4096; i < 8192; i++)
			get(l, h[i]);
		cr_assert(quarry_usage_look(l) > 0);
	}
	cr_assert(quarry_usage_get(l, &u, 128, NULL) == 0 && u.looks == 8 && u.sampled > 10);
	for (int i = 0; i < QUARRY_USES; i++)
		all += u.used[0][i];
	cr_assert(all > 3000 && all < 5200 && u.used[0][7] == all, "%llu, %llu", (unsigned long long)all, (unsigned long long)u.used[0][7]);
	cr_assert(quarry_usage_get(l, &u, 64, NULL) == 0 && u.used[0][7] == 0 && u.used[0][0] > 3000);
	cr_assert(quarry_usage_get(l, &u, 0, g) == 0 && u.used[0][0] > 3000 && u.used[0][7] == 0);
	cr_assert(quarry_usage_get(l, &u, 0, other) == 0 && u.used[0][0] == 0 && u.used[0][7] > 3000);
	cr_assert(quarry_usage_get(l, &u, 0, NULL) == 0);
	often = u.used[0][7];
	cr_assert(often == all);
	u.struct_size = 1;
	cr_assert(quarry_usage_get(NULL, &u, 2000, NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_usage_get(l, &u, 0, NULL) == -1 && errno == EINVAL && quarry_usage_get(l, NULL, 0, NULL) == -1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- walks and pictures ---- */

struct seen {
	quarry_lanes *l;
	int count, fast, slow, tagged;
	uint64_t bytes;
};

static int see(void *arg, const quarry_object *o)
{
	struct seen *s = arg;

	cr_assert(quarry_handle_valid(s->l, o->handle) && quarry_get(s->l, o->handle) == o->at && o->state == QUARRY_HANDLE_VALID);
	cr_assert(o->size == quarry_hsize(s->l, o->handle) && quarry_handle_lane(s->l, o->handle) == o->place);
	s->count++;
	s->fast += o->place == QUARRY_PLACE_FAST;
	s->slow += o->place == QUARRY_PLACE_SLOW;
	s->tagged += o->tag != NULL;
	s->bytes += o->size;
	return s->count == 1000;
}

static char *written(quarry_lanes *l, int64_t (*by)(quarry_lanes *l, int fd), int64_t *result)
{
	FILE *f = tmpfile();
	static char text[1 << 16];

	*result = by(l, fileno(f));
	rewind(f);
	text[fread(text, 1, sizeof text - 1, f)] = '\0';
	fclose(f);
	return text;
}

Test(lanes_track, a_walk_sees_each_object_once)
{
	quarry_lanes_attr attr = { .threshold = 1000 };
	quarry_lanes *l = lanes_made(&attr);
	struct seen s = { .l = l };
	quarry_handle h[100];

	for (int i = 0; i < 100; i++)
		h[i] = filled(l, i < 60 ? 100 : i < 99 ? 2000 : 5 << 20, i);
	for (int i = 0; i < 10; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0 && quarry_promote(l, h[10 + i]) == 0 && quarry_tag(l, h[15 + i], "some") == 0);
	cr_assert(quarry_lanes_walk(l, 0, see, &s) == 90 && s.count == 90 && s.fast == 40 && s.slow == 50 && s.tagged == 10);
	s = (struct seen){ .l = l };
	cr_assert(quarry_lanes_walk(l, QUARRY_WALK_REDIRECTED, see, &s) == 10 && s.slow == 10 && s.tagged == 5);
	s = (struct seen){ .l = l };
	cr_assert(quarry_lanes_walk(l, QUARRY_WALK_REDIRECTED | QUARRY_WALK_TAGGED, see, &s) == 5);
	s = (struct seen){ .l = l, .count = 999 };
	cr_assert(quarry_lanes_walk(l, 0, see, &s) == 1, "the function ends it");
	cr_assert(quarry_lanes_walk(l, 4, see, &s) == -1 && errno == EINVAL && quarry_lanes_walk(l, 0, NULL, NULL) == -1);
	cr_assert(quarry_stub_count(l) == 10);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_track, redirections_and_objects_are_written)
{
	quarry_lanes_attr attr = { .threshold = 1000, .name = "rows" };
	quarry_lanes *l = lanes_made(&attr);
	quarry_handle a = filled(l, 100, 1), b = filled(l, 100, 2);
	char line[160], *text;
	int64_t n;

	cr_assert(quarry_tag(l, b, "a \"b\"") == 0 && quarry_promote(l, b) == 0 && quarry_pin(l, a) != NULL);
	text = written(l, quarry_redirections_dump, &n);
	snprintf(line, sizeof line, "%016llx born fast in slow valid %zu bytes moved call at tick 0 tag a \"b\"\n",
		 (unsigned long long)b, quarry_hsize(l, b));
	cr_assert(n == 1 && strcmp(text, line) == 0, "%s, not %s", text, line);
	text = written(l, quarry_lanes_dump, &n);
	cr_assert(n == 2 && strncmp(text, "lanes ", 6) == 0 && strstr(text, " rows: ") && strstr(text, "born fast in fast pinned"));
	cr_assert(quarry_lanes_dump(l, -1) == -1 && errno == EINVAL && quarry_redirections_dump(NULL, 1) == -1);
	cr_assert(quarry_unpin(l, a) == 0 && quarry_lanes_destroy(l) == 0);
}

Test(lanes_track, segments_are_drawn)
{
	quarry_lanes *l = lanes_made(NULL);
	int full = 0, some = 0;
	int64_t n;
	char *text;
	quarry_handle h[4000];

	for (int i = 0; i < 4000; i++)
		h[i] = filled(l, 1000, 0);
	for (int i = 2000; i < 4000; i++)
		if (i % 4)
			cr_assert(quarry_hfree(l, h[i]) == 0);
	text = written(l, quarry_lanes_draw, &n);
	cr_assert(n >= 2 && strlen(text) == (size_t)n * 33 && text[32] == '\n' && text[65] == '\n');
	for (const char *p = text; *p; p++) {
		cr_assert(strchr(".123456789#\n", *p) != NULL);
		full += *p == '#';
		some += *p == '3' || *p == '2';
	}
	cr_assert(full > 20 && full < 40 && some > 20 && some < 40, "%d full, %d a third\n%s", full, some, text);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* What a thread has at hand for objects that there are not yet is free. */
Test(lanes_track, what_is_only_taken_is_not_drawn_as_live)
{
	quarry_lanes *l = lanes_made(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER });
	char *text;
	int64_t n;

	cr_assert(quarry_halloc(l, 1000) != 0);
	text = written(l, quarry_lanes_draw, &n);
	cr_assert(n >= 1 && text[strspn(text, ".\n")] == '1' && strspn(text, ".1\n") == strlen(text), "%s", text);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_track, how_full_they_are)
{
	quarry_lanes_attr attr = { .fast_lane_size = 1 << 20, .slow_lane_size = 15 << 20, .threshold = 100, .flags = QUARRY_LANES_NO_MOVER };
	quarry_lanes *l = lanes_made(&attr);
	quarry_lanes_space s = { 0 };
	static quarry_handle h[8000];

	for (int i = 0; i < 8000; i++)
		cr_assert((h[i] = quarry_halloc(l, 1008)) != 0);
	cr_assert(quarry_lanes_space_get(l, &s) == 0 && s.size == 16 << 20 && s.used == 8000 * 1008 && s.free == s.size - s.used);
	cr_assert(s.usage == 8000u * 1008 * 100 / (16 << 20) && s.fragmentation == 0, "%u, %u", s.usage, s.fragmentation);
	for (int i = 0; i < 8000; i++)
		if (i % 8)
			cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(quarry_lanes_space_get(l, &s) == 0 && s.fragmentation >= 50, "%u", s.fragmentation);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	cr_assert(quarry_lanes_space_get(l, &s) == 0 && s.fragmentation < 50, "%u", s.fragmentation);
	s.struct_size = 3;
	cr_assert(quarry_lanes_space_get(l, &s) == -1 && errno == EINVAL && quarry_lanes_space_get(l, NULL) == -1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}
