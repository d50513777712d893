/* SPDX-License-Identifier: MIT */
/* Threads are stopped by ptrace(2), which a process may not do to itself: by a helper in the same memory that is a
 * process of its own (as LeakSanitizer's; clone(2) with CLONE_VM and without CLONE_THREAD). It seizes and interrupts
 * every thread but the one that asks, copies its registers, and lets all go when it is told to, or ends. A system call
 * that waits goes on afterwards, but for those that say EINTR after any stop (epoll_wait(2) and its kin, signal(7)).
 *
 * Neither the helper nor the copy is told of to the program: they have no exit signal, so that wait(2) without __WALL
 * does not see them, and no handler of pthread_atfork(3) runs. All signals are blocked in both: the program's handlers
 * must not run there. Both end with the process.
 *
 * The helper has the caller's thread-local storage, errno too. One of them works, and the other sleeps in futex(2), until
 * it is woken and without a time: so nobody writes errno while the other one reads it. When the helper ends for whatever
 * reason, the kernel writes 0 (GONE) to its state and wakes who waits (CLONE_CHILD_CLEARTID). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/os_copy.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/base.h"
#include "lib/base/text.h"

#ifndef SYS_close_range
#define SYS_close_range 436 /* Linux 5.9 */
#endif
#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif
#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

#define HELPER_STACK ((size_t)64 << 10)
#define STOP_MS 200 /* how long threads may take to stop, all together: those that the kernel keeps are given up */
#define SIGSET_BYTES 8 /* of the kernel's */

enum { GONE, BEGINS, MAY_BEGIN, STOPPED, FAILED, LET_GO };

/* At the front of the memory that holds what was stopped. */
struct helper {
	_Atomic(uint32_t) state;
	int process, caller, list; /* who asks: its process and thread; a descriptor of /proc/self/task */
	int error;
	int pid;
	struct qy_stopped *stopped;
	size_t max;
	int signal[]; /* of each thread: what it was about to be sent when it stopped; -1: it has not stopped */
};

static void wait_while(_Atomic(uint32_t) *word, uint32_t it_is)
{
	while (atomic_load(word) == it_is)
		(void)syscall(SYS_futex, word, FUTEX_WAIT, it_is, NULL, NULL, 0);
}

static void set_state(struct helper *h, uint32_t state)
{
	atomic_store(&h->state, state);
	(void)syscall(SYS_futex, &h->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint64_t clock_ms(void)
{
	struct timespec t;

	(void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the helper ---- */

static bool read_set(int tid, int set, void *to, size_t room, size_t *bytes)
{
	struct iovec v = { to, room };
	bool read = syscall(SYS_ptrace, PTRACE_GETREGSET, tid, set, &v) == 0;

	*bytes = read ? v.iov_len : 0;
	return read;
}

#ifdef __x86_64__
static void note_places(struct qy_stopped_thread *t)
{
	struct user_regs_struct r;

	memcpy(&r, t->word, sizeof(r));
	t->stack = r.rsp;
	t->base = r.fs_base;
}
#define VECTORS NT_X86_XSTATE
#else
static void note_places(struct qy_stopped_thread *t)
{
	t->stack = t->base = 0; /* not told: all of its stack counts */
}
#define VECTORS NT_PRFPREG
#endif

/* Pointers are also on their way through vector registers, in copies. */
static bool take_registers(struct qy_stopped_thread *t)
{
	size_t general, vectors;

	if (!read_set(t->tid, NT_PRSTATUS, t->word, sizeof(t->word), &general))
		return false;
	note_places(t);
	general = qy_align_up(general, sizeof(t->word[0]));
	if (!read_set(t->tid, VECTORS, (char *)t->word + general, sizeof(t->word) - general, &vectors))
		(void)read_set(t->tid, NT_PRFPREG, (char *)t->word + general, sizeof(t->word) - general, &vectors);
	t->words = (uint32_t)((general + vectors) / sizeof(t->word[0]));
	return true;
}

/* Whether it has stopped by now. The signal that it was to be sent is kept for it. */
static bool has_stopped(int tid, int *signal)
{
	int status = 0;

	if (syscall(SYS_wait4, tid, &status, __WALL | WNOHANG, NULL) != tid || !WIFSTOPPED(status))
		return false;
	*signal = status >> 16 == 0 ? WSTOPSIG(status) : 0;
	return true;
}

static bool is_known(const struct qy_stopped *s, int tid)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->thread[i].tid == tid)
			return true;
	return false;
}

/* A thread that has ended, or is about to, cannot be traced, and has no use for what was in its registers. */
static bool has_ended(int list, int tid)
{
	char path[32], text[512], *at;
	struct qy_text out;
	long fd, n;

	qy_text_init(&out, path, sizeof(path), -1);
	qy_text_format(&out, "%d/stat", tid);
	fd = syscall(SYS_openat, list, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return true;
	n = syscall(SYS_read, fd, text, sizeof(text) - 1);
	(void)syscall(SYS_close, fd);
	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')');
	return n <= 0 || (at != NULL && (at[2] == 'Z' || at[2] == 'X'));
}

/* Whether it is one more, that is about to stop or has to be done without. */
static bool interrupt_one(struct helper *h, int tid)
{
	struct qy_stopped *s = h->stopped;

	if (tid == h->caller || is_known(s, tid))
		return false;
	if (s->count == h->max) {
		h->error = ENOMEM;
		return false;
	}
	if (syscall(SYS_ptrace, PTRACE_SEIZE, tid, 0, 0) != 0) {
		int error = errno;

		if (error != ESRCH && !has_ended(h->list, tid))
			h->error = error;
		return false;
	}
	s->thread[s->count] = (struct qy_stopped_thread){ .tid = tid };
	h->signal[s->count] = -1;
	s->count++;
	(void)syscall(SYS_ptrace, PTRACE_INTERRUPT, tid, 0, 0);
	return true;
}

/* As getdents64(2) has them. */
struct entry {
	uint64_t inode;
	int64_t next;
	uint16_t length;
	uint8_t type;
	char name[];
};

static int number_of(const char *name)
{
	int n = 0;

	for (; *name >= '0' && *name <= '9'; name++)
		n = n * 10 + (*name - '0');
	return *name == 0 ? n : 0;
}

/* Those that are there; how many are new. */
static size_t interrupt_listed(struct helper *h)
{
	char buffer[4096] __attribute__((aligned(8)));
	size_t fresh = 0;
	long n;

	(void)syscall(SYS_lseek, h->list, 0, SEEK_SET);
	while ((n = syscall(SYS_getdents64, h->list, buffer, sizeof(buffer))) > 0 && h->error == 0)
		for (long at = 0; at < n && h->error == 0; at += ((struct entry *)(void *)(buffer + at))->length) {
			int tid = number_of(((struct entry *)(void *)(buffer + at))->name);

			fresh += tid > 0 && interrupt_one(h, tid);
		}
	return fresh;
}

static void await_stops(struct helper *h, uint64_t until)
{
	struct qy_stopped *s = h->stopped;
	size_t missing;

	do {
		missing = 0;
		for (size_t i = 0; i < s->count; i++) {
			if (h->signal[i] >= 0)
				continue;
			if (!has_stopped(s->thread[i].tid, &h->signal[i]))
				missing++;
			else if (!take_registers(&s->thread[i]))
				s->thread[i].words = 0;
		}
		if (missing > 0)
			(void)syscall(SYS_sched_yield);
	} while (missing > 0 && clock_ms() < until);
}

/* Threads that run make new ones meanwhile: until there are none. */
static void stop_all(struct helper *h)
{
	uint64_t until = clock_ms() + STOP_MS;

	while (h->error == 0 && interrupt_listed(h) > 0)
		await_stops(h, until);
}

/* (What it does not detach from goes on when it ends.) */
static void let_all_go(const struct helper *h)
{
	for (size_t i = 0; i < h->stopped->count; i++)
		(void)syscall(SYS_ptrace, PTRACE_DETACH, h->stopped->thread[i].tid, 0,
			      h->signal[i] > 0 ? h->signal[i] : 0);
}

static int help(void *ctx)
{
	struct helper *h = ctx;

	(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (syscall(SYS_getppid) != h->process)
		return 0;
	wait_while(&h->state, BEGINS);
	stop_all(h);
	set_state(h, h->error == 0 ? STOPPED : FAILED);
	if (h->error == 0)
		wait_while(&h->state, STOPPED);
	let_all_go(h);
	return 0;
}

/* ---- the caller ---- */

static void block_all(uint64_t *old)
{
	uint64_t all = UINT64_MAX;

	(void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, old, SIGSET_BYTES);
}

static void unblock(const uint64_t *old)
{
	(void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, SIGSET_BYTES);
}

/* The helper counts threads while they make new ones, so that this is where it begins. */
static size_t count_threads(int list)
{
	char buffer[4096] __attribute__((aligned(8)));
	size_t count = 0;
	long n;

	while ((n = syscall(SYS_getdents64, list, buffer, sizeof(buffer))) > 0)
		for (long at = 0; at < n; at += ((struct entry *)(void *)(buffer + at))->length)
			count += number_of(((struct entry *)(void *)(buffer + at))->name) > 0;
	return count;
}

static int open_list(void)
{
	return (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

/* The helper, its stack, and a place for each thread, in one mapping. */
int qy_linux_stop_room(struct qy_stopped *s)
{
	int list = open_list();
	size_t threads, max, own;
	void *p;

	*s = (struct qy_stopped){ .count = 0 };
	if (list < 0)
		return -1;
	threads = count_threads(list);
	(void)syscall(SYS_close, list);
	s->others = threads > 0 ? threads - 1 : 0;
	if (s->others == 0)
		return 0;
	max = threads + threads / 2 + 64;
	own = qy_align_up(sizeof(struct helper) + max * sizeof(int), 64) + HELPER_STACK;
	s->mapped = qy_align_up(own + max * sizeof(struct qy_stopped_thread), qy_os_page_size());
	p = mmap(NULL, s->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -1;
	s->memory = p;
	s->thread = (void *)((char *)p + own);
	((struct helper *)p)->max = max;
	return 0;
}

void qy_linux_stop_forget(struct qy_stopped *s)
{
	if (s->memory != NULL)
		(void)munmap(s->memory, s->mapped);
	s->memory = NULL;
	s->thread = NULL;
	s->count = 0;
}

static void end_helper(struct helper *h)
{
	int status;

	if (h->pid > 0)
		while (syscall(SYS_wait4, h->pid, &status, __WALL, NULL) < 0 && errno == EINTR)
			;
	h->pid = 0;
}

static int start_helper(struct helper *h, struct qy_stopped *s, bool named)
{
	atomic_store(&h->state, BEGINS);
	h->stopped = s;
	h->error = 0;
	s->count = 0;
	h->pid = clone(help, s->thread, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED | CLONE_CHILD_CLEARTID, h, NULL,
		       NULL, &h->state);
	if (h->pid < 0)
		return -1;
	if (named)
		(void)syscall(SYS_prctl, PR_SET_PTRACER, h->pid, 0, 0, 0);
	set_state(h, MAY_BEGIN);
	wait_while(&h->state, MAY_BEGIN);
	if (named)
		(void)syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
	if (atomic_load(&h->state) == STOPPED)
		return 0;
	end_helper(h);
	s->count = 0;
	errno = h->error != 0 ? h->error : ECHILD;
	return -1;
}

int qy_linux_stop_threads(struct qy_stopped *s)
{
	struct helper *h = s->memory;
	int result, error;

	if (h == NULL)
		return 0; /* there was no other thread */
	h->list = open_list();
	if (h->list < 0)
		return -1;
	h->process = (int)syscall(SYS_getpid);
	h->caller = (int)syscall(SYS_gettid);
	block_all(&s->mask);
	result = start_helper(h, s, false);
	/* (Where Yama lets parents alone trace, the child has to be named. One that was named before is not, then.) */
	if (result != 0 && errno == EPERM)
		result = start_helper(h, s, true);
	error = errno;
	(void)syscall(SYS_close, h->list);
	if (result != 0)
		unblock(&s->mask);
	errno = error;
	return result;
}

void qy_linux_let_go(struct qy_stopped *s)
{
	struct helper *h = s->memory;

	if (h == NULL || h->pid <= 0)
		return;
	set_state(h, LET_GO);
	end_helper(h);
	unblock(&s->mask);
}

/* ---- the copy ---- */

/* Where children are made in another namespace of processes (unshare(2), setns(2)), the first one is its init. */
static bool children_are_elsewhere(void)
{
	char own[64], childrens[64];
	long n = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/ns/pid", own, sizeof(own));
	long m = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/ns/pid_for_children", childrens, sizeof(childrens));

	return n > 0 && (n != m || memcmp(own, childrens, (size_t)n) != 0) && !(m < 0 && errno == ENOENT);
}

/* In a copy, memory is looked at that may not be there: pages that a child is not given, or that nobody may read, or that
 * are behind the end of a file. */
static sigjmp_buf way_out;
static volatile sig_atomic_t trying;

static void on_fault(int sig)
{
	if (trying)
		siglongjmp(way_out, 1);
	(void)signal(sig, SIG_DFL); /* it comes again, at once */
}

/* (By volatile words, as memcpy(3) of AddressSanitizer's would look at what may be read.) */
__attribute__((no_sanitize_address)) bool qy_linux_try_read(uint64_t *to, const uint64_t *from, size_t words)
{
	const volatile uint64_t *word = from;

	if (sigsetjmp(way_out, 0) != 0) {
		trying = 0;
		return false;
	}
	trying = 1;
	atomic_signal_fence(memory_order_seq_cst);
	for (size_t i = 0; i < words; i++)
		to[i] = word[i];
	atomic_signal_fence(memory_order_seq_cst);
	trying = 0;
	return true;
}

static void begin_copy(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS };
	struct rlimit none = { 0, 0 };
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	uint64_t mask = UINT64_MAX;

	(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)setrlimit(RLIMIT_CORE, &none); /* (it would be a second one of the program's, by its looks) */
	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		(void)sigaction(faults[i], &action, NULL);
		mask &= ~(UINT64_C(1) << (faults[i] - 1));
	}
	(void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, SIGSET_BYTES);
}

int qy_linux_copy_process(int (*work)(void *ctx), void *ctx)
{
	uint64_t mask;
	long parent = syscall(SYS_getpid), pid;

	if (children_are_elsewhere()) {
		errno = EPERM;
		return -1;
	}
	block_all(&mask);
	pid = syscall(SYS_clone, CLONE_UNTRACED, 0, 0, 0, 0);
	if (pid == 0) {
		begin_copy();
		if (syscall(SYS_getppid) == parent)
			(void)syscall(SYS_exit_group, work(ctx));
		for (;;)
			(void)syscall(SYS_exit_group, QY_COPY_ALONE);
	}
	unblock(&mask);
	return (int)pid;
}

int qy_linux_await_copy(int pid, int *status)
{
	long r;

	while ((r = syscall(SYS_wait4, pid, status, __WALL, NULL)) < 0 && errno == EINTR)
		;
	return r < 0 ? -1 : 0;
}

int qy_linux_page_entries(const void *from, size_t count, uint64_t *entries)
{
	long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0), n = -1;
	size_t bytes = count * sizeof(*entries), done = 0;

	while (fd >= 0 && done < bytes) {
		n = syscall(SYS_pread64, fd, (char *)entries + done, bytes - done,
			    (long)((uintptr_t)from / qy_os_page_size() * sizeof(*entries) + done));
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (fd >= 0)
		(void)syscall(SYS_close, fd);
	return fd >= 0 && done == bytes ? 0 : -1;
}

void qy_linux_close_others(const int *keep, size_t count)
{
	unsigned from = 0;

	for (size_t i = 0; i <= count; i++) {
		unsigned to = i < count ? (unsigned)keep[i] : UINT32_MAX;

		if (to > from)
			(void)syscall(SYS_close_range, from, i < count ? to - 1 : to, 0);
		from = to + 1;
	}
}

int qy_linux_write_all(int fd, const void *bytes, size_t len)
{
	while (len > 0) {
		long n = syscall(SYS_write, fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		bytes = (const char *)bytes + n;
		len -= (size_t)n;
	}
	return 0;
}
