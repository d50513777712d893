/* SPDX-License-Identifier: MIT */
/* Children of fork(2): what other threads were in the midst of. A thread is stopped where it calls for the clock, a fence or a
 * library, which the test's stand in for; where the moment is between two instructions, what that thread has written by then is
 * written here. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/lanes/dictionary.h"
#include "lib/lanes/fast.h"
#include "numa/os.h"
#include "tests/unit/lanes.h"

#define COUNT 4001 /* so that the thread that made them has a slot left */
#define SIZE 512
#define MOVED 600
#define LONG_US 60000000 /* with so much time it looks at the clock, and comes to its end */
#define SECONDS 60 /* until a child that waits for who is not there is ended */

static struct qy_os mine;
static const struct qy_os *linux_os;
static quarry_lanes *l;
static quarry_handle h[COUNT];
static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };
static const quarry_lanes_attr fast = { .flags = QUARRY_LANES_NO_MOVER, .threshold = QY_FAST_MOST };

static _Atomic(bool) reached, go_on;
static _Thread_local bool stops;

/* The thread that is to stop does, once, until the process has forked. */
static void stop_here(void)
{
	if (!stops)
		return;
	stops = false;
	atomic_store(&reached, true);
	while (!atomic_load(&go_on))
		sched_yield();
}

static void begin(void)
{
	linux_os = qy_os;
	mine = *qy_os;
	qy_os = &mine;
	atomic_store(&reached, false);
	atomic_store(&go_on, false);
}

/* (In a child an assertion of the test's would be waited for, for ever: it says what it saw by how it ends.) */
static int in_child(int (*child)(void))
{
	int status = 0;
	pid_t pid = fork();

	cr_assert(pid >= 0);
	if (pid == 0) {
		alarm(SECONDS);
		_exit(child());
	}
	atomic_store(&go_on, true);
	cr_assert(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* The same while a thread is where it stops. */
static int while_stopped(void *(*thread)(void *), int (*child)(void))
{
	pthread_t t;
	int status;

	cr_assert(pthread_create(&t, NULL, thread, NULL) == 0);
	while (!atomic_load(&reached))
		sched_yield();
	status = in_child(child);
	cr_assert(pthread_join(t, NULL) == 0);
	return status;
}

/* ---- what the slow lane counts ---- */

static struct qy_taker *taker;  /* another thread's, of objects of this size */
static struct qy_lanes_cache *cache;
static void (*half_done)(void); /* by that thread, before it stops */

static void *makes_and_stops(void *unused)
{
	for (int i = 0; i < COUNT; i++)
		h[i] = filled(l, SIZE, i);
	cache = qy_lanes_cache(l);
	taker = &cache->of[qy_class_of(SIZE, 16, QY_CLASS_LARGEST)];
	cr_assert(taker->span != NULL && taker->taken != 0 && cache->slots > 0);
	half_done();
	stops = true;
	stop_here();
	return unused;
}

/* What spans say of themselves is what their bits and entries say. */
static bool counts_right(void)
{
	bool right = true;

	for (const struct qy_link *k = l->segments.next; k != &l->segments; k = k->next) {
		const struct qy_segment *g = qy_container(k, struct qy_segment, link);

		for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
			const struct qy_span *s = &g->span[i];
			uint32_t used = 0, tombs = 0;

			for (uint32_t n = 0; qy_is_span(s) && n < s->count; n++) {
				used += (atomic_load(&s->bits[n / 64]) >> n % 64 & 1) != 0;
				tombs += (atomic_load(&s->entry[n].whose) & QY_TOMB) != 0;
			}
			if (qy_is_span(s))
				right = right && used == atomic_load(&s->used) && tombs == atomic_load(&s->tombs) + s->own_tombs;
		}
	}
	return right;
}

static bool has(int from)
{
	bool right = true;

	quarry_enter();
	for (int i = from; i < COUNT; i++) {
		const char *p = quarry_get(l, h[i]);

		right = right && p != NULL && p[0] == (char)i && p[SIZE - 1] == p[0];
	}
	quarry_leave();
	return right;
}

/* From here on all that can be taken is written to. */
static int uses_it_all(void)
{
	static quarry_handle more[3 * COUNT];
	quarry_lanes_stats s = { 0 };

	if (!counts_right())
		return 1;
	for (int i = 0; i < 3 * COUNT; i++) {
		char *p;

		more[i] = quarry_halloc(l, SIZE);
		quarry_enter();
		p = more[i] == 0 ? NULL : quarry_get_mut(l, more[i]);
		if (p != NULL)
			memset(p, 'x', SIZE);
		quarry_leave();
		if (p == NULL)
			return 2;
	}
	if (!has(10))
		return 3;
	for (int i = 0; i < 3 * COUNT; i++)
		if (quarry_hfree(l, more[i]) != 0)
			return 4;
	for (int i = 10; i < COUNT; i += 2)
		if (quarry_hfree(l, h[i]) != 0)
			return 5;
	if (quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) < 0 || quarry_lanes_stats_get(l, &s) != 0)
		return 6;
	if (s.objects > COUNT || s.waiting > (uint64_t)COUNT * SIZE)
		return 7;
	qy_lanes_flush(l);
	for (int i = 11; i < COUNT; i += 2)
		if (quarry_hfree(l, h[i]) != 0)
			return 8;
	for (int i = 0; i < 10; i++)
		(void)quarry_hfree(l, h[i]);
	(void)quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0);
	(void)quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0);
	return !counts_right() ? 9 : quarry_lanes_stats_get(l, &s) != 0 || s.objects != 0 ? 10 : 0;
}

static void check_half_done(void (*half)(void))
{
	int how;

	begin();
	l = lanes_made(&alone);
	half_done = half;
	how = while_stopped(makes_and_stops, uses_it_all);
	cr_assert(how == 0, "the child ended with %d", how);
	qy_os = linux_os;
}

/* A word is the taker's, and not counted as used. */
static void takes_a_word(void)
{
	atomic_fetch_sub(&taker->span->used, (uint32_t)__builtin_popcountll(taker->taken));
}

Test(lanes_fork, a_word_that_was_being_taken_is_free)
{
	check_half_done(takes_a_word);
}

static void takes_a_word_that_it_does_not_know(void)
{
	taker->taken = 0;
}

Test(lanes_fork, a_word_that_was_taken_just_now_is_free)
{
	check_half_done(takes_a_word_that_it_does_not_know);
}

static void sweeps(void)
{
	struct qy_span *s = taker->span;
	uint32_t index;

	for (int i = 0; i < COUNT && atomic_load(&s->tombs) == 0; i++)
		if (qy_span_of(writable(l, h[i]), &index) == s) {
			atomic_fetch_and(&s->bits[index / 64], ~((uint64_t)1 << index % 64));
			atomic_store(&s->entry[index].whose, 0);
			atomic_fetch_sub(&s->used, 1);
			atomic_store(&s->tombs, 1); /* still */
			h[i] = filled(l, SIZE, i);  /* (the other place of the object) */
		}
	cr_assert(atomic_load(&s->tombs) == 1);
}

Test(lanes_fork, a_span_that_was_being_swept_has_what_its_entries_say)
{
	check_half_done(sweeps);
}

/* Nothing is counted of a tombstone, its own and in a span of nobody's. */
static void frees_two(void)
{
	struct qy_span *s;
	uint32_t index;
	bool own = false, others = false;

	for (int i = 0; i < 10; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	for (int i = 10; i < COUNT && !(own && others); i++) {
		s = qy_span_of(writable(l, h[i]), &index);
		if (s == taker->span ? own : others)
			continue;
		cr_assert(quarry_hfree(l, h[i]) == 0);
		if (s == taker->span)
			own = true, s->own_tombs--;
		else
			others = true, atomic_fetch_sub(&s->tombs, 1);
		h[i] = filled(l, SIZE, i);
	}
	cr_assert(own && others);
}

/* One that is not counted is one less until it is swept, and never one too many. */
static bool counts_possible(void)
{
	bool possible = true;

	for (const struct qy_link *k = l->segments.next; k != &l->segments; k = k->next) {
		const struct qy_segment *g = qy_container(k, struct qy_segment, link);

		for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++)
			if (qy_is_span(&g->span[i]))
				possible = possible && qy_live_of(&g->span[i]) <= g->span[i].count &&
					   atomic_load(&g->span[i].tombs) <= atomic_load(&g->span[i].used);
	}
	return possible;
}

static int frees_all(void)
{
	for (int i = 10; i < COUNT; i++)
		if (quarry_hfree(l, h[i]) != 0)
			return 1;
	qy_lanes_flush(l);
	if (!qy_grace_look(qy_grace_begin()))
		return 2;
	for (const struct qy_link *k = l->segments.next; k != &l->segments; k = k->next)
		for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
			struct qy_span *s = &qy_container(k, struct qy_segment, link)->span[i];

			if (qy_is_span(s))
				(void)qy_sweep(s);
		}
	if (!counts_possible())
		return 3;
	for (int n = 0; n < 3; n++)
		if (quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) < 0)
			return 4;
	return counts_possible() ? figures_of(l).objects == 0 ? 0 : 5 : 6;
}

Test(lanes_fork, a_tombstone_that_was_not_counted_is_swept)
{
	int how;

	begin();
	l = lanes_made(&alone);
	half_done = frees_two;
	how = while_stopped(makes_and_stops, frees_all);
	cr_assert(how == 0, "the child ended with %d", how);
	qy_os = linux_os;
}

/* It has room and has said whose it is; its word does not say so. */
static void makes_one(void)
{
	struct qy_entry *entry;
	void *p = qy_take_one(taker, &entry);

	(void)p;
	atomic_store(&entry->whose, cache->slot[--cache->slots] + 1);
}

Test(lanes_fork, an_object_that_was_being_made_is_none)
{
	check_half_done(makes_one);
}

/* ---- a move ---- */

static uint64_t clock_of_test(void)
{
	stop_here();
	return linux_os->now_ns();
}

/* In the midst of a batch, whose first objects fill spans that the mover is done with. */
static uint64_t clock_of_mover(void)
{
	if (stops && qy_read(&l->moved) > MOVED && l->batched > MOVED)
		stop_here();
	return linux_os->now_ns();
}

static void *compacts(void *unused)
{
	stops = true;
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, LONG_US) >= 0 && !stops, "it never stopped");
	return unused;
}

/* Its bytes are, and its place is its own. */
static bool is_whole(quarry_handle of, int byte)
{
	const char *p;
	bool whole;

	quarry_enter();
	p = quarry_get(l, of);
	whole = p != NULL && p[0] == (char)byte && p[SIZE - 1] == p[0] && atomic_load(&qy_entry_of(p)->whose) == (uint32_t)of + 1;
	quarry_leave();
	return whole;
}

/* What has moved is freed, its new place is another object's, and then somebody moves again. */
static int uses_new_places(void)
{
	static quarry_handle others[20 * COUNT];
	quarry_lanes_stats s = { 0 };
	int n = 0;

	for (int i = 0; i < COUNT; i += 2)
		if (quarry_hfree(l, h[i]) != 0)
			return 1;
	if (quarry_lanes_stats_get(l, &s) != 0 || !qy_grace_look(qy_grace_begin()))
		return 2;
	for (; n < 20 * COUNT; n++) {
		char *p;

		others[n] = quarry_halloc(l, SIZE);
		quarry_enter();
		p = others[n] == 0 ? NULL : quarry_get_mut(l, others[n]);
		if (p != NULL)
			memset(p, n, SIZE);
		quarry_leave();
		if (p == NULL)
			return 3;
	}
	if (quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) < 0)
		return 4;
	for (int i = 0; i < n; i++)
		if (!is_whole(others[i], i))
			return 5;
	for (int i = 1; i < COUNT; i += 2)
		if (!is_whole(h[i], i) || quarry_handle_state(l, h[i]) != QUARRY_HANDLE_VALID)
			return 6;
	return 0;
}

Test(lanes_fork, a_place_that_was_moved_to_is_another_objects_when_that_is_freed)
{
	static quarry_handle all[4 * COUNT];
	int how;

	begin();
	l = lanes_made(&alone);
	for (int i = 0; i < 4 * COUNT; i++)
		all[i] = filled(l, SIZE, i / 4);
	for (int i = 0; i < 4 * COUNT; i++)
		if (i % 4 != 0)
			cr_assert(quarry_hfree(l, all[i]) == 0);
	for (int i = 0; i < COUNT; i++)
		h[i] = all[4 * i];
	qy_lanes_flush(l);
	mine.now_ns = clock_of_mover;
	how = while_stopped(compacts, uses_new_places);
	cr_assert(how == 0, "the child ended with %d", how);
	qy_os = linux_os;
	cr_assert(has(0));
	end_lanes(l);
}

/* ---- chunks ---- */

static int depth;

static int next_generation(void)
{
	for (const struct qy_link *i = l->fast.chunks.next; i != &l->fast.chunks; i = i->next)
		if (atomic_load(&qy_container(i, struct qy_chunk, link)->live) < 1 << 29)
			return depth;
	if (depth++ == 8)
		return 0;
	have_another_thread();
	return in_child(next_generation);
}

Test(lanes_fork, no_chunk_begins_anew_however_often_the_children_fork)
{
	begin();
	l = lanes_made(&fast);
	for (int i = 0; i < 100; i++)
		h[i] = filled(l, 64, i);
	have_another_thread();
	depth = 1;
	cr_assert(in_child(next_generation) == 0);
	qy_os = linux_os;
	end_lanes(l);
}

/* ---- scopes without a record ---- */

static _Thread_local bool no_records;

int pthread_setspecific(pthread_key_t key, const void *value)
{
	static int (*next)(pthread_key_t, const void *);

	if (no_records)
		return ENOMEM;
	if (next == NULL)
		next = (int (*)(pthread_key_t, const void *))dlsym(RTLD_NEXT, "pthread_setspecific");
	return next(key, value);
}

static void *enters_without_a_record(void *unused)
{
	no_records = true;
	quarry_enter();
	no_records = false;
	cr_assert(qy_in_scope() && qy_lanes_record == NULL);
	stops = true;
	stop_here();
	quarry_leave();
	return unused;
}

static int grace_is_over(void)
{
	return !qy_grace_look(qy_grace_begin());
}

static int grace_is_not_over(void)
{
	bool over = qy_grace_look(qy_grace_begin());

	quarry_leave();
	return over || !qy_grace_look(qy_grace_begin());
}

Test(lanes_fork, a_scope_without_a_record_ends_with_its_thread)
{
	begin();
	l = lanes_made(&alone);
	cr_assert(while_stopped(enters_without_a_record, grace_is_over) == 0);
	no_records = true;
	quarry_enter();
	no_records = false;
	cr_assert(in_child(grace_is_not_over) == 0, "that of who forked does not");
	quarry_leave();
	qy_os = linux_os;
	end_lanes(l);
}

/* ---- locks of what is made once ---- */

static void *measures(void *unused)
{
	uint64_t mib_s;

	stops = true;
	cr_assert(quarry_node_copy(0, 0, &mib_s) >= 0);
	return unused;
}

static int measures_too(void)
{
	uint64_t mib_s;

	return quarry_node_copy(0, 0, &mib_s) < 0 || mib_s == 0;
}

Test(lanes_fork, who_was_measuring_is_not_waited_for)
{
	begin();
	mine.now_ns = clock_of_test;
	cr_assert(while_stopped(measures, measures_too) == 0);
	qy_os = linux_os;
}

void *dlopen(const char *name, int flags)
{
	static void *(*next)(const char *, int);

	stop_here();
	if (next == NULL)
		next = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
	return next(name, flags);
}

static void *loads_a_codec(void *unused)
{
	stops = true;
	(void)qy_codec_find("zstd");
	return unused;
}

static int loads_another(void)
{
	const struct qy_codec *zstd = qy_codec_find("zstd");

	return zstd == NULL && errno != ENOENT;
}

static void *loads_dictionaries(void *unused)
{
	stops = true;
	(void)qy_dictionaries_load();
	return unused;
}

static int loads_dictionaries_too(void)
{
	return qy_dictionaries_load() != (qy_codec_find("zstd") != NULL);
}

Test(lanes_fork, who_was_loading_is_not_waited_for)
{
	begin();
	cr_assert(while_stopped(loads_a_codec, loads_another) == 0);
	atomic_store(&reached, false);
	atomic_store(&go_on, false);
	cr_assert(while_stopped(loads_dictionaries, loads_dictionaries_too) == 0);
	qy_os = linux_os;
}

/* ---- (no fork) handles of lanes that ended ---- */

Test(lanes_fork, a_handle_of_lanes_that_ended_is_none_of_the_next)
{
	quarry_handle was, is;
	uint64_t number;

	l = lanes_made(&alone);
	was = filled(l, 64, 'a');
	number = l->map.number;
	end_lanes(l);
	for (int i = 0; i < 126; i++) {
		l = lanes_made(&alone);
		is = filled(l, 64, 'b');
		cr_assert(l->map.number != number && quarry_handle_state(l, was) == QUARRY_HANDLE_FOREIGN);
		end_lanes(l);
	}
	l = lanes_made(&alone);
	is = filled(l, 64, 'c');
	cr_assert(l->map.number == number && (uint32_t)is == (uint32_t)was, "this tests nothing");
	cr_assert(quarry_handle_state(l, was) == QUARRY_HANDLE_STALE && quarry_get(l, was) == NULL && !quarry_handle_valid(l, was));
	end_lanes(l);
}
