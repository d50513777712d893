/* SPDX-License-Identifier: MIT */
/* The frames of the profile's places, for writers that number them: each once, in the order of its address, and the module
 * that it is in. What comes to the profile afterwards is not in it. */
#ifndef QUARRY_VIEW_FRAMES_H
#define QUARRY_VIEW_FRAMES_H

#include "lib/view/profile.h"

#define QY_MODULES_MAX 4096 /* loaded files that are told of */

struct qy_frames {
	uintptr_t *call; /* the addresses, which are in the calls: what a stack has is behind them */
	size_t count, room, mapped;
	size_t modules;
	struct qy_object module[QY_MODULES_MAX]; /* as they were loaded: the program is the first */
	struct {
		uintptr_t from;
		size_t number;
	} order[QY_MODULES_MAX]; /* by address */
};

/* Of all places, or of those that have living samples, in a mapping of its own. NULL with ENOMEM. */
struct qy_frames *qy_frames_get(bool living);
void qy_frames_put(struct qy_frames *f);

uintptr_t qy_call_of(const struct qy_site *s, uint32_t frame);

/* The frame's number; f->count: there is none. */
size_t qy_frame_number(const struct qy_frames *f, uintptr_t call);

/* Whether all frames of a place have one. */
bool qy_frames_know(const struct qy_frames *f, const struct qy_site *s);

/* The number of the module that an address is in; f->modules: none. */
size_t qy_frame_module(const struct qy_frames *f, uintptr_t call);

#endif
