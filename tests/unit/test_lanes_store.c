/* SPDX-License-Identifier: MIT */
/* Values behind handles, sequences and queues: each promise of include/quarry/store.h alone. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "include/quarry/store.h"
#include "tests/unit/lanes.h"

Test(lanes_store, bytes_are_stored_read_and_written_within_bounds)
{
	quarry_lanes *l = lanes_made(NULL);
	char from[100], to[100];
	quarry_handle h;

	for (int i = 0; i < 100; i++)
		from[i] = (char)i;
	h = quarry_store(l, from, sizeof from);
	cr_assert(h != 0 && quarry_hread(l, h, 0, to, 100) == 0 && memcmp(from, to, 100) == 0);
	cr_assert(quarry_hread(l, h, 90, to, 10) == 0 && to[0] == 90 && to[9] == 99);
	cr_assert(quarry_hwrite(l, h, 50, "abc", 3) == 0 && quarry_hread(l, h, 49, to, 5) == 0 && memcmp(to, "\x31" "abc\x35", 5) == 0);
	cr_assert(quarry_hread(l, h, quarry_hsize(l, h) - 1, to, 2) == -1 && errno == ERANGE);
	cr_assert(quarry_hwrite(l, h, quarry_hsize(l, h), "x", 1) == -1 && errno == ERANGE);
	cr_assert(quarry_hwrite(l, h, SIZE_MAX, "xx", 2) == -1 && errno == ERANGE);
	cr_assert(quarry_hfree(l, h) == 0 && quarry_hread(l, h, 0, to, 1) == -1 && errno == ESTALE);
	cr_assert(quarry_hwrite(l, h, 0, "x", 1) == -1 && errno == ESTALE);
	cr_assert(quarry_store(l, NULL, 3) == 0 && errno == EINVAL && quarry_store(l, from, 0) == 0 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_store, arrays_are_zeros_and_strings_end)
{
	quarry_lanes *l = lanes_made(NULL);
	quarry_handle h, dirty = filled(l, 400, 0xff), array;
	const char *p;
	size_t size;

	cr_assert(quarry_hfree(l, dirty) == 0);
	for (int n = 0; n < 5000; n++) {
		array = quarry_halloc_array(l, 100, 4);
		cr_assert(array != 0);
		quarry_enter();
		p = quarry_get_span(l, array, &size);
		cr_assert(size == quarry_hsize(l, array) && size >= 400);
		for (int i = 0; i < 400; i++)
			cr_assert(p[i] == 0);
		quarry_leave();
		memset(writable(l, array), 0xff, 400);
		cr_assert(n == 4999 || quarry_hfree(l, array) == 0);
	}
	cr_assert(quarry_halloc_array(l, SIZE_MAX / 2 + 2, 2) == 0 && errno == ENOMEM && quarry_halloc_array(l, 0, 8) == 0 && errno == EINVAL);
	h = quarry_store_string(l, "a name");
	quarry_enter();
	cr_assert(!strcmp(quarry_get_string(l, h), "a name"));
	cr_assert(quarry_get_string(l, array) == NULL || quarry_hsize(l, array) > 400);
	quarry_leave();
	h = filled(l, 64, 'x');
	quarry_enter();
	errno = 0;
	cr_assert(quarry_get_string(l, h) == NULL && errno == EILSEQ);
	cr_assert(quarry_get_string(l, dirty) == NULL && quarry_get_span(l, dirty, &size) == NULL && size == 0);
	quarry_leave();
	cr_assert(quarry_store_string(l, NULL) == 0 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_store, many_are_freed_and_others_passed_over)
{
	quarry_lanes *l = lanes_made(NULL), *m = lanes_made(NULL);
	quarry_handle h[10];

	for (int i = 0; i < 10; i++)
		h[i] = filled(i == 3 ? m : l, 32, i);
	h[5] = 0;
	h[6] = h[7];
	errno = 4711;
	cr_assert(quarry_hfree_many(l, h, 10) == 7 && errno == 4711);
	cr_assert(quarry_hfree_many(l, h, 10) == 0 && quarry_handle_valid(m, h[3]) && figures_of(l).objects == 2);
	cr_assert(quarry_hfree_many(l, NULL, 1) == -1 && errno == EINVAL && quarry_hfree_many(l, NULL, 0) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0 && quarry_lanes_destroy(m) == 0);
}

QUARRY_SEQ_TYPE(numbers, uint32_t);
QUARRY_RING_TYPE(jobs, uint64_t);

#define STEPS 20000

Test(lanes_store, a_sequence_is_as_an_array)
{
	quarry_lanes *l = lanes_made(NULL);
	numbers n = numbers_make(l);
	static uint32_t model[STEPS];
	uint32_t random = 4711, value, got, some[3] = { 7, 8, 9 };
	size_t count = 0;

	cr_assert(numbers_pop(&n, &got) == -1 && errno == ERANGE && numbers_get(&n, 0, &got) == -1);
	for (int i = 0; i < STEPS; i++) {
		size_t at;

		random = random * 1664525u + 1013904223u;
		value = random >> 8;
		at = count == 0 ? 0 : value % (count + 1);
		if (random >> 30 == 0 && at < count) {
			cr_assert(numbers_remove(&n, at, &got) == 0 && got == model[at]);
			memmove(model + at, model + at + 1, (--count - at) * sizeof *model);
		} else if (random >> 30 == 1) {
			cr_assert(numbers_insert(&n, at, value) == 0);
			memmove(model + at + 1, model + at, (count++ - at) * sizeof *model);
			model[at] = value;
		} else {
			cr_assert(numbers_push(&n, value) == 0);
			model[count++] = value;
		}
		if (i % 64 == 0)
			(void)quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0);
		cr_assert(numbers_count(&n) == count);
	}
	for (size_t i = 0; i < count; i++)
		cr_assert(numbers_get(&n, i, &got) == 0 && got == model[i]);
	cr_assert(quarry_seq_set(&n.seq, count - 3, 3, some) == 0 && numbers_pop(&n, &got) == 0 && got == 9);
	cr_assert(numbers_set(&n, count - 1, 1) == -1 && errno == ERANGE && numbers_set(&n, 0, 5) == 0 && numbers_get(&n, 0, &got) == 0 &&
		  got == 5);
	cr_assert(quarry_seq_get(&n.seq, 1, 2, some) == 0 && some[0] == model[1] && some[1] == model[2]);
	cr_assert(quarry_seq_get(&n.seq, 1, SIZE_MAX, some) == -1 && errno == ERANGE && quarry_seq_get(&n.seq, 0, 0, NULL) == 0);
	cr_assert(numbers_insert(&n, count + 9, 1) == -1 && errno == ERANGE && numbers_remove(&n, count, NULL) == -1);
	cr_assert(numbers_end(&n) == 0 && numbers_count(&n) == 0 && figures_of(l).objects == 0, "nothing is left");
	cr_assert(numbers_push(&n, 3) == 0 && numbers_pop(&n, &got) == 0 && got == 3);
	n = numbers_make(NULL);
	cr_assert(numbers_push(&n, 1) == -1 && errno == EINVAL && numbers_end(&n) == -1, "of no lanes");
	cr_assert(quarry_seq_init(&n.seq, l, 0) == -1 && quarry_seq_init(NULL, l, 1) == -1 && quarry_seq_end(NULL) == -1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_store, a_queue_gives_what_was_first)
{
	quarry_lanes *l = lanes_made(NULL);
	jobs j = jobs_make(l, 100, 0);
	uint64_t in = 0, out = 0, got;
	uint32_t random = 1;

	cr_assert(jobs_pop(&j, &got) == -1 && errno == ERANGE);
	for (int i = 0; i < STEPS; i++) {
		random = random * 1664525u + 1013904223u;
		if (random >> 24 < 140) {
			bool full = in - out == 100;

			cr_assert((jobs_push(&j, in) == 0) == !full && (!full || errno == EAGAIN));
			in += !full;
		} else if (out < in) {
			cr_assert(jobs_peek(&j, in - out - 1, &got) == 0 && got == in - 1);
			cr_assert(jobs_pop(&j, &got) == 0 && got == out);
			out++;
		}
		cr_assert(jobs_count(&j) == in - out);
	}
	cr_assert(jobs_peek(&j, in - out, &got) == -1 && errno == ERANGE);
	cr_assert(jobs_end(&j) == 0 && jobs_count(&j) == 0 && figures_of(l).objects == 0 && jobs_push(&j, 1) == 0);
	cr_assert(jobs_end(&j) == 0);
	j = jobs_make(l, 5, QUARRY_RING_OVERWRITE);
	for (uint64_t i = 0; i < 23; i++)
		cr_assert(jobs_push(&j, i) == 0 && jobs_count(&j) == (i < 5 ? i + 1 : 5));
	for (uint64_t i = 18; i < 23; i++)
		cr_assert(jobs_pop(&j, &got) == 0 && got == i);
	cr_assert(quarry_ring_init(&j.ring, l, 8, 0, QUARRY_RING_OVERWRITE) == -1 && errno == EINVAL);
	cr_assert(quarry_ring_init(&j.ring, l, 8, 1, 2) == -1 && quarry_ring_init(&j.ring, l, 0, 1, 0) == -1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_store, what_is_rented_stays_and_is_given_back)
{
	quarry_lanes *l = lanes_made(NULL);
	quarry_handle h;

	{
		QUARRY_RENTED r = quarry_rent(l, 4096);

		cr_assert(r.at != NULL && quarry_handle_state(l, r.handle) == QUARRY_HANDLE_PINNED);
		memset(r.at, 1, 4096);
		h = r.handle;
	}
	cr_assert(quarry_handle_state(l, h) == QUARRY_HANDLE_FREED && figures_of(l).objects == 0);
	{
		QUARRY_RENTED r = quarry_rent(l, 0);

		cr_assert(r.at == NULL && errno == EINVAL);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- beside who moves ---- */

#define PROMOTED 5000 /* bytes: its room in the slow lane is larger */

static _Atomic(quarry_handle) now;
static _Atomic(const void *) born_at;
static _Atomic(unsigned) lives, wrong;
static size_t born_size;

static void *read_spans(void *l)
{
	while (atomic_load(&lives) < 6000) {
		quarry_handle h = atomic_load(&now);
		const void *at = atomic_load(&born_at), *p;
		size_t size;

		quarry_enter();
		p = quarry_get_span(l, h, &size);
		/* (Where both are of the life that the handle is of.) */
		if (p != NULL && atomic_load(&now) == h && p == at && size != born_size)
			atomic_fetch_add(&wrong, 1);
		quarry_leave();
	}
	return NULL;
}

/* An object that is promoted has more room: as many bytes as are said are at the address that is said. */
Test(lanes_store, a_span_is_of_one_moment, .timeout = 120)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .threshold = 100000, .fast_lane_large_entry_threshold = 100000 };
	quarry_lanes *l = lanes_made(&attr);
	pthread_t t;

	for (unsigned i = 0; i < 6000; i++) {
		quarry_handle h = quarry_halloc(l, PROMOTED);

		quarry_enter();
		atomic_store(&now, 0);
		atomic_store(&born_at, quarry_get(l, h));
		quarry_leave();
		if (i == 0) {
			born_size = quarry_hsize(l, h);
			cr_assert(pthread_create(&t, NULL, read_spans, l) == 0);
		}
		atomic_store(&now, h);
		cr_assert(quarry_promote(l, h) == 0 && quarry_hsize(l, h) > born_size);
		cr_assert(quarry_hfree(l, h) == 0);
		atomic_store(&lives, i + 1);
	}
	pthread_join(t, NULL);
	cr_assert(atomic_load(&wrong) == 0, "%u", atomic_load(&wrong));
	end_lanes(l);
}
