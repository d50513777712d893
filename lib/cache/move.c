/* SPDX-License-Identifier: MIT */
#include "lib/cache/move.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "lib/base/refused.h"
#include "lib/manager/homing.h"
#include "lib/manager/manager.h"
#include "lib/manager/move.h"
#include "numa/os.h"

#define ROUNDS 4

int qy_arena_unusable_node(const quarry_nodeset *nodes)
{
	return qy_move_unusable_node(nodes);
}

/* The next manager of the arena after one; an arena of the local policy has one for each node. */
static struct qy_manager *next_member(const struct qy_manager *head, const struct qy_manager *m)
{
	do
		m = qy_manager_next(m);
	while (m != NULL && qy_peek(m->head) != head);
	return (struct qy_manager *)m;
}

/* A piece of one manager. The arena may end between two of them: then EINVAL. */
static int step(quarry_arena *arena, struct qy_manager *head, struct qy_manager *m, struct qy_move *move)
{
	struct qy_brought before = move->sum;
	int more = -1;

	qy_purge_hold();
	if (qy_manager_of_arena(arena) == head) {
		more = qy_move_step(m, move);
		/* As it goes, for those who watch. */
		qy_count_shared(&m->moved, move->sum.moved - before.moved);
	}
	qy_purge_release();
	return more;
}

static int one_round(quarry_arena *arena, struct qy_manager *head, const struct qy_move *how, struct qy_brought *sum)
{
	struct qy_manager *m;

	memset(sum, 0, sizeof(*sum));
	for (m = next_member(head, NULL); m != NULL; m = next_member(head, m)) {
		struct qy_move move = *how;
		int more;

		do
			more = step(arena, head, m, &move);
		while (more > 0);
		if (more < 0)
			return -1;
		sum->there += move.sum.there;
		sum->moved += move.sum.moved;
		sum->left += move.sum.left;
		if (!how->only_place)
			atomic_store_explicit(&m->strayed, move.sum.left, memory_order_relaxed);
	}
	return 0;
}

static int all_rounds(quarry_arena *arena, struct qy_manager *head, quarry_move_report *done)
{
	struct qy_brought sum;

	for (done->rounds = 0; done->rounds < ROUNDS;) {
		struct qy_move how = { .attempt = done->rounds, .evenly = true };

		if (one_round(arena, head, &how, &sum) != 0)
			return -1;
		if (done->rounds++ == 0)
			done->there = sum.there;
		done->moved += sum.moved;
		done->left = sum.left;
		if (sum.left == 0)
			return 0;
	}
	qy_refuse(QUARRY_REFUSED_MOVE);
	errno = EAGAIN;
	return -1;
}

/* Ask for memory of other nodes from now on, or again of those before. */
static bool place(quarry_arena *arena, struct qy_manager *head, const quarry_nodeset *nodes, bool back)
{
	struct qy_manager *m, *failed = NULL;
	int error = EINVAL;

	qy_purge_hold();
	if (qy_manager_of_arena(arena) != head) {
		qy_purge_release();
		errno = error;
		return false;
	}
	for (m = next_member(head, NULL); m != NULL && failed == NULL; m = next_member(head, m))
		if (!(back ? qy_move_back(m) : qy_move_begin(m, nodes)))
			failed = m;
	error = errno;
	/* No memory for one of a family: none of it goes. */
	for (m = next_member(head, NULL); failed != NULL && m != failed && !back; m = next_member(head, m))
		(void)qy_move_back(m);
	qy_purge_release();
	errno = error;
	return failed == NULL;
}

/* While an arena moves, the reclaimer leaves it to its mover. */
static void mark(quarry_arena *arena, struct qy_manager *head, bool moving)
{
	int error = errno;

	qy_purge_hold();
	if (qy_manager_of_arena(arena) == head)
		for (struct qy_manager *m = next_member(head, NULL); m != NULL; m = next_member(head, m))
			m->homing.moving += moving ? 1 : m->homing.moving > 0 ? (unsigned)-1 : 0;
	qy_purge_release();
	if (!moving)
		qy_homing_wake();
	errno = error;
}

static void undo(quarry_arena *arena, struct qy_manager *head)
{
	static const struct qy_move how = { .only_place = true };
	struct qy_brought nothing;
	int error = errno;

	if (place(arena, head, NULL, true))
		one_round(arena, head, &how, &nothing);
	errno = error;
}

int qy_arena_move(quarry_arena *arena, const quarry_nodeset *nodes, quarry_move_report *report)
{
	quarry_move_report done = { .struct_size = sizeof(done) };
	struct qy_manager *head = qy_manager_of_arena(arena);
	uint64_t start = qy_os->now_ns();
	int r = -1;

	if (head == NULL)
		return -1;
	mark(arena, head, true);
	if (nodes == NULL || place(arena, head, nodes, false)) {
		r = all_rounds(arena, head, &done);
		/* The policy is not to be had. */
		if (r != 0 && errno != EAGAIN && nodes != NULL)
			undo(arena, head);
	}
	mark(arena, head, false);
	done.ns = qy_os->now_ns() - start;
	if (report != NULL) {
		done.struct_size = report->struct_size;
		memset(report, 0, report->struct_size);
		memcpy(report, &done, sizeof(done));
	}
	return r;
}
