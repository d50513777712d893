/* SPDX-License-Identifier: MIT */
/* What rules of suppression say, as LeakSanitizer has them: lines "leak:PATTERN". Text alone, and nothing else of quarry's:
 * the command, which knows more names than the library, compiles it as well. */
#ifndef QUARRY_VIEW_RULES_H
#define QUARRY_VIEW_RULES_H

#include <stdbool.h>
#include <stddef.h>

/* The patterns one after the other, each ended by 0, an empty one at the end, into length + 2 bytes. 0; or the number of the line
 * that is no rule. */
unsigned qy_rules_copy(const char *text, size_t length, char *to);

/* The first of them that a name has in it; NULL: none. */
const char *qy_rules_match(const char *rules, const char *name);

#endif
