/* SPDX-License-Identifier: MIT */
/* UTF-8, one character at a time. */
#ifndef QUARRY_TOOLS_UTF8_H
#define QUARRY_TOOLS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define UTF8_REPLACEMENT 0xfffdu

/* The character at s (of n bytes) and its length; 0 when there is no well-formed one. */
size_t utf8_decode(const char *s, size_t n, uint32_t *c);

/* Its bytes; how many. */
size_t utf8_encode(uint32_t c, char bytes[4]);

/* Whether a character may be shown as it is: no control character, nothing that turns the direction of a line or has no
 * width, nothing that is no character. */
bool utf8_shows(uint32_t c);

/* Text that nobody vouches for, with a ? for each character that may not be shown: at most so many characters, of which the
 * last three are dots where there are more. How many were written. */
size_t utf8_put(FILE *out, const char *text, size_t most);
/* The same for a message, of up to 255 bytes, in a buffer until the next call. */
const char *utf8_shown(const char *text);

#endif
