/* SPDX-License-Identifier: MIT */
/* What lanes are: all of their state. (lanes.h has the rules.) */
#ifndef QUARRY_LANES_STATE_H
#define QUARRY_LANES_STATE_H

#include <pthread.h>

#include "include/quarry/track.h"
#include "lib/base/quiet.h"
#include "lib/lanes/cold.h"
#include "lib/lanes/move.h"
#include "lib/manager/events.h"

struct qy_cold;
struct qy_cooling;
struct qy_figures;

/* What is told of (events.c): each kind apart, for sums of its own. */
enum qy_lanes_tells { QY_TELL_CALL, QY_TELL_BACKGROUND, QY_TELL_ROOM, QY_TELL_FAST, QY_TELL_SLOW, QY_TELL_CORRUPT, QY_TELLS };

struct qy_lanes_events {
	_Atomic(uint32_t) on;                 /* which of the `listeners` listens; 0: nobody */
	pthread_mutex_t lock;                 /* the last of all; all that follows but the teller is under it */
	quarry_lanes_event_fn *fn;
	void *ctx;
	uint32_t listeners;                   /* that there were */
	quarry_lanes_event waiting[QY_TELLS]; /* sums since it was last told; count 0: nothing */
	bool telling;                         /* the function runs, */
	pthread_t by;                         /* in this thread */
	struct qy_teller teller;
};

/* A move from lane to lane (transfer.c). */
struct qy_transfer {
	uint32_t slot;
	uint32_t why;
	uint64_t word;   /* with MOVING */
	void *to;        /* NULL: not yet, or dropped */
	uint64_t states; /* of its new word */
};

/* The fast lane's; under the lock, but for what is atomic. The lines of fast_make first. */
struct qy_fast {
	size_t most;                  /* quarry_halloc begins with so many bytes there; 0: with none */
	_Atomic(uint64_t) tick_bits;  /* of a head */
	_Atomic(uint64_t) tick, due;  /* due: when a tick has something to promote */
	uint64_t size, held, slow_size;
	size_t chain; /* quarry_halloc_typed has objects of so many bytes made by the chain; SIZE_MAX: all, for their canaries */
	uint32_t threshold, large, age;
	uint32_t usage, margin, slow_usage, slow_margin; /* per cent */
	uint32_t compact, interval;                      /* per cent (0: never by itself), ms */
	_Atomic(uint64_t) checked;                       /* ns */
	struct qy_link chunks, dead;                     /* all; those without an object, the oldest first */
	uint32_t dead_count;
	uint64_t dead_bytes;
	uint64_t awaited;                                /* a grace period, for the dead; 0: none */
	quarry_arena *failover[QUARRY_FAILOVERS];
	void (*hook)(void *arg, quarry_handle h, int why);
	void *hook_arg;
	qy_counter resets, promoted[QUARRY_PROMOTIONS], promoted_bytes, demoted, given_up, spilled, failed_over, refused;
	_Atomic(int64_t) stubs;
	_Atomic(uint64_t) elsewhere; /* bytes of arenas of failover */
	uint64_t futile;             /* no promotion for want of room before this tick; under `moving`, as the rest */
	uint64_t pass;
	uint32_t begun;
	struct qy_transfer batch[QY_BATCH];
};

struct qy_groups {
	pthread_mutex_t lock;
	struct qy_link all;
	_Atomic(struct qy_side *) *side; /* by slot / QY_SIDES; made when the first object needs one */
	struct qy_link notes;            /* all (note.h), */
	uint64_t noted;                  /* and how many */
	_Atomic(uint32_t) mortal;        /* groups with a time to live */
	struct qy_tag_sum *tags;         /* by tag; NULL: no object has one */
};

#define QY_SLOT_PAGE 512 /* slots: 4 KiB of words */
#define QY_SLOT_CHUNK 1024
#define QY_SLOT_LEVELS 3
#define QY_SLOT_PAGES_AT_ONCE 16 /* that go back, or are read for it, under the lock */

/* What is known of so many slots (slots.c). */
struct qy_slot_page {
	uint16_t first; /* of its free slots that were used before, + 1: linked by their words; 0: none */
	uint16_t free;
	uint16_t fresh; /* from here on slots were not used since its words went back, or ever; they read as 0 */
	uint16_t retired : 15;
	uint16_t refused : 1; /* its words are not to go back until a slot of it is taken */
	_Atomic(uint16_t) floor; /* the generation that those begin with; 0: the page was never used */
};

/* Under its lock, but for what is read without. */
struct qy_slots {
	pthread_mutex_t lock;
	_Atomic(uint32_t) next;  /* never used from here on */
	struct qy_slot_page **chunk; /* of QY_SLOT_CHUNK records each, made as they are needed */
	uint64_t *with_free[QY_SLOT_LEVELS]; /* a bit for each page that has free slots, each word of those, ... */
	uint32_t top_words;      /* of the last of them */
	uint32_t taken;          /* slots of objects, and in caches */
	uint32_t resident;       /* pages whose words are in memory, */
	uint32_t empty;          /* and those of them whose slots are all free, */
	uint32_t refused;        /* of which so many would waste too many generations */
	uint32_t at;             /* where they are looked for */
	uint16_t first;          /* the generation that slots begin with */
	bool stuck;              /* the kernel does not take words back */
	uint64_t retired;
};

struct quarry_lanes {
	quarry_lanes_map map; /* first: the header's inline functions read it */
	uint64_t magic;
	uint32_t id, generations;
	bool canaries; /* (canary.h) */
	size_t blob;   /* what is larger is no class's: the size of one */
	qy_word *word;
	quarry_arena *arena, *own;
	struct qy_slots slots;
	pthread_mutex_t lock; /* segments, lists */
	struct qy_link segments;
	struct qy_home *home[QY_HOMES]; /* NULL: none yet */
	unsigned homes;                 /* how many there are */
	unsigned mover_home;            /* that movers take from: under `moving` */
	struct qy_link dead; /* spans of tombstones */
	struct qy_link spares; /* segments without a span, by order */
	uint32_t spare;                            /* segments without a span */
	_Atomic(uint64_t) segment_count;
	_Atomic(uint64_t) huge; /* bytes beyond segments */
	_Atomic(uint64_t) huge_count;
	struct qy_link huge_objects, huge_tombs; /* live ones; freed ones, of late; under the lock */
	_Atomic(uint32_t) huge_tombs_count;
	_Atomic(uint64_t) huge_awaited; /* a grace period, for those; 0: none */
	pthread_mutex_t moving;
	struct qy_lanes_cache mover;
	struct qy_move batch[QY_BATCH];
	uint32_t batched;
	void *scratch[QY_SCRATCH_MAX]; /* under the lock: segments that were never touched, for movers when there are no others */
	uint32_t scratches, scratch_percent;
	bool confined;       /* the mover has no time for new segments: the kernel would fill one with zeros for it */
	_Atomic(bool) hurried; /* nor to look at many: each step ends soon; who has the lock for long lets it go ahead */
	bool promoted_out;   /* there was no room for all that was to be promoted when the last one was confined: not the next */
	bool more_to_find;   /* hurried: there was no room where it was looked for, but not all were looked at */
	struct qy_plan plan; /* the mover's, as is */
	struct qy_pace pace;
	struct qy_governor governor;
	struct qy_lanes_cache *recalled; /* caches that threads may still use */
	uint64_t recalled_epoch;
	qy_counter recalls;
	qy_counter moved, moved_bytes, given_up, freed_segments;
	struct qy_cold *cold; /* NULL: nothing becomes cold */
	bool glances;         /* what is cold is copied for who gets it now and then (glance.h) */
	struct qy_cooling *cooling;
	struct qy_fast fast;
	struct qy_groups groups;
	_Atomic(uint64_t) writes[QUARRY_OPT_COUNTERS]; /* (opt.c) */
	struct qy_figures *figures;
	struct qy_lanes_events events;
	struct {
		int lane, node;
		uint32_t next; /* slot */
	} migration;           /* how far it has come: under `moving` */
	struct qy_link *figures_next, *figures_chunk; /* under the lock: what a walk looks at next, */
	struct qy_link *trim_next;                    /* and qy_pages_trim, */
	struct qy_link *find_next;                    /* and who is hurried and needs pages; NULL: the first */
	struct qy_link *promote_next;                 /* the same, of the fast lane's chunks */
};

#define QY_LANES_MAGIC 0x73656e616cu
#define QY_LANES_MAGIC_CANARIES 0x73656e616dU

/* One more home; false with ENOMEM, ENOSPC. */
bool qy_home_make(quarry_lanes *l, quarry_arena *arena, int node);
/* Whether they are some with canaries; else EINVAL. */
bool qy_lanes_check_slow(const quarry_lanes *l) __attribute__((cold));

QY_INLINE bool qy_lanes_check(const quarry_lanes *l)
{
	return QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC) || qy_lanes_check_slow(l);
}

#endif
