/* SPDX-License-Identifier: MIT */
/**
 * quarry: chains of bytes that stand in pieces, shared and not copied; and cursors that read across the pieces.
 *
 * A storage is memory with a count of who has a share of it, and with what becomes of it at the last release. The count
 * stands apart from the memory, so that sharing never writes a line of what was received. A segment is a piece of a
 * storage, by address and length, and holds one share. A chain is a list of segments.
 *
 * Storages and segments are records of 64 bytes that come from lists of the calling thread: once as many are there as
 * are in use at a time, making, cloning and splitting chains allocates nothing. (The ideas are folly's IOBuf, DPDK's
 * mbuf and .NET's ReadOnlySequence, each of which allocates for a segment, or keeps its count beside the bytes.)
 * Records are not given back: as many stay as were in use at once.
 *
 * A chain, and the cursors on it, are for one thread at a time. Storages may have shares in chains of many threads.
 * Functions tell errors by -1 or NULL and errno; a function that fails has changed nothing, where it does not say
 * otherwise. After fork(2), a child has copies of all of it and may go on with what its thread had; lost there are the
 * unused records that other threads kept, some hundred of each.
 */
#ifndef QUARRY_CHAIN_H
#define QUARRY_CHAIN_H

#include <quarry/block.h>
#include <quarry/buffers.h>
#include <quarry/quarry.h>
#include <string.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#ifdef __clang__ /* casts and NULL are C's here; g++ knows that by itself */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wzero-as-null-pointer-constant"
#endif
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Storages                                                                                               */

/** Memory that shares are held of. Opaque, counted, and ended by its last release. */
typedef struct quarry_storage quarry_storage;

/** What becomes of a wrapped storage's memory at the last release: for instance, a buffer's id goes back to its ring.
 * Called by the thread that lets go of the last share, once, with no lock held; it may use quarry as it likes, and also
 * the chain that let go, which is as the function that was called leaves it. It returns: neither longjmp(3), an exception
 * nor the thread's end leads out of it, or what else the chain lets go of is lost.
 * @param ctx, p, n as they were given to quarry_storage_wrap. */
typedef void quarry_storage_release(void *ctx, void *p, size_t n);

enum quarry_storage_flags {
	QUARRY_STORAGE_READONLY = 1 /* nobody writes to it through a chain */
};

/** Allocate memory and make it a storage with one share, the caller's.
 * @param arena where, and not to be destroyed before all shares are let go of; NULL: where the thread's plain
 *        allocations come from.
 * @param n bytes, at least; quarry_storage_size says how many there are.
 * @return NULL with EINVAL (n is 0, or there is no such arena) or ENOMEM. */
QUARRY_API quarry_storage *quarry_storage_alloc(quarry_arena *arena, size_t n);

/** Make a storage of memory that quarry has allocated: quarry_free is called at the last release. All bytes that may be
 * used there belong to it (quarry_usable_size).
 * @param p as quarry_malloc and its like gave it. It belongs to the storage from here on; not when NULL is returned.
 * @return the storage with one share, the caller's; NULL with EINVAL (p is no memory of quarry's), EBUSY (it is a
 *         counted block with references, quarry/block.h) or ENOMEM. */
QUARRY_API quarry_storage *quarry_storage_own(void *p);

/** Make a storage of any memory.
 * @param p, n where it is, in bytes.
 * @param release called at the last release; NULL: nothing is done then, and the memory must outlive all shares.
 * @param ctx what release is given.
 * @param flags enum quarry_storage_flags, or 0.
 * @return the storage with one share, the caller's; NULL with EINVAL (p is NULL, n is 0 or goes beyond the end of
 *         addresses, unknown flags) or ENOMEM, and release is not called then. Example:
 * @code
 *   static void back(void *ring, void *p, size_t n)
 *   {
 *           ring_put(ring, p, n);
 *   }
 *   quarry_storage *s = quarry_storage_wrap(buffer, 2048, back, ring, 0);
 *   quarry_chain_append(&chain, s, buffer, received);
 *   quarry_storage_unref(s);
 * @endcode */
QUARRY_API quarry_storage *quarry_storage_wrap(void *p, size_t n, quarry_storage_release *release, void *ctx,
					       unsigned flags);

/** Have one more share. Any thread that has one may call, or with one held for it.
 * @return storage; NULL with EINVAL (NULL) or EOVERFLOW (2^31 shares). */
QUARRY_API quarry_storage *quarry_storage_ref(quarry_storage *storage);

/** Let go of a share; the last one frees the memory as it was said when the storage was made. NULL is ignored. Any
 * thread may call. To let go of more than one has corrupts what others have; where it is seen, the process is ended
 * (with --enable-debug, until its record is another storage's). What other threads wrote there before they let go of
 * theirs is seen by release. errno is left as it was (release's own doings excepted). */
QUARRY_API void quarry_storage_unref(quarry_storage *storage);

/** How many shares there are, at this moment; 0 of NULL. 1 is certain to stay so where the caller has it. */
QUARRY_API unsigned quarry_storage_refs(const quarry_storage *storage);

/** Where the memory is; NULL of NULL. */
QUARRY_API void *quarry_storage_data(const quarry_storage *storage);

/** How many bytes it has; 0 of NULL. */
QUARRY_API size_t quarry_storage_size(const quarry_storage *storage);

/* ------------------------------------------------------------------------------------------------------ */
/* Chains                                                                                                 */

#define QUARRY_CHAIN_ALL SIZE_MAX /* all bytes that there are */

/** A piece of a chain. For reading: the functions here write it. Its place in the chain is index - chain->origin. */
typedef struct quarry_cseg {
	struct quarry_cseg *next, *prev; /* NULL at the ends */
	unsigned char *data;
	size_t len;              /* bytes; never 0 */
	uint64_t index;          /* counts up by len from each segment to the next */
	quarry_storage *storage; /* of which it has a share; NULL: borrowed */
} quarry_cseg;

/** A chain. Zero-initialise it; it is empty then, and again after quarry_chain_free. Fields are for reading. Move it by
 * assignment only if the old one is not used any more. It has at most INT64_MAX bytes (of borrowed memory, and of
 * clones, there can be as many): what would make it longer fails with EOVERFLOW, and changes nothing. */
typedef struct quarry_chain {
	quarry_cseg *first, *last;
	uint64_t len;    /* bytes */
	uint64_t origin; /* the first one's index */
	size_t segs;     /* how many */
} quarry_chain;

/** A buffer, as an array of them makes a chain. */
typedef struct quarry_chain_buf {
	quarry_storage *storage; /* NULL: borrowed */
	void *p;                 /* within the storage */
	size_t n;                /* bytes; 0 is left out */
} quarry_chain_buf;

/** Append bytes of a storage, which gets one more share; the caller keeps the one it has.
 * @param p, n within the storage; n 0: nothing is done, wherever p is.
 * @return 0; -1 with EINVAL (NULL), ERANGE (not within the storage), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_chain_append(quarry_chain *chain, quarry_storage *storage, void *p, size_t n);

/** Put bytes of a storage in front. Otherwise as quarry_chain_append. */
QUARRY_API int quarry_chain_prepend(quarry_chain *chain, quarry_storage *storage, void *p, size_t n);

/** Append memory that quarry has allocated, and that belongs to the chain from here on: quarry_free is called when the
 * last chain that shares it lets go of it.
 * @param p as quarry_malloc and its like gave it.
 * @param n bytes from there, at least 1.
 * @return 0; -1 with EINVAL (p is no memory of quarry's, n is 0), ERANGE (n is more than there is), EBUSY (it is a counted
 *         block with references: quarry_chain_append_block) or ENOMEM: p is the caller's then. */
QUARRY_API int quarry_chain_append_owned(quarry_chain *chain, void *p, size_t n);

/** Append any memory, with what becomes of it at the last release. As quarry_storage_wrap and quarry_chain_append
 * together.
 * @return 0; -1 with EINVAL, ENOMEM or EOVERFLOW, and release is not called then. */
QUARRY_API int quarry_chain_append_wrapped(quarry_chain *chain, void *p, size_t n, quarry_storage_release *release,
					   void *ctx);

/** Append memory that outlives the chain and all clones of it (a constant, for one). It is never written to.
 * @return 0; -1 with EINVAL (p is NULL, or n goes beyond the end of addresses), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_chain_append_borrowed(quarry_chain *chain, const void *p, size_t n);

/** Append a copy of bytes: behind the last segment where there is room that nobody shares, otherwise (the rest) in
 * memory of the thread's default arena, with room for more.
 * @return 0; -1 with EINVAL (NULL), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_chain_append_copy(quarry_chain *chain, const void *p, size_t n);

/** Put a copy of bytes in front, in one piece: into the headroom where it is enough, otherwise in memory of the
 * thread's default arena, at its end, so that the next header has headroom.
 * @return 0; -1 with EINVAL (NULL), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_chain_prepend_copy(quarry_chain *chain, const void *p, size_t n);

/** Append a buffer of a slab, which belongs to the chain from here on: it is released (quarry_buffer_release, in
 * whatever thread that is) when the last chain that shares it lets go of it. OWNED ones are freed then, BORROWED ones are
 * appended as by quarry_chain_append_borrowed. One with nothing in it (len 0) is released at once.
 * A buffer is appended once: of a checked slab a second time is EALREADY, of another one it is not seen, and what the
 * second chain reads may be somebody else's.
 * @return 0; -1 with EINVAL or ESTALE (quarry_buffer_check), EALREADY, ENOMEM or EOVERFLOW: the buffer is the caller's
 *         then, unless a chain has it. */
QUARRY_API int quarry_chain_append_buffer(quarry_chain *chain, quarry_buffer buffer);

/** Append buffers as by quarry_chain_append_buffer, all or none: what was received becomes one sequence of bytes, and
 * nothing is copied or allocated for it (records aside, which threads keep). Example:
 * @code
 *   quarry_buffer got[8];
 *   ssize_t n = quarry_buffers_receive(slab, fd, got, 8, 0);
 *   if (n > 0 && quarry_chain_from_buffers(&in, got, (n + size - 1) / size) == 0)
 *           parse(&in);     // and quarry_chain_trim_front(&in, used): buffers go back as they are used up
 * @endcode
 * @return 0; -1 with errno as above: all buffers are the caller's then, and the chain is as it was. */
QUARRY_API int quarry_chain_from_buffers(quarry_chain *chain, const quarry_buffer *buffers, size_t n);

/** Append n bytes of a block (block.h), from its byte `at` on. The chain gets a reference to the block; the caller keeps
 * the one it has.
 * @return 0; -1 with EINVAL (NULL), ERANGE (not within the block), ESTALE (the block is gone), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_chain_append_block(quarry_chain *chain, const quarry_block *block, size_t at, size_t n);

/** Append buffers: all or none.
 * @param bufs, n the buffers. Those with a storage are shared as by quarry_chain_append, the others borrowed.
 * @return 0; -1 with errno as of quarry_chain_append, and the chain is as it was. */
QUARRY_API int quarry_chain_from_bufs(quarry_chain *chain, const quarry_chain_buf *bufs, size_t n);

/** Append what readv(2), recvmsg(2) or another's API tells of as vectors, borrowed: all or none.
 * @return 0; -1 with errno as of quarry_chain_append_borrowed, and the chain is as it was. */
QUARRY_API int quarry_chain_from_iov(quarry_chain *chain, const struct iovec *iov, size_t n);

/** Move all of another chain behind this one; the other is empty then. No byte is touched and nothing allocated;
 * indexes of the one with fewer segments are written anew.
 * @return 0; -1 with EINVAL (NULL, or the same chain twice) or EOVERFLOW (together they are too long). */
QUARRY_API int quarry_chain_append_chain(quarry_chain *chain, quarry_chain *other);

/** Move all of another chain in front of this one. Otherwise as quarry_chain_append_chain. */
QUARRY_API int quarry_chain_prepend_chain(quarry_chain *chain, quarry_chain *other);

/** How many bytes quarry_chain_prepend_copy can write without new memory: those before the first segment in its
 * storage, when there is no other share of that and it may be written to; otherwise 0. (Two segments of a chain have
 * two shares, also when they were one before a split.) */
QUARRY_API size_t quarry_chain_headroom(const quarry_chain *chain);

/** The same behind the last segment. */
QUARRY_API size_t quarry_chain_tailroom(const quarry_chain *chain);

/** Cut a chain in two. No byte is touched; a segment that is cut is shared by both.
 * @param at how many bytes stay in chain.
 * @param tail an empty chain, which receives the rest.
 * @return 0; -1 with EINVAL (NULL, tail is not empty or is chain), ERANGE (at is more than there is), ENOMEM or
 *         EOVERFLOW. */
QUARRY_API int quarry_chain_split(quarry_chain *chain, uint64_t at, quarry_chain *tail);

/** Drop n bytes at the front. @return 0; -1 with EINVAL, or ERANGE when there are not so many. */
QUARRY_API int quarry_chain_trim_front(quarry_chain *chain, uint64_t n);

/** Drop n bytes at the end. @return 0; -1 with EINVAL, or ERANGE when there are not so many. */
QUARRY_API int quarry_chain_trim_back(quarry_chain *chain, uint64_t n);

/** Append n bytes of a chain, from at on, to another one, by sharing: no byte is read or written.
 * @param n bytes, or QUARRY_CHAIN_ALL: all from at on.
 * @param out another chain, or the same one.
 * @return 0; -1 with EINVAL (NULL), ERANGE (not within chain), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_chain_clone(const quarry_chain *chain, uint64_t at, uint64_t n, quarry_chain *out);

/** Have the first n bytes in one piece: by copying what is not, to behind the first segment where there is room that
 * nobody shares, or to new memory. Costs nothing when they are.
 * @param n bytes, or QUARRY_CHAIN_ALL.
 * @return where they are, for reading; NULL with EINVAL (NULL, n is 0 or the chain empty), ERANGE (there are not so
 *         many) or ENOMEM. */
QUARRY_API void *quarry_chain_coalesce(quarry_chain *chain, size_t n);

/** Tell of the bytes from at on as vectors for writev(2), sendmsg(2) or io_uring.
 * @param iov receives at most max vectors; may be NULL with max 0, to count.
 * @param bytes receives how many bytes those have, when not NULL.
 * @return how many vectors were told, or, with iov NULL, how many it would take for all; -1 with EINVAL (NULL) or
 *         ERANGE (at is more than there is). Example:
 * @code
 *   struct iovec iov[64];
 *   while (chain.len > 0) {
 *           ssize_t sent = writev(fd, iov, (int)quarry_chain_iov(&chain, 0, iov, 64, NULL));
 *           if (sent < 0)
 *                   break;
 *           quarry_chain_trim_front(&chain, (uint64_t)sent);
 *   }
 * @endcode */
QUARRY_API long quarry_chain_iov(const quarry_chain *chain, uint64_t at, struct iovec *iov, size_t max,
				 uint64_t *bytes);

/** Copy n bytes from at on out of a chain.
 * @return 0; -1 with EINVAL (NULL) or ERANGE (not all of them are within the chain): nothing is copied then. */
QUARRY_API int quarry_chain_copy_out(const quarry_chain *chain, uint64_t at, void *dst, size_t n);

/** Copy n bytes over those from at on.
 * @return 0; -1 with EINVAL (NULL), ERANGE (not all of them are within the chain), EBUSY (a part of it is in a
 *         storage with other shares, be they of this chain) or EACCES (a part of it is borrowed or may not be written
 *         to): nothing is copied then. */
QUARRY_API int quarry_chain_copy_in(quarry_chain *chain, uint64_t at, const void *src, size_t n);

/** Copy all of a chain to a buffer.
 * @param room bytes that dst has.
 * @return how many bytes were copied; -1 with EINVAL (NULL) or ERANGE (room is less than the chain has). */
QUARRY_API int64_t quarry_copy_chain(void *dst, size_t room, const quarry_chain *chain);

/** Copy the bytes of buffers to one, one after the other. (One buffer: n is 1.)
 * @param room bytes that dst has.
 * @return how many bytes were copied; -1 with EINVAL (NULL) or ERANGE (room is less than they have): nothing is copied
 *         then. */
QUARRY_API int64_t quarry_copy_bufs(void *dst, size_t room, const quarry_chain_buf *bufs, size_t n);

/** Marshal: the bytes of vectors, one after the other, to the beginning of a segment of memory. They may not overlap.
 * (What is more than bytes, numbers in an order and with lengths before them, is written by quarry_wslab_put_u32be and
 * its like, and read by cursors.)
 * @param iov, n the vectors; an empty one may have a NULL address.
 * @return how many bytes were copied; -1 with EINVAL (NULL) or ERANGE (dst is shorter): nothing is copied then. */
QUARRY_API int64_t quarry_marshal(quarry_seg dst, const struct iovec *iov, size_t n);

/** Unmarshal: fill vectors, one after the other, with the bytes of a segment of memory. They may not overlap.
 * @return how many bytes were copied, which is what the vectors have; -1 with EINVAL (NULL) or ERANGE (src is shorter):
 *         nothing is copied then. Any thread may call. Example:
 * @code
 *   struct header h;
 *   struct iovec iov[] = { { &h, sizeof(h) }, { key, sizeof(key) } };
 *   quarry_seg from = quarry_seg_make(p, n);
 *   int64_t used = quarry_unmarshal(from, iov, 2);
 *   if (used >= 0 && quarry_seg_slice(from, (size_t)used, h.length, &rest) == 0)
 *           ...
 * @endcode */
QUARRY_API int64_t quarry_unmarshal(quarry_seg src, const struct iovec *iov, size_t n);

/** Copy n bytes to within a segment, over those from at on.
 * @return 0; -1 with EINVAL (NULL), ERANGE (at + n is more than its length), EBUSY (it is shared) or EACCES (it is
 *         borrowed or may not be written to): nothing is copied then. */
QUARRY_API int quarry_cseg_copy_in(quarry_cseg *seg, size_t at, const void *src, size_t n);

/** Compare bytes as memcmp(3) does, across pieces; where one chain is the other's beginning, the shorter is less.
 * @return less than, equal to or more than 0; NULL counts as empty. */
QUARRY_API int quarry_chain_compare(const quarry_chain *a, const quarry_chain *b);

/** The same with bytes in one piece. */
QUARRY_API int quarry_chain_compare_bytes(const quarry_chain *a, const void *p, size_t n);

/** Find bytes from at on, across pieces.
 * @param bytes, n what is looked for, at least one byte.
 * @return how far from the chain's beginning they begin; -1 with EINVAL (NULL, n is 0), ERANGE (at is more than there
 *         is) or ENOENT (they are not there). */
QUARRY_API int64_t quarry_chain_find(const quarry_chain *chain, uint64_t at, const void *bytes, size_t n);

/** Let go of all that is in a chain, which is empty then. NULL is ignored; an empty chain may be freed again. */
QUARRY_API void quarry_chain_free(quarry_chain *chain);

/* ------------------------------------------------------------------------------------------------------ */
/* Cursors                                                                                                */

/** A place in a chain, for parsing across pieces. A copy of it is a place to come back to, by assignment.
 *
 * Reading takes nothing from the chain. Where there are not enough bytes, functions fail with EAGAIN and the cursor
 * stays: after more was appended to the chain, they can be called again. A cursor stays good while bytes are appended;
 * other changes of the chain, but those by quarry_cursor_trim, leave it leading nowhere. */
typedef struct quarry_cursor {
	const quarry_chain *chain;
	const quarry_cseg *seg;
	const unsigned char *p; /* in seg or at its end */
} quarry_cursor;

/** Place a cursor at the beginning of a chain, which may be empty. @return 0; -1 with EINVAL (NULL). */
QUARRY_API int quarry_cursor_init(quarry_cursor *cursor, const quarry_chain *chain);

/** How many bytes of the chain are before the cursor. */
QUARRY_API uint64_t quarry_cursor_position(const quarry_cursor *cursor);

/** How many bytes there are from the cursor on. */
QUARRY_API uint64_t quarry_cursor_remaining(const quarry_cursor *cursor);

/** Go to a position, 0 to rewind. @return 0; -1 with ERANGE (more than the chain has). */
QUARRY_API int quarry_cursor_seek(quarry_cursor *cursor, uint64_t position);

/** Go over n bytes. @return 0; -1 with EAGAIN (there are not so many). */
QUARRY_API int quarry_cursor_skip(quarry_cursor *cursor, uint64_t n);

/** Go back by n bytes. @return 0; -1 with ERANGE (there are not so many before it). */
QUARRY_API int quarry_cursor_unread(quarry_cursor *cursor, uint64_t n);

/** Copy the next n bytes and go over them. @return 0; -1 with EAGAIN (there are not so many). */
QUARRY_API int quarry_cursor_read(quarry_cursor *cursor, void *dst, size_t n);

/** Copy the next n bytes and stay. @return 0; -1 with EAGAIN (there are not so many). */
QUARRY_API int quarry_cursor_peek(const quarry_cursor *cursor, void *dst, size_t n);

/** The bytes from the cursor to the end of the segment, in place.
 * @param n receives how many.
 * @return where; NULL with *n 0 at the chain's end. */
QUARRY_API const void *quarry_cursor_span(const quarry_cursor *cursor, size_t *n);

/** Append the next n bytes to another chain by sharing, and go over them.
 * @return 0; -1 with EAGAIN (there are not so many), EINVAL (out is the cursor's own chain), ENOMEM or EOVERFLOW. */
QUARRY_API int quarry_cursor_share(quarry_cursor *cursor, uint64_t n, quarry_chain *out);

/** Whether the next bytes are these; when they are, go over them.
 * @return 1, or 0 and the cursor stays; -1 with EAGAIN: so far they are, and more must come to tell; EINVAL (NULL). */
QUARRY_API int quarry_cursor_is_next(quarry_cursor *cursor, const void *bytes, size_t n);

/** How far from the cursor a delimiter begins. It looks at all bytes from the cursor on, each time: where they come in
 * small pieces, quarry_chain_find goes on from where the last look ended.
 * @param delimiter, n its bytes, at least one. It may stand across pieces.
 * @return bytes before it; -1 with EAGAIN (it is not there yet) or EINVAL (NULL, n is 0). */
QUARRY_API int64_t quarry_cursor_find(const quarry_cursor *cursor, const void *delimiter, size_t n);

/** Copy the bytes up to a delimiter, and go over those and it.
 * @param delimiter, n its bytes, at least one.
 * @param dst, room where they are copied to; no 0 is added.
 * @param got receives how many there are before the delimiter, also with ERANGE.
 * @return 0; -1 with EAGAIN (it is not there yet), ERANGE (room is less) or EINVAL (NULL, n is 0): the cursor stays
 *         then. */
QUARRY_API int quarry_cursor_read_to(quarry_cursor *cursor, const void *delimiter, size_t n, void *dst, size_t room,
				     size_t *got);

/** Read an unsigned number of 7 bits a byte, the lowest first (LEB128, as of protocol buffers).
 * @return 0; -1 with EAGAIN (its end is not there yet) or EOVERFLOW (more than 64 bits): the cursor stays then. */
QUARRY_API int quarry_cursor_varint(quarry_cursor *cursor, uint64_t *value);

/** Drop what is before the cursor from its chain. What is released by it (quarry_storage_release) finds the cursor at the
 * chain's beginning, and may use both and change the chain, but not end the memory that the two structs stand in: where it
 * changes the chain's front, the cursor is at the new one when this returns.
 * @return 0; -1 with EINVAL (it is another's). */
QUARRY_API int quarry_cursor_trim(quarry_cursor *cursor, quarry_chain *chain);

/** Read n bytes, as quarry_cursor_read; in place of a call where they are in one piece. */
static inline int quarry_cursor_take(quarry_cursor *cursor, void *dst, size_t n)
{
	if (cursor->seg == NULL || (size_t)(cursor->seg->data + cursor->seg->len - cursor->p) < n)
		return quarry_cursor_read(cursor, dst, n);
	memcpy(dst, cursor->p, n);
	cursor->p += n;
	return 0;
}

/** Peek at n bytes, as quarry_cursor_peek; in place of a call where they are in one piece. */
static inline int quarry_cursor_look(const quarry_cursor *cursor, void *dst, size_t n)
{
	if (cursor->seg == NULL || (size_t)(cursor->seg->data + cursor->seg->len - cursor->p) < n)
		return quarry_cursor_peek(cursor, dst, n);
	memcpy(dst, cursor->p, n);
	return 0;
}

/** The next byte. @return 0; -1 with EAGAIN (there is none). */
static inline int quarry_cursor_u8(quarry_cursor *cursor, uint8_t *value)
{
	return quarry_cursor_take(cursor, value, 1);
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u8(const quarry_cursor *cursor, uint8_t *value)
{
	return quarry_cursor_look(cursor, value, 1);
}

/** An integer of 16 bits, the lowest byte first. @return 0; -1 with EAGAIN (there are not so many bytes). */
static inline int quarry_cursor_u16le(quarry_cursor *cursor, uint16_t *value)
{
	uint16_t raw;

	if (quarry_cursor_take(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? raw : __builtin_bswap16(raw);
	return 0;
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u16le(const quarry_cursor *cursor, uint16_t *value)
{
	uint16_t raw;

	if (quarry_cursor_look(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? raw : __builtin_bswap16(raw);
	return 0;
}

/** An integer of 16 bits, the highest byte first. @return 0; -1 with EAGAIN (there are not so many bytes). */
static inline int quarry_cursor_u16be(quarry_cursor *cursor, uint16_t *value)
{
	uint16_t raw;

	if (quarry_cursor_take(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? raw : __builtin_bswap16(raw);
	return 0;
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u16be(const quarry_cursor *cursor, uint16_t *value)
{
	uint16_t raw;

	if (quarry_cursor_look(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? raw : __builtin_bswap16(raw);
	return 0;
}

/** An integer of 32 bits, the lowest byte first. @return 0; -1 with EAGAIN (there are not so many bytes). */
static inline int quarry_cursor_u32le(quarry_cursor *cursor, uint32_t *value)
{
	uint32_t raw;

	if (quarry_cursor_take(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? raw : __builtin_bswap32(raw);
	return 0;
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u32le(const quarry_cursor *cursor, uint32_t *value)
{
	uint32_t raw;

	if (quarry_cursor_look(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? raw : __builtin_bswap32(raw);
	return 0;
}

/** An integer of 32 bits, the highest byte first. @return 0; -1 with EAGAIN (there are not so many bytes). */
static inline int quarry_cursor_u32be(quarry_cursor *cursor, uint32_t *value)
{
	uint32_t raw;

	if (quarry_cursor_take(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? raw : __builtin_bswap32(raw);
	return 0;
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u32be(const quarry_cursor *cursor, uint32_t *value)
{
	uint32_t raw;

	if (quarry_cursor_look(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? raw : __builtin_bswap32(raw);
	return 0;
}

/** An integer of 64 bits, the lowest byte first. @return 0; -1 with EAGAIN (there are not so many bytes). */
static inline int quarry_cursor_u64le(quarry_cursor *cursor, uint64_t *value)
{
	uint64_t raw;

	if (quarry_cursor_take(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? raw : __builtin_bswap64(raw);
	return 0;
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u64le(const quarry_cursor *cursor, uint64_t *value)
{
	uint64_t raw;

	if (quarry_cursor_look(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? raw : __builtin_bswap64(raw);
	return 0;
}

/** An integer of 64 bits, the highest byte first. @return 0; -1 with EAGAIN (there are not so many bytes). */
static inline int quarry_cursor_u64be(quarry_cursor *cursor, uint64_t *value)
{
	uint64_t raw;

	if (quarry_cursor_take(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? raw : __builtin_bswap64(raw);
	return 0;
}

/** The same, and the cursor stays. */
static inline int quarry_cursor_peek_u64be(const quarry_cursor *cursor, uint64_t *value)
{
	uint64_t raw;

	if (quarry_cursor_look(cursor, &raw, sizeof(raw)) != 0)
		return -1;
	*value = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? raw : __builtin_bswap64(raw);
	return 0;
}

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif

#endif
