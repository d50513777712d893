/* SPDX-License-Identifier: MIT */
/* What tests/profile.sh and tests/flame.sh have profiled: known amounts, allocated by functions that are known by name.
 * With FOLDER, it writes its profile there itself, in all formats. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static void *volatile sink;

/* (Each call is followed by something, so that it is a call.) */
#define KEEPS(name, size, total)                            \
	__attribute__((noinline)) void name(void);          \
	void name(void)                                     \
	{                                                   \
		for (size_t n = 0; n < (total); n += (size)) { \
			sink = malloc(size);                \
			memset(sink, 1, (size));            \
		}                                           \
	}

KEEPS(keeps_40_mib_of_64, 64, 40 * MIB)
KEEPS(keeps_80_mib_of_4096, 4096, 80 * MIB)
KEEPS(keeps_20_mib_of_100000, 100000, 20 * MIB)

__attribute__((noinline)) void churns_200_mib(void);
void churns_200_mib(void)
{
	for (size_t n = 0; n < 200 * MIB; n += 1024) {
		sink = malloc(1000);
		free(sink);
	}
}

extern int quarry_profile_write(int fd, int format) __attribute__((weak));

static int write_profiles(const char *folder)
{
	static const char *const names[] = { "all.pb.gz", "all.heap", "all.collapsed", "all.json" };

	for (int i = 0; i < 4; i++) {
		char path[4096];
		int fd;

		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (fd < 0 || !quarry_profile_write || quarry_profile_write(fd, i) != 0 || close(fd) != 0)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	keeps_40_mib_of_64();
	keeps_80_mib_of_4096();
	keeps_20_mib_of_100000();
	churns_200_mib();
	return argc > 1 ? write_profiles(argv[1]) : 0;
}
