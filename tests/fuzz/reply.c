/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The part of fuzzing answers that is the same for all key services. */
#include "config.h"

#include <string.h>

#include "kms/json.h"
#include "tests/fuzz/reply.h"

void fuzz_check_plain(const char *text)
{
	for (; *text; text++)
		FUZZ_CHECK(*text >= ' ' && *text <= '~');
}

void fuzz_problem(enum cmek_kms_service service, long status,
		  void (*read_problem)(const struct cmek_http_response *resp, struct cmek_problem *ret_problem),
		  const char *text, size_t len)
{
	const struct cmek_http_response resp = { .status = status, .body = (char *)text, .body_len = len };
	struct cmek_problem problem = { { 0 }, { 0 } };

	read_problem(&resp, &problem);
	fuzz_check_plain(problem.code);
	fuzz_check_plain(problem.message);
	FUZZ_CHECK(cmek_problem_classify(service, status, problem.code).kind != CMEK_E_NONE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct fuzz_parser *parser = fuzz_parsers;
	char *text;

	if (size < 1)
		return 0;
	cmek_secret_allow_unlocked();
	cmek_json_init();
	/* Bodies have a NUL behind them, and an allocation of their own shows who reads further. */
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	while (parser->letter && parser->letter != data[0])
		parser++;
	if (parser->run)
		parser->run(text, size - 1);
	free(text);
	return 0;
}
