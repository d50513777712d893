/* SPDX-License-Identifier: MIT */
/* The nodes of the machine, learnt piece by piece from sysfs and the kernel.
 *
 * There is no lock. Whoever needs a piece that is not there yet reads it, and stores what it read, word by word, as
 * relaxed atomics; a flag stored last (release) says that the piece is whole. Two threads that do so at once store
 * the same words. So a fork in the middle leaves nothing locked, and a reader waits for nobody.
 *
 * The tables are sized for the largest machine and lie in .bss: pages that nobody writes cost nothing. A 0 in them
 * means "not known yet", so that they need no initialisation; what they hold is stored plus one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/topology.h"

#include <string.h>

#include "lib/base/tables.h"
#include "lib/base/text.h"
#include "numa/os.h"
#include "numa/sysnode.h"

#define MASK_WORDS (QY_NODES_MAX / 64)

static const char sys_node[] = "/sys/devices/system/node/";

struct qy_nodes qy_nodes = { .count = 1, .flat = true };
uint16_t qy_node_ids[QY_NODES_MAX];

/* A list of nodes in sysfs, by the kernel's ids. */
struct node_list {
	const char *name;
	_Atomic(uint32_t) known; /* 0 not read, 1 read, 2 cannot be told */
	_Atomic(uint64_t) bits[MASK_WORDS];
};

static struct node_list with_memory = { .name = "has_memory" };
static struct node_list with_cpus = { .name = "has_cpu" };

static _Atomic(uint8_t) distance_known[QY_NODES_MAX];           /* row: 0 not read, 1 read */
static _Atomic(uint8_t) distances[QY_NODES_MAX * QY_NODES_MAX]; /* [from * count + to]; 0 not told */
QY_SPARSE_TABLE(distances);

/* ---- reading sysfs ---------------------------------------------------------------------------------------- */

long qy_take_number(const char **at)
{
	long n = 0;
	const char *s = *at;

	if (*s < '0' || *s > '9')
		return -1;
	for (; *s >= '0' && *s <= '9'; s++)
		if (n <= INT32_MAX)
			n = n * 10 + (*s - '0');
	*at = s;
	return n;
}

/* Parse a list as the kernel writes it, "0,2-3,65", into a mask; false when it is anything else. An empty list is a
 * list. A number that the mask has no bit for makes no sense here: no kernel has so many nodes. */
static bool parse_list(const char *s, uint64_t bits[MASK_WORDS])
{
	memset(bits, 0, MASK_WORDS * sizeof(bits[0]));
	if (*s == '\n' || *s == 0)
		return *s == 0 || s[1] == 0;
	for (;;) {
		long first = qy_take_number(&s), last = first;
		if (*s == '-') {
			s++;
			last = qy_take_number(&s);
		}
		if (first < 0 || last < first || last >= QY_NODES_MAX)
			return false;
		for (long n = first; n <= last; n++)
			bits[n / 64] |= UINT64_C(1) << (n % 64);
		if (*s != ',')
			break;
		s++;
	}
	return *s == 0 || (*s == '\n' && s[1] == 0);
}

/* A file that fills the buffer may go on behind it: it counts as one that cannot be read. */
bool qy_node_read(const char *path, char *buffer, size_t size)
{
	ssize_t len = qy_os->read_file(path, buffer, size);
	return len > 0 && (size_t)len < size - 1;
}

void qy_node_path(char path[QY_NODE_PATH_MAX], int dense, const char *leaf)
{
	struct qy_text text;
	qy_text_init(&text, path, QY_NODE_PATH_MAX, -1);
	qy_text_format(&text, "%snode%d/%s", sys_node, qy_node_ids[dense], leaf);
}

static QY_NOINLINE bool read_list(const char *name, uint64_t bits[MASK_WORDS])
{
	char path[QY_NODE_PATH_MAX], buffer[QY_NODE_LIST_BUFFER];
	struct qy_text text;

	qy_text_init(&text, path, sizeof(path), -1);
	qy_text_format(&text, "%s%s", sys_node, name);
	return qy_node_read(path, buffer, sizeof(buffer)) && parse_list(buffer, bits);
}

/* ---- start-up --------------------------------------------------------------------------------------------- */

/* A second call, which only tests make, forgets everything that was learnt. The first must not touch the tables. */
static void forget(void)
{
	const size_t row = (size_t)qy_nodes.count;

	qy_nodes.by_rseq = false;
	atomic_store(&with_memory.known, 0);
	atomic_store(&with_cpus.known, 0);
	qy_cpus_forget();
	for (size_t from = 0; from < row; from++) {
		if (!atomic_exchange_explicit(&distance_known[from], 0, memory_order_relaxed))
			continue;
		for (size_t to = 0; to < row; to++)
			atomic_store_explicit(&distances[from * row + to], 0, memory_order_relaxed);
	}
}

void qy_topology_init(bool numa)
{
	uint64_t online[MASK_WORDS];
	int count = 0;

	if (qy_nodes.initialised)
		forget();
	qy_nodes.initialised = true;
	qy_nodes.count = 1;
	qy_nodes.flat = true;
	qy_node_ids[0] = 0;
	if (!numa || !read_list("online", online))
		return;
	for (int id = 0; id < QY_NODES_MAX; id++)
		if (online[id / 64] >> (id % 64) & 1)
			qy_node_ids[count++] = (uint16_t)id;
	if (count == 0)
		return;
	qy_nodes.count = count;
	qy_nodes.flat = false;
	/* rseq tells the CPU past the table of calls: only where the table's answer is the machine's own. */
	qy_nodes.by_rseq = qy_rseq_registered() && qy_os->getcpu == qy_os_linux.getcpu;
}

/* ---- names ------------------------------------------------------------------------------------------------ */

int qy_node_count(void)
{
	return qy_nodes.count;
}

int qy_node_kernel_id(int dense)
{
	return qy_is_node(dense) ? qy_node_ids[dense] : -1;
}

int qy_node_dense(int kernel_id)
{
	int low = 0, high = qy_nodes.count - 1;

	while (low <= high) {
		int middle = (low + high) / 2, id = qy_node_ids[middle];
		if (id == kernel_id)
			return middle;
		if (id < kernel_id)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

/* ---- what a node has and may give ------------------------------------------------------------------------- */

/* 1, 0, or -1 when the machine does not tell. A list without any of our nodes is no answer either: some node has
 * memory, and some node has CPUs. */
static int listed(struct node_list *list, int dense)
{
	uint32_t known = atomic_load_explicit(&list->known, memory_order_acquire);
	int id = qy_node_ids[dense];

	if (known == 0) {
		uint64_t bits[MASK_WORDS];
		bool any = false;
		if (!qy_nodes.flat && read_list(list->name, bits))
			for (int i = 0; i < qy_nodes.count && !any; i++)
				any = bits[qy_node_ids[i] / 64] >> (qy_node_ids[i] % 64) & 1;
		known = any ? 1 : 2;
		for (int i = 0; any && i < MASK_WORDS; i++)
			atomic_store_explicit(&list->bits[i], bits[i], memory_order_relaxed);
		atomic_store_explicit(&list->known, known, memory_order_release);
	}
	if (known != 1)
		return -1;
	return (int)(atomic_load_explicit(&list->bits[id / 64], memory_order_relaxed) >> (id % 64) & 1);
}

int qy_node_memory_listed(int dense)
{
	return listed(&with_memory, dense);
}

int qy_node_cpus_listed(int dense)
{
	return listed(&with_cpus, dense);
}

bool qy_node_has_memory(int dense)
{
	return qy_is_node(dense) && listed(&with_memory, dense) != 0;
}

bool qy_node_has_cpus(int dense)
{
	return qy_is_node(dense) && listed(&with_cpus, dense) != 0;
}

bool qy_nodes_made_up(void)
{
	return qy_nodes.flat;
}

/* ---- what this process may use ---------------------------------------------------------------------------- */

static bool in_words(const struct qy_allowed *allowed, int dense)
{
	const int bits = 8 * sizeof(allowed->words[0]);
	int id = qy_node_ids[dense];

	return allowed->words[id / bits] >> (id % bits) & 1;
}

/* Asked anew each time: a cpuset can change under a running process. */
void qy_allowed_ask(struct qy_allowed *allowed)
{
	memset(allowed, 0, sizeof(*allowed));
	if (qy_nodes.flat || qy_os->mems_allowed(allowed->words, QY_NODES_MAX) != 0)
		return;
	for (int i = 0; i < qy_nodes.count && !allowed->told; i++)
		allowed->told = in_words(allowed, i);
}

bool qy_allowed_has(const struct qy_allowed *allowed, int dense)
{
	return !allowed->told || in_words(allowed, dense);
}

/* The kernel's mask never has nodes without memory, whatever the cpuset says of them. They are this process's to use
 * (to run on, to be asked about) when nothing is kept from it: when all that have memory are in the mask. */
static bool all_memory_allowed(const struct qy_allowed *allowed)
{
	for (int i = 0; i < qy_nodes.count; i++)
		if (listed(&with_memory, i) != 0 && !qy_allowed_has(allowed, i))
			return false;
	return true;
}

static bool usable(const struct qy_allowed *allowed, bool all, int dense)
{
	return qy_allowed_has(allowed, dense) || (all && listed(&with_memory, dense) == 0);
}

int qy_allowed_index(const struct qy_allowed *allowed, int dense)
{
	const bool all = all_memory_allowed(allowed);
	int index = 0;

	if (!usable(allowed, all, dense))
		return -1;
	for (int i = 0; i < dense; i++)
		index += usable(allowed, all, i);
	return index;
}

int qy_nodes_usable(quarry_nodeset *set)
{
	struct qy_allowed allowed;
	int count = 0;
	bool all;

	memset(set, 0, sizeof(*set));
	qy_allowed_ask(&allowed);
	all = all_memory_allowed(&allowed);
	for (int i = 0; i < qy_nodes.count; i++) {
		if (!usable(&allowed, all, i))
			continue;
		quarry_nodeset_add(set, qy_node_ids[i]);
		count++;
	}
	return count;
}

bool qy_node_allowed(int dense)
{
	struct qy_allowed allowed;

	if (!qy_is_node(dense))
		return false;
	qy_allowed_ask(&allowed);
	return qy_allowed_has(&allowed, dense);
}

void qy_nodes_allowed(quarry_nodeset *set)
{
	struct qy_allowed allowed;

	memset(set, 0, sizeof(*set));
	qy_allowed_ask(&allowed);
	for (int i = 0; i < qy_nodes.count; i++)
		if (qy_allowed_has(&allowed, i))
			quarry_nodeset_add(set, qy_node_ids[i]);
}

/* ---- distances -------------------------------------------------------------------------------------------- */

/* The file has a number for each node that is online, in order. Another count of numbers than of our nodes (one came
 * or went since the start) leaves no way to tell whose they are: the row stays unknown. */
static QY_NOINLINE void read_distances(int from)
{
	char path[QY_NODE_PATH_MAX], buffer[QY_NODE_LIST_BUFFER + 1];
	const char *at = buffer;
	uint8_t row[QY_NODES_MAX];
	int n = 0;

	qy_node_path(path, from, "distance");
	if (!qy_node_read(path, buffer, sizeof(buffer)))
		return;
	for (;;) {
		long d;
		while (*at == ' ' || *at == '\n')
			at++;
		d = qy_take_number(&at);
		if (d < 0)
			break;
		if (n == qy_nodes.count)
			return;
		row[n++] = (uint8_t)(d > 255 ? 255 : d);
	}
	if (*at != 0 || n != qy_nodes.count)
		return;
	for (int to = 0; to < n; to++)
		atomic_store_explicit(&distances[(size_t)from * (size_t)n + (size_t)to], row[to],
				      memory_order_relaxed);
}

int qy_node_distance(int from, int to)
{
	int d;

	if (!qy_is_node(from) || !qy_is_node(to))
		return -1;
	if (qy_nodes.flat)
		return 10;
	if (!atomic_load_explicit(&distance_known[from], memory_order_acquire)) {
		read_distances(from);
		atomic_store_explicit(&distance_known[from], 1, memory_order_release);
	}
	d = atomic_load_explicit(&distances[(size_t)from * (size_t)qy_nodes.count + (size_t)to], memory_order_relaxed);
	if (d == 0)
		return from == to ? 10 : -1;
	return d;
}

/* A distance that is not told is farther than any that is. */
int qy_allowed_nearest(const struct qy_allowed *allowed, const quarry_nodeset *set, int from)
{
	int best = -1, best_distance = INT32_MAX;

	for (int i = 0; i < qy_nodes.count; i++) {
		int d;
		if (set && !quarry_nodeset_has(set, qy_node_ids[i]))
			continue;
		if (listed(&with_memory, i) == 0 || !qy_allowed_has(allowed, i))
			continue;
		if (i == from)
			return i;
		d = qy_node_distance(from, i);
		if (d < 0)
			d = INT32_MAX - 1;
		if (d < best_distance) {
			best = i;
			best_distance = d;
		}
	}
	return best;
}

int qy_node_nearest(const quarry_nodeset *set, int from)
{
	struct qy_allowed allowed;

	qy_allowed_ask(&allowed);
	return qy_allowed_nearest(&allowed, set, from);
}
