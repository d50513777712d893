/* SPDX-License-Identifier: MIT */
/* Memory limits of control groups, on machines that the fake kernel plays. Where their files are:
 * test_cgroup_mounts.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "numa/cgroup.h"
#include "tests/fake_os.h"
#include "tests/unit/cgroup_model.h"

/* ---- v2 ------------------------------------------------------------------------------------------------------- */

static void start_v2(void)
{
	start("0::/app.slice/server.service\n", V2_MOUNT);
	v2(v2_base, "", NULL, 0, 0);
	v2(v2_base, "/app.slice", "max\n", 700 * MIB, 0);
	v2(v2_base, "/app.slice/server.service", "104857600\n", 50 * MIB, 8 * MIB);
}

Test(cgroup, v2_own_limit_without_inactive_file)
{
	start_v2();
	expect(100 * MIB, 42 * MIB);
}

Test(cgroup, v2_tighter_parent)
{
	start_v2();
	file(v2_base, "/app.slice", "memory.max", "73400320\n");
	number_file(v2_base, "/app.slice", "memory.current", 60 * MIB);
	expect(70 * MIB, 60 * MIB);
}

Test(cgroup, the_fuller_parent_stops_first_though_its_limit_is_larger)
{
	start_v2();
	file(v2_base, "/app.slice", "memory.max", "838860800\n");
	number_file(v2_base, "/app.slice", "memory.current", 790 * MIB);
	expect(800 * MIB, 790 * MIB);
	number_file(v2_base, "/app.slice", "memory.current", 700 * MIB);
	expect(100 * MIB, 42 * MIB);
	/* As much room in both: the smaller. */
	number_file(v2_base, "/app.slice", "memory.current", 742 * MIB);
	expect(100 * MIB, 42 * MIB);
}

Test(cgroup, limits_change_at_run_time)
{
	start_v2();
	expect(100 * MIB, 42 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.max", "max\n");
	expect_none();
	file(v2_base, "/app.slice", "memory.max", "1073741824\n");
	expect(1024 * MIB, 700 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.max", "52428800\n");
	expect(50 * MIB, 42 * MIB);
	number_file(v2_base, "/app.slice/server.service", "memory.current", 58 * MIB);
	expect(50 * MIB, 50 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.max", "0\n");
	expect(0, 50 * MIB);
}

Test(cgroup, high_is_a_limit_only_when_lower_and_asked_for)
{
	uint64_t limit = 0, usage = 0;

	start_v2();
	file(v2_base, "/app.slice/server.service", "memory.high", "83886080\n");
	expect(100 * MIB, 42 * MIB);
	cr_assert(qy_cgroup_memory_with_high(&limit, &usage));
	cr_assert_eq(limit, 80 * MIB);
	cr_assert_eq(usage, 42 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.high", "943718400\n");
	cr_assert(qy_cgroup_memory_with_high(&limit, &usage));
	cr_assert_eq(limit, 100 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.max", "max\n");
	expect_none();
	cr_assert(qy_cgroup_memory_with_high(&limit, &usage));
	cr_assert_eq(limit, 900 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.high", NULL);
	cr_assert_not(qy_cgroup_memory_with_high(&limit, &usage));
}

/* systemd turns the controller on for a service when its first limit is set. */
Test(cgroup, v2_controller_comes_later)
{
	start_v2();
	file(v2_base, "/app.slice/server.service", "memory.max", NULL);
	expect_none();
	file(v2_base, "/app.slice/server.service", "memory.max", "104857600\n");
	expect(100 * MIB, 42 * MIB);
}

Test(cgroup, v2_without_the_memory_controller)
{
	start_v2();
	file(v2_base, "", "cgroup.controllers", "cpu io\n");
	file(v2_base, "/app.slice", "cgroup.controllers", "cpu memory_tiers\n");
	file(v2_base, "/app.slice/server.service", "cgroup.controllers", "\n");
	expect_none();
	fake_os_forget_calls();
	expect_none();
	cr_assert_eq(fake_os_all_calls(), 0);
}

Test(cgroup, in_the_root_group)
{
	start("0::/\n", V2_MOUNT);
	v2(v2_base, "", NULL, 0, 0);
	expect_none();
}

/* ---- v1 and hybrid -------------------------------------------------------------------------------------------- */

static void start_v1(void)
{
	start("12:cpu,cpuacct:/elsewhere\n11:name=memory:/wrong\n4:hugetlb,memory:/jobs/one:two\n0::/wrong\n",
	      V1_MOUNTS "35 31 0:32 / /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,hugetlb,memory\n");
	v1(v1_base, "", V1_NONE, 9000 * MIB, 0);
	v1(v1_base, "/jobs", V1_NONE, 800 * MIB, 0);
	v1(v1_base, "/jobs/one:two", "67108864\n", 60 * MIB, 20 * MIB);
}

Test(cgroup, v1_own_limit_without_total_inactive_file)
{
	start_v1();
	expect(64 * MIB, 40 * MIB);
}

Test(cgroup, v1_tighter_parent_and_change)
{
	start_v1();
	number_file(v1_base, "/jobs", "memory.limit_in_bytes", 810 * MIB);
	expect(810 * MIB, 800 * MIB);
	file(v1_base, "/jobs", "memory.limit_in_bytes", V1_NONE);
	expect(64 * MIB, 40 * MIB);
	file(v1_base, "/jobs/one:two", "memory.limit_in_bytes", V1_NONE);
	expect_none();
	file(v1_base, "/jobs/one:two", "memory.limit_in_bytes", "4611686018427387904\n"); /* 2^62 */
	expect_none();
	file(v1_base, "/jobs/one:two", "memory.limit_in_bytes", "4611686018427387903\n");
	expect((UINT64_C(1) << 62) - 1, 40 * MIB);
}

Test(cgroup, v1_parent_that_does_not_count_its_children)
{
	start_v1();
	number_file(v1_base, "/jobs", "memory.limit_in_bytes", 1 * MIB);
	file(v1_base, "/jobs", "memory.use_hierarchy", "0\n");
	expect(64 * MIB, 40 * MIB);
	qy_cgroup_forget();
	file(v1_base, "/jobs", "memory.use_hierarchy", NULL); /* a kernel that has no choice any more */
	expect(1 * MIB, 800 * MIB);
}

Test(cgroup, hybrid_memory_on_v1)
{
	start("4:memory:/a\n1:name=systemd:/a\n0::/a\n",
	      V1_MOUNTS "33 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	      "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
	v2("/sys/fs/cgroup/unified", "/a", "1048576\n", 1, 0);
	v1(v1_base, "", V1_NONE, 0, 0);
	v1(v1_base, "/a", "67108864\n", 5 * MIB, 0);
	expect(64 * MIB, 5 * MIB);
}

Test(cgroup, hybrid_memory_on_v2)
{
	start("7:freezer:/a\n1:name=systemd:/b\n0::/c\n",
	      V1_MOUNTS "33 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
	v2("/sys/fs/cgroup/unified", "", NULL, 1, 0);
	v2("/sys/fs/cgroup/unified", "/c", "67108864\n", 6 * MIB, 0);
	expect(64 * MIB, 6 * MIB);
}

/* ---- depth and length ----------------------------------------------------------------------------------------- */

Test(cgroup, sixteen_levels_from_below)
{
	char own[128] = "0::", group[64] = "";
	char *path = own + 3;

	for (int i = 0; i < 20; i++)
		strcat(path, "/d");
	strcat(own, "\n");
	start(own, "30 23 0:26 / /c rw - cgroup2 cgroup2 rw\n");
	for (int i = 0; i <= 20; i++) {
		file("/c", group, "cgroup.controllers", "memory\n");
		file("/c", group, "memory.max", "max\n");
		strcat(group, "/d");
	}
	expect_none();
	fake_os_forget_calls();
	expect_none();
	cr_assert_eq(fake_os_all_calls(), 16);
	group[2 * 5] = 0; /* the 16th from below */
	v2("/c", group, "67108864\n", 20 * MIB, 0);
	expect(64 * MIB, 20 * MIB);
}

/* The names of the groups end beyond what is kept: the levels above still count. */
Test(cgroup, path_too_long)
{
	char own[8000] = "0::/top", *at = own + strlen(own);

	while (at < own + 7700)
		at += sprintf(at, "/%0200d", 7);
	strcpy(at, "\n");
	start(own, V2_MOUNT);
	v2(v2_base, "", NULL, 0, 0);
	v2(v2_base, "/top", "67108864\n", 20 * MIB, 0);
	expect(64 * MIB, 20 * MIB);
}

/* ---- garbage, refusals, gone ---------------------------------------------------------------------------------- */

Test(cgroup, nothing_there)
{
	start(NULL, NULL);
	errno = 4711;
	expect_none();
	cr_assert_eq(errno, 4711);
	fake_os_forget_calls();
	expect_none();
	cr_assert_eq(fake_os_all_calls(), 0);
}

Test(cgroup, garbage_in_proc)
{
	static const char *const owns[] = { "", "\n", ":", "::\n", "0::\n", "0::a\n", "0:memory\n", "memory:/a",
					    "0::/a", ":::::\n\n\n", "4:mem:/a\n" };
	static const char *const mounts[] = { "", "\n\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2\n",
					      "30 23 0:26 / /sys/fs/cgroup rw cgroup2 cgroup2 rw\n", "- - - - - - -\n",
					      "30 23 0:26 x y rw - cgroup2 cgroup2 rw\n", "a b c d e f g h i j k l\n",
					      "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw" };

	for (size_t i = 0; i < sizeof(owns) / sizeof(owns[0]); i++) {
		start(owns[i], V2_MOUNT);
		v2(v2_base, "", "1048576\n", 1, 0);
		expect_none();
	}
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		start("0::/\n", mounts[i]);
		v2(v2_base, "", "1048576\n", 1, 0);
		expect_none();
	}
}

Test(cgroup, garbage_in_a_level_leaves_the_others)
{
	static const char *const bad[] = { "", "\n", "-1\n", "12x\n", "maximum\n", " 5\n",
					   "99999999999999999999999\n" };

	start_v2();
	v2(v2_base, "/app.slice", "838860800\n", 700 * MIB, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		file(v2_base, "/app.slice/server.service", "memory.max", bad[i]);
		expect(800 * MIB, 700 * MIB);
	}
	file(v2_base, "/app.slice/server.service", "memory.max", "104857600\n");
	file(v2_base, "/app.slice/server.service", "memory.current", "many\n");
	expect(800 * MIB, 700 * MIB);
	number_file(v2_base, "/app.slice/server.service", "memory.current", 50 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.stat", NULL);
	expect(100 * MIB, 50 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.stat", "anon 1\ninactive_file 4096"); /* cut off */
	expect(100 * MIB, 50 * MIB);
	file(v2_base, "/app.slice/server.service", "memory.stat", "inactive_file 99999999999\n");
	expect(100 * MIB, 0);
}

/* Out of descriptors is not the same as no control groups. */
Test(cgroup, not_now_is_not_never)
{
	for (unsigned k = 1; k <= 10; k++) {
		start_v2();
		fake_os_fail_kth(FAKE_READ_FILE, k, EMFILE);
		expect_none();
		expect(100 * MIB, 42 * MIB);
	}
	start_v2();
	expect(100 * MIB, 42 * MIB);
	fake_os_fail(FAKE_READ_FILE, ENFILE);
	expect_none();
	fake_os_heal();
	expect(100 * MIB, 42 * MIB);
}

Test(cgroup, a_sandbox_that_refuses_is_asked_once)
{
	start_v2();
	fake_os_fail(FAKE_READ_FILE, EPERM);
	expect_none();
	fake_os_forget_calls();
	expect_none();
	cr_assert_eq(fake_os_all_calls(), 0);
}

Test(cgroup, few_reads)
{
	start_v2();
	expect(100 * MIB, 42 * MIB);
	fake_os_forget_calls();
	expect(100 * MIB, 42 * MIB); /* three levels, and the use of one */
	cr_assert_eq(fake_os_all_calls(), 5);
	file(v2_base, "/app.slice/server.service", "memory.max", "max\n");
	fake_os_forget_calls();
	expect_none();
	cr_assert_eq(fake_os_all_calls(), 3);
}

Test(cgroup, moved_and_the_old_group_removed)
{
	start_v2();
	expect(100 * MIB, 42 * MIB);
	fake_os_file("/proc/self/cgroup", "0::/app.slice/session.scope\n");
	v2(v2_base, "/app.slice/session.scope", "209715200\n", 1 * MIB, 0);
	expect(100 * MIB, 42 * MIB);
	file(v2_base, "/app.slice/server.service", "cgroup.controllers", NULL);
	v2(v2_base, "/app.slice/server.service", NULL, 0, 0);
	file(v2_base, "/app.slice/server.service", "cgroup.controllers", NULL);
	expect(200 * MIB, 1 * MIB);
}

Test(cgroup, forget_finds_the_new_group)
{
	start_v2();
	expect(100 * MIB, 42 * MIB);
	fake_os_file("/proc/self/cgroup", "0::/app.slice\n");
	file(v2_base, "/app.slice", "memory.max", "838860800\n");
	qy_cgroup_forget();
	expect(800 * MIB, 700 * MIB);
}

/* A fork while another thread learns: the child would wait for a thread it does not have, or be told nothing for
 * ever, did it not forget. The reader stops in the middle of learning and stays there. */
static pthread_barrier_t in_the_middle, let_go;

static ssize_t read_and_wait(const char *path, char *buffer, size_t size)
{
	static __thread bool waited;

	if (!waited && strcmp(path, "/proc/self/mountinfo") == 0) {
		waited = true;
		pthread_barrier_wait(&in_the_middle);
		pthread_barrier_wait(&let_go);
	}
	return inner->read_file(path, buffer, size);
}

static void *learner(void *result)
{
	uint64_t limit = 0, usage;

	*(bool *)result = qy_cgroup_memory(&limit, &usage) && limit == 100 * MIB;
	return NULL;
}

Test(cgroup, fork_in_the_middle_of_learning)
{
	bool result = false;
	pthread_t thread;
	pid_t child;
	int status;

	start_v2();
	wrap(read_and_wait);
	pthread_barrier_init(&in_the_middle, NULL, 2);
	pthread_barrier_init(&let_go, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, learner, &result), 0);
	pthread_barrier_wait(&in_the_middle);
	expect_none(); /* nobody waits for the learner */
	child = fork();
	if (child == 0) {
		uint64_t limit = 0, usage;
		qy_os = inner;
		if (qy_cgroup_memory(&limit, &usage))
			_exit(2); /* then this test shows nothing */
		qy_cgroup_forget();
		_exit(qy_cgroup_memory(&limit, &usage) && limit == 100 * MIB ? 0 : 1);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	pthread_barrier_wait(&let_go);
	pthread_join(thread, NULL);
	cr_assert(result);
	expect(100 * MIB, 42 * MIB);
}

Test(cgroup, moved_and_the_old_group_stays)
{
	start_v2();
	fake_os_clock(1000);
	expect(100 * MIB, 42 * MIB);
	v2(v2_base, "/app.slice/other.service", "209715200\n", 7 * MIB, 0);
	fake_os_file("/proc/self/cgroup", "0::/app.slice/other.service\n");
	fake_os_advance(1999);
	expect(100 * MIB, 42 * MIB);
	fake_os_advance(1);
	expect(200 * MIB, 7 * MIB);
	/* To where there is no controller, and back. */
	fake_os_file("/proc/self/cgroup", "");
	fake_os_advance(2000);
	expect_none();
	fake_os_file("/proc/self/cgroup", "0::/app.slice/server.service\n");
	fake_os_advance(1999);
	expect_none();
	fake_os_advance(1);
	expect(100 * MIB, 42 * MIB);
}

/* Readers while the process is moved to and fro and the group that it left removed: each move makes some of them learn
 * anew under the others' eyes. The next move waits until one has. */
static _Atomic(int) stop_asking, wrong_answers, answers[2];

static void *asker(void *arg)
{
	(void)arg;
	while (!stop_asking) {
		uint64_t limit = 0, usage = 0;
		if (!qy_cgroup_memory(&limit, &usage))
			continue;
		if (limit == 100 * MIB && usage == 42 * MIB)
			answers[0]++;
		else if (limit == 200 * MIB && usage == 7 * MIB)
			answers[1]++;
		else
			wrong_answers++;
	}
	return NULL;
}

Test(cgroup, many_threads_while_the_process_is_moved, .timeout = 120)
{
	static const char *const groups[2] = { "/app.slice/server.service", "/app.slice/much-longer.name.service" };
	static const char *const owns[2] = { "0::/app.slice/server.service\n",
					     "0::/app.slice/much-longer.name.service\n" };
	static const char *const limits[2] = { "104857600\n", "209715200\n" };
	pthread_t threads[4];

	start_v2();
	v2(v2_base, groups[1], NULL, 0, 0);
	number_file(v2_base, groups[1], "memory.current", 7 * MIB);
	file(v2_base, groups[1], "memory.stat", "inactive_file 0\n");
	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, asker, NULL), 0);
	for (int i = 0; i < 200; i++) {
		const int to = i & 1, from = !to;
		int before;
		file(v2_base, groups[to], "memory.max", limits[to]);
		fake_os_file("/proc/self/cgroup", owns[to]);
		file(v2_base, groups[from], "memory.max", NULL);
		before = answers[to];
		while (answers[to] == before && wrong_answers == 0)
			sched_yield();
	}
	stop_asking = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(wrong_answers, 0);
}
