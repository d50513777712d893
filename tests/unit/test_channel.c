/* SPDX-License-Identifier: MIT */
/* Channels in heaps (quarry/channel.h): beside a model of what was sent, at all their limits, with one end of them gone. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/mapped/channel.h"
#include "numa/os.h"
#include "tests/unit/channels.h"

static void fill(unsigned char *to, uint64_t number, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (unsigned char)((number * 0x9e3779b97f4a7c15u + i * 31) >> 24);
}

static void is_message(const unsigned char *at, uint64_t number, size_t size)
{
	for (size_t i = 0; i < size; i++)
		cr_assert_eq(at[i], (unsigned char)((number * 0x9e3779b97f4a7c15u + i * 31) >> 24), "message %llu, byte %zu",
			     (unsigned long long)number, i);
}

/* ---- a model ---- */

#define MODEL 4096

struct sent {
	uint64_t number;
	size_t size;
	void *room; /* reserved, and not published; NULL */
	int who;
	bool cancelled;
};

/* What was sent, in the order of reserving; received from `first`, and not given back from `held`. */
static struct sent model[MODEL];
static uint64_t first, last;

static void try_reserve(quarry_channel *p, int who)
{
	size_t size = some_size();
	void *room = last - first < MODEL ? quarry_channel_reserve(p, size, 0) : NULL;

	if (room == NULL) {
		cr_assert(last - first == MODEL || errno == EAGAIN, "%s", quarry_error_text());
		return;
	}
	cr_assert_eq((uintptr_t)room % 8, 0);
	model[last % MODEL] = (struct sent){ .number = last, .size = size, .room = room, .who = who };
	fill(room, last, size);
	last++;
}

/* One that is reserved, published or cancelled. */
static void try_publish(quarry_channel **p)
{
	for (uint64_t i = first; i < last; i++) {
		struct sent *s = &model[i % MODEL];

		if (s->room == NULL || next() % 3 == 0)
			continue;
		s->cancelled = next() % 8 == 0;
		if (s->cancelled)
			cr_assert_eq(quarry_channel_cancel(p[s->who], s->room), 0);
		else
			cr_assert_eq(quarry_channel_publish(p[s->who], s->room, next() % 2 == 0 ? QUARRY_CHANNEL_MORE : 0), 0);
		s->room = NULL;
		return;
	}
}

static void try_receive(quarry_channel *c, const unsigned char **at, uint64_t *numbers, unsigned *held)
{
	size_t size = 12345;
	const void *got;

	while (first < last && model[first % MODEL].cancelled && model[first % MODEL].room == NULL)
		first++;
	got = quarry_channel_receive(c, &size, 0);
	if (first == last || model[first % MODEL].room != NULL) {
		cr_assert_null(got);
		cr_assert(errno == EAGAIN || (errno == ENOBUFS && *held > 0));
		return;
	}
	cr_assert_not_null(got, "%s", quarry_error_text());
	cr_assert_eq(size, model[first % MODEL].size);
	is_message(got, model[first % MODEL].number, size);
	at[*held] = got;
	numbers[(*held)++] = first++;
}

/* Three producers, or one, and a consumer that holds some, in any order of steps. */
static void run_model(int producers)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, (uint32_t)producers);
	quarry_channel *p[3], *c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	const unsigned char *at[20];
	uint64_t numbers[20];
	unsigned held = 0;
	quarry_channel_info info;

	first = last = 0;
	for (int i = 0; i < producers; i++)
		p[i] = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	for (int i = 0; i < 60000; i++) {
		int who = (int)(next() % (uint64_t)producers);

		switch (next() % 4) {
		case 0: try_reserve(p[who], who); break;
		case 1: case 2: try_publish(p); break;
		default:
			if (held == 20 || next() % 9 == 0) {
				for (unsigned k = 0; k < held; k++) /* they were nobody else's meanwhile */
					is_message(at[k], numbers[k], model[numbers[k] % MODEL].number == numbers[k] ? model[numbers[k] % MODEL].size : 0);
				quarry_channel_release(c);
				held = 0;
			}
			try_receive(c, at, numbers, &held);
		}
	}
	cr_assert_gt(last, 3000);
	cr_assert_eq(quarry_channel_info_get(c, &info, sizeof(info)), 0);
	cr_assert_eq(info.producers, (uint32_t)producers);
	cr_assert_eq(info.died + info.skipped, 0);
	for (int i = 0; i < producers; i++)
		quarry_channel_close(p[i]);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

Test(channel, model_of_one_producer)
{
	seed("model_of_one_producer");
	run_model(1);
}

Test(channel, model_of_several)
{
	seed("model_of_several");
	run_model(3);
}

/* ---- what is refused ---- */

Test(channel, what_cannot_be_is_refused)
{
	quarry_mapped *heap = heap_new();
	quarry_off *slot = quarry_mapped_root_slot(heap, "channel"), off;
	quarry_channel_attr attr = { .struct_size = sizeof(attr), .bytes = 65535 };
	quarry_channel *p, *c;
	size_t size;
	char *room;

	cr_assert_eq(quarry_channel_make(heap, slot, &attr), 0);
	cr_assert_eq(errno, EINVAL);
	attr.bytes = 65536;
	attr.producers = 256;
	cr_assert_eq(quarry_channel_make(heap, slot, &attr), 0);
	cr_assert_eq(errno, EINVAL);
	off = make(heap, 65536, 1);
	cr_assert_eq(*slot, off);
	cr_assert_eq(quarry_channel_make(heap, slot, NULL), 0);
	cr_assert_eq(errno, EEXIST);
	cr_assert_null(quarry_channel_open(heap, off, 2));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(quarry_channel_open(heap, off + 64, QUARRY_CHANNEL_CONSUMER));
	cr_assert_eq(errno, EMEDIUMTYPE);
	cr_assert_null(quarry_channel_open(heap, 0, QUARRY_CHANNEL_CONSUMER));
	cr_assert_eq(errno, EMEDIUMTYPE);
	((struct qy_ring *)quarry_mapped_at(heap, off))->cells = 65536; /* more than there is */
	cr_assert_null(quarry_channel_open(heap, off, QUARRY_CHANNEL_CONSUMER));
	cr_assert_eq(errno, EMEDIUMTYPE);
	((struct qy_ring *)quarry_mapped_at(heap, off))->cells = 1024;
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	cr_assert_null(quarry_channel_open(heap, off, QUARRY_CHANNEL_PRODUCER));
	cr_assert_eq(errno, EUSERS);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	cr_assert_null(quarry_channel_open(heap, off, QUARRY_CHANNEL_CONSUMER));
	cr_assert_eq(errno, EUSERS);
	cr_assert_null(quarry_channel_reserve(p, 8193, 0));
	cr_assert_eq(errno, EMSGSIZE);
	cr_assert_null(quarry_channel_reserve(c, 1, 0));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(quarry_channel_receive(p, &size, 0));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(quarry_channel_receive(c, &size, 0));
	cr_assert_eq(errno, EAGAIN);
	cr_assert_null(quarry_channel_receive(c, &size, 1));
	cr_assert_eq(errno, ETIMEDOUT);
	room = quarry_channel_reserve(p, 100, 0);
	cr_assert_not_null(room);
	cr_assert_eq(quarry_channel_publish(p, room + 8, 0), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_channel_publish(p, &size, 0), -1);
	cr_assert_eq(quarry_channel_publish(c, room, 0), -1);
	cr_assert_eq(quarry_channel_publish(p, room, 0), 0);
	cr_assert_eq(quarry_channel_publish(p, room, 0), -1);
	cr_assert_not_null(quarry_channel_receive(c, &size, 0));
	cr_assert_eq(size, 100);
	quarry_channel_release(c);
	quarry_channel_close(p);
	quarry_channel_close(c);
	quarry_channel_close(NULL);
	cr_assert_eq(quarry_mapped_free_from(heap, slot), 0);
	quarry_mapped_close(heap);
}

/* All that was received and not given back stays; when that is all, there is an error and no waiting. */
Test(channel, all_of_the_ring)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, 2);
	quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	const uint64_t *at[1024];
	size_t size;

	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 1024; i++)
			cr_assert_eq(quarry_channel_send(p, &i, sizeof(i), 0), 0);
		cr_assert_eq(quarry_channel_send(p, &round, sizeof(round), 0), -1);
		cr_assert_eq(errno, EAGAIN);
		cr_assert_eq(quarry_channel_send(p, &round, sizeof(round), 1), -1);
		cr_assert_eq(errno, ETIMEDOUT);
		for (uint64_t i = 0; i < 1024; i++)
			at[i] = quarry_channel_receive(c, &size, 0);
		for (uint64_t i = 0; i < 1024; i++)
			cr_assert_eq(*at[i], i);
		cr_assert_null(quarry_channel_receive(c, &size, -1));
		cr_assert_eq(errno, ENOBUFS);
		quarry_channel_release(c);
	}
	quarry_channel_close(p);
	cr_assert_null(quarry_channel_receive(c, &size, -1));
	cr_assert_eq(errno, EPIPE);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

/* Where the largest message has no room for what is held, nothing that comes would end a wait: that is told, and so are producers'. */
Test(channel, what_is_held_keeps_nobody_waiting)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, 2);
	quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	unsigned refused = 0, waits = 0;
	size_t size;

	seed("what_is_held_keeps_nobody_waiting");
	for (int round = 0; round < 2000; round++) {
		static char message[8192];
		uint64_t most = next() % 10000;
		bool held = false;
		int error;
		void *room;

		while (most-- > 0 && next() % 40 != 0 && quarry_channel_send(p, message, some_size(), 0) == 0) {
			cr_assert_not_null(quarry_channel_receive(c, &size, 0), "%s", quarry_error_text());
			held = true;
		}
		cr_assert_null(quarry_channel_receive(c, &size, 0));
		error = errno;
		room = quarry_channel_reserve(p, 8192, 0);
		cr_assert_eq(error, held && room == NULL ? ENOBUFS : EAGAIN, "round %d: %s", round, strerror(error));
		if (error == ENOBUFS) { /* and not waited for */
			cr_assert_null(quarry_channel_receive(c, &size, FOREVER));
			cr_assert_eq(errno, ENOBUFS, "%s", quarry_error_text());
		}
		refused += error == ENOBUFS;
		waits += held && error == EAGAIN;
		quarry_channel_release(c);
		if (room != NULL)
			cr_assert_eq(quarry_channel_cancel(p, room), 0);
		cr_assert_eq(quarry_channel_send(p, message, 8192, 0), 0, "%s", quarry_error_text());
		cr_assert_not_null(quarry_channel_receive(c, &size, 0));
		quarry_channel_release(c);
	}
	cr_assert(refused > 100 && waits > 100, "%u, %u", refused, waits);
	quarry_channel_close(p);
	cr_assert_null(quarry_channel_receive(c, &size, FOREVER));
	cr_assert_eq(errno, EPIPE);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

Test(channel, a_closed_end_is_told)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, 2);
	quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c;
	uint64_t value = 7, got = 0;
	quarry_channel_info info;
	int sent = 0;

	while (quarry_channel_send(p, &value, sizeof(value), 0) == 0)
		sent++;
	cr_assert_eq(errno, EAGAIN); /* nobody was there: it may come */
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	quarry_channel_close(c);
	cr_assert_eq(quarry_channel_send(p, &value, sizeof(value), -1), -1);
	cr_assert_eq(errno, EPIPE);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	cr_assert_not_null(quarry_channel_reserve(p, 100, 0) == NULL ? "" : NULL);
	cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), 0), (int64_t)sizeof(got));
	cr_assert_not_null(quarry_channel_reserve(p, 20, 0)); /* and this one is never published */
	quarry_channel_close(p);
	while (quarry_channel_read(c, &got, sizeof(got), -1) == (int64_t)sizeof(got))
		sent--;
	cr_assert_eq(errno, EPIPE);
	cr_assert_eq(sent, 1);
	cr_assert_eq(quarry_channel_info_get(c, &info, sizeof(info)), 0);
	cr_assert_eq(info.skipped, 1);
	cr_assert_eq(info.used, 0);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

/* ---- processes ---- */

static void send_five_and_die(quarry_mapped *heap, quarry_off off)
{
	quarry_channel *p = quarry_channel_open(heap, off, QUARRY_CHANNEL_PRODUCER);

	for (uint64_t i = 0; i < 5; i++)
		(void)quarry_channel_send(p, &i, sizeof(i), 0);
	(void)quarry_channel_reserve(p, 3000, 0);
	(void)quarry_channel_reserve(p, 10, 0);
	kill(getpid(), SIGKILL);
}

Test(channel, a_dead_producer_is_told_and_passed_over)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, 3);
	quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	quarry_channel_info info;
	uint64_t got, value = 77;
	pid_t pid = child(heap, send_five_and_die, off);

	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(quarry_channel_send(p, &value, sizeof(value), 0), 0);
	for (uint64_t i = 0; i < 5; i++) {
		cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), FOREVER), 8);
		cr_assert_eq(got, i);
	}
	cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), FOREVER), 8);
	cr_assert_eq(got, 77);
	cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), FOREVER), -1);
	cr_assert_eq(errno, EOWNERDEAD, "%s", quarry_error_text());
	cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), 0), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(quarry_channel_info_get(c, &info, sizeof(info)), 0);
	cr_assert_eq(info.died, 1);
	cr_assert_eq(info.skipped, 2);
	cr_assert_eq(info.producers, 1);
	quarry_channel_close(p);
	cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), FOREVER), -1);
	cr_assert_eq(errno, EPIPE);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

static void receive_some_and_die(quarry_mapped *heap, quarry_off off)
{
	quarry_channel *c = quarry_channel_open(heap, off, QUARRY_CHANNEL_CONSUMER);
	uint64_t got;
	size_t size;

	for (int i = 0; i < 10; i++)
		(void)quarry_channel_read(c, &got, sizeof(got), FOREVER);
	for (int i = 0; i < 10; i++)
		(void)quarry_channel_receive(c, &size, FOREVER);
	kill(getpid(), SIGKILL);
}

Test(channel, a_dead_consumer_is_told_and_followed)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, 1);
	quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c;
	uint64_t n = 0, got;
	pid_t pid = child(heap, receive_some_and_die, off);

	while (quarry_channel_send(p, &n, sizeof(n), FOREVER) == 0)
		n++;
	cr_assert_eq(errno, EPIPE, "%s", quarry_error_text());
	cr_assert_eq(n, 1024 + 10);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	for (uint64_t i = 10; i < n; i++) {
		cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), FOREVER), 8);
		cr_assert_eq(got, i);
	}
	cr_assert_eq(quarry_channel_send(p, &n, sizeof(n), FOREVER), 0);
	quarry_channel_close(p);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

/* As it is when its consumer died in quarry_channel_release, with half of the words written. */
Test(channel, a_release_that_was_cut_off_is_finished)
{
	quarry_mapped *heap = heap_new();
	quarry_off off = make(heap, 65536, 1);
	quarry_channel *p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER), *c;
	struct qy_ring *ring = quarry_mapped_at(heap, off);
	char *cells = (char *)(ring + 1);
	uint64_t got;

	for (uint64_t i = 0; i < 1024; i++)
		cr_assert_eq(quarry_channel_send(p, &i, sizeof(i), 0), 0);
	ring->releasing = 10;
	for (uint64_t i = 0; i < 5; i++)
		*(uint64_t *)(void *)(cells + i * QY_CHANNEL_CELL) = qy_channel_free_word(ring->key, i + 1024);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	for (uint64_t i = 1024; i < 1034; i++)
		cr_assert_eq(quarry_channel_send(p, &i, sizeof(i), 0), 0);
	for (uint64_t i = 10; i < 1034; i++) {
		cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), 0), 8, "%s", quarry_error_text());
		cr_assert_eq(got, i);
	}
	quarry_channel_close(p);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
}

/* ---- who sleeps is woken ---- */

struct pair {
	quarry_mapped *heap;
	quarry_off to, from;
	int rounds;
};

static void *echo(void *ctx)
{
	struct pair *pair = ctx;
	quarry_channel *c = quarry_channel_open(pair->heap, pair->to, QUARRY_CHANNEL_CONSUMER);
	quarry_channel *p = quarry_channel_open(pair->heap, pair->from, QUARRY_CHANNEL_PRODUCER);
	uint64_t got;

	while (quarry_channel_read(c, &got, sizeof(got), -1) > 0)
		if (quarry_channel_send(p, &got, sizeof(got), -1) != 0)
			break;
	quarry_channel_close(c);
	quarry_channel_close(p);
	return NULL;
}

static struct qy_os table;
static const struct qy_os *was;
static unsigned long slept, missed;

/* Who has slept to its time's end, and there was something all the same: it was not woken. */
static int sleep_and_count(uint32_t *word, uint32_t value, uint64_t ms)
{
	const struct qy_ring *ring = (const void *)((const char *)word - offsetof(struct qy_ring, consumer_sleeps));
	int rc = was->sleep_shared(word, value, ms);

	__atomic_add_fetch(&slept, 1, __ATOMIC_RELAXED);
	if (rc != 0 && errno == ETIMEDOUT && qy_peek(ring->tail) != qy_peek(ring->head)) {
		__atomic_add_fetch(&missed, 1, __ATOMIC_RELAXED);
		errno = ETIMEDOUT;
	}
	return rc;
}

/* Consumers alone sleep: no ring is ever full. A few of 20,000 rounds may be sent just when the time is over. */
Test(channel, there_and_back, .timeout = 120)
{
	quarry_mapped *heap = heap_new();
	struct pair pair = { .heap = heap, .rounds = 20000 };
	quarry_channel *p, *c;
	pthread_t thread;
	uint64_t got;

	cr_assert_eq(quarry_mapped_root_put(heap, "other", 0, 0), 0);
	table = *(was = qy_os);
	table.sleep_shared = sleep_and_count;
	qy_os = &table;
	pair.to = make(heap, 65536, 1);
	pair.from = quarry_channel_make(heap, quarry_mapped_root_slot(heap, "other"), NULL);
	p = end_of(heap, pair.to, QUARRY_CHANNEL_PRODUCER);
	cr_assert_eq(pthread_create(&thread, NULL, echo, &pair), 0);
	c = end_of(heap, pair.from, QUARRY_CHANNEL_CONSUMER);
	for (uint64_t i = 0; i < (uint64_t)pair.rounds; i++) {
		cr_assert_eq(quarry_channel_send(p, &i, sizeof(i), -1), 0);
		cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), -1), 8);
		cr_assert_eq(got, i);
	}
	quarry_channel_close(p);
	cr_assert_eq(quarry_channel_read(c, &got, sizeof(got), -1), -1);
	cr_assert_eq(errno, EPIPE);
	pthread_join(thread, NULL);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
	qy_os = was;
	printf("there_and_back: %lu sleeps, %lu wake-ups missed\n", slept, missed);
	cr_assert_leq(missed, 5);
}
