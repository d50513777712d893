/* SPDX-License-Identifier: MIT */
/* The fake kernel's memory: which mapping, which pool and which move belongs to which addresses. Linux has the pages.
 * Policy: tests/fake_policy.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fake_ranges.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define RANGES_MAX ((size_t)1 << 20)
#define ADVICE_FREE 8
#define ADVICE_DONTNEED 4

struct fake_ranges fake_policies, fake_hugetlb, fake_taken, fake_moved;
static struct fake_ranges remapped; /* by mremap; origin: where it was first */

void *fake_own_memory(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		fake_stop("no memory for the fake kernel");
	return p;
}

void fake_range_add(struct fake_ranges *list, struct fake_range range)
{
	if (!list->at)
		list->at = fake_own_memory(RANGES_MAX * sizeof(list->at[0]));
	if (list->count == RANGES_MAX)
		fake_stop("too many ranges");
	list->at[list->count++] = range;
}

void fake_range_cut(struct fake_ranges *list, uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < list->count;) {
		struct fake_range r = list->at[i], right = r;
		if (r.end <= start || r.start >= end) {
			i++;
			continue;
		}
		right.start = end;
		if (r.start < start)
			list->at[i++].end = start;
		else
			list->at[i] = list->at[--list->count];
		if (r.end > end)
			fake_range_add(list, right);
	}
}

struct fake_range *fake_range_find(struct fake_ranges *list, uintptr_t at)
{
	for (size_t i = list->count; i-- > 0;)
		if (list->at[i].start <= at && at < list->at[i].end)
			return &list->at[i];
	return NULL;
}

/* ---- pools ---- */

static uint64_t pool_free(int pool)
{
	uint64_t n = 0;
	for (int i = 0; i < FAKE_NODES; i++)
		n += fake_usable(i) ? fake.node[i].pool[pool] : 0;
	return n;
}

/* The pages of [start, end) go back to where they came from; with keep_right, reserved mappings may fault them in
 * again. A mapping that was not faulted in gives its right back. */
static void give_back_huge(uintptr_t start, uintptr_t end, bool keep_right)
{
	for (size_t i = 0; i < fake_hugetlb.count; i++) {
		struct fake_range r = fake_hugetlb.at[i];
		int pool = fake_pool_of((unsigned)r.value);
		uintptr_t from = r.start > start ? r.start : start, to = r.end < end ? r.end : end;
		for (; from < to; from += (uintptr_t)1 << r.value) {
			const struct fake_range *page = fake_range_find(&fake_taken, from);
			if (page)
				fake.node[page->extra].pool[pool]++;
			if (r.extra && (page != NULL) == keep_right)
				fake.reserved[pool] += keep_right ? 1 : (uint64_t)-1;
		}
	}
	fake_range_cut(&fake_taken, start, end);
}

/* The node whose pool gives a huge page at this address; -1 when those that the policy allows are dry. */
static int pool_for(uintptr_t at, int pool)
{
	const struct fake_policy *policy = fake_policy_at(at);
	bool bound = policy && policy->mode == QY_MPOL_BIND;
	int wanted = fake_node_by_policy(at), best = -1;

	if (bound || (policy && policy->mode == QY_MPOL_PREFERRED_MANY)) {
		for (int n = 0; n < FAKE_NODES; n++)
			if (fake_mask_has(&policy->nodes, n) && fake.node[n].pool[pool])
				return n;
		if (bound)
			return -1;
	}
	for (int n = 0; n < FAKE_NODES; n++)
		if (fake_usable(n) && fake.node[n].pool[pool] &&
		    (best < 0 || (wanted >= 0 && fake_distance_of(wanted, n) < fake_distance_of(wanted, best))))
			best = n;
	return best;
}

static int populate_huge(uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end;) {
		const struct fake_range *map = fake_range_find(&fake_hugetlb, at);
		uintptr_t size;
		int pool, node;
		if (!map)
			return ENOMEM;
		size = (uintptr_t)1 << map->value;
		at &= ~(size - 1);
		if (!fake_range_find(&fake_taken, at)) {
			pool = fake_pool_of((unsigned)map->value);
			node = pool_for(at, pool);
			if (node < 0 || (!map->extra && pool_free(pool) <= fake.reserved[pool]))
				return EFAULT;
			fake.node[node].pool[pool]--;
			fake.reserved[pool] -= map->extra ? 1 : 0;
			fake_range_add(&fake_taken, (struct fake_range){ .start = at, .end = at + size,
									 .value = map->value, .extra = node });
		}
		at += size;
	}
	return 0;
}

/* ---- mapping ---- */

/* (What is cut off on the left is not where it was first either.) */
static void cut_remapped(uintptr_t start, uintptr_t end)
{
	struct fake_range *r = fake_range_find(&remapped, end);
	uintptr_t origin = r == NULL ? 0 : r->origin + (end - r->start);

	fake_range_cut(&remapped, start, end);
	r = fake_range_find(&remapped, end);
	if (r != NULL)
		r->origin = r->start == end ? origin : r->origin;
}

static void forget(uintptr_t start, uintptr_t end)
{
	give_back_huge(start, end, false);
	fake_range_cut(&fake_hugetlb, start, end);
	fake_range_cut(&fake_policies, start, end);
	fake_range_cut(&fake_moved, start, end);
	cut_remapped(start, end);
}

static void *map_aligned(size_t len, size_t align, int prot, int flags)
{
	char *p = mmap(NULL, len + align, prot, flags, -1, 0), *from;

	if (p == MAP_FAILED)
		return p;
	from = (char *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
	if (from > p)
		munmap(p, (size_t)(from - p));
	munmap(from + len, (size_t)(p + len + align - (from + len)));
	return from;
}

static void *map_huge(void *addr, size_t len, int prot, int flags)
{
	const int fixed = flags & (MAP_FIXED | QY_MAP_FIXED_NOREPLACE);
	const int real = (flags & ~(MAP_HUGETLB | MAP_POPULATE | (int)(63u << 26))) | MAP_NORESERVE;
	unsigned shift = (unsigned)flags >> 26 & 63;
	const bool reserve = !(flags & MAP_NORESERVE);
	size_t size;
	int pool;
	char *p;

	shift = shift ? shift : 21;
	size = (size_t)1 << shift;
	pool = fake_pool_of(shift);
	if (pool < 0 || (fixed && (uintptr_t)addr % size)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	len = (len + size - 1) & ~(size - 1);
	if (reserve && pool_free(pool) < fake.reserved[pool] + len / size) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	p = fixed ? mmap(addr, len, prot, real, -1, 0) : map_aligned(len, size, prot, real);
	if (p == MAP_FAILED)
		return p;
	forget((uintptr_t)p, (uintptr_t)p + len);
	fake_range_add(&fake_hugetlb, (struct fake_range){ .start = (uintptr_t)p, .end = (uintptr_t)p + len,
							   .value = (int)shift, .extra = reserve });
	fake.reserved[pool] += reserve ? len / size : 0;
	if (flags & MAP_POPULATE)
		(void)populate_huge((uintptr_t)p, (uintptr_t)p + len); /* mmap does not tell that either */
	return p;
}

/* Files of huge pages, by their numbers, and where they are mapped. */
#define FILES_MAX 64
static struct huge_file {
	uint64_t id;
	unsigned shift;
	uintptr_t start;
} huge_files[FILES_MAX];
static size_t huge_file_count; /* ever */

static struct huge_file *huge_file_of(int fd)
{
	uint64_t id;

	if (fd < 0 || qy_os_linux.file_id(fd, &id) != 0)
		return NULL;
	for (size_t i = 0; i < FILES_MAX; i++)
		if (huge_files[i].shift != 0 && huge_files[i].id == id)
			return &huge_files[i];
	return NULL;
}

int fake_memfd(const char *name, unsigned flags)
{
	struct huge_file *file = &huge_files[huge_file_count % FILES_MAX];
	unsigned shift = flags >> 26 & 63;
	int fd;

	if ((flags & QY_MFD_HUGETLB) && fake_pool_of(shift != 0 ? shift : 21) < 0)
		return fail(ENODEV);
	fd = qy_os_linux.memfd(name, flags & ~(QY_MFD_HUGETLB | 63u << 26));
	if (fd >= 0 && (flags & QY_MFD_HUGETLB)) {
		qy_os_linux.file_id(fd, &file->id);
		file->shift = shift != 0 ? shift : 21;
		huge_file_count++;
	}
	return fd;
}

int fake_allocate(int fd, uint64_t at, uint64_t len)
{
	struct huge_file *file = huge_file_of(fd);
	int err = file != NULL && file->start != 0 ? populate_huge(file->start + at, file->start + at + len) : 0;

	return err ? fail(ENOSPC) : qy_os_linux.allocate(fd, at, len);
}

static void *map_huge_file(struct huge_file *file, void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	size_t size = (size_t)1 << file->shift;
	int pool = fake_pool_of(file->shift);
	void *p;

	if ((uintptr_t)addr % size || len % size) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (pool_free(pool) < fake.reserved[pool] + len / size) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	p = mmap(addr, len, prot, flags & ~(MAP_HUGETLB | (int)(63u << 26)), fd, off);
	if (p == MAP_FAILED)
		return p;
	forget((uintptr_t)p, (uintptr_t)p + len);
	file->start = (uintptr_t)p;
	fake_range_add(&fake_hugetlb, (struct fake_range){ .start = (uintptr_t)p, .end = (uintptr_t)p + len,
							   .value = (int)file->shift, .extra = 1 });
	fake.reserved[pool] += len / size;
	return p;
}

void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	struct huge_file *file = huge_file_of(fd);
	char *p;

	if (file != NULL)
		return map_huge_file(file, addr, len, prot, flags, fd, off);
	if (flags & MAP_HUGETLB)
		return map_huge(addr, len, prot, flags);
	p = mmap(addr, len, prot, flags, fd, off);
	if (p != MAP_FAILED)
		forget((uintptr_t)p, (uintptr_t)p + (len + PAGE - 1) / PAGE * PAGE);
	return p;
}

int fake_munmap(void *addr, size_t len)
{
	const struct fake_range *first = fake_range_find(&fake_hugetlb, (uintptr_t)addr);
	const struct fake_range *last = fake_range_find(&fake_hugetlb, (uintptr_t)addr + len);

	if (first && (uintptr_t)addr % ((uintptr_t)1 << first->value))
		return fail(EINVAL);
	if (last && ((uintptr_t)addr + len) % ((uintptr_t)1 << last->value))
		return fail(EINVAL);
	if (munmap(addr, len) != 0)
		return -1;
	forget((uintptr_t)addr, (uintptr_t)addr + (len + PAGE - 1) / PAGE * PAGE);
	return 0;
}

static int advise_huge(uintptr_t start, uintptr_t end, int advice)
{
	int err = 0;

	switch (advice) {
	case QY_MADV_POPULATE_WRITE:
	case QY_MADV_POPULATE_READ: /* nothing of what was populated is ever lost here */
		err = populate_huge(start, end);
		break;
	case ADVICE_DONTNEED:
		if (madvise((void *)start, end - start, advice) != 0)
			return -1;
		give_back_huge(start, end, true);
		break;
	case QY_MADV_REMOVE:
		give_back_huge(start, end, true);
		return madvise((void *)start, end - start, advice);
	case QY_MADV_HUGEPAGE:
	case QY_MADV_NOHUGEPAGE:
	case QY_MADV_COLLAPSE:
	case ADVICE_FREE:
		err = EINVAL;
		break;
	default:
		return madvise((void *)start, end - start, advice);
	}
	return err ? fail(err) : 0;
}

int fake_madvise(void *addr, size_t len, int advice)
{
	uintptr_t start = (uintptr_t)addr, end = start + (len + PAGE - 1) / PAGE * PAGE;

	if (len && start % PAGE == 0 && fake_range_find(&fake_hugetlb, start))
		return advise_huge(start, end, advice);
	if (advice == QY_MADV_POPULATE_WRITE && fake_bound_to_full(start))
		return fail(ENOMEM);
	if (madvise(addr, len, advice) != 0)
		return -1;
	if (advice == ADVICE_DONTNEED || advice == QY_MADV_REMOVE)
		fake_range_cut(&fake_moved, start, end);
	return 0;
}

/* The parts of a list that are in [start, end), once more at another place. */
static void carry(struct fake_ranges *list, uintptr_t start, uintptr_t end, uintptr_t target)
{
	size_t count = list->count;

	for (size_t i = 0; i < count; i++) {
		struct fake_range r = list->at[i];

		if (r.end <= start || r.start >= end)
			continue;
		r.start = (r.start > start ? r.start : start) - start + target;
		r.end = (r.end < end ? r.end : end) - start + target;
		r.origin = r.origin - start + target;
		fake_range_add(list, r);
	}
}

static uintptr_t first_place(uintptr_t at)
{
	const struct fake_range *r = fake_range_find(&remapped, at);

	return r == NULL ? at : r->origin + (at - r->start);
}

static void note_remapped(uintptr_t start, size_t len, uintptr_t origin)
{
	fake_range_add(&remapped, (struct fake_range){ .start = start, .end = start + len, .origin = origin });
}

/* As if all of it had been touched before it was moved. */
static bool is_one_mapping(uintptr_t start, uintptr_t end)
{
	uintptr_t shift = first_place(start) - start;

	for (size_t i = 0; i < remapped.count; i++) {
		const struct fake_range *r = &remapped.at[i];

		if (r->start < end && r->end > start && r->start > start && first_place(r->start) - r->start != shift)
			return false;
		if (r->end < end && r->end > start && first_place(r->end) - r->end != shift)
			return false;
	}
	return true;
}

/* The pages go with their places and their policy; the place stays, with its policy. */
void *fake_mremap_away(void *old, size_t len, void *hint)
{
	uintptr_t start = (uintptr_t)old, end = start + len, origin = first_place(start);
	void *p;

	if (fake_range_find(&fake_hugetlb, start)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (!is_one_mapping(start, end)) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	p = mremap(old, len, len, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, hint);
	if (p == MAP_FAILED)
		return p;
	forget((uintptr_t)p, (uintptr_t)p + len);
	note_remapped((uintptr_t)p, len, origin);
	carry(&fake_policies, start, end, (uintptr_t)p);
	carry(&fake_moved, start, end, (uintptr_t)p);
	fake_range_cut(&fake_moved, start, end);
	return p;
}

void *fake_mremap_to(void *old, size_t len, void *to)
{
	uintptr_t start = (uintptr_t)old, end = start + len, target = (uintptr_t)to, origin = first_place(start);
	void *p;

	if (fake_range_find(&fake_hugetlb, start)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (!is_one_mapping(start, end)) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	p = mremap(old, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (p == MAP_FAILED)
		return p;
	forget(target, target + len);
	if (origin != target)
		note_remapped(target, len, origin);
	carry(&fake_policies, start, end, target);
	carry(&fake_moved, start, end, target);
	forget(start, end);
	return p;
}

/* ---- looking at pages ---- */

int fake_mincore(void *addr, size_t len, unsigned char *vec)
{
	if (mincore(addr, len, vec) != 0)
		return -1;
	for (size_t i = 0; fake_taken.count && i < (len + PAGE - 1) / PAGE; i++)
		if (fake_range_find(&fake_taken, (uintptr_t)addr + i * PAGE))
			vec[i] = 1;
	return 0;
}

int fake_presence(uintptr_t at)
{
	unsigned char in_memory = 0;
	if (fake_mincore((void *)(at & ~(PAGE - 1)), PAGE, &in_memory) != 0)
		return EFAULT;
	return in_memory & 1 ? 0 : ENOENT;
}

/* A huge page of a pool goes as a whole, and needs one of the pool there. */
static int move_huge_page(struct fake_range *huge, int node)
{
	int pool = fake_pool_of((unsigned)huge->value);

	if (huge->extra == node)
		return 0;
	if (fake.node[node].pool[pool] == 0)
		return ENOMEM;
	fake.node[node].pool[pool]--;
	fake.node[huge->extra].pool[pool]++;
	huge->extra = node;
	return 0;
}

/* How many pages from the first on follow each other, up to max. */
static unsigned long run_length(void **pages, unsigned long count, unsigned long max)
{
	unsigned long n = 1;

	while (n < count && n < max && (uintptr_t)pages[n] / PAGE == (uintptr_t)pages[n - 1] / PAGE + 1)
		n++;
	return n;
}

/* As fake_presence of each, negative, with one call for pages that follow each other. */
static void presences(void **pages, unsigned long count, int *errors)
{
	unsigned char in_memory[256];
	unsigned long n;

	for (unsigned long i = 0; i < count; i += n) {
		void *first = (void *)((uintptr_t)pages[i] & ~(PAGE - 1));
		bool whole;

		n = run_length(pages + i, count - i, sizeof(in_memory));
		whole = fake_mincore(first, n * PAGE, in_memory) == 0;
		for (unsigned long k = 0; k < n; k++)
			errors[i + k] = !whole ? -fake_presence((uintptr_t)pages[i + k]) : in_memory[k] & 1 ? 0 : -ENOENT;
	}
}

/* Of those whose status is 0. What follows each other and goes to one node is forgotten where it was in one go. */
static void move_present(void **pages, unsigned long count, const int *nodes, int *status)
{
	unsigned long n, run;

	for (unsigned long i = 0; i < count; i += n) {
		uintptr_t at = (uintptr_t)pages[i] & ~(PAGE - 1);
		struct fake_range *huge = status[i] == 0 ? fake_range_find(&fake_taken, at) : NULL;

		n = 1;
		if (huge)
			status[i] = -move_huge_page(huge, nodes[i]);
		if (huge || status[i] != 0)
			continue;
		run = run_length(pages + i, count - i, count);
		while (n < run && status[i + n] == 0 && nodes[i + n] == nodes[i] &&
		       !fake_range_find(&fake_taken, at + n * PAGE))
			n++;
		fake_range_cut(&fake_moved, at, at + n * PAGE);
		for (unsigned long k = 0; k < n; k++)
			fake_put_at(at + k * PAGE, nodes[i]);
	}
}

long fake_move_pages(unsigned long count, void **pages, const int *nodes, int *status, int flags)
{
	(void)flags;
	for (unsigned long i = 0; nodes && i < count; i++) {
		if (nodes[i] < 0 || nodes[i] >= FAKE_NODES || !fake.node[nodes[i]].online ||
		    fake.node[nodes[i]].total == 0)
			return fail(ENODEV);
		if (!fake.node[nodes[i]].allowed)
			return fail(EACCES);
	}
	presences(pages, count, status);
	if (nodes)
		move_present(pages, count, nodes, status);
	for (unsigned long i = 0; i < count; i++)
		if (status[i] == 0)
			status[i] = fake_node_by_policy((uintptr_t)pages[i]);
	return 0;
}

int fake_page_is_huge(const void *addr, bool *huge)
{
	if (!fake_range_find(&fake_hugetlb, (uintptr_t)addr))
		return qy_os_linux.page_is_huge(addr, huge);
	*huge = fake_presence((uintptr_t)addr) == 0;
	return 0;
}

void fake_memory_reset(void)
{
	memset(huge_files, 0, sizeof(huge_files));
	fake_policies.count = fake_hugetlb.count = fake_taken.count = fake_moved.count = remapped.count = 0;
	fake_policy_reset();
}
