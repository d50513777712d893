/* SPDX-License-Identifier: MIT */
/* What the tests of slabs of buffers share: slabs made, asked and ended, and things done in another thread. To be
 * included once, by a test. */
#ifndef QUARRY_TESTS_BUFFERS_H
#define QUARRY_TESTS_BUFFERS_H

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "include/quarry/buffers.h"
#include "lib/object/buffers.h"
#include "tests/fake_os.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

static inline quarry_buffers *make_of(const quarry_buffers_attr *attr)
{
	quarry_buffers *slab = quarry_buffers_create(attr);

	cr_assert_not_null(slab, "%u of %lu: errno %d: %s", attr->count, (unsigned long)attr->size, errno,
			   quarry_error_text());
	return slab;
}

static inline quarry_buffers *make(uint64_t size, uint32_t count, uint32_t alignment, uint32_t flags)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = size, .count = count, .alignment = alignment,
				     .flags = flags };

	return make_of(&attr);
}

static inline quarry_buffer get(quarry_buffers *slab)
{
	quarry_buffer b;

	cr_assert_eq(quarry_buffers_get(slab, &b), 0, "errno %d", errno);
	return b;
}

static inline quarry_buffers_stats figures(quarry_buffers *slab)
{
	quarry_buffers_stats stats = { .struct_size = sizeof stats };

	cr_assert_eq(quarry_buffers_stats_get(slab, &stats), 0);
	return stats;
}

static inline void end(quarry_buffers *slab)
{
	cr_assert_eq(quarry_buffers_destroy(slab), 0, "errno %d: %s", errno, quarry_error_text());
}

/* Something done in another thread, to its end. */
static inline void elsewhere(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fn, arg), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

struct to_release {
	quarry_buffer b;
	int rc, error;
};

static inline void *release_it(void *arg)
{
	struct to_release *r = arg;

	errno = 0;
	r->rc = quarry_buffer_release(r->b);
	r->error = errno;
	return NULL;
}

static inline int release_elsewhere(quarry_buffer b)
{
	struct to_release r = { .b = b };

	elsewhere(release_it, &r);
	errno = r.error;
	return r.rc;
}

#endif
