/* SPDX-License-Identifier: MIT */
/* fragments FILE [JSON]: a heap with holes, as a server has it after a busy hour, and a view of it in FILE, and as JSON in
 * JSON. Sessions came by tens of thousands, and most are gone; an index in huge pages is dense, but for what was deleted of
 * it; of large buffers each other one was freed. tests/map.sh looks at the picture that `quarry map` makes of it, and so does
 * README.md. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tests/unit/model.h"

#undef model_must

#define SESSIONS 50000
#define ENTRIES 16000
#define BUFFERS 24

static void *sessions[SESSIONS], *entries[ENTRIES], *buffers[BUFFERS];

static void must(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "fragments: %s: %s\n", what, quarry_error_text());
		exit(1);
	}
}

static void fill(quarry_arena *arena, void **list, size_t count, size_t least, uint32_t more)
{
	for (size_t i = 0; i < count; i++) {
		size_t size = least + model_below(more);

		list[i] = quarry_arena_malloc(arena, size);
		must(list[i] != NULL, "memory");
		memset(list[i], 1, size);
	}
}

static void drop(void **at)
{
	quarry_free(*at);
	*at = NULL;
}

/* Those that came together leave together, mostly. */
static void end_sessions(void)
{
	for (size_t first = 0; first < SESSIONS; first += 1000) {
		uint32_t stay = (uint32_t)(first / 1000) % 8 == 0 ? 3 : 2 + 4 * model_below(10);

		for (size_t i = first; i < first + 1000; i++)
			if (!model_one_in(stay))
				drop(&sessions[i]);
	}
}

/* A range was deleted, and some here and there. */
static void delete_entries(void)
{
	for (size_t i = 0; i < ENTRIES; i++)
		if ((i > 9000 && i < 11500) || model_one_in(25))
			drop(&entries[i]);
}

static void dump(const quarry_view *view, const char *path, int format)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	must(fd >= 0 && quarry_view_dump(view, fd, format) == 0, path);
	close(fd);
}

int main(int argc, char **argv)
{
	quarry_arena_attr of_sessions = { .name = "sessions", .page_kind = QUARRY_PAGES_BASE };
	quarry_arena_attr of_index = { .name = "index", .page_kind = QUARRY_PAGES_THP }, of_buffers = { .name = "buffers" };
	quarry_arena *arenas[] = { quarry_arena_create(&of_sessions), quarry_arena_create(&of_index),
				   quarry_arena_create(&of_buffers) };
	quarry_view *view;

	model_start("fragments");
	must(argc == 2 || argc == 3, "usage: fragments FILE [JSON]");
	must(arenas[0] && arenas[1] && arenas[2], "arenas");
	fill(arenas[0], sessions, SESSIONS, 100, 200);
	fill(arenas[1], entries, ENTRIES, 500, 12);
	fill(arenas[2], buffers, BUFFERS, 100000, 300000);
	end_sessions();
	delete_entries();
	for (size_t i = 0; i < BUFFERS; i += 2)
		drop(&buffers[i]);
	view = quarry_view_open();
	must(view != NULL, "view");
	dump(view, argv[1], QUARRY_DUMP_BINARY);
	if (argc == 3)
		dump(view, argv[2], QUARRY_DUMP_JSON);
	quarry_view_close(view);
	return 0;
}
