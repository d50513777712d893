/* SPDX-License-Identifier: MIT */
/* A view as a file: doc/view-format.md. It is written as the visit goes, and nothing of it is kept but which arenas were
 * told of. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/manager/manager.h"
#include "lib/view/dump.h"
#include "lib/view/print.h"
#include "numa/os.h"

#define VERSION 1
#define GRAIN 16 /* bytes; of where objects of mixed slabs stand */

static unsigned long long long_of(uint64_t n)
{
	return n;
}

/* ---- binary ---- */

void qy_dump_put(struct qy_dump *d, uint64_t n, unsigned bytes)
{
	char text[8];

	for (unsigned i = 0; i < bytes; i++, n >>= 8)
		text[i] = (char)(n & 0xff);
	qy_text_put(&d->out, text, bytes);
}

void qy_dump_begin(struct qy_dump *d, enum qy_dump_record type, uint64_t bytes)
{
	d->records++;
	if (d->json)
		return;
	qy_dump_put(d, type, 4);
	qy_dump_put(d, bytes, 4);
}

/* ---- report, arenas, regions ---- */

static void dump_report(struct qy_dump *d, const quarry_view_report *r)
{
	const struct { const char *name; uint64_t n; } counts[] = {
		{ "exact", r->exact }, { "unsettled", r->unsettled }, { "missed", r->missed },
		{ "arenas_ended", r->arenas_ended }, { "threads", r->threads },
	}, figures[] = {
		{ "moment_ns", r->moment_ns }, { "longest_ns", r->longest_ns }, { "took_ns", r->took_ns },
		{ "regions", r->regions }, { "slabs", r->slabs }, { "blocks", r->blocks },
		{ "blocks_bytes", r->blocks_bytes }, { "objects", r->objects }, { "objects_bytes", r->objects_bytes },
		{ "cached", r->cached }, { "cached_bytes", r->cached_bytes },
	};
	size_t n = sizeof(counts) / sizeof(counts[0]), m = sizeof(figures) / sizeof(figures[0]);

	if (d->json)
		qy_text_format(&d->out, "{\"quarry_view_dump\":%d", VERSION);
	else
		qy_text_put(&d->out, "QuarryVw", 8);
	if (!d->json) {
		qy_dump_put(d, VERSION, 4);
		qy_dump_put(d, 0, 4);
	}
	qy_dump_begin(d, QY_DUMP_REPORT, 4 * (n + 1) + 8 * m);
	for (size_t i = 0; i < n + m; i++) {
		const char *name = i < n ? counts[i].name : figures[i - n].name;
		uint64_t value = i < n ? counts[i].n : figures[i - n].n;

		if (d->json)
			qy_text_format(&d->out, ",\"%s\":%llu", name, long_of(value));
		else
			qy_dump_put(d, value, i < n ? 4 : 8);
		if (!d->json && i + 1 == n)
			qy_dump_put(d, 0, 4);
	}
	if (d->json)
		qy_text_format(&d->out, "}\n");
}

/* The arena's number; it is told of when it is a new one. */
static size_t arena_of(struct qy_dump *d, const quarry_view_item *item)
{
	uint32_t *number = &d->arena_number[qy_arena_number(item->arena)];
	size_t n = strlen(item->arena_name);

	if (*number != 0)
		return *number - 1;
	*number = d->arena_count + 1;
	qy_dump_begin(d, QY_DUMP_ARENA, 4 + n);
	if (d->json) {
		qy_text_format(&d->out, "{\"arena\":%u,\"name\":", d->arena_count);
		qy_print_json_string(&d->out, item->arena_name, n);
		qy_text_format(&d->out, "}\n");
	} else {
		qy_dump_put(d, d->arena_count, 4);
		qy_text_put(&d->out, item->arena_name, n);
	}
	return d->arena_count++;
}

static void dump_region(struct qy_dump *d, const quarry_view_item *item)
{
	size_t arena = arena_of(d, item);

	qy_dump_begin(d, QY_DUMP_REGION, 28);
	if (d->json) {
		qy_text_format(&d->out, "{\"region\":%llu,\"size\":%zu,\"arena\":%zu,\"node\":%d,\"pages\":%d}\n",
			       long_of((uintptr_t)item->address), item->size, arena, item->node, item->page_kind);
		return;
	}
	qy_dump_put(d, (uintptr_t)item->address, 8);
	qy_dump_put(d, item->size, 8);
	qy_dump_put(d, arena, 4);
	qy_dump_put(d, (uint32_t)item->node, 4);
	qy_dump_put(d, (uint32_t)item->page_kind, 4);
}

static void dump_block(struct qy_dump *d, const quarry_view_item *item)
{
	qy_dump_begin(d, QY_DUMP_BLOCK, 16);
	if (d->json) {
		qy_text_format(&d->out, "{\"block\":%llu,\"size\":%zu}\n", long_of((uintptr_t)item->address), item->size);
		return;
	}
	qy_dump_put(d, (uintptr_t)item->address, 8);
	qy_dump_put(d, item->size, 8);
}

/* ---- slabs, and the objects that come after each ---- */

static void end_slab(struct qy_dump *d)
{
	if (d->json)
		qy_text_format(&d->out, "]}\n");
}

static void dump_slab(struct qy_dump *d, const quarry_view_item *item)
{
	d->slab = item->address;
	d->left = item->objects;
	d->mixed = item->object_size == 0;
	d->first = true;
	d->run = d->bits = 0;
	qy_dump_begin(d, QY_DUMP_SLAB, 28 + (d->mixed ? 4 * item->objects : (item->objects + 3) / 4));
	if (d->json) {
		qy_text_format(&d->out, "{\"slab\":%llu,\"size\":%zu,\"object_size\":%zu,\"objects\":%zu,\"live\":%zu,\"cached\":%zu,",
			       long_of((uintptr_t)item->address), item->size, item->object_size, item->objects, item->live,
			       item->cached);
		qy_text_format(&d->out, d->mixed ? "\"items\":[" : "\"runs\":[");
	} else {
		qy_dump_put(d, (uintptr_t)item->address, 8);
		qy_dump_put(d, item->size, 4);
		qy_dump_put(d, item->object_size, 4);
		qy_dump_put(d, item->objects, 4);
		qy_dump_put(d, item->live, 4);
		qy_dump_put(d, item->cached, 4);
	}
	if (d->left == 0)
		end_slab(d);
}

static void comma(struct qy_dump *d)
{
	if (!d->first)
		qy_text_put(&d->out, ",", 1);
	d->first = false;
}

static void dump_mixed(struct qy_dump *d, const quarry_view_item *item)
{
	size_t offset = (size_t)((const char *)item->address - d->slab);

	if (d->json) {
		comma(d);
		qy_text_format(&d->out, "[%zu,%zu,%d]", offset, item->size, item->state);
		return;
	}
	qy_dump_put(d, offset / GRAIN, 2);
	qy_dump_put(d, item->size / GRAIN | (uint64_t)item->state << 14, 2);
}

static void end_run(struct qy_dump *d)
{
	comma(d);
	qy_text_format(&d->out, "[%u,%d]", d->run, d->state);
	d->run = 0;
}

static void dump_state(struct qy_dump *d, int state)
{
	if (d->json) {
		if (d->run > 0 && state != d->state)
			end_run(d);
		d->state = state;
		d->run++;
		if (d->left == 0)
			end_run(d);
		return;
	}
	d->bits |= (uint32_t)state << (2 * d->run++);
	if (d->run == 4 || d->left == 0) {
		qy_dump_put(d, d->bits, 1);
		d->run = d->bits = 0;
	}
}

static void dump_object(struct qy_dump *d, const quarry_view_item *item)
{
	d->left--;
	if (d->mixed)
		dump_mixed(d, item);
	else
		dump_state(d, item->state);
	if (d->left == 0)
		end_slab(d);
}

/* ---- all of it ---- */

static int dump_item(const quarry_view_item *item, void *ctx)
{
	struct qy_dump *d = ctx;

	switch (item->kind) {
	case QUARRY_VIEW_REGION:
		dump_region(d, item);
		break;
	case QUARRY_VIEW_SLAB:
		dump_slab(d, item);
		break;
	case QUARRY_VIEW_OBJECT:
		dump_object(d, item);
		break;
	default:
		dump_block(d, item);
	}
	return d->out.error;
}

static void dump_end(struct qy_dump *d)
{
	uint64_t records = d->records;

	qy_dump_begin(d, QY_DUMP_END, 8);
	if (d->json)
		qy_text_format(&d->out, "{\"end\":%llu}\n", long_of(records));
	else
		qy_dump_put(d, records, 8);
}

QUARRY_API int quarry_view_dump(const quarry_view *view, int fd, int format)
{
	quarry_view_report report = { .struct_size = sizeof(report) };
	struct qy_dump d = { .json = format == QUARRY_DUMP_JSON };
	char buffer[QY_PRINT_BUFFER];
	size_t size = QY_ARENAS_MAX * sizeof(d.arena_number[0]);
	bool stacks;
	void *p;

	if (format != QUARRY_DUMP_BINARY && format != QUARRY_DUMP_JSON)
		return qy_fail(EINVAL, "format: %d is none of enum quarry_dump_format", format);
	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	if (quarry_view_report_get(view, &report) != 0)
		return -1;
	p = qy_os->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return qy_fail(ENOMEM, "no memory for the arenas' numbers");
	d.arena_number = p;
	qy_text_init(&d.out, buffer, sizeof(buffer), fd);
	dump_report(&d, &report);
	(void)quarry_view_visit(view, QUARRY_VIEW_REGION | QUARRY_VIEW_SLAB | QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, dump_item,
				&d);
	stacks = qy_dump_stacks(&d);
	dump_end(&d);
	qy_os->munmap(p, size);
	if (!stacks)
		return qy_fail(ENOMEM, "no memory for the frames of stacks");
	return qy_text_flush(&d.out) == 0 ? 0 : qy_fail(errno, "fd: not all could be written to %d", fd);
}
