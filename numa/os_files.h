/* SPDX-License-Identifier: MIT */
/* The calls of qy_os_linux for memory with descriptors; what they do stands in numa/os.h. For that table alone. */
#ifndef QUARRY_NUMA_OS_FILES_H
#define QUARRY_NUMA_OS_FILES_H

#include "numa/os.h"

int qy_linux_memfd(const char *name, unsigned flags);
int qy_linux_set_size(int fd, uint64_t size);
int qy_linux_seal(int fd, int seals);
int qy_linux_seals(int fd);
int qy_linux_allocate(int fd, uint64_t at, uint64_t len);
int qy_linux_file_id(int fd, uint64_t *id);
int qy_linux_reopen(int fd);
int qy_linux_next_data(int fd, uint64_t from, uint64_t *begin, uint64_t *end);
int qy_linux_create_file(const char *path);
int qy_linux_rename_file(const char *from, const char *to);
int qy_linux_remove_file(const char *path);
int qy_linux_read_at(int fd, void *to, size_t len, uint64_t at);
int qy_linux_write_at(int fd, const void *from, size_t len, uint64_t at);
int qy_linux_nameless_file(const char *directory);
int qy_linux_open_file(const char *path, unsigned how);
int qy_linux_reopen_to_write(int fd);
uint64_t qy_linux_process_space(void);
int qy_linux_replace(int fd, int with);
int qy_linux_file_info(int fd, struct qy_file_info *info);
int qy_linux_range_lock(int fd, int kind, uint64_t at, uint64_t len, bool wait);
int qy_linux_range_locked(int fd, uint64_t at, uint64_t len);
int qy_linux_punch(int fd, uint64_t at, uint64_t len);

#endif
