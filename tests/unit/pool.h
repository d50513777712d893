/* SPDX-License-Identifier: MIT */
/* What the tests of object pools share: objects that know what was done to them. To be included once, by a test. */
#ifndef QUARRY_TESTS_POOL_H
#define QUARRY_TESTS_POOL_H

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "include/quarry/pool.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* What the pool's functions were called for, and with what. */
struct calls {
	atomic_uint constructed, reset, destroyed, mistakes[5];
	unsigned construct_fails_at; /* the how many-th call; 0: none */
	void *last_reset;
};

struct object {
	uint64_t made;  /* by construct, and never changed */
	uint64_t state; /* 1: reset */
	uint64_t payload[4];
	uint32_t word;
};

#define MADE 0x5ca1ab1e0ddba11u

static inline int construct(void *object, void *context)
{
	struct calls *calls = context;
	struct object *o = object;

	if (atomic_fetch_add(&calls->constructed, 1) + 1 == calls->construct_fails_at) {
		atomic_fetch_sub(&calls->constructed, 1);
		calls->construct_fails_at = 0;
		return EXDEV;
	}
	cr_assert(o->made == 0 && o->state == 0 && o->word == 0, "the memory is zeroed");
	o->made = MADE;
	o->state = 1;
	return 0;
}

static inline void reset(void *object, void *context)
{
	struct calls *calls = context;
	struct object *o = object;

	atomic_fetch_add(&calls->reset, 1);
	cr_assert_eq(o->made, MADE);
	o->state = 1;
	calls->last_reset = object;
}

static inline void destroy(void *object, void *context)
{
	struct calls *calls = context;
	struct object *o = object;

	atomic_fetch_add(&calls->destroyed, 1);
	cr_assert_eq(o->made, MADE);
	o->made = 0;
}

static inline void mistake(void *object, enum quarry_pool_mistake what, void *context)
{
	struct calls *calls = context;

	(void)object;
	atomic_fetch_add(&calls->mistakes[what], 1);
}

static inline quarry_pool_attr attr_of(struct calls *calls)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = sizeof(struct object), .construct = construct,
				  .reset = reset, .destroy = destroy, .mistake = mistake, .context = calls };

	return attr;
}

static inline quarry_pool *make(const quarry_pool_attr *attr)
{
	quarry_pool *pool = quarry_pool_create(attr);

	cr_assert_not_null(pool, "errno %d: %s", errno, quarry_error_text());
	return pool;
}

static inline quarry_pool_stats stats_of(quarry_pool *pool)
{
	quarry_pool_stats stats = { .struct_size = sizeof stats };

	cr_assert_eq(quarry_pool_stats_get(pool, &stats), 0);
	return stats;
}

static inline void *get(quarry_pool *pool)
{
	void *p = quarry_pool_get(pool);

	cr_assert_not_null(p, "errno %d", errno);
	return p;
}

static inline void put(quarry_pool *pool, void *p)
{
	cr_assert_eq(quarry_pool_put(pool, p, QUARRY_POOL_SAFE), 0, "errno %d: %s", errno, quarry_error_text());
}

static inline void end(quarry_pool *pool)
{
	cr_assert_eq(quarry_pool_destroy(pool, 0), 0, "errno %d", errno);
}

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

#define expect_null(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == NULL && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

static inline int is_token(quarry_token t)
{
	return t.index != 0 || t.generation != 0;
}

#endif
