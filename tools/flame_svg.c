/* SPDX-License-Identifier: MIT */
/* A profile as a flame graph: each function stands on the one that called it (inverted: hangs from the one that it called),
 * as wide as what was allocated there, and in the colour of its file. Letters are of one width, so that it is known how many
 * fit. The script in the picture zooms and searches; without it, it is a picture all the same. */
#include "tools/flame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flame_script.h"
#include "tools/svg.h"
#include "tools/tools.h"

#define WIDTH 1200.0
#define MARGIN 12.0
#define ROOM (WIDTH - 2 * MARGIN)
#define ROW 17.0
#define LETTER 6.65    /* wide, of 11 pixels */
#define HEADING 11.2   /* of 18 */
#define NARROW 0.4     /* what is narrower is left out */
#define SEARCH 300.0   /* at the top right, where the script puts what is typed */

enum { PROGRAM, LIBC, FIRST_OTHER, OTHERS = FIRST_OTHER + 6, UNKNOWN, CLASSES };

struct picture {
	const struct flame_tree *tree;
	const struct flame_look *look;
	FILE *out;
	double *x, *width; /* of nodes */
	uint8_t *class_of; /* of modules */
	const char *class_name[CLASSES];
	bool used[CLASSES];
	uint32_t rows;
	double top, y;
	uint64_t left_out, left_out_size; /* frames, and what is in them and in none that is drawn under them */
};

static uint64_t size_of(const struct picture *p, uint32_t node)
{
	return p->tree->nodes[node].total[!p->look->objects];
}

/* ---- where ---- */

/* A node stands behind its parent, so that one pass places all. */
static void place(struct picture *p)
{
	const struct flame_tree *t = p->tree;
	double scale = size_of(p, 0) ? ROOM / (double)size_of(p, 0) : 0;

	p->x[0] = MARGIN;
	p->width[0] = ROOM;
	for (uint32_t i = 0; i < t->count; i++) {
		double at = p->x[i];

		if (p->width[i] < NARROW)
			continue;
		p->rows = t->nodes[i].depth >= p->rows ? t->nodes[i].depth + 1 : p->rows;
		for (uint32_t k = t->nodes[i].child; k; k = t->nodes[k].next) {
			p->x[k] = at;
			p->width[k] = (double)size_of(p, k) * scale;
			at += p->width[k];
			if (p->width[k] < NARROW)
				p->left_out_size = flame_sum(p->left_out_size, size_of(p, k));
		}
	}
	for (uint32_t i = 0; i < t->count; i++)
		p->left_out += p->width[i] < NARROW;
}

static double row_of(const struct picture *p, uint32_t node)
{
	uint32_t depth = p->tree->nodes[node].depth;

	return p->top + (double)(p->look->inverted ? depth : p->rows - 1 - depth) * ROW;
}

/* ---- colours ---- */

/* The same file may be there in parts. */
static uint32_t module_of(const struct picture *p, uint32_t node)
{
	uint32_t function = p->tree->nodes[node].function;

	return function == FLAME_NONE ? FLAME_NONE : p->tree->profile->functions[function].module;
}

static bool is_libc(const char *name)
{
	return strncmp(name, "libc.so", 7) == 0 || strncmp(name, "libc-2", 6) == 0 || strncmp(name, "ld-linux", 8) == 0;
}

static bool is_program(const char *name)
{
	return !strstr(name, ".so") && name[0] != '[' && name[0] != '(';
}

static int most_seen(const struct flame_profile *p, const double *seen, const uint8_t *class_of)
{
	int most = -1;

	for (uint32_t i = 0; i < p->module_count; i++)
		if (seen[i] > 0 && class_of[i] == UNKNOWN && (most < 0 || seen[i] > seen[most]))
			most = (int)i;
	return most;
}

/* The program and libc have theirs, those that are seen most have each their own, and the rest have one. */
static bool choose_colours(struct picture *p)
{
	const struct flame_profile *profile = p->tree->profile;
	double *seen = calloc(profile->module_count + 1, sizeof(*seen));
	bool program = false;

	if (!seen)
		return false;
	for (uint32_t i = 1; i < p->tree->count; i++)
		if (p->width[i] >= NARROW && module_of(p, i) != FLAME_NONE)
			seen[module_of(p, i)] += p->width[i];
	for (uint32_t i = 0; i < profile->module_count; i++) {
		const char *name = flame_module_name(profile, i);

		p->class_of[i] = seen[i] <= 0 ? UNKNOWN : is_libc(name) ? LIBC : !program && is_program(name) ? PROGRAM : UNKNOWN;
		program = program || p->class_of[i] == PROGRAM;
		if (p->class_of[i] != UNKNOWN)
			p->class_name[p->class_of[i]] = name;
	}
	for (int class = FIRST_OTHER, next; (next = most_seen(profile, seen, p->class_of)) >= 0; class += class < OTHERS) {
		p->class_of[next] = (uint8_t)class;
		p->class_name[class] = class < OTHERS ? flame_module_name(profile, (uint32_t)next) : "other files";
	}
	p->class_name[UNKNOWN] = "file not told";
	free(seen);
	return true;
}

static int class_of(const struct picture *p, uint32_t node)
{
	uint32_t module = module_of(p, node);

	return module == FLAME_NONE ? UNKNOWN : p->class_of[module];
}

/* So that neighbours can be told apart. */
static unsigned shade_of(const char *name)
{
	unsigned h = 5381;

	for (; *name; name++)
		h = h * 33 + (unsigned char)*name;
	return (h ^ h >> 7) % 3;
}

/* ---- frames ---- */

static const char *name_of(const struct picture *p, uint32_t node)
{
	uint32_t function = p->tree->nodes[node].function;

	return function == FLAME_NONE ? "all" : p->tree->profile->functions[function].name;
}

static void put_amounts(const struct picture *p, const uint64_t n[2])
{
	const struct flame_profile *profile = p->tree->profile;
	bool bytes = profile->has[p->look->allocated ? FLAME_ALLOCATED_BYTES : FLAME_BYTES];
	bool objects = profile->has[p->look->allocated ? FLAME_ALLOCATED_OBJECTS : FLAME_OBJECTS];
	uint64_t all = size_of(p, 0);

	if (bytes)
		fprintf(p->out, "%s (%" PRIu64 " bytes)", bytes_text(n[1]), n[1]);
	if (objects)
		fprintf(p->out, "%s%" PRIu64 " object%s", bytes ? ", " : "", n[0], n[0] == 1 ? "" : "s");
	fprintf(p->out, ", %.2f %%", all ? (double)n[!p->look->objects] / (double)all * 100 : 0);
}

static void put_tooltip(const struct picture *p, uint32_t node)
{
	const struct flame_node *n = &p->tree->nodes[node];
	const struct flame_profile *profile = p->tree->profile;
	const struct flame_function *f = n->function == FLAME_NONE ? NULL : &profile->functions[n->function];

	fputs("<title>", p->out);
	svg_escaped(p->out, name_of(p, node), 0);
	if (f && f->module != FLAME_NONE) {
		fputs("\n", p->out);
		svg_escaped(p->out, flame_module_name(profile, f->module), 0);
	}
	if (f && f->file) {
		fputs(f->module != FLAME_NONE ? ", " : "\n", p->out);
		svg_escaped(p->out, f->file, 0);
		if (n->line)
			fprintf(p->out, ":%" PRIu32, n->line);
	}
	fputs("\n", p->out);
	put_amounts(p, n->total);
	if (n->self[!p->look->objects] && n->child) {
		fputs("\nitself: ", p->out);
		put_amounts(p, n->self);
	}
	fputs("</title>", p->out);
}

static void put_frame(struct picture *p, uint32_t node)
{
	double x = p->x[node], y = row_of(p, node), width = p->width[node];
	int columns = (int)((width - 6) / LETTER), class = node ? class_of(p, node) : 0;

	fputs("<g>", p->out);
	put_tooltip(p, node);
	if (node)
		fprintf(p->out, "<rect class=\"m%d s%u\"", class, shade_of(name_of(p, node)));
	else
		fputs("<rect class=\"all\"", p->out);
	fprintf(p->out, " x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%.0f\"/>", x, y, width, ROW);
	if (columns >= 3) {
		fprintf(p->out, "<text x=\"%.2f\" y=\"%.0f\">", x + 3, y + 12);
		svg_escaped(p->out, name_of(p, node), columns);
		fputs("</text>", p->out);
	}
	fputs("</g>\n", p->out);
}

/* ---- around them ---- */

static const char style[] =
	"<style>\n"
	"text{font-family:'DejaVu Sans',Verdana,'Helvetica Neue',Arial,sans-serif;font-size:12px;fill:#1f2933}\n"
	".heading{font-size:18px;font-weight:bold}.small{font-size:11px;fill:#52606d}\n"
	".page{fill:#fff}.swatch{stroke:#52606d;stroke-width:.8}\n"
	"#frames text{font:11px 'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace;pointer-events:none}\n"
	"#frames rect{stroke:#fff;stroke-width:.6}#frames g{cursor:pointer}#frames g:hover rect{stroke:#111;stroke-width:1}\n"
	".all{fill:#e4e9ee}"
	".m0{fill:#f5b566}.m1{fill:#a3cf8b}.m2{fill:#93c3ec}.m3{fill:#f1a1b2}.m4{fill:#c9b0ea}"
	".m5{fill:#86d1c7}.m6{fill:#e6cf6c}.m7{fill:#d5b595}.m8{fill:#bcc5ce}.m9{fill:#d3dae1}\n"
	".s1{fill-opacity:.85}.s2{fill-opacity:.7}"
	"#frames .hit rect{fill:#e0249a;fill-opacity:1}#frames .hit text{fill:#fff}#frames .up{opacity:.65}\n"
	"</style>\n";

static void put_legend(struct picture *p)
{
	double x = MARGIN;

	for (int class = 0; class < CLASSES; class++) {
		const char *name = p->class_name[class];
		char cut[48];
		double width;

		if (!p->used[class])
			continue;
		snprintf(cut, sizeof(cut), "%s", name);
		width = 24 + 7.2 * (double)(strlen(cut) > 40 ? 40 : strlen(cut)) + 14;
		if (x + width > WIDTH - MARGIN && x > MARGIN) {
			x = MARGIN;
			p->y += 18;
		}
		fprintf(p->out, "<rect class=\"swatch m%d\" x=\"%.0f\" y=\"%.0f\" width=\"18\" height=\"12\"/>\n", class, x, p->y);
		svg_text(p->out, "small", x + 24, p->y + 10, 40, "%s", cut);
		x += width;
	}
	p->y += 20;
}

static void put_head(struct picture *p, const char *title)
{
	const struct flame_profile *profile = p->tree->profile;
	const struct flame_node *all = &p->tree->nodes[0];
	bool objects = profile->has[p->look->allocated ? FLAME_ALLOCATED_OBJECTS : FLAME_OBJECTS];
	char what[512], count[64] = "";

	svg_text(p->out, "heading", MARGIN, 30, (int)((ROOM - SEARCH) / HEADING), "%s", title);
	flame_what(profile, p->look, what, sizeof(what));
	if (objects)
		snprintf(count, sizeof(count), " in %" PRIu64 " objects", all->total[0]);
	svg_text(p->out, "plain", MARGIN, 52, (int)((ROOM - SEARCH) / 7.2), "%s%s %s: %" PRIu64 " stacks", bytes_text(all->total[1]),
		 count, what, p->tree->used);
	p->y = 66;
}

/* In lines of what fits, cut at spaces. */
static void put_foot(struct picture *p, const char *text)
{
	const size_t most = (size_t)(ROOM / 6.6);

	while (*text) {
		size_t n = strlen(text);

		if (n > most)
			for (n = most; n > 1 && text[n] != ' ';)
				n--;
		svg_text(p->out, "small", MARGIN, p->y + 10, (int)most, "%.*s", (int)n, text);
		p->y += 16;
		text += n;
		text += strspn(text, " ");
	}
}

static void put_feet(struct picture *p)
{
	char text[2300], left_out[160] = "";

	flame_remarks(p->tree, text, sizeof(text) - sizeof(left_out));
	if (p->left_out)
		snprintf(left_out, sizeof(left_out), "%sToo narrow to be drawn: %" PRIu64 " frames, together %.2f %%.", text[0] ? " " : "",
			 p->left_out, (double)p->left_out_size / (double)size_of(p, 0) * 100);
	strcat(text, left_out);
	put_foot(p, text);
}

static void draw(struct picture *p, const char *title)
{
	put_head(p, title);
	/* (What colours there are, the legend says, which stands before.) */
	for (uint32_t i = 1; i < p->tree->count; i++)
		if (p->width[i] >= NARROW)
			p->used[class_of(p, i)] = true;
	put_legend(p);
	p->top = p->y + 6;
	fputs("<g id=\"frames\">\n", p->out);
	for (uint32_t i = 0; i < p->tree->count; i++)
		if (p->width[i] >= NARROW)
			put_frame(p, i);
	fputs("</g>\n", p->out);
	p->y = p->top + (double)p->rows * ROW + 8;
	put_feet(p);
}

static bool draw_whole(struct picture *p)
{
	char title[512], *body = NULL;
	size_t size = 0;
	FILE *out = p->out;

	snprintf(title, sizeof(title), "%s", p->look->title ? p->look->title : p->look->file);
	p->out = open_memstream(&body, &size);
	if (!p->out)
		return false;
	draw(p, title);
	if (fclose(p->out) != 0) {
		free(body);
		return false;
	}
	svg_head(out, WIDTH, p->y + MARGIN, title);
	fputs(style, out);
	svg_rect(out, "page", 0, 0, WIDTH, p->y + MARGIN);
	fwrite(body, 1, size, out);
	fprintf(out, "<script>//<![CDATA[\nvar left = %.0f, room = %.0f, letter = %.2f, search = %.0f;\n%s//]]></script>\n",
		MARGIN, ROOM, LETTER, SEARCH, flame_script);
	svg_end(out);
	free(body);
	return true;
}

bool flame_print_svg(const struct flame_tree *tree, const struct flame_look *look, FILE *out)
{
	struct picture p = { .tree = tree, .look = look, .out = out };
	bool done;

	p.x = calloc(tree->count, sizeof(*p.x));
	p.width = calloc(tree->count, sizeof(*p.width));
	p.class_of = calloc(tree->profile->module_count + 1, 1);
	done = p.x && p.width && p.class_of;
	if (done) {
		place(&p);
		done = choose_colours(&p) && draw_whole(&p);
	}
	free(p.x);
	free(p.width);
	free(p.class_of);
	return done;
}
