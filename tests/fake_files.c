/* SPDX-License-Identifier: MIT */
/* The fake kernel's files: sysfs as the machine has it, and what a test puts in its place. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fake_machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FILES_MAX 64
#define FILE_SIZE 8192

struct file {
	char path[128];
	char text[FILE_SIZE];
	bool there;
};

static struct file files[FILES_MAX];
static int file_count;
static bool no_sysfs;

void fake_files_reset(void)
{
	file_count = 0;
	no_sysfs = false;
}

void fake_os_file(const char *path, const char *text)
{
	struct file *file = NULL;

	if (strlen(path) >= sizeof(file->path) || (text && strlen(text) >= FILE_SIZE))
		fake_stop("too long a file or path");
	pthread_mutex_lock(&fake_lock);
	for (int i = 0; i < file_count && !file; i++)
		if (strcmp(files[i].path, path) == 0)
			file = &files[i];
	if (!file) {
		if (file_count == FILES_MAX)
			fake_stop("too many files");
		file = &files[file_count++];
		strcpy(file->path, path);
	}
	file->there = text != NULL;
	strcpy(file->text, text ? text : "");
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_no_sysfs(void)
{
	pthread_mutex_lock(&fake_lock);
	no_sysfs = true;
	pthread_mutex_unlock(&fake_lock);
}

struct out {
	char *at, *end; /* a 0 always fits at end */
};

static void put(struct out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct out *out, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(out->at, (size_t)(out->end - out->at) + 1, format, args);
	va_end(args);
	out->at = n < out->end - out->at ? out->at + n : out->end;
}

static bool node_online(int n)
{
	return fake.node[n].online;
}

static bool node_with_memory(int n)
{
	return fake.node[n].online && fake.node[n].total != 0;
}

static bool node_with_cpus(int n)
{
	for (int cpu = 0; cpu < fake.cpus; cpu++)
		if (fake.cpu_node[cpu] == n)
			return fake.node[n].online;
	return false;
}

static void put_list(struct out *out, int limit, bool (*in)(int n))
{
	const char *comma = "";

	for (int n = 0; n < limit; n++) {
		int last = n;
		if (!in(n))
			continue;
		while (last + 1 < limit && in(last + 1))
			last++;
		if (last > n)
			put(out, "%s%d-%d", comma, n, last);
		else
			put(out, "%s%d", comma, n);
		comma = ",";
		n = last;
	}
	put(out, "\n");
}

static int list_node;
static bool cpu_of_list_node(int cpu)
{
	return fake.cpu_node[cpu] == list_node;
}

static bool cpu_there(int cpu)
{
	return fake.cpu_node[cpu] >= 0;
}

/* Words of 32 CPUs, the highest first, the first no wider than the CPUs there are. */
static void put_cpumap(struct out *out, int node)
{
	int words = (fake.cpus + 31) / 32;

	if (words == 0)
		put(out, "0");
	for (int w = words - 1; w >= 0; w--) {
		uint32_t bits = 0;
		int width = w == words - 1 ? (fake.cpus - w * 32 + 3) / 4 : 8;
		for (int b = 0; b < 32 && w * 32 + b < fake.cpus; b++)
			bits |= (uint32_t)(fake.cpu_node[w * 32 + b] == node) << b;
		put(out, "%0*x%s", width, bits, w ? "," : "");
	}
	put(out, "\n");
}

static bool put_pool(struct out *out, const char *leaf, int node)
{
	uint64_t pages = 0;
	unsigned long kb;
	int pool, used = 0;
	bool all;

	if (sscanf(leaf, "hugepages/hugepages-%lukB/%n", &kb, &used) != 1 || !used)
		return false;
	all = strcmp(leaf + used, "nr_hugepages") == 0;
	pool = fake_pool_of((unsigned)__builtin_ctzl(kb ? kb : 1) + 10);
	if (pool < 0 || (!all && strcmp(leaf + used, "free_hugepages") != 0))
		return false;
	for (int n = 0; n < FAKE_NODES; n++)
		if (n == node || node < 0)
			pages += all ? fake.node[n].pool_total[pool] : fake.node[n].pool[pool];
	put(out, "%lu\n", (unsigned long)pages);
	return true;
}

static void put_meminfo(struct out *out, int node)
{
	unsigned long total = 0, available = 0;
	char head[24] = "";

	for (int n = 0; n < FAKE_NODES; n++)
		if (node < 0 || n == node) {
			total += fake.node[n].total / 1024;
			available += fake.node[n].available / 1024;
		}
	if (node >= 0)
		snprintf(head, sizeof(head), "Node %d ", node);
	put(out, "%sMemTotal:       %8lu kB\n%sMemFree:        %8lu kB\n%sMemUsed:        %8lu kB\n", head, total, head,
	    available, head, total - available);
	/* The real file goes on, and a reader must cope. */
	for (int i = 0; i < 40; i++)
		put(out, "%sPadding%d:      %8d kB\n", head, i, i);
}

/* All that a node has available is free in blocks of 4 MiB. */
static void put_buddyinfo(struct out *out)
{
	for (int n = 0; n < FAKE_NODES; n++)
		if (fake.node[n].online && fake.node[n].total != 0)
			put(out, "Node %d, zone   Normal      0      0      0      0      0      0      0      0      0      0 %6lu \n",
			    n, (unsigned long)(fake.node[n].available >> 22));
}

static bool put_node_file(struct out *out, const char *path)
{
	int node, used = 0;
	const char *leaf;

	if (sscanf(path, "/sys/devices/system/node/node%d/%n", &node, &used) != 1 || !used)
		return false;
	leaf = path + used;
	if (node < 0 || node >= FAKE_NODES || !fake.node[node].online)
		return false;
	list_node = node;
	if (strcmp(leaf, "cpulist") == 0) {
		put_list(out, fake.cpus, cpu_of_list_node);
	} else if (strcmp(leaf, "cpumap") == 0) {
		put_cpumap(out, node);
	} else if (strcmp(leaf, "meminfo") == 0) {
		put_meminfo(out, node);
	} else if (strcmp(leaf, "distance") == 0) {
		const char *space = "";
		for (int to = 0; to < FAKE_NODES; to++)
			if (fake.node[to].online) {
				put(out, "%s%d", space, fake_distance_of(node, to));
				space = " ";
			}
		put(out, "\n");
	} else {
		return put_pool(out, leaf, node);
	}
	return true;
}

static bool put_file(struct out *out, const char *path)
{
	static const struct {
		const char *path;
		bool (*in)(int n);
	} lists[] = {
		{ "/sys/devices/system/node/online", node_online },
		{ "/sys/devices/system/node/possible", node_online },
		{ "/sys/devices/system/node/has_memory", node_with_memory },
		{ "/sys/devices/system/node/has_normal_memory", node_with_memory },
		{ "/sys/devices/system/node/has_cpu", node_with_cpus },
	};
	static const char mm[] = "/sys/kernel/mm/";

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (strcmp(path, lists[i].path) == 0) {
			put_list(out, FAKE_NODES, lists[i].in);
			return true;
		}
	if (strcmp(path, "/sys/devices/system/cpu/possible") == 0 ||
	    strcmp(path, "/sys/devices/system/cpu/online") == 0) {
		put_list(out, fake.cpus, cpu_there);
		return true;
	}
	if (strcmp(path, "/proc/meminfo") == 0) {
		put_meminfo(out, -1);
		return true;
	}
	if (strcmp(path, "/proc/buddyinfo") == 0) {
		put_buddyinfo(out);
		return true;
	}
	if (strncmp(path, mm, sizeof(mm) - 1) == 0 && put_pool(out, path + sizeof(mm) - 1, -1))
		return true;
	return put_node_file(out, path);
}

ssize_t fake_read_file(const char *path, char *buffer, size_t size)
{
	static char text[1 << 17];
	struct out out = { text, text + sizeof(text) - 1 };
	size_t len;

	for (int i = 0; i < file_count; i++) {
		if (strcmp(files[i].path, path) != 0)
			continue;
		if (!files[i].there)
			goto missing;
		put(&out, "%s", files[i].text);
		goto found;
	}
	if (no_sysfs)
		goto missing;
	if (put_file(&out, path))
		goto found;
	if (strncmp(path, "/sys/devices/system/", 20) != 0)
		return qy_os_linux.read_file(path, buffer, size);
missing:
	if (size)
		buffer[0] = 0;
	errno = ENOENT;
	return -1;
found:
	len = (size_t)(out.at - text);
	if (len > size - 1)
		len = size - 1;
	memcpy(buffer, text, len);
	buffer[len] = 0;
	return (ssize_t)len;
}
