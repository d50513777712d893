/* SPDX-License-Identifier: MIT */
/* The Linux behind qy_os.
 *
 * Each call is a function of ours that calls libc's by name, never libc's address in the table: libraries that watch
 * a process's mappings rewrite the slots through which code calls mmap and its kin, and would miss a pointer in data.
 *
 * Files are opened, read and closed by syscall(2): libc's open, read and close are cancellation points, and a thread
 * that is cancelled in here would be cancelled inside malloc. Nothing here allocates.
 *
 * What can be interrupted by a signal that does not kill (open and read) is tried again. The memory calls are only
 * ever interrupted by death. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "numa/os_copy.h"
#include "numa/os_files.h"
#include "numa/os_pages.h"
#include "numa/os_signals.h"

/* A call that this architecture or its headers lack: the kernel answers ENOSYS to the number -1. */
#ifndef SYS_mbind
#define SYS_mbind (-1)
#endif
#ifndef SYS_set_mempolicy
#define SYS_set_mempolicy (-1)
#endif
#ifndef SYS_get_mempolicy
#define SYS_get_mempolicy (-1)
#endif
#ifndef SYS_move_pages
#define SYS_move_pages (-1)
#endif
#ifndef SYS_mlock2
#define SYS_mlock2 (-1)
#endif
#ifndef SYS_io_uring_register
#define SYS_io_uring_register 427 /* the same on all architectures */
#endif
#ifndef SYS_membarrier
#define SYS_membarrier (-1)
#endif

#ifndef PR_GET_THP_DISABLE
#define PR_GET_THP_DISABLE 42
#endif

#define MLOCK_ONFAULT_FLAG 1u
#define DONTUNMAP_FLAG 4 /* Linux 5.7 */

/* PAGEMAP_SCAN of Linux 6.7, from its manual page; the headers of the day may not have it. */
struct pagemap_scan {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

struct pagemap_run {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_PRESENT (UINT64_C(1) << 3)
#define PAGEMAP_HUGE (UINT64_C(1) << 6)

/* glibc has getcpu(), by the vDSO; other libcs may not, and a static program may not have pulled it in. */
extern int getcpu(unsigned *cpu, unsigned *node) __attribute__((weak));

static void *linux_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return mmap(addr, len, prot, flags, fd, off);
}

static int linux_munmap(void *addr, size_t len)
{
	return munmap(addr, len);
}

static int linux_mprotect(void *addr, size_t len, int prot)
{
	return mprotect(addr, len, prot);
}

static int linux_madvise(void *addr, size_t len, int advice)
{
	return madvise(addr, len, advice);
}

static void *linux_mremap_away(void *old, size_t len, void *hint)
{
	return mremap(old, len, len, MREMAP_MAYMOVE | DONTUNMAP_FLAG, hint);
}

static void *linux_mremap_to(void *old, size_t len, void *to)
{
	return mremap(old, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
}

/* libc's mlock2 falls back to locking the whole range at once on an old kernel, which is not what was asked for. */
static int linux_mlock_onfault(void *addr, size_t len)
{
	return (int)syscall(SYS_mlock2, addr, len, MLOCK_ONFAULT_FLAG);
}

static int linux_mincore(void *addr, size_t len, unsigned char *vec)
{
	return mincore(addr, len, vec);
}

static long linux_mbind(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits,
			unsigned flags)
{
	return syscall(SYS_mbind, addr, len, mode, mask, bits + 1, flags);
}

static long linux_set_mempolicy(int mode, const unsigned long *mask, unsigned long bits)
{
	return syscall(SYS_set_mempolicy, mode, mask, bits + 1);
}

static long linux_get_mempolicy(int *mode, unsigned long *mask, unsigned long bits, void *addr, unsigned long flags)
{
	return syscall(SYS_get_mempolicy, mode, mask, bits + 1, addr, flags);
}

static long linux_move_pages(unsigned long count, void **pages, const int *nodes, int *status, int flags)
{
	return syscall(SYS_move_pages, 0, count, pages, nodes, status, flags);
}

static int linux_getcpu(unsigned *cpu, unsigned *node)
{
	if (getcpu)
		return getcpu(cpu, node);
	return (int)syscall(SYS_getcpu, cpu, node, NULL);
}

static long linux_mems_allowed(unsigned long *mask, unsigned long bits)
{
	return syscall(SYS_get_mempolicy, NULL, mask, bits + 1, NULL, (unsigned long)QY_MPOL_F_MEMS_ALLOWED);
}

static int open_readonly(const char *path)
{
	long fd;
	do
		fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);
	while (fd < 0 && errno == EINTR);
	return (int)fd;
}

/* Not tried again: on Linux the descriptor is gone even when close says EINTR. errno stays as it was. */
static void close_quietly(int fd)
{
	int saved = errno;
	(void)syscall(SYS_close, fd);
	errno = saved;
}

static ssize_t linux_read_file(const char *path, char *buffer, size_t size)
{
	size_t len = 0;
	long n = 0;
	int fd;

	if (size == 0) {
		errno = EINVAL;
		return -1;
	}
	buffer[0] = 0;
	fd = open_readonly(path);
	if (fd < 0)
		return -1;
	while (len < size - 1) {
		n = syscall(SYS_read, fd, buffer + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close_quietly(fd);
	buffer[len] = 0;
	return n < 0 ? -1 : (ssize_t)len;
}

/* sysinfo(2), as libc's sysconf would open /proc or /sys for it. */
static uint64_t linux_total_memory(void)
{
	struct sysinfo info;
	if (sysinfo(&info) != 0)
		return 0;
	return (uint64_t)info.totalram * (info.mem_unit ? info.mem_unit : 1);
}

static uint64_t linux_address_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

static uint64_t linux_now_ms(void)
{
	struct timespec ts = { 0, 0 };
	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t linux_now_ns(void)
{
	struct timespec ts = { 0, 0 };
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t linux_cpu_ns(void)
{
	struct timespec ts = { 0, 0 };
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int linux_process_id(void)
{
	return (int)getpid();
}

static void linux_page_faults(uint64_t *minor, uint64_t *major)
{
	struct rusage usage = { 0 };

	(void)getrusage(RUSAGE_SELF, &usage);
	*minor = (uint64_t)usage.ru_minflt;
	*major = (uint64_t)usage.ru_majflt;
}

static int linux_thread_id(void)
{
	return (int)syscall(SYS_gettid);
}

/* Signal 0 is never sent; what cannot be told (a filter forbids tgkill) counts as alive. */
static bool linux_thread_alive(int pid, int tid)
{
	return syscall(SYS_tgkill, pid, tid, 0) == 0 || errno != ESRCH;
}

/* The kernel reads the set before it looks what is to be done with it, and nothing is: there is no such how. */
static bool linux_readable(const void *p)
{
	uintptr_t word = (uintptr_t)p & ~(uintptr_t)7;
	int saved = errno;
	bool is = syscall(SYS_rt_sigprocmask, -1, word, NULL, sizeof(uint64_t)) != 0 && errno == EINVAL;

	errno = saved;
	return is;
}

static int linux_pair(int ends[2])
{
	return (int)syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
}

static int wait_for(int end, short event, unsigned ms)
{
	struct timespec limit = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	struct pollfd wait = { .fd = end, .events = event };
	long n;

	/* (The kernel writes what is left of the time back, so that a signal does not make it longer.) */
	do
		n = syscall(SYS_ppoll, &wait, 1, &limit, NULL, 0);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		errno = ETIMEDOUT;
	return n > 0 ? 0 : -1;
}

/* Who is to receive may be gone: SIGPIPE is not this library's to raise, hence a pair of sockets and no pipe. */
static int linux_send(int end, const void *bytes, size_t len, unsigned ms)
{
	const char *at = bytes;

	while (len > 0) {
		long n = wait_for(end, POLLOUT, ms);

		if (n == 0)
			n = syscall(SYS_sendto, end, at, len, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int linux_receive(int end, void *bytes, size_t len, unsigned ms)
{
	char *at = bytes;

	while (len > 0) {
		long n = wait_for(end, POLLIN, ms);

		if (n == 0)
			n = syscall(SYS_recvfrom, end, at, len, 0, NULL, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EPIPE;
		if (n <= 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

/* By process_vm_writev(2), whose source is read through this process's own page tables. Of its sibling, the source is
 * what is pinned, and since Linux 5.19 a page that is shared with another process is copied for that first: a page of
 * the pool for each hugetlb page, and an error where the pool is dry. Before, a pinned page could be written to by who
 * took it away meanwhile. */
static int linux_copy(void *to, const void *from, size_t len)
{
	struct iovec local = { (void *)from, len }, remote = { to, len };
	long n = syscall(SYS_process_vm_writev, (long)getpid(), &local, 1ul, &remote, 1ul, 0ul);

	if (n >= 0 && (size_t)n < len)
		errno = EFAULT;
	return n >= 0 && (size_t)n == len ? 0 : -1;
}

static int linux_create(const char *path)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
			      0666);

	if (fd >= 0)
		(void)syscall(SYS_fcntl, fd, F_SETFL, 0);
	return fd;
}

static int linux_close(int fd)
{
	int saved = errno;

	if (syscall(SYS_close, fd) != 0 && errno != EINTR)
		return -1;
	errno = saved;
	return 0;
}

static int linux_sleep_shared(uint32_t *word, uint32_t value, uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

	return (int)syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

static int linux_wake_shared(uint32_t *word, int most)
{
	return (int)syscall(SYS_futex, word, FUTEX_WAKE, most, NULL, NULL, 0);
}

static int linux_membarrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

/* The file is opened anew for each call: callers are rare, and a descriptor that is kept would be closed, inherited
 * or mistaken by the program that we are a guest in. */
static int linux_page_is_huge(const void *addr, bool *huge)
{
	const uint64_t page = qy_os_page_size();
	const uint64_t start = (uint64_t)(uintptr_t)addr & ~(page - 1);
	struct pagemap_run run = { 0, 0, 0 };
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = start,
		.end = start + page,
		.vec = (uint64_t)(uintptr_t)&run,
		.vec_len = 1,
		.max_pages = 1,
		/* An address in a hugetlb mapping counts as huge before it is touched: ask for both. */
		.category_mask = PAGEMAP_HUGE | PAGEMAP_PRESENT,
		.return_mask = PAGEMAP_HUGE | PAGEMAP_PRESENT,
	};
	int fd = open_readonly("/proc/self/pagemap");
	long found;

	if (fd < 0)
		return -1;
	found = syscall(SYS_ioctl, fd, PAGEMAP_SCAN_IOCTL, &scan);
	close_quietly(fd);
	if (found < 0)
		return -1;
	*huge = found > 0;
	return 0;
}

static int linux_thp_disabled(void)
{
	return prctl(PR_GET_THP_DISABLE, 0ul, 0ul, 0ul, 0ul);
}

/* The kernel's own call: it writes as many bytes as it has CPUs for, and says how many. */
static long linux_cpus_allowed(unsigned long *mask, unsigned long bits)
{
	size_t bytes = bits / (8 * sizeof(*mask)) * sizeof(*mask);
	long n;

	for (size_t i = 0; i < bytes / sizeof(*mask); i++)
		mask[i] = 0;
	n = syscall(SYS_sched_getaffinity, 0, bytes, mask);
	return n < 0 ? -1 : n * 8;
}

static int linux_run_on(const unsigned long *mask, unsigned long bits)
{
	return (int)syscall(SYS_sched_setaffinity, 0, bits / (8 * sizeof(*mask)) * sizeof(*mask), mask);
}

size_t qy_os_page_size(void)
{
	static _Atomic(size_t) known;
	size_t size = atomic_load_explicit(&known, memory_order_relaxed);

	if (size == 0) {
		size = getauxval(AT_PAGESZ);
		if (size == 0)
			size = 4096; /* an auxiliary vector without the entry: some emulators */
		atomic_store_explicit(&known, size, memory_order_relaxed);
	}
	return size;
}

static int linux_uring_register(int fd, unsigned opcode, void *arg, unsigned count)
{
	return (int)syscall(SYS_io_uring_register, fd, opcode, arg, count);
}

static ssize_t linux_receive_into(int fd, struct iovec *iov, unsigned count, int flags)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	int error = errno;
	ssize_t n = recvmsg(fd, &message, flags);

	if (n >= 0 || errno != ENOTSOCK || flags != 0)
		return n;
	errno = error; /* what is read where there is no socket is no error */
	return readv(fd, iov, (int)count);
}

const struct qy_os qy_os_linux = {
	.mmap = linux_mmap,
	.munmap = linux_munmap,
	.mprotect = linux_mprotect,
	.madvise = linux_madvise,
	.mremap_away = linux_mremap_away,
	.mremap_to = linux_mremap_to,
	.mlock_onfault = linux_mlock_onfault,
	.mincore = linux_mincore,
	.mbind = linux_mbind,
	.set_mempolicy = linux_set_mempolicy,
	.get_mempolicy = linux_get_mempolicy,
	.move_pages = linux_move_pages,
	.getcpu = linux_getcpu,
	.mems_allowed = linux_mems_allowed,
	.read_file = linux_read_file,
	.total_memory = linux_total_memory,
	.address_limit = linux_address_limit,
	.now_ms = linux_now_ms,
	.now_ns = linux_now_ns,
	.cpu_ns = linux_cpu_ns,
	.membarrier = linux_membarrier,
	.sleep_shared = linux_sleep_shared,
	.wake_shared = linux_wake_shared,
	.process_id = linux_process_id,
	.page_faults = linux_page_faults,
	.thread_id = linux_thread_id,
	.process_space = qy_linux_process_space,
	.thread_alive = linux_thread_alive,
	.thread_switches = qy_thread_switches,
	.thread_blocked = qy_thread_blocked,
	.signal_action = qy_linux_signal_action,
	.timer_make = qy_linux_timer_make,
	.timer_set = qy_linux_timer_set,
	.signal_take = qy_linux_signal_take,
	.was_waiting = qy_context_waited,
	.readable = linux_readable,
	.page_is_huge = linux_page_is_huge,
	.thp_disabled = linux_thp_disabled,
	.cpus_allowed = linux_cpus_allowed,
	.run_on = linux_run_on,
	.stack_prepare = qy_unwind_prepare,
	.stack = qy_unwind_stack,
	.stop_room = qy_linux_stop_room,
	.stop_forget = qy_linux_stop_forget,
	.stop_threads = qy_linux_stop_threads,
	.let_go = qy_linux_let_go,
	.copy_process = qy_linux_copy_process,
	.await_copy = qy_linux_await_copy,
	.try_read = qy_linux_try_read,
	.page_entries = qy_linux_page_entries,
	.close_others = qy_linux_close_others,
	.write_all = qy_linux_write_all,
	.uring_register = linux_uring_register,
	.receive_into = linux_receive_into,
	.pair = linux_pair,
	.send = linux_send,
	.receive = linux_receive,
	.close = linux_close,
	.create = linux_create,
	.memfd = qy_linux_memfd,
	.set_size = qy_linux_set_size,
	.seal = qy_linux_seal,
	.seals = qy_linux_seals,
	.allocate = qy_linux_allocate,
	.file_id = qy_linux_file_id,
	.reopen = qy_linux_reopen,
	.next_data = qy_linux_next_data,
	.create_file = qy_linux_create_file,
	.rename_file = qy_linux_rename_file,
	.remove_file = qy_linux_remove_file,
	.read_at = qy_linux_read_at,
	.write_at = qy_linux_write_at,
	.nameless_file = qy_linux_nameless_file,
	.open_file = qy_linux_open_file,
	.reopen_to_write = qy_linux_reopen_to_write,
	.replace = qy_linux_replace,
	.file_info = qy_linux_file_info,
	.range_lock = qy_linux_range_lock,
	.range_locked = qy_linux_range_locked,
	.punch = qy_linux_punch,
	.track_writes = qy_linux_track_writes,
	.open_pagemap = qy_linux_open_pagemap,
	.written = qy_linux_written,
	.is_tracked = qy_linux_is_tracked,
	.open_of = qy_linux_open_of,
	.find_data = qy_linux_find_data,
	.sync_data = qy_linux_sync_data,
	.sync_directory = qy_linux_sync_directory,
	.wait_word = qy_linux_wait_word,
	.wake_word = qy_linux_wake_word,
	.wall_ns = qy_linux_wall_ns,
	.copy = linux_copy,
};

const struct qy_os *qy_os = &qy_os_linux;
