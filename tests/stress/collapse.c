/* SPDX-License-Identifier: MIT */
/* Stress: huge pages made and broken under a program that goes on. Threads fill, verify, resize and free blocks of all
 * sizes in arenas that come and go, while one collapses whatever is dense and another gives everything back that is
 * free, so that frames go from base pages to huge ones, are split and emptied; a third forks. What is in the blocks is
 * verified all the time. Where the kernel has no MADV_COLLAPSE, the rest is run all the same. */
#include "lib/manager/collapse.h"
#include "numa/os.h"
#include "tests/stress/stress.h"

#include <sys/wait.h>

#define SLOTS 48

static _Atomic(unsigned) over;
static _Atomic(uint64_t) passes, collapsing;

struct slot {
	unsigned char *p;
	size_t size;
	uint64_t id;
};

static size_t some_size(struct st_rng *rng)
{
	switch (st_below(rng, 8)) {
	case 0:
		return 1 + st_below(rng, 6 * ST_MIB);
	case 1:
	case 2:
		return 1 + st_below(rng, 256 * ST_KIB);
	default:
		return 1 + st_below(rng, 4 * ST_KIB);
	}
}

static void drop(struct slot *s)
{
	st_verify(s->p, 0, s->size, st_key(s->id, 0), s->id, s->size);
	quarry_free(s->p);
	s->p = NULL;
}

static void step(struct st_worker *w, struct slot *s, uint64_t id)
{
	if (s->p != NULL && st_below(&w->rng, 4) == 0) {
		size_t size = some_size(&w->rng), kept = s->size < size ? s->size : size;

		st_verify(s->p, 0, s->size, st_key(s->id, 0), s->id, s->size);
		s->p = quarry_realloc(s->p, size);
		ST_CHECK(s->p != NULL);
		st_verify(s->p, 0, kept, st_key(s->id, 0), s->id, s->size);
		st_fill(s->p, kept, size, st_key(s->id, 0));
		s->size = size;
		return;
	}
	if (s->p != NULL) {
		drop(s);
		return;
	}
	s->size = some_size(&w->rng);
	s->id = id;
	s->p = quarry_malloc(s->size);
	ST_CHECK(s->p != NULL);
	st_fill(s->p, 0, s->size, st_key(id, 0));
}

static void work(struct st_worker *w)
{
	struct slot slots[SLOTS] = { { 0 } };
	quarry_arena *arena = NULL;

	for (unsigned i = 0; st_more(w); i++) {
		step(w, &slots[st_below(&w->rng, SLOTS)], w->next_id++);
		/* An arena that ends with frames that were collapsed. */
		if (i % 512 == 0) {
			unsigned char *p;

			if (arena != NULL)
				ST_CHECK(quarry_arena_destroy(arena) == 0);
			arena = quarry_arena_create(NULL);
			ST_CHECK(arena != NULL);
			p = quarry_arena_malloc(arena, 5 * ST_MIB);
			ST_CHECK(p != NULL);
			memset(p, 1, 5 * ST_MIB);
		}
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].p != NULL)
			drop(&slots[i]);
	if (arena != NULL)
		ST_CHECK(quarry_arena_destroy(arena) == 0);
}

/* Time goes by a hundred times as fast, so that what is to be stable for a while becomes huge in this life. */
static struct qy_os fast;

static uint64_t fast_ms(void)
{
	return qy_os_linux.now_ns() / 10000;
}

static void *collapser(void *unused)
{
	(void)unused;
	while (atomic_load(&over) == 0) {
		uint64_t next;

		qy_collapse_wake();
		if (qy_collapse_pass(qy_os->now_ms(), 10000000, &next))
			atomic_fetch_add(&collapsing, 1);
		atomic_fetch_add(&passes, 1);
		usleep(1000);
	}
	return NULL;
}

static void *purger(void *unused)
{
	(void)unused;
	for (unsigned i = 0; atomic_load(&over) == 0; i++) {
		quarry_purge(NULL);
		usleep(20000);
		if (i % 16 == 0 && !ST_TSAN) {
			pid_t child = fork();

			if (child == 0)
				_exit(0);
			ST_CHECK(child > 0 && waitpid(child, NULL, 0) == child);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	pthread_t helpers[2];

	st_begin(argc, argv, "collapse", 60000, 3);
	fast = *qy_os;
	fast.now_ms = fast_ms;
	qy_os = &fast;
	/* The reclaimer makes its passes alone; here it is the helpers. */
	ST_CHECK(quarry_ctl_set("reclaim", "off") == 0);
	ST_CHECK(quarry_ctl_set("thp_min", "24m") == 0);
	ST_CHECK(pthread_create(&helpers[0], NULL, collapser, NULL) == 0);
	ST_CHECK(pthread_create(&helpers[1], NULL, purger, NULL) == 0);
	st_threads(work);
	atomic_store(&over, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(helpers[i], NULL);
	ST_CHECK(quarry_stats_get(NULL, &stats) == 0);
	printf("collapse: %llu passes, %llu of them found something; %llu frames collapsed, %llu would not, %llu split\n",
	       (unsigned long long)atomic_load(&passes), (unsigned long long)atomic_load(&collapsing),
	       (unsigned long long)stats.collapsed, (unsigned long long)stats.collapse_failed,
	       (unsigned long long)stats.split);
	return st_end(ST_SLACK, 0);
}
