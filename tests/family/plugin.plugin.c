/* SPDX-License-Identifier: MIT */
/* A plugin that allocates when it comes, when it goes, and in a thread-local variable of its own. */
#include <stdlib.h>
#include <string.h>

static char *at_start;
static _Thread_local char *of_thread;
static void (*told)(void *);

__attribute__((constructor)) static void come(void)
{
	at_start = malloc(5000);
	if (at_start)
		memset(at_start, 11, 5000);
}

__attribute__((destructor)) static void go(void)
{
	char *last = malloc(300);

	if (last)
		memset(last, 12, 300);
	free(last);
	free(at_start);
	if (told)
		told(malloc(77));
}

void plugin_tell(void (*tell)(void *))
{
	told = tell;
}

char *plugin_make(size_t n, int with)
{
	char *p = malloc(n);

	if (p)
		memset(p, with, n);
	if (!of_thread)
		of_thread = malloc(64);
	free(of_thread);
	of_thread = NULL;
	return p;
}

int plugin_started(void)
{
	return at_start != NULL && at_start[0] == 11 && at_start[4999] == 11;
}
