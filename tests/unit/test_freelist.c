/* SPDX-License-Identifier: MIT */
/* What a thread frees, and gets again: where each object is at any moment, how much is kept, what is freed twice, and
 * what is zero and aligned. What others free of its, and what becomes of all that: test_freelist_home.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>

#include "tests/unit/freelist_model.h"

static uint32_t keep_of(unsigned cls)
{
	return qy_classes[cls].keep;
}

/* Nothing of it is left, neither blocks nor lists. */
static void end_round(void)
{
	free_all();
	check_places(0);
	quarry_thread_flush();
	check_places(0);
	cr_assert(has_nothing_listed(qy_tls.thread));
}

/* ---- at random ---- */

static void give_back(uint32_t i)
{
	quarry_free(forget_block(i));
}

static void resize(uint32_t i)
{
	struct block *x = &blocks[i], was = *x;
	size_t size = model_size(QY_CLASS_MAX);

	check_block(x);
	was.p = x->p = quarry_realloc(x->p, size);
	was.size = size < was.size ? size : was.size;
	for (size_t k = 0; k < was.size; k += step_of(x))
		model_must(was.p[k] == byte_of(&was, k), "byte %zu of a block that was made %zu long", k, size);
	x->size = size;
	*x = blocks[--count];
	add_block(was.p, size);
}

static void take_zeroed(size_t size)
{
	unsigned char *p = quarry_calloc(1, size);

	for (size_t i = 0; i < size; i++)
		model_must(p[i] == 0, "byte %zu of %zu that are to be zero", i, size);
	add_block(p, size);
}

static void take_aligned(size_t size)
{
	size_t align = (size_t)16 << model_below(11);
	void *p = quarry_aligned_alloc(align, size);

	model_must((uintptr_t)p % align == 0, "%p for %zu", p, align);
	add_block(p, size);
}

/* What the reclaimer, or the program, does now and then. */
static void disturb(void)
{
	switch (model_below(8)) {
	case 0:
		quarry_thread_flush();
		break;
	case 1:
		quarry_purge(NULL);
		break;
	case 2:
	case 3:
		atomic_fetch_add(&qy_reclaim_round, 1);
		break;
	default:
		refill_entering(model_one_in(2));
	}
}

static void take_some(unsigned cls, uint32_t n)
{
	uint32_t most = qy_classes[cls].size, least = cls == 0 ? 1 : qy_classes[cls - 1].size + 1;

	for (; n > 0 && count < BLOCKS; n--) {
		size_t size = least + model_below(most - least + 1);

		if (model_one_in(10))
			take_zeroed(size);
		else if (model_one_in(20))
			take_aligned(size);
		else
			add_block(quarry_malloc(size), size);
	}
}

/* The newest, the oldest, or any. */
static void free_some(uint32_t n)
{
	uint32_t how = model_below(3);

	for (; n > 0 && count > 0; n--)
		give_back(how == 0 ? count - 1 : how == 1 ? 0 : model_below(count));
}

static void play(uint32_t steps, uint32_t burst, uint32_t check_each)
{
	unsigned cls = 0;

	for (uint32_t i = 0; i < steps; i++) {
		if (model_one_in(5))
			cls = model_below(QY_CLASSES);
		if (model_below(BLOCKS / 10) > count)
			take_some(cls, 1 + model_below(burst));
		else
			free_some(1 + model_below(burst));
		if (count > 0 && model_one_in(8))
			resize(model_below(count));
		if (model_one_in(50))
			disturb();
		if (i % check_each == 0)
			check_places(0);
	}
}

Test(freelist, every_object_is_in_one_place_at_any_moment, .timeout = 120)
{
	start("freelist");
	play(1500, 1, 1);
	play(1500, 40, 1);
	end_round();
}

Test(freelist, contents_stay_whatever_is_freed, .timeout = 240)
{
	start("freelist");
	play(6000, 400, 100);
	check_blocks();
	end_round();
	quarry_purge(NULL);
	cr_assert_eq(used(), 0);
	cr_assert_eq(mistakes(), 0);
}

/* ---- what is given next ---- */

/* And slabs are not even written to. */
Test(freelist, what_was_freed_is_given_next)
{
	static void *freed[2048];
	static struct qy_slab before[2048];

	start("freelist");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		uint32_t n = keep_of(cls) - 1;

		take_many(cls, 2 * qy_classes[cls].capacity + n);
		drain(cls);
		for (uint32_t i = 0; i < n; i++) {
			freed[i] = forget_block(model_below(count));
			memcpy((void *)&before[i], qy_slab_of(freed[i]), sizeof(before[i]));
			quarry_free(freed[i]);
		}
		model_must(length(freed_list(cls)->head) == n, "class %u", cls);
		check_places(0);
		for (uint32_t i = n; i-- > 0;) {
			model_must(take(cls) == freed[i], "class %u: object %u of %u", cls, i, n);
			model_must(memcmp((void *)&before[i], qy_slab_of(freed[i]), sizeof(before[i])) == 0,
				   "class %u: the slab of object %u was written to", cls, i);
			model_must(freed_list(cls)->head == NULL && freed_list(cls)->room == keep_of(cls),
				   "the list became malloc's as a whole");
		}
		model_must(cache()->head[cls] == NULL, "class %u", cls);
		end_round();
	}
}

/* An object above 8 KiB stands in a slab of two units or four: a free finds the list in the record of its own unit. */
Test(freelist, objects_in_inner_units_are_freed_by_hits)
{
	start("freelist");
	for (unsigned cls = qy_class_of(8193); cls < QY_CLASSES; cls++) {
		uint32_t inner = 0;

		take_many(cls, qy_classes[cls].capacity);
		for (uint32_t n = keep_of(cls) - 1; n > 0; n--) {
			uint32_t calls = qy_tls.thread->calls;
			unsigned char *p = forget_block(model_below(count));

			inner += qy_slab_at(qy_window_offset(p))->inner != 0;
			quarry_free(p);
			model_must(qy_tls.thread->calls == calls && freed_list(cls)->head == p, "class %u", cls);
		}
		model_must(inner > 0, "class %u", cls);
		end_round();
	}
}

/* ---- how much is kept ---- */

/* Free so many of the class, none of the slabs x and y. */
static void free_others(uint32_t n, const struct qy_slab *x, const struct qy_slab *y)
{
	for (uint32_t i = 0; i < count && n > 0;) {
		const struct qy_slab *s = qy_slab_of(blocks[i].p);

		if (s == x || s == y) {
			i++;
			continue;
		}
		give_back(i);
		n--;
	}
	model_must(n == 0, "there are as many");
}

static void free_of(const struct qy_slab *s)
{
	int i = block_in(s);

	model_must(i >= 0, "there is one");
	give_back((uint32_t)i);
}

static void must_go_to(const struct qy_slab *s, const struct qy_freelist *to)
{
	for (uint32_t i = 0; i < qy_classes[s->cls].units; i++)
		model_must(s[i].to == to, "class %u, unit %u: elsewhere", s->cls, i);
}

/* Two slabs of the class in which all is the program's. */
static void find_full(unsigned cls, struct qy_slab **x, struct qy_slab **y)
{
	struct qy_slab *s = cache()->heap.full.first;

	*x = *y = NULL;
	for (; s != NULL; s = qy_slab_numbered(s->next)) {
		if (s->cls != cls)
			continue;
		*y = *x;
		*x = s;
	}
	model_must(*x != NULL && *y != NULL, "two slabs of class %u are full", cls);
}

static void overflow(unsigned cls)
{
	struct qy_freelist *l = freed_list(cls);
	uint32_t keep = keep_of(cls), calls;
	struct qy_slab *x, *y;
	bool mine;

	take_many(cls, keep + 4 * qy_classes[cls].capacity);
	drain(cls);
	find_full(cls, &x, &y);
	free_others(keep - 1, x, y);
	model_must(length(l->head) == keep - 1 && !l->was_full, "class %u has room for one more", cls);
	must_go_to(x, l);
	/* The one that would make it full goes into its slab, and so do those behind it, by hits. */
	free_of(x);
	must_go_to(x, qy_slab_list(x));
	must_go_to(y, l);
	model_must(x->state == QY_SLAB_QUEUED && length(x->local) == 1 && length(l->head) == keep - 1 && l->was_full,
		   "class %u: x", cls);
	calls = qy_tls.thread->calls;
	free_of(x);
	model_must(length(x->local) == 2 && length(l->head) == keep - 1 && qy_tls.thread->calls == calls,
		   "class %u: x again", cls);
	free_of(y);
	must_go_to(y, qy_slab_list(y));
	model_must(length(y->local) == 1 && length(l->head) == keep - 1, "class %u: y", cls);
	check_places(0);
	/* Until something is fetched from it. */
	do {
		must_go_to(x, qy_slab_list(x));
		mine = qy_slab_of(take(cls)) == x;
	} while (!mine);
	must_go_to(x, l);
	must_go_to(y, qy_slab_list(y));
	free_of(x);
	model_must(qy_slab_of(l->head) == x, "class %u: x's are kept again", cls);
	check_places(0);
}

Test(freelist, a_full_list_turns_slabs_to_their_own_until_they_are_fetched_from)
{
	start("freelist");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		for (int entering = 0; entering < 2; entering++) {
			refill_entering(entering);
			overflow(cls);
			end_round();
		}
}

/* Fetch from all slabs that were turned. */
static void turn_back(unsigned cls)
{
	bool any = true;

	while (any) {
		any = false;
		for (uint32_t i = 0; i < count && !any; i++)
			any = qy_slab_of(blocks[i].p)->to != freed_list(cls);
		if (any)
			take(cls);
		drain(cls);
	}
}

/* More objects than have room, then all of them again and one from the heap. */
static void swing(unsigned cls, bool entering)
{
	struct qy_freelist *l = freed_list(cls);
	uint32_t most = l->most, longest = 0;

	while (!l->was_full || longest < most - 1) {
		uint32_t n;

		give_back(model_below(count));
		n = length(l->head);
		longest = n > longest ? n : longest;
		model_must(n < most, "class %u: %u objects in a list of %u", cls, n, most);
	}
	while (l->was_full) {
		refill_entering(entering);
		model_must(l->most == most, "class %u: as many are enough until there are none", cls);
		take(cls);
	}
	most = l->most;
	turn_back(cls);
	model_must(l->most == most, "class %u: what is fetched without it having been full makes it no longer", cls);
	check_places(0);
}

static void grow(unsigned cls, bool entering)
{
	struct qy_freelist *l = freed_list(cls);
	uint32_t most = keep_of(cls), at_most = qy_classes[cls].keep_max;

	take_many(cls, 2 * at_most + 2 * qy_classes[cls].capacity);
	model_must(l->most == most, "class %u: what was never full does not grow", cls);
	free_last(most / 2);
	take_many(cls, most + 1);
	model_must(l->most == most, "class %u: nor what was not quite", cls);
	while (most < at_most) {
		swing(cls, entering);
		most = most * 2 < at_most ? most * 2 : at_most;
		model_must(l->most == most, "class %u: %u are enough, not %u", cls, l->most, most);
	}
	swing(cls, entering);
	model_must(l->most == at_most, "class %u: the most", cls);
}

/* Fetching without entering is fetching too: objects that were freed into the active slab, or the next of it. */
static void grow_without_entering(unsigned cls, bool carve)
{
	struct qy_freelist *l = freed_list(cls);
	struct qy_slab **active = &cache()->heap.active[cls], *was;
	uint32_t calls;

	take_many(cls, 2 * keep_of(cls) + 2 * qy_classes[cls].capacity);
	do
		take(cls);
	while (cache()->head[cls] != NULL || (*active)->local != NULL || (*active)->carved == qy_classes[cls].capacity);
	was = *active;
	if (!carve) {
		free_others(keep_of(cls) - 1, was, NULL);
		free_of(was);
	} else {
		free_others(keep_of(cls), was, NULL);
	}
	model_must(l->was_full && l->most == keep_of(cls) && (was->local == NULL) == carve, "class %u", cls);
	refill_entering(false);
	calls = qy_tls.thread->calls;
	take_many(cls, keep_of(cls));
	model_must(qy_tls.thread->calls == calls && *active == was && !l->was_full && l->most > keep_of(cls),
		   "class %u, carved %d: %u are enough", cls, carve, l->most);
	must_go_to(was, l);
	end_round();
}

Test(freelist, and_where_the_refill_does_not_enter)
{
	start("freelist");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		grow_without_entering(cls, false);
		grow_without_entering(cls, true);
	}
}

/* The next slow path looks at what the thread left alone. */
static void shed(unsigned cls)
{
	atomic_fetch_add(&qy_reclaim_round, 1);
	drain(cls);
	refill_entering(true);
	while (cache()->heap.shed_round != atomic_load(&qy_reclaim_round)) {
		drain(cls);
		refill_entering(true);
		take(cls);
	}
}

static void must_begin_again(unsigned cls)
{
	struct qy_freelist *l = freed_list(cls);

	model_must(l->head == NULL && l->most == keep_of(cls) && l->room == l->most && !l->was_full, "class %u", cls);
}

Test(freelist, more_is_kept_where_more_is_of_use_and_until_it_is_given_up, .timeout = 120)
{
	start("freelist");
	for (unsigned cls = 0; cls < QY_CLASSES; cls += cls < 8 ? 1 : 3) {
		grow(cls, cls % 2);
		quarry_thread_flush();
		must_begin_again(cls);
		swing(cls, !(cls % 2));
		model_must(freed_list(cls)->most > keep_of(cls), "class %u", cls);
		free_last(keep_of(cls) / 2);
		shed(cls);
		must_begin_again(cls);
		end_round();
	}
}

/* ---- what is freed twice ---- */

static const unsigned some_classes[] = { 0, 3, 20, 40, 60, 64, 71 };

#define SOME (sizeof(some_classes) / sizeof(some_classes[0]))

/* What mistakes have made of free objects so far: nobody's. */
static uint32_t lost;

static void *free_twice(void)
{
	void *p = forget_block(model_below(count));

	quarry_free(p);
	quarry_free(p);
	return p;
}

/* All different from each other, and from what the program has; and so it goes on. */
static void must_be_distinct(unsigned cls)
{
	for (int i = 0; i < 3; i++) {
		take_many(cls, 3 * qy_classes[cls].keep_max);
		check_places(lost);
		check_blocks();
		free_last(3 * qy_classes[cls].keep_max);
		check_places(lost);
	}
}

Test(freelist, freed_twice_in_a_row_is_noticed_when_the_list_is_taken)
{
	start("freelist");
	for (unsigned i = 0; i < SOME; i++)
		for (unsigned how = 0; how < 4; how++) {
			unsigned cls = some_classes[i];
			uint32_t under = how % 2 == 0 ? 0 : keep_of(cls) - 3;
			uint64_t before = mistakes();

			take_many(cls, keep_of(cls) + 2 * qy_classes[cls].capacity);
			drain(cls);
			free_last(under);
			free_twice();
			model_must(length(cache()->head[cls]) == 0, "class %u", cls);
			refill_entering(how / 2);
			take(cls);
			model_must(mistakes() == before + 1, "class %u, %u under it: not noticed", cls, under);
			lost += under;
			must_be_distinct(cls);
			free_all();
			quarry_thread_flush();
			quarry_purge(NULL);
		}
}

/* The second time makes the list full. */
Test(freelist, freed_twice_at_the_end_of_a_full_list_is_noticed_at_once)
{
	start("freelist");
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		uint64_t before = mistakes();

		take_many(cls, keep_of(cls) + 2 * qy_classes[cls].capacity);
		drain(cls);
		free_last(keep_of(cls) - 2);
		free_twice();
		model_must(mistakes() == before + 1, "class %u", cls);
		lost += keep_of(cls) - 2;
		must_be_distinct(cls);
		free_all();
		quarry_thread_flush();
		quarry_purge(NULL);
	}
}

/* However many of its slab are free by then. */
Test(freelist, freed_twice_in_a_row_into_a_slab_is_noticed_when_that_is_fetched_from)
{
	start("freelist");
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		uint64_t before = mistakes();
		uint32_t n = qy_classes[cls].capacity - 2;
		struct qy_slab *x, *y;
		void *p;

		take_many(cls, keep_of(cls) + 4 * qy_classes[cls].capacity);
		drain(cls);
		find_full(cls, &x, &y);
		free_others(keep_of(cls) - 1, x, y);
		while (n-- > 0)
			free_of(x);
		p = x->local;
		quarry_free(p);
		model_must(freed_list(cls)->head != p && x->local == p, "class %u", cls);
		while (cache()->heap.active[cls] != x)
			take(cls);
		lost += qy_classes[cls].capacity - 3;
		must_be_distinct(cls);
		model_must(mistakes() == before + 1, "class %u: not noticed", cls);
		free_all();
		quarry_thread_flush();
		quarry_purge(NULL);
	}
}

/* What is freed into a slab that was emptied is in no list: one that is kept for any class, or one of several units, which
 * goes back. */
Test(freelist, freed_again_when_its_slab_is_no_more_is_noticed_at_once)
{
	start("freelist");
	for (unsigned i = 0; i < SOME; i++) {
		unsigned cls = some_classes[i];
		struct qy_slab *x, *y;
		uint64_t before;
		void *p[4];

		take_many(cls, keep_of(cls) + 4 * qy_classes[cls].capacity);
		find_full(cls, &x, &y);
		free_others(keep_of(cls) - 1, x, y);
		for (unsigned k = 0; k < 4; k++)
			p[k] = qy_slab_memory(x) + (size_t)(qy_classes[cls].capacity / 4 * k) * qy_classes[cls].size;
		while (block_in(x) >= 0)
			free_of(x);
		cr_assert(x->kind == QY_SLAB_NONE && (x->state == QY_SLAB_SPARE) == (qy_classes[cls].units == 1));
		before = mistakes();
		for (unsigned k = 0; k < 4; k++)
			quarry_free(p[k]);
		model_must(mistakes() == before + 4, "class %u", cls);
		check_places(0);
		must_be_distinct(cls);
		end_round();
		quarry_purge(NULL);
	}
}

/* What a mistake says goes nowhere. */
static void report(bool to_nowhere)
{
	static int saved;

	if (to_nowhere) {
		int nowhere = open("/dev/null", O_WRONLY);

		saved = dup(2);
		dup2(nowhere, 2);
		close(nowhere);
	} else {
		dup2(saved, 2);
		close(saved);
	}
	cr_assert_eq(quarry_ctl_set("on_error", to_nowhere ? "report" : "ignore"), 0);
}

/* Where mistakes are looked for nothing is kept in lists: twice in a row is noticed at once, and all else when objects
 * of the slab are given again, or none of it is left. */
Test(freelist, where_mistakes_are_looked_for_each_is_noticed)
{
	start("freelist");
	report(true);
	for (unsigned i = 0; i < SOME; i++)
		for (int between = 0; between < 3; between++) {
			unsigned cls = some_classes[i];
			uint64_t before = mistakes();
			void *p;

			refill_entering(true);
			take_many(cls, qy_classes[cls].capacity + 7);
			cr_assert_eq(qy_tls.owner, QY_OWNER_NONE);
			p = forget_block(count - 1);
			quarry_free(p);
			free_last((uint32_t)between);
			quarry_free(p);
			model_must(mistakes() == before + (between == 0), "class %u, %d in between", cls, between);
			model_must(freed_list(cls)->head == NULL, "class %u: %p is in a list", cls, p);
			lost += (uint32_t)between;
			must_be_distinct(cls);
			model_must(mistakes() == before + 1, "class %u, %d in between: not noticed", cls, between);
			free_all();
			quarry_thread_flush();
			quarry_purge(NULL);
		}
	report(false);
}

/* ---- zero, and aligned ---- */

static void spoil_and_free(uint32_t n)
{
	for (; n > 0; n--) {
		memset(blocks[count - 1].p, 0xa5, blocks[count - 1].size);
		quarry_free(blocks[--count].p);
	}
}

Test(freelist, calloc_is_zero_of_what_was_freed_and_of_what_was_not)
{
	start("freelist");
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		for (int entering = 0; entering < 2; entering++) {
			size_t size = qy_classes[cls].size;
			uint32_t n = 2 * qy_classes[cls].carve + keep_of(cls);

			refill_entering(entering);
			for (uint32_t i = 0; i < n; i++)
				take_zeroed(size);
			/* What malloc's list had last was fresh; what comes next was not. */
			spoil_and_free(keep_of(cls) - 1);
			while (cache()->head[cls] != NULL)
				take_zeroed(size);
			refill_entering(entering);
			for (uint32_t i = 0; i < keep_of(cls) - 1; i++) {
				take_zeroed(size);
				model_must(!cache()->zero[cls], "class %u", cls);
			}
			spoil_and_free(n / 2);
			for (uint32_t i = 0; i < n; i++)
				take_zeroed(size - model_below(16));
			end_round();
			quarry_purge(NULL);
		}
}

Test(freelist, aligned_allocation_takes_what_was_freed)
{
	start("freelist");
	for (size_t align = 32; align <= QY_UNIT / 4; align *= 2)
		for (size_t size = align; size <= QY_CLASS_MAX; size += align * (1 + model_below(6))) {
			uint32_t first = count;
			void *was;
			unsigned cls;

			for (uint32_t i = 0; i < 10; i++)
				add_block(quarry_aligned_alloc(align, size), size);
			cls = qy_slab_of(blocks[first].p)->cls;
			for (uint32_t i = first; i < count; i++)
				model_must((uintptr_t)blocks[i].p % align == 0, "%p for %zu", (void *)blocks[i].p, align);
			while (cache()->head[cls] != NULL)
				add_block(quarry_aligned_alloc(align, size), size);
			was = forget_block(count - 1);
			quarry_free(was);
			model_must(add_block(quarry_aligned_alloc(align, size), size) == was, "%zu of %zu", align, size);
			free_last(count - first);
		}
	end_round();
}
