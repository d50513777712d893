/* SPDX-License-Identifier: MIT */
/* What the tests of blocks, managers, stacks and segments share. */
#ifndef QUARRY_TESTS_BLOCKS_H
#define QUARRY_TESTS_BLOCKS_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>

#include "include/quarry/block.h"
#include "tests/unit/model.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* It returns -1, with that errno. */
#define refused(call, error)                                                              \
	do {                                                                              \
		errno = 0;                                                                \
		cr_assert_eq((call), -1, "%s", #call);                                    \
		cr_assert_eq(errno, (error), "%s: errno %d", #call, errno);               \
	} while (0)

#endif
