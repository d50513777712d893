/* SPDX-License-Identifier: MIT */
/* The heap profile as profile.proto (github.com/google/pprof, proto/profile.proto), in the wire format of protocol
 * buffers, and that in the gzip format of RFC 1952, as blocks that are stored and not compressed (RFC 1951, 3.2.4): a
 * profile is some tens of kilobytes.
 *
 * A message's length stands before it: each is put together in a buffer of its own, and none is larger than a sample
 * with its stack. Strings are told by number; what is to be named gets its number where it is first counted. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "lib/view/frames.h"
#include "numa/os.h"

#define BLOCK 16384      /* bytes of a stored block */
#define MESSAGE 1600     /* of a message: a sample of QY_SITE_FRAMES frames has 64 * 10 + 4 * 10 + 3 * 40 */

/* ---- gzip ---- */

struct sink {
	struct qy_text out;
	char buffer[BLOCK];
	uint32_t crc;
	uint32_t total;
	size_t used;
	uint8_t block[BLOCK];
};

/* Of RFC 1952, section 8, a nibble at a time. */
static uint32_t crc_of(uint32_t crc, const uint8_t *p, size_t n)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};

	for (crc = ~crc; n > 0; n--, p++) {
		crc = crc >> 4 ^ table[(crc ^ *p) & 15];
		crc = crc >> 4 ^ table[(crc ^ *p >> 4) & 15];
	}
	return ~crc;
}

static void put_block(struct sink *out, bool last)
{
	uint16_t n = (uint16_t)out->used;
	uint8_t head[5] = { last, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)((uint16_t)~n >> 8) };

	qy_text_put(&out->out, (const char *)head, sizeof(head));
	qy_text_put(&out->out, (const char *)out->block, n);
	out->crc = crc_of(out->crc, out->block, n);
	out->total += n;
	out->used = 0;
}

static void put_bytes(struct sink *out, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	while (n > 0) {
		size_t some = qy_min(n, BLOCK - out->used);

		memcpy(out->block + out->used, p, some);
		out->used += some;
		p += some;
		n -= some;
		if (out->used == BLOCK)
			put_block(out, false);
	}
}

static void begin_gzip(struct sink *out, int fd)
{
	static const uint8_t head[10] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255 };

	qy_text_init(&out->out, out->buffer, sizeof(out->buffer), fd);
	qy_text_put(&out->out, (const char *)head, sizeof(head));
}

static int end_gzip(struct sink *out)
{
	uint8_t end[8];

	put_block(out, true);
	for (unsigned i = 0; i < 4; i++) {
		end[i] = (uint8_t)(out->crc >> (8 * i));
		end[4 + i] = (uint8_t)(out->total >> (8 * i));
	}
	qy_text_put(&out->out, (const char *)end, sizeof(end));
	return qy_text_flush(&out->out) == 0 ? 0 : errno;
}

/* ---- protocol buffers ---- */

struct message {
	size_t used;
	uint8_t bytes[MESSAGE];
};

static void varint(struct message *m, uint64_t n)
{
	qy_assert(m->used + 10 <= sizeof(m->bytes));
	for (; n >= 0x80; n >>= 7)
		m->bytes[m->used++] = (uint8_t)(n | 0x80);
	m->bytes[m->used++] = (uint8_t)n;
}

static void number(struct message *m, unsigned field, uint64_t n)
{
	if (n == 0)
		return;
	varint(m, field << 3);
	varint(m, n);
}

static void bytes_field(struct message *m, unsigned field, const void *bytes, size_t n)
{
	varint(m, field << 3 | 2);
	varint(m, n);
	qy_assert(m->used + n <= sizeof(m->bytes));
	memcpy(m->bytes + m->used, bytes, n);
	m->used += n;
}

static void sub(struct message *m, unsigned field, const struct message *inner)
{
	bytes_field(m, field, inner->bytes, inner->used);
}

/* One of the profile's own fields. */
static void emit(struct sink *out, unsigned field, const void *bytes, size_t n)
{
	struct message head = { .used = 0 };

	varint(&head, field << 3 | 2);
	varint(&head, n);
	put_bytes(out, head.bytes, head.used);
	put_bytes(out, bytes, n);
}

static void emit_number(struct sink *out, unsigned field, uint64_t n)
{
	struct message m = { .used = 0 };

	number(&m, field, n);
	put_bytes(out, m.bytes, m.used);
}

/* ---- strings ---- */

/* Those that are always there, in the order of their numbers; then come a name for each arena that has a site, and a
 * file's name and build id for each object. */
#define STRINGS(X)                                                                                          \
	X(NONE, "") X(ALLOC_OBJECTS, "alloc_objects") X(COUNT, "count") X(ALLOC_SPACE, "alloc_space")       \
	X(BYTES, "bytes") X(INUSE_OBJECTS, "inuse_objects") X(INUSE_SPACE, "inuse_space") X(SPACE, "space") \
	X(NODE, "node") X(ARENA, "arena") X(DROP, DROP_FRAMES) X(COMMENT, "quarry: objects and bytes are estimates")

/* What stands between the program and a sample where quarry's code is part of the program. */
#define DROP_FRAMES "malloc|calloc|realloc|reallocarray|aligned_alloc|posix_memalign|memalign|valloc|pvalloc|" \
		    "(quarry|qy)_.*|_Zn[aw].*|operator new.*"

#define AS_NUMBER(name, text) S_##name,
#define AS_TEXT(name, text) text,

enum { STRINGS(AS_NUMBER) S_OTHERS };
static const char *const strings[] = { STRINGS(AS_TEXT) };

/* ---- the profile ---- */

struct work {
	struct sink sink;
	struct qy_frames *frames;
	uint32_t arena_string[UINT16_MAX + 1]; /* 0: no site of it yet */
	uint16_t arenas[UINT16_MAX + 1];       /* in the order of their strings */
	uint32_t next_string;
};

static void value_type(struct sink *out, unsigned field, unsigned type, unsigned unit)
{
	struct message m = { .used = 0 };

	number(&m, 1, type);
	number(&m, 2, unit);
	emit(out, field, m.bytes, m.used);
}

static void label(struct message *sample, unsigned key, unsigned text, uint64_t n, unsigned unit)
{
	struct message m = { .used = 0 };

	number(&m, 1, key);
	number(&m, 2, text);
	number(&m, 3, n);
	number(&m, 4, unit);
	sub(sample, 3, &m);
}

/* (Sites that came since frames were looked at are left for the next time: they would have no location.) */
static bool is_known(const struct work *w, const struct qy_site *s)
{
	return qy_frames_know(w->frames, s) && w->arena_string[s->arena] != 0;
}

static void put_sample(void *ctx, const struct qy_site *s)
{
	struct work *w = ctx;
	struct message m = { .used = 0 }, part = { .used = 0 };
	struct qy_site_figures f;

	qy_site_figures(s, &f);
	if (f.made == 0 || !is_known(w, s))
		return;
	/* (A location's number is its address.) */
	for (uint32_t i = 0; i < s->depth; i++)
		varint(&part, qy_call_of(s, i));
	sub(&m, 1, &part);
	part.used = 0;
	varint(&part, f.made_objects);
	varint(&part, f.made_bytes);
	varint(&part, f.live_objects);
	varint(&part, f.live_bytes);
	sub(&m, 2, &part);
	label(&m, S_BYTES, 0, s->size, S_BYTES);
	label(&m, S_ARENA, w->arena_string[s->arena], 0, 0);
	if (qy_site_node(s) >= 0)
		label(&m, S_NODE, 0, (uint64_t)qy_site_node(s), 0);
	emit(&w->sink, 2, m.bytes, m.used);
}

static void put_locations(struct work *w)
{
	const struct qy_frames *f = w->frames;

	for (size_t i = 0; i < f->count; i++) {
		size_t module = qy_frame_module(f, f->call[i]);
		struct message m = { .used = 0 };

		number(&m, 1, f->call[i]);
		number(&m, 2, module == f->modules ? 0 : module + 1);
		number(&m, 3, f->call[i]);
		emit(&w->sink, 4, m.bytes, m.used);
	}
}

static void put_objects(struct work *w)
{
	for (size_t i = 0; i < w->frames->modules; i++) {
		const struct qy_object *o = &w->frames->module[i];
		struct message m = { .used = 0 };

		number(&m, 1, i + 1);
		number(&m, 2, o->from);
		number(&m, 3, o->to);
		number(&m, 4, o->offset);
		number(&m, 5, w->next_string + 2 * i);
		number(&m, 6, w->next_string + 2 * i + 1);
		emit(&w->sink, 3, m.bytes, m.used);
	}
}

static void put_string(struct sink *out, const char *text)
{
	emit(out, 6, text, strlen(text));
}

static void put_arena_names(struct work *w)
{
	for (uint32_t n = S_OTHERS; n < w->next_string; n++) {
		struct qy_site like = { .arena = w->arenas[n - S_OTHERS] };
		char name[QUARRY_ARENA_NAME_MAX];

		qy_site_arena(&like, name);
		put_string(&w->sink, name);
	}
}

static void put_object_names(struct work *w)
{
	for (size_t i = 0; i < w->frames->modules; i++) {
		const struct qy_object *o = &w->frames->module[i];
		char id[2 * sizeof(o->id) + 1] = "";

		for (unsigned k = 0; k < o->id_length; k++) {
			id[2 * k] = "0123456789abcdef"[o->id[k] >> 4];
			id[2 * k + 1] = "0123456789abcdef"[o->id[k] & 15];
			id[2 * k + 2] = 0;
		}
		put_string(&w->sink, o->name);
		put_string(&w->sink, id);
	}
}

/* ---- what there is ---- */

static void note_arena(void *ctx, const struct qy_site *s)
{
	struct work *w = ctx;

	if (w->arena_string[s->arena] == 0) {
		w->arenas[w->next_string - S_OTHERS] = s->arena;
		w->arena_string[s->arena] = w->next_string++;
	}
}

static void put_all(struct work *w, uint64_t mean)
{
	struct sink *out = &w->sink;
	value_type(out, 1, S_ALLOC_OBJECTS, S_COUNT);
	value_type(out, 1, S_ALLOC_SPACE, S_BYTES);
	value_type(out, 1, S_INUSE_OBJECTS, S_COUNT);
	value_type(out, 1, S_INUSE_SPACE, S_BYTES);
	qy_sites_visit(put_sample, w);
	put_objects(w);
	put_locations(w);
	for (unsigned i = 0; i < S_OTHERS; i++)
		put_string(out, strings[i]);
	put_arena_names(w);
	put_object_names(w);
	emit_number(out, 7, S_DROP);
	emit_number(out, 9, (uint64_t)time(NULL) * 1000000000);
	value_type(out, 11, S_SPACE, S_BYTES);
	emit_number(out, 12, mean);
	emit_number(out, 13, S_COMMENT);
	emit_number(out, 14, S_INUSE_SPACE);
}

static int write_with(struct qy_frames *frames, int fd, uint64_t mean)
{
	struct work *w;
	int error;

	w = qy_os->mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (w == MAP_FAILED)
		return ENOMEM;
	w->frames = frames;
	w->next_string = S_OTHERS;
	qy_sites_visit(note_arena, w);
	begin_gzip(&w->sink, fd);
	put_all(w, mean);
	error = end_gzip(&w->sink);
	qy_os->munmap(w, sizeof(*w));
	return error;
}

int qy_pprof_write(int fd, uint64_t mean)
{
	struct qy_frames *frames = qy_frames_get(false);
	int error;

	if (frames == NULL)
		return -1;
	error = write_with(frames, fd, mean);
	qy_frames_put(frames);
	errno = error;
	return error == 0 ? 0 : -1;
}
