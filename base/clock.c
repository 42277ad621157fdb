/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The clock that times are measured with. It must not know the time of day. */
#include "config.h"

#include "base/clock.h"

#include <time.h>

uint64_t cmek_now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* can't fail */
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}
