/* SPDX-License-Identifier: MIT */
/**
 * quarry: memory by node, page kind and arena, with true answers about what was got.
 *
 * This header is all that most programs include. Every function may be called from any thread unless its
 * comment says otherwise, and none prints anything unless its purpose is to print. Errors are told as in
 * malloc(3): NULL or -1 with errno set. Sizes are bytes. Node numbers are the kernel's (they may have holes
 * and exceed 63).
 */
#ifndef QUARRY_H
#define QUARRY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#ifdef __clang__ /* casts and NULL are C's here; g++ knows that by itself */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wzero-as-null-pointer-constant"
#endif
#endif

/* The API version: 0xMMmmpp. quarry_version() is what the loaded library has. */
#define QUARRY_API_VERSION 0x000100

#if defined(__GNUC__) && defined(QUARRY_BUILDING)
#define QUARRY_API __attribute__((visibility("default")))
#else
#define QUARRY_API
#endif
#ifdef __GNUC__
#define QUARRY_MALLOC_LIKE __attribute__((malloc, warn_unused_result))
#define QUARRY_SIZE1(n) __attribute__((alloc_size(n)))
#define QUARRY_SIZE2(n, m) __attribute__((alloc_size(n, m)))
#else
#define QUARRY_MALLOC_LIKE
#define QUARRY_SIZE1(n)
#define QUARRY_SIZE2(n, m)
#endif

/** The version of the library that is loaded, as QUARRY_API_VERSION is composed.
 * @return 0xMMmmpp; equal or greater than the program's QUARRY_API_VERSION when the library is new enough. */
QUARRY_API unsigned quarry_version(void);

/** The same as text, for instance "0.1.0". The string is static. */
QUARRY_API const char *quarry_version_string(void);

/* ------------------------------------------------------------------------------------------------------ */
/* Allocation                                                                                             */

/** Allocate size bytes, aligned for any type (16), on the calling thread's node or in its default arena.
 * @param size bytes; 0 gives a pointer that can be freed and is unlike any other live one.
 * @return the memory, uninitialised; NULL with ENOMEM when there is none or size exceeds PTRDIFF_MAX. */
QUARRY_API void *quarry_malloc(size_t size) QUARRY_MALLOC_LIKE QUARRY_SIZE1(1);

/** Allocate count * size zeroed bytes. Memory fresh from the kernel is not zeroed a second time.
 * @return NULL with ENOMEM when there is none or the product overflows. */
QUARRY_API void *quarry_calloc(size_t count, size_t size) QUARRY_MALLOC_LIKE QUARRY_SIZE2(1, 2);

/** Resize p to size bytes, keeping min(old, new) bytes of content and the arena that p is in.
 * In place where the class allows it or the neighbouring memory is free; by mremap(2) where that is worth it.
 * @param p NULL allocates.
 * @param size 0 with p not NULL frees p and returns NULL, as glibc does.
 * @return the memory, maybe moved; NULL with ENOMEM (p stays as it was), or with EINVAL when p is not quarry's. */
QUARRY_API void *quarry_realloc(void *p, size_t size) QUARRY_SIZE1(2);

/** quarry_realloc(p, count * size); NULL with ENOMEM when the product overflows. */
QUARRY_API void *quarry_reallocarray(void *p, size_t count, size_t size) QUARRY_SIZE2(2, 3);

/** Allocate size bytes aligned to alignment.
 * @param alignment a power of two, else NULL with EINVAL. */
QUARRY_API void *quarry_aligned_alloc(size_t alignment, size_t size) QUARRY_MALLOC_LIKE QUARRY_SIZE1(2);

/** As posix_memalign(3): the memory in *out.
 * @return 0, EINVAL (alignment not a power of two multiple of sizeof(void *)) or ENOMEM; errno is left alone. */
QUARRY_API int quarry_posix_memalign(void **out, size_t alignment, size_t size);

/** Give p back to where it came from: its node, its arena, its slab. From any thread.
 * errno is preserved. NULL is ignored. A pointer that is not quarry's is left alone and counted
 * (quarry_stats: bad_frees); the option on_error says what happens besides. */
QUARRY_API void quarry_free(void *p);

/** As free_sized of C23: size is what was asked for when p was allocated. The size is checked in slow paths. */
QUARRY_API void quarry_free_sized(void *p, size_t size);

/** As free_aligned_sized of C23. */
QUARRY_API void quarry_free_aligned_sized(void *p, size_t alignment, size_t size);

/** How many bytes at p may be used: at least what was asked for. 0 for NULL and for what is not quarry's. (The first
 * object of a pool's chunk, buffer of a slab or page of an allocator has the address of the block that they are in, and
 * it is that block's size which is told.) */
QUARRY_API size_t quarry_usable_size(const void *p);

/** Allocate at least size bytes and say how many there are, in one call.
 * @param got receives the usable size when it is not NULL.
 * @return as quarry_malloc. */
QUARRY_API void *quarry_malloc_at_least(size_t size, size_t *got) QUARRY_MALLOC_LIKE;

/* ------------------------------------------------------------------------------------------------------ */
/* Nodes                                                                                                  */

#define QUARRY_NODES_MAX 1024 /* as many as any Linux kernel can be built for (CONFIG_NODES_SHIFT=10) */

/** A set of memory nodes by the kernel's ids. Zero-initialise it; an empty set means "all that are allowed". */
typedef struct quarry_nodeset {
	uint64_t bits[QUARRY_NODES_MAX / 64];
} quarry_nodeset;

static inline void quarry_nodeset_add(quarry_nodeset *set, unsigned node)
{
	if (node < QUARRY_NODES_MAX)
		set->bits[node / 64] |= (uint64_t)1 << (node % 64);
}

static inline int quarry_nodeset_has(const quarry_nodeset *set, unsigned node)
{
	return node < QUARRY_NODES_MAX && (set->bits[node / 64] >> (node % 64) & 1);
}

/** What is known of a node. Fields that cannot be learnt here are -1 (or 0 bytes). */
typedef struct quarry_node_info {
	uint32_t struct_size;  /* set by the caller to sizeof: lets the struct grow */
	int32_t id;            /* the kernel's id */
	int32_t has_cpus;      /* 0 for a memory-only node (HBM, CXL) */
	int32_t has_memory;    /* 0 for a node of CPUs without memory */
	int32_t allowed;       /* the cpuset lets this process allocate there */
	int32_t index;         /* logical number among the nodes that this process may use, now; -1: it may not */
	uint64_t memory_total; /* bytes */
	uint64_t memory_free;  /* bytes, now */
	uint64_t huge_free_2m; /* free 2 MiB pages in the node's pool, now */
	uint64_t huge_free_1g; /* free 1 GiB pages, now */
	uint64_t huge_total_2m, huge_total_1g; /* pages that the pools have, free or not */
	uint64_t bandwidth;    /* MiB/s from the CPUs that reach it best, by the firmware (HMAT); 0: not told.
	                        * This and the next are filled by quarry_nodes alone */
	uint64_t latency;      /* ns, likewise */
} quarry_node_info;

/** The nodes that this process may use, in logical order, as one snapshot: those of its cpuset, ascending by the
 * kernel's id; a node of CPUs without memory counts while the cpuset holds all nodes that have memory.
 * Loads hwloc on the first call (bandwidth and latency), so: not under malloc.
 * @param list receives at most max entries, each list[0].struct_size bytes long (set it in the first one). May be NULL
 *        with max 0, to count.
 * @return how many there are; -1 with EINVAL (struct_size not set). Example:
 * @code
 *   quarry_node_info nodes[64] = { { .struct_size = sizeof(nodes[0]) } };
 *   long n = quarry_nodes(nodes, 64);
 *   for (long i = 0; i < n && i < 64; i++)
 *           printf("node %d: %llu bytes free\n", nodes[i].id, (unsigned long long)nodes[i].memory_free);
 * @endcode */
QUARRY_API long quarry_nodes(quarry_node_info *list, size_t max);

/** How many nodes this process may use now (as quarry_nodes counts them); at least 1. A cpuset that changes changes
 * it. */
QUARRY_API int quarry_node_count(void);

/** The kernel's id of the node with a logical number (0 .. quarry_node_count() - 1).
 * @return -1 with EINVAL when there is no such node. */
QUARRY_API int quarry_node_id(int index);

/** Fill *info for a node by the kernel's id, any that is online. Numbers that change (free memory) are read anew.
 * @return 0; -1 with EINVAL (no such node, or struct_size not set). */
QUARRY_API int quarry_node_info_get(int node, quarry_node_info *info);

/** The node of the CPU that the calling thread runs on, by the kernel's id. One load where rseq is there. */
QUARRY_API int quarry_node_current(void);

/** The node of a CPU. @return -1 with EINVAL when the CPU is not known. */
QUARRY_API int quarry_node_of_cpu(int cpu);

/** The kernel's distance between two nodes (10 is local).
 * @return -1 with EINVAL when a node is not known, ENODATA when both are and the machine does not tell how far
 *         apart. */
QUARRY_API int quarry_node_distance(int from, int to);

enum quarry_node_attr {
	QUARRY_ATTR_CAPACITY = 0,  /* bytes; by the kernel where there is no hwloc */
	QUARRY_ATTR_BANDWIDTH = 1, /* MiB/s */
	QUARRY_ATTR_LATENCY = 2,   /* ns */
	QUARRY_ATTR_FREE = 3,      /* bytes free now; needs no hwloc */
	QUARRY_ATTR_DISTANCE = 4   /* the kernel's distance from the CPU's node, 10 local; needs no hwloc */
};

/** A memory attribute of a node as hwloc knows it (from the firmware's HMAT), seen from a CPU.
 * hwloc is loaded on the first call, filtered; never at start-up and never under malloc.
 * @param cpu the initiator, or -1 for the node's own CPUs.
 * @return 0; -1 with EINVAL (no such node or attribute), ENOSYS (no hwloc here), ENODATA (not told by this machine). */
QUARRY_API int quarry_node_attr_get(int node, int attr, int cpu, uint64_t *value);

/** The best node by an attribute, of those with memory that this process may use: the most capacity, bandwidth or free
 * memory, the least latency or distance. Of equal ones the nearest to the CPU by distance, then the first.
 * The firmware often tells of local pairs alone; a node whose attribute is not told from this CPU does not take part.
 * @param cpu the initiator, or -1 for the CPU that the caller runs on.
 * @return the kernel's id; -1 with EINVAL (attribute, CPU), ENOSYS (no hwloc here), ENODATA (told of no node). */
QUARRY_API int quarry_node_best(int attr, int cpu);

/* ------------------------------------------------------------------------------------------------------ */
/* Arenas                                                                                                 */

/** A manager as the program sees it: memory of its own with a placement, a page kind, limits and a name. */
typedef struct quarry_arena quarry_arena;

enum quarry_policy {
	QUARRY_POLICY_LOCAL = 0,         /* the node that the allocating thread runs on, or the nearest to it of
	                                  * nodes */
	QUARRY_POLICY_BIND = 1,          /* these nodes. When they are full: with QUARRY_ARENA_STRICT ENOMEM, otherwise
	                                  * others until there is room again, and never the kernel's out-of-memory
	                                  * killer, as MPOL_BIND itself would have it */
	QUARRY_POLICY_PREFERRED = 2,     /* the first node of the set if it has room (MPOL_PREFERRED) */
	QUARRY_POLICY_PREFERRED_MANY = 3, /* these nodes if they have room (Linux 5.15; before: the nearest of them) */
	QUARRY_POLICY_INTERLEAVE = 4,    /* page by page over the nodes */
	QUARRY_POLICY_WEIGHTED_INTERLEAVE = 5 /* by the system's weights (Linux 6.9; before: interleave) */
};

enum quarry_page_kind {
	QUARRY_PAGES_AUTO = 0, /* base pages while small, transparent huge pages when large and growing */
	QUARRY_PAGES_BASE = 1, /* the kernel's base pages, never huge */
	QUARRY_PAGES_THP = 2,  /* transparent huge pages, asked for by madvise(2) */
	QUARRY_PAGES_2M = 3,   /* hugetlb 2 MiB, from the node's pool */
	QUARRY_PAGES_1G = 4    /* hugetlb 1 GiB, from the node's pool */
};

enum quarry_arena_flags {
	QUARRY_ARENA_STRICT = 1,   /* fail with an error rather than fall to another node or page kind. Where the arena
	                            * names nodes or a page kind above base, its regions are faulted in when they are
	                            * mapped, looked at page by page, and go back whole */
	QUARRY_ARENA_NODUMP = 2,   /* leave the arena out of core dumps (MADV_DONTDUMP) */
	QUARRY_ARENA_LOCKED = 4,   /* keep it in memory (mlock2(2) on fault); falls under RLIMIT_MEMLOCK, and what that
	                            * refuses is counted, not an error */
	QUARRY_ARENA_POPULATE = 8, /* fault regions in when they are mapped, not when touched; in parallel, see
	                            * quarry_populate */
	QUARRY_ARENA_FD = 16,      /* memory with descriptors, to be handed to others: see quarry_fd_of */
	QUARRY_ARENA_DECAY = 32    /* quarry_arena_attr.decay_ms is given */
};

#define QUARRY_DECAY_DEFAULT (-2) /* as the option decay_ms says, whenever it changes */

#define QUARRY_ARENA_NAME_MAX 32

typedef struct quarry_arena_attr {
	uint32_t struct_size; /* sizeof(struct quarry_arena_attr). 0: the struct as it first was, up to name, and of
	                       * what came later the fields that flags tells of */
	uint32_t flags;       /* enum quarry_arena_flags */
	int32_t policy;       /* enum quarry_policy */
	int32_t page_kind;    /* enum quarry_page_kind: the highest rung to try; falls 1g, 2m, thp, base */
	quarry_nodeset nodes; /* empty: all that are allowed */
	uint64_t hard_limit;  /* bytes; beyond it allocation fails with ENOMEM. 0: none. What counts are blocks: large
	                       * ones in whole pages, small objects by their slabs (64 KiB, and 128 or 256 KiB above 8 KiB;
	                       * one or more per size class and thread), so that less than 64 KiB admits no small object */
	uint64_t soft_limit;  /* bytes, not more than a hard_limit; beyond it the arena keeps no free memory, but for a
	                       * 32nd part of it or 1 MiB: the reclaimer's thread gives it back, or the calls that free
	                       * it do; with reclaim=off nobody does. 0: none */
	char name[QUARRY_ARENA_NAME_MAX]; /* shown by the viewer; may be empty */
	int64_t decay_ms;     /* with QUARRY_ARENA_DECAY: as for quarry_arena_set_decay. Without, it must be 0, and the
	                       * option decay_ms holds */
} quarry_arena_attr;

/** Make an arena.
 * @param attr NULL: local policy, automatic pages, no limits.
 * @return the arena; NULL with EINVAL (a bad field; quarry_error_text() names it), ENOMEM, EPERM or ENOSYS
 *         (QUARRY_ARENA_STRICT, and the kernel refuses the policy), EAGAIN (the limit of 65,000 arenas); with
 *         QUARRY_ARENA_FD also ENOSYS, EPERM or EACCES (no memfd_create), EMFILE or ENFILE (no descriptor to be had),
 *         EFBIG (RLIMIT_FSIZE is less than a region).
 * At least 4,000 arenas can be there at once. Example:
 * @code
 *   quarry_arena_attr attr = { .policy = QUARRY_POLICY_BIND, .name = "buffers" };
 *   quarry_nodeset_add(&attr.nodes, 1);
 *   quarry_arena *a = quarry_arena_create(&attr);
 *   void *p = quarry_arena_malloc(a, 8192);
 *   quarry_free(p);
 *   quarry_arena_destroy(a);
 * @endcode */
QUARRY_API quarry_arena *quarry_arena_create(const quarry_arena_attr *attr);

/** Free all of an arena's memory and the arena, in one stroke, whatever is still allocated in it. Counted blocks there
 * (quarry/block.h) end: late references to them are ESTALE.
 * Threads that free or allocate there through other calls at this moment are waited for; later frees of its
 * pointers are ignored and counted as long as the address space is not used anew.
 * What has functions of its own is ended by those first: while a pool, a page allocator, a stack or a slab of buffers
 * has memory of it, an arena is neither destroyed nor reset: from before one is made in it, or fails to be, until it has
 * ended. (In a child of fork(2), what another thread was just making or ending then stands in it for good: EBUSY.)
 * @return 0; -1 with EBUSY while it is some thread's default arena, or one of those is in it; EPERM for a node's
 *         default arena, EINVAL when it is no arena. */
QUARRY_API int quarry_arena_destroy(quarry_arena *arena);

/** Free all that is allocated in an arena and keep the arena and its memory for new use. Errors as destroy. */
QUARRY_API int quarry_arena_reset(quarry_arena *arena);

/** As quarry_malloc, in the given arena (NULL: the calling thread's default). */
QUARRY_API void *quarry_arena_malloc(quarry_arena *arena, size_t size) QUARRY_MALLOC_LIKE QUARRY_SIZE1(2);
/** As quarry_calloc, in the given arena. */
QUARRY_API void *quarry_arena_calloc(quarry_arena *arena, size_t count, size_t size) QUARRY_MALLOC_LIKE
	QUARRY_SIZE2(2, 3);
/** As quarry_realloc; when p is NULL, allocates in the given arena, else p stays in its own arena. */
QUARRY_API void *quarry_arena_realloc(quarry_arena *arena, void *p, size_t size) QUARRY_SIZE1(3);
/** As quarry_aligned_alloc, in the given arena. */
QUARRY_API void *quarry_arena_aligned_alloc(quarry_arena *arena, size_t alignment, size_t size) QUARRY_MALLOC_LIKE
	QUARRY_SIZE1(3);
/** As quarry_malloc_at_least, in the given arena. */
QUARRY_API void *quarry_arena_malloc_at_least(quarry_arena *arena, size_t size, size_t *got) QUARRY_MALLOC_LIKE;
/** quarry_free, when p is in this arena, or was sent to another by the breaker (quarry_breaker_redirect): where that has happened, a
 * block of 64 KiB or more of the arena that such are sent to is taken for one that was asked of this one. What was sent
 * there does not go with the arena that it was asked of, when that is destroyed or reset, but with the one that it is in.
 * @return 0; -1 with EINVAL, and p untouched, when it is not. */
QUARRY_API int quarry_arena_free(quarry_arena *arena, void *p);

/** The arena that p was allocated in; NULL (errno EINVAL) for what is not quarry's. */
QUARRY_API quarry_arena *quarry_arena_of(const void *p);

/** Bring memory of a live block in at once, on the nodes of its arena, rather than when it is touched: in parallel from
 * 64 MiB on, by threads that live for the call (option populate_threads; none with reclaim=off, series or timer).
 * Contents stay, and others may use them meanwhile. What there is no memory for is an error here and never a SIGBUS.
 * @param p anywhere in a block. @param len bytes from there, not beyond the block's end (quarry_usable_size); 0:
 *        nothing is done.
 * @return 0, also when all is there already; -1 with EINVAL (p is in no live block, or len goes beyond it), ENOMEM, or
 *         what else madvise(2) says; quarry_error_text() says more. Part of it may be in memory then, where p and len
 *         are right. Linux 5.14; before, pages are touched one by one. Example:
 * @code
 *   double *table = quarry_malloc(n * sizeof(*table));
 *   if (table != NULL && quarry_populate(table, n * sizeof(*table)) != 0)
 *           perror("not all of the table is in memory");
 * @endcode */
QUARRY_API int quarry_populate(void *p, size_t len);

/** Give memory inside a live block back to the kernel, and keep the block: it reads as zero then, and comes in again when
 * it is touched. The inverse of quarry_populate, for a table of which a part is empty for a while. Nobody may be using
 * these bytes meanwhile. Whole pages go (MADV_DONTNEED; in memory files MADV_REMOVE, Linux 3.5); what is no whole page at
 * either end is cleared. A huge page of which a part goes is taken apart. Any thread may call; it waits for another that
 * gives back.
 * @param p anywhere in a block. @param len bytes from there, not beyond the block's end (quarry_usable_size); 0:
 *        nothing is done.
 * @return 0; -1 with EINVAL (p is in no live block, or len goes beyond it), ENOTSUP (memory that does not go in parts:
 *         hugetlb, locked, strict arenas; or the kernel refuses, counted as refused[purge]): contents are as they were
 *         then; EDEADLK inside a function of quarry_on_region. */
QUARRY_API int quarry_discard(void *p, size_t len);

/** The descriptor and the offset at which memory of an arena made with QUARRY_ARENA_FD stands: for io_uring,
 * vhost-user, RDMA or udmabuf, or for another process (SCM_RIGHTS, pidfd_getfd), which maps it with MAP_SHARED.
 *
 * Such an arena's regions are memory files (memfd_create; hugetlb with MFD_HUGETLB), one for each region: what a block
 * is in is one file, and who gets its descriptor can see and write all of it, free memory too, in which quarry keeps
 * lists. So make an arena for what is shared, and hand it to those you trust. Nobody can change a file's size (it is
 * sealed); who punches holes in it takes memory away, which on hugetlb with a dry pool is SIGBUS at the next touch.
 *
 * The page ladder is as everywhere, with transparent huge pages as /sys/kernel/mm/transparent_hugepage/shmem_enabled
 * allows. Regions count against RLIMIT_NOFILE: a block above 64 MiB is one, other memory grows to as much at a time.
 * Where no descriptor is to be had, there is no memory (ENOMEM, counted as refused[fd]). Free memory goes back as it
 * does elsewhere (as holes; hugetlb by whole regions, when nobody else has the descriptor any more). realloc copies
 * when it must move.
 *
 * A forked child has a copy of its own, in ordinary memory without a descriptor, at the same addresses, when no thread
 * but the one that forks has called malloc, free or any function here and still lives, and all such memory together is
 * within the option fork_copy; it is made before fork returns in the parent. (Threads that never called one do not
 * count, and are not held up: what they write there meanwhile may be in the copy or not.)
 * Otherwise, and where there is no room for a copy, the arena is empty in the child as if quarry_arena_reset had been
 * called: its pointers lead nowhere there (SIGSEGV), and it can be used anew. Children that no pthread_atfork handler
 * knows of (vfork apart, which shares everything) have nothing there either.
 *
 * A forked child has none of quarry's descriptors: they are closed in it before fork returns there, as at exec. One
 * that is to share memory with its parent takes a descriptor of the program's own: dup(2) before the fork, or
 * SCM_RIGHTS at any time after, and mmap(2) with MAP_SHARED. The address that this gives is another than the parent's,
 * at the same offset.
 * @param p anywhere in a live block.
 * @param offset receives where p is in the file, in bytes.
 * @return the descriptor: quarry's, good in this process until p is freed; do not close it, but dup(2) it or send it.
 *         -1 with EINVAL (not quarry's memory), ENOTSUP (not in a file: another arena, or a forked child's copy), EBADF
 *         (the program has closed quarry's descriptor). Any thread may call. Linux 3.17; hugetlb 4.16. Example:
 * @code
 *   quarry_arena_attr attr = { .flags = QUARRY_ARENA_FD, .page_kind = QUARRY_PAGES_2M, .name = "rings" };
 *   quarry_arena *rings = quarry_arena_create(&attr);
 *   void *ring = quarry_arena_aligned_alloc(rings, 4096, 1 << 20);
 *   uint64_t offset;
 *   int fd = quarry_fd_of(ring, &offset);
 * @endcode */
QUARRY_API int quarry_fd_of(const void *p, uint64_t *offset);

/** The default arena of a node by the kernel's id (made on first use); NULL with EINVAL when there is no such node. */
QUARRY_API quarry_arena *quarry_arena_of_node(int node);

/** The calling thread's default arena: NULL while it follows the thread's node. */
QUARRY_API quarry_arena *quarry_thread_arena(void);

/** Route this thread's plain allocations to an arena; NULL follows the node again.
 * @param previous receives what it was, to be restored later, when not NULL.
 * @return 0; -1 with EINVAL or ENOMEM. */
QUARRY_API int quarry_thread_set_arena(quarry_arena *arena, quarry_arena **previous);

/** Give this thread another home: plain allocations come from that node's default arena from now on, wherever the
 * thread runs, and what its cache holds of the node before goes back at once, for others.
 * Threads follow the CPU they run on by themselves, at their next refill; this is for those that know better.
 * @param node the kernel's id of a node that this process may use, or -1: look now, and follow the CPU again.
 * @return 0; -1 with EINVAL (no such node, or none that may be used) or ENOMEM. */
QUARRY_API int quarry_thread_rebind(int node);

/** What quarry_arena_move did. */
typedef struct quarry_move_report {
	uint32_t struct_size; /* set by the caller to sizeof */
	uint32_t rounds;      /* looks at all of the arena's memory */
	uint64_t moved;       /* bytes */
	uint64_t there;       /* bytes that were there already */
	uint64_t left;        /* bytes that the kernel would not move: no room, pinned, shared with a forked child */
	uint64_t ns;          /* how long it took */
} quarry_move_report;

/** Move a live arena to other nodes: new memory is placed there from now on, and what is in memory is migrated, some
 * megabytes at a time, while threads go on allocating, using and freeing it. Pointers stay as they are.
 * The policy stays too (PREFERRED, BIND: to the first, or all, of nodes; INTERLEAVE: spread over them; LOCAL: moves
 * what is outside the set to the nearest in it). hugetlb pages need free pages in the pools there.
 * Needs move_pages(2). Another thread sees the progress in quarry_stats.moved. A node's default arena can be moved away
 * too, and stays the arena of its node's threads.
 * @param nodes the kernel's ids, not empty; NULL: the nodes that the arena has, which brings home what strayed.
 * @param report receives what was done, when not NULL.
 * @return 0 when all of it is there; -1 with EAGAIN (some could not be moved; the reclaimer tries again), EINVAL
 *         (no arena, no such node or not allowed, struct_size), EPERM or ENOSYS (the kernel refuses mbind or
 *         move_pages), ENOMEM. */
QUARRY_API int quarry_arena_move(quarry_arena *arena, const quarry_nodeset *nodes, quarry_move_report *report);

/** The arena's name; "" when it has none. For a node's default arena "node N". */
QUARRY_API const char *quarry_arena_name(const quarry_arena *arena);

/** Change the limits of an arena (bytes; 0: none). A hard limit under what is in use only stops new allocations.
 * @return 0; -1 with EINVAL (no arena, or a soft limit above the hard one), and the limits are as they were. */
QUARRY_API int quarry_arena_set_limits(quarry_arena *arena, uint64_t hard_limit, uint64_t soft_limit);

/** Give an arena's free memory back sooner or later than the option decay_ms says: an arena of buffers that are wanted
 * again at once may keep them for long, one that is filled once an hour nothing. Holds for a node's default arena too.
 * What threads keep in their caches goes by the option. Under pressure an arena's own time is shortened like the
 * option's. Any thread may call.
 * @param decay_ms milliseconds, up to 3,600,000: free memory goes back after about so long; 0 at the next pass of the
 *        reclaimer; -1 never by time, but under high pressure and by quarry_purge; QUARRY_DECAY_DEFAULT.
 * @return 0; -1 with EINVAL (no arena, or out of range; quarry_error_text() names it), and the arena's time is as it
 *         was. */
QUARRY_API int quarry_arena_set_decay(quarry_arena *arena, long decay_ms);

/** Give an arena's free memory back to the kernel now (NULL: of all arenas): with what the calling thread's caches
 * hold, those of ended threads, and those of threads that are blocked in a system call, and what was freed for them.
 * What a thread holds that runs stays until it allocates, blocks or calls quarry_thread_flush: workers that spin while
 * they wait (OMP_WAIT_POLICY=active) keep theirs. Any thread may call; it waits for another that gives back.
 * @return how many bytes went back of what may have been in memory: blocks that were freed and never touched count. */
QUARRY_API size_t quarry_purge(quarry_arena *arena);

/** Do what is due now of what the reclaimer's thread would do: give back free memory that was left alone for long
 * enough, with what idle threads (and the calling one, when it did not refill for a quarter of decay_ms) hold; look at
 * pressure and limits; bring home pages that strayed; make dense memory huge; tell of events (quarry_on_event). For the
 * loop of a program that wants no thread:
 *
 *	for (;;) {
 *		int n = epoll_wait(ep, events, N, (int)quarry_tend());
 *		for (int i = 0; i < n; i++)
 *			handle(&events[i]);
 *	}
 *
 * It takes about three milliseconds at most, while there is much to do (a huge page that is made, or taken apart, may
 * add one), and a microsecond where nothing is due. It waits for nobody who gives back, forks, or moves or ends an
 * arena: what is left for that is done by the next call. A program that calls it is asked for no thread by
 * reclaim=auto, until two seconds after it should have called again. Any thread may call; not in a signal handler.
 * Where reclaim=auto or parallel has started the reclaimer's thread already (call it once in main, to be before that),
 * and with reclaim=off, it tells of events, does nothing else, and returns -1 at once: the loop above then waits for
 * its own events alone, and the thread gives back. errno is left as it was.
 * @return in how many ms it should be called again (calling sooner is cheap); -1: when the program has freed memory, or
 *         a thread of it was busy again, which the next call sees; or the thread does it, or nobody. */
QUARRY_API int64_t quarry_tend(void);

/** Give back what the calling thread's caches hold, so that other threads can have it. */
QUARRY_API void quarry_thread_flush(void);

/* ------------------------------------------------------------------------------------------------------ */
/* Moving objects                                                                                         */

/** Ask which objects a program that can move its own (a cache's items, a compacting interpreter's) had better move, so
 * that memory comes back: in batches, as it comes by them. What is to be moved is allocated anew by quarry_malloc_dense
 * (in the same arena), copied, and freed by quarry_free_dense.
 *
 * Of each size class of an arena, so many slabs are to be filled as all objects need that stand in slabs with room: the
 * fullest, and of those that are about as full the ones at lower addresses; objects in all others are to be moved. So
 * nothing is moved where a slab is full, where it is the one that a thread allocates from, where there is only one with
 * room, or where hardly anything would be won (a slab that is fuller than 13/16). In a slab of mixed sizes, all is to
 * be moved when less than half of it is in use. Large blocks are never to be moved.
 *
 * It stops nobody: it goes by looks at all slabs' records, of which each call takes a part, and which begin anew when
 * as many pointers were asked about as make it worth while, or after 100 ms. Any thread may call, also beside others that
 * allocate, free and ask. Objects that threads have in their caches keep slabs: quarry_thread_flush, when all is done.
 * @param ptrs pointers as they were allocated. What is not quarry's, or none of its objects, is not to be moved.
 * @param n how many; 16 to 256 at a time cost the least each.
 * @param move receives 1 for each that is to be moved, else 0.
 * @return how many are; -1 with EINVAL (ptrs or move is NULL, and n not 0). Example:
 * @code
 *   if (quarry_should_move(ptrs, n, move) > 0)
 *           for (size_t i = 0; i < n; i++)
 *                   if (move[i]) {
 *                           void *to = quarry_malloc_dense(sizes[i]);
 *                           if (to == NULL)
 *                                   break;
 *                           items[i] = memcpy(to, ptrs[i], sizes[i]);
 *                           quarry_free_dense((void *)ptrs[i]);
 *                   }
 * @endcode */
QUARRY_API long quarry_should_move(const void *const ptrs[], size_t n, uint8_t move[]);

/** Why, for programs that decide by a rule of their own. */
typedef struct quarry_move_hint {
	uint8_t move;         /* as quarry_should_move */
	uint8_t known;        /* 0: no object in a slab of quarry's, and all else is 0 */
	uint8_t current;      /* 1: a thread allocates from its slab right now */
	uint8_t mixed;        /* 1: its slab has objects of mixed sizes. objects and free are grains of 16 bytes */
	uint32_t class_index; /* of its size class; 0 where mixed */
	uint32_t object_size; /* bytes; 0 where mixed */
	uint32_t objects;     /* that its slab has place for, */
	uint32_t free;        /* of which are free, and in no thread's cache */
	uint32_t slabs;       /* of the class in this arena that have room, but for current ones, by the last look; 0:
	                       * none was whole yet */
	uint64_t slabs_live;  /* objects that live in those */
} quarry_move_hint;

/** quarry_should_move, told in full.
 * @param hints receives n entries.
 * @param size sizeof(hints[0]): so much of each is filled, and so far apart they are.
 * @return as quarry_should_move. */
QUARRY_API long quarry_should_move_hints(const void *const ptrs[], size_t n, quarry_move_hint *hints, size_t size);

/** As quarry_malloc, from one of the fullest slabs, past the thread's cache: for what is moved. Some 300 instructions.
 * @return as quarry_malloc. */
QUARRY_API void *quarry_malloc_dense(size_t size) QUARRY_MALLOC_LIKE QUARRY_SIZE1(1);
/** The same in the given arena (NULL: the calling thread's default). */
QUARRY_API void *quarry_arena_malloc_dense(quarry_arena *arena, size_t size) QUARRY_MALLOC_LIKE QUARRY_SIZE1(2);

/** As quarry_free, past the thread's cache: the place of what was moved away is not used for what is allocated next. */
QUARRY_API void quarry_free_dense(void *p);

/** How much would come back if all were moved that quarry_should_move says. Bytes. */
typedef struct quarry_move_gain {
	uint64_t gain;   /* slabs that would be empty */
	uint64_t in_use; /* slabs and large blocks */
} quarry_move_gain;

/** By the last look that was whole: nothing is known of an arena before quarry_should_move was asked about its objects. Any
 * thread. @param arena NULL: all that there are. @return 0; -1 with EINVAL (no such arena, gain is NULL). */
QUARRY_API int quarry_move_gain_get(quarry_arena *arena, quarry_move_gain *gain);

/** Move one object, now, if quarry_should_move says so: allocate (quarry_malloc_dense, in its arena), copy, free. It must be
 * nobody's else meanwhile, and not have been asked for with an alignment of more than 16 bytes, which is not kept. errno stays.
 * @param p as it was allocated. @return where it is now; NULL: it is where it was, by choice or for want of memory. */
QUARRY_API void *quarry_move_dense(void *p);

/** A defragmentation that a program has the library do, and how much of a processor it may take: from `least` percent on,
 * when `start` percent of what is in use would come back, to `most` at `full`. Zero-initialise it; it is of one thread at a
 * time. */
typedef struct quarry_defrag {
	uint32_t struct_size; /* sizeof(struct quarry_defrag), or 0, which means the same */
	uint32_t flags;       /* 0 */
	quarry_arena *arena;  /* by whose gain it goes; NULL: of all */
	uint32_t start, full, least, most; /* percent; 0: 10, 100, 1, 25 */
	uint64_t ignore;      /* bytes: less is no gain; 0: a 16th of what is in use */
	/* What there was, for the program to read. */
	uint64_t done;        /* references looked at in the last call: the next one goes on behind */
	uint64_t gain, in_use; /* bytes, as it saw them last */
	uint64_t share;       /* percent of a processor by them; 0: nothing to gain */
	uint64_t wait_us;     /* microseconds until it is worth calling again */
	uint64_t looked, moved, moved_bytes, ran_ns; /* of all calls: counts, bytes, ns */
	uint64_t not_before;  /* ns, of CLOCK_MONOTONIC */
} quarry_defrag;

/** Move what pays of some objects, within a budget, and write where they are now to where the program has their
 * addresses. All that quarry_move_dense says of an object holds for each.
 * @param refs where the n addresses are: *refs[i] is an object's, or NULL.
 * @param budget_us microseconds after which no other object is begun; 0: any time.
 * @return objects moved; d->done references were looked at. -1 with EINVAL (a bad field, refs is NULL), EAGAIN (it is not time
 *         yet, or there is nothing to gain: d->wait_us says when to ask again; at times it looks all the same, as gains are
 *         known by looking). Example:
 * @code
 *   static quarry_defrag d;
 *   long moved = quarry_defrag_run(&d, &refs[next], count - next, 500);
 *   next = moved < 0 ? next : (next + d.done) % count;
 * @endcode */
QUARRY_API long quarry_defrag_run(quarry_defrag *d, void **const refs[], size_t n, uint64_t budget_us);

/* ------------------------------------------------------------------------------------------------------ */
/* Where memory really is                                                                                 */

enum quarry_where_node {
	QUARRY_NODE_NONE = -1,   /* not in memory: never touched, or given back */
	QUARRY_NODE_UNKNOWN = -2 /* the kernel would not say (quarry_stats: refused) */
};

/** One page of a range, as the kernel has it and as quarry asked for it. */
typedef struct quarry_page_info {
	const void *address;    /* of the page */
	size_t size;            /* bytes of the page that backs it: base, 2 MiB or 1 GiB; 0 when not in memory */
	int32_t node;           /* the kernel's id, or enum quarry_where_node */
	int32_t wanted_node;    /* the node asked for (the first of the set); -1: any */
	uint8_t page_kind;      /* enum quarry_page_kind it really is; AUTO when the kernel would not say */
	uint8_t wanted_kind;    /* enum quarry_page_kind asked for */
	uint8_t policy;         /* enum quarry_policy asked for */
	uint8_t policy_applied; /* 1 when the kernel took a policy for it */
	uint8_t policy_got;     /* enum quarry_policy that is in force: an older one stands in on older kernels. (BIND
	                         * is kept by quarry: numa_maps shows "prefer (many)") */
	uint8_t reserved[3];
} quarry_page_info;

/** Ask the kernel (never quarry's own books) where each page of [p, p + n) is. Touches no page.
 * @param info receives one entry per page, in order; at most max of them. May be NULL with max 0, to count.
 * An entry is a base page (a hugetlb page in an arena of those); its size is that of the page behind it, so that 8 MiB
 * in transparent huge pages are 2,048 entries of size 2 MiB.
 * @return how many pages the range has; -1 with EINVAL when p is not quarry's. Node by move_pages(2) (Linux 2.6.18);
 *         huge or not by PAGEMAP_SCAN (Linux 6.7) or, before, from mincore(2) and the region's record. */
QUARRY_API long quarry_where(const void *p, size_t n, quarry_page_info *info, size_t max);

/** How much of an arena is in memory on one node. */
typedef struct quarry_residency {
	int32_t node;           /* the kernel's id, or QUARRY_NODE_UNKNOWN */
	uint32_t reserved;
	uint64_t bytes;         /* in memory there */
	uint64_t by_kind[5];    /* of them by enum quarry_page_kind; AUTO: base or huge, the kernel would not say */
	uint64_t strayed;       /* of them where the arena's policy does not want them */
} quarry_residency;

/** Ask the kernel where all of an arena's memory is, and sum it up by node. Threads go on meanwhile.
 * @param list receives at most max entries, ascending by node. May be NULL with max 0, to count.
 * @return how many nodes have some of it; -1 with EINVAL when it is no arena. Kinds as in quarry_where, but looked at
 *         once for each 2 MiB. */
QUARRY_API long quarry_arena_where(quarry_arena *arena, quarry_residency *list, size_t max);

/* ------------------------------------------------------------------------------------------------------ */
/* Tuning                                                                                                 */

/** Options by number, for quarry_mallopt. By name: quarry_ctl_set. `quarry help options` lists them. */
enum quarry_option {
	QUARRY_OPT_RECLAIM = 1,          /* reclaim: 0 off, 1 series, 2 parallel, 3 auto, 4 timer (see README.md,
	                                  * "Without a thread") */
	QUARRY_OPT_RECLAIM_INTERVAL = 2, /* reclaim_interval: slow-path calls between two passes in series */
	QUARRY_OPT_DECAY_MS = 3,         /* decay_ms: free memory goes back after about so long; -1 never by time, only
	                                  * under QUARRY_PRESSURE_HIGH (return: 0 is never) */
	QUARRY_OPT_PAGES = 4,            /* pages: enum quarry_page_kind for default arenas */
	QUARRY_OPT_STRICT = 5,           /* strict: default arenas fail rather than fall */
	QUARRY_OPT_THP_MIN = 6,          /* thp_min: bytes in use from which new memory is born huge, and what is dense on
	                                  * base pages is made huge in the background; twice that of one block */
	QUARRY_OPT_NUMA = 7,             /* numa: 0 treat the machine as one node, 1 follow its nodes */
	QUARRY_OPT_STATS_AT_EXIT = 8,    /* stats_at_exit: 0 no, 1 text, 2 JSON, 3 a summary, to standard error */
	QUARRY_OPT_ON_ERROR = 9,         /* on_error: 0 ignore and count, 1 report on standard error, 2 abort */
	QUARRY_OPT_JUNK = 10,            /* junk: fill what is freed, to show use after free */
	QUARRY_OPT_WINDOW = 11,          /* window: bytes of address space to reserve; 0 by the machine's memory */
	QUARRY_OPT_LARGE_HEAP = 12,      /* large_heap: bytes mapped from which `auto` starts the reclaimer's thread */
	QUARRY_OPT_RETURN = 13,          /* return: 0 never give memory back to the kernel (for RDMA), 1 do */
	QUARRY_OPT_BRING_HOME = 14,      /* bring_home: 1 look for pages that strayed to other nodes and move them
	                                  * home */
	QUARRY_OPT_FORK_COPY = 15,       /* fork_copy: bytes of hugetlb memory, and of memory with descriptors, that a
	                                  * fork copies for the child; beyond, the kernel's copy-on-write, which kills
	                                  * the child when the pool runs dry, and nothing of what has descriptors */
	QUARRY_OPT_IDLE_THREADS = 16,    /* idle_threads: 1 what a thread holds that is blocked in a system call and did
	                                  * not refill for a quarter of decay_ms goes back; 0 for a program that stops
	                                  * threads at any instruction, in handlers that unblock their signal */
	QUARRY_OPT_POPULATE_THREADS = 17, /* populate_threads: so many threads at most fill a large range that is to be
	                                  * populated; 0 as many as its node has CPUs, up to 16; 1 the caller alone */
	QUARRY_OPT_RECLAIM_SIGNAL = 20,  /* reclaim_signal: the number of the signal that reclaim=timer sends the
	                                  * process: 23 (SIGURG), 28 (SIGWINCH), or one of SIGRTMIN to SIGRTMAX. Another
	                                  * may be sent to the program, which would not end or go on by it, and is
	                                  * refused */
	QUARRY_OPT_SOFT_LIMIT = 30,      /* soft_limit: bytes, in use and free but in memory, from which the process
	                                  * keeps no free memory; 0 none. As quarry_arena_attr.soft_limit */
	QUARRY_OPT_HARD_LIMIT = 31,      /* hard_limit: bytes in use beyond which the process gets ENOMEM; 0 none. What
	                                  * counts is as for quarry_arena_attr.hard_limit, of all arenas together */
	QUARRY_OPT_BREAKER = 32,         /* breaker: 0 off, 1 refuse, 2 redirect large requests when a limit is near */
	QUARRY_OPT_BREAKER_MIN = 33,     /* breaker_min: bytes from which a request is large; at least 64 KiB (less,
	                                  * which was taken once, is an error: caches hand out what is small, and ask
	                                  * nobody) */
	QUARRY_OPT_BREAKER_AT = 34,      /* breaker_at: per cent of the tightest limit beyond which no large request
	                                  * leads, and at which the breaker opens. Of hard_limit and RLIMIT_AS this
	                                  * holds for each request; how full the control group and the machine are is
	                                  * seen when the reclaimer looks, about twice a second. Of a control group's
	                                  * limit it is per cent of what malloc uses (8 MiB and a 32nd part are left) */
	QUARRY_OPT_CGROUP_LIMIT = 35,    /* cgroup_limit: 1 what was handed out counts against the control group's
	                                  * memory limit, touched or not, so that ENOMEM comes before the kernel's
	                                  * killer; 0 for programs that ask for much more than they touch: as other
	                                  * allocators have it */
	QUARRY_OPT_PROFILE = 40,         /* profile: bytes allocated from one sample of the heap profile to the next, on
	                                  * average; 0 none are taken. See quarry_profile_start */
	QUARRY_OPT_PROFILE_STACKS = 41,  /* profile_stacks: 0 auto, 1 by unwind tables (libgcc_s), where they can be had,
	                                  * 2 by frame pointers: much faster, and wrong for code without them */
	QUARRY_OPT_LEAKS_AT_EXIT = 42,   /* leaks_at_exit: 0 no, 1 text, 2 JSON, to standard error: what cannot be reached
	                                  * when the program ends (quarry_leaks_print) */
	QUARRY_OPT_REPORT_SIGNAL = 43,   /* report_signal: the number of the signal at which a thread writes what is
					  * written at the end of the program; 0 none. At the start alone */
	QUARRY_OPT_CHECKED = 44,         /* checked: 1 the memory of blocks with counts (quarry/block.h) is held back after
	                                  * the last reference: most is filled, and late uses are counted as bad frees;
	                                  * a sample and what is large is inaccessible, and late uses are SIGSEGV (see
	                                  * quarry_block_check). 0 lets it all go */
	QUARRY_OPT_PUBLISH = 36          /* publish: 0 off, 1 auto, 2 on: whether the figures stand in a page that others
	                                  * may read (quarry_published), renewed at most once in a second and in a
	                                  * hundredth of the time. auto: by the reclaimer's thread, where there is one,
	                                  * from a second after it began, and by quarry_tend; on: also in passing, by
	                                  * threads that allocate */
};

/** Set an option by number (enum quarry_option), or a glibc M_* parameter, which is accepted.
 * @return 1 when done; 0 with EINVAL (not an option, value out of range) or EPERM (only settable at start). */
QUARRY_API int quarry_mallopt(int option, long value);

/** Set an option or a control by name: "decay_ms", "100". Names and values as in QUARRY_OPTIONS.
 * @return 0; -1 with ENOENT (no such name), EINVAL (bad value), EPERM (only settable at start).
 *         quarry_error_text() then names it. */
QUARRY_API int quarry_ctl_set(const char *name, const char *value);

/** Read an option or a figure by name into a buffer, as text.
 * @return the length it has (as snprintf); -1 with ENOENT or EINVAL. */
QUARRY_API int quarry_ctl_get(const char *name, char *value, size_t size);

typedef struct quarry_option_info {
	const char *name;
	const char *help;    /* one line */
	int number;          /* enum quarry_option */
	int runtime;         /* 1: may be changed while running */
	long minimum, maximum; /* beyond them nothing is taken; of reclaim_signal, between them only what help names.
	                        * (quarry_ctl_set("options_check", "name=value") says what is taken, and sets
	                        * nothing.) */
	long def, value;
	const char *choices; /* "off|series|parallel|auto|timer" or NULL for numbers */
} quarry_option_info;

/** The index-th option. @return 0; -1 with EINVAL past the last one. */
QUARRY_API int quarry_option_describe(int index, quarry_option_info *info);

/** What was wrong with the calling thread's last failed call of a function here, in one line that names the option,
 * field or parameter; "" when nothing was. Those that allocate, resize or free say all by errno and leave it as it was
 * (quarry_arena_create, quarry_arena_free and quarry_populate set it), and so does quarry_option_describe, whose end of
 * a list is no mistake. Valid until the thread's next failure. */
QUARRY_API const char *quarry_error_text(void);

/* ------------------------------------------------------------------------------------------------------ */
/* Pressure and limits                                                                                    */

/** How scarce memory is for the process: from cgroup v2's memory.pressure or /proc/pressure/memory (PSI, Linux 4.20),
 * how full the control group's memory.max and memory.high (v1: limit_in_bytes) and RLIMIT_AS are, what the machine has
 * left, and how full the process's own hard_limit is. It rises at once, and falls step by step after it was lower for a
 * second. */
enum quarry_pressure {
	QUARRY_PRESSURE_NONE = 0,
	QUARRY_PRESSURE_SOME = 1,    /* dirty memory and idle caches go back four times as fast; a limit is filled to 85
	                              * %, or tasks wait for memory for a twentieth of the time */
	QUARRY_PRESSURE_HIGH = 2,    /* both go back at once, with decay_ms=-1 too, and partly used huge pages are
	                              * broken; 92 %, a fifth of the time, or the kernel had to reclaim at memory.high
	                              * or memory.max */
	QUARRY_PRESSURE_CRITICAL = 3 /* the same, and the breaker opens, where there is one; 97 % */
};

/** A limit that bounds the process; quarry_health_report.limit_kind. */
enum quarry_limit_kind {
	QUARRY_LIMIT_NONE = 0,
	QUARRY_LIMIT_PROCESS = 1,       /* option hard_limit */
	QUARRY_LIMIT_CGROUP = 2,        /* memory.max of the control group or one above it; v1: memory.limit_in_bytes */
	QUARRY_LIMIT_ADDRESS_SPACE = 3  /* RLIMIT_AS (ulimit -v) */
};

enum quarry_breaker_state {
	QUARRY_BREAKER_CLOSED = 0,   /* nothing is refused but what would by itself pass the threshold (or there is
	                              * none: option breaker) */
	QUARRY_BREAKER_OPEN = 1,     /* large requests are refused or redirected */
	QUARRY_BREAKER_HALF_OPEN = 2 /* one was let through; how it goes decides */
};

/** What a quarry_event tells of. */
enum quarry_event_kind {
	QUARRY_EVENT_PRESSURE = 1,   /* state and was: enum quarry_pressure */
	QUARRY_EVENT_SOFT_LIMIT = 2, /* state 1: above it, 0: below again. arena: whose; NULL: the process's. bytes: in
	                              * use, and free in memory */
	QUARRY_EVENT_HARD_LIMIT = 3, /* a request was refused. arena: as above; bytes: the request's; limit: the one
	                              * that refused it, be it another when this is told (of several, the last one's);
	                              * count: how many were refused since the last such event. The first of a series is
	                              * told at once, those that follow once a second, with state 1 */
	QUARRY_EVENT_BREAKER = 4,    /* state and was: enum quarry_breaker_state */
	QUARRY_EVENT_FALLBACK = 5    /* memory was had, and not as it was asked for. what: enum quarry_fallback, which
	                              * says what was (asked for) and state (got) are; arena: whose; bytes: of the region,
	                              * or strayed; count: how many since the last such event of this arena. The first is
	                              * told at once, those that follow once a second */
};

/** What was not as it was asked for; quarry_event.what. */
enum quarry_fallback {
	QUARRY_FALLBACK_PAGES = 1,  /* was, state: enum quarry_page_kind */
	QUARRY_FALLBACK_POLICY = 2, /* was: enum quarry_policy; state: the one that stands in on an older kernel; -1: none,
	                             * the kernel refused it and first touch decides */
	QUARRY_FALLBACK_NODE = 3    /* pages were found elsewhere. was: the node, by the kernel's id; -1: a set of nodes;
	                             * state: -1 */
};

typedef struct quarry_event {
	size_t struct_size;  /* what the library's struct has; it may grow at the end */
	int kind;            /* enum quarry_event_kind */
	int state, was;
	quarry_arena *arena; /* by name only: it may have ended since. NULL: the process */
	uint64_t bytes, limit;
	uint64_t count;      /* what this event stands for; 1 but for QUARRY_EVENT_HARD_LIMIT and _FALLBACK */
	uint64_t time_ms;    /* CLOCK_MONOTONIC, when it came about */
	uint64_t lost;       /* events so far for which there was no room */
	int what;            /* of QUARRY_EVENT_FALLBACK: enum quarry_fallback; else 0 */
} quarry_event;

/** Is told of an event, which is only there for the call. */
typedef void quarry_event_fn(const quarry_event *event, void *ctx);

/** Be told when something changes: the level of pressure, limits passed, requests refused, the breaker; and when memory
 * was had otherwise than it was asked for.
 * The function is called by the reclaimer's thread (256 KiB of stack, all signals blocked), or by a thread of the
 * program at the end of one of its calls of malloc, free or any function here, a little after the event; never with a
 * lock of quarry's held, never twice at once, and not again from inside itself. So it may allocate, free, and call any
 * function here; but since it may come out of any malloc it must not wait for a lock that the program holds while it
 * allocates. One function for the process: this one replaces the one before, which has ended when this returns (unless
 * called from inside it). Events wait in a ring of 64; what comes when it is full is counted in `lost`. A forked child
 * keeps the function and forgets the events. Any thread may call.
 * @param fn NULL: nobody is told; what came about while nobody was is not told later.
 * @param ctx is handed to fn.
 * @return 0. */
QUARRY_API int quarry_on_event(quarry_event_fn *fn, void *ctx);

/** What becomes of a region's memory; kinds of quarry_on_region are or-ed of these. */
enum quarry_region_kind {
	QUARRY_REGION_MAP = 1,   /* it is there, and nobody has anything in it yet */
	QUARRY_REGION_UNMAP = 2, /* all of it is about to go: the kernel was not asked yet */
	QUARRY_REGION_PURGE = 4  /* pages of it, in which nothing lives, are about to be given back, or exchanged for
	                          * others (mremap(2), as a large block grows); address space stays. The kernel may refuse:
	                          * then they stay, and may be announced again */
};

typedef struct quarry_region_event {
	size_t struct_size;  /* what the library's struct has; it may grow at the end */
	int kind;            /* enum quarry_region_kind: one of them */
	int page_kind;       /* enum quarry_page_kind: of the region, as the kernel granted it */
	void *address;       /* of the region, or of the pages; whole pages of the kernel's */
	size_t size;
	quarry_arena *arena; /* whose; NULL when it has ended, as it has when its regions go by quarry_arena_destroy */
	int node;            /* that was asked for, by the kernel's id; -1: no one node, or the arena has ended */
	int fd;              /* of the memory file that the region is in (QUARRY_ARENA_FD); -1: in none */
} quarry_region_event;

/** Is told of an event, which is only there for the call. */
typedef void quarry_region_fn(const quarry_region_event *event, void *ctx);

/** Be told of memory before it goes away, and when it comes: for whoever registers it with a device (RDMA, io_uring, a
 * GPU) or keeps other records of it. The function is called by the very thread that is about to ask the kernel, and the
 * kernel is asked when it has returned. What moves pages without changing what is where (collapsing into huge pages,
 * moving to another node) is not told of: the kernel leaves pages alone that are pinned.
 *
 * That may be the reclaimer's thread (256 KiB of stack, all signals blocked) or a thread of the program in the middle of
 * a malloc, a free or any function here. So the function may run in several threads at once, and inside itself, if what
 * it allocates takes a new region. No lock of quarry's is held that malloc, free or realloc can need: it may allocate,
 * resize and free, and ask (quarry_usable_size, quarry_where, quarry_stats_get, quarry_health, quarry_nodes...).
 * It may not wait for a lock that any thread holds while it calls quarry, nor for another thread that does; and what
 * would hold threads still or make memory go back fails inside it with EDEADLK (quarry_arena_create, _destroy, _reset,
 * _move, quarry_view_open, quarry_thread_set_arena, _rebind), or does nothing (quarry_purge, quarry_thread_flush).
 * Nor may it fork. errno is kept.
 *
 * With any function here, option `reclaim=timer` is as refused: memory goes back in series, and not in a signal handler.
 * Regions that were there before are not told of (quarry_view_visit has them); at the end of the process nothing is. A
 * forked child keeps the functions, and is not told of memory that it did not inherit.
 * @param fn and ctx together name what is told, up to 16 such at once. The same pair again changes its kinds.
 * @param kinds enum quarry_region_kind, or-ed; 0: no more. When this returns, no thread is in fn with that ctx any more,
 *        unless this is called from inside a function of quarry_on_region.
 * @return 0; -1 with EINVAL (fn is NULL, or kinds has unknown bits), ENOENT (0, and nothing is told to that pair), ENOSPC
 *         (there are 16 already). Any thread may call. Example:
 * @code
 *   static void gone(const quarry_region_event *e, void *cache)
 *   {
 *           registrations_drop(cache, e->address, e->size);
 *   }
 *   quarry_on_region(gone, cache, QUARRY_REGION_UNMAP | QUARRY_REGION_PURGE);
 * @endcode */
QUARRY_API int quarry_on_region(quarry_region_fn *fn, void *ctx, unsigned kinds);

/** Where large requests go while the breaker is open and the option breaker is `redirect`: for example an arena on a
 * far node (QUARRY_POLICY_BIND). They are then in that arena for life, as if they had been made there; those for which
 * it has no room either get ENOMEM. Requests made of that arena itself are not held up. What pools, page allocators,
 * stacks and slabs of buffers have there keeps it from ending as in any arena; those whose own arena is strict or names
 * nodes (quarry_buffers_attr.on_node, too) are not sent there, and get ENOMEM. Any thread may call.
 * @param arena NULL: none, large requests are refused. An arena that ends is forgotten.
 * @return 0; -1 with EINVAL when it is no arena. */
QUARRY_API int quarry_breaker_redirect(quarry_arena *arena);

/** How well the process is; quarry_health_report.state. */
enum quarry_health_state {
	QUARRY_HEALTH_GREEN = 0,  /* nothing to tell */
	QUARRY_HEALTH_YELLOW = 1, /* pressure, a soft limit passed, or the breaker tries whether it can close */
	QUARRY_HEALTH_RED = 2     /* critical pressure, or the breaker is open: requests are refused */
};

/** Why; bits of quarry_health_report.reasons. */
enum quarry_health_reason {
	QUARRY_HEALTH_LIMIT_FILL = 1,    /* the tightest limit is nearly full */
	QUARRY_HEALTH_PSI = 2,           /* tasks wait for memory */
	QUARRY_HEALTH_CGROUP_EVENTS = 4, /* the kernel reclaimed at memory.high or memory.max */
	QUARRY_HEALTH_MACHINE = 8,       /* the machine has little left */
	QUARRY_HEALTH_SOFT_LIMIT = 16,   /* the process's or an arena's was passed */
	QUARRY_HEALTH_BREAKER = 32,      /* the breaker is not closed */
	QUARRY_HEALTH_DENIED = 64        /* a limit refused a request within the last ten seconds */
};

typedef struct quarry_health_report {
	uint32_t struct_size;      /* set by the caller to sizeof: lets the struct grow. What is behind it is not written */
	int32_t state;             /* enum quarry_health_state */
	int32_t level;             /* enum quarry_pressure */
	uint32_t reasons;          /* enum quarry_health_reason, or-ed */
	int32_t limit_kind;        /* enum quarry_limit_kind: the limit that is filled most */
	uint32_t limit_per_mille;  /* how far, in 1/1000 */
	uint64_t limit, used;      /* its bytes; 0: none */
	uint32_t psi_some, psi_full; /* 1/1000 of the last window in which some, or all, tasks waited for memory */
	uint32_t psi_of_group;     /* 1: those of the process's control group; 0: of the machine */
	int32_t breaker;           /* enum quarry_breaker_state */
	uint64_t psi_window_ms;    /* how long that window was; 0: the kernel does not tell, or was asked for the first
	                            * time */
	uint64_t available, total; /* bytes that the machine has left and has; 0: not asked, the group has less */
	uint64_t in_use;           /* bytes that count against hard_limit */
	uint64_t hard_limit, soft_limit; /* the process's; 0: none */
	uint32_t above_soft;       /* 1: the process is above its soft limit */
	uint32_t arenas_above_soft; /* count */
	uint64_t denied_process;   /* requests refused since the start, by the process's hard limit, */
	uint64_t denied_arenas;    /* by those of arenas, */
	uint64_t denied_cgroup;    /* and for the control group */
	uint64_t breaker_opened, breaker_refused, breaker_redirected, breaker_probes; /* counts since the start */
	uint64_t events_lost;      /* for which the ring had no room */
} quarry_health_report;

/** How the process is doing with memory, and why. Reads a few files of the kernel (at most every 100 ms), holds no lock
 * meanwhile and allocates nothing. Any thread may call.
 * @return 0; -1 with EINVAL (struct_size not set). */
QUARRY_API int quarry_health(quarry_health_report *report);

/** The same in one line for people: "yellow: cgroup limit filled to 93.1 %; psi some 12.0 %".
 * @param report as quarry_health filled it.
 * @param text receives at most size bytes with the 0; may be NULL with size 0.
 * @return the length it has (as snprintf); -1 with EINVAL. */
QUARRY_API int quarry_health_text(const quarry_health_report *report, char *text, size_t size);

/* ------------------------------------------------------------------------------------------------------ */
/* Looking at what lives                                                                                  */

/** What lived at one moment: all arenas, their regions, slabs, objects and blocks, to be looked at afterwards at leisure.
 * It owns none of that and keeps none of it from changing: addresses may be anything's by then. */
typedef struct quarry_view quarry_view;

enum quarry_view_kind {
	QUARRY_VIEW_REGION = 1, /* a run of address space from the kernel */
	QUARRY_VIEW_SLAB = 2,   /* objects of one size, or of mixed sizes, that stand together */
	QUARRY_VIEW_OBJECT = 4, /* one of those */
	QUARRY_VIEW_BLOCK = 8,  /* a large block */
	QUARRY_VIEW_PAGES = 16  /* with the others, for quarry_view_visit: ask the kernel where what is told of is now */
};

enum quarry_view_state {
	QUARRY_VIEW_FREE = 0,   /* it could have been allocated by any thread that finds its slab */
	QUARRY_VIEW_LIVE = 1,   /* the program had it */
	QUARRY_VIEW_CACHED = 2, /* free, in a thread's cache or on its way to where it came from */
	QUARRY_VIEW_UNKNOWN = 3 /* of quarry_inspect alone: it cannot be told without stopping somebody */
};

typedef struct quarry_view_item {
	size_t struct_size;    /* what the library's struct has; it may grow at the end */
	int kind;              /* enum quarry_view_kind: one of them */
	int state;             /* enum quarry_view_state: of objects; blocks, slabs and regions are live */
	const void *address;
	size_t size;           /* bytes: an object's are those that may be used */
	quarry_arena *arena;   /* by name only: it may have ended since */
	const char *arena_name; /* as long as the view is open; may be empty */
	int node;              /* that was asked for, by the kernel's id; -1: no one node */
	int page_kind;         /* enum quarry_page_kind: of the region, as the kernel granted it */
	size_t object_size;    /* of a slab: of each object; 0: mixed sizes */
	size_t objects, live, cached; /* of a slab: how many there are (of mixed sizes: live and cached ones), and of them */
	size_t live_bytes, cached_bytes; /* of a slab: in those; of a region: and in large blocks */
	/* Of all but objects, with QUARRY_VIEW_PAGES, of now and not of the view's moment; else 0, and -1: */
	size_t resident;       /* bytes in memory, */
	size_t huge;           /* of them in huge pages, as far as the kernel tells (quarry_where says how) */
	int resident_node;     /* where most of that is, by the kernel's id, or enum quarry_where_node, */
	size_t resident_there; /* and so much of it */
} quarry_view_item;

typedef struct quarry_view_report {
	uint32_t struct_size;  /* set by the caller to sizeof: lets the struct grow */
	uint32_t exact;        /* 1: it is as it was at one moment. 0: some of what follows is not 0 */
	uint32_t unsettled;    /* threads that held something and could neither be seen to run nor to wait (they block a
	                        * signal that has a handler, are under a debugger, or there is no /proc): what is free
	                        * with them counts as live. And threads that had said good-bye */
	uint32_t missed;       /* lists or slabs that could not be looked at, or that the program had written over: what is
	                        * free there counts as live */
	uint32_t arenas_ended; /* that were reset or destroyed while it was made: they are left out */
	uint32_t threads;      /* that held something */
	uint64_t moment_ns;    /* how long all threads of the process were kept from allocating and freeing, */
	uint64_t longest_ns;   /* how long any one of them was afterwards, at most, */
	uint64_t took_ns;      /* and for how long all that they did took some tenths of a microsecond */
	uint64_t regions, slabs, blocks, blocks_bytes; /* blocks: large ones */
	uint64_t objects, objects_bytes; /* live ones in slabs */
	uint64_t cached, cached_bytes;   /* free ones in threads' caches, or on their way home */
} quarry_view_report;

/** Make a view of all that lives at one moment during this call, exactly, while other threads go on. Threads are kept
 * from allocating and freeing for the moment itself, which takes as long as it takes to tell each of them, and then one
 * at a time for some tenths of a millisecond while lists of theirs are looked at; nobody is kept from anything else. What
 * they allocate and free meanwhile is noted (snapshot at the beginning: T. Yuasa, JSS 1990), which makes it slower.
 * 10 million objects take some 0.4 s, several where there are more busy threads than processors; a thread that cannot
 * be looked at is waited for for one second, and all for 20: then the view is not exact, and its report says so.
 * It takes address space of a 32nd of what quarry has claimed (whole GiB), and memory of a 64th of what objects stand in;
 * nothing comes from any heap. Any thread may call, one after the other; not inside another call of quarry's, nor in a
 * signal handler.
 * @return the view; NULL with ENOMEM; EDEADLK (inside an allocation, as in a patched mmap); ECANCELED (in a child that a
 *         signal handler forked meanwhile). Example:
 * @code
 *   static int tell(const quarry_view_item *item, void *ctx)
 *   {
 *           if (item->state == QUARRY_VIEW_LIVE)
 *                   printf("%p: %zu bytes\n", item->address, item->size);
 *           return 0;
 *   }
 *   quarry_view *v = quarry_view_open();
 *   quarry_view_visit(v, QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, tell, NULL);
 *   quarry_view_close(v);
 * @endcode */
QUARRY_API quarry_view *quarry_view_open(void);

/** Give a view's memory back. NULL is ignored. No other thread may be using it. */
QUARRY_API void quarry_view_close(quarry_view *view);

/** Be told of all that is of the given kinds, by address, of objects also of those that are free (but in mixed slabs,
 * whose gaps are none): see item->state; a slab comes before its objects, a region before all that is
 * in it. Several threads may visit one view. The function may allocate, free, and call any function here.
 * With QUARRY_VIEW_PAGES the kernel is asked of each 2 MiB whether it is a huge page, and of each page that is none where
 * it is (move_pages(2), 256 at a time; none is touched): a millisecond for a GiB of huge pages, 0.1 s of base pages.
 * @param kinds enum quarry_view_kind, or-ed.
 * @param fn is told of one thing, which is only there for the call; what it returns, if not 0, ends the visit.
 * @param ctx is handed to fn.
 * @return 0, or what fn returned; -1 with EINVAL. */
QUARRY_API int quarry_view_visit(const quarry_view *view, unsigned kinds,
				 int (*fn)(const quarry_view_item *item, void *ctx), void *ctx);

/** What p was in: an object of a slab that lived or was in a thread's cache, or a large block, of which it may be any
 * byte.
 * @param item is filled; its struct_size is what the library's struct has.
 * @param size sizeof(*item): so much of it is filled.
 * @return 0; -1 with ENOENT (nothing was there, or it was free), or EINVAL. */
QUARRY_API int quarry_view_find(const quarry_view *view, const void *p, quarry_view_item *item, size_t size);

/** How a part of an arena is used: a row of quarry_view_uses. */
typedef struct quarry_view_use {
	size_t struct_size;     /* what the library's struct has; it may grow at the end */
	int kind;               /* QUARRY_VIEW_SLAB: slabs of a size class; QUARRY_VIEW_BLOCK: large blocks;
	                         * QUARRY_VIEW_REGION: memory by huge pages (2 MiB), of whichever pages it is made */
	quarry_arena *arena;    /* by name only: it may have ended since */
	const char *arena_name; /* as long as the view is open; may be empty */
	size_t object_size;     /* of slabs; 0: of mixed sizes */
	uint64_t count;         /* slabs, blocks, or huge pages in which there is one of those */
	uint64_t held;          /* their bytes */
	uint64_t objects, live, cached; /* that slabs have place for (of mixed sizes: live and cached ones), and of them; of
	                                 * blocks, live ones */
	uint64_t live_bytes, cached_bytes;
	uint64_t held_by_use[4]; /* of held: in slabs or huge pages of which less than a quarter lives; less than a half;
	                          * less than three quarters; and more: what few bytes keep from going back */
} quarry_view_use;

/** Where memory is held by little: a row for each size class of each arena that has slabs, one for its large blocks, and
 * one, first, for its huge pages. Arenas come by address.
 * @param list receives at most max rows. May be NULL with max 0, to count.
 * @param size sizeof(list[0]): so much of each row is filled, and so far apart they are.
 * @return how many rows there are; -1 with EINVAL, or ENOMEM. Example:
 * @code
 *   quarry_view_use use[100];
 *   long n = quarry_view_uses(v, use, 100, sizeof(use[0]));
 *   for (long i = 0; i < n && i < 100; i++)
 *           if (use[i].kind == QUARRY_VIEW_SLAB)
 *                   printf("%s, %zu bytes: %llu held by slabs that are nearly empty\n", use[i].arena_name,
 *                          use[i].object_size, (unsigned long long)use[i].held_by_use[0]);
 * @endcode */
QUARRY_API long quarry_view_uses(const quarry_view *view, quarry_view_use *list, size_t max, size_t size);

#define QUARRY_STACK_MAX 64 /* frames that are known of a stack, at most: the innermost */
#define QUARRY_VIEW_AGES 8  /* under 1 ms, 10 ms, ... 1000 s, and more */

/** Who allocated some of what lives: a row of quarry_view_holders. */
typedef struct quarry_view_holder {
	size_t struct_size;     /* what the library's struct has; it may grow at the end */
	uint64_t samples;       /* of the profile, that live, */
	uint64_t objects, bytes; /* what they stand for, */
	uint64_t ages[QUARRY_VIEW_AGES]; /* and of these objects how many have lived for how long */
	size_t object_size;     /* bytes that can be used of each */
	unsigned depth;         /* how many frames are known of the stack; 0: none */
	void *stack[QUARRY_STACK_MAX]; /* return addresses, the innermost first */
} quarry_view_holder;

/** Which stacks allocated what lives in a row of quarry_view_uses: who keeps slabs that are nearly empty. By the samples of
 * the profile (quarry_profile_start), as they are now and not at the view's moment, and by size: of a size class, its
 * objects; of large blocks, all of those; of huge pages, all that lives in the arena; of mixed sizes nothing is known. A
 * sample stands in a slab of its own, so that nothing is told of single slabs: those that allocate most of a class, and
 * keep it for long, hold most of them, on average.
 * @param use a row: its kind, arena and object_size are looked at; the view may be closed.
 * @param list receives at most max rows (of max, 1024), those with most bytes first: one for each stack, object size and
 *        node. May be NULL with max 0, to count.
 * @param size sizeof(list[0]): so much of each row is filled, and so far apart they are.
 * @return how many rows there are; 0 also where no profile is kept; -1 with EINVAL, or ENOMEM. Any thread may call. */
QUARRY_API long quarry_view_holders(const quarry_view_use *use, quarry_view_holder *list, size_t max, size_t size);

/** Write those rows, and the view's report, to a file descriptor, as text for people (80 columns) or as one JSON object;
 * while a profile is kept, with the stacks that hold slabs of which less than a half lives (quarry_view_holders: of five
 * size classes, those that hold most, three stacks each).
 * Allocates nothing from any heap. @return 0; -1 with write(2)'s errno, EINVAL, EBADF or ENOMEM. */
QUARRY_API int quarry_view_print(const quarry_view *view, int fd, int json);

enum quarry_dump_format {
	QUARRY_DUMP_BINARY = 1, /* two bits for each object, and some 40 bytes for each slab */
	QUARRY_DUMP_JSON = 2    /* a JSON object on each line */
};

/** Write all of a view to a file descriptor, in a format that doc/view-format.md describes: `quarry map` and
 * `quarry diff` read it, of this version of quarry and of later ones. Where a profile is kept (quarry_profile_start), the
 * stacks of its living samples are in it, as they are now and not at the view's moment. Allocates nothing from any heap.
 * @param format enum quarry_dump_format.
 * @return 0; -1 with write(2)'s errno, EINVAL, EBADF or ENOMEM. */
QUARRY_API int quarry_view_dump(const quarry_view *view, int fd, int format);

/** How the view was made, and what is in it. @return 0; -1 with EINVAL (struct_size not set). */
QUARRY_API int quarry_view_report_get(const quarry_view *view, quarry_view_report *report);

/** What there is to tell of one pointer, without a view. */
typedef struct quarry_inspection {
	size_t struct_size;    /* what the library's struct has; it may grow at the end */
	int kind;              /* enum quarry_view_kind: QUARRY_VIEW_OBJECT or QUARRY_VIEW_BLOCK; QUARRY_VIEW_SLAB: behind a slab's
	                        * last object, or in a gap of mixed ones; QUARRY_VIEW_REGION: in nothing that is in use */
	int state;             /* enum quarry_view_state: of objects; blocks, slabs and regions are live */
	const void *address;   /* where that begins, */
	size_t size;           /* its bytes, */
	size_t offset;         /* and how far behind its beginning the pointer is */
	const void *slab;      /* that an object stands in; else NULL, */
	size_t slab_size;      /* and its bytes */
	const void *region;
	size_t region_size;
	quarry_arena *arena;   /* by name only: it may have ended since */
	char arena_name[QUARRY_ARENA_NAME_MAX];
	int node;              /* that was asked for, by the kernel's id; -1: no one node */
	int page_kind;         /* enum quarry_page_kind: of the region, as the kernel granted it */
	int mine;              /* of an object: 1 its slab is the calling thread's, 0 another's, -1 nobody's */
	/* Of an object or a large block that is a living sample of the profile (quarry_profile_start); else all 0: */
	unsigned sampled;      /* 1: it is one, and lives for certain */
	unsigned depth;        /* how many frames are known of the stack that allocated it; 0: none */
	size_t asked;          /* bytes that were asked for, by the last realloc if it stayed where it is */
	uint64_t age_ms;       /* how long ago it was allocated. To the profile, a realloc that moves it, or that changes the
	                        * pages of a large block, allocates anew; one that it has room for as it is does not */
	void *stack[QUARRY_STACK_MAX]; /* return addresses, the innermost first */
} quarry_inspection;

/** Tell of any pointer, also a wild one: in which arena, region, slab, and object or block it is. Nobody is stopped, so
 * what becomes of it meanwhile is not seen, and of objects
 * - in a slab of the calling thread: FREE and CACHED are certain. LIVE: it is in none of this thread's lists; but another
 *   thread may have freed it, and not sent it home yet;
 * - in a slab that nobody holds, or of mixed sizes: FREE is certain. LIVE: it is in no list of the slab's; but it may be in
 *   a thread's cache, or on its way home;
 * - in another thread's slab: FREE if its place was never used; else UNKNOWN.
 * While a profile is kept, samples are known exactly, with the stack that allocated them.
 * Takes the lock of one arena for some microseconds. Any thread may call; not in a signal handler.
 * @param out is filled; its struct_size is what the library's struct has.
 * @param size sizeof(*out): so much of it is filled.
 * @return 0; -1 with ENOENT (p is not in quarry's memory), or EINVAL. */
QUARRY_API int quarry_inspect(const void *p, quarry_inspection *out, size_t size);

/* ------------------------------------------------------------------------------------------------------ */
/* Profiles                                                                                               */

#define QUARRY_PROFILE_MEAN 524288ul

/** Keep a profile of the heap from here on: which places in the program allocate, and what of that lives. Samples are
 * taken by a Poisson process over bytes, so that an object of s bytes is one with the probability 1 - exp(-s / mean),
 * and stands for the inverse of that many. What was allocated before is not in it. A hit of malloc or free is as fast as
 * without; a sample takes some microseconds, most of it for its stack (option profile_stacks). Its memory, some hundred
 * bytes for a place (of 200,000 at most) and 55 to 160 for a sample that lives, comes from no heap. The same as the option `profile`. Any thread may
 * call; others go on meanwhile, and begin within some refills of theirs. With unwind tables it may load libgcc_s: not in
 * a signal handler.
 * @param mean bytes between two samples, on average; 0: QUARRY_PROFILE_MEAN; at most 1 GiB. 1 samples all there is.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_profile_start(size_t mean);

/** Take no more samples. Those that live are known until they are freed, or, of large blocks, resized. @return 0. */
QUARRY_API int quarry_profile_stop(void);

/** Forget what was allocated and freed again: counts begin anew, and what lives counts on. @return 0. */
QUARRY_API int quarry_profile_reset(void);

enum quarry_profile_format {
	QUARRY_PROFILE_PPROF = 0,     /* profile.proto, gzipped: for `pprof` and `go tool pprof`. Objects and bytes
	                               * allocated and in use, with their size, node and arena as labels */
	QUARRY_PROFILE_HEAP = 1,      /* text of gperftools' heap profiles ("heap_v2"), with what is mapped: for
	                               * `google-pprof`, `jeprof` and `pprof`, which weigh all samples by the
	                               * last mean */
	QUARRY_PROFILE_COLLAPSED = 2, /* a line per stack with the bytes in use, outermost frame first: for flame
	                               * graphs. Names are those that shared libraries and the program export */
	QUARRY_PROFILE_JSON = 3       /* an object per line: a stack with all that is known of it, how long samples lived
	                               * among that */
};

/** Write the profile. What is counted meanwhile may be in it or not. Allocates nothing from any heap. Any thread may
 * call.
 * @param fd a descriptor to write to, from where it stands.
 * @param format enum quarry_profile_format.
 * @return 0; -1 with EINVAL (no such format), ENOMEM, or write(2)'s errno. Example:
 * @code
 *   int fd = open("heap.pb.gz", O_WRONLY | O_CREAT | O_TRUNC, 0644);
 *   quarry_profile_write(fd, QUARRY_PROFILE_PPROF);
 * @endcode
 * A process writes its profile when it ends, where the environment says QUARRY_PROFILE=PATH (%p in it is the process's
 * number): as pprof, or by the end of the name as .heap, .collapsed or .json; quarry_profile_start, or the option
 * profile, is what has it kept. */
QUARRY_API int quarry_profile_write(int fd, int format);

typedef struct quarry_profile_report {
	uint32_t struct_size;    /* set by the caller to sizeof: lets the struct grow */
	uint32_t sites;          /* places, by stack, size, arena and node */
	uint64_t mean;           /* bytes; 0: no samples are taken now */
	uint64_t samples, live;  /* taken since the start or the reset, and those of them and before that live */
	uint64_t lost;           /* for which there was no memory */
	uint64_t allocated_objects, allocated_bytes; /* that samples stand for: since the start or the reset, */
	uint64_t in_use_objects, in_use_bytes;       /* and living */
} quarry_profile_report;

/** How the profile is doing. Any thread may call. @return 0; -1 with EINVAL (struct_size not set). */
QUARRY_API int quarry_profile_report_get(quarry_profile_report *report);

/** Where p was allocated, when that is a living sample.
 * @param p the address that malloc returned.
 * @param frames receives at most max return addresses, the innermost first.
 * @return how many there are; -1 with ENOENT (not sampled, or freed). */
QUARRY_API int quarry_profile_stack(const void *p, void **frames, int max);

/* ------------------------------------------------------------------------------------------------------ */
/* Leaks                                                                                                  */

/** What quarry_leaks_find tells of: objects from one place in the program, where the profile knows that (see
 * quarry_profile_start: with a mean of 1 it knows all), or else of one size in one arena. */
typedef struct quarry_leak {
	size_t struct_size;        /* what the library's struct has; it may grow at the end */
	void *const *frames;       /* return addresses, the innermost first, */
	uint32_t depth;            /* and how many; 0: not known */
	int node;                  /* that was asked for, by the kernel's id; -1: no one node */
	size_t object_size;        /* bytes that can be used of each */
	uint64_t objects, bytes;   /* that nothing leads to any more. Of things in a ring that nothing leads to, one */
	uint64_t held_objects, held_bytes; /* and what only those lead to */
	uint64_t reachable_objects;/* of the same place and live, but still led to: as many as the profile's samples stand
	                            * for. Things with no objects are told of for that (QUARRY_LEAKS_REACHABLE) */
	quarry_arena *arena;
	const char *arena_name;
	const void *example[4];    /* addresses of the first ones, of objects; NULL: no more */
	const char *suppressed;    /* the suppression that names a function or file of the stack; NULL: none */
} quarry_leak;

typedef struct quarry_leaks_report {
	uint32_t struct_size;     /* set by the caller to sizeof: lets the struct grow */
	uint32_t groups;          /* that were told of */
	uint64_t live_objects, live_bytes; /* all there were, large blocks among them */
	uint64_t objects, bytes;           /* the sums of what was told of, what is suppressed too */
	uint64_t held_objects, held_bytes;
	uint64_t suppressed_objects, suppressed_bytes; /* of those, with what they hold */
	uint64_t scanned_bytes;   /* of the program's memory, and of what was reached */
	uint64_t stopped_ns;      /* how long the other threads stood still, at most */
	uint64_t took_ns;
	uint32_t threads;         /* other threads, */
	uint32_t unread;          /* and those of them whose registers are not known: their stacks counted whole, */
	uint32_t scans;           /* and what leaked is what two scans found so, a tenth of a second apart (then 3) */
	uint32_t inexact;         /* slabs or lists that could not be looked at: 0, but for programs that wrote beyond
	                           * their objects */
	uint64_t skipped_bytes;   /* that could not be read: protected, kept from children (MADV_DONTFORK), or behind the
	                           * end of a file */
	int32_t suppressions_error;  /* why no rule of the file QUARRY_SUPPRESSIONS counted: open(2)'s or read(2)'s errno,
	                              * EFBIG (1 MiB), ENOMEM, or EINVAL: a line is none; 0: no error. Without a report
	                              * that has room for this such a file is an error of the call */
	uint32_t suppressions_line;  /* which line; 0 but for EINVAL */
} quarry_leaks_report;

#define QUARRY_LEAKS_REACHABLE 1u /* tell of places from which nothing leaked, too */

/** Find what lives and cannot be reached: a conservative scan, in a copy of the process, so that all go on meanwhile. For
 * the copy all threads stand still (by ptrace(2), for their registers; report.stopped_ns: the time of a fork, and up to 0.2 s
 * where a thread is held up in the kernel, as in vfork(2)). Roots are the private memory of the process that is not quarry's
 * own (data, stacks as far as they are in use, thread-local storage, other heaps), registers, and what quarry_leaks_root
 * names. An aligned word that leads to any byte of an object holds it: pointers with bits in the low places count. What does
 * not: pointers that are hidden otherwise, at odd addresses (packed structs), one past the end, in memory shared with other
 * processes or in files, and those that only the kernel has (epoll_data, io_uring's user_data, timers).
 * The copy needs memory for the pages that the process writes meanwhile, a 40th part of the heap, and 16 bytes for each thing
 * that one other leads to. System calls like epoll_wait(2) that threads wait in may end with EINTR. Where ptrace(2) is
 * forbidden or a debugger is attached, and for arenas in files beside other threads, what two scans have found is told.
 * (Where Yama allows only who was named to trace, the helper is named: a PR_SET_PTRACER of the program's is over then.)
 * Any thread may call; not a signal handler, nor fn of another call; several may at a time.
 * @param flags 0 or QUARRY_LEAKS_REACHABLE.
 * @param fn is called for each group, with the most bytes first, by this thread, without any lock held; it may allocate.
 *           What it is given is valid until it returns. Other than 0 ends it. May be NULL.
 * @param report is filled; NULL: not wanted.
 * @return 0, or what fn returned; -1 with EDEADLK (inside another call of quarry's), EAGAIN or ENOMEM (no room for the
 *         copy, or in it), EIO (the copy was killed: no memory, or a page of a pool was taken from it), EINVAL, ENOENT (no
 *         /proc), EPERM (after unshare(CLONE_NEWPID), where a child would be the new namespace's first), ENOTSUP (under
 *         valgrind or AddressSanitizer: they look for leaks themselves), EMFILE, ENFILE, ENOSYS (memfd_create(2), Linux
 *         3.17), EFBIG or ENOSPC. Example:
 * @code
 *   static int tell(const quarry_leak *l, void *ctx) { printf("%llu bytes\n", (unsigned long long)l->bytes); return 0; }
 *   quarry_leaks_find(0, tell, NULL, NULL);
 * @endcode */
QUARRY_API int quarry_leaks_find(unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx,
				 quarry_leaks_report *report);

/** The same, written: text, or one JSON object with the stacks as addresses, files and places in those (`quarry leaks FILE`
 * makes names of them). A process does it when it ends, where the option leaks_at_exit says so.
 * @return 0; -1 as above, or write(2)'s errno. */
QUARRY_API int quarry_leaks_print(int fd, int json);

/** Leave out what was allocated by functions, or in files, that match: lines "leak:PATTERN" as LeakSanitizer has them
 * (PATTERN is looked for in the names that are exported, and the paths, of a stack's frames; * is anything, ^ and $ are the
 * beginning and the end; lines that begin with # and empty ones are nothing). They are added to those that are there; the
 * file that the environment names as QUARRY_SUPPRESSIONS is read at the first look for leaks, and where it cannot be, or a
 * line of it is none, the report says so and none of its rules count. (`quarry leaks --suppressions FILE` knows functions that
 * are not exported, too.)
 * @param rules text; copied.
 * @return 0; -1 with EINVAL (a line that is none, which quarry_error_text names; nothing is added), ENOMEM. */
QUARRY_API int quarry_leaks_suppress(const char *rules);

/** Count memory as a root: memory shared with other processes that holds pointers, or a place that leads to what is to be
 * taken for reachable. It is read whole, at each search; an object of quarry's that it is in, or begins in, counts as
 * reachable too. @return 0; -1 with EINVAL, or ENOMEM (128 at most). */
QUARRY_API int quarry_leaks_root(const void *p, size_t bytes);

/** No longer. @return 0; -1 with ENOENT. */
QUARRY_API int quarry_leaks_forget_root(const void *p);

/* ------------------------------------------------------------------------------------------------------ */
/* Statistics                                                                                             */

#define QUARRY_STATS_VERSION 4 /* 1 to 3 are taken too: they end where the next begins; 1 and 2 know 24 refusals */

/** Why something that was asked of the kernel was not got; an index into quarry_stats.refused. */
enum quarry_refusal {
	QUARRY_REFUSED_MBIND_EPERM = 0, /* seccomp or a container forbids mbind(2) */
	QUARRY_REFUSED_MBIND_ENOSYS = 1,
	QUARRY_REFUSED_MBIND_EINVAL = 2, /* a node outside the cpuset, or a policy the kernel lacks */
	QUARRY_REFUSED_MBIND_OTHER = 3,
	QUARRY_REFUSED_HUGE_1G = 4,      /* no 1 GiB page to be had */
	QUARRY_REFUSED_HUGE_2M = 5,      /* no 2 MiB hugetlb page to be had */
	QUARRY_REFUSED_THP = 6,          /* madvise(MADV_HUGEPAGE) or MADV_COLLAPSE refused */
	QUARRY_REFUSED_POPULATE = 7,     /* MADV_POPULATE_WRITE refused or ran dry */
	QUARRY_REFUSED_MAP = 8,          /* mmap(2) or mprotect(2): no memory or address space */
	QUARRY_REFUSED_LIMIT = 9,        /* an arena's hard limit, or the process's (option hard_limit) */
	QUARRY_REFUSED_MOVE_PAGES = 10,  /* move_pages(2) would not say where pages are */
	QUARRY_REFUSED_RSEQ = 11,        /* glibc's rseq is not registered: getcpu is asked instead */
	QUARRY_REFUSED_LOCK = 12,        /* mlock */
	QUARRY_REFUSED_THREAD = 13,      /* the reclaimer's thread could not be started */
	QUARRY_REFUSED_MEMBARRIER = 14,  /* membarrier(2) is not there: slow calls pay a fence instead */
	QUARRY_REFUSED_PURGE = 15,       /* madvise(MADV_DONTNEED) refused: the memory was kept */
	QUARRY_REFUSED_WINDOW = 16,      /* no reserved window: regions are placed one by one */
	QUARRY_REFUSED_CGROUP = 17,      /* the control group's memory limit: ENOMEM rather than the kernel's killer */
	QUARRY_REFUSED_NODE_FULL = 18,   /* a strict arena's nodes have no room: ENOMEM rather than the kernel's
	                                  * killer */
	QUARRY_REFUSED_MOVE = 19,        /* pages that would not be moved to another node */
	QUARRY_REFUSED_FORK = 20,        /* hugetlb memory left to copy-on-write at fork: the child may be killed; or
	                                  * memory with descriptors not copied: the child has none of it; or, counted in
	                                  * the child, a hugetlb page that another thread of the parent wrote to while
	                                  * the pool was dry: the child has it as it was a moment later, and never uses
	                                  * again what was free of small blocks' memory there */
	QUARRY_REFUSED_HUGE_CGROUP = 21, /* the control group's limit of hugetlb pages: the next rung was taken */
	QUARRY_REFUSED_BREAKER = 22,     /* a large request while the breaker was open, or that would have passed its
	                                  * threshold: refused, or redirected */
	QUARRY_REFUSED_TIMER = 23,       /* reclaim=timer: no timer (seccomp, RLIMIT_SIGPENDING), or the program handles
	                                  * the signal */
	QUARRY_REFUSED_FD = 24,          /* no memory file for an arena that wants descriptors: memfd_create(2), its
	                                  * size or seals */
	QUARRY_REFUSED_PUBLISH = 25,     /* no page to publish the figures in: memfd_create(2), its size or seals, no
	                                  * descriptor or memory */
	QUARRY_REFUSED_COUNT = 40
};

/** How free memory goes back now. */
enum quarry_reclaimer {
	QUARRY_RECLAIMER_NONE = 0,   /* reclaim=off */
	QUARRY_RECLAIMER_SERIES = 1, /* in passing, by threads that allocate */
	QUARRY_RECLAIMER_THREAD = 2, /* by a thread of its own */
	QUARRY_RECLAIMER_TIMER = 3,  /* by a signal, when something is due */
	QUARRY_RECLAIMER_TENDED = 4  /* by the program's calls of quarry_tend */
};

/** Figures of one arena, or of all together. All are bytes unless said otherwise. */
typedef struct quarry_stats {
	uint32_t version;      /* set by the caller: QUARRY_STATS_VERSION */
	int32_t node;          /* the kernel's id for a node's default arena; -1 */
	char name[QUARRY_ARENA_NAME_MAX];
	uint64_t arenas;       /* how many are summed here */
	uint64_t regions;      /* count */
	uint64_t mapped;       /* address space that can be touched */
	uint64_t resident;     /* of it in memory, by mincore(2) */
	uint64_t in_use;       /* in blocks and slab objects that the program has; thread caches' lists count as used */
	uint64_t cached;       /* free, held by threads in their slabs */
	uint64_t free_dirty;   /* free in the manager, and in memory: used before, or of regions that are filled when
	                        * they are mapped and go back whole (hugetlb, QUARRY_ARENA_STRICT), used or not. What is
	                        * free as a whole huge page (2 MiB) counts whole, though a part of it may never have
	                        * been used: so this may be more than ever was in blocks */
	uint64_t free_clean;   /* free, and not in memory: address space, which costs nothing */
	uint64_t large;        /* of in_use: in blocks above the largest class */
	uint64_t metadata;     /* quarry's own */
	uint64_t kind_wanted[5]; /* mapped bytes by the page kind asked for (enum quarry_page_kind) */
	uint64_t kind_got[5];    /* and by the kind the kernel granted */
	uint64_t unplaced;     /* mapped bytes whose policy the kernel refused: first touch decides */
	uint64_t hard_limit, soft_limit;
	uint64_t peak_mapped;
	/* events since the start, counts */
	uint64_t refills;      /* times a thread cache went to its manager */
	uint64_t remote_frees; /* objects that went home to another thread's slab */
	uint64_t node_moves;   /* times a thread was found on another node */
	uint64_t purges;       /* madvise calls that gave memory back */
	uint64_t purged;       /* bytes so given back */
	uint64_t passes;       /* reclaimer passes */
	uint64_t adopted;      /* slabs taken over from dead threads */
	uint64_t bad_frees;    /* mistakes noticed: foreign pointers and blocks freed twice always; small objects freed
	                        * twice or inside when a refill comes upon them, every time with on_error set */
	uint64_t threads;      /* live threads that hold a cache */
	uint64_t reclaimer;    /* 1 while the reclaimer's thread runs */
	uint64_t refused[QUARRY_REFUSED_COUNT]; /* by enum quarry_refusal, counts; process-wide */
	/* since version 2 */
	uint64_t placed_less;  /* mapped bytes under an older policy of the kernel than was asked for */
	uint64_t strayed;      /* bytes found on another node than was asked for, when the reclaimer last looked */
	uint64_t brought_home; /* bytes that the reclaimer has moved back since */
	uint64_t moved;        /* bytes that quarry_arena_move has moved */
	/* since version 3 */
	uint64_t idle_given_up; /* times that what a sleeping thread held went back; process-wide */
	uint64_t idle_refused;  /* times that it had to be left: the thread woke up, or may be in a signal handler */
	uint64_t collapsed;       /* huge pages that the reclaimer made of dense memory on base pages */
	uint64_t collapse_failed; /* times that the kernel would not */
	uint64_t split;           /* huge pages taken apart, since a part of them went back; process-wide */
	uint64_t advised_apart;   /* frames of 2 MiB that the kernel was told otherwise of than of their regions, now:
	                           * each may cost two mappings of vm.max_map_count; process-wide */
	uint64_t mixed;           /* slabs that a few survivors keep, and in whose gaps objects of other sizes stand;
	                           * bytes, now */
	uint64_t decay;        /* ms that free memory stays without pressure: the arena's own, or else, and for all
	                        * together, the option decay_ms. UINT64_MAX: for ever */
	uint64_t reclaimed_by;    /* enum quarry_reclaimer; process-wide */
	uint64_t in_files;     /* of mapped: with descriptors (QUARRY_ARENA_FD) */
	/* since version 4; process-wide */
	uint64_t pass_ns;      /* ns that passes of the reclaimer took, of which */
	uint64_t collapse_ns;  /* looking for dense memory and making huge pages of it; */
	uint64_t purge_ns;     /* and ns in the kernel for memory that went back, in passes or not: by madvise(2), and by
	                        * unmapping whole regions */
	uint64_t minor_faults, major_faults; /* page faults, counts (getrusage(2)); 0 of an arena */
} quarry_stats;

/** Sum the figures of an arena (NULL: of all) without stopping anyone and without reading smaps.
 * A consistent snapshot is not promised: figures are read one after the other while threads go on.
 * @param stats version must be set. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_stats_get(quarry_arena *arena, quarry_stats *stats);

/** The arenas there are, oldest first. @return how many; fills at most max. The arenas must not be destroyed
 * meanwhile. */
QUARRY_API size_t quarry_arenas(quarry_arena **list, size_t max);

/** The name of a refusal, for instance "mbind-eperm"; NULL past the last. */
QUARRY_API const char *quarry_refusal_name(int refusal);

/** Write the statistics of all arenas to a file descriptor, as text for people or as one JSON object.
 * Allocates nothing. @return 0; -1 with write(2)'s errno. */
QUARRY_API int quarry_stats_print(int fd, int json);

/* ------------------------------------------------------------------------------------------------------ */
/* Metrics                                                                                                */

/** How metrics are written; or-ed. */
enum quarry_metrics_flags {
	QUARRY_METRICS_ARENAS = 1, /* each arena's figures, too, as families of their own (quarry_arena_..., with the labels
	                            * arena, a number that no other has while it is there, name, and node for a node's
	                            * default arena): some forty series for each */
	QUARRY_METRICS_CLASSIC = 2 /* the text format that Prometheus had before OpenMetrics (0.0.4): for node_exporter's
	                            * textfile collector */
};

/** Write all figures to a file descriptor as OpenMetrics 1.0 text: what Prometheus scrapes
 * (Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8). Names begin with quarry_; figures are those
 * of quarry_stats, quarry_health_report and quarry_profile_report; counters end in _total, and those of the process never
 * fall, but for those of the profile, which begin anew by quarry_profile_reset. No heap is used (a mapping is), nobody is
 * stopped; takes what quarry_stats_get takes for all arenas, twice with QUARRY_METRICS_ARENAS. Any thread may call.
 * @param flags enum quarry_metrics_flags, or-ed.
 * @return 0; -1 with EINVAL (flags), EBADF, ENOMEM (the mapping), or write(2)'s errno. */
QUARRY_API int quarry_metrics_print(int fd, unsigned flags);

/** The same into memory.
 * @param text receives at most size bytes with the 0; may be NULL with size 0.
 * @return the length it has (as snprintf; it may be another at the next call); -1 with EINVAL or ENOMEM. */
QUARRY_API long quarry_metrics_text(char *text, size_t size, unsigned flags);

/** The same into a file, which readers see as it was before or whole: written under another name in the same folder
 * (which ends in .tmp), and renamed. The mode is 0644, by the umask. For node_exporter's textfile collector: a path in its
 * folder that ends in .prom, and QUARRY_METRICS_CLASSIC.
 * @return 0; -1 with EINVAL (flags, or path is NULL), ENAMETOOLONG, ENOMEM, or the errno of open(2), write(2) or
 *         rename(2): then the file is as it was, and nothing else is left. Example:
 * @code
 *   quarry_metrics_write("/var/lib/prometheus/node-exporter/shop.prom", QUARRY_METRICS_CLASSIC);
 * @endcode */
QUARRY_API int quarry_metrics_write(const char *path, unsigned flags);

/* ------------------------------------------------------------------------------------------------------ */
/* What a process publishes                                                                               */

#define QUARRY_PUBLISHED_NAME "quarry-published" /* of the memory file, as /proc/PID/maps has it behind "/memfd:" */
#define QUARRY_PUBLISHED_MAGIC 0x0031797272617571 /* "quarry1" and a 0, on a machine with the low byte first */
#define QUARRY_PUBLISHED_VERSION 1
/** Why an object behind a handle (quarry/lanes.h) is somewhere else than it was. */
enum quarry_moves {
	QUARRY_MOVED_PACKED = 0,     /* by compaction, called or in the background */
	QUARRY_MOVED_NODE = 1,       /* to another memory node */
	QUARRY_MOVED_AGE = 2,        /* out of the fast lane: as enum quarry_promotions, in its order */
	QUARRY_MOVED_SIZE = 3,
	QUARRY_MOVED_USAGE = 4,
	QUARRY_MOVED_FAILURE = 5,
	QUARRY_MOVED_COMPACTION = 6,
	QUARRY_MOVED_CALL = 7,
	QUARRY_MOVED_DEMOTED = 8,    /* into the fast lane */
	QUARRY_MOVED_COOLED = 9,     /* to where it is compressed, */
	QUARRY_MOVED_REFAULTED = 10, /* and back, as it was asked for */
	QUARRY_MOVES
};

/** "packed", "node", ...: NULL for what is none. */
QUARRY_API const char *quarry_move_name(int why);

#define QUARRY_LIFETIMES 32

/** Figures of lanes (quarry/lanes.h). Bytes unless said otherwise. `lifetimes` are how many objects lived how long, as
 * samples tell (the first of each batch of up to 64 that a thread takes room for, weighted): [0] under 1 us, [i] under
 * 2^i us, the last 2^30 us and more; of the slow lane [0] and the fast one [1], by where they were born. */
typedef struct quarry_lanes_figures {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t number;      /* of the lanes: 1 to 127 */
	char name[32];        /* as their attributes had it; ends with a 0 */
	uint64_t objects, live, held, waiting; /* the slow lane: count; what live ones may use; all memory, without scratch;
	                                        * freed and not free yet */
	uint64_t allocated;   /* objects that room was taken for, count: threads may have up to 63 of a class at hand */
	uint64_t fast_objects, fast_live, fast_held; /* the fast lane: count, bytes, bytes */
	uint64_t fast_allocated; /* bytes, of chunks that are full */
	uint64_t fast_ticks, fast_resets, fast_stubs, fast_spilled, fast_failed_over, fast_refused; /* counts: quarry_fast_stats */
	uint64_t handles, retired; /* slots, counts */
	uint64_t moved[QUARRY_MOVES]; /* objects, by why, count */
	uint64_t moved_bytes; /* by compaction and to nodes */
	uint64_t given_up;    /* moves that a writer, a pin, a free or want of memory stopped, count */
	uint64_t segments, freed_segments, scratch; /* counts, and bytes */
	uint64_t mover_ns, mover_plans, recalled;   /* work in the background: ns, counts */
	uint64_t cold_objects, cold_bytes, cold_compressed, cold_evicted; /* count; as they were, in memory, in the file */
	uint64_t incompressible, corrupt, failures, cold_period_ms; /* counts; quarry_cold_stats */
	uint64_t deepened, dictionaries, dictionary_bytes; /* what is cold for long: counts, bytes; quarry_cold_stats */
	uint64_t classes, groups; /* that have something to tell, and that there are: count */
	uint64_t lived[2], lived_us[2]; /* lifetimes: objects, count, and the sum of their us */
	uint64_t lifetimes[2][QUARRY_LIFETIMES];
} quarry_lanes_figures;

enum quarry_lanes_part_kind {
	QUARRY_PART_CLASS,
	QUARRY_PART_GROUP,
	QUARRY_PART_TAG /* quarry_tag and, by samples, quarry_set_thread_tag (quarry/track.h) */
};

/** Figures of a size class of lanes, of a group, or of a tag. */
typedef struct quarry_lanes_part {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t lanes;       /* whose: their number */
	uint32_t kind;        /* enum quarry_lanes_part_kind */
	uint32_t reserved;
	char name[32];        /* a group's or tag's; of a class its bytes, "whole" (pages for itself) or "huge"; ends with a 0 */
	uint64_t size;        /* of an object of the class, bytes; 0: they differ */
	uint64_t objects, live; /* count; bytes */
	uint64_t held;        /* bytes of the class's spans. Of a group 0: its objects stand among others */
	uint64_t limit, refused; /* of a group: bytes (0: none), count */
	uint64_t allocated;   /* objects: as above; of a group or tag, those that came to it, count */
	uint64_t moved;       /* by compaction, to nodes and between lanes, count */
	uint64_t cooled, refaults; /* of a class: counts */
	uint64_t cold_objects, cold_bytes; /* of a class: count; as large as they were */
	uint64_t lived, lived_us, lifetimes[QUARRY_LIFETIMES]; /* as above */
} quarry_lanes_part;

#define QUARRY_PUBLISHED_ARENAS 512 /* for so many there is room, */
#define QUARRY_PUBLISHED_LANES 16   /* for so many lanes, */
#define QUARRY_PUBLISHED_PARTS 256  /* and for so many classes and groups and tags of theirs */

/** The head of what a process publishes of itself (option publish): a mapping of a sealed memory file with no
 * descriptor, found by its name in /proc/PID/maps, and read by process_vm_readv(2) or /proc/PID/mem, which takes the right
 * to trace the process and does not stop it. What the process writes there it never reads: whoever comes to write to
 * it changes what readers see, and nothing else. All is in the machine's byte order. At total_offset stands a
 * quarry_stats of total_size bytes, at health_offset a quarry_health_report of health_size, at arenas_offset
 * arena_count quarry_published_arena of arena_size bytes each: these grow at their ends in later versions, and a reader
 * takes what it knows. So does the head: of one that is shorter (head_size) the rest is 0, and what only later versions have,
 * as the history, stands before the arenas. To read it: copy the head, and then all up to the end of the last of the three;
 * what is behind that, up to `size`, is room that has never been written to, and reading it would make the process larger.
 * When generation is
 * odd, or not the same in a head that is copied afterwards, it was being written: again. One whose pid is not the
 * process's is that of its parent, which was there for a moment when it forked: there is another, or will be.
 * What stands in a copy is looked at by quarry_published_look and quarry_published_arena_get, which trust nothing in it. */
typedef struct quarry_published {
	uint64_t magic;         /* QUARRY_PUBLISHED_MAGIC */
	uint32_t version;       /* QUARRY_PUBLISHED_VERSION: raised when an older reader could not go on */
	uint32_t head_size;     /* bytes: what the writer's struct has */
	uint64_t size;          /* bytes of all, with room for arena_room arenas */
	uint64_t generation;    /* odd while it is written; 0: nothing has been */
	uint64_t time_ns;       /* CLOCK_MONOTONIC of the process, when the figures were read */
	uint64_t took_ns;       /* how long that took */
	uint64_t made_ns;       /* when the page was made */
	int32_t pid;            /* as the process knows itself: in a container, not as others do */
	uint32_t health_offset, health_size;
	uint32_t total_offset, total_size;
	uint32_t arenas_offset, arena_size, arena_count, arena_room;
	uint32_t arenas_left_out; /* count: there was no room, or they ended meanwhile */
	char library[16];       /* its version, as text with a 0 */
	/* what follows is 0 in a page of an older library */
	uint32_t history_offset, sample_size; /* quarry_sample, of sample_size bytes each: */
	uint32_t sample_count[3];             /* rings of so many, by enum quarry_history_ring, one behind the other */
	uint32_t profile_offset, profile_size; /* a quarry_profile_report */
	uint32_t lanes_offset, lanes_size, lanes_count;  /* quarry_lanes_figures, of lanes_size bytes each */
	uint32_t parts_offset, part_size, parts_count;   /* quarry_lanes_part: the largest classes and groups of those */
	uint32_t lanes_left_out, parts_left_out;         /* counts: there was no room */
	uint32_t unused;                                 /* 0 */
} quarry_published;

/** An arena in it. */
typedef struct quarry_published_arena {
	uint64_t id;            /* a number that no other arena has while it is there */
	quarry_stats stats;     /* what is process-wide is in the total as well */
} quarry_published_arena;

/** Read the head, the health and the totals out of a copy of what a process published. Nothing in it is trusted: the
 * bytes may be anybody's. Text that comes out ends with a 0, but a name of QUARRY_ARENA_NAME_MAX bytes; it may
 * have any bytes in it, and is not fit for a terminal. Any thread may call; nothing outside is looked at.
 * @param copy size bytes, aligned for any type.
 * @param head, health, total receive what there is, what an older writer does not know as 0; each may be NULL. health's
 *        struct_size and total's version are set by the caller, as for quarry_health and quarry_stats_get.
 * @param head_size sizeof(*head): so much of it is filled.
 * @return 0; -1 with EINVAL (quarry_error_text() says why: a size or version not set; not such a page, of an older or newer
 *         version, cut short), or EAGAIN (it was being written, or nothing has been published yet). */
QUARRY_API int quarry_published_look(const void *copy, size_t size, quarry_published *head, size_t head_size,
				     quarry_health_report *health, quarry_stats *total);

/** The index-th arena of the copy.
 * @param arena is filled as far as arena->stats.version says, which is set by the caller as for quarry_stats_get.
 * @return 0; -1 with the errors of quarry_published_look, and ERANGE past the last one. */
QUARRY_API int quarry_published_arena_get(const void *copy, size_t size, size_t index, quarry_published_arena *arena);

/** Whose samples; a ring of a page has them by time_ns divided by what it is of, modulo its count. */
enum quarry_history_ring {
	QUARRY_HISTORY_SECONDS = 0, /* 60 seconds, */
	QUARRY_HISTORY_MINUTES = 1, /* 60 minutes, */
	QUARRY_HISTORY_HOURS = 2    /* and 48 hours: with that of the newest sample, the last ones. They are counted as the
	                             * clock of the process has them, from its 0 */
};

#define QUARRY_HISTORY_MOST 60 /* samples that any ring has */

/** The figures of a second, minute or hour, of all arenas together: as they were when they were published in it last, and
 * the most of each that was seen when it was published in it. Counts are since the start of the process. */
typedef struct quarry_sample {
	uint64_t time_ns;       /* CLOCK_MONOTONIC, when the last of its figures were read; 0: there is none */
	uint64_t mapped, resident, in_use, cached, free; /* bytes, the last, as quarry_stats has them (free: free_dirty) */
	uint64_t refills, remote_frees; /* counts, */
	uint64_t purged;        /* bytes, */
	uint64_t minor_faults, major_faults; /* and the process's page faults, by getrusage(2) */
	uint64_t most_mapped, most_resident, most_in_use, most_cached, most_free; /* bytes */
} quarry_sample;

/** The figures of this process in a minute, an hour, or two days, which end with the newest sample and not now: look at its
 * time_ns. They are noted when they are published (option publish), which is at most once a second, not in the first
 * second, and not while nothing happens: then samples are missing, and the figures were what they were before. A forked
 * child's begin anew. Any thread may call; not in a signal handler.
 * @param ring enum quarry_history_ring.
 * @param list receives the last samples that there are, max at most, the oldest first. The newest changes while the second,
 *        minute or hour that it is of goes on. May be NULL with max 0, to count.
 * @param size sizeof(list[0]): so much of each is filled, and so far apart they are.
 * @return how many there are; -1 with EINVAL. */
QUARRY_API long quarry_history_get(int ring, quarry_sample *list, size_t max, size_t size);

/** The same out of a copy of what a process published; nothing in it is trusted.
 * @return as quarry_history_get (0: of an older library, too), and the errors of quarry_published_look. */
QUARRY_API long quarry_published_history(const void *copy, size_t copy_size, int ring, quarry_sample *list, size_t max,
					 size_t size);

/** How the heap profile of a process is doing, out of such a copy; nothing in it is trusted.
 * @param report its struct_size is set by the caller.
 * @return 0; -1 with EINVAL (struct_size not set), ENODATA (of an older library), and the errors of quarry_published_look. */
QUARRY_API int quarry_published_profile(const void *copy, size_t copy_size, quarry_profile_report *report);

/** The index-th lanes of the copy. @param figures struct_size is set by the caller.
 * @return 0; -1 with EINVAL (struct_size not set), ERANGE past the last one, and the errors of quarry_published_look. */
QUARRY_API int quarry_published_lanes(const void *copy, size_t copy_size, size_t index, quarry_lanes_figures *figures);

/** The index-th class or group of lanes in the copy: those of the same lanes stand together. @return as
 * quarry_published_lanes. */
QUARRY_API int quarry_published_lanes_part(const void *copy, size_t copy_size, size_t index, quarry_lanes_part *part);

/** Which figure of samples. */
enum quarry_history_figure {
	QUARRY_HISTORY_MAPPED = 0,
	QUARRY_HISTORY_RESIDENT = 1,
	QUARRY_HISTORY_IN_USE = 2,
	QUARRY_HISTORY_CACHED = 3,
	QUARRY_HISTORY_FREE = 4,
	QUARRY_HISTORY_REFILLS = 5,
	QUARRY_HISTORY_REMOTE_FREES = 6,
	QUARRY_HISTORY_PURGED = 7,
	QUARRY_HISTORY_MINOR_FAULTS = 8,
	QUARRY_HISTORY_MAJOR_FAULTS = 9
};

/** How fast a figure grew: the median of the slopes between any two of the samples (H. Theil, 1950; P. K. Sen, 1968). So
 * a peak, or one step as a program fills a table, is no growth, where least squares would tell of some; three in ten
 * samples may be anything. Takes 14 KiB of stack, and a tenth of a millisecond for 60 samples. Any thread may call.
 * @param list count samples, oldest first, size bytes apart; of more than QUARRY_HISTORY_MOST, the last so many count.
 * @param figure enum quarry_history_figure: the last ones, not the most.
 * @param a_second receives bytes, or counts, in a second; negative where it shrank.
 * @return 0; -1 with EINVAL, or ENODATA (less than two samples). Example:
 * @code
 *   quarry_sample hour[QUARRY_HISTORY_MOST];
 *   double grows;
 *   long n = quarry_history_get(QUARRY_HISTORY_MINUTES, hour, QUARRY_HISTORY_MOST, sizeof(hour[0]));
 *   if (n > 0 && quarry_history_slope(hour, (size_t)n, sizeof(hour[0]), QUARRY_HISTORY_IN_USE, &grows) == 0)
 *           printf("in use: %+.1f MiB an hour\n", grows * 3600 / (1 << 20));
 * @endcode */
QUARRY_API int quarry_history_slope(const quarry_sample *list, size_t count, size_t size, int figure, double *a_second);

/** Write a copy's figures as quarry_metrics_print writes this process's, and how old they are.
 * @return as quarry_metrics_print, and the errors of quarry_published_look. */
QUARRY_API int quarry_published_metrics(const void *copy, size_t size, int fd, unsigned flags);

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif
#endif
