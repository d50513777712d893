/* SPDX-License-Identifier: MIT */
/* Writing a dump (doc/view-format.md), for dump.c, which has what the view tells, and dump_stacks.c. */
#ifndef QUARRY_VIEW_DUMP_H
#define QUARRY_VIEW_DUMP_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

enum qy_dump_record {
	QY_DUMP_REPORT = 1, QY_DUMP_ARENA, QY_DUMP_REGION, QY_DUMP_SLAB, QY_DUMP_BLOCK, QY_DUMP_STACK, QY_DUMP_END,
	QY_DUMP_PROFILE, QY_DUMP_MODULE, QY_DUMP_FRAME
};

struct qy_dump {
	struct qy_text out;
	bool json;
	uint64_t records;
	uint32_t *arena_number; /* and 1 more, of those that were told of, by their place in the registry */
	uint32_t arena_count;
	/* Of the slab whose objects come: */
	const char *slab;
	uint64_t left; /* so many of them */
	bool mixed, first;
	int state;    /* of so many objects in a row; or of those that stand in a byte: */
	uint32_t run, bits;
};

/* A number of so many bytes, at most 8; and what comes before a record of so many bytes. (Of JSON, it is counted.) */
void qy_dump_put(struct qy_dump *d, uint64_t n, unsigned bytes);
void qy_dump_begin(struct qy_dump *d, enum qy_dump_record type, uint64_t bytes);

/* What the profile knows of who allocated it, if one is or was kept. False with ENOMEM. */
bool qy_dump_stacks(struct qy_dump *d);

#endif
