/* SPDX-License-Identifier: MIT */
/* `quarry heap`: what is in a heap's file, whether it is whole, and copies of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/heapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tools/help.h"
#include "tools/json.h"
#include "tools/tools.h"
#include "tools/utf8.h"

int heapfile_failed(const struct heapfile_arguments *args)
{
	char name[300];
	int error = errno;

	snprintf(name, sizeof(name), "%s", utf8_shown(args->file));
	if (error == EAGAIN)
		return fail(STATUS_FAILED, "heap %s: %s: %s (quarry heap check does that, where nobody has it)", args->verb, name,
			    quarry_error_text());
	return fail(STATUS_FAILED, "heap %s: %s: %s (%s)", args->verb, name, quarry_error_text(), strerror(error));
}

/* Bytes of the file, and those of them that the file system keeps. */
static bool file_size(const char *path, uint64_t *bytes, uint64_t *kept)
{
	struct stat is;

	if (stat(path, &is) != 0)
		return false;
	*bytes = (uint64_t)is.st_size;
	*kept = (uint64_t)is.st_blocks * 512;
	return true;
}

/* ---- check ---- */

#define LOOKS 8

struct checking {
	quarry_mapped_report report;
	quarry_mapped_info info;
	bool unsure; /* others have it open, so that what looks wrong may be what they change */
};

/* 0, 1 where something is wrong; -1. There is no lock for who only reads: what is wrong in one look is in the next one, a while later, unless it
 * was a change. (What others found wrong, with the lock, they have marked.) */
static int look(quarry_mapped *heap, struct checking *c)
{
	int wrong = 1;

	for (int i = 0; i < LOOKS && wrong == 1; i++) {
		struct timespec pause = { .tv_nsec = 1000000L << i };

		if (i > 0)
			(void)nanosleep(&pause, NULL);
		wrong = quarry_mapped_check(heap, &c->report, sizeof(c->report));
		if (wrong < 0 || quarry_mapped_info_get(heap, &c->info, sizeof(c->info)) != 0)
			return -1;
		c->unsure = wrong && c->info.read_only && c->info.sessions && !c->info.broken && !c->info.bad_classes;
		if (!c->unsure)
			break;
	}
	return wrong;
}

static void print_report(const struct heapfile_arguments *args, const struct checking *c)
{
	const quarry_mapped_report *r = &c->report;
	const quarry_mapped_info *info = &c->info;

	if (args->json) {
		printf("{\"ok\":%s,\"unsure\":%s,\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"slabs\":%" PRIu64 ",\"blocks\":%" PRIu64
		       ",\"reserved\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"first\":",
		       r->wrong == 0 ? "true" : "false", c->unsure ? "true" : "false", r->objects, r->bytes, r->slabs, r->blocks, r->reserved,
		       r->wrong);
		json_put_string(stdout, r->first);
		printf(",\"recovered\":%" PRIu64 ",\"replayed\":%" PRIu64 ",\"sessions\":%u,\"read_only\":%s}\n", info->recovered,
		       info->replayed, info->sessions, info->read_only ? "true" : "false");
		return;
	}
	printf("%s: %s: %" PRIu64 " objects of %s in %" PRIu64 " slabs and %" PRIu64 " blocks\n", utf8_shown(args->file),
	       r->wrong == 0 ? "whole" : c->unsure ? "in use, and not seen whole" : "DAMAGED", r->objects, bytes_text(r->bytes), r->slabs,
	       r->blocks);
	if (r->wrong != 0)
		printf("%" PRIu64 " things that cannot be; the first: %s\n", r->wrong, r->first);
	printf("%" PRIu64 " processes died with it so far; %" PRIu64 " changes were finished for them\n", info->recovered, info->replayed);
	if (info->read_only)
		printf("it was only read: what others changed meanwhile may look wrong\n");
}

/* One that cannot be written to is read. */
static int check(const struct heapfile_arguments *args)
{
	quarry_mapped *heap = args->read_only ? NULL : quarry_mapped_open(args->file);
	struct checking c = { 0 };
	int status = STATUS_OK, wrong;

	if (heap == NULL && (args->read_only || errno == EACCES || errno == EROFS || errno == EPERM))
		heap = quarry_mapped_open_read(args->file);
	if (heap == NULL)
		return heapfile_failed(args);
	wrong = look(heap, &c);
	if (wrong < 0)
		status = heapfile_failed(args);
	else
		print_report(args, &c);
	if (wrong > 0)
		status = fail(STATUS_FAILED, "heap check: %s: %s%s", utf8_shown(args->file),
			      c.unsure ? "others have it open, and what looks wrong may be what they change: " : "", c.report.first);
	(void)quarry_mapped_close(heap);
	return status;
}

/* ---- dump ---- */

struct dumping {
	quarry_mapped *heap;
	uint64_t bytes;
	int refused, output; /* errno: the library's; of what is written to */
	int fd;
	size_t used;
	char buffer[1 << 16];
};

/* After a read or a write that failed: whether to try again. A pipe's other owner may have made it one that does not wait: then it is waited for. */
static bool again(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return errno == EINTR || (errno == EAGAIN && (poll(&p, 1, -1) > 0 || errno == EINTR));
}

static int write_all(struct dumping *d, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(d->fd, bytes, n);

		if (done < 0 && !again(d->fd, POLLOUT)) {
			d->output = errno;
			return -1;
		}
		bytes += done > 0 ? done : 0;
		n -= done > 0 ? (size_t)done : 0;
	}
	return 0;
}

static int flush(struct dumping *d)
{
	size_t n = d->used;

	d->used = 0;
	return write_all(d, d->buffer, n);
}

static int take(void *ctx, const void *bytes, size_t n)
{
	struct dumping *d = ctx;

	d->bytes += n;
	if (n > sizeof(d->buffer) - d->used && flush(d) != 0)
		return -1;
	if (n >= sizeof(d->buffer))
		return write_all(d, bytes, n);
	memcpy(d->buffer + d->used, bytes, n);
	d->used += n;
	return 0;
}

/* 0, or an errno (for write_at_once). */
static int dump_to(int fd, const void *ctx)
{
	struct dumping *d = *(struct dumping *const *)ctx;

	d->fd = fd;
	if (quarry_mapped_dump(d->heap, take, d) != 0) {
		d->refused = d->output ? 0 : errno;
		return errno;
	}
	return flush(d) != 0 ? d->output : 0;
}

static bool is_standard(const char *path)
{
	return path == NULL || strcmp(path, "-") == 0;
}

/* Under whatever name: it would be replaced by what is read from it. */
static bool onto_itself(const struct heapfile_arguments *args)
{
	struct stat heap, other;

	return stat(args->file, &heap) == 0 &&
	       (is_standard(args->other) ? fstat(STDOUT_FILENO, &other) : stat(args->other, &other)) == 0 &&
	       heap.st_dev == other.st_dev && heap.st_ino == other.st_ino;
}

static int print_dumped(const struct heapfile_arguments *args, const struct dumping *d, int error)
{
	if (d->refused) {
		errno = d->refused;
		return heapfile_failed(args);
	}
	if (error)
		return fail(STATUS_FAILED, "heap dump: %s: %s", is_standard(args->other) ? "standard output" : utf8_shown(args->other),
			    strerror(error));
	if (args->json)
		printf("{\"dump_bytes\":%" PRIu64 "}\n", d->bytes);
	else if (!is_standard(args->other))
		printf("%s: %s\n", utf8_shown(args->other), bytes_text(d->bytes));
	return STATUS_OK;
}

static int dump(const struct heapfile_arguments *args)
{
	static struct dumping d;
	struct dumping *to = &d;
	int error, status;

	if (onto_itself(args))
		return fail(STATUS_USAGE, "heap dump: %s is the heap itself: it would be overwritten",
			    is_standard(args->other) ? "standard output" : utf8_shown(args->other));
	if (is_standard(args->other) && isatty(STDOUT_FILENO))
		return fail(STATUS_USAGE, "heap dump: a dump is not for a terminal: -o DUMP, or another standard output");
	if (is_standard(args->other) && args->json)
		return fail(STATUS_USAGE, "heap dump: --json needs -o DUMP: the dump itself goes to standard output");
	d.heap = quarry_mapped_open(args->file);
	if (d.heap == NULL && (errno == EACCES || errno == EROFS || errno == EPERM))
		d.heap = quarry_mapped_open_read(args->file);
	if (d.heap == NULL)
		return heapfile_failed(args);
	error = is_standard(args->other) ? dump_to(STDOUT_FILENO, &to) : write_at_once(args->other, WRITE_AND_KEEP, dump_to, &to);
	status = print_dumped(args, &d, error);
	(void)quarry_mapped_close(d.heap);
	return status;
}

/* ---- restore ---- */

struct giving {
	int fd;
	int error; /* errno of what is read from */
};

static long give(void *ctx, void *bytes, size_t n)
{
	struct giving *g = ctx;
	ssize_t got;

	do
		got = read(g->fd, bytes, n);
	while (got < 0 && again(g->fd, POLLIN));
	if (got < 0)
		g->error = errno;
	return (long)got;
}

/* What was made, once more looked at. */
static int print_restored(const struct heapfile_arguments *args, quarry_mapped *heap)
{
	quarry_mapped_report report;
	uint64_t bytes, kept;
	int wrong = quarry_mapped_check(heap, &report, sizeof(report));

	if (wrong != 0)
		return wrong < 0 ? heapfile_failed(args) : fail(STATUS_FAILED, "heap restore: %s: %s", utf8_shown(args->file), report.first);
	if (!file_size(args->file, &bytes, &kept))
		return fail(STATUS_FAILED, "heap restore: %s: %s", utf8_shown(args->file), strerror(errno));
	if (args->json)
		printf("{\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"file_bytes\":%" PRIu64 ",\"kept_bytes\":%" PRIu64 "}\n",
		       report.objects, report.bytes, bytes, kept);
	else
		printf("%s: %" PRIu64 " objects of %s\n", utf8_shown(args->file), report.objects, bytes_text(report.bytes));
	return STATUS_OK;
}

static int restore(const struct heapfile_arguments *args)
{
	struct giving from = { .fd = is_standard(args->other) ? STDIN_FILENO : open(args->other, O_RDONLY | O_CLOEXEC) };
	quarry_mapped *heap;
	int status;

	if (from.fd < 0)
		return fail(STATUS_FAILED, "heap restore: %s: %s", utf8_shown(args->other), strerror(errno));
	heap = quarry_mapped_restore(args->file, give, &from);
	if (heap != NULL)
		status = print_restored(args, heap);
	else if (from.error)
		status = fail(STATUS_FAILED, "heap restore: %s: %s", is_standard(args->other) ? "standard input" : utf8_shown(args->other),
			      strerror(from.error));
	else
		status = heapfile_failed(args);
	if (heap != NULL)
		(void)quarry_mapped_close(heap);
	if (!is_standard(args->other))
		(void)close(from.fd);
	return status;
}

/* ---- compact ---- */

static int compact(const struct heapfile_arguments *args)
{
	uint64_t before, kept_before, after, kept;
	quarry_mapped *heap;
	int64_t cut;

	if (!file_size(args->file, &before, &kept_before))
		return fail(STATUS_FAILED, "heap compact: %s: %s", utf8_shown(args->file), strerror(errno));
	heap = quarry_mapped_open(args->file);
	if (heap == NULL)
		return heapfile_failed(args);
	cut = quarry_mapped_shrink(heap);
	if (cut < 0) {
		int status = heapfile_failed(args);

		(void)quarry_mapped_close(heap);
		return status;
	}
	(void)quarry_mapped_close(heap);
	if (!file_size(args->file, &after, &kept))
		return fail(STATUS_FAILED, "heap compact: %s: %s", utf8_shown(args->file), strerror(errno));
	if (args->json) {
		printf("{\"file_bytes_before\":%" PRIu64 ",\"file_bytes\":%" PRIu64 ",\"kept_bytes_before\":%" PRIu64
		       ",\"kept_bytes\":%" PRIu64 "}\n", before, after, kept_before, kept);
	} else {
		printf("%s: %s long, was %s", utf8_shown(args->file), bytes_text(after), bytes_text(before));
		printf("; %s on the file system, was %s\n", bytes_text(kept), bytes_text(kept_before));
	}
	return STATUS_OK;
}

static int info(const struct heapfile_arguments *args)
{
	quarry_mapped *heap = quarry_mapped_open_read(args->file);
	int status;

	if (heap == NULL)
		return heapfile_failed(args);
	status = heapfile_info(heap, args);
	(void)quarry_mapped_close(heap);
	return status;
}

void heapfile_uuid(const unsigned char uuid[16], char text[37])
{
	int n = 0;

	for (int i = 0; i < 16; i++)
		n += snprintf(text + n, (size_t)(37 - n), "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

/* ---- the command ---- */

static const struct {
	const char *name;
	int (*run)(const struct heapfile_arguments *args);
	const char *options; /* letters of those that it takes */
} verbs[] = {
	{ "info", info, "jalu" }, { "check", check, "jr" }, { "dump", dump, "jo" },
	{ "restore", restore, "ji" }, { "compact", compact, "j" },
};

static const struct {
	const char *name;
	char letter;
} options[] = {
	{ "--json", 'j' }, { "--all", 'a' }, { "--ascii", 'l' }, { "--utf8", 'u' }, { "--read-only", 'r' },
	{ "-o", 'o' }, { "-i", 'i' },
};

static char option(const char *argument, const char *taken)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (strcmp(argument, options[i].name) == 0)
			return strchr(taken, options[i].letter) ? options[i].letter : 0;
	}
	return 0;
}

/* One argument, with the one behind it where it has one. */
static int parse_one(int argc, char **argv, int *i, struct heapfile_arguments *args, const char *taken)
{
	char letter = option(argv[*i], taken);

	if (letter == 0)
		return fail(STATUS_USAGE, "heap %s: unknown argument '%s'; see quarry heap --help", args->verb, utf8_shown(argv[*i]));
	args->json |= letter == 'j';
	args->all |= letter == 'a';
	args->ascii |= letter == 'l';
	args->utf8 |= letter == 'u';
	args->read_only |= letter == 'r';
	if (letter == 'o' || letter == 'i') {
		if (++*i == argc || !argv[*i][0])
			return fail(STATUS_USAGE, "heap %s: -%c needs a DUMP", args->verb, letter);
		args->other = argv[*i];
	}
	return STATUS_OK;
}

static int parse(int argc, char **argv, struct heapfile_arguments *args, const char *taken)
{
	bool names_only = false;

	for (int i = 2; i < argc; i++) {
		if (!names_only && strcmp(argv[i], "--") == 0) {
			names_only = true;
		} else if (names_only || argv[i][0] != '-') {
			if (args->file)
				return fail(STATUS_USAGE, "heap %s: one FILE at a time; see quarry heap --help", args->verb);
			args->file = argv[i];
		} else if (parse_one(argc, argv, &i, args, taken) != STATUS_OK) {
			return STATUS_USAGE;
		}
	}
	if (!args->file || !args->file[0])
		return fail(STATUS_USAGE, "heap %s: which FILE? see quarry heap --help", args->verb);
	if (args->ascii && args->utf8)
		return fail(STATUS_USAGE, "heap %s: --ascii or --utf8, not both", args->verb);
	return STATUS_OK;
}

int command_heap(int argc, char **argv)
{
	struct heapfile_arguments args = { 0 };
	int status;

	if (argc < 2)
		return fail(STATUS_USAGE, "heap: info, check, dump, restore or compact; see quarry heap --help");
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(argv[1], verbs[i].name) != 0)
			continue;
		args.verb = argv[1];
		if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
			fputs(heap_text, stdout);
			return STATUS_OK;
		}
		status = parse(argc, argv, &args, verbs[i].options);
		return status == STATUS_OK ? verbs[i].run(&args) : status;
	}
	return fail(STATUS_USAGE, "heap: unknown argument '%s'; see quarry heap --help", utf8_shown(argv[1]));
}
