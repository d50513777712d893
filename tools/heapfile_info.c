/* SPDX-License-Identifier: MIT */
/* `quarry heap info`: what a heap's file is, what is in it, and a picture of how full it is. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/heapfile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tools/json.h"
#include "tools/map_heap.h"
#include "tools/map_page.h"
#include "tools/tools.h"
#include "tools/utf8.h"

#define HEAPFILE_CELL 65536u
#define LINES 16  /* of the picture */
#define FEW 12    /* names and sizes that are printed without --all */
#define LEFT 13
#define SIZES 96  /* sizes that there can be: 40 of small objects, and powers of two of blocks */

struct root {
	char name[QUARRY_MAPPED_NAME + 1];
	uint64_t off;
	uint32_t tag;
};

struct size {
	uint64_t size, count, bytes; /* the largest of them, where they are of several */
};

struct looking {
	quarry_mapped *heap;
	quarry_mapped_info info;
	uint64_t file_bytes, kept, cell; /* bytes of a cell of the picture */
	size_t count;                    /* of cells */
	uint64_t *live;                  /* of each cell */
	bool *hole;                      /* nothing of it is kept by the file system */
	struct root *roots;
	size_t root_count, root_room;
	struct size sizes[SIZES];
	size_t size_count;
	uint64_t objects, bytes;
	bool no_memory; /* for what is looked at */
};

/* ---- looking ---- */

/* Blocks are taken together by the power of two above. */
static struct size *size_of(struct looking *l, uint64_t usable)
{
	uint64_t size = usable;
	size_t i = 0;

	if (size > 32768)
		for (size = 65536; size < usable; size *= 2)
			;
	while (i < l->size_count && l->sizes[i].size != size)
		i++;
	if (i == l->size_count) {
		if (i == SIZES)
			return NULL;
		l->sizes[l->size_count++].size = size;
	}
	return &l->sizes[i];
}

static int see_object(void *ctx, void *p, size_t usable)
{
	struct looking *l = ctx;
	uint64_t off = quarry_mapped_off(l->heap, p), end = off + usable;
	struct size *size = size_of(l, usable);

	l->objects++;
	l->bytes += usable;
	if (size) {
		size->count++;
		size->bytes += usable;
	}
	while (off < end && off / l->cell < l->count) {
		uint64_t part = (off / l->cell + 1) * l->cell - off;

		part = part < end - off ? part : end - off;
		l->live[off / l->cell] += part;
		off += part;
	}
	return 0;
}

static int see_root(void *ctx, const char *name, quarry_off off, uint32_t tag)
{
	struct looking *l = ctx;

	if (l->root_count == l->root_room) {
		size_t room = l->root_room ? l->root_room * 2 : 64;
		struct root *roots = realloc(l->roots, room * sizeof(*roots));

		if (!roots) {
			l->no_memory = true;
			return -1;
		}
		l->roots = roots;
		l->root_room = room;
	}
	l->roots[l->root_count].off = off;
	l->roots[l->root_count].tag = tag;
	snprintf(l->roots[l->root_count++].name, sizeof(l->roots[0].name), "%s", name);
	return 0;
}

static void see_holes(struct looking *l, int fd)
{
	off_t at = 0;

	for (size_t i = 0; i < l->count; i++)
		l->hole[i] = true;
	while (at >= 0 && (uint64_t)at < l->info.bytes) {
		off_t from = lseek(fd, at, SEEK_DATA), end = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);

		if (end < 0 && errno != ENXIO) { /* not to be told here */
			memset(l->hole, 0, l->count * sizeof(l->hole[0]));
			return;
		}
		for (uint64_t c = (uint64_t)from / l->cell; end > 0 && c < l->count && c * l->cell < (uint64_t)end; c++)
			l->hole[c] = false;
		at = end;
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct root *)a)->name, ((const struct root *)b)->name);
}

static int by_size(const void *a, const void *b)
{
	const struct size *x = a, *y = b;

	return (x->size > y->size) - (x->size < y->size);
}

static int no_memory(const struct heapfile_arguments *args)
{
	return fail(STATUS_FAILED, "heap info: %s: %s", utf8_shown(args->file), strerror(ENOMEM));
}

/* A status. (What a durable heap's descriptor is of when it is only read is a copy in memory.) */
static int look(struct looking *l, const struct heapfile_arguments *args, size_t cells)
{
	int fd = quarry_mapped_fd(l->heap);
	struct stat is;

	if (quarry_mapped_info_get(l->heap, &l->info, sizeof(l->info)) != 0)
		return heapfile_failed(args);
	if ((l->info.mode == QUARRY_MAPPED_DURABLE ? stat(args->file, &is) : fstat(fd, &is)) != 0)
		return fail(STATUS_FAILED, "heap info: %s: %s", utf8_shown(args->file), strerror(errno));
	l->file_bytes = (uint64_t)is.st_size;
	l->kept = (uint64_t)is.st_blocks * 512;
	for (l->cell = HEAPFILE_CELL; l->info.bytes / l->cell >= cells; l->cell *= 2)
		;
	l->count = (size_t)((l->info.bytes + l->cell - 1) / l->cell);
	l->live = calloc(l->count + 1, sizeof(l->live[0]));
	l->hole = calloc(l->count + 1, sizeof(l->hole[0]));
	if (!l->live || !l->hole)
		return no_memory(args);
	if (quarry_mapped_walk(l->heap, see_object, l) != 0 || quarry_mapped_root_list(l->heap, see_root, l) != 0)
		return l->no_memory ? no_memory(args) : heapfile_failed(args);
	see_holes(l, fd);
	if (l->root_count)
		qsort(l->roots, l->root_count, sizeof(l->roots[0]), by_name);
	qsort(l->sizes, l->size_count, sizeof(l->sizes[0]), by_size);
	return STATUS_OK;
}

static const char *mode_name(uint32_t mode)
{
	static const char *const names[] = {
		[QUARRY_MAPPED_DIRECT] = "direct", [QUARRY_MAPPED_VOLATILE] = "volatile", [QUARRY_MAPPED_DURABLE] = "durable",
	};

	return mode < sizeof(names) / sizeof(names[0]) ? names[mode] : "of a mode that is not known";
}

/* ---- JSON ---- */

static void print_json(const struct looking *l, const char *file)
{
	const quarry_mapped_info *i = &l->info;
	char uuid[37];

	heapfile_uuid(i->uuid, uuid);
	printf("{\"file\":");
	json_put_string(stdout, file);
	printf(",\"uuid\":\"%s\",\"version\":%u,\"mode\":\"%s\",\"run\":%" PRIu64 ",\"max_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64
	       ",\"file_bytes\":%" PRIu64 ",\"kept_bytes\":%" PRIu64 ",\"free_bytes\":%" PRIu64 ",\"objects\":%" PRIu64
	       ",\"object_bytes\":%" PRIu64, uuid, i->version, mode_name(i->mode), i->run,
	       i->max_bytes, i->bytes, l->file_bytes, l->kept, i->free_bytes, l->objects, l->bytes);
	printf(",\"sessions\":%u,\"sessions_max\":%u,\"lanes\":%u,\"lanes_idle\":%u,\"lanes_max\":%u,\"roots_max\":%u,\"recovered\":%" PRIu64
	       ",\"recovered_locks\":%" PRIu64 ",\"replayed\":%" PRIu64 ",\"bad_classes\":%" PRIu64 ",\"broken\":%s",
	       i->sessions, i->sessions_max, i->lanes, i->lanes_idle, i->lanes_max, i->roots_max, i->recovered, i->recovered_locks,
	       i->replayed, i->bad_classes, i->broken ? "true" : "false");
	printf(",\"roots\":[");
	for (size_t k = 0; k < l->root_count; k++) {
		printf("%s{\"name\":", k ? "," : "");
		json_put_string(stdout, l->roots[k].name);
		printf(",\"offset\":%" PRIu64 ",\"tag\":%u}", l->roots[k].off, l->roots[k].tag);
	}
	printf("],\"sizes\":[");
	for (size_t k = 0; k < l->size_count; k++)
		printf("%s{\"size\":%" PRIu64 ",\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", k ? "," : "", l->sizes[k].size,
		       l->sizes[k].count, l->sizes[k].bytes);
	printf("],\"cell_size\":%" PRIu64 ",\"live\":[", l->cell);
	for (size_t c = 0; c < l->count; c++)
		printf("%s%" PRIu64, c ? "," : "", l->live[c]);
	printf("],\"holes\":[");
	for (size_t c = 0; c < l->count; c++)
		printf("%s%d", c ? "," : "", l->hole[c]);
	printf("]}\n");
}

/* ---- text ---- */

static int glyph_of(const struct looking *l, size_t c)
{
	if (l->live[c] == 0 && l->hole[c])
		return HEAP_GLYPH_HOLE;
	return (int)(l->live[c] >= l->cell ? HEAP_LEVELS - 1 : l->live[c] * HEAP_LEVELS / l->cell);
}

static bool same_lines(const struct looking *l, size_t a, size_t b, size_t per_line)
{
	for (size_t i = 0; i < per_line; i++) {
		if (glyph_of(l, a + i) != glyph_of(l, b + i))
			return false;
	}
	return true;
}

static void put_line(struct page *p, const struct looking *l, size_t first, size_t per_line)
{
	uint64_t live = 0;
	size_t i;

	page_put(p, "  %10s ", map_short(first * l->cell));
	for (i = first; i < first + per_line && i < l->count; i++) {
		heap_paint_glyph(p, glyph_of(l, i));
		heap_put_glyph(p, glyph_of(l, i));
		live += l->live[i];
	}
	page_unpaint(p);
	page_pad(p, LEFT + (int)per_line);
	page_put(p, " %3u %%", heap_percent(live, (i - first) * l->cell));
	page_end_line(p);
}

/* (As hexdump(1): what is the same is told once.) */
static void put_picture(struct page *p, const struct looking *l, size_t per_line)
{
	for (size_t first = 0; first < l->count; first += per_line) {
		size_t more = 0;

		while (!p->look->all && first + (more + 2) * per_line <= l->count &&
		       same_lines(l, first, first + (more + 1) * per_line, per_line))
			more++;
		put_line(p, l, first, per_line);
		if (more < 2)
			continue;
		page_put(p, "  * %zu more lines like this one", more);
		page_end_line(p);
		first += more * per_line;
	}
	page_pad(p, LEFT);
	for (int level = 0; level < HEAP_LEVELS; level++) {
		if (!p->look->ascii && (level == 1 || level == 5)) /* drawn as the one before */
			continue;
		heap_paint_glyph(p, level);
		heap_put_glyph(p, level);
	}
	page_unpaint(p);
	page_put(p, " %s of a cell of %s in use  ", p->look->ascii ? "tenths" : "how much", map_short(l->cell));
	heap_paint_glyph(p, HEAP_GLYPH_HOLE);
	heap_put_glyph(p, HEAP_GLYPH_HOLE);
	page_unpaint(p);
	page_put(p, " a hole of the file");
	page_end_line(p);
}

static void put_rest(struct page *p, size_t n, size_t shown, const char *what)
{
	if (n <= shown)
		return;
	page_put(p, "  and %zu more %s (--all tells them)", n - shown, what);
	page_end_line(p);
}

static void put_figures(struct page *p, const struct looking *l, const char *file)
{
	const quarry_mapped_info *i = &l->info;
	char uuid[37], bytes[32], text[600];

	heapfile_uuid(i->uuid, uuid);
	snprintf(bytes, sizeof(bytes), "%s", bytes_text(l->bytes));
	snprintf(text, sizeof(text), "%.200s: %" PRIu64 " objects of %s in a heap of %s", utf8_shown(file), l->objects, bytes,
		 bytes_text(i->bytes));
	page_wrapped(p, text, 0, "1");
	page_put(p, "%s, version %u, opened %" PRIu64 " times; %s", mode_name(i->mode), i->version,
		 i->run, uuid);
	page_end_line(p);
	page_put(p, "at most %s; %s on the file system; %s in free units", bytes_text(i->max_bytes),
		 bytes_text(l->kept), bytes_text(i->free_bytes));
	page_end_line(p);
	page_put(p, "%u of %u processes, %u of %u threads' lanes and %u idle ones, %zu of %u names", i->sessions, i->sessions_max,
		 i->lanes, i->lanes_max, i->lanes_idle, l->root_count, i->roots_max);
	page_end_line(p);
	page_put(p, "%" PRIu64 " processes died with it, %" PRIu64 " of them with its lock; %" PRIu64 " changes finished", i->recovered,
		 i->recovered_locks, i->replayed);
	page_end_line(p);
	if (i->broken || i->bad_classes) {
		page_paint(p, "1;31");
		page_put(p, "DAMAGED: %s read-only (quarry heap check)", i->broken ? "all of it is" : "objects of some sizes are");
		page_unpaint(p);
		page_end_line(p);
	}
}

static void print_text(const struct looking *l, const struct map_look *look_of, const char *file, size_t per_line)
{
	struct page p = { .look = look_of, .out = stdout, .paint = "" };
	size_t roots = look_of->all || l->root_count <= FEW ? l->root_count : FEW - 1;
	size_t sizes = look_of->all || l->size_count <= FEW ? l->size_count : FEW - 1;

	put_figures(&p, l, file);
	page_end_line(&p);
	put_picture(&p, l, per_line);
	if (l->root_count) {
		page_end_line(&p);
		page_put(&p, "  %-44s %14s %10s", "name", "offset", "tag");
		page_end_line(&p);
	}
	for (size_t i = 0; i < roots; i++) {
		page_put(&p, "  ");
		page_name(&p, l->roots[i].name, 44, 0);
		page_put(&p, " %14" PRIu64 " %10u", l->roots[i].off, l->roots[i].tag);
		page_end_line(&p);
	}
	put_rest(&p, l->root_count, roots, "names");
	if (l->size_count) {
		page_end_line(&p);
		page_put(&p, "  %12s %12s %10s", "bytes each", "objects", "in all");
		page_end_line(&p);
	}
	for (size_t i = 0; i < sizes; i++) {
		page_put(&p, "  %s%11" PRIu64 " %12" PRIu64 " %10s", l->sizes[i].size > 65536 ? "<" : " ", l->sizes[i].size,
			 l->sizes[i].count, map_short(l->sizes[i].bytes));
		page_end_line(&p);
	}
	put_rest(&p, l->size_count, sizes, "sizes");
}

int heapfile_info(quarry_mapped *heap, const struct heapfile_arguments *args)
{
	struct map_look look_of = page_look(args->ascii, args->utf8, args->all);
	size_t per_line = heap_cells_per_line();
	struct looking l = { .heap = heap };
	int status = look(&l, args, LINES * per_line);

	if (status == STATUS_OK && args->json)
		print_json(&l, args->file);
	else if (status == STATUS_OK)
		print_text(&l, &look_of, args->file, per_line);
	free(l.live);
	free(l.hole);
	free(l.roots);
	return status;
}
