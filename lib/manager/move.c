/* SPDX-License-Identifier: MIT */
#include "lib/manager/move.h"

#include <errno.h>
#include <string.h>

#include "lib/manager/homing.h"
#include "numa/topology.h"

#define STEP_FRAMES 4 /* 8 MiB, about a millisecond of looking */

static bool is_set(const struct qy_placement *placement)
{
	return placement->policy != QUARRY_POLICY_PREFERRED && placement->policy != QUARRY_POLICY_LOCAL;
}

int qy_move_unusable_node(const quarry_nodeset *nodes)
{
	for (int n = 0; n < QUARRY_NODES_MAX; n++) {
		int dense = quarry_nodeset_has(nodes, (unsigned)n) ? qy_node_dense(n) : 0;

		if (quarry_nodeset_has(nodes, (unsigned)n) &&
		    (dense < 0 || !qy_node_allowed(dense) || !qy_node_has_memory(dense)))
			return n;
	}
	return -1;
}

/* The placement that the manager has, on other nodes: for one of a family, on the nearest of them to its own. */
static struct qy_placement placement_on(const struct qy_manager *m, const quarry_nodeset *nodes)
{
	struct qy_placement p = *qy_peek(m->placement);
	int first = qy_node_dense(qy_nodeset_first(nodes)), count = 0;

	p.nodes = *nodes;
	p.any = false;
	if (m->locals != NULL) /* the head of a family, which has no memory */
		return p;
	if (qy_peek(m->head) != m) {
		p.node = qy_node_nearest(nodes, (int)m->local);
		p.node = p.node < 0 ? first : p.node;
		memset(&p.nodes, 0, sizeof(p.nodes));
		quarry_nodeset_add(&p.nodes, (unsigned)qy_node_kernel_id(p.node));
		return p;
	}
	for (int i = 0; i < qy_node_count(); i++)
		count += quarry_nodeset_has(nodes, (unsigned)qy_node_kernel_id(i));
	p.node = count == 1 || !is_set(&p) ? first : -1;
	return p;
}

bool qy_move_begin(struct qy_manager *m, const quarry_nodeset *nodes)
{
	struct qy_placement p = placement_on(m, nodes);

	if (qy_manager_place(m, &p) == NULL)
		return false;
	/* Before those of the family are placed, who come after the head: no more are made for the nodes before. */
	if (m->locals != NULL)
		qy_families_reroute();
	return true;
}

bool qy_move_back(struct qy_manager *m)
{
	const struct qy_placement *before = qy_peek(m->placement)->older;

	if (before != NULL && qy_manager_place(m, before) == NULL)
		return false;
	if (m->locals != NULL)
		qy_families_reroute();
	return true;
}

/* The region that a step goes on in, and the frame it begins at; NULL when there is no other. */
static struct qy_region *region_at(struct qy_manager *m, uint32_t *frame)
{
	struct qy_region *r = NULL;

	if (*frame != 0 && ((uintptr_t)*frame << QY_FRAME_SHIFT) < qy_window_claimed())
		r = qy_region_of_frame(qy_frame_at(*frame));
	if (r != NULL && qy_peek(r->owner) == m && *frame < qy_region_frame(r) + r->frames)
		return r;
	*frame = qy_manager_next_region(m, *frame);
	return *frame == 0 ? NULL : qy_region_of_frame(qy_frame_at(*frame));
}

static int place_anew(struct qy_manager *m, struct qy_region *r, const struct qy_placement *placement)
{
	enum qy_placed placed = qy_region_apply(r, placement);

	if (placed == QY_PLACED_NO)
		return -1;
	qy_lock(&m->lock);
	qy_manager_replace_region(m, r, placement, placed);
	qy_unlock(&m->lock);
	return 0;
}

/* Whether the nodes have room for so much more, and as much again. */
static bool have_room(const struct qy_placement *placement, uint64_t bytes)
{
	uint64_t room = 0;

	for (int i = 0; i < qy_node_count(); i++)
		if (quarry_nodeset_has(&placement->nodes, (unsigned)qy_node_kernel_id(i)) && qy_node_allowed(i))
			room += qy_min(qy_node_room(i), (uint64_t)1 << 50);
	return room >= 2 * bytes;
}

static int bring(const struct qy_region *r, const struct qy_placement *placement, char *addr, size_t len,
		 struct qy_move *move)
{
	struct qy_brought seen = { 0, 0, 0, 0 };

	if (move->only_if_room) {
		if (qy_region_look(r, addr, len, &seen) != 0)
			return -1;
		/* (A hugetlb page needs one of the pool there; the kernel knows.) */
		if (seen.strayed == 0 || (r->kind < QUARRY_PAGES_2M && !have_room(placement, seen.strayed))) {
			move->sum.there += seen.there;
			move->sum.strayed += seen.strayed;
			move->sum.left += seen.strayed;
			return 0;
		}
	}
	return qy_region_bring(r, addr, len, move->evenly, move->attempt, &move->sum);
}

static int skip(struct qy_move *move, const struct qy_region *r)
{
	move->frame = (uint32_t)qy_region_frame(r) + r->frames;
	move->looked += QY_FRAME;
	return 1;
}

int qy_move_step(struct qy_manager *m, struct qy_move *move)
{
	const struct qy_placement *placement = qy_peek(m->placement);
	uint32_t frame = move->frame, end, frames;
	struct qy_region *r = region_at(m, &frame);

	if (r == NULL)
		return 0;
	end = (uint32_t)qy_region_frame(r) + r->frames;
	frames = (uint32_t)qy_min(end - frame, r->kind == QUARRY_PAGES_1G ? QY_ZONE_FRAMES : STEP_FRAMES);
	/* Where the program's own memory policy holds, nothing strays; but an arena that is moved takes all along. */
	if (move->only_if_room && !qy_peek(r->placement)->bind)
		return skip(move, r);
	if (qy_peek(r->placement) != placement && place_anew(m, r, placement) != 0)
		return -1;
	if (!move->only_place && bring(r, placement, qy_window_at((uintptr_t)frame << QY_FRAME_SHIFT),
				       (size_t)frames << QY_FRAME_SHIFT, move) != 0)
		return -1;
	move->frame = frame + frames;
	move->looked += (uint64_t)frames << QY_FRAME_SHIFT;
	return 1;
}

void qy_managers_follow_cpuset(void)
{
	quarry_nodeset allowed;

	if (qy_node_count() == 1 || !qy_nodes_recheck())
		return;
	qy_nodes_allowed(&allowed);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		struct qy_placement p;

		if (!qy_peek(m->placement)->any)
			continue;
		p = placement_on(m, &allowed);
		p.any = true;
		/* Without the memory for it, the old set stands: the kernel keeps to what of it is allowed. */
		(void)qy_manager_place(m, &p);
	}
	qy_homing_restart();
	qy_families_reroute();
	qy_homing_wake();
}
