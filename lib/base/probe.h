/* SPDX-License-Identifier: MIT */
/* Static probes (USDT): places at which perf, bpftrace, SystemTap or gdb can stop or count, named and described in
 * doc/probes.md. A probe is one nop, and a note in the file that says where it is and in which registers its arguments
 * are; nothing is computed for it that is not there anyway, so that it needs no semaphore. None is on a hit of malloc or
 * free. Without <sys/sdt.h> at configure time (--disable-usdt) there is nothing. */
#ifndef QUARRY_BASE_PROBE_H
#define QUARRY_BASE_PROBE_H

#if QY_USDT
#include <sys/sdt.h>
#define QY_PROBE1(name, a) STAP_PROBE1(quarry, name, a)
#define QY_PROBE2(name, a, b) STAP_PROBE2(quarry, name, a, b)
#define QY_PROBE3(name, a, b, c) STAP_PROBE3(quarry, name, a, b, c)
#define QY_PROBE4(name, a, b, c, d) STAP_PROBE4(quarry, name, a, b, c, d)
#else
/* (What they name is named, for the compiler's warnings, and not evaluated.) */
#define QY_PROBE1(name, a) ((void)sizeof(a))
#define QY_PROBE2(name, a, b) ((void)sizeof(a), (void)sizeof(b))
#define QY_PROBE3(name, a, b, c) ((void)sizeof(a), (void)sizeof(b), (void)sizeof(c))
#define QY_PROBE4(name, a, b, c, d) ((void)sizeof(a), (void)sizeof(b), (void)sizeof(c), (void)sizeof(d))
#endif

#endif
