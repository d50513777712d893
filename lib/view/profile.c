/* SPDX-License-Identifier: MIT */
/* The heap profile: switching it on and off, and writing it as text. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/view/profile.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/cache/sample.h"
#include "lib/base/settings.h"
#include "lib/manager/manager.h"
#include "lib/view/print.h"
#include "numa/os.h"
#include "numa/topology.h"

#define MAPS ((size_t)4 << 20) /* bytes of /proc/self/maps, at most */

extern __typeof__(dladdr) dladdr __attribute__((weak)); /* not in every static program */

/* ---- on and off ---- */

static int set_mean(long mean)
{
	char text[24];
	struct qy_text out;

	qy_init_once();
	qy_text_init(&out, text, sizeof(text), -1);
	qy_text_format(&out, "%ld", mean);
	return quarry_ctl_set("profile", text);
}

QUARRY_API int quarry_profile_start(size_t mean)
{
	if (mean > (size_t)1 << 30)
		return qy_fail(EINVAL, "mean: %zu bytes is more than 1 GiB", mean);
	return set_mean(mean == 0 ? (long)QUARRY_PROFILE_MEAN : (long)mean);
}

QUARRY_API int quarry_profile_stop(void)
{
	return set_mean(0);
}

QUARRY_API int quarry_profile_reset(void)
{
	qy_sites_reset();
	return 0;
}

/* ---- figures ---- */

static uint64_t read_sum(const _Atomic(uint64_t) *sum)
{
	return atomic_load_explicit((_Atomic(uint64_t) *)sum, memory_order_relaxed);
}

/* What was freed is counted after it was made: it is read first, and never more. */
static uint64_t without(uint64_t *made, const _Atomic(uint64_t) *all, const _Atomic(uint64_t) *freed)
{
	uint64_t gone = read_sum(freed);

	atomic_thread_fence(memory_order_acquire);
	*made = read_sum(all);
	return *made > gone ? *made - gone : 0;
}

static uint64_t rounded(uint64_t weight)
{
	return (weight + QY_WEIGHT_ONE / 2) / QY_WEIGHT_ONE;
}

void qy_site_figures(const struct qy_site *s, struct qy_site_figures *f)
{
	uint64_t made, live;

	f->live = without(&f->made, &s->made, &s->freed);
	live = without(&made, &s->made_weight, &s->freed_weight);
	f->asked_live = without(&f->asked, &s->asked, &s->asked_freed);
	f->made_objects = rounded(made);
	f->live_objects = rounded(live);
	f->made_bytes = (uint64_t)((double)made / QY_WEIGHT_ONE * (double)s->size);
	f->live_bytes = (uint64_t)((double)live / QY_WEIGHT_ONE * (double)s->size);
}

static void add_site(void *ctx, const struct qy_site *s)
{
	quarry_profile_report *r = ctx;
	struct qy_site_figures f;

	qy_site_figures(s, &f);
	r->sites++;
	r->samples += f.made;
	r->live += f.live;
	r->allocated_objects += f.made_objects;
	r->allocated_bytes += f.made_bytes;
	r->in_use_objects += f.live_objects;
	r->in_use_bytes += f.live_bytes;
}

QUARRY_API int quarry_profile_report_get(quarry_profile_report *report)
{
	quarry_profile_report r = { .struct_size = sizeof(r) };

	if (report == NULL || report->struct_size < sizeof(report->struct_size))
		return qy_fail(EINVAL, "report: NULL, or its struct_size is not set");
	r.mean = atomic_load_explicit(&qy_sample_mean, memory_order_relaxed);
	r.lost = read_sum(&qy_samples_lost);
	qy_sites_visit(add_site, &r);
	r.struct_size = (uint32_t)qy_min(report->struct_size, sizeof(r));
	memset(report, 0, report->struct_size);
	memcpy(report, &r, r.struct_size);
	return 0;
}

QUARRY_API int quarry_profile_stack(const void *p, void **frames, int max)
{
	struct qy_sample sample;

	if (p == NULL || !qy_sample_find(p, &sample))
		return qy_fail(ENOENT, "p: %p is no living sample of the profile", p);
	for (int i = 0; i < max && i < (int)sample.site->depth; i++)
		frames[i] = sample.site->frames[i];
	return (int)sample.site->depth;
}

/* ---- names ---- */

void qy_site_arena(const struct qy_site *s, char *name)
{
	struct qy_manager *m = qy_manager_of_arena(&qy_arenas[s->arena]);
	char own[QUARRY_ARENA_NAME_MAX] = "";
	struct qy_text out;

	qy_text_init(&out, name, QUARRY_ARENA_NAME_MAX, -1);
	if (m != NULL)
		qy_manager_name(m, own);
	if (own[0] == 0)
		qy_text_format(&out, "arena %u", s->arena);
	else
		qy_text_put(&out, own, strnlen(own, sizeof(own)));
}

int qy_site_node(const struct qy_site *s)
{
	return s->node < 0 ? -1 : qy_node_kernel_id(s->node);
}

const char *qy_frame_symbol(const void *address)
{
	Dl_info info;

	return dladdr && dladdr((const char *)address - 1, &info) != 0 ? info.dli_sname : NULL;
}

void qy_put_frame(struct qy_text *out, const void *address)
{
	Dl_info info;
	bool found = dladdr && dladdr((const char *)address - 1, &info) != 0;
	const char *name = !found ? NULL : info.dli_sname != NULL ? info.dli_sname : info.dli_fname;

	if (name == NULL) {
		qy_text_format(out, "%p", address);
		return;
	}
	if (info.dli_sname == NULL && strrchr(name, '/') != NULL)
		name = strrchr(name, '/') + 1;
	for (; *name != 0; name++)
		qy_text_format(out, "%c", *name == ';' || *name == ' ' || (unsigned char)*name < ' ' ? '_' : *name);
	if (info.dli_sname == NULL)
		qy_text_format(out, "+0x%zx", (size_t)((const char *)address - (const char *)info.dli_fbase));
}

/* ---- as text ---- */

struct writer {
	struct qy_text out;
	uint64_t mean;
};

static void put_collapsed(void *ctx, const struct qy_site *s)
{
	struct writer *w = ctx;
	struct qy_site_figures f;

	qy_site_figures(s, &f);
	if (f.live_bytes == 0)
		return;
	for (uint32_t i = s->depth; i-- > 0;) {
		qy_put_frame(&w->out, s->frames[i]);
		qy_text_format(&w->out, "%s", i > 0 ? ";" : "");
	}
	qy_text_format(&w->out, "%s %llu\n", s->depth == 0 ? "[unknown]" : "", (unsigned long long)f.live_bytes);
}

struct sum {
	uint64_t live, live_bytes, made, made_bytes;
};

/* (The samples' own figures: who reads it weighs them.) */
static void add_raw(void *ctx, const struct qy_site *s)
{
	struct sum *sum = ctx;
	struct qy_site_figures f;

	qy_site_figures(s, &f);
	sum->live += f.live;
	sum->live_bytes += f.live * s->size;
	sum->made += f.made;
	sum->made_bytes += f.made * s->size;
}

static void put_heap_line(struct qy_text *out, const struct sum *sum)
{
	qy_text_format(out, "%llu: %llu [%llu: %llu] @", (unsigned long long)sum->live,
		       (unsigned long long)sum->live_bytes, (unsigned long long)sum->made,
		       (unsigned long long)sum->made_bytes);
}

static void put_heap_site(void *ctx, const struct qy_site *s)
{
	struct writer *w = ctx;
	struct sum sum = { 0 };

	add_raw(&sum, s);
	if (sum.made == 0)
		return;
	put_heap_line(&w->out, &sum);
	for (uint32_t i = 0; i < s->depth; i++)
		qy_text_format(&w->out, " %p", s->frames[i]);
	qy_text_format(&w->out, "\n");
}

static int put_maps(struct qy_text *out)
{
	char *text = qy_os->mmap(NULL, MAPS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ssize_t n;

	if (text == MAP_FAILED) {
		errno = ENOMEM;
		return -1;
	}
	n = qy_os->read_file("/proc/self/maps", text, MAPS);
	qy_text_format(out, "\nMAPPED_LIBRARIES:\n");
	/* (More than there is room for ends with a line, too.) */
	while (n > 0 && text[n - 1] != '\n')
		n--;
	if (n > 0)
		qy_text_put(out, text, (size_t)n);
	qy_os->munmap(text, MAPS);
	return 0;
}

static int put_heap(struct writer *w)
{
	struct sum sum = { 0 };

	qy_sites_visit(add_raw, &sum);
	qy_text_format(&w->out, "heap profile: ");
	put_heap_line(&w->out, &sum);
	qy_text_format(&w->out, " heap_v2/%llu\n", (unsigned long long)w->mean);
	qy_sites_visit(put_heap_site, w);
	return put_maps(&w->out);
}

static void put_json_site(void *ctx, const struct qy_site *s)
{
	struct writer *w = ctx;
	struct qy_site_figures f;
	char arena[QUARRY_ARENA_NAME_MAX];

	qy_site_figures(s, &f);
	if (f.made == 0)
		return;
	qy_site_arena(s, arena);
	qy_text_format(&w->out, "{\"size\":%zu,\"arena\":", s->size);
	qy_print_json_string(&w->out, arena, strlen(arena));
	qy_text_format(&w->out,
		       ",\"node\":%d,\"samples\":%llu,\"live_samples\":%llu,\"objects\":%llu,\"bytes\":%llu,"
		       "\"live_objects\":%llu,\"live_bytes\":%llu,\"asked\":%llu,\"live_asked\":%llu,\"lived_ms\":{",
		       qy_site_node(s), (unsigned long long)f.made, (unsigned long long)f.live,
		       (unsigned long long)f.made_objects, (unsigned long long)f.made_bytes,
		       (unsigned long long)f.live_objects, (unsigned long long)f.live_bytes,
		       (unsigned long long)f.asked, (unsigned long long)f.asked_live);
	for (unsigned i = 0, most = 1; i < QY_SITE_LIVES; i++, most *= 10) {
		qy_text_format(&w->out, i + 1 < QY_SITE_LIVES ? "%s\"<%u\":" : "%s\">=%u\":", i > 0 ? "," : "",
			       i + 1 < QY_SITE_LIVES ? most : most / 10);
		qy_text_format(&w->out, "%llu", (unsigned long long)rounded(read_sum(&s->lives[i])));
	}
	qy_text_format(&w->out, "},\"stack\":[");
	for (uint32_t i = 0; i < s->depth; i++)
		qy_text_format(&w->out, "%s\"%p\"", i > 0 ? "," : "", s->frames[i]);
	qy_text_format(&w->out, "],\"names\":[");
	for (uint32_t i = 0; i < s->depth; i++) {
		char name[QY_FRAME_NAME];
		struct qy_text text;

		qy_text_init(&text, name, sizeof(name), -1);
		qy_put_frame(&text, s->frames[i]);
		qy_text_format(&w->out, "%s", i > 0 ? "," : "");
		qy_print_json_string(&w->out, name, text.used);
	}
	qy_text_format(&w->out, "]}\n");
}

QUARRY_API int quarry_profile_write(int fd, int format)
{
	char buffer[QY_PRINT_BUFFER];
	struct writer w = { .mean = atomic_load_explicit(&qy_sample_mean_last, memory_order_relaxed) };

	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	qy_init_once();
	qy_text_init(&w.out, buffer, sizeof(buffer), fd);
	switch (format) {
	case QUARRY_PROFILE_PPROF:
		if (qy_pprof_write(fd, w.mean) == 0)
			return 0;
		break;
	case QUARRY_PROFILE_HEAP:
		if (put_heap(&w) == 0 && qy_text_flush(&w.out) == 0)
			return 0;
		break;
	case QUARRY_PROFILE_COLLAPSED:
		qy_sites_visit(put_collapsed, &w);
		if (qy_text_flush(&w.out) == 0)
			return 0;
		break;
	case QUARRY_PROFILE_JSON:
		qy_sites_visit(put_json_site, &w);
		if (qy_text_flush(&w.out) == 0)
			return 0;
		break;
	default:
		return qy_fail(EINVAL, "format: %d is none of enum quarry_profile_format", format);
	}
	return qy_fail(errno, "fd: not all could be written to %d", fd);
}
