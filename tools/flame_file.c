/* SPDX-License-Identifier: MIT */
/* Reading a profile: what is it? */
#include "tools/flame.h"

#include <stdlib.h>
#include <string.h>

#include "tools/json.h"
#include "tools/tools.h"

static bool is_gzip(const char *text, size_t length)
{
	return length >= 2 && memcmp(text, "\x1f\x8b", 2) == 0;
}

static bool begins(const char *text, size_t length, const char *with)
{
	return length >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

/* profile.proto begins with its first field, the types of its values: a byte that text begins with at most by an empty
 * line. The other forms are text. */
static bool read_as(struct flame_profile *p, char *text, size_t length)
{
	if (length == 0)
		return flame_fail(p, "the file is empty");
	if (text[0] == '\n')
		return flame_read_pprof(p, (const uint8_t *)text, length);
	if (memchr(text, '\0', length))
		return flame_fail(p, "neither a profile nor collapsed stacks");
	text[length] = '\0';
	if (begins(text, length, "heap profile:") || begins(text, length, "heap_v2/"))
		return flame_read_heap(p, text, length);
	if (text[0] == '{')
		return flame_read_json(p, text, length);
	return flame_read_collapsed(p, text, length);
}

int flame_read(struct flame_profile *p, const char *name, char *text, size_t length)
{
	char *unpacked = NULL;
	size_t size;
	bool done;

	if (is_gzip(text, length)) {
		done = flame_unpack((const uint8_t *)text, length, &unpacked, &size, &p->error) &&
		       read_as(p, unpacked, size);
	} else {
		done = read_as(p, text, length);
	}
	free(unpacked);
	/* (What a reader went on after is one nevertheless: no memory for the name of an arena.) */
	done = done && !p->error;
	return done ? STATUS_OK : fail(STATUS_FAILED, "flame: %s: %s", name, p->error);
}

int flame_read_file(struct flame_profile *p, const char *path)
{
	char *text = NULL;
	size_t length;
	int status = read_input("flame", path, &text, &length);

	if (status == STATUS_OK)
		status = flame_read(p, input_name(path), text, length);
	free(text);
	return status;
}
