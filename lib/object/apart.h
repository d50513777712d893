/* SPDX-License-Identifier: MIT */
/* Samples: with the option checked every 64th block of the nodes' arenas has pages of its own, so that these can be
 * closed when it ends (quarantine.h). The idea is that of GWP-ASan (Serebryany and others, "GWP-ASan: Sampling-Based
 * Detection of Memory-Safety Bugs in Production", ICSE-SEIP 2024), without its guard pages and its pool of addresses: samples are
 * memory of the arena like any other.
 *
 * Which blocks are samples stands in a table of 256 addresses, from before anybody has the block until its memory goes; no
 * lock. A block that is freed behind its count leaves its address there, which costs a place until a block there ends, and
 * closes nothing that is not whole pages. */
#ifndef QUARRY_OBJECT_APART_H
#define QUARRY_OBJECT_APART_H

#include "lib/base/base.h"

#define QY_APART_EVERY 64
#define QY_APART_MOST 256

/* Whether the next block is to be a sample. */
bool qy_apart_is_due(void);

/* The block at p is one. False where the table is full there. */
bool qy_apart_note(const void *p);

bool qy_apart_has(const void *p);
void qy_apart_forget(const void *p);
void qy_apart_forget_all(void);

#endif
