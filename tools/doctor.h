/* SPDX-License-Identifier: MIT */
/* What the files of `quarry doctor` share: doctor.c (the checks in order, calls, limits), doctor_nodes.c (nodes),
 * doctor_pages.c (huge pages), doctor_process.c (a process), doctor_print.c (the report). */
#ifndef QUARRY_DOCTOR_H
#define QUARRY_DOCTOR_H

#include "include/quarry/quarry.h"
#include "tools/tools.h"

#define SYS_NODES "/sys/devices/system/node/"
#define NODE_HUGE SYS_NODES "node%d/hugepages"
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

enum state { OK, LACK, UNKNOWN };

struct finding {
	const char *name; /* at most 19 characters */
	enum state state;
	char detail[200], cost[200], fix[300];
};

/* A new one, with no text yet; it stands in the report where it was made. */
struct finding *find(const char *name, enum state state);

#define detail(f, ...) format_into((f)->detail, sizeof((f)->detail), __VA_ARGS__)
#define cost(f, ...) format_into((f)->cost, sizeof((f)->cost), __VA_ARGS__)
#define fix(f, ...) format_into((f)->fix, sizeof((f)->fix), __VA_ARGS__)
void format_into(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same behind what stands there already. */
#define detail_more(f, ...) append_to((f)->detail, sizeof((f)->detail), __VA_ARGS__)
void append_to(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

extern const char allow_by_seccomp[];

/* ---- nodes ---- */

/* All that are online, ascending by id, with those that the cpuset closes. None when asking ends the process. */
struct node {
	quarry_node_info info;
	char cpus[128]; /* a list as the kernel writes it; "" without CPUs, or when it cannot be told */
};

extern struct node nodes[QUARRY_NODES_MAX];
extern size_t node_count;
bool nodes_told(void); /* there is a list of nodes: else the one of them is made up */

/* Of a node that memory can be had on, for commands that want one. */
int open_node(void);

/* "0-2,65": the ids of those nodes that are in; cut off with "..." where the room ends. Returns how many are in. */
size_t list_nodes(char *text, size_t size, bool (*in)(const struct node *node));

void check_nodes(void);   /* first of all: the others need the list */
void check_between(void); /* what there is between several nodes */

/* ---- huge pages ---- */

void check_huge_pages(void);

/* ---- a process ---- */

/* Whose figures were looked at. */
struct patient {
	int pid; /* 0: the machine was */
	char program[64], library[17];
};

/* By what it publishes. An error is told. */
enum status check_process(int pid, struct patient *patient);

/* ---- the report ---- */

struct utsname;
void print_text(const struct finding *findings, size_t count, const struct utsname *kernel, const struct patient *patient);
void print_json(const struct finding *findings, size_t count, const struct utsname *kernel, const struct patient *patient);

#endif
