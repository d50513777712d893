/* SPDX-License-Identifier: MIT */
/* The fake kernel: refusing and counting, the clock, the timer and the threads, and the table of calls. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fake_machine.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/os_copy.h"
#include "numa/os_pages.h"

#define ADVICES 128

struct fault {
	int always;
	int later;       /* errno of the countdown */
	unsigned in;     /* calls until it; 0: none */
	bool stays;      /* from then on for ever */
	unsigned long calls;
};

static struct fault faults[FAKE_CALLS];
static struct {
	int err;
	unsigned long calls;
} advices[ADVICES];
static bool clock_set;
static uint64_t clock_ms, total_memory, address_limit;
static _Atomic(uint64_t) cpu_ns;
static int (*uring_registers)(int fd, unsigned opcode, void *arg, unsigned count);
static int thp_disabled;

/* ---- the clock, and how much there is ---- */

void fake_os_clock(uint64_t ms)
{
	pthread_mutex_lock(&fake_lock);
	clock_set = true;
	clock_ms = ms;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_cpu(uint64_t ns)
{
	atomic_store(&cpu_ns, ns);
}

void fake_os_advance(uint64_t ms)
{
	pthread_mutex_lock(&fake_lock);
	clock_ms += ms;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_total_memory(uint64_t bytes)
{
	pthread_mutex_lock(&fake_lock);
	total_memory = bytes;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_address_limit(uint64_t bytes)
{
	pthread_mutex_lock(&fake_lock);
	address_limit = bytes;
	pthread_mutex_unlock(&fake_lock);
}

/* ---- refusing and counting ---- */

/* Called with the lock held: counts the call, and gives the errno it is to fail with, or 0. */
static int injected(enum fake_call call)
{
	struct fault *fault = &faults[call];

	fault->calls++;
	if (fault->always)
		return fault->always;
	if (fault->in == 0 || --fault->in != 0)
		return 0;
	if (fault->stays)
		fault->in = 1;
	return fault->later;
}

static void set_fault(enum fake_call call, int always, unsigned k, int later, bool stays)
{
	unsigned long calls;

	if ((int)call < 0 || call >= FAKE_CALLS)
		fake_stop("no such call");
	pthread_mutex_lock(&fake_lock);
	calls = faults[call].calls;
	faults[call] = (struct fault){ .always = always, .later = later, .in = k, .stays = stays, .calls = calls };
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_fail(enum fake_call call, int err)
{
	set_fault(call, err, 0, 0, false);
}

void fake_os_fail_kth(enum fake_call call, unsigned k, int err)
{
	set_fault(call, 0, k, err, false);
}

void fake_os_fail_from(enum fake_call call, unsigned k, int err)
{
	set_fault(call, 0, k, err, true);
}

void fake_os_fail_advice(int advice, int err)
{
	if (advice < 0 || advice >= ADVICES)
		fake_stop("no such advice");
	pthread_mutex_lock(&fake_lock);
	advices[advice].err = err;
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_fail_numa(int err)
{
	fake_os_fail(FAKE_MBIND, err);
	fake_os_fail(FAKE_SET_MEMPOLICY, err);
	fake_os_fail(FAKE_GET_MEMPOLICY, err);
	fake_os_fail(FAKE_MOVE_PAGES, err);
	fake_os_fail(FAKE_MEMS_ALLOWED, err);
}

static _Atomic(bool) mremap_holes;

void fake_os_mremap_holes(bool leave)
{
	atomic_store(&mremap_holes, leave);
}

void fake_os_heal(void)
{
	fake_os_mremap_holes(false);
	for (int i = 0; i < FAKE_CALLS; i++)
		fake_os_fail(i, 0);
	for (int i = 0; i < ADVICES; i++)
		fake_os_fail_advice(i, 0);
}

unsigned long fake_os_calls(enum fake_call call)
{
	pthread_mutex_lock(&fake_lock);
	unsigned long n = faults[call].calls;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

unsigned long fake_os_advised(int advice)
{
	pthread_mutex_lock(&fake_lock);
	unsigned long n = advices[advice].calls;
	pthread_mutex_unlock(&fake_lock);
	return n;
}

unsigned long fake_os_all_calls(void)
{
	unsigned long n = 0;
	for (int i = 0; i < FAKE_CALLS; i++)
		n += i == FAKE_GETCPU ? 0 : fake_os_calls(i);
	return n;
}

void fake_os_forget_calls(void)
{
	pthread_mutex_lock(&fake_lock);
	for (int i = 0; i < FAKE_CALLS; i++)
		faults[i].calls = 0;
	for (int i = 0; i < ADVICES; i++)
		advices[i].calls = 0;
	pthread_mutex_unlock(&fake_lock);
}

/* ---- the table ---- */

/* Each call: look whether it is to fail, do it, and let go of the lock with errno as the call left it. */
#define CALL(call, type, failure, work)              \
	do {                                         \
		type rc_;                            \
		pthread_mutex_lock(&fake_lock);      \
		int err_ = injected(call);           \
		if (err_) {                          \
			errno = err_;                \
			rc_ = (failure);             \
		} else {                             \
			rc_ = (work);                \
		}                                    \
		err_ = errno;                        \
		pthread_mutex_unlock(&fake_lock);    \
		errno = err_;                        \
		return rc_;                          \
	} while (0)

static void *table_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	CALL(FAKE_MMAP, void *, MAP_FAILED, fake_mmap(addr, len, prot, flags, fd, off));
}

static int table_munmap(void *addr, size_t len)
{
	CALL(FAKE_MUNMAP, int, -1, fake_munmap(addr, len));
}

static int table_mprotect(void *addr, size_t len, int prot)
{
	CALL(FAKE_MPROTECT, int, -1, qy_os_linux.mprotect(addr, len, prot));
}

static int advised(void *addr, size_t len, int advice)
{
	if (advice >= 0 && advice < ADVICES) {
		advices[advice].calls++;
		if (advices[advice].err) {
			errno = advices[advice].err;
			return -1;
		}
	}
	return fake_madvise(addr, len, advice);
}

static int table_madvise(void *addr, size_t len, int advice)
{
	CALL(FAKE_MADVISE, int, -1, advised(addr, len, advice));
}

static void *table_mremap_away(void *old, size_t len, void *hint)
{
	CALL(FAKE_MREMAP, void *, MAP_FAILED, fake_mremap_away(old, len, hint));
}

static void leave_hole(void *at, size_t len)
{
	if (atomic_load(&mremap_holes))
		munmap(at, len);
}

static void *table_mremap_to(void *old, size_t len, void *to)
{
	CALL(FAKE_MREMAP, void *, (leave_hole(to, len), errno = err_, MAP_FAILED), fake_mremap_to(old, len, to));
}

static int table_mlock_onfault(void *addr, size_t len)
{
	CALL(FAKE_MLOCK, int, -1, qy_os_linux.mlock_onfault(addr, len));
}

static int table_mincore(void *addr, size_t len, unsigned char *vec)
{
	CALL(FAKE_MINCORE, int, -1, fake_mincore(addr, len, vec));
}

static long table_mbind(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits, unsigned flags)
{
	CALL(FAKE_MBIND, long, -1, fake_mbind(addr, len, mode, mask, bits, flags));
}

static long table_set_mempolicy(int mode, const unsigned long *mask, unsigned long bits)
{
	CALL(FAKE_SET_MEMPOLICY, long, -1, fake_set_mempolicy(mode, mask, bits));
}

static long table_get_mempolicy(int *mode, unsigned long *mask, unsigned long bits, void *addr, unsigned long flags)
{
	CALL(FAKE_GET_MEMPOLICY, long, -1, fake_get_mempolicy(mode, mask, bits, addr, flags));
}

static long table_move_pages(unsigned long count, void **pages, const int *nodes, int *status, int flags)
{
	CALL(FAKE_MOVE_PAGES, long, -1, fake_move_pages(count, pages, nodes, status, flags));
}
static int table_getcpu(unsigned *cpu, unsigned *node)
{
	CALL(FAKE_GETCPU, int, -1, fake_getcpu(cpu, node));
}

static long table_mems_allowed(unsigned long *mask, unsigned long bits)
{
	CALL(FAKE_MEMS_ALLOWED, long, -1, fake_mems_allowed(mask, bits));
}

static ssize_t table_read_file(const char *path, char *buffer, size_t size)
{
	CALL(FAKE_READ_FILE, ssize_t, -1, fake_read_file(path, buffer, size));
}

static uint64_t table_total_memory(void)
{
	return total_memory ? total_memory : qy_os_linux.total_memory();
}

static uint64_t table_address_limit(void)
{
	return address_limit ? address_limit : qy_os_linux.address_limit();
}

static uint64_t table_now_ms(void)
{
	pthread_mutex_lock(&fake_lock);
	uint64_t now = clock_set ? clock_ms : qy_os_linux.now_ms();
	pthread_mutex_unlock(&fake_lock);
	return now;
}

static int table_thread_id(void)
{
	return qy_os_linux.thread_id();
}

static uint64_t table_process_space(void)
{
	return qy_os_linux.process_space();
}

static int table_process_id(void)
{
	return qy_os_linux.process_id();
}

static void table_page_faults(uint64_t *minor, uint64_t *major)
{
	qy_os_linux.page_faults(minor, major);
}

static bool table_thread_alive(int pid, int tid)
{
	return qy_os_linux.thread_alive(pid, tid);
}

static int (*thread_blocked_by)(int tid);
static uint64_t (*thread_switches_by)(int tid);
static int (*signal_action_by)(int sig, struct qy_signal_action *action);

void fake_os_threads(int (*blocked)(int tid), uint64_t (*switches)(int tid))
{
	thread_blocked_by = blocked;
	thread_switches_by = switches;
}

void fake_os_signals(int (*action)(int sig, struct qy_signal_action *action))
{
	signal_action_by = action;
}

static bool table_thread_blocked(int tid)
{
	return thread_blocked_by != NULL ? thread_blocked_by(tid) != 0 : qy_os_linux.thread_blocked(tid);
}

static uint64_t table_thread_switches(int tid)
{
	return thread_switches_by != NULL ? thread_switches_by(tid) : qy_os_linux.thread_switches(tid);
}

static int table_signal_action(int sig, struct qy_signal_action *action)
{
	return signal_action_by != NULL ? signal_action_by(sig, action) : qy_os_linux.signal_action(sig, action);
}

static int table_signal_take(int sig, void (*fn)(const void *context))
{
	return qy_os_linux.signal_take(sig, fn);
}

static void (*timer_ring)(const void *context);
static uint64_t timer_at; /* ms; 0: at rest */
static int timer_signal;
static bool timer_waiting;

static int make_timer(int sig, void (*ring)(const void *context))
{
	timer_signal = sig;
	timer_ring = ring;
	timer_at = 0;
	return 7;
}

static int table_timer_make(int sig, void (*ring)(const void *context))
{
	CALL(FAKE_TIMER_MAKE, int, -1, make_timer(sig, ring));
}

static uint64_t now_of_timer(void)
{
	return clock_set ? clock_ms : qy_os_linux.now_ms();
}

static int set_timer(int timer, uint64_t ms)
{
	if (timer != 7)
		fake_stop("no such timer");
	timer_at = ms == 0 ? 0 : now_of_timer() + ms;
	return 0;
}

static int table_timer_set(int timer, uint64_t ms)
{
	CALL(FAKE_TIMER_SET, int, -1, set_timer(timer, ms));
}

uint64_t fake_os_timer(void)
{
	uint64_t now = now_of_timer();

	return timer_at == 0 ? 0 : timer_at > now ? timer_at - now : 1;
}

int fake_os_timer_signal(void)
{
	return timer_signal;
}

void fake_os_ring(bool waiting)
{
	timer_at = 0;
	timer_waiting = waiting;
	timer_ring(NULL);
}

static bool table_was_waiting(const void *context)
{
	return context == NULL ? timer_waiting : qy_os_linux.was_waiting(context);
}

static bool table_readable(const void *p)
{
	return qy_os_linux.readable(p);
}

static int table_sleep_shared(uint32_t *word, uint32_t value, uint64_t ms)
{
	return qy_os_linux.sleep_shared(word, value, ms);
}

static int table_wake_shared(uint32_t *word, int most)
{
	return qy_os_linux.wake_shared(word, most);
}

static int table_membarrier(int command)
{
	CALL(FAKE_MEMBARRIER, int, -1, qy_os_linux.membarrier(command));
}

/* Durations, and lines to a child, are the machine's own. */
static uint64_t table_now_ns(void)
{
	return qy_os_linux.now_ns();
}

static uint64_t table_cpu_ns(void)
{
	return cpu_ns != 0 ? atomic_load(&cpu_ns) : qy_os_linux.cpu_ns();
}

static int table_pair(int ends[2])
{
	return qy_os_linux.pair(ends);
}

static int table_send(int end, const void *bytes, size_t len, unsigned ms)
{
	return qy_os_linux.send(end, bytes, len, ms);
}

static int table_receive(int end, void *bytes, size_t len, unsigned ms)
{
	return qy_os_linux.receive(end, bytes, len, ms);
}

static int table_copy(void *to, const void *from, size_t len)
{
	return qy_os_linux.copy(to, from, len);
}

static int table_memfd(const char *name, unsigned flags)
{
	CALL(FAKE_MEMFD, int, -1, fake_memfd(name, flags));
}

static int table_set_size(int fd, uint64_t size)
{
	CALL(FAKE_SET_SIZE, int, -1, qy_os_linux.set_size(fd, size));
}

static int table_seals(int fd)
{
	return qy_os_linux.seals(fd);
}

static int table_seal(int fd, int seals)
{
	CALL(FAKE_SEAL, int, -1, qy_os_linux.seal(fd, seals));
}

static int table_allocate(int fd, uint64_t at, uint64_t len)
{
	CALL(FAKE_ALLOCATE, int, -1, fake_allocate(fd, at, len));
}

static int table_file_id(int fd, uint64_t *id)
{
	CALL(FAKE_FILE_ID, int, -1, qy_os_linux.file_id(fd, id));
}

static int table_reopen(int fd)
{
	CALL(FAKE_REOPEN, int, -1, qy_os_linux.reopen(fd));
}

static int table_open_file(const char *path, unsigned how)
{
	CALL(FAKE_OPEN_FILE, int, -1, qy_os_linux.open_file(path, how));
}

static int table_reopen_to_write(int fd)
{
	CALL(FAKE_REOPEN_TO_WRITE, int, -1, qy_os_linux.reopen_to_write(fd));
}

static int table_replace(int fd, int with)
{
	return qy_os_linux.replace(fd, with);
}

static int table_file_info(int fd, struct qy_file_info *info)
{
	return qy_os_linux.file_info(fd, info);
}

/* (One that waits must not hold the fake's lock.) */
static int table_range_lock(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	if (wait)
		return qy_os_linux.range_lock(fd, kind, at, len, wait);
	CALL(FAKE_RANGE_LOCK, int, -1, qy_os_linux.range_lock(fd, kind, at, len, wait));
}

static int table_range_locked(int fd, uint64_t at, uint64_t len)
{
	return qy_os_linux.range_locked(fd, at, len);
}

static int table_punch(int fd, uint64_t at, uint64_t len)
{
	CALL(FAKE_PUNCH, int, -1, qy_os_linux.punch(fd, at, len));
}

static int table_track_writes(void *addr, size_t len)
{
	CALL(FAKE_TRACK_WRITES, int, -1, qy_os_linux.track_writes(addr, len));
}

static int table_open_pagemap(int pid)
{
	CALL(FAKE_OPEN_PAGEMAP, int, -1, qy_os_linux.open_pagemap(pid));
}

static long table_written(int pagemap, uintptr_t *from, uintptr_t to, struct qy_page_range *ranges, size_t most)
{
	CALL(FAKE_WRITTEN, long, -1, qy_os_linux.written(pagemap, from, to, ranges, most));
}

static bool table_is_tracked(int pagemap, uintptr_t addr)
{
	return qy_os_linux.is_tracked(pagemap, addr);
}

static int table_open_of(int pid, int fd, bool to_write)
{
	CALL(FAKE_OPEN_OF, int, -1, qy_os_linux.open_of(pid, fd, to_write));
}

static int table_sync_data(int fd)
{
	CALL(FAKE_SYNC_DATA, int, -1, qy_os_linux.sync_data(fd));
}

static int table_sync_directory(const char *path)
{
	CALL(FAKE_SYNC_DIRECTORY, int, -1, qy_os_linux.sync_directory(path));
}

static int table_next_data(int fd, uint64_t from, uint64_t *begin, uint64_t *end)
{
	return qy_os_linux.next_data(fd, from, begin, end);
}

static int table_create_file(const char *path)
{
	CALL(FAKE_CREATE_FILE, int, -1, qy_os_linux.create_file(path));
}

static int table_rename_file(const char *from, const char *to)
{
	CALL(FAKE_RENAME_FILE, int, -1, qy_os_linux.rename_file(from, to));
}

static int table_remove_file(const char *path)
{
	return qy_os_linux.remove_file(path);
}

static int table_read_at(int fd, void *to, size_t len, uint64_t at)
{
	CALL(FAKE_READ_AT, int, -1, qy_os_linux.read_at(fd, to, len, at));
}

static int table_write_at(int fd, const void *from, size_t len, uint64_t at)
{
	CALL(FAKE_WRITE_AT, int, -1, qy_os_linux.write_at(fd, from, len, at));
}

static int table_nameless_file(const char *directory)
{
	CALL(FAKE_NAMELESS_FILE, int, -1, qy_os_linux.nameless_file(directory));
}

static int table_close(int fd)
{
	return qy_os_linux.close(fd);
}

static int table_page_is_huge(const void *addr, bool *huge)
{
	CALL(FAKE_PAGE_IS_HUGE, int, -1, fake_page_is_huge(addr, huge));
}

void fake_os_thp_disabled(int how)
{
	pthread_mutex_lock(&fake_lock);
	thp_disabled = how;
	pthread_mutex_unlock(&fake_lock);
}

static int table_thp_disabled(void)
{
	int disabled;

	pthread_mutex_lock(&fake_lock);
	disabled = thp_disabled;
	pthread_mutex_unlock(&fake_lock);
	return disabled;
}

/* The tests' threads run where they really may, whatever the machine. */
static long table_cpus_allowed(unsigned long *mask, unsigned long bits)
{
	return qy_os_linux.cpus_allowed(mask, bits);
}

static int table_run_on(const unsigned long *mask, unsigned long bits)
{
	return qy_os_linux.run_on(mask, bits);
}

static enum qy_unwind table_stack_prepare(enum qy_unwind how)
{
	return qy_os_linux.stack_prepare(how);
}

static unsigned table_stack(void **frames, unsigned most)
{
	return qy_os_linux.stack(frames, most);
}

static int table_create(const char *path)
{
	return qy_os_linux.create(path);
}

void fake_os_uring(int (*registers)(int fd, unsigned opcode, void *arg, unsigned count))
{
	pthread_mutex_lock(&fake_lock);
	uring_registers = registers;
	pthread_mutex_unlock(&fake_lock);
}

static int uring_allowed(void)
{
	CALL(FAKE_URING_REGISTER, int, -1, 0);
}

static int table_uring_register(int fd, unsigned opcode, void *arg, unsigned count)
{
	if (uring_allowed() != 0)
		return -1;
	if (uring_registers != NULL)
		return uring_registers(fd, opcode, arg, count);
	errno = ENOSYS;
	return -1;
}

static ssize_t table_receive_into(int fd, struct iovec *iov, unsigned count, int flags)
{
	return qy_os_linux.receive_into(fd, iov, count, flags);
}

static const struct qy_os fake_table = {
	.mmap = table_mmap,
	.munmap = table_munmap,
	.mprotect = table_mprotect,
	.madvise = table_madvise,
	.mremap_away = table_mremap_away,
	.mremap_to = table_mremap_to,
	.mlock_onfault = table_mlock_onfault,
	.mincore = table_mincore,
	.mbind = table_mbind,
	.set_mempolicy = table_set_mempolicy,
	.get_mempolicy = table_get_mempolicy,
	.move_pages = table_move_pages,
	.getcpu = table_getcpu,
	.mems_allowed = table_mems_allowed,
	.read_file = table_read_file,
	.total_memory = table_total_memory,
	.address_limit = table_address_limit,
	.now_ms = table_now_ms,
	.membarrier = table_membarrier,
	.sleep_shared = table_sleep_shared,
	.wake_shared = table_wake_shared,
	.thread_id = table_thread_id,
	.process_id = table_process_id,
	.process_space = table_process_space,
	.page_faults = table_page_faults,
	.thread_alive = table_thread_alive,
	.thread_switches = table_thread_switches,
	.thread_blocked = table_thread_blocked,
	.signal_action = table_signal_action,
	.timer_make = table_timer_make,
	.timer_set = table_timer_set,
	.signal_take = table_signal_take,
	.was_waiting = table_was_waiting,
	.readable = table_readable,
	.page_is_huge = table_page_is_huge,
	.thp_disabled = table_thp_disabled,
	.cpus_allowed = table_cpus_allowed,
	.run_on = table_run_on,
	.stack_prepare = table_stack_prepare,
	.stack = table_stack,
	.create = table_create,
	.now_ns = table_now_ns,
	.cpu_ns = table_cpu_ns,
	.pair = table_pair,
	.send = table_send,
	.receive = table_receive,
	.close = table_close,
	.memfd = table_memfd,
	.set_size = table_set_size,
	.seal = table_seal,
	.seals = table_seals,
	.allocate = table_allocate,
	.file_id = table_file_id,
	.reopen = table_reopen,
	.open_file = table_open_file,
	.reopen_to_write = table_reopen_to_write,
	.replace = table_replace,
	.file_info = table_file_info,
	.range_lock = table_range_lock,
	.range_locked = table_range_locked,
	.punch = table_punch,
	.track_writes = table_track_writes,
	.open_pagemap = table_open_pagemap,
	.written = table_written,
	.is_tracked = table_is_tracked,
	.open_of = table_open_of,
	.find_data = qy_linux_find_data,
	.sync_data = table_sync_data,
	.sync_directory = table_sync_directory,
	.wait_word = qy_linux_wait_word,
	.wake_word = qy_linux_wake_word,
	.wall_ns = qy_linux_wall_ns,
	.next_data = table_next_data,
	.create_file = table_create_file,
	.rename_file = table_rename_file,
	.remove_file = table_remove_file,
	.read_at = table_read_at,
	.write_at = table_write_at,
	.nameless_file = table_nameless_file,
	.copy = table_copy,
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
	.uring_register = table_uring_register,
	.receive_into = table_receive_into,
};

void fake_os_reset(void)
{
	pthread_mutex_lock(&fake_lock);
	fake_machine_reset();
	memset(faults, 0, sizeof(faults));
	memset(advices, 0, sizeof(advices));
	clock_set = false;
	cpu_ns = 0;
	fake_os_threads(NULL, NULL);
	fake_os_signals(NULL);
	timer_at = 0;
	total_memory = address_limit = 0;
	thp_disabled = 0;
	uring_registers = NULL;
	fake_memory_reset();
	fake_files_reset();
	pthread_mutex_unlock(&fake_lock);
}

void fake_os_install(void)
{
	fake_os_reset();
	qy_os = &fake_table;
}

void fake_os_remove(void)
{
	qy_os = &qy_os_linux;
}
