/* SPDX-License-Identifier: MIT */
/* Stress: the fast lane, and objects on their way between lanes. Threads make, read, write, pin and free objects of
 * mostly small sizes, most of which live short; some are shared under locks, some immutable and read without any while
 * they are replaced and freed, some in groups that are freed, pinned, moved and evicted as one by others. Meanwhile ticks
 * go by, objects are promoted and demoted by call, what nobody gets becomes cold, and all is packed. Every byte is known and looked at; what was got in a scope
 * stays what it was until the scope is left; no stale handle is ever taken for a live one. At the end all is free. */
#include "tests/stress/lanes_objects.h"

#define SHARED 3000
#define GROUPS 4
#define OWN 200 /* that a thread makes and frees in turn */

static quarry_group *group[GROUPS];
static struct shared shared[SHARED];
static _Atomic(quarry_handle) stale;
static _Atomic(uint64_t) refused, told, freed_as_one;

static size_t some_size(struct st_rng *rng)
{
	static const uint32_t most[] = { 64, 64, 64, 256, 256, 1024, 4096, 12000 };
	uint64_t which = st_below(rng, 300);

	if (which == 0)
		return 30000;
	return 16 + (size_t)st_below(rng, most[which % 8]) / 8 * 8;
}

static quarry_handle make(struct st_rng *rng, size_t *size, uint64_t tag)
{
	quarry_halloc_attr attr = { .type = (uint32_t)st_below(rng, 256) };
	quarry_handle h;
	uint64_t which = st_below(rng, 20);
	void *p;

	*size = some_size(rng);
	if (which < 3)
		attr.alignment = (uint64_t)16 << st_below(rng, 9);
	if (which == 4)
		attr.flags = QUARRY_HALLOC_NOSPILL;
	if (which == 5)
		attr.priority = (uint16_t)st_below(rng, 3);
	if (which == 6)
		attr.lane = QUARRY_LANE_SLOW;
	h = which < 7 ? quarry_halloc_with(lanes, *size, &attr) : quarry_halloc(lanes, *size);
	if (h == 0 && which == 4) {
		atomic_fetch_add(&refused, 1);
		h = quarry_halloc(lanes, *size);
	}
	ST_CHECK(h != 0);
	quarry_enter();
	p = quarry_get_mut(lanes, h);
	ST_CHECK(p != NULL && (which >= 3 || ((uintptr_t)p & (attr.alignment - 1)) == 0));
	fill(p, *size, tag == 0 ? h : tag);
	quarry_leave();
	return h;
}

/* ---- those of one thread, short-lived ---- */

static void frame(struct st_rng *rng)
{
	quarry_handle h[OWN];
	uint64_t tag = atomic_fetch_add(&next_tag, OWN);
	size_t size, n = 1 + (size_t)st_below(rng, OWN);

	for (size_t i = 0; i < n; i++)
		h[i] = make(rng, &size, tag + i);
	quarry_enter();
	for (size_t i = 0; i < n; i++) {
		const void *p = quarry_get(lanes, h[i]);

		ST_CHECK(p != NULL);
		verify(p, tag + i, 0, "of a frame");
	}
	quarry_leave();
	for (size_t i = 0; i < n; i++)
		ST_CHECK(quarry_hfree(lanes, h[i]) == 0);
	atomic_store(&stale, h[0]);
}

static void frame_at_times(struct st_rng *rng)
{
	if (st_below(rng, 64) == 0)
		frame(rng);
}

/* ---- shared ones, under their locks ---- */

/* Seldom pinned, and soon unpinned: a pinned object keeps its whole chunk. */
static void pin_shared(struct shared *s, struct st_rng *rng)
{
	if (s->pinned == NULL) {
		if (st_below(rng, 16) != 0)
			return;
		ST_CHECK((s->pinned = quarry_pin(lanes, s->h)) != NULL);
		return;
	}
	s->pinned = NULL;
	ST_CHECK(quarry_unpin(lanes, s->h) == 0);
}

static void move_shared(struct shared *s, struct st_rng *rng)
{
	int lane = st_below(rng, 2) ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW;
	int result = lane == QUARRY_LANE_FAST ? quarry_demote(lanes, s->h) : quarry_promote(lanes, s->h);

	if (result != 0)
		ST_CHECK(errno == EBUSY || (lane == QUARRY_LANE_FAST && (errno == ENOMEM || errno == EFBIG)));
}

static void step_shared(struct st_worker *w)
{
	struct shared *s = &shared[st_below(&w->rng, SHARED)];

	pthread_mutex_lock(&s->lock);
	if (s->h == 0) {
		s->tag = atomic_fetch_add(&next_tag, 1);
		s->h = make(&w->rng, &s->size, s->tag);
	}
	switch (st_below(&w->rng, 12)) {
	case 0:
	case 1:
	case 2:
		end_shared(s);
		break;
	case 3:
		pin_shared(s, &w->rng);
		break;
	case 4:
	case 5:
		write_shared(s);
		break;
	case 6:
		if (w->number == 0)
			move_shared(s, &w->rng);
		break;
	case 7:
		ST_CHECK(quarry_hint(lanes, s->h, st_below(&w->rng, 16) == 0 ? QUARRY_HALLOC_NOSPILL : 0, (int)st_below(&w->rng, 2)) == 0);
		break;
	default:
		read_shared(s);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- immutable ones, without a lock, some in groups ---- */

static void replace_fixed(struct st_worker *w)
{
	size_t size;
	quarry_handle h = make(&w->rng, &size, 0), old;

	if (st_below(&w->rng, 2))
		ST_CHECK(quarry_group_add(group[st_below(&w->rng, GROUPS)], h) == 0);
	old = atomic_exchange(&fixed[st_below(&w->rng, FIXED)], h);
	if (old != 0 && quarry_hfree(lanes, old) != 0)
		ST_CHECK(errno == ESTALE); /* with its group */
	atomic_store(&stale, old);
}

/* Pinned while others may free it: it stays what it was, and where, until it is unpinned. */
static void pin_fixed(struct st_worker *w)
{
	quarry_handle h = atomic_load(&fixed[st_below(&w->rng, FIXED)]);
	const void *p = quarry_pin(lanes, h);

	if (p == NULL)
		return;
	verify(p, h, 0, "pinned");
	frame(&w->rng);
	verify(p, h, 0, "pinned, and others made and freed meanwhile");
	ST_CHECK(quarry_unpin(lanes, h) == 0);
}

static void step_group(struct st_worker *w)
{
	quarry_group *g = group[st_below(&w->rng, GROUPS)];
	quarry_handle h = atomic_load(&fixed[st_below(&w->rng, FIXED)]);
	int64_t n = 0;

	switch (st_below(&w->rng, 8)) {
	case 0:
		atomic_fetch_add(&freed_as_one, (uint64_t)(n = quarry_group_free_all(g)));
		break;
	case 1:
		ST_CHECK(quarry_group_pin(g) >= 0 && quarry_group_unpin(g) >= 0);
		break;
	case 2:
		n = quarry_group_migrate(g, st_below(&w->rng, 2) ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW);
		ST_CHECK(n >= 0 || errno == EBUSY);
		break;
	case 3:
		n = st_below(&w->rng, 2) ? quarry_group_evict(g) : quarry_group_prefetch(g);
		ST_CHECK(n >= 0 || errno == EBUSY);
		break;
	case 4:
		ST_CHECK(quarry_group_remove(g, h) == 0 || errno == EINVAL || errno == ESTALE);
		break;
	default:
		ST_CHECK(quarry_group_add(g, h) == 0 || errno == EINVAL || errno == ESTALE);
	}
}

static void probe_stale(void)
{
	quarry_handle h = atomic_load(&stale);
	const void *p;

	if (h == 0)
		return;
	quarry_enter();
	ST_CHECK(quarry_get(lanes, h) == NULL && quarry_get_mut(lanes, h) == NULL);
	ST_CHECK(quarry_try_get(lanes, h, &p) == -1 && !quarry_handle_valid(lanes, h));
	quarry_leave();
	ST_CHECK(quarry_pin(lanes, h) == NULL && quarry_hfree(lanes, h) == -1 && quarry_handle_lane(lanes, h) == -1);
}

/* ---- all of it ---- */

static void count_told(void *arg, quarry_handle h, int why)
{
	ST_CHECK(arg == &told && h != 0 && why >= 0 && why < QUARRY_PROMOTIONS);
	atomic_fetch_add(&told, 1);
}

static void move_all(struct st_worker *w)
{
	int64_t n;

	switch (st_below(&w->rng, 20)) {
	case 0:
		n = quarry_oneway_flush(lanes);
		break;
	case 1:
	case 2:
		n = quarry_compact(lanes, QUARRY_COMPACT_FULL | (st_below(&w->rng, 2) ? QUARRY_COMPACT_PROMOTE : 0), 0, 500);
		break;
	case 3:
		n = quarry_maintain(lanes, 500);
		break;
	case 4:
		n = quarry_cool(lanes, 500);
		break;
	case 5:
		n = quarry_group_migrate_node(group[st_below(&w->rng, GROUPS)], quarry_node_id(0));
		break;
	case 6:
		n = quarry_lanes_migrate(lanes, QUARRY_LANE_FAST, quarry_node_id(0), 500);
		n = n < 0 && errno == EAGAIN ? 0 : n;
		break;
	case 7:
		n = quarry_lanes_parts(lanes, NULL, 0);
		break;
	default:
		n = quarry_lanes_tick(lanes);
	}
	ST_CHECK(n >= 0 || errno == EBUSY);
}

static void everything(struct st_worker *w)
{
	uint64_t which = st_below(&w->rng, 100);

	if (which < 2)
		frame(&w->rng);
	else if (which < 4)
		move_all(w);
	else if (which < 50)
		step_shared(w);
	else if (which < 62)
		replace_fixed(w);
	else if (which < 64)
		step_group(w);
	else if (which < 80)
		read_fixed_objects(&w->rng, frame_at_times);
	else if (which < 90)
		read_fixed_optimistically(&w->rng, frame_at_times);
	else if (which < 92)
		pin_fixed(w);
	else
		probe_stale();
}

static void work(struct st_worker *w)
{
	while (st_more(w))
		everything(w);
}

int main(int argc, char **argv)
{
	quarry_cold_attr cold = { .period_ms = 1, .long_codec = "zstd", .long_periods = 1 };
	quarry_arena_attr memory = { .name = "lanes" };
	quarry_lanes_attr attr = { .memory = &memory, .cold = &cold, .generations = 2000, .threshold = 8192, .fast_lane_size = 12 * ST_MIB, .max_fast_age_ticks = 40 };
	quarry_fast_stats fast = { 0 };
	quarry_cold_stats away = { 0 };
	quarry_lanes_stats stats = { 0 };

	st_begin(argc, argv, "lanes_fast", 300000, 4);
	if (st.seed % 2 == 0)
		cold.codec = "none"; /* most bytes here look random */
	lanes = quarry_lanes_create(&attr);
	ST_CHECK(lanes != NULL && quarry_promote_hook(lanes, count_told, &told) == 0);
	for (int i = 0; i < GROUPS; i++)
		ST_CHECK((group[i] = quarry_group_create(lanes, NULL)) != NULL);
	for (int i = 0; i < SHARED; i++)
		ST_CHECK(pthread_mutex_init(&shared[i].lock, NULL) == 0);
	st_threads(work);
	for (int i = 0; i < SHARED; i++)
		if (shared[i].h != 0)
			end_shared(&shared[i]);
	for (int i = 0; i < FIXED; i++)
		(void)quarry_hfree(lanes, fixed[i]);
	ST_CHECK(quarry_fast_stats_get(lanes, &fast) == 0 && quarry_stub_count(lanes) == 0);
	ST_CHECK(quarry_cold_stats_get(lanes, &away) == 0 && away.objects == 0 && away.compressed == 0 && away.corrupt == 0);
	printf("lanes_fast: %llu objects came back, %llu extents compressed anew, %llu dictionaries\n", (unsigned long long)away.loaded,
	       (unsigned long long)away.deepened, (unsigned long long)away.dictionaries);
	printf("lanes_fast: %llu chunks begun anew, promoted by age %llu, size %llu, usage %llu, want of room %llu, compaction %llu, "
	       "call %llu; %llu told; demoted %llu, given up %llu, spilled %llu, refused %llu; %llu moved while read, %llu freed, %llu as one; %llu optimistic reads, %llu in vain\n",
	       (unsigned long long)fast.resets, (unsigned long long)fast.promoted[0], (unsigned long long)fast.promoted[1],
	       (unsigned long long)fast.promoted[2], (unsigned long long)fast.promoted[3], (unsigned long long)fast.promoted[4],
	       (unsigned long long)fast.promoted[5], (unsigned long long)told, (unsigned long long)fast.demoted,
	       (unsigned long long)fast.given_up, (unsigned long long)fast.spilled, (unsigned long long)fast.refused,
	       (unsigned long long)moved_away, (unsigned long long)seen_free, (unsigned long long)freed_as_one,
	       (unsigned long long)optimistic, (unsigned long long)in_vain);
	ST_CHECK(fast.objects == 0 && fast.live == 0);
	ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	ST_CHECK(quarry_lanes_stats_get(lanes, &stats) == 0 && quarry_fast_stats_get(lanes, &fast) == 0);
	if (stats.objects != 0 || stats.live != 0 || fast.chunks != 0 || fast.held != 0)
		st_fail("left: %llu objects, %llu bytes; %u chunks, %llu objects, %llu bytes of the fast lane", (unsigned long long)stats.objects,
			(unsigned long long)stats.live, fast.chunks, (unsigned long long)fast.objects, (unsigned long long)fast.held);
	for (int i = 0; i < GROUPS; i++) {
		quarry_group_stats g = { 0 };

		ST_CHECK(quarry_group_stats_get(group[i], &g) == 0 && g.objects == 0 && g.bytes == 0);
	}
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
