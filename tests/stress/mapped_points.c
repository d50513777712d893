/* SPDX-License-Identifier: MIT */
/* Every death there is in a change of a heap, one after the other. For each operation below and each n a process does it, from the same
 * file, and dies at the n-th point that it passes (mapped.h, QY_POINT), its opening of the heap among them; then others meet what it left.
 * Alone: the next one opens the heap, and for each m dies in that as well, and a third one looks. Beside others: a process that has it
 * open all the time goes on. Whoever opens it to read meanwhile sees it as it was or as it is to be, or is told to come again.
 * The heap is then whole, and is, object by object and name by name, what it was before the operation or what it is after it.
 * Beside a collector: who dies does so when the collector has begun, and has not yet seen to it that nobody else is there.
 *
 * Beside ThreadSanitizer, where a fork takes a tenth of a second and no thread has anything to do, at one of four points.
 *
 * No chance is in it; --ops is how many deaths in recovery are done at most for one death (0: all), --threads means nothing. */
#include "tests/stress/stress.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "lib/mapped/channel.h"
#include "numa/os.h"
#include "tests/stress/points_channels.h"

enum { SLOTS = 64, MOST = 100000, EACH = ST_TSAN ? 4 : 1 };

static char path[256];
static long left = -1; /* points that may be passed yet; -1: all */
static unsigned long first_deaths, second_deaths, told_again, lock_deaths;

extern const struct qy_mapped_place __start_qy_points[], __stop_qy_points[];
static _Atomic uint64_t *died; /* at each of them */

void qy_mapped_point(const struct qy_mapped_place *place)
{
	if (left <= 0 || --left != 0)
		return;
	atomic_fetch_add(&died[place - __start_qy_points], 1);
	kill(getpid(), SIGKILL);
}

/* ---- what a heap is ---- */

struct state {
	uint64_t objects, bytes, slots, roots;
};

static int add_root(void *sum, const char *name, quarry_off off, uint32_t tag)
{
	uint64_t hash = tag;

	while (*name != 0)
		hash = st_mix(hash ^ (uint64_t)(unsigned char)*name++);
	*(uint64_t *)sum += st_mix(hash ^ off);
	return 0;
}

static struct state state_of(quarry_mapped *h)
{
	const quarry_off *slots = quarry_mapped_user(h, NULL);
	quarry_mapped_report report;
	struct state s = { 0 };

	if (quarry_mapped_check(h, &report, sizeof(report)) != 0)
		st_fail("%s", report.wrong != 0 ? report.first : quarry_error_text());
	ST_CHECK(report.reserved == 0);
	s.objects = report.objects;
	s.bytes = report.bytes;
	for (unsigned i = 0; i < SLOTS; i++) {
		size_t usable = slots[i] == 0 ? 0 : quarry_mapped_usable(h, quarry_mapped_at(h, slots[i]));

		ST_CHECK(slots[i] == 0 || usable != 0);
		s.slots += st_mix(slots[i] + st_mix(i) + usable);
	}
	ST_CHECK(quarry_mapped_root_list(h, add_root, &s.roots) == 0);
	return s;
}

static bool same(struct state a, struct state b)
{
	return a.objects == b.objects && a.bytes == b.bytes && a.slots == b.slots && a.roots == b.roots;
}

/* ---- operations ---- */

static quarry_off *slots_of(quarry_mapped *h)
{
	return quarry_mapped_user(h, NULL);
}

static void into(quarry_mapped *h, unsigned slot, size_t size)
{
	ST_CHECK(quarry_mapped_alloc_into(h, size, &slots_of(h)[slot]) != NULL);
}

static void from(quarry_mapped *h, unsigned slot)
{
	ST_CHECK(quarry_mapped_free_from(h, &slots_of(h)[slot]) == 0);
}

/* What all begin with: names, small objects, a full slab, blocks of one segment and of two. */
static void fill(quarry_mapped *h)
{
	ST_CHECK(quarry_mapped_root_put(h, "old", 4096, 7) == 0 && quarry_mapped_root_put(h, "gone", 5, 5) == 0);
	for (unsigned i = 0; i < 10; i++)
		into(h, i, 100);
	for (unsigned i = 10; i < 18; i++) /* a slab of 8 */
		into(h, i, 32768);
	into(h, 20, 200000);
	into(h, 21, 33 * ST_MIB);
	into(h, 22, 100000);
	from(h, 21);
	ST_CHECK(quarry_mapped_root_remove(h, "gone") == 0);
}

static void put_new(quarry_mapped *h)
{
	ST_CHECK(quarry_mapped_root_put(h, "new", 9, 9) == 0);
}

static void put_over(quarry_mapped *h)
{
	ST_CHECK(quarry_mapped_root_put(h, "old", 11, 12) == 0);
}

static void take_off(quarry_mapped *h)
{
	ST_CHECK(quarry_mapped_root_remove(h, "old") == 0);
}

static void small_into(quarry_mapped *h)
{
	into(h, 30, 100);
}

static void new_slab_into(quarry_mapped *h)
{
	into(h, 30, 5000);
}

static void full_class_into(quarry_mapped *h)
{
	into(h, 30, 32768);
}

static void block_into(quarry_mapped *h)
{
	into(h, 30, 150000);
}

static void grow_into(quarry_mapped *h)
{
	into(h, 30, 12 * ST_MIB);
}

static void segment_into(quarry_mapped *h)
{
	into(h, 30, 31 * ST_MIB);
}

static void segments_into(quarry_mapped *h)
{
	into(h, 30, 33 * ST_MIB);
}

static void small_from(quarry_mapped *h)
{
	from(h, 3);
}

static void full_from(quarry_mapped *h)
{
	from(h, 12);
}

static void block_from(quarry_mapped *h)
{
	from(h, 20);
}

static void fill_large(quarry_mapped *h)
{
	fill(h);
	into(h, 23, 33 * ST_MIB);
}

static void segments_from(quarry_mapped *h)
{
	from(h, 23);
}

static void by_set(quarry_mapped *h)
{
	quarry_off *slots = slots_of(h);
	quarry_mapped_set set;

	ST_CHECK(quarry_mapped_begin(h, &set) == 0);
	for (unsigned i = 0; i < 3; i++) {
		void *p = quarry_mapped_reserve(&set, i == 1 ? 150000 : 100);

		ST_CHECK(p != NULL && quarry_mapped_link(&set, &slots[30 + i], 0, quarry_mapped_off(h, p)) == 0);
	}
	ST_CHECK(quarry_mapped_unlink(&set, quarry_mapped_at(h, slots[4])) == 0);
	ST_CHECK(quarry_mapped_unlink(&set, quarry_mapped_at(h, slots[20])) == 0);
	ST_CHECK(quarry_mapped_link(&set, &slots[4], slots[4], 0) == 0 && quarry_mapped_link(&set, &slots[20], slots[20], 0) == 0);
	ST_CHECK(quarry_mapped_publish(&set) == 0);
}

static void not_by_set(quarry_mapped *h)
{
	quarry_mapped_set set;

	ST_CHECK(quarry_mapped_begin(h, &set) == 0);
	for (unsigned i = 0; i < 3; i++)
		ST_CHECK(quarry_mapped_reserve(&set, i == 1 ? 150000 : 32768) != NULL);
	quarry_mapped_cancel(&set);
}

static void trim(quarry_mapped *h)
{
	(void)quarry_mapped_trim(h);
}

/* (What it guards is not its business here.) */
static void lock(quarry_mapped *h)
{
	quarry_mapped_mutex *m = (quarry_mapped_mutex *)(void *)(slots_of(h) + SLOTS);

	ST_CHECK(quarry_mapped_lock(h, m) >= 0 && quarry_mapped_unlock(h, m) == 0);
}

static void nothing(quarry_mapped *h)
{
	(void)h;
}

static void *given;

/* (And frees what is of another lane.) */
static void *thread(void *h)
{
	void *first = quarry_mapped_alloc(h, 640);

	ST_CHECK(first != NULL && quarry_mapped_free(h, given) == 0);
	for (unsigned i = 1; i < 64; i++) /* a word of the slab's map is empty then */
		ST_CHECK(quarry_mapped_alloc(h, 640) != NULL);
	ST_CHECK(quarry_mapped_free(h, first) == 0);
	ST_CHECK(quarry_mapped_alloc(h, 300) != NULL && quarry_mapped_free(h, quarry_mapped_alloc(h, 600)) == 0);
	return NULL;
}

/* (An object more that nothing refers to, unless the death is before it.) */
static void thread_ends(quarry_mapped *h)
{
	pthread_t t;

	given = quarry_mapped_alloc(h, 500);
	ST_CHECK(pthread_create(&t, NULL, thread, h) == 0 && pthread_join(t, NULL) == 0);
}

static void fill_lost(quarry_mapped *h)
{
	char name[16];

	fill(h);
	ST_CHECK(quarry_mapped_root_remove(h, "old") == 0 && quarry_mapped_alloc(h, 77) != NULL);
	for (unsigned i = 0; i < SLOTS; i++) {
		snprintf(name, sizeof(name), "slot %u", i);
		ST_CHECK(slots_of(h)[i] == 0 || quarry_mapped_root_put(h, name, slots_of(h)[i], 0) == 0);
	}
}

static void no_trace(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	(void)ctx, (void)marks, (void)p, (void)usable, (void)tag;
}

static bool beside; /* others have it open */

static void collect(quarry_mapped *h)
{
	int64_t freed = quarry_mapped_collect(h, no_trace, NULL);

	if (freed != (beside ? -1 : 80) || (beside && errno != EBUSY))
		st_fail("%lld bytes collected: %s", (long long)freed, quarry_error_text());
}

static void fill_channels(quarry_mapped *h)
{
	fill(h);
	make_channels(h);
}

static void fill_dead_channels(quarry_mapped *h)
{
	fill(h);
	make_dead_channels(h);
}

/* loose: not as one. What is in the slots stays. */
static const struct operation {
	const char *name;
	void (*fill)(quarry_mapped *h), (*run)(quarry_mapped *h);
	bool shrink, loose;
	void (*look)(quarry_mapped *h); /* at what is not object or name; or NULL */
} operations[] = {
	{ "a name", fill, put_new, false, false, NULL },
	{ "a name's new meaning", fill, put_over, false, false, NULL },
	{ "a name removed", fill, take_off, false, false, NULL },
	{ "linked", fill, small_into, false, false, NULL },
	{ "linked, of a new slab", fill, new_slab_into, false, false, NULL },
	{ "linked, where slabs are full", fill, full_class_into, false, false, NULL },
	{ "a block linked", fill, block_into, false, false, NULL },
	{ "a block for which it grows", fill, grow_into, false, false, NULL },
	{ "a block in a new segment", fill, segment_into, false, false, NULL },
	{ "a block of segments", fill, segments_into, false, false, NULL },
	{ "freed", fill, small_from, false, false, NULL },
	{ "freed in a full slab", fill, full_from, false, false, NULL },
	{ "a block freed", fill, block_from, false, false, NULL },
	{ "a block of segments freed", fill_large, segments_from, false, false, NULL },
	{ "a set", fill, by_set, false, false, NULL },
	{ "a set that is cancelled", fill, not_by_set, false, false, NULL },
	{ "a lock of the program's", fill, lock, false, false, NULL },
	{ "trimmed", fill, trim, false, false, NULL },
	{ "closed", fill, nothing, false, false, NULL },
	{ "closed and made smaller", fill, nothing, true, false, NULL },
	{ "a thread's end", fill, thread_ends, false, true, NULL },
	{ "collected", fill_lost, collect, false, false, NULL },
	{ "messages", fill_channels, messages, false, false, channels_of_one },
	{ "messages to the dead", fill_dead_channels, messages_to_the_dead, false, false, channels_of_the_dead },
};

/* ---- deaths ---- */

/* A file's content: the pages that are not all zero. */
struct image {
	size_t bytes, count, room;
	off_t *at;
	char (*page)[4096];
};

static void take_image(struct image *image)
{
	static const char zero[4096];
	int fd = open(path, O_RDWR);
	char *file;

	ST_CHECK(fd >= 0);
	image->bytes = (size_t)lseek(fd, 0, SEEK_END);
	image->count = 0;
	file = mmap(NULL, image->bytes, PROT_READ, MAP_SHARED, fd, 0);
	ST_CHECK(file != MAP_FAILED);
	for (size_t at = 0; at < image->bytes; at += 4096) {
		if (memcmp(file + at, zero, 4096) == 0)
			continue;
		ST_CHECK(image->count < image->room);
		memcpy(image->page[image->count], file + at, 4096);
		image->at[image->count++] = (off_t)at;
	}
	munmap(file, image->bytes);
	close(fd);
}

static void put_image(const struct image *image)
{
	int fd = open(path, O_RDWR);

	ST_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)image->bytes) == 0);
	for (size_t i = 0; i < image->count; i++)
		ST_CHECK(pwrite(fd, image->page[i], 4096, image->at[i]) == 4096);
	close(fd);
}

static void image_init(struct image *image)
{
	image->room = 4096;
	image->at = st_pages(image->room * sizeof(*image->at));
	image->page = st_pages(image->room * 4096);
}

static struct image begun, dead;

static quarry_mapped *opened(const char *by)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL)
		st_fail("%s: %s", by, quarry_error_text());
	return h;
}

/* In a process of its own, which dies at the n-th point, or lives (0). Whether it died. */
static bool in_process(void (*run)(quarry_mapped *h), long n)
{
	int status;
	pid_t pid = fork();

	ST_CHECK(pid >= 0);
	if (pid == 0) {
		quarry_mapped *h;

		left = n;
		h = opened("who is to die");
		run(h);
		quarry_mapped_close(h);
		_exit(0);
	}
	ST_CHECK(waitpid(pid, &status, 0) == pid);
	if (!WIFSIGNALED(status) && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		st_fail("it ended with %#x", status);
	ST_CHECK(!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL);
	return WIFSIGNALED(status);
}

/* The file before an operation: as a killed process left it. */
static void make_image(const struct operation *op)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 256 * ST_MIB, .sessions = 8, .lanes = 8, .roots = 128,
				    .flags = op->shrink ? QUARRY_MAPPED_SHRINK : 0 };
	int status;
	pid_t pid;

	unlink(path);
	pid = fork();
	if (pid == 0) {
		quarry_mapped *h = quarry_mapped_create(path, &attr);

		ST_CHECK(h != NULL);
		op->fill(h);
		kill(getpid(), SIGKILL);
	}
	ST_CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	take_image(&begun);
}

static void like(const struct operation *op, long n, long m, struct state is, struct state before, struct state after)
{
	if (same(is, before) || same(is, after))
		return;
	if (op->loose && is.slots == before.slots)
		return;
	st_fail("%s, dead at %ld, %ld: %llu objects of %llu bytes (%llu of %llu before, %llu of %llu after), slots %s, names %s", op->name, n, m,
		(unsigned long long)is.objects, (unsigned long long)is.bytes, (unsigned long long)before.objects,
		(unsigned long long)before.bytes, (unsigned long long)after.objects, (unsigned long long)after.bytes,
		is.slots == before.slots || is.slots == after.slots ? "right" : "wrong",
		is.roots == before.roots || is.roots == after.roots ? "right" : "wrong");
}

/* A reader, of what was left: it has names as they were or are to be, or is told. */
static void read_it(const struct operation *op, long n, struct state before, struct state after)
{
	quarry_mapped *h = quarry_mapped_open_read(path);
	uint64_t roots = 0;

	if (h == NULL) {
		if (errno != EAGAIN)
			st_fail("%s, dead at %ld: a reader: %s", op->name, n, quarry_error_text());
		told_again++;
		return;
	}
	if (quarry_mapped_root_list(h, add_root, &roots) != 0)
		told_again += errno == EAGAIN;
	else if (roots != before.roots && roots != after.roots && !op->loose)
		st_fail("%s, dead at %ld: a reader has other names", op->name, n);
	quarry_mapped_close(h);
}

/* op: whose death it was, or NULL. */
static struct state look(const char *by, const struct operation *op)
{
	quarry_mapped *h = opened(by);
	quarry_mapped_info info;
	struct state s = state_of(h);

	ST_CHECK(quarry_mapped_info_get(h, &info, sizeof(info)) == 0 && info.bad_classes == 0 && info.broken == 0);
	ST_CHECK(info.sessions == 1 && info.lanes == 0);
	if (op != NULL && op->look != NULL)
		op->look(h);
	quarry_mapped_close(h);
	return s;
}

/* The next one that opens it dies in that too, everywhere. */
static void alone(const struct operation *op, long n, struct state before, struct state after)
{
	long step = 1;

	read_it(op, n, before, after);
	take_image(&dead);
	like(op, n, 0, look("the next one", op), before, after);
	for (long m = 1; m < MOST; m += step) {
		put_image(&dead);
		if (!in_process(nothing, m))
			break;
		second_deaths++;
		like(op, n, m, look("the third one", op), before, after);
		if (st.ops != 0 && (uint64_t)m >= st.ops)
			step = m / (long)st.ops + 1;
	}
}

static bool with_others(const struct operation *op, long n, struct state before, struct state after)
{
	int pipes[2], status, second;
	quarry_mapped_info info;
	quarry_mapped *h;
	struct state is;
	pid_t pid;

	ST_CHECK(pipe(pipes) == 0);
	pid = fork();
	ST_CHECK(pid >= 0);
	if (pid == 0) {
		char c;

		if (read(pipes[0], &c, 1) != 1)
			_exit(2);
		beside = true;
		left = n;
		h = opened("who is to die");
		op->run(h);
		quarry_mapped_close(h);
		_exit(0);
	}
	h = opened("who goes on");
	ST_CHECK(write(pipes[1], "", 1) == 1 && waitpid(pid, &status, 0) == pid);
	close(pipes[0]);
	close(pipes[1]);
	if (!WIFSIGNALED(status) && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		st_fail("%s, beside others: it ended with %#x", op->name, status);
	read_it(op, n, before, after);
	/* A child gets the lock of the dead, in beginning its session, and dies there as well. */
	left = 1 + n % 12;
	pid = fork();
	if (pid == 0)
		_exit(0);
	left = -1;
	ST_CHECK(pid > 0 && waitpid(pid, &second, 0) == pid);
	second_deaths += WIFSIGNALED(second);
	ST_CHECK(quarry_mapped_recover(h) >= 0);
	is = state_of(h);
	like(op, n, -1, is, before, after);
	ST_CHECK(quarry_mapped_info_get(h, &info, sizeof(info)) == 0 && info.sessions == 1 && info.lanes == 0);
	lock_deaths += info.recovered_locks;
	if (op->look != NULL)
		op->look(h);
	/* And it can be worked with. */
	into(h, 40, 1000);
	into(h, 41, 300000);
	from(h, 40);
	from(h, 41);
	ST_CHECK(same(state_of(h), is));
	quarry_mapped_close(h);
	return WIFSIGNALED(status);
}

static void one(const struct operation *op)
{
	struct state before, after;
	long n;

	make_image(op);
	put_image(&begun);
	before = look("before", NULL);
	put_image(&begun);
	progress_reset();
	ST_CHECK(!in_process(op->run, 0));
	after = look("after", NULL);
	for (n = 1; n < MOST; n += EACH) {
		put_image(&begun);
		progress_reset();
		if (!in_process(op->run, n))
			break;
		first_deaths++;
		alone(op, n, before, after);
		put_image(&begun);
		progress_reset();
		if (with_others(op, n, before, after))
			first_deaths++;
		atomic_fetch_add(&st.done, 1);
	}
	ST_CHECK(n > 1);
	printf("mapped_points: %s: %ld points\n", op->name, n - EACH);
	fflush(stdout);
}

/* ---- beside a collector ---- */

static struct qy_os table;
static const struct qy_os *was;
static void (*doomed)(quarry_mapped *h);
static quarry_mapped *collecting;
static long dies_at;
static bool is_dead;

/* Somebody is about to see that nobody else is there: another session is, and does something, and dies at a point in it. */
static int lock_and_let_die(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	void (*run)(quarry_mapped *h) = doomed;

	if (run != NULL && at == QY_MAPPED_LOCK_OPEN && kind == QY_RANGE_WRITE) {
		int status;
		pid_t pid;

		doomed = NULL;
		pid = fork();
		if (pid == 0) {
			left = dies_at;
			run(collecting);
			_exit(0); /* (and does not close it) */
		}
		ST_CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && (WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : status == 0));
		is_dead = WIFSIGNALED(status);
	}
	return was->range_lock(fd, kind, at, len, wait);
}

static void fill_window(quarry_mapped *h)
{
	fill(h);
	ST_CHECK(quarry_mapped_root_remove(h, "old") == 0);
	ST_CHECK(quarry_mapped_root_put(h, "all", quarry_mapped_off(h, quarry_mapped_alloc(h, 50)), 1) == 0);
}

static void trace_slots(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	(void)ctx, (void)p, (void)usable;
	for (unsigned i = 0; tag == 1 && i < SLOTS; i++)
		quarry_mapped_mark(marks, slots_of(collecting)[i], 0);
}

/* run: what the other one is at, or NULL. All that no slot leads to is gone then, and what is allocated next is nobody else's. */
static struct state collected(void (*run)(quarry_mapped *h), long n)
{
	static const size_t sizes[] = { 100, 32768, 150000 };
	struct state is;

	put_image(&begun);
	collecting = opened("who collects");
	is_dead = false;
	doomed = run;
	dies_at = n;
	table = *(was = qy_os);
	table.range_lock = lock_and_let_die;
	qy_os = &table;
	if (quarry_mapped_collect(collecting, trace_slots, NULL) < 0)
		st_fail("dead at %ld beside the collector: %s", n, quarry_error_text());
	qy_os = was;
	is = state_of(collecting);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		into(collecting, 40 + i, sizes[i]);
	ST_CHECK(quarry_mapped_recover(collecting) == 0);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		ST_CHECK(quarry_mapped_usable(collecting, quarry_mapped_at(collecting, slots_of(collecting)[40 + i])) >= sizes[i]);
		from(collecting, 40 + i);
	}
	ST_CHECK(same(state_of(collecting), is));
	quarry_mapped_close(collecting);
	return is;
}

static void beside_a_collector(void)
{
	static const struct operation with = { "a collector", fill_window, nothing, false, false, NULL };
	void (*const runs[])(quarry_mapped *h) = {
		small_into, new_slab_into, full_class_into, block_into, grow_into, segments_into, small_from, block_from, by_set, not_by_set,
		thread_ends,
	};
	unsigned long deaths = 0;

	make_image(&with);
	for (unsigned i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
		struct state before = collected(NULL, 0), after = collected(runs[i], 0);

		for (long n = 1; n < MOST; n += EACH) {
			struct state is = collected(runs[i], n);

			if (!is_dead)
				break;
			deaths++;
			if (!same(is, before) && !same(is, after))
				st_fail("operation %u, dead at %ld beside a collector: %llu objects of %llu bytes (%llu before, %llu after)", i, n,
					(unsigned long long)is.objects, (unsigned long long)is.bytes, (unsigned long long)before.objects,
					(unsigned long long)after.objects);
		}
	}
	printf("mapped_points: beside a collector: %lu deaths\n", deaths);
	fflush(stdout);
	ST_CHECK(deaths >= 100 / EACH);
	first_deaths += deaths;
}

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR"), *only = getenv("QUARRY_POINTS");
	unsigned never = 0;

	st_begin(argc, argv, "mapped_points", 2, 1);
	snprintf(path, sizeof(path), "%s/quarry-mapped-points-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : dir != NULL ? dir : "/tmp",
		 (int)getpid());
	died = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ST_CHECK(progress != MAP_FAILED && died != MAP_FAILED && __stop_qy_points - __start_qy_points <= 512);
	image_init(&begun);
	image_init(&dead);
	for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		if (only == NULL || strcmp(only, operations[i].name) == 0)
			one(&operations[i]);
	}
	if (only == NULL || strcmp(only, "a collector") == 0)
		beside_a_collector();
	unlink(path);
	for (const struct qy_mapped_place *p = __start_qy_points; p < __stop_qy_points; p++) {
		never += died[p - __start_qy_points] == 0;
		if (only != NULL || died[p - __start_qy_points] == 0)
			printf("%s:%llu: %llu deaths\n", strrchr(p->file, '/') != NULL ? strrchr(p->file, '/') + 1 : p->file,
			       (unsigned long long)p->line, (unsigned long long)died[p - __start_qy_points]);
	}
	printf("mapped_points: %lu deaths, %lu of them with the lock held beside others, %lu in recovery; readers were told to come again %lu times\n",
	       first_deaths, lock_deaths, second_deaths, told_again);
	fflush(stdout);
	ST_CHECK(only != NULL || EACH > 1 || never == 0);
	ST_CHECK(only != NULL || (first_deaths >= 1000 / EACH && lock_deaths >= 200 / EACH && second_deaths >= 500 / EACH && told_again > 0));
	return st_end(ST_SLACK, 0);
}
