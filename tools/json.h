/* SPDX-License-Identifier: MIT */
/* A strict reader of JSON (RFC 8259) for text that nobody vouches for, pulled value by value, so that a dump of 65,000
 * arenas needs no tree of it in memory. It is here, and no library is used, so that a command can read what the library
 * of the same build wrote, wherever it was built; and for whole numbers of 64 bits without a sign, which the usual
 * libraries do not all have.
 *
 *	bool first = true;
 *	json_enter(&j, '{');
 *	while (json_next(&j, '}', &first))
 *		if (json_key(&j, "pid"))
 *			json_integer(&j, &pid);
 *		else
 *			json_skip(&j);
 *	if (j.error) ...
 *
 * After the first error nothing moves any more, and every call says no. */
#ifndef QUARRY_TOOLS_JSON_H
#define QUARRY_TOOLS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 32
#define JSON_STRING_MAX 4096 /* bytes, with the 0 */

struct json {
	const char *start, *at, *end;
	unsigned depth;
	char key[64];      /* of the member that json_next has come to; longer ones are cut, and are nobody's */
	const char *error; /* NULL: none */
	char about[64];    /* the key that the error is about, or "" */
};

void json_init(struct json *j, const char *text, size_t length);

/* Into an object or an array: open is '{' or '['. */
bool json_enter(struct json *j, char open);
/* To the next member or element; false at the end, which is passed. *first is true before the first call. */
bool json_next(struct json *j, char close, bool *first);
bool json_key(const struct json *j, const char *name);

/* The value that stands here. What it is not is an error. A string ends with 0, and is UTF-8; a 0 in it, and half a
 * surrogate pair, become U+FFFD. */
bool json_string(struct json *j, char *string, size_t size);
bool json_unsigned(struct json *j, uint64_t *n);
bool json_integer(struct json *j, int *n);
bool json_skip(struct json *j);
/* Nothing but space is left. */
bool json_end(struct json *j);

bool json_fail(struct json *j, const char *error);
unsigned long json_line(const struct json *j);

/* Write a string: what is not UTF-8 becomes U+FFFD, and control characters, which a terminal might obey, are escaped. */
void json_put_string(FILE *out, const char *s);

#endif
