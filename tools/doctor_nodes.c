/* SPDX-License-Identifier: MIT */
/* `quarry doctor` on nodes: which there are, which of them this process may use, and what there is between them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/doctor.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WEIGHTS "/sys/kernel/mm/mempolicy/weighted_interleave/"
#define CPUS_MAX 16384

struct node nodes[QUARRY_NODES_MAX];
size_t node_count;

static bool told;

bool nodes_told(void)
{
	return told;
}

int open_node(void)
{
	for (size_t i = 0; i < node_count; i++)
		if (nodes[i].info.allowed && nodes[i].info.has_memory)
			return nodes[i].info.id;
	return 0;
}

size_t list_nodes(char *text, size_t size, bool (*in)(const struct node *node))
{
	size_t count = 0;
	bool cut = false;

	text[0] = '\0';
	for (size_t i = 0; i < node_count; i++) {
		size_t last = i;
		if (!in(&nodes[i]))
			continue;
		while (last + 1 < node_count && nodes[last + 1].info.id == nodes[last].info.id + 1 && in(&nodes[last + 1]))
			last++;
		count += last - i + 1;
		if (!cut && strlen(text) + 16 > size) {
			append_to(text, size, "...");
			cut = true;
		}
		if (!cut)
			append_to(text, size, last > i ? "%s%d-%d" : "%s%d", text[0] ? "," : "", nodes[i].info.id,
				  nodes[last].info.id);
		i = last;
	}
	return count;
}

static bool any(const struct node *node)
{
	return node != NULL;
}

static bool is_open(const struct node *node)
{
	return node->info.has_memory != 0 && node->info.allowed;
}

static bool is_closed(const struct node *node)
{
	return node->info.has_memory != 0 && !node->info.allowed;
}

static bool is_open_with_cpus(const struct node *node)
{
	return is_open(node) && node->info.has_cpus != 0;
}

/* ------------------------------------------------------------------------------------------------------ */
/* The list                                                                                               */

/* A list that is too long ends after a comma, and "...". */
static void read_cpus(struct node *node)
{
	char path[128], text[4096], *comma;

	format_into(path, sizeof(path), SYS_NODES "node%d/cpulist", node->info.id);
	if (!told || !read_text(path, text, sizeof(text)))
		return;
	format_into(node->cpus, sizeof(node->cpus), "%s", text);
	if (strlen(text) < sizeof(node->cpus))
		return;
	node->cpus[sizeof(node->cpus) - 4] = '\0';
	comma = strrchr(node->cpus, ',');
	strcpy(comma ? comma + 1 : node->cpus, "...");
}

static void read_nodes(void)
{
	for (int id = 0; id < QUARRY_NODES_MAX; id++) {
		struct node *node = &nodes[node_count];
		node->info.struct_size = sizeof(node->info);
		if (quarry_node_info_get(id, &node->info) != 0)
			continue;
		read_cpus(node);
		node_count++;
	}
}

static bool numa_off(void)
{
	char text[4096], *at = text;

	if (!read_text("/proc/cmdline", text, sizeof(text)))
		return false;
	for (; (at = strstr(at, "numa=off")); at++)
		if ((at == text || at[-1] == ' ') && (at[8] == ' ' || at[8] == '\0' || at[8] == '\n'))
			return true;
	return false;
}

static void check_open(void)
{
	char all[100], closed[60], open[60];
	size_t closed_count = list_nodes(closed, sizeof(closed), is_closed);
	size_t open_count = list_nodes(open, sizeof(open), is_open);
	bool off = node_count == 1 && numa_off();
	struct finding *f = find("nodes", closed_count || off ? LACK : OK);

	list_nodes(all, sizeof(all), any);
	if (closed_count) {
		detail(f, "%zu node%s (%s) of %zu open to this process, closed by the cpuset: %s", open_count,
		       open_count == 1 ? "" : "s", open, node_count, closed);
		cost(f, "no memory can be had there");
		fix(f, "widen cpuset.mems of this cgroup, or docker run --cpuset-mems %s", all);
	} else if (off) {
		detail(f, "1 node, as the kernel was told numa=off");
		cost(f, "where memory lies is left to chance, if there are more");
		fix(f, "take numa=off from the kernel's command line");
	} else {
		detail(f, "%zu node%s, all open to this process", node_count, node_count == 1 ? "" : "s");
	}
}

static const struct node *node_of(int id)
{
	for (size_t i = 0; i < node_count; i++)
		if (nodes[i].info.id == id)
			return &nodes[i];
	return NULL;
}

/* The CPUs that this process may run on, and those of them whose own node has no memory for it. */
static void check_cpus(void)
{
	static cpu_set_t cpus[CPUS_MAX / CPU_SETSIZE];
	char home[100];
	size_t all = 0, away = 0;
	struct finding *f;
	int first = -1;

	if (sched_getaffinity(0, sizeof(cpus), cpus) != 0) {
		detail(find("cpu-nodes", UNKNOWN), "sched_getaffinity: %s", strerror(errno));
		return;
	}
	for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
		const struct node *node;
		if (!CPU_ISSET_S((size_t)cpu, sizeof(cpus), cpus))
			continue;
		all++;
		node = node_of(quarry_node_of_cpu(cpu));
		if (!node || is_open(node))
			continue;
		away++;
		first = first < 0 ? node->info.id : first;
	}
	f = find("cpu-nodes", away ? LACK : OK);
	if (!away) {
		detail(f, "%zu CPUs to run on, each with memory of its own node", all);
		return;
	}
	detail(f, "%zu of %zu CPUs to run on are of nodes without memory for this process, node %d among them", away, all,
	       first);
	cost(f, "threads on those have their memory on the nearest other node");
	if (list_nodes(home, sizeof(home), is_open_with_cpus))
		fix(f, "numactl --cpunodebind=%s PROGRAM, or cpuset.cpus of the same nodes as cpuset.mems", home);
	else
		fix(f, "cpuset.mems of the same nodes as cpuset.cpus");
}

void check_nodes(void)
{
	int answer = probe_in_child(probe_nodes), why;
	struct finding *f;

	if (answer < 0) {
		f = find("nodes", LACK);
		detail(f, "%s", probe_text(answer));
		cost(f, "a program on quarry ends when it first needs to know its nodes");
		fix(f, "%s", allow_by_seccomp);
		return;
	}
	told = access(SYS_NODES "online", R_OK) == 0;
	why = errno;
	read_nodes();
	if (!told) {
		f = find("nodes", UNKNOWN);
		detail(f, SYS_NODES "online: %s", strerror(why));
		cost(f, "the machine is taken for one node");
		fix(f, "mount -t sysfs sysfs /sys; without it, a kernel built with CONFIG_NUMA=y");
		return;
	}
	check_open();
	if (node_count > 1)
		check_cpus();
}

/* ------------------------------------------------------------------------------------------------------ */
/* Between nodes                                                                                          */

/* Bandwidth and latency, if hwloc is there and can be asked without being ended for it. */
static bool check_hwloc(void)
{
	int answer = probe_in_child(probe_hwloc);
	struct finding *f = find("hwloc", answer == 0 ? OK : answer == PROBE_NO_CHILD ? UNKNOWN : LACK);

	if (answer == 0) {
		detail(f, "hwloc is there to ask for the nodes' attributes");
	} else if (answer == ENOSYS) {
		detail(f, "no hwloc that fits (libhwloc 2.4 or later of the series quarry was built with)");
		cost(f, "quarry_node_best and quarry_node_attr_get know no bandwidth and no latency");
		fix(f, "apt-get install libhwloc15, or what it is called here");
	} else {
		detail(f, "%s", probe_text(answer));
		cost(f, "%s", answer < 0 ? "a program ends when it asks for a node's attributes" :
					   "quarry_node_best and quarry_node_attr_get know no bandwidth and no latency");
		fix(f, "%s", answer < 0 ? allow_by_seccomp : "mount -t sysfs sysfs /sys");
	}
	for (size_t i = 0; answer == 0 && i < node_count; i++) {
		quarry_node_info *info = &nodes[i].info;
		quarry_node_attr_get(info->id, QUARRY_ATTR_BANDWIDTH, -1, &info->bandwidth);
		quarry_node_attr_get(info->id, QUARRY_ATTR_LATENCY, -1, &info->latency);
	}
	return answer == 0;
}

static bool has_memory(const struct node *node)
{
	return node->info.has_memory != 0;
}

static bool is_mute(const struct node *node)
{
	return has_memory(node) && (!node->info.bandwidth || !node->info.latency);
}

static void check_firmware(void)
{
	char all[100], mute[100];
	size_t with_memory = list_nodes(all, sizeof(all), has_memory), count = list_nodes(mute, sizeof(mute), is_mute);
	struct finding *f = find("hmat", count ? LACK : OK);

	if (!count) {
		detail(f, "the firmware tells each node's bandwidth and latency");
		return;
	}
	detail(f, "the firmware does not tell bandwidth and latency of node%s %s", count == 1 ? "" : "s", mute);
	cost(f, "quarry_node_best knows %s by bandwidth or latency", count == with_memory ? "no node" : "only the others");
	fix(f, "a firmware with an ACPI HMAT, a kernel built with CONFIG_ACPI_HMAT=y; in a guest, "
	       "qemu -machine hmat=on -numa hmat-lb,...");
}

static void check_distances(void)
{
	int least = 0, most = 0, d;
	struct finding *f;

	for (size_t i = 0; i < node_count; i++)
		for (size_t k = 0; k < node_count; k++) {
			if (i == k)
				continue;
			d = quarry_node_distance(nodes[i].info.id, nodes[k].info.id);
			if (d < 0) {
				f = find("distances", LACK);
				detail(f, "the kernel does not tell how far node %d is from node %d", nodes[k].info.id,
				       nodes[i].info.id);
				cost(f, "a full node's neighbours are tried by number, not by distance");
				fix(f, "mount -t sysfs sysfs /sys; restart the program after nodes came or went");
				return;
			}
			least = least == 0 || d < least ? d : least;
			most = d > most ? d : most;
		}
	f = find("distances", OK);
	if (least == most)
		detail(f, "%d from each node to each other", least);
	else
		detail(f, "%d to %d from one node to another", least, most);
}

/* A setting of the kernel's that should be a certain number on a machine of several nodes. */
static void check_setting(const char *name, const char *path, uint64_t wanted, const char *good, const char *bad,
			  const char *costs, const char *command)
{
	uint64_t value;
	struct finding *f;

	if (!read_number(path, &value)) {
		if (errno != ENOENT || access("/proc/self", F_OK) != 0)
			detail(find(name, UNKNOWN), "%s cannot be read", path);
		return; /* a kernel without it */
	}
	f = find(name, value == wanted ? OK : LACK);
	detail(f, "%s", value == wanted ? good : bad);
	if (value != wanted) {
		cost(f, "%s", costs);
		fix(f, "%s", command);
	}
}

/* The kernel's weights, and whether they say more than equal shares where the nodes' bandwidths differ. */
static void check_weights(void)
{
	uint64_t weight, first = 0, bandwidth = 0;
	bool equal = true, alike = true;
	struct finding *f;
	char path[128];

	if (access(WEIGHTS, F_OK) != 0)
		return; /* weighted-interleave says so */
	f = find("weights", OK);
	for (size_t i = 0; i < node_count; i++) {
		const quarry_node_info *info = &nodes[i].info;
		format_into(path, sizeof(path), WEIGHTS "node%d", info->id);
		if (!read_number(path, &weight))
			continue;
		detail_more(f, "%snode %d: %llu", f->detail[0] ? ", " : "", info->id, (unsigned long long)weight);
		equal &= first == 0 || weight == first;
		first = weight;
		alike &= bandwidth == 0 || info->bandwidth == 0 || info->bandwidth == bandwidth;
		bandwidth = info->bandwidth ? info->bandwidth : bandwidth;
	}
	if (!f->detail[0]) {
		f->state = UNKNOWN;
		detail(f, WEIGHTS " cannot be read");
	} else if (equal && !alike) {
		f->state = LACK;
		cost(f, "weighted interleave spreads evenly, though the nodes' bandwidths differ");
		fix(f, "echo WEIGHT > " WEIGHTS "nodeN for each node, by its bandwidth");
	}
}

void check_between(void)
{
	bool asked;

	if (node_count == 0 || !told)
		return;
	asked = check_hwloc();
	if (node_count == 1)
		return;
	check_distances();
	if (asked)
		check_firmware();
	check_setting("numa-balancing", "/proc/sys/kernel/numa_balancing", 0, "off: the kernel leaves pages where they are",
		      "on: the kernel moves pages that no policy binds",
		      "faults to find out who uses them, and pages that move on; what quarry bound stays",
		      "sysctl kernel.numa_balancing=0");
	check_setting("zone-reclaim", "/proc/sys/vm/zone_reclaim_mode", 0, "off: a full node's neighbours help out",
		      "on: a full node drops what it has of files first",
		      "allocation waits for that, and files are read again, while other nodes have room",
		      "sysctl vm.zone_reclaim_mode=0");
	check_setting("numastat", "/proc/sys/vm/numa_stat", 1, "the kernel counts pages that went to another node",
		      "the kernel does not count pages that went to another node",
		      "pages that strayed are not noticed, and not brought home", "sysctl vm.numa_stat=1");
	check_weights();
}
