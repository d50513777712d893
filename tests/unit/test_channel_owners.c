/* SPDX-License-Identifier: MIT */
/* Whose an end of a channel is: what a session's place in the table alone does not tell. */
#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "lib/mapped/channel.h"
#include "numa/os.h"
#include "tests/unit/channels.h"

static struct qy_os table;
static const struct qy_os *was;

static quarry_mapped *heap;
static quarry_off off;
static quarry_channel *p, *c, *other;

static void begin(uint32_t producers)
{
	heap = heap_new();
	off = make(heap, 65536, producers);
}

static void end(void)
{
	quarry_channel_close(p);
	quarry_channel_close(c);
	quarry_mapped_close(heap);
	p = c = NULL;
}

/* ---- forked children ---- */

static pid_t first_one;

/* The parent is gone by then, and its descriptors are closed. */
static int reopen_alone(int fd)
{
	while (getpid() != first_one && getppid() == first_one)
		sched_yield();
	return was->reopen_to_write(fd);
}

/* The parent dies before the child has a session, which is in the same place then. */
Test(channel_owners, a_child_is_not_taken_for_its_parent)
{
	int said[2];
	char answer = 0;
	pid_t pid;

	begin(2);
	cr_assert_eq(pipe(said), 0);
	pid = fork();
	if (pid == 0) {
		uint32_t place = qy_heap(heap)->session;

		table = *(was = qy_os);
		table.reopen_to_write = reopen_alone;
		first_one = getpid();
		qy_os = &table;
		p = quarry_channel_open(heap, off, QUARRY_CHANNEL_PRODUCER);
		if (p == NULL || fork() != 0)
			_exit(0);
		answer = qy_heap(heap)->session != place ? 'o' : quarry_channel_reserve(p, 8, 0) == NULL && errno == ESTALE ? 's' : 'n';
		_exit(write(said[1], &answer, 1) != 1);
	}
	close(said[1]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(read(said[0], &answer, 1), 1);
	cr_assert_eq(answer, 's', "%c", answer);
	close(said[0]);
	end();
}

static int all_is_stale(void *room)
{
	size_t size;
	char got;

	if (quarry_channel_send(p, "x", 1, 0) != -1 || errno != ESTALE || quarry_channel_reserve(p, 1, 0) != NULL || errno != ESTALE)
		return 1;
	errno = 0;
	if (quarry_channel_publish(p, room, 0) != -1 || errno != ESTALE)
		return 2;
	errno = 0;
	if (quarry_channel_cancel(p, room) != -1 || errno != ESTALE)
		return 3;
	if (quarry_channel_receive(c, &size, 0) != NULL || errno != ESTALE ||
	    quarry_channel_read(c, &got, 1, 0) != -1 || errno != ESTALE)
		return 4;
	quarry_channel_release(c);
	quarry_channel_flush(p);
	quarry_channel_close(p);
	quarry_channel_close(c);
	return 0;
}

Test(channel_owners, a_forked_child_has_no_end)
{
	quarry_channel_info info;
	struct qy_ring *ring;
	size_t size;
	void *room;
	int status;
	pid_t pid;

	begin(1);
	ring = quarry_mapped_at(heap, off);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	cr_assert_eq(quarry_channel_send(p, "w", 1, 0), 0);
	cr_assert_not_null(quarry_channel_receive(c, &size, 0)); /* and not released */
	room = quarry_channel_reserve(p, 1, 0);
	ring->consumer_sleeps = 1;
	pid = fork();
	if (pid == 0)
		_exit(all_is_stale(room));
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%#x", status);
	cr_assert_eq(ring->consumer_sleeps, 1);
	cr_assert_eq(quarry_channel_info_get(p, &info, sizeof(info)), 0);
	cr_assert(info.used == 128 && info.producers == 1 && info.consumer == 1);
	cr_assert_eq(quarry_channel_publish(p, room, 0), 0); /* what it did, did nothing to it */
	cr_assert_not_null(quarry_channel_receive(c, &size, 0));
	cr_assert_eq(quarry_channel_send(p, "x", 1, 0), 0);
	end();
}

/* ---- dumps ---- */

static struct {
	char bytes[1 << 20];
	size_t length, at;
} dump;

static int to_dump(void *ctx, const void *bytes, size_t n)
{
	(void)ctx;
	if (n > sizeof(dump.bytes) - dump.length)
		return errno = ENOSPC, -1;
	memcpy(dump.bytes + dump.length, bytes, n);
	dump.length += n;
	return 0;
}

static long from_dump(void *ctx, void *bytes, size_t n)
{
	(void)ctx;
	n = qy_min(n, dump.length - dump.at);
	memcpy(bytes, dump.bytes + dump.at, n);
	dump.at += n;
	return (long)n;
}

/* Sessions of the heap that was dumped are none of the one that is made of it, though they have the same places. */
Test(channel_owners, a_restored_heap_has_channels_without_owners)
{
	quarry_channel_info info;
	size_t size;

	begin(2);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(quarry_channel_send(p, &i, sizeof(i), 0), 0);
	cr_assert_not_null(quarry_channel_reserve(p, 8, 0)); /* never published */
	cr_assert_eq(quarry_mapped_dump(heap, to_dump, NULL), 0, "%s", quarry_error_text());
	end();
	heap = quarry_mapped_restore(NULL, from_dump, NULL);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	c = end_of(heap, off, QUARRY_CHANNEL_CONSUMER);
	for (int i = 0; i < 3; i++)
		cr_assert_not_null(quarry_channel_receive(c, &size, FOREVER), "%s", quarry_error_text());
	cr_assert_null(quarry_channel_receive(c, &size, FOREVER));
	cr_assert_eq(errno, EOWNERDEAD);
	cr_assert_null(quarry_channel_receive(c, &size, FOREVER));
	cr_assert_eq(errno, EPIPE);
	p = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	other = end_of(heap, off, QUARRY_CHANNEL_PRODUCER);
	cr_assert_eq(quarry_channel_send(other, "x", 1, 0), 0);
	cr_assert_not_null(quarry_channel_receive(c, &size, 0));
	cr_assert_eq(quarry_channel_info_get(c, &info, sizeof(info)), 0);
	cr_assert(info.producers == 2 && info.died == 1 && info.skipped == 1);
	quarry_channel_close(other);
	end();
}


/* ---- durable heaps ---- */

static void is_refused(quarry_mapped *h, quarry_off at)
{
	for (int role = QUARRY_CHANNEL_PRODUCER; role <= QUARRY_CHANNEL_CONSUMER; role++) {
		errno = 0;
		cr_assert_null(quarry_channel_open(h, at, role));
		cr_assert_eq(errno, ENOTSUP, "%s", quarry_error_text());
		cr_assert_not_null(strstr(quarry_error_text(), "durable"), "%s", quarry_error_text());
	}
}

/* Checkpoints would tear them. Not even one that came there some other way, as it stood in another heap, is opened; by a reader neither. */
Test(channel_owners, durable_heaps_have_no_channels)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = (uint64_t)64 << 20 };
	const char *dir = getenv("TMPDIR");
	quarry_mapped *durable;
	quarry_off *slot;
	char path[256];
	size_t bytes;
	void *copy;

	begin(2);
	snprintf(path, sizeof(path), "%s/quarry-channel-durable-%d", dir != NULL ? dir : "/tmp", (int)getpid());
	durable = quarry_mapped_create(path, &attr);
	cr_assert_not_null(durable, "%s", quarry_error_text());
	cr_assert_eq(quarry_mapped_root_put(durable, "channel", 0, 0), 0);
	slot = quarry_mapped_root_slot(durable, "channel");
	cr_assert_eq(quarry_channel_make(durable, slot, NULL), 0);
	cr_assert_eq(errno, ENOTSUP, "%s", quarry_error_text());
	cr_assert_eq(*slot, 0);
	bytes = quarry_mapped_usable(heap, quarry_mapped_at(heap, off));
	copy = quarry_mapped_alloc_into(durable, bytes, slot);
	cr_assert_not_null(copy, "%s", quarry_error_text());
	memcpy(copy, quarry_mapped_at(heap, off), bytes);
	is_refused(durable, *slot);
	cr_assert_eq(quarry_mapped_checkpoint(durable, NULL, 0), 0, "%s", quarry_error_text());
	cr_assert_eq(quarry_mapped_close(durable), 0);
	durable = quarry_mapped_open(path);
	cr_assert_not_null(durable, "%s", quarry_error_text());
	is_refused(durable, quarry_mapped_root_get(durable, "channel", NULL));
	quarry_mapped_close(durable);
	durable = quarry_mapped_open_read(path);
	cr_assert_not_null(durable, "%s", quarry_error_text());
	is_refused(durable, quarry_mapped_root_get(durable, "channel", NULL));
	quarry_mapped_close(durable);
	unlink(path);
	end();
}
