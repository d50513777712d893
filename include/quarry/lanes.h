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
 * pointer: a pointer from before shows the object as it was before it was moved, or brought back from the cold, and not what others,
 * or the thread itself, wrote since. What is got later shows it; two pointers to one object need not be the same.
 * quarry_pin is for what has to stay where it is beyond a scope, as across a system call.
 *
 * Scopes cost no atomic read-modify-write and no fence: who moves or frees asks the kernel for a fence in all threads
 * (membarrier(2), Linux 4.14; without it each scope has a fence of its own) and waits for the scopes that were open then
 * (the idea of epochs: K. Fraser, Practical lock-freedom, 2004). None of this is for signal handlers.
 */
#ifndef QUARRY_LANES_H
#define QUARRY_LANES_H

#include "quarry.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QUARRY_HAS_TSAN_ 1
#endif
#endif

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

#define QUARRY_HANDLE_NONE UINT64_C(0)

enum quarry_cold_flags {
	QUARRY_COLD_NO_COPIES = 1 /* each quarry_get brings back what is cold: see there */
};

/** What becomes of objects that nobody looks at: they are compressed, and, where there is a directory, go to a file.
 * Whoever gets them brings them back, or has a copy (quarry_get), which then takes about a microsecond, or a read of the file.
 * Zero-initialise it. */
typedef struct quarry_cold_attr {
	uint32_t struct_size; /* sizeof(struct quarry_cold_attr), or 0, which means the same */
	uint32_t flags;       /* enum quarry_cold_flags, or-ed */
	uint32_t period_ms;   /* objects that nobody got for so long, at least, become cold; 0: 30,000. It is longer, up to 64
	                       * times, while bringing back and copying take more than stall_percent. What came back at the first
	                       * time that it was got, and was got only once since then, goes with the next pass */
	uint32_t stall_percent; /* what bringing objects back, and copying them, may take of the processor time of the process; 0: 3. Up to 100 */
	const char *codec;    /* "lz4" (NULL means it), "zstd", "none": the library is loaded then (liblz4.so.1, libzstd.so.1) */
	uint64_t memory_limit;/* bytes of compressed objects in memory, above which the oldest go to the file; 0: any */
	const char *directory;/* of the file, which has no name and ends with the process; NULL: there is none */
	uint64_t file_limit;  /* bytes of the file, at most; 0: any */
	const char *long_codec; /* what has been cold for long, and what goes to the file, is compressed anew: "zstd", by dictionaries that
	                       * are trained for each size of objects there is enough of. NULL: it is not */
	uint32_t long_periods;/* for so many passes; 0: 8 */
	uint32_t long_reserved; /* 0 */
} quarry_cold_attr;

enum quarry_lanes_flags {
	QUARRY_LANES_NO_MOVER = 1, /* nothing is packed in the background */
	QUARRY_LANES_CANARIES = 2  /* for finding mistakes: behind each object stands how long it is, in 8 bytes more of it, which are
	                            * looked at when it is freed, moved, compressed or brought back, and by quarry_lanes_check
	                            * (quarry/track.h). Who wrote beyond what was asked for is told so: quarry_hfree says EBADMSG and names
	                            * the handle, quarry_handle_state QUARRY_HANDLE_CORRUPT, an event QUARRY_LANES_CORRUPT; the object
	                            * stays where it is, and can be got as ever. Making and freeing take longer; quarry_hsize is
	                            * what was asked for, and asking brings a cold object back: there are no copies (quarry_get). Wherever
	                            * sizes are compared, but for `threshold`, an object counts with its 8 bytes: whether it is large, a
	                            * blob, or too large for the fast lane */
};

#define QUARRY_FAILOVERS 4

/** What lanes are to be. Zero-initialise it. */
typedef struct quarry_lanes_attr {
	uint32_t struct_size; /* sizeof(struct quarry_lanes_attr), or 0, which means the same */
	uint32_t flags;       /* enum quarry_lanes_flags, or-ed */
	uint64_t handles;     /* at most so many at once: up to 2^31 - 2; 0: 2^24. 8 bytes of address space for each, in
	                       * memory for those that are used, by pages of 512 */
	quarry_arena *arena;  /* where the memory is from. NULL: see memory */
	const quarry_arena_attr *memory; /* without an arena: one of its own, made so. NULL: the default arena */
	uint32_t generations; /* that a slot has before it is retired, 1 to 65,534; 0: 65,534. Fewer are for tests */
	uint32_t reserved;    /* 0 */
	const struct quarry_cold_attr *cold; /* what becomes of objects that nobody looks at. NULL: they stay */
	/* The mover in the background. Waste is what segments hold beside live objects, in percent of those. */
	uint32_t mover_start;  /* waste from which it packs; 0: 10, with cold memory 3 */
	uint32_t mover_full;   /* waste from which on it takes mover_most; 0: 100. Between, in between */
	uint32_t mover_least;  /* percent of a processor, at mover_start: 1 to 100; 0: 1 */
	uint32_t mover_most;   /* the same, at mover_full; 0: 25 */
	uint64_t mover_ignore; /* so many bytes of waste are none; 0: a 16th of what segments hold, with cold memory 8 MiB */
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
	const char *name;                         /* for people, in figures; up to 31 bytes are kept. NULL: none */
	uint32_t blob_threshold; /* objects of more bytes, rounded up to a class of sizes (an eighth more, at most), are blobs: instead of
	                          * standing among others of their class they have pages of 64 KiB for themselves, or, below 32 KiB
	                          * and beyond 1 MiB, a block of the arena's, where they are never packed nor become cold. 1024 to
	                          * 131,072; 0: 131,072 */
	uint32_t blob_reserved;  /* 0 */
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
 * something of them. Waits for functions that are being told of events (quarry_lanes_on_event in quarry/track.h).
 * @return 0; -1 with EINVAL when they are none, EDEADLK from inside their own such function. */
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
 * until they leave or unpin. @return 0; -1 with ESTALE (freed already, by whomever), EBADMSG (QUARRY_LANES_CANARIES: it was written
 * beyond its end, and stays), EINVAL (no handle of these
 * lanes: what quarry_handle_state calls CORRUPT or FOREIGN, as one with another type's bits while the object is there). Of several
 * who free it at once, one gets 0. */
QUARRY_API int quarry_hfree(quarry_lanes *lanes, quarry_handle h);

/** Have another handle for an object, one with a lower slot, so that words of slots that few objects are left of may go
 * back to the kernel: 4 KiB for 512 slots, once none of them has an object. What is behind a handle can be moved, its slot
 * cannot; a program that knows all places where a handle stands may go over them with this now and then, as when
 * quarry_rehandle_gain() says that it is worth it. For the old handle the object is freed (ESTALE); who got it before, in a
 * scope, is not disturbed; but an object that is read optimistically may not be between quarry_write_begin and quarry_write_end
 * meanwhile, for readers by its new handle do not see that. In a scope or outside, any thread.
 * @return the new handle; the same one, where nothing would be gained, and of an object that is pinned, cold, in a group or
 *         with hints, or just being moved or freed by others; 0 with ESTALE, EINVAL. */
QUARRY_API quarry_handle quarry_rehandle(quarry_lanes *lanes, quarry_handle h);

/** Bytes of slots' words that would go back if quarry_rehandle was called for every object. Costs five loads. @return them;
 * 0 also when there are no lanes. */
QUARRY_API size_t quarry_rehandle_gain(quarry_lanes *lanes);

/** How many bytes of an object may be used: at least what was asked for. 0 with ESTALE or EINVAL. */
QUARRY_API size_t quarry_hsize(quarry_lanes *lanes, quarry_handle h);

/** What stands at the beginning of lanes, for the inline functions here: read it, never write it. */
typedef struct quarry_lanes_map {
	const uint64_t *words; /* a slot's: generation (16 bits), address / 16 (43), state (5) */
	uint64_t slots;        /* how many words may be read */
	uint64_t number;       /* of the lanes, where it stands in a handle */
	const uint64_t *epoch; /* memory that was given up is used again after it has moved on */
	const uint64_t *writes;/* by slot, QUARRY_OPT_COUNTERS of them: how many write (16 bits), and have written (48) */
} quarry_lanes_map;

#define QUARRY_HANDLE_NUMBER ((uint64_t)0x7f << 56)
#define QUARRY_WORD_GENERATION ((uint64_t)0xffff << 48)
#define QUARRY_WORD_ADDRESS ((uint64_t)0xffffffffffe0)
#define QUARRY_WORD_FREE ((uint64_t)1)
#define QUARRY_WORD_COLD ((uint64_t)2)
#define QUARRY_WORD_MOVING ((uint64_t)4)
#define QUARRY_WORD_HEAD ((uint64_t)8) /* its record stands before it: in the fast lane, or beyond segments */
#define QUARRY_WORD_UNSEEN ((uint64_t)16) /* nobody has got it of late: the next who does is told of */

/* What of a word comes and goes without the object's being anywhere else. */
#define QUARRY_WORD_PASSING (QUARRY_WORD_MOVING | QUARRY_WORD_UNSEEN)

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
 *
 * A cold object (see quarry_cold_attr) that is got now and then stays cold, and the address is of a copy, the thread's until its
 * outermost scope is left; who gets it again in that scope has the same copy, while nobody has brought the object back. For
 * the third time (each pass of quarry_cool forgets half of them) it is brought back, as it is at once where the thread has 16
 * copies or 16 KiB of them in its scope, or the object is larger than 4 KiB, in the file, in a group, has hints or a tag, or
 * was the last that was refused to the thread (EAGAIN); and by all other ways to an object than this, quarry_get_range, and what is
 * made of them (quarry_hread, quarry_get_span, quarry_get_string); quarry_collect has copies too, and does not count. Where there is no
 * memory to bring it back to, there is a copy all the same, if the thread has room for one and was not refused it. A copy is what
 * rule 3 says that a pointer from before is.
 * @return it; NULL with ESTALE (the object was freed), EINVAL (no handle of these lanes). Of a cold object: ENOMEM, EIO (it is lost,
 *         or cannot be read). */
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
	QUARRY_HANDLE_STALE,   /* freed, and the slot has had others since, or its word went back to the kernel */
	QUARRY_HANDLE_FOREIGN, /* of other lanes */
	QUARRY_HANDLE_CORRUPT, /* never a handle of these lanes; or, with QUARRY_LANES_CANARIES, its object was written beyond */
	QUARRY_HANDLE_COLD,    /* compressed, in memory */
	QUARRY_HANDLE_EVICTED, /* compressed, in the file */
	QUARRY_HANDLE_LOST     /* it was cold, and its bytes are not what was written: nobody gets it while that is so */
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
/* Optimistic reads                                                                                       */

/* A read that never waits and stores nothing that others look at, but that the thread is in a scope: note how the object is, read
 * its bytes where they seem to be, and look whether all that was so from the one to the other; else the bytes are worth
 * nothing. (The idea of sequence locks, with a handle's word as a part of the sequence.) quarry_opt_read does all of it; by hand
 * it is:
 *
 * @code
 *   struct row row;
 *   quarry_look look;
 *
 *   int error = 0;
 *
 *   quarry_enter();
 *   do {
 *           if (quarry_opt_begin(rows, h, &look) != 0)
 *                   error = errno;             // EAGAIN: cold, or being written; ESTALE: freed
 *           else
 *                   quarry_opt_copy(&row, look.at, sizeof(row));
 *   } while (error == 0 && !quarry_opt_end(rows, &look));
 *   quarry_leave();
 * @endcode
 *
 * What it promises: the object was there in between, not freed, moved, cooled nor demoted, and its bytes are what they were
 * at one moment, if all who write to it do so between quarry_write_begin and quarry_write_end. Of objects that are not
 * written to any more, nobody needs those two.
 *
 * Rules. (1) What was read is believed after quarry_opt_end has said 1, and no sooner: before that it may be another object's, or
 * of two moments. Nothing is followed that was read, no index is used. (2) No byte beyond what was asked for when the object was
 * allocated. (3) From before quarry_opt_begin until the last byte is read the thread is in a scope (quarry_opt_read enters one
 * itself): so the memory stays, whoever frees or moves the object. Outside of one a look is good for quarry_opt_end alone, as to ask
 * whether something has changed: the memory may have gone back to the kernel, and who reads it is killed (SIGSEGV). (4) For the language, and for its checkers (ThreadSanitizer, AddressSanitizer,
 * Valgrind), reading what somebody may write or free is a mistake, unless they are told: quarry_opt_copy is, and so are
 * loads of single fields by __atomic_load_n, relaxed, where the writers store them so. (5) Nobody forks between
 * quarry_write_begin and quarry_write_end. */

/** A look at an object that was begun. Its fields but `at` are the library's. */
typedef struct quarry_look {
	const void *at; /* the object, as it seems */
	uint64_t word, epoch, writes;
	uint64_t slot;
} quarry_look;

#define QUARRY_OPT_COUNTERS 1024u
#define QUARRY_OPT_WRITING ((uint64_t)0xffff)

/* quarry_opt_begin's, of an object that was not seen of late, or is not to be had so. @return as quarry_opt_begin. */
QUARRY_API int quarry_opt_begin_slow(quarry_lanes *lanes, quarry_handle h, quarry_look *look);

/** Begin an optimistic read, in a scope where it is to be read. Two threads or more read one object so without a line of memory going from
 * one to the other. (The first look after a pass over what is cold clears a bit.)
 * @param look receives what is to be looked at again, and where the object seems to be.
 * @return 0; -1 with EAGAIN (it is cold: see quarry_get, quarry_prefetch; or somebody is writing to it, or to one of its
 *         neighbours in the table), ESTALE, EINVAL. */
static inline int quarry_opt_begin(quarry_lanes *lanes, quarry_handle h, quarry_look *look)
{
	const quarry_lanes_map *map = (const quarry_lanes_map *)(const void *)lanes;
	uint64_t slot = (uint32_t)h;

	if (__builtin_expect(slot < map->slots && (h & QUARRY_HANDLE_NUMBER) == map->number, 1)) {
		look->slot = slot;
		look->writes = __atomic_load_n(&map->writes[slot % QUARRY_OPT_COUNTERS], __ATOMIC_ACQUIRE);
		look->epoch = __atomic_load_n(map->epoch, __ATOMIC_ACQUIRE);
		look->word = __atomic_load_n(&map->words[slot], __ATOMIC_ACQUIRE);
		look->at = (const void *)((look->word & QUARRY_WORD_ADDRESS) >> 1);
		if (__builtin_expect(((look->word ^ (h << 16 & QUARRY_WORD_GENERATION)) & QUARRY_WORD_ELSE) == 0 &&
					     (look->writes & QUARRY_OPT_WRITING) == 0,
				     1))
			return 0;
	}
	return quarry_opt_begin_slow(lanes, h, look);
}

/** End it. @param look what quarry_opt_begin filled in.
 * @return 1: what was read since then is what the object had; 0: it is worth nothing. errno stays. */
static inline int quarry_opt_end(quarry_lanes *lanes, const quarry_look *look)
{
	const quarry_lanes_map *map = (const quarry_lanes_map *)(const void *)lanes;

#if defined(__SANITIZE_THREAD__) || defined(QUARRY_HAS_TSAN_) /* knows no fences, and its loads are calls */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
	/* MOVING may have come: who moves it only reads here. */
	return ((__atomic_load_n(&map->words[look->slot], __ATOMIC_RELAXED) ^ look->word) & ~QUARRY_WORD_PASSING) == 0 &&
	       __atomic_load_n(map->epoch, __ATOMIC_RELAXED) == look->epoch &&
	       __atomic_load_n(&map->writes[look->slot % QUARRY_OPT_COUNTERS], __ATOMIC_RELAXED) == look->writes;
}

/** Copy bytes that others may be writing, or that are no object's any more, between quarry_opt_begin and quarry_opt_end, without
 * a checker's minding. @param to where to; the two do not overlap. @param from within the object of a look. */
QUARRY_API void quarry_opt_copy(void *to, const void *from, size_t size);

/** All of it: copy a part of an object, as it is at one moment; again, for a few times, where that was in vain.
 * @param offset, size bytes, within what was asked for when it was allocated: they are not checked.
 * @return 0; -1 with EAGAIN (as quarry_opt_begin; or each time somebody wrote to it or moved it), ESTALE, EINVAL: then `to` has
 *         any bytes. */
QUARRY_API int quarry_opt_read(quarry_lanes *lanes, quarry_handle h, size_t offset, void *to, size_t size);

/** As quarry_get_mut, in a scope, for an object that others read optimistically: until quarry_write_end no such read of it succeeds.
 * Writers do not exclude one another. @return as quarry_get_mut; when it is NULL, no quarry_write_end is due. */
QUARRY_API void *quarry_write_begin(quarry_lanes *lanes, quarry_handle h);

/** What was written is whole, before the scope is left. @param h the handle of quarry_write_begin, freed since or not. */
QUARRY_API void quarry_write_end(quarry_lanes *lanes, quarry_handle h);

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

/** Other hints and another priority for an object; QUARRY_HALLOC_NOSPILL among them. With
 * QUARRY_HALLOC_COLD it becomes cold at each pass (see quarry_cool), whoever got it; with QUARRY_HALLOC_NOSPILL, or of critical
 * priority, it never does. @return 0; -1 with ESTALE, EINVAL,
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
 *         way, it is pinned, or somebody got it for writing meanwhile), ENOMEM, EBADMSG (QUARRY_LANES_CANARIES: it was written
 *         beyond its end, and stays). */
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

/** Have all objects that are in it now become cold, as by quarry_evict: side by side, so that they come back as cheaply. Not in a
 * scope. @return how many did; -1 as quarry_cool, ENOMEM. */
QUARRY_API int64_t quarry_group_evict(quarry_group *group);

/** Bring all of them back that are cold. @return how many; -1 with EINVAL, ENOMEM. */
QUARRY_API int64_t quarry_group_prefetch(quarry_group *group);

/** Have all objects that are in it now lie side by side, in segments of the group's own: those go back to the arena as a whole when
 * the group is freed, and packing leaves them there. New objects begin where they ever did: call it again. What is beyond segments,
 * pinned, cold or written to meanwhile stays where it is. Not in a scope.
 * @return how many went; -1 as quarry_group_migrate_node, ENOSPC (there are 63 groups with segments of their own and nodes). */
QUARRY_API int64_t quarry_group_compact(quarry_group *group);

/** Give the group's objects a time to live: who is in it for so long is freed, by quarry_group_expire, or by the next quarry_lanes_tick or
 * quarry_maintain that looks: those look at a group eight times in its time to live, so that who is over may be there for an eighth
 * of it longer. (What is to become cold for want of use instead is quarry_cold_attr's.) @param ttl_ms milliseconds, up to 2^31;
 * 0: for ever. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_group_ttl(quarry_group *group, uint64_t ttl_ms);

/** Free those objects of the group whose time is over, now. @return how many; -1 with EINVAL. */
QUARRY_API int64_t quarry_group_expire(quarry_group *group);

/** Another limit, in bytes; 0: any. What is in it already stays. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_group_limit(quarry_group *group, uint64_t limit);

/** The handles of its objects: up to `room` of them are written to `h`, which may be NULL when that is 0. @return how many there
 * are; -1 with EINVAL. */
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

/* Lanes of 8 MiB and more are packed in the background as well, by a thread of the library's that runs while there is
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
 * @return bytes that went back to the arena (for QUARRY_COMPACT_FULL one segment may be taken for four or more that go
 *         back, where classes have no room); -1 with EINVAL, EDEADLK (in a scope), EBUSY (another call is under way; the
 *         mover in the background steps aside). */
QUARRY_API int64_t quarry_compact(quarry_lanes *lanes, int style, size_t enough, uint64_t budget_us);

/* ------------------------------------------------------------------------------------------------------ */
/* Migration                                                                                              */

/* Objects are moved to a memory node by the same steps as a compaction moves them: others read, write and free them meanwhile.
 * There they are packed among themselves, and stay, until they are moved again. New objects begin where they ever did.
 * Not in a scope. A node is told by the kernel's id. What is pinned, cold, of an arena of failover, or written to as it is
 * copied, is left where it is. Up to 63 nodes for lanes. */

/** Move objects. @param handles, count which; what is no handle is passed over. @return how many went, those that were there
 * already not among them; -1 with EINVAL (no such node), EDEADLK (in a scope), EBUSY (another move is under way), ENOMEM
 * (none went, for want of memory there), ENOSPC (too many nodes). */
QUARRY_API int64_t quarry_handles_migrate(quarry_lanes *lanes, const quarry_handle *handles, size_t count, int node);

/** Move all objects that are in a group now. @return as quarry_handles_migrate. */
QUARRY_API int64_t quarry_group_migrate_node(quarry_group *group, int node);

/** Move all objects of a lane, those of the fast one to the slow one.
 * @param lane enum quarry_lane; QUARRY_LANE_ANY: both.
 * @param budget_us microseconds after which no other batch (of 256 KiB or an object) is begun; 0: any time. The next call with the
 *        same lane and node goes on. @return as quarry_handles_migrate; 0: all that can be are there; -1 with EAGAIN: the time was over before any went
 *        (others' scopes held it up, or wrote to them), and the next call goes on. */
QUARRY_API int64_t quarry_lanes_migrate(quarry_lanes *lanes, int lane, int node, uint64_t budget_us);

/** A migration that another thread does, one of the library's for each node. */
typedef struct quarry_migration quarry_migration;

/** Move objects as quarry_handles_migrate, by another thread, and go on. What is under way is waited for, not EBUSY.
 * @param handles they are copied. @param done called by that thread at the end, outside of scopes, with what quarry_migration_wait
 *        returns and the errno; NULL: nobody. It may use lanes as any thread, and not wait for a migration.
 * @return it, for quarry_migration_wait, which has to be called, and before the lanes end; NULL with EINVAL, ENOMEM, EAGAIN
 *         (there is no thread to be had). In a child of fork(2) all of them are over, with ECANCELED. */
QUARRY_API quarry_migration *quarry_migrate_async(quarry_lanes *lanes, const quarry_handle *handles, size_t count, int node,
						  void (*done)(void *arg, int64_t went, int error), void *arg);

/** Whether it is over. @return 1 or 0; -1 with EINVAL. */
QUARRY_API int quarry_migration_done(const quarry_migration *migration);

/** Wait until it is over, and end it. @return how many went; -1 as quarry_handles_migrate, EDEADLK (in a scope: then it goes on),
 * ECANCELED. */
QUARRY_API int64_t quarry_migration_wait(quarry_migration *migration);

/** How a speed is known. */
enum quarry_copy_known {
	QUARRY_COPY_MEASURED, /* by copying: the best of some tries, the processor being the caller's */
	QUARRY_COPY_TOLD,     /* by the firmware (HMAT): the lesser of the two nodes' bandwidths */
	QUARRY_COPY_GUESSED   /* by the kernel's distances */
};

/** What a migration would cost. */
typedef struct quarry_migrate_cost {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t known;       /* enum quarry_copy_known: how the speed of copies is known, the worst of all pairs of nodes */
	uint64_t objects, bytes; /* that would go: count; bytes to be copied */
	uint64_t there;       /* objects that are there already, count */
	uint64_t staying;     /* that are pinned, cold or of an arena of failover: they would be left, count */
	uint64_t ns;          /* about how long it would take, on one processor; nobody waits for it */
} quarry_migrate_cost;

/** Ask first. Nothing is moved; a pair of nodes that nobody asked about before is measured (quarry_node_copy).
 * @param cost struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_handles_migrate_cost(quarry_lanes *lanes, const quarry_handle *handles, size_t count, int node,
					   quarry_migrate_cost *cost);
QUARRY_API int quarry_group_migrate_cost(quarry_group *group, int node, quarry_migrate_cost *cost);
QUARRY_API int quarry_lanes_migrate_cost(quarry_lanes *lanes, int lane, int node, quarry_migrate_cost *cost);

/** How fast memory is copied from a node to another. It is measured the first time that somebody asks about the pair, which
 * takes some milliseconds, and once for all.
 * @param mib_s receives MiB/s. @return enum quarry_copy_known; -1 with EINVAL (no such node, mib_s is NULL). */
QUARRY_API int quarry_node_copy(int from, int to, uint64_t *mib_s);

/* ------------------------------------------------------------------------------------------------------ */
/* Cold memory                                                                                            */

/** Look which objects nobody got since the pass before, and compress those; a pass begins when its time has come, and
 * goes on, call by call, for so long as the budget is. (In the background the mover's thread does the same, for a tenth of a
 * processor; where there is none, as by QUARRY_LANES_NO_MOVER, it is the program's to call this.) Then compress anew what
 * has been cold for long, and send compressed bytes above the limit to the file; dictionaries are trained where there is
 * no budget, and in the background. Not in a scope. Objects that are pinned, or beyond 1 MiB, never become cold, nor do those whose class does not become smaller by
 * an eighth (which is found out again now and then).
 * @param budget_us microseconds after which nothing more is begun; 0: any time.
 * @return objects that became cold; -1 with EINVAL, ENOTSUP (these lanes have no cold memory), EDEADLK (in a scope), EBUSY
 *         (objects are being moved by another thread; the mover in the background steps aside). */
QUARRY_API int64_t quarry_cool(quarry_lanes *lanes, uint64_t budget_us);

/** Have these objects become cold now, whoever got them last. @param handles, count which; what is no handle, is pinned or cold
 * already is passed over. @return as quarry_cool. */
QUARRY_API int64_t quarry_evict(quarry_lanes *lanes, const quarry_handle *handles, size_t count);

/** Have objects become cold until so many bytes of them have, those first that are wanted least: of low priority and hinted
 * (QUARRY_HALLOC_COLD, QUARRY_HALLOC_OLD), of low priority, hinted, all others that nobody got since the last pass, and then
 * those that somebody did. Never those of critical priority or with QUARRY_HALLOC_NOSPILL.
 * @return bytes that went, as large as they were; -1 as quarry_cool. */
QUARRY_API int64_t quarry_shed(quarry_lanes *lanes, uint64_t bytes);

/** Bring those of these objects back that are cold, before they are asked for: each piece of the file that several of them
 * are in is read once, in whichever order they come. @return how many; -1 with EINVAL. */
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
	uint64_t deepened;    /* pieces of 64 KiB that were compressed anew by long_codec, count */
	uint64_t dictionaries; /* that there are, count, */
	uint64_t dictionary_bytes; /* beside what is `compressed` */
	uint64_t copies;      /* times that one was copied, and stayed cold, count */
} quarry_cold_stats;

/** Count what is cold. @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_cold_stats_get(quarry_lanes *lanes, quarry_cold_stats *stats);

/* ------------------------------------------------------------------------------------------------------ */
/* Handles of a type                                                                                      */

/** Handles of objects of one type, as a type of their own: QUARRY_HANDLE_TYPE(row_ref, struct row); at file scope makes
 * the type row_ref and functions for it, all inline and each what the function that it is named for is. Who takes one type's handle for
 * another's is stopped by the compiler. In C99 and later, and in C++ (where objects are plain data: they are copied as bytes).
 *
 * @code
 *   QUARRY_HANDLE_TYPE(row_ref, struct row);
 *
 *   row_ref r = row_ref_make(rows);              // contents are any; row_ref_is(r) is 0 when there is no memory
 *
 *   quarry_enter();
 *   const struct row *seen = row_ref_get(rows, r);
 *   struct row *mine = row_ref_get_mut(rows, r); // or row_ref_write_begin(rows, r), row_ref_write_end(rows, r)
 *   quarry_leave();
 *
 *   struct row copy;
 *   if (row_ref_read(rows, r, &copy) == 0)       // optimistically: see quarry_opt_read
 *           print(&copy);
 *   struct row *pinned = row_ref_pin(rows, r);   // until row_ref_unpin(rows, r)
 *   row_ref_free(rows, r);
 *   cursor_ref_get(rows, r);                     // an error: r is a row_ref
 * @endcode
 *
 * And row_ref_try_get, row_ref_valid, row_ref_prefetch; r.handle is the quarry_handle, and row_ref_of makes a row_ref of one, looking at its
 * type bits (else it is none). A pointer type wants a typedef. */
#define QUARRY_HANDLE_TYPE(name, type) QUARRY_HANDLE_TYPE_ID(name, type, 0)

/** The same with a number for the type, 0 to 255, that stands in the handles (quarry_halloc_typed): so row_ref_of knows at
 * run time as well whose a handle is. */
#define QUARRY_HANDLE_TYPE_ID(name, type, id) \
	typedef struct name##_handle { \
		quarry_handle handle; \
	} name; \
	QUARRY_HANDLE_FN_ name name##_of(quarry_handle h) \
	{ \
		name n; \
		n.handle = (h >> 48 & 0xff) == (id) ? h : QUARRY_HANDLE_NONE; \
		return n; \
	} \
	QUARRY_HANDLE_FN_ name name##_make(quarry_lanes *l) \
	{ \
		return name##_of(quarry_halloc_typed(l, sizeof(type), __alignof__(type) > 16 ? __alignof__(type) : 0, (id))); \
	} \
	QUARRY_HANDLE_FN_ int name##_is(name n) \
	{ \
		return n.handle != QUARRY_HANDLE_NONE; \
	} \
	QUARRY_HANDLE_FN_ int name##_valid(quarry_lanes *l, name n) \
	{ \
		return quarry_handle_valid(l, n.handle); \
	} \
	QUARRY_HANDLE_FN_ const type *name##_get(quarry_lanes *l, name n) \
	{ \
		return QUARRY_HANDLE_CAST_(const type *, quarry_get(l, n.handle)); \
	} \
	QUARRY_HANDLE_FN_ int name##_try_get(quarry_lanes *l, name n, const type **p) \
	{ \
		const void *at; \
		int result = quarry_try_get(l, n.handle, &at); \
		if (result == 0) \
			*p = QUARRY_HANDLE_CAST_(const type *, at); \
		return result; \
	} \
	QUARRY_HANDLE_FN_ type *name##_get_mut(quarry_lanes *l, name n) \
	{ \
		return QUARRY_HANDLE_CAST_(type *, quarry_get_mut(l, n.handle)); \
	} \
	QUARRY_HANDLE_FN_ type *name##_write_begin(quarry_lanes *l, name n) \
	{ \
		return QUARRY_HANDLE_CAST_(type *, quarry_write_begin(l, n.handle)); \
	} \
	QUARRY_HANDLE_FN_ void name##_write_end(quarry_lanes *l, name n) \
	{ \
		quarry_write_end(l, n.handle); \
	} \
	QUARRY_HANDLE_FN_ int name##_read(quarry_lanes *l, name n, type *to) \
	{ \
		return quarry_opt_read(l, n.handle, 0, to, sizeof(type)); \
	} \
	QUARRY_HANDLE_FN_ type *name##_pin(quarry_lanes *l, name n) \
	{ \
		return QUARRY_HANDLE_CAST_(type *, quarry_pin(l, n.handle)); \
	} \
	QUARRY_HANDLE_FN_ int name##_unpin(quarry_lanes *l, name n) \
	{ \
		return quarry_unpin(l, n.handle); \
	} \
	QUARRY_HANDLE_FN_ int name##_prefetch(quarry_lanes *l, name n) \
	{ \
		return quarry_prefetch(l, &n.handle, 1) < 0 ? -1 : 0; \
	} \
	QUARRY_HANDLE_FN_ int name##_free(quarry_lanes *l, name n) \
	{ \
		return quarry_hfree(l, n.handle); \
	} \
	struct name##_handle

/* What they are made of. */
#define QUARRY_HANDLE_FN_ static inline __attribute__((unused))
#ifdef __cplusplus
#define QUARRY_HANDLE_CAST_(type, p) (static_cast<type>(p))
#else
#define QUARRY_HANDLE_CAST_(type, p) (p)
#endif

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
	uint64_t handles;     /* slots ever used, count, in pages of 512 */
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

/** All figures of lanes at once, as quarry_stats_print, metrics, `quarry top` and `quarry map` tell them: with moves by why,
 * and lifetimes. Looks at all segments, some at a time, and holds nobody up for long.
 * @param figures struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_lanes_figures_get(quarry_lanes *lanes, quarry_lanes_figures *figures);

/** The same of classes that have something to tell, by size, then of groups, and of tags (quarry/track.h).
 * @param parts receives up to `room` of them. @return how many there are; -1 with EINVAL. */
QUARRY_API int64_t quarry_lanes_parts(quarry_lanes *lanes, quarry_lanes_part *parts, size_t room);

/** Count what there is. @param stats struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_lanes_stats_get(quarry_lanes *lanes, quarry_lanes_stats *stats);

#ifdef __cplusplus
#ifdef __clang__
#pragma clang diagnostic pop
#endif
}
#endif

#endif
