/* SPDX-License-Identifier: MIT */
/* Handles, lanes and compaction: each promise of include/quarry/lanes.h alone, by one thread and by two that go hand in
 * hand; all of it at once is tests/stress/lanes.c. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/lanes.h"

#define MIB ((size_t)1 << 20)

/* Nothing is packed but where it is said. */
static quarry_lanes *make(void)
{
	return lanes_made(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER });
}

/* ---- classes and spans ---- */

Test(lanes, every_size_has_the_smallest_class_that_holds_it)
{
	for (size_t size = 1; size <= 128 << 10; size += size < 4096 ? 1 : 61) {
		unsigned class = qy_class_of(size, 16, QY_CLASS_LARGEST);

		cr_assert(class < qy_class_count() && qy_class_size(class) >= size, "%zu", size);
		cr_assert(class == 0 || qy_class_size(class - 1) < size, "%zu", size);
		cr_assert(qy_class_size(class) % 16 == 0);
	}
	cr_assert(qy_class_count() <= QY_CLASSES_MAX);
	for (size_t alignment = 32; alignment <= 4096; alignment *= 2)
		for (size_t size = 1; size < 20000; size += 37) {
			unsigned class = qy_class_of(size, alignment, QY_CLASS_LARGEST);

			cr_assert(class == QY_CLASS_WHOLE || qy_class_size(class) % alignment == 0);
		}
}

/* Whatever is larger than the threshold's class has its room for itself; what becomes a class's size is of that class again. */
Test(lanes, what_is_larger_than_a_threshold_is_of_no_class)
{
	static const size_t thresholds[] = { 1024, 1025, 3000, 5000, 32768, 40000, 131072 };

	for (size_t i = 0; i < sizeof(thresholds) / sizeof(*thresholds); i++) {
		size_t blob = qy_class_round(thresholds[i]);

		cr_assert(blob >= thresholds[i] && blob <= thresholds[i] + thresholds[i] / 8);
		for (size_t size = 1; size <= 140000; size += size < 9000 ? 1 : 61) {
			unsigned class = qy_class_of(size, 16, blob);

			cr_assert((class < QY_CLASSES_MAX) == (size <= blob), "%zu of %zu", size, blob);
			if (class < QY_CLASSES_MAX)
				cr_assert(qy_class_of(qy_class_size(class), 16, blob) == class);
			else
				cr_assert(class == (size <= 32 << 10 && (size + 15) / 16 * 16 < 32 << 10 ? QY_CLASS_HUGE : QY_CLASS_WHOLE));
		}
	}
}

static void have_pages(quarry_lanes *l, quarry_handle h, size_t size, unsigned pages)
{
	uint32_t index;
	const struct qy_span *s = qy_span_of(writable(l, h), &index);

	cr_assert(s->class == QY_CLASS_WHOLE && s->pages == pages && s->size - size < 16);
}

Test(lanes, blobs_have_their_room_for_themselves)
{
	const quarry_lanes_attr wrong[] = { { .blob_threshold = 1023 }, { .blob_threshold = 131073 }, { .blob_reserved = 1 } };
	quarry_cold_attr cold = { .codec = "none" };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .blob_threshold = 5000, .threshold = 4096, .cold = &cold };
	quarry_handle h[4], f;
	quarry_lanes *l;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		errno = 0;
		cr_assert(quarry_lanes_create(&wrong[i]) == NULL && errno == EINVAL, "%zu", i);
		cr_assert(strstr(quarry_error_text(), "blob") != NULL, "%s", quarry_error_text());
	}
	l = lanes_made(&attr);
	h[0] = filled(l, 5000, 1);
	h[1] = filled(l, 6000, 2);
	h[2] = filled(l, 40000, 3);
	h[3] = filled(l, 70000, 4);
	cr_assert(!(atomic_load(&l->word[(uint32_t)h[0]]) & QUARRY_WORD_HEAD));
	cr_assert(atomic_load(&l->huge_count) == 1 && (atomic_load(&l->word[(uint32_t)h[1]]) & QUARRY_WORD_HEAD));
	have_pages(l, h[2], 40000, 1);
	have_pages(l, h[3], 70000, 2);
	/* Out of the fast lane they go where they would have begun. */
	f = quarry_halloc_with(l, 6000, &(quarry_halloc_attr){ .lane = QUARRY_LANE_FAST });
	cr_assert(f != 0 && quarry_handle_lane(l, f) == QUARRY_LANE_FAST);
	memset(writable(l, f), 5, 6000);
	cr_assert(quarry_promote(l, f) == 0 && atomic_load(&l->huge_count) == 2);
	check(l, f, 6000, 5);
	/* A class's largest and pages go and come back as they were. */
	cr_assert(quarry_evict(l, h, 4) == 3, "all but the one with a block");
	cr_assert(quarry_prefetch(l, h, 4) == 3);
	check(l, h[0], 5000, 1);
	check(l, h[1], 6000, 2);
	check(l, h[2], 40000, 3);
	check(l, h[3], 70000, 4);
	have_pages(l, h[2], 40000, 1);
	have_pages(l, h[3], 70000, 2);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	for (int i = 0; i < 4; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(quarry_hfree(l, f) == 0);
	end_lanes(l);
}

Test(lanes, objects_are_where_their_spans_say)
{
	quarry_lanes *l = make();

	for (unsigned class = 0; class < qy_class_count(); class++) {
		size_t size = qy_class_size(class);

		for (int i = 0; i < 70; i++) {
			quarry_handle h = quarry_halloc(l, size);
			char *p = writable(l, h);
			uint32_t index;
			struct qy_span *s = qy_span_of(p, &index);

			cr_assert(s->size == size && index < s->count && quarry_hsize(l, h) == size);
			cr_assert(atomic_load(&s->entry[index].whose) == (uint32_t)h + 1);
			memset(p, (int)class, size);
		}
	}
	cr_assert(figures_of(l).objects == 70 * qy_class_count());
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- handles ---- */

Test(lanes, a_handle_has_what_its_bits_say)
{
	quarry_lanes *l = make();
	quarry_handle h = quarry_halloc_typed(l, 100, 64, 0xab);
	const void *p;

	cr_assert((int64_t)h < 0, "born in the slow lane");
	cr_assert((h >> 48 & 0xff) == 0xab && (h >> 56 & 0x7f) == l->id && (h >> 32 & 0xffff) == 1);
	quarry_enter();
	p = quarry_get(l, h);
	cr_assert(p != NULL && (uintptr_t)p % 64 == 0);
	cr_assert(quarry_try_get(l, h, &p) == 0);
	cr_assert(quarry_try_get(l, h ^ (quarry_handle)1 << 48, &p) == -1, "another type");
	cr_assert(quarry_try_get(l, h ^ (quarry_handle)1 << 63, &p) == -1, "another lane");
	quarry_leave();
	cr_assert(quarry_handle_state(l, h) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_handle_state(l, h ^ (quarry_handle)1 << 48) == QUARRY_HANDLE_CORRUPT);
	cr_assert(quarry_handle_state(l, h ^ (quarry_handle)1 << 56) == QUARRY_HANDLE_FOREIGN ||
		  quarry_handle_state(l, h ^ (quarry_handle)1 << 56) == QUARRY_HANDLE_CORRUPT);
	cr_assert(quarry_handle_state(l, 0) == QUARRY_HANDLE_CORRUPT);
	cr_assert(quarry_handle_state(l, h | 0xffffffff) == QUARRY_HANDLE_CORRUPT);
	cr_assert(quarry_handle_state(NULL, h) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, a_freed_handle_is_stale_for_ever)
{
	quarry_lanes *l = make();
	quarry_handle h = quarry_halloc(l, 40), other;
	const void *p;

	cr_assert(quarry_hfree(l, h) == 0);
	cr_assert(quarry_handle_state(l, h) == QUARRY_HANDLE_FREED);
	cr_assert(quarry_hfree(l, h) == -1 && errno == ESTALE);
	other = quarry_halloc(l, 40);
	cr_assert((uint32_t)other == (uint32_t)h && other != h, "the slot is used again");
	quarry_enter();
	cr_assert(quarry_get(l, h) == NULL && errno == ESTALE);
	cr_assert(quarry_get_mut(l, h) == NULL && errno == ESTALE);
	cr_assert(quarry_try_get(l, h, &p) == -1 && errno == ESTALE);
	cr_assert(quarry_get_range(l, h, 0, 1) == NULL && errno == ESTALE);
	quarry_leave();
	cr_assert(quarry_pin(l, h) == NULL && errno == ESTALE);
	cr_assert(!quarry_handle_valid(l, h) && quarry_handle_valid(l, other));
	cr_assert(quarry_hsize(l, h) == 0 && errno == ESTALE);
	cr_assert(quarry_handle_state(l, h) == QUARRY_HANDLE_STALE);
	cr_assert(quarry_hfree(l, other) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* The generations of a slot are used up: nobody gets it again, and no handle of it ever comes back. */
Test(lanes, generations_never_begin_anew)
{
	quarry_lanes_attr attr = { .handles = 64, .generations = 5 };
	quarry_lanes *l = quarry_lanes_create(&attr);
	quarry_handle all[64 * 5], h;
	int n = 0;

	while ((h = quarry_halloc(l, 16)) != 0) {
		cr_assert(n < 64 * 5);
		for (int i = 0; i < n; i++)
			cr_assert(all[i] != h);
		all[n++] = h;
		cr_assert(quarry_hfree(l, h) == 0);
	}
	cr_assert(errno == ENOMEM && n == 64 * 5, "%d lives", n);
	cr_assert(figures_of(l).retired == 64);
	for (int i = 0; i < n; i++)
		cr_assert(!quarry_handle_valid(l, all[i]));
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, handles_of_others_and_of_nobody_are_told)
{
	quarry_lanes *a = make(), *b = make();
	quarry_handle h = quarry_halloc(a, 10);
	uint64_t x = 7;

	quarry_enter();
	cr_assert(quarry_get(b, h) == NULL && errno == EINVAL);
	cr_assert(quarry_get(a, 0) == NULL && errno == EINVAL);
	for (int i = 0; i < 1000000; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		if (x != h)
			cr_assert(!quarry_handle_valid(a, x));
	}
	quarry_leave();
	cr_assert(quarry_handle_state(b, h) == QUARRY_HANDLE_FOREIGN);
	cr_assert(quarry_hfree(b, h) == -1 && errno == EINVAL);
	cr_assert(quarry_pin(b, h) == NULL && errno == EINVAL);
	cr_assert(quarry_unpin(b, h) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(a) == 0 && quarry_lanes_destroy(b) == 0);
}

Test(lanes, what_is_wrong_is_named)
{
	quarry_lanes_attr bad[] = { { .struct_size = 3 }, { .flags = 1u << 31 }, { .handles = (uint64_t)1 << 31 },
				    { .generations = 65535 }, { .reserved = 1 },
				    { .arena = quarry_arena_of(NULL), .memory = (const quarry_arena_attr *)1 } };
	quarry_lanes *l = make();

	for (int i = 0; i < 5; i++)
		cr_assert(quarry_lanes_create(&bad[i]) == NULL && errno == EINVAL, "%d", i);
	cr_assert(quarry_halloc(NULL, 1) == 0 && errno == EINVAL);
	cr_assert(quarry_halloc(l, 0) == 0 && errno == EINVAL);
	cr_assert(quarry_halloc(l, SIZE_MAX) == 0 && errno == ENOMEM);
	cr_assert(quarry_halloc(l, (size_t)1 << 60) == 0 && errno == ENOMEM);
	cr_assert(quarry_halloc_typed(l, 1, 3, 0) == 0 && errno == EINVAL);
	cr_assert(quarry_halloc_typed(l, 1, 4 * MIB, 0) == 0 && errno == EINVAL);
	cr_assert(quarry_halloc_typed(l, 1, 0, 256) == 0 && errno == EINVAL);
	cr_assert(quarry_compact(l, 7, 0, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_stats_get(l, NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_unpin(l, quarry_halloc(l, 8)) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, of_all_sizes_and_alignments)
{
	static const size_t sizes[] = { 1, 16, 17, 1024, 1025, 32768, 100000, 131073, MIB - 4096, MIB - 4095, 5 * MIB };
	quarry_lanes *l = make();

	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
		for (size_t alignment = 1; alignment <= 2 * MIB; alignment *= 2) {
			quarry_handle h = quarry_halloc_typed(l, sizes[i], alignment, 1);
			char *p = writable(l, h);

			cr_assert(p != NULL && (uintptr_t)p % alignment == 0, "%zu at %zu: %p", sizes[i], alignment, (void *)p);
			cr_assert(quarry_hsize(l, h) >= sizes[i]);
			memset(p, 1, sizes[i]);
			quarry_enter();
			cr_assert(quarry_get_range(l, h, 0, sizes[i]) == p);
			cr_assert(quarry_get_range(l, h, quarry_hsize(l, h), 1) == NULL && errno == ERANGE);
			cr_assert(quarry_get_range(l, h, 1, SIZE_MAX) == NULL && errno == ERANGE);
			quarry_leave();
			cr_assert(quarry_hfree(l, h) == 0);
		}
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	cr_assert(figures_of(l).objects == 0 && figures_of(l).live == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, as_many_as_there_are_numbers)
{
	quarry_lanes_attr attr = { .handles = 32 };
	quarry_lanes *all[127];

	for (int i = 0; i < 127; i++)
		cr_assert((all[i] = quarry_lanes_create(&attr)) != NULL, "%d", i);
	cr_assert(quarry_lanes_create(&attr) == NULL && errno == EAGAIN);
	for (int i = 0; i < 127; i++)
		cr_assert(quarry_lanes_destroy(all[i]) == 0);
	cr_assert((all[0] = quarry_lanes_create(&attr)) != NULL);
	cr_assert(quarry_lanes_destroy(all[0]) == 0);
}

/* ---- scopes and pins ---- */

/* What was freed in a scope stays what it was until it is left, whatever comes after it. */
Test(lanes, a_scope_keeps_what_was_got_in_it)
{
	quarry_lanes *l = make();
	quarry_handle h = quarry_halloc(l, 500);
	const char *p;

	memset(writable(l, h), 'x', 500);
	quarry_enter();
	p = quarry_get(l, h);
	cr_assert(quarry_hfree(l, h) == 0);
	for (int i = 0; i < 20000; i++) {
		quarry_handle other = quarry_halloc(l, 500);

		memset(quarry_get_mut(l, other), 'y', 500);
		if (i % 2)
			cr_assert(quarry_hfree(l, other) == 0);
	}
	for (int i = 0; i < 500; i++)
		cr_assert(p[i] == 'x');
	quarry_leave();
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, scopes_nest)
{
	quarry_lanes *l = make();

	cr_assert(!qy_in_scope());
	quarry_enter();
	quarry_enter();
	quarry_leave();
	cr_assert(qy_in_scope());
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) == -1 && errno == EDEADLK);
	quarry_leave();
	cr_assert(!qy_in_scope());
	quarry_leave(); /* one too many changes nothing */
	cr_assert(!qy_in_scope());
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, a_pin_keeps_the_place_and_outlives_a_free)
{
	quarry_lanes *l = make();
	quarry_handle h = quarry_halloc(l, 300), other;
	char *p = quarry_pin(l, h);

	memset(p, 'p', 300);
	cr_assert(quarry_pin(l, h) == p && quarry_handle_state(l, h) == QUARRY_HANDLE_PINNED);
	cr_assert(quarry_hfree(l, h) == 0);
	cr_assert(!quarry_handle_valid(l, h));
	for (int i = 0; i < 1000; i++) {
		other = quarry_halloc(l, 300);
		cr_assert((uint32_t)other != (uint32_t)h, "its slot is not used again");
		cr_assert(writable(l, other) != p);
		if (i % 2)
			cr_assert(quarry_hfree(l, other) == 0);
	}
	cr_assert(quarry_unpin(l, h) == 0);
	for (int i = 0; i < 300; i++)
		cr_assert(p[i] == 'p');
	cr_assert(quarry_pin(l, h) == NULL && errno == ESTALE);
	cr_assert(quarry_unpin(l, h) == 0, "the last one");
	cr_assert(quarry_unpin(l, h) == -1 && errno == EINVAL);
	cr_assert(figures_of(l).objects == 500);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes, no_more_pins_than_are_counted)
{
	quarry_lanes *l = make();
	quarry_handle h = quarry_halloc(l, 16);

	for (int i = 0; i < 65535; i++)
		cr_assert(quarry_pin(l, h) != NULL);
	cr_assert(quarry_pin(l, h) == NULL && errno == EAGAIN);
	for (int i = 0; i < 65535; i++)
		cr_assert(quarry_unpin(l, h) == 0);
	cr_assert(quarry_unpin(l, h) == -1);
	cr_assert(quarry_hfree(l, h) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- compaction ---- */

#define OBJECTS 60000

struct set {
	quarry_lanes *l;
	quarry_handle h[OBJECTS];
	uint16_t size[OBJECTS];
};

static void write_one(struct set *s, int i)
{
	memset(writable(s->l, s->h[i]), i * 7 + 1, s->size[i]);
}

static void check_one(const struct set *s, int i)
{
	const unsigned char *p;

	quarry_enter();
	p = quarry_get(s->l, s->h[i]);
	cr_assert(p != NULL && p[0] == (unsigned char)(i * 7 + 1) && p[s->size[i] - 1] == p[0] && p[s->size[i] / 2] == p[0]);
	quarry_leave();
}

/* So many objects of 32 bytes to 1 KiB, seven of ten freed. */
static struct set *sparse(quarry_lanes *l)
{
	struct set *s = calloc(1, sizeof *s);
	uint64_t x = 1;

	s->l = l;
	for (int i = 0; i < OBJECTS; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		s->size[i] = (uint16_t)(32 + (x >> 33) % 993);
		s->h[i] = quarry_halloc(l, s->size[i]);
		cr_assert(s->h[i] != 0);
		write_one(s, i);
	}
	for (int i = 0; i < OBJECTS; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		if ((x >> 33) % 10 < 7) {
			cr_assert(quarry_hfree(l, s->h[i]) == 0);
			s->h[i] = 0;
		}
	}
	return s;
}

static void check_all(const struct set *s)
{
	for (int i = 0; i < OBJECTS; i++)
		if (s->h[i] != 0)
			check_one(s, i);
}

static void end(struct set *s)
{
	for (int i = 0; i < OBJECTS; i++)
		if (s->h[i] != 0)
			cr_assert(quarry_hfree(s->l, s->h[i]) == 0);
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	cr_assert(figures_of(s->l).objects == 0);
	cr_assert(quarry_lanes_destroy(s->l) == 0);
	free(s);
}

Test(lanes, sparse_segments_are_packed)
{
	struct set *s = sparse(make());
	uint32_t before = figures_of(s->l).segments;
	int64_t back = quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0);
	quarry_lanes_stats after = figures_of(s->l);

	cr_assert(back > 0 && after.segments <= before * 55 / 100, "%u of %u segments", after.segments, before);
	cr_assert(after.freed_segments == (uint64_t)back / QY_SEGMENT_SIZE && after.moved > 0 && after.given_up == 0);
	/* (One was taken for four that went, at most, and one that was not earned.) */
	cr_assert(before - after.segments <= after.freed_segments && before - after.segments + after.freed_segments / 4 + 1 >= after.freed_segments);
	check_all(s);
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	cr_assert(figures_of(s->l).moved - after.moved < after.moved / 10, "packed already");
	end(s);
}

/* Of few segments the last that cannot become empty is emptied in part, and its free pages go. */
Test(lanes, what_is_left_over_of_few_segments_goes_too)
{
	struct set *s = sparse(make());
	uint32_t gone = 0, kept = 0;
	uint64_t packed, live;
	unsigned char there[QY_SEGMENT_SIZE / 4096];

	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	for (struct qy_link *k = s->l->segments.next; k != &s->l->segments; k = k->next) {
		struct qy_segment *g = qy_container(k, struct qy_segment, link);

		cr_assert((g->gone & ~g->free) == 0 && mincore(g, QY_SEGMENT_SIZE, there) == 0);
		for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
			gone += g->gone >> i & 1;
			kept += (g->free & ~g->gone) >> i & 1;
			cr_assert(!(g->gone >> i & 1) || !(there[i * 16 + 1] & 1), "page %u", i);
		}
	}
	live = figures_of(s->l).live;
	packed = figures_of(s->l).held - (uint64_t)gone * QY_LPAGE_SIZE;
	cr_assert(gone > 4 && kept * 64 < s->l->segment_count * QY_SEGMENT_PAGES, "%u went, %u stayed", gone, kept);
	cr_assert(packed < live + live * 2 / 5, "%llu for %llu", (unsigned long long)packed, (unsigned long long)live);
	check_all(s);
	for (int i = 0; i < OBJECTS; i++)
		if (s->h[i] == 0) {
			s->h[i] = quarry_halloc(s->l, s->size[i]);
			write_one(s, i);
		}
	check_all(s);
	end(s);
}

Test(lanes, enough_is_enough)
{
	struct set *s = sparse(make());
	int64_t back = quarry_compact(s->l, QUARRY_COMPACT_ENOUGH, 3 * MIB, 0);

	cr_assert(back >= (int64_t)(3 * MIB) && back <= (int64_t)(8 * MIB), "%lld", (long long)back);
	check_all(s);
	end(s);
}

Test(lanes, nothing_is_moved_where_none_is_asked_for)
{
	struct set *s = sparse(make());

	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	cr_assert(figures_of(s->l).moved == 0);
	check_all(s);
	end(s);
}

Test(lanes, a_budget_ends_it_and_the_next_goes_on)
{
	struct set *s = sparse(make());
	uint32_t before = figures_of(s->l).segments, rounds = 0;

	while (rounds++ < 100000 && figures_of(s->l).segments > before * 6 / 10)
		cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 300) >= 0);
	cr_assert(figures_of(s->l).segments <= before * 6 / 10, "%u of %u", figures_of(s->l).segments, before);
	check_all(s);
	end(s);
}

Test(lanes, what_is_pinned_stays_and_all_else_goes)
{
	struct set *s = sparse(make());
	void *where[8];
	int which[8], n = 0;

	for (int i = 0; i < OBJECTS && n < 8; i += OBJECTS / 9)
		for (; i < OBJECTS; i++)
			if (s->h[i] != 0) {
				which[n] = i;
				where[n++] = quarry_pin(s->l, s->h[i]);
				break;
			}
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) > 0);
	check_all(s);
	for (int i = 0; i < n; i++) {
		cr_assert(writable(s->l, s->h[which[i]]) == where[i]);
		cr_assert(quarry_unpin(s->l, s->h[which[i]]) == 0);
	}
	cr_assert(quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	check_all(s);
	end(s);
}

/* The old place of what was moved stays as it was for who is in a scope since before. */
struct reader {
	struct set *s;
	_Atomic(int) step;
};

static void *read_along(void *arg)
{
	struct reader *r = arg;
	const unsigned char *p[OBJECTS / 100];

	quarry_enter();
	for (int i = 0; i < OBJECTS; i += 100)
		p[i / 100] = r->s->h[i] != 0 ? quarry_get(r->s->l, r->s->h[i]) : NULL;
	r->step = 1;
	while (r->step == 1)
		sched_yield();
	for (int i = 0; i < OBJECTS; i += 100)
		if (p[i / 100] != NULL && p[i / 100][r->s->size[i] - 1] != (unsigned char)(i * 7 + 1))
			r->step = -1;
	quarry_leave();
	return NULL;
}

Test(lanes, a_reader_who_stays_holds_back_moves_and_nobody_else)
{
	struct reader r = { .s = sparse(make()) };
	pthread_t thread;

	cr_assert(pthread_create(&thread, NULL, read_along, &r) == 0);
	while (r.step == 0)
		sched_yield();
	cr_assert(quarry_compact(r.s->l, QUARRY_COMPACT_FULL, 0, 20000) >= 0);
	cr_assert(figures_of(r.s->l).moved == 0, "moves wait for the scopes before them");
	for (int i = 0; i < OBJECTS; i++) /* new ones do not */
		if (r.s->h[i] == 0) {
			r.s->h[i] = quarry_halloc(r.s->l, r.s->size[i]);
			write_one(r.s, i);
		}
	r.step = 2;
	pthread_join(thread, NULL);
	cr_assert(r.step == 2, "what was got stayed what it was");
	check_all(r.s);
	end(r.s);
}

/* ---- threads and forks ---- */

static void *allocate_and_end(void *arg)
{
	struct set *s = arg;

	for (int i = 0; i < 1000; i++) {
		s->h[i] = quarry_halloc(s->l, s->size[i] = (uint16_t)(16 + i));
		write_one(s, i);
	}
	return NULL;
}

Test(lanes, what_a_thread_had_is_of_use_when_it_has_ended)
{
	struct set *s = calloc(1, sizeof *s);
	uint64_t slots = 0, held = 0;

	s->l = make();
	for (int round = 0; round < 40; round++) {
		pthread_t thread;

		cr_assert(pthread_create(&thread, NULL, allocate_and_end, s) == 0);
		pthread_join(thread, NULL);
		for (int i = 0; i < 1000; i++) {
			check_one(s, i);
			cr_assert(quarry_hfree(s->l, s->h[i]) == 0);
			s->h[i] = 0;
		}
		if (round == 0) {
			slots = figures_of(s->l).handles;
			held = figures_of(s->l).held;
		}
	}
	cr_assert(figures_of(s->l).handles <= slots + QY_SLOT_PAGE && figures_of(s->l).held <= held + 4 * MIB);
	end(s);
}

static _Atomic(bool) stop;

static void *compact_on(void *arg)
{
	while (!stop)
		(void)quarry_compact(arg, QUARRY_COMPACT_FULL, 0, 500);
	return NULL;
}

/* No assertion of Criterion's counts in a child: its status does. */
static int child_of(struct set *s)
{
	for (int i = 0; i < OBJECTS; i++) {
		const unsigned char *p;

		if (s->h[i] == 0)
			continue;
		quarry_enter();
		p = quarry_get(s->l, s->h[i]);
		if (p == NULL || p[0] != (unsigned char)(i * 7 + 1) || p[s->size[i] - 1] != p[0])
			return 1;
		quarry_leave();
		if (i % 3 == 0) {
			if (quarry_hfree(s->l, s->h[i]) != 0)
				return 2;
			s->h[i] = 0;
		}
	}
	if (quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) < 0)
		return 3;
	for (int i = 0; i < OBJECTS; i++)
		if (s->h[i] != 0 && (!quarry_handle_valid(s->l, s->h[i]) || quarry_hfree(s->l, s->h[i]) != 0))
			return 4;
	return 0;
}

Test(lanes, a_child_forked_during_compaction_has_it_all, .timeout = 120)
{
	struct set *s = sparse(make());
	pthread_t thread;

	stop = false;
	cr_assert(pthread_create(&thread, NULL, compact_on, s->l) == 0);
	for (int round = 0; round < 8; round++) {
		pid_t child = fork();
		int status;

		if (child == 0)
			_exit(child_of(s));
		cr_assert(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
	}
	stop = true;
	pthread_join(thread, NULL);
	check_all(s);
	end(s);
}
