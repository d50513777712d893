/* SPDX-License-Identifier: MIT */
#include "tools/cells.h"

#include <stdlib.h>
#include <string.h>

/* ---- figures ---- */

void cell_add(struct cell *to, const struct cell *cell)
{
	for (int i = 0; i < CELL_FIGURES; i++)
		to->bytes[i] += cell->bytes[i];
}

uint64_t cell_mapped(const struct cell *cell)
{
	uint64_t sum = 0;

	for (int kind = 0; kind < CELL_KINDS; kind++)
		sum += cell->bytes[CELL_PAGES + kind];
	return sum;
}

uint64_t cell_held(const struct cell *cell)
{
	return cell->bytes[CELL_SLABS] + cell->bytes[CELL_BLOCKS];
}

uint64_t cell_live(const struct cell *cell)
{
	return cell->bytes[CELL_LIVE] + cell->bytes[CELL_BLOCKS];
}

/* (Where slabs were spread over borders of cells, rounding may have made it less than nothing.) */
uint64_t cell_free(const struct cell *cell)
{
	uint64_t taken = cell->bytes[CELL_LIVE] + cell->bytes[CELL_CACHED];

	return cell->bytes[CELL_SLABS] > taken ? cell->bytes[CELL_SLABS] - taken : 0;
}

int cell_pages(const struct cell *cell)
{
	int most = 0;

	for (int kind = 1; kind < CELL_KINDS; kind++)
		if (cell->bytes[CELL_PAGES + kind] > cell->bytes[CELL_PAGES + most])
			most = kind;
	return most;
}

/* ---- how large a cell is ---- */

static void double_size(struct cells *c)
{
	size_t used = 0;

	for (size_t i = 0; i < c->stretch_count; i++) {
		struct stretch *s = &c->stretches[i];
		size_t from = s->first, count = s->count;

		s->first = used;
		s->count = (count + 1) / 2;
		for (size_t k = 0; k < count; k++) {
			struct cell cell = c->list[from + k];

			/* (What is read is never before what is written.) */
			if (k % 2 == 0)
				c->list[used++] = cell;
			else
				cell_add(&c->list[used - 1], &cell);
		}
	}
	c->count = used;
	c->doubled++;
}

void cells_coarsen(struct cells *c, size_t most)
{
	while (c->count - c->stretch_count > most)
		double_size(c);
}

static uint64_t cells_for(const struct cells *c, uint64_t size)
{
	return ((size - 1) >> (CELL_LEAST + c->doubled)) + 1;
}

/* Cells of the last stretch as far as it reaches. */
static bool grow(struct cells *c)
{
	struct stretch *s = &c->stretches[c->stretch_count - 1];
	size_t wanted;

	while (c->count - s->count - c->stretch_count + cells_for(c, s->size) > CELLS_MOST)
		double_size(c);
	wanted = s->first + (size_t)cells_for(c, s->size);
	if (wanted > c->room) {
		size_t room = wanted + wanted / 2 + 64;
		struct cell *list = reallocarray(c->list, room, sizeof(*list));

		if (!list)
			return false;
		c->list = list;
		c->room = room;
	}
	memset(c->list + c->count, 0, (wanted - c->count) * sizeof(*c->list));
	s->count = wanted - s->first;
	c->count = wanted;
	return true;
}

/* ---- what is read ---- */

/* So many bytes of something, evenly over a range of the last stretch. (There are not more than the range has, and where it
 * is not all of it they are of a slab: products are less than 2^64.) */
static void spread(struct cells *c, int figure, uint64_t address, uint64_t size, uint64_t bytes)
{
	const struct stretch *s = &c->stretches[c->stretch_count - 1];
	uint64_t from = address - s->address, cell = cells_size(c);

	for (uint64_t done = 0, next; done < size; done = next) {
		uint64_t at = from + done, room = cell - at % cell;

		next = room < size - done ? done + room : size;
		c->list[s->first + at / cell].bytes[figure] +=
			bytes == size ? next - done : bytes * next / size - bytes * done / size;
	}
}

bool cells_add_region(struct cells *c, const struct dump_region *region)
{
	struct stretch *s = c->stretch_count ? &c->stretches[c->stretch_count - 1] : NULL;

	if (!s || s->address + s->size != region->address || s->arena != region->arena || s->node != region->node) {
		s = dump_one_more(&c->stretches, &c->stretch_count, &c->stretch_room, sizeof(*s));
		if (!s)
			return false;
		s->address = region->address;
		s->arena = region->arena;
		s->node = region->node;
		s->first = c->count;
	}
	s->size += region->size;
	s->regions++;
	if (!grow(c))
		return false;
	spread(c, CELL_PAGES + region->pages, region->address, region->size, region->size);
	return true;
}

/* Where its objects are is known by pieces, unless it is longer than any. */
void cells_add_slab(struct cells *c, const struct dump_slab *slab)
{
	spread(c, CELL_SLABS, slab->address, slab->size, slab->size);
	if (slab->size > DUMP_PIECES * DUMP_PIECE) {
		spread(c, CELL_LIVE, slab->address, slab->size, slab->bytes[DUMP_LIVE]);
		spread(c, CELL_CACHED, slab->address, slab->size, slab->bytes[DUMP_CACHED]);
		return;
	}
	for (uint32_t at = 0; at < slab->size; at += DUMP_PIECE) {
		uint32_t size = slab->size - at < DUMP_PIECE ? slab->size - at : DUMP_PIECE;

		spread(c, CELL_LIVE, slab->address + at, size, slab->pieces[at / DUMP_PIECE][DUMP_LIVE]);
		spread(c, CELL_CACHED, slab->address + at, size, slab->pieces[at / DUMP_PIECE][DUMP_CACHED]);
	}
}

void cells_add_block(struct cells *c, uint64_t address, uint64_t size)
{
	spread(c, CELL_BLOCKS, address, size, size);
}

void cells_free(struct cells *c)
{
	free(c->stretches);
	free(c->list);
	memset(c, 0, sizeof(*c));
}
