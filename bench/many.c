/* SPDX-License-Identifier: MIT */
/* Pattern: a server with many more threads than processors. Connections wander over the threads' queues: a thread
 * waits for a request, frees its message, which another thread made, works on it with blocks that live as long as the
 * request, replaces some of the blocks that the connection keeps, which other threads made too, and sends a message to
 * another thread, whose turn it then is. A thread runs, sleeps until somebody wakes it, and runs elsewhere: what it
 * has in a cache of its own lies idle meanwhile, and many hold locks when their time is up.
 * Source: the servers of P.-Å. Larson, M. Krishnan, "Memory Allocation for Long-Running Server Applications", ISMM
 * 1998, with threads that block, as those of J. Evans, "A Scalable Concurrent malloc(3) Implementation for FreeBSD",
 * BSDCan 2006, has in mind for many threads a processor. */
#include "bench.h"

#include <pthread.h>

#define KEPT 24     /* blocks that a connection keeps */
#define REPLACED 6  /* of these, in a request */
#define SHORT 26    /* blocks of a request's own */
#define MIN_SIZE 16
#define LARGE 16    /* one of so many is */
#define MAX_SMALL 512
#define MAX_LARGE 4096

struct connection {
	struct connection *next; /* in the queue it waits in */
	struct bench_slot message;
	uint64_t random;
	uint64_t left; /* requests; not used with --seconds */
	uint32_t tag;
	struct bench_slot kept[KEPT];
};

struct worker {
	pthread_mutex_t lock;
	pthread_cond_t not_empty;
	struct connection *head, **tail;
	uint64_t done;
	int over;
} __attribute__((aligned(128)));

static uint64_t connections = 256;
static const struct bench_extra extra[] = { { "connections", &connections, "connections, all together" } };
static struct bench bench = {
	.name = "many", .op = "one request served", .ops = 600000, .threads = 64, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static struct worker *workers;
static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t open_connections;
static double until;

static uint32_t any_size(struct connection *c)
{
	uint32_t most = bench_below(&c->random, LARGE) ? MAX_SMALL : MAX_LARGE;

	return MIN_SIZE + bench_below(&c->random, most - MIN_SIZE + 1);
}

static void hand_over(struct connection *c)
{
	struct worker *to = &workers[bench_below(&c->random, (uint32_t)bench.threads)];

	bench_fill(&c->message, any_size(c), c->tag++);
	c->next = NULL;
	pthread_mutex_lock(&to->lock);
	*to->tail = c;
	to->tail = &c->next;
	pthread_cond_signal(&to->not_empty);
	pthread_mutex_unlock(&to->lock);
}

/* NULL when all connections have ended. */
static struct connection *receive(struct worker *w)
{
	struct connection *c;

	pthread_mutex_lock(&w->lock);
	while (!w->head && !w->over)
		pthread_cond_wait(&w->not_empty, &w->lock);
	c = w->head;
	if (c) {
		w->head = c->next;
		if (!w->head)
			w->tail = &w->head;
	}
	pthread_mutex_unlock(&w->lock);
	return c;
}

static void serve(struct connection *c)
{
	struct bench_slot own[SHORT];

	bench_empty(&c->message);
	for (uint32_t i = 0; i < SHORT; i++) {
		bench_fill(&own[i], any_size(c), c->tag++);
		/* Half of them go before the next one comes. */
		if (i % 2)
			bench_empty(&own[i]);
	}
	for (uint32_t i = 0; i < REPLACED; i++) {
		struct bench_slot *s = &c->kept[bench_below(&c->random, KEPT)];

		if (s->p)
			bench_empty(s);
		bench_fill(s, any_size(c), c->tag++);
	}
	for (uint32_t i = 0; i < SHORT; i += 2)
		bench_empty(&own[i]);
}

/* Ends a connection, and with the last one everybody's waiting. */
static void hang_up(struct connection *c)
{
	uint64_t others;

	for (uint32_t i = 0; i < KEPT; i++)
		if (c->kept[i].p)
			bench_empty(&c->kept[i]);
	pthread_mutex_lock(&count_lock);
	others = --open_connections;
	pthread_mutex_unlock(&count_lock);
	for (uint64_t i = 0; !others && i < bench.threads; i++) {
		pthread_mutex_lock(&workers[i].lock);
		workers[i].over = 1;
		pthread_cond_signal(&workers[i].not_empty);
		pthread_mutex_unlock(&workers[i].lock);
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct connection *c;

	while ((c = receive(w))) {
		serve(c);
		w->done++;
		if (until > 0 ? bench_now() < until : --c->left > 0)
			hand_over(c);
		else
			hang_up(c);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct connection *all;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	workers = bench_table(bench.threads * sizeof(*workers));
	all = bench_table(connections * sizeof(*all));
	for (uint64_t i = 0; i < bench.threads; i++) {
		pthread_mutex_init(&workers[i].lock, NULL);
		pthread_cond_init(&workers[i].not_empty, NULL);
		workers[i].tail = &workers[i].head;
	}
	bench_start(&bench);
	if (bench.seconds > 0)
		until = bench_now() + bench.seconds;
	if (bench.seconds == 0 && connections > bench.ops)
		connections = bench.ops;
	open_connections = connections;
	for (uint64_t i = 0; i < connections; i++) {
		all[i].random = bench_seed(&bench, i);
		all[i].left = bench_share(&bench, i, connections).left;
		all[i].tag = (uint32_t)i << 20;
		hand_over(&all[i]);
	}
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
