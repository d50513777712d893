/* SPDX-License-Identifier: MIT */
/* What a profile is made of, and the tree of its stacks. Functions, and nodes of the tree, are found by hash: a file may
 * have a million of either. */
#include "tools/flame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tools.h"
#include "tools/utf8.h"

uint64_t flame_sum(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

bool flame_fail(struct flame_profile *p, const char *error)
{
	if (!p->error)
		p->error = error;
	return false;
}

bool flame_grow(struct flame_profile *p, void *list, size_t count, size_t *room, size_t size)
{
	size_t more = *room ? 2 * *room : 64;
	void **at = list, *grown;

	if (count < *room)
		return true;
	grown = more > SIZE_MAX / 2 / size ? NULL : realloc(*at, more * size);
	if (!grown) {
		p->no_memory = true;
		return flame_fail(p, "no memory");
	}
	*at = grown;
	*room = more;
	return true;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * 0x9e3779b97f4a7c15u;
	return a ^ a >> 29;
}

/* ---- functions ---- */

static uint64_t hash_name(const char *name, uint32_t module)
{
	uint64_t h = module;

	for (; *name; name++)
		h = mix(h, (unsigned char)*name);
	return mix(h, h >> 17);
}

static uint32_t *function_slot(const struct flame_profile *p, const char *name, uint32_t module)
{
	for (size_t at = hash_name(name, module);; at++) {
		uint32_t *slot = &p->function_index[at & (p->function_slots - 1)];

		if (*slot == 0 || (p->functions[*slot - 1].module == module && strcmp(p->functions[*slot - 1].name, name) == 0))
			return slot;
	}
}

static bool more_function_slots(struct flame_profile *p)
{
	if (2 * p->function_count < p->function_slots)
		return true;
	free(p->function_index);
	p->function_slots = p->function_slots ? 2 * p->function_slots : 1024;
	p->function_index = calloc(p->function_slots, sizeof(uint32_t));
	if (!p->function_index) {
		p->function_slots = 0;
		p->no_memory = true;
		return flame_fail(p, "no memory");
	}
	for (uint32_t i = 0; i < p->function_count; i++)
		*function_slot(p, p->functions[i].name, p->functions[i].module) = i + 1;
	return true;
}

/* Text of UTF-8 without what a terminal would obey, or XML cannot have. */
static void clean(char to[FLAME_NAME_MAX], const char *name, size_t length)
{
	size_t used = 0;

	for (size_t i = 0; i < length && used + 4 < FLAME_NAME_MAX;) {
		uint32_t c = UTF8_REPLACEMENT;
		size_t n = utf8_decode(name + i, length - i, &c);

		used += utf8_encode(n && utf8_shows(c) ? c : UTF8_REPLACEMENT, to + used);
		i += n ? n : 1;
	}
	to[used] = '\0';
}

uint32_t flame_add_function(struct flame_profile *p, const char *name, size_t length, uint32_t module)
{
	char text[FLAME_NAME_MAX];
	uint32_t *slot;

	clean(text, name, length);
	if (!more_function_slots(p))
		return FLAME_NONE;
	slot = function_slot(p, text, module);
	if (*slot)
		return *slot - 1;
	if (!flame_grow(p, &p->functions, p->function_count, &p->function_room, sizeof(p->functions[0])))
		return FLAME_NONE;
	p->functions[p->function_count] = (struct flame_function){ .name = strdup(text), .module = module };
	if (!p->functions[p->function_count].name) {
		p->no_memory = true;
		flame_fail(p, "no memory");
		return FLAME_NONE;
	}
	*slot = (uint32_t)++p->function_count;
	return *slot - 1;
}

/* ---- places and samples ---- */

uint32_t flame_add_place(struct flame_profile *p, uint64_t address, uint32_t module)
{
	if (p->place_count >= FLAME_FRAMES_MAX) {
		flame_fail(p, "too many places");
		return FLAME_NONE;
	}
	if (!flame_grow(p, &p->places, p->place_count, &p->place_room, sizeof(p->places[0])))
		return FLAME_NONE;
	p->places[p->place_count] = (struct flame_place){ .address = address, .module = module };
	return (uint32_t)p->place_count++;
}

bool flame_add_function_of(struct flame_profile *p, struct flame_place *place, uint32_t function)
{
	if (function == FLAME_NONE)
		return false;
	if (p->functions_of_count >= FLAME_FRAMES_MAX)
		return flame_fail(p, "too many places");
	if (!flame_grow(p, &p->functions_of, p->functions_of_count, &p->functions_of_room, sizeof(uint32_t)))
		return false;
	if (place->count == 0)
		place->first = (uint32_t)p->functions_of_count;
	p->functions_of[p->functions_of_count++] = function;
	place->count++;
	return true;
}

/* Places of names have their function's number for an address, so that each is there once for each sample only. */
uint32_t flame_add_named_place(struct flame_profile *p, const char *name, size_t length)
{
	char text[FLAME_NAME_MAX];
	uint32_t function, place;

	snprintf(text, sizeof(text), "%.*s", (int)(length < sizeof(text) ? length : sizeof(text) - 1), name);
	name = flame_demangle(text);
	function = flame_add_function(p, name, strlen(name), FLAME_NONE);
	if (function == FLAME_NONE)
		return FLAME_NONE;
	/* A function that is not new has its place before it. */
	if (function < p->place_count && p->places[function].count == 1 &&
	    p->functions_of[p->places[function].first] == function)
		return function;
	place = flame_add_place(p, 0, FLAME_NONE);
	return place != FLAME_NONE && flame_add_function_of(p, &p->places[place], function) ? place : FLAME_NONE;
}

bool flame_add_module(struct flame_profile *p, const struct flame_module *like)
{
	if (p->module_count >= 65536)
		return flame_fail(p, "more loaded files than there can be");
	if (!flame_grow(p, &p->modules, p->module_count, &p->module_room, sizeof(p->modules[0])))
		return false;
	p->modules[p->module_count++] = *like;
	return true;
}

struct flame_sample *flame_add_sample(struct flame_profile *p)
{
	if (!flame_grow(p, &p->samples, p->sample_count, &p->sample_room, sizeof(p->samples[0])))
		return NULL;
	p->samples[p->sample_count] = (struct flame_sample){ .first = p->frame_count, .node = -1 };
	return &p->samples[p->sample_count++];
}

bool flame_add_frame(struct flame_profile *p, uint32_t place)
{
	if (place == FLAME_NONE)
		return false;
	if (p->frame_count >= FLAME_FRAMES_MAX)
		return flame_fail(p, "too many frames");
	if (!flame_grow(p, &p->frames, p->frame_count, &p->frame_room, sizeof(uint32_t)))
		return false;
	p->frames[p->frame_count++] = place;
	p->samples[p->sample_count - 1].count++;
	return true;
}

const char *flame_keep(struct flame_profile *p, const char *text, size_t length)
{
	char *copy;

	if (!flame_grow(p, &p->texts, p->text_count, &p->text_room, sizeof(p->texts[0])))
		return NULL;
	copy = strndup(text, length);
	if (!copy) {
		p->no_memory = true;
		flame_fail(p, "no memory");
		return NULL;
	}
	return p->texts[p->text_count++] = copy;
}

void flame_free(struct flame_profile *p)
{
	for (size_t i = 0; i < p->module_count; i++) {
		free(p->modules[i].path);
		free(p->modules[i].id);
	}
	for (size_t i = 0; i < p->function_count; i++) {
		free(p->functions[i].name);
		free(p->functions[i].file);
	}
	for (size_t i = 0; i < p->text_count; i++)
		free(p->texts[i]);
	free(p->modules);
	free(p->functions);
	free(p->function_index);
	free(p->places);
	free(p->functions_of);
	free(p->frames);
	free(p->samples);
	free(p->texts);
	memset(p, 0, sizeof(*p));
}

/* ---- the tree ---- */

static uint32_t *node_slot(const struct flame_tree *t, uint32_t parent, uint32_t function)
{
	for (size_t at = mix(mix(1, parent), function);; at++) {
		uint32_t *slot = &t->index[at & (t->slots - 1)];

		if (*slot == 0 || (t->nodes[*slot].parent == parent && t->nodes[*slot].function == function))
			return slot;
	}
}

static bool more_node_slots(struct flame_tree *t)
{
	if (2 * t->count < t->slots)
		return true;
	free(t->index);
	t->slots = t->slots ? 2 * t->slots : 1024;
	t->index = calloc(t->slots, sizeof(uint32_t));
	for (uint32_t i = 1; i < t->count && t->index; i++)
		*node_slot(t, t->nodes[i].parent, t->nodes[i].function) = i;
	return t->index != NULL;
}

/* The root's number is 0, which in the index is nothing. FLAME_NONE without memory. */
static uint32_t node_of(struct flame_tree *t, uint32_t parent, uint32_t function)
{
	uint32_t *slot = NULL;

	if (t->count) {
		if (!more_node_slots(t))
			return FLAME_NONE;
		slot = node_slot(t, parent, function);
		if (*slot)
			return *slot;
	}
	if (t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 256;
		struct flame_node *more = room > FLAME_FRAMES_MAX ? NULL : realloc(t->nodes, room * sizeof(*more));

		if (!more)
			return FLAME_NONE;
		t->nodes = more;
		t->room = room;
	}
	t->nodes[t->count] = (struct flame_node){ .function = function, .parent = parent,
						  .depth = t->count ? t->nodes[parent].depth + 1 : 0 };
	if (slot)
		*slot = (uint32_t)t->count;
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
	w->node = node_of(w->tree, w->node, function);
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
	if (node_of(t, 0, FLAME_NONE) == FLAME_NONE)
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
	return order(t, look->objects);
}

void flame_tree_free(struct flame_tree *t)
{
	free(t->nodes);
	free(t->index);
	memset(t, 0, sizeof(*t));
}
