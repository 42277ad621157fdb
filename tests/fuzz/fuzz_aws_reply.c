/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What AWS, or whoever stands in its place, may answer: errors, credentials, descriptions of keys; and the files of AWS's
 * tools. The first byte says which reader gets the rest.
 */
#include "config.h"

#include <string.h>

#include "kms/aws_profile.h"
#include "kms/aws_wire.h"
#include "kms/cred_process.h"
#include "kms/json.h"
#include "tests/fuzz/fuzz.h"

static void check_plain(const char *text)
{
	for (; *text; text++)
		FUZZ_CHECK(*text >= ' ' && *text <= '~');
}

static void read_problem(char *text, size_t len)
{
	const struct cmek_http_response resp = { .body = text, .body_len = len };
	struct cmek_problem p = { .code = "" };

	cmek_aws_read_problem(&resp, &p);
	check_plain(p.code);
	check_plain(p.message);
	(void)cmek_problem_classify(CMEK_KMS_SERVICE_AWS, 400, p.code);
}

static void check_creds(int rc, struct cmek_aws_creds *creds)
{
	if (rc != 0) {
		FUZZ_CHECK(creds->secret_key == NULL && creds->token == NULL);
		return;
	}
	FUZZ_CHECK(creds->access_key[0] != '\0' && strchr(creds->access_key, '\n') == NULL);
	check_plain(creds->access_key);
	check_plain((const char *)cmek_secret_bytes(creds->secret_key, CMEK_KEY_TEXT));
	if (creds->token)
		check_plain((const char *)cmek_secret_bytes(creds->token, CMEK_KEY_TEXT));
	cmek_aws_creds_done(creds);
}

static void read_creds(const char *text, size_t len)
{
	struct cmek_aws_creds creds = { .access_key = "" };

	check_creds(cmek_aws_creds_from_json(text, len, "the input", &creds, NULL), &creds);
	memset(&creds, 0, sizeof(creds));
	check_creds(cmek_aws_creds_from_xml(text, len, "the input", &creds, NULL), &creds);
}

static void read_key(const char *text, size_t len)
{
	struct cmek_kms_info info = { .state = CMEK_KMS_ENABLED };
	struct cmek_aws_metadata meta;
	json_t *json = NULL;
	char *marker = NULL;

	if (cmek_json_parse(text, len, "the input", &json, NULL) != 0)
		return;
	if (cmek_aws_metadata_from_json(json, &meta, NULL) == 0) {
		FUZZ_CHECK(meta.info.resolved && meta.info.primary_version && meta.info.origin);
		cmek_aws_metadata_done(&meta);
	}
	(void)cmek_aws_rotations_from_json(json, &info, &marker, NULL);
	free(marker);
	cmek_kms_info_done(&info);
	json_decref(json);
}

/* text ends with a NUL. */
static void read_file(const char *text)
{
	static const char *const keys[] = { "region", "aws_secret_access_key", "endpoint_url" };
	struct cmek_aws_value v;
	char **argv = NULL;
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		v = cmek_aws_ini_find(text, "profile work", i == 2 ? "kms" : NULL, keys[i]);
		FUZZ_CHECK(!v.text || (v.len > 0 && v.text >= text && v.text + v.len <= text + strlen(text)));
	}
	if (cmek_cred_split(text, strlen(text), &argv, NULL) == 0)
		FUZZ_CHECK(argv[0] != NULL);
	cmek_cred_split_free(argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 1)
		return 0;
	/* Bodies and files have a NUL behind them; embedded ones end a file's text early. */
	text = malloc(size);
	if (text == NULL)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0]) {
	case 'p':
		read_problem(text, size - 1);
		break;
	case 'c':
		read_creds(text, size - 1);
		break;
	case 'k':
		read_key(text, size - 1);
		break;
	case 'f':
		read_file(text);
		break;
	default:
		break;
	}
	free(text);
	return 0;
}
