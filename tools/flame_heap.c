/* SPDX-License-Identifier: MIT */
/* The text of gperftools: a line for each stack, with the samples' own figures, and /proc/PID/maps behind them; and
 * jemalloc's, with the figures on a line of their own for all threads, which is followed by one for each. */
#include "tools/flame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct heap {
	struct flame_profile *p;
	double mean; /* 0: nothing is to be weighed */
	bool jemalloc;
};

/* ---- numbers ---- */

static bool digits(char **at, int base, uint64_t *n)
{
	char *end;

	*at += strspn(*at, " ");
	if (!(**at >= '0' && **at <= '9') && !(base == 16 && ((**at | 32) >= 'a' && (**at | 32) <= 'f')))
		return false;
	*n = strtoull(*at, &end, base); /* saturates */
	*at = end;
	return true;
}

static bool sign(char **at, char c)
{
	*at += strspn(*at, " ");
	if (**at != c)
		return false;
	++*at;
	return true;
}

/* "3: 4096 [7: 9000]": in use, and in brackets allocated. */
static bool figures(char **at, uint64_t values[FLAME_VALUES])
{
	return digits(at, 10, &values[FLAME_OBJECTS]) && sign(at, ':') && digits(at, 10, &values[FLAME_BYTES]) &&
	       sign(at, '[') && digits(at, 10, &values[FLAME_ALLOCATED_OBJECTS]) && sign(at, ':') &&
	       digits(at, 10, &values[FLAME_ALLOCATED_BYTES]) && sign(at, ']');
}

static uint64_t scaled(uint64_t n, double by)
{
	double product = (double)n * by + .5;

	return product < 9e18 ? (uint64_t)product : (uint64_t)INT64_MAX;
}

/* A sample of s bytes was taken with the probability 1 - exp(-s / mean). */
static void weigh(const struct heap *h, uint64_t *objects, uint64_t *bytes)
{
	double by;

	if (h->mean <= 0 || *objects == 0 || *bytes == 0)
		return;
	by = -1 / expm1(-((double)*bytes / (double)*objects) / h->mean);
	*objects = scaled(*objects, by);
	*bytes = scaled(*bytes, by);
}

/* ---- stacks ---- */

static bool read_figures(struct heap *h, struct flame_sample *s, char **at)
{
	if (!figures(at, s->values))
		return flame_fail(h->p, "a line of a heap profile that has no figures");
	weigh(h, &s->values[FLAME_OBJECTS], &s->values[FLAME_BYTES]);
	weigh(h, &s->values[FLAME_ALLOCATED_OBJECTS], &s->values[FLAME_ALLOCATED_BYTES]);
	return true;
}

/* Return addresses: the call is before. */
static bool read_addresses(struct heap *h, char *at)
{
	uint64_t address;

	while (digits(&at, 16, &address))
		if (!flame_add_frame(h->p, flame_place_at(h->p, address - (address > 0), FLAME_NONE)))
			return false;
	at += strspn(at, " \r");
	return *at == '\0' || flame_fail(h->p, "a stack with something that is no address");
}

static bool read_stack(struct heap *h, char *at)
{
	struct flame_sample *s = flame_add_sample(h->p);

	if (!s || !read_figures(h, s, &at))
		return false;
	return sign(&at, '@') ? read_addresses(h, at) : flame_fail(h->p, "a line of a heap profile without a stack");
}

/* "@ 0x1 0x2", and under it "  t*: 3: 4096 [0: 0]" and the same of threads; before the first stack, of all. */
static bool read_of_jemalloc(struct heap *h, char *at)
{
	if (sign(&at, '@'))
		return flame_add_sample(h->p) && read_addresses(h, at);
	if (!sign(&at, 't'))
		return flame_fail(h->p, "a line of a heap profile that is neither a stack nor figures");
	if (!sign(&at, '*') || h->p->sample_count == 0)
		return true;
	return sign(&at, ':') ? read_figures(h, &h->p->samples[h->p->sample_count - 1], &at) :
				flame_fail(h->p, "a line of a heap profile that has no figures");
}

/* ---- what was loaded ---- */

/* "FROM-TO r-xp OFFSET DEVICE INODE  PATH". What is none is left alone: other writers have other lines here. */
static bool read_map(struct flame_profile *p, char *at)
{
	struct flame_module m = { .from = 0 };
	uint64_t inode;

	if (!digits(&at, 16, &m.from) || !sign(&at, '-') || !digits(&at, 16, &m.to))
		return true;
	at += strspn(at, " ");
	if (strlen(at) < 5 || at[2] != 'x')
		return true;
	at += 4;
	if (!digits(&at, 16, &m.offset))
		return true;
	at += strspn(at, " ");
	at += strcspn(at, " ");
	if (!digits(&at, 10, &inode))
		return true;
	at += strspn(at, " ");
	return flame_add_module(p, &m, at, strlen(at), "", 0);
}

static int by_start(const void *a, const void *b)
{
	const struct flame_module *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

static uint32_t module_at(const struct flame_profile *p, uint64_t address)
{
	size_t from = 0, to = p->module_count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (address < p->modules[middle].from)
			to = middle;
		else if (address < p->modules[middle].to)
			return (uint32_t)middle;
		else
			from = middle + 1;
	}
	return FLAME_NONE;
}

static void find_modules(struct flame_profile *p)
{
	if (p->module_count)
		qsort(p->modules, p->module_count, sizeof(p->modules[0]), by_start);
	for (size_t i = 0; i < p->place_count; i++)
		p->places[i].module = module_at(p, p->places[i].address);
}

/* ---- the whole ---- */

static bool read_head(struct heap *h, char *line)
{
	uint64_t values[FLAME_VALUES];
	char *at = line;

	h->jemalloc = strncmp(at, "heap_v2/", 8) == 0;
	at += h->jemalloc ? 0 : strlen("heap profile:");
	if (!h->jemalloc && (!figures(&at, values) || !sign(&at, '@')))
		return flame_fail(h->p, "the first line of a heap profile has no figures");
	at += strspn(at, " ");
	if (strncmp(at, "heap_v2/", 8) == 0) {
		at += 8;
		if (!digits(&at, 10, &h->p->mean))
			return flame_fail(h->p, "heap_v2/ without a number");
		h->mean = h->p->mean > 1 ? (double)h->p->mean : 0;
		return true;
	}
	return strncmp(at, "heapprofile", 11) == 0 || flame_fail(h->p, "a heap profile that is not heap_v2");
}

/* jemalloc writes noughts in the brackets unless it was told to keep them. */
static void see_whether_sums_were_kept(struct flame_profile *p)
{
	for (size_t i = 0; i < p->sample_count; i++)
		if (p->samples[i].values[FLAME_ALLOCATED_BYTES] > 0)
			return;
	if (p->sample_count == 0)
		return;
	p->has[FLAME_ALLOCATED_OBJECTS] = p->has[FLAME_ALLOCATED_BYTES] = false;
	p->not_allocated = " (jemalloc keeps that with prof_accum:true alone)";
}

/* Writers end with what was loaded, line by line; where the kernel does not tell of that, there are no lines. */
static bool check_end(struct flame_profile *p, bool maps, bool ends)
{
	if (!maps)
		return flame_fail(p, "a heap profile that was cut: no MAPPED_LIBRARIES behind its stacks");
	return ends || flame_fail(p, "a heap profile that was cut: its last line has no end");
}

bool flame_read_heap(struct flame_profile *p, char *text, size_t length)
{
	struct heap h = { .p = p };
	char *end = text + length, *next = text;
	bool maps = false, ends = length > 0 && end[-1] == '\n';

	p->format = "heap_v2";
	for (int i = 0; i < FLAME_VALUES; i++)
		p->has[i] = true;
	for (char *line = text; line < end; line = next) {
		size_t n = strcspn(line, "\n");

		next = line + n + 1;
		line[n] = '\0';
		if (line == text ? !read_head(&h, line) : maps ? !read_map(p, line) : false)
			return false;
		if (line == text || maps || line[strspn(line, " \r")] == '\0')
			continue;
		maps = strncmp(line, "MAPPED_LIBRARIES:", 17) == 0;
		if (!maps && !(h.jemalloc ? read_of_jemalloc(&h, line) : read_stack(&h, line)))
			return false;
	}
	if (!check_end(p, maps, ends))
		return false;
	if (h.jemalloc)
		see_whether_sums_were_kept(p);
	find_modules(p);
	return true;
}
