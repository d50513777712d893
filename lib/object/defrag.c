/* SPDX-License-Identifier: MIT */
/* Defragmentation of what malloc gave, which only the program can move, for it alone knows who has the addresses: it says where those
 * are, and what is to be done with them is done here, for a share of a processor that follows what is to be gained (the
 * curve of lanes' mover). A run that took so long at such a share is followed by a rest. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/object/copy.h"
#include "numa/os.h"

#define BATCH 64  /* that are asked about at once */
#define CLOCK 8   /* objects moved between two looks at the clock */
#define LOOK_US 100000 /* while there is nothing to gain: what has changed since is known by asking now and then */

/* (The program has no other use of it meanwhile; it says so.) */
static void *move(void *p, size_t *size)
{
	void *to;

	*size = quarry_usable_size(p);
	to = quarry_arena_malloc_dense(quarry_arena_of(p), *size);
	if (to == NULL)
		return NULL;
	qy_copy(to, p, *size);
	quarry_free_dense(p);
	return to;
}

QUARRY_API void *quarry_move_dense(void *p)
{
	const void *ptr = p;
	int error = errno;
	size_t size;
	uint8_t go;
	void *to = NULL;

	if (p != NULL && quarry_should_move(&ptr, 1, &go) == 1)
		to = move(p, &size);
	errno = error;
	return to;
}

static uint32_t or_else(uint32_t value, uint32_t standard)
{
	return value == 0 ? standard : value;
}

static bool check(const quarry_defrag *d, void **const refs[], size_t n)
{
	if (d == NULL || (n > 0 && refs == NULL))
		qy_fail(EINVAL, "%s: NULL", d == NULL ? "d" : "refs");
	else if ((d->struct_size != 0 && d->struct_size != sizeof(*d)) || d->flags != 0)
		qy_fail(EINVAL, "struct_size or flags of the quarry_defrag");
	else if (d->least > 100 || d->most > 100 || or_else(d->least, 1) > or_else(d->most, 25))
		qy_fail(EINVAL, "least, most: %u to %u is no share of a processor", d->least, d->most);
	else if (or_else(d->start, 10) >= or_else(d->full, 100))
		qy_fail(EINVAL, "full: not more than start");
	else
		return true;
	return false;
}

/* What there is to gain, and the share by it. */
static int weigh(quarry_defrag *d)
{
	quarry_move_gain g;
	uint64_t rest, ignore, waste;

	if (quarry_move_gain_get(d->arena, &g) != 0)
		return -1;
	d->gain = g.gain;
	d->in_use = g.in_use;
	rest = g.in_use > g.gain ? g.in_use - g.gain : 1;
	ignore = d->ignore != 0 ? d->ignore : g.in_use / 16;
	waste = (uint64_t)((double)g.gain * 100 / (double)rest);
	d->share = g.gain < ignore || waste < or_else(d->start, 10) ?
			   0 :
			   qy_share_for(waste, or_else(d->start, 10), or_else(d->full, 100), or_else(d->least, 1),
					or_else(d->most, 25));
	return 0;
}

/* How many of the batch are moved; done: how many were looked at, before it was late. */
static size_t run_batch(quarry_defrag *d, void **const refs[], size_t n, uint64_t deadline, size_t *done)
{
	const void *ptrs[BATCH] = { NULL };
	uint8_t go[BATCH];
	size_t moved = 0;

	for (size_t i = 0; i < n; i++)
		ptrs[i] = refs[i] == NULL ? NULL : *refs[i];
	(void)quarry_should_move(ptrs, n, go);
	for (*done = 0; *done < n; (*done)++) {
		size_t size;
		void *to;

		if (!go[*done])
			continue;
		if (moved % CLOCK == CLOCK - 1 && deadline != 0 && qy_os->now_ns() >= deadline)
			break;
		to = move(*refs[*done], &size);
		if (to == NULL)
			continue;
		*refs[*done] = to;
		moved++;
		d->moved_bytes += size;
	}
	return moved;
}

/* After a run of so long: when the next is due. */
static void rest(quarry_defrag *d, uint64_t now, uint64_t ran)
{
	uint64_t wait = d->share == 0 ? LOOK_US * UINT64_C(1000) : ran * (100 - d->share) / d->share;

	d->not_before = now + wait;
	d->wait_us = (wait + 999) / 1000;
	d->ran_ns += ran;
}

QUARRY_API long quarry_defrag_run(quarry_defrag *d, void **const refs[], size_t n, uint64_t budget_us)
{
	uint64_t begun = qy_os->now_ns(), deadline = 0, now;
	int error = errno;
	size_t moved = 0;

	if (!check(d, refs, n))
		return -1;
	d->done = 0;
	if (begun < d->not_before) {
		d->wait_us = (d->not_before - begun + 999) / 1000;
		return qy_fail(EAGAIN, "not before %lu us", (unsigned long)d->wait_us);
	}
	if (weigh(d) != 0)
		return -1;
	if (budget_us != 0)
		deadline = begun + qy_min(budget_us, UINT32_MAX) * 1000;
	/* With nothing to gain, one batch is asked about, for by that it is known whether there is. */
	do {
		size_t done, batch = qy_min(n - d->done, BATCH);

		moved += run_batch(d, refs + d->done, batch, deadline, &done);
		d->done += done;
		if (done < batch)
			break;
	} while (d->done < n && d->share != 0 && (deadline == 0 || qy_os->now_ns() < deadline));
	d->looked += d->done;
	d->moved += moved;
	now = qy_os->now_ns();
	if (d->share == 0)
		(void)weigh(d);
	rest(d, now, now - begun);
	errno = error;
	return (long)moved;
}
