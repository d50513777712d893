/* SPDX-License-Identifier: MIT */
/* A cache for the shell: keys and values in a file, or in a supervisor's memory, shared by all processes that name it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quarry/quarry.h>

#include "store.h"
#include "stress.h"
#include "supervise.h"

static const char usage[] =
	"usage: cache [--limit SIZE] WHERE COMMAND [ARGUMENT...]\n"
	"\n"
	"WHERE is a file (made by set, incr, fill, serve and stress where there is none),\n"
	"@SOCKET (memory that a supervisor holds), or @fd (the same, inherited). SIZE is\n"
	"bytes of entries, for one that is made (64m): what was not used goes when it is\n"
	"full.\n"
	"\n"
	"  set KEY VALUE [SECONDS]  when it returns, it survives kill -9; SECONDS: how long\n"
	"  get KEY                  its value; status 1 where there is none\n"
	"  del KEY...               status 1 where there was none\n"
	"  incr KEY [N]             add to a number, and print it\n"
	"  ttl KEY                  milliseconds that it has left; 0: for ever\n"
	"  list [PREFIX]            keys, values, milliseconds\n"
	"  fill N [BYTES]           keys 0 to N-1 with values of so many bytes\n"
	"  info                     how much there is, and what became of it\n"
	"  serve                    commands from standard input, a line each\n"
	"  stress ID [OPS]          work that can be checked; tells what is done\n"
	"  verify KILLED LOG...     check that, by what was told (logs: ID or DIR/ID)\n"
	"\n"
	"       cache [--limit SIZE] supervise SOCKET [PROGRAM ARGUMENT...]\n"
	"\n"
	"Holds a cache's memory for others, and runs PROGRAM, anew when it is killed.\n"
	"Told to end, it has PROGRAM end first (five seconds, or a second SIGTERM: it is\n"
	"killed). Killed itself, it takes PROGRAM along; others who had the memory keep\n"
	"what nobody else finds again: the next supervisor begins with nothing.\n";

static int complain(const char *what)
{
	int error = errno;
	const char *text = quarry_error_text();

	fprintf(stderr, "cache: %s: %s%s%s%s\n", what, strerror(error), *text ? " (" : "", text, *text ? ")" : "");
	return 2;
}

/* 0: none. */
static uint64_t size_of(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	int shift = *end == 0 ? 0 : tolower(*end) == 'k' ? 10 : tolower(*end) == 'm' ? 20 : tolower(*end) == 'g' ? 30 : -1;

	if (end == text || *text == '-' || shift < 0 || (*end && end[1]) || n >> (40 - shift))
		return 0;
	return n << shift;
}

static void show(const char *bytes, size_t n, size_t most)
{
	for (size_t i = 0; i < n && i < most; i++) {
		if (isprint((unsigned char)bytes[i]) && bytes[i] != '\\')
			putchar(bytes[i]);
		else
			printf("\\x%02x", (unsigned char)bytes[i]);
	}
	if (n > most)
		printf("... (%zu bytes)", n);
}

struct listing {
	const char *prefix;
	char *out;
	size_t used, room;
	bool failed;
};

/* (The shard's lock is held: nothing is printed to who may be slow.) */
static void list_one(void *ctx, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t left)
{
	struct listing *l = ctx;
	size_t part = value_len < 61 ? value_len : 61, want = 4 * sizeof(size_t) + key_len + part;

	if (key_len < strlen(l->prefix) || memcmp(key, l->prefix, strlen(l->prefix)) != 0 || l->failed)
		return;
	if (l->room - l->used < want) {
		size_t room = (l->room + want) * 2;
		char *out = realloc(l->out, room);

		l->failed = !out;
		if (!out)
			return;
		l->out = out;
		l->room = room;
	}
	memcpy(l->out + l->used, (size_t[]){ key_len, part, value_len, (size_t)left }, 4 * sizeof(size_t));
	memcpy(l->out + l->used + 4 * sizeof(size_t), key, key_len);
	memcpy(l->out + l->used + 4 * sizeof(size_t) + key_len, value, part);
	l->used += want;
}

static int list(struct cache *c, const char *prefix)
{
	struct listing l = { .prefix = prefix };
	int rc = cache_each(c, list_one, &l);
	size_t n[4];

	for (size_t at = 0; at < l.used; at += sizeof(n) + n[0] + n[1]) {
		memcpy(n, l.out + at, sizeof(n));
		show(l.out + at + sizeof(n), n[0], n[0]);
		putchar('\t');
		show(l.out + at + sizeof(n) + n[0], n[2], n[1] < 60 ? n[1] : 60);
		if (n[3])
			printf("\t%zu", n[3]);
		putchar('\n');
	}
	free(l.out);
	return rc != 0 || l.failed ? complain("list") : 0;
}

static int info(struct cache *c)
{
	struct cache_stats s;
	quarry_mapped_info i;

	if (cache_stats_get(c, &s) != 0 || quarry_mapped_info_get(cache_heap(c), &i, sizeof(i)) != 0)
		return complain("info");
	printf("entries %llu\nbytes %llu\nlimit %llu\nhits %llu\nmisses %llu\nevicted %llu\nexpired %llu\n", (unsigned long long)s.entries,
	       (unsigned long long)s.bytes, (unsigned long long)s.limit, (unsigned long long)s.hits, (unsigned long long)s.misses,
	       (unsigned long long)s.evicted, (unsigned long long)s.expired);
	printf("processes %u\ndied %llu\ndied_with_a_shard %llu\nfile_bytes %llu\n", i.sessions, (unsigned long long)i.recovered,
	       (unsigned long long)s.locks_of_dead, (unsigned long long)i.bytes);
	return 0;
}

static int fill(struct cache *c, unsigned long n, unsigned long bytes)
{
	char key[32], *value = bytes <= CACHE_VALUE_MOST ? malloc(bytes + 1) : NULL;
	int rc = value ? 0 : -1;

	for (unsigned long i = 0; rc == 0 && i < n; i++) {
		memset(value, 'a' + (int)(i % 26), bytes);
		rc = cache_set(c, key, (size_t)snprintf(key, sizeof(key), "%lu", i), value, bytes, 0);
	}
	free(value);
	return rc != 0 ? complain("fill") : 0;
}

static int get(struct cache *c, const char *key)
{
	static char value[CACHE_VALUE_MOST];
	long n = cache_get(c, key, strlen(key), value, sizeof(value));

	if (n < 0)
		return errno == ENOENT ? 1 : complain("get");
	fwrite(value, 1, (size_t)n < sizeof(value) ? (size_t)n : sizeof(value), stdout);
	putchar('\n');
	return 0;
}

static int ttl_of(const char *text, uint64_t *ms)
{
	char *end;
	double s = strtod(text, &end);

	errno = EINVAL;
	if (end == text || *end || !(s > 0) || s > 1e9)
		return -1;
	*ms = (uint64_t)(s * 1000) + (s * 1000 < 1);
	return 0;
}

/* A number and nothing else. */
static bool is_number(const char *text, int64_t *n)
{
	char *end;

	errno = 0;
	*n = strtoll(text, &end, 10);
	return end != text && *end == 0 && errno == 0;
}

/* Those that have something to do where there is no cache yet. */
static bool makes_one(const char *what)
{
	static const char *const words[] = { "set", "incr", "fill", "serve", "stress" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(what, words[i]) == 0)
			return true;
	return false;
}

/* 2: an error, or no such command; 1: there is none. */
static int command(struct cache *c, int argc, char **argv)
{
	const char *what = argv[0], *key = argc > 1 ? argv[1] : "";
	uint64_t ms = 0;
	int64_t n = 1, bytes = 100;

	if (strcmp(what, "set") == 0 && (argc == 3 || (argc == 4 && ttl_of(argv[3], &ms) == 0)))
		return cache_set(c, key, strlen(key), argv[2], strlen(argv[2]), ms) != 0 ? complain("set") : 0;
	if (strcmp(what, "get") == 0 && argc == 2)
		return get(c, key);
	if (strcmp(what, "del") == 0 && argc >= 2) {
		int missing = 0, rc = 0;

		for (int i = 1; i < argc && rc >= 0; i++)
			missing |= (rc = cache_del(c, argv[i], strlen(argv[i]))) == 0;
		return rc < 0 ? complain("del") : missing;
	}
	if (strcmp(what, "incr") == 0 && (argc == 2 || (argc == 3 && is_number(argv[2], &n)))) {
		if (cache_incr(c, key, strlen(key), n, &n) != 0)
			return complain("incr");
		printf("%lld\n", (long long)n);
		return 0;
	}
	if (strcmp(what, "ttl") == 0 && argc == 2) {
		n = cache_ttl(c, key, strlen(key));
		if (n < 0)
			return errno == ENOENT ? 1 : complain("ttl");
		printf("%lld\n", (long long)n);
		return 0;
	}
	if (strcmp(what, "list") == 0 && argc <= 2)
		return list(c, key);
	if (strcmp(what, "fill") == 0 && is_number(key, &n) && n >= 0 &&
	    (argc == 2 || (argc == 3 && is_number(argv[2], &bytes) && bytes >= 0)))
		return fill(c, (unsigned long)n, (unsigned long)bytes);
	if (strcmp(what, "info") == 0 && argc == 1)
		return info(c);
	if (strcmp(what, "stress") == 0 && (argc == 2 || argc == 3) && strtoul(key, NULL, 10) > 0)
		return stress(c, strtoul(key, NULL, 10), argc == 3 ? strtoul(argv[2], NULL, 10) : 0);
	if (strcmp(what, "verify") == 0 && argc >= 3)
		return stress_verify(c, strtoul(key, NULL, 10), argv + 2);
	fprintf(stderr, "cache: no such command, or not so: %s; cache --help\n", what);
	return 2;
}

#define WORDS 64

/* Words by spaces; the third one of set is the rest of the line. NULL is behind the last. How many; -1: too many. */
static int split(char *line, char *words[WORDS + 1])
{
	int n = 0;

	for (char *at = line; *(at += strspn(at, " ")) != 0; n++) {
		if (n == WORDS)
			return -1;
		words[n] = at;
		at += n == 2 && strcmp(words[0], "set") == 0 ? strlen(at) : strcspn(at, " ");
		if (*at)
			*at++ = 0;
	}
	words[n] = NULL;
	return n;
}

/* 1, or 0 at the end; -1: it is too long, and none of it is a command. */
static int read_line(char *line, size_t size)
{
	int c;

	line[size - 1] = 1;
	if (!fgets(line, (int)size, stdin))
		return 0;
	if (line[size - 1] == 0 && line[size - 2] != '\n') { /* it is full */
		do
			c = getchar();
		while (c != '\n' && c != EOF);
		return -1;
	}
	line[strcspn(line, "\n")] = 0;
	return 1;
}

static int serve(struct cache *c)
{
	static char line[CACHE_VALUE_MOST + CACHE_KEY_MOST + 64];
	char *words[WORDS + 1];
	int n;

	while ((n = read_line(line, sizeof(line))) != 0) {
		if (n > 0)
			n = split(line, words);
		if (n != 0)
			printf("%s\n", (const char *[]){ "ok", "none", "error" }[n < 0 ? 2 : command(c, n, words) % 3]);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t limit = (uint64_t)64 << 20;
	struct cache *c;
	int rc;

	if (argc > 2 && strcmp(argv[1], "--limit") == 0) {
		limit = size_of(argv[2]);
		argc -= 2;
		argv += 2;
	}
	if (argc > 1 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc < 3 || limit < 1u << 16) {
		fputs(limit < 1u << 16 ? "cache: --limit: 64k at least\n" : usage, stderr);
		return 2;
	}
	if (strcmp(argv[1], "supervise") == 0)
		return supervise(argv[2], limit, argv + 3);
	c = cache_open(argv[1], makes_one(argv[2]) ? limit : 0);
	if (!c)
		return complain(argv[1]);
	rc = strcmp(argv[2], "serve") == 0 ? serve(c) : command(c, argc - 2, argv + 2);
	cache_close(c);
	return fflush(stdout) == 0 ? rc : 2;
}
