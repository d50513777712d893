/* SPDX-License-Identifier: MIT */
/* Stress: references taken while the last one goes. A few places hold a block each. Threads look at a place and ask for the
 * block there by its weak reference, its handle or its address, while others put a new block there and let the old one
 * go; memory comes again at once, so that what is asked for late is another block by then. The manager of the blocks
 * knows which of its memory is live: who got a reference must find it so, and with the contents of the block that was meant,
 * and nothing may be freed twice. An operation is one such race; 10^8 are --ops 1e8. */
#include "tests/stress/stress.h"

#include "include/quarry/block.h"

#define PLACES 8
#define SIZE 48
#define LIVE 0x600df00du
#define DEAD 0xdeadbeefu
#define OPS 10000000
#define THREADS 4

/* Before each block's memory. */
struct head {
	_Atomic(uint32_t) state;
	uint32_t size, pad[2];
};

/* What a block says, so that one that is not whole is seen. */
struct body {
	uint64_t id, not_id;
	void *self;
};

/* The handle of the block that is there, a field each; version is odd while it is written. */
struct place {
	_Alignas(64) _Atomic(uint32_t) busy;
	_Atomic(uint32_t) version;
	_Atomic(uint32_t) generation;
	void *_Atomic p;
	struct quarry_count *_Atomic count;
};

static struct place places[PLACES];
static _Atomic uint64_t allocated, freed, got, gone, replaced;

static struct head *head_of(const void *p)
{
	return (struct head *)((uintptr_t)p - sizeof(struct head));
}

static void *alloc(void *ctx, size_t size)
{
	struct head *h = quarry_malloc(size + sizeof(*h));

	(void)ctx;
	ST_CHECK(h != NULL);
	h->size = (uint32_t)size;
	atomic_store_explicit(&h->state, LIVE, memory_order_relaxed);
	atomic_fetch_add_explicit(&allocated, 1, memory_order_relaxed);
	return h + 1;
}

static int free_once(void *ctx, void *p)
{
	(void)ctx;
	if (atomic_exchange_explicit(&head_of(p)->state, DEAD, memory_order_relaxed) != LIVE)
		st_fail("%p was freed twice", p);
	atomic_fetch_add_explicit(&freed, 1, memory_order_relaxed);
	quarry_free(head_of(p));
	return 0;
}

static size_t usable(void *ctx, const void *p)
{
	(void)ctx;
	return head_of(p)->size;
}

static const quarry_manager_ops ops = {
	.struct_size = sizeof ops, .name = "watched", .alloc = alloc, .free = free_once, .usable = usable,
};
static quarry_manager watched = { &ops, NULL };

/* The place is the caller's. */
static void put(struct place *at, uint64_t id)
{
	quarry_block b = quarry_block_alloc(&watched, SIZE);
	struct body *body = b.p;

	ST_CHECK(body != NULL);
	*body = (struct body){ id, ~id, body };
	atomic_fetch_add_explicit(&at->version, 1, memory_order_acq_rel);
	atomic_store_explicit(&at->p, b.p, memory_order_release);
	atomic_store_explicit(&at->count, b.count, memory_order_release);
	atomic_store_explicit(&at->generation, b.generation, memory_order_release);
	atomic_fetch_add_explicit(&at->version, 1, memory_order_release);
}

/* The block that is there; false where another is being put there. */
static bool look(struct place *at, quarry_block *b)
{
	uint32_t version = atomic_load_explicit(&at->version, memory_order_acquire);

	*b = (quarry_block){ .n = SIZE };
	b->p = atomic_load_explicit(&at->p, memory_order_acquire);
	b->count = atomic_load_explicit(&at->count, memory_order_acquire);
	b->generation = atomic_load_explicit(&at->generation, memory_order_acquire);
	return version % 2 == 0 && atomic_load_explicit(&at->version, memory_order_relaxed) == version;
}

static void check_live(const void *p)
{
	if (atomic_load_explicit(&head_of(p)->state, memory_order_relaxed) != LIVE)
		st_fail("a reference to %p was given, which is not live", p);
}

static void check_whole(const void *p)
{
	const struct body *body = p;

	check_live(p);
	if (body->not_id != ~body->id || body->self != p)
		st_fail("the block at %p is not whole: %#llx", p, (unsigned long long)body->id);
}

static void count(int r, int error)
{
	ST_CHECK(r >= 0 || error == ESTALE);
	atomic_fetch_add_explicit(r >= 0 ? &got : &gone, 1, memory_order_relaxed);
}

/* With a handle of long ago, by whose word others are by now: what it counts up is taken back, while they come and go. */
static void ask_late(quarry_block *kept, const quarry_block *now)
{
	int r = kept->count == NULL ? 0 : quarry_block_ref(kept);
	quarry_block mine = *kept;

	if (kept->count != NULL)
		count(r, errno);
	if (kept->count != NULL && r >= 0) {
		check_whole(mine.p);
		ST_CHECK(quarry_block_unref(&mine) >= 0);
	} else if (kept->count == NULL || kept->generation % 64 == 0) {
		*kept = *now;
	}
}

static void ask(struct place *at, unsigned how)
{
	static __thread quarry_block kept;
	quarry_block b, mine;
	bool is_one = look(at, &b);
	int r;

	if (how == 0) { /* whatever begins there: not to be read, since it may not be filled yet */
		r = quarry_ref(b.p);
		count(r, errno);
		if (r < 0)
			return;
		check_live(b.p);
		ST_CHECK(quarry_refcount(b.p) >= 1);
		ST_CHECK(quarry_unref(b.p) >= 0);
		return;
	}
	if (!is_one)
		return;
	if (how == 3) {
		ask_late(&kept, &b);
		return;
	}
	if (how == 1) {
		r = quarry_block_ref(&b);
		mine = b;
	} else {
		quarry_weak w = { .p = b.p, .n = b.n, .count = b.count, .generation = b.generation };

		r = quarry_weak_lock(w, &mine);
	}
	count(r, errno);
	if (r < 0)
		return;
	check_whole(mine.p);
	ST_CHECK(quarry_block_unref(&mine) >= 0);
}

/* One at a time for each place; who finds another at it goes on. */
static void replace(struct place *at, uint64_t id)
{
	quarry_block old;
	uint64_t was;

	if (atomic_exchange_explicit(&at->busy, 1, memory_order_acquire) != 0)
		return;
	ST_CHECK(look(at, &old));
	/* It is resized where nobody else has it, or not at all; what somebody has does not move. */
	was = ((struct body *)old.p)->id;
	if (id % 4 == 0 && quarry_block_resize(&old, SIZE * 5, 0) != 0)
		ST_CHECK(errno == EBUSY);
	check_live(old.p);
	ST_CHECK(((struct body *)old.p)->id == was && ((struct body *)old.p)->not_id == ~was);
	/* First the last reference goes, while others still look for it here. */
	ST_CHECK(quarry_block_unref(&old) >= 0);
	put(at, id);
	atomic_store_explicit(&at->busy, 0, memory_order_release);
	atomic_fetch_add_explicit(&replaced, 1, memory_order_relaxed);
}

static void work(struct st_worker *w)
{
	while (st_more(w)) {
		uint64_t r = st_next(&w->rng);
		struct place *at = &places[r % PLACES];

		if (r >> 60 < 4)
			replace(at, w->next_id++);
		else
			ask(at, (unsigned)(r >> 32) % 4);
	}
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "refs", OPS, THREADS);
	for (unsigned i = 0; i < PLACES; i++)
		put(&places[i], i);
	st_threads(work);
	for (unsigned i = 0; i < PLACES; i++) {
		quarry_block b;

		ST_CHECK(look(&places[i], &b));
		check_whole(b.p);
		ST_CHECK(quarry_block_unref(&b) == 1);
	}
	printf("refs: %llu references got, %llu refused, %llu last ones gone\n", (unsigned long long)atomic_load(&got),
	       (unsigned long long)atomic_load(&gone), (unsigned long long)atomic_load(&replaced));
	ST_CHECK(atomic_load(&allocated) == atomic_load(&freed));
	ST_CHECK(atomic_load(&got) > 0 && atomic_load(&gone) > 0);
	return st_end(ST_SLACK, 0);
}
