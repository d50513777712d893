/* SPDX-License-Identifier: MIT */
/* What is known of sampled allocations (lib/cache/sample.h): the places in the program that they were made at, with
 * counts, and each one that lives.
 *
 * A site is a stack, with what makes samples of it alike: size, arena and node. Sites are type-stable: their memory is
 * never anything else, they are found without a lock, and stay; there are 200,000 of them at most, and what comes then is
 * known without a stack.
 * Live samples are in tables by address, each with a lock of its own; nothing is taken inside it.
 *
 * A sample stands for as many objects as its size and the mean say (its weight: Poisson sampling by bytes takes an
 * object of s bytes with the probability 1 - exp(-s / mean)). Sums of weights are in units of 1 / QY_WEIGHT_ONE.
 *
 * In a child forked in the middle of anything here, all is sound: an entry counts from when its address was written. */
#ifndef QUARRY_MANAGER_SITES_H
#define QUARRY_MANAGER_SITES_H

#include "lib/base/base.h"

#define QY_SITE_BUCKETS 16384
#define QY_SITE_FRAMES 64 /* of a stack, at most: the innermost */
#define QY_SITE_LIVES 8   /* how long samples lived: under 1 ms, 10 ms, ... 1000 s, and more */
#define QY_WEIGHT_ONE 256

struct qy_site {
	struct qy_site *next; /* of the same bucket */
	uint64_t hash;
	size_t size;          /* bytes that can be used of each */
	uint16_t arena;       /* by its index in the registry */
	int16_t node;         /* dense; -1: none */
	uint32_t depth;
	/* Of all samples: how many were made and are freed, how many objects they stand for, and the bytes that were
	 * asked for with them. */
	_Atomic(uint64_t) made, freed;
	_Atomic(uint64_t) made_weight, freed_weight;
	_Atomic(uint64_t) asked, asked_freed; /* (what was resized where it is: the last time) */
	_Atomic(uint64_t) lives[QY_SITE_LIVES]; /* weights */
	void *frames[];
};

/* One that lives. */
struct qy_sample {
	uintptr_t address; /* 0: there is none here; 1: there was one */
	struct qy_site *site;
	size_t asked;      /* bytes */
	uint64_t born;     /* ms */
	uint64_t weight;
};

extern QY_HIDDEN _Atomic(uint64_t) qy_samples_live;
extern QY_HIDDEN _Atomic(uint64_t) qy_samples_lost; /* for which there was no memory */

/* The site, made when there is none yet. NULL with no memory. */
struct qy_site *qy_site_get(void *const *frames, uint32_t depth, size_t size, uint16_t arena, int16_t node);

/* A sampled object was allocated. False, and it is counted as lost, when there is no memory. */
bool qy_sample_add(const void *p, const struct qy_sample *sample);

void qy_sample_put_back(const void *p, const struct qy_sample *sample); /* as it was before it was taken out */

/* If p is one: it was resized where it is, and has room for the new size. It is the same sample, of the same age. */
void qy_sample_asked(const void *p, size_t asked);

/* One is about to be freed: false when it is none that was sampled. */
bool qy_sample_take_out(const void *p, struct qy_sample *sample);
void qy_sample_ended(const struct qy_sample *sample); /* and was */

/* All in an arena ended with it. */
void qy_samples_forget(uint16_t arena);

/* Which of so many decades a time is of: QY_SITE_LIVES. */
unsigned qy_site_decade(uint64_t ms);

/* What a live sample is; false when p is none. */
bool qy_sample_find(const void *p, struct qy_sample *sample);

/* Where the addresses of live samples stand: memory that leads to what lives, and is none of the program's. */
void qy_samples_memory(void (*tell)(void *ctx, const void *from, size_t bytes), void *ctx);

/* All sites there are. They go on counting meanwhile. */
void qy_sites_visit(void (*visit)(void *ctx, const struct qy_site *s), void *ctx);
void qy_samples_visit(void (*visit)(void *ctx, const struct qy_sample *s), void *ctx); /* with a table's lock held */

/* Begin anew: counts of what was made and freed are 0, and what lives counts on. */
void qy_sites_reset(void);

void qy_sites_after_fork(void); /* in the child */

#endif
