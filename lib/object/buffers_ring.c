/* SPDX-License-Identifier: MIT */
/* A slab's buffers as a provided-buffer ring of io_uring: published, taken by completions, whole or in pieces.
 *
 * The structs and numbers are the kernel's interface as io_uring_register(2), io_uring_register_buf_ring(3) and
 * io_uring_enter(2) document it. The ring is memory that both sides see: we write entries and then the tail, the
 * kernel reads the tail and then entries. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/object/buffers.h"
#include "lib/object/copy.h"
#include "lib/object/own.h"
#include "numa/os.h"

#define REGISTER_PBUF_RING 22u   /* Linux 5.19 */
#define UNREGISTER_PBUF_RING 23u
#define REGISTER_PBUF_STATUS 26u /* Linux 6.8 */
#define PBUF_RING_INC 2u         /* Linux 6.12 */

#define CQE_BUFFER 1u
#define CQE_BUFFER_MORE 16u
#define CQE_BUFFER_SHIFT 16
#define BUFFERS_MAX 65536u /* a completion has 16 bits for a buffer's number */

struct ring_registration {
	uint64_t addr;
	uint32_t entries;
	uint16_t group;
	uint16_t flags;
	uint64_t reserved[3];
};

struct ring_status {
	uint32_t group;
	uint32_t head;
	uint32_t reserved[8];
};

_Static_assert(sizeof(struct qy_ring_entry) == 16 && offsetof(struct qy_ring_entry, tail) == 14, "struct io_uring_buf");
_Static_assert(sizeof(struct ring_registration) == 40 && sizeof(struct ring_status) == 40, "the kernel's structs");

static int error(int number)
{
	errno = number;
	return -1;
}

/* ---- what the kernel is given ---- */

void qy_ring_put(struct qy_buffers *s, uint32_t id)
{
	struct qy_ring *ring = &s->ring;
	struct qy_ring_entry *e = &ring->entry[ring->written & ring->mask];

	/* (Not the entry as a whole: in the first stands the tail.) */
	e->addr = (uintptr_t)quarry_buffers_at(&s->head, id);
	e->len = (uint32_t)s->head.size;
	e->id = (uint16_t)id;
	ring->written++;
	ring->next[ring->last] = (uint16_t)id;
	ring->last = (uint16_t)id;
	qy_bit_set(ring->has, id);
	qy_publish(ring->held, ring->held + 1);
}

void qy_ring_tell(struct qy_buffers *s)
{
	struct qy_ring *ring = &s->ring;

	if (ring->entry == NULL || ring->tail == ring->written)
		return;
	qy_count(&s->published, (uint16_t)(ring->written - ring->tail));
	qy_count(&s->tails, 1);
	ring->tail = ring->written;
	__atomic_store_n(&ring->entry[0].tail, ring->tail, __ATOMIC_RELEASE);
}

/* ---- registered ---- */

static bool check(struct qy_buffers *s, unsigned group, unsigned entries, unsigned flags)
{
	if (s->ring.entry != NULL)
		qy_fail(EBUSY, "slab: it has a ring already");
	else if (!qy_is_pow2(entries) || entries > QUARRY_RING_MAX)
		qy_fail(EINVAL, "entries: %u is no power of two up to %d", entries, QUARRY_RING_MAX);
	else if (s->low_water >= entries)
		qy_fail(EINVAL, "entries: %u are no more than the low water, %u", entries, (unsigned)s->low_water);
	else if (s->head.count > BUFFERS_MAX)
		qy_fail(EINVAL, "slab: %u buffers are more than a ring can tell apart", (unsigned)s->head.count);
	else if (group > UINT16_MAX)
		qy_fail(EINVAL, "group: %u is none", group);
	else if (flags & ~(unsigned)(QUARRY_RING_INCREMENTAL | QUARRY_RING_BUNDLES))
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", flags);
	else
		return true;
	return false;
}

/* Room for what is known of each buffer. Stays with the slab from then on. */
static bool make_room(struct qy_buffers *s)
{
	struct qy_ring *ring = &s->ring;
	const size_t words = ((size_t)s->head.count + 63) / 64;

	if (ring->has == NULL)
		ring->has = qy_buffers_zeroed(words * sizeof(*ring->has));
	if (ring->of == NULL)
		ring->of = qy_buffers_zeroed(words * sizeof(*ring->of));
	if (ring->next == NULL)
		ring->next = qy_own_calloc(s->head.count, sizeof(*ring->next));
	return ring->has != NULL && ring->of != NULL && ring->next != NULL;
}

/* The kernel takes them bit by bit where it can and that was asked for. */
static int ask_kernel(struct qy_ring *ring, struct qy_ring_entry *entry, unsigned entries, bool incremental)
{
	struct ring_registration r = { .addr = (uintptr_t)entry, .entries = entries, .group = ring->group };

	ring->incremental = false;
	if (incremental) {
		r.flags = PBUF_RING_INC;
		if (qy_os->uring_register(ring->fd, REGISTER_PBUF_RING, &r, 1) >= 0) {
			ring->incremental = true;
			return 0;
		}
		if (errno != EINVAL)
			return -1;
		r.flags = 0;
	}
	return qy_os->uring_register(ring->fd, REGISTER_PBUF_RING, &r, 1) >= 0 ? 0 : -1;
}

QUARRY_API int quarry_ring_register(quarry_buffers *slab, int ring_fd, unsigned group, unsigned entries,
				    unsigned flags)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	struct qy_ring *ring;
	struct qy_ring_entry *entry;
	uint32_t id;

	if (s == NULL || !check(s, group, entries, flags))
		return -1;
	ring = &s->ring;
	entry = qy_own_aligned(qy_os_page_size(), qy_align_up(entries * sizeof(*entry), qy_os_page_size()));
	if ((flags & QUARRY_RING_INCREMENTAL) && ring->pieces == NULL)
		ring->pieces = qy_own_calloc(s->head.count, sizeof(*ring->pieces));
	if (entry == NULL || !make_room(s) || ((flags & QUARRY_RING_INCREMENTAL) && ring->pieces == NULL)) {
		quarry_free(entry);
		return qy_fail(ENOMEM, "no memory for a ring of %u entries", entries);
	}
	memset(entry, 0, entries * sizeof(*entry));
	ring->fd = ring_fd;
	ring->process = qy_os->process_id();
	ring->group = (uint16_t)group;
	if (ask_kernel(ring, entry, entries, flags & QUARRY_RING_INCREMENTAL) != 0) {
		int number = errno;

		quarry_free(entry);
		return qy_fail(number, "the kernel refuses a ring of %u provided buffers", entries);
	}
	ring->entry = entry;
	qy_buffers_mode(s);
	ring->bundles = flags & QUARRY_RING_BUNDLES;
	ring->mask = entries - 1;
	ring->written = ring->tail = 0;
	qy_buffers_collect(s);
	for (unsigned n = 0; n < entries && qy_buffers_take(s, &id); n++) {
		qy_bit_set(ring->of, id);
		qy_ring_put(s, id);
	}
	qy_ring_tell(s);
	return 0;
}

/* What the kernel had only in part is the program's as far as pieces of it are out. */
static void take_home(struct qy_buffers *s, uint32_t id)
{
	struct qy_pieces *p = s->ring.incremental ? &s->ring.pieces[id] : NULL;
	uint32_t generation;

	qy_bit_clear(s->ring.has, id);
	if (p != NULL) {
		p->offset = 0;
		if (atomic_fetch_and_explicit(&p->out, ~QY_KERNELS, memory_order_acq_rel) & QY_PIECES_OUT)
			return;
		generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed);
		atomic_store_explicit(&s->generation[id], generation + (generation & 1), memory_order_relaxed);
	}
	qy_buffers_come_home(s, id);
}

QUARRY_API int quarry_ring_unregister(quarry_buffers *slab)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	struct ring_registration r = { 0 };
	struct qy_ring_entry *entry;

	if (s == NULL)
		return -1;
	entry = s->ring.entry;
	if (entry == NULL)
		return qy_fail(ENOENT, "slab: it has no ring");
	r.group = s->ring.group;
	/* An io_uring that has ended has let go of it; its descriptor may be none, or another's by now. */
	if (s->ring.process == qy_os->process_id() &&
	    qy_os->uring_register(s->ring.fd, UNREGISTER_PBUF_RING, &r, 1) < 0 && errno != EBADF &&
	    errno != EOPNOTSUPP && errno != ENOENT && errno != ENXIO && errno != EINVAL)
		return qy_fail(errno, "the kernel does not let go of the ring");
	s->ring.entry = NULL;
	qy_buffers_mode(s);
	qy_publish(s->ring.held, 0);
	memset(s->ring.of, 0, ((size_t)s->head.count + 63) / 64 * sizeof(uint64_t));
	for (uint32_t id = 0; id < s->head.count; id++)
		if (qy_bit(s->ring.has, id))
			take_home(s, id);
	quarry_free(entry);
	qy_buffers_collect(s); /* who waited for one that the ring had is served */
	return 0;
}

/* ---- completions ---- */

static void gone(struct qy_buffers *s, uint32_t id)
{
	qy_bit_clear(s->ring.has, id);
	qy_publish(s->ring.held, s->ring.held - 1);
}

/* The bit for the next piece. In a checked slab none is used twice, so that a late release is always known. */
static int choose(struct qy_buffers *s, struct qy_pieces *p)
{
	const uint64_t out = atomic_load_explicit(&p->out, memory_order_relaxed);

	for (int tries = 0, most = (int)qy_pieces(s); tries < most; tries++) {
		int bit = p->next;

		if (bit == most) {
			if (s->checked)
				return -1;
			bit = p->next = 0;
		}
		if (!(out >> bit & 1))
			return bit;
		p->next++;
	}
	return -1;
}

/* There is no bit left: small pieces then, of which a copy costs little. */
QY_COLD static bool copy_piece(struct qy_buffers *s, const void *from, uint32_t len, quarry_buffer *b)
{
	void *p = quarry_malloc(len != 0 ? len : 1);

	if (p == NULL)
		return false;
	qy_copy(p, from, len);
	*b = quarry_buffer_own(p, len);
	b->flags |= QUARRY_BUFFER_COPIED;
	b->generation = s->checked ? qy_owned_note(p) : 0;
	atomic_fetch_add_explicit(&s->copied, 1, memory_order_relaxed);
	return true;
}

/* A piece that was copied, and no other comes: nobody else may have the buffer by now. */
static void end_without_piece(struct qy_buffers *s, uint32_t id, struct qy_pieces *p)
{
	if (atomic_fetch_and_explicit(&p->out, ~QY_KERNELS, memory_order_acq_rel) & QY_PIECES_OUT)
		return;
	atomic_fetch_add_explicit(&s->generation[id], 1, memory_order_relaxed);
	qy_buffers_come_home(s, id);
}

/* (Of a completion of no bytes the kernel has used nothing, and fills the buffer on, though some from 6.12 to 6.19 do
 * not say so: if that were taken for its end, the buffer would come to stand in the ring twice. One that is full it fills
 * no more: what it says with MSG_TRUNC may be of the next.) */
static int take_piece(struct qy_buffers *s, uint32_t id, uint32_t len, bool more, quarry_buffer *b)
{
	struct qy_pieces *p = &s->ring.pieces[id];
	const bool first = !(atomic_load_explicit(&p->out, memory_order_relaxed) & QY_KERNELS);
	const uint32_t at = first ? 0 : p->offset;
	int bit;

	more = len == 0 || (more && len < s->head.size - at);
	if (first) {
		const uint32_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed) + 1;

		p->next = 0;
		p->offset = 0;
		atomic_store_explicit(&p->out, (uint64_t)generation << 32 | QY_KERNELS, memory_order_relaxed);
		qy_buffers_give(s, id, len, QUARRY_BUFFER_RING, b);
		qy_buffers_note(s, id);
	}
	bit = choose(s, p);
	if (bit < 0 && !copy_piece(s, (char *)quarry_buffers_at(&s->head, id) + at, len, b))
		return -1;
	if (bit >= 0) {
		p->next = (uint8_t)(bit + 1);
		atomic_fetch_or_explicit(&p->out, (uint64_t)1 << bit, memory_order_relaxed);
		*b = (quarry_buffer){ (char *)quarry_buffers_at(&s->head, id) + at, len, id,
			atomic_load_explicit(&s->generation[id], memory_order_relaxed) + s->seed,
			qy_buffer_flags(s, QUARRY_BUFFER_RING | QUARRY_BUFFER_PIECE, (unsigned)bit) };
	}
	p->offset = at + len;
	if (!more) {
		gone(s, id);
		if (bit >= 0)
			atomic_fetch_and_explicit(&p->out, ~QY_KERNELS, memory_order_relaxed);
		else
			end_without_piece(s, id, p);
	}
	return 0;
}

bool qy_ring_piece_out(struct qy_buffers *s, uint32_t id, unsigned piece)
{
	return s->ring.pieces != NULL && piece < qy_pieces(s) &&
	       (atomic_load_explicit(&s->ring.pieces[id].out, memory_order_relaxed) >> piece & 1);
}

/* No other is out. */
static bool is_last(const struct qy_buffers *s, uint64_t out, uint64_t bit)
{
	return (out & (((uint64_t)1 << qy_pieces(s)) - 1)) == bit;
}

bool qy_ring_piece_last(struct qy_buffers *s, uint32_t id, unsigned piece)
{
	return s->ring.pieces != NULL && piece < qy_pieces(s) &&
	       is_last(s, atomic_load_explicit(&s->ring.pieces[id].out, memory_order_relaxed), (uint64_t)1 << piece);
}

int qy_ring_piece_back(struct qy_buffers *s, uint32_t id, uint32_t generation, unsigned piece)
{
	const uint64_t bit = (uint64_t)1 << (piece & 31);
	_Atomic(uint64_t) *out;
	uint64_t was;

	if (s->ring.pieces == NULL || piece >= qy_pieces(s))
		return -EALREADY;
	out = &s->ring.pieces[id].out;
	was = atomic_load_explicit(out, memory_order_relaxed);
	do {
		if (was >> 32 != generation || !(was & bit))
			return -EALREADY;
		if (s->pins != NULL && (was & QY_PIECE_PINS) && is_last(s, was, bit))
			return -EBUSY;
	} while (!atomic_compare_exchange_weak_explicit(out, &was, was & ~bit, memory_order_acq_rel,
							memory_order_relaxed));
	return (uint32_t)was == bit;
}

QY_COLD static int no_buffer(struct qy_buffers *s, int32_t res)
{
	if (res != -ENOBUFS)
		return error(EAGAIN);
	qy_count(&s->starved, 1);
	qy_buffers_collect(s);
	return error(ENOBUFS);
}

/* How much of a buffer that the kernel has it has not filled, as of what completions said. */
static uint32_t room(const struct qy_buffers *s, uint32_t id)
{
	const struct qy_pieces *p = &s->ring.pieces[id];

	if (!s->ring.incremental || !(atomic_load_explicit(&p->out, memory_order_relaxed) & QY_KERNELS))
		return (uint32_t)s->head.size;
	return (uint32_t)s->head.size - p->offset;
}

/* More than the buffer has is a bundle, where there are such: quarry_ring_next is for those. Elsewhere it is what
 * MSG_TRUNC tells of a datagram, of which the rest is lost: the buffer is full, and the kernel has used no other. */
QY_COLD static bool shorten(const struct qy_buffers *s, uint32_t id, uint32_t *len)
{
	if (s->ring.bundles)
		return false;
	*len = room(s, id);
	return true;
}

QUARRY_API int quarry_ring_try_get(quarry_buffers *slab, int32_t res, uint32_t cqe_flags, quarry_buffer *buffer)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;
	const uint32_t id = cqe_flags >> CQE_BUFFER_SHIFT;
	uint32_t len = res > 0 ? (uint32_t)res : 0;

	if (QY_UNLIKELY(s == NULL || buffer == NULL))
		return error(EINVAL);
	if (QY_UNLIKELY(!qy_buffers_mine(s) || qy_buffers_is_none(s)))
		return error(qy_buffers_refusal(s));
	if (!(cqe_flags & CQE_BUFFER))
		return no_buffer(s, res);
	if (QY_UNLIKELY(s->ring.entry == NULL || id >= s->head.count || !qy_bit(s->ring.has, id)))
		return error(EINVAL);
	if (QY_UNLIKELY(len > room(s, id)) && !shorten(s, id, &len))
		return error(EINVAL);
	if (s->ring.incremental) {
		if (take_piece(s, id, len, cqe_flags & CQE_BUFFER_MORE, buffer) != 0)
			return -1;
	} else {
		gone(s, id);
		qy_buffers_give(s, id, len, QUARRY_BUFFER_RING, buffer);
		qy_buffers_note(s, id);
	}
	if (QY_UNLIKELY(s->low_water != 0) && !qy_bit(s->ring.has, id)) /* (more of it may be the kernel's yet) */
		qy_buffers_low(s, s->ring.held);
	return 0;
}

/* Of a bundle the kernel has filled each buffer to its end but the last, in the order in which it was given them. (What
 * stands in the ring's entries may be of a later round: it has read these.) */
QUARRY_API int quarry_ring_next(quarry_buffers *slab, int32_t *res, uint32_t *cqe_flags, quarry_buffer *buffer)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;
	uint32_t id, len, next;

	if (s == NULL || res == NULL || cqe_flags == NULL || buffer == NULL)
		return error(EINVAL);
	if (!qy_buffers_mine(s) || qy_buffers_is_none(s))
		return error(qy_buffers_refusal(s));
	id = *cqe_flags >> CQE_BUFFER_SHIFT;
	len = *res > 0 ? (uint32_t)*res : 0;
	if (!(*cqe_flags & CQE_BUFFER) || s->ring.entry == NULL || id >= s->head.count || !qy_bit(s->ring.has, id) ||
	    !s->ring.bundles || len <= room(s, id)) {
		if (quarry_ring_try_get(slab, *res, *cqe_flags, buffer) != 0)
			return -1;
		*res = 0;
		return 0;
	}
	next = s->ring.next[id];
	if (id == s->ring.last || !qy_bit(s->ring.has, next))
		return error(EINVAL);
	len = room(s, id);
	if (quarry_ring_try_get(slab, (int32_t)len, *cqe_flags & ~CQE_BUFFER_MORE, buffer) != 0)
		return -1;
	*res -= (int32_t)len;
	*cqe_flags = (*cqe_flags & ((1u << CQE_BUFFER_SHIFT) - 1)) | next << CQE_BUFFER_SHIFT;
	return 0;
}

QUARRY_API long quarry_ring_left(quarry_buffers *slab)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	struct ring_status status = { 0 };

	if (s == NULL)
		return -1;
	if (s->ring.entry == NULL)
		return qy_fail(ENOENT, "slab: it has no ring");
	if (s->ring.process != qy_os->process_id())
		return qy_fail(ENOENT, "slab: the ring is the parent's");
	status.group = s->ring.group;
	if (qy_os->uring_register(s->ring.fd, REGISTER_PBUF_STATUS, &status, 1) < 0)
		return qy_fail(errno, "the kernel does not tell how far it is");
	return (uint16_t)(s->ring.tail - status.head);
}
