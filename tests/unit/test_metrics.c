/* SPDX-License-Identifier: MIT */
/* Metrics: every figure is there under a name of its own, in the forms that the two formats prescribe; names that would
 * break a label; buffers that are too small, descriptors and folders that fail; and pictures from elsewhere that are
 * not sound. (tests/top.sh has the output read by Prometheus' own parser.) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "lib/api/figures.h"
#include "lib/api/sources.h"
#include "lib/view/gather.h"
#include "lib/view/lanes.h"
#include "tests/unit/fake_stats.h"

#define BOTH (QUARRY_METRICS_ARENAS | QUARRY_METRICS_CLASSIC)
#define ROOM (8 << 20)

static char text[ROOM];

static void get(unsigned flags)
{
	long length = quarry_metrics_text(text, sizeof(text), flags);

	cr_assert(length > 0 && length < ROOM, "%s", quarry_error_text());
	cr_assert_eq(strlen(text), (size_t)length);
}

static bool has(const char *line)
{
	size_t n = strlen(line);

	for (const char *at = text; (at = strstr(at, line)) != NULL; at++)
		if ((at == text || at[-1] == '\n') && at[n] == '\n')
			return true;
	return false;
}

/* Numbers that no two figures share. */
static void plant(quarry_stats *stats, uint64_t from)
{
	for (int i = 0; qy_figure(i) != NULL; i++) {
		uint64_t n = from + (uint64_t)i;

		memcpy((char *)stats + qy_figure(i)->offset, &n, sizeof(n));
	}
	for (int kind = 0; kind < QY_PAGE_KINDS; kind++) {
		stats->kind_wanted[kind] = from + 100 + (uint64_t)kind;
		stats->kind_got[kind] = from + 200 + (uint64_t)kind;
	}
	for (int i = 0; i < QUARRY_REFUSED_COUNT; i++)
		stats->refused[i] = from + 300 + (uint64_t)i;
}

/* Two lanes, and three parts of the second; each field has a number of its own. */
static size_t lanes_of(quarry_lanes_figures *list, size_t max, bool wait)
{
	(void)wait;
	for (uint32_t i = 0; i < 2 && i < max; i++) {
		quarry_lanes_figures *g = &list[i];

		for (size_t at = offsetof(quarry_lanes_figures, objects); at < sizeof(*g); at += sizeof(uint64_t))
			memcpy((char *)g + at, &(uint64_t){ 100000 * (i + 1) + at }, sizeof(uint64_t));
		g->struct_size = sizeof(*g);
		g->number = 7 + i;
		memset(g->name, 'x', sizeof(g->name)); /* no end */
	}
	return 2;
}

static size_t parts_of(uint32_t lanes, quarry_lanes_part *list, size_t max, bool wait)
{
	(void)wait;
	for (uint32_t i = 0; lanes == 8 && i < 3 && i < max; i++) {
		for (size_t at = offsetof(quarry_lanes_part, size); at < sizeof(*list); at += sizeof(uint64_t))
			memcpy((char *)&list[i] + at, &(uint64_t){ 500000 + 10000 * i + at }, sizeof(uint64_t));
		list[i].struct_size = sizeof(*list);
		list[i].lanes = lanes;
		list[i].kind = i == 2 ? QUARRY_PART_GROUP : QUARRY_PART_CLASS;
		memset(list[i].name, 'a' + (int)i, sizeof(list[i].name));
	}
	return lanes == 8 ? 3 : 0;
}

static void set_up(void)
{
	static const struct qy_lanes_source source = { lanes_of, parts_of };

	qy_lanes_source_set(&source);
	memset(&fake_total, 0, sizeof(fake_total));
	plant(&fake_total, 7000000);
	fake_total.reclaimed_by = QUARRY_RECLAIMER_TIMER;
	fake_total.decay = 1500;
	fake_total.pass_ns += UINT64_C(70000000000) - 7000000;
	fake_profile = (quarry_profile_report){ .mean = 61, .sites = 62, .samples = 63, .live = 64, .lost = 65,
		.allocated_objects = 66, .allocated_bytes = 67, .in_use_objects = 68, .in_use_bytes = 69 };
	fake_arena_count = 0;
	plant(fake_arena("", 3), 8000000);
	plant(fake_arena("shop", -1), 9000000);
	fake_health = (quarry_health_report){ .state = 2, .level = 1, .limit_kind = QUARRY_LIMIT_CGROUP, .limit = 41,
		.used = 42, .psi_some = 123, .psi_full = 7, .psi_window_ms = 500, .hard_limit = 43, .soft_limit = 44,
		.denied_process = 45, .denied_arenas = 46, .denied_cgroup = 47, .breaker = 1, .breaker_opened = 48,
		.breaker_refused = 49, .breaker_redirected = 50, .breaker_probes = 51, .events_lost = 52 };
}

/* ------------------------------------------------------------------------------------------------------ */
/* The formats: a strict reader of what both have, line by line                                            */

static size_t name_length(const char *s)
{
	return strspn(s, "abcdefghijklmnopqrstuvwxyz_0123456789");
}

static bool ends_in(const char *s, size_t n, const char *end)
{
	return n > strlen(end) && strncmp(s + n - strlen(end), end, strlen(end)) == 0;
}

/* {name="value",...}: where it ends; NULL when it is none. */
static const char *labels_end(const char *s)
{
	do {
		s++;
		s += name_length(s);
		if (s[0] != '=' || s[1] != '"')
			return NULL;
		for (s += 2; *s != '"'; s++) {
			if ((unsigned char)*s < 0x20 || *s == 0x7f)
				return NULL;
			if (*s == '\\' && strchr("\\\"n", *++s) == NULL)
				return NULL;
		}
		s++;
	} while (*s == ',');
	return *s == '}' ? s + 1 : NULL;
}

static const char *number_end(const char *s)
{
	if (strncmp(s, "+Inf", 4) == 0)
		return s + 4;
	s += strspn(s, "0123456789");
	return *s == '.' ? s + 1 + strspn(s + 1, "0123456789") : s;
}

/* The first line that is wrong, or NULL. */
static const char *read_strictly(bool classic)
{
	static char families[400][80];
	char family[80] = "", type[16] = "";
	size_t count = 0;

	for (const char *s = text, *end; *s; s = end + 1) {
		end = strchr(s, '\n');
		if (end == NULL)
			return s;
		if (strncmp(s, "# HELP ", 7) == 0) {
			size_t n = name_length(s + 7);

			snprintf(family, sizeof(family), "%.*s", (int)n, s + 7);
			*type = '\0';
			for (size_t i = 0; i < count; i++)
				if (strcmp(families[i], family) == 0)
					return s;
			strcpy(families[count++], family);
			if (s[7 + n] != ' ' || memchr(s, '\\', (size_t)(end - s)) || memchr(s, '"', (size_t)(end - s)))
				return s;
		} else if (sscanf(s, "# TYPE %*s %15s", type) == 1) {
			if (strncmp(s + 7, family, strlen(family)) != 0 || s[7 + strlen(family)] != ' ')
				return s;
			if (ends_in(family, strlen(family), "_total") != (classic && strcmp(type, "counter") == 0))
				return s;
		} else if (strncmp(s, "# UNIT ", 7) == 0) {
			char unit[16];

			if (classic || sscanf(s, "# UNIT %*s %15s", unit) != 1 || !ends_in(family, strlen(family), unit) ||
			    family[strlen(family) - strlen(unit) - 1] != '_')
				return s;
		} else if (strncmp(s, "# EOF\n", 6) == 0) {
			return !classic && end[1] == '\0' ? NULL : s;
		} else {
			size_t n = name_length(s);
			const char *at = s[n] == '{' ? labels_end(s + n) : s + n;
			const char *suffix = strcmp(type, "histogram") == 0 ?
						     s[n - 1] == 't' && s[n - 2] == 'e' ? "_bucket" :
						     s[n - 1] == 't' ? "_count" : "_sum" :
					     classic ? "" : strcmp(type, "counter") == 0 ? "_total" :
					     strcmp(type, "info") == 0 ? "_info" : "";

			if (*type == '\0' || n != strlen(family) + strlen(suffix) || strncmp(s, family, strlen(family)) != 0 ||
			    strncmp(s + strlen(family), suffix, strlen(suffix)) != 0)
				return s;
			if (at == NULL || *at != ' ' || number_end(at + 1) != end)
				return s;
		}
	}
	return classic ? NULL : "no # EOF";
}

static void read_all(unsigned flags)
{
	const char *wrong;

	get(flags);
	wrong = read_strictly(flags & QUARRY_METRICS_CLASSIC);
	cr_assert_null(wrong, "flags %u: %.200s", flags, wrong);
}

Test(reader, can_fail)
{
	static const char *const bad[] = { "a 1\n# EOF\n", "# HELP a b\n# TYPE a gauge\na 1", "# HELP a b\n# TYPE a gauge\na 1\n",
		"# HELP a b\n# TYPE a gauge\n# UNIT a bytes\na 1\n# EOF\n", "# HELP a b\n# TYPE a counter\na 1\n# EOF\n",
		"# HELP a b\n# TYPE a gauge\na{b=\"\x1b\"} 1\n# EOF\n", "# HELP a b\n# TYPE a gauge\na{b=\"\\x\"} 1\n# EOF\n",
		"# HELP a b\n# TYPE a gauge\na 1\n# HELP a b\n# EOF\n", "# HELP a b\n# TYPE a gauge\na x\n# EOF\n",
		"# HELP a b\n# TYPE a gauge\nb 1\n# EOF\n" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		strcpy(text, bad[i]);
		cr_assert_not_null(read_strictly(false), "%s", bad[i]);
	}
}

Test(metrics, both_formats_are_strict)
{
	set_up();
	for (unsigned flags = 0; flags <= BOTH; flags++)
		read_all(flags);
	fake_arena_count = 0;
	memset(&fake_health, 0, sizeof(fake_health));
	for (unsigned flags = 0; flags <= BOTH; flags++)
		read_all(flags);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Figures                                                                                                */

static void expect_figures(uint64_t from, bool arena)
{
	static const char *const of_process[] = { "arenas", "metadata", "threads", "reclaimer", "advised_apart", "node_moves",
		"split", "passes", "idle_given_up", "idle_refused", "bad_frees", "decay", "reclaimed_by", "pass_ns",
		"collapse_ns", "purge_ns", "minor_faults", "major_faults", NULL };
	static const char *const of_arena[] = { "hard_limit", "soft_limit", "decay", "reclaimed_by", "pass_ns",
		"collapse_ns", "purge_ns", NULL };
	const char *const *left_out = arena ? of_process : of_arena;
	char number[32];

	for (int i = 0; qy_figure(i) != NULL; i++) {
		bool out = false;

		for (size_t k = 0; left_out[k] != NULL; k++)
			out = out || strcmp(left_out[k], qy_figure(i)->name) == 0;
		snprintf(number, sizeof(number), " %" PRIu64 "\n", from + (uint64_t)i);
		cr_expect_eq(strstr(text, number) != NULL, !out, "%s%s", arena ? "arena: " : "", qy_figure(i)->name);
	}
}

Test(metrics, every_figure_is_there)
{
	set_up();
	get(QUARRY_METRICS_ARENAS);
	expect_figures(7000000, false);
	expect_figures(8000000, true);
	expect_figures(9000000, true);
	for (int i = 0; quarry_refusal_name(i) != NULL; i++) {
		char line[100];

		snprintf(line, sizeof(line), "quarry_refusals_total{reason=\"%s\"} %d", quarry_refusal_name(i), 7000300 + i);
		cr_expect(has(line), "%s", line);
	}
	cr_expect(has("quarry_build_info{version=\"9.8.7\"} 1"));
	cr_expect(has("quarry_pages_wanted_bytes{pages=\"thp\"} 7000102"));
	cr_expect(has("quarry_pages_got_bytes{pages=\"1g\"} 7000204"));
	cr_expect(has("quarry_arena_pages_got_bytes{pages=\"2m\",arena=\"1\",name=\"shop\"} 9000203"));
	cr_expect(has("quarry_arena_pages_wanted_bytes{pages=\"auto\",arena=\"0\",name=\"\",node=\"3\"} 8000100"));
	cr_expect(has("quarry_reclaimer_way{way=\"timer\"} 1") && has("quarry_reclaimer_way{way=\"thread\"} 0"));
	cr_expect(has("quarry_decay_seconds 1.500"));
	cr_expect(has("quarry_reclaimer_pass_seconds_total 70.000000038"));
	cr_expect(has("quarry_reclaimer_collapse_seconds_total 0.007000039"));
	cr_expect(has("quarry_purge_seconds_total 0.007000040"));
	cr_expect(has("quarry_page_faults_total{kind=\"minor\"} 7000041"));
	cr_expect(has("quarry_page_faults_total{kind=\"major\"} 7000042"));
	cr_expect(has("quarry_profile_mean_bytes 61") && has("quarry_profile_sites 62"));
	cr_expect(has("quarry_profile_samples_total 63") && has("quarry_profile_live_samples 64"));
	cr_expect(has("quarry_profile_lost_samples_total 65"));
	cr_expect(has("quarry_profile_allocated_objects_total 66") && has("quarry_profile_allocated_bytes_total 67"));
	cr_expect(has("quarry_profile_in_use_objects 68") && has("quarry_profile_in_use_bytes 69"));
	cr_expect(has("quarry_health_state 2") && has("quarry_pressure_level 1") && has("quarry_breaker_state 1"));
	cr_expect(has("quarry_psi_some_ratio 0.123") && has("quarry_psi_full_ratio 0.007"));
	cr_expect(has("quarry_tightest_limit_bytes{limit=\"cgroup\"} 41"));
	cr_expect(has("quarry_tightest_limit_used_bytes{limit=\"cgroup\"} 42"));
	cr_expect(has("quarry_hard_limit_bytes 43") && has("quarry_soft_limit_bytes 44"));
	cr_expect(has("quarry_denied_requests_total{limit=\"process\"} 45"));
	cr_expect(has("quarry_denied_requests_total{limit=\"arena\"} 46"));
	cr_expect(has("quarry_denied_requests_total{limit=\"cgroup\"} 47"));
	cr_expect(has("quarry_breaker_opened_total 48") && has("quarry_breaker_refused_requests_total 49"));
	cr_expect(has("quarry_breaker_redirected_requests_total 50") && has("quarry_breaker_probes_total 51"));
	cr_expect(has("quarry_events_lost_total 52"));
	fake_total.decay = UINT64_MAX;
	get(0);
	cr_expect(has("quarry_decay_seconds +Inf"));
	cr_expect_null(strstr(text, "\nquarry_arena_"));
}

/* A count that is missing for a moment, as a thread ends, is what it was. */
Test(metrics, every_figure_of_lanes_is_there)
{
	char line[200], name[33] = "";
	const struct qy_lanes_field *field;

	set_up();
	get(QUARRY_METRICS_ARENAS);
	memset(name, 'x', 31);
	for (int i = 0; (field = qy_lanes_field(i)) != NULL; i++) {
		if (field->offset > sizeof(quarry_lanes_figures))
			continue; /* waste */
		snprintf(line, sizeof(line), "quarry_lanes_%s%s{lanes=\"8\",name=\"%s\"} %zu", field->name,
			 field->counter ? "_total" : "", name, 200000 + field->offset);
		cr_expect(has(line), "%s", line);
	}
	for (int i = 0; (field = qy_part_field(i)) != NULL; i++) {
		if (field->offset > sizeof(quarry_lanes_part))
			continue;
		memset(name, 'c', 31);
		snprintf(line, sizeof(line), "quarry_lanes_part_%s%s{lanes=\"8\",group=\"%s\",place=\"2\"} %zu", field->name,
			 field->counter ? "_total" : "", name, 520000 + field->offset);
		cr_expect(has(line), "%s", line);
	}
	get(0);
	cr_expect_null(strstr(text, "quarry_lanes_part_"));
}

Test(metrics, counts_of_the_process_never_fall)
{
	set_up();
	fake_total.refills = 100;
	fake_total.in_use = 100;
	get(0);
	fake_total.refills = 60;
	fake_total.in_use = 60;
	get(0);
	cr_expect(has("quarry_refills_total 100"));
	cr_expect(has("quarry_in_use_bytes 60"));
	fake_total.refills = 101;
	get(0);
	cr_expect(has("quarry_refills_total 101"));
}

Test(metrics, names_that_would_break_a_label)
{
	set_up();
	fake_arena("a\"b\\c\nd\x1b[2J\x7f\xff\xc2\x9b" "e\xc3\xa9", -1);
	fake_arena("12345678901234567890123456789012", -1);
	read_all(QUARRY_METRICS_ARENAS);
	cr_expect_not_null(strstr(text, ",name=\"a\\\"b\\\\c\\nd\xef\xbf\xbd[2J\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" "e\xc3\xa9\"}"));
	cr_expect_not_null(strstr(text, ",name=\"12345678901234567890123456789012\"}"));
}

Test(metrics, a_thousand_arenas)
{
	set_up();
	while (fake_arena_count < 1000)
		fake_arena("many", -1);
	fake_gone[17] = true;
	read_all(QUARRY_METRICS_ARENAS);
	cr_expect_not_null(strstr(text, "quarry_arena_mapped_bytes{arena=\"999\","));
	cr_expect_null(strstr(text, "arena=\"17\""));
	cr_expect(has("quarry_arenas_left_out 0"));
	cr_expect_eq(fake_mappings, 0, "mappings were left");
}

/* ------------------------------------------------------------------------------------------------------ */
/* Where it goes                                                                                          */

Test(metrics, as_snprintf)
{
	static char part[ROOM];
	long length;

	set_up();
	get(BOTH);
	length = (long)strlen(text);
	cr_assert_eq(quarry_metrics_text(NULL, 0, BOTH), length);
	for (size_t size = 1; size <= (size_t)length + 1; size += 997) {
		memset(part, 'x', sizeof(part));
		cr_assert_eq(quarry_metrics_text(part, size, BOTH), length);
		cr_assert_eq(memcmp(part, text, size - 1), 0);
		cr_assert(part[size - 1] == '\0' && part[size] == 'x');
	}
}

Test(metrics, errors)
{
	int full = open("/dev/full", O_WRONLY);

	set_up();
	cr_expect(quarry_metrics_print(1, 4) == -1 && errno == EINVAL && quarry_error_text()[0]);
	cr_expect(quarry_metrics_text(NULL, 1, 0) == -1 && errno == EINVAL);
	cr_expect(quarry_metrics_print(-1, 0) == -1 && errno == EBADF);
	cr_expect(quarry_metrics_print(full, 0) == -1 && errno == ENOSPC);
	fake_mmap_refused = true;
	cr_expect(quarry_metrics_print(full, 0) == -1 && errno == ENOMEM);
	cr_expect(quarry_metrics_text(text, 10, 0) == -1 && errno == ENOMEM);
}

static char folder[] = "/tmp/quarry-metrics.XXXXXX";

static int files_in_folder(void)
{
	char command[100];
	int n = -1;
	FILE *in;

	snprintf(command, sizeof(command), "ls -A %s | wc -l", folder);
	in = popen(command, "r");
	cr_assert(fscanf(in, "%d", &n) == 1);
	pclose(in);
	return n;
}

Test(metrics, into_a_file)
{
	char path[100], beside[120], back[100];
	struct stat st;
	FILE *in;

	set_up();
	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/x.prom", folder);
	snprintf(beside, sizeof(beside), "%s.4711-4711.tmp", path);
	umask(022);
	cr_assert_eq(quarry_metrics_write(path, QUARRY_METRICS_CLASSIC), 0, "%s", quarry_error_text());
	cr_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0644);
	get(QUARRY_METRICS_CLASSIC);
	cr_assert_eq((size_t)st.st_size, strlen(text));
	cr_assert_eq(files_in_folder(), 1);
	/* What an earlier one left behind, a link too, is no hindrance, and is not followed. */
	snprintf(back, sizeof(back), "%s/victim", folder);
	cr_assert_eq(symlink(back, beside), 0);
	cr_assert_eq(quarry_metrics_write(path, QUARRY_METRICS_CLASSIC), 0);
	cr_assert(access(back, F_OK) != 0);
	/* What fails leaves it as it was. */
	in = fopen(path, "w");
	fputs("before\n", in);
	fclose(in);
	fake_rename_error = EXDEV;
	cr_assert(quarry_metrics_write(path, 0) == -1 && errno == EXDEV && quarry_error_text()[0]);
	fake_rename_error = 0;
	fake_mmap_refused = true;
	cr_assert(quarry_metrics_write(path, 0) == -1 && errno == ENOMEM);
	fake_mmap_refused = false;
	cr_assert_eq(files_in_folder(), 1);
	in = fopen(path, "r");
	cr_assert(fgets(back, sizeof(back), in) && strcmp(back, "before\n") == 0);
	fclose(in);
	cr_assert(quarry_metrics_write(path, 8) == -1 && errno == EINVAL);
	cr_assert(quarry_metrics_write(NULL, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_metrics_write("", 0) == -1 && errno == EINVAL);
	cr_assert(quarry_metrics_write("/none/such/x.prom", 0) == -1 && errno == ENOENT);
	memset(text, 'a', 5000);
	text[5000] = '\0';
	cr_assert(quarry_metrics_write(text, 0) == -1 && errno == ENAMETOOLONG);
	unlink(path);
	rmdir(folder);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Pictures from elsewhere                                                                                */

static uint64_t state = 20251;

static uint64_t next(void) /* splitmix64 */
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* Into memory of just that size, so that a sanitizer sees a read behind it. */
static void *picture_of(size_t room, size_t *size)
{
	void *picture = calloc(1, *size = qy_gather_size(room));

	(void)qy_gather(picture, room, true);
	return picture;
}

static void look_at_all(const void *copy, size_t size)
{
	quarry_published head;
	quarry_health_report health = { .struct_size = sizeof(health) };
	quarry_stats total = { .version = QUARRY_STATS_VERSION };
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };
	quarry_sample samples[3];
	quarry_profile_report profile = { .struct_size = sizeof(profile) };
	int fd = open("/dev/null", O_WRONLY);
	int found = quarry_published_look(copy, size, &head, sizeof(head), &health, &total);

	cr_assert(found == 0 || errno == EINVAL || errno == EAGAIN);
	cr_assert_eq(quarry_published_metrics(copy, size, fd, QUARRY_METRICS_ARENAS), found);
	for (int ring = 0; ring < 3; ring++)
		cr_assert_eq(quarry_published_history(copy, size, ring, samples, 3, sizeof(samples[0])) < 0, found < 0);
	cr_assert(quarry_published_profile(copy, size, &profile) == 0 || found < 0 || errno == ENODATA);
	cr_assert_eq(profile.struct_size, sizeof(profile));
	if (found == 0) {
		cr_assert_lt(strnlen(head.library, sizeof(head.library)), sizeof(head.library));
		cr_assert(head.arena_count == 0 || head.arena_count <= size / head.arena_size);
		quarry_lanes_figures lanes = { .struct_size = sizeof(lanes) };
		quarry_lanes_part part = { .struct_size = sizeof(part) };

		for (size_t i = 0; i <= head.lanes_count && i < 1000; i++)
			cr_assert_eq(quarry_published_lanes(copy, size, i, &lanes) == 0,
				     head.lanes_offset != 0 && i < head.lanes_count);
		for (size_t i = 0; i <= head.parts_count && i < 1000; i++)
			cr_assert_eq(quarry_published_lanes_part(copy, size, i, &part) == 0,
				     head.lanes_offset != 0 && i < head.parts_count);
		cr_assert(lanes.name[31] == 0 && part.name[31] == 0);
		for (size_t i = 0; i < head.arena_count && i < 1000; i++)
			cr_assert_eq(quarry_published_arena_get(copy, size, i, &arena), 0);
		cr_assert(quarry_published_arena_get(copy, size, head.arena_count, &arena) == -1 && errno == ERANGE);
	}
	close(fd);
}

Test(published, what_was_gathered_is_read)
{
	quarry_published head;
	quarry_health_report health = { .struct_size = sizeof(health) };
	quarry_stats total = { .version = QUARRY_STATS_VERSION };
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };
	size_t size;
	char *picture;

	set_up();
	picture = picture_of(1, &size);
	cr_assert_eq(quarry_published_look(picture, size, &head, sizeof(head), &health, &total), 0, "%s", quarry_error_text());
	cr_assert(head.arena_count == 1 && head.arenas_left_out == 1 && head.arena_room == 1 && head.pid == 4711);
	cr_assert_str_eq(head.library, "9.8.7");
	cr_assert(total.mapped == fake_total.mapped && health.used == 42);
	cr_assert_eq(quarry_published_arena_get(picture, size, 0, &arena), 0);
	cr_assert(arena.id == 0 && arena.stats.node == 3 && arena.stats.mapped == fake_arenas[0].mapped);
	free(picture);
}

/* A younger library has more at the ends of its records, an older one less. */
Test(published, records_of_other_sizes)
{
	quarry_published *picture;
	quarry_health_report health = { .struct_size = sizeof(health) };
	quarry_stats total = { .version = QUARRY_STATS_VERSION };
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };
	size_t size;
	uint32_t less = offsetof(quarry_stats, in_files);

	set_up();
	picture = picture_of(2, &size);
	picture->total_size = less;
	picture->health_size = offsetof(quarry_health_report, events_lost);
	cr_assert_eq(quarry_published_look(picture, size, NULL, 0, &health, &total), 0);
	cr_assert(total.in_files == 0 && total.reclaimed_by == QUARRY_RECLAIMER_TIMER);
	cr_assert(health.events_lost == 0 && health.breaker_probes == 51);
	/* (Two arenas in records half as long again.) */
	picture->arena_size += 64;
	picture->arena_count = 1;
	cr_assert_eq(quarry_published_arena_get(picture, size, 0, &arena), 0);
	cr_assert_eq(arena.stats.in_files, fake_arenas[0].in_files);
	picture->arena_size = less + 8;
	cr_assert_eq(quarry_published_arena_get(picture, size, 0, &arena), 0);
	cr_assert_eq(arena.stats.in_files, 0);
	free(picture);
}

/* A program that was built with a header whose structs were shorter: what is behind their ends is its own. */
Test(published, nothing_is_written_behind_an_older_programs_structs)
{
	const size_t version_3 = offsetof(quarry_stats, pass_ns), of_health = offsetof(quarry_health_report, events_lost);
	const size_t of_head = offsetof(quarry_published, history_offset);
	quarry_health_report health;
	quarry_published_arena arena;
	quarry_published head;
	quarry_stats total;
	size_t size;
	char *picture;

	set_up();
	picture = picture_of(1, &size);
	memset(&head, 0x5a, sizeof(head));
	memset(&health, 0x5a, sizeof(health));
	memset(&total, 0x5a, sizeof(total));
	memset(&arena, 0x5a, sizeof(arena));
	health.struct_size = (uint32_t)of_health;
	total.version = arena.stats.version = 3;
	cr_assert_eq(quarry_published_look(picture, size, &head, of_head, &health, &total), 0, "%s", quarry_error_text());
	cr_assert_eq(quarry_published_arena_get(picture, size, 0, &arena), 0);
	cr_assert(head.pid == 4711 && head.arena_count == 1 && health.struct_size == of_health && health.used == 42);
	cr_assert(total.version == 3 && total.in_files == fake_total.in_files);
	cr_assert(arena.stats.version == 3 && arena.stats.in_files == fake_arenas[0].in_files);
	for (size_t i = of_head; i < sizeof(head); i++)
		cr_assert_eq(((char *)&head)[i], 0x5a, "byte %zu of the head", i);
	for (size_t i = of_health; i < sizeof(health); i++)
		cr_assert_eq(((char *)&health)[i], 0x5a, "byte %zu of the health", i);
	for (size_t i = version_3; i < sizeof(total); i++)
		cr_assert(((char *)&total)[i] == 0x5a && ((char *)&arena.stats)[i] == 0x5a, "byte %zu of the figures", i);
	/* What says nothing of how long it is, or that it is longer than anybody knows, is left alone. */
	health.struct_size = total.version = 0;
	arena.stats.version = QUARRY_STATS_VERSION + 1;
	cr_assert(quarry_published_look(picture, size, &head, 0, NULL, NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_published_look(picture, size, NULL, 0, &health, NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_published_look(picture, size, NULL, 0, NULL, &total) == -1 && errno == EINVAL);
	cr_assert(quarry_published_arena_get(picture, size, 0, &arena) == -1 && errno == EINVAL);
	free(picture);
}

static void expect(const quarry_published *good, size_t size, size_t field, uint64_t value, size_t bytes, int err,
		   const char *says)
{
	char *copy = malloc(size);

	memcpy(copy, good, size);
	memcpy(copy + field, &value, bytes);
	errno = 0;
	cr_expect(quarry_published_look(copy, size, NULL, 0, NULL, NULL) == -1 && errno == err, "at %zu: %d", field, errno);
	cr_expect_not_null(strstr(quarry_error_text(), says), "at %zu: %s", field, quarry_error_text());
	look_at_all(copy, size);
	free(copy);
}

Test(published, what_is_not_sound)
{
	quarry_published *good;
	size_t size;

	set_up();
	good = picture_of(2, &size);
#define EXPECT(field, value, err, says) \
	expect(good, size, offsetof(quarry_published, field), value, sizeof(good->field), err, says)
	cr_assert(good->lanes_count == 2 && good->parts_count == 3);
	EXPECT(magic, 5, EINVAL, "not a page");
	EXPECT(version, 2, EINVAL, "newer");
	EXPECT(version, 0, EINVAL, "older");
	EXPECT(generation, 3, EAGAIN, "being written");
	EXPECT(generation, 0, EAGAIN, "nothing yet");
	EXPECT(head_size, 8, EINVAL, "not sound");
	EXPECT(total_offset, UINT32_MAX, EINVAL, "not sound");
	EXPECT(total_offset, 0, EINVAL, "not sound");
	EXPECT(total_size, UINT32_MAX, EINVAL, "not sound");
	EXPECT(total_size, 3, EINVAL, "not sound");
	EXPECT(health_offset, UINT32_MAX - 3, EINVAL, "not sound");
	EXPECT(health_size, UINT32_MAX, EINVAL, "not sound");
	EXPECT(arenas_offset, size + 1, EINVAL, "not sound");
	EXPECT(arena_size, 0, EINVAL, "not sound");
	EXPECT(arena_size, UINT32_MAX, EINVAL, "not sound");
	EXPECT(arena_count, UINT32_MAX, EINVAL, "not sound");
	EXPECT(history_offset, size, EINVAL, "not sound");
	EXPECT(sample_size, 8, EINVAL, "not sound");
	EXPECT(profile_offset, size, EINVAL, "not sound");
	EXPECT(profile_size, 3, EINVAL, "not sound");
	EXPECT(profile_size, UINT32_MAX, EINVAL, "not sound");
	EXPECT(sample_count[1], UINT32_MAX, EINVAL, "not sound");
	EXPECT(lanes_offset, size, EINVAL, "not sound");
	EXPECT(lanes_offset, 8, EINVAL, "not sound");
	EXPECT(lanes_size, 8, EINVAL, "not sound");
	EXPECT(lanes_size, UINT32_MAX, EINVAL, "not sound");
	EXPECT(lanes_count, UINT32_MAX, EINVAL, "not sound");
	EXPECT(parts_offset, size, EINVAL, "not sound");
	EXPECT(part_size, 8, EINVAL, "not sound");
	EXPECT(parts_count, UINT32_MAX, EINVAL, "not sound");
	free(good);
	for (size_t n = 0; n < size; n += n < 200 ? 1 : 97) {
		char *copy = picture_of(2, &size), *cut = malloc(n + !n);

		memcpy(cut, copy, n);
		look_at_all(cut, n);
		free(cut);
		free(copy);
	}
	cr_expect(quarry_published_look(NULL, 0, NULL, 0, NULL, NULL) == -1 && errno == EINVAL);
}

/* Pages of random bytes, and sound ones with some of them changed. SEED in the environment repeats a run. */
Test(published, random_pages)
{
	size_t size, sound = 0;

	state = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : state;
	set_up();
	for (int round = 0; round < 1500; round++) {
		char *picture = picture_of(2, &size);
		size_t from = round % 3 == 0 ? 0 : 12, changes = round % 5 == 0 ? size : 1 + next() % 6;

		for (size_t i = 0; i < changes; i++)
			picture[from + next() % (i % 2 ? size - from : sizeof(quarry_published) - from)] = (char)next();
		if (round % 2)
			((quarry_published *)(void *)picture)->generation &= ~(uint64_t)1;
		sound += quarry_published_look(picture, size, NULL, 0, NULL, NULL) == 0;
		look_at_all(picture, size);
		free(picture);
	}
	cr_assert(sound > 50 && sound < 1450, "%zu sound", sound);
}
