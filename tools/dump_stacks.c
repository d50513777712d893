/* SPDX-License-Identifier: MIT */
/* What a dump has of stacks: each record is checked against those before it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <string.h>

#include "tools/dump.h"

#define NO_MEMORY "no memory"

const char *dump_add_profile(struct dump *d, uint64_t mean)
{
	if (!d->has_report || d->has_profile)
		return d->has_report ? "a second profile" : "a profile before the report";
	d->has_profile = true;
	d->mean = mean;
	d->records++;
	return NULL;
}

const char *dump_add_module(struct dump *d, uint64_t number, const char *id, const char *file)
{
	struct dump_module *at;

	if (!d->has_profile || number != d->module_count)
		return d->has_profile ? "modules are not numbered one after the other" : "a module before the profile";
	if (strspn(id, "0123456789abcdef") != strlen(id) || strlen(id) > 2 * DUMP_ID_MAX)
		return "a build id that cannot be";
	at = dump_one_more(&d->modules, &d->module_count, &d->module_room, sizeof(*at));
	if (!at)
		return NO_MEMORY;
	at->id = strdup(id);
	at->file = strdup(file);
	d->records++;
	return at->id && at->file ? NULL : NO_MEMORY;
}

const char *dump_add_frame(struct dump *d, uint64_t number, uint64_t module, uint64_t offset, const char *function)
{
	struct dump_frame *at;

	if (!d->has_profile || number != d->frame_count || number >= DUMP_NONE)
		return d->has_profile ? "frames are not numbered one after the other" : "a frame before the profile";
	if (module != DUMP_NONE && module >= d->module_count)
		return "a frame in no module";
	at = dump_one_more(&d->frames, &d->frame_count, &d->frame_room, sizeof(*at));
	if (!at)
		return NO_MEMORY;
	at->module = (uint32_t)module;
	at->offset = offset;
	at->function = strdup(function);
	d->records++;
	return at->function ? NULL : NO_MEMORY;
}

static const char *check_stack(const struct dump *d, const struct dump_stack *s, const uint32_t *numbers)
{
	if (!d->has_profile)
		return "a stack before the profile";
	if (s->depth > DUMP_DEPTH_MAX || (s->arena != DUMP_NONE && s->arena >= d->arena_count))
		return "a stack that cannot be, or of no arena";
	for (uint32_t i = 0; i < s->depth; i++)
		if (numbers[i] >= d->frame_count)
			return "a stack of a frame that was not told of";
	/* (So that no sum of them is too large.) */
	if (s->bytes >= DUMP_ADDRESS_MAX || s->objects >= DUMP_ADDRESS_MAX || s->samples >= DUMP_ADDRESS_MAX ||
	    d->stack_bytes + s->bytes >= DUMP_ADDRESS_MAX ||
	    d->stack_objects + s->objects >= DUMP_ADDRESS_MAX || d->stack_samples + s->samples >= DUMP_ADDRESS_MAX)
		return "a stack of more than there can be";
	return NULL;
}

const char *dump_add_stack(struct dump *d, const struct dump_stack *stack, const uint32_t *numbers)
{
	const char *error = check_stack(d, stack, numbers);
	struct dump_stack *at;

	if (error)
		return error;
	at = dump_one_more(&d->stacks, &d->stack_count, &d->stack_room, sizeof(*at));
	if (!at)
		return NO_MEMORY;
	*at = *stack;
	at->first = d->number_count;
	at->depth = 0;
	for (uint32_t i = 0; i < stack->depth; i++) {
		uint32_t *number = dump_one_more(&d->numbers, &d->number_count, &d->number_room, sizeof(*number));

		if (!number)
			return NO_MEMORY;
		*number = numbers[i];
		at->depth++;
	}
	d->stack_bytes += stack->bytes;
	d->stack_objects += stack->objects;
	d->stack_samples += stack->samples;
	d->records++;
	return NULL;
}

void dump_free_stacks(struct dump *d)
{
	for (size_t i = 0; i < d->module_count; i++) {
		free(d->modules[i].id);
		free(d->modules[i].file);
	}
	for (size_t i = 0; i < d->frame_count; i++)
		free(d->frames[i].function);
	free(d->modules);
	free(d->frames);
	free(d->stacks);
	free(d->numbers);
}
