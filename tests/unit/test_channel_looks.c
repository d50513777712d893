/* SPDX-License-Identifier: MIT */
/* Channels: deaths are told at least once, though who was told dies, and though the ring is never empty; looking for them keeps nobody longer than he
 * wants to wait; who follows a dead consumer wakes producers. */
#include "tests/unit/channel_moments.h"

/* ---- told at least once ---- */

enum { NOT, AGAIN, RELEASED, CLOSED, WAYS };

static int comes_back_by;

/* Dies with the death just told, or after it has come back to the library, where that may be: at a point. */
static void be_told_and_die(quarry_mapped *h, quarry_off at)
{
	c = quarry_channel_open(h, at, QUARRY_CHANNEL_CONSUMER);
	if (c == NULL || receive(FOREVER) != 0 || receive(FOREVER) != EOWNERDEAD)
		_exit(97);
	if (comes_back_by == AGAIN && receive(0) != EAGAIN)
		_exit(96);
	if (comes_back_by == RELEASED)
		quarry_channel_release(c);
	if (comes_back_by == CLOSED)
		quarry_channel_close(c);
	die();
}

/* Not even the message that it had received before is lost. Who knows of it is not told again. */
Test(channel_looks, a_death_is_told_though_who_was_told_dies)
{
	unsigned messages, deaths;

	set_time();
	for (comes_back_by = NOT; comes_back_by < WAYS; comes_back_by++) {
		begin(2);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		(void)in_child(send_one_and_die);
		(void)in_child(be_told_and_die);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		cr_assert_eq(tell_all(0, &messages, &deaths), EAGAIN);
		cr_assert_eq(deaths, comes_back_by == NOT, "way %d: %u", comes_back_by, deaths);
		cr_assert_eq(messages, comes_back_by != RELEASED, "way %d: %u", comes_back_by, messages);
		end();
	}
}

static long dies_at;
static int *was_told; /* shared */

static void be_told_and_die_there(quarry_mapped *h, quarry_off at)
{
	left = dies_at;
	happens = die;
	c = quarry_channel_open(h, at, QUARRY_CHANNEL_CONSUMER);
	if (c == NULL || receive(FOREVER) != 0 || receive(FOREVER) != EOWNERDEAD)
		_exit(97);
	*was_told = 1;
	if (receive(0) != EAGAIN)
		_exit(96);
	*was_told = 2;
	quarry_channel_close(c);
}

Test(channel_looks, a_death_is_told_by_one_who_lives)
{
	unsigned messages, deaths, sums[3] = { 0 };
	int status = 0;

	set_time();
	was_told = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(was_told, MAP_FAILED);
	for (dies_at = 1; dies_at < MANY; dies_at++) {
		*was_told = 0;
		begin(2);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		(void)in_child(send_one_and_die);
		status = in_child(be_told_and_die_there);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		cr_assert_eq(tell_all(0, &messages, &deaths), EAGAIN);
		cr_assert(*was_told == 1 ? deaths <= 1 : deaths == (*was_told == 0), "at %ld: told %d, and %u times", dies_at, *was_told, deaths);
		sums[*was_told]++;
		end();
		if (!WIFSIGNALED(status))
			break;
	}
	cr_assert(dies_at < MANY && sums[0] > 0 && sums[1] > 0 && sums[2] > 1, "%u, %u, %u", sums[0], sums[1], sums[2]);
}

/* ---- a ring that is never empty ---- */

enum { DEAD = 1000000 };

static bool reserves; /* who dies, so that the consumer has to see to it that it is dead */

static void send_five_and_die(quarry_mapped *h, quarry_off at)
{
	quarry_channel *to = quarry_channel_open(h, at, QUARRY_CHANNEL_PRODUCER);

	for (uint64_t i = DEAD; i < DEAD + 5; i++)
		if (to == NULL || quarry_channel_send(to, &i, sizeof(i), 0) != 0)
			_exit(97);
	if (reserves && quarry_channel_reserve(to, 3000, 0) == NULL) /* never published */
		_exit(97);
	die();
}

/* From the first message to the last the ring has some; how many were received before so many deaths were told. */
static void never_empty(unsigned backlog, unsigned dying, unsigned most)
{
	unsigned deaths = 0, of_dead = 0, n;
	uint64_t number = 0, expected = 0;
	size_t size;

	begin(1 + dying);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	for (unsigned i = 0; i < backlog; i++)
		send_number(p, number++);
	for (unsigned i = 0; i < dying; i++)
		(void)in_child(send_five_and_die);
	for (n = 0; n < most && deaths < dying; n++) {
		const uint64_t *m;

		send_number(p, number++);
		m = quarry_channel_receive(c, &size, 0);
		if (m == NULL) {
			cr_assert_eq(errno, EOWNERDEAD, "%s", quarry_error_text());
			cr_assert_eq(of_dead, 5 * dying, "%u of the dead ones' messages were received when a death was told", of_dead);
			deaths++;
			continue;
		}
		of_dead += *m >= DEAD;
		if (*m < DEAD)
			cr_assert_eq(*m, expected++);
		quarry_channel_release(c);
	}
	cr_assert_eq(deaths, dying, "%u of %u deaths in %u messages", deaths, dying, n);
	for (n = 0; n < most; n++) { /* and each is told once */
		send_number(p, number++);
		cr_assert_not_null(quarry_channel_receive(c, &size, 0), "%s", quarry_error_text());
		quarry_channel_release(c);
	}
	end();
}

Test(channel_looks, deaths_are_told_though_the_ring_is_never_empty)
{
	set_time();
	each_reading = 1000000;
	never_empty(10, 1, 6000); /* a look is due each 50 readings of the clock */
	each_reading = 60000000;
	for (int i = 0; i < 2; i++) {
		reserves = i == 1;
		never_empty(10, 1, 500);
		never_empty(300, 1, 1000);
		never_empty(300, 3, 1000);
	}
}

/* ---- the heap's lock is somebody else's ---- */

static int said[2];

static void hold_the_lock(quarry_mapped *h, quarry_off at)
{
	(void)at;
	if (qy_mapped_enter(qy_heap(h)) != 0 || write(said[1], "", 1) != 1)
		_exit(97);
	for (;;)
		pause();
}

/* Who holds it is stopped, say: deaths cannot be told, but nobody waits for that longer than he wants. When that one is dead they are. */
Test(channel_looks, a_lock_that_is_held_holds_nobody_up, .timeout = 20)
{
	unsigned messages, deaths;
	char byte;
	pid_t pid;

	set_time();
	begin(2);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	(void)in_child(send_one_and_die);
	cr_assert_eq(pipe(said), 0);
	pid = child(heap, hold_the_lock, off);
	cr_assert_eq(read(said[0], &byte, 1), 1);
	cr_assert_eq(tell_all(0, &messages, &deaths), EAGAIN);
	cr_assert(messages == 1 && deaths == 0);
	now += 50000000;
	cr_assert_eq(receive(0), EAGAIN, "%s", quarry_error_text());
	sleeps = 0;
	cr_assert_eq(receive(1000), ETIMEDOUT, "%s", quarry_error_text());
	cr_assert(sleeps >= 20, "%lu", sleeps); /* it looks each 50 ms, and does not spin */
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(receive(100), EOWNERDEAD, "%s", quarry_error_text());
	cr_assert_eq(receive(0), EAGAIN);
	close(said[0]);
	close(said[1]);
	end();
}

/* ---- a follower's room ---- */

static void a_consumer_opens(void)
{
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
}

/* It gives back what the dead one had begun to, or moves on from where that one told nobody: who waits for the room is woken. */
Test(channel_looks, room_of_the_dead_wakes_producers)
{
	set_time();
	begin(1);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	fill_up(p);
	((struct qy_ring *)quarry_mapped_at(heap, off))->releasing = 10; /* and nobody was found dead: it may be waited for */
	missed = 0;
	in_sleep = a_consumer_opens;
	cr_assert_eq(reserve(p, 1000), 0, "%s", quarry_error_text());
	cr_assert(c != NULL && missed == 0);
	end();
}

/* ---- figures ---- */

static void all_goes_on(void)
{
	for (unsigned i = 0; i < 1024; i++) {
		while (receive(0) == 0)
			quarry_channel_release(c);
		send_number(p, i);
	}
	while (receive(0) == 0)
		quarry_channel_release(c);
	fill_up(p);
}

/* What changes while they are read cannot make them more than there is. */
Test(channel_looks, no_more_is_used_than_there_is)
{
	quarry_channel_info info;
	long n;

	set_time();
	for (n = 1; n < MANY; n++) {
		begin(1);
		p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
		c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
		fill_up(p);
		left = n;
		happens = all_goes_on;
		cr_assert_eq(quarry_channel_info_get(c, &info, sizeof(info)), 0);
		cr_assert_leq(info.used, info.bytes, "at %ld", n);
		if (left != 0)
			break;
		end();
	}
	left = 0;
	cr_assert(n > 1 && n < MANY);
	end();
}
