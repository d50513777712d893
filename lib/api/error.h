/* SPDX-License-Identifier: MIT */
/* The text of a thread's last error. For lib/api and lib/view: the layers below tell errors by errno alone. Every
 * public function that fails sets it, but for those that allocate, which say all there is to say by errno.
 *
 * The texts stand in a ring that all threads share, because a buffer in each thread's static TLS would cost a good
 * part of all that quarry may have there. A thread keeps the number of its text (4 bytes); when the slot has been used
 * anew since, it is told so, and never given another thread's text. No lock, no allocation. */
#ifndef QUARRY_API_ERROR_H
#define QUARRY_API_ERROR_H

#include "lib/base/base.h"

#define QY_ERROR_TEXT_MAX 252 /* with the 0 at its end */

/* Set the calling thread's error text and errno. Returns -1, so that a caller can return it. The format is that of
 * qy_text_format. */
int qy_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* The same with a text that stands ready, for what is no mistake of anybody's and may be met as often as not, as a handle whose
 * object was freed: one store, and nothing that threads share. */
enum qy_error_ready { QY_ERROR_FREED, QY_ERROR_NO_HANDLE, QY_ERROR_COLD, QY_ERROR_WRITTEN, QY_ERROR_READY };
int qy_fail_ready(int error, enum qy_error_ready text) __attribute__((cold));

/* Whether this is inside a function of quarry_on_region, where what holds threads still, or has memory go back, is not
 * done: EDEADLK then. */
bool qy_fail_inside(void);

/* The same for a handle that is no arena: EINVAL. */
int qy_fail_arena(const void *arena) __attribute__((cold));

#endif
