/* SPDX-License-Identifier: MIT */
#include "lib/base/tables.h"

#include <errno.h>
#include <sys/auxv.h>

#include "numa/os.h"

extern struct qy_table __start_qy_tables[] QY_HIDDEN, __stop_qy_tables[] QY_HIDDEN;

void qy_tables_begin(void)
{
	size_t page = qy_max(getauxval(AT_PAGESZ), 4096); /* (qy_os_page_size() writes down what it is) */
	int error = errno;

	for (const struct qy_table *t = __start_qy_tables; t < __stop_qy_tables; t++) {
		uintptr_t from = qy_align_up((uintptr_t)t->at, page), to = qy_align_down((uintptr_t)t->at + t->bytes, page);

		(void)qy_os->madvise((void *)from, to - from, QY_MADV_NOHUGEPAGE);
	}
	errno = error;
}
