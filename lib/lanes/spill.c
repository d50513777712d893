/* SPDX-License-Identifier: MIT */
/* Space in the file of cold extents. (spill.h has what it is.) */
#include "lib/lanes/spill.h"

#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/base/quiet.h"
#include "numa/os.h"

#define EXACT 32          /* units up to which space is of just so many; above, of powers of two */
#define PAUSE_MS 5000     /* after a failure */

/* ---- space ---- */

static unsigned class_of(uint64_t units)
{
	return units <= EXACT ? (unsigned)units : EXACT + qy_log2_floor(units - 1) + 1 - qy_log2_floor(EXACT);
}

static uint64_t units_of(uint32_t size)
{
	uint64_t units = (size + QY_SPILL_UNIT - 1) / QY_SPILL_UNIT;

	return units <= EXACT ? units : (uint64_t)2 << qy_log2_floor(units - 1);
}

/* -1: the file may not grow. */
static int64_t space_take(struct qy_spill *s, uint32_t size)
{
	uint64_t units = units_of(size), bytes = units * QY_SPILL_UNIT;
	unsigned class = class_of(units);

	if (s->free[class].count > 0)
		return (int64_t)s->free[class].at[--s->free[class].count];
	if (s->limit != 0 && s->end + bytes > s->limit)
		return -1;
	s->end += bytes;
	return (int64_t)(s->end - bytes);
}

static void space_give(struct qy_spill *s, uint64_t at, uint32_t size)
{
	unsigned class = class_of(units_of(size));

	if (s->free[class].count == s->free[class].room) {
		uint32_t room = s->free[class].room == 0 ? 64 : s->free[class].room * 2;
		uint64_t *more = quarry_realloc(s->free[class].at, room * sizeof(*more));

		if (more == NULL)
			return; /* the file is larger by so much */
		s->free[class].at = more;
		s->free[class].room = room;
	}
	s->free[class].at[s->free[class].count++] = at;
}

void qy_spill_free(struct qy_spill *s, struct qy_spilled *spilled)
{
	if (spilled->age == s->forks && !s->read_only)
		space_give(s, spilled->at, spilled->size);
	spilled->size = 0;
}

/* ---- bytes ---- */

static int failed(struct qy_spill *s)
{
	atomic_fetch_add(&s->failures, 1);
	atomic_store(&s->again, qy_os->now_ms() + PAUSE_MS);
	return -1;
}

bool qy_spill_ready(struct qy_spill *s)
{
	uint64_t again = atomic_load(&s->again);

	return s->fd >= 0 && !s->read_only && (again == 0 || qy_os->now_ms() >= again);
}

int qy_spill_write(struct qy_spill *s, pthread_mutex_t *lock, struct qy_spilled *to, const void *bytes, uint32_t size)
{
	struct qy_spilled space = { .size = size };
	int64_t at;

	qy_hold(lock);
	at = space_take(s, size);
	space.age = s->forks;
	qy_let_go(lock);
	if (at < 0)
		return failed(s);
	space.at = (uint64_t)at;
	if (qy_os->write_at(s->fd, bytes, size, space.at) != 0) {
		qy_hold(lock);
		qy_spill_free(s, &space);
		qy_let_go(lock);
		return failed(s);
	}
	atomic_store(&s->again, 0);
	*to = space;
	return 0;
}

int qy_spill_read(struct qy_spill *s, const struct qy_spilled *from, void *to, uint32_t offset, uint32_t size)
{
	int result = qy_os->read_at(s->fd, to, size, from->at + offset);

	if (result != 0)
		atomic_fetch_add(&s->failures, 1);
	return result;
}

/* ---- the file ---- */

int qy_spill_open(struct qy_spill *s, const char *directory, uint64_t limit)
{
	memset(s, 0, sizeof(*s));
	s->fd = -1;
	s->limit = limit;
	if (directory == NULL)
		return 0;
	s->fd = qy_os->nameless_file(directory);
	if (s->fd < 0)
		return qy_fail(errno, "directory: no file can be made in \"%s\"", directory);
	return 0;
}

void qy_spill_close(struct qy_spill *s)
{
	if (s->fd >= 0)
		(void)qy_os->close(s->fd);
	for (int i = 0; i < QY_SPILL_CLASSES; i++)
		quarry_free(s->free[i].at);
}

void qy_spill_forked(struct qy_spill *s, bool child)
{
	if (s->fd < 0)
		return;
	s->forks++;
	s->read_only = s->read_only || child;
}

uint64_t qy_spill_failures(struct qy_spill *s)
{
	return atomic_load(&s->failures);
}
