/* SPDX-License-Identifier: MIT */
/* The nodes by the public functions: kernel ids, errno, a struct that grows. The library has started on this machine by
 * the time a test runs; its topology is then read anew, on the machine that the fake kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

#define GIB (UINT64_C(1) << 30)

#define EXPECT_ERROR(call, err)                 \
	do {                                    \
		errno = 0;                      \
		cr_assert_eq((call), -1);       \
		cr_assert_eq(errno, (err));     \
	} while (0)

static void machine(void)
{
	fake_os_install();
	fake_os_nodes("0,2,65");
	fake_os_cpus(0, "0-3");
	fake_os_cpus(65, "4-7");
	fake_os_memory(2, 8 * GIB, 5 * GIB);
	fake_os_distance(0, 65, 31);
	fake_os_pool(2, 21, 9);
	fake_os_on_cpu(5);
}

static void start(void)
{
	qy_init_once();
	qy_topology_init(true);
}

Test(nodes, names_and_places)
{
	machine();
	start();
	cr_assert_eq(quarry_node_count(), 3);
	cr_assert_eq(quarry_node_id(0), 0);
	cr_assert_eq(quarry_node_id(1), 2);
	cr_assert_eq(quarry_node_id(2), 65);
	EXPECT_ERROR(quarry_node_id(3), EINVAL);
	EXPECT_ERROR(quarry_node_id(-1), EINVAL);
	cr_assert_eq(quarry_node_current(), 65);
	cr_assert_eq(quarry_node_of_cpu(2), 0);
	cr_assert_eq(quarry_node_of_cpu(7), 65);
	EXPECT_ERROR(quarry_node_of_cpu(8), EINVAL);
	EXPECT_ERROR(quarry_node_of_cpu(-1), EINVAL);
	cr_assert_eq(quarry_node_distance(0, 65), 31);
	cr_assert_eq(quarry_node_distance(65, 0), 20);
	cr_assert_eq(quarry_node_distance(2, 2), 10);
	EXPECT_ERROR(quarry_node_distance(1, 2), EINVAL);
	EXPECT_ERROR(quarry_node_distance(2, 66), EINVAL);
}

Test(nodes, a_distance_that_is_not_told)
{
	machine();
	fake_os_file("/sys/devices/system/node/node2/distance", NULL);
	start();
	EXPECT_ERROR(quarry_node_distance(2, 0), ENODATA);
	cr_assert_eq(quarry_node_distance(2, 2), 10);
}

Test(nodes, info)
{
	quarry_node_info info;

	machine();
	start();
	memset(&info, 0x5a, sizeof(info));
	info.struct_size = sizeof(info);
	cr_assert_eq(quarry_node_info_get(2, &info), 0);
	cr_assert_eq(info.struct_size, sizeof(info));
	cr_assert_eq(info.id, 2);
	cr_assert_eq(info.has_cpus, 0);
	cr_assert_eq(info.has_memory, 1);
	cr_assert_eq(info.allowed, 1);
	cr_assert_eq(info.memory_total, 8 * GIB);
	cr_assert_eq(info.memory_free, 5 * GIB);
	cr_assert_eq(info.huge_free_2m, 9);
	cr_assert_eq(info.huge_free_1g, 0);
	cr_assert_eq(info.huge_total_2m, 9);
	cr_assert_eq(info.huge_total_1g, 0);
	cr_assert_eq(info.index, 1);
	cr_assert_eq(info.bandwidth | info.latency, 0u);
	EXPECT_ERROR(quarry_node_info_get(1, &info), EINVAL);
	EXPECT_ERROR(quarry_node_info_get(-1, &info), EINVAL);
	EXPECT_ERROR(quarry_node_info_get(2, NULL), EINVAL);
	info.struct_size = 0;
	EXPECT_ERROR(quarry_node_info_get(2, &info), EINVAL);
	info.struct_size = sizeof(info) - 1;
	EXPECT_ERROR(quarry_node_info_get(2, &info), EINVAL);
	info.struct_size = 48; /* shorter than any version */
	EXPECT_ERROR(quarry_node_info_get(2, &info), EINVAL);
	info.struct_size = 0x5a5a5a5a;
	EXPECT_ERROR(quarry_node_info_get(2, &info), EINVAL);
}

Test(nodes, info_of_a_program_that_is_newer)
{
	struct {
		quarry_node_info known;
		uint64_t later[2];
		uint64_t behind;
	} info;

	machine();
	start();
	memset(&info, 0x5a, sizeof(info));
	info.known.struct_size = offsetof(__typeof__(info), behind);
	cr_assert_eq(quarry_node_info_get(65, &info.known), 0);
	cr_assert_eq(info.known.id, 65);
	cr_assert_eq(info.known.has_cpus, 1);
	cr_assert_eq(info.later[0] | info.later[1], 0);
	cr_assert_eq(info.behind, UINT64_C(0x5a5a5a5a5a5a5a5a));
}

/* The struct ended at huge_free_1g once. */
Test(nodes, info_of_a_program_that_is_older)
{
	struct {
		unsigned char known[56];
		uint64_t behind;
	} given;
	quarry_node_info info;

	machine();
	start();
	cr_assert_eq(offsetof(quarry_node_info, huge_total_2m), sizeof(given.known));
	memset(&given, 0x5a, sizeof(given));
	memcpy(given.known, &(uint32_t){ sizeof(given.known) }, sizeof(uint32_t));
	cr_assert_eq(quarry_node_info_get(2, (quarry_node_info *)&given), 0);
	memcpy(&info, given.known, sizeof(given.known));
	cr_assert_eq(info.struct_size, sizeof(given.known));
	cr_assert_eq(info.id, 2);
	cr_assert_eq(info.huge_free_2m, 9);
	cr_assert_eq(given.behind, UINT64_C(0x5a5a5a5a5a5a5a5a));
}

/* The distance from one entry to the next is what the program says its struct's size is. */
static void expect_stride(uint32_t size)
{
	unsigned char list[3][2 * sizeof(quarry_node_info)];
	unsigned char *at = list[0];

	memset(list, 0x5a, sizeof(list));
	memcpy(at, &size, sizeof(size));
	cr_assert_eq(quarry_nodes((quarry_node_info *)list, 2), 3, "how many there are, not how many fit");
	for (int i = 0; i < 2; i++) {
		quarry_node_info info = { 0 };
		memcpy(&info, at + (size_t)i * size, size < sizeof(info) ? size : sizeof(info));
		cr_assert_eq(info.struct_size, size);
		cr_assert_eq(info.id, i ? 2 : 0);
		cr_assert_eq(info.index, i);
		for (size_t byte = sizeof(info); byte < size; byte++)
			cr_assert_eq(at[(size_t)i * size + byte], 0);
	}
	cr_assert_eq(at[2 * size], 0x5a);
}

Test(nodes, lists_of_older_and_newer_programs)
{
	quarry_node_info list[3] = { { .struct_size = 0 } };

	setenv("HWLOC_SYNTHETIC", "numa:3(memory=1048576 indexes=65,0,2) pu:2", 1);
	machine();
	start();
	expect_stride(56);
	expect_stride(sizeof(quarry_node_info));
	expect_stride(sizeof(quarry_node_info) + 24);
	EXPECT_ERROR(quarry_nodes(list, 3), EINVAL);
	list[0].struct_size = 60; /* no version ends there */
	EXPECT_ERROR(quarry_nodes(list, 3), EINVAL);
	EXPECT_ERROR(quarry_nodes(NULL, 3), EINVAL);
	cr_assert_eq(quarry_nodes(list, 0), 3);
}

Test(nodes, attributes_by_the_kernels_id)
{
	uint64_t value = 0;

	unsetenv("HWLOC_XMLFILE");
	setenv("HWLOC_SYNTHETIC", "numa:3(memory=1048576 indexes=65,0,2) pu:2", 1);
	machine();
	start();
	cr_assert_eq(quarry_node_attr_get(65, QUARRY_ATTR_CAPACITY, -1, &value), 0);
	cr_assert_eq(value, 1048576u);
	EXPECT_ERROR(quarry_node_attr_get(1, QUARRY_ATTR_CAPACITY, -1, &value), EINVAL);
	EXPECT_ERROR(quarry_node_attr_get(65, 17, -1, &value), EINVAL);
	EXPECT_ERROR(quarry_node_attr_get(65, QUARRY_ATTR_LATENCY, 0, &value), ENODATA);
}

Test(nodes, no_sysfs)
{
	machine();
	fake_os_no_sysfs();
	fake_os_fail_numa(ENOSYS);
	start();
	cr_assert_eq(quarry_node_count(), 1);
	cr_assert_eq(quarry_node_id(0), 0);
	cr_assert_eq(quarry_node_current(), 0);
	cr_assert_eq(quarry_node_distance(0, 0), 10);
}
