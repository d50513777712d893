/* SPDX-License-Identifier: MIT */
/* errno and the return values of the C family when it cannot, as the standards and glibc have them, and errno left
 * alone where it has to be. variants: preload linked archive static */
#include <malloc.h>
#include <sys/mman.h>

#include "tests/family/family.h"

/* Not known to the compiler, which warns of such sizes. */
static volatile size_t over = (size_t)PTRDIFF_MAX + 1;
static volatile size_t most = SIZE_MAX;
static volatile size_t half = SIZE_MAX / 2;

#define FAILS(call, with)                                     \
	do {                                                  \
		errno = 0;                                    \
		CHECK((call) == NULL);                        \
		CHECK(errno == (with));                       \
	} while (0)

static void too_large(void)
{
	FAILS(malloc(over), ENOMEM);
	FAILS(malloc(most), ENOMEM);
	FAILS(malloc(most - 4096), ENOMEM);
	FAILS(malloc(half - 16), ENOMEM);
	FAILS(calloc(over, 1), ENOMEM);
	FAILS(calloc(1, over), ENOMEM);
	FAILS(calloc(most, most), ENOMEM);
	FAILS(calloc(half, 4), ENOMEM);
	FAILS(calloc(((size_t)1 << 32) + 1, (size_t)1 << 32), ENOMEM);
	FAILS(realloc(NULL, over), ENOMEM);
	FAILS(reallocarray(NULL, half, 3), ENOMEM);
	FAILS(reallocarray(NULL, most, 1), ENOMEM);
	FAILS(aligned_alloc(64, over), ENOMEM);
	FAILS(aligned_alloc(64, most - 63), ENOMEM);
	FAILS(memalign(4096, most - 4095), ENOMEM);
	FAILS(valloc(over), ENOMEM);
	FAILS(valloc(most - 4096), ENOMEM);
	FAILS(pvalloc(over), ENOMEM);
	FAILS(pvalloc(most), ENOMEM);
	FAILS(pvalloc(most - 4096), ENOMEM);
	/* The largest power of two is a good alignment, if not one to be had. */
	FAILS(aligned_alloc((size_t)1 << 63, 1), ENOMEM);
	FAILS(memalign((size_t)1 << 63, 1), ENOMEM);
}

static void kept_when_realloc_fails(void)
{
	for (size_t n = 1; n < 3000000; n = n * 5 + 3) {
		unsigned char *p = malloc(n);
		CHECK(p != NULL);
		family_fill(p, n, 9);
		FAILS(realloc(p, over), ENOMEM);
		FAILS(realloc(p, most), ENOMEM);
		FAILS(reallocarray(p, half, 3), ENOMEM);
		CHECK(family_holds(p, n, 9));
		free(p);
	}
}

static void bad_alignments(void)
{
	static const size_t bad[] = { 0, 3, 6, 7, 24, 48, 100, 4097, ((size_t)1 << 63) + 1, SIZE_MAX };
	void *p;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		FAILS(aligned_alloc(bad[i], 100), EINVAL);
		p = (void *)&p;
		errno = 77;
		CHECK(posix_memalign(&p, bad[i], 100) == EINVAL);
		CHECK(errno == 77 && p == (void *)&p);
	}
	for (size_t a = 1; a < sizeof(void *); a *= 2)
		CHECK(posix_memalign(&p, a, 100) == EINVAL);
	FAILS(memalign(((size_t)1 << 63) + 1, 100), EINVAL);
	FAILS(memalign(most, 100), EINVAL);
	p = (void *)&p;
	errno = 77;
	CHECK(posix_memalign(&p, 64, over) == ENOMEM);
	CHECK(posix_memalign(&p, (size_t)1 << 63, 1) == ENOMEM);
	CHECK(errno == 77 && p == (void *)&p);
}

/* realloc to nothing frees: a process that does it for ever does not grow. */
static void realloc_to_nothing(void)
{
	for (int i = 0; i < 2000; i++) {
		void *p = malloc((size_t)1 << 20);
		CHECK(p != NULL);
		memset(p, 1, (size_t)1 << 20);
		CHECK(realloc(p, 0) == NULL);
		p = malloc(100);
		CHECK(p != NULL);
		CHECK(reallocarray(p, i % 2 ? 0 : 3, i % 2 ? 3 : 0) == NULL);
	}
	struct mallinfo2 info = mallinfo2();
	CHECK(info.uordblks + info.hblkhd < (size_t)200 << 20);
}

static void errno_kept_by_free(void)
{
	static void *many[20000];
	uint64_t random = 5;

	for (int i = 0; i < 20000; i++)
		CHECK((many[i] = malloc(family_size(&random, i % 100 ? 11 : 22))) != NULL);
	for (int i = 0; i < 20000; i++) {
		errno = 1000 + i;
		if (i % 3 == 0 && cfree)
			cfree(many[i]);
		else
			free(many[i]);
		CHECK(errno == 1000 + i);
	}
	errno = 55;
	free(NULL);
	CHECK(errno == 55);
	/* The slowest free there is: memory that goes back to the kernel. */
	for (size_t n = (size_t)1 << 20; n <= (size_t)256 << 20; n *= 4) {
		void *p = malloc(n);
		CHECK(p != NULL);
		errno = 56;
		free(p);
		CHECK(errno == 56);
	}
}

int main(void)
{
	family_in_use();
	too_large();
	kept_when_realloc_fails();
	bad_alignments();
	realloc_to_nothing();
	errno_kept_by_free();
	return 0;
}
