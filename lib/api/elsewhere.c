/* SPDX-License-Identifier: MIT */
/* Whether another copy of quarry is the one that the program's calls of quarry_* reach. The public names are bound by
 * the dynamic linker to the first library that has them; this copy's own are known by hidden aliases. */
#include "include/quarry/quarry.h"
#include "lib/base/settings.h"

extern __typeof__(quarry_version) qy_own_version __attribute__((visibility("hidden")));

/* In data, so that the linker and not the compiler decides what it points to. */
static __typeof__(quarry_version) *volatile bound_version = quarry_version;

const struct qy_elsewhere *qy_find_elsewhere(void)
{
	static const struct qy_elsewhere elsewhere = { quarry_malloc, quarry_free };

	return bound_version == qy_own_version ? 0 : &elsewhere;
}
