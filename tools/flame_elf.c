/* SPDX-License-Identifier: MIT */
/* A program or library as far as names of addresses go: its build id, where its parts are, its symbols. It is read, not
 * mapped, as it may be cut short meanwhile. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/flame.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PARTS_MAX 128
#define ID_MAX 64 /* bytes */
#define NOTES_MAX 65536

struct symbol {
	uint64_t address, size;
	uint32_t name;
	uint8_t binding;
};

struct flame_elf {
	int fd;
	uint64_t size;
	Elf64_Ehdr head;
	Elf64_Phdr parts[PARTS_MAX];
	char id[2 * ID_MAX + 1];
	bool symbols_read;
	struct symbol *symbols; /* by address */
	size_t symbol_count;
	char *names;
	size_t names_size;
};

static bool read_at(const struct flame_elf *elf, uint64_t at, void *to, size_t n)
{
	return at <= elf->size && n <= elf->size - at && pread(elf->fd, to, n, (off_t)at) == (ssize_t)n;
}

/* In memory of its own, with a 0 behind it; NULL when it is not all there. */
static void *read_part(const struct flame_elf *elf, uint64_t at, uint64_t n)
{
	char *to = at <= elf->size && n <= elf->size - at ? malloc(n + 1) : NULL;

	if (to && !read_at(elf, at, to, n)) {
		free(to);
		return NULL;
	}
	if (to)
		to[n] = '\0';
	return to;
}

/* ---- the build id ---- */

static uint64_t padded(uint64_t n)
{
	return (n + 3) & ~(uint64_t)3;
}

static void read_notes(struct flame_elf *elf, const Elf64_Phdr *part)
{
	uint64_t at = 0, size = part->p_filesz < NOTES_MAX ? part->p_filesz : NOTES_MAX;
	char *notes = read_part(elf, part->p_offset, size);
	Elf64_Nhdr note;

	while (notes && size - at > sizeof(note)) {
		uint64_t name = at + sizeof(note), body;

		memcpy(&note, notes + at, sizeof(note));
		body = name + padded(note.n_namesz);
		if (body > size || note.n_descsz > size - body)
			break;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(notes + name, "GNU", 4) == 0 &&
		    note.n_descsz <= ID_MAX)
			for (uint32_t i = 0; i < note.n_descsz; i++) {
				elf->id[2 * i] = "0123456789abcdef"[(uint8_t)notes[body + i] >> 4];
				elf->id[2 * i + 1] = "0123456789abcdef"[notes[body + i] & 15];
			}
		at = body + padded(note.n_descsz);
		if (at > size)
			break;
	}
	free(notes);
}

/* ---- the file ---- */

static bool read_head(struct flame_elf *elf)
{
	Elf64_Ehdr *h = &elf->head;

	if (!read_at(elf, 0, h, sizeof(*h)) || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 ||
	    h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum > PARTS_MAX)
		return false;
	if (!read_at(elf, h->e_phoff, elf->parts, h->e_phnum * sizeof(Elf64_Phdr)))
		return false;
	for (unsigned i = 0; i < h->e_phnum; i++)
		if (elf->parts[i].p_type == PT_NOTE && elf->id[0] == '\0')
			read_notes(elf, &elf->parts[i]);
	return true;
}

/* (Opened so that a pipe or a device that somebody calls a program does nothing.) */
struct flame_elf *flame_elf_open(const char *path)
{
	struct flame_elf *elf = calloc(1, sizeof(*elf));
	struct stat is;

	if (!elf)
		return NULL;
	elf->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (elf->fd >= 0 && fstat(elf->fd, &is) == 0 && S_ISREG(is.st_mode)) {
		elf->size = (uint64_t)is.st_size;
		if (read_head(elf))
			return elf;
	}
	flame_elf_close(elf);
	return NULL;
}

void flame_elf_close(struct flame_elf *elf)
{
	if (!elf)
		return;
	if (elf->fd >= 0)
		close(elf->fd);
	free(elf->symbols);
	free(elf->names);
	free(elf);
}

int flame_elf_fd(const struct flame_elf *elf)
{
	return elf->fd;
}

const char *flame_elf_id(const struct flame_elf *elf)
{
	return elf->id;
}

bool flame_elf_address(const struct flame_elf *elf, uint64_t offset, uint64_t *address)
{
	for (unsigned i = 0; i < elf->head.e_phnum; i++) {
		const Elf64_Phdr *part = &elf->parts[i];

		if (part->p_type == PT_LOAD && offset - part->p_offset < part->p_filesz) {
			*address = offset - part->p_offset + part->p_vaddr;
			return true;
		}
	}
	return false;
}

uint64_t flame_elf_base(const struct flame_elf *elf)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < elf->head.e_phnum; i++)
		if (elf->parts[i].p_type == PT_LOAD && elf->parts[i].p_vaddr < least)
			least = elf->parts[i].p_vaddr & ~(uint64_t)4095;
	return least == UINT64_MAX ? 0 : least;
}

/* ---- symbols ---- */

/* Of those at one address, what other files can name comes last. */
static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	if (x->binding != y->binding)
		return x->binding == STB_GLOBAL ? 1 : y->binding == STB_GLOBAL ? -1 : x->binding - y->binding;
	return x->name < y->name ? 1 : -1;
}

static void take_symbols(struct flame_elf *elf, const Elf64_Sym *list, size_t count)
{
	elf->symbols = malloc((count + 1) * sizeof(*elf->symbols));
	for (size_t i = 0; elf->symbols && i < count; i++) {
		const Elf64_Sym *s = &list[i];
		unsigned type = ELF64_ST_TYPE(s->st_info);

		if ((type == STT_FUNC || type == STT_GNU_IFUNC) && s->st_shndx != SHN_UNDEF && s->st_name < elf->names_size)
			elf->symbols[elf->symbol_count++] = (struct symbol){ s->st_value, s->st_size, s->st_name,
									     ELF64_ST_BIND(s->st_info) };
	}
	if (elf->symbol_count)
		qsort(elf->symbols, elf->symbol_count, sizeof(*elf->symbols), by_address);
}

/* All there are, or else those for the dynamic linker. */
static void read_symbols(struct flame_elf *elf)
{
	unsigned count = elf->head.e_shnum;
	Elf64_Shdr *sections = read_part(elf, elf->head.e_shoff, (uint64_t)count * sizeof(*sections)), *found = NULL;
	Elf64_Sym *list;

	elf->symbols_read = true;
	if (!sections || elf->head.e_shentsize != sizeof(*sections)) {
		free(sections);
		return;
	}
	for (unsigned i = 0; i < count; i++)
		if (sections[i].sh_type == SHT_SYMTAB || (sections[i].sh_type == SHT_DYNSYM && !found))
			found = &sections[i];
	if (found && found->sh_link < count) {
		elf->names_size = sections[found->sh_link].sh_size;
		elf->names = read_part(elf, sections[found->sh_link].sh_offset, elf->names_size);
		list = elf->names ? read_part(elf, found->sh_offset, found->sh_size) : NULL;
		if (list)
			take_symbols(elf, list, found->sh_size / sizeof(*list));
		free(list);
	}
	free(sections);
}

const char *flame_elf_symbol(struct flame_elf *elf, uint64_t address)
{
	size_t from = 0, to;

	if (!elf->symbols_read)
		read_symbols(elf);
	for (to = elf->symbol_count; from < to;) {
		size_t middle = from + (to - from) / 2;

		if (elf->symbols[middle].address <= address)
			from = middle + 1;
		else
			to = middle;
	}
	if (from == 0)
		return NULL;
	return address - elf->symbols[from - 1].address < elf->symbols[from - 1].size ?
		       elf->names + elf->symbols[from - 1].name : NULL;
}
