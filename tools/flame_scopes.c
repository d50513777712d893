/* SPDX-License-Identifier: MIT */
#include "tools/flame.h"

#if QUARRY_LIBDW
#include "tools/flame_scopes.h"

#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

#define RANGES_MAX ((size_t)4 << 20) /* of all units: the file may have many entries with long lists of them */
#define FUNCTIONS_MAX ((size_t)1 << 23) /* of all units, */
#define ENTRIES_MAX ((size_t)1 << 28)   /* and entries that are looked at for them: a wrong file may lead to one again and again */
#define AROUND_MAX 65536             /* ranges in one another */
#define DEPTH_MAX 256                /* of entries in one another */

/* In the order of the entries, so that one that is in another comes behind it. */
struct function {
	Dwarf_Die die;
	uint32_t in; /* what it is inlined in; FLAME_NONE: it is there itself */
};

/* By their beginnings, and of those that begin together what is around the others first. */
struct range {
	Dwarf_Addr from, to;
	uint32_t function;
	uint32_t around; /* the last one before it that goes on behind its beginning */
};

struct unit {
	Dwarf_Off offset;
	struct function *functions;
	struct range *ranges;
	size_t function_count, function_room, range_count, range_room;
};

struct flame_scopes {
	struct index index;
	struct unit *units;
	size_t unit_count, unit_room, range_count, function_count, entry_count;
};

struct flame_scopes *flame_scopes_begin(void)
{
	return calloc(1, sizeof(struct flame_scopes));
}

void flame_scopes_end(struct flame_scopes *scopes)
{
	if (!scopes)
		return;
	for (size_t i = 0; i < scopes->unit_count; i++) {
		free(scopes->units[i].functions);
		free(scopes->units[i].ranges);
	}
	free(scopes->units);
	index_free(&scopes->index);
	free(scopes);
}

static bool grow(void *list, size_t count, size_t *room, size_t size)
{
	size_t more = *room ? 2 * *room : 64;
	void **at = list, *grown;

	if (count < *room)
		return true;
	grown = count < FLAME_NONE / 2 ? realloc(*at, more * size) : NULL;
	if (!grown)
		return false;
	*at = grown;
	*room = more;
	return true;
}

/* ---- what a unit has ---- */

struct walk {
	struct flame_scopes *scopes;
	struct unit *unit;
};

static void note_ranges(struct walk *w, Dwarf_Die *die, uint32_t function)
{
	struct unit *u = w->unit;
	Dwarf_Addr base, from, to;
	ptrdiff_t next = 0;

	while (w->scopes->range_count < RANGES_MAX && (next = dwarf_ranges(die, next, &base, &from, &to)) > 0) {
		if (from >= to)
			continue;
		if (!grow(&u->ranges, u->range_count, &u->range_room, sizeof(u->ranges[0])))
			return;
		u->ranges[u->range_count++] = (struct range){ .from = from, .to = to, .function = function };
		w->scopes->range_count++;
	}
}

/* FLAME_NONE without memory. */
static uint32_t note_function(struct walk *w, Dwarf_Die *die, uint32_t in)
{
	struct unit *u = w->unit;

	if (w->scopes->function_count == FUNCTIONS_MAX ||
	    !grow(&u->functions, u->function_count, &u->function_room, sizeof(u->functions[0])))
		return FLAME_NONE;
	w->scopes->function_count++;
	u->functions[u->function_count] = (struct function){ *die, in };
	note_ranges(w, die, (uint32_t)u->function_count);
	return (uint32_t)u->function_count++;
}

static bool may_hold_functions(int tag)
{
	switch (tag) {
	case DW_TAG_module:
	case DW_TAG_namespace:
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
	case DW_TAG_lexical_block:
	case DW_TAG_try_block:
	case DW_TAG_catch_block:
	case DW_TAG_with_stmt:
	case DW_TAG_entry_point:
		return true;
	default:
		return false;
	}
}

static void walk(struct walk *w, Dwarf_Die *parent, uint32_t in, unsigned depth)
{
	Dwarf_Die die;

	if (depth == DEPTH_MAX || dwarf_child(parent, &die) != 0)
		return;
	do {
		int tag = dwarf_tag(&die);

		if (w->scopes->entry_count++ >= ENTRIES_MAX)
			return;
		if (tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine)
			walk(w, &die, note_function(w, &die, tag == DW_TAG_subprogram ? FLAME_NONE : in), depth + 1);
		else if (may_hold_functions(tag))
			walk(w, &die, in, depth + 1);
	} while (dwarf_siblingof(&die, &die) == 0);
}

static int by_beginning(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	if (x->to != y->to)
		return x->to > y->to ? -1 : 1;
	return x->function < y->function ? -1 : x->function > y->function;
}

static void put_in_order(struct unit *u)
{
	uint32_t last = FLAME_NONE;

	if (u->range_count)
		qsort(u->ranges, u->range_count, sizeof(u->ranges[0]), by_beginning);
	for (uint32_t i = 0; i < u->range_count; i++) {
		while (last != FLAME_NONE && u->ranges[last].to <= u->ranges[i].from)
			last = u->ranges[last].around;
		u->ranges[i].around = last;
		last = i;
	}
}

/* NULL without memory. */
static struct unit *unit_of(struct flame_scopes *scopes, Dwarf_Die *die)
{
	Dwarf_Off offset = dwarf_dieoffset(die);
	uint64_t hash = index_hash(offset, 0);
	struct unit *u;
	uint32_t i;

	for (size_t step = 0; (i = index_next(&scopes->index, hash, &step)) != INDEX_NONE;)
		if (scopes->units[i].offset == offset)
			return &scopes->units[i];
	if (!grow(&scopes->units, scopes->unit_count, &scopes->unit_room, sizeof(scopes->units[0])) ||
	    !index_add(&scopes->index, hash, (uint32_t)scopes->unit_count))
		return NULL;
	u = &scopes->units[scopes->unit_count++];
	*u = (struct unit){ .offset = offset };
	walk(&(struct walk){ scopes, u }, die, FLAME_NONE, 0);
	put_in_order(u);
	return u;
}

/* ---- an address ---- */

/* The innermost function that has it, or FLAME_NONE. */
static uint32_t function_at(const struct unit *u, Dwarf_Addr address)
{
	size_t from = 0, to = u->range_count;
	uint32_t at;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (u->ranges[middle].from <= address)
			from = middle + 1;
		else
			to = middle;
	}
	at = from > 0 ? (uint32_t)from - 1 : FLAME_NONE;
	for (unsigned steps = 0; at != FLAME_NONE && u->ranges[at].to <= address; steps++)
		at = steps < AROUND_MAX ? u->ranges[at].around : FLAME_NONE;
	return at == FLAME_NONE ? FLAME_NONE : u->ranges[at].function;
}

unsigned flame_scopes_at(struct flame_scopes *scopes, Dwarf_Die *unit, Dwarf_Addr address, Dwarf_Die *found, unsigned room)
{
	const struct unit *u = unit_of(scopes, unit);
	unsigned count = 0;

	for (uint32_t i = u ? function_at(u, address) : FLAME_NONE; i != FLAME_NONE && count < room; i = u->functions[i].in)
		found[count++] = u->functions[i].die;
	return count;
}
#endif
