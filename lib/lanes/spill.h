/* SPDX-License-Identifier: MIT */
/* The file that cold extents go to: space in it by units of 4 KiB. It has no name and ends with the process. A file that
 * is full or fails is left alone for a while; what it has can be read meanwhile. */
#ifndef QUARRY_LANES_SPILL_H
#define QUARRY_LANES_SPILL_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/base/base.h"

#define QY_SPILL_UNIT ((uint64_t)4 << 10)
#define QY_SPILL_CLASSES 64

/* Space, as whoever has it knows it. size 0: none. */
struct qy_spilled {
	uint64_t at;
	uint32_t size, age; /* age: forks before it was written */
};

/* Under the store's lock, but for failures and `again`. */
struct qy_spill {
	int fd;         /* -1: no file */
	bool read_only; /* a child's: the file is its parent's */
	uint32_t forks;
	uint64_t end, limit;
	struct {
		uint64_t *at;
		uint32_t count, room;
	} free[QY_SPILL_CLASSES]; /* by units, or by powers of two of them */
	_Atomic(uint64_t) failures, again; /* again: when it may be written to again, ms; 0: now */
};

/* directory NULL: no file, which is no error. 0; -1 with the error that opening has. */
int qy_spill_open(struct qy_spill *s, const char *directory, uint64_t limit);
void qy_spill_close(struct qy_spill *s);
bool qy_spill_ready(struct qy_spill *s);
/* lock: the store's, not held. 0; -1: it is left alone for a while. */
int qy_spill_write(struct qy_spill *s, pthread_mutex_t *lock, struct qy_spilled *to, const void *bytes, uint32_t size);
int qy_spill_read(struct qy_spill *s, const struct qy_spilled *from, void *to, uint32_t offset, uint32_t size);
/* Under the store's lock. What a forked child may read is not used again. */
void qy_spill_free(struct qy_spill *s, struct qy_spilled *spilled);
void qy_spill_forked(struct qy_spill *s, bool child);
uint64_t qy_spill_failures(struct qy_spill *s);

#endif
