/* SPDX-License-Identifier: MIT */
/* A look as a picture: what a terminal of 80 columns would be sent, drawn as it would draw it. */
#include "tools/top.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "tools/svg.h"

#define COLUMNS 80
#define LETTER 8.43 /* wide, of 14 pixels */
#define LINE 19.0
#define MARGIN 16.0

static const char style[] =
	"<style>\n"
	"text{font:14px 'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace;fill:#d7dde3;white-space:pre}\n"
	".screen{fill:#1d2329}.bar{fill:#d7dde3}\n"
	".green{fill:#5fd38d}.yellow{fill:#f0c75e}.red{fill:#ff7b72}.faint{fill:#8b98a5}.turned{fill:#1d2329}\n"
	"</style>\n";

/* Of what stands behind the escape: the colours that top uses (ECMA-48, SGR). */
static const char *class_of(const char *code)
{
	static const struct {
		const char *code, *class;
	} classes[] = { { "[32m", "green" }, { "[33m", "yellow" }, { "[31m", "red" }, { "[2m", "faint" }, { "[7m", "turned" } };

	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (strncmp(code, classes[i].code, strlen(classes[i].code)) == 0)
			return classes[i].class;
	return NULL;
}

/* A line has one colour, as its escapes say, and is text beside them. */
static void put_line(FILE *out, const char *line, size_t length, double y)
{
	char text[COLUMNS + 1];
	const char *class = "plain";
	size_t n = 0;

	for (size_t i = 0; i < length; i++) {
		if (line[i] == '\033') {
			const char *found = class_of(line + i + 1);

			class = found ? found : class;
			while (i + 1 < length && !((line[i] | 32) >= 'a' && (line[i] | 32) <= 'z'))
				i++;
		} else if (n < COLUMNS && line[i] != '\r') {
			text[n++] = line[i];
		}
	}
	text[n] = '\0';
	if (strcmp(class, "turned") == 0)
		svg_rect(out, "bar", MARGIN, y - LINE + 5, COLUMNS * LETTER, LINE);
	fprintf(out, "<text class=\"%s\" xml:space=\"preserve\" x=\"%.0f\" y=\"%.0f\" textLength=\"%.1f\">", class, MARGIN, y,
		(double)n * LETTER);
	svg_escaped(out, text, 0);
	fputs("</text>\n", out);
}

bool top_print_svg(const struct top *top, const struct top_look *look, FILE *out)
{
	struct top_look screen = { .columns = COLUMNS, .lines = INT_MAX, .by = look->by, .terminal = true };
	double width = COLUMNS * LETTER + 2 * MARGIN, y = MARGIN;
	char *text = NULL;
	size_t size = 0, lines = 1;
	FILE *terminal = open_memstream(&text, &size);

	if (!terminal)
		return false;
	top_print_text(top, &screen, terminal);
	if (fclose(terminal) != 0) {
		free(text);
		return false;
	}
	for (const char *c = text; (c = strchr(c, '\n')) != NULL; c++)
		lines++;
	svg_head(out, width, (double)lines * LINE + 2 * MARGIN, "quarry top");
	fputs(style, out);
	svg_rect(out, "screen", 0, 0, width, (double)lines * LINE + 2 * MARGIN);
	for (const char *line = text, *end; line; line = *end ? end + 1 : NULL) {
		end = line + strcspn(line, "\n");
		put_line(out, line, (size_t)(end - line), (y += LINE) - 5);
	}
	svg_end(out);
	free(text);
	return true;
}
