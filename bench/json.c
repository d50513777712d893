/* SPDX-License-Identifier: MIT */
/* Pattern: a store of JSON documents. Each turn a text comes in, is parsed into a tree of nodes, texts and arrays that
 * grow by doubling, and takes the place of the oldest document; another one is edited, printed into a buffer that
 * grows, and parsed again to be compared. Nodes of one size, texts of all lengths, arrays and buffers that realloc
 * moves lie among each other, and live for a turn or as long as the store keeps them.
 * Source: the trees of JSON libraries in C (cJSON, D. Gamble, from 2009; Parson, K. Gabis, from 2012); the shapes of
 * the documents: nativejson-benchmark (M. Yip, 2014), with its records and coordinates, and nesting and long texts. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

#define DEEPEST 512
#define EDITS 16

enum kind { NOTHING, FALSE, TRUE, NUMBER, TEXT, ARRAY, OBJECT };

struct value {
	enum kind kind;
	uint32_t count, space; /* of items */
	union {
		double number;
		char *text;
		struct value **item;
	};
	char *name; /* as a member of an object */
};

struct buffer {
	char *text;
	size_t length, space;
};

struct reader {
	const char *at;
	uint32_t depth;
};

static uint64_t documents = 64;
static const struct bench_extra extra[] = {
	{ "documents", &documents, "that the store keeps" },
};
static struct bench bench = {
	.name = "json", .op = "one document parsed, and one edited", .ops = 650, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static const char *const words[] = { [NOTHING] = "null", [FALSE] = "false", [TRUE] = "true" };

/* ---- Values ---- */

static struct value *new_value(enum kind kind)
{
	struct value *v = bench_alloc(sizeof(*v));

	*v = (struct value){ .kind = kind };
	return v;
}

static char *copy_text(const char *from)
{
	size_t size = strlen(from) + 1;

	return memcpy(bench_alloc(size), from, size);
}

static void append(struct value *to, struct value *v)
{
	if (to->count == to->space) {
		to->space = to->space ? 2 * to->space : 4;
		to->item = bench_grow(to->item, to->space * sizeof(to->item[0]));
	}
	to->item[to->count++] = v;
}

static int holds_items(const struct value *v)
{
	return v->kind == ARRAY || v->kind == OBJECT;
}

static void drop(struct value *v)
{
	for (uint32_t i = 0; i < v->count; i++)
		drop(v->item[i]);
	if (holds_items(v))
		free(v->item);
	else if (v->kind == TEXT)
		free(v->text);
	free(v->name);
	free(v);
}

static int equal(const struct value *a, const struct value *b)
{
	if (a->kind != b->kind || a->count != b->count || !a->name != !b->name)
		return 0;
	if (a->name && strcmp(a->name, b->name) != 0)
		return 0;
	if (a->kind == NUMBER)
		return a->number == b->number;
	if (a->kind == TEXT)
		return strcmp(a->text, b->text) == 0;
	for (uint32_t i = 0; i < a->count; i++)
		if (!equal(a->item[i], b->item[i]))
			return 0;
	return 1;
}

/* ---- Parsing ---- */

static struct value *parse(struct reader *r);

static void skip_space(struct reader *r)
{
	while (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')
		r->at++;
}

static int take(struct reader *r, char c)
{
	skip_space(r);
	if (*r->at != c)
		return 0;
	r->at++;
	return 1;
}

static void expect(struct reader *r, const char *what)
{
	size_t length = strlen(what);

	skip_space(r);
	if (strncmp(r->at, what, length) != 0)
		bench_die("WRONG RESULT: no %s before \"%.20s\"", what, r->at);
	r->at += length;
}

/* \u escapes stand for characters below 128 only, as the generator and the printer have them. */
static char *parse_text(struct reader *r)
{
	const char *end;
	char *text, *to;

	expect(r, "\"");
	for (end = r->at; *end && *end != '"'; end++)
		end += *end == '\\' && end[1];
	text = to = bench_alloc((size_t)(end - r->at) + 1);
	while (r->at < end) {
		if (*r->at != '\\') {
			*to++ = *r->at++;
			continue;
		}
		if (r->at[1] == 'u') {
			*to++ = (char)strtoul((char[]){ r->at[4], r->at[5], 0 }, NULL, 16);
			r->at += 6;
			continue;
		}
		*to++ = (char)(r->at[1] == 'n' ? '\n' : r->at[1] == 't' ? '\t' : r->at[1]);
		r->at += 2;
	}
	*to = 0;
	expect(r, "\"");
	return text;
}

/* Whole numbers by hand, as the faster libraries do. */
static struct value *parse_number(struct reader *r)
{
	struct value *v = new_value(NUMBER);
	const char *at = r->at + (*r->at == '-');
	double number = 0;
	char *end;

	while (*at >= '0' && *at <= '9')
		number = number * 10 + (*at++ - '0');
	if (*at == '.' || *at == 'e' || *at == 'E' || at - r->at > 15) {
		number = strtod(r->at, &end);
		at = end;
	} else if (*r->at == '-') {
		number = -number;
	}
	if (at == r->at + (*r->at == '-'))
		bench_die("WRONG RESULT: no value before \"%.20s\"", at);
	r->at = at;
	v->number = number;
	return v;
}

/* An array or an object, behind its bracket. */
static struct value *parse_items(struct reader *r, enum kind kind, const char *end)
{
	struct value *whole = new_value(kind);

	if (take(r, *end))
		return whole;
	do {
		char *name = NULL;

		if (kind == OBJECT) {
			name = parse_text(r);
			expect(r, ":");
		}
		append(whole, parse(r));
		whole->item[whole->count - 1]->name = name;
	} while (take(r, ','));
	expect(r, end);
	return whole;
}

static struct value *parse(struct reader *r)
{
	struct value *v;

	if (++r->depth > DEEPEST)
		bench_die("WRONG RESULT: nested too deep");
	skip_space(r);
	if (take(r, '[')) {
		v = parse_items(r, ARRAY, "]");
	} else if (take(r, '{')) {
		v = parse_items(r, OBJECT, "}");
	} else if (*r->at == '"') {
		v = new_value(TEXT);
		v->text = parse_text(r);
	} else if (*r->at == 'n' || *r->at == 'f' || *r->at == 't') {
		v = new_value(*r->at == 'n' ? NOTHING : *r->at == 'f' ? FALSE : TRUE);
		expect(r, words[v->kind]);
	} else {
		v = parse_number(r);
	}
	r->depth--;
	return v;
}

static struct value *parse_whole(const char *text)
{
	struct reader r = { .at = text };
	struct value *v = parse(&r);

	skip_space(&r);
	if (*r.at)
		bench_die("WRONG RESULT: \"%.20s\" behind the document", r.at);
	return v;
}

/* ---- Printing ---- */

static void put(struct buffer *b, const char *text, size_t length)
{
	if (b->length + length >= b->space) {
		while (b->length + length >= b->space)
			b->space = b->space ? 2 * b->space : 256;
		b->text = bench_grow(b->text, b->space);
	}
	memcpy(b->text + b->length, text, length);
	b->length += length;
	b->text[b->length] = 0;
}

static void put_word(struct buffer *b, const char *word)
{
	put(b, word, strlen(word));
}

static void put_text(struct buffer *b, const char *text)
{
	char code[8];

	put_word(b, "\"");
	while (*text) {
		size_t plain = strcspn(text, "\"\\\n\t\x01\x02\x03\x04");

		put(b, text, plain);
		text += plain;
		if (!*text)
			break;
		if (*text == '\n')
			put_word(b, "\\n");
		else if (*text == '\t')
			put_word(b, "\\t");
		else if (*text == '"' || *text == '\\')
			put(b, (char[]){ '\\', *text }, 2);
		else
			put(b, code, (size_t)snprintf(code, sizeof(code), "\\u%04x", (unsigned int)*text));
		text++;
	}
	put_word(b, "\"");
}

static void put_number(struct buffer *b, double number)
{
	char digits[32], *at = digits + sizeof(digits);

	if (number == (double)(long long)number && number < 1e15 && number > -1e15) {
		unsigned long long n = (unsigned long long)(number < 0 ? -number : number);

		do
			*--at = (char)('0' + n % 10);
		while (n /= 10);
		if (number < 0)
			*--at = '-';
		put(b, at, (size_t)(digits + sizeof(digits) - at));
	} else {
		put(b, digits, (size_t)snprintf(digits, sizeof(digits), "%.15g", number));
	}
}

static void print(struct buffer *b, const struct value *v)
{
	if (v->kind == NUMBER) {
		put_number(b, v->number);
	} else if (v->kind == TEXT) {
		put_text(b, v->text);
	} else if (holds_items(v)) {
		put_word(b, v->kind == ARRAY ? "[" : "{");
		for (uint32_t i = 0; i < v->count; i++) {
			put(b, ",", i > 0);
			if (v->kind == OBJECT) {
				put_text(b, v->item[i]->name);
				put_word(b, ":");
			}
			print(b, v->item[i]);
		}
		put_word(b, v->kind == ARRAY ? "]" : "}");
	} else {
		put_word(b, words[v->kind]);
	}
}

/* ---- Documents, as text ---- */

/* Words of one to twelve letters, sometimes with what has to be escaped. */
static void make_words(struct bench_worker *w, struct buffer *b, uint32_t count)
{
	static const char *const odd[] = { "\"", "\\", "\n", "\t", "\x01", "\xc3\xa9", "\xe2\x82\xac" };
	char word[16];

	for (uint32_t i = 0; i < count; i++) {
		uint64_t letters = bench_random(&w->random);
		uint32_t length = 1 + bench_below(&w->random, 12);

		put(b, " ", i > 0);
		for (uint32_t j = 0; j < length; j++, letters /= 26)
			word[j] = (char)('a' + letters % 26);
		put(b, word, length);
		if (bench_below(&w->random, 16) == 0)
			put_word(b, odd[bench_below(&w->random, 7)]);
	}
}

static void make_text(struct bench_worker *w, struct buffer *b, uint32_t count)
{
	struct buffer plain = { 0 };

	make_words(w, &plain, count);
	put_text(b, plain.text);
	free(plain.text);
}

static void make_name(struct bench_worker *w, struct buffer *b)
{
	static const char *const names[] = { "id", "name", "text", "created_at", "location", "description", "url",
		"followers", "coordinates", "in_reply_to_status_id", "language", "entities", "retweet_count" };

	put_text(b, names[bench_below(&w->random, sizeof(names) / sizeof(names[0]))]);
	put_word(b, ":");
}

static void make_decimal(struct bench_worker *w, struct buffer *b)
{
	put_number(b, ((double)bench_below(&w->random, 360000000) - 180000000) / 1e6);
}

static void make_scalar(struct bench_worker *w, struct buffer *b)
{
	uint32_t which = bench_below(&w->random, 10);

	if (which < 4)
		make_text(w, b, 1 + bench_below(&w->random, 10));
	else if (which < 7)
		put_number(b, bench_below(&w->random, 1u << 31));
	else if (which < 8)
		make_decimal(w, b);
	else
		put_word(b, words[bench_below(&w->random, 3)]);
}

static void make_record(struct bench_worker *w, struct buffer *b, uint32_t depth)
{
	uint32_t members = 4 + bench_below(&w->random, 12);

	put_word(b, "{");
	for (uint32_t i = 0; i < members; i++) {
		put(b, ",", i > 0);
		make_name(w, b);
		if (depth && bench_below(&w->random, 5) == 0)
			make_record(w, b, depth - 1);
		else
			make_scalar(w, b);
	}
	put_word(b, "}");
}

/* Rings of coordinates, as maps have them. */
static void make_rings(struct bench_worker *w, struct buffer *b)
{
	for (uint32_t rings = 1 + bench_below(&w->random, 8); rings > 0; rings--) {
		put_word(b, "[");
		for (uint32_t points = 3 + bench_below(&w->random, 120); points > 0; points--) {
			put_word(b, "[");
			make_decimal(w, b);
			put_word(b, ",");
			make_decimal(w, b);
			put_word(b, points > 1 ? "]," : "]");
		}
		put_word(b, rings > 1 ? "]," : "]");
	}
}

/* Arrays and objects in each other, to a depth of some hundreds. */
static void make_nest(struct bench_worker *w, struct buffer *b)
{
	uint32_t depth = 50 + bench_below(&w->random, 350);
	char *ends = bench_alloc(depth);

	for (uint32_t i = 0; i < depth; i++) {
		int object = bench_below(&w->random, 2) == 0;

		ends[i] = object ? '}' : ']';
		put_word(b, object ? "{" : "[");
		if (object)
			make_name(w, b);
		make_scalar(w, b);
		put_word(b, ",");
		if (object)
			make_name(w, b);
	}
	make_scalar(w, b);
	while (depth > 0)
		put(b, &ends[--depth], 1);
	free(ends);
}

static void make_document(struct bench_worker *w, struct buffer *b)
{
	uint32_t shape = bench_below(&w->random, 8), count = 2u << bench_below(&w->random, 6);

	put_word(b, "[");
	if (shape == 0)
		make_nest(w, b);
	else if (shape == 1)
		make_rings(w, b);
	for (uint32_t i = 0; shape > 1 && i < count; i++) {
		put(b, ",", i > 0);
		if (shape == 2)
			make_text(w, b, 20u << bench_below(&w->random, 7));
		else
			make_record(w, b, 3);
	}
	put_word(b, "]");
}

/* ---- The store ---- */

/* An array or an object of the tree, from the root downwards by chance. */
static struct value *choose(struct bench_worker *w, struct value *v)
{
	while (v->count && bench_below(&w->random, 4)) {
		uint32_t i = bench_below(&w->random, v->count);

		if (!holds_items(v->item[i]))
			break;
		v = v->item[i];
	}
	return v;
}

static struct value *make_value(struct bench_worker *w)
{
	struct buffer text = { 0 };
	struct value *v;

	if (bench_below(&w->random, 4))
		make_scalar(w, &text);
	else
		make_record(w, &text, 0);
	v = parse_whole(text.text);
	free(text.text);
	return v;
}

/* A text gets longer in its place; what is no text becomes another value. */
static void change(struct bench_worker *w, struct value **item)
{
	struct value *v = *item;
	struct buffer more = { 0 };
	size_t length;

	if (v->kind == TEXT) {
		make_words(w, &more, 5);
		length = strlen(v->text);
		v->text = bench_grow(v->text, length + more.length + 1);
		memcpy(v->text + length, more.text, more.length + 1);
		free(more.text);
	} else {
		*item = make_value(w);
		(*item)->name = v->name;
		v->name = NULL;
		drop(v);
	}
}

static void edit(struct bench_worker *w, struct value *v)
{
	uint32_t i = bench_below(&w->random, v->count + (v->count == 0)), what = bench_below(&w->random, 3);

	if (v->count == 0 || what == 0) {
		append(v, make_value(w));
		if (v->kind == OBJECT)
			v->item[v->count - 1]->name = copy_text("added");
	} else if (what == 1) {
		change(w, &v->item[i]);
	} else {
		drop(v->item[i]);
		memmove(&v->item[i], &v->item[i + 1], (--v->count - i) * sizeof(v->item[0]));
	}
}

/* What comes in is printed as it came. */
static void take_in(struct bench_worker *w, struct value **slot)
{
	struct buffer text = { 0 }, again = { 0 };

	make_document(w, &text);
	if (*slot)
		drop(*slot);
	*slot = parse_whole(text.text);
	print(&again, *slot);
	if (strcmp(text.text, again.text) != 0)
		bench_die("WRONG RESULT: a document was not printed as it was read");
	free(text.text);
	free(again.text);
}

/* What is edited and printed is read as it was. */
static void edit_one(struct bench_worker *w, struct value **slot)
{
	struct buffer text = { 0 };
	struct value *v;

	for (int i = 0; i < EDITS; i++)
		edit(w, choose(w, *slot));
	print(&text, *slot);
	v = parse_whole(text.text);
	if (!equal(v, *slot))
		bench_die("WRONG RESULT: a document was not read as it was printed");
	free(text.text);
	drop(*slot);
	*slot = v;
}

static void *work(void *argument)
{
	struct bench_worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	struct value **store = bench_zeroed(documents * sizeof(store[0]));

	while (bench_take(&quota, 1)) {
		struct value **slot = &store[bench_below(&w->random, (uint32_t)documents)];

		take_in(w, &store[w->done++ % documents]);
		if (*slot)
			edit_one(w, slot);
	}
	for (uint64_t i = 0; i < documents; i++)
		if (store[i])
			drop(store[i]);
	free(store);
	return NULL;
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	bench_run(&bench, work);
	return 0;
}
