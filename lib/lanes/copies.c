/* SPDX-License-Identifier: MIT */
#include "lib/lanes/copies.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/quiet.h"
#include "numa/os.h"

#define SIZE ((size_t)1 << 20) /* more than a second-level cache has */
#define TRIES 4
#define NEAR_MIB_S 6000 /* guessed, for a distance of 10 */

/* MiB/s << 2 | known; 0: nobody asked yet. */
static _Atomic(uint64_t) table[QY_COPIES_NODES][QY_COPIES_NODES];
static pthread_mutex_t measuring = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Who was measuring is not here. (To hold the lock while the process forks would be to wait for memory, whose locks a fork may
 * have by then.) */
static void in_child(void)
{
	pthread_mutex_init(&measuring, NULL);
}

static void mind_forks(void)
{
	(void)pthread_atfork(NULL, NULL, in_child);
}

/* Memory of a node that is touched: NULL where there is none, or the kernel has put it elsewhere. */
static char *memory_on(int node)
{
	quarry_page_info info;
	char *p = quarry_arena_aligned_alloc(quarry_arena_of_node(node), SIZE, SIZE);

	if (p == NULL)
		return NULL;
	memset(p, 1, SIZE);
	if (quarry_where(p, 1, &info, 1) == 1 && (info.node == node || info.node == QUARRY_NODE_UNKNOWN))
		return p;
	quarry_free(p);
	return NULL;
}

/* The best of some: whoever else runs makes it slower, never faster. 0: it cannot be measured. */
static uint64_t measure(int from, int to)
{
	char *a = memory_on(from), *b = memory_on(to);
	uint64_t best = 0;

	for (int i = 0; a != NULL && b != NULL && i < TRIES; i++) {
		uint64_t t = qy_os->now_ns();

		memcpy(b, a, SIZE);
		__asm__ volatile("" : : "r"(b) : "memory");
		t = qy_os->now_ns() - t;
		best = qy_max(best, t == 0 ? 0 : (SIZE >> 20) * UINT64_C(1000000000) / t);
	}
	quarry_free(a);
	quarry_free(b);
	return best;
}

static uint64_t told(int node)
{
	uint64_t mib_s = 0;

	return quarry_node_attr_get(node, QUARRY_ATTR_BANDWIDTH, -1, &mib_s) == 0 ? mib_s : 0;
}

static uint64_t find(int from, int to)
{
	int error = errno, distance = quarry_node_distance(from, to);
	uint64_t mib_s = measure(from, to), a, b;
	int known = QUARRY_COPY_MEASURED;

	if (mib_s == 0) {
		a = told(from);
		b = told(to);
		mib_s = qy_min(a, b);
		known = QUARRY_COPY_TOLD;
	}
	if (mib_s == 0) {
		mib_s = NEAR_MIB_S * 10 / (uint64_t)(distance < 10 ? 20 : distance);
		known = QUARRY_COPY_GUESSED;
	}
	errno = error;
	return mib_s << 2 | (unsigned)known;
}

static int index_of(int node)
{
	quarry_node_info info = { .struct_size = sizeof(info) };

	return quarry_node_info_get(node, &info) != 0 ? -1 : info.index < 0 ? QY_COPIES_NODES : info.index;
}

/* 0: no such node. */
static uint64_t look_up(int from, int to)
{
	int a = index_of(from), b = index_of(to);
	uint64_t entry;

	if (a < 0 || b < 0)
		return 0;
	if (a >= QY_COPIES_NODES || b >= QY_COPIES_NODES)
		return find(from, to);
	entry = atomic_load(&table[a][b]);
	if (entry != 0)
		return entry;
	pthread_once(&once, mind_forks);
	qy_hold(&measuring); /* one at a time: two would measure each other */
	entry = atomic_load(&table[a][b]);
	if (entry == 0) {
		entry = find(from, to);
		atomic_store(&table[a][b], entry);
	}
	qy_let_go(&measuring);
	return entry;
}

uint64_t qy_copy_ns(int from, int to, uint64_t bytes, int *known)
{
	uint64_t entry = look_up(from, to);

	if (entry == 0)
		entry = (uint64_t)NEAR_MIB_S / 2 << 2 | QUARRY_COPY_GUESSED;
	*known = (int)qy_max((unsigned)*known, (unsigned)(entry & 3));
	return (uint64_t)((double)bytes * 1e9 / (double)(1 << 20) / (double)(entry >> 2));
}

int quarry_node_copy(int from, int to, uint64_t *mib_s)
{
	uint64_t entry;

	if (mib_s == NULL)
		return qy_fail(EINVAL, "mib_s: NULL");
	entry = look_up(from, to);
	if (entry == 0)
		return qy_fail(EINVAL, "from, to: there is no node %d, or %d", from, to);
	*mib_s = entry >> 2;
	return (int)(entry & 3);
}
