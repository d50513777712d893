/* SPDX-License-Identifier: MIT */
/* What cold memory saves, and what it costs: rows of JSON behind handles, some of which are asked for far more often than others
 * (Zipf, by the method of J. Gray et al., Quickly generating billion-record synthetic databases, 1994; or a scan of all rows,
 * again and again).
 *
 * Two processes have the same rows; the second has cold memory, and nothing else is different: the library's own thread does
 * what there is to do, and the reader reads each row that it gets. The second runs alone first, for it has to learn what is
 * cold. Then they take turns of half a second, in which the other is stopped, threads and all. Printed every ten turns, and at
 * the end as medians of all: resident memory as the kernel has it for the process (less what it had before there were rows),
 * and the ratio of their rates, by the clock and by the reader's processor time.
 *
 * A row is read in some 0.6 us, which is less than any request to a store takes: --work is what one takes beside, in ns of
 * computing.
 *
 *	cold [--mib 2048] [--turns 60] [--alone 90] [--exponent 0.99] [--work 0] [--period 30000] [--stall 3] [--codec lz4]
 *	     [--long CODEC] [--directory PATH --memory MIB] [--copies 1]
 *
 * (alone in s, period in ms, stall in per cent. --exponent 0: a scan of all rows, again and again; --copies 0: each get of a
 * cold row brings it back.) */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "include/quarry/lanes.h"
#include "median.h"

#define TURNS_MAX 1000
#define TURN_S 0.5
#define BATCH 256
#define SCATTER 2654435761u /* a prime that is more than all numbers of rows: each rank is another row */

/* What a process tells of itself. */
struct told {
	_Alignas(64) _Atomic(bool) ready;
	_Atomic(uint64_t) done, cpu_ns; /* rows read; in so much processor time of the reader */
	uint64_t before;                /* bytes that were resident without rows */
	_Atomic(uint64_t) objects, bytes, compressed, evicted, loaded, copies, period_ms, deepened, dictionaries, live, held;
};

static struct told *told;
static pid_t process[2];
static uint64_t rows, work_loops, state = 88172645463325252u;
static unsigned work_ns;
static double exponent = 0.99, zeta, alpha, eta;

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* Computing, for so long. */
static uint64_t work(uint64_t loops)
{
	uint64_t x = loops;

	for (uint64_t i = 0; i < loops; i++) {
		x = x * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

/* (For exponents above 1 the method holds as well.) */
static void zipf_prepare(void)
{
	double zeta2 = 1 + pow(0.5, exponent);

	for (uint64_t i = 1; i <= rows; i++)
		zeta += 1 / pow((double)i, exponent);
	alpha = 1 / (1 - exponent);
	eta = (1 - pow(2.0 / (double)rows, 1 - exponent)) / (1 - zeta2 / zeta);
}

/* A row; which are asked for often is scattered over all of them. */
static uint64_t zipf(void)
{
	double u = (double)(next_random() >> 11) * 0x1p-53, uz = u * zeta;
	uint64_t rank = uz < 1 ? 0 : uz < 1 + pow(0.5, exponent) ? 1 : (uint64_t)((double)rows * pow(eta * u - eta + 1, alpha));

	return rank % rows * SCATTER % rows;
}

static uint64_t next_row(void)
{
	static uint64_t at;

	return exponent == 0 ? at++ % rows : zipf();
}

static size_t make_row(char *to, size_t room, uint64_t i)
{
	static const char *const towns[] = { "Aarhus", "Bergamo", "Coimbra", "Dundee", "Eindhoven", "Freiburg", "Graz", "Haarlem" };
	uint64_t x = i * 0xbf58476d1ce4e5b9u ^ i >> 7;

	return (size_t)snprintf(to, room,
				"{\"id\":%llu,\"name\":\"customer %llx\",\"mail\":\"%llx@example.org\",\"town\":\"%s\","
				"\"street\":\"%llu Main Street\",\"balance\":%llu.%02llu,\"orders\":[%llu,%llu,%llu],"
				"\"active\":%s,\"note\":\"%.*s\"}",
				(unsigned long long)i, (unsigned long long)(x & 0xffffff), (unsigned long long)(x >> 20 & 0xffffffff),
				towns[x >> 5 & 7], (unsigned long long)(x >> 9 & 511), (unsigned long long)(x >> 13 & 0xffff),
				(unsigned long long)(x >> 3 & 63), (unsigned long long)(x & 0xfffff), (unsigned long long)(x >> 11 & 0xfffff),
				(unsigned long long)(x >> 30 & 0xfffff), x & 1 ? "true" : "false", (int)(x >> 17 & 127),
				"called on Monday about the delivery, which was late; wants to be told by mail when the next one "
				"leaves; was offered a discount");
}

static uint64_t resident(pid_t pid)
{
	char path[64];
	unsigned long size = 0, pages = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	f = fopen(path, "r");
	if (f == NULL || fscanf(f, "%lu %lu", &size, &pages) != 2) {
		fprintf(stderr, "cold: %s cannot be read\n", path);
		exit(1);
	}
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static quarry_lanes *fill(quarry_handle *row, const quarry_cold_attr *cold)
{
	quarry_lanes_attr attr = { .handles = rows + 1, .cold = cold };
	quarry_lanes *l = quarry_lanes_create(&attr);
	char text[1024];

	if (l == NULL) {
		fprintf(stderr, "cold: %s\n", quarry_error_text());
		exit(1);
	}
	for (uint64_t i = 0; i < rows; i++) {
		size_t size = make_row(text, sizeof(text), i) + 1;
		void *p;

		row[i] = quarry_halloc(l, size);
		quarry_enter();
		p = quarry_get_mut(l, row[i]);
		if (p == NULL) {
			fprintf(stderr, "cold: no memory\n");
			exit(1);
		}
		memcpy(p, text, size);
		quarry_leave();
	}
	return l;
}

static uint64_t read_row(quarry_lanes *l, const quarry_handle *h, uint64_t row)
{
	uint64_t id, sum = 0;
	const char *p;

	quarry_enter();
	p = quarry_get(l, h[row]);
	if (p == NULL || sscanf(p + 6, "%20lu", &id) != 1 || id != row) {
		fprintf(stderr, "cold: row %llu is not itself\n", (unsigned long long)row);
		exit(1);
	}
	for (; *p != 0; p++)
		sum += (unsigned char)*p;
	quarry_leave();
	return sum;
}

static void tell(struct told *t, quarry_lanes *l)
{
	quarry_lanes_stats all = { 0 };
	quarry_cold_stats s = { 0 };

	if (quarry_cold_stats_get(l, &s) != 0)
		return;
	atomic_store(&t->objects, s.objects);
	atomic_store(&t->bytes, s.bytes);
	atomic_store(&t->compressed, s.compressed);
	atomic_store(&t->evicted, s.evicted);
	atomic_store(&t->loaded, s.loaded);
	atomic_store(&t->copies, s.copies);
	atomic_store(&t->period_ms, s.period_ms);
	if (quarry_lanes_stats_get(l, &all) == 0) {
		atomic_store(&t->live, all.live);
		atomic_store(&t->held, all.held);
	}
	atomic_store(&t->deepened, s.deepened);
	atomic_store(&t->dictionaries, s.dictionaries);
}

/* A process: it reads until it is killed. */
static void read_rows(struct told *t, const quarry_cold_attr *cold)
{
	size_t size = rows * sizeof(quarry_handle);
	quarry_handle *row = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	quarry_lanes *l;
	uint64_t sum = 0;

	if (row == MAP_FAILED)
		exit(1);
	t->before = resident(getpid());
	l = fill(row, cold);
	atomic_store(&t->ready, true);
	raise(SIGSTOP);
	for (uint64_t batch = 1;; batch++) {
		for (int i = 0; i < BATCH; i++)
			sum += read_row(l, row, next_row()) + work(work_loops);
		atomic_store(&t->cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID));
		atomic_fetch_add(&t->done, BATCH);
		if (batch % 4096 == 0)
			tell(t, l);
		__asm__ volatile("" : : "r"(sum));
	}
}

/* ---- turns ---- */

static void check(int which)
{
	int status;

	if (waitpid(process[which], &status, WNOHANG | WUNTRACED) == process[which] && !WIFSTOPPED(status)) {
		fprintf(stderr, "cold: a process ended\n");
		kill(process[1 - which], SIGKILL);
		exit(1);
	}
}

/* Rows per second of the clock, and of the reader's processor time. */
static void run(int which, double seconds, double *rate, double *cpu_rate)
{
	struct told *t = &told[which];
	uint64_t began, done, cpu;

	kill(process[which], SIGCONT);
	usleep(2000);
	done = atomic_load(&t->done);
	cpu = atomic_load(&t->cpu_ns);
	began = clock_ns(CLOCK_MONOTONIC);
	usleep((useconds_t)(seconds * 1e6));
	done = atomic_load(&t->done) - done;
	cpu = atomic_load(&t->cpu_ns) - cpu;
	*rate = (double)done * 1e9 / (double)(clock_ns(CLOCK_MONOTONIC) - began);
	*cpu_rate = cpu == 0 ? 0 : (double)done * 1e9 / (double)cpu;
	kill(process[which], SIGSTOP);
	check(which);
}

static double saved(uint64_t *plain, uint64_t *cold)
{
	*plain = resident(process[0]) - told[0].before;
	*cold = resident(process[1]) - told[1].before;
	return 100 - 100.0 * (double)*cold / (double)*plain;
}

static void print(const char *when, double rate, double ratio, double cpu_ratio)
{
	const struct told *t = &told[1];
	uint64_t plain, cold;
	double less = saved(&plain, &cold);

	printf("%s: %.1f MiB, %.1f with cold memory: %.1f %% less; %.2f M/s, %.3f times as many (processor time: %.3f); %.1f %% cold, "
	       "%.2f times smaller (%.1f MiB, %.1f in the file, %llu pieces anew, %llu dictionaries), the others %.1f MiB in %.1f; %.2f M came back, %.2f M copied, a period of %.1f s\n",
	       when, (double)plain / 1048576, (double)cold / 1048576, less, rate / 1e6, ratio, cpu_ratio,
	       100.0 * (double)t->objects / (double)rows, (double)t->bytes / (double)(t->compressed + t->evicted + 1),
	       (double)t->compressed / 1048576, (double)t->evicted / 1048576, (unsigned long long)t->deepened,
	       (unsigned long long)t->dictionaries, (double)t->live / 1048576, (double)t->held / 1048576, (double)t->loaded / 1e6, (double)t->copies / 1e6, (double)t->period_ms / 1e3);
	fflush(stdout);
}

static void start(int which, const quarry_cold_attr *cold)
{
	process[which] = fork();
	if (process[which] == 0) {
		read_rows(&told[which], cold);
		_exit(1);
	}
	if (process[which] < 0)
		exit(1);
}

static void take_turns(int turns)
{
	static double ratio[TURNS_MAX], cpu_ratio[TURNS_MAX], less[TURNS_MAX], plain[TURNS_MAX];
	uint64_t a, b;

	for (int t = 0; t < turns; t++) {
		double rate[2], cpu[2];

		for (int k = 0; k < 2; k++)
			run((t + k) % 2, TURN_S, &rate[(t + k) % 2], &cpu[(t + k) % 2]);
		ratio[t] = rate[1] / rate[0];
		cpu_ratio[t] = cpu[1] / cpu[0];
		plain[t] = rate[0];
		less[t] = saved(&a, &b);
		if (t % 10 == 9)
			print("turn", rate[0], ratio[t], cpu_ratio[t]);
	}
	printf("cold: %llu rows, exponent %.2f, %u ns of work: %.1f %% of resident memory saved, %.3f times the rate without (processor "
	       "time: %.3f), which is %.2f M/s\n",
	       (unsigned long long)rows, exponent, work_ns, median(less, (size_t)turns), median(ratio, (size_t)turns),
	       median(cpu_ratio, (size_t)turns), median(plain, (size_t)turns) / 1e6);
}

static struct {
	unsigned mib, turns, alone;
	quarry_cold_attr cold;
} options = { .mib = 2048, .turns = 60, .alone = 90 };

static bool option(const char *name, const char *value)
{
	if (strcmp(name, "--mib") == 0)
		options.mib = (unsigned)atoi(value);
	else if (strcmp(name, "--turns") == 0)
		options.turns = (unsigned)atoi(value);
	else if (strcmp(name, "--alone") == 0)
		options.alone = (unsigned)atoi(value);
	else if (strcmp(name, "--exponent") == 0)
		exponent = atof(value);
	else if (strcmp(name, "--work") == 0)
		work_ns = (unsigned)atoi(value);
	else if (strcmp(name, "--period") == 0)
		options.cold.period_ms = (uint32_t)atoi(value);
	else if (strcmp(name, "--stall") == 0)
		options.cold.stall_percent = (uint32_t)atoi(value);
	else if (strcmp(name, "--codec") == 0)
		options.cold.codec = value;
	else if (strcmp(name, "--long") == 0)
		options.cold.long_codec = value;
	else if (strcmp(name, "--copies") == 0)
		options.cold.flags = atoi(value) != 0 ? 0 : QUARRY_COLD_NO_COPIES;
	else if (strcmp(name, "--directory") == 0)
		options.cold.directory = value;
	else if (strcmp(name, "--memory") == 0)
		options.cold.memory_limit = (uint64_t)atoi(value) << 20;
	else
		return false;
	return true;
}

static void prepare(void)
{
	uint64_t began, sum;

	rows = ((uint64_t)options.mib << 20) / 300;
	if (exponent != 0)
		zipf_prepare();
	began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	sum = work(10000000);
	work_loops = (uint64_t)((double)work_ns * 1e7 / (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - began));
	__asm__ volatile("" : : "r"(sum));
	told = mmap(NULL, 2 * sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED)
		exit(1);
}

int main(int argc, char **argv)
{
	double rate, cpu;
	int i = 1;

	while (i + 1 < argc && option(argv[i], argv[i + 1]))
		i += 2;
	if (i != argc || options.mib == 0 || options.turns == 0 || options.turns > TURNS_MAX || exponent < 0 || exponent == 1) {
		fprintf(stderr, "cold: what is %s? (bench/cold.c tells of all options)\n", i < argc ? argv[i] : "meant");
		return 2;
	}
	prepare();
	start(0, NULL);
	start(1, &options.cold);
	for (int k = 0; k < 2; k++)
		while (!atomic_load(&told[k].ready)) {
			check(k);
			usleep(10000);
		}
	usleep(50000);
	for (unsigned s = 0; s < options.alone; s += 10) {
		run(1, 10, &rate, &cpu);
		print("alone", rate, 1, 1);
	}
	take_turns((int)options.turns);
	for (int k = 0; k < 2; k++)
		kill(process[k], SIGKILL);
	return 0;
}
