/* SPDX-License-Identifier: MIT */
/* The topology on machines that the fake kernel plays, and on this one with libnuma as the oracle. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "numa/topology.h"
#include "tests/fake_os.h"

#define GIB (UINT64_C(1) << 30)

static void start(const char *nodes)
{
	fake_os_install();
	fake_os_nodes(nodes);
	qy_topology_init(true);
	fake_os_forget_calls();
}

static void expect_one_node(void)
{
	cr_assert_eq(qy_node_count(), 1);
	cr_assert_eq(qy_node_kernel_id(0), 0);
	cr_assert_eq(qy_node_kernel_id(1), -1);
	cr_assert_eq(qy_node_dense(0), 0);
	cr_assert_eq(qy_node_dense(1), -1);
	cr_assert_eq(qy_node_current(), 0);
}

Test(topology, start_reads_one_file_and_nothing_else)
{
	fake_os_install();
	fake_os_nodes("0-7");
	qy_topology_init(true);
	cr_assert_eq(fake_os_calls(FAKE_READ_FILE), 1);
	cr_assert_eq(fake_os_all_calls(), 1);
	cr_assert_eq(fake_os_calls(FAKE_GETCPU), 0);
	cr_assert_eq(qy_node_count(), 8);
}

Test(topology, one_node_is_never_asked_about)
{
	start("0");
	fake_os_forget_calls();
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(qy_node_current(), 0);
	cr_assert_eq(fake_os_all_calls() + fake_os_calls(FAKE_GETCPU), 0);
}

Test(topology, works_before_it_is_started)
{
	expect_one_node();
	cr_assert(qy_node_allowed(0));
	cr_assert_eq(qy_node_distance(0, 0), 10);
}

Test(topology, ids_with_holes_and_over_63)
{
	static const int ids[] = { 0, 2, 65, 1000 };

	start("0,2,65,1000");
	cr_assert_eq(qy_node_count(), 4);
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(qy_node_kernel_id(i), ids[i]);
		cr_assert_eq(qy_node_dense(ids[i]), i);
	}
	for (int id = -2; id < 1100; id++)
		if (id != 0 && id != 2 && id != 65 && id != 1000)
			cr_assert_eq(qy_node_dense(id), -1, "%d", id);
	cr_assert_eq(qy_node_kernel_id(-1), -1);
	cr_assert_eq(qy_node_kernel_id(4), -1);
}

Test(topology, as_many_nodes_as_a_kernel_can_have)
{
	quarry_nodeset set;

	fake_os_install();
	fake_os_nodes("0-1023");
	fake_os_distance(1023, 7, 251);
	fake_os_cpus(1023, "12");
	fake_os_on_cpu(12);
	qy_topology_init(true);
	cr_assert_eq(qy_node_count(), 1024);
	cr_assert_eq(qy_node_kernel_id(1023), 1023);
	cr_assert_eq(qy_node_distance(1023, 1023), 10);
	cr_assert_eq(qy_node_distance(1023, 7), 251);
	cr_assert_eq(qy_node_distance(1023, 8), 20);
	cr_assert_eq(qy_node_current(), 1023);
	cr_assert_eq(qy_node_of_cpu(12), 1023);
	qy_nodes_allowed(&set);
	for (unsigned n = 0; n < 1024; n++)
		cr_assert(quarry_nodeset_has(&set, n));
}

Test(topology, every_other_id_of_1024)
{
	char list[4096] = "1";

	for (int n = 3; n < 1024; n += 2)
		sprintf(list + strlen(list), ",%d", n);
	start(list);
	cr_assert_eq(qy_node_count(), 512);
	for (int i = 0; i < 512; i++)
		cr_assert_eq(qy_node_kernel_id(i), 2 * i + 1);
}

/* Any set of ids, against the set itself. QUARRY_TEST_SEED repeats one. */
Test(topology, random_sets_of_ids)
{
	const char *given = getenv("QUARRY_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 20240611u;

	fprintf(stderr, "random_sets_of_ids: seed %u\n", seed);
	fake_os_install();
	for (int round = 0; round < 200; round++) {
		bool in[1024] = { false };
		char list[8192] = "";
		int count = 0, dense = 0;
		int density = 1 + rand_r(&seed) % 100;
		for (int n = 0; n < 1024; n++)
			if (rand_r(&seed) % 100 < density) {
				in[n] = true;
				count++;
				sprintf(list + strlen(list), "%s%d", *list ? "," : "", n);
			}
		if (count == 0)
			continue;
		fake_os_nodes(list);
		qy_topology_init(true);
		cr_assert_eq(qy_node_count(), count, "round %d", round);
		for (int n = 0; n < 1024; n++) {
			cr_assert_eq(qy_node_dense(n), in[n] ? dense : -1, "round %d, node %d", round, n);
			dense += in[n];
		}
	}
}

Test(topology, no_sysfs_at_all)
{
	quarry_node_info info;

	fake_os_install();
	fake_os_nodes("0-3");
	fake_os_no_sysfs();
	qy_topology_init(true);
	expect_one_node();
	cr_assert(qy_node_allowed(0));
	cr_assert(qy_node_has_memory(0));
	cr_assert(qy_node_has_cpus(0));
	cr_assert_eq(qy_node_distance(0, 0), 10);
	cr_assert_eq(qy_node_of_cpu(3), 0);
	cr_assert_eq(qy_node_of_cpu(-1), -1);
	cr_assert_eq(qy_node_huge_free(0, 21), 0);
	fake_os_total_memory(7 * GIB);
	cr_assert_eq(qy_node_info(0, &info), 0);
	cr_assert_eq(info.memory_total, 7 * GIB);
	cr_assert_eq(info.memory_free, 0);
	cr_assert_eq(info.huge_free_2m, 0);
	cr_assert_eq(info.has_memory, 1);
}

Test(topology, a_kernel_without_numa_still_tells_its_memory)
{
	quarry_node_info info;

	fake_os_install();
	fake_os_memory(0, 5 * GIB, 2 * GIB);
	fake_os_pool(0, 21, 12);
	fake_os_file("/sys/devices/system/node/online", NULL);
	qy_topology_init(true);
	expect_one_node();
	cr_assert_eq(qy_node_info(0, &info), 0);
	cr_assert_eq(info.memory_total, 5 * GIB);
	cr_assert_eq(info.memory_free, 2 * GIB);
	cr_assert_eq(info.huge_free_2m, 12);
}

Test(topology, lists_that_make_no_sense)
{
	static const char *const bad[] = {
		"", "\n", "\n\n", "x", "0-", "-3", "3-1", "0,", ",0", "0,,1", "0 1", "0-1-2", "0,1024", "1024",
		"0-4096", "99999999999999999999", "0-99999999999999999999", "0x1", "0,1\n2",
		"0;1", "0,1 ", "\xff\xfe\x01",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fake_os_install();
		fake_os_nodes("0-3");
		fake_os_file("/sys/devices/system/node/online", bad[i]);
		qy_topology_init(true);
		cr_assert_eq(qy_node_count(), 1, "list \"%s\"", bad[i]);
		expect_one_node();
	}
}

/* More than sysfs ever gives: what is behind the buffer's end could change what was read. */
Test(topology, a_list_too_long_to_be_read_whole)
{
	char list[6000] = "";

	for (int i = 0; i < 1900; i++)
		strcat(list, "11,");
	strcat(list, "7");
	fake_os_install();
	for (size_t len = 4094; len < 4110; len++) { /* cut at any place near a page's end */
		char shorter[6000];
		memcpy(shorter, list, len);
		shorter[len] = 0;
		fake_os_file("/sys/devices/system/node/online", shorter);
		qy_topology_init(true);
		if (len < 4096 && len % 3 == 2) {
			cr_assert_eq(qy_node_count(), 1);
			cr_assert_eq(qy_node_kernel_id(0), 11);
		} else if (len < 4096 && len % 3 == 1) {
			cr_assert_eq(qy_node_count(), 2); /* 1 and 11 */
		} else {
			expect_one_node();
		}
	}
}

Test(topology, reading_that_fails)
{
	static const int errors[] = { EPERM, EACCES, ENOENT, EMFILE, ENFILE, ENOSYS, EIO };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		fake_os_install();
		fake_os_nodes("0-3");
		fake_os_fail(FAKE_READ_FILE, errors[i]);
		qy_topology_init(true);
		expect_one_node();
	}
}

Test(topology, other_files_garbage_or_missing)
{
	static const char *const texts[] = { NULL, "", "rubbish", "0-", "10 20 30 40 50 60 70", "-1", "zz,ffffffff" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		quarry_node_info info;
		fake_os_install();
		fake_os_nodes("0,5");
		fake_os_cpus(5, "0-3");
		fake_os_file("/sys/devices/system/node/has_memory", texts[i]);
		fake_os_file("/sys/devices/system/node/has_cpu", texts[i]);
		fake_os_file("/sys/devices/system/node/node0/distance", texts[i]);
		fake_os_file("/sys/devices/system/node/node5/distance", texts[i]);
		fake_os_file("/sys/devices/system/node/node0/meminfo", texts[i]);
		fake_os_file("/sys/devices/system/node/node0/cpumap", texts[i]);
		fake_os_file("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", NULL);
		qy_topology_init(true);
		cr_assert_eq(qy_node_count(), 2);
		cr_assert(qy_node_has_memory(0) && qy_node_has_memory(1));
		cr_assert(qy_node_has_cpus(0) && qy_node_has_cpus(1));
		cr_assert_eq(qy_node_distance(0, 1), -1, "text %zu", i);
		cr_assert_eq(qy_node_distance(1, 1), 10);
		cr_assert_eq(qy_node_current(), 1);
		cr_assert_eq(qy_node_of_cpu(2), 1);
		cr_assert_eq(qy_node_info(0, &info), 0);
		cr_assert_eq(info.memory_total, 0);
		cr_assert_eq(info.has_memory, -1);
		cr_assert_eq(info.has_cpus, -1);
		cr_assert_eq(info.huge_free_2m, 0);
	}
}

Test(topology, option_numa_off)
{
	quarry_nodeset set;

	fake_os_install();
	fake_os_nodes("0-3");
	qy_topology_init(false);
	expect_one_node();
	cr_assert_eq(fake_os_all_calls(), 0);
	qy_nodes_allowed(&set);
	cr_assert(quarry_nodeset_has(&set, 0));
	cr_assert_not(quarry_nodeset_has(&set, 1));
}

Test(topology, distances_are_read_once_and_per_node)
{
	start("0,2,65");
	fake_os_distance(0, 65, 32);
	fake_os_distance(65, 0, 33);
	cr_assert_eq(qy_node_distance(0, 2), 32);
	cr_assert_eq(qy_node_distance(0, 1), 20);
	cr_assert_eq(qy_node_distance(0, 0), 10);
	cr_assert_eq(fake_os_calls(FAKE_READ_FILE), 1);
	cr_assert_eq(qy_node_distance(2, 0), 33);
	cr_assert_eq(fake_os_calls(FAKE_READ_FILE), 2);
	cr_assert_eq(qy_node_distance(0, 3), -1);
	cr_assert_eq(qy_node_distance(-1, 0), -1);
}

Test(topology, distances_of_another_number_of_nodes_are_nobodys)
{
	start("0-2");
	fake_os_file("/sys/devices/system/node/node0/distance", "10 20\n");
	fake_os_file("/sys/devices/system/node/node1/distance", "10 20 30 40\n");
	fake_os_file("/sys/devices/system/node/node2/distance", "1000 255 10\n");
	cr_assert_eq(qy_node_distance(0, 1), -1);
	cr_assert_eq(qy_node_distance(1, 2), -1);
	cr_assert_eq(qy_node_distance(1, 1), 10);
	cr_assert_eq(qy_node_distance(2, 0), 255);
}

Test(topology, a_node_without_memory_allocates_at_its_nearest)
{
	fake_os_install();
	fake_os_nodes("0-3");
	for (int n = 0; n < 4; n++) {
		char cpu[16];
		snprintf(cpu, sizeof(cpu), "%d", n);
		fake_os_cpus(n, cpu);
	}
	fake_os_memory(1, 0, 0);
	fake_os_distance(1, 0, 31);
	fake_os_distance(1, 2, 30);
	fake_os_distance(1, 3, 12);
	qy_topology_init(true);
	for (int n = 0; n < 4; n++) {
		fake_os_on_cpu(n);
		cr_assert_eq(qy_node_current(), n == 1 ? 3 : n);
	}
	cr_assert_not(qy_node_has_memory(1));
	cr_assert_eq(qy_node_of_cpu(1), 1, "the CPU's own node is what it is");
}

Test(topology, a_cpuset_moves_the_home)
{
	fake_os_install();
	fake_os_nodes("0,2,65,1000");
	fake_os_cpus(0, "0");
	fake_os_cpus(1000, "1");
	fake_os_distance(0, 65, 15);
	fake_os_distance(0, 2, 25);
	fake_os_distance(1000, 2, 11);
	fake_os_allowed("2,65");
	qy_topology_init(true);
	cr_assert_not(qy_node_allowed(0));
	cr_assert(qy_node_allowed(1) && qy_node_allowed(2));
	cr_assert_not(qy_node_allowed(3));
	cr_assert_not(qy_node_allowed(4));
	fake_os_on_cpu(0);
	cr_assert_eq(qy_node_current(), 2);
	fake_os_on_cpu(1);
	cr_assert_eq(qy_node_current(), 1);
	/* what the kernel says now counts, not what it said */
	fake_os_allowed("0");
	cr_assert(qy_node_allowed(0));
	cr_assert_not(qy_node_allowed(1));
}

Test(topology, a_kernel_that_will_not_say_what_is_allowed)
{
	static const int errors[] = { EPERM, ENOSYS, EINVAL };
	quarry_nodeset set;

	for (size_t i = 0; i < 3; i++) {
		start("1,3");
		fake_os_cpus(3, "0");
		fake_os_allowed("1");
		fake_os_fail_numa(errors[i]);
		cr_assert(qy_node_allowed(0) && qy_node_allowed(1));
		qy_nodes_allowed(&set);
		cr_assert(quarry_nodeset_has(&set, 1) && quarry_nodeset_has(&set, 3));
		cr_assert_not(quarry_nodeset_has(&set, 0));
		cr_assert_eq(qy_node_current(), 1);
	}
}

Test(topology, memory_only_nodes)
{
	fake_os_install();
	fake_os_nodes("0-2");
	fake_os_cpus(0, "0-7");
	fake_os_cpus(1, "8-15");
	qy_topology_init(true);
	cr_assert(qy_node_has_cpus(0) && qy_node_has_cpus(1));
	cr_assert_not(qy_node_has_cpus(2));
	cr_assert(qy_node_has_memory(2));
	for (int cpu = 0; cpu < 16; cpu++)
		cr_assert_eq(qy_node_of_cpu(cpu), cpu / 8);
	cr_assert_eq(qy_node_of_cpu(16), -1);
	cr_assert_eq(qy_node_of_cpu(-5), -1);
}

Test(topology, cpus_of_alternating_nodes_and_beyond_the_table)
{
	char even[8192] = "0", odd[8192] = "1";

	for (int cpu = 2; cpu < 1024; cpu += 2) {
		sprintf(even + strlen(even), ",%d", cpu);
		sprintf(odd + strlen(odd), ",%d", cpu + 1);
	}
	strcat(odd, ",9000");
	fake_os_install();
	fake_os_nodes("4,9");
	fake_os_cpus(4, even);
	fake_os_cpus(9, odd);
	qy_topology_init(true);
	for (int cpu = 0; cpu < 1024; cpu++)
		cr_assert_eq(qy_node_of_cpu(cpu), cpu % 2);
	cr_assert_eq(qy_node_of_cpu(9000), 1);
	cr_assert_eq(qy_node_of_cpu(9001), -1);
	fake_os_on_cpu(9000);
	cr_assert_eq(qy_node_current(), 1);
	fake_os_on_cpu(500);
	cr_assert_eq(qy_node_current(), 0);
}

Test(topology, a_cpu_of_a_node_that_is_not_online_and_no_getcpu)
{
	start("3,7"); /* the fake says node 0 for a CPU that no node has */
	fake_os_memory(3, 0, 0);
	fake_os_on_cpu(40);
	cr_assert_eq(qy_node_current(), 1);
	cr_assert_eq(qy_node_of_cpu(40), -1);
	fake_os_fail(FAKE_GETCPU, ENOSYS);
	errno = 99;
	cr_assert_eq(qy_node_current(), 1);
	cr_assert_eq(errno, 99);
}

Test(topology, errno_is_kept_where_malloc_comes_by)
{
	start("0-1");
	fake_os_fail(FAKE_READ_FILE, EMFILE);
	fake_os_fail_numa(EPERM);
	errno = 99;
	qy_node_current();
	cr_assert_eq(errno, 99);
}

Test(topology, nothing_allowed_has_memory)
{
	start("0-1");
	fake_os_cpus(1, "0");
	fake_os_file("/sys/devices/system/node/has_memory", "0");
	fake_os_allowed("1");
	cr_assert_eq(qy_node_current(), 1);
}

Test(topology, figures_of_a_node_are_read_anew)
{
	quarry_node_info info;

	start("0,8");
	fake_os_memory(8, 64 * GIB, 3 * GIB);
	fake_os_pool(8, 21, 100);
	fake_os_pool(8, 30, 2);
	cr_assert_eq(qy_node_info(1, &info), 0);
	cr_assert_eq(info.id, 8);
	cr_assert_eq(info.memory_total, 64 * GIB);
	cr_assert_eq(info.memory_free, 3 * GIB);
	cr_assert_eq(info.huge_free_2m, 100);
	cr_assert_eq(info.huge_free_1g, 2);
	cr_assert_eq(info.has_memory, 1);
	cr_assert_eq(info.has_cpus, -1, "no node has a CPU here, which cannot be");
	cr_assert_eq(info.allowed, 1);
	fake_os_memory(8, 64 * GIB, GIB);
	fake_os_pool(8, 21, 7);
	cr_assert_eq(qy_node_info(1, &info), 0);
	cr_assert_eq(info.memory_free, GIB);
	cr_assert_eq(info.huge_free_2m, 7);
	cr_assert_eq(qy_node_huge_free(1, 30), 2);
	cr_assert_eq(qy_node_huge_free(1, 25), 0);
	cr_assert_eq(qy_node_huge_free(1, 9), 0);
	cr_assert_eq(qy_node_huge_free(2, 21), 0);
	errno = 0;
	cr_assert_eq(qy_node_info(2, &info), -1);
	cr_assert_eq(errno, EINVAL);
}

/* With the machine's own getcpu, rseq may answer: then a CPU that was met costs no call at all. */
static unsigned long getcpus;
static int counting_getcpu(unsigned *cpu, unsigned *node)
{
	getcpus++;
	return qy_os_linux.getcpu(cpu, node);
}

Test(topology, rseq_saves_the_call)
{
	struct qy_os table;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	fake_os_install();
	fake_os_nodes("0,1");
	fake_os_memory(0, 0, 0); /* so that the answer is not what a mistake would give */
	table = *qy_os;
	table.getcpu = qy_os_linux.getcpu;
	qy_os = &table;
	qy_topology_init(true);
	cr_assert_eq(qy_node_current(), 1);
	table.getcpu = counting_getcpu; /* after the start: rseq stays in use */
	fake_os_forget_calls();
	for (int i = 0; i < 100; i++)
		cr_assert_eq(qy_node_current(), 1);
	cr_assert_eq(fake_os_all_calls(), 0);
	cr_assert_eq(getcpus, qy_node_by_rseq() ? 0u : 100u);
}

static void *meet(void *arg)
{
	int cpu = (int)(intptr_t)arg, wanted = cpu % 2 ? 2 : 1;

	for (int i = 0; i < 20000; i++) {
		fake_os_this_thread_on_cpu((cpu + 2 * i) % 64);
		if (qy_node_current() != wanted || qy_node_distance(1, 2) != 17 || !qy_node_has_memory(1))
			return (void *)1;
	}
	return NULL;
}

Test(topology, many_threads_learn_at_once)
{
	pthread_t thread[4];
	char even[512] = "0", odd[512] = "1";

	for (int cpu = 2; cpu < 64; cpu += 2) {
		sprintf(even + strlen(even), ",%d", cpu);
		sprintf(odd + strlen(odd), ",%d", cpu + 1);
	}
	fake_os_install();
	fake_os_nodes("0-2");
	fake_os_cpus(0, even);
	fake_os_cpus(2, odd);
	fake_os_memory(0, 0, 0);
	fake_os_distance(0, 1, 11);
	fake_os_distance(1, 2, 17);
	qy_topology_init(true);
	for (intptr_t i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, meet, (void *)i), 0);
	for (int i = 0; i < 4; i++) {
		void *wrong;
		pthread_join(thread[i], &wrong);
		cr_assert_null(wrong);
	}
}

Test(topology, this_machine_as_libnuma_sees_it)
{
	int count = 0;

	if (numa_available() < 0)
		cr_skip_test("libnuma does not work here");
	qy_topology_init(true);
	for (int id = 0; id <= numa_max_node(); id++) {
		int dense = qy_node_dense(id);
		quarry_node_info info;
		if (!numa_bitmask_isbitset(numa_nodes_ptr, (unsigned)id))
			continue;
		count++;
		cr_assert_geq(dense, 0);
		cr_assert_eq(qy_node_kernel_id(dense), id);
		cr_assert_eq(qy_node_info(dense, &info), 0);
		cr_assert_eq((long long)info.memory_total, numa_node_size64(id, NULL));
		cr_assert_eq(qy_node_allowed(dense), numa_bitmask_isbitset(numa_get_mems_allowed(), (unsigned)id));
		for (int to = 0; to <= numa_max_node(); to++)
			if (qy_node_dense(to) >= 0)
				cr_assert_eq(qy_node_distance(dense, qy_node_dense(to)), numa_distance(id, to));
	}
	cr_assert_eq(count, numa_num_configured_nodes());
	cr_assert_leq(count, qy_node_count());
	for (int cpu = 0; cpu < numa_num_configured_cpus(); cpu++) {
		int id = numa_node_of_cpu(cpu);
		if (id >= 0)
			cr_assert_eq(qy_node_kernel_id(qy_node_of_cpu(cpu)), id, "CPU %d", cpu);
	}
	cr_assert_eq(qy_node_kernel_id(qy_node_current()), numa_node_of_cpu(sched_getcpu()));
}
