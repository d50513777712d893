/* SPDX-License-Identifier: MIT */
/* Page allocators: who finds no room while others are busy is told the truth of it, and no accident of timing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/object/pages.h"

#define PAGES 4096u

static quarry_pages *make(void)
{
	quarry_pages_attr attr = { .struct_size = sizeof(attr), .count = PAGES };
	quarry_pages *pages = quarry_pages_create(&attr);

	cr_assert_not_null(pages, "errno %d: %s", errno, quarry_error_text());
	return pages;
}

static struct {
	quarry_pages *pages;
	pthread_barrier_t barrier;
	atomic_bool stop;
} busy;

/* In the middle of something, with pages in hand that it will give back: until the other thread asks for quiet, or has
 * given up. */
static void *hold_until_it_is_quiet(void *unused)
{
	struct qy_pages_stripe *stripe = qy_pages_begin(busy.pages);

	cr_assert(qy_pages_claim(busy.pages, 1000, 7));
	pthread_barrier_wait(&busy.barrier);
	while (atomic_load(&busy.pages->quiet) == 0 && !atomic_load(&busy.stop))
		sched_yield();
	qy_pages_release(busy.pages, 1000, 7);
	qy_pages_end(busy.pages, stripe);
	return unused;
}

Test(pages_exact, what_somebody_has_in_hand_is_waited_for)
{
	quarry_pages *pages = busy.pages = make();
	pthread_t thread;
	void *run;

	pages->patience_ms = 60000;
	atomic_store(&busy.stop, false);
	pthread_barrier_init(&busy.barrier, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, hold_until_it_is_quiet, NULL), 0);
	pthread_barrier_wait(&busy.barrier);
	errno = 0;
	run = quarry_pages_alloc(pages, PAGES - 100);
	cr_expect_not_null(run, "errno %d", errno);
	cr_expect_eq(errno, 0);
	atomic_store(&busy.stop, true);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(atomic_load(&pages->quiet), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* Pages come and go all the time, one at a time and in a corner of their own. */
static void *come_and_go(void *at)
{
	while (!atomic_load_explicit(&busy.stop, memory_order_relaxed))
		if (quarry_pages_alloc_at(busy.pages, at, 1) != NULL)
			cr_assert_eq(quarry_pages_free(busy.pages, at), 0);
	return NULL;
}

/* What it tries to get is never all free, so that it gives back at once what it got of it. */
static void *try_in_vain(void *at)
{
	while (!atomic_load_explicit(&busy.stop, memory_order_relaxed))
		cr_assert_null(quarry_pages_alloc_at(busy.pages, at, PAGES / 2));
	return NULL;
}

Test(pages_exact, room_is_found_and_lack_of_it_known_while_others_are_busy)
{
	enum { THREADS = 4 };
	quarry_pages *pages = busy.pages = make();
	pthread_t thread[THREADS];

	pages->patience_ms = 60000;
	atomic_store(&busy.stop, false);
	/* The last page is somebody's, so that the half before it is all the room that there is. */
	cr_assert_not_null(quarry_pages_alloc_at(pages, quarry_pages_at(pages, PAGES - 1), 1));
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(i < 2 ? pthread_create(&thread[i], NULL, come_and_go, quarry_pages_at(pages, 10 + (unsigned)i)) :
				     pthread_create(&thread[i], NULL, try_in_vain, quarry_pages_at(pages, PAGES / 2)),
			     0);
	for (int i = 0; i < 1000; i++) {
		void *run = quarry_pages_alloc(pages, PAGES / 2 - 1);

		cr_assert_not_null(run, "round %d: errno %d", i, errno);
		cr_assert_eq(quarry_pages_free(pages, run), 0);
		errno = 0;
		cr_assert(quarry_pages_alloc(pages, PAGES) == NULL && errno == ENOMEM, "round %d: errno %d", i, errno);
	}
	atomic_store(&busy.stop, true);
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* ---- quiet ---- */

static void *ask_for_room(void *result)
{
	errno = 0;
	*(int *)result = quarry_pages_alloc(busy.pages, PAGES) != NULL ? 0 : errno;
	atomic_store(&busy.stop, true);
	return NULL;
}

static void *begin_and_end(void *unused)
{
	qy_pages_end(busy.pages, qy_pages_begin(busy.pages));
	return unused;
}

/* He counts himself, sees that it is to be quiet, and takes that back: then he begins once more. */
Test(pages_exact, who_begins_waits_while_it_is_quiet)
{
	quarry_pages *pages = busy.pages = make();
	struct qy_pages_stripe *stripe = qy_pages_begin(pages);
	uint64_t begun = qy_pages_begun(pages);
	pthread_t thread;

	cr_assert(qy_pages_quiet(pages, stripe, 0));
	cr_expect(!qy_pages_quiet(pages, stripe, 0), "one at a time");
	cr_assert_eq(pthread_create(&thread, NULL, begin_and_end, NULL), 0);
	while (qy_pages_ended(pages) < begun)
		sched_yield();
	qy_pages_loud(pages, atomic_load(&pages->quiet));
	cr_assert_eq(pthread_join(thread, NULL), 0);
	qy_pages_end(pages, stripe);
	cr_expect_geq(qy_pages_begun(pages), begun + 2);
	cr_expect_eq(qy_pages_begun(pages), qy_pages_ended(pages));
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* Somebody who begins while it is to be quiet waits for a while, and goes on then: the other one may wait for him. */
Test(pages_exact, nobody_waits_for_ever)
{
	quarry_pages *pages = busy.pages = make();
	struct qy_pages_stripe *stripe = qy_pages_begin(pages);
	pthread_t thread;
	int result = -1;
	void *page;

	atomic_store(&busy.stop, false);
	pages->patience_ms = 1000;
	cr_assert(qy_pages_claim(pages, 1000, 7));
	cr_assert_eq(pthread_create(&thread, NULL, ask_for_room, &result), 0);
	while (atomic_load(&pages->quiet) == 0 && !atomic_load(&busy.stop))
		sched_yield();
	page = quarry_pages_alloc(pages, 1); /* as a signal's handler would, in the middle of the above */
	cr_expect_not_null(page);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(result, EAGAIN, "it could not be known: errno %d", result);
	cr_assert_eq(quarry_pages_free(pages, page), 0);
	qy_pages_release(pages, 1000, 7);
	qy_pages_end(pages, stripe);
	ask_for_room(&result);
	cr_expect_eq(result, 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* Who asked may be stopped: one waits for him, for a while, and no other does. */
Test(pages_exact, one_who_asked_and_is_stopped_is_waited_for_once)
{
	quarry_pages *pages = make();
	struct qy_pages_stripe *stripe = qy_pages_begin(pages);
	uint32_t who = qy_pages_quiet(pages, stripe, 0), other;

	cr_assert_neq(who, 0);
	for (int i = 0; i < 2; i++) {
		void *page = quarry_pages_alloc(pages, 1);

		cr_expect_not_null(page);
		cr_expect_eq(atomic_load(&pages->quiet), 0, "for all");
		cr_assert_eq(quarry_pages_free(pages, page), 0);
	}
	/* He goes on: another one's quiet is not his to end. */
	other = qy_pages_quiet(pages, stripe, 0);
	cr_expect(other != 0 && other != who);
	qy_pages_loud(pages, who);
	cr_expect_eq(atomic_load(&pages->quiet), other);
	qy_pages_loud(pages, other);
	cr_expect_eq(atomic_load(&pages->quiet), 0);
	qy_pages_end(pages, stripe);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* In a child nobody asks for quiet any more. */
Test(pages_exact, a_child_is_not_kept_waiting)
{
	quarry_pages *pages = make();
	struct qy_pages_stripe *stripe = qy_pages_begin(pages);
	uint32_t parents;
	int status;
	pid_t child;

	cr_assert(qy_pages_quiet(pages, stripe, 0));
	qy_pages_end(pages, stripe);
	parents = atomic_load(&pages->quiet);
	child = fork();
	if (child == 0) {
		bool fine = quarry_pages_alloc(pages, 1) != NULL && atomic_load(&pages->quiet) == 0;

		atomic_store(&pages->quiet, parents);
		fine = fine && quarry_pages_alloc(pages, PAGES) == NULL && errno == ENOMEM;
		_exit(!fine);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_expect_eq(status, 0, "status %x", (unsigned)status);
	qy_pages_loud(pages, atomic_load(&pages->quiet));
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}
