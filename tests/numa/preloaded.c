/* SPDX-License-Identifier: MIT */
/* A program that knows nothing of quarry: malloc, realloc and free alone, with libquarry-malloc preloaded into it, on a
 * machine of many nodes. Where its memory is, move_pages(2) and /proc/self/numa_maps tell.
 *
 *   preloaded [--topology NAME] [--seed N]
 *
 * QUARRY_SO names the library. Every test is this program again, started with LD_PRELOAD. Output as the suite's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define NODES "/sys/devices/system/node"
#define RESULT 3 /* where a test writes what became of it */
#define COUNT 3000

struct node {
	int id;
	cpu_set_t cpus;
};

static struct node homes[64]; /* nodes with CPUs and memory */
static int home_count;
static uint64_t verified, seed = 1;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vdprintf(RESULT, format, arguments);
	va_end(arguments);
}

static void fail(const char *format, ...)
{
	char text[400];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	say("fail %s", text);
	_exit(1);
}

/* ---- the machine ---- */

static bool read_text(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "r");
	size_t n;

	if (f == NULL)
		return false;
	n = fread(text, 1, size - 1, f);
	text[n] = 0;
	fclose(f);
	return true;
}

static void add_cpus(struct node *node, const char *list)
{
	while (*list >= '0' && *list <= '9') {
		char *end;
		long first = strtol(list, &end, 10), last = first;

		if (*end == '-')
			last = strtol(end + 1, &end, 10);
		for (; first <= last; first++)
			CPU_SET((size_t)first, &node->cpus);
		list = *end == ',' ? end + 1 : end;
	}
}

static void read_machine(void)
{
	for (int id = 0; id < 1024 && home_count < 64; id++) {
		struct node *node = &homes[home_count];
		char path[100], text[4096];
		const char *total;

		snprintf(path, sizeof(path), NODES "/node%d/meminfo", id);
		if (!read_text(path, text, sizeof(text)) || (total = strstr(text, "MemTotal:")) == NULL ||
		    strtoull(total + 9, NULL, 10) == 0)
			continue;
		snprintf(path, sizeof(path), NODES "/node%d/cpulist", id);
		CPU_ZERO(&node->cpus);
		if (!read_text(path, text, sizeof(text)))
			continue;
		add_cpus(node, text);
		node->id = id;
		home_count += CPU_COUNT(&node->cpus) > 0;
	}
}

static void pin(const struct node *node)
{
	if (sched_setaffinity(0, sizeof(node->cpus), &node->cpus) != 0)
		fail("node %d's CPUs cannot be had: %s", node->id, strerror(errno));
}

/* ---- looking ---- */

static int node_of(const void *p)
{
	void *page = (void *)((uintptr_t)p & ~(PAGE - 1));
	int status = -EINVAL;

	if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) != 0)
		fail("move_pages(2): %s", strerror(errno));
	return status;
}

static void verify(const void *p, size_t n, int id, const char *what)
{
	for (uintptr_t at = (uintptr_t)p & ~(PAGE - 1); at < (uintptr_t)p + n; at += PAGE) {
		int node = node_of((void *)at);

		if (node != id)
			fail("%s: a page of %zu bytes is on node %d, not %d", what, n, node, id);
		__atomic_fetch_add(&verified, 1, __ATOMIC_RELAXED);
	}
}

static size_t some_size(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (size_t)16 << (*state >> 40) % (*state >> 60 == 0 ? 17 : 9);
}

static void *written(size_t n)
{
	void *p = malloc(n);

	if (p == NULL)
		fail("malloc(%zu): no memory", n);
	return memset(p, 0x5a, n);
}

/* ---- tests ---- */

static void *local(void *arg)
{
	const struct node *node = arg;
	uint64_t state = seed + (unsigned)node->id;
	void **kept = malloc(COUNT * sizeof(*kept));

	pin(node);
	for (int i = 0; i < COUNT; i++) {
		size_t n = some_size(&state);

		kept[i] = written(n);
		verify(kept[i], n, node->id, "malloc");
	}
	for (int i = 0; i < COUNT; i++)
		free(kept[i]);
	free(kept);
	kept = written(24u << 20);
	verify(kept, 24u << 20, node->id, "24 MiB");
	free(kept);
	return NULL;
}

static void run_local(void)
{
	pthread_t threads[64];

	for (int i = 0; i < home_count; i++)
		pthread_create(&threads[i], NULL, local, &homes[i]);
	for (int i = 0; i < home_count; i++)
		pthread_join(threads[i], NULL);
}

/* Grown from nothing to 32 MiB, in place or not: all of it on the node. */
static void run_realloc(void)
{
	for (int i = 0; i < home_count; i++) {
		char *p = NULL, *zero;
		size_t had = 0;

		pin(&homes[i]);
		/* What a list still holds of the last node is used up. */
		for (int n = 0; n < COUNT; n++)
			written(100);
		for (size_t n = 100; n < 32u << 20; n += n / 2) {
			p = realloc(p, n);
			if (p == NULL)
				fail("realloc(%zu): no memory", n);
			memset(p + had, 1, n - had);
			had = n;
		}
		verify(p, had, homes[i].id, "realloc");
		free(p);
		zero = calloc(1000, 5000);
		for (size_t at = 0; at < 5000000; at += 1000)
			if (zero[at] != 0)
				fail("calloc's memory is not zero");
		memset(zero, 1, 5000000);
		verify(zero, 5000000, homes[i].id, "calloc");
		free(zero);
	}
}

struct crossing {
	void *list[COUNT];
	const struct node *from, *to;
};

static void *make(void *arg)
{
	struct crossing *c = arg;
	uint64_t state = seed;

	pin(c->from);
	for (int i = 0; i < COUNT; i++)
		c->list[i] = written(some_size(&state));
	return NULL;
}

static void *take(void *arg)
{
	struct crossing *c = arg;
	uint64_t state = seed;

	pin(c->to);
	for (int i = 0; i < COUNT; i++)
		free(c->list[i]);
	for (int i = 0; i < COUNT; i++) {
		size_t n = some_size(&state);
		void *p = written(n);

		verify(p, n, c->to->id, "after another node's objects were freed");
	}
	return NULL;
}

static void run_crosswise(void)
{
	static struct crossing c;

	for (int i = 0; i < 2 * home_count; i++) {
		pthread_t thread;

		c.from = &homes[i % home_count];
		c.to = &homes[(i + 1) % home_count];
		pthread_create(&thread, NULL, make, &c);
		pthread_join(thread, NULL);
		pthread_create(&thread, NULL, take, &c);
		pthread_join(thread, NULL);
	}
}

static void run_moved(void)
{
	for (int i = 1; i < 3 * home_count; i++) {
		const struct node *node = &homes[i % home_count];
		int late = 0;

		pin(node);
		/* At most one list: 64 KiB of the class. */
		while (node_of(written(256)) != node->id)
			if (++late > 256)
				fail("moved to node %d, and memory keeps coming from elsewhere", node->id);
		for (int n = 0; n < COUNT; n++)
			verify(written(256), 256, node->id, "after the thread moved");
	}
}

static void run_fork(void)
{
	void *p = (pin(&homes[0]), written(4u << 20));
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		pin(&homes[home_count - 1]);
		memset(p, 1, 4u << 20);
		free(p);
		for (int i = 0; i < COUNT; i++)
			free(written(100));
		verify(written(8u << 20), 8u << 20, homes[home_count - 1].id, "the child's memory");
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail("the child ended with status %x", status);
	verify(p, 4u << 20, homes[0].id, "the parent's memory");
}

/* Every mapping that the kernel has under "prefer=…:N" has pages on N alone. */
static void run_maps(void)
{
	char *line = NULL;
	size_t room = 0;
	FILE *f;
	int bound = 0;

	run_local();
	f = fopen("/proc/self/numa_maps", "r");
	while (f != NULL && getline(&line, &room, f) > 0) {
		const char *policy = strstr(line, " prefer"), *colon;
		long wanted;

		if (policy == NULL || (colon = strchr(policy, ':')) == NULL)
			continue;
		bound++;
		wanted = strtol(colon + 1, NULL, 10);
		for (const char *at = strstr(line, " N"); at != NULL; at = strstr(at + 2, " N")) {
			char *end;
			long id = strtol(at + 2, &end, 10);

			if (end == at + 2 || *end != '=')
				continue;
			if (id != wanted)
				fail("numa_maps: %s", line);
			verified += strtoull(end + 1, NULL, 10);
		}
	}
	if (home_count > 1 && bound < home_count)
		fail("numa_maps shows %d mappings that prefer a node, for %d nodes", bound, home_count);
}

/* Started by numactl: what it set for the task is reported. */
static void run_here(void)
{
	uint64_t on[64] = { 0 }, state = seed;

	for (int i = 0; i < COUNT; i++) {
		int node = node_of(written(some_size(&state)));

		if (node >= 0 && node < 64)
			on[node]++;
	}
	say("note");
	for (int i = 0; i < 64; i++)
		if (on[i] != 0)
			say(" %llu of %d objects on node %d", (unsigned long long)on[i], COUNT, i);
	say("\n");
}

/* numactl --cpunodebind: on the node that it was told to run on. */
static void run_cpu_bound(void)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	sched_getaffinity(0, sizeof(cpus), &cpus);
	if (!CPU_EQUAL(&cpus, &homes[home_count - 1].cpus))
		fail("numactl did not confine it to the last node's CPUs");
	for (int i = 0; i < COUNT; i++)
		verify(written(1000), 1000, homes[home_count - 1].id, "under numactl --cpunodebind");
	verify(written(8u << 20), 8u << 20, homes[home_count - 1].id, "under numactl --cpunodebind");
}

/* ---- the harness ---- */

static const struct test {
	const char *name;
	void (*run)(void);
	int nodes;           /* at least */
	const char *numactl; /* started by numactl, with this and the last node's id */
	const char *options;
} tests[] = {
	{ "local", run_local, 1, NULL, NULL },
	{ "local-thp", run_local, 1, NULL, "pages=thp" },
	{ "local-2m", run_local, 1, NULL, "pages=2m" },
	{ "realloc", run_realloc, 1, NULL, NULL },
	{ "crosswise", run_crosswise, 2, NULL, NULL },
	{ "moved", run_moved, 2, NULL, NULL },
	{ "fork", run_fork, 1, NULL, NULL },
	{ "fork-2m", run_fork, 1, NULL, "pages=2m" },
	{ "maps", run_maps, 1, NULL, NULL },
	{ "cpunodebind", run_cpu_bound, 2, "--cpunodebind=", NULL },
	{ "membind", run_here, 2, "--membind=", NULL },
	{ "preferred", run_here, 2, "--preferred=", NULL },
	{ "interleave", run_here, 2, "--interleave=", NULL },
};

#define TESTS ((int)(sizeof(tests) / sizeof(tests[0])))

static void start(const struct test *t, const char *self, int result)
{
	char which[16], nodes[64], number[32];
	const char *library = getenv("QUARRY_SO");

	dup2(result, RESULT);
	snprintf(which, sizeof(which), "%d", (int)(t - tests));
	snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
	setenv("LD_PRELOAD", library == NULL ? "libquarry-malloc.so" : library, 1);
	if (t->options != NULL)
		setenv("QUARRY_OPTIONS", t->options, 1);
	if (t->numactl == NULL) {
		execl(self, "preloaded", "--run", which, number, (char *)NULL);
	} else {
		snprintf(nodes, sizeof(nodes), "%s%d", t->numactl, homes[home_count - 1].id);
		execlp("numactl", "numactl", nodes, self, "--run", which, number, (char *)NULL);
	}
	say("fail it could not be started: %s", strerror(errno));
	_exit(1);
}

/* "pages N" is the last line of a test that passed. Whether it did. */
static bool judge(const struct test *t, int result, int status, uint64_t *pages)
{
	char text[2000], *at;
	size_t n = 0;
	ssize_t got;

	while (n < sizeof(text) - 1 && (got = read(result, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	at = strstr(text, "note");
	if (at != NULL)
		printf("note %s:%.*s\n", t->name, (int)strcspn(at + 4, "\n"), at + 4);
	at = strstr(text, "pages ");
	if (at != NULL && status == 0) {
		*pages += strtoull(at + 6, NULL, 10);
		printf("ok preloaded/%s (%llu pages verified)\n", t->name, strtoull(at + 6, NULL, 10));
		return true;
	}
	at = strstr(text, "fail ");
	if (WIFSIGNALED(status))
		printf("not ok preloaded/%s: killed by SIG%s\n", t->name, sigabbrev_np(WTERMSIG(status)));
	else
		printf("not ok preloaded/%s: %.*s\n", t->name, (int)strcspn(at == NULL ? "?" : at + 5, "\n"),
		       at == NULL ? "?" : at + 5);
	return false;
}

static int run_all(void)
{
	char self[500] = { 0 };
	unsigned passed = 0, failed = 0, skipped = 0;
	uint64_t pages = 0;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 2;
	for (int i = 0; i < TESTS; i++) {
		int ends[2], status = 0;
		pid_t pid;

		if (home_count < tests[i].nodes) {
			printf("skip preloaded/%s: needs %d nodes; there are %d\n", tests[i].name, tests[i].nodes,
			       home_count);
			skipped++;
			continue;
		}
		fflush(stdout);
		if (pipe(ends) != 0 || (pid = fork()) < 0)
			return 2;
		if (pid == 0) {
			alarm(100);
			start(&tests[i], self, ends[1]);
		}
		close(ends[1]);
		waitpid(pid, &status, 0);
		if (judge(&tests[i], ends[0], status, &pages))
			passed++;
		else
			failed++;
		close(ends[0]);
	}
	printf("suite: %u passed, %u failed, %u skipped, %llu pages verified, seed %llu\n", passed, failed, skipped,
	       (unsigned long long)pages, (unsigned long long)seed);
	return failed != 0;
}

int main(int argc, char **argv)
{
	read_machine();
	if (argc == 4 && strcmp(argv[1], "--run") == 0) {
		seed = strtoull(argv[3], NULL, 10);
		/* The library is really there. */
		if (getenv("LD_PRELOAD") == NULL || strstr(getenv("LD_PRELOAD"), "quarry") == NULL)
			fail("nothing was preloaded");
		tests[atoi(argv[2])].run();
		say("pages %llu\n", (unsigned long long)verified);
		return 0;
	}
	for (int i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
	return run_all();
}
