/* SPDX-License-Identifier: MIT */
/* Memory with descriptors, of the kernel that the test runs on: written by pointer and read by descriptor, in other
 * processes, and given back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/memfd.h"

Test(real, written_by_pointer_and_read_by_descriptor_elsewhere, .init = begin)
{
	static const size_t sizes[] = { 24, 5000, 100 * KIB, 3 * MIB, 70 * MIB };

	model_start("memfd");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		arena = make(0, QUARRY_PAGES_BASE);
		cr_assert_not_null(arena, "%s", quarry_error_text());
		hand_over(arena, sizes[i]);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

/* ---- the descriptor ---- */

Test(real, what_a_descriptor_is, .init = begin)
{
	quarry_arena *plain = quarry_arena_create(NULL);
	uint64_t offset, other;
	int local, fd, before = count_fds(), foreign;
	char *p, *q, *in_plain;

	arena = make(0, QUARRY_PAGES_AUTO);
	cr_assert_not_null(arena);
	p = get(arena, 3 * MIB);
	fd = fd_of(p, &offset);
	cr_assert_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_WRITE),
		     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	/* Anywhere in it. */
	cr_assert_eq(fd_of(p + 2 * MIB + 5, &other), fd);
	cr_assert_eq(other, offset + 2 * MIB + 5);
	cr_assert_eq(quarry_fd_of(p, NULL), fd);
	cr_assert_geq(stats_of(arena).in_files, 3 * MIB);
	cr_assert_eq(stats_of(arena).in_files, stats_of(arena).mapped);
	errno = 0;
	cr_assert(quarry_fd_of(&local, &other) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_fd_of(NULL, &other) == -1 && errno == EINVAL);
	in_plain = get(plain, 100);
	errno = 0;
	cr_assert(quarry_fd_of(in_plain, &other) == -1 && errno == ENOTSUP);
	cr_assert_eq(stats_of(plain).in_files, 0);
	/* The program closes it, and another file gets its number: that one is not ours to tell of, nor to close. */
	q = get(arena, 100 * MIB);
	memset(q, 5, 100 * MIB);
	fd = fd_of(q, &offset);
	foreign = open("/dev/null", O_RDONLY);
	cr_assert_eq(dup2(foreign, fd), fd);
	errno = 0;
	cr_assert(quarry_fd_of(q, &offset) == -1 && errno == EBADF);
	memset(q, 6, 100 * MIB);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	cr_assert_geq(fcntl(fd, F_GETFD), 0, "somebody else's descriptor was closed");
	close(fd);
	close(foreign);
	cr_assert_eq(count_fds(), before, "descriptors were left behind");
}

/* What is printed must not go into the heap. */
Test(real, never_one_of_the_first_three, .init = begin)
{
	uint64_t offset;
	int status;
	pid_t child = fork();

	if (child == 0) {
		close(0);
		close(1);
		close(2);
		arena = make(0, QUARRY_PAGES_BASE);
		_exit(arena == NULL ? 99 : quarry_fd_of(get(arena, 100), &offset));
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) >= 3 && WEXITSTATUS(status) < 99, "%#x", (unsigned)status);
}

Test(real, no_descriptors_left, .init = begin)
{
	struct rlimit limit, before;
	int used;

	arena = make(0, QUARRY_PAGES_BASE);
	get(arena, 100);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	used = dup(0);
	close(used);
	limit = before;
	limit.rlim_cur = (rlim_t)used;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	errno = 0;
	cr_assert_null(make(0, QUARRY_PAGES_BASE));
	cr_assert_eq(errno, EMFILE);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(arena, 500 * MIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_geq(stats_of(NULL).refused[QUARRY_REFUSED_FD], 2);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	memset(get(arena, 50 * MIB), 1, 50 * MIB);
}

Test(real, no_larger_files, .init = begin)
{
	struct rlimit limit, before;

	arena = make(0, QUARRY_PAGES_BASE);
	cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = MIB;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	errno = 0;
	cr_assert_null(make(0, QUARRY_PAGES_BASE));
	cr_assert_eq(errno, EFBIG);
	cr_assert_null(quarry_arena_malloc(arena, 50 * MIB));
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
	get(arena, 50 * MIB);
}

/* ---- giving back ---- */

Test(real, free_memory_leaves_the_file, .init = begin)
{
	char *p, *wall;
	uint64_t offset, with;
	int fd;

	arena = make(0, QUARRY_PAGES_BASE);
	p = get(arena, 24 * MIB);
	fd = fd_of(p, &offset);
	memset(p, 1, 24 * MIB);
	/* In place, so that what stays is in the same file. */
	wall = quarry_realloc(p, 4 * MIB);
	cr_assert_eq(wall, p);
	with = in_file(fd);
	cr_assert_geq(with, 24 * MIB);
	cr_assert_geq(quarry_purge(arena), 20 * MIB);
	cr_assert_leq(in_file(fd), with - 20 * MIB);
	cr_assert_geq(in_file(fd), 4 * MIB);
	for (size_t i = 0; i < 4 * MIB; i++)
		cr_assert_eq(wall[i], 1);
	/* And reads as zero when it is there again. */
	p = quarry_realloc(wall, 24 * MIB);
	cr_assert_eq(p, wall);
	for (size_t i = 4 * MIB; i < 24 * MIB; i++)
		cr_assert_eq(p[i], 0, "%zu", i);
	quarry_free(p);
	p = quarry_arena_calloc(arena, 1, 10 * MIB);
	for (size_t i = 0; i < 10 * MIB; i++)
		cr_assert_eq(p[i], 0, "%zu", i);
}

#define OBJECTS 40000

static char *objects[OBJECTS];
static uint64_t most;

static void *leave_few(void *unused)
{
	(void)unused;
	for (int i = 0; i < OBJECTS; i++) {
		objects[i] = get(arena, 512);
		memset(objects[i], i, 512);
	}
	most = stats_of(arena).resident;
	for (int i = 0; i < OBJECTS; i++)
		if (i % 100 != 0)
			quarry_free(objects[i]);
	return NULL;
}

/* Pages between small objects that live, too. */
Test(real, free_pages_inside_slabs_leave_the_file, .init = begin)
{
	pthread_t thread;

	arena = make(0, QUARRY_PAGES_BASE);
	cr_assert_eq(pthread_create(&thread, NULL, leave_few, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_geq(most, OBJECTS * (size_t)512);
	quarry_purge(NULL);
	cr_assert_leq(stats_of(arena).resident, most / 4);
	for (int i = 0; i < OBJECTS; i += 100) {
		for (size_t k = 0; k < 512; k++)
			cr_assert_eq(objects[i][k], (char)i);
		cr_assert(same_in_file(objects[i], 512));
	}
	for (int i = 0; i < OBJECTS; i++)
		if (i % 100 != 0) {
			objects[i] = quarry_arena_calloc(arena, 1, 512);
			for (size_t k = 0; k < 512; k++)
				cr_assert_eq(objects[i][k], 0);
		}
}

/* ---- used as any memory ---- */

#define SLOTS 300

Test(real, random_use_is_seen_by_descriptor, .init = begin)
{
	static struct {
		char *p;
		size_t size;
		unsigned char fill;
	} slot[SLOTS];

	arena = make(0, QUARRY_PAGES_AUTO);
	model_start("memfd");
	for (int step = 0; step < 6000; step++) {
		size_t i = model_random() % SLOTS, keep, size = model_random() % ((size_t)1 << (model_random() % 23 + 1)) + 1;
		char *p;

		for (size_t k = 0; k < slot[i].size; k += 512)
			cr_assert_eq((unsigned char)slot[i].p[k], slot[i].fill, "step %d", step);
		if (slot[i].p != NULL && model_random() % 64 == 0)
			cr_assert(same_in_file(slot[i].p, slot[i].size), "step %d", step);
		if (slot[i].p != NULL && model_random() % 3 == 0) {
			quarry_free(slot[i].p);
			slot[i].p = NULL;
			slot[i].size = 0;
			continue;
		}
		p = quarry_arena_realloc(arena, slot[i].p, size);
		cr_assert_not_null(p);
		keep = slot[i].size < size ? slot[i].size : size;
		for (size_t k = 0; k < keep; k += 512)
			cr_assert_eq((unsigned char)p[k], slot[i].fill, "step %d", step);
		slot[i].p = p;
		slot[i].size = size;
		slot[i].fill = (unsigned char)model_random();
		memset(p, slot[i].fill, size);
		if (step % 500 == 499)
			quarry_purge(arena);
	}
}

/* Growing by page tables would leave the file elsewhere. */
Test(real, a_block_that_grows_is_where_it_says, .init = begin)
{
	char *p;

	arena = make(0, QUARRY_PAGES_BASE);
	p = get(arena, 10 * MIB);
	for (size_t size = 10 * MIB; size < 300 * MIB; size *= 2) {
		memset(p, (int)(size >> 20), size);
		get(arena, 5 * MIB);
		p = quarry_realloc(p, size * 2);
		cr_assert_not_null(p);
		for (size_t i = 0; i < size; i += KIB)
			cr_assert_eq(p[i], (char)(size >> 20));
		cr_assert(same_in_file(p, size));
	}
}

Test(real, where_and_move, .init = begin)
{
	quarry_page_info info[4];
	quarry_residency there;
	char *p;

	arena = make(0, QUARRY_PAGES_BASE);
	p = get(arena, 4 * MIB);
	memset(p, 1, 4 * MIB);
	cr_assert_geq(quarry_where(p, 4 * 4096, info, 4), 4);
	if (info[0].node == QUARRY_NODE_UNKNOWN)
		cr_skip_test("the kernel does not say where pages are");
	cr_assert_geq(info[3].node, 0);
	cr_assert_eq(info[3].page_kind, QUARRY_PAGES_BASE);
	cr_assert_eq(quarry_arena_where(arena, &there, 1), 1);
	cr_assert_geq(there.bytes, 4 * MIB);
	cr_assert_eq(quarry_arena_move(arena, NULL, NULL), 0, "errno %d", errno);
	cr_assert(same_in_file(p, 4 * MIB));
	cr_assert_eq(quarry_arena_reset(arena), 0);
	p = get(arena, 4 * MIB);
	fd_of(p, NULL);
}
