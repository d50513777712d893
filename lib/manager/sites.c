/* SPDX-License-Identifier: MIT */
#include "lib/manager/sites.h"

#include <string.h>
#include <sys/mman.h>

#include "lib/base/lock.h"
#include "lib/manager/manager.h"
#include "numa/os.h"

#define SITES_MOST 200000 /* each has 200 to 700 bytes */
#define TABLES 64     /* of live samples */
#define LEAST 64      /* entries of a table: not one page */
#define TAKEN_OUT 1   /* the address of an entry that was */

/* Open addressing, with room for a quarter more than there is. */
struct entries {
	size_t mapped;
	uint32_t mask;
	uint32_t used; /* entries that are not 0 */
	struct qy_sample entry[];
};

static struct {
	struct qy_lock lock;
	struct entries *entries;
	uint32_t live;
} tables[TABLES] = { [0 ... TABLES - 1] = { .lock = QY_LOCK_INIT(QY_RANK_LEAF) } };

static struct qy_lock sites_lock = QY_LOCK_INIT(QY_RANK_LEAF);
static uint32_t sites;           /* of those with a stack */
static struct qy_site **buckets; /* atomic, and so is what is in it */

_Atomic(uint64_t) qy_samples_live, qy_samples_lost;

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

static void add_to(_Atomic(uint64_t) *sum, uint64_t n)
{
	atomic_fetch_add_explicit(sum, n, memory_order_relaxed);
}

/* ---- sites ---- */

static uint64_t hash_of(void *const *frames, uint32_t depth, size_t size, uint16_t arena, int16_t node)
{
	uint64_t h = mix(size << 32 ^ (uint64_t)arena << 16 ^ (uint16_t)node);

	for (uint32_t i = 0; i < depth; i++)
		h = mix(h ^ (uintptr_t)frames[i]);
	return h;
}

static struct qy_site *find(struct qy_site *s, const struct qy_site *like, void *const *frames)
{
	for (; s != NULL; s = __atomic_load_n(&s->next, __ATOMIC_ACQUIRE))
		if (s->hash == like->hash && s->depth == like->depth && s->size == like->size &&
		    s->arena == like->arena && s->node == like->node &&
		    memcmp(s->frames, frames, like->depth * sizeof(*frames)) == 0)
			return s;
	return NULL;
}

static struct qy_site **bucket_of(uint64_t hash)
{
	struct qy_site **all = __atomic_load_n(&buckets, __ATOMIC_ACQUIRE), *none = NULL;

	if (all == NULL) {
		/* (Of two that come here at once, the memory of one is lost.) */
		all = qy_manager_records(QY_SITE_BUCKETS * sizeof(none), QY_CACHE_LINE);
		if (all == NULL)
			return NULL;
		qy_lock(&sites_lock);
		if (buckets == NULL)
			__atomic_store_n(&buckets, all, __ATOMIC_RELEASE);
		all = buckets;
		qy_unlock(&sites_lock);
	}
	return &all[hash % QY_SITE_BUCKETS];
}

struct qy_site *qy_site_get(void *const *frames, uint32_t depth, size_t size, uint16_t arena, int16_t node)
{
	struct qy_site like = { .hash = hash_of(frames, depth, size, arena, node), .size = size, .arena = arena,
				.node = node, .depth = depth };
	struct qy_site **bucket = bucket_of(like.hash), *s, *made;

	if (bucket == NULL)
		return NULL;
	s = find(__atomic_load_n(bucket, __ATOMIC_ACQUIRE), &like, frames);
	if (s != NULL)
		return s;
	/* (What comes then is known by its size alone.) */
	if (qy_peek(sites) >= SITES_MOST && depth > 0)
		return qy_site_get(frames, 0, size, arena, node);
	made = qy_manager_records(sizeof(*made) + depth * sizeof(*frames), sizeof(void *));
	if (made == NULL)
		return NULL;
	memcpy(made, &like, sizeof(like));
	memcpy(made->frames, frames, depth * sizeof(*frames));
	qy_lock(&sites_lock);
	s = find(*bucket, &like, frames);
	if (s == NULL) {
		made->next = *bucket;
		qy_publish(sites, sites + (depth > 0));
		__atomic_store_n(bucket, made, __ATOMIC_RELEASE);
		s = made;
	}
	qy_unlock(&sites_lock);
	return s;
}

void qy_sites_visit(void (*visit)(void *ctx, const struct qy_site *s), void *ctx)
{
	struct qy_site **all = __atomic_load_n(&buckets, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; all != NULL && i < QY_SITE_BUCKETS; i++)
		for (struct qy_site *s = __atomic_load_n(&all[i], __ATOMIC_ACQUIRE); s != NULL;
		     s = __atomic_load_n(&s->next, __ATOMIC_ACQUIRE))
			visit(ctx, s);
}

/* What is freed of what was made stays: it was both. */
static void forget_freed(void *ctx, const struct qy_site *site)
{
	struct qy_site *s = (struct qy_site *)site;
	_Atomic(uint64_t) *sums[] = { &s->made, &s->freed, &s->made_weight, &s->freed_weight, &s->asked, &s->asked_freed };

	(void)ctx;
	for (unsigned i = 0; i < sizeof(sums) / sizeof(sums[0]); i += 2) {
		uint64_t freed = atomic_exchange_explicit(sums[i + 1], 0, memory_order_relaxed);

		atomic_fetch_sub_explicit(sums[i], freed, memory_order_relaxed);
	}
	for (unsigned i = 0; i < QY_SITE_LIVES; i++)
		atomic_store_explicit(&s->lives[i], 0, memory_order_relaxed);
}

void qy_sites_reset(void)
{
	qy_sites_visit(forget_freed, NULL);
}

/* ---- live samples ---- */

static uint64_t place_of(const void *p)
{
	return mix((uintptr_t)p >> 4);
}

static bool is_crowded(unsigned t)
{
	const struct entries *e = tables[t].entries;

	return e == NULL || e->used >= e->mask - e->mask / 4;
}

static struct entries *map_entries(uint32_t count)
{
	size_t bytes = qy_align_up(sizeof(struct entries) + (size_t)count * sizeof(struct qy_sample), 4096);
	struct entries *e = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (e == MAP_FAILED)
		return NULL;
	e->mapped = bytes;
	e->mask = count - 1;
	return e;
}

static void insert(struct entries *e, uint64_t place, const struct qy_sample *sample)
{
	uint32_t i = (uint32_t)place & e->mask;

	while (e->entry[i].address > TAKEN_OUT)
		i = (i + 1) & e->mask;
	e->used += e->entry[i].address == 0;
	e->entry[i].site = sample->site;
	e->entry[i].asked = sample->asked;
	e->entry[i].born = sample->born;
	e->entry[i].weight = sample->weight;
	__atomic_store_n(&e->entry[i].address, sample->address, __ATOMIC_RELEASE);
}

static void copy_entries(struct entries *to, const struct entries *from)
{
	for (uint32_t i = 0; i <= from->mask; i++)
		if (from->entry[i].address > TAKEN_OUT)
			insert(to, place_of((void *)from->entry[i].address), &from->entry[i]);
}

/* Room for one more, with the lock not held: a patched mmap may allocate and free. False when there is none. */
static bool make_room(unsigned t)
{
	for (;;) {
		struct entries *e, *old;
		uint32_t count;

		qy_lock(&tables[t].lock);
		if (!is_crowded(t))
			return true;
		count = (uint32_t)qy_max(LEAST, (size_t)1 << (qy_log2_floor(tables[t].live + 1) + 2));
		qy_unlock(&tables[t].lock);
		e = map_entries(count);
		if (e == NULL)
			return false;
		qy_lock(&tables[t].lock);
		old = tables[t].entries;
		if (is_crowded(t) && tables[t].live < count / 2) {
			if (old != NULL)
				copy_entries(e, old);
			__atomic_store_n(&tables[t].entries, e, __ATOMIC_RELEASE);
		} else {
			old = e;
		}
		qy_unlock(&tables[t].lock);
		if (old != NULL)
			qy_os->munmap(old, old->mapped);
	}
}

static bool put(const void *p, const struct qy_sample *sample)
{
	uint64_t place = place_of(p);
	unsigned t = (unsigned)(place >> 58) % TABLES;
	struct qy_sample one = *sample;

	if (!make_room(t)) {
		atomic_fetch_add_explicit(&qy_samples_lost, 1, memory_order_relaxed);
		return false;
	}
	one.address = (uintptr_t)p;
	insert(tables[t].entries, place, &one);
	tables[t].live++;
	qy_unlock(&tables[t].lock);
	add_to(&qy_samples_live, 1);
	return true;
}

bool qy_sample_add(const void *p, const struct qy_sample *sample)
{
	/* (Before it is there, so that no child has one that was freed and never made.) */
	add_to(&sample->site->made, 1);
	add_to(&sample->site->made_weight, sample->weight);
	add_to(&sample->site->asked, sample->asked);
	if (put(p, sample))
		return true;
	add_to(&sample->site->made, (uint64_t)-1);
	add_to(&sample->site->made_weight, -sample->weight);
	add_to(&sample->site->asked, -(uint64_t)sample->asked);
	return false;
}

void qy_sample_put_back(const void *p, const struct qy_sample *sample)
{
	if (!put(p, sample))
		qy_sample_ended(sample);
}

/* The lock is held. NULL when it is not there. */
static struct qy_sample *lookup(unsigned t, uint64_t place, uintptr_t address)
{
	struct entries *e = tables[t].entries;

	if (e == NULL || tables[t].live == 0)
		return NULL;
	for (uint32_t i = (uint32_t)place & e->mask; e->entry[i].address != 0; i = (i + 1) & e->mask)
		if (e->entry[i].address == address)
			return &e->entry[i];
	return NULL;
}

static bool get(const void *p, struct qy_sample *sample, bool take_out)
{
	uint64_t place = place_of(p);
	unsigned t = (unsigned)(place >> 58) % TABLES;
	struct qy_sample *found;

	qy_lock(&tables[t].lock);
	found = lookup(t, place, (uintptr_t)p);
	if (found != NULL) {
		*sample = *found;
		if (take_out) {
			__atomic_store_n(&found->address, TAKEN_OUT, __ATOMIC_RELEASE);
			tables[t].live--;
		}
	}
	qy_unlock(&tables[t].lock);
	if (found != NULL && take_out)
		atomic_fetch_sub_explicit(&qy_samples_live, 1, memory_order_relaxed);
	return found != NULL;
}

void qy_sample_asked(const void *p, size_t asked)
{
	uint64_t place = place_of(p);
	unsigned t = (unsigned)(place >> 58) % TABLES;
	struct qy_sample *found;

	qy_lock(&tables[t].lock);
	found = lookup(t, place, (uintptr_t)p);
	if (found != NULL) {
		add_to(&found->site->asked, (uint64_t)asked - found->asked);
		found->asked = asked;
	}
	qy_unlock(&tables[t].lock);
}

bool qy_sample_take_out(const void *p, struct qy_sample *sample)
{
	return get(p, sample, true);
}

bool qy_sample_find(const void *p, struct qy_sample *sample)
{
	return get(p, sample, false);
}

unsigned qy_site_decade(uint64_t ms)
{
	unsigned n = 0;

	for (; ms > 0 && n < QY_SITE_LIVES - 1; ms /= 10)
		n++;
	return n;
}

void qy_sample_ended(const struct qy_sample *sample)
{
	struct qy_site *s = sample->site;
	uint64_t lived = qy_os->now_ms() - sample->born;

	add_to(&s->freed, 1);
	add_to(&s->freed_weight, sample->weight);
	add_to(&s->asked_freed, sample->asked);
	add_to(&s->lives[qy_site_decade(lived)], sample->weight);
}

void qy_samples_forget(uint16_t arena)
{
	for (unsigned t = 0; t < TABLES; t++) {
		struct entries *e;

		qy_lock(&tables[t].lock);
		e = tables[t].entries;
		for (uint32_t i = 0; e != NULL && tables[t].live > 0 && i <= e->mask; i++) {
			if (e->entry[i].address <= TAKEN_OUT || e->entry[i].site->arena != arena)
				continue;
			qy_sample_ended(&e->entry[i]);
			__atomic_store_n(&e->entry[i].address, TAKEN_OUT, __ATOMIC_RELEASE);
			tables[t].live--;
			atomic_fetch_sub_explicit(&qy_samples_live, 1, memory_order_relaxed);
		}
		qy_unlock(&tables[t].lock);
	}
}

void qy_samples_memory(void (*tell)(void *ctx, const void *from, size_t bytes), void *ctx)
{
	for (unsigned t = 0; t < TABLES; t++) {
		qy_lock(&tables[t].lock);
		if (tables[t].entries != NULL)
			tell(ctx, tables[t].entries, tables[t].entries->mapped);
		qy_unlock(&tables[t].lock);
	}
}

void qy_samples_visit(void (*visit)(void *ctx, const struct qy_sample *s), void *ctx)
{
	for (unsigned t = 0; t < TABLES; t++) {
		const struct entries *e;

		qy_lock(&tables[t].lock);
		e = tables[t].entries;
		for (uint32_t i = 0; e != NULL && tables[t].live > 0 && i <= e->mask; i++)
			if (e->entry[i].address > TAKEN_OUT)
				visit(ctx, &e->entry[i]);
		qy_unlock(&tables[t].lock);
	}
}

/* Others may have been in the middle of counting. */
void qy_sites_after_fork(void)
{
	uint64_t live = 0;

	qy_lock_init(&sites_lock, QY_RANK_LEAF);
	for (unsigned t = 0; t < TABLES; t++) {
		const struct entries *e = tables[t].entries;

		qy_lock_init(&tables[t].lock, QY_RANK_LEAF);
		if (tables[t].live == 0 && atomic_load_explicit(&qy_samples_live, memory_order_relaxed) == 0)
			continue;
		tables[t].live = 0;
		for (uint32_t i = 0; e != NULL && i <= e->mask; i++)
			tables[t].live += e->entry[i].address > TAKEN_OUT;
		live += tables[t].live;
	}
	atomic_store_explicit(&qy_samples_live, live, memory_order_relaxed);
}
