/* SPDX-License-Identifier: MIT */
/* What the fuzz programs of heaps in files have in common: numbers, one input after another, and use of a heap that may be anything.
 *
 * Without QUARRY_FUZZ (libFuzzer) each is a program of its own: PROGRAM [INPUTS [SEED [FIRST]]]. Input N of a seed is the same whatever came
 * before it: where it ends badly its number is told, and PROGRAM 1 SEED N is that one alone. (Nothing that counts is left of the one before;
 * what there may be in free memory is gone after each 64.) */
#ifndef QUARRY_FUZZ_MAPPED_H
#define QUARRY_FUZZ_MAPPED_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/mapped/mapped.h"

#define FUZZ_KINDS 8
#define FUZZ_HANG 60 /* seconds of a few inputs: then one is endless */

static const char *fuzz_name;
static struct {
	const char *name;
	unsigned long opened, refused;
} fuzz_kind[FUZZ_KINDS];
static unsigned long long fuzz_seed, fuzz_input;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

/* Files that an input is put into: in memory where that can be. They have names, since memory without one is sealed when it is opened. */
static char fuzz_path[4][128];

__attribute__((unused)) static int fuzz_file(unsigned i)
{
	const char *directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";

	snprintf(fuzz_path[i], sizeof(fuzz_path[i]), "%s/quarry-fuzz-%d-%u", directory, (int)getpid(), i);
	return open(fuzz_path[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static void fuzz_end(void)
{
	for (unsigned i = 0; i < 4; i++) {
		if (fuzz_path[i][0] != 0)
			unlink(fuzz_path[i]);
	}
}

static void fuzz_say_input(void)
{
	fuzz_end();
	fprintf(stderr, "%s: it was input %llu: %s 1 %llu %llu\n", fuzz_name, fuzz_input, fuzz_name, fuzz_seed, fuzz_input);
}

static void must(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s: %s (errno %d: %s)\n", fuzz_name, what, errno, quarry_error_text());
	abort();
}

/* ---- numbers ---- */

static uint64_t fuzz_state;

static uint64_t next(void)
{
	uint64_t x = fuzz_state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* What stands of an input: a few bytes that say how, and changes of 12 bytes each. */
#define FUZZ_HEAD 4
struct change {
	uint8_t place, width;
	uint16_t which;
	uint64_t value;
};

static struct change change_at(const uint8_t *data)
{
	struct change c = { .place = data[0], .width = data[1] };

	memcpy(&c.which, data + 2, 2);
	memcpy(&c.value, data + 4, 8);
	return c;
}

/* A word that stands there already, changed: another one, a bit, one near it, a small one, or of one of the kinds that mean something
 * in a file. `known` are some. */
static uint64_t bent(const struct change *c, uint64_t was, const uint64_t *known, unsigned count)
{
	switch (c->width / 4 % 8) {
	case 1: return was ^ (uint64_t)1 << c->value % 64;
	case 2: return was + (uint64_t)(int64_t)(int8_t)c->value;
	case 3: return c->value % 64;
	case 4: return known[c->value % count] + (uint64_t)(int64_t)((int8_t)(c->value >> 32) / 16);
	case 5: return ((uint64_t)1 << c->value % 64) - (c->value >> 32 & 1);
	case 6: return was + (uint64_t)(int64_t)(int8_t)c->value * 65536;
	case 7: return 0;
	default: return c->value;
	}
}

/* ---- use ---- */

enum fuzz_use { FUZZ_GROW = 1, FUZZ_DUMP = 2, FUZZ_TWICE = 4, FUZZ_MANY = 8, FUZZ_COLLECT = 16, FUZZ_SHRINK = 32, FUZZ_WHERE = 64 };

struct fuzz_seen {
	quarry_mapped *heap;
	unsigned count;
	void *p[64];
};

static int fuzz_see(void *seen, void *p, size_t usable)
{
	struct fuzz_seen *s = seen;

	must(quarry_mapped_ptr(s->heap, quarry_mapped_off(s->heap, p), usable) == p, "what is walked is memory");
	(void)*((volatile char *)p + usable - 1);
	(void)*(volatile char *)p;
	if (s->count < 64)
		s->p[s->count++] = p;
	return 0;
}

static int fuzz_see_root(void *heap, const char *name, quarry_off off, uint32_t tag)
{
	char *p = quarry_mapped_ptr(heap, off, 8);

	(void)tag;
	must(strlen(name) <= QUARRY_MAPPED_NAME, "a name ends");
	if (p != NULL)
		(void)*(volatile char *)p;
	return 0;
}

static int fuzz_sink(void *sum, const void *bytes, size_t n)
{
	*(uint64_t *)sum += n != 0 ? *(const uint8_t *)bytes + ((const uint8_t *)bytes)[n - 1] : 0;
	return 0;
}

static void fuzz_trace(void *heap, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	(void)heap;
	if (tag == 1 && usable >= sizeof(quarry_off))
		quarry_mapped_mark(marks, *(quarry_off *)p, 1);
}

/* All that only looks. */
static void fuzz_look(quarry_mapped *h, struct fuzz_seen *seen, unsigned how)
{
	quarry_mapped_report report;
	quarry_mapped_info info;
	uint64_t sum = 0;

	*seen = (struct fuzz_seen){ .heap = h };
	must(quarry_mapped_info_get(h, &info, sizeof(info)) == 0, "info");
	(void)quarry_mapped_root_list(h, fuzz_see_root, h);
	(void)quarry_mapped_root_get(h, "list", NULL);
	(void)quarry_mapped_walk(h, fuzz_see, seen);
	if (how & FUZZ_DUMP)
		(void)quarry_mapped_dump(h, fuzz_sink, &sum);
	if (info.read_only)
		(void)quarry_mapped_check(h, &report, sizeof(report));
	if (how & FUZZ_WHERE) {
		quarry_page_info pages[4];

		(void)quarry_mapped_where(h, h->base + 4096, 16384, pages, 4);
	}
}

/* A set of changes, and a lock of the program's, in the user area. */
static void fuzz_set(quarry_mapped *h, quarry_off *slots)
{
	quarry_mapped_set set;

	if (quarry_mapped_begin(h, &set) == 0) {
		void *p = quarry_mapped_reserve(&set, 100);

		(void)quarry_mapped_reserve(&set, 100000);
		(void)quarry_mapped_link(&set, &slots[20], slots[20], quarry_mapped_off(h, p));
		(void)quarry_mapped_publish(&set);
	}
	if (quarry_mapped_begin(h, &set) == 0) {
		(void)quarry_mapped_reserve(&set, 48);
		quarry_mapped_cancel(&set);
	}
}

static void fuzz_use(quarry_mapped *h, unsigned how)
{
	quarry_off *slots = quarry_mapped_user(h, NULL);
	struct fuzz_seen seen;
	quarry_mapped_report report;
	size_t user;

	(void)quarry_mapped_user(h, &user);
	fuzz_look(h, &seen, how);
	for (unsigned i = 0; i < (how & FUZZ_MANY ? 40 : 8); i++) {
		char *p = quarry_mapped_alloc(h, 16 + i * 97 % 1200);

		if (p != NULL)
			memset(p, 0xff, 16);
	}
	for (unsigned i = 0; i < seen.count; i += 2)
		(void)quarry_mapped_free(h, seen.p[i]);
	for (unsigned i = 1; i < seen.count; i += 16)
		(void)quarry_mapped_resize(h, seen.p[i], 1 + i * 200);
	if (user >= 256) {
		for (unsigned i = 0; i < 210 && i < user / sizeof(*slots); i += 7)
			(void)quarry_mapped_free_from(h, &slots[i]);
		(void)quarry_mapped_alloc_into(h, 70, &slots[5]);
		fuzz_set(h, slots);
	}
	(void)quarry_mapped_root_put(h, "another", 5, 0);
	(void)quarry_mapped_root_remove(h, "list");
	if (how & FUZZ_GROW)
		(void)quarry_mapped_alloc(h, 9 << 20);
	(void)quarry_mapped_check(h, &report, sizeof(report));
	if (how & FUZZ_COLLECT)
		(void)quarry_mapped_collect(h, fuzz_trace, h);
	if (how & FUZZ_SHRINK)
		(void)quarry_mapped_shrink(h);
	else
		(void)quarry_mapped_trim(h);
	(void)quarry_mapped_check(h, &report, sizeof(report));
}

/* Whether it was opened; what is refused has an error, and a text. */
static int fuzz_count(unsigned kind, const quarry_mapped *h)
{
	if (h != NULL) {
		fuzz_kind[kind].opened++;
		return 1;
	}
	must(errno != 0 && quarry_error_text()[0] != 0, "what is refused is told why");
	fuzz_kind[kind].refused++;
	return 0;
}

/* ---- inputs ---- */

#ifndef QUARRY_FUZZ
#define FUZZ_CHANGES 9

static void fuzz_alarm(int sig)
{
	static const char text[] = "an input does not end\n";

	(void)sig;
	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	fuzz_say_input();
	abort();
}

static void fuzz_abort(int sig)
{
	fuzz_say_input();
	(void)signal(sig, SIG_DFL);
	raise(sig);
}

static volatile sig_atomic_t fuzz_over;

static void fuzz_stop(int sig)
{
	(void)sig;
	fuzz_over = 1;
}

static void fuzz_totals(void)
{
	unsigned long opened = 0, refused = 0;

	for (unsigned k = 0; k < FUZZ_KINDS; k++) {
		if (fuzz_kind[k].name != NULL)
			printf("%s: %s: %lu opened, %lu refused\n", fuzz_name, fuzz_kind[k].name, fuzz_kind[k].opened, fuzz_kind[k].refused);
		opened += fuzz_kind[k].opened;
		refused += fuzz_kind[k].refused;
	}
	printf("%s: %lu opened, %lu refused\n", fuzz_name, opened, refused);
	fflush(stdout);
}

static double fuzz_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fuzz_lowest_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	return fd;
}

static int fuzz_main(int argc, char **argv, const char *name, unsigned long inputs)
{
	unsigned long long first = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;
	uint8_t data[FUZZ_HEAD + 12 * FUZZ_CHANGES + 8];
	unsigned long opened = 0, refused = 0;
	double slowest = 0, was = fuzz_now(), now;
	unsigned long long slow = 0;
	int fd = -1;

	fuzz_name = name;
	inputs = argc > 1 ? strtoul(argv[1], NULL, 0) : inputs;
	fuzz_seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	printf("%s: %lu inputs from %llu, seed %llu\n", name, inputs, first, fuzz_seed);
	fflush(stdout);
	atexit(fuzz_end);
	if (__sanitizer_set_death_callback != NULL) {
		__sanitizer_set_death_callback(fuzz_say_input);
	} else {
		signal(SIGSEGV, fuzz_abort);
		signal(SIGBUS, fuzz_abort);
	}
	signal(SIGABRT, fuzz_abort);
	signal(SIGALRM, fuzz_alarm);
	signal(SIGINT, fuzz_stop);
	for (fuzz_input = first; fuzz_input < first + inputs && !fuzz_over; fuzz_input++, was = now) {
		size_t n;

		fuzz_state = fuzz_seed * 0x9e3779b97f4a7c15u ^ fuzz_input * 0xd1342543de82ef95u;
		n = FUZZ_HEAD + 12 * (1 + (next() % 2 != 0 ? next() % FUZZ_CHANGES : next() % 2));
		for (size_t k = 0; k < n; k += 8) {
			uint64_t word = next();

			memcpy(data + k, &word, 8);
		}
		if (fuzz_input % 64 == 0)
			alarm(FUZZ_HANG);
		(void)LLVMFuzzerTestOneInput(data, n);
		if (fd < 0)
			fd = fuzz_lowest_fd();
		if (fuzz_input % 4096 == 0)
			must(fuzz_lowest_fd() == fd, "descriptors are closed");
		now = fuzz_now();
		if (now - was > slowest && fuzz_input != first) {
			slowest = now - was;
			slow = fuzz_input;
		}
		if ((fuzz_input + 1 - first) % 100000 == 0) {
			printf("%s: %llu; the slowest was %llu, %.0f ms\n", name, fuzz_input + 1 - first, slow, slowest * 1000);
			fuzz_totals();
		}
	}
	alarm(0);
	must(fuzz_lowest_fd() == fd, "descriptors are closed");
	fuzz_totals();
	for (unsigned k = 0; k < FUZZ_KINDS; k++) {
		opened += fuzz_kind[k].opened;
		refused += fuzz_kind[k].refused;
	}
	return inputs > 100 && (opened == 0 || refused == 0);
}
#endif

#endif
