/* SPDX-License-Identifier: MIT */
/* Stress: references taken while the last one goes. A few places hold a block each. Threads look at a place and ask for the
 * block there by its weak reference, its handle or its address, while others put a new block there and let the old one
 * go; memory comes again at once, so that what is asked for late is another block by then. The manager of the blocks
 * knows which of its memory is live: who got a reference must find it so, and with the contents of the block that was meant,
 * and nothing may be freed twice. There are several of them, with their memory side by side, and each must get its own back. A quarter of the blocks is memory of quarry_malloc's family that was shared; half of them have a
 * function that is called at their end, once; some are borrowed when references go, by threads that then have a note and no
 * reference, and the memory must stay as long; handles of blocks that are gone are let go, noted and locked once more, which
 * must touch nothing; and now and then one has all the references that there can be. An operation is one such race; 10^8
 * are --ops 1e8. */
#include "tests/stress/stress.h"

#include <sched.h>

#include "include/quarry/block.h"

#define PLACES 8
#define SIZE 48
#define LIVE 0x600df00du
#define DEAD 0xdeadbeefu
#define OPS 10000000
#define THREADS 4
#define NOTES 8 /* that a thread leaves behind */
#define FULL_EVERY (1u << 18) /* operations of a thread from one counting up to the most to the next */

/* Before each block's memory, but not before what was shared: blocks of the manager begin 16 bytes after a multiple of 64,
 * and shared ones at one, so that an address tells. */
struct head {
	_Atomic(uint32_t) state;
	uint32_t size, of, pad; /* of: which manager */
};

/* What a block says, so that one that is not whole is seen. left: notes that there are, or a few of them: one more is
 * counted after it was given, and one less before it is given back. */
struct body {
	uint64_t id, not_id;
	void *self;
	_Atomic(uint32_t) left;
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
static _Atomic uint64_t allocated, freed, got, gone, late, noted, replaced, shared, refused_borrowed, filled, with_end, ends;

static struct head *head_of(const void *p)
{
	return (struct head *)((uintptr_t)p - sizeof(struct head));
}

static void *alloc(void *ctx, size_t size)
{
	struct head *h = quarry_aligned_alloc(64, size + sizeof(*h));

	ST_CHECK(h != NULL);
	h->size = (uint32_t)size;
	h->of = (uint32_t)(uintptr_t)ctx;
	atomic_store_explicit(&h->state, LIVE, memory_order_relaxed);
	atomic_fetch_add_explicit(&allocated, 1, memory_order_relaxed);
	return h + 1;
}

static int free_once(void *ctx, void *p)
{
	if (head_of(p)->of != (uint32_t)(uintptr_t)ctx)
		st_fail("%p was freed by manager %u, and is of %u", p, (unsigned)(uintptr_t)ctx, head_of(p)->of);
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
static quarry_manager watched[] = { { &ops, (void *)1 }, { &ops, (void *)2 }, { &ops, (void *)3 } };

static bool is_shared(const void *p)
{
	return (uintptr_t)p % 64 == 0;
}

static void check_body(const void *p)
{
	const struct body *body = p;

	if (body->not_id != ~body->id || body->self != p)
		st_fail("the block at %p is not whole: %#llx", p, (unsigned long long)body->id);
}

/* What is shared was filled before it became a block; others may not be filled yet where nothing but an address is known. */
static void check_live(const void *p)
{
	if (is_shared(p))
		check_body(p);
	else if (atomic_load_explicit(&head_of(p)->state, memory_order_relaxed) != LIVE)
		st_fail("a reference to %p was given, which is not live", p);
}

static void check_whole(const void *p)
{
	check_live(p);
	check_body(p);
}

/* A block is whole, and has neither references nor notes, when its end is called; a second call would not find it whole. */
static void at_end(void *p)
{
	struct body *body = p;

	check_whole(p);
	ST_CHECK(atomic_load(&body->left) == 0);
	ST_CHECK(quarry_ref(p) == -1 && errno == ESTALE);
	body->not_id = body->id;
	atomic_fetch_add_explicit(&ends, 1, memory_order_relaxed);
}

static quarry_block make_shared(uint64_t id)
{
	struct body *body = quarry_aligned_alloc(64, SIZE);
	quarry_block b;

	ST_CHECK(body != NULL);
	*body = (struct body){ .id = id, .not_id = ~id, .self = body };
	ST_CHECK(quarry_share(body, &b) == 0);
	ST_CHECK(b.p == body && b.n >= SIZE);
	atomic_fetch_add_explicit(&shared, 1, memory_order_relaxed);
	return b;
}

static quarry_block make(uint64_t id)
{
	quarry_block b = quarry_block_alloc(&watched[id % 3], SIZE);
	struct body *body = b.p;

	ST_CHECK(body != NULL);
	*body = (struct body){ .id = id, .not_id = ~id, .self = body };
	return b;
}

/* The place is the caller's. */
static void put(struct place *at, uint64_t id)
{
	uint64_t how = st_mix(id);
	quarry_block b = how % 4 == 0 ? make_shared(id) : make(id);

	if (how >> 8 & 1) {
		ST_CHECK(quarry_block_at_end(&b, at_end) == 0);
		if (how >> 9 & 7)
			atomic_fetch_add_explicit(&with_end, 1, memory_order_relaxed);
		else
			ST_CHECK(quarry_block_at_end(&b, NULL) == 0);
	}
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

static void note(const quarry_block *b)
{
	quarry_seg s;

	ST_CHECK(quarry_block_borrow(b, &s) == 0);
	ST_CHECK(s.p == b->p && s.n == b->n);
	check_whole(s.p);
	atomic_fetch_add(&((struct body *)b->p)->left, 1);
	atomic_fetch_add_explicit(&noted, 1, memory_order_relaxed);
}

/* Whoever has a note, and no reference, finds the block that he noted. (It may end by this.) */
static void give_back(const quarry_block *b)
{
	check_whole(b->p);
	ST_CHECK(quarry_block_live(b) == 1);
	ST_CHECK(atomic_fetch_sub(&((struct body *)b->p)->left, 1) > 0);
	ST_CHECK(quarry_block_give_back(b) == 0);
}

static __thread struct {
	quarry_block of[NOTES];
	unsigned n, next; /* the oldest */
} kept_notes;

static void give_back_oldest(void)
{
	if (kept_notes.n == 0)
		return;
	kept_notes.n--;
	give_back(&kept_notes.of[kept_notes.next++ % NOTES]);
}

static void give_back_all(void)
{
	while (kept_notes.n > 0)
		give_back_oldest();
}

/* Who is refused as the last one (EBUSY) waits until others have given back what they noted, and has given back what he did:
 * so of those who wait none is waited for. Whether it was the last. */
static int let_go(quarry_block b)
{
	int r;

	while ((r = quarry_block_unref(&b)) < 0) {
		ST_CHECK(errno == EBUSY);
		check_whole(b.p);
		give_back_all();
		sched_yield();
	}
	return r;
}

static void count(int r, int error)
{
	ST_CHECK(r >= 0 || error == ESTALE || error == EOVERFLOW);
	atomic_fetch_add_explicit(r >= 0 ? &got : &gone, 1, memory_order_relaxed);
}

/* What is gone stays gone, whoever is at its word by now, whatever is asked of it. */
static void use_late(const quarry_block *kept)
{
	quarry_block copy = *kept, other;
	quarry_weak w = { .p = kept->p, .n = kept->n, .count = kept->count, .generation = kept->generation };

	ST_CHECK(quarry_block_unref(&copy) == -1 && errno == ESTALE);
	ST_CHECK(copy.p == kept->p && copy.count == kept->count);
	ST_CHECK(quarry_block_borrow(kept, NULL) == -1 && errno == ESTALE);
	ST_CHECK(quarry_block_give_back(kept) == -1 && errno == ESTALE);
	ST_CHECK(quarry_weak_lock(w, &other) == -1 && errno == ESTALE);
	ST_CHECK(quarry_block_live(kept) == 0);
	atomic_fetch_add_explicit(&late, 1, memory_order_relaxed);
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
		(void)let_go(mine);
		return;
	}
	if (kept->count != NULL && errno == ESTALE)
		use_late(kept);
	if (kept->count == NULL || kept->generation % 64 == 0)
		*kept = *now;
}

/* By address: whatever begins there. */
static void ask_address(void *p)
{
	int r = quarry_ref(p);
	quarry_block b;

	count(r, errno);
	if (r < 0)
		return;
	check_live(p);
	ST_CHECK(quarry_refcount(p) >= 1);
	if (quarry_unref(p) < 0) {
		ST_CHECK(errno == EBUSY);
		ST_CHECK(quarry_block_from_seg(quarry_seg_make(p, 1), &b) == 0);
		(void)let_go(b);
	}
}

/* A note, which the last reference must know of. Half of them leave it behind where others have references, and are without
 * one from then on. */
static void borrow(quarry_block mine)
{
	struct body *body = mine.p;
	quarry_block copy = mine;
	int r;

	note(&mine);
	if (body->id % 2 == 0) {
		give_back(&mine);
		(void)let_go(mine);
		return;
	}
	r = quarry_block_unref(&mine);
	ST_CHECK(r == 0 || (r == -1 && errno == EBUSY));
	if (r == 0) {
		if (kept_notes.n == NOTES)
			give_back_oldest();
		kept_notes.of[(kept_notes.next + kept_notes.n++) % NOTES] = copy;
		return;
	}
	check_whole(copy.p);
	atomic_fetch_add_explicit(&refused_borrowed, 1, memory_order_relaxed);
	give_back(&copy);
	(void)let_go(mine);
}

/* All references that there can be, but for those that others have. */
static void count_up(quarry_block mine)
{
	quarry_weak w = quarry_weak_of(&mine);
	quarry_block other;
	long n = 0;

	while (quarry_block_ref(&mine) == 0)
		n++;
	ST_CHECK(errno == EOVERFLOW);
	/* (Each other thread has one at most, and another that it is about to take back.) */
	if (n >= QUARRY_REFS_MAX || n < QUARRY_REFS_MAX - 2 - 2 * (long)st.threads)
		st_fail("%ld references to %p, and no more", n, mine.p);
	if (quarry_weak_lock(w, &other) == 0)
		n++;
	else
		ST_CHECK(errno == EOVERFLOW);
	check_whole(mine.p);
	for (; n > 0; n--)
		ST_CHECK(quarry_block_unref(&(quarry_block){ mine.p, mine.n, mine.count, mine.generation, 0 }) == 0);
	check_whole(mine.p);
	(void)let_go(mine);
	atomic_fetch_add_explicit(&filled, 1, memory_order_relaxed);
}

enum how { BY_ADDRESS, BY_HANDLE, BY_WEAK, LATE, BORROW, COUNT_UP, HOWS = COUNT_UP };

static void ask(struct place *at, enum how how)
{
	static __thread quarry_block kept;
	quarry_block b, mine;
	bool is_one = look(at, &b);
	int r;

	if (how == BY_ADDRESS)
		ask_address(b.p);
	if (how == BY_ADDRESS || !is_one)
		return;
	if (how == LATE) {
		ask_late(&kept, &b);
		return;
	}
	if (how == BY_WEAK) {
		quarry_weak w = { .p = b.p, .n = b.n, .count = b.count, .generation = b.generation };

		r = quarry_weak_lock(w, &mine);
	} else {
		r = quarry_block_ref(&b);
		mine = b;
	}
	count(r, errno);
	if (r < 0)
		return;
	check_whole(mine.p);
	if (how == BORROW)
		borrow(mine);
	else if (how == COUNT_UP)
		count_up(mine);
	else
		(void)let_go(mine);
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
	if (id % 4 == 0 &&
	    (is_shared(old.p) ? quarry_block_resize(&old, id % 8 ? SIZE - 8 : SIZE + 16, QUARRY_RESIZE_IN_PLACE)
			      : quarry_block_resize(&old, SIZE * 5, 0)) != 0)
		ST_CHECK(errno == EBUSY);
	check_live(old.p);
	ST_CHECK(((struct body *)old.p)->id == was && ((struct body *)old.p)->not_id == ~was);
	/* First the last reference goes, while others still look for it here. */
	(void)let_go(old);
	put(at, id);
	atomic_store_explicit(&at->busy, 0, memory_order_release);
	atomic_fetch_add_explicit(&replaced, 1, memory_order_relaxed);
}

/* One at a time: two at the same block would have all of them together. */
static void ask_for_all(struct place *at)
{
	static _Atomic(uint32_t) busy;

	if (atomic_exchange_explicit(&busy, 1, memory_order_acquire) != 0)
		return;
	ask(at, COUNT_UP);
	atomic_store_explicit(&busy, 0, memory_order_release);
}

static void work(struct st_worker *w)
{
	for (uint64_t i = 0; st_more(w); i++) {
		uint64_t r = st_next(&w->rng);
		struct place *at = &places[r % PLACES];

		if (i % FULL_EVERY == 100)
			ask_for_all(at);
		else if (r >> 60 < 4)
			replace(at, w->next_id++);
		else
			ask(at, (enum how)((r >> 32) % HOWS));
		if (r >> 56 & 1)
			give_back_oldest();
	}
	give_back_all();
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
		ST_CHECK(let_go(b) == 1);
	}
	printf("refs: %llu references got, %llu refused, %llu last ones gone; %llu shared, %llu ends called, %llu notes, %llu "
	       "refused as borrowed, %llu handles used late, %llu times all references\n",
	       (unsigned long long)atomic_load(&got), (unsigned long long)atomic_load(&gone),
	       (unsigned long long)atomic_load(&replaced), (unsigned long long)atomic_load(&shared),
	       (unsigned long long)atomic_load(&ends), (unsigned long long)atomic_load(&noted),
	       (unsigned long long)atomic_load(&refused_borrowed), (unsigned long long)atomic_load(&late),
	       (unsigned long long)atomic_load(&filled));
	ST_CHECK(atomic_load(&with_end) == atomic_load(&ends));
	ST_CHECK(atomic_load(&shared) > 0 && atomic_load(&ends) > 0);
	ST_CHECK(atomic_load(&allocated) == atomic_load(&freed));
	ST_CHECK(atomic_load(&got) > 0 && atomic_load(&gone) > 0 && atomic_load(&late) > 0 && atomic_load(&noted) > 0);
	return st_end(ST_SLACK, 0);
}
