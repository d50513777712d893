/* SPDX-License-Identifier: MIT */
/* Samples: with the option checked every 64th block of the nodes' arenas has pages of its own, so that these can be
 * closed when it ends (quarantine.h). The idea is that of GWP-ASan (Serebryany and others, "GWP-ASan: Sampling-Based
 * Detection of Memory-Safety Bugs in Production", ICSE-SEIP 2024), without its guard pages and its pool of addresses: samples are
 * memory of the arena like any other.
 *
 * Which blocks are samples stands in a table of 256 addresses, from before anybody has the block until it ends; no lock. An
 * address may stand in 8 places. Where these are taken, a new sample gets one of them all the same, by turns: the block
 * whose place it was keeps its pages, and ends as one that is no sample. So whoever lives is a sample still with a chance that
 * falls with the samples made since (by about a 256th with each, once the table is full): blocks that live for ever do not
 * keep others from being samples, and those that live for long have a chance. (The oldest one out would leave none to what
 * outlives 256 samples.) Samples that live cost 64 bytes a block, a page for each 64th, however many there are.
 *
 * A block that is freed behind its count leaves its address there, which costs a place until a block there ends or another
 * sample gets it, and closes nothing that is not whole pages. */
#ifndef QUARRY_OBJECT_APART_H
#define QUARRY_OBJECT_APART_H

#include "lib/base/base.h"

#define QY_APART_EVERY 64
#define QY_APART_MOST 256

/* Whether the next block is to be a sample. */
bool qy_apart_is_due(void);

/* The block at p is one. */
void qy_apart_note(const void *p);

bool qy_apart_has(const void *p);
void qy_apart_forget(const void *p);
void qy_apart_forget_all(void);

#endif
