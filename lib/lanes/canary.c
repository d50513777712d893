/* SPDX-License-Identifier: MIT */
/* Canaries behind objects, set and looked at. (canary.h) */
#include "lib/lanes/canary.h"

#include <errno.h>
#include <string.h>

#include "include/quarry/track.h"
#include "lib/api/error.h"
#include "lib/lanes/events.h"

#define FILLED 0xf5
#define FACTOR UINT64_C(0x9e3779b97f4a7c15)  /* odd: each product has one size */
#define INVERSE UINT64_C(0xf1de83e19937733d) /* modulo 2^64 */
#define ADDED UINT64_C(0xc0a21f5e7d3b9846)   /* so that zeros are none */

void qy_canary_set(void *p, size_t room, size_t size)
{
	uint64_t canary = size * FACTOR + ADDED;

	memset((char *)p + size, FILLED, room - QY_CANARY - size);
	memcpy((char *)p + room - QY_CANARY, &canary, QY_CANARY);
}

/* (Who writes beyond an object does so at any time: it is looked at as it may be.) */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread")))
#endif
size_t qy_canary_size(const void *p, size_t room)
{
	const volatile unsigned char *end = (const unsigned char *)p + room - QY_CANARY, *at;
	uint64_t canary = 0, size;

	for (size_t i = 0; i < QY_CANARY; i++)
		((unsigned char *)&canary)[i] = end[i];
	size = (canary - ADDED) * INVERSE;
	if (size == 0 || size > room - QY_CANARY)
		return 0;
	for (at = (const unsigned char *)p + size; at < end; at++)
		if (*at != FILLED)
			return 0;
	return size;
}

bool qy_canary_move(void *p, size_t had, size_t room)
{
	size_t size = qy_canary_size(p, had);

	if (size != 0 && room != had)
		qy_canary_set(p, room, size);
	return size != 0;
}

void qy_canary_tell(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	uint32_t marks = atomic_load(&qy_entry_at(qy_word_address(word), word)->marks);
	quarry_lanes_event more = { .count = 1, .handle = qy_handle_make(l, slot, word, marks) };

	if (qy_lanes_heard(l))
		qy_lanes_tell(l, QY_TELL_CORRUPT, &more);
}

bool qy_canary_check(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	if (qy_canary_is_whole(l, word))
		return true;
	qy_canary_tell(l, slot, word);
	return false;
}

size_t qy_bytes_of(const quarry_lanes *l, uint64_t word)
{
	size_t room = qy_size_of(word), size = l->canaries ? qy_canary_size(qy_word_address(word), room) : room;

	return size != 0 ? size : room - QY_CANARY; /* (what it had is overwritten) */
}

bool qy_canary_is_back(const quarry_lanes *l, const void *p, size_t room)
{
	if (QY_LIKELY(!l->canaries) || qy_canary_size(p, room) != 0)
		return true;
	errno = EIO;
	return false;
}

/* ---- all of them ---- */

struct found {
	quarry_lanes *l;
	quarry_handle *h;
	size_t room;
	int64_t count;
};

static int look(void *arg, const quarry_object *o)
{
	struct found *f = arg;

	if (o->state != QUARRY_HANDLE_CORRUPT)
		return 0;
	if ((uint64_t)f->count < f->room)
		f->h[f->count] = o->handle;
	f->count++;
	return 0;
}

int64_t quarry_lanes_check(quarry_lanes *l, quarry_handle *h, size_t room)
{
	struct found f = { .l = l, .h = h, .room = room };

	if (!qy_lanes_check(l))
		return -1;
	if (!l->canaries)
		return qy_fail(ENOTSUP, "these lanes have no canaries: see QUARRY_LANES_CANARIES");
	if (h == NULL && room > 0)
		return qy_fail(EINVAL, "handles: NULL, for %lu", (unsigned long)room);
	return quarry_lanes_walk(l, 0, look, &f) < 0 ? -1 : f.count;
}
