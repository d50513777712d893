/* SPDX-License-Identifier: MIT */
/* Views of what lives (quarry_view_open) against a plain list of it: objects of all sizes and large blocks, arenas, what
 * lies in threads' caches and on its way home, mixed slabs; what a visit is told of, and in which order; finding;
 * arenas that end; forks; wrong arguments. (While threads go on: tests/stress/views.c.) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/manager/snapshot.h"
#include "numa/os.h"
#include "tests/unit/model.h"

#define MOST 200000
#define MIB ((size_t)1 << 20)

static struct block {
	char *p;
	size_t asked, size;
	quarry_arena *arena;
} blocks[MOST];
static size_t count;

static void add(quarry_arena *arena, size_t size)
{
	struct block *b = &blocks[count++];

	cr_assert(count <= MOST);
	b->p = arena == NULL ? quarry_malloc(size) : quarry_arena_malloc(arena, size);
	cr_assert_not_null(b->p);
	b->asked = size;
	b->size = quarry_usable_size(b->p);
	b->arena = arena == NULL ? quarry_arena_of(b->p) : arena;
}

static void drop(size_t i)
{
	quarry_free(blocks[i].p);
	blocks[i] = blocks[--count];
}

static void drop_all(void)
{
	while (count > 0)
		drop(count - 1);
}

static int by_address(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	return x->p < y->p ? -1 : x->p > y->p;
}

/* ---- a view beside the list ---- */

static struct {
	size_t live, cached, free_ones, slabs, regions, of_slab, live_of_slab, cached_of_slab;
	const char *end, *region_end, *slab_end;
	uint64_t cached_bytes;
	size_t slab_live, slab_cached, slab_objects;
} told;

static void end_slab(void)
{
	cr_assert_eq(told.of_slab, told.slab_objects);
	cr_assert_eq(told.live_of_slab, told.slab_live);
	cr_assert_eq(told.cached_of_slab, told.slab_cached);
	told.of_slab = told.live_of_slab = told.cached_of_slab = 0;
	told.slab_objects = told.slab_live = told.slab_cached = 0;
}

static void begin_slab(const quarry_view_item *item)
{
	const char *p = item->address;

	end_slab();
	told.slabs++;
	told.slab_end = p + item->size;
	told.slab_objects = item->objects;
	told.slab_live = item->live;
	told.slab_cached = item->cached;
	cr_assert_leq(item->live + item->cached, item->objects);
	if (item->object_size != 0)
		cr_assert_eq(item->live_bytes, item->live * item->object_size);
}

static void note_object(const quarry_view_item *item)
{
	told.of_slab++;
	told.live_of_slab += item->state == QUARRY_VIEW_LIVE;
	told.cached_of_slab += item->state == QUARRY_VIEW_CACHED;
	told.cached += item->state == QUARRY_VIEW_CACHED;
	told.cached_bytes += item->state == QUARRY_VIEW_CACHED ? item->size : 0;
	told.free_ones += item->state == QUARRY_VIEW_FREE;
}

static int check(const quarry_view_item *item, void *ctx)
{
	const char *p = item->address;
	const struct block *b = &blocks[told.live];

	(void)ctx;
	cr_assert_eq(item->struct_size, sizeof(*item));
	switch (item->kind) {
	case QUARRY_VIEW_REGION:
		cr_assert(p >= told.region_end);
		told.region_end = p + item->size;
		told.regions++;
		return 0;
	case QUARRY_VIEW_SLAB:
		cr_assert(p >= told.end && p + item->size <= told.region_end);
		begin_slab(item);
		return 0;
	case QUARRY_VIEW_OBJECT:
		cr_assert(p + item->size <= told.slab_end);
		note_object(item);
		break;
	default:
		cr_assert_eq(item->kind, QUARRY_VIEW_BLOCK);
		cr_assert_eq(item->state, QUARRY_VIEW_LIVE);
	}
	cr_assert(p >= told.end && p + item->size <= told.region_end, "%p overlaps", item->address);
	told.end = p + item->size;
	if (item->state != QUARRY_VIEW_LIVE)
		return 0;
	cr_assert_lt(told.live, count, "%p of %zu bytes does not live", item->address, item->size);
	cr_assert_eq(p, b->p, "%p is told of, %p is next", item->address, (void *)b->p);
	cr_assert_eq(item->size, b->size);
	cr_assert_eq(item->arena, b->arena);
	cr_assert_eq(item->kind == QUARRY_VIEW_BLOCK, b->size > 32768);
	told.live++;
	return 0;
}

/* (A thread may not come to be seen within a second on a machine that is very busy.) */
static quarry_view *open_exact(quarry_view_report *report)
{
	for (int tries = 1;; tries++) {
		quarry_view *v = quarry_view_open();

		cr_assert_not_null(v);
		report->struct_size = sizeof(*report);
		cr_assert_eq(quarry_view_report_get(v, report), 0);
		if (report->exact || report->unsettled == 0 || tries == 3)
			return v;
		fprintf(stderr, "%u threads could not be seen: once more\n", report->unsettled);
		quarry_view_close(v);
	}
}

static void look(void)
{
	quarry_view_report report;
	quarry_view *v = open_exact(&report);

	qsort(blocks, count, sizeof(blocks[0]), by_address);
	memset(&told, 0, sizeof(told));
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_REGION | QUARRY_VIEW_SLAB | QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK,
				       check, NULL), 0);
	end_slab();
	cr_assert_eq(report.exact, 1);
	cr_assert_eq(told.live, count);
	cr_assert_eq(report.objects + report.blocks, count);
	cr_assert_eq(report.cached, told.cached);
	cr_assert_eq(report.cached_bytes, told.cached_bytes);
	cr_assert_eq(report.regions, told.regions);
	cr_assert_eq(report.slabs, told.slabs);
	for (size_t i = 0; i < count; i += 1 + count / 1000) {
		quarry_view_item item;

		cr_assert_eq(quarry_view_find(v, blocks[i].p + model_below((uint32_t)blocks[i].asked), &item, sizeof(item)), 0);
		cr_assert_eq(item.address, blocks[i].p);
		cr_assert_eq(item.size, blocks[i].size);
		cr_assert_eq(item.state, QUARRY_VIEW_LIVE);
		cr_assert_eq(item.kind, blocks[i].size > 32768 ? QUARRY_VIEW_BLOCK : QUARRY_VIEW_OBJECT);
	}
	quarry_view_close(v);
}

static size_t some_size(void)
{
	return model_one_in(200) ? model_size(6 * MIB) : model_one_in(10) ? model_size(32768) : model_size(1024);
}

/* ---- tests ---- */

Test(view, of_a_model)
{
	quarry_arena_attr attr = { .name = "other" };
	quarry_arena *other = quarry_arena_create(&attr);

	model_start("of_a_model");
	look();
	for (int round = 0; round < 20; round++) {
		for (int n = 0; n < 8000; n++) {
			if (count > 0 && model_below(100) < (round % 2 ? 70u : 30u))
				drop(model_below((uint32_t)count));
			else
				add(model_one_in(4) ? other : NULL, some_size());
		}
		if (round % 5 == 4)
			quarry_thread_flush();
		if (round % 7 == 6)
			quarry_purge(NULL);
		look();
	}
	drop_all();
	look();
	cr_assert_eq(quarry_arena_destroy(other), 0);
}

/* Blocks that grow and shrink where they are, and that move. */
Test(view, of_blocks_that_change_their_size)
{
	model_start("of_blocks_that_change_their_size");
	for (int i = 0; i < 30; i++)
		add(NULL, 40000 + model_below(3 * MIB));
	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < count; i++) {
			blocks[i].asked = 40000 + model_below(5 * MIB);
			blocks[i].p = quarry_realloc(blocks[i].p, blocks[i].asked);
			cr_assert_not_null(blocks[i].p);
			blocks[i].size = quarry_usable_size(blocks[i].p);
		}
		look();
	}
}

/* Most of what was made is freed, and other sizes are made in the gaps. */
Test(view, of_mixed_slabs)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	model_start("of_mixed_slabs");
	for (int i = 0; i < 100000; i++)
		add(NULL, 100);
	for (size_t i = 0; i < count;)
		if (model_below(10) != 0)
			drop(i);
		else
			i++;
	look();
	quarry_thread_flush();
	quarry_purge(NULL);
	look();
	for (int i = 0; i < 20000; i++)
		add(NULL, 180 + model_below(300));
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	cr_assert_gt(stats.mixed, 0);
	look();
	for (int i = 0; i < 10000; i++)
		drop(model_below((uint32_t)count));
	look();
	quarry_thread_flush();
	quarry_purge(NULL);
	look();
}

/* ---- other threads ---- */

static sem_t begun, go_on;

/* What it makes stays in its cache when it frees it, or goes home to the first thread's. */
static void *live_beside(void *ctx)
{
	void *own[300];

	(void)ctx;
	for (int i = 0; i < 300; i++)
		own[i] = quarry_malloc(200);
	for (int i = 0; i < 300; i++)
		quarry_free(own[i]);
	for (int i = 0; i < 1000; i++)
		drop(model_below((uint32_t)count));
	sem_post(&begun);
	sem_wait(&go_on);
	return NULL;
}

Test(view, of_what_other_threads_hold)
{
	pthread_t thread;

	model_start("of_what_other_threads_hold");
	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	for (int i = 0; i < 5000; i++)
		add(NULL, model_size(500));
	cr_assert_eq(pthread_create(&thread, NULL, live_beside, NULL), 0);
	sem_wait(&begun);
	look();
	/* 300 of its own, and what it freed of the first thread's: none of it is anybody's to have yet. */
	cr_assert_geq(told.cached, 1300);
	look();
	sem_post(&go_on);
	pthread_join(thread, NULL);
	look();
	for (int i = 0; i < 3000; i++)
		add(NULL, model_size(500));
	look();
}

/* ---- at each step ---- */

/* Each time that the clock is looked at by who makes the view is a step: at one of them, after the moment, another thread
 * does something, which the view must not tell of. */
enum deed { MAKE, PREPARE, FLUSH, TAKE, FREE, FREE_AND_FLUSH, RESIZE, DEEDS };

#define OWN_ONES 400
#define TAKEN 3000
#define OTHERS 100
#define GIFTS 2000 /* it makes them, and the first thread frees them, but for */
#define PASSED 40  /* which the other one frees */
#define DOERS 2
#define STEPS 100 /* (there are more where the maker waits for its turn) */

static struct doer {
	pthread_t thread;
	sem_t go, done;
	enum deed deed;
	bool end;
	void *own[TAKEN];
	void *others[OTHERS]; /* the first thread's, for it to free */
	void *gifts[GIFTS];
	char *large;          /* likewise, to resize */
} doers[DOERS];

static struct {
	struct qy_os os;
	const struct qy_os *before;
	pthread_t maker;
	struct doer *doer;
	int step, steps;
	bool late; /* the deed had not come to its end soon: its thread was held */
} play;

static void free_others(struct doer *d)
{
	for (int i = 0; i < OTHERS; i++)
		quarry_free(d->others[i]);
}

static void take(struct doer *d, int n)
{
	for (int i = 0; i < n; i++)
		d->own[i] = quarry_malloc(16 + (size_t)i * 37 % (n == TAKEN ? 300 : 700));
}

static void do_deed(struct doer *d)
{
	switch (d->deed) {
	case MAKE:
		for (int i = 0; i < GIFTS; i++)
			d->gifts[i] = quarry_malloc(16 + (size_t)i * 53 % 300);
		break;
	case PREPARE: /* something in its cache, and something gathered for the others */
		take(d, OWN_ONES);
		for (int i = 0; i < OWN_ONES; i++)
			quarry_free(d->own[i]);
		free_others(d);
		for (int i = 0; i < PASSED; i++)
			quarry_free(doers[d == doers].gifts[i]);
		break;
	case FLUSH:
		quarry_thread_flush();
		break;
	case TAKE:
		take(d, TAKEN);
		break;
	case FREE_AND_FLUSH:
		free_others(d);
		quarry_thread_flush();
		break;
	case FREE:
		free_others(d);
		break;
	default:
		d->large = quarry_realloc(d->large, quarry_usable_size(d->large) / 2 + 100000);
	}
}

static void *do_deeds(void *doer)
{
	struct doer *d = doer;

	for (sem_wait(&d->go); !d->end; sem_wait(&d->go)) {
		do_deed(d);
		sem_post(&d->done);
	}
	return NULL;
}

/* (It may be held right now: then it is done a little later.) */
static void have_done(struct doer *d)
{
	struct timespec soon;

	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_nsec += 20000000;
	soon.tv_sec += soon.tv_nsec / 1000000000;
	soon.tv_nsec %= 1000000000;
	sem_post(&d->go);
	play.late = sem_timedwait(&d->done, &soon) != 0;
}

static uint64_t look_at_clock(void)
{
	if (pthread_equal(pthread_self(), play.maker) && qy_snapshot_of_now() != NULL && play.steps++ == play.step)
		have_done(play.doer);
	return play.before->now_ns();
}

static void have(struct doer *d, enum deed deed)
{
	d->deed = deed;
	sem_post(&d->go);
	sem_wait(&d->done);
}

static void have_prepared(struct doer *d)
{
	for (int i = 0; i < OTHERS; i++) {
		size_t n = model_below((uint32_t)count);

		d->others[i] = blocks[n].p;
		blocks[n] = blocks[--count];
	}
	have(d, PREPARE);
	for (int i = PASSED; i < GIFTS; i++)
		quarry_free(d->gifts[i]);
}

static size_t index_of(const void *p)
{
	for (size_t i = 0; i < count; i++)
		if (blocks[i].p == p)
			return i;
	cr_assert_fail("%p is no block (deed %d, step %d of %d)", p, (int)play.doer->deed, play.step, play.steps);
	return 0;
}

/* What was true until the deed, and what is from then on. False when the view was made in fewer steps. */
static bool at_step(int step, enum deed deed, struct doer *d)
{
	char *large = blocks[count - 1].p;

	for (size_t i = 0; i < OTHERS; i++)
		d->others[i] = blocks[(count - 1) / OTHERS * i].p;
	d->large = large;
	d->deed = deed;
	play.step = step;
	play.steps = 0;
	play.doer = d;
	play.late = false;
	qy_os = &play.os;
	look();
	qy_os = play.before;
	if (play.late)
		sem_wait(&d->done);
	if (play.steps <= step)
		return false;
	for (size_t i = 0; i < OTHERS && (deed == FREE || deed == FREE_AND_FLUSH); i++) {
		size_t n = index_of(d->others[i]);

		blocks[n] = blocks[--count];
	}
	for (int i = 0; i < TAKEN && deed == TAKE; i++)
		quarry_free(d->own[i]);
	if (deed == RESIZE) {
		struct block *b = &blocks[index_of(large)];

		b->p = d->large;
		b->size = b->asked = quarry_usable_size(d->large);
	}
	return true;
}

static void try_steps(enum deed deed)
{
	bool more = true;

	for (int step = 0; more && step < STEPS; step += 1 + (int)model_below(2)) {
		while (count > 1500)
			drop(model_below((uint32_t)count));
		while (count < 2000)
			add(NULL, 16 + model_below(700));
		for (int i = 0; i < DOERS; i++)
			have(&doers[i], MAKE);
		for (int i = 0; i < DOERS; i++)
			have_prepared(&doers[i]);
		if (model_one_in(2))
			quarry_thread_flush();
		add(NULL, 100000 + model_below(3 * MIB));
		more = at_step(step, deed, &doers[model_below(DOERS)]);
	}
	look();
}

Test(view, is_of_one_moment_whatever_is_done_at_each_step)
{
	model_start("is_of_one_moment_whatever_is_done_at_each_step");
	play.before = qy_os;
	play.os = *qy_os;
	play.os.now_ns = look_at_clock;
	play.maker = pthread_self();
	for (int i = 0; i < DOERS; i++) {
		sem_init(&doers[i].go, 0, 0);
		sem_init(&doers[i].done, 0, 0);
		cr_assert_eq(pthread_create(&doers[i].thread, NULL, do_deeds, &doers[i]), 0);
	}
	for (int deed = FLUSH; deed < DEEDS; deed++)
		try_steps((enum deed)deed);
	for (int i = 0; i < DOERS; i++) {
		doers[i].end = true;
		sem_post(&doers[i].go);
		pthread_join(doers[i].thread, NULL);
	}
}

/* ---- what is there to be looked at grows, or leads round ---- */

#define LARGE ((size_t)3 << 30) /* nothing of it is touched */

static bool grow;

static void *map_and_grow(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *p = play.before->mmap(addr, len, prot, flags, fd, off);

	/* (Where the marks are mapped: what is claimed from here on came later.) */
	if (grow && (flags & MAP_NORESERVE) != 0 && len > MIB) {
		struct block *b = &blocks[count];

		b->asked = LARGE;
		b->p = quarry_malloc(LARGE);
		b->size = quarry_usable_size(b->p);
		b->arena = quarry_arena_of(b->p);
		count += b->p != NULL;
	}
	grow = grow && len <= MIB;
	return p;
}

Test(view, of_a_heap_that_grows_before_the_moment)
{
	size_t claimed;

	model_start("of_a_heap_that_grows_before_the_moment");
	for (int i = 0; i < 1000; i++)
		add(NULL, some_size());
	play.before = qy_os;
	play.os = *qy_os;
	play.os.mmap = map_and_grow;
	grow = true;
	claimed = qy_window_claimed();
	qy_os = &play.os;
	look();
	qy_os = play.before;
	cr_assert(!grow);
	if (qy_window_claimed() <= claimed + QY_ZONE)
		cr_skip_test("there is no address space of 3 GiB to be had");
}

static int count_live(const quarry_view_item *item, void *n)
{
	*(size_t *)n += item->state == QUARRY_VIEW_LIVE;
	return 0;
}

/* What others freed twice makes a circle of what waits for its owner. */
Test(view, of_a_list_that_leads_round, .timeout = 30)
{
	quarry_view_report report = { .struct_size = sizeof(report) };
	struct doer *d = &doers[0];
	quarry_view *v;
	size_t n = 0;

	model_start("of_a_list_that_leads_round");
	sem_init(&d->go, 0, 0);
	sem_init(&d->done, 0, 0);
	cr_assert_eq(pthread_create(&d->thread, NULL, do_deeds, d), 0);
	have(d, MAKE);
	quarry_free(d->gifts[0]);
	quarry_free(d->gifts[1]);
	quarry_free(d->gifts[2]);
	quarry_free(d->gifts[1]);
	quarry_thread_flush();
	v = quarry_view_open();
	cr_assert_not_null(v);
	cr_assert_eq(quarry_view_report_get(v, &report), 0);
	cr_assert_eq(report.exact, 0);
	cr_assert_gt(report.missed, 0);
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_OBJECT, count_live, &n), 0);
	cr_assert_geq(n, GIFTS - 3);
	quarry_view_close(v);
}

/* A thread that computes is not waited for in vain, nor is one that was never seen. */
static atomic_bool over;

static void *compute(void *ctx)
{
	quarry_free(quarry_malloc(100));
	sem_post(ctx);
	while (!atomic_load(&over)) {
	}
	return NULL;
}

Test(view, beside_a_thread_that_computes)
{
	pthread_t thread;

	model_start("beside_a_thread_that_computes");
	sem_init(&begun, 0, 0);
	add(NULL, 100);
	cr_assert_eq(pthread_create(&thread, NULL, compute, &begun), 0);
	sem_wait(&begun);
	look();
	atomic_store(&over, true);
	pthread_join(thread, NULL);
}

/* ---- what ends meanwhile, and children ---- */

static int end_arena(const quarry_view_item *item, void *arena)
{
	(void)item;
	cr_assert_eq(quarry_arena_destroy(*(quarry_arena **)arena), 0);
	return 17;
}

Test(view, stays_as_it_was)
{
	quarry_arena_attr attr = { .name = "gone" };
	quarry_arena *gone = quarry_arena_create(&attr);
	quarry_view_item item;
	quarry_view *v;
	void *p, *q;

	p = quarry_arena_malloc(gone, 100);
	q = quarry_malloc(100);
	v = quarry_view_open();
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_OBJECT, end_arena, &gone), 17);
	quarry_free(q);
	cr_assert_eq(quarry_view_find(v, p, &item, sizeof(item)), 0);
	cr_assert_str_eq(item.arena_name, "gone");
	cr_assert_eq(quarry_view_find(v, q, &item, sizeof(item)), 0);
	cr_assert_eq(item.state, QUARRY_VIEW_LIVE);
	quarry_view_close(v);
	v = quarry_view_open();
	cr_assert_eq(quarry_view_find(v, p, &item, sizeof(item)), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert(quarry_view_find(v, q, &item, sizeof(item)) == 0 ? item.state != QUARRY_VIEW_LIVE : errno == ENOENT);
	quarry_view_close(v);
}

Test(view, in_a_forked_child)
{
	quarry_view *v;
	int status;
	pid_t pid;

	model_start("in_a_forked_child");
	for (int i = 0; i < 3000; i++)
		add(NULL, some_size());
	v = quarry_view_open();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		quarry_view_item item;
		bool found = quarry_view_find(v, blocks[0].p, &item, sizeof(item)) == 0 && item.address == blocks[0].p;

		quarry_view_close(v);
		for (int i = 0; i < 1000; i++)
			drop(model_below((uint32_t)count));
		look();
		_exit(found ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	quarry_view_close(v);
	look();
}

/* ---- arguments ---- */

static int stop(const quarry_view_item *item, void *ctx)
{
	(void)item;
	++*(int *)ctx;
	return 5;
}

Test(view, arguments)
{
	quarry_view_report report = { 0 };
	quarry_view_item item;
	char here;
	quarry_view *v;
	int n = 0;
	char *p = quarry_malloc(1000);

	v = quarry_view_open();
	cr_assert_not_null(v);
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_OBJECT, stop, &n), 5);
	cr_assert_eq(n, 1);
	errno = 0;
	cr_assert(quarry_view_visit(NULL, QUARRY_VIEW_OBJECT, stop, &n) == -1 && errno == EINVAL);
	cr_assert(quarry_view_visit(v, 0, stop, &n) == -1 && errno == EINVAL);
	cr_assert(quarry_view_visit(v, 16, stop, &n) == -1 && errno == EINVAL);
	cr_assert(strstr(quarry_error_text(), "0x10") != NULL, "%s", quarry_error_text());
	cr_assert(quarry_view_visit(v, QUARRY_VIEW_OBJECT, NULL, &n) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_view_find(v, &here, &item, sizeof(item)) == -1 && errno == ENOENT);
	errno = 0;
	cr_assert(quarry_view_find(v, NULL, &item, sizeof(item)) == -1 && errno == ENOENT);
	cr_assert(quarry_view_find(v, p, NULL, sizeof(item)) == -1 && errno == EINVAL);
	cr_assert(quarry_view_find(v, p, &item, 0) == -1 && errno == EINVAL);
	memset(&item, 0x55, sizeof(item));
	cr_assert_eq(quarry_view_find(v, p + 999, &item, offsetof(quarry_view_item, size)), 0);
	cr_assert_eq(item.address, p);
	cr_assert_eq(item.size, (size_t)0x5555555555555555);
	cr_assert(quarry_view_report_get(v, &report) == -1 && errno == EINVAL);
	report.struct_size = sizeof(report);
	cr_assert_eq(quarry_view_report_get(v, &report), 0);
	cr_assert_gt(report.moment_ns, 0);
	quarry_view_close(v);
	errno = 3;
	quarry_view_close(NULL);
	cr_assert_eq(errno, 3);
	quarry_free(p);
}

static int allocate(const quarry_view_item *item, void *ctx)
{
	quarry_view *inner = (quarry_free(quarry_malloc(item->size)), quarry_view_open());

	cr_assert_not_null(inner);
	quarry_view_close(inner);
	return ++*(int *)ctx == 20;
}

Test(view, may_be_visited_while_one_allocates_and_opens_others)
{
	quarry_view *v;
	int n = 0;

	for (int i = 0; i < 100; i++)
		add(NULL, 100);
	v = quarry_view_open();
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_OBJECT, allocate, &n), 1);
	quarry_view_close(v);
}
