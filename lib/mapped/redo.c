/* SPDX-License-Identifier: MIT */
/* The heap's lock, and changes of several words under it, which happen all or not at all.
 *
 * Entries are written to the record first. While its count is 0 they mean nothing. With the count they hold: whoever
 * comes next, the holder or who gets the lock after its death, stores them, all, and then the count is 0 again. To store twice
 * does no harm: the lock is not let go in between, and none of these words changes without it, but that others set bits in
 * some. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_mutex_clocklock(3) */
#endif
#include <errno.h>
#include <string.h>
#include <time.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"

#define WAIT_NS 20000000u

int qy_mapped_lock_make(struct heap *h)
{
	pthread_mutexattr_t attr;
	int error = pthread_mutexattr_init(&attr);

	if (error == 0)
		error = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	if (error == 0)
		error = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	memset(&h->live->lock, 0, sizeof(h->live->lock));
	if (error == 0)
		error = pthread_mutex_init(&h->live->lock.mutex, &attr);
	(void)pthread_mutexattr_destroy(&attr);
	return error == 0 ? 0 : qy_fail(error, "mapped heap: no lock between processes");
}

int qy_mapped_refuse_class(const struct heap *h, uint32_t cls)
{
	if (QY_LIKELY(!qy_mapped_is_bad(h, cls)))
		return 0;
	return qy_fail(EROFS, "mapped heap: what is known of objects of %u bytes is damaged: they are read-only",
		       qy_mapped_classes[cls].size);
}

int qy_mapped_refuse(const struct heap *h)
{
	if (h->read_only)
		return qy_fail(EROFS, "mapped heap: it is open to be read");
	if (h->stale)
		return qy_fail(ESTALE, "mapped heap: this process has no session of it");
	if (qy_peek(h->live->broken) != 0)
		return qy_fail(EROFS, "mapped heap: what stands in it cannot be; it is read-only");
	return 0;
}

/* Never without a limit: who is woken, and killed before it has the lock, may take the wake-up of the others along (a third one had
 * the lock by then, and knows of nobody who waits). */
int qy_mapped_await(pthread_mutex_t *mutex)
{
	int error = pthread_mutex_trylock(mutex);

	while (error == EBUSY || error == ETIMEDOUT) {
		uint64_t until = qy_os->now_ns() + WAIT_NS;
		struct timespec at = { .tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000) };

#ifdef __SANITIZE_THREAD__ /* (which knows of this one alone, in GCC 12) */
		(void)at;
		error = pthread_mutex_lock(mutex);
#else
		error = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &at);
#endif
	}
	return error;
}

/* error: what taking the lock came to. */
static int entered(struct heap *h, int error)
{
	QY_POINT();
	if (QY_UNLIKELY(error == EOWNERDEAD)) {
		QY_POINT();
		if (h->durable != NULL)
			qy_dirty_suspect(h);
		qy_mapped_replay(h);
		QY_POINT();
		qy_count_shared((qy_counter *)(void *)&h->live->recovered_locks, 1);
		error = pthread_mutex_consistent(&h->live->lock.mutex);
	}
	if (QY_UNLIKELY(error != 0))
		return qy_fail(ESTALE, "mapped heap: its lock is beyond repair");
	h->staged = 0;
	/* It may have been found just now, or while this one waited; the record stays as it is. */
	if (QY_UNLIKELY(qy_mapped_refuse(h) != 0)) {
		pthread_mutex_unlock(&h->live->lock.mutex);
		return -1;
	}
	return 0;
}

int qy_mapped_enter(struct heap *h)
{
	if (QY_UNLIKELY(qy_mapped_refuse(h) != 0))
		return -1;
	return entered(h, qy_mapped_await(&h->live->lock.mutex));
}

int qy_mapped_try_enter(struct heap *h)
{
	int error;

	if (QY_UNLIKELY(qy_mapped_refuse(h) != 0))
		return -1;
	error = pthread_mutex_trylock(&h->live->lock.mutex);
	return error == EBUSY ? 1 : entered(h, error);
}

void qy_mapped_leave(struct heap *h)
{
	QY_POINT();
	h->staged = 0;
	pthread_mutex_unlock(&h->live->lock.mutex);
}

/* ---- the record ---- */

static uint64_t place_of(const struct heap *h, const uint64_t *word)
{
	return (uint64_t)((const char *)word - h->pub.base);
}

uint64_t qy_redo_get(struct heap *h, const uint64_t *word)
{
	uint64_t value = __atomic_load_n(word, __ATOMIC_RELAXED), at = place_of(h, word);

	for (uint32_t i = 0; i < h->staged; i++) {
		if ((h->live->redo[i].at & ~(uint64_t)1) == at)
			value = (h->live->redo[i].at & 1) != 0 ? value | h->live->redo[i].value : h->live->redo[i].value;
	}
	return value;
}

uint32_t qy_redo_room(const struct heap *h)
{
	return QY_MAPPED_REDO - h->staged;
}

void qy_redo_drop(struct heap *h)
{
	h->staged = 0;
}

static void add(struct heap *h, uint64_t at, uint64_t value)
{
	qy_check(h->staged < QY_MAPPED_REDO);
	h->live->redo[h->staged++] = (struct qy_mapped_redo_entry){ at, value };
	QY_POINT();
}

/* What was staged for the word before is in value: who stages asks by qy_redo_get. */
void qy_redo_store(struct heap *h, uint64_t *word, uint64_t value)
{
	uint64_t at = place_of(h, word);

	for (uint32_t i = 0; i < h->staged; i++) {
		if (h->live->redo[i].at == at) {
			h->live->redo[i].value = value;
			return;
		}
	}
	add(h, at, value);
}

void qy_redo_store_after(struct heap *h, uint64_t *word, uint64_t value)
{
	add(h, place_of(h, word), value);
}

void qy_redo_or(struct heap *h, uint64_t *word, uint64_t bits)
{
	uint64_t at = place_of(h, word) | 1;

	for (uint32_t i = 0; i < h->staged; i++) {
		if (h->live->redo[i].at == at) {
			h->live->redo[i].value |= bits;
			return;
		}
	}
	add(h, at, bits);
}

static void apply(struct heap *h, const struct qy_mapped_redo_entry *entries, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		const struct qy_mapped_redo_entry *e = &entries[i];
		uint64_t *word = (uint64_t *)(void *)(h->pub.base + (e->at & ~(uint64_t)1));

		if ((e->at & 1) != 0)
			__atomic_fetch_or(word, e->value, __ATOMIC_RELEASE);
		else
			qy_put(*word, e->value);
		QY_POINT();
	}
	qy_put(h->live->redo_count, 0);
	QY_POINT();
}

/* For what becomes of the record in a file; between processes that live nothing of it can be torn. */
static uint64_t sum_of(const struct qy_mapped_redo_entry *entries, uint64_t count)
{
	uint64_t sum = count;

	for (uint64_t i = 0; i < count; i++)
		sum = ((sum ^ entries[i].at) * 0x9e3779b97f4a7c15u ^ entries[i].value) * 0xbf58476d1ce4e5b9u + i;
	return sum;
}

void qy_redo_commit(struct heap *h)
{
	if (h->staged != 0) {
		uint64_t count = h->staged;

		h->live->redo_check = sum_of(h->live->redo, count);
		QY_POINT();
		qy_put(h->live->redo_count, count);
		QY_POINT();
		apply(h, h->live->redo, count);
	}
	h->staged = 0;
}

/* Whether the word that an entry is for may be changed by one. It may be nonsense: the file's. size: the file's. */
static bool is_for(const struct heap *h, uint64_t at, uint64_t size)
{
	uint64_t lanes = (uint64_t)((char *)h->lanes - h->pub.base);

	at &= ~(uint64_t)1;
	if (at == QY_MAPPED_LIVE_AT + offsetof(struct qy_mapped_live, segments) ||
	    at == QY_MAPPED_LIVE_AT + offsetof(struct qy_mapped_live, end))
		return true;
	return at % 8 == 0 && at >= lanes && at <= qy_min(size, h->pub.length) - 8;
}

/* (What was checked is what is stored: a copy.) */
void qy_mapped_replay(struct heap *h)
{
	struct qy_mapped_redo_entry entries[QY_MAPPED_REDO];
	uint64_t count = qy_peek(h->live->redo_count);
	struct qy_file_info info;
	bool good = count <= QY_MAPPED_REDO && qy_os->file_info(h->fd, &info) == 0;

	if (count == 0)
		return;
	for (uint64_t i = 0; good && i < count; i++) {
		entries[i].at = qy_peek(h->live->redo[i].at);
		entries[i].value = qy_peek(h->live->redo[i].value);
		good = is_for(h, entries[i].at, info.size);
	}
	if (!good || h->live->redo_check != sum_of(entries, count)) {
		qy_mapped_bad_class(h, UINT32_MAX);
		return;
	}
	apply(h, entries, count);
	qy_count_shared((qy_counter *)(void *)&h->live->replayed, 1);
}

/* From now on nobody allocates or frees in it: better that memory is lost than that it is somebody else's. */
void qy_mapped_bad_class(struct heap *h, uint32_t cls)
{
	__atomic_fetch_or(&h->live->bad_classes, cls < QY_MAPPED_CLASSES ? (uint64_t)1 << cls : QY_MAPPED_BROKEN, __ATOMIC_RELEASE);
	if (cls >= QY_MAPPED_CLASSES)
		qy_put(h->live->broken, 1);
}
