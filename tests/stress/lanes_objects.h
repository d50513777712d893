/* SPDX-License-Identifier: MIT */
/* What the stress programs of lanes share: objects whose every byte is known, some under locks, some immutable and read
 * without any while they are replaced and freed. */
#ifndef QUARRY_TESTS_STRESS_LANES_OBJECTS_H
#define QUARRY_TESTS_STRESS_LANES_OBJECTS_H

#include "tests/stress/stress.h"

#include "include/quarry/lanes.h"

#define FIXED 256 /* immutable ones */
#define SIZE_MOST ((size_t)4 << 20)

static quarry_lanes *lanes;

struct shared {
	pthread_mutex_t lock;
	quarry_handle h;
	void *pinned; /* where */
	size_t size;
	uint64_t tag;
};

static _Atomic(quarry_handle) fixed[FIXED];
static _Atomic(uint64_t) moved_away, seen_free, next_tag = 1;
static _Atomic(uint64_t) optimistic, in_vain; /* reads that were believed, and not */

/* ---- contents: the tag, the size, and bytes that follow from them ---- */

static size_t step_of(size_t size)
{
	return 1 + size / 4096;
}

static void fill(void *at, size_t size, uint64_t tag)
{
	uint64_t *p = at;

	p[0] = tag;
	p[1] = size;
	for (size_t i = 2; i < size / 8; i += step_of(size))
		p[i] = st_mix(tag + i);
}

/* size 0: not known. */
static void verify(const void *at, uint64_t tag, size_t size, const char *what)
{
	const uint64_t *p = at;

	if (p[0] != tag || (size != 0 && p[1] != size))
		st_fail("%s: tag %llu, size %llu instead of %llu, %zu", what, (unsigned long long)p[0],
			(unsigned long long)p[1], (unsigned long long)tag, size);
	size = p[1];
	for (size_t i = 2; i < size / 8; i += step_of(size))
		if (p[i] != st_mix(tag + i))
			st_fail("%s: word %zu of %zu bytes is %llx", what, i, size, (unsigned long long)p[i]);
}

/* ---- shared ones, under their locks ---- */

static ST_UNUSED void read_shared(struct shared *s)
{
	const void *p;

	quarry_enter();
	p = quarry_get(lanes, s->h);
	ST_CHECK(p != NULL && (s->pinned == NULL || s->pinned == p));
	verify(p, s->tag, s->size, "shared");
	quarry_leave();
}

static ST_UNUSED void write_shared(struct shared *s)
{
	void *p;

	quarry_enter();
	p = quarry_get_mut(lanes, s->h);
	ST_CHECK(p != NULL);
	verify(p, s->tag, s->size, "to be written");
	s->tag = atomic_fetch_add(&next_tag, 1);
	fill(p, s->size, s->tag);
	quarry_leave();
}

/* It is freed; its memory stays until it is unpinned. */
static ST_UNUSED void end_shared(struct shared *s)
{
	ST_CHECK(quarry_hfree(lanes, s->h) == 0);
	ST_CHECK(quarry_hfree(lanes, s->h) == -1 && (errno == ESTALE || errno == EINVAL));
	if (s->pinned != NULL) {
		verify(s->pinned, s->tag, s->size, "freed while pinned");
		ST_CHECK(quarry_unpin(lanes, s->h) == 0);
	}
	s->pinned = NULL;
	s->h = 0;
}

/* ---- immutable ones, without a lock; their tags are their handles ---- */

/* between: called once with what was got in the hand; NULL: nothing. */
static ST_UNUSED void read_fixed_objects(struct st_rng *rng, void (*between)(struct st_rng *))
{
	const void *p[4];
	quarry_handle h[4];

	quarry_enter();
	for (int i = 0; i < 4; i++) {
		h[i] = atomic_load(&fixed[st_below(rng, FIXED)]);
		p[i] = quarry_get(lanes, h[i]);
		if (p[i] == NULL && h[i] != 0) {
			ST_CHECK(errno == ESTALE);
			atomic_fetch_add(&seen_free, 1);
		}
	}
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 4; i++)
			if (p[i] != NULL)
				verify(p[i], h[i], 0, "immutable");
		if (round == 0 && between != NULL)
			between(rng); /* memory that is used again */
	}
	for (int i = 0; i < 4; i++)
		if (p[i] != NULL && quarry_get(lanes, h[i]) != p[i])
			atomic_fetch_add(&moved_away, 1);
	quarry_leave();
}

/* Without a scope: first what is in all of them, then as much as that says. What is read in vain is any bytes. */
static ST_UNUSED void read_fixed_optimistically(struct st_rng *rng, void (*between)(struct st_rng *))
{
	static _Thread_local uint64_t copy[SIZE_MOST / sizeof(uint64_t)];
	quarry_handle h = atomic_load(&fixed[st_below(rng, FIXED)]);
	quarry_look look;
	int result;

	if (quarry_opt_read(lanes, h, 0, copy, 16) != 0) {
		ST_CHECK(h == 0 || errno == ESTALE || errno == EAGAIN);
		return;
	}
	if (copy[0] != h || copy[1] > SIZE_MOST)
		st_fail("read optimistically: tag %llx, size %llu of %llx", (unsigned long long)copy[0], (unsigned long long)copy[1],
			(unsigned long long)h);
	quarry_enter();
	result = quarry_opt_begin(lanes, h, &look);
	if (result != 0) {
		ST_CHECK(errno == ESTALE || errno == EAGAIN);
		quarry_leave();
		return;
	}
	quarry_opt_copy(copy, look.at, copy[1] / 2);
	if (between != NULL)
		between(rng);
	quarry_opt_copy((char *)copy + copy[1] / 2, (const char *)look.at + copy[1] / 2, copy[1] - copy[1] / 2);
	result = quarry_opt_end(lanes, &look);
	quarry_leave();
	if (result) {
		verify(copy, h, 0, "read optimistically");
		atomic_fetch_add(&optimistic, 1);
	} else {
		atomic_fetch_add(&in_vain, 1);
	}
}

#endif
