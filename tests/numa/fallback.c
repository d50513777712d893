/* SPDX-License-Identifier: MIT */
/* Machines of many nodes where containers refuse what places memory, or hide the nodes: it works, memory is local by
 * first touch, what was refused is counted, nothing is printed. The refused process cannot ask the kernel, so that this
 * one asks about it: the process inside writes down what it allocated, in memory that both share. */
#include "tests/numa/suite.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define RECORDS 8192

/* What the process inside did. */
struct record {
	void *p;
	size_t size;
	int id; /* the node that it ran on */
};

struct inside {
	_Atomic(int) ready; /* 1: done; -1: failed, and here is why */
	char reason[200];
	int count, node_count, strict_errno;
	bool large_only; /* quarry sees one node: threads share pages of small objects, whatever node they run on */
	bool strict_got;
	uint64_t refused[QUARRY_REFUSED_COUNT], unplaced;
	struct machine machine; /* as it is; /sys may be hidden inside */
	struct record list[RECORDS];
};

static struct inside *inside;

enum { NOTHING_DENIED, DENY_ALL, DENY_MBIND, DENY_MOVE, DENY_RSEQ, HIDE_SYS };

/* ---- in the process inside ---- */

static void give_up(const char *what)
{
	snprintf(inside->reason, sizeof(inside->reason), "%s (errno %d, %s)", what, errno, strerror(errno));
	inside->ready = -1;
	_exit(1);
}

static void put(void *p, size_t size, int id)
{
	if (p == NULL)
		give_up("no memory");
	memset(p, 1, size);
	if (inside->count < RECORDS)
		inside->list[inside->count++] = (struct record){ p, size, id };
}

static void *per_node(void *arg)
{
	struct node *node = arg;
	uint64_t state = options.seed * 77 + (unsigned)node->id + 1;

	sched_setaffinity(0, sizeof(cpu_set_t), &node->cpus);
	for (int i = 0; i < 700; i++) {
		size_t size = random_size(i % 40 == 0 ? LARGE : SMALL, &state);

		if (inside->large_only && size < 32768)
			continue;
		put(quarry_malloc(size), size, node->id);
	}
	put(quarry_malloc(5 * MIB), 5 * MIB, node->id);
	return NULL;
}

static void bound(int id)
{
	quarry_nodeset set = one_node(id);
	quarry_arena *arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, &set);

	/* Without a list of nodes there is no node to bind to. */
	if (arena != NULL)
		put(quarry_arena_malloc(arena, MIB), MIB, -1);
	errno = 0;
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, QUARRY_ARENA_STRICT, &set);
	inside->strict_got = arena != NULL && quarry_arena_malloc(arena, MIB) != NULL;
	inside->strict_errno = errno;
}

static void __attribute__((noreturn)) live_inside(void)
{
	quarry_stats stats;

	for (int i = 0; i < inside->machine.homes; i++) {
		struct node *node = &inside->machine.node[inside->machine.home[i]];
		pthread_t thread;

		/* One after the other, so that each finds what the one before left. */
		if (pthread_create(&thread, NULL, per_node, node) != 0)
			give_up("no thread");
		pthread_join(thread, NULL);
	}
	bound(inside->machine.node[inside->machine.home[0]].id);
	stats = stats_of(NULL);
	memcpy(inside->refused, stats.refused, sizeof(stats.refused));
	inside->unplaced = stats.unplaced;
	inside->node_count = quarry_node_count();
	inside->ready = 1;
	for (;;)
		pause();
}

static bool refuse_calls(int what, int error)
{
	static const int all[] = { SYS_mbind, SYS_set_mempolicy, SYS_get_mempolicy, SYS_move_pages, SYS_migrate_pages,
				   450 /* set_mempolicy_home_node */ };
	static const int mbind[] = { SYS_mbind }, move[] = { SYS_move_pages };
	static const int rseq[] = { 334 /* rseq */, SYS_getcpu };

	switch (what) {
	case DENY_ALL:
		return deny(all, 6, error);
	case DENY_MBIND:
		return deny(mbind, 1, error);
	case DENY_MOVE:
		return deny(move, 1, error);
	case DENY_RSEQ:
		return deny(rseq, 2, error);
	case HIDE_SYS:
		return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		       mount("none", "/sys/devices/system", "tmpfs", 0, NULL) == 0;
	default:
		return true;
	}
}

/* ---- outside ---- */

static pid_t start_inside(int what, int error, int *messages)
{
	int memory = memfd_create("inside", 0), ends[2];
	pid_t pid;

	MUST(memory >= 0 && ftruncate(memory, sizeof(*inside)) == 0 && pipe(ends) == 0);
	inside = mmap(NULL, sizeof(*inside), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	MUST(inside != MAP_FAILED);
	inside->machine = machine;
	inside->large_only = what == HIDE_SYS;
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		char fd[16];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(fd, sizeof(fd), "%d", memory);
		dup2(ends[1], 2);
		close(ends[0]);
		/* Without a list of nodes all threads share what memory there is, huge pages too: each of those is
		 * where the first thread touched it. Base pages are each thread's own. */
		if (what == HIDE_SYS)
			setenv("QUARRY_OPTIONS", "pages=base", 1);
		if (!refuse_calls(what, error))
			give_up("it cannot be refused");
		execl("/proc/self/exe", "suite", "--helper", "inside", fd, "0", (char *)NULL);
		give_up("exec");
	}
	close(ends[1]);
	*messages = ends[0];
	return pid;
}

int inside_main(int fd)
{
	inside = mmap(NULL, sizeof(*inside), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (inside == MAP_FAILED)
		return 1;
	live_inside();
}

static void wait_for_inside(pid_t pid)
{
	while (inside->ready == 0) {
		int status;

		if (waitpid(pid, &status, WNOHANG) == pid && inside->ready == 0)
			fail("the process inside ended with status %x", status);
		pause_ms(5);
	}
	if (inside->ready < 0)
		fail("inside: %s", inside->reason);
}

/* What it wrote is there. (To read a page that is not in memory would bring it there: after the kernel was asked.) */
static void verify_contents(pid_t pid, const struct record *r)
{
	static unsigned char page[PAGE];

	for (size_t at = 0; at < r->size; at += sizeof(page)) {
		size_t len = r->size - at < sizeof(page) ? r->size - at : sizeof(page);
		struct iovec to = { page, len }, from = { (char *)r->p + at, len };

		MUST(process_vm_readv(pid, &to, 1, &from, 1, 0) == (ssize_t)len);
		for (size_t i = 0; i < len; i++)
			if (page[i] != 1)
				fail("an object of %zu bytes at %p has %d at %zu", r->size, r->p, page[i], at + i);
	}
}

/* Local by first touch, all of it. */
static void verify_inside(pid_t pid)
{
	for (int i = 0; i < inside->count; i++) {
		struct record *r = &inside->list[i];
		struct tally t = { 0 };
		quarry_nodeset set = r->id < 0 ? all_memory() : one_node(r->id);

		tally_add_of(pid, &t, r->p, r->size);
		verify_contents(pid, r);
		verify_tally(&t, &set, "what the process inside has");
	}
}

static void no_messages(int fd)
{
	char text[300];
	ssize_t n;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	n = read(fd, text, sizeof(text) - 1);
	if (n > 0) {
		text[n] = 0;
		text[strcspn(text, "\n")] = 0;
		fail("it was said on standard error, unasked: %s", text);
	}
}

/* Memory without a policy is sampled by the kernel for balancing, page by page made inaccessible until it is touched.
 * To move_pages(2) of Linux 6.1 to 6.3 such pages are not there; so nothing is sampled while it is asked. */
static void balance(const char *on)
{
	int fd = open("/proc/sys/kernel/numa_balancing", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		MUST(write(fd, on, 1) == 1);
		close(fd);
	}
}

static void run_denied(void)
{
	int what = this_test->a, error = this_test->b, messages, refusal;
	pid_t pid;

	need_nodes(2, 2);
	balance("0");
	pid = start_inside(what, error, &messages);
	wait_for_inside(pid);
	verify_inside(pid);
	no_messages(messages);
	refusal = error == EPERM ? QUARRY_REFUSED_MBIND_EPERM : QUARRY_REFUSED_MBIND_ENOSYS;
	if (what == DENY_ALL || what == DENY_MBIND) {
		if (inside->refused[refusal] == 0 || inside->unplaced == 0)
			fail("mbind(2) was refused, and the statistics say refused %llu, unplaced %llu bytes",
			     (unsigned long long)inside->refused[refusal], (unsigned long long)inside->unplaced);
		if (inside->strict_got)
			fail("mbind(2) was refused, and a strict arena was given");
		if (inside->strict_errno != error && inside->strict_errno != ENOMEM)
			fail("mbind(2) was refused, a strict arena says errno %d", inside->strict_errno);
	} else if (what == DENY_RSEQ && !inside->strict_got) {
		fail("a strict arena was not given (errno %d)", inside->strict_errno);
	}
	if (what == HIDE_SYS)
		note("/sys hidden: quarry says %d nodes", inside->node_count);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* The option numa=0: as if there were one node, and nothing is bound to it. */
static void run_one_node(void)
{
	unsigned long mask[IDS / 64];

	need_nodes(2, 2);
	if (quarry_node_count() != 1)
		fail("numa=0, and there are %d nodes", quarry_node_count());
	for (int i = 0; i < machine.homes; i++) {
		int id = machine.node[machine.home[i]].id;
		struct object o = { .size = 20 * MIB };
		struct objects small = { .state = seed_of((unsigned)i) };
		struct tally t = { 0 };
		quarry_nodeset set = one_node(id);

		pin_to_node(id);
		MUST((o.p = quarry_malloc(o.size)) != NULL);
		object_write(&o);
		verify_on_node(o.p, o.size, id, "numa=0, by first touch");
		if (policy_of(o.p, mask) != 0)
			fail("numa=0, and the kernel has policy %d for it", policy_of(o.p, mask));
		/* Fresh, so that nobody has touched it before. */
		MUST(objects_make(&small, LARGE, 8 * MIB, from_malloc, NULL));
		objects_tally(&small, &t);
		verify_tally(&t, &set, "numa=0, large, by first touch");
		free(small.list);
	}
}

void add_fallback(void)
{
	TEST("fallback", "nothing-denied", run_denied, .a = NOTHING_DENIED);
	TEST("fallback", "all-eperm", run_denied, .a = DENY_ALL, .b = EPERM);
	TEST("fallback", "all-enosys", run_denied, .a = DENY_ALL, .b = ENOSYS);
	TEST("fallback", "mbind-eperm", run_denied, .a = DENY_MBIND, .b = EPERM);
	TEST("fallback", "mbind-enosys", run_denied, .a = DENY_MBIND, .b = ENOSYS);
	TEST("fallback", "move-pages-eperm", run_denied, .a = DENY_MOVE, .b = EPERM);
	TEST("fallback", "no-rseq", run_denied, .a = DENY_RSEQ, .b = ENOSYS);
	TEST("fallback", "no-sys", run_denied, .a = HIDE_SYS);
	TEST("fallback", "numa-off", run_one_node, .options = "numa=0,pages=base");
}
