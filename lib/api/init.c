/* SPDX-License-Identifier: MIT */
#include "lib/api/init.h"

#include "include/quarry/quarry.h"
#include "lib/cache/thread.h"

QUARRY_API unsigned quarry_version(void)
{
	return QUARRY_API_VERSION;
}

/* This copy's own, whatever the public name leads to (lib/api/elsewhere.c). */
extern __typeof__(quarry_version) qy_own_version __attribute__((alias("quarry_version"), visibility("hidden")));

QUARRY_API const char *quarry_version_string(void)
{
	return "0.1.0";
}

static const char *const take_in __attribute__((used)) = &qy_at_exit;

void qy_init_once(void)
{
	qy_start();
}

/* Before any thread can be there: what a free reads without a lock is written here, once. (In the malloc library the
 * first malloc comes sooner still.) */
static __attribute__((constructor)) void start_early(void)
{
	qy_start();
}
