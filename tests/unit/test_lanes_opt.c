/* SPDX-License-Identifier: MIT */
/* Optimistic reads, and handles of a type: each promise of include/quarry/lanes.h alone. With writers, moves and frees at once
 * it is tests/stress/lanes_order.c, lanes.c and lanes_fast.c. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/lanes.h"

#define LARGE ((size_t)600 << 10) /* a span each */

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

static bool reads(quarry_lanes *l, quarry_handle h, size_t size, int byte)
{
	char copy[256];

	cr_assert(size <= sizeof(copy));
	if (quarry_opt_read(l, h, 0, copy, size) != 0)
		return false;
	for (size_t i = 0; i < size; i++)
		cr_assert(copy[i] == (char)byte);
	return true;
}

static quarry_look begun(quarry_lanes *l, quarry_handle h)
{
	quarry_look look;

	cr_assert(quarry_opt_begin(l, h, &look) == 0);
	cr_assert(quarry_opt_end(l, &look) == 1);
	return look;
}

static bool refused(quarry_lanes *l, quarry_handle h, int error)
{
	quarry_look look;
	char byte;

	errno = 0;
	if (quarry_opt_begin(l, h, &look) != -1 || errno != error)
		return false;
	errno = 0;
	return quarry_opt_read(l, h, 0, &byte, 1) == -1 && errno == error;
}

/* ---- what is believed ---- */

Test(lanes_opt, what_stays_is_read)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, 200, 'a'), huge = filled(l, 3 << 20, 'b');
	char part[4];

	cr_assert(reads(l, h, 200, 'a') && reads(l, huge, 200, 'b'));
	((char *)writable(l, h))[100] = 'x';
	cr_assert(quarry_opt_read(l, h, 99, part, 3) == 0 && part[0] == 'a' && part[1] == 'x' && part[2] == 'a');
	quarry_enter();
	cr_assert(begun(l, h).at == quarry_get(l, h), "in a scope as well");
	quarry_leave();
	cr_assert(quarry_hfree(l, h) == 0);
	end_lanes(l);
}

Test(lanes_opt, handles_of_nothing_are_refused_by_name)
{
	quarry_lanes *l = lanes_made(&alone), *others = lanes_made(&alone);
	quarry_handle h = filled(l, 64, 'a'), foreign = filled(others, 64, 'b');
	quarry_look look;

	cr_assert(refused(l, foreign, EINVAL) && refused(l, QUARRY_HANDLE_NONE, EINVAL) && refused(l, h + 4096, EINVAL));
	cr_assert(refused(l, h | 0xffffffff, EINVAL), "a slot beyond all");
	cr_assert(quarry_opt_begin_slow(NULL, h, &look) == -1 && errno == EINVAL);
	cr_assert(quarry_opt_begin_slow(l, h, NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_opt_read(NULL, h, 0, &look, 1) == -1 && errno == EINVAL);
	cr_assert(quarry_write_begin(NULL, h) == NULL && errno == EINVAL);
	cr_assert(quarry_hfree(l, h) == 0);
	cr_assert(refused(l, h, ESTALE));
	quarry_enter();
	cr_assert(quarry_write_begin(l, h) == NULL && errno == ESTALE);
	quarry_leave();
	h = filled(l, 64, 'c'); /* in the same slot, whose counter is as it was */
	cr_assert(reads(l, h, 64, 'c'));
	end_lanes(l);
	end_lanes(others);
}

/* ---- what is not ---- */

Test(lanes_opt, what_was_freed_meanwhile_is_not_believed)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, 64, 'a');
	quarry_look look = begun(l, h);

	cr_assert(quarry_hfree(l, h) == 0);
	cr_assert(quarry_opt_end(l, &look) == 0);
	(void)filled(l, 64, 'b');
	cr_assert(quarry_opt_end(l, &look) == 0);
	end_lanes(l);
}

Test(lanes_opt, what_was_moved_meanwhile_is_not_believed)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .threshold = 4096 };
	quarry_lanes *l = lanes_made(&attr);
	quarry_handle h = filled(l, 64, 'a');
	quarry_look look = begun(l, h);

	cr_assert(quarry_promote(l, h) == 0);
	cr_assert(quarry_opt_end(l, &look) == 0);
	cr_assert(reads(l, h, 64, 'a'));
	end_lanes(l);
}

/* Away, its place another's, and back to it: the word is what it was, and what was read was not. */
Test(lanes_opt, who_comes_back_to_his_old_place_has_been_away)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, LARGE, 'a');
	quarry_look look = begun(l, h), again;
	bool came_back = false;

	for (int i = 0; i < 100 && !came_back; i++) {
		quarry_handle other;

		look = begun(l, h);
		cr_assert(quarry_demote(l, h) == 0);
		other = filled(l, LARGE, 'b');
		came_back = writable(l, other) == look.at;
		cr_assert(!came_back || *(const char *)look.at == 'b', "what a reader would have seen");
		cr_assert(quarry_hfree(l, other) == 0);
		cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
		cr_assert(quarry_promote(l, h) == 0);
		again = begun(l, h);
		came_back = came_back && again.at == look.at;
	}
	cr_assert(came_back, "the test is none");
	cr_assert(again.word == look.word);
	cr_assert(quarry_opt_end(l, &look) == 0);
	end_lanes(l);
}

Test(lanes_opt, what_is_being_written_or_was_is_not_believed)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, 64, 'a'), other = filled(l, 64, 'b');
	quarry_look look = begun(l, h);
	char *p;

	quarry_enter();
	p = quarry_write_begin(l, h);
	cr_assert(p == look.at && quarry_opt_end(l, &look) == 0);
	cr_assert(refused(l, h, EAGAIN) && reads(l, other, 64, 'b'), "its neighbour is not");
	cr_assert(quarry_write_begin(l, h) == p, "a second one");
	quarry_write_end(l, h);
	cr_assert(refused(l, h, EAGAIN), "the first still is");
	memset(p, 'c', 64);
	quarry_write_end(l, h);
	quarry_leave();
	cr_assert(quarry_opt_end(l, &look) == 0, "and it was");
	cr_assert(reads(l, h, 64, 'c'));
	end_lanes(l);
}

Test(lanes_opt, who_writes_stops_a_move_and_is_in_the_right_place)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, 64, 'a');
	quarry_look look = begun(l, h);
	uint64_t word = atomic_fetch_or(&l->word[(uint32_t)h], QUARRY_WORD_MOVING);

	cr_assert(quarry_opt_end(l, &look) == 1, "a move that has just begun is none");
	(void)begun(l, h);
	quarry_enter();
	cr_assert(quarry_write_begin(l, h) != NULL);
	cr_assert(atomic_load(&l->word[(uint32_t)h]) == word, "the mover's mark is gone");
	quarry_write_end(l, h);
	quarry_leave();
	end_lanes(l);
}

/* ---- cold ones ---- */

Test(lanes_opt, cold_ones_are_not_waited_for_and_reads_keep_them_warm)
{
	quarry_cold_attr cold = { .period_ms = 1 };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &cold };
	quarry_lanes *l = lanes_made(&attr);
	quarry_handle h[2000];
	quarry_cold_stats s = { 0 };
	quarry_look look;

	for (int i = 0; i < 2000; i++)
		h[i] = filled(l, 128, 'a');
	look = begun(l, h[0]);
	while (s.objects == 0) {
		for (int i = 0; i < 2000; i += 2)
			cr_assert(reads(l, h[i], 128, 'a'));
		cr_assert(quarry_cool(l, 0) >= 0);
		cr_assert(quarry_cold_stats_get(l, &s) == 0);
	}
	for (int i = 0; i < 2000; i += 2)
		cr_assert(reads(l, h[i], 128, 'a'), "what is read so is seen");
	for (int i = 1; i < 2000; i += 2)
		cr_assert(quarry_handle_state(l, h[i]) == QUARRY_HANDLE_COLD && refused(l, h[i], EAGAIN));
	look = begun(l, h[0]);
	cr_assert(quarry_evict(l, h, 2000) > 900 && quarry_handle_state(l, h[0]) == QUARRY_HANDLE_COLD);
	cr_assert(quarry_opt_end(l, &look) == 0, "gone meanwhile");
	cr_assert(quarry_prefetch(l, h, 2000) > 0 && quarry_opt_end(l, &look) == 0, "and back");
	cr_assert(reads(l, h[0], 128, 'a'));
	end_lanes(l);
}

/* ---- fork ---- */

static quarry_lanes *forked;
static _Atomic(int) writing;

static void *write_for_long(void *h)
{
	quarry_enter();
	cr_assert(quarry_write_begin(forked, *(quarry_handle *)h) != NULL);
	atomic_store(&writing, 1);
	while (atomic_load(&writing) == 1)
		sched_yield();
	quarry_write_end(forked, *(quarry_handle *)h);
	quarry_leave();
	return NULL;
}

Test(lanes_opt, a_child_has_no_writers_but_its_own)
{
	quarry_handle h;
	pthread_t thread;
	pid_t child;
	int status = 0;

	forked = lanes_made(&alone);
	h = filled(forked, 64, 'a');
	cr_assert(pthread_create(&thread, NULL, write_for_long, &h) == 0);
	while (atomic_load(&writing) == 0)
		sched_yield();
	child = fork();
	cr_assert(child >= 0);
	if (child == 0)
		_exit(reads(forked, h, 64, 'a') ? 0 : 1);
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert(refused(forked, h, EAGAIN), "the parent's still writes");
	atomic_store(&writing, 2);
	cr_assert(pthread_join(thread, NULL) == 0);
	cr_assert(reads(forked, h, 64, 'a'));
	end_lanes(forked);
}

/* ---- handles of a type ---- */

struct row {
	long total, count;
};

typedef struct wide {
	_Alignas(8192) char text[8192];
} wide;

QUARRY_HANDLE_TYPE(row_ref, struct row);
QUARRY_HANDLE_TYPE_ID(wide_ref, wide, 7);

Test(lanes_opt, a_handle_of_a_type_does_what_others_do)
{
	quarry_lanes *l = lanes_made(&alone);
	row_ref r = row_ref_make(l), none = row_ref_of(QUARRY_HANDLE_NONE);
	const struct row *seen;
	struct row *mine, copy;

	cr_assert(row_ref_is(r) && row_ref_valid(l, r) && !row_ref_is(none));
	quarry_enter();
	mine = row_ref_get_mut(l, r);
	*mine = (struct row){ .total = 5, .count = 1 };
	cr_assert(row_ref_try_get(l, r, &seen) == 0 && seen == mine && row_ref_get(l, r) == seen);
	mine = row_ref_write_begin(l, r);
	cr_assert(mine == seen && row_ref_read(l, r, &copy) == -1 && errno == EAGAIN);
	mine->total = 6;
	row_ref_write_end(l, r);
	quarry_leave();
	cr_assert(row_ref_read(l, r, &copy) == 0 && copy.total == 6 && copy.count == 1);
	cr_assert(row_ref_pin(l, r) == mine && quarry_handle_state(l, r.handle) == QUARRY_HANDLE_PINNED);
	cr_assert(row_ref_unpin(l, r) == 0 && row_ref_unpin(l, r) == -1 && row_ref_prefetch(l, r) == 0);
	cr_assert(row_ref_free(l, r) == 0 && row_ref_free(l, r) == -1 && errno == ESTALE);
	cr_assert(!row_ref_valid(l, r) && row_ref_read(l, r, &copy) == -1 && errno == ESTALE);
	cr_assert(row_ref_get(l, r) == NULL && row_ref_try_get(l, r, &seen) == -1 && row_ref_pin(l, r) == NULL);
	end_lanes(l);
}

Test(lanes_opt, a_types_number_and_alignment_are_its_handles)
{
	quarry_lanes *l = lanes_made(&alone);
	wide_ref w = wide_ref_make(l), another = wide_ref_make(l);
	row_ref r = row_ref_make(l);

	cr_assert((uintptr_t)writable(l, another.handle) % 8192 == 0);
	cr_assert((w.handle >> 48 & 0xff) == 7 && (uintptr_t)writable(l, w.handle) % 8192 == 0);
	cr_assert(quarry_hsize(l, w.handle) >= sizeof(wide) && quarry_hsize(l, r.handle) >= sizeof(struct row));
	cr_assert(wide_ref_is(wide_ref_of(w.handle)) && !wide_ref_is(wide_ref_of(r.handle)) && !row_ref_is(row_ref_of(w.handle)));
	end_lanes(l);
}
