/* SPDX-License-Identifier: MIT */
/* Names of objects, and of what threads allocate. The table of names is the process's: it only grows, and is read without a lock. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/note.h"

static _Atomic(char *) names[QUARRY_TAGS + 1]; /* [0]: none */
__thread uint8_t qy_thread_tag;

const char *qy_tag_name(unsigned tag)
{
	return tag == 0 || tag > QUARRY_TAGS ? NULL : atomic_load_explicit(&names[tag], memory_order_acquire);
}

uint8_t qy_tag_number(const char *name)
{
	size_t size = name == NULL ? 0 : strnlen(name, QUARRY_TAG_NAME);
	char *mine = NULL;

	if (size == 0 || size == QUARRY_TAG_NAME) {
		(void)qy_fail(EINVAL, "name: 1 to %d bytes", QUARRY_TAG_NAME - 1);
		return 0;
	}
	for (unsigned tag = 1; tag <= QUARRY_TAGS; tag++) {
		char *there = atomic_load_explicit(&names[tag], memory_order_acquire);

		if (there == NULL && mine == NULL) {
			mine = quarry_malloc(size + 1);
			if (mine == NULL)
				return 0;
			memcpy(mine, name, size + 1);
		}
		if (there == NULL && atomic_compare_exchange_strong(&names[tag], &there, mine))
			return (uint8_t)tag;
		if (strcmp(there, name) == 0) { /* (or somebody else just put it there) */
			quarry_free(mine);
			return (uint8_t)tag;
		}
	}
	quarry_free(mine);
	(void)qy_fail(ENOSPC, "there are %d tags already", QUARRY_TAGS);
	return 0;
}

int quarry_set_thread_tag(const char *name)
{
	uint8_t tag = name == NULL ? 0 : qy_tag_number(name);

	if (name != NULL && tag == 0)
		return -1;
	qy_thread_tag = tag;
	return 0;
}

const char *quarry_thread_tag(void)
{
	return qy_tag_name(qy_thread_tag);
}

/* ---- objects ---- */

/* Under groups.lock. */
static void count(quarry_lanes *l, const struct qy_note *n, bool comes)
{
	struct qy_tag_sum *sum = &l->groups.tags[n->tag];

	sum->objects += comes ? 1 : -(uint64_t)1;
	sum->bytes += comes ? (uint64_t)n->units * 16 : -((uint64_t)n->units * 16);
	sum->came += comes;
}

void qy_note_end(quarry_lanes *l, uint32_t slot)
{
	struct qy_side *side = qy_side_of(l, slot);
	struct qy_note *n = side->note;

	if (n == NULL)
		return;
	count(l, n, false);
	qy_list_remove(&n->link);
	l->groups.noted--;
	side->note = NULL;
	quarry_free(n);
}

void qy_notes_end(quarry_lanes *l)
{
	while (!qy_list_empty(&l->groups.notes)) {
		struct qy_note *n = qy_container(l->groups.notes.next, struct qy_note, link);

		qy_list_remove(&n->link);
		quarry_free(n);
	}
	quarry_free(l->groups.tags);
}

/* Under groups.lock: a note for the object of this slot. */
static struct qy_note *note_make(quarry_lanes *l, uint32_t slot, size_t size)
{
	struct qy_note *n = quarry_calloc(1, sizeof(*n));

	if (l->groups.tags == NULL)
		l->groups.tags = quarry_calloc(QUARRY_TAGS + 1, sizeof(*l->groups.tags));
	if (n == NULL || l->groups.tags == NULL) {
		quarry_free(n);
		errno = ENOMEM;
		return NULL;
	}
	n->slot = slot;
	n->units = (uint32_t)qy_min(size / 16, UINT32_MAX);
	qy_list_push_back(&l->groups.notes, &n->link);
	l->groups.noted++;
	return n;
}

/* Under groups.lock, in a scope: 0, or the errno. */
static int put_tag(quarry_lanes *l, quarry_handle h, uint8_t tag)
{
	uint64_t word = qy_side_mark(l, h, 0);
	struct qy_side *side;
	struct qy_note *n;

	if (word == 0)
		return errno;
	side = qy_side_of(l, (uint32_t)h);
	n = side->note;
	if (tag == 0) {
		qy_note_end(l, (uint32_t)h);
		return 0;
	}
	if (n != NULL)
		count(l, n, false);
	else
		n = side->note = note_make(l, (uint32_t)h, qy_size_of(word));
	if (n == NULL)
		return ENOMEM;
	n->tag = tag;
	count(l, n, true);
	return 0;
}

int quarry_tag(quarry_lanes *l, quarry_handle h, const char *name)
{
	uint8_t tag = 0;
	int error;

	if (!qy_lanes_check(l) || (name != NULL && (tag = qy_tag_number(name)) == 0))
		return -1;
	quarry_enter();
	qy_hold(&l->groups.lock);
	error = put_tag(l, h, tag);
	qy_let_go(&l->groups.lock);
	quarry_leave();
	if (error == ENOMEM)
		return qy_fail(ENOMEM, "no memory for a note");
	if (error == 0)
		return 0;
	errno = error; /* with its text */
	return -1;
}

/* ---- figures ---- */

/* How large a sample is. (Who does not wait may be a signal handler, which enters no scope.) */
static uint64_t size_of(quarry_lanes *l, const struct qy_life *life, bool wait)
{
	uint64_t size = 0, word;

	if (life->class < QY_CLASSES_MAX || !wait)
		return life->class < QY_CLASSES_MAX ? qy_class_size(life->class) : 0;
	quarry_enter();
	word = atomic_load_explicit(&l->word[life->slot - 1], memory_order_acquire);
	if (!(word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD)) && (word & QUARRY_WORD_ADDRESS) != 0)
		size = qy_size_of(word);
	quarry_leave();
	return size;
}

/* What samples say that threads with this tag have. */
static void of_samples(quarry_lanes *l, unsigned tag, quarry_lanes_part *p, bool wait)
{
	struct qy_figures *f = l->figures;

	if (wait)
		qy_hold(&f->lock);
	else if (!qy_try_hold(&f->lock))
		return;
	p->allocated += f->tagged[tag];
	for (unsigned i = 0; i < QY_LIVES; i++) {
		const struct qy_life *life = &f->life[i];

		if (life->slot == 0 || life->tag != tag)
			continue;
		p->objects += life->weight;
		p->live += size_of(l, life, wait) * life->weight;
	}
	qy_let_go(&f->lock);
}

bool qy_tag_part(quarry_lanes *l, unsigned tag, quarry_lanes_part *p, bool wait)
{
	const char *name = qy_tag_name(tag);

	if (name == NULL)
		return false;
	*p = (quarry_lanes_part){ .struct_size = sizeof(*p), .lanes = l->id, .kind = QUARRY_PART_TAG };
	memcpy(p->name, name, strlen(name) + 1);
	if (l->groups.tags != NULL) {
		p->objects = l->groups.tags[tag].objects;
		p->live = l->groups.tags[tag].bytes;
		p->allocated = l->groups.tags[tag].came;
		p->moved = l->groups.tags[tag].moved;
	}
	of_samples(l, tag, p, wait);
	return p->allocated > 0;
}
