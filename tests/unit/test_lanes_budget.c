/* SPDX-License-Identifier: MIT */
/* Calls with microseconds to spend: how much is done between two looks at the clock, and after the time is over, by a
 * clock of the test's own that goes on by as much whenever it is looked at. Each kind of step is counted by what it leaves:
 * chunks that left, spans that were buried, caches that were emptied. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lib/lanes/fast.h"
#include "numa/os.h"
#include "tests/unit/lanes.h"

#define MIB ((size_t)1 << 20)

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };
static quarry_lanes *l;

/* ---- the clock ---- */

static struct qy_os mine;
static const struct qy_os *linux_os;
static uint64_t tick_ns, time_ns, deadline_ns, last, most, late, fences;
static uint64_t (*figure)(void); /* what is counted */

static uint64_t clock_of_test(void)
{
	uint64_t now = figure(), by = now > last ? now - last : last - now;

	most = qy_max(most, by);
	if (time_ns > deadline_ns)
		late += by;
	last = now;
	return time_ns += tick_ns;
}

static int membarrier_of_test(int command)
{
	fences++;
	return linux_os->membarrier(command);
}

static void begin(uint64_t (*counted)(void), uint64_t tick)
{
	linux_os = qy_os;
	mine = *qy_os;
	mine.now_ns = clock_of_test;
	mine.membarrier = membarrier_of_test;
	tick_ns = tick;
	time_ns = 1000000000;
	deadline_ns = UINT64_MAX;
	figure = counted;
	last = figure();
	most = late = fences = 0;
	qy_os = &mine;
}

static void end(void)
{
	qy_os = linux_os;
}

static void call(int style, uint64_t us)
{
	last = figure();
	deadline_ns = time_ns + us * 1000;
	cr_assert(quarry_compact(l, style, 0, us) >= 0);
	last = figure();
	deadline_ns = UINT64_MAX;
	cr_assert(!atomic_load(&l->hurried) && !l->confined);
}

/* Nobody sleeps here: who lets others go before is counted, and can be let go on. */
static _Atomic(unsigned) yields;
static unsigned yields_until;

int sched_yield(void)
{
	if (atomic_fetch_add(&yields, 1) + 1 == yields_until)
		atomic_store(&l->hurried, false);
	return 0;
}

static size_t length(const struct qy_link *list)
{
	size_t n = 0;

	for (const struct qy_link *k = list->next; k != list; k = k->next)
		n++;
	return n;
}

static quarry_handle *made(size_t count, size_t size)
{
	quarry_handle *h = calloc(count, sizeof *h);

	for (size_t i = 0; i < count; i++)
		cr_assert((h[i] = quarry_halloc(l, size)) != 0, "errno %d", errno);
	return h;
}

static void freed(const quarry_handle *h, size_t count)
{
	for (size_t i = 0; i < count; i++)
		cr_assert(h[i] == 0 || quarry_hfree(l, h[i]) == 0);
}

/* ---- what is freed ---- */

static uint64_t dead_chunks(void)
{
	return l->fast.dead_count;
}

Test(lanes_budget, few_dead_chunks_go_at_once)
{
	quarry_lanes_attr attr = alone;
	quarry_handle *h;
	size_t before;
	int calls = 0;

	attr.threshold = 4096;
	l = lanes_made(&attr);
	h = made(20000, 1000);
	freed(h, 20000);
	before = l->fast.dead_count;
	cr_assert(before > 200, "%zu", before);
	begin(dead_chunks, 1000);
	while (l->fast.dead_count > 0 && calls++ < 100)
		call(QUARRY_COMPACT_NONE, 20);
	end();
	cr_assert(calls < 100 && calls > 3, "%d calls for %zu", calls, before);
	cr_assert(most <= 4 && late == 0, "%lu at once, %lu late", most, late);
	free(h);
	end_lanes(l);
}

static uint64_t dead_spans(void)
{
	return length(&l->dead);
}

Test(lanes_budget, few_spans_are_buried_at_once)
{
	quarry_handle *h;
	size_t before;
	int calls = 0;

	l = lanes_made(&alone);
	have_another_thread();
	h = made(200000, 16);
	qy_lanes_flush(l);
	freed(h, 200000);
	before = length(&l->dead);
	cr_assert(before > 40, "%zu", before);
	begin(dead_spans, 1000);
	while (!qy_list_empty(&l->dead) && calls++ < 100)
		call(QUARRY_COMPACT_NONE, 15);
	end();
	cr_assert(calls < 100 && calls > 3, "%d calls for %zu", calls, before);
	cr_assert(most <= 1 && late == 0, "%lu at once, %lu late", most, late);
	cr_assert(fences <= 2 * (unsigned)calls + 2, "%lu system calls in %d calls", fences, calls);
	free(h);
	end_lanes(l);
}

/* ---- threads ---- */

#define THREADS 8

static pthread_barrier_t there, over;

static void *have_a_cache(void *unused)
{
	cr_assert(quarry_halloc(l, 16) != 0);
	pthread_barrier_wait(&there);
	pthread_barrier_wait(&over);
	return unused;
}

static uint64_t recalled_caches(void)
{
	size_t n = 0;

	for (struct qy_lanes_cache *c = l->recalled; c != NULL; c = c->next)
		n++;
	return n;
}

Test(lanes_budget, caches_are_emptied_one_by_one)
{
	pthread_t thread[THREADS];
	int calls = 0;

	l = lanes_made(&alone);
	pthread_barrier_init(&there, NULL, THREADS + 1);
	pthread_barrier_init(&over, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		cr_assert(pthread_create(&thread[i], NULL, have_a_cache, NULL) == 0);
	pthread_barrier_wait(&there);
	cr_assert(qy_recall_begin(l) == THREADS);
	begin(recalled_caches, 1000);
	while (l->recalled != NULL && calls++ < 100)
		call(QUARRY_COMPACT_NONE, 5);
	end();
	cr_assert(calls > 1 && calls < 100 && most <= 1 && late == 0, "%d calls, %lu at once, %lu late", calls, most, late);
	pthread_barrier_wait(&over);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	end_lanes(l);
}

static uint64_t nothing(void)
{
	return 0;
}

static void *stay_in_scope(void *unused)
{
	quarry_enter();
	pthread_barrier_wait(&there);
	pthread_barrier_wait(&over);
	quarry_leave();
	return unused;
}

/* A thread that yields may be without its processor for milliseconds. */
Test(lanes_budget, who_has_little_time_keeps_the_processor)
{
	pthread_t thread;

	l = lanes_made(&alone);
	pthread_barrier_init(&there, NULL, 2);
	pthread_barrier_init(&over, NULL, 2);
	cr_assert(pthread_create(&thread, NULL, stay_in_scope, NULL) == 0);
	pthread_barrier_wait(&there);
	begin(nothing, 1000);
	cr_assert(!qy_grace_wait(qy_grace_begin(), time_ns + 200000));
	cr_assert(atomic_load(&yields) == 0, "%u", atomic_load(&yields));
	cr_assert(!qy_grace_wait(qy_grace_begin(), time_ns + 50000000));
	cr_assert(atomic_load(&yields) > 0);
	end();
	pthread_barrier_wait(&over);
	pthread_join(thread, NULL);
	end_lanes(l);
}

Test(lanes_budget, who_is_alone_fences_nobody)
{
	pthread_t thread;
	quarry_handle h;

	l = lanes_made(&alone);
	h = quarry_halloc(l, 16);
	cr_assert(h != 0);
	begin(nothing, 1000);
	cr_assert(qy_grace_look(qy_grace_begin()) && fences == 0);
	pthread_barrier_init(&there, NULL, 2);
	pthread_barrier_init(&over, NULL, 2);
	cr_assert(pthread_create(&thread, NULL, stay_in_scope, NULL) == 0);
	pthread_barrier_wait(&there);
	cr_assert(!qy_grace_look(qy_grace_begin()) && fences == 1);
	pthread_barrier_wait(&over);
	pthread_join(thread, NULL);
	cr_assert(qy_grace_look(qy_grace_begin()) && fences == 1, "that thread has ended");
	end();
	end_lanes(l);
}

/* Who walks all segments for figures lets the lock go to who has little time. */
Test(lanes_budget, a_walk_lets_others_go_before)
{
	quarry_lanes_figures f = { 0 };

	l = lanes_made(&alone);
	atomic_store(&l->hurried, true);
	yields_until = 5;
	cr_assert(quarry_lanes_figures_get(l, &f) == 0);
	cr_assert(atomic_load(&yields) == 5, "%u", atomic_load(&yields));
	atomic_store(&l->hurried, true); /* for ever */
	cr_assert(quarry_lanes_figures_get(l, &f) == 0);
	atomic_store(&l->hurried, false);
	end_lanes(l);
}

/* ---- promoted ---- */

static uint64_t promoted(void)
{
	return qy_read(&l->fast.promoted[QUARRY_PROMOTED_COMPACTION]);
}

Test(lanes_budget, few_objects_are_promoted_at_once)
{
	quarry_lanes_attr attr = alone;
	quarry_handle *h;
	int calls = 0;

	attr.threshold = 4096;
	l = lanes_made(&attr);
	h = made(20000, 64);
	cr_assert(quarry_lanes_tick(l) >= 0 && promoted() == 0);
	begin(promoted, 1000);
	while (promoted() < 20000 && calls++ < 3000)
		call(QUARRY_COMPACT_NONE | QUARRY_COMPACT_PROMOTE, 50);
	end();
	cr_assert(promoted() == 20000, "%lu in %d calls", promoted(), calls);
	cr_assert(calls > 20 && most <= 32 && late == 0, "%d calls, %lu at once, %lu late", calls, most, late);
	for (int i = 0; i < 20000; i += 100)
		cr_assert(quarry_handle_lane(l, h[i]) == QUARRY_LANE_SLOW);
	free(h);
	end_lanes(l);
}

/* A call waits for others' scopes no longer than its time is, also for what it promotes. */
Test(lanes_budget, scopes_are_not_waited_for_longer)
{
	quarry_lanes_attr attr = alone;
	pthread_t thread;

	attr.threshold = 4096;
	l = lanes_made(&attr);
	free(made(100, 64));
	cr_assert(quarry_lanes_tick(l) >= 0);
	pthread_barrier_init(&there, NULL, 2);
	pthread_barrier_init(&over, NULL, 2);
	cr_assert(pthread_create(&thread, NULL, stay_in_scope, NULL) == 0);
	pthread_barrier_wait(&there);
	begin(promoted, 1000);
	call(QUARRY_COMPACT_FULL | QUARRY_COMPACT_PROMOTE, 200);
	cr_assert(promoted() == 0 && time_ns < 1000000000 + 200000, "%lu ns", time_ns - 1000000000);
	end();
	pthread_barrier_wait(&over);
	pthread_join(thread, NULL);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE | QUARRY_COMPACT_PROMOTE, 0, 0) >= 0 && promoted() == 100);
	end_lanes(l);
}

/* ---- moved ---- */

static uint64_t batched(void)
{
	return l->batched;
}

/* What a call has marked and cannot move any more it has to unmark, after its time: so it marks few. */
Test(lanes_budget, batches_of_short_calls_are_small)
{
	quarry_handle *h;
	uint64_t largest = 0;

	l = lanes_made(&alone);
	h = made(300000, 32);
	for (int i = 0; i < 300000; i++)
		if (i % 10 != 0) {
			cr_assert(quarry_hfree(l, h[i]) == 0);
			h[i] = 0;
		}
	begin(batched, 10);
	for (int i = 0; i < 300; i++) {
		l->pace.unit = 10240;
		call(QUARRY_COMPACT_FULL, 200);
		largest = qy_max(largest, most);
	}
	end();
	cr_assert(qy_read(&l->moved) > 5000, "%lu", (unsigned long)qy_read(&l->moved));
	cr_assert(largest > 100 && largest <= 256, "%lu", largest);
	free(h);
	end_lanes(l);
}

/* The candidates of a plan that is given up are not looked at, however many they are: all but the first and the last of a
 * list are out of reach here. */
Test(lanes_budget, candidates_are_forgotten_unseen)
{
	quarry_handle *h;
	struct qy_link *list = NULL, *k;
	int kept = 0;

	l = lanes_made(&alone);
	h = made(40000, 1000);
	for (int i = 0; i < 40000; i++)
		if (i % 4 != 0)
			cr_assert(quarry_hfree(l, h[i]) == 0);
	qy_lanes_flush(l);
	qy_plan_begin(l, 1);
	while (!qy_plan_count(l))
		;
	for (int i = 0; i < QY_BUCKETS; i++)
		if (length(&l->plan.bucket[i]) > (list == NULL ? 4 : length(list)))
			list = &l->plan.bucket[i];
	cr_assert(list != NULL);
	for (k = list->next->next; k->next != list; k = k->next)
		kept++;
	cr_assert(kept > 2, "%d", kept);
	for (k = list->next->next; k->next != list;) {
		struct qy_link *next = k->next;

		if (qy_segment_of(k) != qy_segment_of(l->segments.next) && k->next->next != list)
			cr_assert(mprotect(qy_segment_of(k), 4096, PROT_NONE) == 0);
		k = next;
	}
	k = list->next;
	qy_plan_begin(l, 2);
	cr_assert(l->plan.forgotten.next != &l->plan.forgotten && qy_list_empty(list));
	for (struct qy_link *at = k; at != &l->plan.forgotten; at = at->next)
		cr_assert(mprotect(qy_segment_of(at), 4096, PROT_READ | PROT_WRITE) == 0);
	cr_assert(length(&l->plan.forgotten) >= (size_t)kept);
	while (!qy_plan_count(l))
		;
	cr_assert(qy_list_empty(&l->plan.forgotten), "they are candidates again");
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	free(h);
	end_lanes(l);
}

/* Room is looked for in some segments at a time, and on from there; freed spans are not gone over for it. */
Test(lanes_budget, few_segments_are_looked_at_for_room)
{
	quarry_handle *small;
	struct qy_entry *entry;
	unsigned class = qy_class_of(4000, 16, QY_CLASS_LARGEST), tries = 0;
	size_t segments, dead;

	l = lanes_made(&alone);
	small = made(8000, 16);
	free(made(300, MIB / 2));
	qy_lanes_flush(l);
	freed(small, 8000);
	segments = length(&l->segments);
	dead = length(&l->dead);
	cr_assert(segments > 70 && dead > 0, "%zu, %zu", segments, dead);
	pthread_mutex_lock(&l->lock);
	for (struct qy_link *k = l->segments.next; k != &l->segments; k = k->next)
		qy_container(k, struct qy_segment, link)->free = 0; /* none has a page */
	pthread_mutex_unlock(&l->lock);
	atomic_store(&l->hurried, true);
	l->confined = true;
	for (bool more = true; more; tries++) {
		struct qy_link *was = l->find_next == NULL ? l->segments.next : l->find_next;
		size_t looked = 0;

		l->more_to_find = false;
		cr_assert(qy_take(l, &l->mover.of[class], class, &entry) == NULL);
		more = l->more_to_find;
		for (; was != l->find_next; was = was->next)
			looked++;
		cr_assert(looked > 0 && looked <= 32, "%zu segments", looked);
	}
	cr_assert(tries == (segments + 31) / 32, "%u", tries);
	cr_assert(length(&l->dead) == dead);
	exit(0); /* (these lanes are broken now) */
}

Test(lanes_budget, a_walk_for_figures_is_in_pieces)
{
	l = lanes_made(&alone);
	free(made(20, MIB / 2));
	atomic_store(&l->hurried, true);
	yields_until = 0;
	(void)quarry_lanes_figures_get(l, &(quarry_lanes_figures){ 0 });
	cr_assert(atomic_load(&yields) >= 3000, "%u: it stands aside before each two segments", atomic_load(&yields));
	atomic_store(&l->hurried, false);
	end_lanes(l);
}
