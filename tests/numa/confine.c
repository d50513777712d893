/* SPDX-License-Identifier: MIT */
/* What confines a process: control groups, and system calls that are denied. Used before quarry is there. */
#include "tests/numa/suite.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define ROOT "/sys/fs/cgroup"
#define CPUSETS "/dev/cpuset"
#define GROUP "QUARRY_SUITE_GROUP" /* in the environment, for the test that is started anew */

/* The files of version 1's cpusets have shorter names. */
static const char *own_name(const char *group, const char *file)
{
	return strncmp(group, CPUSETS, sizeof(CPUSETS) - 1) == 0 && strncmp(file, "cpuset.", 7) == 0 ? file + 7 : file;
}

bool group_set(const char *file, const char *text)
{
	const char *group = getenv(GROUP);
	char path[200];

	if (group == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/%s", group, own_name(group, file));
	return write_text(path, text);
}

/* Of version 2 (mounted by us where nobody has); cpusets of version 1 where those are mounted. */
void group_make(const char *controller)
{
	bool v1 = strcmp(controller, "cpuset") == 0 && access(CPUSETS "/mems", R_OK) == 0;
	char text[256], group[128];

	if (!v1) {
		if (access(ROOT "/cgroup.controllers", R_OK) != 0 && mount("cgroup2", ROOT, "cgroup2", 0, NULL) != 0)
			skip("no control groups of version 2 here: %s", strerror(errno));
		if (!read_text(ROOT "/cgroup.controllers", text, sizeof(text)) || strstr(text, controller) == NULL)
			skip("control groups here have no %s controller", controller);
		snprintf(text, sizeof(text), "+%s", controller);
		if (!write_text(ROOT "/cgroup.subtree_control", text))
			skip("the %s controller cannot be switched on: %s", controller, strerror(errno));
	}
	snprintf(group, sizeof(group), "%s/quarry-suite-%d", v1 ? CPUSETS : ROOT, (int)getpid());
	if (mkdir(group, 0755) != 0 && errno != EEXIST)
		skip("no control group can be made: %s", strerror(errno));
	setenv(GROUP, group, 1);
}

bool group_get(const char *file, char *buffer, size_t size)
{
	const char *group = getenv(GROUP);
	char path[200];

	if (group == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/%s", group, own_name(group, file));
	return read_text(path, buffer, size);
}

uint64_t group_number(const char *file, const char *line)
{
	size_t length = line != NULL ? strlen(line) : 0;
	char text[4096];

	if (!group_get(file, text, sizeof(text)))
		fail("the group's %s cannot be read: %s", file, strerror(errno));
	for (const char *s = text; s != NULL; s = strchr(s, '\n'), s = s != NULL ? s + 1 : NULL)
		if (line == NULL || (strncmp(s, line, length) == 0 && s[length] == ' '))
			return strtoull(s + length, NULL, 10);
	fail("the group's %s says nothing of %s", file, line);
}

bool group_nest(const char *controller, const char *name)
{
	static char above[128];
	char text[256];

	if (above[0] == 0)
		snprintf(above, sizeof(above), "%s", getenv(GROUP));
	setenv(GROUP, above, 1);
	snprintf(text, sizeof(text), "+%s", controller);
	if (!group_set("cgroup.subtree_control", text))
		return false;
	snprintf(text, sizeof(text), "%s/%s", above, name);
	if (mkdir(text, 0755) != 0 && errno != EEXIST)
		return false;
	setenv(GROUP, text, 1);
	return true;
}

bool group_join(void)
{
	char pid[32];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	return group_set("cgroup.procs", pid);
}

bool deny(const int *calls, int count, int error)
{
	struct sock_filter filter[64];
	struct sock_fprog program = { .filter = filter };
	int n = 0;

	filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < count && n < 60; i++) {
		filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error);
	}
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = (unsigned short)n;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
