/* SPDX-License-Identifier: MIT */
/* Durable heaps (lib/mapped/durable.h) from files that somebody changed: superblocks, lists of versions, nodes, references, pages of the image. An
 * input is how it is opened and used, and a list of changes to a file of a few versions. Checksums are made anew all the way up, from pages to
 * superblocks, since who is hostile can do that as well. What is opened is used, has checkpoints made, is closed, and opened again.
 *
 * Built and called as fuzz_mapped.c is. The file is in /dev/shm, or where TMPDIR says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fuzz/mapped_fuzz.h"
#include "lib/mapped/durable.h"

#define PAGE 4096u
#define SLOTS 1024u

enum { VERSIONS, ONE, SEEDS };
enum { OPENED, READ, VERSION, LISTED };

/* A reference, and where it stands: in a node, or of a superblock's version. */
struct edge {
	uint32_t to, from, index; /* slots; from 0 and 1: a superblock, index: version * QY_ROOTS + root */
	int level;                /* of what it leads to: -1 a page */
};

struct seed {
	const char *path;
	int fd;
	char *file, *whole;
	uint64_t bytes, at[6];
	struct edge *edge;
	unsigned edges;
	uint32_t slot_of[SLOTS]; /* by page of the image, of the newest version */
	uint64_t known[64];
	unsigned known_count;
};
static struct seed seeds[SEEDS];
static uint8_t bad[SLOTS]; /* slots whose checksum is to be made anew */

/* ---- the files that are changed ---- */

static struct qy_durable_sb *sb_at(const struct seed *s, unsigned i)
{
	return (struct qy_durable_sb *)(void *)(s->file + (uint64_t)i * PAGE);
}

static struct qy_node *node_at(const struct seed *s, uint32_t slot)
{
	return (struct qy_node *)(void *)(s->file + (uint64_t)slot * PAGE);
}

static void find_edges(struct seed *s, struct qy_ref ref, uint32_t from, uint32_t index, int level)
{
	if (ref.slot == 0)
		return;
	s->edge = realloc(s->edge, (s->edges + 1) * sizeof(*s->edge));
	s->edge[s->edges++] = (struct edge){ ref.slot, from, index, level };
	for (unsigned e = 0; e + 1 < s->edges; e++) { /* (what is shared is there already) */
		if (s->edge[e].to == ref.slot)
			return;
	}
	for (unsigned i = 0; level >= 0 && i < QY_FAN; i++)
		find_edges(s, node_at(s, ref.slot)->of[i], ref.slot, i, level - 1);
}

static void find_pages(struct seed *s, struct qy_ref ref, uint64_t first, int level)
{
	uint64_t each = level < 0 ? 1 : (uint64_t)1 << 9 * level;

	if (ref.slot == 0 || first >= SLOTS)
		return;
	if (level < 0)
		s->slot_of[first] = ref.slot;
	for (unsigned i = 0; level >= 0 && i < QY_FAN; i++)
		find_pages(s, node_at(s, ref.slot)->of[i], first + i * each, level - 1);
}

static void find_known(struct seed *s)
{
	const struct qy_durable_sb *sb = sb_at(s, 0);

	s->known_count = 0;
	for (unsigned e = 0; e < s->edges && s->known_count < 40; e += 1 + s->edges / 40)
		s->known[s->known_count++] = s->edge[e].to;
	for (unsigned k = 0; k < sb->count && s->known_count < 46; k++)
		s->known[s->known_count++] = sb->version[k].end;
	for (unsigned i = 0; i < 6; i++)
		s->known[s->known_count++] = s->at[i];
	while (s->known_count < 64)
		s->known[s->known_count] = s->bytes / PAGE - 4 + s->known_count % 8, s->known_count++;
}

static void make_versions(quarry_mapped *h, unsigned count)
{
	quarry_off *slots = quarry_mapped_user(h, NULL);

	for (unsigned v = 0; v < count; v++) {
		for (unsigned i = 0; i < 6; i++)
			must(quarry_mapped_alloc_into(h, 40 + 1500 * i, &slots[6 * v + i]) != NULL, "alloc_into");
		must(quarry_mapped_alloc_into(h, 70000, &slots[50 + v]) != NULL, "alloc_into");
		memset(quarry_mapped_at(h, slots[50 + v]), 7, 3 * PAGE);
		must(quarry_mapped_root_put(h, "list", slots[6 * v], 1) == 0, "root");
		if (v == 1)
			must(quarry_mapped_free_from(h, &slots[50]) == 0, "free_from");
		must(quarry_mapped_checkpoint(h, NULL, 0) == 0, "checkpoint");
	}
}

static void prepare(unsigned kind)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 32 << 20, .sessions = 2, .lanes = 2,
				    .roots = 4, .user_bytes = 512, .versions = kind == VERSIONS ? 3 : 0 };
	struct seed *s = &seeds[kind];
	quarry_mapped *h;

	s->fd = fuzz_file(kind);
	must(s->fd >= 0 && close(s->fd) == 0 && unlink(fuzz_path[kind]) == 0, "file");
	s->path = fuzz_path[kind];
	h = quarry_mapped_create(s->path, &attr);
	must(h != NULL, "create");
	make_versions(h, kind == VERSIONS ? 5 : 2);
	quarry_mapped_close(h);
	s->fd = open(s->path, O_RDWR | O_CLOEXEC);
	s->bytes = (uint64_t)lseek(s->fd, 0, SEEK_END);
	must(s->fd >= 0 && s->bytes / PAGE < SLOTS, "the file is small");
	s->file = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	s->whole = malloc(s->bytes);
	must(s->file != MAP_FAILED && s->whole != NULL, "map");
	memcpy(s->whole, s->file, s->bytes);
	must(qy_mapped_layout(&sb_at(s, 0)->sb, s->at), "layout");
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < sb_at(s, i)->count; k++) {
			for (unsigned r = 0; r < QY_ROOTS; r++)
				find_edges(s, sb_at(s, i)->version[k].root[r], i, k * QY_ROOTS + r, QY_LEVELS - 1);
		}
	}
	find_pages(s, sb_at(s, sb_at(s, 1)->sequence > sb_at(s, 0)->sequence)->version[0].root[0], 0, QY_LEVELS - 1);
	find_known(s);
}

__attribute__((no_sanitize("address", "undefined"))) static void put_back(uint64_t *to, const uint64_t *from, uint64_t words)
{
	for (uint64_t i = 0; i < words; i++) {
		if (to[i] != from[i])
			to[i] = from[i];
	}
}

static void restore(struct seed *s)
{
	must(ftruncate(s->fd, (off_t)s->bytes) == 0, "truncate");
	put_back((uint64_t *)(void *)s->file, (const uint64_t *)(const void *)s->whole, s->bytes / 8);
	memset(bad, 0, sizeof(bad));
}

/* ---- changes ---- */

/* Bytes of the image that the library reads; 0 where there is none. */
static uint64_t in_image(const struct seed *s, const struct change *c)
{
	uint64_t seg = s->at[5], is;

	switch (c->place / 16 % 8) {
	case 0: is = QY_MAPPED_LIVE_AT + c->which % 512; break;
	case 1: is = s->at[0] + c->which % 192; break;
	case 2: is = s->at[1] + c->which % 4096; break;
	case 3: is = s->at[2] + c->which % 512; break;
	case 4: is = s->at[4] + c->which % 16; break;
	case 5: is = seg + 9 * 64 + c->which % 16 * 64 + c->which / 16 % 5 * 8; break;
	case 6: is = seg + QY_MAPPED_BITS_AT + 9 * 1024 + c->which % 16384; break;
	default: is = seg + QY_MAPPED_SEGHEAD_AT + c->which % 80; break;
	}
	is &= ~(uint64_t)7;
	return is / PAGE < SLOTS && s->slot_of[is / PAGE] != 0 ? (uint64_t)s->slot_of[is / PAGE] * PAGE + is % PAGE : 0;
}

static uint64_t in_version(const struct seed *s, const struct change *c)
{
	unsigned i = c->which % 2, k = c->which / 2 % 5;

	(void)s;
	return i * PAGE + offsetof(struct qy_durable_sb, version) + k * sizeof(struct qy_version) + c->which / 10 % 7 * 8;
}

static uint64_t where(const struct seed *s, const struct change *c)
{
	const struct edge *e = &s->edge[(c->which + c->place * 65536u) % s->edges];

	switch (c->place % 16) {
	case 0: return c->which % 2 * PAGE + offsetof(struct qy_durable_sb, magic) + c->which / 2 % 5 * 8;
	case 1: case 2: return in_version(s, c);
	case 3: return (uint64_t)(c->which % 2) * PAGE + c->which / 2 % sizeof(struct qy_mapped_sb);
	case 4: return QY_FINDERS_AT + c->which % 128;
	case 5: case 6: return e->from < 2 ? in_version(s, c) : (uint64_t)e->from * PAGE + (uint64_t)e->index * 8;
	case 7: return (uint64_t)e->to * PAGE + c->value % 512 * 8;
	case 8: return e->level >= 0 ? (uint64_t)e->to * PAGE + c->value % 512 * 8 : in_image(s, c);
	case 9: return c->which * 8 % s->bytes;
	default: return in_image(s, c);
	}
}

/* A number of both superblocks, so that they fit together, or of one of them. */
static void change_numbers(const struct seed *s, const struct change *c)
{
	for (unsigned i = 0; i < 2; i++) {
		struct qy_durable_sb *d = sb_at(s, i);
		uint64_t at[6];

		if ((c->width >> 6 & 1 << i) != 0)
			continue;
		switch (c->which % 16) {
		case 0: d->sb.sessions = 1 + (uint32_t)c->value % 8; break;
		case 1: d->sb.lanes = 1 + (uint32_t)c->value % 8; break;
		case 2: d->sb.roots = 1 + (uint32_t)c->value % 32; break;
		case 3: d->sb.user_bytes = (uint32_t)c->value % 64 * 16; break;
		case 4: d->sb.max_bytes = (1 + c->value % 8) << QY_MAPPED_SEG_SHIFT; break;
		case 5: d->sb.flags = (uint32_t)c->value % 16; break;
		case 6: d->sb.mode = (uint32_t)c->value % 4; break;
		case 7: d->keep = (uint32_t)(c->value % 4 == 0 ? c->value >> 32 : c->value % 40); break;
		case 8: d->count = (uint32_t)c->value % 36; break;
		case 9: d->sequence = c->value; break;
		case 10: d->version[c->value / 8 % 4].end = s->at[5] + (c->value >> 32) % 65536 * PAGE; break;
		case 11: d->sb.incompat = (uint32_t)c->value % 2; break;
		case 12: d->version[c->value / 8 % 4].number = c->value >> 8; break;
		case 13: d->version[c->value % 5] = d->version[c->value / 8 % 5]; break;
		default: d->version[c->value / 8 % 4].root[c->value / 32 % 4].slot = s->edge[(c->value >> 32) % s->edges].to; break;
		}
		(void)qy_mapped_layout(&d->sb, at);
	}
}

static void change(struct seed *s, const struct change *c)
{
	uint64_t to = where(s, c), was, value;

	if (c->place % 16 == 10) {
		change_numbers(s, c);
		return;
	}
	if (to == 0 || to + 8 > s->bytes)
		return;
	memcpy(&was, s->file + to, 8);
	value = bent(c, was, s->known, s->known_count);
	memcpy(s->file + to, &value, (size_t)1 << (c->place >= 128 ? 3 : c->width % 4));
	bad[to / PAGE] = 1;
	bad[(to + 7) / PAGE] = 1;
}

static void seal_sb(const struct seed *s, unsigned i)
{
	struct qy_durable_sb *d = sb_at(s, i);

	if (d->sb.version == QY_MAPPED_VERSION && d->sb.abi == (sizeof(pthread_mutex_t) << 8 | sizeof(void *)))
		qy_mapped_sb_seal(&d->sb);
	d->crc = 0;
	d->crc = qy_page_crc(d);
}

/* Of all that leads to what was changed; pages first. follow: a reference that was bent to another slot has that one's. */
static void seal(const struct seed *s, int follow)
{
	struct qy_mapped_live *live = s->slot_of[QY_LIVE_PAGE] != 0 ? (void *)(s->file + (uint64_t)s->slot_of[QY_LIVE_PAGE] * PAGE) : NULL;

	if (live != NULL && bad[s->slot_of[QY_LIVE_PAGE]] != 0) {
		uint64_t sum = live->redo_count;

		for (uint64_t i = 0; i < live->redo_count && i < QY_MAPPED_REDO; i++)
			sum = ((sum ^ live->redo[i].at) * 0x9e3779b97f4a7c15u ^ live->redo[i].value) * 0xbf58476d1ce4e5b9u + i;
		live->redo_check = sum;
	}
	for (int level = -1; level < QY_LEVELS; level++) {
		for (unsigned e = 0; e < s->edges; e++) {
			const struct edge *is = &s->edge[e];
			struct qy_ref *ref = is->from < 2 ? &sb_at(s, is->from)->version[is->index / QY_ROOTS].root[is->index % QY_ROOTS]
							   : &node_at(s, is->from)->of[is->index];

			if (is->level != level || (ref->slot == is->to ? bad[is->to] == 0 : !follow || ref->slot < 2 || ref->slot >= s->bytes / PAGE))
				continue;
			ref->crc = qy_page_crc(node_at(s, ref->slot));
			bad[is->from] = 1;
		}
	}
	for (unsigned i = 0; i < 2; i++)
		seal_sb(s, i);
}

/* ---- inputs ---- */

static void version_of(const struct seed *s, unsigned how)
{
	quarry_mapped_version v[4];
	struct fuzz_seen seen;
	quarry_mapped *h;
	int n = quarry_mapped_versions(s->path, v, 4);

	if (n < 0)
		must(errno != 0 && quarry_error_text()[0] != 0, "what is refused is told why");
	fuzz_kind[LISTED].opened += n >= 0;
	fuzz_kind[LISTED].refused += n < 0;
	h = quarry_mapped_open_version(s->path, n > 0 ? v[how % (unsigned)(n < 4 ? n : 4)].number : how);
	if (!fuzz_count(VERSION, h))
		return;
	fuzz_look(h, &seen, how);
	quarry_mapped_close(h);
}

static void read_it(const struct seed *s, unsigned how)
{
	quarry_mapped *h = quarry_mapped_open_read(s->path);
	struct fuzz_seen seen;

	if (!fuzz_count(READ, h))
		return;
	fuzz_look(h, &seen, how);
	quarry_mapped_close(h);
}

static void open_it(const struct seed *s, unsigned how, unsigned checkpoints)
{
	quarry_mapped *h = quarry_mapped_open(s->path), *again;

	if (!fuzz_count(OPENED, h))
		return;
	again = how & FUZZ_TWICE ? quarry_mapped_open(s->path) : NULL;
	if (again != NULL) {
		must(quarry_mapped_enter(again) != 0 || again->base != h->base, "it is mapped by itself");
		quarry_mapped_leave(again);
		quarry_mapped_close(again);
	}
	fuzz_use(h, how);
	for (unsigned i = 0; i < checkpoints; i++) {
		quarry_mapped_checkpoint_info info;

		if (quarry_mapped_checkpoint(h, &info, sizeof(info)) != 0)
			must(errno != 0 && quarry_error_text()[0] != 0, "what is refused is told why");
		(void)quarry_mapped_alloc(h, 5000);
	}
	(void)quarry_mapped_recover(h);
	quarry_mapped_close(h);
	if (checkpoints > 1)
		read_it(s, 0);
}

/* data: which file, and what is done with it; how it is used, in two bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seed *s;
	unsigned kind, how;

	if (size < FUZZ_HEAD)
		return 0;
	kind = data[0] % 2;
	for (unsigned i = 0; i < SEEDS; i++) {
		if (seeds[i].file == NULL)
			prepare(i);
	}
	fuzz_kind[OPENED].name = "opened";
	fuzz_kind[READ].name = "opened to be read";
	fuzz_kind[VERSION].name = "a version opened";
	fuzz_kind[LISTED].name = "versions listed (of the files before)";
	s = &seeds[kind];
	restore(s);
	for (const uint8_t *at = data + FUZZ_HEAD; at + 12 <= data + size; at += 12) {
		struct change c = change_at(at);

		change(s, &c);
	}
	if (data[0] / 4 % 16 != 1)
		seal(s, data[0] / 2 % 2);
	if (data[0] / 4 % 16 == 2) /* cut short */
		must(ftruncate(s->fd, (off_t)(s->bytes / 256 * data[2])) == 0, "truncate");
	how = (data[2] % 16 == 0 ? FUZZ_MANY : 0) | (data[2] / 16 % 8 == 0 ? FUZZ_COLLECT : 0) | (data[3] % 16 == 0 ? FUZZ_DUMP : 0) |
	      (data[3] / 16 % 8 == 0 ? FUZZ_TWICE : 0) | (data[3] % 128 == 6 ? FUZZ_WHERE : 0);
	switch (data[1] % 8) {
	case 0: version_of(s, how ^ data[1] / 8); break;
	case 1: read_it(s, how); break;
	default: open_it(s, how, data[1] % 8 < 4 ? 1 + data[1] / 8 % 2 * 2 : 0); break;
	}
	return 0;
}

#ifndef QUARRY_FUZZ
int main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_durable", 3000);
}
#endif
