/* SPDX-License-Identifier: MIT */
/* Channels: what stands in the heap, and what is true of it.
 *
 * The ring is cells of 64 bytes. Places are counted in cells, without end; place p is cell p % cells. A message has cells in a
 * row, and its first word is its header; it does not go round the ring's end: what is left there is a message to pass over.
 *
 * The first word of a cell that is free for place p is free_word(p), which is another one each time round. A producer reserves by
 * exchanging it for a header, where the tail is p: that alone decides; then the tail goes on, by its hand, or anybody's who finds it
 * behind (the producer may have died). So nobody is ever between "reserved" and "known how long". States of a header: BUSY by the
 * producer `slot` of its `tag`; READY; SKIP, where size is the number of cells.
 *
 * The consumer goes from header to header, never past the tail; a BUSY one whose producer is gone becomes SKIP. What it gives back: it says how far (releasing),
 * writes free words for the next time round, and moves the head. A consumer that died in it is finished by the next one. Producers reserve only
 * up to the head and a whole ring.
 *
 * A producer's death is counted where its place in `slot` becomes free, by one redo record under the heap's lock, and so are the comings of
 * producers: neither is forgotten by a death in the midst of it. Places are taken and buried under that lock; an owner lets its own go without.
 * The consumer's is one word, changed by compare-and-exchange.
 *
 * What is free is told by a key of the channel's, so that nothing that a program writes into a message is taken for a free word by a
 * producer that slept while others went round. A header is never a free word: the state's bits are 0 there. */
#ifndef QUARRY_MAPPED_CHANNEL_H
#define QUARRY_MAPPED_CHANNEL_H

#include "include/quarry/channel.h"
#include "lib/mapped/mapped.h"

#define QY_CHANNEL_CELL 64u
#define QY_CHANNEL_PRODUCERS 255u
#define QY_CHANNEL_TAG 0x3fffffu
#define QY_CHANNEL_GONE 1u /* (no owner is that) */
#define QY_CHANNEL_LOOK_MS 50u /* who waits looks so often whether the other end lives */
#define QY_CHANNEL_LOOK_EACH 64u /* messages: who never waits sees so often whether it is time to */

enum { QY_CHANNEL_FREE, QY_CHANNEL_BUSY, QY_CHANNEL_READY, QY_CHANNEL_SKIP };

/* Words that one side writes stand in lines of their own. */
struct qy_ring {
	uint64_t magic, cells, key;
	uint32_t producers, reserved;
	uint64_t consumer;      /* who: as in slot; 0: nobody yet; GONE: it closed its end, or died, and nobody came since */
	uint64_t producers_had; /* how many there were */
	uint64_t heap;          /* whose sessions the owners are: in a heap made of a dump, another's */
	uint64_t tail, pad1[7];
	uint64_t head, releasing, died, told, skipped, pad2[3]; /* deaths of producers, and how many the consumer was told of */
	uint32_t consumer_sleeps, pad3[15]; /* futexes: 1 while somebody does */
	uint32_t producers_sleep, pad4[15];
	uint64_t slot[256]; /* of producers: tag in the low 22 bits, the owner above. Without the tag 0: nobody */
};

struct quarry_channel {
	struct heap *heap;
	struct qy_ring *ring;
	char *cells;
	uint64_t mask, count, key;
	uint64_t me;      /* the owner's word: in the ring's slot, or its consumer */
	uint64_t header;  /* a producer's: slot and tag, as they stand in headers */
	uint64_t head;    /* producers: as it was when looked at; the consumer's own */
	uint64_t next;    /* the consumer's: behind what was received */
	uint64_t tail;    /* the consumer's: as it was when looked at */
	uint64_t held;    /* messages received, and not given back */
	uint64_t told;    /* the place up to which producers that sleep know of room */
	uint64_t looked;  /* ns: when, whether others live */
	uint64_t due;     /* the consumer's: so many deaths can be told when all before `due_at` is received; nothing where they are told */
	uint64_t due_at;
	uint32_t slot, producers;
	uint32_t spins, waits; /* how long it is worth while to spin; of waits without */
	uint32_t look_in;      /* messages */
	bool consumer, alone;
	bool telling; /* a death that is not in the ring's `told`: the program has not come back since */
};

/* ---- channel.c ---- */

/* Whether it is this process's: a forked child's session is another one, though it may have its parent's place. */
QY_INLINE bool qy_channel_is_mine(const quarry_channel *c)
{
	return c->me == c->heap->owner;
}

QY_INLINE uint64_t *qy_channel_word(const quarry_channel *c, uint64_t place)
{
	return (uint64_t *)(void *)(c->cells + (place & c->mask) * QY_CHANNEL_CELL);
}

QY_INLINE uint64_t qy_channel_free_word(uint64_t key, uint64_t place)
{
	return ((place * 0x9e3779b97f4a7c15u) ^ key) & ~(uint64_t)3;
}

/* size << 32 | tag << 10 | slot << 2 | state */
QY_INLINE uint32_t qy_header_state(uint64_t header)
{
	return header & 3;
}

QY_INLINE uint32_t qy_header_slot(uint64_t header)
{
	return header >> 2 & 0xff;
}

QY_INLINE uint32_t qy_header_tag(uint64_t header)
{
	return header >> 10 & QY_CHANNEL_TAG;
}

QY_INLINE uint32_t qy_header_size(uint64_t header)
{
	return (uint32_t)(header >> 32);
}

QY_INLINE uint64_t qy_cells_for(uint64_t size)
{
	return (size + sizeof(uint64_t) + QY_CHANNEL_CELL - 1) / QY_CHANNEL_CELL;
}

QY_INLINE uint64_t qy_header_cells(uint64_t header)
{
	return qy_header_state(header) == QY_CHANNEL_SKIP ? qy_header_size(header) : qy_cells_for(qy_header_size(header));
}

void qy_channel_help(const quarry_channel *c, uint64_t place, uint64_t header); /* the tail goes past a header, if it is there */

/* ---- channel_receive.c ---- */

void qy_channel_told(quarry_channel *c); /* the program has come back: it knows of the death that it was told of */

/* ---- channel_wait.c ---- */

struct qy_waiting {
	int64_t timeout_ms;
	uint64_t until; /* ns; 0: not yet reckoned */
	bool (*over)(const quarry_channel *c, uint64_t is); /* whether there is nothing to wait for */
	bool spun;
};

bool qy_channel_alive(const quarry_channel *c, uint64_t owner);
/* The consumer waits while a word of the ring is `is`; a producer, while the head is. 0: look again; 1: it is time to see whether others
 * live; -1 with EAGAIN, ETIMEDOUT. */
int qy_channel_await(quarry_channel *c, const uint64_t *word, uint64_t is, struct qy_waiting *w);
bool qy_channel_is_time(quarry_channel *c, uint64_t now); /* to look whether others live: it is done now, then */
void qy_channel_wake_consumer(const quarry_channel *c);
void qy_channel_wake_producers(const quarry_channel *c);
/* Producers that died (all: all that there are) are taken out, and counted. The heap's lock is held; how many. */
unsigned qy_channel_bury_locked(const quarry_channel *c, bool all);
/* The same, without the lock, which it takes if there is one, and nobody has it: another time, else. -1 with errno */
int qy_channel_bury(const quarry_channel *c);

#endif
