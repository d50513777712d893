/* SPDX-License-Identifier: MIT */
/* Pattern: an interpreter of a small Lisp. Every number, pair, text, closure and frame of arguments is a block of its
 * own, most of 24 to 56 bytes. Nearly all die young; a dictionary and the programs stay. A collector that marks and
 * sweeps frees what is dead in bunches, in the order of the list that all objects are in, when there are twice as many
 * as the last time has left.
 * Source: J. McCarthy, "Recursive Functions of Symbolic Expressions", 1960; the objects and the collector are those of
 * small interpreters in C (Lua 5.0, 2003; clox in R. Nystrom, "Crafting Interpreters", 2021), the programs the usual
 * ones (tak and deriv: R. Gabriel, "Performance and Evaluation of Lisp Systems", 1985). */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

enum kind { NUMBER, PAIR, SYMBOL, TEXT, PRIMITIVE, CLOSURE, FRAME };
enum form { NO_FORM, QUOTE, IF, DEFINE, LAMBDA, LET, BEGIN, AND, OR };

struct lisp;
struct object;
typedef struct object *primitive(struct lisp *l, struct object **argument, size_t count);

union slot {
	struct object *to;
	int64_t number;
	primitive *call;
};

/* The empty list, which also is what is false, is NULL. */
struct object {
	struct object *next; /* of all */
	uint8_t kind, marked, form;
	uint32_t count; /* of a frame's values, a text's or a symbol's characters */
	union slot slot[];
};

/* What the slots are. A text has its characters in their place, a symbol behind the first, a frame its values behind
 * the second. */
#define FIRST slot[0].to
#define REST slot[1].to
#define VALUE slot[0].to
#define NAMES slot[0].to
#define BODY slot[1].to
#define WITHIN slot[2].to
#define OUTER slot[1].to

struct lisp {
	struct object *all;
	uint64_t objects, collect_at;
	struct object **stack; /* what is in use, besides what symbols name */
	size_t held, stack_space;
	struct object **grey; /* marked, what they point to not yet */
	size_t greys, grey_space;
	struct object **symbol; /* all there are */
	size_t symbols, symbol_space;
	struct object *yes;
	const char *at; /* of the text that is read */
	char *line;	/* that is printed */
	size_t length, line_space;
};

static uint64_t nursery = 20000;
static const struct bench_extra extra[] = {
	{ "nursery", &nursery, "objects that there are at least before they are collected" },
};
static struct bench bench = {
	.name = "lisp", .op = "one small program read and run", .ops = 720, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

/* ---- Objects and their collector ---- */

static inline void push(struct object ***stack, size_t *count, size_t *space, struct object *o)
{
	if (*count == *space) {
		*space = *space ? 2 * *space : 256;
		*stack = bench_grow(*stack, *space * sizeof(**stack));
	}
	(*stack)[(*count)++] = o;
}

static char *text_of(struct object *o)
{
	return (char *)&o->slot[o->kind == SYMBOL];
}

static void hold(struct lisp *l, struct object *o)
{
	push(&l->stack, &l->held, &l->stack_space, o);
}

static void mark(struct lisp *l, struct object *o)
{
	if (!o || o->marked)
		return;
	o->marked = 1;
	if (o->kind != NUMBER && o->kind != TEXT && o->kind != PRIMITIVE)
		push(&l->grey, &l->greys, &l->grey_space, o);
}

static void mark_below(struct lisp *l, struct object *o)
{
	uint32_t slots = o->kind == SYMBOL ? 1 : o->kind == PAIR ? 2 : o->kind == CLOSURE ? 3 : 2 + o->count;

	for (uint32_t i = 0; i < slots; i++)
		mark(l, o->slot[i].to);
}

static void sweep(struct lisp *l)
{
	struct object **at = &l->all, *o;

	while ((o = *at) != NULL) {
		if (o->marked) {
			o->marked = 0;
			at = &o->next;
		} else {
			*at = o->next;
			l->objects--;
			free(o);
		}
	}
}

static void collect(struct lisp *l)
{
	for (size_t i = 0; i < l->held; i++)
		mark(l, l->stack[i]);
	for (size_t i = 0; i < l->symbols; i++)
		mark(l, l->symbol[i]);
	while (l->greys)
		mark_below(l, l->grey[--l->greys]);
	sweep(l);
	l->collect_at = 2 * l->objects > nursery ? 2 * l->objects : nursery;
}

/* May collect first: what it is made of has to be held. */
static struct object *new_object(struct lisp *l, enum kind kind, size_t size)
{
	struct object *o;

	if (l->objects >= l->collect_at)
		collect(l);
	o = bench_alloc(sizeof(*o) + size);
	o->kind = (uint8_t)kind;
	o->marked = 0;
	o->form = NO_FORM;
	o->next = l->all;
	l->all = o;
	l->objects++;
	return o;
}

static struct object *new_number(struct lisp *l, int64_t number)
{
	struct object *o = new_object(l, NUMBER, sizeof(o->slot[0]));

	o->slot[0].number = number;
	return o;
}

static struct object *new_pair(struct lisp *l, struct object *first, struct object *rest)
{
	struct object *o = new_object(l, PAIR, 2 * sizeof(o->slot[0]));

	o->FIRST = first;
	o->REST = rest;
	return o;
}

/* A text, or a symbol, of these characters, or of some that are written later. */
static struct object *new_text(struct lisp *l, enum kind kind, const char *from, size_t length)
{
	struct object *o = new_object(l, kind, (kind == SYMBOL) * sizeof(o->slot[0]) + length + 1);

	o->count = (uint32_t)length;
	if (from)
		memcpy(text_of(o), from, length);
	text_of(o)[length] = 0;
	return o;
}

static struct object *new_closure(struct lisp *l, struct object *names, struct object *body, struct object *frame)
{
	struct object *o = new_object(l, CLOSURE, 3 * sizeof(o->slot[0]));

	o->NAMES = names;
	o->BODY = body;
	o->WITHIN = frame;
	return o;
}

/* ---- Symbols ---- */

/* A symbol without a value has itself. There are so few that a search does. */
static struct object *intern(struct lisp *l, const char *name, size_t length)
{
	struct object *o;

	for (size_t i = 0; i < l->symbols; i++)
		if (l->symbol[i]->count == length && memcmp(text_of(l->symbol[i]), name, length) == 0)
			return l->symbol[i];
	o = new_text(l, SYMBOL, name, length);
	o->VALUE = o;
	push(&l->symbol, &l->symbols, &l->symbol_space, o);
	return o;
}

static void define(struct lisp *l, const char *name, struct object *value)
{
	hold(l, value);
	intern(l, name, strlen(name))->VALUE = value;
	l->held--;
}

/* ---- Reading and printing ---- */

static struct object *read_one(struct lisp *l);

static struct object *read_list(struct lisp *l)
{
	struct object *list = NULL, **end = &list, *o;

	hold(l, NULL);
	while (l->at += strspn(l->at, " \n"), *l->at != ')') {
		hold(l, read_one(l));
		o = new_pair(l, l->stack[l->held - 1], NULL);
		l->held--;
		*end = o;
		end = &o->REST;
		l->stack[l->held - 1] = list;
	}
	l->at++;
	l->held--;
	return list;
}

static struct object *read_one(struct lisp *l)
{
	struct object *o;
	size_t length;

	l->at += strspn(l->at, " \n");
	if (*l->at == '(') {
		l->at++;
		return read_list(l);
	}
	if (*l->at == '\'') {
		l->at++;
		hold(l, read_one(l));
		l->stack[l->held - 1] = new_pair(l, l->stack[l->held - 1], NULL);
		o = new_pair(l, intern(l, "quote", 5), l->stack[l->held - 1]);
		l->held--;
		return o;
	}
	if (*l->at == '"') {
		length = strcspn(l->at + 1, "\"");
		o = new_text(l, TEXT, l->at + 1, length);
		l->at += length + 2;
		return o;
	}
	length = strcspn(l->at, " \n()");
	if (length == 0)
		bench_die("WRONG RESULT: nothing to read at \"%.20s\"", l->at);
	if (strspn(l->at, "0123456789") == length)
		o = new_number(l, strtoll(l->at, NULL, 10));
	else
		o = intern(l, l->at, length);
	l->at += length;
	return o;
}

static void put(struct lisp *l, const char *text)
{
	size_t length = strlen(text);

	while (l->length + length >= l->line_space) {
		l->line_space = l->line_space ? 2 * l->line_space : 32;
		l->line = bench_grow(l->line, l->line_space);
	}
	memcpy(l->line + l->length, text, length + 1);
	l->length += length;
}

static void print(struct lisp *l, struct object *o)
{
	char digits[24];

	if (o && o->kind == NUMBER) {
		snprintf(digits, sizeof(digits), "%lld", (long long)o->slot[0].number);
		put(l, digits);
	} else if (o && o->kind != PAIR) {
		put(l, o->kind == SYMBOL || o->kind == TEXT ? text_of(o) : "function");
	} else {
		put(l, "(");
		for (; o; o = o->REST) {
			print(l, o->FIRST);
			put(l, o->REST ? " " : "");
		}
		put(l, ")");
	}
}

/* ---- Evaluation ---- */

static struct object *eval(struct lisp *l, struct object *x, struct object *frame);

/* A frame's names are a function's, or the pairs of name and expression of a let. */
static struct object *look_up(const struct lisp *l, struct object *name, const struct object *frame)
{
	for (; frame; frame = frame->OUTER) {
		const struct object *names = frame->NAMES;

		for (uint32_t i = 0; i < frame->count; i++, names = names->REST)
			if (names->FIRST == name || (names->FIRST->kind == PAIR && names->FIRST->FIRST == name))
				return frame->slot[2 + i].to;
	}
	if (name->VALUE == name && name != l->yes)
		bench_die("WRONG RESULT: %s has no value", text_of(name));
	return name->VALUE;
}

/* What is on the stack from first on gets names; the frame takes the place of the one at base. */
static void enter(struct lisp *l, size_t base, struct object *outer, struct object *names, size_t first)
{
	uint32_t count = (uint32_t)(l->held - first), named = 0;
	struct object *frame = new_object(l, FRAME, (2 + count) * sizeof(frame));

	for (const struct object *n = names; n; n = n->REST)
		named++;
	if (named != count)
		bench_die("WRONG RESULT: %u arguments where %u belong", count, named);
	frame->count = count;
	frame->OUTER = outer;
	frame->NAMES = names;
	memcpy(&frame->slot[2], &l->stack[first], count * sizeof(frame));
	l->stack[base] = frame;
	l->held = base + 2;
}

/* Evaluates all but the last, which it returns. */
static struct object *sequence(struct lisp *l, struct object *body, struct object *frame)
{
	for (; body->REST; body = body->REST)
		eval(l, body->FIRST, frame);
	return body->FIRST;
}

/* The special form *x: 0 when *x became its value, 1 when it became what is to be evaluated in its place. */
static int do_form(struct lisp *l, struct object **x, size_t base)
{
	struct object *frame = l->stack[base], *rest = (*x)->REST, *value, *name;
	enum form form = (*x)->FIRST->form;

	switch (form) {
	case QUOTE:
		*x = rest->FIRST;
		return 0;
	case IF:
		rest = eval(l, rest->FIRST, frame) ? rest->REST : rest->REST->REST;
		*x = rest ? rest->FIRST : NULL;
		return 1;
	case DEFINE:
		name = rest->FIRST;
		if (name->kind == PAIR) {
			value = new_closure(l, name->REST, rest->REST, frame);
			name = name->FIRST;
		} else {
			value = eval(l, rest->REST->FIRST, frame);
		}
		name->VALUE = value;
		*x = name;
		return 0;
	case LAMBDA:
		*x = new_closure(l, rest->FIRST, rest->REST, frame);
		return 0;
	case LET:
		for (struct object *b = rest->FIRST; b; b = b->REST)
			hold(l, eval(l, b->FIRST->REST->FIRST, frame));
		enter(l, base, frame, rest->FIRST, base + 2);
		*x = sequence(l, rest->REST, l->stack[base]);
		return 1;
	case BEGIN:
		*x = sequence(l, rest, frame);
		return 1;
	default: /* AND, OR */
		for (; rest->REST; rest = rest->REST) {
			*x = eval(l, rest->FIRST, frame);
			if (!*x == (form == AND))
				return 0;
		}
		*x = rest->FIRST;
		return 1;
	}
}

/* At base on the stack are the frame, and the function whose body x is a part of. */
static struct object *eval(struct lisp *l, struct object *x, struct object *frame)
{
	size_t base = l->held;
	struct object *f;

	hold(l, frame);
	hold(l, NULL);
	while (x && x->kind == PAIR) {
		f = x->FIRST;
		if (f->kind == SYMBOL && f->form) {
			if (!do_form(l, &x, base))
				goto done;
			continue;
		}
		f = eval(l, f, l->stack[base]);
		hold(l, f);
		for (struct object *a = x->REST; a; a = a->REST)
			hold(l, eval(l, a->FIRST, l->stack[base]));
		if (f && f->kind == PRIMITIVE) {
			if (f->count && f->count != l->held - base - 3)
				bench_die("WRONG RESULT: a function takes %u arguments", f->count);
			x = f->slot[0].call(l, &l->stack[base + 3], l->held - base - 3);
			goto done;
		}
		if (!f || f->kind != CLOSURE)
			bench_die("WRONG RESULT: that is no function");
		enter(l, base, f->WITHIN, f->NAMES, base + 3);
		l->stack[base + 1] = f;
		x = sequence(l, f->BODY, l->stack[base]);
	}
	if (x && x->kind == SYMBOL)
		x = look_up(l, x, l->stack[base]);
done:
	l->held = base;
	return x;
}

/* ---- Primitives ---- */

static struct object *of_kind(struct object *o, enum kind kind)
{
	if (!o || o->kind != kind)
		bench_die("WRONG RESULT: that is not of kind %d", kind);
	return o;
}

static int64_t number_of(struct object *o)
{
	return of_kind(o, NUMBER)->slot[0].number;
}

static const char *characters(struct object *o)
{
	return text_of(of_kind(o, TEXT));
}

static struct object *join(struct lisp *l, struct object **x, size_t count)
{
	struct object *o;
	size_t length = 0, at = 0;

	for (size_t i = 0; i < count; i++)
		length += of_kind(x[i], TEXT)->count;
	o = new_text(l, TEXT, NULL, length);
	for (size_t i = 0; i < count; at += x[i++]->count)
		memcpy(text_of(o) + at, text_of(x[i]), x[i]->count);
	return o;
}

static struct object *to_text(struct lisp *l, struct object **x, size_t count)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%lld", (long long)number_of(x[count - 1]));

	return new_text(l, TEXT, digits, (size_t)length);
}

#define FUNCTION(name, result)                                                                                         \
	static struct object *name(struct lisp *l __attribute__((unused)), struct object **x,                          \
				   size_t count __attribute__((unused)))                                               \
	{                                                                                                              \
		return result;                                                                                         \
	}
FUNCTION(plus, new_number(l, number_of(x[0]) + number_of(x[1])))
FUNCTION(minus, new_number(l, number_of(x[0]) - number_of(x[1])))
FUNCTION(times, new_number(l, number_of(x[0]) * number_of(x[1])))
FUNCTION(modulo, new_number(l, number_of(x[0]) % number_of(x[1])))
FUNCTION(less, number_of(x[0]) < number_of(x[1]) ? l->yes : NULL)
FUNCTION(equal, number_of(x[0]) == number_of(x[1]) ? l->yes : NULL)
FUNCTION(cons, new_pair(l, x[0], x[1]))
FUNCTION(car, of_kind(x[0], PAIR)->FIRST)
FUNCTION(cdr, of_kind(x[0], PAIR)->REST)
FUNCTION(not, x[0] ? NULL : l->yes)
FUNCTION(is_pair, x[0] && x[0]->kind == PAIR ? l->yes : NULL)
FUNCTION(is_same, x[0] == x[1] ? l->yes : NULL)
FUNCTION(text_length, new_number(l, of_kind(x[0], TEXT)->count))
FUNCTION(text_less, strcmp(characters(x[0]), characters(x[1])) < 0 ? l->yes : NULL)

static const struct {
	const char *name;
	primitive *call;
	uint32_t takes; /* 0: any number */
} primitives[] = {
	{ "+", plus, 2 }, { "-", minus, 2 }, { "*", times, 2 }, { "remainder", modulo, 2 }, { "<", less, 2 },
	{ "=", equal, 2 }, { "cons", cons, 2 }, { "car", car, 1 }, { "cdr", cdr, 1 }, { "not", not, 1 },
	{ "pair?", is_pair, 1 }, { "eq?", is_same, 2 }, { "string-append", join, 0 }, { "number->string", to_text, 1 },
	{ "string-length", text_length, 1 }, { "string<?", text_less, 2 },
};

/* ---- Programs ---- */

static const char library[] =
	"(define (map f l) (if l (cons (f (car l)) (map f (cdr l))) ()))"
	"(define (filter f l) (if l (if (f (car l)) (cons (car l) (filter f (cdr l))) (filter f (cdr l))) ()))"
	"(define (fold f x l) (if l (fold f (f x (car l)) (cdr l)) x))"
	"(define (range a b) (if (< a b) (cons a (range (+ a 1) b)) ()))"
	"(define (reverse l) (fold (lambda (x y) (cons y x)) () l))"
	"(define (length l) (fold (lambda (x y) (+ x 1)) 0 l))"
	"(define (random s) (remainder (+ (* s 1103515245) 12345) 2147483648))"
	"(define (randoms n s) (if (= n 0) () (cons s (randoms (- n 1) (random s)))))";

static const struct {
	const char *text, *result;
} programs[] = {
	{ "(define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2))))) (fib 17)", "1597" },
	{ "(define (tak x y z) (if (< y x) (tak (tak (- x 1) y z) (tak (- y 1) z x) (tak (- z 1) x y)) z))"
	  "(tak 12 8 4)", "5" },
	{ "(define (split l a b) (if l (split (cdr l) (cons (car l) b) a) (cons a b)))"
	  "(define (merge a b) (if (not a) b (if (not b) a (if (< (car a) (car b))"
	  "  (cons (car a) (merge (cdr a) b)) (cons (car b) (merge a (cdr b)))))))"
	  "(define (sort l) (if (and l (cdr l)) (let ((parts (split l () ())))"
	  "  (merge (sort (car parts)) (sort (cdr parts)))) l))"
	  "(define (ordered l) (or (not l) (not (cdr l)) (and (not (< (car (cdr l)) (car l))) (ordered (cdr l)))))"
	  "(let ((l (randoms 500 seed))) (let ((s (sort l)))"
	  "  (and (ordered s) (= (fold + 0 l) (fold + 0 s)) (length s))))", "500" },
	{ "(define (safe q d board) (or (not board) (and (not (= q (car board))) (not (= q (+ (car board) d)))"
	  "  (not (= q (- (car board) d))) (safe q (+ d 1) (cdr board)))))"
	  "(define (try q k n board) (if (= q 0) 0 (+ (if (safe q 1 board) (place (- k 1) n (cons q board)) 0)"
	  "  (try (- q 1) k n board))))"
	  "(define (place k n board) (if (= k 0) 1 (try n k n board)))"
	  "(cons (place 5 5 ()) (cons (place 6 6 ()) ()))", "(10 4)" },
	{ "(define (join l) (fold (lambda (text n) (string-append text (number->string n) \",\")) \"\" l))"
	  "(cons (join (range 0 12)) (cons (string-length (join (range 0 400))) ()))",
	  "(0,1,2,3,4,5,6,7,8,9,10,11, 1490)" },
	/* A tree of texts, of which a new one shares all but a path; it stays until it is made the next time. */
	{ "(define (insert tree key) (if (not tree) (cons key (cons () ()))"
	  "  (if (string<? key (car tree)) (cons (car tree) (cons (insert (car (cdr tree)) key) (cdr (cdr tree))))"
	  "  (if (string<? (car tree) key) (cons (car tree) (cons (car (cdr tree)) (insert (cdr (cdr tree)) key)))"
	  "    tree))))"
	  "(define (size tree) (if tree (+ 1 (+ (size (car (cdr tree))) (size (cdr (cdr tree))))) 0))"
	  "(define dictionary (fold insert () (map number->string (map (lambda (i) (remainder (* i 7919) 1000))"
	  "  (range 0 1200)))))"
	  "(size dictionary)", "1000" },
	{ "(define (compose f g) (lambda (x) (f (g x)))) (define (adder n) (lambda (x) (+ x n)))"
	  "(map (fold compose (adder 0) (map adder (range 1 100))) (range 0 20))",
	  "(4950 4951 4952 4953 4954 4955 4956 4957 4958 4959 4960 4961 4962 4963 4964 4965 4966 4967 4968 4969)" },
	{ "(define (sieve l) (if l (cons (car l) (sieve (filter (lambda (n) (not (= 0 (remainder n (car l)))))"
	  "  (cdr l)))) ())) (length (sieve (range 2 500)))", "95" },
	{ "(define (deriv a) (if (not (pair? a)) (if (eq? a 'x) 1 0)"
	  "  (if (eq? (car a) '+) (cons '+ (map deriv (cdr a)))"
	  "  (cons '* (cons a (cons (cons '+ (map (lambda (b) (cons '/ (cons (deriv b) (cons b ())))) (cdr a)))"
	  "    ()))))))"
	  "(define (repeat n) (if (= n 0) () (begin (deriv '(+ (* 3 x x) (* a x x) (* b x) 5))"
	  "  (repeat (- n 1)))))"
	  "(repeat 100) (deriv '(+ (* a x x) (* b x) 5))",
	  "(+ (* (* a x x) (+ (/ 0 a) (/ 1 x) (/ 1 x))) (* (* b x) (+ (/ 0 b) (/ 1 x))) 0)" },
};

static struct lisp *new_lisp(void)
{
	static const char *const forms[] = { "quote", "if", "define", "lambda", "let", "begin", "and", "or" };
	struct lisp *l = bench_zeroed(sizeof(*l));

	l->collect_at = nursery;
	l->yes = intern(l, "#t", 2);
	for (uint8_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		intern(l, forms[i], strlen(forms[i]))->form = (uint8_t)(QUOTE + i);
	for (size_t i = 0; i < sizeof(primitives) / sizeof(primitives[0]); i++) {
		struct object *o = new_object(l, PRIMITIVE, sizeof(o->slot[0]));

		o->slot[0].call = primitives[i].call;
		o->count = primitives[i].takes;
		define(l, primitives[i].name, o);
	}
	return l;
}

/* Reads and evaluates all there is; the last value is printed. */
static void run(struct lisp *l, const char *text)
{
	struct object *value = NULL;

	l->at = text;
	while (*l->at) {
		hold(l, read_one(l));
		value = eval(l, l->stack[l->held - 1], NULL);
		l->held--;
		l->at += strspn(l->at, " \n");
	}
	l->length = 0;
	print(l, value);
}

static void drop_lisp(struct lisp *l)
{
	sweep(l);
	free(l->stack);
	free(l->grey);
	free(l->symbol);
	free(l->line);
	free(l);
}

static void *work(void *argument)
{
	struct bench_worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	struct lisp *l = new_lisp();

	run(l, library);
	while (bench_take(&quota, 1)) {
		size_t i = w->done++ % (sizeof(programs) / sizeof(programs[0]));

		define(l, "seed", new_number(l, bench_below(&w->random, 1u << 31)));
		run(l, programs[i].text);
		if (strcmp(l->line, programs[i].result) != 0)
			bench_die("WRONG RESULT: %s, should be %s", l->line, programs[i].result);
	}
	drop_lisp(l);
	return NULL;
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	bench_run(&bench, work);
	return 0;
}
