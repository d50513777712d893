/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map_page.h"

#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "tools/utf8.h"

static const struct {
	const char *utf8, *ascii;
} corners[] = { { "┌", "+" }, { "┐", "+" }, { "└", "+" }, { "┘", "+" }, { "─", "-" }, { "│", "|" } };

void page_raw(struct page *p, const char *bytes, size_t n, int columns)
{
	if (p->used + n < sizeof(p->line)) {
		memcpy(p->line + p->used, bytes, n);
		p->used += n;
		p->width += columns;
	}
}

void page_paint(struct page *p, const char *color)
{
	char code[32];

	if (!p->look->color)
		return;
	snprintf(code, sizeof(code), "\033[%s%sm", color && *color ? "0;" : "0", color ? color : "");
	page_raw(p, code, strlen(code), 0);
}

void page_unpaint(struct page *p)
{
	page_paint(p, p->paint);
}

void page_name(struct page *p, const char *name, int columns, int limit)
{
	size_t n = strlen(name);
	int start = p->width, room = columns ? columns : limit;

	for (size_t i = 0; i < n;) {
		uint32_t c = 0;
		size_t length = utf8_decode(name + i, n - i, &c);
		bool shows = length > 0 && utf8_shows(c) && !(p->look->ascii && c > 0x7e);
		int wide = shows ? wcwidth((wchar_t)c) : 1;

		if (wide < 0)
			wide = 1;
		if (p->width - start + wide > room - 1 && i + (length ? length : 1) < n) {
			page_raw(p, "~", 1, 1);
			break;
		}
		if (p->width - start + wide > room)
			break;
		page_raw(p, shows ? name + i : "?", shows ? length : 1, wide);
		i += length ? length : 1;
	}
	while (p->width - start < columns)
		page_raw(p, " ", 1, 1);
}

void page_put(struct page *p, const char *format, ...)
{
	char text[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	n = n < (int)sizeof(text) ? n : (int)sizeof(text) - 1;
	page_raw(p, text, (size_t)n, n);
}

void page_corner(struct page *p, enum corner which)
{
	const char *s = p->look->ascii ? corners[which].ascii : corners[which].utf8;

	page_raw(p, s, strlen(s), 1);
}

void page_pad(struct page *p, int column)
{
	while (p->width < column)
		page_raw(p, " ", 1, 1);
}

void page_end_line(struct page *p)
{
	while (p->used > 0 && p->line[p->used - 1] == ' ')
		p->used--;
	if (p->look->color && p->used > 0)
		page_raw(p, "\033[0m", 4, 0);
	fwrite(p->line, 1, p->used, p->out);
	fputc('\n', p->out);
	p->used = 0;
	p->width = 0;
}

void page_wrapped(struct page *p, const char *text, int indent, const char *color)
{
	int room = PAGE_WIDTH - indent - 2;
	char line[PAGE_WIDTH * 4 + 1];

	while (*text) {
		size_t n = 0, fits = 0;
		int columns = 0;

		for (; text[n] && (columns < room || ((unsigned char)text[n] & 0xc0) == 0x80) && n < sizeof(line) - 1; n++) {
			columns += ((unsigned char)text[n] & 0xc0) != 0x80;
			fits = text[n] == ' ' ? n : fits;
		}
		if (text[n] && fits)
			n = fits;
		memcpy(line, text, n);
		line[n] = '\0';
		page_paint(p, color);
		page_pad(p, indent);
		page_name(p, line, 0, PAGE_WIDTH - indent);
		page_end_line(p);
		text += n + strspn(text + n, " ");
	}
}

void page_box_top(struct page *p, const char *left, const char *right)
{
	int end = PAGE_WIDTH - 3 - (int)strlen(right) - (right[0] ? 2 : 0);

	page_corner(p, TOP_LEFT);
	page_corner(p, DASH);
	page_put(p, " %s ", left);
	while (p->width < end)
		page_corner(p, DASH);
	if (right[0])
		page_put(p, " %s ", right);
	while (p->width < PAGE_WIDTH - 1)
		page_corner(p, DASH);
	page_corner(p, TOP_RIGHT);
	page_end_line(p);
}

void page_box_open(struct page *p)
{
	page_paint(p, p->paint);
	page_corner(p, SIDE);
	page_put(p, " ");
}

void page_box_close(struct page *p)
{
	page_pad(p, PAGE_WIDTH - 1);
	page_corner(p, SIDE);
	page_end_line(p);
}

void page_box_bottom(struct page *p)
{
	page_paint(p, p->paint);
	page_corner(p, BOTTOM_LEFT);
	while (p->width < PAGE_WIDTH - 1)
		page_corner(p, DASH);
	page_corner(p, BOTTOM_RIGHT);
	page_end_line(p);
}

/* Box drawing where the locale has it. Colours where somebody looks who has not asked for none (no-color.org). */
struct map_look page_look(bool ascii, bool utf8, bool all)
{
	const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");
	bool has_utf8;

	setlocale(LC_CTYPE, "");
	has_utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	if (!has_utf8 && utf8)
		setlocale(LC_CTYPE, "C.UTF-8"); /* for the width of characters */
	return (struct map_look){
		.ascii = ascii || (!has_utf8 && !utf8),
		.color = isatty(STDOUT_FILENO) && !(none && *none) && !(terminal && strcmp(terminal, "dumb") == 0),
		.all = all,
	};
}
