/* SPDX-License-Identifier: MIT */
/* A cut through a durable heap: all of its memory as it is at one moment, at which no change is half done. Pages that changed are
 * copied while programs go on, and again where they changed meanwhile; when few are left, the gate is closed, and these are
 * copied. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/durable.h"

#define FEW 64u            /* pages: 20 us */
#define ROUNDS 8u
#define HELD (64u * QY_BATCH) /* copies in memory: 64 MiB; what is more goes to the file at once */
#define SPARE (2 * QY_BATCH)  /* room for so many, made before the gate is closed */

/* ---- room ---- */

static void *larger(void *old, uint64_t was, uint64_t is, size_t size)
{
	char *p = quarry_realloc(old, is * size);

	if (p != NULL)
		memset(p + was * size, 0, (is - was) * size);
	return p;
}

#define LARGER(array, was, is) ((p = larger((array), (was), (is), sizeof(*(array)))) != NULL && ((array) = p, true))

static bool fit(struct qy_cut *c, uint64_t end)
{
	uint64_t was = c->pages, is = qy_min(qy_align_up(end >> QY_PAGE_SHIFT, QY_FAN) + 16 * QY_FAN, c->h->durable->max_pages);
	void *p;

	if (end >> QY_PAGE_SHIFT <= was)
		return true;
	if (!LARGER(c->round, was / 64, is / 64) || !LARGER(c->taken, was / 64, is / 64) || !LARGER(c->own, was / 64, is / 64) ||
	    !LARGER(c->where, was, is) || !LARGER(c->page_of, was, is + QY_BATCH) ||
	    !LARGER(c->chunk, was / QY_BATCH, is / QY_BATCH + 1) || !qy_tree_reserve(&c->h->durable->tree, is)) {
		qy_fail(ENOMEM, "mapped heap: no memory for a checkpoint's tables");
		return false;
	}
	c->pages = is;
	return true;
}

/* Room for so many more copies, all of it touched. */
static bool make_room(struct qy_cut *c, uint64_t more)
{
	while (c->room < qy_min(c->copies + more, c->pages)) {
		char *chunk = quarry_malloc(QY_BATCH * QY_PAGE);

		if (chunk == NULL) {
			qy_fail(ENOMEM, "mapped heap: no memory for copies of pages");
			return false;
		}
		memset(chunk, 0, QY_BATCH * QY_PAGE);
		c->chunk[c->room / QY_BATCH] = chunk;
		c->room += QY_BATCH;
	}
	return true;
}

static char *copy_at(const struct qy_cut *c, uint32_t copy)
{
	return c->chunk[copy / QY_BATCH] + copy % QY_BATCH * QY_PAGE;
}

/* ---- pages ---- */

/* While programs go on it may be of several moments; then the page is copied again. (Programs store as they like, and that is a race which is
 * meant: words are read one by one, whole, and only what is read while the gate is closed counts.) */
__attribute__((no_sanitize("thread"))) static void copy_page(void *to, const void *from)
{
	uint64_t *t = to;
	const uint64_t *f = from;

	for (unsigned i = 0; i < QY_PAGE / sizeof(*t); i++)
		t[i] = qy_peek(f[i]);
}

/* Memory that was given back is not had anew by looking at it. Asked for places in ascending order. */
static bool is_hole(struct qy_cut *c, uint64_t at)
{
	if (at >= c->data_at && qy_os->find_data(c->h->fd, at, &c->data_at) != 0)
		c->data_at = errno == ENXIO ? UINT64_MAX : at;
	return at < c->data_at;
}

static bool is_zero(const void *page)
{
	const uint64_t *p = page;
	uint64_t any = 0;

	for (unsigned i = 0; i < QY_PAGE / sizeof(*p); i++)
		any |= p[i];
	return any == 0;
}

/* Whether the file has it so. It is read where its checksum is the same: that alone is no proof. */
static bool is_in_file(struct qy_cut *c, uint64_t page, const void *content, uint32_t crc)
{
	struct qy_ref ref = c->h->durable->tree.page[page];
	char in_file[QY_PAGE] __attribute__((aligned(8)));

	if (ref.slot == 0)
		return is_zero(content);
	return ref.crc == crc && qy_writer_flush(&c->out) == 0 &&
	       qy_os->read_at(c->h->durable->fd, in_file, QY_PAGE, ref.slot * QY_PAGE) == 0 &&
	       memcmp(in_file, content, QY_PAGE) == 0;
}

static bool consider(struct qy_cut *c, uint64_t page, bool compare)
{
	uint32_t copy = c->where[page] != 0 ? c->where[page] - 1 : c->copies;
	char *to;

	if (!make_room(c, 1))
		return false;
	to = copy_at(c, copy);
	if ((!c->at_gate || compare) && is_hole(c, page << QY_PAGE_SHIFT))
		memset(to, 0, QY_PAGE);
	else
		copy_page(to, c->h->pub.base + (page << QY_PAGE_SHIFT));
	if (c->where[page] != 0 || (compare && is_in_file(c, page, to, qy_page_crc(to))))
		return true;
	c->page_of[c->copies++] = (uint32_t)page;
	c->where[page] = c->copies;
	return true;
}

/* ---- to the file ---- */

static int place(struct qy_cut *c, uint64_t page, const char *content)
{
	struct qy_durable *d = c->h->durable;
	struct qy_ref *ref = &d->tree.page[page], is = { 0, 0 };
	bool own = qy_bit(c->own, page);

	if (!is_zero(content)) {
		is.crc = qy_page_crc(content);
		if (is_in_file(c, page, content, is.crc))
			return 0;
		is.slot = own && ref->slot != 0 ? ref->slot : qy_slot_take(&d->slots);
		if (is.slot == 0)
			return qy_fail(errno, "mapped heap: its file cannot have more pages");
		qy_writer_put(&c->out, is.slot, content);
	} else if (ref->slot == 0) {
		return 0;
	}
	if (own && is.slot == 0)
		qy_slot_back(&d->slots, ref->slot);
	*ref = is;
	qy_bit_set(c->own, page);
	c->changed += !own;
	return 0;
}

static int place_all(struct qy_cut *c)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < c->copies; i++) {
		rc = place(c, c->page_of[i], copy_at(c, i));
		c->where[c->page_of[i]] = 0;
	}
	c->copies = 0;
	if (qy_writer_flush(&c->out) != 0)
		rc = qy_fail(errno, "mapped heap: its file cannot be written");
	return rc;
}

/* A node of references, `count` of them. */
static int place_node(struct qy_cut *c, struct qy_ref *ref, const struct qy_ref *of, uint64_t count)
{
	struct qy_node node = { 0 };

	memcpy(&node, of, qy_min(count, QY_FAN) * sizeof(*of));
	ref->slot = qy_slot_take(&c->h->durable->slots);
	if (ref->slot == 0)
		return qy_fail(errno, "mapped heap: its file cannot have more pages");
	ref->crc = qy_page_crc(&node);
	qy_writer_put(&c->out, ref->slot, &node);
	return 0;
}

/* Nodes above all pages that have another place. */
static int place_nodes(struct qy_cut *c)
{
	struct qy_tree *t = &c->h->durable->tree;
	uint64_t leaves = qy_tree_leaves(t), above = leaves / QY_FAN;
	bool any_above = false, any_root = false;
	int rc = 0;

	for (uint64_t leaf = 0; rc == 0 && leaf < leaves; leaf++) {
		bool last = (leaf + 1) % QY_FAN == 0;
		uint64_t any = 0;

		for (unsigned w = 0; w < QY_FAN / 64 && leaf * QY_FAN < c->pages; w++)
			any |= c->own[leaf * QY_FAN / 64 + w];
		if (any != 0)
			rc = place_node(c, &t->node[0][leaf], &t->page[leaf * QY_FAN], QY_FAN);
		any_above |= any != 0;
		if (rc != 0 || !last)
			continue;
		if (any_above)
			rc = place_node(c, &t->node[1][leaf / QY_FAN], &t->node[0][leaf / QY_FAN * QY_FAN], QY_FAN);
		any_root |= any_above;
		any_above = false;
		if (rc == 0 && any_root && ((leaf / QY_FAN + 1) % QY_FAN == 0 || leaf + 1 == leaves)) {
			uint64_t root = leaf / QY_FAN / QY_FAN;

			rc = place_node(c, &t->root[root], &t->node[1][root * QY_FAN], above - root * QY_FAN);
			any_root = false;
		}
	}
	return rc;
}

int qy_cut_write(struct qy_cut *c)
{
	int rc = place_all(c);

	if (rc == 0)
		rc = place_nodes(c);
	if (qy_writer_flush(&c->out) != 0)
		rc = qy_fail(errno, "mapped heap: its file cannot be written");
	return rc;
}

/* ---- rounds ---- */

/* Lines of a page that is copied soon, and of where it goes: pages are anywhere in memory, and each is a walk through page tables and
 * some waiting. */
static void come(const struct qy_cut *c, uint64_t page)
{
	const char *from = c->h->pub.base + (page << QY_PAGE_SHIFT), *to = c->where[page] != 0 ? copy_at(c, c->where[page] - 1) : from;

	for (unsigned i = 0; i < QY_PAGE / 4; i += 64) {
		__builtin_prefetch(from + i);
		__builtin_prefetch(to + i, 1);
	}
}

/* The first page from one on whose bit is set; `pages` where there is none. */
static uint64_t next_page(const uint64_t *bits, uint64_t from, uint64_t pages)
{
	uint64_t w = from / 64, rest = from < pages ? bits[w] & ~(uint64_t)0 << from % 64 : 0;

	while (rest == 0 && ++w * 64 < pages)
		rest = bits[w];
	return rest == 0 ? pages : qy_min(pages, w * 64 + (uint64_t)__builtin_ctzll(rest));
}

static bool consider_round(struct qy_cut *c, uint64_t pages, bool compare)
{
	uint64_t page = next_page(c->round, QY_LIVE_PAGE, pages), next;
	bool good = true;

	c->data_at = 0;
	for (; page < pages && good; page = next) {
		next = next_page(c->round, page + 1, pages);
		if (c->at_gate && next < pages)
			come(c, next);
		good = consider(c, page, compare);
		/* (Only in rounds: at the gate there is no time.) */
		if (good && !c->at_gate && c->copies >= HELD)
			good = place_all(c) == 0;
	}
	return good;
}

static uint64_t note_taken(struct qy_cut *c, uint64_t pages)
{
	uint64_t count = 0;

	for (uint64_t w = 0; w * 64 < pages; w++) {
		c->taken[w] |= c->round[w];
		count += (uint64_t)__builtin_popcountll(c->round[w]);
	}
	return count;
}

static void all_of_them(struct qy_cut *c, uint64_t pages)
{
	for (uint64_t i = QY_LIVE_PAGE; i < pages; i++)
		qy_bit_set(c->round, i);
}

/* While programs go on. */
static bool rounds(struct qy_cut *c, bool all, bool *known)
{
	uint64_t before = UINT64_MAX, count = 0;

	for (unsigned r = 0; r < ROUNDS; r++, before = count) {
		uint64_t end = __atomic_load_n(&c->h->live->end, __ATOMIC_ACQUIRE), pages = end >> QY_PAGE_SHIFT;

		if (end > c->h->pub.length || !fit(c, end))
			return false;
		memset(c->round, 0, c->pages / 8);
		*known = qy_dirty_gather(c->h, &c->asked, c->round, pages);
		if (all && r == 0)
			all_of_them(c, pages);
		count = note_taken(c, pages);
		c->rounds++;
		if (!consider_round(c, pages, true))
			return false;
		if (count <= FEW || count > before / 2 || !*known)
			break;
	}
	return make_room(c, qy_max(SPARE, qy_min(2 * count, HELD)));
}

/* The gate is closed, and is open afterwards. 1 where too little is known, and it is not the last try. */
static int at_gate(struct qy_cut *c, bool last)
{
	uint64_t pages;
	bool known, good;

	c->end = c->h->live->end;
	pages = c->end >> QY_PAGE_SHIFT;
	c->at_gate = true;
	good = c->end <= c->h->pub.length && fit(c, c->end);
	if (good) {
		memset(c->round, 0, c->pages / 8);
		known = qy_dirty_gather(c->h, &c->asked, c->round, pages) && qy_peek(c->h->durable->side->suspect) == 0;
		qy_bit_set(c->round, QY_LIVE_PAGE);
		c->compared = !known && last;
		if (c->compared)
			all_of_them(c, pages);
		(void)note_taken(c, pages);
		if (known || last)
			good = consider_round(c, pages, c->compared);
	}
	c->at_gate = false;
	return !good ? -1 : known || last ? 0 : 1;
}

int qy_cut_make(struct qy_cut *c, struct heap *h)
{
	struct qy_side *side = h->durable->side;
	bool known = true;
	int rc = 1;

	if (!qy_asked_open(h, &c->asked))
		return qy_fail(ENOMEM, "mapped heap: no memory for a checkpoint's tables");
	for (unsigned tries = 0; rc == 1; tries++) {
		bool all = __atomic_exchange_n(&side->suspect, 0, __ATOMIC_ACQ_REL) != 0 || !known;
		uint64_t from;

		QY_DURABLE_POINT();
		c->was_suspect |= all;
		if (!rounds(c, all, &known))
			return -1;
		if (!known && !all) /* then all are compared, which is better begun before the gate is closed */
			continue;
		QY_DURABLE_POINT();
		from = qy_os->now_ns();
		if (qy_gate_close(h) != 0)
			return -1;
		/* Where the kernel does not tell, it will not the next time. */
		QY_DURABLE_POINT();
		rc = at_gate(c, tries > 1 || (!known && all));
		qy_gate_open(h);
		c->stopped_ns = qy_max(c->stopped_ns, qy_os->now_ns() - from);
		known = known && rc == 0;
	}
	return rc;
}

void qy_cut_undo(struct qy_cut *c)
{
	struct qy_durable *d = c->h->durable;

	for (uint64_t w = 0; w < c->pages / 64; w++) {
		if (c->taken[w] != 0)
			__atomic_fetch_or(&d->bits[w], c->taken[w], __ATOMIC_RELEASE);
	}
	if (c->was_suspect || c->compared)
		qy_put(d->side->suspect, 1);
}

void qy_cut_end(struct qy_cut *c)
{
	for (uint32_t i = 0; i < c->room / QY_BATCH; i++)
		quarry_free(c->chunk[i]);
	qy_asked_close(c->h, &c->asked);
	quarry_free(c->chunk);
	quarry_free(c->round);
	quarry_free(c->taken);
	quarry_free(c->own);
	quarry_free(c->where);
	quarry_free(c->page_of);
	quarry_free(c->out.buffer);
}
