/* SPDX-License-Identifier: MIT */
#include "numa/thp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/lock.h"
#include "lib/base/place.h"
#include "numa/os.h"
#include "numa/topology.h"

#define SYSFS "/sys/kernel/mm/transparent_hugepage/"
#define SETTINGS_MS 10000
#define ROOM_MS 100
#define BUDDYINFO_MAX 8192 /* some eighty zones: of nodes beyond, nothing is known */
#define MARGIN ((uint64_t)32 << 20) /* left for others; and a sixteenth */
#define FEW_PAGES 32       /* brought back by khugepaged, of 512, and not worth a word */

/* The settings in one word, so that it is written and read whole. */
enum {
	READ = 1,
	POSSIBLE = 2,
	UNASKED = 4,
	STALLS = 8,
	STALLS_ALL = 16,
	SMALLER = 32,
	REFILLS = 64,
	SHARED = 128,
	SHARED_UNASKED = 256,
};

static _Atomic(uint32_t) settings;
static _Atomic(uint64_t) settings_due; /* ms */

/* Of nodes, by dense number: bytes that were free and what was promised of them. */
static _Atomic(uint64_t) room_due;
static _Atomic(uint64_t) room[QY_NODES_MAX], promised[QY_NODES_MAX];
/* Who reads, with room for it (a program's thread may have little stack). Nobody waits for this lock: others go by what
 * was. */
static struct qy_lock reading = QY_LOCK_INIT(QY_RANK_LEAF);
static char text[BUDDYINFO_MAX];
static uint64_t sums[QY_NODES_MAX];

/* ---- settings ---- */

static uint64_t take_number(const char **at)
{
	uint64_t n = 0;

	while (**at == ' ')
		++*at;
	for (; **at >= '0' && **at <= '9'; ++*at)
		n = n * 10 + (uint64_t)(**at - '0');
	return n;
}

/* The word in brackets, of the choices in a file: "always [madvise] never". False when there is none. */
static bool read_choice(const char *path, char *word, size_t size)
{
	char line[128], *start, *end;

	if (qy_os->read_file(path, line, sizeof(line)) <= 0)
		return false;
	start = strchr(line, '[');
	end = start != NULL ? strchr(start, ']') : NULL;
	if (end == NULL || (size_t)(end - start) > size)
		return false;
	memcpy(word, start + 1, (size_t)(end - start - 1));
	word[end - start - 1] = 0;
	return true;
}

static uint64_t read_number(const char *path, uint64_t otherwise)
{
	char line[32];
	const char *at = line;

	if (qy_os->read_file(path, line, sizeof(line)) <= 0 || *at < '0' || *at > '9')
		return otherwise;
	return take_number(&at);
}

/* What holds for pages of so many KiB. Where the sizes have no settings of their own (before Linux 6.8), there is one
 * size. */
static bool read_size(unsigned kib, const char *which, char *word, size_t size, const char *of_all)
{
	char path[96];

	snprintf(path, sizeof(path), SYSFS "hugepages-%ukB/%s", kib, which);
	if (!read_choice(path, word, size))
		return false;
	if (strcmp(word, "inherit") == 0)
		snprintf(word, size, "%s", of_all);
	return true;
}

static bool smaller_come(const char *of_all)
{
	char word[16];

	for (unsigned kib = (unsigned)(qy_os_page_size() >> 10) * 2; kib < QY_FRAME >> 10; kib *= 2)
		if (read_size(kib, "enabled", word, sizeof(word), of_all) && strcmp(word, "always") == 0)
			return true;
	return false;
}

/* Who waits, by `defrag`: see "Transparent Hugepage Support" in the kernel's documentation. */
static uint32_t read_defrag(void)
{
	char word[16];

	if (!read_choice(SYSFS "defrag", word, sizeof(word)))
		return STALLS | STALLS_ALL;
	return strcmp(word, "always") == 0                                        ? STALLS | STALLS_ALL
	       : strcmp(word, "madvise") == 0 || strcmp(word, "defer+madvise") == 0 ? STALLS
										     : 0;
}

/* Of memory in files, which has settings of its own, since Linux 4.8 for all sizes and since 6.11 for each. */
static uint32_t read_shared(void)
{
	char of_all[16], word[16];

	if (!read_choice(SYSFS "shmem_enabled", of_all, sizeof(of_all)))
		return 0;
	/* What the first file says of these holds whatever the other one does. */
	if (strcmp(of_all, "deny") == 0)
		return 0;
	if (strcmp(of_all, "force") == 0 ||
	    !read_size(QY_FRAME >> 10, "shmem_enabled", word, sizeof(word), of_all))
		strcpy(word, of_all);
	if (strcmp(word, "never") == 0)
		return 0;
	return strcmp(word, "advise") == 0 ? SHARED : SHARED | SHARED_UNASKED;
}

static uint32_t read_settings(void)
{
	int disabled = qy_os->thp_disabled();
	char of_all[16], word[16];
	uint32_t s = READ;

	if (read_number(SYSFS "hpage_pmd_size", QY_FRAME) != QY_FRAME)
		return s;
	if (disabled != 1)
		s |= read_shared();
	if (!read_choice(SYSFS "enabled", of_all, sizeof(of_all)))
		return s | POSSIBLE | UNASKED | STALLS | STALLS_ALL | REFILLS;
	if (!read_size(QY_FRAME >> 10, "enabled", word, sizeof(word), of_all))
		strcpy(word, of_all);
	s |= read_defrag();
	if (strcmp(word, "never") != 0 && disabled != 1)
		s |= POSSIBLE;
	if (strcmp(word, "always") == 0 && disabled <= 0)
		s |= UNASKED;
	if ((s & UNASKED) && smaller_come(of_all))
		s |= SMALLER;
	if (read_number(SYSFS "khugepaged/max_ptes_none", QY_FRAME_PAGES - 1) > FEW_PAGES)
		s |= REFILLS;
	return s;
}

struct qy_thp qy_thp_get(void)
{
	uint64_t now = qy_os->now_ms(), due = atomic_load_explicit(&settings_due, memory_order_relaxed);
	uint32_t s = atomic_load_explicit(&settings, memory_order_relaxed);
	int error = errno;

	/* One reads, others go by what was; at the very first, each reads for itself. */
	if (!(s & READ) || (now >= due && atomic_compare_exchange_strong(&settings_due, &due, now + SETTINGS_MS))) {
		s = read_settings();
		atomic_store_explicit(&settings, s, memory_order_relaxed);
		if (due == 0)
			atomic_store_explicit(&settings_due, now + SETTINGS_MS, memory_order_relaxed);
		errno = error;
	}
	return (struct qy_thp){
		.possible = s & POSSIBLE,
		.unasked = s & UNASKED,
		.stalls = s & STALLS,
		.stalls_all = s & STALLS_ALL,
		.smaller = s & SMALLER,
		.refills = s & REFILLS,
		.shared = s & SHARED,
		.shared_unasked = s & SHARED_UNASKED,
	};
}

/* ---- room ---- */

/* "Node 0, zone   Normal    491   2168 ...": free blocks by order, from one page up. */
static void add_line(const char *at, const char *end)
{
	unsigned huge_order = qy_log2_floor(QY_FRAME / qy_min(qy_os_page_size(), QY_FRAME));
	uint64_t bytes = 0;
	int dense;

	if (strncmp(at, "Node ", 5) != 0)
		return;
	at += 5;
	dense = (int)qy_min(take_number(&at), QY_NODES_MAX);
	dense = qy_nodes_made_up() ? 0 : qy_node_dense(dense);
	at = strstr(at, "zone ");
	if (at == NULL || at > end || dense < 0)
		return;
	at += 5;
	while (*at == ' ')
		at++;
	while (*at != ' ' && at < end)
		at++;
	for (unsigned order = 0; at < end; order++) {
		uint64_t n = take_number(&at);

		if (order >= huge_order)
			bytes += (n * qy_os_page_size()) << order;
		while (at < end && (*at < '0' || *at > '9'))
			at++;
	}
	sums[dense] += bytes;
}

/* A last line that was cut off is not counted. */
static QY_COLD void read_room(void)
{
	const char *line = text, *end;
	int error = errno;

	memset(sums, 0, (size_t)qy_node_count() * sizeof(sums[0]));
	if (qy_os->read_file("/proc/buddyinfo", text, sizeof(text)) > 0)
		for (; (end = strchr(line, '\n')) != NULL; line = end + 1)
			add_line(line, end);
	for (int i = 0; i < qy_node_count(); i++) {
		uint64_t margin = MARGIN + sums[i] / 16;

		atomic_store_explicit(&room[i], sums[i] > margin ? sums[i] - margin : 0, memory_order_relaxed);
		/* What was promised a moment ago may not be touched yet. */
		atomic_store_explicit(&promised[i], atomic_load_explicit(&promised[i], memory_order_relaxed) / 2,
				      memory_order_relaxed);
	}
	errno = error;
}

uint64_t qy_thp_room(int dense, bool of_promised)
{
	uint64_t now = qy_os->now_ms(), due = atomic_load_explicit(&room_due, memory_order_relaxed), left, less;

	if (dense < 0 || dense >= qy_node_count())
		return 0;
	if (now >= due && qy_trylock(&reading)) {
		atomic_store_explicit(&room_due, now + ROOM_MS, memory_order_relaxed);
		read_room();
		qy_unlock(&reading);
	}
	left = atomic_load_explicit(&room[dense], memory_order_relaxed);
	less = of_promised ? 0 : atomic_load_explicit(&promised[dense], memory_order_relaxed);
	return left > less ? left - less : 0;
}

void qy_thp_promise(int dense, uint64_t bytes)
{
	if (dense >= 0 && dense < qy_node_count())
		atomic_fetch_add_explicit(&promised[dense], bytes, memory_order_relaxed);
}

void qy_thp_forget(void)
{
	atomic_store(&settings, 0);
	atomic_store(&settings_due, 0);
	atomic_store(&room_due, 0);
	for (int i = 0; i < QY_NODES_MAX; i++)
		atomic_store(&promised[i], 0);
}
