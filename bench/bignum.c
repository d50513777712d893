/* SPDX-License-Identifier: MIT */
/* Pattern: arithmetic with whole numbers of any length, each value a fresh block of its length in limbs, with a count
 * of its references, as libraries for it in C have it. Nearly all are of one to six limbs and live for an operation or
 * two; few stay until a number is factored. Products of two primes are factored by continued fractions; the primes
 * are found by modular powers.
 * Source: cfrac (D. Barrett), as in B. Zorn, "The Measured Cost of Conservative Garbage Collection", 1993; the method:
 * M. Morrison, J. Brillhart, "A Method of Factoring and the Factorization of F7", 1975. */
#include "bench.h"

#define BASE 64	 /* primes that the squares are tried with */
#define SPARE 32 /* relations beyond their number; each of them fails as often as not */

/* The value never changes once it is made; functions take what they are given without keeping it, and give a reference
 * that the caller has to drop. */
struct number {
	uint32_t refs;
	uint32_t length; /* limbs; the last is not 0 */
	uint32_t limb[];
};

struct relation {
	struct number *root; /* its square is the product of the primes to these powers, modulo the number */
	uint8_t power[BASE + 1]; /* that of -1 first */
};

/* A product of relations, in bits: which powers are odd in it, and from bit ROW on, which relations they are. */
#define ROW (BASE + 1)
#define ROW_WORDS ((ROW + BASE + 1 + SPARE + 63) / 64)

struct factoring {
	struct number *n, *factor;
	uint32_t primes, relations;
	uint32_t prime[BASE];
	uint8_t power[BASE + 1];
	struct relation *relation[BASE + 1 + SPARE];
	uint64_t *pivot[BASE + 1];
};

static uint64_t bits = 38;
static const struct bench_extra extra[] = {
	{ "bits", &bits, "of each of the two primes" },
};
static struct bench bench = {
	.name = "bignum", .op = "one product of two primes factored", .ops = 100, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static struct number *fresh(uint32_t length)
{
	struct number *n = bench_alloc(sizeof(*n) + length * sizeof(n->limb[0]));

	n->refs = 1;
	n->length = length;
	return n;
}

static struct number *keep(struct number *n)
{
	n->refs++;
	return n;
}

static void drop(struct number *n)
{
	if (--n->refs == 0)
		free(n);
}

/* A variable gets a value, and drops the one it had. */
static void set(struct number **to, struct number *n)
{
	drop(*to);
	*to = n;
}

static struct number *trim(struct number *n)
{
	while (n->length && !n->limb[n->length - 1])
		n->length--;
	return n;
}

static struct number *of(uint64_t value)
{
	struct number *n = fresh(2);

	n->limb[0] = (uint32_t)value;
	n->limb[1] = (uint32_t)(value >> 32);
	return trim(n);
}

static int is(const struct number *n, uint32_t value)
{
	return value ? n->length == 1 && n->limb[0] == value : n->length == 0;
}

static int compare(const struct number *a, const struct number *b)
{
	if (a->length != b->length)
		return a->length < b->length ? -1 : 1;
	for (uint32_t i = a->length; i-- > 0;)
		if (a->limb[i] != b->limb[i])
			return a->limb[i] < b->limb[i] ? -1 : 1;
	return 0;
}

static struct number *add(const struct number *a, const struct number *b)
{
	const struct number *more = a->length > b->length ? a : b, *less = more == a ? b : a;
	struct number *sum = fresh(more->length + 1);
	uint64_t carry = 0;

	for (uint32_t i = 0; i < more->length; i++) {
		carry += (uint64_t)more->limb[i] + (i < less->length ? less->limb[i] : 0);
		sum->limb[i] = (uint32_t)carry;
		carry >>= 32;
	}
	sum->limb[more->length] = (uint32_t)carry;
	return trim(sum);
}

/* b is at most a. */
static struct number *subtract(const struct number *a, const struct number *b)
{
	struct number *rest = fresh(a->length);
	uint64_t borrow = 0;

	for (uint32_t i = 0; i < a->length; i++) {
		uint64_t d = (uint64_t)a->limb[i] - (i < b->length ? b->limb[i] : 0) - borrow;

		rest->limb[i] = (uint32_t)d;
		borrow = d >> 63;
	}
	return trim(rest);
}

static struct number *multiply(const struct number *a, const struct number *b)
{
	struct number *product = fresh(a->length + b->length);

	memset(product->limb, 0, product->length * sizeof(product->limb[0]));
	for (uint32_t i = 0; i < a->length; i++) {
		uint64_t carry = 0;

		for (uint32_t j = 0; j < b->length; j++) {
			carry += (uint64_t)a->limb[i] * b->limb[j] + product->limb[i + j];
			product->limb[i + j] = (uint32_t)carry;
			carry >>= 32;
		}
		product->limb[i + b->length] = (uint32_t)carry;
	}
	return trim(product);
}

static uint32_t modulo_small(const struct number *a, uint32_t d)
{
	uint64_t rest = 0;

	for (uint32_t i = a->length; i-- > 0;)
		rest = (rest << 32 | a->limb[i]) % d;
	return (uint32_t)rest;
}

static struct number *divide_small(const struct number *a, uint32_t d, uint32_t *remainder)
{
	struct number *quotient = fresh(a->length);
	uint64_t rest = 0;

	for (uint32_t i = a->length; i-- > 0;) {
		rest = rest << 32 | a->limb[i];
		quotient->limb[i] = (uint32_t)(rest / d);
		rest %= d;
	}
	if (remainder)
		*remainder = (uint32_t)rest;
	return trim(quotient);
}

static struct number *shift(const struct number *a, unsigned int left)
{
	struct number *n = fresh(a->length + 1);
	uint32_t low = 0;

	for (uint32_t i = 0; i < a->length; i++) {
		n->limb[i] = a->limb[i] << left | low;
		low = left ? a->limb[i] >> (32 - left) : 0;
	}
	n->limb[a->length] = low;
	return n;
}

/* D. Knuth, "The Art of Computer Programming", 4.3.1, algorithm D; the quotient only where it is wanted. */
static struct number *divide(const struct number *a, const struct number *b, struct number **quotient)
{
	unsigned int left = (unsigned int)__builtin_clz(b->limb[b->length - 1]);
	uint32_t n = b->length, places = a->length >= n ? a->length - n + 1 : 0;
	struct number *u = shift(a, left), *v = shift(b, left);
	struct number *q = quotient ? fresh(places) : NULL;

	for (uint32_t j = places; j-- > 0;) {
		uint64_t top = (uint64_t)u->limb[j + n] << 32 | u->limb[j + n - 1], carry = 0, guess, rest;
		uint32_t second = n > 1 ? v->limb[n - 2] : 0, third = n > 1 ? u->limb[j + n - 2] : 0;
		int64_t d = 0;

		guess = top / v->limb[n - 1];
		rest = top % v->limb[n - 1];
		while (guess >> 32 || guess * second > (rest << 32 | third)) {
			guess--;
			rest += v->limb[n - 1];
			if (rest >> 32)
				break;
		}
		for (uint32_t i = 0; i <= n; i++) {
			carry += guess * (i < n ? v->limb[i] : 0);
			d += (int64_t)u->limb[i + j] - (int64_t)(uint32_t)carry;
			u->limb[i + j] = (uint32_t)d;
			d >>= 32;
			carry >>= 32;
		}
		if (d < 0) {
			guess--;
			carry = 0;
			for (uint32_t i = 0; i <= n; i++) {
				carry += (uint64_t)u->limb[i + j] + (i < n ? v->limb[i] : 0);
				u->limb[i + j] = (uint32_t)carry;
				carry >>= 32;
			}
		}
		if (q)
			q->limb[j] = (uint32_t)guess;
	}
	for (uint32_t i = 0; left && i < u->length; i++)
		u->limb[i] = u->limb[i] >> left | (i + 1 < u->length ? u->limb[i + 1] << (32 - left) : 0);
	drop(v);
	if (q)
		*quotient = trim(q);
	return trim(u);
}

/* a times b, modulo n. */
static struct number *multiply_modulo(const struct number *a, const struct number *b, const struct number *n)
{
	struct number *product = multiply(a, b), *rest = divide(product, n, NULL);

	drop(product);
	return rest;
}

static struct number *power_modulo(struct number *base, const struct number *exponent, const struct number *n)
{
	struct number *result = of(1);

	for (uint32_t i = exponent->length * 32; i-- > 0;) {
		set(&result, multiply_modulo(result, result, n));
		if (exponent->limb[i / 32] >> i % 32 & 1)
			set(&result, multiply_modulo(result, base, n));
	}
	return result;
}

static struct number *common_divisor(struct number *a, struct number *b)
{
	struct number *x = keep(a), *y = keep(b);

	while (!is(y, 0)) {
		struct number *rest = divide(x, y, NULL);

		drop(x);
		x = y;
		y = rest;
	}
	drop(y);
	return x;
}

/* The whole part of the square root, by Newton's method from above. */
static struct number *square_root(struct number *n)
{
	struct number *root = fresh(n->length / 2 + 2), *next, *quotient;

	memset(root->limb, 0, root->length * sizeof(root->limb[0]));
	root->limb[root->length - 1] = 1;
	for (;;) {
		drop(divide(n, root, &quotient));
		next = add(root, quotient);
		drop(quotient);
		set(&next, divide_small(next, 2, NULL));
		if (compare(next, root) >= 0)
			break;
		set(&root, next);
	}
	drop(next);
	return root;
}

/* The test of G. Miller and M. Rabin with bases that are enough up to 3e24. */
static int is_prime(struct number *n)
{
	static const uint8_t bases[] = { 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41 };
	struct number *one = of(1), *less = subtract(n, one), *odd = keep(less);
	int prime = 1, twos = 0;

	for (uint32_t i = 0; i < sizeof(bases); i++)
		prime &= modulo_small(n, bases[i]) != 0;
	for (; !(odd->limb[0] & 1); twos++)
		set(&odd, divide_small(odd, 2, NULL));
	for (uint32_t i = 0; prime && i < sizeof(bases); i++) {
		struct number *base = of(bases[i]), *x = power_modulo(base, odd, n);

		prime = compare(x, one) == 0 || compare(x, less) == 0;
		for (int j = 1; j < twos && !prime; j++) {
			set(&x, multiply_modulo(x, x, n));
			prime = compare(x, less) == 0;
		}
		drop(base);
		drop(x);
	}
	drop(one);
	drop(less);
	drop(odd);
	return prime;
}

static struct number *any_prime(struct bench_worker *w)
{
	for (;;) {
		struct number *n = of(bench_random(&w->random) >> (64 - bits) | (uint64_t)1 << (bits - 1) | 1);

		if (is_prime(n))
			return n;
		drop(n);
	}
}

/* The power of a number of at most 32 bits modulo another, for Euler's criterion. */
static uint64_t power_small(uint64_t base, uint32_t exponent, uint32_t p)
{
	uint64_t result = 1;

	for (; exponent; exponent >>= 1, base = base * base % p)
		if (exponent & 1)
			result = result * base % p;
	return result;
}

/* The primes that can divide a square less a multiple of n. */
static void choose_primes(struct factoring *f)
{
	for (uint32_t p = 2; f->primes < BASE; p += 1 + (p > 2)) {
		uint32_t d = 3, rest = modulo_small(f->n, p);

		while (d * d <= p && p % d)
			d += 2;
		if (d * d > p && (p == 2 || rest == 0 || power_small(rest, p / 2, p) == 1))
			f->prime[f->primes++] = p;
	}
}

/* Whether the primes make up the whole of q, and to which powers. */
static int is_smooth(struct factoring *f, struct number *q)
{
	struct number *rest = keep(q);
	int smooth;

	for (uint32_t i = 0; i < f->primes && !is(rest, 1); i++) {
		f->power[i + 1] = 0;
		while (modulo_small(rest, f->prime[i]) == 0) {
			set(&rest, divide_small(rest, f->prime[i], NULL));
			f->power[i + 1]++;
		}
		if (is(rest, 1))
			memset(f->power + i + 2, 0, sizeof(f->power) - i - 2);
	}
	smooth = is(rest, 1);
	drop(rest);
	return smooth;
}

static int bit(const uint64_t *row, uint32_t i)
{
	return row[i / 64] >> i % 64 & 1;
}

/* The relations of a row make two squares that are equal modulo n: every second time their roots share a part of n
 * with it. */
static void combine(struct factoring *f, const uint64_t *row)
{
	struct number *x = of(1), *y = of(1), *difference;
	uint32_t power[BASE + 1] = { 0 };

	for (uint32_t i = 0; i < f->relations; i++) {
		if (!bit(row, ROW + i))
			continue;
		set(&x, multiply_modulo(x, f->relation[i]->root, f->n));
		for (uint32_t j = 0; j <= f->primes; j++)
			power[j] += f->relation[i]->power[j];
	}
	for (uint32_t j = 1; j <= f->primes; j++) {
		struct number *prime = of(f->prime[j - 1]), *half = of(power[j] / 2), *part;

		part = power_modulo(prime, half, f->n);
		set(&y, multiply_modulo(y, part, f->n));
		drop(prime);
		drop(half);
		drop(part);
	}
	difference = compare(x, y) > 0 ? subtract(x, y) : subtract(y, x);
	f->factor = common_divisor(difference, f->n);
	if (is(f->factor, 1) || compare(f->factor, f->n) == 0) {
		drop(f->factor);
		f->factor = NULL;
	}
	drop(difference);
	drop(x);
	drop(y);
}

/* The square of a is q, or q short of n. */
static void check_square(const struct factoring *f, const struct number *a, const struct number *q, int minus)
{
	struct number *square = multiply_modulo(a, a, f->n);

	if (minus)
		set(&square, add(square, q));
	if (compare(square, minus ? f->n : q) != 0)
		bench_die("WRONG RESULT: a square is not what the fraction says");
	drop(square);
}

/* Elimination goes along: a row without an odd power left is a factor, perhaps. */
static void add_relation(struct factoring *f, struct number *root)
{
	struct relation *r = bench_alloc(sizeof(*r));
	uint64_t *row = bench_zeroed(ROW_WORDS * sizeof(*row));

	r->root = keep(root);
	memcpy(r->power, f->power, sizeof(r->power));
	for (uint32_t j = 0; j <= f->primes; j++)
		row[j / 64] |= (uint64_t)(r->power[j] & 1) << j % 64;
	row[(ROW + f->relations) / 64] |= (uint64_t)1 << (ROW + f->relations) % 64;
	f->relation[f->relations++] = r;
	for (uint32_t j = 0; j <= f->primes; j++) {
		if (!bit(row, j))
			continue;
		if (!f->pivot[j]) {
			f->pivot[j] = row;
			return;
		}
		for (uint32_t i = 0; i < ROW_WORDS; i++)
			row[i] ^= f->pivot[j][i];
	}
	combine(f, row);
	free(row);
}

/* The continued fraction of the root of n: a squared is q or -q, modulo n, and q is small. */
static void expand(struct factoring *f)
{
	struct number *whole = square_root(f->n), *p = keep(whole), *a = keep(whole), *last = of(1);
	struct number *square = multiply(whole, whole), *q = subtract(f->n, square), *before = of(1);

	drop(square);
	for (uint8_t minus = 1; !f->factor && f->relations <= f->primes + SPARE && q->length && !is(q, 1); minus ^= 1) {
		struct number *sum = add(whole, p), *part, *rest, *next, *change;

		f->power[0] = minus;
		if (is_smooth(f, q)) {
			check_square(f, a, q, minus);
			add_relation(f, a);
		}
		rest = divide(sum, q, &part);
		next = subtract(whole, rest);
		if (compare(p, next) >= 0) {
			change = subtract(p, next);
			set(&change, multiply(change, part));
			set(&before, add(before, change));
		} else {
			change = subtract(next, p);
			set(&change, multiply(change, part));
			set(&before, subtract(before, change));
		}
		set(&p, next);
		next = q;
		q = before;
		before = next;
		set(&sum, multiply(part, a));
		set(&sum, add(sum, last));
		set(&last, keep(a));
		set(&a, divide(sum, f->n, NULL));
		drop(sum);
		drop(part);
		drop(rest);
		drop(change);
	}
	drop(whole);
	drop(p);
	drop(a);
	drop(last);
	drop(q);
	drop(before);
}

static void factor(struct bench_worker *w)
{
	struct number *p = any_prime(w), *q = any_prime(w);
	struct factoring *f = bench_zeroed(sizeof(*f));

	while (compare(p, q) == 0)
		set(&q, any_prime(w));
	f->n = multiply(p, q);
	choose_primes(f);
	expand(f);
	if (!f->factor || (compare(f->factor, p) != 0 && compare(f->factor, q) != 0))
		bench_die("WRONG RESULT: a product of two primes was not factored into them");
	for (uint32_t i = 0; i < f->relations; i++) {
		drop(f->relation[i]->root);
		free(f->relation[i]);
	}
	for (uint32_t j = 0; j <= BASE; j++)
		free(f->pivot[j]);
	drop(f->factor);
	drop(f->n);
	free(f);
	drop(p);
	drop(q);
}

static void *work(void *argument)
{
	struct bench_worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);

	while (bench_take(&quota, 1)) {
		factor(w);
		w->done++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	if (bits < 28 || bits > 40)
		bench_die("--bits takes 28 to 40");
	bench_run(&bench, work);
	return 0;
}
