/* SPDX-License-Identifier: MIT */
/* What others do in the midst of a move, of cooling, of coming back: each step at the moment in which it matters. The moments
 * are the system calls that are made in between (membarrier(2), a read of the file): the test's stand in for them.
 * Where the moment is between two instructions of another thread, what that thread would have written is written here. With threads
 * in truth it is tests/stress/lanes_few.c. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/lanes/fast.h"
#include "lib/lanes/group.h"
#include "numa/os.h"
#include "tests/unit/lanes.h"

#define COUNT 4000

static struct qy_os mine;
static const struct qy_os *linux_os;
static void (*meanwhile)(void); /* at the next call, once */
static quarry_lanes *l;
static quarry_handle h[COUNT];

static void now_or_never(void)
{
	void (*then)(void) = meanwhile;

	meanwhile = NULL;
	if (then != NULL)
		then();
}

static int membarrier_of_test(int command)
{
	int result = linux_os->membarrier(command);

	now_or_never();
	return result;
}

static int read_at_of_test(int fd, void *to, size_t size, uint64_t at)
{
	int result = linux_os->read_at(fd, to, size, at);

	now_or_never();
	return result;
}

static void begin(void)
{
	have_another_thread();
	linux_os = qy_os;
	mine = *qy_os;
	mine.membarrier = membarrier_of_test;
	mine.read_at = read_at_of_test;
	qy_os = &mine;
}

static void end(void)
{
	cr_assert(meanwhile == NULL, "the moment never came");
	qy_os = linux_os;
	end_lanes(l);
}

static struct qy_entry *entry_of(quarry_handle of)
{
	uint64_t word = atomic_load(&l->word[(uint32_t)of]);

	return qy_entry_at(qy_word_address(word), word);
}

static int64_t given_up(void)
{
	return (int64_t)figures_of(l).given_up;
}

/* Few objects in many segments: what is left of so many. */
static void make_sparse(const quarry_lanes_attr *attr)
{
	static quarry_handle all[20 * COUNT];

	l = lanes_made(attr);
	for (int i = 0; i < 20 * COUNT; i++)
		all[i] = filled(l, 512, i);
	for (int i = 0; i < 20 * COUNT; i++)
		if (i % 20 != 0)
			cr_assert(quarry_hfree(l, all[i]) == 0);
	for (int i = 0; i < COUNT; i++)
		h[i] = all[20 * i];
	qy_lanes_flush(l);
}

static void check_all(int from)
{
	for (int i = from; i < COUNT; i++)
		check(l, h[i], 512, i * 20);
}

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

/* ---- a compaction ---- */

static void *was_at;

/* One who pinned it looked at its word before it was marked. */
static void pin_unseen(void)
{
	for (int i = 0; i < COUNT; i++)
		if (atomic_load(&l->word[(uint32_t)h[i]]) & QUARRY_WORD_MOVING) {
			atomic_fetch_add(&entry_of(h[i])->marks, 1);
			was_at = qy_word_address(atomic_load(&l->word[(uint32_t)h[i]]));
			h[0] = h[i];
			return;
		}
	meanwhile = pin_unseen; /* nothing is being moved yet */
}

Test(lanes_races, a_pin_that_was_just_in_time_keeps_the_place)
{
	make_sparse(&alone);
	begin();
	meanwhile = pin_unseen;
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0 && meanwhile == NULL);
	cr_assert(qy_word_address(atomic_load(&l->word[(uint32_t)h[0]])) == was_at);
	cr_assert(quarry_unpin(l, h[0]) == 0 && given_up() >= 1);
	check_all(1);
	end();
}

/* What is pinned is not even begun with; and no mark stays behind, whenever it ends. */
Test(lanes_races, nothing_is_begun_in_vain_and_nothing_stays_begun)
{
	make_sparse(&alone);
	begin();
	for (int i = 0; i < COUNT; i += 2)
		cr_assert(quarry_pin(l, h[i]) != NULL);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	cr_assert(figures_of(l).moved > 0 && given_up() == 0, "%lld given up", (long long)given_up());
	for (int i = 0; i < COUNT; i += 2)
		cr_assert(quarry_unpin(l, h[i]) == 0);
	for (int round = 0; round < 300; round++) {
		cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 60) >= 0);
		for (int i = 0; i < COUNT; i++)
			cr_assert(quarry_handle_state(l, h[i]) == QUARRY_HANDLE_VALID);
	}
	check_all(0);
	end();
}

/* Who frees an object has changed its word and not yet its entry; the slot may be another object's by then. */
Test(lanes_races, an_entry_that_is_behind_its_word_is_nobodys)
{
	quarry_handle other;
	struct qy_entry *behind, *free;
	void *at;

	make_sparse(&alone);
	begin();
	behind = entry_of(h[0]);
	free = entry_of(h[1]);
	cr_assert(quarry_hfree(l, h[0]) == 0 && quarry_hfree(l, h[1]) == 0);
	other = filled(l, 3000, 'o'); /* of another class, in a span of its own */
	at = writable(l, other);
	/* (Its own entry is no less true.) */
	atomic_store(&behind->whose, (uint32_t)other + 1);
	atomic_store(&free->whose, (uint32_t)(((uint32_t)other == (uint32_t)h[0] ? h[1] : h[0]) + 1));
	cr_assert(quarry_pin(l, other) == at && quarry_unpin(l, other) == 0);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 2000) >= 0);
	cr_assert(given_up() == 0 && writable(l, other) == at, "who is behind is not followed");
	check(l, other, 3000, 'o');
	check_all(2);
	atomic_store(&behind->whose, QY_TOMB);
	atomic_store(&free->whose, QY_TOMB);
	end();
}

/* The word of its slot went back to the kernel, with those beside it, and reads as 0. */
Test(lanes_races, an_entry_whose_word_went_back_is_nobodys)
{
	struct qy_entry *entry[COUNT];
	uint32_t gone;

	make_sparse(&alone);
	gone = atomic_load(&l->slots.next) - 1; /* of the last page: nobody had it yet */
	for (; gone % QY_SLOT_PAGE > 1 && atomic_load(&l->word[gone]) != 0; gone--)
		;
	cr_assert(atomic_load(&l->word[gone]) == 0, "there is no such word: this tests nothing");
	for (int i = 0; i < COUNT; i++)
		entry[i] = entry_of(h[i]);
	for (int i = 0; i < COUNT; i += 2)
		atomic_store(&entry[i]->whose, gone + 1);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	for (int i = 0; i < COUNT; i += 2) {
		cr_assert(entry_of(h[i]) == entry[i], "what nobody knew of has moved");
		atomic_store(&entry[i]->whose, (uint32_t)h[i] + 1);
	}
	check_all(0);
	end_lanes(l);
}

Test(lanes_races, an_entry_that_is_behind_in_its_own_span_is_nobodys)
{
	struct qy_entry *behind;
	uint32_t index;

	make_sparse(&alone);
	begin();
	behind = entry_of(h[2]);
	cr_assert(qy_span_of(writable(l, h[2]), &index) == qy_span_of(writable(l, h[3]), &index));
	cr_assert(quarry_hfree(l, h[2]) == 0);
	atomic_store(&behind->whose, (uint32_t)h[3] + 1);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	cr_assert(figures_of(l).moved > 0 && given_up() == 0, "it is moved once");
	check_all(3);
	atomic_store(&behind->whose, QY_TOMB);
	end();
}

static _Atomic(int) forked;
static _Atomic(bool) halfway;
static _Thread_local bool is_mover;

/* The clock is looked at in the midst of a batch, some of which is done. */
static uint64_t clock_of_test(void)
{
	if (is_mover && qy_read(&l->moved) > 100 && l->batched > 0 && atomic_load(&forked) == 0) {
		atomic_store(&halfway, true);
		while (atomic_load(&forked) == 0)
			sched_yield();
	}
	return linux_os->now_ns();
}

static void *compact_it(void *unused)
{
	is_mover = true;
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	return unused;
}

/* (In a child of the test's an assertion would be waited for, for ever.) */
static bool child_has_all(void)
{
	bool right = quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0 && l->batched == 0;

	quarry_enter();
	for (int i = 0; i < 20000; i++) { /* in all places that are free */
		void *p = quarry_get_mut(l, quarry_halloc(l, 512));

		if (p == NULL)
			return false;
		memset(p, 'x', 512);
	}
	for (int i = 0; i < COUNT; i++) {
		const char *p = quarry_get(l, h[i]);

		right = right && p != NULL && p[0] == (char)(i * 20) && p[511] == p[0] &&
			quarry_handle_state(l, h[i]) == QUARRY_HANDLE_VALID;
	}
	quarry_leave();
	return right;
}

Test(lanes_races, what_was_moved_already_when_the_process_forked_is_moved)
{
	pthread_t thread;
	int status = 0;
	pid_t child;

	make_sparse(&alone);
	begin();
	mine.now_ns = clock_of_test;
	cr_assert(pthread_create(&thread, NULL, compact_it, NULL) == 0);
	while (!atomic_load(&halfway))
		sched_yield();
	child = fork();
	cr_assert(child >= 0);
	atomic_store(&forked, 1);
	if (child == 0)
		_exit(child_has_all() ? 0 : 1);
	cr_assert(pthread_join(thread, NULL) == 0);
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	check_all(0);
	end();
}

/* ---- between lanes ---- */

static const quarry_lanes_attr fast = { .flags = QUARRY_LANES_NO_MOVER, .threshold = QY_FAST_MOST };
static struct qy_chunk *chunk;

static struct qy_chunk *chunk_of(quarry_handle of)
{
	return qy_chunk_of(qy_head_of(qy_word_address(atomic_load(&l->word[(uint32_t)of]))));
}

static bool is_there(const struct qy_chunk *k)
{
	for (const struct qy_link *i = l->fast.chunks.next; i != &l->fast.chunks; i = i->next)
		if (qy_container(i, struct qy_chunk, link) == k)
			return true;
	return false;
}

/* All of a chunk is freed, and others are made, whose bytes are those of heads that should not be followed: of a slot
 * beyond all, and so long and so aligned that nobody has room for it. */
static void free_all_and_make_others(void)
{
	static const uint64_t bad[2] = { 0x7fffffff, (uint64_t)31 << QY_ABOUT_ALIGNED_SHIFT | QY_ABOUT_TOTAL };

	for (int i = 0; i < COUNT; i++)
		(void)quarry_hfree(l, h[i]);
	for (int i = 0; i < 200; i++) {
		uint64_t *p = writable(l, quarry_halloc(l, 1008));

		for (int k = 0; k < 126; k++)
			p[k] = bad[k % 2];
	}
	if (chunk != NULL)
		cr_assert(is_there(chunk) && chunk->dead, "it does not begin anew while it is walked");
}

Test(lanes_races, a_chunk_that_is_walked_does_not_begin_anew)
{
	l = lanes_made(&fast);
	for (int i = 0; i < COUNT; i++)
		h[i] = filled(l, 16, 'a');
	begin();
	chunk = chunk_of(h[0]);
	meanwhile = free_all_and_make_others;
	cr_assert(quarry_oneway_flush(l) >= 0);
	for (int i = 0; i < COUNT; i++)
		cr_assert(!quarry_handle_valid(l, h[i]));
	end();
}

static void free_it_and_trim(void)
{
	cr_assert(quarry_hfree(l, h[0]) == 0);
	cr_assert(qy_grace_look(qy_grace_begin()));
	h[1] = filled(l, 500000, 'b'); /* which gives back what is dead */
	cr_assert(is_there(chunk) && chunk->dead, "it does not go back while it is walked, nor come again");
}

Test(lanes_races, a_chunk_that_is_walked_does_not_go_back)
{
	l = lanes_made(&fast);
	h[0] = filled(l, 500000, 'a');
	begin();
	chunk = chunk_of(h[0]);
	meanwhile = free_it_and_trim;
	cr_assert(quarry_oneway_flush(l) >= 0);
	check(l, h[1], 500000, 'b');
	end();
}

/* By call nothing is walked: what was freed, and begun anew, is not looked at. */
Test(lanes_races, what_is_freed_before_it_is_promoted_is_not_looked_at)
{
	l = lanes_made(&fast);
	for (int i = 0; i < COUNT; i++)
		h[i] = filled(l, 16, 'a');
	begin();
	meanwhile = free_all_and_make_others;
	cr_assert(quarry_promote(l, h[7]) == -1 && errno == EBUSY, "errno %d", errno);
	end();
}

/* As of entries: a head whose object was freed just now, and whose slot is another's, or nobody's. */
Test(lanes_races, a_head_that_is_behind_its_word_is_nobodys)
{
	struct qy_head *behind, *free;
	quarry_handle other;
	void *at;

	l = lanes_made(&fast);
	for (int i = 0; i < 10; i++)
		h[i] = filled(l, 64, 'a');
	begin();
	behind = qy_head_of(writable(l, h[0]));
	free = qy_head_of(writable(l, h[1]));
	cr_assert(quarry_hfree(l, h[0]) == 0 && quarry_hfree(l, h[1]) == 0);
	other = quarry_halloc_with(l, 64, &(quarry_halloc_attr){ .lane = QUARRY_LANE_SLOW });
	at = writable(l, other);
	memset(at, 'o', 64);
	atomic_store(&behind->entry.whose, (uint32_t)other + 1);
	atomic_store(&free->entry.whose, ((uint32_t)other == (uint32_t)h[0] ? (uint32_t)h[1] : (uint32_t)h[0]) + 1);
	cr_assert(quarry_oneway_flush(l) == 8);
	cr_assert(writable(l, other) == at && quarry_handle_lane(l, other) == QUARRY_LANE_SLOW);
	for (int i = 2; i < 10; i++)
		check(l, h[i], 64, 'a');
	cr_assert(quarry_fast_stats_get(l, &(quarry_fast_stats){ 0 }) == 0);
	end();
}

/* ---- freeing ---- */

/* Who frees an object has changed its word, and nothing else yet: nobody moves it, in either lane. */
static void half_freed(const quarry_lanes_attr *attr)
{
	uint64_t freed[10];

	if (attr != NULL) {
		l = lanes_made(attr);
		for (int i = 0; i < 10; i++)
			h[i] = filled(l, 64, 'a');
	} else {
		make_sparse(&alone);
	}
	begin();
	for (int i = 0; i < 10; i++) {
		freed[i] = (atomic_load(&l->word[(uint32_t)h[i]]) + ((uint64_t)1 << 48)) | QY_WORD_FREED;
		atomic_store(&l->word[(uint32_t)h[i]], freed[i]);
	}
	cr_assert(attr != NULL ? quarry_oneway_flush(l) == 0 : quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	for (int i = 0; i < 10; i++) {
		cr_assert(atomic_load(&l->word[(uint32_t)h[i]]) == freed[i]);
		quarry_enter();
		qy_freed(l, h[i], freed[i]);
		quarry_leave();
		cr_assert(quarry_handle_state(l, h[i]) == QUARRY_HANDLE_FREED);
	}
	end();
}

Test(lanes_races, what_is_half_freed_is_not_promoted)
{
	half_freed(&fast);
}

Test(lanes_races, what_is_half_freed_is_not_packed)
{
	half_freed(NULL);
}

/* ---- pins ---- */

/* Who frees it has changed the word, and has not looked for pins yet. */
Test(lanes_races, an_unpin_in_the_midst_of_a_free_leaves_the_memory_to_it)
{
	quarry_handle of;
	uint64_t word, freed;

	l = lanes_made(&alone);
	of = filled(l, 64, 'a');
	cr_assert(quarry_pin(l, of) != NULL);
	begin();
	word = atomic_load(&l->word[(uint32_t)of]);
	freed = (word + ((uint64_t)1 << 48)) | QY_WORD_FREED;
	atomic_store(&l->word[(uint32_t)of], freed);
	cr_assert(quarry_unpin(l, of) == 0 && quarry_unpin(l, of) == -1 && errno == EINVAL);
	quarry_enter();
	qy_freed(l, of, freed);
	quarry_leave();
	cr_assert(quarry_handle_state(l, of) == QUARRY_HANDLE_FREED && figures_of(l).objects == 0);
	end();
}

/* ---- cold ---- */

static const quarry_cold_attr to_file = { .codec = "none", .memory_limit = 1, .directory = "/tmp", .period_ms = 1 };
static const quarry_lanes_attr cold = { .flags = QUARRY_LANES_NO_MOVER, .cold = &to_file };
static uint64_t cold_word;

static void make_cold(void)
{
	l = lanes_made(&cold);
	for (int i = 0; i < COUNT; i++)
		h[i] = filled(l, 512, i * 20);
}

/* Who frees a cold object looked at it before somebody began to bring it back: its word is all he has to change. */
static void free_the_word(void)
{
	cold_word = atomic_load(&l->word[(uint32_t)h[9]]);
	cr_assert(cold_word & QUARRY_WORD_COLD);
	atomic_store(&l->word[(uint32_t)h[9]], ((cold_word >> 48) + 1) << 48 | QUARRY_WORD_FREE);
}

Test(lanes_races, what_is_freed_while_it_comes_back_does_not)
{
	make_cold();
	begin();
	cr_assert(quarry_evict(l, h, COUNT) == COUNT);
	meanwhile = free_the_word;
	quarry_enter();
	cr_assert(quarry_get(l, h[9]) == NULL && errno == ESTALE);
	quarry_leave();
	cr_assert(meanwhile == NULL && quarry_handle_state(l, h[9]) == QUARRY_HANDLE_FREED);
	(void)qy_cold_forget(l, cold_word, false); /* the rest of freeing it */
	cr_assert(figures_of(l).objects == 0, "no room was kept for it");
	check_all(10);
	end();
}

/* Of many who want one, all but the first find it there; its extent may be no more. */
Test(lanes_races, who_comes_second_finds_it_there)
{
	quarry_handle twice[COUNT];

	make_cold();
	begin();
	cr_assert(quarry_evict(l, h, COUNT) == COUNT);
	cold_word = atomic_load(&l->word[(uint32_t)h[0]]);
	cr_assert(quarry_prefetch(l, h, COUNT) == COUNT);
	quarry_enter();
	cr_assert(qy_warm(l, h[0], cold_word, NULL, true) == 0);
	quarry_leave();
	check_all(0);
	cr_assert(quarry_evict(l, h, COUNT) == COUNT);
	for (int i = 0; i < COUNT; i++)
		twice[i] = h[i / 2];
	cr_assert(quarry_prefetch(l, twice, COUNT) == COUNT / 2);
	check_all(0);
	end();
}

/* Pinned by who looked at its word before it was marked. */
static void pin_in_time(void)
{
	atomic_fetch_add(&entry_of(h[3])->marks, 1);
	cr_assert(atomic_load(&l->word[(uint32_t)h[3]]) & QUARRY_WORD_MOVING);
}

Test(lanes_races, a_pin_that_was_just_in_time_keeps_it_warm)
{
	make_cold();
	begin();
	meanwhile = pin_in_time;
	cr_assert(quarry_evict(l, h, COUNT) == COUNT - 1);
	cr_assert(quarry_handle_state(l, h[3]) == QUARRY_HANDLE_PINNED && quarry_unpin(l, h[3]) == 0);
	check_all(0);
	end();
}

/* A fifth of them each is freed, or written to. */
static void free_and_write(void)
{
	for (int i = 0; i < 128; i++)
		if (i % 5 == 1)
			cr_assert(quarry_hfree(l, h[i]) == 0);
		else if (i % 5 == 2)
			memset(writable(l, h[i]), 'w', 512);
	for (int i = 0; i < 500; i++)
		(void)filled(l, 100, 'n');
}

Test(lanes_races, what_is_freed_or_written_while_it_goes_does_not)
{
	make_cold();
	begin();
	meanwhile = free_and_write;
	cr_assert(quarry_evict(l, h, 128) == 128 - 26 - 26);
	for (int i = 0; i < 128; i++)
		if (i % 5 == 1)
			cr_assert(!quarry_handle_valid(l, h[i]));
		else
			check(l, h[i], 512, i % 5 == 2 ? 'w' : i * 20);
	end();
}

/* All of them, and the spans that they were in end. */
static void end_spans(void)
{
	for (int i = 0; i < COUNT; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	qy_lanes_flush(l);
	cr_assert(qy_grace_look(qy_grace_begin()));
	pthread_mutex_lock(&l->lock);
	(void)qy_bury(l, UINT32_MAX);
	pthread_mutex_unlock(&l->lock);
}

Test(lanes_races, what_is_freed_before_it_is_copied_is_not_looked_at)
{
	make_cold();
	begin();
	meanwhile = end_spans;
	cr_assert(quarry_evict(l, h, COUNT) == 0 && figures_of(l).objects == 0);
	end();
}

/* Who was not seen before it was moved was not seen after it either. */
Test(lanes_races, a_move_is_no_look)
{
	quarry_cold_attr in_memory = { .codec = "none", .period_ms = 1 };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &in_memory };
	quarry_cold_stats now = { 0 };

	make_sparse(&attr);
	cr_assert(quarry_cool(l, 0) == 0);
	begin();
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) > 0 && figures_of(l).moved > COUNT / 2);
	for (int i = 0; i < COUNT; i++)
		cr_assert(atomic_load(&l->word[(uint32_t)h[i]]) & QUARRY_WORD_UNSEEN, "object %d", i);
	while (quarry_cool(l, 0) == 0)
		sched_yield();
	cr_assert(quarry_cold_stats_get(l, &now) == 0 && now.objects == COUNT);
	check_all(0);
	end();
}
