/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "store.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "supervise.h"

#define ROOT "cache"
#define TAG 0x63616368u
#define MAGIC 0x3165686361632d71u
#define SHARDS 16u

struct entry {
	quarry_off next;
	uint64_t hash;
	uint64_t expires_ms; /* of CLOCK_REALTIME, which goes on when the machine is off; 0: never */
	uint32_t key_len, value_len;
	uint64_t used;       /* since the hand last came by */
	char bytes[];        /* the key, the value */
};

struct shard {
	quarry_mapped_mutex lock;
	uint64_t count, bytes; /* of entries; changed in the same sets as the chains */
	uint64_t hand;         /* the next of its buckets to look for what can go */
	uint64_t hits, misses, evicted, expired, locks_of_dead;
};

struct head {
	uint64_t magic, buckets, limit, reserved;
	struct shard shards[SHARDS];
	quarry_off table[]; /* of buckets; bucket i is of shard i % SHARDS */
};

struct cache {
	quarry_mapped *heap;
	struct head *head;
	uint64_t buckets; /* as it was when it was checked: others can write to the head */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t hash_of(const char *key, size_t n)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)key[i]) * 0x100000001b3u;
	hash ^= hash >> 29;
	return hash * 0x9e3779b97f4a7c15u ^ hash >> 32;
}

/* ---- opening ---- */

/* One bucket for 256 bytes of the limit. */
static uint64_t buckets_for(uint64_t limit)
{
	uint64_t n = 1024;

	while (n < limit / 256 && n < 1u << 22)
		n *= 2;
	return n;
}

/* What is in the heap is checked once; offsets in it are, each time. */
static struct cache *take(quarry_mapped *heap)
{
	struct cache *c = heap ? malloc(sizeof(*c)) : NULL;
	uint32_t tag = 0;
	quarry_off off = heap ? quarry_mapped_root_get(heap, ROOT, &tag) : 0;
	struct head *head = off && off % _Alignof(struct head) == 0 ? quarry_mapped_ptr(heap, off, sizeof(*head)) : NULL;
	uint64_t buckets = head ? __atomic_load_n(&head->buckets, __ATOMIC_RELAXED) : 0;

	if (!heap)
		return NULL;
	if (!c || !head || tag != TAG || head->magic != MAGIC || (buckets & (buckets - 1)) != 0 || buckets > 1u << 22 || buckets < SHARDS ||
	    !quarry_mapped_ptr(heap, off, sizeof(*head) + buckets * sizeof(quarry_off))) {
		int error = c ? EMEDIUMTYPE : ENOMEM;

		free(c);
		(void)quarry_mapped_close(heap);
		errno = error;
		return NULL;
	}
	c->heap = heap;
	c->head = head;
	c->buckets = buckets;
	return c;
}

/* The table's root is put before the table is linked to it; the magic comes last. Where it fails, nothing is left. */
static quarry_mapped *make(const char *path, uint64_t limit)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = path ? QUARRY_MAPPED_DIRECT : QUARRY_MAPPED_VOLATILE,
				    .max_bytes = limit * 4 + ((uint64_t)256 << 20) };
	quarry_mapped *heap = quarry_mapped_create(path, &attr);
	uint64_t buckets = buckets_for(limit);
	struct head *head;
	int error;

	if (!heap)
		return NULL;
	if (quarry_mapped_root_put(heap, ROOT, 0, TAG) != 0)
		goto failed;
	head = quarry_mapped_alloc_into(heap, sizeof(*head) + buckets * sizeof(quarry_off), quarry_mapped_root_slot(heap, ROOT));
	if (!head)
		goto failed;
	head->buckets = buckets;
	head->limit = limit;
	head->magic = MAGIC;
	return heap;
failed:
	error = errno;
	if (path)
		(void)unlink(path);
	(void)quarry_mapped_close(heap);
	errno = error;
	return NULL;
}

/* Under another name first, which is nobody else's, so that nobody opens half of one; of several who make it at once, one's is it. (Who is
 * killed here leaves that name.) */
static quarry_mapped *make_file(const char *path, uint64_t limit)
{
	char beside[PATH_MAX];
	quarry_mapped *heap;
	uint64_t any;
	int rc;

	if (getrandom(&any, sizeof(any), 0) != sizeof(any))
		return NULL;
	if (snprintf(beside, sizeof(beside), "%s.%016llx.new", path, (unsigned long long)any) >= (int)sizeof(beside)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	heap = make(beside, limit);
	if (!heap)
		return NULL;
	rc = link(beside, path) == 0 ? 0 : errno;
	(void)unlink(beside);
	if (rc == 0)
		return heap;
	(void)quarry_mapped_close(heap);
	errno = rc;
	return rc == EEXIST ? quarry_mapped_open(path) : NULL;
}

struct cache *cache_open(const char *where, uint64_t limit)
{
	quarry_mapped *heap;
	int fd;

	if (where[0] == '@') {
		fd = strcmp(where, "@fd") == 0 ? supervised_fd() : supervisor_ask(where + 1);
		heap = fd < 0 ? NULL : quarry_mapped_attach(fd);
		if (fd >= 0)
			close(fd);
		return take(heap);
	}
	heap = quarry_mapped_open(where);
	if (!heap && errno == ENOENT && limit != 0)
		heap = make_file(where, limit);
	return take(heap);
}

struct cache *cache_volatile(uint64_t limit)
{
	return take(make(NULL, limit));
}

void cache_close(struct cache *c)
{
	if (c)
		(void)quarry_mapped_close(c->heap);
	free(c);
}

quarry_mapped *cache_heap(struct cache *c)
{
	return c->heap;
}

/* ---- entries; the shard's lock is held ---- */

/* Who died with it left the shard whole. */
static struct shard *enter(struct cache *c, uint64_t hash)
{
	struct shard *s = &c->head->shards[(hash & (c->buckets - 1)) % SHARDS];
	int rc = quarry_mapped_lock(c->heap, &s->lock);

	if (rc < 0)
		return NULL;
	s->locks_of_dead += rc == 1;
	return s;
}

static void leave(struct cache *c, struct shard *s)
{
	int error = errno;

	(void)quarry_mapped_unlock(c->heap, &s->lock);
	errno = error;
}

/* What an entry said when it was checked, which is read once: others have the memory too, and could write other lengths there since. */
struct seen {
	struct entry *at; /* NULL: there is none */
	uint32_t key_len, value_len;
	uint64_t expires_ms;
};

static const char *value_of(const struct seen *e)
{
	return e->at->bytes + e->key_len;
}

/* What an offset of the heap leads to; false with EUCLEAN where it is no entry. */
static bool entry_at(struct cache *c, quarry_off off, struct seen *seen)
{
	struct entry *e = off % _Alignof(struct entry) == 0 ? quarry_mapped_ptr(c->heap, off, sizeof(*e)) : NULL;

	*seen = (struct seen){ 0 };
	if (e) {
		seen->key_len = __atomic_load_n(&e->key_len, __ATOMIC_RELAXED);
		seen->value_len = __atomic_load_n(&e->value_len, __ATOMIC_RELAXED);
		seen->expires_ms = __atomic_load_n(&e->expires_ms, __ATOMIC_RELAXED);
		if (seen->key_len <= CACHE_KEY_MOST && seen->value_len <= CACHE_VALUE_MOST &&
		    quarry_mapped_ptr(c->heap, off, sizeof(*e) + seen->key_len + seen->value_len))
			seen->at = e;
	}
	if (!seen->at)
		errno = EUCLEAN;
	return seen->at != NULL;
}

static uint64_t bytes_of(const struct cache *c, const struct entry *e)
{
	return quarry_mapped_usable(c->heap, e);
}

static int gone(const struct seen *e, uint64_t now)
{
	return e->expires_ms != 0 && e->expires_ms <= now;
}

/* How many there can be in a chain, which may not go in a circle; and the count may be nonsense as well. */
static uint64_t longest(const struct cache *c, const struct shard *s)
{
	uint64_t room = c->heap->length / sizeof(struct entry);

	return s->count < room ? s->count : room;
}

/* The next of a chain of which `left` may come; false with EUCLEAN. */
static bool next_at(struct cache *c, quarry_off off, uint64_t *left, struct seen *e)
{
	if ((*left)-- != 0)
		return entry_at(c, off, e);
	e->at = NULL;
	errno = EUCLEAN;
	return false;
}

/* The word that leads to a key's entry, or to where it would be: the first of its chain; NULL with EUCLEAN. */
static quarry_off *find(struct cache *c, struct shard *s, const char *key, size_t n, uint64_t hash, struct seen *found)
{
	quarry_off *first = &c->head->table[hash & (c->buckets - 1)], *slot = first, off;
	uint64_t left = longest(c, s);

	while ((off = quarry_off_load(slot)) != 0) {
		if (!next_at(c, off, &left, found))
			return NULL;
		if (found->at->hash == hash && found->key_len == n && memcmp(found->at->bytes, key, n) == 0)
			return slot;
		slot = &found->at->next;
	}
	found->at = NULL;
	return first;
}

/* Take an entry out of its chain, and put another in, where there is one: all at once. What goes is freed. */
static int change(struct cache *c, struct shard *s, quarry_mapped_set *set, quarry_off *slot, struct entry *out, struct entry *in)
{
	uint64_t bytes = s->bytes, count = s->count;
	quarry_off first = *slot, to = in ? quarry_mapped_off(c->heap, in) : out->next;

	if (in)
		in->next = out ? out->next : first;
	bytes += (in ? bytes_of(c, in) : 0) - (out ? bytes_of(c, out) : 0);
	count += (in != NULL) - (uint64_t)(out != NULL);
	if (quarry_mapped_link(set, slot, first, to) != 0 || (out && quarry_mapped_unlink(set, out) != 0) ||
	    (bytes != s->bytes && quarry_mapped_link(set, &s->bytes, s->bytes, bytes) != 0) ||
	    (count != s->count && quarry_mapped_link(set, &s->count, s->count, count) != 0)) {
		int error = errno;

		quarry_mapped_cancel(set);
		errno = error;
		return -1;
	}
	return quarry_mapped_publish(set);
}

static int drop(struct cache *c, struct shard *s, quarry_off *slot, struct entry *e)
{
	quarry_mapped_set set;

	return quarry_mapped_begin(c->heap, &set) != 0 ? -1 : change(c, s, &set, slot, e, NULL);
}

/* What the hand finds in its bucket that was not used since it was there, or has had its time, goes. */
static int sweep(struct cache *c, struct shard *s, uint64_t now)
{
	uint64_t mine = c->buckets / SHARDS, bucket = s->hand++ % mine * SHARDS + (uint64_t)(s - c->head->shards);
	uint64_t left = longest(c, s);
	quarry_off *slot = &c->head->table[bucket], off;

	while ((off = quarry_off_load(slot)) != 0) {
		struct seen e;
		int expired;

		if (!next_at(c, off, &left, &e))
			return -1;
		expired = gone(&e, now);
		if (!expired && e.at->used) {
			e.at->used = 0;
			slot = &e.at->next;
			continue;
		}
		if (drop(c, s, slot, e.at) != 0)
			return -1;
		s->expired += expired != 0;
		s->evicted += expired == 0;
	}
	return 0;
}

/* In two turns of the hand all can go. */
static int make_room(struct cache *c, struct shard *s, uint64_t need)
{
	uint64_t most = c->head->limit / SHARDS, turns = c->buckets / SHARDS * 2, now = now_ms();

	if (need > most) {
		errno = E2BIG;
		return -1;
	}
	while (s->bytes + need > most && s->count > 0 && turns-- > 0) {
		if (sweep(c, s, now) != 0)
			return -1;
	}
	return 0;
}

/* ---- what it can do ---- */

static int too_long(size_t key_len, size_t value_len)
{
	if (key_len <= CACHE_KEY_MOST && value_len <= CACHE_VALUE_MOST)
		return 0;
	errno = E2BIG;
	return 1;
}

/* What an entry may come to have: a quarter more than was asked for, or a unit. */
static uint64_t memory_for(size_t size)
{
	return size + (size > 32768 ? 65536 : size / 4);
}

static int put(struct cache *c, struct shard *s, uint64_t hash, const char *key, size_t key_len, const char *value, size_t value_len,
	       uint64_t expires_ms)
{
	size_t size = sizeof(struct entry) + key_len + value_len;
	quarry_mapped_set set;
	struct seen old = { 0 };
	struct entry *e;
	quarry_off *slot;

	if (make_room(c, s, memory_for(size)) != 0)
		return -1;
	slot = find(c, s, key, key_len, hash, &old);
	if (!slot || quarry_mapped_begin(c->heap, &set) != 0)
		return -1;
	e = quarry_mapped_reserve(&set, size);
	if (!e) {
		int error = errno;

		quarry_mapped_cancel(&set);
		errno = error;
		return -1;
	}
	*e = (struct entry){ .hash = hash, .expires_ms = expires_ms, .key_len = (uint32_t)key_len, .value_len = (uint32_t)value_len,
			     .used = old.at != NULL };
	memcpy(e->bytes, key, key_len);
	memcpy(e->bytes + key_len, value, value_len);
	return change(c, s, &set, slot, old.at, e);
}

int cache_set(struct cache *c, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t ttl_ms)
{
	uint64_t hash = hash_of(key, key_len);
	struct shard *s = too_long(key_len, value_len) ? NULL : enter(c, hash);
	int rc;

	if (!s)
		return -1;
	rc = put(c, s, hash, key, key_len, value, value_len, ttl_ms ? now_ms() + ttl_ms : 0);
	leave(c, s);
	return rc;
}

/* The entry of a key, if its time is not over. */
static bool look(struct cache *c, struct shard *s, const char *key, size_t key_len, uint64_t hash, struct seen *e)
{
	quarry_off *slot = find(c, s, key, key_len, hash, e);

	if (!slot)
		return false;
	if (e->at && gone(e, now_ms())) {
		if (drop(c, s, slot, e->at) == 0)
			s->expired++;
		e->at = NULL;
	}
	if (!e->at)
		errno = ENOENT;
	return e->at != NULL;
}

long cache_get(struct cache *c, const char *key, size_t key_len, char *value, size_t size)
{
	uint64_t hash = hash_of(key, key_len);
	struct shard *s = enter(c, hash);
	struct seen e;
	long n = -1;

	if (!s)
		return -1;
	if (look(c, s, key, key_len, hash, &e)) {
		n = (long)e.value_len;
		memcpy(value, value_of(&e), e.value_len < size ? e.value_len : size);
		e.at->used = 1;
		s->hits++;
	} else {
		s->misses++;
	}
	leave(c, s);
	return n;
}

int64_t cache_ttl(struct cache *c, const char *key, size_t key_len)
{
	uint64_t hash = hash_of(key, key_len), now = now_ms();
	struct shard *s = enter(c, hash);
	int64_t left = -1;
	struct seen e;

	if (!s)
		return -1;
	if (look(c, s, key, key_len, hash, &e))
		left = e.expires_ms == 0 ? 0 : e.expires_ms > now ? (int64_t)(e.expires_ms - now) : 1;
	leave(c, s);
	return left;
}

int cache_del(struct cache *c, const char *key, size_t key_len)
{
	uint64_t hash = hash_of(key, key_len);
	struct shard *s = enter(c, hash);
	struct seen e = { 0 };
	quarry_off *slot;
	int rc = 0;

	if (!s)
		return -1;
	slot = find(c, s, key, key_len, hash, &e);
	if (!slot || (e.at && drop(c, s, slot, e.at) != 0))
		rc = -1;
	leave(c, s);
	return rc == 0 ? e.at != NULL : -1;
}

static int number_in(const struct seen *e, int64_t *n)
{
	char text[32] = { 0 }, *end;

	if (e->value_len == 0 || e->value_len >= sizeof(text))
		return -1;
	memcpy(text, value_of(e), e->value_len);
	errno = 0;
	*n = strtoll(text, &end, 10);
	return errno == 0 && *end == 0 && end == text + e->value_len ? 0 : -1;
}

int cache_incr(struct cache *c, const char *key, size_t key_len, int64_t by, int64_t *now)
{
	uint64_t hash = hash_of(key, key_len), expires = 0;
	struct shard *s = too_long(key_len, 0) ? NULL : enter(c, hash);
	struct seen e;
	int64_t n = 0;
	char text[32];
	int rc = 0;

	if (!s)
		return -1;
	if (look(c, s, key, key_len, hash, &e)) {
		expires = e.expires_ms;
		rc = number_in(&e, &n);
	} else if (errno != ENOENT) {
		rc = -1;
	}
	if (rc == 0 && __builtin_add_overflow(n, by, &n))
		rc = -1;
	if (rc != 0 && errno != EUCLEAN)
		errno = EINVAL;
	if (rc == 0)
		rc = put(c, s, hash, key, key_len, text, (size_t)snprintf(text, sizeof(text), "%lld", (long long)n), expires);
	leave(c, s);
	*now = n;
	return rc;
}

int cache_each(struct cache *c, cache_fn *fn, void *ctx)
{
	int rc = 0;

	for (unsigned k = 0; k < SHARDS && rc == 0; k++) {
		struct shard *s = enter(c, k);
		uint64_t now = now_ms(), most, left;

		if (!s)
			return -1;
		most = left = longest(c, s);
		for (uint64_t b = k; b < c->buckets && rc == 0; b += SHARDS) {
			for (quarry_off off = c->head->table[b]; off != 0 && rc == 0;) {
				struct seen e;

				rc = next_at(c, off, &left, &e) ? 0 : -1;
				off = e.at ? quarry_off_load(&e.at->next) : 0;
				if (e.at && !gone(&e, now))
					fn(ctx, e.at->bytes, e.key_len, value_of(&e), e.value_len,
					   e.expires_ms ? e.expires_ms - now : 0);
			}
		}
		if (rc == 0 && most - left != s->count)
			rc = -1;
		if (rc != 0)
			errno = EUCLEAN;
		leave(c, s);
	}
	return rc;
}

int cache_stats_get(struct cache *c, struct cache_stats *stats)
{
	*stats = (struct cache_stats){ .limit = c->head->limit };
	for (unsigned k = 0; k < SHARDS; k++) {
		struct shard *s = enter(c, k);

		if (!s)
			return -1;
		stats->entries += s->count;
		stats->bytes += s->bytes;
		stats->hits += s->hits;
		stats->misses += s->misses;
		stats->evicted += s->evicted;
		stats->expired += s->expired;
		stats->locks_of_dead += s->locks_of_dead;
		leave(c, s);
	}
	return 0;
}
