/* SPDX-License-Identifier: MIT */
/* What `quarry help` and each command's --help say. */
#ifndef QUARRY_TOOLS_HELP_H
#define QUARRY_TOOLS_HELP_H

extern const char help_text[], run_text[], doctor_text[], map_text[], diff_text[], leaks_text[],
	heap_text[], flame_text[], top_text[], metrics_text[], version_text[], help_help_text[];

/* The list of options, as the library tells it. A status. */
int help_options(void);

#endif
