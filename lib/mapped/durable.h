/* SPDX-License-Identifier: MIT */
/* Durable heaps: the live image, which sessions share, is memory with a descriptor; the file has versions of it, as checkpoints
 * left them. Nothing that a version consists of is written over while one of the two superblocks lists it, so whatever a loss of
 * power leaves of what was under way, the newest superblock that has its checksum leads to one whole version.
 *
 * The file, in slots of 4 KiB:
 *
 *	0, 1     superblocks: that of the heap (mapped.h), and the versions that are kept, the newest first
 *	2 to 65  how a process finds the live image: a record for each session, which counts while the session's byte is locked
 *	66 on    pages of the image, and nodes: 512 references each, a slot and the CRC-32C of what is in it. Four roots lead to
 *	         nodes of nodes of leaves, whose references are of pages. Slot 0: a page of zeros.
 *
 * So the checksum of a superblock is one of all that it leads to, and pages that did not change are shared by versions.
 *
 * The live image has, behind the heap, a side: the gate, sessions as page tables know them, which pages changed. It is no part
 * of a version.
 *
 * What is true. A page of which neither the side's bits, nor a session's page tables, nor the checkpoint that is under way says
 * that it was written, is as in the newest version; unless `suspect` is set: a session has died with what its page tables said.
 *
 * There is one live image. Who has a byte of the file locked for a session has the same one of the image; another image is made from a
 * version only where no byte of the file is locked, and then nobody begins a session of the old one any more: neither who opens, since
 * the file leads him to the new one, nor a forked child whose parent is gone, which looks (qy_durable_begin_in_child). All of that under
 * the file's OPEN.
 *
 * Locks, in this order: OPEN of the file (durable.c), the process's registry (session.c), the heap's `busy` (threads of a process) and the
 * file's CHECKPOINT byte (processes), the gate, OPEN of the live image, the heap's lock. */
#ifndef QUARRY_MAPPED_DURABLE_H
#define QUARRY_MAPPED_DURABLE_H

#include "lib/mapped/mapped.h"
#include "numa/os.h"

/* Points of these files, for a test that has durable heaps (mapped.h, QY_POINT). */
#if QY_MAPPED_POINTS
#define QY_DURABLE_POINT() QY_POINT_IN("qy_durable_points")
#else
#define QY_DURABLE_POINT() ((void)0)
#endif

#define QY_PAGE_SHIFT 12
#define QY_PAGE ((uint64_t)1 << QY_PAGE_SHIFT)
#define QY_FINDERS_AT (2 * QY_PAGE)
#define QY_SLOT_FIRST 66u
#define QY_VERSIONS 32u /* in a superblock: the current one, and old ones */
#define QY_FAN 512u
#define QY_LEVELS 3 /* of nodes: 0 is a leaf */
#define QY_ROOTS 4u
#define QY_LIVE_PAGE (QY_MAPPED_LIVE_AT / QY_PAGE)
#define QY_LOCK_CHECKPOINT (QY_MAPPED_LOCK_OPEN + 2)

/* ---- in the file ---- */

struct qy_ref {
	uint32_t slot, crc;
};

struct qy_node {
	struct qy_ref of[QY_FAN];
};

struct qy_version {
	uint64_t number, end, made; /* end: bytes of the heap; made: wall clock */
	struct qy_ref root[QY_ROOTS];
};

struct qy_durable_sb {
	struct qy_mapped_sb sb;
	char magic[8];
	uint32_t crc; /* CRC-32C of the page, this field as 0 */
	uint32_t count, keep;
	uint32_t pad;
	uint64_t sequence;
	struct qy_version version[QY_VERSIONS];
	char rest[4096 - sizeof(struct qy_mapped_sb) - 32 - QY_VERSIONS * sizeof(struct qy_version)];
};
_Static_assert(sizeof(struct qy_durable_sb) == QY_PAGE && sizeof(struct qy_node) == QY_PAGE, "each is a page");

struct qy_finder {
	uint64_t pid, pid_space, fd;
	char boot[40];
};
_Static_assert(sizeof(struct qy_finder) == 64, "64 pages have 4096 of them");

/* ---- beside the live image ---- */

/* How a session's page tables are asked. */
enum { QY_TRACK_NONE, QY_TRACK_ASKED, QY_TRACK_NOT };
struct qy_side_session {
	uint64_t state; /* above: no session, one whose pages are known, one whose pages are not */
	uint64_t pid, pid_space, base;
};

struct qy_side_lane {
	uint64_t inside; /* its thread is between enter and leave */
	uint64_t pad[7];
};

struct qy_side {
	uint32_t gate;     /* 0: open; else who closed it (gate.c). Who waits sleeps on it */
	uint32_t times;    /* it was closed */
	uint32_t suspect;
	uint32_t settled;  /* the superblock at `place`, with `sequence`, is known to be on the disk */
	uint32_t place;
	uint32_t tried_crc;
	uint64_t sequence; /* the file had it, and this image came from it, or made it */
	uint64_t uuid[2];
	uint64_t tried;    /* a later one that this image may have written, with `tried_crc`. What else is later is another image's */
};

/* ---- of a process ---- */

struct qy_slots {
	uint64_t *bits, count; /* taken ones; count is a multiple of 64 */
	uint64_t next;         /* none is free below */
	uint64_t most;         /* so many the file has, */
	uint64_t left;         /* and so many a version may have yet, while it is looked at */
};

/* The newest version, as flat tables. */
struct qy_tree {
	struct qy_ref *page, *node[2]; /* pages; leaves; nodes of leaves */
	struct qy_ref root[QY_ROOTS];
	uint64_t pages;                /* there is room for, a multiple of QY_FAN; leaves: qy_tree_leaves */
};

struct qy_durable {
	int fd, out;   /* the file: with this process's locks; another description of it, without any, handed to others */
	struct qy_link opening; /* before there is a heap that has it (durable.c) */
	int track;     /* what has the kernel note writes, or -1 */
	struct qy_side *side;
	struct qy_side_session *sessions;
	struct qy_side_lane *lanes;
	uint64_t *bits;
	size_t side_len;
	uint64_t side_at;
	uint64_t max_pages;
	int pagemap;           /* of this process */
	pthread_mutex_t busy;  /* one checkpoint of this process at a time, and all below */
	bool known;            /* tree, slots and sb are as the file has them */
	struct qy_durable_sb sb;
	struct qy_tree tree;
	struct qy_slots slots;
};

/* What is written to the file: in batches of slots in a row. */
#define QY_BATCH 256u
struct qy_writer {
	int fd, error;
	char *buffer;
	uint32_t first, count;
	uint64_t bytes;
};

/* ---- image.c: versions in the file ---- */

uint32_t qy_page_crc(const void *page);
/* Both superblocks; valid[i] where it has its checksum. The newest one's place, or -1 with errno and text. */
int qy_durable_sb_read(int fd, struct qy_durable_sb sb[2], bool valid[2]);
/* Whether a superblock is of the heap that sb, which was checked, is of, in all its numbers. */
bool qy_durable_is_of(const struct qy_durable_sb *d, const struct qy_mapped_sb *sb);
bool qy_durable_same(const struct qy_mapped_sb *a, const struct qy_mapped_sb *b);
/* Whether that may be the file's newest superblock, where the live image that `side` is of is the only one. */
bool qy_durable_is_own(const struct qy_side *side, const struct qy_durable_sb *newest);
void qy_durable_sb_seal(struct qy_durable_sb *sb); /* its checksums, when all else is said */
int qy_durable_sb_write(int fd, const struct qy_durable_sb *sb, uint32_t place);
int qy_ref_read(int fd, struct qy_ref ref, void *page); /* -1 with errno where it does not have its checksum */
uint64_t qy_tree_leaves(const struct qy_tree *t); /* there is room for, a multiple of QY_FAN */
bool qy_tree_reserve(struct qy_tree *t, uint64_t pages);
int qy_tree_read(int fd, const struct qy_version *v, struct qy_tree *t);
void qy_tree_free(struct qy_tree *t);
int qy_tree_restore(int fd, const struct qy_tree *t, uint64_t pages, char *to);
/* Slots of all that version a consists of and version b does not (NULL: none): taken, or given back. */
int qy_slots_mark(struct qy_slots *s, int fd, const struct qy_version *a, const struct qy_version *b, bool taken);
uint32_t qy_slot_take(struct qy_slots *s); /* 0 with errno */
void qy_slot_back(struct qy_slots *s, uint32_t slot);
void qy_slots_free(struct qy_slots *s);
void qy_writer_put(struct qy_writer *w, uint32_t slot, const void *page);
int qy_writer_flush(struct qy_writer *w); /* -1 with errno, also of what failed before */

/* ---- dirty.c: which pages were written ---- */

/* Bits of pages, of as many as the heap can have. */
QY_INLINE bool qy_bit(const uint64_t *bits, uint64_t i)
{
	return (bits[i / 64] >> i % 64 & 1) != 0;
}

QY_INLINE void qy_bit_set(uint64_t *bits, uint64_t i)
{
	bits[i / 64] |= (uint64_t)1 << i % 64;
}

/* (qy_dirty_arm: once it is mapped, and nothing was written by that mapping; qy_dirty_note: changed otherwise than by stores, bytes from the
 * base; qy_dirty_died: the heap's lock is held.) */
void qy_dirty_publish(struct heap *h); /* its session's number is known; the heap's lock is held, or nobody else is there */
/* Descriptors by which sessions are asked, opened when they are first. */
struct qy_asked {
	int *pagemap; /* by session: -1 not yet */
	struct qy_page_range *ranges;
};
bool qy_asked_open(const struct heap *h, struct qy_asked *asked);
void qy_asked_close(const struct heap *h, struct qy_asked *asked);
/* Pages below `pages` that were written since this was called last, by whomever, into bits as well. False where somebody's cannot be
 * known: then each page may be one. */
bool qy_dirty_gather(struct heap *h, struct qy_asked *asked, uint64_t *bits, uint64_t pages);

/* ---- gate.c ---- */

/* All sections are over, none begins, and the heap's lock is held. -1 with errno: it is open. */
int qy_gate_close(struct heap *h);
void qy_gate_open(struct heap *h);

/* ---- cut.c: which pages of which bytes a version is to have ---- */

struct qy_cut {
	struct heap *h;
	struct qy_asked asked;
	uint64_t *round, *taken, *own; /* bits: written since the last look; all of those; with a slot of this checkpoint's */
	uint32_t *where;               /* by page: its copy's number + 1 */
	uint64_t pages;                /* there is room for */
	char **chunk;                  /* copies, QY_BATCH a piece */
	uint32_t *page_of;             /* by copy */
	uint32_t copies, room, chunks_most;
	uint64_t end;                  /* bytes of the heap, at the cut */
	uint64_t data_at; /* where the live image has data next, as far as is known */
	bool at_gate;
	uint64_t changed;              /* pages with another content than before */
	uint64_t stopped_ns;
	uint32_t rounds;
	bool compared;                 /* at the gate, all pages */
	bool was_suspect;
	struct qy_writer out;
};

int qy_cut_make(struct qy_cut *c, struct heap *h); /* -1 with errno; the gate is open again in any case */
int qy_cut_write(struct qy_cut *c);                /* copies go to slots; the tree has them */
void qy_cut_undo(struct qy_cut *c);                /* all of it is to be in the next one */
void qy_cut_end(struct qy_cut *c);

/* ---- durable.c ---- */

uint64_t qy_side_bytes(const struct qy_mapped_sb *sb, uint64_t at[3]);

#endif
