/* SPDX-License-Identifier: MIT */
/* The inside of the fake kernel, shared by its files: tests/fake_os.c (refusing, the clock, the table),
 * tests/fake_machine.c (nodes, CPUs), tests/fake_files.c (sysfs), tests/fake_memory.c (mappings, huge page pools) and
 * tests/fake_policy.c. Tests include tests/fake_os.h alone, and link all of them.
 *
 * Everything here is under fake_lock, which is held by the caller. */
#ifndef QUARRY_TESTS_FAKE_MACHINE_H
#define QUARRY_TESTS_FAKE_MACHINE_H

#include <pthread.h>

#include "tests/fake_os.h"

#define FAKE_MASK_WORDS (FAKE_NODES / (8 * sizeof(unsigned long)))

struct fake_mask {
	unsigned long words[FAKE_MASK_WORDS];
};

enum { FAKE_POOL_2M, FAKE_POOL_1G, FAKE_POOLS };

struct fake_node {
	bool online, allowed;
	uint64_t total, available;
	uint64_t pool[FAKE_POOLS]; /* pages not faulted in */
	uint64_t pool_total[FAKE_POOLS];
};

struct fake_machine {
	struct fake_node node[FAKE_NODES];
	int16_t cpu_node[FAKE_CPUS]; /* -1: no such CPU */
	int cpus;                    /* the highest CPU there is, + 1 */
	int newest_policy;
	uint64_t reserved[FAKE_POOLS]; /* pages that mappings have a right to and have not faulted in */
};

extern struct fake_machine fake;
extern pthread_mutex_t fake_lock;

static inline bool fake_mask_has(const struct fake_mask *mask, int node)
{
	const int bits = 8 * sizeof(mask->words[0]);
	return mask->words[node / bits] >> (node % bits) & 1;
}

static inline void fake_mask_add(struct fake_mask *mask, int node)
{
	const int bits = 8 * sizeof(mask->words[0]);
	mask->words[node / bits] |= 1ul << (node % bits);
}

void fake_stop(const char *what); /* a mistake of the test: says so and aborts */
int fake_distance_of(int from, int to);
int fake_caller_node(void);                        /* of the CPU that the calling thread is on; -1 */
bool fake_usable(int node);                        /* online, has memory, allowed */
int fake_pool_of(unsigned huge_shift);             /* the index of a pool; -1 when the kernel has no such size */

void fake_machine_reset(void);
void fake_memory_reset(void);
void fake_files_reset(void);
/* The calls of the table, after failures were looked at. */
int fake_getcpu(unsigned *cpu, unsigned *node);
long fake_mems_allowed(unsigned long *mask, unsigned long bits);
void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int fake_munmap(void *addr, size_t len);
int fake_madvise(void *addr, size_t len, int advice);
void *fake_mremap_away(void *old, size_t len, void *hint);
void *fake_mremap_to(void *old, size_t len, void *to);
int fake_mincore(void *addr, size_t len, unsigned char *vec);
long fake_mbind(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits, unsigned flags);
long fake_set_mempolicy(int mode, const unsigned long *mask, unsigned long bits);
long fake_get_mempolicy(int *mode, unsigned long *mask, unsigned long bits, void *addr, unsigned long flags);
long fake_move_pages(unsigned long count, void **pages, const int *nodes, int *status, int flags);
int fake_memfd(const char *name, unsigned flags);
int fake_allocate(int fd, uint64_t at, uint64_t len);
int fake_page_is_huge(const void *addr, bool *huge);
ssize_t fake_read_file(const char *path, char *buffer, size_t size);

#endif
