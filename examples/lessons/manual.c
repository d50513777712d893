/* SPDX-License-Identifier: MIT */
/* Manual strategies: who frees what, and when, is the program's to say; the means differ in how it says so. One by one; all since
 * a mark; all of an arena; when the last who uses it is done. */
#include <stdio.h>
#include <string.h>

#include <quarry/block.h>
#include <quarry/quarry.h>
#include <quarry/stack.h>

static void fail(const char *what)
{
	printf("%s: %s\n", what, quarry_error_text());
}

/* Each by itself: whoever gets it frees it, once. */
static int one_by_one(void)
{
	char *name = quarry_malloc(64);

	if (name == NULL)
		return -1;
	strcpy(name, "freed by hand");
	printf("one by one: %s, of %zu bytes\n", name, quarry_usable_size(name));
	quarry_free(name);
	return 0;
}

/* What is needed for a while, and then no more: nothing is freed by itself. */
static int since_a_mark(void)
{
	QUARRY_AUTO(quarry_frame) frame = quarry_frame_begin(NULL);
	size_t bytes = 0;

	for (size_t n = 1; n <= 100; n++) {
		char *word = quarry_stack_alloc(frame.stack, n);

		if (word == NULL)
			return -1;
		memset(word, 'x', n);
		bytes += n;
	}
	printf("since a mark: %zu bytes, gone at the end of the block\n", bytes);
	return 0;
}

/* What belongs together: thousands of pieces, and one call for the end of all. */
static int of_an_arena(void)
{
	quarry_arena_attr attr = { .name = "document" };
	quarry_arena *document = quarry_arena_create(&attr);
	int paragraphs = 0;

	if (document == NULL)
		return -1;
	while (paragraphs < 1000 && quarry_arena_malloc(document, 100 + (size_t)paragraphs) != NULL)
		paragraphs++;
	printf("of an arena: %d paragraphs, dropped as one\n", paragraphs);
	return quarry_arena_destroy(document);
}

/* Where nobody knows who will be the last. */
static int by_count(void)
{
	quarry_block mine = quarry_block_alloc(NULL, 256), theirs = mine;

	if (mine.p == NULL || quarry_block_ref(&theirs) != 0)
		return -1;
	strcpy(mine.p, "shared");
	(void)quarry_block_unref(&mine);
	printf("by count: %s still, for one who has it\n", (char *)theirs.p);
	(void)quarry_block_unref(&theirs);
	return 0;
}

int main(void)
{
	if (one_by_one() != 0 || since_a_mark() != 0 || of_an_arena() != 0 || by_count() != 0) {
		fail("manual");
		return 1;
	}
	return 0;
}
