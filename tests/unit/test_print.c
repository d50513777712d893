/* SPDX-License-Identifier: MIT */
/* The printers: exact figures, names that would break a table or a JSON string, thousands of arenas, descriptors that
 * fail, block and are interrupted; and the text module under them against the C library's printf. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/view/print.h"
#include "tests/unit/fake_stats.h"

static uint64_t state;

static uint64_t next(void) /* splitmix64 */
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* SEED in the environment repeats a run. */
static void seed(const char *test)
{
	state = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 20251;
	fprintf(stderr, "%s: SEED=%llu\n", test, (unsigned long long)state);
}

/* All that quarry_stats_print writes, in memory that the caller frees. */
static char *print(int json, size_t *length)
{
	int fd = memfd_create("print", 0);
	char *text;

	cr_assert(fd >= 0);
	cr_assert_eq(quarry_stats_print(fd, json), 0);
	*length = (size_t)lseek(fd, 0, SEEK_END);
	text = malloc(*length + 1);
	cr_assert_eq(pread(fd, text, *length, 0), (ssize_t)*length);
	text[*length] = '\0';
	close(fd);
	return text;
}

/* ------------------------------------------------------------------------------------------------------ */
/* A strict reader of JSON, after RFC 8259: where what starts at s ends, or NULL when it is not JSON.       */

static const char *json_value(const char *s);

static const char *json_space(const char *s)
{
	return s + strspn(s, " \t\r\n");
}

static const char *json_string_end(const char *s)
{
	if (*s++ != '"')
		return NULL;
	while (*s != '"') {
		unsigned char c = (unsigned char)*s;
		int more;
		if (c < 0x20)
			return NULL;
		if (c == '\\') {
			if (s[1] == 'u' && strspn(s + 2, "0123456789abcdefABCDEF") >= 4)
				s += 6;
			else if (s[1] && strchr("\"\\/bfnrt", s[1]))
				s += 2;
			else
				return NULL;
			continue;
		}
		more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : -1;
		if (more < 0 || (c == 0xe0 && (unsigned char)s[1] < 0xa0) || (c == 0xed && (unsigned char)s[1] >= 0xa0) ||
		    (c == 0xf0 && (unsigned char)s[1] < 0x90) || (c == 0xf4 && (unsigned char)s[1] >= 0x90))
			return NULL;
		for (s++; more > 0; more--, s++) {
			if (((unsigned char)*s & 0xc0) != 0x80)
				return NULL;
		}
	}
	return s + 1;
}

static const char *json_members(const char *s, char end)
{
	s = json_space(s + 1);
	if (*s == end)
		return s + 1;
	for (;;) {
		if (end == '}') {
			s = json_string_end(s);
			s = s ? json_space(s) : NULL;
			if (!s || *s++ != ':')
				return NULL;
		}
		s = json_value(s);
		s = s ? json_space(s) : NULL;
		if (!s || (*s != ',' && *s != end))
			return NULL;
		if (*s++ == end)
			return s;
		s = json_space(s);
	}
}

static const char *json_value(const char *s)
{
	s = json_space(s);
	if (*s == '{' || *s == '[')
		return json_members(s, *s == '{' ? '}' : ']');
	if (*s == '"')
		return json_string_end(s);
	s += *s == '-';
	if (*s == '0')
		return s + 1;
	return *s >= '1' && *s <= '9' ? s + strspn(s, "0123456789") : NULL;
}

static bool is_json(const char *text)
{
	const char *end = json_value(text);

	return end && *json_space(end) == '\0';
}

Test(json_reader, can_fail)
{
	static const char *const bad[] = { "", "{", "{\"a\":1,}", "[1 2]", "{\"a\" 1}", "\"a\nb\"", "\"\\x\"", "\"\xff\"",
					   "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\xe0\x80\x80\"", "01", "{}x", "{a:1}", "[1,]" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_not(is_json(bad[i]), "%s", bad[i]);
	cr_assert(is_json(" {\"a\":[1,-2,{}],\"\\u00e9\":\"\xc3\xa9\"}\n"));
}

/* ------------------------------------------------------------------------------------------------------ */
/* Figures                                                                                                */

static void set_total(void)
{
	fake_total = (quarry_stats){
		.version = QUARRY_STATS_VERSION, .node = -1, .arenas = 3, .regions = 7, .mapped = 100 << 20,
		.resident = 80 << 20, .in_use = 60 << 20, .cached = 1536, .free_dirty = 3 << 20, .free_clean = 5 << 20,
		.large = 1 << 20, .metadata = 1 << 20, .unplaced = 8 << 20, .peak_mapped = 200 << 20, .refills = 11,
		.remote_frees = 12, .node_moves = 13, .purges = 14, .purged = 15 << 10, .passes = 16, .adopted = 17,
		.bad_frees = 18, .threads = 1, .reclaimer = 1, .reclaimed_by = QUARRY_RECLAIMER_THREAD,
	};
	fake_total.kind_wanted[QUARRY_PAGES_2M] = 96 << 20;
	fake_total.kind_got[QUARRY_PAGES_THP] = 64 << 20;
	fake_total.refused[QUARRY_REFUSED_MBIND_EPERM] = 4;
	fake_total.refused[QUARRY_REFUSED_HUGE_2M] = 1;
}

#define assert_has(text, part) cr_assert(strstr(text, part), "no \"%s\" in:\n%s", part, text)
#define assert_lacks(text, part) cr_assert_not(strstr(text, part), "\"%s\" in:\n%s", part, text)

static void assert_columns(const char *text)
{
	for (const char *line = text; *line;) {
		const char *end = strchr(line, '\n');
		cr_assert(end, "the last line does not end");
		cr_assert_leq(end - line, 80, "%d columns: %.*s", (int)(end - line), (int)(end - line), line);
		cr_assert(end == line || end[-1] != ' ', "a space at the end: %.*s", (int)(end - line), line);
		line = end + 1;
	}
}

Test(text, says_the_figures)
{
	size_t length;
	char *text;

	set_total();
	fake_arena("node 0", 0)->mapped = 90 << 20;
	fake_arenas[0].kind_got[QUARRY_PAGES_THP] = 6 << 20;
	fake_arena("", -1)->mapped = 10 << 20;
	fake_arena("unused", -1);
	fake_arena("gone", -1)->mapped = 1;
	fake_gone[3] = true;
	text = print(0, &length);
	assert_has(text, "quarry 9.8.7: 3 arenas, 7 regions, 1 thread\n");
	assert_has(text, "  mapped     100.0 MiB   at most 200.0 MiB so far\n");
	assert_has(text, "  resident   80.0 MiB ");
	assert_has(text, "  in use     60.0 MiB    1.0 MiB of it in large blocks\n");
	assert_has(text, "  cached     1.5 KiB ");
	assert_has(text, "  free       8.0 MiB     3.0 MiB of it still in memory\n");
	assert_has(text, "  metadata   1.0 MiB     1.0 % of what is mapped\n");
	assert_has(text, "  unplaced   8.0 MiB ");
	assert_has(text, "  thp           0    64M  transparent");
	assert_has(text, "  2m          96M      0  hugetlb");
	assert_lacks(text, "  1g  ");
	assert_has(text, "refills                 11");
	assert_has(text, "passes                  16  of the reclaimer, whose thread is running\n");
	assert_has(text, "purged                 15K");
	assert_has(text, "bad frees               18  of what was not live: on_error");
	assert_has(text, "  mbind-eperm   4 times\n    ");
	assert_has(text, "CAP_SYS_NICE");
	assert_has(text, "  huge-2m       1 time\n");
	assert_lacks(text, "huge-1g");
	assert_has(text, "\nnode 0                        0     90M       0       0       0       0    6.0M\n");
	assert_has(text, "\n(no name)                     -     10M");
	assert_has(text, "\nand 1 empty one\n");
	assert_lacks(text, "gone");
	assert_lacks(text, "no memory\n");
	assert_columns(text);
	free(text);

	memset(&fake_total, 0, sizeof(fake_total));
	fake_arena_count = 0;
	text = print(0, &length);
	assert_has(text, "refused\n  nothing\n");
	assert_lacks(text, "unplaced");
	assert_columns(text);
	free(text);
}

Test(text, stays_in_80_columns_with_the_largest_figures)
{
	size_t length;
	char *text;
	quarry_stats *s = fake_arena("0123456789012345678901234567890x", 1023);

	for (const struct qy_figure *f = qy_figure(0); f < qy_figure(0) + 28; f++) {
		*(uint64_t *)((char *)s + f->offset) = UINT64_MAX;
		*(uint64_t *)((char *)&fake_total + f->offset) = 999999999999;
	}
	for (int i = 0; i < QY_PAGE_KINDS; i++)
		fake_total.kind_got[i] = fake_total.kind_wanted[i] = UINT64_MAX;
	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++)
		fake_total.refused[i] = 999999999999;
	fake_total.arenas = 65000;
	fake_total.regions = fake_total.threads = 1000000;
	text = print(0, &length);
	assert_has(text, "0123456789012345678901234~ 1023     15E");
	assert_columns(text);
	free(text);
}

/* All fields of the struct, in the total and in each arena. */
Test(json, says_the_figures)
{
	static const char *const fields[] = {
		"name", "node", "arenas", "regions", "mapped", "resident", "in_use", "cached", "free_dirty", "free_clean",
		"large", "metadata", "kind_wanted", "kind_got", "unplaced", "hard_limit", "soft_limit", "peak_mapped",
		"refills", "remote_frees", "node_moves", "purges", "purged", "passes", "adopted", "bad_frees", "threads",
		"reclaimer", "placed_less", "strayed", "brought_home", "moved", "idle_given_up", "idle_refused", "collapsed",
		"collapse_failed", "split", "advised_apart", "mixed", "decay", "reclaimed_by",
		"in_files", "pass_ns", "collapse_ns", "purge_ns", "minor_faults", "major_faults",
	};
	size_t length;
	char *text;

	set_total();
	fake_arena("node 3", 3)->mapped = 4242;
	fake_arenas[0].kind_got[QUARRY_PAGES_1G] = 4343;
	text = print(1, &length);
	cr_assert(is_json(text), "%s", text);
	assert_has(text, "{\"quarry\":\"9.8.7\",\"version\":4,");
	assert_has(text, "\"process\":{\"pid\":4711,\"name\":\"a \\\"name\\\"\"},");
	assert_has(text, "\"total\":{\"name\":\"\",\"node\":-1,\"arenas\":3,\"regions\":7,\"mapped\":104857600,");
	assert_has(text, "\"kind_wanted\":{\"auto\":0,\"base\":0,\"thp\":0,\"2m\":100663296,\"1g\":0}");
	assert_has(text, "\"refused\":{\"mbind-eperm\":4,\"mbind-enosys\":0,");
	assert_has(text, "\"huge-2m\":1,");
	assert_has(text, "{\"name\":\"node 3\",\"node\":3,\"arenas\":0,\"regions\":0,\"mapped\":4242,");
	assert_has(text, "\"1g\":4343},\"policy\":\"local\",\"kind\":\"auto\",\"strict\":0,\"nodes\":[],\"on_nodes\":[]}]}");
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		char key[64];
		snprintf(key, sizeof(key), "\"%s\":", fields[i]);
		cr_assert(strstr(text, key) && strstr(strstr(text, "\"arenas\":["), key), "%s is missing", key);
	}
	free(text);
}

/* Two arenas on a machine of five nodes: one where it was asked to be, one that strayed, in part who knows where. */
static void set_placement(void)
{
	fake_node_count = 5;
	fake_arena("home", 65)->mapped = 8 << 20;
	fake_residency_count[0] = 1;
	fake_residencies[0][0] = (quarry_residency){ .node = 65, .bytes = 6 << 20 };
	fake_residencies[0][0].by_kind[QUARRY_PAGES_THP] = 6 << 20;
	fake_arena("abroad", -1)->mapped = 8 << 20;
	fake_asked[1] = (struct qy_asked){ .policy = QUARRY_POLICY_BIND, .kind = QUARRY_PAGES_2M,
					   .flags = QUARRY_ARENA_STRICT, .bind = true };
	quarry_nodeset_add(&fake_asked[1].nodes, 1);
	quarry_nodeset_add(&fake_asked[1].nodes, 1000);
	fake_residency_count[1] = 2;
	fake_residencies[1][0] = (quarry_residency){ .node = QUARRY_NODE_UNKNOWN, .bytes = 4096 };
	fake_residencies[1][0].by_kind[QUARRY_PAGES_AUTO] = 4096;
	fake_residencies[1][1] = (quarry_residency){ .node = 0, .bytes = 3 << 20, .strayed = 2 << 20 };
	fake_residencies[1][1].by_kind[QUARRY_PAGES_BASE] = 1 << 20;
	fake_residencies[1][1].by_kind[QUARRY_PAGES_2M] = 2 << 20;
}

Test(json, says_where_memory_is)
{
	size_t length;
	char *text;

	set_placement();
	text = print(1, &length);
	cr_assert(is_json(text), "%s", text);
	assert_has(text, "\n{\"id\":0,\"index\":0,\"has_cpus\":1,\"has_memory\":1,\"allowed\":1,\"cpus\":\"0-3,8\","
			 "\"memory_total\":1073741824,\"memory_free\":1048576,\"huge_free_2m\":3,\"huge_total_2m\":7,"
			 "\"huge_free_1g\":1,\"huge_total_1g\":2,\"distance\":[10,21,22,23,24]}");
	assert_has(text, "\n{\"id\":65,\"index\":-1,\"has_cpus\":1,\"has_memory\":1,\"allowed\":0,\"cpus\":\"\",");
	assert_has(text, "\"distance\":[24,25,26,27,10]}],");
	assert_has(text, "\"on_nodes\":[{\"node\":65,\"bytes\":6291456,\"by_kind\":{\"auto\":0,\"base\":0,\"thp\":6291456,"
			 "\"2m\":0,\"1g\":0},\"strayed\":0}]}");
	assert_has(text, "\"policy\":\"bind\",\"kind\":\"2m\",\"strict\":1,\"nodes\":[1,1000],\"on_nodes\":[{\"node\":-2,"
			 "\"bytes\":4096,\"by_kind\":{\"auto\":4096,\"base\":0,\"thp\":0,\"2m\":0,\"1g\":0},\"strayed\":0},"
			 "{\"node\":0,\"bytes\":3145728,");
	assert_has(text, "\"strayed\":2097152}]}");
	cr_assert_eq(fake_lists, 0, "a list was not put");
	free(text);
}

Test(text, says_where_memory_is_on_several_nodes)
{
	size_t length;
	char *text;

	set_placement();
	fake_total.strayed = 2 << 20;
	fake_total.placed_less = 8 << 20;
	fake_total.brought_home = 3 << 20;
	text = print(0, &length);
	assert_has(text, "\nin memory on nodes         node   bytes    base     thp hugetlb  untold strayed\n");
	assert_has(text, "\nhome                         65    6.0M       0    6.0M       0       0       0\n");
	assert_has(text, "\nabroad                        ?    4.0K       0       0       0    4.0K       0\n");
	assert_has(text, "\n                              0    3.0M    1.0M       0    2.0M       0    2.0M\n");
	assert_has(text, "  strayed    2.0 MiB ");
	assert_has(text, "  placed     8.0 MiB ");
	assert_has(text, "brought home          3.0M");
	assert_columns(text);
	cr_assert_eq(fake_lists, 0, "a list was not put");
	free(text);
	fake_node_count = 1;
	text = print(0, &length);
	assert_lacks(text, "in memory on nodes");
	free(text);
}

Test(json, is_valid_whatever_the_names_are)
{
	static const char *const names[] = { "quote\" back\\slash", "tab\tline\nbell\a\x1f\x7f", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
					     "\xff\xfe bad", "\xc0\xaf overlong", "\xed\xa0\x80 surrogate", "cut \xe2\x82",
					     "\xf4\x90\x80\x80", "</script>", "0123456789012345678901234567890\xc3\xa9" };
	size_t length;
	char *text;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		fake_arena(names[i], -1)->mapped = 1;
	for (int c = 1; c < 256; c++)
		fake_arena((char[]){ (char)c, 'x', (char)c, '\0' }, -1)->mapped = 1;
	text = print(1, &length);
	cr_assert(is_json(text));
	assert_has(text, "\"quote\\\" back\\\\slash\"");
	assert_has(text, "\"tab\\u0009line\\u000abell\\u0007\\u001f\\u007f\"");
	assert_has(text, "\"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"");
	assert_has(text, "\"\\ufffd\\ufffd bad\"");
	assert_has(text, "\"cut \\ufffd\\ufffd\"");
	assert_has(text, "\"0123456789012345678901234567890\\ufffd\"");
	free(text);
	text = print(0, &length);
	cr_assert_eq(strlen(text), length);
	assert_has(text, "\ntab?line?bell??? ");
	free(text);
}

static size_t count_of(const char *text, const char *part)
{
	size_t n = 0;

	for (; (text = strstr(text, part)) != NULL; text++)
		n++;
	return n;
}

Test(both, thousands_of_arenas)
{
	size_t length;
	char name[40], *text;

	for (int i = 0; i < 4500; i++) {
		snprintf(name, sizeof(name), "arena-%d", i);
		fake_arena(name, -1)->mapped = i % 3 ? 1 : 0;
	}
	text = print(1, &length);
	cr_assert(is_json(text));
	cr_assert_eq(count_of(text, "{\"name\":\"arena-"), 4500);
	assert_has(text, "\"arenas_not_listed\":0,");
	free(text);
	text = print(0, &length);
	cr_assert_eq(count_of(text, "\narena-"), 3000);
	assert_has(text, "\nand 1500 empty ones\n");
	free(text);
	cr_assert_eq(fake_mappings, 0, "the list's mapping was left");

	fake_mmap_refused = true;
	text = print(1, &length);
	cr_assert(is_json(text));
	cr_assert_eq(count_of(text, "{\"name\":\"arena-"), 128);
	assert_has(text, "\"arenas_not_listed\":4372,");
	free(text);
	text = print(0, &length);
	assert_has(text, "\nand 4372 for whose list there was no memory\n");
	free(text);
	fake_arena_count = 128;
	text = print(1, &length);
	cr_assert_eq(count_of(text, "{\"name\":\"arena-"), 128);
	assert_has(text, "\"arenas_not_listed\":0,");
	free(text);
}

Test(refusals, names)
{
	for (int i = 0; i <= QUARRY_REFUSED_PUBLISH; i++) {
		cr_assert(quarry_refusal_name(i) && *quarry_refusal_name(i));
		cr_assert_eq(strspn(quarry_refusal_name(i), "abcdefghijklmnopqrstuvwxyz-0123456789"),
			     strlen(quarry_refusal_name(i)));
		for (int j = 0; j < i; j++)
			cr_assert_str_neq(quarry_refusal_name(i), quarry_refusal_name(j));
	}
	cr_assert_str_eq(quarry_refusal_name(QUARRY_REFUSED_MBIND_EPERM), "mbind-eperm");
	cr_assert_null(quarry_refusal_name(QUARRY_REFUSED_PUBLISH + 1));
	cr_assert_null(quarry_refusal_name(-1));
	cr_assert_null(quarry_refusal_name(QUARRY_REFUSED_COUNT));
}

/* ------------------------------------------------------------------------------------------------------ */
/* Descriptors                                                                                            */

Test(descriptor, errors_are_told)
{
	int ends[2], full = open("/dev/full", O_WRONLY);

	set_total();
	for (int json = 0; json < 2; json++) {
		errno = 0;
		cr_assert_eq(quarry_stats_print(-1, json), -1);
		cr_assert_eq(errno, EBADF);
		errno = 0;
		cr_assert_eq(quarry_stats_print(1000, json), -1);
		cr_assert_eq(errno, EBADF);
		errno = 0;
		cr_assert_eq(quarry_stats_print(full, json), -1);
		cr_assert_eq(errno, ENOSPC);
	}
	/* Full after a while: the first error stays, and nothing follows it. */
	for (int i = 0; i < 4000; i++)
		fake_arena("some", -1)->mapped = 1;
	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	errno = 0;
	cr_assert_eq(quarry_stats_print(ends[1], 1), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(fake_mappings, 0);
	close(full);
}

/* This program's write(2): to one descriptor it is interrupted, or writes only a part, as the seed says. */
static int hostile_fd = -1, idle_fd = -1;
static long interrupted, cut_short;

ssize_t write(int fd, const void *bytes, size_t count)
{
	if (fd == hostile_fd && fd >= 0) {
		uint64_t luck = next();
		if (luck % 3 == 0) {
			interrupted++;
			errno = EINTR;
			return -1;
		}
		if (luck % 3 == 1 && count > 1) {
			cut_short++;
			count = 1 + (luck >> 8) % (count - 1);
		}
	}
	return fd == idle_fd && fd >= 0 ? 0 : syscall(SYS_write, fd, bytes, count);
}

/* A device that takes nothing and calls it no error. */
Test(descriptor, writing_nothing_for_ever_is_an_error, .timeout = 20)
{
	idle_fd = memfd_create("idle", 0);
	errno = 0;
	cr_assert_eq(quarry_stats_print(idle_fd, 0), -1);
	cr_assert_eq(errno, EIO);
}

Test(descriptor, interrupted_and_short_writes_lose_nothing)
{
	size_t length, hostile_length;
	char *text, *hostile;
	int fd;

	seed("interrupted_and_short_writes_lose_nothing");
	for (int i = 0; i < 4000; i++)
		fake_arena("\"some\\", -1)->mapped = (uint64_t)i;
	for (int json = 0; json < 2; json++) {
		text = print(json, &length);
		fd = memfd_create("hostile", 0);
		hostile_fd = fd;
		cr_assert_eq(quarry_stats_print(fd, json), 0);
		hostile_fd = -1;
		cr_assert_gt(interrupted, 0);
		cr_assert_gt(cut_short, 0);
		hostile_length = (size_t)lseek(fd, 0, SEEK_END);
		cr_assert_eq(hostile_length, length);
		hostile = malloc(length);
		cr_assert_eq(pread(fd, hostile, length, 0), (ssize_t)length);
		cr_assert_eq(memcmp(hostile, text, length), 0);
		free(hostile);
		free(text);
		close(fd);
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* The text module                                                                                        */

#define assert_same_as_printf(...)                                                                                   \
	do {                                                                                                         \
		char ours[256], theirs[256];                                                                         \
		size_t room = 1 + next() % (sizeof(ours) - 1);                                                       \
		struct qy_text text;                                                                                 \
		qy_text_init(&text, ours, room, -1);                                                                 \
		qy_text_format(&text, __VA_ARGS__);                                                                  \
		cr_assert_eq(text.total, (size_t)snprintf(theirs, room, __VA_ARGS__));                               \
		cr_assert_str_eq(ours, theirs);                                                                      \
	} while (0)

Test(module, formats_as_printf)
{
	static const char word[] = "a word that is long enough to be cut";

	seed("formats_as_printf");
	for (int i = 0; i < 200000; i++) {
		unsigned long long n = next() >> next() % 64;
		int width = (int)(next() % 30), precision = (int)(next() % 40);
		switch (next() % 9) {
		case 0:
			assert_same_as_printf("%d|%u|%5d|%-5u|", (int)n, (unsigned)n, (int)n, (unsigned)n);
			break;
		case 1:
			assert_same_as_printf("<%ld %lu %lx>", (long)n, (unsigned long)n, (unsigned long)n);
			break;
		case 2:
			assert_same_as_printf("%lld%%%llu%llx", (long long)n, n, n);
			break;
		case 3:
			assert_same_as_printf("%*d,%-*lld,", width, -(int)(n % 1000), width, (long long)n);
			break;
		case 4:
			assert_same_as_printf("%08x %04d %020llu", (unsigned)n, -(int)(n % 999), n);
			break;
		case 5:
			assert_same_as_printf("%s %10s %-40s.", word, word + 30, word);
			break;
		case 6:
			assert_same_as_printf("%.*s|%-*.*s|%.3s", precision, word, width, precision, word, word);
			break;
		case 7:
			assert_same_as_printf("%c%5c%-3c%zu", (int)(n % 95 + 32), 'x', 'y', (size_t)n);
			break;
		default:
			assert_same_as_printf("%p %s", (void *)(uintptr_t)(n | 1), "");
		}
	}
	assert_same_as_printf("%lld %lld %d %llu", (long long)INT64_MIN, (long long)INT64_MAX, INT32_MIN,
			      (unsigned long long)UINT64_MAX);
	assert_same_as_printf("no directive");
	assert_same_as_printf("%d%%", 0);
}

Test(module, bytes_for_people)
{
	static const struct {
		uint64_t bytes;
		const char *full, *brief;
	} cases[] = {
		{ 0, "0 B", "    0" },
		{ 1023, "1023 B", " 1023" },
		{ 1024, "1.0 KiB", " 1.0K" },
		{ 1536, "1.5 KiB", " 1.5K" },
		{ 10239, "9.9 KiB", " 9.9K" },
		{ 10240, "10.0 KiB", "  10K" },
		{ (1 << 20) - 1, "1023.9 KiB", "1023K" },
		{ 1 << 20, "1.0 MiB", " 1.0M" },
		{ 1ull << 40, "1.0 TiB", " 1.0T" },
		{ UINT64_MAX, "15.9 EiB", "  15E" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char buffer[32];
		struct qy_text text;
		qy_text_init(&text, buffer, sizeof(buffer), -1);
		qy_text_bytes(&text, cases[i].bytes);
		cr_assert_str_eq(buffer, cases[i].full);
		qy_text_init(&text, buffer, sizeof(buffer), -1);
		qy_text_bytes_short(&text, cases[i].bytes, 5);
		cr_assert_str_eq(buffer, cases[i].brief);
	}
}
