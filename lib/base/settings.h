/* SPDX-License-Identifier: MIT */
/* The values of the options, for any layer to read. Their names, ranges and help are one table in
 * lib/api/options.c, which is the only writer. Plain relaxed atomics: a change is seen by the next slow path. */
#ifndef QUARRY_BASE_SETTINGS_H
#define QUARRY_BASE_SETTINGS_H

#include "lib/base/base.h"

enum qy_reclaim_mode { QY_RECLAIM_OFF, QY_RECLAIM_SERIES, QY_RECLAIM_PARALLEL, QY_RECLAIM_AUTO, QY_RECLAIM_TIMER };
enum qy_breaker_mode { QY_BREAKER_OFF, QY_BREAKER_REFUSES, QY_BREAKER_REDIRECTS };
enum qy_publish_mode { QY_PUBLISH_OFF, QY_PUBLISH_AUTO, QY_PUBLISH_ON };
enum qy_on_error { QY_ERROR_IGNORE, QY_ERROR_REPORT, QY_ERROR_ABORT };

struct qy_settings {
	_Atomic long reclaim;          /* enum qy_reclaim_mode */
	_Atomic long reclaim_interval; /* slow-path calls between two passes in series */
	_Atomic long reclaim_signal;   /* that the timer sends */
	_Atomic long decay_ms;         /* -1: never */
	_Atomic long pages;            /* enum quarry_page_kind for default arenas */
	_Atomic long strict;
	_Atomic long thp_min;          /* bytes */
	_Atomic long numa;
	_Atomic long stats_at_exit;
	_Atomic long report_signal;
	_Atomic long leaks_at_exit;
	_Atomic long on_error;         /* enum qy_on_error */
	_Atomic long junk;
	_Atomic long window;           /* bytes; 0: by the machine's memory */
	_Atomic long large_heap;       /* bytes mapped from which `auto` starts the reclaimer's thread */
	_Atomic long give_back;        /* 0: nothing goes back to the kernel */
	_Atomic long bring_home;       /* 1: pages that strayed are looked for and moved home */
	_Atomic long idle_threads;     /* 1: caches of blocked threads that did not refill for decay_ms / 4 go back */
	_Atomic long populate_threads; /* at most so many fill a large range; 0: as many as its node has CPUs, up
	                                * to 16 */
	_Atomic long fork_copy;        /* bytes of hugetlb memory that a fork copies for the child */
	_Atomic long soft_limit;       /* bytes, of the process; 0: none */
	_Atomic long hard_limit;
	_Atomic long breaker;          /* enum qy_breaker_mode */
	_Atomic long breaker_min;      /* bytes */
	_Atomic long breaker_at;       /* per cent */
	_Atomic long profile;          /* bytes between two samples; 0: none are taken */
	_Atomic long profile_stacks;   /* enum qy_unwind */
	_Atomic long publish;          /* enum qy_publish_mode */
	_Atomic long checked;          /* 1: blocks that ended are held back, filled or inaccessible */
	_Atomic long cgroup_limit;     /* 1: ENOMEM before the control group's memory limit kills */
};

extern QY_HIDDEN struct qy_settings qy_settings;

/* Fill them from the environment; called once, before anything else. */
void qy_options_init(void);

/* Another copy of quarry in this process that its symbols lead to (libquarry and libquarry-malloc both loaded, and the
 * other one comes first): then it does the work, so that there is one allocator. NULL when this copy is it.
 * lib/api/elsewhere.c finds out. */
struct qy_elsewhere {
	void *(*malloc)(size_t size);
	void (*free)(void *p);
};

const struct qy_elsewhere *qy_find_elsewhere(void);

#define qy_setting(field) atomic_load_explicit(&qy_settings.field, memory_order_relaxed)

#endif
