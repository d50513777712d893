/* SPDX-License-Identifier: MIT */
#include "tools/help.h"

#include <stdio.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/tools.h"

const char help_text[] =
	"usage: quarry COMMAND [ARGUMENT...]\n"
	"\n"
	"  run [OPTION...] PROGRAM [ARGUMENT...]  run a program on quarry's malloc\n"
	"  doctor [--json] [PID]                  what this machine, or a process, lacks\n"
	"  map [OPTION...] [FILE|PID]             nodes and what is on them, as a picture\n"
	"  diff [OPTION...] A B                   what grew between two dumps of views\n"
	"  flame [OPTION...] FILE                 a heap profile, as a flame graph\n"
	"  leaks [OPTION...] FILE                 what leaked, with names and lines\n"
	"  heap VERB [OPTION...] FILE             what is in a heap's file, copies of it\n"
	"  top [OPTION...] PID                    a process's memory by arena, live\n"
	"  metrics [OPTION...] PID                its figures as OpenMetrics\n"
	"  help [COMMAND|options]                 this, a command's, the list of options\n"
	"  version                                the library's version\n"
	"\n"
	"Each command takes --help. The manual: quarry(1), quarry(7).\n";

const char run_text[] =
	"usage: quarry run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
	"\n"
	"Runs PROGRAM, and what it starts, with libquarry-malloc.so preloaded.\n"
	"\n"
	"  --options LIST    options as in QUARRY_OPTIONS: name=value,name=value; they\n"
	"                    come after those of the environment, and so count\n"
	"  --stats[=FORMAT]  write the statistics to standard error at the end; FORMAT is\n"
	"                    text (the default), json, off, or summary, which is what\n"
	"                    there is without this and --leaks: a few lines, of PROGRAM\n"
	"  --leaks[=FORMAT]  the same of what cannot be reached any more then, and where\n"
	"                    it was allocated: profile=1, which costs time, unless LIST\n"
	"                    or the environment says otherwise\n"
	"  --profile[=FILE]  keep a heap profile (profile=512k) and write it to FILE at\n"
	"                    the end; quarry.%p.pb.gz (%p: the process's number)\n"
	"  --view[=FILE]     write a view of the heap then, for quarry map and diff;\n"
	"                    quarry.%p.view\n"
	"  --library FILE    preload this library\n"
	"\n"
	"The exit status is PROGRAM's; 2 for a wrong option, 127 when PROGRAM is not\n"
	"found, 126 when it or the library cannot be run.\n";

const char doctor_text[] =
	"usage: quarry doctor [--json] [PID]\n"
	"\n"
	"Tries what quarry asks of a kernel, and says for each thing that is lacking what\n"
	"it costs and which command ends it. Changes nothing. The exit status is 0\n"
	"whatever was found.\n"
	"\n"
	"With PID, the same of a process on quarry, by what it publishes: its limits and\n"
	"how large it should be, growth, memory that is not in use, huge pages, faults,\n"
	"what was refused. It takes the right to trace the process.\n"
	"\n"
	"  --json  as one JSON object\n";

const char map_text[] =
	"usage: quarry map [OPTION...] [FILE|PID]\n"
	"\n"
	"Draws this machine's nodes; with FILE (- is standard input), a dump of the\n"
	"statistics of a program on quarry, the nodes and the arenas that have memory\n"
	"there; with PID, what the kernel tells of a process (it takes the right to trace\n"
	"it). Dumps are written by QUARRY_OPTIONS=stats_at_exit=json, quarry run\n"
	"--stats=json, and quarry_stats_print. A file whose name is a number is ./NAME.\n"
	"A dump of a view (quarry_view_dump) is drawn as a picture of the heap: by node,\n"
	"arena and address, how much of each cell lives, what threads cache, and what\n"
	"nothing holds. Statistics and the kernel tell nothing of that.\n"
	"\n"
	"  --svg FILE  write an SVG picture to FILE, or - for standard output\n"
	"  --json      as one JSON object\n"
	"  --ascii     no other characters than ASCII; the default outside of UTF-8\n"
	"              locales\n"
	"  --utf8      box drawing whatever the locale is\n"
	"  --all       leave nothing out where there are many arenas, or regions\n"
	"\n"
	"Colours are used on a terminal, unless NO_COLOR is set; a heap is as wide as\n"
	"COLUMNS says.\n";

const char diff_text[] =
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

const char leaks_text[] =
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
	"           any of the processes, and 2 if that cannot be told\n"
	"  --suppressions FILE\n"
	"           leave out, too, what has a function, source file or program in its\n"
	"           stack that matches a line leak:PATTERN of FILE: names as they are told\n"
	"           here (* is anything, ^ the beginning, $ the end; # begins a comment)\n";

const char flame_text[] =
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

const char heap_text[] =
	"usage: quarry heap info [--json] [--all] [--ascii|--utf8] FILE\n"
	"       quarry heap check [--json] [--read-only] FILE\n"
	"       quarry heap dump [--json] [-o DUMP] FILE\n"
	"       quarry heap restore [--json] [-i DUMP] FILE\n"
	"       quarry heap compact [--json] FILE\n"
	"\n"
	"Looks after a heap in a file (quarry_mapped_create).\n"
	"\n"
	"  info     what it is, its names, objects by size, a picture of how full it is;\n"
	"           it is only read, and others may go on with it meanwhile\n"
	"  check    look at all that it knows of itself, and clean up after processes\n"
	"           that died; the exit status is 1 where something is wrong, or where\n"
	"           who only reads cannot tell that from what others are changing\n"
	"  dump     write all that is in use as a stream, to standard output or to DUMP,\n"
	"           in the place of what is there; nobody else may have it open\n"
	"  restore  make FILE, where nothing is, of a dump from standard input or DUMP;\n"
	"           nothing is believed that cannot be; a durable heap's makes a direct one\n"
	"  compact  give back free memory, cut the file behind the last object; objects\n"
	"           stay where they are, and nobody else may have it open\n"
	"\n"
	"  --json       as one JSON object\n"
	"  --all        all names and sizes, and all lines of the picture\n"
	"  --ascii, --utf8  characters of the picture, as for quarry map\n"
	"  --read-only  change nothing, also not what the dead left\n";

const char top_text[] =
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

const char metrics_text[] =
	"usage: quarry metrics [OPTION...] PID\n"
	"\n"
	"Writes what a process on quarry publishes of itself (option publish) as\n"
	"OpenMetrics text. It takes the right to trace the process.\n"
	"\n"
	"  --classic        in the format of Prometheus before OpenMetrics\n"
	"  --no-arenas      the figures of the process alone\n"
	"  --textfile PATH  into a file, at one stroke and in the classic format: for\n"
	"                   node_exporter's textfile collector, which reads *.prom\n"
	"  --socket PATH    listen on a Unix socket, and answer HTTP GET of /metrics;\n"
	"                   OpenMetrics for those who ask for it; until the process ends\n";

const char version_text[] =
	"usage: quarry version\n"
	"\n"
	"Prints the version of the library that this command runs with.\n";

const char help_help_text[] =
	"usage: quarry help [COMMAND|options]\n"
	"\n"
	"`quarry help options` lists what QUARRY_OPTIONS, quarry_ctl_set and\n"
	"quarry_mallopt take.\n";

/* ---- the options ---- */

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

int help_options(void)
{
	quarry_option_info option;

	printf("Options and their defaults: QUARRY_OPTIONS=\"name=value,name=value\", or while a\n"
	       "program runs quarry_ctl_set(\"name\", \"value\") and quarry_mallopt(NUMBER, value).\n"
	       "Sizes are bytes and take k, m, g or t; 0|1 can be off|on and no|yes.\n");
	for (int i = 0; quarry_option_describe(i, &option) == 0; i++)
		print_option(&option);
	return STATUS_OK;
}
