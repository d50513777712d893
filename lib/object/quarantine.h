/* SPDX-License-Identifier: MIT */
/* Blocks whose last reference went, held back, so that what uses them late is seen (option checked). Most are filled, and
 * looked at as they go. Samples (apart.h) have their pages closed as well, and large blocks, whose memory goes back to the
 * kernel while their addresses stay: who reads or writes there has a SIGSEGV at once. Pages are opened again before the
 * memory goes. What the kernel refuses to close is filled, and what it refuses to open stays until it is opened: when the
 * option is 0 by then, ends of blocks try that again, now and then.
 *
 * Two rings of places, for what is filled and what is closed; each place has a flag for a lock, which nobody waits for, but
 * a fork: who finds a place taken goes to the next. A place's pages are closed and opened while it is taken, and nothing else
 * is waited for then. A fork takes all of them, in the handler of pthread_atfork(3), before it takes any other lock of
 * quarry's: so what the child has in them is whole. It counts that anew, lets it go where the option is 0 (the thread that was
 * at that may not be there), and closes what is closed once more, since the copy of hugetlb memory is open
 * (lib/manager/forkcopy.h) and zero where nobody could read it. What another thread had just taken out leaks in the
 * child. A fork out of a signal handler whose thread has a place, is inside quarry, or is in a fork itself, does none of
 * this; places that others have taken then are lost to the child, and are waited for by none of its forks. */
#ifndef QUARRY_OBJECT_QUARANTINE_H
#define QUARRY_OBJECT_QUARANTINE_H

#include "include/quarry/block.h"
#include "lib/base/base.h"

#define QY_QUARANTINE_FILL 0xde
#define QY_QUARANTINE_BLOCK_MAX ((size_t)4 << 20) /* filled; what is larger is closed */

/* Hold back n bytes of p, which nothing but quarry_free can end; who has been there longest goes. False where it is too
 * large for that, or no place is free: the caller frees it. is_apart: it is a sample. */
bool qy_quarantine_put(void *p, size_t n, bool is_apart);

/* The option is 0, and something is held all the same, since the kernel does not open it; and another try, now and then. */
extern QY_HIDDEN _Atomic(bool) qy_quarantine_left;
void qy_quarantine_retry(void) QY_COLD;

/* How many were written to. With release, all go. */
long qy_quarantine_check(bool release);

/* After something was noted by the option's value of before: let it go where the option was changed meanwhile. */
void qy_quarantine_recheck(void);

struct qy_quarantine_figures {
	uint64_t late_writes, blocks, bytes, closed, closed_bytes;
};
void qy_quarantine_figures(struct qy_quarantine_figures *figures);

#endif
