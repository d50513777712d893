/* SPDX-License-Identifier: MIT */
#include "lib/view/roots.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/manager/sites.h"
#include "lib/view/sort.h"
#include "numa/window.h"

#define TEXT ((size_t)16 << 20) /* a process may have 65,530 mappings, and more where that was raised */
#define OWN ((size_t)1 << 20) /* bytes of address space for that: some ten thousands */
#define RED_ZONE 128 /* bytes below the stack pointer that a function may use (x86-64) */
#define NAMED 128

struct range {
	uintptr_t from, to;
};

/* ---- what the program names ---- */

struct named {
	uintptr_t from;
	_Atomic(size_t) bytes; /* 0: free; written last (a copy reads without the lock) */
};

static struct qy_lock named_lock = QY_LOCK_INIT(QY_RANK_LEAF);
static struct named named[NAMED];

QUARRY_API int quarry_leaks_root(const void *p, size_t bytes)
{
	int result = -1;

	if (p == NULL || bytes == 0)
		return qy_fail(EINVAL, p == NULL ? "p: NULL" : "bytes: 0");
	if ((uintptr_t)p + bytes < (uintptr_t)p)
		return qy_fail(EINVAL, "bytes: %zu from %p on is beyond all memory", bytes, (void *)(uintptr_t)p);
	qy_lock(&named_lock);
	for (unsigned i = 0; i < NAMED && result != 0; i++)
		if (atomic_load_explicit(&named[i].bytes, memory_order_relaxed) == 0) {
			named[i].from = (uintptr_t)p;
			atomic_store_explicit(&named[i].bytes, bytes, memory_order_release);
			result = 0;
		}
	qy_unlock(&named_lock);
	return result == 0 ? 0 : qy_fail(ENOMEM, "there are %d roots already", NAMED);
}

QUARRY_API int quarry_leaks_forget_root(const void *p)
{
	int result = -1;

	qy_lock(&named_lock);
	for (unsigned i = 0; i < NAMED && result != 0; i++)
		if (p != NULL && named[i].from == (uintptr_t)p &&
		    atomic_load_explicit(&named[i].bytes, memory_order_relaxed) != 0) {
			atomic_store_explicit(&named[i].bytes, 0, memory_order_relaxed);
			result = 0;
		}
	qy_unlock(&named_lock);
	return result == 0 ? 0 : qy_fail(ENOENT, "p: %p was not named as a root", (void *)(uintptr_t)p);
}

/* What is named is not lost itself, either. */
static void reach_from_named(struct qy_reach *r)
{
	for (unsigned i = 0; i < NAMED; i++) {
		size_t bytes = atomic_load_explicit(&named[i].bytes, memory_order_acquire);
		uint64_t itself = named[i].from;
		uintptr_t from = qy_align_up(named[i].from, sizeof(uint64_t));
		uintptr_t to = qy_align_down(named[i].from + bytes, sizeof(uint64_t));

		if (bytes == 0)
			continue;
		qy_reach_from_words(r, &itself, 1);
		if (from < to)
			qy_reach_from_words(r, (const uint64_t *)from, (to - from) / sizeof(uint64_t));
	}
}

/* ---- quarry's own ---- */

struct own {
	struct range *range; /* ascending, none beside the next */
	size_t count;
};

static void add_own(void *ctx, const void *from, size_t bytes)
{
	struct own *own = ctx;

	if (own->count < OWN / sizeof(own->range[0]))
		own->range[own->count++] = (struct range){ (uintptr_t)from, (uintptr_t)from + bytes };
}

static uint64_t key_of_range(const void *range)
{
	return ((const struct range *)range)->from;
}

/* Where quarry is built with AddressSanitizer, its shadow is an eighth of all addresses. */
#ifdef __SANITIZE_ADDRESS__
void __asan_get_shadow_mapping(size_t *scale, size_t *offset);

static void add_shadow(struct own *own)
{
	size_t scale, offset;

	__asan_get_shadow_mapping(&scale, &offset);
	add_own(own, (void *)offset, ((size_t)1 << 47) >> scale);
}
#else
static void add_shadow(struct own *own)
{
	(void)own;
}
#endif

static bool find_own(struct own *own, const struct qy_roots *roots, const struct qy_stopped *stopped)
{
	void *list = qy_os->mmap(NULL, OWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (list == MAP_FAILED)
		return false;
	*own = (struct own){ .range = list };
	qy_window_memory(add_own, own);
	add_own(own, named, sizeof(named));
	add_own(own, roots->text, roots->mapped);
	if (stopped->memory != NULL)
		add_own(own, stopped->memory, stopped->mapped);
	qy_samples_memory(add_own, own);
	qy_meta_memory(add_own, own);
	add_shadow(own);
	qy_sort(own->range, own->count, sizeof(own->range[0]), key_of_range);
	return true;
}

/* What of [from, to) is none of quarry's. */
static void reach_beside(struct qy_reach *r, const struct own *own, uintptr_t from, uintptr_t to)
{
	for (size_t i = 0; i < own->count && from < to; i++) {
		const struct range *o = &own->range[i];

		if (o->to <= from || o->from >= to)
			continue;
		if (o->from > from)
			qy_reach_from(r, (const void *)from, o->from - from);
		from = o->to;
	}
	if (from < to)
		qy_reach_from(r, (const void *)from, to - from);
}

/* ---- mappings ---- */

struct mapping {
	uintptr_t from, to;
	char rights[4];
	bool is_stack; /* of the first thread */
	bool guarded;  /* nothing can be read below it */
	bool special;  /* the kernel's own, or a device's: reading may do something */
};

static uintptr_t read_hex(const char **at)
{
	uintptr_t n = 0;

	for (;; (*at)++) {
		unsigned c = (unsigned char)**at;

		if (c >= '0' && c <= '9')
			n = n << 4 | (c - '0');
		else if (c >= 'a' && c <= 'f')
			n = n << 4 | (c - 'a' + 10);
		else
			return n;
	}
}

static bool is_special(const char *line, const char *end)
{
	const char *name = memchr(line, '[', (size_t)(end - line)), *path = memchr(line, '/', (size_t)(end - line));

	if (path != NULL)
		return end - path > 5 && memcmp(path, "/dev/", 5) == 0 &&
		       !(end - path > 9 && (memcmp(path, "/dev/shm/", 9) == 0 || memcmp(path, "/dev/zero", 9) == 0 ||
					    memcmp(path, "/dev/huge", 9) == 0));
	return name != NULL && end - name > 2 && name[1] == 'v';
}

/* "FROM-TO rwxp OFFSET DEVICE INODE NAME" (proc(5)). Where the next line begins; NULL when there is none. */
static const char *read_mapping(const char *line, struct mapping *m)
{
	const char *end = strchr(line, '\n');
	uintptr_t below = m->to;
	bool closed = m->rights[0] != 'r';

	if (end == NULL)
		return NULL;
	m->from = read_hex(&line);
	line += *line == '-';
	m->to = read_hex(&line);
	line += *line == ' ';
	if (end - line < 4)
		return NULL;
	memcpy(m->rights, line, 4);
	m->special = is_special(line, end);
	m->is_stack = end - line >= 7 && memcmp(end - 7, "[stack]", 7) == 0;
	m->guarded = closed && below == m->from;
	return end + 1;
}

static uintptr_t own_base(void)
{
#if defined(__x86_64__) || defined(__aarch64__)
	return (uintptr_t)__builtin_thread_pointer();
#else
	return 0;
#endif
}

/* Of a thread: where its stack pointer and its thread pointer lead. */
struct places {
	uintptr_t stack, base;
};

static bool is_in(const struct mapping *m, uintptr_t at)
{
	return at >= m->from && at < m->to;
}

/* Leave out what is not in use of a mapping that is one thread's stack: its stack pointer leads there, and either it is the
 * first thread's, or its thread pointer leads there too and nothing can be read below (which is how libc makes them). Where
 * another thread has anything there, or there is one of which that is not known, all of it counts. (What is not seen is a
 * handler of another thread's on an alternate stack that is a part of its stack: what it interrupted is below, then.) */
static void trim(struct mapping *m, const struct places *own, const struct qy_stopped *stopped)
{
	struct places found = { 0, 0 };
	unsigned count = 0;

	if (stopped->count < stopped->others && !m->is_stack)
		return; /* they could not be stopped */
	for (size_t i = 0; i <= stopped->count; i++) {
		const struct qy_stopped_thread *t = i == 0 ? NULL : &stopped->thread[i - 1];
		struct places p = t == NULL ? *own : (struct places){ t->stack, t->base };

		if (t != NULL && (t->words == 0 || t->stack == 0))
			return;
		if (!is_in(m, p.stack) && !is_in(m, p.base))
			continue;
		found = p;
		count++;
	}
	if (count != 1 || !is_in(m, found.stack) ||
	    !(m->is_stack || (m->guarded && is_in(m, found.base) && found.base >= found.stack)))
		return;
	m->from = qy_max(m->from, qy_align_down(found.stack - qy_min(found.stack, RED_ZONE), sizeof(uint64_t)));
}

bool qy_reach_from_roots(struct qy_reach *r, const struct qy_roots *roots, const struct qy_stopped *stopped,
			 uintptr_t stack)
{
	struct mapping m = { .rights = "r" };
	struct own own;

	if (!find_own(&own, roots, stopped))
		return false;
	for (const char *line = roots->text; (line = read_mapping(line, &m)) != NULL;) {
		struct mapping part = m;

		if (m.rights[0] != 'r' || m.rights[3] != 'p' || m.special)
			continue;
		trim(&part, &(struct places){ stack, own_base() }, stopped);
		reach_beside(r, &own, part.from, part.to);
	}
	for (size_t i = 0; i < stopped->count; i++)
		qy_reach_from_words(r, stopped->thread[i].word, stopped->thread[i].words);
	reach_from_named(r);
	qy_os->munmap(own.range, OWN);
	return true;
}

bool qy_roots_read(struct qy_roots *roots)
{
	ssize_t n;

	*roots = (struct qy_roots){ .mapped = TEXT };
	roots->text = qy_os->mmap(NULL, TEXT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (roots->text == MAP_FAILED) {
		roots->text = NULL;
		return false;
	}
	n = qy_os->read_file("/proc/self/maps", roots->text, TEXT);
	if (n <= 0 || (size_t)n >= TEXT - 1) {
		qy_roots_end(roots);
		return false;
	}
	roots->length = (size_t)n;
	return true;
}

void qy_roots_end(struct qy_roots *roots)
{
	if (roots->text != NULL)
		qy_os->munmap(roots->text, roots->mapped);
	roots->text = NULL;
}
