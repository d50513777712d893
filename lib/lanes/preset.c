/* SPDX-License-Identifier: MIT */
/* What the fast lane is to be: attributes looked at, presets, figures. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/group.h"

#define KIB 1024u
#define MIB (1024u * KIB)

#define AGE_MAX 32767
#define SLOW_LEAST ((uint64_t)4 << 20) /* so that there is a segment besides what is kept free */

static uint32_t or_default(uint32_t given, uint32_t otherwise)
{
	return given == 0 ? otherwise : given;
}

static int check(const quarry_lanes_attr *a)
{
	const uint32_t percent[] = { a->fast_lane_usage_threshold, a->fast_lane_safety_margin, a->slow_lane_usage_threshold,
				     a->slow_lane_safety_margin, a->compaction_threshold };

	for (unsigned i = 0; i < sizeof(percent) / sizeof(*percent); i++)
		if (percent[i] > 100)
			return qy_fail(EINVAL, "a threshold or margin: %d is more than 100 per cent", (int)percent[i]);
	if (a->threshold > QY_FAST_MOST)
		return qy_fail(EINVAL, "threshold: %d is more than 1000000", (int)a->threshold);
	if (a->max_fast_age_ticks > AGE_MAX)
		return qy_fail(EINVAL, "max_fast_age_ticks: %d is more than 32767", (int)a->max_fast_age_ticks);
	if (a->enable_auto_compaction > 1)
		return qy_fail(EINVAL, "enable_auto_compaction: %d is neither 0 nor 1", (int)a->enable_auto_compaction);
	if (a->slow_lane_size != 0 && a->slow_lane_size < SLOW_LEAST)
		return qy_fail(EINVAL, "slow_lane_size: less than 4 MiB");
	if (a->fast_lane_size != 0 && a->fast_lane_size < QY_CHUNK_SIZE)
		return qy_fail(EINVAL, "fast_lane_size: less than 64 KiB");
	return 0;
}

int qy_fast_start(quarry_lanes *l, const quarry_lanes_attr *a)
{
	struct qy_fast *f = &l->fast;
	size_t small = QY_CHUNK_SIZE / 8; /* larger ones by the long way: they may have a chunk of their own */

	if (check(a) != 0)
		return -1;
	qy_list_init(&f->chunks);
	qy_list_init(&f->dead);
	f->size = a->fast_lane_size;
	f->slow_size = a->slow_lane_size;
	f->threshold = a->threshold;
	f->chain = a->flags & QUARRY_LANES_CANARIES ? SIZE_MAX : f->threshold;
	f->large = or_default(a->fast_lane_large_entry_threshold, 4096);
	f->age = or_default(a->max_fast_age_ticks, 600);
	f->usage = or_default(a->fast_lane_usage_threshold, 90);
	f->margin = or_default(a->fast_lane_safety_margin, 10);
	f->slow_usage = or_default(a->slow_lane_usage_threshold, 85);
	f->slow_margin = or_default(a->slow_lane_safety_margin, 10);
	f->compact = a->enable_auto_compaction ? or_default(a->compaction_threshold, 90) : 0;
	f->interval = or_default(a->policy_check_interval, 10000);
	f->most = qy_min(qy_min(f->threshold, f->large), small);
	for (unsigned i = 0; i < QUARRY_FAILOVERS; i++)
		f->failover[i] = a->failover[i];
	atomic_store(&f->due, UINT64_MAX);
	return 0;
}

int quarry_lanes_preset(quarry_lanes_attr *attr, int preset)
{
	static const quarry_lanes_attr presets[] = {
		[QUARRY_PRESET_SEED] = { .fast_lane_size = 1 * MIB, .slow_lane_size = 10 * MIB, .threshold = 4096,
			.fast_lane_large_entry_threshold = 4096, .max_fast_age_ticks = 600, .fast_lane_usage_threshold = 90,
			.fast_lane_safety_margin = 10, .slow_lane_usage_threshold = 85, .slow_lane_safety_margin = 10,
			.enable_auto_compaction = 1, .compaction_threshold = 90, .policy_check_interval = 10000 },
		[QUARRY_PRESET_GAME_LOOP] = { .fast_lane_size = 16 * MIB, .threshold = 4096, .max_fast_age_ticks = 120,
			.enable_auto_compaction = 1, .policy_check_interval = 1000 },
		[QUARRY_PRESET_BULK_PROCESSING] = { .fast_lane_size = 64 * MIB, .threshold = 64 * KIB,
			.fast_lane_large_entry_threshold = 64 * KIB, .max_fast_age_ticks = 4 },
		[QUARRY_PRESET_LOW_MEMORY] = { .fast_lane_size = 256 * KIB, .slow_lane_size = 8 * MIB, .threshold = 1024,
			.fast_lane_large_entry_threshold = 1024, .max_fast_age_ticks = 60, .enable_auto_compaction = 1,
			.compaction_threshold = 70, .policy_check_interval = 1000 },
		[QUARRY_PRESET_OBJECT_POOLING] = { .enable_auto_compaction = 1, .policy_check_interval = 10000 },
		[QUARRY_PRESET_FRAME_SCRATCH] = { .fast_lane_size = 8 * MIB, .threshold = 1000000,
			.fast_lane_large_entry_threshold = 1000000, .max_fast_age_ticks = 2 },
	};

	if (attr == NULL || preset < 0 || preset >= (int)(sizeof(presets) / sizeof(*presets)))
		return qy_fail(EINVAL, "preset: %d is none, or there is no quarry_lanes_attr", preset);
	*attr = presets[preset];
	return 0;
}

int quarry_promote_hook(quarry_lanes *l, void (*hook)(void *arg, quarry_handle h, int why), void *arg)
{
	if (!qy_lanes_check(l))
		return -1;
	l->fast.hook = hook;
	l->fast.hook_arg = arg;
	return 0;
}

int64_t quarry_stub_count(quarry_lanes *l)
{
	return qy_lanes_check(l) ? atomic_load(&l->fast.stubs) : -1;
}

/* Under the lock: a chunk's part of the figures. */
static void chunk_count(const struct qy_chunk *k, quarry_fast_stats *s)
{
	const char *top = __atomic_load_n(&k->top, __ATOMIC_ACQUIRE), *at;
	const struct qy_head *head;

	s->chunks++;
	s->held += k->size;
	for (at = qy_chunk_first(k); at < top; at += qy_about_total(head->about)) {
		head = (const void *)at;
		if (atomic_load_explicit(&head->entry.whose, memory_order_relaxed) & QY_TOMB)
			continue;
		s->objects++;
		s->live += qy_about_total(head->about) - sizeof(*head);
	}
}

int quarry_fast_stats_get(quarry_lanes *l, quarry_fast_stats *stats)
{
	quarry_fast_stats s = { .struct_size = sizeof(s) };

	if (!qy_lanes_check(l))
		return -1;
	if (stats == NULL || (stats->struct_size != 0 && stats->struct_size != sizeof(s)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_fast_stats");
	qy_hold(&l->lock);
	for (struct qy_link *i = l->fast.chunks.next; i != &l->fast.chunks; i = i->next)
		chunk_count(qy_container(i, struct qy_chunk, link), &s);
	qy_let_go(&l->lock);
	s.ticks = atomic_load(&l->fast.tick);
	s.resets = qy_read(&l->fast.resets);
	for (int i = 0; i < QUARRY_PROMOTIONS; i++)
		s.promoted[i] = qy_read(&l->fast.promoted[i]);
	s.promoted_bytes = qy_read(&l->fast.promoted_bytes);
	s.demoted = qy_read(&l->fast.demoted);
	s.given_up = qy_read(&l->fast.given_up);
	s.stubs = (uint64_t)qy_max((size_t)0, (size_t)atomic_load(&l->fast.stubs));
	s.spilled = qy_read(&l->fast.spilled);
	s.failed_over = qy_read(&l->fast.failed_over);
	s.refused = qy_read(&l->fast.refused);
	*stats = s;
	return 0;
}
