/* SPDX-License-Identifier: MIT */
/* Figures of lanes: counted, looked at, told. (figures.h has the rules.) */
#include "lib/lanes/figures.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/api/sources.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/note.h"
#include "numa/os.h"

#define SEGMENTS 2  /* that are looked at between two holds of the lock */
#define CHUNKS 1    /* the same */
#define ASIDE 1000  /* so often who walks lets others go before */
#define WALKED 64   /* chunks of which each object is looked at; the others are taken to be alike */
#define THINNED (QY_LIVES / 4 * 3)

/* ---- lifetimes ---- */

/* As if by chance: how full the table is must say how likely a place is taken, whatever slots come one after the other. (The
 * last steps of A. Appleby's MurmurHash3.) */
static uint32_t place_of(uint32_t slot)
{
	slot = (slot ^ slot >> 16) * 0x85ebca6bu;
	slot = (slot ^ slot >> 13) * 0xc2b2ae35u;
	return (slot ^ slot >> 16) % QY_LIVES;
}

void qy_lives_add(struct qy_lives *lives, uint64_t us, uint32_t weight)
{
	unsigned i = us == 0 ? 0 : (unsigned)qy_min(qy_log2_floor(us) + 1, QUARRY_LIFETIMES - 1);

	lives->count += weight;
	lives->us += us * weight;
	lives->in[i] += weight;
}

/* Half of them, by chance: the others count twice. */
static void thin(struct qy_figures *f)
{
	for (uint32_t i = 0; i < QY_LIVES; i++) {
		struct qy_life *life = &f->life[i];

		f->random = f->random * 1664525u + 1013904223u;
		if (life->slot == 0)
			continue;
		if (f->random >> 31) {
			life->slot = 0;
			f->used--;
		} else {
			life->weight = (uint32_t)qy_min((uint64_t)life->weight * 2, UINT32_MAX);
			life->group = (uint32_t)qy_min((uint64_t)life->group * 2, UINT32_MAX);
		}
	}
}

/* As many more as the table is full. */
static uint32_t scaled(const struct qy_figures *f, uint32_t weight)
{
	return (uint32_t)qy_min((uint64_t)weight * QY_LIVES / (QY_LIVES - f->used), UINT32_MAX);
}

uint32_t qy_life_begin(quarry_lanes *l, uint32_t slot, unsigned class, bool fast, uint32_t weight, uint32_t group)
{
	struct qy_figures *f = l->figures;
	struct qy_life *life = &f->life[place_of(slot)];
	uint32_t mark = 0;

	qy_hold(&f->lock);
	if (life->slot == slot + 1 && weight == 0) { /* it is one already: of its class, and now of its group */
		life->group = scaled(f, group);
		mark = QY_MARK_SAMPLED;
	} else if (life->slot == 0 || life->slot == slot + 1) {
		weight = scaled(f, weight);
		group = scaled(f, group);
		f->used += life->slot == 0;
		f->tagged[qy_thread_tag] += weight;
		*life = (struct qy_life){ .slot = slot + 1, .weight = weight, .group = group, .class = (uint16_t)class,
					  .fast = fast, .tag = qy_thread_tag, .born = qy_os->now_ns() };
		mark = QY_MARK_SAMPLED;
		if (f->used >= THINNED)
			thin(f);
	}
	qy_let_go(&f->lock);
	return mark;
}

uint32_t qy_life_mark(quarry_lanes *l, uint32_t slot)
{
	struct qy_figures *f = l->figures;
	bool there;

	qy_hold(&f->lock);
	there = f->life[place_of(slot)].slot == slot + 1;
	qy_let_go(&f->lock);
	return there ? QY_MARK_SAMPLED : 0;
}

struct qy_lived qy_life_end(quarry_lanes *l, uint32_t slot)
{
	struct qy_figures *f = l->figures;
	struct qy_life *life = &f->life[place_of(slot)];
	struct qy_lived lived = { 0 };
	uint64_t now = qy_os->now_ns();

	qy_hold(&f->lock);
	if (life->slot == slot + 1) {
		lived = (struct qy_lived){ .us = now > life->born ? (now - life->born) / 1000 : 0, .group = life->group };
		qy_lives_add(&qy_figures_of(l, life->class)->lives, lived.us, life->weight);
		qy_lives_add(&f->lives[life->fast], lived.us, life->weight);
		life->slot = 0;
		f->used--;
	}
	qy_let_go(&f->lock);
	return lived;
}

bool qy_life_move(quarry_lanes *l, uint32_t slot, uint32_t to)
{
	struct qy_figures *f = l->figures;
	struct qy_life *life = &f->life[place_of(slot)], *next = &f->life[place_of(to)], was;
	bool moved;

	qy_hold(&f->lock);
	was = *life;
	if (was.slot == slot + 1) {
		life->slot = 0;
		f->used--;
	}
	moved = was.slot == slot + 1 && next->slot == 0;
	if (moved) { /* it counts for those that found their new place taken as well */
		was.weight = scaled(f, was.weight);
		was.group = scaled(f, was.group);
		was.slot = to + 1;
		*next = was;
		f->used++;
	}
	qy_let_go(&f->lock);
	return moved;
}

/* ---- a walk ---- */

static bool lock_it(pthread_mutex_t *lock, bool wait)
{
	if (!wait)
		return qy_try_hold(lock);
	qy_hold(lock);
	return true;
}

/* Who is hurried (quarry_compact with little time) does not wait for a walk: with the lock to be had again at once, a
 * walk's next piece would begin before he is awake. */
static bool lock_lanes(quarry_lanes *l, bool wait)
{
	for (int n = 0; n < ASIDE && atomic_load(&l->hurried); n++)
		sched_yield();
	return lock_it(&l->lock, wait);
}

/* Under figures.walk: false: not all could be looked at. */
static bool walk_segments(quarry_lanes *l, quarry_lanes_stats *s, bool wait)
{
	struct qy_figures *f = l->figures;
	bool more = true;

	memset(f->next, 0, sizeof(f->next));
	if (!lock_lanes(l, wait))
		return false;
	l->figures_next = l->segments.next;
	while (more) {
		for (int i = 0; i < SEGMENTS && l->figures_next != &l->segments; i++) {
			qy_segment_count(qy_container(l->figures_next, struct qy_segment, link), s, f->next);
			l->figures_next = l->figures_next->next;
		}
		more = l->figures_next != &l->segments;
		if (!more)
			break;
		qy_let_go(&l->lock);
		if (!lock_lanes(l, wait)) {
			/* (Who holds it moves figures_next on. The next walk begins anew.) */
			return false;
		}
	}
	l->figures_next = NULL;
	s->segments = (uint32_t)l->segment_count;
	s->scratch = l->scratches * QY_SEGMENT_SIZE;
	s->held = l->segment_count * QY_SEGMENT_SIZE;
	qy_let_go(&l->lock);
	return true;
}

/* Under the lock. */
static uint64_t live_in_chunk(const struct qy_chunk *k)
{
	const char *top = __atomic_load_n(&k->top, __ATOMIC_ACQUIRE), *at;
	const struct qy_head *head;
	uint64_t live = 0;

	for (at = qy_chunk_first(k); at < top; at += qy_about_total(head->about)) {
		head = (const void *)at;
		if (!(atomic_load_explicit(&head->entry.whose, memory_order_relaxed) & QY_TOMB))
			live += qy_about_total(head->about) - sizeof(*head);
	}
	return live;
}

/* Under figures.walk. */
static bool walk_chunks(quarry_lanes *l, quarry_lanes_figures *g, bool wait)
{
	uint64_t walked = 0, objects = 0;
	unsigned chunks = 0;
	bool more = true;

	if (!lock_lanes(l, wait))
		return false;
	l->figures_chunk = l->fast.chunks.next;
	while (more) {
		for (int i = 0; i < CHUNKS && l->figures_chunk != &l->fast.chunks; i++) {
			struct qy_chunk *k = qy_container(l->figures_chunk, struct qy_chunk, link);
			int64_t alive = (int64_t)qy_peek(k->own) + atomic_load_explicit(&k->live, memory_order_relaxed);

			l->figures_chunk = l->figures_chunk->next;
			if (alive <= 0 || alive >= 1 << 29) /* (what a fork left: qy_fast_keep) */
				continue;
			g->fast_objects += (uint64_t)alive;
			if (++chunks > WALKED)
				continue;
			objects += (uint64_t)alive;
			walked += live_in_chunk(k);
		}
		more = l->figures_chunk != &l->fast.chunks;
		if (more) {
			qy_let_go(&l->lock);
			if (!lock_lanes(l, wait))
				return false;
		}
	}
	l->figures_chunk = NULL;
	g->fast_held = l->fast.held;
	qy_let_go(&l->lock);
	g->fast_live = objects == 0 ? 0 : (uint64_t)((double)walked / (double)objects * (double)g->fast_objects);
	return true;
}

/* ---- all of it ---- */

static uint64_t allocated(struct qy_class_figures *c)
{
	uint64_t taken = qy_read(&c->taken), refaults = qy_read(&c->refaults);

	return taken > refaults ? taken - refaults : 0;
}

static uint64_t cold_of(struct qy_class_figures *c)
{
	uint64_t cooled = qy_read(&c->cooled), gone = qy_read(&c->refaults) + qy_read(&c->cold_freed);

	return cooled > gone ? cooled - gone : 0;
}

/* Live ones. (Both counts move on while they are read.) */
static uint64_t huge_objects(quarry_lanes *l)
{
	uint64_t all = atomic_load(&l->huge_count), dead = atomic_load(&l->huge_tombs_count);

	return all > dead ? all - dead : 0;
}

static bool is_used(quarry_lanes *l, unsigned i)
{
	struct qy_class_figures *c = &l->figures->of[i];

	return qy_read(&c->taken) + qy_read(&c->moved) + qy_read(&c->cooled) + l->figures->sums[i].held + c->lives.count != 0;
}

static void of_slow(quarry_lanes *l, quarry_lanes_figures *g, const quarry_lanes_stats *s)
{
	struct qy_figures *f = l->figures;

	g->objects = s->objects + huge_objects(l);
	g->live = s->live + atomic_load(&l->huge);
	g->held = s->held + atomic_load(&l->huge);
	g->waiting = s->waiting;
	g->segments = s->segments;
	g->scratch = s->scratch;
	g->handles = atomic_load(&l->slots.next);
	g->retired = qy_peek(l->slots.retired);
	g->freed_segments = qy_read(&l->freed_segments);
	g->mover_ns = qy_read(&l->governor.ns);
	g->mover_plans = qy_read(&l->governor.plans);
	g->recalled = qy_read(&l->recalls);
	g->moved_bytes = qy_read(&l->moved_bytes);
	g->given_up = qy_read(&l->given_up) + qy_read(&l->fast.given_up);
	g->moved[QUARRY_MOVED_NODE] = qy_read(&f->migrated);
	g->moved[QUARRY_MOVED_PACKED] = qy_read(&l->moved);
	for (unsigned i = 0; i < QY_FIGURES_CLASSES; i++) {
		g->allocated += allocated(&f->of[i]);
		g->moved[QUARRY_MOVED_COOLED] += qy_read(&f->of[i].cooled);
		g->moved[QUARRY_MOVED_REFAULTED] += qy_read(&f->of[i].refaults);
		g->classes += is_used(l, i);
	}
}

static void of_fast(quarry_lanes *l, quarry_lanes_figures *g)
{
	int64_t stubs = atomic_load(&l->fast.stubs);

	g->fast_allocated = qy_read(&l->figures->fast_allocated);
	g->fast_ticks = atomic_load(&l->fast.tick);
	g->fast_resets = qy_read(&l->fast.resets);
	g->fast_stubs = stubs > 0 ? (uint64_t)stubs : 0;
	g->fast_spilled = qy_read(&l->fast.spilled);
	g->fast_failed_over = qy_read(&l->fast.failed_over);
	g->fast_refused = qy_read(&l->fast.refused);
	for (int i = 0; i < QUARRY_PROMOTIONS; i++)
		g->moved[QUARRY_MOVED_AGE + i] = qy_read(&l->fast.promoted[i]);
	g->moved[QUARRY_MOVED_DEMOTED] = qy_read(&l->fast.demoted);
}

static void of_cold(quarry_lanes *l, quarry_lanes_figures *g)
{
	struct qy_cold_figures c = { 0 };

	if (l->cold != NULL)
		qy_cold_count(l->cold, &c);
	g->cold_objects = c.objects;
	g->cold_bytes = c.bytes;
	g->cold_compressed = c.compressed;
	g->cold_evicted = c.evicted;
	g->incompressible = c.incompressible;
	g->corrupt = c.corrupt;
	g->failures = c.failures;
	g->deepened = c.deepened;
	g->dictionaries = c.dictionaries;
	g->dictionary_bytes = c.dictionary_bytes;
	g->cold_period_ms = qy_cool_period(l);
}

/* Under figures.walk: what could not be had at once is as it was. */
static void look(quarry_lanes *l, bool wait)
{
	struct qy_figures *f = l->figures;
	quarry_lanes_figures g = { .struct_size = sizeof(g), .number = l->id };
	quarry_lanes_stats s = { 0 };

	if (!walk_segments(l, &s, wait) || !walk_chunks(l, &g, wait) || !lock_it(&l->groups.lock, wait))
		return;
	for (struct qy_link *k = l->groups.all.next; k != &l->groups.all; k = k->next)
		g.groups++;
	qy_let_go(&l->groups.lock);
	if (!lock_it(&f->lock, wait))
		return;
	memcpy(f->sums, f->next, sizeof(f->sums));
	for (int i = 0; i < 2; i++) {
		g.lived[i] = f->lives[i].count;
		g.lived_us[i] = f->lives[i].us;
		memcpy(g.lifetimes[i], f->lives[i].in, sizeof(g.lifetimes[i]));
	}
	memcpy(g.name, f->name, sizeof(g.name));
	of_slow(l, &g, &s);
	of_fast(l, &g);
	of_cold(l, &g);
	qy_let_go(&f->lock);
	f->last = g;
}

/* ---- classes and groups ---- */

static void name_class(quarry_lanes_part *p, unsigned i)
{
	char digits[24];
	size_t n = 0, at = 0;

	if (i == QY_FIGURES_WHOLE || i == QY_FIGURES_HUGE) {
		strncpy(p->name, i == QY_FIGURES_WHOLE ? "whole" : "huge", sizeof(p->name) - 1);
		return;
	}
	for (uint64_t size = p->size; n == 0 || size > 0; size /= 10)
		digits[n++] = (char)('0' + size % 10);
	while (n > 0)
		p->name[at++] = digits[--n];
}

/* Under figures.walk and figures.lock. */
static void fill_class(quarry_lanes *l, quarry_lanes_part *p, unsigned i)
{
	struct qy_class_figures *c = &l->figures->of[i];
	const struct qy_class_sum *sum = &l->figures->sums[i];

	*p = (quarry_lanes_part){ .struct_size = sizeof(*p), .lanes = l->id, .kind = QUARRY_PART_CLASS,
				  .size = i < QY_CLASSES_MAX ? qy_class_size(i) : 0, .objects = sum->objects,
				  .live = sum->live, .held = sum->held, .allocated = allocated(c), .moved = qy_read(&c->moved),
				  .cooled = qy_read(&c->cooled), .refaults = qy_read(&c->refaults), .cold_objects = cold_of(c),
				  .lived = c->lives.count, .lived_us = c->lives.us };
	p->cold_bytes = p->cold_objects * p->size;
	if (i == QY_FIGURES_HUGE) {
		p->objects = huge_objects(l);
		p->live = p->held = atomic_load(&l->huge);
	}
	memcpy(p->lifetimes, c->lives.in, sizeof(p->lifetimes));
	name_class(p, i);
}

static void fill_group(const quarry_lanes *l, quarry_lanes_part *p, const quarry_group *g)
{
	*p = (quarry_lanes_part){ .struct_size = sizeof(*p), .lanes = l->id, .kind = QUARRY_PART_GROUP, .objects = g->objects,
				  .live = g->bytes, .limit = g->limit, .refused = g->refused, .allocated = g->came,
				  .moved = g->moved, .lived = g->lives.count, .lived_us = g->lives.us };
	memcpy(p->name, g->name, sizeof(p->name));
	memcpy(p->lifetimes, g->lives.in, sizeof(p->lifetimes));
}

/* Where there is no room for all: instead of the smallest that is there, if that is smaller. (They keep no order then.) */
static void put(quarry_lanes_part *list, size_t max, size_t *count, const quarry_lanes_part *p)
{
	size_t least = 0;

	if ((*count)++ < max) {
		list[*count - 1] = *p;
		return;
	}
	for (size_t i = 1; i < max; i++)
		if (list[i].live + list[i].cold_bytes < list[least].live + list[least].cold_bytes)
			least = i;
	if (max > 0 && list[least].live + list[least].cold_bytes < p->live + p->cold_bytes)
		list[least] = *p;
}

/* Under figures.walk. */
static size_t parts(quarry_lanes *l, quarry_lanes_part *list, size_t max, bool wait)
{
	quarry_lanes_part p;
	size_t count = 0;

	if (lock_it(&l->figures->lock, wait)) {
		for (unsigned i = 0; i < QY_FIGURES_CLASSES; i++)
			if (is_used(l, i)) {
				fill_class(l, &p, i);
				put(list, max, &count, &p);
			}
		qy_let_go(&l->figures->lock);
	}
	if (lock_it(&l->groups.lock, wait)) {
		for (struct qy_link *k = l->groups.all.next; k != &l->groups.all; k = k->next) {
			fill_group(l, &p, qy_container(k, quarry_group, link));
			put(list, max, &count, &p);
		}
		for (unsigned tag = 1; qy_tag_name(tag) != NULL; tag++)
			if (qy_tag_part(l, tag, &p, wait))
				put(list, max, &count, &p);
		qy_let_go(&l->groups.lock);
	}
	return count;
}

/* ---- for others ---- */

static size_t all_lanes(quarry_lanes_figures *list, size_t max, bool wait)
{
	size_t count = 0;

	for (uint32_t number = 1; number < QY_LANES_MAX; number++) {
		quarry_lanes *l = qy_lanes_walk(number, wait);

		if (l == NULL)
			continue;
		if (count < max)
			look(l, wait);
		if (count < max && l->figures->last.struct_size != 0)
			list[count++] = l->figures->last;
		else if (count >= max)
			count++;
		qy_let_go(&l->figures->walk);
	}
	return count;
}

static size_t parts_of(uint32_t number, quarry_lanes_part *list, size_t max, bool wait)
{
	quarry_lanes *l = qy_lanes_walk(number, wait);
	size_t count;

	if (l == NULL)
		return 0;
	count = parts(l, list, max, wait);
	qy_let_go(&l->figures->walk);
	return count;
}

bool qy_figures_make(quarry_lanes *l, const char *name)
{
	static const struct qy_lanes_source source = { all_lanes, parts_of };
	struct qy_figures *f = l->figures = quarry_calloc(1, sizeof(*f));

	if (f == NULL)
		return false;
	pthread_mutex_init(&f->walk, NULL);
	pthread_mutex_init(&f->lock, NULL);
	if (name != NULL)
		memcpy(f->name, name, strnlen(name, sizeof(f->name) - 1));
	qy_lanes_source_set(&source);
	return true;
}

/* Who walked, or told of a life, is not here. */
void qy_figures_in_child(quarry_lanes *l)
{
	pthread_mutex_init(&l->figures->walk, NULL);
	pthread_mutex_init(&l->figures->lock, NULL);
	l->figures_next = l->figures_chunk = NULL;
	atomic_store(&l->figures->looking, false);
}

int quarry_lanes_figures_get(quarry_lanes *l, quarry_lanes_figures *figures)
{
	if (!qy_lanes_check(l))
		return -1;
	if (figures == NULL || (figures->struct_size != 0 && figures->struct_size != sizeof(*figures)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_lanes_figures");
	qy_hold(&l->figures->walk);
	look(l, true);
	*figures = l->figures->last;
	qy_let_go(&l->figures->walk);
	return 0;
}

int64_t quarry_lanes_parts(quarry_lanes *l, quarry_lanes_part *list, size_t room)
{
	size_t count;

	if (!qy_lanes_check(l))
		return -1;
	if (list == NULL && room > 0)
		return qy_fail(EINVAL, "parts: NULL, and room for %lu", (unsigned long)room);
	qy_hold(&l->figures->walk);
	look(l, true);
	count = parts(l, list, room, true);
	qy_let_go(&l->figures->walk);
	return (int64_t)count;
}
