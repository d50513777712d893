/* SPDX-License-Identifier: MIT */
/* When all is told (lib/view/tell.h): at the end of the program, and when somebody asks. */
#include "lib/api/init.h"
#include "lib/base/settings.h"
#include "lib/cache/sample.h"
#include "lib/cache/thread.h"
#include "lib/view/tell.h"

const char qy_at_exit = 1;

static __attribute__((constructor)) void begin(void)
{
	qy_init_once();
	/* (Of two copies of the library in one program the first does the work, and tells of it.) */
	if (qy_elsewhere != NULL)
		return;
	if (qy_setting(profile) != 0)
		qy_sampling_start((uint64_t)qy_setting(profile), (int)qy_setting(profile_stacks));
	qy_tell_prepare();
	if (qy_setting(report_signal) != 0)
		qy_asked_begin();
}

static __attribute__((destructor)) void end(void)
{
	if (qy_elsewhere == NULL)
		qy_tell_last();
}
