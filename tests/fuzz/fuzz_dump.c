/* SPDX-License-Identifier: MIT */
/* The readers of dumps of views (tools/dump.c) under libFuzzer, or by mutations of real ones: whatever a file has in it is
 * read or refused, what was read adds up, and the picture of it (tools/map_heap.h) can be drawn.
 *
 *	clang -fsanitize=fuzzer,address,undefined -DQUARRY_FUZZ -I. -Iinclude tests/fuzz/fuzz_dump.c tools/cells.c tools/dump*.c \
 *		tools/index.c tools/json.c tools/map_{heap*,model,page,svg,view}.c tools/svg.c tools/system.c tools/utf8.c
 *
 * Without QUARRY_FUZZ it is a program of its own: fuzz_dump INPUTS FILE… makes that many inputs of pieces of the files,
 * cut, with bytes and numbers changed, and records left out, doubled and moved. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cells.h"
#include "tools/dump.h"
#include "tools/map_heap.h"
#include "tools/tools.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long refused, taken;

int fail(enum status status, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	if (vsnprintf(line, sizeof(line), format, args) < 0 || strchr(line, '\n'))
		abort();
	va_end(args);
	refused++;
	return status;
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* What a stack leads to is there. */
static void add_up_stacks(const struct dump *d)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < d->stack_count; i++) {
		const struct dump_stack *s = &d->stacks[i];

		must(s->depth <= DUMP_DEPTH_MAX && s->first + s->depth <= d->number_count);
		must(s->arena == DUMP_NONE || s->arena < d->arena_count);
		for (uint32_t k = 0; k < s->depth; k++)
			must(d->numbers[s->first + k] < d->frame_count);
		bytes += s->bytes;
	}
	for (size_t i = 0; i < d->frame_count; i++)
		must((d->frames[i].module == DUMP_NONE || d->frames[i].module < d->module_count) && d->frames[i].function);
	must(bytes == d->stack_bytes && bytes < DUMP_ADDRESS_MAX && (d->has_profile || d->stack_count == 0));
}

/* Cells are of what there is, none holds more than it has, and there are not too many. */
static void add_up_cells(const struct dump *d, struct cells *c)
{
	uint64_t mapped = 0, held = 0, cached = 0;
	struct cell sum = { 0 };
	size_t next = 0;

	for (size_t i = 0; i < c->stretch_count; next += c->stretches[i++].count) {
		const struct stretch *s = &c->stretches[i];

		must(s->first == next && s->count == (s->size - 1) / cells_size(c) + 1 && s->arena < d->arena_count);
		for (size_t k = 0; k < s->count; k++) {
			const struct cell *cell = &c->list[s->first + k];
			uint64_t size = k + 1 < s->count ? cells_size(c) : s->size - k * cells_size(c);

			must(cell_mapped(cell) == size && cell_held(cell) <= size);
			/* (What is spread over a border is rounded on both sides of it.) */
			must(cell->bytes[CELL_LIVE] + cell->bytes[CELL_CACHED] <= cell->bytes[CELL_SLABS] + 2);
			must(cell_free(cell) <= cell->bytes[CELL_SLABS]);
			cell_add(&sum, cell);
		}
	}
	for (size_t i = 0; i < d->region_count; i++) {
		mapped += d->regions[i].size;
		held += d->regions[i].held;
	}
	for (size_t i = 0; i < d->row_count; i++)
		cached += d->rows[i].cached_bytes;
	must(next == c->count && c->count <= CELLS_MOST + c->stretch_count);
	must(cell_mapped(&sum) == mapped && cell_held(&sum) == held && sum.bytes[CELL_CACHED] == cached);
	must(cell_live(&sum) == d->objects_bytes + d->blocks_bytes);
	cells_coarsen(c, 1);
	must(c->count <= c->stretch_count + 1);
}

static void add_up(const struct dump *d)
{
	uint64_t live = 0, held = 0, in_regions = 0;

	for (size_t i = 0; i < d->row_count; i++) {
		must(d->rows[i].arena < d->arena_count && d->rows[i].live_bytes <= d->rows[i].held);
		live += d->rows[i].live_bytes;
		held += d->rows[i].held;
	}
	for (size_t i = 0; i < d->region_count; i++) {
		must(d->regions[i].held <= d->regions[i].size);
		in_regions += d->regions[i].held;
	}
	must(live == d->objects_bytes + d->blocks_bytes && held == in_regions);
	add_up_stacks(d);
	taken++;
}

/* As text, no line is longer than it may be, and no name does anything to a terminal. */
static void look_at_text(const char *text, size_t size)
{
	int width = 0;

	for (size_t i = 0; i < size; i++) {
		must(text[i] == '\n' || ((unsigned char)text[i] >= ' ' && text[i] != 0x7f));
		width = text[i] == '\n' ? 0 : width + 1;
		must(width <= 80);
	}
}

static void draw(const char *dump, size_t length)
{
	struct map map = { 0 };
	struct map_look look = { .ascii = true };

	must(map_read_view(&map, "input", dump, length) == STATUS_OK);
	for (int how = 0; how < 4; how++) {
		char *picture = NULL;
		size_t size = 0;
		FILE *out = open_memstream(&picture, &size);

		must(out != NULL);
		look.all = how == 3;
		if (how == 0)
			heap_print_json(&map, out);
		else
			must(how == 1 ? heap_print_svg(&map, &look, out) : heap_print_text(&map, &look, out));
		must(fclose(out) == 0 && size > 0);
		if (how >= 2)
			look_at_text(picture, size);
		free(picture);
	}
	map_free(&map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cells cells = { 0 };
	struct dump d = { .cells = &cells };
	char *text = malloc(size + 1); /* as large as it is, so that a byte too many is seen */

	if (!text)
		return 0;
	text = realloc(text, size ? size : 1);
	if (text && size)
		memcpy(text, data, size);
	if (text && dump_is(text, size) && dump_read(&d, "fuzz", "input", text, size) == STATUS_OK) {
		add_up(&d);
		add_up_cells(&d, &cells);
		draw(text, size);
	}
	dump_free(&d);
	cells_free(&cells);
	free(text);
	return 0;
}

#ifndef QUARRY_FUZZ
#define INPUT_MAX ((size_t)1 << 20)
#define MODEL_FAIL(...) abort()
#include "tests/unit/model.h"

/* Where a record begins in a binary dump, from there on; the end when there is none. */
static size_t record_after(const uint8_t *data, size_t size, size_t at)
{
	uint32_t length;

	if (data[0] != 'Q') {
		const uint8_t *line = memchr(data + at, '\n', size - at);

		return line ? (size_t)(line - data) + 1 : size;
	}
	if (at + 8 > size)
		return size;
	memcpy(&length, data + at + 4, 4);
	return length > size - at - 8 ? size : at + 8 + length;
}

/* Any of them: stacks come behind all that is in regions. */
static size_t some_record(const uint8_t *data, size_t size)
{
	size_t first = data[0] == 'Q' ? 16 : 0, at = first;
	uint32_t count = 0;

	for (; at < size; at = record_after(data, size, at))
		count++;
	at = first;
	for (uint32_t n = model_below(count + 1); n > 0 && at < size; n--)
		at = record_after(data, size, at);
	return at;
}

static size_t leave_out(uint8_t *data, size_t size)
{
	size_t from = some_record(data, size), to = from < size ? record_after(data, size, from) : size;

	memmove(data + from, data + to, size - to);
	return size - (to - from);
}

static size_t twice(uint8_t *data, size_t size)
{
	size_t from = some_record(data, size), to = from < size ? record_after(data, size, from) : size;

	if (size + (to - from) > INPUT_MAX)
		return size;
	memmove(data + to + (to - from), data + to, size - to);
	memcpy(data + to, data + from, to - from);
	return size + (to - from);
}

static void change(uint8_t *data, size_t size)
{
	static const uint64_t numbers[] = { 0, 1, 16, 4096, 65536, UINT32_MAX, INT64_MAX, UINT64_MAX, (uint64_t)1 << 56 };
	size_t at = some_record(data, size) + model_below(64), n = (size_t)1 << model_below(4);

	if (at + n > size)
		return;
	if (data[0] != 'Q' || model_one_in(2))
		data[at] = (uint8_t)(data[0] != 'Q' ? "0123456789{}[],:\"\\ n-"[model_below(21)] : (int)model_random());
	else
		memcpy(data + at, &numbers[model_below(9)], n);
}

static size_t spoil(uint8_t *data, size_t size)
{
	for (uint32_t n = model_below(4); n > 0 && size > 32; n--)
		switch (model_below(5)) {
		case 0:
			size = model_below((uint32_t)size) + 1;
			break;
		case 1:
			size = leave_out(data, size);
			break;
		case 2:
			size = twice(data, size);
			break;
		default:
			change(data, size);
		}
	return size;
}

int main(int argc, char **argv)
{
	static uint8_t whole[INPUT_MAX], input[INPUT_MAX];
	unsigned long inputs = argc > 1 ? strtoul(argv[1], NULL, 0) : 0, n = 0;

	model_start("fuzz_dump");
	for (int i = 2; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		size_t size;

		if (!file) {
			perror(argv[i]);
			return 1;
		}
		size = fread(whole, 1, sizeof(whole), file);
		fclose(file);
		for (unsigned long k = 0; k < inputs; k++, n++) {
			memcpy(input, whole, size);
			LLVMFuzzerTestOneInput(input, spoil(input, size));
		}
	}
	printf("fuzz_dump: %lu inputs, %lu read, %lu refused\n", n, taken, refused);
	return n > 0 && (taken == 0 || refused == 0);
}
#endif
