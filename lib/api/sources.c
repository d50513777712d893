/* SPDX-License-Identifier: MIT */
#include "lib/api/sources.h"

static const struct qy_lanes_source *lanes;

void qy_lanes_source_set(const struct qy_lanes_source *source)
{
	__atomic_store_n(&lanes, source, __ATOMIC_RELEASE);
}

const struct qy_lanes_source *qy_lanes_source(void)
{
	return __atomic_load_n(&lanes, __ATOMIC_ACQUIRE);
}

QUARRY_API const char *quarry_move_name(int why)
{
	static const char *const names[QUARRY_MOVES] = {
		[QUARRY_MOVED_PACKED] = "packed",         [QUARRY_MOVED_NODE] = "node",
		[QUARRY_MOVED_AGE] = "age",               [QUARRY_MOVED_SIZE] = "size",
		[QUARRY_MOVED_USAGE] = "usage",           [QUARRY_MOVED_FAILURE] = "failure",
		[QUARRY_MOVED_COMPACTION] = "compaction", [QUARRY_MOVED_CALL] = "call",
		[QUARRY_MOVED_DEMOTED] = "demoted",       [QUARRY_MOVED_COOLED] = "cooled",
		[QUARRY_MOVED_REFAULTED] = "refaulted",
	};

	return why >= 0 && why < QUARRY_MOVES ? names[why] : NULL;
}
