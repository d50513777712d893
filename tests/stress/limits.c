/* SPDX-License-Identifier: MIT */
/* Stress: limits. Threads allocate, resize and free, in the default arenas and in some of their own, while the
 * process's hard and soft limits, the breaker and who is told of it all change under them, and while arenas with quotas
 * in hand, one of them the breaker's, come and go. What is refused is ENOMEM, what is had is whole, the program's
 * function is never called twice at once, and in the end nothing is in use or refused. */
#include "tests/stress/stress.h"

#define HELD 48
#define ARENAS 4
#define MOST (3 * ST_MIB)

static _Atomic(unsigned long long) refused, told, inside;
static _Atomic(int) working;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; /* of the arenas: who ends one must be alone with it */
static quarry_arena *arenas[ARENAS];

static void set(const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	ST_CHECK(quarry_ctl_set(name, text) == 0);
}

/* It may do what it likes, but for waiting for what those hold who call malloc. */
static void hear(const quarry_event *event, void *ctx)
{
	quarry_health_report report = { .struct_size = sizeof report };
	void *p;

	ST_CHECK(atomic_fetch_add(&inside, 1) == 0);
	ST_CHECK(ctx == &told && event->kind >= QUARRY_EVENT_PRESSURE && event->kind <= QUARRY_EVENT_BREAKER);
	p = quarry_malloc(100000);
	if (p != NULL)
		memset(p, 1, 100000);
	quarry_free(p);
	ST_CHECK(quarry_health(&report) == 0);
	atomic_fetch_add(&told, 1);
	atomic_fetch_sub(&inside, 1);
}

/* ---- those who allocate ---- */

static size_t a_size(struct st_rng *rng)
{
	return st_below(rng, 16) == 0 ? 1 + st_below(rng, MOST) : st_size(rng, 15);
}

static bool is_ours(quarry_arena *arena)
{
	for (unsigned i = 0; i < ARENAS; i++)
		if (arena == arenas[i])
			return true;
	return false;
}

/* What is in an arena that may end, by request or because the breaker sent it there, is not kept. */
static void make(struct st_worker *w, struct st_block *b)
{
	size_t size = a_size(&w->rng);
	unsigned at = (unsigned)st_below(&w->rng, 2 * ARENAS);

	*b = (struct st_block){ .asked = size, .size = size, .id = w->next_id++ };
	errno = 0;
	pthread_rwlock_rdlock(&lock);
	b->p = at < ARENAS ? quarry_arena_malloc(arenas[at], size) : quarry_malloc(size);
	if (b->p == NULL) {
		ST_CHECK(errno == ENOMEM);
		atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
	} else {
		st_block_fill(b);
		if (is_ours(quarry_arena_of(b->p)))
			st_drop(b, &w->rng);
	}
	pthread_rwlock_unlock(&lock);
}

static void allocate(struct st_worker *w)
{
	struct st_block held[HELD] = { { .p = NULL } };

	while (st_more(w)) {
		struct st_block *b = &held[st_below(&w->rng, HELD)];

		if (b->p == NULL)
			make(w, b);
		else
			st_drop(b, &w->rng);
	}
	for (unsigned i = 0; i < HELD; i++)
		if (held[i].p != NULL)
			st_drop(&held[i], &w->rng);
	quarry_thread_flush();
	atomic_fetch_sub(&working, 1);
}

/* ---- the one who changes everything ---- */

static void renew(struct st_rng *rng, unsigned i)
{
	quarry_arena_attr attr = { .hard_limit = st_below(rng, 2) ? 4 * ST_MIB : 0, .soft_limit = ST_MIB };

	pthread_rwlock_wrlock(&lock);
	ST_CHECK(arenas[i] == NULL || quarry_arena_destroy(arenas[i]) == 0);
	arenas[i] = quarry_arena_create(&attr);
	ST_CHECK(arenas[i] != NULL);
	if (st_below(rng, 2))
		ST_CHECK(quarry_breaker_redirect(arenas[i]) == 0);
	pthread_rwlock_unlock(&lock);
}

static void change(struct st_worker *w)
{
	struct timespec moment = { 0, 2000000 };
	uint64_t in_use = st.before.in_use + 4 * ST_MIB;

	while (atomic_load(&working) > 0) {
		quarry_health_report report = { .struct_size = sizeof report };

		set("hard_limit", st_below(&w->rng, 4) == 0 ? 0 : in_use + st_below(&w->rng, 24 * ST_MIB));
		set("soft_limit", st_below(&w->rng, 2) == 0 ? 0 : in_use + st_below(&w->rng, 24 * ST_MIB));
		set("breaker", st_below(&w->rng, 3));
		set("breaker_at", 60 + st_below(&w->rng, 40));
		renew(&w->rng, (unsigned)st_below(&w->rng, ARENAS));
		ST_CHECK(quarry_on_event(st_below(&w->rng, 8) == 0 ? NULL : hear, &told) == 0);
		ST_CHECK(quarry_health(&report) == 0);
		nanosleep(&moment, NULL);
	}
}

int main(int argc, char **argv)
{
	static struct st_worker workers[ST_THREADS_MAX], changer;
	struct st_rng rng;

	st_begin(argc, argv, "limits", 400000, 4);
	rng = st_rng_for(4711);
	for (unsigned i = 0; i < ARENAS; i++)
		renew(&rng, i);
	atomic_store(&working, (int)st.threads);
	st_start(workers, st.threads, allocate);
	st_worker_init(&changer, st.threads);
	changer.body = change;
	ST_CHECK(pthread_create(&changer.thread, NULL, st_worker_main, &changer) == 0);
	st_join(workers, st.threads);
	ST_CHECK(pthread_join(changer.thread, NULL) == 0);
	ST_CHECK(quarry_on_event(NULL, NULL) == 0);
	set("hard_limit", 0);
	set("soft_limit", 0);
	set("breaker", 0);
	for (unsigned i = 0; i < ARENAS; i++)
		ST_CHECK(quarry_arena_destroy(arenas[i]) == 0);
	printf("limits: %llu refused, %llu events told\n", atomic_load(&refused), atomic_load(&told));
	ST_CHECK(atomic_load(&refused) > 0 && atomic_load(&told) > 0);
	return st_end(ST_SLACK, 0);
}
