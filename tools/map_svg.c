/* SPDX-License-Identifier: MIT */
/* A map as one SVG file that needs nothing beside it. Every kind of page has a colour, a texture and a letter; what is
 * rounded in the picture is told in full in the tooltips. How wide text will be is estimated for a wide font, and names
 * are cut to what is sure to fit. */
#include "tools/map.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/map_svg.h"

/* ---- bars ---- */

static const char *const class_of[SVG_FILLS] = {
	[QUARRY_PAGES_AUTO] = "untold", [QUARRY_PAGES_BASE] = "base",	[QUARRY_PAGES_THP] = "thp",
	[QUARRY_PAGES_2M] = "k2m",	[QUARRY_PAGES_1G] = "k1g",	[SVG_STRAYED] = "strayed",
	[SVG_OTHER] = "other",		[SVG_FREE] = "free",		[SVG_IN_USE] = "inuse",
	[SVG_CACHED] = "cached",	[SVG_DIRTY] = "dirty",		[SVG_CLEAN] = "clean",
};

static const char *const letter_of[SVG_FILLS] = {
	[QUARRY_PAGES_AUTO] = "?", [QUARRY_PAGES_BASE] = "b", [QUARRY_PAGES_THP] = "t", [QUARRY_PAGES_2M] = "2",
	[QUARRY_PAGES_1G] = "1",   [SVG_STRAYED] = "!",
};

static const char *const name_of[SVG_FILLS] = {
	[QUARRY_PAGES_AUTO] = "base or thp",
	[QUARRY_PAGES_BASE] = "base pages",
	[QUARRY_PAGES_THP] = "transparent huge pages",
	[QUARRY_PAGES_2M] = "hugetlb 2 MiB",
	[QUARRY_PAGES_1G] = "hugetlb 1 GiB",
	[SVG_STRAYED] = "strayed",
	[SVG_OTHER] = "in use by others",
	[SVG_FREE] = "free",
	[SVG_IN_USE] = "in use",
	[SVG_CACHED] = "cached by threads",
	[SVG_DIRTY] = "free, in memory",
	[SVG_CLEAN] = "free, given back",
};

const char *svg_fill_name(int fill)
{
	return name_of[fill];
}

static void put_part(FILE *out, const struct svg_part *part, const char *unit, double x, double y, double width,
		     double height)
{
	if (part->fill == SVG_FREE)
		return; /* the ground of the bar */
	fputs("<g>", out);
	svg_title(out, "%s: %" PRIu64 " %s", name_of[part->fill], part->amount, unit);
	svg_rect(out, class_of[part->fill], x, y, width, height);
	if (letter_of[part->fill] && width >= 11 && height >= 10)
		svg_text(out, "letter", x + width / 2, y + height / 2 + 3.4, 0, "%s", letter_of[part->fill]);
	fputs("</g>\n", out);
}

void svg_bar(FILE *out, const struct svg_part *parts, int count, uint64_t whole, const char *unit,
	     const struct svg_box *box)
{
	double at = box->x, end = box->x + box->width;

	svg_rect(out, "bar", box->x, box->y, box->width, box->height);
	for (int i = 0; i < count && whole; i++) {
		double width = (double)parts[i].amount / (double)whole * box->width;

		if (parts[i].amount == 0)
			continue;
		if (width < 1.5)
			width = 1.5; /* what is there can be seen */
		if (width > end - at)
			width = end - at;
		if (width > 0)
			put_part(out, &parts[i], unit, at, box->y, width, box->height);
		at += width;
	}
	svg_rect(out, "frame", box->x, box->y, box->width, box->height);
}

/* ---- the legend ---- */

static double legend_width(int fill)
{
	return 24 + 7.0 * (double)strlen(name_of[fill]) + 16;
}

double svg_legend(FILE *out, const int *fills, int count, const struct svg_box *box)
{
	double x = box->x, y = box->y;

	for (int i = 0; i < count; i++) {
		struct svg_part part = { fills[i], 1 };
		struct svg_box swatch;

		if (x + legend_width(fills[i]) > box->x + box->width && x > box->x) {
			x = box->x;
			y += 20;
		}
		swatch = (struct svg_box){ x, y, 18, 12 };
		svg_rect(out, "bar", swatch.x, swatch.y, swatch.width, swatch.height);
		if (part.fill != SVG_FREE) {
			svg_rect(out, class_of[part.fill], swatch.x, swatch.y, swatch.width, swatch.height);
			if (letter_of[part.fill])
				svg_text(out, "letter", swatch.x + 9, swatch.y + 9.4, 0, "%s", letter_of[part.fill]);
		}
		svg_rect(out, "frame", swatch.x, swatch.y, swatch.width, swatch.height);
		svg_text(out, "small", x + 24, y + 10, 0, "%s", name_of[part.fill]);
		x += legend_width(part.fill);
	}
	return y + 20;
}

/* ---- the ground ---- */

static const char style[] =
	"<style>\n"
	"text{font-family:'DejaVu Sans',Verdana,'Helvetica Neue',Arial,sans-serif;font-size:12px;fill:#1f2933}\n"
	".heading{font-size:18px;font-weight:bold}\n"
	".section{font-size:14px;font-weight:bold}\n"
	".name{font-size:13px;font-weight:bold}\n"
	".small{font-size:11px;fill:#52606d}\n"
	".right{text-anchor:end}.smallright{text-anchor:end;font-size:11px;fill:#52606d}\n"
	".middle{text-anchor:middle;font-size:11px}.light{text-anchor:middle;font-size:11px;fill:#fff}\n"
	".alarm{font-size:11px;fill:#b91c1c;font-weight:bold}\n"
	".letter{font-size:10px;font-weight:bold;text-anchor:middle;fill:#111;stroke:#fff;stroke-width:2.5;"
	"paint-order:stroke}\n"
	".page{fill:#fff}.node{fill:#f7f9fb;stroke:#7b8794;stroke-width:1.2;rx:6}\n"
	".closed{fill:#eceff1;stroke:#b0b7be;stroke-width:1.2;stroke-dasharray:5 4;rx:6}\n"
	".head{fill:#dbe4ee;rx:6}.headmemory{fill:#efe3d3;rx:6}.headclosed{fill:#dfe3e6;rx:6}\n"
	".line{fill:#dde3e9}\n"
	".bar{fill:#fff}.frame{fill:none;stroke:#52606d;stroke-width:.8}\n"
	".base{fill:#7cc4ef}.thp{fill:url(#thp)}.k2m{fill:url(#k2m)}.k1g{fill:url(#k1g)}\n"
	".untold{fill:url(#untold)}.strayed{fill:url(#strayed);stroke:#b91c1c;stroke-width:1.5}\n"
	".other{fill:#c3cad2}.free{fill:#fff}\n"
	".inuse{fill:#486581}.cached{fill:url(#cached)}.dirty{fill:url(#dirty)}.clean{fill:#fff}\n"
	".faded{opacity:.55}\n"
	"</style>\n";

static const char patterns[] =
	"<defs>\n"
	"<pattern id=\"thp\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
	"<rect width=\"7\" height=\"7\" fill=\"#3fb68b\"/><rect width=\"2\" height=\"7\" fill=\"#0b7a55\"/></pattern>\n"
	"<pattern id=\"k2m\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">"
	"<rect width=\"6\" height=\"6\" fill=\"#f2ab3c\"/><circle cx=\"3\" cy=\"3\" r=\"1.3\" fill=\"#8a5200\"/></pattern>\n"
	"<pattern id=\"k1g\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\">"
	"<rect width=\"7\" height=\"7\" fill=\"#d795bd\"/><path d=\"M0 0L7 7M7 0L0 7\" stroke=\"#86376a\"/></pattern>\n"
	"<pattern id=\"untold\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">"
	"<rect width=\"6\" height=\"6\" fill=\"#d9dde2\"/>"
	"<rect y=\"2\" width=\"6\" height=\"1.5\" fill=\"#7b8794\"/></pattern>\n"
	"<pattern id=\"strayed\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(-45)\">"
	"<rect width=\"8\" height=\"8\" fill=\"#fff\"/><rect width=\"4\" height=\"8\" fill=\"#dc2626\"/></pattern>\n"
	"<pattern id=\"cached\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">"
	"<rect width=\"6\" height=\"6\" fill=\"#9fb3c8\"/><circle cx=\"3\" cy=\"3\" r=\"1.2\" fill=\"#334e68\"/></pattern>\n"
	"<pattern id=\"dirty\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
	"<rect width=\"6\" height=\"6\" fill=\"#eef2f6\"/><rect width=\"1.6\" height=\"6\" fill=\"#829ab1\"/></pattern>\n"
	"</defs>\n";

void svg_begin(FILE *out, double width, double height, const char *title)
{
	svg_head(out, width, height, title);
	fputs(style, out);
	fputs(patterns, out);
	svg_rect(out, "page", 0, 0, width, height);
}
