/* SPDX-License-Identifier: MIT */
/* What is told at the end of the program (lib/view/exit.c), and when somebody asks by a signal (lib/view/asked.c): the
 * profile and a view where the environment says where to (QUARRY_PROFILE, QUARRY_VIEW), what cannot be reached any more
 * with the option leaks_at_exit, and the statistics with stats_at_exit. */
#ifndef QUARRY_VIEW_TELL_H
#define QUARRY_VIEW_TELL_H

#include "lib/base/base.h"

/* Keep what the environment says, and a copy of standard error where something goes there: many programs close it before
 * destructors run, and some write over their environment. Before the program's main. */
void qy_tell_prepare(void);

/* All of it; one at a time, others wait. What fails is said on standard error. The last: nobody tells after it. */
void qy_tell(void);
void qy_tell_last(void);
void qy_tell_error(const char *what, int error); /* "quarry: what: error" */

/* A few lines of how it went (stats_at_exit=summary). 0, or -1 with errno. */
int qy_summary_print(int fd);

/* Have a thread wait for the signal of the option report_signal, and tell. Says so where that cannot be. */
void qy_asked_begin(void);

#endif
