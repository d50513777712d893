/* SPDX-License-Identifier: MIT */
/* Objects behind handles are moved from node to node: what goes, that it is where it was sent (as the kernel says), that it
 * stays there when it is packed, what it costs. On a machine of eight nodes that the fake kernel plays. */
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/lock.h"
#include "lib/lanes/copies.h"
#include "numa/os.h"
#include "tests/unit/eight_nodes.h"

#define N 3000
#define BATCH 1024

static quarry_handle h[N];
static size_t sizes[N];

static quarry_lanes *make(quarry_lanes_attr attr)
{
	quarry_lanes *l;

	begin();
	attr.flags |= QUARRY_LANES_NO_MOVER;
	l = quarry_lanes_create(&attr);
	cr_assert_not_null(l, "%s", quarry_error_text());
	return l;
}

/* Of all sizes; each byte of an object is its number's. */
static void fill(quarry_lanes *l)
{
	for (int i = 0; i < N; i++) {
		sizes[i] = i % 500 == 7 ? 3000000 : i % 100 == 3 ? 200000 : 16 + (size_t)i % 3000;
		h[i] = quarry_halloc_typed(l, sizes[i], i % 7 == 0 ? 64 : i % 500 == 7 ? 4096 : 0, (unsigned)i % 256);
		cr_assert(h[i] != 0, "%s", quarry_error_text());
		quarry_enter();
		memset(quarry_get_mut(l, h[i]), i, sizes[i]);
		quarry_leave();
	}
}

static int node_of(quarry_lanes *l, quarry_handle one)
{
	quarry_page_info info;
	const void *p;

	quarry_enter();
	p = quarry_get(l, one);
	cr_assert_not_null(p);
	cr_assert_eq(quarry_where(p, 1, &info, 1), 1);
	quarry_leave();
	return info.node;
}

static void check(quarry_lanes *l)
{
	for (int i = 0; i < N; i++) {
		const unsigned char *p;

		quarry_enter();
		p = quarry_get(l, h[i]);
		cr_assert_not_null(p);
		for (size_t k = 0; k < sizes[i]; k += k < 64 ? 1 : 997)
			cr_assert_eq(p[k], (unsigned char)i, "byte %zu of %d", k, i);
		cr_assert_eq(p[sizes[i] - 1], (unsigned char)i);
		if (i % 7 == 0 || i % 500 == 7)
			cr_assert_eq((uintptr_t)p % (i % 7 == 0 ? 64 : 4096), 0, "alignment of %d", i);
		quarry_leave();
	}
}

static size_t count_on(quarry_lanes *l, int node)
{
	size_t n = 0;

	for (int i = 0; i < N; i++)
		n += node_of(l, h[i]) == node;
	return n;
}

Test(nodes, objects_go_where_they_are_sent)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_lanes_figures g = { 0 };
	int home;

	fill(l);
	home = node_of(l, h[0]);
	cr_assert_eq(count_on(l, home), N);
	cr_assert_eq(quarry_handles_migrate(l, h, N, 65), N, "%s", quarry_error_text());
	cr_assert_eq(count_on(l, 65), N);
	check(l);
	cr_assert_eq(quarry_handles_migrate(l, h, N, 65), 0, "they are there");
	cr_assert_eq(quarry_handles_migrate(l, h, N / 2, 1000), N / 2);
	cr_assert_eq(count_on(l, 1000), N / 2);
	cr_assert_eq(quarry_handles_migrate(l, h, N, home), N);
	cr_assert_eq(count_on(l, home), N);
	check(l);
	cr_assert_eq(quarry_lanes_figures_get(l, &g), 0);
	cr_assert(g.moved[QUARRY_MOVED_NODE] == N * 2 + N / 2 && g.moved[QUARRY_MOVED_PACKED] == 0 && g.objects == N,
		  "%lu went, %lu are there", g.moved[QUARRY_MOVED_NODE], g.objects);
	for (int i = 0; i < N; i++)
		cr_assert_eq(quarry_hfree(l, h[i]), 0);
	quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0);
	cr_assert_eq(quarry_lanes_figures_get(l, &g), 0);
	cr_assert(g.objects == 0 && g.segments == 0, "%lu", g.segments);
	quarry_lanes_destroy(l);
}

/* What is packed stays on its node, and each node's is packed. */
Test(nodes, packing_keeps_them_there)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	enum { MANY = 60000 };
	static quarry_handle many[MANY];
	quarry_lanes_figures before = { 0 }, after = { 0 };
	int home;

	for (int i = 0; i < MANY; i++) {
		many[i] = quarry_halloc(l, 200);
		quarry_enter();
		memset(quarry_get_mut(l, many[i]), i, 200);
		quarry_leave();
	}
	home = node_of(l, many[0]);
	cr_assert_eq(quarry_handles_migrate(l, many, MANY / 2, 3), MANY / 2);
	for (int i = 0; i < MANY; i++)
		if (i % 10 != 0)
			cr_assert_eq(quarry_hfree(l, many[i]), 0);
	cr_assert_eq(quarry_lanes_figures_get(l, &before), 0);
	cr_assert_gt(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0), 0);
	cr_assert_eq(quarry_lanes_figures_get(l, &after), 0);
	cr_assert(after.segments == 2 && before.segments >= 6, "%lu segments, of %lu", after.segments, before.segments);
	for (int i = 0; i < MANY; i += 10) {
		cr_assert_eq(node_of(l, many[i]), i < MANY / 2 ? 3 : home);
		quarry_enter();
		cr_assert_eq(((const unsigned char *)quarry_get(l, many[i]))[199], (unsigned char)i);
		quarry_leave();
	}
	quarry_lanes_destroy(l);
}

/* The same in small budgets, as the mover in the background does it. */
Test(nodes, packing_by_budgets_comes_to_all_of_them)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	enum { MANY = 60000 };
	static quarry_handle many[MANY];
	quarry_lanes_figures g = { 0 };

	for (int i = 0; i < MANY; i++)
		cr_assert((many[i] = quarry_halloc(l, 200)) != 0);
	cr_assert_eq(quarry_handles_migrate(l, many, MANY / 2, 3), MANY / 2);
	for (int i = 0; i < MANY; i++)
		if (i % 10 != 0)
			cr_assert_eq(quarry_hfree(l, many[i]), 0);
	for (int i = 0; i < 500; i++)
		cr_assert_geq(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 20000), 0);
	cr_assert_eq(quarry_lanes_figures_get(l, &g), 0);
	cr_assert_leq(g.segments, 4, "%lu segments", g.segments);
	quarry_lanes_destroy(l);
}

Test(nodes, the_fast_lane_and_what_stays)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .threshold = 1000 });
	quarry_migrate_cost cost = { 0 };
	quarry_handle one[4];

	for (int i = 0; i < 4; i++)
		one[i] = quarry_halloc(l, 100);
	cr_assert(quarry_handle_lane(l, one[0]) == QUARRY_LANE_FAST && quarry_pin(l, one[1]) != NULL);
	cr_assert_eq(quarry_hfree(l, one[3]), 0);
	cr_assert_eq(quarry_handles_migrate_cost(l, one, 4, 2, &cost), 0);
	cr_assert(cost.objects == 2 && cost.staying == 1 && cost.there == 0 && cost.bytes == 2 * 112 && cost.ns > 0);
	cr_assert_eq(quarry_lanes_migrate(l, QUARRY_LANE_SLOW, 2, 0), 0);
	cr_assert_eq(quarry_lanes_migrate(l, QUARRY_LANE_FAST, 2, 0), 2);
	cr_assert(quarry_handle_lane(l, one[0]) == QUARRY_LANE_SLOW && quarry_handle_lane(l, one[1]) == QUARRY_LANE_FAST);
	cr_assert(node_of(l, one[0]) == 2 && node_of(l, one[2]) == 2 && quarry_stub_count(l) == 2);
	cr_assert_eq(quarry_handles_migrate_cost(l, one, 4, 2, &cost), 0);
	cr_assert(cost.objects == 0 && cost.staying == 1 && cost.there == 2 && cost.bytes == 0 && cost.ns == 0);
	cr_assert_eq(quarry_unpin(l, one[1]), 0);
	cr_assert_eq(quarry_lanes_migrate(l, QUARRY_LANE_ANY, 2, 0), 1);
	cr_assert_eq(quarry_stub_count(l), 3);
	quarry_lanes_destroy(l);
}

Test(nodes, a_group)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_group *g = quarry_group_create(l, &(quarry_group_attr){ .name = "g" });
	quarry_migrate_cost cost = { 0 };
	quarry_lanes_part part[64];

	fill(l);
	for (int i = 0; i < N; i += 3)
		cr_assert_eq(quarry_group_add(g, h[i]), 0);
	cr_assert_eq(quarry_group_migrate_cost(g, 4, &cost), 0);
	cr_assert_eq(cost.objects, N / 3);
	cr_assert_eq(quarry_group_migrate_node(g, 4), N / 3, "%s", quarry_error_text());
	for (int i = 0; i < N; i++)
		cr_assert_eq(node_of(l, h[i]) == 4, i % 3 == 0, "%d", i);
	check(l);
	for (int64_t i = 0, n = quarry_lanes_parts(l, part, 64); i < n && i < 64; i++)
		if (part[i].kind == QUARRY_PART_GROUP)
			cr_assert_eq(part[i].moved, N / 3);
	quarry_lanes_destroy(l);
}

/* ---- a budget ---- */

static struct qy_os mine;
static uint64_t now_ns;

static uint64_t clock_of_test(void)
{
	return now_ns += 10000;
}

static pthread_barrier_t there, ended;

static void *stay_in_scope(void *unused)
{
	quarry_enter();
	pthread_barrier_wait(&there);
	pthread_barrier_wait(&ended);
	quarry_leave();
	return unused;
}

/* What somebody's scope held up until the time was over is what the next call begins with. */
static void held_up(quarry_lanes *l, int64_t count)
{
	pthread_t thread;

	pthread_barrier_init(&there, NULL, 2);
	pthread_barrier_init(&ended, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, stay_in_scope, NULL), 0);
	pthread_barrier_wait(&there);
	now_ns = qy_os->now_ns();
	mine = *qy_os;
	mine.now_ns = clock_of_test;
	qy_os = &mine;
	cr_assert(quarry_lanes_migrate(l, QUARRY_LANE_ANY, 5, 500) == -1 && errno == EAGAIN);
	pthread_barrier_wait(&ended);
	pthread_join(thread, NULL);
	cr_assert_eq(quarry_lanes_migrate(l, QUARRY_LANE_ANY, 5, 1000000000), count);
	qy_os = &kernel;
}

Test(nodes, a_batch_that_was_held_up_is_tried_again)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });

	fill(l);
	held_up(l, N);
	check(l);
	for (int i = 0; i < 10; i++)
		cr_assert(quarry_halloc(l, 64) != 0);
	held_up(l, 10); /* less than a batch */
	quarry_lanes_destroy(l);
}

Test(nodes, a_budget_ends_it_and_the_next_goes_on)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	int64_t went = 0, calls = 0, last;

	for (int i = 0; i < 8; i++)
		for (int k = 0; k < N; k++)
			cr_assert((h[k] = quarry_halloc(l, 64)) != 0);
	now_ns = qy_os->now_ns();
	mine = *qy_os;
	mine.now_ns = clock_of_test;
	qy_os = &mine;
	do {
		went += last = quarry_lanes_migrate(l, QUARRY_LANE_ANY, 5, 30); /* three looks at the clock */
		calls++;
		cr_assert(last >= 0 && last <= 2 * BATCH, "%ld", last);
	} while (last > 0 && calls < 1000);
	qy_os = &kernel;
	cr_assert_eq(went, 8 * N);
	cr_assert_gt(calls, 8 * N / (2 * BATCH));
	quarry_lanes_destroy(l);
}

/* ---- beside others ---- */

static _Atomic(bool) over;

static void *read_and_write(void *arg)
{
	quarry_lanes *l = arg;
	unsigned seed = 7;

	while (!atomic_load(&over)) {
		int i = (int)((seed = seed * 1664525u + 1013904223u) >> 8) % N;
		unsigned char *p;

		quarry_enter();
		p = seed & 1 ? quarry_get_mut(l, h[i]) : (unsigned char *)(uintptr_t)quarry_get(l, h[i]);
		cr_assert(p != NULL && p[0] == (unsigned char)i && p[sizes[i] - 1] == (unsigned char)i);
		if (seed & 1)
			p[0] = (unsigned char)i;
		quarry_leave();
	}
	return NULL;
}

Test(nodes, beside_readers_and_writers)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	pthread_t thread;
	int64_t went = 0;

	fill(l);
	cr_assert_eq(pthread_create(&thread, NULL, read_and_write, l), 0);
	for (int i = 0; i < 10; i++) {
		int64_t n = quarry_lanes_migrate(l, QUARRY_LANE_ANY, ids[i % NODES], 0);

		cr_assert_geq(n, 0, "%s", quarry_error_text());
		went += n;
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	cr_assert_gt(went, 0); /* (how many, the writer decides) */
	check(l);
	cr_assert_geq(quarry_lanes_migrate(l, QUARRY_LANE_ANY, 65, 0), 0);
	cr_assert_eq(count_on(l, 65), N);
	quarry_lanes_destroy(l);
}

/* ---- the cost ---- */

Test(cost, pairs_of_nodes_are_measured_once)
{
	uint64_t mib_s = 0, again = 0;
	int known = 0;

	begin();
	cr_assert_eq(quarry_node_copy(0, 65, &mib_s), QUARRY_COPY_MEASURED);
	cr_assert_gt(mib_s, 0);
	cr_assert_eq(quarry_node_copy(0, 65, &again), QUARRY_COPY_MEASURED);
	cr_assert_eq(again, mib_s);
	cr_assert_eq(qy_copy_ns(0, 65, mib_s << 20, &known), 1000000000);
	cr_assert(known == QUARRY_COPY_MEASURED);
	(void)qy_copy_ns(0, 77, 1, &known);
	cr_assert(known == QUARRY_COPY_GUESSED);
	cr_assert(quarry_node_copy(0, 77, &mib_s) == -1 && errno == EINVAL);
	cr_assert(quarry_node_copy(0, 1, NULL) == -1 && errno == EINVAL);
}

/* A node that memory cannot be had of, as the clock does not tell how long a copy took, is guessed at. */
static uint64_t stopped_clock(void)
{
	return 1000000000;
}

Test(cost, what_cannot_be_measured_is_guessed)
{
	uint64_t near = 0, far = 0;

	fake_os_distance(1, 1, 10);
	fake_os_distance(1, 2, 40);
	begin();
	mine = *qy_os;
	mine.now_ns = stopped_clock;
	qy_os = &mine;
	cr_assert_eq(quarry_node_copy(1, 1, &near), QUARRY_COPY_GUESSED);
	cr_assert_eq(quarry_node_copy(1, 2, &far), QUARRY_COPY_GUESSED);
	qy_os = &kernel;
	cr_assert(near > far && far > 0, "%lu, %lu", near, far);
}

Test(nodes, mistakes)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_migrate_cost cost = { .struct_size = 3 };
	quarry_handle one = quarry_halloc(l, 10);

	cr_assert(quarry_handles_migrate(l, &one, 1, 77) == -1 && errno == EINVAL);
	cr_assert(quarry_handles_migrate(l, NULL, 1, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_handles_migrate(NULL, &one, 1, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_migrate(l, 5, 0, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_group_migrate_node(NULL, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_handles_migrate_cost(l, &one, 1, 0, &cost) == -1 && errno == EINVAL);
	cost.struct_size = 0;
	cr_assert(quarry_handles_migrate_cost(l, &one, 1, 77, &cost) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_migrate_cost(l, 5, 0, &cost) == -1 && errno == EINVAL);
	cr_assert(quarry_group_migrate_cost(NULL, 0, &cost) == -1 && errno == EINVAL);
	quarry_enter();
	cr_assert(quarry_handles_migrate(l, &one, 1, 1) == -1 && errno == EDEADLK);
	quarry_leave();
	one ^= 1; /* none of its */
	cr_assert_eq(quarry_handles_migrate(l, &one, 1, 1), 0);
	quarry_lanes_destroy(l);
}

/* ---- by another thread ---- */

struct told {
	_Atomic(int) times;
	int64_t went;
	int error;
};

static void tell(void *arg, int64_t went, int error)
{
	struct told *t = arg;

	t->went = went;
	t->error = error;
	atomic_fetch_add(&t->times, 1);
}

Test(lanes_nodes, by_another_thread_and_waited_for)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_migration *m[4];
	struct told t = { 0 };
	int64_t went = 0;

	fill(l);
	m[0] = quarry_migrate_async(l, h, N / 2, 3, tell, &t);
	m[1] = quarry_migrate_async(l, h + N / 2, N / 2, 5, NULL, NULL);
	m[2] = quarry_migrate_async(l, h, 10, 3, NULL, NULL); /* they are there when it begins: after the first */
	cr_assert(m[0] != NULL && m[1] != NULL && m[2] != NULL);
	quarry_enter();
	cr_assert(quarry_migration_wait(m[2]) == -1 && errno == EDEADLK);
	quarry_leave();
	cr_assert_eq(quarry_migration_wait(m[2]), 0);
	cr_assert(quarry_migration_done(m[0]) == 1 && atomic_load(&t.times) == 1 && t.error == 0);
	went = t.went;
	cr_assert(quarry_migration_wait(m[0]) == went && went == N / 2, "%d", (int)went);
	cr_assert_eq(quarry_migration_wait(m[1]), N / 2);
	check(l);
	for (int i = 0; i < N; i += 50)
		cr_assert(node_of(l, h[i]) == (i < N / 2 ? 3 : 5), "%d: %d", i, node_of(l, h[i]));
	cr_assert(quarry_migrate_async(l, h, 1, 77, NULL, NULL) == NULL && errno == EINVAL);
	cr_assert(quarry_migrate_async(l, NULL, 1, 3, NULL, NULL) == NULL && errno == EINVAL);
	cr_assert(quarry_migration_wait(NULL) == -1 && errno == EINVAL && quarry_migration_done(NULL) == -1);
	cr_assert_eq(quarry_lanes_destroy(l), 0);
}

struct holding {
	quarry_lanes *l;
	_Atomic(int) holds, go;
};

static void in_the_midst(void *arg, quarry_handle promoted, int why)
{
	struct holding *k = arg;

	(void)promoted;
	(void)why;
	atomic_store(&k->holds, 1);
	while (!atomic_load(&k->go))
		qy_spin();
}

static void *hold(void *arg)
{
	struct holding *k = arg;
	quarry_handle one = quarry_halloc_with(k->l, 100, &(quarry_halloc_attr){ .lane = QUARRY_LANE_FAST });

	cr_assert(one != 0 && quarry_promote(k->l, one) == 0);
	return NULL;
}

Test(lanes_nodes, whoever_moves_is_waited_for)
{
	struct holding k = { .l = make((quarry_lanes_attr){ 0 }) };
	quarry_migration *m, *second;
	struct told t = { 0 };
	pthread_t holder;

	fill(k.l);
	cr_assert(quarry_promote_hook(k.l, in_the_midst, &k) == 0);
	cr_assert(pthread_create(&holder, NULL, hold, &k) == 0);
	while (!atomic_load(&k.holds))
		qy_spin();
	cr_assert(quarry_handles_migrate(k.l, h, 1, 3) == -1 && errno == EBUSY);
	m = quarry_migrate_async(k.l, h, N, 3, tell, &t);
	second = quarry_migrate_async(k.l, h, N, 3, NULL, NULL);
	cr_assert(m != NULL && second != NULL && quarry_migration_done(m) == 0);
	cr_assert(atomic_load(&t.times) == 0);
	atomic_store(&k.go, 1);
	cr_assert(quarry_migration_wait(m) == N && quarry_migration_wait(second) == 0 && t.went == N);
	cr_assert(pthread_join(holder, NULL) == 0);
	check(k.l);
	cr_assert_eq(quarry_lanes_destroy(k.l), 0);
}

static void at_the_end(void *arg, int64_t went, int error)
{
	(void)error;
	in_the_midst(arg, 0, (int)went);
}

Test(lanes_nodes, in_a_child_they_are_over)
{
	struct holding k = { .l = make((quarry_lanes_attr){ 0 }) };
	quarry_migration *m, *second;
	int status;
	pid_t child;

	fill(k.l);
	m = quarry_migrate_async(k.l, h, N / 2, 3, at_the_end, &k);
	second = quarry_migrate_async(k.l, h, N, 3, NULL, NULL);
	while (!atomic_load(&k.holds))
		qy_spin();
	child = fork();
	if (child == 0) {
		bool none = quarry_migration_wait(m) == -1 && errno == ECANCELED && quarry_migration_wait(second) == -1 && errno == ECANCELED;

		m = quarry_migrate_async(k.l, h, N, 5, NULL, NULL);
		_exit(none && m != NULL && quarry_migration_wait(m) == N ? 0 : 1);
	}
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert(quarry_migration_done(m) == 0);
	atomic_store(&k.go, 1);
	cr_assert(quarry_migration_wait(m) == N / 2 && quarry_migration_wait(second) == N / 2);
	check(k.l);
	cr_assert_eq(quarry_lanes_destroy(k.l), 0);
}
