/* SPDX-License-Identifier: MIT */
/* The fake kernel's memory: which policy, which pool and which move belongs to which addresses. Linux has the pages. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fake_machine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define RANGES_MAX ((size_t)1 << 20)
#define POLICIES_MAX 65536
#define PAGE ((uintptr_t)4096)
#define MF_MOVE 2u
#define ADVICE_FREE 8
#define ADVICE_DONTNEED 4

/* A run of addresses that share a property. Lists of them are plain arrays in memory of their own. */
struct range {
	uintptr_t start, end;
	uintptr_t origin; /* policy: where the bound range starts, for interleaving */
	int value;        /* policy: its number; hugetlb and taken: the page's shift; moved: the node */
	int extra;        /* hugetlb: 1 when reserved; taken: the node */
};

struct ranges {
	struct range *at;
	size_t count;
};

struct policy {
	int mode;
	struct fake_mask nodes;
};

static struct ranges policies; /* what mbind left */
static struct ranges hugetlb;  /* mappings of huge pages */
static struct ranges taken;    /* huge pages that were populated, one each */
static struct ranges moved;    /* pages that move_pages moved */
static struct policy *policy_table; /* each different policy once; number 0 is the default */
static int policy_count;
static struct policy thread_policy;

static void *own_memory(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		fake_stop("no memory for the fake kernel");
	return p;
}

static int fail(int err)
{
	errno = err;
	return -1;
}

static void add(struct ranges *list, struct range range)
{
	if (!list->at)
		list->at = own_memory(RANGES_MAX * sizeof(list->at[0]));
	if (list->count == RANGES_MAX)
		fake_stop("too many ranges");
	list->at[list->count++] = range;
}

/* Take [start, end) out of a list; what sticks out of it on either side stays. */
static void cut(struct ranges *list, uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < list->count;) {
		struct range r = list->at[i], right = r;
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
			add(list, right);
	}
}

static struct range *find(struct ranges *list, uintptr_t at)
{
	for (size_t i = list->count; i-- > 0;)
		if (list->at[i].start <= at && at < list->at[i].end)
			return &list->at[i];
	return NULL;
}

/* ---- policy ---- */

static int policy_number(int mode, const struct fake_mask *nodes)
{
	if (!policy_table)
		policy_table = own_memory(POLICIES_MAX * sizeof(policy_table[0]));
	if (policy_count == 0)
		policy_table[policy_count++].mode = QY_MPOL_DEFAULT;
	for (int i = 0; i < policy_count; i++)
		if (policy_table[i].mode == mode && memcmp(&policy_table[i].nodes, nodes, sizeof(*nodes)) == 0)
			return i;
	if (policy_count == POLICIES_MAX)
		fake_stop("too many policies");
	policy_table[policy_count].mode = mode;
	policy_table[policy_count].nodes = *nodes;
	return policy_count++;
}

static bool is_full(int node)
{
	return fake.node[node].available == 0;
}

static int nearest_with_room(int from)
{
	int best = -1, first = -1;

	for (int n = 0; n < FAKE_NODES; n++) {
		if (!fake_usable(n))
			continue;
		if (first < 0)
			first = n;
		if (is_full(n))
			continue;
		if (best < 0 || (from >= 0 && fake_distance_of(from, n) < fake_distance_of(from, best)))
			best = n;
	}
	return best >= 0 ? best : first;
}

static int nth_of(const struct fake_mask *mask, uintptr_t index)
{
	uintptr_t count = 0;

	for (int n = 0; n < FAKE_NODES; n++)
		count += fake_mask_has(mask, n);
	index %= count ? count : 1;
	for (int n = 0; n < FAKE_NODES; n++)
		if (fake_mask_has(mask, n) && index-- == 0)
			return n;
	return -1;
}

static int node_by_policy(uintptr_t at)
{
	const struct range *range = find(&moved, at);
	const struct policy *policy;
	int first;

	if (range)
		return range->value;
	range = find(&taken, at);
	if (range)
		return range->extra;
	range = find(&policies, at);
	if (!range)
		return nearest_with_room(fake_caller_node());
	policy = &policy_table[range->value];
	switch (policy->mode) {
	case QY_MPOL_INTERLEAVE:
	case QY_MPOL_WEIGHTED_INTERLEAVE:
		return nth_of(&policy->nodes, (at - range->origin) / PAGE);
	case QY_MPOL_BIND:
	case QY_MPOL_PREFERRED:
	case QY_MPOL_PREFERRED_MANY:
		for (int n = 0; n < FAKE_NODES; n++)
			if (fake_mask_has(&policy->nodes, n) && !is_full(n))
				return n;
		first = nth_of(&policy->nodes, 0);
		if (policy->mode == QY_MPOL_BIND)
			return first;
		return nearest_with_room(first >= 0 ? first : fake_caller_node());
	default:
		return nearest_with_room(fake_caller_node());
	}
}

static bool all_mapped(uintptr_t start, uintptr_t end)
{
	static unsigned char seen[16384];

	for (; start < end; start += sizeof(seen) * PAGE) {
		size_t len = end - start < sizeof(seen) * PAGE ? end - start : sizeof(seen) * PAGE;
		if (mincore((void *)start, len, seen) != 0)
			return false;
	}
	return true;
}

/* A policy as the kernel would take it, or its errno. The set is reduced to what can be used, as the kernel does. */
static int read_policy(int mode, const unsigned long *mask, unsigned long bits, struct policy *policy)
{
	bool any = false;

	memset(policy, 0, sizeof(*policy));
	policy->mode = mode & 0xff;
	if ((mode & ~0xff & ~0xe000) || policy->mode > fake.newest_policy)
		return EINVAL;
	if (mask)
		for (unsigned long n = 0; n < bits; n++) {
			if (!(mask[n / (8 * sizeof(mask[0]))] >> (n % (8 * sizeof(mask[0]))) & 1))
				continue;
			if (n >= FAKE_NODES)
				return EINVAL;
			any = true;
			if (fake_usable((int)n))
				fake_mask_add(&policy->nodes, (int)n);
		}
	if (policy->mode == QY_MPOL_DEFAULT || policy->mode == QY_MPOL_LOCAL)
		return any ? EINVAL : 0;
	if (policy->mode == QY_MPOL_PREFERRED && !any)
		policy->mode = QY_MPOL_LOCAL;
	else if (nth_of(&policy->nodes, 0) < 0)
		return EINVAL;
	return 0;
}

/* Pages in memory stay where they are, whatever the policy says from now on. */
static void put_at(uintptr_t at, int node)
{
	struct range *last = moved.count > 0 ? &moved.at[moved.count - 1] : NULL;

	if (last && last->end == at && last->value == node)
		last->end = at + PAGE;
	else
		add(&moved, (struct range){ .start = at, .end = at + PAGE, .value = node });
}

static int presence(uintptr_t at);

static void stay(uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE)
		if (!find(&taken, at) && !find(&moved, at) && presence(at) == 0)
			put_at(at, node_by_policy(at));
}

long fake_mbind(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits, unsigned flags)
{
	uintptr_t start = (uintptr_t)addr, end = start + (len + PAGE - 1) / PAGE * PAGE;
	struct policy policy;
	int err;

	if (start % PAGE || end < start)
		return fail(EINVAL);
	err = read_policy(mode, mask, bits, &policy);
	if (err)
		return fail(err);
	if (!all_mapped(start, end))
		return fail(EFAULT);
	if (!(flags & MF_MOVE))
		stay(start, end);
	cut(&policies, start, end);
	if (flags & MF_MOVE)
		cut(&moved, start, end);
	if (policy.mode != QY_MPOL_DEFAULT && start < end)
		add(&policies, (struct range){ .start = start, .end = end, .origin = start,
					       .value = policy_number(policy.mode, &policy.nodes) });
	return 0;
}

long fake_set_mempolicy(int mode, const unsigned long *mask, unsigned long bits)
{
	struct policy policy;
	int err = read_policy(mode, mask, bits, &policy);

	if (err)
		return fail(err);
	thread_policy = policy;
	return 0;
}

long fake_get_mempolicy(int *mode, unsigned long *mask, unsigned long bits, void *addr, unsigned long flags)
{
	static const struct policy no_policy = { .mode = QY_MPOL_DEFAULT };
	const struct policy *policy = &thread_policy;
	const struct range *range;

	if (mask && bits % (8 * sizeof(mask[0])))
		return fail(EINVAL);
	if (flags & ~(unsigned long)(QY_MPOL_F_NODE | QY_MPOL_F_ADDR) || flags == QY_MPOL_F_NODE)
		return fail(EINVAL);
	if (flags & QY_MPOL_F_ADDR) {
		if (!all_mapped((uintptr_t)addr / PAGE * PAGE, (uintptr_t)addr / PAGE * PAGE + PAGE))
			return fail(EFAULT);
		range = find(&policies, (uintptr_t)addr);
		policy = range ? &policy_table[range->value] : &no_policy;
	}
	if (mode)
		*mode = flags & QY_MPOL_F_NODE ? node_by_policy((uintptr_t)addr) : policy->mode;
	if (mask) {
		memset(mask, 0, bits / 8);
		for (unsigned long n = 0; n < bits && n < FAKE_NODES; n++)
			if (fake_mask_has(&policy->nodes, (int)n))
				mask[n / (8 * sizeof(mask[0]))] |= 1ul << (n % (8 * sizeof(mask[0])));
	}
	return 0;
}

int fake_os_policy_at(const void *addr, int *nodes, int max, int *count)
{
	const struct range *range;
	int mode = QY_MPOL_DEFAULT, n = 0;

	pthread_mutex_lock(&fake_lock);
	range = find(&policies, (uintptr_t)addr);
	if (range) {
		mode = policy_table[range->value].mode;
		for (int i = 0; i < FAKE_NODES; i++)
			if (fake_mask_has(&policy_table[range->value].nodes, i)) {
				if (nodes && n < max)
					nodes[n] = i;
				n++;
			}
	}
	pthread_mutex_unlock(&fake_lock);
	if (count)
		*count = n;
	return mode;
}

int fake_os_node_at(const void *addr)
{
	pthread_mutex_lock(&fake_lock);
	int node = node_by_policy((uintptr_t)addr);
	pthread_mutex_unlock(&fake_lock);
	return node;
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
	for (size_t i = 0; i < hugetlb.count; i++) {
		struct range r = hugetlb.at[i];
		int pool = fake_pool_of((unsigned)r.value);
		uintptr_t from = r.start > start ? r.start : start, to = r.end < end ? r.end : end;
		for (; from < to; from += (uintptr_t)1 << r.value) {
			const struct range *page = find(&taken, from);
			if (page)
				fake.node[page->extra].pool[pool]++;
			if (r.extra && (page != NULL) == keep_right)
				fake.reserved[pool] += keep_right ? 1 : (uint64_t)-1;
		}
	}
	cut(&taken, start, end);
}

/* The node whose pool gives a huge page at this address; -1 when those that the policy allows are dry. */
static int pool_for(uintptr_t at, int pool)
{
	const struct range *range = find(&policies, at);
	const struct policy *policy = range ? &policy_table[range->value] : NULL;
	bool bound = policy && policy->mode == QY_MPOL_BIND;
	int wanted = node_by_policy(at), best = -1;

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
		const struct range *map = find(&hugetlb, at);
		uintptr_t size;
		int pool, node;
		if (!map)
			return ENOMEM;
		size = (uintptr_t)1 << map->value;
		at &= ~(size - 1);
		if (!find(&taken, at)) {
			pool = fake_pool_of((unsigned)map->value);
			node = pool_for(at, pool);
			if (node < 0 || (!map->extra && pool_free(pool) <= fake.reserved[pool]))
				return EFAULT;
			fake.node[node].pool[pool]--;
			fake.reserved[pool] -= map->extra ? 1 : 0;
			add(&taken, (struct range){ .start = at, .end = at + size, .value = map->value,
						    .extra = node });
		}
		at += size;
	}
	return 0;
}

/* ---- mapping ---- */

static void forget(uintptr_t start, uintptr_t end)
{
	give_back_huge(start, end, false);
	cut(&hugetlb, start, end);
	cut(&policies, start, end);
	cut(&moved, start, end);
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
	add(&hugetlb, (struct range){ .start = (uintptr_t)p, .end = (uintptr_t)p + len, .value = (int)shift,
				      .extra = reserve });
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
	add(&hugetlb, (struct range){ .start = (uintptr_t)p, .end = (uintptr_t)p + len, .value = (int)file->shift,
				      .extra = 1 });
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
	const struct range *first = find(&hugetlb, (uintptr_t)addr), *last = find(&hugetlb, (uintptr_t)addr + len);

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

/* BIND to nodes that are all full: the real kernel would look for somebody to kill. */
static bool bound_to_full(uintptr_t at)
{
	const struct range *range = find(&policies, at);

	if (!range || policy_table[range->value].mode != QY_MPOL_BIND)
		return false;
	for (int n = 0; n < FAKE_NODES; n++)
		if (fake_mask_has(&policy_table[range->value].nodes, n) && !is_full(n))
			return false;
	return true;
}

int fake_madvise(void *addr, size_t len, int advice)
{
	uintptr_t start = (uintptr_t)addr, end = start + (len + PAGE - 1) / PAGE * PAGE;

	if (len && start % PAGE == 0 && find(&hugetlb, start))
		return advise_huge(start, end, advice);
	if (advice == QY_MADV_POPULATE_WRITE && bound_to_full(start))
		return fail(ENOMEM);
	if (madvise(addr, len, advice) != 0)
		return -1;
	if (advice == ADVICE_DONTNEED || advice == QY_MADV_REMOVE)
		cut(&moved, start, end);
	return 0;
}

/* The parts of a list that are in [start, end), once more at another place. */
static void carry(struct ranges *list, uintptr_t start, uintptr_t end, uintptr_t target)
{
	size_t count = list->count;

	for (size_t i = 0; i < count; i++) {
		struct range r = list->at[i];

		if (r.end <= start || r.start >= end)
			continue;
		r.start = (r.start > start ? r.start : start) - start + target;
		r.end = (r.end < end ? r.end : end) - start + target;
		r.origin = r.origin - start + target;
		add(list, r);
	}
}

/* The pages go with their places and their policy; the place stays, with its policy. */
void *fake_mremap_away(void *old, size_t len, void *hint)
{
	uintptr_t start = (uintptr_t)old, end = start + len;
	void *p;

	if (find(&hugetlb, start)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	p = mremap(old, len, len, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, hint);
	if (p == MAP_FAILED)
		return p;
	forget((uintptr_t)p, (uintptr_t)p + len);
	carry(&policies, start, end, (uintptr_t)p);
	carry(&moved, start, end, (uintptr_t)p);
	cut(&moved, start, end);
	return p;
}

void *fake_mremap_to(void *old, size_t len, void *to)
{
	uintptr_t start = (uintptr_t)old, end = start + len, target = (uintptr_t)to;
	void *p;

	if (find(&hugetlb, start)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	p = mremap(old, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (p == MAP_FAILED)
		return p;
	forget(target, target + len);
	carry(&policies, start, end, target);
	carry(&moved, start, end, target);
	forget(start, end);
	return p;
}

/* ---- looking at pages ---- */

int fake_mincore(void *addr, size_t len, unsigned char *vec)
{
	if (mincore(addr, len, vec) != 0)
		return -1;
	for (size_t i = 0; taken.count && i < (len + PAGE - 1) / PAGE; i++)
		if (find(&taken, (uintptr_t)addr + i * PAGE))
			vec[i] = 1;
	return 0;
}

/* 0 when the page is in memory; or the error that move_pages would give for it. */
static int presence(uintptr_t at)
{
	unsigned char in_memory = 0;
	if (fake_mincore((void *)(at & ~(PAGE - 1)), PAGE, &in_memory) != 0)
		return EFAULT;
	return in_memory & 1 ? 0 : ENOENT;
}

/* A huge page of a pool goes as a whole, and needs one of the pool there. */
static int move_page(uintptr_t at, int node)
{
	struct range *huge = find(&taken, at);

	if (huge) {
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
	cut(&moved, at, at + PAGE);
	put_at(at, node);
	return 0;
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
	for (unsigned long i = 0; i < count; i++) {
		uintptr_t at = (uintptr_t)pages[i] & ~(PAGE - 1);
		int err = presence(at);
		if (!err && nodes)
			err = move_page(at, nodes[i]);
		status[i] = err ? -err : node_by_policy(at);
	}
	return 0;
}

int fake_page_is_huge(const void *addr, bool *huge)
{
	if (!find(&hugetlb, (uintptr_t)addr))
		return qy_os_linux.page_is_huge(addr, huge);
	*huge = presence((uintptr_t)addr) == 0;
	return 0;
}

void fake_memory_reset(void)
{
	memset(huge_files, 0, sizeof(huge_files));
	policies.count = hugetlb.count = taken.count = moved.count = 0;
	policy_count = 0;
	memset(&thread_policy, 0, sizeof(thread_policy));
	if (policy_table)
		memset(&policy_table[0], 0, sizeof(policy_table[0]));
}
