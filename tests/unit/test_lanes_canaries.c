/* SPDX-License-Identifier: MIT */
/* Canaries behind objects: that each byte beyond an object is noticed, wherever it is, by whoever comes by; that its handle is named
 * and it stays; and that what nobody wrote beyond is as in other lanes, and as long as it was asked to be. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/quarry/store.h"
#include "include/quarry/trace.h"
#include "include/quarry/track.h"
#include "lib/lanes/canary.h"
#include "tests/unit/lanes.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* Nobody delivers but the threads of the test. */
static __attribute__((constructor(101))) void set_options(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,idle_threads=off", 1);
}

static const quarry_lanes_attr slow = { .flags = QUARRY_LANES_NO_MOVER | QUARRY_LANES_CANARIES };
static const quarry_lanes_attr fast = { .flags = QUARRY_LANES_NO_MOVER | QUARRY_LANES_CANARIES,
					.threshold = 4096,
					.fast_lane_large_entry_threshold = 65536 };

static quarry_lanes_event last;
static unsigned told;

static void hear(const quarry_lanes_event *e, void *ctx)
{
	(void)ctx;
	if (e->kind != QUARRY_LANES_CORRUPT)
		return;
	last = *e;
	told++;
}

static quarry_lanes *heard(const quarry_lanes_attr *attr)
{
	quarry_lanes *l = lanes_made(attr);

	cr_assert(quarry_lanes_on_event(l, hear, NULL) == 0);
	return l;
}

static void change(quarry_lanes *l, quarry_handle h, size_t at)
{
	char *p = writable(l, h);

	p[at] = (char)~p[at];
}

static void must_be(quarry_lanes *l, quarry_handle h, int state)
{
	cr_assert(quarry_handle_state(l, h) == state, "%d, not %d", quarry_handle_state(l, h), state);
}

static const size_t sizes[] = { 1, 7, 8, 9, 15, 16, 17, 100, 1000, 1016, 1017, 1024, 1025, 4088, 4089, 4096, 20000, 131064, 131072,
				200000, MIB - 4096, MIB, 3 * MIB };
#define SIZES (sizeof(sizes) / sizeof(*sizes))

static void one_byte_beyond(const quarry_lanes_attr *attr)
{
	quarry_lanes *l = lanes_made(attr);

	for (size_t i = 0; i < SIZES; i++) {
		quarry_handle h = filled(l, sizes[i], 7);
		char name[20];

		cr_assert(quarry_hsize(l, h) == sizes[i], "%zu", sizes[i]);
		must_be(l, h, QUARRY_HANDLE_VALID);
		change(l, h, sizes[i]);
		must_be(l, h, QUARRY_HANDLE_CORRUPT);
		errno = 0;
		cr_assert(quarry_hfree(l, h) == -1 && errno == EBADMSG, "%zu: %d", sizes[i], errno);
		(void)snprintf(name, sizeof(name), "%016llx", (unsigned long long)h);
		cr_assert(strstr(quarry_error_text(), name) != NULL, "%s", quarry_error_text());
		cr_assert(quarry_handle_valid(l, h) && quarry_lanes_check(l, NULL, 0) == 1);
		quarry_enter();
		cr_assert(((const char *)quarry_get(l, h))[sizes[i] - 1] == 7, "it can be got as ever");
		quarry_leave();
		change(l, h, sizes[i]);
		check(l, h, sizes[i], 7);
		must_be(l, h, QUARRY_HANDLE_VALID);
		cr_assert(quarry_hfree(l, h) == 0 && quarry_lanes_check(l, NULL, 0) == 0);
	}
	end_lanes(l);
}

Test(lanes_canaries, one_byte_beyond_is_noticed)
{
	quarry_lanes_attr blobs = slow;

	one_byte_beyond(&slow);
	one_byte_beyond(&fast);
	blobs.blob_threshold = 1024;
	one_byte_beyond(&blobs);
}

/* Who frees it tells of it himself, once he is in no scope. */
Test(lanes_canaries, who_frees_it_is_told_at_once)
{
	quarry_lanes *l = heard(&slow);
	quarry_handle h = filled(l, 100, 1);

	change(l, h, 100);
	told = 0;
	cr_assert(quarry_hfree(l, h) == -1 && errno == EBADMSG && told == 1 && last.handle == h && last.count == 1);
	quarry_enter();
	cr_assert(quarry_hfree(l, h) == -1 && errno == EBADMSG && told == 1);
	quarry_leave();
	end_lanes(l);
	cr_assert(told == 2, "before they ended, at the latest");
}

static unsigned lasts;

static void count_last(quarry_handle bad, void *object, void *arg)
{
	cr_assert(bad == *(quarry_handle *)arg && *(char *)object == 3);
	lasts++;
}

/* It is garbage, and stays: its finalizer is called when it goes. */
Test(lanes_canaries, what_is_not_freed_has_not_ended)
{
	quarry_lanes *l = heard(&slow);
	quarry_tracer *t = quarry_tracer_create(l);
	quarry_handle bad = quarry_halloc_typed(l, 100, 0, 5);

	memset(writable(l, bad), 3, 100);
	cr_assert(t != NULL && quarry_tracer_type(t, 5, NULL, 0) == 0 && quarry_set_finalizer(t, 5, count_last, &bad) == 0);
	change(l, bad, 100);
	told = 0;
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert(quarry_collect(t, 0) == 0 && lasts == 0);
		qy_events_deliver();
		cr_assert(told == i && last.handle == bad);
	}
	change(l, bad, 100);
	cr_assert(quarry_collect(t, 0) == 1 && lasts == 1 && told == 3);
	cr_assert(quarry_tracer_destroy(t) == 0);
	end_lanes(l);
}

/* Sequences and queues whose objects were written beyond stay as they are. */
Test(lanes_canaries, what_is_made_of_it_stays)
{
	quarry_lanes *l = lanes_made(&slow);
	quarry_seq s;
	quarry_ring r;
	int i = 7;

	cr_assert(quarry_seq_init(&s, l, sizeof(i)) == 0 && quarry_seq_push(&s, &i) == 0);
	cr_assert(quarry_ring_init(&r, l, sizeof(i), 0, 0) == 0 && quarry_ring_push(&r, &i) == 0);
	change(l, s.data, quarry_hsize(l, s.data));
	change(l, r.data, quarry_hsize(l, r.data));
	for (int k = 0; k < 2; k++) {
		errno = 0;
		cr_assert(quarry_seq_end(&s) == -1 && errno == EBADMSG && s.count == 1 && s.data != 0);
		errno = 0;
		cr_assert(quarry_ring_end(&r) == -1 && errno == EBADMSG && r.count == 1 && r.data != 0);
	}
	cr_assert(quarry_lanes_check(l, NULL, 0) == 2);
	end_lanes(l);
	/* What is freed already is no reason to keep its handle. */
	l = lanes_made(&slow);
	cr_assert(quarry_seq_init(&s, l, sizeof(i)) == 0 && quarry_seq_push(&s, &i) == 0);
	cr_assert(quarry_hfree(l, s.data) == 0 && quarry_seq_end(&s) == 0 && s.data == 0);
	end_lanes(l);
}

Test(lanes_canaries, any_byte_beyond_is_noticed)
{
	quarry_lanes *l = lanes_made(&slow);
	quarry_handle h = filled(l, 1100, 1), next = filled(l, 1100, 2);
	size_t room = qy_size_of(atomic_load(&l->word[(uint32_t)h]));

	cr_assert(room >= 1108 && quarry_get_range(l, h, 0, 1101) == NULL && errno == ERANGE);
	for (size_t at = 1100; at < room; at++) {
		change(l, h, at);
		must_be(l, h, QUARRY_HANDLE_CORRUPT);
		change(l, h, at);
		must_be(l, h, QUARRY_HANDLE_VALID);
	}
	/* By zeros, too, and by as much as its neighbour. */
	memset((char *)writable(l, h) + 1100, 0, room - 1100);
	must_be(l, h, QUARRY_HANDLE_CORRUPT);
	must_be(l, next, QUARRY_HANDLE_VALID);
	end_lanes(l);
}

Test(lanes_canaries, what_nobody_wrote_beyond_is_as_ever)
{
	quarry_lanes *l = lanes_made(&fast);
	quarry_halloc_attr aligned = { .alignment = 4096, .lane = QUARRY_LANE_FAST };
	quarry_handle h = quarry_halloc_typed(l, 4096, 4096, 9), a = quarry_halloc_with(l, 8192, &aligned), s;
	size_t size;

	cr_assert(h != 0 && a != 0 && (uintptr_t)writable(l, h) % 4096 == 0 && (uintptr_t)writable(l, a) % 4096 == 0);
	cr_assert(quarry_hsize(l, h) == 4096 && quarry_hsize(l, a) == 8192);
	cr_assert(quarry_handle_lane(l, h) == QUARRY_LANE_FAST, "of the threshold's size, its canary apart");
	s = quarry_halloc(l, 4097);
	cr_assert(quarry_handle_lane(l, s) == QUARRY_LANE_SLOW && quarry_hfree(l, s) == 0);
	memset(writable(l, a), 1, 8192);
	cr_assert(quarry_promote(l, a) == 0 && (uintptr_t)writable(l, a) % 4096 == 0);
	cr_assert(quarry_pin(l, h) != NULL && quarry_unpin(l, h) == 0);
	s = quarry_store_string(l, "a text");
	quarry_enter();
	cr_assert(strcmp(quarry_get_span(l, s, &size), "a text") == 0 && size == 7);
	quarry_leave();
	cr_assert(quarry_lanes_check(l, NULL, 0) == 0);
	cr_assert(quarry_hfree(l, h) == 0 && quarry_hfree(l, a) == 0 && quarry_hfree(l, s) == 0);
	for (int i = 0; i < 3000; i++)
		cr_assert(quarry_hfree(l, quarry_halloc(l, 1 + (size_t)i)) == 0);
	end_lanes(l);
}

Test(lanes_canaries, only_where_they_were_asked_for)
{
	quarry_lanes_attr bad = { .flags = 4 };
	quarry_lanes *l = lanes_made(NULL);
	quarry_handle h = filled(l, 100, 1);

	cr_assert(quarry_hsize(l, h) == 112);
	cr_assert(quarry_lanes_check(l, NULL, 0) == -1 && errno == ENOTSUP);
	cr_assert(quarry_lanes_create(&bad) == NULL && errno == EINVAL);
	end_lanes(l);
	l = lanes_made(&slow);
	cr_assert(quarry_lanes_check(l, NULL, 1) == -1 && errno == EINVAL);
	end_lanes(l);
	cr_assert(quarry_lanes_check(NULL, NULL, 0) == -1 && errno == EINVAL);
}

/* ---- moved ---- */

#define COUNT 6000

static quarry_handle h[COUNT];

static size_t size_of(size_t i)
{
	return 500 + i % 200;
}

Test(lanes_canaries, who_packs_leaves_it_where_it_is)
{
	quarry_lanes *l = heard(&slow);
	const void *was[COUNT / 600];
	quarry_handle found[20];

	for (size_t i = 0; i < COUNT; i++)
		h[i] = filled(l, size_of(i), (int)i);
	for (size_t i = 0; i < COUNT; i++)
		if (i % 10 != 0)
			cr_assert(quarry_hfree(l, h[i]) == 0);
	for (size_t i = 0; i < COUNT; i += 600) { /* in each segment some */
		change(l, h[i], size_of(i));
		was[i / 600] = writable(l, h[i]);
	}
	cr_assert(told == 0);
	(void)quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0);
	cr_assert(figures_of(l).moved > 50);
	cr_assert(told == 1 && last.lanes == l && last.count > 0, "%u", told);
	must_be(l, last.handle, QUARRY_HANDLE_CORRUPT);
	cr_assert(quarry_lanes_check(l, found, 20) == COUNT / 600 && found[0] == h[0] && found[1] == h[600]);
	for (size_t i = 0; i < COUNT; i += 10) {
		check(l, h[i], size_of(i), (int)i);
		cr_assert(i % 600 == 0 ? writable(l, h[i]) == was[i / 600] : quarry_hsize(l, h[i]) == size_of(i));
		must_be(l, h[i], i % 600 == 0 ? QUARRY_HANDLE_CORRUPT : QUARRY_HANDLE_VALID);
	}
	end_lanes(l);
}

Test(lanes_canaries, from_lane_to_lane_it_does_not_go)
{
	quarry_lanes *l = heard(&fast);
	quarry_handle f[] = { filled(l, 3000, 1), filled(l, 3001, 2) };

	change(l, f[1], 3001);
	cr_assert(quarry_promote(l, f[0]) == 0 && quarry_hsize(l, f[0]) == 3000, "its room is larger there");
	cr_assert(quarry_promote(l, f[1]) == -1 && errno == EBADMSG && told == 1 && last.handle == f[1]);
	cr_assert(quarry_handle_lane(l, f[1]) == QUARRY_LANE_FAST);
	must_be(l, f[0], QUARRY_HANDLE_VALID);
	cr_assert(quarry_demote(l, f[0]) == 0 && quarry_hsize(l, f[0]) == 3000);
	check(l, f[0], 3000, 1);
	change(l, f[1], 3001);
	cr_assert(quarry_promote(l, f[1]) == 0 && quarry_hsize(l, f[1]) == 3001);
	change(l, f[1], 3001);
	cr_assert(quarry_handles_migrate(l, f, 2, 0) == 1, "the other one, which is in the fast lane");
	must_be(l, f[1], QUARRY_HANDLE_CORRUPT);
	cr_assert(quarry_demote(l, f[1]) == -1 && errno == EBADMSG);
	cr_assert(quarry_lanes_check(l, NULL, 0) == 1);
	cr_assert(quarry_hfree(l, f[0]) == 0);
	end_lanes(l);
}

Test(lanes_canaries, it_does_not_become_cold)
{
	quarry_cold_attr cold = { .codec = "none" };
	quarry_lanes_attr attr = slow;
	quarry_lanes *l;
	char room[64];

	attr.cold = &cold;
	l = heard(&attr);
	for (size_t i = 0; i < 100; i++)
		h[i] = filled(l, 700, (int)i);
	change(l, h[50], 700);
	cr_assert(quarry_evict(l, h, 100) == 99 && told == 1 && last.handle == h[50]);
	must_be(l, h[50], QUARRY_HANDLE_CORRUPT);
	must_be(l, h[0], QUARRY_HANDLE_COLD);
	cr_assert(quarry_hsize(l, h[0]) == 700, "it is asked");
	must_be(l, h[0], QUARRY_HANDLE_VALID);
	cr_assert(quarry_prefetch(l, h, 100) == 98);
	for (size_t i = 0; i < 100; i++) {
		check(l, h[i], 700, (int)i);
		cr_assert((quarry_hfree(l, h[i]) == 0) == (i != 50));
	}
	/* What has a span for itself. */
	for (size_t i = 0; i < 4; i++)
		h[i] = filled(l, 200000 + i, (int)i);
	told = 0;
	change(l, h[2], 200002);
	cr_assert(quarry_evict(l, h, 4) == 3 && told == 1 && last.handle == h[2]);
	must_be(l, h[0], QUARRY_HANDLE_COLD);
	for (size_t i = 0; i < 4; i++) {
		cr_assert(i == 2 || quarry_hsize(l, h[i]) == 200000 + i);
		check(l, h[i], 200000 + i, (int)i);
		must_be(l, h[i], i == 2 ? QUARRY_HANDLE_CORRUPT : QUARRY_HANDLE_VALID);
		change(l, h[i], 200000 + i);
		must_be(l, h[i], i == 2 ? QUARRY_HANDLE_VALID : QUARRY_HANDLE_CORRUPT);
	}
	end_lanes(l);
	/* (What went whole and comes back otherwise has another checksum: so there is no way to it but this.) */
	qy_canary_set(room, 64, 40);
	attr.cold = NULL;
	l = lanes_made(&attr);
	cr_assert(qy_canary_is_back(l, room, 64) && qy_canary_size(room, 64) == 40);
	room[63] ^= 1;
	cr_assert(!qy_canary_is_back(l, room, 64) && errno == EIO);
	end_lanes(l);
}

Test(lanes_canaries, a_dump_names_it)
{
	quarry_lanes *l = lanes_made(&slow);
	quarry_handle bad = filled(l, 100, 1);
	FILE *file = tmpfile();
	char line[200] = "";

	cr_assert(file != NULL && filled(l, 100, 2) != 0);
	change(l, bad, 105);
	cr_assert(quarry_lanes_dump(l, fileno(file)) == 2);
	rewind(file);
	while (strstr(line, "corrupt") == NULL)
		cr_assert(fgets(line, sizeof(line), file) != NULL);
	cr_assert(strtoull(line, NULL, 16) == bad, "%s", line);
	(void)fclose(file);
	end_lanes(l);
}
