/* SPDX-License-Identifier: MIT */
#include "lib/api/error.h"

#include <errno.h>
#include <stdarg.h>

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

#define SLOTS 32

static struct error_slot {
	_Atomic uint32_t ticket; /* whose text it is; 0 while it is being written */
	char text[QY_ERROR_TEXT_MAX];
} error_slots[SLOTS];
static _Atomic uint32_t error_tickets;
static _Thread_local uint32_t error_ticket __attribute__((tls_model("initial-exec"))); /* 0: no error yet */

int qy_fail(int error, const char *format, ...)
{
	struct error_slot *slot;
	struct qy_text text;
	va_list list;

	do {
		error_ticket = atomic_fetch_add_explicit(&error_tickets, 1, memory_order_relaxed) + 1;
	} while (error_ticket == 0);
	slot = &error_slots[error_ticket % SLOTS];
	/* An exchange and not a store, so that no byte of the new text is seen under the old ticket. */
	atomic_exchange_explicit(&slot->ticket, 0, memory_order_acquire);
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
	if (atomic_load_explicit(&slot->ticket, memory_order_acquire) != error_ticket)
		return "the text of this error has made room for other threads' errors";
	return slot->text;
}
