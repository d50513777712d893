/* SPDX-License-Identifier: MIT */
#include "lib/view/frames.h"

#include <errno.h>
#include <sys/mman.h>

#include "lib/view/sort.h"
#include "numa/os.h"

struct notes {
	struct qy_frames *frames;
	bool living;
};

uintptr_t qy_call_of(const struct qy_site *s, uint32_t frame)
{
	return (uintptr_t)s->frames[frame] - 1;
}

static void count_frames(void *ctx, const struct qy_site *s)
{
	*(size_t *)ctx += s->depth;
}

static void note_frames(void *ctx, const struct qy_site *s)
{
	struct notes *notes = ctx;
	struct qy_frames *f = notes->frames;
	struct qy_site_figures figures;

	qy_site_figures(s, &figures);
	if (notes->living && figures.live == 0)
		return;
	for (uint32_t i = 0; i < s->depth && f->count < f->room; i++)
		f->call[f->count++] = qy_call_of(s, i);
}

static uint64_t key_of_address(const void *address)
{
	return *(const uintptr_t *)address;
}

static void put_in_order(struct qy_frames *f)
{
	size_t kept = 0;

	qy_sort(f->call, f->count, sizeof(f->call[0]), key_of_address);
	for (size_t i = 0; i < f->count; i++)
		if (kept == 0 || f->call[kept - 1] != f->call[i])
			f->call[kept++] = f->call[i];
	f->count = kept;
}

static void note_modules(struct qy_frames *f)
{
	f->modules = qy_min(qy_objects(f->module, QY_MODULES_MAX), QY_MODULES_MAX);
	for (size_t i = 0; i < f->modules; i++) {
		f->order[i].from = f->module[i].from;
		f->order[i].number = i;
	}
	/* (Its address is what an entry begins with.) */
	qy_sort(f->order, f->modules, sizeof(f->order[0]), key_of_address);
}

struct qy_frames *qy_frames_get(bool living)
{
	struct notes notes = { .living = living };
	size_t room = 0, bytes;
	struct qy_frames *f;

	qy_sites_visit(count_frames, &room);
	bytes = qy_align_up(sizeof(*f) + (room + 1) * sizeof(f->call[0]), qy_os_page_size());
	f = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f == MAP_FAILED) {
		errno = ENOMEM;
		return NULL;
	}
	f->mapped = bytes;
	f->room = room;
	f->call = (void *)(f + 1);
	notes.frames = f;
	qy_sites_visit(note_frames, &notes);
	put_in_order(f);
	note_modules(f);
	return f;
}

void qy_frames_put(struct qy_frames *f)
{
	qy_os->munmap(f, f->mapped);
}

size_t qy_frame_number(const struct qy_frames *f, uintptr_t call)
{
	size_t from = 0, to = f->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (f->call[middle] < call)
			from = middle + 1;
		else
			to = middle;
	}
	return from < f->count && f->call[from] == call ? from : f->count;
}

bool qy_frames_know(const struct qy_frames *f, const struct qy_site *s)
{
	for (uint32_t i = 0; i < s->depth; i++)
		if (qy_frame_number(f, qy_call_of(s, i)) == f->count)
			return false;
	return true;
}

size_t qy_frame_module(const struct qy_frames *f, uintptr_t call)
{
	size_t from = 0, to = f->modules, number;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (f->order[middle].from <= call)
			from = middle + 1;
		else
			to = middle;
	}
	if (from == 0)
		return f->modules;
	number = f->order[from - 1].number;
	return call < f->module[number].to ? number : f->modules;
}
