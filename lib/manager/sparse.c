/* SPDX-License-Identifier: MIT */
#include "lib/manager/sparse.h"

#include <string.h>

#include "lib/manager/collapse.h"
#include "lib/manager/huge.h"
#include "lib/manager/mixed.h"
#include "numa/os.h"

#define BATCH 32       /* slabs taken out at a time, */
#define BATCH_IN_TIME 8 /* and where the time is short: some 100 calls of the kernel, which may split huge pages */
#define LOOKS 256      /* slabs looked at with the lock held once */
#define SLAB_PAGES 64  /* at most */

_Static_assert(4 * QY_UNIT == SLAB_PAGES << QY_PAGE_SHIFT, "the largest slab");

/* ---- pages and objects ---- */

/* The pages from the first to the last, as bits. */
static uint64_t span(uint32_t first, uint32_t last)
{
	return (last == 63 ? UINT64_MAX : ((uint64_t)1 << (last + 1)) - 1) & ~(((uint64_t)1 << first) - 1);
}

uint64_t qy_slab_pages_of(const struct qy_class *c, uint32_t object)
{
	uint32_t at = object * c->size;

	return span(at >> QY_PAGE_SHIFT, (at + c->size - 1) >> QY_PAGE_SHIFT);
}

static uint32_t object_at(const struct qy_class *c, uint32_t offset)
{
	return (uint32_t)((uint64_t)offset * c->magic >> 40);
}

void qy_slab_set_gone(struct qy_slab *s, uint64_t gone)
{
	struct qy_manager *m = qy_manager_of(qy_slab_memory(s));
	uint64_t was = qy_slab_gone(s);

	/* (What becomes less is added as what makes it so.) */
	if (m != NULL && gone != was)
		qy_count_shared(&m->absent_pages,
				(uint64_t)(__builtin_popcountll(gone) - __builtin_popcountll(was)));
	for (uint32_t i = 0; i < qy_classes[s->cls].units; i++)
		s[i].gone = (uint16_t)(gone >> (i * (QY_UNIT >> QY_PAGE_SHIFT)));
}

/* ---- parking, and back ---- */

/* The pages of the first parked object come back, and with them all objects that now stand in no page that is gone. */
void qy_slab_unpark(struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	char *memory = qy_slab_memory(s);
	uint64_t was = qy_slab_gone(s), back, gone;
	uint32_t first = object_at(c, (uint32_t)__builtin_ctzll(was) << QY_PAGE_SHIFT), last, n = 0;
	void *list = s->local;

	back = qy_slab_pages_of(c, first);
	gone = was & ~back;
	first = object_at(c, (uint32_t)__builtin_ctzll(back) << QY_PAGE_SHIFT);
	last = object_at(c, ((64 - (uint32_t)__builtin_clzll(back)) << QY_PAGE_SHIFT) - 1);
	last = (uint32_t)qy_min(last, c->capacity - 1);
	for (uint32_t i = last + 1; i-- > first;) {
		uint64_t pages = qy_slab_pages_of(c, i);

		if ((pages & was) == 0 || (pages & gone) != 0)
			continue;
		qy_link_object(memory + (size_t)i * c->size, list);
		list = memory + (size_t)i * c->size;
		n++;
	}
	/* In this order: a child forked in between loses objects, and has none twice. */
	qy_slab_set_gone(s, gone);
	qy_publish(s->linked, s->linked + n);
	s->local = list;
	qy_assert(n > 0 && s->linked <= s->carved);
	qy_collapse_wake();
}

/* Which objects are free, by the slab's list and what was never carved or is parked; false when the list is not
 * sound. */
bool qy_slab_find_free(const struct qy_slab *s, uint64_t free_ones[QY_SLAB_WORDS])
{
	const struct qy_class *c = &qy_classes[s->cls];
	char *memory = qy_slab_memory(s);
	uint64_t gone = qy_slab_gone(s);
	uint32_t n = 0;

	memset(free_ones, 0, QY_SLAB_WORDS * sizeof(*free_ones));
	for (char *p = s->local; p != NULL; p = qy_next_object(p)) {
		uint64_t in = (uint64_t)(p - memory), i = in * c->magic >> 40;

		if (in >= (uint64_t)s->carved * c->size || i * c->size != in || (free_ones[i / 64] >> (i % 64) & 1))
			return false;
		free_ones[i / 64] |= (uint64_t)1 << (i % 64);
		n++;
	}
	if (n != s->linked - s->countdown)
		return false;
	for (uint32_t i = s->carved; i < c->capacity; i++)
		free_ones[i / 64] |= (uint64_t)1 << (i % 64);
	for (uint32_t i = 0; gone != 0 && i < c->capacity; i++)
		if ((qy_slab_pages_of(c, i) & gone) != 0)
			free_ones[i / 64] |= (uint64_t)1 << (i % 64);
	return true;
}

static bool is_free(const uint64_t *free_ones, uint32_t i)
{
	return free_ones[i / 64] >> (i % 64) & 1;
}

/* Link what is free and not parked, by address. */
static void relink(struct qy_slab *s, const uint64_t *free_ones, uint64_t gone)
{
	const struct qy_class *c = &qy_classes[s->cls];
	char *memory = qy_slab_memory(s);
	uint32_t n = 0;
	void *list = NULL;

	for (uint32_t i = c->capacity; i-- > 0;) {
		if (!is_free(free_ones, i) || (qy_slab_pages_of(c, i) & gone) != 0)
			continue;
		qy_link_object(memory + (size_t)i * c->size, list);
		list = memory + (size_t)i * c->size;
		n++;
	}
	s->local = list;
	qy_publish(s->carved, (uint16_t)c->capacity);
	qy_publish(s->linked, s->countdown + n);
}

uint64_t qy_slab_all_pages(const struct qy_class *c)
{
	return span(0, (c->units << (QY_UNIT_SHIFT - QY_PAGE_SHIFT)) - 1);
}

/* What no object reached yet was never touched, when it was clean. (Of an unsound count the last page is, too.) And
 * behind the last object there may be pages from when other objects stood here, which go with the first pages that
 * do. */
uint64_t qy_slab_clean_pages(const struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	uint64_t gone = qy_slab_gone(s), reached;

	if (!s->zero && gone == 0)
		return 0;
	reached = (uint64_t)(s->zero ? s->carved : c->capacity) * c->size;
	return gone | (reached == 0 ? UINT64_MAX : ~span(0, (uint32_t)((reached - 1) >> QY_PAGE_SHIFT)));
}

/* Park what can be: the pages to be purged, as bits. The slab is nobody else's. */
static uint64_t thin(struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	uint32_t last = (c->capacity * c->size - 1) >> QY_PAGE_SHIFT, carved = s->carved;
	uint64_t free_ones[QY_SLAB_WORDS], live = 0, was = qy_slab_gone(s), clean = qy_slab_clean_pages(s), gone;

	if (!qy_slab_find_free(s, free_ones))
		return 0;
	for (uint32_t i = 0; i < carved; i++)
		if (!is_free(free_ones, i))
			live |= qy_slab_pages_of(c, i);
	gone = span(0, last) & ~live;
	if ((gone & ~was) == 0)
		return 0;
	relink(s, free_ones, gone);
	qy_slab_set_gone(s, gone);
	return qy_slab_all_pages(c) & ~live & ~clean;
}

/* ---- going over the orphans ---- */

static uint32_t frame_of(const struct qy_slab *s)
{
	return (uint32_t)(qy_window_offset(qy_slab_memory(s)) >> QY_FRAME_SHIFT);
}

#define WORTH (QY_FRAME_PAGES / 4) /* pages of a huge page that go back, at least, or it stays whole */

/* How many pages of a slab nothing lives in, when what lives stands anywhere. */
static uint32_t empty_pages(const struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	uint32_t objects = QY_PAGE / c->size + 1;
	uint64_t share, all = (uint64_t)1 << 16;

	if (s->state == QY_SLAB_MIXED)
		return qy_mixed_empty_pages(s);
	share = ((uint64_t)(c->capacity - qy_min(s->countdown, c->capacity)) << 16) / c->capacity;
	/* share to the power of the objects that reach into a page */
	for (; objects > 0; objects >>= 1, share = share * share >> 16)
		if (objects & 1)
			all = all * share >> 16;
	return (uint32_t)((uint64_t)(c->units << (QY_UNIT_SHIFT - QY_PAGE_SHIFT)) * all >> 16);
}

/* Whether enough of a frame could go back, by what nobody holds. Found out once in a pass. */
static bool is_sparse(const struct qy_manager *m, uint32_t f)
{
	const struct qy_slab *units = qy_slab_at((uintptr_t)f << QY_FRAME_SHIFT);
	struct qy_frame *frame = qy_frame_at(f);
	uint32_t pages = frame->dirty;

	if (frame->sparse_pass == m->sparse.pass)
		return frame->sparse;
	for (uint32_t u = 0; u < QY_FRAME_UNITS; u++)
		if (qy_peek(units[u].kind) == QY_SLAB_HEAD &&
		    atomic_load_explicit(&units[u].owner, memory_order_relaxed) == 0 && units[u].state != QY_SLAB_FULL)
			pages += empty_pages(&units[u]);
	frame->sparse_pass = m->sparse.pass;
	frame->sparse = pages >= WORTH;
	return frame->sparse;
}

bool qy_sparse_may_break(struct qy_manager *m, const struct qy_slab *slab, uint64_t now, bool *again)
{
	uint32_t f = frame_of(slab);
	bool may;

	if (!qy_region_may_be_huge(qy_region_of_frame(qy_frame_at(f)), qy_window_at((uintptr_t)f << QY_FRAME_SHIFT)))
		return true;
	if (!is_sparse(m, f))
		return false;
	may = qy_huge_may_break(m, f, now);
	*again = *again || !may;
	return may;
}

/* Whether a look at the slab may find a page that can go: there is that much free in it. */
static bool is_worth_it(const struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];

	return (uint64_t)(s->linked - s->countdown + (c->capacity - s->carved)) * c->size >= QY_PAGE;
}

#define ADOPTED 16 /* stands for one slab in a reserve, */
#define ADOPTED_MOST (UINT16_MAX / ADOPTED)

/* As many slabs of a class as threads took between two passes of late will be taken again: whose pages were given back
 * in between would be touched anew in malloc. Of that a third is forgotten in each pass: one slab stays for five. The
 * lock is held. */
static void set_reserves(struct qy_sparse *sparse)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		uint32_t was = sparse->reserve[cls], rest = was == 0 ? 0 : was - was / 3 - 1;

		sparse->reserve[cls] = (uint16_t)qy_max(qy_min(sparse->adopted[cls], ADOPTED_MOST) * ADOPTED, rest);
		sparse->adopted[cls] = 0;
	}
	sparse->left = 0;
}

/* Whether the slab is one of the reserve: those that are taken first are looked at first. */
static bool is_reserved(struct qy_manager *m, const struct qy_slab *s)
{
	if (m->sparse.left * ADOPTED >= m->sparse.reserve[s->cls])
		return false;
	m->sparse.left++;
	return true;
}

/* Take slabs whose turn it is out of the orphans, into the heap of those that are being thinned. *more: there are
 * others that were not looked at. The lock is held. */
static unsigned take_some(struct qy_manager *m, uint64_t now_ms, bool at_once, unsigned batch, struct qy_slab **slabs,
			  bool *again, bool *more)
{
	struct qy_heap *orphans = &m->orphans;
	unsigned n = 0, looks = 0;

	for (; orphans->shed_class < QY_CLASSES; orphans->shed_class++) {
		struct qy_slab_list *queue = &orphans->queue[orphans->shed_class];
		struct qy_slab *s;

		while ((s = queue->first) != NULL && s->epoch != orphans->shed_epoch) {
			uint16_t now = (uint16_t)(s->countdown + 1);

			if (n == batch || looks++ == LOOKS) {
				*more = true;
				return n;
			}
			s->epoch = orphans->shed_epoch;
			qy_slab_list_remove(queue, s);
			if (!at_once && is_reserved(m, s)) {
				*again = *again || (!s->thinned && is_worth_it(s));
				qy_slab_list_push_back(queue, s);
				continue;
			}
			if ((at_once || s->seen == now) && !(s->thinned && s->seen == now) && is_worth_it(s)) {
				if (!at_once && !qy_sparse_may_break(m, s, now_ms, again)) {
					qy_slab_list_push_back(queue, s);
					continue;
				}
				atomic_store_explicit(&s->heap, &m->thinning, memory_order_release);
				qy_uncount(&orphans->slabs, 1);
				s->seen = now;
				s->thinned = true;
				slabs[n++] = s;
				continue;
			}
			if (s->seen != now) {
				s->seen = now;
				s->thinned = false;
				*again = *again || is_worth_it(s);
			}
			qy_slab_list_push_back(queue, s);
		}
		m->sparse.left = 0;
	}
	return n;
}

/* The lock is held. */
static void put_back(struct qy_manager *m, struct qy_slab **slabs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct qy_slab *s = slabs[i];

		atomic_store_explicit(&s->heap, &m->orphans, memory_order_release);
		qy_slab_list_push_back(&m->orphans.queue[s->cls], s);
		qy_count(&m->orphans.slabs, 1);
	}
}

/* Purge the pages of a slab; what the kernel refuses stays in memory, and free. */
size_t qy_slab_purge_pages(struct qy_slab *s, uint64_t pages)
{
	char *memory = qy_slab_memory(s);
	struct qy_region *r = qy_region_of_frame(qy_frame_at(frame_of(s)));
	size_t bytes = 0;

	while (pages != 0) {
		uint32_t first = (uint32_t)__builtin_ctzll(pages);
		uint64_t rest = ~(pages >> first);
		uint32_t n = rest == 0 ? 64 - first : (uint32_t)qy_min((uint32_t)__builtin_ctzll(rest), 64 - first);

		if (qy_region_purge(r, memory + ((size_t)first << QY_PAGE_SHIFT), (size_t)n << QY_PAGE_SHIFT))
			bytes += (size_t)n << QY_PAGE_SHIFT;
		pages &= ~span(first, first + n - 1);
	}
	return bytes;
}

/* Pinned memory goes back whole or not at all, and parking its objects would gain nothing. */
bool qy_slab_can_go(struct qy_manager *m, const struct qy_slab *s)
{
	const struct qy_region *r = qy_region_of_frame(qy_frame_at(frame_of(s)));

	return !qy_region_pinned(r) && !(qy_peek(qy_peek(m->placement)->flags) & QUARRY_ARENA_LOCKED);
}

/* What was freed while slabs were here goes where they are now. Nobody else receives for this heap. */
static void forward_mail(struct qy_manager *m)
{
	if (qy_heap_has_mail(&m->thinning))
		qy_heap_receive(&m->thinning);
}

void qy_sparse_forward_mail(struct qy_manager *m)
{
	forward_mail(m);
	(void)qy_manager_receive_until(m, UINT64_MAX);
}

static uint32_t passes; /* of all managers, since a frame may go from one to another; the purge lock's holder's */

static void start_anew(struct qy_manager *m)
{
	qy_lock(&m->lock);
	m->orphans.shed_class = 0;
	m->orphans.shed_epoch++;
	qy_unlock(&m->lock);
}

/* From the first slab on, or where the last pass was ended: else those behind would never have their turn. What was
 * looked at in time is looked at anew by who wants all at once; and by who has the time, all in any case. */
static void begin_pass(struct qy_manager *m, bool at_once, uint64_t until_ns)
{
	struct qy_sparse *sparse = &m->sparse;

	if (sparse->goes_on == QY_SPARSE_CUT_AT_ONCE && until_ns != UINT64_MAX)
		return;
	if (sparse->goes_on == QY_SPARSE_CUT && !at_once)
		return;
	if (sparse->goes_on != QY_SPARSE_WHOLE)
		start_anew(m);
	sparse->goes_on = QY_SPARSE_WHOLE;
	sparse->pass = ++passes;
	qy_lock(&m->lock);
	set_reserves(sparse);
	qy_unlock(&m->lock);
}

/* It came so far: what is found by the parts of a pass is told when its last one is over. */
static void end_pass(struct qy_manager *m, bool at_once, bool more, bool *again)
{
	struct qy_sparse *sparse = &m->sparse;

	*again = *again || sparse->again;
	sparse->again = more && *again;
	*again = *again || more;
	sparse->goes_on = !more ? QY_SPARSE_WHOLE : at_once ? QY_SPARSE_CUT_AT_ONCE : QY_SPARSE_CUT;
}

size_t qy_sparse_pass(struct qy_manager *m, uint64_t now, bool at_once, size_t at_most, uint64_t until_ns, bool *again)
{
	struct qy_slab *slabs[BATCH];
	unsigned batch = until_ns == UINT64_MAX ? BATCH : BATCH_IN_TIME;
	size_t total = 0;
	bool more = true, in_time, found;

	begin_pass(m, at_once, until_ns);
	forward_mail(m);
	found = qy_heap_has_mail(&m->orphans);
	in_time = qy_manager_receive_until(m, until_ns);
	/* (Counted without the lock: a look too many or too late.) None is left: one that was cut is over. */
	if (qy_read(&m->orphans.slabs) == 0 && in_time) {
		if (m->sparse.goes_on != QY_SPARSE_WHOLE)
			start_anew(m);
		end_pass(m, at_once, false, again);
		return 0;
	}
	while (more && total < at_most && in_time) {
		size_t bytes = 0;
		unsigned n;

		more = false;
		qy_lock(&m->lock);
		found = found || qy_heap_has_mail(&m->orphans);
		qy_manager_receive(m);
		n = take_some(m, now, at_once, batch, slabs, &found, &more);
		qy_unlock(&m->lock);
		for (unsigned i = 0; i < n; i++)
			if (qy_slab_can_go(m, slabs[i]))
				bytes += qy_slab_purge_pages(slabs[i], thin(slabs[i]));
		qy_lock(&m->lock);
		put_back(m, slabs, n);
		qy_count(&m->purges, bytes != 0);
		qy_count(&m->purged, bytes);
		if (!more) {
			m->orphans.shed_class = 0;
			m->orphans.shed_epoch++;
		}
		qy_unlock(&m->lock);
		forward_mail(m);
		total += bytes;
		in_time = qy_in_time(until_ns);
	}
	end_pass(m, at_once, more, &found);
	*again = *again || found;
	return total;
}
