/* SPDX-License-Identifier: MIT */
/* How scarce the kernel says memory is, read without privileges and without a descriptor that stays open.
 *
 * The kernel can tell by itself when memory is short: a trigger on memory.pressure, an inotify watch on memory.events,
 * v1's memory.pressure_level by an eventfd. All of them need a descriptor for as long as one wants to be told, and a
 * library in somebody else's process cannot keep one: daemons and shells close all descriptors that they do not know
 * (close_range(2), closefrom(3)), and the next file that the program opens gets the number; the library would poll, or
 * close, a file of the program's. So the files are read and closed: the total= of the pressure files grows by the
 * microseconds in which tasks waited for memory, and what it grew by between two looks, over the time between them, is
 * what a trigger goes by. That needs no right at all where triggers once needed CAP_SYS_RESOURCE.
 *
 * Pressure is that of the process's own group where cgroup v2 has the memory controller, else the machine's. On hybrid
 * hosts, where v1 has that controller, v2's groups have a memory.pressure too. It is not read: those groups are others
 * than the ones that limit memory, and in containers, whose managers move processes in v1's hierarchies only, mostly
 * the root, or everybody's. What waits in our group counts in the machine's `some` as well, so that nothing is missed
 * there; that others' waiting counts too makes us give back early. How full v1's limit is comes beside it.
 * Nothing here allocates. Any thread may call, with no lock held; none waits for another. errno stays as it was. */
#ifndef QUARRY_NUMA_PRESSURE_H
#define QUARRY_NUMA_PRESSURE_H

#include "lib/base/base.h"

#define QY_PRESSURE_EVERY_MS 100 /* so often at most the files are read */

/* Room and limits are bytes; UINT64_MAX where there is no limit, or where it cannot be told. */
struct qy_pressure {
	uint64_t time_ms;                /* when this was read; 0: never yet */
	uint64_t window_ms;              /* what the shares are over; 0: not told (no PSI, or the first look) */
	uint32_t some, full;             /* shares of the window, in 1/1000, in which some tasks, or all, waited */
	bool of_group;                   /* of the process's group, and not of the machine */
	uint64_t events_high, events_max; /* memory.events of the own group: how often since the look before */
	uint64_t group_limit, group_used; /* memory.max, or v1's limit: the level with the least room */
	uint64_t high_limit, high_used;   /* the same of memory.high, where that is nearer */
	uint64_t address_limit, address_used; /* RLIMIT_AS, and the size of the process */
	uint64_t total, available;        /* of the machine, or of the nodes that the process may use: what can be had
					   * without swapping. Where the group's limit is no less than all of it */
};

/* How it is. Less than QY_PRESSURE_EVERY_MS after the last look, or while another thread is at it, that is given again:
 * time_ms tells. now: qy_os->now_ms(). */
struct qy_pressure qy_pressure_look(uint64_t now);

/* RLIMIT_AS, and how much of it is used, this very moment: bytes. False where there is no limit (a system call, and no
 * file), or where it cannot be told. */
bool qy_pressure_address(uint64_t *limit, uint64_t *used);

/* Forget what was read. In a forked child: the copy of a process that may have had a thread in here. */
void qy_pressure_forget(void);

#endif
