/* SPDX-License-Identifier: MIT */
/* The cells of a heap as numbers. */
#include <inttypes.h>

#include "tools/map_heap.h"

static void put_cell(FILE *out, const struct cell *cell)
{
	uint64_t mapped = cell_mapped(cell), held = cell_held(cell);

	fprintf(out, "[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%d]", cell->bytes[CELL_LIVE],
		cell->bytes[CELL_CACHED], cell_free(cell), cell->bytes[CELL_BLOCKS], mapped - held, cell_pages(cell));
}

static void put_stretch(FILE *out, const struct cells *cells, const struct stretch *s)
{
	fprintf(out, "{\"address\":%" PRIu64 ",\"size\":%" PRIu64 ",\"regions\":%zu", s->address, s->size, s->regions);
	fprintf(out, ",\"arena\":%" PRIu32 ",\"node\":%d,\"cells\":[", s->arena, s->node);
	for (size_t i = 0; i < s->count; i++) {
		if (i > 0)
			fputc(',', out);
		put_cell(out, &cells->list[s->first + i]);
	}
	fputs("]}", out);
}

void heap_print_json(const struct map *map, FILE *out)
{
	const struct cells *cells = &map->cells;
	struct cell sum = { 0 };

	for (size_t i = 0; i < cells->count; i++)
		cell_add(&sum, &cells->list[i]);
	fprintf(out, ",\n\"heap\":{\"exact\":%d,\"mapped\":%" PRIu64 ",\"held\":%" PRIu64, map->note[0] == '\0',
		cell_mapped(&sum), cell_held(&sum));
	fprintf(out, ",\"live\":%" PRIu64 ",\"cached\":%" PRIu64, cell_live(&sum), sum.bytes[CELL_CACHED]);
	fprintf(out, ",\n\"cell_size\":%" PRIu64, cells_size(cells));
	fputs(",\"cell\":[\"live\",\"cached\",\"free\",\"large\",\"hole\",\"pages\"],\n\"stretches\":[", out);
	for (size_t i = 0; i < cells->stretch_count; i++) {
		fputs(i ? ",\n" : "\n", out);
		put_stretch(out, cells, &cells->stretches[i]);
	}
	fputs("]}", out);
}
