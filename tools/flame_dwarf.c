/* SPDX-License-Identifier: MIT */
/* Names by libdw (elfutils): separate debug files, what was inlined, and lines. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/flame.h"

#if QUARRY_LIBDW
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/flame_scopes.h"

struct flame_dwarf {
	Dwfl *all;
	Dwfl_Module *module;
	GElf_Addr bias; /* from the file's addresses to libdw's */
	struct flame_scopes *scopes;
};

bool flame_has_libdw(void)
{
	return true;
}

/* (libdw would ask servers for debug information where the system names some to all programs: a profile would tell them which
 * programs are here, and drawing one would take as long as they do.) */
struct flame_dwarf *flame_dwarf_open(const char *path, int fd)
{
	static const Dwfl_Callbacks calls = { .find_debuginfo = dwfl_standard_find_debuginfo,
					      .section_address = dwfl_offline_section_address };
	struct flame_dwarf *dwarf = calloc(1, sizeof(*dwarf));
	int own = dup(fd); /* libdw closes it */

	(void)unsetenv("DEBUGINFOD_URLS");
	if (dwarf) {
		dwarf->all = dwfl_begin(&calls);
		dwarf->scopes = flame_scopes_begin();
	}
	if (dwarf && dwarf->all && dwarf->scopes && own >= 0)
		dwarf->module = dwfl_report_offline(dwarf->all, path, path, own);
	if (dwarf && dwarf->module && dwfl_report_end(dwarf->all, NULL, NULL) == 0 &&
	    dwfl_module_getelf(dwarf->module, &dwarf->bias))
		return dwarf;
	if (own >= 0 && (!dwarf || !dwarf->module))
		close(own);
	flame_dwarf_close(dwarf);
	return NULL;
}

void flame_dwarf_close(struct flame_dwarf *dwarf)
{
	if (dwarf) {
		flame_scopes_end(dwarf->scopes);
		if (dwarf->all)
			dwfl_end(dwarf->all);
	}
	free(dwarf);
}

/* ---- frames ---- */

static void add(struct flame_frames *found, const char *name, const char *file, int line)
{
	if (found->count == sizeof(found->at) / sizeof(found->at[0]))
		return;
	found->at[found->count].name = name;
	found->at[found->count].file = file;
	found->at[found->count++].line = line;
}

/* As the linker knows it, so that what has no debug information gets the same. */
static const char *name_of(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	const char *name = NULL;

	if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute))
		name = dwarf_formstring(&attribute);
	return name ? name : dwarf_diename(die);
}

static int line_of_call(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	Dwarf_Word line;

	if (!dwarf_attr(die, DW_AT_call_line, &attribute) || dwarf_formudata(&attribute, &line) != 0)
		return 0;
	return line < INT32_MAX ? (int)line : 0;
}

static const char *file_of_call(Dwarf_Die *die, Dwarf_Die *unit)
{
	Dwarf_Attribute attribute;
	Dwarf_Files *files;
	Dwarf_Word file;
	size_t count;

	if (!dwarf_attr(die, DW_AT_call_file, &attribute) || dwarf_formudata(&attribute, &file) != 0 ||
	    dwarf_getsrcfiles(unit, &files, &count) != 0 || file >= count)
		return NULL;
	return dwarf_filesrc(files, file, NULL, NULL);
}

/* From what was inlined outwards as far as the function that is really there. */
static void add_scopes(struct flame_frames *found, struct flame_dwarf *dwarf, Dwarf_Die *unit, Dwarf_Addr address,
		       const char *file, int line)
{
	Dwarf_Die at[sizeof(found->at) / sizeof(found->at[0])];
	unsigned count = flame_scopes_at(dwarf->scopes, unit, address, at, sizeof(at) / sizeof(at[0]));

	for (unsigned i = 0; i < count; i++) {
		const char *name = name_of(&at[i]);

		if (name)
			add(found, name, file, line);
		file = file_of_call(&at[i], unit);
		line = line_of_call(&at[i]);
	}
}

bool flame_dwarf_frames(struct flame_dwarf *dwarf, uint64_t address, struct flame_frames *found)
{
	Dwarf_Addr bias = 0;
	Dwarf_Die *unit = dwfl_module_addrdie(dwarf->module, address + dwarf->bias, &bias);
	Dwfl_Line *line = dwfl_module_getsrc(dwarf->module, address + dwarf->bias);
	const char *file, *name;
	GElf_Off offset;
	GElf_Sym symbol;
	int number = 0;

	found->count = 0;
	file = line ? dwfl_lineinfo(line, NULL, &number, NULL, NULL, NULL) : NULL;
	if (unit)
		add_scopes(found, dwarf, unit, address + dwarf->bias - bias, file, number);
	if (found->count > 0)
		return true;
	name = dwfl_module_addrinfo(dwarf->module, address + dwarf->bias, &offset, &symbol, NULL, NULL, NULL);
	/* (It names the last symbol before, however far it is.) */
	if (!name || offset >= symbol.st_size)
		return false;
	add(found, name, NULL, 0);
	return true;
}

#else

bool flame_has_libdw(void)
{
	return false;
}

struct flame_dwarf *flame_dwarf_open(const char *path, int fd)
{
	(void)path;
	(void)fd;
	return NULL;
}

void flame_dwarf_close(struct flame_dwarf *dwarf)
{
	(void)dwarf;
}

bool flame_dwarf_frames(struct flame_dwarf *dwarf, uint64_t address, struct flame_frames *found)
{
	(void)dwarf;
	(void)address;
	(void)found;
	return false;
}
#endif
