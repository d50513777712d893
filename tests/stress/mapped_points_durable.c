/* SPDX-License-Identifier: MIT */
/* Every death there is in the life of a process that has a durable heap, one after the other: it opens the heap, changes it in sections, makes
 * a checkpoint and closes it, and dies at the n-th point that it passes (mapped.h, QY_POINT; durable.h, QY_DURABLE_POINT), for each
 * n. Beside a process that has the heap all the time, and goes on: at once, or when another one has taken the number of the dead. It can
 * enter a section; the next version is what is in memory, byte by byte; and soon no pages need be compared any more. Alone: the next one opens what the
 * last checkpoint left, and makes one.
 *
 * Processes that die are forked before there is a heap, so that they have nothing of it but what they open. No chance is in it; --ops is
 * every how manieth point is tried (1: each). */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"

enum { PAGES = 24, MOST = 100000, PLACES = 4096 / 8 };

static char path[256];
static long left = -1; /* points that may be passed yet; -1: all */
static unsigned long deaths, taken_over;

extern const struct qy_mapped_place __start_qy_durable_points[], __stop_qy_durable_points[];
static _Atomic uint64_t *died; /* at each of them */

void qy_mapped_point(const struct qy_mapped_place *place)
{
	if (left <= 0 || --left != 0)
		return;
	if (place >= __start_qy_durable_points && place < __stop_qy_durable_points)
		atomic_fetch_add(&died[place - __start_qy_durable_points], 1);
	kill(getpid(), SIGKILL);
}

/* ---- what is in it ---- */

static uint64_t *word(quarry_mapped *h, unsigned i)
{
	quarry_off *slot = quarry_mapped_user(h, NULL);
	uint64_t *p = *slot != 0 ? quarry_mapped_at(h, *slot) : quarry_mapped_alloc_into(h, PAGES * QY_PAGE, slot);

	ST_CHECK(p != NULL);
	return &p[i * 512 + i];
}

/* All words have one value: in versions too. */
static void set_all(quarry_mapped *h, uint64_t value)
{
	ST_CHECK(quarry_mapped_enter(h) == 0);
	for (unsigned i = 0; i < PAGES; i++)
		*word(h, i) = value;
	quarry_mapped_leave(h);
}

static uint64_t value_of(quarry_mapped *h, const char *what, long n)
{
	quarry_mapped_report report;

	if (quarry_mapped_check(h, &report, sizeof(report)) != 0)
		st_fail("dead at %ld: %s: %s", n, what, report.wrong != 0 ? report.first : quarry_error_text());
	for (unsigned i = 1; i < PAGES; i++) {
		if (*word(h, i) != *word(h, 0))
			st_fail("dead at %ld: %s: page %u has %llu, and page 0 %llu", n, what, i, (unsigned long long)*word(h, i),
				(unsigned long long)*word(h, 0));
	}
	return *word(h, 0);
}

static quarry_mapped *opened(const char *by, long n)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL)
		st_fail("dead at %ld: %s: %s", n, by, quarry_error_text());
	return h;
}

static quarry_mapped_checkpoint_info checkpoint(quarry_mapped *h, long n)
{
	quarry_mapped_checkpoint_info info;

	if (quarry_mapped_checkpoint(h, &info, sizeof(info)) != 0)
		st_fail("dead at %ld: a checkpoint: %s", n, quarry_error_text());
	return info;
}

/* ---- processes ---- */

struct process {
	pid_t pid;
	int go[2], is[2];
};

/* One that waits to be told, then does it; told once more where it stays. */
static struct process begin(void (*fn)(quarry_mapped *h), long n, bool stays)
{
	struct process p;
	char byte = 0;

	ST_CHECK(pipe(p.go) == 0 && pipe(p.is) == 0);
	p.pid = fork();
	ST_CHECK(p.pid >= 0);
	if (p.pid != 0)
		return p;
	close(p.go[1]);
	if (read(p.go[0], &byte, 1) != 1)
		_exit(0);
	left = n;
	{
		quarry_mapped *h = opened("who is to die", n);

		fn(h);
		if (stays && (write(p.is[1], &byte, 1) != 1 || read(p.go[0], &byte, 1) != 1))
			_exit(0);
		quarry_mapped_close(h);
	}
	_exit(0);
}

static void tell(struct process *p)
{
	ST_CHECK(write(p->go[1], "", 1) == 1);
}

/* Whether it was killed. */
static bool ended(struct process *p, long n)
{
	int status;

	ST_CHECK(waitpid(p->pid, &status, 0) == p->pid);
	for (unsigned i = 0; i < 2; i++) {
		close(p->go[i]);
		close(p->is[i]);
	}
	if (!WIFSIGNALED(status) && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		st_fail("dead at %ld: it ended with %#x", n, (unsigned)status);
	ST_CHECK(!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL);
	return WIFSIGNALED(status);
}

static void life(quarry_mapped *h)
{
	set_all(h, 3);
	ST_CHECK(quarry_mapped_checkpoint(h, NULL, 0) == 0);
	set_all(h, 4);
	ST_CHECK(quarry_mapped_checkpoint(h, NULL, 0) == 0);
	set_all(h, 5);
}

static void dies(quarry_mapped *h)
{
	set_all(h, 6);
	kill(getpid(), SIGKILL);
}

static void nothing(quarry_mapped *h)
{
	(void)h;
}

static quarry_mapped *made(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 32 << 20, .sessions = 4,
				    .lanes = 4, .roots = 4, .user_bytes = 64, .versions = 1 };
	quarry_mapped *h;

	unlink(path);
	h = quarry_mapped_create(path, &attr);
	if (h == NULL)
		st_fail("it cannot be made: %s", quarry_error_text());
	for (uint64_t value = 1; value <= 2; value++) {
		set_all(h, value);
		(void)checkpoint(h, 0);
	}
	return h;
}

/* ---- what is left ---- */

/* All of the heap but its superblocks, and the live page, which each lock changes. */
static void same_bytes(quarry_mapped *h, quarry_mapped *version, long n)
{
	for (uint64_t page = QY_LIVE_PAGE + 1; page < qy_heap(h)->live->end >> QY_PAGE_SHIFT; page++) {
		if (memcmp(h->base + page * QY_PAGE, version->base + page * QY_PAGE, QY_PAGE) != 0)
			st_fail("dead at %ld: page %llu of the version is not as in memory", n, (unsigned long long)page);
	}
}

static bool beside(long n, bool number_taken)
{
	struct process dying = begin(life, n, false), dead = { 0 }, next = { 0 };
	quarry_mapped *h, *version;
	bool killed;
	char byte;

	if (number_taken) {
		dead = begin(dies, 0, false);
		next = begin(nothing, 0, true);
	}
	h = made();
	if (number_taken) { /* and it dies in cleaning up after another one */
		tell(&dead);
		ST_CHECK(ended(&dead, n));
	}
	tell(&dying);
	killed = ended(&dying, n);
	if (number_taken) {
		tell(&next);
		ST_CHECK(read(next.is[0], &byte, 1) == 1);
		taken_over += killed;
	}
	ST_CHECK(quarry_mapped_enter(h) == 0);
	quarry_mapped_leave(h);
	version = quarry_mapped_open_version(path, checkpoint(h, n).version);
	if (version == NULL)
		st_fail("dead at %ld: the version: %s", n, quarry_error_text());
	same_bytes(h, version, n);
	quarry_mapped_close(version);
	/* In sections it is one value, unless it died in one. */
	set_all(h, 7);
	(void)checkpoint(h, n);
	if (checkpoint(h, n).compared != 0)
		st_fail("dead at %ld: all pages are compared for good", n);
	if (number_taken) {
		tell(&next);
		ST_CHECK(!ended(&next, n));
	}
	quarry_mapped_close(h);
	return killed;
}

static bool alone(long n)
{
	struct process dying = begin(life, n, false);
	quarry_mapped *h = made();
	uint64_t value;
	bool killed;

	quarry_mapped_close(h);
	tell(&dying);
	killed = ended(&dying, n);
	h = opened("the next one", n);
	value = value_of(h, "opened", n);
	if (value < 2 || value > 4 || (!killed && value != 4))
		st_fail("dead at %ld: it has %llu", n, (unsigned long long)value);
	set_all(h, 8);
	(void)checkpoint(h, n);
	quarry_mapped_close(h);
	h = opened("the third one", n);
	ST_CHECK(value_of(h, "opened again", n) == 8);
	quarry_mapped_close(h);
	return killed;
}

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR");
	unsigned never = 0;
	long n, step;

	st_begin(argc, argv, "mapped_points_durable", 1, 1);
	step = st.ops == 0 ? 1 : (long)st.ops;
	snprintf(path, sizeof(path), "%s/quarry-durable-points-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : dir != NULL ? dir : "/tmp",
		 (int)getpid());
	died = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ST_CHECK(died != MAP_FAILED && __stop_qy_durable_points - __start_qy_durable_points <= PLACES);
	for (n = 1; n < MOST; n += step) {
		unsigned killed = (unsigned)beside(n, false) + (unsigned)beside(n, true) + (unsigned)alone(n);

		deaths += killed;
		atomic_fetch_add(&st.done, 1);
		if (killed == 0)
			break;
	}
	unlink(path);
	for (const struct qy_mapped_place *p = __start_qy_durable_points; p < __stop_qy_durable_points; p++) {
		uint64_t count = died[p - __start_qy_durable_points];

		never += count == 0;
		if (count == 0 || getenv("QUARRY_POINTS") != NULL)
			printf("%s:%llu: %llu deaths\n", strrchr(p->file, '/') != NULL ? strrchr(p->file, '/') + 1 : p->file,
			       (unsigned long long)p->line, (unsigned long long)count);
	}
	printf("mapped_points_durable: %lu deaths at %ld points, %lu of them with the number taken by another\n", deaths, n - 1, taken_over);
	fflush(stdout);
	ST_CHECK(deaths > 0 && taken_over > 0);
	ST_CHECK(step > 1 || (never == 0 && deaths > 100 && taken_over > 30));
	return st_end(ST_SLACK, 0);
}
