/* SPDX-License-Identifier: MIT */
/**
 * Buffers for input and output: slabs of equal buffers on one node, as buffer rings of io_uring, as its fixed buffers
 * and as iovecs.
 *
 * A slab has an owner, the thread that takes buffers out of it and talks to the kernel about it (a reactor): who made
 * it, or who called quarry_buffers_own since. Functions that are the owner's say so, and fail with EPERM in another
 * thread. A buffer itself is a value of 24 bytes that may be handed to any thread, and be released by any. Once a slab
 * is made nothing here allocates, but quarry_ring_register and what is said of quarry_buffer_adopt and
 * quarry_ring_try_get; and nothing has a lock. What waits for other threads are quarry_buffers_destroy (for those in
 * `wake`) and quarry_fixed_register (for those who adopt by moving pages at this moment), asleep after some
 * microseconds.
 *
 * AddressSanitizer and Valgrind do not know which of a slab's buffers are free: what is used after its release is found by
 * quarry_buffer_check (and by QUARRY_BUFFERS_CHECKED and QUARRY_CHECKED, see there).
 *
 * In a forked child a slab is a copy, of whose owner the child's one thread is when it was the owner that forked; any
 * other the child may make its own (quarry_buffers_own), and nobody waits there any more (a waiter of such a slab is to
 * be made anew). What other threads had released is free in the child; what they had is out there for ever, unless the
 * child knows those buffers too and releases them. A `wake` that was under way is the parent's, so that an owner who
 * waits for buffers calls quarry_buffers_collect in the child. The ring is the parent's, and so are fixed buffers: the
 * child may "unregister" them, which the kernel does not hear of, and destroy its slab; or register them with an
 * io_uring of its own afterwards. (All of this is of fork(3), which calls the handlers of pthread_atfork(3).)
 */
#ifndef QUARRY_BUFFERS_H
#define QUARRY_BUFFERS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

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
/* Buffers and slabs                                                                                      */

#define QUARRY_BUFFERS_MAX 1024 /* slabs at a time */

/** Where a buffer comes from, which is what its release does, and what was done with it. */
enum quarry_buffer_flags {
	QUARRY_BUFFER_OWNED = 1,    /* a block of quarry_malloc's family: released by quarry_free */
	QUARRY_BUFFER_BORROWED = 2, /* somebody else's memory: its release does nothing */
	QUARRY_BUFFER_SLAB = 4,     /* of a slab, to which it is returned, */
	QUARRY_BUFFER_RING = 8,     /* of a slab, taken by way of its ring, to which it is returned */
	QUARRY_BUFFER_PIECE = 16,   /* beside RING: a part of a buffer that the kernel fills bit by bit */
	QUARRY_BUFFER_MOVED = 32,   /* beside OWNED: adopted by moving its pages, */
	QUARRY_BUFFER_COPIED = 64,  /* or by copying what is in it */
	QUARRY_BUFFER_COUNTED = 128 /* beside SLAB and RING, and no part of the kind: of a slab that counts pins */
};

/** A buffer, by value. The program may change p and len within it; what tells it apart stays. */
typedef struct quarry_buffer {
	void *p;             /* where what is in it begins */
	uint32_t len;        /* bytes in it, or there is room for */
	uint32_t id;         /* its number in the slab; of an OWNED one the low half of where its memory begins */
	uint32_t generation; /* how often that number was given out: what came back has another, so that a buffer that
	                      * is used or released late is known */
	uint32_t flags;      /* enum quarry_buffer_flags in the low 8 bits; above them which piece it is (8 bits) and of
	                      * which slab (16), which are quarry's */
} quarry_buffer;

/** What kind of buffer it is: enum quarry_buffer_flags alone, without COUNTED. */
static inline unsigned quarry_buffer_kind(quarry_buffer buffer)
{
	return buffer.flags & 0x7f;
}

/** A buffer of any kind from its parts (id: of a slab's, with the slab's number and generation 0, which no release
 * takes for one that is out; of an OWNED one it is made here, of p, which is where its memory begins). */
static inline quarry_buffer quarry_buffer_make(void *p, uint32_t len, uint32_t id, unsigned flags)
{
	quarry_buffer b;

	b.p = p;
	b.len = len;
	b.id = flags & QUARRY_BUFFER_OWNED ? (uint32_t)(uintptr_t)p : id;
	b.generation = 0;
	b.flags = flags;
	return b;
}

/** A block of quarry_malloc's family as a buffer, whose release frees it. */
static inline quarry_buffer quarry_buffer_own(void *p, uint32_t len)
{
	return quarry_buffer_make(p, len, 0, QUARRY_BUFFER_OWNED);
}

/** Memory of somebody else's as a buffer, whose release does nothing: the kernel's, or a constant. No allocation. */
static inline quarry_buffer quarry_buffer_wrap(void *p, uint32_t len)
{
	return quarry_buffer_make(p, len, 0, QUARRY_BUFFER_BORROWED);
}

/** Release a buffer, whatever it is: OWNED is freed, BORROWED is nobody's business, what is of a slab goes back to it
 * (whatever else its flags say). An OWNED one that a checked slab made (by quarry_ring_try_get or quarry_buffer_adopt)
 * is known like one of its own, by its generation, until it is released, or its memory was freed by another call; of any
 * other a second release is as a second quarry_free.
 * Any thread may call: the owner puts it back at once (2 ns); others set a bit, and the owner finds it
 * (quarry_buffers_collect).
 * @param p, id, generation, flags a buffer's fields of these names: quarry_buffer_release, inline, takes the buffer,
 *        and hands them over in registers.
 * @return 0; -1 with EALREADY (this buffer was released before: nothing is done, however often its memory was given out
 *         since, until its generation has come round 2^31 times, or of an OWNED one 2^21 times), EBUSY (it is pinned,
 *         in a slab that counts pins; or a chain has it, which releases it, in a checked slab; or OWNED, and the memory is
 *         a block with references: block.h), EINVAL (no buffer, one that is both OWNED and BORROWED, memory that is none
 *         of quarry's as OWNED, or its slab has ended). */
QUARRY_API int quarry_buffer_release_parts(void *p, uint32_t id, uint32_t generation, uint32_t flags);

/** The same of a buffer. */
static inline int quarry_buffer_release(quarry_buffer buffer)
{
	return quarry_buffer_release_parts(buffer.p, buffer.id, buffer.generation, buffer.flags);
}

/** Whether a buffer is still the program's to use.
 * @return buffer.p, for BORROWED, and OWNED but of a checked slab, without a look; NULL with ESTALE when it was released since, EINVAL when it
 *         is of no slab that there is, or p and len have left it. Any thread may call. */
QUARRY_API void *quarry_buffer_check(quarry_buffer buffer);

/** What is in a buffer: b.p, and where QUARRY_CHECKED is defined what quarry_buffer_check says. */
static inline void *quarry_buffer_data(quarry_buffer buffer)
{
#ifdef QUARRY_CHECKED
	return quarry_buffer_check(buffer);
#else
	return buffer.p;
#endif
}

/** What is in a buffer as an iovec, for writev(2), sendmsg(2) and their kin. Nothing, and NULL, where QUARRY_CHECKED is
 * defined and quarry_buffer_check says that it is not the program's any more. */
static inline struct iovec quarry_buffer_iovec(quarry_buffer buffer)
{
	struct iovec iov;

	iov.iov_base = quarry_buffer_data(buffer);
	iov.iov_len = iov.iov_base != (void *)0 ? buffer.len : 0;
	return iov;
}

/** The same as a segment (block.h): an empty one where the iovec is. */
static inline quarry_seg quarry_buffer_seg(quarry_buffer buffer)
{
	quarry_seg s;

	s.p = quarry_buffer_data(buffer);
	s.n = s.p != (void *)0 ? buffer.len : 0;
	return s;
}

/** The part of quarry_buffer_pin and quarry_buffer_unpin that is not inline, for buffers with COUNTED. Not to be called
 * otherwise. @return 0; -1 with errno as those say. */
QUARRY_API int quarry_buffer_pin_counted(quarry_buffer buffer);
QUARRY_API int quarry_buffer_unpin_counted(quarry_buffer buffer);

/** The address of a byte in a buffer that is to be held: handed to a device, or to a call that is not through. Buffers
 * stay where they are, so that there is nothing to do, but in a slab that counts pins (quarry_buffers_attr.pins_max):
 * there a buffer that is pinned cannot be released or adopted (EBUSY; one in pieces: not the last that is out), until it
 * was unpinned as often, up to 255 times. Of a pin and a release at the same moment one succeeds. Who gives it to a chain unpins it before the chain goes. Any thread may call.
 * @return that; NULL with ERANGE behind its end; where QUARRY_CHECKED is defined, and where pins are counted, also as
 *         quarry_buffer_check says; EAGAIN when as many of the slab's buffers are pinned as may be (or were for a moment: two who pin the same one
 *         at once count as two until one of them has), or this one 255 times. */
static inline void *quarry_buffer_pin(quarry_buffer buffer, uint32_t index)
{
	char *p = (char *)quarry_buffer_data(buffer);

	if (p != (char *)0 && index > buffer.len) {
		errno = ERANGE;
		return (void *)0;
	}
	if (p != (char *)0 && (buffer.flags & QUARRY_BUFFER_COUNTED) && quarry_buffer_pin_counted(buffer) != 0)
		return (void *)0;
	return p != (char *)0 ? p + index : p;
}

/** The end of that. @return 0; -1 with EINVAL where pins are counted and it has none. */
static inline int quarry_buffer_unpin(quarry_buffer buffer)
{
	return buffer.flags & QUARRY_BUFFER_COUNTED ? quarry_buffer_unpin_counted(buffer) : 0;
}

/** What all may read of a slab, and nobody may write: for the arithmetic below. */
typedef struct quarry_buffers {
	unsigned char *base; /* the first buffer */
	uint64_t size;       /* bytes from one to the next, all of them the buffer's */
	uint32_t count;
	uint8_t shift;       /* size is 1 << shift, which spares quarry_buffers_id a division; 0: no power of two */
	uint8_t reserved[3];
} quarry_buffers;

/** Where the buffer of a number is: base + id * size. Nothing is checked. */
static inline void *quarry_buffers_at(const quarry_buffers *slab, uint32_t id)
{
	return slab->base + id * slab->size;
}

/** The number of the buffer that p points into; UINT32_MAX when it is not in the slab. */
static inline uint32_t quarry_buffers_id(const quarry_buffers *slab, const void *p)
{
	uint64_t at = (uintptr_t)p - (uintptr_t)slab->base;
	uint64_t id = slab->shift != 0 ? at >> slab->shift : at / slab->size;

	return id < slab->count ? (uint32_t)id : UINT32_MAX;
}

enum quarry_buffers_flags {
	QUARRY_BUFFERS_POPULATE = 1, /* all of it in memory from the start */
	QUARRY_BUFFERS_STRICT = 2,   /* as QUARRY_ARENA_STRICT: fail rather than fall to another node or page kind */
	QUARRY_BUFFERS_CHECKED = 4   /* the owner's releases by an exchange too, so that two that are made at the same
	                              * moment by two threads are told apart; no number of a piece is used twice; and
	                              * OWNED buffers that come of it are known when they are released, and those that
	                              * a chain has when they are appended again, released or adopted */
};

/** How a slab is to be. Zero is a good value of all but size and count. */
typedef struct quarry_buffers_attr {
	uint32_t struct_size; /* sizeof(struct quarry_buffers_attr) */
	uint32_t flags;       /* enum quarry_buffers_flags */
	uint64_t size;        /* bytes of a buffer, up to 1 GiB; rounded up to the alignment */
	uint32_t count;       /* buffers, 1 to 2^32 - 2; all together up to 1 TiB */
	int32_t page_kind;    /* enum quarry_page_kind; AUTO: transparent huge pages, where it is 2 MiB or more */
	uint32_t alignment;   /* of each, a power of two of 64 to 2 MiB; 0: 64, a cache line. 4096 for O_DIRECT and for
	                       * adoption without a copy */
	uint32_t on_node;     /* 1: on `node`; 0: each page where it is first written to */
	int32_t node;         /* the kernel's id */
	uint32_t low_water;   /* call `low` each time that so few are left: free ones when one is got, the kernel's when
	                       * one has left the ring. Below count, and below the ring's entries. 0: never */
	void (*low)(void *ctx, uint32_t left); /* by the owner, in the call that takes the buffer. It returns: neither
	                                        * longjmp(3), an exception nor the thread's end leads out of it */
	void (*wake)(void *ctx); /* by another thread, after it returned one while somebody waits (quarry_buffers_wait):
	                          * to have the owner call quarry_buffers_collect. Once for each time. A thread that is
	                          * cancelled in it (pthread_cancel(3)) is so when it has returned. It returns: neither
	                          * longjmp(3) nor an exception leads out of it; nor does pthread_exit(3), unless all
	                          * that the thread was at is quarry_buffer_release */
	void *ctx;
	uint32_t held_ms;  /* above 0: it is known since when each buffer is out, so that those that are out for longer
	                    * than so many milliseconds can be asked for (quarry_buffers_held_get). Costs a look at the
	                    * clock for each that is taken, and 8 bytes for each there is. 0: not known */
	uint32_t pins_max; /* above 0: pins are counted (quarry_buffer_pin), and at most so many buffers are pinned at a
	                    * time. A release is an exchange then, and a buffer takes 16 bytes more. 0: not counted */
} quarry_buffers_attr;

/** Make a slab: `count` buffers side by side, in huge pages, on one node. It is address space until it is used: 16384
 * buffers of 32 KiB take less than 1 MiB of memory before the first is written to. The kernel may refuse address space,
 * too: as vm.overcommit_memory is by default, what is more in one piece than the machine's memory and swap; with 2, what
 * is more than is left of its limit. The calling thread is its owner.
 * @return the slab; NULL with EINVAL (a bad field; quarry_error_text() names it), EAGAIN (there are QUARRY_BUFFERS_MAX
 *         slabs), ENOMEM, or what quarry_arena_create says. Any thread may call. Example:
 * @code
 *   quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 32 << 10, .count = 16384 };
 *   quarry_buffers *slab = quarry_buffers_create(&attr);
 *   quarry_buffer b;
 *   if (quarry_buffers_get(slab, &b) == 0) {
 *           b.len = (uint32_t)read(fd, b.p, b.len);
 *           ...
 *           quarry_buffer_release(b);    // here or in another thread
 *   }
 * @endcode */
QUARRY_API quarry_buffers *quarry_buffers_create(const quarry_buffers_attr *attr);

/** Give a slab's memory back. All buffers must have come back, and the ring and the fixed buffers be unregistered. The
 * owner's. A release that brought a buffer back may still be about to return, in another thread; one that is in `wake`
 * is waited for. Releases that come too late (EALREADY) must not be made in other threads while the slab ends. (The arena
 * that a slab has of its own is neither destroyed nor reset by anything else: EBUSY.)
 * @return 0, also for NULL; -1 with EBUSY, EPERM, EINVAL (no slab), and the slab is as it was. */
QUARRY_API int quarry_buffers_destroy(quarry_buffers *slab);

/** Make the calling thread the slab's owner. The owner before must have ended, or have told this thread that it is
 * through: two owners at a time are not noticed. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_buffers_own(quarry_buffers *slab);

/** Take a buffer, the one that came back last. The owner's; 2 ns. What others returned is collected when there is no
 * other.
 * @param buffer receives it: p its beginning, len its size.
 * @return 0; -1 with ENOBUFS (all are out; see quarry_buffers_wait), EPERM, EINVAL. errno alone tells: this is called
 *         often. */
QUARRY_API int quarry_buffers_get(quarry_buffers *slab, quarry_buffer *buffer);

/** Take in what other threads returned: 64 buffers with one exchange. What belongs to the ring is published there with
 * one write; who waits for a buffer is served. The owner's: once round its loop, and when `wake` has asked for it.
 * @return how many came back; -1 with EPERM or EINVAL. */
QUARRY_API long quarry_buffers_collect(quarry_buffers *slab);

/** Somebody who waits for a buffer: the program's memory, until it is called or cancelled. */
typedef struct quarry_buffers_waiter {
	void (*ready)(struct quarry_buffers_waiter *waiter, quarry_buffer buffer); /* by the owner, with a buffer that
	                                                                            * is the callee's now. It returns:
	                                                                            * neither longjmp(3) nor a thread's
	                                                                            * end leads out of it */
	struct quarry_buffers_waiter *next; /* quarry's; NULL at first */
	void *ctx;                          /* the program's */
} quarry_buffers_waiter;

/** Have a function called with a buffer as soon as there is one: at once, or when one comes back; who asked first is
 * served first. (As wait entries in SPDK's iobuf pools.) The owner's.
 * @return 0: it was called; 1: it waits, or was asked for within a `ready`, and is called when that has returned; -1
 *         with EINVAL (also when it waits already) or EPERM. */
QUARRY_API int quarry_buffers_wait(quarry_buffers *slab, quarry_buffers_waiter *waiter);

/** Wait no longer. The owner's. @return 0; -1 with ENOENT (it does not wait), EINVAL, EPERM. */
QUARRY_API int quarry_buffers_cancel(quarry_buffers *slab, quarry_buffers_waiter *waiter);

/** Figures of a slab. All are counts. */
typedef struct quarry_buffers_stats {
	uint32_t struct_size; /* set by the caller to sizeof */
	uint32_t count;       /* buffers there are: */
	uint32_t free, in_ring, out; /* free, with the kernel, with the program (or returned and not collected yet) */
	uint32_t waiting;     /* who waits for one */
	uint32_t incremental; /* 1: the ring's buffers are filled in pieces */
	uint32_t fixed;       /* 1: registered as fixed buffers, or in part */
	uint64_t gets, puts;  /* taken out (of the ring too); put back by the owner */
	uint64_t returns;     /* returned by others, */
	uint64_t batches;     /* and so many exchanges brought them home */
	uint64_t refused;     /* times there was none to get, */
	uint64_t starved;     /* and that the kernel found none (ENOBUFS) */
	uint64_t served;      /* who waited and got one */
	uint64_t low;         /* times there were few */
	uint64_t late;        /* releases of what was released before */
	uint64_t moved, copied; /* adopted without a copy, and with one; pieces that were copied are among these */
	uint64_t published;   /* buffers given to the kernel, by */
	uint64_t tails;       /* so many writes of the ring's tail */
} quarry_buffers_stats;

/** Read a slab's figures. Any thread may call; of a slab at work they are not all of one moment.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_buffers_stats_get(quarry_buffers *slab, quarry_buffers_stats *stats);

/** Which buffers are out, and pinned, for too long. Times are milliseconds, by a clock of a few. */
typedef struct quarry_buffers_held {
	uint32_t struct_size; /* set by the caller to sizeof */
	uint32_t out;         /* buffers that are with the program, as far as it is known since when (held_ms): */
	uint32_t held;        /* those that are for longer than asked, */
	uint32_t oldest;      /* the number of the one that is for longest (UINT32_MAX: none), */
	uint64_t oldest_ms;   /* and for how long. (Of one that is filled bit by bit: since its first piece) */
	uint32_t pinned;      /* buffers that are pinned, where pins are counted (pins_max): */
	uint32_t pinned_held; /* those that are for longer than asked, since their first pin */
	uint32_t oldest_pin;
	uint32_t reserved;
	uint64_t oldest_pin_ms;
	uint64_t refused; /* pins there was no room for (EAGAIN) */
} quarry_buffers_held;

/** Ask a slab which of its buffers are out, or pinned, for longer than ms milliseconds. It goes through all that were
 * ever given out, and stops nobody. Any thread may call; of a slab at work the figures are not all of one moment.
 * @param ms 0: the slab's held_ms. @param held receives the answer, its struct_size set before.
 * @return 0; -1 with ENOTSUP (the slab knows neither times nor pins: held_ms and pins_max are 0), EINVAL. Example:
 * @code
 *   quarry_buffers_held held = { .struct_size = sizeof held };
 *   if (quarry_buffers_held_get(slab, 5000, &held) == 0 && held.held > 0)
 *           log("%u buffers are out for more than 5 s; buffer %u for %llu ms", held.held, held.oldest, held.oldest_ms);
 * @endcode */
QUARRY_API int quarry_buffers_held_get(quarry_buffers *slab, uint64_t ms, quarry_buffers_held *held);

/** Receive without io_uring, or read where fd is no socket: into as many buffers as are needed and to be had, with one
 * call (recvmsg(2), readv(2), which are points of cancellation). The owner's.
 * @param buffers receives those that something is in; the last may be full in part.
 * @param max how many there may be, 1 to 64. @param flags recv(2)'s; must be 0 where fd is no socket.
 * @return bytes, 0 at the end, with MSG_TRUNC maybe more than the buffers have; -1 with ENOBUFS, EPERM, EINVAL, or what
 *         the call says: then no buffer is taken, nor when the thread is cancelled in it. */
QUARRY_API ssize_t quarry_buffers_receive(quarry_buffers *slab, int fd, quarry_buffer *buffers, unsigned max,
					  int flags);

/* ------------------------------------------------------------------------------------------------------ */
/* What is in buffers                                                                                     */

/** Copy into a buffer. @param at bytes from b.p on. @return bytes; -1 with ERANGE when they do not fit, and nothing is
 * written, ESTALE or EINVAL where it is no buffer of the program's any more. */
QUARRY_API ssize_t quarry_buffer_copy_in(quarry_buffer buffer, uint32_t at, const void *from, size_t len);

/** Copy what is in buffers, one after the other. @param room bytes at `to`. @return bytes; -1 with ERANGE when it is
 * more than fits, ESTALE or EINVAL as above: nothing is written. */
QUARRY_API ssize_t quarry_buffer_copy_out(void *to, size_t room, const quarry_buffer *buffers, size_t count);

/** Keep a buffer for good: what is in it becomes a block of an arena, that quarry_free frees, and the slab has the
 * buffer back, with the same id and address. Without a copy where that can be: the pages are moved
 * (mremap(2) with MREMAP_DONTUNMAP, Linux 5.7), and the slab has fresh ones, in memory. Copied is what is in less than
 * a page, a piece, what does not begin and end with pages, hugetlb pages, what is registered as a fixed buffer (the
 * device knows the page), into memory files, where the kernel refuses, and, since a move may cost the process two
 * mappings, all after 8192 moves. Who has moved has it in base pages, on the slab's node.
 *
 * A move saves the processor's caches what a copy puts there, and no time: it makes as many fresh pages as a copy, and
 * takes 6 to 8 us more of up to 32 KiB, and as long from 64 KiB on. QUARRY_ADOPT_COPY has it copied. Any thread that has
 * the buffer may call.
 * @param buffer of a slab: becomes OWNED, with MOVED or COPIED. An OWNED one stays as it is.
 * @param arena NULL: the thread's default. @param flags QUARRY_ADOPT_COPY or 0.
 * @return 0; -1 with ENOMEM, ESTALE (released before, or at this moment, or adopted by another thread), EBUSY (it is
 *         pinned; or a chain has it, in a checked slab), EINVAL (borrowed, no buffer, or no arena), and the buffer is as it was.
 * @code
 *   if (quarry_buffer_adopt(&b, NULL, 0) == 0)
 *           store(b.p, b.len);           // and one day quarry_free(b.p)
 * @endcode */
QUARRY_API int quarry_buffer_adopt(quarry_buffer *buffer, quarry_arena *arena, unsigned flags);

#define QUARRY_ADOPT_COPY 1

/* ------------------------------------------------------------------------------------------------------ */
/* io_uring                                                                                               */

#define QUARRY_RING_INCREMENTAL 1 /* fill a buffer bit by bit (IOU_PBUF_RING_INC, Linux 6.12), where the kernel can. FOR
                                   * RECEIVES FROM SOCKETS AND READS OF PIPES ALONE: of a file (whatever poll(2) does
                                   * not wait for), with IOSQE_ASYNC, and of a datagram with MSG_TRUNC that is longer
                                   * than what is left of a buffer, the kernel does not tell how far it has gone, and
                                   * later pieces would be taken for where nothing was received */
#define QUARRY_RING_BUNDLES 2     /* receives with IORING_RECVSEND_BUNDLE may use it (Linux 6.10): what is longer than a
                                   * buffer has filled several. Then none may use it with MSG_TRUNC, of which a
                                   * completion is longer too: one cannot be told from the other */
#define QUARRY_RING_MAX 32768

/** Have io_uring take buffers of a slab by itself (a provided-buffer ring, IORING_REGISTER_PBUF_RING, Linux 5.19; see
 * io_uring_register(2)): for requests with IOSQE_BUFFER_SELECT and this group. The ring's memory comes from
 * the default arena of the calling thread's node. As many free buffers as it has room for are published; the rest is for
 * quarry_buffers_get. A slab has one ring.
 * The library asks the kernel alone, and needs no liburing; it never submits anything. The owner's.
 * @param ring_fd of io_uring_setup(2), as liburing's ring.ring_fd. @param group the buffer group's number.
 * @param entries a power of two up to QUARRY_RING_MAX; the slab must have no more than 65536 buffers.
 * @param flags QUARRY_RING_INCREMENTAL (quarry_buffers_stats.incremental tells what was got) and QUARRY_RING_BUNDLES, or
 *        0.
 * @return 0; -1 with EINVAL (also of a kernel without such rings), EBUSY (the slab has a ring), ENOMEM, EPERM
 *         (also: io_uring is refused), ENOSYS, EEXIST (the group is there) and what else the kernel says. Then quarry_buffers_receive
 *         does without. */
QUARRY_API int quarry_ring_register(quarry_buffers *slab, int ring_fd, unsigned group, unsigned entries,
				    unsigned flags);

/** End that: what the kernel had is free again. What the program has stays its own. Call it before the io_uring ends
 * (io_uring_queue_exit): after that the descriptor's number may be another io_uring's, whose group would end. Requests
 * that were submitted with the group must be through. The owner's. @return 0; -1 with ENOENT (there is no ring), EPERM, EINVAL; where the kernel
 * refuses for another reason than that its ring has ended, with its errno, and the ring stays. */
QUARRY_API int quarry_ring_unregister(quarry_buffers *slab);

/** The buffer of a completion. Not blocking, and no system call: call it for each completion of the group. The owner's.
 * @param res, cqe_flags the completion's. Of a receive with IORING_RECVSEND_BUNDLE, which fills several buffers and
 *        names the first alone, it is EINVAL when it is more than one: quarry_ring_next is for those
 *        (QUARRY_RING_BUNDLES).
 * @param buffer receives it: p and len what was received (len 0 when res is not above 0). Where the ring was registered
 *        without QUARRY_RING_BUNDLES, len is never more than there is room for: MSG_TRUNC tells in res how long a
 *        datagram was. Its release gives it to the
 *        kernel again. Of an incremental ring it is a piece; when 31 pieces of one buffer are out (23 where pins are counted), the next is copied
 *        to a block of its own (OWNED | COPIED).
 * @return 0; -1 with ENOBUFS (the kernel found none: what came back is published now, and the request can be submitted
 *         again), EAGAIN (no buffer comes with it), EINVAL (the kernel does not have that buffer, or no slab), EPERM,
 *         ENOMEM (of the copy: call again later with the same). Example:
 * @code
 *   io_uring_for_each_cqe(&ring, head, cqe) {
 *           quarry_buffer b;
 *           if (quarry_ring_try_get(slab, cqe->res, cqe->flags, &b) == 0)
 *                   handle(cqe->user_data, b);   // and quarry_buffer_release(b), in any thread
 *   }
 *   quarry_buffers_collect(slab);
 * @endcode */
QUARRY_API int quarry_ring_try_get(quarry_buffers *slab, int32_t res, uint32_t cqe_flags, quarry_buffer *buffer);

/** The buffers of a completion one after another, for receives with IORING_RECVSEND_BUNDLE (Linux 6.10), which fill as
 * many as it takes, in the order in which the kernel was given them. Of any other completion, and of all where the ring
 * was registered without QUARRY_RING_BUNDLES, it is quarry_ring_try_get: the one buffer, and *res is 0.
 * The owner's; no allocation, no system call. Buffers may be released in between.
 * @param res, cqe_flags a copy of the completion's at first: what is left of it afterwards. *res is 0 when that was the
 *        last one. @param buffer receives it.
 * @return 0; -1 as quarry_ring_try_get, and nothing is changed (EINVAL too when there is more than the kernel has
 *         buffers for). Example:
 * @code
 *   int32_t res = cqe->res;
 *   uint32_t flags = cqe->flags;
 *   do {
 *           if (quarry_ring_next(slab, &res, &flags, &b) != 0)
 *                   break;
 *           handle(cqe->user_data, b);
 *   } while (res > 0);
 * @endcode */
QUARRY_API int quarry_ring_next(quarry_buffers *slab, int32_t *res, uint32_t *cqe_flags, quarry_buffer *buffer);

/** How many buffers the kernel says it has left (IORING_REGISTER_PBUF_STATUS, Linux 6.8): a system call. The owner's.
 * @return that; -1 with ENOENT (no ring, or in a forked child the parent's), EPERM, or EINVAL, also of an older
 *         kernel. */
QUARRY_API long quarry_ring_left(quarry_buffers *slab);

/** Register all of a slab as fixed buffers (IORING_REGISTER_BUFFERS2 and _UPDATE, Linux 5.13; sparse tables 5.19), for
 * READ_FIXED, WRITE_FIXED and zero-copy sends: in chunks of at most 1 GiB, that no buffer spans. The kernel pins all of
 * it, so all of it is in memory then, and counts against RLIMIT_MEMLOCK. A request uses a buffer by its group or as
 * fixed, never both. The owner's.
 * @param table_size above 0: make a sparse table of so many entries for ring_fd first; 0: it has one.
 * @param first the entry of the first chunk.
 * @param tag above 0: when the kernel lets go of a chunk, a completion comes with tag + its number as user_data
 *        (quarry_fixed_let_go).
 * @return how many chunks; -1 with EINVAL, EBUSY (they are registered), EPERM, ENOSYS, ENOMEM, and what else the kernel
 *         says. A table that was made then stays ring_fd's, and what was registered of the slab by then is taken back;
 *         where the kernel refuses that too (quarry_buffers_stats.fixed), quarry_fixed_unregister is to be called until
 *         it says 0. With a tag, quarry_fixed_let_go is to be told of what was taken back. */
QUARRY_API long quarry_fixed_register(quarry_buffers *slab, int ring_fd, unsigned table_size, unsigned first,
				      uint64_t tag);

/** The entry for a buffer: buf_index of a request, whose addr is an address in the buffer. -1 with ENOENT (not all of the
 * slab is registered) or EINVAL. */
QUARRY_API int quarry_fixed_index(const quarry_buffers *slab, uint32_t id);

/** End that: the entries are empty again. With a tag, the slab counts as registered until quarry_fixed_let_go was told
 * of each chunk. Before the io_uring ends, as of a ring. The owner's.
 * @return 0; -1 with ENOENT, EBUSY (another io_uring has it too: quarry_fixed_unclone), EPERM, EINVAL or the kernel's
 *         errno: then no request can use it any more, for of some chunks the entries may be empty already, and it is
 *         registered in part: call again. */
QUARRY_API int quarry_fixed_unregister(quarry_buffers *slab);

/** Told of a completion with a tag: the kernel has let go of a chunk. The owner's.
 * @return how many chunks it still has; -1 with EINVAL when user_data is none of the tags, or EPERM. */
QUARRY_API int quarry_fixed_let_go(quarry_buffers *slab, uint64_t user_data);

#define QUARRY_FIXED_REPLACE 1
#define QUARRY_FIXED_CLONES_MAX 64

/** Have another io_uring of this process use a slab that is registered: the same entries of its table stand for the same
 * chunks, so that quarry_fixed_index goes for both (IORING_REGISTER_CLONE_BUFFERS, Linux 6.12, and 6.13 for a part of a
 * table, which this asks for). Nothing is pinned or charged again, and there are no tags. The owner's.
 * @param flags QUARRY_FIXED_REPLACE: ring_fd may have a table, and what stands in those entries is replaced. Without it
 *        that is EBUSY.
 * @return 0; -1 with ENOENT (not all of the slab is registered), EEXIST (ring_fd has it), EAGAIN (there are
 *         QUARRY_FIXED_CLONES_MAX), EPERM, EBUSY, EINVAL (also of a kernel that cannot), and what else the kernel says:
 *         then that io_uring needs a slab of its own. */
QUARRY_API int quarry_fixed_clone(quarry_buffers *slab, int ring_fd, unsigned flags);

/** End that: ring_fd's entries are empty again. Requests of that io_uring with them must be through: nobody tells when the
 * kernel lets go of them. Before that io_uring ends, as of a ring, and before quarry_fixed_unregister (else it is EBUSY).
 * The owner's.
 * @return 0; -1 with ENOENT (ring_fd does not have it), EPERM, EINVAL, or the kernel's errno: then call again. */
QUARRY_API int quarry_fixed_unclone(quarry_buffers *slab, int ring_fd);

/** A slab as iovecs, for what takes many: a chunk of at most 1 GiB each, that no buffer spans. Any thread may call.
 * @return how many there are; fills at most max. 0 with EINVAL. */
QUARRY_API size_t quarry_buffers_iovecs(const quarry_buffers *slab, struct iovec *list, size_t max);

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif
#endif
