/* SPDX-License-Identifier: MIT */
/* Stress: objects that move are as objects that do not. A few counters behind handles are read, counted up and freed by
 * all threads without a lock, in scopes and pinned, while the first thread moves them all the time: it makes many
 * objects around them and frees most again, so that there always is something to pack, and puts new ones in the places of
 * those that were freed.
 *
 * Each operation is checked against those that were over before it began. For counters whose operations are "read" and
 * "add one and tell what was before" that is linearizability itself (M. Herlihy, J. Wing, Linearizability, 1990): put in
 * the order of what they saw, no operation may be over before one ahead of it began. So each counter has what the next
 * operation must see at least; an operation reads it first and raises it at last, and a lost or torn or late addition is
 * seen by the next one. For handles: after a free that was over nobody gets the object; nobody misses one whose free has
 * not begun. And what is in a scope stays: each object has words that never change.
 *
 * Some reads are optimistic, and believed when nothing came in between: those are of one moment as well.
 *
 * In between all that is there becomes cold, and what nobody got since the last time: compressed, and to a file.
 *
 * Now and then the process forks in the midst of it: the child has all objects, goes on and compacts alone. The
 * operations are what --ops counts; 10^8 are --ops 1e8. */
#include "tests/stress/stress.h"

#include <sched.h>
#include <sys/wait.h>

#include "include/quarry/lanes.h"

#define PLACES 64
#define FILLERS 30000
#define WORDS 2000
#define CHILD_SECONDS (ST_ASAN || ST_TSAN ? 300 : 60)

/* An object's life, as those outside know it. Never freed while threads run. */
struct life {
	_Alignas(64) _Atomic(uint64_t) least; /* that the next operation sees */
	_Atomic(uint32_t) ending, ended;      /* its free has begun; is over */
	quarry_handle h;
	uint32_t words, at; /* at: which place */
	struct life *next; /* older */
};

/* The object: a counter in the midst of words that are known; and two that are the same but while somebody writes, and says
 * so. */
struct body {
	uint64_t tag;
	_Atomic(uint64_t) count, one, other;
	uint64_t word[];
};

struct filler {
	quarry_handle h;
	uint64_t tag;
};

static quarry_lanes *lanes;
static struct life *_Atomic place[PLACES];
static struct life *_Atomic lives;
static _Atomic(uint64_t) reads, looks, in_vain, adds, misses, ends, moved_on, forks;
static _Atomic(unsigned) working, round_now; /* threads that do operations; what the first one is at */
static _Atomic(uint32_t) in_use; /* a place, + 1, of whose object somebody makes long use: worth to be freed */
static uint64_t bytes_back, cooled;

/* ---- contents ---- */

static uint64_t word_of(uint64_t tag, uint32_t at)
{
	return st_mix(tag * 0x9e3779b97f4a7c15u + at);
}

static void verify(const struct body *b, uint64_t tag, uint32_t words, const char *when)
{
	if (b->tag != tag)
		st_fail("%s: tag %llx instead of %llx", when, (unsigned long long)b->tag, (unsigned long long)tag);
	for (uint32_t i = 0; i < words; i++)
		if (b->word[i] != word_of(tag, i))
			st_fail("%s: word %u of %u is %llx", when, i, words, (unsigned long long)b->word[i]);
}

static struct life *life_make(struct st_rng *rng, uint32_t at)
{
	struct life *life = aligned_alloc(64, sizeof(*life));
	uint32_t words = (uint32_t)st_below(rng, st_below(rng, 16) == 0 ? WORDS : 60);
	quarry_handle h = quarry_halloc(lanes, sizeof(struct body) + words * sizeof(uint64_t));
	struct body *b;

	ST_CHECK(life != NULL && h != 0);
	quarry_enter();
	b = quarry_get_mut(lanes, h);
	ST_CHECK(b != NULL);
	b->tag = h;
	atomic_store_explicit(&b->count, 0, memory_order_relaxed);
	atomic_store_explicit(&b->one, 0, memory_order_relaxed);
	atomic_store_explicit(&b->other, 0, memory_order_relaxed);
	for (uint32_t i = 0; i < words; i++)
		b->word[i] = word_of(h, i);
	quarry_leave();
	*life = (struct life){ .h = h, .words = words, .at = at };
	life->next = atomic_load(&lives);
	while (!atomic_compare_exchange_weak(&lives, &life->next, life))
		;
	return life;
}

/* ---- operations ---- */

/* What an operation knows as it begins. */
struct before {
	uint64_t least;
	uint32_t ended;
};

static struct before look(struct life *life)
{
	return (struct before){ .least = atomic_load(&life->least), .ended = atomic_load(&life->ended) };
}

/* It saw the counter so, and left it so. */
static void saw(struct life *life, struct before was, uint64_t count, uint64_t left, const char *what)
{
	uint64_t least = atomic_load(&life->least);

	if (count < was.least)
		st_fail("%s saw %llu, after an operation was over that left %llu (handle %llx)", what,
			(unsigned long long)count, (unsigned long long)was.least, (unsigned long long)life->h);
	while (least < left && !atomic_compare_exchange_weak(&life->least, &least, left))
		;
}

/* It got, or did not get, the object. */
static bool found(struct life *life, struct before was, const void *p, const char *what)
{
	int error = errno;

	if (p != NULL && was.ended)
		st_fail("%s got an object after its free was over (handle %llx)", what, (unsigned long long)life->h);
	if (p == NULL && (error != ESTALE || !atomic_load(&life->ending)))
		st_fail("%s did not get an object that nobody frees (handle %llx, errno %d)", what,
			(unsigned long long)life->h, error);
	if (p == NULL)
		atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed);
	return p != NULL;
}

/* Now and then a thread stays in the midst of an operation for as long as others need for many; or until the first
 * thread has made, freed and moved so many times more, if it does: it waits for scopes, and not for pins. */
static void linger(struct life *life, struct st_rng *rng, unsigned rounds)
{
	uint64_t which = st_below(rng, rounds > 2 ? 128 : 2048);
	unsigned until = atomic_load(&round_now) + rounds;

	if (which == 0)
		atomic_store(&in_use, life->at + 1);
	for (uint64_t i = which == 0 ? 300 : which < 32; i > 0 && (int)(atomic_load(&round_now) - until) < 0; i--)
		sched_yield();
}

static void read_one(struct life *life, struct st_rng *rng)
{
	struct before was = look(life);
	const struct body *b;
	uint64_t count, again;

	quarry_enter();
	b = quarry_get(lanes, life->h);
	if (found(life, was, b, "get")) {
		count = atomic_load(&((struct body *)(uintptr_t)b)->count);
		linger(life, rng, 2);
		verify(b, life->h, life->words, "what was got in a scope");
		again = atomic_load(&((struct body *)(uintptr_t)b)->count);
		if (again < count)
			st_fail("a counter went back from %llu to %llu in a scope", (unsigned long long)count,
				(unsigned long long)again);
		if (quarry_get(lanes, life->h) != b)
			atomic_fetch_add_explicit(&moved_on, 1, memory_order_relaxed);
		quarry_leave();
		saw(life, was, count, count, "get");
		atomic_fetch_add_explicit(&reads, 1, memory_order_relaxed);
	} else {
		quarry_leave();
	}
}

/* Without a wait: what is believed in the end was so at one moment. */
static void read_optimistically(struct life *life, struct st_rng *rng)
{
	static _Thread_local uint64_t buffer[sizeof(struct body) / sizeof(uint64_t) + WORDS];
	struct body *copy = (void *)buffer;
	struct before was = look(life);
	size_t size = sizeof(struct body) + life->words * sizeof(uint64_t), half = sizeof(struct body) - 8;
	quarry_look at;
	int result, error;
	bool whole;

	quarry_enter();
	result = quarry_opt_begin(lanes, life->h, &at);
	error = errno;
	if (result == 0) {
		quarry_opt_copy(copy, at.at, half);
		linger(life, rng, 2);
		quarry_opt_copy((char *)copy + half, (const char *)at.at + half, size - half);
	}
	whole = result == 0 && quarry_opt_end(lanes, &at);
	quarry_leave();
	errno = error;
	if (result != 0 && error == EAGAIN)
		return;
	if (!found(life, was, result == 0 ? at.at : NULL, "opt_begin"))
		return;
	if (!whole) {
		atomic_fetch_add_explicit(&in_vain, 1, memory_order_relaxed);
		return;
	}
	verify(copy, life->h, life->words, "what was read optimistically");
	if (copy->one != copy->other)
		st_fail("read optimistically: %llu and %llu, of two moments", (unsigned long long)copy->one,
			(unsigned long long)copy->other);
	saw(life, was, copy->count, copy->count, "opt_end");
	atomic_fetch_add_explicit(&looks, 1, memory_order_relaxed);
}

static void add_one(struct life *life, struct st_rng *rng)
{
	struct before was = look(life);
	bool told = st_below(rng, 2) == 0, got;
	uint64_t count = 0;
	struct body *b;

	quarry_enter();
	b = told ? quarry_write_begin(lanes, life->h) : quarry_get_mut(lanes, life->h);
	got = found(life, was, b, "get_mut");
	if (got && told) {
		atomic_fetch_add(&b->one, 1);
		linger(life, rng, 2);
		count = atomic_fetch_add(&b->count, 1);
		atomic_fetch_add(&b->other, 1);
		quarry_write_end(lanes, life->h);
	} else if (got) {
		linger(life, rng, 2);
		count = atomic_fetch_add(&b->count, 1);
		verify(b, life->h, life->words < 4 ? life->words : 4, "what was got for writing");
	}
	quarry_leave();
	if (!got)
		return;
	saw(life, was, count, count + 1, "get_mut");
	atomic_fetch_add_explicit(&adds, 1, memory_order_relaxed);
}

/* Pinned it stays where it is, beyond a scope. */
static void add_pinned(struct life *life, struct st_rng *rng)
{
	struct before was = look(life);
	struct body *b = quarry_pin(lanes, life->h);
	uint64_t count;
	const void *at;

	if (!found(life, was, b, "pin"))
		return;
	count = atomic_fetch_add(&b->count, 1);
	saw(life, was, count, count + 1, "pin");
	linger(life, rng, 3);
	quarry_enter();
	at = quarry_get(lanes, life->h);
	if (at != b && (at != NULL || !atomic_load(&life->ending)))
		st_fail("a pinned object is at %p, not at %p", at, (const void *)b);
	quarry_leave();
	verify(b, life->h, life->words, "what is pinned");
	count = atomic_fetch_add(&b->count, 1);
	if (at != NULL)
		saw(life, was, count, count + 1, "pinned");
	ST_CHECK(quarry_unpin(lanes, life->h) == 0);
	atomic_fetch_add_explicit(&adds, 2, memory_order_relaxed);
}

static void end_life(struct life *life)
{
	atomic_store(&life->ending, 1);
	ST_CHECK(quarry_hfree(lanes, life->h) == 0);
	atomic_store(&life->ended, 1);
	atomic_fetch_add_explicit(&ends, 1, memory_order_relaxed);
}

/* ---- those around them ---- */

static void filler_make(struct filler *f, struct st_rng *rng)
{
	uint64_t *p;

	f->h = quarry_halloc(lanes, 16 + (size_t)st_below(rng, 60) * 8);
	f->tag = st_next(rng);
	ST_CHECK(f->h != 0);
	quarry_enter();
	p = quarry_get_mut(lanes, f->h);
	ST_CHECK(p != NULL);
	p[0] = f->tag;
	p[1] = ~f->tag;
	quarry_leave();
}

static void filler_end(struct filler *f)
{
	const uint64_t *p;

	quarry_enter();
	p = quarry_get(lanes, f->h);
	ST_CHECK(p != NULL && p[0] == f->tag && p[1] == ~f->tag);
	quarry_leave();
	ST_CHECK(quarry_hfree(lanes, f->h) == 0);
	f->h = 0;
}

/* Full, then sparse, then full again. */
static void thin_or_fill(struct filler *f, struct st_rng *rng, bool fill)
{
	for (unsigned i = 0; i < FILLERS; i++) {
		if (fill && f[i].h == 0)
			filler_make(&f[i], rng);
		else if (!fill && f[i].h != 0 && st_below(rng, 10) < 7)
			filler_end(&f[i]);
	}
}

/* ---- a child, forked in the midst ---- */

static __attribute__((noreturn)) void child(struct filler *f, struct st_rng *rng)
{
	st_watchdog_start(CHILD_SECONDS);
	for (int round = 0; round < 2; round++) {
		for (unsigned i = 0; i < PLACES; i++) {
			struct life *life = atomic_load(&place[i]);

			if (life == NULL || atomic_load(&life->ending) != atomic_load(&life->ended))
				continue; /* freed or not: who was about to is not here */
			read_one(life, rng);
			add_one(life, rng);
			add_pinned(life, rng);
		}
		thin_or_fill(f, rng, round == 0);
		ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	}
	_exit(0);
}

static void fork_once(struct filler *f, struct st_rng *rng)
{
	pid_t pid = fork();
	int status = 0;

	ST_CHECK(pid >= 0);
	if (pid == 0)
		child(f, rng);
	while (waitpid(pid, &status, 0) != pid)
		ST_CHECK(errno == EINTR);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		st_fail("a child ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	atomic_fetch_add(&forks, 1);
}

/* ---- threads ---- */

/* One of the objects; often enough one that was somewhere a while ago, and may be freed since. */
static struct life *some_life(struct st_rng *rng, struct life **kept)
{
	uint64_t which = st_below(rng, PLACES * 16);
	struct life *life = NULL;

	if (which < PLACES && *kept != NULL)
		return *kept;
	for (uint64_t i = which; life == NULL; i++) {
		life = atomic_load(&place[i % PLACES]);
		if (i == which + PLACES)
			sched_yield();
	}
	if (which == PLACES)
		*kept = life;
	return life;
}

static void end_at(unsigned at)
{
	struct life *life = atomic_exchange(&place[at], NULL);

	if (life != NULL)
		end_life(life);
}

static void step(struct st_worker *w, struct life **kept)
{
	struct life *life = some_life(&w->rng, kept);
	unsigned which = (unsigned)st_below(&w->rng, 5000), at;

	if (which < 50 && (at = atomic_exchange(&in_use, 0)) != 0) {
		end_at(at - 1);
	} else if (which < 2000) {
		read_one(life, &w->rng);
	} else if (which < 3000) {
		read_optimistically(life, &w->rng);
	} else if (which < 4800) {
		add_one(life, &w->rng);
	} else if (which < 4999) {
		add_pinned(life, &w->rng);
	} else {
		end_at((unsigned)st_below(&w->rng, PLACES));
	}
}

static void refill(struct st_rng *rng)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (atomic_load(&place[i]) == NULL)
			atomic_store(&place[i], life_make(rng, i));
}

/* What is there now becomes cold, whoever uses it; or what nobody got since the last time. */
static void cool(const struct filler *f, struct st_rng *rng, unsigned round)
{
	static quarry_handle some[PLACES + 1000];
	size_t count = 0;
	int64_t gone;

	if (round % 8 != 1 && round % 8 < 6)
		return;
	if (round % 8 == 6) {
		gone = quarry_cool(lanes, st_below(rng, 2) == 0 ? 500 : 0);
	} else {
		for (unsigned i = 0; i < PLACES; i++) {
			struct life *life = atomic_load(&place[i]);

			if (life != NULL)
				some[count++] = life->h;
		}
		for (unsigned i = 0; i < 1000; i++) {
			quarry_handle h = f[st_below(rng, FILLERS)].h;

			if (h != 0)
				some[count++] = h;
		}
		gone = quarry_evict(lanes, some, count);
	}
	ST_CHECK(gone >= 0);
	cooled += (uint64_t)gone;
}

/* The first thread. What it allocates from goes back as it compacts, so that nothing keeps a segment from being
 * chosen. */
static void keep_moving(struct st_worker *w)
{
	struct filler *f = calloc(FILLERS, sizeof(*f));

	ST_CHECK(f != NULL);
	for (unsigned round = 0; atomic_load(&working) > 0; round++) {
		int64_t back;


		atomic_store(&round_now, round);
		thin_or_fill(f, &w->rng, round % 2 == 0);
		refill(&w->rng);
		if (round % 64 == 63)
			fork_once(f, &w->rng);
		cool(f, &w->rng, round);
		back = quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, st_below(&w->rng, 4) == 0 ? 1000 : 0);
		ST_CHECK(back >= 0);
		bytes_back += (uint64_t)back;
	}
	for (unsigned i = 0; i < FILLERS; i++)
		if (f[i].h != 0)
			filler_end(&f[i]);
	free(f);
}

static void work(struct st_worker *w)
{
	struct life *kept = NULL;

	if (w->number == 0) {
		keep_moving(w);
		return;
	}
	while (st_more(w))
		step(w, &kept);
	atomic_fetch_sub(&working, 1);
}

int main(int argc, char **argv)
{
	quarry_cold_attr cold = { .period_ms = 1 };
	quarry_lanes_attr attr = { .cold = &cold };
	quarry_lanes_stats stats = { 0 };
	quarry_cold_stats away = { 0 };
	struct st_rng rng;

	st_begin(argc, argv, "lanes_order", 6000000, 3);
	rng = st_rng_for(1000);
	if (st.seed % 2 == 0) {
		cold.memory_limit = 20000;
		cold.directory = "/tmp";
	}
	if (st.seed % 4 < 2) {
		cold.long_codec = "zstd";
		cold.long_periods = 1;
	}
	lanes = quarry_lanes_create(&attr);
	ST_CHECK(lanes != NULL);
	for (unsigned i = 0; i < PLACES; i++)
		atomic_store(&place[i], life_make(&rng, i));
	atomic_store(&working, st.threads - 1);
	st_threads(work);
	for (unsigned i = 0; i < PLACES; i++)
		if (atomic_load(&place[i]) != NULL)
			end_life(atomic_load(&place[i]));
	for (struct life *life = atomic_load(&lives), *next; life != NULL; life = next) {
		ST_CHECK(quarry_handle_valid(lanes, life->h) == 0);
		next = life->next;
		free(life);
	}
	ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	ST_CHECK(quarry_lanes_stats_get(lanes, &stats) == 0);
	printf("lanes_order: %llu reads, %llu without a scope (%llu in vain), %llu additions, %llu too late, %llu objects ended; %llu moved, %llu moves given up, "
	       "%llu moved while in a scope, %llu MiB back, %llu forks\n",
	       (unsigned long long)reads, (unsigned long long)looks, (unsigned long long)in_vain, (unsigned long long)adds, (unsigned long long)misses, (unsigned long long)ends,
	       (unsigned long long)stats.moved, (unsigned long long)stats.given_up, (unsigned long long)moved_on,
	       (unsigned long long)(bytes_back >> 20), (unsigned long long)forks);
	ST_CHECK(quarry_cold_stats_get(lanes, &away) == 0);
	printf("lanes_order: %llu objects became cold, %llu came back, %llu times it was not worth it, %llu extents compressed anew\n",
	       (unsigned long long)cooled, (unsigned long long)away.loaded, (unsigned long long)away.incompressible,
	       (unsigned long long)away.deepened);
	ST_CHECK(stats.objects == 0 && away.objects == 0 && away.bytes == 0 && away.compressed == 0 && away.evicted == 0);
	ST_CHECK(away.corrupt == 0 && away.failures == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
