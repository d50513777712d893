/* SPDX-License-Identifier: MIT */
/* A slab as registered (fixed) buffers of io_uring: a few entries of a sparse table, each a chunk of at most 1 GiB,
 * which is what the kernel takes as one. (The structs are io_uring_register(2)'s.) */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/buffers.h"
#include "numa/os.h"

#define REGISTER_BUFFERS2 15u       /* Linux 5.13 */
#define REGISTER_BUFFERS_UPDATE 16u
#define REGISTER_SPARSE 1u          /* Linux 5.19 */
#define REGISTER_CLONE_BUFFERS 30u  /* Linux 6.12, and since 6.13 of a part */
#define CLONE_REPLACE 2u
#define AT_ONCE 64u

struct table {
	uint32_t count;
	uint32_t flags;
	uint64_t reserved;
	uint64_t data, tags;
};

struct update {
	uint32_t first;
	uint32_t reserved;
	uint64_t data, tags;
	uint32_t count;
	uint32_t reserved2;
};

struct clone {
	uint32_t source;
	uint32_t flags;
	uint32_t from, to, count;
	uint32_t reserved[3];
};

_Static_assert(sizeof(struct table) == 32 && sizeof(struct update) == 32 && sizeof(struct clone) == 32,
	       "the kernel's structs");

static uint32_t chunks(const struct qy_buffers *s)
{
	return (uint32_t)((s->total + s->chunk - 1) / s->chunk);
}

/* An io_uring that has ended has let go of everything, and tells nobody. */
static bool has_ended(int error)
{
	return error == EBADF || error == EOPNOTSUPP || error == ENXIO;
}

/* Put chunks into an io_uring's entries, or (with empty) nothing. How many were done; fewer with errno. */
static uint32_t write_entries(struct qy_buffers *s, int fd, uint32_t count, bool empty)
{
	struct iovec iov[AT_ONCE];
	uint64_t tags[AT_ONCE];
	uint32_t done = 0;

	while (done < count) {
		const uint32_t n = (uint32_t)qy_min(AT_ONCE, count - done);
		struct update u = { .first = s->fixed.first + done, .data = (uintptr_t)iov, .tags = (uintptr_t)tags,
				    .count = n };
		int wrote;

		for (uint32_t i = 0; i < n; i++) {
			const uint64_t at = (uint64_t)(done + i) * s->chunk;

			iov[i] = empty ? (struct iovec){ NULL, 0 } :
				(struct iovec){ s->head.base + at, qy_min(s->chunk, s->total - at) };
			tags[i] = empty || s->fixed.tag == 0 ? 0 : s->fixed.tag + done + i;
		}
		wrote = qy_os->uring_register(fd, REGISTER_BUFFERS_UPDATE, &u, sizeof(u));
		if (wrote <= 0)
			break;
		done += (uint32_t)wrote; /* the one that it stopped at says why when it is asked for alone */
	}
	return done;
}

/* Said before the kernel is asked, so that no page is moved away that it is about to know. */
static void say_held(struct qy_buffers *s)
{
	__atomic_store_n(&s->fixed.held, chunks(s), __ATOMIC_SEQ_CST);
	qy_buffers_await(&s->moving);
}

/* So many chunks are the kernel's, and the next it has refused (errno). What it does not let go of now is the slab's to
 * unregister. */
static long take_back(struct qy_buffers *s, uint32_t done)
{
	int error = errno;
	bool all = write_entries(s, s->fixed.fd, done, true) == done;

	qy_publish(s->fixed.held, all ? 0 : done);
	return qy_fail(error, "the kernel has registered %u of %u chunks%s", (unsigned)done, (unsigned)chunks(s),
		       all ? "" : ", and does not let go of them");
}

QUARRY_API long quarry_fixed_register(quarry_buffers *slab, int ring_fd, unsigned table_size, unsigned first,
				      uint64_t tag)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	struct table table = { .count = table_size, .flags = REGISTER_SPARSE };
	uint32_t done;

	if (s == NULL)
		return -1;
	if (s->fixed.held != 0 || s->fixed.pending != 0)
		return qy_fail(EBUSY, "slab: it is registered already");
	if (table_size != 0 && (first >= table_size || chunks(s) > table_size - first))
		return qy_fail(EINVAL, "table_size: %u entries have no room for %u from %u on", table_size,
			       (unsigned)chunks(s), first);
	if (first > UINT16_MAX || chunks(s) - 1 > UINT16_MAX - first)
		return qy_fail(EINVAL, "first: a request cannot tell of all of %u entries from %u on",
			       (unsigned)chunks(s), first);
	if (table_size != 0 && qy_os->uring_register(ring_fd, REGISTER_BUFFERS2, &table, sizeof(table)) < 0)
		return qy_fail(errno, "the kernel refuses a sparse table of %u buffers", table_size);
	s->fixed.fd = ring_fd;
	s->fixed.process = qy_os->process_id();
	s->fixed.first = first;
	s->fixed.tag = tag;
	say_held(s);
	done = write_entries(s, ring_fd, chunks(s), false);
	s->fixed.pending = tag != 0 ? done : 0; /* what was done comes to an end with its tags, if it has some */
	if (done != chunks(s))
		return take_back(s, done);
	qy_publish(s->fixed.registered, true);
	return (long)done;
}

QUARRY_API int quarry_fixed_index(const quarry_buffers *slab, uint32_t id)
{
	const struct qy_buffers *s = (const struct qy_buffers *)slab;

	if (s == NULL || id >= s->head.count) {
		errno = EINVAL;
		return -1;
	}
	if (!qy_peek(s->fixed.registered)) {
		errno = ENOENT;
		return -1;
	}
	return (int)(s->fixed.first + (uint32_t)(id * s->head.size / s->chunk));
}

QUARRY_API int quarry_fixed_unregister(quarry_buffers *slab)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	uint32_t done;
	bool ours;

	if (s == NULL)
		return -1;
	if (s->fixed.held == 0)
		return qy_fail(ENOENT, "slab: it is not registered");
	ours = s->fixed.process == qy_os->process_id();
	if (ours && s->fixed.clones != 0)
		return qy_fail(EBUSY, "slab: %u other io_urings have it too", (unsigned)s->fixed.clones);
	s->fixed.clones = 0;
	qy_publish(s->fixed.registered, false);
	done = ours ? write_entries(s, s->fixed.fd, s->fixed.held, true) : 0;
	if (done != s->fixed.held) {
		if (ours && !has_ended(errno))
			return qy_fail(errno, "the kernel lets go of %u of %u chunks", (unsigned)done,
				       (unsigned)s->fixed.held);
		s->fixed.pending = 0;
	}
	qy_publish(s->fixed.held, 0);
	return 0;
}

QUARRY_API int quarry_fixed_let_go(quarry_buffers *slab, uint64_t user_data)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);

	if (s == NULL)
		return -1;
	if (s->fixed.tag == 0 || user_data - s->fixed.tag >= chunks(s) || s->fixed.pending == 0)
		return qy_fail(EINVAL, "user_data: it is none of the tags");
	return (int)--s->fixed.pending;
}

/* ---- shared with others ---- */

/* Which of the clones it is; how many there are where it is none. */
static uint32_t find_clone(const struct qy_buffers *s, int ring_fd)
{
	uint32_t i = 0;

	while (i < s->fixed.clones && s->fixed.clone[i] != ring_fd)
		i++;
	return i;
}

QUARRY_API int quarry_fixed_clone(quarry_buffers *slab, int ring_fd, unsigned flags)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	struct clone c = { .flags = flags & QUARRY_FIXED_REPLACE ? CLONE_REPLACE : 0 };

	if (s == NULL)
		return -1;
	if (flags & ~(unsigned)QUARRY_FIXED_REPLACE)
		return qy_fail(EINVAL, "flags: unknown bits in 0x%x", flags);
	if (!s->fixed.registered || s->fixed.process != qy_os->process_id())
		return qy_fail(ENOENT, "slab: it is not registered");
	if (ring_fd == s->fixed.fd || find_clone(s, ring_fd) < s->fixed.clones)
		return qy_fail(EEXIST, "ring_fd: that io_uring has it already");
	if (s->fixed.clones == QUARRY_FIXED_CLONES_MAX)
		return qy_fail(EAGAIN, "slab: %d other io_urings have it already", QUARRY_FIXED_CLONES_MAX);
	c.source = (uint32_t)s->fixed.fd;
	c.from = c.to = s->fixed.first;
	c.count = s->fixed.held;
	if (qy_os->uring_register(ring_fd, REGISTER_CLONE_BUFFERS, &c, 1) < 0)
		return qy_fail(errno, "the kernel does not share %u entries from %u on", (unsigned)c.count,
			       (unsigned)c.from);
	s->fixed.clone[s->fixed.clones++] = ring_fd;
	return 0;
}

QUARRY_API int quarry_fixed_unclone(quarry_buffers *slab, int ring_fd)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	uint32_t i;

	if (s == NULL)
		return -1;
	i = find_clone(s, ring_fd);
	if (i == s->fixed.clones)
		return qy_fail(ENOENT, "ring_fd: that io_uring does not have it");
	if (s->fixed.process == qy_os->process_id() &&
	    write_entries(s, ring_fd, s->fixed.held, true) != s->fixed.held && !has_ended(errno))
		return qy_fail(errno, "the kernel does not let go of all chunks");
	s->fixed.clone[i] = s->fixed.clone[--s->fixed.clones];
	return 0;
}
