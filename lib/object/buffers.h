/* SPDX-License-Identifier: MIT */
/* Slabs of buffers, inside (include/quarry/buffers.h).
 *
 * A buffer's state is its generation: odd while it is the program's, even while it is free or the kernel's. Whoever
 * turns it from odd to even has released the buffer, and nobody else can for that generation: others than the owner
 * turn it by an exchange, so of two releases one wins. Only the owner makes it odd, of a number that it has in its
 * hands. (In a slab that counts pins a release closes the word of the pins before: buffers_held.c.)
 *
 * What others release goes to the owner by a bit: 64 buffers share a word, 64 words a bit each in a word above. The
 * setter sets the lower bit first, and the upper one when the word was empty; the owner exchanges from above. So a bit
 * that is set is found by the collection that follows, or its setter is still about to set the upper one. There is no
 * lock. Two wait for others: who ends a slab for those in `wake`, and who registers it with the kernel for those who
 * move pages (qy_buffers_await, which sleeps).
 *
 * Whoever has set the lower bit may be slow, and the slab be destroyed before it has gone on: the owner needs only the
 * bit. So what it touches from there on (`above`, `waits`, `callers`, and then `wake`) stays what it is for ever: the
 * structs are static, and the next slab of that number has the same. A bit above that comes late is looked up in vain.
 * `wake` is the program's, so that destroy waits for those who are in it.
 *
 * What other threads were at when the process forked, nobody goes on with in the child: a buffer may have been claimed
 * and be on its way home, a lower bit wait for its upper one, the owner be in the midst of something. The child settles
 * that in the handler of pthread_atfork(3), where it has one thread (buffers_fork.c). For that, the stack's numbers are
 * always free ones, each once: a number is written before it counts, and counts no more before it is given out.
 *
 * Beside `returned`, `above`, `generation`, `waits`, `callers`, `pieces` and `pins`, all is the owner's; others look at
 * counters. */
#ifndef QUARRY_OBJECT_BUFFERS_H
#define QUARRY_OBJECT_BUFFERS_H

#include "include/quarry/buffers.h"
#include "lib/base/base.h"

#define QY_CHUNK_MAX ((uint64_t)1 << 30) /* bytes that one fixed buffer, or iovec, may have */

#define QY_ABOVE 16u /* words: a bit for each of 65536 / 64 words, or for each few where there are more buffers */

/* Of a buffer that is filled in pieces. */
struct qy_pieces {
	_Atomic(uint64_t) out; /* a bit for each piece that the program has, and QY_KERNELS; in the upper half the
	                        * generation, so that a late release changes nothing of the next life. In a slab that
	                        * counts pins 8 of the bits are how often it is pinned, so that a release of the last
	                        * piece and a pin of it have one order */
	uint32_t offset;       /* where the next one begins */
	uint8_t next;          /* the bit that the next one is to have */
};

#define QY_PIECES 31
#define QY_KERNELS ((uint64_t)1 << QY_PIECES) /* it has not been filled to its end */
#define QY_PIECES_OUT (QY_KERNELS - 1)
#define QY_PIECES_COUNTED 23 /* as many as there are in a slab that counts pins; the rest is the count */
#define QY_PIECE_PIN ((uint64_t)1 << QY_PIECES_COUNTED)
#define QY_PIECE_PINS (QY_PIECES_OUT & ~(QY_PIECE_PIN - 1))

/* Of io_uring's interface, as io_uring_register(2) and io_uring_register_buf_ring(3) document it. */
struct qy_ring_entry {
	uint64_t addr;
	uint32_t len;
	uint16_t id;
	uint16_t tail; /* of the first entry: how far the ring is filled. Of others unused */
};

struct qy_ring {
	struct qy_ring_entry *entry; /* NULL: there is none */
	uint32_t mask;
	uint16_t written; /* entries, as the tail counts them: those behind it are not told yet */
	uint16_t tail;    /* as told to the kernel */
	uint16_t group;
	int fd;
	int process; /* that registered it: a forked child has the descriptor too, and leaves the parent's ring alone */
	uint32_t held; /* buffers that the kernel has */
	bool incremental;
	bool bundles; /* a completion may be of several buffers */
	uint64_t *has; /* a bit for each buffer: the kernel has it; */
	uint64_t *of;  /* it is the ring's, wherever it is now */
	struct qy_pieces *pieces; /* stays when the ring goes: pieces may be out */
	uint16_t *next; /* of a buffer that the kernel has, but the last that it was given: which it was given after it */
	uint16_t last;
};

struct qy_fixed {
	bool registered;  /* all of it: requests may use it */
	uint32_t held;    /* so many chunks, from the first on, the kernel may have, in whole or in part */
	uint32_t pending; /* chunks whose tags have not come back */
	int fd;
	int process; /* as of the ring */
	unsigned first;
	uint64_t tag;
	uint32_t clones; /* how many other io_urings have the chunks, at the same entries: these */
	int clone[QUARRY_FIXED_CLONES_MAX];
};

struct qy_buffers {
	quarry_buffers head; /* what the program sees */
	/* Read by all, written seldom. */
	_Atomic(uint32_t) *generation;
	_Atomic(uint64_t) *returned;
	_Atomic(uint64_t) owner;
	uint32_t seed; /* with which generations begin: a buffer of a slab that had this number before is not this one's */
	uint16_t number;
	uint32_t tag; /* what all its buffers' flags have: the number, and that pins are counted */
	uint8_t group; /* a bit above stands for 1 << group words */
	bool checked;
	bool more; /* a put has more to do than to put back: see qy_buffers_mode */
	bool get_more; /* and a get more than to give out */
	void (*wake)(void *ctx);
	void *ctx;
	_Atomic(uint64_t) *since; /* when each was given out, NULL where that is not asked for: buffers_held.c */
	_Atomic(uint64_t) *pins;  /* and how often it is pinned, and that it is being released */
	_Atomic(uint64_t) *pinned_since;
	_Atomic(uint64_t) *chained; /* of a checked slab, for each: the generation, in the upper half, in which it, or which of
	                             * its pieces, a chain has (chain_buffers.c) */
	uint32_t held_ms, pins_max;
	/* What a get and a put by the owner write. */
	_Alignas(QY_CACHE_LINE) uint32_t *stack; /* numbers that came back */
	uint32_t stacked;
	uint32_t fresh; /* numbers from here on were never given out */
	uint32_t low_water;
	qy_counter gets, puts;
	quarry_buffers_waiter *first_waiter, **last_waiter;
	uint32_t waiting;
	bool serving; /* the loop that calls them is at work: others leave it to that */
	quarry_buffers_waiter *asked; /* of quarry_buffers_wait, until it is called */
	struct qy_ring ring;
	struct qy_fixed fixed;
	uint64_t total, chunk; /* bytes: of all, and of a part of at most QY_CHUNK_MAX whose end no buffer spans */
	quarry_arena *arena;
	void (*low)(void *ctx, uint32_t left);
	qy_counter returns, batches, refused, starved, served, lows, published, tails;
	bool ending; /* its memory is being given back */
	/* By any thread, seldom. */
	_Atomic(uint64_t) late, moved, copied, pins_refused;
	_Atomic(uint32_t) pinned; /* buffers */
	_Atomic(uint32_t) moving; /* who are about to move a buffer's pages away */
	/* What stays when the slab ends; all before is cleared then. */
	_Alignas(QY_CACHE_LINE) _Atomic(uint32_t) waits; /* who returns is to call `wake` */
	_Atomic(uint32_t) callers; /* who are about to, since the last fork */
	_Atomic(uint32_t) taken;   /* there is a slab of this number, or one is being made or ended */
	_Atomic(uint64_t) above[QY_ABOVE];
};

/* By their numbers; NULL where there is none. */
extern QY_HIDDEN _Atomic(struct qy_buffers *) qy_buffers_table[QUARRY_BUFFERS_MAX];

/* All there ever were, by their numbers, and how many numbers were taken by now. */
extern QY_HIDDEN struct qy_buffers qy_buffers_all[QUARRY_BUFFERS_MAX];
extern QY_HIDDEN _Atomic(uint32_t) qy_buffers_numbers;

/* How often this process and its parents forked: who has counted himself before that does not count any more. */
extern QY_HIDDEN _Atomic(uint32_t) qy_buffers_forks;

/* Have forked children settle what they inherit. To be called before there is a slab. False: there is no memory. */
bool qy_buffers_mind_forks(void);

/* Wait until nobody is counted there. */
void qy_buffers_await(_Atomic(uint32_t) *who);

/* The calling thread, if it ever owned a slab, by a number that no other has or will have; else 0. (An address of the
 * thread's is the next thread's, when it has ended.) A forked child's one thread keeps it. */
extern __thread QY_HIDDEN uint64_t qy_buffers_thread __attribute__((tls_model("initial-exec")));

QY_INLINE bool qy_buffers_mine(struct qy_buffers *s)
{
	return QY_LIKELY(atomic_load_explicit(&s->owner, memory_order_relaxed) == qy_buffers_thread);
}

/* What was a slab, and is none now: its struct stays. And what is to be said to who does not own it. */
QY_INLINE bool qy_buffers_is_none(const struct qy_buffers *s)
{
	return s->head.count == 0;
}

QY_INLINE int qy_buffers_refusal(const struct qy_buffers *s)
{
	return qy_buffers_is_none(s) ? EINVAL : EPERM;
}

QY_INLINE bool qy_bit(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

QY_INLINE void qy_bit_set(uint64_t *bits, uint32_t i)
{
	bits[i / 64] |= (uint64_t)1 << (i % 64);
}

QY_INLINE void qy_bit_clear(uint64_t *bits, uint32_t i)
{
	bits[i / 64] &= ~((uint64_t)1 << (i % 64));
}

/* To be called when one of these has changed. */
QY_INLINE void qy_buffers_mode(struct qy_buffers *s)
{
	s->more = s->checked || s->ring.entry != NULL || s->first_waiter != NULL;
}

/* How many are free, as the owner knows. */
QY_INLINE uint32_t qy_buffers_free(const struct qy_buffers *s)
{
	return s->stacked + (s->head.count - s->fresh);
}

/* A slab by what the program says it is; NULL with EINVAL, or, with mine, EPERM when it is another thread's; and a
 * text. */
struct qy_buffers *qy_buffers_slab(const quarry_buffers *slab, bool mine);

/* Zeroed memory for what a slab needs beside its buffers, aligned to a cache line. NULL with ENOMEM. */
void *qy_buffers_zeroed(size_t bytes);

/* A number that is free; false when there is none. The owner's, like what follows. */
QY_INLINE bool qy_buffers_take(struct qy_buffers *s, uint32_t *id)
{
	/* What came back last first: it is in the caches. */
	const uint32_t n = s->stacked;

	if (QY_LIKELY(n > 0)) {
		*id = s->stack[n - 1];
		qy_publish(s->stacked, n - 1);
		return true;
	}
	if (s->fresh == s->head.count)
		return false;
	*id = s->fresh;
	qy_publish(s->fresh, s->fresh + 1);
	return true;
}

/* A buffer's flags beside the kind. */
QY_INLINE uint32_t qy_buffer_flags(const struct qy_buffers *s, unsigned kind, unsigned piece)
{
	return kind | piece << 8 | s->tag;
}

QY_INLINE unsigned qy_buffer_piece(uint32_t flags)
{
	return flags >> 8 & 0xff;
}

QY_INLINE unsigned qy_buffer_slab(uint32_t flags)
{
	return flags >> 16;
}

/* What is given out: a whole buffer, its generation made odd. */
QY_INLINE void qy_buffers_give(struct qy_buffers *s, uint32_t id, uint32_t len, unsigned kind, quarry_buffer *b)
{
	uint32_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed) + 1;

	/* After it has left the stack, for a child that is forked in between. */
	atomic_store_explicit(&s->generation[id], generation, memory_order_release);
	qy_count(&s->gets, 1);
	/* Field by field. Together, by way of a vector, they would be there 5 ns later for a put that follows. */
	b->p = quarry_buffers_at(&s->head, id);
	qy_publish(b->len, len);
	qy_publish(b->id, id);
	qy_publish(b->generation, generation + s->seed);
	qy_publish(b->flags, qy_buffer_flags(s, kind, 0));
}

/* Notes when it was given out, where that is asked for, and that it can be pinned. After qy_buffers_give. */
void qy_buffers_note_taken(struct qy_buffers *s, uint32_t id);

QY_INLINE void qy_buffers_note(struct qy_buffers *s, uint32_t id)
{
	if (QY_UNLIKELY(s->since != NULL || s->pins != NULL))
		qy_buffers_note_taken(s, id);
}

/* How many pieces of a buffer may be out. */
QY_INLINE unsigned qy_pieces(const struct qy_buffers *s)
{
	return s->pins != NULL ? QY_PIECES_COUNTED : QY_PIECES;
}

/* Only where pins are counted. Whether a buffer, or what there is of it, is pinned, of this generation; and have it
 * pinned no more, which is half of its release, and which one alone can (0; EBUSY: it is pinned; EALREADY). */
bool qy_buffers_pinned(struct qy_buffers *s, uint32_t id, uint32_t generation);
int qy_buffers_close_pins(struct qy_buffers *s, uint32_t id, uint32_t generation);

/* In a forked child: releases that were half done are done, and pinned buffers counted anew. */
void qy_buffers_settle_pins(struct qy_buffers *s);

/* The slab of a buffer; NULL when it is of none. */
QY_INLINE struct qy_buffers *qy_buffers_of(uint32_t id, uint32_t flags)
{
	struct qy_buffers *s;

	if (QY_UNLIKELY(qy_buffer_slab(flags) >= QUARRY_BUFFERS_MAX))
		return NULL;
	s = atomic_load_explicit(&qy_buffers_table[qy_buffer_slab(flags)], memory_order_acquire);
	return QY_LIKELY(s != NULL && id < s->head.count) ? s : NULL;
}

/* The bits of `chained`: for each piece of a buffer, and for all of it. */
#define QY_CHAINED_WHOLE ((uint32_t)1 << QY_PIECES)

QY_INLINE uint32_t qy_chained_piece(unsigned piece)
{
	return (uint32_t)1 << piece % QY_PIECES;
}

/* Whether a chain has it in this life, which then is who releases it. (Of a slab that is not checked nobody knows.) */
QY_INLINE bool qy_buffers_is_chained(const struct qy_buffers *s, uint32_t id, uint32_t generation, uint32_t bit)
{
	uint64_t word;

	if (QY_LIKELY(s->chained == NULL))
		return false;
	word = atomic_load_explicit(&s->chained[id], memory_order_relaxed);
	return word >> 32 == generation + s->seed && (word & bit);
}

/* A number whose buffer has come back: to the ring (told at the next qy_ring_tell) or the stack. */
void qy_buffers_come_home(struct qy_buffers *s, uint32_t id);

long qy_buffers_collect(struct qy_buffers *s);

/* A number that is free, after what others returned was taken in where need be; false, and counted, when there is
 * none. */
bool qy_buffers_take_any(struct qy_buffers *s, uint32_t *id);

/* What a release is made of, by any thread, for what is to be done between: turn the generation, which one alone can
 * (0; EALREADY: somebody else has; EBUSY: it is pinned), and then bring the buffer home. */
int qy_buffers_claim(struct qy_buffers *s, uint32_t id, uint32_t generation);
void qy_buffers_send_claimed(struct qy_buffers *s, uint32_t id);

/* Tell, when so few are left now that one was taken. */
void qy_buffers_low(struct qy_buffers *s, uint32_t left);

/* OWNED buffers of checked slabs: note one, which gets the number that comes back, as its generation (0: there is no
 * memory to note it in); whether it is one; and end it, which one alone can. From any thread. */
extern QY_HIDDEN _Atomic(uint32_t) qy_owned_places; /* there ever were: for tests, since nothing else tells */

/* Where the memory of an OWNED one begins, whose p the program may have moved on: its id is the low half of that. */
QY_INLINE void *qy_owned_begin(void *p, uint32_t id)
{
	return (char *)p - (uint32_t)((uint32_t)(uintptr_t)p - id);
}

uint32_t qy_owned_note(const void *p);
bool qy_owned_is(const void *p, uint32_t serial);
bool qy_owned_end(const void *p, uint32_t serial);

/* Note that a chain has it, which one alone may (false: one has), and that none has any more. */
bool qy_owned_enter(const void *p, uint32_t serial);
bool qy_owned_is_entered(const void *p, uint32_t serial);
void qy_owned_leave(const void *p, uint32_t serial);

/* Give the kernel a buffer, as of when it is told. */
void qy_ring_put(struct qy_buffers *s, uint32_t id);
void qy_ring_tell(struct qy_buffers *s);

/* A piece comes back, from any thread. 0: others are out, or the kernel has the rest; 1: it was the last, and the
 * buffer is to be returned; -EALREADY: it came back before; -EBUSY: no other is out, and it is pinned. */
bool qy_ring_piece_last(struct qy_buffers *s, uint32_t id, unsigned piece); /* whether no other is out */
int qy_ring_piece_back(struct qy_buffers *s, uint32_t id, uint32_t generation, unsigned piece);
bool qy_ring_piece_out(struct qy_buffers *s, uint32_t id, unsigned piece); /* whether the program has it */

#endif
