/* SPDX-License-Identifier: MIT */
/* Pattern: a process after a spike of load, told exactly. Objects from 16 bytes to 2 MiB are made and written in full
 * until 1.5 GiB are live; a random 5 % of the objects survive, the others are freed in the order of making; then the
 * process does nothing. Its resident size is read 0.1, 0.3, 1, 3 and 10 s later and set against the floor: the 4 KiB
 * pages that hold a byte of a live object, which the program knows, and below which no allocator can go that does not
 * move objects. What the process had before its first allocation, and the table of the survivors, are taken off.
 *
 * Sizes: the density falls as size^-1.5 (--mix 15), so that each power of two has sqrt(2) times the bytes of the one
 * below: most objects are small (half are under 64 bytes) and most bytes are in large ones, as in servers. --mix 10
 * would be as many objects in each power of two, --mix 20 as many bytes.
 *
 * --threads N: each thread makes and frees its share, then sleeps. --load 1: after the spike the main thread goes on
 * allocating and freeing, at a steady rate, and every call is timed; --load 2 is the control: the same load on the same
 * survivors, without a spike before it.
 * Source: the spike: J. Evans, "Tick Tock, Malloc Needs a Clock", Applicative 2015; survivors against pages: R. L. Hudson
 * and others and B. Powers, D. Tench, E. Berger, A. McGregor, "Mesh: Compacting Memory Management for C/C++
 * Applications", PLDI 2019, who count what fragmentation keeps. */
#include "bench.h"
#include "latency.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1u << 20)
#define MIN_SIZE 16
#define MAX_SIZE (2 * MIB)
#define PAGE 4096
#define LOAD_SLOTS 16384
#define LOAD_MAX 32768
#define TICK 0.001   /* s between two bursts of the load */
#define EARLY 2.0    /* s in which an allocator that decays gives back */

struct worker {
	struct bench_slot *slots;
	size_t bytes; /* of the table */
	uint64_t index;
	uint64_t count; /* entries of the table in use */
	uint64_t live;  /* bytes */
};

static uint64_t keep = 5, mix = 15, load, rate = 100, seconds = 10;
static const struct bench_extra extra[] = {
	{ "keep", &keep, "survivors, in percent" },
	{ "mix", &mix, "how the sizes fall: as size^(-N/10)" },
	{ "load", &load, "1: a steady load after the spike; 2: the load without the spike" },
	{ "rate", &rate, "pairs of malloc and free that the load does in a millisecond" },
	{ "idle", &seconds, "seconds to look on" },
};
static struct bench bench = {
	.name = "shrink", .op = "one MiB of objects", .ops = 1536, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static pthread_barrier_t barrier;
static const double looks[] = { 0.1, 0.3, 1, 3, 10, 30, 100 };
#define LOOKS (sizeof(looks) / sizeof(looks[0]))

static size_t in_pages(size_t bytes)
{
	return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static double mib(size_t bytes)
{
	return (double)bytes / MIB;
}

/* Inverts the distribution's function. */
static uint32_t draw_size(uint64_t *random, double most)
{
	double u = (double)(bench_random(random) >> 11) / 9007199254740992.0;
	double a = (double)mix / 10 - 1, low, high;

	if (fabs(a) < 1e-9)
		return (uint32_t)(MIN_SIZE * pow(most / MIN_SIZE, u));
	low = pow(MIN_SIZE, -a);
	high = pow(most, -a);
	return (uint32_t)pow(low - u * (low - high), -1 / a);
}

/* Whether the object of this number survives, told by the number alone: it is asked when it is made, too (--load 2). */
static int survives(const struct worker *w, uint64_t number)
{
	uint64_t x = (number + 1) * 0x9e3779b97f4a7c15u + w->index * 0xd6e8feb86659fd93u + bench.seed;

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	return x % 100 < keep;
}

static void fill(struct worker *w)
{
	uint64_t bytes = bench_share(&bench, w->index, bench.threads).left * MIB;
	uint64_t random = bench_seed(&bench, w->index), made = 0;

	for (uint64_t number = 0; made < bytes; number++) {
		uint32_t size = draw_size(&random, MAX_SIZE);
		struct bench_slot *s = &w->slots[w->count];

		made += size;
		if (load == 2 && !survives(w, number))
			continue;
		bench_fill(s, size, (uint32_t)number);
		if (size > 16)
			memset(s->p + 8, (int)number | 1, size - 16);
		w->count++;
		w->live += size;
	}
}

/* Frees in the order of making. The survivors' entries move to the front of the table and its rest goes back to the
 * kernel, so that what stays resident is the allocator's doing. */
static void shrink(struct worker *w)
{
	uint64_t kept = 0;

	for (uint64_t i = 0; i < w->count; i++) {
		if (survives(w, w->slots[i].tag)) {
			w->slots[kept++] = w->slots[i];
		} else {
			w->live -= w->slots[i].size;
			bench_empty(&w->slots[i]);
		}
	}
	w->count = kept;
	bench_table_trim(w->slots, kept * sizeof(*w->slots), w->bytes);
}

static void *work(void *argument)
{
	struct worker *w = argument;

	fill(w);
	pthread_barrier_wait(&barrier); /* all that is live at once is live */
	shrink(w);
	pthread_barrier_wait(&barrier);
	/* Here the main thread looks on. */
	pthread_barrier_wait(&barrier);
	return NULL;
}

/* ------------------------------------------------------------------------------------------------------ */
/* The floor                                                                                              */

static void sift(struct bench_slot *s, size_t root, size_t count)
{
	for (size_t child; (child = 2 * root + 1) < count; root = child) {
		struct bench_slot t;

		if (child + 1 < count && s[child].p < s[child + 1].p)
			child++;
		if (s[root].p >= s[child].p)
			return;
		t = s[root];
		s[root] = s[child];
		s[child] = t;
	}
}

/* Not qsort(3), which allocates. */
static void sort_by_address(struct bench_slot *s, size_t count)
{
	for (size_t i = count / 2; i-- > 0;)
		sift(s, i, count);
	for (size_t i = count; i-- > 1;) {
		struct bench_slot t = s[0];

		s[0] = s[i];
		s[i] = t;
		sift(s, 0, i);
	}
}

/* The pages that hold a byte of a survivor, in MiB. Threads' tables are merged in one first. */
static double live_pages(const struct bench_slot *s, size_t count)
{
	uintptr_t next = 0; /* the first page not counted yet */
	uint64_t pages = 0;

	for (size_t i = 0; i < count; i++) {
		uintptr_t from = (uintptr_t)s[i].p / PAGE, to = ((uintptr_t)s[i].p + s[i].size - 1) / PAGE + 1;

		if (from < next)
			from = next;
		if (to > from)
			pages += to - from;
		if (to > next)
			next = to;
	}
	return (double)pages * PAGE / MIB;
}

/* All workers' survivors in one table, sorted; the workers' own tables go back to the kernel. */
static struct bench_slot *gather(struct worker *workers, size_t *count, size_t *bytes)
{
	struct bench_slot *all;
	size_t at = 0;

	*count = 0;
	for (uint64_t i = 0; i < bench.threads; i++)
		*count += workers[i].count;
	*bytes = in_pages(*count * sizeof(*all));
	all = bench_table(*bytes + PAGE);
	for (uint64_t i = 0; i < bench.threads; i++) {
		memcpy(all + at, workers[i].slots, workers[i].count * sizeof(*all));
		at += workers[i].count;
		munmap(workers[i].slots, workers[i].bytes);
	}
	sort_by_address(all, *count);
	return all;
}

/* ------------------------------------------------------------------------------------------------------ */
/* What is looked at                                                                                      */

static double base, books; /* MiB: before the first allocation, and of the program's own */

static void figure_at(const char *name, double when, double value)
{
	char what[32];

	snprintf(what, sizeof(what), "%s%gs", name, when);
	bench_figure(&bench, what, value, "MiB");
}

/* What goes on while the memory comes back. */
struct steady {
	struct bench_slot *slots;
	struct bench_slot *all; /* room for these and the survivors, to see their pages */
	struct latency *early, *later, *touch; /* calls of the first seconds and of the rest; writes to fresh blocks */
	uint64_t random;
};

static void burst(struct steady *s, struct latency *calls)
{
	for (uint64_t i = 0; i < rate; i++) {
		uint32_t size = draw_size(&s->random, LOAD_MAX);
		struct bench_slot *slot = &s->slots[bench_below(&s->random, LOAD_SLOTS)];
		uint64_t from, to, stamp;

		if (slot->p) {
			bench_check(slot);
			from = latency_ticks();
			free(slot->p);
			to = latency_ticks();
			latency_add(calls, to - from);
		}
		from = latency_ticks();
		slot->p = malloc(size);
		to = latency_ticks();
		latency_add(calls, to - from);
		if (!slot->p)
			bench_no_memory(size);
		slot->size = size;
		slot->tag = (uint32_t)i;
		stamp = (uint64_t)size << 32 | slot->tag;
		from = latency_ticks();
		for (uint32_t at = 0; at < size; at += PAGE)
			slot->p[at] = 1;
		to = latency_ticks();
		latency_add(s->touch, to - from);
		memcpy(slot->p, &stamp, sizeof(stamp));
		memcpy(slot->p + size - sizeof(stamp), &stamp, sizeof(stamp));
	}
}

/* The load goes to the next look and on, a burst in each millisecond; what one that comes late left out is left out. */
static void go_on(struct steady *s, double from, double until)
{
	double next = bench_now();

	for (;;) {
		double now = bench_now();

		if (now >= until)
			return;
		burst(s, now - from < EARLY ? s->early : s->later);
		next = next + TICK > now ? next + TICK : now;
		bench_sleep_until(next < until ? next : until);
	}
}

static void set_up_load(struct steady *s, size_t survivors)
{
	size_t bytes = LOAD_SLOTS * sizeof(*s->slots), all = (survivors + LOAD_SLOTS) * sizeof(*s->all);

	s->random = bench_seed(&bench, 1000);
	s->slots = bench_table(bytes);
	s->all = bench_table(all);
	memset(s->slots, 0, bytes);
	memset(s->all, 0, all);
	s->early = latency_new();
	s->later = latency_new();
	s->touch = latency_new();
	books += mib(in_pages(bytes) + in_pages(all) + 3 * in_pages(sizeof(struct latency)));
}

/* The load's blocks are live, too. */
static double floor_with_load(struct steady *s, const struct bench_slot *survivors, size_t count)
{
	memcpy(s->all, survivors, count * sizeof(*survivors));
	for (size_t i = 0; i < LOAD_SLOTS; i++)
		if (s->slots[i].p)
			s->all[count++] = s->slots[i];
	sort_by_address(s->all, count);
	return live_pages(s->all, count);
}

static void look_on(double from, const struct bench_slot *survivors, size_t count)
{
	struct steady steady;

	if (load)
		set_up_load(&steady, count);
	for (size_t i = 0; i < LOOKS && looks[i] <= (double)seconds; i++) {
		if (load)
			go_on(&steady, from, from + looks[i]);
		else
			bench_sleep_until(from + looks[i]);
		figure_at("rss", looks[i], bench_resident() - base - books);
		if (load)
			figure_at("floor", looks[i], floor_with_load(&steady, survivors, count));
	}
	if (!load)
		return;
	latency_report(&bench, "call", steady.early);
	latency_report(&bench, "later", steady.later);
	latency_report(&bench, "touch", steady.touch);
}

static void set_up(struct worker *workers)
{
	double a = (double)mix / 10 - 1, mean;

	/* Room for twice the expected number; untouched pages cost nothing. */
	mean = fabs(a) < 1e-9 ? MAX_SIZE / log((double)MAX_SIZE / MIN_SIZE) :
	       fabs(a - 1) < 1e-9 ? MIN_SIZE * log((double)MAX_SIZE / MIN_SIZE) :
	       a / (1 - a) * (pow(MAX_SIZE, 1 - a) - pow(MIN_SIZE, 1 - a)) / (pow(MIN_SIZE, -a) - pow(MAX_SIZE, -a));
	for (uint64_t i = 0; i < bench.threads; i++) {
		double bytes = (double)bench_share(&bench, i, bench.threads).left * MIB;

		workers[i].index = i;
		workers[i].bytes = in_pages((size_t)(2 * bytes / mean + 65536) * sizeof(*workers[i].slots));
		workers[i].slots = bench_table(workers[i].bytes);
	}
}

int main(int argc, char **argv)
{
	pthread_t thread;
	struct worker *workers;
	struct bench_slot *all;
	double floor, live = 0, from;
	size_t count, bytes;

	bench_begin(&bench, argc, argv);
	latency_begin();
	workers = bench_table(bench.threads * sizeof(*workers));
	pthread_barrier_init(&barrier, NULL, (unsigned)bench.threads);
	set_up(workers);
	bench_resident();
	base = bench_resident();
	bench_start(&bench);
	for (uint64_t i = 1; i < bench.threads; i++)
		if (pthread_create(&thread, NULL, work, &workers[i]))
			bench_die("pthread_create failed");
	fill(workers);
	pthread_barrier_wait(&barrier);
	for (uint64_t i = 0; i < bench.threads; i++)
		books += mib(in_pages(workers[i].count * sizeof(*workers[i].slots)));
	bench_figure(&bench, "peak", bench_resident() - base - books, "MiB");
	shrink(workers);
	pthread_barrier_wait(&barrier);
	from = bench_now();
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	for (uint64_t i = 0; i < bench.threads; i++)
		live += (double)workers[i].live;
	all = gather(workers, &count, &bytes);
	books = mib(bytes);
	floor = live_pages(all, count);
	bench_figure(&bench, "objects", (double)count, "count");
	bench_figure(&bench, "live", live / MIB, "MiB");
	bench_figure(&bench, "floor", floor, "MiB");
	look_on(from, all, count);
	/* That they lived unharmed is a part of the work. */
	for (size_t i = 0; i < count; i++)
		bench_check(&all[i]);
	return 0;
}
