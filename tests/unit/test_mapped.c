/* SPDX-License-Identifier: MIT */
/* Heaps in files: against a plain model, opened again, shared, and of files that are no heaps. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/mapped.h"
#include "tests/fake_os.h"
#include "tests/unit/model.h"

#define MIB ((size_t)1 << 20)

static char path[256];

static const char *place(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/quarry-mapped-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	return path;
}

static void leave(void)
{
	unlink(path);
}

static quarry_mapped *new_heap(uint64_t max)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = max };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static quarry_mapped_report checked(quarry_mapped *h)
{
	quarry_mapped_report report;

	cr_assert_eq(quarry_mapped_check(h, &report, sizeof(report)), 0, "%s", report.first);
	cr_assert_eq(report.wrong, 0);
	return report;
}

/* In a process of its own: 0 where it is well. */
static int in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		fn();
		_exit(0);
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

TestSuite(mapped, .fini = leave, .timeout = 120);

/* ---- allocating ---- */

struct object {
	unsigned char *p;
	size_t n;
	unsigned char value;
};

static void whole(const struct object *o)
{
	for (size_t i = 0; i < o->n; i += o->n / 7 + 1)
		cr_assert_eq(o->p[i], o->value);
	cr_assert_eq(o->p[o->n - 1], o->value);
}

static size_t some_size(void)
{
	unsigned r = model_below(100);

	return r < 80 ? 1 + model_below(600) : r < 95 ? 1 + model_below(40000) : r < 99 ? 1 + model_below(600000) : 1 + model_below(40 * 1000000);
}

/* What is got stays as it was written, does not overlap, and is counted. */
Test(mapped, model)
{
	enum { MOST = 600, STEPS = 60000 };
	static struct object o[MOST];
	quarry_mapped *h = new_heap(0);
	quarry_mapped_report report;
	unsigned live = 0;

	model_start("mapped: model");
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = model_below(MOST);

		if (o[i].p == NULL) {
			size_t alignment = (size_t)1 << model_below(17);

			o[i].n = some_size();
			o[i].value = (unsigned char)model_random();
			if (model_below(4) != 0)
				alignment = 16;
			o[i].p = alignment == 16 ? quarry_mapped_alloc(h, o[i].n) : quarry_mapped_alloc_aligned(h, alignment, o[i].n);
			cr_assert(o[i].p != NULL, "%zu: %s", o[i].n, quarry_error_text());
			cr_assert((uintptr_t)o[i].p % alignment == 0 && quarry_mapped_usable(h, o[i].p) >= o[i].n);
			memset(o[i].p, o[i].value, o[i].n);
			live++;
		} else if (model_below(5) == 0) {
			size_t n = some_size(), kept = n < o[i].n ? n : o[i].n;

			whole(&o[i]);
			o[i].p = quarry_mapped_resize(h, o[i].p, n);
			cr_assert(o[i].p != NULL && o[i].p[0] == o[i].value && o[i].p[kept - 1] == o[i].value);
			o[i].n = n;
			memset(o[i].p, o[i].value, n);
		} else {
			whole(&o[i]);
			cr_assert_eq(quarry_mapped_free(h, o[i].p), 0);
			if (model_below(50) == 0) {
				cr_assert(quarry_mapped_free(h, o[i].p) == -1 && errno == EINVAL);
				cr_assert_eq(quarry_mapped_usable(h, o[i].p), 0);
			}
			o[i].p = NULL;
			live--;
		}
		if (step % 5000 == 0)
			cr_assert_eq(checked(h).objects, live);
	}
	for (unsigned i = 0; i < MOST; i++) {
		if (o[i].p != NULL) {
			whole(&o[i]);
			cr_assert_eq(quarry_mapped_free(h, o[i].p), 0);
		}
	}
	report = checked(h);
	cr_assert(report.objects == 0 && report.bytes == 0 && report.blocks == 0);
	cr_assert_gt(quarry_mapped_trim(h), 0);
	cr_assert_eq(checked(h).slabs, 0);
	cr_assert_eq(quarry_mapped_close(h), 0);
}

Test(mapped, every_size_has_the_smallest_class_that_holds_it)
{
	quarry_mapped *h = new_heap(64 * MIB);
	size_t before = 0;

	for (size_t n = 1; n <= QY_MAPPED_SMALL; n++) {
		uint32_t c = qy_mapped_class_of(n);

		cr_assert(c < QY_MAPPED_CLASSES && qy_mapped_classes[c].size >= n && (c == 0 || qy_mapped_classes[c - 1].size < n));
		before += n == qy_mapped_classes[c].size;
	}
	cr_assert_eq(before, QY_MAPPED_CLASSES);
	quarry_mapped_close(h);
}

Test(mapped, pointers_that_are_none_are_told)
{
	quarry_mapped *h = new_heap(64 * MIB);
	char *p = quarry_mapped_alloc(h, 100), *q = quarry_mapped_alloc(h, 100000), here;

	cr_assert(quarry_mapped_free(h, p + 16) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_free(h, q + 65536) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_free(h, &here) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_free(h, h->base) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_free(h, h->base + h->length - 16) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_free(h, qy_heap(h)->segs) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_free(h, NULL) == 0 && quarry_mapped_free(h, q) == 0);
	cr_assert(quarry_mapped_free(h, q) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_ptr(h, quarry_mapped_off(h, p) + 50, 10) == p + 50);
	cr_assert(quarry_mapped_ptr(h, quarry_mapped_off(h, q), 1) == NULL && errno == ERANGE);
	cr_assert(quarry_mapped_ptr(h, 8192, 8) == NULL && quarry_mapped_ptr(h, UINT64_MAX - 7, 8) == NULL);
	cr_assert(quarry_mapped_ptr(h, quarry_mapped_off(h, p), SIZE_MAX) == NULL);
	cr_assert(quarry_mapped_alloc_aligned(h, 3, 8) == NULL && errno == EINVAL);
	cr_assert(quarry_mapped_alloc(h, 100 * MIB) == NULL && errno == ENOMEM);
	cr_assert(quarry_mapped_alloc(h, PTRDIFF_MAX) == NULL && errno == ENOMEM);
	quarry_mapped_close(h);
}

Test(mapped, full_and_then_not)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_off list = 0;
	unsigned n = 0;
	void *p;

	for (; (p = quarry_mapped_alloc(h, 20000)) != NULL; n++) {
		*(quarry_off *)p = list;
		list = quarry_mapped_off(h, p);
	}
	cr_assert(errno == ENOMEM && n > 2500, "%u", n);
	for (unsigned i = 0; i < n; i++) {
		p = quarry_mapped_at(h, list);
		list = *(quarry_off *)p;
		cr_assert_eq(quarry_mapped_free(h, p), 0);
	}
	cr_assert_eq(checked(h).objects, 0);
	quarry_mapped_trim(h);
	cr_assert_not_null(quarry_mapped_alloc(h, 20 * MIB));
	quarry_mapped_close(h);
}

/* Of more than a segment, of which what is left of one that is gone is used again. */
Test(mapped, blocks_of_many_segments)
{
	quarry_mapped *h = new_heap(1024 * MIB);
	char *a = quarry_mapped_alloc(h, 100 * MIB), *b = quarry_mapped_alloc(h, 40 * MIB), *c, *d;

	cr_assert(a != NULL && b != NULL && quarry_mapped_usable(h, a) == 100 * MIB);
	a[100 * MIB - 1] = 1;
	cr_assert_eq(quarry_mapped_usable(h, a + 32 * MIB), 0);
	cr_assert(quarry_mapped_free(h, a + 32 * MIB) == -1 && quarry_mapped_free(h, a) == 0);
	c = quarry_mapped_alloc(h, 33 * MIB);
	d = quarry_mapped_alloc(h, 50 * MIB);
	cr_assert(c == a && d == a + 64 * MIB);
	cr_assert(quarry_mapped_free(h, c) == 0 && quarry_mapped_free(h, d) == 0);
	c = quarry_mapped_alloc(h, 128 * MIB);
	cr_assert_eq(c, a);
	cr_assert_eq(checked(h).objects, 2);
	memset(b, 1, 40 * MIB);
	quarry_mapped_close(h);
	h = quarry_mapped_open(path);
	cr_assert_not_null(h, "%s", quarry_error_text());
	cr_assert_eq(checked(h).blocks, 2);
	quarry_mapped_close(h);
}

static void *other_thread(void *heap)
{
	for (unsigned i = 0; i < 1000; i++) {
		quarry_off *slot = quarry_mapped_root_slot(heap, "from");

		cr_assert_not_null(quarry_mapped_alloc(heap, 64));
		if (i == 0)
			cr_assert_eq(quarry_mapped_free(heap, quarry_mapped_at(heap, *slot)), 0);
	}
	return NULL;
}

/* A lane of a thread that has ended is another's, with what it has. */
Test(mapped, lanes_are_inherited)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_mapped_info info;
	pthread_t t;

	cr_assert_eq(quarry_mapped_root_put(h, "from", quarry_mapped_off(h, quarry_mapped_alloc(h, 64)), 0), 0);
	pthread_create(&t, NULL, other_thread, h);
	pthread_join(t, NULL);
	cr_assert_eq(checked(h).objects, 1000);
	cr_assert_eq(quarry_mapped_root_put(h, "from", quarry_mapped_off(h, quarry_mapped_alloc(h, 64)), 0), 0);
	pthread_create(&t, NULL, other_thread, h);
	pthread_join(t, NULL);
	cr_assert_eq(checked(h).objects, 2000);
	cr_assert_eq(quarry_mapped_info_get(h, &info, sizeof(info)), 0);
	cr_assert(info.lanes == 1 && info.lanes_idle == 1);
	for (unsigned i = 0; i < 20000; i++)
		cr_assert_not_null(quarry_mapped_alloc(h, 64));
	cr_assert_eq(checked(h).objects, 22000);
	quarry_mapped_close(h);
}

Test(mapped, as_a_manager)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_manager *m = quarry_mapped_manager(h);
	quarry_block b = quarry_block_alloc(m, 1000);
	quarry_manager_stats stats;

	cr_assert(b.p != NULL && quarry_manager_owns(m, b.p) == 1);
	cr_assert_eq(checked(h).objects, 1);
	cr_assert(quarry_manager_stats_get(m, &stats) == 0 && stats.in_use > 0 && stats.held >= stats.in_use);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(checked(h).objects, 0);
	cr_assert(quarry_manager_clear(m) == -1 && errno == ENOTSUP);
	cr_assert_eq(quarry_manager_destroy(m), 0);
}

/* ---- again, and elsewhere ---- */

struct node {
	quarry_rel next;
	uint64_t value;
};

static uint64_t sum(quarry_mapped *h)
{
	uint64_t total = 0;

	for (struct node *n = quarry_mapped_at(h, quarry_mapped_root_get(h, "list", NULL)); n != NULL; n = quarry_rel_get(&n->next))
		total += n->value;
	return total;
}

static void make_list(quarry_mapped *h, unsigned count)
{
	struct node *first = NULL;

	for (unsigned i = 1; i <= count; i++) {
		struct node *n = quarry_mapped_alloc(h, sizeof(*n));

		cr_assert_not_null(n);
		n->value = i;
		quarry_rel_set(&n->next, first);
		first = n;
	}
	cr_assert_eq(quarry_mapped_root_put(h, "list", quarry_mapped_off(h, first), 7), 0);
}

Test(mapped, opened_again_at_another_address)
{
	quarry_mapped *h = new_heap(256 * MIB), *second;
	uint32_t tag;
	struct stat is;

	make_list(h, 100000);
	strcpy(quarry_mapped_user(h, NULL), "mine");
	cr_assert(stat(path, &is) == 0 && (is.st_mode & 0777) == 0600);
	second = quarry_mapped_open(path);
	cr_assert(second != NULL && second->base != h->base && sum(second) == 5000050000);
	quarry_mapped_close(h);
	quarry_mapped_close(second);
	h = quarry_mapped_open(path);
	cr_assert(h != NULL && sum(h) == 5000050000 && strcmp(quarry_mapped_user(h, NULL), "mine") == 0);
	cr_assert(quarry_mapped_root_get(h, "list", &tag) != 0 && tag == 7);
	cr_assert_eq(checked(h).objects, 100000);
	quarry_mapped_close(h);
	cr_assert(quarry_mapped_delete(path) == 0 && access(path, F_OK) != 0);
}

Test(mapped, open_to_be_read)
{
	quarry_mapped *h = new_heap(256 * MIB), *r;
	quarry_mapped_report report;
	void *p = quarry_mapped_alloc(h, 10);

	make_list(h, 1000);
	r = quarry_mapped_open_read(path);
	cr_assert(r != NULL && sum(r) == 500500);
	cr_assert(quarry_mapped_alloc(r, 10) == NULL && errno == EROFS);
	cr_assert(quarry_mapped_free(r, r->base + ((char *)p - h->base)) == -1 && errno == EROFS);
	cr_assert(quarry_mapped_root_put(r, "x", 0, 0) == -1 && errno == EROFS);
	cr_assert(quarry_mapped_check(r, &report, sizeof(report)) == 0 && report.objects == 1001);
	make_list(h, 200000); /* it grows meanwhile */
	cr_assert_eq(sum(r), 20000100000);
	quarry_mapped_close(r);
	quarry_mapped_close(h);
}

static quarry_mapped *shared;
static int shared_fd;

static void attach_and_add(void)
{
	quarry_mapped *h = quarry_mapped_attach(shared_fd);

	if (h == NULL || h->base == shared->base || sum(h) != 500500)
		_exit(1);
	make_list(h, 50000);
	quarry_mapped_close(h);
}

Test(mapped, volatile_by_descriptor)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE };

	shared = quarry_mapped_create(NULL, &attr);
	cr_assert(shared != NULL, "%s", quarry_error_text());
	shared_fd = quarry_mapped_fd(shared);
	cr_assert(ftruncate(shared_fd, 4096) == -1 && errno == EPERM);
	make_list(shared, 1000);
	cr_assert_eq(in_child(attach_and_add), 0);
	cr_assert(sum(shared) == 1250025000 && checked(shared).objects == 51000);
	quarry_mapped_close(shared);
}

static void use_in_child(void)
{
	for (unsigned i = 0; i < 10000; i++) {
		if (quarry_mapped_alloc(shared, 48) == NULL)
			_exit(1);
	}
}

static void killed_in_child(void)
{
	use_in_child();
	raise(SIGKILL);
}

/* A child has a session of its own, and what it had is others' when it is killed. */
Test(mapped, forked_children)
{
	quarry_mapped_info info;

	shared = new_heap(256 * MIB);
	use_in_child();
	cr_assert_eq(in_child(use_in_child), 0);
	cr_assert(WIFSIGNALED(in_child(killed_in_child)));
	use_in_child();
	cr_assert_geq(quarry_mapped_recover(shared), 0); /* (or growing has done it) */
	cr_assert_eq(quarry_mapped_info_get(shared, &info, sizeof(info)), 0);
	cr_assert(info.recovered == 2 && info.sessions == 1);
	cr_assert_eq(checked(shared).objects, 40000);
	quarry_mapped_close(shared);
}

static void has_it_open(int told, int waits)
{
	quarry_mapped_info info;
	char c;

	quarry_mapped_info_get(shared, &info, sizeof(info));
	c = (char)info.sessions;
	if (write(told, &c, 1) != 1 || read(waits, &c, 1) < 0)
		_exit(1);
	_exit(0);
}

/* What a child inherited does not keep its parent's session alive. */
Test(mapped, a_child_does_not_hold_its_parents_session)
{
	quarry_mapped_info info;
	int told[2], waits[2], status;
	pid_t parent;
	char c = 0;

	quarry_mapped_close(new_heap(64 * MIB));
	cr_assert(pipe(told) == 0 && pipe(waits) == 0);
	parent = fork();
	if (parent == 0) {
		close(waits[1]);
		shared = quarry_mapped_open(path);
		if (fork() == 0)
			has_it_open(told[1], waits[0]);
		pause();
	}
	close(waits[0]);
	cr_assert(read(told[0], &c, 1) == 1 && c == 2);
	kill(parent, SIGKILL);
	cr_assert(waitpid(parent, &status, 0) == parent && WIFSIGNALED(status));
	shared = quarry_mapped_open(path);
	cr_assert_eq(quarry_mapped_info_get(shared, &info, sizeof(info)), 0);
	cr_assert(info.sessions == 2 && info.recovered == 1, "%u %lu", info.sessions, (unsigned long)info.recovered);
	close(waits[1]);
	quarry_mapped_close(shared);
}

Test(mapped, the_file_shrinks_if_asked)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_MAPPED_SHRINK };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);
	void *p = quarry_mapped_alloc(h, 90 * MIB), *q = quarry_mapped_alloc(h, 10 * MIB);
	struct stat was, is;

	quarry_mapped_free(h, p);
	quarry_mapped_free(h, q);
	cr_assert_not_null(quarry_mapped_alloc(h, 10));
	cr_assert_eq(stat(path, &was), 0);
	quarry_mapped_close(h);
	cr_assert_eq(stat(path, &is), 0);
	h = quarry_mapped_open(path);
	cr_assert(h != NULL && checked(h).objects == 1 && is.st_size + (off_t)(9 * MIB) < was.st_size);
	quarry_mapped_close(h);
}

/* ---- names ---- */

static int count_roots(void *n, const char *name, quarry_off off, uint32_t tag)
{
	cr_assert(atoi(name + 5) == (int)off && tag == off % 7);
	++*(unsigned *)n;
	return 0;
}

Test(mapped, roots)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .roots = 100 };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);
	char name[80], longest[66];
	bool there[300] = { false };
	unsigned live = 0, n = 0;

	model_start("mapped: roots");
	for (unsigned step = 0; step < 20000; step++) {
		unsigned i = model_below(300);

		snprintf(name, sizeof(name), "root %u", i);
		if (there[i] && model_below(2) != 0) {
			cr_assert(quarry_mapped_root_add(h, name, i + 1, 0) == -1 && errno == EEXIST);
		} else if (model_below(2) != 0) {
			int rc = (there[i] ? quarry_mapped_root_put : quarry_mapped_root_add)(h, name, i, i % 7);

			cr_assert(there[i] || live < 100 ? rc == 0 : rc == -1 && errno == ENOSPC);
			live += rc == 0 && !there[i];
			there[i] |= rc == 0;
		} else {
			cr_assert_eq(quarry_mapped_root_remove(h, name), there[i] ? 0 : -1);
			live -= there[i];
			there[i] = false;
		}
		i = model_below(300);
		snprintf(name, sizeof(name), "root %u", i);
		cr_assert_eq(quarry_mapped_root_get(h, name, NULL), there[i] ? i : 0);
	}
	cr_assert(quarry_mapped_root_list(h, count_roots, &n) == 0 && n == live);
	memset(longest, 'x', 65);
	longest[65] = 0;
	cr_assert(quarry_mapped_root_put(h, longest, 1, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_root_put(h, "", 1, 0) == -1 && errno == EINVAL);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "root %u", i);
		(void)quarry_mapped_root_remove(h, name);
	}
	longest[64] = 0;
	cr_assert(quarry_mapped_root_put(h, longest, 9, 0) == 0 && quarry_mapped_root_get(h, longest, NULL) == 9);
	quarry_mapped_close(h);
}

/* ---- all or nothing ---- */

Test(mapped, linked_as_one)
{
	quarry_mapped *h = new_heap(256 * MIB);
	quarry_off *slots = quarry_mapped_user(h, NULL);
	char *p;

	for (unsigned i = 0; i < 600; i++) {
		size_t n = i % 50 == 49 ? 200000 : 1 + i % 200 * 13;

		if (i >= 200)
			cr_assert_eq(quarry_mapped_free_from(h, &slots[i % 200]), 0);

		p = quarry_mapped_alloc_into(h, n, &slots[i % 200]);
		cr_assert(p != NULL && quarry_mapped_at(h, slots[i % 200]) == p);
		for (size_t k = 0; k < n; k++)
			cr_assert_eq(p[k], 0);
		memset(p, 1, n);
	}
	cr_assert(quarry_mapped_alloc_into(h, 8, &slots[0]) == NULL && errno == EEXIST);
	cr_assert(quarry_mapped_alloc_into(h, 100000, &slots[0]) == NULL && errno == EEXIST);
	cr_assert(quarry_mapped_alloc_into(h, 8, (quarry_off *)(void *)((char *)slots + 4)) == NULL && errno == EINVAL);
	cr_assert(quarry_mapped_alloc_into(h, 8, (quarry_off *)(void *)h->base) == NULL && errno == EINVAL);
	cr_assert_eq(checked(h).objects, 200);
	for (unsigned i = 0; i < 200; i++)
		cr_assert(quarry_mapped_free_from(h, &slots[i]) == 0 && slots[i] == 0);
	cr_assert_eq(quarry_mapped_free_from(h, &slots[0]), 0);
	cr_assert(checked(h).objects == 0 && checked(h).reserved == 0);
	slots[0] = 12345;
	cr_assert(quarry_mapped_free_from(h, &slots[0]) == -1 && errno == EINVAL && slots[0] == 12345);
	slots[0] = 0;
	cr_assert_eq(quarry_mapped_root_put(h, "r", 0, 0), 0);
	cr_assert_not_null(quarry_mapped_alloc_into(h, 100, quarry_mapped_root_slot(h, "r")));
	cr_assert_neq(quarry_mapped_root_get(h, "r", NULL), 0);
	quarry_mapped_close(h);
}

Test(mapped, sets)
{
	quarry_mapped *h = new_heap(256 * MIB);
	quarry_off *slots = quarry_mapped_user(h, NULL), was;
	quarry_mapped_set set, second;
	void *a, *b;

	cr_assert_eq(quarry_mapped_begin(h, &set), 0);
	cr_assert(quarry_mapped_begin(h, &second) == -1 && errno == EBUSY);
	a = quarry_mapped_reserve(&set, 100);
	b = quarry_mapped_reserve(&set, 100000);
	cr_assert(a != NULL && b != NULL && checked(h).reserved == 2);
	cr_assert_eq(quarry_mapped_link(&set, &slots[0], 0, quarry_mapped_off(h, a)), 0);
	cr_assert_eq(quarry_mapped_link(&set, &slots[1], 0, quarry_mapped_off(h, b)), 0);
	cr_assert_eq(slots[0], 0);
	cr_assert_eq(quarry_mapped_publish(&set), 0);
	cr_assert(slots[0] != 0 && slots[1] != 0 && checked(h).reserved == 0 && checked(h).objects == 2);
	cr_assert(quarry_mapped_publish(&set) == -1 && errno == ESTALE);

	/* One for another, which is freed. */
	was = slots[0];
	cr_assert_eq(quarry_mapped_begin(h, &set), 0);
	a = quarry_mapped_reserve(&set, 50);
	quarry_mapped_link(&set, &slots[0], was, quarry_mapped_off(h, a));
	quarry_mapped_link(&set, &slots[2], 0, slots[1]);
	quarry_mapped_link(&set, &slots[1], slots[1], 0);
	cr_assert_eq(quarry_mapped_unlink(&set, quarry_mapped_at(h, was)), 0);
	cr_assert(quarry_mapped_unlink(&set, quarry_mapped_at(h, was)) == -1 && errno == EINVAL);
	cr_assert_eq(quarry_mapped_publish(&set), 0);
	cr_assert(slots[0] == quarry_mapped_off(h, a) && slots[1] == 0 && checked(h).objects == 2);
	cr_assert_eq(quarry_mapped_usable(h, quarry_mapped_at(h, was)), 0);

	/* Not as expected: nothing of it. */
	cr_assert_eq(quarry_mapped_begin(h, &set), 0);
	a = quarry_mapped_reserve(&set, 50);
	quarry_mapped_link(&set, &slots[3], 0, quarry_mapped_off(h, a));
	quarry_mapped_link(&set, &slots[0], was, 0);
	quarry_mapped_unlink(&set, quarry_mapped_at(h, slots[2]));
	cr_assert(quarry_mapped_publish(&set) == -1 && errno == EAGAIN);
	cr_assert(slots[3] == 0 && slots[0] != 0 && checked(h).objects == 2 && checked(h).reserved == 0);

	cr_assert_eq(quarry_mapped_begin(h, &set), 0);
	for (unsigned i = 0; i < QUARRY_MAPPED_SET; i++)
		cr_assert_not_null(quarry_mapped_reserve(&set, i % 3 == 0 ? 70000 : 30 * i));
	cr_assert(quarry_mapped_reserve(&set, 10) == NULL && errno == E2BIG);
	quarry_mapped_cancel(&set);
	cr_assert(checked(h).objects == 2 && checked(h).reserved == 0);
	quarry_mapped_close(h);
}

/* What was reserved is in the heap, and goes back by that. */
Test(mapped, a_set_that_was_written_over)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_mapped_set set;

	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(quarry_mapped_begin(h, &set), 0);
		for (unsigned k = 0; k < 3; k++)
			cr_assert_not_null(quarry_mapped_reserve(&set, k == 1 ? 70000 : 50));
		*(i == 0 ? &set.linked : i == 1 ? &set.freed : &set.reserved) = i == 3 ? 0 : 0xdeadbeef;
		if (i == 2)
			cr_assert(quarry_mapped_reserve(&set, 50) == NULL && errno == E2BIG);
		cr_assert(i == 3 || (quarry_mapped_publish(&set) == -1 && errno == EINVAL));
		quarry_mapped_cancel(&set); /* (over already, but where nobody can know) */
		cr_assert(checked(h).objects == 0 && checked(h).reserved == 0, "%u", i);
	}
	quarry_mapped_close(h);
}

static void die_with_a_set(void)
{
	quarry_mapped_set set;

	quarry_mapped_begin(shared, &set);
	quarry_mapped_reserve(&set, 100);
	quarry_mapped_reserve(&set, 1000000);
	raise(SIGKILL);
}

Test(mapped, a_dead_ones_reservations_go_back)
{
	shared = new_heap(256 * MIB);
	cr_assert(WIFSIGNALED(in_child(die_with_a_set)));
	cr_assert(checked(shared).objects == 2 && checked(shared).reserved == 2);
	cr_assert_eq(quarry_mapped_recover(shared), 1);
	cr_assert(checked(shared).objects == 0 && checked(shared).reserved == 0);
	quarry_mapped_close(shared);
}

static void die_with_a_lock(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (quarry_mapped_lock(h, quarry_mapped_user(h, NULL)) != 0)
		_exit(1);
	raise(SIGKILL);
}

static void *try_it(void *heap)
{
	int rc = quarry_mapped_trylock(heap, quarry_mapped_user(heap, NULL)), error = errno;

	cr_assert(quarry_mapped_unlock(heap, quarry_mapped_user(heap, NULL)) == -1 && errno == EPERM);
	return (void *)(intptr_t)(rc == -1 && error == EBUSY);
}

Test(mapped, locks_survive_their_holders)
{
	quarry_mapped *h = new_heap(64 * MIB);
	quarry_mapped_mutex *m = quarry_mapped_user(h, NULL);
	pthread_t t;
	void *was;

	cr_assert(quarry_mapped_unlock(h, m) == -1 && errno == EPERM, "nobody has ever had it");
	cr_assert_eq(quarry_mapped_lock(h, m), 0);
	cr_assert(quarry_mapped_lock(h, m) == -1 && errno == EDEADLK);
	pthread_create(&t, NULL, try_it, h);
	pthread_join(t, &was);
	cr_assert_not_null(was);
	cr_assert_eq(quarry_mapped_unlock(h, m), 0);
	cr_assert(WIFSIGNALED(in_child(die_with_a_lock)));
	cr_assert_eq(quarry_mapped_lock(h, m), 1); /* while others have it open */
	cr_assert_eq(quarry_mapped_unlock(h, m), 0);
	cr_assert_eq(quarry_mapped_lock(h, m), 0);
	cr_assert_eq(quarry_mapped_unlock(h, m), 0);
	quarry_mapped_close(h);
	cr_assert(WIFSIGNALED(in_child(die_with_a_lock)));
	h = quarry_mapped_open(path); /* and when nobody had: as after the machine's start */
	m = quarry_mapped_user(h, NULL);
	cr_assert_eq(quarry_mapped_lock(h, m), 1);
	cr_assert_eq(quarry_mapped_unlock(h, m), 0);
	cr_assert(quarry_mapped_lock(h, (quarry_mapped_mutex *)(void *)path) == -1 && errno == EINVAL);
	m = (quarry_mapped_mutex *)(void *)((char *)m + 4);
	cr_assert(quarry_mapped_lock(h, m) == -1 && errno == EINVAL);
	cr_assert(quarry_mapped_unlock(h, m) == -1 && errno == EINVAL);
	quarry_mapped_close(h);
}

/* ---- collecting ---- */

static void trace(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag)
{
	struct node *n = p;

	if (tag != 7)
		return;
	cr_assert_geq(usable, sizeof(*n));
	quarry_mapped_mark(marks, quarry_mapped_off(ctx, quarry_rel_get(&n->next)), 7);
}

Test(mapped, what_nothing_leads_to_is_collected)
{
	quarry_mapped *h = new_heap(256 * MIB), *second;
	void *p;

	make_list(h, 10000);
	for (unsigned i = 0; i < 5000; i++)
		cr_assert_not_null(quarry_mapped_alloc(h, 1 + i));
	p = quarry_mapped_alloc(h, 50 * MIB);
	cr_assert(p != NULL && quarry_mapped_root_put(h, "other", quarry_mapped_off(h, p), 0) == 0);
	cr_assert_not_null(quarry_mapped_alloc(h, 60 * MIB));
	second = quarry_mapped_open(path);
	cr_assert(quarry_mapped_collect(h, trace, h) == -1 && errno == EBUSY);
	quarry_mapped_close(second);
	cr_assert_gt(quarry_mapped_collect(h, trace, h), (int64_t)(60 * MIB));
	cr_assert(checked(h).objects == 10001 && sum(h) == 50005000);
	cr_assert_eq(quarry_mapped_collect(h, trace, h), 0);
	for (unsigned i = 0; i < 5000; i++)
		cr_assert_not_null(quarry_mapped_alloc(h, 1 + i));
	cr_assert(checked(h).objects == 15001 && sum(h) == 50005000);
	cr_assert_eq(quarry_mapped_root_put(h, "none", quarry_mapped_off(h, p) + 16, 0), 0);
	cr_assert(quarry_mapped_collect(h, trace, h) == -1 && errno == EUCLEAN);
	quarry_mapped_close(h);
}

/* ---- files that are none ---- */

static void change(uint64_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_RDWR);

	cr_assert(pwrite(fd, bytes, n, (off_t)at) == (ssize_t)n);
	close(fd);
}

static void refused(int error, const char *text)
{
	quarry_mapped *h = quarry_mapped_open(path);

	cr_assert(h == NULL && errno == error && strstr(quarry_error_text(), text) != NULL, "%d: %s", errno, quarry_error_text());
	h = quarry_mapped_open_read(path);
	cr_assert(h == NULL && errno == error, "%d: %s", errno, quarry_error_text());
}

static struct qy_mapped_sb sb_of(void)
{
	struct qy_mapped_sb sb;
	int fd = open(path, O_RDWR);

	cr_assert_eq(qy_mapped_sb_read(fd, &sb), 0);
	close(fd);
	return sb;
}

static void put_sb(struct qy_mapped_sb sb)
{
	int fd = open(path, O_RDWR);

	cr_assert(qy_mapped_sb_write(fd, &sb) == 0 && qy_mapped_sb_write(fd, &sb) == 0);
	close(fd);
}

Test(mapped, foreign_and_damaged_files_are_refused)
{
	char zero[64] = { 0 }, byte = 'x', to[300];
	struct qy_mapped_sb sb;
	quarry_mapped *h = new_heap(64 * MIB);

	cr_assert(quarry_mapped_create(path, NULL) == NULL && errno == EEXIST);
	make_list(h, 1000);
	quarry_mapped_close(h);
	snprintf(to, sizeof(to), "%s-link", path);
	cr_assert_eq(symlink(path, to), 0);
	cr_assert(quarry_mapped_open(to) == NULL && errno == ELOOP);
	unlink(to);
	cr_assert(mkfifo(to, 0600) == 0 && quarry_mapped_open(to) == NULL && errno == EMEDIUMTYPE);
	cr_assert(quarry_mapped_open_read(to) == NULL && errno == EMEDIUMTYPE); /* and nobody is waited for */
	unlink(to);
	cr_assert(quarry_mapped_open("/dev/null") == NULL && errno == EMEDIUMTYPE);
	cr_assert(quarry_mapped_open("/nowhere/at/all") == NULL && errno == ENOENT);
	sb = sb_of();

	change(100, &byte, 1); /* one of the two is whole */
	h = quarry_mapped_open(path);
	cr_assert(h != NULL && sum(h) == 500500);
	quarry_mapped_close(h);
	change(100, &byte, 1);
	change(4096 + 100, &byte, 1);
	refused(EUCLEAN, "checksum");
	change(0, zero, 8);
	change(4096, zero, 8);
	refused(EMEDIUMTYPE, "none");
	put_sb(sb);
	h = quarry_mapped_open(path);
	cr_assert(h != NULL && sum(h) == 500500);
	quarry_mapped_close(h);
	sb = sb_of();

	sb.incompat = 4;
	put_sb(sb);
	refused(ENOTSUP, "feature 2 ");
	sb.incompat = 0;
	sb.lanes = 5000;
	put_sb(sb);
	refused(EUCLEAN, "numbers");
	sb.lanes = 256;
	sb.head_bytes += 4096;
	put_sb(sb);
	refused(EUCLEAN, "numbers");
	sb.head_bytes -= 4096;
	put_sb(sb);
	cr_assert_eq(truncate(path, (off_t)sb.head_bytes + 1000), 0);
	refused(EUCLEAN, "cut short");
	cr_assert_eq(truncate(path, (off_t)sb.head_bytes - 1), 0);
	refused(EUCLEAN, "cut short");
	cr_assert_eq(truncate(path, 100), 0);
	refused(EMEDIUMTYPE, "none");
	cr_assert_eq(truncate(path, 0), 0);
	refused(EMEDIUMTYPE, "none");
}

/* A list that cannot be makes its class read-only, and no other. */
Test(mapped, a_damaged_class_is_read_only)
{
	quarry_mapped *h = new_heap(64 * MIB);
	struct qy_mapped_unit *u;
	quarry_mapped_report report;
	quarry_mapped_info info;
	void *p = quarry_mapped_alloc(h, 64), *q = quarry_mapped_alloc(h, 64), *r = quarry_mapped_alloc(h, 200);

	u = qy_unit_at(qy_heap(h), (uint64_t)((char *)p - qy_heap(h)->segs) >> QY_MAPPED_UNIT_SHIFT);
	u->prev = 12345;
	cr_assert_eq(quarry_mapped_check(h, &report, sizeof(report)), 1);
	cr_assert(strstr(report.first, "list") != NULL, "%s", report.first);
	cr_assert_eq(quarry_mapped_info_get(h, &info, sizeof(info)), 0);
	cr_assert(info.bad_classes == 1u << qy_mapped_class_of(64) && !info.broken);
	quarry_mapped_close(h);
	h = quarry_mapped_open(path);
	cr_assert_not_null(h);
	cr_assert(quarry_mapped_alloc(h, 64) == NULL && errno == EROFS);
	cr_assert_not_null(quarry_mapped_alloc(h, 200));
	quarry_mapped_close(h);
	(void)q;
	(void)r;
}

/* ---- what cannot be had ---- */

Test(mapped, refusals_of_the_kernel)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 64 * MIB };
	quarry_mapped *h;
	static const enum fake_call calls[] = { FAKE_MMAP, FAKE_OPEN_FILE, FAKE_SET_SIZE, FAKE_ALLOCATE, FAKE_RANGE_LOCK, FAKE_WRITE_AT };

	quarry_free(quarry_malloc(1));
	fake_os_install();
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		for (unsigned k = 1; k <= 2; k++) {
			fake_os_fail_kth(calls[i], k, ENOSPC);
			h = quarry_mapped_create(place(), &attr);
			fake_os_heal();
			if (h != NULL)
				quarry_mapped_close(h);
			else
				cr_assert_neq(access(path, F_OK), 0, "call %u: the file is left", i);
			leave();
		}
	}
	h = quarry_mapped_create(place(), &attr);
	cr_assert_not_null(quarry_mapped_alloc(h, 100000));
	fake_os_fail(FAKE_ALLOCATE, ENOSPC);
	cr_assert(quarry_mapped_alloc(h, 20 * MIB) == NULL && errno == ENOSPC);
	fake_os_heal();
	cr_assert_not_null(quarry_mapped_alloc(h, 20 * MIB));
	quarry_mapped_close(h);
	fake_os_remove();
}
