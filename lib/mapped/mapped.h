/* SPDX-License-Identifier: MIT */
/* Heaps in files and between processes: what stands in the file, and what a process has of it.
 *
 * The file: a head, then segments of 32 MiB, each with its own notes in front.
 *
 *	0        superblocks A and B, 4 KiB each: what never changes but the sequence; the newest with its checksum counts
 *	8 KiB    live page: the heap's lock, the redo record, how many segments there are
 *	         sessions, lanes, roots, the user area, the table of segments; the head ends at a multiple of 2 MiB
 *	segment  a record of 64 bytes for each unit of 64 KiB; two bitmaps of 512 bytes for each (free, and freed by
 *	         others); which units are free. 9 units of the 512.
 *
 * What is true. A unit is free iff its bit in the segment's map is set; else the record of the first unit of its run
 * says what it is. A small object is free iff its bit is set in its slab's own map or in the map of what others
 * freed. All else (lists of slabs with room, counts, hints) can be made from that.
 *
 * A process dies between two instructions, and what it stored before is in memory, in the order of the program: the
 * page cache outlives it. So a change of one word needs nothing. A change of several is written down first, in the redo
 * record, and done again by whoever gets the lock after its holder's death: only absolute values and bits set, on words that nobody else
 * changes without the lock, or (bits that others freed) that nobody takes away without it.
 *
 * A slab belongs to a lane, a lane to a thread of a session, or to nobody. Its own map is written by that thread alone,
 * by plain stores. Others set bits in the second map, atomically; the owner takes them over under the lock.
 *
 * Locks, in this order: the process's registry (session.c), the heap's lock (redo.c). No callback under either, but for
 * quarry_mapped_walk's and the collector's, for which nobody may use the heap. */
#ifndef QUARRY_MAPPED_MAPPED_H
#define QUARRY_MAPPED_MAPPED_H

#include <pthread.h>

#include "include/quarry/mapped.h"
#include "lib/base/base.h"

#define QY_MAPPED_VERSION 1u
#define QY_MAPPED_UNIT_SHIFT 16
#define QY_MAPPED_UNIT ((uint64_t)1 << QY_MAPPED_UNIT_SHIFT)
#define QY_MAPPED_SEG_SHIFT 25
#define QY_MAPPED_SEG ((uint64_t)1 << QY_MAPPED_SEG_SHIFT)
#define QY_MAPPED_SEG_UNITS 512u
#define QY_MAPPED_META_UNITS 9u
#define QY_MAPPED_MAX ((uint64_t)1 << 40)
#define QY_MAPPED_SB 4096u
#define QY_MAPPED_LIVE_AT (2 * QY_MAPPED_SB)
#define QY_MAPPED_CLASSES 40u
#define QY_MAPPED_SMALL 32768u
#define QY_MAPPED_BITS_AT ((uint64_t)QY_MAPPED_SEG_UNITS * 64)
#define QY_MAPPED_SEGHEAD_AT (QY_MAPPED_BITS_AT + (uint64_t)QY_MAPPED_SEG_UNITS * 1024)
#define QY_MAPPED_REDO 144u /* the most: a set of 12 words, 12 blocks reserved, and 12 freed, of 9 words each */
#define QY_MAPPED_BROKEN ((uint64_t)1 << 63) /* among bad classes: all of them */
#define QY_MAPPED_RESERVED 16u
#define QY_MAPPED_WALK_MOST 4096u /* slabs of a lane that are looked at in one go under the heap's lock: a millisecond */

/* Places of locks of the open file description: behind all data. */
#define QY_MAPPED_LOCK_OPEN ((uint64_t)1 << 60)
#define QY_MAPPED_LOCK_READ (QY_MAPPED_LOCK_OPEN + 1)
#define QY_MAPPED_LOCK_SESSION (QY_MAPPED_LOCK_OPEN + 16)

/* Features. Incompatible ones: who does not know one must not open it at all. */
#define QY_MAPPED_INCOMPAT_DURABLE 1u /* a file of versions (durable.h), or the live image of one */
#define QY_MAPPED_INCOMPAT_KNOWN QY_MAPPED_INCOMPAT_DURABLE
#define QY_MAPPED_RO_COMPAT_KNOWN 0u

/* ---- in the file ---- */

struct qy_mapped_sb {
	char magic[8];
	uint32_t crc; /* CRC-32C of all of it, this field as 0 */
	uint32_t version;
	uint64_t sequence;
	uint32_t incompat, ro_compat, compat, mode, flags;
	uint32_t abi; /* sizeof(pthread_mutex_t), and of a pointer */
	uint8_t uuid[16];
	uint64_t max_bytes, head_bytes;
	uint32_t sessions, lanes, roots, user_bytes;
	uint64_t clean; /* not 0: the last session closed it */
	char boot[40];
};

struct qy_mapped_redo_entry {
	uint64_t at; /* bytes from the base; bit 0: set bits, else store */
	uint64_t value;
};

struct qy_mapped_live {
	union {
		pthread_mutex_t mutex;
		char room[128];
	} lock;
	uint64_t run, segments;
	uint64_t end;         /* bytes of the file that are in use */
	uint64_t bad_classes; /* a bit for each; QY_MAPPED_BROKEN where it is all of it, and then broken is not 0 */
	uint64_t broken;
	uint64_t hint;        /* no segment below has a free unit, as far as is known */
	uint64_t recovered, recovered_locks, replayed;
	uint64_t on_node;     /* the node that its memory is bound to, + 1 */
	uint64_t reserved[6];
	uint64_t redo_count;  /* not 0: the record holds, and has to be done */
	uint64_t redo_check;
	struct qy_mapped_redo_entry redo[QY_MAPPED_REDO];
};

struct qy_mapped_session {
	uint64_t state; /* 0: none; else the run that it began in */
	uint64_t pid;
	uint64_t space; /* its PID namespace, or 0: not known */
	uint64_t began; /* how often: who refers to a session says which */
	uint64_t reserved[4];
};

/* Who refers to a session says when it was begun as well: session + 1 in 13 bits, how often its place was begun in 29, above 22 that are
 * the referrer's own. */
#define QY_OWNER_SHIFT 22
QY_INLINE uint64_t qy_session_owner(const struct qy_mapped_session *sessions, uint32_t session)
{
	return ((uint64_t)session + 1) << QY_OWNER_SHIFT | (__atomic_load_n(&sessions[session].began, __ATOMIC_ACQUIRE) & 0x1fffffff) << 35;
}

/* A lane's state: whose it is. */
#define QY_LANE_FREE 0u
#define QY_LANE_IDLE 1u /* nobody's, with slabs */
#define QY_LANE_OF(session) ((uint64_t)(session) + 2)

struct qy_mapped_lane {
	uint64_t state;
	uint64_t remote; /* hint: a bit for each class in which others freed enough */
	uint64_t reserved_count;
	uint64_t slab_count; /* hint */
	uint64_t pad[4];
	uint64_t reserved[QY_MAPPED_RESERVED]; /* offsets of sets that are not published */
	uint64_t slabs[QY_MAPPED_CLASSES];     /* the first unit of each list; 0: none */
	uint32_t freed[QY_MAPPED_CLASSES];     /* hint: by others, since it was looked at */
	char rest[2048 - 64 - 8 * QY_MAPPED_RESERVED - 12 * QY_MAPPED_CLASSES];
};

struct qy_mapped_root {
	uint64_t state; /* enum below in the low byte, tag in the high half */
	quarry_off value;
	uint64_t changes; /* odd while value and state are being written; another one afterwards */
	uint64_t pad[5];
	char name[QUARRY_MAPPED_NAME];
};
enum { QY_ROOT_NEVER, QY_ROOT_USED, QY_ROOT_GONE };

/* A unit's record. state: kind, class << 8, owner (lane + 1) << 16, units << 32; of what is not the first unit of its
 * run: QY_UNIT_TAIL and how far back that is, which counts only where that one's run reaches here. */
struct qy_mapped_unit {
	uint64_t state;
	uint64_t next, prev; /* units of the lane's list */
	uint64_t with_room;  /* the owner's own list, by its hand alone */
	uint64_t listed;     /* the same: it is in that list, or is being taken from */
	uint64_t pad[3];
};
enum { QY_UNIT_FREE, QY_UNIT_SLAB, QY_UNIT_BLOCK, QY_UNIT_TAIL };

struct qy_mapped_seghead {
	uint64_t born;    /* units that are memory */
	uint64_t punched; /* not 0: free ones may be holes */
	uint64_t free[QY_MAPPED_SEG_UNITS / 64];
};

/* The table of segments: kind, units << 32 of a block of many. */
enum { QY_SEG_NONE, QY_SEG_UNITS, QY_SEG_BLOCK, QY_SEG_TAIL, QY_SEG_FREE };

/* ---- of a process ---- */

/* Where the thread takes objects of a class from: the word of the map that it is at. */
struct qy_mapped_bin {
	uint64_t *word;
	char *at; /* the object of the word's bit 0 */
	uint32_t size, index;
	uint64_t unit, room; /* the slab's, or 0; and the list of those with room */
};

struct qy_mapped_class {
	uint32_t size, recip, limit, units; /* limit: count * size */
};

struct heap;

/* A thread's part in a heap. It is the thread's, which frees it; heap is NULL once the heap is closed. */
struct qy_mapped_local {
	struct heap *heap;
	char *lane_at; /* (of the file) */
	uint32_t owner; /* lane + 1 */
	uint32_t in_set;
	uint32_t inside; /* sections, one in another (gate.c) */
	struct qy_mapped_local *next; /* of the thread's */
	struct qy_link link;          /* of the heap's */
	struct qy_mapped_bin bin[QY_MAPPED_CLASSES];
};

struct heap {
	quarry_mapped pub;
	char *segs;         /* where segments begin */
	uint64_t *segtab;
	uint64_t seg_bytes; /* of addresses for them */
	struct qy_mapped_live *live;
	struct qy_mapped_session *sessions;
	struct qy_mapped_lane *lanes;
	struct qy_mapped_root *roots;
	char *user;
	struct qy_mapped_sb sb;
	int fd;            /* has this process's locks, and is nobody else's; -1 in a forked child that could not have it */
	int out;           /* another description of the file, without locks: mapped, and handed to others */
	int of;            /* the file of a durable heap that is open to read, where `out` is memory: handed to others; or -1 */
	uint32_t session;
	uint64_t owner;    /* this session, as an owner's word; 0: none */
	int32_t node;      /* of one that is made */
	bool read_only, stale;
	bool passing;      /* it is being opened or closed: a forked child has nothing of it */
	struct qy_durable *durable; /* or NULL */
	char *map;
	size_t map_len;
	uint32_t staged;    /* entries of the redo record so far; under the heap's lock */
	struct qy_link locals, link;
	quarry_manager manager;
};

extern QY_HIDDEN __thread struct qy_mapped_local *qy_mapped_mine __attribute__((tls_model("initial-exec")));
extern QY_HIDDEN struct qy_mapped_class qy_mapped_classes[64];
extern QY_HIDDEN uint8_t qy_mapped_class_of_small[1024 / 16 + 1];

QY_INLINE struct heap *qy_heap(const quarry_mapped *heap)
{
	return (struct heap *)(uintptr_t)heap;
}

/* What is known of a class cannot be: it is read-only. */
QY_INLINE bool qy_mapped_is_bad(const struct heap *h, uint32_t cls)
{
	return (qy_peek(h->live->bad_classes) & (QY_MAPPED_BROKEN | (uint64_t)1 << cls)) != 0;
}

/* The compiler keeps the program's order of stores here; the processor's does not matter to whoever comes after a
 * death. */
#define QY_ORDER() atomic_signal_fence(memory_order_seq_cst)

/* Points at which a test has the process die, enumerated by file and line. In the library they are nothing. */
#ifndef QY_MAPPED_POINTS
#define QY_MAPPED_POINTS 0
#endif
#if QY_MAPPED_POINTS
struct qy_mapped_place { /* all of them, between __start_qy_points and __stop_qy_points */
	const char *file;
	uint64_t line;
};
void qy_mapped_point(const struct qy_mapped_place *place);
/* (durable.h has some of its own, in another section.) */
#define QY_POINT_IN(list)                                                                                    \
	do {                                                                                                 \
		static const struct qy_mapped_place here __attribute__((section(list), used, aligned(16))) = { \
			__FILE__, __LINE__                                                                   \
		};                                                                                           \
		QY_ORDER();                                                                                  \
		qy_mapped_point(&here);                                                                      \
		QY_ORDER();                                                                                  \
	} while (0)
#define QY_POINT() QY_POINT_IN("qy_points")
#else
#define QY_POINT() ((void)0)
#endif

/* A store that others, or those who come after a death, may see at once. */
#define qy_put(field, value) (QY_ORDER(), __atomic_store_n(&(field), (value), __ATOMIC_RELEASE), QY_ORDER())

/* ---- classes (slab.c) ---- */

void qy_mapped_classes_init(void);

QY_INLINE uint32_t qy_mapped_class_of(size_t size)
{
	unsigned log;

	if (QY_LIKELY(size <= 1024))
		return qy_mapped_class_of_small[(size + 15) / 16];
	log = qy_log2_floor(size - 1);
	return 8 + (log - 7) * 4 + (uint32_t)(((size - 1) >> (log - 2)) & 3);
}

/* ---- where things are ---- */

QY_INLINE char *qy_seg_at(const struct heap *h, uint64_t seg)
{
	return h->segs + (seg << QY_MAPPED_SEG_SHIFT);
}

QY_INLINE struct qy_mapped_seghead *qy_seg_head(const struct heap *h, uint64_t seg)
{
	return (struct qy_mapped_seghead *)(void *)(qy_seg_at(h, seg) + QY_MAPPED_SEGHEAD_AT);
}

/* Units are numbered through all segments; 0, which is of a segment's notes, is none. */
QY_INLINE struct qy_mapped_unit *qy_unit_at(const struct heap *h, uint64_t unit)
{
	return (struct qy_mapped_unit *)(void *)(qy_seg_at(h, unit / QY_MAPPED_SEG_UNITS) +
						 unit % QY_MAPPED_SEG_UNITS * sizeof(struct qy_mapped_unit));
}

QY_INLINE uint64_t *qy_unit_bits(const struct heap *h, uint64_t unit)
{
	return (uint64_t *)(void *)(qy_seg_at(h, unit / QY_MAPPED_SEG_UNITS) + QY_MAPPED_BITS_AT +
				    unit % QY_MAPPED_SEG_UNITS * 1024);
}

#define QY_REMOTE_WORDS 64 /* the second map stands so many words behind the first */

QY_INLINE char *qy_unit_memory(const struct heap *h, uint64_t unit)
{
	return h->segs + (unit << QY_MAPPED_UNIT_SHIFT);
}

QY_INLINE uint32_t qy_unit_kind(uint64_t state)
{
	return state & 0xff;
}

QY_INLINE uint32_t qy_unit_class(uint64_t state)
{
	return state >> 8 & 0xff;
}

QY_INLINE uint32_t qy_unit_owner(uint64_t state)
{
	return state >> 16 & 0xffff;
}

QY_INLINE uint32_t qy_unit_units(uint64_t state)
{
	return (uint32_t)(state >> 32);
}

QY_INLINE uint64_t qy_unit_state(uint32_t kind, uint32_t cls, uint32_t owner, uint64_t units)
{
	return kind | cls << 8 | (uint64_t)owner << 16 | units << 32;
}

/* Whether a unit's number, from the file, is of a unit that is memory. */
bool qy_unit_is(const struct heap *h, uint64_t unit);
bool qy_run_is(const struct heap *h, uint64_t unit, uint64_t count);

/* ---- format.c ---- */

uint32_t qy_mapped_crc(uint32_t crc, const void *p, size_t n);
bool qy_mapped_layout(struct qy_mapped_sb *sb, uint64_t at[6]);
void qy_mapped_sb_seal(struct qy_mapped_sb *sb);
int qy_mapped_sb_read(int fd, struct qy_mapped_sb *sb); /* -1 with errno and text */
int qy_mapped_sb_write(int fd, struct qy_mapped_sb *sb);
int qy_mapped_sb_take(struct qy_mapped_sb *sb, const quarry_mapped_attr *attr, const char *path, uint32_t *versions); /* -1 with errno and text */
void qy_mapped_uuid(uint8_t uuid[16]);

/* ---- open.c ---- */

/* Of a descriptor that is the heap's from now on, and what makes it durable; where it fails both are gone. */
struct qy_durable;
quarry_mapped *qy_mapped_open_by(int fd, bool read_only, struct qy_durable *durable);
quarry_mapped *qy_mapped_create_in(int fd, const struct qy_mapped_sb *sb, struct qy_durable *durable, int node);
int qy_mapped_new_file(const char *path); /* NULL: memory */
/* A new one, not durable, that nobody else can have yet: it has no superblock, so a death leaves no heap; who opens it waits, for OPEN is
 * held; and a forked child has nothing of it. Then it is said to be one (the superblocks come last), or there is none. */
struct heap *qy_mapped_make(const char *path, const quarry_mapped_attr *attr); /* NULL with errno and text */
int qy_mapped_say(struct heap *h);                        /* -1 with errno and text: it is as before */
void qy_mapped_unmake(struct heap *h, const char *path);  /* errno stays */

/* ---- durable.c; durable is not NULL ---- */

quarry_mapped *qy_durable_open(int fd, bool read_only, const struct qy_mapped_sb *sb, uint64_t version);
quarry_mapped *qy_durable_create(const char *path, const struct qy_mapped_sb *sb, uint32_t versions);
uint64_t qy_durable_size(const struct heap *h); /* of the live image's file */
int qy_durable_begin(struct heap *h);           /* its session has a number: it is the heap's for others as well; 1: another one's, yet */
int qy_durable_in_child(struct heap *h);        /* before that, or where it is passing; -1: it cannot have a session */
/* The session of a forked child, as qy_mapped_begin_session: -1 also where the file's memory is another one by now (ESTALE). */
int qy_durable_begin_in_child(struct heap *h);
void qy_durable_stale(struct heap *h);          /* it has none: nor any lock */
void qy_durable_free(struct qy_durable *d); /* that no heap has */
void qy_durable_registered(struct qy_durable *d); /* a heap has it */
void qy_durable_openings_in_child(void);
void qy_durable_closing(struct heap *h);
void qy_durable_drop(struct heap *h);
int qy_durable_fd(const struct heap *h);
void qy_dirty_arm(struct heap *h);
void qy_dirty_suspect(struct heap *h);  /* somebody died who may have had no session yet: what it wrote nobody can be asked for */
bool qy_dirty_is_known(const struct heap *h, uint32_t session); /* there is a session of that number, as page tables go */
void qy_dirty_died(struct heap *h, uint32_t session);
void qy_dirty_retire(struct heap *h); /* what this process has written is for the others to know; and it will write no more. The lock is held */
void qy_dirty_note(struct heap *h, uint64_t at, uint64_t len);
void qy_gate_died(struct heap *h, uint32_t session);
void qy_gate_in(struct heap *h, uint32_t lane);
void qy_gate_out(struct heap *h, uint32_t lane);

/* ---- redo.c: the heap's lock, and changes of many words under it ---- */

_Static_assert(sizeof(struct qy_mapped_live) <= 4096, "the live page is one");

int qy_mapped_lock_make(struct heap *h);
int qy_mapped_await(pthread_mutex_t *mutex); /* as pthread_mutex_lock, of one that is robust and of several processes */
int qy_mapped_enter(struct heap *h); /* -1 with errno */
int qy_mapped_try_enter(struct heap *h); /* 1: somebody has it */
void qy_mapped_leave(struct heap *h);
uint64_t qy_redo_get(struct heap *h, const uint64_t *word); /* as it will be */
void qy_redo_store(struct heap *h, uint64_t *word, uint64_t value);
void qy_redo_store_after(struct heap *h, uint64_t *word, uint64_t value); /* behind all that is staged, for this word as well */
void qy_redo_or(struct heap *h, uint64_t *word, uint64_t bits);
uint32_t qy_redo_room(const struct heap *h);
void qy_redo_drop(struct heap *h);
void qy_redo_commit(struct heap *h);
void qy_mapped_replay(struct heap *h); /* what the dead left; the lock is held, or nobody else is there */
void qy_mapped_bad_class(struct heap *h, uint32_t cls);
int qy_mapped_refuse(const struct heap *h); /* 0, or -1: EROFS, ESTALE */
int qy_mapped_refuse_class(const struct heap *h, uint32_t cls); /* the same, where a class is read-only */

/* ---- units.c; all under the heap's lock, staging ---- */

/* A run of free units, all in one segment; what is staged takes them. 0 with errno. */
uint64_t qy_units_take(struct heap *h, uint32_t count);
void qy_units_give(struct heap *h, uint64_t unit, uint32_t count);
uint64_t qy_run_block_take(struct heap *h, size_t size); /* an offset from segs; the rest is staged. UINT64_MAX with errno */
/* What a block's first byte, at an offset from segs, has; 0 where it is none. */
uint64_t qy_run_block_usable(const struct heap *h, uint64_t off);
int qy_run_block_give(struct heap *h, uint64_t off); /* -1 with EINVAL */
uint64_t qy_units_trim(struct heap *h);
void qy_units_shrink(struct heap *h);

/* ---- session.c ---- */

/* The registry's lock: from when a description is opened that will have locks, forks know of it. -1 with errno and text: it is not held. */
int qy_registry_enter(void);
void qy_registry_leave(void);
void qy_mapped_pause(void); /* a ms: between two looks at what another process is about to do, or the kernel for it */
int qy_session_begin(struct heap *h);
void qy_session_end(struct heap *h);
int qy_session_fresh(struct heap *h); /* nobody else has it: all of the dead, and a new lock. -1 with errno */
/* What a lane has reserved goes back; the lock is held. l: the lane's thread's, the caller, or NULL where it has none. */
void qy_note_back(struct heap *h, struct qy_mapped_lane *lane, uint64_t *note, struct qy_mapped_local *l);
int qy_sessions_reap(struct heap *h); /* the lock is held: how many */
struct qy_mapped_local *qy_local_find(struct heap *h); /* the thread's, or a new one; NULL with errno */
void qy_locals_adopt(struct heap *h);
int qy_heap_register(struct heap *h);   /* as one that is being opened; fd is from then on. -1 with errno */
void qy_mapped_opened(struct heap *h);
void qy_heap_unregister(struct heap *h); /* as one that is being closed: threads and session are over */
void qy_mapped_let_go(struct heap *h);     /* its locks, and descriptors */

/* ---- open.c ---- */

int qy_mapped_begin_session(struct heap *h); /* as who opens it: its locks, and its session. -1 with errno and text */

/* ---- place.c ---- */

int qy_mapped_bind(struct heap *h); /* all of its memory to h->node, before any is there. -1 with errno and text */

/* ---- alloc.c ---- */

/* Both may be called without the lock: they take it where they need it. note: where to say what is taken, before. */
void *qy_mapped_take(struct heap *h, struct qy_mapped_local *l, size_t size, uint64_t *note);
int qy_mapped_give(struct heap *h, uint64_t off); /* of what is live; from the base */

/* ---- slab.c ---- */

/* The lane's lists are as they are in the file: find what has room. The lock is held. */
void qy_local_adopt(struct heap *h, struct qy_mapped_local *l);
/* The object that begins at an offset from segs: its word and bit, unit and class. False where there is none; live or not. */
struct qy_mapped_object {
	uint64_t unit, bit;
	uint64_t *word; /* of the owner's map; the other stands QY_REMOTE_WORDS behind */
	uint32_t cls, owner;
};
bool qy_object_find(const struct heap *h, uint64_t off, struct qy_mapped_object *o);
bool qy_object_live(const struct qy_mapped_object *o);
void qy_object_freed_by_other(struct heap *h, const struct qy_mapped_object *o);
bool qy_small_find(struct heap *h, struct qy_mapped_local *l, uint32_t cls); /* its bin's word has a free object then */
bool qy_small_reserve(struct heap *h, struct qy_mapped_local *l, uint32_t cls, uint64_t *note, char **p);
void qy_slab_has_room(struct heap *h, struct qy_mapped_local *l, uint64_t unit, uint32_t cls);
uint64_t qy_slabs_trim(struct heap *h, struct qy_mapped_lane *lane, struct qy_mapped_local *l);

QY_INLINE struct qy_mapped_lane *qy_local_lane(const struct qy_mapped_local *l)
{
	return (struct qy_mapped_lane *)(void *)l->lane_at;
}

/* The calling thread's part, where it has one already. */
QY_INLINE struct qy_mapped_local *qy_local_known(const struct heap *h)
{
	struct qy_mapped_local *l = qy_mapped_mine;

	while (l != NULL && qy_peek(l->heap) != h)
		l = l->next;
	return l;
}

#endif
