/* SPDX-License-Identifier: MIT */
/* Who allocated what lives, in a dump: modules, frames in them, and stacks of those, as the profile has them when the dump is
 * written. Addresses are told by module and offset, so that two processes' dumps can be compared. */
#include <string.h>
#include <sys/mman.h>

#include "lib/cache/sample.h"
#include "lib/manager/manager.h"
#include "lib/view/dump.h"
#include "lib/view/print.h"
#include "lib/view/profile.h"
#include "numa/os.h"

#define MODULES_MAX 4096
#define FUNCTION_MAX 1023 /* bytes of a name; the rest is left out */
#define NONE UINT32_MAX   /* no module, no arena */

struct work {
	struct qy_dump *dump;
	size_t modules;
	uintptr_t *addresses; /* of calls, in order */
	size_t count, room;
	struct qy_object module[MODULES_MAX];
};

static unsigned long long long_of(uint64_t n)
{
	return n;
}

/* (A return address is behind the call.) */
static uintptr_t call_of(const struct qy_site *s, uint32_t i)
{
	return (uintptr_t)s->frames[i] - 1;
}

/* ---- modules and frames ---- */

static void dump_module(struct qy_dump *d, size_t number, const struct qy_object *o)
{
	size_t n = strnlen(o->name, sizeof(o->name));

	qy_dump_begin(d, QY_DUMP_MODULE, 8 + o->id_length + n);
	if (!d->json) {
		qy_dump_put(d, number, 4);
		qy_dump_put(d, o->id_length, 4);
		qy_text_put(&d->out, (const char *)o->id, o->id_length);
		qy_text_put(&d->out, o->name, n);
		return;
	}
	qy_text_format(&d->out, "{\"module\":%zu,\"id\":\"", number);
	for (unsigned i = 0; i < o->id_length; i++)
		qy_text_format(&d->out, "%02x", (unsigned)o->id[i]);
	qy_text_format(&d->out, "\",\"file\":");
	qy_print_json_string(&d->out, o->name, n);
	qy_text_format(&d->out, "}\n");
}

static size_t module_of(const struct work *w, uintptr_t call)
{
	for (size_t i = 0; i < w->modules; i++)
		if (call - w->module[i].from < w->module[i].to - w->module[i].from)
			return i;
	return NONE;
}

static void dump_frame(const struct work *w, size_t number)
{
	uintptr_t call = w->addresses[number];
	size_t module = module_of(w, call);
	uint64_t offset = module == NONE ? call : call - w->module[module].from + w->module[module].offset;
	const char *name = qy_frame_symbol((const void *)(call + 1));
	size_t n = name == NULL ? 0 : strnlen(name, FUNCTION_MAX);
	struct qy_dump *d = w->dump;

	qy_dump_begin(d, QY_DUMP_FRAME, 16 + n);
	if (!d->json) {
		qy_dump_put(d, number, 4);
		qy_dump_put(d, module, 4);
		qy_dump_put(d, offset, 8);
		qy_text_put(&d->out, name == NULL ? "" : name, n);
		return;
	}
	qy_text_format(&d->out, "{\"frame\":%zu,", number);
	if (module != NONE)
		qy_text_format(&d->out, "\"module\":%zu,", module);
	qy_text_format(&d->out, "\"offset\":%llu,\"function\":", long_of(offset));
	qy_print_json_string(&d->out, name == NULL ? "" : name, n);
	qy_text_format(&d->out, "}\n");
}

/* ---- stacks ---- */

/* The frame's number; the count of frames where there is none: its site came after they were looked at. */
static size_t frame_of(const struct work *w, uintptr_t call)
{
	size_t from = 0, to = w->count;

	while (from < to) {
		size_t middle = (from + to) / 2;

		if (w->addresses[middle] < call)
			from = middle + 1;
		else
			to = middle;
	}
	return from < w->count && w->addresses[from] == call ? from : w->count;
}

static bool is_known(const struct work *w, const struct qy_site *s)
{
	for (uint32_t i = 0; i < s->depth; i++)
		if (frame_of(w, call_of(s, i)) == w->count)
			return false;
	return true;
}

static size_t arena_of(const struct qy_dump *d, const struct qy_site *s)
{
	for (size_t i = 0; i < d->arena_count; i++)
		if (d->arenas[i] == &qy_arenas[s->arena])
			return i;
	return NONE;
}

static void dump_stack(void *ctx, const struct qy_site *s)
{
	const struct work *w = ctx;
	struct qy_dump *d = w->dump;
	struct qy_site_figures f;
	size_t arena = arena_of(d, s);

	qy_site_figures(s, &f);
	if (f.live == 0 || !is_known(w, s))
		return;
	qy_dump_begin(d, QY_DUMP_STACK, 40 + 4 * (uint64_t)s->depth);
	if (!d->json) {
		qy_dump_put(d, f.live, 8);
		qy_dump_put(d, f.live_objects, 8);
		qy_dump_put(d, f.live_bytes, 8);
		qy_dump_put(d, s->size, 8);
		qy_dump_put(d, arena, 4);
		qy_dump_put(d, (uint32_t)qy_site_node(s), 4);
		for (uint32_t i = 0; i < s->depth; i++)
			qy_dump_put(d, frame_of(w, call_of(s, i)), 4);
		return;
	}
	qy_text_format(&d->out, "{\"stack\":[");
	for (uint32_t i = 0; i < s->depth; i++)
		qy_text_format(&d->out, "%s%zu", i > 0 ? "," : "", frame_of(w, call_of(s, i)));
	qy_text_format(&d->out, "],\"samples\":%llu,\"objects\":%llu,\"bytes\":%llu,\"object_size\":%zu,", long_of(f.live),
		       long_of(f.live_objects), long_of(f.live_bytes), s->size);
	if (arena != NONE)
		qy_text_format(&d->out, "\"arena\":%zu,", arena);
	qy_text_format(&d->out, "\"node\":%d}\n", qy_site_node(s));
}

/* ---- all of it ---- */

static void count_frames(void *ctx, const struct qy_site *s)
{
	*(size_t *)ctx += s->depth;
}

static void note_frames(void *ctx, const struct qy_site *s)
{
	struct work *w = ctx;
	struct qy_site_figures f;

	qy_site_figures(s, &f);
	for (uint32_t i = 0; f.live > 0 && i < s->depth && w->count < w->room; i++)
		w->addresses[w->count++] = call_of(s, i);
}

static void dump_profile(struct qy_dump *d, uint64_t mean)
{
	uint64_t lost = atomic_load_explicit(&qy_samples_lost, memory_order_relaxed);

	qy_dump_begin(d, QY_DUMP_PROFILE, 16);
	if (d->json) {
		qy_text_format(&d->out, "{\"profile\":%llu,\"lost\":%llu}\n", long_of(mean), long_of(lost));
		return;
	}
	qy_dump_put(d, mean, 8);
	qy_dump_put(d, lost, 8);
}

bool qy_dump_stacks(struct qy_dump *d)
{
	uint64_t mean = atomic_load_explicit(&qy_sample_mean_last, memory_order_relaxed);
	size_t room = 0, bytes;
	struct work *w;

	if (mean == 0)
		return true;
	qy_sites_visit(count_frames, &room);
	bytes = qy_align_up(sizeof(*w) + (room + 1) * sizeof(uintptr_t), qy_os_page_size());
	w = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (w == MAP_FAILED)
		return false;
	w->dump = d;
	w->room = room;
	w->addresses = (void *)(w + 1);
	w->modules = qy_min(qy_objects(w->module, MODULES_MAX), MODULES_MAX);
	qy_sites_visit(note_frames, w);
	w->count = qy_sort_addresses(w->addresses, w->count);
	dump_profile(d, mean);
	for (size_t i = 0; i < w->modules; i++)
		dump_module(d, i, &w->module[i]);
	for (size_t i = 0; i < w->count; i++)
		dump_frame(w, i);
	qy_sites_visit(dump_stack, w);
	qy_os->munmap(w, bytes);
	return true;
}
