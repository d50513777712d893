/* SPDX-License-Identifier: MIT */
/* What the tools' SVG pictures are made of. Each is one file that needs nothing beside it. Units are pixels; text is UTF-8,
 * or becomes it. */
#ifndef QUARRY_TOOLS_SVG_H
#define QUARRY_TOOLS_SVG_H

#include <stdbool.h>
#include <stdio.h>

/* Up to the picture's title. */
void svg_head(FILE *out, double width, double height, const char *title);
void svg_end(FILE *out);

/* Escaped, and cut to so many columns; 0: whole. */
void svg_escaped(FILE *out, const char *text, int columns);
void svg_text(FILE *out, const char *class, double x, double y, int columns, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
/* The tooltip of the element that is open. */
void svg_title(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void svg_rect(FILE *out, const char *class, double x, double y, double width, double height);

/* Into a file, which is not overwritten if it is there and no picture, or to standard output (-). A status, after a line on
 * standard error. draw answers false without memory. */
int svg_write(const char *command, const char *path, bool (*draw)(FILE *out, const void *ctx), const void *ctx);

#endif
