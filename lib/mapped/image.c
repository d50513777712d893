/* SPDX-License-Identifier: MIT */
/* Versions of a durable heap in its file: superblocks, nodes, pages, and which slots are taken. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/durable.h"

#define TREE_STEP (16 * QY_FAN) /* pages: of 64 MiB, up to 1 GiB */
#define TREE_SMALL (QY_FAN * (uint64_t)QY_FAN)
#define SEQUENCES ((uint64_t)1 << 62) /* so many checkpoints nobody makes */

static const char magic[8] = "QUARRY\x1a" "D";

/* ---- checksums: CRC-32C, by the processor where it can ---- */

static uint32_t crc_by_table(const unsigned char *p, size_t n)
{
	static uint32_t of[8][256];
	static bool made;
	uint32_t crc = ~0u;

	if (!__atomic_load_n(&made, __ATOMIC_ACQUIRE)) { /* whoever makes it makes the same */
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t c = i;

			for (unsigned k = 0; k < 8; k++)
				c = c >> 1 ^ (0x82f63b78u & -(c & 1));
			qy_publish(of[0][i], c);
		}
		for (uint32_t i = 0; i < 256; i++) {
			for (unsigned t = 1; t < 8; t++)
				qy_publish(of[t][i], of[t - 1][i] >> 8 ^ of[0][of[t - 1][i] & 0xff]);
		}
		__atomic_store_n(&made, true, __ATOMIC_RELEASE);
	}
	for (; n >= 8; n -= 8, p += 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		v ^= crc;
		crc = 0;
		for (unsigned t = 0; t < 8; t++)
			crc ^= of[7 - t][v >> 8 * t & 0xff];
	}
	return ~crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc_by_processor(const unsigned char *p, size_t n)
{
	uint64_t crc = ~0u;

	for (; n >= 8; n -= 8, p += 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		crc = __builtin_ia32_crc32di(crc, v);
	}
	return ~(uint32_t)crc;
}
#endif

uint32_t qy_page_crc(const void *page)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return crc_by_processor(page, QY_PAGE);
#endif
	return crc_by_table(page, QY_PAGE);
}

/* ---- superblocks ---- */

static uint32_t crc_of(struct qy_durable_sb *sb)
{
	uint32_t was = sb->crc, crc;

	sb->crc = 0;
	crc = qy_page_crc(sb);
	sb->crc = was;
	return crc;
}

/* A file may have been made on purpose: no number of it is relied upon that was not looked at. Each version has a number that is no more than the
 * superblock's, and a newer one a larger one than what it replaced. */
static bool can_be(const struct qy_durable_sb *sb)
{
	struct qy_mapped_sb head = sb->sb, sealed = sb->sb;
	uint64_t at[6];

	qy_mapped_sb_seal(&sealed);
	if (memcmp(&sealed, &sb->sb, sizeof(sealed)) != 0 || !qy_mapped_layout(&head, at) || head.head_bytes != sb->sb.head_bytes ||
	    sb->sb.mode != QUARRY_MAPPED_DURABLE || sb->sb.sequence != sb->sequence)
		return false;
	if (sb->count < 1 || sb->keep >= QY_VERSIONS || sb->count > sb->keep + 1 || sb->sequence == 0 || sb->sequence > SEQUENCES)
		return false;
	for (uint32_t k = 0; k < sb->count; k++) {
		if (sb->version[k].number == 0 || sb->version[k].number > (k == 0 ? sb->sequence : sb->version[k - 1].number - 1))
			return false;
	}
	return true;
}

int qy_durable_sb_read(int fd, struct qy_durable_sb sb[2], bool valid[2])
{
	int newest = -1;

	for (int i = 0; i < 2; i++) {
		valid[i] = qy_os->read_at(fd, &sb[i], QY_PAGE, (uint64_t)i * QY_PAGE) == 0 &&
			   memcmp(sb[i].magic, magic, sizeof(magic)) == 0 && sb[i].crc == crc_of(&sb[i]) && can_be(&sb[i]);
		if (valid[i] && (newest < 0 || sb[i].sequence > sb[newest].sequence))
			newest = i;
	}
	return newest >= 0 ? newest : qy_fail(EUCLEAN, "mapped heap: no superblock leads to a version of it");
}

bool qy_durable_same(const struct qy_mapped_sb *is, const struct qy_mapped_sb *sb)
{
	return memcmp(is->uuid, sb->uuid, sizeof(sb->uuid)) == 0 && is->max_bytes == sb->max_bytes && is->head_bytes == sb->head_bytes &&
	       is->sessions == sb->sessions && is->lanes == sb->lanes && is->roots == sb->roots && is->user_bytes == sb->user_bytes &&
	       is->mode == sb->mode && is->flags == sb->flags && is->incompat == sb->incompat && is->ro_compat == sb->ro_compat &&
	       is->compat == sb->compat;
}

bool qy_durable_is_of(const struct qy_durable_sb *d, const struct qy_mapped_sb *sb)
{
	return qy_durable_same(&d->sb, sb);
}

bool qy_durable_is_own(const struct qy_side *side, const struct qy_durable_sb *newest)
{
	return newest->sequence <= side->sequence || (newest->sequence == side->tried && newest->crc == side->tried_crc);
}

void qy_durable_sb_seal(struct qy_durable_sb *sb)
{
	memcpy(sb->magic, magic, sizeof(magic));
	sb->sb.sequence = sb->sequence;
	qy_mapped_sb_seal(&sb->sb);
	sb->crc = crc_of(sb);
}

int qy_durable_sb_write(int fd, const struct qy_durable_sb *sb, uint32_t place)
{
	if (qy_os->write_at(fd, sb, QY_PAGE, place * QY_PAGE) != 0)
		return -1;
	QY_DURABLE_POINT();
	return 0;
}

/* ---- nodes and pages ---- */

int qy_ref_read(int fd, struct qy_ref ref, void *page)
{
	if (ref.slot == 0) {
		memset(page, 0, QY_PAGE);
		return 0;
	}
	if (ref.slot < QY_SLOT_FIRST || qy_os->read_at(fd, page, QY_PAGE, ref.slot * QY_PAGE) != 0 || qy_page_crc(page) != ref.crc)
		return qy_fail(EUCLEAN, "mapped heap: slot %u of the file does not have its checksum", ref.slot);
	return 0;
}

/* (What is new is not touched: what a file says there is may be far more than there is.) */
static void *bigger(void *old, uint64_t was, uint64_t is, size_t size)
{
	char *p = old == NULL ? quarry_calloc(is, size) : quarry_realloc(old, is * size);

	if (old == NULL)
		return p;
	if (p != NULL)
		memset(p + was * size, 0, (is - was) * size);
	return p;
}

/* (So that it is not made larger all the time, nor a small heap's larger than all of that.) */
static uint64_t tree_pages(uint64_t pages)
{
	return qy_align_up(pages, pages < TREE_SMALL ? TREE_STEP : QY_FAN * (uint64_t)QY_FAN);
}

uint64_t qy_tree_leaves(const struct qy_tree *t)
{
	return qy_align_up(t->pages / QY_FAN, QY_FAN);
}

bool qy_tree_reserve(struct qy_tree *t, uint64_t pages)
{
	struct qy_tree is = { .pages = tree_pages(pages) };
	uint64_t leaves = qy_tree_leaves(&is), were = qy_tree_leaves(t);
	struct qy_ref *p;

	if (pages <= t->pages)
		return true;
	if ((p = bigger(t->page, t->pages, is.pages, sizeof(*p))) == NULL)
		return false;
	t->page = p;
	if (leaves != were) {
		if ((p = bigger(t->node[0], were, leaves, sizeof(*p))) == NULL)
			return false;
		t->node[0] = p;
		if ((p = bigger(t->node[1], were / QY_FAN, leaves / QY_FAN, sizeof(*p))) == NULL)
			return false;
		t->node[1] = p;
	}
	t->pages = is.pages;
	return true;
}

void qy_tree_free(struct qy_tree *t)
{
	quarry_free(t->page);
	quarry_free(t->node[0]);
	quarry_free(t->node[1]);
	memset(t, 0, sizeof(*t));
}

/* Slots that the file has, or 0. */
static uint64_t slots_of(int fd)
{
	struct qy_file_info info;

	return qy_os->file_info(fd, &info) == 0 ? qy_min(info.size >> QY_PAGE_SHIFT, UINT32_MAX) : 0;
}

/* References of a level, of all that there are, from those of the level above. left: nodes that there may be yet, for each is a slot's. */
static int read_level(int fd, const struct qy_ref *above, uint64_t nodes, struct qy_ref *to, uint64_t most, uint64_t *left)
{
	struct qy_node node;

	for (uint64_t i = 0; i < nodes && i * QY_FAN < most; i++) {
		if (above[i].slot == 0)
			continue;
		if ((*left)-- == 0) {
			*left = 0;
			return qy_fail(EUCLEAN, "mapped heap: more nodes of it than its file has pages");
		}
		if (qy_ref_read(fd, above[i], &node) != 0)
			return -1;
		memcpy(&to[i * QY_FAN], &node, qy_min(most - i * QY_FAN, QY_FAN) * sizeof(*to));
	}
	return 0;
}

/* The first page from one on that the file has, or `pages`. A leaf that is none is passed over. */
static uint64_t next_page(const struct qy_tree *t, uint64_t i, uint64_t pages)
{
	while (i < pages && t->page[i].slot == 0)
		i += i % QY_FAN == 0 && t->node[0][i / QY_FAN].slot == 0 ? QY_FAN : 1;
	return qy_min(i, pages);
}

static bool all_in(const struct qy_tree *t, uint64_t slots)
{
	for (uint64_t i = next_page(t, 0, t->pages); i < t->pages; i = next_page(t, i + 1, t->pages)) {
		if (t->page[i].slot < QY_SLOT_FIRST || t->page[i].slot >= slots || i < QY_LIVE_PAGE)
			return false;
	}
	return true;
}

int qy_tree_read(int fd, const struct qy_version *v, struct qy_tree *t)
{
	uint64_t slots = slots_of(fd), left = slots, leaves;

	qy_tree_free(t);
	if (v->end > QY_MAPPED_MAX + ((uint64_t)1 << 30) || !qy_tree_reserve(t, v->end >> QY_PAGE_SHIFT))
		return qy_fail(v->end > QY_MAPPED_MAX + ((uint64_t)1 << 30) ? EUCLEAN : ENOMEM, "mapped heap: no memory for its tables");
	memcpy(t->root, v->root, sizeof(t->root));
	leaves = qy_tree_leaves(t);
	if (read_level(fd, t->root, QY_ROOTS, t->node[1], leaves / QY_FAN, &left) != 0 ||
	    read_level(fd, t->node[1], leaves / QY_FAN, t->node[0], leaves, &left) != 0 ||
	    read_level(fd, t->node[0], t->pages / QY_FAN, t->page, t->pages, &left) != 0 ||
	    (!all_in(t, slots) && qy_fail(EUCLEAN, "mapped heap: cut short: it refers to what is behind its file's end"))) {
		int error = errno;

		qy_tree_free(t);
		errno = error;
		return -1;
	}
	return 0;
}

/* Slots in the high half, pages in the low one: by slots, with room for as many behind them, 8 bits at a time (four times: it ends where it began). */
static void sort_slots(uint64_t *of, uint64_t count)
{
	uint64_t *from = of, *to = of + count;

	for (unsigned shift = 32; shift < 64; shift += 8) {
		uint64_t at[256] = { 0 }, sum = 0, *was = from;

		for (uint64_t i = 0; i < count; i++)
			at[from[i] >> shift & 255]++;
		for (unsigned k = 0; k < 256; k++) {
			uint64_t n = at[k];

			at[k] = sum;
			sum += n;
		}
		for (uint64_t i = 0; i < count; i++)
			to[at[from[i] >> shift & 255]++] = from[i];
		from = to;
		to = was;
	}
}

static uint32_t slot_of(uint64_t both)
{
	return (uint32_t)(both >> 32);
}

/* Pages whose slots are in a row. */
static int restore_row(int fd, const struct qy_tree *t, const uint64_t *of, uint64_t n, char *buffer, char *to)
{
	if (qy_os->read_at(fd, buffer, n * QY_PAGE, slot_of(of[0]) * QY_PAGE) != 0)
		return qy_fail(errno == EIO ? EUCLEAN : errno, "mapped heap: its file cannot be read, or is cut short");
	for (uint64_t i = 0; i < n; i++) {
		uint32_t page = (uint32_t)of[i];

		if (qy_page_crc(buffer + i * QY_PAGE) != t->page[page].crc)
			return qy_fail(EUCLEAN, "mapped heap: page %u of it does not have its checksum", page);
		memcpy(to + page * QY_PAGE, buffer + i * QY_PAGE, QY_PAGE);
	}
	return 0;
}

/* The file is read from its beginning to its end, and each page goes where it belongs: pages that were written at different times are
 * anywhere. What that takes is by pages, of which the file had to have a reference each, and not by slots: those may be holes. */
int qy_tree_restore(int fd, const struct qy_tree *t, uint64_t pages, char *to)
{
	uint64_t count = 0, *of, n;
	char *buffer = quarry_malloc(QY_BATCH * QY_PAGE);
	int rc = 0;

	for (uint64_t i = next_page(t, 0, pages); i < pages; i = next_page(t, i + 1, pages))
		count++;
	of = quarry_malloc(2 * (count + 1) * sizeof(*of));
	if (buffer == NULL || of == NULL)
		rc = qy_fail(ENOMEM, "mapped heap: no memory to read it by");
	count = 0;
	for (uint64_t i = next_page(t, 0, pages); rc == 0 && i < pages; i = next_page(t, i + 1, pages))
		of[count++] = (uint64_t)t->page[i].slot << 32 | i;
	if (rc == 0)
		sort_slots(of, count);
	for (uint64_t i = 1; i < count && rc == 0; i++) {
		if (slot_of(of[i]) == slot_of(of[i - 1]))
			rc = qy_fail(EUCLEAN, "mapped heap: two of its pages are one in the file");
	}
	for (uint64_t i = 0; i < count && rc == 0; i += n) {
		for (n = 1; n < QY_BATCH && i + n < count && slot_of(of[i + n]) == slot_of(of[i]) + n;)
			n++;
		rc = restore_row(fd, t, &of[i], n, buffer, to);
	}
	quarry_free(of);
	quarry_free(buffer);
	return rc;
}

/* ---- slots ---- */

static bool slots_reserve(struct qy_slots *s, uint64_t count)
{
	uint64_t is = qy_align_up(qy_max(count, s->count + s->count / 4), 4096), *bits;

	if (count <= s->count)
		return true;
	bits = bigger(s->bits, s->count / 64, is / 64, sizeof(*bits));
	if (bits == NULL)
		return false;
	s->bits = bits;
	s->count = is;
	return true;
}

static int mark(struct qy_slots *s, uint32_t slot, bool taken)
{
	if (!slots_reserve(s, (uint64_t)slot + 1))
		return qy_fail(ENOMEM, "mapped heap: no memory for its tables");
	if (taken) {
		qy_bit_set(s->bits, slot);
	} else {
		s->bits[slot / 64] &= ~((uint64_t)1 << slot % 64);
		s->next = qy_min(s->next, slot);
	}
	return 0;
}

/* What is at the same place of both and in one slot is the same. */
static int mark_node(struct qy_slots *s, int fd, struct qy_ref a, struct qy_ref b, int level, bool taken)
{
	struct qy_node *nodes;
	int rc;

	if (a.slot == 0 || a.slot == b.slot)
		return 0;
	if (a.slot >= s->most)
		return qy_fail(EUCLEAN, "mapped heap: cut short: it refers to what is behind its file's end");
	if (s->left-- == 0) {
		s->left = 0;
		return qy_fail(EUCLEAN, "mapped heap: a version of more pages than its file has");
	}
	rc = mark(s, a.slot, taken);
	if (rc != 0 || level < 0)
		return rc;
	nodes = quarry_malloc(2 * sizeof(*nodes));
	if (nodes == NULL)
		return qy_fail(ENOMEM, "mapped heap: no memory for its tables");
	rc = qy_ref_read(fd, a, &nodes[0]);
	if (rc == 0)
		rc = qy_ref_read(fd, b, &nodes[1]);
	for (unsigned i = 0; rc == 0 && i < QY_FAN; i++)
		rc = mark_node(s, fd, nodes[0].of[i], nodes[1].of[i], level - 1, taken);
	quarry_free(nodes);
	return rc;
}

int qy_slots_mark(struct qy_slots *s, int fd, const struct qy_version *a, const struct qy_version *b, bool taken)
{
	static const struct qy_ref none;
	int rc = 0;

	s->most = s->left = slots_of(fd);
	/* (At once, and untouched: most of what a file says it has may be holes.) */
	if (!slots_reserve(s, s->most))
		return qy_fail(ENOMEM, "mapped heap: no memory for its tables");
	for (unsigned i = 0; rc == 0 && i < QY_ROOTS; i++)
		rc = mark_node(s, fd, a->root[i], b != NULL ? b->root[i] : none, QY_LEVELS - 1, taken);
	return rc;
}

uint32_t qy_slot_take(struct qy_slots *s)
{
	uint64_t at = qy_max(s->next, QY_SLOT_FIRST);

	while (at < s->count && qy_bit(s->bits, at)) {
		uint64_t free = ~s->bits[at / 64] >> at % 64;

		at = free == 0 ? (at / 64 + 1) * 64 : at + (uint64_t)__builtin_ctzll(free);
	}
	if (at > UINT32_MAX || !slots_reserve(s, at + 1)) {
		errno = at > UINT32_MAX ? EFBIG : ENOMEM;
		return 0;
	}
	qy_bit_set(s->bits, at);
	s->next = at + 1;
	return (uint32_t)at;
}

void qy_slot_back(struct qy_slots *s, uint32_t slot)
{
	(void)mark(s, slot, false);
}

void qy_slots_free(struct qy_slots *s)
{
	quarry_free(s->bits);
	memset(s, 0, sizeof(*s));
}

/* ---- writing ---- */

int qy_writer_flush(struct qy_writer *w)
{
	if (w->count != 0 && w->error == 0) {
		if (qy_os->write_at(w->fd, w->buffer, w->count * QY_PAGE, w->first * QY_PAGE) != 0)
			w->error = errno != 0 ? errno : EIO;
		w->bytes += w->count * QY_PAGE;
		QY_DURABLE_POINT();
	}
	w->count = 0;
	errno = w->error;
	return w->error == 0 ? 0 : -1;
}

void qy_writer_put(struct qy_writer *w, uint32_t slot, const void *page)
{
	if (w->count == QY_BATCH || (w->count != 0 && slot != w->first + w->count))
		(void)qy_writer_flush(w);
	if (w->count == 0)
		w->first = slot;
	memcpy(w->buffer + w->count++ * QY_PAGE, page, QY_PAGE);
}
