/* SPDX-License-Identifier: MIT */
/* The calls that look for leaks: they have a copy of the process made that looks (leak_scan.c), and tell of what it
 * found. */
#include "lib/view/leaks.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/base/checker.h"
#include "lib/base/lock.h"
#include "lib/cache/fork.h"
#include "lib/manager/manager.h"
#include "lib/manager/snapshot.h"
#include "lib/view/profile.h"
#include "lib/view/sort.h"

#define BETWEEN_MS 100

struct search {
	struct qy_leak_scan *scan;
	struct qy_leak_question question;
	quarry_leaks_report report;
	struct qy_leak_group *groups;
	size_t groups_mapped, seen_mapped;
	bool again; /* one scan is not enough */
};

static void *map_shared(size_t bytes, int fd)
{
	int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE : MAP_PRIVATE;
	void *p = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ---- the copy ---- */

/* What it ended with. */
static int error_of(int status)
{
	if (!WIFEXITED(status))
		return EIO;
	return WEXITSTATUS(status) == QY_COPY_FAILED || WEXITSTATUS(status) == QY_COPY_ALONE ? ENOMEM : WEXITSTATUS(status);
}

/* One scan, into a file of its own. 0, or an errno. */
static int scan_once(struct search *s)
{
	struct qy_copy_report copy;
	int status;

	if (s->question.fd >= 0)
		qy_os->close(s->question.fd);
	s->question.fd = qy_os->memfd("quarry-leaks", QY_MFD_CLOEXEC);
	if (s->question.fd < 0)
		return errno;
	memset(s->scan, 0, sizeof(*s->scan));
	status = qy_fork_copy(qy_leak_scan, &s->question, &copy);
	if (status < 0)
		return errno;
	s->report.scans++;
	s->report.threads = qy_max(s->report.threads, copy.threads);
	s->report.unread = qy_max(s->report.unread, copy.unread);
	s->report.stopped_ns = qy_max(s->report.stopped_ns, copy.held_ns);
	s->again = copy.unread > 0 || (copy.files && copy.threads > 0);
	return error_of(status);
}

/* (Where registers are not known, or memory in files changed meanwhile, the first scan was as good as none, and is made
 * again to be one of two.) */
static int scan_twice(struct search *s)
{
	size_t bits = (qy_window_claimed() + QY_ZONE) / QY_SNAP_GRAIN;
	_Atomic(uint32_t) nothing = 0;
	int error;

	s->seen_mapped = qy_align_up(bits / 8, QY_PAGE);
	s->question.seen = map_shared(s->seen_mapped, -1);
	if (s->question.seen == NULL)
		return ENOMEM;
	s->question.seen_bits = bits;
	s->report.scans = 0;
	error = scan_once(s);
	if (error != 0)
		return error;
	qy_sleep_on(&nothing, 0, BETWEEN_MS);
	s->question.again = true;
	return scan_once(s);
}

static int scan(struct search *s)
{
	int error = scan_once(s);

	return error == 0 && s->again ? scan_twice(s) : error;
}

/* ---- what it found ---- */

static uint64_t key_of_group(const void *group)
{
	const struct qy_leak_group *g = group;

	return UINT64_MAX - (g->bytes + g->held_bytes);
}

static int take_groups(struct search *s)
{
	size_t bytes = s->scan->groups * sizeof(s->groups[0]);

	if (bytes == 0)
		return 0;
	s->groups_mapped = qy_align_up(bytes, QY_PAGE);
	s->groups = map_shared(s->groups_mapped, s->question.fd);
	if (s->groups == NULL)
		return ENOMEM;
	qy_sort(s->groups, s->scan->groups, sizeof(s->groups[0]), key_of_group);
	return 0;
}

static uint64_t objects_of(uint64_t weight)
{
	return (weight + QY_WEIGHT_ONE / 2) / QY_WEIGHT_ONE;
}

static void fill(quarry_leak *l, const struct qy_leak_group *g, char *name)
{
	quarry_arena *arena = &qy_arenas[g->arena];
	struct qy_manager *m = qy_manager_of_arena(arena);

	*l = (quarry_leak){
		.struct_size = sizeof(*l),
		.node = g->node,
		.object_size = g->size,
		.objects = g->objects,
		.bytes = g->bytes,
		.held_objects = g->held_objects,
		.held_bytes = g->held_bytes,
		.reachable_objects = objects_of(g->reachable_weight),
		.arena = arena,
		.arena_name = name,
	};
	memcpy(l->example, g->example, sizeof(l->example));
	name[0] = 0;
	if (m != NULL)
		qy_manager_name(m, name);
	if (g->site == NULL)
		return;
	l->frames = g->site->frames;
	l->depth = g->site->depth;
	l->suppressed = qy_leak_suppressed(l->frames, l->depth);
}

static int tell(struct search *s, unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx)
{
	for (size_t i = 0; i < s->scan->groups; i++) {
		char name[QUARRY_ARENA_NAME_MAX];
		quarry_leak leak;
		int r;

		fill(&leak, &s->groups[i], name);
		if (leak.suppressed != NULL) {
			s->report.suppressed_objects += leak.objects + leak.held_objects;
			s->report.suppressed_bytes += leak.bytes + leak.held_bytes;
		}
		if (leak.objects == 0 && !(flags & QUARRY_LEAKS_REACHABLE))
			continue;
		s->report.groups++;
		r = fn == NULL ? 0 : fn(&leak, ctx);
		if (r != 0)
			return r;
	}
	return 0;
}

static void sum_up(struct search *s, uint64_t since)
{
	const struct qy_leak_scan *found = s->scan;

	s->report.live_objects = found->live_objects;
	s->report.live_bytes = found->live_bytes;
	s->report.objects = found->objects;
	s->report.bytes = found->bytes;
	s->report.held_objects = found->held_objects;
	s->report.held_bytes = found->held_bytes;
	s->report.scanned_bytes = found->scanned;
	s->report.skipped_bytes = found->skipped;
	s->report.inexact = found->inexact;
	s->report.took_ns = qy_os->now_ns() - since;
}

static void end(struct search *s)
{
	if (s->groups != NULL)
		qy_os->munmap(s->groups, s->groups_mapped);
	if (s->question.seen != NULL)
		qy_os->munmap(s->question.seen, s->seen_mapped);
	if (s->scan != NULL)
		qy_os->munmap(s->scan, QY_PAGE);
	if (s->question.fd >= 0)
		qy_os->close(s->question.fd);
}

static const char *words_for(int error)
{
	switch (error) {
	case EDEADLK:
		return "inside another call of quarry's";
	case EIO:
		return "the copy of the process was killed";
	case ENOENT:
		return "/proc/self/maps cannot be read, or is too long";
	case EPERM:
		return "children of this process are in another namespace of processes";
	case ENOSYS:
		return "the kernel has no memfd_create(2)";
	case EMFILE:
	case ENFILE:
		return "no descriptor for what the copy finds";
	case EFBIG:
	case ENOSPC:
		return "what the copy found could not be written";
	default:
		return "no room for a copy of the process";
	}
}

static int check_arguments(unsigned flags, const quarry_leaks_report *report)
{
	if ((flags & ~QUARRY_LEAKS_REACHABLE) != 0)
		return qy_fail(EINVAL, "flags: 0x%x is not 0 or QUARRY_LEAKS_REACHABLE", flags);
	if (report != NULL && report->struct_size < sizeof(report->struct_size))
		return qy_fail(EINVAL, "report: its struct_size is not set");
	qy_init_once();
	if (qy_fail_inside())
		return -1;
	if (qy_checker != QY_CHECKER_NONE)
		return qy_fail(ENOTSUP, "under a memory checker, which looks for leaks itself");
	return 0;
}

int qy_leaks_find(uintptr_t stack, unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx,
		  quarry_leaks_report *report)
{
	struct search s = { .question = { .fd = -1, .stack = stack }, .report = { .struct_size = sizeof(s.report) } };
	uint64_t since;
	uint32_t size;
	int error, result = 0;

	if (check_arguments(flags, report) != 0)
		return -1;
	qy_leak_read_suppressions(&s.report);
	/* (Who cannot be told of it in the report is told so.) */
	if (s.report.suppressions_error != 0 &&
	    (report == NULL || report->struct_size < offsetof(quarry_leaks_report, suppressions_line) +
							     sizeof(report->suppressions_line)))
		return qy_fail(s.report.suppressions_error, "QUARRY_SUPPRESSIONS: line %u is wrong, or the file cannot be read",
			       s.report.suppressions_line);
	since = qy_os->now_ns();
	s.scan = map_shared(QY_PAGE, -1);
	s.question.scan = s.scan;
	error = s.scan == NULL ? ENOMEM : scan(&s);
	if (error == 0)
		error = take_groups(&s);
	if (error == 0) {
		sum_up(&s, since);
		result = tell(&s, flags, fn, ctx);
	}
	end(&s);
	if (error != 0)
		return qy_fail(error, "%s", words_for(error));
	if (report != NULL) {
		size = (uint32_t)qy_min(report->struct_size, sizeof(s.report));
		memcpy(report, &s.report, size);
		report->struct_size = size;
	}
	return result;
}

static __attribute__((noinline)) int find(unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx,
					  quarry_leaks_report *report)
{
	return qy_leaks_find(QY_LEAKS_STACK, flags, fn, ctx, report);
}

QUARRY_API int quarry_leaks_find(unsigned flags, int (*fn)(const quarry_leak *leak, void *ctx), void *ctx,
				 quarry_leaks_report *report)
{
	QY_LEAKS_FROM_HERE;
	return find(flags, fn, ctx, report);
}
