/* SPDX-License-Identifier: MIT */
/* The machine of eight nodes, two of them with ids above 63, that the tests of placement run on; it is made before the
 * library starts. To be included once, by a test. */
#ifndef QUARRY_TESTS_EIGHT_NODES_H
#define QUARRY_TESTS_EIGHT_NODES_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cache/thread.h"
#include "lib/base/refused.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

#define NODES 8

static const int ids[NODES] = { 0, 1, 2, 3, 4, 5, 65, 1000 };

/* ---- the machine: node k has the CPUs 4k to 4k + 3 ---- */

static struct qy_os kernel;
static unsigned long mask_seen[FAKE_NODES / 64];
static unsigned long bits_seen;
static int mode_seen;
static long (*real_mbind)(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits,
			  unsigned flags);

/* Looks at what the kernel is given, bit by bit. */
static long watching_mbind(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits,
			   unsigned flags)
{
	memset(mask_seen, 0, sizeof(mask_seen));
	memcpy(mask_seen, mask, bits / 8 < sizeof(mask_seen) ? bits / 8 : sizeof(mask_seen));
	bits_seen = bits;
	mode_seen = mode;
	return real_mbind(addr, len, mode, mask, bits, flags);
}

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	char cpus[16];

	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_nodes("0-5,65,1000");
	for (int k = 0; k < NODES; k++) {
		snprintf(cpus, sizeof(cpus), "%d-%d", 4 * k, 4 * k + 3);
		fake_os_cpus(ids[k], cpus);
	}
	kernel = *qy_os;
	real_mbind = kernel.mbind;
	kernel.mbind = watching_mbind;
	qy_os = &kernel;
}

static uint64_t refused_before[QUARRY_REFUSED_COUNT];

static void begin(void)
{
	cr_assert(qy_start());
	cr_assert_eq(qy_node_count(), NODES);
	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++)
		refused_before[i] = qy_read(&qy_refused[i]);
}

/* How often since begin. */
static inline uint64_t refused(enum quarry_refusal cause)
{
	return qy_read(&qy_refused[cause]) - refused_before[cause];
}

static inline uint64_t all_refused(void)
{
	uint64_t n = 0;

	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++)
		n += refused(i);
	return n;
}

#endif
