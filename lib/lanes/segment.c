/* SPDX-License-Identifier: MIT */
/* Segments and spans: where objects lie. (lanes.h has the rules.) */
#include <errno.h>
#include <string.h>

#include "lib/lanes/events.h"
#include "lib/lanes/figures.h"
#include "lib/lanes/fast.h"

#define SEGMENT_MAGIC 0x746e656d676573u
#define FINE QY_CLASS_FINE /* above, 16 for a doubling */
#define PAGE_OBJECTS 8192  /* the largest objects of one-page spans, */
#define FOUR_OBJECTS 32768 /* and of four-page ones; larger ones have 16 */
#define BLOB_PAGES (QY_LPAGE_SIZE / 2) /* blobs that fill less of a page are blocks of the arena's */
#define SPAN_ALIGN 4096
#define BURY 16 /* spans that are looked at when one is needed */
#define SPARE_MAX 2 /* segments without a span that are kept */
#define FREE_PART 64 /* of all pages, that may be free and stay in memory */
#define TRIMMED 16   /* runs of pages that go back between two times that the lock is free */
#define SEARCHED 32  /* segments that a hurried one looks at for pages at once */

/* ---- classes ---- */

unsigned qy_class_count(void)
{
	return FINE / 16 + 16 * (qy_log2_floor(QY_CLASS_LARGEST) - qy_log2_floor(FINE));
}

size_t qy_class_size(unsigned class)
{
	unsigned above;

	if (class < FINE / 16)
		return 16 * ((size_t)class + 1);
	above = class - FINE / 16;
	return ((size_t)FINE << above / 16) / 16 * (17 + above % 16);
}

static unsigned class_by_size(size_t size)
{
	unsigned log;

	if (size <= FINE)
		return (unsigned)((size + 15) / 16) - 1;
	log = qy_log2_floor(size - 1);
	return FINE / 16 + 16 * (log - qy_log2_floor(FINE)) + (unsigned)((size - 1) >> (log - 4)) - 16;
}

size_t qy_class_round(size_t size)
{
	return qy_class_size(class_by_size(size));
}

/* (A class's size is one of those that are rounded up to it, so each size that becomes a class's is of that class again.) */
unsigned qy_class_find(size_t size, size_t alignment, size_t blob)
{
	unsigned class;

	size = qy_align_up(size, qy_max(alignment, 16));
	if (size > QY_WHOLE_MAX - QY_SEGMENT_RECORD || alignment > SPAN_ALIGN)
		return QY_CLASS_HUGE;
	if (size > blob)
		return size < BLOB_PAGES ? QY_CLASS_HUGE : QY_CLASS_WHOLE;
	for (class = class_by_size(size); class < qy_class_count(); class++)
		if (alignment <= 16 || qy_class_size(class) % alignment == 0)
			return class;
	return QY_CLASS_WHOLE;
}

static unsigned span_pages(unsigned class)
{
	size_t size = qy_class_size(class);

	return size <= PAGE_OBJECTS ? 1 : size <= FOUR_OBJECTS ? 4 : 16;
}

/* How many objects a span of so many bytes holds. Their bits and entries stand at its end, where that costs few
 * objects: so they come and go with it, and no heap is left full of holes of their size when objects are packed. */
static uint32_t count_of(size_t bytes, size_t size, bool *inside)
{
	size_t alone = bytes / size;
	size_t told = (bytes - sizeof(qy_word)) * 64 / ((size + sizeof(struct qy_entry)) * 64 + sizeof(qy_word));

	*inside = (alone - told) * 32 <= alone || size < QY_CLASS_FINE;
	return (uint32_t)(*inside ? told : alone);
}

uint32_t qy_pages_for(unsigned class, uint32_t objects)
{
	uint32_t pages = span_pages(class);
	bool inside;
	uint32_t each = count_of(pages * QY_LPAGE_SIZE - QY_SEGMENT_RECORD, qy_class_size(class), &inside);

	return (objects + each - 1) / each * pages;
}

/* ---- segments ---- */

/* How many segments are to be there for movers alone, by how many there are. */
static uint32_t scratch_goal(const quarry_lanes *l)
{
	return (uint32_t)qy_min(l->segment_count * l->scratch_percent / 100, QY_SCRATCH_MAX);
}

/* Not touched, and so not in memory: it is for when the arena refuses more. */
void qy_scratch_fill(quarry_lanes *l)
{
	while (l->scratches < scratch_goal(l)) {
		void *p = quarry_arena_aligned_alloc(l->arena, QY_SEGMENT_SIZE, QY_SEGMENT_SIZE);

		if (p == NULL)
			return;
		(void)quarry_discard(p, QY_SEGMENT_SIZE);
		l->scratch[l->scratches++] = p;
	}
}

void qy_scratch_trim(quarry_lanes *l, bool all)
{
	while (l->scratches > (all ? 0 : scratch_goal(l)))
		quarry_free(l->scratch[--l->scratches]);
}

/* Under the lock. */
static struct qy_segment *segment_make(quarry_lanes *l, bool mover, unsigned home)
{
	int error = errno;
	struct qy_segment *g = NULL;

	if (qy_slow_has_room(l, QY_SEGMENT_SIZE))
		g = quarry_arena_aligned_alloc(l->home[home]->arena, QY_SEGMENT_SIZE, QY_SEGMENT_SIZE);
	if (g == NULL && mover && home == 0 && l->scratches > 0)
		g = l->scratch[--l->scratches];
	if (g == NULL)
		return NULL;
	if (!mover) {
		qy_scratch_fill(l);
		errno = error;
	}
	memset(g, 0, sizeof(*g));
	g->magic = SEGMENT_MAGIC;
	g->lanes = l;
	g->free = UINT32_MAX;
	g->home = (uint16_t)home;
	atomic_fetch_add(&l->home[home]->segments, 1);
	qy_list_push_back(&l->segments, &g->link);
	l->segment_count++;
	l->spare++;
	qy_list_push_back(&l->spares, &g->order);
	qy_lanes_grew(l, QUARRY_LANE_SLOW, QY_SEGMENT_SIZE);
	return g;
}

void qy_segment_leave(quarry_lanes *l, struct qy_segment *g)
{
	qy_check(g->magic == SEGMENT_MAGIC && g->free == UINT32_MAX);
	g->magic = 0;
	if (l->plan.next == &g->link)
		l->plan.next = g->link.next;
	if (l->figures_next == &g->link)
		l->figures_next = g->link.next;
	if (l->trim_next == &g->link)
		l->trim_next = g->link.next;
	if (l->find_next == &g->link)
		l->find_next = g->link.next;
	qy_list_remove(&g->link);
	qy_list_remove(&g->order);
	l->segment_count--;
	atomic_fetch_sub(&l->home[g->home]->segments, 1);
	l->spare--;
}

/* Bits of an owned span may be its owner's, for nobody yet: entries tell. Of the others nobody looks at each, which would
 * take milliseconds, under the lock. */
uint32_t qy_live_objects(const struct qy_span *s)
{
	uint32_t live = 0;

	if (atomic_load_explicit(&s->place, memory_order_acquire) != QY_SPAN_OWNED)
		return atomic_load_explicit(&s->used, memory_order_relaxed) -
		       atomic_load_explicit(&s->tombs, memory_order_relaxed);
	for (uint32_t n = 0; n < s->count; n++) {
		uint32_t whose = atomic_load_explicit(&s->entry[n].whose, memory_order_relaxed);

		live += whose != 0 && !(whose & QY_TOMB);
	}
	return live;
}

void qy_segment_count(const struct qy_segment *g, quarry_lanes_stats *stats, struct qy_class_sum *sums)
{
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];
		uint8_t place = atomic_load_explicit(&s->place, memory_order_acquire);
		uint32_t live;

		if (place == QY_SPAN_NONE || place == QY_SPAN_INSIDE)
			continue;
		live = qy_live_objects(s);
		stats->objects += live;
		stats->live += (uint64_t)live * s->size;
		if (sums != NULL) {
			struct qy_class_sum *sum = &sums[qy_min((unsigned)s->class, QY_FIGURES_WHOLE)];

			sum->objects += live;
			sum->live += (uint64_t)live * s->size;
			sum->held += s->pages * QY_LPAGE_SIZE;
		}
		stats->waiting += (uint64_t)(atomic_load_explicit(&s->tombs, memory_order_relaxed) + qy_peek(s->own_tombs)) * s->size;
	}
}

/* The first of so many free pages side by side; -1: there are none. */
static int find_pages(uint32_t free, unsigned pages)
{
	for (unsigned have = 1; have < pages && free != 0; have++)
		free &= free >> 1;
	return free == 0 ? -1 : __builtin_ctz(free);
}

/* Pages of a segment, of the fullest that has so many... which is the first: what comes back of later ones leaves them
 * empty sooner. From `first` on, the last being `last` or so many later. */
static struct qy_segment *find_segment(const quarry_lanes *l, struct qy_link *first, unsigned most, unsigned home, unsigned pages,
				       int *at, struct qy_link **end)
{
	struct qy_link *k = first;

	for (; k != &l->segments && most > 0; k = k->next, most--) {
		struct qy_segment *g = qy_container(k, struct qy_segment, link);

		*at = g->draining || g->home != home ? -1 : find_pages(g->free, pages);
		if (*at >= 0)
			return g;
	}
	*end = k;
	*at = -1;
	return NULL;
}

/* Who is hurried goes on where he stopped, and finds less tight a place. */
static struct qy_segment *find_some(quarry_lanes *l, unsigned home, unsigned pages, int *at)
{
	struct qy_link *first = l->find_next == NULL || l->find_next == &l->segments ? l->segments.next : l->find_next;
	struct qy_segment *g = find_segment(l, first, SEARCHED, home, pages, at, &first);

	l->find_next = g != NULL ? &g->link : first;
	l->more_to_find = g == NULL && first != &l->segments;
	return g;
}

/* Under the lock. */
static struct qy_span *find_span(quarry_lanes *l, unsigned pages, bool mover)
{
	unsigned home = mover ? l->mover_home : 0;
	struct qy_link *end;
	struct qy_segment *g;
	int at;

	if (mover && l->hurried)
		g = find_some(l, home, pages, &at);
	else
		g = find_segment(l, l->segments.next, UINT32_MAX, home, pages, &at, &end);
	if (at < 0) {
		g = mover && (l->confined || (l->hurried && l->more_to_find)) ? NULL : segment_make(l, mover, home);
		at = g == NULL ? -1 : 0;
	}
	if (at < 0)
		return NULL;
	if (g->free == UINT32_MAX) {
		l->spare--;
		qy_list_remove(&g->order);
	}
	g->free &= ~((uint32_t)(((uint64_t)1 << pages) - 1) << at);
	g->gone &= g->free;
	for (unsigned i = 0; i < pages; i++) {
		g->span[(unsigned)at + i].back = (uint8_t)i;
		atomic_init(&g->span[(unsigned)at + i].place, QY_SPAN_INSIDE);
	}
	g->span[at].pages = (uint8_t)pages;
	qy_list_init(&g->span[at].link);
	return &g->span[at];
}

void qy_span_untell(struct qy_span *s)
{
	if (s->bits != NULL && qy_segment_of((void *)s->bits) != qy_segment_of(s))
		quarry_free(s->bits);
	s->bits = NULL;
}

static void pages_back(quarry_lanes *l, struct qy_span *s)
{
	struct qy_segment *g = qy_segment_of(s);
	unsigned at = (unsigned)(s - g->span), pages = s->pages;

	qy_span_untell(s);
	memset(s, 0, pages * sizeof(*s));
	g->free |= (uint32_t)(((uint64_t)1 << pages) - 1) << at;
	if (g->free != UINT32_MAX)
		return;
	l->spare++;
	if (g->draining)
		return;
	qy_list_remove(&g->order); /* it may have been a plan's */
	qy_list_push_back(&l->spares, &g->order);
	if (l->spare > SPARE_MAX) {
		qy_segment_leave(l, g);
		quarry_free(g);
	}
}

static bool span_tell(struct qy_span *s, size_t bytes, size_t size)
{
	size_t words, tail;
	bool inside = false;

	s->size = (uint32_t)size;
	s->count = s->class == QY_CLASS_WHOLE ? 1 : count_of(bytes, size, &inside);
	s->reciprocal = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size);
	words = (s->count + 63) / 64;
	tail = words * sizeof(qy_word) + s->count * sizeof(struct qy_entry);
	s->bits = inside ? (qy_word *)(void *)(qy_span_base(s) + bytes - tail) : quarry_calloc(1, tail);
	if (s->bits == NULL)
		return false;
	if (inside)
		memset((void *)s->bits, 0, tail);
	s->entry = (struct qy_entry *)(void *)(s->bits + words);
	if (s->count % 64 != 0)
		atomic_init(&s->bits[words - 1], ~(uint64_t)0 << s->count % 64);
	return true;
}

/* Under the lock: a span without an object. */
static struct qy_span *span_make(quarry_lanes *l, unsigned class, size_t size, unsigned pages, bool mover)
{
	struct qy_span *s = find_span(l, pages, mover);

	if (s == NULL)
		return NULL;
	s->class = (uint8_t)class;
	if (!span_tell(s, pages * QY_LPAGE_SIZE - (s == qy_segment_of(s)->span ? QY_SEGMENT_RECORD : 0), size)) {
		pages_back(l, s);
		return NULL;
	}
	atomic_store_explicit(&s->place, QY_SPAN_OWNED, memory_order_release);
	return s;
}

/* Under the lock: the first run of a segment's free pages goes back. False: there is none. */
static bool run_back(struct qy_segment *g)
{
	uint32_t pages = g->free & ~g->gone, run;
	unsigned first, count;
	char *p = (char *)g;

	if (pages == 0 || g->draining || g->free == UINT32_MAX)
		return false;
	first = (unsigned)__builtin_ctz(pages);
	count = (unsigned)__builtin_ctzll(~((uint64_t)pages >> first));
	run = (uint32_t)((((uint64_t)1 << count) - 1) << first);
	g->gone |= run; /* also where the kernel does not take it: it is not asked again */
	p += first == 0 ? QY_SEGMENT_RECORD : first * QY_LPAGE_SIZE;
	(void)quarry_discard(p, (size_t)((char *)g + (first + count) * QY_LPAGE_SIZE - p));
	return true;
}

void qy_pages_trim(quarry_lanes *l)
{
	uint64_t pages = 0;

	qy_hold(&l->lock);
	for (struct qy_link *k = l->segments.next; k != &l->segments; k = k->next) {
		const struct qy_segment *g = qy_container(k, struct qy_segment, link);

		pages += g->free == UINT32_MAX ? 0 : (uint32_t)__builtin_popcount(g->free & ~g->gone);
	}
	l->trim_next = pages * FREE_PART >= l->segment_count * QY_SEGMENT_PAGES ? l->segments.next : &l->segments;
	/* (Who takes a segment out of the list while the lock is free moves trim_next on.) */
	for (unsigned n = 0; l->trim_next != &l->segments;) {
		struct qy_segment *g = qy_container(l->trim_next, struct qy_segment, link);

		if (!run_back(g)) {
			l->trim_next = l->trim_next->next;
		} else if (++n % TRIMMED == 0) {
			qy_let_go(&l->lock);
			qy_hold(&l->lock);
		}
	}
	l->trim_next = NULL;
	qy_let_go(&l->lock);
}

/* ---- objects of spans ---- */

/* So many tombstones make it worth to look at a span that has no room. */
static uint32_t many(const struct qy_span *s)
{
	return s->count < 8 ? 1 : s->count / 8;
}

/* The bits of a word's tombstones that are over, whose entries are nobody's now. */
static uint64_t over_in_word(struct qy_entry *entry, uint32_t count, uint64_t safe)
{
	uint64_t over = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t whose = atomic_load_explicit(&entry[i].whose, memory_order_acquire);

		if (!(whose & QY_TOMB) || !qy_stamp_over(whose & ~QY_TOMB, safe))
			continue;
		atomic_store_explicit(&entry[i].whose, 0, memory_order_relaxed);
		over |= (uint64_t)1 << i;
	}
	return over;
}

/* All that were swept are counted, but in a child of fork(2), whose parent's threads may have been cut off before they
 * counted one. */
static void uncount_tombs(struct qy_span *s, uint32_t swept)
{
	uint32_t tombs = atomic_load_explicit(&s->tombs, memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(&s->tombs, &tombs, tombs - qy_min(tombs, swept), memory_order_relaxed,
						      memory_order_relaxed))
		;
}

uint32_t qy_sweep(struct qy_span *s)
{
	uint64_t safe = atomic_load_explicit(&qy_epoch_safe, memory_order_acquire);
	uint32_t swept = 0;

	atomic_fetch_add_explicit(&s->tombs, s->own_tombs, memory_order_acquire);
	qy_publish(s->own_tombs, 0);
	for (uint32_t i = 0; i < s->count; i += 64) {
		uint64_t over = over_in_word(&s->entry[i], (uint32_t)qy_min(64, s->count - i), safe);

		if (over == 0)
			continue;
		atomic_fetch_and_explicit(&s->bits[i / 64], ~over, memory_order_release);
		swept += (uint32_t)__builtin_popcountll(over);
	}
	atomic_fetch_sub_explicit(&s->used, swept, memory_order_relaxed);
	uncount_tombs(s, swept);
	return swept;
}

/* Sweep what is over, having the epoch move on when nothing is, but for who is hurried. */
static uint32_t sweep_now(struct qy_span *s, bool hurried)
{
	uint32_t swept = qy_sweep(s);

	if (swept > 0 || hurried || atomic_load_explicit(&s->tombs, memory_order_relaxed) == 0)
		return swept;
	return qy_grace_look(qy_grace_begin()) ? qy_sweep(s) : 0;
}

void qy_span_settle(quarry_lanes *l, struct qy_span *s)
{
	uint32_t used = atomic_load(&s->used), tombs;

	atomic_fetch_add(&s->tombs, s->own_tombs);
	qy_publish(s->own_tombs, 0);
	qy_publish(s->owner, NULL);
	if (used == 0) {
		pages_back(l, s);
		return;
	}
	atomic_store(&s->place, QY_SPAN_FULL);
	tombs = atomic_load(&s->tombs); /* after it: who adds one from now on comes here by itself */
	if (qy_segment_of(s)->draining) {
		atomic_store(&s->place, QY_SPAN_DRAINING);
	} else if (tombs == used) {
		qy_list_push_back(&l->dead, &s->link);
		atomic_store(&s->place, QY_SPAN_LISTED);
	} else if (s->class != QY_CLASS_WHOLE && (used < s->count || tombs >= many(s))) {
		uint32_t live = used - tombs;

		qy_list_push_front(&l->home[qy_segment_of(s)->home]->partial[s->class][live * QY_FULLNESS / (s->count + 1)], &s->link);
		atomic_store(&s->place, QY_SPAN_LISTED);
	}
}

/* Somebody else's span has a tombstone more: it goes where it belongs now. */
void qy_entomb_shared(quarry_lanes *l, struct qy_span *s)
{
	uint32_t tombs = atomic_fetch_add(&s->tombs, 1) + 1;
	uint8_t place = atomic_load(&s->place);

	if (QY_LIKELY(place == QY_SPAN_OWNED || place == QY_SPAN_DRAINING ||
		      (place == QY_SPAN_LISTED && tombs < atomic_load_explicit(&s->used, memory_order_relaxed)) ||
		      (place == QY_SPAN_FULL && tombs < many(s))))
		return;
	qy_hold(&l->lock);
	place = atomic_load(&s->place);
	if (place == QY_SPAN_FULL) {
		qy_span_settle(l, s);
	} else if (place == QY_SPAN_LISTED && atomic_load(&s->tombs) == atomic_load(&s->used)) {
		qy_list_remove(&s->link);
		qy_span_settle(l, s);
	}
	qy_let_go(&l->lock);
}

/* Under the lock: spans without a live object go back to their segments when all scopes are over. At most so many are
 * looked at; whether there are more. */
bool qy_bury(quarry_lanes *l, unsigned most)
{
	if (qy_list_empty(&l->dead) || !qy_grace_look(qy_grace_begin()))
		return false;
	return qy_bury_known(l, most);
}

bool qy_bury_known(quarry_lanes *l, unsigned most)
{
	bool some = false;

	for (struct qy_link *last = l->dead.prev, *k = NULL; most > 0 && k != last && !qy_list_empty(&l->dead); most--) {
		struct qy_span *s;

		k = l->dead.next;
		s = qy_container(k, struct qy_span, link);
		qy_list_remove(k);
		if (qy_sweep(s) == 0) {
			qy_list_push_back(&l->dead, k);
		} else {
			qy_span_settle(l, s);
			some = true;
		}
	}
	return some && !qy_list_empty(&l->dead);
}

/* ---- takers ---- */

/* The next word of its span that has room is the taker's. */
static bool next_word(struct qy_taker *t)
{
	struct qy_span *s = t->span;
	uint32_t words = (s->count + 63) / 64;

	for (; t->word < words; t->word++) {
		if (atomic_load_explicit(&s->bits[t->word], memory_order_relaxed) == UINT64_MAX)
			continue;
		t->taken = ~atomic_fetch_or_explicit(&s->bits[t->word], UINT64_MAX, memory_order_acquire);
		atomic_fetch_add_explicit(&s->used, (uint32_t)__builtin_popcountll(t->taken), memory_order_relaxed);
		t->size = s->size;
		t->first = qy_span_base(s) + (size_t)t->word * 64 * s->size;
		t->entry = &s->entry[t->word * 64];
		return true;
	}
	return false;
}

/* Under the lock: a span with room, the fullest first; NULL: none is listed. */
static struct qy_span *listed(quarry_lanes *l, unsigned class, unsigned home)
{
	for (int fullness = QY_FULLNESS - 1; fullness >= 0; fullness--) {
		struct qy_link *list = &l->home[home]->partial[class][fullness];

		if (!qy_list_empty(list)) {
			struct qy_span *s = qy_container(list->next, struct qy_span, link);

			qy_list_remove(&s->link);
			atomic_store(&s->place, QY_SPAN_OWNED);
			return s;
		}
	}
	return NULL;
}

static QY_COLD bool next_span(quarry_lanes *l, struct qy_taker *t, unsigned class)
{
	struct qy_span *s = t->span;
	bool mover = t == &l->mover.of[class], hurried = mover && l->hurried;

	t->word = 0;
	if (s != NULL && atomic_load_explicit(&s->tombs, memory_order_relaxed) + s->own_tombs >= many(s) &&
	    sweep_now(s, hurried) > 0)
		return true;
	qy_hold(&l->lock);
	if (s != NULL)
		qy_span_settle(l, s);
	s = listed(l, class, mover ? l->mover_home : 0);
	if (s != NULL && atomic_load(&s->used) == s->count && sweep_now(s, hurried) == 0) {
		/* Somebody is in a scope for long: not this one, nor others of its kind. */
		qy_span_settle(l, s);
		s = NULL;
	}
	if (s == NULL) {
		if (!hurried)
			(void)qy_bury(l, BURY);
		s = span_make(l, class, qy_class_size(class), span_pages(class), mover);
	}
	t->span = s;
	if (s != NULL)
		qy_publish(s->owner, t);
	qy_let_go(&l->lock);
	return s != NULL;
}

bool qy_take_more(quarry_lanes *l, struct qy_taker *t, unsigned class)
{
	while (t->taken == 0) {
		if (t->span != NULL && next_word(t))
			break;
		if (!next_span(l, t, class)) {
			errno = ENOMEM;
			return false;
		}
	}
	if (t != &l->mover.of[class])
		qy_count_shared(&l->figures->of[class].taken, (uint64_t)__builtin_popcountll(t->taken));
	return true;
}

void qy_untake(struct qy_taker *t, void *p)
{
	uint32_t index;
	struct qy_span *s = qy_span_of(p, &index);

	if (t != NULL && t->span == s && t->word == index / 64) {
		atomic_store_explicit(&s->entry[index].whose, 0, memory_order_relaxed);
		t->taken |= (uint64_t)1 << index % 64;
		return;
	}
	/* The taker has gone on. Nobody looks at it before a sweep: a tombstone, and its span may have been the object alone. */
	atomic_store_explicit(&s->entry[index].whose, QY_TOMB | qy_epoch_now(), memory_order_release);
	qy_entomb_shared(qy_segment_of(s)->lanes, s);
}

static void taker_end(quarry_lanes *l, struct qy_taker *t)
{
	struct qy_span *s = t->span;

	if (s == NULL)
		return;
	atomic_fetch_and_explicit(&s->bits[t->word], ~t->taken, memory_order_release);
	atomic_fetch_sub_explicit(&s->used, (uint32_t)__builtin_popcountll(t->taken), memory_order_relaxed);
	if (t != &l->mover.of[s->class])
		atomic_fetch_sub_explicit(&l->figures->of[s->class].taken, (uint64_t)__builtin_popcountll(t->taken),
					  memory_order_relaxed);
	qy_hold(&l->lock);
	qy_span_settle(l, s);
	*t = (struct qy_taker){ 0 }; /* under the lock, which a fork waits for: nobody settles it twice */
	qy_let_go(&l->lock);
}

void qy_takers_end(quarry_lanes *l, struct qy_lanes_cache *c)
{
	qy_fast_end(l, c);
	for (unsigned class = 0; class < qy_class_count(); class++)
		taker_end(l, &c->of[class]);
}

void *qy_take_whole(quarry_lanes *l, size_t size, bool mover)
{
	struct qy_span *s;

	qy_hold(&l->lock);
	if (!mover || !l->hurried)
		(void)qy_bury(l, BURY);
	s = span_make(l, QY_CLASS_WHOLE, size, (unsigned)((size + QY_SEGMENT_RECORD + QY_LPAGE_SIZE - 1) / QY_LPAGE_SIZE), mover);
	if (s != NULL) {
		atomic_store(&s->bits[0], UINT64_MAX);
		atomic_store(&s->used, 1);
		atomic_store(&s->place, QY_SPAN_FULL);
	}
	qy_let_go(&l->lock);
	return s == NULL ? NULL : qy_span_base(s);
}
