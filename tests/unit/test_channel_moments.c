/* SPDX-License-Identifier: MIT */
/* Channels at chosen moments: at each point that a call passes, one after the other (lib/mapped/mapped.h, QY_POINT), something happens that
 * another process could do there, or the caller dies. */
#include "tests/unit/channel_moments.h"

/* ---- a consumer that has died ---- */

static void a_consumer_opens(void)
{
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
}

/* A producer finds the consumer dead, and meanwhile another one comes: nobody takes that one for gone. */
Test(channel_moments, who_follows_a_dead_consumer_is_there)
{
	long n;

	set_time();
	for (n = 1; n < MANY; n++) {
		int rc;

		begin(1);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		fill_up(p);
		(void)in_child(open_consumer_and_die);
		left = n;
		happens = a_consumer_opens;
		rc = reserve(p, 1000);
		left = 0;
		if (c == NULL) {
			cr_assert_eq(rc, EPIPE);
			break;
		}
		cr_assert_eq(rc, ETIMEDOUT, "at %ld: %s", n, strerror(rc));
		cr_assert_eq(reserve(p, 0), EAGAIN, "at %ld", n);
		cr_assert_eq(receive(0), 0);
		quarry_channel_release(c);
		cr_assert_eq(reserve(p, 0), 0);
		end();
	}
	cr_assert(n > 1 && n < MANY);
	end();
}

static long dies_at;

static void look_for_room_and_die(quarry_mapped *h, quarry_off at)
{
	quarry_channel *to = quarry_channel_open(h, at, QUARRY_CHANNEL_PRODUCER);

	left = dies_at;
	happens = die;
	if (to == NULL || reserve(to, FOREVER) != EPIPE)
		_exit(97);
}

/* The one who finds it dead dies in that: it is told to the others all the same. */
Test(channel_moments, a_death_is_told_though_who_found_it_dies)
{
	int status = 0;

	set_time();
	for (dies_at = 1; dies_at < MANY; dies_at++) {
		begin(2);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		fill_up(p);
		(void)in_child(open_consumer_and_die);
		status = in_child(look_for_room_and_die);
		cr_assert_eq(reserve(p, FOREVER), EPIPE, "at %ld", dies_at);
		end();
		if (!WIFSIGNALED(status))
			break;
	}
	cr_assert(dies_at > 1 && dies_at < MANY);
}

static int found;

static void a_producer_looks(void)
{
	found = reserve(p, 1000);
}

/* The other way round: a producer finds it dead while its follower opens the end. */
Test(channel_moments, a_follower_is_not_refused_by_a_death)
{
	long n;

	set_time();
	for (n = 1; n < MANY; n++) {
		begin(1);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		fill_up(p);
		(void)in_child(open_consumer_and_die);
		left = n;
		happens = a_producer_looks;
		found = 0;
		c = quarry_channel_open(heap, off, QUARRY_CHANNEL_CONSUMER);
		cr_assert_not_null(c, "at %ld: %s", n, quarry_error_text());
		left = 0;
		if (found == 0)
			break;
		cr_assert_eq(reserve(p, 0), EAGAIN, "at %ld", n);
		end();
	}
	cr_assert(n > 1 && n < MANY);
	end();
}

/* ---- producers that have died ---- */

Test(channel_moments, each_death_is_told_once)
{
	unsigned messages, deaths;

	set_time();
	/* Its follower has the only place. */
	begin(1);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	(void)in_child(send_one_and_die);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	cr_assert_eq(tell_all(0, &messages, &deaths), EAGAIN);
	cr_assert(messages == 1 && deaths == 1, "%u messages, %u deaths", messages, deaths);
	end();
	/* Two at once. */
	begin(3);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	(void)in_child(send_one_and_die);
	(void)in_child(open_producer_and_die);
	cr_assert_eq(tell_all(FOREVER, &messages, &deaths), EPIPE);
	cr_assert(messages == 1 && deaths == 2, "%u messages, %u deaths", messages, deaths);
	end();
}

static void a_message_comes(void)
{
	send_number(p, 1);
}

/* It is not forgotten for a message that comes just then. */
Test(channel_moments, a_death_is_told_beside_messages)
{
	unsigned messages = 1, deaths;
	long n;

	set_time();
	for (n = 1; n < MANY; n++) {
		begin(3);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		(void)in_child(open_producer_and_die);
		left = n;
		happens = a_message_comes;
		cr_assert_eq(tell_all(200, &messages, &deaths), ETIMEDOUT);
		cr_assert_eq(deaths, 1, "at %ld", n);
		if (left != 0)
			break;
		cr_assert_eq(messages, 1, "at %ld", n);
		end();
	}
	left = 0;
	cr_assert(n > 1 && n < MANY);
	end();
}

static void open_producer_and_die_there(quarry_mapped *h, quarry_off at)
{
	left = dies_at;
	happens = die;
	if (quarry_channel_open(h, at, QUARRY_CHANNEL_PRODUCER) == NULL)
		_exit(97);
}

/* Who takes a dead one's place dies in that, anywhere: as many are told as had a place. */
Test(channel_moments, a_death_is_told_though_its_follower_dies)
{
	quarry_channel_info info;
	unsigned messages, deaths, with_two = 0;
	int status = 0;

	set_time();
	for (dies_at = 1; dies_at < MANY; dies_at++) {
		begin(1);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		(void)in_child(send_one_and_die);
		status = in_child(open_producer_and_die_there);
		cr_assert_eq(tell_all(FOREVER, &messages, &deaths), EPIPE);
		cr_assert_eq(messages, 1);
		cr_assert(deaths == 1 || deaths == 2, "at %ld: %u deaths", dies_at, deaths);
		with_two += deaths == 2;
		cr_assert_eq(quarry_channel_info_get(c, &info, sizeof(info)), 0);
		cr_assert_eq(info.died, deaths, "at %ld", dies_at);
		cr_assert_eq(info.producers, 0);
		end();
		if (!WIFSIGNALED(status))
			break;
	}
	cr_assert(dies_at > 1 && dies_at < MANY && with_two > 0 && with_two < dies_at);
}

/* ---- all producers are gone, or not ---- */

static quarry_channel *other;

static void one_comes_and_one_goes(void)
{
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	quarry_channel_close(other);
}

/* There is one at each moment, though in each place there is none when it is looked at. */
Test(channel_moments, one_producer_follows_another)
{
	long n;

	for (n = 1; n < MANY; n++) {
		quarry_channel *first;

		begin(3);
		first = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		other = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		quarry_channel_close(first);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		left = n;
		happens = one_comes_and_one_goes;
		cr_assert_eq(receive(0), EAGAIN, "at %ld: %s", n, quarry_error_text());
		if (left != 0)
			break;
		end();
	}
	left = 0;
	cr_assert(n > 1 && n < MANY);
	quarry_channel_close(other);
	end();
}

/* ---- who closes an end wakes the other ---- */

static void the_producer_closes(void)
{
	quarry_channel_close(p);
	p = NULL;
}

static void the_consumer_closes(void)
{
	quarry_channel_close(c);
	c = NULL;
}

static void the_consumer_gives_one_back(void)
{
	cr_assert_eq(quarry_channel_receive(c, &(size_t){ 0 }, 0) == NULL, false);
	quarry_channel_release(c);
	while (receive(0) == 0) /* and goes to wait */
		quarry_channel_release(c);
}

/* busy: what it waits for is reserved, and not published. */
static void close_at_each_point(bool consumer, bool busy, void (*what)(void), int expected)
{
	long n;

	for (n = 1; n < MANY; n++) {
		unsigned long before;
		int rc;

		begin(1);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		if (!consumer)
			fill_up(p);
		else if (busy)
			cr_assert_eq(reserve(p, 0), 0);
		sleeps = missed = 0;
		left = n;
		happens = what;
		rc = consumer ? receive(FOREVER) : reserve(p, FOREVER);
		before = sleeps - missed;
		cr_assert_eq(missed, 0, "at %ld", n);
		cr_assert_eq(rc, expected, "at %ld: %s", n, quarry_error_text());
		left = 0;
		end();
		if (before > 2)
			break;
	}
	cr_assert(n > 1 && n < MANY);
}

Test(channel_moments, nobody_sleeps_when_the_other_end_is_closed)
{
	set_time();
	close_at_each_point(true, false, the_producer_closes, EPIPE);
	close_at_each_point(true, true, the_producer_closes, EPIPE);
	close_at_each_point(false, false, the_consumer_closes, EPIPE);
	close_at_each_point(false, false, the_consumer_gives_one_back, 0);
}

/* ---- looking in time ---- */

/* Signals that are handled, each 10 milliseconds, and a program that never waits. */
static void deaths_are_seen(int64_t timeout_ms, unsigned tries)
{
	unsigned i;
	int rc = EAGAIN;

	begin(2);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	(void)receive(0);
	(void)in_child(open_producer_and_die);
	for (i = 0; i < tries && rc == EAGAIN; i++)
		rc = receive(timeout_ms);
	cr_assert_eq(rc, EOWNERDEAD, "%s", strerror(rc));
	end();
	begin(2);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	(void)receive(0);
	(void)in_child(open_producer_and_die);
	for (i = 0, rc = EAGAIN; i < tries && (rc == EAGAIN || rc == EOWNERDEAD); i++)
		rc = receive(timeout_ms);
	cr_assert_eq(rc, EPIPE, "%s", strerror(rc));
	end();
	begin(2);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	fill_up(p);
	(void)reserve(p, 0);
	(void)in_child(open_consumer_and_die);
	for (i = 0, rc = EAGAIN; i < tries && rc == EAGAIN; i++)
		rc = reserve(p, timeout_ms);
	cr_assert_eq(rc, EPIPE, "%s", strerror(rc));
	end();
}

Test(channel_moments, signals_do_not_keep_deaths_back)
{
	set_time();
	woken_after = 10000000;
	deaths_are_seen(FOREVER, 3);
}

Test(channel_moments, who_never_waits_is_told_of_deaths)
{
	set_time();
	each_reading = 1000000;
	deaths_are_seen(0, 200);
}

/* ---- what stands in the heap changes while it is read ---- */

static void the_ring_changes(void)
{
	struct qy_ring *ring = quarry_mapped_at(heap, off);

	ring->cells = 1 << 24;
	ring->producers = 100000;
}

Test(channel_moments, a_ring_that_changes_while_it_is_opened)
{
	bool over = false;
	long n;

	for (n = 1; n < MANY && !over; n++) {
		begin(2);
		left = n;
		happens = the_ring_changes;
		p = quarry_channel_open(heap, off, QUARRY_CHANNEL_PRODUCER);
		cr_assert(p == NULL || (p->count == 1024 && p->mask == 1023 && p->producers == 2), "at %ld", n);
		over = left != 0;
		left = 0;
		end();
	}
	cr_assert(n > 2 && n < MANY);
}

static uint64_t *record, right;

static void the_record_changes(void)
{
	*record = right;
}

static int count_it(void *ctx, void *at, size_t usable)
{
	(void)at, (void)usable;
	++*(unsigned *)ctx;
	return 0;
}

/* A class that there is not, and there is when the record is looked at once more. */
Test(channel_moments, a_record_that_changes_while_it_is_walked)
{
	struct heap *h;
	unsigned objects;
	long n;

	begin(1);
	h = qy_heap(heap);
	record = &qy_unit_at(h, (uint64_t)((char *)quarry_mapped_alloc(heap, 100) - h->segs) >> QY_MAPPED_UNIT_SHIFT)->state;
	right = *record;
	for (n = 1; n < MANY; n++) {
		*record = (right & ~(uint64_t)0xff00) | 63 << 8;
		objects = 0;
		left = n;
		happens = the_record_changes;
		cr_assert_eq(quarry_mapped_walk(heap, count_it, &objects), 0);
		*record = right;
		if (left != 0)
			break;
		cr_assert_eq(objects, 2);
	}
	left = 0;
	cr_assert(n > 1 && n < MANY);
	end();
}
