/* SPDX-License-Identifier: MIT */
/* Stress: threads are born and die all the time and leave live blocks to others, which verify and free them. They
 * die in every way there is: by return, by pthread_exit from deep down, with cleanup handlers and thread-specific
 * destructors that free and allocate (after the library's own may have run), cancelled in a cancellation point, by
 * pthread_testcancel or at any instruction while computing, detached, and by a bare exit(2) of the thread, which runs
 * nothing of the sort at all. --ops counts threads. */
#include "tests/stress/stress.h"

#include <semaphore.h>
#include <sys/syscall.h>

#define SLOTS 2048
#define KEYS 4
#define MAX_BITS 17

/* C++ runtimes and Rust register thread_local destructors so; musl has no such thing. */
extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *) __attribute__((weak));
extern void *__dso_handle __attribute__((weak));

enum death { DIE_RETURN, DIE_EXIT_DEEP, DIE_CLEANUP, DIE_CANCEL_WAIT, DIE_CANCEL_TEST, DIE_CANCEL_ASYNC, DIE_DETACHED,
	     DIE_BARE, DEATHS };

static const char *const death_names[DEATHS] = { "return", "exit-deep", "cleanup", "cancel-wait", "cancel-test",
						 "cancel-async", "detached", "bare" };

struct life {
	struct st_rng rng;
	uint64_t next_id;
	enum death death;
	pthread_t thread;
	sem_t ready;            /* the thread is where it may be cancelled */
	sem_t never;
	struct st_block held;   /* freed by a cleanup handler */
	volatile uint64_t work; /* of the cancel-async thread */
};

static _Atomic(struct st_card *) *table;
static pthread_key_t key[KEYS];
static _Atomic uint64_t detached_alive;
static _Atomic uint64_t deaths[DEATHS];

/* A thread's value of a key: a block of the thread's, and how many more rounds the destructor wants. */
struct keyed {
	struct st_block block;
	struct st_rng rng;
	unsigned rounds;
	unsigned which;
};

static void key_destructor(void *arg)
{
	struct keyed *k = arg;

	st_block_verify(&k->block);
	if (k->rounds > 0) {
		/* Come again: glibc calls up to four times, and the library's own destructor has had its turn. */
		k->rounds--;
		st_release(&k->block, &k->rng);
		st_make(&k->block, &k->rng, NULL, k->block.id + 1, st_size(&k->rng, 12));
		ST_CHECK(pthread_setspecific(key[k->which], k) == 0);
		return;
	}
	st_release(&k->block, &k->rng);
	quarry_free(k);
}

static void local_destructor(void *arg)
{
	struct keyed *k = arg;
	void *p = quarry_calloc(3, 100);

	ST_CHECK(p != NULL);
	st_drop(&k->block, &k->rng);
	quarry_free(k);
	quarry_free(p);
}

static struct keyed *keyed_make(struct life *l, unsigned which)
{
	struct keyed *k = quarry_malloc(sizeof *k);

	ST_CHECK(k != NULL);
	k->rng = st_rng_for(l->next_id);
	k->rounds = (unsigned)st_below(&l->rng, 3);
	k->which = which;
	st_make(&k->block, &l->rng, NULL, l->next_id++, st_size(&l->rng, 12));
	return k;
}

static void set_destructors(struct life *l)
{
	for (unsigned i = 0; i < KEYS; i++) {
		if (st_below(&l->rng, 3) == 0)
			ST_CHECK(pthread_setspecific(key[i], keyed_make(l, i)) == 0);
	}
	/* Where nothing of it will run, only what can be undone by hand. */
	if (__cxa_thread_atexit_impl != NULL && l->death != DIE_BARE && st_below(&l->rng, 3) == 0)
		__cxa_thread_atexit_impl(local_destructor, keyed_make(l, 0), &__dso_handle);
}

/* What a thread does while it lives: takes over what others left, and leaves its own. */
static void live(struct life *l)
{
	struct st_block own[32];
	unsigned n = 8 + (unsigned)st_below(&l->rng, 200);

	memset(own, 0, sizeof own);
	for (unsigned i = 0; i < n; i++) {
		struct st_card *card = st_card_make(&l->rng, l->next_id++, st_size(&l->rng, MAX_BITS));
		struct st_block *b = &own[st_below(&l->rng, 32)];

		card = atomic_exchange(&table[st_below(&l->rng, SLOTS)], card);
		if (card != NULL)
			st_card_drop(card, &l->rng);
		if (b->p != NULL)
			st_drop(b, &l->rng);
		else
			st_make(b, &l->rng, NULL, l->next_id++, st_size(&l->rng, MAX_BITS));
	}
	for (unsigned i = 0; i < 32; i++) {
		if (own[i].p != NULL)
			st_drop(&own[i], &l->rng);
	}
	atomic_fetch_add_explicit(&st.done, n * 3, memory_order_relaxed);
}

/* By a pointer, lest the compiler see that nothing returns here. */
static void (*volatile leave)(void *) = pthread_exit;

/* AddressSanitizer marks the borders of frames, and takes that back as they return, or before a call of which the compiler
 * knows that it does not: here it has to be told, or it finds borders of frames that are gone in those of destructors. */
#if ST_ASAN
extern void __asan_handle_no_return(void);
#define FORGET_FRAMES() __asan_handle_no_return()
#else
#define FORGET_FRAMES() ((void)0)
#endif

static __attribute__((noinline)) void exit_deep(struct life *l, unsigned depth)
{
	volatile char frame[64];

	frame[0] = (char)depth;
	if (depth == 0) {
		FORGET_FRAMES();
		leave(l);
	} else {
		exit_deep(l, depth - 1);
	}
	frame[1] = frame[0]; /* keeps the call from becoming a jump */
}

static void cleanup(void *arg)
{
	struct life *l = arg;
	void *p = quarry_malloc(333);

	ST_CHECK(p != NULL);
	if (l->held.p != NULL)
		st_drop(&l->held, &l->rng);
	quarry_free(p);
}

static void *grandchild(void *arg)
{
	struct life *l = arg;

	live(l);
	quarry_free(l);
	atomic_fetch_sub(&detached_alive, 1);
	return NULL;
}

/* Start a detached thread that outlives this one. */
static void start_detached(struct life *l)
{
	struct life *child = quarry_malloc(sizeof *child);
	pthread_t thread;

	ST_CHECK(child != NULL);
	memset(child, 0, sizeof *child);
	child->rng = st_rng_for(l->next_id ^ 0x5bd1e995);
	child->next_id = l->next_id + (1u << 20);
	atomic_fetch_add(&detached_alive, 1);
	ST_CHECK(pthread_create(&thread, NULL, grandchild, child) == 0);
	ST_CHECK(pthread_detach(thread) == 0);
}

static void die_cancelled(struct life *l)
{
	int old;

	pthread_cleanup_push(cleanup, l);
	sem_post(&l->ready);
	if (l->death == DIE_CANCEL_WAIT) {
		for (;;)
			sem_wait(&l->never);
	} else if (l->death == DIE_CANCEL_TEST) {
		for (;;) {
			void *p = quarry_malloc(100);
			quarry_free(p);
			pthread_testcancel();
		}
	} else {
		/* malloc may not be cancelled at any instruction, computing may. */
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
		for (;;)
			l->work++;
	}
	pthread_cleanup_pop(0);
}

static void *born(void *arg)
{
	struct life *l = arg;

	set_destructors(l);
	live(l);
	st_make(&l->held, &l->rng, NULL, l->next_id++, st_size(&l->rng, MAX_BITS));
	switch (l->death) {
	case DIE_EXIT_DEEP:
		st_drop(&l->held, &l->rng);
		exit_deep(l, 50);
		break;
	case DIE_CLEANUP:
		pthread_cleanup_push(cleanup, l);
		pthread_exit(NULL);
		pthread_cleanup_pop(1);
		break;
	case DIE_CANCEL_WAIT:
	case DIE_CANCEL_TEST:
	case DIE_CANCEL_ASYNC:
		die_cancelled(l);
		break;
	case DIE_DETACHED:
		start_detached(l);
		/* fall through */
	default:
		st_drop(&l->held, &l->rng);
		break;
	}
	if (l->death == DIE_BARE) {
		/* What the destructors would have freed is freed here, before: nothing runs after this. The keys are
		 * emptied because glibc would leave them to the next thread on this stack. */
		for (unsigned i = 0; i < KEYS; i++) {
			struct keyed *k = pthread_getspecific(key[i]);
			if (k == NULL)
				continue;
			st_drop(&k->block, &l->rng);
			quarry_free(k);
			ST_CHECK(pthread_setspecific(key[i], NULL) == 0);
		}
		syscall(SYS_exit, 0);
	}
	return NULL;
}

static enum death choose_death(struct st_rng *rng)
{
	enum death death = (enum death)st_below(rng, DEATHS);

	/* The sanitizers keep books of their threads, which a bare exit leaves behind; a thread cancelled at any
	 * instruction may be in the middle of theirs, and ThreadSanitizer takes one that was cancelled in a call it
	 * wraps for being in there still, and sees none of its locks from then on. */
	if ((ST_ASAN || ST_TSAN) && (death == DIE_BARE || death == DIE_CANCEL_ASYNC))
		death = DIE_RETURN;
	if (ST_TSAN && death == DIE_CANCEL_WAIT)
		death = DIE_CANCEL_TEST;
	return death;
}

static void bear(struct life *l)
{
	ST_CHECK(sem_init(&l->ready, 0, 0) == 0 && sem_init(&l->never, 0, 0) == 0);
	ST_CHECK(pthread_create(&l->thread, NULL, born, l) == 0);
}

static void bury(struct life *l)
{
	if (l->death == DIE_CANCEL_WAIT || l->death == DIE_CANCEL_TEST || l->death == DIE_CANCEL_ASYNC) {
		while (sem_wait(&l->ready) != 0)
			ST_CHECK(errno == EINTR);
		ST_CHECK(pthread_cancel(l->thread) == 0);
	}
	ST_CHECK(pthread_join(l->thread, NULL) == 0);
	atomic_fetch_add_explicit(&deaths[l->death], 1, memory_order_relaxed);
	sem_destroy(&l->ready);
	sem_destroy(&l->never);
}

/* Each worker keeps a few threads alive, one generation overlapping the next. */
static void midwife(struct st_worker *w)
{
	enum { ALIVE = 4 };
	struct life *l = st_pages(ALIVE * sizeof *l);
	uint64_t n = 0;

	while (st_more(w)) {
		struct life *one = &l[n % ALIVE];
		if (n >= ALIVE)
			bury(one);
		memset(one, 0, sizeof *one);
		one->rng = st_rng_for(w->next_id);
		one->next_id = w->next_id;
		one->death = choose_death(&w->rng);
		w->next_id += 1u << 21;
		bear(one);
		n++;
	}
	for (unsigned i = 0; i < ALIVE && i < n; i++)
		bury(&l[i]);
	munmap(l, ALIVE * sizeof *l);
}

int main(int argc, char **argv)
{
	static const struct timespec tick = { 0, 1000 * 1000 };
	struct st_rng rng;

	st_begin(argc, argv, "dying", 12000, 2);
	table = st_pages(SLOTS * sizeof *table);
	for (unsigned i = 0; i < KEYS; i++)
		ST_CHECK(pthread_key_create(&key[i], key_destructor) == 0);
	if (ST_ASAN || ST_TSAN)
		printf("dying: some deaths are left out under this sanitizer, which cannot follow them\n");
	st_threads(midwife);
	while (atomic_load(&detached_alive) != 0)
		nanosleep(&tick, NULL);
	rng = st_rng_for(ST_THREADS_MAX);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct st_card *card = atomic_exchange(&table[i], NULL);
		if (card != NULL)
			st_card_drop(card, &rng);
	}
	printf("dying:");
	for (unsigned i = 0; i < DEATHS; i++)
		printf(" %s %llu%s", death_names[i], (unsigned long long)atomic_load(&deaths[i]), i + 1 < DEATHS ? "," : "\n");
	return st_end(ST_SLACK, 0);
}
