/* SPDX-License-Identifier: MIT */
/* The command `quarry`: which of its commands is meant. */
#include "tools/tools.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tools/help.h"

/* One line, whatever the names in it hold: what would move the cursor of a terminal, or end the line, is a question
 * mark. */
int fail(enum status status, const char *format, ...)
{
	char line[8192];
	va_list args;

	fflush(stdout);
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (char *c = line; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == '\x7f')
			*c = '?';
	fprintf(stderr, "quarry: %s\n", line);
	return status;
}

static int command_version(int argc, char **argv)
{
	if (argc > 1)
		return fail(STATUS_USAGE, "version: unknown argument '%s'; see quarry version --help", argv[1]);
	printf("quarry %s\n", quarry_version_string());
	return STATUS_OK;
}

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
	{ "heap", heap_text, command_heap },
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

static int run(int argc, char **argv)
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
		status = (int)fail(STATUS_FAILED, "standard output: %s", strerror(errno));
	return status;
}

int main(int argc, char **argv)
{
	int status = run(argc, argv);

	/* What is told at the end of a program on quarry is wanted of those that are looked at, not of this one: it would write
	 * over the file that it was to read. */
	if (getenv("QUARRY_VIEW") || getenv("QUARRY_PROFILE") || getenv("QUARRY_OPTIONS"))
		_exit(status);
	return status;
}
