/* SPDX-License-Identifier: MIT */
/* The command `quarry flame`. */
#include "tools/flame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/svg.h"
#include "tools/tools.h"

struct arguments {
	struct flame_look look;
	const char *svg;
	bool json, text;
};

/* ---- arguments ---- */

static int parse_node(const char *value, int64_t *node)
{
	char *end;

	errno = 0;
	*node = strtol(value, &end, 10);
	if (end == value || *end || errno || *node < 0 || *node > INT32_MAX)
		return fail(STATUS_USAGE, "flame: --node: '%s' is not the number of a node", value);
	return STATUS_OK;
}

static int take_value(struct arguments *args, const char *name, const char *value)
{
	if (!value || (!*value && strcmp(name, "--title") != 0))
		return fail(STATUS_USAGE, "flame: %s needs a value", name);
	if (strcmp(name, "--node") == 0)
		return parse_node(value, &args->look.node);
	*(strcmp(name, "--arena") == 0 ? &args->look.arena : strcmp(name, "--title") == 0 ? &args->look.title : &args->svg) =
		value;
	return STATUS_OK;
}

static bool take_switch(struct arguments *args, const char *name)
{
	const struct {
		const char *name;
		bool *is;
	} switches[] = {
		{ "--allocated", &args->look.allocated }, { "--objects", &args->look.objects },
		{ "--inverted", &args->look.inverted },	  { "--text", &args->text },
		{ "--json", &args->json },
	};

	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
		if (strcmp(name, switches[i].name) == 0)
			return *switches[i].is = true;
	return false;
}

static int parse_one(struct arguments *args, int argc, char **argv, int *i, bool *names_only)
{
	static const char *const with_value[] = { "-o", "--svg", "--node", "--arena", "--title" };
	const char *a = argv[*i];

	if (*names_only || a[0] != '-' || strcmp(a, "-") == 0) {
		if (args->look.file)
			return fail(STATUS_USAGE, "flame: one FILE at a time; see quarry flame --help");
		args->look.file = a;
		return STATUS_OK;
	}
	if (strcmp(a, "--") == 0) {
		*names_only = true;
		return STATUS_OK;
	}
	for (size_t k = 0; k < sizeof(with_value) / sizeof(with_value[0]); k++) {
		size_t n = strlen(with_value[k]);

		if (strcmp(a, with_value[k]) == 0)
			return take_value(args, a, *i + 1 < argc ? argv[++*i] : NULL);
		if (k > 0 && strncmp(a, with_value[k], n) == 0 && a[n] == '=')
			return take_value(args, with_value[k], a + n + 1);
	}
	if (take_switch(args, a))
		return STATUS_OK;
	return fail(STATUS_USAGE, "flame: unknown option '%s'; see quarry flame --help", a);
}

static int parse(int argc, char **argv, struct arguments *args)
{
	bool names_only = false;
	int status = STATUS_OK;

	for (int i = 1; i < argc && status == STATUS_OK; i++)
		status = parse_one(args, argc, argv, &i, &names_only);
	if (status == STATUS_OK && !args->look.file)
		status = fail(STATUS_USAGE, "flame: no FILE; see quarry flame --help");
	if (status == STATUS_OK && args->json + args->text + (args->svg != NULL) > 1)
		status = fail(STATUS_USAGE, "flame: one of --svg, --text and --json");
	return status;
}

/* ---- what the file has ---- */

static int check_wishes(const struct flame_profile *p, const struct flame_look *look)
{
	int wanted = look->allocated ? look->objects ? FLAME_ALLOCATED_OBJECTS : FLAME_ALLOCATED_BYTES :
				       look->objects ? FLAME_OBJECTS : FLAME_BYTES;

	if (!p->has[wanted])
		return fail(STATUS_FAILED, "flame: %s: %s without %s that %s%s", look->file, p->format,
			    look->objects ? "objects" : "bytes", look->allocated ? "were allocated" : "are in use",
			    look->allocated && p->not_allocated ? p->not_allocated : "");
	if ((look->arena || look->node >= 0) && !p->labelled)
		return fail(STATUS_FAILED, "flame: %s: %s without arenas and nodes", look->file, p->format);
	return STATUS_OK;
}

struct drawing {
	const struct flame_tree *tree;
	const struct flame_look *look;
};

static bool draw(FILE *out, const void *ctx)
{
	const struct drawing *d = ctx;

	return flame_print_svg(d->tree, d->look, out);
}

static int show(const struct arguments *args, struct flame_profile *p)
{
	struct flame_tree tree = { 0 };
	int status = STATUS_OK;

	if (!flame_name(p) || !flame_build(&tree, p, &args->look))
		status = fail(STATUS_FAILED, "flame: %s: %s", args->look.file, p->error);
	else if (tree.used == 0 && (args->look.arena || args->look.node >= 0))
		status = fail(STATUS_FAILED, "flame: %s: nothing of that arena or node", args->look.file);
	else if (args->json)
		flame_print_json(&tree, &args->look, stdout);
	else if (args->text)
		flame_print_text(&tree, &args->look, stdout);
	else
		status = svg_write("flame", args->svg ? args->svg : "-", draw, &(struct drawing){ &tree, &args->look });
	flame_tree_free(&tree);
	return status;
}

int command_flame(int argc, char **argv)
{
	struct arguments args = { .look = { .node = -1 } };
	struct flame_profile p = { 0 };
	int status = parse(argc, argv, &args);

	if (status == STATUS_OK)
		status = flame_read_file(&p, args.look.file);
	if (status == STATUS_OK)
		status = check_wishes(&p, &args.look);
	if (status == STATUS_OK)
		status = show(&args, &p);
	flame_free(&p);
	return status;
}
