/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What AWS, or whoever stands in its place, may answer: errors, credentials, descriptions of keys; and the files of AWS's
 * tools.
 */
#include "config.h"

#include <string.h>

#include "kms/aws_profile.h"
#include "kms/aws_wire.h"
#include "kms/cred_process.h"
#include "kms/json.h"
#include "tests/fuzz/reply.h"

static void read_problem(const char *text, size_t len)
{
	fuzz_problem(CMEK_KMS_SERVICE_AWS, 400, cmek_aws_read_problem, text, len);
}

static void check_creds(int rc, struct cmek_aws_creds *creds)
{
	if (rc != 0) {
		FUZZ_CHECK(creds->secret_key == NULL && creds->token == NULL);
		return;
	}
	FUZZ_CHECK(creds->access_key[0] != '\0' && strchr(creds->access_key, '\n') == NULL);
	fuzz_check_plain(creds->access_key);
	fuzz_check_plain((const char *)cmek_secret_bytes(creds->secret_key, CMEK_KEY_TEXT));
	if (creds->token)
		fuzz_check_plain((const char *)cmek_secret_bytes(creds->token, CMEK_KEY_TEXT));
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

/* A NUL inside ends a file's text early. */
static void read_file(const char *text, size_t len)
{
	static const char *const keys[] = { "region", "aws_secret_access_key", "endpoint_url" };
	struct cmek_aws_value v;
	char **argv = NULL;
	size_t i;

	(void)len;
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		v = cmek_aws_ini_find(text, "profile work", i == 2 ? "kms" : NULL, keys[i]);
		FUZZ_CHECK(!v.text || (v.len > 0 && v.text >= text && v.text + v.len <= text + strlen(text)));
	}
	if (cmek_cred_split(text, strlen(text), &argv, NULL) == 0)
		FUZZ_CHECK(argv[0] != NULL);
	cmek_cred_split_free(argv);
}

const struct fuzz_parser fuzz_parsers[] = {
	{ 'p', read_problem },
	{ 'c', read_creds },
	{ 'k', read_key },
	{ 'f', read_file },
	{ 0, NULL },
};
