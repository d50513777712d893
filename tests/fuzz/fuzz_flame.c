/* SPDX-License-Identifier: MIT */
/* The readers of profiles (tools/flame_file.c), of reports of leaks (tools/leaks_read.c) and of programs' symbols
 * (tools/flame_elf.c) under libFuzzer, or by mutations of real ones: whatever a file has in it is read or refused, the tree of
 * a profile that was read adds up, and it is drawn.
 *
 *	clang -fsanitize=fuzzer,address,undefined -DQUARRY_FUZZ -DQUARRY_ZLIB=1 -I. -Iinclude tests/fuzz/fuzz_flame.c \
 *		tools/flame_{file,unpack,pprof,heap,lines,model,tree,table,json,svg,names,elf,dwarf}.c tools/leaks_read.c \
 *		tools/{index,json,svg,utf8,system}.c -lz -lm
 *
 * (A seed of each form: what tests/flame.sh and tests/leaks.sh give to the program.) Without QUARRY_FUZZ it is a program of its
 * own: fuzz_flame INPUTS FILE… makes that many inputs of each file, as it is and, when it is gzip, unpacked: cut, with bytes
 * changed, and pieces left out and doubled. Of each file some must be read, and some refused. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/flame.h"
#include "tools/leaks.h"
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

static FILE *nowhere(void)
{
	static FILE *out;

	if (!out)
		out = fopen("/dev/null", "w");
	must(out);
	return out;
}

static void try_profile(char *text, size_t size)
{
	struct flame_profile p = { 0 };
	struct flame_tree tree = { 0 };
	struct flame_look look = { .node = -1, .inverted = size & 1, .allocated = size & 2, .objects = size & 4,
				   .file = "input" };

	if (flame_read(&p, "input", text, size) == STATUS_OK) {
		check_profile(&p);
		/* (Names: none of a file, as the seeds name programs that are here.) */
		for (size_t i = 0; i < p.module_count; i++)
			p.modules[i].path[0] = '\0';
		must(flame_name(&p));
		must(flame_build(&tree, &p, &look));
		add_up(&tree);
		flame_print_text(&tree, &look, nowhere());
		flame_print_json(&tree, &look, nowhere());
		must(flame_print_svg(&tree, &look, nowhere()));
		taken++;
	}
	flame_tree_free(&tree);
	flame_free(&p);
}

/* A path of what is read from files. */
static const char *in_a_file(const uint8_t *data, size_t size)
{
	static char path[64];
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("input", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

static void try_leaks(const uint8_t *data, size_t size)
{
	struct leaks leaks = { .leak_count = 0 };

	if (leaks_read(&leaks, in_a_file(data, size)) == STATUS_OK) {
		for (size_t i = 0; i < leaks.report_count; i++)
			must(leaks.reports[i].count <= leaks.leak_count - leaks.reports[i].first);
		for (size_t i = 0; i < leaks.leak_count; i++)
			must(leaks.leaks[i].depth == 0 || leaks.leaks[i].first + leaks.leaks[i].depth <= leaks.place_count);
		for (size_t i = 0; i < leaks.place_count; i++)
			must(leaks.names.places[leaks.places[i]].count > 0);
		taken++;
	}
	leaks_free(&leaks);
}

static void try_program(const uint8_t *data, size_t size)
{
	struct flame_elf *elf = flame_elf_open(in_a_file(data, size));
	size_t length = 0;

	for (uint64_t address = 0; elf && address < 0x8000; address += 61) {
		const char *name = flame_elf_symbol(elf, address);
		uint64_t at;

		length += (name ? strlen(name) : 0) + flame_elf_address(elf, address, &at);
	}
	/* (What has no symbols that are asked for is none.) */
	*(length ? &taken : &refused) += 1;
	flame_elf_close(elf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* as large as it is, so that a byte too many is seen */

	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	if (size > 4 && memcmp(data, "\x7f" "ELF", 4) == 0)
		try_program(data, size);
	else if (memmem(data, size < 100 ? size : 100, "{\"quarry_leaks\"", 15))
		try_leaks(data, size);
	else
		try_profile(text, size);
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

static bool spoil_often(const char *name, const uint8_t *whole, size_t size, unsigned long inputs)
{
	static uint8_t input[INPUT_MAX];

	taken = refused = 0;
	for (unsigned long k = 0; k < inputs; k++) {
		memcpy(input, whole, size);
		LLVMFuzzerTestOneInput(input, spoil(input, size));
	}
	printf("fuzz_flame: %s: %lu read, %lu refused\n", name, taken, refused);
	return taken > 0 && refused > 0;
}

static bool spoil_file(const char *name, unsigned long inputs)
{
	static uint8_t whole[INPUT_MAX];
	FILE *file = fopen(name, "rb");
	const char *error;
	char *unpacked = NULL;
	size_t size;
	bool done;

	if (!file) {
		perror(name);
		return false;
	}
	size = fread(whole, 1, sizeof(whole), file);
	fclose(file);
	done = spoil_often(name, whole, size, inputs);
	if (size < 2 || memcmp(whole, "\x1f\x8b", 2) != 0)
		return done;
	if (!flame_unpack(whole, size, &unpacked, &size, &error) || size > INPUT_MAX)
		done = false;
	else
		done = spoil_often("unpacked", (uint8_t *)unpacked, size, inputs) && done;
	free(unpacked);
	return done;
}

int main(int argc, char **argv)
{
	unsigned long inputs = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	bool done = true;

	model_start("fuzz_flame");
	for (int i = 2; i < argc; i++)
		done = spoil_file(argv[i], inputs) && done;
	return !done;
}
#endif
