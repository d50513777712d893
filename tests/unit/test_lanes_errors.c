/* SPDX-License-Identifier: MIT */
/* Each error of lanes' functions by its number, and by a text that names its cause and is not an earlier one's. */
#include <stdint.h>

#include "tests/unit/lanes.h"

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

/* Another error, whose text nobody is to be told later. */
static void fail_otherwise(void)
{
	errno = 0;
	cr_assert(quarry_lanes_preset(NULL, 77) == -1 && errno == EINVAL);
}

static bool says(int error, const char *what)
{
	bool right = errno == error && strstr(quarry_error_text(), what) != NULL;

	if (!right)
		cr_log_error("errno %d: %s (and not %d: %s)", errno, quarry_error_text(), error, what);
	return right;
}

#define REFUSED(call, error, what) \
	do { \
		fail_otherwise(); \
		cr_assert((call), "%s", #call); \
		cr_expect(says((error), (what)), "%s", #call); \
	} while (0)

Test(lanes_errors, of_objects_that_cannot_be)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_lanes_attr few = { .flags = QUARRY_LANES_NO_MOVER, .handles = 512 };
	quarry_lanes *small = lanes_made(&few);

	REFUSED(quarry_halloc(NULL, 1) == 0, EINVAL, "no lanes");
	REFUSED(quarry_halloc(l, 0) == 0, EINVAL, "size");
	REFUSED(quarry_halloc(l, SIZE_MAX) == 0, ENOMEM, "no memory");
	REFUSED(quarry_halloc_typed(l, 8, 3, 0) == 0, EINVAL, "alignment");
	REFUSED(quarry_halloc_typed(l, 8, (size_t)4 << 20, 0) == 0, EINVAL, "alignment");
	REFUSED(quarry_halloc_typed(l, 8, 0, 256) == 0, EINVAL, "type");
	for (int i = 0; i < 10000 && quarry_halloc(small, 8) != 0; i++)
		;
	REFUSED(quarry_halloc(small, 8) == 0, ENOMEM, "handle");
	REFUSED(quarry_halloc_with(small, 8, NULL) == 0, ENOMEM, "handle");
	end_lanes(small);
	end_lanes(l);
}

Test(lanes_errors, of_attributes_by_their_names)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .fast_lane_size = 128 << 10 };
	quarry_lanes *l = lanes_made(&attr), *others = lanes_made(&alone);
	quarry_group *g = quarry_group_create(others, NULL), *full = quarry_group_create(l, &(quarry_group_attr){ .limit = 100 });
	quarry_halloc_attr stay = { .flags = QUARRY_HALLOC_NOSPILL, .lane = QUARRY_LANE_FAST };

	REFUSED(quarry_halloc_with(l, 0, NULL) == 0, EINVAL, "size");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .struct_size = 8 }) == 0, EINVAL, "struct_size");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .flags = 256 }) == 0, EINVAL, "flags");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .alignment = 24 }) == 0, EINVAL, "alignment");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .type = 256 }) == 0, EINVAL, "type");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .lane = 3 }) == 0, EINVAL, "lane");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .priority = 3 }) == 0, EINVAL, "priority");
	REFUSED(quarry_halloc_with(l, 8, &(quarry_halloc_attr){ .group = g }) == 0, EINVAL, "group");
	REFUSED(quarry_halloc_with(l, 200, &(quarry_halloc_attr){ .group = full }) == 0, ENOMEM, "limit");
	for (int i = 0; i < 1000 && quarry_halloc_with(l, 1000, &stay) != 0; i++)
		;
	REFUSED(quarry_halloc_with(l, 1000, &stay) == 0, ENOMEM, "no room in its lane");
	REFUSED(quarry_lanes_create(&(quarry_lanes_attr){ .reserved = 1 }) == NULL, EINVAL, "reserved");
	cr_expect(strstr(quarry_error_text(), "flags") == NULL, "%s", quarry_error_text());
	REFUSED(quarry_lanes_create(&(quarry_lanes_attr){ .flags = 0x10 }) == NULL, EINVAL, "flags");
	end_lanes(l);
	end_lanes(others);
}

Test(lanes_errors, of_handles)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, 64, 'a'), gone = filled(l, 64, 'b'), none = 0;
	quarry_look look;
	const void *p;
	char byte;

	cr_assert(quarry_hfree(l, gone) == 0);
	for (int i = 0; i < 2; i++) {
		quarry_handle bad = i == 0 ? gone : none;
		int error = i == 0 ? ESTALE : EINVAL;
		const char *what = i == 0 ? "freed" : "no handle of these lanes";

		quarry_enter();
		REFUSED(quarry_get(l, bad) == NULL, error, what);
		REFUSED(quarry_get_mut(l, bad) == NULL, error, what);
		REFUSED(quarry_get_range(l, bad, 0, 1) == NULL, error, what);
		REFUSED(quarry_try_get(l, bad, &p) == -1, error, what);
		REFUSED(quarry_write_begin(l, bad) == NULL, error, what);
		quarry_leave();
		REFUSED(quarry_hfree(l, bad) == -1, error, what);
		REFUSED(quarry_hsize(l, bad) == 0, error, what);
		REFUSED(quarry_pin(l, bad) == NULL, error, what);
		REFUSED(quarry_rehandle(l, bad) == 0, error, what);
		REFUSED(quarry_opt_begin(l, bad, &look) == -1, error, what);
		REFUSED(quarry_opt_read(l, bad, 0, &byte, 1) == -1, error, what);
		REFUSED(quarry_handle_lane(l, bad) == -1, error, what);
		REFUSED(quarry_promote(l, bad) == -1, error, what);
		REFUSED(quarry_hint(l, bad, 0, 0) == -1, error, what);
		REFUSED(quarry_handle_attr(l, bad, &(quarry_halloc_attr){ 0 }) == -1, error, what);
	}
	quarry_enter();
	REFUSED(quarry_get_range(l, h, 60, 100) == NULL, ERANGE, "60");
	REFUSED(quarry_try_get(l, h, NULL) == -1, EINVAL, "NULL");
	quarry_leave();
	end_lanes(l);
}

/* What is being written to is told of as well. */
Test(lanes_errors, of_optimistic_reads)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = filled(l, 64, 'a');
	quarry_look look;

	quarry_enter();
	cr_assert(quarry_write_begin(l, h) != NULL);
	REFUSED(quarry_opt_begin(l, h, &look) == -1, EAGAIN, "written");
	quarry_write_end(l, h);
	quarry_leave();
	end_lanes(l);
}

/* Of another type, or lane, or of a life that is to come: never a handle of these lanes, for all who look at it. */
Test(lanes_errors, a_handle_that_was_changed_is_none)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_handle h = quarry_halloc_typed(l, 64, 0, 5);
	const quarry_handle changed[] = { h ^ (quarry_handle)3 << 48, h ^ (quarry_handle)1 << 63, h + ((quarry_handle)1 << 32) };
	const void *p;

	for (size_t i = 0; i < 3; i++) {
		cr_assert(quarry_handle_state(l, changed[i]) == QUARRY_HANDLE_CORRUPT && !quarry_handle_valid(l, changed[i]));
		quarry_enter();
		cr_assert(quarry_try_get(l, changed[i], &p) == -1 && errno == EINVAL, "%zu: errno %d", i, errno);
		quarry_leave();
		cr_assert(quarry_hsize(l, changed[i]) == 0 && errno == EINVAL);
		cr_assert(quarry_hfree(l, changed[i]) == -1 && errno == EINVAL, "%zu: errno %d", i, errno);
	}
	cr_assert(quarry_hfree(l, h) == 0);
	for (size_t i = 0; i < 2; i++) {
		cr_assert(quarry_hfree(l, changed[i]) == -1 && errno == ESTALE, "of what was freed nothing else is known");
		cr_assert(quarry_handle_state(l, changed[i]) == QUARRY_HANDLE_FREED);
	}
	end_lanes(l);
}

Test(lanes_errors, of_groups)
{
	quarry_lanes *l = lanes_made(&alone);
	quarry_group *g = quarry_group_create(l, NULL);

	for (int i = 0; i < 3; i++)
		cr_assert(quarry_group_add(g, filled(l, 64, i)) == 0);
	REFUSED(quarry_group_handles(g, NULL, 5) == -1, EINVAL, "NULL");
	cr_assert(quarry_group_handles(g, NULL, 0) == 3);
	end_lanes(l);
}
