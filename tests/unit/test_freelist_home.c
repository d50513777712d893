/* SPDX-License-Identifier: MIT */
/* What others free of a thread's objects, which comes home onto its lists; and what becomes of the lists when all that
 * is given up: by the program's wish, because the thread sleeps or ended, in a forked child, with an arena. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>

#include "lib/cache/duties.h"
#include "tests/unit/freelist_model.h"

static const unsigned some_classes[] = { 0, 3, 20, 40, 60, 64, 71 };

#define SOME (sizeof(some_classes) / sizeof(some_classes[0]))

/* ---- what others free ---- */

/* It is known, and has nothing. */
static void come(struct sleeper *s)
{
	(void)s;
	quarry_free(quarry_malloc(1));
}

static void *sent[BLOCKS];
static uint32_t sent_count;

static void free_sent(struct sleeper *s)
{
	for (uint32_t i = 0; i < sent_count; i++)
		quarry_free(sent[i]);
	flush(s);
}

/* Another frees so many of the program's blocks, taken at random, and sends them. */
static void send_random(uint32_t n)
{
	for (sent_count = 0; sent_count < n && count > 0; sent_count++)
		sent[sent_count] = forget_block(model_below(count));
	make(&a, free_sent);
}

static bool was_sent(const void *p)
{
	for (uint32_t i = 0; i < sent_count; i++)
		if (sent[i] == p)
			return true;
	return false;
}

static uint64_t received(void)
{
	return qy_read(&cache()->heap.remote_received);
}

/* A refill that goes to the heap, and has not carved when mail is there. */
static void *take_by_refill(unsigned cls)
{
	drain(cls);
	model_must(freed_list(cls)->head == NULL, "nothing was freed");
	return take(cls);
}

Test(freelist_home, what_others_freed_comes_onto_the_list_and_no_slab_is_touched)
{
	static struct qy_slab before[BLOCKS];

	start("freelist_home");
	make(&a, come);
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		uint32_t n = qy_classes[cls].keep - 1;
		uint64_t had;

		take_many(cls, qy_classes[cls].keep + 3 * qy_classes[cls].capacity);
		drain(cls);
		send_random(n);
		check_places(0);
		for (uint32_t k = 0; k < n; k++)
			memcpy((void *)&before[k], qy_slab_of(sent[k]), sizeof(before[k]));
		had = received();
		for (uint32_t k = 0; k < n; k++) {
			void *p = take(cls);

			model_must(was_sent(p), "class %u: object %u of %u is not one of those", cls, k, n);
			model_must(!cache()->zero[cls], "class %u", cls);
			check_places(0);
		}
		model_must(received() - had == n, "class %u", cls);
		for (uint32_t k = 0; k < n; k++)
			model_must(memcmp((void *)&before[k], qy_slab_of(sent[k]), sizeof(before[k])) == 0,
				   "class %u: a slab was written to", cls);
		free_all();
		quarry_thread_flush();
	}
	end(&a);
}

/* A whole step of it is filed, of which the list takes what it has room for. */
Test(freelist_home, what_has_no_room_goes_into_slabs)
{
	start("freelist_home");
	make(&a, come);
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		const struct qy_freelist *l = freed_list(cls);
		uint32_t n = 2 * qy_classes[cls].keep + qy_classes[cls].capacity, in_slabs = 0;
		void *list[] = { NULL, NULL };

		take_many(cls, n + 2 * qy_classes[cls].capacity);
		drain(cls);
		send_random(n);
		take_by_refill(cls);
		check_places(0);
		list[0] = cache()->head[cls];
		list[1] = l->head;
		model_must(1 + length(list[0]) < l->most, "class %u: %u came", cls, 1 + length(list[0]));
		model_must(list[1] == NULL && l->room == l->most, "class %u", cls);
		for (uint32_t k = 0; k < n; k++)
			in_slabs += qy_slab_of(sent[k])->state != QY_SLAB_FULL;
		model_must(in_slabs > 0, "class %u: none went into its slab", cls);
		free_all();
		check_places(0);
		quarry_thread_flush();
		check_places(0);
	}
	end(&a);
}

/* The list is malloc's next, and not of fresh memory; what gathered them has written a word of its own behind the
 * link. */
Test(freelist_home, what_comes_home_is_not_zero)
{
	start("freelist_home");
	make(&a, come);
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		size_t size = qy_classes[cls].size;
		uint32_t n = qy_classes[cls].keep - 1;

		for (uint32_t k = 0; k < 2 * qy_classes[cls].capacity; k++)
			add_block(quarry_calloc(1, size), size);
		send_random(n);
		for (uint32_t k = 0; k < 2 * qy_classes[cls].capacity; k++) {
			unsigned char *p = quarry_calloc(1, size);

			for (size_t k2 = 0; k2 < size; k2++)
				model_must(p[k2] == 0, "class %u: byte %zu of block %u", cls, k2, k);
			add_block(p, size);
		}
		free_all();
		quarry_thread_flush();
		quarry_purge(NULL);
	}
	end(&a);
}

/* ---- what the program wrote over ---- */

static void *nonsense(uint32_t i)
{
	switch (i % 5) {
	case 0:
		return (void *)(uintptr_t)0x4141414141414141;
	case 1:
		return (void *)(uintptr_t)model_random();
	case 2:
		return (void *)(uintptr_t)1;
	case 3:
		return qy_window_at(qy_window_size - 8);
	default:
		return (void *)(uintptr_t)-8;
	}
}

Test(freelist_home, hints_that_were_written_over_do_no_harm)
{
	start("freelist_home");
	make(&a, come);
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		uint32_t n = 4 * qy_classes[cls].capacity;

		take_many(cls, n + qy_classes[cls].keep);
		drain(cls);
		send_random(n);
		for (uint32_t k = 0; k < n; k++)
			((void **)sent[k])[1] = nonsense(k);
		take_many(cls, n);
		check_places(0);
		check_blocks();
		free_all();
		quarry_thread_flush();
	}
	cr_assert_eq(mistakes(), 0);
	end(&a);
}

static bool is_readable(const void *p)
{
	int fds[2];
	bool readable;

	cr_assert_eq(pipe(fds), 0);
	readable = write(fds[1], p, 1) == 1;
	close(fds[0]);
	close(fds[1]);
	return readable;
}

/* A block is freed by another thread, and the program writes over its link: one mistake, and no harm. */
static void come_home_leading_to(uint32_t i, unsigned cls, void *link)
{
	sent[0] = forget_block(i);
	sent_count = 1;
	make(&a, free_sent);
	*(void **)sent[0] = link;
	take_by_refill(cls);
	cr_assert_eq(mistakes(), 1);
	check_places(0);
	check_blocks();
	end(&a);
}

/* Nor a link that leads to the last word of a unit, with nothing behind it. */
Test(freelist_home, a_link_to_the_end_of_all_memory_does_no_harm)
{
	const unsigned cls = 64;
	uint32_t i = 0;
	char *end_of;

	start("freelist_home");
	make(&a, come);
	do {
		take(cls);
		end_of = qy_slab_memory(qy_slab_at(qy_window_offset(blocks[count - 1].p))) + QY_UNIT;
	} while (is_readable(end_of));
	for (drain(cls); qy_window_offset(blocks[i].p) >> QY_UNIT_SHIFT != (qy_window_offset(end_of) - 1) >> QY_UNIT_SHIFT;)
		i++;
	come_home_leading_to(i, cls, end_of - 8);
}

/* Nor one that leads to where nothing of quarry's is, nor anything else. */
Test(freelist_home, a_link_to_no_memory_at_all_does_no_harm)
{
	const unsigned cls = 20;

	start("freelist_home");
	make(&a, come);
	take(cls);
	drain(cls);
	come_home_leading_to(0, cls, (void *)(uintptr_t)64);
}

static void take_one(struct sleeper *s)
{
	(void)s;
	take(20);
}

/* As what was gathered for a thread while its slab became another's. */
Test(freelist_home, what_came_to_the_wrong_thread_goes_on)
{
	struct qy_heap *of;
	void *p;

	start("freelist_home");
	make(&a, come);
	take(20);
	drain(20);
	make(&a, take_one);
	p = forget_block(count - 1);
	of = atomic_load(&qy_slab_of(p)->heap);
	cr_assert_neq(of, &cache()->heap);
	qy_heap_send(&cache()->heap, p, p);
	take_by_refill(20);
	cr_assert(qy_heap_has_mail(of));
	cr_assert_eq(mistakes(), 0);
	check_places(0);
	check_blocks();
	end(&a);
}

static void report(bool to_nowhere)
{
	static int saved;

	if (to_nowhere) {
		int nowhere = open("/dev/null", O_WRONLY);

		saved = dup(2);
		dup2(nowhere, 2);
		close(nowhere);
	} else {
		dup2(saved, 2);
		close(saved);
	}
	cr_assert_eq(quarry_ctl_set("on_error", to_nowhere ? "report" : "ignore"), 0);
}

/* Where mistakes are looked for, what comes home goes into slabs, whose lists are checked. The last of the list is
 * none of those in the circle: sending it would break that open. */
Test(freelist_home, where_mistakes_are_looked_for_what_others_freed_twice_is_noticed)
{
	uint32_t lost = 0;

	start("freelist_home");
	report(true);
	make(&a, come);
	for (unsigned i = 0; i < SOME; i++)
		for (uint32_t between = 0; between < 4; between++) {
			unsigned cls = some_classes[i];
			uint64_t before = mistakes();

			take_many(cls, qy_classes[cls].keep + 6 * qy_classes[cls].capacity);
			drain(cls);
			for (sent_count = 0; sent_count < 2 + between; sent_count++)
				sent[sent_count] = forget_block(model_below(count));
			sent[sent_count++] = sent[1];
			make(&a, free_sent);
			take_many(cls, 2 * qy_classes[cls].capacity);
			lost += between + 2;
			check_places(lost);
			check_blocks();
			model_must(mistakes() > before, "class %u, %u in between: not noticed", cls, between);
			free_all();
		}
	report(false);
	end(&a);
}

/* ---- several threads that free each other's ---- */

static uint32_t burst;

static void play_some(struct sleeper *s)
{
	unsigned cls = model_below(QY_CLASSES);

	(void)s;
	if (model_below(BLOCKS / 20) > count)
		take_many(cls, 1 + model_below(burst));
	else
		for (uint32_t n = 1 + model_below(burst); n > 0 && count > 0; n--)
			quarry_free(forget_block(model_below(count)));
	switch (model_below(60)) {
	case 0:
		quarry_thread_flush();
		break;
	case 1:
		quarry_purge(NULL);
		break;
	case 2:
		atomic_fetch_add(&qy_reclaim_round, 1);
		break;
	case 3:
		refill_entering(model_one_in(2));
		break;
	}
}

static void free_half(struct sleeper *s)
{
	(void)s;
	for (uint32_t n = count / 2; n > 0; n--)
		quarry_free(forget_block(model_below(count)));
}

/* One at a time does something, so that it can be looked at in between. */
static void play_together(uint32_t rounds, uint32_t check_each)
{
	for (uint32_t i = 0; i < rounds; i++) {
		switch (model_below(3)) {
		case 0:
			play_some(NULL);
			break;
		case 1:
			make(&a, play_some);
			break;
		default:
			make(&b, play_some);
		}
		if (i % check_each == 0)
			check_places(0);
	}
	check_blocks();
}

Test(freelist_home, threads_free_each_others_and_each_object_is_in_one_place, .timeout = 240)
{
	start("freelist_home");
	answer(0, 0);
	burst = 10;
	play_together(1500, 1);
	burst = 300;
	play_together(3000, 50);
	make(&a, free_half);
	free_all();
	check_places(0);
	quarry_thread_flush();
	make(&a, flush);
	make(&b, flush);
	quarry_thread_flush();
	check_places(0);
	cr_assert(has_nothing_listed(qy_tls.thread) && has_nothing_listed(a.record) && has_nothing_listed(b.record));
	answer(1, 1);
	quarry_purge(NULL);
	cr_assert_eq(used(), 0);
	cr_assert_eq(mistakes(), 0);
	end(&a);
	end(&b);
}

/* ---- giving up ---- */

static void free_all_of_it(struct sleeper *s)
{
	(void)s;
	free_all();
}

/* Some of the lists are full, long, and empty; slabs were turned. Nothing is the program's at the end. */
static void fill_lists(struct sleeper *s)
{
	burst = 300;
	for (int i = 0; i < 600; i++)
		play_some(s);
	free_all();
	quarry_thread_flush();
	for (unsigned i = 0; i < SOME; i++)
		take_many(some_classes[i], 3 * qy_classes[some_classes[i]].capacity);
	free_all();
	for (unsigned i = 0; i < SOME; i++)
		model_must(freed_list(some_classes[i])->was_full && freed_list(some_classes[i])->head != NULL, "%u", i);
}

Test(freelist_home, purge_leaves_nothing)
{
	start("freelist_home");
	fill_lists(NULL);
	cr_assert_not(has_nothing_listed(qy_tls.thread));
	cr_assert_gt(used(), 0);
	quarry_purge(NULL);
	check_places(0);
	cr_assert(has_nothing_listed(qy_tls.thread));
	cr_assert_eq(used(), 0);
	take_many(3, 10);
	check_places(0);
}

Test(freelist_home, nor_does_a_thread_that_sleeps)
{
	start("freelist_home");
	make(&a, fill_lists);
	cr_assert_not(has_nothing_listed(a.record));
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(state_of(a.record), QY_TURNED | QY_EMPTY);
	cr_assert(has_nothing_listed(a.record));
	quarry_purge(NULL);
	cr_assert_eq(used(), 0);
	/* And it begins again with nothing. */
	make(&a, fill_lists);
	check_places(0);
	end(&a);
}

/* What it freed is on its lists when another frees the rest, which goes to orphans when the thread is given up. */
Test(freelist_home, nor_one_that_sleeps_with_half_of_it_out)
{
	start("freelist_home");
	burst = 300;
	make(&a, come);
	for (int i = 0; i < 100; i++)
		make(&a, play_some);
	make(&a, free_half);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert(has_nothing_listed(a.record));
	check_blocks();
	make(&b, free_all_of_it);
	make(&b, flush);
	quarry_purge(NULL);
	cr_assert_eq(used(), 0);
	cr_assert_eq(mistakes(), 0);
	end(&a);
	end(&b);
}

Test(freelist_home, nor_one_that_ended)
{
	start("freelist_home");
	make(&a, fill_lists);
	end(&a);
	cr_assert_gt(used(), 0);
	quarry_purge(NULL);
	cr_assert_eq(used(), 0);
}

/* A thread that ends leaves its lists to the next one as they are. */
static void take_ten(struct sleeper *s)
{
	(void)s;
	for (unsigned i = 0; i < SOME; i++)
		take_many(some_classes[i], 10 + qy_classes[some_classes[i]].keep_max);
}

Test(freelist_home, who_takes_over_from_one_that_ended_has_its_lists)
{
	struct qy_thread *was;

	start("freelist_home");
	make(&a, fill_lists);
	was = a.record;
	end(&a);
	a.record = NULL;
	make(&b, take_ten);
	cr_assert_eq(b.record, was);
	check_places(0);
	check_blocks();
	free_all();
	end(&b);
	quarry_purge(NULL);
	cr_assert_eq(used(), 0);
}

/* What others had gathered for the thread comes to it when they are given up, which is after it gave up its own. */
static void purge(void)
{
	quarry_purge(NULL);
	quarry_purge(NULL);
}

/* The exit status of a child that does so. */
static int in_child(bool (*what)(void))
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0)
		_exit(!what());
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool free_and_purge(void)
{
	free_all();
	purge();
	return has_nothing_listed(qy_tls.thread) && used() == 0 && mistakes() == 0;
}

static bool go_on_and_purge(void)
{
	for (int i = 0; i < 1000; i++)
		play_some(NULL);
	check_blocks();
	return free_and_purge();
}

Test(freelist_home, nor_does_a_forked_child)
{
	start("freelist_home");
	answer(0, 0);
	burst = 200;
	play_together(600, 100);
	cr_assert_eq(in_child(free_and_purge), 0);
	cr_assert_eq(in_child(go_on_and_purge), 0);
	check_places(0);
	play_together(100, 10);
	answer(1, 1);
	free_all();
	purge();
	cr_assert_eq(used(), 0);
	end(&a);
	end(&b);
}

#define DUE 3 /* 64 bytes */

static void take_slabs(struct sleeper *s)
{
	(void)s;
	take_many(DUE, 20 * qy_classes[DUE].capacity);
}

static void free_each(struct sleeper *s)
{
	(void)s;
	free_all();
}

/* A thread that frees what others made, and makes nothing, takes in what they send it nevertheless. */
Test(freelist_home, who_only_frees_takes_in_what_comes)
{
	struct qy_heap *of;

	start("freelist_home");
	make(&a, take_slabs);
	of = &a.record->caches->heap;
	free_all();
	quarry_thread_flush();
	cr_assert(qy_heap_has_mail(of));
	for (int i = 0; i < 4; i++) {
		take_many(DUE, BLOCKS - 1);
		make(&a, free_each);
	}
	cr_assert_not(qy_heap_has_mail(of));
	end(&a);
}

#define PARTS 7

static uint64_t took_in[4];
static uint64_t part[PARTS]; /* of one look after the other that filed some */
static unsigned looks;       /* until the first of them */

/* Returns what the heap has taken in by then. */
static uint64_t look_while_freeing(struct qy_heap *h)
{
	struct qy_thread *t = qy_thread_enter();

	qy_duties_of_freeing(t);
	qy_thread_leave(t);
	return qy_read(&h->remote_received);
}

static uint64_t make_until_some_comes(struct qy_heap *h)
{
	uint64_t before = qy_read(&h->remote_received);

	while (qy_read(&h->remote_received) == before)
		take(DUE);
	return qy_read(&h->remote_received);
}

static void make_and_look(struct sleeper *s)
{
	struct qy_heap *h = &s->record->caches->heap;

	uint64_t before = took_in[0] = make_until_some_comes(h), now;

	for (looks = 0; looks < 1000 && (now = look_while_freeing(h)) == before;)
		looks++;
	for (int i = 0; i < PARTS; i++, now = look_while_freeing(h)) {
		part[i] = now - before;
		before = now;
	}
	/* Of the same list, which is long. */
	took_in[1] = make_until_some_comes(h);
	for (int i = 0; i < 8; i++)
		took_in[2] = look_while_freeing(h);
	/* Nothing is there: looks at that do not count. */
	qy_heap_receive(h);
	for (int i = 0; i < 50; i++)
		took_in[3] = look_while_freeing(h);
}

static void look_a_little(struct sleeper *s)
{
	for (int i = 0; i < 8; i++)
		took_in[1] = look_while_freeing(&s->record->caches->heap);
}

/* One that makes some takes in what comes then, and its frees are not kept waiting by it; until it has made no more for
 * a while, and then by little at first. */
Test(freelist_home, who_makes_some_takes_in_what_comes_when_it_does)
{
	start("freelist_home");
	make(&a, take_slabs);
	free_all();
	quarry_thread_flush();
	make(&a, make_and_look);
	cr_assert_eq(looks, 8);
	/* (A run of one unit is filed whole: of those that were gathered together, at most.) */
	for (uint32_t i = 0, least = 8; i < PARTS; i++, least = qy_min(2 * least, QY_MAIL_STEP))
		cr_assert(part[i] >= least && part[i] < least + 64, "%u: %" PRIu64, i, part[i]);
	cr_assert_eq(took_in[2], took_in[1]);
	cr_assert_not(qy_heap_has_mail(&a.record->caches->heap));
	free_all();
	quarry_thread_flush();
	cr_assert(qy_heap_has_mail(&a.record->caches->heap));
	make(&a, look_a_little);
	cr_assert_lt(took_in[1] - took_in[3], QY_MAIL_STEP / 2);
	end(&a);
}

/* What a flush puts back of a list has a bound, and this is more. */
static void take_over(struct sleeper *s)
{
	(void)s;
	take(DUE);
	free_all();
	quarry_thread_flush();
}

static bool take_over_and_purge(void)
{
	struct qy_thread *was = a.record;

	/* (It would count down from there: to nothing in a long time.) */
	if (was->caches->quick == 0 || was->caches->freed[DUE].room == 0)
		return false;
	make(&b, take_over);
	if (b.record != was)
		return false;
	end(&b);
	purge();
	return used() == 0 && mistakes() == 0;
}

/* A thread had counted down, and was about to enter, when another one forked. */
Test(freelist_home, what_was_due_at_a_fork_is_so_in_the_child)
{
	struct qy_cache *c;
	struct qy_slab *s;
	uint32_t i = 0;

	start("freelist_home");
	make(&a, take_slabs);
	c = a.record->caches;
	s = c->heap.full.first;
	cr_assert_not_null(s);
	while (qy_slab_of(blocks[i].p) != s)
		i++;
	s->local = forget_block(i);
	qy_link_object(s->local, NULL);
	s->countdown = 0;
	c->freed[DUE].room = 0;
	c->quick = 0;
	cr_assert_eq(in_child(take_over_and_purge), 0);
	/* (Here it goes on.) */
	c->freed[DUE].room = c->freed[DUE].most;
	c->quick = 1;
	qy_heap_note_due(&c->heap);
	free_all();
	end(&a);
	purge();
	cr_assert_eq(used(), 0);
}

/* ---- arenas ---- */

#define ARENAS 3

static quarry_arena *arenas[ARENAS];

static void check_list_of(const struct qy_cache *c, const void *list)
{
	for (const void *p = list; p != NULL; p = qy_next_object((void *)p))
		model_must(qy_manager_of(p) == c->heap.manager, "%p is of another arena than the list", p);
}

/* Each list leads through the memory of its own arena, and what a thread frees in one that can be destroyed is not
 * listed at all. */
static void check_lists_of(const struct qy_thread *t)
{
	for (const struct qy_cache *c = t->caches; c != NULL; c = c->next)
		for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
			check_list_of(c, c->head[cls]);
			check_list_of(c, c->freed[cls].head);
		}
}

static void check_lists(void)
{
	check_lists_of(qy_tls.thread);
	check_lists_of(a.record);
	check_lists_of(b.record);
}

Test(freelist_home, what_a_thread_frees_in_an_arena_is_in_no_list)
{
	start("freelist_home");
	arenas[0] = quarry_arena_create(NULL);
	for (unsigned i = 0; i < SOME; i++) {
		size_t size = qy_classes[some_classes[i]].size;

		for (uint32_t n = 3 * qy_classes[some_classes[i]].capacity; n > 0; n--)
			add_block(quarry_arena_malloc(arenas[0], size), size);
	}
	quarry_free(quarry_malloc(1));
	free_all();
	for (const struct qy_cache *c = qy_tls.thread->caches; c != NULL; c = c->next)
		for (unsigned cls = 0; cls < QY_CLASSES; cls++)
			if (!c->heap.manager->of_node)
				cr_assert_null(c->freed[cls].head);
	check_lists_of(qy_tls.thread);
	check_places(0);
	cr_assert_eq(quarry_arena_destroy(arenas[0]), 0);
	check_places(0);
}

static void take_in_arenas(uint32_t n)
{
	for (; n > 0 && count < BLOCKS; n--) {
		size_t size = qy_classes[some_classes[model_below(SOME)]].size;
		quarry_arena *arena = model_one_in(4) ? NULL : arenas[model_below(ARENAS)];

		add_block(quarry_arena_malloc(arena, size), size);
	}
}

static void play_in_arenas(struct sleeper *s)
{
	(void)s;
	if (model_below(3000) > count)
		take_in_arenas(1 + model_below(200));
	else
		for (uint32_t n = 1 + model_below(300); n > 0 && count > 0; n--)
			quarry_free(forget_block(model_below(count)));
	if (model_one_in(30))
		quarry_thread_flush();
}

/* It ends, or is emptied, and what the program had in it is no more. */
static void end_arena(unsigned n)
{
	bool destroy = model_one_in(2);

	for (uint32_t i = 0; i < count;)
		if (quarry_arena_of(blocks[i].p) == arenas[n])
			forget_block(i);
		else
			i++;
	cr_assert_eq(destroy ? quarry_arena_destroy(arenas[n]) : quarry_arena_reset(arenas[n]), 0);
	check_lists();
	if (destroy)
		arenas[n] = quarry_arena_create(NULL);
	cr_assert_not_null(arenas[n]);
}

Test(freelist_home, no_list_outlives_its_arena, .timeout = 120)
{
	start("freelist_home");
	answer(0, 0);
	for (unsigned i = 0; i < ARENAS; i++)
		arenas[i] = quarry_arena_create(NULL);
	make(&a, come);
	make(&b, come);
	for (int i = 0; i < 1500; i++) {
		switch (model_below(3)) {
		case 0:
			play_in_arenas(NULL);
			break;
		case 1:
			make(&a, play_in_arenas);
			break;
		default:
			make(&b, play_in_arenas);
		}
		check_lists();
		if (model_one_in(40))
			end_arena(model_below(ARENAS));
	}
	check_blocks();
	cr_assert_eq(mistakes(), 0);
	end(&a);
	end(&b);
}

static void choose(struct sleeper *s)
{
	(void)s;
	cr_assert_eq(quarry_thread_set_arena(arenas[0], NULL), 0);
}

static void choose_none(struct sleeper *s)
{
	(void)s;
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
}

/* A thread that has chosen it for all that it allocates. */
Test(freelist_home, nor_that_of_a_thread_which_has_chosen_it)
{
	uint64_t before;

	start("freelist_home");
	for (unsigned i = 0; i < ARENAS; i++)
		arenas[i] = quarry_arena_create(NULL);
	answer(0, 0);
	make(&b, come);
	before = used();
	make(&a, choose);
	burst = 300;
	for (int i = 0; i < 200; i++)
		make(&a, play_some);
	cr_assert_eq(used(), before, "it is all in the arena");
	for (int i = 0; i < 20; i++) {
		make(model_one_in(2) ? &b : &a, free_half);
		make(&a, play_some);
		check_lists();
	}
	make(&a, choose_none);
	end_arena(0);
	make(&a, play_some);
	make(&a, fill_lists);
	check_lists();
	check_places(0);
	cr_assert_eq(mistakes(), 0);
	end(&a);
	end(&b);
}
