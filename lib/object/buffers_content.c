/* SPDX-License-Identifier: MIT */
/* What is in buffers: received without io_uring, copied in and out, kept for good. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/object/buffers.h"
#include "lib/object/copy.h"
#include "lib/object/manager.h"
#include "numa/os.h"

#define RECEIVE_MAX 64u
#define MOVES_MAX 8192u /* each may leave two mappings behind, and the process has 65530 by default */

/* ---- received ---- */

/* Buffers that were taken for a call that may not come back. */
struct taken {
	quarry_buffer *buffers;
	unsigned n;
};

/* The last first, so that the next call begins where this one would have gone on. */
static void put_back(void *arg)
{
	struct taken *t = arg;

	while (t->n > 0)
		quarry_buffer_release(t->buffers[--t->n]);
}

/* A thread that is cancelled in the call is the owner to its end: what it had taken goes back by the short way. (The
 * address sanitizer leaves this function alone: that of gcc 12 ends the process where a cancelled thread is led back to
 * a frame that it looks after.) */
__attribute__((no_sanitize_address)) static ssize_t receive_into(int fd, struct iovec *iov, struct taken *t, int flags)
{
	ssize_t got;

	pthread_cleanup_push(put_back, t);
	got = qy_os->receive_into(fd, iov, t->n, flags);
	pthread_cleanup_pop(0);
	return got;
}

QUARRY_API ssize_t quarry_buffers_receive(quarry_buffers *slab, int fd, quarry_buffer *buffers, unsigned max, int flags)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;
	struct iovec iov[RECEIVE_MAX];
	struct taken t = { .buffers = buffers };
	unsigned used = 0, n;
	ssize_t got, left;
	uint32_t id;
	int error;

	if (s == NULL || buffers == NULL || max == 0 || max > RECEIVE_MAX) {
		errno = EINVAL;
		return -1;
	}
	if (!qy_buffers_mine(s) || qy_buffers_is_none(s)) {
		errno = qy_buffers_refusal(s);
		return -1;
	}
	/* (Whether they are few is told when it is known which of these stay.) */
	while (t.n < max && qy_buffers_take_any(s, &id)) {
		qy_buffers_give(s, id, (uint32_t)s->head.size, QUARRY_BUFFER_SLAB, &buffers[t.n]);
		qy_buffers_note(s, id);
		iov[t.n] = quarry_buffer_iovec(buffers[t.n]);
		t.n++;
	}
	if (t.n == 0) {
		errno = ENOBUFS;
		return -1;
	}
	got = receive_into(fd, iov, &t, flags);
	error = errno;
	/* (More than there is room for is what MSG_TRUNC tells of a datagram: the rest of it is lost.) */
	for (left = got, n = t.n; left > 0 && used < n; used++) {
		buffers[used].len = (uint32_t)qy_min((size_t)left, s->head.size);
		left -= buffers[used].len;
	}
	t = (struct taken){ buffers + used, n - used };
	put_back(&t);
	for (const uint32_t rest = qy_buffers_free(s); s->low_water != 0 && used > 0;)
		qy_buffers_low(s, rest + --used);
	errno = error;
	return got;
}

/* ---- copied ---- */

/* Whether what is in it is the program's, and somewhere; else errno. */
static bool usable(quarry_buffer b)
{
	if (b.p == NULL && b.len != 0)
		errno = EINVAL;
	else if (b.p == NULL && (b.flags & (QUARRY_BUFFER_OWNED | QUARRY_BUFFER_BORROWED)))
		return true;
	return quarry_buffer_check(b) != NULL;
}

QUARRY_API ssize_t quarry_buffer_copy_in(quarry_buffer b, uint32_t at, const void *from, size_t len)
{
	if (!usable(b))
		return -1;
	if (from == NULL && len != 0) {
		errno = EINVAL;
		return -1;
	}
	if (at > b.len || len > b.len - at) {
		errno = ERANGE;
		return -1;
	}
	if (len != 0)
		qy_copy((char *)b.p + at, from, len);
	return (ssize_t)len;
}

QUARRY_API ssize_t quarry_buffer_copy_out(void *to, size_t room, const quarry_buffer *buffers, size_t count)
{
	size_t total = 0;

	if ((buffers == NULL && count != 0) || (to == NULL && room != 0)) {
		errno = EINVAL;
		return -1;
	}
	for (size_t i = 0; i < count; i++) {
		if (!usable(buffers[i]))
			return -1;
		total += buffers[i].len;
		if (total > room) {
			errno = ERANGE;
			return -1;
		}
	}
	for (size_t i = 0, at = 0; i < count; at += buffers[i++].len)
		if (buffers[i].len != 0)
			qy_copy((char *)to + at, buffers[i].p, buffers[i].len);
	return (ssize_t)total;
}

/* ---- kept ---- */

static _Atomic(uint32_t) moves;

static bool may_move(struct qy_buffers *s, quarry_buffer b, void *block)
{
	const size_t page = qy_os_page_size();
	int error = errno;

	if ((b.flags & QUARRY_BUFFER_PIECE) || b.len <= page || s->head.size % page != 0 ||
	    ((uintptr_t)b.p | (uintptr_t)s->head.base | (uintptr_t)block) % page != 0 ||
	    (char *)b.p != (char *)quarry_buffers_at(&s->head, b.id))
		return false;
	/* A device that has the page by its address in memory would write to it on. */
	if (__atomic_load_n(&s->fixed.held, __ATOMIC_SEQ_CST) != 0 || qy_peek(s->fixed.pending) != 0)
		return false;
	if (atomic_load_explicit(&moves, memory_order_relaxed) >= MOVES_MAX)
		return false;
	if (quarry_fd_of(block, NULL) >= 0) /* others see the file, and not what would be put in its place */
		return false;
	errno = error;
	return true;
}

/* A move that failed may have unmapped its target before. */
static void map_anew(void *at, size_t len)
{
	qy_os->mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/* Have the pages of a buffer at a block, and the block's policy for those that come. By way of a place of the kernel's
 * choice, since only that way something stays mapped where they were. False: what is in the buffer is in it still. */
static bool move_pages(struct qy_buffers *s, void *from, void *to)
{
	unsigned long mask[QUARRY_NODES_MAX / 64] = { 0 };
	const size_t len = s->head.size;
	int mode = 0, error = errno;
	void *between;
	long told = qy_os->get_mempolicy(&mode, mask, QUARRY_NODES_MAX, to, QY_MPOL_F_ADDR);

	between = qy_os->mremap_away(from, len, NULL);
	if (between == MAP_FAILED) {
		errno = error;
		return false;
	}
	if (qy_os->mremap_to(between, len, to) == MAP_FAILED) {
		/* Back again. What would not even go back is copied, and its pages end with the place. */
		map_anew(to, len);
		if (qy_os->mremap_to(between, len, from) == MAP_FAILED) {
			map_anew(from, len);
			memcpy(from, between, len);
			qy_os->munmap(between, len);
		}
		errno = error;
		return false;
	}
	if (told == 0)
		qy_os->mbind(to, len, mode, mode == QY_MPOL_DEFAULT ? NULL : mask,
			     mode == QY_MPOL_DEFAULT ? 0 : QUARRY_NODES_MAX, 0);
	/* At once (Linux 5.14), rather than page by page when the kernel receives into it. */
	qy_os->madvise(from, len, QY_MADV_POPULATE_WRITE);
	atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed);
	errno = error;
	return true;
}

/* Counted before it looks whether the kernel has the page, which whoever registers it says before that waits for those
 * who are counted. */
static bool try_to_move(struct qy_buffers *s, quarry_buffer b, void *block)
{
	bool moved;

	atomic_fetch_add_explicit(&s->moving, 1, memory_order_seq_cst);
	moved = may_move(s, b, block) && move_pages(s, b.p, block);
	atomic_fetch_sub_explicit(&s->moving, 1, memory_order_release);
	return moved;
}

/* The buffer is this thread's alone, claimed. How it got into the block. */
static unsigned move_or_copy(struct qy_buffers *s, quarry_buffer b, void *block, bool movable)
{
	if (movable && try_to_move(s, b, block)) {
		atomic_fetch_add_explicit(&s->moved, 1, memory_order_relaxed);
		return QUARRY_BUFFER_MOVED;
	}
	qy_copy(block, b.p, b.len);
	atomic_fetch_add_explicit(&s->copied, 1, memory_order_relaxed);
	return QUARRY_BUFFER_COPIED;
}

/* The block is there before the buffer is claimed, so that nothing can fail after that. Of a piece it is the release
 * that claims: it is copied before, and what was copied of another's is nobody's. 0; EALREADY: somebody else has it;
 * EBUSY: it is pinned. */
static int adopt(struct qy_buffers *s, quarry_buffer b, void *block, bool movable, unsigned *how)
{
	int error;

	if (b.flags & QUARRY_BUFFER_PIECE) {
		*how = move_or_copy(s, b, block, false);
		return quarry_buffer_release(b) == 0 ? 0 : errno;
	}
	error = qy_buffers_claim(s, b.id, b.generation - s->seed);
	if (error != 0)
		return error;
	*how = move_or_copy(s, b, block, movable);
	qy_buffers_send_claimed(s, b.id);
	return 0;
}

QUARRY_API int quarry_buffer_adopt(quarry_buffer *buffer, quarry_arena *arena, unsigned flags)
{
	const size_t page = qy_os_page_size();
	struct qy_buffers *s;
	void *block = NULL;
	bool movable, checked;
	quarry_buffer b;
	unsigned how;
	int error;

	if (buffer == NULL || (flags & ~(unsigned)QUARRY_ADOPT_COPY))
		return qy_fail(EINVAL, buffer == NULL ? "buffer: there is none" : "flags: unknown bits");
	b = *buffer;
	if (b.flags & QUARRY_BUFFER_BORROWED)
		return qy_fail(EINVAL, "buffer: it is borrowed");
	if (b.flags & QUARRY_BUFFER_OWNED)
		return b.generation != 0 && qy_owned_is_entered(qy_owned_begin(b.p, b.id), b.generation) ?
			       qy_fail(EBUSY, "buffer: a chain has it") :
			       0;
	if (arena != NULL && !qy_manager_is_arena(arena))
		return qy_fail_arena(arena);
	if (quarry_buffer_check(b) == NULL)
		return qy_fail(errno, errno == ESTALE ? "buffer: it was released" : "buffer: it is of no slab");
	s = atomic_load_explicit(&qy_buffers_table[qy_buffer_slab(b.flags)], memory_order_acquire);
	checked = s->checked;
	if (qy_buffers_is_chained(s, b.id, b.generation - s->seed,
				  b.flags & QUARRY_BUFFER_PIECE ? qy_chained_piece(qy_buffer_piece(b.flags)) : QY_CHAINED_WHOLE))
		return qy_fail(EBUSY, "buffer: a chain has it");
	if (s->pins != NULL && qy_buffers_pinned(s, b.id, b.generation - s->seed) &&
	    (!(b.flags & QUARRY_BUFFER_PIECE) || qy_ring_piece_last(s, b.id, qy_buffer_piece(b.flags))))
		return qy_fail(EBUSY, "buffer: it is pinned");
	/* As large as a buffer where its pages can be moved. */
	movable = s->head.size % page == 0 && b.len > page && !(flags & QUARRY_ADOPT_COPY);
	if (movable)
		block = quarry_arena_aligned_alloc(arena, page, s->head.size);
	if (block == NULL) {
		movable = false;
		block = quarry_arena_malloc(arena, b.len != 0 ? b.len : 1);
	}
	if (block == NULL)
		return qy_fail(ENOMEM, "no memory for a block of %u bytes", (unsigned)b.len);
	error = adopt(s, b, block, movable, &how);
	if (error != 0) {
		quarry_free(block);
		return error == EBUSY ? qy_fail(EBUSY, "buffer: it is pinned") : qy_fail(ESTALE, "buffer: it was released");
	}
	*buffer = quarry_buffer_own(block, b.len);
	buffer->flags |= how;
	buffer->generation = checked ? qy_owned_note(block) : 0;
	return 0;
}
