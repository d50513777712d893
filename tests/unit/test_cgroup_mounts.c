/* SPDX-License-Identifier: MIT */
/* Where the files of the process's control groups are: mounts of every kind, and namespaces, on machines that the fake
 * kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/fake_os.h"
#include "tests/unit/cgroup_model.h"

Test(cgroup, mounted_elsewhere_with_escapes)
{
	start("0::/my group\n", "30 23 0:26 / /mnt/c\\040g\\134\\011x rw - cgroup2 none rw\n");
	v2("/mnt/c g\\\tx", "", NULL, 0, 0);
	v2("/mnt/c g\\\tx", "/my group", "1048576\n", 4096, 0);
	expect(1 * MIB, 4096);
}

/* A container of v1 without a namespace: the mount shows the container's group alone, and the process's path is the
 * host's. */
Test(cgroup, mount_of_a_group_below_the_root)
{
	start("4:memory:/docker/c0ffee/sub\n",
	      "35 31 0:32 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
	v1(v1_base, "", "67108864\n", 20 * MIB, 0);
	v1(v1_base, "/sub", "33554432\n", 1 * MIB, 0);
	expect(32 * MIB, 1 * MIB);
	number_file(v1_base, "", "memory.usage_in_bytes", 63 * MIB);
	expect(64 * MIB, 63 * MIB);
}

Test(cgroup, mount_of_somebody_elses_group)
{
	start("4:memory:/docker/c0ffee\n",
	      "35 31 0:32 /docker/c0ff /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
	      "36 31 0:32 /docker/c0ffee/below /mnt ro - cgroup cgroup rw,memory\n");
	v1(v1_base, "", "67108864\n", 20 * MIB, 0);
	v1(v1_base, "/docker/c0ffee", "67108864\n", 20 * MIB, 0);
	v1("/mnt", "", "67108864\n", 20 * MIB, 0);
	expect_none();
}

/* A namespace and a mount made in it: both are told from the namespace's root, which has files like any group. */
Test(cgroup, namespaced_root)
{
	start("0::/\n", V2_MOUNT);
	v2(v2_base, "", "67108864\n", 20 * MIB, 0);
	expect(64 * MIB, 20 * MIB);
}

/* A namespace with the mount of its parent: the names between are not told, but the mount's root is above us. */
Test(cgroup, namespace_below_the_mounts_root)
{
	start("0::/sub\n", "30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	v2(v2_base, "", "67108864\n", 20 * MIB, 0);
	v2(v2_base, "/sub", "1048576\n", 1, 0); /* somebody else's of the same name */
	expect(64 * MIB, 20 * MIB);
}

/* A process that was moved out of its namespace's root, to a sibling. */
Test(cgroup, outside_of_the_namespace)
{
	start("0::/../other\n", V2_MOUNT);
	v2(v2_base, "", "67108864\n", 20 * MIB, 0);
	v2(v2_base, "/other", "1048576\n", 1, 0);
	expect_none();
	qy_cgroup_forget();
	fake_os_file("/proc/self/mountinfo", "30 23 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	expect(1 * MIB, 1);
	qy_cgroup_forget();
	fake_os_file("/proc/self/mountinfo", "30 23 0:26 /../third /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
	expect_none();
}

Test(cgroup, the_mount_that_shows_most)
{
	start("0::/a/b\n", "30 23 0:26 / /hidden rw - cgroup2 cgroup2 rw\n"
	      "31 23 0:26 /a/b /part rw - cgroup2 cgroup2 rw\n"
	      "32 23 0:26 / /all rw - cgroup2 cgroup2 rw\n");
	v2("/part", "", "67108864\n", 20 * MIB, 0);
	v2("/all", "", NULL, 0, 0);
	v2("/all", "/a", "62914560\n", 50 * MIB, 0);
	v2("/all", "/a/b", "67108864\n", 20 * MIB, 0);
	expect(60 * MIB, 50 * MIB);
}

Test(cgroup, a_mount_that_shows_our_group_before_one_above)
{
	static const char above[] = "30 23 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
	static const char ours[] = "31 23 0:26 / /mine rw - cgroup2 cgroup2 rw\n";
	char mounts[256];

	for (int i = 0; i < 2; i++) {
		snprintf(mounts, sizeof(mounts), "%s%s", i ? ours : above, i ? above : ours);
		start("0::/\n", mounts);
		v2(v2_base, "", "67108864\n", 20 * MIB, 0);
		v2("/mine", "", "33554432\n", 4 * MIB, 0);
		expect(32 * MIB, 4 * MIB);
	}
}

static char long_mounts[65536];

static ssize_t read_long_mounts(const char *path, char *buffer, size_t size)
{
	size_t n = strlen(long_mounts);

	if (strcmp(path, "/proc/self/mountinfo") != 0)
		return inner->read_file(path, buffer, size);
	n = n < size - 1 ? n : size - 1;
	memcpy(buffer, long_mounts, n);
	buffer[n] = 0;
	return (ssize_t)n;
}

/* More mounts than are read: 40 KiB of them before (or, after being cut off within its line, behind) ours. */
static void start_long(const char *own, const char *mounts, bool first)
{
	char *at;

	start(own, "");
	at = long_mounts;
	if (first)
		at += sprintf(at, "%s", mounts);
	while (at - long_mounts < 40000)
		at += sprintf(at, "99 23 0:99 / /overlay/%d rw - overlay overlay rw,lowerdir=/somewhere\n",
			      (int)(at - long_mounts));
	if (!first)
		sprintf(at, "%s", mounts);
	wrap(read_long_mounts);
}

Test(cgroup, more_mounts_than_fit)
{
	start_long("0::/a\n", "30 23 0:26 / /odd rw - cgroup2 cgroup2 rw\n", true);
	v2("/odd", "/a", "67108864\n", 20 * MIB, 0);
	v2(v2_base, "/a", "1048576\n", 1, 0);
	expect(64 * MIB, 20 * MIB);
}

Test(cgroup, mount_beyond_what_fits_is_looked_for_in_its_usual_place)
{
	start_long("0::/a\n", V2_MOUNT, false);
	v2(v2_base, "/a", "67108864\n", 20 * MIB, 0);
	expect(64 * MIB, 20 * MIB);
	start_long("5:memory:/a\n", V1_MOUNTS, false);
	v1(v1_base, "/a", "33554432\n", 20 * MIB, 0);
	expect(32 * MIB, 20 * MIB);
}
