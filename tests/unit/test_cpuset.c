/* SPDX-License-Identifier: MIT */
/* Which nodes this process may use, and that a cpuset that changes under way is followed: homes of CPUs, logical
 * numbers, the nearest node. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

/* Nodes 0, 2, 65 and 1000 with a CPU each, 0 to 3, in a row: the nearest are the neighbours. */
static const int ids[] = { 0, 2, 65, 1000 };

static void machine(void)
{
	fake_os_install();
	fake_os_nodes("0,2,65,1000");
	for (int i = 0; i < 4; i++) {
		char cpu[16];
		snprintf(cpu, sizeof(cpu), "%d", i);
		fake_os_cpus(ids[i], cpu);
		for (int to = 0; to < 4; to++)
			fake_os_distance(ids[i], ids[to], 10 + 10 * (i < to ? to - i : i - to));
	}
}

static void start(void)
{
	machine();
	qy_init_once();
	qy_topology_init(true);
}

static void expect_homes(int a, int b, int c, int d)
{
	const int homes[] = { a, b, c, d };

	for (int cpu = 0; cpu < 4; cpu++) {
		fake_os_on_cpu(cpu);
		cr_assert_eq(qy_node_current(), homes[cpu], "CPU %d: %d", cpu, qy_node_current());
	}
}

Test(cpuset, homes_follow_after_a_recheck)
{
	start();
	expect_homes(0, 1, 2, 3);
	cr_assert_not(qy_nodes_recheck());
	fake_os_allowed("2,65");
	expect_homes(0, 1, 2, 3); /* not looked at yet */
	cr_assert(qy_nodes_recheck());
	expect_homes(1, 1, 2, 2);
	cr_assert_not(qy_nodes_recheck());
	fake_os_allowed("0,2,65,1000");
	cr_assert(qy_nodes_recheck());
	expect_homes(0, 1, 2, 3);
	fake_os_allowed("1000");
	cr_assert(qy_nodes_recheck());
	expect_homes(3, 3, 3, 3);
}

/* Homes that were learnt before anybody rechecked count: the first recheck compares with what they were learnt by. */
Test(cpuset, a_change_before_the_first_recheck)
{
	start();
	expect_homes(0, 1, 2, 3);
	fake_os_allowed("65");
	cr_assert(qy_nodes_recheck());
	expect_homes(2, 2, 2, 2);
}

Test(cpuset, the_first_look_is_no_change)
{
	start();
	fake_os_allowed("65");
	cr_assert_not(qy_nodes_recheck());
	cr_assert_not(qy_nodes_recheck());
	expect_homes(2, 2, 2, 2);
}

Test(cpuset, a_recheck_is_one_call_and_keeps_errno)
{
	start();
	qy_nodes_recheck();
	fake_os_forget_calls();
	errno = 99;
	for (int i = 0; i < 10; i++)
		qy_nodes_recheck();
	cr_assert_eq(fake_os_calls(FAKE_MEMS_ALLOWED), 10u);
	cr_assert_eq(fake_os_all_calls(), 10u);
	fake_os_fail_numa(EPERM);
	qy_nodes_recheck();
	cr_assert_eq(errno, 99);
}

/* From then on all are taken for allowed, and that is a change like any other. */
Test(cpuset, a_kernel_that_stops_saying)
{
	static const int errors[] = { EPERM, ENOSYS };

	for (int i = 0; i < 2; i++) {
		start();
		fake_os_allowed("2");
		expect_homes(1, 1, 1, 1);
		fake_os_fail_numa(errors[i]);
		cr_assert(qy_nodes_recheck());
		cr_assert_not(qy_nodes_recheck());
		expect_homes(0, 1, 2, 3);
		cr_assert_eq(quarry_node_count(), 4);
	}
}

Test(cpuset, one_node_is_never_asked_about)
{
	fake_os_install();
	qy_topology_init(true);
	fake_os_forget_calls();
	cr_assert_not(qy_nodes_recheck());
	cr_assert_null(qy_node_cpu_now());
	cr_assert_eq(fake_os_all_calls(), 0u);
}

/* ---- threads, while the cpuset changes ---- */

static _Atomic(bool) done;

/* What comes back is some node that is allowed by one of the two cpusets. */
static void *run_on(void *arg)
{
	int cpu = (int)(intptr_t)arg;

	fake_os_this_thread_on_cpu(cpu);
	while (!atomic_load(&done)) {
		int home = qy_node_current();
		if (home != cpu && home != 1)
			return (void *)1;
	}
	return NULL;
}

Test(cpuset, homes_are_right_after_many_changes_under_threads)
{
	pthread_t thread[3];

	start();
	for (intptr_t i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, run_on, (void *)i), 0);
	for (int i = 0; i < 2000; i++) {
		bool open = i % 2;
		fake_os_allowed(open ? "0,2,65,1000" : "2");
		qy_nodes_recheck();
		for (int cpu = 0; cpu < 3; cpu++) {
			fake_os_this_thread_on_cpu(cpu);
			cr_assert_eq(qy_node_current(), open ? cpu : 1, "round %d, CPU %d", i, cpu);
		}
	}
	atomic_store(&done, true);
	for (int i = 0; i < 3; i++) {
		void *wrong;
		pthread_join(thread[i], &wrong);
		cr_assert_null(wrong);
	}
}

/* ---- logical numbers ---- */

static void expect_nodes(int count, ...)
{
	quarry_node_info list[8] = { { .struct_size = sizeof(list[0]) } };
	va_list expected;

	cr_assert_eq(quarry_node_count(), count);
	cr_assert_eq(quarry_nodes(NULL, 0), count);
	cr_assert_eq(quarry_nodes(list, 8), count);
	va_start(expected, count);
	for (int i = 0; i < count; i++) {
		quarry_node_info info = { .struct_size = sizeof(info) };
		int id = va_arg(expected, int);
		cr_assert_eq(quarry_node_id(i), id, "index %d: %d", i, quarry_node_id(i));
		cr_assert_eq(list[i].id, id);
		cr_assert_eq(list[i].index, i);
		cr_assert_eq(quarry_node_info_get(id, &info), 0);
		cr_assert_eq(info.index, i);
	}
	va_end(expected);
	errno = 0;
	cr_assert_eq(quarry_node_id(count), -1);
	cr_assert_eq(errno, EINVAL);
}

Test(cpuset, logical_numbers_are_of_the_nodes_that_may_be_used)
{
	quarry_node_info info = { .struct_size = sizeof(info) };

	start();
	expect_nodes(4, 0, 2, 65, 1000);
	fake_os_allowed("2,65");
	expect_nodes(2, 2, 65); /* at once, without a recheck */
	cr_assert_eq(quarry_node_info_get(1000, &info), 0);
	cr_assert_eq(info.allowed, 0);
	cr_assert_eq(info.index, -1);
	cr_assert_eq(info.has_memory, 1);
	cr_assert_eq(qy_node_count(), 4, "inside all count");
	fake_os_allowed("1000");
	expect_nodes(1, 1000);
	fake_os_allowed("0,1000");
	expect_nodes(2, 0, 1000);
}

/* The kernel's list of the allowed never has a node without memory. */
Test(cpuset, a_node_of_cpus_counts_while_nothing_is_closed)
{
	quarry_node_info info = { .struct_size = sizeof(info) };

	machine();
	fake_os_memory(2, 0, 0);
	qy_init_once();
	qy_topology_init(true);
	expect_nodes(4, 0, 2, 65, 1000);
	cr_assert_eq(quarry_node_info_get(2, &info), 0);
	cr_assert_eq(info.has_memory, 0);
	cr_assert_eq(info.index, 1);
	fake_os_allowed("0,2,65");
	expect_nodes(2, 0, 65);
	cr_assert_eq(quarry_node_info_get(2, &info), 0);
	cr_assert_eq(info.index, -1);
}

Test(cpuset, as_many_nodes_as_a_kernel_can_have)
{
	static quarry_node_info list[1024];

	fake_os_install();
	fake_os_nodes("0-1023");
	fake_os_allowed("1-511,1022");
	qy_init_once();
	qy_topology_init(true);
	cr_assert_eq(quarry_node_count(), 512);
	cr_assert_eq(quarry_node_id(0), 1);
	cr_assert_eq(quarry_node_id(510), 511);
	cr_assert_eq(quarry_node_id(511), 1022);
	list[0].struct_size = sizeof(list[0]);
	cr_assert_eq(quarry_nodes(list, 4), 512);
	cr_assert_eq(list[3].id, 4);
	cr_assert_eq(list[4].struct_size, 0u, "what is beyond the given number is left alone");
}

Test(cpuset, a_made_up_node_is_open)
{
	for (int i = 0; i < 2; i++) {
		start();
		fake_os_allowed("65");
		if (i)
			fake_os_no_sysfs();
		qy_topology_init(i != 0);
		cr_assert(qy_nodes_made_up());
		expect_nodes(1, 0);
	}
	start();
	cr_assert_not(qy_nodes_made_up());
}

/* ---- the nearest ---- */

static int nearest(int from, int count, ...)
{
	quarry_nodeset set = { { 0 } };
	va_list list;

	va_start(list, count);
	while (count-- > 0)
		quarry_nodeset_add(&set, (unsigned)va_arg(list, int));
	va_end(list);
	return qy_node_nearest(&set, from);
}

Test(cpuset, the_nearest_node_of_a_set)
{
	start();
	fake_os_distance(0, 1000, 15); /* one way: the row of the one that asks counts */
	cr_assert_eq(nearest(0, 2, 65, 1000), 3);
	cr_assert_eq(nearest(3, 2, 0, 65), 2);
	cr_assert_eq(nearest(1, 4, 0, 2, 65, 1000), 1);
	cr_assert_eq(nearest(1, 2, 0, 65), 0, "of those at one distance the first");
	fake_os_distance(65, 0, 10);
	qy_topology_init(true);
	cr_assert_eq(nearest(2, 2, 0, 65), 2, "none is nearer than itself, whatever the firmware says");
	cr_assert_eq(nearest(-1, 2, 65, 1000), 2, "from nowhere, the first");
	cr_assert_eq(nearest(0, 0), -1);
	cr_assert_eq(nearest(0, 2, 1, 1023), -1, "no such nodes");
	fake_os_allowed("0,1000");
	cr_assert_eq(nearest(2, 3, 2, 65, 1000), 3);
	cr_assert_eq(nearest(2, 2, 2, 65), -1, "none of them is allowed");
	fake_os_allowed("0,2,65,1000");
	fake_os_memory(1000, 0, 0);
	fake_os_fail_numa(EPERM); /* so that has_memory alone says it */
	qy_topology_init(true);
	cr_assert_eq(nearest(3, 1, 1000), -1, "no memory there");
	cr_assert_eq(nearest(3, 2, 0, 1000), 0);
}

Test(cpuset, the_nearest_when_distances_are_not_told)
{
	start();
	fake_os_file("/sys/devices/system/node/node65/distance", NULL);
	cr_assert_eq(nearest(2, 2, 2, 1000), 1);
	cr_assert_eq(nearest(2, 2, 65, 1000), 2, "itself all the same");
}

/* ---- rseq ---- */

Test(cpuset, where_the_current_cpu_can_be_read)
{
	struct qy_os table;
	const volatile int32_t *now;
	cpu_set_t one;

	start();
	cr_assert_null(qy_node_cpu_now(), "the fake's getcpu is not this machine's");
	table = *qy_os;
	table.getcpu = qy_os_linux.getcpu;
	qy_os = &table;
	qy_topology_init(true);
	now = qy_node_cpu_now();
	if (!qy_node_by_rseq()) {
		cr_assert_null(now);
		return;
	}
	cr_assert_not_null(now);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	cr_assert_eq(*now, sched_getcpu());
}
