/* SPDX-License-Identifier: MIT */
/* The figures. Counters are read as they are, without stopping anyone; slabs are looked at one by one through their
 * records (their fields may change while they are read: each is one word, and the sum is as true as a moving thing's
 * can be); residency is asked of mincore(2), frame by frame, so that the kernel's lock is held for microseconds. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/figures.h"
#include "lib/api/init.h"
#include "lib/base/settings.h"
#include "lib/cache/idle.h"
#include "lib/cache/thread.h"
#include "lib/manager/collapse.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/mixed.h"
#include "lib/reclaim/reclaim.h"
#include "lib/view/print.h"
#include "lib/view/publish.h"
#include "numa/os.h"
#include "lib/base/refused.h"
#include "numa/topology.h"

#define REGIONS_AT_A_TIME 64

/* What is free in a slab: to be used at once, or parked, which is not in memory. The record belongs to whoever holds
 * the slab, and goes on writing it. */
static void look_at_slab(const struct qy_slab *s, quarry_stats *stats)
{
	const struct qy_class *c = &qy_classes[qy_peek(s->cls)];
	uint32_t live = qy_peek(s->countdown), carved = qy_peek(s->carved), linked = qy_peek(s->linked), parked;
	uint64_t bytes;

	if (qy_slab_is_mixed(s)) {
		/* (Of a mixed one they are the grains in use, and those that are not parked.) */
		c = &qy_classes[QY_MIXED_CLASS];
		live = linked;
		linked = carved;
		carved = c->capacity;
	}
	if (qy_peek(s->state) == QY_SLAB_FULL || live > c->capacity)
		return;
	parked = linked < carved ? (uint32_t)qy_min(carved - linked, c->capacity - live) : 0;
	stats->cached += (uint64_t)(c->capacity - live - parked) * c->size;
	bytes = (uint64_t)parked * c->size;
	stats->free_clean += bytes;
	stats->in_use -= qy_min(stats->in_use, bytes);
}

static void look_at_slabs(uint32_t f, quarry_stats *stats)
{
	const struct qy_slab *s = qy_slab_at((uintptr_t)f << QY_FRAME_SHIFT);

	for (uint32_t u = 0; u < QY_FRAME_UNITS; u++)
		if (qy_peek(s[u].kind) == QY_SLAB_HEAD)
			look_at_slab(&s[u], stats);
}

static void look_at_frame(uint32_t f, quarry_stats *stats)
{
	stats->resident += (uint64_t)qy_region_resident(qy_window_at((uintptr_t)f << QY_FRAME_SHIFT)) << QY_PAGE_SHIFT;
	if (qy_peek(qy_frame_at(f)->filler) == QY_FILL_SLABS + 1)
		look_at_slabs(f, stats);
}

static void look_at_all_frames(quarry_stats *stats)
{
	uint32_t frames = (uint32_t)(qy_window_claimed() >> QY_FRAME_SHIFT);

	for (uint32_t f = 1; f < frames; f++)
		if (qy_region_of_frame(qy_frame_at(f)) != NULL)
			look_at_frame(f, stats);
}

/* A manager's regions, some at a time, so that its lock is held for a moment only. One that comes or goes meanwhile may
 * be missed, or make another one be. */
static void look_at_frames_of(struct qy_manager *m, quarry_stats *stats)
{
	struct {
		uint32_t first, frames;
	} some[REGIONS_AT_A_TIME];
	size_t done = 0, got;

	do {
		size_t skip = done;

		got = 0;
		qy_lock(&m->lock);
		for (struct qy_region *r = m->regions; r != NULL && got < REGIONS_AT_A_TIME; r = r->next) {
			if (skip > 0) {
				skip--;
				continue;
			}
			some[got].first = (uint32_t)qy_region_frame(r);
			some[got++].frames = r->frames;
		}
		qy_unlock(&m->lock);
		for (size_t i = 0; i < got; i++)
			for (uint32_t f = 0; f < some[i].frames; f++)
				look_at_frame(some[i].first + f, stats);
		done += got;
	} while (got == REGIONS_AT_A_TIME);
}

struct sum {
	const struct qy_manager *head; /* of the arena; NULL: all */
	quarry_stats *stats;
};

static void add_thread(void *ctx, struct qy_thread *t)
{
	struct sum *sum = ctx;

	for (struct qy_cache *c = __atomic_load_n(&t->caches, __ATOMIC_ACQUIRE); c != NULL; c = qy_peek(c->next)) {
		if (sum->head != NULL && qy_peek(qy_peek(c->heap.manager)->head) != sum->head)
			continue;
		sum->stats->refills += qy_read(&c->heap.refills);
		sum->stats->remote_frees += qy_read(&c->heap.remote_received);
		sum->stats->adopted += qy_read(&c->heap.adopted);
	}
}

/* Of a frame that pages are carved from. */
static uint64_t clean_pages_in(uint32_t f)
{
	qy_page b = f * QY_FRAME_PAGES, end = b + QY_FRAME_PAGES;
	uint64_t pages = 0;

	for (; b < end; b += qy_block_length(&qy_page_map, b))
		if (!qy_block_used(&qy_page_map, b) && qy_block_clean(&qy_page_map, b))
			pages += qy_block_length(&qy_page_map, b);
	return pages * QY_PAGE;
}

/* Free in a region, not dirty, and what is behind the ends of blocks. */
static uint64_t clean_in(const struct qy_region *r)
{
	uint32_t f = (uint32_t)qy_region_frame(r), end = f + r->frames, frames;
	uint64_t bytes = 0;

	for (; f < end; f += frames) {
		frames = qy_block_length(&qy_run_map, f);
		if (qy_frame_at(f)->filler != 0)
			bytes += clean_pages_in(f);
		else if (qy_block_used(&qy_run_map, f))
			bytes += ((uint64_t)frames << QY_FRAME_SHIFT) -
				 atomic_load_explicit(&qy_frame_at(f)->bytes, memory_order_relaxed);
		else if (qy_block_clean(&qy_run_map, f))
			bytes += (uint64_t)frames << QY_FRAME_SHIFT;
	}
	return bytes;
}

/* Memory that is filled when it is mapped and goes back by whole regions is there, be it never used. */
static uint64_t clean_and_there(struct qy_manager *m)
{
	uint64_t bytes = 0;

	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		bytes += qy_region_pinned(r) ? clean_in(r) : 0;
	qy_unlock(&m->lock);
	return bytes;
}

/* What was counted in it, but for threads' caches. */
static void add_counts(struct qy_manager *m, quarry_stats *stats)
{
	struct qy_mixed *mixed = __atomic_load_n(&m->mixed, __ATOMIC_ACQUIRE);

	stats->refills += qy_read(&m->past_refills);
	stats->adopted += qy_read(&m->past_adopted);
	/* (What m->thinning received it sent on, to one of those that are counted.) */
	stats->remote_frees += qy_read(&m->past_received);
	atomic_thread_fence(memory_order_acquire); /* what is handed over to those is missing for a moment, never twice */
	stats->remote_frees += qy_read(&m->orphans.remote_received);
	stats->remote_frees += mixed == NULL ? 0 : qy_read(&mixed->heap.remote_received);
}

static void add_manager(struct qy_manager *m, quarry_stats *stats)
{
	uint64_t there = clean_and_there(m);
	uint64_t mapped = qy_read(&m->mapped), used = qy_read(&m->used);
	uint64_t dirty = qy_read(&m->dirty_pages) * QY_PAGE + there;
	struct qy_mixed *mixed = __atomic_load_n(&m->mixed, __ATOMIC_ACQUIRE);

	stats->arenas += qy_peek(m->head) == m; /* a family is one */
	stats->regions += qy_read(&m->region_count);
	stats->mapped += mapped;
	stats->peak_mapped += qy_read(&m->peak_mapped);
	stats->in_use += used; /* less what is free in slabs, see look_at_slab() and finish() */
	stats->large += qy_read(&m->large);
	stats->free_dirty += dirty;
	stats->free_clean += mapped > used + dirty ? mapped - used - dirty : 0;
	stats->unplaced += qy_read(&m->unplaced);
	stats->placed_less += qy_read(&m->placed_less);
	stats->in_files += qy_read(&m->in_files);
	stats->strayed += qy_read(&m->strayed);
	stats->brought_home += qy_read(&m->brought_home);
	stats->moved += qy_read(&m->moved);
	stats->collapsed += qy_read(&m->huge.collapsed);
	stats->collapse_failed += qy_read(&m->huge.collapse_failed);
	stats->mixed += mixed == NULL ? 0 : qy_read(&mixed->slabs) * QY_UNIT;
	stats->purges += qy_read(&m->purges);
	stats->purged += qy_read(&m->purged);
	stats->hard_limit += atomic_load_explicit(&m->hard_limit, memory_order_relaxed); /* of a family the head
	                                                                                  * has them */
	stats->soft_limit += atomic_load_explicit(&m->soft_limit, memory_order_relaxed);
	for (int kind = 0; kind < 5; kind++) {
		stats->kind_wanted[kind] += qy_read(&m->kind_wanted[kind]);
		stats->kind_got[kind] += qy_read(&m->kind_got[kind]);
	}
	add_counts(m, stats);
}

/* Arenas that ended: what happened in them has happened. */
static void add_past(quarry_stats *stats)
{
	stats->purges += qy_read(&qy_past.purges);
	stats->purged += qy_read(&qy_past.purged);
	stats->brought_home += qy_read(&qy_past.brought_home);
	stats->moved += qy_read(&qy_past.moved);
	stats->collapsed += qy_read(&qy_past.collapsed);
	stats->collapse_failed += qy_read(&qy_past.collapse_failed);
	stats->refills += qy_read(&qy_past.refills);
	stats->remote_frees += qy_read(&qy_past.received);
	stats->adopted += qy_read(&qy_past.adopted);
	atomic_thread_fence(memory_order_acquire);
}

static void add_caches(quarry_stats *stats, const struct qy_manager *m)
{
	struct sum sum = { m, stats };

	qy_threads_visit(add_thread, &sum);
}

static void add_moves(void *stats, struct qy_thread *t)
{
	((quarry_stats *)stats)->node_moves += qy_read(&t->moves);
}

/* An arena: its manager, or the head of its family and those that have its memory. */
static void add_arena(struct qy_manager *head, quarry_stats *stats)
{
	add_manager(head, stats);
	for (struct qy_manager *m = qy_family_next(head, NULL); m != NULL; m = qy_family_next(head, m)) {
		if (m != head)
			add_manager(m, stats);
		look_at_frames_of(m, stats);
	}
}

static uint64_t metadata(void)
{
	return qy_window_metadata_touched() + qy_meta_used();
}

static void add_process(quarry_stats *stats)
{
	qy_threads_visit(add_moves, stats);
	stats->passes = qy_reclaim_passes();
	stats->pass_ns = qy_reclaim_pass_ns();
	stats->collapse_ns = qy_collapse_ns();
	stats->purge_ns = qy_region_purge_ns();
	stats->bad_frees = qy_mistake_count();
	stats->threads = qy_threads_live();
	stats->reclaimer = qy_reclaim_running();
	stats->reclaimed_by = qy_reclaim_way();
	stats->idle_given_up = qy_read(&qy_idle_given_up);
	stats->idle_refused = qy_read(&qy_idle_refused);
	stats->split = qy_region_splits();
	stats->advised_apart = qy_region_exceptions();
	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++)
		stats->refused[i] = qy_read(&qy_refused[i]);
}

static uint64_t decay_of(long decay_ms)
{
	return decay_ms < 0 ? UINT64_MAX : (uint64_t)decay_ms;
}

static int get_older(quarry_arena *arena, quarry_stats *older)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	if (quarry_stats_get(arena, &stats) != 0)
		return -1;
	qy_stats_as(older, &stats);
	return 0;
}

uint64_t qy_arena_number(const quarry_arena *arena)
{
	return (uint64_t)(arena - qy_arenas);
}

/* Here, and not in publish.c, which a static program would leave out: nothing calls it by name. */
static __attribute__((constructor)) void begin_publishing(void)
{
	qy_publish_begin();
}

/* All but what caches have counted, and metadata. */
static void get_of_arena(struct qy_manager *m, quarry_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	stats->version = QUARRY_STATS_VERSION;
	qy_manager_name(m, stats->name);
	stats->node = qy_peek(m->of_node) ? qy_node_kernel_id((int)qy_peek(m->index)) : -1;
	add_arena(m, stats);
	stats->decay = decay_of(qy_manager_decay_set(m));
	stats->in_use -= qy_min(stats->in_use, stats->cached);
	add_process(stats);
}

static void get_of_process(quarry_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	stats->version = QUARRY_STATS_VERSION;
	stats->node = -1;
	/* (First: one that ends meanwhile is missing for a moment, and never there twice.) */
	add_past(stats);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		add_manager(m, stats);
	stats->peak_mapped = qy_managers_peak_mapped();
	look_at_all_frames(stats);
	stats->decay = decay_of(qy_setting(decay_ms));
	stats->in_use -= qy_min(stats->in_use, stats->cached);
	add_caches(stats, NULL);
	qy_os->page_faults(&stats->minor_faults, &stats->major_faults);
	add_process(stats);
}

QUARRY_API int quarry_stats_get(quarry_arena *arena, quarry_stats *stats)
{
	struct qy_manager *m = NULL;

	if (stats == NULL || stats->version == 0 || stats->version > QUARRY_STATS_VERSION)
		return qy_fail(EINVAL, "stats: NULL, or its version is not from 1 to %d", QUARRY_STATS_VERSION);
	if (stats->version < QUARRY_STATS_VERSION)
		return get_older(arena, stats);
	qy_init_once();
	if (arena != NULL) {
		m = qy_manager_of_arena(arena);
		if (m == NULL)
			return qy_fail_arena(arena);
	}
	if (m != NULL) {
		get_of_arena(m, stats);
		add_caches(stats, m);
	} else {
		get_of_process(stats);
	}
	stats->metadata = metadata();
	return 0;
}

/* ---- of many arenas ---- */

struct qy_arena_counts {
	size_t mapped, room;
	uint64_t metadata;
	struct {
		uint64_t refills, remote_frees, adopted;
	} of[]; /* by the arena's number */
};

static void count_caches(void *ctx, struct qy_thread *t)
{
	struct qy_arena_counts *counts = ctx;

	for (struct qy_cache *c = __atomic_load_n(&t->caches, __ATOMIC_ACQUIRE); c != NULL; c = qy_peek(c->next)) {
		const struct qy_manager *head = qy_peek(qy_peek(c->heap.manager)->head);
		uint32_t i = head == NULL ? UINT32_MAX : qy_peek(head->index);

		if (i >= counts->room)
			continue;
		counts->of[i].refills += qy_read(&c->heap.refills);
		counts->of[i].remote_frees += qy_read(&c->heap.remote_received);
		counts->of[i].adopted += qy_read(&c->heap.adopted);
	}
}

/* What was counted in caches that are gone, before those that are there: what goes from one to the other meanwhile is missing
 * for a moment, never there twice. */
static void count_past(struct qy_arena_counts *counts, const struct qy_arena_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		struct qy_manager *head = qy_manager_of_arena(list->at[i]);
		quarry_stats stats = { .version = QUARRY_STATS_VERSION };
		uint64_t number = qy_arena_number(list->at[i]);

		if (head == NULL)
			continue;
		add_counts(head, &stats);
		for (struct qy_manager *m = qy_family_next(head, NULL); m != NULL; m = qy_family_next(head, m))
			if (m != head)
				add_counts(m, &stats);
		counts->of[number].refills = stats.refills;
		counts->of[number].remote_frees = stats.remote_frees;
		counts->of[number].adopted = stats.adopted;
	}
	atomic_thread_fence(memory_order_acquire);
}

struct qy_arena_counts *qy_arena_counts_get(const struct qy_arena_list *list)
{
	struct qy_arena_counts *counts;
	size_t room = 0, bytes;

	for (size_t i = 0; i < list->count; i++)
		room = qy_max(room, qy_arena_number(list->at[i]) + 1);
	bytes = qy_align_up(sizeof(*counts) + room * sizeof(counts->of[0]), qy_os_page_size());
	counts = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		return NULL;
	counts->mapped = bytes;
	counts->room = room;
	counts->metadata = metadata();
	count_past(counts, list);
	qy_threads_visit(count_caches, counts);
	return counts;
}

void qy_arena_counts_put(struct qy_arena_counts *counts)
{
	if (counts != NULL)
		qy_os->munmap(counts, counts->mapped);
}

bool qy_arena_counts_stats(const struct qy_arena_counts *counts, quarry_arena *arena, quarry_stats *stats)
{
	struct qy_manager *m = qy_manager_of_arena(arena);
	uint64_t i = qy_arena_number(arena);

	if (m == NULL || i >= counts->room)
		return false;
	get_of_arena(m, stats);
	stats->refills = counts->of[i].refills;
	stats->remote_frees = counts->of[i].remote_frees;
	stats->adopted = counts->of[i].adopted;
	stats->metadata = counts->metadata;
	return true;
}
