/* SPDX-License-Identifier: MIT */
#include "lib/manager/decay.h"

#include <string.h>

/* What may stay of memory that became dirty i + 1 steps ago, in 1/1024: 1 - smoothstep((i + 1) / 14), so that all is
 * done when decay_ms are over, with time to do it. */
static const uint64_t keep[QY_DECAY_STEPS] = {
	1009, 967, 902, 820, 725, 622, 512, 402, 299, 204, 122, 57, 15, 0, 0, 0
};

static uint32_t length_of_step(long decay_ms)
{
	return (uint32_t)qy_max((size_t)decay_ms / QY_DECAY_STEPS, 1);
}

/* All growth since the last call was in the step of that time. */
static void step_to(struct qy_decay *decay, uint64_t dirty, uint64_t step)
{
	uint64_t steps = step - decay->step;

	if (step <= decay->step)
		return;
	for (unsigned i = QY_DECAY_STEPS; i-- > 0;)
		decay->at[i] = i >= steps ? decay->at[i - steps] : 0;
	if (steps <= QY_DECAY_STEPS)
		decay->at[steps - 1] = dirty > decay->base ? dirty - decay->base : 0;
	decay->base = dirty;
	decay->step = step;
}

static void begin(struct qy_decay *decay, uint32_t step_ms, uint64_t now)
{
	memset(decay->at, 0, sizeof(decay->at));
	decay->base = 0;
	decay->step_ms = step_ms;
	decay->step = now / step_ms;
}

void qy_decay_note(struct qy_decay *decay, uint64_t dirty, uint64_t now, long decay_ms)
{
	if (decay->step_ms == 0)
		begin(decay, length_of_step(decay_ms > 0 ? decay_ms : 1000), now);
	step_to(decay, dirty, now / decay->step_ms);
}

uint64_t qy_decay_allows(struct qy_decay *decay, uint64_t dirty, uint64_t now, long decay_ms)
{
	uint64_t sum = 0;

	/* Another decay_ms: it begins anew, for all that is dirty. */
	if (decay->step_ms != length_of_step(decay_ms))
		begin(decay, length_of_step(decay_ms), now);
	step_to(decay, dirty, now / decay->step_ms);
	decay->base = qy_min(decay->base, dirty);
	for (unsigned i = 0; i < QY_DECAY_STEPS; i++)
		sum += decay->at[i] * keep[i];
	return sum / 1024 + (dirty - decay->base);
}
