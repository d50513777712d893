/* SPDX-License-Identifier: MIT */
/* Notes of objects: their moves, their use. (note.h has the rules.) */
#include "lib/lanes/note.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"

#define AT_ONCE 256 /* notes that are looked at between two holds of the lock */

/* ---- moves ---- */

static void push(struct qy_note *n, uint64_t tick, int why, int from, int to)
{
	n->moved[n->moves++ % QUARRY_MOVES_KEPT] =
		(quarry_moved){ .tick = tick, .from = (uint16_t)from, .to = (uint16_t)to, .why = (uint16_t)why };
}

/* Under groups.lock: what came back since stands in the note as well. */
static void push_back(struct qy_side *side)
{
	uint32_t back = atomic_exchange_explicit(&side->back, 0, memory_order_relaxed);

	if (back != 0 && side->note != NULL)
		push(side->note, back & ~QY_SIDE_BACK, QUARRY_MOVED_REFAULTED, QUARRY_PLACE_COLD, QUARRY_PLACE_SLOW);
}

void qy_note_move(quarry_lanes *l, uint32_t slot, int why, int from, int to)
{
	struct qy_side *side = qy_side_of(l, slot);

	push_back(side);
	if (side->note == NULL)
		return;
	push(side->note, atomic_load(&l->fast.tick), why, from, to);
	l->groups.tags[side->note->tag].moved++;
}

/* ---- of one object ---- */

/* Under groups.lock, in a scope: the note of an object, which stays where it is, cold or not. NULL with errno. */
static struct qy_note *note_of(quarry_lanes *l, quarry_handle h)
{
	struct qy_note *n;

	if (!quarry_handle_valid(l, h)) {
		(void)qy_fail_handle(l, h);
		return NULL;
	}
	/* (Of an object that has no record of its own the slot's last one had none either when it ended.) */
	n = qy_side_is_there(l, (uint32_t)h) ? qy_side_of(l, (uint32_t)h)->note : NULL;
	if (n == NULL)
		(void)qy_fail(ENOENT, "it has no tag");
	return n;
}

static struct qy_note *begin(quarry_lanes *l, quarry_handle h)
{
	quarry_enter();
	qy_hold(&l->groups.lock);
	return note_of(l, h);
}

static void end(quarry_lanes *l)
{
	qy_let_go(&l->groups.lock);
	quarry_leave();
}

const char *quarry_tag_of(quarry_lanes *l, quarry_handle h)
{
	const struct qy_note *n;
	const char *name;

	if (!qy_lanes_check(l))
		return NULL;
	n = begin(l, h);
	name = n == NULL ? NULL : qy_tag_name(n->tag);
	end(l);
	return name;
}

int quarry_used(quarry_lanes *l, quarry_handle h)
{
	const struct qy_note *n;
	int used;

	if (!qy_lanes_check(l))
		return -1;
	n = begin(l, h);
	used = n == NULL ? -1 : n->used;
	end(l);
	return used;
}

int64_t quarry_moves_of(quarry_lanes *l, quarry_handle h, quarry_moved *moves, size_t room)
{
	struct qy_note *n;
	int64_t count = -1;

	if (!qy_lanes_check(l))
		return -1;
	if (moves == NULL && room > 0)
		return qy_fail(EINVAL, "moves: NULL, and room for %lu", (unsigned long)room);
	n = begin(l, h);
	if (n != NULL) {
		push_back(qy_side_of(l, (uint32_t)h));
		count = (int64_t)n->moves;
		for (uint64_t i = 0; i < room && i < n->moves && i < QUARRY_MOVES_KEPT; i++)
			moves[i] = n->moved[(n->moves - 1 - i) % QUARRY_MOVES_KEPT];
	}
	end(l);
	return count;
}

/* ---- use ---- */

static uint8_t next_use(unsigned used, bool seen)
{
	return (uint8_t)(seen ? qy_min(used + 1, QUARRY_USES - 1) : used / 2);
}

/* What becomes of an object's number. (Of one that is just freed: nothing.) */
static uint8_t look(const quarry_lanes *l, uint32_t slot, unsigned used)
{
	uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_relaxed);

	if ((word & QUARRY_WORD_FREE) || word == 0)
		return (uint8_t)used;
	return next_use(used, !(word & (QUARRY_WORD_COLD | QUARRY_WORD_UNSEEN)));
}

/* The next who gets it is noticed. (One that is just being moved counts once more.) */
static void mark_unseen(quarry_lanes *l, uint32_t slot)
{
	uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_relaxed);

	if (!(word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_MOVING | QUARRY_WORD_UNSEEN)) && word != 0)
		(void)atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_UNSEEN);
}

/* Those that have tags, each once: the first becomes the last. */
static int64_t look_at_notes(quarry_lanes *l, bool mark)
{
	struct qy_groups *g = &l->groups;
	int64_t looked = 0;
	uint64_t left;

	qy_hold(&g->lock);
	for (left = g->noted; left > 0 && !qy_list_empty(&g->notes); left--) {
		struct qy_note *n = qy_container(g->notes.next, struct qy_note, link);

		qy_list_remove(&n->link);
		qy_list_push_back(&g->notes, &n->link);
		n->used = look(l, n->slot, n->used);
		if (mark)
			mark_unseen(l, n->slot);
		if (++looked % AT_ONCE == 0) {
			qy_let_go(&g->lock);
			qy_hold(&g->lock);
		}
	}
	qy_let_go(&g->lock);
	return looked;
}

/* An object that is a sample and has a tag is looked at twice before it is marked. */
static int64_t look_at_samples(quarry_lanes *l)
{
	struct qy_figures *f = l->figures;
	int64_t looked = 0;

	qy_hold(&f->lock);
	for (unsigned i = 0; i < QY_LIVES; i++) {
		struct qy_life *life = &f->life[i];

		if (life->slot == 0)
			continue;
		life->used = (unsigned)look(l, life->slot - 1, life->used) & (QUARRY_USES - 1u);
		looked++;
	}
	qy_publish(f->looks, f->looks + 1);
	qy_let_go(&f->lock);
	return looked;
}

static void mark_samples(quarry_lanes *l)
{
	struct qy_figures *f = l->figures;

	qy_hold(&f->lock);
	for (unsigned i = 0; i < QY_LIVES; i++)
		if (f->life[i].slot != 0)
			mark_unseen(l, f->life[i].slot - 1);
	qy_let_go(&f->lock);
}

int64_t qy_usage_pass(quarry_lanes *l, bool mark)
{
	int64_t looked;

	if (atomic_exchange(&l->figures->looking, true))
		return 0;
	looked = look_at_samples(l);
	looked += look_at_notes(l, mark);
	if (mark)
		mark_samples(l);
	atomic_store(&l->figures->looking, false);
	return looked;
}

int64_t quarry_usage_look(quarry_lanes *l)
{
	if (!qy_lanes_check(l))
		return -1;
	return l->cooling == NULL ? qy_usage_pass(l, true) : 0;
}

/* Under groups.lock and figures.lock: whether a sample is of the class, and in the group, that is meant. */
static bool is_meant(const quarry_lanes *l, const struct qy_life *life, unsigned class, const quarry_group *group)
{
	if (life->slot == 0 || (class != QY_FIGURES_CLASSES && life->class != class))
		return false;
	return group == NULL || (life->group > 0 && qy_side_of(l, life->slot - 1)->group == group);
}

int quarry_usage_get(quarry_lanes *l, quarry_usage *usage, size_t size, const quarry_group *group)
{
	quarry_usage u = { .struct_size = sizeof(u) };
	unsigned class;

	if (!qy_lanes_check(l) || (group != NULL && !qy_group_check(group)))
		return -1;
	if (usage == NULL || (usage->struct_size != 0 && usage->struct_size != sizeof(u)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_usage");
	class = size == 0 ? QY_FIGURES_CLASSES : qy_class_of(size, 16, l->blob);
	qy_hold(&l->groups.lock);
	qy_hold(&l->figures->lock);
	u.looks = l->figures->looks;
	for (unsigned i = 0; i < QY_LIVES; i++) {
		const struct qy_life *life = &l->figures->life[i];

		if (!is_meant(l, life, class, group))
			continue;
		u.sampled++;
		u.used[life->fast][life->used] += group == NULL ? life->weight : life->group;
	}
	qy_let_go(&l->figures->lock);
	qy_let_go(&l->groups.lock);
	*usage = u;
	return 0;
}
