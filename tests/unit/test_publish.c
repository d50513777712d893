/* SPDX-License-Identifier: MIT */
/* The page that a process publishes: found and read as others do it, renewed at its time, none of a forked child's or a
 * bare clone's, none where it is refused; and what becomes of the process when somebody writes all over it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/reclaim/publish.h"
#include "lib/reclaim/reclaim.h"
#include "lib/view/print.h"
#include "lib/view/publish.h"
#include "numa/os.h"
#include "tests/fake_os.h"
#include "tests/unit/fds.h"

#define START 1000000u

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,publish=off", 1);
	fake_os_install();
	fake_os_clock(START);
}

static void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0, "%s", quarry_error_text());
}

/* As a reader does it: by the name in /proc/PID/maps. */
static bool find(int pid, uint64_t *start, uint64_t *end)
{
	char path[64], line[512];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	cr_assert_not_null(maps);
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, "rw-s") && strstr(line, "/memfd:" QUARRY_PUBLISHED_NAME " (deleted)\n") &&
			sscanf(line, "%lx-%lx", start, end) == 2;
	fclose(maps);
	return found;
}

static _Alignas(16) char copy[1 << 20];

static size_t read_page(int pid)
{
	uint64_t start, end;
	struct iovec here, there;

	if (!find(pid, &start, &end))
		return 0;
	cr_assert_lt(end - start, sizeof(copy));
	here = (struct iovec){ copy, end - start };
	there = (struct iovec){ (void *)start, end - start };
	cr_assert_eq(process_vm_readv(pid, &here, 1, &there, 1, 0), (ssize_t)(end - start));
	return end - start;
}

static quarry_published head;
static quarry_stats total = { .version = QUARRY_STATS_VERSION };

static void look(void)
{
	size_t size = read_page(getpid());

	cr_assert_gt(size, 0);
	cr_assert_eq(quarry_published_look(copy, size, &head, sizeof(head), NULL, &total), 0, "%s", quarry_error_text());
}

/* Past the next time that it is due. */
static void publish(void)
{
	fake_os_advance(1000000);
	(void)qy_publish_if_due(qy_os->now_ms());
}

static quarry_published_arena arena_named(const char *name)
{
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };

	for (size_t i = 0; quarry_published_arena_get(copy, sizeof(copy), i, &arena) == 0; i++)
		if (strncmp(arena.stats.name, name, sizeof(arena.stats.name)) == 0)
			return arena;
	cr_assert_fail("no arena %s", name);
	return arena;
}

static uint64_t refused(void)
{
	return qy_read(&qy_refused[QUARRY_REFUSED_PUBLISH]);
}

/* ---- what is published ---- */

Test(publish, read_as_others_read_it)
{
	quarry_arena_attr attr = { .name = "shop", .hard_limit = 50 << 20 };
	quarry_arena *arena = quarry_arena_create(&attr);
	int fds = count_fds();
	quarry_published_arena seen;
	uint64_t start, end;

	memset(quarry_arena_malloc(arena, 10 << 20), 1, 10 << 20);
	publish();
	cr_assert_not(find(getpid(), &start, &end), "published, with publish=off");
	set("publish", "on");
	publish();
	look();
	cr_assert_eq(count_fds(), fds, "a descriptor is left");
	cr_assert(head.pid == getpid() && head.generation == 2 && head.arena_room == QUARRY_PUBLISHED_ARENAS);
	cr_assert_str_eq(head.library, quarry_version_string());
	seen = arena_named("shop");
	cr_assert(seen.stats.in_use >= 10 << 20 && seen.stats.hard_limit == 50 << 20 && seen.stats.resident >= 10 << 20);
	cr_assert_geq(total.mapped, seen.stats.mapped);
	/* What changed is told, the next time. */
	memset(quarry_arena_malloc(arena, 5 << 20), 1, 5 << 20);
	publish();
	look();
	cr_assert_eq(head.generation, 4);
	cr_assert_geq(arena_named("shop").stats.in_use, 15 << 20);
	cr_assert_eq(arena_named("shop").id, seen.id);
}

Test(publish, more_arenas_than_there_is_room_for)
{
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };

	for (int i = 0; i < QUARRY_PUBLISHED_ARENAS + 10; i++)
		cr_assert_not_null(quarry_arena_create(NULL));
	set("publish", "on");
	publish();
	look();
	cr_assert_eq(head.arena_count, QUARRY_PUBLISHED_ARENAS);
	cr_assert(head.arenas_left_out >= 10 && head.arenas_left_out == total.arenas - QUARRY_PUBLISHED_ARENAS);
	cr_assert_eq(quarry_published_arena_get(copy, sizeof(copy), QUARRY_PUBLISHED_ARENAS - 1, &arena), 0);
}

#define MANY 300

static unsigned long mincores;
static int (*real_mincore)(void *addr, size_t len, unsigned char *in);

static int counted_mincore(void *addr, size_t len, unsigned char *in)
{
	mincores++;
	return real_mincore(addr, len, in);
}

static void make_many(quarry_arena *made[MANY])
{
	for (int i = 0; i < MANY; i++) {
		made[i] = quarry_arena_create(NULL);
		cr_assert_not_null(made[i]);
		for (int n = 0; n < 100 * (i % 7); n++)
			cr_assert_not_null(quarry_arena_malloc(made[i], 2000));
	}
}

/* What is looked at once for all of a list is, of each, what it is when that is asked for alone. */
Test(publish, many_arenas_are_looked_at_once)
{
	static quarry_arena *made[MANY];
	static struct qy_arena_list list;
	static struct qy_os os;
	unsigned long alone;
	uint64_t refills = 0;

	make_many(made);
	os = *qy_os;
	real_mincore = os.mincore;
	os.mincore = counted_mincore;
	qy_os = &os;
	for (int way = 0; way < 2; way++) {
		unsigned seen = 0;

		alone = mincores;
		mincores = 0;
		qy_arena_list_get(&list);
		cr_assert_not_null(list.counts);
		cr_assert_geq(list.count, MANY);
		for (size_t i = 0; i < list.count; i++) {
			quarry_stats one = { .version = QUARRY_STATS_VERSION }, listed;

			if (way == 0) {
				cr_assert_eq(quarry_stats_get(list.at[i], &one), 0);
				refills += one.refills;
				continue;
			}
			cr_assert(qy_arena_list_stats(&list, i, &listed));
			refills -= listed.refills;
			seen += listed.refills > 0;
		}
		qy_arena_list_put(&list);
		cr_assert(way == 0 || seen >= MANY * 6 / 7 - 7, "%u", seen);
	}
	cr_assert_eq(refills, 0);
	cr_assert_leq(mincores + 2 * MANY, alone, "%lu calls, %lu one by one", mincores, alone);
	qy_arena_list_get(&list);
	for (size_t i = 0; i < list.count; i++) {
		quarry_stats one = { .version = QUARRY_STATS_VERSION }, listed;

		cr_assert(qy_arena_list_stats(&list, i, &listed));
		cr_assert_eq(quarry_stats_get(list.at[i], &one), 0);
		cr_assert_arr_eq(&listed, &one, sizeof(one), "arena %zu", i);
	}
	cr_assert_eq(quarry_arena_destroy(made[5]), 0);
	for (size_t i = 0; i < list.count; i++) {
		quarry_stats listed;

		cr_assert_eq(qy_arena_list_stats(&list, i, &listed), list.at[i] != made[5]);
	}
	qy_arena_list_put(&list);
}

/* The process's counts do not fall with the arena in which they were counted. */
Test(publish, counts_outlive_their_arena)
{
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = before;
	quarry_arena *arena = quarry_arena_create(NULL);

	for (int i = 0; i < 10000; i++)
		cr_assert_not_null(quarry_arena_malloc(arena, 100));
	quarry_free(memset(quarry_arena_malloc(arena, 8 << 20), 1, 8 << 20));
	quarry_purge(arena);
	quarry_stats_get(NULL, &before);
	cr_assert(before.refills > 5 && before.purges > 0 && before.purged >= 8 << 20);
	cr_assert(before.purge_ns > 0 && before.minor_faults > 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	quarry_stats_get(NULL, &after);
	cr_assert(after.refills >= before.refills && after.purges >= before.purges && after.purged >= before.purged,
		  "%lu < %lu, %lu < %lu", after.refills, before.refills, after.purged, before.purged);
}

/* ---- when ---- */

Test(publish, at_most_once_in_a_second)
{
	uint64_t now;

	set("publish", "on");
	now = qy_os->now_ms();
	cr_assert_eq(qy_publish_if_due(now), UINT64_MAX);
	look();
	cr_assert_eq(head.generation, 2);
	/* What happens before it is due is to be told then: when that is, is told. */
	cr_assert_geq(qy_publish_if_due(now + 1), now + 1000);
	cr_assert_geq(qy_publish_if_due(now + 999), now + 1000);
	look();
	cr_assert_eq(head.generation, 2);
	cr_assert_eq(qy_publish_if_due(now + 100000), UINT64_MAX);
	look();
	cr_assert_eq(head.generation, 4);
}

static void *take_and_free(void *slow_calls)
{
	static void *some[4000];

	for (long n = (long)slow_calls; n > 0; n -= 100) {
		for (int i = 0; i < 4000; i++)
			some[i] = quarry_malloc(2000);
		for (int i = 0; i < 4000; i++)
			quarry_free(some[i]);
	}
	return NULL;
}

Test(publish, in_passing_when_it_is_on_and_not_in_auto)
{
	uint64_t start, end;

	take_and_free((void *)1000);
	set("publish", "auto");
	fake_os_advance(1000000);
	take_and_free((void *)1000);
	fake_os_advance(1000000);
	take_and_free((void *)1000);
	cr_assert_not(find(getpid(), &start, &end), "by a thread of the program, in auto");
	set("publish", "on");
	take_and_free((void *)1000);
	look();
}

/* Not within its first second: then nothing is to be paid by programs that end. */
Test(publish, by_the_reclaimers_thread_in_auto)
{
	uint64_t start, end;

	set("publish", "auto");
	set("reclaim", "parallel");
	for (int i = 0; i < 1000 && !qy_reclaim_running(); i++) {
		take_and_free((void *)1100);
		sched_yield();
	}
	cr_assert(qy_reclaim_running());
	for (uint64_t n = qy_reclaim_passes(); qy_reclaim_passes() < n + 2;)
		qy_reclaim_look();
	cr_assert_not(find(getpid(), &start, &end), "at once");
	for (int i = 0; i < 10000 && !find(getpid(), &start, &end); i++) {
		fake_os_advance(1000);
		qy_reclaim_look();
		usleep(1000);
	}
	look();
}

/* ---- fork ---- */

static int status_of(pid_t child)
{
	int status;

	cr_assert_eq(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

Test(publish, a_forked_child_has_a_page_of_its_own)
{
	uint64_t start, end;
	pid_t child;

	set("publish", "on");
	publish();
	look();
	child = fork();
	if (child == 0) {
		bool inherited = find(getpid(), &start, &end);

		publish();
		_exit(inherited ? 1 : read_page(getpid()) == 0 ? 2 :
		      quarry_published_look(copy, sizeof(copy), &head, sizeof(head), NULL, NULL) != 0 ? 3 :
		      head.pid != getpid() ? 4 : 0);
	}
	cr_assert_eq(status_of(child), 0);
	look();
	cr_assert(head.pid == getpid() && head.generation == 2);
}

/* Of whom no handler tells, and who would write to what is not there. */
#define FAULTS 4000

static void fault_in(size_t pages)
{
	char *p = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	(void)madvise(p, pages * 4096, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < pages; i++)
		p[i * 4096] = 1;
	munmap(p, pages * 4096);
}

static uint64_t faults_told(void)
{
	static char text[1 << 16];
	const char *at;

	cr_assert_gt(quarry_metrics_text(text, sizeof(text), 0), 0);
	at = strstr(text, "\nquarry_page_faults_total{kind=\"minor\"} ");
	return at == NULL ? UINT64_MAX : strtoull(strchr(at, '}') + 2, NULL, 10);
}

/* Its own, of which it has none when it begins, and which rise from there: in metrics, page and history. */
Test(publish, page_faults_of_a_forked_child)
{
	uint64_t before, first, second;
	quarry_sample sample;
	pid_t child;

	set("publish", "on");
	fault_in(FAULTS);
	publish();
	before = faults_told();
	cr_assert_geq(before, FAULTS);
	child = fork();
	if (child == 0) {
		first = faults_told();
		fault_in(100);
		second = faults_told();
		publish();
		look();
		_exit(first >= before ? 1 : second < first + 100 || second >= before ? 2 :
		      total.minor_faults < second || total.minor_faults >= before ? 3 :
		      quarry_history_get(QUARRY_HISTORY_HOURS, &sample, 1, sizeof(sample)) != 1 ? 4 :
		      sample.minor_faults != total.minor_faults ? 5 : 0);
	}
	cr_assert_eq(status_of(child), 0);
	cr_assert_geq(faults_told(), before);
}

Test(publish, a_bare_clone_publishes_nothing)
{
	uint64_t start, end;
	pid_t child;

	set("publish", "on");
	publish();
	child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
	if (child == 0) {
		publish();
		take_and_free((void *)1000);
		_exit(find(getpid(), &start, &end) ? 1 : 0);
	}
	cr_assert_eq(status_of(child), 0);
	look();
	cr_assert_eq(head.generation, 2);
	publish();
	look();
	cr_assert_eq(head.generation, 4);
}

/* ---- refused ---- */

static void expect_refused(enum fake_call call, int err, int advice)
{
	uint64_t before = refused(), start, end;
	int fds = count_fds();

	fake_os_advance(100000);
	if (advice >= 0)
		fake_os_fail_advice(advice, err);
	else
		fake_os_fail(call, err);
	publish();
	cr_assert_eq(refused(), before + 1, "call %d", (int)call);
	cr_assert_not(find(getpid(), &start, &end), "call %d: a page is left", (int)call);
	cr_assert_eq(count_fds(), fds, "call %d: a descriptor is left", (int)call);
	take_and_free((void *)1000);
	/* (It is not tried at every turn.) */
	publish();
	cr_assert_eq(refused(), before + 1);
	fake_os_heal();
	quarry_ctl_set("publish", "on");
}

static uint64_t (*real_ns)(void);
static uint64_t later_ns;

static uint64_t shifted_ns(void)
{
	return real_ns() + later_ns;
}

Test(publish, refused_is_counted_and_no_harm)
{
	struct qy_os os = *qy_os;

	real_ns = os.now_ns;
	os.now_ns = shifted_ns;
	qy_os = &os;
	set("publish", "on");
	expect_refused(FAKE_MEMFD, EPERM, -1);
	later_ns += UINT64_C(61000000000);
	expect_refused(FAKE_MEMFD, EMFILE, -1);
	later_ns += UINT64_C(61000000000);
	expect_refused(FAKE_SET_SIZE, EFBIG, -1);
	later_ns += UINT64_C(61000000000);
	expect_refused(FAKE_SEAL, EPERM, -1);
	later_ns += UINT64_C(61000000000);
	expect_refused(FAKE_MMAP, ENOMEM, -1);
	later_ns += UINT64_C(61000000000);
	expect_refused(FAKE_MADVISE, EINVAL, QY_MADV_DONTFORK);
	/* And there it is, when nothing is refused any more. */
	later_ns += UINT64_C(61000000000);
	publish();
	look();
}

static int (*seal_of_today)(int fd, int seals);

static int older_seal(int fd, int seals)
{
	if ((seals & QY_SEAL_FUTURE_WRITE) == 0)
		return seal_of_today(fd, seals);
	errno = EINVAL;
	return -1;
}

Test(publish, kernels_before_5_1)
{
	struct qy_os os = *qy_os;

	seal_of_today = os.seal;
	os.seal = older_seal;
	qy_os = &os;
	set("publish", "on");
	publish();
	look();
	cr_assert_eq(refused(), 0);
}

/* Where memory is committed when it is touched, and may run dry, it is had before. */
Test(publish, strict_overcommit)
{
	set("publish", "on");
	fake_os_file("/proc/sys/vm/overcommit_memory", "2\n");
	fake_os_fail(FAKE_ALLOCATE, ENOSPC);
	publish();
	cr_assert_eq(refused(), 1);
	cr_assert_gt(fake_os_calls(FAKE_ALLOCATE), 0);
}

/* ---- others who write ---- */

/* (Only root may open what a mapping leads to.) */
Test(publish, nobody_else_can_map_it_to_write)
{
	uint64_t start, end;
	char path[100];
	int fd;

	set("publish", "on");
	publish();
	cr_assert(find(getpid(), &start, &end));
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
	fd = open(path, O_RDWR);
	if (fd < 0)
		cr_skip_test("no right to open %s", path);
	cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(pwrite(fd, "x", 1, 0), -1);
	cr_assert_eq(ftruncate(fd, 1), -1);
	close(fd);
	look();
}

static _Atomic bool over;

static void *scribble(void *unused)
{
	uint64_t start, end, state = 1;
	int fd = open("/proc/self/mem", O_RDWR);
	char noise[4096];

	(void)unused;
	cr_assert(fd >= 0 && find(getpid(), &start, &end));
	while (!atomic_load(&over)) {
		for (size_t i = 0; i < sizeof(noise); i += 8, state = state * 6364136223846793005u + 1442695040888963407u)
			memcpy(noise + i, &state, 8);
		for (uint64_t at = start; at < end && !atomic_load(&over); at += sizeof(noise))
			cr_assert_eq(pwrite(fd, noise, sizeof(noise), (off_t)at), (ssize_t)sizeof(noise));
	}
	close(fd);
	return NULL;
}

/* Somebody who may trace the process writes over the whole page, again and again, while it works and publishes. */
Test(publish, a_page_that_somebody_writes_over)
{
	quarry_stats before = { .version = QUARRY_STATS_VERSION };
	quarry_arena *arena = quarry_arena_create(NULL);
	pthread_t hostile;

	set("publish", "on");
	publish();
	cr_assert_eq(pthread_create(&hostile, NULL, scribble, NULL), 0);
	for (int i = 0; i < 150; i++) {
		void *p = quarry_arena_malloc(arena, 100000 + (size_t)i);

		memset(p, i, 100000);
		take_and_free((void *)100);
		publish();
		quarry_free(p);
	}
	atomic_store(&over, true);
	pthread_join(hostile, NULL);
	/* Nothing of it is left when it is written anew, and all counts are what they were. */
	publish();
	look();
	cr_assert_eq(head.generation, 2 * 152);
	quarry_stats_get(NULL, &before);
	cr_assert(total.mapped == before.mapped && total.refills <= before.refills);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}
