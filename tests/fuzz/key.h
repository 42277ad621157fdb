/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_FUZZ_KEY_H
#define CMEK_TESTS_FUZZ_KEY_H

#include <string.h>

#include "base/secret.h"
#include "tests/fuzz/fuzz.h"

/* The key of every run, bytes 0, 1, 2, ...: what a corpus holds was made with it, and opens with it. The caller owns it. */
static inline struct cmek_secret *fuzz_key_new(enum cmek_purpose purpose, size_t len)
{
	uint8_t bytes[64];
	struct cmek_secret *key = NULL;
	size_t i;

	FUZZ_CHECK(len <= sizeof(bytes));
	for (i = 0; i < len; i++)
		bytes[i] = (uint8_t)i;
	cmek_secret_allow_unlocked();
	FUZZ_CHECK(cmek_secret_new_copy(purpose, bytes, len, &key, NULL) == 0);
	return key;
}

/* The bytes as a text with a NUL behind it. The caller owns it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	FUZZ_CHECK(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

#endif
