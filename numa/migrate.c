/* SPDX-License-Identifier: MIT */
#include "numa/migrate.h"

#include <errno.h>

#include "lib/base/refused.h"
#include "numa/os.h"
#include "numa/policy.h"
#include "numa/topology.h"

#define LOOK 128                            /* pages in a look: on the stack, of a thread of 16 KiB perhaps */
#define BATCH (QY_FRAME >> QY_PAGE_SHIFT) /* pages in a move: all of a huge page, which goes as a whole */
#define MOVE_FLAG 2 /* MPOL_MF_MOVE: pages that are this process's alone */

struct batch {
	void **pages;
	int *nodes, *wanted;
	size_t n, room;
};

/* The nodes that a placement wants: its set, of which `preferred` is the first, and how many of them there are. */
struct targets {
	const quarry_nodeset *set;
	int n, first;
	size_t unit; /* bytes that go to one node when they are interleaved: never less than a huge page that may be
	              * there */
};

size_t qy_kind_grain(int kind)
{
	return kind == QUARRY_PAGES_1G ? QY_ZONE : kind == QUARRY_PAGES_2M ? QY_FRAME : qy_os_page_size();
}

static struct targets targets_of(const struct qy_placement *placement, size_t unit)
{
	struct targets targets = { .set = &placement->nodes, .first = qy_nodeset_first(&placement->nodes), .unit = unit };

	if (placement->policy == QUARRY_POLICY_PREFERRED)
		targets.n = 1;
	else
		for (int word = 0; word < QUARRY_NODES_MAX / 64; word++)
			targets.n += __builtin_popcountll(placement->nodes.bits[word]);
	return targets;
}

static bool is_target(const struct targets *targets, int node)
{
	return targets->n == 1 ? node == targets->first : node >= 0 && quarry_nodeset_has(targets->set, (unsigned)node);
}

/* The index-th node of the set. */
static int nth_target(const struct targets *targets, uintptr_t index)
{
	index %= (unsigned)(targets->n > 0 ? targets->n : 1);
	for (int word = 0; word < QUARRY_NODES_MAX / 64; word++) {
		uint64_t bits = targets->set->bits[word];

		for (; bits != 0; bits &= bits - 1)
			if (index-- == 0)
				return word * 64 + __builtin_ctzll(bits);
	}
	return targets->first;
}

/* Into nodes: the kernel's id, or negative for what is not in memory (never touched, or the shared zero page). */
static int ask(struct batch *batch)
{
	if (qy_os->move_pages(batch->n, batch->pages, NULL, batch->nodes, 0) == 0)
		return 0;
	qy_refuse(QUARRY_REFUSED_MOVE_PAGES);
	return -1;
}

static void take_batch(struct batch *batch, uintptr_t *at, uintptr_t end, size_t grain)
{
	for (batch->n = 0; *at < end && batch->n < batch->room; *at += grain)
		batch->pages[batch->n++] = (void *)*at;
}

int qy_pages_look(const struct qy_placement *placement, void *addr, size_t len, size_t grain, struct qy_brought *sum)
{
	uintptr_t at = qy_align_down((uintptr_t)addr, grain), end = (uintptr_t)addr + len;
	struct targets targets = targets_of(placement, grain);
	void *pages[LOOK];
	int nodes[LOOK];
	struct batch batch = { .pages = pages, .nodes = nodes, .room = LOOK };

	while (at < end) {
		take_batch(&batch, &at, end, grain);
		if (ask(&batch) != 0)
			return -1;
		for (size_t i = 0; i < batch.n; i++) {
			if (batch.nodes[i] >= 0 && is_target(&targets, batch.nodes[i]))
				sum->there += grain;
			else if (batch.nodes[i] >= 0)
				sum->strayed += grain;
		}
	}
	return 0;
}

/* Where a page that is on `node` is to go. */
static int target_of(const struct targets *targets, bool spread, uintptr_t page, int node, unsigned attempt)
{
	int nearest;

	if (targets->n == 1)
		return targets->first;
	if (spread || attempt > 0)
		return nth_target(targets, page / targets->unit + attempt);
	nearest = qy_node_nearest(targets->set, qy_node_dense(node));
	return nearest < 0 ? targets->first : qy_node_kernel_id(nearest);
}

/* Leave in the batch only what is to be moved, with where to. */
static void pick(struct batch *batch, const struct targets *targets, const struct qy_placement *placement, size_t grain,
		 bool evenly, unsigned attempt, struct qy_brought *sum)
{
	bool spread = qy_placement_is_spread(placement);
	int from = -1, to = -1; /* the last answer for a set: neighbours are mostly on one node */
	size_t kept = 0;

	for (size_t i = 0; i < batch->n; i++) {
		int node = batch->nodes[i], wanted = node;

		if (node < 0)
			continue;
		if (placement->policy == QUARRY_POLICY_INTERLEAVE && evenly && attempt == 0) {
			wanted = target_of(targets, true, (uintptr_t)batch->pages[i], node, 0);
		} else if (!is_target(targets, node)) {
			if (node != from || spread || attempt > 0)
				to = target_of(targets, spread, (uintptr_t)batch->pages[i], node, attempt);
			from = node;
			wanted = to;
		}
		if (wanted == node) {
			sum->there += grain;
			continue;
		}
		sum->strayed += grain;
		batch->pages[kept] = batch->pages[i];
		batch->wanted[kept++] = wanted;
	}
	batch->n = kept;
}

/* The kernel answers for each page why it did not move, in more ways than versions; where it is now is what counts. */
static int move(struct batch *batch, const struct targets *targets, size_t grain, struct qy_brought *sum)
{
	if (batch->n == 0)
		return 0;
	if (qy_os->move_pages(batch->n, batch->pages, batch->wanted, batch->nodes, MOVE_FLAG) < 0 &&
	    (errno == EPERM || errno == ENOSYS)) {
		qy_refuse(QUARRY_REFUSED_MOVE_PAGES);
		return -1;
	}
	if (ask(batch) != 0)
		return -1;
	for (size_t i = 0; i < batch->n; i++) {
		if (batch->nodes[i] < 0) { /* given back meanwhile */
			sum->strayed -= grain;
		} else if (batch->nodes[i] == batch->wanted[i]) {
			sum->moved += grain;
		} else if (is_target(targets, batch->nodes[i])) { /* not as evenly as it might be, but of the set */
			sum->strayed -= grain;
			sum->there += grain;
		} else {
			sum->left += grain;
		}
	}
	return 0;
}

int qy_region_look(const struct qy_region *r, void *addr, size_t len, struct qy_brought *sum)
{
	return qy_pages_look(qy_peek(r->placement), addr, len, qy_kind_grain(r->kind), sum);
}

int qy_region_bring(const struct qy_region *r, void *addr, size_t len, bool evenly, unsigned attempt,
		    struct qy_brought *sum)
{
	const struct qy_placement *placement = qy_peek(r->placement);
	size_t grain = qy_kind_grain(r->kind);
	/* The kernel moves a huge page as a whole, for each of its pages that is named, and interleaves by such. */
	struct targets targets = targets_of(placement, r->kind == QUARRY_PAGES_THP ? QY_FRAME : grain);
	uintptr_t at = qy_align_down((uintptr_t)addr, grain), end = (uintptr_t)addr + len;
	/* Under the purge lock, and so one at a time. */
	static void *pages[BATCH];
	static int nodes[BATCH], wanted[BATCH];
	struct batch batch = { .pages = pages, .nodes = nodes, .wanted = wanted, .room = BATCH };

	while (at < end) {
		take_batch(&batch, &at, end, grain);
		if (ask(&batch) != 0)
			return -1;
		pick(&batch, &targets, placement, grain, evenly, attempt, sum);
		if (move(&batch, &targets, grain, sum) != 0)
			return -1;
	}
	return 0;
}
