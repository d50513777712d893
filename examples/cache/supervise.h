/* SPDX-License-Identifier: MIT */
/* Warm restart: one process holds the memory's descriptor, and nothing else; those that work with it come and go, in old versions and
 * new ones. */
#ifndef CACHE_SUPERVISE_H
#define CACHE_SUPERVISE_H

#include <stdint.h>

/* Hold a volatile cache: hand its descriptor to whoever connects to the socket at path (of our own user), and run a command, where there is
 * one, with CACHE_FD in its environment; when that is killed, it is started anew, and finds all that was there; when it ends by
 * itself, or cannot be started, so does this. Until SIGTERM or SIGINT: the command has SIGTERM then, and is killed by a second one or after
 * five seconds. It is killed with this process as well; what it has started itself, and who has asked for the descriptor, keep the memory that
 * nobody finds any more. Of a path there is one supervisor: it has the file PATH.lock locked.
 * A status for exit(3). */
int supervise(const char *path, uint64_t limit, char **command);

/* The descriptor, from the supervisor there; from the environment. The caller's; -1 with errno. */
int supervisor_ask(const char *path);
int supervised_fd(void);

#endif
