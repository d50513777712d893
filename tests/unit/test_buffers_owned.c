/* SPDX-License-Identifier: MIT */
/* OWNED buffers: those of checked slabs are released once, from whichever threads; and what is seen to be none. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "include/quarry/buffers.h"
#include "include/quarry/chain.h"
#include "lib/object/buffers.h"

#define refused(call, error)                                                                                           \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		cr_assert((call) == -1 && errno == (error), "%s: errno %d", #call, errno);                             \
	} while (0)

static quarry_buffers *slab_of(uint32_t flags)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 4096, .count = 8, .flags = flags };
	quarry_buffers *slab = quarry_buffers_create(&attr);

	cr_assert_not_null(slab);
	return slab;
}

static quarry_buffer adopted(quarry_buffers *slab, uint32_t len)
{
	quarry_buffer b;

	cr_assert_eq(quarry_buffers_get(slab, &b), 0);
	memset(b.p, 'x', b.len = len);
	cr_assert_eq(quarry_buffer_adopt(&b, NULL, QUARRY_ADOPT_COPY), 0);
	cr_assert_eq(quarry_buffer_kind(b), (QUARRY_BUFFER_OWNED | QUARRY_BUFFER_COPIED));
	return b;
}

/* One whose memory is where that of one before was. */
static quarry_buffer adopted_at(quarry_buffers *slab, const void *p)
{
	quarry_buffer b = adopted(slab, 100);

	for (int i = 0; i < 100 && b.p != p; i++) {
		cr_assert_eq(quarry_buffer_release(b), 0);
		b = adopted(slab, 100);
	}
	cr_assert_eq(b.p, p, "the memory is not used again: this tests nothing");
	return b;
}

static void expect_gone(quarry_buffer b)
{
	quarry_chain chain = { 0 };

	refused(quarry_buffer_release(b), EALREADY);
	errno = 0;
	cr_assert(quarry_buffer_check(b) == NULL && errno == ESTALE);
	refused(quarry_chain_append_buffer(&chain, b), ESTALE);
}

Test(buffers_owned, of_a_checked_slab_are_released_once)
{
	quarry_buffers *slab = slab_of(QUARRY_BUFFERS_CHECKED);
	quarry_buffer b = adopted(slab, 100), again;
	quarry_chain chain = { 0 };

	cr_assert_eq(quarry_buffer_check(b), b.p);
	cr_assert_eq(quarry_buffer_release(b), 0);
	expect_gone(b);
	/* Nor when its memory is another's, of the same kind or not. */
	again = adopted_at(slab, b.p);
	expect_gone(b);
	/* By way of a chain. */
	cr_assert_eq(quarry_chain_append_buffer(&chain, again), 0);
	quarry_chain_free(&chain);
	expect_gone(again);
	/* Freed by another call, as it may be. */
	again = adopted(slab, 100);
	quarry_free(again.p);
	refused(quarry_buffer_release(again), EALREADY);
	again = adopted(slab, 100);
	quarry_free(again.p);
	b = adopted_at(slab, again.p);
	expect_gone(again);
	cr_assert_eq(quarry_buffer_release(b), 0);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}

/* A second chain would read what the first has freed. */
Test(buffers_owned, are_in_one_chain)
{
	quarry_buffers *slab = slab_of(QUARRY_BUFFERS_CHECKED);
	quarry_buffer b = adopted(slab, 100), both[2] = { b, b };
	quarry_chain first = { 0 }, second = { 0 };

	refused(quarry_chain_from_buffers(&first, both, 2), EALREADY);
	cr_assert_eq(quarry_buffer_check(b), b.p);
	cr_assert_eq(quarry_chain_append_buffer(&first, b), 0);
	refused(quarry_chain_append_buffer(&second, b), EALREADY);
	refused(quarry_chain_append_buffer(&first, b), EALREADY);
	refused(quarry_buffer_release(b), EBUSY);
	refused(quarry_buffer_adopt(&b, NULL, 0), EBUSY);
	quarry_chain_free(&first);
	expect_gone(b);
	b = adopted_at(slab, b.p);
	cr_assert_eq(quarry_chain_append_buffer(&second, b), 0);
	quarry_chain_free(&second);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}

/* The program moves p on as it uses up what is there, to its end and back. */
Test(buffers_owned, that_were_moved_on)
{
	for (unsigned flags = 0; flags <= QUARRY_BUFFERS_CHECKED; flags += QUARRY_BUFFERS_CHECKED) {
		quarry_buffers *slab = slab_of(flags);
		quarry_chain chain = { 0 };
		char out[40];

		for (uint32_t on = 0; on <= 4000; on += 500) {
			quarry_buffer b = adopted(slab, 4000), kept = b;

			b.p = (char *)b.p + on;
			b.len -= on;
			cr_assert_eq(quarry_buffer_check(b), b.p);
			cr_assert_eq(quarry_buffer_release(b), 0, "%u on", on);
			if (flags != 0)
				expect_gone(kept);
			b = adopted(slab, 4000);
			b.p = (char *)b.p + on / 2;
			b.len = 40;
			memset(b.p, 'y', 40);
			cr_assert_eq(quarry_chain_append_buffer(&chain, b), 0);
			cr_assert_eq(quarry_chain_copy_out(&chain, 0, out, 40), 0);
			cr_assert(out[0] == 'y' && out[39] == 'y');
			quarry_chain_free(&chain);
			if (flags != 0)
				expect_gone(b);
		}
		cr_assert_eq(quarry_buffers_destroy(slab), 0);
	}
}

/* Freed by quarry_free, as the header has it, they leave nothing that grows, and are known to be gone. */
Test(buffers_owned, freed_by_another_call)
{
	enum { LIVE = 2000, TIMES = 20 };
	quarry_buffers *slab = slab_of(QUARRY_BUFFERS_CHECKED);
	static quarry_buffer b[LIVE];

	for (uint32_t time = 0; time < TIMES; time++) {
		for (int i = 0; i < LIVE; i++) /* of another size each time, and so elsewhere */
			b[i] = adopted(slab, 100 * (time + 1));
		for (int i = 0; i < LIVE; i++)
			cr_assert_eq(quarry_buffer_check(b[i]), b[i].p);
		for (int i = 0; i < LIVE; i++) {
			quarry_free(b[i].p);
			errno = 0;
			cr_assert(quarry_buffer_check(b[i]) == NULL && errno == ESTALE);
		}
	}
	cr_assert_lt(atomic_load(&qy_owned_places), 2 * LIVE, "%u places", atomic_load(&qy_owned_places));
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}

/* A block with references is theirs. */
Test(buffers_owned, with_references)
{
	quarry_block block = quarry_block_alloc(NULL, 100);
	quarry_buffer b = quarry_buffer_own(block.p, 100);
	quarry_chain chain = { 0 };

	cr_assert_not_null(block.p);
	refused(quarry_buffer_release(b), EBUSY);
	refused(quarry_chain_append_buffer(&chain, b), EBUSY);
	cr_assert_eq(quarry_block_unref(&block), 1);
}

#define ROUNDS 100000

static quarry_buffer shared;
static _Atomic(int) begun, through, released;

/* Both at the same moment: each round begins with a word that both look at. */
static void *release_too(void *unused)
{
	for (int i = 1; i <= ROUNDS; i++) {
		for (int spins = 0; atomic_load(&begun) != i; spins++)
			if (spins > 1000)
				sched_yield();
		if (quarry_buffer_release(shared) == 0)
			atomic_fetch_add(&released, 1);
		atomic_fetch_add(&through, 1);
	}
	return unused;
}

Test(buffers_owned, of_two_releases_at_once_one_is_made, .timeout = 60)
{
	quarry_buffers *slab = slab_of(QUARRY_BUFFERS_CHECKED);
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, release_too, NULL), 0);
	for (int i = 1; i <= ROUNDS; i++) {
		shared = adopted(slab, 64);
		atomic_store(&begun, i);
		for (volatile int wait = i % 200; wait > 0; wait--) /* until the other has seen it, about */
			;
		if (quarry_buffer_release(shared) == 0)
			atomic_fetch_add(&released, 1);
		while (atomic_load(&through) != i)
			sched_yield();
		cr_assert_eq(atomic_exchange(&released, 0), 1);
	}
	pthread_join(thread, NULL);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}

Test(buffers_owned, what_is_none_is_told)
{
	quarry_buffers *slab = slab_of(0);
	char local[8];
	quarry_buffer b = quarry_buffer_make(local, 8, 0, QUARRY_BUFFER_OWNED | QUARRY_BUFFER_BORROWED);

	refused(quarry_buffer_release(quarry_buffer_own(local, 8)), EINVAL);
	refused(quarry_buffer_release(quarry_buffer_own(slab->base, 8)), EINVAL);
	cr_assert_eq(quarry_buffer_release(quarry_buffer_own(NULL, 0)), 0);
	refused(quarry_buffer_release(b), EINVAL);
	errno = 0;
	cr_assert(quarry_buffer_check(b) == NULL && errno == EINVAL);
	refused(quarry_buffer_adopt(&b, NULL, 0), EINVAL);
	/* Of a slab that is not checked nothing is noted. */
	b = adopted(slab, 100);
	cr_assert_eq(b.generation, 0);
	cr_assert_eq(quarry_buffer_release(b), 0);
	b = quarry_buffer_own(quarry_malloc(100), 100);
	cr_assert_eq(quarry_buffer_release(b), 0);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}
