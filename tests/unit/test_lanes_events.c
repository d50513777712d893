/* SPDX-License-Identifier: MIT */
/* What lanes tell those who made them: what of, what it says, by whom and from inside what, until when; and that nobody is told of
 * anything in the midst of lanes. (In the midst of a fork, and in children: test_lanes_events_fork.c.) */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "include/quarry/track.h"
#include "lib/lanes/events.h"
#include "tests/unit/lanes.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SEGMENT (2 * MIB)

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

/* Nobody delivers but the threads of the test. */
static __attribute__((constructor(101))) void set_options(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,idle_threads=off", 1);
}

static quarry_lanes_event told[64];
static _Atomic(unsigned) count;

static void hear(const quarry_lanes_event *e, void *ctx)
{
	if (e->struct_size != sizeof(*e) || ctx != told || atomic_load(&count) == 64 || e->count == 0)
		abort();
	told[atomic_load(&count)] = *e;
	atomic_fetch_add(&count, 1);
}

static quarry_lanes *heard(const quarry_lanes_attr *attr)
{
	quarry_lanes *l = lanes_made(attr);

	cr_assert(quarry_lanes_on_event(l, hear, told) == 0);
	return l;
}

static const quarry_lanes_event *last_of(int kind, int why)
{
	for (unsigned i = atomic_load(&count); i-- > 0;)
		if (told[i].kind == kind && told[i].why == why)
			return &told[i];
	return NULL;
}

/* Objects of 1 KiB, and all but one of ten freed. */
static void fill_and_thin(quarry_lanes *l, quarry_handle *h, size_t n)
{
	size_t wrong = 0;

	for (size_t i = 0; i < n; i++)
		wrong += (h[i] = quarry_halloc(l, KIB)) == 0;
	for (size_t i = 0; i < n; i++)
		if (i % 10 != 0)
			wrong += quarry_hfree(l, h[i]) != 0;
	cr_assert(wrong == 0, "%zu", wrong);
}

/* ---- what is told ---- */

Test(lanes_events, a_lane_that_grows)
{
	quarry_lanes *l = heard(&alone);
	const quarry_lanes_event *e = NULL;
	quarry_handle h;

	cr_assert(quarry_halloc(l, 100) != 0);
	cr_assert(atomic_load(&count) == 1 && (e = last_of(QUARRY_LANES_GREW, QUARRY_LANE_SLOW)) != NULL);
	cr_assert(e->lanes == l && e->count == 1 && e->bytes == SEGMENT && e->held == SEGMENT && e->handle == 0 && e->time_ms > 0);
	cr_assert(e->moved == 0 && e->moved_bytes == 0 && e->ns == 0);
	for (int i = 0; i < 100; i++)
		cr_assert(quarry_halloc(l, 100) != 0);
	cr_assert(atomic_load(&count) == 1, "there was room");
	h = quarry_halloc(l, 3 * MIB);
	cr_assert(h != 0 && atomic_load(&count) == 2);
	cr_assert(told[1].why == QUARRY_LANE_SLOW && told[1].bytes >= 3 * MIB && told[1].bytes < 4 * MIB);
	cr_assert(told[1].held == told[1].bytes + SEGMENT);
	end_lanes(l);
	cr_assert(atomic_load(&count) == 2, "nothing of the end");
}

Test(lanes_events, the_fast_lane_that_grows)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .threshold = 4096 };
	quarry_lanes *l = heard(&attr);
	const quarry_lanes_event *e = NULL;

	cr_assert(quarry_halloc(l, 100) != 0 && quarry_halloc(l, 100) != 0);
	cr_assert(atomic_load(&count) == 1 && (e = last_of(QUARRY_LANES_GREW, QUARRY_LANE_FAST)) != NULL);
	cr_assert(e->bytes == 64 * KIB && e->held == 64 * KIB && e->count == 1);
	for (int i = 0; i < 1000; i++)
		cr_assert(quarry_halloc(l, 100) != 0);
	cr_assert(atomic_load(&count) == 2 && told[1].held == 128 * KIB);
	cr_assert(quarry_oneway_flush(l) > 0);
	cr_assert((e = last_of(QUARRY_LANES_GREW, QUARRY_LANE_SLOW)) != NULL, "what was promoted has a place");
	end_lanes(l);
}

Test(lanes_events, a_call_and_what_it_did)
{
	static quarry_handle h[8000];
	quarry_lanes *l = heard(&alone);
	const quarry_lanes_event *e = NULL;
	quarry_lanes_stats s;
	int64_t back;

	fill_and_thin(l, h, 8000);
	atomic_store(&count, 0);
	back = quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0);
	s = figures_of(l);
	e = last_of(QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_CALL);
	cr_assert(back > 0 && e != NULL && e->count == 1 && e->lanes == l);
	cr_assert(e->bytes == (uint64_t)back && e->moved == s.moved && e->moved_bytes == s.moved_bytes && e->moved > 0);
	cr_assert(e->ns > 0 && e->held == s.held);
	atomic_store(&count, 0);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) == 0);
	e = last_of(QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_CALL);
	cr_assert(e != NULL && e->moved == 0 && e->bytes == 0, "that it had nothing to do");
	cr_assert(quarry_compact(l, 77, 0, 0) == -1 && atomic_load(&count) == 1, "what is no compaction is none");
	end_lanes(l);
}

Test(lanes_events, one_for_want_of_room)
{
	static quarry_handle h[20000];
	quarry_arena_attr memory = { .hard_limit = 16 * MIB };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .memory = &memory, .handles = 1 << 16 };
	quarry_lanes *l = heard(&attr);
	const quarry_lanes_event *e = NULL;
	size_t n = 0;

	while (n < 20000 && (h[n] = quarry_halloc(l, KIB)) != 0)
		n++;
	cr_assert(n > 1000 && n < 20000);
	for (size_t i = 0; i < n; i++)
		if (i % 10 != 0)
			(void)quarry_hfree(l, h[i]);
	atomic_store(&count, 0);
	/* Of another class: there is no room but where others are. */
	for (int i = 0; i < 4000 && e == NULL; i++) {
		cr_assert(quarry_halloc(l, 2 * KIB) != 0);
		e = last_of(QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_ROOM);
	}
	cr_assert(e != NULL && e->bytes >= SEGMENT && e->moved > 0);
	end_lanes(l);
}

Test(lanes_events, the_background)
{
	static quarry_handle h[40000];
	quarry_lanes *l = heard(NULL);
	const quarry_lanes_event *e = NULL;

	cr_assert(quarry_ctl_set("reclaim", "parallel") == 0);
	fill_and_thin(l, h, 40000);
	while (e == NULL) {
		sched_yield();
		e = last_of(QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_BACKGROUND);
	}
	cr_assert(e->moved > 0 && e->bytes >= SEGMENT && e->ns > 0 && e->count >= 1);
	end_lanes(l);
}

/* Whatever happens before somebody can be told is one event of each kind. */
Test(lanes_events, what_comes_together_is_added_up)
{
	quarry_lanes *l = heard(&alone);

	qy_quiet++; /* as in the midst of something */
	for (int i = 0; i < 5000; i++)
		cr_assert(quarry_halloc(l, KIB) != 0);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) == 0 && quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) == 0);
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 0);
	qy_quiet--;
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 2);
	cr_assert(told[0].kind == QUARRY_LANES_COMPACTED && told[0].count == 2);
	cr_assert(told[1].kind == QUARRY_LANES_GREW && told[1].count == 3 && told[1].bytes == 3 * SEGMENT &&
		  told[1].held == 3 * SEGMENT);
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 2, "once");
	end_lanes(l);
}

/* ---- by whom, and until when ---- */

static quarry_lanes *used;
static unsigned depth, calls;

static void use_everything(const quarry_lanes_event *e, void *ctx)
{
	static quarry_handle kept;
	quarry_lanes_stats s = { 0 };

	(void)ctx;
	cr_assert(++depth == 1 && e->lanes == used);
	cr_assert(++calls < 10 && !qy_in_scope());
	cr_assert(quarry_lanes_stats_get(used, &s) == 0 && s.segments >= 1);
	if (calls < 3)
		kept = filled(used, 3 * MIB, (int)calls); /* an event that is told of by the next who delivers */
	check(used, kept, 3 * MIB, calls < 3 ? (int)calls : 2);
	for (int i = 0; i < 1000; i++)
		cr_assert(quarry_hfree(used, filled(used, 100 + (size_t)i, i)) == 0);
	if (calls == 2)
		cr_assert(quarry_compact(used, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	errno = 0;
	cr_assert(quarry_lanes_destroy(used) == -1 && errno == EDEADLK);
	if (calls == 4)
		cr_assert(quarry_lanes_on_event(used, NULL, NULL) == 0);
	depth--;
}

Test(lanes_events, the_function_may_do_anything_and_is_not_called_from_inside)
{
	used = lanes_made(&alone);
	cr_assert(quarry_lanes_on_event(used, use_everything, NULL) == 0);
	errno = 0;
	cr_assert(quarry_halloc(used, 100) != 0 && errno == 0);
	cr_assert(calls == 1, "%u", calls);
	qy_events_deliver();
	cr_assert(calls == 2, "%u", calls);
	qy_events_deliver();
	cr_assert(calls == 4, "of what it packed, and of what it grew by: %u", calls);
	cr_assert(quarry_halloc(used, 3 * MIB) != 0);
	qy_events_deliver();
	cr_assert(calls == 4, "it wanted no more");
	end_lanes(used);
}

static void make_one_more(const quarry_lanes_event *e, void *ctx)
{
	(void)ctx;
	cr_assert(++calls < 100);
	cr_assert(quarry_halloc(e->lanes, 2 * MIB) != 0);
}

static void *ask_meanwhile(void *other)
{
	cr_assert(quarry_halloc(other, 100) != 0);
	return NULL;
}

static void make_one_and_wait_for_another(const quarry_lanes_event *e, void *other)
{
	pthread_t t;

	make_one_more(e, NULL);
	cr_assert(pthread_create(&t, NULL, ask_meanwhile, other) == 0 && pthread_join(t, NULL) == 0);
}

/* What a function makes happen each time is not told for ever; what others do meanwhile is, by the same who delivers. */
Test(lanes_events, a_function_that_makes_what_it_is_told_of)
{
	quarry_lanes *other = heard(&alone);

	used = lanes_made(&alone);
	cr_assert(quarry_lanes_on_event(used, make_one_more, NULL) == 0);
	for (unsigned i = 1; i < 10; i++) {
		cr_assert(quarry_halloc(used, i == 1 ? 100 : 2 * MIB) != 0);
		cr_assert(calls == i, "%u", calls);
	}
	cr_assert(quarry_lanes_on_event(used, NULL, NULL) == 0);
	cr_assert(quarry_lanes_on_event(used, make_one_and_wait_for_another, other) == 0);
	cr_assert(quarry_halloc(used, 2 * MIB) != 0);
	cr_assert(calls == 10 && atomic_load(&count) == 1 && told[0].lanes == other);
	cr_assert(quarry_lanes_on_event(used, NULL, NULL) == 0);
	end_lanes(used);
	end_lanes(other);
}

static void call_destroy_of(const quarry_lanes_event *e, void *ctx)
{
	(void)e;
	cr_assert(quarry_lanes_destroy(ctx) == 0);
	calls++;
}

/* Others may be ended there, though they have something to tell. */
Test(lanes_events, other_lanes_may_end_in_it)
{
	quarry_lanes *other = heard(&alone), *third = heard(&alone);

	used = lanes_made(&alone);
	cr_assert(quarry_lanes_on_event(used, call_destroy_of, other) == 0);
	qy_quiet++;
	/* The last is told first. */
	cr_assert(quarry_halloc(third, 100) != 0 && quarry_halloc(other, 100) != 0 && quarry_halloc(used, 100) != 0);
	qy_quiet--;
	qy_events_deliver();
	cr_assert(calls == 1 && atomic_load(&count) == 1 && told[0].lanes == third);
	end_lanes(used);
	end_lanes(third);
}

Test(lanes_events, nobody_is_told_of_what_was_before_or_of_lanes_that_ended)
{
	quarry_lanes *l = lanes_made(&alone);

	cr_assert(quarry_halloc(l, 100) != 0);
	cr_assert(quarry_lanes_on_event(l, hear, told) == 0);
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 0);
	qy_quiet++;
	cr_assert(quarry_halloc(l, 3 * MIB) != 0);
	cr_assert(quarry_lanes_on_event(l, hear, told) == 0);
	qy_quiet--;
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 0, "that was the other one's");
	qy_quiet++;
	cr_assert(quarry_halloc(l, 3 * MIB) != 0);
	qy_quiet--;
	end_lanes(l);
	cr_assert(atomic_load(&count) == 1, "before they ended");
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 1);
	errno = 0;
	cr_assert(quarry_lanes_on_event(NULL, hear, told) == -1 && errno == EINVAL);
}

static _Atomic(int) inside, replacing;

static void stay(const quarry_lanes_event *e, void *ctx)
{
	(void)e;
	(void)ctx;
	atomic_store(&inside, 1);
	while (!atomic_load(&replacing))
		sched_yield();
	for (int i = 0; i < 1000; i++)
		sched_yield();
	atomic_store(&inside, 0);
}

static void *grow(void *l)
{
	cr_assert(quarry_halloc(l, 3 * MIB) != 0);
	return NULL;
}

Test(lanes_events, the_one_before_has_ended)
{
	quarry_lanes *l = lanes_made(&alone);
	pthread_t t;

	atomic_store(&replacing, 0);
	cr_assert(quarry_lanes_on_event(l, stay, NULL) == 0);
	cr_assert(pthread_create(&t, NULL, grow, l) == 0);
	while (!atomic_load(&inside))
		sched_yield();
	atomic_store(&replacing, 1);
	cr_assert(quarry_lanes_on_event(l, NULL, NULL) == 0);
	cr_assert(!atomic_load(&inside));
	pthread_join(t, NULL);
	end_lanes(l);
}

static _Atomic(int) over;
static uint32_t number;

static void stay_and_use(const quarry_lanes_event *e, void *ctx)
{
	(void)ctx;
	atomic_store(&inside, 1);
	while (!atomic_load(&replacing))
		sched_yield();
	for (int i = 0; i < 2000; i++) {
		quarry_handle h = quarry_halloc(e->lanes, 100 + (size_t)i);

		cr_assert(h != 0 && quarry_hfree(e->lanes, h) == 0);
		sched_yield();
	}
	atomic_store(&inside, 0);
}

/* What the function took for the thread has gone with the lanes. */
static void *grow_and_look(void *l)
{
	cr_assert(quarry_halloc(l, 3 * MIB) != 0);
	while (!atomic_load(&over))
		sched_yield();
	cr_assert(atomic_load(&qy_lanes_record->cache[number]) == NULL);
	return NULL;
}

Test(lanes_events, it_has_ended_before_its_lanes_end)
{
	quarry_lanes *l = lanes_made(&alone);
	pthread_t t;

	number = l->id;
	cr_assert(quarry_lanes_on_event(l, stay_and_use, NULL) == 0);
	cr_assert(pthread_create(&t, NULL, grow_and_look, l) == 0);
	while (!atomic_load(&inside))
		sched_yield();
	atomic_store(&replacing, 1);
	end_lanes(l);
	cr_assert(!atomic_load(&inside));
	atomic_store(&over, 1);
	pthread_join(t, NULL);
}

/* As the mover may, who saw that somebody listened, and tells of what it did when nobody does any more. */
Test(lanes_events, what_is_told_of_late_is_nobodys)
{
	quarry_lanes_event more = { .count = 1 };
	quarry_lanes *l = heard(&alone);

	cr_assert(quarry_lanes_on_event(l, NULL, NULL) == 0);
	qy_lanes_tell(l, QY_TELL_BACKGROUND, &more);
	cr_assert(atomic_load(&qy_events_waiting) == 0);
	end_lanes(l);
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 0);
}

/* What the mover has done of a plan when somebody begins to listen, or a child begins, is not told to him. */
Test(lanes_events, a_plan_is_told_to_who_listened_all_the_time)
{
	static quarry_handle h[40000];
	quarry_lanes *l = lanes_made(NULL);

	cr_assert(quarry_ctl_set("reclaim", "parallel") == 0);
	pthread_mutex_lock(&l->moving); /* as the mover, between two slices */
	l->governor.packed = (quarry_lanes_event){ .moved = UINT64_MAX / 2, .bytes = SEGMENT };
	cr_assert(quarry_lanes_on_event(l, hear, told) == 0);
	pthread_mutex_unlock(&l->moving);
	fill_and_thin(l, h, 40000);
	while (last_of(QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_BACKGROUND) == NULL)
		sched_yield();
	cr_assert(last_of(QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_BACKGROUND)->moved < 40000);
	end_lanes(l);
}

/* ---- in the midst of lanes ---- */

static void on_limit(const quarry_event *e, void *ctx)
{
	quarry_lanes_stats s = { 0 };
	quarry_handle h;

	(void)ctx;
	if (e->kind != QUARRY_EVENT_HARD_LIMIT)
		return;
	calls++;
	cr_assert(quarry_lanes_stats_get(used, &s) == 0 && quarry_compact(used, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	h = quarry_halloc(used, 16);
	cr_assert(h == 0 || quarry_hfree(used, h) == 0);
}

/* The arena refuses a segment, which lanes ask for with their lock held: the process's function, too, is called when it is not. */
Test(lanes_events, the_processs_function_may_use_lanes_whose_arena_is_full)
{
	quarry_arena_attr memory = { .hard_limit = 8 * MIB };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .memory = &memory, .handles = 1 << 16 };
	size_t n = 0;

	used = lanes_made(&attr);
	cr_assert(quarry_on_event(on_limit, NULL) == 0);
	while (quarry_halloc(used, KIB) != 0)
		n++;
	cr_assert(n > 1000 && errno == ENOMEM);
	qy_events_deliver();
	cr_assert(calls > 0);
	cr_assert(quarry_on_event(NULL, NULL) == 0);
	end_lanes(used);
}

/* ---- what is held while memory is taken ---- */

static void ask_for_the_speed(const quarry_lanes_event *e, void *ctx)
{
	uint64_t mib_s;

	(void)e;
	(void)ctx;
	calls++;
	cr_assert(quarry_node_copy(0, 0, &mib_s) >= 0);
}

/* Measuring it takes memory, which is refused, and who is refused delivers: not while he measures. */
Test(lanes_events, nobody_is_told_while_copies_are_measured, .timeout = 60)
{
	quarry_lanes *l = lanes_made(&alone);
	uint64_t mib_s;

	cr_assert(quarry_lanes_on_event(l, ask_for_the_speed, NULL) == 0);
	qy_quiet++;
	cr_assert(quarry_halloc(l, 100) != 0);
	qy_quiet--;
	cr_assert(quarry_ctl_set("hard_limit", "1k") == 0);
	cr_assert(quarry_node_copy(0, 0, &mib_s) == QUARRY_COPY_GUESSED && calls == 0);
	cr_assert(quarry_ctl_set("hard_limit", "0") == 0);
	qy_events_deliver();
	cr_assert(calls == 1);
	end_lanes(l);
}

static void count_it(const quarry_lanes_event *e, void *ctx)
{
	(void)e;
	(void)ctx;
	calls++;
}

/* The first copy that a thread has takes memory: if that is refused the object comes back, and nobody is told of anything inside the
 * get. */
Test(lanes_events, nobody_is_told_inside_a_get)
{
	static quarry_handle h[1000];
	quarry_cold_attr cold = { .codec = "none" };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &cold };
	quarry_lanes *l = lanes_made(&attr);

	for (int i = 0; i < 1000; i++)
		h[i] = filled(l, 700, i);
	cr_assert(quarry_evict(l, h, 1000) > 900 && quarry_handle_state(l, h[0]) == QUARRY_HANDLE_COLD);
	check(l, filled(l, 700, 1), 700, 1); /* there is room */
	cr_assert(quarry_lanes_on_event(l, count_it, NULL) == 0);
	qy_quiet++;
	cr_assert(quarry_halloc(l, 3 * MIB) != 0);
	qy_quiet--;
	cr_assert(quarry_ctl_set("hard_limit", "1k") == 0);
	errno = 0;
	check(l, h[0], 700, 0);
	cr_assert(calls == 0 && errno == 0 && quarry_handle_state(l, h[0]) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_ctl_set("hard_limit", "0") == 0);
	qy_events_deliver();
	cr_assert(calls == 1);
	end_lanes(l);
}
