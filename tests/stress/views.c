/* SPDX-License-Identifier: MIT */
/* Stress: views of what lives (quarry_view_open) are made while threads allocate and free for each other, sleep, are born
 * and die, fork, drop most of what they have and take other sizes. Every block's life is written down with the time before and
 * after the call that began it and the call that ended it; a view must be that of one moment: there is a time, between
 * its begin and its end, at which every block that it tells of as live may have lived, and none lived for sure that it
 * does not tell of. Each is found in it again, with its size, and none overlaps another.
 * --threads trade; beside them one sleeps most of the time, one computes, one has all that is idle given up, and others come
 * and go, and fork. --ops are views. */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#define SLOTS 30000
#define LIVES ((size_t)1 << 24) /* of each thread, in address space that is not touched before */
#define NEVER UINT64_MAX
#define MORTALS 4

/* Who frees a block writes when, whoever made it. */
struct life {
	char *p;
	size_t size;
	uint64_t made_before, made_after;
	_Atomic(uint64_t) freed_before, freed_after;
};

static _Atomic(struct life *) *table;
static atomic_bool over;
static _Atomic(unsigned) phase;
static struct tale {
	struct life *lives;
	size_t count;
} tales[ST_THREADS_MAX];

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- living ---- */

static size_t some_size(struct st_rng *rng)
{
	static const unsigned bits[] = { 8, 11, 6, 10 };

	if (st_below(rng, 400) == 0)
		return st_log_size(rng, 22);
	return st_log_size(rng, st_below(rng, 20) == 0 ? 15 : bits[atomic_load(&phase) % 4]);
}

static struct life *make(struct tale *tale, struct st_rng *rng)
{
	struct life *life = &tale->lives[tale->count];

	if (tale->count == LIVES)
		st_fail("more than %zu blocks by one thread", LIVES);
	life->size = some_size(rng);
	life->made_before = now();
	life->p = quarry_malloc(life->size);
	life->made_after = now();
	ST_CHECK(life->p != NULL);
	life->p[0] = life->p[life->size - 1] = 7;
	atomic_store(&life->freed_before, NEVER);
	atomic_store(&life->freed_after, NEVER);
	tale->count++;
	return life;
}

static void end(struct life *life)
{
	if (life == NULL)
		return;
	if (life->p[0] != 7 || life->p[life->size - 1] != 7)
		st_fail("a block of %zu bytes at %p was written over", life->size, (const void *)life->p);
	atomic_store(&life->freed_before, now());
	quarry_free(life->p);
	atomic_store(&life->freed_after, now());
}

static void drop_most(struct st_rng *rng)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (st_below(rng, 10) != 0)
			end(atomic_exchange(&table[i], NULL));
	atomic_fetch_add(&phase, 1);
}

static void trade(struct tale *tale, struct st_rng *rng, uint64_t most)
{
	for (uint64_t n = 0; n < most && !atomic_load(&over); n++) {
		struct life *life = st_below(rng, 8) == 0 ? NULL : make(tale, rng);

		end(atomic_exchange(&table[st_below(rng, SLOTS)], life));
		if (st_below(rng, 300000) == 0)
			drop_most(rng);
		if (st_below(rng, 100000) == 0)
			quarry_thread_flush();
	}
}

static void *trade_for_long(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number);

	trade(&tales[(uintptr_t)number], &rng, NEVER);
	return NULL;
}

/* Its caches are full, and it is blocked mostly. */
static void *sleep_mostly(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number);

	while (!atomic_load(&over)) {
		trade(&tales[(uintptr_t)number], &rng, 2000);
		usleep(20000);
	}
	return NULL;
}

/* Holds blocks, and computes without a call of quarry's. */
static void *compute(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number);

	trade(&tales[(uintptr_t)number], &rng, 5000);
	while (!atomic_load(&over))
		st_next(&rng);
	return NULL;
}

static void *live_shortly(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number + tales[(uintptr_t)number].count);

	trade(&tales[(uintptr_t)number], &rng, 3000);
	return NULL;
}

/* A child has no view made, and goes on. (ThreadSanitizer has no children of threads.) */
static void beget(void)
{
	pid_t pid = ST_TSAN ? -1 : fork();

	if (pid == 0) {
		for (size_t i = 0; i < 3000; i++)
			quarry_free(quarry_malloc(1 + i * 7 % 5000));
		_exit(0);
	}
	if (pid > 0) {
		int status;

		ST_CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	}
}

/* What sleeping threads hold is given up again and again, whoever is looking at it. */
static void *purge(void *unused)
{
	(void)unused;
	while (!atomic_load(&over)) {
		quarry_purge(NULL);
		usleep(1000);
	}
	return NULL;
}

static void *bear(void *number)
{
	pthread_t mortals[MORTALS];

	while (!atomic_load(&over)) {
		beget();
		for (uintptr_t i = 0; i < MORTALS; i++)
			ST_CHECK(pthread_create(&mortals[i], NULL, live_shortly, (void *)((uintptr_t)number + 1 + i)) == 0);
		for (unsigned i = 0; i < MORTALS; i++)
			pthread_join(mortals[i], NULL);
	}
	return NULL;
}

/* ---- judging ---- */

struct seen {
	const char *p;
	size_t size;
};

static struct seen *seen;
static size_t seen_count, seen_room;

static int note(const quarry_view_item *item, void *end)
{
	const char **last = end;

	if ((const char *)item->address < *last)
		st_fail("a block at %p begins in the one before, which ends at %p", item->address, (const void *)*last);
	*last = (const char *)item->address + item->size;
	if (item->state != QUARRY_VIEW_LIVE)
		return 0;
	ST_CHECK(seen_count < seen_room);
	seen[seen_count++] = (struct seen){ item->address, item->size };
	return 0;
}

static bool is_seen(const struct life *life)
{
	size_t low = 0, high = seen_count;

	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (seen[i].p < life->p)
			low = i + 1;
		else
			high = i;
	}
	return low < seen_count && seen[low].p == life->p;
}

/* Of an address, when it may have lived; or for sure, where the view does not tell of it. */
struct span {
	const char *p;
	uint64_t from, to;
	bool told;
};

static int by_place(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	if (x->p != y->p)
		return x->p < y->p ? -1 : 1;
	return x->from < y->from ? -1 : x->from > y->from;
}

/* At a time, so much is wrong from there on. */
struct change {
	uint64_t at;
	int64_t more;
};

static int by_time(const void *a, const void *b)
{
	const struct change *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* Whether there is a time at which nothing is wrong. Each address told of is wrong but for the spans in which it may
 * have lived, each other one in those in which it lived for sure. */
static uint64_t moment_of(struct span *spans, size_t n, uint64_t begun, uint64_t ended, uint64_t *least)
{
	struct change *changes = st_pages((2 * n + 1) * sizeof *changes);
	size_t count = 0;
	int64_t wrong = 0;
	uint64_t best = 0;

	qsort(spans, n, sizeof *spans, by_place);
	/* What nobody had is wrong at any time. */
	wrong = (int64_t)seen_count;
	for (size_t i = 0, next; i < n; i = next) {
		uint64_t to = spans[i].to;

		/* (Who frees may return after who gets the same address next has called.) */
		for (next = i + 1; next < n && spans[next].p == spans[i].p && spans[next].from <= to; next++)
			to = spans[next].to > to ? spans[next].to : to;
		if (spans[i].told) {
			changes[count++] = (struct change){ spans[i].from, -1 };
			changes[count++] = (struct change){ to, 1 };
		} else if (spans[i].from < to) {
			changes[count++] = (struct change){ spans[i].from + 1, 1 };
			changes[count++] = (struct change){ to, -1 };
		}
	}
	changes[count++] = (struct change){ begun, 0 };
	qsort(changes, count, sizeof *changes, by_time);
	*least = UINT64_MAX;
	for (size_t i = 0; i < count;) {
		uint64_t at = changes[i].at;

		for (; i < count && changes[i].at == at; i++)
			wrong += changes[i].more;
		if (at >= begun && at <= ended && (uint64_t)wrong < *least) {
			*least = (uint64_t)wrong;
			best = at;
		}
	}
	munmap(changes, (2 * n + 1) * sizeof *changes);
	return best;
}

/* The first block that was otherwise at that time. */
static __attribute__((noreturn)) void tell_wrong(const struct span *spans, size_t n, uint64_t at)
{
	for (size_t i = 0, next; i < n; i = next) {
		bool may = false;

		for (next = i; next < n && spans[next].p == spans[i].p; next++)
			may = may || (spans[next].from <= at && at < spans[next].to);
		if (may != spans[i].told && (spans[i].told || spans[i].from < spans[i].to))
			st_fail("at no time it was so: %p is told of as %s; it lived from %ld us on to %ld, seen from there",
				(const void *)spans[i].p, spans[i].told ? "live" : "free",
				(long)(spans[i].from - at) / 1000, (long)(spans[i].to - at) / 1000);
	}
	for (size_t i = 0, k = 0; i < seen_count; i++) {
		while (k < n && spans[k].p < seen[i].p)
			k++;
		if (k == n || spans[k].p != seen[i].p)
			st_fail("at no time it was so: %p of %zu bytes is told of as live, and nobody had it",
				(const void *)seen[i].p, seen[i].size);
	}
	st_fail("at no time it was so");
}

static void judge(unsigned count, uint64_t begun, uint64_t ended, const quarry_view_report *report)
{
	size_t n = 0, all = 0;
	uint64_t least;
	struct span *spans;

	for (unsigned t = 0; t < count; t++)
		all += tales[t].count;
	spans = st_pages(all * sizeof *spans);
	for (unsigned t = 0; t < count; t++)
		for (size_t i = 0; i < tales[t].count; i++) {
			struct life *life = &tales[t].lives[i];
			bool is = is_seen(life);

			if (life->freed_after < begun || life->made_before > ended)
				continue;
			spans[n++] = is ? (struct span){ life->p, life->made_before, life->freed_after, true }
					: (struct span){ life->p, life->made_after, life->freed_before, false };
		}
	if (n > 0 && seen_count > 0) {
		uint64_t at = moment_of(spans, n, begun, ended, &least);

		printf("%s: %zu lived of %zu; %.3f of the way, %lu wrong; held %.3f ms, one %.3f ms, took %.1f ms, exact %u "
		       "(unsettled %u, missed %u)\n", st.name, seen_count, n, (double)(at - begun) / (double)(ended - begun),
		       (unsigned long)least, (double)report->moment_ns / 1e6, (double)report->longest_ns / 1e6,
		       (double)report->took_ns / 1e6, report->exact, report->unsettled, report->missed);
		if (least != 0 && report->exact)
			tell_wrong(spans, n, at);
	}
	munmap(spans, all * sizeof *spans);
}

/* Then all threads end, and their lives are read. */
static void look_once(unsigned count, const pthread_t *threads, unsigned n)
{
	quarry_view_report report = { .struct_size = sizeof report };
	const char *last = NULL;
	uint64_t begun, ended;
	quarry_view *view;

	begun = now();
	view = quarry_view_open();
	ended = now();
	ST_CHECK(view != NULL);
	atomic_store(&over, true);
	ST_CHECK(quarry_view_report_get(view, &report) == 0);
	seen_count = 0;
	seen_room = report.objects + report.blocks;
	seen = st_pages((seen_room + 1) * sizeof *seen);
	ST_CHECK(quarry_view_visit(view, QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, note, &last) == 0);
	if (seen_count != seen_room)
		st_fail("%zu live objects and blocks are visited, %zu reported", seen_count, seen_room);
	for (size_t i = 0; i < seen_count; i += 97) {
		quarry_view_item item;

		ST_CHECK(quarry_view_find(view, seen[i].p + seen[i].size / 2, &item, sizeof item) == 0);
		ST_CHECK(item.address == seen[i].p && item.size == seen[i].size && item.state == QUARRY_VIEW_LIVE);
	}
	quarry_view_close(view);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	judge(count, begun, ended, &report);
	munmap(seen, (seen_room + 1) * sizeof *seen);
}

static void round_of(unsigned count)
{
	pthread_t threads[ST_THREADS_MAX];
	unsigned n = 0;

	atomic_store(&over, false);
	for (uintptr_t i = 0; i < st.threads; i++)
		ST_CHECK(pthread_create(&threads[n++], NULL, trade_for_long, (void *)i) == 0);
	ST_CHECK(pthread_create(&threads[n++], NULL, sleep_mostly, (void *)(uintptr_t)st.threads) == 0);
	ST_CHECK(pthread_create(&threads[n++], NULL, compute, (void *)(uintptr_t)(st.threads + 1)) == 0);
	ST_CHECK(pthread_create(&threads[n++], NULL, purge, NULL) == 0);
	ST_CHECK(pthread_create(&threads[n++], NULL, bear, (void *)(uintptr_t)(st.threads + 2)) == 0);
	usleep(150000);
	look_once(count, threads, n);
}

int main(int argc, char **argv)
{
	unsigned count;

	st_begin(argc, argv, "views", 10, 3);
	setvbuf(stdout, NULL, _IOLBF, 0);
	count = st.threads + 3 + MORTALS;
	table = st_pages(SLOTS * sizeof *table);
	for (unsigned t = 0; t < count; t++)
		tales[t].lives = st_pages(LIVES * sizeof(struct life));
	for (uint64_t i = 0; i < st.ops; i++) {
		for (unsigned t = 0; t < count; t++)
			tales[t].count = 0;
		round_of(count);
		for (size_t s = 0; s < SLOTS; s++)
			end(atomic_exchange(&table[s], NULL));
	}
	return st_end(ST_SLACK, 0);
}
