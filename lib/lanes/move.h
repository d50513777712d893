/* SPDX-License-Identifier: MIT */
/* What moves objects: plans, the mover, and when it runs in the background. (plan.c, move.c, background.c) */
#ifndef QUARRY_LANES_MOVE_H
#define QUARRY_LANES_MOVE_H

#include "include/quarry/track.h"
#include "lib/lanes/segment.h"

#define QY_BATCH 1024
#define QY_BUCKETS 32
#define QY_SCRATCH_MAX 30

struct qy_move {
	uint32_t slot;
	uint64_t word; /* with MOVING */
	void *to;      /* NULL: not yet, or dropped */
};

enum qy_plan_state { QY_PLAN_NONE, QY_PLAN_COUNTING, QY_PLAN_MADE };

/* What the mover goes by, over as many calls as its budgets make of it. What there is room for was counted before
 * anything was moved: objects of each class in spans that nobody owns, and pages of no span. Only what has a place to go
 * to is moved, so a compaction that can gain nothing moves nothing. The lists and next are under lanes->lock, all else
 * is the mover's. */
struct qy_plan {
	enum qy_plan_state state;
	unsigned home;                     /* of which it is */
	uint64_t begun;                    /* ns */
	struct qy_link *next;              /* COUNTING: the segment to be looked at next */
	struct qy_link bucket[QY_BUCKETS]; /* segments that may be emptied, by the bytes that are live in them */
	struct qy_link forgotten;          /* candidates of earlier plans: who needs one of them takes it out */
	struct qy_link drained;            /* emptied ones, that scopes may still see */
	uint32_t room[QY_CLASSES_MAX];
	uint32_t pages;
	uint32_t owned;             /* segments that would be there, were it not for spans that threads own; */
	bool recalled;              /* those were taken back */
	uint64_t live, held;        /* bytes */
	uint64_t moved;             /* bytes, by this plan, */
	uint32_t freed;             /* and segments that went back, */
	uint32_t borrowed;          /* or were taken for pages that none of them had */
	uint32_t partly;            /* not 0: the victim is emptied as far as there is room elsewhere; the how manyth is it */
	uint64_t moved_before;      /* it */
	struct qy_segment *victim;  /* is being emptied, and how far that has come: */
	uint32_t page, object;
};

/* What steps take, measured: by it the mover knows what fits into the rest of its time. */
struct qy_pace {
	uint64_t unit;    /* ns / 1024 of moving an object: a unit for it, and one for each 256 bytes */
	uint64_t grace;   /* ns of a grace period's beginning */
	uint64_t discard; /* ns of giving a segment back */
};

/* When the background's mover runs, and for how much of its time. */
struct qy_governor {
	bool on;
	uint32_t start, full, least, most; /* as quarry_lanes_attr */
	uint64_t ignore;
	_Atomic(bool) news;        /* since the last plan was begun */
	_Atomic(uint64_t) due;     /* ns; UINT64_MAX: when there are news, */
	uint64_t not_before;       /* but not before: ns */
	uint64_t pack_due;         /* ns: of due, what is to be packed; UINT64_MAX: when there are news */
	uint64_t interval;         /* ns between plans: longer while they gain little */
	uint64_t recall_at;        /* ns: the earliest that caches are recalled again */
	bool runs;                 /* the plan is worth it */
	bool round;                /* homes are planned one after the other */
	_Atomic(bool) inside;      /* it was the last to lock lanes->moving */
	_Atomic(uint32_t) wanted;  /* somebody waits for that */
	qy_counter ns, plans;
	quarry_lanes_event packed; /* of plans that nobody was told of yet: the mover's */
	uint32_t packed_for;       /* who listened then (of qy_lanes_events' listeners) */
};

/* ---- plan.c ---- */

/* Begin to count anew, the next home that has a segment. Under l->moving, as all of these. */
void qy_plan_begin(quarry_lanes *l, uint64_t now);
/* Whether that was the last home, before it begins with the first again. */
bool qy_plan_last(const quarry_lanes *l);
/* Whether the plan that has come to its end gained so much that another may be worth it. */
bool qy_plan_gained(const quarry_lanes *l);
/* No whole segment can be emptied. Of few, one is a good part of all: empty one in part, so that its free pages can go
 * (qy_pages_trim). False: that would not be worth it either. */
bool qy_plan_partly(quarry_lanes *l);
/* Count some segments; true: the plan is made. */
bool qy_plan_count(quarry_lanes *l);
/* Look at some candidates, those first that cost the fewest bytes to empty; objects of more than `most` bytes are not
 * moved; may_borrow: a new segment may be taken for those of classes that have no room. True: there is a victim, and it is drained; or there is none, and the plan has come to its end (NONE). */
bool qy_plan_choose(quarry_lanes *l, size_t most, bool may_borrow);
/* Under l->lock: what was not emptied of a drained segment is taken from again. */
void qy_undrain(quarry_lanes *l, struct qy_segment *g);

/* ---- background.c ---- */

/* There is something new, that may be worth a look: a thread freed many. No lock held. */
void qy_news_slow(quarry_lanes *l);
/* Percent of a processor for so much waste, in percent of what is live. */
uint64_t qy_governor_share(const struct qy_governor *g, uint64_t waste);
void qy_background_in_child(void);
/* Lanes with cold memory are there from now on. */
void qy_background_cool(quarry_lanes *l);

/* ---- move.c ---- */

/* Whoever is last to change the word did: a move that was begun is not. Its room goes back. */
void qy_move_give_up(quarry_lanes *l, struct qy_move *b);
/* An object's bytes, which a writer who stops the move may change meanwhile. */
void qy_copy_object(void *to, const void *from, size_t size);
/* Under l->moving, or in a child of fork(2) before it goes on: a batch was cut off, and nobody goes on with it. */
void qy_moves_undo(quarry_lanes *l);
/* One go at it. */
struct qy_mover {
	uint64_t begun, deadline; /* ns; no deadline: 0 */
	uint64_t patience;        /* ns that it waits for scopes; 0: until the deadline */
	_Atomic(uint32_t) *stop;  /* somebody else wants to; NULL: nobody may */
	bool held_up;             /* by scopes, for longer */
	uint64_t full[(QY_CLASSES_MAX + 63) / 64]; /* hurried: classes that no room was found for */
	uint32_t segments;        /* that went back */
};

/* Have segments go back until there are enough, the time is over, or a plan has come to its end. Under l->moving, not in
 * a scope. */
void qy_pack(quarry_lanes *l, struct qy_mover *m, size_t enough);
/* What was left of earlier ones is in order: a fork may have cut one off. */
void qy_mover_begin(quarry_lanes *l);

#define QY_CONFINED_NS 10000000 /* less time than so much is too short for new segments, */
#define QY_SHORT_NS 1000000     /* and than so much for the kernel to take memory back */

/* Whether its time is over, or somebody else wants to. */
bool qy_mover_late(const struct qy_mover *m);
/* Whether it has less time than so much (ns) from its beginning on. */
bool qy_mover_short(const struct qy_mover *m, uint64_t time);
/* What is left of its time (ns), less what a step took of late. */
uint64_t qy_mover_left(const struct qy_mover *m, uint64_t step);
/* l->lock; who is hurried keeps trying until it is late, for who has it may have lost its processor: false. */
bool qy_mover_lock(quarry_lanes *l, const struct qy_mover *m);
/* A segment that is of the lanes no more: its memory goes back, and its place to the arena. */
void qy_mover_give_back(quarry_lanes *l, struct qy_mover *m, struct qy_segment *g);

/* ---- compact.c ---- */

/* l->moving for a call of the program's: the mover in the background steps aside. */
bool qy_mover_enter(quarry_lanes *l, const struct qy_mover *m);
/* There was no memory for so many bytes, of such a priority: have a segment be free, or as many as the slow lane's limit wants, by
 * moving what can be moved, when that does not take long. Whether one is. */
bool qy_pack_for_refused(quarry_lanes *l, size_t size, unsigned priority);
/* Memory that is free already goes back, as far as there is time. */
void qy_mover_free(quarry_lanes *l, struct qy_mover *m);

#endif
