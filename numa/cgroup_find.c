/* SPDX-License-Identifier: MIT */
/* Which groups the process is in, and where they can be seen.
 *
 * /proc/self/cgroup names the process's group as a path in its hierarchy, /proc/self/mountinfo the group that each
 * mount of that hierarchy shows at its mount point. Both paths are told from the root of the process's cgroup
 * namespace: "/" is that root, "/.." the group above it, whose name nobody in the namespace is told. So one is found
 * below the other by comparing components, and no directory has to be searched.
 *
 * All levels are prefixes of one path, so that path and the lengths of its prefixes are all there is to keep. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/cgroup_groups.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "lib/base/lock.h"
#include "numa/cgroup.h"
#include "numa/os.h"

#define TEXT_SIZE 16385   /* of mountinfo, the lines that fit */
#define NONE_FROM (UINT64_C(1) << 62)
#define STALE_MS 2000     /* a process may be moved, and nothing tells it */

static const struct qy_cgroup_names names_v2[QY_CGROUP_KINDS] = {
	{ "memory", false, "/cgroup.controllers", "/memory.max" },
	{ "hugetlb", false, "/cgroup.controllers", "/hugetlb.2MB.max" },
};

static const struct qy_cgroup_names names_v1[QY_CGROUP_KINDS] = {
	{ "memory", true, "/memory.limit_in_bytes", "/memory.limit_in_bytes" },
	{ "hugetlb", true, "/hugetlb.2MB.limit_in_bytes", "/hugetlb.2MB.limit_in_bytes" },
};

/* Where everybody has it mounted. */
static const char *const usual_v1[QY_CGROUP_KINDS] = { "/sys/fs/cgroup/memory", "/sys/fs/cgroup/hugetlb" };

enum { UNKNOWN, NO_CONTROLLER, KNOWN };

static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF); /* guards groups */

static struct hierarchy {
	_Atomic(uint32_t) state;
	_Atomic(uint64_t) learnt_ms;    /* when what state says was learnt */
	struct qy_cgroup_groups groups; /* when KNOWN */
} hierarchies[QY_CGROUP_KINDS];

/* Who turned learning from 0 to 1 has these for itself. They are static because callers' stacks may be tiny. */
static _Atomic(uint32_t) learning;
static struct {
	enum qy_cgroup_kind kind;                   /* what is learnt */
	char text[TEXT_SIZE];
	char own[QY_CGROUP_PATH_SIZE];              /* the process's group */
	char was[QY_CGROUP_PATH_SIZE];              /* the same, before the mounts were looked at */
	char probe[QY_CGROUP_PATH_SIZE + QY_CGROUP_LEAF_SIZE];
	struct qy_cgroup_groups now, best;
} scratch;

/* ---- reading ---------------------------------------------------------------------------------------------- */

enum qy_cgroup_outcome qy_cgroup_read(const char *path, char *buffer, size_t size, size_t *length)
{
	ssize_t n = qy_os->read_file(path, buffer, size);

	if (n < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EAGAIN ? QY_CGROUP_LATER : QY_CGROUP_ABSENT;
	*length = (size_t)n;
	return QY_CGROUP_GOT;
}

/* A file of the level whose path is the first length bytes of path; what stood behind them is overwritten. */
enum qy_cgroup_outcome qy_cgroup_read_leaf(char *path, size_t length, const char *leaf, char *buffer, size_t size, size_t *got)
{
	qy_assert(strlen(leaf) < QY_CGROUP_LEAF_SIZE && length < QY_CGROUP_PATH_SIZE);
	memcpy(path + length, leaf, strlen(leaf) + 1);
	return qy_cgroup_read(path, buffer, size, got);
}

/* Digits and then end; a number too large is UINT64_MAX. */
bool qy_cgroup_number(const char *s, uint64_t *number)
{
	uint64_t n = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (unsigned)(*s - '0'), &n))
			n = UINT64_MAX;
	*number = n;
	return *s == 0 || *s == '\n';
}

/* Where nothing was set, v2 says "max" and v1 the largest number of pages that its counter holds, in bytes: close to
 * 2^63, or on a 32-bit kernel LONG_MAX pages. UINT64_MAX stands for either. */
bool qy_cgroup_limit(const char *s, uint64_t *limit)
{
	uint64_t n;

	*limit = UINT64_MAX;
	if (strcmp(s, "max\n") == 0 || strcmp(s, "max") == 0)
		return true;
	if (!qy_cgroup_number(s, &n))
		return false;
	if (n < NONE_FROM && (sizeof(long) > 4 || n < (uint64_t)LONG_MAX * qy_os_page_size()))
		*limit = n;
	return true;
}

/* Whether a word is in a list of words between separators. */
static bool has_word(const char *list, const char *word, const char *separators)
{
	const size_t length = strlen(word);

	for (;;) {
		size_t n = strcspn(list, separators);
		if (n == length && memcmp(list, word, n) == 0)
			return true;
		if (list[n] == 0)
			return false;
		list += n + 1;
	}
}

/* ---- learning: which group ---------------------------------------------------------------------------------- */

/* Ends the line at *text with a 0 and moves *text past it; NULL at the end. What no newline ends was cut off. */
static char *take_line(char **text)
{
	char *line = *text, *end = strchr(line, '\n');

	if (!end)
		return NULL;
	*end = 0;
	*text = end + 1;
	return line;
}

/* The next field; they are separated by single spaces, and may be empty. */
static char *take_field(char **line)
{
	char *field = *line;

	if (field)
		*line = strchr(field, ' ');
	if (field && *line)
		*(*line)++ = 0;
	return field;
}

/* A path that does not fit is cut after a component: what is left is a group above. */
static void keep_own(const char *path)
{
	size_t n = strlen(path);

	if (n >= QY_CGROUP_PATH_SIZE)
		for (n = QY_CGROUP_PATH_SIZE - 1; n > 0 && path[n] != '/'; n--)
			;
	memcpy(scratch.own, path, n);
	scratch.own[n] = 0;
}

/* Lines are "number:controllers:path", with no controllers for v2. Where v1 has the memory controller, v2 cannot. */
static const struct qy_cgroup_names *find_own(char *text)
{
	const struct qy_cgroup_names *names = NULL;
	char *line;

	while ((line = take_line(&text)) != NULL) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(++controllers, ':') : NULL;
		if (!path || path[1] != '/')
			continue;
		*path++ = 0;
		if (has_word(controllers, names_v1[scratch.kind].controller, ",")) {
			keep_own(path);
			return &names_v1[scratch.kind];
		}
		if (strcmp(line, "0:") == 0 && *controllers == 0) {
			keep_own(path);
			names = &names_v2[scratch.kind];
		}
	}
	return names;
}

/* ---- learning: where it can be seen ------------------------------------------------------------------------- */

/* Moves *path to its next component; gives its length, 0 at the end. */
static size_t component(const char **path)
{
	*path += strspn(*path, "/");
	return strcspn(*path, "/");
}

static bool is_up(const char *path, size_t length)
{
	return length == 2 && memcmp(path, "..", 2) == 0;
}

/* Where the group own lies below the group root. NULL: not below it, so that root's limits are not ours. When it is
 * below by names that are not told, "" and *named false. */
static const char *below(const char *root, const char *own, bool *named)
{
	size_t r = component(&root), o = component(&own);

	while (r != 0 && r == o && memcmp(root, own, r) == 0) {
		root += r;
		own += o;
		r = component(&root);
		o = component(&own);
	}
	*named = r == 0;
	if (r == 0)
		return is_up(own, o) ? NULL : own;
	for (; r != 0; r = component(&root)) {
		if (!is_up(root, r))
			return NULL;
		root += r;
	}
	return "";
}

/* Whether there is a group at the first length bytes of scratch.probe; if so it is the next level of scratch.now.
 * *controlled becomes true when the memory controller may be had there. */
static enum qy_cgroup_outcome probe(size_t length, bool *controlled)
{
	struct qy_cgroup_groups *now = &scratch.now;
	char buffer[256];
	uint64_t limit;
	size_t got;
	enum qy_cgroup_outcome outcome;

	if (now->count == QY_CGROUP_LEVELS_MAX)
		return QY_CGROUP_ABSENT;
	outcome = qy_cgroup_read_leaf(scratch.probe, length, now->names->there, buffer, sizeof(buffer), &got);
	if (outcome != QY_CGROUP_GOT)
		return outcome;
	if (now->names->v1 || has_word(buffer, now->names->controller, " \n"))
		*controlled = true;
	outcome = qy_cgroup_read_leaf(scratch.probe, length, now->names->limit, buffer, sizeof(buffer), &got);
	if (outcome == QY_CGROUP_LATER)
		return QY_CGROUP_LATER;
	if (outcome == QY_CGROUP_GOT && qy_cgroup_limit(buffer, &limit))
		now->had_limit |= 1u << now->count;
	now->length[now->count++] = (uint16_t)length;
	return QY_CGROUP_GOT;
}

/* Before Linux 5.11 a v1 group could be told not to count the groups below it: then neither it nor what is above
 * limits them. */
static enum qy_cgroup_outcome counts_children(size_t length, bool *counts)
{
	char buffer[QY_CGROUP_NUMBER_SIZE];
	size_t got;
	enum qy_cgroup_outcome outcome = QY_CGROUP_ABSENT;

	if (scratch.now.names->v1 && scratch.kind == QY_CGROUP_MEMORY)
		outcome = qy_cgroup_read_leaf(scratch.probe, length, "/memory.use_hierarchy", buffer, sizeof(buffer), &got);
	*counts = outcome != QY_CGROUP_GOT || strcmp(buffer, "0\n") != 0;
	return outcome;
}

/* Look for groups from where our own is in the mount up to the mount's root. What is found becomes scratch.best if it
 * is more than that. */
static enum qy_cgroup_outcome walk(const struct qy_cgroup_names *names, const char *root, const char *mount)
{
	struct qy_cgroup_groups *now = &scratch.now, *best = &scratch.best;
	size_t base = strlen(mount), length, n;
	bool controlled = false, counts = true, named;
	const char *rest = below(root, scratch.own, &named);

	while (base > 0 && mount[base - 1] == '/')
		base--;
	if (!rest || base >= QY_CGROUP_PATH_SIZE)
		return QY_CGROUP_ABSENT;
	memset(now, 0, sizeof(*now));
	now->names = names;
	now->named = named;
	memcpy(now->path, mount, base);
	length = base;
	for (; (n = component(&rest)) != 0 && length + 1 + n < QY_CGROUP_PATH_SIZE; rest += n) {
		now->path[length++] = '/';
		memcpy(now->path + length, rest, n);
		length += n;
	}
	memcpy(scratch.probe, now->path, length);
	for (;;) {
		if (probe(length, &controlled) == QY_CGROUP_LATER)
			return QY_CGROUP_LATER;
		if (length == base)
			break;
		while (scratch.probe[--length] != '/')
			;
		if (counts_children(length, &counts) == QY_CGROUP_LATER)
			return QY_CGROUP_LATER;
		if (!counts)
			break;
	}
	if (controlled && (now->named == best->named ? now->count > best->count : now->named || best->count == 0))
		*best = *now;
	return QY_CGROUP_GOT;
}

/* The kernel writes blanks, newlines and backslashes of a path as three octal digits behind a backslash. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *s = path; *s; to++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = 0;
}

/* A line of mountinfo: id, parent, device, root, mount point, options, any number of tags, "-", type, source, options
 * of the file system. */
static enum qy_cgroup_outcome look_at_mount(const struct qy_cgroup_names *names, char *line)
{
	char *root, *mount, *field, *type, *options;

	for (int i = 0; i < 3; i++)
		take_field(&line);
	root = take_field(&line);
	mount = take_field(&line);
	do
		field = take_field(&line);
	while (field && strcmp(field, "-") != 0);
	type = take_field(&line);
	take_field(&line);
	options = take_field(&line);
	if (!options || root[0] != '/' || mount[0] != '/')
		return QY_CGROUP_ABSENT;
	if (!names->v1 ? strcmp(type, "cgroup2") != 0
		       : strcmp(type, "cgroup") != 0 || !has_word(options, names->controller, ","))
		return QY_CGROUP_ABSENT;
	unescape(root);
	unescape(mount);
	return walk(names, root, mount);
}

/* The hierarchy that has the memory controller, and scratch.own. */
static enum qy_cgroup_outcome learn_own(const struct qy_cgroup_names **names)
{
	size_t length;
	enum qy_cgroup_outcome outcome = qy_cgroup_read("/proc/self/cgroup", scratch.text, TEXT_SIZE, &length);

	if (outcome != QY_CGROUP_GOT)
		return outcome;
	*names = find_own(scratch.text);
	return *names ? QY_CGROUP_GOT : QY_CGROUP_ABSENT;
}

/* The same hierarchy may be mounted in several places, each showing another part of it, and a mount may lie hidden
 * under a later one: all are tried, and the one that shows most of what is around our own group is taken. */
static enum qy_cgroup_outcome learn_mount(const struct qy_cgroup_names *names)
{
	char *text = scratch.text, *line;
	size_t length = 0;
	enum qy_cgroup_outcome outcome = qy_cgroup_read("/proc/self/mountinfo", scratch.text, TEXT_SIZE, &length);

	if (outcome == QY_CGROUP_LATER)
		return QY_CGROUP_LATER;
	memset(&scratch.best, 0, sizeof(scratch.best));
	while (outcome == QY_CGROUP_GOT && (line = take_line(&text)) != NULL)
		if (look_at_mount(names, line) == QY_CGROUP_LATER)
			return QY_CGROUP_LATER;
	/* Not all mounts were seen: it may be where everybody has it. */
	if (scratch.best.count == 0 && (outcome != QY_CGROUP_GOT || length == TEXT_SIZE - 1)) {
		const char *mount = names->v1 ? usual_v1[scratch.kind] : "/sys/fs/cgroup";
		if (walk(names, "/", mount) == QY_CGROUP_LATER)
			return QY_CGROUP_LATER;
	}
	return scratch.best.count ? QY_CGROUP_GOT : QY_CGROUP_ABSENT;
}

/* A process that is moved meanwhile must not be left with the traces of a group that is gone: what was found counts
 * only if we were in that group to the end, for a group with a process in it cannot be removed. (One that was moved
 * away and back is not told from one that stayed; what is wrong then is mended when it is stale.) */
static enum qy_cgroup_outcome learn(void)
{
	const struct qy_cgroup_names *names, *still;
	enum qy_cgroup_outcome found, outcome = learn_own(&names);

	if (outcome != QY_CGROUP_GOT)
		return outcome;
	strcpy(scratch.was, scratch.own);
	found = learn_mount(names);
	if (found == QY_CGROUP_LATER || learn_own(&still) != QY_CGROUP_GOT || still != names || strcmp(scratch.was, scratch.own) != 0)
		return QY_CGROUP_LATER;
	return found;
}

/* Nothing is learnt when another thread is at it, or when it could not be told now. */
QY_COLD void qy_cgroup_learn(enum qy_cgroup_kind kind)
{
	struct hierarchy *h = &hierarchies[kind];
	uint32_t nobody = 0;
	uint64_t now;
	enum qy_cgroup_outcome outcome;

	if (!atomic_compare_exchange_strong_explicit(&learning, &nobody, 1, memory_order_acquire,
						     memory_order_relaxed))
		return;
	now = qy_os->now_ms();
	scratch.kind = kind;
	outcome = learn();
	if (outcome != QY_CGROUP_LATER)
		atomic_store_explicit(&h->learnt_ms, now, memory_order_relaxed);
	if (outcome == QY_CGROUP_GOT) {
		qy_lock(&lock);
		h->groups = scratch.best;
		qy_unlock(&lock);
		atomic_store_explicit(&h->state, KNOWN, memory_order_release);
	} else if (outcome == QY_CGROUP_ABSENT) {
		atomic_store_explicit(&h->state, NO_CONTROLLER, memory_order_release);
	}
	atomic_store_explicit(&learning, 0, memory_order_release);
}

void qy_cgroup_forget(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
	atomic_store_explicit(&learning, 0, memory_order_relaxed);
	for (int kind = 0; kind < QY_CGROUP_KINDS; kind++)
		atomic_store_explicit(&hierarchies[kind].state, UNKNOWN, memory_order_release);
}

/* When the group that we were in is gone, that is seen at once; when it stays without us, after STALE_MS. */
static bool is_stale(struct hierarchy *h)
{
	return atomic_load_explicit(&h->state, memory_order_acquire) == UNKNOWN ||
	       qy_os->now_ms() - atomic_load_explicit(&h->learnt_ms, memory_order_relaxed) >= STALE_MS;
}

bool qy_cgroup_known_absent(enum qy_cgroup_kind kind)
{
	struct hierarchy *h = &hierarchies[kind];

	return atomic_load_explicit(&h->state, memory_order_relaxed) == NO_CONTROLLER && !is_stale(h);
}

bool qy_cgroup_take(enum qy_cgroup_kind kind, struct qy_cgroup_groups *at)
{
	struct hierarchy *h = &hierarchies[kind];

	if (is_stale(h))
		qy_cgroup_learn(kind);
	if (atomic_load_explicit(&h->state, memory_order_acquire) != KNOWN)
		return false;
	qy_lock(&lock);
	*at = h->groups;
	qy_unlock(&lock);
	return true;
}
