/* SPDX-License-Identifier: MIT */
/* Who allocated what lives, in a dump: modules, frames in them, and stacks of those, as the profile has them when the dump is
 * written. Addresses are told by module and offset, so that two processes' dumps can be compared. */
#include <string.h>

#include "lib/cache/sample.h"
#include "lib/view/dump.h"
#include "lib/view/frames.h"
#include "lib/view/print.h"

#define FUNCTION_MAX 1023 /* bytes of a name; the rest is left out */
#define NONE UINT32_MAX   /* no module, no arena */

struct work {
	struct qy_dump *dump;
	const struct qy_frames *frames;
};

static unsigned long long long_of(uint64_t n)
{
	return n;
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

static void dump_frame(const struct work *w, size_t number)
{
	const struct qy_frames *f = w->frames;
	uintptr_t call = f->call[number];
	size_t module = qy_frame_module(f, call);
	bool known = module < f->modules;
	uint64_t offset = known ? call - f->module[module].from + f->module[module].offset : call;
	const char *name = qy_frame_symbol((const void *)(call + 1));
	size_t n = name == NULL ? 0 : strnlen(name, FUNCTION_MAX);
	struct qy_dump *d = w->dump;

	qy_dump_begin(d, QY_DUMP_FRAME, 16 + n);
	if (!d->json) {
		qy_dump_put(d, number, 4);
		qy_dump_put(d, known ? module : NONE, 4);
		qy_dump_put(d, offset, 8);
		qy_text_put(&d->out, name == NULL ? "" : name, n);
		return;
	}
	qy_text_format(&d->out, "{\"frame\":%zu,", number);
	if (known)
		qy_text_format(&d->out, "\"module\":%zu,", module);
	qy_text_format(&d->out, "\"offset\":%llu,\"function\":", long_of(offset));
	qy_print_json_string(&d->out, name == NULL ? "" : name, n);
	qy_text_format(&d->out, "}\n");
}

/* ---- stacks ---- */

static void dump_stack(void *ctx, const struct qy_site *s)
{
	const struct work *w = ctx;
	struct qy_dump *d = w->dump;
	struct qy_site_figures f;
	uint32_t arena = d->arena_number[s->arena] - 1; /* NONE: nothing is in it any more */

	qy_site_figures(s, &f);
	if (f.live == 0 || !qy_frames_know(w->frames, s))
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
			qy_dump_put(d, qy_frame_number(w->frames, qy_call_of(s, i)), 4);
		return;
	}
	qy_text_format(&d->out, "{\"stack\":[");
	for (uint32_t i = 0; i < s->depth; i++)
		qy_text_format(&d->out, "%s%zu", i > 0 ? "," : "", qy_frame_number(w->frames, qy_call_of(s, i)));
	qy_text_format(&d->out, "],\"samples\":%llu,\"objects\":%llu,\"bytes\":%llu,\"object_size\":%zu,", long_of(f.live),
		       long_of(f.live_objects), long_of(f.live_bytes), s->size);
	if (arena != NONE)
		qy_text_format(&d->out, "\"arena\":%u,", arena);
	qy_text_format(&d->out, "\"node\":%d}\n", qy_site_node(s));
}

/* ---- all of it ---- */

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
	struct qy_frames *f;
	struct work w;

	if (mean == 0)
		return true;
	f = qy_frames_get(true);
	if (f == NULL)
		return false;
	w = (struct work){ d, f };
	dump_profile(d, mean);
	for (size_t i = 0; i < f->modules; i++)
		dump_module(d, i, &f->module[i]);
	for (size_t i = 0; i < f->count; i++)
		dump_frame(&w, i);
	qy_sites_visit(dump_stack, &w);
	qy_frames_put(f);
	return true;
}
