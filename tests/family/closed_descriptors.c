/* SPDX-License-Identifier: MIT */
/* A program that closes every descriptor it did not open, as daemons do, and then allocates: nothing of the library's
 * was among them, and nothing is written to what now has their numbers. variants: preload linked archive static */
#include <pthread.h>
#include <sys/stat.h>

#include "tests/family/family.h"

static void close_all(void)
{
	for (int fd = 0; fd < 1024; fd++)
		close(fd);
}

static void work(uint64_t seed)
{
	static _Thread_local char *p[2000];
	uint64_t random = seed;

	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 2000; i++) {
			size_t n = family_size(&random, i % 20 ? 12 : 20);
			p[i] = i % 3 ? malloc(n) : calloc(1, n);
			CHECK(p[i] != NULL);
			p[i][0] = p[i][n - 1] = (char)i;
		}
		for (int i = 0; i < 2000; i++) {
			CHECK(p[i][0] == (char)i);
			free(p[i]);
		}
	}
}

static void *thread(void *arg)
{
	work(11 + (uint64_t)(uintptr_t)arg);
	return NULL;
}

int main(void)
{
	pthread_t threads[3];
	struct stat status;
	int saved = fcntl(2, F_DUPFD, 2000);
	char name[] = "closed_descriptors.XXXXXX";

	CHECK(saved >= 2000);
	family_report_to = saved;
	family_in_use();
	work(1);
	close_all();
	/* One file now has every number that something might have been remembered by. */
	int file = mkstemp(name);
	CHECK(file == 0);
	unlink(name);
	for (int fd = 1; fd < 64; fd++)
		CHECK(dup2(file, fd) == fd);
	work(2);
	for (uintptr_t i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, thread, (void *)i) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(fstat(file, &status) == 0 && status.st_size == 0);
	for (int fd = 0; fd < 64; fd++)
		CHECK(fcntl(fd, F_GETFD) >= 0);
	close_all();
	work(3);
	return 0;
}
