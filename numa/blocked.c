/* SPDX-License-Identifier: MIT */
/* Whether another thread of this process is blocked where nothing of ours can be under way in it. Told by the kernel,
 * in /proc/self/task/TID, without the thread's help; whatever is not exactly as expected is a no.
 *
 * syscall says the number, the arguments, and the place of the system call that the thread is blocked in. The kernel
 * reads it with the thread off its CPU and under the lock of that CPU's run queue, which the thread's way out took
 * before and its way back in takes after: so what we wrote before is seen by the thread, and what it wrote by us. A
 * thread that was stopped elsewhere (a page fault, preempted, by a debugger) has no number, or is "running".
 *
 * A thread that is blocked in a call that its program made is at the instruction after that call. What the kernel can
 * do to it there that is none of the program's ordinary course is to be ruled out:
 * - Only calls that one waits in count. Among those that do not: rt_sigreturn, which goes on wherever a signal struck;
 *   vfork and clone, whose child runs on in the same memory with the same thread-local storage; those of probes.
 * - A signal handler may have interrupted anything. While it runs, its signal is blocked, or what its action names
 *   beside; so a thread with a blocked signal that has a handler is let be. It is too when a signal's action says
 *   SA_NODEFER (but for crashes) and the thread has all signals blocked that the action names, and when a blocked
 *   signal has no handler but was given some action (which SA_RESETHAND, or a handler that puts the default back,
 *   leaves behind). Calls that wait with another signal mask than the thread's own hide what is blocked, and do not
 *   count. (A handler that unblocks its own signal and then waits is not seen. It cannot call malloc, so it is one of
 *   a program that stops its threads in a way of its own: that has to say idle_threads=0.)
 * - A debugger can make a thread call anything anywhere: not while one is attached.
 * - Under an emulator or an instrumenting tool, what the kernel sees are the tool's own calls. There, the place of a
 *   call of ours is not where our code has it: looked at once, by reading what the kernel says of the reader itself.
 *
 * The mask is another file's. That both speak of one time at which the thread was blocked is told by its count of
 * context switches, which goes up when it is taken off the CPU: with the same count before the mask was read and after
 * the thread was seen blocked, it was off the CPU all the while from the first to the latter. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "lib/base/base.h"
#include "lib/base/text.h"
#include "numa/os.h"

#define STATUS_SIZE 4096 /* where it is longer, by thousands of CPUs or groups, threads are let be */
#define CALL_SIZE 256
#define PATH_SIZE 64
#define SIGNALS 64

/* The same on all architectures, and younger than the headers may be. */
#define CALL_IO_URING_ENTER 426
#define CALL_EPOLL_PWAIT2 441
#define CALL_FUTEX_WAITV 449
#define CALL_FUTEX_WAIT 455

struct call {
	long number;
	uint64_t argument[6], stack, place;
};

struct state {
	uint64_t blocked, caught; /* signals */
	uint64_t switches;
};

/* ---- reading ---- */

static bool read_of(int tid, const char *name, char *buffer, size_t size)
{
	char path[PATH_SIZE];
	struct qy_text out;

	qy_text_init(&out, path, sizeof(path), -1);
	qy_text_format(&out, "/proc/self/task/%d/%s", tid, name);
	return qy_os->read_file(path, buffer, size) > 0;
}

/* The number behind a name, of a file with one name a line. (The first line is a name that the program can choose, but
 * for line ends.) */
static bool number_of(const char *text, const char *name, int base, uint64_t *value)
{
	const char *at = strstr(text, name);
	char *end;

	if (at == NULL)
		return false;
	at += strlen(name);
	*value = strtoull(at, &end, base);
	return end != at && (*end == '\n' || *end == '\t');
}

/* Whether the innermost of the thread's numbers, one in each namespace, is the one by which we know it. */
static bool is_it(const char *text, int tid)
{
	const char *at = strstr(text, "\nNSpid:");
	long last = 0;
	char *end;

	if (at == NULL) /* a kernel without namespaces */
		return true;
	at += strlen("\nNSpid:");
	while (*at == '\t' || *at == ' ') {
		last = strtol(at, &end, 10);
		if (end == at)
			return false;
		at = end;
	}
	return last == tid;
}

static bool read_state(int tid, struct state *state)
{
	char text[STATUS_SIZE];
	uint64_t tracer, wished, forced;

	if (!read_of(tid, "status", text, sizeof(text)) || !is_it(text, tid))
		return false;
	if (!number_of(text, "\nTracerPid:\t", 10, &tracer) || tracer != 0 ||
	    !number_of(text, "\nSigBlk:\t", 16, &state->blocked) || !number_of(text, "\nSigCgt:\t", 16, &state->caught) ||
	    !number_of(text, "\nvoluntary_ctxt_switches:\t", 10, &wished) ||
	    !number_of(text, "\nnonvoluntary_ctxt_switches:\t", 10, &forced))
		return false;
	state->switches = wished + forced + 1;
	return true;
}

/* "202 0x7f… (six arguments) 0x… (stack) 0x… (place)"; "running"; "-1 0x… 0x…" when it is in no system call. */
static bool parse_call(const char *text, struct call *call)
{
	uint64_t value[8];
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	call->number = strtol(text, &end, 10);
	for (unsigned i = 0; i < 8; i++) {
		const char *at = end;

		if (strncmp(at, " 0x", 3) != 0)
			return false;
		value[i] = strtoull(at + 1, &end, 16);
	}
	memcpy(call->argument, value, sizeof(call->argument));
	call->stack = value[6];
	call->place = value[7];
	return *end == '\n';
}

static bool read_call(int tid, struct call *call)
{
	char text[CALL_SIZE];

	return read_of(tid, "syscall", text, sizeof(text)) && parse_call(text, call);
}

/* ---- which calls ---- */

enum { NO_MASK = -1 };

/* Whether one waits in a call; and which argument is another signal mask, where one is. */
static bool is_wait(long number, int *mask)
{
	*mask = NO_MASK;
	switch (number) {
#ifdef SYS_poll
	case SYS_poll:
#endif
#ifdef SYS_select
	case SYS_select:
#endif
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
#ifdef SYS_pause
	case SYS_pause:
#endif
#ifdef SYS_accept
	case SYS_accept:
#endif
	case SYS_read: case SYS_readv: case SYS_pread64: case SYS_preadv: case SYS_preadv2:
	case SYS_write: case SYS_writev: case SYS_pwrite64: case SYS_pwritev: case SYS_pwritev2:
	case SYS_recvfrom: case SYS_recvmsg: case SYS_recvmmsg: case SYS_sendto: case SYS_sendmsg: case SYS_sendmmsg:
	case SYS_accept4: case SYS_connect: case SYS_splice: case SYS_tee: case SYS_vmsplice: case SYS_sendfile:
	case SYS_futex: case CALL_FUTEX_WAITV: case CALL_FUTEX_WAIT:
	case SYS_nanosleep: case SYS_clock_nanosleep: case SYS_restart_syscall:
	case SYS_wait4: case SYS_waitid:
	case SYS_msgrcv: case SYS_msgsnd: case SYS_semop: case SYS_semtimedop:
	case SYS_mq_timedreceive: case SYS_mq_timedsend:
	case SYS_io_getevents: case SYS_flock: case SYS_fcntl: case SYS_ioctl:
		return true;
	case SYS_ppoll:
		*mask = 3;
		return true;
	case SYS_epoll_pwait: case CALL_EPOLL_PWAIT2: case CALL_IO_URING_ENTER:
		*mask = 4;
		return true;
	case SYS_pselect6:
		*mask = 5;
		return true;
	default:
		return false;
	}
}

static bool is_ordinary(const struct call *call)
{
	int mask;

	return is_wait(call->number, &mask) && (mask == NO_MASK || call->argument[mask] == 0);
}

/* ---- signals ---- */

/* Handlers of these that have SA_NODEFER report a crash (LLVM's, Abseil's, the sanitizers'); what they interrupt does
 * not go on. */
static bool is_crash(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP || sig == SIGABRT;
}

static bool may_be_handling(int sig, const struct state *state)
{
	bool blocked = state->blocked >> (sig - 1) & 1;
	struct qy_signal_action action;

	if (qy_os->signal_action(sig, &action) != 0)
		return true;
	if (blocked)
		return action.handled || (!action.ignored && action.flags != 0);
	return (action.handled || (action.flags & SA_RESETHAND)) && (action.flags & SA_NODEFER) && !is_crash(sig) &&
	       (action.mask & ~state->blocked) == 0;
}

static bool may_be_in_handler(const struct state *state)
{
	if (state->blocked & state->caught)
		return true;
	for (int sig = 1; sig <= SIGNALS; sig++)
		if (may_be_handling(sig, state))
			return true;
	return false;
}

/* ---- whether the kernel is the one under us ---- */

#if defined(__x86_64__) && defined(__LP64__)
/* A system call, and where the thread is in it. */
static long call_at(long number, long a, long b, long c, uint64_t *place)
{
	long result;

	__asm__ volatile("syscall\n1:\n\tlea 1b(%%rip), %%rcx"
			 : "=a"(result), "=&c"(*place)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "r11", "memory");
	return result;
}
#define CAN_TELL 1
#elif defined(__aarch64__) && defined(__LP64__)
static long call_at(long number, long a, long b, long c, uint64_t *place)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	uint64_t at;

	__asm__ volatile("svc 0\n1:\n\tadr %1, 1b" : "+r"(x0), "=&r"(at) : "r"(x1), "r"(x2), "r"(x8) : "memory");
	*place = at;
	return x0;
}
#define CAN_TELL 1
#else
static long call_at(long number, long a, long b, long c, uint64_t *place)
{
	(void)number, (void)a, (void)b, (void)c;
	*place = 0;
	return -ENOSYS;
}
#define CAN_TELL 0
#endif

static bool place_is_ours(void)
{
	char text[CALL_SIZE];
	uint64_t nowhere, place;
	struct call call;
	long fd, n;

	fd = call_at(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/syscall", O_RDONLY | O_CLOEXEC, &nowhere);
	if (fd < 0)
		return false;
	n = call_at(SYS_read, fd, (long)text, sizeof(text) - 1, &place);
	(void)call_at(SYS_close, fd, 0, 0, &nowhere);
	if (n <= 0)
		return false;
	text[n] = 0;
	return parse_call(text, &call) && call.number == SYS_read && call.argument[0] == (uint64_t)fd &&
	       call.argument[1] == (uint64_t)(uintptr_t)text && call.argument[2] == sizeof(text) - 1 && call.place == place;
}

static bool can_tell(void)
{
	static _Atomic(int) known; /* 1 yes, 2 no */
	int is = atomic_load_explicit(&known, memory_order_relaxed);

	if (is == 0) {
		is = CAN_TELL && place_is_ours() ? 1 : 2;
		atomic_store_explicit(&known, is, memory_order_relaxed);
	}
	return is == 1;
}

/* ---- the two questions ---- */

uint64_t qy_thread_switches(int tid)
{
	struct state state;

	return can_tell() && read_state(tid, &state) ? state.switches : 0;
}

bool qy_thread_blocked(int tid)
{
	struct state before, state, after;
	struct call call;

	return can_tell() && read_state(tid, &before) && read_state(tid, &state) && read_call(tid, &call) &&
	       read_state(tid, &after) && before.switches == state.switches && state.switches == after.switches &&
	       is_ordinary(&call) && !may_be_in_handler(&state);
}

/* ---- and of oneself, from a signal handler ---- */

/* What was interrupted is a system call when the instruction to be executed next is one (the kernel goes back to it
 * when the call is restarted), or the one before is and the result says that a signal ended it. The first is certain.
 * For the second, where instructions have no fixed length, both must chance together: that what looks like the
 * instruction is the end of a longer one, and that the register has that value, which none of our quick paths ever
 * computes. */
#if defined(__x86_64__) && defined(__LP64__)
static bool is_call(uintptr_t at)
{
	return qy_os->readable((const void *)at) && qy_os->readable((const void *)(at + 1)) &&
	       memcmp((const void *)at, "\x0f\x05", 2) == 0;
}

static bool stands_at_call(const ucontext_t *context)
{
	uintptr_t place = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
	long result = (long)context->uc_mcontext.gregs[REG_RAX];

	return (is_call(place) && result != SYS_rt_sigreturn) || (result == -EINTR && is_call(place - 2));
}
#elif defined(__aarch64__) && defined(__LP64__)
static bool is_call(uintptr_t at)
{
	return qy_os->readable((const void *)at) && memcmp((const void *)at, "\x01\x00\x00\xd4", 4) == 0;
}

static bool stands_at_call(const ucontext_t *context)
{
	uintptr_t place = (uintptr_t)context->uc_mcontext.pc;

	return (is_call(place) && context->uc_mcontext.regs[8] != SYS_rt_sigreturn) ||
	       ((long)context->uc_mcontext.regs[0] == -EINTR && is_call(place - 4));
}
#else
static bool stands_at_call(const ucontext_t *context)
{
	(void)context;
	return false;
}
#endif

#define ROOM ((uintptr_t)24 << 10) /* three times what is needed for all that may be done then */

/* What is left of an alternate stack, when this runs on one. */
static bool has_room(const stack_t *stack)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0), low = (uintptr_t)stack->ss_sp;

	return (stack->ss_flags & SS_DISABLE) != 0 || here < low || here - low >= stack->ss_size || here - low >= ROOM;
}

/* The mask is the thread's own, also where the call waits with another. */
bool qy_context_waited(const void *context)
{
	const ucontext_t *interrupted = context;
	struct state state = { 0, 0, 0 };

	if (!stands_at_call(interrupted) || !has_room(&interrupted->uc_stack))
		return false;
	memcpy(&state.blocked, &interrupted->uc_sigmask, sizeof(state.blocked));
	return !may_be_in_handler(&state);
}
