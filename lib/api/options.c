/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* environ, memmem */
#endif
#include "lib/api/options.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/figures.h"
#include "lib/api/init.h"
#include "lib/base/text.h"
#include "lib/cache/sample.h"
#include "lib/cache/thread.h"

#define VARIABLE "QUARRY_OPTIONS"
#define QUOTED_MAX 40     /* characters of a wrong name or value that an error repeats */
#define ADDRESS_MAX (1L << 46) /* bytes; half of what a process can have on x86-64 with four levels of pages */

/* ------------------------------------------------------------------------------------------------------ */
/* The table                                                                                              */

enum kind {
	KIND_NUMBER,
	KIND_SIZE,   /* a number of bytes; takes the suffixes k, m, g and t */
	KIND_FLAG,   /* 0 or 1; takes off, on, no and yes */
	KIND_CHOICE, /* one of the names in choices, counted from 0 */
	KIND_SIGNAL, /* the number or name of one; where 0 is none, one that somebody sends, else one that means nothing
	              * to a program which does not handle it */
};

/* number, name, field of qy_settings, kind, minimum, maximum, default, runtime, choices, help */
#define OPTIONS(X)                                                                                                    \
	X(QUARRY_OPT_RECLAIM, "reclaim", reclaim, KIND_CHOICE, 0, 4, QY_RECLAIM_AUTO, 1, \
	  "off|series|parallel|auto|timer",                                                                           \
	  "who tidies up: nobody, threads in passing, a thread, as needed, a signal")                                 \
	X(QUARRY_OPT_RECLAIM_INTERVAL, "reclaim_interval", reclaim_interval, KIND_NUMBER, 1, 1L << 30, 1024, 1, NULL, \
	  "slow-path calls between two passes of the reclaimer in series")                                            \
	X(QUARRY_OPT_RECLAIM_SIGNAL, "reclaim_signal", reclaim_signal, KIND_SIGNAL, 23, 64, SIGURG, 0, NULL,          \
	  "the signal of reclaim=timer: 23 (URG), 28 (WINCH) or a real-time one")                                    \
	X(QUARRY_OPT_DECAY_MS, "decay_ms", decay_ms, KIND_NUMBER, -1, 3600000, 1000, 1, NULL,                         \
	  "free memory goes back after about so many ms; -1 under high pressure only")                                \
	X(QUARRY_OPT_PAGES, "pages", pages, KIND_CHOICE, 0, 4, QUARRY_PAGES_AUTO, 1, "auto|base|thp|2m|1g",           \
	  "the highest page kind that the nodes' default arenas try for new memory")                                  \
	X(QUARRY_OPT_STRICT, "strict", strict, KIND_FLAG, 0, 1, 0, 1, NULL,                                           \
	  "default arenas fail rather than fall to another node or page kind")                                        \
	X(QUARRY_OPT_THP_MIN, "thp_min", thp_min, KIND_SIZE, 0, ADDRESS_MAX, 8L << 20, 1, NULL,                       \
	  "bytes in use, or half of one block, from which new memory is born huge")                                        \
	X(QUARRY_OPT_NUMA, "numa", numa, KIND_FLAG, 0, 1, 1, 0, NULL,                                                 \
	  "follow the machine's memory nodes; 0 treats it as one node")                                               \
	X(QUARRY_OPT_STATS_AT_EXIT, "stats_at_exit", stats_at_exit, KIND_CHOICE, 0, 3, 0, 1, "off|text|json|summary", \
	  "write the statistics to standard error when the program ends")                                             \
	X(QUARRY_OPT_LEAKS_AT_EXIT, "leaks_at_exit", leaks_at_exit, KIND_CHOICE, 0, 2, 0, 1, "off|text|json",         \
	  "write what cannot be reached to standard error when the program ends")                                     \
	X(QUARRY_OPT_REPORT_SIGNAL, "report_signal", report_signal, KIND_SIGNAL, 0, 64, 0, 0, NULL,                   \
	  "at this signal (usr1, usr2, ...) all is written that is at the end; 0 none")                           \
	X(QUARRY_OPT_ON_ERROR, "on_error", on_error, KIND_CHOICE, 0, 2, QY_ERROR_IGNORE, 1, "ignore|report|abort",    \
	  "at a bad free: count it, say so on standard error too, or end the program")                                \
	X(QUARRY_OPT_JUNK, "junk", junk, KIND_FLAG, 0, 1, 0, 1, NULL,                                                 \
	  "overwrite what is freed, to show use after free")                                                          \
	X(QUARRY_OPT_WINDOW, "window", window, KIND_SIZE, 0, ADDRESS_MAX, 0, 0, NULL,                                 \
	  "bytes of address space to reserve; 0 goes by the machine's memory")                                        \
	X(QUARRY_OPT_LARGE_HEAP, "large_heap", large_heap, KIND_SIZE, 0, ADDRESS_MAX, 64L << 20, 1, NULL,                \
	  "bytes mapped from which reclaim=auto starts the reclaimer's thread")                                       \
	X(QUARRY_OPT_RETURN, "return", give_back, KIND_FLAG, 0, 1, 1, 1, NULL,                                        \
	  "give memory back to the kernel; 0 never does (for RDMA)")                                                  \
	X(QUARRY_OPT_BRING_HOME, "bring_home", bring_home, KIND_FLAG, 0, 1, 1, 1, NULL,                               \
	  "move pages that strayed to another node home when there is room")                                          \
	X(QUARRY_OPT_FORK_COPY, "fork_copy", fork_copy, KIND_SIZE, 0, ADDRESS_MAX, 1L << 30, 1, NULL,                 \
	  "bytes of hugetlb memory and of files that a fork copies for the child")                                    \
	X(QUARRY_OPT_IDLE_THREADS, "idle_threads", idle_threads, KIND_FLAG, 0, 1, 1, 1, NULL,                         \
	  "a blocked thread's caches go back, after decay_ms / 4 without a refill")                                   \
	X(QUARRY_OPT_POPULATE_THREADS, "populate_threads", populate_threads, KIND_NUMBER, 0, 16, 0, 1, NULL,          \
	  "threads at most that fill a large range; 0 by the CPUs, 1 the caller alone")                               \
	X(QUARRY_OPT_SOFT_LIMIT, "soft_limit", soft_limit, KIND_SIZE, 0, ADDRESS_MAX, 0, 1, NULL,                     \
	  "bytes from which the process keeps no free memory; 0 none")                                                \
	X(QUARRY_OPT_HARD_LIMIT, "hard_limit", hard_limit, KIND_SIZE, 0, ADDRESS_MAX, 0, 1, NULL,                     \
	  "bytes in use beyond which the process gets ENOMEM; 0 none")                                                \
	X(QUARRY_OPT_BREAKER, "breaker", breaker, KIND_CHOICE, 0, 2, QY_BREAKER_OFF, 1, "off|refuse|redirect",        \
	  "what becomes of large requests when a limit is near")                                                      \
	X(QUARRY_OPT_BREAKER_MIN, "breaker_min", breaker_min, KIND_SIZE, 1L << 16, ADDRESS_MAX, 1L << 20, 1, NULL,           \
	  "bytes from which a request is large for the breaker")                                         \
	X(QUARRY_OPT_BREAKER_AT, "breaker_at", breaker_at, KIND_NUMBER, 10, 100, 95, 1, NULL,                         \
	  "per cent of the tightest limit at which the breaker opens")                                                \
	X(QUARRY_OPT_CGROUP_LIMIT, "cgroup_limit", cgroup_limit, KIND_FLAG, 0, 1, 1, 1, NULL,                         \
	  "ENOMEM before the control group's memory limit kills; 0: the kernel's way")                                \
	X(QUARRY_OPT_PROFILE, "profile", profile, KIND_SIZE, 0, 1L << 30, 0, 1, NULL,                                 \
	  "bytes allocated from one sample of the heap profile to the next; 0 none")                                  \
	X(QUARRY_OPT_PROFILE_STACKS, "profile_stacks", profile_stacks, KIND_CHOICE, 0, 2, 0, 1, "auto|tables|frames", \
	  "how stacks are found: unwind tables, or frame pointers (faster)")                                          \
	X(QUARRY_OPT_PUBLISH, "publish", publish, KIND_CHOICE, 0, 2, QY_PUBLISH_AUTO, 1, "off|auto|on",               \
	  "figures in a page for quarry top: by the reclaimer's thread, or by all")                                   \
	X(QUARRY_OPT_CHECKED, "checked", checked, KIND_FLAG, 0, 1, 0, 1, NULL,                                        \
	  "blocks with counts: hold back what ended, and find late uses")

struct option {
	const char *name;
	const char *help;
	const char *choices;
	size_t field; /* offset in struct qy_settings */
	long minimum, maximum, def;
	int number;
	enum kind kind;
	bool runtime;
};

#define AS_OPTION(number_, name_, field_, kind_, minimum_, maximum_, default_, runtime_, choices_, help_) \
	{ name_, help_, choices_, offsetof(struct qy_settings, field_), minimum_, maximum_, default_, number_, \
	  kind_, runtime_ },
#define AS_DEFAULT(number_, name_, field_, kind_, minimum_, maximum_, default_, runtime_, choices_, help_) \
	.field_ = (default_),

static const struct option options[] = { OPTIONS(AS_OPTION) };
struct qy_settings qy_settings = { OPTIONS(AS_DEFAULT) };

#define OPTION_COUNT ((int)(sizeof(options) / sizeof(options[0])))

static _Atomic long *setting_of(const struct option *o)
{
	return (_Atomic long *)(void *)((char *)&qy_settings + o->field);
}

static long option_value(const struct option *o)
{
	return atomic_load_explicit(setting_of(o), memory_order_relaxed);
}

static void option_store(const struct option *o, long value)
{
	atomic_store_explicit(setting_of(o), value, memory_order_relaxed);
}

void (*_Atomic qy_options_unchecked)(void);

/* What was held back by the option is let go. */
static void tell_unchecked(void)
{
	void (*fn)(void) = atomic_exchange_explicit(&qy_options_unchecked, NULL, memory_order_acq_rel);

	if (fn != NULL)
		fn();
}

/* While the program runs: who waits for what was due by the value of before is told. */
static void option_change(const struct option *o, long value)
{
	option_store(o, value);
	if (o->number == QUARRY_OPT_DECAY_MS || o->number == QUARRY_OPT_SOFT_LIMIT)
		qy_thread_look();
	if (o->number == QUARRY_OPT_PROFILE || o->number == QUARRY_OPT_PROFILE_STACKS)
		qy_sampling_start((uint64_t)qy_setting(profile), (int)qy_setting(profile_stacks));
	if (o->number == QUARRY_OPT_CHECKED && value == 0)
		tell_unchecked();
}

static const struct option *option_by_name(const char *name, size_t length)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
			return &options[i];
	}
	return NULL;
}

static const struct option *option_by_number(int number)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (options[i].number == number)
			return &options[i];
	}
	return NULL;
}

/* ------------------------------------------------------------------------------------------------------ */
/* From text to values                                                                                    */

/* One complaint in a text that may hold several. */
static void complain(struct qy_text *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct qy_text *why, const char *format, ...)
{
	va_list list;

	if (why->total)
		qy_text_put(why, "; ", 2);
	va_start(list, format);
	qy_text_vformat(why, format, list);
	va_end(list);
}

/* How many characters must be put in, taken out or exchanged to make one word from the other; at most 99. */
static unsigned edit_distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned char row[32];

	if (na >= sizeof(row) || nb >= sizeof(row))
		return 99;
	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned char)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned char)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			unsigned insert = row[j - 1] + 1u, erase = row[j] + 1u;
			diagonal = row[j];
			row[j] = (unsigned char)qy_min(change, qy_min(insert, erase));
		}
	}
	return row[nb];
}

/* The option that was likely meant: one that holds what was written, else the nearest that is near. */
static const struct option *option_like(const char *name, size_t length)
{
	const struct option *best = NULL;
	unsigned nearest = length < 5 ? 2 : 3;

	for (int i = 0; i < OPTION_COUNT && length >= 3; i++) {
		if (memmem(options[i].name, strlen(options[i].name), name, length))
			return &options[i];
	}
	for (int i = 0; i < OPTION_COUNT; i++) {
		unsigned d = edit_distance(name, length, options[i].name, strlen(options[i].name));
		if (d < nearest) {
			nearest = d;
			best = &options[i];
		}
	}
	return best;
}

static int unknown_option(struct qy_text *why, const char *name, size_t length)
{
	const struct option *like = option_like(name, length);

	complain(why, "unknown option '");
	qy_text_quoted(why, name, length, QUOTED_MAX);
	qy_text_put(why, "'", 1);
	if (like)
		qy_text_format(why, ", did you mean '%s'?", like->name);
	return ENOENT;
}

static int out_of_range(struct qy_text *why, const struct option *o, const char *value, size_t length)
{
	complain(why, "option '%s': '", o->name);
	qy_text_quoted(why, value, length, QUOTED_MAX);
	if (o->choices)
		qy_text_format(why, "' is not one of %s", o->choices);
	else if (o->kind == KIND_FLAG)
		qy_text_format(why, "' is not one of 0|1|off|on|no|yes");
	else if (o->kind == KIND_SIGNAL && o->minimum == 0)
		qy_text_format(why, "' is not 0, usr1, usr2, urg, winch or a number from %d to %d (SIGRTMIN to SIGRTMAX)",
			       SIGRTMIN, SIGRTMAX);
	else if (o->kind == KIND_SIGNAL)
		qy_text_format(why, "' is not %d (SIGURG), %d (SIGWINCH) or a number from %d to %d (SIGRTMIN to SIGRTMAX): "
			       "any other may be sent to the program, and would be lost",
			       SIGURG, SIGWINCH, SIGRTMIN, SIGRTMAX);
	else
		qy_text_format(why, "' is not a number from %ld to %ld%s", o->minimum, o->maximum,
			       o->kind == KIND_SIZE ? " (k, m, g and t may follow)" : "");
	return EINVAL;
}

/* The length of the index-th of the names in "a|b|c", and where it starts; 0 past the last. */
static size_t choice_at(const char *choices, long index, const char **start)
{
	for (; index > 0 && choices; index--) {
		choices = strchr(choices, '|');
		choices = choices ? choices + 1 : NULL;
	}
	*start = choices;
	return choices ? strcspn(choices, "|") : 0;
}

static bool word_is(const char *text, size_t length, const char *word, size_t word_length)
{
	return length == word_length && strncasecmp(text, word, length) == 0;
}

static bool parse_word(const struct option *o, const char *text, size_t length, long *value)
{
	static const char flag_words[] = "off|on|no|yes";
	const char *words = o->kind == KIND_FLAG ? flag_words : o->choices;
	const char *word;
	size_t n;

	if (o->kind != KIND_FLAG && o->kind != KIND_CHOICE)
		return false;
	for (long i = 0; (n = choice_at(words, i, &word)) != 0; i++) {
		if (word_is(text, length, word, n)) {
			*value = o->kind == KIND_FLAG ? i % 2 : i;
			return true;
		}
	}
	return false;
}

/* With "SIG" before it, or without. */
static bool parse_signal(const char *text, size_t length, long *value)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = { { "off", 0 }, { "usr1", SIGUSR1 }, { "usr2", SIGUSR2 }, { "urg", SIGURG }, { "winch", SIGWINCH } };

	if (length > 3 && strncasecmp(text, "sig", 3) == 0) {
		text += 3;
		length -= 3;
	}
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (word_is(text, length, signals[i].name, strlen(signals[i].name))) {
			*value = signals[i].number;
			return true;
		}
	return false;
}

static bool parse_number(const char *text, size_t length, bool sizes, long *value)
{
	static const char suffixes[] = "kmgt";
	const char *end = text + length;
	bool negative = length > 0 && *text == '-';
	long n = 0;

	text += negative;
	if (text == end || *text < '0' || *text > '9')
		return false;
	for (; text < end && *text >= '0' && *text <= '9'; text++) {
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *text - '0', &n))
			return false;
	}
	if (sizes && text + 1 == end) {
		const char *suffix = strchr(suffixes, *text | 0x20);
		if (!suffix || __builtin_mul_overflow(n, 1L << (10 * (suffix - suffixes + 1)), &n))
			return false;
		text++;
	}
	*value = negative ? -n : n;
	return text == end;
}

/* Those that are ignored where the program does nothing about them, so that one that somebody sends is lost as it was
 * before; and those that mean what a program makes of them. (SIGCHLD and SIGCONT are ignored as well, but whether they
 * are handled changes what becomes of a child, and SIGCONT wakes up whoever was stopped.) */
static bool is_signal(const struct option *o, long value)
{
	if (o->minimum == 0 && (value == 0 || value == SIGUSR1 || value == SIGUSR2))
		return true;
	return value == SIGURG || value == SIGWINCH || (value >= SIGRTMIN && value <= SIGRTMAX);
}

/* A choice can also be told by its number, as in quarry_mallopt. */
static int parse_value(struct qy_text *why, const struct option *o, const char *text, size_t length, long *value)
{
	if (parse_word(o, text, length, value))
		return 0;
	if (((o->kind == KIND_SIGNAL && parse_signal(text, length, value)) ||
	     parse_number(text, length, o->kind == KIND_SIZE, value)) &&
	    *value >= o->minimum && *value <= o->maximum && (o->kind != KIND_SIGNAL || is_signal(o, *value)))
		return 0;
	return out_of_range(why, o, text, length);
}

static const char *skip_spaces(const char *s, const char *end)
{
	while (s < end && (*s == ' ' || *s == '\t' || *s == '\n'))
		s++;
	return s;
}

static const char *trim_spaces(const char *start, const char *end)
{
	while (end > start && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n'))
		end--;
	return end;
}

/* One "name=value" of a list. */
static int parse_item(struct qy_text *why, const char *item, const char *end, bool apply)
{
	const char *equals = memchr(item, '=', (size_t)(end - item));
	const char *name_end = trim_spaces(item, equals ? equals : end);
	const struct option *o = option_by_name(item, (size_t)(name_end - item));
	const char *value;
	long number;
	int error;

	if (!o)
		return unknown_option(why, item, (size_t)(name_end - item));
	if (!equals) {
		complain(why, "option '%s' has no value: write %s=...", o->name, o->name);
		return EINVAL;
	}
	value = skip_spaces(equals + 1, end);
	error = parse_value(why, o, value, (size_t)(end - value), &number);
	if (!error && apply)
		option_store(o, number);
	return error;
}

/* "name=value,name=value": all that is right applies, all that is wrong is told; of two for one name the later one
 * counts. The first error's number, or 0. */
static int parse_list(struct qy_text *why, const char *list, bool apply)
{
	int first = 0;

	while (*list) {
		const char *comma = strchr(list, ',');
		const char *end = comma ? comma : list + strlen(list);
		const char *item = skip_spaces(list, end);
		const char *item_end = trim_spaces(item, end);
		int error = item < item_end ? parse_item(why, item, item_end, apply) : 0;
		if (!first)
			first = error;
		list = comma ? comma + 1 : end;
	}
	return first;
}

/* ------------------------------------------------------------------------------------------------------ */
/* At start                                                                                               */

static char start_errors[512]; /* what was wrong with the environment's; "" when nothing was */

/* Not getenv(3): this may run before libc's constructors, and a program may bring a getenv of its own. */
static const char *environment_options(void)
{
	size_t n = strlen(VARIABLE);

	if (!environ || getauxval(AT_SECURE))
		return NULL;
	for (char **e = environ; *e; e++) {
		if (strncmp(*e, VARIABLE, n) == 0 && (*e)[n] == '=')
			return *e + n + 1;
	}
	return NULL;
}

void qy_options_init(void)
{
	const char *list = environment_options();
	char line[sizeof(start_errors) + 64];
	struct qy_text why, out;
	int saved = errno;

	qy_text_init(&why, start_errors, sizeof(start_errors), -1);
	if (list && parse_list(&why, list, true) != 0) {
		qy_text_init(&out, line, sizeof(line), STDERR_FILENO);
		qy_text_format(&out, "quarry: " VARIABLE ": %s\n", start_errors);
		qy_text_flush(&out);
	}
	errno = saved;
}

/* ------------------------------------------------------------------------------------------------------ */
/* By number                                                                                              */

/* mallopt(3)'s parameters below zero. Those above (M_MXFAST and its neighbours, 1 to 4) collide with enum
 * quarry_option and are known to the interposed mallopt alone. */
enum glibc_parameter {
	GLIBC_TRIM_THRESHOLD = -1,
	GLIBC_TOP_PAD = -2,
	GLIBC_MMAP_THRESHOLD = -3,
	GLIBC_MMAP_MAX = -4,
	GLIBC_CHECK_ACTION = -5,
	GLIBC_PERTURB = -6,
	GLIBC_ARENA_TEST = -7,
	GLIBC_ARENA_MAX = -8,
};

static int glibc_mallopt(int parameter, long value)
{
	const struct option *decay = option_by_number(QUARRY_OPT_DECAY_MS);

	switch (parameter) {
	case GLIBC_TRIM_THRESHOLD: /* -1 is "never trim"; what number else says when means nothing to a decay */
		if (value == -1)
			option_change(decay, -1);
		else if (option_value(decay) == -1)
			option_change(decay, decay->def);
		return 1;
	case GLIBC_CHECK_ACTION: /* bit 1: abort, bit 0: say so */
		option_store(option_by_number(QUARRY_OPT_ON_ERROR),
			     value & 2 ? QY_ERROR_ABORT : value & 1 ? QY_ERROR_REPORT : QY_ERROR_IGNORE);
		return 1;
	case GLIBC_PERTURB:
		option_store(option_by_number(QUARRY_OPT_JUNK), value != 0);
		return 1;
	case GLIBC_TOP_PAD: /* there is no top, no choice of mmap, no number of arenas to set: accepted, as promised */
	case GLIBC_MMAP_THRESHOLD:
	case GLIBC_MMAP_MAX:
	case GLIBC_ARENA_TEST:
	case GLIBC_ARENA_MAX:
		return 1;
	}
	qy_fail(EINVAL, "quarry_mallopt: no option has the number %d", parameter);
	return 0;
}

int quarry_mallopt(int number, long value)
{
	const struct option *o = option_by_number(number);

	qy_init_once(); /* else the environment's options would come later and undo this one */
	if (!o)
		return glibc_mallopt(number, value);
	if (!o->runtime) {
		qy_fail(EPERM, "option '%s' can only be set at start, by " VARIABLE, o->name);
		return 0;
	}
	if (value < o->minimum || value > o->maximum) {
		qy_fail(EINVAL, "option '%s': %ld is not from %ld to %ld", o->name, value, o->minimum, o->maximum);
		return 0;
	}
	option_change(o, value);
	return 1;
}

int quarry_option_describe(int index, quarry_option_info *info)
{
	const struct option *o = &options[index >= 0 && index < OPTION_COUNT ? index : 0];

	if (index < 0 || index >= OPTION_COUNT || !info) {
		errno = EINVAL; /* no text: walking past the last is how a list ends */
		return -1;
	}
	qy_init_once();
	*info = (quarry_option_info){
		.name = o->name,
		.help = o->help,
		.number = o->number,
		.runtime = o->runtime,
		.minimum = o->minimum,
		.maximum = o->maximum,
		.def = o->def,
		.value = option_value(o),
		.choices = o->choices,
	};
	return 0;
}

/* ------------------------------------------------------------------------------------------------------ */
/* By name                                                                                                */

static int ctl_set(struct qy_text *why, const char *name, const char *value)
{
	const struct option *o;
	long number;
	int error;

	/* A whole list, looked at and not applied: for programs that set the variable for others. */
	if (strcmp(name, "options_check") == 0)
		return parse_list(why, value, false);
	o = option_by_name(name, strlen(name));
	if (!o)
		return unknown_option(why, name, strlen(name));
	error = parse_value(why, o, value, strlen(value), &number);
	if (error)
		return error;
	if (!o->runtime) {
		complain(why, "option '%s' can only be set at start, by " VARIABLE, o->name);
		return EPERM;
	}
	option_change(o, number);
	return 0;
}

int quarry_ctl_set(const char *name, const char *value)
{
	char buffer[QY_ERROR_TEXT_MAX];
	struct qy_text why;
	int error;

	if (!name || !value)
		return qy_fail(EINVAL, "quarry_ctl_set: no %s", name ? "value" : "name");
	qy_init_once();
	qy_text_init(&why, buffer, sizeof(buffer), -1);
	error = ctl_set(&why, name, value);
	return error ? qy_fail(error, "%s", buffer) : 0;
}

static int get_option(const struct option *o, char *buffer, size_t size)
{
	struct qy_text text;
	const char *word;
	size_t n;

	qy_text_init(&text, buffer, size, -1);
	n = o->choices ? choice_at(o->choices, option_value(o), &word) : 0;
	if (n)
		qy_text_put(&text, word, n);
	else
		qy_text_format(&text, "%ld", option_value(o));
	return (int)text.total;
}

static bool stats_of_named_arena(const char *name, size_t length, quarry_stats *stats)
{
	quarry_arena *few[64], **list = few;
	size_t room = sizeof(few) / sizeof(few[0]);
	size_t count = quarry_arenas(few, room);
	bool found = false;

	if (count > room) {
		size_t all = count + 64; /* and those that are made meanwhile */
		quarry_arena **more = quarry_malloc(all * sizeof(*more));
		if (more) {
			list = more;
			room = all;
			count = quarry_arenas(list, room);
		}
	}
	for (size_t i = 0; i < qy_min(count, room) && !found; i++) {
		stats->version = QUARRY_STATS_VERSION;
		found = quarry_stats_get(list[i], stats) == 0 &&
			strnlen(stats->name, sizeof(stats->name)) == length && memcmp(stats->name, name, length) == 0;
	}
	if (list != few)
		quarry_free(list);
	return found;
}

/* "mapped" of all arenas, or "<arena>.mapped". An arena's name may itself have dots, and a figure's too
 * ("kind_got.thp"): the name is tried up to each dot in turn. */
static bool get_figure(const char *name, uint64_t *value)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	if (quarry_stats_get(NULL, &stats) == 0 && qy_figure_find(&stats, name, value))
		return true;
	for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
		/* First whether there is such a figure at all: the walk over the arenas is the long part. */
		if (qy_figure_find(&stats, dot + 1, value) && stats_of_named_arena(name, (size_t)(dot - name), &stats))
			return qy_figure_find(&stats, dot + 1, value);
	}
	return false;
}

int quarry_ctl_get(const char *name, char *value, size_t size)
{
	char none[1];
	struct qy_text text;
	const struct option *o;
	uint64_t figure;

	if (!name || (!value && size))
		return qy_fail(EINVAL, "quarry_ctl_get: no %s", name ? "buffer" : "name");
	qy_init_once();
	if (!size) {
		value = none;
		size = sizeof(none);
	}
	o = option_by_name(name, strlen(name));
	if (o)
		return get_option(o, value, size);
	qy_text_init(&text, value, size, -1);
	if (strcmp(name, "version") == 0) {
		qy_text_format(&text, "%s", quarry_version_string());
	} else if (strcmp(name, "options_error") == 0) {
		qy_text_format(&text, "%s", start_errors);
	} else if (strncmp(name, "stats.", 6) == 0 && get_figure(name + 6, &figure)) {
		qy_text_format(&text, "%llu", (unsigned long long)figure);
	} else {
		char buffer[QY_ERROR_TEXT_MAX];
		qy_text_init(&text, buffer, sizeof(buffer), -1);
		return qy_fail(unknown_option(&text, name, strlen(name)), "%s", buffer);
	}
	return (int)text.total;
}
