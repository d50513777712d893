/* SPDX-License-Identifier: MIT */
/* What tests/gdb.sh looks at with gdb: pointers of each sort, and what quarry_inspect says of each, a line for each into
 * the file that is named. Then it comes to ready(), where the debugger is waiting; and it aborts where "abort" says so. */
#include <quarry/quarry.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static FILE *out;
static void *volatile keep[64];
static pthread_barrier_t barrier;

__attribute__((noinline)) void ready(void);
void ready(void)
{
	__asm__ volatile("" ::: "memory");
}

static void tell(const char *name, const void *p)
{
	quarry_inspection i;

	if (quarry_inspect(p, &i, sizeof(i)) != 0)
		fprintf(out, "%s %p none\n", name, p);
	else
		fprintf(out, "%s %p %d %p %zu %d %p %zu %p %zu %d %d %s\n", name, p, i.kind, (void *)(uintptr_t)i.address, i.size,
			i.state, (void *)(uintptr_t)i.slab, i.slab_size, (void *)(uintptr_t)i.region, i.region_size, i.node,
			i.page_kind, i.arena_name[0] ? i.arena_name : "-");
}

static void must(const void *p)
{
	if (p == NULL) {
		perror("held");
		exit(1);
	}
}

#define GET(n, how)                  \
	do {                         \
		keep[n] = (how);     \
		must(keep[n]);       \
		memset(keep[n], 1, 8); \
	} while (0)

enum { SMALL, FREED, MEDIUM, PAGES, FRAMES, IN_ARENA, LARGE_IN_ARENA, SAMPLED, LARGE_SAMPLED, HIS, HIS_FREED, HIS_SENT,
       HOLDER, NEIGHBOUR, HIDDEN, HIDDEN_FREED };

/* It ends only with the process: its caches stay its own. */
static void *other(void *arg)
{
	GET(HIS, quarry_malloc(208));
	GET(HIS_FREED, quarry_malloc(208));
	GET(HIS_SENT, quarry_malloc(208));
	quarry_free(keep[HIS_FREED]);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return arg;
}

__attribute__((noinline)) void samples_are_taken(void);
void samples_are_taken(void)
{
	GET(SAMPLED, quarry_malloc(100));
	GET(LARGE_SAMPLED, quarry_malloc(200000));
}

static void plain(void)
{
	/* (A slab of 48 bytes has place for 1365: the end of it was never used.) */
	GET(SMALL, quarry_malloc(48));
	GET(NEIGHBOUR, quarry_malloc(48));
	GET(FREED, quarry_malloc(48));
	GET(MEDIUM, quarry_malloc(5000));
	GET(PAGES, quarry_malloc(100000));
	GET(FRAMES, quarry_malloc(5 << 20));
	GET(HOLDER, quarry_malloc(320));
	quarry_free(keep[FREED]);
	((void **)keep[HOLDER])[3] = (char *)keep[MEDIUM] + 100;
	((void **)keep[FRAMES])[1000] = keep[MEDIUM];
	/* (What a core file lacks hides nothing beside it.) */
	madvise((void *)(((uintptr_t)keep[FRAMES] + 65536) & ~(uintptr_t)4095), 4096, MADV_DONTDUMP);
}

int main(int argc, char **argv)
{
	quarry_arena_attr attr = { .name = "second one", .page_kind = QUARRY_PAGES_BASE };
	quarry_arena_attr nodump = { .name = "hidden", .flags = QUARRY_ARENA_NODUMP };
	quarry_arena *arena = quarry_arena_create(&attr), *hidden = quarry_arena_create(&nodump);
	pthread_t thread;

	out = argc > 1 ? fopen(argv[1], "w") : NULL;
	must(out);
	must(arena);
	must(hidden);
	pthread_barrier_init(&barrier, NULL, 2);
	/* (First: what lists hold goes home when a profile begins, and some of what follows is to stand in them.) */
	quarry_profile_start(1);
	samples_are_taken();
	quarry_profile_stop();
	plain();
	GET(IN_ARENA, quarry_arena_malloc(arena, 1000));
	GET(LARGE_IN_ARENA, quarry_arena_malloc(arena, 50000));
	GET(HIDDEN, quarry_arena_malloc(hidden, 600));
	for (int i = 0; i < 3; i++) {
		GET(HIDDEN_FREED, quarry_arena_malloc(hidden, 600));
		quarry_free(keep[HIDDEN_FREED]);
	}
	pthread_create(&thread, NULL, other, NULL);
	pthread_barrier_wait(&barrier);
	quarry_free(keep[HIS_SENT]);

	tell("small", keep[SMALL]);
	tell("inside", (char *)keep[SMALL] + 47);
	tell("neighbour", keep[NEIGHBOUR]);
	tell("freed", keep[FREED]);
	tell("never-used", (char *)((uintptr_t)keep[SMALL] & ~(uintptr_t)0xffff) + (size_t)1364 * 48);
	tell("behind-the-last", (char *)((uintptr_t)keep[SMALL] | 0xffff));
	tell("medium", keep[MEDIUM]);
	tell("pages", keep[PAGES]);
	tell("inside-pages", (char *)keep[PAGES] + 99999);
	tell("frames", keep[FRAMES]);
	tell("inside-frames", (char *)keep[FRAMES] + (4 << 20));
	tell("in-arena", keep[IN_ARENA]);
	tell("large-in-arena", keep[LARGE_IN_ARENA]);
	tell("sampled", keep[SAMPLED]);
	tell("large-sampled", keep[LARGE_SAMPLED]);
	tell("his", keep[HIS]);
	tell("his-freed", keep[HIS_FREED]);
	tell("his-sent", keep[HIS_SENT]);
	tell("foreign", &attr);
	tell("holder", keep[HOLDER]);
	tell("hidden", keep[HIDDEN]);
	fclose(out);
	ready();
	if (argc > 2 && strcmp(argv[2], "abort") == 0)
		abort();
	return 0;
}
