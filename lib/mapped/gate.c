/* SPDX-License-Identifier: MIT */
/* The gate: threads say when they are in the midst of a change, and whoever makes a checkpoint has them stop where they are not.
 *
 * A thread writes into its lane's word and reads the gate; who closes it writes the gate and reads the words: each sees the
 * other, for between the two is a fence. Nobody is waited for who holds nothing: the words of the dead are cleared by whoever finds
 * them, and a closed gate of a dead process is opened by whoever waits there. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/mapped/durable.h"

#define LOOK_NS 10000000u     /* between two looks for whether who closed it lives */
#define PATIENCE 1000000000u  /* how long sections may take */
#define SPIN_NS 20000u
#define PAUSE_NS 50000u

/* The gate's word: who closed it, and how often that happened, so that it is not another time's. */
#define WHO 0x1fffu

static void wait_until_open(struct heap *h)
{
	struct qy_side *side = h->durable->side;
	uint32_t closed, who;

	while ((closed = __atomic_load_n(&side->gate, __ATOMIC_ACQUIRE)) != 0) {
		qy_os->wait_word(&side->gate, closed, LOOK_NS);
		who = (closed & WHO) - 1;
		if (__atomic_load_n(&side->gate, __ATOMIC_ACQUIRE) == closed && who != h->session &&
		    qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION + who, 1) == 0 &&
		    __atomic_compare_exchange_n(&side->gate, &closed, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			qy_os->wake_word(&side->gate);
	}
}

/* A session's number is about to be another's, or has become so: a gate that is closed by it stays so for ever, as that one lives. The
 * heap's lock is held. */
void qy_gate_died(struct heap *h, uint32_t session)
{
	struct qy_side *side = h->durable->side;
	uint32_t closed = __atomic_load_n(&side->gate, __ATOMIC_ACQUIRE);

	if (closed != 0 && (closed & WHO) - 1 == session &&
	    __atomic_compare_exchange_n(&side->gate, &closed, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		qy_os->wake_word(&side->gate);
}

void qy_gate_in(struct heap *h, uint32_t lane)
{
	uint64_t *inside = &h->durable->lanes[lane].inside;

	for (;;) {
		__atomic_store_n(inside, 1, __ATOMIC_SEQ_CST);
		QY_DURABLE_POINT();
		if (QY_LIKELY(__atomic_load_n(&h->durable->side->gate, __ATOMIC_SEQ_CST) == 0))
			return;
		__atomic_store_n(inside, 0, __ATOMIC_RELEASE);
		wait_until_open(h);
	}
}

void qy_gate_out(struct heap *h, uint32_t lane)
{
	QY_DURABLE_POINT();
	__atomic_store_n(&h->durable->lanes[lane].inside, 0, __ATOMIC_RELEASE);
}

void qy_gate_open(struct heap *h)
{
	qy_mapped_leave(h);
	QY_DURABLE_POINT();
	__atomic_store_n(&h->durable->side->gate, 0, __ATOMIC_SEQ_CST);
	QY_DURABLE_POINT();
	qy_os->wake_word(&h->durable->side->gate);
}

/* All words 0, or until then. */
static bool all_out(struct heap *h, uint32_t closed, uint64_t until)
{
	uint64_t began = qy_os->now_ns(), now = began;
	uint32_t lane = 0;

	for (;;) {
		while (lane < h->sb.lanes && __atomic_load_n(&h->durable->lanes[lane].inside, __ATOMIC_SEQ_CST) == 0)
			lane++;
		if (lane == h->sb.lanes)
			return true;
		now = qy_os->now_ns();
		if (now > until)
			return false;
		if (now - began > SPIN_NS) /* nobody wakes it: the word stays */
			qy_os->wait_word(&h->durable->side->gate, closed, PAUSE_NS);
	}
}

int qy_gate_close(struct heap *h)
{
	struct qy_side *side = h->durable->side;
	uint64_t began = qy_os->now_ns();
	uint32_t closed = ++side->times * (WHO + 1) | (h->session + 1);
	int error = ETIMEDOUT;
	bool out;

	__atomic_store_n(&side->gate, closed, __ATOMIC_SEQ_CST);
	QY_DURABLE_POINT();
	/* Who died in a section holds nobody up for longer than it takes to look. */
	out = all_out(h, closed, began + LOOK_NS);
	if (!out && quarry_mapped_recover(&h->pub) < 0)
		error = errno;
	else if (!out)
		out = all_out(h, closed, began + PATIENCE);
	if (out && qy_mapped_enter(h) == 0) {
		QY_DURABLE_POINT();
		return 0;
	}
	if (out)
		error = errno;
	__atomic_store_n(&side->gate, 0, __ATOMIC_SEQ_CST);
	qy_os->wake_word(&side->gate);
	return qy_fail(error, error == ETIMEDOUT ? "mapped heap: a thread does not leave its section" : "mapped heap: it cannot be locked");
}

/* ---- of programs ---- */

QUARRY_API int quarry_mapped_enter(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l;

	if (QY_UNLIKELY(qy_mapped_refuse(h) != 0))
		return -1;
	if (h->durable == NULL)
		return 0;
	l = qy_local_find(h);
	if (l == NULL)
		return -1;
	if (l->inside++ == 0)
		qy_gate_in(h, l->owner - 1);
	return 0;
}

QUARRY_API void quarry_mapped_leave(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l = h->durable == NULL ? NULL : qy_local_known(h);

	if (l != NULL && l->inside != 0 && --l->inside == 0)
		qy_gate_out(h, l->owner - 1);
}
