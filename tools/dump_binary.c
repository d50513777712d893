/* SPDX-License-Identifier: MIT */
/* The binary dump: doc/view-format.md. */
#include "tools/dump.h"
#include "tools/utf8.h"

#define VERSION 1
#define HEADER 16
#define SHORT "a record is shorter than it must be"

enum record { REPORT = 1, ARENA, REGION, SLAB, BLOCK, STACK, END, PROFILE, MODULE, FRAME };

struct bytes {
	const unsigned char *at;
	size_t left;
};

/* Where there are not so many bytes left, the record is wrong, which who calls has seen before. */
static uint64_t get(struct bytes *b, unsigned n)
{
	uint64_t value = 0;

	if (b->left < n)
		return 0;
	for (unsigned i = n; i-- > 0;)
		value = value << 8 | b->at[i];
	b->at += n;
	b->left -= n;
	return value;
}

static const char *read_report(struct dump *d, struct bytes *b)
{
	if (b->left < 112)
		return SHORT;
	d->exact = get(b, 4) == 1;
	for (int i = 0; i < 5; i++)
		(void)get(b, 4);
	for (int i = 0; i < 3; i++)
		(void)get(b, 8);
	d->said.regions = get(b, 8);
	d->said.slabs = get(b, 8);
	d->said.blocks = get(b, 8);
	d->said.blocks_bytes = get(b, 8);
	d->said.objects = get(b, 8);
	d->said.objects_bytes = get(b, 8);
	d->said.cached = get(b, 8);
	d->said.cached_bytes = get(b, 8);
	return dump_add_report(d);
}

/* What is left of a record is a name, of any bytes: what is no UTF-8 becomes U+FFFD, as JSON has it. There is room for
 * four times as many bytes, and one. */
static size_t get_name(struct bytes *b, char *name)
{
	size_t used = 0;

	while (b->left > 0) {
		uint32_t c;
		size_t n = utf8_decode((const char *)b->at, b->left, &c);

		used += utf8_encode(n ? c : UTF8_REPLACEMENT, name + used);
		b->at += n ? n : 1;
		b->left -= n ? n : 1;
	}
	name[used] = 0;
	return used;
}

static const char *read_arena(struct dump *d, struct bytes *b)
{
	char name[4 * DUMP_NAME_MAX + 1];
	uint64_t number;

	if (b->left < 4 || b->left >= DUMP_NAME_MAX)
		return b->left < 4 ? SHORT : "a name that is too long";
	number = get(b, 4);
	return dump_add_arena(d, number, name, get_name(b, name));
}

static const char *read_region(struct dump *d, struct bytes *b)
{
	struct dump_region r = { 0 };

	if (b->left < 28)
		return SHORT;
	r.address = get(b, 8);
	r.size = get(b, 8);
	r.arena = (uint32_t)get(b, 4);
	r.node = (int32_t)(uint32_t)get(b, 4);
	r.pages = (int32_t)(uint32_t)get(b, 4);
	return dump_add_region(d, &r);
}

static const char *read_states(struct dump_slab *s, struct bytes *b)
{
	const char *error = NULL;
	uint64_t byte = 0;

	if (b->left < ((uint64_t)s->objects + 3) / 4)
		return SHORT;
	for (uint32_t i = 0; !error && i < s->objects; i++) {
		if (i % 4 == 0)
			byte = get(b, 1);
		error = dump_slab_run(s, 1, byte >> (i % 4 * 2) & 3);
	}
	return error;
}

static const char *read_items(struct dump_slab *s, struct bytes *b)
{
	const char *error = NULL;
	uint64_t end = 0;

	if (b->left < (uint64_t)s->objects * 4)
		return SHORT;
	for (uint32_t i = 0; !error && i < s->objects; i++) {
		uint64_t offset = get(b, 2) * 16, what = get(b, 2);

		error = dump_slab_item(s, offset, (what & 0x1fff) * 16, (unsigned)(what >> 14), &end);
	}
	return error;
}

static const char *read_slab(struct dump *d, struct bytes *b)
{
	struct dump_slab s = { 0 };
	const char *error;

	if (b->left < 28)
		return SHORT;
	s.address = get(b, 8);
	s.size = (uint32_t)get(b, 4);
	s.object_size = (uint32_t)get(b, 4);
	s.objects = (uint32_t)get(b, 4);
	s.live = (uint32_t)get(b, 4);
	s.cached = (uint32_t)get(b, 4);
	error = s.object_size == 0 ? read_items(&s, b) : read_states(&s, b);
	return error ? error : dump_add_slab(d, &s);
}

static const char *read_block(struct dump *d, struct bytes *b)
{
	uint64_t address = get(b, 8), size = get(b, 8);

	return dump_add_block(d, address, size);
}

/* ---- who allocated it ---- */

static const char *read_module(struct dump *d, struct bytes *b)
{
	char id[2 * DUMP_ID_MAX + 1] = "", file[4 * DUMP_TEXT_MAX + 1];
	uint64_t number = get(b, 4), n = get(b, 4);

	if (n > DUMP_ID_MAX || n > b->left)
		return n > b->left ? SHORT : "a build id that is too long";
	for (uint64_t i = 0; i < n; i++) {
		uint64_t byte = get(b, 1);

		id[2 * i] = "0123456789abcdef"[byte >> 4];
		id[2 * i + 1] = "0123456789abcdef"[byte & 15];
	}
	if (b->left >= DUMP_TEXT_MAX)
		return "a name that is too long";
	get_name(b, file);
	return dump_add_module(d, number, id, file);
}

static const char *read_frame(struct dump *d, struct bytes *b)
{
	char function[4 * DUMP_TEXT_MAX + 1];
	uint64_t number = get(b, 4), module = get(b, 4), offset = get(b, 8);

	if (b->left >= DUMP_TEXT_MAX)
		return "a name that is too long";
	get_name(b, function);
	return dump_add_frame(d, number, module, offset, function);
}

static const char *read_stack(struct dump *d, struct bytes *b)
{
	struct dump_stack s = { 0 };
	uint32_t numbers[DUMP_DEPTH_MAX];

	s.samples = get(b, 8);
	s.objects = get(b, 8);
	s.bytes = get(b, 8);
	s.object_size = get(b, 8);
	s.arena = (uint32_t)get(b, 4);
	(void)get(b, 4);
	if (b->left > 4 * sizeof(numbers) / sizeof(numbers[0]) || b->left % 4 != 0)
		return "a stack of more frames than there can be, or of half a one";
	while (b->left > 0)
		numbers[s.depth++] = (uint32_t)get(b, 4);
	return dump_add_stack(d, &s, numbers);
}

static const char *read_record(struct dump *d, uint32_t type, struct bytes *b)
{
	switch (type) {
	case REPORT:
		return read_report(d, b);
	case ARENA:
		return read_arena(d, b);
	case REGION:
		return read_region(d, b);
	case SLAB:
		return read_slab(d, b);
	case BLOCK:
		return b->left < 16 ? SHORT : read_block(d, b);
	case END:
		return b->left < 8 ? SHORT : dump_end(d, get(b, 8));
	case PROFILE:
		return b->left < 16 ? SHORT : dump_add_profile(d, get(b, 8));
	case MODULE:
		return b->left < 8 ? SHORT : read_module(d, b);
	case FRAME:
		return b->left < 16 ? SHORT : read_frame(d, b);
	case STACK:
		return b->left < 40 ? SHORT : read_stack(d, b);
	default:
		d->records++; /* of a later version */
		return NULL;
	}
}

const char *dump_read_binary(struct dump *d, const char *text, size_t length, uint64_t *where)
{
	struct bytes b = { (const unsigned char *)text, length };
	const char *error = NULL;

	*where = 0;
	if (length < HEADER)
		return "the file was cut off";
	(void)get(&b, 8);
	if (get(&b, 4) != VERSION)
		return "of a version that this command does not know";
	(void)get(&b, 4);
	while (!error && b.left > 0) {
		struct bytes record;
		uint32_t type;

		*where = length - b.left;
		if (d->has_ended)
			return "something is behind the end";
		if (b.left < 8)
			return "the file was cut off";
		type = (uint32_t)get(&b, 4);
		record.left = (size_t)get(&b, 4);
		record.at = b.at;
		if (record.left > b.left)
			return "the file was cut off";
		b.at += record.left;
		b.left -= record.left;
		error = read_record(d, type, &record);
	}
	return error;
}
