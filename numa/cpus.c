/* SPDX-License-Identifier: MIT */
/* CPUs, the nodes they are of, and the nodes that threads on them allocate on.
 *
 * As in numa/topology.c there is no lock: who needs a piece that is not there yet learns it, and what two threads learn
 * at once is the same. Homes alone are ever forgotten while threads run, when the cpuset changed; how that goes well
 * without a lock stands at learn_home. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>

#include "numa/os.h"
#include "numa/sysnode.h"

#define CPUS_TABLE 8192 /* CPUs above are asked for each time */
#define KERNEL_WORDS (QY_NODES_MAX / (8 * sizeof(unsigned long)))

/* What a CPU's node is stored as: 0 not learnt, 1 learnt to be none that is online, else the dense number plus 2. */
#define CELL(dense) ((int16_t)((dense) + 2))
#define CELL_DENSE(cell) ((cell) - 2) /* -1: none */
#define CELLS (QY_NODES_MAX + 2)

static _Atomic(int16_t) cpu_cell[CPUS_TABLE];
static _Atomic(int16_t) home[CELLS]; /* by cell, so that "none" has a home too: the dense node to allocate on, + 1 */

/* What homes were last learnt by, and how often that changed. */
static struct {
	_Atomic(bool) known;
	_Atomic(unsigned long) words[KERNEL_WORDS];
	_Atomic(uint32_t) changes;
} seen;

/* glibc 2.35 and later register rseq for each thread and say where it lies; other libcs have no such symbols. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* ---- rseq ------------------------------------------------------------------------------------------------- */

bool qy_rseq_registered(void)
{
	return &__rseq_offset && &__rseq_size && __rseq_size != 0;
}

/* Where rseq has the thread's CPU; negative there when the thread is not registered. Only with qy_rseq_registered(). */
QY_INLINE const volatile int32_t *rseq_cpu(void)
{
	const char *tp;
#if defined(__x86_64__) && !defined(__ILP32__)
	__asm__("movq %%fs:0, %0" : "=r"(tp)); /* gcc before 11 has no builtin for it here */
#else
	tp = __builtin_thread_pointer();
#endif
	return (const volatile int32_t *)(tp + __rseq_offset + 4); /* struct rseq: cpu_id_start, cpu_id */
}

bool qy_node_by_rseq(void)
{
	return qy_rseq_registered() && *rseq_cpu() >= 0;
}

const volatile int32_t *qy_node_cpu_now(void)
{
	if (qy_nodes.count == 1 || !qy_nodes.by_rseq || *rseq_cpu() < 0)
		return NULL;
	return rseq_cpu();
}

/* ---- homes ------------------------------------------------------------------------------------------------ */

static void forget_homes(void)
{
	for (int i = 0; i < CELL(qy_nodes.count); i++)
		atomic_store(&home[i], 0);
}

/* A mask that two threads store at once may end as a mixture: then the next to compare finds a change that there was
 * none, and homes are learnt once more for nothing. */
static void remember(const struct qy_allowed *allowed)
{
	for (size_t i = 0; i < KERNEL_WORDS; i++)
		atomic_store_explicit(&seen.words[i], allowed->words[i], memory_order_relaxed);
	atomic_store_explicit(&seen.known, true, memory_order_release);
}

/* The node to allocate on for a thread of this node: itself, or else the nearest that has memory and is allowed. Of
 * those at one distance, or with none told, the first. -1 stands for a CPU of no node that is known. */
static int find_home(int dense)
{
	struct qy_allowed allowed;
	int best;

	qy_allowed_ask(&allowed);
	if (!atomic_load_explicit(&seen.known, memory_order_acquire))
		remember(&allowed);
	best = qy_allowed_nearest(&allowed, NULL, dense);
	/* The two lists contradict each other: the node itself is as good as any. */
	return best >= 0 ? best : (dense >= 0 ? dense : 0);
}

/* The count of changes goes up before homes are forgotten. So a home by an old mask is either stored before it is
 * forgotten, or whoever stored it sees that the count went up, and forgets it. */
static QY_COLD int learn_home(int cell)
{
	uint32_t before = atomic_load(&seen.changes);
	int dense = find_home(CELL_DENSE(cell));

	atomic_store(&home[cell], (int16_t)(dense + 1));
	if (atomic_load(&seen.changes) != before)
		atomic_store(&home[cell], 0);
	return dense;
}

bool qy_nodes_recheck(void)
{
	struct qy_allowed allowed;
	bool changed = false;
	int saved = errno;

	if (qy_nodes.count == 1)
		return false;
	qy_allowed_ask(&allowed);
	errno = saved;
	if (!atomic_load_explicit(&seen.known, memory_order_acquire)) {
		remember(&allowed);
		return false;
	}
	for (size_t i = 0; i < KERNEL_WORDS; i++)
		changed |= atomic_load_explicit(&seen.words[i], memory_order_relaxed) != allowed.words[i];
	if (!changed)
		return false;
	remember(&allowed);
	atomic_fetch_add(&seen.changes, 1);
	forget_homes();
	return true;
}

/* ---- the caller's CPU ------------------------------------------------------------------------------------- */

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
	if (QY_LIKELY(qy_nodes.by_rseq)) {
		int cpu = *rseq_cpu();
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
	if (QY_LIKELY(qy_nodes.count == 1))
		return 0;
	return current_of_many();
}

/* ---- any CPU ---------------------------------------------------------------------------------------------- */

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
	char path[QY_NODE_PATH_MAX], buffer[QY_NODE_LIST_BUFFER];
	bool found = false;
	int at = 0;
	size_t len;

	qy_node_path(path, dense, "cpumap");
	if (!qy_node_read(path, buffer, sizeof(buffer)))
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
	if (qy_nodes.flat) /* every CPU that there may be is the one node's; how many there are is not told here */
		return cpu < CPUS_TABLE ? 0 : -1;
	if (cpu < CPUS_TABLE) {
		int cell = atomic_load_explicit(&cpu_cell[cpu], memory_order_relaxed);
		if (cell > CELL(-1))
			return CELL_DENSE(cell);
	}
	for (int i = 0; i < qy_nodes.count; i++)
		if (learn_cpus_of(i, cpu))
			return i;
	return -1;
}

/* Before the count of nodes changes: only so many homes were ever set. */
void qy_cpus_forget(void)
{
	for (int i = 0; i < CPUS_TABLE; i++)
		atomic_store_explicit(&cpu_cell[i], 0, memory_order_relaxed);
	forget_homes();
	atomic_store(&seen.known, false);
}
