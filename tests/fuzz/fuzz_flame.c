/* SPDX-License-Identifier: MIT */
/* The readers of profiles (tools/flame_file.c) under libFuzzer, or by mutations of real ones: whatever a file has in it is
 * read or refused, and the tree of what was read adds up.
 *
 *	clang -fsanitize=fuzzer,address,undefined -DQUARRY_FUZZ -DQUARRY_ZLIB=1 -I. -Iinclude tests/fuzz/fuzz_flame.c \
 *		tools/flame_{file,unpack,pprof,heap,lines,model,tree}.c tools/{index,json,utf8,system}.c -lz -lm
 *
 * Without QUARRY_FUZZ it is a program of its own: fuzz_flame INPUTS FILE… makes that many inputs of each file, as it is
 * and, when it is gzip, unpacked: cut, with bytes changed, and pieces left out and doubled. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flame.h"
#include "tools/tools.h"
#include "tools/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long refused, taken;

int fail(enum status status, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	if (vsnprintf(line, sizeof(line), format, args) < 0 || strchr(line, '\n'))
		abort();
	va_end(args);
	refused++;
	return status;
}

/* (It is the C++ library's.) */
const char *flame_demangle(const char *name)
{
	return name;
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_profile(const struct flame_profile *p)
{
	for (size_t i = 0; i < p->sample_count; i++) {
		const struct flame_sample *s = &p->samples[i];

		must(s->first <= p->frame_count && s->count <= p->frame_count - s->first);
		for (uint32_t k = 0; k < s->count; k++)
			must(p->frames[s->first + k] < p->place_count);
	}
	for (size_t i = 0; i < p->place_count; i++) {
		const struct flame_place *place = &p->places[i];

		must(place->module == FLAME_NONE || place->module < p->module_count);
		must(place->first <= p->functions_of_count && place->count <= p->functions_of_count - place->first);
		for (uint32_t k = 0; k < place->count; k++)
			must(p->functions_of[place->first + k] < p->function_count);
	}
	for (size_t i = 0; i < p->function_count; i++)
		for (const char *name = p->functions[i].name; *name;) {
			uint32_t c;
			size_t n = utf8_decode(name, strlen(name), &c);

			must(n > 0 && utf8_shows(c));
			name += n;
		}
}

static void add_up(const struct flame_tree *t)
{
	for (uint32_t i = 0; i < t->count; i++) {
		const struct flame_node *n = &t->nodes[i];
		uint64_t children = n->self[1];

		for (uint32_t k = n->child; k; k = t->nodes[k].next) {
			must(k > i && t->nodes[k].parent == i && t->nodes[k].depth == n->depth + 1);
			must(n->depth < FLAME_DEPTH_MAX);
			children = flame_sum(children, t->nodes[k].total[1]);
		}
		must(children == n->total[1]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct flame_profile p = { 0 };
	struct flame_tree tree = { 0 };
	struct flame_look look = { .node = -1, .inverted = size & 1, .allocated = size & 2 };
	char *text = malloc(size + 1); /* as large as it is, so that a byte too many is seen */

	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	if (flame_read(&p, "input", text, size) == STATUS_OK) {
		check_profile(&p);
		must(flame_build(&tree, &p, &look));
		add_up(&tree);
		taken++;
	}
	flame_tree_free(&tree);
	flame_free(&p);
	free(text);
	return 0;
}

#ifndef QUARRY_FUZZ
#define INPUT_MAX ((size_t)1 << 20)
#define MODEL_FAIL(...) abort()
#include "tests/unit/model.h"

static size_t some_length(size_t size, size_t at)
{
	size_t n = model_below(model_one_in(4) ? 4096 : 16) + 1;

	return n < size - at ? n : size - at;
}

static size_t leave_out(uint8_t *data, size_t size)
{
	size_t from = model_below((uint32_t)size), n = some_length(size, from);

	memmove(data + from, data + from + n, size - from - n);
	return size - n;
}

static size_t twice(uint8_t *data, size_t size)
{
	size_t from = model_below((uint32_t)size), n = some_length(size, from);

	if (size + n > INPUT_MAX)
		return size;
	memmove(data + from + n, data + from, size - from);
	return size + n;
}

static void change(uint8_t *data, size_t size)
{
	static const uint8_t bytes[] = { 0, 1, 0x7f, 0x80, 0xff, '\n', ';', ' ', '0', '9', '[', '"', '@', '{' };
	size_t at = model_below((uint32_t)size);

	for (uint32_t n = model_below(12); at < size; at++, n--) {
		data[at] = model_one_in(2) ? bytes[model_below(sizeof(bytes))] : (uint8_t)model_random();
		if (n == 0 || !model_one_in(4))
			break;
	}
}

static size_t spoil(uint8_t *data, size_t size)
{
	for (uint32_t n = model_below(5); n > 0 && size > 8; n--)
		switch (model_below(8)) {
		case 0:
			size = model_below((uint32_t)size) + 1;
			break;
		case 1:
			size = leave_out(data, size);
			break;
		case 2:
			size = twice(data, size);
			break;
		default:
			change(data, size);
		}
	return size;
}

static void spoil_often(const uint8_t *whole, size_t size, unsigned long inputs)
{
	static uint8_t input[INPUT_MAX];

	for (unsigned long k = 0; k < inputs; k++) {
		memcpy(input, whole, size);
		LLVMFuzzerTestOneInput(input, spoil(input, size));
	}
}

int main(int argc, char **argv)
{
	static uint8_t whole[INPUT_MAX];
	unsigned long inputs = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;

	model_start("fuzz_flame");
	for (int i = 2; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		const char *error;
		char *unpacked;
		size_t size;

		if (!file) {
			perror(argv[i]);
			return 1;
		}
		size = fread(whole, 1, sizeof(whole), file);
		fclose(file);
		spoil_often(whole, size, inputs);
		if (size < 2 || memcmp(whole, "\x1f\x8b", 2) != 0)
			continue;
		if (flame_unpack(whole, size, &unpacked, &size, &error) && size <= INPUT_MAX)
			spoil_often((uint8_t *)unpacked, size, inputs);
		free(unpacked);
	}
	printf("fuzz_flame: %lu read, %lu refused\n", taken, refused);
	return argc > 2 && (taken == 0 || refused == 0);
}
#endif
