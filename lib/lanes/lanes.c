/* SPDX-License-Identifier: MIT */
/* Lanes: made, looked at, ended. */
#include "lib/lanes/events.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/figures.h"
#include "lib/lanes/group.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"

#define HANDLES_MAX ((uint64_t)QY_TOMB - 2)
#define HANDLES_DEFAULT ((uint64_t)1 << 24)

#define START 10 /* the governor's, in percent: quarry_lanes_attr tells of what */
#define START_COLD 3 /* where what has become cold is to be gained */
#define IGNORE_COLD (4 * (uint64_t)QY_SEGMENT_SIZE)
#define FULL 100
#define LEAST 1
#define MOST 25
#define SCRATCH 10

static uint32_t or_else(uint32_t value, uint32_t standard)
{
	return value == 0 ? standard : value;
}

bool qy_lanes_check_slow(const quarry_lanes *l)
{
	if (l != NULL && l->magic == QY_LANES_MAGIC_CANARIES)
		return true;
	(void)qy_fail(EINVAL, "these are no lanes");
	return false;
}

static bool check_attr(const quarry_lanes_attr *a)
{
	if (a->struct_size != 0 && a->struct_size != sizeof(*a))
		qy_fail(EINVAL, "struct_size: %d is not the size of any quarry_lanes_attr", (int)a->struct_size);
	else if ((a->flags & ~(uint32_t)(QUARRY_LANES_NO_MOVER | QUARRY_LANES_CANARIES)) != 0)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", (unsigned)a->flags);
	else if (a->reserved != 0 || a->mover_reserved != 0)
		qy_fail(EINVAL, "%s: is not 0", a->reserved != 0 ? "reserved" : "mover_reserved");
	else if (a->handles > HANDLES_MAX)
		qy_fail(EINVAL, "handles: %lu is more than %lu", (unsigned long)a->handles, (unsigned long)HANDLES_MAX);
	else if (a->generations > QY_GENERATION_LAST)
		qy_fail(EINVAL, "generations: %d is more than 65534", (int)a->generations);
	else if (a->mover_least > 100 || a->mover_most > 100 || or_else(a->mover_least, LEAST) > or_else(a->mover_most, MOST))
		qy_fail(EINVAL, "mover_least, mover_most: %d to %d is no share of a processor", (int)a->mover_least,
			(int)a->mover_most);
	else if (or_else(a->mover_start, a->cold != NULL ? START_COLD : START) >= or_else(a->mover_full, FULL))
		qy_fail(EINVAL, "mover_full: not more than mover_start");
	else if (a->blob_reserved != 0)
		qy_fail(EINVAL, "blob_reserved: is not 0");
	else if (a->blob_threshold != 0 && (a->blob_threshold < QY_CLASS_FINE || a->blob_threshold > QY_CLASS_LARGEST))
		qy_fail(EINVAL, "blob_threshold: %u is not 1024 to 131072", (unsigned)a->blob_threshold);
	else if (a->mover_scratch > 50)
		qy_fail(EINVAL, "mover_scratch: %d is more than 50", (int)a->mover_scratch);
	else if (a->arena != NULL && a->memory != NULL)
		qy_fail(EINVAL, "memory: an arena is given as well");
	else if (a->cold != NULL && a->cold->struct_size != 0 && a->cold->struct_size != sizeof(*a->cold))
		qy_fail(EINVAL, "cold: struct_size: %d is not the size of any quarry_cold_attr", (int)a->cold->struct_size);
	else if (a->cold != NULL && (a->cold->flags & ~(uint32_t)QUARRY_COLD_NO_COPIES) != 0)
		qy_fail(EINVAL, "cold: flags: unknown bits in 0x%x", (unsigned)a->cold->flags);
	else if (a->cold != NULL && a->cold->long_reserved != 0)
		qy_fail(EINVAL, "cold: long_reserved: is not 0");
	else if (a->cold != NULL && a->cold->stall_percent > 100)
		qy_fail(EINVAL, "cold: stall_percent: %u is more than 100", a->cold->stall_percent);
	else if (a->cold != NULL && a->cold->directory == NULL && (a->cold->memory_limit != 0 || a->cold->file_limit != 0))
		qy_fail(EINVAL, "cold: limits of a file, and no directory for it");
	else
		return true;
	return false;
}

bool qy_home_make(quarry_lanes *l, quarry_arena *arena, int node)
{
	struct qy_home *home = l->homes == QY_HOMES ? NULL : quarry_calloc(1, sizeof(*home));

	if (home == NULL) {
		errno = l->homes == QY_HOMES ? ENOSPC : ENOMEM;
		return false;
	}
	home->arena = arena;
	home->node = node;
	for (unsigned class = 0; class < QY_CLASSES_MAX; class++)
		for (unsigned i = 0; i < QY_FULLNESS; i++)
			qy_list_init(&home->partial[class][i]);
	qy_hold(&l->lock);
	l->home[l->homes++] = home;
	qy_let_go(&l->lock);
	return true;
}

/* Words that read as 0, in memory as they are used. */
static qy_word *words_make(quarry_lanes *l, uint64_t count)
{
	size_t bytes = qy_align_up(count * sizeof(qy_word), QY_SEGMENT_SIZE);
	qy_word *words = quarry_arena_aligned_alloc(l->arena, QY_SEGMENT_SIZE, bytes);

	if (words != NULL && quarry_discard(words, bytes) != 0)
		memset(words, 0, bytes);
	return words;
}

static void end(quarry_lanes *l)
{
	int error = errno;

	qy_cooling_end(l);
	quarry_free(l->figures);
	for (unsigned i = 0; i < l->homes; i++)
		quarry_free(l->home[i]);
	qy_slots_end(l);
	quarry_free(l->word);
	if (l->own != NULL)
		(void)quarry_arena_destroy(l->own);
	l->magic = 0;
	quarry_free(l);
	errno = error;
}

static bool fill(quarry_lanes *l, const quarry_lanes_attr *a)
{
	uint64_t handles = a->handles == 0 ? HANDLES_DEFAULT : a->handles;

	if (qy_fast_start(l, a) != 0 || !qy_figures_make(l, a->name))
		return false;
	pthread_mutex_init(&l->lock, NULL);
	qy_lanes_events_start(l);
	l->arena = a->arena;
	if (a->memory != NULL)
		l->arena = l->own = quarry_arena_create(a->memory);
	if (a->memory != NULL && l->own == NULL)
		return false;
	if (!qy_home_make(l, l->arena, -1))
		return false;
	l->map.slots = handles;
	l->word = words_make(l, handles);
	if (l->word == NULL || !qy_slots_start(l)) {
		errno = ENOMEM;
		return false;
	}
	l->generations = a->generations == 0 ? QY_GENERATION_LAST : a->generations;
	pthread_mutex_init(&l->moving, NULL);
	qy_groups_start(l);
	qy_list_init(&l->segments);
	qy_list_init(&l->dead);
	qy_list_init(&l->spares);
	qy_list_init(&l->plan.drained);
	qy_list_init(&l->plan.forgotten);
	for (unsigned i = 0; i < QY_BUCKETS; i++)
		qy_list_init(&l->plan.bucket[i]);
	qy_list_init(&l->huge_objects);
	qy_list_init(&l->huge_tombs);
	l->scratch_percent = or_else(a->mover_scratch, SCRATCH);
	l->blob = a->blob_threshold == 0 ? QY_CLASS_LARGEST : qy_class_round(a->blob_threshold);
	l->canaries = (a->flags & QUARRY_LANES_CANARIES) != 0;
	l->governor.on = !(a->flags & QUARRY_LANES_NO_MOVER);
	l->governor.start = or_else(a->mover_start, a->cold != NULL ? START_COLD : START);
	l->governor.full = or_else(a->mover_full, FULL);
	l->governor.least = or_else(a->mover_least, LEAST);
	l->governor.most = or_else(a->mover_most, MOST);
	l->governor.ignore = a->mover_ignore == 0 && a->cold != NULL ? IGNORE_COLD : a->mover_ignore;
	l->governor.due = l->governor.pack_due = UINT64_MAX;
	l->map.words = (const uint64_t *)l->word;
	l->map.epoch = (const uint64_t *)&qy_epoch;
	l->map.writes = (const uint64_t *)l->writes;
	return a->cold == NULL || qy_cooling_make(l, a->cold) == 0;
}

quarry_lanes *quarry_lanes_create(const quarry_lanes_attr *attr)
{
	static const quarry_lanes_attr none;
	quarry_lanes *l;

	if (attr == NULL)
		attr = &none;
	if (!check_attr(attr))
		return NULL;
	l = quarry_calloc(1, sizeof(*l));
	if (l == NULL)
		return NULL;
	if (!fill(l, attr) || qy_lanes_register(l) != 0) {
		end(l);
		return NULL;
	}
	l->map.number = (uint64_t)l->id << 56;
	l->magic = l->canaries ? QY_LANES_MAGIC_CANARIES : QY_LANES_MAGIC;
	if (l->cold != NULL)
		qy_background_cool(l);
	return l;
}

int quarry_lanes_destroy(quarry_lanes *l)
{
	if (!qy_lanes_check(l))
		return -1;
	if (qy_lanes_is_telling(l))
		return qy_fail(EDEADLK, "called from inside their function of quarry_lanes_on_event");
	qy_events_deliver();
	/* First of all: their function may be running, in another thread, and use them. From here on nobody is told of them, be it that
	 * what follows frees something. */
	qy_lanes_events_end(l);
	qy_lanes_unregister(l);
	qy_huge_end(l);
	qy_scratch_trim(l, true);
	qy_fast_destroy(l);
	qy_groups_end(l);
	while (!qy_list_empty(&l->segments)) {
		struct qy_segment *g = qy_container(l->segments.next, struct qy_segment, link);

		for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++)
			qy_span_untell(&g->span[i]);
		qy_list_remove(&g->link);
		quarry_free(g);
	}
	end(l);
	return 0;
}

int quarry_lanes_stats_get(quarry_lanes *l, quarry_lanes_stats *stats)
{
	quarry_lanes_stats s = { 0 };

	if (!qy_lanes_check(l))
		return -1;
	if (stats == NULL || (stats->struct_size != 0 && stats->struct_size != sizeof(s)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_lanes_stats");
	s.struct_size = sizeof(s);
	qy_hold(&l->lock);
	s.segments = (uint32_t)l->segment_count;
	for (struct qy_link *k = l->segments.next; k != &l->segments; k = k->next)
		qy_segment_count(qy_container(k, struct qy_segment, link), &s, NULL);
	s.scratch = l->scratches * QY_SEGMENT_SIZE;
	qy_let_go(&l->lock);
	s.objects += atomic_load(&l->huge_count);
	s.live += atomic_load(&l->huge);
	s.held = l->segment_count * QY_SEGMENT_SIZE + atomic_load(&l->huge);
	qy_hold(&l->slots.lock);
	s.handles = atomic_load(&l->slots.next);
	s.retired = l->slots.retired;
	qy_let_go(&l->slots.lock);
	s.moved = qy_read(&l->moved);
	s.moved_bytes = qy_read(&l->moved_bytes);
	s.given_up = qy_read(&l->given_up);
	s.freed_segments = qy_read(&l->freed_segments);
	s.mover_ns = qy_read(&l->governor.ns);
	s.mover_plans = qy_read(&l->governor.plans);
	s.recalled = qy_read(&l->recalls);
	*stats = s;
	return 0;
}
