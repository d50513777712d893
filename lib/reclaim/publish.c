/* SPDX-License-Identifier: MIT */
/* When the figures are published: by whom the memory goes back, behind a pass; at most once in a second, and for at most
 * a hundredth of the time. How is the viewer's affair (lib/view/publish.c).
 *
 * Nobody is woken for it who has nothing else to do: a process at rest publishes once after what it did last, and is
 * at rest then. Nor is there a way for it to hear that somebody looks. */
#include "lib/reclaim/publish.h"

#include "lib/base/settings.h"
#include "lib/reclaim/pass.h"
#include "numa/os.h"

#define INTERVAL_MS 1000
#define SHARE 100      /* one in so many parts of the time */
#define EACH_CALLS 64  /* slow calls between two looks at the clock */

static _Atomic(const struct qy_publisher *) publisher;
static _Atomic(uint32_t) busy;
static _Atomic(uint32_t) asked; /* the thread was woken for it */
static _Atomic(uint64_t) due;   /* ms: not before; 0: nobody has asked yet */

void qy_reclaim_set_publisher(const struct qy_publisher *how)
{
	atomic_store(&publisher, how);
}

/* In auto, what runs a second or less, as most programs do, pays nothing. */
static bool is_due(uint64_t now)
{
	uint64_t none = 0;

	if (qy_setting(publish) != QY_PUBLISH_ON)
		(void)atomic_compare_exchange_strong(&due, &none, now + INTERVAL_MS);
	return now >= atomic_load_explicit(&due, memory_order_relaxed);
}

static void publish(uint64_t now)
{
	uint64_t begun = qy_os->now_ns(), took_ms;

	if (atomic_exchange_explicit(&busy, 1, memory_order_acquire) != 0)
		return;
	atomic_load(&publisher)->publish();
	took_ms = (qy_os->now_ns() - begun) / 1000000;
	atomic_store_explicit(&due, now + qy_max(INTERVAL_MS, took_ms * SHARE), memory_order_relaxed);
	atomic_store_explicit(&asked, 0, memory_order_relaxed);
	atomic_store_explicit(&busy, 0, memory_order_release);
}

uint64_t qy_publish_if_due(uint64_t now)
{
	if (atomic_load_explicit(&publisher, memory_order_relaxed) == NULL || qy_setting(publish) == QY_PUBLISH_OFF)
		return UINT64_MAX;
	if (!is_due(now))
		return atomic_load_explicit(&due, memory_order_relaxed);
	publish(now);
	return UINT64_MAX;
}

bool qy_publish_tick(uint32_t calls)
{
	long how = qy_setting(publish);
	uint64_t now;

	if (QY_LIKELY(calls % EACH_CALLS != 0) || how == QY_PUBLISH_OFF ||
	    atomic_load_explicit(&publisher, memory_order_relaxed) == NULL)
		return false;
	if (how == QY_PUBLISH_AUTO && !qy_reclaim_running())
		return false;
	now = qy_os->now_ms();
	if (!is_due(now))
		return false;
	if (qy_reclaim_running())
		return atomic_exchange_explicit(&asked, 1, memory_order_relaxed) == 0;
	publish(now);
	return false;
}

void qy_publish_after_fork(void)
{
	atomic_store(&busy, 0);
	atomic_store(&asked, 0);
	atomic_store(&due, 0);
	if (atomic_load(&publisher) != NULL)
		atomic_load(&publisher)->after_fork();
}
