/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_LOOPBACK_H
#define CMEK_TOOLS_LOOPBACK_H

#include <sys/socket.h>

#include "base/err.h"

/*
 * "127.0.0.1:PORT" (any address of 127.0.0.0/8) or "[::1]:PORT" as an address of a socket; port 0 is allowed. Names are not
 * looked up, and addresses that others than this machine can reach are refused: kind usage. Pure.
 */
int cmek_loopback_parse(const char *text, struct sockaddr_storage *ret_addr, socklen_t *ret_len, struct cmek_error *err);

/* "http://127.0.0.1:9787/metrics": what such an address is called by those who ask. */
#define CMEK_LOOPBACK_URL_MAX 96
void cmek_loopback_url(const struct sockaddr_storage *addr, char url[CMEK_LOOPBACK_URL_MAX]);

#endif
