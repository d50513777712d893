/* SPDX-License-Identifier: MIT */
/* The circuit breaker: when the tightest limit is nearly reached, large requests are refused (or sent to an arena that
 * the program named) before they take what small ones need. It opens when the limit is filled to breaker_at per cent,
 * or at the critical level; after a while (100 ms, doubled each time up to 10 s) one request is let through, and how
 * that goes decides whether it closes. Options breaker, breaker_min, breaker_at.
 *
 * How full control groups and the machine are is seen when the reclaimer looks. Of the process's hard limit and
 * RLIMIT_AS it is known exactly, and so each large request is judged before it is served, be it one for a block to
 * grow: none leads beyond the threshold, however fast they come (but for those that threads make in the same moment).
 * Small ones cost a load. */
#ifndef QUARRY_MANAGER_BREAKER_H
#define QUARRY_MANAGER_BREAKER_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"
#include "lib/base/settings.h"

extern QY_HIDDEN _Atomic(int) qy_breaker_now; /* enum quarry_breaker_state */

enum qy_verdict {
	QY_BREAKER_PASS,
	QY_BREAKER_PROBE,    /* go on, and tell how it went: qy_breaker_probed. Until then all of the thread's pass */
	QY_BREAKER_REFUSE,   /* ENOMEM; it was counted */
	QY_BREAKER_REDIRECT, /* to *arena; it was counted */
};

/* Whether a request of so many bytes is one that is judged. */
QY_INLINE bool qy_breaker_minds(size_t size)
{
	return QY_UNLIKELY(size >= (size_t)qy_setting(breaker_min)) && qy_setting(breaker) != QY_BREAKER_OFF;
}

/* What is to become of a request of so many bytes for *arena (NULL: the default one), `more` of which come on top of
 * what is in use: all, or less where a block grows. Not under a leaf lock; a file may be read. */
enum qy_verdict qy_breaker_judge(size_t size, size_t more, const quarry_arena **arena, bool may_redirect) QY_COLD;

/* Whether so many bytes may be mapped for a block to move to, of which less is added: by RLIMIT_AS it is as if all
 * were. */
bool qy_breaker_may_map(size_t size);

/* The probe got its memory, or not. No lock may be held: files are read. */
void qy_breaker_probed(bool got);

/* The process's hard limit refused a small request, with so much in use: it opens at once where that is beyond the
 * threshold. Not under a leaf lock. */
void qy_breaker_note_denial(uint64_t used, uint64_t limit);

/* How things stand: tightest fill in 1/1000, and the level. By qy_limits_tick. Returns whether it is not closed. */
bool qy_breaker_tick(uint64_t now, unsigned fill, int level);

/* Where large requests go when it is open; NULL: nowhere. An arena that ends is forgotten. */
void qy_breaker_set_redirect(const quarry_arena *arena);
void qy_breaker_forget_arena(const quarry_arena *arena);

struct qy_breaker_figures {
	int state;
	uint64_t opened, refused, redirected, probes; /* counts */
	uint64_t retry_ms;                            /* how long it stays open before a probe */
};
struct qy_breaker_figures qy_breaker_figures(void);

void qy_breaker_after_fork(void); /* in the child */

#endif
