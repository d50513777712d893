/* SPDX-License-Identifier: MIT */
/* Holding all managers, and the window, still around fork(2); and what families need of the registry. */
#ifndef QUARRY_MANAGER_REGISTRY_H
#define QUARRY_MANAGER_REGISTRY_H

#include "lib/manager/manager.h"

void qy_registry_fork_lock(void);
void qy_registry_after_fork(void);  /* in the child, first */
void qy_registry_fork_unlock(void); /* in the parent and in the child */

/* ---- inside ---- */

/* Over which managers there are. */
extern QY_HIDDEN struct qy_lock qy_registry_lock;

/* A manager in no slot, and one that nobody finds any more, to be used again. The lock is held. NULL with ENOMEM. */
struct qy_manager *qy_registry_make(const struct qy_placement *placement, int kind, const char *name);
void qy_registry_retire(struct qy_manager *m);

/* Make m the head of a family, and unmake that: its managers are retired. The lock is held. False with ENOMEM. */
bool qy_family_begin(struct qy_manager *m);
void qy_family_end(struct qy_manager *m);
/* Forget which manager serves which node. The lock is held. */
void qy_family_forget(struct qy_manager *m);

#endif
