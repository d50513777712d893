/* SPDX-License-Identifier: MIT */
/* For startup.sh.
 *   startup time LIBRARY RUNS   starts `true` RUNS times with and without the library, by turns, and prints the
 *                               medians in microseconds and their difference
 *   startup hello               says hello and then, to standard error, its resident memory in KiB: by
 *                               /proc/self/status, and by /proc/self/smaps_rollup, which counts exactly; and the longest
 *                               stretch of the preloaded library's memory that may be in huge pages
 *   startup spawn LIBRARY PROGRAM…   runs it with the library ("": without) and hands on its exit status */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* The environment with LD_PRELOAD set to the library, or without it. */
static char **environment_with(const char *library)
{
	char **env, *entry = NULL;
	size_t n = 0, k = 0;

	while (environ[n] != NULL)
		n++;
	env = calloc(n + 2, sizeof *env);
	if (env == NULL || (*library != 0 && asprintf(&entry, "LD_PRELOAD=%s", library) < 0))
		exit(1);
	for (size_t i = 0; i < n; i++) {
		if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0)
			env[k++] = environ[i];
	}
	if (entry != NULL)
		env[k] = entry;
	return env;
}

static int run(char **argv, char **env)
{
	pid_t pid;
	int status, error = posix_spawnp(&pid, argv[0], NULL, NULL, argv, env);

	if (error != 0) {
		fprintf(stderr, "startup: %s: %s\n", argv[0], strerror(error));
		exit(1);
	}
	while (waitpid(pid, &status, 0) != pid) {
		if (errno != EINTR)
			exit(1);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
	qsort(x, n, sizeof *x, compare);
	return n % 2 != 0 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static int time_true(const char *library, size_t runs)
{
	char *argv[] = { (char *)"true", NULL };
	char **env[2] = { environment_with(""), environment_with(library) };
	double *took[2] = { calloc(runs, sizeof(double)), calloc(runs, sizeof(double)) }, plain, loaded;

	if (runs == 0 || took[0] == NULL || took[1] == NULL)
		return 1;
	for (size_t i = 0; i < runs; i++) {
		for (unsigned k = 0; k < 2; k++) {
			/* Who goes first takes turns too. */
			unsigned which = (unsigned)(k + i) % 2;
			double from = now_us();
			if (run(argv, env[which]) != 0) {
				fprintf(stderr, "startup: true %s the library failed\n", which == 1 ? "with" : "without");
				return 1;
			}
			took[which][i] = now_us() - from;
		}
	}
	plain = median(took[0], runs);
	loaded = median(took[1], runs);
	printf("%.0f %.0f %.0f\n", plain, loaded, loaded - plain);
	return 0;
}

static long field(const char *path, const char *name)
{
	FILE *file = fopen(path, "r");
	char line[256];
	long kib = -1;

	while (file != NULL && fgets(line, sizeof line, file) != NULL) {
		if (strncmp(line, name, strlen(name)) == 0)
			kib = strtol(line + strlen(name), NULL, 10);
	}
	if (file != NULL)
		fclose(file);
	return kib;
}

/* The longest stretch of the library's zeroed memory, behind its file's mappings, that may be in huge pages, in KiB. */
static long longest_huge(const char *library)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long from = 0, to = 0, end = 0, a, b;
	char line[4400];
	long longest = 0;
	int at = 0;

	while (file != NULL && fgets(line, sizeof line, file) != NULL) {
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &a, &b, &at) == 2) {
			from = a;
			to = b;
			line[strcspn(line, "\n")] = 0;
			if (*library != 0 && strcmp(line + at, library) == 0)
				end = to;
			else if (from != end || line[at] != 0)
				from = to;
			else
				end = to;
		} else if (strncmp(line, "VmFlags:", 8) == 0 && to == end && from < to && strstr(line, " nh") == NULL &&
			   (long)((to - from) / 1024) > longest) {
			longest = (long)((to - from) / 1024);
		}
	}
	if (file != NULL)
		fclose(file);
	return longest;
}

static int hello(void)
{
	const char *library = getenv("LD_PRELOAD");
	long status, rollup;

	printf("Hello, world\n");
	fflush(stdout);
	status = field("/proc/self/status", "VmRSS:");
	rollup = field("/proc/self/smaps_rollup", "Rss:");
	fprintf(stderr, "%ld %ld %ld\n", status, rollup, longest_huge(library != NULL ? library : ""));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "time") == 0)
		return time_true(argv[2], (size_t)atol(argv[3]));
	if (argc == 2 && strcmp(argv[1], "hello") == 0)
		return hello();
	if (argc >= 4 && strcmp(argv[1], "spawn") == 0)
		return run(argv + 3, environment_with(argv[2]));
	fprintf(stderr, "usage: startup time LIBRARY RUNS | hello | spawn LIBRARY PROGRAM...\n");
	return 2;
}
