/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_VECTORS_H
#define CMEK_TESTS_VECTORS_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/*
 * The vectors of doc/format.md section 8 (tests/vectors/format-v1.txt): the bytes of `name`, malloced, with a NUL
 * behind them for those that are texts; fails the test when there is none. ret_len may be NULL.
 */
static inline uint8_t *vector_get(const char *name, size_t *ret_len)
{
	const char *dir = getenv("CMEK_SRCDIR");
	size_t name_len = strlen(name), line_size = 0;
	char path[4096], *line = NULL, *hex;
	uint8_t *bytes = NULL;
	ssize_t line_len;
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/vectors/format-v1.txt", dir ? dir : ".");
	f = fopen(path, "re");
	ck_assert_msg(f != NULL, "%s: can't be opened", path);
	while (n < 0 && (line_len = getline(&line, &line_size, f)) > 0) {
		if (strncmp(line, name, name_len) || strncmp(line + name_len, " = ", 3))
			continue;
		line[line_len - 1] = 0;
		hex = line + name_len + 3;
		bytes = malloc(strlen(hex) / 2 + 1);
		ck_assert_ptr_nonnull(bytes);
		n = cmek_hex_decode(hex, strlen(hex), bytes, strlen(hex) / 2);
		ck_assert_msg(n >= 0, "%s: vector %s is not hex", path, name);
		bytes[n] = 0;
	}
	free(line);
	fclose(f);
	ck_assert_msg(n >= 0, "%s: no vector %s", path, name);
	if (ret_len)
		*ret_len = (size_t)n;
	return bytes;
}

/* The vector is just these bytes. */
static inline void vector_check(const char *name, const void *bytes, size_t len)
{
	size_t n;
	uint8_t *want = vector_get(name, &n);

	ck_assert_msg(n == len, "vector %s: %zu bytes, want %zu", name, len, n);
	ck_assert_msg(!memcmp(want, bytes, n), "vector %s: other bytes", name);
	free(want);
}

#endif
