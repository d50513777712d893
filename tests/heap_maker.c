/* SPDX-License-Identifier: MIT */
/* Heaps for tests/heap.sh: `make FILE SEED N` one with lists of objects of all sizes, `durable` a durable one; `sum FILE` what is in it, as a number that
 * does not depend on where it is mapped; `thin FILE` frees nine of ten; `hold FILE` has it open until standard input ends;
 * `die FILE` is killed with a set begun; `forge DUMP 1` and `2` restore one that is not so; `fuzz DUMP SEED N` restores N bent dumps, whose checksums are right again. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quarry/mapped.h>
#include <quarry/quarry.h>

struct node {
	quarry_off next;
	quarry_rel back; /* to the one before; 0 of the first */
	uint64_t size, seed;
};

static uint64_t state;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void die(const char *what)
{
	fprintf(stderr, "%s: %s (%s)\n", what, quarry_error_text(), strerror(errno));
	exit(1);
}

static unsigned char byte_of(uint64_t seed, size_t i)
{
	return (unsigned char)((seed + i * 0x9e3779b97f4a7c15u) >> 56);
}

static void fill(struct node *n, size_t size, uint64_t seed)
{
	n->size = size;
	n->seed = seed;
	if (seed % 7 == 0) /* zeroes, but what says so */
		memset(n + 1, 0, size - sizeof(*n));
	else
		for (size_t i = sizeof(*n); i < size; i++)
			((unsigned char *)n)[i] = byte_of(seed, i);
}

static void make(const char *path, unsigned long count, uint32_t mode)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = mode, .max_bytes = (uint64_t)1 << 30, .roots = 256 };
	quarry_mapped *heap = quarry_mapped_create(path, &attr);
	char name[QUARRY_MAPPED_NAME + 1];
	size_t bytes;
	char *user;

	if (!heap)
		die("create");
	for (unsigned r = 0; r < 20; r++) {
		snprintf(name, sizeof(name), r == 7 ? "%02u a name of 64 bytes, which is the longest that there can be .............." : "list %u", r);
		name[QUARRY_MAPPED_NAME] = 0;
		if (quarry_mapped_root_put(heap, name, 0, r) != 0)
			die("root");
		for (unsigned long i = 0; i < count; i++) {
			size_t size = sizeof(struct node) + (next() % 20 == 0 ? next() % 200000 : next() % 3 == 0 ? next() % 9000 : next() % 200);
			quarry_off *slot = quarry_mapped_root_slot(heap, name);
			struct node *n = quarry_mapped_alloc(heap, size), *old;

			if (!n)
				die("alloc");
			fill(n, size, next());
			n->back = 0;
			n->next = *slot;
			old = quarry_mapped_at(heap, n->next);
			if (old)
				quarry_rel_set(&old->back, n);
			quarry_off_store(slot, quarry_mapped_off(heap, n));
		}
	}
	if (count > 100) { /* one of two segments, with another thing behind it */
		struct node *n = quarry_mapped_alloc(heap, (size_t)40 << 20);

		if (!n)
			die("alloc");
		fill(n, (size_t)40 << 20, 7 * 1234567);
		((char *)n)[(40 << 20) - 1] = 5;
		n->next = n->back = 0;
		if (quarry_mapped_root_put(heap, "large", quarry_mapped_off(heap, n), 99) != 0)
			die("root");
	}
	user = quarry_mapped_user(heap, &bytes);
	for (size_t i = 0; i < bytes; i++)
		user[i] = (char)next();
	if (mode == QUARRY_MAPPED_DURABLE && quarry_mapped_checkpoint(heap, NULL, 0) != 0)
		die("checkpoint");
	quarry_mapped_close(heap);
}

struct sum {
	quarry_mapped *heap;
	uint64_t sum, objects;
};

static int sum_root(void *ctx, const char *name, quarry_off off, uint32_t tag)
{
	struct sum *s = ctx;
	uint64_t sum = off * 31 + tag;

	for (; *name; name++)
		sum = (sum ^ (unsigned char)*name) * 0x100000001b3u;
	for (struct node *n = quarry_mapped_at(s->heap, off), *before = NULL; n; before = n, n = quarry_mapped_at(s->heap, n->next)) {
		if (quarry_mapped_ptr(s->heap, quarry_mapped_off(s->heap, n), n->size) == NULL || quarry_rel_get(&n->back) != before) {
			fprintf(stderr, "a node that cannot be\n");
			exit(1);
		}
		for (size_t i = 0; i < n->size; i++)
			sum = (sum ^ ((unsigned char *)n)[i]) * 0x100000001b3u;
		sum += quarry_mapped_off(s->heap, n);
		s->objects++;
	}
	s->sum += sum;
	return 0;
}

static void print_sum(const char *path)
{
	struct sum s = { .heap = quarry_mapped_open_read(path) };
	size_t bytes;
	char *user;

	if (!s.heap)
		die("open");
	quarry_mapped_root_list(s.heap, sum_root, &s);
	user = quarry_mapped_user(s.heap, &bytes);
	for (size_t i = 0; i < bytes; i++)
		s.sum = (s.sum ^ (unsigned char)user[i]) * 0x100000001b3u;
	printf("%llu objects, %016llx\n", (unsigned long long)s.objects, (unsigned long long)s.sum);
	quarry_mapped_close(s.heap);
}

static int thin_root(void *ctx, const char *name, quarry_off off, uint32_t tag)
{
	quarry_mapped *heap = ctx;
	quarry_off *slot = quarry_mapped_root_slot(heap, name);

	(void)tag;
	if (strcmp(name, "large") == 0)
		return quarry_mapped_free_from(heap, slot);
	if (strcmp(name, "list 0") == 0) /* it was made first, and stays */
		return 0;
	*slot = 0;
	for (struct node *n = quarry_mapped_at(heap, off), *after; n; n = after) {
		after = quarry_mapped_at(heap, n->next);
		if (quarry_mapped_free(heap, n) != 0)
			return -1;
	}
	return 0;
}

static quarry_mapped *open_it(const char *path)
{
	quarry_mapped *heap = quarry_mapped_open(path);

	if (!heap)
		die("open");
	return heap;
}

/* ---- dumps that somebody bent ---- */

static uint32_t crc32c(const unsigned char *p, size_t n)
{
	uint32_t crc = ~0u;

	for (; n > 0; n--, p++) {
		crc ^= *p;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

struct bytes {
	unsigned char *at;
	size_t n, read;
};

static long from_memory(void *ctx, void *to, size_t n)
{
	struct bytes *b = ctx;

	n = n > 1000 ? 1000 : n; /* in pieces */
	n = n > b->n - b->read ? b->n - b->read : n;
	memcpy(to, b->at + b->read, n);
	b->read += n;
	return (long)n;
}

#define RECORDS 100000
static size_t record_at[RECORDS];

static size_t records_of(const unsigned char *at, size_t n)
{
	size_t count = 0;
	uint64_t length;

	for (size_t i = 8; i + 16 <= n && count < RECORDS - 1; i += 16 + length) {
		memcpy(&length, at + i + 8, 8);
		record_at[count++] = i;
		if (length > n - i - 16)
			break;
	}
	record_at[count] = n;
	return count;
}

static const uint64_t odd[] = { 0, 1, 7, 8, 16, 64, 4095, 4096, 65535, 65536, 65537, 1 << 21, 1 << 25, (uint64_t)1 << 32, (uint64_t)1 << 40,
				~(uint64_t)0, ~(uint64_t)0 - 65535, (uint64_t)1 << 63 };

/* One record, in one word: another number, one near it, a bit. Mostly the first ones, which say how it all is. */
static void bend(unsigned char *at, size_t n)
{
	size_t count = records_of(at, n), which = next() % 3 == 0 ? next() % count : next() % (count < 12 ? count : 12);
	size_t from = record_at[which] + 16, length = record_at[which + 1] - from;
	uint64_t word;
	uint32_t crc;

	for (unsigned times = 1 + (unsigned)(next() % 3); times > 0 && length >= 8; times--) {
		size_t i = from + (next() % 4 == 0 ? next() % (length - 7) : next() % (length < 48 ? length - 7 : 41) / 4 * 4);

		memcpy(&word, at + i, 8);
		switch (next() % 4) {
		case 0: word = odd[next() % (sizeof(odd) / sizeof(odd[0]))]; break;
		case 1: word += (uint64_t)(int64_t)((int)(next() % 7) - 3) * (next() % 2 ? 1 : 65536); break;
		case 2: word ^= (uint64_t)1 << next() % 64; break;
		default: word = (word & ~(uint64_t)0xffffffff) | (uint32_t)odd[next() % (sizeof(odd) / sizeof(odd[0]))]; break;
		}
		memcpy(at + i, &word, 8);
	}
	if (next() % 8 == 0) { /* another kind */
		at[record_at[which]] = (unsigned char)(next() % 9);
	}
	crc = crc32c(at + from, length);
	memcpy(at + record_at[which] + 4, &crc, 4);
}

/* A record that is there twice, or not at all. */
static size_t shuffle(unsigned char *at, size_t n)
{
	size_t count = records_of(at, n), which = next() % count, length = record_at[which + 1] - record_at[which];

	if (next() % 2 == 0) {
		memmove(at + record_at[which], at + record_at[which + 1], n - record_at[which + 1]);
		return n - length;
	}
	memmove(at + record_at[which + 1] + length, at + record_at[which + 1], n - record_at[which + 1]);
	memcpy(at + record_at[which + 1], at + record_at[which], length);
	return n + length;
}

/* A dump that is right in all but one thing: 1: there is content of an object that is not in use; 2: the first slab comes once more. */
static void forge(const char *path, int what)
{
	FILE *f = fopen(path, "rb");
	unsigned char *at = malloc(1 << 25), record[16 + 8 + 16] = { 4, 0, 0, 0, 0, 0, 0, 0, 24 };
	size_t n = f ? fread(at, 1, 1 << 24, f) : 0, count = n ? records_of(at, n) : 0, slab = 0, end = count - 1, length = sizeof(record);
	uint64_t off, map, word;
	uint32_t size, live, crc;
	struct bytes b = { at, 0, 0 };

	while (slab < count && (at[record_at[slab]] != 2 || memcmp(at + record_at[slab] + 16 + 24, "\xff\xff\xff\xff\xff\xff\xff\xff", 8) == 0))
		slab++;
	if (slab >= count)
		die("no slab with room");
	memcpy(&off, at + record_at[slab] + 16, 8);
	memcpy(&size, at + record_at[slab] + 24, 4);
	memcpy(&live, at + record_at[slab] + 32, 4);
	memcpy(&map, at + record_at[slab] + 40, 8);
	off += (uint64_t)__builtin_ctzll(~map) * size;
	memcpy(record + 16, &off, 8);
	record[24] = 1;
	crc = crc32c(record + 16, 24);
	memcpy(record + 4, &crc, 4);
	for (int i = 0; i < 3; i++) { /* the end: objects, bytes, records */
		memcpy(&word, at + record_at[end] + 16 + i * 8, 8);
		word += i == 2 ? 1 : what == 1 ? 0 : i == 1 ? (uint64_t)live * size : live;
		memcpy(at + record_at[end] + 16 + i * 8, &word, 8);
	}
	crc = crc32c(at + record_at[end] + 16, 24);
	memcpy(at + record_at[end] + 4, &crc, 4);
	if (what == 2) {
		while (at[record_at[end]] != 5)
			end--;
		length = record_at[slab + 1] - record_at[slab];
	} else {
		end = slab + 1;
	}
	memmove(at + record_at[end] + length, at + record_at[end], n - record_at[end]);
	memcpy(at + record_at[end], what == 2 ? at + record_at[slab] : record, length);
	b.n = n + length;
	if (quarry_mapped_restore(NULL, from_memory, &b) != NULL)
		die("it was believed");
	printf("%s\n", quarry_error_text());
}

static quarry_mapped *heap_of(unsigned char *at, size_t n)
{
	struct bytes b = { at, n, 0 };
	quarry_mapped *heap = quarry_mapped_restore(NULL, from_memory, &b);

	if (!heap)
		die("the dump itself");
	return heap;
}

static void fuzz(const char *path, unsigned long times)
{
	FILE *f = fopen(path, "rb");
	unsigned char *whole = malloc(1 << 25), *bent = malloc(1 << 26);
	size_t n = f ? fread(whole, 1, 1 << 25, f) : 0;
	unsigned long made = 0;
	quarry_mapped_report report;

	if (n == 0 || n == 1 << 25)
		die("read");
	quarry_mapped_close(heap_of(whole, n)); /* (else that those which are bent are refused would say nothing) */
	for (unsigned long i = 0; i < times; i++) {
		struct bytes b = { bent, n, 0 };
		quarry_mapped *heap;

		memcpy(bent, whole, n);
		if (next() % 5 == 0)
			b.n = shuffle(bent, n);
		else
			bend(bent, n);
		if (next() % 10 == 0)
			b.n = next() % b.n;
		heap = quarry_mapped_restore(NULL, from_memory, &b);
		if (!heap)
			continue;
		made++;
		if (quarry_mapped_check(heap, &report, sizeof(report)) != 0 || !quarry_mapped_alloc(heap, 100)) {
			fprintf(stderr, "round %lu: a heap that is none: %s\n", i, report.first);
			exit(1);
		}
		quarry_mapped_close(heap);
	}
	printf("%lu of %lu made a heap\n", made, times);
	if (made == 0 || made == times)
		exit(1);
}

int main(int argc, char **argv)
{
	quarry_mapped_set set;
	quarry_mapped *heap;

	state = argc > 3 ? strtoull(argv[3], NULL, 10) * 2 + 1 : 1;
	for (int i = 0; i < 20; i++)
		(void)next();
	if (argc > 4 && strcmp(argv[1], "make") == 0) {
		make(argv[2], strtoul(argv[4], NULL, 10), QUARRY_MAPPED_DIRECT);
	} else if (argc > 4 && strcmp(argv[1], "durable") == 0) {
		make(argv[2], strtoul(argv[4], NULL, 10), QUARRY_MAPPED_DURABLE);
	} else if (argc > 2 && strcmp(argv[1], "sum") == 0) {
		print_sum(argv[2]);
	} else if (argc > 2 && strcmp(argv[1], "thin") == 0) {
		heap = open_it(argv[2]);
		if (quarry_mapped_root_list(heap, thin_root, heap) != 0)
			die("thin");
		quarry_mapped_close(heap);
	} else if (argc > 2 && strcmp(argv[1], "hold") == 0) {
		heap = open_it(argv[2]);
		puts("open");
		fflush(stdout);
		while (getchar() != EOF)
			;
		quarry_mapped_close(heap);
	} else if (argc > 2 && strcmp(argv[1], "die") == 0) {
		heap = open_it(argv[2]);
		if (quarry_mapped_begin(heap, &set) != 0 || !quarry_mapped_reserve(&set, 100) || !quarry_mapped_reserve(&set, 100000))
			die("set");
		kill(getpid(), SIGKILL);
	} else if (argc > 4 && strcmp(argv[1], "fuzz") == 0) {
		fuzz(argv[2], strtoul(argv[4], NULL, 10));
	} else if (argc > 3 && strcmp(argv[1], "forge") == 0) {
		forge(argv[2], atoi(argv[3]));
	} else {
		return 2;
	}
	return 0;
}
