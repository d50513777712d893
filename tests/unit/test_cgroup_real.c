/* SPDX-License-Identifier: MIT */
/* Memory limits of control groups, in a group that is made on this machine, below the one that the test is in. Where
 * none can be made the test says so and is left out. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "numa/cgroup.h"

#define MIB (UINT64_C(1) << 20)


static struct {
	bool v1;
	bool lent;          /* we gave the children of our group the controller */
	char own[512], outer[544], inner[576];
} real;

static int write_file(const char *directory, const char *name, const char *text)
{
	char path[700];
	int fd, failed;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	failed = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	errno = failed;
	return failed ? -1 : 0;
}

static int set_limit(const char *directory, uint64_t limit)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, limit);
	if (limit == 0)
		strcpy(text, real.v1 ? "-1" : "max");
	return write_file(directory, real.v1 ? "memory.limit_in_bytes" : "memory.max", text);
}

/* Our own group's directory, read by libc; false where no memory controller is mounted the plain way. */
static bool find_real(void)
{
	char line[1024], group[256] = "", mount[256] = "", type[32], options[256];
	FILE *f = fopen("/proc/self/cgroup", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, ":memory:") && sscanf(line, "%*d:memory:%255[^\n]", group) == 1)
			real.v1 = true;
		else if (!real.v1)
			sscanf(line, "0::%255[^\n]", group);
	}
	if (f)
		fclose(f);
	f = fopen("/proc/self/mounts", "re");
	while (f && !mount[0] && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %255s %31s %255s", mount, type, options) != 3 ||
		    strcmp(type, real.v1 ? "cgroup" : "cgroup2") || (real.v1 && !strstr(options, ",memory")))
			mount[0] = 0;
	if (f)
		fclose(f);
	snprintf(real.own, sizeof(real.own), "%s%s", mount, strcmp(group, "/") ? group : "");
	snprintf(real.outer, sizeof(real.outer), "%s/quarry-test-%d", real.own, (int)getpid());
	snprintf(real.inner, sizeof(real.inner), "%s/in", real.outer);
	return mount[0] && group[0];
}

static void remove_real(void)
{
	rmdir(real.inner);
	rmdir(real.outer);
	if (real.lent)
		write_file(real.own, "cgroup.subtree_control", "-memory");
}

static bool make_real(void)
{
	if (!find_real() || mkdir(real.outer, 0755) != 0)
		return false;
	if (!real.v1 && set_limit(real.outer, 96 * MIB) != 0)
		real.lent = write_file(real.own, "cgroup.subtree_control", "+memory") == 0;
	if ((!real.v1 && write_file(real.outer, "cgroup.subtree_control", "+memory") != 0) ||
	    mkdir(real.inner, 0755) != 0 || set_limit(real.outer, 96 * MIB) != 0 ||
	    set_limit(real.inner, 64 * MIB) != 0) {
		remove_real();
		return false;
	}
	return true;
}

#define must(x)                                                                                  \
	do {                                                                                     \
		if (!(x)) {                                                                      \
			fprintf(stderr, "%s:%d: %s: limit %" PRIu64 ", usage %" PRIu64 ", errno %d\n",  \
				__FILE__, __LINE__, #x, limit, usage, errno);                    \
			_exit(1);                                                                \
		}                                                                                \
	} while (0)

/* In a namespace of its own, with a mount made there, the group is the root of all that can be seen. */
static void in_a_namespace(void)
{
	char directory[] = "/tmp/quarry-cgroup-XXXXXX";
	uint64_t limit = 0, usage = 0;

	if (unshare(CLONE_NEWCGROUP | CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    !mkdtemp(directory)) {
		fprintf(stderr, "test_cgroup_real: namespaces left out: %s\n", strerror(errno));
		return;
	}
	qy_cgroup_forget();
	/* The old mount's root is above: what limits us from there is all that is told. */
	if (qy_cgroup_memory(&limit, &usage))
		must(limit != 64 * MIB && limit != 96 * MIB);
	if (mount("none", directory, real.v1 ? "cgroup" : "cgroup2", 0, real.v1 ? "memory" : NULL) == 0) {
		qy_cgroup_forget();
		must(qy_cgroup_memory(&limit, &usage) && limit == 64 * MIB && usage > 0 && usage < 64 * MIB);
		must(umount(directory) == 0);
	} else {
		fprintf(stderr, "test_cgroup_real: mount in a namespace left out: %s\n", strerror(errno));
	}
	rmdir(directory);
}

static void in_a_real_group(bool outside, uint64_t limit_outside)
{
	const size_t size = 16 * MIB;
	uint64_t limit = 0, usage = 0, before;
	char *memory;

	must(write_file(real.inner, "cgroup.procs", "0") == 0);
	qy_cgroup_forget();
	must(qy_cgroup_memory(&limit, &usage) && limit == 64 * MIB && usage < 64 * MIB);
	before = usage;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED);
	memset(memory, 1, size);
	/* The kernel charges in batches for each CPU. */
	must(qy_cgroup_memory(&limit, &usage) && usage >= before + 12 * MIB && usage <= before + 24 * MIB);
	munmap(memory, size);
	must(set_limit(real.inner, 0) == 0);
	must(qy_cgroup_memory(&limit, &usage) && limit == 96 * MIB);
	must(set_limit(real.inner, 64 * MIB) == 0 && set_limit(real.outer, 48 * MIB) == 0);
	must(qy_cgroup_memory(&limit, &usage) && limit == 48 * MIB);
	must(set_limit(real.inner, 0) == 0 && set_limit(real.outer, 0) == 0);
	must(qy_cgroup_memory(&limit, &usage) == outside && (!outside || limit == limit_outside));
	must(set_limit(real.outer, 96 * MIB) == 0 && set_limit(real.inner, 64 * MIB) == 0);
	in_a_namespace();
	_exit(0);
}

Test(cgroup_real, on_this_machine)
{
	uint64_t limit = 0, usage = 0;
	bool outside;
	pid_t child;
	int status = -1;

	outside = qy_cgroup_memory(&limit, &usage);
	if ((outside && (usage > limit || limit - usage < 128 * MIB)) || !make_real()) {
		fprintf(stderr, "test_cgroup_real: on_this_machine left out: no memory group can be made here: %s\n",
			strerror(errno));
		cr_skip_test("no memory group can be made here");
	}
	child = fork();
	if (child == 0)
		in_a_real_group(outside, limit);
	if (child > 0)
		waitpid(child, &status, 0);
	remove_real();
	cr_assert_eq(status, 0, "status %x", (unsigned)status);
	cr_assert(access(real.outer, F_OK) != 0, "%s is left behind", real.outer);
}
