/* SPDX-License-Identifier: MIT */
/* Where the memory of heaps that processes share is: bound to a node where it can be, and said so where not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "include/quarry/mapped.h"

#define MIB ((size_t)1 << 20)

static quarry_mapped *on_node(int node, unsigned flags)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = 256 * MIB,
				    .flags = QUARRY_MAPPED_ON_NODE | flags, .node = node };

	return quarry_mapped_create(NULL, &attr);
}

/* A sandbox may forbid it: then there is nothing to see here. */
static bool is_forbidden(const quarry_mapped *heap)
{
	if (heap != NULL || (errno != EPERM && errno != ENOSYS))
		return false;
	printf("SKIP: mbind is forbidden here\n");
	return true;
}

/* Pages that were touched are on that node, whoever touched them. */
static void is_there(quarry_mapped *heap, const char *p, size_t n, int node)
{
	size_t count = n / 4096;
	int mode = -1;
	quarry_page_info *info = calloc(count + 1, sizeof(*info));

	cr_assert_geq(quarry_mapped_where(heap, p, n, info, count), (long)(n / (size_t)sysconf(_SC_PAGESIZE)));
	for (size_t i = 0; i < n / (size_t)sysconf(_SC_PAGESIZE); i++) {
		cr_assert_eq(info[i].wanted_node, node);
		cr_assert_eq(info[i].policy_applied, node >= 0);
		cr_assert_eq(info[i].policy, node >= 0 ? QUARRY_POLICY_BIND : QUARRY_POLICY_LOCAL);
		if (node >= 0)
			cr_assert(info[i].node == node || info[i].node == QUARRY_NODE_UNKNOWN, "page %zu is on %d", i, info[i].node);
		cr_assert_neq(info[i].node, QUARRY_NODE_NONE);
	}
	free(info);
	if (syscall(SYS_get_mempolicy, &mode, NULL, 0, p, 2 /* MPOL_F_ADDR */) == 0)
		cr_assert_eq(mode, node >= 0 ? 2 /* MPOL_BIND */ : 0, "policy %d", mode);
}

Test(place, one_on_each_node)
{
	quarry_mapped *heaps[QUARRY_NODES_MAX];
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 256 * MIB };
	long n = quarry_mapped_create_nodes(&attr, NULL, 0), node = -1;

	cr_assert_geq(n, 1);
	cr_assert_eq(quarry_mapped_create_nodes(&attr, heaps, QUARRY_NODES_MAX) < 0 && !is_forbidden(NULL), 0);
	n = quarry_mapped_create_nodes(&attr, heaps, QUARRY_NODES_MAX);
	for (long i = 0; i < n; i++) {
		quarry_page_info info;
		char *p = quarry_mapped_alloc(heaps[i], 4 * MIB);

		cr_assert_not_null(p);
		memset(p, 1, 4 * MIB);
		cr_assert_eq(quarry_mapped_where(heaps[i], p, 1, &info, 1), 1);
		cr_assert_gt(info.wanted_node, node);
		node = info.wanted_node;
		is_there(heaps[i], p, 4 * MIB, (int)node);
		is_there(heaps[i], heaps[i]->base + 8192, 4096, (int)node); /* its head, too */
		quarry_mapped_close(heaps[i]);
	}
}

Test(place, who_attaches_gets_it_too)
{
	quarry_mapped *heap = on_node(quarry_node_id(0), QUARRY_MAPPED_HUGE), *other;
	char *p;

	if (is_forbidden(heap))
		return;
	cr_assert_not_null(heap, "%s", quarry_error_text());
	other = quarry_mapped_attach(quarry_mapped_fd(heap));
	cr_assert_not_null(other, "%s", quarry_error_text());
	p = quarry_mapped_alloc(other, 3 * MIB);
	cr_assert_not_null(p);
	memset(p, 1, 3 * MIB);
	is_there(other, p, 3 * MIB, quarry_node_id(0));
	quarry_mapped_close(other);
	quarry_mapped_close(heap);
}

Test(place, what_cannot_be_is_refused)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_MAPPED_ON_NODE, .max_bytes = 256 * MIB };
	quarry_mapped *heap;
	quarry_page_info info[2];
	char path[64], *p;

	snprintf(path, sizeof(path), "/tmp/quarry-place.%ld", (long)getpid());
	cr_assert_null(quarry_mapped_create(path, &attr));
	cr_assert_eq(errno, ENOTSUP);
	attr.flags = QUARRY_MAPPED_HUGE;
	cr_assert_null(quarry_mapped_create(path, &attr));
	cr_assert_eq(errno, ENOTSUP);
	cr_assert_neq(access(path, F_OK), 0);
	cr_assert_null(on_node(-1, 0));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(on_node(QUARRY_NODES_MAX, 0));
	cr_assert_eq(errno, EINVAL);
	heap = on_node(QUARRY_NODES_MAX - 1, 0); /* (there is none of that number) */
	cr_assert(heap == NULL || quarry_mapped_close(heap) != 0, "a node that is none");

	attr.flags = 0;
	heap = quarry_mapped_create(path, &attr);
	cr_assert_not_null(heap, "%s", quarry_error_text());
	p = quarry_mapped_alloc(heap, MIB);
	memset(p, 1, MIB);
	is_there(heap, p, MIB, -1); /* where the kernel put it, and no policy */
	cr_assert_eq(quarry_mapped_where(heap, p + 4000, 200, info, 1), 2);
	cr_assert_eq((const char *)info[0].address, p);
	cr_assert_eq(quarry_mapped_where(heap, path, 1, info, 1), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_mapped_where(heap, heap->base + heap->length - 1, 1, info, 1), 1);
	cr_assert_eq(info[0].node, QUARRY_NODE_NONE);
	cr_assert_eq(info[0].size, 0);
	quarry_mapped_close(heap);
	unlink(path);
}
