/* SPDX-License-Identifier: MIT */
/* Threads are stopped by ptrace(2), which a process may not do to itself: by a helper in the same memory that is a
 * process of its own (as LeakSanitizer's; clone(2) with CLONE_VM and without CLONE_THREAD). It seizes and interrupts
 * every thread but the one that asks, copies its registers, and lets all go when it is told to, or ends. A system call
 * that waits goes on afterwards, but for those that say EINTR after any stop (epoll_wait(2) and its kin, signal(7)).
 *
 * Neither the helper nor the copy is told of to the program: they have no exit signal, so that wait(2) without __WALL
 * does not see them, and no handler of pthread_atfork(3) runs. All signals are blocked in both: the program's handlers
 * must not run there. Both end with the process. The helper has the caller's thread-local storage; the caller sleeps, and
 * whatever the helper does is done by system calls. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/os_copy.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/base.h"

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
#define STOP_MS 1000   /* how long a thread may take to stop: one that the kernel keeps is given up */
#define HELPER_MS 10000 /* and the helper to do all of it */
#define SIGSET_BYTES 8 /* of the kernel's */

enum { BEGINS, MAY_BEGIN, STOPPED, FAILED, LET_GO };

/* At the front of the memory that holds what was stopped. */
struct helper {
	_Atomic(uint32_t) state;
	int caller, list; /* the thread that asks; a descriptor of /proc/self/task */
	int error;
	int pid;
	struct qy_stopped *stopped;
	size_t max;
	int signal[]; /* of each thread: what it was about to be sent when it stopped */
};

static void wait_on(_Atomic(uint32_t) *word, uint32_t while_it_is, unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	(void)syscall(SYS_futex, word, FUTEX_WAIT, while_it_is, &t, NULL, 0);
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

/* Until it has stopped. The signal that it was to be sent is kept for it. False when it has ended, or does not stop. */
static bool await_stop(int tid, int *signal)
{
	uint64_t until = clock_ms() + STOP_MS;
	int status = 0;

	for (;;) {
		long r = syscall(SYS_wait4, tid, &status, __WALL | WNOHANG, NULL);

		if (r == tid && WIFSTOPPED(status)) {
			*signal = status >> 16 == 0 ? WSTOPSIG(status) : 0;
			return true;
		}
		if ((r < 0 && errno != EINTR) || r == tid || clock_ms() > until)
			return false;
		(void)syscall(SYS_sched_yield);
	}
}

static bool is_known(const struct qy_stopped *s, int tid)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->thread[i].tid == tid)
			return true;
	return false;
}

/* Whether it is one more, that was stopped or has to be done without. */
static bool stop_one(struct helper *h, int tid)
{
	struct qy_stopped *s = h->stopped;
	struct qy_stopped_thread *t = &s->thread[s->count];

	if (s->count == h->max) {
		h->error = ENOMEM;
		return false;
	}
	if (tid == h->caller || is_known(s, tid))
		return false;
	if (syscall(SYS_ptrace, PTRACE_SEIZE, tid, 0, 0) != 0) {
		if (errno != ESRCH)
			h->error = errno;
		return false;
	}
	*t = (struct qy_stopped_thread){ .tid = tid };
	h->signal[s->count] = 0;
	s->count++;
	if (syscall(SYS_ptrace, PTRACE_INTERRUPT, tid, 0, 0) != 0 || !await_stop(tid, &h->signal[s->count - 1]) ||
	    !take_registers(t))
		t->words = 0;
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

/* Those that are there; how many were stopped. Threads that run make new ones meanwhile: until there are none. */
static size_t stop_listed(struct helper *h)
{
	char buffer[4096] __attribute__((aligned(8)));
	size_t stopped = 0;
	long n;

	(void)syscall(SYS_lseek, h->list, 0, SEEK_SET);
	while ((n = syscall(SYS_getdents64, h->list, buffer, sizeof(buffer))) > 0 && h->error == 0)
		for (long at = 0; at < n && h->error == 0; at += ((struct entry *)(void *)(buffer + at))->length) {
			int tid = number_of(((struct entry *)(void *)(buffer + at))->name);

			stopped += tid > 0 && stop_one(h, tid);
		}
	return stopped;
}

/* (What it does not detach from goes on when it ends.) */
static void let_all_go(const struct helper *h)
{
	for (size_t i = 0; i < h->stopped->count; i++)
		(void)syscall(SYS_ptrace, PTRACE_DETACH, h->stopped->thread[i].tid, 0, h->signal[i]);
}

static int help(void *ctx)
{
	struct helper *h = ctx;

	(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	while (atomic_load(&h->state) == BEGINS)
		wait_on(&h->state, BEGINS, 100);
	while (h->error == 0 && stop_listed(h) > 0)
		;
	if (h->error != 0) {
		let_all_go(h);
		set_state(h, FAILED);
		return 0;
	}
	set_state(h, STOPPED);
	while (atomic_load(&h->state) == STOPPED)
		wait_on(&h->state, STOPPED, 100);
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

static int end_helper(struct qy_stopped *s)
{
	struct helper *h = s->memory;
	int status;

	if (h->pid > 0)
		while (syscall(SYS_wait4, h->pid, &status, __WALL, NULL) < 0 && errno == EINTR)
			;
	unblock(&s->mask);
	return 0;
}

static void unmap(struct qy_stopped *s)
{
	(void)munmap(s->memory, s->mapped);
	s->memory = NULL;
	s->thread = NULL;
}

/* Until the helper has got somewhere, or is not there any more. */
static uint32_t await_helper(struct helper *h)
{
	uint64_t until = clock_ms() + HELPER_MS;
	uint32_t state;

	while ((state = atomic_load(&h->state)) == MAY_BEGIN) {
		int status;

		wait_on(&h->state, MAY_BEGIN, 100);
		if (syscall(SYS_wait4, h->pid, &status, __WALL | WNOHANG, NULL) != 0) {
			h->pid = 0;
			return FAILED;
		}
		if (clock_ms() > until) {
			(void)syscall(SYS_kill, h->pid, SIGKILL);
			return FAILED;
		}
	}
	return state;
}

static int start_helper(struct helper *h, char *stack)
{
	uint32_t state;

	h->pid = clone(help, stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED, h);
	if (h->pid < 0)
		return -1;
	/* (Where Yama lets parents alone trace, the child has to be named. One that was named before is not, then.) */
	(void)syscall(SYS_prctl, PR_SET_PTRACER, h->pid, 0, 0, 0);
	set_state(h, MAY_BEGIN);
	state = await_helper(h);
	(void)syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
	if (state == STOPPED)
		return 0;
	errno = h->error != 0 ? h->error : ECHILD;
	return -1;
}

/* The helper, its stack, and a place for each thread, in one mapping. */
static struct helper *make_room(struct qy_stopped *s, size_t max)
{
	size_t own = qy_align_up(sizeof(struct helper) + max * sizeof(int), 64) + HELPER_STACK;
	struct helper *h;

	s->mapped = qy_align_up(own + max * sizeof(struct qy_stopped_thread), qy_os_page_size());
	s->memory = mmap(NULL, s->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->memory == MAP_FAILED) {
		s->memory = NULL;
		return NULL;
	}
	h = s->memory;
	h->stopped = s;
	h->max = max;
	s->thread = (void *)((char *)s->memory + own);
	return h;
}

int qy_linux_stop_threads(struct qy_stopped *s)
{
	long list = syscall(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	struct helper *h;
	size_t there;
	int result;

	*s = (struct qy_stopped){ .count = 0 };
	if (list < 0)
		return -1;
	there = count_threads((int)list);
	h = there <= 1 ? NULL : make_room(s, there + there / 2 + 64);
	if (h == NULL) {
		(void)syscall(SYS_close, list);
		return there <= 1 ? 0 : -1;
	}
	h->list = (int)list;
	h->caller = (int)syscall(SYS_gettid);
	block_all(&s->mask);
	result = start_helper(h, (char *)s->thread);
	if (result != 0) {
		int saved = errno;

		end_helper(s);
		unmap(s);
		s->count = 0;
		errno = saved;
	}
	(void)syscall(SYS_close, list);
	return result;
}

void qy_linux_let_go(struct qy_stopped *s)
{
	if (s->memory == NULL)
		return;
	set_state(s->memory, LET_GO);
	end_helper(s);
	unmap(s);
}

/* ---- the copy ---- */

int qy_linux_copy_process(int (*work)(void *ctx), void *ctx)
{
	uint64_t mask;
	long parent = syscall(SYS_getpid), pid;

	block_all(&mask);
	pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
	if (pid == 0) {
		(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		/* (In a namespace of processes of its own it is another's child from the outside only.) */
		if (syscall(SYS_getppid) == parent)
			(void)syscall(SYS_exit_group, work(ctx));
		for (;;)
			(void)syscall(SYS_exit_group, 255);
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
