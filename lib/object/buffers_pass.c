/* SPDX-License-Identifier: MIT */
/* Buffers as they pass: given out, released here or elsewhere, collected, waited for. */
#include <errno.h>
#include <pthread.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"
#include "lib/object/buffers.h"
#include "lib/object/count.h"
#include "lib/object/manager.h"

static int error(int number)
{
	errno = number;
	return -1;
}

/* ---- the owner's side ---- */

/* They are taken one by one: so this is once for each time that there come to be so few. */
void qy_buffers_low(struct qy_buffers *s, uint32_t left)
{
	if (left != s->low_water)
		return;
	qy_count(&s->lows, 1);
	s->low(s->ctx, left);
}

QY_COLD static int give_more(struct qy_buffers *s, uint32_t id)
{
	qy_buffers_note(s, id);
	if (s->low_water != 0)
		qy_buffers_low(s, qy_buffers_free(s));
	return 0;
}

/* What may come after a hit stands at its end, called last: so a hit saves no registers. */
QY_INLINE int give(struct qy_buffers *s, uint32_t id, quarry_buffer *buffer)
{
	qy_buffers_give(s, id, (uint32_t)s->head.size, QUARRY_BUFFER_SLAB, buffer);
	return QY_UNLIKELY(s->get_more) ? give_more(s, id) : 0;
}

bool qy_buffers_take_any(struct qy_buffers *s, uint32_t *id)
{
	if (qy_buffers_take(s, id))
		return true;
	qy_buffers_collect(s);
	if (qy_buffers_take(s, id))
		return true;
	qy_count(&s->refused, 1);
	return false;
}

QY_COLD static int collect_and_get(struct qy_buffers *s, quarry_buffer *buffer)
{
	uint32_t id;

	if (qy_buffers_is_none(s)) /* (who never owned a slab takes it for its own) */
		return error(EINVAL);
	return qy_buffers_take_any(s, &id) ? give(s, id, buffer) : error(ENOBUFS);
}

QY_COLD static int refuse(const struct qy_buffers *s)
{
	return error(s == NULL ? EINVAL : qy_buffers_refusal(s));
}

QUARRY_API int quarry_buffers_get(quarry_buffers *slab, quarry_buffer *buffer)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;
	uint32_t id;

	if (QY_UNLIKELY(s == NULL || buffer == NULL))
		return refuse(NULL);
	if (QY_UNLIKELY(!qy_buffers_mine(s)))
		return refuse(s);
	if (QY_UNLIKELY(!qy_buffers_take(s, &id)))
		return collect_and_get(s, buffer);
	return give(s, id, buffer);
}

static void push(struct qy_buffers *s, uint32_t id)
{
	const uint32_t n = s->stacked; /* read once: what is read after a store waits for it */
	uint32_t more = n + 1;

	__asm__("" : "+r"(more)); /* (made here, of what was read: an instruction less) */
	/* The number before the count: a child that is forked in between has no other number there. */
	s->stack[n] = id;
	__atomic_store_n(&s->stacked, more, __ATOMIC_RELEASE);
}

void qy_buffers_come_home(struct qy_buffers *s, uint32_t id)
{
	if (s->ring.entry != NULL && qy_bit(s->ring.of, id))
		qy_ring_put(s, id);
	else
		push(s, id);
}

/* ---- what others returned ---- */

static long take_word(struct qy_buffers *s, uint32_t word)
{
	uint64_t bits;
	long n = 0;

	if (word >= ((size_t)s->head.count + 63) / 64) /* a bit above from a slab that had this number before */
		return 0;
	bits = atomic_exchange_explicit(&s->returned[word], 0, memory_order_acquire);
	if (bits == 0) /* whoever set the bit above did so late: these were found before */
		return 0;
	qy_count(&s->batches, 1);
	for (; bits != 0; bits &= bits - 1, n++)
		qy_buffers_come_home(s, word * 64 + (uint32_t)__builtin_ctzll(bits));
	return n;
}

static long take_returned(struct qy_buffers *s)
{
	long n = 0;

	for (uint32_t a = 0; a < QY_ABOVE && (a * 64 << s->group) * 64 < s->head.count; a++) {
		uint64_t words;

		if (atomic_load_explicit(&s->above[a], memory_order_seq_cst) == 0)
			continue;
		words = atomic_exchange_explicit(&s->above[a], 0, memory_order_acquire);
		for (; words != 0; words &= words - 1) {
			const uint32_t first = (a * 64 + (uint32_t)__builtin_ctzll(words)) << s->group;

			for (uint32_t i = 0; i < 1u << s->group; i++)
				n += take_word(s, first + i);
		}
	}
	qy_count(&s->returns, (uint64_t)n);
	qy_ring_tell(s);
	return n;
}

/* ---- those who wait ---- */

/* The next of the last one: so that whoever waits has a next, and who does not has none. */
static quarry_buffers_waiter nobody;

/* The function that is called may take, release, wait and cancel itself: each round begins anew. What it releases is
 * given out here, and not further down in it: however many wait, the stack is one call deep. */
QY_COLD static void serve(struct qy_buffers *s)
{
	quarry_buffers_waiter *w;
	quarry_buffer b;
	uint32_t id;

	if (s->serving)
		return;
	s->serving = true;
	do {
		while ((w = s->first_waiter) != NULL && qy_buffers_take(s, &id)) {
			s->first_waiter = w->next == &nobody ? NULL : w->next;
			if (s->first_waiter == NULL)
				s->last_waiter = &s->first_waiter;
			w->next = NULL;
			if (s->asked == w)
				s->asked = NULL;
			qy_publish(s->waiting, s->waiting - 1);
			qy_count(&s->served, 1);
			qy_buffers_give(s, id, (uint32_t)s->head.size, QUARRY_BUFFER_SLAB, &b);
			qy_buffers_note(s, id);
			if (s->low_water != 0)
				qy_buffers_low(s, qy_buffers_free(s));
			w->ready(w, b);
		}
		/* Who waits anew, in `ready`, when nobody was said to wait: it is said, and looked once more. */
		if (s->first_waiter == NULL || atomic_load_explicit(&s->waits, memory_order_relaxed) != 0)
			break;
		atomic_store_explicit(&s->waits, 1, memory_order_seq_cst);
	} while (take_returned(s) > 0);
	s->serving = false;
	qy_buffers_mode(s);
}

QUARRY_API int quarry_buffers_wait(quarry_buffers *slab, quarry_buffers_waiter *waiter)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);
	bool waits;

	if (s == NULL)
		return -1;
	if (waiter == NULL || waiter->ready == NULL)
		return qy_fail(EINVAL, "waiter: there is nothing to call");
	if (waiter->next != NULL)
		return qy_fail(EINVAL, "waiter: it waits already");
	waiter->next = &nobody;
	*s->last_waiter = waiter;
	s->last_waiter = &waiter->next;
	qy_publish(s->waiting, s->waiting + 1);
	s->more = true;
	if (s->serving)
		return 1;
	s->asked = waiter;
	serve(s);
	if (s->first_waiter != NULL)
		qy_buffers_collect(s);
	waits = s->asked != NULL;
	s->asked = NULL;
	return waits;
}

QUARRY_API int quarry_buffers_cancel(quarry_buffers *slab, quarry_buffers_waiter *waiter)
{
	struct qy_buffers *s = qy_buffers_slab(slab, true);

	if (s == NULL)
		return -1;
	if (waiter == NULL)
		return qy_fail(EINVAL, "waiter: there is none");
	for (quarry_buffers_waiter **w = &s->first_waiter; *w != NULL && *w != &nobody; w = &(*w)->next) {
		if (*w != waiter)
			continue;
		*w = waiter->next;
		if (*w == &nobody)
			s->last_waiter = w;
		if (s->first_waiter == &nobody)
			s->first_waiter = NULL;
		waiter->next = NULL;
		qy_publish(s->waiting, s->waiting - 1);
		qy_buffers_mode(s);
		return 0;
	}
	return qy_fail(ENOENT, "waiter: it does not wait");
}

long qy_buffers_collect(struct qy_buffers *s)
{
	long n;

	/* Said before the look, so that what comes after it has the owner called. */
	if (s->first_waiter != NULL)
		atomic_store_explicit(&s->waits, 1, memory_order_seq_cst);
	n = take_returned(s);
	if (s->first_waiter != NULL)
		serve(s);
	/* (Inside of `ready` somebody may wait anew before serve, further up, has looked.) */
	if (s->first_waiter == NULL && !s->serving && atomic_load_explicit(&s->waits, memory_order_relaxed) != 0)
		atomic_store_explicit(&s->waits, 0, memory_order_relaxed);
	return n;
}

QUARRY_API long quarry_buffers_collect(quarry_buffers *slab)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;

	if (s == NULL)
		return error(EINVAL);
	if (!qy_buffers_mine(s) || qy_buffers_is_none(s))
		return error(qy_buffers_refusal(s));
	return qy_buffers_collect(s);
}

/* ---- released ---- */

QY_COLD static int late(struct qy_buffers *s)
{
	atomic_fetch_add_explicit(&s->late, 1, memory_order_relaxed);
	return error(EALREADY);
}

struct call {
	struct qy_buffers *s;
	uint32_t forks;
};

/* (The program may fork in `wake`, and go on in the child: there it was counted before the fork.) */
static void call_ended(void *arg)
{
	const struct call *c = arg;

	if (atomic_load_explicit(&qy_buffers_forks, memory_order_relaxed) == c->forks)
		atomic_fetch_sub_explicit(&c->s->callers, 1, memory_order_release);
}

/* `wake` writes to a descriptor, where a thread could be cancelled: that waits until it is through, since who released
 * may have more to release (a chain), or to say (adopt). One that ends itself there is waited for no more. (The address
 * sanitizer leaves this function alone, as receive_into in buffers_content.c.) */
QY_COLD __attribute__((no_sanitize_address)) static void call_owner(struct qy_buffers *s)
{
	struct call c = { s, atomic_load_explicit(&qy_buffers_forks, memory_order_relaxed) };
	int cancelling;

	atomic_fetch_add_explicit(&s->callers, 1, memory_order_seq_cst);
	pthread_cleanup_push(call_ended, &c);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling);
	if (atomic_exchange_explicit(&s->waits, 0, memory_order_seq_cst) != 0 && s->wake != NULL)
		s->wake(s->ctx);
	pthread_setcancelstate(cancelling, NULL);
	pthread_cleanup_pop(1);
}

QY_INLINE bool claim(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	return atomic_compare_exchange_strong_explicit(&s->generation[id], &generation, generation + 1,
						       memory_order_acq_rel, memory_order_relaxed);
}

QY_INLINE int put_claimed(struct qy_buffers *s, uint32_t id)
{
	qy_count(&s->puts, 1);
	qy_buffers_come_home(s, id);
	qy_ring_tell(s);
	if (s->first_waiter != NULL)
		serve(s);
	return 0;
}

/* By the owner, where there is a ring, somebody waits, or the slab is checked. */
QY_NOINLINE static int put_with_more(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	if (QY_UNLIKELY(qy_buffers_is_chained(s, id, generation, QY_CHAINED_WHOLE)))
		return error(EBUSY);
	return QY_LIKELY(claim(s, id, generation)) ? put_claimed(s, id) : late(s);
}

QY_INLINE int put(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	const uint32_t was = atomic_load_explicit(&s->generation[id], memory_order_relaxed);
	uint32_t next = was + 1;

	/* From what was read, and not from what was handed in, which came by way of the program's memory: where get
	 * follows put, that is 2 ns less to wait for. (It is the same; compilers know that.) */
	__asm__("" : "+r"(next));

	if (QY_UNLIKELY(s->more))
		return put_with_more(s, id, generation);
	if (QY_UNLIKELY(was != generation))
		return late(s);
	atomic_store_explicit(&s->generation[id], next, memory_order_relaxed);
	qy_count(&s->puts, 1);
	push(s, id);
	return 0;
}

/* By whoever is not the owner. */
QY_INLINE int send_claimed(struct qy_buffers *s, uint32_t id)
{
	const uint32_t group = id / 64 >> s->group; /* the bit above; after the lower bit is set this may be another's */
	const uint64_t bit = (uint64_t)1 << (id % 64);
	uint64_t was;

	was = atomic_fetch_or_explicit(&s->returned[id / 64], bit, memory_order_acq_rel);
	if (QY_UNLIKELY(was & bit)) /* an unchecked release by the owner at the same moment */
		return late(s);
	if (was == 0)
		atomic_fetch_or_explicit(&s->above[group / 64], (uint64_t)1 << (group % 64), memory_order_seq_cst);
	if (QY_UNLIKELY(atomic_load_explicit(&s->waits, memory_order_seq_cst) != 0))
		call_owner(s);
	return 0;
}

/* The generation first: from then on it is nobody else's to return. */
QY_NOINLINE static int send_back(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	if (QY_UNLIKELY(qy_buffers_is_chained(s, id, generation, QY_CHAINED_WHOLE)))
		return error(EBUSY);
	return QY_LIKELY(claim(s, id, generation)) ? send_claimed(s, id) : late(s);
}

/* Where pins are counted, it is by their word that one alone can, who turns the generation by a store. */
int qy_buffers_claim(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	int error;

	if (s->pins == NULL)
		return claim(s, id, generation) ? 0 : EALREADY;
	if (atomic_load_explicit(&s->generation[id], memory_order_relaxed) != generation)
		return EALREADY;
	error = qy_buffers_close_pins(s, id, generation);
	if (error == 0)
		atomic_store_explicit(&s->generation[id], generation + 1, memory_order_release);
	return error;
}

void qy_buffers_send_claimed(struct qy_buffers *s, uint32_t id)
{
	qy_buffers_mine(s) ? put_claimed(s, id) : send_claimed(s, id);
}

/* (What is noted and not live was freed by another call.) */
static int release_owned(void *at, uint32_t id, uint32_t generation)
{
	void *p = qy_owned_begin(at, id);

	if (at == NULL)
		return 0;
	if (qy_count_is_held(p) || (generation != 0 && qy_owned_is_entered(p, generation)))
		return error(EBUSY);
	if (generation != 0 && (!qy_owned_end(p, generation) || !qy_manager_is_live(p)))
		return error(EALREADY);
	if (quarry_usable_size(p) == 0 || qy_taken_has(p))
		return error(EINVAL);
	quarry_free(p);
	return 0;
}

QY_NOINLINE static int release_other(void *p, uint32_t id, uint32_t generation, uint32_t flags)
{
	switch (flags & (QUARRY_BUFFER_OWNED | QUARRY_BUFFER_BORROWED)) {
	case QUARRY_BUFFER_OWNED:
		return release_owned(p, id, generation);
	case QUARRY_BUFFER_BORROWED:
		return 0;
	default: /* neither, or both */
		return error(EINVAL);
	}
}

/* What is left to do for a piece. */
QY_NOINLINE static int release_piece(struct qy_buffers *s, uint32_t id, uint32_t generation, unsigned piece)
{
	int last;

	if (QY_UNLIKELY(qy_buffers_is_chained(s, id, generation, qy_chained_piece(piece))))
		return error(EBUSY);
	last = qy_ring_piece_back(s, id, generation, piece);

	if (last <= 0)
		return last == 0 ? 0 : last == -EBUSY ? error(EBUSY) : late(s);
	return qy_buffers_mine(s) ? put_with_more(s, id, generation) : send_back(s, id, generation);
}

/* What has more to it than a whole buffer: a piece, or a slab that counts pins. */
QY_NOINLINE static int release_with_more(struct qy_buffers *s, uint32_t id, uint32_t generation, uint32_t flags)
{
	int number;

	if (flags & QUARRY_BUFFER_PIECE)
		return release_piece(s, id, generation, qy_buffer_piece(flags));
	if (QY_UNLIKELY(qy_buffers_is_chained(s, id, generation, QY_CHAINED_WHOLE)))
		return error(EBUSY);
	number = qy_buffers_claim(s, id, generation);
	if (number != 0)
		return number == EBUSY ? error(EBUSY) : late(s);
	qy_buffers_send_claimed(s, id);
	return 0;
}

QUARRY_API int quarry_buffer_release_parts(void *p, uint32_t id, uint32_t generation, uint32_t flags)
{
	struct qy_buffers *s;

	if (QY_UNLIKELY(!(flags & (QUARRY_BUFFER_SLAB | QUARRY_BUFFER_RING))))
		return release_other(p, id, generation, flags);
	s = qy_buffers_of(id, flags);
	if (QY_UNLIKELY(s == NULL))
		return error(EINVAL);
	generation -= s->seed;
	if (QY_UNLIKELY(!(generation & 1)))
		return late(s);
	if (QY_UNLIKELY(flags & (QUARRY_BUFFER_PIECE | QUARRY_BUFFER_COUNTED)))
		return release_with_more(s, id, generation, flags);
	return qy_buffers_mine(s) ? put(s, id, generation) : send_back(s, id, generation);
}

static void *check_other(quarry_buffer b)
{
	const unsigned both = QUARRY_BUFFER_OWNED | QUARRY_BUFFER_BORROWED;

	if ((b.flags & both) == both)
		errno = EINVAL;
	else if ((b.flags & QUARRY_BUFFER_OWNED) && b.generation != 0 && !qy_owned_is(qy_owned_begin(b.p, b.id), b.generation))
		errno = ESTALE;
	else
		return b.p;
	return NULL;
}

QUARRY_API void *quarry_buffer_check(quarry_buffer b)
{
	struct qy_buffers *s;
	char *begin;

	if (b.flags & (QUARRY_BUFFER_OWNED | QUARRY_BUFFER_BORROWED))
		return check_other(b);
	s = qy_buffers_of(b.id, b.flags);
	if (s == NULL || !(b.flags & (QUARRY_BUFFER_SLAB | QUARRY_BUFFER_RING))) {
		errno = EINVAL;
		return NULL;
	}
	if (!((b.generation - s->seed) & 1) ||
	    atomic_load_explicit(&s->generation[b.id], memory_order_relaxed) != b.generation - s->seed ||
	    ((b.flags & QUARRY_BUFFER_PIECE) && !qy_ring_piece_out(s, b.id, qy_buffer_piece(b.flags)))) {
		errno = ESTALE;
		return NULL;
	}
	begin = quarry_buffers_at(&s->head, b.id);
	if ((char *)b.p < begin || (uint64_t)((char *)b.p - begin) + b.len > s->head.size) {
		errno = EINVAL;
		return NULL;
	}
	return b.p;
}
