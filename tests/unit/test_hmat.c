/* SPDX-License-Identifier: MIT */
/* Bandwidth, latency and the best node, on a machine whose firmware tells of them (HMAT). What hwloc reads is a tree of
 * files as Linux has it below /sys, which the test writes; the same machine is played by the fake kernel.
 *
 *	node 2: CPUs 0-1, 4 GiB		node 66: behind it, 8 GiB, slow
 *	node 0: CPUs 2-3, 4 GiB		node 65: behind it, 1 GiB, of high bandwidth and late
 *
 * hwloc's order is 2, 66, 0, 65: a number that is taken for the other kind shows. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

#define GIB (UINT64_C(1) << 30)

#define EXPECT_ERROR(call, err)                                                 \
	do {                                                                    \
		errno = 0;                                                      \
		cr_assert_eq((call), -1);                                       \
		cr_assert_eq(errno, (err), "errno is %s", strerror(errno));     \
	} while (0)

enum { NODES = 4 };

static const struct machine_node {
	int id, initiator;
	const char *cpus, *cpumap;
	uint64_t total, available;
	unsigned bandwidth, latency; /* 0: no such file */
} machine[NODES] = {
	{ 0, 0, "2-3", "c", 4 * GIB, 1 * GIB, 20000, 80 },
	{ 2, 2, "0-1", "3", 4 * GIB, 3 * GIB, 20000, 80 },
	{ 65, 0, "", "0", 1 * GIB, 1 * GIB, 90000, 120 },
	{ 66, 2, "", "0", 8 * GIB, 2 * GIB, 5000, 300 },
};

static const int distance[NODES][NODES] = {
	{ 10, 21, 17, 38 },
	{ 21, 10, 31, 17 },
	{ 17, 31, 10, 48 },
	{ 38, 17, 48, 10 },
};

static char root[64];

/* ---- the tree ---- */

static void put(const char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(const char *text, const char *format, ...)
{
	char path[256];
	size_t used = (size_t)snprintf(path, sizeof(path), "%s", root);
	va_list args;
	FILE *file;

	va_start(args, format);
	vsnprintf(path + used, sizeof(path) - used, format, args);
	va_end(args);
	for (char *slash = path + used + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		cr_assert(mkdir(path, 0700) == 0 || errno == EEXIST, "%s: %s", path, strerror(errno));
		*slash = '/';
	}
	file = fopen(path, "w");
	cr_assert_not_null(file, "%s: %s", path, strerror(errno));
	fprintf(file, "%s\n", text);
	fclose(file);
}

static void put_number(unsigned number, int node, const char *leaf)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", number);
	if (number)
		put(text, "/sys/devices/system/node/node%d/access0/initiators/%s", node, leaf);
}

static void write_cpus(void)
{
	static const char *const lists[] = { "online", "possible", "present" };

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		put("0-3", "/sys/devices/system/cpu/%s", lists[i]);
	for (int cpu = 0; cpu < 4; cpu++) {
		char text[16];
		snprintf(text, sizeof(text), "%x", 1u << cpu);
		put(text, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings", cpu);
		put(cpu < 2 ? "3" : "c", "/sys/devices/system/cpu/cpu%d/topology/core_siblings", cpu);
		put(cpu < 2 ? "0" : "1", "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
		snprintf(text, sizeof(text), "%d", cpu);
		put(text, "/sys/devices/system/cpu/cpu%d/topology/core_id", cpu);
	}
}

static void write_node(int i, bool hmat)
{
	const struct machine_node *node = &machine[i];
	char text[256], path[256];

	put(node->cpumap, "/sys/devices/system/node/node%d/cpumap", node->id);
	snprintf(text, sizeof(text), "%d %d %d %d", distance[i][0], distance[i][1], distance[i][2], distance[i][3]);
	put(text, "/sys/devices/system/node/node%d/distance", node->id);
	snprintf(text, sizeof(text), "Node %d MemTotal:       %lu kB\nNode %d MemFree:        %lu kB", node->id,
		 (unsigned long)(node->total / 1024), node->id, (unsigned long)(node->available / 1024));
	put(text, "/sys/devices/system/node/node%d/meminfo", node->id);
	if (!hmat)
		return;
	put_number(node->bandwidth, node->id, "read_bandwidth");
	put_number(node->bandwidth, node->id, "write_bandwidth");
	put_number(node->latency, node->id, "read_latency");
	put_number(node->latency, node->id, "write_latency");
	snprintf(path, sizeof(path), "%s/sys/devices/system/node/node%d/access0/initiators/node%d", root, node->id,
		 node->initiator);
	snprintf(text, sizeof(text), "../../../node%d", node->initiator);
	cr_assert_eq(symlink(text, path), 0);
}

static void write_tree(bool hmat)
{
	snprintf(root, sizeof(root), "/tmp/quarry-hmat-XXXXXX");
	cr_assert_not_null(mkdtemp(root));
	write_cpus();
	put("0,2,65-66", "/sys/devices/system/node/online");
	put("0,2,65-66", "/sys/devices/system/node/possible");
	for (int i = 0; i < NODES; i++)
		write_node(i, hmat);
	unsetenv("HWLOC_XMLFILE");
	unsetenv("HWLOC_SYNTHETIC");
	setenv("HWLOC_FSROOT", root, 1);
	setenv("HWLOC_COMPONENTS", "linux,stop", 1);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	(void)status;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_tree(void)
{
	if (root[0])
		nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- the same by the kernel ---- */

static void start(bool hmat)
{
	write_tree(hmat);
	fake_os_install();
	fake_os_nodes("0,2,65-66");
	for (int i = 0; i < NODES; i++) {
		fake_os_cpus(machine[i].id, machine[i].cpus);
		fake_os_memory(machine[i].id, machine[i].total, machine[i].available);
		for (int to = 0; to < NODES; to++)
			fake_os_distance(machine[i].id, machine[to].id, distance[i][to]);
	}
	fake_os_on_cpu(0);
	qy_init_once();
	qy_topology_init(true);
}

static void expect_value(int node, int attr, int cpu, uint64_t expected)
{
	uint64_t value = 0;

	cr_assert_eq(quarry_node_attr_get(node, attr, cpu, &value), 0, "node %d, attribute %d: %s", node, attr,
		     strerror(errno));
	cr_assert_eq(value, expected, "node %d, attribute %d, CPU %d: %lu", node, attr, cpu, (unsigned long)value);
}

TestSuite(hmat, .fini = remove_tree);

Test(hmat, values_as_the_firmware_tells_them)
{
	uint64_t value;

	start(true);
	for (int i = 0; i < NODES; i++) {
		expect_value(machine[i].id, QUARRY_ATTR_BANDWIDTH, -1, machine[i].bandwidth);
		expect_value(machine[i].id, QUARRY_ATTR_LATENCY, -1, machine[i].latency);
		expect_value(machine[i].id, QUARRY_ATTR_CAPACITY, -1, machine[i].total);
		expect_value(machine[i].id, QUARRY_ATTR_FREE, -1, machine[i].available);
	}
	expect_value(65, QUARRY_ATTR_BANDWIDTH, 3, 90000);
	EXPECT_ERROR(quarry_node_attr_get(65, QUARRY_ATTR_BANDWIDTH, 0, &value), ENODATA); /* told of local pairs
	                                                                                    * alone */
	EXPECT_ERROR(quarry_node_attr_get(1, QUARRY_ATTR_BANDWIDTH, 0, &value), EINVAL);
	EXPECT_ERROR(quarry_node_attr_get(65, QUARRY_ATTR_DISTANCE + 1, 0, &value), EINVAL);
}

Test(hmat, distances_as_an_attribute)
{
	uint64_t value;

	start(true);
	expect_value(66, QUARRY_ATTR_DISTANCE, 0, 17);
	expect_value(66, QUARRY_ATTR_DISTANCE, 3, 38);
	expect_value(2, QUARRY_ATTR_DISTANCE, -1, 10);
	expect_value(66, QUARRY_ATTR_DISTANCE, -1, 17); /* from the CPUs that reach it best, node 2's */
	EXPECT_ERROR(quarry_node_attr_get(66, QUARRY_ATTR_DISTANCE, 4, &value), EINVAL);
	EXPECT_ERROR(quarry_node_attr_get(66, QUARRY_ATTR_DISTANCE, -2, &value), EINVAL);
	EXPECT_ERROR(quarry_node_attr_get(66, QUARRY_ATTR_FREE, 0, NULL), EINVAL);
}

Test(hmat, the_nodes_with_all_that_is_known)
{
	quarry_node_info list[NODES + 1] = { { .struct_size = sizeof(list[0]) } };

	start(true);
	cr_assert_eq(quarry_nodes(list, NODES + 1), NODES);
	for (int i = 0; i < NODES; i++) {
		cr_assert_eq(list[i].struct_size, sizeof(list[0]));
		cr_assert_eq(list[i].id, machine[i].id);
		cr_assert_eq(list[i].index, i);
		cr_assert_eq(list[i].memory_total, machine[i].total);
		cr_assert_eq(list[i].bandwidth, machine[i].bandwidth);
		cr_assert_eq(list[i].latency, machine[i].latency);
	}
	cr_assert_eq(list[NODES].struct_size, 0u);
}

Test(hmat, the_best_node)
{
	start(true);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 2), 65);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 0), 2); /* 65 is not told from here */
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_LATENCY, 2), 0);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_LATENCY, 1), 2);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_CAPACITY, 2), 66);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_FREE, 2), 2);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, 3), 0);
	/* without a CPU, the caller's */
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, -1), 2);
	fake_os_on_cpu(3);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, -1), 65);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, -1), 0);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 4), EINVAL);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_BANDWIDTH, -2), EINVAL);
	EXPECT_ERROR(quarry_node_best(-1, 0), EINVAL);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_DISTANCE + 1, 0), EINVAL);
}

Test(hmat, the_best_of_equal_ones_is_the_nearest)
{
	start(true);
	fake_os_memory(0, 4 * GIB, 2 * GIB);
	fake_os_memory(2, 4 * GIB, 1 * GIB);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_FREE, 0), 66); /* 2 GiB as on node 0, which is farther off */
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_FREE, 2), 0);
}

Test(hmat, the_best_that_may_be_used)
{
	start(true);
	fake_os_allowed("0,66");
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 2), 0);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 0), 66);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, 0), 66);
	fake_os_allowed("65");
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_CAPACITY, 0), 65);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_LATENCY, 0), ENODATA);
	fake_os_allowed("0,2,65-66"); /* and back */
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 2), 65);
}

/* A node of CPUs alone is the best for nothing, though it is nearest to them. */
Test(hmat, a_node_without_memory_is_never_best)
{
	write_tree(true);
	fake_os_install();
	fake_os_nodes("0,2,65-66");
	fake_os_cpus(0, "2-3");
	fake_os_cpus(2, "0-1");
	fake_os_memory(0, 0, 0);
	fake_os_distance(0, 65, 17);
	qy_init_once();
	qy_topology_init(true);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, 2), 65);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 2), 65);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_FREE, 2), 65);
	fake_os_fail_numa(EPERM); /* all are taken for allowed: still not this one */
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, 2), 65);
}

Test(hmat, a_firmware_that_tells_nothing)
{
	quarry_node_info list[NODES] = { { .struct_size = sizeof(list[0]) } };

	start(false);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 0), ENODATA);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_LATENCY, -1), ENODATA);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_CAPACITY, 0), 66);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, 0), 2);
	cr_assert_eq(quarry_nodes(list, NODES), NODES);
	for (int i = 0; i < NODES; i++)
		cr_assert_eq(list[i].bandwidth | list[i].latency, 0u);
}

/* What hwloc cannot tell, the kernel can, of capacity at least. */
Test(hmat, no_hwloc)
{
	uint64_t value;

	start(true);
	setenv("HWLOC_XMLFILE", "/dev/null", 1);
	unsetenv("HWLOC_FSROOT");
	unsetenv("HWLOC_COMPONENTS");
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_BANDWIDTH, 0), ENOSYS);
	EXPECT_ERROR(quarry_node_attr_get(2, QUARRY_ATTR_LATENCY, 0, &value), ENOSYS);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_CAPACITY, 0), 66);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_FREE, 0), 2);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_DISTANCE, 2), 0);
	expect_value(66, QUARRY_ATTR_CAPACITY, -1, 8 * GIB);
}

/* It stands for the whole machine, of which hwloc's node 0 is a part. */
Test(hmat, a_made_up_node_has_the_machines_capacity)
{
	uint64_t value;

	start(true);
	qy_topology_init(false);
	expect_value(0, QUARRY_ATTR_CAPACITY, -1, 17 * GIB);
	EXPECT_ERROR(quarry_node_attr_get(0, QUARRY_ATTR_BANDWIDTH, -1, &value), ENODATA);
	cr_assert_eq(quarry_node_best(QUARRY_ATTR_CAPACITY, -1), 0);
	EXPECT_ERROR(quarry_node_best(QUARRY_ATTR_LATENCY, -1), ENODATA);
}
