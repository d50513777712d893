/* SPDX-License-Identifier: MIT */
/* A process ends when the last of its threads does, even if that is not the first one, or the process is a child
 * forked by a thread: the library's own thread must not keep it. variants: preload linked archive */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/family/family.h"

static void churn(int rounds)
{
	uint64_t random = 8;
	void *p[100] = { NULL };

	for (int i = 0; i < rounds; i++) {
		unsigned at = (unsigned)(family_random(&random) % 100);
		free(p[at]);
		p[at] = malloc(family_size(&random, 18));
		CHECK(p[at] != NULL);
	}
	for (int i = 0; i < 100; i++)
		free(p[i]);
}

/* The first thread leaves at once; this one is the last. */
static void *outlives(void *first)
{
	CHECK(pthread_join(*(pthread_t *)first, NULL) == 0);
	churn(30000);
	return NULL;
}

static void *returns(void *unused)
{
	churn(10000);
	return unused;
}

/* In the child this thread is the only one, and it ends by returning from here. */
static void *forks(void *status)
{
	churn(10000);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		pthread_t t;
		CHECK(pthread_create(&t, NULL, returns, NULL) == 0);
		CHECK(pthread_join(t, NULL) == 0);
		churn(10000);
		return NULL;
	}
	CHECK(waitpid(pid, (int *)status, 0) == pid);
	return NULL;
}

static pthread_t first;

static void leave_to_another(void)
{
	pthread_t t;

	first = pthread_self();
	churn(1000);
	CHECK(pthread_create(&t, NULL, outlives, &first) == 0);
	CHECK(pthread_detach(t) == 0);
	pthread_exit(NULL);
}

static void fork_in_thread(void)
{
	pthread_t t;
	int status = -1;

	CHECK(pthread_create(&t, NULL, forks, &status) == 0);
	CHECK(pthread_join(t, NULL) == 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
	static const char *const modes[] = { "reclaim=auto", "reclaim=parallel", "reclaim=series" };

	family_in_use();
	if (argc > 1 && strcmp(argv[1], "leave") == 0)
		leave_to_another();
	if (argc > 1 && strcmp(argv[1], "fork") == 0) {
		fork_in_thread();
		return 0;
	}
	for (int i = 0; i < 6; i++) {
		char *arguments[] = { argv[0], i % 2 ? "leave" : "fork", NULL };
		int status = 0;
		pid_t pid = fork(), ended;
		CHECK(pid >= 0);
		if (pid == 0) {
			/* In a group of its own, so that all of it can be ended. */
			setpgid(0, 0);
			CHECK(setenv("QUARRY_OPTIONS", modes[i / 2], 1) == 0);
			execv("/proc/self/exe", arguments);
			_exit(1);
		}
		for (int tenths = 0; (ended = waitpid(pid, &status, WNOHANG)) == 0 && tenths < 80; tenths++)
			usleep(100000);
		if (ended == 0) {
			kill(-pid, SIGKILL);
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			CHECK(!"the process does not end");
		}
		CHECK(ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	return 0;
}
