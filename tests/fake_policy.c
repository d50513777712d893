/* SPDX-License-Identifier: MIT */
/* The fake kernel's memory policy: which one belongs to which addresses, and on which node they are by it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/fake_ranges.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define POLICIES_MAX 65536
#define MF_MOVE 2u

static struct fake_policy *policy_table; /* each different policy once; number 0 is the default */
static int policy_count;
static struct fake_policy thread_policy;

static int policy_number(int mode, const struct fake_mask *nodes)
{
	if (!policy_table)
		policy_table = fake_own_memory(POLICIES_MAX * sizeof(policy_table[0]));
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

const struct fake_policy *fake_policy_at(uintptr_t at)
{
	const struct fake_range *range = fake_range_find(&fake_policies, at);

	return range ? &policy_table[range->value] : NULL;
}

int fake_node_by_policy(uintptr_t at)
{
	const struct fake_range *range = fake_range_find(&fake_moved, at);
	const struct fake_policy *policy;
	int first;

	if (range)
		return range->value;
	range = fake_range_find(&fake_taken, at);
	if (range)
		return range->extra;
	range = fake_range_find(&fake_policies, at);
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
static int read_policy(int mode, const unsigned long *mask, unsigned long bits, struct fake_policy *policy)
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

void fake_put_at(uintptr_t at, int node)
{
	struct fake_range *last = fake_moved.count > 0 ? &fake_moved.at[fake_moved.count - 1] : NULL;

	if (last && last->end == at && last->value == node)
		last->end = at + PAGE;
	else
		fake_range_add(&fake_moved, (struct fake_range){ .start = at, .end = at + PAGE, .value = node });
}

#define STEP ((uintptr_t)1024 * PAGE) /* asked of at once: of each page by itself takes most of a test's time */

/* (All of it is mapped.) */
static void stay(uintptr_t start, uintptr_t end)
{
	unsigned char in_memory[STEP / PAGE];

	for (uintptr_t from = start; from < end; from += STEP) {
		uintptr_t to = end - from > STEP ? from + STEP : end;

		if (mincore((void *)from, to - from, in_memory) != 0)
			fake_stop("mincore of what is mapped");
		for (uintptr_t at = from; at < to; at += PAGE)
			if ((in_memory[(at - from) / PAGE] & 1) && !fake_range_find(&fake_taken, at) &&
			    !fake_range_find(&fake_moved, at))
				fake_put_at(at, fake_node_by_policy(at));
	}
}

long fake_mbind(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long bits, unsigned flags)
{
	uintptr_t start = (uintptr_t)addr, end = start + (len + PAGE - 1) / PAGE * PAGE;
	struct fake_policy policy;
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
	fake_range_cut(&fake_policies, start, end);
	if (flags & MF_MOVE)
		fake_range_cut(&fake_moved, start, end);
	if (policy.mode != QY_MPOL_DEFAULT && start < end)
		fake_range_add(&fake_policies,
			       (struct fake_range){ .start = start, .end = end, .origin = start,
						    .value = policy_number(policy.mode, &policy.nodes) });
	return 0;
}

long fake_set_mempolicy(int mode, const unsigned long *mask, unsigned long bits)
{
	struct fake_policy policy;
	int err = read_policy(mode, mask, bits, &policy);

	if (err)
		return fail(err);
	thread_policy = policy;
	return 0;
}

long fake_get_mempolicy(int *mode, unsigned long *mask, unsigned long bits, void *addr, unsigned long flags)
{
	static const struct fake_policy no_policy = { .mode = QY_MPOL_DEFAULT };
	const struct fake_policy *policy = &thread_policy;

	if (mask && bits % (8 * sizeof(mask[0])))
		return fail(EINVAL);
	if (flags & ~(unsigned long)(QY_MPOL_F_NODE | QY_MPOL_F_ADDR) || flags == QY_MPOL_F_NODE)
		return fail(EINVAL);
	if (flags & QY_MPOL_F_ADDR) {
		if (!all_mapped((uintptr_t)addr / PAGE * PAGE, (uintptr_t)addr / PAGE * PAGE + PAGE))
			return fail(EFAULT);
		policy = fake_policy_at((uintptr_t)addr);
		policy = policy ? policy : &no_policy;
	}
	if (mode)
		*mode = flags & QY_MPOL_F_NODE ? fake_node_by_policy((uintptr_t)addr) : policy->mode;
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
	const struct fake_policy *policy;
	int mode = QY_MPOL_DEFAULT, n = 0;

	pthread_mutex_lock(&fake_lock);
	policy = fake_policy_at((uintptr_t)addr);
	if (policy) {
		mode = policy->mode;
		for (int i = 0; i < FAKE_NODES; i++)
			if (fake_mask_has(&policy->nodes, i)) {
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
	int node = fake_node_by_policy((uintptr_t)addr);
	pthread_mutex_unlock(&fake_lock);
	return node;
}

bool fake_bound_to_full(uintptr_t at)
{
	const struct fake_policy *policy = fake_policy_at(at);

	if (!policy || policy->mode != QY_MPOL_BIND)
		return false;
	for (int n = 0; n < FAKE_NODES; n++)
		if (fake_mask_has(&policy->nodes, n) && !is_full(n))
			return false;
	return true;
}

void fake_policy_reset(void)
{
	policy_count = 0;
	memset(&thread_policy, 0, sizeof(thread_policy));
	if (policy_table)
		memset(&policy_table[0], 0, sizeof(policy_table[0]));
}
