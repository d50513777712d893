/* SPDX-License-Identifier: MIT */
/* Pages of a later moment. What the kernel took away of a forked child's hugetlb memory the child gets from its parent,
 * as it is there by then (forkcopy.h): the parent's other threads have gone on, and gone on while it was read. All
 * records outside the memory that they describe (of blocks, slabs, heaps, caches) are those of the fork. So the two
 * contradict each other, and the child must not believe both. It believes the records:
 *
 *   - No link is read in such a page. Free objects are linked through themselves: in slabs, in thread caches, on their
 *     way between threads. Each of these lists is cut before its first object in a late page, whoever's it is: also
 *     those of the thread that forked, since while it waited an idle thread's caches may have been given up, and an
 *     arena reset. What was behind is leaked: nobody can say which of it is free, so it counts as live for ever.
 *   - What was known to read as zero does so again: free memory that is clean, and what was never carved of a slab
 *     whose memory was.
 *   - All else that is free is known by records alone, and is used as before: blocks, what was never carved, parked
 *     objects, spare slabs, the free grains of mixed slabs.
 *
 * What the program has in such pages is the program's, as after a race of its own: what its other threads wrote to in
 * that time may be torn, and zeros where they gave it up; what none of them touched is as it was at the fork.
 *
 * Whoever adds a list that leads through free memory has it cut here. All of this is for a forked child, before
 * anything else runs in it; it needs no lock but those that it takes. */
#ifndef QUARRY_MANAGER_LATE_H
#define QUARRY_MANAGER_LATE_H

#include "lib/manager/manager.h"

/* What is at [p, p + len), whole frames, is late, or cannot be read at all. */
void qy_late_note(const void *p, size_t len);

/* Whether anything is. */
bool qy_late_any(void);

/* Cut a list of free objects, linked by their first words, where a link would be read that is not to be: before an
 * object in a late page, or in none of quarry's, and where it leads in a circle. Returns its last link, NULL
 * by then. */
void **qy_late_cut(void **list);

/* The same for what was sent to a heap, taken in part or not. */
void qy_late_cut_mail(struct qy_heap *h);

/* All that is a manager's own: its slabs, whoever holds them, what was sent to those that nobody holds, clean
 * memory. */
void qy_late_mend(struct qy_manager *m);

/* All was mended: no page is late any more. */
void qy_late_forget(void);

#endif
