/* SPDX-License-Identifier: MIT */
/* Objects found, by their handles: where they are, and how. (lanes.h has the rules.) */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/object.h"

int qy_why_not(const quarry_lanes *l, quarry_handle h)
{
	uint64_t word;

	if (!qy_is_ours(l, h))
		return EINVAL;
	word = atomic_load(&l->word[qy_slot_of(h)]);
	if (word == 0)
		return qy_slot_was_had(l, h) ? ESTALE : EINVAL;
	/* Of a life that is now, or is to come: never given out, or not with this type and lane. */
	return qy_generation_of(h) >= word >> 48 ? EINVAL : ESTALE;
}

int qy_fail_handle(const quarry_lanes *l, quarry_handle h)
{
	return qy_why_not(l, h) == ESTALE ? qy_fail_ready(ESTALE, QY_ERROR_FREED) : qy_fail_ready(EINVAL, QY_ERROR_NO_HANDLE);
}

/* What a handle is at this moment, all bits of it looked at (but those of a cold one by generation alone: the rest is
 * qy_cold_look's); its word. In a scope. */
QY_INLINE enum qy_found find(const quarry_lanes *l, quarry_handle h, uint64_t *word)
{
	uint32_t marks;

	if (!qy_is_ours(l, h))
		return QY_FOUND_NONE;
	*word = atomic_load_explicit(&l->word[qy_slot_of(h)], memory_order_acquire);
	if (QY_UNLIKELY(((*word ^ h << 16) & QY_WORD_STATES) != 0))
		return ((*word ^ h << 16) & QY_WORD_STATES) == QUARRY_WORD_COLD && l->cold != NULL ? QY_FOUND_COLD : QY_FOUND_NONE;
	marks = atomic_load_explicit(&qy_entry_at(qy_word_address(*word), *word)->marks, memory_order_relaxed);
	return ((marks ^ qy_marks_of(h)) & (0xffu << QY_MARK_TYPE_SHIFT | QY_MARK_SLOW)) == 0 ? QY_FOUND_LIVE : QY_FOUND_NONE;
}

/* The same, and of a cold one what it is. */
enum qy_found qy_find_any(quarry_lanes *l, quarry_handle h, uint64_t *word, struct qy_cold_object *o)
{
	for (;;) {
		enum qy_found found = find(l, h, word);
		int same = found != QY_FOUND_COLD ? 1 : qy_cold_look(l, h, *word, o);

		if (same != 0)
			return same < 0 ? QY_FOUND_NONE : found;
	}
}

uint64_t qy_look(quarry_lanes *l, quarry_handle h)
{
	uint64_t word;

	for (;;) {
		switch (find(l, h, &word)) {
		case QY_FOUND_LIVE:
			return word;
		case QY_FOUND_COLD:
			if (qy_warm(l, h, word, NULL, true) != 0)
				return 0;
			break;
		default:
			(void)qy_fail_handle(l, h);
			return 0;
		}
	}
}

bool qy_is_away(quarry_lanes *l, quarry_handle h, uint64_t *word)
{
	struct qy_cold_object o;

	return qy_find_any(l, h, word, &o) == QY_FOUND_COLD && !o.corrupt;
}

/* By generation alone, as the inline part: whether it could be got, and its word; not seen before, or cold, it is now. Who was
 * just moving what was not seen has another word now, and gives up: his mark goes with the other, for he would not know the word
 * to take it from. */
void *quarry_get_slow(quarry_lanes *l, quarry_handle h)
{
	bool back = false; /* it is not seen by that: see qy_warm */
	const void *copy = NULL;

	if (!qy_lanes_check(l))
		return NULL;
	while (qy_is_ours(l, h)) {
		qy_word *at = &l->word[qy_slot_of(h)];
		uint64_t word = atomic_load_explicit(at, memory_order_acquire), states = (word ^ h << 16) & QY_WORD_STATES;

		if (states == 0 && (back || !(word & QUARRY_WORD_UNSEEN) ||
				    atomic_compare_exchange_strong(at, &word, word & ~QUARRY_WORD_PASSING)))
			return qy_word_address(word);
		if (states != 0 && (states != QUARRY_WORD_COLD || l->cold == NULL))
			break;
		if (states != 0 && qy_warm(l, h, word, &copy, true) != 0)
			return NULL;
		if (copy != NULL)
			return (void *)(uintptr_t)copy;
		back = back || states != 0;
	}
	(void)qy_fail_handle(l, h);
	return NULL;
}

/* It had this word, and is seen by that. */
static void see(quarry_lanes *l, quarry_handle h, uint64_t word)
{
	while (QY_UNLIKELY(word & QUARRY_WORD_UNSEEN) && ((word ^ h << 16) & QY_WORD_STATES) == 0 &&
	       !atomic_compare_exchange_weak(&l->word[qy_slot_of(h)], &word, word & ~QUARRY_WORD_PASSING))
		;
}

int qy_fail_cold(const quarry_lanes *l, quarry_handle h)
{
	if (qy_lanes_record != NULL) {
		qy_lanes_record->refused_by = (uint8_t)l->id;
		qy_lanes_record->refused = qy_slot_of(h) + 1;
	}
	return qy_fail_ready(EAGAIN, QY_ERROR_COLD);
}

int qy_try_live(quarry_lanes *l, quarry_handle h, const void **p)
{
	struct qy_cold_object o;
	uint64_t word;

	switch (qy_find_any(l, h, &word, &o)) {
	case QY_FOUND_LIVE:
		break;
	case QY_FOUND_COLD:
		return 1;
	default:
		return qy_fail_handle(l, h);
	}
	see(l, h, word);
	*p = qy_word_address(word);
	return 0;
}

int quarry_try_get(quarry_lanes *l, quarry_handle h, const void **p)
{
	int result;

	if (!qy_lanes_check(l))
		return -1;
	if (p == NULL)
		return qy_fail(EINVAL, "p: NULL, for an address");
	result = qy_try_live(l, h, p);
	return result > 0 ? qy_fail_cold(l, h) : result;
}

uint64_t qy_settle_word(quarry_lanes *l, quarry_handle h)
{
	qy_word *at;
	uint64_t word;

	if (!qy_lanes_check(l))
		return 0;
	if (!qy_is_ours(l, h)) {
		(void)qy_fail_handle(l, h);
		return 0;
	}
	at = &l->word[qy_slot_of(h)];
	word = atomic_load(at);
	for (;;) {
		uint64_t states = (word ^ h << 16) & QY_WORD_STATES;

		if (QY_UNLIKELY(states != 0)) {
			if (states != QUARRY_WORD_COLD || l->cold == NULL) {
				(void)qy_fail_handle(l, h);
				return 0;
			}
			if (qy_warm(l, h, word, NULL, true) != 0)
				return 0;
			word = atomic_load(at);
		} else if (QY_LIKELY(!(word & (QUARRY_WORD_MOVING | QUARRY_WORD_UNSEEN))) ||
			   atomic_compare_exchange_weak(at, &word, word & ~(QUARRY_WORD_MOVING | QUARRY_WORD_UNSEEN))) {
			return word;
		}
	}
}

void *quarry_get_mut(quarry_lanes *l, quarry_handle h)
{
	uint64_t word = qy_settle_word(l, h);

	return word == 0 ? NULL : qy_word_address(word);
}

size_t qy_size_of(uint64_t word)
{
	const struct qy_head *head = qy_head_of(qy_word_address(word));
	uint32_t index;

	if (word & QUARRY_WORD_HEAD)
		return head->about != 0 ? qy_about_total(head->about) - sizeof(*head) : qy_huge_of(qy_word_address(word))->size;
	return qy_span_of(qy_word_address(word), &index)->size;
}

/* How many bytes the object has, and its word, both of one moment: by its address of that moment there are as many, when it has
 * another one, too. 0: it is cold, and may stay so; has it come back when it is got, it has as many there. False with errno. */
static bool find_sized(quarry_lanes *l, quarry_handle h, uint64_t *word, size_t *size)
{
	struct qy_cold_object o;
	enum qy_found found = qy_find_any(l, h, word, &o);

	if (found == QY_FOUND_NONE) {
		(void)qy_fail_handle(l, h);
		return false;
	}
	if (found == QY_FOUND_COLD && QY_LIKELY(!l->canaries)) {
		*size = o.size;
		*word = 0;
		return true;
	}
	if (found == QY_FOUND_LIVE)
		see(l, h, *word);
	else if ((*word = qy_look(l, h)) == 0) /* with canaries it says how many bytes it has, when it is here */
		return false;
	*size = qy_bytes_of(l, *word);
	return true;
}

const void *quarry_get_range(quarry_lanes *l, quarry_handle h, size_t offset, size_t length)
{
	const char *p;
	uint64_t word;
	size_t size;

	if (!qy_lanes_check(l) || !find_sized(l, h, &word, &size))
		return NULL;
	if (offset > size || length > size - offset) {
		(void)qy_fail(ERANGE, "offset %lu, length %lu: the object has %lu bytes", (unsigned long)offset, (unsigned long)length,
			      (unsigned long)size);
		return NULL;
	}
	p = word != 0 ? qy_word_address(word) : quarry_get_slow(l, h);
	return p == NULL ? NULL : p + offset;
}

const void *qy_get_sized(quarry_lanes *l, quarry_handle h, size_t *size)
{
	uint64_t word;

	if (!qy_lanes_check(l) || !find_sized(l, h, &word, size))
		return NULL;
	return word != 0 ? qy_word_address(word) : quarry_get_slow(l, h);
}

const void *qy_look_at(quarry_lanes *l, quarry_handle h, size_t *size)
{
	const void *copy = NULL;
	struct qy_cold_object o;
	uint64_t word;

	for (;;) {
		switch (qy_find_any(l, h, &word, &o)) {
		case QY_FOUND_LIVE:
			*size = qy_bytes_of(l, word);
			return qy_word_address(word);
		case QY_FOUND_COLD:
			if (qy_warm(l, h, word, &copy, false) != 0)
				return NULL;
			*size = o.size;
			if (copy != NULL)
				return copy;
			break;
		default:
			(void)qy_fail_handle(l, h);
			return NULL;
		}
	}
}

size_t quarry_hsize(quarry_lanes *l, quarry_handle h)
{
	struct qy_cold_object o;
	uint64_t word;
	size_t size = 0;

	if (!qy_lanes_check(l))
		return 0;
	quarry_enter();
	switch (qy_find_any(l, h, &word, &o)) {
	case QY_FOUND_LIVE:
		size = qy_bytes_of(l, word);
		break;
	case QY_FOUND_COLD:
		size = o.size;
		if (QY_UNLIKELY(l->canaries)) /* it says how many, when it is here */
			size = (word = qy_look(l, h)) == 0 ? 0 : qy_bytes_of(l, word);
		break;
	default:
		(void)qy_fail_handle(l, h);
	}
	quarry_leave();
	return size;
}

int quarry_handle_valid(quarry_lanes *l, quarry_handle h)
{
	struct qy_cold_object o;
	uint64_t word;
	int error = errno;
	bool valid = qy_lanes_check(l);

	quarry_enter();
	valid = valid && qy_find_any(l, h, &word, &o) != QY_FOUND_NONE;
	quarry_leave();
	errno = error;
	return valid;
}

static int state_of(quarry_lanes *l, quarry_handle h)
{
	uint64_t word, generation;
	struct qy_cold_object o;

	switch (qy_find_any(l, h, &word, &o)) {
	case QY_FOUND_LIVE:
		if (QY_UNLIKELY(!qy_canary_is_whole(l, word)))
			return QUARRY_HANDLE_CORRUPT;
		if (atomic_load_explicit(&qy_entry_at(qy_word_address(word), word)->marks, memory_order_relaxed) & QY_MARK_PINS)
			return QUARRY_HANDLE_PINNED;
		return word & QUARRY_WORD_MOVING ? QUARRY_HANDLE_MOVING : QUARRY_HANDLE_VALID;
	case QY_FOUND_COLD:
		return o.corrupt ? QUARRY_HANDLE_LOST : o.evicted ? QUARRY_HANDLE_EVICTED : QUARRY_HANDLE_COLD;
	default:
		break;
	}
	word = atomic_load_explicit(&l->word[qy_slot_of(h)], memory_order_acquire);
	generation = word >> 48;
	if (word == 0 && qy_slot_was_had(l, h))
		return QUARRY_HANDLE_STALE;
	if (word == 0 || qy_generation_of(h) >= generation)
		return QUARRY_HANDLE_CORRUPT; /* never given out, or not with this type and lane */
	return qy_generation_of(h) + 1 == generation && (word & QUARRY_WORD_FREE) ? QUARRY_HANDLE_FREED : QUARRY_HANDLE_STALE;
}

int quarry_handle_state(quarry_lanes *l, quarry_handle h)
{
	int state;

	if (!qy_lanes_check(l))
		return -1;
	if ((h & QUARRY_HANDLE_NUMBER) != l->map.number)
		return (h & QUARRY_HANDLE_NUMBER) == 0 ? QUARRY_HANDLE_CORRUPT : QUARRY_HANDLE_FOREIGN;
	if (!qy_is_ours(l, h))
		return QUARRY_HANDLE_CORRUPT;
	quarry_enter();
	state = state_of(l, h);
	quarry_leave();
	return state;
}
