/* SPDX-License-Identifier: MIT */
/* Stress: chains whose storages are shared by all threads. Each thread makes packets (a storage with a known pattern),
 * clones pieces of what it has, cuts, joins and trims them, and hands chains to others over a ring of places; who gets
 * one verifies every byte of it and frees a part. Memory is wrapped with a release that fills it with another pattern
 * and counts: what is freed too early is seen by whoever still reads it, and what is never freed by the count at the
 * end.
 *
 * In the last round one half of the threads makes and the other half frees. Threads end and are started anew between
 * rounds, so that their records go through the depot; one round forks children that free what they inherited. */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#include "include/quarry/chain.h"
#include "lib/object/records.h"

#define PLACES 64 /* where a chain lies for whoever comes */
#define PACKET 512
#define KEPT 8    /* chains of a thread */
#define ROUNDS 4
#define HANDFUL 400 /* records */

/* In front of each packet: which pattern it has. */
struct packet {
	uint64_t id;
	unsigned char bytes[PACKET];
};

struct parcel {
	quarry_chain chain;
};

static _Atomic(struct parcel *) place[PLACES];
static _Atomic uint64_t live;

/* A segment is always a piece of one packet: where the packet begins is its storage's beginning. */
static void verify(const quarry_chain *c)
{
	uint64_t len = 0;

	for (const quarry_cseg *seg = c->first; seg != NULL; seg = seg->next) {
		const struct packet *p = quarry_storage_data(seg->storage);
		size_t at = (size_t)(seg->data - p->bytes);

		if (at + seg->len > PACKET)
			st_fail("a segment of %zu bytes at %zu is not within its packet", seg->len, at);
		st_verify(p->bytes, at, at + seg->len, st_key(p->id, PACKET), p->id, PACKET);
		len += seg->len;
	}
	ST_CHECK(len == c->len);
}

static void release(void *ctx, void *p, size_t n)
{
	struct packet *packet = p;

	ST_CHECK(ctx == (void *)&live && n == sizeof(*packet));
	st_verify(packet->bytes, 0, PACKET, st_key(packet->id, PACKET), packet->id, PACKET);
	memset(packet, 0xdd, sizeof(*packet));
	quarry_free(packet);
	atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

static void make(struct st_worker *w, quarry_chain *c)
{
	struct packet *p = quarry_malloc(sizeof(*p));
	quarry_storage *s;
	size_t from = (size_t)st_below(&w->rng, PACKET - 1);

	ST_CHECK(p != NULL);
	p->id = w->next_id++;
	st_fill(p->bytes, 0, PACKET, st_key(p->id, PACKET));
	atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
	s = quarry_storage_wrap(p, sizeof(*p), release, (void *)&live, QUARRY_STORAGE_READONLY);
	ST_CHECK(s != NULL);
	ST_CHECK(quarry_chain_append(c, s, p->bytes + from, 1 + (size_t)st_below(&w->rng, PACKET - from)) == 0);
	if (st_next(&w->rng) & 1)
		ST_CHECK(quarry_chain_prepend(c, s, p->bytes, PACKET) == 0);
	quarry_storage_unref(s);
}

/* Lay a chain somewhere, and take away what lay there. */
static void hand_over(struct st_worker *w, quarry_chain *c)
{
	struct parcel *mine = quarry_malloc(sizeof(*mine)), *other;

	ST_CHECK(mine != NULL);
	mine->chain = *c;
	*c = (quarry_chain){ .len = 0 };
	other = atomic_exchange_explicit(&place[st_below(&w->rng, PLACES)], mine, memory_order_acq_rel);
	if (other == NULL)
		return;
	*c = other->chain;
	quarry_free(other);
	verify(c);
}

static void step(struct st_worker *w, quarry_chain *c, quarry_chain *other)
{
	quarry_chain tail = { .len = 0 };
	uint64_t at = st_below(&w->rng, c->len + 1);

	switch (st_below(&w->rng, 9)) {
	case 0:
	case 1: make(w, c); break;
	case 2:
		ST_CHECK(quarry_chain_clone(c, at, st_below(&w->rng, c->len - at + 1), other) == 0);
		break;
	case 3:
		ST_CHECK(quarry_chain_split(c, at, &tail) == 0);
		ST_CHECK(c == other ? quarry_chain_prepend_chain(c, &tail) == 0
				    : quarry_chain_append_chain(other, &tail) == 0);
		break;
	case 4: ST_CHECK(quarry_chain_trim_front(c, at) == 0); break;
	case 5: ST_CHECK(quarry_chain_trim_back(c, at) == 0); break;
	case 6:
		if (c->segs > 40)
			quarry_chain_free(c);
		break;
	case 7: verify(c); break;
	default: hand_over(w, c); break;
	}
}

static void work(struct st_worker *w)
{
	quarry_chain kept[KEPT] = { { .len = 0 } };

	for (uint64_t i = 0; i < st.ops / st.threads / ROUNDS; i++, w->done++)
		step(w, &kept[st_below(&w->rng, KEPT)], &kept[st_below(&w->rng, KEPT)]);
	for (int i = 0; i < KEPT; i++) {
		verify(&kept[i]);
		quarry_chain_free(&kept[i]);
	}
}

static void empty_places(void)
{
	for (int i = 0; i < PLACES; i++) {
		struct parcel *p = atomic_exchange_explicit(&place[i], NULL, memory_order_acq_rel);

		if (p == NULL)
			continue;
		verify(&p->chain);
		quarry_chain_free(&p->chain);
		quarry_free(p);
	}
}

/* Half of the threads make, the other half let go: all records go from the ones to the others, by the depot. */
static void one_way(struct st_worker *w)
{
	for (uint64_t i = 0; i < st.ops / st.threads / ROUNDS / 64; i++, w->done++) {
		_Atomic(struct parcel *) *at = &place[st_below(&w->rng, PLACES)];
		struct parcel *p = NULL, *mine;

		if (w->number % 2 == 1) {
			p = atomic_exchange_explicit(at, NULL, memory_order_acq_rel);
			if (p == NULL)
				continue;
			verify(&p->chain);
			quarry_chain_free(&p->chain);
			quarry_free(p);
			continue;
		}
		mine = quarry_malloc(sizeof(*mine));
		ST_CHECK(mine != NULL);
		mine->chain = (quarry_chain){ .len = 0 };
		make(w, &mine->chain);
		while (mine->chain.segs < 150)
			ST_CHECK(quarry_chain_clone(&mine->chain, 0, QUARRY_CHAIN_ALL, &mine->chain) == 0);
		if (atomic_compare_exchange_strong_explicit(at, &p, mine, memory_order_acq_rel, memory_order_relaxed))
			continue;
		verify(&mine->chain);
		quarry_chain_free(&mine->chain);
		quarry_free(mine);
	}
}

/* Records alone, so many at a time that the depot is asked all the time: nobody else has what one has. */
static void records(struct st_worker *w)
{
	struct mark {
		uint64_t number, check;
	} *mine[HANDFUL];

	for (uint64_t i = 0; i < st.ops / st.threads / ROUNDS / 8; i++, w->done++) {
		size_t n = HANDFUL / 2 + (size_t)st_below(&w->rng, HANDFUL / 2);

		for (size_t k = 0; k < n; k++) {
			mine[k] = qy_record_get();
			ST_CHECK(mine[k] != NULL);
			mine[k]->number = w->next_id + k;
			mine[k]->check = st_mix(w->next_id + k);
		}
		for (size_t k = 0; k < n; k++) {
			if (mine[k]->number != w->next_id + k || mine[k]->check != st_mix(w->next_id + k))
				st_fail("a record at %p was had twice", (void *)mine[k]);
			qy_record_put(mine[k]);
		}
		w->next_id += n;
	}
}

/* While others are at work: the child has what lies about at that moment, and may use and free its own of it. */
static void fork_one(struct st_worker *w)
{
	quarry_chain mine = { .len = 0 }, other = { .len = 0 };
	int status;
	pid_t pid;

	for (int i = 0; i < 20; i++)
		make(w, &mine);
	pid = fork();
	ST_CHECK(pid >= 0);
	if (pid == 0) {
		st_watchdog_start(st.watchdog);
		for (int i = 0; i < 200; i++) {
			make(w, &mine);
			ST_CHECK(quarry_chain_clone(&mine, 0, QUARRY_CHAIN_ALL, &other) == 0);
			verify(&other);
			quarry_chain_free(&other);
		}
		quarry_chain_free(&mine);
		_exit(0);
	}
	ST_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	verify(&mine);
	quarry_chain_free(&mine);
}

static void work_and_fork(struct st_worker *w)
{
	for (uint64_t i = 0; w->number == 0 && i < st_scaled(20, 2); i++)
		fork_one(w);
	work(w);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "chains", 6000000, 4);
	for (int round = 0; round < ROUNDS; round++)
		st_threads(round == 1 && !ST_TSAN ? work_and_fork : work);
	empty_places();
	if (st.threads > 1)
		st_threads(one_way);
	empty_places();
	st_threads(records);
	if (atomic_load(&live) != 0)
		st_fail("%llu packets were not released", (unsigned long long)atomic_load(&live));
	/* Records stay: as many as ever were in use at once. */
	return st_end(4 * ST_MIB, 0);
}
