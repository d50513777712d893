/* SPDX-License-Identifier: MIT */
/* Ids of runs. A run's word has its generation and length, so that an id is right when the word is exactly what it
 * says: one load, or, to free it, one compare-and-swap. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/pages.h"

static int fail_stale(uint64_t index)
{
	return qy_fail(ESTALE, "id: its run, at page %lu, was freed or changed", (unsigned long)index);
}

/* The word of the run at p, for an id; 0 with the error set. */
static uint64_t look_up(quarry_pages *p, const void *address, const void *id, uint64_t *index)
{
	uint64_t word;

	if (!qy_pages_check(p) || (*index = qy_pages_find(p, address)) == QY_NO_PAGE)
		return 0;
	word = atomic_load_explicit(&p->runs[*index], memory_order_acquire);
	if (id != NULL && qy_run_length(word) != 0)
		return word;
	qy_fail(EINVAL, id == NULL ? "id: it is NULL" : "p: no run begins at %p", (void *)(uintptr_t)address);
	return 0;
}

static int fail_overflow(uint64_t index, uint64_t word)
{
	return qy_fail(EOVERFLOW, "p: page %lu and a length of %d have no room in such an id", (unsigned long)index,
		       (int)qy_run_length(word));
}

QUARRY_API int quarry_pages_to_id(quarry_pages *p, const void *address, quarry_page_id *id)
{
	uint64_t index, word = look_up(p, address, id, &index);
	quarry_page_id made;

	if (word == 0)
		return -1;
	made = quarry_page_id_make(index, qy_run_length(word));
	if (made == 0)
		return fail_overflow(index, word);
	*id = made;
	return 0;
}

QUARRY_API int quarry_pages_to_id64(quarry_pages *p, const void *address, quarry_page_id64 *id)
{
	uint64_t index, word = look_up(p, address, id, &index);
	quarry_page_id64 made;

	if (word == 0)
		return -1;
	made = quarry_page_id64_make(index, qy_run_length(word), (uint64_t)qy_run_generation(word) + 1);
	if (made == 0)
		return fail_overflow(index, word);
	*id = made;
	return 0;
}

/* Whether pages with that index and length can be a run of these; sets the error when not. */
static bool check_range(quarry_pages *p, uint64_t index, uint64_t length)
{
	if (!qy_pages_check(p))
		return false;
	if (length != 0 && index < p->map.count && length <= p->map.count - index)
		return true;
	qy_fail(EINVAL, "id: page %lu with a length of %d is no run of these pages", (unsigned long)index, (int)length);
	return false;
}

/* The word that the run of an id has as long as it lives; 0 with the error set where there is no such id. */
static uint64_t word_of64(quarry_pages *p, quarry_page_id64 id)
{
	uint64_t generation = quarry_page_id64_generation(id);

	if (!check_range(p, quarry_page_id64_index(id), quarry_page_id64_length(id)))
		return 0;
	if (generation == 0 || generation - 1 > p->last_generation) {
		qy_fail(EINVAL, "id: a run never has generation %lu here", (unsigned long)generation);
		return 0;
	}
	return qy_run_word(generation - 1, quarry_page_id64_length(id));
}

/* The same of a 32-bit id: the word that is there, if its length is right. */
static uint64_t word_of32(quarry_pages *p, quarry_page_id id)
{
	uint64_t index = quarry_page_id_index(id), length = quarry_page_id_length(id), word;

	if (!check_range(p, index, length))
		return 0;
	word = atomic_load_explicit(&p->runs[index], memory_order_acquire);
	if (qy_run_length(word) == length)
		return word;
	fail_stale(index);
	return 0;
}

static void *found(quarry_pages *p, uint64_t index, uint64_t length, size_t *bytes)
{
	if (bytes != NULL)
		*bytes = (size_t)length << p->map.page_shift;
	return qy_pages_address(p, index);
}

QUARRY_API void *quarry_pages_from_id(quarry_pages *p, quarry_page_id id, size_t *bytes)
{
	if (word_of32(p, id) == 0)
		return NULL;
	return found(p, quarry_page_id_index(id), quarry_page_id_length(id), bytes);
}

QUARRY_API void *quarry_pages_resolve(quarry_pages *p, quarry_page_id64 id, size_t *bytes)
{
	uint64_t word = word_of64(p, id), index = quarry_page_id64_index(id);

	if (word == 0)
		return NULL;
	if (QY_LIKELY(atomic_load_explicit(&p->runs[index], memory_order_acquire) == word))
		return found(p, index, quarry_page_id64_length(id), bytes);
	fail_stale(index);
	return NULL;
}

static int free_word(quarry_pages *p, uint64_t index, uint64_t word)
{
	if (word == 0)
		return -1;
	return qy_pages_free_run(p, index, word) ? 0 : fail_stale(index);
}

QUARRY_API int quarry_pages_free_id(quarry_pages *p, quarry_page_id id)
{
	return free_word(p, quarry_page_id_index(id), word_of32(p, id));
}

QUARRY_API int quarry_pages_free_id64(quarry_pages *p, quarry_page_id64 id)
{
	return free_word(p, quarry_page_id64_index(id), word_of64(p, id));
}
