/* SPDX-License-Identifier: MIT */
/* Slots: who has which number, and for which life.
 *
 * 512 slots are a page, whose words are a page of the kernel's. A page has a list of its free slots, linked by their
 * words' address bits, and a number of the first that was not used yet; a free slot's word has the generation of its next
 * object. The lowest pages with free slots are taken from first, so that the upper ones become empty, and the words of an
 * empty page go back to the kernel: they read as 0 then, which is no handle's generation. What is left of them is the
 * page's floor, in 2 bytes: the highest generation that a slot of it was to have next. All slots of the page begin with
 * that when they are used again; so none ever repeats one, and the price are generations that the others skip. A slot
 * whose generations are used up is in no list again, and a page of such is gone for good.
 *
 * An object's slot cannot be moved behind its handle. But a program may take another handle for it: quarry_rehandle. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/figures.h"

#define LOOKED_AT 1024     /* pages that are looked at for some that are empty */
#define KEPT 8             /* empty pages that stay, beside an eighth of all */
#define SKIPPED_FREELY 4096 /* a page may go back for this part of its generations; */
#define SKIPPED_MOST 15    /* and for so many times the generations that were used of it */

/* ---- which pages have free slots ---- */

static void set_page(struct qy_slots *s, uint32_t page)
{
	for (int i = 0; i < QY_SLOT_LEVELS; i++, page /= 64)
		s->with_free[i][page / 64] |= (uint64_t)1 << page % 64;
}

static void clear_page(struct qy_slots *s, uint32_t page)
{
	for (int i = 0; i < QY_SLOT_LEVELS; i++, page /= 64)
		if ((s->with_free[i][page / 64] &= ~((uint64_t)1 << page % 64)) != 0)
			return;
}

/* The lowest page with a free slot, of those that were ever used; false: there is none. */
static bool lowest_page(const struct qy_slots *s, uint32_t *page)
{
	uint32_t at = 0;

	while (at < s->top_words && s->with_free[QY_SLOT_LEVELS - 1][at] == 0)
		at++;
	if (at == s->top_words)
		return false;
	for (int i = QY_SLOT_LEVELS - 1; i >= 0; i--)
		at = at * 64 + (uint32_t)__builtin_ctzll(s->with_free[i][at]);
	*page = at;
	return true;
}

/* ---- made and ended ---- */

static uint32_t pages_of(const quarry_lanes *l)
{
	return (uint32_t)((l->map.slots + QY_SLOT_PAGE - 1) / QY_SLOT_PAGE);
}

bool qy_slots_start(quarry_lanes *l)
{
	struct qy_slots *s = &l->slots;
	size_t words = pages_of(l);

	pthread_mutex_init(&s->lock, NULL);
	s->chunk = quarry_calloc((words + QY_SLOT_CHUNK - 1) / QY_SLOT_CHUNK, sizeof(*s->chunk));
	for (int i = 0; i < QY_SLOT_LEVELS; i++) {
		words = (words + 63) / 64;
		s->with_free[i] = quarry_calloc(words, sizeof(uint64_t));
		if (s->with_free[i] == NULL)
			return false;
	}
	s->top_words = (uint32_t)words;
	return s->chunk != NULL;
}

void qy_slots_end(quarry_lanes *l)
{
	struct qy_slots *s = &l->slots;

	for (uint32_t i = 0; s->chunk != NULL && i * (uint64_t)QY_SLOT_CHUNK < pages_of(l); i++)
		quarry_free(s->chunk[i]);
	quarry_free(s->chunk);
	for (int i = 0; i < QY_SLOT_LEVELS; i++)
		quarry_free(s->with_free[i]);
}

/* ---- pages ---- */

static uint32_t size_of(const quarry_lanes *l, uint32_t page)
{
	return (uint32_t)qy_min(QY_SLOT_PAGE, l->map.slots - (uint64_t)page * QY_SLOT_PAGE);
}

static bool is_empty(const quarry_lanes *l, uint32_t page)
{
	const struct qy_slot_page *p = qy_slot_page(l, page);

	return p->free == size_of(l, page) && qy_peek(p->fresh) > 0;
}

/* It stops being empty, or may be from now on. */
static void count_empty(quarry_lanes *l, uint32_t page, int by)
{
	if (is_empty(l, page))
		qy_publish(l->slots.empty, l->slots.empty + (uint32_t)by);
}

/* The next page that was never used has free slots from now on. */
static bool page_more(quarry_lanes *l)
{
	uint32_t next = atomic_load_explicit(&l->slots.next, memory_order_relaxed), page = next / QY_SLOT_PAGE;

	if (next >= l->map.slots)
		return false;
	if (page % QY_SLOT_CHUNK == 0) {
		struct qy_slot_page *made = quarry_calloc(QY_SLOT_CHUNK, sizeof(*made));

		if (made == NULL)
			return false;
		__atomic_store_n(&l->slots.chunk[page / QY_SLOT_CHUNK], made, __ATOMIC_RELEASE);
	}
	qy_slot_page(l, page)->free = (uint16_t)size_of(l, page);
	atomic_store_explicit(&qy_slot_page(l, page)->floor, l->slots.first, memory_order_relaxed);
	set_page(&l->slots, page);
	atomic_store_explicit(&l->slots.next, next + size_of(l, page), memory_order_release);
	return true;
}

/* A page that has a free slot loses one, whose word says its next generation. */
static uint32_t take_of(quarry_lanes *l, uint32_t page)
{
	struct qy_slot_page *p = qy_slot_page(l, page);
	uint32_t slot = page * QY_SLOT_PAGE;

	count_empty(l, page, -1);
	if (p->refused) {
		p->refused = 0;
		l->slots.refused--;
	}
	if (p->first != 0) {
		slot += p->first - 1u;
		p->first = (uint16_t)((atomic_load_explicit(&l->word[slot], memory_order_relaxed) & QUARRY_WORD_ADDRESS) >> 5);
	} else {
		slot += p->fresh;
		if (p->fresh == 0)
			qy_publish(l->slots.resident, l->slots.resident + 1);
		qy_publish(p->fresh, (uint16_t)(p->fresh + 1));
		atomic_store_explicit(&l->word[slot],
				      (uint64_t)atomic_load_explicit(&p->floor, memory_order_relaxed) << 48 | QUARRY_WORD_FREE,
				      memory_order_relaxed);
	}
	if (--p->free == 0)
		clear_page(&l->slots, page);
	qy_publish(l->slots.taken, l->slots.taken + 1);
	return slot;
}

/* The floor is there before the words are gone: who sees a 0 sees it. Meanwhile nobody has a slot of the page, nor can
 * take one, and the lock is free: the kernel may take its time, and so may who else gives memory back. Where it does not take
 * them they stay as they are, lists and all. */
static void give_word_page_back(quarry_lanes *l, uint32_t page, uint16_t floor)
{
	struct qy_slot_page *p = qy_slot_page(l, page);
	const uint16_t first = p->first, fresh = p->fresh;
	int error = errno, failed;

	count_empty(l, page, -1);
	atomic_store_explicit(&p->floor, floor, memory_order_release);
	clear_page(&l->slots, page);
	p->first = 0;
	qy_publish(p->fresh, 0);
	qy_let_go(&l->slots.lock);
	failed = quarry_discard((void *)&l->word[page * QY_SLOT_PAGE], QY_SLOT_PAGE * sizeof(qy_word)) == 0 ? 0 : errno;
	errno = error;
	qy_hold(&l->slots.lock);
	if (failed == 0) {
		qy_publish(l->slots.resident, l->slots.resident - 1);
	} else {
		l->slots.stuck |= failed == ENOTSUP || failed == EINVAL; /* (EDEADLK: in a function that is told of regions) */
		p->first = first;
		qy_publish(p->fresh, fresh);
	}
	if (p->free > 0)
		set_page(&l->slots, page);
	count_empty(l, page, 1);
}

/* A slot whose word has its next generation, or none left. */
static void give_to(quarry_lanes *l, uint32_t slot)
{
	uint32_t page = slot / QY_SLOT_PAGE;
	struct qy_slot_page *p = qy_slot_page(l, page);
	uint64_t generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48;

	qy_publish(l->slots.taken, l->slots.taken - 1);
	if (generation > l->generations) {
		qy_publish(l->slots.retired, l->slots.retired + 1);
		if (++p->retired == size_of(l, page))
			give_word_page_back(l, page, UINT16_MAX);
		return;
	}
	atomic_store_explicit(&l->word[slot], generation << 48 | (uint64_t)p->first << 5 | QUARRY_WORD_FREE,
			      memory_order_relaxed);
	p->first = (uint16_t)(slot % QY_SLOT_PAGE + 1);
	if (p->free++ == 0)
		set_page(&l->slots, page);
	count_empty(l, page, 1);
}

/* ---- words go back ---- */

/* The floor that an empty page would have; 0: that would waste too many of its generations. */
static uint16_t floor_of(const quarry_lanes *l, uint32_t page)
{
	const struct qy_slot_page *p = qy_slot_page(l, page);
	uint64_t was = atomic_load_explicit(&p->floor, memory_order_relaxed), floor = was, used = 0;

	for (uint32_t i = 0; i < p->fresh; i++) {
		uint64_t generation = atomic_load_explicit(&l->word[page * QY_SLOT_PAGE + i], memory_order_relaxed) >> 48;

		floor = qy_max(floor, generation);
		used += generation - was;
	}
	if (floor - was > l->generations / SKIPPED_FREELY + 1 &&
	    (floor - was) * size_of(l, page) - used > used * SKIPPED_MOST)
		return 0;
	return (uint16_t)floor;
}

/* Whether there are more than `keep` empty pages that may go back. */
static bool may_go(const struct qy_slots *s, uint32_t keep)
{
	return s->empty - s->refused > keep && !s->stuck;
}

/* Under the lock, which is free for moments: some empty pages go back, if there are more than `keep`. Whether it may be worth to go on. */
static bool trim(quarry_lanes *l, uint32_t keep)
{
	struct qy_slots *s = &l->slots;
	uint32_t pages = (uint32_t)((atomic_load_explicit(&s->next, memory_order_relaxed) + QY_SLOT_PAGE - 1) / QY_SLOT_PAGE);
	unsigned read = 0;

	for (unsigned n = 0; n < LOOKED_AT && may_go(s, keep) && read < QY_SLOT_PAGES_AT_ONCE; n++) {
		uint16_t floor;

		s->at = s->at == 0 || s->at > pages ? pages : s->at;
		if (!is_empty(l, --s->at) || qy_slot_page(l, s->at)->refused)
			continue;
		read++;
		floor = floor_of(l, s->at);
		if (floor != 0) {
			give_word_page_back(l, s->at, floor);
		} else {
			qy_slot_page(l, s->at)->refused = 1;
			s->refused++;
		}
	}
	return may_go(s, keep);
}

bool qy_slots_trim(quarry_lanes *l)
{
	bool more;

	qy_hold(&l->slots.lock);
	more = trim(l, 0);
	qy_let_go(&l->slots.lock);
	return more;
}

bool qy_slot_was_had(const quarry_lanes *l, quarry_handle h)
{
	uint32_t page = (uint32_t)h / QY_SLOT_PAGE;
	const struct qy_slot_page *chunk = __atomic_load_n(&l->slots.chunk[page / QY_SLOT_CHUNK], __ATOMIC_ACQUIRE);

	return chunk != NULL &&
	       (h >> 32 & 0xffff) < atomic_load_explicit(&chunk[page % QY_SLOT_CHUNK].floor, memory_order_acquire);
}

/* ---- taken and given ---- */

/* The next of these is the lowest: they are taken from the end. */
bool qy_slots_more(quarry_lanes *l, struct qy_lanes_cache *c)
{
	uint32_t slot[QY_SLOTS_CACHED / 2], n = 0, page;

	qy_hold(&l->slots.lock);
	while (c->slots + n < QY_SLOTS_CACHED / 2 && (lowest_page(&l->slots, &page) || (page_more(l) && lowest_page(&l->slots, &page))))
		slot[n++] = take_of(l, page);
	qy_let_go(&l->slots.lock);
	while (n > 0)
		qy_slot_push(c, slot[--n]);
	if (c->slots == 0)
		(void)qy_fail(ENOMEM, "no handle is free: these lanes have %lu", (unsigned long)l->map.slots);
	return c->slots > 0;
}

void qy_slots_give_all(quarry_lanes *l, struct qy_lanes_cache *c)
{
	qy_hold(&l->slots.lock);
	while (c->slots > 0)
		give_to(l, c->slot[--c->slots]);
	qy_let_go(&l->slots.lock);
}

void qy_slots_flush(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t keep)
{
	struct qy_slots *s = &l->slots;

	qy_hold(&s->lock);
	while (c->slots > keep)
		give_to(l, c->slot[--c->slots]);
	if (QY_UNLIKELY(may_go(s, KEPT + s->resident / 8)))
		(void)trim(l, KEPT + s->resident / 8);
	qy_let_go(&s->lock);
}

void qy_slot_give(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot)
{
	uint64_t generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48;

	if (generation > l->generations || c == NULL) { /* or there is no memory for a cache */
		qy_hold(&l->slots.lock);
		give_to(l, slot);
		qy_let_go(&l->slots.lock);
		return;
	}
	if (c->slots == QY_SLOTS_CACHED) {
		qy_slots_flush(l, c, QY_SLOTS_CACHED / 2);
		qy_news(l);
	}
	qy_slot_push(c, slot);
}

/* ---- other handles ---- */

/* Pages from this one on would be empty if all objects had low slots, with an eighth to spare. */
static uint32_t goal(const quarry_lanes *l)
{
	uint32_t taken = qy_peek(l->slots.taken), pages = (taken + QY_SLOT_PAGE - 1) / QY_SLOT_PAGE;

	return pages + pages / 8 + 1;
}

size_t quarry_rehandle_gain(quarry_lanes *l)
{
	uint32_t resident, pages;

	if (!qy_lanes_check(l))
		return 0;
	resident = qy_peek(l->slots.resident) - (uint32_t)qy_min(qy_peek(l->slots.empty), qy_peek(l->slots.resident));
	pages = goal(l) + 1; /* (one that changes its slot has two meanwhile) */
	return resident > pages ? (size_t)(resident - pages) * QY_SLOT_PAGE * sizeof(qy_word) : 0;
}

/* A slot of the lower pages. */
static bool take_low(quarry_lanes *l, uint32_t *slot)
{
	uint32_t page;
	bool low;

	qy_hold(&l->slots.lock);
	low = lowest_page(&l->slots, &page) && page < goal(l);
	if (low)
		*slot = take_of(l, page);
	qy_let_go(&l->slots.lock);
	return low;
}

static void give_slot(quarry_lanes *l, uint32_t slot)
{
	struct qy_slots *s = &l->slots;

	qy_hold(&s->lock);
	give_to(l, slot);
	if (may_go(s, KEPT))
		(void)trim(l, KEPT);
	qy_let_go(&s->lock);
}

/* In a scope, under groups.lock: from one slot to another; the word of the new one. 0: it is not to be had just now, and
 * stays. Claimed, nobody pins it, and who does since waits for the lock. */
static uint64_t change_slot(quarry_lanes *l, quarry_handle h, uint32_t slot)
{
	qy_word *at = &l->word[(uint32_t)h];
	uint64_t word = atomic_load(at), generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48, now;
	uint64_t next = ((h >> 32 & 0xffff) + 1) << 48 | QUARRY_WORD_FREE;
	struct qy_entry *entry;
	uint32_t marks, claimed;

	if (((word ^ h << 16) & QY_WORD_STATES) != 0)
		return 0;
	entry = qy_entry_at(qy_word_address(word), word);
	marks = atomic_load(&entry->marks);
	if ((marks & (QY_MARK_HELD | QY_MARK_SIDE | QY_MARK_ZOMBIE)) ||
	    !atomic_compare_exchange_strong(&entry->marks, &marks, marks | QY_MARK_CLAIMED))
		return 0;
	/* From here on it is in the old slot or nowhere: whoever moves it finds another word, and lets it be. */
	if (!atomic_compare_exchange_strong(at, &word, next)) {
		atomic_fetch_and(&entry->marks, ~QY_MARK_CLAIMED);
		return 0;
	}
	atomic_store_explicit(&entry->whose, slot + 1, memory_order_relaxed);
	claimed = QY_MARK_CLAIMED;
	if (QY_UNLIKELY((marks & QY_MARK_SAMPLED) && !qy_life_move(l, (uint32_t)h, slot)))
		claimed |= QY_MARK_SAMPLED;
	atomic_fetch_and(&entry->marks, ~claimed);
	now = generation << 48 | (word & (QUARRY_WORD_ADDRESS | QUARRY_WORD_HEAD | QUARRY_WORD_UNSEEN));
	atomic_store_explicit(&l->word[slot], now, memory_order_release);
	return now;
}

/* In a scope. */
static quarry_handle rehandle(quarry_lanes *l, quarry_handle h)
{
	struct qy_lanes_cache *c = qy_lanes_cache(l);
	uint64_t now;
	uint32_t slot;

	if (c != NULL && c->slots > 0)
		qy_slots_flush(l, c, 0); /* they may be the last of many pages */
	if (!take_low(l, &slot))
		return h;
	qy_hold(&l->groups.lock);
	now = change_slot(l, h, slot);
	qy_let_go(&l->groups.lock);
	give_slot(l, now == 0 ? slot : (uint32_t)h);
	return now == 0 ? h : (h & ~(quarry_handle)0xffffffffffff) | now >> 48 << 32 | slot;
}

quarry_handle quarry_rehandle(quarry_lanes *l, quarry_handle h)
{
	int error = errno;
	const void *p;
	int found;

	if (!qy_lanes_check(l))
		return 0;
	quarry_enter();
	found = qy_try_live(l, h, &p);
	if (found != 0)
		h = found > 0 ? h : 0; /* what is cold stays as it is */
	else if ((uint32_t)h / QY_SLOT_PAGE >= goal(l))
		h = rehandle(l, h);
	quarry_leave();
	if (h != 0)
		errno = error;
	return h;
}
