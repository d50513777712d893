/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS 300u
#define LONGEST 3000u
#define TOTAL "total"

static uint64_t state;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static size_t key_of(char key[64], unsigned long id, unsigned n)
{
	return (size_t)snprintf(key, 64, "s%lu-%u", id, n);
}

/* "SEQUENCE " and then as many letters as these two make it. */
static size_t value_of(char *value, unsigned long id, unsigned n, unsigned long seq)
{
	uint64_t x = (id * 1000003 + n) * 1000003 + seq;
	size_t at = (size_t)sprintf(value, "%lu ", seq), len;

	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	len = at + (x >> 40) % (n % 5 == 0 ? LONGEST : 60);
	while (at < len) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		value[at++] = (char)('a' + (x >> 59) % 26);
	}
	return at;
}

/* Which change of a key the cache's value is of; 0: none is there; -1: one that nobody wrote. */
static long sequence_in(struct cache *c, unsigned long id, unsigned n)
{
	char key[64], got[LONGEST + 64], want[LONGEST + 64];
	long len = cache_get(c, key, key_of(key, id, n), got, sizeof(got) - 1);
	long seq;

	if (len < 0)
		return errno == ENOENT ? 0 : -1;
	if (len >= (long)sizeof(got))
		return -1;
	got[len] = 0;
	seq = strtol(got, NULL, 10);
	return seq > 0 && value_of(want, id, n, (unsigned long)seq) == (size_t)len && memcmp(got, want, (size_t)len) == 0 ? seq : -1;
}

/* One line at one stroke: a process that is killed has written it or not. */
static int told(const char *line, int n)
{
	return n > 0 && write(STDOUT_FILENO, line, (size_t)n) == n ? 0 : -1;
}

static int wrong(const char *what, unsigned long id, unsigned n)
{
	fprintf(stderr, "cache: s%lu-%u: %s: %s\n", id, n, what, strerror(errno));
	return 3;
}

/* What a process does next, which follows from its id. */
struct op {
	unsigned n;       /* of the key */
	char what;        /* i, d, s: as it is told; or r: look at a key of `of` */
	unsigned long of;
};

static void begin(unsigned long id)
{
	state = id * 0x9e3779b97f4a7c15u + 1;
}

static struct op next_op(unsigned long id)
{
	unsigned n = (unsigned)(next() % KEYS), what = (unsigned)(next() % 16);
	struct op op = { n, what == 0 ? 'i' : what <= 2 ? 'd' : what <= 8 ? 'r' : 's', 0 };

	if (op.what == 'r')
		op.of = 1 + next() % id;
	return op;
}

static int step(struct cache *c, unsigned long id, unsigned long *seq)
{
	struct op op = next_op(id);
	char key[64], value[LONGEST + 64], line[96];
	size_t key_len = key_of(key, id, op.n);
	int64_t now;

	if (op.what == 'r')
		return sequence_in(c, op.of, op.n) < 0 ? wrong("nobody wrote this value", op.of, op.n) : 0;
	if (op.what == 'i') {
		if (cache_incr(c, TOTAL, strlen(TOTAL), 1, &now) != 0)
			return wrong("incr", id, op.n);
		return told(line, sprintf(line, "i\n"));
	}
	++*seq;
	if (op.what == 'd' && cache_del(c, key, key_len) < 0)
		return wrong("del", id, op.n);
	if (op.what == 's' && cache_set(c, key, key_len, value, value_of(value, id, op.n, *seq), 0) != 0)
		return wrong("set", id, op.n);
	return told(line, sprintf(line, "%c %u %lu\n", op.what, op.n, *seq));
}

int stress(struct cache *c, unsigned long id, unsigned long ops)
{
	unsigned long seq = 0; /* of all its keys */
	int rc = 0;

	begin(id);
	for (unsigned long i = 0; rc == 0 && (ops == 0 || i < ops); i++)
		rc = step(c, id, &seq);
	return rc;
}

/* ---- afterwards ---- */

/* What a log makes of the keys: which change each has last (0: it is not there), and the one that comes behind the last that was told: who
 * was killed may have been in it. */
struct replay {
	unsigned long id, seq, counted;
	unsigned long keys[KEYS];
	struct op in_flight;
};

static struct op next_change(unsigned long id)
{
	struct op op;

	do
		op = next_op(id);
	while (op.what == 'r');
	return op;
}

/* A line for each change, in their order. (Of a line that was cut off, nothing.) */
static int replay_log(FILE *f, struct replay *r)
{
	char line[96], want[96];

	begin(r->id);
	r->in_flight = next_change(r->id);
	while (fgets(line, sizeof(line), f) && strchr(line, '\n')) {
		struct op op = r->in_flight;

		if (op.what == 'i')
			r->counted++;
		else
			r->keys[op.n] = ++r->seq * (op.what == 's');
		sprintf(want, "%c %u %lu\n", op.what, op.n, r->seq);
		if (strcmp(line, op.what == 'i' ? "i\n" : want) != 0) {
			errno = EUCLEAN;
			return -1;
		}
		r->in_flight = next_change(r->id);
	}
	return 0;
}

static int read_log(const char *path, struct replay *r)
{
	const char *name = strrchr(path, '/');
	FILE *f = fopen(path, "r");
	int rc;

	r->id = strtoul(name ? name + 1 : path, NULL, 10);
	errno = f ? EUCLEAN : errno;
	rc = f && r->id ? replay_log(f, r) : -1;
	if (f)
		fclose(f);
	return rc;
}

struct verdict {
	unsigned long counted, keys;
	unsigned long done;     /* calls in which somebody was killed, and which were done */
	unsigned long counting; /* calls in which somebody may have been killed, and which count */
	int bad;
};

static void verify_log(struct cache *c, const char *path, struct verdict *v)
{
	struct replay r = { 0 };

	if (read_log(path, &r) != 0) {
		fprintf(stderr, "cache: %s: %s\n", path, errno == EUCLEAN ? "it is no log of this process" : strerror(errno));
		v->bad = 1;
		return;
	}
	v->counted += r.counted;
	v->counting += r.in_flight.what == 'i';
	for (unsigned n = 0; n < KEYS; n++) {
		long is = sequence_in(c, r.id, n), may = r.in_flight.what == 's' ? (long)r.seq + 1 : 0;

		v->keys += r.keys[n] != 0;
		if (is == (long)r.keys[n])
			continue;
		if (r.in_flight.what != 'i' && n == r.in_flight.n && is == may) {
			v->done++;
			continue;
		}
		fprintf(stderr, "cache: %s: key %u: is %ld, was told %lu\n", path, n, is, r.keys[n]);
		v->bad = 1;
	}
}

/* What made room for others is not there, and not lost. */
static int nothing_went(struct cache *c)
{
	struct cache_stats s;

	if (cache_stats_get(c, &s) != 0) {
		fprintf(stderr, "cache: %s\n", strerror(errno));
		return 0;
	}
	if (s.evicted == 0)
		return 1;
	fprintf(stderr, "cache: it was full, and %llu entries went: a larger --limit, or less to do\n", (unsigned long long)s.evicted);
	return 0;
}

int stress_verify(struct cache *c, unsigned long killed, char **logs)
{
	unsigned long read = 0, total;
	struct verdict v = { 0 };
	char text[32] = "";

	if (!nothing_went(c))
		return 2;
	for (; *logs; logs++, read++)
		verify_log(c, *logs, &v);
	if (cache_get(c, TOTAL, strlen(TOTAL), text, sizeof(text) - 1) < 0)
		text[0] = 0;
	total = strtoul(text, NULL, 10);
	if (total < v.counted || total - v.counted > v.counting) {
		fprintf(stderr, "cache: %lu was counted, %lu told, and %lu may have been counting\n", total, v.counted, v.counting);
		v.bad = 1;
	} else if (v.done + (total - v.counted) > killed) {
		fprintf(stderr, "cache: %lu calls that were not told are done, %lu were killed\n", v.done + (total - v.counted), killed);
		v.bad = 1;
	}
	printf("%lu processes, %lu keys, %lu counted: %s\n", read, v.keys, v.counted, v.bad ? "LOST" : "all there");
	return v.bad;
}
