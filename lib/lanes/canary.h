/* SPDX-License-Identifier: MIT */
/* Canaries: how long an object is, behind it (QUARRY_LANES_CANARIES). (canary.c)
 *
 * The last 8 bytes of an object's room say how many bytes were asked for, mixed so that no other value is likely to be one; what is
 * between is filled. Both move with the object, and are set anew where its room is larger. Lanes with canaries have another magic
 * number, so that the short ways of making, freeing and pinning objects, which look at that alone, are not theirs, and have no
 * instruction of this. */
#ifndef QUARRY_LANES_CANARY_H
#define QUARRY_LANES_CANARY_H

#include "lib/lanes/lanes.h"

#define QY_CANARY sizeof(uint64_t)

QY_INLINE size_t qy_canary_bytes(const quarry_lanes *l)
{
	return QY_UNLIKELY(l->canaries) ? QY_CANARY : 0;
}

/* An object of so many bytes, in so much room: its canary. */
void qy_canary_set(void *p, size_t room, size_t size);
/* How many bytes it has; 0: something was written beyond them. */
size_t qy_canary_size(const void *p, size_t room);
/* The object was copied to where it has so much room: its canary is at the end of that. False: there is none at the end of what it
 * had before. */
bool qy_canary_move(void *p, size_t had, size_t room);
/* An object is found to be written beyond: who listens is told. With whatever locks; the object's slot has this word. */
void qy_canary_tell(quarry_lanes *l, uint32_t slot, uint64_t word) QY_COLD;
/* Whether the object with this word is as long as it was; if not, that is told. In a scope, or where it stays. */
bool qy_canary_check(quarry_lanes *l, uint32_t slot, uint64_t word);

/* In a scope: how many bytes of the object with this word may be used. */
size_t qy_bytes_of(const quarry_lanes *l, uint64_t word);
/* Whether it is as long as it was. */
QY_INLINE bool qy_canary_is_whole(const quarry_lanes *l, uint64_t word)
{
	return QY_LIKELY(!l->canaries) || qy_canary_size(qy_word_address(word), qy_size_of(word)) != 0;
}
/* What was cold, and is at p now, has come back as it went; else EIO. */
bool qy_canary_is_back(const quarry_lanes *l, const void *p, size_t room);

/* A copy of an object, made to be moved, is whole, and has its canary where it is to be: false, it stays where it was, and that is
 * told. `word`: the object's, which is not written to meanwhile. Where there are no canaries: true. */
QY_INLINE bool qy_canary_follow(quarry_lanes *l, uint32_t slot, uint64_t word, void *to, size_t had, size_t room)
{
	if (QY_LIKELY(!l->canaries) || qy_canary_move(to, had, room))
		return true;
	/* (A writer who stops the move may have been at it: then the copy is nothing's.) */
	if (atomic_load(&l->word[slot]) == word)
		qy_canary_tell(l, slot, word);
	return false;
}

#endif
