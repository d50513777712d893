/* SPDX-License-Identifier: MIT */
/* For tests/top.sh: what a process publishes that is well, or ill in every way that `quarry doctor PID` knows; to a file. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <quarry/quarry.h>

#define MIB (1ull << 20)
#define SECOND 1000000000ull

static struct {
	quarry_published head;
	quarry_health_report health;
	quarry_stats total;
	quarry_profile_report profile;
	quarry_sample seconds[60], minutes[60], hours[48];
	quarry_published_arena arena;
} page;

static void sample(quarry_sample *ring, unsigned count, unsigned long long step, unsigned long long ago, int ill,
		   unsigned long long now)
{
	unsigned long long time = now - ago * step, in_use = 900 * MIB - (ill ? ago * step / SECOND * 32768 : 0);

	ring[time / step % count] = (quarry_sample){ .time_ns = time, .in_use = in_use, .resident = 1600 * MIB,
		.most_resident = 1700 * MIB, .purged = (1u << 30) - (ill ? ago * step / SECOND * 50 * MIB : 0) + 4096 * MIB,
		.minor_faults = 9000000 - (ill ? ago * step / SECOND * 20000 : 0), .major_faults = 7 };
}

static void fall_ill(unsigned long long now)
{
	page.head.arenas_left_out = 3;
	page.profile.mean = 0;
	page.health = (quarry_health_report){ .struct_size = sizeof(page.health), .state = QUARRY_HEALTH_RED, .reasons = 65,
		.limit_kind = QUARRY_LIMIT_PROCESS, .limit_per_mille = 950, .limit = 1800 * MIB, .used = 1710 * MIB,
		.denied_process = 12 };
	page.total.in_use = 900 * MIB;
	page.total.free_dirty = 650 * MIB;
	page.total.kind_got[QUARRY_PAGES_THP] = 0;
	page.total.kind_wanted[QUARRY_PAGES_THP] = 2048 * MIB;
	page.total.strayed = 700 * MIB;
	page.total.refused[QUARRY_REFUSED_THP] = 5;
	page.total.bad_frees = 1;
	page.total.pass_ns = 9 * SECOND;
	page.head.made_ns = now - 100 * SECOND;
}

int main(int argc, char **argv)
{
	int ill = argc == 3 && strcmp(argv[1], "ill") == 0;
	FILE *file = argc == 3 ? fopen(argv[2], "w") : NULL;
	struct timespec t;
	unsigned long long now;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (unsigned long long)t.tv_sec * SECOND + (unsigned long long)t.tv_nsec;
	now = now > 100 * 3600 * SECOND ? now : 100 * 3600 * SECOND; /* a machine may have begun a moment ago */
	page.head = (quarry_published){ .magic = QUARRY_PUBLISHED_MAGIC, .version = QUARRY_PUBLISHED_VERSION,
		.head_size = sizeof(page.head), .size = 1 << 16, .generation = 4, .time_ns = now, .made_ns = now - 50 * SECOND,
		.health_offset = offsetof(__typeof__(page), health), .health_size = sizeof(page.health),
		.total_offset = offsetof(__typeof__(page), total), .total_size = sizeof(page.total),
		.arenas_offset = offsetof(__typeof__(page), arena), .arena_size = sizeof(page.arena), .arena_count = 1, .arena_room = 1,
		.library = "9", .history_offset = offsetof(__typeof__(page), seconds), .sample_size = sizeof(quarry_sample),
		.sample_count = { 60, 60, 48 }, .profile_offset = offsetof(__typeof__(page), profile),
		.profile_size = sizeof(page.profile) };
	page.profile = (quarry_profile_report){ .struct_size = sizeof(page.profile), .mean = 524288, .sites = 4 };
	page.health = (quarry_health_report){ .struct_size = sizeof(page.health), .limit_kind = QUARRY_LIMIT_PROCESS,
		.limit = 4096 * MIB, .used = 900 * MIB, .limit_per_mille = 219, .soft_limit = 3000 * MIB };
	page.total = (quarry_stats){ .version = QUARRY_STATS_VERSION, .node = -1, .mapped = 2048 * MIB, .resident = 1600 * MIB,
		.in_use = 1500 * MIB, .decay = 1000, .passes = 9 };
	page.total.kind_wanted[QUARRY_PAGES_THP] = page.total.kind_got[QUARRY_PAGES_THP] = 2048 * MIB;
	page.arena = (quarry_published_arena){ .id = 1, .stats = page.total };
	for (unsigned i = 0; i < 60; i++) {
		sample(page.seconds, 60, SECOND, i, ill, now);
		sample(page.minutes, 60, 60 * SECOND, i, ill, now);
	}
	if (ill)
		fall_ill(now);
	return file && fwrite(&page, sizeof(page), 1, file) == 1 && fclose(file) == 0 ? 0 : 1;
}
