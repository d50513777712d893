/* SPDX-License-Identifier: MIT */
/* Which functions, and which calls that were inlined in them, have an address. libdw would go through the whole unit for each
 * one (30 ms where a unit has 6,000 functions): here that is done once, and the ranges are searched. */
#ifndef QUARRY_TOOLS_FLAME_SCOPES_H
#define QUARRY_TOOLS_FLAME_SCOPES_H

#include <elfutils/libdw.h>

struct flame_scopes;

/* NULL without memory. */
struct flame_scopes *flame_scopes_begin(void);
void flame_scopes_end(struct flame_scopes *scopes);

/* The innermost first, as far as the function that is really there; how many (as many as there is room for, at most). */
unsigned flame_scopes_at(struct flame_scopes *scopes, Dwarf_Die *unit, Dwarf_Addr address, Dwarf_Die *found, unsigned room);

#endif
