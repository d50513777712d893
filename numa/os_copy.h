/* SPDX-License-Identifier: MIT */
/* A copy of the process that somebody may look at for as long as it takes, and what stood in its threads' registers at
 * the moment of the copy; by the Linux behind qy_os, as numa/os.c, which has the table. */
#ifndef QUARRY_NUMA_OS_COPY_H
#define QUARRY_NUMA_OS_COPY_H

#include "numa/os.h"

int qy_linux_stop_room(struct qy_stopped *stopped);
void qy_linux_stop_forget(struct qy_stopped *stopped);
int qy_linux_stop_threads(struct qy_stopped *stopped);
void qy_linux_let_go(struct qy_stopped *stopped);
int qy_linux_copy_process(int (*work)(void *ctx), void *ctx);
int qy_linux_await_copy(int pid, int *status);
bool qy_linux_try_read(uint64_t *to, const uint64_t *from, size_t words);
int qy_linux_page_entries(const void *from, size_t count, uint64_t *entries);
void qy_linux_close_others(const int *keep, size_t count);
int qy_linux_write_all(int fd, const void *bytes, size_t len);

#endif
