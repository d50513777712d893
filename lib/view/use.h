/* SPDX-License-Identifier: MIT */
/* The rows of quarry_view_uses, in a mapping of their own. Of the public visit alone: any program could do the same. */
#ifndef QUARRY_VIEW_USE_H
#define QUARRY_VIEW_USE_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

struct qy_uses {
	quarry_view_use *rows; /* those that are empty have no kind */
	size_t count;          /* with those */
	size_t mapped;
};

/* False with ENOMEM. What was got must be put. */
bool qy_uses_get(struct qy_uses *uses, const quarry_view *view);
void qy_uses_put(struct qy_uses *uses);

#endif
