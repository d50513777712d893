/* SPDX-License-Identifier: MIT */
#include "lib/api/error.h"

#include <errno.h>
#include <stdarg.h>

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

#define SLOTS 32
#define WRITING UINT32_MAX /* no ticket */
#define READY (UINT32_MAX - 16) /* nor are these: from here on, a text that stands ready */

static struct error_slot {
	_Atomic uint32_t ticket; /* whose text it is; 0 at first, WRITING while it is being written */
	char text[QY_ERROR_TEXT_MAX];
} error_slots[SLOTS];
static _Atomic uint32_t error_tickets;
static _Thread_local uint32_t error_ticket __attribute__((tls_model("initial-exec"))); /* 0: no error yet */

static const char *const ready[QY_ERROR_READY] = {
	[QY_ERROR_FREED] = "the handle's object was freed",
	[QY_ERROR_NO_HANDLE] = "this is no handle of these lanes",
	[QY_ERROR_COLD] = "the object is cold",
	[QY_ERROR_WRITTEN] = "the object is being written to, or a neighbour of its counter is",
};
_Static_assert(QY_ERROR_READY <= WRITING - READY, "each has a number");

int qy_fail_ready(int error, enum qy_error_ready text)
{
	error_ticket = READY + text;
	errno = error;
	return -1;
}

/* The next slot that nobody writes to at this moment, from now on ours to write to; the ticket is set. NULL, when so
 * many threads are in the midst of it (or, in a forked child, were). */
static struct error_slot *take_slot(void)
{
	for (int tries = 0; tries < 2 * SLOTS; tries++) {
		uint32_t ticket = atomic_fetch_add_explicit(&error_tickets, 1, memory_order_relaxed) + 1;
		struct error_slot *slot = &error_slots[ticket % SLOTS];
		uint32_t was = atomic_load_explicit(&slot->ticket, memory_order_relaxed);

		/* Acquired, so that no byte of the new text is seen under the old ticket. */
		if (ticket == 0 || ticket >= READY || was == WRITING ||
		    !atomic_compare_exchange_strong_explicit(&slot->ticket, &was, WRITING, memory_order_acquire,
							     memory_order_relaxed))
			continue;
		error_ticket = ticket;
		return slot;
	}
	error_ticket = 0;
	return NULL;
}

int qy_fail(int error, const char *format, ...)
{
	struct error_slot *slot;
	struct qy_text text;
	va_list list;

	slot = take_slot();
	if (slot == NULL) {
		errno = error;
		return -1;
	}
	qy_text_init(&text, slot->text, sizeof(slot->text), -1);
	va_start(list, format);
	qy_text_vformat(&text, format, list);
	va_end(list);
	atomic_store_explicit(&slot->ticket, error_ticket, memory_order_release);
	errno = error;
	return -1;
}

int qy_fail_arena(const void *arena)
{
	return qy_fail(EINVAL, "arena: there is none at %p", arena);
}

const char *quarry_error_text(void)
{
	struct error_slot *slot = &error_slots[error_ticket % SLOTS];

	if (error_ticket == 0)
		return "";
	if (error_ticket >= READY)
		return ready[error_ticket - READY];
	if (atomic_load_explicit(&slot->ticket, memory_order_acquire) != error_ticket)
		return "the text of this error has made room for other threads' errors";
	return slot->text;
}
