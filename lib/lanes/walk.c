/* SPDX-License-Identifier: MIT */
/* Objects one by one, and pictures of where they are. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/text.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/note.h"
#include "lib/lanes/object.h"

#define LINES 4096 /* bytes that are written at once */
#define AT_ONCE 4  /* segments that are looked at between two holds of the lock */

/* ---- one ---- */

static int place_of(uint64_t word)
{
	return (word & QUARRY_WORD_HEAD) && qy_head_of(qy_word_address(word))->about != 0 ? QUARRY_PLACE_FAST : QUARRY_PLACE_SLOW;
}

/* In a scope: what is noted of it, as long as it is there (group.c: qy_side_went). */
static void look_at_side(quarry_lanes *l, uint32_t slot, uint32_t marks, quarry_object *o)
{
	const struct qy_side *side;

	if (!(marks & QY_MARK_SIDE))
		return;
	qy_hold(&l->groups.lock);
	side = qy_side_of(l, slot);
	if ((uint16_t)(atomic_load(&l->word[slot]) >> 48) == (uint16_t)(o->handle >> 32)) {
		o->group = side->group;
		o->tag = side->note == NULL ? NULL : qy_tag_name(side->note->tag);
	}
	qy_let_go(&l->groups.lock);
}

static int state_of(uint64_t word, uint32_t marks)
{
	if (marks & QY_MARK_PINS)
		return QUARRY_HANDLE_PINNED;
	return word & QUARRY_WORD_MOVING ? QUARRY_HANDLE_MOVING : QUARRY_HANDLE_VALID;
}

/* The slot's object, which is cold. False: it is not any more. */
static bool look_at_cold(quarry_lanes *l, uint32_t slot, uint64_t word, quarry_object *o)
{
	struct qy_cold_object c;
	uint32_t marks;

	if (!qy_cold_marks(l, slot, word, &marks))
		return false;
	o->handle = qy_handle_make(l, slot, word, marks);
	if (qy_cold_look(l, o->handle, word, &c) != 1)
		return false;
	o->state = c.corrupt ? QUARRY_HANDLE_LOST : c.evicted ? QUARRY_HANDLE_EVICTED : QUARRY_HANDLE_COLD;
	o->place = QUARRY_PLACE_COLD;
	o->size = c.size - qy_canary_bytes(l);
	look_at_side(l, slot, marks, o);
	return true;
}

/* In a scope: the slot's object; false: it has none. */
static bool look(quarry_lanes *l, uint32_t slot, quarry_object *o)
{
	uint64_t word;
	uint32_t marks;

	*o = (quarry_object){ 0 };
	do {
		word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
		if ((word & QUARRY_WORD_FREE) || word == 0)
			return false;
	} while ((word & QUARRY_WORD_COLD) && !look_at_cold(l, slot, word, o));
	if (word & QUARRY_WORD_COLD)
		return true;
	marks = atomic_load(&qy_entry_at(qy_word_address(word), word)->marks);
	o->handle = qy_handle_make(l, slot, word, marks);
	o->state = qy_canary_is_whole(l, word) ? state_of(word, marks) : QUARRY_HANDLE_CORRUPT;
	o->place = place_of(word);
	o->size = qy_bytes_of(l, word);
	o->at = qy_word_address(word);
	look_at_side(l, slot, marks, o);
	return true;
}

static bool is_meant(const quarry_object *o, unsigned flags)
{
	return (!(flags & QUARRY_WALK_REDIRECTED) || ((int64_t)o->handle > 0 && o->place != QUARRY_PLACE_FAST)) &&
	       (!(flags & QUARRY_WALK_TAGGED) || o->tag != NULL);
}

/* In a scope: the next one that is meant, from this slot on, which is moved on. False: there is none. */
static bool next(quarry_lanes *l, uint32_t *slot, unsigned flags, quarry_object *o)
{
	while ((*slot = qy_slot_in_memory_from(l, *slot)) < atomic_load(&l->slots.next))
		if (look(l, (*slot)++, o) && is_meant(o, flags))
			return true;
	return false;
}

int64_t quarry_lanes_walk(quarry_lanes *l, unsigned flags, int (*each)(void *arg, const quarry_object *object), void *arg)
{
	int64_t count = 0;
	quarry_object o;
	bool more = true;

	if (!qy_lanes_check(l))
		return -1;
	if (each == NULL || (flags & ~(QUARRY_WALK_REDIRECTED | QUARRY_WALK_TAGGED)) != 0)
		return qy_fail(EINVAL, "flags 0x%x, or no function", flags);
	for (uint32_t slot = 0; more; count += more) {
		bool ended = false;

		quarry_enter();
		more = next(l, &slot, flags, &o);
		if (more)
			ended = each(arg, &o) != 0;
		quarry_leave();
		if (ended)
			return count + 1;
	}
	return count;
}

/* ---- lines ---- */

static const char *name_of_place(int place)
{
	return place == QUARRY_PLACE_FAST ? "fast" : place == QUARRY_PLACE_SLOW ? "slow" : "cold";
}

static const char *name_of_state(int state)
{
	switch (state) {
	case QUARRY_HANDLE_PINNED: return "pinned";
	case QUARRY_HANDLE_MOVING: return "moving";
	case QUARRY_HANDLE_COLD: return "compressed";
	case QUARRY_HANDLE_EVICTED: return "evicted";
	case QUARRY_HANDLE_LOST: return "lost";
	case QUARRY_HANDLE_CORRUPT: return "corrupt";
	default: return "valid";
	}
}

/* Outside of scopes: who reads what is written may take his time. */
static void put_object(struct qy_text *out, quarry_lanes *l, const quarry_object *o)
{
	quarry_moved m;

	qy_text_format(out, "%016llx born %s in %s %s %llu bytes", (unsigned long long)o->handle,
		       (int64_t)o->handle > 0 ? "fast" : "slow", name_of_place(o->place), name_of_state(o->state),
		       (unsigned long long)o->size);
	if (o->tag != NULL && quarry_moves_of(l, o->handle, &m, 1) > 0)
		qy_text_format(out, " moved %s at tick %llu", quarry_move_name(m.why), (unsigned long long)m.tick);
	if (o->tag != NULL) { /* the last, for it may be anything */
		qy_text_format(out, " tag ");
		qy_text_quoted(out, o->tag, strlen(o->tag), QUARRY_TAG_NAME * 4);
	}
	qy_text_put(out, "\n", 1);
}

static int64_t dump(quarry_lanes *l, int fd, unsigned flags, bool head)
{
	char buffer[LINES];
	struct qy_text out;
	int64_t count = 0;
	quarry_object o;
	bool more = true;
	int error = errno;

	if (!qy_lanes_check(l))
		return -1;
	if (fd < 0)
		return qy_fail(EINVAL, "fd: %d is none", fd);
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	if (head)
		qy_text_format(&out, "lanes %u %s: %u slots used\n", l->id, l->figures->name, atomic_load(&l->slots.next));
	for (uint32_t slot = 0; more && out.error == 0; count += more) {
		quarry_enter();
		more = next(l, &slot, flags, &o);
		quarry_leave();
		if (more)
			put_object(&out, l, &o);
	}
	if (qy_text_flush(&out) != 0)
		return -1;
	errno = error;
	return count;
}

int64_t quarry_redirections_dump(quarry_lanes *l, int fd)
{
	return dump(l, fd, QUARRY_WALK_REDIRECTED, false);
}

int64_t quarry_lanes_dump(quarry_lanes *l, int fd)
{
	return dump(l, fd, 0, true);
}

/* ---- a picture ---- */

static char sign_of(uint64_t live, uint64_t bytes)
{
	uint64_t tenths = (live * 10 + bytes - 1) / bytes;

	return live == 0 ? '.' : tenths > 9 ? '#' : (char)('0' + tenths);
}

/* Under the lock: a character for each page. */
static void draw_segment(const struct qy_segment *g, char *line)
{
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (s->back > 0) /* inside of one that begins before it */
			line[i] = line[i - s->back];
		else
			line[i] = !qy_is_span(s) ? '.' : sign_of((uint64_t)qy_live_objects(s) * s->size, s->pages * QY_LPAGE_SIZE);
	}
}

/* Under the lock: some lines, of segments from the one on that figures_next says. Who takes that out of the list moves it on. */
static size_t draw_some(quarry_lanes *l, char (*line)[QY_SEGMENT_PAGES + 1], size_t room)
{
	size_t n = 0;

	for (; n < room && l->figures_next != &l->segments; l->figures_next = l->figures_next->next) {
		draw_segment(qy_container(l->figures_next, struct qy_segment, link), line[n]);
		line[n++][QY_SEGMENT_PAGES] = '\n';
	}
	return n;
}

/* All of them, as far as there is room. */
static size_t draw_all(quarry_lanes *l, char (*line)[QY_SEGMENT_PAGES + 1], size_t room)
{
	size_t count = 0, n;

	qy_hold(&l->figures->walk);
	qy_hold(&l->lock);
	l->figures_next = l->segments.next;
	do {
		n = draw_some(l, line + count, qy_min(room - count, AT_ONCE));
		count += n;
		qy_let_go(&l->lock);
		qy_hold(&l->lock);
	} while (n > 0);
	l->figures_next = NULL;
	qy_let_go(&l->lock);
	qy_let_go(&l->figures->walk);
	return count;
}

int64_t quarry_lanes_draw(quarry_lanes *l, int fd)
{
	char (*line)[QY_SEGMENT_PAGES + 1], buffer[LINES];
	struct qy_text out;
	size_t room, count;
	int error = errno;

	if (!qy_lanes_check(l))
		return -1;
	if (fd < 0)
		return qy_fail(EINVAL, "fd: %d is none", fd);
	room = atomic_load(&l->segment_count) + AT_ONCE;
	line = quarry_malloc(room * sizeof(*line));
	if (line == NULL)
		return -1;
	count = draw_all(l, line, room);
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	qy_text_put(&out, line[0], count * sizeof(*line));
	quarry_free(line);
	if (qy_text_flush(&out) != 0)
		return -1;
	errno = error;
	return (int64_t)count;
}

/* ---- how full ---- */

/* What is held in segments, and could be in as few as hold what is live there. */
static uint64_t to_gain(uint64_t live, uint64_t held)
{
	uint64_t need = qy_align_up(live, QY_SEGMENT_SIZE);

	return held > need ? held - need : 0;
}

int quarry_lanes_space_get(quarry_lanes *l, quarry_lanes_space *space)
{
	quarry_lanes_space s = { .struct_size = sizeof(s) };
	quarry_lanes_figures g = { 0 };
	uint64_t huge, fast, slow;

	if (space == NULL || (space->struct_size != 0 && space->struct_size != sizeof(s)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_lanes_space");
	if (quarry_lanes_figures_get(l, &g) != 0)
		return -1;
	huge = atomic_load(&l->huge);
	fast = l->fast.size != 0 ? l->fast.size : g.fast_held;
	slow = l->fast.slow_size != 0 ? l->fast.slow_size : g.held;
	s.size = fast + slow;
	s.used = g.live + g.fast_live;
	s.free = s.size > s.used ? s.size - s.used : 0;
	s.usage = s.size == 0 ? 0 : (uint32_t)qy_min(s.used * 100 / s.size, 100);
	if (g.held > 0)
		s.fragmentation = (uint32_t)(to_gain(g.live - qy_min(huge, g.live), g.held - qy_min(huge, g.held)) * 100 / g.held);
	*space = s;
	return 0;
}
