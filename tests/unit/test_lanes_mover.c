/* SPDX-License-Identifier: MIT */
/* The mover: its budgets by a clock of the test's own, the one in the background and its governor, spans taken back from
 * threads, scratch. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "numa/os.h"
#include "tests/unit/lanes.h"

#define MIB ((size_t)1 << 20)

struct set {
	quarry_lanes *l;
	size_t count;
	quarry_handle *h;
	uint32_t *size;
};

static uint64_t state = 1;

static uint64_t below(uint64_t n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (state >> 33) % n;
}

static void make(struct set *s, size_t i, size_t size)
{
	s->size[i] = (uint32_t)size;
	s->h[i] = quarry_halloc(s->l, size);
	cr_assert(s->h[i] != 0, "errno %d", errno);
	quarry_enter();
	memset(quarry_get_mut(s->l, s->h[i]), (int)(i * 7 + 1), size);
	quarry_leave();
}

/* So many objects of `least` bytes to `most`. */
static struct set *fill(const quarry_lanes_attr *attr, size_t count, size_t least, size_t most)
{
	struct set *s = calloc(1, sizeof *s);

	s->l = quarry_lanes_create(attr);
	cr_assert(s->l != NULL, "%s", quarry_error_text());
	s->count = count;
	s->h = calloc(count, sizeof *s->h);
	s->size = calloc(count, sizeof *s->size);
	for (size_t i = 0; i < count; i++)
		make(s, i, least + below(most - least + 1));
	return s;
}

static void thin(struct set *s, uint64_t of_ten)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->h[i] != 0 && below(10) < of_ten) {
			cr_assert(quarry_hfree(s->l, s->h[i]) == 0);
			s->h[i] = 0;
		}
}

static bool intact(const struct set *s)
{
	bool good = true;

	for (size_t i = 0; i < s->count && good; i++) {
		const unsigned char *p;

		if (s->h[i] == 0)
			continue;
		quarry_enter();
		p = quarry_get(s->l, s->h[i]);
		good = p != NULL && p[0] == (unsigned char)(i * 7 + 1) && p[s->size[i] - 1] == p[0] && p[s->size[i] / 2] == p[0];
		quarry_leave();
	}
	return good;
}

static void end(struct set *s)
{
	cr_assert(intact(s));
	for (size_t i = 0; i < s->count; i++)
		if (s->h[i] != 0)
			cr_assert(quarry_hfree(s->l, s->h[i]) == 0);
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	cr_assert(figures_of(s->l).objects == 0);
	cr_assert(quarry_lanes_destroy(s->l) == 0);
	free(s->h);
	free(s->size);
	free(s);
}

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

/* ---- budgets ---- */

/* A clock that goes on by so much whenever it is looked at, and notes what was done since the last time. */
static struct qy_os mine;
static quarry_lanes *watched;
static uint64_t tick_ns, time_ns, most_moved, most_counted, moved_last, held_last, moved_late, deadline_ns;

static uint64_t clock_of_test(void)
{
	uint64_t moved = qy_read(&watched->moved_bytes), held = watched->plan.held;

	most_moved = qy_max(most_moved, moved - moved_last);
	if (held > held_last)
		most_counted = qy_max(most_counted, held - held_last);
	if (time_ns > deadline_ns)
		moved_late += moved - moved_last;
	moved_last = moved;
	held_last = held;
	return time_ns += tick_ns;
}

static void begin_clock(quarry_lanes *l, uint64_t tick)
{
	mine = *qy_os;
	mine.now_ns = clock_of_test;
	watched = l;
	tick_ns = tick;
	time_ns = 1000000000;
	moved_last = qy_read(&l->moved_bytes);
	held_last = l->plan.held;
	most_moved = most_counted = moved_late = 0;
	deadline_ns = UINT64_MAX;
	qy_os = &mine;
}

static void end_clock(const struct qy_os *os)
{
	qy_os = os;
}

static void budget_call(quarry_lanes *l, uint64_t us)
{
	deadline_ns = time_ns + us * 1000;
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, us) >= 0);
	deadline_ns = UINT64_MAX;
}

Test(lanes_mover, the_clock_is_looked_at_between_few_objects)
{
	struct set *s = fill(&alone, 60000, 32, 1024);
	const struct qy_os *os = qy_os;

	thin(s, 7);
	begin_clock(s->l, 1000);
	for (int i = 0; i < 400; i++) {
		budget_call(s->l, 200);
		cr_assert(time_ns <= deadline_ns);
	}
	end_clock(os);
	cr_assert(figures_of(s->l).moved_bytes > MIB);
	cr_assert(most_moved <= 8192, "%lu bytes without a look at the clock", (unsigned long)most_moved);
	cr_assert(most_counted <= 16 * MIB, "%lu bytes of segments", (unsigned long)most_counted);
	cr_assert(moved_late == 0, "%lu bytes after the deadline", (unsigned long)moved_late);
	end(s);
}

/* No look at the clock that comes late makes more than the rest of a step: the time of a call is bounded. */
Test(lanes_mover, a_call_ends_soon_after_its_time)
{
	struct set *s = fill(&alone, 60000, 32, 1024);
	const struct qy_os *os = qy_os;

	thin(s, 7);
	begin_clock(s->l, 2000);
	for (int i = 0; i < 1000; i++) {
		uint64_t begun = time_ns;

		s->l->pace.unit = 20480; /* of late it went much faster */
		budget_call(s->l, 200);
		cr_assert(time_ns - begun <= 250000, "%lu ns in call %d", (unsigned long)(time_ns - begun), i);
	}
	end_clock(os);
	end(s);
}

Test(lanes_mover, a_call_goes_on_where_the_last_one_stopped)
{
	struct set *s = fill(&alone, 60000, 32, 1024);
	const struct qy_os *os = qy_os;
	uint32_t before, stopped = 0;

	thin(s, 7);
	before = figures_of(s->l).segments;
	begin_clock(s->l, 1000);
	for (int i = 0; i < 4000 && atomic_load(&s->l->segment_count) > before * 6 / 10; i++) {
		struct qy_segment *victim = s->l->plan.victim;
		uint32_t page = s->l->plan.page, object = s->l->plan.object, moved = (uint32_t)qy_read(&s->l->moved);

		budget_call(s->l, 200);
		if (victim == NULL || s->l->plan.victim != victim || qy_read(&s->l->moved) == moved)
			continue;
		cr_assert(s->l->plan.page > page || (s->l->plan.page == page && s->l->plan.object > object));
		stopped++;
	}
	end_clock(os);
	cr_assert(stopped > 0, "segments are half emptied at times");
	cr_assert(atomic_load(&s->l->segment_count) <= before * 6 / 10);
	cr_assert(figures_of(s->l).moved < 60000 * 4 / 10, "no object is moved again and again");
	end(s);
}

Test(lanes_mover, what_is_too_large_for_a_budget_is_left_to_calls_without_one)
{
	struct set *s = fill(&alone, 60, 500000, 500000);
	const struct qy_os *os = qy_os;

	for (size_t i = 0; i < s->count; i++)
		if (i % 3 != 0) {
			cr_assert(quarry_hfree(s->l, s->h[i]) == 0);
			s->h[i] = 0;
		}
	begin_clock(s->l, 1000);
	s->l->pace.unit = 400 * 1024; /* 400 ns for 256 bytes */
	for (int i = 0; i < 20; i++)
		budget_call(s->l, 200);
	end_clock(os);
	cr_assert(figures_of(s->l).moved == 0);
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	cr_assert(figures_of(s->l).moved > 0);
	end(s);
}

Test(lanes_mover, a_bad_measure_is_forgotten)
{
	struct set *s = fill(&alone, 30000, 32, 1024);
	const struct qy_os *os = qy_os;

	thin(s, 7);
	begin_clock(s->l, 100);
	s->l->pace = (struct qy_pace){ .unit = (uint64_t)1000000 * 1024, .grace = 1000000000, .discard = 1000000000 };
	for (int i = 0; i < 300; i++)
		budget_call(s->l, 200);
	end_clock(os);
	cr_assert(figures_of(s->l).moved_bytes > MIB, "%lu bytes", (unsigned long)figures_of(s->l).moved_bytes);
	cr_assert(figures_of(s->l).freed_segments > 0);
	end(s);
}

/* ---- in the background ---- */

static void wait_until_packed(const struct set *s, uint32_t segments)
{
	while (atomic_load(&s->l->segment_count) > segments)
		sched_yield();
}

Test(lanes_mover, waste_is_packed_in_the_background, .timeout = 60)
{
	quarry_lanes_attr attr = { .mover_most = 100 };
	struct set *s = fill(&attr, 200000, 32, 1024);
	uint32_t before = figures_of(s->l).segments;

	cr_assert(before >= 40 && qy_read(&s->l->moved) == 0);
	thin(s, 7);
	wait_until_packed(s, before / 2);
	cr_assert(intact(s));
	while (qy_read(&s->l->recalls) == 0 || qy_read(&s->l->governor.ns) == 0)
		sched_yield(); /* this thread's spans are taken back */
	end(s);
}

/* Of 63 classes one is soon without room in spans that stay: pages for such objects come of a new segment. */
Test(lanes_mover, one_class_without_room_holds_up_no_other)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER };
	struct set *s = fill(&attr, 400000, 32, 1024);
	uint32_t least;

	thin(s, 7);
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	least = (uint32_t)(figures_of(s->l).live / QY_SEGMENT_SIZE);
	cr_assert(figures_of(s->l).segments <= least + 3, "%u segments, %u of objects", figures_of(s->l).segments, least);
	cr_assert(intact(s));
	end(s);
}

Test(lanes_mover, lanes_of_few_segments_are_packed, .timeout = 60)
{
	quarry_lanes_attr attr = { .mover_most = 100 };
	struct set *s = fill(&attr, 22000, 32, 1024);

	cr_assert(figures_of(s->l).segments < 8);
	thin(s, 9);
	wait_until_packed(s, 3);
	end(s);
}

/* What stood against it ends without news: nobody frees. */
Test(lanes_mover, what_could_not_be_packed_is_looked_at_again, .timeout = 60)
{
	quarry_lanes_attr attr = { .mover_most = 100 };
	struct set *s = fill(&attr, 100000, 32, 1024);
	uint32_t before = figures_of(s->l).segments;

	for (size_t i = 0; i < s->count; i++)
		if (i % 10 == 0)
			cr_assert(quarry_pin(s->l, s->h[i]) != NULL);
	for (size_t i = 0; i < s->count; i++)
		if (i % 10 != 0) {
			cr_assert(quarry_hfree(s->l, s->h[i]) == 0);
			s->h[i] = 0;
		}
	while (qy_read(&s->l->governor.plans) < 3 || atomic_load(&s->l->governor.news))
		sched_yield();
	cr_assert(atomic_load(&s->l->segment_count) > before / 4);
	for (size_t i = 0; i < s->count; i += 10)
		cr_assert(quarry_unpin(s->l, s->h[i]) == 0);
	wait_until_packed(s, before / 4);
	end(s);
}

Test(lanes_mover, nothing_runs_where_none_is_wanted)
{
	struct set *s = fill(&alone, 150000, 32, 1024);

	thin(s, 7);
	cr_assert(!atomic_load(&s->l->governor.news) && figures_of(s->l).mover_plans == 0);
	end(s);
}

Test(lanes_mover, lanes_end_while_they_are_packed, .timeout = 60)
{
	for (int round = 0; round < 8; round++) {
		struct set *s = fill(NULL, 150000, 32, 1024);

		thin(s, 7);
		while (round % 2 && qy_read(&s->l->moved) == 0)
			sched_yield();
		cr_assert(quarry_lanes_destroy(s->l) == 0);
		free(s->h);
		free(s->size);
		free(s);
	}
}

/* In the place of the mover: steps aside when it is asked to. */
static _Atomic(int) mover_step;

static void *as_mover(void *arg)
{
	quarry_lanes *l = arg;

	pthread_mutex_lock(&l->moving);
	atomic_store(&l->governor.inside, true);
	mover_step = 1;
	while (atomic_load(&l->governor.wanted) == 0)
		sched_yield();
	mover_step = 2;
	pthread_mutex_unlock(&l->moving);
	return NULL;
}

static pthread_t begin_mover(quarry_lanes *l)
{
	pthread_t thread;

	mover_step = 0;
	cr_assert(pthread_create(&thread, NULL, as_mover, l) == 0);
	while (mover_step == 0)
		sched_yield();
	return thread;
}

Test(lanes_mover, calls_have_precedence_over_the_background, .timeout = 60)
{
	quarry_lanes *l = quarry_lanes_create(&alone);
	pthread_t thread = begin_mover(l);

	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) == 0, "errno %d", errno);
	pthread_join(thread, NULL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_mover, lanes_end_when_the_mover_has_left_them, .timeout = 60)
{
	quarry_lanes *l = quarry_lanes_create(&alone);
	pthread_t thread = begin_mover(l);

	cr_assert(quarry_lanes_destroy(l) == 0);
	cr_assert(mover_step == 2);
	pthread_join(thread, NULL);
}

Test(lanes_mover, a_child_has_a_mover_of_its_own, .timeout = 60)
{
	struct set *s = fill(NULL, 200000, 32, 1024);
	uint32_t before = figures_of(s->l).segments;
	pid_t child;
	int status;

	thin(s, 3);
	child = fork();
	if (child == 0) {
		thin(s, 6);
		wait_until_packed(s, before / 2);
		_exit(intact(s) ? 0 : 1);
	}
	cr_assert(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
	end(s);
}

Test(lanes_mover, the_share_follows_the_waste)
{
	struct qy_governor g = { .start = 10, .full = 100, .least = 1, .most = 25 };

	cr_assert(qy_governor_share(&g, 0) == 1 && qy_governor_share(&g, 10) == 1);
	cr_assert(qy_governor_share(&g, 55) == 13 && qy_governor_share(&g, 100) == 25);
	cr_assert(qy_governor_share(&g, 1000) == 25);
}

Test(lanes_mover, thresholds_that_are_none_are_refused)
{
	quarry_lanes_attr bad[] = { { .mover_least = 101 }, { .mover_most = 101 }, { .mover_least = 30 }, { .mover_start = 100 },
				    { .mover_full = 10 },   { .mover_scratch = 51 }, { .mover_reserved = 1 } };

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_assert(quarry_lanes_create(&bad[i]) == NULL && errno == EINVAL, "%zu", i);
}

/* ---- spans of threads ---- */

static struct set *shared;
static _Atomic(int) step;

static void *take_and_stay(void *arg)
{
	struct set *s = shared;

	(void)arg;
	for (size_t i = 0; i < s->count; i++)
		if (i % 50 == 0) {
			s->h[i] = 0;
			make(s, i, 16 + i % 1000);
		}
	step = 1;
	while (step == 1)
		sched_yield();
	for (size_t i = 0; i < s->count; i++) /* it goes on with others */
		if (s->h[i] == 0)
			make(s, i, 16 + i % 1000);
	return NULL;
}

Test(lanes_mover, what_a_quiet_thread_took_from_is_taken_back, .timeout = 60)
{
	struct set *s = shared = fill(&alone, 40000, 32, 1024);
	pthread_t thread;
	quarry_lanes_stats stats;

	thin(s, 10);
	step = 0;
	cr_assert(pthread_create(&thread, NULL, take_and_stay, NULL) == 0);
	while (step == 0)
		sched_yield();
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	stats = figures_of(s->l);
	cr_assert(stats.recalled >= 1 && stats.segments <= 3, "%u segments for %lu bytes", stats.segments,
		  (unsigned long)stats.live);
	step = 2;
	pthread_join(thread, NULL);
	end(s);
}

static void *hold(void *arg)
{
	struct qy_lanes_cache *c = qy_cache_begin(arg);

	step = 1;
	while (step == 1)
		sched_yield();
	c->of[0].word = c->of[0].word; /* it is there still */
	qy_cache_end();
	step = 3;
	while (step == 3)
		sched_yield();
	return NULL;
}

Test(lanes_mover, a_cache_in_use_is_not_emptied)
{
	quarry_lanes *l = quarry_lanes_create(&alone);
	pthread_t thread;

	step = 0;
	cr_assert(pthread_create(&thread, NULL, hold, l) == 0);
	while (step == 0)
		sched_yield();
	cr_assert(qy_recall_begin(l) == 1);
	for (int i = 0; i < 1000; i++)
		cr_assert(!qy_recall_end(l));
	step = 2;
	while (step == 2)
		sched_yield();
	cr_assert(qy_recall_end(l));
	step = 4;
	pthread_join(thread, NULL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- at a limit ---- */

static size_t fill_up(struct set *s, size_t size)
{
	size_t n = 0;

	while (n < s->count && (s->h[n] = quarry_halloc(s->l, size)) != 0) {
		s->size[n] = (uint32_t)size;
		quarry_enter();
		memset(quarry_get_mut(s->l, s->h[n]), (int)(n * 7 + 1), size);
		quarry_leave();
		n++;
	}
	return n;
}

Test(lanes_mover, a_tenth_is_kept_for_moving_at_a_limit)
{
	quarry_arena_attr memory = { .hard_limit = 96 * MIB };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .memory = &memory, .handles = 1 << 20 };
	struct set s = { .count = 1 << 20, .h = calloc(1 << 20, 8), .size = calloc(1 << 20, 4) };
	size_t n, held;
	void *p;

	s.l = quarry_lanes_create(&attr);
	cr_assert(s.l != NULL, "%s", quarry_error_text());
	n = fill_up(&s, 1000);
	cr_assert(errno == ENOMEM && n < s.count && n > 50000, "%zu", n);
	held = figures_of(s.l).held;
	cr_assert(figures_of(s.l).scratch >= 6 * MIB && figures_of(s.l).scratch <= held / 8, "%lu of %zu",
		  (unsigned long)figures_of(s.l).scratch, held);
	cr_assert(qy_take_whole(s.l, 900000, false) == NULL);
	p = qy_take_whole(s.l, 900000, true);
	cr_assert(p != NULL, "the mover has room");
	pthread_mutex_lock(&s.l->lock);
	atomic_store(&qy_entry_of(p)->whose, QY_TOMB | qy_epoch_now()); /* and gives it back */
	atomic_store(&((struct qy_span *)qy_span_of(p, &(uint32_t){ 0 }))->tombs, 1);
	qy_span_settle(s.l, qy_span_of(p, &(uint32_t){ 0 }));
	pthread_mutex_unlock(&s.l->lock);
	for (size_t i = 0; i < n; i++)
		if (i % 4 != 0) {
			cr_assert(quarry_hfree(s.l, s.h[i]) == 0);
			s.h[i] = 0;
		}
	/* Of another size there is room where others are moved together. */
	for (size_t i = 1; i < 20000; i += 4)
		make(&s, i, 3000);
	cr_assert(intact(&s));
	cr_assert(figures_of(s.l).moved > 0);
	cr_assert(quarry_lanes_destroy(s.l) == 0);
	free(s.h);
	free(s.size);
}
