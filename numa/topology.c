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

#include <errno.h>
#include <string.h>

#include "lib/base/text.h"
#include "numa/os.h"

#define CPUS_TABLE 8192    /* CPUs above are asked for each time */
#define PATH_MAX_HERE 96
#define LIST_BUFFER 4097   /* sysfs gives at most a page of 4096 for a list of nodes, distances or a CPU mask */
#define MASK_WORDS (QY_NODES_MAX / 64)
#define KERNEL_WORDS (QY_NODES_MAX / (8 * sizeof(unsigned long)))

static const char sys_node[] = "/sys/devices/system/node/";

/* Written by qy_topology_init alone; constant afterwards. As it stands here it is the machine without sysfs. */
static struct {
	int count;
	bool flat;     /* no list of nodes: one node 0 that stands for all there is */
	bool by_rseq;  /* rseq's cpu_id may be used */
	bool initialised;
} nodes = { .count = 1, .flat = true };

static uint16_t kernel_ids[QY_NODES_MAX]; /* by dense number, ascending; as constant as the above */

/* A list of nodes in sysfs, by the kernel's ids. */
struct node_list {
	const char *name;
	_Atomic(uint32_t) known; /* 0 not read, 1 read, 2 cannot be told */
	_Atomic(uint64_t) bits[MASK_WORDS];
};

static struct node_list with_memory = { .name = "has_memory" };
static struct node_list with_cpus = { .name = "has_cpu" };

/* What a CPU's node is stored as: 0 not learnt, 1 learnt to be none that is online, else the dense number plus 2. */
#define CELL(dense) ((int16_t)((dense) + 2))
#define CELL_DENSE(cell) ((cell) - 2) /* -1: none */
#define CELLS (QY_NODES_MAX + 2)

static _Atomic(int16_t) cpu_cell[CPUS_TABLE];
static _Atomic(int16_t) home[CELLS]; /* by cell, so that "none" has a home too: the dense node to allocate on, + 1 */

static _Atomic(uint8_t) distance_known[QY_NODES_MAX];           /* row: 0 not read, 1 read */
static _Atomic(uint8_t) distances[QY_NODES_MAX * QY_NODES_MAX]; /* [from * count + to]; 0 not told */

/* glibc 2.35 and later register rseq for each thread and say where it lies; other libcs have no such symbols. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* ---- reading sysfs ---------------------------------------------------------------------------------------- */

/* The next number of a string, or -1 when there is none where *at points. Numbers too large stay large. */
static long take_number(const char **at)
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
		long first = take_number(&s), last = first;
		if (*s == '-') {
			s++;
			last = take_number(&s);
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
static bool read_whole(const char *path, char *buffer, size_t size)
{
	ssize_t len = qy_os->read_file(path, buffer, size);
	return len > 0 && (size_t)len < size - 1;
}

static void node_path(char path[PATH_MAX_HERE], int dense, const char *leaf)
{
	struct qy_text text;
	qy_text_init(&text, path, PATH_MAX_HERE, -1);
	qy_text_format(&text, "%snode%d/%s", sys_node, kernel_ids[dense], leaf);
}

static QY_NOINLINE bool read_list(const char *name, uint64_t bits[MASK_WORDS])
{
	char path[PATH_MAX_HERE], buffer[LIST_BUFFER];
	struct qy_text text;

	qy_text_init(&text, path, sizeof(path), -1);
	qy_text_format(&text, "%s%s", sys_node, name);
	return read_whole(path, buffer, sizeof(buffer)) && parse_list(buffer, bits);
}

/* ---- start-up --------------------------------------------------------------------------------------------- */

static bool rseq_registered(void)
{
	return &__rseq_offset && &__rseq_size && __rseq_size != 0;
}

/* The CPU that rseq has for this thread; negative when the thread is not registered. Only with rseq_registered(). */
QY_INLINE int rseq_cpu(void)
{
	const char *tp;
#if defined(__x86_64__) && !defined(__ILP32__)
	__asm__("movq %%fs:0, %0" : "=r"(tp)); /* gcc before 11 has no builtin for it here */
#else
	tp = __builtin_thread_pointer();
#endif
	return *(const volatile int32_t *)(tp + __rseq_offset + 4); /* struct rseq: cpu_id_start, cpu_id */
}

bool qy_node_by_rseq(void)
{
	return rseq_registered() && rseq_cpu() >= 0;
}

/* A second call, which only tests make, forgets everything that was learnt. The first must not touch the tables. */
static void forget(void)
{
	const size_t row = (size_t)nodes.count;

	nodes.by_rseq = false;
	atomic_store(&with_memory.known, 0);
	atomic_store(&with_cpus.known, 0);
	for (int i = 0; i < CPUS_TABLE; i++)
		atomic_store_explicit(&cpu_cell[i], 0, memory_order_relaxed);
	for (int i = 0; i < CELLS; i++)
		atomic_store_explicit(&home[i], 0, memory_order_relaxed);
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

	if (nodes.initialised)
		forget();
	nodes.initialised = true;
	nodes.count = 1;
	nodes.flat = true;
	kernel_ids[0] = 0;
	if (!numa || !read_list("online", online))
		return;
	for (int id = 0; id < QY_NODES_MAX; id++)
		if (online[id / 64] >> (id % 64) & 1)
			kernel_ids[count++] = (uint16_t)id;
	if (count == 0)
		return;
	nodes.count = count;
	nodes.flat = false;
	/* rseq tells the CPU past the table of calls: only where the table's answer is the machine's own. */
	nodes.by_rseq = rseq_registered() && qy_os->getcpu == qy_os_linux.getcpu;
}

/* ---- names ------------------------------------------------------------------------------------------------ */

int qy_node_count(void)
{
	return nodes.count;
}

QY_INLINE bool is_node(int dense)
{
	return dense >= 0 && dense < nodes.count;
}

int qy_node_kernel_id(int dense)
{
	return is_node(dense) ? kernel_ids[dense] : -1;
}

int qy_node_dense(int kernel_id)
{
	int low = 0, high = nodes.count - 1;

	while (low <= high) {
		int middle = (low + high) / 2, id = kernel_ids[middle];
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
	int id = kernel_ids[dense];

	if (known == 0) {
		uint64_t bits[MASK_WORDS];
		bool any = false;
		if (!nodes.flat && read_list(list->name, bits))
			for (int i = 0; i < nodes.count && !any; i++)
				any = bits[kernel_ids[i] / 64] >> (kernel_ids[i] % 64) & 1;
		known = any ? 1 : 2;
		for (int i = 0; any && i < MASK_WORDS; i++)
			atomic_store_explicit(&list->bits[i], bits[i], memory_order_relaxed);
		atomic_store_explicit(&list->known, known, memory_order_release);
	}
	if (known != 1)
		return -1;
	return (int)(atomic_load_explicit(&list->bits[id / 64], memory_order_relaxed) >> (id % 64) & 1);
}

bool qy_node_has_memory(int dense)
{
	return is_node(dense) && listed(&with_memory, dense) != 0;
}

bool qy_node_has_cpus(int dense)
{
	return is_node(dense) && listed(&with_cpus, dense) != 0;
}

struct kernel_mask {
	unsigned long words[KERNEL_WORDS];
	bool told;
};

/* Asked anew each time: a cpuset can change under a running process. */
static void ask_allowed(struct kernel_mask *mask)
{
	const int bits = 8 * sizeof(mask->words[0]);

	memset(mask, 0, sizeof(*mask));
	if (nodes.flat || qy_os->mems_allowed(mask->words, QY_NODES_MAX) != 0)
		return;
	for (int i = 0; i < nodes.count && !mask->told; i++)
		mask->told = mask->words[kernel_ids[i] / bits] >> (kernel_ids[i] % bits) & 1;
}

static bool in_mask(const struct kernel_mask *mask, int dense)
{
	const int bits = 8 * sizeof(mask->words[0]);
	int id = kernel_ids[dense];

	return !mask->told || (mask->words[id / bits] >> (id % bits) & 1);
}

bool qy_node_allowed(int dense)
{
	struct kernel_mask mask;

	if (!is_node(dense))
		return false;
	ask_allowed(&mask);
	return in_mask(&mask, dense);
}

void qy_nodes_allowed(quarry_nodeset *set)
{
	struct kernel_mask mask;

	memset(set, 0, sizeof(*set));
	ask_allowed(&mask);
	for (int i = 0; i < nodes.count; i++)
		if (in_mask(&mask, i))
			quarry_nodeset_add(set, kernel_ids[i]);
}

/* ---- distances -------------------------------------------------------------------------------------------- */

/* The file has a number for each node that is online, in order. Another count of numbers than of our nodes (one came
 * or went since the start) leaves no way to tell whose they are: the row stays unknown. */
static QY_NOINLINE void read_distances(int from)
{
	char path[PATH_MAX_HERE], buffer[LIST_BUFFER + 1];
	const char *at = buffer;
	uint8_t row[QY_NODES_MAX];
	int n = 0;

	node_path(path, from, "distance");
	if (!read_whole(path, buffer, sizeof(buffer)))
		return;
	for (;;) {
		long d;
		while (*at == ' ' || *at == '\n')
			at++;
		d = take_number(&at);
		if (d < 0)
			break;
		if (n == nodes.count)
			return;
		row[n++] = (uint8_t)(d > 255 ? 255 : d);
	}
	if (*at != 0 || n != nodes.count)
		return;
	for (int to = 0; to < n; to++)
		atomic_store_explicit(&distances[(size_t)from * (size_t)n + (size_t)to], row[to],
				      memory_order_relaxed);
}

int qy_node_distance(int from, int to)
{
	int d;

	if (!is_node(from) || !is_node(to))
		return -1;
	if (nodes.flat)
		return 10;
	if (!atomic_load_explicit(&distance_known[from], memory_order_acquire)) {
		read_distances(from);
		atomic_store_explicit(&distance_known[from], 1, memory_order_release);
	}
	d = atomic_load_explicit(&distances[(size_t)from * (size_t)nodes.count + (size_t)to], memory_order_relaxed);
	if (d == 0)
		return from == to ? 10 : -1;
	return d;
}

/* ---- CPUs ------------------------------------------------------------------------------------------------- */

/* The node to allocate on for a thread of this node: itself, or else the nearest that has memory and is allowed. Of
 * those at one distance, or with none told, the first. -1 stands for a CPU of no node that is known. */
static QY_COLD int find_home(int dense)
{
	struct kernel_mask mask;
	int best = -1, best_distance = INT32_MAX;

	ask_allowed(&mask);
	for (int i = 0; i < nodes.count; i++) {
		int d;
		if (listed(&with_memory, i) == 0 || !in_mask(&mask, i))
			continue;
		if (i == dense)
			return i;
		d = dense < 0 ? -1 : qy_node_distance(dense, i);
		if (d < 0)
			d = INT32_MAX - 1;
		if (d < best_distance) {
			best = i;
			best_distance = d;
		}
	}
	/* The two lists contradict each other: the node itself is as good as any. */
	return best >= 0 ? best : (dense >= 0 ? dense : 0);
}

static QY_COLD int learn_home(int cell)
{
	int dense = find_home(CELL_DENSE(cell));
	atomic_store_explicit(&home[cell], (int16_t)(dense + 1), memory_order_relaxed);
	return dense;
}

/* By the kernel's word, and into the table. errno is kept: malloc and free come here. */
static QY_COLD int ask_current(void)
{
	unsigned cpu = 0, node = 0;
	int saved = errno, cell = CELL(-1), dense;

	if (qy_os->getcpu(&cpu, &node) == 0) {
		if (node < QY_NODES_MAX)
			cell = CELL(qy_node_dense((int)node));
		if (cpu < CPUS_TABLE)
			atomic_store_explicit(&cpu_cell[cpu], (int16_t)cell, memory_order_relaxed);
	}
	dense = atomic_load_explicit(&home[cell], memory_order_relaxed) - 1;
	if (dense < 0)
		dense = learn_home(cell);
	errno = saved;
	return dense;
}

/* home[0] is never set: a CPU that is not in the table, and a node whose home is not, both end in ask_current. */
static QY_NOINLINE int current_of_many(void)
{
	if (QY_LIKELY(nodes.by_rseq)) {
		int cpu = rseq_cpu();
		if (QY_LIKELY(cpu >= 0 && cpu < CPUS_TABLE)) {
			int cell = atomic_load_explicit(&cpu_cell[cpu], memory_order_relaxed);
			int dense = atomic_load_explicit(&home[cell], memory_order_relaxed) - 1;
			if (QY_LIKELY(dense >= 0))
				return dense;
		}
	}
	return ask_current();
}

int qy_node_current(void)
{
	if (QY_LIKELY(nodes.count == 1))
		return 0;
	return current_of_many();
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Read a node's mask of CPUs, "00000000,0000ff00": the lowest CPUs stand last. Chosen over cpulist as its length is
 * bounded by the number of CPUs, whatever the pattern. Tells whether cpu is among them, and puts all in the table. */
static QY_NOINLINE bool learn_cpus_of(int dense, int cpu)
{
	char path[PATH_MAX_HERE], buffer[LIST_BUFFER];
	bool found = false;
	int at = 0;
	size_t len;

	node_path(path, dense, "cpumap");
	if (!read_whole(path, buffer, sizeof(buffer)))
		return false;
	len = strlen(buffer);
	for (size_t i = 0; i < len; i++)
		if (hex_digit(buffer[i]) < 0 && buffer[i] != ',' && buffer[i] != '\n')
			return false;
	while (len-- > 0) {
		int digit = hex_digit(buffer[len]);
		if (digit < 0)
			continue;
		for (int bit = 0; bit < 4; bit++) {
			if (!(digit >> bit & 1))
				continue;
			found |= at + bit == cpu;
			if (at + bit < CPUS_TABLE)
				atomic_store_explicit(&cpu_cell[at + bit], CELL(dense), memory_order_relaxed);
		}
		at += 4;
	}
	return found;
}

int qy_node_of_cpu(int cpu)
{
	if (cpu < 0)
		return -1;
	if (nodes.flat) /* every CPU that there may be is the one node's; how many there are is not told here */
		return cpu < CPUS_TABLE ? 0 : -1;
	if (cpu < CPUS_TABLE) {
		int cell = atomic_load_explicit(&cpu_cell[cpu], memory_order_relaxed);
		if (cell > CELL(-1))
			return CELL_DENSE(cell);
	}
	for (int i = 0; i < nodes.count; i++)
		if (learn_cpus_of(i, cpu))
			return i;
	return -1;
}

/* ---- figures that change ---------------------------------------------------------------------------------- */

/* "free_hugepages" of a node's pool, or of the only one. */
uint64_t qy_node_huge_free(int dense, unsigned huge_shift)
{
	char leaf[64], path[PATH_MAX_HERE], buffer[32];
	const char *at = buffer;
	struct qy_text text;
	long n;

	if (!is_node(dense) || huge_shift < 10 || huge_shift > 40)
		return 0;
	qy_text_init(&text, leaf, sizeof(leaf), -1);
	qy_text_format(&text, "hugepages/hugepages-%lukB/free_hugepages", 1ul << (huge_shift - 10));
	if (nodes.flat) {
		qy_text_init(&text, path, sizeof(path), -1);
		qy_text_format(&text, "/sys/kernel/mm/%s", leaf);
	} else {
		node_path(path, dense, leaf);
	}
	if (!read_whole(path, buffer, sizeof(buffer)))
		return 0;
	n = take_number(&at);
	return n > 0 ? (uint64_t)n : 0;
}

/* The number after "key" in a text of lines "… key   number kB", in bytes; 0 without it. */
static uint64_t kilobytes_after(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	uint64_t n = 0;

	if (!at)
		return 0;
	at += strlen(key);
	while (*at == ' ' || *at == '\t')
		at++;
	for (; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (uint64_t)(*at - '0');
	return n * 1024;
}

int qy_node_info(int dense, quarry_node_info *info)
{
	char path[PATH_MAX_HERE] = "/proc/meminfo", head[512]; /* the two lines wanted are the first of the file */

	if (!is_node(dense)) {
		errno = EINVAL;
		return -1;
	}
	if (!nodes.flat)
		node_path(path, dense, "meminfo");
	if (qy_os->read_file(path, head, sizeof(head)) < 0)
		head[0] = 0;
	info->id = kernel_ids[dense];
	info->has_cpus = nodes.flat ? 1 : listed(&with_cpus, dense);
	info->has_memory = nodes.flat ? 1 : listed(&with_memory, dense);
	info->allowed = qy_node_allowed(dense);
	info->reserved = 0;
	info->memory_total = kilobytes_after(head, "MemTotal:");
	info->memory_free = kilobytes_after(head, "MemFree:");
	if (nodes.flat && info->memory_total == 0)
		info->memory_total = qy_os->total_memory();
	info->huge_free_2m = qy_node_huge_free(dense, 21);
	info->huge_free_1g = qy_node_huge_free(dense, 30);
	return 0;
}
