/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/populate.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "numa/os.h"
#include "numa/topology.h"

#define PART ((size_t)32 << 20)
#define LEAST ((size_t)64 << 20) /* below that, a thread is not worth its making */
#define THREADS_MAX 16
#define STACK_SIZE ((size_t)256 << 10)
#define CPUS_MAX 16384
#define WORD_BITS (8 * sizeof(unsigned long))

struct work {
	const struct qy_placement *placement;
	char *addr;
	size_t len, part;
	int kind;
	qy_fill_part *fill;
	_Atomic(size_t) next; /* offset of the next part that nobody has */
	_Atomic(int) error;   /* the first */
	bool pinned;
	unsigned long cpus[CPUS_MAX / WORD_BITS]; /* to run on */
};

static _Atomic(unsigned) allowed = 1;

void qy_region_allow_threads(unsigned most)
{
	atomic_store_explicit(&allowed, (unsigned)qy_min(most, THREADS_MAX), memory_order_relaxed);
}

/* Take parts until there is none. */
static void fill_parts(struct work *work)
{
	while (atomic_load_explicit(&work->error, memory_order_relaxed) == 0) {
		size_t at = atomic_fetch_add_explicit(&work->next, work->part, memory_order_relaxed);
		int none = 0;

		if (at >= work->len)
			return;
		if (!work->fill(work->placement, work->addr + at, qy_min(work->part, work->len - at), work->kind))
			atomic_compare_exchange_strong(&work->error, &none, errno != 0 ? errno : ENOMEM);
	}
}

static void *run(void *argument)
{
	struct work *work = argument;

	if (work->pinned)
		qy_os->run_on(work->cpus, CPUS_MAX);
	pthread_setname_np(pthread_self(), "quarry-populate");
	fill_parts(work);
	return NULL;
}

/* The CPUs of the memory's node that this thread may run on, or all that it may, where that node has none of them or
 * the memory is for several. Returns how many; 0 when it cannot be told. */
static unsigned choose_cpus(const struct qy_placement *placement, unsigned long *cpus, bool *pinned)
{
	long told = qy_os->cpus_allowed(cpus, CPUS_MAX);
	unsigned all = 0, local = 0;
	int most;

	*pinned = false;
	if (told <= 0)
		return 0;
	most = told < CPUS_MAX ? (int)told : CPUS_MAX;
	for (int cpu = 0; cpu < most; cpu++)
		if (cpus[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1) {
			all++;
			local += placement->node >= 0 && qy_node_of_cpu(cpu) == placement->node;
		}
	if (local == 0 || local == all)
		return all;
	for (int cpu = 0; cpu < most; cpu++)
		if (qy_node_of_cpu(cpu) != placement->node)
			cpus[cpu / WORD_BITS] &= ~(1ul << (cpu % WORD_BITS));
	*pinned = true;
	return local;
}

static unsigned count_threads(const struct qy_placement *placement, size_t len, size_t part, unsigned long *cpus,
			      bool *pinned)
{
	size_t most = atomic_load_explicit(&allowed, memory_order_relaxed), count;

	*pinned = false;
	if (len < LEAST || most <= 1)
		return 1;
	count = qy_min((len + part - 1) / part, most);
	if (count > 1)
		count = qy_min(count, choose_cpus(placement, cpus, pinned));
	return (unsigned)qy_max(count, 1);
}

unsigned qy_populate_threads(const struct qy_placement *placement, size_t len, size_t grain)
{
	unsigned long cpus[CPUS_MAX / WORD_BITS];
	bool pinned;

	return count_threads(placement, len, qy_max(PART, grain), cpus, &pinned);
}

/* So many beside the caller; those that cannot be started are done without. */
static unsigned start_threads(struct work *work, pthread_t *threads, unsigned count)
{
	unsigned started = 0;
	sigset_t all, before;
	pthread_attr_t attr;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	while (started < count && pthread_create(&threads[started], &attr, run, work) == 0)
		started++;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

bool qy_populate(const struct qy_placement *placement, char *addr, size_t len, size_t grain, int kind,
		 qy_fill_part *fill)
{
	struct work work = { .placement = placement, .addr = addr, .len = len, .part = qy_max(PART, grain), .kind = kind,
			     .fill = fill };
	unsigned count = count_threads(placement, len, work.part, work.cpus, &work.pinned), started = 0;
	pthread_t threads[THREADS_MAX];
	int error = errno;

	if (count > 1)
		started = start_threads(&work, threads, (unsigned)qy_min(count, THREADS_MAX) - 1);
	fill_parts(&work);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	errno = work.error != 0 ? work.error : error;
	return work.error == 0;
}
