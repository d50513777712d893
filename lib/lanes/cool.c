/* SPDX-License-Identifier: MIT */
/* What nobody looks at becomes cold. (How it comes back is warm.c's.)
 *
 * A pass over all slots marks each object's word as unseen. The first who then gets the object takes the mark away, on
 * the slow path of quarry_get, and nobody after him pays for it. What is still unseen in the next pass goes: a clock with
 * one hand, whose period follows how much comes back (F. Corbató, A paging experiment with the Multics system, 1968; the
 * feedback as in A. Lagar-Cavilla et al., Software-defined far memory in warehouse-scale computers, 2019).
 *
 * Becoming cold is a move (lanes.h has its steps), of many objects of a class to an extent of the store. Hints say what
 * goes at each pass, and what never does (group.h). */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/group.h"
#include "lib/lanes/note.h"
#include "numa/os.h"

#define PERIOD_MS 30000
#define PERIOD_MOST 64 /* times as long, where too much comes back */
#define STALL_PERCENT 3 /* of the processor time, for bringing back, is enough */
#define IDLE 16        /* a process that takes less than one part of so many of a processor is taken for one that does */
#define BACKOFF_MOST 64
#define LONG_PERIODS 8
#define SLICE_NS 2000000 /* in the background it runs so long at a time, */
#define PATIENCE_NS 500000 /* waits so long for scopes, */
#define SHARE 10         /* for so many percent of a processor, */
#define STEPS 256        /* and wakes so often in a period */

/* What is waiting to become an extent, of each class; and how the pass is getting on. Under lanes->moving. */
struct qy_cooling {
	struct {
		uint32_t *slot;
		uint32_t count, skip, backoff; /* skip: so many extents are not tried; it would not be worth it */
	} of[QY_CLASSES_MAX];
	unsigned char *raw;
	uint16_t what[QY_BATCH];
	uint32_t next;       /* slot that the pass is at */
	bool paced;          /* the pass takes all of its period */
	bool passing, shrinking; /* shrinking: behind a pass, what is left of extents; */
	uint32_t extent;         /* it is at this one */
	uint64_t period, begin; /* ms; begin: of the next pass, */
	uint64_t begun;         /* and of this one */
	uint64_t least;         /* the period that was asked for */
	uint32_t percent;       /* of the process's time, for bringing back; by the pass before: */
	uint64_t stalled, cpu, wall; /* ns */
	uint64_t due;           /* ns: in the background, not before; */
	uint64_t patience;      /* and so long it waits for scopes; 0: a call, that waits as long as it takes */
};

/* ---- away ---- */

/* Whether an object with these marks is not to become cold: it is pinned, or the program said so. */
static bool stays(const quarry_lanes *l, uint32_t slot, uint32_t marks)
{
	return (marks & QY_MARK_HELD) || (qy_flags_of(l, slot, marks) & QUARRY_HALLOC_NOSPILL) ||
	       qy_priority_of(l, slot, marks) == QUARRY_PRIORITY_CRITICAL;
}

/* In a scope: the span of a slot's object, when it may become cold, and which it is there. */
static struct qy_span *may_go(quarry_lanes *l, uint32_t slot, uint64_t *word, uint32_t *index)
{
	struct qy_span *s;

	*word = atomic_load_explicit(&l->word[slot], memory_order_acquire);
	if ((*word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING)) ||
	    (*word & QUARRY_WORD_ADDRESS) == 0)
		return NULL;
	s = qy_span_of(qy_word_address(*word), index);
	return stays(l, slot, atomic_load_explicit(&s->entry[*index].marks, memory_order_relaxed)) ? NULL : s;
}

/* Those of the list that still are to go: MOVING. */
static void begin_batch(quarry_lanes *l, const uint32_t *slot, uint32_t count, unsigned class, size_t size, bool unseen)
{
	quarry_enter();
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word;
		uint32_t index;
		struct qy_span *s = may_go(l, slot[i], &word, &index);

		if (s == NULL || s->class != class || s->size != size || (unseen && !(word & QUARRY_WORD_UNSEEN)))
			continue;
		if (atomic_compare_exchange_strong(&l->word[slot[i]], &word, word | QUARRY_WORD_MOVING))
			l->batch[l->batched++] = (struct qy_move){ .slot = slot[i], .word = word | QUARRY_WORD_MOVING };
	}
	quarry_leave();
}

/* What nobody wrote to since then stands side by side in raw; the others leave the batch. */
static void copy_batch(quarry_lanes *l, unsigned char *raw, uint16_t *what, size_t size)
{
	uint32_t kept = 0;

	quarry_enter();
	for (uint32_t i = 0; i < l->batched; i++) {
		struct qy_move *b = &l->batch[i];
		uint32_t marks, index;
		struct qy_span *s;

		if (atomic_load(&l->word[b->slot]) != b->word)
			continue; /* freed, or stopped: it is as it should be, and its span may be none any more */
		s = qy_span_of(qy_word_address(b->word), &index);
		marks = atomic_load(&s->entry[index].marks);
		if (stays(l, b->slot, marks)) {
			qy_move_give_up(l, b);
			continue;
		}
		qy_copy_object(raw + kept * size, qy_word_address(b->word), size);
		if (!qy_canary_follow(l, b->slot, b->word, raw + kept * size, size, size)) {
			qy_move_give_up(l, b);
			continue;
		}
		what[kept] = qy_marks_to_what(marks);
		l->batch[kept++] = *b;
	}
	quarry_leave();
	l->batched = kept;
}

static uint32_t publish_batch(quarry_lanes *l, uint32_t extent)
{
	uint32_t gone = 0;

	quarry_enter(); /* so that a span stays one while it has just lost an object */
	for (uint32_t i = 0; i < l->batched; i++) {
		struct qy_move *b = &l->batch[i];
		uint64_t word = b->word;
		uint32_t index;

		if (!atomic_compare_exchange_strong(&l->word[b->slot], &word, qy_cold_word(word >> 48, extent, i))) {
			(void)qy_cold_forget(l, qy_cold_word(0, extent, i), false);
			qy_move_give_up(l, b);
			continue;
		}
		struct qy_span *s = qy_span_of(qy_word_address(b->word), &index);

		qy_entomb(l, NULL, s, index);
		if (QY_UNLIKELY(l->cooling->what[i] & QY_COLD_SIDE))
			qy_side_went(l, b->slot, b->word, QUARRY_MOVED_COOLED, QUARRY_LANE_SLOW, QUARRY_PLACE_COLD);
		qy_count(&qy_figures_of(l, s->class)->cooled, 1);
		gone++;
	}
	quarry_leave();
	l->batched = 0;
	return gone;
}

/* Have objects of a class become an extent. How many did; -1: there is no memory, or it is not worth it (ERANGE). */
static int64_t make_extent(quarry_lanes *l, const uint32_t *slot, uint32_t count, unsigned class, size_t size, bool unseen)
{
	struct qy_cooling *k = l->cooling;
	unsigned char *raw = k->raw, *large = NULL;
	int64_t extent = -1;
	int error;

	if (size > QY_COLD_RAW && (raw = large = quarry_malloc(size)) == NULL)
		return -1;
	begin_batch(l, slot, count, class, size, unseen);
	errno = 0;
	if (l->batched > 0 && qy_grace_wait(qy_grace_begin(), k->patience == 0 ? 0 : qy_os->now_ns() + k->patience)) {
		copy_batch(l, raw, k->what, size);
		if (l->batched > 0)
			extent = qy_cold_store(l->cold, raw, l->batched, (uint32_t)size, k->what);
	}
	error = extent < 0 && l->batched > 0 ? errno : 0;
	quarry_free(large);
	if (extent >= 0)
		return publish_batch(l, (uint32_t)extent);
	for (uint32_t i = 0; i < l->batched; i++)
		qy_move_give_up(l, &l->batch[i]);
	l->batched = 0;
	errno = error;
	return error == 0 ? 0 : -1;
}

static uint32_t extent_objects(size_t size)
{
	return (uint32_t)qy_min(qy_cold_objects_for(size), QY_BATCH);
}

/* What waits of a class goes. Where a whole extent does not become smaller, the next ones are not tried for a while. */
static int64_t flush_class(quarry_lanes *l, unsigned class, bool unseen)
{
	struct qy_cooling *k = l->cooling;
	uint32_t count = k->of[class].count;
	int64_t gone = 0;

	k->of[class].count = 0;
	if (count > 0 && k->of[class].skip == 0) {
		gone = make_extent(l, k->of[class].slot, count, class, qy_class_size(class), unseen);
		if (gone < 0 && errno == ERANGE && count == extent_objects(qy_class_size(class))) {
			k->of[class].backoff = (uint32_t)qy_min(k->of[class].backoff * 2 + 1, BACKOFF_MOST);
			k->of[class].skip = k->of[class].backoff;
		} else if (gone > 0) {
			k->of[class].backoff = 0;
		}
	} else if (k->of[class].skip > 0) {
		k->of[class].skip--;
	}
	return gone < 0 ? 0 : gone;
}

static int64_t add_to_class(quarry_lanes *l, uint32_t slot, unsigned class, bool unseen)
{
	struct qy_cooling *k = l->cooling;
	uint32_t most = extent_objects(qy_class_size(class));
	int64_t gone = 0;

	if (k->of[class].slot == NULL) {
		k->of[class].slot = quarry_malloc(most * sizeof(uint32_t));
		if (k->of[class].slot == NULL)
			return 0;
	}
	if (k->of[class].count >= most) /* a fork came between: the child has it full */
		gone = flush_class(l, class, unseen);
	k->of[class].slot[k->of[class].count++] = slot;
	return gone + (k->of[class].count == most ? flush_class(l, class, unseen) : 0);
}

/* One object is to go: with others of its class, or alone. How many went. */
static int64_t add_object(quarry_lanes *l, uint32_t slot, bool unseen)
{
	uint64_t word;
	uint32_t index;
	unsigned class = QY_CLASS_HUGE;
	size_t size = 0;
	struct qy_span *s;
	int64_t gone;

	quarry_enter();
	s = may_go(l, slot, &word, &index);
	if (s != NULL) {
		class = s->class;
		size = s->size;
	}
	quarry_leave();
	if (class < QY_CLASSES_MAX)
		return add_to_class(l, slot, class, unseen);
	if (class != QY_CLASS_WHOLE)
		return 0;
	gone = make_extent(l, &slot, 1, QY_CLASS_WHOLE, size, unseen);
	return gone < 0 ? 0 : gone;
}

/* ---- passes ---- */

static bool is_late(uint64_t deadline, const _Atomic(uint32_t) *wanted)
{
	return (deadline != 0 && qy_os->now_ns() >= deadline) ||
	       (wanted != NULL && atomic_load_explicit(wanted, memory_order_relaxed) != 0);
}

/* Until the deadline, or somebody wants to move: whether nothing waits any more. */
static bool flush_all(quarry_lanes *l, bool unseen, uint64_t deadline, const _Atomic(uint32_t) *wanted, int64_t *gone)
{
	bool late = false;

	for (unsigned class = 0; class < qy_class_count(); class++) {
		if (l->cooling->of[class].count == 0)
			continue;
		if (late)
			return false;
		*gone += flush_class(l, class, unseen);
		late = is_late(deadline, wanted);
	}
	return true;
}

uint64_t qy_cool_steer(uint64_t period, uint64_t stalled, uint64_t enough)
{
	uint64_t longer = period / 2 + (stalled >= enough * 3 ? period * 3 / 2 : (uint64_t)((double)period / 2 * (double)stalled / (double)enough));

	return qy_max(longer, period * 3 / 4);
}

/* How soon the next pass begins: the later, the more of its time the process has waited for what came back. */
static void steer(quarry_lanes *l)
{
	struct qy_cooling *k = l->cooling;
	uint64_t cpu = qy_os->cpu_ns(), wall = qy_os->now_ns(), time, next;
	struct qy_cold_figures f;

	qy_cold_count(l->cold, &f);
	qy_cold_pass(l->cold);
	time = cpu < k->cpu ? cpu : cpu - k->cpu; /* (a child's begins with 0) */
	time = qy_max(time, (wall - k->wall) / IDLE);
	next = qy_cool_steer(k->period, f.stalled - k->stalled, time * k->percent / 100 + 1);
	qy_publish(k->period, qy_min(qy_max(next, k->least), k->least * PERIOD_MOST));
	k->stalled = f.stalled;
	k->cpu = cpu;
	k->wall = wall;
	k->begin = (k->paced ? k->begun : qy_os->now_ms()) + k->period;
}

/* Whether the program said that it will seldom be used. Only where there is a record near the slot is the object looked at. */
static bool is_hinted(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	bool hinted = false;
	uint32_t index;

	if (QY_LIKELY(!qy_side_is_there(l, slot)))
		return false;
	quarry_enter();
	if (may_go(l, slot, &word, &index) != NULL)
		hinted = qy_flags_of(l, slot, atomic_load(&qy_entry_of(qy_word_address(word))->marks)) & QUARRY_HALLOC_COLD;
	quarry_leave();
	return hinted;
}

/* One slot's turn. How many objects went, of whichever. */
static int64_t pass_slot(quarry_lanes *l, uint32_t slot)
{
	uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_relaxed);
	bool hinted;

	if ((word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING)) ||
	    (word & QUARRY_WORD_ADDRESS) == 0)
		return 0;
	if (word & QUARRY_WORD_UNSEEN)
		return add_object(l, slot, true);
	hinted = is_hinted(l, slot, word);
	if (atomic_compare_exchange_strong(&l->word[slot], &word, word | QUARRY_WORD_UNSEEN) && hinted)
		return add_object(l, slot, true);
	return 0;
}

/* The pass goes on until the deadline (ns; 0: to its end), or that slot, or somebody wants to move. */
static int64_t pass(quarry_lanes *l, uint32_t until, uint64_t deadline, const _Atomic(uint32_t) *wanted)
{
	struct qy_cooling *k = l->cooling;
	int64_t gone = 0;

	while (k->next < atomic_load_explicit(&l->slots.next, memory_order_acquire)) {
		if (k->next >= until)
			return gone;
		int64_t went = 0;

		if (qy_slots_in_memory(l, k->next))
			went = pass_slot(l, k->next++);
		else
			k->next += QY_SLOT_PAGE - k->next % QY_SLOT_PAGE;
		gone += went;
		if ((went > 0 || k->next % 256 == 0) && is_late(deadline, wanted))
			return gone;
	}
	if (!flush_all(l, true, deadline, wanted, &gone))
		return gone;
	k->passing = false;
	k->shrinking = true;
	k->extent = 0;
	steer(l);
	return gone;
}

static bool may_cool(quarry_lanes *l)
{
	struct qy_mover m = { 0 };

	if (!qy_lanes_check(l))
		return false;
	if (l->cold == NULL)
		(void)qy_fail(ENOTSUP, "these lanes have no cold memory: see quarry_lanes_attr.cold");
	else if (qy_in_scope())
		(void)qy_fail(EDEADLK, "the thread is in a scope, which a move would wait for");
	else if (!qy_mover_enter(l, &m))
		(void)qy_fail(EBUSY, "objects are being moved by another thread");
	else
		return true;
	return false;
}

/* How far a pass has come when it takes all of its period. So as much goes at any time as comes back, into the room that
 * the others have left: a pass as fast as may be would have memory go to the kernel, and be asked for anew until the next. */
static uint32_t pace(quarry_lanes *l, uint64_t ms)
{
	const struct qy_cooling *k = l->cooling;
	uint64_t slots = atomic_load_explicit(&l->slots.next, memory_order_acquire), since = ms - qy_min(ms, k->begun);

	return since >= k->period ? UINT32_MAX : (uint32_t)(slots * since / k->period);
}

/* Under l->moving. background: a pass takes its period, and dictionaries may be made, which takes longer than a budget is. */
static int64_t go_on(quarry_lanes *l, uint64_t deadline, const _Atomic(uint32_t) *wanted, bool background)
{
	struct qy_cooling *k = l->cooling;
	bool train = background || deadline == 0;
	uint64_t ms = qy_os->now_ms();
	int64_t gone = 0;

	qy_moves_undo(l);
	if (!k->passing && ms >= k->begin) {
		qy_usage_pass(l, false);
		k->passing = true;
		k->begun = ms;
		k->next = 0;
	}
	k->paced = background;
	if (k->passing)
		gone = pass(l, background ? pace(l, ms) : UINT32_MAX, deadline, wanted);
	if (gone > 0)
		qy_news(l); /* what they leave is to be packed */
	while (k->shrinking && !is_late(deadline, wanted))
		k->shrinking = qy_cold_shrink(l->cold, &k->extent);
	while (!is_late(deadline, wanted) && qy_cold_deepen(l->cold, train))
		;
	while (qy_cold_evict(l->cold, train) && !is_late(deadline, wanted)) /* (one in any case: else passes might never leave it time) */
		;
	return gone;
}

uint64_t qy_cool_slice(quarry_lanes *l, uint64_t now, _Atomic(uint32_t) *wanted)
{
	struct qy_cooling *k = l->cooling;
	uint64_t ended, ms;

	if (now < k->due)
		return k->due;
	k->patience = PATIENCE_NS;
	(void)go_on(l, now + SLICE_NS, wanted, true);
	k->patience = 0;
	ended = qy_os->now_ns();
	ms = qy_os->now_ms();
	k->due = ended + (ended - now) * (100 - SHARE) / SHARE;
	if (!k->passing && !k->shrinking)
		k->due = qy_max(k->due, ended + (k->begin - qy_min(k->begin, ms)) * 1000000);
	else if (!k->shrinking && k->next >= pace(l, ms))
		k->due = qy_max(k->due, ended + k->period * 1000000 / STEPS);
	return k->due;
}

int64_t quarry_cool(quarry_lanes *l, uint64_t budget_us)
{
	int64_t gone = -1;

	if (may_cool(l)) {
		gone = go_on(l, budget_us == 0 ? 0 : qy_os->now_ns() + budget_us * 1000, NULL, false);
		qy_let_go(&l->moving);
		qy_events_deliver();
	}
	return gone;
}

/* Under l->moving: these go, whoever got them last. */
static int64_t go_now(quarry_lanes *l, const quarry_handle *h, size_t count)
{
	int64_t gone = 0;

	qy_moves_undo(l);
	(void)flush_all(l, true, 0, NULL, &gone); /* what a pass has gathered, */
	gone = 0;                                /* which nobody asked for */
	for (size_t i = 0; i < count; i++)
		if (quarry_handle_valid(l, h[i]))
			gone += add_object(l, (uint32_t)h[i], false);
	(void)flush_all(l, false, 0, NULL, &gone);
	while (qy_cold_evict(l->cold, true))
		;
	return gone;
}

int64_t quarry_evict(quarry_lanes *l, const quarry_handle *h, size_t count)
{
	int64_t gone = -1;

	if (may_cool(l)) {
		gone = go_now(l, h, count);
		qy_let_go(&l->moving);
		qy_events_deliver();
	}
	return gone;
}

/* ---- made and ended ---- */

int qy_cooling_make(quarry_lanes *l, const quarry_cold_attr *a)
{
	const struct qy_codec *codec = qy_codec_find(a->codec == NULL ? "lz4" : a->codec);

	if (codec == NULL)
		return -1;
	l->cooling = quarry_calloc(1, sizeof(*l->cooling));
	if (l->cooling == NULL)
		return -1;
	l->cooling->raw = quarry_malloc(QY_COLD_RAW);
	if (l->cooling->raw == NULL)
		return -1;
	l->cooling->percent = a->stall_percent == 0 ? STALL_PERCENT : a->stall_percent;
	l->cooling->cpu = qy_os->cpu_ns();
	l->cooling->wall = qy_os->now_ns();
	l->glances = !(a->flags & QUARRY_COLD_NO_COPIES) && !l->canaries; /* (these are looked at as what came back) */
	l->cooling->least = l->cooling->period = a->period_ms == 0 ? PERIOD_MS : a->period_ms;
	l->cold = qy_cold_make(codec, l->arena, a->memory_limit, a->directory, a->file_limit);
	if (l->cold == NULL || a->long_codec == NULL)
		return l->cold == NULL ? -1 : 0;
	if (strcmp(a->long_codec, "zstd") != 0)
		return qy_fail(EINVAL, "long_codec: \"%s\" is not zstd", a->long_codec);
	codec = qy_codec_find("zstd");
	if (codec == NULL)
		return -1;
	return qy_deep_make(l->cold, codec, a->long_periods == 0 ? LONG_PERIODS : a->long_periods);
}

void qy_cooling_end(quarry_lanes *l)
{
	qy_cold_end(l->cold);
	if (l->cooling != NULL) {
		for (unsigned class = 0; class < QY_CLASSES_MAX; class++)
			quarry_free(l->cooling->of[class].slot);
		quarry_free(l->cooling->raw);
	}
	quarry_free(l->cooling);
}

uint64_t qy_cool_period(const quarry_lanes *l)
{
	return l->cooling == NULL ? 0 : qy_peek(l->cooling->period);
}

int quarry_cold_stats_get(quarry_lanes *l, quarry_cold_stats *stats)
{
	quarry_cold_stats s = { .struct_size = sizeof(s) };
	struct qy_cold_figures f = { 0 };

	if (!qy_lanes_check(l))
		return -1;
	if (stats == NULL || (stats->struct_size != 0 && stats->struct_size != sizeof(s)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_cold_stats");
	if (l->cold != NULL)
		qy_cold_count(l->cold, &f);
	s.objects = f.objects;
	s.bytes = f.bytes;
	s.compressed = f.compressed;
	s.evicted = f.evicted;
	s.loaded = f.loaded;
	s.corrupt = f.corrupt;
	s.failures = f.failures;
	s.incompressible = f.incompressible;
	s.deepened = f.deepened;
	s.dictionaries = f.dictionaries;
	s.dictionary_bytes = f.dictionary_bytes;
	s.copies = f.copies;
	s.period_ms = qy_cool_period(l);
	*stats = s;
	return 0;
}
