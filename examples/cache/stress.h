/* SPDX-License-Identifier: MIT */
/* Work for a cache that can be checked afterwards, whoever was killed in it. */
#ifndef CACHE_STRESS_H
#define CACHE_STRESS_H

#include "store.h"

/* Sets, deletes, counts and reads until it is killed, or `ops` are done (0: without end), with keys of this id alone, which nobody else may
 * be given; what has returned is told on standard output, a line each. 0; 3 where a value is not what its writer wrote. */
int stress(struct cache *c, unsigned long id, unsigned long ops);

/* Look whether all that was told in the logs of such is so, when `killed` of their writers were killed. 0; 1 where not; 2 where that
 * cannot be told, since the cache was full and entries went. */
int stress_verify(struct cache *c, unsigned long killed, char **logs);

#endif
