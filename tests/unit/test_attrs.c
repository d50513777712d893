/* SPDX-License-Identifier: MIT */
/* Memory attributes by hwloc, which this program does not link: it is found by dlopen. Each test is a process of its
 * own (Criterion forks), so each loads a machine of its own, given to hwloc by its environment. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "numa/attrs.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

/* Two nodes with two CPUs each; the kernel's ids 5 and 2 stand in the other order than hwloc's. Node 2 has more
 * bandwidth from afar than node 5 has, and node 5 more from afar than from its own CPUs: no rule of thumb gives
 * these. */
#define OBJECT(type, id, cpus, nodes, gp, rest)                                                             \
	"<object type=\"" type "\" os_index=\"" id "\" cpuset=\"" cpus "\" complete_cpuset=\"" cpus         \
	"\" nodeset=\"" nodes "\" complete_nodeset=\"" nodes "\" gp_index=\"" gp "\"" rest ">\n"
#define GROUP(cpus, nodes, gp)                                                                              \
	"<object type=\"Group\" cpuset=\"" cpus "\" complete_cpuset=\"" cpus "\" nodeset=\"" nodes          \
	"\" complete_nodeset=\"" nodes "\" gp_index=\"" gp "\" kind=\"1001\" subkind=\"0\">\n"
#define VALUE(gp, value, cpus)                                                                              \
	"<memattr_value target_obj_type=\"NUMANode\" target_obj_gp_index=\"" gp "\" value=\"" value         \
	"\" initiator_cpuset=\"" cpus "\"/>\n"
#define END "</object>\n"

static const char machine[] =
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
	"<topology version=\"2.0\">\n"
	OBJECT("Machine", "0", "0x0000000f", "0x00000024", "1",
	       " allowed_cpuset=\"0x0000000f\" allowed_nodeset=\"0x00000024\"")
		GROUP("0x00000003", "0x00000020", "5")
			OBJECT("NUMANode", "5", "0x00000003", "0x00000020", "4", " local_memory=\"3221225472\"") END
			OBJECT("PU", "0", "0x00000001", "0x00000020", "2", "") END
			OBJECT("PU", "1", "0x00000002", "0x00000020", "3", "") END
		END
		GROUP("0x0000000c", "0x00000004", "9")
			OBJECT("NUMANode", "2", "0x0000000c", "0x00000004", "8", " local_memory=\"1073741824\"") END
			OBJECT("PU", "2", "0x00000004", "0x00000004", "6", "") END
			OBJECT("PU", "3", "0x00000008", "0x00000004", "7", "") END
		END
	END
	"<memattr name=\"Bandwidth\" flags=\"5\">\n"
	VALUE("4", "1000", "0x00000003") VALUE("4", "1001", "0x0000000c")
	VALUE("8", "1100", "0x00000003") VALUE("8", "1101", "0x0000000c")
	"</memattr>\n"
	"<memattr name=\"Latency\" flags=\"6\">\n"
	VALUE("4", "50", "0x00000003") VALUE("8", "61", "0x0000000c")
	"</memattr>\n"
	"</topology>\n";

static void no_machine_given(void)
{
	unsetenv("HWLOC_XMLFILE");
	unsetenv("HWLOC_SYNTHETIC");
	unsetenv("HWLOC_FSROOT");
	unsetenv("HWLOC_COMPONENTS");
}

static void give_xml(const char *text)
{
	char path[32];
	int fd = memfd_create("machine.xml", 0);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	sprintf(path, "/proc/self/fd/%d", fd);
	no_machine_given();
	setenv("HWLOC_XMLFILE", path, 1);
}

static void start(const char *nodes)
{
	fake_os_install();
	fake_os_nodes(nodes);
	qy_topology_init(true);
}

static void expect(int id, int attr, int cpu, uint64_t expected)
{
	uint64_t value = 12345;

	cr_assert_eq(qy_attr_get(qy_node_dense(id), attr, cpu, &value), 0, "node %d, attribute %d, CPU %d: %s", id,
		     attr, cpu, strerror(errno));
	cr_assert_eq(value, expected, "node %d, attribute %d, CPU %d: %lu", id, attr, cpu, (unsigned long)value);
}

static void expect_error(int id, int attr, int cpu, int err)
{
	uint64_t value = 12345;

	errno = 0;
	cr_assert_eq(qy_attr_get(qy_node_dense(id), attr, cpu, &value), -1, "node %d, attribute %d, CPU %d", id, attr,
		     cpu);
	cr_assert_eq(errno, err, "node %d, attribute %d, CPU %d: %s", id, attr, cpu, strerror(errno));
	cr_assert_eq(value, 12345u);
}

Test(attrs, values_by_node_and_cpu)
{
	give_xml(machine);
	start("2,5,7");
	expect(5, QUARRY_ATTR_CAPACITY, -1, 3221225472u);
	expect(2, QUARRY_ATTR_CAPACITY, -1, 1073741824u);
	expect(2, QUARRY_ATTR_CAPACITY, 0, 1073741824u);
	expect(5, QUARRY_ATTR_BANDWIDTH, 0, 1000);
	expect(5, QUARRY_ATTR_BANDWIDTH, 1, 1000);
	expect(5, QUARRY_ATTR_BANDWIDTH, 2, 1001);
	expect(2, QUARRY_ATTR_BANDWIDTH, 1, 1100);
	expect(2, QUARRY_ATTR_BANDWIDTH, 3, 1101);
	expect(5, QUARRY_ATTR_BANDWIDTH, -1, 1000);
	expect(2, QUARRY_ATTR_BANDWIDTH, -1, 1101);
	expect(5, QUARRY_ATTR_LATENCY, -1, 50);
	expect(2, QUARRY_ATTR_LATENCY, 2, 61);
	expect_error(2, QUARRY_ATTR_LATENCY, 0, ENODATA);  /* the machine has no such entry */
	expect_error(7, QUARRY_ATTR_CAPACITY, -1, ENODATA); /* hwloc knows no such node */
	expect_error(5, QUARRY_ATTR_LATENCY, 4, EINVAL);    /* no such CPU */
}

Test(attrs, wrong_arguments_load_nothing)
{
	uint64_t value;

	give_xml("no machine at all");
	start("0-1");
	expect_error(2, QUARRY_ATTR_CAPACITY, -1, EINVAL);
	expect_error(-1, QUARRY_ATTR_CAPACITY, -1, EINVAL);
	expect_error(0, -1, -1, EINVAL);
	expect_error(0, 3, -1, EINVAL);
	expect_error(0, QUARRY_ATTR_CAPACITY, -2, EINVAL);
	errno = 0;
	cr_assert_eq(qy_attr_get(0, QUARRY_ATTR_CAPACITY, -1, NULL), -1);
	cr_assert_eq(errno, EINVAL);
	/* and hwloc was not looked at until now: the machine can still be changed */
	no_machine_given();
	setenv("HWLOC_SYNTHETIC", "numa:2(memory=4096) pu:1", 1);
	cr_assert_eq(qy_attr_get(0, QUARRY_ATTR_CAPACITY, -1, &value), 0);
	cr_assert_eq(value, 4096u);
}

Test(attrs, a_machine_that_hwloc_cannot_load)
{
	give_xml("no machine at all");
	start("0-1");
	expect_error(0, QUARRY_ATTR_CAPACITY, -1, ENOSYS);
	no_machine_given(); /* once is once */
	expect_error(1, QUARRY_ATTR_BANDWIDTH, 0, ENOSYS);
}

Test(attrs, capacity_without_an_hmat)
{
	no_machine_given();
	setenv("HWLOC_SYNTHETIC", "node:4(memory=2147483648) pu:2", 1);
	start("0-3");
	for (int id = 0; id < 4; id++) {
		expect(id, QUARRY_ATTR_CAPACITY, -1, 2147483648u);
		expect_error(id, QUARRY_ATTR_BANDWIDTH, -1, ENODATA);
		expect_error(id, QUARRY_ATTR_LATENCY, id * 2, ENODATA);
	}
}

/* hwloc may ask a CPU about itself by going there. The caller must not be moved. */
Test(attrs, this_machine)
{
	quarry_node_info info;
	cpu_set_t before, after;

	no_machine_given();
	qy_topology_init(true);
	cr_assert_eq(sched_getaffinity(0, sizeof(before), &before), 0);
	for (int i = 0; i < qy_node_count(); i++) {
		uint64_t value = 0;
		cr_assert_eq(qy_node_info(i, &info), 0);
		cr_assert_eq(qy_attr_get(i, QUARRY_ATTR_CAPACITY, -1, &value), 0);
		cr_assert_eq(value, info.memory_total);
	}
	cr_assert_eq(sched_getaffinity(0, sizeof(after), &after), 0);
	cr_assert(CPU_EQUAL(&before, &after));
}

static pthread_barrier_t barrier;
static void *ask_first(void *arg)
{
	uint64_t value = 0;

	(void)arg;
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 1000; i++)
		if (qy_attr_get(i % 2, QUARRY_ATTR_BANDWIDTH, i % 4, &value) != 0 ||
		    value != (i % 2 ? 1000u : 1100u) + (i % 4) / 2)
			return (void *)1;
	return NULL;
}

Test(attrs, the_first_call_from_many_threads)
{
	pthread_t thread[4];

	give_xml(machine);
	start("2,5");
	pthread_barrier_init(&barrier, NULL, 4);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, ask_first, NULL), 0);
	for (int i = 0; i < 4; i++) {
		void *wrong;
		pthread_join(thread[i], &wrong);
		cr_assert_null(wrong);
	}
}
