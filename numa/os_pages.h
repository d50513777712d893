/* SPDX-License-Identifier: MIT */
/* The calls of qy_os_linux for what checkpoints need: pages that were written, what other processes have open, waiting between
 * processes. What they do stands in numa/os.h. For that table alone. */
#ifndef QUARRY_NUMA_OS_PAGES_H
#define QUARRY_NUMA_OS_PAGES_H

#include "numa/os.h"

int qy_linux_track_writes(void *addr, size_t len);
int qy_linux_open_pagemap(int pid);
long qy_linux_written(int pagemap, uintptr_t *from, uintptr_t to, struct qy_page_range *ranges, size_t most);
bool qy_linux_is_tracked(int pagemap, uintptr_t addr);
int qy_linux_open_of(int pid, int fd, bool to_write);
int qy_linux_find_data(int fd, uint64_t from, uint64_t *at);
int qy_linux_sync_data(int fd);
int qy_linux_sync_directory(const char *path);
void qy_linux_wait_word(const uint32_t *word, uint32_t value, uint64_t ns);
void qy_linux_wake_word(const uint32_t *word);
uint64_t qy_linux_wall_ns(void);

#endif
