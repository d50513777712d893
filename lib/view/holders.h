/* SPDX-License-Identifier: MIT */
/* The rows of quarry_view_holders, for who prints them. */
#ifndef QUARRY_VIEW_HOLDERS_H
#define QUARRY_VIEW_HOLDERS_H

#include "lib/view/profile.h"
#include "lib/view/use.h"

#define QY_HOLDERS_MAX ((size_t)1024) /* rows at a time */

struct qy_holder {
	const struct qy_site *site;
	struct qy_site_figures figures;
	uint64_t ages[QY_SITE_LIVES]; /* weights */
};

/* Those with most bytes, in that order, at most max, which is at most QY_HOLDERS_MAX; returns how many there are. */
size_t qy_holders_get(const quarry_view_use *use, struct qy_holder *list, size_t max);

/* The rows that hold most for little, each with the stacks that hold it, where the profile knows any: as text, or as a
 * member of a JSON object. (holders_print.c) */
void qy_holders_text(struct qy_text *out, const struct qy_uses *uses);
void qy_holders_json(struct qy_text *out, const struct qy_uses *uses);

#endif
