/* SPDX-License-Identifier: MIT */
/* Figures of nodes that change: pools, what may still be allocated, what went elsewhere. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "numa/topology.h"
#include "tests/fake_os.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define NODE3 "/sys/devices/system/node/node3/"
#define MIN_FREE "/proc/sys/vm/min_free_kbytes"

/* Two nodes of 4 GiB each in a machine of 8, with 64 MiB as the kernel's reserve: 32 for each. */
static void start(void)
{
	fake_os_install();
	fake_os_nodes("0,3");
	fake_os_memory(0, 4 * GIB, 4 * GIB);
	fake_os_memory(3, 4 * GIB, 4 * GIB);
	fake_os_total_memory(8 * GIB);
	fake_os_file(MIN_FREE, "65536\n");
	qy_topology_init(true);
}

/* As the kernel writes it, in its order. */
static void meminfo(uint64_t there, uint64_t active, uint64_t inactive, uint64_t dirty, uint64_t slab)
{
	char text[2048];

	snprintf(text, sizeof(text),
		 "Node 3 MemTotal:        4194304 kB\nNode 3 MemFree:         %lu kB\nNode 3 MemUsed:         1 kB\n"
		 "Node 3 Active:          77777777 kB\nNode 3 Inactive:        77777777 kB\n"
		 "Node 3 Active(anon):    77777777 kB\nNode 3 Inactive(anon):  77777777 kB\n"
		 "Node 3 Active(file):    %lu kB\nNode 3 Inactive(file):  %lu kB\nNode 3 Unevictable:     77777777 kB\n"
		 "Node 3 Dirty:           %lu kB\nNode 3 Writeback:       0 kB\nNode 3 FilePages:       77777777 kB\n"
		 "Node 3 WritebackTmp:    77777777 kB\nNode 3 KReclaimable:    77777777 kB\n"
		 "Node 3 SReclaimable:    %lu kB\nNode 3 SUnreclaim:      77777777 kB\n",
		 (unsigned long)(there / 1024), (unsigned long)(active / 1024), (unsigned long)(inactive / 1024),
		 (unsigned long)(dirty / 1024), (unsigned long)(slab / 1024));
	fake_os_file(NODE3 "meminfo", text);
}

/* min 32 MiB, low 40, high 48; a 256th of 4 GiB is 16, and 8. */
#define KEPT ((48 + 16 + 8) * MIB)
#define LOW (40 * MIB)

Test(nodestat, room_is_what_is_free_above_the_kernels_marks)
{
	start();
	meminfo(2 * GIB, 0, 0, 0, 0);
	cr_assert_eq(qy_node_room(1), 2 * GIB - KEPT);
	meminfo(KEPT + 4096, 0, 0, 0, 0);
	cr_assert_eq(qy_node_room(1), 4096u);
	meminfo(KEPT, 0, 0, 0, 0);
	cr_assert_eq(qy_node_room(1), 0u);
	meminfo(0, 0, 0, 0, 0);
	cr_assert_eq(qy_node_room(1), 0u);
}

Test(nodestat, clean_file_pages_are_room)
{
	start();
	meminfo(KEPT, 100 * MIB, 200 * MIB, 0, 0);
	cr_assert_eq(qy_node_room(1), 300 * MIB - LOW);
	meminfo(KEPT, 100 * MIB, 200 * MIB, 50 * MIB, 0);
	cr_assert_eq(qy_node_room(1), 250 * MIB - LOW, "dirty ones have to be written first");
	meminfo(KEPT, 10 * MIB, 10 * MIB, 50 * MIB, 0);
	cr_assert_eq(qy_node_room(1), 0u);
	meminfo(KEPT, 10 * MIB, 10 * MIB, 0, 30 * MIB);
	cr_assert_eq(qy_node_room(1), 25 * MIB, "half of what is little");
}

/* khugepaged raises the reserve to as much as a twentieth of a small machine. */
Test(nodestat, the_kernels_reserve_is_asked_for)
{
	start();
	fake_os_file(MIN_FREE, "419430\n");
	meminfo(2 * GIB, 0, 0, 0, 0);
	cr_assert_lt(qy_node_room(1), 2 * GIB - 300 * MIB);
	fake_os_file(MIN_FREE, NULL);
	cr_assert_lt(qy_node_room(1), 2 * GIB - 300 * MIB, "the most that it takes by itself, when it cannot be told");
	fake_os_file(MIN_FREE, "0\n");
	cr_assert_eq(qy_node_room(1), 2 * GIB - (uint64_t)(4 * GIB / 1000 * 2) - 24 * MIB);
}

Test(nodestat, room_that_cannot_be_told)
{
	start();
	errno = 99;
	fake_os_file(NODE3 "meminfo", NULL);
	cr_assert_eq(qy_node_room(1), UINT64_MAX);
	fake_os_file(NODE3 "meminfo", "rubbish\n");
	cr_assert_eq(qy_node_room(1), UINT64_MAX);
	fake_os_file(NODE3 "meminfo", "Node 3 MemTotal: 4194304 kB\n");
	cr_assert_eq(qy_node_room(1), UINT64_MAX);
	fake_os_fail(FAKE_READ_FILE, EMFILE);
	cr_assert_eq(qy_node_room(0), UINT64_MAX);
	cr_assert_eq(errno, 99);
	cr_assert_eq(qy_node_room(2), 0u);
	cr_assert_eq(qy_node_room(-1), 0u);
}

Test(nodestat, room_of_the_only_node)
{
	fake_os_install();
	fake_os_memory(0, 4 * GIB, GIB);
	fake_os_total_memory(4 * GIB);
	fake_os_file(MIN_FREE, "32768\n");
	qy_topology_init(false);
	cr_assert_eq(qy_node_room(0), GIB - KEPT);
}

Test(nodestat, a_node_without_memory_has_no_room)
{
	start();
	fake_os_memory(3, 0, 0);
	cr_assert_eq(qy_node_room(1), 0u);
}

Test(nodestat, what_went_elsewhere)
{
	start();
	fake_os_file(NODE3 "numastat", "numa_hit 5000000000\nnuma_miss 7\nnuma_foreign 6000000001\n"
				       "interleave_hit 12\nlocal_node 1\nother_node 2\n");
	errno = 99;
	cr_assert_eq(qy_node_foreign(1), UINT64_C(6000000001));
	cr_assert_eq(qy_node_foreign(0), 0u); /* no such file */
	cr_assert_eq(qy_node_foreign(2), 0u);
	fake_os_file(NODE3 "numastat", "\n");
	cr_assert_eq(qy_node_foreign(1), 0u);
	cr_assert_eq(errno, 99);
	qy_topology_init(false);
	cr_assert_eq(qy_node_foreign(0), 0u);
}

Test(nodestat, pools_with_what_is_taken)
{
	quarry_node_info info;

	start();
	fake_os_pool(3, 21, 100);
	fake_os_pool(3, 30, 3);
	fake_os_file(NODE3 "hugepages/hugepages-2048kB/free_hugepages", "60\n");
	memset(&info, 0x5a, sizeof(info));
	cr_assert_eq(qy_node_info(1, &info), 0);
	cr_assert_eq(info.huge_total_2m, 100u);
	cr_assert_eq(info.huge_free_2m, 60u);
	cr_assert_eq(info.huge_total_1g, 3u);
	cr_assert_eq(info.huge_free_1g, 3u);
	cr_assert_eq(info.index, 1);
	cr_assert_eq(info.bandwidth | info.latency, 0u);
	cr_assert_eq(qy_node_info(0, &info), 0);
	cr_assert_eq(info.huge_total_2m | info.huge_total_1g, 0u);
}
