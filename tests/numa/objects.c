/* SPDX-License-Identifier: MIT */
/* Objects with contents that can be checked, and what else the tests share. */
#include "tests/numa/suite.h"

const char *const size_names[SIZES] = { "small", "large", "huge" };
const char *const kind_names[] = { "auto", "base", "thp", "2m", "1g" };
const char *const policy_names[] = { "local",	   "bind",	 "preferred",
				     "preferred-many", "interleave", "weighted-interleave" };

/* ---- random numbers ---- */

uint64_t rnd(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

uint64_t seed_of(unsigned which)
{
	uint64_t state = options.seed * 0x9e3779b97f4a7c15u + which + 1;

	for (const char *s = this_test->name; *s != 0; s++)
		state = (state ^ (unsigned char)*s) * 0x100000001b3u;
	if (state == 0)
		state = 1;
	for (int i = 0; i < 8; i++)
		rnd(&state);
	return state;
}

/* Small and large ones are spread evenly over the doublings, so that all classes come up. */
size_t random_size(enum sizes sizes, uint64_t *state)
{
	uint64_t r = rnd(state);
	size_t base;

	switch (sizes) {
	case SMALL:
		base = (size_t)16 << r % 11;
		return base + (r >> 8) % base;
	case LARGE:
		return 40 * 1024 + (r >> 8) % (r & 1 ? 128 * 1024 : 1496 * 1024);
	default:
		/* One in sixteen is up to 64 MiB. */
		return r % 16 == 0 ? 16 * MIB + (r >> 8) % (48 * MIB) : 3 * MIB + (r >> 8) % (5 * MIB);
	}
}

/* ---- objects ---- */

/* What the word at an address of an object holds. */
static uint64_t word_for(const struct object *o, size_t at)
{
	return ((uint64_t)(uintptr_t)o->p + at) * 0x9e3779b97f4a7c15u ^ o->size;
}

static size_t next_page(const struct object *o, size_t at)
{
	return at + PAGE - ((uintptr_t)o->p + at) % PAGE;
}

/* A word at the start of each page, and the last byte. */
void object_write(const struct object *o)
{
	for (size_t at = 0; at + 8 < o->size; at = next_page(o, at)) {
		uint64_t word = word_for(o, at);

		memcpy(o->p + at, &word, 8);
	}
	o->p[o->size - 1] = (unsigned char)word_for(o, o->size);
}

bool object_right(const struct object *o)
{
	for (size_t at = 0; at + 8 < o->size; at = next_page(o, at)) {
		uint64_t word = word_for(o, at);

		if (memcmp(&word, o->p + at, 8) != 0)
			return false;
	}
	return o->p[o->size - 1] == (unsigned char)word_for(o, o->size);
}

void *from_arena(void *arena, size_t size)
{
	return quarry_arena_malloc(arena, size);
}

void *from_malloc(void *unused, size_t size)
{
	(void)unused;
	return quarry_malloc(size);
}

bool objects_make(struct objects *o, enum sizes sizes, size_t bytes, allocate *from, void *ctx)
{
	for (size_t made = 0; made < bytes;) {
		size_t size = random_size(sizes, &o->state);
		struct object *new;

		if (size > bytes - made && sizes == HUGE && made > 0)
			size = bytes - made > 3 * MIB ? bytes - made : 3 * MIB;
		if (size > bytes && sizes == HUGE)
			size = bytes;
		if (o->count == o->room) {
			o->room = o->room ? o->room * 2 : 256;
			o->list = realloc(o->list, o->room * sizeof(*o->list));
			MUST(o->list != NULL);
		}
		new = &o->list[o->count];
		new->size = size;
		new->p = from(ctx, size);
		if (new->p == NULL)
			return false;
		o->count++;
		object_write(new);
		made += size;
		o->bytes += size;
	}
	return true;
}

void objects_check(const struct objects *o)
{
	for (size_t i = 0; i < o->count; i++)
		if (!object_right(&o->list[i]))
			fail("the contents of an object of %zu bytes at %p have changed", o->list[i].size,
			     (void *)o->list[i].p);
}

static int by_address(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	return x->p < y->p ? -1 : x->p > y->p;
}

/* Each page once, however many objects are in it. */
void objects_tally(const struct objects *o, struct tally *t)
{
	struct object *sorted = malloc(o->count * sizeof(*sorted) + 1);
	uintptr_t done = 0;

	MUST(sorted != NULL);
	memcpy(sorted, o->list, o->count * sizeof(*sorted));
	qsort(sorted, o->count, sizeof(*sorted), by_address);
	for (size_t i = 0; i < o->count;) {
		uintptr_t first = (uintptr_t)sorted[i].p & ~(PAGE - 1), end;

		end = ((uintptr_t)sorted[i].p + sorted[i].size + PAGE - 1) & ~(PAGE - 1);
		/* Neighbours are asked about in one call. */
		for (i++; i < o->count && ((uintptr_t)sorted[i].p & ~(PAGE - 1)) <= end; i++) {
			uintptr_t more = ((uintptr_t)sorted[i].p + sorted[i].size + PAGE - 1) & ~(PAGE - 1);

			if (more > end)
				end = more;
		}
		if (first < done)
			first = done;
		if (first < end)
			tally_add(t, (void *)first, end - first);
		done = end;
	}
	free(sorted);
}

void objects_free(struct objects *o)
{
	for (size_t i = 0; i < o->count; i++)
		quarry_free(o->list[i].p);
	o->count = o->bytes = 0;
}

#define ASKED 512 /* pages at a time */

static void where_of(const struct object *o, int policy_got, bool applied)
{
	quarry_page_info info[ASKED];
	size_t step = ASKED * PAGE;
	void *address[ASKED];
	int node[ASKED];

	for (size_t at = 0; at < o->size; at += step) {
		size_t n = o->size - at < step ? o->size - at : step;
		/* One byte more at the front page would be one page more than there is room for. */
		long pages = quarry_where(o->p + at, n, info, ASKED);

		if (pages <= 0)
			fail("quarry_where(%p, %zu) returned %ld (errno %d)", (void *)(o->p + at), n, pages, errno);
		pages = pages < ASKED ? pages : ASKED;
		for (long i = 0; i < pages; i++)
			address[i] = (void *)info[i].address;
		nodes_of_pages(address, node, (unsigned long)pages);
		for (long i = 0; i < pages; i++) {
			if (info[i].node != (node[i] < 0 ? QUARRY_NODE_NONE : node[i]))
				fail("quarry_where says node %d of the page at %p, the kernel says %d", info[i].node,
				     info[i].address, node[i]);
			if (info[i].policy_applied != applied)
				fail("quarry_where says policy_applied %d", info[i].policy_applied);
			if (policy_got >= 0 && info[i].policy_got != policy_got)
				fail("quarry_where says policy_got %d, not %d", info[i].policy_got, policy_got);
		}
	}
}

/* One in seven of the small ones will do. */
void objects_where(const struct objects *o, int policy_got, bool applied)
{
	for (size_t i = 0; i < o->count; i += o->list[i].size < 32 * 1024 ? 7 : 1)
		where_of(&o->list[i], policy_got, applied);
}

/* ---- sets of nodes ---- */

quarry_nodeset one_node(int id)
{
	quarry_nodeset set = { { 0 } };

	quarry_nodeset_add(&set, (unsigned)id);
	return set;
}

quarry_nodeset all_memory(void)
{
	quarry_nodeset set = { { 0 } };

	for (int i = 0; i < machine.memories; i++)
		quarry_nodeset_add(&set, (unsigned)machine.node[machine.memory[i]].id);
	return set;
}

bool set_empty(const quarry_nodeset *set)
{
	static const quarry_nodeset none;

	return memcmp(set, &none, sizeof(none)) == 0;
}

void set_name(const quarry_nodeset *set, char *buffer, size_t size)
{
	size_t n = (size_t)snprintf(buffer, size, "nodes");

	for (unsigned i = 0; i < IDS && n < size; i++)
		if (quarry_nodeset_has(set, i))
			n += (size_t)snprintf(buffer + n, size - n, " %u", i);
}

quarry_nodeset nearest_of(const quarry_nodeset *set, int id)
{
	const struct node *from = &machine.node[node_index(id)];
	quarry_nodeset nearest = { { 0 } };
	int least = INT32_MAX;

	for (int i = 0; i < machine.memories; i++) {
		int to = machine.memory[i], distance = from->distance[to];

		if (!set_empty(set) && !quarry_nodeset_has(set, (unsigned)machine.node[to].id))
			continue;
		if (distance < least)
			memset(&nearest, 0, sizeof(nearest));
		if (distance <= least) {
			least = distance;
			quarry_nodeset_add(&nearest, (unsigned)machine.node[to].id);
		}
	}
	return nearest;
}

/* ---- threads ---- */

void pin_to_node(int id)
{
	int i = node_index(id);

	MUST(i >= 0 && machine.node[i].has_cpus);
	MUST(sched_setaffinity(0, sizeof(cpu_set_t), &machine.node[i].cpus) == 0);
}

void pin_to_cpus_of(const quarry_nodeset *set)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	for (int i = 0; i < machine.count; i++)
		if (quarry_nodeset_has(set, (unsigned)machine.node[i].id))
			CPU_OR(&cpus, &cpus, &machine.node[i].cpus);
	MUST(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
}

void unpin(void)
{
	quarry_nodeset all = { { 0 } };

	for (int i = 0; i < machine.count; i++)
		quarry_nodeset_add(&all, (unsigned)machine.node[i].id);
	pin_to_cpus_of(&all);
}

/* ---- quarry ---- */

quarry_arena *make_arena(int policy, int kind, unsigned flags, const quarry_nodeset *nodes)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .flags = flags, .policy = policy, .page_kind = kind };

	if (nodes != NULL)
		attr.nodes = *nodes;
	snprintf(attr.name, sizeof(attr.name), "%s %s", policy_names[policy], kind_names[kind]);
	return quarry_arena_create(&attr);
}

quarry_stats stats_of(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	MUST(quarry_stats_get(arena, &stats) == 0);
	return stats;
}

bool wait_until(bool (*so)(void *ctx), void *ctx, void (*work)(void *ctx), unsigned seconds)
{
	uint64_t end = now_ms() + seconds * 1000ull;

	while (!so(ctx)) {
		if (now_ms() > end)
			return so(ctx);
		if (work != NULL)
			work(ctx);
		pause_ms(20);
	}
	return true;
}
