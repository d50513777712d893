/* SPDX-License-Identifier: MIT */
/**
 * quarry: write slabs, in which a connection's answers are put together and sent from.
 *
 * A write slab has two halves, aligned to 64 bytes, that are allocated once and stay. What is written goes behind what
 * was written before; a flush sends all that there is so far, while more is written to the half that is free. Only when
 * both are full does writing fail with EAGAIN, or go on in a chain (QUARRY_WSLAB_GROW).
 *
 *	written --> flush_begin --> iov --> sendmsg --> sent(n) ... --> all sent: the half is empty again
 *
 * Where the kernel goes on reading after it has said how much is sent (MSG_ZEROCOPY, io_uring's SEND_ZC), hold and drop
 * keep what was sent from being written over until the kernel says that it is done.
 *
 * A write slab is for one thread at a time. Functions tell errors by -1 or NULL and errno; one that fails has changed
 * nothing. Nothing is allocated between init and fini, but for what grows. A forked child has a copy and may go on with
 * it; what the kernel holds it holds of the parent, who gets the notices, so that the child drops those holds by itself
 * (quarry_wslab_drop) before it writes there, or ends it.
 */
#ifndef QUARRY_WSLAB_H
#define QUARRY_WSLAB_H

#include <quarry/chain.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Write slabs                                                                                            */

#define QUARRY_WSLAB_SIZE 16384 /* bytes of a half, when nothing else is asked for */
#define QUARRY_WSLAB_HOLDS 4 /* holds at a time that have a part in a chain */
#define QUARRY_WSLAB_NESTED 32 /* prefixes that can be open at a time */

enum quarry_wslab_flags {
	QUARRY_WSLAB_GROW = 1 /* when both halves are full, go on in a chain */
};

typedef struct quarry_wslab_attr {
	uint32_t struct_size; /* sizeof(struct quarry_wslab_attr). 0: the struct as it first was */
	uint32_t flags;       /* enum quarry_wslab_flags */
	uint32_t size;        /* bytes of a half, 64 to 1 GiB, rounded up to 64. 0: QUARRY_WSLAB_SIZE */
	uint32_t reserved;    /* 0 */
	quarry_arena *arena;  /* where; it must outlive the slab. NULL: where the thread's plain allocations come from */
} quarry_wslab_attr;

/** A half: bytes [head, tail) are yet to be sent. For the functions here. */
typedef struct quarry_wslab_half {
	unsigned char *p;
	uint32_t head, tail;
	uint32_t holds; /* notices that the kernel still owes */
	uint32_t state;
} quarry_wslab_half;

/** A write slab, made by quarry_wslab_init. A zeroed one is none: quarry_wslab_fini of it does nothing, all else is
 * EINVAL. The fields are for the functions here. */
typedef struct quarry_wslab {
	quarry_wslab_half half[2];
	uint32_t size, flags;
	uint32_t oldest;         /* the half that was written to first, when both have bytes */
	uint32_t prefixes;       /* that are open */
	uint32_t reserved;       /* bytes at where */
	unsigned char *where;
	quarry_storage *fresh;   /* reserved memory that is in no chain yet */
	uint64_t serial;         /* of the prefix that was begun last */
	uint64_t open[QUARRY_WSLAB_NESTED]; /* the serials of those that are, the outer ones first */
	uint64_t written, gone;  /* bytes since init; and those sent, and dropped by reset */
	uint64_t flushing;       /* bytes of the flush that are not sent yet */
	quarry_chain more;       /* written when both halves were full */
	quarry_chain out;        /* the same, of the flush */
	quarry_chain held[QUARRY_WSLAB_HOLDS]; /* what the kernel holds of those */
} quarry_wslab;

/** Make a write slab.
 * @param attr NULL: of QUARRY_WSLAB_SIZE bytes for a half, not growing.
 * @return 0; -1 with EINVAL (a bad field, which quarry_error_text() names) or ENOMEM. Example:
 * @code
 *   quarry_wslab w;
 *   quarry_wslab_init(&w, NULL);
 *   quarry_wslab_put_u32be(&w, 4);
 *   quarry_wslab_write(&w, "pong", 4);
 *   struct iovec iov[2];
 *   if (quarry_wslab_flush_begin(&w) > 0) {
 *           ssize_t sent = writev(fd, iov, (int)quarry_wslab_iov(&w, iov, 2));
 *           if (sent > 0)
 *                   quarry_wslab_sent(&w, (uint64_t)sent);
 *   }
 * @endcode */
QUARRY_API int quarry_wslab_init(quarry_wslab *w, const quarry_wslab_attr *attr);

/** Free what a write slab has, sent or not. May be called again, and for one that is zero-initialised.
 * @return 0; -1 with EBUSY: the kernel holds a part of it (quarry_wslab_hold), or EINVAL (NULL). */
QUARRY_API int quarry_wslab_fini(quarry_wslab *w);

/** Drop all that is written and not sent, a flush under way and open prefixes too: head and tail are 0.
 * @return 0; -1 with EBUSY: the kernel holds a part of it, or EINVAL (NULL). */
QUARRY_API int quarry_wslab_reset(quarry_wslab *w);

/** Write n bytes behind what is written: all of them or none.
 * @return 0; -1 with EAGAIN (there is no room until more is sent), EMSGSIZE (there never will be: more than both halves
 *         hold), ENOMEM (growing) or EINVAL (NULL). */
QUARRY_API int quarry_wslab_write(quarry_wslab *w, const void *p, size_t n);

/** Room for n bytes in one piece, to be written there by the caller and then taken in by quarry_wslab_advance. What is
 * left at a half's end when it is too little for n stays unused.
 * @return where; NULL with EAGAIN, EMSGSIZE (more than a half holds), ENOMEM or EINVAL (NULL, n is 0). It is good until
 *         the next call of anything but quarry_wslab_sent, quarry_wslab_drop and quarry_wslab_iov. */
QUARRY_API void *quarry_wslab_reserve(quarry_wslab *w, size_t n);

/** Take in the first n bytes of what was reserved. @return 0; -1 with ERANGE (not so many were) or EINVAL (NULL). */
QUARRY_API int quarry_wslab_advance(quarry_wslab *w, size_t n);

/** How many bytes can be written now without growing. @return that; 0 also with EINVAL (NULL, or none). */
QUARRY_API size_t quarry_wslab_room(const quarry_wslab *w);

/** How many bytes are written and not sent, those of a flush among them. @return that; 0 also with EINVAL, as above. */
QUARRY_API uint64_t quarry_wslab_pending(const quarry_wslab *w);

/** Begin to send all that is written so far.
 * @return how many bytes the flush has, 0 when nothing is written; -1 with EALREADY (one is under way), EBUSY (a prefix
 *         is open) or EINVAL (NULL). */
QUARRY_API int64_t quarry_wslab_flush_begin(quarry_wslab *w);

/** Tell of the bytes of the flush that are not sent yet as vectors for sendmsg(2): two are enough where it does not
 * grow.
 * @return how many of at most max were told, 0 when no flush is under way; -1 with EINVAL (NULL). */
QUARRY_API long quarry_wslab_iov(const quarry_wslab *w, struct iovec *iov, size_t max);

/** n bytes of the flush are sent. With the last one the flush is over; each half is empty when all of it is sent and
 * nobody holds it.
 * @return how many are left to be sent; -1 with ERANGE (n is more than that was) or EINVAL (NULL). */
QUARRY_API int64_t quarry_wslab_sent(quarry_wslab *w, uint64_t n);

/** The kernel is given what the flush has yet to send, and will say when it has read it (MSG_ZEROCOPY, SEND_ZC): called
 * before it is given, once for each notice that comes. What is held is not written over, also after it is sent; when
 * nothing else is free, writing gets EAGAIN, or goes on in the chain.
 * @return a number to give to quarry_wslab_drop with the notice; -1 with EINVAL (NULL, no flush is under way), ENOMEM,
 *         or EAGAIN (QUARRY_WSLAB_HOLDS notices are owed for what stands in chains: let the kernel copy this time). */
QUARRY_API int quarry_wslab_hold(quarry_wslab *w);

/** The notice has come: once for each hold.
 * @param hold as quarry_wslab_hold gave it. Holds of the same half have the same number, and it is counted how many are
 *        owed: a drop too many is taken for another one's notice while there are such.
 * @return 0; -1 with EINVAL (no hold with that number is owed). */
QUARRY_API int quarry_wslab_drop(quarry_wslab *w, int hold);

/* ------------------------------------------------------------------------------------------------------ */
/* Marshalling                                                                                            */

/** The place of a length that is filled in when all that it counts is written. */
typedef struct quarry_wslab_prefix {
	unsigned char *at;
	uint32_t width, depth; /* depth: how many it is in */
	uint64_t serial;
	uint32_t tail[2], state[2]; /* as they were, for cancel */
	uint64_t more;
	uint64_t written;
} quarry_wslab_prefix;

/** Leave room for a length, which counts the bytes that are written after it until quarry_wslab_prefix_end. They may be
 * nested. No flush begins in between.
 * @param width bytes of the length: 1, 2, 4 or 8.
 * @return 0; -1 with EINVAL (NULL, another width), EOVERFLOW (QUARRY_WSLAB_NESTED are open), EAGAIN, EMSGSIZE or ENOMEM
 *         (as quarry_wslab_reserve). Example:
 * @code
 *   quarry_wslab_prefix length;
 *   quarry_wslab_prefix_begin(&w, &length, 4);
 *   if (write_answer(&w) == 0)
 *           quarry_wslab_prefix_end(&w, &length, 1);
 *   else
 *           quarry_wslab_prefix_cancel(&w, &length);
 * @endcode */
QUARRY_API int quarry_wslab_prefix_begin(quarry_wslab *w, quarry_wslab_prefix *prefix, unsigned width);

/** Fill the length in, the inner ones first.
 * @param big_endian the highest byte first, else the lowest.
 * @return 0; -1 with EOVERFLOW (it does not fit its width: the prefix is still open), or EINVAL (NULL; it is not open
 *         any more, whatever is open in its place; or one in it is). */
QUARRY_API int quarry_wslab_prefix_end(quarry_wslab *w, quarry_wslab_prefix *prefix, int big_endian);

/** Take back the prefix and all that was written or reserved after it (other prefixes too), for instance because there
 * was no room for the rest. @return 0; -1 with EINVAL (NULL, it is not open). */
QUARRY_API int quarry_wslab_prefix_cancel(quarry_wslab *w, quarry_wslab_prefix *prefix);

/** Write an unsigned number by 7 bits a byte, the lowest first (LEB128): 1 to 10 bytes. As quarry_wslab_write. */
QUARRY_API int quarry_wslab_put_varint(quarry_wslab *w, uint64_t value);

/** Write a byte. As quarry_wslab_write. */
static inline int quarry_wslab_put_u8(quarry_wslab *w, uint8_t value)
{
	return quarry_wslab_write(w, &value, 1);
}

/** Write an integer of 16 bits, the lowest byte first. As quarry_wslab_write. */
static inline int quarry_wslab_put_u16le(quarry_wslab *w, uint16_t value)
{
	value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : __builtin_bswap16(value);
	return quarry_wslab_write(w, &value, sizeof(value));
}

/** Write an integer of 16 bits, the highest byte first. As quarry_wslab_write. */
static inline int quarry_wslab_put_u16be(quarry_wslab *w, uint16_t value)
{
	value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? value : __builtin_bswap16(value);
	return quarry_wslab_write(w, &value, sizeof(value));
}

/** Write an integer of 32 bits, the lowest byte first. As quarry_wslab_write. */
static inline int quarry_wslab_put_u32le(quarry_wslab *w, uint32_t value)
{
	value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : __builtin_bswap32(value);
	return quarry_wslab_write(w, &value, sizeof(value));
}

/** Write an integer of 32 bits, the highest byte first. As quarry_wslab_write. */
static inline int quarry_wslab_put_u32be(quarry_wslab *w, uint32_t value)
{
	value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? value : __builtin_bswap32(value);
	return quarry_wslab_write(w, &value, sizeof(value));
}

/** Write an integer of 64 bits, the lowest byte first. As quarry_wslab_write. */
static inline int quarry_wslab_put_u64le(quarry_wslab *w, uint64_t value)
{
	value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : __builtin_bswap64(value);
	return quarry_wslab_write(w, &value, sizeof(value));
}

/** Write an integer of 64 bits, the highest byte first. As quarry_wslab_write. */
static inline int quarry_wslab_put_u64be(quarry_wslab *w, uint64_t value)
{
	value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? value : __builtin_bswap64(value);
	return quarry_wslab_write(w, &value, sizeof(value));
}

/* ------------------------------------------------------------------------------------------------------ */
/* Inflight buffers                                                                                       */

/** What a handler has received and not yet understood: one piece of memory, aligned to 64 bytes, that bytes are
 * received into at the end and taken from at the beginning. It lives as long as the handler: it is allocated once, and
 * moves what it has to its beginning when room is wanted. Zero-initialise it. For one thread at a time. */
typedef struct quarry_inflight {
	unsigned char *p;
	uint32_t head, tail; /* bytes [head, tail) are there */
	uint32_t size;
} quarry_inflight;

/** Allocate an inflight buffer.
 * @param arena the handler's, with which it ends if it is not put before; NULL: where the thread's plain allocations
 *        come from.
 * @param n bytes, up to 1 GiB, rounded up to 64; 0: 16384.
 * @return 0; -1 with EINVAL (NULL, n too large) or ENOMEM. Example:
 * @code
 *   size_t room, n;
 *   void *to = quarry_inflight_space(&in, &room);
 *   ssize_t got = read(fd, to, room);
 *   if (got > 0)
 *           quarry_inflight_filled(&in, (size_t)got);
 *   const void *at = quarry_inflight_data(&in, &n);
 *   quarry_inflight_take(&in, parse(at, n));
 * @endcode */
QUARRY_API int quarry_inflight_get(quarry_inflight *in, quarry_arena *arena, size_t n);

/** Free an inflight buffer. May be called again, and for one that is zero-initialised or NULL. */
QUARRY_API void quarry_inflight_put(quarry_inflight *in);

/** Where to receive to. What is there moves to the beginning when that wins more room than there is behind it: so at
 * least half of what is not in use is told.
 * @param room receives how many bytes there are.
 * @return NULL with ENOBUFS (it is full: what is there must be taken first) or EINVAL (NULL), and *room 0. */
QUARRY_API void *quarry_inflight_space(quarry_inflight *in, size_t *room);

/** n bytes were received there. @return 0; -1 with ERANGE (more than there was room for) or EINVAL (NULL). */
QUARRY_API int quarry_inflight_filled(quarry_inflight *in, size_t n);

/** What is there, in one piece. It stays where it is until the next quarry_inflight_space.
 * @param n receives how many bytes; 0 with NULL. */
QUARRY_API const void *quarry_inflight_data(const quarry_inflight *in, size_t *n);

/** n bytes from the beginning are done with. @return 0; -1 with ERANGE (there are not so many) or EINVAL (NULL). */
QUARRY_API int quarry_inflight_take(quarry_inflight *in, size_t n);

#ifdef __cplusplus
}
#endif

#endif
