/* SPDX-License-Identifier: MIT */
/* Pattern: a store of keys and values in memory, as Redis has it. N keys are set, each an entry, a key, a header and a
 * value by itself, in a table of pointers that doubles as it grows; every key is overwritten, in a random order, with a
 * value of another size; 90 % of them, at random, are deleted; then the missing ones come back with a third size. Each
 * value is between half and one and a half times the mean of its stage (--even 1: all of that size). The figures are
 * the resident set after each stage, 2 s after the deleting and after the refilling, and the peak, what the process had
 * before taken off; and the share in huge pages when the peak is reached, and 2 s later.
 * Source: the pattern is the one that J. Evans (jemalloc) and B. Powers and others (Mesh, PLDI 2019) measure with
 * Redis; sizes and stages are of this project. redis.c has the real server. */
#include "bench.h"

#include <stdio.h>
#include <sys/resource.h>

#define REST 2 /* s */
#define MIB (1u << 20)

struct value {
	uint64_t references;
	unsigned char *bytes;
};

struct entry {
	unsigned char *key;
	struct value *value;
	struct entry *next;
};

static uint64_t first_size = 100, second_size = 180, third_size = 300, survivors = 10, even;
static const struct bench_extra extra[] = {
	{ "first", &first_size, "bytes of a value when set" },
	{ "second", &second_size, "when overwritten" },
	{ "third", &third_size, "when set again" },
	{ "keep", &survivors, "percent that are not deleted" },
	{ "even", &even, "1: each value of a stage has the same size" },
};
static struct bench bench = {
	.name = "churn", .op = "one key", .ops = 2000000, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static struct entry **heads, **entries; /* the store's table, of malloc; and ours, by number */
static uint64_t size_of_table, used;
static uint64_t random_state;
static struct bench_memory base; /* before the first allocation: our tables are in it */

static void *take(size_t size)
{
	void *p = malloc(size);

	if (!p)
		bench_no_memory(size);
	return p;
}

static uint64_t hash(uint64_t number)
{
	number *= 0x9e3779b97f4a7c15u;
	return number ^ number >> 29;
}

static uint64_t number_of(const struct entry *e)
{
	uint64_t number;

	memcpy(&number, e->key + 8, sizeof(number));
	return number;
}

static void grow_table(void)
{
	uint64_t size = size_of_table ? 2 * size_of_table : 16;
	struct entry **table = take(size * sizeof(*table)), *next;

	memset(table, 0, size * sizeof(*table));
	for (uint64_t i = 0; i < size_of_table; i++) {
		for (struct entry *e = heads[i]; e; e = next) {
			struct entry **head = &table[hash(number_of(e)) & (size - 1)];

			next = e->next;
			e->next = *head;
			*head = e;
		}
	}
	free(heads);
	heads = table;
	size_of_table = size;
}

static struct value *make_value(uint64_t mean)
{
	size_t size = even ? mean : mean / 2 + bench_below(&random_state, (uint32_t)mean + 1);
	struct value *v = take(sizeof(*v));

	if (size < 8)
		size = 8;
	v->references = size;
	v->bytes = take(size);
	memset(v->bytes, (int)size | 1, size);
	return v;
}

/* The last byte still has to be as it was written. */
static void drop_value(struct value *v)
{
	if (v->bytes[v->references - 1] != (unsigned char)(v->references | 1))
		bench_die("WRONG CONTENTS: a value of %lu bytes at %p", (unsigned long)v->references, (void *)v->bytes);
	free(v->bytes);
	free(v);
}

static void set_key(uint64_t number, uint64_t mean)
{
	struct entry *e = take(sizeof(*e)), **head;
	char key[40];
	int length = snprintf(key, sizeof(key), "key:%012lu", (unsigned long)number);

	if (used >= size_of_table)
		grow_table();
	/* A header of 8 bytes and the number in binary, so that it is read back fast; then the text. */
	e->key = take(16 + (size_t)length + 1);
	memset(e->key, 0, 8);
	memcpy(e->key + 8, &number, sizeof(number));
	memcpy(e->key + 16, key, (size_t)length + 1);
	e->value = make_value(mean);
	head = &heads[hash(number) & (size_of_table - 1)];
	e->next = *head;
	*head = e;
	entries[number] = e;
	used++;
}

static void delete_key(uint64_t number)
{
	struct entry *e = entries[number], **at = &heads[hash(number) & (size_of_table - 1)];

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	drop_value(e->value);
	free(e->key);
	free(e);
	entries[number] = NULL;
	used--;
}

static double huge_share;

static void look(const char *stage)
{
	struct bench_memory memory = bench_memory(0);
	double rss = memory.rss - base.rss;

	bench_figure(&bench, stage, rss, "MiB");
	huge_share = 100 * memory.huge / (memory.anonymous - base.anonymous);
}

int main(int argc, char **argv)
{
	struct rusage usage;
	uint32_t *order;
	uint64_t kept;
	double from;

	bench_begin(&bench, argc, argv);
	if (bench.ops < 2 || bench.ops > UINT32_MAX)
		bench_die("--ops: from 2 to %u", UINT32_MAX);
	random_state = bench_seed(&bench, 0);
	entries = bench_table(bench.ops * sizeof(*entries));
	order = bench_table(bench.ops * sizeof(*order));
	memset(entries, 0, bench.ops * sizeof(*entries)); /* touched now, so that it is in the base */
	for (uint64_t i = 0; i < bench.ops; i++)
		order[i] = (uint32_t)i;
	bench_shuffle(&random_state, order, bench.ops);
	bench_resident();
	base = bench_memory(0);
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.ops; i++)
		set_key(i, first_size);
	look("set");
	for (uint64_t i = 0; i < bench.ops; i++) {
		struct value *old = entries[order[i]]->value;

		entries[order[i]]->value = make_value(second_size);
		drop_value(old);
	}
	look("overwritten");
	kept = bench.ops * survivors / 100;
	/* What survives is not what was written together. */
	bench_shuffle(&random_state, order, bench.ops);
	for (uint64_t i = kept; i < bench.ops; i++)
		delete_key(order[bench.ops - 1 - (i - kept)]);
	bench_stop(&bench);
	look("deleted");
	bench_sleep_until(bench_now() + REST);
	look("resting");
	from = bench_now();
	for (uint64_t i = kept; i < bench.ops; i++)
		set_key(order[i], third_size);
	bench_figure(&bench, "refill", bench_now() - from, "s");
	look("refilled");
	bench_figure(&bench, "huge0", huge_share, "%");
	bench_sleep_until(bench_now() + REST);
	look("refilled2s");
	bench_report(&bench, bench.ops);
	getrusage(RUSAGE_SELF, &usage);
	bench_figure(&bench, "peak", (double)usage.ru_maxrss / 1024 - base.rss, "MiB");
	bench_figure(&bench, "huge", huge_share, "%");
	for (uint64_t i = 0; i < bench.ops; i++)
		delete_key(i);
	return 0;
}
