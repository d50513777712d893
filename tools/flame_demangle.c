/* SPDX-License-Identifier: MIT */
/* C++ names by the C++ library, where there is one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/flame.h"

#include <ctype.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANGLED_MAX 4096
#define FEW 12                          /* references in a name: it can be no more than some thousand times as long */
#define ROOM ((rlim_t)64 << 20)         /* bytes more for the process that works on another, */
#define SECONDS 1                       /* and its time */
#define GIVE_UP 4                       /* so many names that took more */
#define APART_MAX 4096                  /* such names in all: a process takes a millisecond or two */
#define KNOWN_BYTES ((size_t)128 << 20) /* of names that are remembered */

typedef char *demangler(const char *name, char *buffer, size_t *size, int *status);

static demangler *find_demangler(void)
{
	static demangler *found;
	static bool looked;
	void *library;

	if (!looked) {
		looked = true;
		library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_LOCAL);
		if (!library)
			library = dlopen("libc++abi.so.1", RTLD_LAZY | RTLD_LOCAL);
		*(void **)&found = library ? dlsym(library, "__cxa_demangle") : NULL;
	}
	return found;
}

/* Rust's, as older compilers made them, are C++'s with a hash behind. */
static void drop_hash(char *text)
{
	size_t n = strlen(text);

	if (n <= 19 || strncmp(text + n - 19, "::h", 3) != 0)
		return;
	for (size_t i = n - 16; i < n; i++)
		if (!isxdigit((unsigned char)text[i]))
			return;
	text[n - 19] = '\0';
}

/* To what the name has in it already: S_, S0_, T_ and so on. Each may double what is written. */
static unsigned references(const char *name)
{
	unsigned count = 0;

	for (; *name; name++)
		count += (*name == 'S' || *name == 'T') && (isdigit((unsigned char)name[1]) || name[1] == '_');
	return count;
}

static rlim_t mapped(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file && fscanf(file, "%lu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit(int resource, rlim_t most)
{
	struct rlimit now = { most, most };

	(void)setrlimit(resource, &now);
}

/* A name of a hundred bytes can stand for one of gigabytes, and there is no way to tell but to try. */
static bool demangle_apart(demangler *demangle, const char *name, char *text, size_t size)
{
	static unsigned failed;
	int ends[2], status = -1;
	size_t used = 0;
	ssize_t n;
	pid_t child;

	if (failed >= GIVE_UP || pipe2(ends, O_CLOEXEC) != 0)
		return false;
	child = fork();
	if (child == 0) {
		limit(RLIMIT_AS, mapped() + ROOM);
		limit(RLIMIT_CPU, SECONDS);
		limit(RLIMIT_CORE, 0);
		name = demangle(name, NULL, NULL, &status);
		n = name ? write(ends[1], name, strnlen(name, size - 1)) : -1;
		_exit(n > 0 ? 0 : 1);
	}
	close(ends[1]);
	while (child > 0 && used + 1 < size && (n = read(ends[0], text + used, size - 1 - used)) > 0)
		used += (size_t)n;
	close(ends[0]);
	text[used] = '\0';
	drop_hash(text);
	if (child > 0)
		(void)waitpid(child, &status, 0);
	failed += child < 0 || WIFSIGNALED(status);
	return child > 0 && status == 0 && used > 0;
}

/* By the name as it is; false where it stays so. */
static bool demangle_one(demangler *demangle, const char *name, char *text, size_t size)
{
	static unsigned apart;
	char *found;
	int status;

	if (references(name) > FEW)
		return apart++ < APART_MAX && demangle_apart(demangle, name, text, size);
	found = demangle(name, NULL, NULL, &status);
	if (!found)
		return false;
	snprintf(text, size, "%s", found);
	free(found);
	drop_hash(text);
	return true;
}

/* ---- each name once ---- */

static struct {
	struct known {
		char *name, *text; /* text: NULL: it stays as it is */
	} *at;
	size_t count, room, bytes;
	struct index index;
} known;

static const struct known *find_known(const char *name, uint64_t hash)
{
	uint32_t i;

	for (size_t step = 0; (i = index_next(&known.index, hash, &step)) != INDEX_NONE;)
		if (strcmp(known.at[i].name, name) == 0)
			return &known.at[i];
	return NULL;
}

static bool room_for_known(void)
{
	size_t more = known.room ? 2 * known.room : 256;
	struct known *at = known.count < known.room ? known.at : realloc(known.at, more * sizeof(*at));

	if (!at)
		return false;
	known.room = known.count < known.room ? known.room : more;
	known.at = at;
	return true;
}

/* (Where there is no room any more it is asked for again.) */
static void keep_known(const char *name, const char *text, uint64_t hash)
{
	struct known one = { strdup(name), text ? strdup(text) : NULL };
	size_t bytes = strlen(name) + (text ? strlen(text) : 0) + sizeof(one);

	if (one.name && (one.text || !text) && bytes <= KNOWN_BYTES - known.bytes && room_for_known() &&
	    index_add(&known.index, hash, (uint32_t)known.count)) {
		known.at[known.count++] = one;
		known.bytes += bytes;
		return;
	}
	free(one.name);
	free(one.text);
}

const char *flame_demangle(const char *name)
{
	static char text[FLAME_NAME_MAX];
	const struct known *found;
	demangler *demangle;
	uint64_t hash;
	bool done;

	if (strncmp(name, "_Z", 2) != 0 || strlen(name) > MANGLED_MAX || (demangle = find_demangler()) == NULL)
		return name;
	hash = index_hash_text(name, 0);
	found = find_known(name, hash);
	if (found)
		return found->text ? found->text : name;
	done = demangle_one(demangle, name, text, sizeof(text));
	keep_known(name, done ? text : NULL, hash);
	return done ? text : name;
}
