/* SPDX-License-Identifier: MIT */
/* What memory checkers are told of our memory: Valgrind's memcheck by client requests, where the program runs under it (the other tools are left with the program
 * as it is);
 * AddressSanitizer by poisoning, where the program was built with it (the library need not be). Found out once, at the
 * start. Then every thread enters for each malloc and free (it stays turned, see lib/cache/idle.h), so that hits need not
 * know of any of this, and slow paths look at one byte.
 *
 * A block is asked for with a margin, of which the last two words hold its true size, sealed. What lies between blocks, the
 * margin, and what is free cannot be touched without a report; what quarry itself does there is not reported (hush). An
 * arena is a pool of memcheck's, by its handle: what ends with the arena is no leak. */
#ifndef QUARRY_BASE_CHECKER_H
#define QUARRY_BASE_CHECKER_H

#include "lib/base/base.h"

enum qy_checker { QY_CHECKER_NONE, QY_CHECKER_MEMCHECK, QY_CHECKER_ASAN };

extern QY_HIDDEN uint8_t qy_checker; /* enum qy_checker; written once, before the first thread is known */

#define QY_CHECKER_MARGIN 32

void qy_checker_init(void);

/* It is nobody's. */
void qy_checker_forbid(const void *addr, size_t len) QY_COLD;

/* Of a region's memory: it is nobody's yet; it is no longer ours. */
void qy_checker_mapped(void *addr, size_t len) QY_COLD;
void qy_checker_unmapped(void *addr, size_t len) QY_COLD;

/* The program gets size bytes at p, which has room bytes. */
void qy_checker_handed(const void *pool, void *p, size_t size, size_t room) QY_COLD;

/* The program gives p back. False when it does not have it: that is to be reported then, where errors are (outside of
 * what is hushed). */
bool qy_checker_taken(const void *pool, void *p, size_t room) QY_COLD;
void qy_checker_not_live(const void *pool, void *p) QY_COLD;

/* So many bytes it has at p; 0 when it has not got p. */
size_t qy_checker_size(const void *p, size_t room) QY_COLD;

/* All that is in a pool goes back. (Who has its regions forbids their memory.) */
void qy_checker_end(const void *pool) QY_COLD;

/* What the calling thread does until it says otherwise is our own: it may be said several times. */
void qy_checker_hush_slow(bool on) QY_COLD;

void qy_checker_after_fork(void); /* in the child */

QY_INLINE void qy_checker_hush(bool on)
{
	if (QY_UNLIKELY(qy_checker == QY_CHECKER_MEMCHECK))
		qy_checker_hush_slow(on);
}

#endif
