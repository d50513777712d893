/* SPDX-License-Identifier: MIT */
/* Moments for tests of channels: at the n-th point that a call passes (lib/mapped/mapped.h, QY_POINT) something happens. Time is the test's own, and
 * so is sleeping: in a test with one thread a sleep that nobody has ended before it began is a wake-up that was missed. */
#ifndef QUARRY_TESTS_UNIT_CHANNEL_MOMENTS_H
#define QUARRY_TESTS_UNIT_CHANNEL_MOMENTS_H

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/mapped/channel.h"
#include "numa/os.h"
#include "tests/unit/channels.h"

enum { MANY = 10000 };

static long left; /* points until it happens */
static void (*happens)(void);

void qy_mapped_point(const struct qy_mapped_place *place)
{
	(void)place;
	if (left > 0 && --left == 0)
		happens();
}

static inline void die(void)
{
	raise(SIGKILL);
}

/* ---- time ---- */

static struct qy_os table;
static const struct qy_os *was;
static uint64_t now, each_reading, woken_after; /* ns; 0: not before its time is over */
static unsigned long sleeps, missed;            /* those after it happened */
static void (*in_sleep)(void);                  /* happens in the next one, or NULL; who is not woken by it misses it */

static inline uint64_t our_time(void)
{
	return now += each_reading;
}

static inline int our_sleep(uint32_t *word, uint32_t value, uint64_t ms)
{
	if (*word != value) {
		errno = EAGAIN;
		return -1;
	}
	sleeps++;
	if (in_sleep != NULL) {
		void (*what)(void) = in_sleep;

		in_sleep = NULL;
		what();
		missed += *word == value;
		return 0;
	}
	missed += left == 0;
	now += woken_after != 0 ? woken_after : ms * 1000000;
	errno = woken_after != 0 ? EINTR : ETIMEDOUT;
	return -1;
}

static inline void set_time(void)
{
	table = *(was = qy_os);
	now = qy_os->now_ns();
	table.now_ns = our_time;
	table.sleep_shared = our_sleep;
	qy_os = &table;
}

/* ---- helpers ---- */

static quarry_mapped *heap;
static quarry_off off;
static quarry_channel *p, *c;

static inline void begin(uint32_t producers)
{
	heap = heap_new();
	off = make(heap, 65536, producers);
	p = c = NULL;
}

static inline void end(void)
{
	quarry_channel_close(p);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
	p = c = NULL;
}

static inline void send_number(quarry_channel *to, uint64_t n)
{
	cr_assert_eq(quarry_channel_send(to, &n, sizeof(n), 0), 0, "%s", quarry_error_text());
}

/* To the last cell, and nobody has looked for room. */
static inline void fill_up(quarry_channel *to)
{
	for (uint64_t i = 0; i < 1024; i++)
		send_number(to, i);
}

static inline void open_consumer_and_die(quarry_mapped *h, quarry_off at)
{
	if (quarry_channel_open(h, at, QUARRY_CHANNEL_CONSUMER) == NULL)
		_exit(98);
	die();
}

static inline void open_producer_and_die(quarry_mapped *h, quarry_off at)
{
	if (quarry_channel_open(h, at, QUARRY_CHANNEL_PRODUCER) == NULL)
		_exit(98);
	die();
}

static inline int in_child(void (*work)(quarry_mapped *h, quarry_off at))
{
	pid_t pid = child(heap, work, off);
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "%#x", status);
	return status;
}

static inline int receive(int64_t timeout_ms)
{
	size_t size;
	const void *m = quarry_channel_receive(c, &size, timeout_ms);

	return m != NULL ? 0 : errno;
}

static inline int reserve(quarry_channel *to, int64_t timeout_ms)
{
	return quarry_channel_reserve(to, 8, timeout_ms) != NULL ? 0 : errno;
}

/* What receiving tells until nothing new is to be told: how many messages, and deaths. */
static inline int tell_all(int64_t timeout_ms, unsigned *messages, unsigned *deaths)
{
	int rc;

	*messages = *deaths = 0;
	while ((rc = receive(timeout_ms)) == 0 || rc == EOWNERDEAD) {
		*messages += rc == 0;
		*deaths += rc == EOWNERDEAD;
	}
	return rc;
}

static inline void send_one_and_die(quarry_mapped *h, quarry_off at)
{
	quarry_channel *to = quarry_channel_open(h, at, QUARRY_CHANNEL_PRODUCER);

	if (to == NULL || quarry_channel_send(to, "x", 1, 0) != 0)
		_exit(97);
	die();
}

#endif
