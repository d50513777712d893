/* SPDX-License-Identifier: MIT */
/* What can be reached: a conservative mark (H.-J. Boehm, M. Weiser: Garbage collection in an uncooperative environment,
 * SPE 1988) over a view, in a copy of the process that nobody else is in (lib/cache/fork.h). A word that leads to any byte
 * of what lives counts as a pointer to it. What was reached is noted in the view's own marks (QY_SNAP_LIVED, which means
 * nothing in a copy). What is walked through stands on a stack of its own. */
#ifndef QUARRY_VIEW_REACH_H
#define QUARRY_VIEW_REACH_H

#include "lib/view/view.h"

/* What lives: an object or a large block. Offsets in the window. */
struct qy_thing {
	uint64_t offset, bytes;
};

struct qy_reach {
	struct quarry_view *view;
	struct qy_thing *stack;
	size_t depth, room;
	size_t kept; /* at the other end of the stack; each thing may be once on either */
	uint64_t *pointed; /* a bit per grain: what is not reached, and something that is not points to it */
	uint64_t *entries; /* what the kernel says of pages */
	size_t mapped_stack, mapped_pointed;
	uint64_t scanned, skipped; /* bytes; skipped: could not be read */
	uint64_t objects, bytes; /* reached since this was set to 0 */
};

/* The view must live as long. False with ENOMEM. */
bool qy_reach_begin(struct qy_reach *r, struct quarry_view *v);
void qy_reach_end(struct qy_reach *r);

/* All that memory of the program's leads to, and what that leads to, and so on. Pages that are not there, or are a file's
 * contents, are left out: no pointer to what lives stands there. */
void qy_reach_from(struct qy_reach *r, const void *from, size_t bytes);

/* The same, of words that can be read. */
void qy_reach_from_words(struct qy_reach *r, const uint64_t *words, size_t count);

/* What lives at an address that a view told of, and what it leads to. */
void qy_reach_thing(struct qy_reach *r, const struct qy_thing *thing);

bool qy_reached(const struct qy_reach *r, uint64_t offset);

/* Note what this one, which is not reached, points to beside itself; and ask whether any did. */
void qy_reach_note_targets(struct qy_reach *r, const struct qy_thing *thing);
bool qy_reach_is_target(const struct qy_reach *r, uint64_t offset);

/* Of targets, what is left when all that is not one was told of: rings, and what those lead to. Go over them in any order,
 * sweep each that is still a target, and keep it (there is room for that); then those that were kept, the last first: each
 * that is not reached by then is in a ring that nothing else leads to. (After Kosaraju: what comes before it in the list
 * does not lead to it, and what comes behind and does has reached it.) */
void qy_reach_sweep(struct qy_reach *r, const struct qy_thing *thing);
bool qy_reach_kept(struct qy_reach *r, struct qy_thing *thing); /* the last one, which is not kept any more */

#endif
