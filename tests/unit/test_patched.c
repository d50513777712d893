/* SPDX-License-Identifier: MIT */
/* A kernel whose calls allocate, as MPI and RDMA libraries patch mmap and munmap: a slow path that began inside another
 * one must leave nothing of it behind, and lose nothing of its own. (Files are read under leaf locks: open and read are
 * none of those calls.) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"
#include "tests/fake_os.h"

#define SIZE 64
#define HOOKED 4096
#define PLAIN 1000000

static struct qy_os patched;
static const struct qy_os *inner;
static bool armed, inside;
static char *hooked[HOOKED], *plain[PLAIN];
static unsigned hooked_count;
static size_t hook_size;
static unsigned hook_times;
static bool hook_frees;

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
}

static void check_and_free(char *p, char mark, size_t size)
{
	for (size_t i = 0; i < size; i++)
		cr_assert_eq(p[i], mark);
	quarry_free(p);
}

/* Not again for what it maps itself, as all of them see to. */
static void allocate(void)
{
	if (!armed || inside || hooked_count + hook_times > HOOKED)
		return;
	inside = true;
	for (unsigned i = 0; i < hook_times; i++) {
		char *p = quarry_malloc(hook_size);

		cr_assert_not_null(p);
		memset(p, 42, hook_size);
		hooked[hooked_count++] = p;
	}
	for (unsigned i = 0; hook_frees && i < hook_times; i++)
		check_and_free(hooked[--hooked_count], 42, hook_size);
	inside = false;
}

static void *hook_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	allocate();
	return inner->mmap(addr, len, prot, flags, fd, off);
}

static int hook_mprotect(void *addr, size_t len, int prot)
{
	allocate();
	return inner->mprotect(addr, len, prot);
}

static uint64_t used(void)
{
	uint64_t sum = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		sum += qy_read(&m->used);
	return sum;
}

/* Allocate, and end: what the thread has is given up then. */
static void *grow(void *unused)
{
	(void)unused;
	armed = true;
	for (unsigned i = 0; i < PLAIN; i++) {
		plain[i] = quarry_malloc(SIZE);
		cr_assert_not_null(plain[i]);
		memset(plain[i], 1, SIZE);
	}
	armed = false;
	return NULL;
}

static void hook_and_lose_nothing(size_t size, unsigned times)
{
	uint64_t mistakes, before;
	pthread_t thread;

	quarry_free(quarry_malloc(1));
	quarry_thread_flush();
	quarry_purge(NULL);
	before = used();
	mistakes = qy_mistake_count();
	hook_size = size;
	hook_times = times;
	inner = qy_os;
	patched = *qy_os;
	patched.mmap = hook_mmap;
	patched.mprotect = hook_mprotect;
	qy_os = &patched;
	cr_assert_eq(pthread_create(&thread, NULL, grow, NULL), 0);
	pthread_join(thread, NULL);
	qy_os = inner;
	cr_assert(hooked_count >= times || hook_frees, "nothing was mapped");
	quarry_purge(NULL);
	for (unsigned i = 0; i < hooked_count; i++)
		check_and_free(hooked[i], 42, size);
	for (unsigned i = 0; i < PLAIN; i++)
		check_and_free(plain[i], 1, SIZE);
	quarry_thread_flush();
	quarry_purge(NULL);
	cr_assert_eq(qy_mistake_count(), mistakes);
	cr_assert_eq(used(), before, "%ld bytes are lost", (long)(used() - before));
}

/* The same class, which the refill that maps is for. */
Test(patched, one_object_of_the_same_class)
{
	hook_and_lose_nothing(SIZE, 1);
}

/* So many that the inner one fills whole slabs, and makes others active. */
Test(patched, slabs_of_the_same_class)
{
	hook_and_lose_nothing(SIZE, 1200);
}

/* And frees all of it again: more than its list of them has room for. */
Test(patched, what_is_freed_inside)
{
	hook_frees = true;
	hook_and_lose_nothing(SIZE, 1200);
}

Test(patched, what_is_freed_inside_of_another_class)
{
	hook_frees = true;
	hook_and_lose_nothing(30000, 100);
}

Test(patched, another_class)
{
	hook_and_lose_nothing(1000, 100);
}

Test(patched, blocks)
{
	hook_and_lose_nothing(100000, 3);
}
