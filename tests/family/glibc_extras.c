/* SPDX-License-Identifier: MIT */
/* What glibc adds: malloc_trim, malloc_stats, malloc_info, mallinfo, mallinfo2 and mallopt.
 * variants: preload linked archive static */
#include <limits.h>
#include <malloc.h>
#include <stdio.h>

#include "tests/family/family.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* A reader of XML that is just large enough: elements with attributes, all closed in order. Counts elements and finds
 * the one named first. */
static int well_formed(const char *text, int *elements)
{
	char open[8][32];
	int depth = 0;

	*elements = 0;
	for (const char *at = text; *at; at++) {
		char name[32];
		const char *end;
		size_t length;

		if (*at != '<') {
			if (*at != '\n' && *at != ' ')
				return 0;
			continue;
		}
		end = strchr(at, '>');
		if (end == NULL)
			return 0;
		if (at[1] == '/') {
			length = (size_t)(end - at) - 2;
			if (depth == 0 || strlen(open[depth - 1]) != length || strncmp(open[depth - 1], at + 2, length) != 0)
				return 0;
			depth--;
		} else {
			length = strcspn(at + 1, " />");
			if (length == 0 || length >= sizeof name)
				return 0;
			memcpy(name, at + 1, length);
			name[length] = 0;
			int quotes = 0;
			for (const char *c = at; c < end; c++)
				quotes += *c == '"';
			if (quotes % 2 != 0)
				return 0;
			++*elements;
			if (end[-1] != '/') {
				if (depth == 8)
					return 0;
				strcpy(open[depth++], name);
			}
		}
		at = end;
	}
	return depth == 0;
}

static void info(void)
{
	char text[8192];
	int elements;
	FILE *file = tmpfile();
	size_t n;

	CHECK(file != NULL);
	errno = 0;
	CHECK(malloc_info(1, file) == -1 && errno == EINVAL);
	CHECK(ftell(file) == 0);
	CHECK(malloc_info(0, file) == 0);
	CHECK(fflush(file) == 0);
	rewind(file);
	n = fread(text, 1, sizeof text - 1, file);
	text[n] = 0;
	fclose(file);
	CHECK(strncmp(text, "<malloc version=\"1\">\n<heap nr=\"0\">\n", 35) == 0);
	CHECK(well_formed(text, &elements));
	CHECK(elements >= 10);
	CHECK(strstr(text, "<system type=\"current\" size=\"") != NULL);
	file = fopen("/dev/full", "w");
	if (file != NULL) {
		setvbuf(file, NULL, _IONBF, 0);
		CHECK(malloc_info(0, file) == -1);
		fclose(file);
	}
}

static void sums(void)
{
	size_t n = 24 << 20;
	struct mallinfo2 before = mallinfo2();
	char *large = malloc(n);
	struct mallinfo2 after;
	struct mallinfo narrow;

	CHECK(large != NULL);
	memset(large, 1, n);
	after = mallinfo2();
	CHECK(after.uordblks + after.hblkhd >= before.uordblks + before.hblkhd + n);
	CHECK(after.arena + after.hblkhd >= n);
	CHECK(after.uordblks + after.fordblks == after.arena);
	CHECK(after.fsmblks <= after.fordblks);
	narrow = mallinfo();
	CHECK(narrow.arena >= 0 && (size_t)narrow.hblkhd == (after.hblkhd > INT_MAX ? INT_MAX : after.hblkhd));
	free(large);
	after = mallinfo2();
	CHECK(after.uordblks + after.hblkhd < before.uordblks + before.hblkhd + n);
}

static void trim(void)
{
	char *p[64];

	for (int i = 0; i < 64; i++) {
		p[i] = malloc((size_t)1 << 20);
		CHECK(p[i] != NULL);
		memset(p[i], 1, (size_t)1 << 20);
	}
	for (int i = 0; i < 64; i++)
		free(p[i]);
	errno = 33;
	int done = malloc_trim(0);
	CHECK(done == 0 || done == 1);
	CHECK(errno == 33);
	done = malloc_trim((size_t)1 << 30);
	CHECK(done == 0 || done == 1);
}

/* It goes to where stderr goes, and nowhere when stderr is closed. */
static void stats(void)
{
	char text[64];
	FILE *file = tmpfile();
	int saved = dup(2), fd;

	CHECK(file != NULL && saved >= 0);
	fd = fileno(file);
	CHECK(dup2(fd, 2) == 2);
	errno = 34;
	malloc_stats();
	CHECK(errno == 34);
	CHECK(dup2(saved, 2) == 2);
	CHECK(lseek(fd, 0, SEEK_END) > 0);
	CHECK(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	family_report_to = saved;
	fclose(stderr);
	CHECK(dup2(fd, 2) == 2);
	malloc_stats();
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && read(fd, text, sizeof text) == 0);
}

static void parameters(void)
{
	errno = 35;
	CHECK(mallopt(M_ARENA_MAX, 1) == 1);
	CHECK(mallopt(M_ARENA_TEST, 8) == 1);
	CHECK(mallopt(M_ARENA_MAX, 0) == 0);
	CHECK(mallopt(M_TOP_PAD, 65536) == 1);
	CHECK(mallopt(M_MMAP_THRESHOLD, 65536) == 1);
	CHECK(mallopt(M_MMAP_THRESHOLD, INT_MAX) == 0);
	CHECK(mallopt(M_MMAP_MAX, 0) == 1);
	CHECK(mallopt(M_MXFAST, 64) == 1);
	CHECK(mallopt(M_MXFAST, 0) == 1);
	CHECK(mallopt(M_MXFAST, 161) == 0);
	CHECK(mallopt(M_MXFAST, -1) == 0);
	CHECK(mallopt(M_KEEP, 1) == 1);
	CHECK(mallopt(M_CHECK_ACTION, 0) == 1);
	CHECK(mallopt(M_TRIM_THRESHOLD, 128 * 1024) == 1);
	CHECK(mallopt(99999, 1) == 0);
	CHECK(mallopt(5, 1) == 0);
	CHECK(mallopt(-99, 1) == 0);
	CHECK(errno == 35);
}

/* What a parameter means here, read back through quarry. */
static void meanings(void)
{
	char value[32];

	if (quarry_ctl_get == NULL)
		return;
	CHECK(quarry_ctl_get("reclaim", value, sizeof value) > 0);
	CHECK(mallopt(M_MXFAST, 0) == 1); /* 1 is also QUARRY_OPT_RECLAIM */
	char again[32];
	CHECK(quarry_ctl_get("reclaim", again, sizeof again) > 0 && strcmp(value, again) == 0);

	CHECK(quarry_ctl_get("decay_ms", value, sizeof value) > 0);
	CHECK(mallopt(M_TRIM_THRESHOLD, -1) == 1);
	CHECK(quarry_ctl_get("decay_ms", again, sizeof again) > 0 && strcmp(again, "-1") == 0);
	CHECK(mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1);
	CHECK(quarry_ctl_get("decay_ms", again, sizeof again) > 0 && strcmp(again, value) == 0);

	CHECK(mallopt(M_PERTURB, 0x5a) == 1);
	CHECK(quarry_ctl_get("junk", again, sizeof again) > 0 && strcmp(again, "0") != 0 && strcmp(again, "off") != 0);
	CHECK(mallopt(M_PERTURB, 0) == 1);

	CHECK(mallopt(M_CHECK_ACTION, 3) == 1);
	CHECK(quarry_ctl_get("on_error", again, sizeof again) > 0 && strcmp(again, "abort") == 0);
	CHECK(mallopt(M_CHECK_ACTION, 1) == 1);
	CHECK(quarry_ctl_get("on_error", again, sizeof again) > 0 && strcmp(again, "report") == 0);
	CHECK(mallopt(M_CHECK_ACTION, 0) == 1);
	CHECK(quarry_ctl_get("on_error", again, sizeof again) > 0 && strcmp(again, "ignore") == 0);
}

int main(void)
{
	family_in_use();
	info();
	sums();
	trim();
	parameters();
	meanings();
	stats();
	return 0;
}
