/* SPDX-License-Identifier: MIT */
/* Stress: threads fill, thin out and exchange what is in a table, sizes changing by phases, while each of them also moves
 * what it is told to move (quarry_should_move), past the caches. Contents are verified whenever an object is touched;
 * views are made and memory is given back meanwhile. In the end all is moved once more: what slabs hold then is little
 * more than what lives. */
#include "tests/stress/stress.h"

#define SLOTS 60000
#define BATCH 32

/* Whoever takes a block out of its slot has it. */
static _Atomic(struct st_block *) slots[SLOTS];
static struct st_block blocks[SLOTS];
static _Atomic(uint64_t) moved;
static _Atomic(unsigned) phase;

static struct st_block *take(size_t i)
{
	return atomic_exchange(&slots[i], NULL);
}

static size_t some_size(struct st_rng *rng)
{
	static const size_t from[] = { 90, 30, 400, 200 };
	size_t size = from[atomic_load(&phase) % 4];

	return st_below(rng, 300) == 0 ? st_log_size(rng, 17) : size + st_below(rng, size);
}

/* (None is aligned, which could not be kept.) */
static void make(struct st_block *b, uint64_t id, size_t size)
{
	*b = (struct st_block){ .p = quarry_malloc(size), .asked = size, .size = size, .id = id };
	ST_CHECK(b->p != NULL);
	st_block_fill(b);
}

static void work_on(struct st_block *b, struct st_worker *w, bool thin)
{
	if (b->p != NULL && (thin || st_below(&w->rng, 4) == 0))
		st_drop(b, &w->rng);
	else if (b->p == NULL && !thin)
		make(b, w->next_id++, some_size(&w->rng));
}

static void move(struct st_block *b)
{
	unsigned char *to = quarry_malloc_dense(b->size);

	ST_CHECK(to != NULL);
	st_block_verify(b);
	memcpy(to, b->p, b->size);
	quarry_free_dense(b->p);
	b->p = to;
	st_block_verify(b);
	atomic_fetch_add(&moved, b->size);
}

/* Of a run of slots: those that nobody else has. */
static void move_some(size_t from)
{
	struct st_block *mine[BATCH];
	const void *ptrs[BATCH];
	uint8_t told[BATCH];
	size_t n = 0;

	for (size_t i = from; i < from + BATCH; i++) {
		struct st_block *b = take(i % SLOTS);

		if (b == NULL)
			continue;
		if (b->p == NULL) {
			atomic_store(&slots[i % SLOTS], b);
			continue;
		}
		/* (Its slot is told by its number.) */
		mine[n] = b;
		ptrs[n++] = b->p;
	}
	ST_CHECK(quarry_should_move(ptrs, n, told) >= 0);
	for (size_t i = 0; i < n; i++) {
		if (told[i])
			move(mine[i]);
		atomic_store(&slots[mine[i] - blocks], mine[i]);
	}
}

static void trade(struct st_worker *w)
{
	while (st_more(w)) {
		bool thin = st_below(&w->rng, 40) == 0;
		size_t from = st_below(&w->rng, SLOTS), n = thin ? 2000 : 20;

		for (size_t i = from; i < from + n; i++) {
			struct st_block *b = take(i % SLOTS);

			if (b == NULL)
				continue;
			if (!thin || st_below(&w->rng, 10) != 0)
				work_on(b, w, thin);
			atomic_store(&slots[b - blocks], b);
		}
		for (unsigned i = 0; i < 4; i++)
			move_some(st_below(&w->rng, SLOTS));
		if (st_below(&w->rng, 500) == 0)
			quarry_purge(NULL);
		if (st_below(&w->rng, 2000) == 0)
			quarry_view_close(quarry_view_open());
		if (st_below(&w->rng, 200) == 0)
			atomic_fetch_add(&phase, 1);
		if (st_below(&w->rng, 300) == 0)
			quarry_thread_flush();
	}
	quarry_thread_flush();
}

/* For the end: every slot has a block, each thread's among those of others. */
static void fill(struct st_worker *w)
{
	for (size_t i = w->number; i < SLOTS; i += st.threads)
		if (blocks[i].p == NULL)
			make(&blocks[i], (uint64_t)(w->number + 1) << 50 | i, 100 + st_below(&w->rng, 200));
}

/* By one thread, which then has what others had. */
static void move_all(uint64_t *live)
{
	*live = 0;
	for (size_t i = 0; i < SLOTS; i += BATCH)
		move_some(i);
	quarry_thread_flush();
	for (size_t i = 0; i < SLOTS; i++)
		if (blocks[i].p != NULL && blocks[i].size <= 32768)
			*live += quarry_usable_size(blocks[i].p);
}

static uint64_t slabs_bytes(void)
{
	quarry_view_report report = { .struct_size = sizeof(report) };
	quarry_view *v = quarry_view_open();

	ST_CHECK(v != NULL && quarry_view_report_get(v, &report) == 0);
	quarry_view_close(v);
	return report.slabs * 65536;
}

int main(int argc, char **argv)
{
	struct st_rng rng = st_rng_for(99);
	uint64_t before, after, live, among;

	st_begin(argc, argv, "moves", 60000, 4);
	for (size_t i = 0; i < SLOTS; i++)
		atomic_store(&slots[i], &blocks[i]);
	st_threads(trade);
	among = atomic_load(&moved);
	st_threads(fill);
	for (size_t i = 0; i < SLOTS; i++)
		if (blocks[i].p != NULL && st_below(&rng, 4) != 0)
			st_drop(&blocks[i], &rng);
	quarry_purge(NULL);
	before = slabs_bytes();
	for (unsigned i = 0; i < 6; i++) {
		move_all(&live);
		quarry_purge(NULL);
	}
	after = slabs_bytes();
	fprintf(stderr, "moves: %.1f MiB moved by %u threads; %.1f MiB lived in %.1f MiB of slabs, then in %.1f\n",
	       (double)among / (double)ST_MIB, st.threads, (double)live / (double)ST_MIB, (double)before / (double)ST_MIB,
	       (double)after / (double)ST_MIB);
	if (among == 0 || after > live + live / 2 + 2 * ST_MIB)
		st_fail("moving gave little back");
	for (size_t i = 0; i < SLOTS; i++)
		if (blocks[i].p != NULL)
			st_drop(&blocks[i], &rng);
	return st_end(ST_SLACK, 0);
}
