/* SPDX-License-Identifier: MIT */
/* Handle indirection: a number in place of an address. So objects can be moved together while the program goes on, and a
 * handle of what was freed is known for what it is. */
#include <errno.h>
#include <stdio.h>

#include <quarry/lanes.h>

#define ROWS 40000

struct row {
	long number;
	char text[1000];
};

QUARRY_HANDLE_TYPE(row_ref, struct row);

static row_ref rows[ROWS];

static int fill(quarry_lanes *table)
{
	for (long i = 0; i < ROWS; i++) {
		struct row *row;

		rows[i] = row_ref_make(table);
		quarry_enter(); /* addresses are for a scope: in the next one they may be others */
		row = row_ref_get_mut(table, rows[i]);
		if (row != NULL)
			row->number = i;
		quarry_leave();
		if (row == NULL)
			return -1;
	}
	return 0;
}

static long sum(quarry_lanes *table)
{
	long all = 0;

	for (int i = 0; i < ROWS; i++) {
		const struct row *row;

		quarry_enter();
		row = row_ref_get(table, rows[i]);
		all += row == NULL ? 0 : row->number;
		quarry_leave();
	}
	return all;
}

static uint64_t held(quarry_lanes *table)
{
	quarry_lanes_stats s = { 0 };

	return quarry_lanes_stats_get(table, &s) == 0 ? s.held >> 20 : 0;
}

int main(void)
{
	quarry_lanes *table = quarry_lanes_create(NULL);
	long before, after;
	uint64_t full, packed;

	if (table == NULL || fill(table) != 0) {
		printf("handles: %s\n", quarry_error_text());
		return 1;
	}
	for (int i = 0; i < ROWS; i++)
		if (i % 10 != 0)
			(void)row_ref_free(table, rows[i]);
	before = sum(table);
	full = held(table);
	if (quarry_compact(table, QUARRY_COMPACT_FULL, 0, 0) < 0)
		return 1;
	after = sum(table);
	packed = held(table);
	printf("a tenth is left: the same sum at other addresses: %s\n", before == after ? "yes" : "no");
	printf("and less memory for it: %s\n", packed * 2 < full ? "yes" : "no");
	if (row_ref_free(table, rows[1]) != 0 && errno == ESTALE)
		printf("a handle of what was freed is stale\n");
	return quarry_lanes_destroy(table) != 0 || before != after || packed * 2 >= full;
}
