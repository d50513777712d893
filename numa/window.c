/* SPDX-License-Identifier: MIT */
#include "numa/window.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/lock.h"
#include "numa/os.h"
#include "numa/policy.h"
#include "lib/base/refused.h"
#include "lib/base/tables.h"

#define ZONES_MAX 16384 /* 16 TiB */
#define SLAB_SLICE ((QY_ZONE >> QY_UNIT_SHIFT) << QY_SLAB_SIDE_SHIFT)
#define PAGE_SLICE ((QY_ZONE >> QY_PAGE_SHIFT) << QY_PAGE_SIDE_SHIFT)
#define FRAME_SLICE ((QY_ZONE >> QY_FRAME_SHIFT) << QY_FRAME_SIDE_SHIFT)
#define ZONE_SIDES (SLAB_SLICE + PAGE_SLICE + FRAME_SLICE)
#define META_CHUNK ((size_t)256 << 10)

/* ThreadSanitizer and AddressSanitizer keep shadow memory for every mapping; a small window keeps them fast. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

struct zone {
	int16_t node;   /* whose memory it is (dense, -1 mixed), once claimed */
	uint16_t used;  /* claimed frames */
	uint64_t map[QY_ZONE_FRAMES / 64];
};

/* All below is under the lock. zones_claimed counts from the window's start: zones below it have their side arrays. */
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_WINDOW);
static struct zone zones[ZONES_MAX];
QY_SPARSE_TABLE(zones);
static size_t zones_claimed, zones_total;
static _Atomic(bool) sparse;

static struct qy_lock meta_lock = QY_LOCK_INIT(QY_RANK_LEAF);
static char *meta_next, *meta_end;
static qy_counter meta_used;

static void set_sides(char *sides)
{
	qy_slab_side = sides;
	qy_window.page_side = qy_slab_side + zones_total * SLAB_SLICE;
	qy_window.frame_side = qy_window.page_side + zones_total * PAGE_SLICE;
}

/* Records are touched here and there: where THP is set to `always`, a small process would pay 2 MiB for each. */
static void no_huge_pages(void *addr, size_t len)
{
	qy_os->madvise(addr, len, QY_MADV_NOHUGEPAGE);
}

static void unreserve(char *from, char *to)
{
	if (from < to)
		qy_os->munmap(from, (size_t)(to - from));
}

/* One reservation for the window and its sides, so that both can be had or neither. A slab record can be read for any
 * address of the window from the start: private memory that is only read is the zero page, and counts for nothing. */
static bool reserve(size_t count)
{
	size_t len = count * (QY_ZONE + ZONE_SIDES) + QY_ZONE;
	char *p = qy_os->mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	qy_os->madvise(p, len, QY_MADV_DONTDUMP);
	zones_total = count;
	qy_window_base = qy_align_up((uintptr_t)p, QY_ZONE);
	set_sides((char *)qy_window_base + count * QY_ZONE);
	no_huge_pages(qy_slab_side, count * ZONE_SIDES);
	if (qy_os->mprotect(qy_slab_side, count * SLAB_SLICE, PROT_READ) == 0) {
		/* What was for alignment. */
		unreserve(p, (char *)qy_window_base);
		unreserve(qy_window.frame_side + count * FRAME_SLICE, p + len);
		return true;
	}
	qy_os->munmap(p, len);
	zones_total = 0;
	return false;
}

/* A range far below where the kernel places mappings, from a probe, so that it is as random as those are. It has as
 * many zones as the address space may have, and two. */
static bool place_sparse(void)
{
	size_t page = qy_os_page_size(), count = (size_t)qy_min(qy_os->address_limit() >> QY_ZONE_SHIFT, 254) + 2;
	uintptr_t probe = (uintptr_t)qy_os->mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t span = count * (QY_ZONE + ZONE_SIDES) + ((uintptr_t)1 << 40);

	if ((void *)probe == MAP_FAILED)
		return false;
	qy_os->munmap((void *)probe, page);
	sparse = true;
	zones_total = count;
	if (probe > 2 * span)
		qy_window_base = qy_align_down(probe - span, QY_ZONE);
	else
		qy_window_base = qy_align_up(probe + QY_ZONE, QY_ZONE);
	set_sides((char *)qy_window_base + count * QY_ZONE);
	qy_refuse(QUARRY_REFUSED_WINDOW);
	return qy_os->mmap(qy_slab_side, count * SLAB_SLICE, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS | QY_MAP_FIXED_NOREPLACE, -1, 0) == qy_slab_side;
}

void qy_window_memory(void (*tell)(void *ctx, const void *from, size_t bytes), void *ctx)
{
	tell(ctx, (const void *)qy_window_base, sparse ? qy_window_claimed() : zones_total * QY_ZONE);
	tell(ctx, qy_slab_side, zones_total * ZONE_SIDES);
}

int qy_window_init(size_t wanted)
{
	size_t size = wanted;

	if (size == 0)
		size = (size_t)qy_min(qy_os->total_memory(), (size_t)1 << 42) * 4;
	size = qy_min(qy_max(size, wanted ? QY_ZONE : QY_ZONE * 64), QY_ZONE * ZONES_MAX);
	if (SANITIZED)
		size = qy_min(size, QY_ZONE * 32);
	if (qy_os->address_limit() == UINT64_MAX) {
		for (; size >= QY_ZONE; size /= 4)
			if (reserve(qy_align_up(size, QY_ZONE) >> QY_ZONE_SHIFT))
				break;
	}
	if (zones_total == 0 && !place_sparse()) {
		qy_refuse(QUARRY_REFUSED_MAP);
		errno = ENOMEM;
		return -1;
	}
	/* Frame 0 is never handed out: in lists made of frame and page numbers, 0 means none. */
	qy_window_size = zones_total * QY_ZONE;
	zones[0].map[0] = 1;
	zones[0].used = 1;
	return 0;
}

static int commit(void *addr, size_t len)
{
	if (!sparse)
		return qy_os->mprotect(addr, len, PROT_READ | PROT_WRITE);
	if (qy_window_map(addr, len, 0) != 0)
		return -1;
	no_huge_pages(addr, len);
	return 0;
}

/* What is known of a node's memory is read and written on that node, mostly. */
static void place_sides(size_t z, int node)
{
	zones[z].node = (int16_t)node;
	qy_policy_prefer(node, qy_slab_side + z * SLAB_SLICE, SLAB_SLICE);
	qy_policy_prefer(node, qy_window.page_side + z * PAGE_SLICE, PAGE_SLICE);
	qy_policy_prefer(node, qy_window.frame_side + z * FRAME_SLICE, FRAME_SLICE);
}

/* Make the next zone usable: commit its slices of the side arrays. Lock held. */
static int claim_zone(int node)
{
	size_t z = zones_claimed;
	char *slab = qy_slab_side + z * SLAB_SLICE, *page = qy_window.page_side + z * PAGE_SLICE;

	if (z == zones_total) {
		errno = ENOMEM;
		return -1;
	}
	if (qy_os->mprotect(slab, SLAB_SLICE, PROT_READ | PROT_WRITE) != 0 || commit(page, PAGE_SLICE) != 0)
		return -1;
	if (commit(qy_window.frame_side + z * FRAME_SLICE, FRAME_SLICE) != 0) {
		if (sparse)
			qy_os->munmap(page, PAGE_SLICE);
		return -1;
	}
	place_sides(z, node);
	zones_claimed = z + 1;
	atomic_store_explicit(&qy_window.claimed, zones_claimed * QY_ZONE, memory_order_release);
	return 0;
}

static bool frame_used(size_t frame)
{
	const struct zone *zone = &zones[frame / QY_ZONE_FRAMES];

	return zone->map[frame % QY_ZONE_FRAMES / 64] >> (frame % 64) & 1;
}

static void mark_frames(size_t first, size_t count, bool used)
{
	for (size_t frame = first; frame < first + count; frame++) {
		struct zone *zone = &zones[frame / QY_ZONE_FRAMES];
		uint64_t bit = (uint64_t)1 << (frame % 64), *word = &zone->map[frame % QY_ZONE_FRAMES / 64];

		qy_assert(((*word & bit) != 0) != used);
		*word = used ? *word | bit : *word & ~bit;
		zone->used = (uint16_t)(used ? zone->used + 1 : zone->used - 1);
	}
}

/* First fit inside one zone: low addresses first keeps the side arrays dense. Returns a frame number or 0. */
static size_t find_in_zone(size_t z, size_t frames, size_t align)
{
	size_t first = z * QY_ZONE_FRAMES, end = first + QY_ZONE_FRAMES, at = first;

	if (zones[z].used + frames > QY_ZONE_FRAMES)
		return 0;
	while ((at = qy_align_up(at, align)) + frames <= end) {
		size_t n = 0;

		while (n < frames && !frame_used(at + n))
			n++;
		if (n == frames)
			return at;
		at += n + 1;
	}
	return 0;
}

/* Several zones, or an alignment above a zone: whole empty zones in a row. */
static size_t find_zones(size_t frames, size_t align, int node)
{
	size_t count = qy_align_up(frames, QY_ZONE_FRAMES) / QY_ZONE_FRAMES;
	size_t step = qy_max(align / QY_ZONE_FRAMES, 1), base = qy_window_base >> QY_ZONE_SHIFT;

	for (size_t z = qy_align_up(base + 1, step) - base; z + count <= zones_total; z += step) {
		size_t n = 0;

		while (n < count && (z + n >= zones_claimed || zones[z + n].used == 0))
			n++;
		if (n < count)
			continue;
		while (zones_claimed < z + count)
			if (claim_zone(node) != 0)
				return 0;
		for (n = 0; n < count; n++)
			if (zones[z + n].node != node)
				place_sides(z + n, node);
		return z * QY_ZONE_FRAMES;
	}
	return 0;
}

static size_t find_frames(size_t frames, size_t align, int node)
{
	if (frames > QY_ZONE_FRAMES || align > QY_ZONE_FRAMES)
		return find_zones(frames, align, node);
	for (size_t z = 0; z < zones_claimed; z++) {
		size_t at = 0;

		/* A zone without anything in it can change hands. */
		if (zones[z].used == 0 && zones[z].node != node)
			place_sides(z, node);
		if (zones[z].node == node)
			at = find_in_zone(z, frames, align);
		if (at != 0)
			return at;
	}
	if (claim_zone(node) == 0)
		return find_in_zone(zones_claimed - 1, frames, align);
	/* No zone of its own is to be had (a small window, many nodes): what another node has left will do, whose side
	 * arrays are where they are. The memory itself is placed all the same. */
	for (size_t z = 0; z < zones_claimed; z++) {
		size_t at = find_in_zone(z, frames, align);

		if (at != 0)
			return at;
	}
	errno = ENOMEM;
	return 0;
}

/* Records of what is claimed are in core dumps: what is in the heap is told by them. (Of all that is reserved, a dump that
 * a debugger makes would be of terabytes.) The lock is not held: a patched madvise may allocate. A kernel that will not
 * has dumps without them, and is no error of who allocates. */
static void have_dumped(void)
{
	static _Atomic(size_t) dumped; /* zones */
	size_t z = atomic_load_explicit(&dumped, memory_order_relaxed);
	int error = errno;

	while (!sparse && z < qy_window_claimed() / QY_ZONE) {
		if (!atomic_compare_exchange_weak_explicit(&dumped, &z, z + 1, memory_order_relaxed, memory_order_relaxed))
			continue;
		qy_os->madvise(qy_slab_side + z * SLAB_SLICE, SLAB_SLICE, QY_MADV_DODUMP);
		qy_os->madvise(qy_window.page_side + z * PAGE_SLICE, PAGE_SLICE, QY_MADV_DODUMP);
		qy_os->madvise(qy_window.frame_side + z * FRAME_SLICE, FRAME_SLICE, QY_MADV_DODUMP);
		z++;
	}
	errno = error;
}

void *qy_window_claim(size_t frames, size_t align_frames, int node)
{
	size_t frame;

	qy_lock(&lock);
	frame = find_frames(frames, align_frames, node);
	/* The first zone lacks a frame: what just does not fit there fits the next one. */
	if (frame == 0 && frames <= QY_ZONE_FRAMES && zones_claimed < zones_total && zones_claimed == 1)
		frame = find_frames(frames, align_frames, node);
	if (frame != 0)
		mark_frames(frame, frames, true);
	qy_unlock(&lock);
	have_dumped();
	if (frame == 0) {
		qy_refuse(QUARRY_REFUSED_MAP);
		errno = ENOMEM;
		return NULL;
	}
	return qy_window_at(frame << QY_FRAME_SHIFT);
}

void qy_window_release(void *addr, size_t frames)
{
	qy_lock(&lock);
	mark_frames(qy_window_offset(addr) >> QY_FRAME_SHIFT, frames, false);
	qy_unlock(&lock);
}

/* The program has limited its address space since the start, and the reservation alone is more than it may have: give
 * up what is reserved and not used, and go on without. (The slab side stays: it is read for any address.) */
static QY_COLD bool give_up_reservation(void)
{
	char *base = (char *)qy_window_base;
	bool done = false;

	if (sparse || qy_os->address_limit() == UINT64_MAX)
		return false;
	qy_lock(&lock);
	if (!sparse) {
		char *end = base + zones_claimed * QY_ZONE;

		unreserve(end, base + zones_total * QY_ZONE);
		unreserve(qy_window.page_side + zones_claimed * PAGE_SLICE, qy_window.page_side + zones_total * PAGE_SLICE);
		unreserve(qy_window.frame_side + zones_claimed * FRAME_SLICE,
			  qy_window.frame_side + zones_total * FRAME_SLICE);
		for (size_t f = 1; f < zones_claimed * QY_ZONE_FRAMES; f++)
			if (!frame_used(f))
				unreserve(base + (f << QY_FRAME_SHIFT), base + ((f + 1) << QY_FRAME_SHIFT));
		sparse = true;
		done = true;
		qy_refuse(QUARRY_REFUSED_WINDOW);
	}
	qy_unlock(&lock);
	return done;
}

static int map_once(void *addr, size_t len, int flags, int fd)
{
	int how = (sparse ? QY_MAP_FIXED_NOREPLACE : MAP_FIXED) | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	void *p = qy_os->mmap(addr, len, PROT_READ | PROT_WRITE, how | flags, fd, 0);

	if (p == addr)
		return 0;
	/* A kernel before 4.17 takes the address for a hint. */
	if (p != MAP_FAILED) {
		qy_os->munmap(p, len);
		errno = EEXIST;
	}
	return -1;
}

int qy_window_map_file(void *addr, size_t len, int flags, int fd)
{
	int r = map_once(addr, len, flags, fd);

	if (r != 0 && errno == ENOMEM && (flags & MAP_HUGETLB) == 0 && give_up_reservation()) {
		/* What was claimed for this call was reserved still. */
		qy_os->munmap(addr, len);
		r = map_once(addr, len, flags, fd);
	}
	return r;
}

int qy_window_map(void *addr, size_t len, int flags)
{
	return qy_window_map_file(addr, len, flags, -1);
}

int qy_window_unmap(void *addr, size_t len)
{
	void *p;

	if (sparse)
		return qy_os->munmap(addr, len);
	p = qy_os->mmap(addr, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (p == MAP_FAILED)
		return -1;
	qy_os->madvise(addr, len, QY_MADV_DONTDUMP);
	return 0;
}

bool qy_window_sparse(void)
{
	return sparse;
}

size_t qy_window_metadata(void)
{
	return qy_window_claimed() / QY_ZONE * ZONE_SIDES;
}

static size_t touched(char *side, size_t len)
{
	unsigned char in[1024];
	size_t page = qy_os_page_size(), n = 0;

	for (size_t at = 0; at < len; at += sizeof(in) * page) {
		size_t part = qy_min(len - at, sizeof(in) * page);

		if (qy_os->mincore(side + at, part, in) != 0)
			continue;
		for (size_t i = 0; i < part / page; i++)
			n += in[i] & 1;
	}
	return n * page;
}

size_t qy_window_metadata_touched(void)
{
	size_t count = qy_window_claimed() / QY_ZONE;

	return touched(qy_slab_side, count * SLAB_SLICE) + touched(qy_window.page_side, count * PAGE_SLICE) +
	       touched(qy_window.frame_side, count * FRAME_SLICE);
}

void qy_window_fork_lock(void)
{
	qy_lock(&lock);
	qy_lock(&meta_lock);
}

void qy_window_fork_unlock(void)
{
	qy_unlock(&meta_lock);
	qy_unlock(&lock);
}

/* From the current chunk, when it has room. The lock is held. */
static char *take_record(size_t size, size_t align)
{
	char *p = (char *)qy_align_up((uintptr_t)meta_next, align);

	if (meta_next == NULL || p > meta_end || size > (size_t)(meta_end - p))
		return NULL;
	meta_next = p + size;
	qy_count_shared(&meta_used, size);
	return p;
}

/* In front of each chunk, so that it is known what is quarry's own. */
struct chunk {
	struct chunk *next;
	size_t len;
};

static struct chunk *chunks; /* with the lock held */

static struct chunk *map_chunk(size_t len)
{
	void *p = qy_os->mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED && give_up_reservation())
		p = qy_os->mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		qy_refuse(QUARRY_REFUSED_MAP);
		errno = ENOMEM;
		return NULL;
	}
	no_huge_pages(p, len);
	return p;
}

void *qy_meta_alloc(size_t size, size_t align)
{
	size_t front = qy_align_up(sizeof(struct chunk), align);
	size_t len = qy_align_up(qy_max(front + size, META_CHUNK), qy_os_page_size());
	struct chunk *chunk;
	char *p;

	qy_lock(&meta_lock);
	p = take_record(size, align);
	qy_unlock(&meta_lock);
	if (p != NULL)
		return p;
	/* A patched mmap may allocate, and come here itself: no lock is held. */
	chunk = map_chunk(len);
	if (chunk == NULL)
		return NULL;
	qy_lock(&meta_lock);
	*chunk = (struct chunk){ chunks, len };
	chunks = chunk;
	/* What is left of the old chunk is lost, or all of this one but the record, whichever is less. */
	if (meta_next == NULL || len - front - size >= (size_t)(meta_end - meta_next)) {
		meta_next = (char *)(chunk + 1);
		meta_end = (char *)chunk + len;
		p = take_record(size, align);
	} else {
		p = (char *)chunk + front;
		qy_count_shared(&meta_used, size);
	}
	qy_unlock(&meta_lock);
	return p;
}

void qy_meta_memory(void (*tell)(void *ctx, const void *from, size_t bytes), void *ctx)
{
	qy_lock(&meta_lock);
	for (const struct chunk *c = chunks; c != NULL; c = c->next)
		tell(ctx, c, c->len);
	qy_unlock(&meta_lock);
}

size_t qy_meta_used(void)
{
	return qy_read(&meta_used);
}
