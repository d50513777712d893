/* SPDX-License-Identifier: MIT */
/* The library's own large tables, of which a process touches some pages here and there: address space, not memory, as long
 * as they have no huge pages. Where THP is set to `always` (Debian's kernels), the zeroed memory of a program or library
 * that holds a whole aligned 2 MiB has one of those from its first touch on. */
#ifndef QUARRY_BASE_TABLES_H
#define QUARRY_BASE_TABLES_H

#include "lib/base/base.h"

struct qy_table { /* all of them, between __start_qy_tables and __stop_qy_tables */
	void *at;
	size_t bytes;
};

/* Beside the definition of each table from 512 KiB on. (Not const: a section has one kind.) */
#define QY_SPARSE_TABLE(table) \
	static struct qy_table table##_is_sparse __attribute__((used, section("qy_tables"))) = { (void *)(table), sizeof(table) }

/* (numa/tables.c.) Before anything is written to the library's zeroed memory; more than once does no harm. errno stays. */
void qy_tables_begin(void);

#endif
