/* SPDX-License-Identifier: MIT */
/* What the files of the command `quarry` share. The command uses the public API and libc, and nothing inside quarry:
 * it is what any program could be. (lib/view/rules.c, which is text alone, is compiled once more for `quarry leaks`.) */
#ifndef QUARRY_TOOLS_H
#define QUARRY_TOOLS_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses. 126 and 127 are those of env(1) and the shells. */
enum status { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_CANNOT_RUN = 126, STATUS_NOT_FOUND = 127 };

/* One line on standard error, "quarry: " before it; returns the status. */
int fail(enum status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

int command_diff(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_flame(int argc, char **argv);
int command_heap(int argc, char **argv);
int command_leaks(int argc, char **argv);
int command_map(int argc, char **argv);
int command_metrics(int argc, char **argv);
int command_run(int argc, char **argv);
int command_top(int argc, char **argv);

/* --- tools/probe.c: what the kernel does when it is really asked ------------------------------------------- */

/* What a probe answers beside 0 (it works) and an errno. Negative: the signal that ended it. */
#define PROBE_NOT_DONE 200  /* the kernel said yes and did not do it */
#define PROBE_NOT_TOLD 201  /* there is no way to see whether it did */
#define PROBE_NO_CHILD 202  /* fork failed: nothing was tried */

typedef int probe(void);

/* Run a probe in a child of its own, so that what the kernel does to it (SIGSYS, SIGBUS) is an answer too. */
int probe_in_child(probe *what);
/* "works", "EPERM: Operation not permitted", ...; until the next call. */
const char *probe_text(int answer);

probe probe_nodes, probe_hwloc, probe_mbind, probe_set_mempolicy, probe_get_mempolicy, probe_preferred_many,
	probe_weighted_interleave, probe_move_pages, probe_membarrier, probe_rseq, probe_thread, probe_timer, probe_pagemap_scan, probe_populate_write, probe_collapse,
	probe_thp, probe_huge_2m, probe_huge_1g, probe_reserve_1t, probe_reserve_64g, probe_mlock,
	probe_mlock_64m;

/* --- tools/system.c: what /proc and /sys say ---------------------------------------------------------------- */

/* A small file without its last newline; false when it cannot be read. */
bool read_text(const char *path, char *text, size_t size);
bool read_number(const char *path, uint64_t *number);
/* All of a file, or of standard input (-), with a 0 behind it, in memory of the caller's (which may be there in any case). A
 * status, after a line on standard error with the command's name. */
int read_input(const char *command, const char *path, char **text, size_t *length);
/* What to call it. */
const char *input_name(const char *path);
/* Write a file at one stroke: `write` (0, or an errno) writes another beside it, which then takes its place, so that what
 * was there is there until what comes is whole, and has its rights. What is no plain file is written to as it is. 0, or an errno. */
enum write_for {
	WRITE_FOR_ALL,  /* whoever the umask lets; as it is, where nothing can be made beside it */
	WRITE_AND_KEEP, /* its owner alone; on the disk before it takes another's place; EACCES where nothing can be made beside it */
};
int write_at_once(const char *path, enum write_for whom, int (*write)(int fd, const void *ctx), const void *ctx);
/* The choice in brackets: "madvise" of "always [madvise] never". */
bool read_choice(const char *path, char *choice, size_t size);
/* The least limit that a controller's file sets for this process's cgroup and those around it. v2 and v1 are the
 * names of the file there. False when there is none; where receives the file. */
bool cgroup_limit(const char *controller, const char *v2, const char *v1, uint64_t *limit, char *where, size_t size);
/* "1.5 GiB", in a buffer that the call after the fourth uses anew. */
const char *bytes_text(uint64_t bytes);

/* --- tools/wait.c -------------------------------------------------------------------------------------------- */

/* poll(2) that none of these signals slips past: they come in only while it waits, or before `came`, which their handlers
 * set, is looked at. -1 with EINTR when it is set. ms: -1 without end. */
int poll_unless(const volatile sig_atomic_t *came, const sigset_t *signals, struct pollfd *fds, nfds_t count, int ms);

#endif
