/* SPDX-License-Identifier: MIT */
/* `quarry heap`: heaps in files. The command is tools/heapfile.c; what `info` prints is tools/heapfile_info.c. */
#ifndef QUARRY_TOOLS_HEAPFILE_H
#define QUARRY_TOOLS_HEAPFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "include/quarry/mapped.h"
#include "tools/map.h"

struct heapfile_arguments {
	const char *verb, *file;
	const char *other; /* of -o or -i; NULL or "-": standard output or input */
	bool json, all, ascii, utf8, read_only;
};

/* "0123abcd-...", in the caller's. */
void heapfile_uuid(const unsigned char uuid[16], char text[37]);
/* What went wrong in the library just now, by errno and its text. A status. */
int heapfile_failed(const struct heapfile_arguments *args);
/* A status. */
int heapfile_info(quarry_mapped *heap, const struct heapfile_arguments *args);

#endif
