/* SPDX-License-Identifier: MIT */
/* What is noted of objects that have a tag: their last moves, and how often they are used. A note hangs on the record of its slot
 * (group.h), and ends with the object or its tag. Notes, and sums by tag, are groups.lock's.
 *
 * How often an object is used is what the mark of cold memory tells (QUARRY_WORD_UNSEEN): the first who gets it takes that away, on
 * the slow path. Where there is no cold memory nobody else sets it, and a look does; where there is, passes do, and a look comes
 * just before one. */
#ifndef QUARRY_LANES_NOTE_H
#define QUARRY_LANES_NOTE_H

#include "include/quarry/track.h"
#include "lib/lanes/group.h"

struct qy_note {
	struct qy_link link; /* of all: groups.notes */
	uint32_t slot, units; /* units: of 16 bytes, that its tag counts for it */
	uint8_t tag, used;
	uint64_t moves;
	quarry_moved moved[QUARRY_MOVES_KEPT]; /* the how manyth modulo that */
};

struct qy_tag_sum {
	uint64_t objects, bytes, came, moved;
};

/* Under groups.lock: the object of this slot, which has a record, was moved; is over. */
void qy_note_move(quarry_lanes *l, uint32_t slot, int why, int from, int to);
void qy_note_end(quarry_lanes *l, uint32_t slot);
/* The lanes end. */
void qy_notes_end(quarry_lanes *l);
/* Look which objects were got since the look before: how many were looked at. mark: have the next look know again. */
int64_t qy_usage_pass(quarry_lanes *l, bool mark);

/* ---- tags.c ---- */

/* The number of a name, which it gets now if it had none: 1 to QUARRY_TAGS; 0 with EINVAL, ENOMEM, ENOSPC. */
uint8_t qy_tag_number(const char *name);
/* The name of one; NULL: nobody has it. */
const char *qy_tag_name(unsigned tag);
/* Under figures.walk and groups.lock: the figures of a tag; false: it has none. wait: for samples; else they may be left out. */
bool qy_tag_part(quarry_lanes *l, unsigned tag, quarry_lanes_part *part, bool wait);

#endif
