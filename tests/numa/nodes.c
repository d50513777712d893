/* SPDX-License-Identifier: MIT */
/* What quarry says of the machine is what the kernel says in /sys. */
#include "tests/numa/suite.h"

#define NODES "/sys/devices/system/node"
#define LIST 128

static uint64_t difference(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* "read_bandwidth" (MB/s), "read_latency" (ns) of a node from the CPUs that reach it best; 0: the firmware is silent.
 * Class 1 counts CPUs alone among those that reach memory, class 0 all that can. */
static long told(int id, const char *what)
{
	char path[160];
	long value;

	snprintf(path, sizeof(path), NODES "/node%d/access1/initiators/%s", id, what);
	value = read_long(path);
	if (value > 0)
		return value;
	snprintf(path, sizeof(path), NODES "/node%d/access0/initiators/%s", id, what);
	value = read_long(path);
	return value > 0 ? value : 0;
}

/* Whether the firmware's figures of a node are those from this other node's CPUs. */
static bool told_from(int id, int cpu_node)
{
	char path[160];

	snprintf(path, sizeof(path), NODES "/node%d/access1/initiators/node%d", id, cpu_node);
	if (access(path, F_OK) == 0)
		return true;
	snprintf(path, sizeof(path), NODES "/node%d/access0/initiators/node%d", id, cpu_node);
	return access(path, F_OK) == 0;
}

static void check_info(const quarry_node_info *info, const struct node *node, bool listed)
{
	long total_2m = pool(node->id, "nr"), free_2m = pool(node->id, "free");

	/* Where there is no memory, none may be had. */
	if (info->id != node->id || info->has_cpus != node->has_cpus || info->has_memory != node->has_memory ||
	    (info->has_memory && info->allowed != 1))
		fail("node %d: id %d, has_cpus %d, has_memory %d, allowed %d", node->id, info->id, info->has_cpus,
		     info->has_memory, info->allowed);
	if (info->memory_total != node->total)
		fail("node %d: memory_total %llu, the kernel says %llu", node->id,
		     (unsigned long long)info->memory_total, (unsigned long long)node->total);
	if (difference(info->memory_free, node_free(node->id)) > 8 * MIB)
		fail("node %d: memory_free %llu, the kernel says %llu", node->id, (unsigned long long)info->memory_free,
		     (unsigned long long)node_free(node->id));
	if (total_2m >= 0 && (info->huge_total_2m != (uint64_t)total_2m || info->huge_free_2m != (uint64_t)free_2m))
		fail("node %d: 2 MiB pages %llu of %llu free, the kernel says %ld of %ld", node->id,
		     (unsigned long long)info->huge_free_2m, (unsigned long long)info->huge_total_2m, free_2m,
		     total_2m);
	if (quarry_node_id(info->index) != node->id)
		fail("node %d has index %d, which is node %d", node->id, info->index, quarry_node_id(info->index));
	if (listed && ((long)info->bandwidth != told(node->id, "read_bandwidth") ||
		       (long)info->latency != told(node->id, "read_latency")))
		fail("node %d: bandwidth %llu, latency %llu; the kernel says %ld, %ld", node->id,
		     (unsigned long long)info->bandwidth, (unsigned long long)info->latency,
		     told(node->id, "read_bandwidth"), told(node->id, "read_latency"));
}

static void run_list(void)
{
	quarry_node_info list[LIST] = { { .struct_size = sizeof(list[0]) } }, one = { .struct_size = sizeof(one) };
	long n = quarry_nodes(list, LIST);

	if (n != machine.count || quarry_nodes(NULL, 0) != n || quarry_node_count() != n)
		fail("quarry_nodes says %ld nodes, quarry_node_count %d, the kernel %d", n, quarry_node_count(),
		     machine.count);
	for (int i = 0; i < machine.count; i++) {
		check_info(&list[i], &machine.node[i], true);
		MUST(list[i].index == i);
		MUST(quarry_node_info_get(machine.node[i].id, &one) == 0);
		check_info(&one, &machine.node[i], false);
		MUST(quarry_node_id(i) == machine.node[i].id);
	}
	/* Fewer than there are, and none. */
	memset(&list[1], 0x5a, sizeof(list[1]));
	MUST(quarry_nodes(list, 1) == n && list[1].id == 0x5a5a5a5a);
	list[0].struct_size = 0;
	errno = 0;
	MUST(quarry_nodes(list, LIST) == -1 && errno == EINVAL);
}

static void run_distance(void)
{
	int unknown = 0;

	while (node_index(unknown) >= 0)
		unknown++;
	for (int i = 0; i < machine.count; i++)
		for (int j = 0; j < machine.count; j++) {
			int said = quarry_node_distance(machine.node[i].id, machine.node[j].id);

			if (said != machine.node[i].distance[j])
				fail("the distance from node %d to %d is %d, the kernel says %d", machine.node[i].id,
				     machine.node[j].id, said, machine.node[i].distance[j]);
		}
	errno = 0;
	MUST(quarry_node_distance(unknown, machine.node[0].id) == -1 && errno == EINVAL);
	errno = 0;
	MUST(quarry_node_distance(machine.node[0].id, unknown) == -1 && errno == EINVAL);
	errno = 0;
	MUST(quarry_node_id(machine.count) == -1 && errno == EINVAL);
	errno = 0;
	MUST(quarry_arena_of_node(unknown) == NULL && errno == EINVAL);
}

static void run_cpus(void)
{
	for (int i = 0; i < machine.count; i++)
		for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
			cpu_set_t one;

			if (!CPU_ISSET((size_t)cpu, &machine.node[i].cpus))
				continue;
			if (quarry_node_of_cpu(cpu) != machine.node[i].id)
				fail("CPU %d is of node %d, the kernel says %d", cpu, quarry_node_of_cpu(cpu),
				     machine.node[i].id);
			CPU_ZERO(&one);
			CPU_SET((size_t)cpu, &one);
			MUST(sched_setaffinity(0, sizeof(one), &one) == 0);
			/* On a node without memory, it may be the nearest that has some. */
			if (machine.node[i].has_memory && quarry_node_current() != machine.node[i].id)
				fail("on CPU %d of node %d, quarry_node_current says %d", cpu, machine.node[i].id,
				     quarry_node_current());
		}
	errno = 0;
	MUST(quarry_node_of_cpu(-1) == -1 && errno == EINVAL);
	errno = 0;
	MUST(quarry_node_of_cpu(100000) == -1 && errno == EINVAL);
}

/* ---- the best node ---- */

static int a_cpu_of(const struct node *n)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET((size_t)cpu, &n->cpus))
			return cpu;
	return -1;
}

/* Of those with the best value, the nearest to the CPU's node, then the first. Values: -1 takes no part. */
static int best_of(const long *value, bool least, const struct node *from)
{
	int best = -1;

	for (int i = 0; i < machine.count; i++) {
		if (value[i] < 0)
			continue;
		if (best < 0 || (least ? value[i] < value[best] : value[i] > value[best]) ||
		    (value[i] == value[best] && from->distance[i] < from->distance[best]))
			best = i;
	}
	return best < 0 ? -1 : machine.node[best].id;
}

static void check_best(int attr, const long *value, bool least, const struct node *from, const char *what)
{
	int cpu = a_cpu_of(from), expected = best_of(value, least, from), said;

	errno = 0;
	said = quarry_node_best(attr, cpu);
	if (said != expected)
		fail("the best node by %s from CPU %d is %d (errno %d), by the kernel's figures %d", what, cpu, said,
		     errno, expected);
	if (expected < 0 && errno != ENODATA && errno != ENOSYS)
		fail("no node is told of by %s: errno %d, %s", what, errno, strerror(errno));
	pin_to_node(from->id);
	if (quarry_node_best(attr, -1) != expected)
		fail("the best node by %s from the CPU that runs is %d, not %d", what, quarry_node_best(attr, -1),
		     expected);
}

static void run_best(void)
{
	for (int p = 0; p < machine.processors; p++) {
		const struct node *from = &machine.node[machine.processor[p]];
		long capacity[128], bandwidth[128], latency[128], distance[128];

		for (int i = 0; i < machine.count; i++) {
			const struct node *n = &machine.node[i];
			bool reached = n->has_memory && told_from(n->id, from->id);

			capacity[i] = n->has_memory ? (long)n->total : -1;
			distance[i] = n->has_memory ? from->distance[i] : -1;
			bandwidth[i] = reached && told(n->id, "read_bandwidth") ? told(n->id, "read_bandwidth") : -1;
			latency[i] = reached && told(n->id, "read_latency") ? told(n->id, "read_latency") : -1;
		}
		check_best(QUARRY_ATTR_CAPACITY, capacity, false, from, "capacity");
		check_best(QUARRY_ATTR_DISTANCE, distance, true, from, "distance");
		check_best(QUARRY_ATTR_BANDWIDTH, bandwidth, false, from, "bandwidth");
		check_best(QUARRY_ATTR_LATENCY, latency, true, from, "latency");
	}
	errno = 0;
	MUST(quarry_node_best(99, -1) == -1 && errno == EINVAL);
	errno = 0;
	MUST(quarry_node_best(QUARRY_ATTR_CAPACITY, 100000) == -1 && errno == EINVAL);
}

/* By what is free, which changes: it is one of the best. */
static void run_free(void)
{
	uint64_t most = 0, value = 0;
	struct helper filler;
	int best;

	for (int i = 0; i < machine.memories; i++) {
		uint64_t unused = node_free(machine.node[machine.memory[i]].id);

		most = unused > most ? unused : most;
	}
	best = quarry_node_best(QUARRY_ATTR_FREE, -1);
	if (best < 0 || node_free(best) + 16 * MIB < most)
		fail("the node with the most free memory is said to be %d, with %llu of %llu bytes", best,
		     best < 0 ? 0 : (unsigned long long)node_free(best), (unsigned long long)most);
	MUST(quarry_node_attr_get(best, QUARRY_ATTR_FREE, -1, &value) == 0);
	if (difference(value, node_free(best)) > 8 * MIB)
		fail("node %d: %llu bytes free, the kernel says %llu", best, (unsigned long long)value,
		     (unsigned long long)node_free(best));
	if (machine.memories < 2 || node_free(best) < 128 * MIB)
		return;
	filler = fill_node(best, 48 * MIB);
	if (quarry_node_best(QUARRY_ATTR_FREE, -1) == best)
		fail("node %d was filled, and still is said to be the one with the most free memory", best);
	helper_end(&filler);
}

/* A program that asks for the best by bandwidth and binds there gets it. */
static void run_use_best(void)
{
	int best = quarry_node_best(QUARRY_ATTR_BANDWIDTH, a_cpu_of(&machine.node[machine.processor[0]]));
	struct objects o = { .state = seed_of(1) };
	struct tally t = { 0 };
	quarry_nodeset set;
	quarry_arena *arena;

	if (best < 0)
		skip("the firmware tells of no bandwidth (errno %d, %s)", errno, strerror(errno));
	set = one_node(best);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, QUARRY_ARENA_STRICT, &set);
	MUST(arena != NULL);
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 8 * MIB, from_arena, arena));
	objects_tally(&o, &t);
	verify_tally(&t, &set, "bound to the best node by bandwidth");
}

void add_nodes(void)
{
	TEST("nodes", "list", run_list);
	TEST("nodes", "distance", run_distance);
	TEST("nodes", "cpus", run_cpus);
	TEST("nodes", "best", run_best);
	TEST("nodes", "free", run_free);
	TEST("nodes", "use-best", run_use_best);
}
