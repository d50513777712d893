/* SPDX-License-Identifier: MIT */
#include "lib/manager/class.h"

/* Slabs hold at least eight objects: they are one unit up to 8 KiB, two up to 16 KiB, where that leaves no more than a
 * 16th part unused, and else four. (With four for all above 8 KiB, two threads that use many sizes had 5 % more. What
 * it costs is a slab's end: 6 % of it unused for 10, 11, 12 and 15 KiB instead of 2, which counts in huge pages.) */
#define UNITS(size) ((size) <= 8192 ? 1u : (size) <= 16384 && 2 * QY_UNIT % (size) <= QY_UNIT / 8 ? 2u : 4u)
#define CARVE(size) ((size) >= QY_CARVE ? 1u : QY_CARVE / (size))
/* So many bytes, and no fewer and no more objects than that. */
#define WITHIN(count, least, most) (uint16_t)((count) < (least) ? (least) : (count) > (most) ? (most) : (count))
#define KEEP(size) ((size) <= 1024 ? WITHIN(8192 / (size), 16, 128) : WITHIN(131072 / (size), 4, 32))
#define KEEP_MAX(size) ((size) <= 1024 ? WITHIN(65536 / (size), 64, 1024) : WITHIN(524288 / (size), 16, 64))
#define CLASS(size)                                                                                              \
	{                                                                                                        \
		(size), (uint32_t)(UNITS(size) * QY_UNIT / (size)), (((uint64_t)1 << 40) + (size)-1) / (size), \
			CARVE(size), UNITS(size), KEEP(size), KEEP_MAX(size), QY_WEIGHT(size)                    \
	}
#define DOUBLING(from)                                                                                         \
	CLASS((from) / 8 * 9), CLASS((from) / 8 * 10), CLASS((from) / 8 * 11), CLASS((from) / 8 * 12),         \
		CLASS((from) / 8 * 13), CLASS((from) / 8 * 14), CLASS((from) / 8 * 15), CLASS((from)*2)

const struct qy_class qy_classes[QY_CLASSES] = {
	CLASS(16),      CLASS(32),      CLASS(48),      CLASS(64),      CLASS(80),       CLASS(96),
	CLASS(112),     CLASS(128),     DOUBLING(128),  DOUBLING(256),  DOUBLING(512),   DOUBLING(1024),
	DOUBLING(2048), DOUBLING(4096), DOUBLING(8192), DOUBLING(16384),
};

/* i stands for sizes up to 16 * i. The classes are 1 apart up to 256 bytes, then 2 and 4 table slots each. */
#define SAME2(c) (c), (c)
#define SAME4(c) (c), (c), (c), (c)

const uint8_t qy_class_table[QY_TABLE_MAX / 16 + 1] = {
	0,         0,         1,         2,         3,         4,         5,         6,         7,
	8,         9,         10,        11,        12,        13,        14,        15,        SAME2(16),
	SAME2(17), SAME2(18), SAME2(19), SAME2(20), SAME2(21), SAME2(22), SAME2(23), SAME4(24), SAME4(25),
	SAME4(26), SAME4(27), SAME4(28), SAME4(29), SAME4(30), SAME4(31),
};
