/* SPDX-License-Identifier: MIT */
/* What is counted of lanes, by class, and how long objects live.
 *
 * Nothing of this is on the way of an object that is at hand: threads count when they take room for up to 64 objects, or
 * a chunk; who moves counts what moved. Lifetimes are of samples: the first object of such a batch, which has a mark in
 * its entry. (Who frees compares all marks at once, so that it costs others nothing.) A sample stands for its batch, and for those
 * batches that were not sampled.
 *
 * Samples are in a table by slot, one at each place: whose place is taken is no sample, and those that are count for
 * more, by how full the table is. That does not depend on how long an object lives, so nothing is told too short. At three quarters
 * half of them are given up, by chance, and the others count twice.
 *
 * Segments are looked at some at a time, with the place in l->figures_next; who takes a segment out of the list
 * moves it on. Locks: figures.walk before all but the registry; figures.lock is a leaf. */
#ifndef QUARRY_LANES_FIGURES_H
#define QUARRY_LANES_FIGURES_H

#include "include/quarry/track.h"
#include "lib/lanes/lanes.h"

#define QY_FIGURES_WHOLE QY_CLASSES_MAX
#define QY_FIGURES_HUGE (QY_CLASSES_MAX + 1)
#define QY_FIGURES_CLASSES (QY_CLASSES_MAX + 2)
#define QY_LIVES_BITS 10
#define QY_LIVES (1u << QY_LIVES_BITS)

/* How long objects lived. */
struct qy_lives {
	uint64_t count, us, in[QUARRY_LIFETIMES];
};

struct qy_class_figures {
	qy_counter taken;   /* room for objects, by threads, that they did not give back unused */
	qy_counter moved, cooled, refaults, cold_freed;
	struct qy_lives lives; /* under figures.lock */
};

/* A sample. */
struct qy_life {
	uint32_t slot;         /* + 1; 0: none */
	uint32_t weight, group; /* so many objects it stands for; of its group */
	uint16_t class;
	uint8_t fast : 1, used : 3; /* used: so often of late (note.h) */
	uint8_t tag;           /* of the thread that made it; 0: none */
	uint64_t born; /* ns */
};

/* One that ended: it lived so long, and stands for so many of its group. */
struct qy_lived {
	uint64_t us;
	uint32_t group;
};

struct qy_figures {
	pthread_mutex_t walk; /* who looks at all; the sums */
	pthread_mutex_t lock; /* samples */
	struct qy_class_figures of[QY_FIGURES_CLASSES];
	struct qy_class_sum sums[QY_FIGURES_CLASSES], next[QY_FIGURES_CLASSES]; /* of the last walk; of this one */
	quarry_lanes_figures last;
	struct qy_lives lives[2]; /* born in the slow lane, in the fast one */
	uint32_t used, random;
	struct qy_life life[QY_LIVES];
	qy_counter fast_allocated, migrated, refaulted, cooled;
	uint64_t looks;        /* at use */
	_Atomic(bool) looking;
	uint64_t tagged[QUARRY_TAGS + 1]; /* objects, by the tags of those who made them: count */
	char name[32];
};

/* The calling thread's tag; 0: none. */
extern QY_HIDDEN __thread uint8_t qy_thread_tag __attribute__((tls_model("initial-exec")));

bool qy_figures_make(quarry_lanes *l, const char *name);
void qy_figures_in_child(quarry_lanes *l);

QY_INLINE struct qy_class_figures *qy_figures_of(quarry_lanes *l, unsigned class)
{
	return &l->figures->of[class < QY_CLASSES_MAX ? class : class == QY_CLASS_WHOLE ? QY_FIGURES_WHOLE : QY_FIGURES_HUGE];
}

/* An object of that slot is born, which stands for so many: the mark that its entry is to have, or 0. */
uint32_t qy_life_begin(quarry_lanes *l, uint32_t slot, unsigned class, bool fast, uint32_t weight, uint32_t group);
/* The mark again, for one whose entry was made anew. */
uint32_t qy_life_mark(quarry_lanes *l, uint32_t slot);
/* It is freed. */
struct qy_lived qy_life_end(quarry_lanes *l, uint32_t slot);

/* It has another slot. False: there is no place for it, and it is a sample no more. */
bool qy_life_move(quarry_lanes *l, uint32_t slot, uint32_t to);
void qy_lives_add(struct qy_lives *lives, uint64_t us, uint32_t weight);

/* All lanes that there are tell of themselves: with the registry's lock, or not. NULL: none of that number. The caller unlocks
 * figures.walk. */
quarry_lanes *qy_lanes_walk(uint32_t number, bool wait);

#endif
