/* SPDX-License-Identifier: MIT */
/* Pattern: memory that is asked for and hardly used. A buffer is made as large as it may ever have to be, and a few KiB
 * of it are written: 24 blocks of 1 MiB, 100 of 256 KiB, 3 of 8 MiB, of each the first 8 KiB. "sparse.1MiB" is what
 * memory the process has because of them, in KiB; what was written is 192, 800 and 24. An allocator that has huge pages
 * under such blocks holds 2 MiB for the first byte.
 * Each shape in a forked child of its own, under the same allocator: what the one before left behind is not its memory.
 * Without the pages of files: code is resident once, and not because of these blocks.
 * Source: of this project; that huge pages make sparsely used memory resident is what A. Hunter and others, "Beyond
 * malloc efficiency to fleet efficiency", OSDI 2021, weigh against the TLB. */
#include "bench.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIN_STAMP 8192 /* of each block, in bytes */
#define MOST 100
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct {
	const char *name;
	uint32_t size, count;
} shapes[] = {
	{ "1MiB", 1u << 20, 24 },
	{ "256KiB", 256u << 10, 100 },
	{ "8MiB", 8u << 20, 3 },
};
static struct bench bench = {
	.name = "sparse", .op = "all shapes once; the figures are means", .ops = 3, .threads = 1, .seed = 1, .work_only = 1,
};

static double resident(void)
{
	return bench_memory(0).anonymous * 1024;
}

/* Makes the blocks, writes to them, and gives what they added, in KiB. */
static double make(uint32_t shape)
{
	static struct bench_slot blocks[MOST];
	double before;

	/* What the process pays once, for its first block. */
	bench_fill(&blocks[0], 64, 0);
	bench_empty(&blocks[0]);
	memset(blocks, 0, sizeof(blocks));
	before = resident();
	for (uint32_t i = 0; i < shapes[shape].count; i++) {
		struct bench_slot *s = &blocks[i];

		s->p = bench_alloc(shapes[shape].size);
		bench_stamp(s, MIN_STAMP, i);
		memset(s->p + sizeof(uint64_t), (int)i, MIN_STAMP - 2 * sizeof(uint64_t));
	}
	before = resident() - before;
	for (uint32_t i = 0; i < shapes[shape].count; i++)
		bench_empty(&blocks[i]);
	return before;
}

int main(int argc, char **argv)
{
	double sums[COUNT(shapes)] = { 0 }, *told;
	int status;

	bench_begin(&bench, argc, argv);
	told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED)
		bench_die("no memory for the child's figure");
	bench_start(&bench);
	for (uint64_t n = 0; n < bench.ops * COUNT(shapes); n++) {
		uint32_t shape = (uint32_t)(n % COUNT(shapes));
		pid_t child;

		*told = -1;
		child = fork();
		if (child < 0)
			bench_die("fork failed");
		if (child == 0) {
			*told = make(shape);
			_exit(0);
		}
		if (waitpid(child, &status, 0) != child || status || *told < 0)
			bench_die("the child with the blocks of %s failed", shapes[shape].name);
		sums[shape] += *told;
	}
	bench_stop(&bench);
	for (uint32_t i = 0; i < COUNT(shapes); i++)
		bench_figure(&bench, shapes[i].name, sums[i] / (double)bench.ops, "KiB");
	bench_report(&bench, bench.ops);
	return 0;
}
