/* SPDX-License-Identifier: MIT */
/* Names for addresses, from the files that the profile names, as they are here and now. A file with another build id than
 * the profile's is not the one that ran: its names would be wrong, and are not used. */
#include "tools/flame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 4096 /* that are opened */

/* One for all parts of a file. */
struct file {
	struct flame_elf *elf;
	struct flame_dwarf *dwarf;
};

struct names {
	struct flame_profile *p;
	struct file files[FILES_MAX];
	size_t count;
	struct file **of_module; /* by the first of them */
};

static void open_file(struct file *f, struct flame_module *m)
{
	f->elf = m->path[0] == '/' ? flame_elf_open(m->path) : NULL;
	m->state = !f->elf ? FLAME_MISSING : m->id[0] == '\0' ? FLAME_UNPROVEN :
		   strcmp(m->id, flame_elf_id(f->elf)) == 0 ? FLAME_SAME : FLAME_REPLACED;
	if (f->elf && m->state != FLAME_REPLACED)
		f->dwarf = flame_dwarf_open(m->path, flame_elf_fd(f->elf));
}

/* (By the first module of a file.) */
static struct file *file_of(struct names *n, uint32_t module)
{
	struct file **f = &n->of_module[module];

	if (!*f && n->count < FILES_MAX) {
		*f = &n->files[n->count++];
		open_file(*f, &n->p->modules[module]);
	}
	return *f;
}

/* Where nothing is known: the file and where in it, as the library's own text forms have it (by the return address). */
static bool name_by_number(struct flame_profile *p, struct flame_place *place, uint32_t module, uint64_t within)
{
	char text[512];

	if (module == FLAME_NONE)
		snprintf(text, sizeof(text), "0x%" PRIx64, place->address + 1);
	else
		snprintf(text, sizeof(text), "%.400s+0x%" PRIx64, flame_module_name(p, module), within + 1);
	return flame_add_function_of(p, place, flame_add_function(p, text, strlen(text), module));
}

static bool name_by(struct flame_profile *p, struct flame_place *place, uint32_t module, const struct flame_frames *frames)
{
	for (unsigned i = 0; i < frames->count; i++) {
		const char *name = flame_demangle(frames->at[i].name);
		uint32_t function = flame_add_function(p, name, strlen(name), module);

		if (!flame_add_function_of(p, place, function))
			return false;
		if (frames->at[i].file && !p->functions[function].file)
			p->functions[function].file = flame_copy(p, frames->at[i].file, SIZE_MAX);
		place->line = frames->at[i].line > 0 ? (uint32_t)frames->at[i].line : 0;
	}
	return true;
}

/* What the function is called by others (__libc_start_main) rather than where it is written (__libc_start_main_impl). But
 * compilers name parts that they made of one (sort.part.0). */
static void name_by_symbol(struct flame_frames *frames, const char *symbol)
{
	if (!symbol || (frames->count > 0 && strchr(symbol, '.')))
		return;
	if (frames->count == 0) {
		frames->at[0].file = NULL;
		frames->at[0].line = 0;
		frames->count = 1;
	}
	frames->at[frames->count - 1].name = symbol;
}

static bool name_place(struct names *n, struct flame_place *place)
{
	const struct flame_module *m = place->module == FLAME_NONE ? NULL : &n->p->modules[place->module];
	uint32_t module = m ? m->same : FLAME_NONE;
	struct file *f = m ? file_of(n, module) : NULL;
	struct flame_frames frames = { .count = 0 };
	uint64_t offset = m ? place->address - m->from + m->offset : 0, address;

	if (!f || !f->elf || n->p->modules[module].state == FLAME_REPLACED || !flame_elf_address(f->elf, offset, &address))
		return name_by_number(n->p, place, module, offset);
	if (f->dwarf)
		(void)flame_dwarf_frames(f->dwarf, address, &frames);
	name_by_symbol(&frames, flame_elf_symbol(f->elf, address));
	if (frames.count == 0)
		return name_by_number(n->p, place, module, address - flame_elf_base(f->elf));
	return name_by(n->p, place, module, &frames);
}

bool flame_name(struct flame_profile *p)
{
	struct names *n = calloc(1, sizeof(*n));
	bool done = n != NULL;

	if (n) {
		n->p = p;
		n->of_module = calloc(p->module_count + 1, sizeof(struct file *));
		done = n->of_module != NULL;
	}
	for (size_t i = 0; done && i < p->place_count; i++)
		if (p->places[i].count == 0)
			done = name_place(n, &p->places[i]);
	for (size_t i = 0; n && i < n->count; i++) {
		flame_dwarf_close(n->files[i].dwarf);
		flame_elf_close(n->files[i].elf);
	}
	if (n)
		free(n->of_module);
	free(n);
	return done ? !p->error : flame_no_memory(p);
}
