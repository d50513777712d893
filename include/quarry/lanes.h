/* SPDX-License-Identifier: MIT */
/**
 * quarry/lanes.h: memory that can move, behind handles.
 *
 * A handle is a number of 64 bits for an object; the object's address is asked for where it is used, in a scope, and may
 * be another in the next one. So what malloc cannot do can be done: objects are packed while other threads read and
 * write them, whole huge pages become free and go back to the kernel, and no thread is stopped for it. A handle whose
 * object was freed is ESTALE for ever: a slot's generations never begin anew (it is retired instead).
 *
 * @code
 *   quarry_lanes *rows = quarry_lanes_create(NULL);
 *   quarry_handle h = quarry_halloc(rows, sizeof(struct row));
 *
 *   quarry_enter();
 *   struct row *row = quarry_get_mut(rows, h);
 *   if (row != NULL)
 *           row->total += 1;
 *   quarry_leave();
 * @endcode
 *
 * Rules. (1) What quarry_get gives is read, not written; quarry_get_mut is for writing. (2) Both are for the scope they
 * were called in: until its quarry_leave the memory stays what it was, even when the object is freed or moved
 * meanwhile. (3) Who shares an object by a lock of the program's gets it after taking the lock, as one reads any shared
 * pointer: a pointer from before shows the object as it was before it was moved, and not what others wrote since.
 * quarry_pin is for what has to stay where it is beyond a scope, as across a system call.
 *
 * Scopes cost no atomic read-modify-write and no fence: who moves or frees asks the kernel for a fence in all threads
 * (membarrier(2), Linux 4.14; without it each scope has a fence of its own) and waits for the scopes that were open then
 * (the idea of epochs: K. Fraser, Practical lock-freedom, 2004). None of this is for signal handlers.
 */
#ifndef QUARRY_LANES_H
#define QUARRY_LANES_H

#include "quarry.h"

#ifdef __cplusplus
extern "C" {
#ifdef __clang__ /* casts and NULL are C's here; g++ knows that by itself */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wzero-as-null-pointer-constant"
#endif
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Lanes                                                                                                  */

/** Objects behind handles, and the memory that they are in. */
typedef struct quarry_lanes quarry_lanes;

/** A handle: from high bits to low the lane it was born in (1 bit: as a signed number it is positive in the fast lane
 * and negative in the slow one), the lanes' number (7), the type (8), the generation (16), the slot (32). 0 is none. */
typedef uint64_t quarry_handle;

#define QUARRY_HANDLE_NONE ((quarry_handle)0)

/** What becomes of objects that nobody looks at: they are compressed, and, where there is a directory, go to a file.
 * quarry_get brings them back, which then takes microseconds, or a read of the file. Zero-initialise it. */
typedef struct quarry_cold_attr {
	uint32_t struct_size; /* sizeof(struct quarry_cold_attr), or 0, which means the same */
	uint32_t flags;       /* 0 */
	uint32_t period_ms;   /* objects that nobody got for so long, at least, become cold; 0: 30,000. It is longer for a
	                       * while when more than 2 % of what is cold comes back in it */
	uint32_t reserved;    /* 0 */
	const char *codec;    /* "lz4" (NULL means it), "zstd", "none": the library is loaded then (liblz4.so.1, libzstd.so.1) */
	uint64_t memory_limit;/* bytes of compressed objects in memory, above which the oldest go to the file; 0: any */
	const char *directory;/* of the file, which has no name and ends with the process; NULL: there is none */
	uint64_t file_limit;  /* bytes of the file, at most; 0: any */
} quarry_cold_attr;

enum quarry_lanes_flags {
	QUARRY_LANES_NO_MOVER = 1 /* nothing is packed in the background */
};

#define QUARRY_FAILOVERS 4


/** What lanes are to be. Zero-initialise it. */
typedef struct quarry_lanes_attr {
	uint32_t struct_size; /* sizeof(struct quarry_lanes_attr), or 0, which means the same */
	uint32_t flags;       /* enum quarry_lanes_flags, or-ed */
	uint64_t handles;     /* at most so many at once: up to 2^31 - 2; 0: 2^24. 8 bytes of address space for each, in
	                       * memory for those that were used */
	quarry_arena *arena;  /* where the memory is from. NULL: see memory */
	const quarry_arena_attr *memory; /* without an arena: one of its own, made so. NULL: the default arena */
	uint32_t generations; /* that a slot has before it is retired, 1 to 65,534; 0: 65,534. Fewer are for tests */
	uint32_t reserved;    /* 0 */
	const struct quarry_cold_attr *cold; /* what becomes of objects that nobody looks at. NULL: they stay */
	/* The mover in the background. Waste is what segments hold beside live objects, in percent of those. */
	uint32_t mover_start;  /* waste from which it packs; 0: 10 */
	uint32_t mover_full;   /* waste from which on it takes mover_most; 0: 100. Between, in between */
	uint32_t mover_least;  /* percent of a processor, at mover_start: 1 to 100; 0: 1 */
	uint32_t mover_most;   /* the same, at mover_full; 0: 25 */
	uint64_t mover_ignore; /* so many bytes of waste are none; 0: a 16th of what segments hold */
	uint32_t mover_scratch; /* segments that only movers may take, in percent of all: see quarry_compact. 0: 10; up to 50 */
	uint32_t mover_reserved; /* 0 */
	/* What follows has the names, and by QUARRY_PRESET_SEED the figures, of the document that lanes are from. Percentages
	 * are 0 (the default) to 100. */
	uint64_t fast_lane_size; /* bytes that the fast lane holds at most; 0: no limit */
	uint64_t slow_lane_size; /* and the slow one, in segments of 2 MiB; 0: no limit */
	uint32_t threshold;      /* quarry_halloc begins with objects of up to so many bytes in the fast lane, and with larger
	                          * ones in the slow one. Up to 1,000,000; 0: all in the slow one */
	uint32_t fast_lane_large_entry_threshold; /* objects of more bytes leave the fast lane at the next tick; 0: 4096 */
	uint32_t max_fast_age_ticks; /* objects that are so old leave it: up to 32,767; 0: 600 */
	uint32_t fast_lane_usage_threshold; /* per cent of fast_lane_size: above, a tick has all leave that are older than it;
	                                     * 0: 90 */
	uint32_t fast_lane_safety_margin;   /* per cent of fast_lane_size that are free when it has done so; 0: 10 */
	uint32_t slow_lane_usage_threshold; /* per cent of slow_lane_size: above, objects of low priority are refused; 0: 85 */
	uint32_t slow_lane_safety_margin;   /* per cent of slow_lane_size that only objects of critical priority, and moves, may
	                                     * take; 0: 10 */
	uint32_t enable_auto_compaction;    /* 1: quarry_maintain compacts, and a tick calls it when it is time; 0 or 1 */
	uint32_t compaction_threshold;      /* per cent of slow_lane_size (of what is held, where that has no limit, by what is
	                                     * live) from which quarry_maintain compacts; 0: 90 */
	uint32_t policy_check_interval;     /* ms, at least, from one such call to the next; 0: 10,000 */
	quarry_arena *failover[QUARRY_FAILOVERS]; /* where an object's memory is from when both lanes have none: one after the
	                                           * other, as of another node or in a file. Such an object is never moved */
} quarry_lanes_attr;

/** Sets of figures for lanes. */
enum quarry_lanes_presets {
	QUARRY_PRESET_SEED,            /* the document's: fast 1 MB, slow 10 MB, threshold 4096, compaction at 90 % */
	QUARRY_PRESET_GAME_LOOP,       /* frames: 16 MiB fast, 120 ticks */
	QUARRY_PRESET_BULK_PROCESSING, /* large fast lane, few ticks, no automatic compaction */
	QUARRY_PRESET_LOW_MEMORY,      /* small lanes, compaction at 70 %, each second */
	QUARRY_PRESET_OBJECT_POOLING,  /* all in the slow lane, whose slots are used again */
	QUARRY_PRESET_FRAME_SCRATCH    /* all in the fast lane, which is left after 2 ticks */
};

/** Fill in what lanes are to be by a preset; fields that are not its (handles, arena, ...) become 0.
 * @param preset enum quarry_lanes_presets. @return 0; -1 with EINVAL (no such preset, attr is NULL). */
QUARRY_API int quarry_lanes_preset(quarry_lanes_attr *attr, int preset);

/** Make lanes. @param attr what they are to be; NULL: all zero.
 * @return them; NULL with EINVAL (a bad field; quarry_error_text() names it), ENOMEM, EAGAIN (127 there are already), or
 *         what quarry_arena_create says. Any thread may use them. */
QUARRY_API quarry_lanes *quarry_lanes_create(const quarry_lanes_attr *attr);

/** Free all objects and end the lanes. No other thread may be using them, none may be in a scope in which it got
 * something of them. @return 0; -1 with EINVAL when they are none. */
QUARRY_API int quarry_lanes_destroy(quarry_lanes *lanes);

/* ------------------------------------------------------------------------------------------------------ */
/* Objects                                                                                                */

/** Allocate an object, in the lane that the attributes' threshold says. Contents are any.
 * @param size bytes, at least 1.
 * @return its handle; 0 with ENOMEM (no memory, not even when others are moved together, which outside of scopes is tried
 *         for half a second at most; or no handle is free), EINVAL (no lanes, size is 0). */
QUARRY_API quarry_handle quarry_halloc(quarry_lanes *lanes, size_t size);

/** Allocate an object of a type, aligned, in the slow lane. The alignment is kept when it moves.
 * @param alignment bytes: a power of two up to 2 MiB; 0: 16.
 * @param type any number that the program gives to a kind of objects, 0 to 255: part of the handle.
 * @return as quarry_halloc; EINVAL for an alignment or type that is none. */
QUARRY_API quarry_handle quarry_halloc_typed(quarry_lanes *lanes, size_t size, size_t alignment, unsigned type);

/** Free an object, from any thread, in a scope or outside. Those who are in a scope, or have it pinned, keep its memory
 * until they leave or unpin. @return 0; -1 with ESTALE (freed already, by whomever), EINVAL (no handle of these
 * lanes). Of several who free it at once, one gets 0. */
QUARRY_API int quarry_hfree(quarry_lanes *lanes, quarry_handle h);

/** How many bytes of an object may be used: at least what was asked for. 0 with ESTALE or EINVAL. */
QUARRY_API size_t quarry_hsize(quarry_lanes *lanes, quarry_handle h);

/** What stands at the beginning of lanes, for the inline functions here: read it, never write it. */
typedef struct quarry_lanes_map {
	const uint64_t *words; /* a slot's: generation (16 bits), address / 16 (43), state (5) */
	uint64_t slots;        /* how many words may be read */
	uint64_t number;       /* of the lanes, where it stands in a handle */
} quarry_lanes_map;

#define QUARRY_HANDLE_NUMBER ((uint64_t)0x7f << 56)
#define QUARRY_WORD_GENERATION ((uint64_t)0xffff << 48)
#define QUARRY_WORD_ADDRESS ((uint64_t)0xffffffffffe0)
#define QUARRY_WORD_FREE ((uint64_t)1)
#define QUARRY_WORD_COLD ((uint64_t)2)
#define QUARRY_WORD_MOVING ((uint64_t)4)
#define QUARRY_WORD_HEAD ((uint64_t)8) /* its record stands before it: in the fast lane, or beyond segments */
#define QUARRY_WORD_UNSEEN ((uint64_t)16) /* nobody has got it of late: the next who does is told of */

/* What of a word keeps it from being got at once, generations being equal: all of which quarry_get_slow looks at. */
#define QUARRY_WORD_ELSE (QUARRY_WORD_GENERATION | QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_UNSEEN)

/** What quarry_get does with a handle whose object is not to be had at once, for its inline part to call. @return as
 * quarry_get. */
QUARRY_API void *quarry_get_slow(quarry_lanes *lanes, quarry_handle h);

/** Enter a scope, in which handles have addresses. Scopes nest; the outermost counts. A thread in a scope holds up the
 * reuse of freed memory, and those who move objects, and nobody else: keep it short. */
QUARRY_API void quarry_enter(void);

/** Leave it: what quarry_get and quarry_get_mut gave is not to be used any more. */
QUARRY_API void quarry_leave(void);

/** The address of an object, for reading, in a scope. Two loads, neither of the object.
 * @return it; NULL with ESTALE (the object was freed), EINVAL (no handle of these lanes). Of a cold object (see
 *         quarry_cold_attr), which is brought back now: ENOMEM, EIO (it is lost, or cannot be read). */
static inline const void *quarry_get(quarry_lanes *lanes, quarry_handle h)
{
	const quarry_lanes_map *map = (const quarry_lanes_map *)(const void *)lanes;
	uint64_t slot = (uint32_t)h;

	if (__builtin_expect(slot < map->slots && (h & QUARRY_HANDLE_NUMBER) == map->number, 1)) {
		uint64_t word = __atomic_load_n(&map->words[slot], __ATOMIC_ACQUIRE) ^ (h << 16 & QUARRY_WORD_GENERATION);

		if (__builtin_expect((word & QUARRY_WORD_ELSE) == 0, 1))
			return (const void *)((word & QUARRY_WORD_ADDRESS) >> 1);
	}
	return quarry_get_slow(lanes, h);
}

/** The address of an object, for writing, in a scope: as quarry_get, and who was just moving the object gives up.
 * Nobody waits. */
QUARRY_API void *quarry_get_mut(quarry_lanes *lanes, quarry_handle h);

/** As quarry_get, with all bits of the handle looked at (quarry_get does not look at the type and the lane), and without
 * ever waiting. @param p receives the address. @return 0; -1 with ESTALE, EINVAL, EAGAIN (the object is cold: see
 * quarry_prefetch). */
QUARRY_API int quarry_try_get(quarry_lanes *lanes, quarry_handle h, const void **p);

/** A part of an object, for reading, in a scope. @param offset, length bytes. @return its address; NULL with ERANGE when
 * the object has no such part, else as quarry_get. */
QUARRY_API const void *quarry_get_range(quarry_lanes *lanes, quarry_handle h, size_t offset, size_t length);

/** Whether the handle's object is there, at this moment. All bits of it are looked at. 1 or 0; errno stays. */
QUARRY_API int quarry_handle_valid(quarry_lanes *lanes, quarry_handle h);

enum quarry_handle_states {
	QUARRY_HANDLE_VALID,
	QUARRY_HANDLE_PINNED,
	QUARRY_HANDLE_MOVING,  /* somebody moves it: it can be got as ever */
	QUARRY_HANDLE_FREED,   /* the slot's last object was this, and is freed */
	QUARRY_HANDLE_STALE,   /* freed, and the slot has had others since */
	QUARRY_HANDLE_FOREIGN, /* of other lanes */
	QUARRY_HANDLE_CORRUPT, /* never a handle of these lanes */
	QUARRY_HANDLE_COLD,    /* compressed, in memory */
	QUARRY_HANDLE_EVICTED, /* compressed, in the file */
	QUARRY_HANDLE_LOST     /* it was cold, and its bytes are not what was written: nobody gets it any more */
};

/** How a handle's object is, at this moment: enum quarry_handle_states. -1 with EINVAL when there are no lanes. */
QUARRY_API int quarry_handle_state(quarry_lanes *lanes, quarry_handle h);

/** Keep an object where it is, across scopes and system calls, until quarry_unpin; pins are counted (up to 65,535).
 * @return its address, for reading and writing; NULL with ESTALE, EINVAL, EAGAIN (too many pins). */
QUARRY_API void *quarry_pin(quarry_lanes *lanes, quarry_handle h);

/** Take back a pin. When the object was freed meanwhile, the last of its pins to go frees its memory.
 * @return 0; -1 with EINVAL when it has none. */
QUARRY_API int quarry_unpin(quarry_lanes *lanes, quarry_handle h);

/* ------------------------------------------------------------------------------------------------------ */
/* The fast lane                                                                                          */

/* For objects that live short. Each thread takes them from a chunk of its own, one behind the other (each with 16 bytes
 * more); a chunk whose objects are all gone begins anew at once, when the scopes of then are over. An object that stays is
 * moved to the slow lane (promoted), where memory is packed: when it is old, by ticks, or large, when the fast lane
 * has no room, when a compaction is told to, or by a call; a call takes it back (demotes it).
 *
 * Its handle stays what it is. So a handle's sign says in which lane its object was born, for ever, and
 * quarry_handle_lane where it is. Nothing of this needs the program to look. */

enum quarry_lane {
	QUARRY_LANE_ANY, /* by the threshold and hints */
	QUARRY_LANE_FAST,
	QUARRY_LANE_SLOW
};

enum quarry_priority {
	QUARRY_PRIORITY_NORMAL,
	QUARRY_PRIORITY_LOW,     /* refused first when the slow lane is nearly full; leaves the fast lane at half the age */
	QUARRY_PRIORITY_CRITICAL /* may take what is kept free for moves; does not leave the fast lane for want of room */
};

/* Hints, and what is to be done. */
#define QUARRY_HALLOC_FRAME_CRITICAL 1u /* begins in the fast lane, whatever its size */
#define QUARRY_HALLOC_COLD 2u           /* will seldom be used: begins in the slow lane */
#define QUARRY_HALLOC_OLD 4u            /* will stay: begins in the slow lane */
#define QUARRY_HALLOC_EVICTABLE (QUARRY_HALLOC_COLD | QUARRY_HALLOC_OLD)
#define QUARRY_HALLOC_NOSPILL 8u /* stays in its lane: none rather than one in the next; only calls move it to another */

/** Objects that are freed, pinned, moved and limited as one. */
typedef struct quarry_group quarry_group;

/** What an object is to be. Zero-initialise it. */
typedef struct quarry_halloc_attr {
	uint32_t struct_size; /* sizeof(struct quarry_halloc_attr), or 0, which means the same */
	uint32_t flags;       /* QUARRY_HALLOC_... */
	uint64_t alignment;   /* bytes: a power of two up to 2 MiB; 0: 16 */
	uint32_t type;        /* 0 to 255 */
	uint16_t lane;        /* enum quarry_lane: where it begins, if there is room */
	uint16_t priority;    /* enum quarry_priority */
	quarry_group *group;  /* that it is in from the beginning; NULL: none */
} quarry_halloc_attr;

/** Allocate an object. Where its lane has no room, it begins in the next: fast, slow, the attributes' failover arenas.
 * @param attr NULL: all zero. @return as quarry_halloc_typed; ENOMEM also when its group is full (quarry_error_text()
 *         says so). */
QUARRY_API quarry_handle quarry_halloc_with(quarry_lanes *lanes, size_t size, const quarry_halloc_attr *attr);

/** Other hints and another priority for an object; QUARRY_HALLOC_NOSPILL among them. An object that has hints, a
 * priority or a group does not become cold. @return 0; -1 with ESTALE, EINVAL,
 * ENOMEM (no memory to note them). */
QUARRY_API int quarry_hint(quarry_lanes *lanes, quarry_handle h, uint32_t flags, int priority);

/** What an object is: type, the lane it is in, hints, priority, group; alignment is 0.
 * @param attr struct_size is sizeof or 0. @return 0; -1 with ESTALE, EINVAL. */
QUARRY_API int quarry_handle_attr(quarry_lanes *lanes, quarry_handle h, quarry_halloc_attr *attr);

/** The lane that an object is in, at this moment: QUARRY_LANE_FAST or QUARRY_LANE_SLOW; -1 with ESTALE, EINVAL. */
QUARRY_API int quarry_handle_lane(quarry_lanes *lanes, quarry_handle h);

/** A frame, or any step of the program's, is over: objects of the fast lane are one tick older, and those that are due
 * are promoted (not in a scope, nor while another move is under way: then by the next tick). Any thread.
 * @return objects promoted; -1 with EINVAL. */
QUARRY_API int64_t quarry_lanes_tick(quarry_lanes *lanes);

/** Move an object to the slow lane, now. Not in a scope: it waits for those that are open.
 * @return 0, also when it is there already; -1 with ESTALE, EINVAL, EDEADLK (in a scope), EBUSY (another move is under
 *         way, it is pinned, or somebody got it for writing meanwhile), ENOMEM. */
QUARRY_API int quarry_promote(quarry_lanes *lanes, quarry_handle h);

/** Move an object to the calling thread's fast lane, now. @return as quarry_promote; EFBIG when it is larger than
 * 1,000,000 bytes, or beyond segments. */
QUARRY_API int quarry_demote(quarry_lanes *lanes, quarry_handle h);

/** Move all objects of the fast lane to the slow lane, whatever their age, but those that are to stay
 * (QUARRY_HALLOC_NOSPILL), are pinned or being written. @return objects; -1 as quarry_promote. */
QUARRY_API int64_t quarry_oneway_flush(quarry_lanes *lanes);

/** Why an object was promoted. */
enum quarry_promotions {
	QUARRY_PROMOTED_AGE,
	QUARRY_PROMOTED_SIZE,
	QUARRY_PROMOTED_USAGE,      /* the fast lane was nearly full at a tick */
	QUARRY_PROMOTED_FAILURE,    /* it had no room */
	QUARRY_PROMOTED_COMPACTION, /* QUARRY_COMPACT_PROMOTE */
	QUARRY_PROMOTED_CALL,
	QUARRY_PROMOTIONS
};

/** Have a function called for each object that was promoted, by the thread that did it, outside scopes. It may use the
 * handle, and may not move, compact or make objects in the fast lane. NULL: none. One for lanes; set it before others use them.
 * @param arg for the function. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_promote_hook(quarry_lanes *lanes, void (*hook)(void *arg, quarry_handle h, int why), void *arg);

/** How many objects that were born in the fast lane are in the slow one. -1 with EINVAL. */
QUARRY_API int64_t quarry_stub_count(quarry_lanes *lanes);

/** What has to be done now and then: promote what is due, give empty chunks back, and, with enable_auto_compaction,
 * compact when the threshold says so. Not in a scope.
 * @param budget_us for the compaction; 0: any time.
 * @return bytes that went back to the arena; -1 as quarry_compact. */
QUARRY_API int64_t quarry_maintain(quarry_lanes *lanes, uint64_t budget_us);

/** Figures of the fast lane and of what moves between lanes. Bytes unless said otherwise. */
typedef struct quarry_fast_stats {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t chunks;      /* count */
	uint64_t objects;     /* live, count */
	uint64_t live;        /* what they may use */
	uint64_t held;        /* all of the chunks */
	uint64_t ticks;       /* count */
	uint64_t resets;      /* chunks that began anew, count */
	uint64_t promoted[QUARRY_PROMOTIONS]; /* by why, count */
	uint64_t promoted_bytes;
	uint64_t demoted;     /* count */
	uint64_t given_up;    /* that a writer, a pin, a free or no memory stopped, count */
	uint64_t stubs;       /* born in the fast lane, in the slow one now, count */
	uint64_t spilled;     /* were to begin in the fast lane, which had no room, count */
	uint64_t failed_over; /* began in an arena of failover, count */
	uint64_t refused;     /* for their priority, or as they were not to spill, count */
} quarry_fast_stats;

/** Count what there is. @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_fast_stats_get(quarry_lanes *lanes, quarry_fast_stats *stats);

/* ------------------------------------------------------------------------------------------------------ */
/* Groups                                                                                                 */

/** What a group is to be. Zero-initialise it. */
typedef struct quarry_group_attr {
	uint32_t struct_size; /* sizeof(struct quarry_group_attr), or 0, which means the same */
	uint32_t flags;       /* 0 */
	uint64_t limit;       /* bytes that its objects may have together; 0: any */
	const char *name;     /* for people; up to 31 bytes are kept. NULL: none */
} quarry_group_attr;

/** Make a group. @param attr NULL: all zero. @return it; NULL with EINVAL, ENOMEM. Any thread may use it. */
QUARRY_API quarry_group *quarry_group_create(quarry_lanes *lanes, const quarry_group_attr *attr);

/** End a group, which nobody may be using. Its pins are taken back; its objects stay, in none. quarry_lanes_destroy ends
 * those that are left.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_group_destroy(quarry_group *group);

/** Put an object into the group; it leaves the one it was in, whose pins are taken back. @return 0; -1 with ESTALE,
 * EINVAL, ENOMEM (the group is full, or no memory to note it). */
QUARRY_API int quarry_group_add(quarry_group *group, quarry_handle h);

/** Take an object out of the group, whose pins are taken back. @return 0; -1 with ESTALE, EINVAL (it is in none, or in another). */
QUARRY_API int quarry_group_remove(quarry_group *group, quarry_handle h);

/** Free all objects that are in it now. @return how many; -1 with EINVAL. */
QUARRY_API int64_t quarry_group_free_all(quarry_group *group);

/** Pin all objects that are in it now, once each. @return how many; -1 with EINVAL. */
QUARRY_API int64_t quarry_group_pin(quarry_group *group);

/** Take back one pin of each object that quarry_group_pin pinned. What was freed meanwhile is in the group, and keeps its
 * memory, until then. @return how many; -1 with EINVAL. */
QUARRY_API int64_t quarry_group_unpin(quarry_group *group);

/** Move all objects that are in it now to a lane. Not in a scope. @param lane QUARRY_LANE_FAST or QUARRY_LANE_SLOW.
 * @return how many went; those that are there already, pinned or being written do not count; -1 as quarry_promote. */
QUARRY_API int64_t quarry_group_migrate(quarry_group *group, int lane);

/** Another limit, in bytes; 0: any. What is in it already stays. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_group_limit(quarry_group *group, uint64_t limit);

/** The handles of its objects: up to `room` of them are written to `h`. @return how many there are; -1 with EINVAL. */
QUARRY_API int64_t quarry_group_handles(quarry_group *group, quarry_handle *h, size_t room);

/** Figures of a group. */
typedef struct quarry_group_stats {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t reserved;
	uint64_t objects;     /* count */
	uint64_t bytes;
	uint64_t limit;       /* bytes; 0: none */
	uint64_t refused;     /* over the limit, count */
	uint64_t peak;        /* bytes */
	char name[32];
} quarry_group_stats;

/** Count what there is. @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_group_stats_get(quarry_group *group, quarry_group_stats *stats);

/* ------------------------------------------------------------------------------------------------------ */
/* Compaction                                                                                             */

enum quarry_compact_style {
	QUARRY_COMPACT_NONE,  /* move nothing: what is free already goes back */
	QUARRY_COMPACT_ENOUGH, /* until so many bytes, as whole segments of 2 MiB, are free */
	QUARRY_COMPACT_FULL    /* all that can be packed */
};

/* Lanes of 64 MiB and more are packed in the background as well, by a thread of the library's that runs while there is
 * something to gain (option reclaim other than off, series and timer): from a tenth of waste on, for 1 to 25 percent of a
 * processor. When a pass gains little it waits, the longer the more often. Spans that threads took and leave alone are
 * taken back from them. */
#define QUARRY_COMPACT_PROMOTE 256 /* added to a style: objects of the fast lane that saw a tick are promoted first */

/** Pack objects and give whole segments of 2 MiB back to the arena, those first that cost the fewest bytes to copy.
 * Others go on meanwhile. Not in a scope.
 * @param style enum quarry_compact_style, and QUARRY_COMPACT_PROMOTE.
 * @param enough bytes, for QUARRY_COMPACT_ENOUGH.
 * @param budget_us microseconds that it may take; 0: any time. What was begun goes on with the next call. Objects that are
 *        too large to be copied in the half of it, as copies go here, are left alone.
 * @return bytes that went back to the arena; -1 with EINVAL, EDEADLK (in a scope), EBUSY (another call is under way; the
 *         mover in the background steps aside). */
QUARRY_API int64_t quarry_compact(quarry_lanes *lanes, int style, size_t enough, uint64_t budget_us);

/* ------------------------------------------------------------------------------------------------------ */
/* Cold memory                                                                                            */

/** Look which objects nobody got since the pass before, and compress those; a pass begins when its time has come, and
 * goes on, call by call, for so long as the budget is. (In the background the mover's thread does the same, for a tenth of a
 * processor; where there is none, as by QUARRY_LANES_NO_MOVER, it is the program's to call this.) Then send compressed bytes above the limit to the file. Not in a
 * scope. Objects that are pinned, or beyond 1 MiB, never become cold, nor do those whose class does not become smaller by
 * an eighth (which is found out again now and then).
 * @param budget_us microseconds after which nothing more is begun; 0: any time.
 * @return objects that became cold; -1 with EINVAL, ENOTSUP (these lanes have no cold memory), EDEADLK (in a scope), EBUSY
 *         (objects are being moved by another thread; the mover in the background steps aside). */
QUARRY_API int64_t quarry_cool(quarry_lanes *lanes, uint64_t budget_us);

/** Have these objects become cold now, whoever got them last. @param handles, count which; what is no handle, is pinned or cold
 * already is passed over. @return as quarry_cool. */
QUARRY_API int64_t quarry_evict(quarry_lanes *lanes, const quarry_handle *handles, size_t count);

/** Bring those of these objects back that are cold, before they are asked for. @return how many; -1 with EINVAL. */
QUARRY_API int64_t quarry_prefetch(quarry_lanes *lanes, const quarry_handle *handles, size_t count);

/** Figures of cold memory. Bytes unless said otherwise. */
typedef struct quarry_cold_stats {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t reserved;
	uint64_t objects;     /* that are cold, count */
	uint64_t bytes;       /* as large as they were */
	uint64_t compressed;  /* what is in memory for them now */
	uint64_t evicted;     /* what is in the file */
	uint64_t loaded;      /* objects that came back, count */
	uint64_t incompressible; /* times that objects were not worth it */
	uint64_t corrupt;     /* pieces of 64 KiB that are lost, in whole or in part, count */
	uint64_t failures;    /* of the file: to be written (then it is left alone for 5 s) or read, count */
	uint64_t period_ms;   /* as it is now */
} quarry_cold_stats;

/** Count what is cold. @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_cold_stats_get(quarry_lanes *lanes, quarry_cold_stats *stats);

/* ------------------------------------------------------------------------------------------------------ */
/* Figures                                                                                                */

/** Figures of lanes, but for the fast one (quarry_fast_stats). Bytes unless said otherwise. */
typedef struct quarry_lanes_stats {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t segments;    /* of 2 MiB, count */
	uint64_t objects;     /* live, count */
	uint64_t live;        /* what live objects may use */
	uint64_t held;        /* all memory of segments and of objects beyond them */
	uint64_t waiting;     /* freed, with somebody in a scope since, or not looked at yet */
	uint64_t handles;     /* slots ever used, count */
	uint64_t retired;     /* slots whose generations are used up, count */
	uint64_t moved;       /* objects, count */
	uint64_t moved_bytes;
	uint64_t given_up;    /* moves that a writer, a pin or a free stopped, count */
	uint64_t freed_segments; /* by compaction, count */
	/* The mover. */
	uint64_t mover_ns;       /* that the one in the background ran */
	uint64_t mover_plans;    /* how often it looked at all segments, count */
	uint64_t recalled;       /* times that a thread's spans were taken back from it, count */
	uint64_t scratch;        /* held for movers alone, beside `held` */
} quarry_lanes_stats;

/** Count what there is. @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_lanes_stats_get(quarry_lanes *lanes, quarry_lanes_stats *stats);

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif

#endif
