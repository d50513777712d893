/* SPDX-License-Identifier: MIT */
/* Objects pinned: they stay where they are. A pin is counted in the object's entry, and then its word is looked at: who
 * moves or frees it changes the word first and looks at the pins then, so that one of the two sees the other. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/object.h"

/* It is changing its slot: until it has. (Who has the lock never meets one that does.) */
QY_COLD static uint32_t marks_unclaimed(quarry_lanes *l, const struct qy_entry *entry)
{
	qy_hold(&l->groups.lock);
	qy_let_go(&l->groups.lock);
	return atomic_load(&entry->marks);
}

/* One more pin; -1: too many. */
static int add_pin(quarry_lanes *l, struct qy_entry *entry)
{
	uint32_t marks = atomic_load_explicit(&entry->marks, memory_order_relaxed);

	do {
		while (QY_UNLIKELY(marks & QY_MARK_CLAIMED))
			marks = marks_unclaimed(l, entry);
		if ((marks & QY_MARK_PINS) == QY_MARK_PINS) {
			return qy_fail(EAGAIN, "it has 65,535 pins");
		}
	} while (!atomic_compare_exchange_weak(&entry->marks, &marks, marks + 1));
	return 0;
}

static void *pin_live(quarry_lanes *l, quarry_handle h)
{
	for (;;) {
		uint64_t word = qy_look(l, h), now;
		struct qy_entry *entry;

		if (word == 0)
			return NULL;
		entry = qy_entry_at(qy_word_address(word), word);
		if (add_pin(l, entry) != 0)
			return NULL;
		now = qy_settle_word(l, h);
		if (now != 0 && ((now ^ word) & QUARRY_WORD_ADDRESS) == 0)
			return qy_word_address(now);
		/* It has gone from there, or for ever. */
		qy_release_zombie(l, entry, atomic_fetch_sub(&entry->marks, 1) - 1);
	}
}

QY_NOINLINE static void *pin_slow(quarry_lanes *l, quarry_handle h)
{
	void *p;

	if (!qy_lanes_check(l))
		return NULL;
	quarry_enter();
	p = pin_live(l, h);
	quarry_leave();
	return p;
}

/* It went while it was pinned. The scope was not counted, and is while that is done. */
QY_COLD static void pin_back(quarry_lanes *l, struct qy_lanes_record *r, struct qy_entry *entry)
{
	r->depth++;
	qy_release_zombie(l, entry, atomic_fetch_sub(&entry->marks, 1) - 1);
	r->depth--;
}

/* In a scope: one more pin of what is in a span, does not move and is plain to see, at the first try; else NULL. */
QY_INLINE void *pin_plain(quarry_lanes *l, struct qy_lanes_record *r, quarry_handle h)
{
	const uint64_t same = QY_WORD_STATES | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING;
	qy_word *at = &l->word[qy_slot_of(h)];
	uint64_t word = atomic_load_explicit(at, memory_order_acquire);
	struct qy_entry *entry;
	uint32_t marks;

	if (QY_UNLIKELY(((word ^ h << 16) & (same | QUARRY_WORD_UNSEEN)) != 0))
		return NULL; /* (unseen: it is seen by that, the slow way) */
	entry = qy_entry_of(qy_word_address(word));
	marks = atomic_load_explicit(&entry->marks, memory_order_relaxed);
	if (QY_UNLIKELY(((marks ^ qy_marks_of(h)) & ~QY_MARK_PINS) != 0 || (marks & QY_MARK_PINS) == QY_MARK_PINS) ||
	    QY_UNLIKELY(!atomic_compare_exchange_strong(&entry->marks, &marks, marks + 1)))
		return NULL;
	if (QY_LIKELY(((atomic_load(at) ^ word) & (same | QUARRY_WORD_ADDRESS)) == 0))
		return qy_word_address(word);
	pin_back(l, r, entry);
	return NULL;
}

void *quarry_pin(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC && r != NULL && qy_is_ours(l, h))) {
		bool outermost = qy_scope_begin(r);
		void *p = pin_plain(l, r, h);

		qy_scope_end(r, outermost);
		if (QY_LIKELY(p != NULL))
			return p;
	}
	return pin_slow(l, h);
}

static int unpin(quarry_lanes *l, quarry_handle h)
{
	uint64_t word = atomic_load(&l->word[qy_slot_of(h)]), generation = word >> 48;
	struct qy_entry *entry;
	uint32_t marks;

	if (generation != qy_generation_of(h) && (generation != qy_generation_of(h) + 1 || (word & QY_WORD_FREED) != QY_WORD_FREED))
		return -1;
	if ((word & QY_WORD_FREED) == QUARRY_WORD_FREE || (word & QUARRY_WORD_COLD))
		return -1;
	entry = qy_entry_at(qy_word_address(word), word);
	marks = atomic_load(&entry->marks);
	do {
		/* In its own life, or freed with pins. (Who frees it may not have said ZOMBIE yet: then it finds out that there are no
		 * pins.) */
		if ((marks & QY_MARK_PINS) == 0)
			return -1;
	} while (!atomic_compare_exchange_weak(&entry->marks, &marks, marks - 1));
	qy_release_zombie(l, entry, marks - 1);
	return 0;
}

QY_NOINLINE static int unpin_slow(quarry_lanes *l, quarry_handle h)
{
	int result;

	if (!qy_lanes_check(l))
		return -1;
	if (!qy_is_ours(l, h))
		return qy_fail(EINVAL, "no handle of these lanes");
	quarry_enter();
	result = unpin(l, h);
	quarry_leave();
	return result == 0 ? 0 : qy_fail(EINVAL, "it is not pinned");
}

/* In a scope: one pin less of what is in a span and not freed, at the first try. */
QY_INLINE bool unpin_plain(quarry_lanes *l, quarry_handle h)
{
	uint64_t word = atomic_load_explicit(&l->word[qy_slot_of(h)], memory_order_acquire);
	struct qy_entry *entry;
	uint32_t marks;

	if (QY_UNLIKELY(((word ^ h << 16) & (QY_WORD_STATES | QUARRY_WORD_HEAD)) != 0))
		return false;
	entry = qy_entry_of(qy_word_address(word));
	marks = atomic_load_explicit(&entry->marks, memory_order_relaxed);
	return QY_LIKELY((marks & QY_MARK_PINS) != 0 && !(marks & QY_MARK_ZOMBIE)) &&
	       atomic_compare_exchange_strong(&entry->marks, &marks, marks - 1);
}

int quarry_unpin(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_LIKELY(l != NULL && l->magic == QY_LANES_MAGIC && r != NULL && qy_is_ours(l, h))) {
		bool outermost = qy_scope_begin(r), done = unpin_plain(l, h);

		qy_scope_end(r, outermost);
		if (QY_LIKELY(done))
			return 0;
	}
	return unpin_slow(l, h);
}
