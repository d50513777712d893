/* SPDX-License-Identifier: MIT */
/* Pattern: the real redis-server. A server is started on a socket in a folder of its own in TMPDIR, with the allocator that
 * BENCH_PRELOAD names preloaded (nothing else is), and driven in pipelines: N keys are set with values of 100 bytes,
 * overwritten in a random order with 180 bytes, 90 % are deleted at random, and the missing ones set again with 300.
 * Two seconds after each stage the kernel is asked what the server has in memory (INFO's used_memory_rss is the same),
 * and at the end what its peak was. The result in seconds is the time of the four stages.
 * --benchmark 1: redis-benchmark does the setting, three times as many commands as there are keys at random ones.
 * --mix 1: no stages and no sleep, but requests of many kinds (text, counters, hashes, lists, sets, sorted sets; reads
 * and writes) at random keys, in short pipelines, as fast as they are answered. The result is their time; beside it are
 * the rate and what the server took of the processor and of memory.
 * That malloc is the allocator's is checked twice: by what the dynamic linker binds malloc, calloc, realloc and free of
 * the server and of its libraries to, and by the server's map. The server is ended by SHUTDOWN, or by its process id; it
 * goes when this program does.
 * Source: the Redis case of B. Powers and others, Mesh, PLDI 2019, with sizes and stages of this project. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BATCH 256      /* commands in a pipeline */
#define BUFFER (1u << 20)
#define TIMEOUT 30000  /* ms */
#define MIB (1u << 20)

static uint64_t first_size = 100, second_size = 180, third_size = 300, survivors = 10, rest = 2, benchmark, mix;
static const struct bench_extra extra[] = {
	{ "first", &first_size, "bytes of a value when set" },
	{ "second", &second_size, "when overwritten" },
	{ "third", &third_size, "when set again" },
	{ "keep", &survivors, "percent that are not deleted" },
	{ "rest", &rest, "seconds after a stage until it is looked at" },
	{ "benchmark", &benchmark, "1: redis-benchmark sets the values, at random keys" },
	{ "mix", &mix, "1: requests of many kinds instead of the stages; then --ops are requests" },
};
static struct bench bench = {
	.name = "redis", .op = "one key", .ops = 1000000, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
/* The socket is named from within its folder: of a long path the kernel would take only 107 bytes. */
#define SOCKET "s"
static char folder[PATH_MAX];
static pid_t server;
static int connection = -1;
static struct rusage used; /* by the server, once it has ended */
static uint64_t random_state;
static char *out; /* a pipeline on its way */
static uint32_t *order;

/* Ends the server whatever happens here. */
static void end_server(void)
{
	static const char shutdown_command[] = "*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n";

	if (server > 0) {
		if (connection < 0 || send(connection, shutdown_command, sizeof(shutdown_command) - 1, MSG_NOSIGNAL) < 0)
			kill(server, SIGKILL);
		for (int i = 0; i < 500 && wait4(server, NULL, WNOHANG, &used) == 0; i++) {
			if (i == 400)
				kill(server, SIGKILL);
			usleep(10000);
		}
		server = 0;
	}
	if (folder[0]) {
		unlink(SOCKET);
		rmdir(folder);
	}
}

static void fail(const char *format, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));
static void fail(const char *format, ...)
{
	char why[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	end_server();
	bench_die("%s", why);
}

/* ------------------------------------------------------------------------------------------------------ */
/* The server                                                                                             */

static const char *preload(void)
{
	const char *path = getenv("BENCH_PRELOAD");

	if (!path || !*path)
		bench_die("BENCH_PRELOAD has to name the allocator's library");
	return path;
}

/* The file itself: what is preloaded may be a link to it. */
static const char *library(void)
{
	static char path[PATH_MAX];

	if (!*path && !realpath(preload(), path))
		bench_die("%s: %s", preload(), strerror(errno));
	return path;
}

static pid_t start(char *const *command, int output, int with_library)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	unsetenv("BENCH_MALLOC_IN");
	if (with_library)
		setenv("LD_PRELOAD", preload(), 1);
	execvp(command[0], command);
	_exit(127);
}

/* One line of what the linker says it bound: whether it is one of the four functions, of anything but the library
 * itself; then it ends this program unless the library has it. */
static int check_line(char *line)
{
	static const char *const names[] = { "malloc", "calloc", "realloc", "free" };
	char *from = strstr(line, "binding file "), *to = from ? strstr(from, " [0] to ") : NULL;
	char *symbol = to ? strstr(to, ": normal symbol `") : NULL, *name, real[PATH_MAX];

	if (!symbol)
		return 0;
	from += strlen("binding file ");
	*to = 0;
	to += strlen(" [0] to ");
	name = symbol + strlen(": normal symbol `");
	*strchrnul(name, '\'') = 0;
	*symbol = 0;
	if (strlen(to) > 4)
		to[strlen(to) - 4] = 0; /* " [0]" */
	if (realpath(from, real) && strcmp(real, library()) == 0)
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]))
			continue;
		if (!realpath(to, real) || strcmp(real, library()))
			fail("%s of %s is bound to %s, not to %s", name, from, to, library());
		return i == 0 && strstr(from, "redis-server");
	}
	return 0;
}

/* Whether the linker binds what the server and its libraries call to the library: a server that only tells its version
 * says so. */
static void check_binding(void)
{
	char *const command[] = { "redis-server", "--version", NULL };
	char *text = bench_table(64 * MIB), *line, *end;
	int pipes[2], bound = 0;
	size_t have = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC))
		fail("pipe: %s", strerror(errno));
	setenv("LD_DEBUG", "bindings", 1);
	setenv("LD_BIND_NOW", "1", 1);
	pid = start(command, pipes[1], 1);
	unsetenv("LD_DEBUG");
	unsetenv("LD_BIND_NOW");
	close(pipes[1]);
	while (have < 64 * MIB - 1 && (n = read(pipes[0], text + have, 64 * MIB - 1 - have)) > 0)
		have += (size_t)n;
	close(pipes[0]);
	waitpid(pid, NULL, 0);
	for (line = text; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		bound |= check_line(line);
	}
	if (!bound)
		fail("what the server's malloc is bound to cannot be told");
}

static void connect_to_server(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int status;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", SOCKET);
	for (int i = 0; i < 1000; i++) {
		connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof(address)) == 0)
			return;
		close(connection);
		connection = -1;
		if (waitpid(server, &status, WNOHANG) == server) {
			server = 0;
			fail("redis-server ended with %d (is it installed?)", status);
		}
		usleep(10000);
	}
	fail("no answer from redis-server");
}

static void start_server(void)
{
	/* THP left as the allocator asks for it: the server would forbid it to itself where the machine has it
	 * always. */
	char *const command[] = {
		"redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", "", "--appendonly", "no", "--dir",
		folder, "--daemonize", "no", "--disable-thp", "no", "--logfile", "/dev/null", NULL,
	};
	char path[64];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const char *base;

	server = start(command, null, 1);
	close(null);
	connect_to_server();
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)server);
	base = bench_read_text(path);
	if (!base || !strstr(base, library()))
		fail("%s is not in the server's map", library());
}

/* ------------------------------------------------------------------------------------------------------ */
/* Commands                                                                                               */

static void send_all(const char *p, size_t n)
{
	while (n > 0) {
		ssize_t did = send(connection, p, n, MSG_NOSIGNAL);

		if (did <= 0)
			fail("the server is gone: %s", strerror(errno));
		p += did;
		n -= (size_t)did;
	}
}

/* Reads so many replies, of any form: the text that a line announces is passed over, and a list is so many replies
 * more. */
static void await(uint64_t replies)
{
	static char in[1 << 16];
	static char line[64];
	size_t have = 0, skip = 0;

	while (replies > 0 || skip > 0) {
		struct pollfd wait = { .fd = connection, .events = POLLIN };
		ssize_t n = poll(&wait, 1, TIMEOUT) == 1 ? recv(connection, in, sizeof(in), 0) : 0;

		if (n <= 0)
			fail("no reply from the server");
		for (ssize_t i = 0; i < n; i++) {
			long announced;

			if (skip > 0) {
				size_t here = skip < (size_t)(n - i) ? skip : (size_t)(n - i);

				skip -= here;
				i += (ssize_t)here - 1;
				continue;
			}
			if (have < sizeof(line) - 1)
				line[have++] = in[i];
			if (in[i] != '\n')
				continue;
			line[have] = 0;
			have = 0;
			announced = strtol(line + 1, NULL, 10);
			if (line[0] == '-')
				fail("the server says %s", line);
			if (line[0] == '$' && announced >= 0)
				skip = (size_t)announced + 2;
			if (line[0] == '*' && announced > 0)
				replies += (uint64_t)announced;
			replies--;
		}
	}
}

/* SET (bytes > 0) or DEL for the keys of these numbers. */
static void command_all(uint64_t from, uint64_t to, int shuffled, uint64_t bytes)
{
	uint64_t sent = 0;
	size_t at = 0;

	for (uint64_t i = from; i < to; i++) {
		unsigned long key = shuffled ? order[i] : (unsigned long)i;

		if (bytes) {
			at += (size_t)sprintf(out + at, "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012lu\r\n$%lu\r\n", key,
					      (unsigned long)bytes);
			memset(out + at, 'a' + (int)(key % 26), bytes);
			at += bytes;
			at += (size_t)sprintf(out + at, "\r\n");
		} else {
			at += (size_t)sprintf(out + at, "*2\r\n$3\r\nDEL\r\n$16\r\nkey:%012lu\r\n", key);
		}
		if (++sent == BATCH || i + 1 == to) {
			send_all(out, at);
			await(sent);
			at = sent = 0;
		}
	}
}

/* By redis-benchmark, which draws the keys. */
static void benchmark_all(uint64_t bytes)
{
	char count[24], keys[24], size[24];
	char *const command[] = { "redis-benchmark", "-s", SOCKET, "-q", "-n", count, "-r", keys, "-d", size, "-P", "32",
				  "-c", "8", "-t", "set", NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), status;
	pid_t pid;

	snprintf(count, sizeof(count), "%lu", (unsigned long)(3 * bench.ops));
	snprintf(keys, sizeof(keys), "%lu", (unsigned long)bench.ops);
	snprintf(size, sizeof(size), "%lu", (unsigned long)bytes);
	pid = start(command, null, 0);
	close(null);
	if (waitpid(pid, &status, 0) != pid || status)
		fail("redis-benchmark ended with %d", status);
}

static void set_all(uint64_t from, int shuffled, uint64_t bytes)
{
	if (benchmark)
		benchmark_all(bytes);
	else
		command_all(from, bench.ops, shuffled, bytes);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Stages                                                                                                 */

static double worked, largest, share;

static void look(const char *stage, double from)
{
	struct bench_memory memory;

	worked += bench_now() - from;
	bench_sleep_until(bench_now() + (double)rest);
	memory = bench_memory(server);
	bench_figure(&bench, stage, memory.rss, "MiB");
	if (memory.rss > largest) {
		largest = memory.rss;
		share = 100 * memory.huge / memory.anonymous;
	}
}

static double peak(void)
{
	const char *found;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)server);
	found = bench_read_text(path);
	found = found ? strstr(found, "VmHWM:") : NULL;
	if (!found)
		fail("%s does not tell VmHWM", path);
	return strtod(found + 6, NULL) / 1024;
}

/* ------------------------------------------------------------------------------------------------------ */
/* The mix                                                                                                */

#define PIPELINE 32
#define KEYS 100000 /* of texts; of the others fewer, so that each grows */

/* One request: its words, by spaces; behind them a value of so many bytes, unless that is 0. */
static size_t request(char *at, size_t value, const char *format, ...) __attribute__((format(printf, 3, 4)));
static size_t request(char *at, size_t value, const char *format, ...)
{
	char words[160], *word, *rest_of, *start_of = at;
	unsigned count = value > 0;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(words, sizeof(words), format, arguments);
	va_end(arguments);
	for (const char *p = words; *p; p++)
		count += *p == ' ';
	at += sprintf(at, "*%u\r\n", count + 1);
	for (word = strtok_r(words, " ", &rest_of); word; word = strtok_r(NULL, " ", &rest_of))
		at += sprintf(at, "$%zu\r\n%s\r\n", strlen(word), word);
	if (value) {
		at += sprintf(at, "$%zu\r\n", value);
		memset(at, 'a' + (int)(value % 26), value);
		at += value;
		at += sprintf(at, "\r\n");
	}
	return (size_t)(at - start_of);
}

/* Most values are short, some are long. */
static size_t value_size(void)
{
	uint32_t kind = bench_below(&random_state, 100);

	return 8 + bench_below(&random_state, kind < 70 ? 120 : kind < 95 ? 1000 : 8000);
}

static size_t any_request(char *at)
{
	unsigned kind = bench_below(&random_state, 100), key = bench_below(&random_state, KEYS);
	unsigned part = bench_below(&random_state, KEYS);

	if (kind < 24)
		return request(at, 0, "GET s:%u", key);
	if (kind < 46)
		return request(at, value_size(), "SET s:%u", key);
	if (kind < 50)
		return request(at, 24, "APPEND s:%u", key);
	if (kind < 53)
		return request(at, 0, "DEL s:%u", key);
	if (kind < 57)
		return request(at, 0, "INCR c:%u", key);
	if (kind < 64)
		return request(at, value_size() / 4 + 1, "HSET h:%u f:%u", key % 2000, part % 200);
	if (kind < 70)
		return request(at, 0, "HGET h:%u f:%u", key % 2000, part % 200);
	if (kind < 77)
		return request(at, value_size() / 4 + 1, "LPUSH l:%u", key % 500);
	if (kind < 83)
		return request(at, 0, "RPOP l:%u", key % 500);
	if (kind < 85)
		return request(at, 0, "LRANGE l:%u 0 9", key % 500);
	if (kind < 90)
		return request(at, 0, "SADD t:%u member:%u", key % 1000, part);
	if (kind < 93)
		return request(at, 0, "SREM t:%u member:%u", key % 1000, part);
	if (kind < 98)
		return request(at, 0, "ZADD z:%u %u member:%u", key % 1000, part, part % 5000);
	return request(at, 0, "ZRANGE z:%u 0 4", key % 1000);
}

static void run_mix(void)
{
	double largest_rss, from = bench_now();

	for (uint64_t done = 0; done < bench.ops;) {
		uint64_t now = bench.ops - done < PIPELINE ? bench.ops - done : PIPELINE;
		size_t at = 0;

		for (uint64_t i = 0; i < now; i++)
			at += any_request(out + at);
		send_all(out, at);
		await(now);
		done += now;
	}
	bench_stop(&bench);
	bench_figure(&bench, "requests", (double)bench.ops / (bench_now() - from) / 1000, "k/s");
	largest_rss = peak();
	end_server();
	bench_figure(&bench, "server.peak", largest_rss, "MiB");
	bench_figure(&bench, "server.cpu", (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
		     (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6, "s");
	bench_figure(&bench, "server.user", (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6, "s");
	bench_figure(&bench, "server.sys", (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec / 1e6, "s");
	bench_figure(&bench, "server.faults", (double)(used.ru_minflt + used.ru_majflt), "count");
	bench_report(&bench, bench.ops);
}

/* ------------------------------------------------------------------------------------------------------ */

static void prepare(void)
{
	const char *where = getenv("TMPDIR");

	random_state = bench_seed(&bench, 0);
	out = bench_table(BUFFER);
	if (BATCH * ((first_size > second_size ? first_size : second_size) + third_size + 128) > BUFFER)
		bench_die("values of at most 1800 bytes");
	if (!mix) {
		order = bench_table(bench.ops * sizeof(*order));
		for (uint64_t i = 0; i < bench.ops; i++)
			order[i] = (uint32_t)i;
		bench_shuffle(&random_state, order, bench.ops);
	}
	library();
	snprintf(folder, sizeof(folder), "%s/bench-redis.XXXXXX", where && *where == '/' ? where : P_tmpdir);
	if (!mkdtemp(folder) || chdir(folder))
		bench_die("no folder %s: %s", folder, strerror(errno));
}

static void run_stages(void)
{
	uint64_t kept;
	double from = bench_now();

	set_all(0, 0, first_size);
	look("set", from);
	from = bench_now();
	set_all(0, 1, second_size);
	look("overwritten", from);
	from = bench_now();
	kept = bench.ops * survivors / 100;
	/* What survives is not what was written together. */
	bench_shuffle(&random_state, order, bench.ops);
	command_all(kept, bench.ops, 1, 0);
	look("resting", from);
	from = bench_now();
	set_all(kept, 1, third_size);
	look("refilled", from);
	bench_figure(&bench, "peak", peak(), "MiB");
	bench_figure(&bench, "huge", share, "%");
	bench_figure(&bench, "work", worked, "s");
	end_server();
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	if (bench.ops > 100000000)
		bench_die("--ops: at most 100000000 keys");
	prepare();
	check_binding();
	start_server();
	bench_start(&bench);
	if (mix)
		run_mix();
	else
		run_stages();
	return 0;
}
