/* SPDX-License-Identifier: MIT */
/* What requests do. */
#ifndef KVSTORE_COMMANDS_H
#define KVSTORE_COMMANDS_H

#include "client.h"

/* What INFO and CONFIG tell of the server. */
extern struct server {
	bool stopping;
	int port;
	int64_t began; /* milliseconds since 1970 */
	size_t clients, clients_max;
	uint64_t connections, commands, refused; /* refused: connections that were one too many */
	uint64_t hits, misses;
} server;

/* Of the requests that are ready: their keys will be looked for. */
void commands_foresee(const struct client *c);
/* Carry out a request that has arguments. */
void command_run(struct client *c);

#endif
