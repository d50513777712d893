/* SPDX-License-Identifier: MIT */
/* Processes that work on one heap and die in it. The heap's code is compiled in here with its points: places between two
 * stores, enumerated by file and line as they are met. Each round one process, or two, are to die at a certain point (SIGKILL by
 * themselves, at the n-th time that they pass it), the others go on, and meet what was left; then all stand still, and a process that has
 * just opened the heap looks: the heap is whole; each slot has what its process had published last, or was just publishing; no object is in two
 * slots, none in use that is in no slot. Every so often all die at once, so that nobody is left to clean up, and
 * several that open the heap and close it, one after the other, die in that. Some die by a timer, between any two instructions. A reader
 * looks on all the time. Locks of the program, in the heap, are among what they do: slots that one of them guards are changed as one with
 * allocating and freeing, and otherwise, by turns. Sometimes all die when a collector has begun, and has not yet seen that nobody else is there.
 *
 * Slots are an array in the heap. Most have one process that changes them, which notes what it is about to do and what it has
 * done outside the heap; some are for all. --ops is the number of kills. */
#include "tests/stress/stress.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "lib/mapped/mapped.h"
#include "numa/os.h"

enum { WORKERS_MAX = 8, OWN = 96, COMMON = 32, POINTS = 256, ROUNDS_OF_ONE = 100, PATIENCE = 20000, LOCKS = 4, GUARDED = 8 };
enum { ALL = WORKERS_MAX * OWN + COMMON + LOCKS * GUARDED };

extern const struct qy_mapped_place __start_qy_points[], __stop_qy_points[];

struct object {
	uint64_t seq, size, seal; /* all 0: linked, and not filled yet */
};

/* In the user area: two counts that are one outside of the lock. */
struct guarded {
	quarry_mapped_mutex mutex;
	uint64_t first, second;
};

struct worker {
	_Atomic int target;      /* the point to die at, -1: none */
	_Atomic int passes;      /* the so-manyth time */
	_Atomic int rests;
	_Atomic long timer;      /* to die in so many ns, 0: not so */
	_Atomic uint64_t ops;
	uint64_t seq[OWN];       /* what is in each own slot: done */
	uint64_t next, pending;  /* pending: what is about to be in slot pending_at, */
	int pending_at;          /* -1: none */
	int unfilled;            /* or a new one that is not filled */
};

struct point {
	_Atomic uint64_t passed, killed;
};

static struct control {
	_Atomic int stop;        /* stand still */
	_Atomic int plain;       /* plain allocations that may have been lost */
	_Atomic uint64_t hand[8]; /* and those that whoever comes next frees */
	_Atomic uint64_t inherited; /* locks of the program's whose holder had died */
	quarry_off names[2];     /* objects that names mean: a collector is told of nothing else */
	_Atomic uint64_t reads, told_again;
	_Atomic int reader_ends;
	struct point point[POINTS];
	struct worker worker[WORKERS_MAX];
} *control;

static struct worker *me;
static char path[256];

/* ---- points ---- */

static int points(void)
{
	return (int)(__stop_qy_points - __start_qy_points);
}

void qy_mapped_point(const struct qy_mapped_place *place)
{
	int number = (int)(place - __start_qy_points), target;

	if (me == NULL)
		return;
	atomic_fetch_add_explicit(&control->point[number].passed, 1, memory_order_relaxed);
	target = atomic_load_explicit(&me->target, memory_order_relaxed);
	if (target < 0 || (target != number && target != POINTS) || atomic_fetch_sub(&me->passes, 1) > 1)
		return;
	atomic_fetch_add(&control->point[number].killed, 1);
	kill(getpid(), SIGKILL);
}

/* The kernel's hand, wherever this is by then. */
static void die_in(long ns)
{
	struct sigevent by = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
	struct itimerspec when = { .it_value = { 0, ns } };
	timer_t timer;

	ST_CHECK(timer_create(CLOCK_MONOTONIC, &by, &timer) == 0 && timer_settime(timer, 0, &when, NULL) == 0);
}

/* ---- work ---- */

static uint64_t seal_of(const struct object *o)
{
	return st_mix(o->seq ^ st_mix(o->size));
}

/* The last bytes are as the first say. */
static bool is_whole(const struct object *o)
{
	uint64_t end;

	if (o->seal != seal_of(o))
		return false;
	memcpy(&end, (const char *)o + o->size - sizeof(end), sizeof(end));
	return o->size < sizeof(*o) + sizeof(end) || end == o->seal;
}

/* Two slots of each process are for blocks of many segments, and of a part of one. */
static size_t some_size(struct st_rng *rng, int slot)
{
	uint64_t r = st_below(rng, 100);

	if (slot == 0)
		return 31 * ST_MIB + st_below(rng, 5 * ST_MIB);
	if (slot == 1)
		return ST_MIB + st_below(rng, 6 * ST_MIB);
	return sizeof(struct object) + (r < 90 ? st_below(rng, 300) : r < 97 ? st_below(rng, 20000) : st_below(rng, 300000));
}

static void fill(struct object *o, uint64_t seq, size_t size)
{
	o->size = size;
	o->seq = seq;
	if (size >= sizeof(*o) + sizeof(o->seal)) {
		uint64_t end = seal_of(o);

		memcpy((char *)o + size - sizeof(end), &end, sizeof(end));
	}
	QY_ORDER();
	o->seal = seal_of(o);
}

/* In place of what is in the slot, or of nothing; or nothing in its place. Whether it is so now. */
static bool by_set(quarry_mapped *h, struct st_rng *rng, quarry_off *slot, uint64_t seq, int number)
{
	quarry_off was = quarry_off_load(slot);
	size_t size = some_size(rng, number);
	quarry_mapped_set set;
	struct object *o = NULL;

	ST_CHECK(quarry_mapped_begin(h, &set) == 0);
	if (seq != 0) {
		o = quarry_mapped_reserve(&set, size);
		ST_CHECK(o != NULL);
		fill(o, seq, size);
	}
	ST_CHECK(quarry_mapped_link(&set, slot, was, quarry_mapped_off(h, o)) == 0);
	if (was != 0 && quarry_mapped_unlink(&set, quarry_mapped_at(h, was)) != 0) {
		quarry_mapped_cancel(&set); /* (another one has freed it since) */
		return false;
	}
	if (st_below(rng, 20) == 0) {
		quarry_mapped_cancel(&set);
		return false;
	}
	if (quarry_mapped_publish(&set) == 0)
		return true;
	ST_CHECK(errno == EAGAIN || errno == EINVAL);
	return false;
}

static void own_slot(quarry_mapped *h, struct st_rng *rng, quarry_off *slots)
{
	uint64_t r = st_below(rng, 4000); /* (blocks of many segments take milliseconds) */
	int i = r == 0 ? 0 : r < 20 ? 1 : 2 + (int)st_below(rng, OWN - 2);
	quarry_off *slot = &slots[(me - control->worker) * OWN + i];
	uint64_t seq = *slot != 0 && st_below(rng, 3) != 0 ? 0 : ++me->next;
	bool into = st_below(rng, 3) == 0 && (*slot == 0) == (seq != 0);

	me->unfilled = 0;
	me->pending = seq;
	QY_ORDER();
	me->pending_at = i;
	QY_ORDER();
	if (into && seq != 0) {
		size_t size = some_size(rng, i);
		struct object *o;

		me->unfilled = 1;
		o = quarry_mapped_alloc_into(h, size, slot);
		ST_CHECK(o != NULL && o->seq == 0);
		fill(o, seq, size);
		me->seq[i] = seq;
	} else if (into) {
		ST_CHECK(quarry_mapped_free_from(h, slot) == 0);
		me->seq[i] = 0;
	} else if (by_set(h, rng, slot, seq, i)) {
		me->seq[i] = seq;
	}
	QY_ORDER();
	me->pending_at = -1;
}

/* By either way, as the last one may have done by the other and died; the lock is held. */
static void change_guarded(quarry_mapped *h, struct st_rng *rng, quarry_off *slot)
{
	bool as_one = st_below(rng, 2) != 0;
	quarry_off off = quarry_off_load(slot);
	size_t size = some_size(rng, 2);
	void *p;

	if (as_one) {
		ST_CHECK(off == 0 ? quarry_mapped_alloc_into(h, size, slot) != NULL : quarry_mapped_free_from(h, slot) == 0);
		return;
	}
	atomic_fetch_add(&control->plain, 1);
	if (off == 0) {
		p = quarry_mapped_alloc(h, size);
		ST_CHECK(p != NULL);
		quarry_off_store(slot, quarry_mapped_off(h, p));
	} else {
		quarry_off_store(slot, 0);
		ST_CHECK(quarry_mapped_free(h, quarry_mapped_at(h, off)) == 0);
	}
	atomic_fetch_sub(&control->plain, 1);
}

/* Deaths between the two counts are the holder's. */
static void guarded(quarry_mapped *h, struct st_rng *rng, quarry_off *slots)
{
	uint64_t which = st_below(rng, LOCKS);
	struct guarded *g = (struct guarded *)quarry_mapped_user(h, NULL) + which;
	int rc = st_below(rng, 2) != 0 ? quarry_mapped_lock(h, &g->mutex) : quarry_mapped_trylock(h, &g->mutex);

	ST_CHECK(rc >= 0 || errno == EBUSY);
	if (rc < 0)
		return;
	if (rc == 1)
		atomic_fetch_add(&control->inherited, 1);
	if (g->first != g->second && (rc == 0 || g->first != g->second + 1))
		st_fail("a lock's counts are %llu and %llu", (unsigned long long)g->first, (unsigned long long)g->second);
	g->second = g->first;
	QY_ORDER();
	g->first++;
	QY_POINT();
	g->second++;
	QY_ORDER();
	for (int i = 0; i < 3; i++) /* (of few slots: the next one meets the last one's) */
		change_guarded(h, rng, &slots[WORKERS_MAX * OWN + COMMON + which * GUARDED + st_below(rng, GUARDED)]);
	ST_CHECK(quarry_mapped_unlock(h, &g->mutex) == 0);
}

/* Names are seen as they were or are, whoever dies; the heap can be opened to be read, or it is said that it can be soon. */
static void look_on(void)
{
	quarry_mapped *h = NULL;
	uint32_t tag;

	while (atomic_load(&control->reader_ends) == 0) {
		quarry_off off;

		if (h == NULL)
			h = quarry_mapped_open_read(path);
		if (h == NULL && errno != EAGAIN)
			st_fail("a reader: %s", quarry_error_text());
		atomic_fetch_add(h != NULL ? &control->reads : &control->told_again, 1);
		if (h == NULL) {
			usleep(100);
			continue;
		}
		for (int i = 0; i < 100; i++) {
			errno = 0;
			off = quarry_mapped_root_get(h, "pair", &tag);
			if (errno == EAGAIN) {
				atomic_fetch_add(&control->told_again, 1);
				usleep(50);
			} else if (off == 0 || tag < 2 || off != control->names[tag & 1]) {
				st_fail("a reader: a name means %llu, its tag is %u (%s)", (unsigned long long)off, tag, quarry_error_text());
			}
			usleep(10);
		}
		quarry_mapped_close(h);
		h = NULL;
	}
	_exit(0);
}

static void work(int number, uint64_t generation)
{
	struct st_rng rng = st_rng_for(generation);
	uint32_t seed = 2;
	quarry_mapped *h;
	quarry_off *slots;

	me = &control->worker[number];
	h = quarry_mapped_open(path);
	if (h == NULL)
		st_fail("open: %s", quarry_error_text());
	slots = quarry_mapped_at(h, quarry_mapped_root_get(h, "slots", NULL));
	ST_CHECK(slots != NULL);
	for (;;) {
		char name[32];
		void *p;

		while (atomic_load(&control->stop) != 0) {
			atomic_store(&me->rests, 1);
			usleep(50);
		}
		atomic_store(&me->rests, 0);
		if (atomic_load(&control->stop) != 0)
			continue;
		if (atomic_load_explicit(&me->timer, memory_order_relaxed) != 0)
			die_in(atomic_exchange(&me->timer, 0));
		switch (st_below(&rng, 18)) {
		case 0:
			snprintf(name, sizeof(name), "%d of %d", (int)st_below(&rng, 20), number);
			ST_CHECK(quarry_mapped_root_put(h, name, control->names[0], (uint32_t)number + 2) == 0);
			break;
		case 1:
			snprintf(name, sizeof(name), "%d of %d", (int)st_below(&rng, 20), number);
			(void)quarry_mapped_root_remove(h, name);
			break;
		case 2:
			atomic_fetch_add(&control->plain, 1);
			p = quarry_mapped_alloc(h, some_size(&rng, 2));
			ST_CHECK(p != NULL);
			p = quarry_mapped_at(h, atomic_exchange(&control->hand[st_below(&rng, 8)], quarry_mapped_off(h, p)));
			ST_CHECK(quarry_mapped_free(h, p) == 0);
			atomic_fetch_sub(&control->plain, 1);
			break;
		case 3:
			if (st_below(&rng, 50) == 0)
				(void)quarry_mapped_trim(h);
			ST_CHECK(quarry_mapped_root_put(h, "pair", control->names[seed & 1], seed) == 0);
			seed++;
			break;
		case 4:
		case 5:
		case 6:
		case 7:
			(void)by_set(h, &rng, &slots[WORKERS_MAX * OWN + st_below(&rng, COMMON)], st_below(&rng, 2) ? 0 : 1ull << 40, 2);
			break;
		case 8:
		case 9:
			guarded(h, &rng, slots);
			break;
		default:
			own_slot(h, &rng, slots);
		}
		atomic_fetch_add_explicit(&me->ops, 1, memory_order_relaxed);
	}
}

/* ---- looking ---- */

static int same_as(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void look_at_own(const quarry_mapped *h, const quarry_off *slots, int number)
{
	struct worker *w = &control->worker[number];

	for (int i = 0; i < OWN; i++) {
		const struct object *o = quarry_mapped_at(h, slots[number * OWN + i]);

		ST_CHECK(o == NULL || quarry_mapped_usable(h, o) >= sizeof(*o));
		ST_CHECK(o == NULL || quarry_mapped_usable(h, o) >= o->size);
		uint64_t seq = o == NULL ? 0 : o->seq;

		if (o != NULL && w->pending_at == i && w->unfilled && !is_whole(o))
			seq = w->pending;
		else if (o != NULL && !is_whole(o))
			st_fail("worker %d, slot %d: %llu: what is in it was never published", number, i, (unsigned long long)seq);
		if (seq != w->seq[i] && (w->pending_at != i || seq != w->pending))
			st_fail("worker %d, slot %d: %llu, %llu was published", number, i, (unsigned long long)seq,
				(unsigned long long)w->seq[i]);
		w->seq[i] = o == NULL ? 0 : o->seq;
		if (o != NULL && !is_whole(o))
			fill((struct object *)(uintptr_t)o, w->seq[i] = w->pending, sizeof(*o));
	}
	w->pending_at = -1;
}

static uint64_t locks, replays, lost;

static void look(unsigned workers)
{
	static uint64_t offs[ALL + 8];
	quarry_mapped *h = quarry_mapped_open(path);
	quarry_mapped_report report;
	quarry_mapped_info info;
	const quarry_off *slots;
	size_t n = 0;

	if (h == NULL)
		st_fail("open: %s", quarry_error_text());
	ST_CHECK(quarry_mapped_recover(h) >= 0);
	if (quarry_mapped_check(h, &report, sizeof(report)) != 0)
		st_fail("%llu things are wrong: %s", (unsigned long long)report.wrong, report.first);
	slots = quarry_mapped_at(h, quarry_mapped_root_get(h, "slots", NULL));
	ST_CHECK(slots != NULL);
	for (unsigned i = 0; i < workers; i++)
		look_at_own(h, slots, (int)i);
	for (size_t i = 0; i < ALL; i++) {
		if (slots[i] == 0)
			continue;
		ST_CHECK(quarry_mapped_usable(h, quarry_mapped_at(h, slots[i])) >= sizeof(struct object));
		offs[n++] = slots[i];
	}
	for (unsigned i = 0; i < 8; i++) {
		if (control->hand[i] != 0)
			offs[n++] = control->hand[i];
	}
	qsort(offs, n, sizeof(offs[0]), same_as);
	for (size_t i = 1; i < n; i++) {
		if (offs[i] == offs[i - 1])
			st_fail("an object is in two slots");
	}
	ST_CHECK(quarry_mapped_info_get(h, &info, sizeof(info)) == 0);
	lost = (uint64_t)atomic_load(&control->plain);
	if (report.reserved != 0 || report.objects < n + 3 || report.objects > n + 3 + lost)
		st_fail("%llu objects, %zu in slots, %llu reserved, at most %llu plain ones lost", (unsigned long long)report.objects,
			n + 3, (unsigned long long)report.reserved, (unsigned long long)lost);
	locks = info.recovered_locks;
	replays = info.replayed;
	quarry_mapped_close(h);
}

static void no_trace(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	const quarry_off *slots = p;

	(void)ctx;
	(void)usable;
	for (size_t i = 0; tag == 1 && i < ALL; i++)
		quarry_mapped_mark(marks, slots[i], 0);
}

/* What plain allocations lost is found. */
static void collect(unsigned workers)
{
	quarry_mapped *h = quarry_mapped_open(path);
	quarry_mapped_report before, after;

	ST_CHECK(h != NULL);
	ST_CHECK(quarry_mapped_check(h, &before, sizeof(before)) == 0);
	memset(control->hand, 0, sizeof(control->hand));
	if (quarry_mapped_collect(h, no_trace, NULL) < 0)
		st_fail("collect: %s", quarry_error_text());
	ST_CHECK(quarry_mapped_check(h, &after, sizeof(after)) == 0 && after.objects <= before.objects);
	quarry_mapped_close(h);
	atomic_store(&control->plain, 0);
	look(workers);
}

static void begin_heap(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 4096 * ST_MIB, .lanes = 32, .sessions = 16,
				    .flags = QUARRY_MAPPED_SHRINK };
	quarry_mapped *h;
	quarry_off *slots;

	unlink(path);
	h = quarry_mapped_create(path, &attr);
	if (h == NULL)
		st_fail("create: %s", quarry_error_text());
	slots = quarry_mapped_alloc(h, ALL * sizeof(*slots));
	ST_CHECK(slots != NULL);
	memset(slots, 0, ALL * sizeof(*slots));
	ST_CHECK(quarry_mapped_root_put(h, "slots", quarry_mapped_off(h, slots), 1) == 0);
	for (int i = 0; i < 2; i++) {
		control->names[i] = quarry_mapped_off(h, quarry_mapped_alloc(h, 16));
		ST_CHECK(control->names[i] != 0);
	}
	ST_CHECK(quarry_mapped_root_put(h, "pair", control->names[0], 2) == 0 && quarry_mapped_root_put(h, "odd", control->names[1], 3) == 0);
	ST_CHECK(quarry_mapped_root_put(h, "even", control->names[0], 2) == 0);
	quarry_mapped_close(h);
	memset(control->worker, 0, sizeof(control->worker));
	memset(control->hand, 0, sizeof(control->hand));
	for (int i = 0; i < WORKERS_MAX; i++) {
		control->worker[i].pending_at = -1;
		atomic_store(&control->worker[i].target, -1);
	}
}

/* ---- rounds ---- */

static pid_t pids[WORKERS_MAX];
static uint64_t kills, generation, total_locks, total_replays, by_timer, in_opening;
static pid_t reader;

/* One that few died at, or any. */
static int some_point(struct st_rng *rng)
{
	int best = (int)st_below(rng, (uint64_t)points());

	for (int i = 0; i < 4; i++) {
		int other = (int)st_below(rng, (uint64_t)points());

		if (atomic_load(&control->point[other].killed) < atomic_load(&control->point[best].killed))
			best = other;
	}
	return best;
}

/* One of four is to die at a point from the start, which may be in opening the heap, or in its growing. */
static void spawn(struct st_rng *rng, int number)
{
	atomic_store(&control->worker[number].timer, 0);
	atomic_store(&control->worker[number].passes, 1 + (int)st_below(rng, 2));
	atomic_store(&control->worker[number].target, st_below(rng, 4) == 0 ? some_point(rng) : -1);
	atomic_store(&control->worker[number].rests, 0);
	generation++;
	pids[number] = fork();
	ST_CHECK(pids[number] >= 0);
	if (pids[number] == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		st_watchdog_start(st.watchdog);
		work(number, generation);
	}
}

static void reap(int number)
{
	int status;

	ST_CHECK(waitpid(pids[number], &status, 0) == pids[number]);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		st_fail("worker %d ended with %#x", number, status);
	kills++;
	pids[number] = 0;
}

static bool is_dead(int number)
{
	siginfo_t info = { 0 };

	ST_CHECK(waitid(P_PID, (id_t)pids[number], &info, WEXITED | WNOWAIT | WNOHANG) == 0);
	return info.si_pid != 0;
}

/* It dies where it is to, or, where it does not come by, anywhere. */
static void await_death(int number)
{
	uint64_t ops = atomic_load(&control->worker[number].ops);

	while (!is_dead(number)) {
		if (atomic_load(&control->worker[number].ops) > ops + PATIENCE / 10) {
			atomic_store(&control->worker[number].passes, 1);
			atomic_store(&control->worker[number].target, POINTS);
		}
		usleep(100);
	}
	reap(number);
}

/* All that live; what died on the way is dead. */
static void stand_still(unsigned workers)
{
	atomic_store(&control->stop, 1);
	for (unsigned i = 0; i < workers; i++) {
		while (pids[i] != 0 && atomic_load(&control->worker[i].rests) == 0) {
			if (is_dead((int)i))
				reap((int)i);
			else
				usleep(20);
		}
	}
}

static void arm(struct st_rng *rng, int number)
{
	bool recorded = st_below(rng, 4) == 0;
	int point;

	if (st_below(rng, 4) == 0) {
		atomic_store(&control->worker[number].timer, 1000 + (long)st_below(rng, 2000000));
		by_timer++;
		return;
	}
	atomic_store(&control->worker[number].passes, 1 + (int)st_below(rng, 4));
	do /* one of four with a record begun, or to be done */
		point = some_point(rng);
	while (recorded && strstr(__start_qy_points[point].file, "redo.c") == NULL);
	atomic_store(&control->worker[number].target, point);
}

/* One opens the heap that nobody has, and closes it as the last one, and dies in that: with what the dead left, and those who died in
 * cleaning up after them. */
static bool open_and_die(struct st_rng *rng)
{
	struct worker *w = &control->worker[WORKERS_MAX - 1];
	int status;
	pid_t pid;

	atomic_store(&w->passes, 1 + (int)(st_below(rng, 2) != 0 ? 0 : st_below(rng, 60)));
	atomic_store(&w->target, atomic_load(&w->passes) == 1 && st_below(rng, 4) != 0 ? some_point(rng) : POINTS);
	pid = fork();
	ST_CHECK(pid >= 0);
	if (pid == 0) {
		quarry_mapped *h;

		me = w;
		h = quarry_mapped_open(path);
		if (h == NULL)
			st_fail("open: %s", quarry_error_text());
		quarry_mapped_close(h);
		_exit(0);
	}
	ST_CHECK(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL : status != 0)
		st_fail("who opened it ended with %#x", status);
	kills += WIFSIGNALED(status);
	in_opening += WIFSIGNALED(status);
	return WIFSIGNALED(status);
}

static struct qy_os table;
static const struct qy_os *was;
static unsigned doomed; /* so many workers */
static uint64_t beside_collectors;

static int lock_and_let_die(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	if (doomed != 0 && at == QY_MAPPED_LOCK_OPEN && kind == QY_RANGE_WRITE) {
		for (unsigned i = 0; i < doomed; i++)
			kill(pids[i], SIGKILL);
		for (unsigned i = 0; i < doomed; i++)
			reap((int)i);
		memset(control->hand, 0, sizeof(control->hand));
		beside_collectors += doomed;
		doomed = 0;
	}
	return was->range_lock(fd, kind, at, len, wait);
}

/* All die, of whom the collector cannot have known anything before. Only what slots and names lead to is left. */
static void all_die_beside_a_collector(struct st_rng *rng, unsigned workers)
{
	quarry_mapped *h = quarry_mapped_open(path);

	ST_CHECK(h != NULL);
	usleep((useconds_t)st_below(rng, 2000));
	doomed = workers;
	table = *(was = qy_os);
	table.range_lock = lock_and_let_die;
	qy_os = &table;
	if (quarry_mapped_collect(h, no_trace, NULL) < 0)
		st_fail("collect: %s", quarry_error_text());
	qy_os = was;
	ST_CHECK(quarry_mapped_recover(h) == 0);
	quarry_mapped_close(h);
	atomic_store(&control->plain, 0);
	look(workers);
	for (unsigned i = 0; i < workers; i++)
		spawn(rng, (int)i);
}

static void all_die(struct st_rng *rng, unsigned workers)
{
	for (unsigned i = 0; i < workers; i++)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < workers; i++)
		reap((int)i);
	for (uint64_t n = 1 + st_below(rng, 6); n > 0; n--)
		(void)open_and_die(rng);
	look(workers);
	for (unsigned i = 0; i < workers; i++)
		spawn(rng, (int)i);
}

static void one_heap(struct st_rng *rng, unsigned workers)
{
	int status;

	begin_heap();
	atomic_store(&control->reader_ends, 0);
	reader = fork();
	ST_CHECK(reader >= 0);
	if (reader == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		st_watchdog_start(st.watchdog);
		look_on();
	}
	for (unsigned i = 0; i < workers; i++)
		spawn(rng, (int)i);
	for (unsigned r = 0; r < ROUNDS_OF_ONE && kills < st.ops; r++) {
		int a = (int)st_below(rng, workers), b = st_below(rng, 4) == 0 ? (int)st_below(rng, workers) : a;

		arm(rng, a);
		if (b != a)
			arm(rng, b);
		await_death(a);
		if (b != a)
			await_death(b);
		stand_still(workers);
		look(workers);
		atomic_store(&control->stop, 0);
		for (unsigned i = 0; i < workers; i++) {
			if (pids[i] == 0)
				spawn(rng, (int)i);
		}
		if (st_below(rng, 8) == 0) {
			usleep((useconds_t)st_below(rng, 2000));
			all_die(rng, workers);
		}
		if (st_below(rng, 16) == 0)
			all_die_beside_a_collector(rng, workers);
		atomic_fetch_add(&st.done, 1);
	}
	for (unsigned i = 0; i < workers; i++)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < workers; i++)
		reap((int)i);
	atomic_store(&control->reader_ends, 1);
	ST_CHECK(waitpid(reader, &status, 0) == reader && status == 0);
	look(workers);
	total_locks += locks;
	total_replays += replays;
	collect(workers);
}

/* What it is for has happened, and often enough. */
static bool is_enough(void)
{
	return total_locks >= (kills - beside_collectors) / 5 && total_replays >= (kills - beside_collectors) / 100 &&
	       by_timer >= kills / 20 && in_opening >= kills / 20 && atomic_load(&control->inherited) >= kills / 100 &&
	       atomic_load(&control->reads) > 0;
}

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR");
	unsigned never = 0;
	struct st_rng rng;

	st_begin(argc, argv, "mapped_kill", 400, 3);
	ST_CHECK(st.threads >= 2 && st.threads < WORKERS_MAX && points() <= POINTS);
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ST_CHECK(control != MAP_FAILED);
	snprintf(path, sizeof(path), "%s/quarry-mapped-kill-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : dir != NULL ? dir : "/tmp",
		 (int)getpid());
	rng = st_rng_for(0);
	for (uint64_t asked = st.ops; kills < st.ops; ) {
		one_heap(&rng, st.threads);
		if (kills >= st.ops && !is_enough() && st.ops < 3 * asked) /* (chance decides which ones come) */
			st.ops += asked / 4;
	}
	unlink(path);
	for (int i = 0; i < points(); i++) {
		const char *file = strrchr(__start_qy_points[i].file, '/');

		/* (No channels are at work here: tests/stress/channel, mapped_points. Nor walks, beside which nobody may change anything:
		 * tests/unit/test_channel_moments.) */
		never += atomic_load(&control->point[i].killed) == 0 && strstr(__start_qy_points[i].file, "channel") == NULL &&
			 strstr(__start_qy_points[i].file, "look.c") == NULL;
		if (getenv("QUARRY_POINTS") != NULL || (st.ops >= 5000 && atomic_load(&control->point[i].killed) == 0))
			printf("%s:%llu passed %llu, killed %llu\n", file != NULL ? file + 1 : __start_qy_points[i].file,
			       (unsigned long long)__start_qy_points[i].line, (unsigned long long)control->point[i].passed,
			       (unsigned long long)control->point[i].killed);
	}
	printf("mapped_kill: %llu kills at %d points (%u of them never), %llu by a timer, %llu in opening and closing; the heap's lock held in "
	       "%llu, a change finished in %llu; the program's in %llu; %llu beside a collector; %llu looks of readers, %llu to come again\n",
	       (unsigned long long)kills, points(), never, (unsigned long long)by_timer, (unsigned long long)in_opening,
	       (unsigned long long)total_locks, (unsigned long long)total_replays,
	       (unsigned long long)atomic_load(&control->inherited), (unsigned long long)beside_collectors, (unsigned long long)atomic_load(&control->reads),
	       (unsigned long long)atomic_load(&control->told_again));
	fflush(stdout);
	ST_CHECK(kills < 200 || is_enough());
	ST_CHECK(st.ops < 5000 || never == 0);
	return st_end(ST_SLACK, 0);
}
