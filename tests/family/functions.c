/* SPDX-License-Identifier: MIT */
/* Every function of the C family, for what it is for: memory that is as large and as aligned as was asked, keeps what
 * is written into it, and does not overlap other memory. variants: preload linked archive static */
#include <malloc.h>

#include "tests/family/family.h"

static int aligned_to(const void *p, size_t alignment)
{
	return ((uintptr_t)p & (alignment - 1)) == 0;
}

static void check_block(unsigned char *p, size_t n, size_t alignment)
{
	CHECK(p != NULL);
	CHECK(aligned_to(p, alignment));
	CHECK(malloc_usable_size(p) >= n);
	family_fill(p, malloc_usable_size(p), 0xa5);
}

static void sizes(void)
{
	static unsigned char *p[3000];
	static size_t size[3000];
	uint64_t random = 42;

	for (int i = 0; i < 3000; i++) {
		size[i] = i < 2100 ? (size_t)i : family_size(&random, 22);
		p[i] = malloc(size[i]);
		CHECK(p[i] != NULL);
		CHECK(aligned_to(p[i], 16));
		CHECK(malloc_usable_size(p[i]) >= size[i]);
		family_fill(p[i], size[i], (unsigned char)i);
	}
	for (int i = 0; i < 3000; i += 2) {
		size_t to = family_size(&random, 20);
		p[i] = realloc(p[i], to);
		CHECK(p[i] != NULL);
		CHECK(family_holds(p[i], to < size[i] ? to : size[i], (unsigned char)i));
		family_fill(p[i], to, (unsigned char)i);
		size[i] = to;
	}
	for (int i = 0; i < 3000; i++) {
		CHECK(family_holds(p[i], size[i], (unsigned char)i));
		free(p[i]);
	}
}

static void zeroed(void)
{
	uint64_t random = 43;

	for (int i = 0; i < 2000; i++) {
		size_t n = family_size(&random, i % 50 ? 12 : 22);
		size_t m = 1 + family_random(&random) % 4;
		unsigned char *dirty = malloc(n * m);
		unsigned char *p;
		CHECK(dirty != NULL);
		family_fill(dirty, n * m, 0xff);
		free(dirty);
		p = calloc(n, m);
		CHECK(p != NULL);
		CHECK(family_holds(p, n * m, 0));
		family_fill(p, n * m, 0xee);
		free(p);
	}
}

static void alignments(void)
{
	for (size_t alignment = 1; alignment <= (size_t)4 << 20; alignment *= 2)
		for (size_t n = 0; n <= 70000; n = n * 7 + 1) {
			void *p = aligned_alloc(alignment, n);
			check_block(p, n, alignment);
			free(p);
			p = memalign(alignment, n);
			check_block(p, n, alignment);
			free(p);
			if (alignment < sizeof(void *))
				continue;
			CHECK(posix_memalign(&p, alignment, n) == 0);
			check_block(p, n, alignment);
			if (n % 2 && free_aligned_sized)
				free_aligned_sized(p, alignment, n);
			else
				free(p);
		}
}

static void rounded_alignments(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	check_block(memalign(0, 100), 100, 16);
	check_block(memalign(3, 100), 100, 16);
	check_block(memalign(48, 100), 100, 64);
	check_block(memalign(page + 1, 100), 100, 2 * page);
	check_block(valloc(100), 100, page);
	check_block(valloc(0), 0, page);
	check_block(pvalloc(1), page, page);
	check_block(pvalloc(page), page, page);
	check_block(pvalloc(page + 1), 2 * page, page);
	check_block(pvalloc(0), 0, page);
}

static void freeing(void)
{
	void *p;

	CHECK(free_sized != NULL && free_aligned_sized != NULL && cfree != NULL);
	free(NULL);
	cfree(NULL);
	free_sized(NULL, 0);
	free_sized(NULL, 10);
	free_aligned_sized(NULL, 64, 10);
	CHECK(malloc_usable_size(NULL) == 0);
	for (size_t n = 0; n < 300000; n = n * 3 + 1) {
		p = malloc(n);
		CHECK(p != NULL);
		free_sized(p, n);
		p = malloc(n);
		CHECK(p != NULL);
		cfree(p);
		p = calloc(1, n);
		CHECK(p != NULL);
		free_sized(p, n);
		p = aligned_alloc(128, n);
		CHECK(p != NULL);
		free_aligned_sized(p, 128, n);
	}
}

static void zero_sizes(void)
{
	void *a = malloc(0), *b = malloc(0), *c = calloc(0, 7), *d = realloc(NULL, 0);

	CHECK(a && b && c && d && a != b && b != c && c != d && a != d);
	free(a);
	free(b);
	free(c);
	free(d);
}

static void reallocating(void)
{
	unsigned char *p = realloc(NULL, 10);

	CHECK(p != NULL);
	family_fill(p, 10, 1);
	/* Up to 64 MiB and down again, checked at both ends. */
	for (size_t n = 10; n < (size_t)64 << 20; n = n * 2 + 1) {
		size_t to = n * 2 + 1;
		p = realloc(p, to);
		CHECK(p != NULL && p[0] == 1 && p[n - 1] == 1);
		family_fill(p + n, to - n, 1);
	}
	for (size_t n = (size_t)64 << 20; n > 10; n /= 3) {
		p = realloc(p, n);
		CHECK(p != NULL && p[0] == 1 && p[n - 1] == 1);
	}
	p = reallocarray(p, 1000, 1000);
	CHECK(p != NULL && p[0] == 1);
	p = reallocarray(p, 3, 3);
	CHECK(p != NULL && p[8] == 1);
	/* What was aligned may move to where it is not, but keeps what is in it. */
	unsigned char *q = aligned_alloc(4096, 5000);
	CHECK(q != NULL);
	family_fill(q, 5000, 7);
	q = realloc(q, 50000);
	CHECK(q != NULL && family_holds(q, 5000, 7));
	free(q);
	free(p);
}

int main(void)
{
	family_in_use();
	sizes();
	zeroed();
	alignments();
	rounded_alignments();
	freeing();
	zero_sizes();
	reallocating();
	return 0;
}
