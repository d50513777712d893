/* SPDX-License-Identifier: MIT */
/* Records of 64 bytes for segments and storages (chain.h): from a thread's own list, with no lock and no atomic on a
 * hit.
 *
 * A thread has two lists of at most QY_RECORDS_BATCH records, as the magazines of Bonwick and Adams (USENIX 2001): when
 * both are full, one goes to the depot as it is, and when both are empty, one comes from there. So records that are
 * made here and freed there go back by so many at a time. What a thread has when it ends goes to the depot too.
 *
 * The depot is a stack of lists. Giving takes no lock: whoever gives puts his list on top. One thread at a time takes
 * (qy_records_taking, a leaf): with two, a head that went away and came back could be taken for the same one, with
 * another list below it, and a number in the head that tells them apart would come round: an address leaves 22 bits.
 *
 * When another thread forks, the depot is whole at any moment, and the child makes the lock anew. Lost is what the other
 * threads had in their lists, at most 2 * QY_RECORDS_BATCH records each, and what one was just taking.
 *
 * New records are carved from pages of the default arena of the node that the thread runs on, which nobody can destroy.
 * They are never given back: the most that ever was in use at once stays. */
#ifndef QUARRY_OBJECT_RECORDS_H
#define QUARRY_OBJECT_RECORDS_H

#include "lib/base/base.h"
#include "lib/base/lock.h"

#define QY_RECORDS_BATCH 64
#define QY_RECORD_BODY 48

struct qy_record {
	_Alignas(QY_CACHE_LINE) unsigned char body[QY_RECORD_BODY]; /* the user's, who is alone with it */
	struct qy_record *next;  /* in a free list */
	struct qy_record *below; /* the list under the one that begins here, in the depot */
};

/* Itself a record. */
struct qy_record_lists {
	struct qy_record *list; /* what is taken from and put to */
	struct qy_record *full; /* of QY_RECORDS_BATCH records, or NULL */
	uint32_t count;         /* of list */
};

extern QY_HIDDEN __thread struct qy_record_lists *qy_record_lists __attribute__((tls_model("initial-exec")));

void *qy_record_get_slow(void);
void qy_record_put_slow(struct qy_record *r);

/* A record, its body as it happens to be; NULL with ENOMEM. */
QY_INLINE void *qy_record_get(void)
{
	struct qy_record_lists *l = qy_record_lists;
	struct qy_record *r;

	if (QY_UNLIKELY(l == NULL || l->list == NULL))
		return qy_record_get_slow();
	r = l->list;
	l->list = r->next;
	l->count--;
	return r;
}

/* From any thread; never fails. */
QY_INLINE void qy_record_put(void *record)
{
	struct qy_record_lists *l = qy_record_lists;
	struct qy_record *r = record;

	if (QY_UNLIKELY(l == NULL || l->count == QY_RECORDS_BATCH)) {
		qy_record_put_slow(r);
		return;
	}
	r->next = l->list;
	l->list = r;
	l->count++;
}

extern QY_HIDDEN struct qy_lock qy_records_taking;

/* For tests: how many records there are in the process, in use or not. */
uint64_t qy_records_made(void);

#endif
