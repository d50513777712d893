/* SPDX-License-Identifier: MIT */
/* Slabs of buffers are on the node that they were asked for, wherever the thread runs; what is adopted leaves its place
 * there whole, and the block's arena has its own node for what comes after. Where the guest has io_uring, its kernel is
 * given them too. */
#include "include/quarry/buffers.h"

#include <sys/syscall.h>

#include "tests/numa/suite.h"

#define SIZE ((size_t)64 << 10)
#define COUNT 256u

static quarry_buffers *make(int id, int kind, unsigned flags)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = COUNT, .alignment = 4096,
				     .page_kind = kind, .flags = flags, .on_node = 1, .node = id };
	quarry_buffers *slab = quarry_buffers_create(&attr);

	if (slab == NULL)
		fail("%s on node %d: %s (errno %d)", kind_names[kind], id, quarry_error_text(), errno);
	return slab;
}

static void fill(quarry_buffer b, uint32_t key)
{
	for (uint32_t *p = b.p; (char *)p < (char *)b.p + SIZE; p++)
		*p = key++ * 2654435761u;
}

static bool is_filled(const void *p, uint32_t key)
{
	for (const uint32_t *w = p; (const char *)w < (const char *)p + SIZE; w++)
		if (*w != key++ * 2654435761u)
			return false;
	return true;
}

static void all_there(int id, int kind, unsigned flags)
{
	static quarry_buffer b[COUNT];
	quarry_buffers *slab = make(id, kind, flags);

	for (uint32_t i = 0; i < COUNT; i++) {
		MUST(quarry_buffers_get(slab, &b[i]) == 0);
		fill(b[i], i);
	}
	verify_on_node(slab->base, COUNT * SIZE, id, kind_names[kind]);
	for (uint32_t i = 0; i < COUNT; i++) {
		MUST(is_filled(b[i].p, i));
		MUST(quarry_buffer_release(b[i]) == 0);
	}
	MUST(quarry_buffers_destroy(slab) == 0);
}

static void run_there(void)
{
	need_nodes(2, 1);
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;

		all_there(id, QUARRY_PAGES_AUTO, 0);
		all_there(id, QUARRY_PAGES_BASE, QUARRY_BUFFERS_STRICT);
		all_there(id, QUARRY_PAGES_THP, QUARRY_BUFFERS_POPULATE);
	}
}

static void run_pool(void)
{
	need_nodes(2, 1);
	need_pools(12);
	for (int i = 0; i < machine.memories; i++)
		all_there(machine.node[machine.memory[i]].id, QUARRY_PAGES_2M, QUARRY_BUFFERS_STRICT);
}

/* From one node into an arena of another. */
static void run_adopt(void)
{
	int from = machine.node[machine.memory[0]].id, to = machine.node[machine.memory[machine.memories - 1]].id;
	quarry_nodeset set = one_node(to);
	quarry_buffers *slab;
	quarry_arena *arena;

	need_nodes(2, 1);
	slab = make(from, QUARRY_PAGES_AUTO, 0);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, &set);
	for (uint32_t i = 0; i < 20; i++) {
		quarry_buffer b;
		char *place;

		MUST(quarry_buffers_get(slab, &b) == 0);
		place = b.p;
		fill(b, i);
		MUST(quarry_buffer_adopt(&b, arena, 0) == 0);
		CHECK(b.flags & QUARRY_BUFFER_MOVED, "it was copied");
		CHECK(is_filled(b.p, i), "what is in it is something else");
		verify_on_node(b.p, SIZE, from, "the block");
		memset(place, 1, SIZE);
		verify_on_node(place, SIZE, from, "the buffer in its place");
		CHECK(is_filled(b.p, i), "they are one memory");
		/* What comes there after it has been given back is the arena's. */
		quarry_free(b.p);
		quarry_thread_flush();
		quarry_purge(arena);
		b.p = quarry_arena_aligned_alloc(arena, PAGE, SIZE);
		memset(b.p, 1, SIZE);
		verify_on_node(b.p, SIZE, to, "the arena's next block");
		quarry_free(b.p);
	}
	MUST(quarry_buffers_destroy(slab) == 0);
	MUST(quarry_arena_destroy(arena) == 0);
}

static void run_uring(void)
{
	unsigned char params[120] = { 0 };
	int fd = (int)syscall(425, 8, params); /* io_uring_setup(2) */
	quarry_buffers *slab;

	if (fd < 0)
		skip("the guest's kernel has no io_uring (errno %d)", errno);
	slab = make(machine.node[machine.memory[machine.memories - 1]].id, QUARRY_PAGES_AUTO, QUARRY_BUFFERS_POPULATE);
	MUST(quarry_ring_register(slab, fd, 1, 128, QUARRY_RING_INCREMENTAL) == 0);
	MUST(quarry_ring_unregister(slab) == 0);
	MUST(quarry_fixed_register(slab, fd, 4, 0, 0) == 1);
	verify_on_node(slab->base, COUNT * SIZE, machine.node[machine.memory[machine.memories - 1]].id, "pinned");
	MUST(quarry_fixed_unregister(slab) == 0);
	MUST(quarry_buffers_destroy(slab) == 0);
	close(fd);
}

void add_buffers(void)
{
	TEST("buffers", "there", run_there);
	TEST("buffers", "pool", run_pool);
	TEST("buffers", "adopt", run_adopt);
	TEST("buffers", "uring", run_uring);
}
