/* SPDX-License-Identifier: MIT */
/* The suite that runs on a machine of many nodes. Every test is a process of its own, started anew (so that quarry
 * starts in it, under the test's options, cpuset and filters), and has the kernel for its judge: move_pages(2),
 * get_mempolicy(2), /proc/self/numa_maps, /proc/kpageflags, /sys/devices/system/node. What quarry says of itself is
 * only ever compared with that.
 *
 *   suite [--topology NAME] [--seed N] [--full] [--operations N] [--seconds N] [--times]
 *         [--list] [GROUP | GROUP/TEST]...
 *
 * Tests look at what the machine has and leave out what it cannot show, aloud. */
#ifndef QUARRY_TESTS_NUMA_SUITE_H
#define QUARRY_TESTS_NUMA_SUITE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define PAGE ((size_t)4096)
#define PAGE_2M ((size_t)2 << 20)
#define MIB ((size_t)1 << 20)
#define IDS QUARRY_NODES_MAX

/* ---- tests ---- */

struct test {
	const char *group, *name;
	void (*run)(void);
	bool (*prepare)(void); /* before quarry is there: in the new process, before it starts the suite again */
	const char *options;   /* QUARRY_OPTIONS */
	unsigned seconds;      /* until it counts as hanging; 0: a default */
	int a, b;              /* a test that is one of a table: its row and column */
};

extern const struct test *this_test;

void add_test(const struct test *t);
#define TEST(group_of, name_of, function, ...)                                                                        \
	add_test(&(struct test){ .group = group_of, .name = name_of, .run = function, ##__VA_ARGS__ })

void add_matrix(void);
void add_lanes(void);
void add_local(void);
void add_traffic(void);
void add_thread(void);
void add_exhaust(void);
void add_hugetlb(void);
void add_fork(void);
void add_cpuset(void);
void add_move(void);
void add_nodes(void);
void add_where(void);
void add_buffers(void);
void add_fallback(void);
void add_pressure(void);

struct options {
	const char *topology;
	uint64_t seed;
	bool full;           /* all of the matrix */
	uint64_t operations; /* of the traffic test */
	unsigned seconds;    /* of the producer and its consumer */
	bool times;          /* print how long each test took */
};

extern struct options options;

/* Any of the test's threads may call these; they do not return. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* A line about figures, which decides nothing. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(x, ...) ((x) ? (void)0 : fail("" __VA_ARGS__))
#define MUST(x) ((x) ? (void)0 : fail("%s:%d: %s (errno %d, %s)", __FILE__, __LINE__, #x, errno, strerror(errno)))

/* So many pages have been seen to be where they were promised. */
void count_pages(uint64_t pages);

/* ---- the machine, as the kernel has it ---- */

struct node {
	int id;
	bool has_cpus, has_memory;
	cpu_set_t cpus;
	int distance[128]; /* to machine.node[i] */
	uint64_t total;    /* bytes */
};

struct machine {
	int count;
	struct node node[128];
	int memories, memory[128];    /* those with memory: indices of node */
	int processors, processor[128]; /* those with CPUs */
	int homes, home[128];         /* those with both */
	int cpus;
};

extern struct machine machine;

void machine_read(void);
int node_index(int id);
uint64_t node_free(int id);      /* bytes */
long pool(int id, const char *file); /* of 2 MiB pages: "nr", "free"; -1: no such pool */
/* Have so many 2 MiB pages free on a node, and no more; false when they are not to be had. */
bool pool_set(int id, long pages);
void pools_save(void);
void pools_restore(void);
/* So many on each node with memory; leaves the test out when they are not to be had. */
void need_pools(long pages);
void need_thp(void);
void need_nodes(int with_memory, int with_both);

long read_long(const char *path); /* -1 when it cannot be read */
bool read_text(const char *path, char *buffer, size_t size);
bool write_text(const char *path, const char *text);
uint64_t vmstat(const char *name);
uint64_t now_ms(void);
void pause_ms(unsigned ms);
/* For threads that work beside a fork or a move of pages, once an operation: a CPU that never rests makes both wait for it, under
 * emulation for very long. */
void rest_now_and_then(uint64_t operations);

/* ---- this process, as the kernel has it ---- */

struct tally {
	uint64_t on[IDS];
	uint64_t total, absent, odd; /* odd: neither on a node nor absent */
	const void *first_foreign;
};

/* Ask where the pages are that [p, p + n) touches, and add them up. */
void tally_add(struct tally *t, const void *p, size_t n);
void tally_add_of(pid_t pid, struct tally *t, const void *p, size_t n);
/* Pages outside of the set, absent ones too. */
uint64_t tally_foreign(const struct tally *t, const quarry_nodeset *set);
/* "node 0: 12, node 3: 4, absent: 1" */
const char *tally_text(const struct tally *t, char *buffer, size_t size);

/* All pages are on the set's nodes: they are counted; else the test fails. */
void verify_tally(const struct tally *t, const quarry_nodeset *set, const char *what);
void verify_on(const void *p, size_t n, const quarry_nodeset *set, const char *what);
void verify_on_node(const void *p, size_t n, int id, const char *what);
int node_of_page(const void *p); /* the kernel's id; below 0 as move_pages(2) says */
void nodes_of_pages(void **pages, int *nodes, unsigned long count); /* the same, of many in one call */
int policy_of(const void *p, unsigned long mask[IDS / 64]); /* of its mapping; -1 */

/* Pages of the whole process on each node, by numa_maps, in units of 4 KiB. */
void process_pages(uint64_t on[IDS]);
void process_pages_with(const char *policy, uint64_t on[IDS]); /* of mappings with that in their lines */
uint64_t process_pages_on(int id);
/* khugepaged may make one of any memory of the process, the test's own too, 512 pages where one was: not while pages are
 * counted. */
void no_huge_pages_from_now_on(void);
uint64_t process_rss(void); /* pages */
/* From smaps_rollup, bytes. */
uint64_t rollup(const char *field);

enum { BACKED_BASE, BACKED_THP, BACKED_HUGETLB, BACKED_NOT, BACKED_UNKNOWN };
int backing(const void *p);

/* ---- threads, nodes and helpers ---- */

void pin_to_node(int id);
void pin_to_cpus_of(const quarry_nodeset *set);
void unpin(void);
quarry_nodeset one_node(int id);
quarry_nodeset all_memory(void);
bool set_empty(const quarry_nodeset *set);
void set_name(const quarry_nodeset *set, char *buffer, size_t size);
/* The nodes with memory of a set (empty: all) that are nearest to a node. */
quarry_nodeset nearest_of(const quarry_nodeset *set, int id);

/* A process that fills a node until so many bytes are free there; one that takes 2 MiB pages of a pool. */
struct helper {
	pid_t pid;
	int pipe;
};

struct helper fill_node(int id, uint64_t leave);
struct helper take_pool(int id, long leave);
void helper_must_live(struct helper *h);
void helper_end(struct helper *h);
int helper_main(int argc, char **argv);
int inside_main(int fd); /* of fallback.c's tests */

/* A control group of version 2 for this test, with a controller; the test is left out where there is none. */
void group_make(const char *controller);
bool group_set(const char *file, const char *text);
/* Its group is one of that name below the one that was made first; files of the others are "../memory.max". */
bool group_nest(const char *controller, const char *name);
bool group_join(void);
bool group_get(const char *file, char *buffer, size_t size);
/* The number behind the line's name, or that is all of the file (NULL). */
uint64_t group_number(const char *file, const char *line);

/* Have system calls answered with an error from here on (seccomp), as containers do. */
bool deny(const int *calls, int count, int error);

/* ---- random numbers and objects ---- */

uint64_t rnd(uint64_t *state);
uint64_t seed_of(unsigned which); /* for a thread of this test */

enum sizes { SMALL, LARGE, HUGE, SIZES };
extern const char *const size_names[SIZES], *const kind_names[], *const policy_names[];
size_t random_size(enum sizes sizes, uint64_t *state);

struct object {
	unsigned char *p;
	size_t size;
};

struct objects {
	struct object *list;
	size_t count, room, bytes;
	uint64_t state;
};

typedef void *allocate(void *ctx, size_t size);
void *from_arena(void *arena, size_t size);
void *from_malloc(void *unused, size_t size);

/* Allocate objects of about so many bytes in all and write them; false when memory ran out. */
bool objects_make(struct objects *o, enum sizes sizes, size_t bytes, allocate *from, void *ctx);
void objects_check(const struct objects *o); /* contents */
void objects_tally(const struct objects *o, struct tally *t);
void objects_free(struct objects *o);
void object_write(const struct object *o);
bool object_right(const struct object *o);
/* What quarry_where says of each page is what the kernel says. */
void objects_where(const struct objects *o, int policy_got, bool applied);

quarry_arena *make_arena(int policy, int kind, unsigned flags, const quarry_nodeset *nodes);
quarry_stats stats_of(quarry_arena *arena);
/* Poll until it is so or the time is over; work() is done between two looks. */
bool wait_until(bool (*so)(void *ctx), void *ctx, void (*work)(void *ctx), unsigned seconds);

#endif
