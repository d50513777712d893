/* SPDX-License-Identifier: MIT */
#include "tools/index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

static uint64_t seed(void)
{
	static uint64_t chosen;

	if (!chosen) {
		const void *random = (const void *)getauxval(AT_RANDOM); /* 16 bytes */

		chosen = 0x2545f4914f6cdd1du;
		if (random)
			memcpy(&chosen, random, sizeof(chosen));
		chosen |= 1;
	}
	return chosen;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * 0x9e3779b97f4a7c15u;
	return a ^ a >> 29;
}

uint64_t index_hash(uint64_t a, uint64_t b)
{
	return mix(mix(mix(seed(), a), b), a >> 32);
}

uint64_t index_hash_text(const char *text, uint64_t with)
{
	uint64_t h = mix(seed(), with);

	for (; *text; text++)
		h = mix(h, (unsigned char)*text);
	return mix(h, h >> 17);
}

static struct index_slot *slot_at(const struct index *x, size_t at)
{
	return &x->slots[at & (x->size - 1)];
}

uint32_t index_next(const struct index *x, uint64_t hash, size_t *step)
{
	uint32_t number;

	if (!x->size)
		return INDEX_NONE;
	while ((number = slot_at(x, (uint32_t)hash + *step)->number) != 0)
		if (slot_at(x, (uint32_t)hash + (*step)++)->hash == (uint32_t)hash)
			return number - 1;
	return INDEX_NONE;
}

static void put(struct index *x, uint32_t hash, uint32_t number)
{
	size_t at = hash;

	while (slot_at(x, at)->number)
		at++;
	*slot_at(x, at) = (struct index_slot){ hash, number };
}

static bool more_slots(struct index *x)
{
	struct index old = *x;

	x->size = old.size ? 2 * old.size : 1024;
	x->slots = calloc(x->size, sizeof(x->slots[0]));
	if (!x->slots) {
		*x = old;
		return false;
	}
	for (size_t i = 0; i < old.size; i++)
		if (old.slots[i].number)
			put(x, old.slots[i].hash, old.slots[i].number);
	free(old.slots);
	return true;
}

bool index_add(struct index *x, uint64_t hash, uint32_t number)
{
	if (2 * x->count >= x->size && !more_slots(x))
		return false;
	put(x, (uint32_t)hash, number + 1);
	x->count++;
	return true;
}

void index_free(struct index *x)
{
	free(x->slots);
	*x = (struct index){ .slots = NULL };
}
