/* SPDX-License-Identifier: MIT */
/* Threads of two processes on one heap: what one allocates others free, whose lanes come and go. An object's bytes are known
 * from its offset and size; at the end none is left. */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#include "include/quarry/mapped.h"

enum { EXCHANGE = 64, OWN = 100, ROUNDS = 4 };

static quarry_mapped *heap;

struct object {
	uint64_t size, seal;
};

/* All its bytes behind the first are known from where it is, and its size. */
static void seal(struct object *o)
{
	uint64_t key = st_key(quarry_mapped_off(heap, o), o->size);

	o->seal = key;
	st_fill((unsigned char *)o, sizeof(*o), o->size, key);
}

static void verify(const struct object *o, uint64_t off)
{
	uint64_t key = st_key(off, o->size);

	if (o->seal != key || quarry_mapped_usable(heap, o) < o->size)
		st_fail("an object of %llu bytes is overwritten", (unsigned long long)o->size);
	st_verify((const unsigned char *)o, sizeof(*o), o->size, key, off, o->size);
}

static void *make(struct st_rng *rng, quarry_off *slot)
{
	size_t size = sizeof(struct object) + (st_below(rng, 50) == 0 ? st_below(rng, 150000) : st_below(rng, 700));
	struct object *o = slot != NULL ? quarry_mapped_alloc_into(heap, size, slot) : quarry_mapped_alloc(heap, size);

	if (o == NULL && slot == NULL)
		st_fail("no memory for %zu bytes: %s", size, quarry_error_text());
	if (o == NULL)
		return NULL;
	if (slot != NULL)
		st_verify_zero((unsigned char *)o, size);
	o->size = size;
	seal(o);
	return o;
}

static void drop(struct object *o)
{
	verify(o, quarry_mapped_off(heap, o));
	o->seal = 0;
	ST_CHECK(quarry_mapped_free(heap, o) == 0);
}

static void body(struct st_worker *w)
{
	quarry_off *exchange = quarry_mapped_user(heap, NULL), *linked = exchange + EXCHANGE + w->number;
	struct object *own[OWN] = { NULL };

	while (st_more(w)) {
		unsigned i = (unsigned)st_below(&w->rng, OWN);
		quarry_off was, mine;

		if (own[i] == NULL)
			own[i] = make(&w->rng, NULL);
		switch (st_below(&w->rng, 8)) {
		case 0: /* handed to whoever comes */
			mine = quarry_mapped_off(heap, own[i]);
			was = __atomic_exchange_n(&exchange[st_below(&w->rng, EXCHANGE)], mine, __ATOMIC_ACQ_REL);
			own[i] = quarry_mapped_at(heap, was);
			break;
		case 1:
			if (*linked == 0)
				(void)make(&w->rng, linked);
			else
				ST_CHECK(quarry_mapped_free_from(heap, linked) == 0);
			break;
		case 2:
			was = quarry_mapped_off(heap, own[i]);
			own[i] = quarry_mapped_resize(heap, own[i], own[i]->size + st_below(&w->rng, 1000));
			ST_CHECK(own[i] != NULL);
			verify(own[i], was);
			seal(own[i]);
			break;
		default:
			drop(own[i]);
			own[i] = NULL;
		}
	}
	for (unsigned i = 0; i < OWN; i++) {
		if (own[i] != NULL)
			drop(own[i]);
	}
	ST_CHECK(quarry_mapped_free_from(heap, linked) == 0);
}

static void rounds(unsigned first)
{
	uint64_t ops = st.ops;

	st.ops = ops / ROUNDS / 2;
	for (unsigned r = 0; r < ROUNDS; r++) {
		static struct st_worker workers[ST_THREADS_MAX];

		for (unsigned i = 0; i < st.threads; i++) {
			st_worker_init(&workers[i], first + i);
			workers[i].rng = st_rng_for(first + i + r * 1000);
			workers[i].body = body;
			ST_CHECK(pthread_create(&workers[i].thread, NULL, st_worker_main, &workers[i]) == 0);
		}
		st_join(workers, st.threads);
	}
	st.ops = ops;
}

int main(int argc, char **argv)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE };
	quarry_mapped_report report;
	quarry_off *exchange;
	int status;
	pid_t pid;

	st_begin(argc, argv, "mapped", 400000, 4);
	ST_CHECK(st.threads <= 64);
	heap = quarry_mapped_create(NULL, &attr);
	if (heap == NULL)
		st_fail("%s", quarry_error_text());
	exchange = quarry_mapped_user(heap, NULL);
	/* (ThreadSanitizer does not see what happens before what by way of another process.) */
	pid = ST_TSAN ? -1 : fork();
	if (pid == 0) {
		st_watchdog_start(st.watchdog);
		rounds(st.threads);
		_exit(0); /* as a process that does not close it */
	}
	rounds(0);
	ST_CHECK(ST_TSAN || (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0));
	for (unsigned i = 0; i < EXCHANGE; i++) {
		if (exchange[i] != 0)
			drop(quarry_mapped_at(heap, exchange[i]));
	}
	ST_CHECK(quarry_mapped_recover(heap) >= 0);
	if (quarry_mapped_check(heap, &report, sizeof(report)) != 0 || report.objects != 0)
		st_fail("%llu objects are left, %s", (unsigned long long)report.objects, report.first);
	quarry_mapped_close(heap);
	return st_end(ST_SLACK, 0);
}
