/* SPDX-License-Identifier: MIT */
/* Small objects: slabs of one class, a bitmap of free objects each, owned by lanes. The owner takes and frees by plain loads and stores of
 * one word, which is all that a death can cut off; others set bits in a second map. */
#include "lib/mapped/mapped.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"

struct qy_mapped_class qy_mapped_classes[64];
uint8_t qy_mapped_class_of_small[1024 / 16 + 1];
static uint64_t nothing; /* the word of who has no slab: no bit is ever set */

void qy_mapped_classes_init(void)
{
	uint32_t cls = 0;

	for (uint32_t c = 0; c < QY_MAPPED_CLASSES; c++) {
		uint32_t log = 7 + (c - 8) / 4;
		uint32_t size = c < 8 ? (c + 1) * 16 : (1u << log) + ((c - 8) % 4 + 1) * (1u << (log - 2));
		uint32_t units = size <= 8192 ? 1 : 4, count = units * (uint32_t)QY_MAPPED_UNIT / size;

		qy_mapped_classes[c] = (struct qy_mapped_class){
			.size = size,
			.recip = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size),
			.limit = count * size,
			.units = units,
		};
	}
	for (uint32_t n = 0; n <= 1024 / 16; n++) {
		while (qy_mapped_classes[cls].size < n * 16)
			cls++;
		qy_mapped_class_of_small[n] = (uint8_t)cls;
	}
}

static uint32_t count_of(uint32_t cls)
{
	return qy_mapped_classes[cls].limit / qy_mapped_classes[cls].size;
}

static uint32_t words_of(uint32_t cls)
{
	return (count_of(cls) + 63) / 64;
}

/* The bits of a word of a map that are of objects. */
static uint64_t mask_of(uint32_t cls, uint32_t word)
{
	uint32_t count = count_of(cls);

	return (word + 1) * 64 <= count ? ~(uint64_t)0 : word * 64 >= count ? 0 : ((uint64_t)1 << count % 64) - 1;
}

/* ---- what is at an address ---- */

bool qy_object_find(const struct heap *h, uint64_t off, struct qy_mapped_object *o)
{
	uint64_t unit = off >> QY_MAPPED_UNIT_SHIFT, state;
	const struct qy_mapped_class *k;
	uint32_t at, index;

	if (off >= h->seg_bytes || !qy_unit_is(h, unit))
		return false;
	state = qy_peek(qy_unit_at(h, unit)->state);
	if (qy_unit_kind(state) == QY_UNIT_TAIL) {
		uint64_t back = qy_unit_units(state);

		if (back == 0 || back > unit % QY_MAPPED_SEG_UNITS - QY_MAPPED_META_UNITS)
			return false;
		unit -= back;
		state = qy_peek(qy_unit_at(h, unit)->state);
		if (back >= qy_unit_units(state))
			return false;
	}
	if (qy_unit_kind(state) != QY_UNIT_SLAB || qy_unit_class(state) >= QY_MAPPED_CLASSES)
		return false;
	o->cls = qy_unit_class(state);
	k = &qy_mapped_classes[o->cls];
	o->owner = qy_unit_owner(state);
	if (qy_unit_units(state) != k->units || o->owner == 0 || o->owner > h->sb.lanes ||
	    !qy_run_is(h, unit, k->units))
		return false;
	at = (uint32_t)(off - (unit << QY_MAPPED_UNIT_SHIFT));
	index = (uint32_t)((uint64_t)at * k->recip >> 32);
	if (at >= k->limit || index * k->size != at)
		return false;
	o->unit = unit;
	o->word = qy_unit_bits(h, unit) + index / 64;
	o->bit = (uint64_t)1 << index % 64;
	return true;
}

bool qy_object_live(const struct qy_mapped_object *o)
{
	return ((qy_peek(*o->word) | __atomic_load_n(o->word + QY_REMOTE_WORDS, __ATOMIC_ACQUIRE)) & o->bit) == 0;
}

/* What another lane's owner may want to know. Enough for it to look: a quarter of a slab's memory. */
void qy_object_freed_by_other(struct heap *h, const struct qy_mapped_object *o)
{
	struct qy_mapped_lane *lane = &h->lanes[o->owner - 1];
	uint32_t freed = __atomic_add_fetch(&lane->freed[o->cls], 1, __ATOMIC_RELAXED);

	if (freed >= (count_of(o->cls) + 3) / 4)
		__atomic_fetch_or(&lane->remote, (uint64_t)1 << o->cls, __ATOMIC_RELAXED);
}

/* ---- a lane's slabs ---- */

/* What a list in the file leads to next: 0 at its end, or where it is not what it must be, and then the class is bad. Under the
 * heap's lock. */
static uint64_t checked(struct heap *h, uint64_t unit, uint64_t before, uint32_t cls, uint32_t owner)
{
	const struct qy_mapped_unit *u;

	if (unit == 0)
		return 0;
	u = qy_unit_is(h, unit) ? qy_unit_at(h, unit) : NULL;
	if (u != NULL && u->prev == before &&
	    u->state == qy_unit_state(QY_UNIT_SLAB, cls, owner, qy_mapped_classes[cls].units) &&
	    qy_run_is(h, unit, qy_mapped_classes[cls].units))
		return unit;
	qy_mapped_bad_class(h, cls);
	return 0;
}

/* Both: false where the list is not what it must be. Then nothing of what is staged may be done. */
static bool stage_link(struct heap *h, struct qy_mapped_lane *lane, uint32_t owner, uint32_t cls, uint64_t unit)
{
	struct qy_mapped_unit *u = qy_unit_at(h, unit);
	uint64_t first = checked(h, lane->slabs[cls], 0, cls, owner);

	if (qy_mapped_is_bad(h, cls))
		return false;
	qy_redo_store(h, &u->state, qy_unit_state(QY_UNIT_SLAB, cls, owner, qy_mapped_classes[cls].units));
	qy_redo_store(h, &u->next, first);
	qy_redo_store(h, &u->prev, 0);
	if (first != 0)
		qy_redo_store(h, &qy_unit_at(h, first)->prev, unit);
	qy_redo_store(h, &lane->slabs[cls], unit);
	qy_publish(lane->slab_count, lane->slab_count + 1);
	return true;
}

static bool stage_unlink(struct heap *h, struct qy_mapped_lane *lane, uint32_t owner, uint32_t cls, uint64_t unit)
{
	const struct qy_mapped_unit *u = qy_unit_at(h, unit);
	uint64_t next = checked(h, u->next, unit, cls, owner), before = qy_peek(u->prev);

	if (before != 0 && !qy_unit_is(h, before))
		qy_mapped_bad_class(h, cls);
	if (qy_mapped_is_bad(h, cls))
		return false;
	if (before != 0)
		qy_redo_store(h, &qy_unit_at(h, before)->next, next);
	else
		qy_redo_store(h, &lane->slabs[cls], next);
	if (next != 0)
		qy_redo_store(h, &qy_unit_at(h, next)->prev, before);
	qy_publish(lane->slab_count, lane->slab_count - (lane->slab_count != 0));
	return true;
}

/* Take over what others freed of a slab: what is in both maps for a moment is free once. Under the heap's lock, so that no record
 * that sets such a bit is still to be done. */
static bool take_over(struct heap *h, uint64_t unit, uint32_t cls)
{
	uint64_t *own = qy_unit_bits(h, unit), *others = own + QY_REMOTE_WORDS;
	bool any = false;

	for (uint32_t w = 0; w < words_of(cls); w++) {
		uint64_t bits = __atomic_load_n(&others[w], __ATOMIC_ACQUIRE);

		if (bits == 0)
			continue;
		qy_put(own[w], own[w] | (bits & mask_of(cls, w)));
		QY_POINT();
		__atomic_fetch_and(&others[w], ~bits, __ATOMIC_RELEASE);
		QY_POINT();
		any = true;
	}
	return any;
}

/* Whether it has free objects. Bits of none make the class bad: they would be handed out. */
static bool has_room(struct heap *h, uint64_t unit, uint32_t cls)
{
	const uint64_t *own = qy_unit_bits(h, unit);
	uint64_t any = 0;

	for (uint32_t w = 0; w < words_of(cls); w++) {
		any |= own[w];
		if ((own[w] & ~mask_of(cls, w)) != 0) {
			qy_mapped_bad_class(h, cls);
			return false;
		}
	}
	return any != 0;
}

static bool is_empty(const struct heap *h, uint64_t unit, uint32_t cls)
{
	const uint64_t *own = qy_unit_bits(h, unit);

	for (uint32_t w = 0; w < words_of(cls); w++) {
		if ((own[w] & mask_of(cls, w)) != mask_of(cls, w))
			return false;
	}
	return true;
}

static void list(struct heap *h, struct qy_mapped_bin *b, uint64_t unit)
{
	struct qy_mapped_unit *u = qy_unit_at(h, unit);

	u->listed = 1;
	u->with_room = b->room;
	b->room = unit;
}

/* Take from no slab. */
static void rest(struct qy_mapped_bin *b)
{
	b->word = &nothing;
	b->unit = 0;
}

void qy_local_adopt(struct heap *h, struct qy_mapped_local *l)
{
	struct qy_mapped_lane *lane = qy_local_lane(l);

	for (uint32_t c = 0; c < QY_MAPPED_CLASSES; c++) {
		uint64_t before = 0, unit = lane->slabs[c];

		l->bin[c].size = qy_mapped_classes[c].size;
		l->bin[c].room = 0;
		rest(&l->bin[c]);
		if (qy_mapped_is_bad(h, c))
			continue;
		for (; (unit = checked(h, unit, before, c, l->owner)) != 0; before = unit, unit = qy_unit_at(h, unit)->next) {
			qy_unit_at(h, unit)->listed = 0;
			(void)take_over(h, unit, c);
			if (has_room(h, unit, c))
				list(h, &l->bin[c], unit);
		}
		qy_publish(lane->freed[c], 0);
	}
	qy_publish(lane->remote, 0);
}

/* ---- taking ---- */

/* Stand at the next word of the bin's slab that has free objects. */
static bool next_word(struct heap *h, struct qy_mapped_bin *b, uint32_t cls)
{
	uint64_t *own = qy_unit_bits(h, b->unit);
	uint32_t words = words_of(cls);

	for (uint32_t i = 0, w = b->index; i < words; i++) {
		w = w + 1 < words ? w + 1 : 0;
		if (own[w] != 0) {
			b->index = w;
			b->word = &own[w];
			b->at = qy_unit_memory(h, b->unit) + (uint64_t)w * 64 * b->size;
			return true;
		}
	}
	return false;
}

static bool stand_at(struct heap *h, struct qy_mapped_bin *b, uint32_t cls, uint64_t unit)
{
	b->unit = unit;
	b->index = words_of(cls) - 1;
	qy_unit_at(h, unit)->listed = 1;
	return next_word(h, b, cls);
}

/* Slabs of this lane in which others freed. */
static void collect(struct heap *h, struct qy_mapped_local *l, uint32_t cls)
{
	struct qy_mapped_lane *lane = qy_local_lane(l);
	uint64_t before = 0, unit = lane->slabs[cls];

	__atomic_fetch_and(&lane->remote, ~((uint64_t)1 << cls), __ATOMIC_RELAXED);
	__atomic_store_n(&lane->freed[cls], 0, __ATOMIC_RELAXED);
	for (; (unit = checked(h, unit, before, cls, l->owner)) != 0; before = unit, unit = qy_unit_at(h, unit)->next) {
		if (take_over(h, unit, cls) && qy_unit_at(h, unit)->listed == 0)
			list(h, &l->bin[cls], unit);
	}
}

/* Slabs of lanes that nobody has: a few are looked at. */
static bool inherit(struct heap *h, struct qy_mapped_local *l, uint32_t cls)
{
	bool found = false;
	unsigned tries = 8;

	for (uint32_t i = 0; i < h->sb.lanes && !found; i++) {
		struct qy_mapped_lane *lane = &h->lanes[i];
		uint64_t unit = lane->state == QY_LANE_IDLE ? checked(h, lane->slabs[cls], 0, cls, i + 1) : 0;

		if (unit == 0)
			continue;
		if (tries-- == 0)
			break;
		if (!stage_unlink(h, lane, i + 1, cls, unit) || !stage_link(h, qy_local_lane(l), l->owner, cls, unit)) {
			qy_redo_drop(h);
			return false;
		}
		qy_unit_at(h, unit)->listed = 0;
		qy_redo_commit(h);
		(void)take_over(h, unit, cls);
		found = has_room(h, unit, cls);
		if (found)
			list(h, &l->bin[cls], unit);
		else
			i--; /* the next one of the same lane */
	}
	return found;
}

static bool make_slab(struct heap *h, struct qy_mapped_local *l, uint32_t cls)
{
	uint64_t unit = qy_units_take(h, qy_mapped_classes[cls].units), *own;

	if (unit == 0) {
		qy_redo_drop(h);
		return false;
	}
	own = qy_unit_bits(h, unit);
	memset(own, 0, 1024);
	for (uint32_t w = 0; w < words_of(cls); w++)
		own[w] = mask_of(cls, w);
	qy_unit_at(h, unit)->listed = 0;
	QY_POINT();
	if (!stage_link(h, qy_local_lane(l), l->owner, cls, unit)) {
		qy_redo_drop(h);
		errno = EROFS;
		return false;
	}
	qy_redo_commit(h);
	list(h, &l->bin[cls], unit);
	return true;
}

/* More room in a class: 0, or -1 with errno. */
static int refill(struct heap *h, struct qy_mapped_local *l, uint32_t cls)
{
	struct qy_mapped_lane *lane = qy_local_lane(l);
	int rc;

	if (qy_mapped_enter(h) != 0)
		return -1;
	rc = qy_mapped_refuse_class(h, cls);
	if (rc == 0 && (qy_peek(lane->remote) >> cls & 1) != 0)
		collect(h, l, cls);
	if (rc == 0 && l->bin[cls].room == 0 && !inherit(h, l, cls) && !make_slab(h, l, cls)) {
		int error = errno;

		collect(h, l, cls);
		if (l->bin[cls].room == 0)
			rc = qy_fail(error, "mapped heap: it cannot grow");
	}
	if (rc == 0) /* it may have been seen just now */
		rc = qy_mapped_refuse_class(h, cls);
	qy_mapped_leave(h);
	return rc;
}

/* A bin whose word has a free object, or -1. What has a slab that is full drops it: the first free in it lists it again. */
static int __attribute__((noinline)) find_room(struct heap *h, struct qy_mapped_local *l, uint32_t cls)
{
	struct qy_mapped_bin *b = &l->bin[cls];

	while (*b->word == 0) {
		if (b->unit != 0 && next_word(h, b, cls))
			break;
		if (b->unit != 0)
			qy_unit_at(h, b->unit)->listed = 0;
		rest(b);
		if (b->room == 0 && refill(h, l, cls) != 0)
			return -1;
		if (b->room != 0) {
			uint64_t unit = b->room;

			b->room = qy_unit_at(h, unit)->with_room;
			if (!stand_at(h, b, cls, unit)) {
				qy_unit_at(h, unit)->listed = 0;
				rest(b);
			}
		}
	}
	return 0;
}

/* Note says where, before it is taken: for who comes after a death. NULL: nobody is to know. */
bool qy_small_reserve(struct heap *h, struct qy_mapped_local *l, uint32_t cls, uint64_t *note, char **p)
{
	struct qy_mapped_bin *b = &l->bin[cls];
	uint64_t v;

	if (qy_mapped_refuse_class(h, cls) != 0 || (*b->word == 0 && find_room(h, l, cls) != 0))
		return false;
	v = *b->word;
	*p = b->at + (size_t)__builtin_ctzll(v) * b->size;
	if (note != NULL)
		qy_put(*note, (uint64_t)(*p - h->pub.base));
	QY_POINT();
	qy_put(*b->word, v & (v - 1));
	QY_POINT();
	return true;
}

bool qy_small_find(struct heap *h, struct qy_mapped_local *l, uint32_t cls)
{
	return qy_mapped_refuse_class(h, cls) == 0 && (*l->bin[cls].word != 0 || find_room(h, l, cls) == 0);
}

/* ---- giving back ---- */

/* (What is in neither the thread's list nor being taken from is in the list from now on.) */
void qy_slab_has_room(struct heap *h, struct qy_mapped_local *l, uint64_t unit, uint32_t cls)
{
	if (qy_unit_at(h, unit)->listed == 0)
		list(h, &l->bin[cls], unit);
}

/* Empty slabs of a lane become free units. The lock is held; l is the lane's thread's, the caller, or NULL for a lane that
 * nobody has. */
uint64_t qy_slabs_trim(struct heap *h, struct qy_mapped_lane *lane, struct qy_mapped_local *l)
{
	uint32_t owner = (uint32_t)(lane - h->lanes) + 1;
	uint64_t freed = 0;

	for (uint32_t c = 0; c < QY_MAPPED_CLASSES; c++) {
		uint64_t before = 0, unit = qy_mapped_is_bad(h, c) ? 0 : lane->slabs[c], next;

		for (; (unit = checked(h, unit, before, c, owner)) != 0; unit = next) {
			next = qy_unit_at(h, unit)->next;
			(void)take_over(h, unit, c);
			if (!is_empty(h, unit, c)) {
				before = unit;
				continue;
			}
			if (!stage_unlink(h, lane, owner, c, unit)) {
				qy_redo_drop(h);
				break;
			}
			qy_units_give(h, unit, qy_mapped_classes[c].units);
			qy_redo_commit(h);
			freed += qy_mapped_classes[c].units * QY_MAPPED_UNIT;
		}
	}
	if (l != NULL)
		qy_local_adopt(h, l);
	return freed;
}
