/* SPDX-License-Identifier: MIT */
/**
 * Channels between processes: a ring of messages in a heap that they share (mapped.h). A message is written where it is read: a producer
 * reserves room for it in the ring, writes it, and publishes it; the consumer gets its address, and gives the room back. One
 * consumer; one producer (nothing is locked then, not even a processor's cache line), or several, whose messages come in one order.
 *
 * Who waits sleeps in futex(2), after a short while; who publishes wakes it only if it sleeps, and not where more is about to come
 * (QUARRY_CHANNEL_MORE). Producers that wait for room are woken when there is an eighth of the ring, not for each message.
 *
 * Any process may die at any instruction. What it published is received; what it had reserved is passed over. The others are told: who waits,
 * or asks without waiting, looks each 50 milliseconds whether the other end's process still has the heap open (its session); a consumer that
 * never waits sees each 64 messages whether it is time to. A consumer that died is followed by another, which receives again what was not
 * given back. In a heap that was made of a dump all who had ends when it was written are dead.
 *
 * An end belongs to one thread at a time; others open ends of their own. A forked child cannot use its parent's ends: what can fail is ESTALE, and the
 * rest does nothing, but that quarry_channel_close frees the child's memory. The heap has to
 * stay open until all of a process's ends are closed. The memory is freed by who has no end of it open any more (quarry_mapped_free_from). Those
 * who can write to the heap are trusted, as far as content goes: what stands in the ring is checked so that nobody is led out of it.
 *
 * Durable heaps have no channels (ENOTSUP): a version of the heap would have a part of the ring as it was before a message, and another as it was
 * after it. A channel belongs into a volatile heap beside it, or a direct one. */
#ifndef QUARRY_CHANNEL_H
#define QUARRY_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#include <quarry/mapped.h>

#ifdef __cplusplus
extern "C" {
#endif

/** An end of a channel, as this process has it. */
typedef struct quarry_channel quarry_channel;

enum quarry_channel_role { QUARRY_CHANNEL_PRODUCER = 0, QUARRY_CHANNEL_CONSUMER = 1 };

enum quarry_channel_flags {
	QUARRY_CHANNEL_MORE = 1 /* more is published soon, or quarry_channel_flush called: nobody is woken */
};

#define QUARRY_CHANNEL_FOREVER (-1) /* a time to wait, in milliseconds; 0 is not to wait */

/** How one is made. All zero but struct_size: the defaults, in brackets. */
typedef struct quarry_channel_attr {
	size_t struct_size; /* sizeof(quarry_channel_attr) */
	uint64_t bytes;     /* of the ring: a power of two from 64 KiB (the default is 256 KiB) to 1 GiB */
	uint32_t producers; /* at once: 1 to 255 (64); with 1, a second one is EUSERS */
} quarry_channel_attr;

/** Make a channel, and have *slot, a word of the heap's memory that is 0, mean it (as quarry_mapped_alloc_into).
 * @param attr NULL: the defaults. @return its offset; 0 with EINVAL (attr, slot), EEXIST (*slot is not 0), ENOTSUP (the heap is durable), or as
 *         quarry_mapped_alloc. */
QUARRY_API quarry_off quarry_channel_make(quarry_mapped *heap, quarry_off *slot, const quarry_channel_attr *attr);

/** Open an end. There may be one consumer; where it has died, who opens it next goes on.
 * @param off what the slot means. @param role enum quarry_channel_role.
 * @return the end; NULL with EINVAL (role), EMEDIUMTYPE (there is no channel), EUSERS (all producers, or the consumer, are there), ENOTSUP (the heap is
 *         durable), EROFS, ESTALE, ENOMEM. */
QUARRY_API quarry_channel *quarry_channel_open(quarry_mapped *heap, quarry_off off, int role);

/** Close an end; reservations are passed over, messages that were not given back are received again by the next consumer. The other end
 * is told. NULL is ignored. */
QUARRY_API void quarry_channel_close(quarry_channel *end);

/* ---- sending ---- */

/** Room for a message. Several may be reserved before the first is published; they are received in the order in which they were reserved.
 * Who waits for room while it has reservations may wait for itself: the consumer does not pass them.
 * @param size bytes, at most an eighth of the ring. @param timeout_ms how long to wait for room.
 * @return the room, aligned to 8, to be published or cancelled by this end; NULL with EMSGSIZE, EAGAIN (timeout 0) or ETIMEDOUT, EPIPE (it is full,
 *         and the consumer has closed its end, or died, and no other has come), EINVAL (a consumer's end), EUCLEAN (what stands in the ring
 *         cannot be), ESTALE. */
QUARRY_API void *quarry_channel_reserve(quarry_channel *end, size_t size, int64_t timeout_ms);

/** Have the consumer receive it. @param flags enum quarry_channel_flags. @return 0; -1 with EINVAL (no reservation of this end), ESTALE. */
QUARRY_API int quarry_channel_publish(quarry_channel *end, void *room, unsigned flags);

/** Have the consumer pass over it. @return as quarry_channel_publish. */
QUARRY_API int quarry_channel_cancel(quarry_channel *end, void *room);

/** Wake the consumer, for what was published with QUARRY_CHANNEL_MORE. */
QUARRY_API void quarry_channel_flush(quarry_channel *end);

/** Reserve, copy and publish. @return 0; -1 as quarry_channel_reserve. */
QUARRY_API int quarry_channel_send(quarry_channel *end, const void *message, size_t size, int64_t timeout_ms);

/* ---- receiving ---- */

/** The next message, where it stands in the ring: it stays until quarry_channel_release. Several may be received before that.
 * @param size receives its bytes. @param timeout_ms how long to wait for one.
 * @return the message; NULL with EAGAIN (timeout 0) or ETIMEDOUT; EOWNERDEAD: a producer has died, and all that it published has been received: once for
 *         each, whoever found it (and again by the next consumer, where this one dies before it calls receive, release or close of this end once more;
 *         where the ring is never empty, when all is received that was there when the death was seen); EPIPE: there is nothing more, and all
 *         producers that there were have closed their ends or died; ENOBUFS: nothing more is there, and so much is received and not released
 *         that there is no room for the largest message, behind what is left at the ring's end (who holds less than three quarters of it
 *         is not told so); EINVAL (a producer's end), EUCLEAN (what stands in the ring cannot be), ESTALE, EROFS (a producer
 *         has died, and the heap is damaged). */
QUARRY_API const void *quarry_channel_receive(quarry_channel *end, size_t *size, int64_t timeout_ms);

/** Give back the room of all that was received so far. */
QUARRY_API void quarry_channel_release(quarry_channel *end);

/** Receive, copy as much as there is room for, and release.
 * @return how many bytes the message has; -1 as quarry_channel_receive. */
QUARRY_API int64_t quarry_channel_read(quarry_channel *end, void *to, size_t room, int64_t timeout_ms);

/* ---- looking ---- */

/** How a channel is at about this moment. */
typedef struct quarry_channel_info {
	uint64_t bytes, used;   /* of the ring; reserved, published, or not yet given back */
	uint64_t most;          /* bytes of a message */
	uint64_t died;          /* producers, so far as it was seen */
	uint64_t skipped;       /* messages that they, or ends that were closed, had reserved; a consumer's death may keep one out of it */
	uint32_t producers;     /* open, or dead and not yet seen to be */
	uint32_t consumer;      /* 1: there is one, or it has died and was not yet seen to have */
} quarry_channel_info;

/** @param size sizeof(*info): so much of it is filled. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_channel_info_get(const quarry_channel *end, quarry_channel_info *info, size_t size);

#ifdef __cplusplus
}
#endif

#endif
