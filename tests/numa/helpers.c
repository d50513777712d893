/* SPDX-License-Identifier: MIT */
/* Processes that take memory away: a node's, or a pool's. Each is the suite started anew with --helper, so that it
 * shares no memory with the test, and uses no quarry. */
#include "tests/numa/suite.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define STEP MIB
#define COARSE (64 * MIB) /* so much above what is to be left, it goes on in small steps */
#define MODE_BIND 2 /* MPOL_BIND */

static struct helper start(const char *what, int id, uint64_t leave)
{
	struct helper h;
	int ends[2];
	char node[16], bytes[32], ready = 0;

	MUST(pipe(ends) == 0);
	snprintf(node, sizeof(node), "%d", id);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)leave);
	h.pid = fork();
	MUST(h.pid >= 0);
	if (h.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ends[1], 3);
		execl("/proc/self/exe", "suite", "--helper", what, node, bytes, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	h.pipe = ends[0];
	if (read(h.pipe, &ready, 1) != 1 || ready != 'r')
		fail("the process that was to %s node %d did not", what, id);
	return h;
}

struct helper fill_node(int id, uint64_t leave)
{
	return start("fill", id, leave);
}

struct helper take_pool(int id, long leave)
{
	return start("take", id, (uint64_t)leave);
}

void helper_must_live(struct helper *h)
{
	int status;

	if (waitpid(h->pid, &status, WNOHANG) != 0)
		fail("the kernel killed another process for the memory");
}

void helper_end(struct helper *h)
{
	kill(h->pid, SIGKILL);
	waitpid(h->pid, NULL, 0);
	close(h->pipe);
}

static void say_ready(void)
{
	char ready = 'r';

	if (write(3, &ready, 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void *map_bound(int id, size_t size, int flags)
{
	unsigned long mask[IDS / 64 + 1] = { 0 };
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	mask[id / 64] |= 1ul << id % 64;
	if (p == MAP_FAILED || syscall(SYS_mbind, p, size, MODE_BIND, mask, (unsigned long)IDS + 1, 0) != 0)
		return NULL;
	return p;
}

static void touch(char *p, size_t size)
{
	for (size_t at = 0; at < size; at += PAGE)
		p[at] = 1;
}

/* Most of it in huge pages, where the kernel gives some: an emulated one takes a third of a minute for a node of base
 * pages, one fault each. */
static bool fill_coarsely(int id, uint64_t leave)
{
	while (node_free(id) > leave + COARSE) {
		size_t step = 8 * PAGE_2M;
		char *p = map_bound(id, step, 0);

		if (p == NULL)
			return false;
		madvise(p, step, MADV_HUGEPAGE);
		touch(p, step);
	}
	return true;
}

/* Small steps, and base pages, at the end, so that it ends where it should. */
static int fill(int id, uint64_t leave)
{
	int still = 0;

	if (!fill_coarsely(id, leave))
		return 1;
	while (still < 3) {
		char *p;

		if (node_free(id) <= leave + STEP) {
			/* The figure lags a little behind. */
			still++;
			pause_ms(10);
			continue;
		}
		p = map_bound(id, STEP, 0);
		if (p == NULL)
			return 1;
		madvise(p, STEP, MADV_NOHUGEPAGE);
		touch(p, STEP);
	}
	say_ready();
	return 0;
}

static int take(int id, long leave)
{
	while (pool(id, "free") > leave) {
		char *p = map_bound(id, PAGE_2M, MAP_HUGETLB | 21 << 26);

		if (p == NULL)
			return 1;
		p[0] = 1;
	}
	say_ready();
	return 0;
}

int helper_main(int argc, char **argv)
{
	int id;

	if (argc != 5)
		return 2;
	id = atoi(argv[3]);
	if (strcmp(argv[2], "inside") == 0)
		return inside_main(id);
	if (strcmp(argv[2], "fill") == 0)
		return fill(id, strtoull(argv[4], NULL, 10));
	return take(id, atol(argv[4]));
}
