/* SPDX-License-Identifier: MIT */
/* The program's functions for what becomes of regions (quarry_on_region). Unlike events (events.h) they are told at once,
 * by the thread that does it, before it asks the kernel: whoever has registered memory must let go of it first.
 *
 * There is no lock around a call. Each place says how many threads are in it; who takes a function out of its place waits
 * until it is nobody, and a place is used again only then. What is read after counting oneself in is what was set before,
 * or nothing.
 *
 * What is held meanwhile: by those who give back, the purge lock, which nobody waits for who allocates or frees (but who
 * was refused); by those who map, nothing, but they have entered. */
#ifndef QUARRY_MANAGER_REGIONS_H
#define QUARRY_MANAGER_REGIONS_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

/* As quarry_on_region: 0, or -1 with errno. */
int qy_regions_listen(quarry_region_fn *fn, void *ctx, unsigned kinds);

bool qy_regions_heard(void);   /* somebody is told */
bool qy_regions_telling(void); /* the calling thread is in such a function */

/* In a forked child: what was inherited goes in silence, where it never was there. */
void qy_regions_hush(bool on);
void qy_regions_after_fork(void);

#endif
