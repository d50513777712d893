/* SPDX-License-Identifier: MIT */
/* Opening heaps (lib/mapped) from files that somebody changed, under libFuzzer or by mutations from a seed: whatever stands in a file, it is
 * refused with an error that has a text, or opened, checked, walked, allocated from, freed to and collected, without a crash or an
 * endless loop. An input is how it is opened and used, and a list of changes to one of a few small heaps, each of 12 bytes: what kind of
 * place, which one, how wide, and the value; checksums are made anew, since who is hostile can do that as well.
 *
 *	clang -fsanitize=fuzzer,address,undefined -DQUARRY_FUZZ -DQUARRY_BUILDING -I. -Iinclude tests/fuzz/fuzz_mapped.c \
 *		BUILD/.libs/libquarry-internal.a
 *
 * Without QUARRY_FUZZ it is a program of its own (mapped_fuzz.h). An input opens its heap by one mapping of the file, which the library makes and
 * takes away; the program has another, by which only what differs from the seed is written back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>

#include "tests/fuzz/mapped_fuzz.h"
#include "numa/os.h"

#define PAGE 4096u
#define UNITS 48u /* of a segment: changes go to the records of these */

enum { BROAD, SMALL, SEGMENTS, DEAD, SEEDS };

struct seed {
	int fd;
	char *file, *whole; /* as it is, and as it was: pages one after another as in `page` */
	uint32_t *page;     /* that are not all zero, or are notes of a segment's first units */
	unsigned pages;
	uint64_t bytes, at[6];
	uint64_t free_from; /* nothing behind is in use */
	uint64_t hole[2];   /* and nothing here */
	uint64_t known[64];
	unsigned known_count, segments;
	char *room, *base;  /* of the library's mapping, which is kept */
	size_t room_len, base_len;
	int in_use;
};
static struct seed seeds[SEEDS];

/* ---- the heaps that are changed ---- */

static quarry_off *lists(quarry_mapped *h, unsigned count, const unsigned *sizes, unsigned kinds)
{
	quarry_off *slots = quarry_mapped_user(h, NULL), list = 0;

	for (unsigned i = 0; i < count; i++) {
		quarry_off *p = quarry_mapped_alloc(h, kinds != 0 ? sizes[i % kinds] : 16 + i * 7 % 600);

		must(p != NULL, "alloc");
		*p = list;
		list = quarry_mapped_off(h, p);
		if (i % 3 == 0)
			must(quarry_mapped_alloc_into(h, 32, &slots[i / 3]) != NULL, "alloc_into");
	}
	must(quarry_mapped_root_put(h, "list", list, 1) == 0, "root");
	return slots;
}

static void fill_broad(quarry_mapped *h)
{
	quarry_off *slots = lists(h, 400, NULL, 0);

	must(quarry_mapped_alloc_into(h, 20000, &slots[200]) != NULL && quarry_mapped_alloc_into(h, 70000, &slots[201]) != NULL &&
	     quarry_mapped_alloc_into(h, 200000, &slots[202]) != NULL, "alloc_into");
	for (unsigned i = 0; i < 130; i += 2)
		must(quarry_mapped_free_from(h, &slots[i]) == 0, "free_from");
	must(quarry_mapped_root_put(h, "block", slots[202], 0) == 0, "root");
}

static void fill_small(quarry_mapped *h)
{
	static const unsigned sizes[] = { 16, 100, 1000, 9000 };
	quarry_off *slots = lists(h, 24, sizes, 4);

	must(quarry_mapped_alloc_into(h, 100000, &slots[20]) != NULL, "alloc_into");
	must(quarry_mapped_root_put(h, "block", slots[20], 0) == 0, "root");
	must(quarry_mapped_free_from(h, &slots[2]) == 0, "free_from");
}

/* Blocks of many segments, some that were such, and two segments of units. */
static void fill_segments(quarry_mapped *h)
{
	static const unsigned sizes[] = { 32, 3000 };
	void *gone;

	must(quarry_mapped_alloc(h, 480 * (size_t)QY_MAPPED_UNIT) != NULL && quarry_mapped_alloc(h, 40 << 20) != NULL, "alloc");
	gone = quarry_mapped_alloc(h, 100 << 20);
	must(gone != NULL && quarry_mapped_alloc(h, 33 << 20) != NULL && quarry_mapped_free(h, gone) == 0, "alloc");
	for (unsigned i = 0; i < 16; i++)
		must(quarry_mapped_alloc(h, 70000) != NULL, "alloc");
	(void)lists(h, 20, sizes, 2);
	must(quarry_mapped_free(h, quarry_mapped_alloc(h, 30 * (size_t)QY_MAPPED_UNIT)) == 0, "room"); /* growing is by an eighth of all */
}

static void *frees(void *heap)
{
	quarry_off *slots = quarry_mapped_user(heap, NULL);

	for (unsigned i = 1; i < 8; i += 2)
		must(quarry_mapped_free_from(heap, &slots[i]) == 0, "free_from");
	must(quarry_mapped_alloc(heap, 500) != NULL, "alloc");
	return NULL;
}

/* Who died had a set, and others have freed what was its own. */
static void fill_dead(quarry_mapped *h)
{
	static quarry_mapped_set set;
	pthread_t thread;

	fill_small(h);
	must(pthread_create(&thread, NULL, frees, h) == 0 && pthread_join(thread, NULL) == 0, "thread");
	must(quarry_mapped_begin(h, &set) == 0 && quarry_mapped_reserve(&set, 100) != NULL && quarry_mapped_reserve(&set, 9000) != NULL &&
	     quarry_mapped_reserve(&set, 70000) != NULL, "set");
}

static const struct {
	const char *name;
	void (*fill)(quarry_mapped *h);
	uint64_t max;
	uint32_t sessions, lanes, roots, user, flags;
} kinds[SEEDS] = {
	{ "many classes", fill_broad, 64 << 20, 4, 4, 16, 4096, 0 },
	{ "small", fill_small, 32 << 20, 1, 2, 4, 512, QUARRY_MAPPED_SHRINK },
	{ "segments", fill_segments, 512 << 20, 2, 3, 8, 1024, 0 },
	{ "of the dead", fill_dead, 64 << 20, 3, 4, 8, 1024, QUARRY_MAPPED_SHRINK },
};

/* ---- the library's mapping ---- */

/* To map a file, to touch each page for the first time and to take it away is a third of all time: of seven inputs in eight it stays as it
 * was before, and the eighth has its own. (What is behind the file's end is no memory in any case.) */
static struct qy_os kept_os;
static const struct qy_os *real_os;
static struct seed *keeping;

static void *kept_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	struct seed *s = keeping;
	char *p;

	if (s == NULL || (addr == NULL ? prot != PROT_NONE || s->in_use || (s->room != NULL && s->room_len != len) :
					 s->in_use != 1 || (char *)addr < s->room || (char *)addr >= s->room + s->room_len))
		return real_os->mmap(addr, len, prot, flags, fd, off);
	if (addr == NULL && s->room != NULL) {
		s->in_use = 1;
		return s->room;
	}
	if (addr != NULL && addr == s->base && len == s->base_len) {
		s->in_use = 2;
		return addr;
	}
	p = real_os->mmap(addr, len, prot, flags, fd, off);
	if (p == MAP_FAILED || (addr == NULL && len < s->bytes))
		return p;
	s->in_use = addr == NULL ? 1 : 2;
	*(addr == NULL ? &s->room : &s->base) = p;
	*(addr == NULL ? &s->room_len : &s->base_len) = len;
	return p;
}

static int kept_munmap(void *addr, size_t len)
{
	for (unsigned i = 0; i < SEEDS; i++) {
		if ((char *)addr >= seeds[i].room && (char *)addr < seeds[i].room + seeds[i].room_len) {
			if (addr == seeds[i].base && seeds[i].in_use == 2)
				seeds[i].in_use = 0;
			return 0;
		}
	}
	return real_os->munmap(addr, len);
}

static void keep_mappings(void)
{
	real_os = qy_os;
	kept_os = *qy_os;
	kept_os.mmap = kept_mmap;
	kept_os.munmap = kept_munmap;
	qy_os = &kept_os;
}

/* ---- as it was ---- */

static const char nothing[PAGE];

static void find_known(struct seed *s, const char *file)
{
	uint64_t known[] = { s->at[0], s->at[1], s->at[2], s->at[3], s->at[4], s->at[5], s->bytes, s->free_from, 512, 9, 503, 512u << 8 | QY_SEG_BLOCK,
			     1024u << 8 | QY_SEG_FREE, QY_SEG_UNITS, QY_SEG_TAIL, 600u << 8 | QY_SEG_BLOCK, s->at[5] + (9 << 16), ~(uint64_t)0,
			     qy_unit_state(QY_UNIT_SLAB, 0, 1, 1), qy_unit_state(QY_UNIT_SLAB, 39, 1, 4), qy_unit_state(QY_UNIT_BLOCK, 0, 0, 2),
			     qy_unit_state(QY_UNIT_TAIL, 0, 0, 1), QUARRY_MAPPED_VOLATILE, QY_LANE_OF(1) };
	const uint64_t *user = (const uint64_t *)(const void *)(file + s->at[3]);

	s->known_count = sizeof(known) / sizeof(known[0]);
	memcpy(s->known, known, sizeof(known));
	for (unsigned i = 0; i < 21 && s->known_count < 48; i++) {
		if (user[i] != 0)
			s->known[s->known_count++] = user[i];
	}
	for (unsigned i = 0; s->known_count < 64; i++)
		s->known[s->known_count++] = 9 + i;
}

static void find_free(struct seed *s, const char *file)
{
	const uint64_t *segtab = (const uint64_t *)(const void *)(file + s->at[4]);

	s->free_from = s->at[5];
	for (uint64_t seg = 0; seg < s->segments; seg++) {
		uint64_t begin = s->at[5] + (seg << QY_MAPPED_SEG_SHIFT), units = segtab[seg] >> 8;
		const struct qy_mapped_seghead *head = (const void *)(file + begin + QY_MAPPED_SEGHEAD_AT);

		if ((segtab[seg] & 0xff) == QY_SEG_FREE) {
			s->hole[0] = begin;
			s->hole[1] = begin + units * QY_MAPPED_UNIT;
		}
		if ((segtab[seg] & 0xff) == QY_SEG_BLOCK)
			s->free_from = begin + units * QY_MAPPED_UNIT;
		for (uint64_t u = 0; (segtab[seg] & 0xff) == QY_SEG_UNITS && u < head->born; u++) {
			if ((head->free[u / 64] >> u % 64 & 1) == 0)
				s->free_from = begin + (u + 1) * QY_MAPPED_UNIT;
		}
	}
}

/* Notes that may be written though they are zero now: those of a segment's first units. */
static int is_note(const struct seed *s, const char *file, uint64_t at)
{
	const uint64_t *segtab = (const uint64_t *)(const void *)(file + s->at[4]);
	uint64_t in = (at - s->at[5]) & (QY_MAPPED_SEG - 1);

	if (at < s->at[5])
		return at < s->at[4] + PAGE;
	return (segtab[(at - s->at[5]) >> QY_MAPPED_SEG_SHIFT] & 0xff) == QY_SEG_UNITS &&
	       (in < UNITS * 64 || (in >= QY_MAPPED_BITS_AT && in < QY_MAPPED_BITS_AT + UNITS * 1024));
}

static void carrier(struct seed *s)
{
	s->fd = fuzz_file((unsigned)(s - seeds));
	must(s->fd >= 0 && ftruncate(s->fd, (off_t)s->bytes) == 0, "file");
	s->file = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	must(s->file != MAP_FAILED, "map");
	for (unsigned i = 0; i < s->pages; i++)
		memcpy(s->file + (uint64_t)s->page[i] * PAGE, s->whole + (size_t)i * PAGE, PAGE);
}

/* As if its process had died: the session stays. */
static void prepare(unsigned kind)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = kinds[kind].max,
				    .sessions = kinds[kind].sessions, .lanes = kinds[kind].lanes, .roots = kinds[kind].roots,
				    .user_bytes = kinds[kind].user, .flags = kinds[kind].flags };
	quarry_mapped *h = quarry_mapped_create(NULL, &attr);
	struct seed *s = &seeds[kind];
	struct qy_mapped_sb sb;
	char *file;

	must(h != NULL, "create");
	must(quarry_mapped_free(h, quarry_mapped_alloc(h, 4 << 20)) == 0, "room"); /* so that few inputs have it grow */
	kinds[kind].fill(h);
	must(qy_mapped_sb_read(quarry_mapped_fd(h), &sb) == 0 && qy_mapped_layout(&sb, s->at), "superblock");
	s->bytes = (uint64_t)lseek(quarry_mapped_fd(h), 0, SEEK_END);
	s->segments = (unsigned)qy_heap(h)->live->segments;
	file = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, quarry_mapped_fd(h), 0);
	must(file != MAP_FAILED, "map");
	sb.mode = QUARRY_MAPPED_DIRECT;
	qy_mapped_sb_seal(&sb);
	memcpy(file, &sb, sizeof(sb));
	memcpy(file + QY_MAPPED_SB, &sb, sizeof(sb));
	find_free(s, file);
	find_known(s, file);
	s->page = malloc(s->bytes / PAGE * sizeof(*s->page));
	for (uint64_t at = 0; at < s->bytes; at += PAGE) {
		if (memcmp(file + at, nothing, PAGE) != 0 || is_note(s, file, at))
			s->page[s->pages++] = (uint32_t)(at / PAGE);
	}
	s->whole = malloc((size_t)s->pages * PAGE);
	must(s->whole != NULL, "memory");
	for (unsigned i = 0; i < s->pages; i++)
		memcpy(s->whole + (size_t)i * PAGE, file + (uint64_t)s->page[i] * PAGE, PAGE);
	munmap(file, s->bytes);
	quarry_mapped_close(h);
	carrier(s);
	fuzz_kind[kind].name = kinds[kind].name;
}

static void restore(struct seed *s)
{
	if (fuzz_input % 64 == 0) { /* (nobody looks at what is in free units) */
		must(ftruncate(s->fd, (off_t)s->free_from) == 0, "truncate");
		if (s->hole[1] != 0)
			(void)fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)s->hole[0],
					(off_t)(s->hole[1] - s->hole[0]));
	}
	if ((uint64_t)lseek(s->fd, 0, SEEK_END) != s->bytes)
		must(ftruncate(s->fd, (off_t)s->bytes) == 0, "truncate");
	for (unsigned i = 0; i < s->pages; i++) {
		char *to = s->file + (uint64_t)s->page[i] * PAGE;
		const char *from = s->whole + (size_t)i * PAGE;

		if (memcmp(to, from, PAGE) != 0)
			memcpy(to, from, PAGE);
	}
}

/* ---- changes ---- */

/* Where a change goes: what the library reads, more often than its share of the file. */
static uint64_t where(const struct seed *s, const struct change *c)
{
	uint64_t unit = c->which % UNITS, seg = s->at[5] + ((uint64_t)(c->width >> 5 == 7 ? c->which / 64 % s->segments : 0) << QY_MAPPED_SEG_SHIFT);

	switch (c->place % 14) {
	case 0: return c->which % sizeof(struct qy_mapped_sb);
	case 1: return QY_MAPPED_LIVE_AT + 128 + c->which % 128;
	case 2: return QY_MAPPED_LIVE_AT + offsetof(struct qy_mapped_live, redo_count) + c->which % 200;
	case 3: return s->at[0] + c->which % (4 * sizeof(struct qy_mapped_session));
	case 4: return s->at[1] + c->which % (4 * sizeof(struct qy_mapped_lane));
	case 5: return s->at[2] + c->which % (8 * sizeof(struct qy_mapped_root));
	case 6: return s->at[3] + c->which % 1024;
	case 7: return s->at[4] + c->which % 128;
	case 8: return seg + unit * 64 + c->which / UNITS % 5 * 8;
	case 9: return seg + QY_MAPPED_BITS_AT + unit * 1024 + (uint64_t)c->which / UNITS % 128 * 8;
	case 10: return seg + QY_MAPPED_SEGHEAD_AT + c->which % 80;
	case 11: return seg + 9 * 64 + c->which % 16 * 64 + c->which / 16 % 3 * 8; /* the first records that mean something */
	default: return s->at[5] + QY_MAPPED_META_UNITS * QY_MAPPED_UNIT + c->which * 8;
	}
}

/* A number of the superblock's, all of which fit together then. */
static void change_numbers(const struct seed *s, const struct change *c)
{
	struct qy_mapped_sb *sb = (struct qy_mapped_sb *)(void *)s->file;
	uint64_t at[6];

	switch (c->which % 10) {
	case 0: sb->mode = (uint32_t)c->value % 4; break;
	case 1: sb->flags = (uint32_t)c->value % 16; break;
	case 2: sb->sessions = 1 + (uint32_t)c->value % 8; break;
	case 3: sb->lanes = 1 + (uint32_t)c->value % 8; break;
	case 4: sb->roots = 1 + (uint32_t)c->value % 32; break;
	case 5: sb->user_bytes = (uint32_t)c->value % 64 * 16; break;
	case 6: sb->max_bytes = (1 + c->value % 64) << QY_MAPPED_SEG_SHIFT; break;
	case 7: sb->incompat = (uint32_t)c->value % 2, sb->mode = sb->incompat * 2; break;
	case 8: sb->max_bytes = (uint64_t)1 << c->value % 42; break;
	default: sb->ro_compat = (uint32_t)c->value % 3; break;
	}
	(void)qy_mapped_layout(sb, at);
}

/* An entry of the redo record, which holds from then on. */
static void change_record(const struct seed *s, const struct change *c)
{
	struct qy_mapped_live *live = (struct qy_mapped_live *)(void *)(s->file + QY_MAPPED_LIVE_AT);
	struct change to = *c;
	unsigned i = c->which % 4;

	to.place = (uint8_t)(c->width >> 2);
	to.width = 0;
	live->redo_count = qy_max(live->redo_count, i + 1);
	live->redo[i].at = (where(s, &to) & ~(uint64_t)7) | (c->value >> 63);
	live->redo[i].value = c->value % 3 == 0 ? s->known[c->value / 3 % s->known_count] : c->value << 8 >> (c->value >> 56 & 63);
	if (c->which >> 14 == 0)
		live->redo[i].at = QY_MAPPED_LIVE_AT + (c->which & 16 ? offsetof(struct qy_mapped_live, segments) :
									 offsetof(struct qy_mapped_live, end));
}

static void change(const struct seed *s, const struct change *c)
{
	uint64_t to = where(s, c), was, value;

	if (c->place % 14 == 12) {
		if (c->place / 14 % 2 == 0)
			change_numbers(s, c);
		else
			change_record(s, c);
		return;
	}
	if (c->place >= 128) /* words */
		to &= ~(uint64_t)7;
	if (to + 8 > s->bytes)
		return;
	memcpy(&was, s->file + to, 8);
	value = bent(c, was, s->known, s->known_count);
	memcpy(s->file + to, &value, c->place >= 128 ? 8 : (size_t)1 << c->width % 4);
}

static void seal(const struct seed *s)
{
	struct qy_mapped_live *live = (struct qy_mapped_live *)(void *)(s->file + QY_MAPPED_LIVE_AT);
	struct qy_mapped_sb *sb = (struct qy_mapped_sb *)(void *)s->file;
	uint64_t sum = live->redo_count;

	if (sb->version == QY_MAPPED_VERSION && sb->abi == (sizeof(pthread_mutex_t) << 8 | sizeof(void *)))
		qy_mapped_sb_seal(sb);
	memcpy(s->file + QY_MAPPED_SB, s->file, sizeof(*sb));
	for (uint64_t i = 0; i < live->redo_count && i < QY_MAPPED_REDO; i++)
		sum = ((sum ^ live->redo[i].at) * 0x9e3779b97f4a7c15u ^ live->redo[i].value) * 0xbf58476d1ce4e5b9u + i;
	live->redo_check = sum;
}

/* ---- inputs ---- */

static void read_it(unsigned kind, unsigned how)
{
	quarry_mapped *h = qy_mapped_open_by(qy_os->reopen(seeds[kind].fd), true, NULL);
	struct fuzz_seen seen;

	if (!fuzz_count(kind, h))
		return;
	fuzz_look(h, &seen, how);
	must(quarry_mapped_alloc(h, 1) == NULL, "it is open to be read");
	quarry_mapped_close(h);
}

/* The same in memory without a name, which is sealed from then on. */
static int copy(const struct seed *s)
{
	int fd = memfd_create("fuzz", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	off_t size = lseek(s->fd, 0, SEEK_END);

	must(fd >= 0 && ftruncate(fd, size) == 0, "memfd");
	for (unsigned i = 0; i < s->pages && (off_t)(s->page[i] + 1) * PAGE <= size; i++)
		must(pwrite(fd, s->file + (uint64_t)s->page[i] * PAGE, PAGE, (off_t)s->page[i] * PAGE) == PAGE, "write");
	return fd;
}

static void open_it(unsigned kind, int fd, unsigned how)
{
	quarry_mapped *h, *again;

	keeping = fuzz_input % 8 != 0 && fd == seeds[kind].fd ? &seeds[kind] : NULL;
	h = quarry_mapped_attach(fd);
	keeping = NULL;
	if (!fuzz_count(kind, h))
		return;
	again = how & FUZZ_TWICE ? quarry_mapped_attach(fd) : NULL;
	fuzz_use(h, how);
	if (again != NULL) {
		fuzz_use(again, how & (FUZZ_DUMP | FUZZ_WHERE));
		quarry_mapped_close(again);
	}
	quarry_mapped_close(h);
}

/* data: the kind of heap; how it is opened; how it is used, in two bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t share[16] = { BROAD, SMALL, SEGMENTS, DEAD, BROAD, SMALL, DEAD, DEAD, BROAD, SMALL, SMALL, DEAD, SMALL, SMALL, DEAD, DEAD };
	unsigned kind, how;
	struct seed *s;

	if (size < FUZZ_HEAD)
		return 0;
	kind = share[data[0] % 16];
	s = &seeds[kind];
	if (real_os == NULL) {
		/* (What reads the table of system calls is this thread alone.) */
		must(quarry_ctl_set("reclaim", "series") == 0, "reclaim");
		for (unsigned i = 0; i < SEEDS; i++)
			prepare(i);
		keep_mappings();
	}
	restore(s);
	for (const uint8_t *at = data + FUZZ_HEAD; at + 12 <= data + size; at += 12) {
		struct change c = change_at(at);

		change(s, &c);
	}
	if (data[1] / 32 == 1 && data[0] / 16 == 0) /* of no name */
		((struct qy_mapped_sb *)(void *)s->file)->mode = QUARRY_MAPPED_VOLATILE;
	if (data[1] % 32 != 7)
		seal(s);
	if (data[1] % 32 == 1) /* cut short */
		must(ftruncate(s->fd, (off_t)(s->bytes / 256 * data[2])) == 0, "truncate");
	how = (data[2] % 8 == 0 ? FUZZ_MANY : 0) | (data[2] / 8 % 4 == 0 ? FUZZ_COLLECT : 0) | (data[2] / 32 == 0 && data[3] % 8 == 1 ? FUZZ_DUMP : 0) |
	      (data[3] % 8 == 0 ? FUZZ_SHRINK : 0) | (data[3] / 8 % 8 == 0 ? FUZZ_TWICE : 0) | (data[3] % 128 == 5 && data[2] % 4 == 1 ? FUZZ_GROW : 0) |
	      (data[3] % 128 == 6 ? FUZZ_WHERE : 0);
	if (kind == SEGMENTS && data[0] / 16 != 0) /* (its blocks are large) */
		how &= ~(unsigned)(FUZZ_DUMP | FUZZ_GROW);
	if (data[1] / 32 == 0) {
		read_it(kind, how);
	} else if (data[1] / 32 == 1 && data[0] / 16 < 2) {
		int fd = copy(s);

		open_it(kind, fd, how);
		close(fd);
	} else {
		open_it(kind, s->fd, how);
	}
	return 0;
}

#ifndef QUARRY_FUZZ
int main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_mapped", 10000);
}
#endif
