/* SPDX-License-Identifier: MIT */
/* What a profile is made of. */
#include "tools/flame.h"

#include <stdlib.h>
#include <string.h>

#include "tools/utf8.h"

uint64_t flame_sum(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

bool flame_fail(struct flame_profile *p, const char *error)
{
	if (!p->error)
		p->error = error;
	return false;
}

bool flame_no_memory(struct flame_profile *p)
{
	return flame_fail(p, "no memory");
}

bool flame_grow(struct flame_profile *p, void *list, size_t count, size_t *room, size_t size, size_t most, const char *error)
{
	size_t more = *room ? 2 * *room : 64;
	void **at = list, *grown;

	if (count >= most)
		return flame_fail(p, error);
	if (count < *room)
		return true;
	more = more < most ? more : most;
	grown = realloc(*at, more * size);
	if (!grown)
		return flame_no_memory(p);
	*at = grown;
	*room = more;
	return true;
}

char *flame_copy(struct flame_profile *p, const char *text, size_t length)
{
	char *copy = NULL;

	length = strnlen(text, length);
	if (length >= FLAME_TEXT_MAX - p->text_bytes) {
		flame_fail(p, "more than 512 MiB of names");
		return NULL;
	}
	copy = strndup(text, length);
	if (!copy)
		flame_no_memory(p);
	else
		p->text_bytes += length + 1;
	return copy;
}

/* ---- functions ---- */

/* Text of UTF-8 without what a terminal would obey, or XML cannot have. */
static void clean(char to[FLAME_NAME_MAX], const char *name, size_t length)
{
	size_t used = 0;

	for (size_t i = 0; i < length && used + 4 < FLAME_NAME_MAX;) {
		uint32_t c = UTF8_REPLACEMENT;
		size_t n = utf8_decode(name + i, length - i, &c);

		used += utf8_encode(n && utf8_shows(c) ? c : UTF8_REPLACEMENT, to + used);
		i += n ? n : 1;
	}
	to[used] = '\0';
}

uint32_t flame_add_function(struct flame_profile *p, const char *name, size_t length, uint32_t module)
{
	char text[FLAME_NAME_MAX];
	uint64_t hash;
	uint32_t i;

	clean(text, name, length);
	hash = index_hash_text(text, module);
	for (size_t step = 0; (i = index_next(&p->function_index, hash, &step)) != INDEX_NONE;)
		if (p->functions[i].module == module && strcmp(p->functions[i].name, text) == 0)
			return i;
	if (!flame_grow(p, &p->functions, p->function_count, &p->function_room, sizeof(p->functions[0]), FLAME_PLACES_MAX,
			"more than 4194304 functions"))
		return FLAME_NONE;
	i = (uint32_t)p->function_count;
	p->functions[i] = (struct flame_function){ .name = flame_copy(p, text, sizeof(text)), .module = module };
	if (!p->functions[i].name)
		return FLAME_NONE;
	p->function_count++;
	return index_add(&p->function_index, hash, i) || flame_no_memory(p) ? i : FLAME_NONE;
}

/* ---- places ---- */

uint32_t flame_add_place(struct flame_profile *p, uint64_t address, uint32_t module)
{
	if (!flame_grow(p, &p->places, p->place_count, &p->place_room, sizeof(p->places[0]), FLAME_PLACES_MAX,
			"more than 4194304 places in programs"))
		return FLAME_NONE;
	p->places[p->place_count] = (struct flame_place){ .address = address, .module = module };
	return (uint32_t)p->place_count++;
}

uint32_t flame_place_at(struct flame_profile *p, uint64_t address, uint32_t module)
{
	uint64_t hash = index_hash(address, module);
	uint32_t i;

	for (size_t step = 0; (i = index_next(&p->place_index, hash, &step)) != INDEX_NONE;)
		if (p->places[i].address == address && p->places[i].module == module)
			return i;
	i = flame_add_place(p, address, module);
	return i == FLAME_NONE || index_add(&p->place_index, hash, i) || flame_no_memory(p) ? i : FLAME_NONE;
}

bool flame_add_function_of(struct flame_profile *p, struct flame_place *place, uint32_t function)
{
	if (function == FLAME_NONE)
		return false;
	if (!flame_grow(p, &p->functions_of, p->functions_of_count, &p->functions_of_room, sizeof(uint32_t), FLAME_FRAMES_MAX,
			"more than 16777216 functions at all places together"))
		return false;
	if (place->count == 0)
		place->first = (uint32_t)p->functions_of_count;
	p->functions_of[p->functions_of_count++] = function;
	place->count++;
	return true;
}

/* Places of names have their function's number for an address, so that each is there once for each sample only. */
uint32_t flame_add_named_place(struct flame_profile *p, const char *name, size_t length)
{
	char text[FLAME_NAME_MAX];
	uint32_t function, place;

	snprintf(text, sizeof(text), "%.*s", (int)(length < sizeof(text) ? length : sizeof(text) - 1), name);
	name = flame_demangle(text);
	function = flame_add_function(p, name, strlen(name), FLAME_NONE);
	if (function == FLAME_NONE)
		return FLAME_NONE;
	/* A function that is not new has its place before it. */
	if (function < p->place_count && p->places[function].count == 1 &&
	    p->functions_of[p->places[function].first] == function)
		return function;
	place = flame_add_place(p, 0, FLAME_NONE);
	return place != FLAME_NONE && flame_add_function_of(p, &p->places[place], function) ? place : FLAME_NONE;
}

/* ---- loaded files ---- */

static uint64_t hash_file(const char *path, const char *id)
{
	return index_hash_text(path, index_hash_text(id, 0));
}

static uint32_t find_file(const struct flame_profile *p, uint64_t hash, const char *path, const char *id)
{
	uint32_t i;

	for (size_t step = 0; (i = index_next(&p->file_index, hash, &step)) != INDEX_NONE;)
		if (strcmp(p->modules[i].path, path) == 0 && strcmp(p->modules[i].id, id) == 0)
			return i;
	return FLAME_NONE;
}

bool flame_add_module(struct flame_profile *p, const struct flame_module *like, const char *path, size_t path_length,
		      const char *id, size_t id_length)
{
	uint32_t number = (uint32_t)p->module_count;
	struct flame_module *m;
	uint64_t hash;

	if (!flame_grow(p, &p->modules, p->module_count, &p->module_room, sizeof(p->modules[0]), FLAME_MODULES_MAX,
			"more than 65536 loaded files"))
		return false;
	m = &p->modules[p->module_count++];
	*m = *like;
	m->path = flame_copy(p, path, path_length);
	m->id = flame_copy(p, id, id_length);
	if (!m->path || !m->id)
		return false;
	hash = hash_file(m->path, m->id);
	m->same = find_file(p, hash, m->path, m->id);
	if (m->same != FLAME_NONE)
		return true;
	m->same = number;
	return index_add(&p->file_index, hash, number) || flame_no_memory(p);
}

uint32_t flame_file(struct flame_profile *p, const char *path, const char *id)
{
	uint32_t found = find_file(p, hash_file(path, id), path, id);

	if (found != FLAME_NONE)
		return found;
	return flame_add_module(p, &(struct flame_module){ .to = UINT64_MAX }, path, strlen(path), id, strlen(id)) ?
		       (uint32_t)p->module_count - 1 : FLAME_NONE;
}

/* ---- samples ---- */

struct flame_sample *flame_add_sample(struct flame_profile *p)
{
	if (!flame_grow(p, &p->samples, p->sample_count, &p->sample_room, sizeof(p->samples[0]), FLAME_SAMPLES_MAX,
			"more than 4194304 stacks"))
		return NULL;
	p->samples[p->sample_count] = (struct flame_sample){ .first = p->frame_count, .node = -1 };
	return &p->samples[p->sample_count++];
}

bool flame_add_frame(struct flame_profile *p, uint32_t place)
{
	if (place == FLAME_NONE)
		return false;
	if (!flame_grow(p, &p->frames, p->frame_count, &p->frame_room, sizeof(uint32_t), FLAME_FRAMES_MAX,
			"more than 16777216 frames of all stacks together"))
		return false;
	p->frames[p->frame_count++] = place;
	p->samples[p->sample_count - 1].count++;
	return true;
}

const char *flame_keep(struct flame_profile *p, const char *text, size_t length)
{
	char *copy = flame_copy(p, text, length);
	uint64_t hash;
	uint32_t i;

	if (!copy)
		return NULL;
	hash = index_hash_text(copy, 0);
	for (size_t step = 0; (i = index_next(&p->text_index, hash, &step)) != INDEX_NONE;)
		if (strcmp(p->texts[i], copy) == 0) {
			p->text_bytes -= strlen(copy) + 1;
			free(copy);
			return p->texts[i];
		}
	if (!flame_grow(p, &p->texts, p->text_count, &p->text_room, sizeof(p->texts[0]), FLAME_MODULES_MAX * 16,
			"more than 1048576 names of arenas")) {
		free(copy);
		return NULL;
	}
	p->texts[p->text_count] = copy;
	return index_add(&p->text_index, hash, (uint32_t)p->text_count++) || flame_no_memory(p) ? copy : NULL;
}

void flame_free(struct flame_profile *p)
{
	for (size_t i = 0; i < p->module_count; i++) {
		free(p->modules[i].path);
		free(p->modules[i].id);
	}
	for (size_t i = 0; i < p->function_count; i++) {
		free(p->functions[i].name);
		free(p->functions[i].file);
	}
	for (size_t i = 0; i < p->text_count; i++)
		free(p->texts[i]);
	free(p->modules);
	free(p->functions);
	index_free(&p->function_index);
	index_free(&p->place_index);
	index_free(&p->file_index);
	index_free(&p->text_index);
	free(p->places);
	free(p->functions_of);
	free(p->frames);
	free(p->samples);
	free(p->texts);
	memset(p, 0, sizeof(*p));
}
