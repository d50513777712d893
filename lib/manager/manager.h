/* SPDX-License-Identifier: MIT */
/* A manager owns the regions of one node or of one arena and hands out slabs and large blocks. It has the strategy
 * that the block layer lacks: which frame (the smallest longest free run that fits, dense ones first), when to ask for
 * another region, what is given back and when.
 *
 * Memory has two levels, both carved by the block layer: runs of frames in regions, and runs of pages in a frame.
 * A frame is in one of two fillers, for slabs (multiples of 64 KiB, so their alignment costs nothing) and for large
 * blocks (any number of pages, above 32 KiB up to a frame). Blocks above a frame are runs of frames.
 *
 * Free memory is clean (reads as zero, not in memory) or dirty; the two are not coalesced with each other, and dirty
 * memory is preferred for new blocks. What is dirty goes back to the kernel after it was left alone for decay_ms, by
 * the reclaimer, block by block with no lock held: the block is taken as if allocated, purged, and freed as clean.
 *
 * Lock: lock, rank QY_RANK_MANAGER, protects everything below it in the struct but the counters. No system call that
 * can take long (mmap, mbind, madvise, munmap) is made with it held. */
#ifndef QUARRY_MANAGER_MANAGER_H
#define QUARRY_MANAGER_MANAGER_H

#include "lib/base/lock.h"
#include "lib/block/block.h"
#include "lib/manager/decay.h"
#include "lib/manager/fallback.h"
#include "lib/manager/heap.h"
#include "lib/manager/huge.h"
#include "lib/manager/limits.h"
#include "lib/manager/quota.h"
#include "numa/region.h"

/* First half of the frame side element. Zero when the frame is not mapped. */
struct qy_frame {
	struct qy_block run;           /* frame-level block header */
	uint32_t list[2];              /* links in a filler's bucket */
	uint32_t dirt[2];              /* links in the manager's dirty list */
	uint32_t stamp;                /* ms, when memory here last became dirty */
	uint32_t free;                 /* the first free page block here */
	uint16_t used, longest, dirty; /* pages: in used blocks, of the longest free block, free and dirty */
	uint8_t bucket;
	bool sparse;                   /* enough of it could go back, as was found out */
	uint32_t sparse_pass;          /* in this pass (sparse.c) */
	bool late;                     /* in a forked child: what is here is of a later moment (late.h) */
	/* From here on others look on. */
	uint8_t filler;                     /* enum qy_filler_kind + 1 while pages are carved here; else 0 */
	_Atomic(struct qy_region *) region; /* NULL: not ours (yet) */
	_Atomic(size_t) bytes;              /* of the used run that begins here: what the program has */
};

_Static_assert(sizeof(struct qy_frame) <= QY_REGION_SIDE_OFFSET, "a frame's record has half a frame side element");

QY_INLINE struct qy_region *qy_region_of_frame(const struct qy_frame *frame)
{
	return atomic_load_explicit(&((struct qy_frame *)frame)->region, memory_order_relaxed);
}

QY_INLINE struct qy_frame *qy_frame_at(uint32_t f)
{
	return (struct qy_frame *)(void *)(qy_window.frame_side + ((size_t)f << QY_FRAME_SIDE_SHIFT));
}

enum qy_filler_kind { QY_FILL_SLABS, QY_FILL_LARGE, QY_FILLERS };

/* Tags of page blocks and runs. */
enum qy_block_use { QY_USE_FREE, QY_USE_SLAB, QY_USE_LARGE, QY_USE_PURGE };

#define QY_FILL_BUCKETS 65
#define QY_RUN_BUCKETS 216

struct qy_filler {
	uint64_t bits[2]; /* which buckets have a frame */
	uint32_t empty;   /* the one empty frame that is kept open; 0 none */
	uint32_t bucket[QY_FILL_BUCKETS];
};

struct qy_runs {
	uint64_t bits[4];
	uint32_t bucket[QY_RUN_BUCKETS];
};

enum qy_dirt_list { QY_DIRT_RUNS, QY_DIRT_PARTS, QY_DIRT_LISTS };

struct qy_manager {
	/* These outlive the arena: others may still come for the lock, go on to the next manager, or ask how full it is. */
	struct qy_lock lock;
	uint32_t index; /* in the registry; the dense node number for a node's default arena */
	struct qy_manager *free_next; /* of unused ones */
	struct qy_density *density; /* (atomic) how full its slabs are; NULL: nobody asked (density.h) */

	bool of_node;     /* a node's default arena */
	int kind;         /* enum quarry_page_kind wanted */
	/* What new regions are asked for with; replaced whole by a move (qy_publish, qy_peek). Regions point to the one
	 * that they were last placed by. The records are type-stable. */
	struct qy_placement *placement;
	/* A node's default arena's, for regions that a thread with a memory policy of its own asked for: not bound. */
	struct qy_placement *unbound;
	/* An arena of the local policy, on several nodes, is a family: the head, which the handle leads to and which
	 * has no memory, and a manager for each node that a thread of it ran on. All have one index, and the head's
	 * limits. */
	struct qy_manager *head;    /* itself for all others */
	struct qy_manager **locals; /* the head's, by dense node (atomic); NULL: no family (family.c) */
	uint32_t local;             /* of one of those: its place there */
	_Atomic(uint64_t) family_used; /* the head's: bytes in use, and about to be, by the whole family */
	char name[QUARRY_ARENA_NAME_MAX];
	_Atomic(uint64_t) hard_limit, soft_limit;
	_Atomic(long) decay_ms;      /* the head's: -1 never, QUARRY_DECAY_DEFAULT */
	bool lost;                   /* the head's, in a forked child: it could not have a copy of what was in files */
	uint64_t life;               /* the head's (qy_publish, qy_peek): another after each reset and end (lib/cache/arena.h) */
	struct qy_quota quota;       /* of the process's budget */
	struct qy_limit_marks marks; /* the head's: what of its limits was told */
	struct qy_fallback fallback[QY_FALLBACKS]; /* the head's: what else was told of it (fallback.h) */
	void *unused_caches; /* lib/cache's: caches that were given up */
	_Atomic(uint32_t) heaps;         /* that threads hold, parked ones too */
	_Atomic(uint32_t) default_users; /* threads whose default arena it is */
	bool has_others;           /* (qy_publish, qy_peek) the head's: the breaker sent something here that was asked of another */
	_Atomic(uint32_t) holders; /* the head's: what stands in it, and keeps it from ending (lib/cache/taken.h) */

	struct qy_region *regions;
	uint32_t dirty[QY_DIRT_LISTS]; /* what has dirty memory, longest left alone first (dirt.h) */
	struct qy_decay decay;
	struct qy_runs runs[2]; /* free runs of frames: dirty, clean */
	struct qy_filler fillers[QY_FILLERS];

	/* Written under the lock, read by anybody. */
	struct {
		qy_counter region_count, mapped, peak_mapped, used, large, dirty_pages, purges, purged;
		qy_counter kind_wanted[5], kind_got[5], unplaced, placed_less, in_files;
		qy_counter strayed, brought_home, moved; /* bytes: on other nodes at the last look, and what
		                                          * was moved */
		qy_counter past_refills, past_received, past_adopted; /* of heaps given up; any thread adds */
		qy_counter absent_pages; /* in use and not in memory: those inside slabs that were given back; any
		                          * thread adds */
	};

	/* Of the cycle that looks for pages that strayed (homing.c), under the purge lock. */
	struct qy_homing {
		bool pending;
		unsigned moving; /* calls of quarry_arena_move that are at it */
		uint32_t frame; /* where it goes on */
		uint64_t left;  /* bytes found elsewhere and not moved */
	} homing;

	struct qy_heap orphans; /* slabs that no thread holds; owner 0 */
	struct qy_mixed *mixed; /* those of them in which objects of other classes stand; NULL: there were none
	                         * (mixed.h) */
	/* Of the passes over them, the purge lock's holder's (sparse.c). */
	struct qy_sparse {
		uint32_t pass;    /* the number of the last one */
		uint8_t goes_on;  /* enum qy_sparse_cut: it was ended in the midst of it, by time or by bytes */
		bool again;       /* what it found until then is to be looked at once more, or it may be past others
		                   * that came */
		bool mixed_cut;   /* the last one over those that are mixed was ended by time */
		/* By class, under the lock: slabs that threads took since the last pass, and how many are therefore
		 * left to be taken as they are; and how many of the class that is looked at were. */
		uint16_t adopted[QY_CLASSES], reserve[QY_CLASSES], left;
	} sparse;
	bool wiped;    /* all that lived here was dropped since the last snapshot (snapshot.h) was begun */
	bool dropping; /* the last pass had no time for all regions that are free; the purge lock's holder's */
	struct qy_heap thinning; /* those of them that pages are given back of right now; the purge lock's holder's
	                          * (sparse.c) */

	struct qy_huge huge;
};

/* ---- made and unmade (manager.c) ---- */

struct quarry_arena {
	struct qy_manager *manager; /* NULL: not in use */
};

#define QY_ARENAS_MAX 65536

/* Arena handles: slots of one array, so that a handle can be checked without being followed. */
extern struct quarry_arena qy_arenas[QY_ARENAS_MAX];

/* Find the nodes and reserve the window: once, when the settings are there. False with ENOMEM. */
bool qy_managers_start(void);

/* What was counted in arenas that ended: the process's counts do not fall. */
extern QY_HIDDEN struct qy_past {
	qy_counter purges, purged, brought_home, moved, collapsed, collapse_failed;
	qy_counter refills, received, adopted;
} qy_past;

/* Memory for what the layers above keep of threads: zeroed, never given back. NULL with ENOMEM. */
void *qy_manager_records(size_t size, size_t align);

/* The node (dense) that the calling thread runs on now, and how many there are. */
int qy_manager_node(void);
int qy_manager_nodes(void);

/* One for the program, as its attributes say (they were checked). NULL with ENOMEM, or EAGAIN when there are as many
 * as can be. */
struct qy_manager *qy_manager_create_as(const quarry_arena_attr *attr);
struct qy_manager *qy_manager_create(const struct qy_placement *placement, int kind, const char *name);

/* The first node of the set that the machine does not have; -1 for none. */
int qy_manager_unknown_node(const quarry_nodeset *nodes);

/* An arena's name, also of one that may be ending. */
void qy_manager_name(const struct qy_manager *m, char name[QUARRY_ARENA_NAME_MAX]);

/* The default arena of a node by the kernel's id; NULL with EINVAL or ENOMEM. */
struct qy_manager *qy_manager_of_kernel_node(int node);

/* The default arena of a node (dense); made when first asked for. NULL with ENOMEM. */
struct qy_manager *qy_manager_of_node(int node);

/* The manager of a handle; NULL with EINVAL when it is none. */
struct qy_manager *qy_manager_of_arena(const quarry_arena *arena);

/* All memory becomes free at once. The caller has made sure that no thread holds anything of it. */
void qy_manager_reset(struct qy_manager *m);
void qy_manager_destroy(struct qy_manager *m);

/* It has no memory any more: as reset, and unmapped. */
void qy_manager_empty(struct qy_manager *m);

/* The same in two steps: the arena is no more, and its regions are still mapped; unmapping them needs no lock. */
struct qy_region *qy_manager_end(struct qy_manager *m);

/* A memory checker is told that nothing lives in it any more. All threads are held. */
void qy_manager_end_checked(struct qy_manager *m) QY_COLD;
void qy_manager_unmap(struct qy_region *list);

/* What lived in it is told to be gone (lib/base/gone.h): with all threads held, before it is reset or ends, and before anybody
 * can read another life of it (lib/cache/taken.h). */
void qy_manager_tell_gone(struct qy_manager *m);

/* Of what was mapped just now, nobody is about to take anything: it may go back as all that is free. */
void qy_manager_spare_none(struct qy_manager *m);

/* Visit all managers, oldest first, those of a family after their head, without a lock: one that is made or destroyed
 * meanwhile may be missed. */
struct qy_manager *qy_manager_next(const struct qy_manager *m);

/* ---- families (family.c) ---- */

/* The manager that serves a thread on the given node (dense): m itself, but for the head of a family, whose manager for
 * the node is made when first asked for. NULL with ENOMEM. */
struct qy_manager *qy_manager_serving(struct qy_manager *m, int node);

/* The same when it is known by now; else NULL. */
struct qy_manager *qy_manager_known_serving(struct qy_manager *m, int node);

/* Visit what an arena's memory is of: itself, or the managers of its family. As qy_manager_next. */
struct qy_manager *qy_family_next(struct qy_manager *head, const struct qy_manager *m);

/* Bytes in use, of the whole family where m is of one. */
uint64_t qy_manager_used(struct qy_manager *m);

/* What soft limits count: bytes in use, but for pages inside slabs that were given back, and free ones in memory. Of m
 * alone; and of all of its family. */
uint64_t qy_manager_held(struct qy_manager *m);
uint64_t qy_family_held(struct qy_manager *m);

/* Which nodes are allowed, or which an arena is to be on, has changed: find anew which manager serves which node. */
void qy_families_reroute(void);

/* How often that was so. A thread that sees it change looks again where it belongs. */
uint32_t qy_manager_reroutes(void);

/* Where the calling thread's CPU can be read: as qy_node_cpu_now. */
const volatile int32_t *qy_manager_cpu_now(void);

/* The dense number of a node that this process may use, by the kernel's id; -1 for others. */
int qy_manager_usable_node(int kernel_id);
bool qy_manager_may_use(int node);

/* The manager that the memory at p belongs to; NULL when it is not quarry's. */
struct qy_manager *qy_manager_of(const void *p);

/* ---- blocks (large.c) ---- */

/* A block of at least size bytes for the program, aligned to align (a power of two). *zero: it reads as zero. */
void *qy_large_alloc(struct qy_manager *m, size_t size, size_t align, bool *zero);

/* Whether p is the start of a live large block. */
bool qy_large_is(const void *p);
size_t qy_large_size(const void *p);

/* Free it. False when it is none (a double free, lost race or not): nothing has changed. */
bool qy_large_free(void *p);

/* A block that is to be smaller by less than that stays as it is. */
#define QY_LARGE_SLACK (4 * QY_PAGE)

/* Resize in place: down, or up into free memory behind it. */
bool qy_large_resize(void *p, size_t size);

/* Have large ranges filled by as many threads as the options allow: before any is. */
void qy_manager_allow_threads(void);

/* How many bytes there are from p, anywhere in a live block or in an object of a slab, to its end; 0 for all else. */
size_t qy_large_left(const void *p);

/* The live large block that p is in, anywhere: where it begins, and its bytes. False for all else. */
bool qy_large_find(const void *p, void **begin, size_t *bytes);

/* Bring memory of a block in, no more than that. 0; or -1 with the kernel's errno. */
int qy_large_populate(void *p, size_t len);

/* Whether the frame of p, in a live block, may be a huge page, as far as is known without asking the kernel. */
bool qy_large_may_be_huge(const void *p);

/* Give memory of a live block back; it reads as zero then. qy_purge_hold is held. 0; -1 with ENOTSUP when it does not go
 * in parts, or the kernel refuses. */
int qy_large_discard(void *p, size_t len);

/* The descriptor of the file that p is in, and where; -1 with EINVAL, ENOTSUP, EBADF. */
int qy_large_fd(const void *p, uint64_t *offset);

/* Grow by moving page tables, for blocks of frames, to where there is as much address space behind it for it to grow
 * into, so that a block that grows by steps moves as rarely as if it doubled. NULL when it cannot be done; p is as it
 * was. */
void *qy_large_remap(void *p, size_t size);

/* Grow by a copy, where there is a hard limit: only what is added is charged, as if it had grown in place. NULL when it
 * cannot be had; p is as it was. */
void *qy_large_copy(void *p, size_t size);

/* Give back what is behind the first so many bytes, in place: for who would rather move it, and has no memory for that.
 * Some pages stay. */
void qy_large_cut(void *p, size_t size);

/* Whether so many more bytes may be refused by a hard limit. (What managers have in hand of the process's counts as
 * used.) */
bool qy_manager_is_at_limit(struct qy_manager *m, size_t bytes);

/* ---- slabs (manager.c), for heaps ---- */

/* One object of a class from a slab that nobody owns, and in which stands nothing else but such (mixed.h): whoever frees
 * it enters, and it goes home as any. NULL with ENOMEM. */
void *qy_manager_get_one(struct qy_manager *m, unsigned cls);

/* A slab for a heap: an orphan of the class with room (then a spare goes back), the spare, or a new one. NULL with
 * *list set to objects that stand in the gaps of other classes' slabs, where a new one would make the process grow;
 * NULL with ENOMEM. With *fresh false no memory is touched that is not there: then *fresh is set, and NULL returned. */
struct qy_slab *qy_manager_get_slab(struct qy_manager *m, struct qy_heap *h, unsigned cls, struct qy_slab *spare,
				    void **list, bool *fresh);
/* Take a slab that nobody holds and that is mostly in use for a heap, since the heap's thread is about to free an
 * object of it, and then others. False when it is not so, or no longer. */
bool qy_manager_claim_slab(struct qy_manager *m, struct qy_heap *h, struct qy_slab *s);
void qy_manager_put_slabs(struct qy_manager *m, struct qy_slab **slabs, unsigned count);
/* The same for one slab, with the lock held. */
void qy_manager_put_slab(struct qy_manager *m, struct qy_slab *s);
/* Take in what was sent home to slabs that nobody holds, a step of it, with the lock held. Whether there is more. */
bool qy_manager_receive(struct qy_manager *m);
/* The same for all that is there, the lock being taken for each step, as far as the time goes (CLOCK_MONOTONIC;
 * UINT64_MAX: there is time). False when there was too little of that. */
bool qy_manager_receive_until(struct qy_manager *m, uint64_t until_ns);

/* ---- giving back (purge.c) ---- */

/* Give dirty memory that was left alone for decay_ms (0: all) back to the kernel, and regions that are free.
 * at_most bounds the bytes. Returns the bytes; *next is when (ms) more falls due, UINT64_MAX never. */
size_t qy_manager_purge(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t *next);

/* The same, and not for long: after until_ns (CLOCK_MONOTONIC; UINT64_MAX: there is time) it goes on with nothing new,
 * and *next is QY_PASS_CUT_MS later at most. */
#define QY_PASS_CUT_MS 10
size_t qy_manager_purge_in_time(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns,
				uint64_t *next);

/* Whether until_ns (CLOCK_MONOTONIC) is not over. UINT64_MAX never is, and the clock is not asked. */
bool qy_in_time(uint64_t until_ns);

/* And by whoever has the purge lock by qy_purge_try. */
size_t qy_manager_purge_until(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns,
			      uint64_t *next);

/* Take in all that was sent home, so that what became free of it is no longer in use; nothing goes back to the kernel.
 * Waits for those who have some of it out to purge it. No lock may be held. */
void qy_manager_collect(struct qy_manager *m);

/* For decay_ms of a pass over all managers: all at once, whatever arenas have of their own. */
#define QY_DECAY_ALL (-3)

/* What a pass that is to go by decay_ms is to go by at m: its arena's own, shortened by what presses. */
long qy_manager_decay(const struct qy_manager *m, long decay_ms);

/* The arena's own decay_ms, or the option: what was set, whatever presses. */
long qy_manager_decay_set(const struct qy_manager *m);

/* QY_DIRT_NEW when dirt appears, or mail for slabs that nobody holds. Each of those whom it concerns takes its own bit
 * away before it looks: a reclaimer that sleeps while there is none; who looks for what is free before a request is
 * refused, by the kernel or by the process's limit, and need not do so again in vain; and slow paths that keep to a
 * soft limit. */
enum {
	QY_DIRT_FOR_SLEEPER = 1,
	QY_DIRT_FOR_REFUSED = 2,
	QY_DIRT_FOR_LIMITED = 4,
	QY_DIRT_FOR_SOFT = 8,
	QY_DIRT_NEW = 15
};
extern QY_HIDDEN _Atomic(uint32_t) qy_dirt_seen;

/* What is no dirt, and yet something for the sleeper, or for one of the others. */
QY_INLINE void qy_dirt_call(uint32_t whom)
{
	atomic_fetch_or_explicit(&qy_dirt_seen, whom, memory_order_relaxed);
}

/* Whether there was something; there is not any more. */
QY_INLINE bool qy_dirt_take(uint32_t whose)
{
	return (atomic_fetch_and(&qy_dirt_seen, ~whose) & whose) != 0;
}

QY_INLINE bool qy_dirt_for_sleeper(void)
{
	return (atomic_load(&qy_dirt_seen) & QY_DIRT_FOR_SLEEPER) != 0;
}

/* Set when a region was mapped, for those who decide by the size of the heap (and clear it). */
extern QY_HIDDEN _Atomic(uint32_t) qy_heap_grew;

/* Around fork and an arena's end: no memory may be on its way back to the kernel meanwhile. Taken before the threads
 * are paused. */
void qy_purge_hold(void);
void qy_purge_release(void);

/* The same without waiting, for one who goes on giving back; false when somebody else is at it, or the calling thread
 * itself, further down. No thread is paused, and no fork begins, until qy_purge_done. */
bool qy_purge_try(void);
void qy_purge_done(void);
bool qy_purge_is_caller(void); /* the calling thread is giving back */

/* ---- inside the manager ---- */

/* A run of pages from a filler, aligned to align pages; 0 when there is none without a new region. */
qy_page qy_filler_get(struct qy_manager *m, enum qy_filler_kind kind, uint32_t pages, uint32_t align, unsigned use,
		      bool *zero);
/* Take a given free block whole. */
/* Whether that run would be one whose memory is there, not given back or never used. */
bool qy_filler_has_dirty(struct qy_manager *m, enum qy_filler_kind kind, uint32_t pages, uint32_t align);
void qy_filler_take(struct qy_manager *m, qy_page b, unsigned use);
void qy_filler_put(struct qy_manager *m, qy_page b, bool clean);
/* Whether there was one. */
bool qy_filler_close_empty(struct qy_manager *m);
bool qy_filler_grow(struct qy_manager *m, qy_page b, uint32_t pages);
void qy_filler_shrink(struct qy_manager *m, qy_page b, uint32_t pages);
uint32_t qy_runs_get(struct qy_manager *m, uint32_t frames, uint32_t align, bool *zero);
/* The same, of clean memory with so many free frames behind it for it to grow into: nobody keeps them for it. */
uint32_t qy_runs_get_roomy(struct qy_manager *m, uint32_t frames, uint32_t room);
/* Whether there is a free run of frames whose memory is there. */
bool qy_runs_has_dirty(struct qy_manager *m);
/* Forget all that is noted of a frame. */
void qy_frame_clear(uint32_t f);
/* Take a given free run whole; false when it is in use. */
bool qy_runs_take(struct qy_manager *m, uint32_t run, bool *zero);
void qy_runs_put(struct qy_manager *m, uint32_t run, bool clean);
bool qy_runs_grow(struct qy_manager *m, uint32_t run, uint32_t frames);
void qy_runs_add_region(struct qy_manager *m, struct qy_region *r);
/* Take a free run that is a whole region out of the books, to be destroyed. */
void qy_runs_drop_region(struct qy_manager *m, uint32_t run);
/* Ask the kernel for a region with at least so many frames. The lock is not held. Whether there is more now. */
bool qy_manager_more(struct qy_manager *m, uint32_t frames, uint32_t align);
/* Bytes: the most that all managers together had mapped at a time. */
uint64_t qy_managers_peak_mapped(void);
void qy_manager_unbook_region(struct qy_manager *m, const struct qy_region *r);
/* A region has got another placement, and its policy. The lock is held. */
void qy_manager_replace_region(struct qy_manager *m, struct qy_region *r, const struct qy_placement *placement,
			       enum qy_placed placed);
/* Ask for memory by another placement from now on: a copy of it is kept, the one before stays readable. NULL with
 * ENOMEM. (registry.c) */
const struct qy_placement *qy_manager_place(struct qy_manager *m, const struct qy_placement *placement);
/* The next region of m at or above a frame, by its number; 0 none. The lock is taken. */
uint32_t qy_manager_next_region(struct qy_manager *m, uint32_t frame);
/* Whether so many more bytes may be used under the hard limits, the arena's and the process's. The lock is held. They
 * are taken from what all of a family, and all of the process, may use then, so that it holds whatever the others do;
 * those that are not used after all, or no longer, must be given back, with the lock held too. */
bool qy_manager_allows(struct qy_manager *m, size_t bytes);
void qy_manager_unclaim(struct qy_manager *m, size_t bytes);

/* Pages in frames, frames in regions. Set once by qy_managers_init. */
extern struct qy_block_map qy_page_map, qy_run_map;

#endif
