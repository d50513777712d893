/* SPDX-License-Identifier: MIT */
/* The harness: what tests there are, one process for each, and what became of it. */
#include "tests/numa/suite.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define TESTS_MAX 256
#define SECONDS 240 /* until a test counts as hanging: fork/late takes 68 of them where the guest is emulated by a slow machine */
#define REPORT_FD "QUARRY_SUITE_REPORT"

enum outcome { PENDING, PASSED, FAILED, SKIPPED };

/* Shared between the harness and a test. */
struct report {
	_Atomic(uint64_t) pages;
	_Atomic(int) outcome;
	char reason[600];
};

static struct test tests[TESTS_MAX];
static int test_count;
static struct report *report;
static int report_fd;

struct options options = { .topology = "this machine", .operations = 10000000, .seconds = 10 };
const struct test *this_test;

void add_test(const struct test *t)
{
	if (test_count == TESTS_MAX)
		abort();
	tests[test_count++] = *t;
}

/* ---- from inside a test ---- */

static void settle(int outcome, const char *format, va_list arguments)
{
	int pending = PENDING;

	/* The first thread to say something has said it. */
	if (atomic_compare_exchange_strong(&report->outcome, &pending, outcome))
		vsnprintf(report->reason, sizeof(report->reason), format, arguments);
	_exit(outcome == SKIPPED ? 77 : 1);
}

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	settle(FAILED, format, arguments);
	va_end(arguments);
	abort();
}

void skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	settle(SKIPPED, format, arguments);
	va_end(arguments);
	abort();
}

void note(const char *format, ...)
{
	char line[400];
	va_list arguments;
	int n = 0;

	if (this_test != NULL)
		n = snprintf(line, sizeof(line), "note %s/%s: ", this_test->group, this_test->name);
	va_start(arguments, format);
	vsnprintf(line + n, sizeof(line) - (size_t)n, format, arguments);
	va_end(arguments);
	printf("%s\n", line);
	fflush(stdout);
}

void count_pages(uint64_t pages)
{
	atomic_fetch_add(&report->pages, pages);
}

/* ---- the process of a test ---- */

static void open_report(int fd)
{
	report_fd = fd;
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (report == MAP_FAILED) {
		perror("suite: the report");
		exit(2);
	}
}

/* The process that the harness started for a test: it prepares what must be there before quarry is, and becomes the
 * suite again, with --run. */
static void become(const struct test *t, char **argv)
{
	char number[16];
	char *arguments[TESTS_MAX];
	int n = 0, at = (int)(t - tests);
	static char run[] = "--run", which[16], self[] = "/proc/self/exe";

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	this_test = t;
	if (t->options != NULL)
		setenv("QUARRY_OPTIONS", t->options, 1);
	snprintf(number, sizeof(number), "%d", report_fd);
	setenv(REPORT_FD, number, 1);
	if (t->prepare != NULL && !t->prepare())
		fail("could not be prepared: errno %d, %s", errno, strerror(errno));
	snprintf(which, sizeof(which), "%d", at);
	arguments[n++] = argv[0];
	arguments[n++] = run;
	arguments[n++] = which;
	for (int i = 1; argv[i] != NULL && n < TESTS_MAX - 1; i++)
		arguments[n++] = argv[i];
	arguments[n] = NULL;
	execv(self, arguments);
	fail("exec: %s", strerror(errno));
}

static int run_inside(int which)
{
	const char *fd = getenv(REPORT_FD);

	if (fd == NULL || which < 0 || which >= test_count)
		return 2;
	open_report(atoi(fd));
	this_test = &tests[which];
	this_test->run();
	return 0;
}

/* ---- the harness ---- */

struct sums {
	unsigned passed, failed, skipped;
	uint64_t pages;
};

/* The test's process, or -1 when it hangs. */
static int wait_for(pid_t pid, unsigned seconds, int *status)
{
	uint64_t end = now_ms() + seconds * 1000ull;

	for (;;) {
		pid_t got = waitpid(pid, status, WNOHANG);

		if (got == pid)
			return 0;
		if (got < 0 && errno != EINTR)
			return -1;
		if (now_ms() > end)
			return -1;
		pause_ms(2);
	}
}

static void judge(const struct test *t, int hung, int status, uint64_t killed, struct sums *sums)
{
	int outcome = atomic_load(&report->outcome);
	char reason[700];

	snprintf(reason, sizeof(reason), "%s", report->reason);
	if (hung) {
		outcome = FAILED;
		snprintf(reason, sizeof(reason), "hung: not done after %u s", t->seconds ? t->seconds : SECONDS);
	} else if (WIFSIGNALED(status)) {
		outcome = FAILED;
		snprintf(reason, sizeof(reason), "killed by SIG%s%s", sigabbrev_np(WTERMSIG(status)),
			 killed ? ", the kernel was out of memory" : "");
	} else if (killed) {
		outcome = FAILED;
		snprintf(reason, sizeof(reason), "the kernel was out of memory and killed (%llu)",
			 (unsigned long long)killed);
	} else if (outcome == PENDING && WEXITSTATUS(status) != 0) {
		outcome = FAILED;
		snprintf(reason, sizeof(reason), "exit status %d", WEXITSTATUS(status));
	}
	if (outcome == FAILED) {
		sums->failed++;
		printf("not ok %s/%s: %s\n", t->group, t->name, reason);
	} else if (outcome == SKIPPED) {
		sums->skipped++;
		printf("skip %s/%s: %s\n", t->group, t->name, reason);
	} else {
		sums->passed++;
		sums->pages += report->pages;
		printf("ok %s/%s (%llu pages verified)\n", t->group, t->name, (unsigned long long)report->pages);
	}
	fflush(stdout);
}

static void run_test(const struct test *t, char **argv, struct sums *sums)
{
	uint64_t killed = vmstat("oom_kill");
	uint64_t began = now_ms();
	int status = 0, hung;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		become(t, argv);
	hung = pid < 0 || wait_for(pid, t->seconds ? t->seconds : SECONDS, &status) != 0;
	if (pid > 0) {
		/* What the test started ends with it. */
		kill(-pid, SIGKILL);
		if (hung)
			waitpid(pid, &status, 0);
		while (waitpid(-pid, NULL, 0) > 0)
			;
	}
	pools_restore();
	judge(t, hung, status, vmstat("oom_kill") - killed, sums);
	if (options.times)
		printf("time %s/%s: %llu ms\n", t->group, t->name, (unsigned long long)(now_ms() - began));
}

static bool chosen(const struct test *t, char **names, int count)
{
	char whole[200];

	snprintf(whole, sizeof(whole), "%s/%s", t->group, t->name);
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], t->group) == 0 || strcmp(names[i], whole) == 0)
			return true;
	return count == 0;
}

static void usage(const char *why)
{
	fprintf(stderr,
		"suite: %s\n"
		"usage: suite [--topology NAME] [--seed N] [--full] [--operations N] [--seconds N]\n"
		"             [--times] [--list] [GROUP | GROUP/TEST]...\n",
		why);
	exit(2);
}

struct arguments {
	int run; /* a test's number, inside; -1 */
	bool list;
	char *names[TESTS_MAX];
	int count;
};

static void read_arguments(struct arguments *a, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--full") == 0) {
			options.full = true;
			continue;
		}
		if (strcmp(argv[i], "--times") == 0) {
			options.times = true;
			continue;
		}
		if (strcmp(argv[i], "--list") == 0) {
			a->list = true;
			continue;
		}
		if (strncmp(argv[i], "--", 2) != 0) {
			if (a->count < TESTS_MAX)
				a->names[a->count++] = argv[i];
			continue;
		}
		if (value == NULL)
			usage("an option lacks its value");
		if (strcmp(argv[i], "--run") == 0)
			a->run = atoi(value);
		else if (strcmp(argv[i], "--topology") == 0)
			options.topology = value;
		else if (strcmp(argv[i], "--seed") == 0)
			options.seed = strtoull(value, NULL, 0);
		else if (strcmp(argv[i], "--operations") == 0)
			options.operations = strtoull(value, NULL, 0);
		else if (strcmp(argv[i], "--seconds") == 0)
			options.seconds = (unsigned)atoi(value);
		else
			usage("no such option");
		i++;
	}
}

/* Names must be ones that there are, or a run that tests nothing would pass. */
static void check_names(const struct arguments *a)
{
	for (int i = 0; i < a->count; i++) {
		bool found = false;

		for (int t = 0; t < test_count && !found; t++)
			found = chosen(&tests[t], (char **)&a->names[i], 1);
		if (!found)
			usage("no such group or test");
	}
}

static void add_all(void)
{
	add_nodes();
	add_where();
	add_buffers();
	add_matrix();
	add_lanes();
	add_local();
	add_thread();
	add_traffic();
	add_exhaust();
	add_hugetlb();
	add_fork();
	add_move();
	add_cpuset();
	add_fallback();
	add_pressure();
}

int main(int argc, char **argv)
{
	static struct arguments arguments = { .run = -1 };
	static char seed_option[] = "--seed", seed[32];
	char **inner = calloc((size_t)argc + 3, sizeof(*inner));
	struct sums sums = { 0 };

	if (argc > 1 && strcmp(argv[1], "--helper") == 0)
		return helper_main(argc, argv);
	read_arguments(&arguments, argc, argv);
	machine_read();
	add_all();
	if (arguments.run >= 0)
		return run_inside(arguments.run);
	if (arguments.list) {
		for (int i = 0; i < test_count; i++)
			printf("%s/%s\n", tests[i].group, tests[i].name);
		return 0;
	}
	check_names(&arguments);
	if (options.seed == 0)
		options.seed = now_ms() % 1000000 + 1;
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)options.seed);
	for (int i = 0; i < argc; i++)
		inner[i] = argv[i];
	inner[argc] = seed_option;
	inner[argc + 1] = seed;
	open_report(memfd_create("report", 0));
	if (ftruncate(report_fd, sizeof(*report)) != 0)
		return 2;
	pools_save();
	/* What a test leaves behind when it is killed becomes ours, and can be waited for. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	printf("suite: %s: %d nodes, %d with memory, %d CPUs, seed %s\n", options.topology, machine.count,
	       machine.memories, machine.cpus, seed);
	for (int i = 0; i < test_count; i++)
		if (chosen(&tests[i], arguments.names, arguments.count))
			run_test(&tests[i], inner, &sums);
	printf("suite: %u passed, %u failed, %u skipped, %llu pages verified, seed %s\n", sums.passed, sums.failed,
	       sums.skipped, (unsigned long long)sums.pages, seed);
	return sums.failed != 0;
}
