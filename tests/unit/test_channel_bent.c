/* SPDX-License-Identifier: MIT */
/* Channels whose ring is not as it was: its processes are trusted as far as content goes, and nobody is led out of it. */
#include <criterion/criterion.h>
#include <string.h>

#include "lib/mapped/channel.h"
#include "tests/unit/channels.h"

/* Closed, and opened again. False where that cannot be any more. */
static bool anew(quarry_mapped *heap, quarry_off off, quarry_channel **at, int role)
{
	quarry_channel_close(*at);
	*at = quarry_channel_open(heap, off, role);
	return *at != NULL;
}

#define PATTERN 0x5a

static unsigned char *pattern_beside(quarry_mapped *heap)
{
	unsigned char *at = quarry_mapped_alloc(heap, 65536);

	cr_assert_not_null(at);
	return memset(at, PATTERN, 65536);
}

static void is_pattern(const unsigned char *at)
{
	for (size_t i = 0; i < 65536; i++)
		cr_assert_eq(at[i], PATTERN, "byte %zu", i);
}

/* A producer as well, which writes what it is given. */
static void send_in_it(quarry_channel *p, unsigned char *ring, size_t all)
{
	size_t size = next() % 4 == 0 ? next() % 8193 : some_size() % 1000;
	unsigned char *room = quarry_channel_reserve(p, size, 0);

	if (room == NULL)
		return;
	cr_assert(room >= ring + sizeof(struct qy_ring) && room + size <= ring + all, "%td, %zu", room - ring, size);
	memset(room, (int)next(), size);
	if (next() % 8 == 0)
		(void)quarry_channel_cancel(p, room);
	else
		(void)quarry_channel_publish(p, room, 0);
}

Test(channel, a_bent_ring_leads_nobody_out_of_it)
{
	seed("a_bent_ring_leads_nobody_out_of_it");
	for (int round = 0; round < 300; round++) {
		quarry_mapped *heap = heap_new();
		unsigned char *before = pattern_beside(heap), *behind;
		quarry_off off = make(heap, 65536, 1 + (uint32_t)next() % 2);
		quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		unsigned char *ring = quarry_mapped_at(heap, off), sum = 0;
		size_t all = sizeof(struct qy_ring) + 65536, size;
		const unsigned char *got;

		behind = pattern_beside(heap);
		for (int i = 0; i < 50; i++)
			send_in_it(p, ring, all);
		for (int i = 0; i < 40; i++)
			ring[64 + next() % (round % 2 == 0 ? 8192 : 65536)] ^= (unsigned char)next();
		if (round % 3 == 0) /* what the ring is; some of it could be */
			((struct qy_ring *)(void *)ring)->cells = (uint64_t)1 << next() % 30;
		if (round % 5 == 0)
			ring[8 + next() % 56] ^= (unsigned char)next();
		for (int i = 0; i < 100 && (got = quarry_channel_receive(c, &size, 0)) != NULL; i++) {
			cr_assert(got >= ring && got + size <= ring + all);
			for (size_t k = 0; k < size; k++)
				sum ^= got[k];
			if (i % 7 == 0)
				quarry_channel_release(c);
			send_in_it(p, ring, all);
			if ((i % 5 == 0 && !anew(heap, off, &p, QUARRY_CHANNEL_PRODUCER)) ||
			    (i % 11 == 0 && !anew(heap, off, &c, QUARRY_CHANNEL_CONSUMER)))
				break;
		}
		ring[0] ^= sum & 0;
		is_pattern(before);
		is_pattern(behind);
		quarry_channel_close(p);
		quarry_channel_close(c);
		quarry_mapped_close(heap);
	}
}
