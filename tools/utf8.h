/* SPDX-License-Identifier: MIT */
/* UTF-8, one character at a time. */
#ifndef QUARRY_TOOLS_UTF8_H
#define QUARRY_TOOLS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT 0xfffdu

/* The character at s (of n bytes) and its length; 0 when there is no well-formed one. */
size_t utf8_decode(const char *s, size_t n, uint32_t *c);

/* Its bytes; how many. */
size_t utf8_encode(uint32_t c, char bytes[4]);

/* Whether a character may be shown as it is: no control character, nothing that turns the direction of a line or has no
 * width, nothing that is no character. */
bool utf8_shows(uint32_t c);

#endif
