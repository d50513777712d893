/* SPDX-License-Identifier: MIT */
/**
 * Heaps in files and between processes: memory that several processes have at once, each at an address of its own, and that
 * is as it was when it is opened again. What lies there refers to other things there by offsets, and is worked on in place.
 *
 * What is promised depends on the mode. QUARRY_MAPPED_VOLATILE: memory with a descriptor and no name; it is there while any
 * process has it. QUARRY_MAPPED_DIRECT: an ordinary file, mapped; any process may die at any instruction, and the heap is
 * whole, and all that was published is in it; when the machine stops, or loses its power, what was not yet written back is
 * lost, in any order, and the heap may not be whole (then quarry_mapped_check tells). Neither waits for a disk. Memory of
 * these heaps lies where the kernel put it: a file's pages cannot be bound to a node. QUARRY_MAPPED_DURABLE: memory that the processes
 * share, as in a volatile heap, and a file with versions of it, which quarry_mapped_checkpoint makes: whole after a loss of power at any
 * moment. What no checkpoint has is gone with the last process ("Checkpoints" below).
 *
 * A process that has a heap open is a session of it. That it is dead is known by a lock which the kernel takes from it, not by
 * its number; what it was at is finished or undone by whoever comes next, within microseconds. Each thread that allocates
 * has a lane: slabs from which it takes without a lock and without a system call. Lanes of threads and processes that have ended go to
 * others with all that is in them.
 *
 * After a crash, plain allocations that nothing refers to are lost memory until quarry_mapped_collect. Those that are
 * made and linked in one step (quarry_mapped_alloc_into, quarry_mapped_free_from, sets) are never lost: a crash leaves
 * them done or not done.
 *
 * Any thread may call any function here with a heap that is open, unless its comment says otherwise; signal handlers none.
 * A heap, a set, a lock, a name and a function that is called back may not be NULL, nor what is filled in, but where it is said; the pointers that
 * may are those to an object (quarry_mapped_free, quarry_mapped_resize, quarry_mapped_off, quarry_rel_set: nothing; quarry_mapped_usable: 0;
 * quarry_mapped_unlink: EINVAL), a call-back's ctx, `attr`, `tag`, `bytes` and a checkpoint's `info`.
 *
 * A forked child has the heap as a session of its own, and no lanes; where it cannot be (all sessions are taken; or all who had a durable
 * heap's memory have ended, its parent among them, and others have opened the file since), all calls that change the heap are ESTALE there. It
 * begins as who opens does, so fork(2) waits while another process opens, closes, collects, dumps or
 * shrinks; the callbacks of quarry_mapped_collect and quarry_mapped_dump must not fork. Opening needs /proc. All processes must be of the same machine and PID namespace,
 * and have the same C library's ABI; heaps on file systems of a network are for one machine at a time. Who can write the file can
 * make nonsense of it: what stands in it when it is opened is checked, and what is followed later as well, and a heap in which
 * something is wrong is read-only in that part, or all of it (EROFS), for all processes. A process that has it open to write is
 * trusted all the same: one that changes the heap's own data while others use them may crash these. And what the program keeps
 * there is the program's to check. */
#ifndef QUARRY_MAPPED_H
#define QUARRY_MAPPED_H

#include <stddef.h>
#include <stdint.h>

#include <quarry/block.h>
#include <quarry/quarry.h>

#ifdef __cplusplus
extern "C" {
#ifdef __clang__ /* casts and NULL are C's here; g++ knows that by itself */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wzero-as-null-pointer-constant"
#endif
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Opening                                                                                                */

/** A heap as this process has it. What stands behind these two is not for programs. */
typedef struct quarry_mapped {
	char *base;      /* where offset 0 is in this process */
	uint64_t length; /* bytes of addresses behind it; not all of them are memory */
} quarry_mapped;

enum quarry_mapped_mode {
	QUARRY_MAPPED_DIRECT = 0,  /* an ordinary file */
	QUARRY_MAPPED_VOLATILE = 1, /* memory with a descriptor (memfd_create(2)), which cannot be made smaller; path is NULL */
	QUARRY_MAPPED_DURABLE = 2  /* memory that its processes share, and an ordinary file with what checkpoints made of it */
};

enum quarry_mapped_flags {
	QUARRY_MAPPED_SHRINK = 1,  /* the file is cut behind the last memory in use when the last session closes it (DIRECT) */
	QUARRY_MAPPED_ON_NODE = 2, /* all its memory is of one node, and no other (VOLATILE: a file's page cache cannot be bound) */
	QUARRY_MAPPED_HUGE = 4     /* huge pages, where the kernel gives them (VOLATILE; .../transparent_hugepage/shmem_enabled) */
};

/** How a heap is made. All zero but struct_size: the defaults, in brackets. */
typedef struct quarry_mapped_attr {
	size_t struct_size;  /* sizeof(quarry_mapped_attr) */
	uint32_t mode;       /* enum quarry_mapped_mode */
	uint32_t flags;      /* enum quarry_mapped_flags */
	uint64_t max_bytes;  /* addresses that each process reserves: it never grows beyond (64 GiB; at most 1 TiB) */
	uint32_t sessions;   /* processes at once (64; at most 4096) */
	uint32_t lanes;      /* threads at once that allocate (256; at most 4096) */
	uint32_t roots;      /* names (1024; at most 65536) */
	uint32_t user_bytes; /* of the user area (4096; at most 1 MiB) */
	uint32_t versions;   /* old ones that are kept beside the newest (0; at most 31); DURABLE alone */
	int32_t node;        /* with QUARRY_MAPPED_ON_NODE: the kernel's id */
} quarry_mapped_attr;

/** Make a heap, of mode 0600, where no file is; the caller has it open.
 * A creator that was killed before it is done leaves a file that is none (EMEDIUMTYPE), to be removed by unlink(2).
 * @param path NULL with QUARRY_MAPPED_VOLATILE. @param attr NULL: the defaults.
 * @return the heap; NULL with EEXIST, EINVAL (attr; there is no such node), ENOTSUP (a file on a node), ENOMEM (no such range of addresses), or what the kernel says of the file
 *         (ENOSPC, EACCES, ...). */
QUARRY_API quarry_mapped *quarry_mapped_create(const char *path, const quarry_mapped_attr *attr);

/** Make a volatile heap on each node that has memory and may be used: one memory with a descriptor for each. Which process a heap is handed
 * to is the caller's business.
 * @param attr as for one, without its mode, node and QUARRY_MAPPED_ON_NODE; NULL: the defaults. @param heaps receives them, in the order of
 *        quarry_node_id. @param max how many there is room for.
 * @return how many nodes there are: with more than max of them, nothing is made; -1 as quarry_mapped_create, and none is left. */
QUARRY_API long quarry_mapped_create_nodes(const quarry_mapped_attr *attr, quarry_mapped **heaps, size_t max);

/** Open a heap, to read and write. Who died in it is cleaned up after.
 * @return the heap; NULL with a text (quarry_error_text) and ELOOP (path is a link), EMEDIUMTYPE (it is no heap), EUCLEAN (it
 *         is cut short, its head does not have its checksum, or something in it cannot be), ENOTSUP (another version, or a feature, that this
 *         library does not know: its name is in the text; or a process of another PID namespace has it open), EUSERS (all sessions
 *         are taken), ENOMEM, ENOENT (no file; or no /proc), or what the kernel says of the file. */
QUARRY_API quarry_mapped *quarry_mapped_open(const char *path);

/** Open a heap to read: its memory is mapped so, and all that would change it is EROFS. Others may be writing. One that cannot be
 * opened to write, since something in it cannot be, may still be had so.
 * @return as quarry_mapped_open; EAGAIN where somebody died in the midst of a change, and nobody has opened it to write, or had its
 *         lock, since: it is for a moment, where others have it open. */
QUARRY_API quarry_mapped *quarry_mapped_open_read(const char *path);

/** Open the heap that a descriptor is of, whoever it came from (SCM_RIGHTS), to read and write, whatever the descriptor is open for: it is
 * opened anew, and the file's permissions decide (EACCES). The descriptor stays the caller's.
 * Memory is sealed against being made shorter, and against all further seals, whatever mode it says that it is of. A file that has a name can be
 * cut short by whoever can write it, which is SIGBUS for all who have it.
 * @return as quarry_mapped_open; EBADF; EPERM for memory, or a file in memory without a name any more, that could be cut short by others and
 *         cannot be sealed against that, or must not be written. */
QUARRY_API quarry_mapped *quarry_mapped_attach(int fd);

/** A descriptor of the heap's file, to be handed to another process; it stays the heap's. It has no locks: who keeps it keeps nobody
 * waiting. Any descriptor will do for the receiver, who gets a session of his own by quarry_mapped_attach. Of an old version it is that of the file:
 * what is attached is the heap. */
QUARRY_API int quarry_mapped_fd(const quarry_mapped *heap);

/** Close a heap. No other thread may be in a call with it, or use its memory, and no thread of this process have a quarry_mapped_mutex of it:
 * the kernel and the C library know such a lock by its address until it is let go. Lanes of all this process's threads go to others.
 * @return 0; -1 with EINVAL (NULL). */
QUARRY_API int quarry_mapped_close(quarry_mapped *heap);

/** Remove a heap's file, if it is one. Who has it open keeps it.
 * @return 0; -1 as quarry_mapped_open, or as unlink(2). */
QUARRY_API int quarry_mapped_delete(const char *path);

/* ------------------------------------------------------------------------------------------------------ */
/* Offsets                                                                                                */

/** Where something is in a heap: bytes from its base, the same in all processes. 0: nowhere. */
typedef uint64_t quarry_off;

/** Where something is, seen from where this stands: bytes from its own address. 0: nowhere, so none refers to itself. It must
 * not be copied, but set anew. */
typedef int64_t quarry_rel;

/** The address of an offset. It is not checked: for one that the program trusts (see quarry_mapped_ptr). */
static inline void *quarry_mapped_at(const quarry_mapped *heap, quarry_off off)
{
	return off == 0 ? NULL : (void *)(heap->base + off);
}

/** The offset of an address in the heap; 0 for NULL. */
static inline quarry_off quarry_mapped_off(const quarry_mapped *heap, const void *p)
{
	return p == NULL ? 0 : (quarry_off)((const char *)p - heap->base);
}

/** The address that a self-relative offset means. */
static inline void *quarry_rel_get(const quarry_rel *at)
{
	return *at == 0 ? NULL : (void *)((char *)(uintptr_t)at + *at);
}

/** Have it mean p, in the same heap, or NULL. */
static inline void quarry_rel_set(quarry_rel *at, const void *p)
{
	*at = p == NULL ? 0 : (int64_t)((uintptr_t)p - (uintptr_t)at);
}

/** Offsets that others change at the same time. Loads acquire, stores release. */
static inline quarry_off quarry_off_load(const quarry_off *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static inline void quarry_off_store(quarry_off *at, quarry_off off)
{
	__atomic_store_n(at, off, __ATOMIC_RELEASE);
}

/** @return 1 where it was *expected, and is off now; 0 where not, and *expected is what it is. */
static inline int quarry_off_cas(quarry_off *at, quarry_off *expected, quarry_off off)
{
	return __atomic_compare_exchange_n(at, expected, off, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline void *quarry_rel_load(const quarry_rel *at)
{
	quarry_rel rel = __atomic_load_n(at, __ATOMIC_ACQUIRE);

	return rel == 0 ? NULL : (void *)((char *)(uintptr_t)at + rel);
}

static inline void quarry_rel_store(quarry_rel *at, const void *p)
{
	quarry_rel rel = p == NULL ? 0 : (int64_t)((uintptr_t)p - (uintptr_t)at);

	__atomic_store_n(at, rel, __ATOMIC_RELEASE);
}

/** @param expected an address, not an offset. @return 1 where it meant that, and means p now; 0 where not. */
static inline int quarry_rel_cas(quarry_rel *at, const void *expected, const void *p)
{
	quarry_rel was = expected == NULL ? 0 : (int64_t)((uintptr_t)expected - (uintptr_t)at);
	quarry_rel rel = p == NULL ? 0 : (int64_t)((uintptr_t)p - (uintptr_t)at);

	return __atomic_compare_exchange_n(at, &was, rel, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/** The address of an offset that may be nonsense: n bytes there are memory of live objects' slabs or blocks, or of the user area.
 * @return NULL with ERANGE where they are not; NULL, errno as it was, for 0. */
QUARRY_API void *quarry_mapped_ptr(const quarry_mapped *heap, quarry_off off, size_t n);

/* ------------------------------------------------------------------------------------------------------ */
/* Allocating                                                                                             */

/** Allocate. A hit takes no lock and no system call. Up to 32 KiB it is of the next of four sizes in each doubling, above that of whole
 * units of 64 KiB. When its process dies before something refers to it, it is lost until quarry_mapped_collect.
 * @param size bytes; 0 as 1. @return the memory, aligned to 16, of any content; NULL with ENOMEM (max_bytes), ENOSPC or EFBIG (the file cannot
 *         grow), EUSERS (all lanes are taken by live threads), EROFS (open to read; or what is known of this size is damaged),
 *         ESTALE (a forked child that could not have a session, or the heap's lock is beyond repair). */
QUARRY_API void *quarry_mapped_alloc(quarry_mapped *heap, size_t size);

/** The same, aligned. @param alignment a power of two, at most 64 KiB; else NULL with EINVAL. */
QUARRY_API void *quarry_mapped_alloc_aligned(quarry_mapped *heap, size_t alignment, size_t size);

/** Free what any process allocated. NULL is ignored.
 * @return 0; -1 with EINVAL, and nothing done, for what is no live object's beginning; EROFS, ESTALE as quarry_mapped_alloc. */
QUARRY_API int quarry_mapped_free(quarry_mapped *heap, void *p);

/** As realloc(3): in place where its size's class is the same, else by a copy; NULL allocates, size 0 frees and returns NULL.
 * It must not be used on what others look at meanwhile. @return the memory; NULL as quarry_mapped_alloc, or EINVAL. */
QUARRY_API void *quarry_mapped_resize(quarry_mapped *heap, void *p, size_t size);

/** How many bytes at p may be used; 0 for what is no live object's beginning. */
QUARRY_API size_t quarry_mapped_usable(const quarry_mapped *heap, const void *p);

/** The heap as a manager (block.h), the same one each time; its destroy is quarry_mapped_close. */
QUARRY_API quarry_manager *quarry_mapped_manager(quarry_mapped *heap);

/** Give back what the calling thread's lane, and lanes of nobody, have of empty slabs, and the pages of free memory
 * (holes in the file). @return bytes that went back to the kernel. */
QUARRY_API uint64_t quarry_mapped_trim(quarry_mapped *heap);

/* ------------------------------------------------------------------------------------------------------ */
/* Names, and the user area                                                                               */

#define QUARRY_MAPPED_NAME 64 /* bytes of a root's name, with the 0 that ends it where it is shorter */

/** Have a name mean an object, or whatever off is; a root that is there is changed. All at once: a crash leaves the old or the new.
 * @param name 1 to 64 bytes. @param tag of the program's: for collecting, the type.
 * @return 0; -1 with EINVAL (name), ENOSPC (all roots are taken), EROFS, ESTALE. */
QUARRY_API int quarry_mapped_root_put(quarry_mapped *heap, const char *name, quarry_off off, uint32_t tag);

/** The same, where there is no root of that name: of several that add one, one does.
 * @return 0; -1 with EEXIST, and the root is as it was, or as quarry_mapped_root_put. */
QUARRY_API int quarry_mapped_root_add(quarry_mapped *heap, const char *name, quarry_off off, uint32_t tag);

/** What a name means. @param tag receives it, where it is not NULL.
 * @return its offset; 0 with ENOENT where there is none (errno as it was where the offset is 0), EINVAL; EAGAIN, of a heap open to
 *         read, where somebody is changing it, or died in that and nobody had the lock since; EUCLEAN where what stands of it cannot
 *         be. */
QUARRY_API quarry_off quarry_mapped_root_get(const quarry_mapped *heap, const char *name, uint32_t *tag);

/** @return 0; -1 with ENOENT, EINVAL, EROFS, ESTALE. The object stays. */
QUARRY_API int quarry_mapped_root_remove(quarry_mapped *heap, const char *name);

/** The word that a root's offset stands in, for quarry_mapped_alloc_into and the like: it stays while the root is there.
 * @return NULL with ENOENT, EINVAL. */
QUARRY_API quarry_off *quarry_mapped_root_slot(quarry_mapped *heap, const char *name);

/** Called with each root; what is not 0 ends it. name is ended with 0. */
typedef int quarry_mapped_root_fn(void *ctx, const char *name, quarry_off off, uint32_t tag);

/** Each root once, in no order; ones that come or go meanwhile may be told or not. @return what fn returned; 0 at the end; -1 with
 * EAGAIN, EUCLEAN as quarry_mapped_root_get. */
QUARRY_API int quarry_mapped_root_list(const quarry_mapped *heap, quarry_mapped_root_fn *fn, void *ctx);

/** Some memory of the program's at a fixed place, zero at first. @param bytes receives how many, where it is not NULL. */
QUARRY_API void *quarry_mapped_user(const quarry_mapped *heap, size_t *bytes);

/* ------------------------------------------------------------------------------------------------------ */
/* All or nothing                                                                                         */

/* A slot is an aligned quarry_off in the heap's memory. What is changed by these calls must not be changed otherwise at the same
 * time, but for words that nobody else can reach yet. They take the heap's lock, for some hundred nanoseconds.
 *
 * Who dies in one of them may have stored a word already, and what he was at is done once more, as a whole, by whoever has the heap's lock next,
 * whatever stands there by then. So who sees a value that another process put there by such a call, and is about to store to that
 * word otherwise (quarry_off_store, quarry_off_cas, a plain store), or to free otherwise (quarry_mapped_free, quarry_mapped_resize) what it
 * means or meant, or the memory that the word is in, has the lock in between: quarry_mapped_recover, or any of these
 * calls that did not fail. A quarry_mapped_mutex does that for what it protects: quarry_mapped_lock has had it where the last holder died. Changes
 * by these calls alone, and all changes by one process, need nothing. */

/** Allocate size bytes, zeroed, and have *slot, which is 0, mean them. A crash leaves both done or none.
 * @return the memory; NULL as quarry_mapped_alloc; EINVAL (slot); EEXIST (*slot is not 0). */
QUARRY_API void *quarry_mapped_alloc_into(quarry_mapped *heap, size_t size, quarry_off *slot);

/** Have *slot be 0, and free what it meant. A crash leaves both done or none.
 * @return 0, also where *slot was 0; -1 with EINVAL (slot, or what it means is no object), EROFS, ESTALE. */
QUARRY_API int quarry_mapped_free_from(quarry_mapped *heap, quarry_off *slot);

#define QUARRY_MAPPED_SET 12 /* objects that a set reserves, words that it changes, objects that it frees: each so many */

/** Several changes that are to happen at once. It belongs to the thread that began it; it is filled in by quarry_mapped_begin, and a
 * thread has one at a time. */
typedef struct quarry_mapped_set {
	quarry_mapped *heap;
	uint32_t reserved, linked, freed;
	quarry_off object[QUARRY_MAPPED_SET];
	quarry_off slot[QUARRY_MAPPED_SET], expected[QUARRY_MAPPED_SET], value[QUARRY_MAPPED_SET];
	quarry_off end[QUARRY_MAPPED_SET];
} quarry_mapped_set;

/** Begin one. @return 0; -1 with EBUSY (this thread has one), EUSERS, EROFS, ESTALE. */
QUARRY_API int quarry_mapped_begin(quarry_mapped *heap, quarry_mapped_set *set);

/** Allocate for a set, of any content: nobody else knows it until it is published, and when this process dies before, it goes back.
 * @return the memory; NULL as quarry_mapped_alloc, or E2BIG. */
QUARRY_API void *quarry_mapped_reserve(quarry_mapped_set *set, size_t size);

/** Have the set change a word from one value to another.
 * @return 0; -1 with EINVAL (slot), E2BIG. */
QUARRY_API int quarry_mapped_link(quarry_mapped_set *set, quarry_off *slot, quarry_off expected, quarry_off value);

/** Have the set free an object. @return 0; -1 with EINVAL (no live object, or already in the set), E2BIG. */
QUARRY_API int quarry_mapped_unlink(quarry_mapped_set *set, void *p);

/** Do it all: where each word is what was expected. The set is over.
 * @return 0; -1 with EAGAIN and nothing is done (reserved objects have gone back), EINVAL where an object to be freed is none any more, or the set
 *         was written over, EROFS, ESTALE. */
QUARRY_API int quarry_mapped_publish(quarry_mapped_set *set);

/** Give back what was reserved; the set is over. (What is of a class that is read-only by now is not given back.) */
QUARRY_API void quarry_mapped_cancel(quarry_mapped_set *set);

/** A lock in the heap's memory, between threads of any of its processes. All zero: one that nobody has. It survives its holders, and the
 * machine's start. It must not be moved, nor its memory freed, while somebody has it. It stands at a multiple of 8, in an object or in
 * the user area. */
typedef struct quarry_mapped_mutex {
	uint64_t run; /* none of this is for programs */
	uint64_t reserved;
	uint64_t words[8];
} quarry_mapped_mutex;

/** Take it. @return 0; 1 where it is taken, and who had it has died: what it protects may be half done; -1 with EINVAL (not in the
 *         heap, or not aligned), EDEADLK (the caller has it), EROFS. */
QUARRY_API int quarry_mapped_lock(quarry_mapped *heap, quarry_mapped_mutex *mutex);

/** The same, without waiting: -1 with EBUSY where somebody has it. */
QUARRY_API int quarry_mapped_trylock(quarry_mapped *heap, quarry_mapped_mutex *mutex);

/** Let it go. @return 0; -1 with EPERM (the caller does not have it, or nobody), EINVAL as quarry_mapped_lock. */
QUARRY_API int quarry_mapped_unlock(quarry_mapped *heap, quarry_mapped_mutex *mutex);

/* ------------------------------------------------------------------------------------------------------ */
/* Checkpoints (QUARRY_MAPPED_DURABLE)                                                                    */

/* What is in memory is one for all processes that have the heap open, and is gone with the last of them, however it ends. What is in
 * the file is what checkpoints made: versions, each of which is the whole heap at one moment. Opening a heap that nobody has
 * gives the newest version. A checkpoint is atomic: after a loss of power at any instant the file has the version from
 * before or the new one, once quarry_mapped_checkpoint has returned 0 the new one. That is promised as far as the file system and the disk
 * keep to what fdatasync(2) says. Closing makes no checkpoint.
 *
 * A moment is one at which no thread is in a section, between quarry_mapped_enter and quarry_mapped_leave. So what a program
 * changes in one section is in a version as a whole or not at all; what it stores outside of sections while a checkpoint is made may be
 * in it in part. Functions of this header need no section (each is in a version or not), but belong into one where they
 * and other changes are to be in the same version: an allocation and the store that links it.
 *
 * Which pages changed is told by the kernel (PAGEMAP_SCAN and UFFD_FEATURE_WP_ASYNC, Linux 6.7), in the page tables of each process that has the
 * heap open, which whoever makes a checkpoint reads in /proc/PID/pagemap: the processes are one user's, and see each other's /proc. Where that is
 * not to be had, pages are compared with those in the file, all of them, while all are stopped: about half a second for a
 * GiB. So they are, without stopping anybody, once after a process has died without closing the heap.
 *
 * Opening finds the memory that others have by /proc/PID/fd: EBUSY where that is not to be had, EAGAIN where the last session is of a process that
 * is ending all the time. Nobody else may change the
 * file; it needs room for what changed in the last two checkpoints, and in those between versions that are kept, beside the heap. */

/** Begin a section. Sections may be one in another. A thread in one must not wait for another thread that is not in one, so locks are taken after it is
 * begun; it should be short: while a checkpoint waits for it, others wait at the beginnings of theirs. It takes a lane. Heaps that are not durable
 * have no use for it, and allow it.
 * @return 0; -1 with EUSERS (all lanes are taken by live threads), EROFS, ESTALE. */
QUARRY_API int quarry_mapped_enter(quarry_mapped *heap);

/** End it; errno stays. */
QUARRY_API void quarry_mapped_leave(quarry_mapped *heap);

/** Say that bytes were written in a way that page tables do not tell: call it when they are there, before the checkpoint that is to have them. Page
 * tables tell of each store, and of each system call that writes to the memory by its address. They do not tell what a device, or the kernel
 * for it, puts into pages that were pinned before (buffers registered with io_uring, O_DIRECT, RDMA), what is written by a descriptor of the
 * memory, and what madvise(2) takes away (MADV_REMOVE; MADV_DONTNEED of 2 MiB and more, after stores there, where the kernel frees page tables).
 * Without this call a checkpoint may leave such bytes as they were, silently. Any thread may call it, in a section or not.
 * @param p where they are. @param n bytes.
 * @return 0, also for a heap that is not durable, where it does nothing; -1 with EINVAL (not in the heap), EROFS, ESTALE. */
QUARRY_API int quarry_mapped_wrote(quarry_mapped *heap, const void *p, size_t n);

/** What a checkpoint was. */
typedef struct quarry_mapped_checkpoint_info {
	uint64_t version;    /* the number of what it made: one more than that of the last one that is known */
	uint64_t pages;      /* of 4 KiB that were not as before */
	uint64_t bytes;      /* written to the file, all in all */
	uint64_t stopped_ns; /* from when threads were first held up to when they went on */
	uint64_t took_ns;    /* all of it */
	uint32_t rounds;     /* looks for changed pages while nobody was held up */
	uint32_t compared;   /* 1: all pages were compared while threads were held up */
} quarry_mapped_checkpoint_info;

/** Make a version of the heap as it is. Others may go on; one checkpoint is made at a time, others wait. Needs memory for what
 * changed, up to 64 MiB, and 12 bytes for each page of the heap. A thread that has changed something before the call finds it in the version.
 * @param info receives what it was, where it is not NULL. @param size sizeof(*info).
 * @return 0; -1, and the versions that there were are as they were, with ENOTSUP (not durable), EROFS, ESTALE, EDEADLK (the caller is in a
 *         section), ETIMEDOUT (somebody was in one for more than a second), ENOMEM, EUCLEAN (the file is not as it was written: cut short,
 *         changed by others, or with a version that is not of this memory), or what the kernel says of the file (ENOSPC, EIO, ...). All that changed is written anew by the next one
 *         then. A version whose last step failed (EIO) may be there after a loss of power. */
QUARRY_API int quarry_mapped_checkpoint(quarry_mapped *heap, quarry_mapped_checkpoint_info *info, size_t size);

/** A version in a file. */
typedef struct quarry_mapped_version {
	uint64_t number;  /* they count up, from 1; numbers may be left out */
	uint64_t bytes;   /* of the heap */
	uint64_t made_ns; /* since 1970 */
} quarry_mapped_version;

/** Which versions a file has, the newest first. It may be open. @param most places in `versions`.
 * @return how many there are, also where that is more; -1 as quarry_mapped_open, or ENOTSUP (not durable). */
QUARRY_API int quarry_mapped_versions(const char *path, quarry_mapped_version *versions, unsigned most);

/** Open a version to read: it is copied into memory of this process's own, whole, and stays as it is; others go on. No checkpoint
 * is finished while it is copied. @param number as quarry_mapped_versions tells.
 * @return as quarry_mapped_open_read; ENOENT where there is no such version; EUCLEAN where a page of it does not have its checksum; ENOTSUP
 *         (not durable). */
QUARRY_API quarry_mapped *quarry_mapped_open_version(const char *path, uint64_t number);

/* ------------------------------------------------------------------------------------------------------ */
/* Looking after it                                                                                       */

/** Where memory of the heap really is, as quarry_where: what the kernel says of each base page that this process has touched, beside what
 * was asked for. Of a direct heap no node can be asked for: its pages are the page cache's (policy_applied is 0). Touches no page.
 * @return how many pages [p, p + n) has, of which max are told; -1 with EINVAL (not in the heap). */
QUARRY_API long quarry_mapped_where(const quarry_mapped *heap, const void *p, size_t n, quarry_page_info *info, size_t max);

/** What a heap is, and what is in it. */
typedef struct quarry_mapped_info {
	unsigned char uuid[16];
	uint32_t mode;            /* enum quarry_mapped_mode */
	uint32_t version;         /* of the format */
	uint64_t run;             /* how often it was opened by somebody when nobody had it, and that when it was made */
	uint64_t max_bytes;       /* of addresses */
	uint64_t bytes;           /* of the file, so far */
	uint64_t free_bytes;      /* of them in whole units that nobody has */
	uint32_t sessions, sessions_max;
	uint32_t lanes, lanes_idle, lanes_max; /* those of threads; those that wait for one */
	uint32_t roots, roots_max;
	uint64_t recovered;       /* sessions that died, and were cleaned up after, */
	uint64_t recovered_locks; /* and how often the dead had the heap's lock */
	uint64_t replayed;        /* and how often a change was finished for them */
	uint64_t bad_classes;     /* a bit for each class of sizes that is read-only since something in it is wrong, */
	uint32_t broken;          /* or, not 0, all of it is */
	uint32_t read_only;
} quarry_mapped_info;

/** @param size sizeof(*info): so much of it is filled. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_mapped_info_get(const quarry_mapped *heap, quarry_mapped_info *info, size_t size);

/** Clean up after the sessions that have died since: it happens by itself at opening and before a heap grows.
 * @return how many there were; -1 with EROFS, ESTALE. */
QUARRY_API int quarry_mapped_recover(quarry_mapped *heap);

/** What a check found. Objects and bytes are true where nobody allocates meanwhile. */
typedef struct quarry_mapped_report {
	uint64_t objects, bytes;  /* live */
	uint64_t slabs, blocks;   /* of small objects; larger ones */
	uint64_t reserved;        /* objects of sets that are not published */
	uint64_t wrong;           /* things that cannot be: 0 */
	char first[128];          /* the first of them */
} quarry_mapped_report;

/** Look at all of the heap's own data: takes its lock, and reads some 100 bytes for each 64 KiB. Where something is wrong, that class is read-only from
 * then on. Of a heap that is open to read there is no lock: what others change meanwhile may look wrong. @param size sizeof(*report). @return 0 where all is well; 1 where not; -1 with EINVAL, ESTALE, or EROFS where all of it is read-only
 * already (quarry_mapped_info.broken): what there is, whoever opens it to read is told. */
QUARRY_API int quarry_mapped_check(quarry_mapped *heap, quarry_mapped_report *report, size_t size);

/** Called with each live object, in order of address; what is not 0 ends it. */
typedef int quarry_mapped_walk_fn(void *ctx, void *p, size_t usable);

/** All live objects, but those of slabs whose record cannot be. Nobody may allocate or free meanwhile, of any process; fn may free
 * the object that it is told. @return what fn returned; 0 at the end. */
QUARRY_API int quarry_mapped_walk(quarry_mapped *heap, quarry_mapped_walk_fn *fn, void *ctx);

/** For a tracer: an object, of a type, that is referred to. Offset 0 is ignored. */
typedef struct quarry_mapped_marks quarry_mapped_marks;
QUARRY_API void quarry_mapped_mark(quarry_mapped_marks *marks, quarry_off off, uint32_t tag);

/** Says by quarry_mapped_mark what an object refers to. It is called once for each. */
typedef void quarry_mapped_trace_fn(void *ctx, quarry_mapped_marks *marks, void *p, size_t usable, uint32_t tag);

/** Free what nothing leads to from the roots: what plain allocations lost in a crash. Roots have their tags; every root must mean an
 * object, or 0. No other process may have the heap open to write, and no thread use it; others that would open it wait. A tag that the
 * tracer does not know must refer to nothing. Objects of classes that are read-only stay.
 * @return bytes freed; -1 with EBUSY (other sessions; a set of this process's is not over), EUCLEAN (a root or a mark is no object, or roots cannot be read: nothing is
 *         freed), ENOMEM, EROFS, ESTALE. */
QUARRY_API int64_t quarry_mapped_collect(quarry_mapped *heap, quarry_mapped_trace_fn *trace, void *ctx);

/* ------------------------------------------------------------------------------------------------------ */
/* Dumps                                                                                                  */

/** Takes n bytes of a dump. @return 0; else the dump ends there, with errno as it is. */
typedef int quarry_mapped_write_fn(void *ctx, const void *bytes, size_t n);

/** Gives up to n bytes of a dump. @return how many; 0 where there are no more, which is asked for behind its end; -1 with errno. */
typedef long quarry_mapped_read_fn(void *ctx, void *bytes, size_t n);

/** Write all that is in use, each thing with its offset, the user area and the roots, as a stream (doc/heap-format.md). Memory that
 * is zero is not written. No other process may have the heap open to write, and no thread use it meanwhile; who would open, close or fork with it
 * waits until the last byte is written, so write must not wait for such a one, nor fork.
 * @return 0; -1 with EBUSY (other sessions; a set of this process's is not over), EAGAIN (it is open to read, and somebody died in the midst of a change
 *         or a set: who opens it to write finishes that), EUCLEAN (it is damaged), ESTALE, or what write left in errno. */
QUARRY_API int quarry_mapped_dump(quarry_mapped *heap, quarry_mapped_write_fn *write, void *ctx);

/** Make a heap of a dump: objects stand at the offsets that they had, so that those which refer to them do. Nothing of the dump is
 * believed that cannot be; when this process dies in it, what is left is no heap (EMEDIUMTYPE), and where it fails, nothing is left. Who
 * opens the file meanwhile waits until it is done. Of how the heap was made, its numbers and QUARRY_MAPPED_SHRINK come back, in memory
 * QUARRY_MAPPED_HUGE as well; a durable heap's dump makes a direct one, and one that was bound to a node is not.
 * @param path where nothing is; NULL: a volatile heap.
 * @return the heap, open, with another uuid; NULL with EMEDIUMTYPE (it is no dump), ENOTSUP (another version, feature or kind of
 *         machine), EUCLEAN (cut short, more behind its end, a checksum, or something that cannot be: the text says where), what read left in
 *         errno, or as quarry_mapped_create. */
QUARRY_API quarry_mapped *quarry_mapped_restore(const char *path, quarry_mapped_read_fn *read, void *ctx);

/** Make the heap's file as small as it can be with every object where it is: empty slabs and free memory go back (quarry_mapped_trim), and
 * it is cut behind the last memory in use. Nobody else may have it open, and no thread use it meanwhile.
 * @return how many bytes shorter the file is; -1 with EBUSY, ENOTSUP (a volatile heap, or a durable one), EUCLEAN (it is damaged: nothing
 *         is done), EROFS, ESTALE. */
QUARRY_API int64_t quarry_mapped_shrink(quarry_mapped *heap);

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif

#endif
