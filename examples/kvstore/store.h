/* SPDX-License-Identifier: MIT */
/* Keys and their values: a hash table with chains, that grows and shrinks a bucket at a time. One thread. */
#ifndef KVSTORE_STORE_H
#define KVSTORE_STORE_H

#include "memory.h"

#define VALUE_MAX ((size_t)512 << 20)
#define KEY_MAX ((size_t)512 << 20)

struct text {
	const char *p;
	size_t n;
};

/* A key with its value, in one object: the key's bytes, then the value's, stand behind it. (28 bytes, where each is worth
 * a megabyte per million keys: the hash is computed again when the table changes its size.) */
struct entry {
	ref next;        /* in its bucket */
	int64_t expires; /* milliseconds since 1970; 0: never */
	uint32_t key, value, room; /* bytes; of the value, how many would fit */
	char bytes[];
};

/* Where a key stands, or would: good until the next call that changes the store. */
struct place {
	uint32_t hash;
	ref *bucket;
	ref before; /* in the bucket; REF_NONE: at is the first */
	ref at;     /* REF_NONE: there is no such key */
};

extern struct store {
	size_t entries, expiring;
	int64_t now; /* milliseconds since 1970, as the server last looked */
	uint64_t expired;
} store;

bool store_begin(void);
void store_end(void);

/* Find a key. One that has expired is not there any more. */
void store_look(struct text key, struct place *where);

/* These keys will be looked for: what stands in memory for each is fetched, for all of them at the same time. At most
 * FORESEEN_MAX. */
#define FORESEEN_MAX 16
void store_foresee(const struct text *key, size_t count);

/* In a scope: what is there. */
static inline const struct entry *store_entry(const struct place *where)
{
	return memory_read(where->at);
}

static inline struct text store_value(const struct place *where)
{
	const struct entry *e = store_entry(where);

	return (struct text){ e->bytes + e->key, e->value };
}

/* These change what is there; not in a scope. False: no memory, and nothing changed. */
bool store_set(struct place *where, struct text key, struct text value, int64_t expires);
bool store_append(struct place *where, struct text key, struct text tail);
/* Of a key that is there: */
int64_t store_expires(const struct place *where);
void store_expire_at(const struct place *where, int64_t expires);
void store_remove(const struct place *where);
void store_clear(void);

/* What is done beside: expired keys go, tables become what they should be. About so many microseconds at most. */
void store_tend(int64_t microseconds);

#endif
