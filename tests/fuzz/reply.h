/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_FUZZ_REPLY_H
#define CMEK_TESTS_FUZZ_REPLY_H

#include "kms/http.h"
#include "tests/fuzz/fuzz.h"

/*
 * What the targets for answers of key services share (reply.c): the first byte of an input says what was asked, the rest is
 * the body. What a parser takes holds to what its header promises; what it refuses leaves nothing behind.
 */
struct fuzz_parser {
	uint8_t letter; /* 0: whatever else the first byte may be, and the end of the table */
	void (*run)(const char *text, size_t len); /* a NUL follows the text; NULL = nothing is done */
};
/* Of the target. */
extern const struct fuzz_parser fuzz_parsers[];

/* Printable, as what ends up in an error's text. */
void fuzz_check_plain(const char *text);
/* The reader of a service's errors. */
void fuzz_problem(enum cmek_kms_service service, long status,
		  void (*read_problem)(const struct cmek_http_response *resp, struct cmek_problem *ret_problem),
		  const char *text, size_t len);

#endif
