/* SPDX-License-Identifier: MIT */
/* Who allocated what lives in a part of an arena, by the profile's samples. (Sampled objects stand in slabs of their own, so
 * that nothing is known of any one slab: what is told is who allocated the objects of such a size that live.) */
#include "lib/view/holders.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/manager/class.h"
#include "lib/manager/manager.h"
#include "lib/view/sort.h"
#include "numa/os.h"

#define PLACES 2048 /* twice as many as rows */

struct search {
	const quarry_view_use *use;
	struct qy_holder *list; /* those with most bytes */
	size_t count, max;      /* of them; and the room */
	size_t found;
	uint64_t now;
	uint16_t row[PLACES];   /* by their sites' addresses, the rows' numbers and 1 more (open addressing) */
};

_Static_assert(PLACES >= 2 * QY_HOLDERS_MAX && QY_HOLDERS_MAX < UINT16_MAX, "half of them are free");

/* ---- which ---- */

static bool is_of(const quarry_view_use *use, const struct qy_site *s)
{
	if (&qy_arenas[s->arena] != use->arena)
		return false;
	switch (use->kind) {
	case QUARRY_VIEW_SLAB:
		/* (Of what stands in mixed slabs no more is known than that it is of none of these.) */
		return use->object_size == s->size && use->object_size != 0;
	case QUARRY_VIEW_BLOCK:
		return s->size > QY_CLASS_MAX;
	default:
		return true;
	}
}

static uint64_t key_of_holder(const void *holder)
{
	return UINT64_MAX - ((const struct qy_holder *)holder)->figures.live_bytes;
}

static void find(void *ctx, const struct qy_site *s)
{
	struct search *search = ctx;
	struct qy_holder one = { .site = s };

	if (!is_of(search->use, s))
		return;
	qy_site_figures(s, &one.figures);
	if (one.figures.live == 0)
		return;
	search->found++;
	qy_sort_offer(search->list, &search->count, search->max, &one, sizeof(one), key_of_holder);
}

/* ---- for how long ---- */

/* Where the site's row is told of, or would be. */
static uint16_t *place_of(struct search *search, const struct qy_site *s)
{
	size_t i = (size_t)((uintptr_t)s * UINT64_C(0x9e3779b97f4a7c15) >> 40) % PLACES;

	while (search->row[i] != 0 && search->list[search->row[i] - 1].site != s)
		i = (i + 1) % PLACES;
	return &search->row[i];
}

/* (Called for all samples there are, under a lock that their frees wait for: the site itself is not looked at.) */
static void add_age(void *ctx, const struct qy_sample *sample)
{
	struct search *search = ctx;
	uint16_t row = *place_of(search, sample->site);
	uint64_t age = search->now > sample->born ? search->now - sample->born : 0;

	if (row != 0)
		search->list[row - 1].ages[qy_site_decade(age)] += sample->weight;
}

size_t qy_holders_get(const quarry_view_use *use, struct qy_holder *list, size_t max)
{
	struct search search = { .use = use, .list = list, .max = max, .now = qy_os->now_ms() };

	qy_assert(max <= QY_HOLDERS_MAX);
	qy_sites_visit(find, &search);
	qy_sort(list, search.count, sizeof(list[0]), key_of_holder);
	for (size_t i = 0; i < search.count; i++)
		*place_of(&search, list[i].site) = (uint16_t)(i + 1);
	if (search.count > 0)
		qy_samples_visit(add_age, &search);
	return search.found;
}

/* ---- for programs ---- */

static void fill(quarry_view_holder *to, const struct qy_holder *from)
{
	*to = (quarry_view_holder){
		.struct_size = sizeof(*to),
		.samples = from->figures.live,
		.objects = from->figures.live_objects,
		.bytes = from->figures.live_bytes,
		.object_size = from->site->size,
		.depth = (unsigned)qy_min(from->site->depth, QUARRY_STACK_MAX),
	};
	for (unsigned i = 0; i < QUARRY_VIEW_AGES; i++)
		to->ages[i] = (from->ages[i] + QY_WEIGHT_ONE / 2) / QY_WEIGHT_ONE;
	memcpy(to->stack, from->site->frames, to->depth * sizeof(to->stack[0]));
}

_Static_assert(QUARRY_VIEW_AGES == QY_SITE_LIVES, "the same decades");

QUARRY_API long quarry_view_holders(const quarry_view_use *use, quarry_view_holder *list, size_t max, size_t size)
{
	struct qy_holder *found = NULL;
	quarry_view_holder one;
	size_t mapped = 0, n;

	if (use == NULL || (list == NULL && max > 0) || (size == 0 && max > 0))
		return qy_fail(EINVAL, use == NULL ? "use: NULL" : list == NULL ? "list: NULL" : "size: 0");
	if (max > 0) {
		mapped = qy_align_up(qy_min(max, QY_HOLDERS_MAX) * sizeof(*found), qy_os_page_size());
		found = qy_os->mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (found == MAP_FAILED)
			return qy_fail(ENOMEM, "no memory for the rows");
	}
	n = qy_holders_get(use, found, qy_min(max, QY_HOLDERS_MAX));
	for (size_t i = 0; i < n && i < qy_min(max, QY_HOLDERS_MAX); i++) {
		fill(&one, &found[i]);
		memcpy((char *)list + i * size, &one, qy_min(size, sizeof(one)));
	}
	if (mapped > 0)
		qy_os->munmap(found, mapped);
	return (long)n;
}
