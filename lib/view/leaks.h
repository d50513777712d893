/* SPDX-License-Identifier: MIT */
/* Looking for leaks: a copy of the process finds out what nothing leads to any more (leak_scan.c), and tells of it in
 * groups; the process asks for that, and prints it (leaks.c, leaks_print.c). */
#ifndef QUARRY_VIEW_LEAKS_H
#define QUARRY_VIEW_LEAKS_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"
#include "lib/manager/sites.h"
#include "numa/os.h"

#define QY_LEAK_EXAMPLES 4

/* Of one place in the program, where that is known; else of one size in one arena. */
struct qy_leak_group {
	const struct qy_site *site; /* NULL: none of them was sampled */
	uint64_t size;
	uint32_t arena; /* its slot */
	int32_t node;   /* by the kernel's id, or -1 */
	uint64_t objects, bytes;           /* that nothing leads to */
	uint64_t held_objects, held_bytes; /* that only those lead to */
	uint64_t reachable_weight;         /* of live samples from there that can be reached */
	const void *example[QY_LEAK_EXAMPLES];
};

/* What the copy and the process share. */
struct qy_leak_scan {
	uint64_t groups; /* in the file */
	uint64_t live_objects, live_bytes, objects, bytes, held_objects, held_bytes, scanned, skipped;
	uint32_t inexact; /* lists or slabs that could not be looked at */
};

struct qy_leak_question {
	struct qy_leak_scan *scan; /* shared */
	int fd;                    /* where the groups go */
	uintptr_t stack;           /* from where on the caller's stack is in use */
	uint64_t *seen;            /* shared, a bit per 16 bytes of the window; NULL: one scan is all */
	size_t seen_bits;
	bool again;                /* only what stands in there counts; else it is noted there */
};

/* In the copy: 0, or an errno (as exit status). */
int qy_leak_scan(void *question, const struct qy_stopped *stopped);

/* quarry_leaks_find; stack: where that of the caller is in use, from there on up. What stood in the registers that calls
 * preserve has to be there: the function that the program calls does no more than that (QY_LEAKS_FROM_HERE), since what is
 * left in its frame counts as the program's. */
int qy_leaks_find(uintptr_t stack, unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx,
		  quarry_leaks_report *report);

#define QY_LEAKS_FROM_HERE __builtin_unwind_init()
/* In the function called by that one, which must not become a part of it. */
#define QY_LEAKS_STACK ((uintptr_t)__builtin_frame_address(0))

/* Whether a leak with these frames is one that the program's suppressions name; the rule then, else NULL. */
const char *qy_leak_suppressed(void *const *frames, uint32_t depth);

/* Those of the file that the environment names, once. What went wrong stands in the report then. */
void qy_leak_read_suppressions(quarry_leaks_report *report);

/* In words, with the file. */
void qy_leak_put_suppressions_error(struct qy_text *out, const quarry_leaks_report *report);

#endif
