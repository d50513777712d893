/* SPDX-License-Identifier: MIT */
/* The C++ allocation family: every operator new and delete, in C, for libquarry-malloc (the C one is interpose.c).
 *
 * How it is built. With -fexceptions: std::bad_alloc and whatever a new handler throws pass through the frames of
 * operator new, which is C here. With -fno-plt: one operator reaches another by one jump. The operators are weak
 * definitions, so that a program that links libquarry-malloc.a and has its own operator new does not define it twice.
 * The shared library must not bind the operators to itself when it is linked (-Bsymbolic, -Bsymbolic-functions), or
 * they are not replaceable any more.
 *
 * Replacement. C++ lets a program replace operator new(size_t) and operator delete(void *) alone, and promises that
 * new[], nothrow new, sized delete and so on then come to the program's. So those that the standard defines by another
 * operator call that one by its public name (one indirect jump), and nothrow new takes the short way only while
 * operator new is ours. An allocator that answers all of them itself would hand the program's operator delete
 * memory that the program's operator new never saw.
 *
 * Running out. operator new calls the new handler until memory is there, or throws std::bad_alloc. This library is not
 * linked with a C++ runtime, so the runtime is found when needed: by weak references when it is in the program, by
 * dlsym when a plugin brought it. A process that calls operator new and has no C++ runtime at all is aborted.
 * Nothrow new must catch what a handler throws, which C cannot: when there is a handler, the runtime's own nothrow
 * new is called, which calls operator new and catches. In a static program there is no second one: there the handler
 * is called from here, and what it (or a program's operator new) throws goes through nothrow new, that is, ends the
 * program. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif
#include <dlfcn.h>
#include <stdlib.h>

#include "include/quarry/quarry.h"
#include "lib/api/fast.h"
#include "lib/base/base.h"

/* Each function has a name for readers and, as its symbol, the operator's mangled name, in which size_t is one letter:
 * m where it is unsigned long (as on everything that quarry runs on), j where it is unsigned int. */
#ifdef __LP64__
#define SIZE "m"
#else
#define SIZE "j"
#endif

#define OPERATOR(symbol) __asm__(symbol) __attribute__((weak, visibility("default")))
#define NOTHROW "RKSt9nothrow_t"
#define ALIGNED "St11align_val_t"

typedef void (*new_handler_fn)(void);

/* The C++ runtime, when it is in the program. */
extern new_handler_fn cxx_get_new_handler(void) __asm__("_ZSt15get_new_handlerv") __attribute__((weak));
extern void cxx_throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv") __attribute__((weak));
extern void *__cxa_allocate_exception(size_t n) __attribute__((weak));
extern void __cxa_throw(void *exception, void *type, void (*destroy)(void *)) __attribute__((weak));
extern void *cxx_bad_alloc_vtable[] __asm__("_ZTVSt9bad_alloc") __attribute__((weak));
extern char cxx_bad_alloc_type[] __asm__("_ZTISt9bad_alloc") __attribute__((weak));
extern void cxx_bad_alloc_destroy(void *self) __asm__("_ZNSt9bad_allocD1Ev") __attribute__((weak));

/* A static program has no dlsym unless it asks for it. */
extern __typeof(dlopen) dlopen __attribute__((weak));
extern __typeof(dlsym) dlsym __attribute__((weak));
extern __typeof(dlclose) dlclose __attribute__((weak));

void *operator_new(size_t n) OPERATOR("_Znw" SIZE);
void *operator_new_array(size_t n) OPERATOR("_Zna" SIZE);
void *operator_new_nothrow(size_t n, const void *tag) OPERATOR("_Znw" SIZE NOTHROW);
void *operator_new_array_nothrow(size_t n, const void *tag) OPERATOR("_Zna" SIZE NOTHROW);
void *operator_new_aligned(size_t n, size_t alignment) OPERATOR("_Znw" SIZE ALIGNED);
void *operator_new_array_aligned(size_t n, size_t alignment) OPERATOR("_Zna" SIZE ALIGNED);
void *operator_new_aligned_nothrow(size_t n, size_t alignment, const void *tag)
	OPERATOR("_Znw" SIZE ALIGNED NOTHROW);
void *operator_new_array_aligned_nothrow(size_t n, size_t alignment, const void *tag)
	OPERATOR("_Zna" SIZE ALIGNED NOTHROW);
void operator_delete(void *p) OPERATOR("_ZdlPv");
void operator_delete_array(void *p) OPERATOR("_ZdaPv");
void operator_delete_nothrow(void *p, const void *tag) OPERATOR("_ZdlPv" NOTHROW);
void operator_delete_array_nothrow(void *p, const void *tag) OPERATOR("_ZdaPv" NOTHROW);
void operator_delete_sized(void *p, size_t n) OPERATOR("_ZdlPv" SIZE);
void operator_delete_array_sized(void *p, size_t n) OPERATOR("_ZdaPv" SIZE);
void operator_delete_aligned(void *p, size_t alignment) OPERATOR("_ZdlPv" ALIGNED);
void operator_delete_array_aligned(void *p, size_t alignment) OPERATOR("_ZdaPv" ALIGNED);
void operator_delete_aligned_nothrow(void *p, size_t alignment, const void *tag)
	OPERATOR("_ZdlPv" ALIGNED NOTHROW);
void operator_delete_array_aligned_nothrow(void *p, size_t alignment, const void *tag)
	OPERATOR("_ZdaPv" ALIGNED NOTHROW);
void operator_delete_sized_aligned(void *p, size_t n, size_t alignment)
	OPERATOR("_ZdlPv" SIZE ALIGNED);
void operator_delete_array_sized_aligned(void *p, size_t n, size_t alignment)
	OPERATOR("_ZdaPv" SIZE ALIGNED);

/* Ours under names that nobody can replace, to see whether somebody did. */
#define OURS(symbol) __attribute__((alias(symbol), visibility("hidden")))
extern __typeof(operator_new) qy_operator_new OURS("_Znw" SIZE);
extern __typeof(operator_new_array) qy_operator_new_array OURS("_Zna" SIZE);
extern __typeof(operator_new_aligned) qy_operator_new_aligned OURS("_Znw" SIZE ALIGNED);
extern __typeof(operator_new_array_aligned) qy_operator_new_array_aligned OURS("_Zna" SIZE ALIGNED);

static inline bool new_is_ours(bool array)
{
	return operator_new == qy_operator_new && (!array || operator_new_array == qy_operator_new_array);
}

static inline bool new_aligned_is_ours(bool array)
{
	return operator_new_aligned == qy_operator_new_aligned &&
	       (!array || operator_new_array_aligned == qy_operator_new_array_aligned);
}

/* A symbol of the C++ runtime that is not this library's: next in the global scope, or in a runtime that was loaded
 * for a plugin only. NULL when there is none. */
static QY_COLD void *cxx_runtime_symbol(const char *name)
{
	static const char *const runtimes[] = { "libstdc++.so.6", "libc++.so.1" };
	void *found;

	if (!dlsym || !dlopen || !dlclose)
		return NULL;
	found = dlsym(RTLD_NEXT, name);
	for (size_t i = 0; !found && i < sizeof(runtimes) / sizeof(*runtimes); i++) {
		void *handle = dlopen(runtimes[i], RTLD_LAZY | RTLD_NOLOAD);
		if (handle) {
			found = dlsym(handle, name);
			dlclose(handle); /* whoever called operator new has it loaded */
		}
	}
	return found;
}

static QY_COLD new_handler_fn new_handler(void)
{
	new_handler_fn (*get)(void) = cxx_get_new_handler;

	if (!get)
		get = (new_handler_fn(*)(void))cxx_runtime_symbol("_ZSt15get_new_handlerv");
	return get ? get() : NULL;
}

static QY_COLD __attribute__((noreturn)) void throw_bad_alloc(void)
{
	void (*thrower)(void) = cxx_throw_bad_alloc;

	if (!thrower)
		thrower = (void (*)(void))cxx_runtime_symbol("_ZSt17__throw_bad_allocv");
	if (thrower)
		thrower();
	/* A static program that never throws std::bad_alloc has no function for it, but what it takes to catch one. */
	if (__cxa_allocate_exception && __cxa_throw && cxx_bad_alloc_type && cxx_bad_alloc_vtable &&
	    cxx_bad_alloc_destroy) {
		void **exception = __cxa_allocate_exception(sizeof(void *));
		*exception = cxx_bad_alloc_vtable + 2; /* past the offset and the type */
		__cxa_throw(exception, cxx_bad_alloc_type, cxx_bad_alloc_destroy);
	}
	abort();
}

/* alignment 0: as malloc's. */
static void *allocate(size_t n, size_t alignment)
{
	return alignment ? quarry_aligned_alloc(alignment, n) : quarry_malloc(n);
}

/* Call the handler until there is memory; NULL when there is no handler any more. */
static QY_COLD void *new_with_handler(size_t n, size_t alignment)
{
	for (;;) {
		new_handler_fn handler = new_handler();
		void *p;

		if (!handler)
			return NULL;
		handler();
		p = allocate(n, alignment);
		if (p)
			return p;
	}
}

static QY_COLD void *new_failed(size_t n, size_t alignment)
{
	/* No handler can make an alignment good. */
	void *p = alignment == 0 || qy_is_pow2(alignment) ? new_with_handler(n, alignment) : NULL;

	if (!p)
		throw_bad_alloc();
	return p;
}

/* Nothrow new, when memory has run out and there may be a handler, or operator new is the program's. */
static QY_COLD void *new_nothrow_slow(size_t n, const void *tag, bool array)
{
	bool ours = new_is_ours(array);
	void *(*theirs)(size_t, const void *);

	if (ours && !new_handler())
		return NULL;
	theirs = (void *(*)(size_t, const void *))cxx_runtime_symbol(array ? "_Zna" SIZE NOTHROW : "_Znw" SIZE NOTHROW);
	if (theirs)
		return theirs(n, tag);
	if (ours)
		return new_with_handler(n, 0);
	return array ? operator_new_array(n) : operator_new(n);
}

static QY_COLD void *new_aligned_nothrow_slow(size_t n, size_t alignment, const void *tag, bool array)
{
	bool ours = new_aligned_is_ours(array);
	void *(*theirs)(size_t, size_t, const void *);

	if (ours && (!qy_is_pow2(alignment) || !new_handler()))
		return NULL;
	theirs = (void *(*)(size_t, size_t, const void *))cxx_runtime_symbol(
		array ? "_Zna" SIZE ALIGNED NOTHROW : "_Znw" SIZE ALIGNED NOTHROW);
	if (theirs)
		return theirs(n, alignment, tag);
	if (ours)
		return new_with_handler(n, alignment);
	return array ? operator_new_array_aligned(n, alignment) : operator_new_aligned(n, alignment);
}

void *operator_new(size_t n)
{
	void *p = qy_fast_malloc(n);

	return QY_LIKELY(p != NULL) ? p : new_failed(n, 0);
}

void *operator_new_array(size_t n)
{
	return operator_new(n);
}

void *operator_new_nothrow(size_t n, const void *tag)
{
	if (QY_LIKELY(new_is_ours(false))) {
		void *p = qy_fast_malloc(n);
		if (QY_LIKELY(p != NULL))
			return p;
	}
	return new_nothrow_slow(n, tag, false);
}

void *operator_new_array_nothrow(size_t n, const void *tag)
{
	if (QY_LIKELY(new_is_ours(true))) {
		void *p = qy_fast_malloc(n);
		if (QY_LIKELY(p != NULL))
			return p;
	}
	return new_nothrow_slow(n, tag, true);
}

void *operator_new_aligned(size_t n, size_t alignment)
{
	void *p = quarry_aligned_alloc(alignment, n);

	return QY_LIKELY(p != NULL) ? p : new_failed(n, alignment);
}

void *operator_new_array_aligned(size_t n, size_t alignment)
{
	return operator_new_aligned(n, alignment);
}

void *operator_new_aligned_nothrow(size_t n, size_t alignment, const void *tag)
{
	if (QY_LIKELY(new_aligned_is_ours(false))) {
		void *p = quarry_aligned_alloc(alignment, n);
		if (QY_LIKELY(p != NULL))
			return p;
	}
	return new_aligned_nothrow_slow(n, alignment, tag, false);
}

void *operator_new_array_aligned_nothrow(size_t n, size_t alignment, const void *tag)
{
	if (QY_LIKELY(new_aligned_is_ours(true))) {
		void *p = quarry_aligned_alloc(alignment, n);
		if (QY_LIKELY(p != NULL))
			return p;
	}
	return new_aligned_nothrow_slow(n, alignment, tag, true);
}

void operator_delete(void *p)
{
	qy_fast_free(p);
}

void operator_delete_array(void *p)
{
	operator_delete(p);
}

void operator_delete_nothrow(void *p, const void *tag)
{
	(void)tag;
	operator_delete(p);
}

void operator_delete_array_nothrow(void *p, const void *tag)
{
	(void)tag;
	operator_delete_array(p);
}

void operator_delete_sized(void *p, size_t n)
{
	(void)n;
	operator_delete(p);
}

void operator_delete_array_sized(void *p, size_t n)
{
	(void)n;
	operator_delete_array(p);
}

void operator_delete_aligned(void *p, size_t alignment)
{
	(void)alignment;
	qy_fast_free(p);
}

void operator_delete_array_aligned(void *p, size_t alignment)
{
	operator_delete_aligned(p, alignment);
}

void operator_delete_aligned_nothrow(void *p, size_t alignment, const void *tag)
{
	(void)tag;
	operator_delete_aligned(p, alignment);
}

void operator_delete_array_aligned_nothrow(void *p, size_t alignment, const void *tag)
{
	(void)tag;
	operator_delete_array_aligned(p, alignment);
}

void operator_delete_sized_aligned(void *p, size_t n, size_t alignment)
{
	(void)n;
	operator_delete_aligned(p, alignment);
}

void operator_delete_array_sized_aligned(void *p, size_t n, size_t alignment)
{
	(void)n;
	operator_delete_array_aligned(p, alignment);
}
