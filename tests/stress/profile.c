/* SPDX-License-Identifier: MIT */
/* Stress: a heap profile that samples all there is beside threads that allocate, free what others made, resize, end, and
 * have arenas of their own that are destroyed. In the end what the profile says lives is what lives, to the byte. Then
 * the same with other means, while one thread switches it on and off, and writes it in all forms: nothing is to stay. */
#include "tests/stress/stress.h"

#include <fcntl.h>
#include <unistd.h>

#define SLOTS 4000

static struct slot {
	_Atomic(void *) p;
} slots[SLOTS];
static _Atomic(bool) over;
static quarry_arena *arena;

static void *make(struct st_rng *rng)
{
	size_t size = st_size(rng, 18);
	unsigned char *p = NULL;

	switch (st_below(rng, 6)) {
	case 0:
		p = quarry_calloc(1, size);
		break;
	case 1:
		p = quarry_aligned_alloc((size_t)16 << st_below(rng, 9), size);
		break;
	case 2:
		p = quarry_arena_malloc(arena, size);
		break;
	case 3:
		p = quarry_realloc(quarry_malloc(st_size(rng, 18)), size);
		break;
	default:
		p = quarry_malloc(size);
	}
	ST_CHECK(p != NULL);
	p[0] = p[size - 1] = (unsigned char)(uintptr_t)p >> 4;
	return p;
}

static void drop(unsigned char *p)
{
	if (p == NULL)
		return;
	ST_CHECK(p[0] == (unsigned char)(uintptr_t)p >> 4);
	quarry_free(p);
}

static void step(struct st_rng *rng)
{
	_Atomic(void *) *slot = &slots[st_below(rng, SLOTS)].p;
	unsigned char *p;

	if (st_below(rng, 4) != 0) {
		drop(atomic_exchange(slot, st_below(rng, 3) == 0 ? NULL : make(rng)));
		return;
	}
	p = atomic_exchange(slot, NULL);
	if (p == NULL)
		return;
	p = quarry_realloc(p, 1 + st_size(rng, 20));
	ST_CHECK(p != NULL);
	p[0] = (unsigned char)(uintptr_t)p >> 4;
	drop(atomic_exchange(slot, p));
}

static void own_arena(struct st_rng *rng)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr) };
	quarry_arena *a = quarry_arena_create(&attr);

	ST_CHECK(a != NULL);
	for (unsigned i = 0; i < 200; i++)
		ST_CHECK(quarry_arena_malloc(a, st_size(rng, 16)) != NULL);
	ST_CHECK(quarry_arena_destroy(a) == 0);
}

static void work(struct st_worker *w)
{
	for (; st_more(w); w->done++) {
		step(&w->rng);
		if (st_below(&w->rng, 5000) == 0)
			own_arena(&w->rng);
	}
}

static void *live_shortly(void *number)
{
	struct st_rng rng = st_rng_for((uintptr_t)number);

	for (unsigned i = 0; i < 2000; i++)
		step(&rng);
	return NULL;
}

static void *bear(void *seed)
{
	pthread_t one;

	for (uintptr_t n = (uintptr_t)seed; !atomic_load(&over); n++) {
		ST_CHECK(pthread_create(&one, NULL, live_shortly, (void *)n) == 0);
		ST_CHECK(pthread_join(one, NULL) == 0);
	}
	return NULL;
}

static void *switch_and_write(void *mean)
{
	int fd = open("/dev/null", O_WRONLY);

	for (unsigned n = 0; !atomic_load(&over); n++) {
		ST_CHECK(quarry_profile_write(fd, (int)(n % 4)) == 0);
		if (mean != NULL && n % 3 == 0)
			ST_CHECK(quarry_profile_stop() == 0);
		else if (mean != NULL)
			ST_CHECK(quarry_profile_start((uintptr_t)mean << n % 5) == 0);
		if (n % 50 == 49)
			ST_CHECK(quarry_profile_reset() == 0);
		usleep(3000);
	}
	close(fd);
	return NULL;
}

static quarry_profile_report report(void)
{
	quarry_profile_report r = { .struct_size = sizeof(r) };

	ST_CHECK(quarry_profile_report_get(&r) == 0);
	return r;
}

static void round_of(uint64_t first, bool switches)
{
	pthread_t mother, writer;

	atomic_store(&over, false);
	ST_CHECK(pthread_create(&mother, NULL, bear, (void *)(uintptr_t)(first + 1000)) == 0);
	ST_CHECK(pthread_create(&writer, NULL, switch_and_write, switches ? (void *)4096 : NULL) == 0);
	st_threads(work);
	atomic_store(&over, true);
	ST_CHECK(pthread_join(mother, NULL) == 0);
	ST_CHECK(pthread_join(writer, NULL) == 0);
}

static void check_all(void)
{
	quarry_profile_report r = report();
	uint64_t count = 0, bytes = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		void *p = atomic_load(&slots[i].p);

		count += p != NULL;
		bytes += p == NULL ? 0 : quarry_usable_size(p);
	}
	printf("profile: %llu blocks live, %llu are known; %llu bytes, %llu are known; %u sites, %llu samples, %llu lost\n",
	       (unsigned long long)count, (unsigned long long)r.live, (unsigned long long)bytes,
	       (unsigned long long)r.in_use_bytes, r.sites, (unsigned long long)r.samples, (unsigned long long)r.lost);
	ST_CHECK(r.live == count && r.in_use_objects == count);
	ST_CHECK(r.in_use_bytes == bytes && r.lost == 0);
}

static void drop_all(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		drop(atomic_exchange(&slots[i].p, NULL));
	ST_CHECK(report().live == 0);
	ST_CHECK(report().in_use_bytes == 0);
}

int main(int argc, char **argv)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr) };

	st_begin(argc, argv, "profile", 200000, 3);
	arena = quarry_arena_create(&attr);
	ST_CHECK(arena != NULL);
	ST_CHECK(quarry_ctl_set("profile_stacks", "frames") == 0);
	ST_CHECK(quarry_profile_start(1) == 0);
	round_of(1, false);
	check_all();
	drop_all();
	round_of(2, true);
	ST_CHECK(quarry_profile_stop() == 0);
	drop_all();
	ST_CHECK(quarry_arena_destroy(arena) == 0);
	return st_end(ST_SLACK, 0);
}
