/* SPDX-License-Identifier: MIT */
/* What tests/profile.sh has profiled: known amounts, allocated by functions that are known by name. */
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

int main(int argc, char **argv)
{
	keeps_40_mib_of_64();
	keeps_80_mib_of_4096();
	keeps_20_mib_of_100000();
	churns_200_mib();
	if (argc > 1 && strcmp(argv[1], "maps") == 0)
		puts("done");
	return 0;
}
