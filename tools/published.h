/* SPDX-License-Identifier: MIT */
/* What another process has published (quarry_published), found and copied. */
#ifndef QUARRY_TOOLS_PUBLISHED_H
#define QUARRY_TOOLS_PUBLISHED_H

#include <sys/types.h>

#include "tools/tools.h"

#include "include/quarry/quarry.h"

/* A mapping of another process. */
struct place {
	uint64_t address, length;
};

#define PLACES 8

struct published {
	int pid;
	int known_as;             /* the process's number as it knows it itself; 0: not known */
	struct place places[PLACES];
	unsigned place_count;     /* 0: not looked for yet; more than 1: not known yet which is its page */
	void *copy;
	size_t size;              /* of what there is of it */
	pid_t left;               /* a reader that could not be ended; 0: none */
	char program[64];         /* its name, as the kernel has it; any bytes */
	uint64_t started;         /* clock ticks since the machine was, from /proc/PID/stat */
	uint64_t stack;           /* where the program's begins, from there; 0: not told */
	char error[256];
	bool gone;                /* it has ended, or is another program now: it will not be read again */
	uint64_t minor, major;    /* page faults since it was */
};

/* A process's number out of an argument. An error is told. */
enum status published_pid(const char *command, const char *text, int *pid);

/* Copy the page, and what /proc says beside it. An error's one line stands in p->error. After the first time the same is
 * looked for: a process that took the number, or the place, of the one of before is an error. */
enum status published_read(struct published *p);

/* Whether the process has ended. */
bool published_ended(struct published *p);

/* A descriptor that can be read from when the process has ended (Linux 5.3); -1 with errno. It may have ended just
 * before, and its number be another's. */
int published_process(const struct published *p);

void published_end(struct published *p);

/* The kernel's clock that pages have their times of, ns. */
uint64_t published_now(void);

#endif
