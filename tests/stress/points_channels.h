/* SPDX-License-Identifier: MIT */
/* Channels for mapped_points.c: what is done with them where somebody dies, and what who follows must find. */
#ifndef QUARRY_TESTS_STRESS_POINTS_CHANNELS_H
#define QUARRY_TESTS_STRESS_POINTS_CHANNELS_H

#include "lib/mapped/channel.h"
#include "tests/stress/stress.h"

enum { CHANNELS = 2, RING_AT = 50, FULL = 1024 };

/* How far who dies has come, in each channel; shared with those who look afterwards. Messages are numbered from 1. What is begun and not done may
 * have happened, or not. */
static struct progress {
	uint64_t publishing, published, releasing, released;
	uint64_t opening, opened, closing, closed, telling, told; /* its producer's end; deaths that it was told of */
} *progress; /* and how it is where the operation begins, behind them */

static void progress_reset(void)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		progress[i] = progress[CHANNELS];
}

static quarry_off *ring_slot(quarry_mapped *h, unsigned i)
{
	return (quarry_off *)quarry_mapped_user(h, NULL) + RING_AT + i;
}

static quarry_channel *end_of(quarry_mapped *h, unsigned i, int role)
{
	quarry_channel *end;

	if (role == QUARRY_CHANNEL_PRODUCER)
		progress[i].opening = 1;
	end = quarry_channel_open(h, *ring_slot(h, i), role);
	if (end == NULL)
		st_fail("channel %u: %s", i, quarry_error_text());
	if (role == QUARRY_CHANNEL_PRODUCER)
		progress[i].opened = 1;
	return end;
}

static int no_message(quarry_channel *from_it, int64_t timeout_ms)
{
	size_t size;

	ST_CHECK(quarry_channel_receive(from_it, &size, timeout_ms) == NULL);
	return errno;
}

/* Of so many bytes, more than what is left at the ring's end. */
static uint64_t *room_for(quarry_channel *to, size_t size)
{
	uint64_t *room = quarry_channel_reserve(to, size, 0);

	if (room == NULL)
		st_fail("%s", quarry_error_text());
	return room;
}

static void send_next(quarry_channel *to, unsigned i, size_t size, unsigned flags)
{
	uint64_t *room = room_for(to, size);

	*room = progress[i].published + 1;
	progress[i].publishing++;
	ST_CHECK(quarry_channel_publish(to, room, flags) == 0);
	progress[i].published++;
}

static void give_back(quarry_channel *from_it, unsigned i, uint64_t last)
{
	progress[i].releasing = last;
	quarry_channel_release(from_it);
	progress[i].released = last;
}

/* One to the ring's end nearly, so that messages have to go round it. */
static void make_channels(quarry_mapped *h)
{
	quarry_channel_attr one = { sizeof(one), 65536, 1 }, several = { sizeof(several), 65536, 4 };

	ST_CHECK(quarry_channel_make(h, ring_slot(h, 0), &one) != 0 && quarry_channel_make(h, ring_slot(h, 1), &several) != 0);
	progress[CHANNELS] = (struct progress){ .published = 0 };
	for (unsigned i = 0; i < CHANNELS; i++) {
		quarry_channel *to = end_of(h, i, QUARRY_CHANNEL_PRODUCER), *from_it = end_of(h, i, QUARRY_CHANNEL_CONSUMER);
		size_t size;

		for (unsigned k = 0; k < FULL - 10; k++)
			ST_CHECK(quarry_channel_send(to, "message", 8, 0) == 0 && quarry_channel_receive(from_it, &size, 0) != NULL);
		quarry_channel_release(from_it);
		quarry_channel_close(from_it);
		quarry_channel_close(to);
	}
}

/* Full ones, with both ends of a process that dies; the second is as a dump of another heap has it. */
static void make_dead_channels(quarry_mapped *h)
{
	quarry_channel_attr several = { sizeof(several), 65536, 4 };

	for (unsigned i = 0; i < CHANNELS; i++) {
		quarry_off off = quarry_channel_make(h, ring_slot(h, i), &several);
		quarry_channel *to = off != 0 ? quarry_channel_open(h, off, QUARRY_CHANNEL_PRODUCER) : NULL;

		ST_CHECK(to != NULL && quarry_channel_open(h, off, QUARRY_CHANNEL_CONSUMER) != NULL);
		for (uint64_t k = 1; k <= FULL; k++)
			ST_CHECK(quarry_channel_send(to, &k, sizeof(k), 0) == 0);
		if (i == 1)
			((struct qy_ring *)quarry_mapped_at(h, off))->heap ^= 1;
	}
	progress[CHANNELS] = (struct progress){ .publishing = FULL, .published = FULL };
}

/* Those who had the ends before are found dead, and followed. */
static void messages_to_the_dead(quarry_mapped *h)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		quarry_channel *to = end_of(h, i, QUARRY_CHANNEL_PRODUCER), *from_it;
		size_t size;

		ST_CHECK(quarry_channel_send(to, "message", 8, -1) == -1 && errno == EPIPE);
		from_it = end_of(h, i, QUARRY_CHANNEL_CONSUMER);
		for (unsigned k = 0; k < FULL; k++)
			ST_CHECK(quarry_channel_receive(from_it, &size, 0) != NULL);
		give_back(from_it, i, FULL);
		progress[i].telling = 1;
		ST_CHECK(no_message(from_it, -1) == EOWNERDEAD && no_message(from_it, 0) == EAGAIN);
		progress[i].told = 1;
		progress[i].closing = 1;
		quarry_channel_close(to);
		progress[i].closed = 1;
		ST_CHECK(no_message(from_it, -1) == EPIPE);
		quarry_channel_close(from_it);
	}
}

static void receive_next(quarry_channel *from_it, uint64_t number)
{
	size_t size;
	const uint64_t *m = quarry_channel_receive(from_it, &size, 0);

	ST_CHECK(m != NULL && size >= sizeof(*m) && *m == number);
}

/* There and received, of one producer and of one among several. */
static void messages(quarry_mapped *h)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		quarry_channel *to = end_of(h, i, QUARRY_CHANNEL_PRODUCER), *from_it = end_of(h, i, QUARRY_CHANNEL_CONSUMER);
		quarry_channel_info info;

		send_next(to, i, 8, 0);
		receive_next(from_it, 1);
		give_back(from_it, i, 1);
		send_next(to, i, 2000, QUARRY_CHANNEL_MORE); /* round the ring's end */
		ST_CHECK(quarry_channel_cancel(to, room_for(to, 500)) == 0);
		send_next(to, i, 300, 0);
		receive_next(from_it, 2);
		receive_next(from_it, 3);
		ST_CHECK(quarry_channel_info_get(to, &info, sizeof(info)) == 0 && info.used != 0);
		give_back(from_it, i, 3);
		ST_CHECK(no_message(from_it, 1) == ETIMEDOUT);
		send_next(to, i, 8, 0); /* which nobody receives */
		ST_CHECK(room_for(to, 8) != NULL); /* never published */
		progress[i].closing = 1;
		quarry_channel_close(to);
		progress[i].closed = 1;
		receive_next(from_it, 4);
		ST_CHECK(no_message(from_it, 1) == EPIPE);
		quarry_channel_close(from_it);
	}
}

/* What of the death is told to who follows: a producer's end that was open, and what was begun and not done. dead: those of before. */
static void deaths_like(const struct progress *was, unsigned deaths, unsigned dead)
{
	unsigned least = dead - (was->telling != 0 && dead != 0), most = dead - (was->told != 0 && dead != 0);

	least += was->opened != 0 && was->closing == 0;
	most += was->opening != 0 && was->closed == 0;
	ST_CHECK(deaths >= least && deaths <= most);
}

/* Who follows receives, once, what was published and not given back; nothing that was given back. And it can be worked with. */
static void look_at_channels(quarry_mapped *h, const struct progress *left_by, unsigned dead)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		const struct progress *was = &left_by[i];
		quarry_channel *from_it = end_of(h, i, QUARRY_CHANNEL_CONSUMER), *to = end_of(h, i, QUARRY_CHANNEL_PRODUCER);
		uint64_t first = 0, last = 0;
		unsigned deaths = 0;
		quarry_channel_info info;
		const uint64_t *m;
		size_t size;

		while ((m = quarry_channel_receive(from_it, &size, 0)) != NULL || errno == EOWNERDEAD || errno == ENOBUFS) {
			deaths += m == NULL && errno == EOWNERDEAD;
			if (m == NULL && errno == ENOBUFS)
				quarry_channel_release(from_it);
			if (m == NULL)
				continue;
			if (first == 0)
				first = *m;
			else if (*m != last + 1)
				st_fail("channel %u: message %llu comes behind %llu", i, (unsigned long long)*m, (unsigned long long)last);
			last = *m;
		}
		ST_CHECK(errno == EAGAIN);
		if (first == 0 ? was->published > was->releasing
			       : (first != was->released + 1 && first != was->releasing + 1) || (last != was->published && last != was->publishing))
			st_fail("channel %u: %llu to %llu are there; published were %llu (%llu begun), given back %llu (%llu)", i,
				(unsigned long long)first, (unsigned long long)last, (unsigned long long)was->published,
				(unsigned long long)was->publishing, (unsigned long long)was->released, (unsigned long long)was->releasing);
		deaths_like(was, deaths, dead);
		quarry_channel_release(from_it);
		for (uint64_t k = 1; k <= 2 * FULL; k++) { /* in every cell */
			size_t bytes = k % 100 == 0 ? 1000 : 8;
			uint64_t *room = room_for(to, bytes);

			*room = k;
			ST_CHECK(quarry_channel_publish(to, room, 0) == 0);
			receive_next(from_it, k);
			if (k % 50 == 0)
				quarry_channel_release(from_it);
		}
		quarry_channel_release(from_it);
		ST_CHECK(quarry_channel_info_get(to, &info, sizeof(info)) == 0 && info.used == 0 && info.producers == 1);
		quarry_channel_close(to);
		ST_CHECK(no_message(from_it, -1) == EPIPE);
		quarry_channel_close(from_it);
	}
}

static void channels_of_one(quarry_mapped *h)
{
	struct progress left_by[CHANNELS];

	memcpy(left_by, progress, sizeof(left_by));
	look_at_channels(h, left_by, 0);
	memcpy(progress, left_by, sizeof(left_by));
}

static void channels_of_the_dead(quarry_mapped *h)
{
	struct progress left_by[CHANNELS];

	memcpy(left_by, progress, sizeof(left_by));
	look_at_channels(h, left_by, 1);
	memcpy(progress, left_by, sizeof(left_by));
}

#endif
