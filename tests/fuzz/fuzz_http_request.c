/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The head of an HTTP request, which comes in pieces: where these end must not change what it is. */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tools/http_request.h"

static bool same(const struct cmek_http_request *a, const struct cmek_http_request *b)
{
	return a->status == b->status && (a->status != 200 || (a->method == b->method && a->path_len == b->path_len &&
							      (a->path_len == 0 || memcmp(a->path, b->path, a->path_len) == 0)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Exactly as long as it is: a byte too far is seen. */
	char *buf = malloc(size + (size == 0)), *less;
	struct cmek_http_request request, early;
	size_t n = size;
	int rc;

	FUZZ_CHECK(buf != NULL);
	if (size > 0)
		memcpy(buf, data, size);
	rc = cmek_http_request_parse(buf, size, &request);
	FUZZ_CHECK(rc == 0 || (rc == -EAGAIN && size < CMEK_HTTP_HEAD_MAX));
	if (rc == 0) {
		FUZZ_CHECK(request.status == 200 || request.status == 400 || request.status == 414 || request.status == 431 ||
			   request.status == 505);
		if (request.status == 200 && request.path_len > 0)
			FUZZ_CHECK(request.path[0] == '/' && !memchr(request.path, '?', request.path_len) &&
				   !memchr(request.path, ' ', request.path_len));
		if (request.status == 200 && request.path_len == 0)
			FUZZ_CHECK(request.method == CMEK_HTTP_OTHER);
	}
	while (n > 0) {
		n = n > 64 ? n - n / 8 : n - 1;
		less = malloc(n + (n == 0));
		FUZZ_CHECK(less != NULL);
		memcpy(less, buf, n);
		if (cmek_http_request_parse(less, n, &early) == 0)
			FUZZ_CHECK(rc == 0 && same(&early, &request));
		free(less);
	}
	free(buf);
	return 0;
}
