/* SPDX-License-Identifier: MIT */
#include "lib/manager/forkcopy.h"

#include <errno.h>
#include <string.h>

#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/budget.h"
#include "lib/manager/late.h"
#include "lib/manager/manager.h"
#include "numa/os.h"
#include "numa/topology.h"

#define WAIT_MS 10000        /* for the child, and */
#define WAIT_MS_PER_GIB 5000 /* for so much more that it has to copy */

/* *in_files: those of them, whatever their pages. (An arena has all of its memory in files, or none.) */
static uint64_t bytes_to_copy(uint64_t *in_files)
{
	uint64_t bytes = 0;

	*in_files = 0;
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		uint64_t files = qy_read(&m->in_files);

		*in_files += files;
		if (files == 0)
			bytes += qy_read(&m->kind_got[QUARRY_PAGES_2M]) + qy_read(&m->kind_got[QUARRY_PAGES_1G]);
	}
	return bytes + *in_files;
}

/* The killer, the machine's or the control group's, would be worse than what this is to prevent: as much again must be
 * left. (Hugetlb memory does not count against the group's limit, its copy does.) */
static bool have_room(uint64_t bytes)
{
	uint64_t room = 0;

	for (int i = 0; i < qy_node_count(); i++)
		if (qy_node_allowed(i))
			room += qy_min(qy_node_room(i), (uint64_t)1 << 50);
	return room >= 2 * bytes && qy_budget_refresh(2 * bytes);
}

void qy_forkcopy_before(struct qy_forkcopy *copy, bool alone)
{
	uint64_t in_files, bytes = bytes_to_copy(&in_files);
	bool left_out = !alone && in_files > 0;

	copy->wanted = copy->files = false;
	if (left_out)
		bytes -= in_files;
	if (bytes > 0 && bytes <= (uint64_t)qy_setting(fork_copy) && have_room(bytes) && qy_os->pair(copy->ends) == 0) {
		copy->wanted = true;
		copy->files = alone && in_files > 0;
		copy->bytes = bytes;
		copy->others = bytes - (copy->files ? in_files : 0);
	}
	if (left_out || (bytes > 0 && !copy->wanted))
		qy_refuse(QUARRY_REFUSED_FORK);
}

void qy_forkcopy_leave_files(struct qy_forkcopy *copy)
{
	if (!copy->files)
		return;
	qy_refuse(QUARRY_REFUSED_FORK);
	copy->files = false;
	copy->bytes = copy->others;
	if (copy->others > 0)
		return;
	copy->wanted = false;
	qy_os->close(copy->ends[0]);
	qy_os->close(copy->ends[1]);
}

/* What the child asks for, since the kernel took it away: len bytes at `from`; len 0 when it is done. */
struct request {
	const void *from;
	uint64_t len;
};

#define PART QY_PAGE /* small stacks fork, too */

/* By parts that are looked at before: what another thread has unmapped by now (an arena that ended, a region that went
 * back) was given up in the parent, and is zeros for the child; a request that stays half answered would be the end of
 * all others. */
static bool answer(int end, const struct request *request, unsigned ms)
{
	const char *from = request->from;
	char part[PART];

	for (const char *to = from + request->len; from < to; from += PART) {
		bool seen = qy_os->copy(part, from, PART) == 0;

		if (!seen && errno == EFAULT) {
			memset(part, 0, PART);
			seen = true;
		}
		if (qy_os->send(end, seen ? part : from, PART, ms) != 0)
			return false;
	}
	return true;
}

void qy_forkcopy_in_parent(struct qy_forkcopy *copy)
{
	unsigned ms = (unsigned)(WAIT_MS + (copy->bytes >> 30) * WAIT_MS_PER_GIB);
	struct request request = { NULL, 1 };

	if (!copy->wanted)
		return;
	qy_os->close(copy->ends[1]);
	while (qy_os->receive(copy->ends[0], &request, sizeof(request), ms) == 0 && request.len != 0)
		if (!answer(copy->ends[0], &request, ms))
			break;
	/* (One that died, or never was since fork failed, lacks nothing.) */
	if (request.len != 0 && errno == ETIMEDOUT)
		qy_refuse(QUARRY_REFUSED_FORK);
	qy_os->close(copy->ends[0]);
}

static bool fetch(void *ctx, void *to, const void *from, size_t len)
{
	const struct qy_forkcopy *copy = ctx;
	struct request request = { from, len };

	qy_refuse(QUARRY_REFUSED_FORK);
	qy_late_note(from, len);
	return qy_os->send(copy->ends[1], &request, sizeof(request), WAIT_MS) == 0 &&
	       qy_os->receive(copy->ends[1], to, len, WAIT_MS) == 0;
}

/* Ordinary memory in the place of a region's. False when the region is lost. */
static bool replace(struct qy_manager *m, struct qy_region *r, struct qy_forkcopy *copy)
{
	uint64_t bytes = (uint64_t)r->frames << QY_FRAME_SHIFT;
	bool file = qy_region_is_file(r);
	uint8_t kind = r->kind;

	if (!(file ? qy_region_unshare(r) : qy_region_copy(r, fetch, copy))) {
		/* What the kernel has taken away of it, or will, cannot be read. */
		if (!file)
			qy_late_note(qy_region_addr(r), bytes);
		return !file;
	}
	qy_lock(&m->lock);
	qy_uncount(&m->kind_got[kind], bytes);
	qy_count(&m->kind_got[r->kind], bytes);
	qy_uncount(&m->in_files, file ? bytes : 0);
	qy_unlock(&m->lock);
	return true;
}

/* Of all of them, files or not. False when one is lost. */
static bool replace_all(struct qy_manager *m, bool files, struct qy_forkcopy *copy)
{
	uint32_t frame = 0;
	bool all = true;

	while (all && (frame = qy_manager_next_region(m, frame)) != 0) {
		struct qy_region *r = qy_region_of_frame(qy_frame_at(frame));

		if (files ? qy_region_is_file(r) : r->kind >= QUARRY_PAGES_2M && !qy_region_is_file(r))
			all = replace(m, r, copy);
		frame += r->frames;
	}
	return all;
}

bool qy_forkcopy_in_child(struct qy_forkcopy *copy)
{
	static const struct request done;
	bool waited, any = false;

	if (copy->wanted)
		qy_os->close(copy->ends[0]);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		bool files = qy_read(&m->in_files) > 0;

		if (files && !(copy->files && replace_all(m, true, copy)))
			m->head->lost = any = true;
		if (copy->wanted && !files)
			(void)replace_all(m, false, copy);
	}
	if (!copy->wanted)
		return any;
	/* Who did not wait for the copy of its files may have written to them meanwhile. */
	waited = qy_os->send(copy->ends[1], &done, sizeof(done), WAIT_MS) == 0;
	if (!waited)
		qy_refuse(QUARRY_REFUSED_FORK);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL && copy->files && !waited; m = qy_manager_next(m))
		if (qy_peek(m->placement)->flags & QUARRY_ARENA_FD)
			m->head->lost = any = true;
	qy_os->close(copy->ends[1]);
	return any;
}

bool qy_forkcopy_show_files(void)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		for (struct qy_region *r = m->regions; r != NULL && qy_read(&m->in_files) > 0; r = r->next)
			if (qy_region_is_file(r) && !qy_region_show(r))
				return false;
	return true;
}
