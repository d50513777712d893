/* SPDX-License-Identifier: MIT */
/* How near the process is to running out, and what is done about it.
 *
 * The level goes by what numa/pressure.h reads and by the process's own budget (options soft_limit and hard_limit),
 * with hysteresis: up at once, down by one step at a time, after it was lower for a while, and only when what counts is
 * well below where it went up. Everything here may be called by any thread, with no lock held unless said otherwise,
 * and allocates nothing. */
#ifndef QUARRY_MANAGER_LIMITS_H
#define QUARRY_MANAGER_LIMITS_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"
#include "numa/pressure.h"

extern QY_HIDDEN _Atomic(int) qy_pressure_now;
extern QY_HIDDEN _Atomic(uint32_t) qy_limits_above_soft; /* the process is above its soft limit */

/* enum quarry_pressure: from SOME on caches are trimmed and dirty memory goes back sooner; from HIGH on dirty memory
 * goes back at once, idle caches too, and partly used huge pages are broken. */
QY_INLINE int qy_pressure_level(void)
{
	return atomic_load_explicit(&qy_pressure_now, memory_order_relaxed);
}

/* An arena has got a soft limit. */
void qy_limits_note_soft(void);
extern QY_HIDDEN _Atomic(uint32_t) qy_limits_soft_arenas; /* some have had one */

/* Whether the process, or an arena with a limit of its own, is above its soft limit and has so much free memory, in
 * memory, that it is worth a slow path's time: a 32nd part of the limit, and a MiB, may stay for those who look later.
 * Goes over all arenas; what is found to be above is told. Any thread, no lock held. *arenas: how many it went over. */
bool qy_limits_soft_due(unsigned *arenas);

/* The decay (ms) to be used now where decay_ms is asked for: a quarter of it under some pressure, none (0) under high
 * pressure and while the process is over its soft limit. All that goes by the decay goes by this: dirty memory, pages
 * in slabs, idle threads' caches, and for how long a huge page in demand is not broken. -1, never, means never by time:
 * it stays so under some pressure, which only makes time pass faster, and not under high pressure, where the kernel
 * would next hold the process up or kill it for memory that nobody uses. (What is never to go back is for
 * `return=0`.) */
long qy_limits_decay(long decay_ms);

/* And of what qy_limits_decay gives, what is in force for what threads hold: that is of all arenas, and goes back where
 * one is above its soft limit. */
long qy_limits_threads_decay(long decay_ms);

/* Look how things stand, and do what follows: the level, the breaker, the events of limits that were passed. By the
 * reclaimer, in each pass, at its start; it looks no more often than every 100 ms whatever the caller does, and reads
 * no file in a process with less than 32 MiB and no pressure. now: qy_os->now_ms(), or UINT64_MAX for "ask". Returns
 * whether it wants to be called again within 500 ms. */
bool qy_limits_tick(uint64_t now);

/* The same at once, for those who ask how the process is doing: the files are read, whatever the size of the heap. */
void qy_limits_look(uint64_t now);

/* Whether so many more bytes would take the process beyond that part (1/1000) of a limit, by what is known exactly this
 * very moment. Of its hard limit: a load, while that is far. Of RLIMIT_AS: a file is read where there is one; what fits
 * into what is mapped and not in use takes no more of it. A leaf's lock may not be held. */
bool qy_limits_hard_beyond(uint64_t more, unsigned per_mille);
bool qy_limits_address_beyond(uint64_t more, unsigned per_mille);

/* Kept in each manager, of an arena's denials and its soft limit; that of a family in its head. */
struct qy_limit_marks {
	_Atomic(uint64_t) denied, untold;  /* requests refused: ever, and since the last event */
	_Atomic(uint64_t) told_ms;         /* when that was, + 1; 0: never */
	_Atomic(uint64_t) last_bytes, last_limit; /* of the last one that was refused */
	_Atomic(uint32_t) above_soft;
};

struct qy_manager;

/* A hard limit refused so many bytes: an arena's, by its head, or (NULL) the process's. It is kept in mind, the last
 * one of each thread: one request may be refused several times, and be served in the end. Managers' locks may be
 * held. */
void qy_limits_deny(struct qy_manager *head, size_t bytes, uint64_t limit) QY_COLD;

/* Which hard limit refused the calling thread something since its request began (qy_limits_forget_denial). By it a slow
 * path knows what may help: at the process's limit it is what others hold and do not use, and not what is in memory;
 * at an arena's, nothing. */
enum qy_denied_by { QY_DENIED_BY_NONE, QY_DENIED_BY_PROCESS, QY_DENIED_BY_ARENA };
enum qy_denied_by qy_limits_denied_by(void) QY_COLD;
void qy_limits_forget_denial(void);

/* The request fails for good: where a hard limit was last to refuse it, that is counted once, and told. No lock may be
 * held. */
void qy_limits_tell_denial(void) QY_COLD;

/* A limit that bounds the process. */
struct qy_bound {
	int kind;             /* enum quarry_limit_kind */
	uint64_t limit, used; /* bytes; limit 0: there is none */
};

/* Parts of it that are used, in 1/1000, at most 1000; 0 where there is none. */
unsigned qy_bound_fill(const struct qy_bound *bound);

/* What is behind all this, for the viewer: as of the last look. */
struct qy_limits_state {
	struct qy_pressure pressure;
	struct qy_bound tightest;    /* the one that is filled most */
	int level;
	uint32_t reasons;            /* enum quarry_health_reason */
	uint32_t arenas_above_soft;
	uint64_t denied_process;     /* counts, ever */
	uint64_t denied_arenas;
};
struct qy_limits_state qy_limits_state(uint64_t now);

void qy_limits_after_fork(void); /* in the child; of the quota, the events and the breaker as well */

#endif
