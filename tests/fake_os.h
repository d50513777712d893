/* SPDX-License-Identifier: MIT */
/* A kernel for tests. It gives real memory (the memory calls go through to Linux) on a machine of its own making:
 * nodes with holes in their numbers, without memory, without CPUs; cpusets; pools of huge pages; a memory policy that
 * is remembered and answered by, but not enforced; and any call refused at will.
 *
 *	fake_os_install();                 // the table is in use from here on
 *	fake_os_nodes("0,2,65");           // three nodes, 1 GiB each, no CPUs yet
 *	fake_os_cpus(0, "0-3");
 *	fake_os_memory(2, 0, 0);           // node 2 has no memory
 *	fake_os_fail(FAKE_MBIND, EPERM);   // seccomp
 *	qy_topology_init(true);            // quarry now reads this machine
 *	…
 *	fake_os_remove();
 *
 * The machine after fake_os_install or fake_os_reset: one node 0 with CPUs 0-3 and 1 GiB, all of it free; no huge
 * pages in pools; everything allowed; every call works; the clock, the memory size and the address limit are the real
 * ones; the caller runs on CPU 0. quarry reads the topology once, so make the machine first and then start quarry
 * (qy_topology_init, or the whole library); fake_os_on_cpu, the pools, the failures and the clock may change at any
 * time.
 *
 * All functions may be called from any thread, and the table too. The fake allocates nothing by malloc, so it works
 * under quarry's own malloc. It does not follow a fork made while another thread is in it.
 *
 * What it simplifies: memory lies where its policy says, from the moment it is in memory (mincore says whether it is);
 * free memory of nodes is not used up by base pages (set it to 0 to make a node dry), pools are. */
#ifndef QUARRY_TESTS_FAKE_OS_H
#define QUARRY_TESTS_FAKE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numa/os.h"

#define FAKE_NODES 1024
#define FAKE_CPUS 16384

/* The calls of struct qy_os, for failing and counting. */
enum fake_call {
	FAKE_MMAP,
	FAKE_MUNMAP,
	FAKE_MPROTECT,
	FAKE_MADVISE,
	FAKE_MREMAP,
	FAKE_MLOCK,
	FAKE_MINCORE,
	FAKE_MBIND,
	FAKE_SET_MEMPOLICY,
	FAKE_GET_MEMPOLICY,
	FAKE_MOVE_PAGES,
	FAKE_GETCPU,
	FAKE_MEMS_ALLOWED,
	FAKE_READ_FILE,
	FAKE_MEMBARRIER,
	FAKE_PAGE_IS_HUGE,
	FAKE_TIMER_MAKE,
	FAKE_TIMER_SET,
	FAKE_MEMFD,
	FAKE_SET_SIZE,
	FAKE_SEAL,
	FAKE_ALLOCATE,
	FAKE_FILE_ID,
	FAKE_REOPEN,
	FAKE_READ_AT,
	FAKE_WRITE_AT,
	FAKE_NAMELESS_FILE,
	FAKE_CREATE_FILE,
	FAKE_OPEN_FILE,
	FAKE_REOPEN_TO_WRITE,
	FAKE_RANGE_LOCK,
	FAKE_PUNCH,
	FAKE_TRACK_WRITES,
	FAKE_OPEN_PAGEMAP,
	FAKE_WRITTEN,
	FAKE_OPEN_OF,
	FAKE_SYNC_DATA,
	FAKE_SYNC_DIRECTORY,
	FAKE_RENAME_FILE,
	FAKE_URING_REGISTER,
	FAKE_CALLS
};

/* ---- in and out of use ---- */

void fake_os_install(void); /* fake_os_reset, and qy_os is the fake */
void fake_os_remove(void);  /* qy_os is Linux again; what was mapped stays mapped */
void fake_os_reset(void);   /* the machine described above; counters and failures forgotten */

/* ---- the machine ---- */

/* The nodes that are online, as the kernel writes a list ("0,2-3,65"). Each has 1 GiB, all free, no CPUs, empty pools,
 * and is allowed. Aborts on a list that cannot be read. */
void fake_os_nodes(const char *list);

/* The CPUs of a node, as a list of numbers below FAKE_CPUS; "" for none. */
void fake_os_cpus(int node, const char *list);

/* A node's memory in bytes. total 0: a node without memory. available 0: a node that is full, see below. */
void fake_os_memory(int node, uint64_t total, uint64_t available);

/* The distance from one node to another, one way. Unless set: 10 to itself, 20 to any other. */
void fake_os_distance(int from, int to, int distance);

/* The cpuset: the nodes this process may allocate on. */
void fake_os_allowed(const char *list);

/* Free huge pages in a node's pool; huge_shift 21 (2 MiB) or 30 (1 GiB). */
void fake_os_pool(int node, unsigned huge_shift, uint64_t pages);
uint64_t fake_os_pool_left(int node, unsigned huge_shift); /* not yet faulted in or populated */

/* The CPU that getcpu says, for every thread, or (fake_os_this_thread_on_cpu) for the calling one; -1 undoes that. */
void fake_os_on_cpu(int cpu);
void fake_os_this_thread_on_cpu(int cpu);

/* What a path reads as, whatever the machine is; NULL: it is not there (ENOENT). At most 64 such paths, 8 KiB each. */
void fake_os_file(const char *path, const char *text);

/* No /sys and no /proc at all: read_file fails with ENOENT for everything that fake_os_file does not name. */
void fake_os_no_sysfs(void);

/* The newest memory policy that the kernel knows: QY_MPOL_WEIGHTED_INTERLEAVE unless set. Beyond it: EINVAL. */
void fake_os_newest_policy(int mode);

/* now_ms is this from now on, and moves only by fake_os_advance. */
void fake_os_clock(uint64_t ms);
void fake_os_advance(uint64_t ms);
/* cpu_ns is this from now on; 0: the process's own. */
void fake_os_cpu(uint64_t ns);

void fake_os_total_memory(uint64_t bytes);
void fake_os_address_limit(uint64_t bytes); /* what address_limit says; it is not enforced */

/* What prctl(PR_GET_THP_DISABLE) says: 0 (after a reset), 1 or 3. The kernel itself does not know of it. */
void fake_os_thp_disabled(int how);

/* Who says whether a thread is blocked in a system call, and how often it has switched; and what is set for a signal.
 * NULL: Linux. Called without a lock. */
void fake_os_threads(int (*blocked)(int tid), uint64_t (*switches)(int tid));
void fake_os_signals(int (*action)(int sig, struct qy_signal_action *action));

/* Who plays io_uring_register(2), called without a lock: what it returns, or -1 with errno. NULL: there is no io_uring
 * (ENOSYS). */
void fake_os_uring(int (*registers)(int fd, unsigned opcode, void *arg, unsigned count));

/* The timer: in how many ms it is to ring, 0 when it is at rest; and let it ring, by the caller's hand, in the midst of
 * a system call or not. No signal is sent, or handled. */
uint64_t fake_os_timer(void);
void fake_os_ring(bool waiting);
int fake_os_timer_signal(void); /* that timer_make was last asked for */

/* ---- refusing ---- */

void fake_os_fail(enum fake_call call, int err);                 /* always, with this errno; 0: works again */
void fake_os_fail_kth(enum fake_call call, unsigned k, int err); /* once: the k-th call from now, 1 being the next */
void fake_os_fail_from(enum fake_call call, unsigned k, int err); /* always, from the k-th call from now on */
void fake_os_fail_advice(int advice, int err);                   /* madvise with this advice (0 .. 127), always */
void fake_os_mremap_holes(bool leave); /* until healed: an mremap to a place that is failed has unmapped that place, as
                                        * MREMAP_FIXED may */
void fake_os_fail_numa(int err);                                 /* as seccomp does: mbind to mems_allowed, always */
void fake_os_heal(void);                                         /* every call works again */

/* ---- looking ---- */

unsigned long fake_os_calls(enum fake_call call); /* since the reset or fake_os_forget_calls, with those that failed */
unsigned long fake_os_advised(int advice);        /* madvise calls with this advice (0 .. 127) */
unsigned long fake_os_all_calls(void);            /* the sum over all calls but getcpu */
void fake_os_forget_calls(void);

/* The policy that mbind left at an address: its mode without flags, QY_MPOL_DEFAULT where none is. nodes, when not
 * NULL, receives the first max of its nodes, ascending; *count how many there are. */
int fake_os_policy_at(const void *addr, int *nodes, int max, int *count);

/* The node that a page at this address has, or would have when touched now by the caller. */
int fake_os_node_at(const void *addr);

/* ---- how the policy is played ----
 * mbind: EINVAL for a mode that the kernel does not know, for a set without an allowed node that has memory, for
 *	DEFAULT or LOCAL with a set; EFAULT for a range that is not mapped; what it replaces is split.
 * A page is: BIND, PREFERRED, PREFERRED_MANY: on the first node of the set that is not full, of a full set on the
 *	first (BIND) or on the nearest other that is not full; the interleaved ones: on the nodes in turn, page by
 *	base page from the start of the range that was bound; else: on the node of the calling CPU, or the nearest to
 *	it that has memory, is allowed and is not full.
 * Hugetlb mappings are base pages in truth, aligned like huge ones. Without MAP_NORESERVE, mmap fails with ENOMEM
 *	when the pools of all allowed nodes have less than is asked for beyond what is reserved. MADV_POPULATE_WRITE
 *	takes pages from the pool of the nodes that the policy names, and fails with EFAULT when they are dry.
 *	munmap gives them back. What is touched without having been populated is not taken from a pool.
 * MADV_POPULATE_WRITE elsewhere fails with ENOMEM when the policy is BIND and all its nodes are full.
 * move_pages: asked for places, the node by the rule above, -ENOENT for a page not in memory, -EFAULT for one not
 *	mapped; asked to move, ENODEV for a node that is not there or has no memory, EACCES for one not allowed, the
 *	new node from then on (a huge page of a pool as a whole, ENOMEM when the pool there is dry). What is in memory
 *	stays where it is when mbind comes. munmap and MADV_DONTNEED forget where a page was moved; mremap takes that
 *	and the policy along.
 * mremap: EFAULT for a range of two mappings, as kernels before 6.17 and all with MREMAP_DONTUNMAP say it: memory that
 *	was moved, and what was not or came from elsewhere, are two, whether touched or not.
 * memfd: a file of Linux's; one of huge pages is of base pages in truth, and mapping it is as a hugetlb mapping that is
 *	reserved. Its pages go back to the pool with the mapping, which a test that maps a file twice has to know.
 *	allocate has Linux do it, and takes huge pages for the mapping that there is.
 * page_is_huge: hugetlb mappings are when in memory; of all others Linux tells. */

#endif
