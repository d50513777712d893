/* SPDX-License-Identifier: MIT */
/* The heap profile (lib/manager/sites.h), for its writers. */
#ifndef QUARRY_VIEW_PROFILE_H
#define QUARRY_VIEW_PROFILE_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"
#include "lib/manager/sites.h"

/* A site's figures at one look: they do not contradict each other. */
struct qy_site_figures {
	uint64_t made, live;                     /* samples */
	uint64_t made_objects, live_objects;     /* that they stand for */
	uint64_t made_bytes, live_bytes;
	uint64_t asked, asked_live;              /* bytes that were asked for, of the samples */
};

void qy_site_figures(const struct qy_site *s, struct qy_site_figures *f);

/* What is loaded, and can be executed. */
struct qy_object {
	uintptr_t from, to, offset; /* addresses, and where in the file the first one is */
	char name[256];             /* of the file; may be empty */
	uint8_t id[32];             /* its build id, */
	unsigned id_length;         /* and how long that is; 0: none */
};

/* Fills at most max; returns how many there are. */
size_t qy_objects(struct qy_object *list, size_t max);

/* The name of a site's arena: at most QUARRY_ARENA_NAME_MAX bytes with the 0. */
void qy_site_arena(const struct qy_site *s, char *name);
#define QY_FRAME_NAME 512 /* bytes of a name, with the 0; what is longer is cut */

/* A function, as far as its object exports it; or the object and where in it. A name that would break a line, or the
 * list of a stack's frames, has those characters replaced. */
void qy_put_frame(struct qy_text *out, const void *address);
int qy_site_node(const struct qy_site *s); /* by the kernel's id, or -1 */

/* The function that it returns to, as far as its object exports it; else NULL. */
const char *qy_frame_symbol(const void *address);

/* As profile.proto, gzipped. 0; or -1 with errno. */
int qy_pprof_write(int fd, uint64_t mean);

#endif
