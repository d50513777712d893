/* SPDX-License-Identifier: MIT */
/* Profiles of a line for each stack, with names: collapsed stacks, and quarry's JSON. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/flame.h"

#include <stdlib.h>
#include <string.h>

#include "tools/json.h"

/* ---- collapsed stacks ---- */

/* The innermost is the last there. */
static bool add_outward(struct flame_profile *p, char *stack)
{
	for (char *end = stack + strlen(stack); end;) {
		char *name = memrchr(stack, ';', (size_t)(end - stack));
		char *from = name ? name + 1 : stack;

		if (!flame_add_frame(p, flame_add_named_place(p, from, (size_t)(end - from))))
			return false;
		end = name;
	}
	return true;
}

/* "main;work;malloc 4096". Names may have spaces in them. */
static bool read_stack(struct flame_profile *p, char *line, size_t length)
{
	struct flame_sample *s;
	char *number, *end;

	while (length > 0 && strchr(" \t\r", line[length - 1]))
		line[--length] = '\0';
	if (length == 0 || line[0] == '#')
		return true;
	number = strrchr(line, ' ');
	if (!number || !(number[1] >= '0' && number[1] <= '9'))
		return flame_fail(p, "neither a profile nor collapsed stacks: a line that does not end in a number");
	s = flame_add_sample(p);
	if (!s)
		return false;
	s->values[FLAME_BYTES] = strtoull(number + 1, &end, 10); /* saturates */
	if (*end != '\0' && !(*end == '.' && end[1 + strspn(end + 1, "0123456789")] == '\0'))
		return flame_fail(p, "neither a profile nor collapsed stacks: a line that does not end in a number");
	*number = '\0';
	return add_outward(p, line);
}

bool flame_read_collapsed(struct flame_profile *p, char *text, size_t length)
{
	p->format = "collapsed stacks";
	p->has[FLAME_BYTES] = true;
	for (char *line = text, *end = text + length; line < end;) {
		char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t n = stop ? (size_t)(stop - line) : (size_t)(end - line);

		line[n] = '\0';
		if (!read_stack(p, line, n))
			return false;
		line += n + 1;
	}
	return true;
}

/* ---- JSON ---- */

/* The innermost is the first there. */
static void read_names(struct json *j, struct flame_profile *p)
{
	char name[JSON_STRING_MAX];
	bool first = true;

	for (json_enter(j, '['); json_next(j, ']', &first);)
		if (json_string(j, name, sizeof(name)) &&
		    !flame_add_frame(p, flame_add_named_place(p, name, strlen(name))))
			json_fail(j, p->error);
}

static void read_site(struct json *j, struct flame_profile *p, struct flame_sample *s)
{
	static const struct {
		const char *name;
		enum flame_value value;
	} numbers[] = { { "objects", FLAME_ALLOCATED_OBJECTS }, { "bytes", FLAME_ALLOCATED_BYTES },
			{ "live_objects", FLAME_OBJECTS }, { "live_bytes", FLAME_BYTES } };
	char arena[JSON_STRING_MAX];
	bool first = true, told[FLAME_VALUES] = { false };
	int node;

	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		int which = -1;

		for (int i = 0; i < FLAME_VALUES; i++)
			if (json_key(j, numbers[i].name))
				which = i;
		if (which >= 0)
			told[which] = json_unsigned(j, &s->values[numbers[which].value]);
		else if (json_key(j, "arena") && json_string(j, arena, sizeof(arena)))
			s->arena = flame_keep(p, arena, strlen(arena));
		else if (json_key(j, "node") && json_integer(j, &node))
			s->node = node;
		else if (json_key(j, "names"))
			read_names(j, p);
		else if (!json_key(j, "arena") && !json_key(j, "node"))
			json_skip(j);
	}
	for (int i = 0; i < FLAME_VALUES; i++)
		if (!told[i])
			json_fail(j, "not a line of quarry's profile: no figures of objects and bytes");
}

bool flame_read_json(struct flame_profile *p, char *text, size_t length)
{
	p->format = "JSON";
	p->labelled = true;
	for (int i = 0; i < FLAME_VALUES; i++)
		p->has[i] = true;
	for (char *line = text, *end = text + length; line < end;) {
		char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t n = stop ? (size_t)(stop - line) : (size_t)(end - line);
		struct flame_sample *s;
		struct json j;

		json_init(&j, line, n);
		line += n + 1;
		if (strspn(j.start, " \t\r") >= n)
			continue;
		s = flame_add_sample(p);
		if (!s)
			return false;
		read_site(&j, p, s);
		json_end(&j);
		if (j.error)
			return flame_fail(p, j.error);
	}
	return true;
}
