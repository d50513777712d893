/* SPDX-License-Identifier: MIT */
/* Where a call comes from. Two ways:
 *
 * tables: the unwinder of the C and C++ runtimes (_Unwind_Backtrace of libgcc_s or libunwind), which goes by the tables
 *   that every program for Linux has (.eh_frame), also where frame pointers are not kept, as in most of Debian 12. It
 *   takes some 1,700 instructions for a frame. Since glibc 2.35 it takes no lock (_dl_find_object); it allocates nothing after its
 *   first call, which is made here, outside of any allocation. In a program in C it is loaded then.
 * frames: the chain of frame pointers, some ns for a frame and a system call for a page of the stack. What was compiled
 *   with -fomit-frame-pointer is missed, and ends the chain where it used the register for something else. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <link.h>
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

#define FRAME_MOST ((uintptr_t)1 << 20) /* bytes of one frame */
#define PAGE ((uintptr_t)4096)

/* A frame is the caller's frame pointer, and behind it where it returns to (x86-64 and AArch64 alike). Each is above the
 * one before. What a register held for something else may lead anywhere: the kernel is asked of each page whether it can
 * be read. (Where the stack ends libc would tell, and allocate for it with a lock of its own held.) */
static QY_NOINLINE unsigned by_frames(void **frames, unsigned most)
{
	struct walk w = { frames, 0, most };
	uintptr_t at = (uintptr_t)__builtin_frame_address(0), page = at / PAGE;

	while (w.count < most) {
		void *const *frame = (void *const *)at;
		uintptr_t next = (uintptr_t)frame[0];

		if ((uintptr_t)frame[1] < PAGE)
			break;
		add(&w, frame[1]);
		if (next <= at || next - at > FRAME_MOST || next % (2 * sizeof(void *)) != 0)
			break;
		if (next / PAGE != page && !qy_os->readable((const void *)next))
			break;
		page = next / PAGE;
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
