/* SPDX-License-Identifier: MIT */
#include "lib/base/checker.h"

#include <stdint.h>

#include "lib/base/lock.h"

#if QY_VALGRIND
#include <valgrind/memcheck.h>
#else
#define VALGRIND_MAKE_MEM_DEFINED(addr, len) ((void)(addr), (void)(len), 0)
#define VALGRIND_MALLOCLIKE_BLOCK(p, size, margin, zeroed) ((void)(p))
#define VALGRIND_MAKE_MEM_NOACCESS(addr, len) ((void)(addr), (void)(len))
#define VALGRIND_MEMPOOL_EXISTS(pool) ((void)(pool), 1)
#define VALGRIND_CREATE_MEMPOOL(pool, margin, zeroed) ((void)(pool))
#define VALGRIND_DESTROY_MEMPOOL(pool) ((void)(pool))
#define VALGRIND_MEMPOOL_ALLOC(pool, p, size) ((void)(pool), (void)(p), (void)(size))
#define VALGRIND_MEMPOOL_FREE(pool, p) ((void)(pool), (void)(p))
#define VALGRIND_DISABLE_ERROR_REPORTING ((void)0)
#define VALGRIND_ENABLE_ERROR_REPORTING ((void)0)
#endif

/* The program's, if it was built so. Where the library was, too, it may not touch what it has poisoned itself. */
#if !defined(__has_feature) /* (clang's) */
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define HAVE_ASAN 0
#else
#define HAVE_ASAN 1
#endif
void __asan_poison_memory_region(const volatile void *addr, size_t len) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *addr, size_t len) __attribute__((weak));
void __asan_report_error(void *pc, void *bp, void *sp, void *addr, int is_write, size_t len) __attribute__((weak));
void __lsan_register_root_region(const void *addr, size_t len) __attribute__((weak));
void __lsan_unregister_root_region(const void *addr, size_t len) __attribute__((weak));

uint8_t qy_checker;

/* memcheck looks for leaks in pools only where there is a block outside of them as well: this one, which is none. */
static char no_block[16];
static char *volatile reachable = no_block;

static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF); /* of who makes a pool known */

void qy_checker_init(void)
{
	/* (No other tool of Valgrind's answers.) */
	if (VALGRIND_MAKE_MEM_DEFINED(no_block, sizeof(no_block)) != 0) {
		qy_checker = QY_CHECKER_MEMCHECK;
		VALGRIND_MALLOCLIKE_BLOCK(reachable, sizeof(no_block), 0, 1);
	} else if (HAVE_ASAN && __asan_poison_memory_region != NULL && __asan_unpoison_memory_region != NULL) {
		qy_checker = QY_CHECKER_ASAN;
	}
}

void qy_checker_hush_slow(bool on)
{
	if (on)
		VALGRIND_DISABLE_ERROR_REPORTING;
	else
		VALGRIND_ENABLE_ERROR_REPORTING;
}

void qy_checker_forbid(const void *addr, size_t len)
{
	if (qy_checker == QY_CHECKER_ASAN)
		__asan_poison_memory_region(addr, len);
	else
		VALGRIND_MAKE_MEM_NOACCESS(addr, len);
}

void qy_checker_mapped(void *addr, size_t len)
{
	qy_checker_forbid(addr, len);
	if (qy_checker == QY_CHECKER_ASAN && __lsan_register_root_region != NULL)
		__lsan_register_root_region(addr, len);
}

void qy_checker_unmapped(void *addr, size_t len)
{
	if (qy_checker != QY_CHECKER_ASAN)
		return;
	if (__lsan_unregister_root_region != NULL)
		__lsan_unregister_root_region(addr, len);
	__asan_unpoison_memory_region(addr, len);
}

/* ---- blocks ---- */

#define SEAL ((uint64_t)0x71756172727953e5)

static uint64_t *seal_of(const void *p, size_t room)
{
	return (uint64_t *)(void *)((char *)(uintptr_t)p + room - 2 * sizeof(uint64_t));
}

static void know_pool(const void *pool)
{
	if (VALGRIND_MEMPOOL_EXISTS(pool))
		return;
	qy_lock(&lock);
	if (!VALGRIND_MEMPOOL_EXISTS(pool))
		VALGRIND_CREATE_MEMPOOL(pool, QY_CHECKER_MARGIN / 2, 0);
	qy_unlock(&lock);
}

void qy_checker_handed(const void *pool, void *p, size_t size, size_t room)
{
	uint64_t *seal = seal_of(p, room);

	size += size == 0; /* 0 stands for none at all */
	qy_checker_hush(true);
	seal[0] = size;
	seal[1] = size ^ (uintptr_t)p ^ SEAL;
	qy_checker_hush(false);
	if (qy_checker == QY_CHECKER_ASAN) {
		__asan_unpoison_memory_region(p, size);
		return;
	}
	know_pool(pool);
	VALGRIND_MEMPOOL_ALLOC(pool, p, size);
}

size_t qy_checker_size(const void *p, size_t room)
{
	const uint64_t *seal = seal_of(p, room);
	size_t size = 0;

	if ((uintptr_t)p % 16 != 0 || room < QY_CHECKER_MARGIN)
		return 0;
	qy_checker_hush(true);
	if ((seal[0] ^ (uintptr_t)p ^ SEAL) == seal[1] && seal[0] <= room - QY_CHECKER_MARGIN)
		size = seal[0];
	qy_checker_hush(false);
	return size;
}

bool qy_checker_taken(const void *pool, void *p, size_t room)
{
	if (qy_checker_size(p, room) == 0)
		return false;
	qy_checker_hush(true);
	seal_of(p, room)[1] = 0;
	qy_checker_hush(false);
	if (qy_checker == QY_CHECKER_ASAN) {
		__asan_poison_memory_region(p, room);
		return true;
	}
	know_pool(pool);
	VALGRIND_MEMPOOL_FREE(pool, p);
	return true;
}

void qy_checker_not_live(const void *pool, void *p)
{
	if (qy_checker == QY_CHECKER_MEMCHECK) {
		know_pool(pool);
		VALGRIND_MEMPOOL_FREE(pool, p);
	} else if (__asan_report_error != NULL) {
		__asan_report_error(__builtin_return_address(0), __builtin_frame_address(0),
				    __builtin_frame_address(0), p, 1, 1);
	}
}

void qy_checker_after_fork(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
}

void qy_checker_end(const void *pool)
{
	if (qy_checker == QY_CHECKER_MEMCHECK && VALGRIND_MEMPOOL_EXISTS(pool))
		VALGRIND_DESTROY_MEMPOOL(pool);
}
