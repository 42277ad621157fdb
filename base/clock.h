/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_CLOCK_H
#define CMEK_BASE_CLOCK_H

#include <stdint.h>

/* Milliseconds on CLOCK_MONOTONIC, for what is measured and waited for inside one process. Thread-safe. */
uint64_t cmek_now_ms(void);

#endif
