/* SPDX-License-Identifier: MIT */
/* The window against a map of who has which frame: reserved, and sparse; and on kernels that refuse it. Criterion
 * gives each test a process of its own, so each makes its own window. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/os.h"
#include "lib/base/refused.h"
#include "numa/region.h"
#include "numa/window.h"
#include "tests/fake_os.h"
#include "tests/unit/model.h"

#define GIB (UINT64_C(1) << 30)
#define ZONES 6
#define FRAMES (ZONES * QY_ZONE_FRAMES)
#define CLAIMS 200

static uint64_t refused(enum quarry_refusal cause)
{
	return qy_read(&qy_refused[cause]);
}

/* ---- a kernel that refuses by size, or takes addresses for hints ---- */

static struct qy_os kernel;
static size_t longest = SIZE_MAX;
static bool hints_only, odd_base;
static void *(*real_mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off);

static void *picky_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (len > longest) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	if (odd_base && addr == NULL && len > GIB) { /* one zone past an alignment to 16 */
		char *p = real_mmap(NULL, len + 32 * GIB, prot, flags, fd, off);

		return p == MAP_FAILED ? p : (char *)(qy_align_up((uintptr_t)p, 16 * GIB) + GIB);
	}
	if (hints_only && flags & QY_MAP_FIXED_NOREPLACE) { /* a kernel before 4.17 knows no such flag */
		addr = NULL;
		flags &= ~QY_MAP_FIXED_NOREPLACE;
	}
	return real_mmap(addr, len, prot, flags, fd, off);
}

static void install(void)
{
	fake_os_install();
	kernel = *qy_os;
	real_mmap = kernel.mmap;
	kernel.mmap = picky_mmap;
	qy_os = &kernel;
}

/* ---- claims against a model ---- */

struct claim {
	uint32_t first, frames;
};

static uint16_t owner[FRAMES]; /* 0: free, else the claim's number + 1 */
static struct claim claims[CLAIMS];
static unsigned used_in[ZONES];
static int zone_node[ZONES];
static size_t zones;
static bool claimed_once;

static void mark(unsigned n, bool claimed)
{
	for (uint32_t f = claims[n].first; f < claims[n].first + claims[n].frames; f++) {
		model_must((owner[f] == 0) == claimed, "frame %u is of one claim only", f);
		owner[f] = claimed ? (uint16_t)(n + 1) : 0;
		used_in[f / QY_ZONE_FRAMES] += claimed ? 1 : -1u;
	}
}

static uint64_t frame_address(uint32_t frame)
{
	return ((uint64_t)qy_window_base >> QY_FRAME_SHIFT) + frame;
}

static bool fits_at(uint32_t at, uint32_t frames)
{
	for (uint32_t f = at; f < at + frames; f++)
		if (owner[f] != 0)
			return false;
	return true;
}

/* Whether the model has room: in a zone of the node's or an empty one, or, for more than a zone, in empty zones. */
static bool has_room(uint32_t frames, uint32_t align, int node)
{
	bool many = frames > QY_ZONE_FRAMES || align > QY_ZONE_FRAMES;

	for (uint32_t at = 1; at + frames <= zones * QY_ZONE_FRAMES; at++) {
		uint32_t z = at / QY_ZONE_FRAMES, last = (at + frames - 1) / QY_ZONE_FRAMES;
		bool ours = used_in[z] == 0 || zone_node[z] == node;

		if (frame_address(at) % align != 0)
			continue;
		if (!many && (last != z || !ours))
			continue;
		if (many && (at % QY_ZONE_FRAMES != 0 || z == 0))
			continue;
		for (uint32_t other = z; many && other <= last; other++)
			if (used_in[other] != 0)
				ours = false;
		if (ours && fits_at(at, frames))
			return true;
	}
	return false;
}

/* The side elements of a claim's first and last page can be used, and were zero before anybody did. */
static void try_sides(const struct claim *c)
{
	uint32_t last = c->first + c->frames - 1;
	static uint8_t seen[FRAMES];

	for (uint32_t f = c->first; f <= last; f += c->frames > 1 ? c->frames - 1 : 1) {
		uint64_t *frame = (uint64_t *)(void *)(qy_window.frame_side + ((size_t)f << QY_FRAME_SIDE_SHIFT));
		uint64_t *page = (uint64_t *)(void *)(qy_window.page_side +
						      ((((size_t)f + 1) * QY_FRAME_PAGES - 1) << QY_PAGE_SIDE_SHIFT));
		uint64_t *slab = (uint64_t *)(void *)(qy_slab_side +
						      ((((size_t)f + 1) * QY_FRAME_UNITS - 1) << QY_SLAB_SIDE_SHIFT));

		model_must(*frame == (seen[f] ? f : 0) && *page == *frame && *slab == *frame, "sides of frame %u", f);
		*frame = *page = *slab = f;
		seen[f] = 1;
	}
}

static void claim(unsigned n, bool one_node)
{
	uint32_t frames = model_one_in(40) ? 1 + model_below(2 * QY_ZONE_FRAMES) : model_size(QY_ZONE_FRAMES);
	uint32_t align = model_one_in(4) ? 1u << model_below(10) : 1;
	int node = one_node ? 0 : (int)model_below(4) - 1;
	bool room;
	size_t before = qy_window_claimed();
	char *p;

	/* The first zone is never empty (frame 0 is kept), so it stays with the node that came first. */
	if (!claimed_once)
		zone_node[0] = node;
	claimed_once = true;
	room = has_room(frames, align, node);
	errno = 0;
	p = qy_window_claim(frames, align, node);
	if (p == NULL) {
		model_must(errno == ENOMEM, "errno %d", errno);
		model_must(!room, "%u frames, aligned to %u, of node %d have room", frames, align, node);
		return;
	}
	claims[n].first = (uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT);
	claims[n].frames = frames;
	model_must(qy_window_offset(p) % QY_FRAME == 0 && claims[n].first > 0, "frame %u", claims[n].first);
	model_must(claims[n].first + frames <= zones * QY_ZONE_FRAMES, "inside the window");
	model_must((uintptr_t)p % ((uintptr_t)align << QY_FRAME_SHIFT) == 0, "%p is aligned to %u frames", (void *)p,
		   align);
	model_must(qy_window_claimed() >= before, "claimed only grows");
	model_must(qy_window_has(p) && qy_window_has(p + (frames * QY_FRAME) - 1), "its sides are there");
	for (uint32_t z = claims[n].first / QY_ZONE_FRAMES; z <= (claims[n].first + frames - 1) / QY_ZONE_FRAMES; z++) {
		/* Another node's zone only when there is no room else. */
		model_must(used_in[z] == 0 || zone_node[z] == node || !room, "zone %u is of node %d, and %d came", z,
			   zone_node[z], node);
		if (used_in[z] == 0)
			zone_node[z] = node;
	}
	mark(n, true);
	try_sides(&claims[n]);
}

static void random_claims(unsigned steps, bool one_node)
{
	owner[0] = UINT16_MAX; /* never handed out */
	used_in[0] = 1;
	zones = qy_window_size / QY_ZONE;
	cr_assert(zones <= ZONES);
	for (unsigned n = 0; n < steps; n++) {
		unsigned i = model_below(CLAIMS);

		if (claims[i].frames == 0) {
			claim(i, one_node);
		} else {
			qy_window_release(qy_window_at((uintptr_t)claims[i].first << QY_FRAME_SHIFT), claims[i].frames);
			mark(i, false);
			claims[i].frames = 0;
		}
	}
	cr_assert_eq(qy_window_metadata() % (qy_window_claimed() / QY_ZONE), 0);
	cr_assert(qy_window_metadata_touched() > 0 && qy_window_metadata_touched() <= qy_window_metadata());
}

Test(window, claims_against_a_model, .timeout = 120)
{
	model_start("window");
	cr_assert_eq(qy_window_init(ZONES * GIB), 0);
	cr_assert_not(qy_window_sparse());
	cr_assert_eq(qy_window_size, ZONES * GIB);
	random_claims(150000, false);
}

Test(window, claims_of_one_node_against_a_model, .timeout = 120)
{
	model_start("window");
	cr_assert_eq(qy_window_init(2 * GIB), 0);
	random_claims(300000, true);
}

Test(window, claims_in_a_sparse_window_against_a_model, .timeout = 120)
{
	model_start("window");
	install();
	fake_os_address_limit((ZONES - 2) * GIB);
	cr_assert_eq(qy_window_init(0), 0);
	cr_assert(qy_window_sparse());
	cr_assert_eq(qy_window_size, ZONES * GIB);
	cr_assert_eq(refused(QUARRY_REFUSED_WINDOW), 1);
	random_claims(150000, false);
}

/* More than a zone, and alignment to more than a zone: the address itself, not its place in the window. */
Test(window, alignment_above_a_zone_is_of_the_address)
{
	install();
	odd_base = true;
	cr_assert_eq(qy_window_init(24 * GIB), 0);
	cr_assert_eq(qy_window_base % (16 * GIB), GIB);
	for (uint32_t align = QY_ZONE_FRAMES; align <= 8 * QY_ZONE_FRAMES; align *= 2) {
		char *p = qy_window_claim(1, align, -1);

		cr_assert_not_null(p);
		cr_expect_eq((uintptr_t)p % ((uintptr_t)align << QY_FRAME_SHIFT), 0, "%p, aligned to %u frames",
			     (void *)p, align);
	}
}

/* Whoever comes first: a zone's sides are on one node, so all its memory is. */
Test(window, the_first_zone_is_of_one_node_too)
{
	char *of_3, *of_0;

	cr_assert_eq(qy_window_init(16 * GIB), 0);
	of_3 = qy_window_claim(1, 1, 3);
	of_0 = qy_window_claim(1, 1, 0);
	cr_assert_neq(qy_window_offset(of_3) >> QY_ZONE_SHIFT, qy_window_offset(of_0) >> QY_ZONE_SHIFT);
}

/* The window is aligned in itself, and its sides are whole, wherever the kernel put it. */
Test(window, the_reservation_is_one_piece_and_costs_nothing)
{
	install();
	cr_assert_eq(qy_window_init(8 * GIB), 0);
	cr_assert_eq(qy_window_base % QY_ZONE, 0);
	cr_assert_eq(fake_os_calls(FAKE_MMAP), 1);
	cr_assert_eq(fake_os_advised(QY_MADV_DONTDUMP), 1);
	cr_assert_eq(qy_window_claimed(), 0);
	cr_assert_eq(qy_window_metadata(), 0);
	/* A slab's record can be read for any address of the window, before anything was claimed. */
	for (size_t offset = 0; offset < qy_window_size; offset += QY_ZONE / 4)
		cr_assert_eq(*(qy_slab_side + (offset >> QY_UNIT_SHIFT << QY_SLAB_SIDE_SHIFT)), 0);
	cr_assert_not(qy_window_has(NULL));
	cr_assert_not(qy_window_has(&kernel));
	cr_assert_not(qy_window_has(qy_window_at(0)));
}

/* A core dump has the records of what is claimed, without which nothing in it could be told of, and of nothing else. */
Test(window, records_of_what_is_claimed_are_dumped)
{
	install();
	cr_assert_eq(qy_window_init(8 * GIB), 0);
	cr_assert_eq(fake_os_advised(QY_MADV_DODUMP), 0);
	cr_assert_not_null(qy_window_claim(1, 1, 0));
	cr_assert_eq(fake_os_advised(QY_MADV_DODUMP), 3);
	cr_assert_not_null(qy_window_claim(1, 1, 0));
	cr_assert_eq(fake_os_advised(QY_MADV_DODUMP), 3);
}

Test(window, records_that_cannot_be_dumped_are_no_error)
{
	install();
	cr_assert_eq(qy_window_init(8 * GIB), 0);
	fake_os_fail_advice(QY_MADV_DODUMP, EINVAL);
	errno = 0;
	cr_assert_not_null(qy_window_claim(1, 1, 0));
	cr_assert_eq(errno, 0);
	cr_assert_eq(fake_os_advised(QY_MADV_DODUMP), 3);
	errno = 0;
	cr_assert_null(qy_window_claim(QY_ZONE_FRAMES * 1000, 1, 0));
	cr_assert_eq(errno, ENOMEM);
}

Test(window, its_size_by_what_was_asked)
{
	install();
	fake_os_total_memory(GIB);
	cr_assert_eq(qy_window_init(1), 0);
	cr_assert_eq(qy_window_size, QY_ZONE);
}

Test(window, its_size_by_the_machine)
{
	install();
	fake_os_total_memory(GIB); /* so small a machine has 64 GiB of window */
	cr_assert_eq(qy_window_init(0), 0);
	if (qy_window_size > 32 * GIB) /* a sanitizer's build has less */
		cr_assert_eq(qy_window_size, 64 * GIB);
}

Test(window, a_refused_reservation_is_tried_smaller)
{
	install();
	longest = 20 * GIB;
	cr_assert_eq(qy_window_init(64 * GIB), 0);
	cr_assert_not(qy_window_sparse());
	cr_assert(qy_window_size == 16 * GIB || qy_window_size == 8 * GIB);
	cr_assert_not_null(qy_window_claim(1, 1, 0));
}

/* Overcommit that counts reservations, or sides that cannot be made readable. */
Test(window, without_any_reservation_it_is_sparse)
{
	char *p;

	install();
	longest = GIB / 2;
	cr_assert_eq(qy_window_init(64 * GIB), 0);
	cr_assert(qy_window_sparse());
	cr_assert_eq(refused(QUARRY_REFUSED_WINDOW), 1);
	p = qy_window_claim(3, 1, 0);
	cr_assert_not_null(p);
	cr_assert_eq(qy_window_map(p, 3 * QY_FRAME, 0), 0);
	memset(p, 1, 3 * QY_FRAME);
	cr_assert_eq(qy_window_unmap(p, 3 * QY_FRAME), 0);
	cr_assert_eq(qy_window_map(p, 3 * QY_FRAME, 0), 0);
	cr_assert_eq(p[0] | p[3 * QY_FRAME - 1], 0);
}

Test(window, nothing_at_all_is_enomem)
{
	install();
	fake_os_fail(FAKE_MMAP, ENOMEM);
	errno = 0;
	cr_assert_eq(qy_window_init(0), -1);
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(refused(QUARRY_REFUSED_MAP), 1);
}

static void exhaust(uint32_t expected)
{
	char *p, *last = NULL;
	uint32_t n = 0;

	while ((p = qy_window_claim(1, 1, 0)) != NULL) {
		last = p;
		n++;
	}
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(n, expected);
	cr_assert_eq(refused(QUARRY_REFUSED_MAP), 1);
	errno = 0;
	cr_assert_null(qy_window_claim(1, 1, 0));
	cr_assert_eq(errno, ENOMEM);
	/* What is given back can be had again, whoever comes. */
	qy_window_release(last, 1);
	cr_assert_eq((char *)qy_window_claim(1, 1, 0), last);
	qy_window_release(qy_window_at(QY_ZONE), QY_ZONE_FRAMES);
	cr_assert_not_null(qy_window_claim(QY_ZONE_FRAMES, QY_ZONE_FRAMES, 2));
}

Test(window, exhausted_it_says_so_and_recovers)
{
	cr_assert_eq(qy_window_init(2 * GIB), 0);
	exhaust(2 * QY_ZONE_FRAMES - 1);
}

Test(window, exhausted_when_sparse)
{
	install();
	fake_os_address_limit(GIB / 2);
	cr_assert_eq(qy_window_init(0), 0);
	exhaust(2 * QY_ZONE_FRAMES - 1);
}

/* A zone's sides are committed when it is first needed; the kernel may refuse, and may relent. */
static void sides_refused(enum fake_call call)
{
	for (unsigned k = 1; k <= 3; k++) {
		size_t before = qy_window_claimed();

		fake_os_fail_kth(call, k, ENOMEM);
		errno = 0;
		if (qy_window_claim(QY_ZONE_FRAMES, 1, 1) == NULL) {
			cr_assert_eq(errno, ENOMEM);
			cr_assert(qy_window_claimed() <= before + QY_ZONE);
		}
		fake_os_heal();
		cr_assert_not_null(qy_window_claim(1, 1, 1));
		qy_window_metadata_touched();
	}
	for (size_t at = 0; at < qy_window_claimed(); at += QY_FRAME) {
		qy_window.frame_side[at >> QY_FRAME_SHIFT << QY_FRAME_SIDE_SHIFT] = 1;
		qy_window.page_side[at >> QY_PAGE_SHIFT << QY_PAGE_SIDE_SHIFT] = 1;
		qy_slab_side[at >> QY_UNIT_SHIFT << QY_SLAB_SIDE_SHIFT] = 1;
	}
}

Test(window, sides_that_cannot_be_committed)
{
	install();
	cr_assert_eq(qy_window_init(16 * GIB), 0);
	sides_refused(FAKE_MPROTECT);
}

Test(window, sparse_sides_that_cannot_be_committed)
{
	install();
	fake_os_address_limit(14 * GIB);
	cr_assert_eq(qy_window_init(0), 0);
	sides_refused(FAKE_MPROTECT);
	sides_refused(FAKE_MMAP);
}

/* ---- collisions: in a sparse window, others map where we might ---- */

static char *put_foreign(char *at)
{
	char *p = mmap(at, QY_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	cr_assert_eq(p, at);
	*p = 42;
	return p;
}

Test(window, foreign_memory_in_a_sparse_window_is_left_alone)
{
	char *p, *foreign;

	install();
	fake_os_address_limit(4 * GIB);
	cr_assert_eq(qy_window_init(0), 0);
	p = qy_window_claim(2, 1, 0);
	foreign = put_foreign(p + QY_FRAME);
	errno = 0;
	cr_assert_eq(qy_window_map(p, 2 * QY_FRAME, 0), -1);
	cr_assert_eq(errno, EEXIST);
	cr_assert_eq(*foreign, 42);
	cr_assert_eq(qy_window_map(p, QY_FRAME, 0), 0);
}

Test(window, an_old_kernel_that_maps_elsewhere_is_noticed)
{
	unsigned long unmapped;
	char *p;

	install();
	fake_os_address_limit(4 * GIB);
	cr_assert_eq(qy_window_init(0), 0);
	p = qy_window_claim(1, 1, 0);
	unmapped = fake_os_calls(FAKE_MUNMAP);
	hints_only = true;
	errno = 0;
	cr_assert_eq(qy_window_map(p, QY_FRAME, 0), -1);
	cr_assert_eq(errno, EEXIST);
	cr_assert_eq(fake_os_calls(FAKE_MUNMAP), unmapped + 1);
}

/* One foreign page must not make the rest of the window useless. */
Test(window, regions_are_found_around_foreign_memory)
{
	struct qy_placement placement = { .node = 0 };
	int us;
	char *p;

	install();
	fake_os_address_limit(4 * GIB);
	cr_assert_eq(qy_window_init(0), 0);
	p = qy_window_claim(1, 1, 0);
	qy_window_release(p, 1);
	put_foreign(p);
	for (int n = 0; n < 4; n++) {
		struct qy_region *r = qy_region_create(&placement, 1, 1, QUARRY_PAGES_BASE, &us);

		cr_assert_not_null(r, "region %d, errno %d", n, errno);
		memset(qy_region_addr(r), 1, QY_FRAME);
	}
	cr_assert_eq(*p, 42);
}

/* ---- memory for records ---- */

Test(window, records_are_aligned_zero_and_apart, .timeout = 60)
{
	static unsigned char *start[4000];
	static size_t length[4000];
	size_t sum = 0;

	model_start("window");
	for (unsigned n = 0; n < 4000; n++) {
		size_t align = (size_t)1 << model_below(13);

		length[n] = model_one_in(500) ? 1 + model_below(1 << 20) : model_size(3000);
		start[n] = qy_meta_alloc(length[n], align);
		model_must(start[n] != NULL, "errno %d", errno);
		model_must((uintptr_t)start[n] % align == 0, "record %u", n);
		for (size_t i = 0; i < length[n]; i++)
			model_must(start[n][i] == 0, "record %u is zero", n);
		memset(start[n], (int)(n % 255 + 1), length[n]);
		sum += length[n];
	}
	for (unsigned n = 0; n < 4000; n++)
		for (size_t i = 0; i < length[n]; i++)
			model_must(start[n][i] == n % 255 + 1, "record %u is its own", n);
	cr_assert_eq(qy_meta_used(), sum);
}

Test(window, records_without_memory_are_enomem)
{
	unsigned n = 0;

	install();
	fake_os_fail_from(FAKE_MMAP, 2, ENOMEM);
	while (qy_meta_alloc(1000, 64) != NULL)
		n++;
	cr_assert_eq(errno, ENOMEM);
	cr_assert(n > 100);
	cr_assert_eq(refused(QUARRY_REFUSED_MAP), 1);
	fake_os_heal();
	cr_assert_not_null(qy_meta_alloc(1000, 64));
}

#define THREADS 4
#define EACH 3000

static void *allocate_records(void *arg)
{
	uint32_t **mine = arg;

	for (uint32_t i = 0; i < EACH; i++) {
		mine[i] = qy_meta_alloc(sizeof(uint32_t) * 5, sizeof(uint32_t));
		if (mine[i] != NULL)
			for (int w = 0; w < 5; w++)
				mine[i][w] += i + 1;
	}
	return NULL;
}

Test(window, records_are_of_one_thread, .timeout = 60)
{
	static uint32_t *records[THREADS][EACH];
	pthread_t thread[THREADS];

	for (int t = 0; t < THREADS; t++)
		cr_assert_eq(pthread_create(&thread[t], NULL, allocate_records, records[t]), 0);
	for (int t = 0; t < THREADS; t++)
		pthread_join(thread[t], NULL);
	for (int t = 0; t < THREADS; t++)
		for (uint32_t i = 0; i < EACH; i++)
			for (int w = 0; w < 5; w++)
				model_must(records[t][i] != NULL && records[t][i][w] == i + 1, "record %u of %d", i, t);
}
