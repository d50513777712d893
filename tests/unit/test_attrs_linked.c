/* SPDX-License-Identifier: MIT */
/* Memory attributes in a program that links hwloc itself: quarry uses the program's, and says what it says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <hwloc.h>
#include <stdlib.h>

#include "include/quarry/quarry.h"
#include "numa/attrs.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

/* The oracle is a topology that the test loads from the same environment. hwloc numbers the nodes 0 to 3 as it finds
 * them; the kernel numbers are 5, 2, 9, 0. */
static void compare_with_hwloc(void)
{
	hwloc_topology_t topology;
	hwloc_obj_t node = NULL;
	int count = 0;

	cr_assert_eq(hwloc_topology_init(&topology), 0);
	cr_assert_eq(hwloc_topology_load(topology), 0);
	while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node))) {
		uint64_t value = 0;
		cr_assert_eq(qy_attr_get(qy_node_dense((int)node->os_index), QUARRY_ATTR_CAPACITY, -1, &value), 0);
		cr_assert_eq(value, node->attr->numanode.local_memory);
		count++;
	}
	cr_assert_eq(count, qy_node_count());
	hwloc_topology_destroy(topology);
}

Test(attrs_linked, a_synthetic_machine)
{
	unsetenv("HWLOC_XMLFILE");
	setenv("HWLOC_SYNTHETIC", "numa:4(memory=3221225472 indexes=5,2,9,0) pu:2", 1);
	fake_os_install();
	fake_os_nodes("0,2,5,9");
	qy_topology_init(true);
	compare_with_hwloc();
}

Test(attrs_linked, this_machine)
{
	unsetenv("HWLOC_XMLFILE");
	unsetenv("HWLOC_SYNTHETIC");
	qy_topology_init(true);
	compare_with_hwloc();
}
