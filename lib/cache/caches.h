/* SPDX-License-Identifier: MIT */
/* A thread's caches come and go. A thread's list is its own; the viewer walks it with the registry's lock held,
 * while the thread goes on: what is taken out still leads on to where it did. */
#ifndef QUARRY_CACHE_CACHES_H
#define QUARRY_CACHE_CACHES_H

#include "lib/cache/thread.h"

/* Take one of a thread's caches (where its list leads to it), or all of them, from it, to be used again. Their heaps
 * were given up. */
void qy_cache_drop(struct qy_thread *t, struct qy_cache **at);
void qy_caches_drop(struct qy_thread *t);

/* The manager ends, and nobody holds anything for its heaps any more: its unused caches are for any. */
void qy_caches_release(struct qy_manager *m);

#endif
