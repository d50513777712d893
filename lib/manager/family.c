/* SPDX-License-Identifier: MIT */
/* Families: an arena of the local policy has, on a machine of several nodes, a manager for each node that its threads
 * run on, so that each gets memory of its own. The head has none; its limits hold for all of them together.
 *
 * Which manager serves the threads of a node is found once and kept, until the nodes that are allowed, or those that
 * the arena is on, change. Making, finding and forgetting are under the registry's lock; readers take none. */
#include <errno.h>
#include <string.h>

#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/registry.h"
#include "numa/topology.h"

/* Type-stable, as managers are. Both tables are by dense node: the managers there are, each with memory of that node,
 * and, behind them, the one of them that serves the node's threads. */
struct family {
	struct family *next; /* unused */
	uint32_t nodes;
	struct qy_manager *table[];
};

static struct family *unused;
static _Atomic(uint32_t) reroutes;

static struct family *family_of(struct qy_manager **locals)
{
	return (struct family *)(void *)((char *)locals - offsetof(struct family, table));
}

static struct qy_manager *entry(struct qy_manager **locals, uint32_t i)
{
	return __atomic_load_n(&locals[i], __ATOMIC_ACQUIRE);
}

static void set_entry(struct qy_manager **locals, uint32_t i, struct qy_manager *m)
{
	__atomic_store_n(&locals[i], m, __ATOMIC_RELEASE);
}

/* ---- made and unmade ---- */

bool qy_family_begin(struct qy_manager *m)
{
	uint32_t nodes = (uint32_t)qy_node_count();
	struct family *f = unused;

	if (f != NULL && f->nodes == nodes) {
		unused = f->next;
	} else {
		f = qy_meta_alloc(sizeof(*f) + 2 * nodes * sizeof(f->table[0]), QY_CACHE_LINE);
		if (f == NULL) {
			errno = ENOMEM;
			return false;
		}
		f->nodes = nodes;
	}
	__atomic_store_n(&m->locals, f->table, __ATOMIC_RELEASE);
	return true;
}

void qy_family_forget(struct qy_manager *m)
{
	uint32_t nodes = family_of(m->locals)->nodes;

	for (uint32_t i = nodes; i < 2 * nodes; i++)
		set_entry(m->locals, i, NULL);
	atomic_fetch_add(&reroutes, 1);
}

void qy_family_end(struct qy_manager *m)
{
	struct family *f;

	if (m->locals == NULL)
		return;
	f = family_of(m->locals);
	qy_publish(m->locals, NULL);
	for (uint32_t i = 0; i < f->nodes; i++) {
		struct qy_manager *local = f->table[i];

		set_entry(f->table, i, NULL);
		set_entry(f->table, f->nodes + i, NULL);
		if (local != NULL)
			qy_registry_retire(local);
	}
	f->next = unused;
	unused = f;
}

/* ---- who serves whom ---- */

static int first_of(const quarry_nodeset *set)
{
	for (int i = 0; i < qy_node_count(); i++)
		if (quarry_nodeset_has(set, (unsigned)qy_node_kernel_id(i)))
			return i;
	return 0;
}

/* Its memory is preferred, or strictly bound, to be of the one node. The lock is held. */
static struct qy_manager *make_local(struct qy_manager *head, int node)
{
	const struct qy_placement *asked = qy_peek(head->placement);
	struct qy_placement placement = { .policy = QUARRY_POLICY_LOCAL, .node = node, .bind = true };
	struct qy_manager *m;

	placement.flags = qy_peek(asked->flags);
	quarry_nodeset_add(&placement.nodes, (unsigned)qy_node_kernel_id(node));
	m = qy_registry_make(&placement, head->kind, head->name);
	if (m == NULL)
		return NULL;
	qy_publish(m->head, head);
	qy_publish(m->local, (uint32_t)node);
	qy_publish(m->index, head->index);
	set_entry(head->locals, (uint32_t)node, m);
	return m;
}

/* Which node is nearest takes reading the kernel's files, which is done before the lock is taken; when what it depends
 * on changed meanwhile, it is done again. */
static QY_COLD struct qy_manager *find_serving(struct qy_manager *head, int node)
{
	uint32_t nodes = family_of(head->locals)->nodes, before;
	struct qy_manager *m;
	int at;

	for (;;) {
		const quarry_nodeset *set = &qy_peek(head->placement)->nodes;

		before = atomic_load(&reroutes);
		at = qy_node_nearest(set, node);
		/* None of them may be used: the kernel will refuse, which is counted, and have its own way. */
		if (at < 0)
			at = first_of(set);
		qy_lock(&qy_registry_lock);
		if (atomic_load(&reroutes) == before)
			break;
		qy_unlock(&qy_registry_lock);
	}
	m = entry(head->locals, (uint32_t)at);
	if (m == NULL)
		m = make_local(head, at);
	if (m != NULL)
		set_entry(head->locals, nodes + (uint32_t)node, m);
	qy_unlock(&qy_registry_lock);
	return m;
}

struct qy_manager *qy_manager_known_serving(struct qy_manager *m, int node)
{
	struct qy_manager **locals = m->locals;

	if (QY_LIKELY(locals == NULL))
		return m;
	qy_assert(node >= 0 && (uint32_t)node < family_of(locals)->nodes);
	return entry(locals, family_of(locals)->nodes + (uint32_t)node);
}

struct qy_manager *qy_manager_serving(struct qy_manager *m, int node)
{
	struct qy_manager *serving = qy_manager_known_serving(m, node);

	return QY_LIKELY(serving != NULL) ? serving : find_serving(m, node);
}

struct qy_manager *qy_family_next(struct qy_manager *head, const struct qy_manager *m)
{
	struct qy_manager **locals = __atomic_load_n(&head->locals, __ATOMIC_ACQUIRE);

	if (locals == NULL)
		return m == NULL ? head : NULL;
	for (uint32_t i = m == NULL ? 0 : qy_peek(m->local) + 1; i < family_of(locals)->nodes; i++)
		if (entry(locals, i) != NULL)
			return entry(locals, i);
	return NULL;
}

void qy_families_reroute(void)
{
	qy_lock(&qy_registry_lock);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		if (m->locals != NULL)
			qy_family_forget(m);
	atomic_fetch_add(&reroutes, 1);
	qy_unlock(&qy_registry_lock);
}

uint32_t qy_manager_reroutes(void)
{
	return atomic_load_explicit(&reroutes, memory_order_acquire);
}

/* ---- limits ---- */

uint64_t qy_manager_used(struct qy_manager *m)
{
	struct qy_manager *head = qy_peek(m->head);

	return head == m && qy_peek(m->locals) == NULL ? qy_read(&m->used)
					      : atomic_load_explicit(&head->family_used, memory_order_relaxed);
}

uint64_t qy_manager_held(struct qy_manager *m)
{
	uint64_t bytes = qy_read(&m->used) + (qy_read(&m->dirty_pages) << QY_PAGE_SHIFT);

	return bytes - qy_min(bytes, qy_read(&m->absent_pages) << QY_PAGE_SHIFT);
}

uint64_t qy_family_held(struct qy_manager *m)
{
	struct qy_manager *head = qy_peek(m->head);
	uint64_t bytes = 0;

	for (struct qy_manager *one = qy_family_next(head, NULL); one != NULL; one = qy_family_next(head, one))
		bytes += qy_manager_held(one);
	return bytes;
}

static bool claim(struct qy_manager *head, size_t bytes, uint64_t limit)
{
	uint64_t was = atomic_load_explicit(&head->family_used, memory_order_relaxed);

	do {
		if (limit != 0 && was + bytes > limit)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&head->family_used, &was, was + bytes, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

static void unclaim(struct qy_manager *m, size_t bytes)
{
	if (QY_UNLIKELY(m->head != m))
		atomic_fetch_sub_explicit(&m->head->family_used, bytes, memory_order_relaxed);
}

bool qy_manager_allows(struct qy_manager *m, size_t bytes)
{
	struct qy_manager *head = m->head;
	uint64_t limit = atomic_load_explicit(&head->hard_limit, memory_order_relaxed);

	if (head == m ? QY_LIKELY(limit == 0) || qy_read(&m->used) + bytes <= limit : claim(head, bytes, limit)) {
		if (QY_LIKELY(qy_quota_charge(&m->quota, bytes)))
			return true;
		unclaim(m, bytes);
		head = NULL;
		limit = (uint64_t)qy_setting(hard_limit);
	}
	qy_limits_deny(head, bytes, limit);
	return false;
}

void qy_manager_unclaim(struct qy_manager *m, size_t bytes)
{
	unclaim(m, bytes);
	qy_quota_uncharge(&m->quota, bytes);
}
