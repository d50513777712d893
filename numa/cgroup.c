/* SPDX-License-Identifier: MIT */
/* Which groups the process is in, where they can be seen, and what they allow.
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
#include "numa/cgroup.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "lib/base/lock.h"
#include "numa/os.h"

#define LEVELS_MAX 16
#define PATH_SIZE 1024    /* the path of a level, with the 0; of deeper groups the levels above are looked at */
#define LEAF_SIZE 32      /* what is put behind it, with the 0: the names below */
#define TEXT_SIZE 16385   /* of mountinfo, the lines that fit */
#define NUMBER_SIZE 64    /* a file of one number */
#define STAT_SIZE 4096    /* memory.stat: what is looked for stands within its first 2 KiB */
#define NONE_FROM (UINT64_C(1) << 62)
#define STALE_MS 2000     /* a process may be moved, and nothing tells it */

/* What a hierarchy calls its files. */
struct names {
	const char *there;    /* every group has it */
	const char *limit;
	const char *high;     /* NULL: none */
	const char *usage;
	const char *stat;
	const char *inactive; /* lines of stat, with the groups below: file pages that were used once, */
	const char *active;   /* and those used again; the kernel drops both before it kills */
};

static const struct names names_v2 = {
	.there = "/cgroup.controllers",
	.limit = "/memory.max",
	.high = "/memory.high",
	.usage = "/memory.current",
	.stat = "/memory.stat",
	.inactive = "inactive_file",
	.active = "active_file",
};

static const struct names names_v1 = {
	.there = "/memory.limit_in_bytes",
	.limit = "/memory.limit_in_bytes",
	.usage = "/memory.usage_in_bytes",
	.stat = "/memory.stat",
	.inactive = "total_inactive_file",
	.active = "total_active_file",
};

struct groups {
	const struct names *names;
	uint32_t had_limit;         /* bit by level: its file of the limit could be read when this was learnt */
	int count;
	bool named;                  /* from our own group on; else only a group somewhere above it is seen */
	uint16_t length[LEVELS_MAX]; /* of the level's path; falling: the process's own group first */
	char path[PATH_SIZE + LEAF_SIZE];
};

enum outcome {
	GOT,
	ABSENT, /* it is not there, or not for us */
	LATER,  /* it could not be told now: no descriptors, no memory */
};

enum { UNKNOWN, NO_CONTROLLER, KNOWN };

static _Atomic(uint32_t) state;
static _Atomic(uint64_t) learnt_ms;                      /* when what state says was learnt */
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF); /* guards groups */
static struct groups groups;                             /* when KNOWN */

/* Who turned learning from 0 to 1 has these for itself. They are static because callers' stacks may be tiny. */
static _Atomic(uint32_t) learning;
static struct {
	char text[TEXT_SIZE];
	char own[PATH_SIZE];               /* the process's group */
	char was[PATH_SIZE];               /* the same, before the mounts were looked at */
	char probe[PATH_SIZE + LEAF_SIZE];
	struct groups now, best;
} scratch;

/* ---- reading ---------------------------------------------------------------------------------------------- */

static enum outcome read_text(const char *path, char *buffer, size_t size, size_t *length)
{
	ssize_t n = qy_os->read_file(path, buffer, size);

	if (n < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EAGAIN ? LATER : ABSENT;
	*length = (size_t)n;
	return GOT;
}

/* A file of the level whose path is the first length bytes of path; what stood behind them is overwritten. */
static enum outcome read_leaf(char *path, size_t length, const char *leaf, char *buffer, size_t size, size_t *got)
{
	qy_assert(strlen(leaf) < LEAF_SIZE && length < PATH_SIZE);
	memcpy(path + length, leaf, strlen(leaf) + 1);
	return read_text(path, buffer, size, got);
}

/* Digits and then end; a number too large is UINT64_MAX. */
static bool parse_number(const char *s, uint64_t *number)
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
static bool parse_limit(const char *s, uint64_t *limit)
{
	uint64_t n;

	*limit = UINT64_MAX;
	if (strcmp(s, "max\n") == 0 || strcmp(s, "max") == 0)
		return true;
	if (!parse_number(s, &n))
		return false;
	if (n < NONE_FROM && (sizeof(long) > 4 || n < (uint64_t)LONG_MAX * qy_os_page_size()))
		*limit = n;
	return true;
}

/* The line "name number" of a text; 0 where there is none, or where the text was cut off within it. */
static uint64_t line_of(const char *text, const char *name)
{
	const size_t length = strlen(name);
	uint64_t n = 0;

	for (const char *s = text, *end; (end = strchr(s, '\n')) != NULL; s = end + 1)
		if (strncmp(s, name, length) == 0 && s[length] == ' ')
			return parse_number(s + length + 1, &n) ? n : 0;
	return 0;
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

	if (n >= PATH_SIZE)
		for (n = PATH_SIZE - 1; n > 0 && path[n] != '/'; n--)
			;
	memcpy(scratch.own, path, n);
	scratch.own[n] = 0;
}

/* Lines are "number:controllers:path", with no controllers for v2. Where v1 has the memory controller, v2 cannot. */
static const struct names *find_own(char *text)
{
	const struct names *names = NULL;
	char *line;

	while ((line = take_line(&text)) != NULL) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(++controllers, ':') : NULL;
		if (!path || path[1] != '/')
			continue;
		*path++ = 0;
		if (has_word(controllers, "memory", ",")) {
			keep_own(path);
			return &names_v1;
		}
		if (strcmp(line, "0:") == 0 && *controllers == 0) {
			keep_own(path);
			names = &names_v2;
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
static enum outcome probe(size_t length, bool *controlled)
{
	struct groups *now = &scratch.now;
	char buffer[256];
	uint64_t limit;
	size_t got;
	enum outcome outcome;

	if (now->count == LEVELS_MAX)
		return ABSENT;
	outcome = read_leaf(scratch.probe, length, now->names->there, buffer, sizeof(buffer), &got);
	if (outcome != GOT)
		return outcome;
	if (now->names == &names_v1 || has_word(buffer, "memory", " \n"))
		*controlled = true;
	outcome = read_leaf(scratch.probe, length, now->names->limit, buffer, sizeof(buffer), &got);
	if (outcome == LATER)
		return LATER;
	if (outcome == GOT && parse_limit(buffer, &limit))
		now->had_limit |= 1u << now->count;
	now->length[now->count++] = (uint16_t)length;
	return GOT;
}

/* Before Linux 5.11 a v1 group could be told not to count the groups below it: then neither it nor what is above
 * limits them. */
static enum outcome counts_children(size_t length, bool *counts)
{
	char buffer[NUMBER_SIZE];
	size_t got;
	enum outcome outcome = ABSENT;

	if (scratch.now.names == &names_v1)
		outcome = read_leaf(scratch.probe, length, "/memory.use_hierarchy", buffer, sizeof(buffer), &got);
	*counts = outcome != GOT || strcmp(buffer, "0\n") != 0;
	return outcome;
}

/* Look for groups from where our own is in the mount up to the mount's root. What is found becomes scratch.best if it
 * is more than that. */
static enum outcome walk(const struct names *names, const char *root, const char *mount)
{
	struct groups *now = &scratch.now, *best = &scratch.best;
	size_t base = strlen(mount), length, n;
	bool controlled = false, counts = true, named;
	const char *rest = below(root, scratch.own, &named);

	while (base > 0 && mount[base - 1] == '/')
		base--;
	if (!rest || base >= PATH_SIZE)
		return ABSENT;
	memset(now, 0, sizeof(*now));
	now->names = names;
	now->named = named;
	memcpy(now->path, mount, base);
	length = base;
	for (; (n = component(&rest)) != 0 && length + 1 + n < PATH_SIZE; rest += n) {
		now->path[length++] = '/';
		memcpy(now->path + length, rest, n);
		length += n;
	}
	memcpy(scratch.probe, now->path, length);
	for (;;) {
		if (probe(length, &controlled) == LATER)
			return LATER;
		if (length == base)
			break;
		while (scratch.probe[--length] != '/')
			;
		if (counts_children(length, &counts) == LATER)
			return LATER;
		if (!counts)
			break;
	}
	if (controlled && (now->named == best->named ? now->count > best->count : now->named || best->count == 0))
		*best = *now;
	return GOT;
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
static enum outcome look_at_mount(const struct names *names, char *line)
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
		return ABSENT;
	if (names == &names_v2 ? strcmp(type, "cgroup2") != 0 :
				 strcmp(type, "cgroup") != 0 || !has_word(options, "memory", ","))
		return ABSENT;
	unescape(root);
	unescape(mount);
	return walk(names, root, mount);
}

/* The hierarchy that has the memory controller, and scratch.own. */
static enum outcome learn_own(const struct names **names)
{
	size_t length;
	enum outcome outcome = read_text("/proc/self/cgroup", scratch.text, TEXT_SIZE, &length);

	if (outcome != GOT)
		return outcome;
	*names = find_own(scratch.text);
	return *names ? GOT : ABSENT;
}

/* The same hierarchy may be mounted in several places, each showing another part of it, and a mount may lie hidden
 * under a later one: all are tried, and the one that shows most of what is around our own group is taken. */
static enum outcome learn_mount(const struct names *names)
{
	char *text = scratch.text, *line;
	size_t length = 0;
	enum outcome outcome = read_text("/proc/self/mountinfo", scratch.text, TEXT_SIZE, &length);

	if (outcome == LATER)
		return LATER;
	memset(&scratch.best, 0, sizeof(scratch.best));
	while (outcome == GOT && (line = take_line(&text)) != NULL)
		if (look_at_mount(names, line) == LATER)
			return LATER;
	/* Not all mounts were seen: it may be where everybody has it. */
	if (scratch.best.count == 0 && (outcome != GOT || length == TEXT_SIZE - 1)) {
		const char *mount = names == &names_v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
		if (walk(names, "/", mount) == LATER)
			return LATER;
	}
	return scratch.best.count ? GOT : ABSENT;
}

/* A process that is moved meanwhile must not be left with the traces of a group that is gone: what was found counts
 * only if we were in that group to the end, for a group with a process in it cannot be removed. (One that was moved away
 * and back is not told from one that stayed; what is wrong then is mended when it is stale.) */
static enum outcome learn(void)
{
	const struct names *names, *still;
	enum outcome found, outcome = learn_own(&names);

	if (outcome != GOT)
		return outcome;
	strcpy(scratch.was, scratch.own);
	found = learn_mount(names);
	if (found == LATER || learn_own(&still) != GOT || still != names || strcmp(scratch.was, scratch.own) != 0)
		return LATER;
	return found;
}

/* Nothing is learnt when another thread is at it, or when it could not be told now. */
static QY_COLD void learn_alone(void)
{
	uint32_t nobody = 0;
	uint64_t now;
	enum outcome outcome;

	if (!atomic_compare_exchange_strong_explicit(&learning, &nobody, 1, memory_order_acquire,
						     memory_order_relaxed))
		return;
	now = qy_os->now_ms();
	outcome = learn();
	if (outcome != LATER)
		atomic_store_explicit(&learnt_ms, now, memory_order_relaxed);
	if (outcome == GOT) {
		qy_lock(&lock);
		groups = scratch.best;
		qy_unlock(&lock);
		atomic_store_explicit(&state, KNOWN, memory_order_release);
	} else if (outcome == ABSENT) {
		atomic_store_explicit(&state, NO_CONTROLLER, memory_order_release);
	}
	atomic_store_explicit(&learning, 0, memory_order_release);
}

void qy_cgroup_forget(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
	atomic_store_explicit(&learning, 0, memory_order_relaxed);
	atomic_store_explicit(&state, UNKNOWN, memory_order_release);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

/* False when the file cannot be read or makes no sense; then errno is ENOENT or ENODEV if its group is gone. */
static bool read_limit(char *path, size_t length, const char *leaf, uint64_t *limit)
{
	char buffer[NUMBER_SIZE];
	size_t got;

	errno = 0;
	return read_leaf(path, length, leaf, buffer, sizeof(buffer), &got) == GOT && parse_limit(buffer, limit);
}

static QY_NOINLINE bool read_usage(const struct names *names, char *path, size_t length, uint64_t *usage)
{
	char buffer[STAT_SIZE];
	uint64_t file = 0;
	size_t got;

	if (read_leaf(path, length, names->usage, buffer, NUMBER_SIZE, &got) != GOT || !parse_number(buffer, usage))
		return false;
	if (read_leaf(path, length, names->stat, buffer, sizeof(buffer), &got) == GOT)
		file = line_of(buffer, names->inactive) + line_of(buffer, names->active);
	/* The two files are not of one moment, and a counter may lag. */
	*usage = file < *usage ? *usage - file : 0;
	return true;
}

/* Levels are taken from below, so that each finds its own part of the path intact. *gone: one that was there is not. */
static bool look(struct groups *at, bool with_high, uint64_t *limit, uint64_t *usage, bool *gone)
{
	uint64_t least = UINT64_MAX;
	bool found = false;

	*gone = false;
	for (int i = 0; i < at->count; i++) {
		const size_t length = at->length[i];
		uint64_t max, high, used, room;

		if (!read_limit(at->path, length, at->names->limit, &max)) {
			if ((at->had_limit >> i & 1) && (errno == ENOENT || errno == ENODEV))
				*gone = true;
			continue;
		}
		if (with_high && at->names->high && read_limit(at->path, length, at->names->high, &high) && high < max)
			max = high;
		if (max == UINT64_MAX || !read_usage(at->names, at->path, length, &used))
			continue;
		room = used < max ? max - used : 0;
		if (found && (room > least || (room == least && max >= *limit)))
			continue;
		found = true;
		least = room;
		*limit = max;
		*usage = used;
	}
	return found;
}

/* When the group that we were in is gone, that is seen at once; when it stays without us, after STALE_MS. */
static bool is_stale(void)
{
	return atomic_load_explicit(&state, memory_order_acquire) == UNKNOWN ||
	       qy_os->now_ms() - atomic_load_explicit(&learnt_ms, memory_order_relaxed) >= STALE_MS;
}

static bool take_groups(struct groups *at)
{
	if (is_stale())
		learn_alone();
	if (atomic_load_explicit(&state, memory_order_acquire) != KNOWN)
		return false;
	qy_lock(&lock);
	*at = groups;
	qy_unlock(&lock);
	return true;
}

/* A frame of its own, so that a process without a controller does not pay for the copy of the path. */
static QY_NOINLINE bool ask(bool with_high, uint64_t *limit, uint64_t *usage)
{
	uint64_t its_limit = 0, its_usage = 0;
	struct groups at;
	bool found, gone;

	if (!take_groups(&at))
		return false;
	found = look(&at, with_high, &its_limit, &its_usage, &gone);
	if (gone) {
		learn_alone();
		if (!take_groups(&at))
			return false;
		found = look(&at, with_high, &its_limit, &its_usage, &gone);
	}
	if (found) {
		*limit = its_limit;
		*usage = its_usage;
	}
	return found;
}

static bool ask_quietly(bool with_high, uint64_t *limit, uint64_t *usage)
{
	const int saved = errno;
	bool found;

	if (atomic_load_explicit(&state, memory_order_relaxed) == NO_CONTROLLER && !is_stale())
		return false;
	found = ask(with_high, limit, usage);
	errno = saved;
	return found;
}

bool qy_cgroup_memory(uint64_t *limit, uint64_t *usage)
{
	return ask_quietly(false, limit, usage);
}

bool qy_cgroup_memory_with_high(uint64_t *limit, uint64_t *usage)
{
	return ask_quietly(true, limit, usage);
}
