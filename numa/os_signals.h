/* SPDX-License-Identifier: MIT */
/* What numa/os.c's table has for signals (numa/os.h says what each does). */
#ifndef QUARRY_NUMA_OS_SIGNALS_H
#define QUARRY_NUMA_OS_SIGNALS_H

#include "numa/os.h"

int qy_linux_signal_action(int sig, struct qy_signal_action *action);
int qy_linux_timer_make(int sig, void (*ring)(const void *context));
int qy_linux_timer_set(int timer, uint64_t ms);
int qy_linux_signal_take(int sig, void (*fn)(const void *context));

#endif
