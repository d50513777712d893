/* SPDX-License-Identifier: MIT */
/* What others do between two instructions of a free, a read or a move. Where no system call is in between (as there is in
 * test_lanes_races.c), a page that cannot be written stops the thread at the very instruction: what others do then is done by the
 * handler of its fault, or by a thread that the handler waits for. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/lanes/fast.h"
#include "lib/lanes/figures.h"
#include "numa/os.h"
#include "tests/unit/lanes.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static quarry_lanes *l;
static quarry_handle h[2000];

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

/* ---- moments ---- */

static struct qy_os mine;
static const struct qy_os *linux_os;
static void (*meanwhile)(void); /* at the next membarrier(2), once */
static _Atomic(int) membarriers;

static int membarrier_of_test(int command)
{
	void (*then)(void) = meanwhile;
	int result = linux_os->membarrier(command);

	atomic_fetch_add(&membarriers, 1);
	meanwhile = NULL;
	if (then != NULL)
		then();
	return result;
}

static void begin(void)
{
	have_another_thread();
	linux_os = qy_os;
	mine = *qy_os;
	mine.membarrier = membarrier_of_test;
	qy_os = &mine;
}

static void end(void)
{
	cr_assert(meanwhile == NULL, "the moment never came");
	qy_os = linux_os;
	end_lanes(l);
}

static char *stopping; /* pages that cannot be written */
static size_t stopping_size;
static void (*at_the_stop)(void);

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	void (*then)(void) = at_the_stop;

	(void)context;
	if (at - (uintptr_t)stopping >= stopping_size || then == NULL) {
		static const char text[] = "a fault that is none of the test's\n";

		(void)!write(2, text, sizeof(text) - 1);
		(void)signal(signal_number, SIG_DFL);
		return;
	}
	at_the_stop = NULL;
	if (mprotect(stopping, stopping_size, PROT_READ | PROT_WRITE) != 0)
		abort();
	then();
}

/* Who writes there next has this done first. */
static void stop_at(void *p, size_t size, void (*then)(void))
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	stopping = (char *)((uintptr_t)p & ~(uintptr_t)4095);
	stopping_size = qy_align_up((size_t)((char *)p + size - stopping), 4096);
	at_the_stop = then;
	cr_assert(sigaction(SIGSEGV, &action, NULL) == 0);
	cr_assert(mprotect(stopping, stopping_size, PROT_READ) == 0);
}

static _Atomic(int) turn;

static void take_turns(int mine_is)
{
	atomic_store(&turn, mine_is);
	while (atomic_load(&turn) == mine_is)
		sched_yield();
}

static void wait_for_turn(int mine_is)
{
	while (atomic_load(&turn) != mine_is)
		sched_yield();
}

/* ---- freed while it goes ---- */

static const quarry_cold_attr to_file = { .codec = "none", .memory_limit = 1, .directory = "/tmp", .period_ms = 1 };
static const quarry_lanes_attr cold = { .flags = QUARRY_LANES_NO_MOVER, .cold = &to_file };

static void let_it_cool(void)
{
	take_turns(2);
}

/* Its word is marked and all scopes of then are over: the other one begins to free it now. */
static void let_it_be_freed(void)
{
	stop_at(&l->word[(uint32_t)h[0]], 8, let_it_cool);
	take_turns(1);
}

static void *cool_it(void *unused)
{
	meanwhile = let_it_be_freed;
	cr_assert(quarry_evict(l, h, 100) == 100);
	atomic_store(&turn, 3);
	return unused;
}

Test(lanes_moments, what_becomes_cold_as_it_is_freed_is_freed)
{
	pthread_t thread;

	l = lanes_made(&cold);
	for (int i = 0; i < 100; i++)
		h[i] = filled(l, 512, i);
	begin();
	cr_assert(pthread_create(&thread, NULL, cool_it, NULL) == 0);
	wait_for_turn(1);
	errno = 0;
	cr_assert(quarry_hfree(l, h[0]) == 0, "errno %d: it is there, and stays", errno);
	cr_assert(at_the_stop == NULL, "the moment never came");
	cr_assert(pthread_join(thread, NULL) == 0);
	cr_assert(quarry_handle_state(l, h[0]) == QUARRY_HANDLE_FREED && quarry_hfree(l, h[0]) == -1 && errno == ESTALE);
	for (int i = 1; i < 100; i++) {
		check(l, h[i], 512, i);
		cr_assert(quarry_hfree(l, h[i]) == 0);
	}
	cr_assert(figures_of(l).objects == 0);
	end();
}

/* ---- seen while it is moved ---- */

static bool optimistically;

static void see_all(void)
{
	for (int i = 0; i < 2000; i++) {
		quarry_look look;

		if (h[i] == 0)
			continue;
		quarry_enter();
		cr_assert(optimistically ? quarry_opt_begin(l, h[i], &look) == 0 : quarry_get(l, h[i]) != NULL);
		quarry_leave();
	}
}

/* What nobody had seen is, while somebody moves it: no mark stays behind. */
static void seen_meanwhile(bool cooled)
{
	quarry_cold_attr in_memory = { .codec = "none", .period_ms = 1 };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &in_memory };

	l = lanes_made(&attr);
	for (int i = 0; i < 40000; i++) {
		quarry_handle all = filled(l, 512, i / 20);

		if (i % 20 == 0)
			h[i / 20] = all;
		else
			cr_assert(quarry_hfree(l, all) == 0);
	}
	qy_lanes_flush(l);
	cr_assert(quarry_cool(l, 0) == 0);
	begin();
	meanwhile = see_all;
	if (cooled)
		cr_assert(quarry_evict(l, h, 2000) >= 0);
	else
		cr_assert(quarry_demote(l, h[0]) == -1 && errno == EBUSY);
	for (int i = 0; i < 2000; i++)
		cr_assert(quarry_handle_state(l, h[i]) != QUARRY_HANDLE_MOVING, "object %d", i);
	cr_assert(quarry_demote(l, h[0]) == 0, "it may go");
	for (int i = 0; i < 2000; i++)
		check(l, h[i], 512, i);
	end();
}

Test(lanes_moments, what_is_seen_while_it_cools_is_not_marked_for_ever)
{
	seen_meanwhile(true);
}

Test(lanes_moments, what_is_seen_while_it_changes_lanes_is_not_marked_for_ever)
{
	seen_meanwhile(false);
}

Test(lanes_moments, what_is_read_optimistically_while_it_changes_lanes_is_not_marked_for_ever)
{
	optimistically = true;
	seen_meanwhile(false);
}

/* ---- memory that comes back ---- */

/* A large object whose copy is dropped: its room is no object's, and nobody comes by to free it. */
Test(lanes_moments, room_that_was_taken_in_vain_goes_back)
{
	struct qy_lanes_cache *c;
	struct qy_entry *entry;
	uint64_t states;

	l = lanes_made(&alone);
	for (int i = 0; i < 20; i++) {
		void *p;

		c = qy_cache_begin(l);
		p = qy_take_any(l, c, 900000, 16, &entry, &states);
		cr_assert(p != NULL && states == 0);
		qy_untake_any(l, p, states);
		qy_cache_end();
	}
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	cr_assert(figures_of(l).segments == 0 && figures_of(l).waiting == 0, "%u segments", figures_of(l).segments);
	end_lanes(l);
}

static void *stay_in_a_scope(void *unused)
{
	quarry_enter();
	take_turns(1);
	quarry_leave();
	atomic_store(&turn, 3);
	return unused;
}

Test(lanes_moments, what_waits_for_a_scope_costs_other_frees_nothing)
{
	quarry_handle huge;
	pthread_t thread;

	l = lanes_made(&alone);
	for (int i = 0; i < 2000; i++)
		h[i] = filled(l, 64, i);
	huge = filled(l, 4 * MIB, 'x');
	begin();
	cr_assert(pthread_create(&thread, NULL, stay_in_a_scope, NULL) == 0);
	wait_for_turn(1);
	cr_assert(quarry_hfree(l, huge) == 0);
	atomic_store(&membarriers, 0);
	for (int i = 0; i < 1000; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(atomic_load(&membarriers) <= 1, "%d", atomic_load(&membarriers));
	cr_assert(atomic_load(&l->huge_tombs_count) == 1 && atomic_load(&l->huge) >= 4 * MIB);
	atomic_store(&turn, 2);
	wait_for_turn(3);
	for (int i = 1000; i < 1100; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(atomic_load(&l->huge_tombs_count) == 0 && atomic_load(&l->huge) == 0, "it goes back when the scope is over");
	cr_assert(pthread_join(thread, NULL) == 0);
	end();
}

/* Of one size there is no room, and would be if what is there was moved together. */
static void refused(quarry_lanes_attr attr, const quarry_halloc_attr *how)
{
	quarry_handle *all = calloc(40000, sizeof(*all));
	int n = 0;

	attr.flags = QUARRY_LANES_NO_MOVER;
	attr.slow_lane_size = 20 * MIB;
	l = lanes_made(&attr);
	while (n < 40000 && (all[n] = quarry_halloc_with(l, 1000, &(quarry_halloc_attr){ .lane = QUARRY_LANE_SLOW })) != 0)
		n++;
	cr_assert(n > 10000 && n < 40000);
	for (int i = 0; i < n; i++)
		if (i % 4 != 0)
			cr_assert(quarry_hfree(l, all[i]) == 0);
	for (int i = 0; i < 1000; i++)
		cr_assert((how == NULL ? quarry_halloc(l, 3000) : quarry_halloc_with(l, 3000, how)) != 0, "object %d: errno %d", i, errno);
	cr_assert(figures_of(l).moved > 0);
	free(all);
	end_lanes(l);
}

Test(lanes_moments, who_says_how_has_others_moved_together_as_well)
{
	refused((quarry_lanes_attr){ 0 }, &(quarry_halloc_attr){ .lane = QUARRY_LANE_SLOW });
}

Test(lanes_moments, who_begins_in_the_fast_lane_has_others_moved_together_as_well)
{
	refused((quarry_lanes_attr){ .threshold = 4096, .fast_lane_size = 64 * KIB }, NULL);
}

/* Dead chunks of large objects are as long as they are. */
Test(lanes_moments, what_is_dead_does_not_make_the_fast_lane_full)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .threshold = 30000, .fast_lane_size = 2 * MIB,
				   .fast_lane_large_entry_threshold = 100000 };

	l = lanes_made(&attr);
	for (int i = 0; i < 11; i++)
		h[i] = filled(l, 24000, i);
	for (int i = 1; i < 11; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(quarry_lanes_tick(l) == 0 && quarry_maintain(l, 0) >= 0);
	for (int i = 0; i < QUARRY_PROMOTIONS; i++) {
		quarry_fast_stats s = { 0 };

		cr_assert(quarry_fast_stats_get(l, &s) == 0 && s.promoted[i] == 0, "there is room: %d", i);
	}
	cr_assert(quarry_handle_lane(l, h[0]) == QUARRY_LANE_FAST);
	end_lanes(l);
}

/* ---- read while it goes ---- */

static void *free_and_give_back(void *memory)
{
	wait_for_turn(1);
	cr_assert(quarry_hfree(l, h[0]) == 0);
	for (int i = 0; i < 4; i++) {
		cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 2000) >= 0);
		(void)quarry_purge(memory);
	}
	atomic_store(&turn, 2);
	return NULL;
}

static void let_it_go(void)
{
	take_turns(1);
}

/* The copy stops at its first byte; when it goes on the object is freed and all that was free went back. */
static void read_as_it_goes(size_t size)
{
	quarry_arena *memory = quarry_arena_create(NULL);
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .arena = memory };
	char *to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	cr_assert(memory != NULL && to != MAP_FAILED);
	l = lanes_made(&attr);
	h[0] = filled(l, size, 'x');
	qy_lanes_flush(l);
	cr_assert(pthread_create(&thread, NULL, free_and_give_back, memory) == 0);
	stop_at(to, size, let_it_go);
	cr_assert(quarry_opt_read(l, h[0], 0, to, size) == -1 && errno == ESTALE, "errno %d", errno);
	cr_assert(at_the_stop == NULL, "the moment never came");
	cr_assert(pthread_join(thread, NULL) == 0);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0 && figures_of(l).held == 0, "and then it is given back");
	end_lanes(l);
	cr_assert(quarry_arena_destroy(memory) == 0);
	munmap(to, size);
}

Test(lanes_moments, what_is_read_beyond_segments_can_be)
{
	read_as_it_goes(32 * MIB);
}

Test(lanes_moments, what_is_read_in_a_segment_can_be)
{
	read_as_it_goes(900 * KIB);
}
