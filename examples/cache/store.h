/* SPDX-License-Identifier: MIT */
/* A cache of keys and values in a mapped heap: processes share it, and what they put there outlives them.
 *
 * In the heap: one object, which the root "cache" leads to, has the table of buckets and 16 shards; a bucket belongs to a shard, and is a
 * chain of entries. An entry is not changed once it is there, but for the mark that it was used: a new value is a new entry. What is linked,
 * counted and freed is one set of quarry_mapped (all of it happens, or none), so a process may be killed at any instruction: a shard is
 * whole whenever its lock is had, whoever had it before. */
#ifndef CACHE_STORE_H
#define CACHE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include <quarry/mapped.h>

struct cache;

#define CACHE_KEY_MOST 1024u
#define CACHE_VALUE_MOST (1u << 20)

/* Open a cache: in a file, which is made where there is none; "@SOCKET": in the memory that a supervisor holds (supervise.h); "@fd": in the
 * memory that CACHE_FD, of the environment, is a descriptor of. limit: bytes of entries, for one that is made; 0: none is (ENOENT). NULL with errno. */
struct cache *cache_open(const char *where, uint64_t limit);
/* One in memory with no name. */
struct cache *cache_volatile(uint64_t limit);
void cache_close(struct cache *c);
quarry_mapped *cache_heap(struct cache *c);

/* 0, or -1 with errno. ttl_ms 0: for ever. E2BIG where the key or the value is longer than may be, or where the memory that they may come
 * to have is more than a sixteenth of the limit: they and 40 bytes, and a quarter of that, or 64 KiB where it is more than 32 KiB. When
 * it returns, it outlives this process. */
int cache_set(struct cache *c, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t ttl_ms);
/* How long the value is, of which up to size bytes are copied; -1 with ENOENT. */
long cache_get(struct cache *c, const char *key, size_t key_len, char *value, size_t size);
/* How many milliseconds are left: 0 for ever; -1 with ENOENT. */
int64_t cache_ttl(struct cache *c, const char *key, size_t key_len);
/* 1, or 0 where there was none; -1. */
int cache_del(struct cache *c, const char *key, size_t key_len);
/* A number in text, one that is not there being 0: it is `by` more, and *now. -1 with EINVAL where it is no number. */
int cache_incr(struct cache *c, const char *key, size_t key_len, int64_t by, int64_t *now);

/* All that is there, in no order; fn must not use the cache. -1 where something in it cannot be. */
typedef void cache_fn(void *ctx, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t left_ms);
int cache_each(struct cache *c, cache_fn *fn, void *ctx);

struct cache_stats {
	uint64_t entries, bytes, limit, hits, misses, evicted, expired;
	uint64_t locks_of_dead; /* how often a lock's holder had died */
};
int cache_stats_get(struct cache *c, struct cache_stats *stats);

#endif
