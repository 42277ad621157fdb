/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_NOTIFY_H
#define CMEK_BASE_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Tells the service manager named by $NOTIFY_SOCKET the state, as lines of sd_notify(3) ("READY=1\nMAINPID=7").
 * Without that variable, or when nobody listens, nothing happens: it is not worth failing for.
 */
void cmek_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whether anybody is to be told. */
bool cmek_notify_wanted(void);

/*
 * How often the service manager wants a WATCHDOG=1 of this process, or of its parent, which it is to take the place of: in
 * milliseconds, 0 = not at all.
 */
uint64_t cmek_notify_watchdog_ms(void);

#endif
