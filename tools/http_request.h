/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_HTTP_REQUEST_H
#define CMEK_TOOLS_HTTP_REQUEST_H

#include <stddef.h>

/*
 * The head of an HTTP/1.0 or 1.1 request (RFC 9112), as far as a server needs it that has a few fixed pages and ends every
 * connection after one answer: method and path. Bodies are nobody's business there. Pure; thread-safe.
 */

/* Longest request line, and longest head with the empty line at its end. */
#define CMEK_HTTP_LINE_MAX 2048
#define CMEK_HTTP_HEAD_MAX 8192

enum cmek_http_method { CMEK_HTTP_GET, CMEK_HTTP_HEAD, CMEK_HTTP_OTHER };

struct cmek_http_request {
	int status; /* 200: it can be answered; else the status that is the answer: 400, 414, 431, 505 */
	enum cmek_http_method method; /* these when the status is 200: */
	const char *path; /* into the buffer, without query; path_len 0 when it is of no path ("OPTIONS *") */
	size_t path_len;
};

/*
 * buf: the first len bytes that came in. 0: *ret_request says what it is, and more bytes change nothing about that; -EAGAIN:
 * there must be more.
 */
int cmek_http_request_parse(const char *buf, size_t len, struct cmek_http_request *ret_request);

#endif
