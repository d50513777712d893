/* SPDX-License-Identifier: MIT */
/* Slots of objects behind handles: which words are in memory, that no generation repeats when they were not for a while,
 * and other handles for objects whose slots stand in the way. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/lanes/lanes.h"

#define MIB ((size_t)1 << 20)
#define PAGES 40
#define N (PAGES * QY_SLOT_PAGE)

static quarry_handle h[N];
static uint64_t seed = 88172645463325252u;

static uint32_t below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed % n);
}

static quarry_lanes *make(quarry_lanes_attr attr)
{
	quarry_lanes *l;

	attr.flags |= QUARRY_LANES_NO_MOVER;
	l = quarry_lanes_create(&attr);
	cr_assert(l != NULL, "errno %d: %s", errno, quarry_error_text());
	return l;
}

static quarry_handle filled(quarry_lanes *l, uint32_t i)
{
	quarry_handle new = quarry_halloc_typed(l, 16 + i % 100, 0, i % 256);

	cr_assert(new != 0);
	quarry_enter();
	*(uint32_t *)quarry_get_mut(l, new) = i;
	quarry_leave();
	return new;
}

static void check(quarry_lanes *l, quarry_handle g, uint32_t i)
{
	const void *p;

	quarry_enter();
	cr_assert(quarry_try_get(l, g, &p) == 0 && *(const uint32_t *)p == i, "object %u", i);
	quarry_leave();
}

static void pack(quarry_lanes *l)
{
	cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
}

/* Pages of words that are in memory, as the kernel has it: the first n. */
static uint32_t in_memory(const quarry_lanes *l, uint32_t n)
{
	unsigned char there[N / QY_SLOT_PAGE + 8];
	uint32_t count = 0;

	cr_assert(n <= sizeof(there) && mincore((void *)(uintptr_t)l->word, n * (size_t)4096, there) == 0);
	for (uint32_t i = 0; i < n; i++)
		count += there[i] & 1;
	return count;
}

static uint32_t slot_of(quarry_handle g)
{
	return (uint32_t)g;
}

static uint32_t generation_of(quarry_handle g)
{
	return (uint32_t)(g >> 32 & 0xffff);
}

static void is_stale(quarry_lanes *l, quarry_handle g)
{
	const void *p;

	quarry_enter();
	errno = 0;
	cr_assert(quarry_get(l, g) == NULL && errno == ESTALE, "errno %d", errno);
	cr_assert(quarry_get_mut(l, g) == NULL && errno == ESTALE);
	cr_assert(quarry_try_get(l, g, &p) == -1 && errno == ESTALE);
	quarry_leave();
	cr_assert(quarry_pin(l, g) == NULL && errno == ESTALE);
	cr_assert(quarry_unpin(l, g) == -1 && quarry_hsize(l, g) == 0 && !quarry_handle_valid(l, g));
	cr_assert(quarry_hfree(l, g) == -1 && errno == ESTALE);
	cr_assert(quarry_rehandle(l, g) == 0 && errno == ESTALE);
	cr_assert(quarry_handle_state(l, g) == QUARRY_HANDLE_STALE || quarry_handle_state(l, g) == QUARRY_HANDLE_FREED);
}

/* Pages that read as 0 and are in memory once for all of them do not count. */
static long anonymous_kib(void)
{
	static char text[4096];
	int fd = open("/proc/self/smaps_rollup", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);
	const char *line = n <= 0 ? NULL : strstr(text, "Anonymous:");

	close(fd);
	cr_assert(line != NULL);
	return strtol(line + sizeof("Anonymous:"), NULL, 10);
}

Test(lanes_slots, words_of_empty_pages_go_back)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	long before;

	for (uint32_t i = 0; i < N; i++)
		h[i] = filled(l, i);
	cr_assert(l->slots.resident == PAGES && in_memory(l, PAGES) == PAGES);
	for (uint32_t i = 0; i < N; i++)
		if (slot_of(h[i]) % (4 * QY_SLOT_PAGE) != 77)
			cr_assert(quarry_hfree(l, h[i]) == 0);
	pack(l);
	cr_assert(l->slots.resident <= PAGES / 4 + 1 && in_memory(l, PAGES) <= PAGES / 4 + 1, "%u: but for those with an object",
		  l->slots.resident);
	before = anonymous_kib();
	for (uint32_t i = 0; i < N; i++)
		if (slot_of(h[i]) % (4 * QY_SLOT_PAGE) != 77)
			is_stale(l, h[i]);
		else
			check(l, h[i], i);
	cr_assert(anonymous_kib() < before + 16, "nobody who asks brings them back");
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* Without anybody who packs: who frees does it, but for some. */
Test(lanes_slots, most_of_them_go_by_themselves)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });

	for (uint32_t i = 0; i < N; i++)
		h[i] = filled(l, i);
	for (uint32_t i = 0; i < N; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	cr_assert(l->slots.resident < 24 && in_memory(l, PAGES) < 24, "%u of %u", l->slots.resident, PAGES);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* All of a slot's generations rise, whatever went back meanwhile, until there are none. */
Test(lanes_slots, no_generation_repeats)
{
	enum { SLOTS = 3 * QY_SLOT_PAGE - 100 };
	quarry_lanes *l = make((quarry_lanes_attr){ .handles = SLOTS, .generations = 60 });
	static uint32_t last[SLOTS];
	uint64_t lives = 0;
	uint32_t n = 0;

	for (unsigned turn = 0;; turn++) {
		uint32_t want = below(4) == 0 ? SLOTS : below(SLOTS);

		for (; n < want && (h[n] = quarry_halloc(l, 16)) != 0; n++) {
			cr_assert(slot_of(h[n]) < SLOTS && generation_of(h[n]) > last[slot_of(h[n])], "slot %u: %u after %u",
				  slot_of(h[n]), generation_of(h[n]), last[slot_of(h[n])]);
			last[slot_of(h[n])] = generation_of(h[n]);
			lives++;
		}
		if (n == 0)
			break;
		for (want = below(3) == 0 ? 0 : below(n); n > want;) {
			uint32_t i = below(n);

			cr_assert(quarry_hfree(l, h[i]) == 0);
			h[i] = h[--n];
		}
		if (turn % 2 == 0)
			pack(l);
	}
	cr_assert(errno == ENOMEM);
	cr_assert(lives >= (uint64_t)SLOTS * 60 / (SLOTS + 1) && lives <= (uint64_t)SLOTS * 60);
	cr_assert(l->slots.retired == SLOTS, "%llu", (unsigned long long)l->slots.retired);
	cr_assert(l->slots.resident == 0 && in_memory(l, 3) == 0, "nobody will use them");
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		is_stale(l, (uint64_t)1 << 63 | l->map.number | (uint64_t)last[slot] << 32 | slot);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* A page of which few slots had many lives would cost the others theirs. */
Test(lanes_slots, few_lives_are_wasted)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .handles = QY_SLOT_PAGE });
	quarry_handle g = 0;

	for (int i = 0; i < 1000; i++) {
		g = quarry_halloc(l, 16);
		cr_assert(quarry_hfree(l, g) == 0);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
	l = make((quarry_lanes_attr){ .handles = QY_SLOT_PAGE });
	g = quarry_halloc(l, 16);
	for (int i = 0; i < 1000; i++) { /* the last that was freed is the first to be taken */
		cr_assert(quarry_hfree(l, g) == 0);
		g = quarry_halloc(l, 16);
	}
	cr_assert(generation_of(g) == 1001 && quarry_hfree(l, g) == 0);
	qy_slots_flush(l, qy_lanes_cache(l), 0);
	pack(l);
	cr_assert(l->slots.resident == 1 && l->slots.empty == 1, "1000 lives of one, 511 times that for the others");
	cr_assert(l->slots.refused == 1 && !qy_slots_trim(l), "it is not read again");
	g = quarry_halloc(l, 16);
	cr_assert(l->slots.refused == 0 && quarry_hfree(l, g) == 0, "until one of them is taken");
	for (int i = 0; i < 5; i++) {
		for (uint32_t n = 0; n < QY_SLOT_PAGE; n++)
			cr_assert((h[n] = quarry_halloc(l, 16)) != 0);
		for (uint32_t n = 0; n < QY_SLOT_PAGE; n++)
			cr_assert(quarry_hfree(l, h[n]) == 0);
	}
	qy_slots_flush(l, qy_lanes_cache(l), 0);
	pack(l);
	cr_assert(l->slots.resident == 1, "2560 more of all are not enough");
	for (int i = 0; i < 70; i++) {
		for (uint32_t n = 0; n < QY_SLOT_PAGE; n++)
			cr_assert((h[n] = quarry_halloc(l, 16)) != 0);
		for (uint32_t n = 0; n < QY_SLOT_PAGE; n++)
			cr_assert(quarry_hfree(l, h[n]) == 0);
	}
	qy_slots_flush(l, qy_lanes_cache(l), 0);
	pack(l);
	cr_assert(l->slots.resident == 0 && l->slots.empty == 0);
	g = quarry_halloc(l, 16);
	cr_assert(generation_of(g) >= 1002, "%u", generation_of(g));
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_slots, a_generation_that_is_none_is_nobodys)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_handle none = (uint64_t)1 << 63 | l->map.number | 5;
	const void *p;

	cr_assert(quarry_pin(l, none) == NULL && errno == EINVAL);
	cr_assert(quarry_unpin(l, none) == -1 && quarry_hfree(l, none) == -1 && quarry_hsize(l, none) == 0);
	quarry_enter();
	cr_assert(quarry_get(l, none) == NULL && quarry_get_mut(l, none) == NULL && quarry_try_get(l, none, &p) == -1);
	quarry_leave();
	cr_assert(quarry_handle_state(l, none) == QUARRY_HANDLE_CORRUPT && !quarry_handle_valid(l, none));
	cr_assert(quarry_rehandle(l, none) == 0 && errno == EINVAL && quarry_rehandle(NULL, none) == 0);
	cr_assert(quarry_rehandle_gain(NULL) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- other handles ---- */

Test(lanes_slots, other_handles_make_pages_empty)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	static quarry_handle old[N];
	uint32_t left = 0;

	for (uint32_t i = 0; i < N; i++)
		h[i] = filled(l, i);
	cr_assert(quarry_rehandle_gain(l) == 0 && quarry_rehandle(l, h[3]) == h[3] && quarry_rehandle(l, h[N - 3]) == h[N - 3]);
	for (uint32_t i = 0; i < N; i++)
		if (i % 10 != 0) {
			cr_assert(quarry_hfree(l, h[i]) == 0);
			h[i] = 0;
		}
	pack(l);
	cr_assert(in_memory(l, PAGES) == PAGES, "each has some left");
	cr_assert(quarry_rehandle_gain(l) > (PAGES - PAGES / 5) * 4096ul, "%zu", quarry_rehandle_gain(l));
	for (uint32_t i = 0; i < N; i += 10) {
		old[i] = h[i];
		errno = 17;
		h[i] = quarry_rehandle(l, h[i]);
		cr_assert(h[i] != 0 && (int64_t)h[i] < 0 && (h[i] >> 48) == (old[i] >> 48) && errno == 17);
		left += old[i] == h[i];
	}
	cr_assert(left < N / 50 && quarry_rehandle_gain(l) == 0, "%u stayed", left);
	pack(l);
	cr_assert(in_memory(l, PAGES) < PAGES / 5, "%u", in_memory(l, PAGES));
	for (uint32_t i = 0; i < N; i += 10) {
		check(l, h[i], i);
		if (old[i] != h[i])
			is_stale(l, old[i]);
		cr_assert(quarry_hfree(l, h[i]) == 0);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* An object with a slot high up, and room below. */
static quarry_handle high(quarry_lanes *l, size_t size, const quarry_halloc_attr *attr)
{
	quarry_handle g;

	for (uint32_t i = 0; i < 8 * QY_SLOT_PAGE; i++)
		h[i] = filled(l, i);
	g = quarry_halloc_with(l, size, attr);
	cr_assert(g != 0);
	for (uint32_t i = 0; i < 8 * QY_SLOT_PAGE; i++)
		cr_assert(quarry_hfree(l, h[i]) == 0);
	return g;
}

Test(lanes_slots, objects_of_all_kinds)
{
	quarry_lanes *l = make((quarry_lanes_attr){ .threshold = 4096 });
	size_t sizes[] = { 16, 100, 5000, 200000, 3 * MIB };

	for (unsigned i = 0; i < 10; i++) {
		quarry_halloc_attr attr = { .lane = i % 2 ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW, .type = i };
		quarry_handle was = high(l, sizes[i / 2], &attr), is;

		quarry_enter();
		memset(quarry_get_mut(l, was), (int)i, sizes[i / 2]);
		is = quarry_rehandle(l, was);
		cr_assert(is != was && is >> 48 == was >> 48 && slot_of(is) < slot_of(was));
		quarry_leave();
		is_stale(l, was);
		cr_assert(quarry_hsize(l, is) >= sizes[i / 2]);
		cr_assert(quarry_handle_lane(l, is) == (int)attr.lane || i == 9);
		if (i % 2 && i < 6) {
			cr_assert(quarry_promote(l, is) == 0 && quarry_handle_lane(l, is) == QUARRY_LANE_SLOW);
			cr_assert(quarry_stub_count(l) == 1);
		}
		cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
		quarry_enter();
		for (size_t at = 0; at < sizes[i / 2]; at++)
			cr_assert(((const char *)quarry_get(l, is))[at] == (char)i);
		quarry_leave();
		cr_assert(quarry_hfree(l, is) == 0 && quarry_stub_count(l) == 0);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

struct pinner {
	quarry_lanes *l;
	quarry_handle h;
	_Atomic(pid_t) tid;
	_Atomic(bool) done;
	void *p;
};

static void *pin(void *arg)
{
	struct pinner *s = arg;

	s->tid = gettid();
	s->p = quarry_pin(s->l, s->h);
	s->done = true;
	return NULL;
}

/* Whether the thread waits for something. */
static bool waits(pid_t tid)
{
	char name[64], text[256], *state;
	FILE *f;
	size_t n;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", (int)tid);
	f = fopen(name, "r");
	n = f == NULL ? 0 : fread(text, 1, sizeof(text) - 1, f);
	if (f != NULL)
		fclose(f);
	text[n] = '\0';
	state = strrchr(text, ')');
	return state != NULL && state[2] == 'S';
}

/* While it changes its slot nobody pins it; who tries waits until that is done. */
Test(lanes_slots, a_pin_waits_for_a_change_of_slot)
{
	struct pinner s = { .l = make((quarry_lanes_attr){ 0 }) };
	struct qy_entry *entry;
	pthread_t thread;

	s.h = quarry_halloc(s.l, 100);
	quarry_enter();
	entry = qy_entry_of(quarry_get(s.l, s.h));
	quarry_leave();
	pthread_mutex_lock(&s.l->groups.lock);
	atomic_fetch_or(&entry->marks, QY_MARK_CLAIMED);
	cr_assert(pthread_create(&thread, NULL, pin, &s) == 0);
	while (!s.done && (s.tid == 0 || !waits(s.tid)))
		sched_yield();
	cr_assert(!s.done && (atomic_load(&entry->marks) & QY_MARK_PINS) == 0);
	atomic_fetch_and(&entry->marks, ~QY_MARK_CLAIMED);
	pthread_mutex_unlock(&s.l->groups.lock);
	pthread_join(thread, NULL);
	cr_assert(s.p != NULL && (atomic_load(&entry->marks) & QY_MARK_PINS) == 1);
	cr_assert(quarry_unpin(s.l, s.h) == 0 && quarry_lanes_destroy(s.l) == 0);
}

Test(lanes_slots, who_holds_it_holds_its_handle)
{
	quarry_lanes *l = make((quarry_lanes_attr){ 0 });
	quarry_group *group = quarry_group_create(l, NULL);
	quarry_handle g = high(l, 100, NULL), other;

	cr_assert(quarry_pin(l, g) != NULL && quarry_rehandle(l, g) == g && quarry_unpin(l, g) == 0);
	cr_assert(quarry_group_add(group, g) == 0 && quarry_rehandle(l, g) == g);
	cr_assert(quarry_hfree(l, g) == 0);
	g = high(l, 100, NULL);
	other = quarry_rehandle(l, g);
	cr_assert(other != g && quarry_group_add(group, g) == -1 && errno == ESTALE && quarry_group_add(group, other) == 0);
	cr_assert(quarry_pin(l, other) != NULL && quarry_hfree(l, other) == 0, "its memory is the pin's");
	cr_assert(quarry_rehandle(l, other) == 0 && errno == ESTALE);
	cr_assert(quarry_unpin(l, other) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}
