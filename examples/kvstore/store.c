/* SPDX-License-Identifier: MIT */
/* The hash table. While it grows or shrinks there are two: each operation takes a bucket over, and new keys come into the
 * new one. Nobody waits for all of it. */
#include "store.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define TABLE_MIN 64
#define SPARSE 8     /* a table with fewer than one entry for so many buckets is halved until it has more */
#define EMPTY_MAX 16 /* empty buckets that one operation passes */
#define AT_ONCE 64   /* buckets between looks at the clock */
#define RENAME ((size_t)64 << 10) /* bytes that make it worth to rename all entries */

struct store store;

static struct table {
	ref *bucket;
	size_t size; /* a power of two */
} table[2];     /* the second while entries go over to it */
static size_t taken_over; /* buckets of the first that are empty for good */
static size_t swept;      /* the next bucket to be looked through for expired keys, */
static size_t renamed;    /* and to have its entries renamed */
static uint64_t seed[2];

/* ---- hashes ---- */

static uint64_t rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (J.-P. Aumasson, D. J. Bernstein, 2012): who does not know the seed cannot choose keys that all come into
 * one bucket. */
static uint32_t hash_of(struct text key)
{
	uint64_t v[4] = { seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d, seed[0] ^ 0x6c7967656e657261,
			  seed[1] ^ 0x7465646279746573 };
	uint64_t word;
	size_t i = 0;

	for (; i + 8 <= key.n; i += 8) {
		memcpy(&word, key.p + i, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	word = (uint64_t)key.n << 56;
	for (int shift = 0; i < key.n; i++, shift += 8)
		word |= (uint64_t)(unsigned char)key.p[i] << shift;
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	for (int round = 0; round < 3; round++)
		sip_round(v);
	word = v[0] ^ v[1] ^ v[2] ^ v[3];
	return (uint32_t)(word ^ word >> 32);
}

static ref *bucket_of(const struct table *t, uint32_t hash)
{
	return &t->bucket[hash & (t->size - 1)];
}

/* ---- the tables ---- */

static struct text entry_key(const struct entry *e)
{
	return (struct text){ e->bytes, e->key };
}

static bool is_taking_over(void)
{
	return table[1].bucket != NULL;
}

static void end_taking_over(void)
{
	memory_table_free(table[0].bucket);
	table[0] = table[1];
	table[1] = (struct table){ 0 };
	swept = 0;
}

/* In a scope: a bucket's entries go over to the new table. */
static void take_bucket(ref *bucket)
{
	while (*bucket != REF_NONE) {
		ref r = *bucket;
		struct entry *e = memory_write(r);
		ref *to = bucket_of(&table[1], hash_of(entry_key(e)));

		*bucket = e->next;
		e->next = *to;
		*to = r;
	}
}

/* So many buckets that have entries, and not many more that have none. */
static void take_over(size_t buckets)
{
	size_t empty = buckets * EMPTY_MAX;

	memory_enter();
	while (taken_over < table[0].size && buckets > 0 && empty > 0) {
		ref *bucket = &table[0].bucket[taken_over++];

		if (*bucket == REF_NONE) {
			empty--;
			continue;
		}
		take_bucket(bucket);
		buckets--;
	}
	memory_leave();
	if (taken_over == table[0].size)
		end_taking_over();
}

/* Begin to have another size, where this one does not fit. Without the memory for it the table stays as it is. */
static void fit(void)
{
	size_t size = table[0].size;

	if (is_taking_over())
		return;
	while (size < store.entries)
		size *= 2;
	if (store.entries < size / SPARSE)
		while (size > TABLE_MIN && store.entries <= size / 2)
			size /= 2;
	if (size == table[0].size)
		return;
	table[1] = (struct table){ memory_table(size), size };
	if (table[1].bucket == NULL)
		table[1].size = 0;
	taken_over = 0;
}

bool store_begin(void)
{
	if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		seed[0] = (uint64_t)time(NULL); /* (a kernel that has none to give) */
	table[0] = (struct table){ memory_table(TABLE_MIN), TABLE_MIN };
	return table[0].bucket != NULL;
}

void store_end(void)
{
	store_clear();
	memory_table_free(table[0].bucket);
	table[0] = (struct table){ 0 };
}

/* ---- entries ---- */

static size_t entry_size(size_t key, size_t room)
{
	return offsetof(struct entry, bytes) + key + room;
}

static void entry_free(ref r)
{
	const struct entry *e;
	size_t size;

	memory_enter();
	e = memory_read(r);
	size = entry_size(e->key, e->room);
	memory_leave();
	memory_free(r, size);
}

/* Not in a scope: an entry with a key, room for a value, and no value yet. */
static ref entry_make(struct text key, size_t room)
{
	ref r = memory_allocate(entry_size(key.n, room));
	struct entry *e;

	if (r == REF_NONE)
		return REF_NONE;
	memory_enter();
	e = memory_write(r);
	e->next = REF_NONE;
	e->expires = 0;
	e->key = (uint32_t)key.n;
	e->value = 0;
	e->room = (uint32_t)room;
	memcpy(e->bytes, key.p, key.n);
	memory_leave();
	return r;
}

/* In a scope: whoever refers to what is there refers to r. */
static void refer_to(const struct place *where, ref r)
{
	if (where->before != REF_NONE)
		((struct entry *)memory_write(where->before))->next = r;
	else
		*where->bucket = r;
}

/* A made entry comes to its place; what was there goes. */
static void put(struct place *where, ref r)
{
	ref old = where->at;

	memory_enter();
	((struct entry *)memory_write(r))->next = old != REF_NONE ? store_entry(where)->next : *where->bucket;
	refer_to(where, r);
	memory_leave();
	where->at = r;
	if (old != REF_NONE) {
		entry_free(old);
	} else {
		store.entries++;
		fit();
	}
}

void store_remove(const struct place *where)
{
	const struct entry *e;

	memory_enter();
	e = store_entry(where);
	store.expiring -= e->expires != 0;
	refer_to(where, e->next);
	memory_leave();
	entry_free(where->at);
	store.entries--;
	fit();
}

/* ---- found ---- */

static bool has_expired(const struct entry *e)
{
	return e->expires != 0 && e->expires <= store.now;
}

static bool is_of(const struct entry *e, struct text key)
{
	return e->key == key.n && memcmp(e->bytes, key.p, key.n) == 0;
}

static bool look_in(const struct table *t, struct text key, struct place *where)
{
	const struct entry *e = NULL;

	where->bucket = bucket_of(t, where->hash);
	where->before = REF_NONE;
	for (where->at = *where->bucket; where->at != REF_NONE; where->at = e->next) {
		e = store_entry(where);
		if (is_of(e, key))
			return true;
		where->before = where->at;
	}
	where->before = REF_NONE; /* a new one would be the first */
	return false;
}

void store_look(struct text key, struct place *where)
{
	bool expired;

	if (is_taking_over())
		take_over(1);
	where->hash = hash_of(key);
	memory_enter();
	if (!look_in(&table[0], key, where) && is_taking_over())
		(void)look_in(&table[1], key, where);
	expired = where->at != REF_NONE && has_expired(store_entry(where));
	memory_leave();
	if (!expired)
		return;
	store_remove(where);
	store.expired++;
	store_look(key, where); /* the tables may be others now */
}

/* In a scope: of each ref the entry is fetched, those of handles in two steps. */
static void fetch(const ref *at, size_t count)
{
	for (size_t i = 0; i < count; i++)
		memory_foresee(at[i]);
	for (size_t i = 0; i < count; i++)
		if (at[i] != REF_NONE) {
			const char *entry = memory_read(at[i]);

			__builtin_prefetch(entry);
			__builtin_prefetch(entry + 64);
		}
}

/* Each step from a key to its entry waits for the memory: so one step of all is done after the other. The first or the
 * second entry of a bucket is the right one nearly always. */
void store_foresee(const struct text *key, size_t count)
{
	const ref *bucket[FORESEEN_MAX];
	ref at[FORESEEN_MAX] = { REF_NONE };

	for (size_t i = 0; i < count; i++) {
		bucket[i] = bucket_of(&table[0], hash_of(key[i]));
		__builtin_prefetch(bucket[i]);
	}
	for (size_t i = 0; i < count; i++)
		at[i] = *bucket[i];
	memory_enter();
	fetch(at, count);
	for (size_t i = 0; i < count; i++)
		if (at[i] != REF_NONE) {
			const struct entry *e = memory_read(at[i]);

			at[i] = is_of(e, key[i]) ? REF_NONE : e->next;
		}
	fetch(at, count);
	memory_leave();
}

/* ---- changed ---- */

/* Whether a value may stand where one with so much room does: little is lost. */
static bool suits(const struct entry *e, size_t value)
{
	return value <= e->room && e->room - value < 16 + value / 8;
}

static void expires_at(struct entry *e, int64_t expires)
{
	store.expiring += (size_t)(expires != 0) - (size_t)(e->expires != 0);
	e->expires = expires;
}

static void value_is(struct entry *e, struct text value)
{
	memcpy(e->bytes + e->key, value.p, value.n);
	e->value = (uint32_t)value.n;
}

bool store_set(struct place *where, struct text key, struct text value, int64_t expires)
{
	struct entry *e;
	bool suited;
	ref r;

	memory_enter();
	suited = where->at != REF_NONE && suits(store_entry(where), value.n);
	if (suited) {
		e = memory_write(where->at);
		value_is(e, value);
		expires_at(e, expires);
	}
	memory_leave();
	if (suited)
		return true;
	r = entry_make(key, value.n);
	if (r == REF_NONE)
		return false;
	memory_enter();
	if (where->at != REF_NONE)
		store.expiring -= store_entry(where)->expires != 0;
	e = memory_write(r);
	value_is(e, value);
	expires_at(e, expires);
	memory_leave();
	put(where, r);
	return true;
}

/* Room for a value that is still growing. */
static size_t room_to_grow(size_t value)
{
	size_t more = value < ((size_t)1 << 20) ? value : (size_t)1 << 20;

	return value + more < VALUE_MAX ? value + more : VALUE_MAX;
}

bool store_append(struct place *where, struct text key, struct text tail)
{
	const struct entry *old;
	struct entry *e;
	size_t value;
	bool fits;
	ref r;

	if (where->at == REF_NONE)
		return store_set(where, key, tail, 0);
	memory_enter();
	old = store_entry(where);
	value = old->value + tail.n;
	fits = value <= old->room;
	if (fits) {
		e = memory_write(where->at);
		memcpy(e->bytes + e->key + e->value, tail.p, tail.n);
		e->value = (uint32_t)value;
	}
	memory_leave();
	if (fits)
		return true;
	r = entry_make(key, room_to_grow(value));
	if (r == REF_NONE)
		return false;
	memory_enter();
	old = store_entry(where);
	e = memory_write(r);
	e->expires = old->expires;
	memcpy(e->bytes + e->key, old->bytes + old->key, old->value);
	memcpy(e->bytes + e->key + old->value, tail.p, tail.n);
	e->value = (uint32_t)value;
	memory_leave();
	put(where, r);
	return true;
}

int64_t store_expires(const struct place *where)
{
	int64_t expires;

	memory_enter();
	expires = store_entry(where)->expires;
	memory_leave();
	return expires;
}

void store_expire_at(const struct place *where, int64_t expires)
{
	memory_enter();
	expires_at(memory_write(where->at), expires);
	memory_leave();
}

void store_clear(void)
{
	for (int i = 0; i < 2; i++)
		for (size_t b = 0; b < table[i].size; b++) {
			ref r = table[i].bucket[b], next;

			for (; r != REF_NONE; r = next) {
				memory_enter();
				next = ((const struct entry *)memory_read(r))->next;
				memory_leave();
				entry_free(r);
			}
			table[i].bucket[b] = REF_NONE;
		}
	store.entries = 0;
	store.expiring = 0;
	if (is_taking_over())
		end_taking_over();
	fit();
}

/* ---- done beside ---- */

/* In a scope: the first of a bucket that has expired. */
static bool find_expired(struct place *where)
{
	where->before = REF_NONE;
	for (where->at = *where->bucket; where->at != REF_NONE; where->at = store_entry(where)->next) {
		if (has_expired(store_entry(where)))
			return true;
		where->before = where->at;
	}
	return false;
}

static void sweep_bucket(size_t number)
{
	struct place where = { .bucket = &table[0].bucket[number] };
	bool found;

	do {
		memory_enter();
		found = find_expired(&where);
		memory_leave();
		if (!found)
			return;
		store_remove(&where);
		store.expired++;
	} while (!is_taking_over()); /* (its bucket may be in the new table by then) */
}

/* Handles have lower slots then, and those that many deleted keys had go back. */
static void rename_bucket(size_t number)
{
	struct place where = { .bucket = &table[0].bucket[number] };

	memory_enter();
	for (where.at = *where.bucket; where.at != REF_NONE; where.at = store_entry(&where)->next) {
		ref other = memory_rename(where.at);

		if (other != where.at)
			refer_to(&where, other);
		where.before = where.at = other;
	}
	memory_leave();
}

static int64_t microseconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void store_tend(int64_t microseconds)
{
	int64_t until = microseconds_now() + microseconds;
	size_t left = store.expiring > 0 ? table[0].size : 0;
	bool renaming = memory_renaming_gains() >= RENAME;

	while ((is_taking_over() || left > 0 || renaming) && microseconds_now() < until) {
		if (is_taking_over()) {
			take_over(AT_ONCE);
			continue;
		}
		for (int i = 0; i < AT_ONCE && renaming; i++)
			rename_bucket(renamed = (renamed + 1) & (table[0].size - 1));
		renaming = renaming && memory_renaming_gains() >= RENAME;
		for (int i = 0; i < AT_ONCE && left > 0 && !is_taking_over(); i++, left--) {
			swept = swept < table[0].size ? swept : 0;
			sweep_bucket(swept++);
		}
	}
}
