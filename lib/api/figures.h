/* SPDX-License-Identifier: MIT */
/* The figures of struct quarry_stats and the refusals by name, for quarry_ctl_get and the printers: one table, so that
 * a field that is added there is printed and can be asked for once it has a line here. quarry_refusal_name is here.
 * No state, no lock. */
#ifndef QUARRY_API_FIGURES_H
#define QUARRY_API_FIGURES_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

#define QY_PAGE_KINDS 5 /* of enum quarry_page_kind */

struct qy_figure {
	const char *name; /* the field's */
	size_t offset;    /* of the uint64_t in struct quarry_stats */
};

/* The index-th figure that is one number; NULL past the last. Arrays (kinds, refusals) are not among them. */
const struct qy_figure *qy_figure(int index);
uint64_t qy_figure_value(const struct qy_figure *figure, const quarry_stats *stats);

/* The figures as the caller of a version knows them (1 to QUARRY_STATS_VERSION, in older->version): nothing behind the end of
 * the struct as it was then is written to. */
void qy_stats_as(quarry_stats *older, const quarry_stats *stats);

/* "auto", "base", "thp", "2m", "1g": the names that the option `pages` takes. */
const char *qy_page_kind_name(int kind);

/* Look a figure up: "mapped", "kind_wanted.thp", "kind_got.2m", "refused.mbind-eperm". */
bool qy_figure_find(const quarry_stats *stats, const char *name, uint64_t *value);

#endif
