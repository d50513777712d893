/* SPDX-License-Identifier: MIT */
/* The C allocation family: what libquarry-malloc puts in the place of libc's (the C++ one is interpose_cxx.c).
 * Everything here is a thin coat over quarry_* (lib/api/malloc.c); the two that must be short, malloc and free, are
 * the inline hit paths of lib/api/fast.h and nothing else. Compile with -fno-plt, so that what leaves this file does so
 * by one jump.
 *
 * Where manual pages leave room, or glibc's page and code differ:
 *   realloc(p, 0)        frees p and returns NULL (glibc), as does reallocarray with a product of 0.
 *   aligned_alloc        an alignment that is no power of two is EINVAL (C17, glibc from 2.38 on); the size need not
 *                        be a multiple of the alignment.
 *   memalign             an alignment that is no power of two is rounded up to one, 0 means any, and one above the
 *                        largest power of two is EINVAL (glibc).
 *   valloc, pvalloc      aligned to the kernel's page size; pvalloc rounds the size up to pages too, ENOMEM when that
 *                        overflows.
 *   posix_memalign       returns its error and leaves errno alone.
 *   free, cfree          leave errno alone. cfree ignores all but its first argument, as it did in glibc.
 *   malloc_trim          gives back all free memory, whatever pad says: there is no "top of the heap" to leave some at.
 *   malloc_info          options other than 0 are EINVAL. One <heap> holds the sums of all arenas: arenas may be
 *                        destroyed by other threads while this writes, so it does not walk them. Counts of free
 *                        chunks, which glibc has and quarry does not keep, are 0.
 *   malloc_stats         writes the text form of quarry_stats to the descriptor of stderr, and to none if stderr is
 *                        closed, even when descriptor 2 has become something else.
 *   mallinfo, mallinfo2  see fill_info(). mallinfo's ints stop at INT_MAX rather than wrap.
 *   mallopt              quarry_mallopt does it for the parameters below zero: M_TRIM_THRESHOLD -1 ("disables
 *                        trimming") is decay_ms -1, M_CHECK_ACTION is on_error, M_PERTURB is junk, and M_TOP_PAD,
 *                        M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_TEST and M_ARENA_MAX are checked and accepted. Those
 *                        above zero are checked and accepted here. 1 done, 0 for a bad value or an unknown parameter;
 *                        errno stays. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/fast.h"
#include "lib/base/base.h"
#include "numa/os.h"

#define FAMILY __attribute__((visibility("default")))

/* ------------------------------------------------------------------------------------------------------ */
/* The prototypes are written out because no header has all of them, and because glibc's call some of them  */
/* deprecated.                                                                                             */

struct info {
	int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

struct info2 {
	size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

FAMILY void *malloc(size_t n);
FAMILY void *calloc(size_t count, size_t n);
FAMILY void *realloc(void *p, size_t n);
FAMILY void *reallocarray(void *p, size_t count, size_t n);
FAMILY void free(void *p);
FAMILY void cfree(void *p);
FAMILY void free_sized(void *p, size_t n);
FAMILY void free_aligned_sized(void *p, size_t alignment, size_t n);
FAMILY void *aligned_alloc(size_t alignment, size_t n);
FAMILY int posix_memalign(void **out, size_t alignment, size_t n);
FAMILY void *memalign(size_t alignment, size_t n);
FAMILY void *valloc(size_t n);
FAMILY void *pvalloc(size_t n);
FAMILY size_t malloc_usable_size(void *p);
FAMILY int malloc_trim(size_t pad);
FAMILY void malloc_stats(void);
FAMILY int malloc_info(int options, FILE *stream);
FAMILY struct info mallinfo(void);
FAMILY struct info2 mallinfo2(void);
FAMILY int mallopt(int parameter, int value);

void *malloc(size_t n)
{
	return qy_fast_malloc(n);
}

void free(void *p)
{
	qy_fast_free(p);
}

void cfree(void *p)
{
	qy_fast_free(p);
}

void *calloc(size_t count, size_t n)
{
	return quarry_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
	return quarry_realloc(p, n);
}

void *reallocarray(void *p, size_t count, size_t n)
{
	return quarry_reallocarray(p, count, n);
}

void free_sized(void *p, size_t n)
{
	quarry_free_sized(p, n);
}

void free_aligned_sized(void *p, size_t alignment, size_t n)
{
	quarry_free_aligned_sized(p, alignment, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
	return quarry_aligned_alloc(alignment, n);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
	return quarry_posix_memalign(out, alignment, n);
}

void *memalign(size_t alignment, size_t n)
{
	size_t power = 16;

	if (alignment > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	while (power < alignment)
		power <<= 1;
	return quarry_aligned_alloc(power, n);
}

void *valloc(size_t n)
{
	return quarry_aligned_alloc(qy_os_page_size(), n);
}

void *pvalloc(size_t n)
{
	size_t page = qy_os_page_size();

	if (n > PTRDIFF_MAX - page) {
		errno = ENOMEM;
		return NULL;
	}
	return quarry_aligned_alloc(page, qy_align_up(n, page));
}

size_t malloc_usable_size(void *p)
{
	return quarry_usable_size(p);
}

/* ------------------------------------------------------------------------------------------------------ */
/* What glibc adds for looking in and tuning                                                               */

int malloc_trim(size_t pad)
{
	int saved = errno;
	size_t gone = quarry_purge(NULL);

	(void)pad;
	errno = saved;
	return gone != 0;
}

void malloc_stats(void)
{
	int saved = errno;
	int fd = fileno(stderr);

	if (fd >= 0)
		(void)quarry_stats_print(fd, 0);
	errno = saved;
}

static quarry_stats sums(void)
{
	quarry_stats all = { .version = QUARRY_STATS_VERSION };

	if (quarry_stats_get(NULL, &all) != 0)
		all = (quarry_stats){ .version = QUARRY_STATS_VERSION };
	return all;
}

/* glibc knows two kinds of memory: the heaps, and chunks with a mapping of their own. The nearest here are slabs with
 * their free space, and large blocks. So, as with glibc, arena + hblkhd is all that is mapped, uordblks + hblkhd all
 * that is in use, and uordblks + fordblks is arena.
 *   arena     mapped, less large blocks          hblkhd    in large blocks      hblks     regions
 *   uordblks  in use, less large blocks          fordblks  the rest of arena    fsmblks   of it held by threads
 *   keepcost  what malloc_trim could give back   usmblks   the most that was ever mapped
 *   ordblks, smblks  0: free chunks are not counted */
static struct info2 fill_info(void)
{
	quarry_stats all = sums();
	size_t used = all.in_use > all.large ? all.in_use - all.large : 0;
	size_t arena = all.mapped > all.large ? all.mapped - all.large : 0;

	/* The figures are read one after the other while other threads go on: keep the differences from going
	 * below 0. */
	arena = qy_max(arena, used);
	return (struct info2){
		.arena = arena,
		.hblks = all.regions,
		.hblkhd = all.large,
		.usmblks = all.peak_mapped,
		.fsmblks = qy_min(all.cached, arena - used),
		.uordblks = used,
		.fordblks = arena - used,
		.keepcost = all.free_dirty,
	};
}

static int as_int(size_t n)
{
	return n > INT_MAX ? INT_MAX : (int)n;
}

struct info2 mallinfo2(void)
{
	int saved = errno;
	struct info2 i = fill_info();

	errno = saved;
	return i;
}

struct info mallinfo(void)
{
	struct info2 i = mallinfo2();

	return (struct info){
		.arena = as_int(i.arena),
		.ordblks = as_int(i.ordblks),
		.smblks = as_int(i.smblks),
		.hblks = as_int(i.hblks),
		.hblkhd = as_int(i.hblkhd),
		.usmblks = as_int(i.usmblks),
		.fsmblks = as_int(i.fsmblks),
		.uordblks = as_int(i.uordblks),
		.fordblks = as_int(i.fordblks),
		.keepcost = as_int(i.keepcost),
	};
}

int malloc_info(int options, FILE *stream)
{
	if (options != 0) {
		errno = EINVAL;
		return -1;
	}
	quarry_stats all = sums();
	struct info2 i = fill_info();
	size_t whole = i.arena + i.hblkhd;
	const char *totals = "<total type=\"fast\" count=\"0\" size=\"%zu\"/>\n"
			     "<total type=\"rest\" count=\"0\" size=\"%zu\"/>\n";
	const char *system = "<system type=\"current\" size=\"%zu\"/>\n"
			     "<system type=\"max\" size=\"%zu\"/>\n"
			     "<aspace type=\"total\" size=\"%zu\"/>\n"
			     "<aspace type=\"mprotect\" size=\"%zu\"/>\n";

	if (fprintf(stream, "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n</sizes>\n") < 0 ||
	    fprintf(stream, totals, i.fsmblks, i.fordblks - i.fsmblks) < 0 ||
	    fprintf(stream, system, i.arena, (size_t)all.peak_mapped, whole, whole) < 0 ||
	    fprintf(stream, "</heap>\n") < 0 || fprintf(stream, totals, i.fsmblks, i.fordblks - i.fsmblks) < 0 ||
	    fprintf(stream, "<total type=\"mmap\" count=\"%" PRIu64 "\" size=\"%zu\"/>\n", all.regions, i.hblkhd) < 0 ||
	    fprintf(stream, system, whole, (size_t)all.peak_mapped, whole, whole) < 0 ||
	    fprintf(stream, "</malloc>\n") < 0)
		return -1;
	return 0;
}

/* glibc's numbers (malloc.h), which other libcs lack. */
enum glibc_parameter {
	GLIBC_MXFAST = 1,
	GLIBC_NLBLKS = 2,
	GLIBC_GRAIN = 3,
	GLIBC_KEEP = 4,
	GLIBC_MMAP_THRESHOLD = -3,
	GLIBC_ARENA_TEST = -7,
	GLIBC_ARENA_MAX = -8
};

static int set_parameter(int parameter, int value)
{
	switch (parameter) {
	case GLIBC_MXFAST: /* tunes fastbins, which are not here; the range is glibc's */
		return value >= 0 && (size_t)value <= 80 * sizeof(size_t) / 4;
	case GLIBC_NLBLKS:
	case GLIBC_GRAIN:
	case GLIBC_KEEP: /* SVID's, which glibc takes and does nothing with */
		return 1;
	case GLIBC_MMAP_THRESHOLD:
		if (value < 0 || (size_t)value > 4 * 1024 * 1024 * sizeof(long))
			return 0;
		break;
	case GLIBC_ARENA_TEST:
	case GLIBC_ARENA_MAX:
		if (value <= 0)
			return 0;
		break;
	}
	/* Above zero quarry_mallopt has numbers of its own, which mean nothing to a program that calls mallopt. */
	return parameter < 0 ? quarry_mallopt(parameter, value) : 0;
}

int mallopt(int parameter, int value)
{
	int saved = errno;
	int done = set_parameter(parameter, value);

	errno = saved;
	return done;
}
