/* SPDX-License-Identifier: MIT */
/* Checked pools: what is free is scrambled, reversibly, since it stays constructed. Who reads it reads nonsense
 * (pointers lead nowhere), and who writes to it breaks the seal, which is over all of it. */
#include "lib/object/pool.h"

#include "lib/api/error.h"

#define SCRAMBLE 0xa5b6c7d8e9fa8b9cu /* no address: bits above 47 differ */

static uint64_t mix(uint64_t seal, uint64_t word)
{
	seal = (seal ^ word) * 0x9e3779b97f4a7c15u;
	return seal ^ seal >> 29;
}

void qy_pool_hide(const quarry_pool *pool, struct qy_slot *s)
{
	uint64_t *word = qy_slot_object(s), seal = s->index;

	for (size_t i = 0; i < pool->stride / sizeof(*word); i++) {
		word[i] ^= SCRAMBLE;
		seal = mix(seal, word[i]);
	}
	s->seal = seal;
}

bool qy_pool_show(const quarry_pool *pool, struct qy_slot *s)
{
	uint64_t *word = qy_slot_object(s), seal = s->index;

	for (size_t i = 0; i < pool->stride / sizeof(*word); i++) {
		seal = mix(seal, word[i]);
		word[i] ^= SCRAMBLE;
	}
	return seal == s->seal;
}

void qy_pool_tell(quarry_pool *pool, void *object, enum quarry_pool_mistake what)
{
	qy_count_shared(&pool->mistakes, 1);
	if (pool->mistake != NULL)
		pool->mistake(object, what, pool->context);
}
