/* SPDX-License-Identifier: MIT */
/* Cold objects that are got now and then stay cold, and who gets them has a copy: each promise of include/quarry/lanes.h on that, alone.
 * With writers, moves and frees at once it is tests/stress/lanes_glance.c. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/store.h"
#include "include/quarry/trace.h"
#include "lib/lanes/glance.h"
#include "lib/lanes/lanes.h"
#include "tests/fake_os.h"

#define COUNT 1500
#define SIZE 256

static quarry_handle handle[COUNT];

static quarry_lanes *make_as(quarry_cold_attr cold)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &cold };
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	l = quarry_lanes_create(&attr);
	cr_assert(l != NULL, "errno %d: %s", errno, quarry_error_text());
	return l;
}

static quarry_lanes *make(void)
{
	return make_as((quarry_cold_attr){ .period_ms = 1000 });
}

static void end(quarry_lanes *l)
{
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

static quarry_cold_stats figures(quarry_lanes *l)
{
	quarry_cold_stats s = { 0 };

	cr_assert(quarry_cold_stats_get(l, &s) == 0);
	return s;
}

static void fill(char *p, size_t size, unsigned i)
{
	memset(p, 0, size);
	(void)snprintf(p, size, "{\"customer\":{\"identifier\":%u,\"surname\":\"%x\"},\"balance\":%u,\"currency\":\"EUR\"}", i, i * 7919,
		       i * 31);
}

static bool is_record(const char *p, size_t size, unsigned i)
{
	char should[8192];

	fill(should, size, i);
	return p != NULL && memcmp(p, should, size) == 0;
}

static void make_records(quarry_lanes *l, size_t size, size_t alignment)
{
	for (unsigned i = 0; i < COUNT; i++) {
		handle[i] = quarry_halloc_typed(l, size, alignment, 7);
		quarry_enter();
		fill(quarry_get_mut(l, handle[i]), size, i);
		quarry_leave();
	}
}

static void all_cold(quarry_lanes *l)
{
	(void)quarry_evict(l, handle, COUNT);
	/* (But for what is so little that an extent would take more.) */
	cr_assert(figures(l).objects + 64 >= COUNT, "%llu", (unsigned long long)figures(l).objects);
}

static bool got(quarry_lanes *l, unsigned i)
{
	bool right;

	quarry_enter();
	right = is_record(quarry_get(l, handle[i]), SIZE, i);
	quarry_leave();
	return right;
}

static bool is_cold(quarry_lanes *l, unsigned i)
{
	return quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_COLD;
}

static void pass_now(quarry_lanes *l)
{
	fake_os_advance(figures(l).period_ms);
	cr_assert(quarry_cool(l, 0) >= 0);
}

/* ---- which ---- */

Test(lanes_glance, what_is_got_twice_stays_cold_and_comes_back_the_third_time)
{
	quarry_lanes *l = make();

	make_records(l, SIZE, 0);
	all_cold(l);
	for (unsigned i = 0; i < 2 * COUNT; i++)
		cr_assert(got(l, i % COUNT) && is_cold(l, i % COUNT), "record %u", i);
	cr_assert(figures(l).copies == 2 * COUNT && figures(l).loaded == 0 && figures(l).objects == COUNT);
	for (unsigned i = 0; i < COUNT; i += 2)
		cr_assert(got(l, i) && quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_VALID, "record %u", i);
	cr_assert(figures(l).copies == 2 * COUNT && figures(l).loaded == COUNT / 2 && figures(l).objects == COUNT / 2);
	end(l);
}

/* Once in each pass is never often enough; twice in each is. */
Test(lanes_glance, a_pass_forgets_half_of_it, .timeout = 60)
{
	quarry_lanes *l = make();

	make_records(l, SIZE, 0);
	all_cold(l);
	for (unsigned pass = 0; pass < 8; pass++) {
		cr_assert(got(l, 0) && is_cold(l, 0), "pass %u", pass);
		if (pass < 2) {
			cr_assert(got(l, 1) && is_cold(l, 1));
			cr_assert(got(l, 1) && is_cold(l, 1) == (pass == 0));
		}
		if (pass == 0 || pass == 3)
			cr_assert(got(l, 2) && got(l, 2) && is_cold(l, 2), "after three passes all is forgotten");
		pass_now(l);
	}
	cr_assert(got(l, 0) && got(l, 0) && is_cold(l, 0) && got(l, 0) && !is_cold(l, 0));
	end(l);
}

Test(lanes_glance, two_passes_forget_all_of_it)
{
	quarry_lanes *l = make();

	make_records(l, SIZE, 0);
	all_cold(l);
	pass_now(l);
	cr_assert(got(l, 0) && got(l, 0));
	pass_now(l);
	pass_now(l);
	cr_assert(got(l, 0) && got(l, 0) && is_cold(l, 0));
	end(l);
}

/* What was got often has been seen; what came back at the first time is on trial. */
Test(lanes_glance, what_was_got_often_stays_for_a_pass)
{
	quarry_lanes *l = make();

	make_records(l, SIZE, 0);
	all_cold(l);
	pass_now(l);
	for (unsigned i = 0; i < 200; i++)
		cr_assert(got(l, i) && got(l, i) && got(l, i) && !is_cold(l, i));
	quarry_enter();
	for (unsigned i = 200; i < 400; i++)
		cr_assert(quarry_get(l, handle[i]) != NULL && is_cold(l, i) == (i < 200 + QY_GLANCES));
	quarry_leave();
	pass_now(l);
	for (unsigned i = 0; i < 200; i++)
		cr_assert(!is_cold(l, i) && is_cold(l, 200 + i), "record %u", i);
	pass_now(l);
	cr_assert(is_cold(l, 0));
	end(l);
}

Test(lanes_glance, lanes_may_have_none)
{
	quarry_lanes *l = make_as((quarry_cold_attr){ .flags = QUARRY_COLD_NO_COPIES });

	make_records(l, SIZE, 0);
	all_cold(l);
	cr_assert(got(l, 0) && !is_cold(l, 0) && figures(l).copies == 0 && figures(l).loaded == 1);
	end(l);
}

/* All other ways bring it back at once, and what has a record, or is in the file, comes back by a get. */
Test(lanes_glance, every_other_way_brings_it_back)
{
	quarry_lanes *l = make();
	quarry_group *g = quarry_group_create(l, NULL);
	char *p;

	make_records(l, SIZE, 0);
	cr_assert(quarry_group_add(g, handle[5]) == 0 && quarry_hint(l, handle[6], QUARRY_HALLOC_COLD, QUARRY_PRIORITY_NORMAL) == 0);
	all_cold(l);
	quarry_enter();
	cr_assert(quarry_get_mut(l, handle[0]) != NULL && quarry_hwrite(l, handle[1], 8, "!", 1) == 0 && figures(l).copies == 0);
	p = quarry_write_begin(l, handle[2]);
	cr_assert(p != NULL);
	quarry_write_end(l, handle[2]);
	quarry_leave();
	cr_assert(quarry_pin(l, handle[3]) != NULL && quarry_unpin(l, handle[3]) == 0 && quarry_prefetch(l, &handle[4], 1) == 1);
	cr_assert(got(l, 5) && got(l, 6));
	for (unsigned i = 0; i < 7; i++)
		cr_assert(!is_cold(l, i), "record %u", i);
	cr_assert(got(l, 7) && is_cold(l, 7));
	cr_assert(quarry_group_destroy(g) == 0);
	end(l);
}

/* Who was told to try again gets it, and finds it then. */
Test(lanes_glance, what_was_refused_comes_back)
{
	quarry_lanes *l = make();
	const void *p;
	char copy[8];

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	cr_assert(quarry_get(l, handle[0]) != NULL && is_cold(l, 0));
	cr_assert(quarry_try_get(l, handle[0], &p) == -1 && errno == EAGAIN && quarry_get(l, handle[0]) != NULL);
	cr_assert(quarry_try_get(l, handle[0], &p) == 0 && is_record(p, SIZE, 0));
	cr_assert(quarry_opt_read(l, handle[1], 0, copy, 8) == -1 && errno == EAGAIN && quarry_get(l, handle[1]) != NULL);
	cr_assert(quarry_opt_read(l, handle[1], 0, copy, 8) == 0);
	cr_assert(quarry_get(l, handle[2]) != NULL && is_cold(l, 2));
	quarry_leave();
	end(l);
}

/* Once, and of those lanes alone; and who takes another handle, where it is worth it, was refused nothing. */
Test(lanes_glance, what_was_refused_is_another_matter_the_next_time)
{
	quarry_lanes *l = make(), *m;
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &(quarry_cold_attr){ .period_ms = 1000 } };
	quarry_handle other;
	const void *p;

	make_records(l, SIZE, 0);
	all_cold(l);
	other = handle[0];
	m = quarry_lanes_create(&attr);
	cr_assert(m != NULL);
	make_records(m, SIZE, 0);
	all_cold(m);
	cr_assert((uint32_t)other == (uint32_t)handle[0]);
	cr_assert(quarry_try_get(l, other, &p) == -1 && errno == EAGAIN);
	cr_assert(got(m, 0) && is_cold(m, 0), "this one was not");
	quarry_enter();
	cr_assert(is_record(quarry_get(l, other), SIZE, 0));
	quarry_leave();
	cr_assert(quarry_handle_state(l, other) == QUARRY_HANDLE_VALID);
	/* It was brought back by that: so it is a copy the next time. */
	cr_assert(quarry_try_get(m, handle[1], &p) == -1 && errno == EAGAIN && got(m, 1) && !is_cold(m, 1));
	all_cold(m);
	cr_assert(is_cold(m, 1) && got(m, 1) && is_cold(m, 1));
	cr_assert(quarry_rehandle(m, handle[2]) == handle[2]);
	cr_assert(got(m, 2) && is_cold(m, 2));
	cr_assert(quarry_lanes_destroy(m) == 0);
	end(l);
}

/* What cannot come back for want of memory is copied once more. */
Test(lanes_glance, where_there_is_no_memory_there_is_a_copy, .timeout = 60)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	quarry_arena_attr memory = { .hard_limit = (size_t)16 << 20 };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &cold, .memory = &memory, .handles = 1 << 17 };
	quarry_lanes *l;
	const void *p;

	fake_os_install();
	fake_os_clock(1000000);
	l = quarry_lanes_create(&attr);
	cr_assert(l != NULL);
	make_records(l, SIZE, 0);
	all_cold(l);
	while (quarry_halloc(l, SIZE) != 0)
		;
	cr_assert(errno == ENOMEM);
	for (int i = 0; i < 6; i++)
		cr_assert(got(l, 0) && is_cold(l, 0), "time %d", i);
	quarry_enter();
	cr_assert(quarry_get_mut(l, handle[0]) == NULL && errno == ENOMEM);
	/* Who was refused it would try for ever. */
	cr_assert(quarry_try_get(l, handle[0], &p) == -1 && errno == EAGAIN);
	cr_assert(quarry_get(l, handle[0]) == NULL && errno == ENOMEM);
	quarry_leave();
	end(l);
}

static void look_at_record(quarry_tracer *t, const void *object, size_t size, void *arg)
{
	unsigned *looked = arg;

	(void)t;
	cr_assert(size == SIZE && is_record(object, SIZE, 0));
	++*looked;
}

/* A collection looks at all objects, and says of none of them that it was wanted. */
Test(lanes_glance, a_collection_does_not_count)
{
	quarry_lanes *l = make();
	quarry_tracer *t = quarry_tracer_create(l);
	unsigned looked = 0;

	make_records(l, SIZE, 0);
	all_cold(l);
	cr_assert(t != NULL && quarry_tracer_type_by(t, 7, look_at_record, &looked) == 0);
	cr_assert(quarry_tracer_root(t, &handle[0]) == 0);
	for (unsigned i = 1; i <= 5; i++)
		cr_assert(quarry_collect(t, QUARRY_COLLECT_LOOK) == COUNT - 1 && looked == i && figures(l).copies == i);
	cr_assert(got(l, 0) && got(l, 0) && is_cold(l, 0) && got(l, 0) && !is_cold(l, 0));
	cr_assert(quarry_tracer_destroy(t) == 0);
	end(l);
}

Test(lanes_glance, what_is_in_the_file_is_read_once)
{
	quarry_lanes *l = make_as((quarry_cold_attr){ .memory_limit = 1, .directory = "/tmp" });

	make_records(l, SIZE, 0);
	(void)quarry_evict(l, handle, COUNT);
	cr_assert(quarry_handle_state(l, handle[0]) == QUARRY_HANDLE_EVICTED);
	cr_assert(got(l, 0) && quarry_handle_state(l, handle[0]) == QUARRY_HANDLE_VALID && figures(l).copies == 0);
	end(l);
}

/* ---- as long as the scope ---- */

Test(lanes_glance, got_again_in_the_scope_it_is_the_same_copy)
{
	quarry_lanes *l = make();
	const char *p, *q;

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	p = quarry_get(l, handle[3]);
	q = quarry_get(l, handle[4]);
	cr_assert(p != q && is_record(p, SIZE, 3) && is_record(q, SIZE, 4));
	quarry_enter();
	cr_assert(quarry_get(l, handle[3]) == p && quarry_get(l, handle[4]) == q);
	quarry_leave();
	for (unsigned i = 0; i < 8; i++) /* the scope is not over: nor is the copy */
		cr_assert(is_record(quarry_get(l, handle[10 + i]), SIZE, 10 + i));
	cr_assert(quarry_get(l, handle[3]) == p && is_record(p, SIZE, 3) && is_record(q, SIZE, 4));
	quarry_leave();
	cr_assert(figures(l).copies == 10 && is_cold(l, 3));
	quarry_enter();
	cr_assert(is_record(quarry_get(l, handle[20]), SIZE, 20));
	cr_assert(is_record(quarry_get(l, handle[3]), SIZE, 3) && is_cold(l, 3));
	quarry_leave();
	cr_assert(got(l, 3) && !is_cold(l, 3), "each scope is another time");
	end(l);
}

/* A part of it is a part of the copy. What is refused is neither copied nor brought back. */
Test(lanes_glance, a_part_is_of_the_same_copy)
{
	quarry_lanes *l = make();
	char some[8], should[SIZE];
	const char *p;

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	p = quarry_get_range(l, handle[3], 10, 20);
	cr_assert(p != NULL && quarry_get(l, handle[3]) == p - 10 && is_record(p - 10, SIZE, 3) && is_cold(l, 3));
	cr_assert(quarry_get_range(l, handle[4], SIZE, 1) == NULL && errno == ERANGE && is_cold(l, 4));
	cr_assert(quarry_get_range(l, handle[4] ^ (quarry_handle)1 << 48, 0, 1) == NULL && errno == EINVAL);
	quarry_leave();
	fill(should, SIZE, 5);
	cr_assert(quarry_hread(l, handle[5], 2, some, 8) == 0 && memcmp(some, should + 2, 8) == 0 && is_cold(l, 5));
	cr_assert(figures(l).copies == 2 && figures(l).loaded == 0);
	end(l);
}

/* As many as there is room for; the others come back. All stay as they are until the scope is over. */
static void fill_the_room(quarry_lanes *l, size_t size, unsigned copies)
{
	const char *p[100];

	all_cold(l);
	for (int round = 0; round < 2; round++) {
		uint64_t before = figures(l).copies;
		unsigned first = (unsigned)round * 100;

		quarry_enter();
		for (unsigned i = 0; i < 100; i++)
			p[i] = quarry_get(l, handle[first + i]);
		for (unsigned i = 0; i < 100; i++) {
			cr_assert(is_record(p[i], size, first + i), "record %u of %zu bytes", first + i, size);
			cr_assert((uintptr_t)p[i] % qy_min(size, QY_GLANCE_MOST) == 0, "%p", (const void *)p[i]);
			cr_assert(is_cold(l, first + i) == (i < copies), "record %u of %zu bytes", first + i, size);
		}
		quarry_leave();
		cr_assert(figures(l).copies - before == copies);
	}
}

Test(lanes_glance, there_is_room_for_some, .timeout = 60)
{
	static const struct {
		size_t size;
		unsigned copies;
	} of[] = { { 64, 16 }, { 256, 16 }, { 1024, 16 }, { 2048, 8 }, { 4096, 4 }, { 8192, 0 } };

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		quarry_lanes *l = make();

		make_records(l, of[i].size, qy_min(of[i].size, QY_GLANCE_MOST));
		fill_the_room(l, of[i].size, of[i].copies);
		end(l);
	}
}

/* Small ones and larger ones in turn. */
Test(lanes_glance, a_copy_is_aligned_as_its_object)
{
	quarry_lanes *l = make();

	for (unsigned i = 0; i < COUNT; i++) {
		size_t size = i % 2 ? 1024 : 64;

		handle[i] = quarry_halloc_typed(l, size, size, 0);
		quarry_enter();
		fill(quarry_get_mut(l, handle[i]), size, i);
		quarry_leave();
	}
	all_cold(l);
	quarry_enter();
	for (unsigned i = 0; i < 8; i++) {
		size_t size = i % 2 ? 1024 : 64;
		const char *p = quarry_get(l, handle[i]);

		cr_assert(is_record(p, size, i) && is_cold(l, i) && (uintptr_t)p % size == 0, "record %u: %p", i, (const void *)p);
	}
	quarry_leave();
	end(l);
}

/* ---- beside writers, and those who free ---- */

Test(lanes_glance, what_is_got_after_a_write_shows_it)
{
	quarry_lanes *l = make();
	const char *p, *q;
	char *w;

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	p = quarry_get(l, handle[3]);
	w = quarry_get_mut(l, handle[3]);
	cr_assert(w != NULL && w != p && is_record(w, SIZE, 3));
	w[0] = '!';
	q = quarry_get(l, handle[3]);
	cr_assert(q == w && q[0] == '!' && is_record(p, SIZE, 3), "what was got before is as it was then");
	quarry_leave();
	end(l);
}

Test(lanes_glance, what_is_freed_is_gone_and_its_copy_stays)
{
	quarry_lanes *l = make();
	quarry_handle other;
	const char *p;

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	p = quarry_get(l, handle[3]);
	cr_assert(quarry_hfree(l, handle[3]) == 0);
	cr_assert(quarry_get(l, handle[3]) == NULL && errno == ESTALE);
	other = quarry_halloc(l, SIZE);
	memset(quarry_get_mut(l, other), 'x', SIZE);
	cr_assert(is_record(p, SIZE, 3));
	quarry_leave();
	end(l);
}

/* Other lanes' objects have the same slots, and may have the same words. */
Test(lanes_glance, copies_are_of_their_lanes)
{
	quarry_lanes *l = make(), *m;
	quarry_handle first[8];
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &(quarry_cold_attr){ .period_ms = 1000 } };

	make_records(l, SIZE, 0);
	all_cold(l);
	memcpy(first, handle, sizeof(first));
	m = quarry_lanes_create(&attr);
	cr_assert(m != NULL);
	for (unsigned i = 0; i < COUNT; i++) {
		handle[i] = quarry_halloc(m, SIZE);
		quarry_enter();
		fill(quarry_get_mut(m, handle[i]), SIZE, COUNT + i);
		quarry_leave();
	}
	all_cold(m);
	quarry_enter();
	for (unsigned i = 0; i < 8; i++) {
		/* (Generations begin elsewhere in each: they would have to be the same.) */
		atomic_store(&m->word[(uint32_t)handle[i]],
			     (atomic_load(&m->word[(uint32_t)handle[i]]) & ~QUARRY_WORD_GENERATION) | (first[i] << 16 & QUARRY_WORD_GENERATION));
		handle[i] = (handle[i] & ~((quarry_handle)0xffff << 32)) | (first[i] & (quarry_handle)0xffff << 32);
		cr_assert((uint32_t)handle[i] == (uint32_t)first[i]);
		cr_assert(atomic_load(&m->word[(uint32_t)handle[i]]) == atomic_load(&l->word[(uint32_t)first[i]]), "record %u", i);
		cr_assert(is_record(quarry_get(l, first[i]), SIZE, i));
		cr_assert(is_record(quarry_get(m, handle[i]), SIZE, COUNT + i), "record %u", i);
	}
	quarry_leave();
	cr_assert(quarry_lanes_destroy(m) == 0);
	end(l);
}

/* ---- threads ---- */

static quarry_lanes *lanes;

static void *glance(void *arg)
{
	unsigned first = *(unsigned *)arg;

	for (unsigned i = first; i < COUNT; i += 4)
		if (!got(lanes, i))
			return arg;
	return NULL;
}

/* Each has its own copies, and what a thread had ends with it (leak checkers look). */
Test(lanes_glance, each_thread_has_its_own)
{
	pthread_t thread[4];
	unsigned first[4];

	lanes = make();
	make_records(lanes, SIZE, 0);
	all_cold(lanes);
	for (unsigned i = 0; i < 4; i++) {
		first[i] = i;
		cr_assert(pthread_create(&thread[i], NULL, glance, &first[i]) == 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		void *wrong;

		cr_assert(pthread_join(thread[i], &wrong) == 0 && wrong == NULL);
	}
	cr_assert(figures(lanes).copies == COUNT && figures(lanes).loaded == 0);
	end(lanes);
}

/* A child that is forked in a scope has the copies of its thread. */
Test(lanes_glance, a_child_keeps_the_copies)
{
	quarry_lanes *l = make();
	const char *p;
	pid_t child;
	int status;

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	p = quarry_get(l, handle[3]);
	child = fork();
	if (child == 0) {
		bool right = is_record(p, SIZE, 3) && quarry_get(l, handle[3]) == p && is_record(quarry_get(l, handle[4]), SIZE, 4);

		quarry_leave();
		_exit(right && got(l, 3) && got(l, 3) && quarry_handle_state(l, handle[3]) == QUARRY_HANDLE_VALID ? 0 : 1);
	}
	cr_assert(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert(is_record(p, SIZE, 3));
	quarry_leave();
	end(l);
}

/* A scope that had copies is over when it is left: who waits for it waits no longer, and the next begins with none. */
Test(lanes_glance, a_scope_with_copies_ends_as_any)
{
	quarry_lanes *l = make();
	uint64_t e;

	make_records(l, SIZE, 0);
	all_cold(l);
	quarry_enter();
	quarry_enter();
	cr_assert(quarry_get(l, handle[0]) != NULL && qy_in_scope());
	quarry_leave();
	cr_assert(qy_in_scope());
	e = qy_grace_begin();
	cr_assert(!qy_grace_look(e));
	quarry_leave();
	cr_assert(!qy_in_scope() && qy_grace_look(e) && qy_lanes_record->depth == 0);
	cr_assert(quarry_cool(l, 0) >= 0 || errno != EDEADLK);
	end(l);
}

/* What copies take is waited for as what comes back is. */
Test(lanes_glance, the_period_follows_copies_as_well, .timeout = 60)
{
	quarry_lanes *l = make_as((quarry_cold_attr){ .period_ms = 1000, .stall_percent = 1 });

	fake_os_cpu(1);
	make_records(l, SIZE, 0);
	pass_now(l);
	pass_now(l);
	all_cold(l);
	pass_now(l);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(got(l, i) && is_cold(l, i));
	pass_now(l);
	cr_assert(figures(l).period_ms > 1000 && figures(l).loaded == 0, "%llu", (unsigned long long)figures(l).period_ms);
	end(l);
}
