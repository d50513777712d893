/* SPDX-License-Identifier: MIT */
/* Pattern: a simulation of gravity whose tree of heap nodes is built anew and torn down in every step. Nodes of two
 * sizes are made in the order of the bodies and freed in the order of the tree; between that, each body's way
 * through the tree. Little time is in the allocator: how densely it packs the nodes counts as well.
 * Source: J. Barnes, P. Hut, "A hierarchical O(N log N) force-calculation algorithm", Nature 324, 1986; as a program
 * of pointers, bh in A. Rogers and others, "Supporting Dynamic Data Structures on Distributed-Memory Machines", 1995
 * (Olden). */
#include "bench.h"

#include <math.h>

#define DEEPEST 64     /* a tree deeper than that has bodies at one place */
#define ANGLE 1.0      /* a cell that is seen at less than this is one mass */
#define SOFT2 0.0025   /* the square of the distance under which gravity fades */
#define TICK (1.0 / 64) /* of a time in which a body crosses the cluster about once in 3 */
#define SAMPLES 16

struct body {
	double at[3], speed[3], pull[3];
	double mass;
	double potential;
};

/* What a leaf, which is one body, and a cell have in common. */
struct node {
	int is_cell;
};

struct leaf {
	struct node node;
	struct body *body;
};

struct cell {
	struct node node;
	double mass;
	double at[3];
	struct node *child[8];
};

static uint64_t bodies = 16384;
static const struct bench_extra extra[] = {
	{ "bodies", &bodies, "bodies" },
};
static struct bench bench = {
	.name = "nbody", .op = "one step of all bodies", .ops = 14, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static double unit(struct bench_worker *w)
{
	return (double)(bench_random(&w->random) >> 11) * 0x1p-53;
}

static void anywhere(struct bench_worker *w, double length, double v[3])
{
	double z = 2 * unit(w) - 1, angle = 2 * M_PI * unit(w), flat = sqrt(1 - z * z);

	v[0] = length * flat * cos(angle);
	v[1] = length * flat * sin(angle);
	v[2] = length * z;
}

/* Plummer's cluster of stars, of mass 1 and radius 1, at rest as a whole: its energy is known, -3 pi / 64. Speeds are
 * drawn as in S. Aarseth, M. Henon, R. Wielen, 1974. */
static struct body *make_cluster(struct bench_worker *w)
{
	struct body *all = bench_alloc(bodies * sizeof(*all));
	double mean[2][3] = { { 0 } }, radius, part, chance;

	for (uint64_t i = 0; i < bodies; i++) {
		do
			radius = 1 / sqrt(pow(unit(w) * 0.999 + 1e-9, -2.0 / 3) - 1);
		while (radius > 20);
		do {
			part = unit(w);
			chance = unit(w) * 0.1;
		} while (chance > part * part * pow(1 - part * part, 3.5));
		memset(&all[i], 0, sizeof(all[i]));
		all[i].mass = 1 / (double)bodies;
		anywhere(w, radius, all[i].at);
		anywhere(w, part * M_SQRT2 / pow(1 + radius * radius, 0.25), all[i].speed);
		for (int k = 0; k < 3; k++) {
			mean[0][k] += all[i].at[k] / (double)bodies;
			mean[1][k] += all[i].speed[k] / (double)bodies;
		}
	}
	for (uint64_t i = 0; i < bodies; i++) {
		for (int k = 0; k < 3; k++) {
			all[i].at[k] -= mean[0][k];
			all[i].speed[k] -= mean[1][k];
		}
	}
	return all;
}

/* The half of the side of the cube around the origin that holds all bodies. */
static double half_of(const struct body *all)
{
	double most = 0;

	for (uint64_t i = 0; i < bodies; i++)
		for (int k = 0; k < 3; k++)
			most = fmax(most, fabs(all[i].at[k]));
	return most * (1 + 1e-9);
}

/* The child of a cell in which the place lies; the middle becomes the child's. */
static unsigned int step_down(const double at[3], double middle[3], double half)
{
	unsigned int child = 0;

	for (unsigned int k = 0; k < 3; k++) {
		child |= (unsigned int)(at[k] >= middle[k]) << k;
		middle[k] += at[k] >= middle[k] ? half / 2 : -half / 2;
	}
	return child;
}

/* Two bodies do not share a leaf: the first one's moves into a new cell, until they part. */
static void insert(struct node **at, struct body *b, double half)
{
	struct leaf *leaf = bench_alloc(sizeof(*leaf));
	double middle[3] = { 0 };

	leaf->node.is_cell = 0;
	leaf->body = b;
	for (int depth = 0; *at; depth++, half /= 2) {
		if (!(*at)->is_cell) {
			double below[3] = { middle[0], middle[1], middle[2] };
			struct cell *cell = bench_zeroed(sizeof(*cell));

			cell->node.is_cell = 1;
			cell->child[step_down(((struct leaf *)*at)->body->at, below, half)] = *at;
			*at = &cell->node;
		}
		if (depth == DEEPEST)
			bench_die("two bodies at one place");
		at = &((struct cell *)*at)->child[step_down(b->at, middle, half)];
	}
	*at = &leaf->node;
}

static void add_mass(struct cell *cell, double mass, const double at[3])
{
	cell->mass += mass;
	for (int k = 0; k < 3; k++)
		cell->at[k] += mass * at[k];
}

/* Masses and their centres, from the leaves up. */
static void weigh(struct cell *cell)
{
	for (int i = 0; i < 8; i++) {
		struct node *child = cell->child[i];

		if (!child)
			continue;
		if (child->is_cell) {
			weigh((struct cell *)child);
			add_mass(cell, ((struct cell *)child)->mass, ((struct cell *)child)->at);
		} else {
			const struct body *b = ((struct leaf *)child)->body;

			add_mass(cell, b->mass, b->at);
		}
	}
	for (int k = 0; k < 3; k++)
		cell->at[k] /= cell->mass;
}

static inline double distance2(const double a[3], const double b[3], double away[3])
{
	for (int k = 0; k < 3; k++)
		away[k] = b[k] - a[k];
	return away[0] * away[0] + away[1] * away[1] + away[2] * away[2];
}

static inline void add_pull(struct body *b, double mass, double r2, const double away[3])
{
	double r = sqrt(r2 + SOFT2), strength = mass / (r * r * r);

	b->potential -= mass / r;
	for (int k = 0; k < 3; k++)
		b->pull[k] += strength * away[k];
}

static void pull(struct body *b, const struct node *node, double side2)
{
	double away[3];

	if (!node->is_cell) {
		const struct body *other = ((const struct leaf *)node)->body;

		if (other != b)
			add_pull(b, other->mass, distance2(b->at, other->at, away), away);
	} else {
		const struct cell *cell = (const struct cell *)node;
		double r2 = distance2(b->at, cell->at, away);

		if (side2 < ANGLE * ANGLE * r2)
			add_pull(b, cell->mass, r2, away);
		else
			for (int i = 0; i < 8; i++)
				if (cell->child[i])
					pull(b, cell->child[i], side2 / 4);
	}
}

static uint64_t tear_down(struct node *node)
{
	uint64_t had = 0;

	if (!node)
		return 0;
	if (node->is_cell)
		for (int i = 0; i < 8; i++)
			had += tear_down(((struct cell *)node)->child[i]);
	else
		had = 1;
	free(node);
	return had;
}

/* The forces of this moment, by a tree of this moment. */
static void pull_all(struct body *all)
{
	double half = half_of(all);
	struct node *root = NULL;

	for (uint64_t i = 0; i < bodies; i++)
		insert(&root, &all[i], half);
	weigh((struct cell *)root);
	if (!(fabs(((struct cell *)root)->mass - 1) < 1e-9))
		bench_die("WRONG RESULT: the tree lost mass");
	for (uint64_t i = 0; i < bodies; i++) {
		all[i].potential = 0;
		memset(all[i].pull, 0, sizeof(all[i].pull));
		pull(&all[i], root, 4 * half * half);
	}
	if (tear_down(root) != bodies)
		bench_die("WRONG RESULT: the tree lost bodies");
}

static void push(struct body *all)
{
	for (uint64_t i = 0; i < bodies; i++)
		for (int k = 0; k < 3; k++)
			all[i].speed[k] += all[i].pull[k] * TICK / 2;
}

/* Kinetic and potential, the latter as the tree has it. */
static double energy(const struct body *all, double momentum[3])
{
	double sum = 0;

	memset(momentum, 0, 3 * sizeof(*momentum));
	for (uint64_t i = 0; i < bodies; i++) {
		for (int k = 0; k < 3; k++) {
			sum += all[i].mass * all[i].speed[k] * all[i].speed[k] / 2;
			momentum[k] += all[i].mass * all[i].speed[k];
		}
		sum += all[i].mass * all[i].potential / 2;
	}
	return sum;
}

/* Energy and momentum are kept, and the energy is that of Plummer's cluster as far as so many bodies show it; the
 * tree's force on some bodies is what the sum over all others says. */
static void check(const struct body *all, double before)
{
	double momentum[3], now = energy(all, momentum), drift = 0.001 + 8 / (double)bodies;
	double noise = 0.05 + 4 / sqrt((double)bodies), wrong = 0, whole = 0, away[3];

	if (!(fabs(now / before - 1) < drift) || !(fabs(before / (-3 * M_PI / 64) - 1) < noise))
		bench_die("WRONG RESULT: the energy was %.6f and is %.6f", before, now);
	if (!(sqrt(distance2(momentum, (double[3]){ 0 }, away)) < 0.01))
		bench_die("WRONG RESULT: the cluster moves off");
	for (uint64_t i = 0; i < bodies; i += bodies / SAMPLES + 1) {
		struct body exact = all[i];

		memset(exact.pull, 0, sizeof(exact.pull));
		for (uint64_t j = 0; j < bodies; j++)
			if (j != i)
				add_pull(&exact, all[j].mass, distance2(exact.at, all[j].at, away), away);
		wrong += distance2(exact.pull, all[i].pull, away);
		whole += distance2(exact.pull, (double[3]){ 0 }, away);
	}
	if (!(sqrt(wrong / whole) <= 0.05 + 2 / sqrt((double)bodies)))
		bench_die("WRONG RESULT: forces are off by %.4f of their size", sqrt(wrong / whole));
}

static void *work(void *argument)
{
	struct bench_worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	struct body *all = make_cluster(w);
	double before, momentum[3];

	pull_all(all);
	before = energy(all, momentum);
	while (bench_take(&quota, 1)) {
		push(all);
		for (uint64_t i = 0; i < bodies; i++)
			for (int k = 0; k < 3; k++)
				all[i].at[k] += all[i].speed[k] * TICK;
		pull_all(all);
		push(all);
		w->done++;
	}
	check(all, before);
	free(all);
	return NULL;
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	if (bodies < 1000)
		bench_die("--bodies takes at least 1000: fewer do not keep their energy at this tick");
	bench_run(&bench, work);
	return 0;
}
