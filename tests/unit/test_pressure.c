/* SPDX-License-Identifier: MIT */
/* What the kernel says of memory's scarceness, on machines that the fake kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#include "numa/cgroup.h"
#include "numa/pressure.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"
#define OWN "/sys/fs/cgroup/app"

static uint64_t now = 5000;

/* A machine of 4 GiB with no other files, and no limit. */
static void start(void)
{
	fake_os_install();
	fake_os_no_sysfs();
	fake_os_clock(now);
	fake_os_total_memory(4 * GIB);
	fake_os_address_limit(UINT64_MAX);
	fake_os_file("/proc/meminfo", "MemTotal:        4194304 kB\nMemFree:          100000 kB\nMemAvailable:    2097152 kB\n");
	qy_topology_init(false);
	qy_cgroup_forget();
	qy_pressure_forget();
}

static void psi(const char *path, uint64_t some, uint64_t full)
{
	char text[256];

	snprintf(text, sizeof(text), "some avg10=1.00 avg60=2.00 avg300=3.00 total=%" PRIu64 "\n"
		 "full avg10=0.00 avg60=0.00 avg300=0.00 total=%" PRIu64 "\n", some, full);
	fake_os_file(path, text);
}

static void file(const char *path, const char *format, uint64_t n)
{
	char text[64];

	snprintf(text, sizeof(text), format, n);
	fake_os_file(path, text);
}

static void group(uint64_t max, uint64_t high, uint64_t used)
{
	fake_os_file("/proc/self/cgroup", "0::/app\n");
	fake_os_file("/proc/self/mountinfo", V2_MOUNT);
	fake_os_file(OWN "/cgroup.controllers", "cpu memory\n");
	fake_os_file("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
	fake_os_file(OWN "/memory.max", "max\n");
	fake_os_file(OWN "/memory.high", "max\n");
	if (max)
		file(OWN "/memory.max", "%" PRIu64 "\n", max);
	if (high)
		file(OWN "/memory.high", "%" PRIu64 "\n", high);
	file(OWN "/memory.current", "%" PRIu64 "\n", used);
	fake_os_file(OWN "/memory.stat", "anon 0\n");
}

static void events(uint64_t high, uint64_t max)
{
	char text[128];

	snprintf(text, sizeof(text), "low 0\nhigh %" PRIu64 "\nmax %" PRIu64 "\noom 0\noom_kill 0\n", high, max);
	fake_os_file(OWN "/memory.events", text);
}

static struct qy_pressure look_after(uint64_t ms)
{
	now += ms;
	fake_os_advance(ms);
	return qy_pressure_look(now);
}

Test(pressure, shares_of_the_time_between_two_looks)
{
	struct qy_pressure p;

	start();
	psi("/proc/pressure/memory", 1000000, 500000);
	p = look_after(0);
	cr_assert_eq(p.window_ms, 0, "one look tells nothing");
	cr_assert_eq(p.some, 0);
	psi("/proc/pressure/memory", 1000000 + 120000, 500000 + 30000);
	p = look_after(600);
	cr_assert_eq(p.window_ms, 600);
	cr_assert_eq(p.some, 200, "%u", p.some);
	cr_assert_eq(p.full, 50, "%u", p.full);
	cr_assert_not(p.of_group);
	p = look_after(500);
	cr_assert_eq(p.some, 0, "and then it was over");
	psi("/proc/pressure/memory", 9000000, 530000);
	p = look_after(200);
	cr_assert_eq(p.some, 1000, "no more than all of the time, whatever the clocks say: %u", p.some);
}

Test(pressure, a_look_is_kept_for_a_while)
{
	unsigned long reads;
	struct qy_pressure p;

	start();
	psi("/proc/pressure/memory", 0, 0);
	look_after(0);
	reads = fake_os_calls(FAKE_READ_FILE);
	p = look_after(QY_PRESSURE_EVERY_MS - 1);
	cr_assert_eq(fake_os_calls(FAKE_READ_FILE), reads);
	cr_assert_eq(p.time_ms, now - QY_PRESSURE_EVERY_MS + 1);
	p = look_after(1);
	cr_assert_leq(fake_os_calls(FAKE_READ_FILE) - reads, 4, "%lu files", fake_os_calls(FAKE_READ_FILE) - reads);
	cr_assert_eq(p.time_ms, now);
}

Test(pressure, an_old_window_and_a_counter_that_went_back_tell_nothing)
{
	struct qy_pressure p;

	start();
	psi("/proc/pressure/memory", 1000, 0);
	look_after(0);
	psi("/proc/pressure/memory", 5000000, 0);
	p = look_after(100000);
	cr_assert_eq(p.window_ms, 0);
	psi("/proc/pressure/memory", 100, 0);
	p = look_after(500);
	cr_assert_eq(p.window_ms, 0);
	psi("/proc/pressure/memory", 100 + 50000, 0);
	p = look_after(500);
	cr_assert_eq(p.some, 100);
}

Test(pressure, a_kernel_that_does_not_tell)
{
	static const char *const texts[] = { NULL, "", "some avg10=0.00\n", "full avg10=1 total=5\n", "some total=\n",
					     "some avg10=0.00 avg60=0.00 avg300=0.00\nfull avg10=0 total=7\n" };

	start();
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		fake_os_file("/proc/pressure/memory", texts[i]);
		look_after(500);
		cr_assert_eq(look_after(500).window_ms, 0, "text %zu", i);
	}
	/* The line of full came late (Linux 5.13 has it everywhere for memory). */
	fake_os_file("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
	look_after(500);
	fake_os_file("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=50000\n");
	cr_assert_eq(look_after(500).some, 100);
	errno = 77;
	fake_os_fail(FAKE_READ_FILE, EMFILE);
	cr_assert_eq(look_after(500).window_ms, 0);
	cr_assert_eq(errno, 77);
}

Test(pressure, of_the_group_where_there_is_one)
{
	struct qy_pressure p;

	start();
	group(100 * MIB, 0, 60 * MIB);
	psi("/proc/pressure/memory", 0, 0);
	psi(OWN "/memory.pressure", 0, 0);
	look_after(0);
	psi("/proc/pressure/memory", 400000, 0);
	psi(OWN "/memory.pressure", 100000, 0);
	p = look_after(1000);
	cr_assert(p.of_group);
	cr_assert_eq(p.some, 100);
	cr_assert_eq(p.group_limit, 100 * MIB);
	cr_assert_eq(p.group_used, 60 * MIB);
	cr_assert_eq(p.high_limit, UINT64_MAX);
	cr_assert_eq(p.total, UINT64_MAX, "the machine is not asked: the group has less");
	/* The group's file is gone: another clock, and nothing to subtract from. */
	fake_os_file(OWN "/memory.pressure", NULL);
	psi("/proc/pressure/memory", 500000, 0);
	p = look_after(1000);
	cr_assert_not(p.of_group);
	cr_assert_eq(p.window_ms, 0);
}

/* A hybrid host: v1 has the memory controller, and v2 is mounted beside it. v2's group has files, too, and none of them
 * is about the group that limits memory. */
Test(pressure, of_the_machine_on_a_hybrid_host)
{
	static const char unified[] = "/sys/fs/cgroup/unified/app", limited[] = "/sys/fs/cgroup/memory/app";
	char path[100];
	struct qy_pressure p;

	start();
	fake_os_file("/proc/self/cgroup", "4:memory:/app\n1:name=systemd:/app\n0::/app\n");
	fake_os_file("/proc/self/mountinfo",
		     "33 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		     "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
	for (int levels = 0; levels < 2; levels++) {
		const int length = (int)sizeof(unified) - 1 - (levels ? 0 : 4);

		snprintf(path, sizeof(path), "%.*s/cgroup.controllers", length, unified);
		fake_os_file(path, "hugetlb\n");
		snprintf(path, sizeof(path), "%.*s/memory.events", length, unified);
		fake_os_file(path, "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n");
		snprintf(path, sizeof(path), "%.*s/memory.pressure", length, unified);
		psi(path, 0, 0);
	}
	snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", limited);
	file(path, "%" PRIu64 "\n", 100 * MIB);
	snprintf(path, sizeof(path), "%s/memory.usage_in_bytes", limited);
	file(path, "%" PRIu64 "\n", 90 * MIB);
	snprintf(path, sizeof(path), "%s/memory.stat", limited);
	fake_os_file(path, "total_inactive_file 0\n");
	psi("/proc/pressure/memory", 0, 0);
	look_after(0);
	psi("/proc/pressure/memory", 400000, 100000);
	snprintf(path, sizeof(path), "%s/memory.pressure", unified);
	psi(path, 900000, 900000);
	snprintf(path, sizeof(path), "%s/memory.events", unified);
	fake_os_file(path, "low 0\nhigh 9\nmax 9\noom 0\noom_kill 0\n");
	p = look_after(1000);
	cr_assert_not(p.of_group);
	cr_assert_eq(p.some, 400);
	cr_assert_eq(p.full, 100);
	cr_assert_eq(p.events_high, 0);
	cr_assert_eq(p.events_max, 0);
	cr_assert_eq(p.group_limit, 100 * MIB);
	cr_assert_eq(p.group_used, 90 * MIB);
	cr_assert_eq(p.high_limit, UINT64_MAX);
}

Test(pressure, memory_high_is_told_apart_from_memory_max)
{
	struct qy_pressure p;

	start();
	group(100 * MIB, 80 * MIB, 79 * MIB);
	p = look_after(0);
	cr_assert_eq(p.group_limit, 100 * MIB);
	cr_assert_eq(p.high_limit, 80 * MIB);
	cr_assert_eq(p.high_used, 79 * MIB);
	fake_os_file(OWN "/memory.max", "max\n");
	p = look_after(200);
	cr_assert_eq(p.group_limit, UINT64_MAX);
	cr_assert_eq(p.high_limit, 80 * MIB);
}

Test(pressure, events_since_the_look_before)
{
	struct qy_pressure p;

	start();
	group(100 * MIB, 0, 0);
	events(5, 7);
	p = look_after(0);
	cr_assert(p.events_high == 0 && p.events_max == 0, "what was before is not of now");
	events(6, 10);
	p = look_after(200);
	cr_assert_eq(p.events_high, 1);
	cr_assert_eq(p.events_max, 3);
	p = look_after(200);
	cr_assert(p.events_high == 0 && p.events_max == 0);
	fake_os_file(OWN "/memory.events", NULL);
	look_after(200);
	events(100, 100);
	p = look_after(200);
	cr_assert(p.events_high == 0 && p.events_max == 0, "another group's, maybe");
}

Test(pressure, the_address_space)
{
	struct qy_pressure p;

	start();
	fake_os_file("/proc/self/statm", "25600 1000 500 1 0 100 0\n");
	p = look_after(0);
	cr_assert_eq(p.address_limit, UINT64_MAX);
	fake_os_address_limit(200 * MIB);
	p = look_after(200);
	cr_assert_eq(p.address_limit, 200 * MIB);
	cr_assert_eq(p.address_used, 25600 * qy_os_page_size());
}

Test(pressure, the_machine_where_no_group_has_less)
{
	struct qy_pressure p;

	start();
	p = look_after(0);
	cr_assert_eq(p.total, 4 * GIB);
	cr_assert_eq(p.available, 2 * GIB);
	/* A limit of more than there is. */
	group(8 * GIB, 0, GIB);
	qy_cgroup_forget();
	p = look_after(200);
	cr_assert_eq(p.group_limit, 8 * GIB);
	cr_assert_eq(p.total, 4 * GIB);
	fake_os_file("/proc/meminfo", "MemTotal:        4194304 kB\n");
	p = look_after(200);
	cr_assert_eq(p.total, UINT64_MAX);
}

Test(pressure, of_the_nodes_that_a_cpuset_leaves)
{
	struct qy_pressure p;

	fake_os_install();
	fake_os_nodes("0-3");
	fake_os_clock(now);
	fake_os_address_limit(UINT64_MAX);
	fake_os_file("/proc/self/cgroup", NULL);
	fake_os_file("/proc/meminfo", "MemTotal:        4194304 kB\nMemFree: 1 kB\nMemAvailable:    2097152 kB\n");
	fake_os_memory(1, GIB, 512 * MIB);
	fake_os_memory(2, GIB, 256 * MIB);
	qy_topology_init(true);
	qy_cgroup_forget();
	qy_pressure_forget();
	p = look_after(0);
	cr_assert_eq(p.available, 2 * GIB, "all nodes: the machine");
	fake_os_allowed("1-2");
	p = look_after(3000);
	cr_assert_eq(p.total, 2 * GIB, "%" PRIu64, p.total);
	cr_assert_leq(p.available, 768 * MIB);
	cr_assert_gt(p.available, 512 * MIB);
}

static void *look_often(void *unused)
{
	(void)unused;
	for (int i = 0; i < 2000; i++) {
		struct qy_pressure p;

		fake_os_advance(50);
		p = qy_pressure_look(qy_os->now_ms());
		if (p.time_ms != 0 && p.group_limit != 100 * MIB && p.group_limit != UINT64_MAX)
			return "a torn look";
	}
	return NULL;
}

Test(pressure, eight_threads_at_once, .timeout = 60)
{
	pthread_t threads[8];
	void *what;

	start();
	group(100 * MIB, 0, 60 * MIB);
	psi("/proc/pressure/memory", 0, 0);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, look_often, NULL), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], &what);
		cr_assert_null(what, "%s", (const char *)what);
	}
}

static int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* The real kernel: whatever it tells, no descriptor stays. */
Test(pressure, this_machine_and_no_descriptor_stays)
{
	int before = open_descriptors();
	struct qy_pressure p;

	qy_topology_init(true);
	for (int i = 1; i <= 20; i++) {
		p = qy_pressure_look((uint64_t)i * 1000);
		cr_assert_eq(p.time_ms, (uint64_t)i * 1000);
		cr_assert_leq(p.some, 1000);
		cr_assert(p.total == UINT64_MAX || p.available <= p.total);
	}
	cr_assert_eq(open_descriptors(), before);
	fprintf(stderr, "test_pressure: here: window %" PRIu64 " ms, group limit %" PRIu64 ", machine %" PRIu64 " of %" PRIu64
		"\n", p.window_ms, p.group_limit, p.available, p.total);
}
