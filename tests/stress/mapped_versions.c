/* SPDX-License-Identifier: MIT */
/* A durable heap of several processes while checkpoints are made: threads move amounts between accounts, which stand on pages of their
 * own, in sections, and replace objects; each version has all of the money, every object whole, and nothing lost. Processes are killed at
 * any moment, in sections, at the gate and while they make a checkpoint, and others begin in their place; the heap is opened again when
 * all are gone, and is the newest version.
 *
 * Arguments beside those of all: none. --ops: sections of all rounds. */
#include "tests/stress/stress.h"

#include <sched.h>
#include <sys/wait.h>

#include "include/quarry/mapped.h"

enum { ACCOUNTS = 512, PAGE = 4096, START = 1000000, OBJECTS = 64, PROCESSES = 3, THREADS = 2, ROUNDS = 6 };

struct shared {
	_Atomic uint64_t versions, sections, failed; /* of all processes: not in the heap */
	_Atomic uint64_t newest;                     /* that some checkpoint has returned */
};

/* In the heap's user area. Each of these words is one process's thread's alone, or is taken by exchange. */
struct table {
	quarry_off accounts;
	quarry_off object[OBJECTS];
};

struct object {
	uint64_t size, seed;
	unsigned char bytes[];
};

static struct shared *shared;
static quarry_mapped *heap;
static char path[256];

static int64_t *account(quarry_mapped *h, uint64_t i)
{
	struct table *t = quarry_mapped_user(h, NULL);

	return (int64_t *)((char *)quarry_mapped_at(h, t->accounts) + i * PAGE);
}

/* One section: an amount goes from one account to another by way of a third; an object is another one. */
static void section(struct st_rng *rng)
{
	struct table *t = quarry_mapped_user(heap, NULL);
	uint64_t a = st_below(rng, ACCOUNTS), b = st_below(rng, ACCOUNTS), c = st_below(rng, ACCOUNTS);
	int64_t amount = (int64_t)st_below(rng, 1000);

	ST_CHECK(quarry_mapped_enter(heap) == 0);
	__atomic_fetch_sub(account(heap, a), amount, __ATOMIC_RELAXED);
	__atomic_fetch_add(account(heap, b), amount, __ATOMIC_RELAXED);
	if (st_below(rng, 8) == 0) {
		size_t size = 1 + st_below(rng, 2000);
		struct object *o = quarry_mapped_alloc(heap, sizeof(*o) + size);
		quarry_off was;

		ST_CHECK(o != NULL);
		o->size = size;
		o->seed = st_next(rng);
		st_fill(o->bytes, 0, size, st_key(o->seed, size));
		was = __atomic_exchange_n(&t->object[st_below(rng, OBJECTS)], quarry_mapped_off(heap, o), __ATOMIC_ACQ_REL);
		if (was != 0)
			ST_CHECK(quarry_mapped_free(heap, quarry_mapped_at(heap, was)) == 0);
	}
	__atomic_fetch_sub(account(heap, b), amount, __ATOMIC_RELAXED);
	__atomic_fetch_add(account(heap, c), amount, __ATOMIC_RELAXED);
	quarry_mapped_leave(heap);
}

/* Where processes were killed in sections, what they had in their hands is nobody's. */
static void check(quarry_mapped *h, const char *what, uint64_t kills)
{
	struct table *t = quarry_mapped_user(h, NULL);
	quarry_mapped_report report;
	int64_t sum = 0;

	if (quarry_mapped_check(h, &report, sizeof(report)) != 0)
		st_fail("%s: %s", what, report.first);
	for (uint64_t i = 0; i < ACCOUNTS; i++)
		sum += *account(h, i);
	if (kills == 0 && sum != (int64_t)ACCOUNTS * START)
		st_fail("%s: %lld is missing", what, (long long)((int64_t)ACCOUNTS * START - sum));
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct object *o = quarry_mapped_at(h, t->object[i]);

		if (o == NULL)
			continue;
		if (quarry_mapped_usable(h, o) < sizeof(*o) + o->size)
			st_fail("%s: object %u is none", what, i);
		st_verify(o->bytes, 0, o->size, st_key(o->seed, o->size), o->seed, o->size);
	}
}

static void check_version(uint64_t number, uint64_t kills)
{
	quarry_mapped *h = quarry_mapped_open_version(path, number);
	char what[64];

	if (h == NULL && errno == ENOENT) /* others have made so many since */
		return;
	snprintf(what, sizeof(what), "version %llu", (unsigned long long)number);
	if (h == NULL)
		st_fail("%s: %s", what, quarry_error_text());
	check(h, what, kills);
	quarry_mapped_close(h);
}

static uint64_t round_kills; /* not 0: processes of this round are killed, in sections as well */

static _Atomic bool over; /* this process's thread that makes versions is through */

/* The others make sections as long as there are versions to be made. */
static void *go_on(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number);

	while (!atomic_load(&over))
		section(&rng);
	return NULL;
}

static void *work(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number);
	uint64_t per_thread = st.ops / ROUNDS / PROCESSES;

	for (uint64_t i = 0; i < per_thread; i++) {
		section(&rng);
		atomic_fetch_add(&shared->sections, 1);
		if (st_below(&rng, 60) == 0) {
			quarry_mapped_checkpoint_info info;

			if (quarry_mapped_checkpoint(heap, &info, sizeof(info)) != 0)
				st_fail("a checkpoint: %s", quarry_error_text());
			atomic_fetch_add(&shared->versions, 1);
			for (uint64_t is = atomic_load(&shared->newest); is < info.version;)
				atomic_compare_exchange_weak(&shared->newest, &is, info.version);
			if (round_kills == 0 || st_below(&rng, 4) == 0)
				check_version(info.version, round_kills);
		}
	}
	atomic_store(&over, true);
	return NULL;
}

static pid_t begin(unsigned process, unsigned round)
{
	pthread_t thread[THREADS];
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	st_watchdog_start(st.watchdog);
	heap = quarry_mapped_open(path);
	if (heap == NULL)
		st_fail("a process cannot open it: %s", quarry_error_text());
	for (uintptr_t i = 0; i < THREADS; i++)
		ST_CHECK(pthread_create(&thread[i], NULL, i == 0 ? work : go_on, (void *)((round * PROCESSES + process) * THREADS + i)) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	ST_CHECK(quarry_mapped_close(heap) == 0);
	_exit(0);
}

/* All to their ends, or (kill) one after the other is killed at any moment. */
static uint64_t run(unsigned round, bool kill_them)
{
	struct st_rng rng = st_rng_for(1000 + round);
	uint64_t kills = 0, until = atomic_load(&shared->sections);
	pid_t pid[PROCESSES];

	for (unsigned i = 0; i < PROCESSES; i++)
		pid[i] = begin(i, round);
	for (unsigned i = 0; kill_them && i < PROCESSES; i++) {
		int status;

		until += 1 + st_below(&rng, st.ops / ROUNDS / PROCESSES / 2);
		while (atomic_load(&shared->sections) < until && waitpid(pid[i], &status, WNOHANG) == 0)
			sched_yield();
		if (kill(pid[i], SIGKILL) == 0)
			kills++;
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status = 0;

		(void)waitpid(pid[i], &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			exit(1);
	}
	return kills;
}

static void make_heap(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 << 20, .versions = 7 };
	struct table *t;

	heap = quarry_mapped_create(path, &attr);
	if (heap == NULL)
		st_fail("it cannot be made: %s", quarry_error_text());
	t = quarry_mapped_user(heap, NULL);
	ST_CHECK(quarry_mapped_alloc_into(heap, ACCOUNTS * PAGE, &t->accounts) != NULL);
	for (uint64_t i = 0; i < ACCOUNTS; i++)
		*account(heap, i) = START;
	ST_CHECK(quarry_mapped_checkpoint(heap, NULL, 0) == 0);
	ST_CHECK(quarry_mapped_close(heap) == 0);
}

int main(int argc, char **argv)
{
	const char *directory = getenv("TMPDIR");
	uint64_t kills = 0;
	quarry_mapped_version newest;

	st_begin(argc, argv, "mapped_versions", 4000, 1);
	snprintf(path, sizeof(path), "%s/quarry-versions-%d", directory ? directory : "/tmp", (int)getpid());
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ST_CHECK(shared != MAP_FAILED);
	make_heap();
	for (unsigned round = 0; round < ROUNDS; round++) {
		char what[64];

		round_kills = round % 2;
		kills += run(round, round_kills != 0);
		snprintf(what, sizeof(what), "after round %u", round);
		ST_CHECK(quarry_mapped_versions(path, &newest, 1) >= 1);
		if (newest.number < atomic_load(&shared->newest))
			st_fail("%s: the newest is version %llu, and %llu had been returned", what, (unsigned long long)newest.number,
				(unsigned long long)shared->newest);
		heap = quarry_mapped_open(path);
		if (heap == NULL)
			st_fail("%s: %s", what, quarry_error_text());
		check(heap, what, round_kills);
		if (round_kills != 0) { /* begun again, with all of the money */
			for (uint64_t i = 0; i < ACCOUNTS; i++)
				*account(heap, i) = START;
			ST_CHECK(quarry_mapped_checkpoint(heap, NULL, 0) == 0);
		}
		ST_CHECK(quarry_mapped_close(heap) == 0);
	}
	unlink(path);
	printf("mapped_versions: %llu sections, %llu versions, %llu processes killed\n", (unsigned long long)shared->sections,
	       (unsigned long long)shared->versions, (unsigned long long)kills);
	return st_end(ST_SLACK + ST_MIB, 0);
}
