/* SPDX-License-Identifier: MIT */
/* Heaps out of dumps (lib/mapped/restore.c) that somebody changed: records bent in a word, of another kind, twice, left out, exchanged or cut
 * short, with the checksums and, mostly, the sums at the end made anew. What is restored is checked, dumped again, used and closed.
 *
 * Built and called as fuzz_mapped.c is. An input is how it is used, and a list of changes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fuzz/mapped_fuzz.h"
#include "lib/mapped/dump.h"

#define RECORDS 256u
#define BYTES ((size_t)1 << 20)

enum { MANY, SEGMENTS, SEEDS };

struct bytes {
	uint8_t *at;
	size_t n, done;
};

static struct bytes seeds[SEEDS];
static struct bytes bends[SEEDS]; /* with the length, and room for a few records more */
static struct {
	const uint8_t *from; /* of the seed */
	size_t length;       /* with what is in front of it */
	uint8_t *own;        /* where it was changed */
} record[RECORDS + 32];
static unsigned records;
static uint8_t copies[32][4096 + 16];
static unsigned copies_used;

static int put(void *bytes, const void *p, size_t n)
{
	struct bytes *b = bytes;

	must(b->n + n <= BYTES, "the dump is small");
	memcpy(b->at + b->n, p, n);
	b->n += n;
	return 0;
}

static long get(void *bytes, void *p, size_t n)
{
	struct bytes *b = bytes;

	n = qy_min(n, b->n - b->done);
	memcpy(p, b->at + b->done, n);
	b->done += n;
	return (long)n;
}

static void fill(quarry_mapped *h, unsigned kind)
{
	quarry_off *slots = quarry_mapped_user(h, NULL);

	for (unsigned i = 0; i < 30; i++)
		must(quarry_mapped_alloc_into(h, kind == MANY ? 16 + i * i * 20 : 16 + i % 4 * 100, &slots[i]) != NULL, "alloc_into");
	for (unsigned i = 0; i < 30; i += 3)
		memset(quarry_mapped_at(h, slots[i]), (int)i, 16);
	must(quarry_mapped_alloc_into(h, 100000, &slots[30]) != NULL, "alloc_into");
	*(char *)quarry_mapped_at(h, slots[30] + 70000) = 1;
	if (kind == SEGMENTS)
		must(quarry_mapped_alloc_into(h, 33 << 20, &slots[31]) != NULL, "alloc_into");
	for (unsigned i = 1; i < 28; i += 4)
		must(quarry_mapped_free_from(h, &slots[i]) == 0, "free_from");
	must(quarry_mapped_root_put(h, "list", slots[0], 1) == 0 && quarry_mapped_root_put(h, "block", slots[30], 7) == 0, "root");
}

static void prepare(unsigned kind)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = kind == MANY ? 32 << 20 : 160 << 20,
				    .sessions = 2, .lanes = 2, .roots = 4, .user_bytes = 512 };
	quarry_mapped *h = quarry_mapped_create(NULL, &attr);

	must(h != NULL, "create");
	fill(h, kind);
	seeds[kind].at = malloc(BYTES);
	must(seeds[kind].at != NULL && quarry_mapped_dump(h, put, &seeds[kind]) == 0, "dump");
	bends[kind].at = malloc(BYTES + sizeof(copies));
	quarry_mapped_close(h);
}

static void split(const struct bytes *seed)
{
	uint64_t length;

	records = copies_used = 0;
	for (size_t i = 8; i < seed->n; i += 16 + length) {
		memcpy(&length, seed->at + i + 8, 8);
		must(records < RECORDS, "the dump has few records");
		record[records].from = seed->at + i;
		record[records].own = NULL;
		record[records++].length = 16 + (size_t)length;
	}
}

/* ---- changes ---- */

static uint8_t *own(unsigned i)
{
	if (record[i].own == NULL && copies_used < 32 && record[i].length <= sizeof(copies[0])) {
		record[i].own = copies[copies_used++];
		memcpy(record[i].own, record[i].from, record[i].length);
	}
	return record[i].own;
}

static void move(unsigned i, unsigned to)
{
	__typeof__(record[0]) r = record[i];

	if (i < to)
		memmove(&record[i], &record[i + 1], (to - i) * sizeof(r));
	else
		memmove(&record[to + 1], &record[to], (i - to) * sizeof(r));
	record[to] = r;
}

static void set_length(unsigned i, uint64_t length)
{
	memcpy(record[i].own + 8, &length, 8);
	if (length <= sizeof(copies[0]) - 16) {
		if (16 + length > record[i].length)
			memset(record[i].own + record[i].length, 0, (size_t)length + 16 - record[i].length);
		record[i].length = 16 + (size_t)length;
	}
}

/* A word of a record's, the first ones more often. */
static void bend(unsigned i, const struct change *c)
{
	static const uint64_t known[] = { 2 << 20, (2 << 20) + (9 << 16), (2 << 20) + (10 << 16), (34 << 20), (34 << 20) + (9 << 16), 65536, 131072,
					  32 << 20, 33 << 20, 64 << 20, 503 << 16, 504 << 16, 66 << 20, (98 << 20) + (9 << 16), 16, 32768,
					  262144, (uint64_t)1 << 40, 4096, ~(uint64_t)0 };
	size_t length = record[i].length - 16, at;
	uint8_t *p = own(i);
	uint64_t was;

	if (p == NULL || length < 8)
		return;
	at = c->which / 4 % 4 == 0 ? c->which / 16 % (length - 7) : c->which / 16 % qy_min(length / 4, 12u) * 4;
	if (at + 8 > length)
		at = length - 8;
	memcpy(&was, p + 16 + at, 8);
	was = bent(c, was, known, sizeof(known) / sizeof(known[0]));
	memcpy(p + 16 + at, &was, c->width % 3 == 0 ? 4 : 8);
}

static void change(const struct change *c)
{
	unsigned i = c->which % 3 == 0 ? c->which / 3 % records : c->which / 3 % qy_min(records, 12u), to = (unsigned)(c->value % records);

	switch (c->place % 16) {
	case 0: move(i, to); return;
	case 1:
		if (records > 3)
			move(i, --records);
		return;
	case 2:
		if (records < RECORDS + 16) {
			record[records] = record[i];
			record[records++].own = NULL;
			move(records - 1, to);
		}
		return;
	case 3:
		if (own(i) != NULL) {
			uint32_t kind = (uint32_t)c->value % 9;

			memcpy(record[i].own, &kind, 4);
		}
		return;
	case 4:
		if (own(i) != NULL)
			set_length(i, c->width % 4 == 0 ? c->value : record[i].length - 16 + (uint64_t)(int64_t)((int8_t)c->value));
		return;
	default: bend(i, c); return;
	}
}

/* What the records say there is. */
static void make_end(void)
{
	struct qy_dump_end end = { .records = records - 1 };
	struct qy_dump_slab slab;
	struct qy_dump_block block;
	uint32_t kind;

	for (unsigned i = 0; i < records; i++) {
		const uint8_t *p = record[i].own != NULL ? record[i].own : record[i].from;

		memcpy(&kind, p, 4);
		if (kind == QY_DUMP_SLAB && record[i].length >= 16 + sizeof(slab)) {
			memcpy(&slab, p + 16, sizeof(slab));
			end.objects += slab.live;
			end.bytes += (uint64_t)slab.live * slab.size;
		} else if (kind == QY_DUMP_BLOCK && record[i].length >= 16 + sizeof(block)) {
			memcpy(&block, p + 16, sizeof(block));
			end.objects++;
			end.bytes += block.bytes;
		} else if (kind == QY_DUMP_END && i + 1 == records && own(i) != NULL && record[i].length == 16 + sizeof(end)) {
			memcpy(record[i].own + 16, &end, sizeof(end));
		}
	}
}

/* What was changed has its checksum, and all is one piece again. */
static void join(struct bytes *to, const struct bytes *seed, int sealed)
{
	memcpy(to->at, seed->at, 8);
	to->n = 8;
	to->done = 0;
	for (unsigned i = 0; i < records; i++) {
		if (record[i].own != NULL && sealed) {
			uint32_t crc = qy_dump_crc(0, record[i].own + 16, record[i].length - 16);

			memcpy(record[i].own + 4, &crc, 4);
		}
		if (to->n + record[i].length > BYTES + sizeof(copies))
			break;
		memcpy(to->at + to->n, record[i].own != NULL ? record[i].own : record[i].from, record[i].length);
		to->n += record[i].length;
	}
}

/* ---- inputs ---- */

/* What a dump asks for it gets: so much, and no more. */
static void prepare_all(void)
{
	static const char *const names[SEEDS] = { "of one segment", "of blocks of many segments" };
	struct rlimit limit;

	for (unsigned i = 0; i < SEEDS; i++) {
		prepare(i);
		fuzz_kind[i].name = names[i];
	}
	signal(SIGXFSZ, SIG_IGN);
	must(getrlimit(RLIMIT_FSIZE, &limit) == 0, "limit");
	limit.rlim_cur = 192 << 20;
	must(setrlimit(RLIMIT_FSIZE, &limit) == 0, "limit");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	quarry_mapped_report report;
	quarry_mapped *h;
	unsigned kind;

	if (size < FUZZ_HEAD)
		return 0;
	if (fuzz_kind[0].name == NULL)
		prepare_all();
	kind = data[0] % 64 == 0 ? SEGMENTS : MANY; /* (all of that memory is allocated each time) */
	split(&seeds[kind]);
	for (const uint8_t *at = data + FUZZ_HEAD; at + 12 <= data + size; at += 12) {
		struct change c = change_at(at);

		change(&c);
	}
	if (data[1] % 8 != 0)
		make_end();
	join(&bends[kind], &seeds[kind], data[1] / 8 % 16 != 0);
	if (data[1] / 8 % 16 == 1)
		bends[kind].n = (size_t)data[2] * bends[kind].n / 256;
	if (data[1] / 8 % 16 == 2)
		bends[kind].at[data[2] % 64] ^= (uint8_t)(1u << data[3] % 8);
	h = quarry_mapped_restore(NULL, get, &bends[kind]);
	if (!fuzz_count(kind, h))
		return 0;
	must(quarry_mapped_check(h, &report, sizeof(report)) == 0, "what is restored is a heap");
	fuzz_use(h, data[2] % 8 == 0 ? FUZZ_DUMP | FUZZ_COLLECT : data[2] % 8 == 1 ? FUZZ_MANY : 0);
	must(quarry_mapped_check(h, &report, sizeof(report)) == 0, "and stays one");
	quarry_mapped_close(h);
	return 0;
}

#ifndef QUARRY_FUZZ
int main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_restore", 3000);
}
#endif
