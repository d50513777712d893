/* SPDX-License-Identifier: MIT */
/* The command `quarry run`: a program on quarry's malloc. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/tools.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* ---- the library ---- */

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

/* ---- the options and the program ---- */

struct run {
	const char *options, *stats, *leaks, *profile, *view, *library;
	char **program;
};

/* Whether a list of options has one of that name. */
static bool names(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',') {
		at += strspn(at, " \t\n");
		if (strncmp(at, name, n) == 0 && at[n + strspn(at + n, " \t\n")] == '=')
			return true;
	}
	return false;
}

static void add(FILE *list, const char *name, const char *value)
{
	if (value && *value)
		fprintf(list, "%s%s%s", ftell(list) > 0 ? "," : "", name, value);
}

/* What --leaks and --profile are best with, the environment's options, those given, --stats and --leaks, in this order:
 * the later count. */
static char *all_options(const struct run *run, const char *environment)
{
	const char *stats = run->stats;
	size_t size;
	char *text = NULL;
	FILE *list = open_memstream(&text, &size);

	if (!list)
		return NULL;
	if (!stats && !run->leaks && !names(environment, "stats_at_exit") && !names(run->options, "stats_at_exit"))
		stats = "summary";
	add(list, "profile=", run->leaks ? "1" : run->profile ? "512k" : NULL);
	add(list, "", environment);
	add(list, "", run->options);
	add(list, "stats_at_exit=", stats);
	add(list, "leaks_at_exit=", run->leaks);
	if (fclose(list) == 0)
		return text;
	free(text);
	return NULL;
}

static int set_options(const struct run *run)
{
	const char *environment = getenv(VARIABLE);
	char number[16], *list;
	bool set;

	if (run->options && quarry_ctl_set("options_check", run->options) != 0)
		return fail(STATUS_USAGE, "run: --options: %s", quarry_error_text());
	/* (What is wrong with it the library has told when this command started.) */
	if (quarry_ctl_set("options_check", environment ? environment : "") != 0)
		return STATUS_USAGE;
	list = all_options(run, environment);
	/* (A summary is of this process, which the program is going to be, and not of those that it starts.) */
	snprintf(number, sizeof(number), "%d", (int)getpid());
	set = list && setenv(VARIABLE, list, 1) == 0 && setenv("QUARRY_RUN", number, 1) == 0;
	free(list);
	return set ? STATUS_OK : fail(STATUS_FAILED, "run: %s", strerror(errno));
}

/* Where the program is to write a file, wherever it goes by then. */
static int set_file(const char *variable, const char *file)
{
	char here[PATH_MAX] = "", path[3 * PATH_MAX] = "", *to = path;

	if (!file)
		return STATUS_OK;
	if (*file != '/' && getcwd(here, sizeof(here) - 1))
		strcat(here, "/");
	/* (Only the file's own signs mean something.) */
	for (const char *at = here; *at; at++) {
		*to++ = *at;
		if (*at == '%')
			*to++ = '%';
	}
	if (strlen(file) >= PATH_MAX)
		return fail(STATUS_USAGE, "run: a file's name of %zu bytes is too long", strlen(file));
	strcpy(to, file);
	return setenv(variable, path, 1) == 0 ? STATUS_OK : fail(STATUS_FAILED, "run: %s", strerror(errno));
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

/* Whether the loader could load it; where not, it says so in words of its own, and the program runs without. */
static bool is_library(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), own = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr header = { 0 }, like = { 0 };
	bool read = fd >= 0 && pread(fd, &header, sizeof(header), 0) == sizeof(header);

	if (own < 0 || pread(own, &like, sizeof(like), 0) != sizeof(like))
		like = header;
	if (fd >= 0)
		close(fd);
	if (own >= 0)
		close(own);
	return read && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_type == ET_DYN &&
	       header.e_ident[EI_CLASS] == like.e_ident[EI_CLASS] && header.e_machine == like.e_machine;
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

/* --name or --name=VALUE, one of those listed where there is a list. */
static bool is_given(const char *name, const char *arg, const char *without, const char *const *of, const char **value,
		     int *status)
{
	size_t n = strlen(name);

	if (strncmp(arg, name, n) != 0 || (arg[n] != '=' && arg[n] != '\0'))
		return false;
	*value = arg[n] == '=' ? arg + n + 1 : without;
	if (**value == '\0')
		*status = fail(STATUS_USAGE, "run: %s= needs a value", name);
	if (!of || **value == '\0')
		return true;
	for (size_t i = 0; of[i]; i++)
		if (strcmp(*value, of[i]) == 0)
			return true;
	*status = fail(STATUS_USAGE, "run: %s: '%s' is not text%s or json", name, *value, of[2] ? ", summary, off" : "");
	return true;
}

static int parse_run(int argc, char **argv, struct run *run)
{
	static const char *const formats[] = { "text", "json", NULL };
	static const char *const stats[] = { "text", "json", "summary", "off", NULL };
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
		else if (is_given("--stats", argv[i], "text", stats, &run->stats, &status) ||
			 is_given("--leaks", argv[i], "text", formats, &run->leaks, &status) ||
			 is_given("--profile", argv[i], "quarry.%p.pb.gz", NULL, &run->profile, &status) ||
			 is_given("--view", argv[i], "quarry.%p.view", NULL, &run->view, &status))
			continue;
		else if (status == STATUS_OK) /* a value that is missing has been told */
			status = fail(STATUS_USAGE, "run: unknown option '%s'; see quarry run --help", argv[i]);
	}
	if (status == STATUS_OK && i >= argc)
		status = fail(STATUS_USAGE, "run: no program; see quarry run --help");
	run->program = argv + i;
	return status;
}

int command_run(int argc, char **argv)
{
	struct run run = { 0 };
	char library[PATH_MAX], path[2 * PATH_MAX];
	int status = parse_run(argc, argv, &run);

	if (status == STATUS_OK)
		status = set_options(&run);
	if (status == STATUS_OK)
		status = set_file("QUARRY_PROFILE", run.profile);
	if (status == STATUS_OK)
		status = set_file("QUARRY_VIEW", run.view);
	if (status != STATUS_OK)
		return status;
	if (run.library && (!realpath(run.library, library) || access(library, R_OK) != 0))
		return fail(STATUS_CANNOT_RUN, "run: %s: %s", run.library, strerror(errno));
	if (run.library && !is_library(library))
		return fail(STATUS_CANNOT_RUN, "run: %s is no library of this machine's", run.library);
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
