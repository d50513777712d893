/* SPDX-License-Identifier: MIT */
#include "lib/manager/density.h"

#include <string.h>

#include "numa/os.h"

#define SPARE_SHARE 16    /* a 16th part of what is to be filled may stay free: the last gaps cost the most moves */
#define FULLEST 13        /* 16ths: what is fuller is never emptied, as hardly anything is won by it */
#define ASKED_PER_SLAB 2  /* pointers, between two looks */
#define ASKED_LEAST 1024
#define OLD_MS 100        /* or a look is older than that, */
#define CLOCK_EVERY 64    /* which is seen every so many pointers */
#define STEP 64           /* records looked at in a step, */
#define STEP_EACH 8       /* and for each pointer */
#define STEP_FIRST 8192   /* while there was no look yet */

enum phase { IDLE, COUNTING, PARTING };

static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
static _Atomic(uint32_t) round_number, asked_since, slabs_seen;
static _Atomic(uint64_t) looked_at; /* ms */
static _Atomic(uint32_t) under_way; /* enum phase */
/* Of whoever has the lock. */
static uint32_t cursor, counted;
static bool anew; /* a manager came to it */

uint32_t qy_density_round(void)
{
	return atomic_load_explicit(&round_number, memory_order_relaxed);
}

bool qy_density_is_due(uint32_t asked)
{
	uint32_t before = atomic_fetch_add_explicit(&asked_since, asked, memory_order_relaxed), now = before + asked;
	uint32_t slabs = atomic_load_explicit(&slabs_seen, memory_order_relaxed);

	if (atomic_load_explicit(&under_way, memory_order_relaxed) != IDLE ||
	    now >= (uint64_t)slabs * ASKED_PER_SLAB + ASKED_LEAST)
		return true;
	return before / CLOCK_EVERY != now / CLOCK_EVERY &&
	       qy_os->now_ms() - atomic_load_explicit(&looked_at, memory_order_relaxed) >= OLD_MS;
}

uint64_t qy_density_gain(const struct qy_manager *m)
{
	const struct qy_density *d = qy_density_of(m);
	uint64_t gain = 0;

	for (unsigned cls = 0; d != NULL && cls < QY_CLASSES; cls++)
		if (atomic_load_explicit(&d->of[cls].limit, memory_order_relaxed) != 0)
			gain += (uint64_t)atomic_load_explicit(&d->of[cls].gain, memory_order_relaxed) *
				qy_classes[cls].capacity * qy_classes[cls].size;
	return gain;
}

/* ---- one slab ---- */

/* Whether it has room, and nobody takes from it; then how full it is. */
static bool has_room(const struct qy_slab *s, uint32_t *live)
{
	*live = qy_peek(s->countdown);
	return qy_peek(s->state) == QY_SLAB_QUEUED && *live <= qy_classes[qy_peek(s->cls)].capacity;
}

static unsigned step_of(uint64_t key)
{
	return (unsigned)qy_min(key >> 32, QY_DENSITY_STEPS - 1);
}

static void count(struct qy_density *d, const struct qy_slab *s, uint32_t live)
{
	unsigned cls = qy_peek(s->cls);

	d->now[cls].slabs[step_of(qy_density_key(s, live, qy_classes[cls].capacity))]++;
	d->now[cls].live += live;
}

/* The last of those that are to be filled has the key that the others are told by. */
static void part(struct qy_density *d, const struct qy_slab *s, uint32_t live)
{
	unsigned cls = qy_peek(s->cls);
	uint64_t key = qy_density_key(s, live, qy_classes[cls].capacity);

	if (d->now[cls].left == 0 || step_of(key) != d->now[cls].step)
		return;
	if (--d->now[cls].left == 0)
		atomic_store_explicit(&d->of[cls].limit, key, memory_order_relaxed);
}

static void look_at_frame(uint32_t f, struct qy_density *d, enum phase phase)
{
	const struct qy_slab *units = qy_slab_at((uintptr_t)f << QY_FRAME_SHIFT);
	uint32_t live;

	for (uint32_t u = 0; u < QY_FRAME_UNITS; u++) {
		if (qy_peek(units[u].kind) != QY_SLAB_HEAD)
			continue;
		counted += phase == COUNTING;
		if (!has_room(&units[u], &live))
			continue;
		if (phase == COUNTING)
			count(d, &units[u], live);
		else
			part(d, &units[u], live);
	}
}

/* ---- a look ---- */

/* From where the last step ended; false when it is not through yet. */
static bool go_on(uint32_t *records, enum phase phase)
{
	uint32_t frames = (uint32_t)(qy_window_claimed() >> QY_FRAME_SHIFT);

	for (; cursor < frames && *records > 0; cursor++) {
		struct qy_region *r = qy_region_of_frame(qy_frame_at(cursor));
		struct qy_manager *m = r == NULL ? NULL : qy_peek(r->owner);
		struct qy_density *d = m == NULL ? NULL : qy_density_of(m);
		bool slabs = d != NULL && qy_peek(qy_frame_at(cursor)->filler) == QY_FILL_SLABS + 1;

		if (slabs)
			look_at_frame(cursor, d, phase);
		*records -= (uint32_t)qy_min(*records, slabs ? QY_FRAME_UNITS : 1);
	}
	return cursor >= frames;
}

static void for_each(void (*fn)(struct qy_density *d, unsigned cls))
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		struct qy_density *d = qy_density_of(m);

		for (unsigned cls = 0; d != NULL && cls < QY_CLASSES; cls++)
			fn(d, cls);
	}
}

static void forget(struct qy_density *d, unsigned cls)
{
	memset(&d->now[cls], 0, sizeof(d->now[cls]));
}

static void begin(void)
{
	for_each(forget);
	anew = false;
	cursor = 1;
	counted = 0;
	atomic_store_explicit(&asked_since, 0, memory_order_relaxed);
	atomic_store_explicit(&under_way, COUNTING, memory_order_relaxed);
}

/* How full the least full one is that is to be filled, and how many of those that are as full are. */
static void decide(struct qy_density *d, unsigned cls)
{
	uint32_t slabs = 0, fill, above = 0;
	unsigned step = QY_DENSITY_STEPS;

	for (unsigned i = 0; i < QY_DENSITY_STEPS; i++)
		slabs += d->now[cls].slabs[i];
	fill = (uint32_t)((d->now[cls].live + d->now[cls].live / SPARE_SHARE) / qy_classes[cls].capacity + 1);
	atomic_store_explicit(&d->of[cls].slabs, slabs, memory_order_relaxed);
	atomic_store_explicit(&d->of[cls].live, d->now[cls].live, memory_order_relaxed);
	atomic_store_explicit(&d->of[cls].gain, slabs > fill ? slabs - fill : 0, memory_order_relaxed);
	if (slabs <= fill) {
		atomic_store_explicit(&d->of[cls].limit, 0, memory_order_relaxed);
		return;
	}
	while (above + d->now[cls].slabs[step - 1] < fill)
		above += d->now[cls].slabs[--step];
	d->now[cls].step = (uint8_t)(step - 1);
	d->now[cls].left = fill - above;
	if (step > FULLEST) {
		d->now[cls].left = 0;
		atomic_store_explicit(&d->of[cls].limit, (uint64_t)FULLEST << 32, memory_order_relaxed);
	}
}

/* (Where there are fewer by now than there were: all of them are to be filled.) */
static void settle(struct qy_density *d, unsigned cls)
{
	if (d->now[cls].left != 0)
		atomic_store_explicit(&d->of[cls].limit, (uint64_t)d->now[cls].step << 32, memory_order_relaxed);
}

static void end_phase(void)
{
	cursor = 1;
	if (atomic_load_explicit(&under_way, memory_order_relaxed) == COUNTING) {
		for_each(decide);
		atomic_store_explicit(&slabs_seen, counted, memory_order_relaxed);
		atomic_store_explicit(&under_way, PARTING, memory_order_relaxed);
		return;
	}
	for_each(settle);
	atomic_store_explicit(&looked_at, qy_os->now_ms(), memory_order_relaxed);
	atomic_fetch_add_explicit(&round_number, 1, memory_order_relaxed);
	atomic_store_explicit(&under_way, IDLE, memory_order_relaxed);
}

/* (Of two that come here at once, the first one's is taken.) */
static void provide(struct qy_manager *m)
{
	struct qy_density *none = NULL, *d = qy_manager_records(sizeof(*d), QY_CACHE_LINE);

	if (d != NULL)
		(void)__atomic_compare_exchange_n(&m->density, &none, d, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

void qy_density_step(struct qy_manager *m, uint32_t asked)
{
	uint32_t records;

	if (m != NULL && qy_density_of(m) == NULL)
		provide(m);
	if (!qy_trylock(&lock))
		return;
	anew = anew || m != NULL;
	if (anew || atomic_load_explicit(&under_way, memory_order_relaxed) == IDLE)
		begin();
	records = qy_density_round() == 0 || m != NULL ? STEP_FIRST : STEP + (uint32_t)qy_min(asked, 1024) * STEP_EACH;
	while (records > 0 && atomic_load_explicit(&under_way, memory_order_relaxed) != IDLE)
		if (go_on(&records, (enum phase)atomic_load_explicit(&under_way, memory_order_relaxed)))
			end_phase();
	qy_unlock(&lock);
}
