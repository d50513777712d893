/* SPDX-License-Identifier: MIT */
/* Figures of nodes that change, each read anew from sysfs when it is asked for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>

#include "lib/base/text.h"
#include "numa/os.h"
#include "numa/sysnode.h"

#define MEMINFO_SIZE 4096 /* a node's file has some 40 lines of 40 bytes, /proc/meminfo some 60 of 28 */

/* ---- files of a node -------------------------------------------------------------------------------------- */

/* A number in a node's pool of huge pages, or in the only one; 0 when it cannot be told. */
static QY_NOINLINE uint64_t pool_number(int dense, unsigned huge_shift, const char *name)
{
	char leaf[64], path[QY_NODE_PATH_MAX], buffer[32];
	const char *at = buffer;
	struct qy_text text;
	long n;

	if (!qy_is_node(dense) || huge_shift < 10 || huge_shift > 40)
		return 0;
	qy_text_init(&text, leaf, sizeof(leaf), -1);
	qy_text_format(&text, "hugepages/hugepages-%lukB/%s", 1ul << (huge_shift - 10), name);
	if (qy_nodes.flat) {
		qy_text_init(&text, path, sizeof(path), -1);
		qy_text_format(&text, "/sys/kernel/mm/%s", leaf);
	} else {
		qy_node_path(path, dense, leaf);
	}
	if (!qy_node_read(path, buffer, sizeof(buffer)))
		return 0;
	n = qy_take_number(&at);
	return n > 0 ? (uint64_t)n : 0;
}

uint64_t qy_node_huge_free(int dense, unsigned huge_shift)
{
	return pool_number(dense, huge_shift, "free_hugepages");
}

/* A node's meminfo, or the machine's: the same names in both. "" when it cannot be read. */
static void read_meminfo(int dense, char *text, size_t size)
{
	char path[QY_NODE_PATH_MAX] = "/proc/meminfo";

	if (!qy_nodes.flat)
		qy_node_path(path, dense, "meminfo");
	if (qy_os->read_file(path, text, size) < 0)
		text[0] = 0;
}

/* The number after the name in a text of lines "… name   number"; 0 without it. */
static uint64_t number_after(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	uint64_t n = 0;

	if (!at)
		return 0;
	at += strlen(name);
	while (*at == ' ' || *at == '\t')
		at++;
	for (; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (uint64_t)(*at - '0');
	return n;
}

static uint64_t kilobytes_after(const char *text, const char *name)
{
	return number_after(text, name) * 1024;
}

int qy_node_info(int dense, quarry_node_info *info)
{
	char head[512]; /* the two lines wanted are the first of the file */
	struct qy_allowed allowed;

	if (!qy_is_node(dense)) {
		errno = EINVAL;
		return -1;
	}
	read_meminfo(dense, head, sizeof(head));
	qy_allowed_ask(&allowed);
	info->id = qy_node_ids[dense];
	info->has_cpus = qy_nodes.flat ? 1 : qy_node_cpus_listed(dense);
	info->has_memory = qy_nodes.flat ? 1 : qy_node_memory_listed(dense);
	info->allowed = qy_allowed_has(&allowed, dense);
	info->index = qy_allowed_index(&allowed, dense);
	info->memory_total = kilobytes_after(head, "MemTotal:");
	info->memory_free = kilobytes_after(head, "MemFree:");
	if (qy_nodes.flat && info->memory_total == 0)
		info->memory_total = qy_os->total_memory();
	info->huge_free_2m = qy_node_huge_free(dense, 21);
	info->huge_free_1g = qy_node_huge_free(dense, 30);
	info->huge_total_2m = pool_number(dense, 21, "nr_hugepages");
	info->huge_total_1g = pool_number(dense, 30, "nr_hugepages");
	info->bandwidth = 0;
	info->latency = 0;
	return 0;
}

/* ---- room ------------------------------------------------------------------------------------------------- */

struct kept {
	uint64_t low;   /* under it the kernel's reclaiming starts */
	uint64_t total; /* what counts as not to be had */
};

/* What the kernel keeps free of a node. vm.min_free_kbytes is shared out over the nodes by their size: that is a node's
 * "min" mark, under which ordinary allocations end, and with a policy that allows no other node the killer comes. It is
 * a small part of large machines, but up to a twentieth of small ones when transparent huge pages are on, so it has to
 * be asked for. The marks "low" and "high" stand above it by a quarter of it, or by a thousandth of the node, each
 * (watermark_scale_factor at its default). Above "high" nothing has to be reclaimed, and what allocates at the same
 * moment finds something still. Beside the marks, a node with memory below 4 GiB keeps up to a 256th of itself there
 * for devices (lowmem_reserve_ratio), and each CPU may hold some free pages that no count has: 8 MiB for those.
 *
 * /proc/zoneinfo would tell the marks to the page, but has a paragraph for each CPU in each zone. */
static struct kept kept_by_kernel(uint64_t node_total)
{
	char text[32];
	uint64_t all_mib = qy_os->total_memory() >> 20, node_mib = node_total >> 20, min = node_total / 20, gap;
	ssize_t len = qy_os->read_file("/proc/sys/vm/min_free_kbytes", text, sizeof(text));
	struct kept kept;

	if (len > 0 && all_mib >= node_mib && all_mib > 0)
		min = number_after(text, "") * node_mib / all_mib * 1024;
	gap = min / 4 > node_total / 1000 ? min / 4 : node_total / 1000;
	kept.low = min + gap;
	kept.total = min + 2 * gap + node_total / 256 + (UINT64_C(8) << 20);
	return kept;
}

/* Of memory that could be reclaimed, half at least and all above the mark will be: the rest is in use, and would be
 * read again at once. The kernel counts its MemAvailable so. */
static uint64_t reclaimable(uint64_t bytes, uint64_t low)
{
	return bytes - (bytes / 2 < low ? bytes / 2 : low);
}

/* Swap does not count: what could be had by it is had by waiting for a disk, for each page. */
QY_NOINLINE uint64_t qy_node_room(int dense)
{
	char text[MEMINFO_SIZE];
	uint64_t file, unclean, there;
	struct kept kept;
	int saved = errno;

	if (!qy_is_node(dense))
		return 0;
	read_meminfo(dense, text, sizeof(text));
	if (!strstr(text, "MemTotal:") || !strstr(text, "MemFree:")) {
		errno = saved;
		return UINT64_MAX;
	}
	kept = kept_by_kernel(kilobytes_after(text, "MemTotal:"));
	errno = saved;
	file = kilobytes_after(text, "Active(file):") + kilobytes_after(text, "Inactive(file):");
	unclean = kilobytes_after(text, "Dirty:") + kilobytes_after(text, "Writeback:");
	file -= unclean < file ? unclean : file;
	there = kilobytes_after(text, "MemFree:") + reclaimable(file, kept.low) +
		reclaimable(kilobytes_after(text, "SReclaimable:"), kept.low);
	return there > kept.total ? there - kept.total : 0;
}

uint64_t qy_node_foreign(int dense)
{
	char path[QY_NODE_PATH_MAX], text[512]; /* six lines of "name number" */
	int saved = errno;

	if (qy_nodes.flat || !qy_is_node(dense))
		return 0;
	qy_node_path(path, dense, "numastat");
	if (!qy_node_read(path, text, sizeof(text)))
		text[0] = 0;
	errno = saved;
	return number_after(text, "numa_foreign");
}
