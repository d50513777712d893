/* SPDX-License-Identifier: MIT */
/* The fast lane, and what moves between lanes: each promise of include/quarry/lanes.h alone; all of it at once is
 * tests/stress/lanes_fast.c. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/lanes/fast.h"
#include "tests/unit/lanes.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static quarry_lanes *make(quarry_lanes_attr attr)
{
	attr.threshold = attr.threshold == 0 ? 4096 : attr.threshold;
	return lanes_made(&attr);
}

static quarry_fast_stats stats_of(quarry_lanes *l)
{
	quarry_fast_stats s = { 0 };

	cr_assert(quarry_fast_stats_get(l, &s) == 0);
	return s;
}

/* ---- objects ---- */

Test(lanes_fast, a_handle_is_positive_and_says_what_it_says)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h = filled(l, 100, 'a'), large = quarry_halloc(l, 4097), typed;

	cr_assert((int64_t)h > 0 && quarry_handle_lane(l, h) == QUARRY_LANE_FAST && quarry_hsize(l, h) == 112);
	cr_assert((int64_t)large < 0 && quarry_handle_lane(l, large) == QUARRY_LANE_SLOW);
	typed = quarry_halloc_typed(l, 48, 64, 0xab);
	cr_assert((int64_t)typed > 0 && (typed >> 48 & 0xff) == 0xab && (uintptr_t)writable(l, typed) % 64 == 0);
	cr_assert(!quarry_handle_valid(l, typed ^ (quarry_handle)1 << 48), "another type");
	cr_assert(!quarry_handle_valid(l, h ^ (quarry_handle)1 << 63), "another lane");
	cr_assert(quarry_hfree(l, typed ^ (quarry_handle)1 << 48) == -1 && errno == EINVAL);
	cr_assert(quarry_hfree(l, h ^ (quarry_handle)1 << 63) == -1);
	check(l, h, 100, 'a');
	cr_assert(quarry_hfree(l, h) == 0 && quarry_hfree(l, typed) == 0);
	cr_assert(quarry_hfree(l, h) == -1 && errno == ESTALE);
	cr_assert(quarry_handle_state(l, h) == QUARRY_HANDLE_FREED && quarry_handle_lane(l, h) == -1);
	cr_assert(stats_of(l).objects == 0);
	end_lanes(l);
}

Test(lanes_fast, without_a_threshold_all_begin_in_the_slow_lane)
{
	quarry_lanes *l = quarry_lanes_create(NULL);
	quarry_halloc_attr fast = { .lane = QUARRY_LANE_FAST };
	quarry_handle h = quarry_halloc_with(l, 64, &fast);

	cr_assert((int64_t)quarry_halloc(l, 1) < 0);
	cr_assert((int64_t)h > 0 && quarry_hfree(l, h) == 0, "but for those that say otherwise");
	end_lanes(l);
}

Test(lanes_fast, generations_never_begin_anew)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .handles = 64, .generations = 5 });
	quarry_handle all[64 * 5], h;
	int n = 0;

	while ((h = quarry_halloc(l, 16)) != 0) {
		cr_assert(n < 64 * 5);
		for (int i = 0; i < n; i++)
			cr_assert(all[i] != h);
		all[n++] = h;
		cr_assert(quarry_hfree(l, h) == 0);
	}
	cr_assert(errno == ENOMEM && n == 64 * 5, "%d lives", n);
	end_lanes(l);
}

Test(lanes_fast, of_all_sizes_and_alignments)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .threshold = 1000000 });
	static const size_t sizes[] = { 1, 16, 17, 1000, 4096, 8192, 16000, 33333, 100000, 1000000 };
	quarry_handle h[10 * 13];
	int n = 0;

	for (int i = 0; i < 10; i++)
		for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
			quarry_halloc_attr attr = { .alignment = alignment };
			char *p;

			h[n] = quarry_halloc_with(l, sizes[i], &attr);
			cr_assert((int64_t)h[n] > 0);
			p = writable(l, h[n]);
			cr_assert((uintptr_t)p % alignment == 0 && quarry_hsize(l, h[n]) >= sizes[i]);
			memset(p, n++, sizes[i]);
		}
	/* The alignment stays, there and back. */
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < n; i++) {
			size_t alignment = (size_t)1 << i % 13;

			check(l, h[i], sizes[i / 13], i);
			cr_assert((uintptr_t)writable(l, h[i]) % alignment == 0, "%d, round %d", i, round);
			if (round == 0)
				cr_assert(quarry_promote(l, h[i]) == 0);
			else if (round == 1 && quarry_demote(l, h[i]) != 0)
				cr_assert(errno == EFBIG && quarry_hsize(l, h[i]) > 1000000);
		}
	for (int i = 0; i < n; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(stats_of(l).objects == 0 && quarry_stub_count(l) == 0);
	end_lanes(l);
}

/* ---- chunks that begin anew ---- */

Test(lanes_fast, a_chunk_begins_anew_when_all_in_it_are_gone)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_fast_stats s;

	for (int i = 0; i < 100000; i++) {
		quarry_handle h = quarry_halloc(l, 100);

		cr_assert(quarry_hfree(l, h) == 0);
	}
	s = stats_of(l);
	cr_assert(s.chunks <= 2 && s.resets >= 100000 * 128 / QY_CHUNK_SIZE - 2, "%u, %lu", s.chunks, (unsigned long)s.resets);
	end_lanes(l);
}

Test(lanes_fast, a_chunk_with_one_object_waits_for_it)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle kept[16];

	for (int i = 0; i < 16; i++) {
		kept[i] = filled(l, 200, i);
		for (int n = 0; n < 2000; n++)
			cr_assert(quarry_hfree(l, filled(l, 100, 0xee)) == 0);
	}
	for (int i = 0; i < 16; i++)
		check(l, kept[i], 200, i);
	cr_assert(stats_of(l).objects == 16);
	end_lanes(l);
}

/* What was freed in a scope stays what it was until it is left, whatever comes after it. */
Test(lanes_fast, a_scope_keeps_what_was_got_in_it)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h[700];
	const char *p[700];

	for (int i = 0; i < 700; i++)
		h[i] = filled(l, 100, i);
	quarry_enter();
	for (int i = 0; i < 700; i++)
		p[i] = quarry_get(l, h[i]);
	for (int i = 0; i < 700; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	for (int i = 0; i < 5000; i++) {
		quarry_handle other = quarry_halloc(l, 100);

		memset(quarry_get_mut(l, other), 0xee, 100);
		cr_assert(quarry_hfree(l, other) == 0);
	}
	for (int i = 0; i < 700; i++)
		for (int n = 0; n < 100; n++)
			cr_assert(p[i][n] == (char)i);
	quarry_leave();
	end_lanes(l);
}

static _Atomic(int) step;

struct reader {
	quarry_lanes *l;
	quarry_handle h;
	bool same;
};

static void *stay(void *arg)
{
	struct reader *r = arg;
	const char *p;

	quarry_enter();
	p = quarry_get(r->l, r->h);
	step = 1;
	while (step != 2)
		;
	r->same = p != NULL;
	for (int i = 0; i < 100 && r->same; i++)
		r->same = p[i] == 'r';
	quarry_leave();
	return NULL;
}

Test(lanes_fast, another_threads_scope_keeps_it_too)
{
	struct reader r = { .l = make((quarry_lanes_attr){ 0 }) };
	uint64_t resets;
	pthread_t thread;

	r.h = filled(r.l, 100, 'r');
	step = 0;
	cr_assert(pthread_create(&thread, NULL, stay, &r) == 0);
	while (step != 1)
		;
	cr_assert(quarry_hfree(r.l, r.h) == 0);
	for (int i = 0; i < 5000; i++)
		cr_assert(quarry_hfree(r.l, filled(r.l, 100, 0xee)) == 0);
	cr_assert(stats_of(r.l).resets == 0, "nothing begins anew as long as it is in its scope");
	step = 2;
	pthread_join(thread, NULL);
	cr_assert(r.same);
	resets = stats_of(r.l).resets;
	for (int i = 0; i < 5000; i++)
		cr_assert(quarry_hfree(r.l, filled(r.l, 100, 0xee)) == 0);
	cr_assert(stats_of(r.l).resets > resets);
	end_lanes(r.l);
}

Test(lanes_fast, a_pin_keeps_the_place_and_outlives_a_free)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h = filled(l, 300, 'p');
	char *p = quarry_pin(l, h);

	cr_assert(quarry_promote(l, h) == -1 && errno == EBUSY);
	cr_assert(quarry_oneway_flush(l) == 0);
	cr_assert(quarry_hfree(l, h) == 0 && !quarry_handle_valid(l, h));
	for (int i = 0; i < 5000; i++)
		cr_assert(quarry_hfree(l, filled(l, 100, 0xee)) == 0);
	for (int i = 0; i < 300; i++)
		cr_assert(p[i] == 'p');
	cr_assert(quarry_unpin(l, h) == 0 && quarry_unpin(l, h) == -1);
	cr_assert(stats_of(l).objects == 0);
	end_lanes(l);
}

static void *free_them(void *arg)
{
	struct reader *r = arg;

	for (int i = 0; i < 700; i++)
		if (quarry_hfree(r->l, ((quarry_handle *)(uintptr_t)r->h)[i]) != 0)
			return arg;
	return NULL;
}

Test(lanes_fast, others_may_free_them)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h[700];
	struct reader r = { .l = l, .h = (quarry_handle)(uintptr_t)h };

	for (int round = 0; round < 50; round++) {
		pthread_t thread;
		void *failed;

		for (int i = 0; i < 700; i++)
			h[i] = filled(l, 100, round);
		cr_assert(pthread_create(&thread, NULL, free_them, &r) == 0);
		pthread_join(thread, &failed);
		cr_assert(failed == NULL);
	}
	cr_assert(stats_of(l).objects == 0 && stats_of(l).chunks <= 4, "%u", stats_of(l).chunks);
	end_lanes(l);
}

static void *make_and_end(void *arg)
{
	struct reader *r = arg;

	for (int i = 0; i < 700; i++)
		((quarry_handle *)(uintptr_t)r->h)[i] = filled(r->l, 100, i);
	return NULL;
}

Test(lanes_fast, they_outlive_their_thread_and_its_chunk_begins_anew)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h[700];
	struct reader r = { .l = l, .h = (quarry_handle)(uintptr_t)h };

	for (int round = 0; round < 30; round++) {
		pthread_t thread;

		cr_assert(pthread_create(&thread, NULL, make_and_end, &r) == 0);
		pthread_join(thread, NULL);
		for (int i = 0; i < 700; i++) {
			check(l, h[i], 100, i);
			cr_assert(quarry_hfree(l, h[i]) == 0);
		}
	}
	cr_assert(stats_of(l).chunks <= 4, "%u", stats_of(l).chunks);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	cr_assert(stats_of(l).chunks == 0 && stats_of(l).held == 0);
	end_lanes(l);
}

/* ---- promoted ---- */

Test(lanes_fast, by_age)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .max_fast_age_ticks = 10 });
	quarry_handle old = filled(l, 100, 'o'), young, h;
	int64_t went = 0;

	for (int i = 0; i < 5; i++)
		cr_assert(quarry_lanes_tick(l) == 0);
	young = filled(l, 100, 'y');
	for (int i = 0; i < 4; i++)
		cr_assert(quarry_lanes_tick(l) == 0);
	cr_assert(quarry_lanes_tick(l) == 1, "the tenth");
	cr_assert(quarry_handle_lane(l, old) == QUARRY_LANE_SLOW && quarry_handle_lane(l, young) == QUARRY_LANE_FAST);
	cr_assert((int64_t)old > 0 && quarry_stub_count(l) == 1);
	check(l, old, 100, 'o');
	for (int i = 0; i < 5; i++) {
		cr_assert(went == 0);
		went += quarry_lanes_tick(l);
	}
	cr_assert(went == 1 && quarry_handle_lane(l, young) == QUARRY_LANE_SLOW);
	cr_assert(stats_of(l).promoted[QUARRY_PROMOTED_AGE] == 2 && stats_of(l).ticks == 15 && stats_of(l).objects == 0);
	check(l, young, 100, 'y');
	/* Another that came to the chunk after it was looked at is due as well. */
	h = filled(l, 64, 'h');
	for (int i = 0; i < 10; i++)
		went += quarry_lanes_tick(l);
	cr_assert(went == 2 && quarry_handle_lane(l, h) == QUARRY_LANE_SLOW);
	cr_assert(quarry_hfree(l, old) == 0 && quarry_hfree(l, young) == 0 && quarry_stub_count(l) == 1);
	cr_assert(quarry_handle_state(l, old) == QUARRY_HANDLE_FREED);
	end_lanes(l);
}

Test(lanes_fast, by_size)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .threshold = 100000 });
	quarry_handle small = filled(l, 4096, 's'), large = filled(l, 4097, 'l'), huge = filled(l, 90000, 'h');

	cr_assert((int64_t)large > 0 && (int64_t)huge > 0);
	cr_assert(quarry_lanes_tick(l) == 2);
	cr_assert(quarry_handle_lane(l, small) == QUARRY_LANE_FAST && quarry_handle_lane(l, large) == QUARRY_LANE_SLOW &&
		  quarry_handle_lane(l, huge) == QUARRY_LANE_SLOW);
	check(l, small, 4096, 's');
	check(l, large, 4097, 'l');
	check(l, huge, 90000, 'h');
	cr_assert(stats_of(l).promoted[QUARRY_PROMOTED_SIZE] == 2);
	end_lanes(l);
}

/* It is full of objects that stay: some make room, all are there. */
Test(lanes_fast, for_want_of_room)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .fast_lane_size = MIB });
	static quarry_handle h[20000];
	quarry_fast_stats s;

	for (int i = 0; i < 20000; i++)
		cr_assert((int64_t)(h[i] = filled(l, 200, i)) > 0, "%d", i);
	s = stats_of(l);
	cr_assert(s.held <= MIB && s.promoted[QUARRY_PROMOTED_FAILURE] > 10000 && s.spilled == 0);
	for (int i = 0; i < 20000; i++) {
		check(l, h[i], 200, i);
		cr_assert(quarry_hfree(l, h[i]) == 0);
	}
	cr_assert(stats_of(l).objects == 0 && quarry_stub_count(l) == 0);
	end_lanes(l);
}

Test(lanes_fast, a_tick_makes_room_before_it_is_wanted)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .fast_lane_size = MIB, .fast_lane_usage_threshold = 50,
						    .fast_lane_safety_margin = 60 });
	quarry_fast_stats s;

	for (int i = 0; i < 4000; i++)
		(void)filled(l, 200, i);
	cr_assert(stats_of(l).held > MIB / 2);
	cr_assert(quarry_lanes_tick(l) > 0);
	s = stats_of(l);
	cr_assert(s.promoted[QUARRY_PROMOTED_USAGE] > 1000 && s.live <= MIB * 45 / 100, "%lu", (unsigned long)s.live);
	end_lanes(l);
}

/* A compaction that has no time for new segments is over, and who promotes then may have one. */
Test(lanes_fast, by_call_after_a_short_compaction)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER });
	quarry_handle h = filled(l, 100, 'a');

	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 100) == 0);
	cr_assert(figures_of(l).segments == 0);
	cr_assert(quarry_promote(l, h) == 0, "errno %d", errno);
	check(l, h, 100, 'a');
	end_lanes(l);
}

Test(lanes_fast, by_call_and_back)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h = filled(l, 500, 'c'), slow = quarry_halloc(l, 9000), huge = quarry_halloc(l, 3 * MIB);

	cr_assert(quarry_demote(l, h) == 0, "it is there already");
	cr_assert(quarry_promote(l, h) == 0 && quarry_promote(l, h) == 0);
	cr_assert(quarry_handle_lane(l, h) == QUARRY_LANE_SLOW && quarry_stub_count(l) == 1);
	check(l, h, 500, 'c');
	cr_assert(quarry_demote(l, h) == 0 && quarry_handle_lane(l, h) == QUARRY_LANE_FAST && quarry_stub_count(l) == 0);
	check(l, h, 500, 'c');
	memset(writable(l, slow), 's', 9000);
	cr_assert(quarry_demote(l, slow) == 0 && quarry_handle_lane(l, slow) == QUARRY_LANE_FAST && (int64_t)slow < 0);
	check(l, slow, 9000, 's');
	cr_assert(quarry_stub_count(l) == 0 && stats_of(l).demoted == 2);
	cr_assert(quarry_demote(l, huge) == -1 && errno == EFBIG);
	quarry_enter();
	cr_assert(quarry_promote(l, h) == -1 && errno == EDEADLK);
	quarry_leave();
	cr_assert(quarry_hfree(l, h) == 0 && quarry_hfree(l, slow) == 0);
	cr_assert(quarry_promote(l, h) == -1 && errno == ESTALE);
	cr_assert(quarry_demote(l, 0) == -1 && errno == EINVAL);
	end_lanes(l);
}

struct told {
	quarry_handle h[64];
	int why[64], n;
};

static void tell(void *arg, quarry_handle h, int why)
{
	struct told *t = arg;

	t->why[t->n] = why;
	t->h[t->n++] = h;
}

Test(lanes_fast, all_of_them_and_the_program_is_told)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	struct told t = { .n = 0 };
	quarry_handle h[40];

	for (int i = 0; i < 40; i++) {
		h[i] = quarry_halloc_typed(l, 200, 0, (unsigned)i);
		memset(writable(l, h[i]), i, 200);
	}
	cr_assert(quarry_promote_hook(l, tell, &t) == 0);
	cr_assert(quarry_oneway_flush(l) == 40 && t.n == 40 && stats_of(l).objects == 0);
	for (int i = 0; i < 40; i++) {
		cr_assert(t.h[i] == h[i] && t.why[i] == QUARRY_PROMOTED_CALL);
		check(l, h[i], 200, i);
	}
	cr_assert(quarry_oneway_flush(l) == 0);
	end_lanes(l);
}

Test(lanes_fast, by_a_compaction_that_is_told_to)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle old = filled(l, 100, 'o'), young;

	cr_assert(quarry_lanes_tick(l) == 0);
	young = filled(l, 100, 'y');
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0 && quarry_handle_lane(l, old) == QUARRY_LANE_FAST);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL | QUARRY_COMPACT_PROMOTE, 0, 0) >= 0);
	cr_assert(quarry_handle_lane(l, old) == QUARRY_LANE_SLOW && quarry_handle_lane(l, young) == QUARRY_LANE_FAST);
	cr_assert(stats_of(l).promoted[QUARRY_PROMOTED_COMPACTION] == 1);
	check(l, old, 100, 'o');
	end_lanes(l);
}

/* The old copy stays as it was for who is in a scope since before; a writer since before stops it. */
static void *promote_it(void *arg)
{
	struct reader *r = arg;

	step = 1;
	r->same = quarry_promote(r->l, r->h) == 0;
	return NULL;
}

Test(lanes_fast, a_writer_stops_it)
{
	struct reader r = { .l = make((quarry_lanes_attr){ 0 }) };
	pthread_t thread;
	char *p;

	r.h = filled(r.l, 100, 'a');
	step = 0;
	quarry_enter();
	cr_assert(pthread_create(&thread, NULL, promote_it, &r) == 0);
	while (quarry_handle_state(r.l, r.h) != QUARRY_HANDLE_MOVING)
		;
	p = quarry_get_mut(r.l, r.h);
	memset(p, 'b', 100);
	quarry_leave();
	pthread_join(thread, NULL);
	cr_assert(!r.same && quarry_handle_lane(r.l, r.h) == QUARRY_LANE_FAST && stats_of(r.l).given_up == 1);
	check(r.l, r.h, 100, 'b');
	cr_assert(quarry_promote(r.l, r.h) == 0);
	check(r.l, r.h, 100, 'b');
	end_lanes(r.l);
}

/* ---- where objects begin ---- */

Test(lanes_fast, hints_say_where_it_begins)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_halloc_attr frame = { .flags = QUARRY_HALLOC_FRAME_CRITICAL }, cold = { .flags = QUARRY_HALLOC_COLD },
			   old = { .flags = QUARRY_HALLOC_OLD, .priority = QUARRY_PRIORITY_LOW, .type = 9 }, got = { 0 };
	quarry_handle h = quarry_halloc_with(l, 100, &old);

	cr_assert((int64_t)quarry_halloc_with(l, 20000, &frame) > 0);
	cr_assert((int64_t)quarry_halloc_with(l, 100, &cold) < 0 && (int64_t)h < 0);
	cr_assert(quarry_handle_attr(l, h, &got) == 0 && got.flags == QUARRY_HALLOC_OLD && got.type == 9 &&
		  got.priority == QUARRY_PRIORITY_LOW && got.lane == QUARRY_LANE_SLOW && got.group == NULL);
	cr_assert(quarry_hint(l, h, QUARRY_HALLOC_NOSPILL, QUARRY_PRIORITY_CRITICAL) == 0);
	cr_assert(quarry_demote(l, h) == 0 && quarry_handle_attr(l, h, &got) == 0);
	cr_assert(got.flags == QUARRY_HALLOC_NOSPILL && got.priority == QUARRY_PRIORITY_CRITICAL && got.lane == QUARRY_LANE_FAST);
	cr_assert(quarry_hfree(l, h) == 0);
	cr_assert(quarry_handle_attr(l, h, &got) == -1 && errno == ESTALE && quarry_hint(l, h, 0, 0) == -1 && errno == ESTALE);
	h = quarry_halloc(l, 100);
	cr_assert(quarry_hint(l, h, 0, 0) == 0 && quarry_handle_attr(l, h, &got) == 0 && got.flags == 0 && got.priority == 0,
		  "of this life");
	end_lanes(l);
}

Test(lanes_fast, without_spilling_there_is_none)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .fast_lane_size = 128 * KIB, .max_fast_age_ticks = 1 });
	quarry_halloc_attr stay = { .flags = QUARRY_HALLOC_NOSPILL };
	quarry_handle h[2000], spilled;
	int n = 0;

	while ((h[n] = quarry_halloc_with(l, 1000, &stay)) != 0) {
		memset(writable(l, h[n]), n, 1000);
		cr_assert(++n < 2000);
	}
	cr_assert(errno == ENOMEM && n >= 120 && stats_of(l).refused == 1);
	spilled = quarry_halloc(l, 1000);
	cr_assert((int64_t)spilled < 0 && stats_of(l).spilled == 1, "born in the slow lane");
	for (int i = 0; i < 3; i++)
		cr_assert(quarry_lanes_tick(l) == 0, "neither age");
	cr_assert(quarry_oneway_flush(l) == 0 && quarry_compact(l, QUARRY_COMPACT_PROMOTE, 0, 0) >= 0);
	for (int i = 0; i < n; i++) {
		cr_assert(quarry_handle_lane(l, h[i]) == QUARRY_LANE_FAST);
		check(l, h[i], 1000, i);
	}
	cr_assert(quarry_promote(l, h[0]) == 0, "but a call does");
	end_lanes(l);
}

Test(lanes_fast, priorities_when_the_slow_lane_is_nearly_full)
{
	quarry_lanes *l = quarry_lanes_create(&(quarry_lanes_attr){ .slow_lane_size = 20 * MIB });
	quarry_halloc_attr low = { .priority = QUARRY_PRIORITY_LOW }, critical = { .priority = QUARRY_PRIORITY_CRITICAL };
	int first = 0, second = 0, third = 0;

	while (quarry_halloc_with(l, 100000, &low) != 0)
		first++;
	cr_assert(errno == ENOMEM);
	while (quarry_halloc(l, 100000) != 0)
		second++;
	while (quarry_halloc_with(l, 100000, &critical) != 0)
		third++;
	/* 8, 9 and 10 segments of 2 MiB */
	cr_assert(first >= 8 * 16 && first <= 8 * 20 && second >= 12 && second <= 20 && third >= 12 && third <= 20,
		  "%d, %d, %d", first, second, third);
	cr_assert(quarry_halloc(l, 3 * MIB) == 0);
	end_lanes(l);
}

Test(lanes_fast, other_arenas_are_the_last_resort)
{
	quarry_arena *other = quarry_arena_create(NULL);
	quarry_lanes_attr attr = { .slow_lane_size = 4 * MIB, .fast_lane_size = 64 * KIB, .failover = { other } };
	quarry_halloc_attr stay = { .flags = QUARRY_HALLOC_NOSPILL };
	quarry_lanes *l = make(attr);
	quarry_handle h[3000];
	int n = 0, there = 0;

	while (stats_of(l).failed_over < 20 && n < 3000) {
		h[n] = filled(l, 4000, n);
		n++;
	}
	cr_assert(n > 500 && n < 3000);
	quarry_enter();
	for (int i = 0; i < n; i++)
		there += (int64_t)h[i] < 0 && quarry_arena_of((char *)quarry_get_mut(l, h[i]) - sizeof(struct qy_huge)) == other;
	quarry_leave();
	cr_assert(there == 20, "%d", there);
	cr_assert(quarry_halloc_with(l, 4000, &stay) == 0 && errno == ENOMEM);
	for (int i = 0; i < n; i++) {
		check(l, h[i], 4000, i);
		cr_assert(quarry_hfree(l, h[i]) == 0);
	}
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	end_lanes(l);
	cr_assert(quarry_arena_destroy(other) == 0, "%s", quarry_error_text());
}

/* ---- attributes ---- */

Test(lanes_fast, presets_and_what_is_wrong)
{
	quarry_lanes_attr a;
	const quarry_lanes_attr bad[] = { { .threshold = 1000001 }, { .max_fast_age_ticks = 32768 },
					  { .compaction_threshold = 101 }, { .slow_lane_size = MIB }, { .fast_lane_size = 1 },
					  { .enable_auto_compaction = 2 }, { .fast_lane_usage_threshold = 200 } };
	quarry_halloc_attr wrong[] = { { .flags = 16 }, { .type = 256 }, { .lane = 3 }, { .priority = 3 }, { .alignment = 3 },
				       { .struct_size = 1 } };
	quarry_lanes *l = NULL;

	cr_assert(quarry_lanes_preset(&a, QUARRY_PRESET_SEED) == 0);
	cr_assert(a.fast_lane_size == MIB && a.slow_lane_size == 10 * MIB && a.threshold == 4096 &&
		  a.enable_auto_compaction == 1 && a.compaction_threshold == 90 && a.slow_lane_usage_threshold == 85 &&
		  a.slow_lane_safety_margin == 10 && a.policy_check_interval == 10000 && a.max_fast_age_ticks == 600 &&
		  a.fast_lane_large_entry_threshold == 4096);
	for (int i = QUARRY_PRESET_SEED; i <= QUARRY_PRESET_FRAME_SCRATCH; i++) {
		cr_assert(quarry_lanes_preset(&a, i) == 0 && (l = quarry_lanes_create(&a)) != NULL, "%d: %s", i,
			  quarry_error_text());
		cr_assert(quarry_hfree(l, filled(l, 100, i)) == 0);
		end_lanes(l);
	}
	cr_assert(quarry_lanes_preset(&a, 6) == -1 && errno == EINVAL && quarry_lanes_preset(NULL, 0) == -1);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_assert(quarry_lanes_create(&bad[i]) == NULL && errno == EINVAL, "%u", i);
	l = make((quarry_lanes_attr){ 0 });
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
		cr_assert(quarry_halloc_with(l, 8, &wrong[i]) == 0 && errno == EINVAL, "%u", i);
	cr_assert(quarry_halloc_with(l, 0, NULL) == 0 && quarry_halloc(l, 0) == 0 && errno == EINVAL);
	cr_assert(quarry_halloc(NULL, 8) == 0 && errno == EINVAL && quarry_hfree(NULL, 8) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_tick(NULL) == -1 && quarry_oneway_flush(NULL) == -1 && quarry_fast_stats_get(l, NULL) == -1);
	cr_assert(quarry_halloc(l, SIZE_MAX) == 0 && errno == ENOMEM && quarry_halloc(l, SIZE_MAX - 20) == 0);
	end_lanes(l);
}

Test(lanes_fast, maintenance_compacts_by_the_threshold)
{
	quarry_lanes *l = quarry_lanes_create(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER, .enable_auto_compaction = 1, .compaction_threshold = 50 });
	static quarry_handle h[60000];
	uint32_t before;
	quarry_lanes_stats s = { 0 };

	for (int i = 0; i < 60000; i++)
		h[i] = filled(l, 400, i);
	for (int i = 0; i < 60000; i++)
		if (i % 4 != 0)
			cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(quarry_lanes_stats_get(l, &s) == 0);
	before = s.segments;
	cr_assert(quarry_lanes_tick(l) == 0, "it was never done, so it is time");
	cr_assert(quarry_lanes_stats_get(l, &s) == 0 && s.segments < before * 6 / 10, "%u of %u", s.segments, before);
	cr_assert(quarry_maintain(l, 0) >= 0);
	for (int i = 0; i < 60000; i += 4)
		check(l, h[i], 400, i);
	end_lanes(l);
}

/* ---- forks ---- */

static _Atomic(bool) stop;

static void *busy(void *arg)
{
	while (!stop) {
		quarry_handle h = quarry_halloc(arg, 100);

		if (quarry_hfree(arg, h) != 0)
			return arg;
	}
	return NULL;
}

static int child_of(quarry_lanes *l, const quarry_handle *h)
{
	for (int round = 0; round < 20; round++)
		for (int i = 0; i < 2000; i++)
			if (quarry_hfree(l, quarry_halloc(l, 100)) != 0)
				return 1;
	if (quarry_oneway_flush(l) < 500 || quarry_compact(l, QUARRY_COMPACT_FULL | QUARRY_COMPACT_PROMOTE, 0, 0) < 0)
		return 2;
	for (int i = 0; i < 1000; i++) {
		const char *p;

		quarry_enter();
		p = quarry_get(l, h[i]);
		if (p == NULL || p[0] != (char)i || p[99] != (char)i)
			return 3;
		quarry_leave();
		if (quarry_hfree(l, h[i]) != 0)
			return 4;
	}
	return 0;
}

Test(lanes_fast, a_child_has_it_all, .timeout = 120)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle h[1000];
	pthread_t thread;
	void *failed;

	for (int i = 0; i < 1000; i++)
		h[i] = filled(l, 100, i);
	stop = false;
	cr_assert(pthread_create(&thread, NULL, busy, l) == 0);
	for (int round = 0; round < 8; round++) {
		pid_t child = fork();
		int status;

		if (child == 0)
			_exit(child_of(l, h));
		cr_assert(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
	}
	stop = true;
	pthread_join(thread, &failed);
	cr_assert(failed == NULL);
	end_lanes(l);
}
