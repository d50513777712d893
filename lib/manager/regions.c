/* SPDX-License-Identifier: MIT */
#include "lib/manager/regions.h"

#include <errno.h>

#include "lib/base/lock.h"
#include "lib/manager/manager.h"
#include "numa/region.h"
#include "numa/topology.h"

#define PLACES 16
#define ALL_KINDS (QUARRY_REGION_MAP | QUARRY_REGION_UNMAP | QUARRY_REGION_PURGE)

static struct place {
	_Atomic(uint32_t) kinds;  /* 0: nobody is told. Written last when a function comes, first when it goes */
	_Atomic(uint32_t) inside; /* threads that are, or are about to look whether they are to be */
	quarry_region_fn *fn;     /* these change while kinds and inside are 0 */
	void *ctx;
} places[PLACES];

static _Atomic(bool) wanted; /* somebody is about to listen */
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF); /* of those who change places */
static __thread uint32_t telling __attribute__((tls_model("initial-exec")));
static __thread uint8_t telling_in[PLACES] __attribute__((tls_model("initial-exec")));

bool qy_regions_telling(void)
{
	return telling != 0;
}

bool qy_regions_heard(void)
{
	return atomic_load(&qy_region_teller) != NULL || atomic_load(&wanted);
}

static void leave(struct place *place)
{
	atomic_fetch_sub(&place->inside, 1);
	if (atomic_load(&place->kinds) == 0)
		qy_wake(&place->inside);
}

/* By what owns it, unless that has ended. */
static void say_whose(const struct qy_region *r, quarry_region_event *event)
{
	const struct qy_manager *m = qy_peek(r->owner);
	const struct qy_placement *placement = qy_peek(r->placement);

	if (r->ended)
		return;
	event->arena = &qy_arenas[qy_peek(qy_peek(m->head)->index)];
	if (placement->node >= 0)
		event->node = qy_node_kernel_id(placement->node);
}

static void tell(const struct qy_region *r, int kind, void *addr, size_t len)
{
	quarry_region_event event = {
		.struct_size = sizeof(event),
		.kind = kind,
		.page_kind = r->kind,
		.address = addr,
		.size = len,
		.node = -1,
		.fd = r->file.fd > 0 ? r->file.fd : -1,
	};
	int error = errno;

	say_whose(r, &event);
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *place = &places[i];

		if (!(atomic_load_explicit(&place->kinds, memory_order_relaxed) & (uint32_t)kind))
			continue;
		atomic_fetch_add(&place->inside, 1);
		if (atomic_load(&place->kinds) & (uint32_t)kind) {
			quarry_region_event one = event;

			telling++;
			telling_in[i]++;
			place->fn(&one, place->ctx);
			telling_in[i]--;
			telling--;
		}
		leave(place);
	}
	errno = error;
}

/* The lock is held. */
static void follow(void)
{
	bool any = false;

	for (unsigned i = 0; i < PLACES; i++)
		any = any || atomic_load_explicit(&places[i].kinds, memory_order_relaxed) != 0;
	atomic_store_explicit(&qy_region_teller, any ? tell : NULL, memory_order_release);
}

/* The one that is there, or a free one; NULL when there is neither. The lock is held. */
static struct place *find(quarry_region_fn *fn, const void *ctx)
{
	struct place *free_one = NULL;

	for (unsigned i = 0; i < PLACES; i++) {
		if (atomic_load(&places[i].kinds) == 0) {
			if (atomic_load(&places[i].inside) == 0)
				free_one = &places[i];
		} else if (places[i].fn == fn && places[i].ctx == ctx) {
			return &places[i];
		}
	}
	return free_one;
}

/* Places, as bits, at which the pair is, or was, and somebody may be inside. The lock is held. */
static uint32_t places_of(quarry_region_fn *fn, const void *ctx)
{
	uint32_t found = 0;

	for (unsigned i = 0; i < PLACES; i++)
		if (atomic_load(&places[i].inside) != 0 && places[i].fn == fn && places[i].ctx == ctx)
			found |= 1u << i;
	return found;
}

static void wait_until_out(uint32_t of)
{
	for (unsigned i = 0; i < PLACES; i++) {
		uint32_t inside;

		while ((of >> i & 1) && (inside = atomic_load(&places[i].inside)) != 0 && atomic_load(&places[i].kinds) == 0)
			qy_sleep_on(&places[i].inside, inside, 10);
	}
}

/* A pass of the reclaimer that a signal handler makes, and which saw that nobody listens, ends first. */
static void wait_for_handler(void)
{
	atomic_store(&wanted, true);
	if (qy_locks_held == 0) {
		qy_purge_hold();
		qy_purge_release();
	}
}

int qy_regions_listen(quarry_region_fn *fn, void *ctx, unsigned kinds)
{
	struct place *place;
	uint32_t out_of = 0;
	int error = 0;

	if (fn == NULL || (kinds & ~(unsigned)ALL_KINDS) != 0) {
		errno = EINVAL;
		return -1;
	}
	if (kinds != 0 && !qy_regions_heard())
		wait_for_handler();
	qy_lock(&lock);
	place = find(fn, ctx);
	if (kinds == 0 && (place == NULL || atomic_load(&place->kinds) == 0))
		error = ENOENT;
	else if (place == NULL)
		error = ENOSPC;
	if (error == 0) {
		if (atomic_load(&place->kinds) == 0) {
			place->fn = fn;
			place->ctx = ctx;
		}
		atomic_store(&place->kinds, kinds);
		follow();
		out_of = kinds == 0 ? places_of(fn, ctx) : 0;
	}
	atomic_store(&wanted, false);
	qy_unlock(&lock);
	if (error != 0) {
		errno = error;
		return -1;
	}
	if (telling == 0)
		wait_until_out(out_of);
	return 0;
}

void qy_regions_hush(bool on)
{
	qy_lock(&lock);
	if (on)
		atomic_store(&qy_region_teller, NULL);
	else
		follow();
	qy_unlock(&lock);
}

/* Whoever else was in a function stayed behind. */
void qy_regions_after_fork(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
	atomic_store(&wanted, false);
	for (unsigned i = 0; i < PLACES; i++)
		atomic_store(&places[i].inside, telling_in[i]);
}
