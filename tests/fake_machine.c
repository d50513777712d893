/* SPDX-License-Identifier: MIT */
/* The fake kernel's machine: nodes and their distances, CPUs and who is on them, pools, and what the process
 * may use. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fake_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)

struct fake_machine fake;
pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;

static uint8_t distance[FAKE_NODES][FAKE_NODES]; /* 0: by default */
static bool distances_set;
static int on_cpu;
static __thread int this_thread_on_cpu __attribute__((tls_model("initial-exec"))); /* + 1 */

void fake_stop(const char *what)
{
	static const char head[] = "fake_os: ";
	if (write(STDERR_FILENO, head, sizeof(head) - 1) < 0 || write(STDERR_FILENO, what, strlen(what)) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0)
		abort();
	abort();
}

/* ---- the machine ---- */

/* Call take for each number of a list as the kernel writes them. */
static void each_of(const char *list, int limit, void (*take)(int n, int arg), int arg)
{
	while (*list && *list != '\n') {
		char *end;
		long first = strtol(list, &end, 10), last = first;
		if (end == list)
			fake_stop("a bad list");
		if (*end == '-')
			last = strtol(list = end + 1, &end, 10);
		if (first < 0 || last < first || last >= limit || (*end && *end != ',' && *end != '\n'))
			fake_stop("a bad list, or a number out of range");
		for (long n = first; n <= last; n++)
			take((int)n, arg);
		list = *end == ',' ? end + 1 : end;
	}
}

static void take_node(int n, int arg)
{
	(void)arg;
	fake.node[n] = (struct fake_node){ .online = true, .allowed = true, .total = GIB, .available = GIB };
}

static void take_cpu(int n, int node)
{
	fake.cpu_node[n] = (int16_t)node;
	if (n >= fake.cpus)
		fake.cpus = n + 1;
}

static void take_allowed(int n, int arg)
{
	(void)arg;
	fake.node[n].allowed = true;
}

static void set_nodes(const char *list)
{
	memset(fake.node, 0, sizeof(fake.node));
	memset(fake.cpu_node, 0xff, sizeof(fake.cpu_node));
	memset(fake.reserved, 0, sizeof(fake.reserved));
	if (distances_set)
		memset(distance, 0, sizeof(distance));
	distances_set = false;
	fake.cpus = 0;
	each_of(list, FAKE_NODES, take_node, 0);
}

/* Not inlined: gcc 12 takes the checked index for one that is not. */
static __attribute__((noinline)) struct fake_node *node_of(int node)
{
	if (node < 0 || node >= FAKE_NODES || !fake.node[node].online)
		fake_stop("no such node");
	return &fake.node[node];
}

void fake_os_nodes(const char *list)
{
	pthread_mutex_lock(&fake_lock);
	set_nodes(list);
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_cpus(int node, const char *list)
{
	pthread_mutex_lock(&fake_lock);
	node_of(node);
	for (int cpu = 0; cpu < FAKE_CPUS; cpu++)
		if (fake.cpu_node[cpu] == node)
			fake.cpu_node[cpu] = -1;
	each_of(list, FAKE_CPUS, take_cpu, node);
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_memory(int node, uint64_t total, uint64_t available)
{
	pthread_mutex_lock(&fake_lock);
	node_of(node)->total = total;
	node_of(node)->available = available;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_distance(int from, int to, int d)
{
	pthread_mutex_lock(&fake_lock);
	node_of(from);
	node_of(to);
	if (d < 1 || d > 255)
		fake_stop("a distance is 1 to 255");
	distance[from][to] = (uint8_t)d;
	distances_set = true;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_allowed(const char *list)
{
	pthread_mutex_lock(&fake_lock);
	for (int n = 0; n < FAKE_NODES; n++)
		fake.node[n].allowed = false;
	each_of(list, FAKE_NODES, take_allowed, 0);
	pthread_mutex_unlock(&fake_lock);
}

int fake_pool_of(unsigned huge_shift)
{
	return huge_shift == 21 ? FAKE_POOL_2M : huge_shift == 30 ? FAKE_POOL_1G : -1;
}

void fake_os_pool(int node, unsigned huge_shift, uint64_t pages)
{
	int pool = fake_pool_of(huge_shift);

	if (pool < 0)
		fake_stop("pools are of shift 21 or 30");
	pthread_mutex_lock(&fake_lock);
	node_of(node)->pool[pool] = pages;
	node_of(node)->pool_total[pool] = pages;
	pthread_mutex_unlock(&fake_lock);
}

uint64_t fake_os_pool_left(int node, unsigned huge_shift)
{
	int pool = fake_pool_of(huge_shift);
	uint64_t pages;

	if (pool < 0)
		fake_stop("pools are of shift 21 or 30");
	pthread_mutex_lock(&fake_lock);
	pages = node_of(node)->pool[pool];
	pthread_mutex_unlock(&fake_lock);
	return pages;
}

void fake_os_on_cpu(int cpu)
{
	pthread_mutex_lock(&fake_lock);
	on_cpu = cpu < 0 ? 0 : cpu;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_this_thread_on_cpu(int cpu)
{
	this_thread_on_cpu = cpu < 0 ? 0 : cpu + 1;
}

static int caller_cpu(void)
{
	return this_thread_on_cpu ? this_thread_on_cpu - 1 : on_cpu;
}

int fake_caller_node(void)
{
	int cpu = caller_cpu();
	return cpu < FAKE_CPUS ? fake.cpu_node[cpu] : -1;
}

int fake_distance_of(int from, int to)
{
	if (distance[from][to])
		return distance[from][to];
	return from == to ? 10 : 20;
}

bool fake_usable(int node)
{
	return fake.node[node].online && fake.node[node].allowed && fake.node[node].total != 0;
}

void fake_os_newest_policy(int mode)
{
	pthread_mutex_lock(&fake_lock);
	fake.newest_policy = mode;
	pthread_mutex_unlock(&fake_lock);
}

/* ---- what it answers ---- */

int fake_getcpu(unsigned *cpu, unsigned *node)
{
	int n = fake_caller_node();

	if (cpu)
		*cpu = (unsigned)caller_cpu();
	if (node)
		*node = n < 0 ? 0 : (unsigned)n;
	return 0;
}

/* The kernel wants room for all its nodes, and knows of no bits beyond them. */
long fake_mems_allowed(unsigned long *mask, unsigned long bits)
{
	struct fake_mask all;
	unsigned long nodes = 0;

	memset(&all, 0, sizeof(all));
	for (int n = 0; n < FAKE_NODES; n++) {
		if (fake.node[n].online)
			nodes = (unsigned long)n + 1;
		if (fake_usable(n))
			fake_mask_add(&all, n);
	}
	if (bits < nodes || bits % (8 * sizeof(all.words[0]))) {
		errno = EINVAL;
		return -1;
	}
	memset(mask, 0, bits / 8);
	memcpy(mask, &all, bits / 8 < sizeof(all) ? bits / 8 : sizeof(all));
	return 0;
}

void fake_machine_reset(void)
{
	set_nodes("0");
	each_of("0-3", FAKE_CPUS, take_cpu, 0);
	on_cpu = 0;
	fake.newest_policy = QY_MPOL_WEIGHTED_INTERLEAVE;
}
