/* SPDX-License-Identifier: MIT */
#include "lib/cache/sample.h"

#include <errno.h>

#include "lib/base/checker.h"
#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "lib/manager/mixed.h"
#include "numa/os.h"

_Atomic(uint64_t) qy_sample_mean, qy_sample_mean_last;

/* What is allocated while a sample is noted is none: by the unwinder, or by a patched mmap. */
static __thread bool looking __attribute__((tls_model("initial-exec")));

/* ---- numbers ---- */

#define LN_2 0.69314718055994530942

/* The natural logarithm of m, 1 <= m < 2, to 12 digits: 2 artanh((m - 1) / (m + 1)) as a series. (No libm here.) */
static double log_of(double m)
{
	double z = (m - 1) / (m + 1), square = z * z, sum = 0;

	for (int n = 23; n > 0; n -= 2)
		sum = sum * square + 1.0 / n;
	return 2 * z * sum;
}

/* Exponentially distributed around mean, from 64 random bits. */
static int64_t draw_from(uint64_t bits, uint64_t mean)
{
	uint64_t n = (bits >> 11) + 1; /* 1 to 2^53 */
	unsigned e = qy_log2_floor(n);
	double negative_log = (53 - (int)e) * LN_2 - log_of((double)n / (double)((uint64_t)1 << e));

	return (int64_t)(negative_log * (double)mean);
}

/* A mean of 1 samples all there is. splitmix64 (G. L. Steele, D. Lea, C. H. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014). */
static int64_t draw(struct qy_cache *c)
{
	uint64_t x = c->random += 0x9e3779b97f4a7c15u;

	if (c->mean == 1)
		return 0;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return draw_from(x ^ x >> 31, c->mean);
}

/* exp(-x) - 1: by its series where x is small, and doubled from there. */
static double exp_less_one(double x)
{
	unsigned doublings = 0;
	double sum = 0;

	for (; x > 0.125; x /= 2)
		doublings++;
	for (int n = 10; n > 0; n--)
		sum = -x / n * (1 + sum);
	while (doublings-- > 0)
		sum *= 2 + sum;
	return sum;
}

/* How many objects of so many bytes a sample stands for, in units of 1 / QY_WEIGHT_ONE. */
static uint64_t weight_of(size_t bytes, uint64_t mean)
{
	double x = (double)qy_max(bytes, 1) / (double)mean;

	return x > 30 ? QY_WEIGHT_ONE : (uint64_t)(QY_WEIGHT_ONE / -exp_less_one(x) + 0.5);
}

/* ---- drawing ---- */

/* What its lists hold was not drawn for: it goes back, to be drawn for when it comes again. (Inside another slow path the
 * heap may be in the middle of something, and it stays.) */
void qy_sample_begin(struct qy_cache *c, uint64_t mean)
{
	if (c->mean == 0 && c->thread->depth == 1u + c->thread->resizes)
		qy_cache_flush(c);
	c->mean = mean;
	if (c->random == 0)
		c->random = qy_os->now_ns() ^ (uintptr_t)c << 16;
	c->until = mean == 0 ? 0 : draw(c);
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		c->due[cls] = false;
}

/* Inside another slow path, nobody could note it. */
static bool may_sample(const struct qy_cache *c)
{
	const struct qy_thread *t = c->thread;

	return c->mean != 0 && !looking && !t->service && t->depth == 1u + t->resizes && t->sampled == 0;
}

/* The objects from there on wait in the list of what was freed, where the next refill finds them, as far as it has room:
 * its count is what the next draw goes by. (It is empty, unless a patched mmap has freed something meanwhile.) */
static void set_aside(struct qy_cache *c, unsigned cls, void *rest)
{
	struct qy_freelist *l = &c->freed[cls];
	void *came = qy_freelist_take(l), *last = rest;
	uint32_t n = 1;

	if (came != NULL)
		qy_heap_put_back(&c->heap, came);
	for (; qy_next_object(last) != NULL && n + 1 < l->most; last = qy_next_object(last))
		n++;
	came = qy_next_object(last);
	qy_link_object(last, NULL);
	l->room = l->most - n;
	__atomic_store_n(&l->head, rest, __ATOMIC_RELEASE);
	if (came != NULL)
		qy_heap_put_back(&c->heap, came);
}

/* What may be handed out before the next sample: how far the process gets in the list. NULL: no object; otherwise the
 * last one of those. */
static void *last_before(struct qy_cache *c, unsigned cls, void *p)
{
	int64_t size = qy_classes[cls].size;
	void *last = NULL;

	for (; p != NULL && c->until >= size; p = qy_next_object(p)) {
		c->until -= size;
		last = p;
	}
	if (p != NULL) {
		c->due[cls] = true;
		c->until = draw(c);
	}
	return last;
}

void qy_sample_split(struct qy_cache *c, unsigned cls)
{
	void *first = c->head[cls], *last = NULL, *rest;

	/* Inside another slow path the heap may be in the middle of something: the list stays whole. (Who cannot take a
	 * sample otherwise, since one is being noted, gets one object: what is drawn for is the next list.) */
	if (c->thread->depth > 1u + c->thread->resizes)
		return;
	if (!may_sample(c))
		last = first;
	else if (!c->due[cls])
		last = last_before(c, cls, first);
	rest = last == NULL ? first : qy_next_object(last);
	if (rest != NULL)
		set_aside(c, cls, rest);
	if (last != NULL)
		qy_link_object(last, NULL);
	else
		c->head[cls] = NULL;
}

bool qy_sample_is_due(const struct qy_cache *c, unsigned cls)
{
	return c->due[cls] && c->head[cls] == NULL && may_sample(c);
}

void *qy_sample_take(struct qy_cache *c, unsigned cls)
{
	void *p = qy_manager_get_one(c->heap.manager, cls);

	if (p != NULL) {
		c->thread->sampled = c->mean;
		return p;
	}
	/* (One object passes: where all are sampled, nothing else would change.) */
	c->until += qy_classes[cls].size;
	atomic_fetch_add_explicit(&qy_samples_lost, 1, memory_order_relaxed);
	return NULL;
}

static bool falls_in(struct qy_cache *c, size_t bytes)
{
	if (!may_sample(c))
		return false;
	c->until -= (int64_t)qy_min(bytes, INT64_MAX / 2);
	if (c->until >= 0)
		return false;
	c->until = draw(c);
	return true;
}

bool qy_sample_wants(struct qy_cache *c, unsigned cls)
{
	return QY_UNLIKELY(c->mean != 0) && falls_in(c, qy_classes[cls].size);
}

void qy_sample_large(struct qy_cache *c, size_t bytes)
{
	if (falls_in(c, bytes))
		c->thread->sampled = c->mean;
}

/* ---- what is known of them ---- */

QY_INLINE void note(const void *p, size_t asked, uint64_t mean)
{
	void *frames[QY_SITE_FRAMES];
	size_t size = qy_cache_room(p);
	struct qy_manager *m = qy_manager_of(p);
	struct qy_sample sample = { .asked = asked, .born = qy_os->now_ms(), .weight = weight_of(size, mean) };
	unsigned depth;

	if (m == NULL || size == 0 || looking)
		return;
	if (qy_checker != QY_CHECKER_NONE)
		sample.asked -= QY_CHECKER_MARGIN;
	looking = true;
	depth = qy_os->stack(frames, QY_SITE_FRAMES);
	sample.site = qy_site_get(frames, depth, size, (uint16_t)m->index,
				  (int16_t)qy_peek(m->placement)->node);
	if (sample.site == NULL)
		atomic_fetch_add_explicit(&qy_samples_lost, 1, memory_order_relaxed);
	else
		(void)qy_sample_add(p, &sample);
	looking = false;
}

uint64_t qy_sample_taken(struct qy_thread *t)
{
	uint64_t mean = t->sampled;

	t->sampled = 0;
	return mean;
}

void *qy_sample_note(uint64_t mean, void *p, size_t asked)
{
	int error = errno;

	if (p != NULL)
		note(p, asked, mean);
	errno = error;
	return p;
}

void qy_sample_freed(const void *p)
{
	struct qy_sample sample;

	if (qy_sample_take_out(p, &sample))
		qy_sample_ended(&sample);
}

/* Whether a block, as it is from here on, is a sample: of so many bytes one; or 0. */
static uint64_t draw_for(const void *p)
{
	struct qy_thread *t = qy_thread_enter();
	uint64_t mean = 0;

	if (t == NULL)
		return 0;
	qy_sample_look(qy_thread_cache(t));
	if (falls_in(qy_thread_cache(t), qy_cache_room(p)))
		mean = qy_thread_cache(t)->mean;
	qy_thread_leave(t);
	return mean;
}

bool qy_sample_resizes(const void *p, struct qy_sample *was)
{
	was->site = NULL;
	return qy_samples_any() && qy_sample_take_out(p, was);
}

void qy_sample_resized(const void *p, const struct qy_sample *was, const void *to, size_t asked)
{
	uint64_t mean = 0;
	int error = errno;

	if (p == to && was->site != NULL && was->asked == asked) {
		qy_sample_put_back(p, was);
		return;
	}
	if (was->site != NULL)
		qy_sample_ended(was);
	if (to != NULL)
		mean = draw_for(to);
	if (mean != 0)
		note(to, asked, mean);
	errno = error;
}

/* (The first thread's lists are filled before a program begins, by its loader and libraries.) */
static void begin_here(void)
{
	struct qy_thread *t = qy_thread_enter();

	if (t == NULL)
		return;
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		qy_sample_look(c);
	qy_thread_leave(t);
}

void qy_sampling_start(uint64_t mean, int unwind)
{
	atomic_store_explicit(&qy_mixed_keeps_apart, mean != 0, memory_order_relaxed);
	if (mean != 0) {
		atomic_store_explicit(&qy_sample_mean_last, mean, memory_order_relaxed);
		(void)qy_os->stack_prepare((enum qy_unwind)unwind);
	}
	atomic_store_explicit(&qy_sample_mean, mean, memory_order_release);
	begin_here();
}
