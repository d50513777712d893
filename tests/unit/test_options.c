/* SPDX-License-Identifier: MIT */
/* The options: the table against a table of the test's own, every way to set one, and every way to be wrong. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/api/options.h"
#include "tests/unit/fake_stats.h"

#define RUN 1 /* may be changed while running */
#define START 0

/* As the public header and the manual have them. A change here is a change that users see. */
static const struct {
	const char *name;
	int number, runtime;
	long minimum, maximum, def;
	const char *def_text, *choices;
	_Atomic long *setting;
} expected[] = {
	{ "reclaim", 1, RUN, 0, 4, 3, "auto", "off|series|parallel|auto|timer", &qy_settings.reclaim },
	{ "reclaim_interval", 2, RUN, 1, 1L << 30, 1024, "1024", NULL, &qy_settings.reclaim_interval },
	{ "reclaim_signal", 20, START, 23, 64, 23, "23", NULL, &qy_settings.reclaim_signal },
	{ "decay_ms", 3, RUN, -1, 3600000, 1000, "1000", NULL, &qy_settings.decay_ms },
	{ "pages", 4, RUN, 0, 4, 0, "auto", "auto|base|thp|2m|1g", &qy_settings.pages },
	{ "strict", 5, RUN, 0, 1, 0, "0", NULL, &qy_settings.strict },
	{ "thp_min", 6, RUN, 0, 1L << 46, 8388608, "8388608", NULL, &qy_settings.thp_min },
	{ "numa", 7, START, 0, 1, 1, "1", NULL, &qy_settings.numa },
	{ "stats_at_exit", 8, RUN, 0, 3, 0, "off", "off|text|json|summary", &qy_settings.stats_at_exit },
	{ "leaks_at_exit", 42, RUN, 0, 2, 0, "off", "off|text|json", &qy_settings.leaks_at_exit },
	{ "report_signal", 43, START, 0, 64, 0, "0", NULL, &qy_settings.report_signal },
	{ "on_error", 9, RUN, 0, 2, 0, "ignore", "ignore|report|abort", &qy_settings.on_error },
	{ "junk", 10, RUN, 0, 1, 0, "0", NULL, &qy_settings.junk },
	{ "window", 11, START, 0, 1L << 46, 0, "0", NULL, &qy_settings.window },
	{ "large_heap", 12, RUN, 0, 1L << 46, 67108864, "67108864", NULL, &qy_settings.large_heap },
	{ "return", 13, RUN, 0, 1, 1, "1", NULL, &qy_settings.give_back },
	{ "bring_home", 14, RUN, 0, 1, 1, "1", NULL, &qy_settings.bring_home },
	{ "fork_copy", 15, RUN, 0, 1L << 46, 1073741824, "1073741824", NULL, &qy_settings.fork_copy },
	{ "idle_threads", 16, RUN, 0, 1, 1, "1", NULL, &qy_settings.idle_threads },
	{ "populate_threads", 17, RUN, 0, 16, 0, "0", NULL, &qy_settings.populate_threads },
	{ "soft_limit", 30, RUN, 0, 1L << 46, 0, "0", NULL, &qy_settings.soft_limit },
	{ "hard_limit", 31, RUN, 0, 1L << 46, 0, "0", NULL, &qy_settings.hard_limit },
	{ "breaker", 32, RUN, 0, 2, 0, "off", "off|refuse|redirect", &qy_settings.breaker },
	{ "breaker_min", 33, RUN, 1L << 16, 1L << 46, 1048576, "1048576", NULL, &qy_settings.breaker_min },
	{ "breaker_at", 34, RUN, 10, 100, 95, "95", NULL, &qy_settings.breaker_at },
	{ "cgroup_limit", 35, RUN, 0, 1, 1, "1", NULL, &qy_settings.cgroup_limit },
	{ "profile", 40, RUN, 0, 1L << 30, 0, "0", NULL, &qy_settings.profile },
	{ "profile_stacks", 41, RUN, 0, 2, 0, "auto", "auto|tables|frames", &qy_settings.profile_stacks },
	{ "publish", 36, RUN, 0, 2, 1, "auto", "off|auto|on", &qy_settings.publish },
	{ "checked", 44, RUN, 0, 1, 0, "0", NULL, &qy_settings.checked },
};

#define EXPECTED (sizeof(expected) / sizeof(expected[0]))

static const char *get(const char *name)
{
	static char value[600];

	return quarry_ctl_get(name, value, sizeof(value)) >= 0 ? value : "(error)";
}

#define assert_refused(name, value, error, text)                                                             \
	do {                                                                                                  \
		errno = 0;                                                                                    \
		cr_assert_eq(quarry_ctl_set(name, value), -1, "%s=%s was taken", name, value);                \
		cr_assert_eq(errno, error, "%s=%s: errno %d", name, value, errno);                            \
		cr_assert(strstr(quarry_error_text(), text), "%s=%s: \"%s\" lacks \"%s\"", name, value,       \
			  quarry_error_text(), text);                                                         \
	} while (0)

/* qy_options_init with the given QUARRY_OPTIONS; what it wrote to standard error. */
static const char *init_with(const char *list)
{
	static char written[4096];
	int out[2], saved = dup(2);
	ssize_t n;

	if (list)
		setenv("QUARRY_OPTIONS", list, 1);
	cr_assert(pipe(out) == 0);
	dup2(out[1], 2);
	close(out[1]);
	errno = 12345;
	qy_options_init();
	int error = errno;
	dup2(saved, 2);
	close(saved);
	n = read(out[0], written, sizeof(written) - 1);
	close(out[0]);
	cr_assert_eq(error, 12345, "errno was changed to %d", error);
	written[n > 0 ? n : 0] = '\0';
	return written;
}

Test(options, table_is_as_promised)
{
	quarry_option_info info;

	for (size_t i = 0; i < EXPECTED; i++) {
		cr_assert_eq(quarry_option_describe((int)i, &info), 0);
		cr_assert_str_eq(info.name, expected[i].name);
		cr_assert_eq(info.number, expected[i].number, "%s", info.name);
		cr_assert_eq(info.runtime, expected[i].runtime, "%s", info.name);
		cr_assert_eq(info.minimum, expected[i].minimum, "%s", info.name);
		cr_assert_eq(info.maximum, expected[i].maximum, "%s", info.name);
		cr_assert_eq(info.def, expected[i].def, "%s", info.name);
		cr_assert_eq(info.value, expected[i].def, "%s: not its default before anything ran", info.name);
		cr_assert_eq(atomic_load(expected[i].setting), expected[i].def, "%s: another field", info.name);
		cr_assert_str_eq(get(info.name), expected[i].def_text);
		if (expected[i].choices)
			cr_assert_str_eq(info.choices, expected[i].choices);
		else
			cr_assert_null(info.choices);
		cr_assert(strlen(info.help) > 10 && strlen(info.help) <= 74 && !strchr(info.help, '\n'),
			  "%s: one line of help, in 80 columns with six before it", info.name);
	}
	cr_assert_eq(quarry_option_describe((int)EXPECTED, &info), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_option_describe(-1, &info), -1);
	cr_assert_eq(quarry_option_describe(0, NULL), -1);
	cr_assert_str_eq(quarry_error_text(), "", "reading the list is no failure");
}

/* Every runtime option takes both ends of its range by name and by number, nothing past them, and keeps its value
 * when it refuses. Each writes its own field and no other. */
Test(options, ranges)
{
	char text[32];

	for (size_t i = 0; i < EXPECTED; i++) {
		const long ends[2] = { expected[i].minimum, expected[i].maximum };
		if (expected[i].runtime == START)
			continue;
		for (int e = 0; e < 2; e++) {
			struct qy_settings before = qy_settings;
			snprintf(text, sizeof(text), "%ld", ends[e]);
			cr_assert_eq(quarry_ctl_set(expected[i].name, text), 0, "%s=%s", expected[i].name, text);
			cr_assert_eq(atomic_load(expected[i].setting), ends[e]);
			for (size_t j = 0; j < EXPECTED; j++) {
				size_t field = (size_t)((char *)expected[j].setting - (char *)&qy_settings);
				if (j != i)
					cr_assert_eq(memcmp((char *)&before + field, expected[j].setting, sizeof(long)), 0,
						     "%s changed %s", expected[i].name, expected[j].name);
			}
			atomic_store(expected[i].setting, expected[i].def);
			cr_assert_eq(quarry_mallopt(expected[i].number, ends[e]), 1);
			cr_assert_eq(atomic_load(expected[i].setting), ends[e]);
			snprintf(text, sizeof(text), "%ld", ends[e] + (e ? 1 : -1));
			assert_refused(expected[i].name, text, EINVAL, expected[i].name);
			assert_refused(expected[i].name, text, EINVAL, text);
			errno = 0;
			cr_assert_eq(quarry_mallopt(expected[i].number, ends[e] + (e ? 1 : -1)), 0);
			cr_assert_eq(errno, EINVAL);
			cr_assert(strstr(quarry_error_text(), expected[i].name));
			cr_assert_eq(atomic_load(expected[i].setting), ends[e], "a refused value was kept");
		}
	}
}

/* What quarry_ctl_get says, quarry_ctl_set takes. */
Test(options, round_trip)
{
	for (size_t i = 0; i < EXPECTED; i++) {
		char value[64];
		if (expected[i].runtime == START)
			continue;
		for (long v = expected[i].minimum; v <= expected[i].maximum && v <= 4; v++) {
			cr_assert_eq(quarry_mallopt(expected[i].number, v), 1);
			cr_assert(quarry_ctl_get(expected[i].name, value, sizeof(value)) > 0);
			cr_assert_eq(quarry_mallopt(expected[i].number, expected[i].def), 1);
			cr_assert_eq(quarry_ctl_set(expected[i].name, value), 0);
			cr_assert_eq(atomic_load(expected[i].setting), v, "%s: %ld read back as %s", expected[i].name, v,
				     value);
		}
	}
}

Test(options, sizes_take_suffixes_and_nothing_else_does)
{
	static const struct {
		const char *text;
		long value; /* -1: refused */
	} sizes[] = { { "0", 0 },	{ "1k", 1024 },	    { "3K", 3072 },	{ "64m", 64L << 20 },
		      { "2G", 2L << 30 }, { "1t", 1L << 40 }, { "64t", 1L << 46 }, { "65t", -1 },
		      { "0007", 7 },	{ "1kb", -1 },	    { "k", -1 },	{ "", -1 },
		      { " 1", -1 },	{ "1 k", -1 },	    { "+1", -1 },	{ "-1k", -1 },
		      { "0x10", -1 },	{ "1.5m", -1 },	    { "1e3", -1 },	{ "9223372036854775807", -1 },
		      { "9223372036854775808", -1 }, { "18446744073709551616", -1 }, { "9007199254740993k", -1 },
		      { "99999999999999t", -1 }, { "1@", -1 }, { "1\v", -1 } };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		atomic_store(&qy_settings.thp_min, 5);
		if (sizes[i].value >= 0) {
			cr_assert_eq(quarry_ctl_set("thp_min", sizes[i].text), 0, "'%s'", sizes[i].text);
			cr_assert_eq(qy_setting(thp_min), sizes[i].value, "'%s'", sizes[i].text);
		} else {
			assert_refused("thp_min", sizes[i].text, EINVAL, "thp_min");
			cr_assert_eq(qy_setting(thp_min), 5);
		}
	}
	assert_refused("decay_ms", "1k", EINVAL, "-1 to 3600000");
	assert_refused("reclaim_interval", "1k", EINVAL, "reclaim_interval");
	assert_refused("junk", "1k", EINVAL, "junk");
}

Test(options, words)
{
	static const char *const yes[] = { "1", "on", "yes", "ON", "Yes" }, *const no[] = { "0", "off", "no", "OFF" };

	for (size_t i = 0; i < 5; i++) {
		atomic_store(&qy_settings.junk, 0);
		cr_assert(quarry_ctl_set("junk", yes[i]) == 0 && qy_setting(junk) == 1, "%s", yes[i]);
	}
	for (size_t i = 0; i < 4; i++) {
		atomic_store(&qy_settings.junk, 1);
		cr_assert(quarry_ctl_set("junk", no[i]) == 0 && qy_setting(junk) == 0, "%s", no[i]);
	}
	assert_refused("junk", "maybe", EINVAL, "0|1|off|on|no|yes");
	assert_refused("junk", "o", EINVAL, "junk");
	assert_refused("junk", "off|on", EINVAL, "junk");
	cr_assert(quarry_ctl_set("reclaim", "parallel") == 0 && qy_setting(reclaim) == QY_RECLAIM_PARALLEL);
	cr_assert(quarry_ctl_set("reclaim", "Off") == 0 && qy_setting(reclaim) == QY_RECLAIM_OFF);
	cr_assert(quarry_ctl_set("pages", "2m") == 0 && qy_setting(pages) == QUARRY_PAGES_2M);
	cr_assert(quarry_ctl_set("pages", "1g") == 0 && qy_setting(pages) == QUARRY_PAGES_1G);
	cr_assert_str_eq(get("pages"), "1g");
	assert_refused("pages", "4k", EINVAL, "auto|base|thp|2m|1g");
	assert_refused("reclaim", "par", EINVAL, "'par' is not one of off|series|parallel|auto|timer");
	assert_refused("reclaim", "", EINVAL, "reclaim");
}

Test(options, unknown_names_are_named_and_the_likely_one_told)
{
	static const char *const pairs[][2] = { { "decay", "decay_ms" }, { "reclame", "reclaim" }, { "page", "pages" },
						{ "Junk", "junk" }, { "thpmin", "thp_min" }, { "nume", "numa" },
						{ "stats_at_exti", "stats_at_exit" }, { "heap", "large_heap" } };
	char long_name[300];

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		char want[64];
		snprintf(want, sizeof(want), "did you mean '%s'?", pairs[i][1]);
		assert_refused(pairs[i][0], "1", ENOENT, pairs[i][0]);
		assert_refused(pairs[i][0], "1", ENOENT, want);
	}
	assert_refused("frobnicate", "1", ENOENT, "unknown option 'frobnicate'");
	cr_assert_null(strstr(quarry_error_text(), "did you mean"));
	assert_refused("", "1", ENOENT, "unknown option ''");
	cr_assert_null(strstr(quarry_error_text(), "did you mean"));
	assert_refused("a\033[2J\n", "1", ENOENT, "'a?[2J?'");
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_refused(long_name, "1", ENOENT, "xxx...'");
	cr_assert_eq(quarry_ctl_set(NULL, "1"), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_ctl_set("junk", NULL), -1);
	cr_assert_eq(errno, EINVAL);
}

Test(options, some_only_at_start)
{
	assert_refused("window", "1g", EPERM, "'window' can only be set at start");
	assert_refused("numa", "0", EPERM, "'numa'");
	assert_refused("window", "wide", EINVAL, "'wide'");
	errno = 0;
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_WINDOW, 0), 0);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_NUMA, 0), 0);
	cr_assert_eq(qy_setting(numa), 1);
	cr_assert_str_eq(init_with("window=1g,numa=no"), "");
	cr_assert_eq(qy_setting(window), 1L << 30);
	cr_assert_eq(qy_setting(numa), 0);
}

/* Whose handler would keep from the program what the user sends it: Ctrl-C, kill, a child's end. */
Test(options, a_signal_that_others_send_is_refused)
{
	static const int wrong[] = { 1, 2, 9, 10, 11, 14, 15, 17, 18, 20, 29, 31, 32, 33 };
	static const int right[] = { 23, 28, 34, 40, 64 };
	char list[64];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(list, sizeof(list), "reclaim_signal=%d", wrong[i]);
		assert_refused("options_check", list, EINVAL, "reclaim_signal");
		snprintf(list, sizeof(list), "'%d' is not 23 (SIGURG)", wrong[i]);
		cr_assert(strstr(quarry_error_text(), list), "%s", quarry_error_text());
	}
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		snprintf(list, sizeof(list), "reclaim_signal=%d", right[i]);
		cr_assert_eq(quarry_ctl_set("options_check", list), 0, "%s", quarry_error_text());
	}
	assert_refused("options_check", "reclaim_signal=65", EINVAL, "reclaim_signal");
	init_with("reclaim_signal=15");
	cr_assert_eq(atomic_load(&qy_settings.reclaim_signal), 23);
	init_with("reclaim_signal=28");
	cr_assert_eq(atomic_load(&qy_settings.reclaim_signal), 28);
}

Test(options, signals_by_name_and_number)
{
	static const struct {
		const char *list;
		long value;
	} right[] = { { "report_signal=usr1", SIGUSR1 }, { "report_signal=SIGUSR2", SIGUSR2 }, { "report_signal=12", SIGUSR2 },
		      { "report_signal=sigurg", SIGURG }, { "report_signal=off", 0 }, { "report_signal=winch", SIGWINCH },
		      { "report_signal=40", 40 }, { "report_signal=0", 0 } };
	static const char *const wrong[] = { "report_signal=kill", "report_signal=9", "report_signal=sig", "report_signal=15",
					     "report_signal=65", "report_signal=usr", "report_signal=", "report_signal=usr11" };

	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		init_with(right[i].list);
		cr_assert_eq(atomic_load(&qy_settings.report_signal), right[i].value, "%s", right[i].list);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_refused("options_check", wrong[i], EINVAL, "is not 0, usr1, usr2");
	assert_refused("options_check", "reclaim_signal=usr1", EINVAL, "reclaim_signal");
	init_with("reclaim_signal=winch");
	cr_assert_eq(atomic_load(&qy_settings.reclaim_signal), SIGWINCH);
	assert_refused("report_signal", "usr1", EPERM, "report_signal");
}

/* Who sleeps for as long as the value of before allowed is told, whichever way it is set, and only then. */
Test(options, a_change_of_decay_is_told)
{
	cr_assert_eq(quarry_ctl_set("decay_ms", "50"), 0);
	cr_assert_eq(fake_looks, 1);
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_DECAY_MS, 60), 1);
	cr_assert_eq(fake_looks, 2);
	cr_assert_eq(quarry_mallopt(-1, -1), 1);
	cr_assert_eq(fake_looks, 3);
	cr_assert_eq(quarry_mallopt(-1, 1), 1);
	cr_assert_eq(fake_looks, 4);
	cr_assert_eq(quarry_ctl_set("soft_limit", "1g"), 0);
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_SOFT_LIMIT, 0), 1);
	cr_assert_eq(fake_looks, 6);
	cr_assert_eq(quarry_ctl_set("junk", "1"), 0);
	cr_assert_eq(quarry_ctl_set("decay_ms", "-2"), -1);
	cr_assert_eq(fake_looks, 6);
}

Test(options, glibc_parameters)
{
	for (int parameter = -8; parameter <= -1; parameter++)
		cr_assert_eq(quarry_mallopt(parameter, 1 << 20), 1, "%d", parameter);
	cr_assert(quarry_mallopt(-1, -1) == 1 && qy_setting(decay_ms) == -1, "M_TRIM_THRESHOLD -1 is never trim");
	cr_assert(quarry_mallopt(-1, 65536) == 1 && qy_setting(decay_ms) == 1000);
	atomic_store(&qy_settings.decay_ms, 50);
	cr_assert(quarry_mallopt(-1, 65536) == 1 && qy_setting(decay_ms) == 50, "a decay of the user's own stays");
	cr_assert(quarry_mallopt(-5, 0) == 1 && qy_setting(on_error) == QY_ERROR_IGNORE);
	cr_assert(quarry_mallopt(-5, 1) == 1 && qy_setting(on_error) == QY_ERROR_REPORT);
	cr_assert(quarry_mallopt(-5, 2) == 1 && qy_setting(on_error) == QY_ERROR_ABORT);
	cr_assert(quarry_mallopt(-5, 3) == 1 && qy_setting(on_error) == QY_ERROR_ABORT);
	cr_assert(quarry_mallopt(-5, 5) == 1 && qy_setting(on_error) == QY_ERROR_REPORT);
	cr_assert(quarry_mallopt(-6, 0xa5) == 1 && qy_setting(junk) == 1);
	cr_assert(quarry_mallopt(-6, 0) == 1 && qy_setting(junk) == 0);
	for (size_t i = 0; i < 3; i++) {
		static const int none[] = { 0, -9, 99 };
		errno = 0;
		cr_assert_eq(quarry_mallopt(none[i], 1), 0);
		cr_assert_eq(errno, EINVAL);
		cr_assert(strstr(quarry_error_text(), "no option has the number"));
	}
}

/* malloc calls this; its errno is the program's. */
Test(environment, errno_is_kept_when_there_is_no_standard_error)
{
	int saved = dup(2), error;

	setenv("QUARRY_OPTIONS", "decay=5", 1);
	close(2);
	errno = 12345;
	qy_options_init();
	error = errno;
	dup2(saved, 2);
	close(saved);
	cr_assert_eq(error, 12345, "errno was changed to %d", error);
	cr_assert(strstr(get("options_error"), "'decay'"));
}

/* What a program sets before it allocates must not be undone by an initialisation that comes later. */
Test(options, initialise_first)
{
	quarry_option_info info;
	int before = fake_inits;

	quarry_ctl_set("junk", "1");
	cr_assert_eq(fake_inits, before + 1);
	quarry_mallopt(QUARRY_OPT_JUNK, 1);
	cr_assert_eq(fake_inits, before + 2);
	quarry_ctl_get("junk", NULL, 0);
	cr_assert_eq(fake_inits, before + 3);
	quarry_option_describe(0, &info);
	cr_assert_eq(fake_inits, before + 4);
}

Test(environment, right_ones_apply)
{
	cr_assert_str_eq(init_with("decay_ms=250,reclaim=series, thp_min = 1g ,,\tjunk=on\n,strict=0,strict=1"), "");
	cr_assert_eq(qy_setting(decay_ms), 250);
	cr_assert_eq(qy_setting(reclaim), QY_RECLAIM_SERIES);
	cr_assert_eq(qy_setting(thp_min), 1L << 30);
	cr_assert_eq(qy_setting(junk), 1);
	cr_assert_eq(qy_setting(strict), 1, "of two for one option the later counts");
	cr_assert_str_eq(get("options_error"), "");
}

Test(environment, wrong_ones_are_told_in_one_line_and_the_rest_applies)
{
	const char *said = init_with("decay=5,decay_ms=77,reclaim=never,junk,=3,large_heap=1q,pages=thp");

	cr_assert_eq(strncmp(said, "quarry: QUARRY_OPTIONS: ", 24), 0, "%s", said);
	cr_assert_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
	cr_assert(strstr(said, "unknown option 'decay', did you mean 'decay_ms'?"), "%s", said);
	cr_assert(strstr(said, "option 'reclaim': 'never' is not one of"), "%s", said);
	cr_assert(strstr(said, "option 'junk' has no value"), "%s", said);
	cr_assert(strstr(said, "unknown option ''"), "%s", said);
	cr_assert(strstr(said, "'1q'"), "%s", said);
	cr_assert_eq(qy_setting(decay_ms), 77);
	cr_assert_eq(qy_setting(pages), QUARRY_PAGES_THP);
	cr_assert_eq(qy_setting(reclaim), QY_RECLAIM_AUTO);
	cr_assert_eq(qy_setting(large_heap), 67108864);
	cr_assert(strstr(get("options_error"), "did you mean 'decay_ms'?; option 'reclaim'"), "%s", get("options_error"));
}

Test(environment, endless_nonsense_is_cut)
{
	char *list = malloc(1 << 20);
	const char *said;

	memset(list, 'z', 1 << 20);
	for (size_t i = 10; i < 1 << 20; i += 11)
		list[i] = ',';
	list[(1 << 20) - 1] = '\0';
	said = init_with(list);
	cr_assert_lt(strlen(said), 700);
	cr_assert_eq(strchr(said, '\n'), said + strlen(said) - 1);
	free(list);
}

Test(environment, none)
{
	static char *empty[] = { NULL };

	unsetenv("QUARRY_OPTIONS");
	setenv("QUARRY_OPTIONS_X", "junk=1", 1);
	setenv("QUARRY_OPTION", "junk=1", 1);
	cr_assert_str_eq(init_with(NULL), "");
	environ = empty;
	cr_assert_str_eq(init_with(NULL), "");
	environ = NULL;
	cr_assert_str_eq(init_with(NULL), "");
	cr_assert_eq(qy_setting(junk), 0);
}

Test(ctl, checking_a_list_applies_nothing)
{
	cr_assert_eq(quarry_ctl_set("options_check", "junk=1,window=2g,numa=0"), 0);
	cr_assert_eq(quarry_ctl_set("options_check", ""), 0);
	assert_refused("options_check", "junk=1,windw=2g", ENOENT, "did you mean 'window'");
	assert_refused("options_check", "junk=2", EINVAL, "junk");
	cr_assert_eq(qy_setting(junk), 0);
	cr_assert_eq(qy_setting(window), 0);
	cr_assert_eq(qy_setting(numa), 1);
}

Test(ctl, get_is_as_snprintf)
{
	char small[4] = "zzz";

	cr_assert_str_eq(get("version"), "9.8.7");
	cr_assert_eq(quarry_ctl_get("thp_min", NULL, 0), 7);
	cr_assert_eq(quarry_ctl_get("thp_min", small, sizeof(small)), 7);
	cr_assert_str_eq(small, "838");
	cr_assert_eq(quarry_ctl_get("reclaim", small, 1), 4);
	cr_assert_str_eq(small, "");
	errno = 0;
	cr_assert_eq(quarry_ctl_get("thp_min", NULL, 4), -1);
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_eq(quarry_ctl_get(NULL, small, 4), -1);
	cr_assert_eq(errno, EINVAL);
	errno = 0;
	cr_assert_eq(quarry_ctl_get("decay", small, 4), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert(strstr(quarry_error_text(), "did you mean 'decay_ms'"));
}

Test(ctl, figures_by_name)
{
	static const char *const none[] = { "stats.", "stats.mappe", "stats.nowhere.mapped", "stats..mapped",
					    "stats.kind_got", "stats.kind_got.4k", "stats.refused.mapped",
					    "stats.node 0.", "stats.node 0", "stats.name", "stats" };
	char name[64];

	fake_total.mapped = 123456789012;
	fake_total.kind_got[QUARRY_PAGES_THP] = 77;
	fake_total.refused[QUARRY_REFUSED_MBIND_EPERM] = 3;
	fake_total.reclaimer = 1;
	fake_arena("node 0", 0)->mapped = 1;
	fake_arena("a.b", -1)->kind_got[QUARRY_PAGES_2M] = 2;
	fake_arena("mapped", -1)->mapped = 3;
	fake_arena("0123456789012345678901234567890x", -1)->in_use = 4; /* all 32 bytes, no 0 at the end */
	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "arena %d", i);
		fake_arena(name, -1)->resident = (uint64_t)i;
	}
	cr_assert_str_eq(get("stats.mapped"), "123456789012");
	cr_assert_str_eq(get("stats.reclaimer"), "1");
	cr_assert_str_eq(get("stats.kind_got.thp"), "77");
	cr_assert_str_eq(get("stats.refused.mbind-eperm"), "3");
	cr_assert_str_eq(get("stats.node 0.mapped"), "1");
	cr_assert_str_eq(get("stats.a.b.kind_got.2m"), "2");
	cr_assert_str_eq(get("stats.mapped.mapped"), "3");
	cr_assert_str_eq(get("stats.0123456789012345678901234567890x.in_use"), "4");
	cr_assert_str_eq(get("stats.arena 2999.resident"), "2999");
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		errno = 0;
		cr_assert_str_eq(get(none[i]), "(error)", "%s", none[i]);
		cr_assert_eq(errno, ENOENT, "%s", none[i]);
		cr_assert(strstr(quarry_error_text(), none[i]), "%s", none[i]);
	}
}

static void *fail_once(void *text)
{
	cr_assert_str_eq(quarry_error_text(), "", "another thread's error was seen");
	quarry_ctl_set("frobnicate", "1");
	strcpy(text, quarry_error_text());
	return NULL;
}

static void *fail_often(void *unused)
{
	for (int i = 0; i < 1000; i++)
		quarry_ctl_set("somethingelse", "1");
	return unused;
}

Test(error_text, is_the_threads_own)
{
	char text[256] = "";
	pthread_t thread;

	cr_assert_str_eq(quarry_error_text(), "");
	cr_assert_eq(qy_fail(ENOSPC, "field '%s' is %d", "nodes", -7), -1);
	cr_assert_eq(errno, ENOSPC);
	pthread_create(&thread, NULL, fail_once, text);
	pthread_join(thread, NULL);
	cr_assert_str_eq(text, "unknown option 'frobnicate'");
	cr_assert_str_eq(quarry_error_text(), "field 'nodes' is -7");
	cr_assert_eq(quarry_ctl_set("junk", "0"), 0);
	cr_assert_str_eq(quarry_error_text(), "field 'nodes' is -7", "a success keeps the last failure");
	pthread_create(&thread, NULL, fail_often, NULL);
	pthread_join(thread, NULL);
	cr_assert_null(strstr(quarry_error_text(), "somethingelse"), "another thread's error was given");
	cr_assert(strstr(quarry_error_text(), "made room"));
}

Test(options, profile_is_begun_and_ended)
{
	cr_expect_eq(quarry_ctl_set("profile", "64k"), 0);
	cr_expect_eq(fake_mean, 65536);
	cr_expect_eq(quarry_ctl_set("profile", "2g"), -1);
	cr_expect_eq(fake_mean, 65536);
	cr_expect_eq(quarry_ctl_set("profile", "0"), 0);
	cr_expect_eq(fake_mean, 0);
}
