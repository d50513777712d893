/* SPDX-License-Identifier: MIT */
/* The command `quarry`: run a program on quarry's malloc, look at what the machine can give, list the options. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/tools.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#ifndef QUARRY_LIBDIR
#define QUARRY_LIBDIR "/usr/local/lib"
#endif
#define LIBRARY "libquarry-malloc.so"
#define VARIABLE "QUARRY_OPTIONS"

int fail(enum status status, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("quarry: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

/* ------------------------------------------------------------------------------------------------------ */
/* help, version                                                                                          */

static const char help_text[] =
	"usage: quarry COMMAND [ARGUMENT...]\n"
	"\n"
	"  run [OPTION...] PROGRAM [ARGUMENT...]  run a program on quarry's malloc\n"
	"  doctor [--json]                        what this machine can and cannot give\n"
	"  map [OPTION...] [FILE|PID]             nodes and what is on them, as a picture\n"
	"  diff [OPTION...] A B                   what grew between two dumps of views\n"
	"  flame [OPTION...] FILE                 a heap profile, as a flame graph\n"
	"  leaks [OPTION...] FILE                 what leaked, with names and lines\n"
	"  top [OPTION...] PID                    a process's memory by arena, live\n"
	"  metrics [OPTION...] PID                its figures as OpenMetrics\n"
	"  help [COMMAND|options]                 this, a command's, the list of options\n"
	"  version                                the library's version\n"
	"\n"
	"Each command takes --help. The manual: quarry(1), quarry(7).\n";

static const char run_text[] =
	"usage: quarry run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
	"\n"
	"Runs PROGRAM, and what it starts, with libquarry-malloc.so preloaded.\n"
	"\n"
	"  --options LIST    options as in QUARRY_OPTIONS: name=value,name=value; they\n"
	"                    come after those of the environment, and so count\n"
	"  --stats[=FORMAT]  write the statistics to standard error at the end; FORMAT is\n"
	"                    text (the default) or json\n"
	"  --leaks[=FORMAT]  the same of what cannot be reached any more then, and where\n"
	"                    it was allocated: profile=1, which costs time, unless LIST\n"
	"                    or the environment says otherwise\n"
	"  --library FILE    preload this library\n"
	"\n"
	"The exit status is PROGRAM's; 2 for a wrong option, 127 when PROGRAM is not\n"
	"found, 126 when it or the library cannot be run.\n";

static const char doctor_text[] =
	"usage: quarry doctor [--json]\n"
	"\n"
	"Tries what quarry asks of a kernel, and says for each thing that is lacking what\n"
	"it costs and which command ends it. Changes nothing. The exit status is 0\n"
	"whatever was found.\n"
	"\n"
	"  --json  as one JSON object\n";

static const char map_text[] =
	"usage: quarry map [OPTION...] [FILE|PID]\n"
	"\n"
	"Draws this machine's nodes; with FILE (- is standard input), a dump of the\n"
	"statistics of a program on quarry, the nodes and the arenas that have memory\n"
	"there; with PID, what the kernel tells of a process (it takes the right to trace\n"
	"it). Dumps are written by QUARRY_OPTIONS=stats_at_exit=json, quarry run\n"
	"--stats=json, and quarry_stats_print. A file whose name is a number is ./NAME.\n"
	"Of a dump of a view (quarry_view_dump), what slabs and large blocks hold is\n"
	"drawn, on the nodes that were asked for.\n"
	"\n"
	"  --svg FILE  write an SVG picture to FILE, or - for standard output\n"
	"  --json      as one JSON object\n"
	"  --ascii     no other characters than ASCII; the default outside of UTF-8\n"
	"              locales\n"
	"  --utf8      box drawing whatever the locale is\n"
	"  --all       leave nothing out where there are many arenas\n"
	"\n"
	"Colours are used on a terminal, unless NO_COLOR is set.\n";

static const char diff_text[] =
	"usage: quarry diff [OPTION...] A B\n"
	"\n"
	"Tells what lives more in B than in A, or less, of two dumps of views of a\n"
	"program on quarry (quarry_view_dump): by arena and size class, what grew most\n"
	"first. Arenas are matched by their names; those of one name are taken together.\n"
	"Where a profile was kept (option profile), the same by the stack that allocated\n"
	"it: the 20 that grew most, and the 10 that shrank most.\n"
	"One of the two may be -, standard input.\n"
	"\n"
	"  --json  as one JSON object\n"
	"  --all   also what is as it was\n"
	"\n"
	"The exit status is 0 whatever grew.\n";

static const char leaks_text[] =
	"usage: quarry leaks [OPTION...] FILE\n"
	"\n"
	"Tells what leaked, by reports that quarry wrote as JSON (- is standard input):\n"
	"quarry run --leaks=json, QUARRY_OPTIONS=leaks_at_exit=json, quarry_leaks_print.\n"
	"A file may have those of several processes: each is told of, and their sum.\n"
	"Stacks get names and source lines from the files that the report names, as far\n"
	"as they are the same. Other lines around a report are passed over.\n"
	"\n"
	"  --all    also what is suppressed, and places from which nothing leaked\n"
	"  --json   as one JSON object\n"
	"  --check  the exit status is 1 if anything leaked that is not suppressed, in\n"
	"           any of the processes\n";

static const char flame_text[] =
	"usage: quarry flame [OPTION...] FILE\n"
	"\n"
	"Draws a heap profile (- is standard input) as a flame graph for a browser: which\n"
	"functions allocated, and which called them, by bytes in use. A click zooms; the\n"
	"field at the top searches. FILE is what quarry writes (QUARRY_PROFILE,\n"
	"quarry_profile_write), another's heap profile as profile.proto, gperftools' or\n"
	"jemalloc's text, or collapsed stacks of anybody.\n"
	"\n"
	"  -o FILE, --svg FILE  where to; - (the default) is standard output\n"
	"  --text               a table of functions, for a terminal\n"
	"  --json               files, functions and the tree, as one JSON object\n"
	"  --allocated          all that was allocated, rather than what is in use\n"
	"  --objects            by objects, rather than bytes\n"
	"  --inverted           from the function that allocates to its callers\n"
	"  --arena NAME         of one arena\n"
	"  --node N             of one node\n"
	"  --title TEXT         the picture's title, instead of the file's name\n"
	"\n"
	"Addresses get names from the files that the profile tells of, if their build ids\n"
	"are those of the profile, "
#if QUARRY_LIBDW
	"by debug information (libdw) and by symbols.\n"
#else
	"by symbols alone: built without libdw.\n"
#endif
#if !QUARRY_ZLIB
	"Compressed profiles of others have to be unpacked first: built without zlib.\n"
#endif
	"C++ names need libstdc++.so.6.\n";

static const char top_text[] =
	"usage: quarry top [OPTION...] PID\n"
	"\n"
	"Shows what a process on quarry publishes of itself (option publish), each second\n"
	"anew: its memory by arena and node, and what happens to it in a second. Nothing\n"
	"is stopped. It takes the right to trace the process. A terminal gets a screen of\n"
	"its own: < and > sort by another column, i turns the order, q ends.\n"
	"\n"
	"  --once          one look, without rates\n"
	"  --json          each look as one line of JSON\n"
	"  --sort COLUMN   name, node, mapped, resident (the default), in_use, cached,\n"
	"                  free, huge, frag, limit, refills, remote or purged\n"
	"  --interval S    seconds between two looks, 0.1 to 3600\n"
	"  --count N       end after so many looks\n"
	"  --svg FILE      draw the last look (of three, or as --count or --once says)\n"
	"                  as a picture; - is standard output\n"
	"\n"
	"RES is in memory; INUSE the program has; CACHE threads hold; FREE is free and in\n"
	"memory; HUG% of what is mapped is in huge pages; FRA% of what is in memory is\n"
	"not in use; LIM% is how far a hard limit is filled (s: a soft one). In a second:\n"
	"REF/s times that caches went to their manager, REM/s objects that others freed,\n"
	"PRG/s bytes that went back to the kernel. Faults are minor and major ones.\n";

static const char metrics_text[] =
	"usage: quarry metrics [OPTION...] PID\n"
	"\n"
	"Writes what a process on quarry publishes of itself (option publish) as\n"
	"OpenMetrics text. It takes the right to trace the process.\n"
	"\n"
	"  --classic        in the format of Prometheus before OpenMetrics\n"
	"  --no-arenas      the figures of the process alone\n"
	"  --textfile PATH  into a file, at one stroke and in the classic format: for\n"
	"                   node_exporter's textfile collector\n"
	"  --socket PATH    listen on a Unix socket, and answer HTTP GET; OpenMetrics for\n"
	"                   those who ask for it; until the process ends\n";

static const char version_text[] =
	"usage: quarry version\n"
	"\n"
	"Prints the version of the library that this command runs with.\n";

static const char help_help_text[] =
	"usage: quarry help [COMMAND|options]\n"
	"\n"
	"`quarry help options` lists what QUARRY_OPTIONS, quarry_ctl_set and\n"
	"quarry_mallopt take.\n";

/* A size as its option takes it: the largest suffix that leaves a whole number. */
static void print_size(long n)
{
	static const char suffixes[] = "kmgt";
	int unit = -1;

	while (n && unit < 3 && n % 1024 == 0) {
		n /= 1024;
		unit++;
	}
	printf("%ld%.*s", n, unit >= 0 ? 1 : 0, unit >= 0 ? suffixes + unit : "");
}

/* The library is asked what it takes, not told twice. */
static bool takes(const char *name, const char *value)
{
	char item[128];

	snprintf(item, sizeof(item), "%s=%s", name, value);
	return quarry_ctl_set("options_check", item) == 0;
}

static bool takes_number(const char *name, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	return takes(name, text);
}

#define ASKED_MAX 256 /* so many values are asked for one by one */

/* "23, 28, 34 to 64" */
static void print_range(const quarry_option_info *o)
{
	const char *comma = "";

	if (o->maximum - o->minimum >= ASKED_MAX) {
		printf("%ld to %ld", o->minimum, o->maximum);
		return;
	}
	for (long first = o->minimum; first <= o->maximum; first++) {
		long last = first;

		if (!takes_number(o->name, first))
			continue;
		while (last < o->maximum && takes_number(o->name, last + 1))
			last++;
		printf("%s%ld", comma, first);
		if (last > first)
			printf(" to %ld", last);
		comma = ", ";
		first = last;
	}
}

static void print_choice(const char *choices, long index)
{
	for (; index > 0; index--)
		choices += strcspn(choices, "|") + 1;
	printf("%.*s", (int)strcspn(choices, "|"), choices);
}

static void print_option(const quarry_option_info *o)
{
	bool size = takes(o->name, "1m");

	printf("\n  %s=", o->name);
	if (o->choices)
		print_choice(o->choices, o->def);
	else if (size)
		print_size(o->def);
	else
		printf("%ld", o->def);
	printf("   (");
	if (o->choices) {
		printf("%s", o->choices);
	} else if (size) {
		print_size(o->minimum);
		printf(" to ");
		print_size(o->maximum);
	} else if (o->minimum == 0 && o->maximum == 1) {
		printf("0|1");
	} else {
		print_range(o);
	}
	printf(")%s\n      %s\n", o->runtime ? "" : ", at start only", o->help);
}

static int help_options(void)
{
	quarry_option_info option;

	printf("Options and their defaults: " VARIABLE "=\"name=value,name=value\", or while a\n"
	       "program runs quarry_ctl_set(\"name\", \"value\") and quarry_mallopt(NUMBER, value).\n"
	       "Sizes are bytes and take k, m, g or t; 0|1 can be off|on and no|yes.\n");
	for (int i = 0; quarry_option_describe(i, &option) == 0; i++)
		print_option(&option);
	return STATUS_OK;
}

static int command_version(int argc, char **argv)
{
	if (argc > 1)
		return fail(STATUS_USAGE, "version: unknown argument '%s'; see quarry version --help", argv[1]);
	printf("quarry %s\n", quarry_version_string());
	return STATUS_OK;
}

/* ------------------------------------------------------------------------------------------------------ */
/* run: the library                                                                                       */

/* The first of the library's names that is in a folder. A package for programs alone may lack the plain one. */
static bool library_in(const char *folder, char *found)
{
	static const char *const names[] = { LIBRARY, LIBRARY ".0" };
	char path[2 * PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		if (access(path, R_OK) == 0 && realpath(path, found))
			return true;
	}
	return false;
}

/* Beside the command in its build tree (libtool keeps both in folders named .libs), in ../lib of where it is
 * installed, or where it was configured to be. An installed command does not look for build trees. */
static bool find_library(char *found)
{
	static const char *const in_build[] = { ".", "../../.libs", "../../lib/.libs" };
	static const char *const beside[] = { "../lib", "../lib64", ".libs" };
	char self[PATH_MAX], folder[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		*slash = '\0';
		slash = strrchr(self, '/');
		bool build = slash && strcmp(slash, "/.libs") == 0;
		for (size_t i = 0; i < 3; i++) {
			snprintf(folder, sizeof(folder), "%s/%s", self, build ? in_build[i] : beside[i]);
			if (library_in(folder, found))
				return true;
		}
	}
	return library_in(QUARRY_LIBDIR, found);
}

/* Put the library before whatever is to be preloaded already. */
static int set_preload(const char *library)
{
	const char *before = getenv("LD_PRELOAD");
	char *list;

	/* The loader splits at both, and knows no way to quote them. */
	if (strpbrk(library, " :"))
		return fail(STATUS_CANNOT_RUN, "run: %s cannot be preloaded: its path has a space or a colon", library);
	if (asprintf(&list, "%s%s%s", library, before && *before ? ":" : "", before ? before : "") < 0 ||
	    setenv("LD_PRELOAD", list, 1) != 0)
		return fail(STATUS_FAILED, "run: %s", strerror(errno));
	free(list);
	return STATUS_OK;
}

/* ------------------------------------------------------------------------------------------------------ */
/* run: the options and the program                                                                       */

struct run {
	const char *options, *stats, *leaks, *library;
	char **program;
};

/* What --leaks is best with, the environment's options, those given, --stats and --leaks, in this order: the later
 * count. */
static int set_options(const struct run *run)
{
	const char *environment = getenv(VARIABLE);
	char *list;

	if (!environment)
		environment = "";
	if (run->options && quarry_ctl_set("options_check", run->options) != 0)
		return fail(STATUS_USAGE, "run: --options: %s", quarry_error_text());
	/* (What is wrong with it the library has told when this command started.) */
	if (quarry_ctl_set("options_check", environment) != 0)
		return STATUS_USAGE;
	if (asprintf(&list, "%s%s%s%s%s%s%s%s%s", run->leaks ? "profile=1" : "", run->leaks && *environment ? "," : "",
		     environment, run->options ? "," : "", run->options ? run->options : "",
		     run->stats ? ",stats_at_exit=" : "", run->stats ? run->stats : "",
		     run->leaks ? ",leaks_at_exit=" : "", run->leaks ? run->leaks : "") < 0)
		return fail(STATUS_FAILED, "run: %s", strerror(errno));
	if (*list && setenv(VARIABLE, list + strspn(list, ","), 1) != 0)
		return fail(STATUS_FAILED, "run: %s", strerror(errno));
	free(list);
	return STATUS_OK;
}

/* An option's value as the program will have it: the environment's, which is this process's too, or one that was
 * given. */
static void option_value(const struct run *run, const char *name, char *value, size_t size)
{
	size_t n = strlen(name);

	if (quarry_ctl_get(name, value, size) < 0)
		*value = '\0';
	for (const char *at = run->options; at && *at; at += strcspn(at, ","), at += *at == ',') {
		char given[32];

		at += strspn(at, " ");
		if (strncmp(at, name, n) != 0 || at[n] != '=')
			continue;
		snprintf(given, sizeof(given), "%.*s", (int)strcspn(at + n + 1, ","), at + n + 1);
		/* (As the library has it: "on" is 1.) */
		if (quarry_ctl_set(name, given) == 0)
			quarry_ctl_get(name, value, size);
	}
}

/* A program that may have nothing but pages of a pool, and finds it empty, ends before it can say why. */
static void warn_of_empty_pools(const struct run *run)
{
	char pages[32], strict[32];
	int empty = 0, node = -1;
	bool gigantic;

	option_value(run, "pages", pages, sizeof(pages));
	option_value(run, "strict", strict, sizeof(strict));
	gigantic = strcmp(pages, "1g") == 0;
	if (strcmp(strict, "1") != 0 || (!gigantic && strcmp(pages, "2m") != 0))
		return;
	for (int i = 0; i < quarry_node_count(); i++) {
		quarry_node_info info = { .struct_size = sizeof(info) };

		if (quarry_node_info_get(quarry_node_id(i), &info) != 0 || info.has_cpus == 0 ||
		    (gigantic ? info.huge_free_1g : info.huge_free_2m) != 0)
			continue;
		if (empty++ == 0)
			node = info.id;
	}
	if (empty > 0)
		fail(STATUS_OK, "run: strict=1, and the pool of %s pages of node %d%s is empty: no memory is to be had "
				"there; see quarry doctor", pages, node, empty > 1 ? ", and of others," : "");
}

/* What execvp will find; false when nothing. */
static bool find_program(const char *name, char *path, size_t size)
{
	const char *folder = getenv("PATH");

	if (strchr(name, '/')) {
		snprintf(path, size, "%s", name);
		return access(path, F_OK) == 0;
	}
	for (; folder && *name; folder = strchr(folder, ':') ? strchr(folder, ':') + 1 : NULL) {
		int n = (int)strcspn(folder, ":");
		snprintf(path, size, "%.*s/%s", n ? n : 1, n ? folder : ".", name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

/* Is this an ELF file that has no dynamic loader, and so nobody to preload anything? */
static bool is_static(int fd)
{
	Elf64_Ehdr header;
	Elf64_Phdr segment;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || memcmp(header.e_ident, ELFMAG, SELFMAG) ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(segment))
		return false;
	for (unsigned i = 0; i < header.e_phnum; i++) {
		off_t at = (off_t)(header.e_phoff + i * sizeof(segment));
		if (pread(fd, &segment, sizeof(segment), at) != sizeof(segment) || segment.p_type == PT_INTERP)
			return false;
	}
	return true;
}

/* The loader preloads nothing into some programs and says nothing: then this does. */
static void warn_when_not_preloaded(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	if (is_static(fd))
		fail(STATUS_OK, "run: %s is statically linked: it keeps its own malloc", path);
	else if (fstat(fd, &st) == 0 && (((st.st_mode & S_ISUID) && st.st_uid != getuid()) ||
					 ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())))
		fail(STATUS_OK, "run: %s changes its user or group: the loader preloads nothing there", path);
	close(fd);
}

/* The value of --name=VALUE or --name VALUE; NULL when args[*i] is not --name. An error is told and sets *status. */
static const char *option_argument(const char *name, int argc, char **args, int *i, int *status)
{
	size_t n = strlen(name);

	if (strncmp(args[*i], name, n) != 0 || (args[*i][n] != '=' && args[*i][n] != '\0'))
		return NULL;
	if (args[*i][n] == '=')
		return args[*i] + n + 1;
	if (*i + 1 < argc)
		return args[++*i];
	*status = fail(STATUS_USAGE, "run: %s needs a value", name);
	return NULL;
}

static int parse_run(int argc, char **argv, struct run *run)
{
	int status = STATUS_OK, i;

	for (i = 1; i < argc && argv[i][0] == '-' && status == STATUS_OK; i++) {
		const char *value;
		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		if ((value = option_argument("--options", argc, argv, &i, &status)) != NULL)
			run->options = value;
		else if ((value = option_argument("--library", argc, argv, &i, &status)) != NULL)
			run->library = value;
		else if (strcmp(argv[i], "--stats") == 0 || strcmp(argv[i], "--stats=text") == 0)
			run->stats = "text";
		else if (strcmp(argv[i], "--stats=json") == 0)
			run->stats = "json";
		else if (strcmp(argv[i], "--leaks") == 0 || strcmp(argv[i], "--leaks=text") == 0)
			run->leaks = "text";
		else if (strcmp(argv[i], "--leaks=json") == 0)
			run->leaks = "json";
		else if (status == STATUS_OK) /* a value that is missing has been told */
			status = fail(STATUS_USAGE, "run: unknown option '%s'; see quarry run --help", argv[i]);
	}
	if (status == STATUS_OK && i >= argc)
		status = fail(STATUS_USAGE, "run: no program; see quarry run --help");
	run->program = argv + i;
	return status;
}

static int command_run(int argc, char **argv)
{
	struct run run = { 0 };
	char library[PATH_MAX], path[2 * PATH_MAX];
	int status = parse_run(argc, argv, &run);

	if (status == STATUS_OK)
		status = set_options(&run);
	if (status != STATUS_OK)
		return status;
	if (run.library && (!realpath(run.library, library) || access(library, R_OK) != 0))
		return fail(STATUS_CANNOT_RUN, "run: %s: %s", run.library, strerror(errno));
	if (!run.library && !find_library(library))
		return fail(STATUS_CANNOT_RUN, "run: no " LIBRARY " beside this command or in " QUARRY_LIBDIR
					       "; name it with --library");
	if (!find_program(run.program[0], path, sizeof(path)))
		return fail(STATUS_NOT_FOUND, "run: %s: %s", run.program[0], strerror(ENOENT));
	status = set_preload(library);
	if (status != STATUS_OK)
		return status;
	warn_when_not_preloaded(path);
	warn_of_empty_pools(&run);
	execvp(run.program[0], run.program);
	status = errno;
	return fail(status == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN, "run: %s: %s", run.program[0],
		    strerror(status));
}

/* ------------------------------------------------------------------------------------------------------ */

static int command_help(int argc, char **argv);

static const struct command {
	const char *name, *help;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "run", run_text, command_run },
	{ "doctor", doctor_text, command_doctor },
	{ "map", map_text, command_map },
	{ "diff", diff_text, command_diff },
	{ "flame", flame_text, command_flame },
	{ "leaks", leaks_text, command_leaks },
	{ "top", top_text, command_top },
	{ "metrics", metrics_text, command_metrics },
	{ "help", help_help_text, command_help },
	{ "version", version_text, command_version },
};

static const struct command *command_named(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static int command_help(int argc, char **argv)
{
	const struct command *about = argc > 1 ? command_named(argv[1]) : NULL;

	if (argc > 2)
		return fail(STATUS_USAGE, "help: one thing at a time; see quarry help");
	if (argc > 1 && strcmp(argv[1], "options") == 0)
		return help_options();
	if (argc > 1 && !about)
		return fail(STATUS_USAGE, "help: no command '%s'; see quarry help", argv[1]);
	fputs(about ? about->help : help_text, stdout);
	return STATUS_OK;
}

static bool asks_for_help(const char *argument)
{
	return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

int main(int argc, char **argv)
{
	const struct command *command;
	int status = STATUS_OK;

	if (argc < 2)
		return fail(STATUS_USAGE, "no command; see quarry --help");
	command = command_named(argv[1]);
	if (command && argc > 2 && asks_for_help(argv[2]))
		fputs(command->help, stdout);
	else if (command)
		status = command->run(argc - 1, argv + 1);
	else if (asks_for_help(argv[1]))
		fputs(help_text, stdout);
	else if (strcmp(argv[1], "--version") == 0)
		status = command_version(1, argv);
	else
		return fail(STATUS_USAGE, "no command '%s'; see quarry --help", argv[1]);
	/* A report that did not get out is no report: /dev/full, a closed descriptor. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == STATUS_OK)
		return fail(STATUS_FAILED, "standard output: %s", strerror(errno));
	return status;
}
