/* SPDX-License-Identifier: MIT */
#include "tools/svg.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tools.h"
#include "tools/utf8.h"

static void put_char(FILE *out, uint32_t c)
{
	char bytes[4];

	switch (c) {
	case '<':
		fputs("&lt;", out);
		break;
	case '>':
		fputs("&gt;", out);
		break;
	case '&':
		fputs("&amp;", out);
		break;
	case '"':
		fputs("&quot;", out);
		break;
	case '\'':
		fputs("&#39;", out);
		break;
	default:
		fwrite(bytes, 1, utf8_encode(utf8_shows(c) ? c : UTF8_REPLACEMENT, bytes), out);
	}
}

/* (Most of what is not Latin is taken for two columns wide.) */
void svg_escaped(FILE *out, const char *text, int columns)
{
	size_t n = strlen(text);
	int width = 0;

	for (size_t i = 0; i < n;) {
		uint32_t c = UTF8_REPLACEMENT;
		size_t length = utf8_decode(text + i, n - i, &c);
		int wide = c >= 0x1100 ? 2 : 1;

		i += length ? length : 1;
		if (columns && width + wide > columns - (i < n)) {
			fputs("…", out);
			return;
		}
		put_char(out, length ? c : UTF8_REPLACEMENT);
		width += wide;
	}
}

void svg_text(FILE *out, const char *class, double x, double y, int columns, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
	svg_escaped(out, text, columns);
	fputs("</text>\n", out);
}

void svg_title(FILE *out, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fputs("<title>", out);
	svg_escaped(out, text, 0);
	fputs("</title>", out);
}

void svg_rect(FILE *out, const char *class, double x, double y, double width, double height)
{
	fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", class, x, y, width,
		height);
}

void svg_head(FILE *out, double width, double height, const char *title)
{
	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
		"role=\"img\">\n",
		width, height, width, height);
	svg_title(out, "%s", title);
	fputs("\n", out);
}

void svg_end(FILE *out)
{
	fputs("</svg>\n", out);
}

/* A forgotten FILE must not cost the file whose name then stands where the picture's should. */
static bool is_other_file(const char *path)
{
	struct stat is;
	FILE *f;
	int first = EOF;

	if (stat(path, &is) != 0 || !S_ISREG(is.st_mode) || is.st_size == 0 || (f = fopen(path, "re")) == NULL)
		return false;
	first = getc(f);
	fclose(f);
	return first != '<';
}

struct drawing {
	bool (*draw)(FILE *out, const void *ctx);
	const void *ctx;
};

static int write_picture(int fd, const void *ctx)
{
	const struct drawing *d = ctx;
	int own = dup(fd), error = 0;
	FILE *out = own < 0 ? NULL : fdopen(own, "we");

	if (!out) {
		error = errno;
		if (own >= 0)
			close(own);
		return error;
	}
	errno = 0;
	if (!d->draw(out, d->ctx))
		error = ENOMEM;
	else if (ferror(out))
		error = errno ? errno : EIO;
	return fclose(out) != 0 && !error ? errno : error;
}

int svg_write(const char *command, const char *path, bool (*draw)(FILE *out, const void *ctx), const void *ctx)
{
	int error;

	if (strcmp(path, "-") == 0)
		return draw(stdout, ctx) ? STATUS_OK : fail(STATUS_FAILED, "%s: %s", command, strerror(ENOMEM));
	if (is_other_file(path))
		return fail(STATUS_USAGE, "%s: %s is there and is no picture: it would be overwritten", command, path);
	error = write_at_once(path, WRITE_FOR_ALL, write_picture, &(struct drawing){ draw, ctx });
	return error ? fail(STATUS_FAILED, "%s: %s: %s", command, path, strerror(error)) : STATUS_OK;
}
