/* SPDX-License-Identifier: MIT */
/* Which managers there are. Slots below the number of nodes are the nodes' default arenas, made when first asked for.
 * Lock: one, rank QY_RANK_REGISTRY, over making and unmaking; readers of the slots take none. */
#include <errno.h>
#include <string.h>

#include "lib/manager/breaker.h"
#include "lib/base/checker.h"
#include "lib/base/gone.h"
#include "lib/base/tables.h"
#include "lib/manager/manager.h"
#include "lib/manager/sites.h"
#include "lib/manager/registry.h"
#include "numa/cgroup.h"
#include "numa/topology.h"

#define PLACEMENTS_KEPT 16 /* of one manager */

struct quarry_arena qy_arenas[QY_ARENAS_MAX];
QY_SPARSE_TABLE(qy_arenas);

struct qy_lock qy_registry_lock = QY_LOCK_INIT(QY_RANK_REGISTRY);
static struct qy_manager *unused;
static struct qy_placement *unused_placements; /* linked by older */
static uint32_t slots_top; /* slots at and above were never used */
static uint32_t next_try;  /* handles are reused as late as can be, so that a stale one is noticed */

struct qy_past qy_past;

static struct qy_manager *manager_at(uint32_t i)
{
	return __atomic_load_n(&qy_arenas[i].manager, __ATOMIC_ACQUIRE);
}

/* A manager that ended is empty; what is left are figures, which others may be looking at. */
static void clear_figures(struct qy_manager *m)
{
	for (qy_counter *c = &m->region_count; c <= &m->past_adopted; c++)
		atomic_store_explicit(c, 0, memory_order_relaxed);
	atomic_store_explicit(&m->hard_limit, 0, memory_order_relaxed);
	atomic_store_explicit(&m->soft_limit, 0, memory_order_relaxed);
	atomic_store_explicit(&m->decay_ms, QUARRY_DECAY_DEFAULT, memory_order_relaxed);
	atomic_store_explicit(&m->default_users, 0, memory_order_relaxed);
	atomic_store_explicit(&m->heaps, 0, memory_order_relaxed);
	atomic_store_explicit(&m->family_used, 0, memory_order_relaxed);
	memset(&m->marks, 0, sizeof(m->marks));
	memset(m->fallback, 0, sizeof(m->fallback));
	m->lost = false;
	m->homing = (struct qy_homing){ .pending = false };
	atomic_store_explicit(&m->huge.collapsed, 0, memory_order_relaxed);
	atomic_store_explicit(&m->huge.collapse_failed, 0, memory_order_relaxed);
}

static struct qy_manager *take_unused(void)
{
	struct qy_manager *m = unused;

	if (m != NULL) {
		unused = m->free_next;
		clear_figures(m);
		return m;
	}
	m = qy_meta_alloc(sizeof(struct qy_manager), QY_CACHE_LINE);
	if (m != NULL) {
		qy_lock_init(&m->lock, QY_RANK_MANAGER);
		atomic_store_explicit(&m->decay_ms, QUARRY_DECAY_DEFAULT, memory_order_relaxed);
	}
	return m;
}

/* A copy of a placement, for as long as the manager lives. Type-stable: the viewer may look at one that was retired.
 * The lock is held. NULL with ENOMEM. */
static struct qy_placement *keep_placement(const struct qy_placement *placement)
{
	struct qy_placement *p = unused_placements;

	if (p != NULL)
		unused_placements = p->older;
	else
		p = qy_meta_alloc(sizeof(*p), QY_CACHE_LINE);
	if (p != NULL) {
		*p = *placement;
		p->older = NULL;
	}
	return p;
}

static void retire_placements(struct qy_manager *m)
{
	struct qy_placement *p = m->placement, *older;

	for (; p != NULL; p = older) {
		older = p->older;
		p->older = unused_placements;
		unused_placements = p;
	}
}

static bool is_regions(struct qy_manager *m, const struct qy_placement *p)
{
	bool found = false;

	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions; r != NULL && !found; r = r->next)
		found = r->placement == p;
	qy_unlock(&m->lock);
	return found;
}

/* An arena may be moved for as long as the process lives: of the placements that it had, some are kept, for those who
 * are about to map a region by one. The lock is held. */
static void forget_oldest(struct qy_manager *m)
{
	struct qy_placement *p = m->placement;
	unsigned kept = 1;

	for (; p->older != NULL && p->older->older != NULL; p = p->older)
		kept++;
	if (kept < PLACEMENTS_KEPT || p->older == NULL || is_regions(m, p->older))
		return;
	p->older->older = unused_placements;
	unused_placements = p->older;
	p->older = NULL;
}

const struct qy_placement *qy_manager_place(struct qy_manager *m, const struct qy_placement *placement)
{
	struct qy_placement *p;

	qy_lock(&qy_registry_lock);
	p = keep_placement(placement);
	if (p != NULL) {
		p->older = m->placement;
		qy_publish(m->placement, p);
		forget_oldest(m);
		if (m->locals != NULL)
			qy_family_forget(m);
	}
	qy_unlock(&qy_registry_lock);
	if (p == NULL)
		errno = ENOMEM;
	return p;
}

/* (Whoever still looks at the one that ended reads a name of both, and no byte that never was.) */
static void set_name(struct qy_manager *m, const char *name)
{
	for (size_t i = 0; i + 1 < sizeof(m->name); i++) {
		qy_publish(m->name[i], *name);
		name += *name != 0;
	}
}

void qy_manager_name(const struct qy_manager *m, char name[QUARRY_ARENA_NAME_MAX])
{
	for (size_t i = 0; i < QUARRY_ARENA_NAME_MAX; i++)
		name[i] = qy_peek(m->name[i]);
}

struct qy_manager *qy_registry_make(const struct qy_placement *placement, int kind, const char *name)
{
	struct qy_placement *asked = keep_placement(placement);
	struct qy_manager *m = asked == NULL ? NULL : take_unused();

	if (m == NULL) {
		if (asked != NULL) {
			asked->older = unused_placements;
			unused_placements = asked;
		}
		errno = ENOMEM;
		return NULL;
	}
	/* (One that ended may be looked at still.) */
	qy_publish(m->of_node, false);
	qy_publish(m->life, 0);
	qy_publish(m->kind, kind);
	qy_publish(m->placement, asked);
	qy_publish(m->head, m);
	qy_publish(m->locals, NULL);
	set_name(m, name);
	qy_heap_open(&m->orphans, m, 0);
	qy_heap_open(&m->thinning, m, 0);
	return m;
}

/* What happened in an arena that ended has happened to the process. (Its heaps have handed over their counts.) */
static void keep_counts(struct qy_manager *m)
{
	qy_count_shared(&qy_past.purges, qy_read(&m->purges));
	qy_count_shared(&qy_past.purged, qy_read(&m->purged));
	qy_count_shared(&qy_past.brought_home, qy_read(&m->brought_home));
	qy_count_shared(&qy_past.moved, qy_read(&m->moved));
	qy_count_shared(&qy_past.collapsed, qy_read(&m->huge.collapsed));
	qy_count_shared(&qy_past.collapse_failed, qy_read(&m->huge.collapse_failed));
	qy_count_shared(&qy_past.refills, qy_read(&m->past_refills));
	qy_count_shared(&qy_past.received, qy_read(&m->past_received));
	qy_count_shared(&qy_past.adopted, qy_read(&m->past_adopted));
}

void qy_registry_retire(struct qy_manager *m)
{
	keep_counts(m);
	retire_placements(m);
	m->free_next = unused;
	unused = m;
}

/* The lock is held. */
static void enlist(struct qy_manager *m, uint32_t slot)
{
	qy_publish(m->index, slot);
	if (slot >= slots_top)
		__atomic_store_n(&slots_top, slot + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&qy_arenas[slot].manager, m, __ATOMIC_RELEASE);
}

static uint32_t free_slot(void)
{
	uint32_t nodes = (uint32_t)qy_node_count();

	for (uint32_t n = 0; n < QY_ARENAS_MAX; n++) {
		uint32_t slot = next_try++ % QY_ARENAS_MAX;

		if (slot >= nodes && qy_arenas[slot].manager == NULL)
			return slot;
	}
	return 0;
}

int qy_manager_unknown_node(const quarry_nodeset *nodes)
{
	for (int n = 0; n < QUARRY_NODES_MAX; n++)
		if (quarry_nodeset_has(nodes, (unsigned)n) && qy_node_dense(n) < 0)
			return n;
	return -1;
}

/* The one node of a set (dense), or -1. */
static int only_node(const quarry_nodeset *nodes)
{
	int found = -1;

	for (int i = 0; i < qy_node_count(); i++) {
		if (!quarry_nodeset_has(nodes, (unsigned)qy_node_kernel_id(i)))
			continue;
		if (found >= 0)
			return -1;
		found = i;
	}
	return found;
}

/* The first node of a set (dense), or -1. */
static int first_node(const quarry_nodeset *nodes)
{
	for (int i = 0; i < qy_node_count(); i++)
		if (quarry_nodeset_has(nodes, (unsigned)qy_node_kernel_id(i)))
			return i;
	return -1;
}

static struct qy_placement place(const quarry_arena_attr *attr)
{
	static const quarry_nodeset none;
	struct qy_placement placement = { .policy = attr->policy, .flags = attr->flags, .nodes = attr->nodes };

	placement.bind = attr->policy != QUARRY_POLICY_LOCAL && !qy_nodes_made_up();
	placement.any = memcmp(&attr->nodes, &none, sizeof(none)) == 0;
	if (placement.any)
		qy_nodes_allowed(&placement.nodes);
	if (attr->policy == QUARRY_POLICY_PREFERRED)
		placement.node = first_node(&placement.nodes);
	else
		placement.node = placement.bind ? only_node(&placement.nodes) : -1;
	if (qy_node_count() == 1)
		placement.node = 0;
	return placement;
}

static struct qy_manager *create(const struct qy_placement *placement, int kind, const char *name, bool family,
				 uint64_t hard, uint64_t soft, long decay_ms)
{
	struct qy_manager *m = NULL;
	uint32_t slot;

	qy_lock(&qy_registry_lock);
	slot = free_slot();
	if (slot == 0)
		errno = EAGAIN;
	else
		m = qy_registry_make(placement, kind, name);
	if (m != NULL && family && !qy_family_begin(m)) {
		qy_registry_retire(m);
		m = NULL;
	}
	if (m != NULL) {
		atomic_store_explicit(&m->hard_limit, hard, memory_order_relaxed);
		atomic_store_explicit(&m->soft_limit, soft, memory_order_relaxed);
		if (soft != 0)
			qy_limits_note_soft();
		atomic_store_explicit(&m->decay_ms, decay_ms, memory_order_relaxed);
		enlist(m, slot);
	}
	qy_unlock(&qy_registry_lock);
	return m;
}

struct qy_manager *qy_manager_create(const struct qy_placement *placement, int kind, const char *name)
{
	return create(placement, kind, name, false, 0, 0, QUARRY_DECAY_DEFAULT);
}

struct qy_manager *qy_manager_create_as(const quarry_arena_attr *attr)
{
	struct qy_placement placement = place(attr);
	bool family = attr->policy == QUARRY_POLICY_LOCAL && qy_node_count() > 1;

	return create(&placement, attr->page_kind, attr->name, family, attr->hard_limit, attr->soft_limit,
		      attr->flags & QUARRY_ARENA_DECAY ? (long)attr->decay_ms : QUARRY_DECAY_DEFAULT);
}

struct qy_manager *qy_manager_of_kernel_node(int node)
{
	int dense = qy_node_dense(node);

	if (dense >= 0)
		return qy_manager_of_node(dense);
	errno = EINVAL;
	return NULL;
}

static void name_of_node(char *name, int kernel_id)
{
	char digits[12];
	int n = 0;

	do
		digits[n++] = (char)('0' + kernel_id % 10);
	while ((kernel_id /= 10) > 0);
	memcpy(name, "node ", 5);
	for (int i = 0; i < n; i++)
		name[5 + i] = digits[n - 1 - i];
	name[5 + n] = 0;
}

static QY_COLD struct qy_manager *make_of_node(int node)
{
	struct qy_placement placement = { .policy = QUARRY_POLICY_PREFERRED, .node = node };
	char name[QUARRY_ARENA_NAME_MAX];
	struct qy_manager *m;

	/* On a machine of one node there is nothing to ask for, and one whose nodes are made up has one. */
	placement.bind = qy_node_count() > 1;
	quarry_nodeset_add(&placement.nodes, (unsigned)qy_node_kernel_id(node));
	name_of_node(name, qy_node_kernel_id(node));
	qy_lock(&qy_registry_lock);
	m = manager_at((uint32_t)node);
	if (m == NULL) {
		m = qy_registry_make(&placement, QUARRY_PAGES_AUTO, name);
		if (m != NULL) {
			qy_publish(m->of_node, true);
			enlist(m, (uint32_t)node);
		}
	}
	qy_unlock(&qy_registry_lock);
	return m;
}

struct qy_manager *qy_manager_of_node(int node)
{
	struct qy_manager *m = manager_at((uint32_t)node);

	return QY_LIKELY(m != NULL) ? m : make_of_node(node);
}

struct qy_manager *qy_manager_of_arena(const quarry_arena *arena)
{
	uintptr_t at = (uintptr_t)arena - (uintptr_t)qy_arenas;
	struct qy_manager *m = NULL;

	if (at < sizeof(qy_arenas) && at % sizeof(qy_arenas[0]) == 0)
		m = manager_at((uint32_t)(at / sizeof(qy_arenas[0])));
	if (m == NULL)
		errno = EINVAL;
	return m;
}

/* All regions of a manager, put before those of a list. */
static struct qy_region *take_regions(struct qy_manager *m, struct qy_region *list)
{
	struct qy_region *r;

	qy_lock(&m->lock);
	while ((r = m->regions) != NULL) {
		qy_manager_unbook_region(m, r);
		qy_runs_drop_region(m, (uint32_t)qy_region_frame(r));
		r->next = list;
		list = r;
	}
	qy_unlock(&m->lock);
	return list;
}

void qy_manager_tell_gone(struct qy_manager *m)
{
	for (struct qy_manager *one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one))
		for (struct qy_region *r = one->regions; r != NULL; r = r->next)
			qy_tell_gone(qy_region_addr(r), (size_t)r->frames << QY_FRAME_SHIFT);
}

void qy_manager_empty(struct qy_manager *m)
{
	struct qy_region *list = NULL;

	qy_manager_tell_gone(m);
	qy_manager_reset(m);
	for (struct qy_manager *one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one))
		list = take_regions(one, list);
	qy_manager_unmap(list);
}

void qy_manager_end_checked(struct qy_manager *m)
{
	qy_checker_end(&qy_arenas[m->index]);
	for (struct qy_manager *one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one))
		for (struct qy_region *r = one->regions; r != NULL; r = r->next)
			qy_checker_forbid(qy_region_addr(r), (size_t)r->frames << QY_FRAME_SHIFT);
}

struct qy_region *qy_manager_end(struct qy_manager *m)
{
	struct qy_region *list = NULL;

	qy_manager_reset(m);
	for (struct qy_manager *one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one)) {
		list = take_regions(one, list);
		qy_quota_end(&one->quota);
	}
	for (struct qy_region *r = list; r != NULL; r = r->next)
		r->ended = true;
	qy_breaker_forget_arena(&qy_arenas[m->index]);
	qy_lock(&qy_registry_lock);
	__atomic_store_n(&qy_arenas[m->index].manager, NULL, __ATOMIC_RELEASE);
	qy_family_end(m);
	qy_registry_retire(m);
	qy_unlock(&qy_registry_lock);
	return list;
}

void qy_manager_unmap(struct qy_region *list)
{
	while (list != NULL) {
		struct qy_region *r = list;

		list = r->next;
		qy_region_destroy(r);
	}
}

void qy_manager_destroy(struct qy_manager *m)
{
	qy_manager_unmap(qy_manager_end(m));
}

struct qy_manager *qy_manager_next(const struct qy_manager *m)
{
	uint32_t top = __atomic_load_n(&slots_top, __ATOMIC_RELAXED);
	struct qy_manager *head = m == NULL ? NULL : qy_peek(m->head);

	if (head != NULL && qy_peek(head->locals) != NULL) {
		struct qy_manager *local = qy_family_next(head, m == head ? NULL : m);

		if (local != NULL)
			return local;
	}
	for (uint32_t i = m == NULL ? 0 : qy_peek(m->index) + 1; i < top; i++)
		if (manager_at(i) != NULL)
			return manager_at(i);
	return NULL;
}

void qy_registry_fork_lock(void)
{
	qy_lock(&qy_registry_lock);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		qy_lock(&m->lock);
	qy_window_fork_lock();
}

void qy_registry_after_fork(void)
{
	qy_cgroup_forget();
	qy_limits_after_fork();
	qy_sites_after_fork();
	qy_checker_after_fork();
	/* Those who were moving arenas stayed behind. */
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		m->homing.moving = 0;
}

void qy_registry_fork_unlock(void)
{
	qy_window_fork_unlock();
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		qy_unlock(&m->lock);
	qy_unlock(&qy_registry_lock);
}
