/* SPDX-License-Identifier: MIT */
/* The operating system, as one table of calls, so that a test can be the kernel: refuse, run dry, have eight
 * nodes. Everything that quarry asks of the kernel goes through qy_os. The calls that MPI and RDMA libraries patch
 * (mmap, munmap, mremap, madvise) go by libc's own symbols; the memory policy calls, which libc does not wrap, by
 * syscall(2). All follow libc's convention: -1 (or MAP_FAILED) and errno. */
#ifndef QUARRY_NUMA_OS_H
#define QUARRY_NUMA_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct iovec;
struct timespec;

struct qy_signal_action {
	bool handled, ignored; /* neither: what the kernel does by default */
	unsigned long flags;   /* SA_..., also what is left of them after a handler for one time only */
	uint64_t mask;         /* blocked beside the signal while it is handled */
};

enum qy_unwind { QY_UNWIND_AUTO, QY_UNWIND_TABLES, QY_UNWIND_FRAMES };

#define QY_COPY_ALONE 255 /* the status of a copy whose process had ended before it began */
#define QY_REGISTER_WORDS 384 /* of a thread: the general ones, and of the vectors what fits (x86: up to AVX-512) */

struct qy_stopped_thread {
	int tid;
	uint32_t words; /* 0: it could not be stopped, or not be read */
	uintptr_t stack, base; /* where its stack pointer and its thread pointer lead; 0: not told */
	uint64_t word[QY_REGISTER_WORDS];
};

/* All threads but one, stopped. */
struct qy_stopped {
	struct qy_stopped_thread *thread;
	size_t count;
	size_t others; /* threads there were when room was made */
	void *memory; /* and the rest: for who made it */
	size_t mapped;
	uint64_t mask;
};

struct qy_file_info {
	uint64_t size;
	bool regular;
	bool named; /* it is in a directory */
};

/* Pages of a process, from one address to another (numa/os.h: written). */
struct qy_page_range {
	uint64_t from, to;
	uint64_t kernels;
};

struct qy_os {
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off);
	int (*munmap)(void *addr, size_t len);
	int (*mprotect)(void *addr, size_t len, int prot);
	int (*madvise)(void *addr, size_t len, int advice);
	/* Move the pages of [old, old + len), which must be of one mapping (else EFAULT), to an address of the kernel's
	 * choice: the hint, where nothing is mapped there;
	 * what is left at old stays mapped, empty, so that nobody else's mapping can come there (MREMAP_DONTUNMAP,
	 * Linux 5.7; before, EINVAL). A failure changes nothing. */
	void *(*mremap_away)(void *old, size_t len, void *hint);
	/* Move a mapping to the fixed address to, which it replaces. (Kernels before 6.17 take what is there away
	 * before they look whether old is one mapping: it has to be.) */
	void *(*mremap_to)(void *old, size_t len, void *to);
	int (*mlock_onfault)(void *addr, size_t len);
	int (*mincore)(void *addr, size_t len, unsigned char *vec);
	/* bits is how many bits mask has; the table adds the one that the kernel subtracts (see mm/mempolicy.c). */
	long (*mbind)(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits, unsigned flags);
	long (*set_mempolicy)(int mode, const unsigned long *mask, unsigned long bits);
	long (*get_mempolicy)(int *mode, unsigned long *mask, unsigned long bits, void *addr, unsigned long flags);
	long (*move_pages)(unsigned long count, void **pages, const int *nodes, int *status, int flags);
	int (*getcpu)(unsigned *cpu, unsigned *node);
	/* The allowed nodes of this process, into a mask of so many bits (get_mempolicy MPOL_F_MEMS_ALLOWED). */
	long (*mems_allowed)(unsigned long *mask, unsigned long bits);
	/* Read a small file whole, with open, read and close; returns its length, at most size - 1, and ends it with
	 * 0. */
	ssize_t (*read_file)(const char *path, char *buffer, size_t size);
	uint64_t (*total_memory)(void);    /* bytes of physical memory */
	uint64_t (*address_limit)(void);   /* RLIMIT_AS, UINT64_MAX for none */
	uint64_t (*now_ms)(void);          /* CLOCK_MONOTONIC_COARSE */
	uint64_t (*now_ns)(void);          /* CLOCK_MONOTONIC */
	uint64_t (*cpu_ns)(void);          /* CLOCK_PROCESS_CPUTIME_ID: what all threads took */
	int (*membarrier)(int command);
	/* futex(2) on a word of memory that processes share: sleep while it is value, so many ms at most (-1 with ETIMEDOUT; EAGAIN: it is not,
	 * EINTR); wake so many sleepers. Not points of cancellation. */
	int (*sleep_shared)(uint32_t *word, uint32_t value, uint64_t ms);
	int (*wake_shared)(uint32_t *word, int most);
	int (*process_id)(void);           /* getpid(2) */
	int (*thread_id)(void);            /* gettid(2) */
	uint64_t (*process_space)(void);   /* the PID namespace that these two are of, or 0: not known (no /proc) */
	void (*page_faults)(uint64_t *minor, uint64_t *major); /* of the process since it began (getrusage(2)) */
	bool (*thread_alive)(int pid, int tid); /* whether the process has such a thread */
	/* Of a thread of this process that is not the caller (numa/blocked.c). How often it went off its CPU, by its
	 * own wish or not, plus one: while that stays the same and it is blocked, it has not run. 0 when it cannot be
	 * told. */
	uint64_t (*thread_switches)(int tid);
	/* Whether it waits in a system call that it made in the ordinary course of things: it does not run, is not
	 * stopped at any other instruction, and no signal handler is under way in it. When so, it sees what the caller
	 * wrote before this call whenever it goes on, and the caller sees what it wrote. False when it cannot be
	 * told. */
	bool (*thread_blocked)(int tid);
	/* What is set for a signal, by the kernel's number (also those that libc keeps for itself). 0, or -1. */
	int (*signal_action)(int sig, struct qy_signal_action *action);
	/* A timer of CLOCK_MONOTONIC, at rest, that sends the process a signal (any thread that does not block it has
	 * it), and ring as what handles it, told of what was interrupted: on the alternate stack where there is one,
	 * with all signals blocked, calls that can be restarted restarted, errno kept. One for the process; a forked
	 * child makes it anew. The timer's number; -1 with EBUSY when the program handles the signal, EINVAL for one
	 * that cannot be had or that tells of a crash, or the errno of timer_create(2), and the signal is as it was. */
	int (*timer_make)(int sig, void (*ring)(const void *context));
	/* Have it ring once, in so many ms; 0: not at all. May be called in a signal handler. -1 with EBUSY when the
	 * program has taken the signal for itself since: it rests then. */
	int (*timer_set)(int timer, uint64_t ms);
	/* Have fn called, in the handler and told of what was interrupted, when somebody sends the process that signal: all signals blocked, calls that
	 * can be restarted restarted, errno kept. One for the process. -1 with EBUSY when the program handles the signal,
	 * EINVAL for one that cannot be had or that tells of a crash, and the signal is as it was. */
	int (*signal_take)(int sig, void (*fn)(const void *context));
	/* Whether what a signal handler interrupted (its third argument) was a system call that the program waited in,
	 * or is about to wait in again, and that in no other signal handler (numa/blocked.c). False when it cannot be
	 * told, and where an alternate stack has little room left. */
	bool (*was_waiting)(const void *context);
	/* Whether the aligned eight bytes that p points into can be read. */
	bool (*readable)(const void *p);
	/* Two ends of a line between a process and its forked child; neither outlives exec. Not points of cancellation.
	 * Both wait for at most ms for the next bytes to go, and see all of them over or fail: -1 with errno, ETIMEDOUT
	 * or EPIPE (the other end is gone) among others. */
	int (*pair)(int ends[2]);
	int (*send)(int end, const void *bytes, size_t len, unsigned ms);
	int (*receive)(int end, void *bytes, size_t len, unsigned ms);
	int (*close)(int fd); /* errno stays where it succeeds; the descriptor is gone in any case */
	/* A new file, or an old one that is emptied, to be written to; by the umask for whom. Nobody is waited for: ENXIO of
	 * a named pipe that nobody reads. */
	int (*create)(const char *path);
	/* Memory with a descriptor, which does not outlive exec. flags: QY_MFD_.... The number is above those of
	 * standard input, output and error, also where these are closed: what a program prints must not go into its
	 * heap. */
	int (*memfd)(const char *name, unsigned flags);
	/* The size of an empty file: EFBIG where RLIMIT_FSIZE forbids it (and no SIGXFSZ). */
	int (*set_size)(int fd, uint64_t size);
	int (*seal)(int fd, int seals); /* F_ADD_SEALS; QY_SEAL_... */
	int (*seals)(int fd);           /* F_GET_SEALS; -1 where a file has none */
	/* Have the pages of a file in memory, with an error where touching them would be SIGBUS. Not a point of
	 * cancellation, as none here is. */
	int (*allocate)(int fd, uint64_t at, uint64_t len);
	int (*file_id)(int fd, uint64_t *id); /* the file, by a number that no other has while it is there */
	/* A new file to be written, mode 0644 by the umask, where nothing is, no link either (EEXIST). */
	int (*create_file)(const char *path);
	int (*rename_file)(const char *from, const char *to); /* over what is there */
	int (*remove_file)(const char *path);
	/* The same file opened anew, to be read: with an offset of its own, where one that was inherited or handed over
	 * is shared with whoever has it. -1 with errno; ENOENT where there is no /proc. (What is there may be another
	 * file.) */
	int (*reopen)(int fd);
	/* The next bytes at or behind `from` that were ever written. -1 with ENXIO when there are none. Moves the
	 * offset. */
	int (*next_data)(int fd, uint64_t from, uint64_t *begin, uint64_t *end);
	int (*read_at)(int fd, void *to, size_t len, uint64_t at); /* all of it, or -1 */
	int (*write_at)(int fd, const void *from, size_t len, uint64_t at); /* all of it, or -1; a limit is EFBIG, no signal */
	/* A file without a name, to be read and written, in a directory; it ends with its last descriptor (O_TMPFILE, Linux
	 * 3.11; made and removed at once where the file system has no such thing). */
	int (*nameless_file)(const char *directory);
	/* A file to be read and written by its owner alone; never a link (ELOOP). how: QY_OPEN_.... */
	int (*open_file)(const char *path, unsigned how);
	int (*reopen_to_write)(int fd); /* as reopen, to be read and written */
	int (*replace)(int fd, int with); /* fd is what `with` was, which is closed: by the same number, at once */
	int (*file_info)(int fd, struct qy_file_info *info);
	/* A lock on bytes of a file that is the open file description's (F_OFD_SETLK, Linux 3.15): whoever else has the file
	 * open waits for it, or EAGAIN, and it ends with the last descriptor, however the process ends. kind: QY_RANGE_.... */
	int (*range_lock)(int fd, int kind, uint64_t at, uint64_t len, bool wait);
	int (*range_locked)(int fd, uint64_t at, uint64_t len); /* 1 where somebody else has one there, 0, or -1 */
	int (*punch)(int fd, uint64_t at, uint64_t len); /* a hole: the pages go back, and read as zero */
	/* Have the kernel note which pages of a shared mapping of this process are written: a descriptor, as long as which is open
	 * it does. What is written by system calls to the file is not noted. -1 with errno where there is no such thing
	 * (userfaultfd(2) with UFFD_FEATURE_WP_ASYNC, Linux 6.7). */
	int (*track_writes)(void *addr, size_t len);
	int (*open_pagemap)(int pid); /* /proc/PID/pagemap, for those two: -1 with errno */
	/* Pages in [*from, to) of such a mapping that were written since this was asked last (those that are not in the
	 * process's page tables, too, the first time): ranges, in order, at most so many; they are noted as not written from now on, each before anybody
	 * writes to it again. *from is how far that goes. How many, or -1 with errno. */
	long (*written)(int pagemap, uintptr_t *from, uintptr_t to, struct qy_page_range *ranges, size_t most);
	/* Whether writes to the page at addr are noted, and it is in the process's page tables. */
	bool (*is_tracked)(int pagemap, uintptr_t addr);
	int (*open_of)(int pid, int fd, bool to_write); /* what another process has open, anew (/proc/PID/fd/FD): a description of its own */
	int (*find_data)(int fd, uint64_t from, uint64_t *at); /* as next_data has the beginning, without looking for the end */
	int (*sync_data)(int fd); /* fdatasync(2) */
	int (*sync_directory)(const char *path); /* of the directory that a file is in: its name is there after a loss of power */
	/* Sleep while a word, which other processes may map, has a value, for so long at most. Whoever changes it wakes all. */
	void (*wait_word)(const uint32_t *word, uint32_t value, uint64_t ns);
	void (*wake_word)(const uint32_t *word);
	uint64_t (*wall_ns)(void); /* CLOCK_REALTIME */
	/* Copy this process's own memory, with an error (EFAULT) where reading it would be a signal. ENOSYS or EPERM
	 * where there is no such way (process_vm_writev(2), Linux 3.2). */
	int (*copy)(void *to, const void *from, size_t len);
	/* For PAGEMAP_SCAN: 0 and *huge set when the page at addr is mapped huge; -1 with errno when it cannot be
	 * told. */
	int (*page_is_huge)(const void *addr, bool *huge);
	/* How transparent huge pages are disabled for this process (PR_GET_THP_DISABLE): 0 not, 1 all, 3 all but where
	 * MADV_HUGEPAGE or MADV_COLLAPSE ask for them (Linux 6.18). -1 with errno when it cannot be told. */
	int (*thp_disabled)(void);
	/* The CPUs that the calling thread may run on, into a mask of so many bits: how many bits are told of, at
	 * least; the others are 0. -1 with errno. */
	long (*cpus_allowed)(unsigned long *mask, unsigned long bits);
	int (*run_on)(const unsigned long *mask, unsigned long bits); /* have the calling thread run on those */
	/* Make `stack` ready, the way that is asked for or else what there is; it may load libgcc_s, and allocate. The way
	 * that was found. */
	enum qy_unwind (*stack_prepare)(enum qy_unwind how);
	/* Where the caller is called from: return addresses, the innermost first, so many at most, without those in
	 * quarry's own library. Allocates nothing and takes no lock of quarry's. */
	unsigned (*stack)(void **frames, unsigned most);
	/* Room for what is to be known of the threads that there are, and for who stops them. -1 with errno. */
	int (*stop_room)(struct qy_stopped *stopped);
	void (*stop_forget)(struct qy_stopped *stopped);
	/* Stop all threads of the process but the caller, and read their registers (numa/os_copy.c); signals wait
	 * until they are let go. Locks may be held by who was stopped, libc's own among them. Maps nothing. -1 with errno
	 * where that is not to be had (EPERM: ptrace(2) is forbidden, or a debugger has them; ENOMEM: there are many more
	 * than there is room for), and nobody is stopped. */
	int (*stop_threads)(struct qy_stopped *stopped);
	void (*let_go)(struct qy_stopped *stopped);
	/* A process that has a copy of all memory, and this thread alone: it does the work, and ends with what that
	 * returned as its status. No handler of fork(3) runs, all signals are blocked in it, and the program's wait(2)
	 * does not see it. Its number, or -1 with errno: EPERM where children are made in another namespace. */
	int (*copy_process)(int (*work)(void *ctx), void *ctx);
	/* In such a copy: memory that may not be there, or not be readable. False where that is so. */
	bool (*try_read)(uint64_t *to, const uint64_t *from, size_t words);
	int (*await_copy)(int pid, int *status); /* as waitpid(2) has it */
	/* What /proc/self/pagemap says of pages (of the kernel's size) from one on: all of them, or -1. */
	int (*page_entries)(const void *from, size_t count, uint64_t *entries);
	/* Close all descriptors but those, which are in ascending order. (Linux 5.9; before, none.) */
	void (*close_others)(const int *keep, size_t count);
	int (*write_all)(int fd, const void *bytes, size_t len); /* or -1 */
	/* io_uring_register(2), Linux 5.1: what it returns, or -1 with errno (libc does not wrap it). */
	int (*uring_register)(int fd, unsigned opcode, void *arg, unsigned count);
	/* recvmsg(2), or readv(2) where fd is no socket and flags is 0. Points of cancellation, as the program's own calls
	 * would be. */
	ssize_t (*receive_into)(int fd, struct iovec *iov, unsigned count, int flags);
};

extern const struct qy_os *qy_os;       /* what is in use */
extern const struct qy_os qy_os_linux;  /* the real one */

/* thread_switches and thread_blocked by what qy_os->read_file and qy_os->signal_action say. */
uint64_t qy_thread_switches(int tid);
bool qy_thread_blocked(int tid);

/* stack_prepare and stack (numa/unwind.c). */
enum qy_unwind qy_unwind_prepare(enum qy_unwind how);
unsigned qy_unwind_stack(void **frames, unsigned most);

/* was_waiting by what qy_os->readable and qy_os->signal_action say. */
bool qy_context_waited(const void *context);

/* The kernel's base page size, read from the auxiliary vector: no system call. */
size_t qy_os_page_size(void);

/* The kernel's numbers that older headers lack (glibc 2.36 and libnuma 2.0.16 of Debian 12). */
#define QY_MADV_REMOVE 9
#define QY_MADV_DONTFORK 10
#define QY_MADV_HUGEPAGE 14
#define QY_MADV_NOHUGEPAGE 15
#define QY_MADV_DONTDUMP 16
#define QY_MADV_DODUMP 17
#define QY_MADV_COLD 20           /* Linux 5.4 */
#define QY_MADV_POPULATE_READ 22  /* Linux 5.14 */
#define QY_MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#define QY_MADV_COLLAPSE 25       /* Linux 6.1 */
#define QY_MAP_FIXED_NOREPLACE 0x100000
#define QY_MAP_HUGE_2MB (21u << 26)
#define QY_MAP_HUGE_1GB (30u << 26)
#define QY_MFD_CLOEXEC 1u
#define QY_MFD_ALLOW_SEALING 2u
#define QY_MFD_HUGETLB 4u     /* Linux 4.14; with seals 4.16 */
#define QY_MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#define QY_SEAL_SEAL 1
#define QY_SEAL_SHRINK 2
#define QY_SEAL_GROW 4
#define QY_SEAL_FUTURE_WRITE 16 /* Linux 5.1 */
#define QY_OPEN_READ 0u
#define QY_OPEN_WRITE 1u
#define QY_OPEN_NEW 2u /* made, where nothing is (EEXIST); mode 0600; and written */
#define QY_RANGE_READ 0
#define QY_RANGE_WRITE 1
#define QY_RANGE_NONE 2
#define QY_MPOL_DEFAULT 0
#define QY_MPOL_PREFERRED 1
#define QY_MPOL_BIND 2
#define QY_MPOL_INTERLEAVE 3
#define QY_MPOL_LOCAL 4
#define QY_MPOL_PREFERRED_MANY 5      /* Linux 5.15 */
#define QY_MPOL_WEIGHTED_INTERLEAVE 6 /* Linux 6.9 */
#define QY_MPOL_F_STATIC_NODES (1 << 15)
#define QY_MPOL_F_NODE 1
#define QY_MPOL_F_ADDR 2
#define QY_MPOL_F_MEMS_ALLOWED 4
#define QY_MEMBARRIER_PRIVATE_EXPEDITED 8
#define QY_MEMBARRIER_REGISTER_PRIVATE_EXPEDITED 16

#endif
