/* SPDX-License-Identifier: MIT */
/* hwloc, late and once. What is used of it has had one form from 2.4 to 3.0; the version that runs must be of the
 * series whose headers were compiled against, as the structures differ between series. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/attrs.h"

#include <dlfcn.h>
#include <errno.h>
#include <hwloc.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "include/quarry/quarry.h"
#include "numa/topology.h"

#if HWLOC_API_VERSION >= 0x00020400
#include <hwloc/memattrs.h>

#define SERIES(version) ((version) >> 16)

/* Every function that is called, for the table, its weak references and its look-ups. */
#define HWLOC_CALLS(use)                       \
	use(hwloc_get_api_version)             \
	use(hwloc_topology_init)               \
	use(hwloc_topology_set_all_types_filter) \
	use(hwloc_topology_set_type_filter)    \
	use(hwloc_topology_set_flags)          \
	use(hwloc_topology_load)               \
	use(hwloc_topology_destroy)            \
	use(hwloc_topology_get_topology_cpuset) \
	use(hwloc_get_obj_by_depth)            \
	use(hwloc_memattr_get_value)           \
	use(hwloc_memattr_get_best_initiator)  \
	use(hwloc_bitmap_alloc)                \
	use(hwloc_bitmap_only)                 \
	use(hwloc_bitmap_isset)                \
	use(hwloc_bitmap_iszero)               \
	use(hwloc_bitmap_free)

#define DECLARE_WEAK(name) extern __typeof__(name) name __attribute__((weak));
#define MEMBER(name) __typeof__(&name) name;
#define TAKE_LINKED(name) calls.name = name;
#define IS_THERE(name) && calls.name
#define LOOK_UP(name) *(void **)&calls.name = dlsym(library, #name);

HWLOC_CALLS(DECLARE_WEAK)
/* Not in every static program. */
extern __typeof__(dlopen) dlopen __attribute__((weak));
extern __typeof__(dlsym) dlsym __attribute__((weak));
extern __typeof__(dl_iterate_phdr) dl_iterate_phdr __attribute__((weak));

static struct {
	HWLOC_CALLS(MEMBER)
} calls;

static hwloc_topology_t topology; /* NULL: there is none to be had */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool calls_fit(void)
{
	return true HWLOC_CALLS(IS_THERE) && SERIES(calls.hwloc_get_api_version()) == SERIES(HWLOC_API_VERSION);
}

/* The first object told is the program itself: it names a dynamic linker, or it is static. */
static int look_for_interpreter(struct dl_phdr_info *program, size_t size, void *found)
{
	(void)size;
	for (int i = 0; i < program->dlpi_phnum; i++)
		if (program->dlpi_phdr[i].p_type == PT_INTERP)
			*(bool *)found = true;
	return 1;
}

/* In a static program dlopen may be there and even work, by loading a second libc with a malloc of its own. */
static bool may_load(void)
{
	bool dynamic = false;

	if (!dlopen || !dlsym || !dl_iterate_phdr)
		return false;
	dl_iterate_phdr(look_for_interpreter, &dynamic);
	return dynamic;
}

/* The library stays loaded: the topology lives as long as the process. */
static bool find_hwloc(void)
{
	const char *name = SERIES(HWLOC_API_VERSION) == 2 ? "libhwloc.so.15" : "libhwloc.so";
	void *library;

	HWLOC_CALLS(TAKE_LINKED)
	if (calls_fit())
		return true;
	if (!may_load())
		return false;
	library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return false;
	HWLOC_CALLS(LOOK_UP)
	return calls_fit();
}

/* Everything but the machine, its nodes and its CPUs is left out, which is most of the time that a load takes. Groups
 * have to stay where they say something: a node that shares its CPUs with no other object is held by one, and would
 * take the whole machine's CPUs for its own without. Nodes that the cpuset forbids stay in: a program may ask about
 * any. hwloc's way of asking each CPU about itself by moving
 * the calling thread there is not for a library that is a guest. */
static bool load(hwloc_topology_t t)
{
	const unsigned long wanted = HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED;
	unsigned long spared = 0;

#if HWLOC_API_VERSION >= 0x00020800
	spared = HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING | HWLOC_TOPOLOGY_FLAG_NO_DISTANCES |
		 HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS;
#endif
	if (calls.hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_NONE) != 0 ||
	    calls.hwloc_topology_set_type_filter(t, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE) != 0)
		return false;
	/* An older one of the series at run time may not know what may be spared. */
	if (calls.hwloc_topology_set_flags(t, wanted | spared) != 0 && calls.hwloc_topology_set_flags(t, wanted) != 0)
		return false;
	return calls.hwloc_topology_load(t) == 0;
}

static void start(void)
{
	hwloc_topology_t t;

	if (!find_hwloc() || calls.hwloc_topology_init(&t) != 0)
		return;
	if (load(t))
		topology = t;
	else
		calls.hwloc_topology_destroy(t);
}

/* hwloc numbers nodes as it finds them; the kernel's id is os_index. */
static hwloc_obj_t find_node(int kernel_id)
{
	hwloc_obj_t node;
	for (unsigned i = 0; (node = calls.hwloc_get_obj_by_depth(topology, HWLOC_TYPE_DEPTH_NUMANODE, i)); i++)
		if (node->os_index == (unsigned)kernel_id)
			return node;
	return NULL;
}

/* EINVAL is also hwloc's word for a value that it has not. */
static int told(int rc, hwloc_uint64_t got, uint64_t *value)
{
	if (rc == 0) {
		*value = got;
		return 0;
	}
	if (errno != ENOMEM)
		errno = ENODATA;
	return -1;
}

static int get_from_cpu(hwloc_obj_t node, hwloc_memattr_id_t id, int cpu, uint64_t *value)
{
	struct hwloc_location from = { .type = HWLOC_LOCATION_TYPE_CPUSET };
	hwloc_uint64_t got = 0;
	int rc;

	if (!calls.hwloc_bitmap_isset(calls.hwloc_topology_get_topology_cpuset(topology), (unsigned)cpu)) {
		errno = EINVAL;
		return -1;
	}
	from.location.cpuset = calls.hwloc_bitmap_alloc();
	if (!from.location.cpuset) {
		errno = ENOMEM;
		return -1;
	}
	rc = calls.hwloc_bitmap_only(from.location.cpuset, (unsigned)cpu);
	if (rc == 0)
		rc = calls.hwloc_memattr_get_value(topology, id, node, &from, 0, &got);
	rc = told(rc, got, value);
	calls.hwloc_bitmap_free(from.location.cpuset);
	return rc;
}

static int get_from_own(hwloc_obj_t node, hwloc_memattr_id_t id, uint64_t *value)
{
	struct hwloc_location from = { .type = HWLOC_LOCATION_TYPE_CPUSET };
	hwloc_uint64_t got = 0;
	int rc = -1;

	if (id == HWLOC_MEMATTR_ID_CAPACITY) {
		rc = calls.hwloc_memattr_get_value(topology, id, node, NULL, 0, &got);
		return told(rc, got, value);
	}
	if (node->cpuset && !calls.hwloc_bitmap_iszero(node->cpuset)) {
		from.location.cpuset = node->cpuset;
		rc = calls.hwloc_memattr_get_value(topology, id, node, &from, 0, &got);
	}
	if (rc != 0)
		rc = calls.hwloc_memattr_get_best_initiator(topology, id, node, 0, &from, &got);
	return told(rc, got, value);
}

int qy_attr_get(int dense_node, int attr, int cpu, uint64_t *value)
{
	static const hwloc_memattr_id_t ids[] = {
		[QUARRY_ATTR_CAPACITY] = HWLOC_MEMATTR_ID_CAPACITY,
		[QUARRY_ATTR_BANDWIDTH] = HWLOC_MEMATTR_ID_BANDWIDTH,
		[QUARRY_ATTR_LATENCY] = HWLOC_MEMATTR_ID_LATENCY,
	};
	int kernel_id = qy_node_kernel_id(dense_node);
	hwloc_obj_t node;

	if (kernel_id < 0 || attr < 0 || attr >= (int)(sizeof(ids) / sizeof(ids[0])) || cpu < -1 || !value) {
		errno = EINVAL;
		return -1;
	}
	/* The one node that is made up stands for all there is: hwloc's node of that number is another thing, if it has
	 * one; and where sysfs is not there, it would say so on standard error. */
	if (qy_nodes_made_up()) {
		errno = ENODATA;
		return -1;
	}
	pthread_once(&once, start);
	if (!topology) {
		errno = ENOSYS;
		return -1;
	}
	node = find_node(kernel_id);
	if (!node) {
		errno = ENODATA;
		return -1;
	}
	if (cpu >= 0)
		return get_from_cpu(node, ids[attr], cpu, value);
	return get_from_own(node, ids[attr], value);
}

#else /* memory attributes came with hwloc 2.3 and settled in 2.4 */

int qy_attr_get(int dense_node, int attr, int cpu, uint64_t *value)
{
	errno = qy_node_kernel_id(dense_node) < 0 || attr < 0 || attr > QUARRY_ATTR_LATENCY || cpu < -1 || !value ?
		EINVAL : ENOSYS;
	return -1;
}

#endif
