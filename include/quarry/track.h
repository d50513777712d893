/* SPDX-License-Identifier: MIT */
/**
 * quarry/track.h: what is known of objects behind handles (quarry/lanes.h): names, moves, how often they are used, pictures
 * of where they are, and being told when lanes are packed or grow.
 *
 * @code
 *   quarry_set_thread_tag("parser");             // what this thread allocates from here on is a parser's
 *   quarry_tag(rows, h, "session");              // and this object a session, exactly
 *
 *   quarry_moved moves[QUARRY_MOVES_KEPT];
 *   int n = quarry_moves_of(rows, h, moves, QUARRY_MOVES_KEPT);
 *   for (int i = 0; i < n && i < QUARRY_MOVES_KEPT; i++)
 *           printf("%s at tick %llu\n", quarry_move_name(moves[i].why), (unsigned long long)moves[i].tick);
 * @endcode
 *
 * Nothing of this is on the way of an object that is at hand: quarry_get, quarry_halloc and quarry_hfree are the same with it
 * and without. What is exact is of objects that the program names; what is of all objects is told by samples.
 */
#ifndef QUARRY_TRACK_H
#define QUARRY_TRACK_H

#include "lanes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------ */
/* Tags                                                                                                   */

#define QUARRY_TAG_NAME 32 /* bytes of a tag's name, with the 0 at its end */
#define QUARRY_TAGS 255    /* different names in a process, for as long as it runs */

/** Name an object, for people; its moves are noted from here on (quarry_moves_of), and how often it is used (quarry_used). An object
 * has one tag; objects with the same tag are counted together (quarry_lanes_parts, kind QUARRY_PART_TAG; statistics, metrics,
 * `quarry top`, `quarry map`). Such an object is not given another slot (quarry_rehandle). Any thread.
 * @param name 1 to 31 bytes. NULL: no name, and nothing is noted any more.
 * @return 0; -1 with ESTALE, EINVAL (no handle of these lanes, a name that is empty or too long), ENOMEM, ENOSPC (there are 255
 *         names). */
QUARRY_API int quarry_tag(quarry_lanes *lanes, quarry_handle h, const char *name);

/** The tag of an object. @return it, for as long as the process runs; NULL with ENOENT (it has none), ESTALE, EINVAL. */
QUARRY_API const char *quarry_tag_of(quarry_lanes *lanes, quarry_handle h);

/** Name what the calling thread allocates from here on, of all lanes. It is counted by samples, as lifetimes are: one for each
 * batch of up to 64 objects that the thread takes room for, with the name of then. @param name as of quarry_tag; NULL: none.
 * @return 0; -1 with EINVAL, ENOMEM, ENOSPC. */
QUARRY_API int quarry_set_thread_tag(const char *name);

/** The calling thread's. @return it; NULL: none. */
QUARRY_API const char *quarry_thread_tag(void);

/* ------------------------------------------------------------------------------------------------------ */
/* Moves                                                                                                  */

#define QUARRY_MOVES_KEPT 4 /* the last ones of an object */

/** Where an object is. */
enum quarry_places {
	QUARRY_PLACE_FAST = QUARRY_LANE_FAST,
	QUARRY_PLACE_SLOW = QUARRY_LANE_SLOW,
	QUARRY_PLACE_COLD /* compressed */
};

/** A move of an object. */
typedef struct quarry_moved {
	uint64_t tick; /* how many ticks there had been (quarry_lanes_tick); of those back from the cold the lower 31 bits */
	uint16_t from, to; /* enum quarry_places */
	uint16_t why;  /* enum quarry_moves: quarry_move_name */
	uint16_t reserved;
} quarry_moved;

/** The last moves of an object that has a tag, the last one first.
 * @param moves receives up to `room` of them. @return how many there were since it got its first tag, of which the last
 *         QUARRY_MOVES_KEPT are known; -1 with ENOENT (it has no tag), ESTALE, EINVAL. */
QUARRY_API int64_t quarry_moves_of(quarry_lanes *lanes, quarry_handle h, quarry_moved *moves, size_t room);

/* ------------------------------------------------------------------------------------------------------ */
/* Use                                                                                                    */

#define QUARRY_USES 8 /* how often: 0 to 7 */

/** Look which objects were got since the look before: those that have tags, and samples of all. Each of them has a number of three
 * bits, one more for a look when it was used, and half of it for one when it was not (the counter of a clock that
 * remembers). quarry_maintain looks as well. Of lanes with cold memory nothing is done here: the passes over what may become cold
 * look (quarry_cool). @return objects that were looked at; -1 with EINVAL. Any thread; two at once are one. */
QUARRY_API int64_t quarry_usage_look(quarry_lanes *lanes);

/** How often an object with a tag was used of late, 0 to 7. @return it; -1 with ENOENT (it has no tag), ESTALE, EINVAL. */
QUARRY_API int quarry_used(quarry_lanes *lanes, quarry_handle h);

/** How many objects were used how often, by samples. */
typedef struct quarry_usage {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t reserved;
	uint64_t looks;       /* count */
	uint64_t sampled;     /* objects that this is told by, count */
	uint64_t used[2][QUARRY_USES]; /* [0] born in the slow lane, [1] in the fast one: about so many objects */
} quarry_usage;

/** Figures of use. @param usage struct_size is sizeof or 0.
 * @param size of objects whose class is looked at, bytes; 0: of all. @param group whose objects; NULL: of all.
 * @return 0; -1 with EINVAL. */
QUARRY_API int quarry_usage_get(quarry_lanes *lanes, quarry_usage *usage, size_t size, const quarry_group *group);

/* ------------------------------------------------------------------------------------------------------ */
/* Walks and pictures                                                                                     */

/** An object, as it was when it was looked at. */
typedef struct quarry_object {
	quarry_handle handle;
	int state;         /* enum quarry_handle_states */
	int place;         /* enum quarry_places */
	uint64_t size;     /* bytes that may be used; of what is cold in lanes with canaries, at most: it says how many when it is back */
	const void *at;    /* NULL: it is cold. The address is good while the function runs, if that enters no other scope */
	const char *tag;   /* NULL: none */
	const quarry_group *group; /* NULL: none */
} quarry_object;

#define QUARRY_WALK_REDIRECTED 1u /* those alone that were born in the fast lane and are not there any more */
#define QUARRY_WALK_TAGGED 2u     /* those alone that have a tag */

/** Have a function called for each object, in a scope, by order of slots. Objects that are made or freed meanwhile may be seen or not. The
 * function may use handles, and may not move, compact or free. It returns 0, or another value, which ends the walk.
 * @param flags QUARRY_WALK_..., or-ed. @return how many it was called for; -1 with EINVAL. */
QUARRY_API int64_t quarry_lanes_walk(quarry_lanes *lanes, unsigned flags, int (*each)(void *arg, const quarry_object *object),
				     void *arg);

/** Write a line for each object that was born in the fast lane and is elsewhere: its handle, where it is, its size, its
 * last move and its tag. (There are no chains: a slot's word is where its object is, and the only redirection.)
 * @param fd where to. @return how many there are; -1 with EINVAL, or what write(2) says. */
QUARRY_API int64_t quarry_redirections_dump(quarry_lanes *lanes, int fd);

/** Write what there is: a line for the lanes, and one for each object. @return objects; -1 as quarry_redirections_dump. */
QUARRY_API int64_t quarry_lanes_dump(quarry_lanes *lanes, int fd);

/** Draw where objects are: a line for each segment of 2 MiB, a character for each 64 KiB of it, by how much of that is live: '.' is free,
 * '1' to '9' up to so many tenths, '#' more.
 * @return segments; -1 as quarry_redirections_dump. */
QUARRY_API int64_t quarry_lanes_draw(quarry_lanes *lanes, int fd);

/** How full lanes are. Bytes unless said otherwise. */
typedef struct quarry_lanes_space {
	uint32_t struct_size; /* set by the caller to sizeof, or 0, which means the same */
	uint32_t usage;       /* per cent of `size` that is used */
	uint64_t size;        /* that both lanes may have together; what they hold, where the attributes set no limit */
	uint64_t used;        /* by live objects */
	uint64_t free;        /* the rest of size */
	uint32_t fragmentation; /* per cent of what the slow lane holds that compaction could give back, about: whole segments that
	                       * would be free if all others were full */
	uint32_t reserved;
} quarry_lanes_space;

/** Count what there is. @param space struct_size is sizeof or 0. @return 0; -1 with EINVAL. */
QUARRY_API int quarry_lanes_space_get(quarry_lanes *lanes, quarry_lanes_space *space);

/** Look at all objects of lanes with QUARRY_LANES_CANARIES, those apart that are cold: which were written beyond their end. Any
 * thread, beside all that others do. (In words: quarry_lanes_dump.)
 * @param handles receives up to `room` of them. @return how many there are; -1 with EINVAL, ENOTSUP (lanes without canaries). */
QUARRY_API int64_t quarry_lanes_check(quarry_lanes *lanes, quarry_handle *handles, size_t room);

/* ------------------------------------------------------------------------------------------------------ */
/* Events                                                                                                 */

/** What a quarry_lanes_event tells of. */
enum quarry_lanes_event_kind {
	QUARRY_LANES_COMPACTED = 1, /* a compaction is over. why: enum quarry_compactions; moved, moved_bytes: what it moved, fast to
	                             * slow lane apart; bytes: that went back to the arena; ns: that it took. Calls and wants of room
	                             * are told of also where they had nothing to do, the background's are not */
	QUARRY_LANES_GREW = 2,      /* a lane has taken more memory. why: enum quarry_lane; bytes: that it took (a segment of
	                             * 2 MiB, a chunk of 64 KiB of the fast lane, or an object that has a block for itself) */
	QUARRY_LANES_CORRUPT = 3    /* of lanes with QUARRY_LANES_CANARIES: an object that was to be freed, moved or compressed was
	                             * written beyond its end, and stays. handle: of the last such */
};

/** Who had lanes compacted. */
enum quarry_compactions {
	QUARRY_COMPACTED_CALL = 1,       /* quarry_compact, quarry_maintain, or a tick that called it */
	QUARRY_COMPACTED_BACKGROUND = 2, /* the mover: a plan of it has come to its end */
	QUARRY_COMPACTED_ROOM = 3        /* an allocation that was refused */
};

typedef struct quarry_lanes_event {
	size_t struct_size;    /* what the library's struct has; it may grow at the end */
	int kind;              /* enum quarry_lanes_event_kind */
	int why;
	quarry_lanes *lanes;
	uint64_t count;        /* what this stands for: so many of one kind and why have come together since the last was told, and
	                        * the next four are their sums */
	uint64_t bytes;
	uint64_t moved;        /* objects */
	uint64_t moved_bytes;
	uint64_t ns;
	uint64_t held;         /* bytes that the lane holds when this is told; of a compaction: the slow one */
	uint64_t time_ms;      /* CLOCK_MONOTONIC, of the last of them */
	quarry_handle handle;  /* of QUARRY_LANES_CORRUPT; else 0 */
} quarry_lanes_event;

/** Is told of an event, which is only there for the call. */
typedef void quarry_lanes_event_fn(const quarry_lanes_event *event, void *ctx);

/** Be told when these lanes were compacted, or grew. The function is called as quarry_on_event's is, by the same threads, a little after
 * the event: most often by the thread that made it, at the end of its call, or by the mover's or the reclaimer's; never twice at
 * once, not from inside itself or quarry_on_event's function, with none of quarry's locks held, and not in a signal handler. It may
 * allocate, free, and call any function of quarry's, of these lanes as well, but quarry_lanes_destroy of these (EDEADLK). It
 * may find the thread in a scope of the program's, where nothing can be moved (EDEADLK), and must not wait for a lock that the program
 * holds while it allocates. What it makes happen itself is told of by a later call of quarry's, by whichever thread: so a
 * function that packs, or makes what its lanes grow by, has an end.
 *
 * One function for lanes: this one replaces the one before, which has ended when this returns (unless called from inside it, other
 * lanes' or quarry_on_event's). To be sure of that this waits, where there was one before, until no function of these three runs in
 * any thread, of whatever lanes; so does quarry_lanes_destroy in any case. Neither may be called with a lock that one of them waits for.
 * Nothing is lost: what comes sooner than it is told is added up, and what nobody was told of yet quarry_lanes_destroy tells first,
 * unless it is called from inside one of them, or another thread is in one. A
 * forked child keeps the function and forgets the events. Where nobody is to be told it costs nothing. Any thread may call.
 * @param fn NULL: nobody is told; what came about while nobody was is not told later. @param ctx is handed to fn.
 * @return 0; -1 with EINVAL (no lanes).
 * @code
 *   static void grown(const quarry_lanes_event *e, void *log)
 *   {
 *           if (e->kind == QUARRY_LANES_GREW && e->held > plenty)
 *                   (void)quarry_shed(e->lanes, e->bytes);
 *   }
 *   quarry_lanes_on_event(rows, grown, log);
 * @endcode */
QUARRY_API int quarry_lanes_on_event(quarry_lanes *lanes, quarry_lanes_event_fn *fn, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
