/* SPDX-License-Identifier: MIT */
/* Pattern: a minimiser of two-level logic. Functions are covers, growing arrays of cubes, each cube a small block of
 * its own; recursion makes cofactors and complements of covers, copies cubes from one to another and frees what it
 * came from, so most covers live as long as a call and all sizes from 16 bytes to some KiB come and go at once.
 * Source: R. Brayton, G. Hachtel, C. McMullen, A. Sangiovanni-Vincentelli, "Logic Minimization Algorithms for VLSI
 * Synthesis", 1984 (espresso), long a program of the allocator literature: B. Zorn, D. Grunwald, "Empirical
 * Measurements of Six Allocation-intensive C Programs", 1992. */
#include "bench.h"

#define EVEN 0x5555555555555555u
#define UNIVERSE UINT64_MAX
#define MOST_INPUTS 16

/* Two bits an input: it may be 0; it may be 1. Inputs that there are not may be both. */
struct cube {
	uint64_t part;
	int covered; /* by another one */
};

struct cover {
	uint32_t count, space;
	struct cube **cube;
};

static uint64_t widest = 13, cubes = 120;
static const struct bench_extra extra[] = {
	{ "inputs", &widest, "of the widest functions, 6 to 16" },
	{ "cubes", &cubes, "that a function is made of" },
};
static struct bench bench = {
	.name = "logic", .op = "one function minimised", .ops = 500, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static struct cube *new_cube(uint64_t part)
{
	struct cube *c = bench_alloc(sizeof(*c));

	c->part = part;
	c->covered = 0;
	return c;
}

static unsigned int literal(const struct cube *c, uint32_t input)
{
	return c->part >> 2 * input & 3;
}

static void set_literal(struct cube *c, uint32_t input, unsigned int to)
{
	c->part = (c->part & ~((uint64_t)3 << 2 * input)) | (uint64_t)to << 2 * input;
}

/* The inputs that tell two cubes apart. */
static uint64_t apart(const struct cube *a, const struct cube *b)
{
	uint64_t both = a->part & b->part;

	return ~(both | both >> 1) & EVEN;
}

static int contains(const struct cube *whole, const struct cube *part)
{
	return (part->part & ~whole->part) == 0;
}

/* How many inputs it depends on. */
static uint32_t literals(const struct cube *c)
{
	return (uint32_t)__builtin_popcountll(~c->part);
}

static struct cover *new_cover(uint32_t space)
{
	struct cover *f = bench_alloc(sizeof(*f));

	f->count = 0;
	f->space = space;
	f->cube = space ? bench_alloc(space * sizeof(struct cube *)) : NULL;
	return f;
}

static void append(struct cover *f, struct cube *c)
{
	if (f->count == f->space) {
		f->space = f->space ? 2 * f->space : 4;
		f->cube = bench_grow(f->cube, f->space * sizeof(struct cube *));
	}
	f->cube[f->count++] = c;
}

static void drop_cover(struct cover *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		free(f->cube[i]);
	free(f->cube);
	free(f);
}

static struct cover *copy_cover(const struct cover *from)
{
	struct cover *f = new_cover(from->count);

	for (uint32_t i = 0; i < from->count; i++)
		append(f, new_cube(from->cube[i]->part));
	return f;
}

/* Frees the cubes that are marked as covered. */
static void sweep(struct cover *f)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < f->count; i++) {
		if (f->cube[i]->covered)
			free(f->cube[i]);
		else
			f->cube[kept++] = f->cube[i];
	}
	f->count = kept;
}

/* Drops each cube that one other contains. */
static void drop_contained(struct cover *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		for (uint32_t j = 0; j < f->count && !f->cube[i]->covered; j++)
			f->cube[i]->covered = j != i && !f->cube[j]->covered && contains(f->cube[j], f->cube[i]);
	sweep(f);
}

/* What f is where p holds; cubes marked as covered, and the one at skip, are not of it. */
static void add_cofactor(struct cover *to, const struct cover *f, const struct cube *p, uint32_t skip)
{
	for (uint32_t i = 0; i < f->count; i++) {
		const struct cube *c = f->cube[i];

		if (i != skip && !c->covered && !apart(c, p))
			append(to, new_cube(c->part | ~p->part));
	}
}

static struct cover *cofactor(const struct cover *f, const struct cube *p)
{
	struct cover *g = new_cover(0);

	add_cofactor(g, f, p, UINT32_MAX);
	return g;
}

/* The input to part the function by: the one most cubes depend on, of those that occur in both polarities if any
 * does; both says so. */
static uint32_t choose_input(uint32_t inputs, const struct cover *f, int *both)
{
	uint32_t best = 0, most = 0, n[4];

	*both = 0;
	for (uint32_t v = 0; v < inputs; v++) {
		n[1] = n[2] = n[3] = 0;
		for (uint32_t i = 0; i < f->count; i++)
			n[literal(f->cube[i], v)]++;
		if ((n[1] && n[2]) < *both)
			continue;
		if ((n[1] && n[2]) > *both || n[1] + n[2] > most) {
			best = v;
			most = n[1] + n[2];
			*both = n[1] && n[2];
		}
	}
	return best;
}

static int has_universe(const struct cover *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		if (literals(f->cube[i]) == 0)
			return 1;
	return 0;
}

/* Whether f is always true. */
static int is_tautology(uint32_t inputs, const struct cover *f)
{
	int both, yes = 1;
	uint32_t v;

	if (has_universe(f))
		return 1;
	v = choose_input(inputs, f, &both);
	/* A cover in which each input has one polarity only is true everywhere only by a cube that is. */
	if (!both)
		return 0;
	for (unsigned int value = 1; value <= 2 && yes; value++) {
		struct cube *half = new_cube(UNIVERSE);
		struct cover *g;

		set_literal(half, v, value);
		g = cofactor(f, half);
		yes = is_tautology(inputs, g);
		drop_cover(g);
		free(half);
	}
	return yes;
}

/* Where a single cube does not hold: a cube for each of its literals. */
static void complement_cube(uint32_t inputs, const struct cube *c, struct cover *to)
{
	for (uint32_t v = 0; v < inputs; v++) {
		struct cube *other;

		if (literal(c, v) == 3)
			continue;
		other = new_cube(UNIVERSE);
		set_literal(other, v, 3 ^ literal(c, v));
		append(to, other);
	}
}

/* The halves' complements under one cover; what is in both does not depend on the input. */
static struct cover *merge(struct cover *half[2], uint32_t v)
{
	struct cover *all = new_cover(half[0]->count + half[1]->count);

	for (uint32_t i = 0; i < half[0]->count; i++) {
		struct cube *c = half[0]->cube[i];
		int in_both = 0;

		for (uint32_t j = 0; j < half[1]->count && !in_both; j++) {
			struct cube *d = half[1]->cube[j];

			in_both = !d->covered && c->part == d->part;
			d->covered |= in_both;
		}
		c = new_cube(c->part);
		if (!in_both)
			set_literal(c, v, 1);
		append(all, c);
	}
	sweep(half[1]);
	for (uint32_t j = 0; j < half[1]->count; j++) {
		struct cube *d = new_cube(half[1]->cube[j]->part);

		set_literal(d, v, 2);
		append(all, d);
	}
	drop_cover(half[0]);
	drop_cover(half[1]);
	return all;
}

static struct cover *complement(uint32_t inputs, const struct cover *f)
{
	struct cover *half[2], *all;
	uint32_t v;
	int both;

	if (f->count == 0 || f->count == 1 || has_universe(f)) {
		all = new_cover(0);
		if (f->count == 0)
			append(all, new_cube(UNIVERSE));
		else if (!has_universe(f))
			complement_cube(inputs, f->cube[0], all);
		return all;
	}
	v = choose_input(inputs, f, &both);
	for (unsigned int value = 1; value <= 2; value++) {
		struct cube *p = new_cube(UNIVERSE);
		struct cover *g;

		set_literal(p, v, value);
		g = cofactor(f, p);
		half[value - 1] = complement(inputs, g);
		drop_cover(g);
		free(p);
	}
	all = merge(half, v);
	drop_contained(all);
	return all;
}

static int meets(const struct cover *f, const struct cube *c)
{
	for (uint32_t i = 0; i < f->count; i++)
		if (!apart(f->cube[i], c))
			return 1;
	return 0;
}

/* Cubes with the fewest literals first, or the most; by insertion, as covers are short. */
static void sort(struct cover *f, int most_first)
{
	for (uint32_t i = 1; i < f->count; i++) {
		struct cube *c = f->cube[i];
		uint32_t n = literals(c), j = i;

		for (; j && (most_first ? literals(f->cube[j - 1]) < n : literals(f->cube[j - 1]) > n); j--)
			f->cube[j] = f->cube[j - 1];
		f->cube[j] = c;
	}
}

/* Makes each cube as large as the off-set lets it, and drops those that it then contains. The literals that most other
 * cubes lack are tried first. */
static void expand(uint32_t inputs, struct cover *f, const struct cover *off)
{
	sort(f, 0);
	for (uint32_t i = 0; i < f->count; i++) {
		uint32_t free_of[MOST_INPUTS], tried = 0;

		if (f->cube[i]->covered)
			continue;
		for (uint32_t v = 0; v < inputs; v++) {
			free_of[v] = 0;
			for (uint32_t j = 0; j < f->count; j++)
				free_of[v] += (literal(f->cube[j], v) & ~literal(f->cube[i], v)) != 0;
		}
		for (uint32_t n = literals(f->cube[i]); n > 0; n--) {
			uint32_t best = UINT32_MAX;
			struct cube wider = *f->cube[i];

			for (uint32_t v = 0; v < inputs; v++)
				if (literal(f->cube[i], v) != 3 && !(tried >> v & 1) &&
				    (best == UINT32_MAX || free_of[v] > free_of[best]))
					best = v;
			tried |= 1u << best;
			set_literal(&wider, best, 3);
			if (!meets(off, &wider))
				*f->cube[i] = wider;
		}
		for (uint32_t j = 0; j < f->count; j++)
			if (j != i && contains(f->cube[i], f->cube[j]))
				f->cube[j]->covered = 1;
	}
	sweep(f);
}

/* What the others, and where the function is free, make of the place of cube i. */
static struct cover *rest_within(const struct cover *f, const struct cover *free_set, uint32_t i)
{
	struct cover *rest = new_cover(f->count);

	add_cofactor(rest, f, f->cube[i], i);
	add_cofactor(rest, free_set, f->cube[i], UINT32_MAX);
	return rest;
}

/* Drops, one after the other, the cubes that the others cover together. */
static void irredundant(uint32_t inputs, struct cover *f, const struct cover *free_set)
{
	sort(f, 1);
	for (uint32_t i = 0; i < f->count; i++) {
		struct cover *rest = rest_within(f, free_set, i);

		f->cube[i]->covered = is_tautology(inputs, rest);
		drop_cover(rest);
	}
	sweep(f);
}

/* Makes each cube as small as the others let it: the smallest around what it alone covers. */
static void reduce(uint32_t inputs, struct cover *f, const struct cover *free_set)
{
	sort(f, 0);
	for (uint32_t i = 0; i < f->count; i++) {
		struct cover *rest = rest_within(f, free_set, i), *alone = complement(inputs, rest);
		uint64_t around = 0;

		for (uint32_t j = 0; j < alone->count; j++)
			around |= alone->cube[j]->part;
		f->cube[i]->covered = alone->count == 0;
		f->cube[i]->part &= around;
		drop_cover(rest);
		drop_cover(alone);
	}
	sweep(f);
}

static uint64_t cost(const struct cover *f)
{
	uint64_t sum = (uint64_t)f->count << 32;

	for (uint32_t i = 0; i < f->count; i++)
		sum += literals(f->cube[i]);
	return sum;
}

static struct cover *minimise(uint32_t inputs, const struct cover *on, const struct cover *free_set)
{
	struct cover *both = copy_cover(on), *off, *best, *next;

	for (uint32_t i = 0; i < free_set->count; i++)
		append(both, new_cube(free_set->cube[i]->part));
	off = complement(inputs, both);
	drop_cover(both);
	best = copy_cover(on);
	expand(inputs, best, off);
	irredundant(inputs, best, free_set);
	for (;;) {
		next = copy_cover(best);
		reduce(inputs, next, free_set);
		expand(inputs, next, off);
		irredundant(inputs, next, free_set);
		if (cost(next) >= cost(best))
			break;
		drop_cover(best);
		best = next;
	}
	drop_cover(next);
	drop_cover(off);
	return best;
}

/* Random cubes of three literals to a few more than half of all; in a unate function each input has one polarity. */
static struct cover *make_function(struct bench_worker *w, uint32_t inputs, uint32_t count, int unate)
{
	struct cover *f = new_cover(0);
	uint64_t polarity = bench_random(&w->random);

	while (f->count < count) {
		struct cube *c = new_cube(UNIVERSE);

		for (uint32_t n = 3 + bench_below(&w->random, inputs / 2); n > 0; n--) {
			uint32_t v = bench_below(&w->random, inputs);

			if (!unate)
				polarity = bench_random(&w->random);
			set_literal(c, v, 1 + (polarity >> v & 1));
		}
		append(f, c);
	}
	drop_contained(f);
	return f;
}

/* Parts cubes in halves, so that the minimiser has something to find again. */
static void shatter(struct bench_worker *w, uint32_t inputs, struct cover *f, uint32_t count)
{
	for (uint32_t tries = 4 * count; f->count < count && tries > 0; tries--) {
		uint32_t v = bench_below(&w->random, inputs), i = bench_below(&w->random, f->count);
		struct cube *other;

		if (literal(f->cube[i], v) != 3)
			continue;
		other = new_cube(f->cube[i]->part);
		set_literal(f->cube[i], v, 1);
		set_literal(other, v, 2);
		append(f, other);
	}
}

static uint32_t covering(const struct cover *f, const struct cube *point, uint32_t *last)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->count; i++) {
		if (contains(f->cube[i], point)) {
			*last = i;
			n++;
		}
	}
	return n;
}

/* A point off the function that misses a cube by one literal shows that this literal is needed. */
static void mark_needed(const struct cube *c, const struct cube *point, struct cube *needed)
{
	uint64_t bits = apart(c, point);

	if (__builtin_popcountll(bits) == 1)
		needed->part &= c->part | ~(bits | bits << 1);
}

/* By every point there is: f is the function where that is not free; each of its cubes has a point that no other one
 * covers; and no literal of any can be left out. */
static void check(uint32_t inputs, const struct cover *on, const struct cover *free_set, const struct cover *f)
{
	struct cube *point = new_cube(UNIVERSE);
	struct cover *needed = new_cover(f->count);
	uint32_t last = 0;

	for (uint32_t i = 0; i < f->count; i++) {
		append(needed, new_cube(UNIVERSE));
		needed->cube[i]->covered = 1;
	}
	for (uint32_t at = 0; at < 1u << inputs; at++) {
		uint32_t times;

		for (uint32_t v = 0; v < inputs; v++)
			set_literal(point, v, 1 + (at >> v & 1));
		if (meets(free_set, point))
			continue;
		times = covering(f, point, &last);
		if (!times != !meets(on, point))
			bench_die("WRONG RESULT: the cover is not the function at %#x", at);
		if (times == 1)
			needed->cube[last]->covered = 0;
		for (uint32_t i = 0; i < f->count && !times; i++)
			mark_needed(f->cube[i], point, needed->cube[i]);
	}
	for (uint32_t i = 0; i < f->count; i++)
		if (needed->cube[i]->covered || needed->cube[i]->part != f->cube[i]->part)
			bench_die("WRONG RESULT: cube %u or a literal of it is not needed", i);
	free(point);
	drop_cover(needed);
}

/* By turns: a function with two polarities, of which a part is free; and one with one polarity, which has one smallest
 * cover only, that it was made of. */
static void do_function(struct bench_worker *w, int unate)
{
	uint32_t inputs = (uint32_t)widest - bench_below(&w->random, 3), least;
	struct cover *on, *parts, *free_set, *f;

	on = make_function(w, inputs, (uint32_t)cubes, unate);
	least = on->count;
	free_set = unate ? new_cover(0) : make_function(w, inputs, (uint32_t)cubes / 10, 0);
	parts = copy_cover(on);
	shatter(w, inputs, parts, least * 4);
	f = minimise(inputs, parts, free_set);
	if (f->count > parts->count || (unate && f->count != least))
		bench_die("WRONG RESULT: %u cubes, of a function that needs %u", f->count, least);
	check(inputs, on, free_set, f);
	drop_cover(on);
	drop_cover(parts);
	drop_cover(free_set);
	drop_cover(f);
}

static void *work(void *argument)
{
	struct bench_worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);

	while (bench_take(&quota, 1))
		do_function(w, (int)(w->done++ & 1));
	return NULL;
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	if (widest < 6 || widest > MOST_INPUTS)
		bench_die("--inputs takes 6 to %d", MOST_INPUTS);
	bench_run(&bench, work);
	return 0;
}
