/* SPDX-License-Identifier: MIT */
/* Handles or malloc, and the thread that packs what is behind handles. */
#include "memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HANDLES ((uint64_t)1 << 27) /* objects at once: 1 GiB of addresses, memory for those that were used */

struct memory memory;

/* ---- the compactor ---- */

#define PERIOD_MS 50
#define SHARE_IDLE 50        /* percent of a period to pack in, while no commands come; */
#define SHARE_MOST 25        /* and while they do, from one percent on, by how much is wasted */
#define WASTE_PERCENT 8      /* of what is live: less is left as it is, */
#define WASTE_BYTES ((uint64_t)1 << 20) /* and so is less than this */
#define REST_PERIODS 4       /* after a compaction that gained nothing */

static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool running, stop; /* stop: under the lock */
	_Atomic(uint64_t) work;
	_Atomic(bool) asks; /* the server's thread for its room */
} compactor = { .lock = PTHREAD_MUTEX_INITIALIZER };

void memory_busy(void)
{
	/* One thread writes it: no read-modify-write. */
	atomic_store_explicit(&compactor.work, atomic_load_explicit(&compactor.work, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

void memory_rest(void)
{
	if (atomic_load_explicit(&compactor.asks, memory_order_relaxed) &&
	    quarry_compact(memory.lanes, QUARRY_COMPACT_NONE, 0, 0) >= 0) /* (else the compactor is about it just now) */
		atomic_store_explicit(&compactor.asks, false, memory_order_relaxed);
}

static bool is_worth_it(quarry_lanes_stats *stats)
{
	return quarry_lanes_stats_get(memory.lanes, stats) == 0 &&
	       stats->held > stats->live + stats->live / 100 * WASTE_PERCENT + WASTE_BYTES;
}

/* Sleep for a period; false: it is time to stop. */
static bool sleep_for_a_period(void)
{
	struct timespec until;
	bool stop;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += PERIOD_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&compactor.lock);
	while (!compactor.stop && pthread_cond_timedwait(&compactor.wake, &compactor.lock, &until) == 0)
		;
	stop = compactor.stop;
	pthread_mutex_unlock(&compactor.lock);
	return !stop;
}

/* How long to pack, of a period: the more is wasted, the longer. */
static uint64_t budget_us(const quarry_lanes_stats *stats, bool idle)
{
	uint64_t percent = (stats->held - stats->live) * 100 / (stats->live + 1) * SHARE_MOST / 100;

	percent = idle ? SHARE_IDLE : percent < 1 ? 1 : percent > SHARE_MOST ? SHARE_MOST : percent;
	return PERIOD_MS * 1000 * percent / 100;
}

/* All of the compaction that there is. */
static void *compact(void *unused)
{
	quarry_lanes_stats stats = { .struct_size = sizeof(stats) };
	uint64_t seen = 0, moved = 0;
	int rest = 0;

	while (sleep_for_a_period()) {
		uint64_t work = atomic_load_explicit(&compactor.work, memory_order_relaxed);
		bool idle = work == seen;

		seen = work;
		if ((rest > 0 && rest-- > 0) || !is_worth_it(&stats))
			continue;
		if (quarry_compact(memory.lanes, QUARRY_COMPACT_FULL, 0, budget_us(&stats, idle)) == 0 &&
		    stats.moved == moved) { /* nor did the one before move anything */
			rest = REST_PERIODS;
			atomic_store_explicit(&compactor.asks, true, memory_order_relaxed);
		}
		moved = stats.moved;
	}
	return unused;
}

static bool compactor_begin(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&compactor.wake, &attr);
	pthread_condattr_destroy(&attr);
	compactor.running = pthread_create(&compactor.thread, NULL, compact, NULL) == 0;
	return compactor.running;
}

static void compactor_end(void)
{
	if (!compactor.running)
		return;
	pthread_mutex_lock(&compactor.lock);
	compactor.stop = true;
	pthread_cond_signal(&compactor.wake);
	pthread_mutex_unlock(&compactor.lock);
	pthread_join(compactor.thread, NULL);
	compactor.running = false;
}

/* ---- the memory ---- */

bool memory_begin(bool with_malloc, bool compacting)
{
	quarry_lanes_attr attr = { .struct_size = sizeof(attr), .handles = HANDLES };

	if (with_malloc)
		return true;
	memory.lanes = quarry_lanes_create(&attr);
	if (memory.lanes == NULL) {
		fprintf(stderr, "kvstore: %s\n", quarry_error_text());
		return false;
	}
	if (compacting && !compactor_begin()) {
		fprintf(stderr, "kvstore: no thread for the compactor\n");
		return false;
	}
	return true;
}

void memory_end(void)
{
	compactor_end();
	if (memory.lanes != NULL)
		quarry_lanes_destroy(memory.lanes);
	memory.lanes = NULL;
}

void memory_count(struct memory_figures *figures)
{
	quarry_lanes_stats stats = { .struct_size = sizeof(stats) };

	memset(figures, 0, sizeof(*figures));
	if (memory.lanes == NULL || quarry_lanes_stats_get(memory.lanes, &stats) != 0)
		return;
	*figures = (struct memory_figures){ .live = stats.live, .held = stats.held, .moved = stats.moved,
					    .moved_bytes = stats.moved_bytes, .freed = stats.freed_segments << 21 };
}

ref memory_allocate(size_t size)
{
	ref r;

	if (!memory_allows(size))
		return REF_NONE;
	r = memory.lanes != NULL ? quarry_halloc(memory.lanes, size) : (ref)(uintptr_t)malloc(size);
	if (r != REF_NONE)
		memory.asked += size;
	return r;
}

void memory_free(ref r, size_t size)
{
	if (memory.lanes != NULL)
		quarry_hfree(memory.lanes, r);
	else
		free((void *)(uintptr_t)r);
	memory.asked -= size;
}

void *memory_table(size_t count)
{
	return memory.lanes != NULL ? quarry_calloc(count, sizeof(ref)) : calloc(count, sizeof(ref));
}

void memory_table_free(void *table)
{
	if (memory.lanes != NULL)
		quarry_free(table);
	else
		free(table);
}
