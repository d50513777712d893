/* SPDX-License-Identifier: MIT */
/* The tree of a profile's stacks. */
#include "tools/flame.h"

#include <stdlib.h>
#include <string.h>

/* ---- nodes ---- */

static uint32_t find_node(const struct flame_tree *t, uint64_t hash, uint32_t parent, uint32_t function)
{
	uint32_t i;

	for (size_t step = 0; (i = index_next(&t->index, hash, &step)) != INDEX_NONE;)
		if (t->nodes[i].parent == parent && t->nodes[i].function == function)
			return i;
	return FLAME_NONE;
}

/* FLAME_NONE with the profile's error. The root is first, and nobody looks for it. */
static uint32_t node_of(struct flame_tree *t, struct flame_profile *p, uint32_t parent, uint32_t function)
{
	uint64_t hash = index_hash(parent, function);
	uint32_t found = find_node(t, hash, parent, function);

	if (found != FLAME_NONE)
		return found;
	if (!flame_grow(p, &t->nodes, t->count, &t->room, sizeof(t->nodes[0]), FLAME_NODES_MAX,
			"stacks that differ in more than 4194304 places"))
		return FLAME_NONE;
	if (t->count > 0 && !index_add(&t->index, hash, (uint32_t)t->count)) {
		flame_no_memory(p);
		return FLAME_NONE;
	}
	t->nodes[t->count] = (struct flame_node){ .function = function, .parent = parent,
						  .depth = t->count ? t->nodes[parent].depth + 1 : 0 };
	return (uint32_t)t->count++;
}

struct walk {
	struct flame_tree *tree;
	struct flame_profile *profile;
	uint32_t node;
	uint64_t values[2], sample;
};

static void count_in(struct flame_node *n, const uint64_t values[2])
{
	n->total[0] = flame_sum(n->total[0], values[0]);
	n->total[1] = flame_sum(n->total[1], values[1]);
}

static bool step(struct walk *w, uint32_t function, uint32_t line)
{
	struct flame_function *f = &w->profile->functions[function];
	size_t before = w->tree->count;
	struct flame_node *n;

	/* (One that calls itself is counted once.) */
	if (f->seen != w->sample) {
		f->seen = w->sample;
		f->total[0] = flame_sum(f->total[0], w->values[0]);
		f->total[1] = flame_sum(f->total[1], w->values[1]);
	}
	if (w->tree->nodes[w->node].depth == FLAME_DEPTH_MAX)
		return true;
	w->node = node_of(w->tree, w->profile, w->node, function);
	if (w->node == FLAME_NONE)
		return false;
	n = &w->tree->nodes[w->node];
	n->line = w->tree->count > before || n->line == line ? line : 0;
	w->tree->deepest = n->depth > w->tree->deepest ? n->depth : w->tree->deepest;
	count_in(n, w->values);
	return true;
}

/* All functions of a sample's stack: from the outermost to the innermost, or the other way round. */
static bool descend(struct walk *w, const struct flame_sample *s, bool inverted)
{
	const struct flame_profile *p = w->profile;
	uint32_t frames = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		const struct flame_place *place = &p->places[p->frames[s->first + (inverted ? i : s->count - 1 - i)]];

		frames += place->count;
		for (uint32_t k = 0; k < place->count; k++) {
			uint32_t which = inverted ? k : place->count - 1 - k;

			if (!step(w, p->functions_of[place->first + which], which + 1 == place->count ? place->line : 0))
				return false;
		}
	}
	w->tree->cut += frames > FLAME_DEPTH_MAX;
	return true;
}

static void count_self(struct walk *w, const struct flame_sample *s)
{
	struct flame_profile *p = w->profile;
	struct flame_node *n = &w->tree->nodes[w->node];

	n->self[0] = flame_sum(n->self[0], w->values[0]);
	n->self[1] = flame_sum(n->self[1], w->values[1]);
	for (uint32_t i = 0; i < s->count; i++) {
		const struct flame_place *place = &p->places[p->frames[s->first + i]];
		struct flame_function *f;

		if (place->count == 0)
			continue;
		f = &p->functions[p->functions_of[place->first]];
		f->self[0] = flame_sum(f->self[0], w->values[0]);
		f->self[1] = flame_sum(f->self[1], w->values[1]);
		if (f->module != FLAME_NONE)
			p->modules[f->module].bytes = flame_sum(p->modules[f->module].bytes, w->values[1]);
		break;
	}
}

/* ---- the order of children ---- */

static const struct flame_node *ordered;
static int ordered_by;

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	uint64_t p = ordered[x].total[ordered_by], q = ordered[y].total[ordered_by];

	return p != q ? (p < q ? 1 : -1) : x < y ? -1 : x > y;
}

/* Behind each other in lists, the largest first: put at the head from the smallest on. */
static bool order(struct flame_tree *t, bool objects)
{
	uint32_t *list = malloc((t->count + 1) * sizeof(*list));

	if (!list)
		return false;
	for (uint32_t i = 0; i < t->count; i++)
		list[i] = i;
	ordered = t->nodes;
	ordered_by = !objects;
	qsort(list, t->count, sizeof(*list), by_size);
	for (size_t i = t->count; i-- > 0;) {
		struct flame_node *n = &t->nodes[list[i]];

		if (list[i] == 0)
			continue;
		n->next = t->nodes[n->parent].child;
		t->nodes[n->parent].child = list[i];
	}
	free(list);
	return true;
}

/* ---- the table ---- */

static const struct flame_function *table_of;
static int table_by;

static int by_self(const void *a, const void *b)
{
	uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
	const struct flame_function *x = &table_of[i], *y = &table_of[k];

	if (x->self[table_by] != y->self[table_by])
		return x->self[table_by] < y->self[table_by] ? 1 : -1;
	if (x->total[table_by] != y->total[table_by])
		return x->total[table_by] < y->total[table_by] ? 1 : -1;
	return i < k ? -1 : i > k;
}

/* (What no sample that was taken is of stands in no table.) */
static uint32_t *table(const struct flame_profile *p, bool objects, size_t *count)
{
	uint32_t *list = malloc((p->function_count + 1) * sizeof(*list));

	*count = 0;
	for (uint32_t i = 0; list && i < p->function_count; i++)
		if (p->functions[i].seen)
			list[(*count)++] = i;
	table_of = p->functions;
	table_by = !objects;
	if (list && *count)
		qsort(list, *count, sizeof(*list), by_self);
	return list;
}

/* ---- the whole ---- */

static bool is_wanted(const struct flame_sample *s, const struct flame_look *look)
{
	return (look->node < 0 || s->node == look->node) &&
	       (!look->arena || (s->arena && strcmp(s->arena, look->arena) == 0));
}

bool flame_build(struct flame_tree *t, struct flame_profile *p, const struct flame_look *look)
{
	const int objects = look->allocated ? FLAME_ALLOCATED_OBJECTS : FLAME_OBJECTS;
	const int bytes = look->allocated ? FLAME_ALLOCATED_BYTES : FLAME_BYTES;

	t->profile = p;
	if (node_of(t, p, 0, FLAME_NONE) == FLAME_NONE)
		return false;
	for (size_t i = 0; i < p->sample_count; i++) {
		const struct flame_sample *s = &p->samples[i];
		struct walk w = { t, p, 0, { s->values[objects], s->values[bytes] }, i + 1 };

		if (!is_wanted(s, look) || w.values[!look->objects] == 0)
			continue;
		t->used++;
		count_in(&t->nodes[0], w.values);
		if (!descend(&w, s, look->inverted))
			return false;
		count_self(&w, s);
	}
	t->table = table(p, look->objects, &t->table_count);
	return (t->table && order(t, look->objects)) || flame_no_memory(p);
}

void flame_tree_free(struct flame_tree *t)
{
	free(t->nodes);
	free(t->table);
	index_free(&t->index);
	memset(t, 0, sizeof(*t));
}
