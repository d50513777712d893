/* SPDX-License-Identifier: MIT */
/* What is loaded, for who makes names of addresses: the program, shared libraries, and the vdso, by what the dynamic
 * linker tells of them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <link.h>
#include <string.h>
#include <unistd.h>

#include "lib/view/profile.h"

extern __typeof__(dl_iterate_phdr) dl_iterate_phdr __attribute__((weak)); /* not in every static program */

struct list {
	struct qy_object *at;
	size_t count, max;
	bool program_seen;
};

#define NT_BUILD_ID 3 /* NT_GNU_BUILD_ID */

/* Notes stand one after the other: two lengths, a type, a name and what it is, each padded. */
static void take_build_id(struct qy_object *o, const char *notes, size_t bytes, size_t align)
{
	align = align == 8 ? 8 : 4;
	while (bytes >= sizeof(ElfW(Nhdr))) {
		ElfW(Nhdr) head;
		size_t name, body;

		memcpy(&head, notes, sizeof(head));
		name = sizeof(head);
		body = qy_align_up(name + head.n_namesz, align);
		if (body > bytes || head.n_descsz > bytes - body)
			return;
		if (head.n_type == NT_BUILD_ID && head.n_namesz == 4 && memcmp(notes + name, "GNU", 4) == 0) {
			o->id_length = (unsigned)qy_min(head.n_descsz, sizeof(o->id));
			memcpy(o->id, notes + body, o->id_length);
			return;
		}
		body = qy_align_up(body + head.n_descsz, align);
		if (body >= bytes)
			return;
		notes += body;
		bytes -= body;
	}
}

static void take_name(struct qy_object *o, const char *name, bool program)
{
	ssize_t n;

	strncpy(o->name, name, sizeof(o->name) - 1);
	if (name[0] != 0 || !program)
		return;
	n = readlink("/proc/self/exe", o->name, sizeof(o->name) - 1);
	o->name[n < 0 ? 0 : n] = 0;
}

static int take(struct dl_phdr_info *info, size_t size, void *ctx)
{
	struct list *list = ctx;
	struct qy_object like = { .from = 0 };

	(void)size;
	take_name(&like, info->dlpi_name == NULL ? "" : info->dlpi_name, !list->program_seen);
	list->program_seen = true;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];

		if (part->p_type == PT_NOTE && like.id_length == 0)
			take_build_id(&like, (const char *)(info->dlpi_addr + part->p_vaddr), part->p_memsz,
				      part->p_align);
	}
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		size_t page = 4096, slack = part->p_vaddr & (page - 1);

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
			continue;
		like.from = info->dlpi_addr + part->p_vaddr - slack;
		like.to = qy_align_up(info->dlpi_addr + part->p_vaddr + part->p_memsz, page);
		like.offset = part->p_offset - slack;
		if (list->count < list->max)
			list->at[list->count] = like;
		list->count++;
	}
	return 0;
}

size_t qy_objects(struct qy_object *objects, size_t max)
{
	struct list list = { .at = objects, .max = max };

	if (dl_iterate_phdr)
		dl_iterate_phdr(take, &list);
	return list.count;
}
