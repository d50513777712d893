/* SPDX-License-Identifier: MIT */
/* What nothing leads to, in a copy of the process (leaks.h). What is not reached from the roots has leaked. Of that, what
 * nothing else that leaked points to is told of, with all that it leads to; then rings, of which one is as good as any. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/manager/manager.h"
#include "lib/view/leaks.h"
#include "lib/view/profile.h"
#include "lib/view/roots.h"

#define GROUPS_FIRST 4096

struct groups {
	struct qy_leak_group *at; /* open addressing; unused: size 0 */
	size_t room, count, mapped;
};

struct scan {
	struct qy_leak_question *question;
	struct qy_reach reach;
	struct groups groups;
	bool failed;
};

/* ---- groups ---- */

static bool map_groups(struct groups *g, size_t room)
{
	size_t bytes = qy_align_up(room * sizeof(g->at[0]), QY_PAGE);
	void *p = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return false;
	*g = (struct groups){ .at = p, .room = room, .mapped = bytes };
	return true;
}

static uint64_t hash_of(const struct qy_leak_group *like)
{
	uint64_t h = (uintptr_t)like->site ^ like->size << 20 ^ (uint64_t)like->arena << 8 ^ (uint32_t)like->node;

	h *= 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static bool is_like(const struct qy_leak_group *a, const struct qy_leak_group *b)
{
	return a->site == b->site && a->size == b->size && a->arena == b->arena && a->node == b->node;
}

static struct qy_leak_group *place_for(const struct groups *g, const struct qy_leak_group *like)
{
	size_t i = hash_of(like) % g->room;

	while (g->at[i].size != 0 && !is_like(&g->at[i], like))
		i = (i + 1) % g->room;
	return &g->at[i];
}

static bool grow(struct groups *g)
{
	struct groups old = *g;

	if (!map_groups(g, old.room == 0 ? GROUPS_FIRST : 2 * old.room)) {
		*g = old;
		return false;
	}
	for (size_t i = 0; i < old.room; i++)
		if (old.at[i].size != 0)
			*place_for(g, &old.at[i]) = old.at[i];
	g->count = old.count;
	if (old.at != NULL)
		qy_os->munmap(old.at, old.mapped);
	return true;
}

static struct qy_leak_group *group_of(struct scan *s, const struct qy_leak_group *like)
{
	struct qy_leak_group *g;

	if (s->groups.count >= s->groups.room / 2 && !grow(&s->groups)) {
		s->failed = true;
		return NULL;
	}
	g = place_for(&s->groups, like);
	if (g->size == 0) {
		*g = *like;
		s->groups.count++;
	}
	return g;
}

/* ---- what leaked ---- */

static struct qy_thing thing_of(const quarry_view_item *item)
{
	return (struct qy_thing){ qy_window_offset(item->address), item->size };
}

static bool has_leaked(const struct scan *s, const quarry_view_item *item, struct qy_thing *thing)
{
	*thing = thing_of(item);
	return item->state == QUARRY_VIEW_LIVE && !qy_reached(&s->reach, thing->offset);
}

static int count_live(const quarry_view_item *item, void *ctx)
{
	struct qy_leak_scan *sums = ctx;

	if (item->state == QUARRY_VIEW_LIVE) {
		sums->live_objects++;
		sums->live_bytes += item->size;
	}
	return 0;
}

static uint64_t *word_of(const struct scan *s, const struct qy_thing *thing, uint64_t *bit)
{
	uint64_t grain = thing->offset / QY_SNAP_GRAIN;

	*bit = UINT64_C(1) << grain % 64;
	return grain < s->question->seen_bits ? &s->question->seen[grain / 64] : NULL;
}

/* The first of two scans: note what was not reached. */
static int note_seen(const quarry_view_item *item, void *ctx)
{
	struct scan *s = ctx;
	struct qy_thing thing;
	uint64_t bit, *word;

	if (has_leaked(s, item, &thing) && (word = word_of(s, &thing, &bit)) != NULL)
		*word |= bit;
	return 0;
}

/* The second: what was reached the first time, or was not there, is in somebody's hands. */
static int reach_unseen(const quarry_view_item *item, void *ctx)
{
	struct scan *s = ctx;
	struct qy_thing thing;
	uint64_t bit, *word;

	if (has_leaked(s, item, &thing) && ((word = word_of(s, &thing, &bit)) == NULL || !(*word & bit)))
		qy_reach_thing(&s->reach, &thing);
	return 0;
}

static int note_targets(const quarry_view_item *item, void *ctx)
{
	struct scan *s = ctx;
	struct qy_thing thing;

	if (has_leaked(s, item, &thing))
		qy_reach_note_targets(&s->reach, &thing);
	return 0;
}

static struct qy_leak_group like_site(const struct qy_site *site)
{
	return (struct qy_leak_group){ .site = site, .size = site->size, .arena = site->arena,
				       .node = qy_site_node(site) };
}

static void tell(struct scan *s, const quarry_view_item *item, const struct qy_thing *thing)
{
	struct qy_leak_group like = { .size = item->size, .arena = (uint32_t)(item->arena - qy_arenas),
				      .node = item->node }, *g;
	struct qy_leak_scan *sums = s->question->scan;
	struct qy_sample sample;

	if (qy_sample_find(item->address, &sample))
		like = like_site(sample.site);
	s->reach.objects = s->reach.bytes = 0;
	qy_reach_thing(&s->reach, thing);
	g = group_of(s, &like);
	sums->objects++;
	sums->bytes += thing->bytes;
	sums->held_objects += s->reach.objects - 1;
	sums->held_bytes += s->reach.bytes - thing->bytes;
	if (g == NULL)
		return;
	if (g->objects < QY_LEAK_EXAMPLES)
		g->example[g->objects] = item->address;
	g->objects++;
	g->bytes += thing->bytes;
	g->held_objects += s->reach.objects - 1;
	g->held_bytes += s->reach.bytes - thing->bytes;
}

static int tell_first(const quarry_view_item *item, void *ctx)
{
	struct scan *s = ctx;
	struct qy_thing thing;

	if (has_leaked(s, item, &thing) && !qy_reach_is_target(&s->reach, thing.offset))
		tell(s, item, &thing);
	return 0;
}

static int sweep_ring(const quarry_view_item *item, void *ctx)
{
	struct scan *s = ctx;
	struct qy_thing thing;

	if (has_leaked(s, item, &thing) && qy_reach_is_target(&s->reach, thing.offset))
		qy_reach_sweep(&s->reach, &thing);
	return 0;
}

static void tell_rings(struct scan *s)
{
	struct qy_thing thing;
	quarry_view_item item;

	while (qy_reach_kept(&s->reach, &thing))
		if (!qy_reached(&s->reach, thing.offset) &&
		    quarry_view_find(s->reach.view, qy_window_at(thing.offset), &item, sizeof(item)) == 0)
			tell(s, &item, &thing);
}

/* ---- what can be reached, of samples ---- */

static void add_reachable(void *ctx, const struct qy_sample *sample)
{
	struct scan *s = ctx;
	struct qy_leak_group like = like_site(sample->site), *g;

	if (!qy_reached(&s->reach, qy_window_offset((void *)sample->address)))
		return;
	g = group_of(s, &like);
	if (g != NULL)
		g->reachable_weight += sample->weight;
}

/* ---- all of it ---- */

static void visit(struct scan *s, int (*fn)(const quarry_view_item *item, void *ctx), void *ctx)
{
	(void)quarry_view_visit(s->reach.view, QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, fn, ctx);
}

static bool write_groups(struct scan *s)
{
	for (size_t i = 0; i < s->groups.room; i++)
		if (s->groups.at[i].size != 0 &&
		    qy_os->write_all(s->question->fd, &s->groups.at[i], sizeof(s->groups.at[i])) != 0)
			return false;
	s->question->scan->groups = s->groups.count;
	return true;
}

static int look(struct scan *s)
{
	struct qy_leak_question *q = s->question;

	visit(s, count_live, q->scan);
	if (q->seen != NULL && !q->again) {
		visit(s, note_seen, s);
		return 0;
	}
	if (q->seen != NULL)
		visit(s, reach_unseen, s);
	qy_samples_visit(add_reachable, s);
	visit(s, note_targets, s);
	visit(s, tell_first, s);
	visit(s, sweep_ring, s);
	tell_rings(s);
	q->scan->scanned = s->reach.scanned;
	q->scan->skipped = s->reach.skipped;
	if (s->failed)
		return ENOMEM;
	return write_groups(s) ? 0 : errno;
}

int qy_leak_scan(void *question, const struct qy_stopped *stopped)
{
	struct qy_leak_question *q = question;
	struct scan s = { .question = q };
	struct qy_roots roots;
	quarry_view *v;

	qy_os->close_others(&q->fd, 1);
	if (!qy_roots_read(&roots))
		return ENOENT;
	v = quarry_view_open();
	if (v == NULL || !qy_reach_begin(&s.reach, v))
		return ENOMEM;
	q->scan->inexact = v->report.unsettled + v->report.missed;
	return qy_reach_from_roots(&s.reach, &roots, stopped, q->stack) ? look(&s) : ENOMEM;
}
