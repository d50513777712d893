/* SPDX-License-Identifier: MIT */
/* Where a call comes from. Two ways:
 *
 * tables: the unwinder of the C and C++ runtimes (_Unwind_Backtrace of libgcc_s or libunwind), which goes by the tables
 *   that every program for Linux has (.eh_frame), also where frame pointers are not kept, as in most of Debian 12. It
 *   takes 0.2 to 1 us for a frame. Since glibc 2.35 it takes no lock (_dl_find_object); it allocates nothing after its
 *   first call, which is made here, outside of any allocation. In a program in C it is loaded then.
 * frames: the chain of frame pointers, some ns for a frame. What was compiled with -fomit-frame-pointer is missed, and
 *   ends the chain where it used the register for something else; nothing outside of the thread's stack is read. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unwind.h>

#include "lib/base/base.h"
#include "numa/os.h"

typedef _Unwind_Reason_Code backtrace_fn(_Unwind_Trace_Fn visit, void *ctx);
typedef _Unwind_Ptr where_fn(struct _Unwind_Context *context);

/* Not in every program, or not in static ones. */
extern __typeof__(_Unwind_Backtrace) _Unwind_Backtrace __attribute__((weak));
extern __typeof__(_Unwind_GetIP) _Unwind_GetIP __attribute__((weak));
extern __typeof__(dlopen) dlopen __attribute__((weak));
extern __typeof__(dlsym) dlsym __attribute__((weak));
extern __typeof__(dl_iterate_phdr) dl_iterate_phdr __attribute__((weak));
extern __typeof__(pthread_getattr_np) pthread_getattr_np __attribute__((weak));
extern void *__libc_stack_end __attribute__((weak));

static _Atomic(backtrace_fn *) backtrace_by; /* NULL: by frame pointers */
static where_fn *where_is;
/* The library's own code, where that is not the program's, too. */
static uintptr_t own_from, own_to;

/* ---- what is quarry's own ---- */

static int find_own(struct dl_phdr_info *object, size_t size, void *found)
{
	uintptr_t me = (uintptr_t)find_own;
	bool *first = found;

	(void)size;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t from = object->dlpi_addr + part->p_vaddr;

		if (part->p_type != PT_LOAD || me - from >= part->p_memsz)
			continue;
		/* (The first object told is the program.) */
		if (!*first) {
			own_from = from;
			own_to = from + part->p_memsz;
		}
		return 1;
	}
	*first = false;
	return 0;
}

static bool is_own(const void *p)
{
	return (uintptr_t)p - own_from < own_to - own_from;
}

/* ---- by tables ---- */

struct walk {
	void **frames;
	unsigned count, most;
};

static void add(struct walk *w, void *address)
{
	if (w->count > 0 || !is_own(address))
		w->frames[w->count++] = address;
}

static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *ctx)
{
	struct walk *w = ctx;
	void *address = (void *)where_is(context);

	if (address == NULL || w->count == w->most)
		return _URC_END_OF_STACK;
	add(w, address);
	return w->count < w->most ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static backtrace_fn *find_backtrace(void)
{
	static const char *const libraries[] = { "libgcc_s.so.1", "libunwind.so.1" };
	void *library, *by, *where;

	if (_Unwind_Backtrace && _Unwind_GetIP) {
		where_is = _Unwind_GetIP;
		return _Unwind_Backtrace;
	}
	if (!dlopen || !dlsym)
		return NULL;
	for (unsigned i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		/* (It stays loaded for good: a thread may be in it at any time.) */
		library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
		by = library == NULL ? NULL : dlsym(library, "_Unwind_Backtrace");
		where = by == NULL ? NULL : dlsym(library, "_Unwind_GetIP");
		if (where == NULL)
			continue;
		*(void **)&where_is = where;
		return (backtrace_fn *)by;
	}
	return NULL;
}

/* ---- by frame pointers ---- */

#define FIRST_STACK ((uintptr_t)64 << 20) /* bytes of the first thread's: no mapping comes so near below it (mm/util.c) */

/* The thread's stack; the end is 0 before it was asked for, and 1 where it is not known. */
static __thread uintptr_t stack_from __attribute__((tls_model("initial-exec")));
static __thread uintptr_t stack_end __attribute__((tls_model("initial-exec")));

/* (Of the first thread glibc would read a file of /proc, and allocate for that.) */
static void find_stack_end(void)
{
	pthread_attr_t attr;
	void *base;
	size_t size;

	stack_end = 1;
	if (qy_os->thread_id() == qy_os->process_id()) {
		if (&__libc_stack_end) {
			stack_end = (uintptr_t)__libc_stack_end;
			stack_from = stack_end - FIRST_STACK;
		}
		return;
	}
	if (!pthread_getattr_np || pthread_getattr_np(pthread_self(), &attr) != 0)
		return;
	if (pthread_attr_getstack(&attr, &base, &size) == 0) {
		stack_from = (uintptr_t)base;
		stack_end = stack_from + size;
	}
	pthread_attr_destroy(&attr);
}

/* A frame is the caller's frame pointer, and behind it where it returns to (x86-64 and AArch64 alike). Each is above
 * the one before. All of a stack that is above the caller is there to be read. On another one, as a coroutine's or a
 * signal handler's, nothing is looked at. */
static QY_NOINLINE unsigned by_frames(void **frames, unsigned most)
{
	struct walk w = { frames, 0, most };
	uintptr_t at = (uintptr_t)__builtin_frame_address(0), end;

	if (stack_end == 0)
		find_stack_end();
	end = at < stack_from ? 0 : stack_end;
	while (w.count < most && at % sizeof(void *) == 0 && at < end && end - at >= 2 * sizeof(void *)) {
		void *const *frame = (void *const *)at;
		uintptr_t next = (uintptr_t)frame[0];

		if (frame[1] == NULL)
			break;
		add(&w, frame[1]);
		if (next <= at)
			break;
		at = next;
	}
	return w.count;
}

/* ---- for all ---- */

unsigned qy_unwind_stack(void **frames, unsigned most)
{
	backtrace_fn *by = atomic_load_explicit(&backtrace_by, memory_order_acquire);
	struct walk w = { frames, 0, most };

	if (by == NULL)
		return by_frames(frames, most);
	by(visit, &w);
	return w.count;
}

enum qy_unwind qy_unwind_prepare(enum qy_unwind how)
{
	backtrace_fn *by = how == QY_UNWIND_FRAMES ? NULL : find_backtrace();
	void *frames[4];
	struct walk w = { frames, 0, 4 };
	bool first = true;

	if (dl_iterate_phdr && own_to == 0)
		dl_iterate_phdr(find_own, &first);
	if (by != NULL)
		by(visit, &w);
	atomic_store_explicit(&backtrace_by, by, memory_order_release);
	return by != NULL ? QY_UNWIND_TABLES : QY_UNWIND_FRAMES;
}
