/* SPDX-License-Identifier: MIT */
/* Publishing. The figures are gathered in memory of our own, which takes as long as it takes, and then copied to the
 * page between two changes of its generation, which takes microseconds: a reader seldom meets a half-written one, and
 * a process that is stopped meanwhile seldom leaves one.
 *
 * The page is a mapping of a memory file: so it has a name in /proc/PID/maps, on every kernel, and its size is sealed,
 * and against writing through any descriptor or new mapping it is, too (Linux 5.1). Its descriptor is closed at once:
 * programs that close all descriptors, count them or hand them on see nothing of it. Whoever may trace the process may
 * write to the page all the same, and finds that nobody reads it: all that we go by is here.
 *
 * A forked child does not have it (MADV_DONTFORK), and makes its own. One that was made by a bare clone has neither the
 * mapping nor been told: it is known by its number, and publishes nothing. */
#include "lib/view/publish.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/lock.h"
#include "lib/base/refused.h"
#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"
#include "lib/view/gather.h"
#include "lib/view/history.h"
#include "numa/memfd.h"
#include "numa/os.h"

#define AFTER_REFUSAL_NS UINT64_C(60000000000) /* the next try: descriptors may have run out for a while only */

static struct {
	quarry_published *shared;  /* NULL: none yet */
	quarry_published *picture; /* as large, and our own */
	uint64_t made_ns, generation, refused_ns;
	int pid;
} page;

/* The history, in the picture: the one thing there that lasts. Held by who notes, which may be a signal handler's pass
 * and so does not wait, and by who reads it in this process. */
static struct {
	struct qy_lock lock;
	bool noted; /* by this process: what a child finds was its parent's */
} history = { QY_LOCK_INIT(QY_RANK_LEAF), false };

static size_t page_size(void)
{
	return qy_gather_size(QUARRY_PUBLISHED_ARENAS);
}

static bool make_picture(void)
{
	void *p;

	if (page.picture != NULL)
		return true;
	p = qy_os->mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	page.picture = p == MAP_FAILED ? NULL : p;
	return page.picture != NULL;
}

/* Entered: a fork that came in between would leave the child the descriptor, or the parent's page. */
static quarry_published *make_shared(void)
{
	struct qy_thread *self = qy_thread_enter();
	quarry_published *shared;

	if (self == NULL)
		return NULL;
	shared = qy_memfd_shared(QUARRY_PUBLISHED_NAME, page_size());
	qy_thread_leave(self);
	return shared;
}

static bool make(uint64_t now_ns)
{
	if (page.shared != NULL)
		return page.pid == qy_os->process_id();
	if (page.refused_ns != 0 && now_ns - page.refused_ns < AFTER_REFUSAL_NS)
		return false;
	page.shared = make_picture() ? make_shared() : NULL;
	if (page.shared == NULL) {
		qy_refuse(QUARRY_REFUSED_PUBLISH);
		page.refused_ns = now_ns;
		return false;
	}
	page.pid = qy_os->process_id();
	page.made_ns = now_ns;
	page.generation = 0;
	return true;
}

/* In order with what is written between two of them. */
static void set_generation(uint64_t generation)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&page.shared->generation, generation, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void note_history(void)
{
	quarry_sample *rings = qy_gather_history(page.picture);

	if (!qy_trylock(&history.lock))
		return;
	if (!history.noted)
		memset(rings, 0, QY_HISTORY_SAMPLES * sizeof(*rings));
	history.noted = true;
	qy_history_note(rings, qy_gather_total(page.picture), page.picture->time_ns);
	qy_unlock(&history.lock);
}

static void publish(void)
{
	const size_t behind = offsetof(quarry_published, generation) + sizeof(page.shared->generation);
	int error = errno;
	size_t size;

	if (make(qy_os->now_ns())) {
		size = qy_gather(page.picture, QUARRY_PUBLISHED_ARENAS, false);
		page.picture->made_ns = page.made_ns;
		note_history();
		set_generation(++page.generation);
		memcpy(page.shared, page.picture, offsetof(quarry_published, generation));
		memcpy((char *)page.shared + behind, (const char *)page.picture + behind, size - behind);
		set_generation(++page.generation);
	}
	errno = error;
}

static void after_fork(void)
{
	qy_gather_after_fork();
	page.shared = NULL;
	page.refused_ns = 0;
	qy_lock_init(&history.lock, QY_RANK_LEAF);
	history.noted = false;
}

QUARRY_API long quarry_history_get(int ring, quarry_sample *list, size_t max, size_t size)
{
	static const uint32_t none[QY_HISTORY_RINGS];
	struct qy_rings rings = { "", sizeof(*list), none };
	long n;

	qy_lock(&history.lock);
	if (history.noted)
		rings = (struct qy_rings){ qy_gather_history(page.picture), sizeof(*list), qy_history_counts };
	n = qy_history_list(&rings, ring, list, max, size);
	qy_unlock(&history.lock);
	return n;
}

void qy_publish_begin(void)
{
	static const struct qy_publisher publisher = { publish, after_fork };

	qy_reclaim_set_publisher(&publisher);
}

void *qy_published_page(size_t *size)
{
	*size = page_size();
	return page.shared;
}
